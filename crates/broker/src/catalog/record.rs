//! The bytes of the metadata log, and those that the broker stores in each partition's `meta`.
//!
//! # Metadata log (`internal/metadata`)
//!
//! An ordinary log of record batches v2. Every record is about one topic: its key is the topic's UUID (16
//! bytes), its timestamp the time of the event, and the last record of a key says how the topic stands.
//! Integers are big-endian; text is UTF-8 behind its length as `u16`.
//!
//! | value | | |
//! |---|---|---|
//! | 0 | version | `u8`; 2 |
//! | 1 | kind | `u8`; 1 is there, 2 deleted, 3 gone |
//! | | *is there only:* | |
//! | 2..6 | partition count | `u32` |
//! | 6 | flags | `u8`; bit 0: internal |
//! | 7..15 | created at | `i64`; ms since 1970-01-01 UTC |
//! | 15.. | name | `u16` and bytes |
//! | | settings | `u16`, and for each of them name and value, `u16` and bytes each |
//!
//! *Is there* is written when the topic's directories are synced, and again, whole, when it is altered or has
//! more partitions; *deleted* before they are renamed. That nothing is left of them is a null value, which
//! lets compaction forget the topic.
//!
//! # Owner bytes of a partition
//!
//! | | | |
//! |---|---|---|
//! | 0 | version | `u8`; 1 |
//! | 1..17 | topic UUID | 16 bytes |
//! | 17..21 | partition | `u32` |
//! | 21..25 | partition count | `u32` |
//! | 25 | flags | `u8`; bit 0: internal |
//! | 26..34 | created at | `i64`; ms since 1970-01-01 UTC |
//! | 34.. | name | `u16` and bytes |
//!
//! They say of each directory what it belongs to, so that the list of topics can be rebuilt from the
//! directories should the metadata log be lost.

use bytes::{BufMut, Bytes, BytesMut};
use logmill_record::TimestampMs;
use uuid::Uuid;

use crate::names::MAX_PARTITIONS;
use crate::settings::TopicSettings;

/// Of the values of the metadata log.
const VERSION: u8 = 2;
/// Of the owner bytes.
const OWNER_VERSION: u8 = 1;
const KIND_IS: u8 = 1;
const KIND_DELETED: u8 = 2;
const FLAG_INTERNAL: u8 = 1;

/// What the metadata log says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The topic exists, like this; its directories are there.
    Is(Identity),
    /// The topic does not exist any more; its directories may still be there.
    Deleted,
    /// Nothing is left of the topic.
    Gone,
}

/// What a topic is. Its name and times stay; partitions and settings may change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) name: String,
    pub(crate) partition_count: u32,
    pub(crate) internal: bool,
    pub(crate) created_at: TimestampMs,
    /// Those of its own. Directories do not say them.
    pub(crate) settings: TopicSettings,
}

/// Why bytes of the metadata log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it has version {found}, and this program reads up to {known}")]
    NewerVersion { found: u8, known: u8 },
    #[error("it has version {found}, and this program reads {known}")]
    UnknownVersion { found: u8, known: u8 },
    #[error("it has the setting {name:?} with the value {value:?}, which this program does not know")]
    Setting { name: String, value: String },
    #[error("its key is {len} bytes, and a topic's UUID has 16")]
    Key { len: usize },
    #[error("its kind is {0}, which does not exist")]
    Kind(u8),
    #[error("it ends before its {0}")]
    Short(&'static str),
    #[error("{0} bytes are left over at its end")]
    Trailing(usize),
    #[error("its {0} is not UTF-8")]
    Text(&'static str),
    #[error("its partition count is {0}, and a topic has 1 to {MAX_PARTITIONS}")]
    PartitionCount(u32),
}

/// The value of a metadata record; null is one.
pub(super) fn encode(event: &Event) -> Option<Bytes> {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(VERSION);
    match event {
        Event::Is(identity) => {
            out.put_u8(KIND_IS);
            out.put_u32(identity.partition_count);
            put_rest(&mut out, identity);
            put_settings(&mut out, &identity.settings);
        }
        Event::Deleted => out.put_u8(KIND_DELETED),
        Event::Gone => return None,
    }
    Some(out.freeze())
}

/// A metadata record, back from its key and value.
pub(super) fn decode(key: &[u8], value: Option<&[u8]>) -> Result<(Uuid, Event), RecordError> {
    let id = Uuid::from_slice(key).map_err(|_| RecordError::Key { len: key.len() });
    let Some(value) = value else { return Ok((id?, Event::Gone)) };
    let mut reader = Reader(value);
    reader.version(VERSION)?;
    let id = id?;
    let event = match reader.u8("kind")? {
        KIND_IS => {
            let partition_count = reader.partition_count()?;
            let identity = reader.rest(partition_count)?;
            Event::Is(Identity { settings: reader.settings()?, ..identity })
        }
        KIND_DELETED => Event::Deleted,
        kind => return Err(RecordError::Kind(kind)),
    };
    match reader.0.len() {
        0 => Ok((id, event)),
        extra => Err(RecordError::Trailing(extra)),
    }
}

/// What a partition's `meta` says about whose it is.
pub(super) fn encode_owner(id: Uuid, partition: u32, identity: &Identity) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(OWNER_VERSION);
    out.put_slice(id.as_bytes());
    out.put_u32(partition);
    out.put_u32(identity.partition_count);
    put_rest(&mut out, identity);
    out.freeze()
}

/// The owner bytes of a partition: its topic's UUID, its number, and what the topic is.
pub(super) fn decode_owner(owner: &[u8]) -> Result<(Uuid, u32, Identity), RecordError> {
    let mut reader = Reader(owner);
    reader.version(OWNER_VERSION)?;
    let id = Uuid::from_bytes(reader.array("topic")?);
    let partition = reader.u32("partition")?;
    let partition_count = reader.partition_count()?;
    let identity = reader.rest(partition_count)?;
    match reader.0.len() {
        0 => Ok((id, partition, identity)),
        extra => Err(RecordError::Trailing(extra)),
    }
}

fn put_rest(out: &mut BytesMut, identity: &Identity) {
    out.put_u8(if identity.internal { FLAG_INTERNAL } else { 0 });
    out.put_i64(identity.created_at.0);
    put_text(out, &identity.name);
}

fn put_settings(out: &mut BytesMut, settings: &TopicSettings) {
    let count = u16::try_from(settings.iter().count()).expect("there are fewer settings than 2^16");
    out.put_u16(count);
    for (name, value) in settings.iter() {
        put_text(out, name);
        put_text(out, &value);
    }
}

fn put_text(out: &mut BytesMut, text: &str) {
    let len =
        u16::try_from(text.len()).expect("a topic's name has at most 249 bytes, a setting's value a few");
    out.put_u16(len);
    out.put_slice(text.as_bytes());
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], RecordError> {
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(RecordError::Short(what))?;
        self.0 = rest;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], RecordError> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(RecordError::Short(what))?;
        self.0 = rest;
        Ok(*bytes)
    }

    fn version(&mut self, known: u8) -> Result<(), RecordError> {
        match self.u8("version")? {
            found if found > known => Err(RecordError::NewerVersion { found, known }),
            found if found < known => Err(RecordError::UnknownVersion { found, known }),
            _ => Ok(()),
        }
    }

    fn u8(&mut self, what: &'static str) -> Result<u8, RecordError> {
        self.array(what).map(u8::from_be_bytes)
    }

    fn u32(&mut self, what: &'static str) -> Result<u32, RecordError> {
        self.array(what).map(u32::from_be_bytes)
    }

    /// Bounded, because as many partitions are going to be opened.
    fn partition_count(&mut self) -> Result<u32, RecordError> {
        match self.u32("partition count")? {
            count @ 1..=MAX_PARTITIONS => Ok(count),
            count => Err(RecordError::PartitionCount(count)),
        }
    }

    fn rest(&mut self, partition_count: u32) -> Result<Identity, RecordError> {
        let internal = self.u8("flags")? & FLAG_INTERNAL != 0;
        let created_at = TimestampMs(self.array("time of creation").map(i64::from_be_bytes)?);
        let name = self.text("name")?.to_owned();
        Ok(Identity { name, partition_count, internal, created_at, settings: TopicSettings::default() })
    }

    fn settings(&mut self) -> Result<TopicSettings, RecordError> {
        let mut settings = TopicSettings::default();
        for _ in 0..self.array("number of settings").map(u16::from_be_bytes)? {
            let (name, value) = (self.text("setting's name")?, self.text("setting's value")?);
            // Leaving it out would lose it at the next alteration.
            settings
                .put_stored(name, value)
                .ok_or_else(|| RecordError::Setting { name: name.to_owned(), value: value.to_owned() })?;
        }
        Ok(settings)
    }

    fn text(&mut self, what: &'static str) -> Result<&'a str, RecordError> {
        let len = self.array(what).map(u16::from_be_bytes)?;
        std::str::from_utf8(self.bytes(len.into(), what)?).map_err(|_| RecordError::Text(what))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0011_2233_4455_6677_8899_AABB_CCDD_EEFF);

    fn quakes() -> Identity {
        Identity {
            name: "quakes".into(),
            partition_count: 4,
            internal: true,
            created_at: TimestampMs(1_700_000_000_000),
            settings: TopicSettings::default(),
        }
    }

    fn compacted() -> Identity {
        let settings = [("retention.ms", "-1"), ("cleanup.policy", "compact")];
        Identity { settings: TopicSettings::new(settings).unwrap(), ..quakes() }
    }

    /// Partition count, flags, time of creation and name of `quakes`.
    const QUAKES: &[u8] = &[
        0, 0, 0, 4, 1, 0x00, 0x00, 0x01, 0x8B, 0xCF, 0xE5, 0x68, 0x00, 0, 6, b'q', b'u', b'a', b'k', b'e',
        b's',
    ];

    /// The formats as they are on disks: they change with a version and a migration, never like this.
    #[test]
    fn golden_bytes() {
        let plain = [&[2, 1], QUAKES, &[0, 0]].concat();
        assert_eq!(encode(&Event::Is(quakes())).unwrap(), plain);
        assert_eq!(decode(ID.as_bytes(), Some(&plain)), Ok((ID, Event::Is(quakes()))));
        let settings = b"\0\x02\0\x0Ecleanup.policy\0\x07compact\0\x0Cretention.ms\0\x02-1";
        let compact = [&[2, 1], QUAKES, settings].concat();
        assert_eq!(encode(&Event::Is(compacted())).unwrap(), compact);
        assert_eq!(decode(ID.as_bytes(), Some(&compact)), Ok((ID, Event::Is(compacted()))));
        assert_eq!(encode(&Event::Deleted).unwrap(), [2, 2][..]);
        assert_eq!(decode(ID.as_bytes(), Some(&[2, 2])), Ok((ID, Event::Deleted)));
        assert_eq!(encode(&Event::Gone), None);
        assert_eq!(decode(ID.as_bytes(), None), Ok((ID, Event::Gone)));

        let partition = [&[1], ID.as_bytes().as_slice(), &[0, 0, 0, 3], QUAKES].concat();
        assert_eq!(encode_owner(ID, 3, &compacted()), partition);
        assert_eq!(decode_owner(&partition), Ok((ID, 3, quakes())));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let whole = encode(&Event::Is(compacted())).unwrap();
        for len in 0..whole.len() {
            assert!(decode(ID.as_bytes(), Some(&whole[..len])).is_err(), "{len} bytes");
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(decode(ID.as_bytes(), Some(&longer)), Err(RecordError::Trailing(1)));
        let owner = encode_owner(ID, 0, &quakes());
        for len in 0..owner.len() {
            assert!(decode_owner(&owner[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_version_that_is_not_read_is_named_and_whether_it_is_newer() {
        let newer = |found, known| RecordError::NewerVersion { found, known };
        let unknown = |found, known| RecordError::UnknownVersion { found, known };
        assert_eq!(decode(ID.as_bytes(), Some(&[&[1, 1], QUAKES].concat())), Err(unknown(1, 2)));
        assert_eq!(decode_owner(&[0]), Err(unknown(0, 1)));
        assert_eq!(decode(b"", Some(&[3, 9, 9])), Err(newer(3, 2)));
        assert_eq!(decode_owner(&[2]), Err(newer(2, 1)));
        assert_eq!(decode(ID.as_bytes(), Some(&[2, 9])), Err(RecordError::Kind(9)));
        assert_eq!(decode(b"short", Some(&[2, 2])), Err(RecordError::Key { len: 5 }));
        assert_eq!(decode(b"short", None), Err(RecordError::Key { len: 5 }));
    }

    #[test]
    fn a_setting_of_a_newer_program_is_not_lost_in_silence() {
        for (name, value) in [("retention.years", "1"), ("durability", "eternal")] {
            let mut bytes = BytesMut::from(&[&[2, 1], QUAKES, &[0, 1]].concat()[..]);
            put_text(&mut bytes, name);
            put_text(&mut bytes, value);
            let expected = RecordError::Setting { name: name.into(), value: value.into() };
            assert_eq!(decode(ID.as_bytes(), Some(&bytes)), Err(expected));
        }
    }
}
