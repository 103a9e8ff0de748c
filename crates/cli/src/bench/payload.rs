//! Records that differ: a slice of random bytes with the record's number in front, and when it was due.

use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

/// The record's number, and when it was due.
pub(super) const LEAST_BYTES: usize = 16;
const POOL_BYTES: usize = 1 << 20;

/// Makes values of one size, no two alike.
pub(super) struct Payloads {
    pool: Vec<u8>,
    bytes: usize,
    number: u64,
}

impl Payloads {
    /// `seed` tells connections apart; `bytes` is at least [`LEAST_BYTES`].
    pub(super) fn new(seed: u64, bytes: usize) -> Self {
        // xorshift64*: nothing that a disk or a codec could profit from, and the same in every run.
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut pool = Vec::with_capacity(POOL_BYTES + bytes);
        while pool.len() < POOL_BYTES + bytes {
            state ^= state >> 12;
            state ^= state << 25;
            state ^= state >> 27;
            pool.extend_from_slice(&state.wrapping_mul(0x2545_f491_4f6c_dd1d).to_le_bytes());
        }
        Self { pool, bytes, number: seed << 40 }
    }

    /// The next value, which says that it is due at that time of the bench's clock.
    pub(super) fn next(&mut self, due: Duration) -> Bytes {
        self.number += 1;
        let mut value = BytesMut::with_capacity(self.bytes);
        value.put_u64(self.number);
        value.put_u64(u64::try_from(due.as_micros()).unwrap_or(u64::MAX));
        // An odd step reaches every place of the pool.
        let step = self.number.wrapping_mul(4_093) % POOL_BYTES as u64;
        let start = usize::try_from(step).unwrap_or_default();
        value.put_slice(&self.pool[start..start + self.bytes.saturating_sub(LEAST_BYTES)]);
        value.freeze()
    }
}

/// When a value was due, if it is one of these.
pub(super) fn due(value: &[u8]) -> Option<Duration> {
    let mut due = value.get(8..LEAST_BYTES)?;
    Some(Duration::from_micros(due.get_u64()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_have_their_size_and_differ() {
        for bytes in [16, 17, 100, 1_024] {
            let (mut one, mut other) = (Payloads::new(0, bytes), Payloads::new(1, bytes));
            let mut seen = std::collections::HashSet::new();
            for at in (0..1_000).map(Duration::from_micros) {
                for value in [one.next(at), other.next(at)] {
                    assert_eq!((value.len(), due(&value)), (bytes, Some(at)));
                    assert!(seen.insert(value));
                }
            }
        }
    }
}
