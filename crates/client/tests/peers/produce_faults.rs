//! What a producer does when its node breaks, stalls, refuses or lies.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use logmill_client::{Acks, Delivery, ErrorKind, Producer, ProducerOptions, ProducerRecord};
use logmill_proto::v1;
use logmill_record::{BatchBuilder, NewRecord, TimestampMs};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};

use crate::fake::{Fake, FakeNode, ProduceSession, parse, refused, values};

const SOON: Duration = Duration::from_secs(20);

fn record(partition: u32, value: impl Into<String>) -> ProducerRecord {
    ProducerRecord::new("t", value.into()).partition(partition)
}

async fn send(producer: &Producer, partition: u32, value: impl Into<String>) -> Delivery {
    timeout(SOON, producer.send(record(partition, value))).await.expect("room in time").unwrap()
}

/// Sends a record and waits until it has arrived: one that follows is in the next batch.
async fn send_off(node: &FakeNode, producer: &Producer, value: &str) -> Delivery {
    let delivery = send(producer, 0, value).await;
    timeout(SOON, node.fake.cues.received.notified()).await.expect("it arrives in time");
    delivery
}

async fn outcome(delivery: Delivery) -> Result<u64, ErrorKind> {
    let delivered = timeout(SOON, delivery).await.expect("an answer in time");
    delivered.map(|it| it.offset.get()).map_err(|error| error.kind())
}

fn quick(delivery_timeout: Duration) -> ProducerOptions {
    ProducerOptions { delivery_timeout, ..ProducerOptions::default() }
}

#[tokio::test]
async fn without_idempotence_what_was_sent_and_not_answered_is_never_sent_again() {
    // The record "lost" is appended, but the stream breaks before it is answered.
    let fake = Fake::new().producing(|mut session: ProduceSession| async move {
        session.start().await;
        while let Some(request) = session.request().await {
            if values(request.request.as_ref().unwrap()).contains(&"lost".to_owned()) {
                session.log.append(request.request.as_ref().unwrap());
                session.cues.go.notified().await;
                return session.break_off().await;
            }
            session.append(&request).await;
        }
    });
    let node = fake.start().await;
    let options = ProducerOptions { idempotent: false, ..ProducerOptions::default() };
    let producer = node.client().await.producer(options).unwrap();

    assert_eq!(outcome(send_off(&node, &producer, "first").await).await, Ok(0));
    let lost = send_off(&node, &producer, "lost").await;
    let behind = send(&producer, 0, "behind").await;
    node.fake.cues.go.notify_one();
    assert_eq!(outcome(lost).await, Err(ErrorKind::OutcomeUnknown));
    assert_eq!(outcome(behind).await, Ok(2), "what had not been sent goes out on the next stream");
    assert_eq!(node.fake.log.values("t", 0), ["first", "lost", "behind"]);
    assert_eq!(node.fake.produce_streams.load(Ordering::SeqCst), 2);
}

/// Answers each request as the rest of the script says: how often it was asked, and the request.
fn answering(
    answer: impl Fn(u32, &v1::ProduceStreamRequest) -> Option<v1::ProduceResult> + Clone + Send + Sync + 'static,
) -> Fake {
    Fake::new().producing(move |mut session: ProduceSession| {
        let answer = answer.clone();
        async move {
            session.start().await;
            let mut asked = 0;
            while let Some(request) = session.request().await {
                match answer(asked, &request) {
                    Some(result) => session.answer(request.correlation_id, vec![result]).await,
                    None => session.append(&request).await,
                }
                asked += 1;
            }
        }
    })
}

#[tokio::test]
async fn what_was_sent_and_not_answered_is_sent_again_and_stored_once() {
    // Whatever "lost" is in is appended, but the first stream breaks before it is answered; so does the second.
    let fake = Fake::new().producing(|mut session: ProduceSession| async move {
        session.start().await;
        while let Some(request) = session.request().await {
            if session.number < 2 && values(request.request.as_ref().unwrap()).contains(&"lost".to_owned()) {
                session.log.append(request.request.as_ref().unwrap());
                session.cues.go.notified().await;
                return session.break_off().await;
            }
            session.append(&request).await;
        }
    });
    let node = fake.start().await;
    let producer = node.client().await.producer(ProducerOptions::default()).unwrap();
    assert_eq!(outcome(send_off(&node, &producer, "first").await).await, Ok(0));
    let lost = send_off(&node, &producer, "lost").await;
    let behind = send(&producer, 0, "behind").await;
    node.fake.cues.go.notify_one();
    timeout(SOON, node.fake.cues.received.notified()).await.expect("it is sent again");
    node.fake.cues.go.notify_one();
    assert_eq!((outcome(lost).await, outcome(behind).await), (Ok(1), Ok(2)));
    assert_eq!(node.fake.log.values("t", 0), ["first", "lost", "behind"]);
    assert_eq!(node.fake.produce_streams.load(Ordering::SeqCst), 3);
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn a_node_that_does_not_know_or_asks_for_patience_is_asked_again() {
    let cases = [
        (Code::Unknown, "OUTCOME_UNKNOWN"),
        (Code::Internal, "INTERNAL_FAULT"),
        (Code::Unavailable, "PARTITION_REOPENING"),
        (Code::FailedPrecondition, "OUT_OF_SEQUENCE"),
    ];
    for (code, reason) in cases {
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let fake = answering({
            let seen = Arc::clone(&seen);
            move |asked, request| {
                let header = parse(request.request.as_ref().unwrap()).header().clone();
                seen.lock().push((header.producer_epoch, header.base_sequence, request.after_failure));
                (asked == 1).then(|| refused(0, code, reason))
            }
        });
        let node = fake.start().await;
        let producer = node.client().await.producer(ProducerOptions::default()).unwrap();
        assert_eq!(outcome(send(&producer, 0, "first").await).await, Ok(0));
        assert_eq!(outcome(send(&producer, 0, "again").await).await, Ok(1), "{reason}");
        let again = if reason == "OUT_OF_SEQUENCE" { (1, 0, true) } else { (0, 1, true) };
        assert_eq!(*seen.lock(), [(0, 0, false), (0, 1, false), again], "{reason}");
        producer.flush().await.unwrap();
    }
}

#[tokio::test]
async fn without_idempotence_a_fault_inside_the_node_leaves_the_outcome_unknown() {
    let fake = answering(|asked, _| (asked == 0).then(|| refused(0, Code::Internal, "INTERNAL_FAULT")));
    let node = fake.start().await;
    let options = ProducerOptions { idempotent: false, ..ProducerOptions::default() };
    let producer = node.client().await.producer(options).unwrap();
    let error = timeout(SOON, send(&producer, 0, "who knows").await).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::OutcomeUnknown, "INTERNAL_FAULT"));
    assert_eq!(outcome(send(&producer, 0, "next").await).await, Ok(0), "and it is not sent again");
}

#[tokio::test]
async fn after_an_answer_that_leaves_it_open_the_next_batch_begins_a_new_epoch() {
    let cases = [
        (Code::AlreadyExists, "SEQUENCE_FORGOTTEN", ErrorKind::AlreadyExists),
        (Code::Unknown, "OUTCOME_UNKNOWN", ErrorKind::OutcomeUnknown),
    ];
    for (code, reason, kind) in cases {
        let seen = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let fake = answering({
            let seen = Arc::clone(&seen);
            move |_, request| {
                let header = parse(request.request.as_ref().unwrap()).header().clone();
                let is_first = header.producer_epoch == 0;
                seen.lock().push((header.producer_epoch, header.base_sequence, request.after_failure));
                is_first.then(|| refused(0, code, reason))
            }
        });
        let node = fake.start().await;
        let producer = node.client().await.producer(quick(Duration::from_millis(400))).unwrap();
        let open = send(&producer, 0, "who knows").await;
        assert_eq!(outcome(open).await, Err(kind));
        assert_eq!(outcome(send(&producer, 0, "next").await).await, Ok(0));
        assert_eq!(seen.lock().first(), Some(&(0, 0, false)));
        assert_eq!(seen.lock().last(), Some(&(1, 0, true)));
    }
}

#[tokio::test]
async fn a_node_that_gives_no_ids_is_said_and_serves_a_producer_that_wants_none() {
    let node = Fake { gives_ids: false, ..Fake::new() }.start().await;
    let client = node.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    assert_eq!(outcome(send(&producer, 0, "x").await).await, Err(ErrorKind::Unsupported));
    let options = ProducerOptions { idempotent: false, ..ProducerOptions::default() };
    let producer = client.producer(options).unwrap();
    assert_eq!(outcome(send(&producer, 0, "x").await).await, Ok(0));
}

#[tokio::test]
async fn records_wait_for_a_node_that_comes_back() {
    let mut node = Fake::new().start().await;
    let client = node.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    assert_eq!(outcome(send(&producer, 0, "before").await).await, Ok(0));

    node.kill();
    let deliveries = [send(&producer, 0, "while down").await, send(&producer, 0, "too").await];
    sleep(Duration::from_millis(100)).await;
    node.restart().await;
    for (delivery, offset) in deliveries.into_iter().zip(1..) {
        assert_eq!(outcome(delivery).await, Ok(offset), "also if it was given to a dead connection first");
    }
    assert_eq!(outcome(send(&producer, 0, "after").await).await, Ok(3));
    assert_eq!(node.fake.log.values("t", 0), ["before", "while down", "too", "after"]);
}

#[tokio::test]
async fn a_stream_that_never_opens_leaves_no_outcome_unknown() {
    let fake = Fake::new().producing(|mut session: ProduceSession| async move {
        if session.number < 3 {
            return session.break_off().await;
        }
        session.start().await;
        while let Some(request) = session.request().await {
            session.append(&request).await;
        }
    });
    let node = fake.start().await;
    let producer = node.client().await.producer(ProducerOptions::default()).unwrap();
    assert_eq!(outcome(send(&producer, 0, "patient").await).await, Ok(0));
    assert_eq!(node.fake.produce_streams.load(Ordering::SeqCst), 4);
}

#[tokio::test]
async fn a_node_that_refuses_streams_for_good_fails_records_at_once() {
    let fake = Fake::new().producing(|session: ProduceSession| async move {
        let _ = session.replies.send(Err(Status::permission_denied("not you"))).await;
    });
    let node = fake.start().await;
    let producer = node.client().await.producer(ProducerOptions::default()).unwrap();
    assert_eq!(outcome(send(&producer, 0, "x").await).await, Err(ErrorKind::Denied));
}

#[tokio::test]
async fn errors_inside_answers_reach_the_right_records_and_only_those() {
    let fake = Fake::new().producing(|mut session: ProduceSession| async move {
        session.start().await;
        while let Some(request) = session.request().await {
            match request.request.as_ref().and_then(|it| it.partition) {
                Some(1) => {
                    let result = refused(1, Code::FailedPrecondition, "PARTITION_FAILED");
                    session.answer(request.correlation_id, vec![result]).await;
                }
                Some(2) => session.answer(request.correlation_id, Vec::new()).await,
                _ => session.append(&request).await,
            }
        }
    });
    let node = fake.start().await;
    let producer = node.client().await.producer(ProducerOptions::default()).unwrap();
    let deliveries =
        [send(&producer, 0, "a").await, send(&producer, 1, "b").await, send(&producer, 2, "c").await];
    let [good, failed, nonsense] = deliveries.map(outcome);
    assert_eq!(good.await, Ok(0));
    assert_eq!(failed.await, Err(ErrorKind::Conflict));
    assert_eq!(nonsense.await, Err(ErrorKind::OutcomeUnknown), "an empty answer does not say that it failed");
    let flushed = producer.flush().await.unwrap_err();
    assert_eq!(flushed.kind(), ErrorKind::Conflict, "a flush reports the first failure");
    producer.flush().await.unwrap();
}

#[tokio::test]
async fn batches_fill_while_one_is_under_way_and_order_holds() {
    let fake = Fake::new().producing(|mut session: ProduceSession| async move {
        session.start().await;
        while let Some(request) = session.request().await {
            sleep(Duration::from_millis(5)).await;
            session.append(&request).await;
        }
    });
    let node = fake.start().await;
    let options = ProducerOptions { max_batch_bytes: 2_000, ..ProducerOptions::default() };
    let producer = node.client().await.producer(options).unwrap();
    let sent: Vec<String> = (0..2_000).map(|i| format!("value {i}")).collect();
    let mut deliveries = Vec::new();
    for value in &sent {
        deliveries.push(send(&producer, 3, value).await);
    }
    timeout(SOON, producer.flush()).await.unwrap().unwrap();
    for (delivery, offset) in deliveries.into_iter().zip(0..) {
        assert_eq!(outcome(delivery).await, Ok(offset));
    }
    assert_eq!(node.fake.log.values("t", 3), sent);
    let batches = node.fake.log.batches("t", 3).len();
    assert!(batches < 100, "{batches} batches of about 80 records each");
}

#[tokio::test]
async fn a_full_buffer_makes_senders_wait_and_nothing_is_lost() {
    let fake = Fake::new().producing(|mut session: ProduceSession| async move {
        session.start().await;
        session.cues.go.notified().await;
        while let Some(request) = session.request().await {
            session.append(&request).await;
        }
    });
    let node = fake.start().await;
    let options = ProducerOptions { max_buffered_bytes: 10_000, ..ProducerOptions::default() };
    let producer = Arc::new(node.client().await.producer(options).unwrap());
    let mut deliveries = Vec::new();
    let waited = loop {
        let value = "x".repeat(1_000);
        match timeout(Duration::from_secs(1), producer.send(record(0, value))).await {
            Ok(delivery) => deliveries.push(delivery.unwrap()),
            Err(_) => break deliveries.len(),
        }
    };
    assert_eq!(waited, 9, "1,032 bytes each");
    node.fake.cues.go.notify_one();
    for delivery in deliveries {
        assert!(outcome(delivery).await.is_ok());
    }
    assert!(outcome(send(&producer, 0, "more").await).await.is_ok());
    assert_eq!(node.fake.log.values("t", 0).len(), 10, "the sender that gave up sent nothing");
}

#[tokio::test]
async fn time_runs_out_for_a_record_that_was_sent_and_its_room_is_free_again() {
    let silent = Fake::new().producing(|mut session: ProduceSession| async move {
        session.start().await;
        while session.request().await.is_some() {}
    });
    let node = silent.start().await;
    let limit = Duration::from_secs(2);
    let options = ProducerOptions { max_buffered_bytes: 100, ..quick(limit) };
    let producer = node.client().await.producer(options).unwrap();
    let begun = Instant::now();
    let sent = send_off(&node, &producer, "sent").await;
    assert_eq!(outcome(sent).await, Err(ErrorKind::OutcomeUnknown));
    assert!(begun.elapsed() >= limit, "{:?}", begun.elapsed());
    // It takes 96 bytes of the buffer, and the first one took 36.
    drop(send(&producer, 0, "x".repeat(64)).await);
}

#[tokio::test]
async fn a_node_that_never_says_started_gets_nothing() {
    let fake = Fake::new().producing(|session: ProduceSession| async move {
        session.replies.closed().await;
    });
    let node = fake.start().await;
    let client = logmill_client::Client::builder(&node.url())
        .connect_timeout(Duration::from_millis(200))
        .connect()
        .await
        .unwrap();
    let producer = client.producer(quick(Duration::from_millis(500))).unwrap();
    let delivery = send(&producer, 0, "x").await;
    let error = timeout(SOON, delivery).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Timeout, "DELIVERY_TIMEOUT"));
    assert!(error.to_string().contains(&node.url()), "{error}");
    assert_eq!(node.fake.log.values("t", 0), [""; 0]);
}

#[tokio::test]
async fn a_record_over_the_nodes_limit_is_refused_here() {
    let fake = Fake::new().producing(|mut session: ProduceSession| async move {
        session.start_with(2_000, 0).await;
        while let Some(request) = session.request().await {
            session.append(&request).await;
        }
    });
    let node = fake.start().await;
    let producer = node.client().await.producer(ProducerOptions::default()).unwrap();
    let large = send(&producer, 0, "x".repeat(3_000)).await;
    let error = timeout(SOON, large).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::TooLarge, "MESSAGE_TOO_LARGE"));
    let text = error.to_string();
    assert!(text.contains("2000 bytes") && text.contains("the node's limit max_batch_bytes"), "{text}");
    assert_eq!((error.metadata("limit"), error.metadata("value")), (Some("max_batch_bytes"), Some("2000")));
    assert!(error.metadata("bytes").unwrap().parse::<usize>().unwrap() > 3_000);

    // From now on the limit is known.
    let error = producer.send(record(0, "x".repeat(3_000))).await.unwrap_err();
    assert_eq!(error.reason(), "MESSAGE_TOO_LARGE");
    assert_eq!(outcome(send(&producer, 0, "x".repeat(1_800)).await).await, Ok(0));
    assert_eq!(node.fake.log.values("t", 0).len(), 1);
}

#[tokio::test]
async fn a_topic_that_was_made_anew_is_learnt_anew() {
    let node = Fake::new().start().await;
    let producer = node.client().await.producer(ProducerOptions::default()).unwrap();
    let error = producer.send(ProducerRecord::new("unknown", "x")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let error = producer.send(record(4, "x")).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, "PARTITION_NOT_FOUND"));
    node.fake.topics.lock().insert("t".into(), 5);
    assert_eq!(outcome(send(&producer, 4, "x").await).await, Ok(0));
}

#[tokio::test]
async fn keys_and_partitions_are_kept_and_records_without_a_key_take_turns() {
    let node = Fake::new().start().await;
    let options = ProducerOptions { max_batch_bytes: 1_000, ..ProducerOptions::default() };
    let producer = node.client().await.producer(options).unwrap();
    let mut deliveries = Vec::new();
    for i in 0..100 {
        let keyed = ProducerRecord::new("t", format!("keyed {i}")).key("the same");
        deliveries.push(producer.send(keyed).await.unwrap());
        deliveries.push(producer.send(ProducerRecord::new("t", "x".repeat(100))).await.unwrap());
    }
    let home = deliveries[0].partition();
    assert_eq!(home, logmill_record::murmur2_partition(b"the same", 4));
    assert!(deliveries.iter().step_by(2).all(|delivery| delivery.partition() == home));
    let mut without_key: Vec<u32> = deliveries.iter().skip(1).step_by(2).map(Delivery::partition).collect();
    without_key.dedup();
    assert!(without_key.len() > 8, "turns: {without_key:?}");
    producer.close().await.unwrap();
    let keyed: Vec<String> = node.fake.log.values("t", home.cast_signed());
    let keyed: Vec<&String> = keyed.iter().filter(|value| value.starts_with("keyed")).collect();
    assert_eq!(keyed, (0..100).map(|i| format!("keyed {i}")).collect::<Vec<_>>().iter().collect::<Vec<_>>());
}

#[tokio::test]
async fn closing_delivers_everything_and_dropping_says_what_it_gave_up() {
    let node = Fake::new().start().await;
    let client = node.client().await;
    let producer = client.producer(ProducerOptions::default()).unwrap();
    for i in 0..500 {
        drop(send(&producer, i % 4, format!("{i}")).await);
    }
    timeout(SOON, producer.close()).await.unwrap().unwrap();
    assert_eq!((0..4).map(|p| node.fake.log.values("t", p).len()).sum::<usize>(), 500);
    assert_eq!(producer.send(record(0, "late")).await.unwrap_err().kind(), ErrorKind::Closed);
    producer.close().await.unwrap();

    let silent = Fake::new().producing(|mut session: ProduceSession| async move {
        session.start().await;
        let _ = session.request().await;
        session.replies.closed().await;
    });
    let node = silent.start().await;
    let producer = node.client().await.producer(ProducerOptions::default()).unwrap();
    let sent = send_off(&node, &producer, "sent").await;
    let unsent = send(&producer, 0, "unsent").await;
    drop(producer);
    assert_eq!(outcome(sent).await, Err(ErrorKind::OutcomeUnknown));
    assert_eq!(outcome(unsent).await, Err(ErrorKind::Closed));
}

#[tokio::test]
async fn a_single_batch_without_a_clear_answer_has_an_unknown_outcome() {
    let mut builder = BatchBuilder::new();
    let record = NewRecord { timestamp: TimestampMs(5), key: None, value: Some(b"v"), headers: &[] };
    builder.push(&record).unwrap();
    let batch = builder.build().unwrap();
    for status in [Status::unavailable("a proxy"), Status::internal("a panic"), Status::unknown("")] {
        let node = Fake { produce_answer: Some(status), ..Fake::new() }.start().await;
        let client = node.client().await;
        let error = client.produce_batch("t", 0, batch.clone(), Acks::Durable).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    }
    let mut node = Fake::new().start().await;
    let client = node.client().await;
    assert_eq!(client.produce_batch("t", 0, batch.clone(), Acks::Durable).await.unwrap().offset.get(), 0);
    node.kill();
    sleep(Duration::from_millis(100)).await;
    let error = client.produce_batch("t", 0, batch, Acks::Durable).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "no connection, so nothing was sent: {error}");
}
