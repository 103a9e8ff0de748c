//! A node in this process: a broker over a data directory, and its gRPC services on a listener.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use indicatif::{HumanBytes, ProgressBar, ProgressDrawTarget, ProgressStyle};
use logmill_broker::{Broker, Config, OnOpen, OpenError, OpenErrorKind, grpc};
use logmill_log::env::Clock;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::failure::{Exit, Failure, exit_of_io, with_causes};

/// How long a stop waits for a disk that hangs, unless it is told.
pub(crate) const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A node that serves until it is stopped.
pub(crate) struct Node {
    broker: Broker,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), Failure>>,
}

impl Node {
    /// Opens the data directory, which is made if it is not there, and serves on `listen`.
    pub(crate) async fn start(mut config: Config, listen: SocketAddr) -> Result<Self, Failure> {
        refuse_outside(listen)?;
        // The port first: if someone has it, the data directory stays untouched.
        let cannot = |error: &io::Error| Failure::new(exit_of_io(error), listen_text(listen, error));
        let listener = TcpListener::bind(listen).await.map_err(|error| cannot(&error))?;
        let address = listener.local_addr().map_err(|error| cannot(&error))?;
        let (bar, on_open) = opening_bar(Arc::clone(&config.env.clock));
        config.on_open = Some(on_open);
        let opened = blocking(move || Broker::open(config)).await;
        bar.finish_and_clear();
        let broker = opened?.map_err(|error| open_failure(&error))?;
        let (stop, stopped) = oneshot::channel();
        let served = grpc::serve(broker.clone(), listener, async {
            // An error means that the node was dropped: that is a reason to stop, too.
            let _ = stopped.await;
        });
        let serving = tokio::spawn(async move {
            served.await.map_err(|error| Failure::new(Exit::Failed, with_causes(&error)))
        });
        Ok(Self { broker, address, stop, serving })
    }

    /// The address that clients connect to.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Ends when the services end by themselves, which they do only in failure.
    pub(crate) async fn failed(&mut self) -> Failure {
        match (&mut self.serving).await {
            Ok(Err(failure)) => failure,
            Ok(Ok(())) => Failure::new(Exit::Failed, "the node stopped serving by itself"),
            Err(error) => Failure::new(Exit::Failed, format!("the node's services ended: {error}")),
        }
    }

    /// Stops serving, finishes what is in flight, and closes the data directory so that the next
    /// start has nothing to recover. A disk that hangs holds up closing for `timeout` and no longer; the
    /// process is to end then, without waiting for its threads.
    pub(crate) async fn stop(self, timeout: Duration) -> Result<(), Failure> {
        let Self { broker, stop, serving, .. } = self;
        // The services may have ended already.
        let _ = stop.send(());
        let served = serving.await.unwrap_or_else(|error| {
            Err(Failure::new(Exit::Failed, format!("the node's services ended: {error}")))
        });
        let closed = blocking(move || broker.close_within(timeout)).await?;
        closed.map_err(|error| Failure::new(Exit::Failed, with_causes(&error)))?;
        served
    }
}

/// A start that takes no longer shows nothing of how far it is.
const QUIET_START: Duration = Duration::from_secs(1);

/// Shows on standard error how far a start is that takes long, if that is a terminal.
fn opening_bar(clock: Arc<dyn Clock>) -> (ProgressBar, OnOpen) {
    let style = ProgressStyle::with_template("opening {bar:30} {pos} of {len} partitions{msg}")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden()).with_style(style);
    let (shown, begun) = (bar.clone(), clock.monotonic());
    let on_open = OnOpen::new(move |so_far| {
        if clock.monotonic().saturating_sub(begun) < QUIET_START {
            return;
        }
        if shown.is_hidden() {
            shown.set_draw_target(ProgressDrawTarget::stderr());
        }
        shown.set_length(so_far.total as u64);
        shown.set_position(so_far.done as u64);
        if so_far.scanned_bytes > 0 {
            shown.set_message(format!(", {} checked", HumanBytes(so_far.scanned_bytes)));
        }
    });
    (bar, on_open)
}

/// Whoever can reach a node may do everything with it, so only this machine can.
fn refuse_outside(listen: SocketAddr) -> Result<(), Failure> {
    if listen.ip().is_loopback() {
        return Ok(());
    }
    let message = format!(
        "will not listen on {listen}: this version has neither TLS nor authentication, so it serves this machine \
         only; use an address such as 127.0.0.1:{}",
        listen.port()
    );
    Err(Failure::new(Exit::Usage, message))
}

fn listen_text(listen: SocketAddr, error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => {
            format!(
                "another program listens on {listen} already: stop it, or choose another port with --listen"
            )
        }
        _ => format!("cannot listen on {listen}: {error}"),
    }
}

/// Runs what blocks where it holds up nobody.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work).await.map_err(|error| {
        Failure::new(Exit::Failed, format!("the program failed inside: {error}; please report it"))
    })
}

pub(crate) fn open_failure(error: &OpenError) -> Failure {
    let exit = match error.kind() {
        OpenErrorKind::NotADataDirectory => Exit::Usage,
        OpenErrorKind::InUse => Exit::Conflict,
        OpenErrorKind::Denied => Exit::Denied,
        OpenErrorKind::Configuration => Exit::Usage,
        OpenErrorKind::Io => io_cause(error).map_or(Exit::Failed, exit_of_io),
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}

fn io_cause(error: &OpenError) -> Option<&io::Error> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref() {
            return Some(error);
        }
        cause = error.source();
    }
    None
}
