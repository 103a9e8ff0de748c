//! Closing the logs of a set, several at the same time: each waits for the disk a few times.
//!
//! The caller closes one after another, and tasks in the background do the same beside it. None has to come round:
//! where all threads wait for files that hang, the caller closes what is left.

use std::sync::Arc;
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use crate::env::{Scheduler, Work, block_on};
use crate::error::{Error, ErrorKind};
use crate::log::LogInner;

/// So many are closed beside the caller's: the kernel merges flushes that are in flight together.
const BESIDE: usize = 7;

struct Closing {
    /// Those that nobody closes yet, with their numbers; the last is closed next. Who has closed one lets go of it
    /// before it counts as done: a log holds maps of its files.
    logs: Mutex<Vec<(usize, Arc<LogInner>)>>,
    results: Mutex<Results>,
}

#[derive(Default)]
struct Results {
    done: usize,
    /// The failure of the first log that has one.
    failed: Option<(usize, Error)>,
    caller: Option<Waker>,
}

/// Closes them all. The failure of the first that has one; the others are closed all the same.
pub(super) fn close_all(scheduler: &dyn Scheduler, logs: Vec<Arc<LogInner>>) -> Result<(), Error> {
    let total = logs.len();
    let logs = logs.into_iter().enumerate().rev().collect();
    let closing = Arc::new(Closing { logs: Mutex::new(logs), results: Mutex::default() });
    for _ in 0..BESIDE.min(total.saturating_sub(1)) {
        let closing = Arc::clone(&closing);
        scheduler.spawn(Work::Background, Box::new(move || closing.run()));
    }
    closing.run();
    block_on(
        scheduler,
        std::future::poll_fn(|context| {
            let mut results = closing.results.lock();
            if results.done == total {
                return Poll::Ready(());
            }
            results.caller = Some(context.waker().clone());
            Poll::Pending
        }),
    );
    let failed = closing.results.lock().failed.take();
    failed.map_or(Ok(()), |(_, error)| Err(error))
}

impl Closing {
    /// Closes one that nobody closes yet, and then the next one.
    fn run(&self) {
        loop {
            let next = self.logs.lock().pop();
            let Some((number, log)) = next else { return };
            let mut one = One { closing: self, number, outcome: Err(panicked()) };
            one.outcome = log.close();
            drop(log);
        }
    }
}

/// The close of one log, which ends however it ends: the caller waits for it.
struct One<'a> {
    closing: &'a Closing,
    number: usize,
    outcome: Result<(), Error>,
}

impl Drop for One<'_> {
    fn drop(&mut self) {
        let outcome = std::mem::replace(&mut self.outcome, Ok(()));
        let caller = {
            let mut results = self.closing.results.lock();
            results.done += 1;
            if let Err(error) = outcome
                && results.failed.as_ref().is_none_or(|(first, _)| self.number < *first)
            {
                results.failed = Some((self.number, error));
            }
            results.caller.take()
        };
        caller.into_iter().for_each(Waker::wake);
    }
}

fn panicked() -> Error {
    Error::new(ErrorKind::OutcomeUnknown, "the close of a log ended by a panic, which was reported by itself")
}
