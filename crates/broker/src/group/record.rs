//! The bytes of `internal/offsets` that say who has a unit, or that nobody has it: the last of each, so that no epoch
//! comes again; and of all units that are forgotten the highest epoch, after which those begin that are new. A null
//! value says that the unit is gone.
//!
//! Bytes: `docs/formats.md`, *The log of offsets: `internal/offsets`*.

use std::time::Duration;

use bytes::Bytes;

use super::machine::{AssignmentEpoch, InstanceId, MemberId, OwnershipRecord, UnitId};
use crate::internal::codec::{DecodeError, Reader, Writer};
use crate::topic::TopicPartition;

/// Of the keys. Those of Kafka's own records are far below.
pub(crate) const KEY_VERSION: i16 = 4096;
/// 0 has no session timeout.
const VERSION: i16 = 1;
const KIND_PARTITION: i8 = 0;
const KIND_NAMED: i8 = 1;
const KIND_FORGOTTEN: i8 = 2;

/// What a record of this kind is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum About {
    /// A unit of a group.
    Unit(String, UnitId),
    /// The highest epoch of all units that are forgotten.
    Forgotten,
}

pub(crate) fn encode_key(group: &str, unit: &UnitId) -> Bytes {
    let mut out = Writer::default();
    out.i16(KEY_VERSION);
    out.string(group);
    match unit {
        UnitId::Partition(TopicPartition { topic, partition }) => {
            out.i8(KIND_PARTITION);
            out.uuid(*topic);
            out.i32(i32::try_from(*partition).expect("a topic has far fewer partitions"));
        }
        UnitId::Named(name) => {
            out.i8(KIND_NAMED);
            out.string(name);
        }
    }
    out.finish()
}

pub(crate) fn encode_forgotten_key() -> Bytes {
    let mut out = Writer::default();
    out.i16(KEY_VERSION);
    out.string("");
    out.i8(KIND_FORGOTTEN);
    out.finish()
}

pub(crate) fn decode_key(key: &[u8]) -> Result<About, DecodeError> {
    let mut key = Reader::new(key);
    key.version(KEY_VERSION)?;
    let group = key.string("group")?.to_owned();
    let about = match key.i8("kind of the unit")? {
        KIND_PARTITION => {
            let topic = key.uuid("topic of the unit")?;
            let partition = key.u32("partition of the unit")?;
            About::Unit(group, UnitId::Partition(TopicPartition { topic, partition }))
        }
        KIND_NAMED => About::Unit(group, UnitId::Named(key.string("name of the unit")?.into())),
        KIND_FORGOTTEN => About::Forgotten,
        kind => return Err(DecodeError::Value { what: "kind of the unit", value: kind.into() }),
    };
    key.end()?;
    Ok(about)
}

pub(crate) fn encode(row: &OwnershipRecord) -> Bytes {
    let mut out = Writer::default();
    out.i16(VERSION);
    out.i32(row.epoch.0);
    out.string(&row.member.as_ref().map(ToString::to_string).unwrap_or_default());
    out.string(&row.instance.as_ref().map(ToString::to_string).unwrap_or_default());
    out.i32(i32::try_from(row.session_timeout.as_millis()).unwrap_or(i32::MAX));
    out.finish()
}

pub(crate) fn decode(unit: UnitId, value: &[u8]) -> Result<OwnershipRecord, DecodeError> {
    let mut value = Reader::new(value);
    let version = value.version(VERSION)?;
    let epoch = AssignmentEpoch(value.i32("epoch of the unit")?);
    let member = Some(value.string("member")?).filter(|id| !id.is_empty()).map(MemberId::new);
    let instance = Some(value.string("instance id")?).filter(|id| !id.is_empty()).map(InstanceId::new);
    let session_ms = if version >= 1 { value.u32("session timeout")? } else { 0 };
    value.end()?;
    let session_timeout = Duration::from_millis(session_ms.into());
    Ok(OwnershipRecord { unit, epoch, member, instance, session_timeout })
}

pub(crate) fn encode_forgotten(epoch: AssignmentEpoch) -> Bytes {
    let mut out = Writer::default();
    out.i16(VERSION);
    out.i32(epoch.0);
    out.finish()
}

pub(crate) fn decode_forgotten(value: &[u8]) -> Result<AssignmentEpoch, DecodeError> {
    let mut value = Reader::new(value);
    value.version(VERSION)?;
    let epoch = AssignmentEpoch(value.i32("epoch of what is forgotten")?);
    value.end()?;
    Ok(epoch)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn row(unit: UnitId) -> OwnershipRecord {
        let (member, instance) = (Some(MemberId::new("m")), Some(InstanceId::new("i")));
        let session_timeout = Duration::from_millis(258);
        OwnershipRecord { unit, epoch: AssignmentEpoch(7), member, instance, session_timeout }
    }

    /// The formats as they are on disks: they change with a version and a migration, never like this.
    #[test]
    fn golden_bytes() {
        let topic = Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF);
        let partition = UnitId::Partition(TopicPartition { topic, partition: 3 });
        let expected = [&b"\x10\0\0\x01g\0"[..], topic.as_bytes(), &[0, 0, 0, 3]].concat();
        assert_eq!(encode_key("g", &partition), expected);
        let named = UnitId::Named("u".into());
        assert_eq!(encode_key("g", &named), &b"\x10\0\0\x01g\x01\0\x01u"[..]);
        assert_eq!(encode(&row(named.clone())), &b"\0\x01\0\0\0\x07\0\x01m\0\x01i\0\0\x01\x02"[..]);
        let before = OwnershipRecord { session_timeout: Duration::ZERO, ..row(named.clone()) };
        assert_eq!(decode(named.clone(), b"\0\0\0\0\0\x07\0\x01m\0\x01i"), Ok(before));
        for unit in [partition, named] {
            assert_eq!(decode_key(&encode_key("g", &unit)), Ok(About::Unit("g".to_owned(), unit.clone())));
            let anonymous = OwnershipRecord { instance: None, ..row(unit.clone()) };
            assert_eq!(decode(unit.clone(), &encode(&anonymous)), Ok(anonymous));
            let nobodys = OwnershipRecord {
                member: None,
                instance: None,
                session_timeout: Duration::ZERO,
                ..row(unit.clone())
            };
            assert_eq!(encode(&nobodys), &b"\0\x01\0\0\0\x07\0\0\0\0\0\0\0\0"[..]);
            assert_eq!(decode(unit.clone(), &encode(&nobodys)), Ok(nobodys));
            assert_eq!(decode(unit.clone(), &encode(&row(unit.clone()))), Ok(row(unit)));
        }
        assert_eq!(encode_forgotten_key(), &b"\x10\0\0\0\x02"[..]);
        assert_eq!(encode_forgotten(AssignmentEpoch(7)), &b"\0\x01\0\0\0\x07"[..]);
        assert_eq!(decode_key(&encode_forgotten_key()), Ok(About::Forgotten));
        assert_eq!(decode_forgotten(&encode_forgotten(AssignmentEpoch(7))), Ok(AssignmentEpoch(7)));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let unit = UnitId::Named("u".into());
        let (key, value) = (encode_key("g", &unit), encode(&row(unit.clone())));
        for len in 0..key.len() {
            assert!(decode_key(&key[..len]).is_err(), "{len} bytes");
        }
        for len in 0..value.len() {
            assert!(decode(unit.clone(), &value[..len]).is_err(), "{len} bytes");
        }
        assert_eq!(decode_key(&[&key[..], &[0]].concat()), Err(DecodeError::Trailing(1)));
    }
}
