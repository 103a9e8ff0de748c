//! A broker, and both ways to it.

use std::sync::Arc;

use logmill_broker::{Broker, Config, grpc};
use logmill_processing::backend::{Backend, Embedded, Remote};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) struct Node {
    pub(crate) broker: Broker,
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) dir: TempDir,
    server: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Node {
    pub(crate) fn embedded() -> Self {
        let (broker, dir) = open();
        let backend = Arc::new(Embedded::new(broker.clone()));
        Self { broker, backend, dir, server: None }
    }

    pub(crate) async fn remote() -> Self {
        let (broker, dir) = open();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (stop, stopped) = oneshot::channel();
        let serving = broker.clone();
        let server = tokio::spawn(async move {
            let shutdown = async {
                let _ = stopped.await;
            };
            grpc::serve(serving, listener, shutdown).await.unwrap();
        });
        let backend = Arc::new(Remote::connect(&url).await.unwrap());
        Self { broker, backend, dir, server: Some((stop, server)) }
    }

    pub(crate) async fn close(self) {
        if let Some((stop, server)) = self.server {
            stop.send(()).unwrap();
            server.await.unwrap();
        }
        self.broker.close().unwrap();
    }
}

fn open() -> (Broker, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let without = Config { reserve_bytes: 0, low_space_bytes: 0, ..Config::new(dir.path().join("data")) };
    let config = Config { max_message_bytes: 64 * 1024, ..without };
    (Broker::open(config).unwrap(), dir)
}
