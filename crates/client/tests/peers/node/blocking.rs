//! The client without an async runtime.

use logmill_client::blocking::Client;
use logmill_client::{ErrorKind, FetchFrom, Position, ProducerOptions, ProducerRecord, TransactionalOptions};

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
