//! `ProduceService`.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use logmill_log::env::Env;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};
use v1::produce_request::Payload;
use v1::produce_result::Outcome;
use v1::produce_stream_response::Reply;

use super::*;
use crate::common::hook_fs::{Call, Gate, hooked};
use crate::common::{batch, config};

fn produce_batch(topic: &str, partition: i32, bytes: bytes::Bytes) -> v1::ProduceRequest {
    v1::ProduceRequest {
        topic: topic.into(),
        partition: Some(partition),
        payload: Some(Payload::Batch(bytes)),
        ..v1::ProduceRequest::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_and_batches_are_appended() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 4).await;
    let mut produces = served.produces();
    let keyed = |key: &'static str| v1::Record { key: Some(key.into()), ..record(key) };
    let request = v1::ProduceRequest {
        payload: Some(Payload::Records(v1::RecordSet {
            records: ["a", "b", "c", "d", "e", "f"].map(keyed).to_vec(),
        })),
        sent_at_ms: Some(1),
        ..records::<&str>("t", None, [])
    };
    let results = produces.produce(request).await.unwrap().into_inner().results;
    assert!(results.len() > 1);
    let mut indexes: Vec<i32> = results.iter().flat_map(|result| result.record_indexes.clone()).collect();
    indexes.sort_unstable();
    assert_eq!(indexes, [0, 1, 2, 3, 4, 5]);

    served.create("u", 1).await;
    let request = produce_batch("u", 0, batch(["x", "y"]).bytes().clone());
    let results = produces.produce(request).await.unwrap().into_inner().results;
    let [v1::ProduceResult { partition: 0, record_indexes, outcome: Some(Outcome::Appended(appended)) }] =
        &results[..]
    else {
        panic!("{results:?}")
    };
    assert!(record_indexes.is_empty());
    assert_eq!((appended.first_offset, appended.last_offset), (0, 1));
    assert!(appended.appended_at_ms > 1_700_000_000_000);

    let none = v1::ProduceRequest { acks: v1::Acks::None.into(), ..records("u", None, ["z"]) };
    assert!(produces.produce(none).await.unwrap().into_inner().results.is_empty());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_make_no_sense_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 2).await;
    let mut produces = served.produces();
    let good = || records("t", Some(0), ["x"]);
    let cases = [
        (v1::ProduceRequest { partition: Some(-1), ..good() }, "partition"),
        (v1::ProduceRequest { payload: None, ..good() }, "payload"),
        (v1::ProduceRequest { acks: 99, ..good() }, "acks"),
        (records::<&str>("t", Some(0), []), "records"),
        (
            v1::ProduceRequest { partition: None, ..produce_batch("t", 0, batch(["x"]).bytes().clone()) },
            "partition",
        ),
    ];
    for (request, field) in cases {
        assert_eq!(invalid_field(&produces.produce(request).await.unwrap_err()), field);
    }
    for (request, code, expected) in [
        (records("nowhere", None, ["x"]), Code::NotFound, "TOPIC_NOT_FOUND"),
        (records("t", Some(i32::MAX), ["x"]), Code::NotFound, "PARTITION_NOT_FOUND"),
        (produce_batch("t", 1, "junk".into()), Code::InvalidArgument, "BATCH_INVALID"),
        (records("t", Some(0), [vec![0; 2_000_000]]), Code::InvalidArgument, "MESSAGE_TOO_LARGE"),
    ] {
        let status = produces.produce(request).await.unwrap_err();
        assert_eq!((status.code(), reason(&status).1.as_str()), (code, expected));
    }
    served.stop().await;
}

/// A produce stream and what comes back on it.
struct Stream {
    requests: mpsc::Sender<v1::ProduceStreamRequest>,
    answers: Streaming<v1::ProduceStreamResponse>,
    started: v1::ProduceStreamStarted,
}

impl Stream {
    async fn open(served: &Served) -> Self {
        let (requests, outgoing) = mpsc::channel(16);
        let outgoing = ReceiverStream::new(outgoing);
        let mut answers = served.produces().produce_stream(outgoing).await.unwrap().into_inner();
        let Some(Reply::Started(started)) = answers.message().await.unwrap().unwrap().reply else {
            panic!("the first reply is `started`")
        };
        Self { requests, answers, started }
    }

    async fn send(&self, correlation_id: u64, request: v1::ProduceRequest) {
        let request =
            v1::ProduceStreamRequest { correlation_id, request: Some(request), after_failure: false };
        self.requests.send(request).await.unwrap();
    }

    async fn send_after_failure(&self, correlation_id: u64, request: v1::ProduceRequest) {
        let request =
            v1::ProduceStreamRequest { correlation_id, request: Some(request), after_failure: true };
        self.requests.send(request).await.unwrap();
    }

    async fn answer(&mut self) -> v1::ProduceStreamAnswer {
        match self.answers.message().await.unwrap().unwrap().reply {
            Some(Reply::Answer(answer)) => answer,
            other => panic!("{other:?}"),
        }
    }
}

fn appended(answer: &v1::ProduceStreamAnswer) -> &v1::Appended {
    match &answer.results[..] {
        [v1::ProduceResult { outcome: Some(Outcome::Appended(appended)), .. }] => appended,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_appends_in_order_and_answers_each_request_once() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 2).await;
    let mut stream = Stream::open(&served).await;
    assert_eq!(stream.started.max_unanswered_bytes, 16 * 1024 * 1024);
    assert_eq!(stream.started.max_batch_bytes, 8 * 1024 * 1024, "what a topic can be set to");
    let requests = stream.requests.clone();
    let sending = tokio::spawn(async move {
        for i in 0..500_u64 {
            let partition = i32::try_from(i % 2).unwrap();
            let request = Some(produce_batch("t", partition, batch([i.to_string()]).bytes().clone()));
            requests
                .send(v1::ProduceStreamRequest { correlation_id: i, request, after_failure: false })
                .await
                .unwrap();
        }
    });
    let mut seen = vec![0; 500];
    for _ in 0..500 {
        let answer = stream.answer().await;
        seen[usize::try_from(answer.correlation_id).unwrap()] += 1;
        let sent_before = i64::try_from(answer.correlation_id / 2).unwrap();
        assert_eq!(appended(&answer).first_offset, sent_before, "in the order sent");
    }
    assert!(seen.iter().all(|count| *count == 1));
    sending.await.unwrap();

    // The client has no more to send: the stream ends without an error.
    drop(stream.requests);
    assert!(stream.answers.message().await.unwrap().is_none());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_request_is_answered_in_band_and_does_not_end_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let mut stream = Stream::open(&served).await;
    let missing = v1::ProduceStreamRequest { correlation_id: 1, request: None, after_failure: false };
    stream.requests.send(missing).await.unwrap();
    stream.send(2, records("nowhere", None, ["x"])).await;
    stream.send(3, produce_batch("t", 0, "junk".into())).await;
    stream
        .send_after_failure(
            4,
            v1::ProduceRequest { acks: v1::Acks::None.into(), ..records("t", None, ["x"]) },
        )
        .await;
    stream.send(5, records("t", None, ["good"])).await;
    let mut answers = HashMap::new();
    for _ in 0..5 {
        let answer = stream.answer().await;
        answers.insert(answer.correlation_id, answer);
    }
    for (id, partition, reason) in
        [(1, -1, "REQUEST_INVALID"), (2, -1, "TOPIC_NOT_FOUND"), (3, 0, "BATCH_INVALID")]
    {
        let [result] = &answers[&id].results[..] else { panic!("{answers:?}") };
        let Some(Outcome::Error(error)) = &result.outcome else { panic!("{result:?}") };
        assert_eq!((result.partition, error.reason.as_str()), (partition, reason));
        assert!(!error.message.is_empty());
    }
    assert!(answers[&4].results.is_empty());
    assert_eq!(appended(&answers[&5]).first_offset, 1);
    served.stop().await;
}

/// With h2 0.4.16 to 0.4.18 a connection died of this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_carries_very_many_tiny_requests() {
    const REQUESTS: u64 = 20_000;
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let mut stream = Stream::open(&served).await;
    let requests = stream.requests.clone();
    let sending = tokio::spawn(async move {
        for i in 0..REQUESTS {
            let request =
                v1::ProduceRequest { acks: v1::Acks::Written.into(), ..records("t", Some(0), ["x"]) };
            let request =
                v1::ProduceStreamRequest { correlation_id: i, request: Some(request), after_failure: false };
            requests.send(request).await.unwrap();
        }
    });
    for _ in 0..REQUESTS {
        stream.answer().await;
    }
    sending.await.unwrap();
    served.stop().await;
}

/// A machine on which the segment of partition 0 cannot be written until the gate opens.
fn stalled_writes() -> (Env, Arc<Gate>) {
    let gate = Arc::new(Gate::default());
    let stall = {
        let gate = Arc::clone(&gate);
        move |call, path: &Path| {
            if call == Call::Write && path.to_string_lossy().ends_with("/0/00000000000000000000.log") {
                gate.pass();
            }
            Ok(())
        }
    };
    (hooked(stall), gate)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_held_back_while_too_much_is_unanswered() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = stalled_writes();
    let served = Served::start(Config { env, ..config(&dir) }).await;
    served.create("t", 1).await;
    let mut stream = Stream::open(&served).await;
    let big = batch([vec![b'x'; 1_000_000]]).bytes().clone();
    // What the node reads, what the windows hold, and no more than that.
    let mut sent = 0;
    while sent < 100 {
        let request = Some(produce_batch("t", 0, big.clone()));
        let request = v1::ProduceStreamRequest { correlation_id: sent, request, after_failure: false };
        match tokio::time::timeout(Duration::from_millis(500), stream.requests.send(request)).await {
            Ok(sending) => sending.unwrap(),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!((16..70).contains(&sent), "{sent} MB were taken");
    gate.open();
    for _ in 0..sent {
        appended(&stream.answer().await);
    }
    served.stop().await;
}

/// In memory an empty record takes fifty times what it takes in a message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_message_of_very_many_records_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let empty = |count| v1::ProduceRequest {
        payload: Some(Payload::Records(v1::RecordSet { records: vec![v1::Record::default(); count] })),
        ..records::<&str>("t", Some(0), [])
    };
    let status = served.produces().produce(empty(500_000)).await.unwrap_err();
    let (code, reason, metadata) = reason(&status);
    assert_eq!((code, reason.as_str()), (Code::ResourceExhausted, "LIMIT_EXCEEDED"));
    assert_eq!(metadata["limit"], "max_records_per_request");
    assert_eq!(metadata["value"], "100000");

    // A stream of requests ends with what would be too much to decode; what was before it is answered.
    let mut stream = Stream::open(&served).await;
    stream.send(1, empty(100_000)).await;
    assert_eq!(appended(&stream.answer().await).last_offset, 99_999);
    stream.send(2, empty(100_001)).await;
    let status = stream.answers.message().await.unwrap_err();
    assert_eq!(self::reason(&status).2["limit"], "max_records_per_request");
    served.stop().await;
}

/// Small in a message, large in memory: what a stream may leave unanswered is counted in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_counts_what_its_records_take_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let (env, gate) = stalled_writes();
    let served = Served::start(Config { env, ..config(&dir) }).await;
    served.create("t", 1).await;
    let mut stream = Stream::open(&served).await;
    let request = v1::ProduceRequest {
        payload: Some(Payload::Records(v1::RecordSet { records: vec![v1::Record::default(); 50_000] })),
        ..records::<&str>("t", Some(0), [])
    };
    // 100 kB as a message and 5 MB in memory: three of them are taken, and the windows hold some.
    let mut sent = 0;
    while sent < 400 {
        let request = v1::ProduceStreamRequest {
            correlation_id: sent,
            request: Some(request.clone()),
            after_failure: false,
        };
        match tokio::time::timeout(Duration::from_millis(500), stream.requests.send(request)).await {
            Ok(sending) => sending.unwrap(),
            Err(_) => break,
        }
        sent += 1;
    }
    assert!((4..150).contains(&sent), "{sent} were taken");
    gate.open();
    for _ in 0..sent {
        appended(&stream.answer().await);
    }
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idempotent_producer_sends_again_and_goes_on_after_a_failure() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let id = served.produces().init_producer_id(v1::InitProducerIdRequest {}).await.unwrap().into_inner();
    assert!(id.producer_id >= 0 && id.producer_epoch == 0);
    let plain = |base_sequence, value| {
        let (id, epoch, transactional) = (id.producer_id, 0, false);
        let producer = v1::ProducerState { id, epoch, base_sequence, transactional };
        v1::ProduceRequest { producer: Some(producer), ..records("t", Some(0), [value]) }
    };
    let mut stream = Stream::open(&served).await;
    assert_eq!(stream.started.max_in_flight_batches_per_partition, 64);
    let reason = |answer: &v1::ProduceStreamAnswer| match &answer.results[..] {
        [v1::ProduceResult { outcome: Some(Outcome::Error(error)), .. }] => error.reason.clone(),
        other => panic!("{other:?}"),
    };
    for duplicate in [false, true] {
        stream.send(1, plain(0, "a")).await;
        let answer = stream.answer().await;
        assert_eq!((appended(&answer).first_offset, appended(&answer).duplicate), (0, duplicate));
    }
    // Neither payload nor sense, but those behind it wait for it all the same.
    let nonsense = v1::ProduceRequest { payload: None, ..plain(1, "b") };
    stream.send(2, nonsense).await;
    stream.send(3, plain(1, "b")).await;
    let mut reasons = [(0, String::new()), (0, String::new())];
    for place in &mut reasons {
        let answer = stream.answer().await;
        *place = (answer.correlation_id, reason(&answer));
    }
    reasons.sort();
    assert_eq!(reasons, [(2, "REQUEST_INVALID".to_owned()), (3, "PRECEDING_FAILED".to_owned())]);
    stream.send_after_failure(4, plain(1, "b")).await;
    assert_eq!(appended(&stream.answer().await).first_offset, 1);

    let batch = Payload::Batch(batch(["c"]).bytes().clone());
    let twice = v1::ProduceRequest { payload: Some(batch), ..plain(2, "c") };
    let status = served.produces().produce(twice).await.unwrap_err();
    assert!(status.message().contains("in its own header"), "{status}");
    served.stop().await;
}
