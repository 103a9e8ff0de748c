//! `TopicService` and `NodeService`.

use tonic::Code;

use super::*;
use crate::common::config;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_listed_described_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    let mut topics = served.topics();
    let request = v1::CreateTopicRequest { name: "t".into(), partitions: Some(3), settings: Vec::new() };
    let created = topics.create_topic(request.clone()).await.unwrap().into_inner().topic.unwrap();
    assert_eq!((created.name.as_str(), created.partition_count, created.internal), ("t", 3, false));
    assert_eq!(created.topic_id.len(), 36);
    let retention = created.settings.iter().find(|setting| setting.name == "retention.ms").unwrap();
    assert_eq!((retention.value.as_str(), retention.source()), ("-1", v1::SettingSource::Default));

    let status = topics.create_topic(request).await.unwrap_err();
    let (code, reason, metadata) = reason(&status);
    assert_eq!((code, reason.as_str()), (Code::AlreadyExists, "TOPIC_EXISTS"));
    assert_eq!(metadata["topic"], "t");

    served.say("t", 2, "x").await;
    let name = "t".to_owned();
    let described =
        topics.describe_topic(v1::DescribeTopicRequest { name: name.clone() }).await.unwrap().into_inner();
    assert_eq!(described.topic.unwrap(), created);
    let ends: Vec<i64> = described.partitions.iter().map(|partition| partition.end_offset).collect();
    assert_eq!(ends, [0, 0, 1]);
    assert!(described.partitions[2].stored_bytes > 60);

    let one = v1::CreateTopicRequest { name: "one".into(), partitions: None, settings: Vec::new() };
    assert_eq!(topics.create_topic(one).await.unwrap().into_inner().topic.unwrap().partition_count, 1);
    let page = v1::ListTopicsRequest { page_size: 1, ..v1::ListTopicsRequest::default() };
    let first = topics.list_topics(page.clone()).await.unwrap().into_inner();
    assert_eq!(first.topics[0].name, "one");
    let next = v1::ListTopicsRequest { page_token: first.next_page_token, ..page };
    let second = topics.list_topics(next).await.unwrap().into_inner();
    assert_eq!((second.topics[0].name.as_str(), second.next_page_token.as_str()), ("t", ""));

    let node = served.nodes().describe_node(v1::DescribeNodeRequest {}).await.unwrap().into_inner();
    assert_eq!((node.topic_count, node.partition_count, node.leader_epoch), (2, 4, 1));

    topics.delete_topic(v1::DeleteTopicRequest { name: name.clone() }).await.unwrap();
    let status = topics.describe_topic(v1::DescribeTopicRequest { name }).await.unwrap_err();
    assert_eq!(super::reason(&status).1, "TOPIC_NOT_FOUND");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_that_make_no_sense_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let mut topics = served.topics();
    for partitions in [0, -1, i32::MIN, 10_001, i32::MAX] {
        let request =
            v1::CreateTopicRequest { name: "u".into(), partitions: Some(partitions), settings: Vec::new() };
        let (code, reason, metadata) = reason(&topics.create_topic(request).await.unwrap_err());
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "PARTITION_COUNT_INVALID"));
        assert_eq!(metadata["partitions"], partitions.to_string());
    }
    let huge = "x".repeat(1_000_000);
    for name in ["", "../x", "__x", "a b", &huge] {
        let request = v1::CreateTopicRequest { name: name.into(), partitions: None, settings: Vec::new() };
        let status = topics.create_topic(request).await.unwrap_err();
        assert_eq!(reason(&status).1, "TOPIC_NAME_INVALID");
        // A name that nobody can have is not found either, however long.
        let status = topics.describe_topic(v1::DescribeTopicRequest { name: name.into() }).await.unwrap_err();
        assert_eq!(reason(&status).1, "TOPIC_NOT_FOUND");
    }
    let list = |page_size, token: &str| v1::ListTopicsRequest {
        page_size,
        page_token: token.into(),
        include_internal: false,
    };
    assert_eq!(invalid_field(&topics.list_topics(list(-1, "")).await.unwrap_err()), "page_size");
    assert_eq!(invalid_field(&topics.list_topics(list(0, "?")).await.unwrap_err()), "page_token");
    assert!(topics.list_topics(list(i32::MAX, "")).await.is_ok());

    let ask = |partition, position| v1::ListOffsetsRequest {
        topic: "t".into(),
        positions: vec![v1::PartitionPosition { partition, position }],
        isolation: 0,
    };
    let cases = [
        (ask(-1, at_offset(0)), "partition"),
        (ask(0, None), "position"),
        (ask(0, at_offset(-1)), "offset"),
        (ask(0, at_edge(v1::position::Edge::Unspecified)), "edge"),
        (ask(0, Some(v1::Position { at: Some(v1::position::At::Edge(77)) })), "edge"),
        (v1::ListOffsetsRequest { isolation: 3, ..ask(0, at_offset(0)) }, "isolation"),
    ];
    for (request, field) in cases {
        assert_eq!(invalid_field(&topics.list_offsets(request).await.unwrap_err()), field);
    }
    let found = topics.list_offsets(ask(0, at_edge(v1::position::Edge::Latest))).await.unwrap().into_inner();
    assert_eq!(found.offsets[0], v1::PartitionOffset { partition: 0, offset: 0, timestamp_ms: None });
    let status = topics.list_offsets(ask(0, at_offset(i64::MAX))).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).1.as_str()), (Code::OutOfRange, "OFFSET_OUT_OF_RANGE"));
    served.stop().await;
}

fn value(topic: &v1::Topic, name: &str) -> (String, v1::SettingSource) {
    let setting = topic.settings.iter().find(|setting| setting.name == name).unwrap();
    (setting.value.clone(), setting.source())
}

fn changed(name: &str, change: v1::setting_change::Change) -> v1::SettingChange {
    v1::SettingChange { name: name.into(), change: Some(change) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn settings_are_made_altered_and_taken_back() {
    use v1::setting_change::Change;
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    let mut topics = served.topics();
    let set = |name: &str, value: &str| v1::SettingValue { name: name.into(), value: value.into() };
    let request = v1::CreateTopicRequest {
        name: "t".into(),
        partitions: None,
        settings: vec![set("retention.ms", "5000"), set("cleanup.policy", "delete")],
    };
    let created = topics.create_topic(request).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(value(&created, "retention.ms"), ("5000".into(), v1::SettingSource::Topic));

    let alter = |changes| v1::AlterTopicRequest { name: "t".into(), changes };
    let changes = vec![
        changed("retention.ms", Change::Reset(v1::ResetSetting {})),
        changed("cleanup.policy", Change::Append("compact".into())),
        changed("segment.ms", Change::Set("60000".into())),
    ];
    let altered = topics.alter_topic(alter(changes)).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(value(&altered, "retention.ms"), ("-1".into(), v1::SettingSource::Default));
    assert_eq!(value(&altered, "cleanup.policy").0, "compact,delete");
    assert_eq!(value(&altered, "segment.ms").0, "60000");
    let remove = alter(vec![changed("cleanup.policy", Change::Remove("delete".into()))]);
    let altered = topics.alter_topic(remove).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(value(&altered, "cleanup.policy").0, "compact");
    let described = v1::DescribeTopicRequest { name: "t".into() };
    assert_eq!(topics.describe_topic(described).await.unwrap().into_inner().topic.unwrap(), altered);

    let missing = v1::SettingChange { name: "retention.ms".into(), change: None };
    assert_eq!(invalid_field(&topics.alter_topic(alter(vec![missing])).await.unwrap_err()), "change");
    for (name, change) in [
        ("retention.ms", Change::Set("x".repeat(100_000))),
        ("no.such", Change::Reset(v1::ResetSetting {})),
        ("cleanup.policy", Change::Remove("compact".into())),
        ("flush.ms", Change::Append("1".into())),
    ] {
        let status = topics.alter_topic(alter(vec![changed(name, change)])).await.unwrap_err();
        let (code, reason, metadata) = reason(&status);
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "SETTING_INVALID"));
        assert_eq!(metadata["setting"], name);
        assert!(status.message().len() < 1_000);
    }
    let nowhere = v1::AlterTopicRequest { name: "nowhere".into(), changes: Vec::new() };
    assert_eq!(reason(&topics.alter_topic(nowhere).await.unwrap_err()).1, "TOPIC_NOT_FOUND");
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partitions_are_added_and_records_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    served.create("t", 1).await;
    let mut topics = served.topics();
    let add = |partition_count| v1::AddPartitionsRequest { name: "t".into(), partition_count };
    let grown = topics.add_partitions(add(3)).await.unwrap().into_inner().topic.unwrap();
    assert_eq!(grown.partition_count, 3);
    for count in [i32::MIN, -1, 0, 3, 10_001, i32::MAX] {
        let (code, reason, _) = reason(&topics.add_partitions(add(count)).await.unwrap_err());
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "PARTITION_COUNT_INVALID"));
    }
    served.say("t", 2, "a").await;
    served.say("t", 2, "b").await;

    let of = |partition, before_offset| v1::PartitionDeletion { partition, before_offset };
    let delete = |partitions| v1::DeleteRecordsRequest { topic: "t".into(), partitions };
    let answered = topics.delete_records(delete(vec![of(2, Some(1)), of(0, Some(1)), of(1, None)])).await;
    let answered = answered.unwrap().into_inner().partitions;
    assert_eq!(answered.iter().map(|it| it.partition).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(answered[0].error.as_ref().unwrap().reason, "OFFSET_OUT_OF_RANGE");
    assert_eq!((answered[1].start_offset, answered[2].start_offset), (0, 1));
    for (deletion, field) in [(of(-1, None), "partition"), (of(0, Some(-1)), "before_offset")] {
        let status = topics.delete_records(delete(vec![deletion])).await.unwrap_err();
        assert_eq!(invalid_field(&status), field);
    }
    let status = topics.delete_records(delete(vec![of(3, None)])).await.unwrap_err();
    assert_eq!(reason(&status).1, "PARTITION_NOT_FOUND");
    served.stop().await;
}

/// A topic's own limit on batches holds over the wire too, also above the node's default.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_may_take_larger_batches_than_its_node_does_by_default() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    let large = v1::SettingValue { name: "max.message.bytes".into(), value: "6000000".into() };
    let request = v1::CreateTopicRequest { name: "t".into(), partitions: None, settings: vec![large] };
    served.topics().create_topic(request).await.unwrap();
    served.say("t", 0, &"x".repeat(5_900_000)).await;
    served.stop().await;
}
