//! A second connection to the node, on which is said again what a client says on its own.
//!
//! The bytes of an HTTP/2 connection from its preface on are another connection, as good as the first.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::io::{AsyncWriteExt as _, copy, sink};
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until, timeout};

/// How long the node gets to end a connection on which nothing more is said.
const TO_END: Duration = Duration::from_secs(1);

/// What the client says, and when. It is not much: what is said within the lag.
pub(crate) type Said = UnboundedSender<(Instant, Vec<u8>)>;

/// What is said again on a second connection.
pub(crate) struct Twin {
    /// So much later: what the node refuses on the first connection, because it stops, it is to refuse here too.
    lag: Duration,
    said: UnboundedReceiver<(Instant, Vec<u8>)>,
}

impl Twin {
    pub(crate) fn new(lag: Duration) -> (Said, Self) {
        let (sender, said) = unbounded_channel();
        (sender, Self { lag, said })
    }

    /// Says it to the node, until the client has ended its own connection. Nobody hears the answers.
    pub(crate) async fn run(mut self, node: SocketAddr) {
        let Ok(mut twin) = TcpStream::connect(node).await else { return };
        let _ = twin.set_nodelay(true);
        let (mut from, mut to) = twin.split();
        let mut nowhere = sink();
        let mut hearing = pin!(copy(&mut from, &mut nowhere));
        let saying = async {
            while let Some((at, bytes)) = self.said.recv().await {
                sleep_until(at + self.lag).await;
                if to.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            let _ = to.shutdown().await;
        };
        tokio::select! {
            () = saying => drop(timeout(TO_END, hearing).await),
            _ = &mut hearing => {}
        }
    }
}
