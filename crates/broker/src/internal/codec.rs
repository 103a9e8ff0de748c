//! The primitive types of Kafka's records and messages, of those forms that the node's own logs use.
//!
//! See [the protocol guide](https://kafka.apache.org/protocol#protocol_types): integers are big-endian; a `STRING` is
//! its length as `INT16` and its bytes; of *flexible* versions, lengths are unsigned varints of one more than there
//! are, and a structure ends with tagged fields, of which unknown ones are kept out of the way.

use bytes::{BufMut, Bytes, BytesMut};
use uuid::Uuid;

/// Why bytes of one of the node's own logs cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    #[error("it has version {found} of {what}, and this program reads up to {known}")]
    NewerVersion { what: &'static str, found: i16, known: i16 },
    #[error("it ends before its {0}")]
    Short(&'static str),
    #[error("{0} bytes are left over at its end")]
    Trailing(usize),
    #[error("its {0} is not UTF-8")]
    Text(&'static str),
    #[error("its {what} is {value}, which cannot be")]
    Value { what: &'static str, value: i64 },
}

/// Writes fields one after the other.
#[derive(Debug, Default)]
pub(crate) struct Writer(BytesMut);

/// A tagged field: its tag, and its bytes.
pub(crate) type Tagged = (u32, Bytes);

impl Writer {
    pub(crate) fn finish(self) -> Bytes {
        self.0.freeze()
    }

    pub(crate) fn i8(&mut self, value: i8) {
        self.0.put_i8(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.0.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.0.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.0.put_i64(value);
    }

    pub(crate) fn uuid(&mut self, id: Uuid) {
        self.0.put_slice(id.as_bytes());
    }

    /// A `STRING`. What is stored has a limit far below what fits.
    pub(crate) fn string(&mut self, text: &str) {
        self.0.put_i16(i16::try_from(text.len()).expect("texts that are stored have a limit"));
        self.0.put_slice(text.as_bytes());
    }

    /// A `COMPACT_STRING`.
    pub(crate) fn compact_string(&mut self, text: &str) {
        self.compact_len(text.len());
        self.0.put_slice(text.as_bytes());
    }

    /// How many there are of a `COMPACT_ARRAY`, or bytes of something compact.
    pub(crate) fn compact_len(&mut self, len: usize) {
        self.uvarint(u32::try_from(len + 1).expect("what is stored has a limit"));
    }

    /// The tagged fields at the end of a structure, in order of their tags.
    pub(crate) fn tagged(&mut self, fields: &[Tagged]) {
        self.uvarint(u32::try_from(fields.len()).expect("there are a few"));
        for (tag, bytes) in fields {
            self.uvarint(*tag);
            self.uvarint(u32::try_from(bytes.len()).expect("what is stored has a limit"));
            self.0.put_slice(bytes);
        }
    }

    fn uvarint(&mut self, mut value: u32) {
        while value >= 0x80 {
            self.0.put_u8((value & 0x7f | 0x80).to_le_bytes()[0]);
            value >>= 7;
        }
        self.0.put_u8(value.to_le_bytes()[0]);
    }
}

/// Reads fields one after the other.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// All of it was read.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        match self.0.len() {
            0 => Ok(()),
            extra => Err(DecodeError::Trailing(extra)),
        }
    }

    fn bytes(&mut self, len: usize, what: &'static str) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &'static str) -> Result<[u8; N], DecodeError> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(DecodeError::Short(what))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// A version, of which this program knows all up to `known`.
    pub(crate) fn version(&mut self, known: i16) -> Result<i16, DecodeError> {
        match self.i16("version")? {
            found if found > known => Err(DecodeError::NewerVersion { what: "its value", found, known }),
            found @ ..0 => Err(DecodeError::Value { what: "version", value: found.into() }),
            found => Ok(found),
        }
    }

    pub(crate) fn i8(&mut self, what: &'static str) -> Result<i8, DecodeError> {
        self.array(what).map(i8::from_be_bytes)
    }

    pub(crate) fn i16(&mut self, what: &'static str) -> Result<i16, DecodeError> {
        self.array(what).map(i16::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, what: &'static str) -> Result<i32, DecodeError> {
        self.array(what).map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.array(what).map(i64::from_be_bytes)
    }

    pub(crate) fn uuid(&mut self, what: &'static str) -> Result<Uuid, DecodeError> {
        self.array(what).map(Uuid::from_bytes)
    }

    /// What can be neither negative nor larger than its type.
    pub(crate) fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let value = self.i32(what)?;
        u32::try_from(value).map_err(|_| DecodeError::Value { what, value: value.into() })
    }

    pub(crate) fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        let value = self.i64(what)?;
        u64::try_from(value).map_err(|_| DecodeError::Value { what, value })
    }

    /// A `STRING`.
    pub(crate) fn string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let len = self.i16(what)?;
        let len = usize::try_from(len).map_err(|_| DecodeError::Value { what, value: len.into() })?;
        self.text(len, what)
    }

    /// A `COMPACT_STRING`.
    pub(crate) fn compact_string(&mut self, what: &'static str) -> Result<&'a str, DecodeError> {
        let len = self.compact_len(what)?;
        self.text(len, what)
    }

    fn text(&mut self, len: usize, what: &'static str) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes(len, what)?).map_err(|_| DecodeError::Text(what))
    }

    /// How many there are of a `COMPACT_ARRAY`, or bytes of something compact; null is none. Each takes a byte at
    /// least: a count that says more is refused before room is made for so many.
    pub(crate) fn compact_len(&mut self, what: &'static str) -> Result<usize, DecodeError> {
        let len = self.uvarint(what)?.saturating_sub(1) as usize;
        if len > self.0.len() { Err(DecodeError::Short(what)) } else { Ok(len) }
    }

    /// The tagged fields at the end of a structure: each is given to `field`.
    pub(crate) fn tagged(
        &mut self,
        mut field: impl FnMut(u32, Reader<'a>) -> Result<(), DecodeError>,
    ) -> Result<(), DecodeError> {
        for _ in 0..self.uvarint("number of tagged fields")? {
            let tag = self.uvarint("tag")?;
            let len = self.uvarint("length of a tagged field")? as usize;
            field(tag, Reader(self.bytes(len, "tagged field")?))?;
        }
        Ok(())
    }

    fn uvarint(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        let mut value = 0_u64;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array(what)?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return u32::try_from(value).map_err(|_| DecodeError::Value {
                    what,
                    value: i64::try_from(value).unwrap_or(i64::MAX),
                });
            }
        }
        Err(DecodeError::Value { what, value: i64::try_from(value).unwrap_or(i64::MAX) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_come_back_as_they_were_written() {
        let mut writer = Writer::default();
        writer.i8(-1);
        writer.i16(-2);
        writer.i32(3);
        writer.i64(4);
        writer.uuid(Uuid::from_u128(5));
        writer.string("six");
        writer.compact_string(&"7".repeat(300));
        writer.tagged(&[(0, Bytes::from_static(b"a")), (200, Bytes::from_static(b"bc"))]);
        let bytes = writer.finish();
        let mut reader = Reader::new(&bytes);
        assert_eq!((reader.i8("a"), reader.i16("b"), reader.u32("c")), (Ok(-1), Ok(-2), Ok(3)));
        assert_eq!((reader.u64("d"), reader.uuid("e")), (Ok(4), Ok(Uuid::from_u128(5))));
        assert_eq!((reader.string("f"), reader.compact_string("g").map(str::len)), (Ok("six"), Ok(300)));
        let mut tagged = Vec::new();
        let seen = reader.tagged(|tag, field| {
            tagged.push((tag, field.0));
            Ok(())
        });
        assert_eq!((seen, tagged), (Ok(()), vec![(0, &b"a"[..]), (200, b"bc")]));
        assert_eq!(reader.end(), Ok(()));
    }

    #[test]
    fn what_cannot_be_is_refused_before_room_is_made_for_it() {
        let short = DecodeError::Short("it");
        assert_eq!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f]).compact_len("it"), Err(short.clone()));
        assert_eq!(Reader::new(&[0, 4, b'a']).string("it"), Err(short));
        assert!(matches!(Reader::new(&[0xff; 6]).compact_len("it"), Err(DecodeError::Value { .. })));
        assert!(matches!(Reader::new(&[0xff, 0xff]).string("it"), Err(DecodeError::Value { .. })));
        assert_eq!(Reader::new(&[3, 0xc3, 0x28]).compact_string("it"), Err(DecodeError::Text("it")));
        assert!(matches!(Reader::new(&[0xff; 4]).u32("it"), Err(DecodeError::Value { .. })));
        assert_eq!(Reader::new(&[0]).end(), Err(DecodeError::Trailing(1)));
        let newer = DecodeError::NewerVersion { what: "its value", found: 2, known: 1 };
        assert_eq!(Reader::new(&[0, 2]).version(1), Err(newer));
    }
}
