//! Background work without threads: tasks run one after another, in an order that the seed fixes.

use std::collections::BTreeMap;
use std::fmt;
use std::mem;
use std::time::Duration;

use parking_lot::Mutex;

use super::{SimClock, SimRandom};
use crate::env::{Clock, Scheduler, Task, Work};

/// How far waiting alone may move the clock. Timers that set each other again would else keep a
/// wait for nothing going for ever.
const WAIT_LIMIT: Duration = Duration::from_hours(30 * 24);

/// Runs tasks on the thread of whoever waits for them, picked from all that are ready.
///
/// Time passes only when no task is ready: the clock then moves to the next timer. A task's panic
/// goes through to whoever ran it. The lock is a leaf: no task runs or is dropped under it, so
/// tasks may spawn tasks and wait for them.
///
/// ```
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicBool, Ordering};
/// use std::time::Duration;
/// use logmill_log::env::{Scheduler, Work};
/// use logmill_log::sim::Sim;
///
/// let sim = Sim::new(1);
/// let ran = Arc::new(AtomicBool::new(false));
/// let flag = Arc::clone(&ran);
/// let task = Box::new(move || flag.store(true, Ordering::Relaxed));
/// sim.scheduler.spawn_after(Work::Background, Duration::from_secs(60), task);
///
/// sim.scheduler.run_for(Duration::from_secs(59));
/// assert!(!ran.load(Ordering::Relaxed));
/// sim.scheduler.run_for(Duration::from_secs(1));
/// assert!(ran.load(Ordering::Relaxed));
/// ```
pub struct SeededScheduler {
    clock: SimClock,
    random: SimRandom,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    ready: Vec<Task>,
    /// By the time they are due, then in the order they came.
    timers: BTreeMap<(Duration, u64), Task>,
    next_timer: u64,
    /// How far waiting has moved the clock since the test last ran tasks itself.
    waited: Duration,
    closed: bool,
}

impl SeededScheduler {
    /// A scheduler without any tasks.
    #[must_use]
    pub fn new(clock: SimClock, random: SimRandom) -> Self {
        Self { clock, random, state: Mutex::default() }
    }

    /// Runs one ready task; if there is none, moves the clock to the next timer and runs that.
    /// False if there is nothing at all to run.
    pub fn step(&self) -> bool {
        self.state.lock().waited = Duration::ZERO;
        self.step_until(None)
    }

    /// Runs tasks until none is ready. The clock stays, so timers that are not due stay too.
    pub fn run_until_idle(&self) {
        self.state.lock().waited = Duration::ZERO;
        let now = self.clock.monotonic();
        while self.step_until(Some(now)) {}
    }

    /// Runs everything that falls due within this time, and leaves the clock at its end.
    pub fn run_for(&self, time: Duration) {
        self.state.lock().waited = Duration::ZERO;
        let end = self.clock.monotonic().saturating_add(time);
        while self.step_until(Some(end)) {}
        self.clock.advance_to(end);
    }

    /// How many tasks wait, timers included.
    #[must_use]
    pub fn waiting(&self) -> usize {
        let state = self.state.lock();
        state.ready.len() + state.timers.len()
    }

    fn step_until(&self, end: Option<Duration>) -> bool {
        let Some(task) = self.take(end) else { return false };
        task();
        true
    }

    /// Takes the task that is next, out of those due by `end`.
    fn take(&self, end: Option<Duration>) -> Option<Task> {
        let mut state = self.state.lock();
        if state.ready.is_empty() {
            let (due, _) = *state.timers.first_key_value()?.0;
            if end.is_some_and(|end| due > end) {
                return None;
            }
            self.clock.advance_to(due);
        }
        // Also those that fell due while a task ran or a disk stalled.
        let now = self.clock.monotonic();
        while let Some(first) = state.timers.first_entry() {
            if first.key().0 > now {
                break;
            }
            let task = first.remove();
            state.ready.push(task);
        }
        let picked = self.random.index(state.ready.len());
        Some(state.ready.remove(picked))
    }

    /// The machine is gone: drops all tasks, and from now on every task spawned.
    pub(super) fn close(&self) {
        let dropped = {
            let mut state = self.state.lock();
            state.closed = true;
            (mem::take(&mut state.ready), mem::take(&mut state.timers))
        };
        // Not under the lock: what a task owns may spawn in its `Drop`.
        drop(dropped);
    }
}

impl fmt::Debug for SeededScheduler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SeededScheduler")
            .field("ready", &state.ready.len())
            .field("timers", &state.timers.len())
            .field("closed", &state.closed)
            .finish_non_exhaustive()
    }
}

impl Scheduler for SeededScheduler {
    fn spawn(&self, _: Work, task: Task) {
        // The guard goes before `task` does, also when the task is not taken.
        let mut state = self.state.lock();
        if !state.closed {
            state.ready.push(task);
        }
    }

    fn spawn_after(&self, _: Work, delay: Duration, task: Task) {
        let due = self.clock.monotonic().saturating_add(delay);
        let mut state = self.state.lock();
        if !state.closed {
            state.next_timer += 1;
            let id = state.next_timer;
            state.timers.insert((due, id), task);
        }
    }

    /// # Panics
    ///
    /// If there is nothing to run, or nothing but timers for 30 days of simulated time: the
    /// caller waits for something that never happens, and in production would hang.
    #[expect(clippy::panic, reason = "a wait that cannot end is a bug in the program under test")]
    fn help(&self) -> bool {
        let before = self.clock.monotonic();
        if let Some(task) = self.take(None) {
            let mut state = self.state.lock();
            state.waited += self.clock.monotonic() - before;
            let waited = state.waited;
            drop(state);
            assert!(waited < WAIT_LIMIT, "a caller waits, and for 30 simulated days nothing woke it");
            task();
            return true;
        }
        if self.state.lock().closed {
            panic!("waiting on a simulated machine that has restarted: its tasks are gone, use the new Env");
        }
        panic!("deadlock: a caller waits, but no task and no timer is left that could wake it");
    }
}
