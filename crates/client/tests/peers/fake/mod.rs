//! A peer that misbehaves on request: it speaks the node's API, and each stream follows a script of the test.
//!
//! It runs on a runtime of its own, so that it can be taken away in the middle, connections and all.

mod groups;
mod services;
mod transactions;

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use bytes::Bytes;
use logmill_client::Client;
use logmill_proto::v1;
use logmill_proto::v1::produce_request::Payload;
use logmill_proto::v1::produce_stream_response::Reply;
use parking_lot::Mutex;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::{Notify, mpsc};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Status, Streaming};

pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;
pub(crate) type Script<Request, Reply> = Arc<dyn Fn(Session<Request, Reply>) -> Task + Send + Sync>;
pub(crate) type ProduceSession = Session<v1::ProduceStreamRequest, v1::ProduceStreamResponse>;
pub(crate) type ConsumeSession = Session<v1::ConsumeRequest, v1::ConsumeResponse>;
pub(crate) type SubscribeSession = Session<v1::SubscribeRequest, v1::SubscribeResponse>;

/// One stream, for its script to play.
pub(crate) struct Session<Request, Reply> {
    /// How many streams of this kind there were before.
    pub(crate) number: u32,
    pub(crate) requests: Streaming<Request>,
    pub(crate) replies: mpsc::Sender<Result<Reply, Status>>,
    pub(crate) log: Log,
    pub(crate) cues: Cues,
}

/// What a test and a script tell each other.
#[derive(Clone, Default)]
pub(crate) struct Cues {
    /// A request has arrived at the script.
    pub(crate) received: Arc<Notify>,
    /// The script may go on.
    pub(crate) go: Arc<Notify>,
}

impl<Request, Reply> Session<Request, Reply> {
    pub(crate) async fn request(&mut self) -> Option<Request> {
        let request = self.requests.message().await.ok().flatten();
        self.cues.received.notify_one();
        request
    }

    pub(crate) async fn break_off(&self) {
        let _ = self.replies.send(Err(Status::unavailable("the script breaks the stream"))).await;
    }
}

impl ProduceSession {
    pub(crate) async fn start(&self) {
        self.start_with(1 << 20, 8 << 20).await;
    }

    pub(crate) async fn start_with(&self, max_batch_bytes: i32, max_unanswered_bytes: i64) {
        let started = v1::ProduceStreamStarted {
            max_unanswered_bytes,
            max_batch_bytes,
            max_in_flight_batches_per_partition: 64,
        };
        self.reply(Reply::Started(started)).await;
    }

    pub(crate) async fn answer(&self, correlation_id: u64, results: Vec<v1::ProduceResult>) {
        self.reply(Reply::Answer(v1::ProduceStreamAnswer { correlation_id, results })).await;
    }

    /// Appends the request and answers it, as a node does.
    pub(crate) async fn append(&self, request: &v1::ProduceStreamRequest) {
        let result = self.log.append(request.request.as_ref().unwrap());
        self.answer(request.correlation_id, vec![result]).await;
    }

    async fn reply(&self, reply: Reply) {
        let _ = self.replies.send(Ok(v1::ProduceStreamResponse { reply: Some(reply) })).await;
    }
}

/// What was appended, by topic and partition: the values, batch by batch. A batch that comes again is known.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Partitions>>);

type Partitions = BTreeMap<(String, i32), Partition>;

#[derive(Default)]
struct Partition {
    batches: Vec<Batch>,
    /// First offsets, by producer, epoch and sequence.
    known: BTreeMap<(i64, i16, i32), i64>,
}

type Batch = Vec<String>;

impl Log {
    pub(crate) fn append(&self, request: &v1::ProduceRequest) -> v1::ProduceResult {
        let partition = request.partition.unwrap();
        let (values, header) = (values(request), parse(request).header().clone());
        let mut log = self.0.lock();
        let to = log.entry((request.topic.clone(), partition)).or_default();
        let count = i64::try_from(values.len()).unwrap();
        let end = i64::try_from(to.batches.iter().map(Vec::len).sum::<usize>()).unwrap();
        let number = (header.producer_id, header.producer_epoch, header.base_sequence);
        let known = to.known.get(&number).copied().filter(|_| number.0 >= 0);
        if known.is_none() {
            to.batches.push(values);
            to.known.insert(number, end);
        }
        let first_offset = known.unwrap_or(end);
        let last_offset = first_offset + count - 1;
        let duplicate = known.is_some();
        let appended = v1::Appended { first_offset, last_offset, appended_at_ms: 1_000, duplicate };
        let outcome = Some(v1::produce_result::Outcome::Appended(appended));
        v1::ProduceResult { partition, record_indexes: Vec::new(), outcome }
    }

    pub(crate) fn batches(&self, topic: &str, partition: i32) -> Vec<Batch> {
        let log = self.0.lock();
        log.get(&(topic.to_owned(), partition)).map_or_else(Vec::new, |it| it.batches.clone())
    }

    pub(crate) fn values(&self, topic: &str, partition: i32) -> Vec<String> {
        self.batches(topic, partition).concat()
    }
}

/// A request's batch, checked as a node checks it.
pub(crate) fn parse(request: &v1::ProduceRequest) -> logmill_record::Batch {
    let Some(Payload::Batch(bytes)) = &request.payload else { panic!("not a batch: {request:?}") };
    let batch = logmill_record::Batch::parse(bytes.clone()).unwrap();
    batch.check_records().unwrap();
    batch
}

/// The values of a request's batch.
pub(crate) fn values(request: &v1::ProduceRequest) -> Vec<String> {
    let batch = parse(request);
    let text = |value: Option<&[u8]>| String::from_utf8(value.unwrap().to_vec()).unwrap();
    batch.records().unwrap().map(|record| text(record.unwrap().value)).collect()
}

pub(crate) fn refused(partition: i32, code: tonic::Code, reason: &str) -> v1::ProduceResult {
    let error =
        v1::Error { code: code.into(), reason: reason.into(), message: "no".into(), ..Default::default() };
    let outcome = Some(v1::produce_result::Outcome::Error(error));
    v1::ProduceResult { partition, record_indexes: Vec::new(), outcome }
}

/// What a fake node knows and does.
#[derive(Clone)]
pub(crate) struct Fake {
    pub(crate) topics: Arc<Mutex<BTreeMap<String, i32>>>,
    pub(crate) log: Log,
    pub(crate) cues: Cues,
    pub(crate) produce: Script<v1::ProduceStreamRequest, v1::ProduceStreamResponse>,
    pub(crate) subscribe: Script<v1::SubscribeRequest, v1::SubscribeResponse>,
    pub(crate) consume: Script<v1::ConsumeRequest, v1::ConsumeResponse>,
    pub(crate) consume_streams: Arc<AtomicU32>,
    pub(crate) produce_streams: Arc<AtomicU32>,
    pub(crate) subscribe_streams: Arc<AtomicU32>,
    /// The next id that a producer gets.
    pub(crate) producer_ids: Arc<AtomicU32>,
    pub(crate) gives_ids: bool,
    /// What `EndTransaction` answers, one after the other, before it ends transactions.
    pub(crate) end_errors: Arc<Mutex<VecDeque<Status>>>,
    /// The transactions that were to be ended: id, epoch and outcome.
    pub(crate) ended: Arc<Mutex<Vec<(i64, i32, i32)>>>,
    /// What `CommitStep` answers, one after the other, before it commits steps.
    pub(crate) step_errors: Arc<Mutex<VecDeque<Status>>>,
    /// The sequences of the steps that came.
    pub(crate) steps: Arc<Mutex<Vec<i64>>>,
    /// Unary produce requests are appended and then answered with this, if it is set.
    pub(crate) produce_answer: Option<Status>,
    /// How long `DescribeTopic` takes.
    pub(crate) describe_delay: Duration,
}

impl Fake {
    /// With topic `t` of four partitions, appending and answering everything.
    pub(crate) fn new() -> Fake {
        Fake {
            topics: Arc::new(Mutex::new(BTreeMap::from([("t".to_owned(), 4)]))),
            log: Log::default(),
            cues: Cues::default(),
            produce: script(|mut session: ProduceSession| async move {
                session.start().await;
                while let Some(request) = session.request().await {
                    session.append(&request).await;
                }
            }),
            subscribe: script(|_session: SubscribeSession| async {}),
            consume: script(|_session: ConsumeSession| async {}),
            consume_streams: Arc::default(),
            produce_streams: Arc::default(),
            subscribe_streams: Arc::default(),
            producer_ids: Arc::default(),
            gives_ids: true,
            end_errors: Arc::default(),
            ended: Arc::default(),
            step_errors: Arc::default(),
            steps: Arc::default(),
            produce_answer: None,
            describe_delay: Duration::ZERO,
        }
    }

    pub(crate) fn producing<F: Future<Output = ()> + Send + 'static>(
        mut self,
        play: impl Fn(ProduceSession) -> F + Send + Sync + 'static,
    ) -> Fake {
        self.produce = script(play);
        self
    }

    pub(crate) fn subscribing<F: Future<Output = ()> + Send + 'static>(
        mut self,
        play: impl Fn(SubscribeSession) -> F + Send + Sync + 'static,
    ) -> Fake {
        self.subscribe = script(play);
        self
    }

    pub(crate) fn consuming<F: Future<Output = ()> + Send + 'static>(
        mut self,
        play: impl Fn(ConsumeSession) -> F + Send + Sync + 'static,
    ) -> Fake {
        self.consume = script(play);
        self
    }

    pub(crate) async fn start(self) -> FakeNode {
        self.start_at("127.0.0.1:0".parse().unwrap()).await
    }

    pub(crate) async fn start_at(self, address: SocketAddr) -> FakeNode {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let fake = self.clone();
        let serve = async move {
            // The port of a node that was just stopped is free a moment later.
            let listener = loop {
                match TcpListener::bind(address).await {
                    Ok(listener) => break listener,
                    Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                }
            };
            let address = listener.local_addr().unwrap();
            tokio::spawn(fake.router().serve_with_incoming(TcpListenerStream::new(listener)));
            address
        };
        let address = runtime.spawn(serve).await.unwrap();
        FakeNode { fake: self, address, runtime: Some(runtime) }
    }
}

pub(crate) fn script<Request, Reply, F: Future<Output = ()> + Send + 'static>(
    play: impl Fn(Session<Request, Reply>) -> F + Send + Sync + 'static,
) -> Script<Request, Reply> {
    Arc::new(move |session| Box::pin(play(session)))
}

pub(crate) struct FakeNode {
    pub(crate) fake: Fake,
    pub(crate) address: SocketAddr,
    runtime: Option<Runtime>,
}

impl FakeNode {
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(&self.url()).await.unwrap()
    }

    /// Takes the node away with all its connections, as a crash does.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Brings it back at the same address.
    pub(crate) async fn restart(&mut self) {
        self.kill();
        *self = self.fake.clone().start_at(self.address).await;
    }
}

impl Drop for FakeNode {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A run of batches at `base`, one record each.
pub(crate) fn stored(base: u64, count: u64) -> Bytes {
    let mut run = Vec::new();
    for offset in base..base + count {
        let mut builder = logmill_record::BatchBuilder::new();
        let value = format!("value {offset}");
        let record = logmill_record::NewRecord {
            timestamp: logmill_record::TimestampMs(0),
            key: None,
            value: Some(value.as_bytes()),
            headers: &[],
        };
        builder.push(&record).unwrap();
        let batch = builder.build().unwrap();
        let prefix = logmill_record::stamped_prefix(batch.header(), logmill_record::Offset(offset), 1);
        run.extend_from_slice(&prefix);
        run.extend_from_slice(&batch.bytes()[prefix.len()..]);
    }
    run.into()
}
