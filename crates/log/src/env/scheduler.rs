//! Scheduling, injected: who runs background work, and in which order.

use std::any::Any;
use std::fmt;
use std::sync::Weak;
use std::time::Duration;

/// A piece of background work. It runs once, to its end, and may spawn others; see [`Scheduler`].
///
/// ```
/// use logmill_log::env::{Env, Task, Work};
///
/// let hello: Task = Box::new(|| println!("hello from a thread of the log"));
/// Env::real().scheduler.spawn(Work::Background, hello);
/// ```
pub type Task = Box<dyn FnOnce() + Send>;

/// Tells whether somebody still needs what a task does: until the last strong reference goes.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use logmill_log::env::{Env, Wanted, Work};
///
/// let caller = Arc::new("who waits for it");
/// let wanted: Wanted = Arc::<&str>::downgrade(&caller);
/// let task = Box::new(|| println!("nobody gave up"));
/// Env::real().scheduler.spawn_after_if_wanted(Work::Wake, Duration::from_secs(60), wanted, task);
/// drop(caller); // what the task holds may go now, not in a minute
/// ```
pub type Wanted = Weak<dyn Any + Send + Sync>;

/// What kind of work a task does. Each kind has threads of its own, so that a device that stalls
/// one kind does not hold up the others.
///
/// ```
/// use logmill_log::env::Work;
///
/// assert_eq!(Work::ALL.len(), 7);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Work {
    /// Syncing files.
    Sync,
    /// Writing to logs.
    Append,
    /// Reading from logs.
    Read,
    /// What nobody waits for: looking after logs, deletion.
    Background,
    /// Rewriting logs, which takes a processor for long.
    Compaction,
    /// Waking those whose time has come; never blocks.
    Wake,
    /// Writing the checkpoint, which has to come in time however much there is to do in the
    /// background.
    Checkpoint,
}

impl Work {
    /// Every kind, in a fixed order.
    pub const ALL: [Self; 7] = [
        Self::Sync,
        Self::Append,
        Self::Read,
        Self::Background,
        Self::Compaction,
        Self::Wake,
        Self::Checkpoint,
    ];
}

/// Runs tasks: on threads of its own in production, one after another in seeded order in a
/// simulation.
///
/// ```
/// use std::sync::mpsc;
/// use std::time::Duration;
/// use logmill_log::env::{Env, Work};
///
/// let env = Env::real();
/// let (sender, receiver) = mpsc::channel();
/// let task = move || sender.send("done").unwrap();
/// env.scheduler.spawn_after(Work::Background, Duration::from_millis(1), Box::new(task));
/// assert_eq!(receiver.recv(), Ok("done"));
/// ```
pub trait Scheduler: fmt::Debug + Send + Sync {
    /// Runs `task` as soon as possible. Never runs it before returning.
    fn spawn(&self, work: Work, task: Task);

    /// Runs `task` when `delay` has passed.
    fn spawn_after(&self, work: Work, delay: Duration, task: Task);

    /// [`spawn_after`](Self::spawn_after) for a task that nobody needs once `wanted` is gone: it may
    /// be dropped before its time, so that waits that were given up cost no memory.
    fn spawn_after_if_wanted(&self, work: Work, delay: Duration, wanted: Wanted, task: Task) {
        let _ = wanted;
        self.spawn_after(work, delay, task);
    }

    /// Called by someone about to wait: runs one task on the calling thread and returns true, or
    /// returns false if the scheduler has threads of its own and waiting is in order.
    fn help(&self) -> bool;
}
