//! A client of a node that is away in one way or another gets an error from every call in time, and never hangs.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use logmill_client::{
    Acks, Client, Error, ErrorKind, Fetch, FetchFrom, Position, Producer, ProducerOptions, ProducerRecord,
    SettingChange, Subscribe, Subscription,
};
use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::older::older_node;
use crate::proxy::{Cut, Pace, Proxy, Weather};
use crate::server::Server;
use crate::{LIMIT, logmill};

const PRODUCER: &str = "send, flush and close of a producer";
const NEW_PRODUCER: &str = "first send of a producer";
const SUBSCRIPTION: &str = "next of a subscription";

/// What calls are given: more than they need while the node is there, also on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(2);
/// Sooner than a connection notices by itself that nothing comes: what ends before has kept its own deadline.
const LATEST: Duration = Duration::from_secs(15);

/// A client and what it has open when the node goes away.
struct Visitor {
    client: Client,
    producer: Producer,
    subscription: Subscription,
}

fn options() -> ProducerOptions {
    ProducerOptions { delivery_timeout: DEADLINE, ..ProducerOptions::default() }
}

fn record() -> ProducerRecord {
    ProducerRecord::new("t", "x").partition(0)
}

async fn connect(url: &str) -> Result<Client, Error> {
    Client::builder(url).connect_timeout(DEADLINE).request_timeout(DEADLINE).connect().await
}

impl Visitor {
    async fn new(url: &str) -> Self {
        let client = connect(url).await.unwrap();
        client.create_topic("t", Some(1)).await.unwrap();
        let producer = client.producer(options()).unwrap();
        producer.send(record()).await.unwrap().await.unwrap();
        let from = Subscribe::from(FetchFrom::new("t", 0, Position::Latest));
        let subscription = client.subscribe(Subscribe { reconnect_timeout: DEADLINE, ..from }).await.unwrap();
        Self { client, producer, subscription }
    }

    /// Calls until what answers now is heard of, on a connection of its own.
    async fn meet(&self) {
        let met = async { while self.client.describe_node().await.is_err() {} };
        timeout(LIMIT, met).await.expect("what has come answers that");
    }

    /// Makes every call, all at once, and gives the kind of error that each ended with, if it was one.
    async fn call_all(self, away: Away) -> Vec<(&'static str, Option<ErrorKind>)> {
        let mut calls = JoinSet::new();
        let all = one_shot(&self.client).into_iter().chain(lasting(self));
        // A subscription may wait for records as long as it likes, where the node is only slow, or full.
        let waits = matches!(away, Away::Slow | Away::Full);
        for (name, call) in all.filter(|(name, _)| !waits || *name != SUBSCRIPTION) {
            calls.spawn(async move {
                let limit = if name == SUBSCRIPTION { LIMIT } else { LATEST };
                let ended = timeout(limit, call).await;
                let answer = ended.unwrap_or_else(|_| panic!("{away:?}: {name} hangs"));
                (name, answer.err().map(|error| error.kind()))
            });
        }
        calls.join_all().await
    }
}

type Call = Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>;

/// Calls by name.
macro_rules! calls {
    ($client:ident: $($name:literal => $call:expr,)+) => {
        vec![$({
            let $client = $client.clone();
            let call: Call = Box::pin(async move { $call.await.map(drop) });
            ($name, call)
        }),+]
    };
}

fn batch() -> Batch {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: TimestampMs(1), key: None, value: Some(b"x"), headers: &[] };
    builder.push(&record).unwrap();
    builder.build().unwrap()
}

/// The calls with one answer.
fn one_shot(client: &Client) -> Vec<(&'static str, Call)> {
    let fetch = Fetch { max_wait: DEADLINE, ..FetchFrom::new("t", 0, Position::Latest).into() };
    calls! { client:
        "connect" => connect(client.url()),
        "describe_node" => client.describe_node(),
        "create_topic" => client.create_topic("u", Some(1)),
        "list_topics" => client.list_topics(true),
        "describe_topic" => client.describe_topic("t"),
        "alter_topic" => client.alter_topic("t", &[SettingChange::reset("retention.ms")]),
        "add_partitions" => client.add_partitions("t", 2),
        "delete_records" => client.delete_records("t", &[(0, None)]),
        "delete_topic" => client.delete_topic("v"),
        "list_offsets" => client.list_offsets("t", &[(0, Position::Latest)]),
        "fetch" => client.fetch(fetch),
        "fetch by time" => client.fetch(FetchFrom::new("t", 0, Position::Time(TimestampMs(1))).into()),
        "subscribe" => client.subscribe(FetchFrom::new("t", 0, Position::Earliest).into()),
        "subscribe at the end" => client.subscribe(FetchFrom::new("t", 0, Position::Latest).into()),
        "produce_batch" => client.produce_batch("t", 0, batch(), Acks::Durable),
    }
}

/// What goes on: producers, one that has sent before and one that has not, and a subscription.
fn lasting(visitor: Visitor) -> Vec<(&'static str, Call)> {
    let Visitor { client, producer, mut subscription } = visitor;
    let new = client.producer(options()).unwrap();
    let send_and_close = async move {
        let delivery = producer.send(record()).await?;
        let (flushed, delivered) = (producer.flush().await, delivery.await);
        assert_eq!(flushed.unwrap_err().kind(), delivered.as_ref().unwrap_err().kind());
        // All is told by now.
        producer.close().await.unwrap();
        delivered.map(drop)
    };
    let first_send = async move { new.send(record()).await?.await.map(drop) };
    let next = async move { subscription.next().await.expect("an error comes first").map(drop) };
    vec![
        (PRODUCER, Box::pin(send_and_close)),
        (NEW_PRODUCER, Box::pin(first_send)),
        (SUBSCRIPTION, Box::pin(next)),
    ]
}

/// A node, and the ways to it.
struct Site {
    _dir: tempfile::TempDir,
    /// Somebody else.
    other: Option<Client>,
    server: Server,
    target: watch::Sender<Option<SocketAddr>>,
    proxy: Proxy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Away {
    Paused,
    /// Connections take everything and give nothing.
    Silent,
    /// All that is said takes longer than calls have time.
    Slow,
    /// Nobody listens on its port.
    Gone,
    /// A web server of HTTP/1 has taken its place.
    Replaced,
    /// A node that knows hardly any of the calls has taken its place.
    Older,
    /// It came back, on a disk without room for records.
    Full,
    /// It came back, and somebody else has the only connection that it takes.
    Busy,
}

/// More than any disk has.
const NO_ROOM: [&str; 2] = ["--low-space-bytes", "9000000000000000000"];
const ONE_CONNECTION: [&str; 2] = ["--limit", "max_connections=1"];

impl Site {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Server::start(logmill(), &dir.path().join("data")).await;
        let target = watch::Sender::new(*server.target().borrow());
        let proxy = Proxy::start(target.subscribe()).await;
        Self { _dir: dir, other: None, server, target, proxy }
    }

    async fn visitor(&self, away: Away) -> Visitor {
        match away {
            Away::Paused | Away::Gone => Visitor::new(self.server.url()).await,
            _ => Visitor::new(&self.proxy.url()).await,
        }
    }

    async fn go(&mut self, away: Away) {
        match away {
            Away::Paused => self.server.pause(),
            Away::Silent => self.proxy.set(Weather::HELD),
            Away::Slow => {
                let slow = Pace::Slow(LATEST);
                self.proxy.set(Weather { to_node: slow, to_client: slow, ..Weather::default() });
            }
            Away::Gone => self.server.kill(),
            Away::Replaced => self.replace(web_server().await).await,
            Away::Older => self.replace(older_node().await).await,
            Away::Full => {
                let node = self.restart(&NO_ROOM).await;
                let is_full =
                    async { while node.produce_batch("t", 0, batch(), Acks::Durable).await.is_ok() {} };
                timeout(LIMIT, is_full).await.expect("it looks at the space that is left");
                self.open_the_way();
            }
            Away::Busy => {
                self.other = Some(self.restart(&ONE_CONNECTION).await);
                self.open_the_way();
            }
        }
    }

    /// Stops the node and starts it with these arguments; its clients cannot reach it yet. Gives one that can.
    async fn restart(&mut self, args: &[&str]) -> Client {
        self.target.send_replace(None);
        assert_eq!(self.server.terminate().await, 0);
        self.server.set_args(args);
        self.server.resume().await;
        connect(self.server.url()).await.unwrap()
    }

    fn open_the_way(&self) {
        self.target.send_replace(*self.server.target().borrow());
    }

    /// Another one is where the node was.
    async fn replace(&self, other: SocketAddr) {
        self.target.send_replace(Some(other));
        self.proxy.set(Weather::cut(Cut::Now));
        let cut = async {
            while self.proxy.cuts() == 0 {
                tokio::task::yield_now().await;
            }
        };
        timeout(LIMIT, cut).await.unwrap();
        self.proxy.set(Weather::default());
    }
}

async fn web_server() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut connection, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = connection.read(&mut request).await;
                let reply = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 3\r\n\r\nno\n";
                let _ = connection.write_all(reply).await;
                // Closed with bytes unread, the connection would be reset, and the reply perhaps not seen.
                while let Ok(1..) = connection.read(&mut request).await {}
            });
        }
    });
    address
}

/// Every call is made at once, for each way to be away: an open subscription to a silent node takes as long as
/// connections need to notice.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_to_a_node_that_is_away_ends_with_an_error() {
    let mut sites = JoinSet::new();
    for away in [Away::Paused, Away::Silent, Away::Slow, Away::Gone, Away::Replaced] {
        sites.spawn(async move {
            let mut site = Site::new().await;
            let visitor = site.visitor(away).await;
            site.go(away).await;
            for (name, ended) in visitor.call_all(away).await {
                let kind = ended.unwrap_or_else(|| panic!("{away:?}: {name} succeeds"));
                assert!(expected(away, name).contains(&kind), "{away:?}: {name}: {kind:?}");
            }
        });
    }
    sites.join_all().await;
}

/// What such a node can do it does, and it says of all else that it cannot.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_to_a_node_that_is_full_busy_or_older_ends_with_what_it_can_do_or_an_error() {
    let mut sites = JoinSet::new();
    for away in [Away::Full, Away::Busy, Away::Older] {
        sites.spawn(async move {
            let mut site = Site::new().await;
            let visitor = site.visitor(away).await;
            site.go(away).await;
            if away != Away::Busy {
                visitor.meet().await;
            }
            let mut wrong = visitor.call_all(away).await;
            wrong.retain(|(name, ended)| !can_or_says_so(away, name).contains(ended));
            assert!(wrong.is_empty(), "{away:?}: {wrong:?}");
        });
    }
    sites.join_all().await;
}

fn can_or_says_so(away: Away, call: &str) -> &'static [Option<ErrorKind>] {
    use ErrorKind::{Exhausted, NotFound, Timeout, Unsupported};
    match (away, call) {
        (Away::Full, PRODUCER | NEW_PRODUCER | "produce_batch") => &[Some(Exhausted)],
        (Away::Full, "delete_topic") => &[Some(NotFound)],
        (Away::Full, _) | (Away::Older, "connect" | "describe_node") => &[None],
        // They try again as long as they have time.
        (Away::Busy, PRODUCER | NEW_PRODUCER) => &[Some(Exhausted), Some(Timeout)],
        (Away::Busy, _) => &[Some(Exhausted)],
        _ => &[Some(Unsupported)],
    }
}

fn expected(away: Away, call: &str) -> Vec<ErrorKind> {
    let is_silent = matches!(away, Away::Paused | Away::Silent | Away::Slow);
    let usual = if is_silent { ErrorKind::Timeout } else { ErrorKind::Unavailable };
    match call {
        // Whether what came was seen to be no HTTP/2 before the connection was given up.
        "connect" if away == Away::Replaced => vec![ErrorKind::Unsupported, ErrorKind::Unavailable],
        "connect" => vec![ErrorKind::Unavailable],
        // It may go out on the old connection before that is seen to be broken.
        "produce_batch" if away == Away::Gone => vec![ErrorKind::OutcomeUnknown, usual],
        "produce_batch" => vec![ErrorKind::OutcomeUnknown],
        // Whether it was sent is a matter of luck, and whether the topic was known.
        PRODUCER => vec![ErrorKind::OutcomeUnknown, ErrorKind::Timeout],
        NEW_PRODUCER => vec![ErrorKind::Timeout, usual],
        _ => vec![usual],
    }
}
