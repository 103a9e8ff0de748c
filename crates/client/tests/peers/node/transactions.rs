//! Transactions and steps on a real node.

use std::time::Duration;

use logmill_client::{
    Client, ErrorKind, FetchFrom, Isolation, Outcome, Position, ProducerOptions, ProducerRecord, Step,
    TransactionState, TransactionalOptions, TransactionalProducer, UnitEpoch,
};
use tokio::time::{sleep, timeout};

use super::{Node, SOON};

async fn values(client: &Client, partition: u32, isolation: Isolation) -> Vec<String> {
    let mut values = Vec::new();
    let mut at = Position::Earliest;
    loop {
        let fetch = logmill_client::Fetch { isolation, ..FetchFrom::new("t", partition, at).into() };
        let data = client.fetch(fetch).await.unwrap().remove(0);
        let of = data.records().map(|record| record.unwrap().value.unwrap());
        values.extend(of.map(|value| String::from_utf8(value.to_vec()).unwrap()));
        if at == Position::Offset(data.next_offset) {
            return values;
        }
        at = Position::Offset(data.next_offset);
    }
}

async fn committed(client: &Client, partition: u32) -> Vec<String> {
    values(client, partition, Isolation::ReadCommitted).await
}

async fn send(producer: &TransactionalProducer, partition: u32, value: &str) {
    let _delivery =
        producer.send(ProducerRecord::new("t", value.to_owned()).partition(partition)).await.unwrap();
}

async fn producer(client: &Client) -> TransactionalProducer {
    client.transactional_producer("mine", TransactionalOptions::default()).await.unwrap()
}

#[tokio::test]
async fn records_of_a_transaction_are_seen_together_or_never() {
    let node = Node::start().await;
    let client = node.client_with_topic(2).await;
    let mut producer = producer(&client).await;
    producer.commit().await.unwrap();
    for transaction in 0..5 {
        for i in 0..100 {
            send(&producer, i % 2, &format!("{transaction}.{i}")).await;
        }
        if transaction % 2 == 0 {
            timeout(SOON, producer.commit()).await.unwrap().unwrap();
        } else {
            timeout(SOON, producer.abort()).await.unwrap().unwrap();
        }
    }
    for partition in 0..2 {
        let expected: Vec<String> = [0, 2, 4]
            .iter()
            .flat_map(|transaction| (0..50).map(move |i| format!("{transaction}.{}", i * 2 + partition)))
            .collect();
        assert_eq!(committed(&client, partition).await, expected);
    }
    let info = client.describe_transaction("mine").await.unwrap();
    assert_eq!((info.state, info.last_outcome), (TransactionState::Empty, Some(Outcome::Commit)));
}

#[tokio::test]
async fn nothing_is_seen_before_the_commit_and_an_operator_can_abort() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let mut producer = producer(&client).await;
    let delivery = producer.send(ProducerRecord::new("t", "open")).await.unwrap();
    delivery.await.unwrap();
    assert_eq!(values(&client, 0, Isolation::ReadUncommitted).await, ["open"]);
    assert!(committed(&client, 0).await.is_empty());
    let ongoing = client.list_transactions(true).await.unwrap();
    assert_eq!(ongoing.len(), 1);
    assert_eq!((&*ongoing[0].transactional_id, ongoing[0].state), ("mine", TransactionState::Ongoing));
    assert_eq!(ongoing[0].partitions, [("t".to_owned(), 0)]);

    assert!(client.abort_transaction("mine").await.unwrap());
    assert!(!client.abort_transaction("mine").await.unwrap(), "there is none any more");
    assert!(client.list_transactions(true).await.unwrap().is_empty());
    let error = producer.commit().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, "TRANSACTION_ABORTED"), "{error}");
    let error = producer.send(ProducerRecord::new("t", "more")).await.unwrap_err();
    assert_eq!(error.reason(), "TRANSACTION_ABORTED", "it can only be begun anew");
    assert!(committed(&client, 0).await.is_empty());
}

#[tokio::test]
async fn another_producer_fences_the_one_before_it() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let mut first = producer(&client).await;
    let delivery = first.send(ProducerRecord::new("t", "first")).await.unwrap();
    delivery.await.unwrap();
    let mut second = producer(&client).await;
    send(&second, 0, "second").await;
    second.commit().await.unwrap();
    send(&first, 0, "late").await;
    let error = first.commit().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let error = first.send(ProducerRecord::new("t", "more")).await.unwrap_err();
    assert_eq!(error.reason(), "PRODUCER_FENCED", "{error}");
    first.close().await.unwrap();
    assert_eq!(committed(&client, 0).await, ["second"]);
}

#[tokio::test]
async fn a_record_that_fails_leaves_its_transaction_to_be_aborted_and_the_next_one_goes_on() {
    let node = Node::with_max_message_bytes(2_000).await;
    let client = node.client_with_topic(1).await;
    // Known to the producer before it is altered, so that the node is who refuses.
    let options = TransactionalOptions {
        producer: ProducerOptions { max_batch_bytes: 100, ..ProducerOptions::default() },
        ..TransactionalOptions::default()
    };
    let mut producer = client.transactional_producer("mine", options).await.unwrap();
    send(&producer, 0, "before").await;
    let change = logmill_client::SettingChange::set("max.message.bytes", "500");
    client.alter_topic("t", &[change]).await.unwrap();
    let large = producer.send(ProducerRecord::new("t", "x".repeat(1_000))).await.unwrap();
    assert_eq!(timeout(SOON, large).await.unwrap().unwrap_err().kind(), ErrorKind::TooLarge);
    let error = producer.send(ProducerRecord::new("t", "behind")).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, "TRANSACTION_BROKEN"), "{error}");
    assert_eq!(producer.commit().await.unwrap_err().reason(), "TRANSACTION_BROKEN");
    producer.abort().await.unwrap();
    send(&producer, 0, "after").await;
    timeout(SOON, producer.commit()).await.unwrap().unwrap();
    assert_eq!(committed(&client, 0).await, ["after"]);
}

#[tokio::test]
async fn a_transaction_whose_time_is_over_is_aborted_by_the_node() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let options =
        TransactionalOptions { timeout: Duration::from_millis(100), ..TransactionalOptions::default() };
    let mut producer = client.transactional_producer("mine", options).await.unwrap();
    send(&producer, 0, "slow").await;
    sleep(Duration::from_millis(600)).await;
    let error = producer.commit().await.unwrap_err();
    assert_eq!(error.reason(), "TRANSACTION_ABORTED", "{error}");
    assert!(committed(&client, 0).await.is_empty());
}

/// What a start finds open it aborts, and what was committed stays.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_leaves_whole_transactions_only() {
    let mut node = Node::start().await;
    let client = node.client_with_topic(2).await;
    let mut producer = producer(&client).await;
    let (mut acknowledged, mut done) = (Vec::new(), 0);
    let mut restarts = 0;
    while done < 60 {
        let whole: Vec<String> = (0..4).map(|i| format!("{done}.{i}")).collect();
        let mut sent = Ok(());
        for (i, value) in (0..).zip(&whole) {
            let record = ProducerRecord::new("t", value.clone()).partition(i % 2);
            sent = sent.and(producer.send(record).await.map(drop));
        }
        if done % 20 == 10 && restarts * 20 < done {
            node.stop().await;
            node.resume().await;
            restarts += 1;
        }
        match timeout(SOON, producer.commit()).await.unwrap().and(sent) {
            Ok(()) => acknowledged.push(done),
            Err(error) => {
                assert_ne!(error.kind(), ErrorKind::OutcomeUnknown, "{error}");
                producer = self::producer(&client).await;
            }
        }
        done += 1;
    }
    assert!(restarts == 3 && acknowledged.len() >= 57, "{restarts} {}", acknowledged.len());
    for partition in 0..2 {
        let expected: Vec<String> = acknowledged
            .iter()
            .flat_map(|number| [0, 2].map(|i| format!("{number}.{}", i + partition)))
            .collect();
        assert_eq!(committed(&client, partition).await, expected);
    }
}

#[tokio::test]
async fn a_step_of_a_unit_that_nobody_has_is_refused_with_the_reason() {
    let node = Node::start().await;
    let client = node.client_with_topic(1).await;
    let step = Step::new("g", UnitEpoch::new("t/0", 1), 0);
    let step = step.record(ProducerRecord::new("t", "x")).unwrap();
    let error = client.commit_step(&step).await.unwrap_err();
    assert!(matches!(error.reason(), "GROUP_NOT_FOUND" | "STALE_ASSIGNMENT"), "{error:?}");
    assert!(committed(&client, 0).await.is_empty());
}

/// The member is in the node's process, so that this does not wait for the groups' own calls.
#[tokio::test]
async fn a_step_has_its_effect_once_however_often_it_is_sent() {
    use logmill_broker::{GroupEvent, JoinGroup, RequestContext};

    let node = Node::start().await;
    let client = node.client_with_topic(2).await;
    let broker = &node.running.as_ref().unwrap().broker;
    let mut member = broker.join_group(&RequestContext::embedded(), JoinGroup::topics("g", ["t"])).unwrap();
    let mut units = Vec::new();
    while units.len() < 2 {
        let GroupEvent::Assigned(unit) = timeout(SOON, member.next()).await.unwrap() else { panic!() };
        units.push(UnitEpoch::new(unit.unit, unit.epoch));
    }
    let mut step = Step::new("g", units[0].clone(), 0);
    for i in 0..3_000 {
        let value = format!("{i} {}", "x".repeat(1_000));
        step.push(ProducerRecord::new("t", value).partition(i % 2)).unwrap();
    }
    assert!(step.total_bytes() > 3_000_000, "several messages");
    let first = timeout(SOON, client.commit_step(&step)).await.unwrap().unwrap();
    assert!(!first.duplicate && first.appended.len() == 2, "{first:?}");
    let again = timeout(SOON, client.commit_step(&step)).await.unwrap().unwrap();
    assert!(again.duplicate, "{again:?}");
    let order = |values: Vec<String>| -> Vec<u32> {
        values.iter().map(|value| value.split(' ').next().unwrap().parse().unwrap()).collect()
    };
    for partition in 0..2 {
        let expected: Vec<u32> = (0..3_000).filter(|i| i % 2 == partition).collect();
        assert_eq!(order(committed(&client, partition).await), expected, "once, and in order");
    }
    let mut step = Step::new("g", units[0].clone(), 5);
    for _ in 0..5_000 {
        step.push(ProducerRecord::new("t", vec![b'x'; 1_000]).partition(0)).unwrap();
    }
    let error = timeout(SOON, client.commit_step(&step)).await.unwrap().unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, "STEP_OUT_OF_SEQUENCE"), "{error}");
}
