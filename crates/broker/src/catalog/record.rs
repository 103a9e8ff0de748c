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
//! | 0 | version | `u8`; 1 |
//! | 1 | kind | `u8`; 1 created, 2 deleted, 3 gone |
//! | | *created only:* | |
//! | 2..6 | partition count | `u32` |
//! | 6 | flags | `u8`; bit 0: internal |
//! | 7..15 | created at | `i64`; ms since 1970-01-01 UTC |
//! | 15.. | name | `u16` and bytes |
//!
//! *Created* is written when the topic's directories are synced, *deleted* before they are renamed, *gone*
//! when nothing is left of them.
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

const VERSION: u8 = 1;
const KIND_CREATED: u8 = 1;
const KIND_DELETED: u8 = 2;
const KIND_GONE: u8 = 3;
const FLAG_INTERNAL: u8 = 1;

/// What the metadata log says of a topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The topic exists; its directories are there.
    Created(Identity),
    /// The topic does not exist any more; its directories may still be there.
    Deleted,
    /// Nothing is left of the topic.
    Gone,
}

/// What a topic is from its creation on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) partition_count: u32,
    pub(super) internal: bool,
    pub(super) created_at: TimestampMs,
}

/// Why bytes of the metadata log cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("it has version {found}, and this program reads up to {VERSION}")]
    NewerVersion { found: u8 },
    #[error("its key is {len} bytes, and a topic's UUID has 16")]
    Key { len: usize },
    #[error("its kind is {0}, which does not exist")]
    Kind(u8),
    #[error("it ends before its {0}")]
    Short(&'static str),
    #[error("{0} bytes are left over at its end")]
    Trailing(usize),
    #[error("its name is not UTF-8")]
    Name,
    #[error("its partition count is {0}, and a topic has 1 to {MAX_PARTITIONS}")]
    PartitionCount(u32),
}

/// The value of a metadata record.
pub(super) fn encode(event: &Event) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(VERSION);
    match event {
        Event::Created(identity) => {
            out.put_u8(KIND_CREATED);
            out.put_u32(identity.partition_count);
            put_rest(&mut out, identity);
        }
        Event::Deleted => out.put_u8(KIND_DELETED),
        Event::Gone => out.put_u8(KIND_GONE),
    }
    out.freeze()
}

/// A metadata record, back from its key and value.
pub(super) fn decode(key: &[u8], value: &[u8]) -> Result<(Uuid, Event), RecordError> {
    let mut reader = Reader(value);
    let version = reader.u8("version")?;
    if version > VERSION {
        return Err(RecordError::NewerVersion { found: version });
    }
    let id = Uuid::from_slice(key).map_err(|_| RecordError::Key { len: key.len() })?;
    let event = match reader.u8("kind")? {
        KIND_CREATED => {
            let partition_count = reader.partition_count()?;
            Event::Created(reader.rest(partition_count)?)
        }
        KIND_DELETED => Event::Deleted,
        KIND_GONE => Event::Gone,
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
    out.put_u8(VERSION);
    out.put_slice(id.as_bytes());
    out.put_u32(partition);
    out.put_u32(identity.partition_count);
    put_rest(&mut out, identity);
    out.freeze()
}

/// The owner bytes of a partition: its topic's UUID, its number, and what the topic is.
pub(super) fn decode_owner(owner: &[u8]) -> Result<(Uuid, u32, Identity), RecordError> {
    let mut reader = Reader(owner);
    let version = reader.u8("version")?;
    if version > VERSION {
        return Err(RecordError::NewerVersion { found: version });
    }
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
    // Names are checked before a topic is created, and have at most 249 bytes.
    out.put_u16(u16::try_from(identity.name.len()).unwrap_or(u16::MAX));
    out.put_slice(identity.name.as_bytes());
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
        let len = self.array("name").map(u16::from_be_bytes)?;
        let name = self.bytes(len.into(), "name")?;
        let name = std::str::from_utf8(name).map_err(|_| RecordError::Name)?.to_owned();
        Ok(Identity { name, partition_count, internal, created_at })
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
        }
    }

    /// The formats as they are on disks: they change with a version and a migration, never like this.
    #[test]
    fn golden_bytes() {
        let created: &[u8] = &[
            1, 1, 0, 0, 0, 4, 1, 0x00, 0x00, 0x01, 0x8B, 0xCF, 0xE5, 0x68, 0x00, 0, 6, b'q', b'u', b'a',
            b'k', b'e', b's',
        ];
        assert_eq!(encode(&Event::Created(quakes())), created);
        assert_eq!(encode(&Event::Deleted), [1, 2][..]);
        assert_eq!(encode(&Event::Gone), [1, 3][..]);
        assert_eq!(decode(ID.as_bytes(), created), Ok((ID, Event::Created(quakes()))));

        let owner: &[u8] = &[
            1, 0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE,
            0xFF, 0, 0, 0, 3, 0, 0, 0, 4, 1, 0x00, 0x00, 0x01, 0x8B, 0xCF, 0xE5, 0x68, 0x00, 0, 6, b'q',
            b'u', b'a', b'k', b'e', b's',
        ];
        assert_eq!(encode_owner(ID, 3, &quakes()), owner);
        assert_eq!(decode_owner(owner), Ok((ID, 3, quakes())));
    }

    #[test]
    fn every_cut_and_every_extra_byte_is_refused() {
        let whole = encode(&Event::Created(quakes()));
        for len in 0..whole.len() {
            assert!(decode(ID.as_bytes(), &whole[..len]).is_err(), "{len} bytes");
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(decode(ID.as_bytes(), &longer), Err(RecordError::Trailing(1)));
        let owner = encode_owner(ID, 0, &quakes());
        for len in 0..owner.len() {
            assert!(decode_owner(&owner[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_newer_version_is_named_as_such() {
        assert_eq!(decode(b"", &[2, 9, 9]), Err(RecordError::NewerVersion { found: 2 }));
        assert_eq!(decode_owner(&[2]), Err(RecordError::NewerVersion { found: 2 }));
        assert_eq!(decode(ID.as_bytes(), &[1, 9]), Err(RecordError::Kind(9)));
        assert_eq!(decode(b"short", &[1, 2]), Err(RecordError::Key { len: 5 }));
    }
}
