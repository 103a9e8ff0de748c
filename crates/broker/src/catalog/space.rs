//! The space that the data directory's file system has left.
//!
//! A file system that hangs takes one thread however often it is asked, and nobody waits long for it: the node then
//! says what was the case before.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use logmill_log::env::{Space, Work};
use parking_lot::Mutex;

use crate::broker::Core;
use crate::error::{Error, Reason};
use crate::exec::Signal;

/// So long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is known of it.
#[derive(Debug, Default)]
pub(crate) struct SpaceLeft(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    last: Option<Result<Space, Error>>,
    /// While it is being asked: fires when it has answered.
    asked: Option<Signal>,
}

impl SpaceLeft {
    /// What the file system says; if it does not answer in time, what it said last.
    pub(super) async fn look(core: &Core) -> Result<Space, Error> {
        let asked = core.space.ask(core);
        let (mut answered, mut late) = (pin!(asked.fired()), pin!(core.timer.sleep(PATIENCE)));
        poll_fn(|context| match answered.as_mut().poll(context) {
            Poll::Pending => late.as_mut().poll(context),
            ready => ready,
        })
        .await;
        let last = core.space.0.lock().last.clone();
        last.unwrap_or_else(|| {
            let message = format!(
                "the file system of {} has not said how much space it has: look at the disk, and try again",
                core.set.dir().display()
            );
            Err(Error::new(Reason::IoFailed, message))
        })
    }

    fn ask(&self, core: &Core) -> Signal {
        let asked = {
            let mut state = self.0.lock();
            if let Some(asked) = &state.asked {
                return asked.clone();
            }
            state.asked.insert(Signal::default()).clone()
        };
        // It holds nothing of the broker's: it may hang for ever.
        let (fs, dir, state) =
            (Arc::clone(&core.config.env.fs), core.set.dir().to_owned(), Arc::clone(&self.0));
        let ask = move || {
            let said = fs.space(&dir).map_err(|error| Error::io(error, "a look at the space that is left"));
            let asked = {
                let mut state = state.lock();
                state.last = Some(said);
                state.asked.take()
            };
            if let Some(asked) = asked {
                asked.fire();
            }
        };
        core.config.env.scheduler.spawn(Work::Read, Box::new(ask));
        asked
    }
}
