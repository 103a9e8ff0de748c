//! A program without an async runtime: records in, read by a group, and what is made of them out, together with how far
//! it has read.
//!
//! With a node that was started by `logmill serve`: `cargo run -p logmill-client --example blocking`.

use logmill_client::blocking::Client;
use logmill_client::{
    ConsumerEvent, Error, ErrorKind, OffsetToCommit, ProducerOptions, ProducerRecord, TransactionalOptions,
};

fn main() -> Result<(), Error> {
    let client = Client::connect("http://127.0.0.1:7070")?;
    for topic in ["orders", "invoices"] {
        match client.call(|client| async move { client.create_topic(topic, Some(2)).await }) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
    }
    let producer = client.producer(ProducerOptions::default())?;
    for number in 0..100 {
        let _delivery = producer.send(ProducerRecord::new("orders", format!("order {number}")))?;
    }
    producer.close()?;

    let mut invoices = client.transactional_producer("billing", TransactionalOptions::default())?;
    let mut consumer = client.consumer("billing", |it| it.topics(["orders"]).auto_commit(false))?;
    let mut left = 100;
    while left > 0 {
        let Some(event) = consumer.next() else { break };
        let ConsumerEvent::Records(records) = event? else { continue };
        for record in records.data.records() {
            let order = String::from_utf8_lossy(record?.value.as_deref().unwrap_or_default()).into_owned();
            let _delivery = invoices.send(ProducerRecord::new("invoices", format!("for {order}")))?;
            left -= 1;
        }
        invoices.add_offsets("billing", &records.unit, &[OffsetToCommit::from(&records.data)])?;
        invoices.commit()?;
    }
    println!("100 invoices are written, each once");
    invoices.close()?;
    consumer.close()
}
