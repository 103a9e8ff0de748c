//! The client without an async runtime.

use std::time::Duration;

use logmill_client::blocking::Client;
use logmill_client::{
    ConsumerEvent, ErrorKind, FetchFrom, OffsetToCommit, Position, ProducerOptions, ProducerRecord,
    TransactionalOptions,
};

use super::Node;

#[test]
fn programs_without_a_runtime_send_read_and_write_transactions() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = runtime.block_on(Node::start());
    let client = Client::connect(&format!("http://{}", node.address)).unwrap();
    client.call(|client| async move { client.create_topic("t", Some(1)).await }).unwrap();
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let delivery = producer.send(ProducerRecord::new("t", "plain")).unwrap();
    assert_eq!(delivery.wait().unwrap().offset.get(), 0);
    producer.close().unwrap();
    let mut transactions = client.transactional_producer("mine", TransactionalOptions::default()).unwrap();
    for (value, commits) in [("aborted", false), ("committed", true)] {
        let _delivery = transactions.send(ProducerRecord::new("t", value)).unwrap();
        if commits { transactions.commit().unwrap() } else { transactions.abort().unwrap() }
    }
    transactions.close().unwrap();

    let mut values = Vec::new();
    for data in client.subscribe(FetchFrom::new("t", 0, Position::Earliest).into()).unwrap() {
        let data = data.unwrap();
        let of = data.records().map(|record| record.unwrap().value.unwrap());
        values.extend(of.map(|value| String::from_utf8(value.to_vec()).unwrap()));
        if values.len() >= 2 {
            break;
        }
    }
    assert_eq!(values, ["plain", "committed"]);

    let error = runtime.block_on(async { producer.flush().unwrap_err() });
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("async"), "{error}");
    // As the node's own thread may be: the last of it is dropped where a runtime runs.
    runtime.block_on(async { drop((client, producer)) });
}

#[test]
fn a_member_of_a_group_without_a_runtime_can_be_stopped_and_commits_from_another_thread() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let node = runtime.block_on(Node::start());
    let client = Client::connect(&format!("http://{}", node.address)).unwrap();
    client.call(|client| async move { client.create_topic("t", Some(1)).await }).unwrap();
    let producer = client.producer(ProducerOptions::default()).unwrap();
    let _delivery = producer.send(ProducerRecord::new("t", "x")).unwrap();
    producer.close().unwrap();
    let mut consumer = client.consumer("g", |consumer| consumer.topics(["t"]).auto_commit(false)).unwrap();
    let soon = Duration::from_secs(30);
    let records = loop {
        match consumer.next_within(soon).unwrap() {
            Some(ConsumerEvent::Records(records)) => break records,
            Some(_) => {}
            None => panic!("there is a record"),
        }
    };
    let committer = consumer.committer();
    let offset = OffsetToCommit::from(&records.data);
    std::thread::scope(|threads| {
        threads.spawn(|| committer.commit(&records.unit, &[offset])).join().unwrap().unwrap();
    });
    assert!(consumer.next_within(Duration::from_millis(20)).unwrap().is_none(), "nothing more comes");
    consumer.close().unwrap();

    let from = FetchFrom::new("t", 0, Position::Latest);
    let mut subscription = client.subscribe(from.into()).unwrap();
    assert!(subscription.next_within(Duration::from_millis(20)).unwrap().is_none());
}
