//! A topic that was deleted, and another one under its name: readers of the former are told.

use logmill_broker::{Error, Fetch, FetchFrom, PartitionData, Position, Reason, Subscribe};
use logmill_record::Offset;

use crate::common::{Node, config, text};

fn fill(node: &Node, records: usize) {
    node.create("t", 1).unwrap();
    for i in 0..records {
        node.say("t", 0, &i.to_string()).unwrap();
    }
}

fn read(node: &Node, from: FetchFrom) -> PartitionData {
    node.fetch(Fetch::new(vec![from])).unwrap().remove(0)
}

/// Where a reader goes on that has this.
fn behind(data: &PartitionData) -> FetchFrom {
    let from = FetchFrom::new(data.topic.as_str(), data.partition, Position::Offset(data.next_offset));
    FetchFrom { last_epoch: data.last_epoch, topic_id: data.topic_id, ..from }
}

#[test]
fn a_reader_of_a_topic_that_was_made_again_is_told_and_skips_nothing_of_the_new_one() {
    let dir = tempfile::tempdir().unwrap();
    let node = Node::open(config(&dir));
    fill(&node, 50);
    let seen = read(&node, FetchFrom::new("t", 0, Position::Earliest));
    assert_eq!((text(&seen).len(), seen.next_offset), (50, Offset(50)));
    let went_on = read(&node, behind(&seen));
    assert!(went_on.error.is_none() && went_on.topic_id == seen.topic_id);
    node.delete("t").unwrap();
    assert!(read(&node, behind(&seen)).topic_id.is_none());
    fill(&node, 100);

    let is_told = |error: &Error| {
        assert_eq!(error.reason(), Reason::TopicNotFound, "{error}");
        assert!(error.message().contains("another one has its name"), "{error}");
        let wanted = seen.topic_id.unwrap().to_string();
        assert!(error.metadata().contains(&("topic_id", wanted)), "{error:?}");
    };
    for position in [behind(&seen).position, Position::Earliest] {
        let answer = read(&node, FetchFrom { position, ..behind(&seen) });
        is_told(answer.error.as_ref().unwrap());
        assert!(answer.chunks.is_empty() && answer.topic_id.is_none());
    }
    let subscribe = Subscribe::new(vec![behind(&seen)], 1_000);
    let mut subscription = node.wait(node.broker.subscribe(&node.context, subscribe)).unwrap();
    is_told(subscription.started()[0].error.as_ref().unwrap());
    is_told(&node.wait(subscription.next()).unwrap_err());

    // Who does not say which one reads what has the name now.
    let of_new = read(&node, FetchFrom { topic_id: None, ..behind(&seen) });
    assert_eq!((of_new.from_offset, of_new.error.is_none()), (Offset(50), true));
    assert_ne!(of_new.topic_id, seen.topic_id);
    node.broker.close().unwrap();
}
