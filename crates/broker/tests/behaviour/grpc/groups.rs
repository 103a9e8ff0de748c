//! `GroupService`: members on their streams, and what operators see and change.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use logmill_broker::{Limit, Limits};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use v1::consume_request::Request as Sent;
use v1::consume_response::Reply;

use super::limits::counts;
use super::member::{Member, commit, records_in, short_lived, topics, unit_of};
use super::*;
use crate::common::hook_fs::{Call, gated};
use crate::common::{config, with_env};

async fn describe(served: &Served, group: &str) -> v1::DescribeGroupResponse {
    let request = v1::DescribeGroupRequest { group: group.into() };
    served.groups().describe_group(request).await.unwrap().into_inner()
}

/// What a worker has read: the unit and epoch, who, and the offset.
type Reads = Arc<Mutex<Vec<(v1::UnitEpoch, usize, i64)>>>;

/// Reads, and commits what it has read when it has to give a unit up, or leaves.
async fn work(mut member: Member, who: usize, reads: Reads, mut leave: oneshot::Receiver<()>) {
    let mut next = BTreeMap::new();
    loop {
        let reply = tokio::select! {
            reply = member.next() => reply.unwrap(),
            _ = &mut leave => break,
        };
        match reply {
            Reply::Assigned(assigned) => {
                let at = assigned.partitions[0].committed_offset.unwrap_or(0);
                let unit = unit_of(&assigned);
                next.insert(unit.unit.clone(), (unit, at));
            }
            Reply::Data(data) => {
                let unit = data.unit.clone().unwrap();
                let (of, at) = next.get_mut(&unit.unit).unwrap_or_else(|| panic!("{unit:?} is not its"));
                assert_eq!(*of, unit);
                *at = data.data.as_ref().unwrap().next_offset;
                let read = records_in(&data);
                reads.lock().extend(read.iter().map(|(offset, _)| (unit.clone(), who, *offset)));
                let bytes = read.iter().map(|(_, value)| value.len() as i64).sum();
                member.say(Sent::Credit(v1::SubscribeCredit { bytes })).await;
            }
            Reply::Revoke(unit) => {
                let (_, at) = next.remove(&unit.unit).unwrap();
                assert_eq!(member.commit(&unit, at).await, None);
                member.say(Sent::Revoked(v1::UnitRevoked { unit: Some(unit) })).await;
            }
            other => panic!("{other:?}"),
        }
    }
    for (unit, at) in next.into_values() {
        // Records that came before the answer are not read by it any more.
        assert_eq!(member.commit(&unit, at).await, None);
    }
    member.say(Sent::Leave(v1::LeaveGroup {})).await;
    let ended = member.end().await;
    assert_eq!(ended.code(), Code::Ok, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_has_one_reader_while_members_come_and_go() {
    const PARTITIONS: i32 = 6;
    const RECORDS: i64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", PARTITIONS).await;
    let reads = Reads::default();
    let begin = async |who: usize| {
        let channel = connect(served.address).await;
        let join = v1::JoinGroup { credit_bytes: 50, ..topics("g", &["t"]) };
        let member = Member::join(&channel, join).await.unwrap();
        let (leave, left) = oneshot::channel();
        (leave, tokio::spawn(work(member, who, Arc::clone(&reads), left)))
    };
    let mut workers = vec![begin(0).await, begin(1).await];
    for at in 0..RECORDS {
        for partition in 0..PARTITIONS {
            served.say("t", partition, &format!("{at}")).await;
        }
        if at == 20 {
            workers.push(begin(2).await);
        }
        if at == 40 {
            let (leave, worker) = workers.remove(0);
            leave.send(()).unwrap();
            worker.await.unwrap();
        }
    }
    let all = usize::try_from(RECORDS * i64::from(PARTITIONS)).unwrap();
    while reads.lock().len() < all {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for (leave, worker) in workers {
        leave.send(()).unwrap();
        worker.await.unwrap();
    }
    let mut next: BTreeMap<String, (v1::UnitEpoch, usize, i64)> = BTreeMap::new();
    for (unit, who, offset) in reads.lock().iter() {
        let before = next.insert(unit.unit.clone(), (unit.clone(), *who, *offset));
        let Some((of, owner, at)) = before else {
            assert_eq!(*offset, 0);
            continue;
        };
        assert_eq!(*offset, at + 1, "no gap and no double in {}", unit.unit);
        let is_same = of.epoch == unit.epoch;
        assert!(is_same && owner == *who || of.epoch < unit.epoch, "{of:?} of {owner}, {unit:?} of {who}");
    }
    let readers: BTreeSet<_> = reads.lock().iter().map(|(_, who, _)| *who).collect();
    assert_eq!(readers.len(), 3, "all had something");
    let group = describe(&served, "g").await;
    assert_eq!((group.state(), group.members.len()), (v1::GroupState::Empty, 0));
    assert!(group.offsets.iter().all(|it| (it.offset, it.lag_records) == (RECORDS, Some(0))), "{group:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_is_lost_keeps_its_units_and_goes_on_at_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    for value in ["a", "b", "c"] {
        served.say("t", 0, value).await;
    }
    let mut member = Member::join(&served.channel, topics("g", &["t"])).await.unwrap();
    let unit = unit_of(&member.assigned().await);
    while member.data().await.data.unwrap().next_offset < 3 {}
    assert_eq!(member.commit(&unit, 1).await, None);
    let join = v1::JoinGroup { member_id: Some(member.id.clone()), ..topics("g", &["t"]) };
    drop(member);
    while describe(&served, "g").await.members.iter().any(|member| member.connected) {}
    let mut member = Member::join(&served.channel, join).await.unwrap();
    let again = member.assigned().await;
    assert_eq!((unit_of(&again), again.partitions[0].committed_offset), (unit, Some(1)));
    assert_eq!(records_in(&member.data().await)[0], (1, "b".to_owned()));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_units_of_a_client_that_is_killed_go_to_another_when_its_session_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    served.say("t", 0, "a").await;
    served.say("t", 0, "b").await;
    let killed = connect(served.address).await;
    let mut first = Member::join(&killed, short_lived()).await.unwrap();
    let unit = unit_of(&first.assigned().await);
    assert_eq!(first.commit(&unit, 1).await, None);
    let mut second = Member::join(&served.channel, short_lived()).await.unwrap();
    second.lives();
    drop((first, killed));
    let moved = second.assigned().await;
    assert_eq!((unit_of(&moved).epoch, moved.partitions[0].committed_offset), (unit.epoch + 1, Some(1)));
    assert_eq!(records_in(&second.data().await), [(1, "b".to_owned())]);
    drop(second);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_which_nothing_is_heard_is_none_any_more() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let silent = Member::join(&served.channel, short_lived()).await.unwrap();
    let ended = silent.end().await;
    assert_eq!(reason(&ended).1, "MEMBER_UNKNOWN");
    assert!(ended.message().contains("nothing was heard"), "{ended:?}");
    assert!(describe(&served, "g").await.members.is_empty());
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_again_or_with_the_same_instance_id_takes_the_place_of_the_former_stream() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 2).await;
    let join = v1::JoinGroup { instance_id: Some("one".into()), ..topics("g", &["t"]) };
    let mut first = Member::join(&served.channel, join.clone()).await.unwrap();
    let units = [unit_of(&first.assigned().await), unit_of(&first.assigned().await)];
    let again = v1::JoinGroup { member_id: Some(first.id.clone()), ..join.clone() };
    let mut second = Member::join(&served.channel, again).await.unwrap();
    let replaced = first.end().await;
    assert_eq!(reason(&replaced).1, "MEMBER_UNKNOWN");
    assert!(replaced.message().contains("another stream"), "{replaced:?}");
    let same = [unit_of(&second.assigned().await), unit_of(&second.assigned().await)];
    let names = |units: &[v1::UnitEpoch; 2]| units.iter().map(|it| it.unit.clone()).collect::<BTreeSet<_>>();
    assert_eq!(names(&same), names(&units));
    assert!(same.iter().all(|it| it.epoch == 1), "the member is the same: {same:?}");

    let mut third = Member::join(&served.channel, join).await.unwrap();
    let taken = second.end().await;
    assert_eq!(reason(&taken).1, "MEMBER_UNKNOWN");
    assert!(taken.message().contains("instance id"), "{taken:?}");
    let moved = [unit_of(&third.assigned().await), unit_of(&third.assigned().await)];
    assert_eq!(names(&moved), names(&units));
    assert!(moved.iter().all(|it| it.epoch == 2), "it is another member: {moved:?}");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_unit_is_prepared_for_before_it_is_taken_from_its_owner() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 2).await;
    let unit = |partition| v1::Unit {
        name: format!("task {partition}"),
        partitions: vec![v1::TopicPartition { topic: "t".into(), partition }],
    };
    let units = vec![unit(0), unit(1)];
    let join = v1::JoinGroup { topics: Vec::new(), units, warms_up: true, ..topics("g", &[]) };
    let mut first = Member::join(&served.channel, join.clone()).await.unwrap();
    let owned = [unit_of(&first.assigned().await), unit_of(&first.assigned().await)];
    let mut second = Member::join(&served.channel, join).await.unwrap();
    let Reply::WarmUp(v1::WarmUp { unit }) = second.next().await.unwrap() else { panic!("it has nothing") };
    let is_quiet = tokio::time::timeout(Duration::from_millis(200), first.next()).await.is_err();
    assert!(is_quiet, "its owner works on");
    second.say(Sent::Warmed(v1::UnitWarmed { unit: unit.clone() })).await;
    let Reply::Revoke(revoked) = first.next().await.unwrap() else { panic!("the other is ready") };
    assert!(revoked.unit == unit && owned.contains(&revoked), "{revoked:?}");
    first.say(Sent::Revoked(v1::UnitRevoked { unit: Some(revoked.clone()) })).await;
    let moved = second.assigned().await;
    assert_eq!(unit_of(&moved), v1::UnitEpoch { epoch: revoked.epoch + 1, ..revoked });
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_credit_nothing_comes_and_then_as_much_as_is_granted() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    for _ in 0..5 {
        served.say("t", 0, &"x".repeat(100)).await;
    }
    let join = v1::JoinGroup { credit_bytes: 0, ..topics("g", &["t"]) };
    let mut member = Member::join(&served.channel, join).await.unwrap();
    let unit = unit_of(&member.assigned().await);
    let quiet = async |member: &mut Member| {
        tokio::time::timeout(Duration::from_millis(200), member.next()).await.is_err()
    };
    assert!(quiet(&mut member).await);
    let mut read = 0;
    while read < 5 {
        member.say(Sent::Credit(v1::SubscribeCredit { bytes: 100 })).await;
        let came = records_in(&member.data().await).len();
        assert_eq!(came, 1, "each is a batch of its own, and more than half of what was granted");
        read += came;
        assert!(quiet(&mut member).await, "it has used its credit up");
    }
    // What has to be said needs none.
    assert_eq!(member.commit(&unit, 5).await, None);
    served.create("u", 1).await;
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stored_batches_come_as_they_are_and_where_to_begin_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    served.say("t", 0, "before").await;
    let join = v1::JoinGroup {
        format: v1::Format::Batches.into(),
        start: Some(v1::position::Edge::Latest.into()),
        ..topics("g", &["t"])
    };
    let mut member = Member::join(&served.channel, join).await.unwrap();
    member.assigned().await;
    served.say("t", 0, "after").await;
    let data = member.data().await.data.unwrap();
    let Some(v1::chunk::Data::Batches(batches)) = data.chunks[0].data.clone() else { panic!("{data:?}") };
    let batch = logmill_record::Batch::split_from(&mut batches.clone()).unwrap().unwrap();
    assert_eq!((batch.header().base_offset.get(), data.next_offset), (1, 2));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_lists_describes_resets_and_deletes_groups() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 2).await;
    for value in ["a", "b", "c"] {
        served.say("t", 0, value).await;
    }
    let join = topics("g", &["t"]);
    let mut member = Member::join(&served.channel, join).await.unwrap();
    let units = [unit_of(&member.assigned().await), unit_of(&member.assigned().await)];
    let first = units.iter().find(|unit| unit.unit == "t/0").unwrap();
    assert_eq!(member.commit(first, 2).await, None);
    let group = describe(&served, "g").await;
    assert_eq!((group.state(), &group.members[0].member_id), (v1::GroupState::Stable, &member.id));
    assert!(group.members[0].connected && group.members[0].units.len() == 2, "{group:?}");
    let offset = &group.offsets[0];
    assert_eq!((&*offset.topic, offset.partition, offset.offset, offset.lag_records), ("t", 0, 2, Some(1)));

    let list = |page_token: &str| v1::ListGroupsRequest { page_size: 1, page_token: page_token.into() };
    let _other = Member::join(&served.channel, topics("h", &["t"])).await.unwrap();
    let page = served.groups().list_groups(list("")).await.unwrap().into_inner();
    assert_eq!((&*page.groups[0].group, page.groups[0].member_count), ("g", 1));
    let page = served.groups().list_groups(list(&page.next_page_token)).await.unwrap().into_inner();
    assert_eq!((&*page.groups[0].group, &*page.next_page_token), ("h", ""));

    let reset = |execute| v1::ResetOffsetsRequest {
        group: "g".into(),
        topics: vec![v1::TopicPartitions { topic: "t".into(), partitions: vec![0] }],
        to: at_edge(v1::position::Edge::Earliest),
        execute,
    };
    let delete = || v1::DeleteGroupRequest { group: "g".into() };
    let delete_offsets = || v1::DeleteOffsetsRequest { group: "g".into(), topic: "t".into() };
    let busy = [
        served.groups().reset_offsets(reset(true)).await.map(drop).unwrap_err(),
        served.groups().delete_group(delete()).await.map(drop).unwrap_err(),
        served.groups().delete_offsets(delete_offsets()).await.map(drop).unwrap_err(),
    ];
    assert!(busy.iter().all(|status| reason(status).1 == "GROUP_NOT_EMPTY"), "{busy:?}");
    member.say(Sent::Leave(v1::LeaveGroup {})).await;
    assert_eq!(member.end().await.code(), Code::Ok);

    for execute in [false, true] {
        let resets = served.groups().reset_offsets(reset(execute)).await.unwrap().into_inner().resets;
        assert_eq!(
            resets.iter().map(|it| (it.partition, it.from, it.to)).collect::<Vec<_>>(),
            [(0, Some(2), 0)]
        );
        let stands = describe(&served, "g").await.offsets[0].offset;
        assert_eq!(stands, if execute { 0 } else { 2 });
    }
    served.groups().delete_offsets(delete_offsets()).await.unwrap();
    served.groups().delete_group(delete()).await.unwrap();
    let gone = served.groups().delete_group(delete()).await.unwrap_err();
    assert_eq!((gone.code(), reason(&gone).1.as_str()), (Code::NotFound, "GROUP_NOT_FOUND"));
    let gone =
        served.groups().describe_group(v1::DescribeGroupRequest { group: "g".into() }).await.unwrap_err();
    assert_eq!(reason(&gone).1, "GROUP_NOT_FOUND");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_joins_with_what_makes_no_sense_is_told_which_field_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let good = || topics("g", &["t"]);
    let unit = || v1::Unit {
        name: "u".into(),
        partitions: vec![v1::TopicPartition { topic: "t".into(), partition: 0 }],
    };
    let of_units = |units| v1::JoinGroup { topics: Vec::new(), units, ..good() };
    let negative =
        || v1::Unit { partitions: vec![v1::TopicPartition { topic: "t".into(), partition: -1 }], ..unit() };
    let cases = [
        (v1::JoinGroup { group: String::new(), ..good() }, "group"),
        (v1::JoinGroup { group: "a\0b".into(), ..good() }, "group"),
        (v1::JoinGroup { member_id: Some(String::new()), ..good() }, "member_id"),
        (v1::JoinGroup { instance_id: Some("x".repeat(250)), ..good() }, "instance_id"),
        (v1::JoinGroup { topics: Vec::new(), ..good() }, "topics"),
        (v1::JoinGroup { units: vec![unit()], ..good() }, "units"),
        (of_units(vec![unit(), unit()]), "units"),
        (of_units(vec![v1::Unit { name: String::new(), ..unit() }]), "units"),
        (of_units(vec![negative()]), "partition"),
        (v1::JoinGroup { session_timeout_ms: Some(999), ..good() }, "session_timeout_ms"),
        (v1::JoinGroup { session_timeout_ms: Some(-1), ..good() }, "session_timeout_ms"),
        (v1::JoinGroup { rebalance_timeout_ms: Some(1_800_001), ..good() }, "rebalance_timeout_ms"),
        (v1::JoinGroup { credit_bytes: -1, ..good() }, "credit_bytes"),
        (v1::JoinGroup { format: 9, ..good() }, "format"),
        (v1::JoinGroup { isolation: 9, ..good() }, "isolation"),
        (v1::JoinGroup { start: Some(0), ..good() }, "start"),
        (v1::JoinGroup { start: Some(9), ..good() }, "start"),
    ];
    for (join, field) in cases {
        let status = Member::join(&served.channel, join.clone()).await.err().expect(field);
        assert_eq!(invalid_field(&status), field, "{join:?}");
    }
    let nowhere = v1::TopicPartition { topic: "nowhere".into(), partition: 0 };
    let nowhere = of_units(vec![v1::Unit { partitions: vec![nowhere], ..unit() }]);
    let status = Member::join(&served.channel, nowhere).await.err().unwrap();
    assert_eq!(reason(&status).1, "TOPIC_NOT_FOUND");
    let groups = served.groups().list_groups(v1::ListGroupsRequest::default()).await.unwrap().into_inner();
    assert_eq!(groups.groups, [], "none was made");

    let _member = Member::join(&served.channel, good()).await.unwrap();
    let status = Member::join(&served.channel, of_units(vec![unit()])).await.err().unwrap();
    assert_eq!((status.code(), reason(&status).1.as_str()), (Code::FailedPrecondition, "GROUP_MISMATCH"));
    let first = v1::ConsumeRequest { request: Some(Sent::Heartbeat(v1::Heartbeat {})) };
    let status = served.groups().consume(tokio_stream::iter([first])).await.unwrap_err();
    assert_eq!(invalid_field(&status), "join");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_says_wrongly_ends_its_stream_but_a_commit_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    served.say("t", 0, "a").await;
    let join = || topics("g", &["t"]);
    let ends = [
        (Some(Sent::Join(join())), "join"),
        (Some(Sent::Credit(v1::SubscribeCredit { bytes: 0 })), "bytes"),
        (Some(Sent::Credit(v1::SubscribeCredit { bytes: -1 })), "bytes"),
        (Some(Sent::Revoked(v1::UnitRevoked { unit: None })), "unit"),
        (None, "request"),
    ];
    for (request, field) in ends {
        let member = Member::join(&served.channel, join()).await.unwrap();
        member.requests.send(v1::ConsumeRequest { request }).await.unwrap();
        assert_eq!(invalid_field(&member.end().await), field);
    }
    let join = v1::JoinGroup { group: "h".into(), ..join() };
    let mut member = Member::join(&served.channel, join).await.unwrap();
    let unit = unit_of(&member.assigned().await);
    // Of units that are not its own, or not to be given up, nothing is said.
    member.say(Sent::Revoked(v1::UnitRevoked { unit: Some(unit.clone()) })).await;
    member.say(Sent::Warmed(v1::UnitWarmed { unit: "nowhere/1".into() })).await;
    let stale = v1::UnitEpoch { epoch: unit.epoch + 1, ..unit.clone() };
    let mut told = Vec::new();
    for (unit, offset) in [(&stale, 1), (&unit, 2), (&unit, -1), (&unit, 1), (&unit, 0), (&unit, 1)] {
        told.push(member.commit(unit, offset).await.map(|error| error.reason));
    }
    let told: Vec<_> = told.iter().map(Option::as_deref).collect();
    let expected = [
        Some("STALE_ASSIGNMENT"),
        Some("OFFSET_OUT_OF_RANGE"),
        Some("REQUEST_INVALID"),
        None,
        Some("COMMIT_WENT_BACK"),
        None,
    ];
    assert_eq!(told, expected);
    member.say(Sent::Commit(v1::CommitOffsets { correlation_id: 9, unit: None, offsets: Vec::new() })).await;
    let answer = member.next().await;
    let answer = match answer.unwrap() {
        Reply::Data(_) => member.next().await.unwrap(),
        other => other,
    };
    let Reply::Committed(answer) = answer else { panic!("{answer:?}") };
    assert_eq!((answer.correlation_id, answer.error.unwrap().reason.as_str()), (9, "REQUEST_INVALID"));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_reads_nothing_holds_little_and_lives_as_long_as_it_says_so() {
    const RECORDS: i64 = 30;
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    for _ in 0..RECORDS {
        served.say("t", 0, &"x".repeat(900_000)).await;
    }
    let channel = connect(served.address).await;
    let mut member = Member::join(&channel, short_lived()).await.unwrap();
    member.lives();
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let (used, _) = counts(&served, Limit::MaxConnectionReplyBytes);
        assert!(used < 6_000_000, "{used} bytes for one member");
    }
    assert!(describe(&served, "g").await.members[0].connected, "twice its session time-out");
    member.assigned().await;
    while member.data().await.data.unwrap().next_offset < RECORDS {}
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commits_that_are_not_answered_hold_back_who_sends_more_and_each_is_answered() {
    const COMMITS: u64 = 40;
    let dir = tempfile::tempdir().unwrap();
    let is_offsets = |path: &std::path::Path| path.to_string_lossy().contains("internal/offsets");
    let (env, gate) = gated(Call::Sync, is_offsets);
    let limits = Limits { max_unanswered_bytes: 10_000, ..Limits::default() };
    let served = Served::start(Config { limits, ..with_env(&dir, env) }).await;
    served.create("t", 1).await;
    served.say("t", 0, "a").await;
    let join = v1::JoinGroup { credit_bytes: 0, ..topics("g", &["t"]) };
    let mut member = Member::join(&served.channel, join).await.unwrap();
    let unit = unit_of(&member.assigned().await);
    gate.arm();
    for id in 0..COMMITS {
        member.say(Sent::Commit(commit(id, &unit, 1))).await;
    }
    while counts(&served, Limit::MaxUnansweredBytes).1 == 0 {
        tokio::task::yield_now().await;
    }
    let (used, _) = counts(&served, Limit::MaxUnansweredBytes);
    assert!((8_000..13_000).contains(&used), "{used}");
    gate.open();
    let mut answered = BTreeSet::new();
    for _ in 0..COMMITS {
        let Reply::Committed(answer) = member.next().await.unwrap() else { panic!("it has no credit") };
        assert_eq!(answer.error, None);
        assert!(answered.insert(answer.correlation_id));
    }
    assert_eq!(counts(&served, Limit::MaxUnansweredBytes).0, 0);
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_tells_members_and_they_come_back_to_what_they_had() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    served.say("t", 0, "a").await;
    let mut member = Member::join(&served.channel, topics("g", &["t"])).await.unwrap();
    let unit = unit_of(&member.assigned().await);
    assert_eq!(member.commit(&unit, 1).await, None);
    let join = v1::JoinGroup { member_id: Some(member.id.clone()), ..topics("g", &["t"]) };
    served.ask_to_stop();
    assert_eq!(reason(&member.end().await).1, "NODE_CLOSING");
    served.stop().await;
    let served = Served::start(config(&dir)).await;
    let mut member = Member::join(&served.channel, join).await.unwrap();
    let again = member.assigned().await;
    assert_eq!((unit_of(&again), again.partitions[0].committed_offset), (unit, Some(1)));
    served.stop().await;
}
