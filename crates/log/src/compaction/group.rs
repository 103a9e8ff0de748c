//! Which neighbouring segments become one.
//!
//! Compaction makes segments small, and a log that is compacted for years would be a heap of
//! files. A group is worth merging if no member is more than half of it, so that what is written
//! again comes to lie in a segment twice as large; or if the last member is the largest, which
//! happens to it once: what is older never gets larger. Then each segment of a log is larger than
//! all behind it together, as far as they would fit into one, and their number grows as the
//! logarithm of the log's size.
//!
//! Where retention takes segments, by age or by size, a merged one is no more than a tenth of what
//! is to be kept: a segment goes as a whole, when its youngest record may.

use std::ops::Range;

use logmill_record::{Offset, TimestampMs};

use crate::format::replacement::MOST_INPUTS;
use crate::options::LogOptions;

/// A segment that may be merged with the next one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) bytes: u64,
    pub(crate) first_appended_at: TimestampMs,
    pub(crate) last_appended_at: TimestampMs,
}

/// How large a merged segment gets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Most {
    bytes: u64,
    /// How much later its last record was appended than its first.
    span_ms: i64,
}

impl Most {
    pub(crate) fn new(options: &LogOptions) -> Self {
        let by_size = options.retention_bytes.map_or(u64::MAX, |bytes| bytes / 10);
        let by_age = options.retention_age.map_or(u128::MAX, |age| age.as_millis() / 10);
        Self { bytes: options.segment_bytes.min(by_size), span_ms: i64::try_from(by_age).unwrap_or(i64::MAX) }
    }
}

/// The first group worth merging: of those that begin at the same segment, the longest.
pub(crate) fn next_group(segments: &[Candidate], most: Most) -> Option<Range<usize>> {
    (0..segments.len()).find_map(|first| {
        let count = group_len(&segments[first..], most);
        (count > 1).then(|| first..first + count)
    })
}

/// How many of the first segments are worth merging into one.
fn group_len(segments: &[Candidate], most: Most) -> usize {
    let (mut bytes, mut largest, mut count) = (0, 0, 0);
    for (index, segment) in segments.iter().take(MOST_INPUTS).enumerate() {
        bytes += segment.bytes;
        largest = largest.max(segment.bytes);
        let span_ms = segment.last_appended_at.0.saturating_sub(segments[0].first_appended_at.0);
        // What an index can say of a segment.
        let offsets = segment.end.get() - segments[0].base.get();
        if bytes > most.bytes || span_ms > most.span_ms || offsets > u64::from(u32::MAX) {
            break;
        }
        if bytes >= 2 * largest || segment.bytes == largest {
            count = index + 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn segments(sizes: &[u64]) -> Vec<Candidate> {
        let segment = |(n, &bytes)| {
            let at = TimestampMs(1_000 * i64::try_from(n).expect("a small number"));
            let (base, end) = (Offset(n), Offset(n + 1));
            Candidate { base, end, bytes, first_appended_at: at, last_appended_at: at }
        };
        (0..).zip(sizes).map(segment).collect()
    }

    fn most(bytes: u64) -> Most {
        Most { bytes, span_ms: i64::MAX }
    }

    #[test]
    fn small_neighbours_are_merged_and_a_large_one_is_not_written_again_for_them() {
        for (sizes, group) in [
            (&[][..], None),
            (&[5], None),
            (&[5, 5], Some(0..2)),
            (&[64, 1, 1, 1], Some(1..4)),
            (&[1, 1, 1, 64], Some(0..4)),
            (&[64, 1], None),
            (&[60, 60], None),
            (&[50, 50, 1], Some(0..2)),
            (&[9, 50, 48, 1], Some(0..2)),
        ] {
            assert_eq!(next_group(&segments(sizes), most(100)), group, "{sizes:?}");
        }
    }

    #[test]
    fn no_index_has_to_tell_more_offsets_than_it_can() {
        let mut far = segments(&[1, 1, 1]);
        far[2].end = Offset(1 << 32);
        assert_eq!(next_group(&far, most(100)), Some(0..2));
    }

    #[test]
    fn what_retention_is_to_take_is_not_merged_with_much_younger_or_much_more() {
        let options = LogOptions::default().segment_bytes(1_000);
        let by_age = options.retention_age(Some(Duration::from_secs(20)));
        assert_eq!(next_group(&segments(&[5; 9]), Most::new(&by_age)), Some(0..3), "two seconds of twenty");
        let by_size = options.retention_bytes(Some(300));
        assert_eq!(next_group(&segments(&[5; 9]), Most::new(&by_size)), Some(0..6), "30 bytes of 300");
        assert_eq!(next_group(&segments(&[5; 9]), Most::new(&options)), Some(0..9));
    }

    /// Merges until nothing is worth it; returns what is left, and the bytes that were written.
    fn merge_all(mut sizes: Vec<u64>, most_bytes: u64) -> (Vec<u64>, u64) {
        let mut written = 0;
        while let Some(group) = next_group(&segments(&sizes), most(most_bytes)) {
            let merged = sizes[group.clone()].iter().sum();
            written += merged;
            sizes.splice(group, [merged]);
        }
        (sizes, written)
    }

    #[cfg(feature = "sim")]
    #[test]
    fn a_log_that_grows_by_small_segments_keeps_few_of_them() {
        for seed in 0..200 {
            let random = crate::sim::Sim::new(seed).random();
            let (mut kept, mut total, mut written) = (Vec::new(), 0, 0);
            for _ in 0..random.below(300) {
                let size = 1 + random.below(1 << random.below(20));
                total += size;
                kept.push(size);
                let (left, by_merging) = merge_all(kept, u64::MAX);
                kept = left;
                written += by_merging;
            }
            assert_eq!(kept.iter().sum::<u64>(), total);
            let doublings = u64::from(u64::BITS - total.leading_zeros());
            assert!(kept.len() as u64 <= doublings, "seed {seed}: {} segments of {total} bytes", kept.len());
            assert!(written <= total * (doublings + 1), "seed {seed}: {written} bytes written for {total}");
        }
    }
}
