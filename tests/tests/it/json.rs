//! What `consume --json` prints, `produce --input json` takes, and nothing is lost on the way.

use std::time::Duration;

use bytes::Bytes;
use logmill_client::{Client, ProducerOptions, ProducerRecord};
use logmill_record::TimestampMs;
use serde_json::Value;

use crate::node;

/// Keys, values and headers that a lossy way through JSON would change.
fn awkward_records() -> Vec<ProducerRecord> {
    let bodies: [Option<&'static [u8]>; 6] = [
        None,
        Some(b""),
        Some(b"\xff\xfe\x00"),
        Some("ü \u{2028} \" \\ \n".as_bytes()),
        Some(b"\0"),
        Some(b"{}"),
    ];
    let mut records = Vec::new();
    for key in bodies {
        for value in bodies {
            let header =
                |name: &str, value: Option<&'static [u8]>| (name.to_owned(), value.map(Bytes::from_static));
            records.push(ProducerRecord {
                topic: "from".into(),
                partition: Some(0),
                key: key.map(Bytes::from_static),
                value: value.map(Bytes::from_static),
                timestamp: Some(TimestampMs(i64::try_from(records.len()).unwrap() * 1_000 - 3_000)),
                headers: vec![
                    header("a", key),
                    header("a", value),
                    header("", Some(b"\x80")),
                    header("é", None),
                ],
            });
        }
    }
    records
}

async fn produce(url: &str, records: Vec<ProducerRecord>) {
    let client = Client::connect(url).await.unwrap();
    let producer = client.producer(ProducerOptions::default()).unwrap();
    for record in records {
        let _delivery = producer.send(record).await.unwrap();
    }
    producer.close().await.unwrap();
}

#[test]
fn a_topic_copied_through_json_is_the_same() {
    let (_dir, node, program) = node();
    program.ok(["topic", "create", "from"]);
    program.ok(["topic", "create", "to"]);
    let records = awkward_records();
    let count = records.len();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(produce(node.url(), records));
    runtime.shutdown_timeout(Duration::from_secs(1));

    let first = program.ok(["consume", "from", "--json"]);
    assert_eq!(first.lines().count(), count);
    program.ok_with(["produce", "to", "--input", "json"], first.as_bytes());
    let second = program.ok(["consume", "to", "--json"]);
    for (line, copy) in first.lines().zip(second.lines()) {
        let mut line: Value = serde_json::from_str(line).unwrap();
        let copy: Value = serde_json::from_str(copy).unwrap();
        assert_eq!(copy["topic"], "to");
        line["topic"] = "to".into();
        assert_eq!(copy, line);
    }
    assert_eq!(second.lines().count(), count);
}

#[test]
fn a_line_names_everything() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t"]);
    let line = r#"{"timestamp":5,"key":"k","value_base64":"/w==","headers":[["h","1"],["h",null],["h",{"base64":"gA=="}]]}"#;
    program.ok_with(["produce", "t", "--input", "json"], line.as_bytes());
    let expected = r#"{"topic":"t","partition":0,"offset":0,"timestamp":5,"key":"k","value_base64":"/w==","headers":[["h","1"],["h",null],["h",{"base64":"gA=="}]]}"#;
    assert_eq!(program.ok(["consume", "t", "--json"]), format!("{expected}\n"));
}

#[test]
fn a_line_that_is_no_record_stops_the_command_and_says_what_is_stored() {
    let (_dir, _node, program) = node();
    program.ok(["topic", "create", "t"]);
    let input = b"{\"value\":\"a\"}\n{\"value\":\"b\"}\n{\"valeu\":\"c\"}\n{\"value\":\"d\"}\n";
    let outcome = program.run_with(["produce", "t", "--input", "json", "--json"], input);
    let sentence = outcome.refused(1);
    assert!(sentence.contains("line 3 of the input") && sentence.contains("valeu"), "{sentence}");
    assert!(sentence.contains("(2 records stored)"), "{sentence}");
    assert_eq!(outcome.stdout.lines().count(), 2, "what is stored was acknowledged: {}", outcome.stdout);
    assert_eq!(program.ok(["consume", "t"]), "a\nb\n");
}
