//! A real node on a loopback port, over a directory that goes away with the test.

mod blocking;
mod groups;
#[path = "../../../../broker/tests/behaviour/common/hook_fs.rs"]
#[expect(dead_code, reason = "the broker's own tests use all of it")]
mod hook_fs;
mod produce;
mod read;
mod restart;
mod topics;
mod transactions;
mod truncation;

use std::net::SocketAddr;
use std::time::Duration;

use logmill_broker::{Broker, Config, grpc};
use logmill_client::Client;
use logmill_log::env::Env;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const SOON: Duration = Duration::from_secs(60);

struct Node {
    dir: TempDir,
    max_message_bytes: usize,
    env: Env,
    address: SocketAddr,
    running: Option<Running>,
}

struct Running {
    broker: Broker,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<()>,
    runtime: Runtime,
}

impl Node {
    async fn start() -> Node {
        Node::with_max_message_bytes(logmill_broker::DEFAULT_MAX_MESSAGE_BYTES).await
    }

    async fn with_max_message_bytes(max_message_bytes: usize) -> Node {
        Node::with(max_message_bytes, Env::real()).await
    }

    async fn with(max_message_bytes: usize, env: Env) -> Node {
        let address = "127.0.0.1:0".parse().unwrap();
        let dir = TempDir::new().unwrap();
        let mut node = Node { dir, max_message_bytes, env, address, running: None };
        node.resume().await;
        node
    }

    /// Starts over the same directory, and at the same address.
    async fn resume(&mut self) {
        let without = Config { reserve_bytes: 0, low_space_bytes: 0, ..Config::new(self.dir.path()) };
        let (max_message_bytes, env) = (self.max_message_bytes, self.env.clone());
        let config = Config { max_message_bytes, env, ..without };
        let broker = tokio::task::spawn_blocking(|| Broker::open(config)).await.unwrap().unwrap();
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let listener = {
            let _guard = runtime.enter();
            let listener = std::net::TcpListener::bind(self.address).unwrap();
            listener.set_nonblocking(true).unwrap();
            TcpListener::from_std(listener).unwrap()
        };
        self.address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let served = broker.clone();
        let serving = runtime.spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            grpc::serve(served, listener, shutdown).await.unwrap();
        });
        self.running = Some(Running { broker, stop, serving, runtime });
    }

    /// As on SIGTERM: what was accepted is answered first.
    async fn stop(&mut self) {
        let Some(Running { broker, stop, serving, runtime }) = self.running.take() else { return };
        stop.send(()).unwrap();
        serving.await.unwrap();
        runtime.shutdown_background();
        tokio::task::spawn_blocking(move || broker.close()).await.unwrap().unwrap();
    }

    async fn client(&self) -> Client {
        Client::connect(&format!("http://{}", self.address)).await.unwrap()
    }

    /// A client, and topic `t`.
    async fn client_with_topic(&self, partitions: u32) -> Client {
        let client = self.client().await;
        client.create_topic("t", Some(partitions)).await.unwrap();
        client
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        if let Some(Running { broker, runtime, .. }) = self.running.take() {
            runtime.shutdown_background();
            let _ = broker.close();
        }
    }
}
