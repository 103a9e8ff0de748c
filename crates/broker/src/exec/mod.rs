//! Running and waiting without a runtime: small pieces over the injected scheduler.
//!
//! * [`reply`], a oneshot channel: one answer from one task to one future.
//! * [`drive`], a spawn: a future run by the scheduler's own threads.
//! * [`Serial`], a serial queue: blocking jobs, one after another.
//! * [`run_all`], a parallel map: many blocking jobs at once.
//! * [`Timer`]: timeouts that leave nothing behind when they are dropped.
//! * [`Signal`], a one-time event: something that happens once, and everyone who waits for it.
//! * [`Turns`], a fair semaphore: so many at once, and the others in order.
//! * [`Waits`], a set of futures: many at once, of which only those are polled that were woken.
//!
//! The counting semaphore is [`Budget`](crate::budget::Budget), whose permits are [`Permit`](crate::budget::Permit)s
//! of any size, and which counts for a limit.
//!
//! Lock order: every lock here is a leaf, and no waker, task or destructor of others is run under one.

mod drive;
mod parallel;
mod reply;
mod serial;
mod signal;
mod timer;
mod turns;
mod waits;

pub(crate) use drive::{drive, yield_now};
pub(crate) use parallel::run_all;
pub(crate) use reply::{Receiver, Sender, reply};
pub(crate) use serial::Serial;
pub(crate) use signal::{Fired, Signal};
pub(crate) use timer::Timer;
pub(crate) use turns::{TakeTurn, Turn, Turns};
pub(crate) use waits::Waits;
