//! Opening many logs at the same time.
//!
//! A bounded number of tasks each open one log after another; the caller waits, and hears of each
//! on its own thread.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Poll, Waker};

use parking_lot::Mutex;

use super::LogSet;
use crate::env::{Work, block_on};
use crate::error::Error;
use crate::log::{Log, OnRead};
use crate::options::LogOptions;

/// So many logs are opened at the same time: enough to keep a disk busy with reads.
const AT_ONCE: usize = 16;

/// How far opening many logs is. See [`LogSet::open_logs`].
///
/// ```
/// use logmill_log::{LogOptions, LogSet, OpenProgress, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// set.create("orders", b"", LogOptions::default())?.close()?;
/// let mut last: Option<OpenProgress> = None;
/// set.open_logs(["orders", "gone"], LogOptions::default(), |so_far| last = Some(so_far));
/// let last = last.expect("there were logs to open");
/// assert_eq!((last.done, last.failed, last.total, last.scanned_bytes), (2, 1, 2, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// Logs that are open, or could not be opened.
    pub done: usize,
    /// Those of them that could not be.
    pub failed: usize,
    /// All that are to be opened.
    pub total: usize,
    /// Bytes of their segments that had to be read: none of logs that were closed cleanly.
    pub scanned_bytes: u64,
}

/// What the tasks share.
struct Opening {
    set: LogSet,
    options: LogOptions,
    paths: Vec<PathBuf>,
    next: AtomicUsize,
    /// Apart, so that a task can let go of the set before it says that it is done: a caller that
    /// has all its logs may close the set at once.
    results: Arc<Mutex<Results>>,
}

struct Results {
    scanned_bytes: u64,
    done: usize,
    failed: usize,
    logs: Vec<Option<Result<Log, Error>>>,
    caller: Option<Waker>,
}

impl Results {
    fn so_far(&self) -> OpenProgress {
        let Self { done, failed, scanned_bytes, .. } = *self;
        OpenProgress { done, failed, total: self.logs.len(), scanned_bytes }
    }
}

/// Bytes have to be so many more before they alone are worth telling.
const TOLD_BYTES: u64 = 16 << 20;

impl OpenProgress {
    fn is_news_after(&self, told: &Self) -> bool {
        self.done > told.done || self.scanned_bytes >= told.scanned_bytes + TOLD_BYTES
    }
}

impl LogSet {
    /// [`LogSet::open_log`] for many, several at a time. Blocks until all are open or have failed;
    /// calls `progress` on this thread, after one or more of them each time, and while they read much. The results come in
    /// the order of `paths`.
    ///
    /// ```
    /// use logmill_log::{LogOptions, LogSet, SetOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// let set = LogSet::open(dir.path(), SetOptions::default())?;
    /// for path in ["orders", "payments"] {
    ///     set.create(path, b"", LogOptions::default())?.close()?;
    /// }
    /// let progress = |so_far: logmill_log::OpenProgress| {
    ///     println!("{} of {}, {} bytes read", so_far.done, so_far.total, so_far.scanned_bytes);
    /// };
    /// let logs = set.open_logs(["orders", "payments", "gone"], LogOptions::default(), progress);
    /// assert!(logs[0].is_ok() && logs[1].is_ok() && logs[2].is_err());
    /// # Ok(())
    /// # }
    /// ```
    pub fn open_logs<P: AsRef<Path>>(
        &self,
        paths: impl IntoIterator<Item = P>,
        options: LogOptions,
        mut progress: impl FnMut(OpenProgress),
    ) -> Vec<Result<Log, Error>> {
        let paths: Vec<PathBuf> = paths.into_iter().map(|path| path.as_ref().to_owned()).collect();
        let total = paths.len();
        let logs = paths.iter().map(|_| None).collect();
        let results =
            Arc::new(Mutex::new(Results { scanned_bytes: 0, done: 0, failed: 0, logs, caller: None }));
        let (set, next) = (self.clone(), AtomicUsize::new(0));
        let opening = Arc::new(Opening { set, options, paths, next, results: Arc::clone(&results) });
        for _ in 0..AT_ONCE.min(total) {
            spawn_next(&opening);
        }
        let mut told = OpenProgress { done: 0, failed: 0, total, scanned_bytes: 0 };
        while told.done < total {
            told = block_on(
                &*self.env().scheduler,
                std::future::poll_fn(|context| {
                    let mut state = results.lock();
                    if state.so_far().is_news_after(&told) {
                        return Poll::Ready(state.so_far());
                    }
                    state.caller = Some(context.waker().clone());
                    Poll::Pending
                }),
            );
            progress(told);
        }
        let logs = std::mem::take(&mut results.lock().logs);
        logs.into_iter().map(|result| result.expect("all are done")).collect()
    }
}

/// Counts what is read, and wakes the caller where that is worth telling.
fn hears(results: &Arc<Mutex<Results>>) -> OnRead {
    let results = Arc::clone(results);
    Box::new(move |read| {
        let caller = {
            let mut results = results.lock();
            let before = results.scanned_bytes;
            results.scanned_bytes += read;
            let wakes = results.scanned_bytes / TOLD_BYTES > before / TOLD_BYTES;
            if wakes { results.caller.take() } else { None }
        };
        caller.into_iter().for_each(Waker::wake);
    })
}

/// Opens the next log that nobody opens yet, and then the one after it.
fn spawn_next(opening: &Arc<Opening>) {
    let number = opening.next.fetch_add(1, Ordering::Relaxed);
    if number >= opening.paths.len() {
        return;
    }
    let task = {
        let opening = Arc::clone(opening);
        move || {
            let on_read = hears(&opening.results);
            let result = opening.set.open_log_heard(&opening.paths[number], opening.options, Some(on_read));
            spawn_next(&opening);
            let results = Arc::clone(&opening.results);
            drop(opening);
            let caller = {
                let mut results = results.lock();
                results.done += 1;
                results.failed += usize::from(result.is_err());
                results.logs[number] = Some(result);
                results.caller.take()
            };
            caller.into_iter().for_each(Waker::wake);
        }
    };
    opening.set.env().scheduler.spawn(Work::Read, Box::new(task));
}
