//! Topics of a real node.

use logmill_client::{ErrorKind, Position, SettingChange, SettingSource, TopicInfo};
use logmill_record::Offset;

use super::Node;

#[tokio::test]
async fn topics_are_made_listed_described_and_deleted() {
    let node = Node::start().await;
    let client = node.client().await;
    let made = client.create_topic("orders", Some(3)).await.unwrap();
    assert_eq!((made.name.as_str(), made.partition_count, made.internal), ("orders", 3, false));
    assert!(made.settings.iter().any(|setting| setting.name == "retention.ms"));
    assert_eq!(client.create_topic("one", None).await.unwrap().partition_count, 1);

    let names: Vec<String> =
        client.list_topics(false).await.unwrap().into_iter().map(|topic| topic.name).collect();
    assert_eq!(names, ["one", "orders"]);
    let described = client.describe_topic("orders").await.unwrap();
    assert_eq!(described.topic, made);
    assert_eq!(described.partitions.len(), 3);
    assert!(described.partitions.iter().all(|it| it.end_offset.get() == 0 && it.error.is_none()));

    let info = client.describe_node().await.unwrap();
    assert_eq!((info.topic_count, info.partition_count), (2, 4));
    assert!(info.capacity_bytes >= info.available_bytes && info.available_bytes > 0);

    client.delete_topic("orders").await.unwrap();
    assert_eq!(client.describe_topic("orders").await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_a_node_refuses_comes_with_kind_reason_and_sentence() {
    let node = Node::start().await;
    let client = node.client_with_topic(2).await;
    let exists = client.create_topic("t", Some(2)).await.unwrap_err();
    assert_eq!((exists.kind(), exists.reason()), (ErrorKind::AlreadyExists, "TOPIC_EXISTS"));
    assert_eq!(exists.metadata("topic"), Some("t"));

    for name in ["", "../x", "__internal", &"x".repeat(250)] {
        let error = client.create_topic(name, Some(1)).await.unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Invalid, "TOPIC_NAME_INVALID"), "{name}");
    }
    for count in [0, 10_000_000, u32::MAX] {
        let error = client.create_topic("many", Some(count)).await.unwrap_err();
        assert_eq!(
            (error.kind(), error.reason()),
            (ErrorKind::Invalid, "PARTITION_COUNT_INVALID"),
            "{count}"
        );
    }
    for error in [
        client.describe_topic("nowhere").await.unwrap_err(),
        client.delete_topic("nowhere").await.unwrap_err(),
        client.list_offsets("nowhere", &[(0, Position::Latest)]).await.unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, "TOPIC_NOT_FOUND"));
        assert!(error.to_string().contains("nowhere"), "{error}");
    }
    let error = client.list_offsets("t", &[(2, Position::Latest)]).await.unwrap_err();
    assert_eq!((error.kind(), error.reason()), (ErrorKind::NotFound, "PARTITION_NOT_FOUND"));
}

fn value<'a>(topic: &'a TopicInfo, name: &str) -> (&'a str, SettingSource) {
    let setting = topic.settings.iter().find(|setting| setting.name == name).unwrap();
    (&setting.value, setting.source)
}

#[tokio::test]
async fn a_topic_is_altered_grown_and_emptied() {
    let node = Node::start().await;
    let client = node.client().await;
    let made = client.create_topic_with("t", Some(1), &[("retention.ms", "5000")]).await.unwrap();
    assert_eq!(value(&made, "retention.ms"), ("5000", SettingSource::Topic));
    let changes = [
        SettingChange::reset("retention.ms"),
        SettingChange::set("max.message.bytes", "2000"),
        SettingChange::append("cleanup.policy", "compact"),
    ];
    let altered = client.alter_topic("t", &changes).await.unwrap();
    assert_eq!(value(&altered, "retention.ms"), ("-1", SettingSource::Default));
    assert_eq!(value(&altered, "cleanup.policy").0, "compact,delete");
    let back = client.alter_topic("t", &[SettingChange::remove("cleanup.policy", "compact")]).await.unwrap();
    assert_eq!(value(&back, "cleanup.policy").0, "delete");
    assert_eq!(client.describe_topic("t").await.unwrap().topic, back);

    assert_eq!(client.add_partitions("t", 3).await.unwrap().partition_count, 3);
    let deleted = client.delete_records("t", &[(0, None), (2, Some(Offset(1)))]).await.unwrap();
    assert_eq!(*deleted[0].outcome.as_ref().unwrap(), Offset(0));
    assert_eq!(deleted[1].outcome.as_ref().unwrap_err().kind(), ErrorKind::OutOfRange);

    for (error, reason) in [
        (client.create_topic_with("u", None, &[("a", "b")]).await.unwrap_err(), "SETTING_INVALID"),
        (
            client.alter_topic("t", &[SettingChange::set("flush.ms", "0")]).await.unwrap_err(),
            "SETTING_INVALID",
        ),
        (client.add_partitions("t", 3).await.unwrap_err(), "PARTITION_COUNT_INVALID"),
    ] {
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Invalid, reason));
    }
    let error = client.delete_records("t", &[(3, None)]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
}
