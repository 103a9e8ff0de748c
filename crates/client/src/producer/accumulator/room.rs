//! How much goes into a batch: as it is filled, and as it is sent.

use logmill_record::Compression;

/// What a batch may not pass as it is sent, and whose limit that is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::producer) enum MostBytes {
    Node(usize),
    Topic(usize),
}

impl MostBytes {
    /// The narrower of the two, as far as they are known.
    pub(super) fn of(node: Option<usize>, topic: Option<usize>) -> Option<MostBytes> {
        match (node, topic) {
            (Some(node), Some(topic)) if node < topic => Some(MostBytes::Node(node)),
            (_, Some(topic)) => Some(MostBytes::Topic(topic)),
            (Some(node), None) => Some(MostBytes::Node(node)),
            (None, None) => None,
        }
    }

    pub(in crate::producer) fn bytes(self) -> usize {
        match self {
            MostBytes::Node(bytes) | MostBytes::Topic(bytes) => bytes,
        }
    }
}

/// How a batch is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Room {
    /// What it is filled up to, before it is compressed. A larger record has a batch of its own.
    pub(super) fill_bytes: usize,
    pub(super) compression: Compression,
}

impl Room {
    /// Records that do not shrink become a little larger when they are compressed, by a sixth at most: several in a
    /// batch must not be refused for it where each alone would not.
    pub(super) fn new(fill_bytes: usize, most: Option<MostBytes>, compression: Compression) -> Room {
        let most = most.map_or(usize::MAX, MostBytes::bytes);
        let room = match compression {
            Compression::None => most,
            _ => most.saturating_sub(128) / 6 * 5,
        };
        Room { fill_bytes: fill_bytes.min(room), compression }
    }
}

#[cfg(test)]
mod tests {
    use logmill_record::{BatchBuilder, BatchOptions, NewRecord, TimestampMs};

    use super::*;

    #[test]
    fn a_full_batch_stays_within_the_limit_whatever_its_codec_makes_of_it() {
        use Compression::{Gzip, Lz4, None, Snappy, Zstd};
        for compression in [None, Gzip, Snappy, Lz4, Zstd] {
            for most in [500, 2_000, 33_000, 66_000, 1_048_588, 8_388_608] {
                let room = Room::new(usize::MAX, Some(MostBytes::Topic(most)), compression);
                let mut builder = BatchBuilder::with_options(BatchOptions::new().compression(compression), 0);
                let value = vec![0; room.fill_bytes - builder.size_bytes() - 13];
                let record = NewRecord {
                    timestamp: TimestampMs(0),
                    key: Option::None,
                    value: Some(&value),
                    headers: &[],
                };
                builder.push(&record).unwrap();
                assert!(builder.size_bytes() + 13 >= room.fill_bytes, "{compression} {most}: it is full");
                assert!(
                    builder.max_size_bytes() <= most,
                    "{compression} {most}: {}",
                    builder.max_size_bytes()
                );
            }
        }
    }

    #[test]
    fn the_narrower_limit_holds() {
        assert_eq!(MostBytes::of(Some(5), Some(6)), Some(MostBytes::Node(5)));
        assert_eq!(MostBytes::of(Some(6), Some(5)), Some(MostBytes::Topic(5)));
        assert_eq!(MostBytes::of(Some(6), None), Some(MostBytes::Node(6)));
        assert_eq!(MostBytes::of(None, None), None);
        let tiny = Room::new(1_000, Some(MostBytes::Topic(10)), Compression::Gzip);
        assert_eq!(tiny.fill_bytes, 0, "each record has a batch of its own");
    }
}
