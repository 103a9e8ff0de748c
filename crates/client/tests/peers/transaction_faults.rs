//! Transactions through streams that break and answers that get lost.

use std::sync::Arc;
use std::time::Duration;

use logmill_client::{
    Error, ErrorKind, OffsetToCommit, ProducerOptions, ProducerRecord, Step, TransactionalOptions,
    TransactionalProducer, UnitEpoch,
};
use logmill_proto::v1;
use logmill_record::Offset;
use parking_lot::Mutex;
use tokio::time::timeout;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::fake::{Fake, FakeNode, parse};

const SOON: Duration = Duration::from_secs(30);
const COMMIT: i32 = v1::Outcome::Commit as i32;
const ABORT: i32 = v1::Outcome::Abort as i32;

async fn producer(node: &FakeNode) -> TransactionalProducer {
    let options = TransactionalOptions {
        producer: ProducerOptions { max_batch_bytes: 100, ..ProducerOptions::default() },
        ..TransactionalOptions::default()
    };
    node.client().await.transactional_producer("mine", options).await.unwrap()
}

async fn send(producer: &TransactionalProducer, values: std::ops::Range<u32>) {
    for value in values {
        let record = ProducerRecord::new("t", value.to_string()).partition(0);
        let _delivery = producer.send(record).await.unwrap();
    }
}

/// As a node refuses what the state of things does not allow.
fn refused(reason: &str) -> Status {
    let metadata = [("a", "b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
    let details = ErrorDetails::with_error_info(reason, "logmill", metadata);
    Status::with_error_details(Code::FailedPrecondition, "no", details)
}

fn texts(values: std::ops::Range<u32>) -> Vec<String> {
    values.map(|value| value.to_string()).collect()
}

#[tokio::test]
async fn what_was_not_answered_goes_out_again_under_its_numbers_and_the_next_begins_at_zero() {
    // What came, stream by stream: transactional, epoch and sequence.
    let came = Arc::new(Mutex::new(Vec::new()));
    let node = {
        let came = Arc::clone(&came);
        Fake::new().producing(move |mut session| {
            let came = Arc::clone(&came);
            async move {
                session.start().await;
                let mut count = 0;
                while let Some(request) = session.request().await {
                    let batch = parse(request.request.as_ref().unwrap());
                    let header = batch.header();
                    assert!(header.attributes.is_transactional() && header.producer_id == 100);
                    came.lock().push((session.number, header.producer_epoch, header.base_sequence));
                    count += 1;
                    // The first stream stores two more than it answers.
                    if session.number == 0 && count > 2 {
                        session.log.append(request.request.as_ref().unwrap());
                        if count == 5 {
                            return session.break_off().await;
                        }
                        continue;
                    }
                    session.append(&request).await;
                }
            }
        })
    };
    let node = node.start().await;
    let mut producer = producer(&node).await;
    send(&producer, 0..200).await;
    timeout(SOON, producer.commit()).await.unwrap().unwrap();
    assert_eq!(node.fake.log.values("t", 0), texts(0..200), "in order, and none twice");
    send(&producer, 200..220).await;
    timeout(SOON, producer.commit()).await.unwrap().unwrap();
    assert_eq!(node.fake.log.values("t", 0), texts(0..220));
    assert_eq!(*node.fake.ended.lock(), [(100, 0, COMMIT), (100, 1, COMMIT)]);

    let came = came.lock();
    let again = came.iter().filter(|it| it.0 == 0 && came.contains(&(1, it.1, it.2))).count();
    assert!(again >= 3, "{came:?}");
    let first = came.iter().find(|it| it.1 == 1).unwrap();
    assert_eq!(first.2, 0, "each epoch begins at 0");
    assert!(came.iter().all(|it| it.1 <= 1), "no other epoch: {came:?}");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_asked_for_again() {
    let node = Fake::new().start().await;
    let mut producer = producer(&node).await;
    send(&producer, 0..3).await;
    node.fake.end_errors.lock().push_back(Status::unavailable("the script breaks the call"));
    timeout(SOON, producer.commit()).await.unwrap().unwrap();
    assert_eq!(*node.fake.ended.lock(), [(100, 0, COMMIT), (100, 0, COMMIT)]);
}

#[tokio::test]
async fn a_commit_that_may_have_been_is_not_said_to_have_failed() {
    let node = Fake::new().start().await;
    let mut producer = producer(&node).await;
    send(&producer, 0..3).await;
    let fenced = refused("PRODUCER_FENCED");
    node.fake.end_errors.lock().extend([Status::unavailable("the script breaks the call"), fenced]);
    let error = timeout(SOON, producer.commit()).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    assert_eq!(producer.commit().await.unwrap_err().reason(), "PRODUCER_FENCED", "it is over");
}

#[tokio::test]
async fn an_end_that_is_left_in_the_middle_is_to_be_asked_for_again() {
    let node = Fake::new().start().await;
    let mut producer = producer(&node).await;
    send(&producer, 0..3).await;
    let unavailable = || Status::unavailable("the script breaks the call");
    node.fake.end_errors.lock().extend(std::iter::repeat_with(unavailable).take(100));
    assert!(timeout(Duration::from_millis(500), producer.commit()).await.is_err());
    let error = producer.abort().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, "TRANSACTION_ENDING"), "{error}");
    assert!(error.to_string().contains("commit it again"), "{error}");
    let error = producer.send(ProducerRecord::new("t", "x")).await.unwrap_err();
    assert_eq!(error.reason(), "TRANSACTION_ENDING", "{error}");
    node.fake.end_errors.lock().clear();
    timeout(SOON, producer.commit()).await.unwrap().unwrap();
    send(&producer, 3..4).await;
    timeout(SOON, producer.abort()).await.unwrap().unwrap();
    assert_eq!(node.fake.ended.lock().last(), Some(&(100, 1, ABORT)));
}

#[tokio::test]
async fn a_transaction_whose_offsets_may_be_missing_is_not_committed() {
    let node = Fake::new().start().await;
    let mut producer = producer(&node).await;
    send(&producer, 0..3).await;
    let (unit, offsets) = (UnitEpoch::new("t/0", 1), [OffsetToCommit::new("t", 0, Offset(3))]);
    let given_up = timeout(Duration::from_millis(50), producer.add_offsets("g", &unit, &offsets)).await;
    assert!(given_up.is_err(), "the node does not answer");
    assert_eq!(producer.commit().await.unwrap_err().reason(), "TRANSACTION_BROKEN");
    // Nor is one whose offsets were not even sent.
    producer.abort().await.unwrap();
    let beyond = [OffsetToCommit::new("t", u32::MAX, Offset(3))];
    assert_eq!(producer.add_offsets("g", &unit, &beyond).await.unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(producer.commit().await.unwrap_err().reason(), "TRANSACTION_BROKEN");
    producer.abort().await.unwrap();
    assert_eq!(*node.fake.ended.lock(), [(100, 0, ABORT), (100, 1, ABORT)]);
}

#[tokio::test]
async fn a_step_is_sent_again_and_not_said_to_have_had_no_effect_where_an_answer_was_lost() {
    let node = Fake::new().start().await;
    let client = node.client().await;
    let step = |sequence| {
        let step = Step::new("g", UnitEpoch::new("t/0", 1), sequence);
        step.record(ProducerRecord::new("t", "x").partition(0)).unwrap()
    };
    let lost = || Status::unavailable("the script breaks the call");
    node.fake.step_errors.lock().extend([lost(), lost()]);
    timeout(SOON, client.commit_step(&step(0))).await.unwrap().unwrap();
    assert_eq!(*node.fake.steps.lock(), [0, 0, 0]);

    node.fake.step_errors.lock().extend([lost(), refused("STALE_ASSIGNMENT")]);
    let error = timeout(SOON, client.commit_step(&step(1))).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
    let source = std::error::Error::source(&error).unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!(source.reason(), "STALE_ASSIGNMENT");

    node.fake.step_errors.lock().push_back(refused("STALE_ASSIGNMENT"));
    let error = client.commit_step(&step(1)).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, "STALE_ASSIGNMENT"));
    assert_eq!(node.fake.steps.lock().len(), 6);
}

#[tokio::test]
async fn no_time_is_too_long() {
    let node = Fake::new().start().await;
    let client = node.client().await;
    let step = Step::new("g", UnitEpoch::new("t/0", 1), 0).timeout(Duration::MAX);
    client.commit_step(&step).await.unwrap();
    let options = ProducerOptions { delivery_timeout: Duration::MAX, ..ProducerOptions::default() };
    let producer = client.producer(options).unwrap();
    producer.send(ProducerRecord::new("t", "x")).await.unwrap().await.unwrap();
    producer.close().await.unwrap();
}
