//! Publishing, waiting and reading in every order that threads can have: `log/waiters.rs` itself,
//! compiled with loom's lock and atomics.
//!
//! ```sh
//! RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR=target/loom cargo test -p logmill-log --test loom
//! ```
#![cfg(loom)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

mod sync {
    //! What `crate::sync` of the log is, with loom's types.

    pub(crate) use loom::sync::atomic::AtomicU64;
    use loom::sync::{Mutex as LoomMutex, MutexGuard};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(LoomMutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Self {
            Self(LoomMutex::new(value))
        }

        pub(crate) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap()
        }
    }
}

mod error {
    //! The log's error is cheap to clone and says what happened; nothing else matters here.

    #[derive(Clone, Debug, PartialEq, Eq)]
    pub(crate) struct Error;
}

#[path = "../src/log/waiters.rs"]
#[allow(dead_code, reason = "what is not called here is called in the log")]
mod waiters;

use std::future::poll_fn;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Wake, Waker};

use error::Error;
use logmill_record::Offset;
use loom::future::block_on;
use loom::sync::Arc;
use loom::thread;
use sync::{AtomicU64, Mutex};
use waiters::{End, Ticket, Waiters};

/// Runs `model` in every order with at most three preemptions: without a bound three threads take hours,
/// and the last test's bug, as most, needs one.
fn explore(model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(3);
    builder.check(model);
}

fn new() -> Arc<Waiters> {
    Arc::new(Waiters::new(Offset(0), Offset(0)))
}

/// What a receipt or a long poll does.
fn wait(waiters: &Waiters, which: End, offset: u64) -> Result<(), Error> {
    let mut ticket = Ticket::default();
    let outcome = block_on(poll_fn(|cx| waiters.poll_end(which, Offset(offset), &mut ticket, cx)));
    waiters.forget(&mut ticket);
    outcome
}

/// Set when it is called.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: std::sync::Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A waiter that has looked once.
struct Waiting {
    ready: bool,
    woken: std::sync::Arc<Woken>,
    ticket: Ticket,
}

impl Waiting {
    fn begin(waiters: &Waiters, which: End, offset: u64) -> Self {
        let (woken, mut ticket) = (std::sync::Arc::new(Woken::default()), Ticket::default());
        let waker = Waker::from(std::sync::Arc::clone(&woken));
        let poll = waiters.poll_end(which, Offset(offset), &mut ticket, &mut Context::from_waker(&waker));
        Self { ready: poll.is_ready(), woken, ticket }
    }

    /// To be asked when all is published.
    fn goes_on(&self) -> bool {
        self.ready || self.woken.0.load(Ordering::SeqCst)
    }
}

#[test]
fn whoever_waits_for_an_end_that_is_reached_is_woken() {
    explore(|| {
        let waiters = new();
        let publisher = Arc::clone(&waiters);
        let publisher = thread::spawn(move || publisher.publish_durable(Offset(1), Offset(1)));
        assert_eq!(wait(&waiters, End::Durable, 1), Ok(()));
        publisher.join().unwrap();
    });
}

#[test]
fn each_waiter_is_woken_by_the_sync_that_reaches_it() {
    explore(|| {
        let waiters = new();
        let (receipt, publisher) = (Arc::clone(&waiters), Arc::clone(&waiters));
        let publisher = thread::spawn(move || {
            publisher.publish_durable(Offset(1), Offset(1));
            publisher.publish_durable(Offset(2), Offset(2));
        });
        let receipt = thread::spawn(move || Waiting::begin(&receipt, End::Durable, 2));
        let reader = Waiting::begin(&waiters, End::Visible, 1);
        let receipt = receipt.join().unwrap();
        publisher.join().unwrap();
        assert!(reader.goes_on() && receipt.goes_on(), "a wake-up was lost");
    });
}

#[test]
fn what_was_synced_before_an_end_was_published_is_seen_by_whoever_sees_the_end() {
    explore(|| {
        let (waiters, disk) = (new(), Arc::new(AtomicU64::new(0)));
        let publisher = {
            let (waiters, disk) = (Arc::clone(&waiters), Arc::clone(&disk));
            thread::spawn(move || {
                disk.store(7, Ordering::Relaxed);
                waiters.publish_durable(Offset(1), Offset(1));
            })
        };
        if waiters.end_of(End::Visible) == Offset(1) {
            assert_eq!(waiters.durable_end(), Offset(1), "visible, so durable");
            assert_eq!(disk.load(Ordering::Relaxed), 7, "a look at the end is enough");
        }
        wait(&waiters, End::Durable, 1).unwrap();
        assert_eq!(disk.load(Ordering::Relaxed), 7, "and so is being woken");
        publisher.join().unwrap();
    });
}

#[test]
fn appenders_of_a_relaxed_log_that_publish_out_of_order_hide_nothing() {
    explore(|| {
        let waiters = new();
        let (one, other) = (Arc::clone(&waiters), Arc::clone(&waiters));
        let one = thread::spawn(move || one.publish_visible(Offset(1), Offset(1)));
        let other = thread::spawn(move || other.publish_visible(Offset(2), Offset(2)));
        let reader = Waiting::begin(&waiters, End::Visible, 2);
        one.join().unwrap();
        other.join().unwrap();
        assert!(reader.goes_on(), "a wake-up was lost");
        assert_eq!(waiters.end_of(End::Visible), Offset(2), "the end does not go back");
    });
}

/// A marker becomes durable beside an append; of a relaxed log, the end has moved before.
#[test]
fn a_reader_of_committed_records_is_woken_by_whoever_makes_them_stable() {
    explore(|| {
        let waiters = new();
        let (syncer, appender) = (Arc::clone(&waiters), Arc::clone(&waiters));
        let syncer = thread::spawn(move || syncer.publish_durable(Offset(2), Offset(2)));
        let appender = thread::spawn(move || appender.publish_visible(Offset(3), Offset(0)));
        let reader = Waiting::begin(&waiters, End::Stable, 1);
        let undecided = Waiting::begin(&waiters, End::Stable, 3);
        syncer.join().unwrap();
        appender.join().unwrap();
        assert!(reader.goes_on(), "a wake-up was lost");
        assert!(!undecided.goes_on(), "it was woken for nothing");
        assert_eq!(waiters.end_of(End::Stable), Offset(2), "what is stable does not go back");
    });
}

#[test]
fn a_log_that_ends_leaves_nobody_waiting() {
    explore(|| {
        let waiters = new();
        let ending = Arc::clone(&waiters);
        let ending = thread::spawn(move || {
            ending.publish_durable(Offset(1), Offset(1));
            ending.end(Error);
        });
        assert_eq!(wait(&waiters, End::Durable, 2), Err(Error), "its end will not come");
        assert_eq!(wait(&waiters, End::Durable, 1), Ok(()), "what was reached stays reached");
        ending.join().unwrap();
    });
}

#[test]
fn progress_between_a_look_at_the_state_and_waiting_is_not_missed() {
    explore(|| {
        let (waiters, rolled) = (new(), Arc::new(Mutex::new(false)));
        let worker = {
            let (waiters, rolled) = (Arc::clone(&waiters), Arc::clone(&rolled));
            thread::spawn(move || {
                waiters.progressed(); // of something else
                *rolled.lock() = true;
                waiters.progressed();
            })
        };
        loop {
            let seen = waiters.progress();
            if *rolled.lock() {
                break;
            }
            let mut ticket = Ticket::default();
            block_on(poll_fn(|cx| waiters.poll_progress(seen, &mut ticket, cx)));
            waiters.forget(&mut ticket);
        }
        worker.join().unwrap();
    });
}

#[test]
fn a_waiter_that_goes_away_takes_nobodys_wake_up_with_it() {
    explore(|| {
        let waiters = new();
        let (publisher, leaving) = (Arc::clone(&waiters), Arc::clone(&waiters));
        let publisher = thread::spawn(move || publisher.publish_durable(Offset(1), Offset(1)));
        let leaving = thread::spawn(move || {
            let mut waiting = Waiting::begin(&leaving, End::Durable, 1);
            leaving.forget(&mut waiting.ticket);
        });
        let staying = Waiting::begin(&waiters, End::Durable, 1);
        publisher.join().unwrap();
        leaving.join().unwrap();
        assert!(staying.goes_on(), "a wake-up was lost");
    });
}

/// The protocol with the second look at the end, the one under the lock, left out.
#[derive(Default)]
struct Careless {
    end: AtomicU64,
    waiting: Mutex<Option<Waker>>,
}

impl Careless {
    fn publish(&self) {
        self.end.store(1, Ordering::Release);
        let waiting = self.waiting.lock().take();
        waiting.into_iter().for_each(Waker::wake);
    }

    fn is_reached(&self, waker: &Waker) -> bool {
        if self.end.load(Ordering::Acquire) >= 1 {
            return true;
        }
        *self.waiting.lock() = Some(waker.clone());
        false
    }
}

/// The same test over the careless protocol has to fail: a search that finds nothing proves nothing.
#[test]
#[should_panic(expected = "the wake-up was lost")]
fn without_the_look_under_the_lock_the_wake_up_is_lost() {
    explore(|| {
        let (log, woken) = (Arc::new(Careless::default()), std::sync::Arc::new(Woken::default()));
        let publisher = Arc::clone(&log);
        let publisher = thread::spawn(move || publisher.publish());
        let reached = log.is_reached(&Waker::from(std::sync::Arc::clone(&woken)));
        publisher.join().unwrap();
        assert!(reached || woken.0.load(Ordering::SeqCst), "the wake-up was lost");
    });
}
