//! Reading a partition of which compaction took some records.

use std::time::Duration;

use logmill_broker::{CreateTopic, Fetch, FetchFrom, Payload, Position, Produce, TopicSettings};
use logmill_log::sim::Sim;
use logmill_record::Offset;

use crate::common::{keyed, records, simulated, text};

fn offset(offset: u64) -> Position {
    Position::Offset(Offset(offset))
}

/// The offsets of records that compaction took are places like any other.
#[test]
fn reading_starts_inside_a_compaction_gap_and_goes_on_behind_it() {
    let sim = Sim::new(8);
    let node = simulated(&sim);
    let settings = [("cleanup.policy", "compact"), ("segment.bytes", "65536"), ("segment.ms", "1000")];
    let create = CreateTopic::new("t").settings(TopicSettings::new(settings).unwrap());
    node.wait(node.broker.create_topic(&node.context, create)).unwrap();
    for run in
        [vec![("a", "0"), ("b", "1"), ("c", "2")], vec![("a", "3")], vec![("a", "4")], vec![("c", "5")]]
    {
        let payload = Payload::Records(run.into_iter().map(|(key, value)| keyed(key, value)).collect());
        let produce = Produce { payload, ..records("t", Some(0), [""; 0]) };
        node.produce(produce).unwrap().remove(0).outcome.unwrap();
    }
    let all = FetchFrom::new("t", 0, Position::Earliest);
    let epoch = node.fetch(Fetch::new(vec![all])).unwrap().remove(0).last_epoch;
    assert!(epoch.is_some());
    sim.scheduler.run_for(Duration::from_secs(60));
    assert_eq!(node.read_all("t", 0).unwrap(), ["1", "4", "5"]);
    for (start, expected) in
        [(0, &["1", "4", "5"][..]), (1, &["1", "4", "5"]), (2, &["4", "5"]), (3, &["4", "5"])]
    {
        for last_epoch in [None, epoch] {
            let from = FetchFrom { last_epoch, ..FetchFrom::new("t", 0, offset(start)) };
            let data = node.fetch(Fetch::new(vec![from.clone()])).unwrap().remove(0);
            assert_eq!(
                (text(&data), data.from_offset),
                (expected.iter().map(ToString::to_string).collect(), Offset(start))
            );
            assert_eq!((data.error.is_none(), data.next_offset), (true, Offset(6)));
            // One batch at a time; one may have lost all that was asked for, and still leads on.
            let (mut next, mut read) = (from, Vec::new());
            while next.position != offset(6) {
                let data = node.fetch(Fetch::new(vec![next.clone()]).max_bytes(1)).unwrap().remove(0);
                assert!(
                    !data.chunks.is_empty() && next.position != offset(data.next_offset.get()),
                    "{data:?}"
                );
                read.extend(text(&data));
                let position = Position::Offset(data.next_offset);
                next = FetchFrom { position, last_epoch: data.last_epoch, ..next };
            }
            assert_eq!(read, expected);
        }
    }
    node.broker.close().unwrap();
}
