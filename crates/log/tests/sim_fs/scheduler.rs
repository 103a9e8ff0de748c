//! Tasks, timers, and what a crash does to them.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill_log::env::{Clock, Env, Scheduler, Task, Work, block_on, sleep};
use logmill_log::sim::Sim;
use parking_lot::Mutex;

type Diary = Arc<Mutex<Vec<u64>>>;

/// A task that notes a number.
fn note(diary: &Diary, number: u64) -> Task {
    let diary = Arc::clone(diary);
    Box::new(move || diary.lock().push(number))
}

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[test]
fn ready_tasks_run_in_every_order_and_a_seed_fixes_which() {
    let order = |seed| {
        let sim = Sim::new(seed);
        let diary = Diary::default();
        for (number, work) in (0..3).zip(Work::ALL) {
            sim.scheduler.spawn(work, note(&diary, number));
        }
        assert!(diary.lock().is_empty(), "nothing runs before somebody waits");
        sim.scheduler.run_until_idle();
        Arc::try_unwrap(diary).unwrap().into_inner()
    };
    assert_eq!((0..100).map(order).collect::<BTreeSet<_>>().len(), 6);
    assert!((0..100).all(|seed| order(seed) == order(seed)));
}

#[test]
fn timers_run_when_they_are_due_and_time_passes_only_for_them() {
    let sim = Sim::new(1);
    let diary = Diary::default();
    for number in [3, 1, 2] {
        sim.scheduler.spawn_after(Work::Background, seconds(number), note(&diary, number));
    }
    sim.scheduler.spawn(Work::Append, note(&diary, 0));
    sim.scheduler.run_until_idle();
    assert_eq!((diary.lock().len(), sim.clock.monotonic()), (1, seconds(0)));
    assert!(sim.scheduler.step());
    assert_eq!((diary.lock().len(), sim.clock.monotonic()), (2, seconds(1)));
    sim.scheduler.run_for(Duration::from_millis(1500));
    assert_eq!((diary.lock().len(), sim.clock.monotonic()), (3, Duration::from_millis(2500)));
    assert_eq!(sim.scheduler.waiting(), 1);
    assert!(sim.scheduler.step() && !sim.scheduler.step());
    assert_eq!(*diary.lock(), [0, 1, 2, 3]);
    sim.scheduler.run_for(seconds(1));
    assert_eq!(sim.clock.monotonic(), seconds(4));
}

#[test]
fn tasks_spawn_tasks_and_wait_inside_tasks() {
    let sim = Sim::new(1);
    let Env { scheduler, .. } = sim.env();
    let diary = Diary::default();
    let (inner, outer_diary) = (Arc::clone(&scheduler), Arc::clone(&diary));
    let outer = move || {
        inner.spawn(Work::Sync, note(&outer_diary, 1));
        block_on(&*inner, sleep(&*inner, seconds(5)));
        outer_diary.lock().push(2);
    };
    scheduler.spawn(Work::Append, Box::new(outer));
    block_on(&*scheduler, sleep(&*scheduler, seconds(9)));
    assert_eq!(*diary.lock(), [1, 2]);
    assert_eq!(sim.clock.monotonic(), seconds(9));
}

/// The message of the panic.
fn panic_of(run: impl FnOnce()) -> String {
    let panic = catch_unwind(AssertUnwindSafe(run)).unwrap_err();
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref().cloned())
        .unwrap()
}

#[test]
fn a_wait_that_cannot_end_panics() {
    let sim = Sim::new(1);
    let wait = || block_on(&*sim.scheduler, std::future::pending());
    assert!(panic_of(wait).contains("deadlock"));

    fn again(scheduler: &Arc<dyn Scheduler>) {
        let next = Arc::clone(scheduler);
        scheduler.spawn_after(Work::Background, seconds(60), Box::new(move || again(&next)));
    }
    again(&sim.env().scheduler);
    assert!(panic_of(wait).contains("30 simulated days"));
}

#[test]
fn a_crash_drops_tasks_and_nothing_runs_in_a_dead_program() {
    let mut sim = Sim::new(1);
    let old = sim.env();
    let diary = Diary::default();
    old.scheduler.spawn(Work::Sync, note(&diary, 1));
    old.scheduler.spawn_after(Work::Sync, seconds(1), note(&diary, 2));

    let new = sim.crash();
    assert_eq!(Arc::strong_count(&diary), 1, "what they own is dropped");
    old.scheduler.spawn(Work::Sync, note(&diary, 3));
    old.scheduler.spawn_after(Work::Sync, seconds(1), note(&diary, 4));
    assert_eq!(Arc::strong_count(&diary), 1);
    assert!(panic_of(|| assert!(!old.scheduler.help())).contains("restarted"));

    new.scheduler.spawn(Work::Sync, note(&diary, 5));
    sim.scheduler.run_for(seconds(10));
    assert_eq!(*diary.lock(), [5]);
}

/// Creates a file when it is dropped, as programs do that save something at their end.
struct LastWords(Env);

impl Drop for LastWords {
    fn drop(&mut self) {
        let _ = self.0.fs.create_dir(Path::new("/words"));
        self.0.scheduler.spawn(Work::Background, Box::new(|| ()));
    }
}

#[test]
fn a_dead_program_has_no_last_words() {
    for (seed, kill) in (0..20).flat_map(|seed| [(seed, false), (seed, true)]) {
        let mut sim = Sim::new(seed);
        let words = LastWords(sim.env());
        sim.scheduler.spawn(Work::Background, Box::new(move || drop(words)));
        let env = if kill { sim.kill() } else { sim.crash() };
        assert!(env.fs.list(Path::new("/")).unwrap().is_empty());
    }
}

#[test]
fn the_wall_clock_jumps_and_the_monotonic_one_does_not() {
    let sim = Sim::new(1);
    let start = sim.clock.now();
    sim.clock.advance(seconds(10));
    sim.clock.jump(-60_000);
    assert_eq!(sim.env().clock.now().0 - start.0, -50_000);
    assert_eq!(sim.env().clock.monotonic(), seconds(10));
}
