//! Ending a broker.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use logmill_log::env::block_on;

use crate::broker::{Broker, Core};
use crate::budget::Budget;
use crate::error::{Error, Reason};
use crate::produce::Lane;

/// So many partitions that keep a close waiting are named.
const NAMED: usize = 3;

impl Broker {
    /// Ends the broker cleanly: takes nothing more, writes what was accepted, ends those who wait, syncs and
    /// closes every log. Blocks as long as the disk does: see [`close_within`](Broker::close_within). The next
    /// open recovers nothing. Closing twice is no error.
    ///
    /// # Errors
    /// What could not be synced or written; everything that can be closed is closed all the same.
    pub fn close(&self) -> Result<(), Error> {
        self.drain();
        let core = self.core();
        for budget in core.unfinished() {
            // The budgets outlive the wait.
            let _ = block_on(&*core.config.env.scheduler, budget.empty());
        }
        core.set.close().map_err(|error| not_clean(&error.to_string()).because(error))
    }

    /// [`close`](Broker::close), but waits no longer than about `timeout` for a disk that may hang.
    ///
    /// Half of the time at most goes to what was accepted and is not written; what is not written then is
    /// answered with [`NodeClosing`](Reason::NodeClosing). A close that takes longer goes on by itself, and the
    /// directory stays locked until it is done or the process has ended: by `std::process::exit`, since dropping
    /// the last [`Env`](logmill_log::env::Env) waits for its threads.
    ///
    /// # Errors
    /// As [`close`](Broker::close); if it takes longer, the error names partitions that it waits for. What was
    /// acknowledged as durable is on disk all the same, and the next start checks the rest.
    ///
    /// ```
    /// use std::time::Duration;
    /// use logmill_broker::{Broker, Config};
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let broker = Broker::open(Config::new(dir.path()))?;
    /// broker.close_within(Duration::from_secs(30))?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn close_within(&self, timeout: Duration) -> Result<(), Error> {
        self.drain();
        let core = self.core();
        let clock = &core.config.env.clock;
        let begun = clock.monotonic();
        core.finish_within(timeout / 2);
        let left = timeout.saturating_sub(clock.monotonic().saturating_sub(begun));
        // It is in the sentence: in milliseconds, not in nanoseconds.
        let left = Duration::from_millis(u64::try_from(left.as_millis()).unwrap_or(u64::MAX));
        core.set.close_within(left).map_err(|error| {
            let waiting = core.waits_for();
            let error_and_what = match waiting.as_str() {
                "" => error.to_string(),
                waiting => format!("the disk has not answered for {waiting} ({error})"),
            };
            not_clean(&error_and_what).because(error)
        })
    }

    /// The first half of [`close`](Broker::close): takes nothing more and ends those who wait for records.
    /// What was accepted is still written and answered.
    pub(crate) fn drain(&self) {
        let core = self.core();
        core.closing.fire();
        for topic in core.catalog.all() {
            for lane in topic.partitions.iter().filter_map(|partition| partition.lane().ok()) {
                lane.refuse(Error::closing());
            }
        }
    }
}

impl Core {
    /// What is to be done before the logs are closed.
    fn unfinished(&self) -> [&Budget; 3] {
        [&self.queued, &self.changing, &self.background]
    }

    /// Waits until it is done, or for so long.
    fn finish_within(&self, timeout: Duration) {
        let done = async {
            for budget in self.unfinished() {
                let _ = budget.empty().await;
            }
        };
        let (mut done, mut timeout) = (pin!(done), pin!(self.timer.sleep(timeout)));
        let either = poll_fn(|context| {
            if done.as_mut().poll(context).is_ready() {
                return Poll::Ready(());
            }
            timeout.as_mut().poll(context)
        });
        block_on(&*self.config.env.scheduler, either);
    }

    /// The partitions with something accepted or visible that is not on disk, a few of them by name. Asks no log
    /// for what a write that hangs would keep.
    fn waits_for(&self) -> String {
        let topics = self.catalog.all();
        let partitions = topics.iter().flat_map(|topic| &topic.partitions);
        let mut waiting = partitions.filter(|partition| partition.lane().is_ok_and(Lane::has_unsynced));
        let named: Vec<String> =
            waiting.by_ref().take(NAMED).map(|partition| partition.name().to_string()).collect();
        match waiting.count() {
            0 => named.join(", "),
            more => format!("{} and {more} more", named.join(", ")),
        }
    }
}

fn not_clean(why: &str) -> Error {
    let message =
        format!("the data directory could not be closed cleanly, the next start will check more: {why}");
    Error::new(Reason::IoFailed, message)
}
