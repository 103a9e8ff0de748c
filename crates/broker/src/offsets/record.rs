//! The bytes of `internal/offsets` that say what groups have committed.
//!
//! They are those of Kafka's `__consumer_offsets`
//! ([`OffsetCommitKey`](https://github.com/apache/kafka/blob/trunk/group-coordinator/src/main/resources/common/message/OffsetCommitKey.json)
//! version 1,
//! [`OffsetCommitValue`](https://github.com/apache/kafka/blob/trunk/group-coordinator/src/main/resources/common/message/OffsetCommitValue.json)
//! version 4), so that a listener for Kafka's clients can go by the same records. A null value says that nothing is
//! committed any more. Bytes: `docs/formats.md`, *The log of offsets: `internal/offsets`*.

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};
use uuid::Uuid;

use crate::internal::codec::{DecodeError, Reader, Writer};

const KEY_VERSION: i16 = 1;
const VERSION: i16 = 4;
const TAG_TOPIC_ID: u32 = 0;
/// Kafka has no such field.
const TAG_UNIT_EPOCH: u32 = 4096;

/// For what an offset is committed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(crate) group: String,
    pub(crate) topic: String,
    pub(crate) partition: u32,
}

/// What a group has committed for a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    /// The topic of that name, since offsets mean nothing in another.
    pub(crate) topic_id: Uuid,
    /// Where to read on.
    pub(crate) offset: Offset,
    /// The leader epoch of the last batch before it, if it is known.
    pub(crate) last_epoch: Option<i32>,
    /// What the member had to say.
    pub(crate) metadata: String,
    pub(crate) at: TimestampMs,
    /// The epoch of the unit whose owner committed it; `None` if it was an operator.
    pub(crate) unit_epoch: Option<i32>,
}

impl Key {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.i16(KEY_VERSION);
        out.string(&self.group);
        out.string(&self.topic);
        out.i32(i32::try_from(self.partition).expect("a topic has far fewer partitions"));
        out.finish()
    }

    pub(crate) fn decode(key: &[u8]) -> Result<Self, DecodeError> {
        let mut key = Reader::new(key);
        let version = key.version(KEY_VERSION)?;
        if version != KEY_VERSION {
            return Err(DecodeError::Value { what: "version of the key", value: version.into() });
        }
        let (group, topic) = (key.string("group")?.to_owned(), key.string("topic")?.to_owned());
        let partition = key.u32("partition")?;
        key.end()?;
        Ok(Self { group, topic, partition })
    }
}

impl Committed {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = Writer::default();
        out.i16(VERSION);
        out.i64(i64::try_from(self.offset.get()).expect("an offset has 63 bits"));
        out.i32(self.last_epoch.unwrap_or(-1));
        out.compact_string(&self.metadata);
        out.i64(self.at.get());
        let mut tagged = vec![(TAG_TOPIC_ID, Bytes::copy_from_slice(self.topic_id.as_bytes()))];
        tagged.extend(
            self.unit_epoch.map(|epoch| (TAG_UNIT_EPOCH, Bytes::copy_from_slice(&epoch.to_be_bytes()))),
        );
        out.tagged(&tagged);
        out.finish()
    }

    pub(crate) fn decode(value: &[u8]) -> Result<Self, DecodeError> {
        let mut value = Reader::new(value);
        let version = value.version(VERSION)?;
        if version != VERSION {
            return Err(DecodeError::Value { what: "version", value: version.into() });
        }
        let offset = value.u64("offset").map(Offset)?;
        let last_epoch = Some(value.i32("leader epoch")?).filter(|epoch| *epoch >= 0);
        let metadata = value.compact_string("metadata")?.to_owned();
        let at = TimestampMs(value.i64("time of the commit")?);
        let (mut topic_id, mut unit_epoch) = (None, None);
        value.tagged(|tag, mut field| {
            match tag {
                TAG_TOPIC_ID => topic_id = Some(field.uuid("id of the topic")?),
                TAG_UNIT_EPOCH => unit_epoch = Some(field.i32("epoch of the unit")?),
                _ => {}
            }
            Ok(())
        })?;
        value.end()?;
        let topic_id = topic_id.ok_or(DecodeError::Short("id of the topic"))?;
        Ok(Self { topic_id, offset, last_epoch, metadata, at, unit_epoch })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both() -> (Key, Committed) {
        let key = Key { group: "g".into(), topic: "t".into(), partition: 3 };
        let topic_id = Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF);
        let metadata = "m".to_owned();
        let (offset, at) = (Offset(9), TimestampMs(5));
        (key, Committed { topic_id, offset, last_epoch: Some(2), metadata, at, unit_epoch: Some(7) })
    }

    /// The formats as they are on disks: they change with a version and a migration, never like this.
    #[test]
    fn golden_bytes() {
        let (key, committed) = both();
        assert_eq!(key.encode(), &b"\0\x01\0\x01g\0\x01t\0\0\0\x03"[..]);
        let head = b"\0\x04\0\0\0\0\0\0\0\x09\0\0\0\x02\x02m\0\0\0\0\0\0\0\x05\x02\0\x10";
        let value = [&head[..], committed.topic_id.as_bytes(), b"\x80\x20\x04\0\0\0\x07"].concat();
        assert_eq!(committed.encode(), value);
        assert_eq!((Key::decode(&key.encode()), Committed::decode(&value)), (Ok(key), Ok(committed.clone())));
        let unknown = Committed { last_epoch: None, metadata: String::new(), unit_epoch: None, ..committed };
        assert_eq!(Committed::decode(&unknown.encode()), Ok(unknown));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let (key, committed) = both();
        let (key, value) = (key.encode(), committed.encode());
        for len in 0..value.len() {
            assert!(Committed::decode(&value[..len]).is_err(), "{len} bytes");
        }
        for len in 0..key.len() {
            assert!(Key::decode(&key[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(Committed::decode(&[&value[..], &[0]].concat()), Err(DecodeError::Trailing(1)));
    }
}
