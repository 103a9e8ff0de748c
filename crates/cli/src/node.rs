//! A node in this process: a broker over a data directory, and its gRPC services on a listener.

use std::error::Error;
use std::io;
use std::net::SocketAddr;
use std::path::Path;

use logmill_broker::{Broker, Config, OpenError, OpenErrorKind, grpc};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::failure::{Exit, Failure, exit_of_io, with_causes};

/// A node that serves until it is stopped.
pub(crate) struct Node {
    broker: Broker,
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<Result<(), Failure>>,
}

impl Node {
    /// Opens `data_dir`, which is made if it is not there, and serves on `listen`.
    pub(crate) async fn start(data_dir: &Path, listen: SocketAddr) -> Result<Self, Failure> {
        refuse_outside(listen)?;
        // The port first: if someone has it, the data directory stays untouched.
        let cannot = |error: &io::Error| Failure::new(exit_of_io(error), listen_text(listen, error));
        let listener = TcpListener::bind(listen).await.map_err(|error| cannot(&error))?;
        let address = listener.local_addr().map_err(|error| cannot(&error))?;
        let config = Config::new(data_dir);
        let broker = blocking(move || Broker::open(config)).await?.map_err(|error| open_failure(&error))?;
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
    /// start has nothing to recover.
    pub(crate) async fn stop(self) -> Result<(), Failure> {
        let Self { broker, stop, serving, .. } = self;
        // The services may have ended already.
        let _ = stop.send(());
        let served = serving.await.unwrap_or_else(|error| {
            Err(Failure::new(Exit::Failed, format!("the node's services ended: {error}")))
        });
        let closed = blocking(move || broker.close()).await?;
        closed.map_err(|error| Failure::new(Exit::Failed, with_causes(&error)))?;
        served
    }
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

fn open_failure(error: &OpenError) -> Failure {
    let exit = match error.kind() {
        OpenErrorKind::InUse => Exit::Conflict,
        OpenErrorKind::Denied => Exit::Denied,
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
