//! Records to append: all different, and the same in every run.

use logmill_record::{Batch, BatchBuilder, NewRecord, TimestampMs};

/// Values without structure that a disk could profit from.
#[derive(Clone, Debug)]
pub struct Values {
    state: u64,
}

impl Default for Values {
    fn default() -> Self {
        Self { state: 0x9e37_79b9_7f4a_7c15 }
    }
}

impl Values {
    /// The next value of so many bytes.
    pub fn next(&mut self, len: usize) -> Vec<u8> {
        let mut value = Vec::with_capacity(len + 8);
        while value.len() < len {
            value.extend_from_slice(&self.next_u64().to_le_bytes());
        }
        value.truncate(len);
        value
    }

    /// The next number: xorshift64.
    pub fn next_u64(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state
    }

    /// The next number below `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        self.next_u64() % end
    }
}

/// A batch of records with values of `record_len` bytes, as many as `batch_len` holds; their
/// timestamps begin at `at` and are a millisecond apart.
///
/// # Panics
/// If a record does not fit.
#[must_use]
pub fn batch_of_bytes(values: &mut Values, batch_len: usize, record_len: usize, at: i64) -> Batch {
    let mut builder = BatchBuilder::new();
    let mut timestamp = TimestampMs(at);
    loop {
        let value = values.next(record_len);
        let record = NewRecord { timestamp, key: None, value: Some(&value), headers: &[] };
        if !builder.is_empty() && builder.size_with(&record) > batch_len {
            return builder.build().expect("the batch is well formed");
        }
        builder.push(&record).expect("the record fits");
        timestamp.0 += 1;
    }
}

/// A batch of one record, whose value has `record_len` bytes.
///
/// # Panics
/// If the record is too large.
#[must_use]
pub fn single_record_batch(values: &mut Values, record_len: usize, at: i64) -> Batch {
    batch_of_bytes(values, 0, record_len, at)
}
