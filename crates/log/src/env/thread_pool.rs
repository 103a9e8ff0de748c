//! The scheduler of production: threads that are started when there is work.
//!
//! Each kind of [`Work`] has a queue and threads of its own. A thread without work for a few
//! seconds ends, so an idle node has next to none. Lock order: a pool's lock is a leaf.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use super::{Clock, Scheduler, SystemClock, Task, Wanted, Work};

const IDLE_BEFORE_EXIT: Duration = Duration::from_secs(5);

/// Threads that run tasks; dropping it joins them. Tasks not yet started by then are dropped.
///
/// ```
/// use std::sync::mpsc;
/// use logmill_log::env::{Scheduler, ThreadPool, Work};
///
/// let pool = ThreadPool::new();
/// let (sender, receiver) = mpsc::channel();
/// pool.spawn(Work::Read, Box::new(move || sender.send(std::thread::current().id()).unwrap()));
/// assert_ne!(receiver.recv().unwrap(), std::thread::current().id());
/// ```
pub struct ThreadPool {
    crews: [Arc<Crew>; Work::ALL.len()],
    timer: Arc<Timer>,
}

impl ThreadPool {
    /// A pool without any threads yet.
    #[must_use]
    pub fn new() -> Self {
        let crews = Work::ALL.map(|work| Arc::new(Crew::new(work)));
        let timer =
            Arc::new(Timer { clock: SystemClock::new(), state: Mutex::default(), changed: Condvar::new() });
        Self { crews, timer }
    }

    fn crew(&self, work: Work) -> &Arc<Crew> {
        &self.crews[work as usize]
    }
}

impl Default for ThreadPool {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ThreadPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("ThreadPool");
        for crew in &self.crews {
            debug.field(crew.name, &crew.state.lock().threads.len());
        }
        debug.finish()
    }
}

impl Scheduler for ThreadPool {
    fn spawn(&self, work: Work, task: Task) {
        self.crew(work).push(task);
    }

    fn spawn_after(&self, work: Work, delay: Duration, task: Task) {
        self.timer.push(delay, Arc::clone(self.crew(work)), None, task);
    }

    fn spawn_after_if_wanted(&self, work: Work, delay: Duration, wanted: Wanted, task: Task) {
        self.timer.push(delay, Arc::clone(self.crew(work)), Some(wanted), task);
    }

    fn help(&self) -> bool {
        false
    }
}

impl Drop for ThreadPool {
    fn drop(&mut self) {
        let mut threads = Vec::new();
        {
            let mut timer = self.timer.state.lock();
            timer.closed = true;
            timer.waiting.clear();
            threads.extend(timer.thread.take());
        }
        self.timer.changed.notify_all();
        let mut dropped = Vec::new();
        for crew in &self.crews {
            let mut state = crew.state.lock();
            state.closed = true;
            dropped.extend(state.queue.drain(..));
            threads.append(&mut state.threads);
            drop(state);
            crew.work_came.notify_all();
        }
        drop(dropped);
        for thread in threads {
            // The last handle may go inside a task: a thread cannot join itself.
            if thread.thread().id() != thread::current().id() {
                // A task's panic has been reported by the panic hook already.
                let _ = thread.join();
            }
        }
    }
}

/// The threads of one kind of work.
struct Crew {
    name: &'static str,
    most: usize,
    state: Mutex<CrewState>,
    work_came: Condvar,
}

#[derive(Default)]
struct CrewState {
    queue: VecDeque<Task>,
    idle: usize,
    threads: Vec<JoinHandle<()>>,
    closed: bool,
}

impl Crew {
    fn new(work: Work) -> Self {
        let (name, most) = match work {
            // The kernel merges flushes that are in flight together.
            Work::Sync => ("logmill-sync", 64),
            Work::Append => ("logmill-append", 16),
            // Those that wait for a disk must leave some for what is cached.
            Work::Read => ("logmill-read", 64),
            // Each may wait for a file that hangs.
            Work::Background => ("logmill-back", 8),
            Work::Compaction => ("logmill-compact", 2),
            Work::Wake => ("logmill-wake", 1),
            Work::Checkpoint => ("logmill-check", 1),
        };
        Self { name, most, state: Mutex::default(), work_came: Condvar::new() }
    }

    fn push(self: &Arc<Self>, task: Task) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.queue.push_back(task);
        if state.idle >= state.queue.len() {
            self.work_came.notify_one();
        } else if state.threads.len() < self.most {
            self.start_thread(&mut state);
        }
    }

    fn start_thread(self: &Arc<Self>, state: &mut CrewState) {
        let crew = Arc::clone(self);
        match thread::Builder::new().name(self.name.into()).spawn(move || crew.run()) {
            Ok(handle) => state.threads.push(handle),
            // Its tasks wait for the threads there are, or for the next try.
            Err(error) => tracing::error!(%error, crew = self.name, "cannot start a thread"),
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            if let Some(task) = state.queue.pop_front() {
                drop(state);
                // A panic ends this task, not the thread's other work.
                let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(task));
                state = self.state.lock();
                continue;
            }
            if state.closed {
                return;
            }
            state.idle += 1;
            let timed_out = self.work_came.wait_for(&mut state, IDLE_BEFORE_EXIT).timed_out();
            state.idle -= 1;
            if timed_out && state.queue.is_empty() {
                let me = thread::current().id();
                state.threads.retain(|thread| thread.thread().id() != me);
                return;
            }
        }
    }
}

/// One thread that hands tasks to their crews when their time has come.
struct Timer {
    clock: SystemClock,
    state: Mutex<TimerState>,
    changed: Condvar,
}

#[derive(Default)]
struct TimerState {
    waiting: BinaryHeap<Reverse<Waiting>>,
    /// At this length, those that nobody wants any more are taken out.
    sweep_at: usize,
    next_id: u64,
    thread: Option<JoinHandle<()>>,
    closed: bool,
}

struct Waiting {
    due: Duration,
    id: u64,
    crew: Arc<Crew>,
    wanted: Option<Wanted>,
    task: Task,
}

impl Waiting {
    fn is_wanted(&self) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.strong_count() > 0)
    }
}

/// Fewer timers than this are not worth looking through.
const MIN_SWEEP: usize = 1_024;

impl TimerState {
    /// Takes out what nobody wants any more. The next time is when as many have come again as are
    /// left, so that each timer is looked at about once.
    fn sweep(&mut self) -> Vec<Reverse<Waiting>> {
        if self.waiting.len() < self.sweep_at.max(MIN_SWEEP) {
            return Vec::new();
        }
        let waiting = std::mem::take(&mut self.waiting).into_vec();
        let (wanted, gone): (Vec<_>, Vec<_>) = waiting.into_iter().partition(|Reverse(one)| one.is_wanted());
        self.waiting = wanted.into();
        self.sweep_at = self.waiting.len() * 2;
        gone
    }
}

impl PartialEq for Waiting {
    fn eq(&self, other: &Self) -> bool {
        (self.due, self.id) == (other.due, other.id)
    }
}
impl Eq for Waiting {}
impl PartialOrd for Waiting {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Waiting {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.due, self.id).cmp(&(other.due, other.id))
    }
}

impl Timer {
    fn push(self: &Arc<Self>, delay: Duration, crew: Arc<Crew>, wanted: Option<Wanted>, task: Task) {
        let mut state = self.state.lock();
        if state.closed {
            return;
        }
        state.next_id += 1;
        let (due, id) = (self.clock.monotonic().saturating_add(delay), state.next_id);
        state.waiting.push(Reverse(Waiting { due, id, crew, wanted, task }));
        let gone = state.sweep();
        if state.thread.is_none() {
            self.start_thread(&mut state);
        }
        drop(state);
        self.changed.notify_one();
        // Without the lock: what a task owns may come here when it is dropped.
        drop(gone);
    }

    fn start_thread(self: &Arc<Self>, state: &mut TimerState) {
        let timer = Arc::clone(self);
        match thread::Builder::new().name("logmill-timer".into()).spawn(move || timer.run()) {
            Ok(handle) => state.thread = Some(handle),
            Err(error) => tracing::error!(%error, "cannot start the timer thread"),
        }
    }

    fn run(&self) {
        let mut state = self.state.lock();
        while !state.closed {
            let now = self.clock.monotonic();
            match state.waiting.peek().map(|Reverse(first)| first.due) {
                None => self.changed.wait(&mut state),
                Some(due) if due > now => {
                    self.changed.wait_for(&mut state, due - now);
                }
                Some(_) => {
                    if let Some(Reverse(first)) = state.waiting.pop() {
                        drop(state);
                        first.crew.push(first.task);
                        state = self.state.lock();
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::env::sleep;

    #[test]
    fn sleeps_that_were_given_up_are_taken_out_of_the_timer() {
        let pool = ThreadPool::new();
        let kept: Vec<_> = (0..100).map(|_| sleep(&pool, Duration::from_hours(1))).collect();
        (0..50_000).for_each(|_| drop(sleep(&pool, Duration::from_hours(1))));
        let waiting = pool.timer.state.lock().waiting.len();
        assert!((kept.len()..2 * MIN_SWEEP).contains(&waiting), "{waiting} timers are left");
    }
}
