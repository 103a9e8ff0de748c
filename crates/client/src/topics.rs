//! Topics: create, list, describe, delete.

use logmill_proto::v1;
use logmill_record::{Offset, TimestampMs};

use crate::convert::{count_from, count32_from, offset_from, partition_from};
use crate::error::in_reply;
use crate::paging::all_pages;
use crate::{Client, Error};

/// A topic and what is in force for it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TopicInfo {
    /// The name.
    pub name: String,
    /// The topic's UUID, hyphenated. Never used again, also if a topic of the same name is created later.
    pub topic_id: String,
    /// The number of partitions.
    pub partition_count: u32,
    /// When it was created.
    pub created_at: TimestampMs,
    /// The settings in force.
    pub settings: Vec<Setting>,
    /// Made by a pipeline for itself, and hidden from lists unless asked for.
    pub internal: bool,
}

/// A setting, its value, and where the value comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Setting {
    /// The setting's name, such as `retention.ms`.
    pub name: String,
    /// Its value, as text.
    pub value: String,
    /// Where the value comes from.
    pub source: SettingSource,
}

/// Where the value of a setting comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SettingSource {
    /// The default of the node's version.
    Default,
    /// The node's configuration.
    Node,
    /// The topic itself.
    Topic,
    /// A source that this client does not know.
    Unknown,
}

/// A topic and its partitions; from [`Client::describe_topic`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TopicDescription {
    /// The topic.
    pub topic: TopicInfo,
    /// Its partitions, in order of their numbers.
    pub partitions: Vec<PartitionInfo>,
}

/// A partition as it stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PartitionInfo {
    /// The partition's number, from 0.
    pub partition: u32,
    /// The offset of the first record that is kept.
    pub start_offset: Offset,
    /// The offset after the last record that readers can see, committed or not.
    pub end_offset: Offset,
    /// Bytes of record batches on disk.
    pub stored_bytes: u64,
    /// Segment files.
    pub segment_count: u32,
    /// The epoch that is stamped into batches written now; −1, with offsets and sizes 0, if the partition could
    /// not be opened.
    pub leader_epoch: i32,
    /// Why the partition cannot be written, if it cannot.
    pub error: Option<Error>,
}

impl Client {
    /// Creates a topic; durable when this returns. Without `partitions` the node's default applies, 1.
    ///
    /// # Errors
    /// [`AlreadyExists`](crate::ErrorKind::AlreadyExists), [`Invalid`](crate::ErrorKind::Invalid) for a name
    /// or a count that is not allowed, and those of every call. After
    /// [`Timeout`](crate::ErrorKind::Timeout) the topic may exist.
    ///
    /// ```no_run
    /// # async fn example(client: logmill_client::Client) -> Result<(), logmill_client::Error> {
    /// let topic = client.create_topic("orders", Some(4)).await?;
    /// assert_eq!(topic.partition_count, 4);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_topic(&self, name: &str, partitions: Option<u32>) -> Result<TopicInfo, Error> {
        self.create_topic_with(name, partitions, &[]).await
    }

    /// Creates a topic with settings of its own, by their names; the rest is the node's.
    ///
    /// # Errors
    /// As [`create_topic`](Client::create_topic), and [`Invalid`](crate::ErrorKind::Invalid) for a setting that
    /// there is not, or a value that it cannot have.
    ///
    /// ```no_run
    /// # async fn example(client: logmill_client::Client) -> Result<(), logmill_client::Error> {
    /// let settings = [("cleanup.policy", "compact"), ("segment.ms", "3600000")];
    /// client.create_topic_with("latest-by-sensor", Some(4), &settings).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub async fn create_topic_with(
        &self,
        name: &str,
        partitions: Option<u32>,
        settings: &[(&str, &str)],
    ) -> Result<TopicInfo, Error> {
        let partitions = partitions.map(|count| i32::try_from(count).unwrap_or(i32::MAX));
        let settings = settings
            .iter()
            .map(|(name, value)| v1::SettingValue { name: (*name).to_owned(), value: (*value).to_owned() })
            .collect();
        let request = v1::CreateTopicRequest { name: name.to_owned(), partitions, settings };
        let reply = self.call("CreateTopic", self.topics_rpc().create_topic(request)).await?;
        reply.topic.ok_or_else(|| no_topic(name))?.try_into()
    }

    /// All topics by name, and with `include_internal` also those that pipelines made for themselves.
    ///
    /// # Errors
    /// Those of every call.
    pub async fn list_topics(&self, include_internal: bool) -> Result<Vec<TopicInfo>, Error> {
        all_pages("topics", |page_token| async {
            let request = v1::ListTopicsRequest { page_size: 0, page_token, include_internal };
            let reply = self.call("ListTopics", self.topics_rpc().list_topics(request)).await?;
            let topics = reply.topics.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?;
            Ok((topics, reply.next_page_token))
        })
        .await
    }

    /// One topic and each of its partitions.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), and those of every call.
    pub async fn describe_topic(&self, name: &str) -> Result<TopicDescription, Error> {
        let request = v1::DescribeTopicRequest { name: name.to_owned() };
        let reply = self.call("DescribeTopic", self.topics_rpc().describe_topic(request)).await?;
        Ok(TopicDescription {
            topic: reply.topic.ok_or_else(|| no_topic(name))?.try_into()?,
            partitions: reply.partitions.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
        })
    }

    /// Deletes a topic and its records; durable when this returns.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), and those of every call. After
    /// [`Timeout`](crate::ErrorKind::Timeout) the topic may be gone.
    pub async fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let request = v1::DeleteTopicRequest { name: name.to_owned() };
        self.call("DeleteTopic", self.topics_rpc().delete_topic(request)).await?;
        Ok(())
    }
}

pub(crate) fn no_topic(name: &str) -> Error {
    Error::nonsense(format!("it does not describe topic {name}, for which it was asked"))
}

impl TryFrom<v1::Topic> for TopicInfo {
    type Error = Error;

    fn try_from(topic: v1::Topic) -> Result<TopicInfo, Error> {
        Ok(TopicInfo {
            partition_count: count32_from("the number of partitions", topic.partition_count)?,
            name: topic.name,
            topic_id: topic.topic_id,
            created_at: TimestampMs(topic.created_at_ms),
            settings: topic.settings.into_iter().map(Setting::from).collect(),
            internal: topic.internal,
        })
    }
}

impl From<v1::Setting> for Setting {
    fn from(setting: v1::Setting) -> Setting {
        let source = match setting.source() {
            v1::SettingSource::Default => SettingSource::Default,
            v1::SettingSource::Node => SettingSource::Node,
            v1::SettingSource::Topic => SettingSource::Topic,
            v1::SettingSource::Unspecified => SettingSource::Unknown,
        };
        Setting { name: setting.name, value: setting.value, source }
    }
}

impl TryFrom<v1::Partition> for PartitionInfo {
    type Error = Error;

    fn try_from(partition: v1::Partition) -> Result<PartitionInfo, Error> {
        Ok(PartitionInfo {
            partition: partition_from(partition.partition)?,
            start_offset: offset_from(partition.start_offset)?,
            end_offset: offset_from(partition.end_offset)?,
            stored_bytes: count_from("stored_bytes", partition.stored_bytes)?,
            segment_count: count32_from("segment_count", partition.segment_count)?,
            leader_epoch: partition.leader_epoch,
            error: partition.error.map(in_reply),
        })
    }
}
