//! Whose a partition's directory is, for tools that look at it without a node.

use uuid::Uuid;

use super::record;

/// What a partition's `meta` says about whose it is.
///
/// ```
/// use logmill_broker::PartitionOwner;
///
/// assert_eq!(PartitionOwner::decode(b"what another program keeps with its log"), None);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionOwner {
    /// The topic's name.
    pub topic: String,
    /// The topic's identity.
    pub topic_id: Uuid,
    /// The partition's number.
    pub partition: u32,
}

impl PartitionOwner {
    /// Reads the bytes that the broker keeps with each partition's log; `None` if they are not its.
    #[must_use]
    pub fn decode(owner: &[u8]) -> Option<Self> {
        let (topic_id, partition, identity) = record::decode_owner(owner).ok()?;
        Some(Self { topic: identity.name, topic_id, partition })
    }
}
