//! Many blocking jobs at once, on the threads of the scheduler and on the caller's own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use logmill_log::env::{Scheduler, Work};
use parking_lot::{Condvar, Mutex};

/// Runs `job` on each of `items` and returns the results in the order of the items. At most `most` run at
/// once, the caller's thread among them, so that it ends even if no thread of `work` is free. A job that
/// panics has no result.
pub(crate) fn run_all<T, R>(
    scheduler: &dyn Scheduler,
    work: Work,
    most: usize,
    items: Vec<T>,
    job: impl Fn(T) -> R + Send + Sync + 'static,
) -> Vec<Option<R>>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let count = items.len();
    let run = Arc::new(Run {
        items: items.into_iter().map(|item| Mutex::new(Some(item))).collect(),
        next: AtomicUsize::new(0),
        job,
        state: Mutex::new(State { results: (0..count).map(|_| None).collect(), ended: 0 }),
        ended: Condvar::new(),
    });
    for _ in 1..most.min(count) {
        let run = Arc::clone(&run);
        scheduler.spawn(work, Box::new(move || run.work()));
    }
    run.work();
    run.wait(scheduler)
}

struct Run<T, R, F> {
    items: Vec<Mutex<Option<T>>>,
    next: AtomicUsize,
    job: F,
    state: Mutex<State<R>>,
    ended: Condvar,
}

struct State<R> {
    results: Vec<Option<R>>,
    ended: usize,
}

impl<T, R, F: Fn(T) -> R> Run<T, R, F> {
    fn work(&self) {
        loop {
            let index = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = self.items.get(index) else { return };
            // Counted as ended also when the job panics.
            let mut ended = Ended { run: self, index, result: None };
            if let Some(item) = item.lock().take() {
                ended.result = Some((self.job)(item));
            }
        }
    }

    fn wait(&self, scheduler: &dyn Scheduler) -> Vec<Option<R>> {
        let mut state = self.state.lock();
        while state.ended < self.items.len() {
            drop(state);
            let helped = scheduler.help();
            state = self.state.lock();
            if !helped && state.ended < self.items.len() {
                self.ended.wait(&mut state);
            }
        }
        std::mem::take(&mut state.results)
    }
}

struct Ended<'a, T, R, F> {
    run: &'a Run<T, R, F>,
    index: usize,
    result: Option<R>,
}

impl<T, R, F> Drop for Ended<'_, T, R, F> {
    fn drop(&mut self) {
        let mut state = self.run.state.lock();
        if let Some(place) = state.results.get_mut(self.index) {
            *place = self.result.take();
        }
        state.ended += 1;
        self.run.ended.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use logmill_log::env::Env;

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let env = Env::real();
        let doubled = run_all(&*env.scheduler, Work::Read, 8, (0..1_000).collect(), |i: u32| i * 2);
        assert!(doubled.into_iter().eq((0..1_000).map(|i| Some(i * 2))));
    }

    #[test]
    fn jobs_inside_jobs_end_even_when_every_thread_is_taken() {
        let env = Env::real();
        let scheduler = Arc::clone(&env.scheduler);
        let sums = run_all(&*env.scheduler, Work::Append, 64, (0..64).collect(), move |i: u32| {
            run_all(&*scheduler, Work::Append, 64, (0..i).collect(), |j: u32| j)
                .into_iter()
                .flatten()
                .sum::<u32>()
        });
        assert_eq!(sums.last(), Some(&Some((0..63_u32).sum())));
    }

    #[test]
    fn nothing_to_do_is_done() {
        assert!(run_all(&*Env::real().scheduler, Work::Read, 4, Vec::<u32>::new(), |i| i).is_empty());
    }
}
