//! A proxy between clients and a node, which does to connections what networks do.
//!
//! Each direction of a connection is a task of its own, as in a network: what a client sent before it gave a
//! connection up still arrives when a held connection is let go.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;

use crate::frames::Frames;
use crate::twin::{Said, Twin};

/// Where connections go; `None` while nobody is there.
pub(crate) type Target = watch::Receiver<Option<SocketAddr>>;

/// What happens to every connection of a proxy, and to those that come while it lasts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Weather {
    pub(crate) to_node: Pace,
    pub(crate) to_client: Pace,
    pub(crate) cut: Option<Cut>,
    /// What clients say on connections that begin is said twice to the node, the second time so much later.
    pub(crate) duplicate: Option<Duration>,
}

/// How bytes go in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Pace {
    #[default]
    Free,
    /// Whatever was read at once waits so long.
    Slow(Duration),
    /// Nothing goes; the connection stays open.
    Held,
}

/// When a connection ends, both directions at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cut {
    Now,
    /// So many bytes into the next DATA frame, or where what was read of it ends. With 0 of a reply, the node
    /// has handled a request and the client does not hear of it.
    InData(Way, usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    ToNode,
    ToClient,
}

/// A proxy on a loopback port; its connections end with it.
#[derive(Debug)]
pub(crate) struct Proxy {
    address: SocketAddr,
    weather: watch::Sender<Weather>,
    counts: Arc<Counts>,
    accepting: JoinHandle<()>,
}

/// Of how many connections.
#[derive(Debug, Default)]
struct Counts {
    cut: AtomicU64,
    duplicated: AtomicU64,
}

impl Weather {
    pub(crate) const HELD: Self =
        Self { to_node: Pace::Held, to_client: Pace::Held, cut: None, duplicate: None };

    pub(crate) fn cut(cut: Cut) -> Self {
        Self { cut: Some(cut), ..Self::default() }
    }

    pub(crate) fn duplicate(lag: Duration) -> Self {
        Self { duplicate: Some(lag), ..Self::default() }
    }

    fn pace(&self, way: Way) -> Pace {
        match way {
            Way::ToNode => self.to_node,
            Way::ToClient => self.to_client,
        }
    }
}

impl Proxy {
    pub(crate) async fn start(target: Target) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (weather, seen) = watch::channel(Weather::default());
        let counts = Arc::<Counts>::default();
        let accepting = tokio::spawn(accept(listener, target, seen, Arc::clone(&counts)));
        Self { address, weather, counts, accepting }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }

    /// How many connections were cut so far.
    pub(crate) fn cuts(&self) -> u64 {
        self.counts.cut.load(Ordering::SeqCst)
    }

    /// How many connections were duplicated so far.
    pub(crate) fn duplicated(&self) -> u64 {
        self.counts.duplicated.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(
    listener: TcpListener,
    target: Target,
    weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
) {
    let mut links = JoinSet::new();
    loop {
        let (client, _) = listener.accept().await.unwrap();
        while links.try_join_next().is_some() {}
        let Some(node) = *target.borrow() else { continue };
        links.spawn(link(client, node, weather.clone(), Arc::clone(&counts)));
    }
}

/// A connection was cut: nothing of it goes on.
#[derive(Debug)]
struct CutOff;

async fn link(
    client: TcpStream,
    address: SocketAddr,
    weather: watch::Receiver<Weather>,
    counts: Arc<Counts>,
) {
    // A node that is gone is gone for the client as well.
    let Ok(node) = TcpStream::connect(address).await else { return };
    let duplicate = weather.borrow().duplicate;
    let Some(lag) = duplicate else { return pass_on(client, node, weather, &counts, None).await };
    counts.duplicated.fetch_add(1, Ordering::SeqCst);
    let (said, twin) = Twin::new(lag);
    tokio::join!(pass_on(client, node, weather, &counts, Some(said)), twin.run(address));
}

async fn pass_on(
    client: TcpStream,
    node: TcpStream,
    mut weather: watch::Receiver<Weather>,
    counts: &Counts,
    twin: Option<Said>,
) {
    for stream in [&client, &node] {
        let _ = stream.set_nodelay(true);
    }
    let (from_client, to_client) = client.into_split();
    let (from_node, to_node) = node.into_split();
    let (way, frames) = (Way::ToNode, Frames::of_client());
    let requests = Pump { from: from_client, to: to_node, way, frames, twin };
    let (way, frames) = (Way::ToClient, Frames::of_node());
    let replies = Pump { from: from_node, to: to_client, way, frames, twin: None };
    let (seen, also_seen) = (weather.clone(), weather.clone());
    let flowing = async { tokio::try_join!(requests.run(seen), replies.run(also_seen)) };
    let was_cut = tokio::select! {
        ended = flowing => ended.is_err(),
        cut = weather.wait_for(|weather| weather.cut == Some(Cut::Now)) => cut.is_ok(),
    };
    if was_cut {
        counts.cut.fetch_add(1, Ordering::SeqCst);
    }
}

struct Pump {
    from: OwnedReadHalf,
    to: OwnedWriteHalf,
    way: Way,
    frames: Frames,
    /// Who hears it too.
    twin: Option<Said>,
}

impl Pump {
    /// Passes bytes on until one of the ends has no more to say, or wants no more.
    async fn run(mut self, mut weather: watch::Receiver<Weather>) -> Result<(), CutOff> {
        let mut buffer = vec![0; 16 << 10];
        while let Ok(len @ 1..) = self.from.read(&mut buffer).await {
            let cut = self.wait(&mut weather).await?;
            let data = self.frames.first_data_in(&buffer[..len]);
            if let (Some(Cut::InData(way, after)), Some(data)) = (cut, data)
                && way == self.way
            {
                let _ = self.pass(&buffer[..len.min(data + after)]).await;
                return Err(CutOff);
            }
            if self.pass(&buffer[..len]).await.is_err() {
                break;
            }
        }
        let _ = self.to.shutdown().await;
        Ok(())
    }

    async fn pass(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.to.write_all(bytes).await?;
        if let Some(twin) = &self.twin {
            // It may have lost its own connection.
            let _ = twin.send((Instant::now(), bytes.to_vec()));
        }
        Ok(())
    }

    /// Waits as the weather has it.
    async fn wait(&self, weather: &mut watch::Receiver<Weather>) -> Result<Option<Cut>, CutOff> {
        let flows = weather.wait_for(|weather| weather.pace(self.way) != Pace::Held).await;
        let weather = *flows.map_err(|_| CutOff)?;
        if let Pace::Slow(time) = weather.pace(self.way) {
            tokio::time::sleep(time).await;
        }
        Ok(weather.cut)
    }
}
