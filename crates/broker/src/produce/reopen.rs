//! A log whose sync has failed is opened again, at what is known to be on disk.
//!
//! Until then its partition says that it is being opened again, and can be read. Tries come further and further
//! apart, as timed tasks that hold nothing. What was written and not on disk is gone when the log is open again,
//! unless the disk kept it: its senders are told that the outcome is unknown, and their idempotent producers send
//! it again.
//!
//! A log that ends because its topic or the node goes is not opened again: the lane's refusal is set before.

use std::any::Any;
use std::future::Future;
use std::sync::{Arc, Weak};
use std::time::Duration;

use logmill_log::env::Work;
use logmill_log::{ErrorKind, Log, LogOptions, LogState};
use logmill_record::Offset;

use super::lane::{Lane, Shared};
use super::order::Openings;
use crate::error::{Error, PartitionName, Reason};
use crate::exec::Signal;

/// A sync may fail once and never again.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// For a disk that somebody has to look at.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The log that the partition is served from.
#[derive(Clone, Debug)]
pub(super) struct Serving {
    pub(super) log: Log,
    /// How often it was opened again.
    pub(super) generation: u64,
    /// Its end each time.
    pub(super) openings: Arc<Openings>,
}

/// The log is to be opened again.
#[derive(Debug)]
pub(super) struct Reopening {
    /// Why, or why the last try failed.
    error: logmill_log::Error,
    /// How often it was tried.
    tries: u32,
    pause: Duration,
    /// On the monotonic clock.
    next_try: Duration,
    /// It is being tried now: the former log is closed.
    is_opening: bool,
    /// Fires when it is open, or will never be.
    pub(super) ended: Signal,
}

impl Lane {
    /// The partition's log as it is now; another one after it was opened again.
    pub(crate) fn log(&self) -> Log {
        self.0.state.lock().serving.log.clone()
    }

    /// Why the partition takes nothing now, if it is being opened again.
    pub(crate) fn reopening(&self) -> Option<Error> {
        self.0.reopening()
    }

    /// Whether it is being opened again.
    pub(crate) fn is_reopening(&self) -> bool {
        self.0.state.lock().reopening.is_some()
    }

    /// Whether its log can be asked nothing now, because another is about to take its place.
    pub(crate) fn is_opening(&self) -> bool {
        self.0.state.lock().reopening.as_ref().is_some_and(|reopening| reopening.is_opening)
    }

    /// A log of this partition has ended with `error`; whether another will take its place.
    pub(super) fn has_ended(&self, generation: u64, error: &logmill_log::Error) -> bool {
        self.0.has_ended(generation, error)
    }

    /// The sync of what was written has failed, or its log was closed before.
    pub(super) fn not_confirmed(&self, generation: u64, error: &logmill_log::Error) -> Error {
        let again = self.has_ended(generation, error);
        if again { self.0.name.outcome_unknown(error) } else { self.explain(error) }
    }

    /// Resolves when what was written up to `last`, when the log was opened for the `generation`th time, is on disk;
    /// with an error if it is lost.
    pub(crate) async fn confirm(&self, generation: u64, last: Offset) -> Result<(), Error> {
        let serving = self.0.state.lock().serving.clone();
        if serving.generation == generation {
            let on_disk = serving.log.on_disk(last).await;
            return on_disk.map_err(|error| self.not_confirmed(generation, &error));
        }
        match serving.openings.lost_from(generation) {
            Some(lost) if lost <= last => Err(self.0.name.lost(last)),
            _ => Ok(()),
        }
    }

    /// Its name, for errors.
    pub(crate) fn name(&self) -> &PartitionName {
        &self.0.name
    }

    /// That log, and how often there was another before.
    pub(crate) fn serving(&self) -> (Log, u64) {
        let Serving { log, generation, .. } = self.0.state.lock().serving.clone();
        (log, generation)
    }

    /// Resolves when readers can see past `offset`, or the log is not the one that was `seen`, and may have lost
    /// what it had; or with the error that ends the partition.
    pub(crate) fn beyond(
        &self,
        offset: Offset,
        seen: Option<u64>,
    ) -> impl Future<Output = Result<(), logmill_log::Error>> + Send + Sync + 'static + use<> {
        let lane = self.clone();
        async move {
            loop {
                // The log that is there can be asked nothing then.
                if let Some(opened) = lane.reopened(|reopening| reopening.is_opening) {
                    opened.fired().await;
                }
                let (log, generation) = lane.serving();
                if seen != Some(generation) {
                    // Nor can it be asked what it holds before it is open again.
                    let Some(opened) = lane.reopened(|_| true) else { return Ok(()) };
                    opened.fired().await;
                    continue;
                }
                let Err(error) = log.beyond(offset).await else { return Ok(()) };
                if !lane.has_ended(generation, &error) {
                    return Err(error);
                }
                if let Some(opened) = lane.reopened(|_| true) {
                    opened.fired().await;
                }
            }
        }
    }

    /// Fires when it is open again, if it is being opened again as `which` says.
    fn reopened(&self, which: impl Fn(&Reopening) -> bool) -> Option<Signal> {
        let state = self.0.state.lock();
        state.reopening.as_ref().filter(|reopening| which(reopening)).map(|reopening| reopening.ended.clone())
    }
}

impl Shared {
    pub(super) fn reopening(&self) -> Option<Error> {
        let state = self.state.lock();
        let Reopening { error, tries, next_try, .. } = state.reopening.as_ref()?;
        let now = state.serving.log.env().clock.monotonic();
        let wait_ms = next_try.saturating_sub(now).as_millis().max(1);
        let message = format!(
            "{} takes nothing since a sync of it failed, and is opened again in {wait_ms} ms (tried {tries} times): \
             send again then, and look at the disk if it stays so ({error})",
            self.name
        );
        let told = Error::new(Reason::PartitionReopening, message);
        let told = told.with("topic", &self.name.topic).with("partition", self.name.partition);
        Some(told.with("retry_after_ms", wait_ms).because(error.clone()))
    }

    /// A log of this partition has ended with `error`; whether another will take its place.
    pub(super) fn has_ended(self: &Arc<Self>, generation: u64, error: &logmill_log::Error) -> bool {
        let ends =
            matches!(error.kind(), ErrorKind::Poisoned | ErrorKind::OutcomeUnknown | ErrorKind::Closed);
        {
            let mut state = self.state.lock();
            if !ends || state.refusal.is_some() || state.failed {
                return false;
            }
            if state.serving.generation != generation || state.reopening.is_some() {
                return true;
            }
            if error.kind() == ErrorKind::Closed {
                return false;
            }
            let next_try = state.serving.log.env().clock.monotonic() + FIRST_PAUSE;
            let (error, pause) = (error.clone(), FIRST_PAUSE);
            let ended = Signal::default();
            state.reopening = Some(Reopening { error, tries: 0, pause, next_try, is_opening: false, ended });
        }
        tracing::warn!(partition = %self.name, %error, "a partition has to be opened again");
        self.reopen_after(FIRST_PAUSE);
        true
    }

    fn reopen_after(self: &Arc<Self>, pause: Duration) {
        let shared = Arc::downgrade(self);
        let wanted: Weak<dyn Any + Send + Sync> = Arc::<Self>::downgrade(self);
        let task = move || {
            if let Some(shared) = shared.upgrade() {
                shared.reopen();
            }
        };
        self.scheduler.spawn_after_if_wanted(Work::Append, pause, wanted, Box::new(task));
    }

    fn reopen(self: &Arc<Self>) {
        let Some(_turn) = self.reopenings.try_take() else { return self.reopen_after(FIRST_PAUSE) };
        let (log, options) = {
            let mut state = self.state.lock();
            if state.refusal.is_some() {
                return;
            }
            let (log, options) = (state.serving.log.clone(), state.log_options);
            let Some(reopening) = &mut state.reopening else { return };
            reopening.is_opening = true;
            reopening.tries = reopening.tries.saturating_add(1);
            (log, options)
        };
        match open_again(&log, options) {
            Ok(log) => self.serve(&log),
            // The node is closing.
            Err(error) if error.kind() == ErrorKind::Closed => self.end_reopening(),
            Err(error) => self.try_again(error),
        }
    }

    /// Goes on with the log that was opened; only to be read if damage was found.
    fn serve(self: &Arc<Self>, log: &Log) {
        let damage = match log.stats().state {
            LogState::ReadOnly(error) => Some(error),
            _ => None,
        };
        let opened_at = log.end_offset();
        let refusal = {
            let mut state = self.state.lock();
            if state.refusal.is_none() {
                let generation = state.serving.generation + 1;
                let mut openings = Arc::clone(&state.serving.openings);
                Arc::make_mut(&mut openings).push(generation, opened_at);
                state.serving = Serving { log: log.clone(), generation, openings };
                state.written_end = opened_at;
                state.failed = damage.is_some();
            }
            state.refusal.clone()
        };
        if refusal.is_none() {
            // They may have changed while it was opened with those of before.
            Lane(Arc::clone(self)).apply_options();
        }
        match (refusal, damage) {
            // Its topic was deleted meanwhile, and its directory is about to go.
            (Some(refusal), _) if refusal.reason() != Reason::NodeClosing => log.retire(),
            (Some(_), _) => {}
            (None, Some(error)) => {
                tracing::error!(partition = %self.name, %error, "a partition can only be read");
            }
            (None, None) => tracing::info!(partition = %self.name, %opened_at, "a partition is open again"),
        }
        self.end_reopening();
    }

    /// Whoever waits looks again.
    pub(super) fn end_reopening(&self) {
        let reopening = self.state.lock().reopening.take();
        if let Some(reopening) = reopening {
            reopening.ended.fire();
        }
    }

    fn try_again(self: &Arc<Self>, error: logmill_log::Error) {
        tracing::warn!(partition = %self.name, %error, "a partition could not be opened again");
        let pause = {
            let mut state = self.state.lock();
            let now = state.serving.log.env().clock.monotonic();
            let Some(reopening) = &mut state.reopening else { return };
            reopening.pause = (reopening.pause * 2).min(LONGEST_PAUSE);
            reopening.next_try = now + reopening.pause;
            reopening.error = error;
            reopening.pause
        };
        self.reopen_after(pause);
    }
}

fn open_again(log: &Log, options: LogOptions) -> Result<Log, logmill_log::Error> {
    let set = log.set();
    let path = log.dir().strip_prefix(set.dir()).expect("a log lies in its set's directory");
    set.open_log(path, options)
}
