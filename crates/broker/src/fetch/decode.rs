//! Stored batches made plain records, for readers who do not know the format.

use bytes::Bytes;
use logmill_log::AbortedTxn;
use logmill_record::{Batch, BatchError, BatchErrorKind, InflateLimits, Offset, TimestampMs, TimestampType};

use super::Aborted;
use crate::error::{Error, Reason};

/// So many are made at a time: a megabyte of batch may inflate to millions of records.
const RECORDS_AT_A_TIME: usize = 1 << 16;

/// A record as it was stored. Its bytes are slices of the batch's, as it is inflated, and not copies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedRecord {
    /// The record's offset in its partition.
    pub offset: Offset,
    /// The record's time.
    pub timestamp: TimestampMs,
    /// Who decided the time.
    pub timestamp_type: TimestampType,
    /// The key; `None` is null.
    pub key: Option<Bytes>,
    /// The value; `None` is null.
    pub value: Option<Bytes>,
    /// Headers, in order.
    pub headers: Vec<(String, Option<Bytes>)>,
}

impl DecodedRecord {
    /// The bytes of key, value and headers.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let len = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers: usize = self.headers.iter().map(|(key, value)| key.len() + len(value)).sum();
        len(&self.key) + len(&self.value) + headers
    }
}

/// The records of whole batches, one after another, from the offset `from` on. Control batches, which no
/// application reads, are left out; records of aborted transactions are, if they are
/// [named](DecodedRecords::leaving_out).
///
/// An error is the iterator's last item: [`BatchUnsupported`](Reason::BatchUnsupported) for a codec that the
/// program was built without, and [`DataCorrupt`](Reason::DataCorrupt), which bytes that came from a fetch do
/// not give.
#[must_use]
pub fn decode(batches: Bytes, from: Offset) -> DecodedRecords {
    let (aborted, records) = (Aborted::default(), Vec::new().into_iter());
    DecodedRecords { batches, from, aborted, batch: None, records }
}

/// See [`decode`].
#[derive(Debug)]
pub struct DecodedRecords {
    batches: Bytes,
    from: Offset,
    aborted: Aborted,
    /// The batch that is being taken apart, inflated, as long as it may have more records.
    batch: Option<Batch>,
    /// Of that batch.
    records: std::vec::IntoIter<DecodedRecord>,
}

impl Iterator for DecodedRecords {
    type Item = Result<DecodedRecord, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(record) = self.records.next() {
                return Some(Ok(record));
            }
            match self.refill() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(error) => return Some(Err(self.fail(error))),
            }
        }
    }
}

impl DecodedRecords {
    /// The same without the records of these transactions: for a reader of committed records, those that are
    /// [told](crate::PartitionData::aborted) with the batches.
    #[must_use]
    pub fn leaving_out(self, aborted: &[AbortedTxn]) -> Self {
        self.without(Aborted::new(aborted))
    }

    pub(crate) fn without(self, aborted: Aborted) -> Self {
        Self { aborted, ..self }
    }

    /// Takes more of the batch apart, or comes to the next one; `false` at the end.
    fn refill(&mut self) -> Result<bool, BatchError> {
        if self.batch.is_none() {
            let Some(next) = Batch::split_from(&mut self.batches)? else { return Ok(false) };
            let header = next.header();
            let is_for_readers = !header.attributes.is_control() && !self.aborted.has(header);
            let wanted = is_for_readers && header.last_offset() >= self.from;
            self.batch = if wanted { Some(next.inflate(&InflateLimits::default())?) } else { None };
        }
        let Some(batch) = self.batch.take() else { return Ok(true) };
        let records = records(&batch, self.from)?;
        if let Some(last) = records.last()
            && records.len() == RECORDS_AT_A_TIME
        {
            self.from = last.offset.next();
            self.batch = Some(batch);
        }
        self.records = records.into_iter();
        Ok(true)
    }

    fn fail(&mut self, error: BatchError) -> Error {
        self.batches.clear();
        self.batch = None;
        let reason = match error.kind() {
            BatchErrorKind::Unsupported => Reason::BatchUnsupported,
            _ => Reason::DataCorrupt,
        };
        Error::new(reason, format!("a stored batch cannot be read: {error}")).because(error)
    }
}

/// The first records of an uncompressed batch from the offset `from` on.
fn records(batch: &Batch, from: Offset) -> Result<Vec<DecodedRecord>, BatchError> {
    let timestamp_type = batch.header().attributes.timestamp_type();
    let own = |bytes: Option<&[u8]>| bytes.map(|bytes| batch.bytes().slice_ref(bytes));
    let count = batch.header().record_count as usize;
    let mut decoded = Vec::with_capacity(count.min(RECORDS_AT_A_TIME));
    for record in batch.records()? {
        let record = record?;
        if record.offset < from {
            continue;
        }
        decoded.push(DecodedRecord {
            offset: record.offset,
            timestamp: record.timestamp,
            timestamp_type,
            key: own(record.key),
            value: own(record.value),
            headers: record.headers().map(|header| (header.key.to_owned(), own(header.value))).collect(),
        });
        if decoded.len() == RECORDS_AT_A_TIME {
            break;
        }
    }
    Ok(decoded)
}

#[cfg(test)]
mod tests {
    use logmill_record::{BatchBuilder, BatchOptions, Compression, NewRecord, stamped_prefix};

    use super::*;

    /// A batch of these values as it is stored at `base`.
    fn stored(base: u64, values: &[&str], attributes: u8) -> Vec<u8> {
        let mut builder = BatchBuilder::new();
        for value in values {
            let headers = [("h", Some(&b"1"[..])), ("h", None)];
            let new = NewRecord {
                timestamp: TimestampMs(7),
                key: None,
                value: Some(value.as_bytes()),
                headers: &headers,
            };
            builder.push(&new).unwrap();
        }
        let batch = builder.build().unwrap();
        let prefix = stamped_prefix(batch.header(), Offset(base), 3);
        let mut bytes = [&prefix[..], &batch.bytes()[prefix.len()..]].concat();
        bytes[22] |= attributes;
        if let Err(BatchError::CrcMismatch { computed, .. }) = Batch::parse(bytes.clone().into()) {
            bytes[17..21].copy_from_slice(&computed.to_be_bytes());
        }
        bytes
    }

    #[test]
    fn records_come_from_the_offset_asked_for_and_control_batches_do_not_come() {
        const CONTROL: u8 = 0x20;
        let run = [stored(10, &["a", "b"], 0), stored(12, &["marker"], CONTROL), stored(13, &["c"], 0)];
        let records: Vec<_> = decode(run.concat().into(), Offset(11)).map(Result::unwrap).collect();
        let seen: Vec<_> = records.iter().map(|record| (record.offset.get(), &record.value)).collect();
        assert_eq!(seen, [(11, &Some("b".into())), (13, &Some("c".into()))]);
        assert_eq!(records[0].headers, [("h".to_owned(), Some("1".into())), ("h".to_owned(), None)]);
        assert_eq!(records[0].size_bytes(), 1 + 3);
    }

    #[test]
    fn records_of_a_compressed_batch_come_in_parts_and_all_of_them() {
        let options = BatchOptions::new().compression(Compression::Zstd);
        let mut builder = BatchBuilder::with_options(options, 0);
        for value in 0..150_000_u32 {
            let new = NewRecord {
                timestamp: TimestampMs(7),
                key: None,
                value: Some(&value.to_be_bytes()),
                headers: &[],
            };
            builder.push(&new).unwrap();
        }
        let run = [builder.build().unwrap().bytes().to_vec(), stored(150_000, &["a"], 0)].concat();
        let mut expected = 5..150_000_u32;
        let mut records = decode(run.into(), Offset(5)).map(Result::unwrap);
        for record in records.by_ref().take(149_995) {
            let value = expected.next().unwrap();
            assert_eq!(
                (record.offset.get(), &record.value.unwrap()[..]),
                (value.into(), &value.to_be_bytes()[..])
            );
        }
        assert_eq!(records.next().unwrap().value, Some("a".into()));
        assert!(records.next().is_none());
    }

    #[test]
    fn bytes_that_are_no_batch_end_it_with_an_error() {
        let mut run = stored(0, &["a"], 0);
        run.extend(b"junk");
        let mut records = decode(run.into(), Offset(0));
        assert!(records.next().unwrap().is_ok());
        assert_eq!(records.next().unwrap().unwrap_err().reason(), Reason::DataCorrupt);
        assert!(records.next().is_none());
    }
}
