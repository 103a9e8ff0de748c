//! Topics that change: their settings, their partitions, their oldest records.

use logmill_proto::v1;
use logmill_record::Offset;

use crate::convert::{offset_from, partition_from, partition_to};
use crate::error::in_reply;
use crate::topics::no_topic;
use crate::{Client, Error, TopicInfo};

/// A change of one setting of a topic; for [`Client::alter_topic`].
///
/// ```
/// use logmill_client::SettingChange;
///
/// let week = SettingChange::set("retention.ms", "604800000");
/// let as_the_node_has_it = SettingChange::reset("segment.bytes");
/// let compacted_too = SettingChange::append("cleanup.policy", "compact");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange(v1::SettingChange);

impl SettingChange {
    /// The setting has this value from now on.
    #[must_use]
    pub fn set(name: impl Into<String>, value: impl Into<String>) -> SettingChange {
        SettingChange::new(name, v1::setting_change::Change::Set(value.into()))
    }

    /// The setting is what the node has, or the default of its version.
    #[must_use]
    pub fn reset(name: impl Into<String>) -> SettingChange {
        SettingChange::new(name, v1::setting_change::Change::Reset(v1::ResetSetting {}))
    }

    /// These, separated by commas, are added to the list that the setting is; only `cleanup.policy` is one.
    #[must_use]
    pub fn append(name: impl Into<String>, values: impl Into<String>) -> SettingChange {
        SettingChange::new(name, v1::setting_change::Change::Append(values.into()))
    }

    /// These are taken out of the list.
    #[must_use]
    pub fn remove(name: impl Into<String>, values: impl Into<String>) -> SettingChange {
        SettingChange::new(name, v1::setting_change::Change::Remove(values.into()))
    }

    fn new(name: impl Into<String>, change: v1::setting_change::Change) -> SettingChange {
        SettingChange(v1::SettingChange { name: name.into(), change: Some(change) })
    }
}

/// What became of the oldest records of a partition; from [`Client::delete_records`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct DeletedRecords {
    /// The partition's number.
    pub partition: u32,
    /// Where it starts now: at the offset asked for, or where it started already if that is later.
    pub outcome: Result<Offset, Error>,
}

impl Client {
    /// Changes settings of a topic, each that is named, and leaves the others as they are; durable when this
    /// returns, and in force for what is produced after it.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a setting that there is not, or a value that it cannot have,
    /// and then none is changed; [`NotFound`](crate::ErrorKind::NotFound), and those of every call. After
    /// [`Timeout`](crate::ErrorKind::Timeout) the changes may have been made; asking again does no harm.
    ///
    /// ```no_run
    /// # async fn example(client: logmill_client::Client) -> Result<(), logmill_client::Error> {
    /// use logmill_client::SettingChange;
    ///
    /// let changes = [SettingChange::set("retention.ms", "604800000"), SettingChange::reset("segment.ms")];
    /// let topic = client.alter_topic("orders", &changes).await?;
    /// println!("{:?}", topic.settings);
    /// # Ok(())
    /// # }
    /// ```
    pub async fn alter_topic(&self, name: &str, changes: &[SettingChange]) -> Result<TopicInfo, Error> {
        let changes = changes.iter().map(|change| change.0.clone()).collect();
        let request = v1::AlterTopicRequest { name: name.to_owned(), changes };
        let reply = self.call("AlterTopic", self.topics_rpc().alter_topic(request)).await?;
        reply.topic.ok_or_else(|| no_topic(name))?.try_into()
    }

    /// Gives a topic more partitions, `partition_count` in all; durable when this returns. Records are not
    /// moved: from then on those of a key may go to another partition than before.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) unless there are more than before,
    /// [`NotFound`](crate::ErrorKind::NotFound), and those of every call. After
    /// [`Timeout`](crate::ErrorKind::Timeout) they may have been added.
    pub async fn add_partitions(&self, name: &str, partition_count: u32) -> Result<TopicInfo, Error> {
        let partition_count = i32::try_from(partition_count).unwrap_or(i32::MAX);
        let request = v1::AddPartitionsRequest { name: name.to_owned(), partition_count };
        let reply = self.call("AddPartitions", self.topics_rpc().add_partitions(request)).await?;
        reply.topic.ok_or_else(|| no_topic(name))?.try_into()
    }

    /// Deletes the oldest records of partitions: all before an offset, or with `None` all that are there. They
    /// stay deleted when this returns. An answer for each partition, in order of their numbers.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for the topic or one of the partitions, and those of every
    /// call; what goes wrong with one partition stands in its answer. After
    /// [`Timeout`](crate::ErrorKind::Timeout) the records may be gone.
    ///
    /// ```no_run
    /// # async fn example(client: logmill_client::Client) -> Result<(), logmill_client::Error> {
    /// use logmill_record::Offset;
    ///
    /// for deleted in client.delete_records("orders", &[(0, Some(Offset(1_000))), (1, None)]).await? {
    ///     println!("partition {} starts at {}", deleted.partition, deleted.outcome?);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn delete_records(
        &self,
        topic: &str,
        partitions: &[(u32, Option<Offset>)],
    ) -> Result<Vec<DeletedRecords>, Error> {
        let deletion = |(partition, before): &(u32, Option<Offset>)| {
            let before_offset = before.map(|offset| i64::try_from(offset.get()).unwrap_or(i64::MAX));
            Ok(v1::PartitionDeletion { partition: partition_to(*partition)?, before_offset })
        };
        let partitions = partitions.iter().map(deletion).collect::<Result<_, Error>>()?;
        let request = v1::DeleteRecordsRequest { topic: topic.to_owned(), partitions };
        let reply = self.call("DeleteRecords", self.topics_rpc().delete_records(request)).await?;
        reply.partitions.into_iter().map(TryInto::try_into).collect()
    }
}

impl TryFrom<v1::DeletedRecords> for DeletedRecords {
    type Error = Error;

    fn try_from(deleted: v1::DeletedRecords) -> Result<DeletedRecords, Error> {
        Ok(DeletedRecords {
            partition: partition_from(deleted.partition)?,
            outcome: match deleted.error {
                Some(error) => Err(in_reply(error)),
                None => Ok(offset_from(deleted.start_offset)?),
            },
        })
    }
}
