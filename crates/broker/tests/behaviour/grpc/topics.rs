//! `TopicService` and `NodeService`.

use tonic::Code;

use super::*;
use crate::common::config;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topics_are_created_listed_described_and_deleted() {
    let dir = tempfile::tempdir().unwrap();
    let served = Served::start(config(&dir)).await;
    let mut topics = served.topics();
    let request = v1::CreateTopicRequest { name: "t".into(), partitions: Some(3) };
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

    let one = v1::CreateTopicRequest { name: "one".into(), partitions: None };
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
        let request = v1::CreateTopicRequest { name: "u".into(), partitions: Some(partitions) };
        let (code, reason, metadata) = reason(&topics.create_topic(request).await.unwrap_err());
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "PARTITION_COUNT_INVALID"));
        assert_eq!(metadata["partitions"], partitions.to_string());
    }
    let huge = "x".repeat(1_000_000);
    for name in ["", "../x", "__x", "a b", &huge] {
        let request = v1::CreateTopicRequest { name: name.into(), partitions: None };
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
    };
    let cases = [
        (ask(-1, at_offset(0)), "partition"),
        (ask(0, None), "position"),
        (ask(0, at_offset(-1)), "offset"),
        (ask(0, at_edge(v1::position::Edge::Unspecified)), "edge"),
        (ask(0, Some(v1::Position { at: Some(v1::position::At::Edge(77)) })), "edge"),
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
