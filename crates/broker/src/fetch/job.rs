//! Blocking work of readers, on threads for reading.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use logmill_log::env::Work;

use super::wait::unless;
use crate::broker::Core;
use crate::error::Error;
use crate::exec::{Receiver, reply};

/// A disk that answers later takes long: others do not wait for it.
const SLOW: Duration = Duration::from_millis(100);
/// So often it is asked whether a job has begun.
const MOST_PAUSES: usize = 5;

/// A piece of blocking work that is under way. Ready with what it brings.
#[derive(Debug)]
pub(super) struct Job<T> {
    came: Receiver<T>,
    begun: Begun,
}

/// Whether a job has got a thread.
#[derive(Clone, Debug, Default)]
pub(super) struct Begun(Arc<AtomicBool>);

impl<T: Send + 'static> Job<T> {
    pub(super) fn start(core: &Core, work: impl FnOnce() -> T + Send + 'static) -> Self {
        let (sender, came) = reply();
        let begun = Begun::default();
        let begins = begun.clone();
        let task = move || {
            begins.0.store(true, Ordering::Relaxed);
            sender.send(work());
        };
        core.config.env.scheduler.spawn(Work::Read, Box::new(task));
        Self { came, begun }
    }

    pub(super) fn begun(&self) -> Begun {
        self.begun.clone()
    }

    /// What it brings, unless it takes long.
    pub(super) async fn unless_slow(&mut self, core: &Core) -> Option<Result<T, Error>> {
        let begun = self.begun();
        unless(self, begun.slow(core)).await
    }
}

impl Begun {
    /// Ready when the job takes long. One that has no thread yet would not get it sooner by having company, but whoever
    /// waits for it has other things to wait for too.
    pub(super) async fn slow(self, core: &Core) {
        for _ in 0..MOST_PAUSES {
            core.timer.sleep(SLOW).await;
            if self.0.load(Ordering::Relaxed) {
                return;
            }
        }
    }
}

impl<T> Future for Job<T> {
    type Output = Result<T, Error>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.came).poll(context).map(|came| came.map_err(|_| Error::fault("a read")))
    }
}
