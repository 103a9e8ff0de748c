//! Batches put together by hand, so that a test can claim in them what a builder never would.

#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, reason = "of tests only; the lint sees that by the test attribute")]

pub(crate) mod allocator;
pub(crate) mod mutate;

use bytes::Bytes;

/// A header's fields as they will stand on the wire; the CRC is added by [`RawBatch::bytes`].
#[derive(Clone, Debug)]
pub(crate) struct RawBatch {
    pub(crate) base_offset: i64,
    /// `None`: what the records really take.
    pub(crate) batch_length: Option<i32>,
    pub(crate) magic: i8,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    pub(crate) record_count: i32,
    pub(crate) records: Vec<u8>,
}

impl RawBatch {
    /// `count` records with offsets to match, base and largest timestamp 0.
    pub(crate) fn new(count: i32, records: Vec<u8>) -> RawBatch {
        RawBatch {
            base_offset: 0,
            batch_length: None,
            magic: 2,
            attributes: 0,
            last_offset_delta: count - 1,
            base_timestamp: 0,
            max_timestamp: 0,
            record_count: count,
            records,
        }
    }

    pub(crate) fn bytes(&self) -> Bytes {
        let mut out = Vec::new();
        let length = self.batch_length.unwrap_or(i32::try_from(49 + self.records.len()).unwrap());
        out.extend(self.base_offset.to_be_bytes());
        out.extend(length.to_be_bytes());
        out.extend(0_i32.to_be_bytes());
        out.extend(self.magic.to_be_bytes());
        out.extend([0; 4]);
        out.extend(self.attributes.to_be_bytes());
        out.extend(self.last_offset_delta.to_be_bytes());
        out.extend(self.base_timestamp.to_be_bytes());
        out.extend(self.max_timestamp.to_be_bytes());
        out.extend((-1_i64).to_be_bytes());
        out.extend((-1_i16).to_be_bytes());
        out.extend((-1_i32).to_be_bytes());
        out.extend(self.record_count.to_be_bytes());
        out.extend(&self.records);
        fix_crc(&mut out);
        out.into()
    }
}

/// Puts the right CRC into a batch that was changed.
pub(crate) fn fix_crc(batch: &mut [u8]) {
    let crc = crc32c(&batch[21..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// CRC-32C bit by bit, from its definition (RFC 3720, appendix B.4).
pub(crate) fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0x82F6_3B78 } else { crc >> 1 };
        }
    }
    !crc
}

/// A zig-zag varint, by the definition in 128 bits, so that it can also be too large.
pub(crate) fn varint(value: i128) -> Vec<u8> {
    let mut bits = u128::try_from(if value < 0 { -2 * value - 1 } else { 2 * value }).unwrap();
    let mut out = Vec::new();
    loop {
        let seven = u8::try_from(bits & 0x7F).unwrap();
        bits >>= 7;
        if bits == 0 {
            out.push(seven);
            return out;
        }
        out.push(seven | 0x80);
    }
}

/// The fields of one record, each as the integer or the bytes that will stand there.
#[derive(Clone, Debug)]
pub(crate) struct RawRecord {
    pub(crate) timestamp_delta: i128,
    pub(crate) offset_delta: i128,
    pub(crate) key_len: i128,
    pub(crate) key: Vec<u8>,
    pub(crate) value_len: i128,
    pub(crate) value: Vec<u8>,
    pub(crate) header_count: i128,
    /// The bytes of the headers, and whatever else is to follow.
    pub(crate) headers: Vec<u8>,
}

impl RawRecord {
    /// Null key, null value, no headers.
    pub(crate) fn new(offset_delta: i128) -> RawRecord {
        RawRecord {
            timestamp_delta: 0,
            offset_delta,
            key_len: -1,
            key: Vec::new(),
            value_len: -1,
            value: Vec::new(),
            header_count: 0,
            headers: Vec::new(),
        }
    }

    pub(crate) fn body(&self) -> Vec<u8> {
        let mut out = vec![0];
        out.extend(varint(self.timestamp_delta));
        out.extend(varint(self.offset_delta));
        out.extend(varint(self.key_len));
        out.extend(&self.key);
        out.extend(varint(self.value_len));
        out.extend(&self.value);
        out.extend(varint(self.header_count));
        out.extend(&self.headers);
        out
    }

    /// With its length in front.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let body = self.body();
        let mut out = varint(body.len() as i128);
        out.extend(body);
        out
    }
}
