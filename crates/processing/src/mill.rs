//! Running a plan: where, how safely, and until when.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

use crate::backend::Backend;
use crate::clock::{Clock, SystemClock};
use crate::engine::{Engine, Mode, Stop, Urgency};
use crate::error::{Error, ErrorKind};
use crate::pipeline::Plan;
use crate::stats::RunReport;

/// The guarantee that a run gives, and how often it commits.
///
/// Every record of the sources is processed. After a crash, the records of the step that was not committed are
/// processed again:
/// * a table of an SQLite sink shows each of them once, because rows and position are one transaction;
/// * a topic may have records twice, of a sink or of those set aside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AtLeastOnce {
    every: Duration,
}

impl AtLeastOnce {
    /// Commits this long after a step took its first record, or earlier if it has grown large. Shorter means fresher
    /// results, longer means fewer commits.
    #[must_use]
    pub const fn every(every: Duration) -> Self {
        Self { every }
    }
}

/// A place to run plans: a broker in this process, or a node to connect to. Cheap to clone.
#[derive(Clone)]
pub struct Mill {
    backend: Arc<dyn Backend>,
    clock: Arc<dyn Clock>,
}

impl Mill {
    /// Runs plans on this backend.
    #[must_use]
    pub fn new(backend: Arc<dyn Backend>) -> Self {
        Self { backend, clock: Arc::new(SystemClock::new()) }
    }

    /// Runs plans on a broker in this process: opens the data directory `dir`, or makes a new one, and closes it
    /// when the last clone and the last run are gone. Blocks.
    ///
    /// To produce beside it, open the [`Broker`](logmill_broker::Broker) yourself: see
    /// [`Embedded`](crate::backend::Embedded).
    ///
    /// # Errors
    /// The directory is in use, is none, cannot be written, is damaged or of a newer version.
    #[cfg(feature = "embedded")]
    pub fn embedded(dir: impl AsRef<std::path::Path>) -> Result<Self, Error> {
        let backend = crate::backend::Embedded::open(dir).map_err(Error::from_backend)?;
        Ok(Self::new(Arc::new(backend)))
    }

    /// Runs plans on the node at `url`, such as `http://127.0.0.1:7070`. Call it from within a tokio runtime that
    /// goes on while plans run: the connection lives there.
    ///
    /// # Errors
    /// No node answers there.
    #[cfg(feature = "remote")]
    pub async fn connect(url: &str) -> Result<Self, Error> {
        let backend = crate::backend::Remote::connect(url).await.map_err(Error::from_backend)?;
        Ok(Self::new(Arc::new(backend)))
    }

    /// Runs the plan until the future is dropped or something fails. Dropped, it abandons the step that has not been
    /// committed; [`start`](Self::start) gives a handle that can also end it in order.
    ///
    /// # Errors
    /// What made it impossible to start, or to go on. What was committed stays, and the next run goes on there.
    pub fn run(
        &self,
        plan: &Plan,
        guarantee: AtLeastOnce,
    ) -> impl Future<Output = Result<RunReport, Error>> + Send + use<> {
        self.launch(plan, guarantee, false)
    }

    /// Runs the plan over everything that its topics hold at the start, and ends.
    ///
    /// At the end open windows yield what they have so far, as of the largest event time, and stay open: a later run
    /// counts on, and its results replace these.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_to_end(
        &self,
        plan: &Plan,
        guarantee: AtLeastOnce,
    ) -> impl Future<Output = Result<RunReport, Error>> + Send + use<> {
        self.launch(plan, guarantee, true)
    }

    /// Runs the plan on a thread of its own until it is stopped.
    ///
    /// ```no_run
    /// use logmill_processing::{AtLeastOnce, Mill, Plan, millis};
    ///
    /// # fn example(plan: Plan) -> Result<(), logmill_processing::Error> {
    /// let running = Mill::embedded("./data")?.start(&plan, AtLeastOnce::every(millis(100)));
    /// println!("{} records so far", running.stats().records_in());
    /// running.stop();
    /// let report = running.join()?;
    /// println!("{} records in all, p99 {} ms", report.records_in(), report.delay.p99_ms());
    /// # Ok(())
    /// # }
    /// ```
    #[must_use = "dropping the handle abandons the run"]
    pub fn start(&self, plan: &Plan, guarantee: AtLeastOnce) -> Running {
        self.launch(plan, guarantee, false)
    }

    fn launch(&self, plan: &Plan, guarantee: AtLeastOnce, bounded: bool) -> Running {
        let shared = Arc::new(Shared {
            report: Arc::new(Mutex::new(RunReport::new(plan))),
            stop: Arc::default(),
            end: Mutex::default(),
            ended: Condvar::new(),
        });
        let mode = Mode { every: guarantee.every, bounded };
        let task = {
            let (plan, shared) = (plan.clone(), Arc::clone(&shared));
            let (backend, clock) = (Arc::clone(&self.backend), Arc::clone(&self.clock));
            move || {
                let outcome = crate::operator::guarded(|| {
                    let (stop, report) = (Arc::clone(&shared.stop), Arc::clone(&shared.report));
                    Engine::open(&plan, backend, clock, mode, stop, report)?.run()
                });
                shared.finish(outcome.unwrap_or_else(|panic| {
                    Err(Error::new(
                        ErrorKind::Panicked,
                        format!("pipeline {:?}: the engine {panic}", plan.name()),
                    ))
                }));
            }
        };
        let thread = std::thread::Builder::new().name(format!("logmill-{}", plan.name())).spawn(task);
        let thread = match thread {
            Ok(thread) => Some(thread),
            Err(error) => {
                let message = format!("cannot start a thread for pipeline {:?}: {error}", plan.name());
                shared.finish(Err(Error::new(ErrorKind::Other, message).caused_by(error)));
                None
            }
        };
        Running { shared, thread }
    }
}

impl fmt::Debug for Mill {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mill").finish_non_exhaustive()
    }
}

/// What the task's thread and the handle share. Lock order: `end` alone.
struct Shared {
    report: Arc<Mutex<RunReport>>,
    stop: Arc<Stop>,
    end: Mutex<End>,
    ended: Condvar,
}

#[derive(Default)]
struct End {
    outcome: Option<Result<(), Error>>,
    is_over: bool,
    waker: Option<Waker>,
}

impl Shared {
    fn finish(&self, outcome: Result<(), Error>) {
        let mut end = self.end.lock();
        end.outcome = Some(outcome);
        end.is_over = true;
        let waker = end.waker.take();
        drop(end);
        self.ended.notify_all();
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    fn result(&self, outcome: Result<(), Error>) -> Result<RunReport, Error> {
        outcome.map(|()| self.report.lock().clone())
    }
}

/// A plan that runs. A future as well: it is ready when the run has ended.
///
/// Dropping it abandons the run: what was not committed is processed by the next.
pub struct Running {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Running {
    /// Asks the run to end after committing what it has gathered. Returns at once; [`join`](Self::join) waits.
    pub fn stop(&self) {
        self.shared.stop.request(Urgency::Soon);
    }

    /// What the run has done so far.
    #[must_use]
    pub fn stats(&self) -> RunReport {
        self.shared.report.lock().clone()
    }

    /// Whether the run has ended, by itself or stopped.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.shared.end.lock().is_over
    }

    /// Waits on this thread for the run to end.
    ///
    /// # Errors
    /// Why it could not start, or go on.
    pub fn join(self) -> Result<RunReport, Error> {
        let mut end = self.shared.end.lock();
        while !end.is_over {
            self.shared.ended.wait(&mut end);
        }
        let outcome = end.outcome.take().unwrap_or(Ok(()));
        drop(end);
        self.shared.result(outcome)
    }
}

impl Future for Running {
    type Output = Result<RunReport, Error>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let mut end = self.shared.end.lock();
        if !end.is_over {
            end.waker = Some(context.waker().clone());
            return Poll::Pending;
        }
        let outcome = end.outcome.take().unwrap_or(Ok(()));
        drop(end);
        Poll::Ready(self.shared.result(outcome))
    }
}

impl Drop for Running {
    /// Joins the thread, which by then waits for nothing but, at most, a transaction of SQLite.
    fn drop(&mut self) {
        self.shared.stop.request(Urgency::Now);
        if let Some(thread) = self.thread.take() {
            // The thread catches its panics and reports them in the outcome.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}
