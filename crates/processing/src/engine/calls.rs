//! Calls of the backend that are repeated while the node is away for a moment.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use super::stop::{Stop, Urgency};
use crate::backend::{Backend, BackendError, BoxFuture};
use crate::error::{Error, ErrorKind};

/// About a minute in all.
const ATTEMPTS: u32 = 17;
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(6);

/// The backend, called from the task's thread.
pub(super) struct Calls {
    pub(super) backend: Arc<dyn Backend>,
    pub(super) stop: Arc<Stop>,
}

impl Calls {
    /// One call, again and again while its failure is transient. `None`: the run is to end.
    pub(super) fn call<'a, T>(
        &'a self,
        urgency: Urgency,
        doing: &str,
        call: impl Fn(&'a dyn Backend) -> BoxFuture<'a, Result<T, BackendError>>,
    ) -> Result<Option<T>, Error> {
        let mut retry = Retry::default();
        loop {
            match self.stop.block_on(urgency, call(&*self.backend)) {
                None => return Ok(None),
                Some(Ok(answer)) => return Ok(Some(answer)),
                Some(Err(error)) => retry.after(self, urgency, doing, error)?,
            }
        }
    }

    /// As [`call`](Self::call), where a run cannot end in between.
    pub(super) fn must<'a, T>(
        &'a self,
        doing: &str,
        call: impl Fn(&'a dyn Backend) -> BoxFuture<'a, Result<T, BackendError>>,
    ) -> Result<T, Error> {
        self.call(Urgency::Now, doing, call)?.ok_or_else(stopped)
    }
}

pub(super) fn stopped() -> Error {
    Error::new(
        ErrorKind::Stopped,
        "the run was abandoned; what its last step had gathered is processed by the next run",
    )
}

/// How often a call was tried.
#[derive(Default)]
pub(super) struct Retry {
    failures: u32,
}

impl Retry {
    /// Waits after a transient failure; gives any other, and the last, back.
    pub(super) fn after(
        &mut self,
        calls: &Calls,
        urgency: Urgency,
        doing: &str,
        error: BackendError,
    ) -> Result<(), Error> {
        self.failures += 1;
        if !error.kind().is_transient() || self.failures >= ATTEMPTS {
            return Err(Error::backend(doing, error));
        }
        tracing::warn!(attempt = self.failures, "{doing}: {error}; trying again");
        let pause = FIRST_PAUSE.saturating_mul(1 << self.failures.min(16)).min(LONGEST_PAUSE);
        calls.stop.pause(urgency, pause);
        Ok(())
    }
}

/// All of some futures, polled in their order.
pub(super) struct All<'a, T> {
    waiting: Vec<Result<T, BoxFuture<'a, T>>>,
}

impl<'a, T> All<'a, T> {
    pub(super) fn new(futures: impl Iterator<Item = BoxFuture<'a, T>>) -> Self {
        Self { waiting: futures.map(Err).collect() }
    }
}

impl<T: Unpin> Future for All<'_, T> {
    type Output = Vec<T>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Vec<T>> {
        let mut ready = true;
        for waiting in &mut self.waiting {
            if let Err(future) = waiting {
                match future.as_mut().poll(context) {
                    Poll::Ready(output) => *waiting = Ok(output),
                    Poll::Pending => ready = false,
                }
            }
        }
        if !ready {
            return Poll::Pending;
        }
        Poll::Ready(std::mem::take(&mut self.waiting).into_iter().filter_map(Result::ok).collect())
    }
}
