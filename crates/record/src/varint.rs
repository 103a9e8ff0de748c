//! A reader of bytes that never goes past its end, and Kafka's zig-zag variable-length integers.
//!
//! The encoding is that of [Protocol Buffers](https://protobuf.dev/programming-guides/encoding/#signed-ints):
//! seven bits a byte, lowest first, the top bit set on all but the last; signed values are zig-zagged. A longer
//! form than necessary is accepted, as Kafka does; one that holds more bits than the type is refused, where
//! Kafka's Java code drops the bits.

use crate::error::RecordProblem;

/// The longest form of a 32-bit integer.
pub(crate) const VARINT_MAX_LEN: usize = 5;
/// The longest form of a 64-bit integer.
pub(crate) const VARLONG_MAX_LEN: usize = 10;

/// The unread rest of some bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Reader<'a> {
        Reader { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    #[inline]
    pub(crate) fn byte(&mut self, field: &'static str) -> Result<u8, RecordProblem> {
        let (&byte, rest) = self.rest.split_first().ok_or_else(|| overrun(field, 1, 0))?;
        self.rest = rest;
        Ok(byte)
    }

    #[inline]
    pub(crate) fn take(&mut self, field: &'static str, len: usize) -> Result<&'a [u8], RecordProblem> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(overrun(field, len as u64, self.rest.len()));
        };
        self.rest = rest;
        Ok(taken)
    }

    /// A signed 32-bit integer.
    #[inline]
    pub(crate) fn varint(&mut self, field: &'static str) -> Result<i32, RecordProblem> {
        // Almost every length and delta fits one byte.
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(unzigzag32(u32::from(byte)));
        }
        self.varint_long_form(field)
    }

    fn varint_long_form(&mut self, field: &'static str) -> Result<i32, RecordProblem> {
        let mut bits = 0_u32;
        for (i, &byte) in self.rest.iter().take(VARINT_MAX_LEN).enumerate() {
            if i == VARINT_MAX_LEN - 1 && byte > 0x0F {
                return Err(RecordProblem::VarintOverflow { field, bits: 32 });
            }
            bits |= u32::from(byte & 0x7F) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(unzigzag32(bits));
            }
        }
        Err(overrun(field, self.rest.len() as u64 + 1, self.rest.len()))
    }

    /// A signed 64-bit integer.
    #[inline]
    pub(crate) fn varlong(&mut self, field: &'static str) -> Result<i64, RecordProblem> {
        if let Some((&byte, rest)) = self.rest.split_first()
            && byte < 0x80
        {
            self.rest = rest;
            return Ok(unzigzag64(u64::from(byte)));
        }
        self.varlong_long_form(field)
    }

    fn varlong_long_form(&mut self, field: &'static str) -> Result<i64, RecordProblem> {
        let mut bits = 0_u64;
        for (i, &byte) in self.rest.iter().take(VARLONG_MAX_LEN).enumerate() {
            if i == VARLONG_MAX_LEN - 1 && byte > 0x01 {
                return Err(RecordProblem::VarintOverflow { field, bits: 64 });
            }
            bits |= u64::from(byte & 0x7F) << (7 * i);
            if byte < 0x80 {
                self.rest = &self.rest[i + 1..];
                return Ok(unzigzag64(bits));
            }
        }
        Err(overrun(field, self.rest.len() as u64 + 1, self.rest.len()))
    }

    /// Bytes after their length; negative lengths are refused.
    #[inline]
    pub(crate) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], RecordProblem> {
        let length = self.varint(field)?;
        let len = usize::try_from(length).map_err(|_| RecordProblem::Negative { field, value: length })?;
        self.take(field, len)
    }

    /// Bytes after their length; a length of -1 is null.
    #[inline]
    pub(crate) fn nullable_bytes(&mut self, field: &'static str) -> Result<Option<&'a [u8]>, RecordProblem> {
        let length = self.varint(field)?;
        match usize::try_from(length) {
            Ok(len) => self.take(field, len).map(Some),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(RecordProblem::Negative { field, value: length }),
        }
    }
}

#[cold]
fn overrun(field: &'static str, needed: u64, available: usize) -> RecordProblem {
    RecordProblem::Overrun { field, needed, available }
}

#[expect(clippy::cast_sign_loss, reason = "zig-zag is defined on the bits")]
const fn zigzag32(value: i32) -> u32 {
    ((value << 1) ^ (value >> 31)) as u32
}

#[expect(clippy::cast_sign_loss, reason = "zig-zag is defined on the bits")]
const fn zigzag64(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

const fn unzigzag32(bits: u32) -> i32 {
    (bits >> 1).cast_signed() ^ -(bits & 1).cast_signed()
}

const fn unzigzag64(bits: u64) -> i64 {
    (bits >> 1).cast_signed() ^ -(bits & 1).cast_signed()
}

/// How many bytes `value` takes.
#[inline]
pub(crate) const fn varint_len(value: i32) -> usize {
    varlong_bits_len(zigzag32(value) as u64)
}

/// How many bytes `value` takes.
#[inline]
pub(crate) const fn varlong_len(value: i64) -> usize {
    varlong_bits_len(zigzag64(value))
}

/// One byte for every seven bits that are in use: a division by seven for this range, without dividing.
#[inline]
const fn varlong_bits_len(bits: u64) -> usize {
    let highest_bit = (bits | 1).ilog2();
    ((highest_bit * 9 + 73) / 64) as usize
}

/// Appends `value`.
#[inline]
pub(crate) fn put_varint(out: &mut Vec<u8>, value: i32) {
    put_bits(out, u64::from(zigzag32(value)));
}

/// Appends `value`.
#[inline]
pub(crate) fn put_varlong(out: &mut Vec<u8>, value: i64) {
    put_bits(out, zigzag64(value));
}

#[inline]
fn put_bits(out: &mut Vec<u8>, mut bits: u64) {
    while bits >= 0x80 {
        out.push(bits.to_le_bytes()[0] | 0x80);
        bits >>= 7;
    }
    out.push(bits.to_le_bytes()[0]);
}

#[cfg(test)]
mod tests;
