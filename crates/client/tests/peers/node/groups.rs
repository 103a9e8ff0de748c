//! Consumers of groups on a real node.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use logmill_client::{
    Client, Consumer, ConsumerBuilder, ConsumerEvent, ErrorKind, GroupState, LostReason, OffsetToCommit,
    Position, ProducerOptions, ProducerRecord, Step, TransactionalOptions, UnitEpoch,
};
use logmill_record::Offset;
use tokio::time::{sleep, timeout};

use super::{Node, SOON};

/// A client, and topic `t`.
async fn client(node: &Node, partitions: u32) -> Client {
    let client = node.client_with_topic(partitions).await;
    assert_eq!(client.list_groups().await.unwrap(), []);
    client
}

async fn produce(client: &Client, numbers: std::ops::Range<u32>, partitions: u32) {
    let producer = client.producer(ProducerOptions::default()).unwrap();
    for number in numbers {
        let record = ProducerRecord::new("t", number.to_string()).partition(number % partitions);
        let _delivery = producer.send(record).await.unwrap();
    }
    producer.close().await.unwrap();
}

async fn next(consumer: &mut Consumer) -> ConsumerEvent {
    timeout(SOON, consumer.next()).await.unwrap().unwrap().unwrap()
}

fn numbers(records: &logmill_client::UnitRecords) -> Vec<u32> {
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).unwrap().parse().unwrap();
    records.data.records().map(|record| text(&record.unwrap().value.unwrap())).collect()
}

/// Reads so many records, and gives their numbers by unit.
async fn read(consumer: &mut Consumer, count: usize) -> BTreeMap<UnitEpoch, Vec<u32>> {
    let mut read: BTreeMap<UnitEpoch, Vec<u32>> = BTreeMap::new();
    while read.values().map(Vec::len).sum::<usize>() < count {
        if let ConsumerEvent::Records(records) = next(consumer).await {
            read.entry(records.unit.clone()).or_default().extend(numbers(&records));
        }
    }
    read
}

async fn join(builder: ConsumerBuilder) -> Consumer {
    timeout(SOON, builder.join()).await.unwrap().unwrap()
}

fn of(numbers: std::ops::Range<u32>, partition: u32, partitions: u32) -> Vec<u32> {
    numbers.filter(|number| number % partitions == partition).collect()
}

#[tokio::test]
async fn a_group_goes_on_where_a_closed_consumer_was() {
    let node = Node::start().await;
    let client = client(&node, 3).await;
    produce(&client, 0..300, 3).await;
    let mut consumer = join(client.consumer("g").topics(["t"])).await;
    let first = read(&mut consumer, 300).await;
    assert_eq!(first.len(), 3);
    for (unit, numbers) in &first {
        let partition = unit.unit.strip_prefix("t/").unwrap().parse().unwrap();
        assert_eq!(*numbers, of(0..300, partition, 3), "{unit}: in order");
    }
    timeout(SOON, consumer.close()).await.unwrap().unwrap();
    let group = client.describe_group("g").await.unwrap();
    assert_eq!((group.state, group.members.len()), (GroupState::Empty, 0), "it has left");
    assert!(group.offsets.iter().all(|offset| offset.lag_records == Some(0)), "{group:?}");

    produce(&client, 300..330, 3).await;
    let mut consumer = join(client.consumer("g").topics(["t"])).await;
    let second = read(&mut consumer, 30).await;
    let all: BTreeSet<u32> = second.values().flatten().copied().collect();
    assert_eq!(all, (300..330).collect());
    assert!(second.keys().min().unwrap().epoch > first.keys().min().unwrap().epoch);
}

#[tokio::test]
async fn what_was_handed_out_last_comes_again_after_a_consumer_that_was_dropped() {
    let node = Node::start().await;
    let client = client(&node, 1).await;
    produce(&client, 0..10, 1).await;
    let builder = client.consumer("g").topics(["t"]).session_timeout(Duration::from_secs(1));
    let mut consumer = join(builder.clone()).await;
    read(&mut consumer, 10).await;
    drop(consumer);
    let mut consumer = join(builder).await;
    assert_eq!(read(&mut consumer, 10).await.into_values().next().unwrap(), (0..10).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn units_that_move_take_no_record_twice_and_leave_none_out() {
    let node = Node::start().await;
    let client = client(&node, 4).await;
    let builder = client.consumer("g").topics(["t"]).credit_bytes(2_000);
    let mut first = join(builder.clone()).await;
    let sender = tokio::spawn({
        let client = client.clone();
        async move {
            for part in 0..60 {
                produce(&client, part * 20..(part + 1) * 20, 4).await;
                sleep(Duration::from_millis(10)).await;
            }
        }
    });
    let mut seen = Vec::new();
    let mut units = [BTreeSet::new(), BTreeSet::new()];
    let mut second = None;
    let mut take = |event: ConsumerEvent, units: &mut BTreeSet<String>| match event {
        ConsumerEvent::Assigned(assignment) => drop(units.insert(assignment.unit.unit)),
        ConsumerEvent::Revoke(unit) => assert!(units.remove(&unit.unit)),
        ConsumerEvent::Records(records) => {
            assert!(units.contains(&records.unit.unit), "{}", records.unit);
            seen.extend(numbers(&records));
        }
        other => panic!("{other:?}"),
    };
    let all = async {
        for step in 0.. {
            if step == 40 {
                second = Some(join(builder.clone()).await);
            }
            match &mut second {
                None => take(next(&mut first).await, &mut units[0]),
                Some(second) => tokio::select! {
                    event = first.next() => take(event.unwrap().unwrap(), &mut units[0]),
                    event = second.next() => take(event.unwrap().unwrap(), &mut units[1]),
                    () = sleep(Duration::from_secs(2)) => return,
                },
            }
        }
    };
    timeout(SOON, all).await.unwrap();
    sender.await.unwrap();
    assert_eq!((units[0].len(), units[1].len()), (2, 2));
    assert_eq!(seen.len(), 1_200, "each once");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), (0..1_200).collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_handler_stays_a_member() {
    let node = Node::start().await;
    let client = client(&node, 1).await;
    produce(&client, 0..1, 1).await;
    let mut consumer = join(client.consumer("g").topics(["t"]).session_timeout(Duration::from_secs(1))).await;
    let unit = read(&mut consumer, 1).await.into_keys().next().unwrap();
    sleep(Duration::from_millis(3_500)).await;
    produce(&client, 1..2, 1).await;
    let again = read(&mut consumer, 1).await;
    assert_eq!(again, BTreeMap::from([(unit, vec![1])]), "the same assignment, and only what is new");
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_keeps_its_units_through_restarts_of_the_node() {
    let mut node = Node::start().await;
    let client = client(&node, 2).await;
    let mut consumer = join(client.consumer("g").topics(["t"])).await;
    let mut all: BTreeMap<UnitEpoch, Vec<u32>> = BTreeMap::new();
    for part in 0..4 {
        produce(&client, part * 100..(part + 1) * 100, 2).await;
        for (unit, numbers) in read(&mut consumer, 100).await {
            all.entry(unit).or_default().extend(numbers);
        }
        node.stop().await;
        node.resume().await;
    }
    let units: BTreeSet<&str> = all.keys().map(|unit| &*unit.unit).collect();
    assert_eq!((units.len(), all.len()), (2, 2), "the same assignments: {:?}", all.keys());
    for (unit, numbers) in &all {
        let partition = unit.unit.strip_prefix("t/").unwrap().parse().unwrap();
        assert_eq!(*numbers, of(0..400, partition, 2), "{unit}: in order, and none twice");
    }
    timeout(SOON, consumer.close()).await.unwrap().unwrap();
    let group = client.describe_group("g").await.unwrap();
    assert!(group.offsets.iter().all(|offset| offset.lag_records == Some(0)), "{group:?}");
}

#[tokio::test]
async fn by_hand_only_what_is_committed_counts() {
    let node = Node::start().await;
    let client = client(&node, 1).await;
    produce(&client, 0..10, 1).await;
    let builder = client.consumer("g").topics(["t"]).auto_commit(false);
    let mut consumer = join(builder.clone()).await;
    let unit = read(&mut consumer, 10).await.into_keys().next().unwrap();
    consumer.commit(&unit, &[OffsetToCommit::new("t", 0, Offset(4))]).await.unwrap();
    let back = consumer.commit(&unit, &[OffsetToCommit::new("t", 0, Offset(3))]).await.unwrap_err();
    assert_eq!((back.kind(), back.reason()), (ErrorKind::Conflict, "COMMIT_WENT_BACK"), "{back}");
    let past = consumer.commit(&unit, &[OffsetToCommit::new("t", 0, Offset(11))]).await.unwrap_err();
    assert_eq!(past.kind(), ErrorKind::OutOfRange, "{past}");
    let stale = UnitEpoch::new("t/0", unit.epoch - 1);
    let stale = consumer.commit(&stale, &[OffsetToCommit::new("t", 0, Offset(9))]).await.unwrap_err();
    assert_eq!((stale.kind(), stale.reason()), (ErrorKind::Conflict, "STALE_ASSIGNMENT"), "{stale}");
    consumer.close().await.unwrap();
    let mut consumer = join(builder).await;
    assert_eq!(read(&mut consumer, 6).await.into_values().next().unwrap(), [4, 5, 6, 7, 8, 9]);
}

#[tokio::test]
async fn a_unit_whose_topic_is_deleted_is_lost() {
    let node = Node::start().await;
    let client = client(&node, 1).await;
    produce(&client, 0..10, 1).await;
    let mut consumer = join(client.consumer("g").topics(["t"])).await;
    let unit = read(&mut consumer, 10).await.into_keys().next().unwrap();
    client.delete_topic("t").await.unwrap();
    let ConsumerEvent::Lost { unit: lost, why, .. } = next(&mut consumer).await else { panic!("it is gone") };
    assert_eq!((&lost, why), (&unit, LostReason::Gone));
    consumer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_that_is_not_given_up_in_time_is_lost_and_its_records_come_to_another() {
    let node = Node::start().await;
    let client = client(&node, 2).await;
    produce(&client, 0..10, 2).await;
    let builder = client.consumer("g").topics(["t"]).rebalance_timeout(Duration::from_secs(1));
    let mut slow = join(builder.clone()).await;
    read(&mut slow, 10).await;
    let mut quick = join(builder).await;
    let taken = read(&mut quick, 5).await;
    let mut events = Vec::new();
    while events.is_empty() {
        match next(&mut slow).await {
            ConsumerEvent::Lost { unit, why, .. } => events.push((unit.unit, why)),
            ConsumerEvent::Revoke(_) => {}
            other => panic!("{other:?}"),
        }
    }
    let unit = taken.into_keys().next().unwrap();
    assert_eq!(events, [(unit.unit, LostReason::RevokeTimedOut)]);
    slow.close().await.unwrap();
}

#[tokio::test]
async fn members_that_want_different_things_are_refused() {
    let node = Node::start().await;
    let client = client(&node, 2).await;
    let _consumer = join(client.consumer("g").topics(["t"])).await;
    let units = vec![("u", vec![("t", 0), ("t", 1)])];
    let error = client.consumer("g").units(units).join().await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, "GROUP_MISMATCH"), "{error}");
    let error = client.consumer("g").join().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
}

#[tokio::test]
async fn a_static_member_that_is_succeeded_says_so_and_ends() {
    let node = Node::start().await;
    let client = client(&node, 1).await;
    let builder = client.consumer("g").topics(["t"]).instance_id("one");
    let mut first = join(builder.clone()).await;
    assert!(matches!(next(&mut first).await, ConsumerEvent::Assigned(_)));
    let mut second = join(builder).await;
    assert!(matches!(next(&mut second).await, ConsumerEvent::Assigned(_)));
    let error = timeout(SOON, first.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.reason(), "MEMBER_UNKNOWN", "{error}");
    assert!(timeout(SOON, first.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_group_is_reset_and_deleted_when_its_members_have_left() {
    let node = Node::start().await;
    let client = client(&node, 2).await;
    produce(&client, 0..10, 2).await;
    let mut consumer = join(client.consumer("g").topics(["t"])).await;
    read(&mut consumer, 10).await;
    let all: [(&str, &[u32]); 1] = [("t", &[])];
    let error = client.reset_offsets("g", &all, Position::Earliest).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Conflict, "GROUP_NOT_EMPTY"), "{error}");
    let listed = client.list_groups().await.unwrap();
    assert_eq!((&*listed[0].group, listed[0].member_count), ("g", 1));
    let described = client.describe_group("g").await.unwrap();
    assert_eq!((described.members.len(), described.members[0].units.len()), (1, 2));
    assert_eq!(described.members[0].member_id, consumer.member_id());
    consumer.close().await.unwrap();

    let planned = client.plan_offset_reset("g", &all, Position::Offset(Offset(2))).await.unwrap();
    assert_eq!(planned.len(), 2);
    assert_eq!((planned[0].from, planned[0].to), (Some(Offset(5)), Offset(2)));
    let offsets = |group: logmill_client::GroupDescription| {
        group.offsets.into_iter().map(|it| it.offset.get()).collect::<Vec<_>>()
    };
    assert_eq!(offsets(client.describe_group("g").await.unwrap()), [5, 5], "a plan changes nothing");
    assert_eq!(
        client.reset_offsets("g", &[("t", &[1])], Position::Offset(Offset(2))).await.unwrap().len(),
        1
    );
    assert_eq!(offsets(client.describe_group("g").await.unwrap()), [5, 2]);
    client.delete_group_offsets("g", "t").await.unwrap();
    assert_eq!(offsets(client.describe_group("g").await.unwrap()), [0; 0]);
    client.delete_group("g").await.unwrap();
    assert_eq!(client.list_groups().await.unwrap(), []);
    assert_eq!(client.describe_group("g").await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// Reads, transforms and commits both together, by either way, through a restart.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_made_of_records_is_committed_with_them() {
    let node = Node::start().await;
    let client = client(&node, 2).await;
    client.create_topic("out", Some(1)).await.unwrap();
    produce(&client, 0..100, 2).await;
    let mut consumer = join(client.consumer("g").topics(["t"]).auto_commit(false)).await;
    let mut producer = client.transactional_producer("mine", TransactionalOptions::default()).await.unwrap();
    let mut sequences = BTreeMap::new();
    let mut count = 0;
    while count < 100 {
        match next(&mut consumer).await {
            ConsumerEvent::Assigned(unit) => {
                sequences.insert(unit.unit, unit.last_step.map_or(0, |last| last + 1));
            }
            ConsumerEvent::Records(records) => {
                let doubled: Vec<String> =
                    numbers(&records).iter().map(|number| (number * 2).to_string()).collect();
                count += doubled.len();
                let offset = OffsetToCommit::from(&records.data);
                if records.unit.unit == "t/0" {
                    let sequence = sequences.get_mut(&records.unit).unwrap();
                    let mut step = Step::new("g", records.unit.clone(), *sequence).offset(offset);
                    for value in doubled {
                        step.push(ProducerRecord::new("out", value)).unwrap();
                    }
                    assert!(!client.commit_step(&step).await.unwrap().duplicate);
                    *sequence += 1;
                } else {
                    for value in doubled {
                        let _delivery = producer.send(ProducerRecord::new("out", value)).await.unwrap();
                    }
                    producer.add_offsets("g", &records.unit, &[offset]).await.unwrap();
                    producer.commit().await.unwrap();
                }
            }
            other => panic!("{other:?}"),
        }
    }
    let group = client.describe_group("g").await.unwrap();
    assert!(
        group.offsets.len() == 2 && group.offsets.iter().all(|it| it.lag_records == Some(0)),
        "{group:?}"
    );
    let mut out = BTreeSet::new();
    let mut subscription =
        client.subscribe(logmill_client::FetchFrom::new("out", 0, Position::Earliest).into()).await.unwrap();
    while out.len() < 100 {
        let data = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap();
        for record in data.records() {
            let value = String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap();
            assert!(out.insert(value.parse::<u32>().unwrap()), "{value} is there once");
        }
    }
    assert_eq!(out, (0..100).map(|number| number * 2).collect());
    consumer.close().await.unwrap();
}
