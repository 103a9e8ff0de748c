//! Blocking jobs, one after another, in the order in which they were handed in: a serial queue.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use logmill_log::env::{Scheduler, Task, Work};
use parking_lot::Mutex;

/// A queue of blocking jobs of which one runs at a time.
pub(crate) struct Serial {
    scheduler: Arc<dyn Scheduler>,
    work: Work,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Task>,
    running: bool,
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serial").field("work", &self.work).finish_non_exhaustive()
    }
}

impl Serial {
    pub(crate) fn new(scheduler: Arc<dyn Scheduler>, work: Work) -> Arc<Self> {
        Arc::new(Self { scheduler, work, state: Mutex::default() })
    }

    pub(crate) fn push(self: &Arc<Self>, job: Task) {
        let start = {
            let mut state = self.state.lock();
            state.queue.push_back(job);
            !std::mem::replace(&mut state.running, true)
        };
        if start {
            self.submit();
        }
    }

    fn submit(self: &Arc<Self>) {
        let serial = Arc::clone(self);
        self.scheduler.spawn(self.work, Box::new(move || serial.run_one()));
    }

    fn run_one(self: &Arc<Self>) {
        let job = self.state.lock().queue.pop_front();
        // Goes on with the next job also when this one panics.
        let _next = Next(self);
        if let Some(job) = job {
            job();
        }
    }
}

struct Next<'a>(&'a Arc<Serial>);

impl Drop for Next<'_> {
    fn drop(&mut self) {
        let more = {
            let mut state = self.0.state.lock();
            state.running = !state.queue.is_empty();
            state.running
        };
        if more {
            self.0.submit();
        }
    }
}

#[cfg(test)]
mod tests {
    use logmill_log::env::{Env, block_on};

    use super::super::reply;
    use super::*;

    #[test]
    fn jobs_run_in_order_and_a_panic_ends_only_its_own() {
        let env = Env::real();
        let serial = Serial::new(Arc::clone(&env.scheduler), Work::Append);
        let seen = Arc::new(Mutex::new(Vec::new()));
        for i in 0..100 {
            let seen = Arc::clone(&seen);
            serial.push(Box::new(move || {
                assert_ne!(i, 50, "a job of this test panics");
                seen.lock().push(i);
            }));
        }
        let (done, ended) = reply();
        serial.push(Box::new(move || done.send(())));
        block_on(&*env.scheduler, ended).unwrap();
        assert!(seen.lock().iter().copied().eq((0..100).filter(|i| *i != 50)));
    }
}
