//! `txn`, and what `consume` shows of transactions that a client writes.

use logmill_client::{Client, ProducerRecord, TransactionalOptions};
use serde_json::{Value, json};

use crate::node;

#[test]
fn transactions_are_listed_described_and_aborted() {
    let (_dir, node, program) = node();
    assert_eq!(program.ok(["txn", "ls"]), "there are no transactional ids yet\n");
    assert_eq!(program.ok(["txn", "ls", "--json"]), "");
    program.ok(["topic", "create", "t", "--partitions", "2"]);

    let runtime = tokio::runtime::Runtime::new().unwrap();
    let mut producer = runtime.block_on(async {
        let client = Client::connect(node.url()).await.unwrap();
        let options = TransactionalOptions::default();
        let mut producer = client.transactional_producer("billing", options).await.unwrap();
        for (value, commits) in [("committed", true), ("aborted", false), ("open", true)] {
            let record = ProducerRecord::new("t", value).partition(1);
            producer.send(record).await.unwrap().await.unwrap();
            match value {
                "open" => {}
                _ if commits => producer.commit().await.unwrap(),
                _ => producer.abort().await.unwrap(),
            }
        }
        producer
    });
    program.ok_with(["produce", "t", "--partition", "1"], b"behind it\n");
    assert_eq!(program.ok(["consume", "t"]), "committed\n", "it ends before what is open");
    // Offset 1 is the marker of the commit.
    assert_eq!(program.ok(["consume", "t", "--partition", "1", "--from", "1"]), "");
    let all = "committed\naborted\nopen\nbehind it\n";
    assert_eq!(program.ok(["consume", "t", "--read-uncommitted"]), all);

    let listed = program.ok(["txn", "ls", "--ongoing"]);
    let row = listed.lines().nth(1).unwrap();
    assert!(row.starts_with("billing") && row.contains("ongoing") && row.ends_with("aborted"), "{listed}");
    let described = program.ok(["txn", "describe", "billing"]);
    assert!(described.contains("state             ongoing\n"), "{described}");
    assert!(described.lines().last().unwrap().starts_with('t'), "{described}");
    let document: Value =
        serde_json::from_str(&program.ok(["txn", "describe", "billing", "--json"])).unwrap();
    assert_eq!(document["partitions"], json!([{ "topic": "t", "partition": 1 }]));
    assert_eq!((&document["state"], &document["timeout_ms"]), (&json!("ongoing"), &json!(60_000)));

    assert_eq!(program.ok(["txn", "abort", "billing"]), "aborted the transaction of billing\n");
    assert_eq!(program.ok(["txn", "abort", "billing"]), "no transaction was going on under billing\n");
    assert_eq!(program.ok(["txn", "ls", "--ongoing"]), "no transaction is going on\n");
    assert_eq!(program.ok(["txn", "ls", "--json"]).lines().count(), 1);
    let error = runtime.block_on(producer.commit()).unwrap_err();
    assert_eq!(error.reason(), "TRANSACTION_ABORTED", "{error}");
    assert_eq!(program.ok(["consume", "t"]), "committed\nbehind it\n");

    for args in [["txn", "describe", "nobody"], ["txn", "abort", "nobody"]] {
        let outcome = program.run(args);
        assert!(outcome.refused(5).contains("nobody"), "{args:?}");
    }
}
