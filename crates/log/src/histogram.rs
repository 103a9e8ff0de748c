//! How long something took, counted in buckets: small, fixed in size, and without a lock.

use std::fmt;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Buckets to each doubling of the time: a quantile is at most a quarter too high.
const STEPS: u32 = 4;
/// From one microsecond up to 2^32 of them, more than an hour.
const DOUBLINGS: u32 = 32;
const BUCKETS: usize = (STEPS * DOUBLINGS) as usize;

/// A histogram of durations as it was at some moment.
///
/// ```
/// use std::time::Duration;
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// let syncs = log.set().stats().sync_time;
/// println!("{} syncs, p99 {:?}", syncs.count(), syncs.quantile(0.99));
/// assert_eq!(syncs.quantile(0.5), None); // nothing was appended
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Histogram {
    buckets: Box<[u64]>,
    sum: Duration,
}

impl Histogram {
    /// How many durations it holds.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        self.sum
    }

    /// The duration that the fraction `q` (0 to 1) of them did not exceed, rounded up by at most a
    /// quarter; `None` if it holds none.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<Duration> {
        let count = self.count();
        // Exact for any number of events that a process lives to see.
        #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let rank = ((count as f64 * q.clamp(0.0, 1.0)).ceil() as u64).max(1);
        let mut seen = 0;
        self.buckets().find_map(|(most, events)| {
            seen += events;
            (seen >= rank).then_some(most)
        })
    }

    /// Each bucket that holds any: the longest duration that falls into it, and how many did.
    pub fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> + '_ {
        let held = self.buckets.iter().copied().enumerate().filter(|(_, events)| *events > 0);
        held.map(|(bucket, events)| (most_of(bucket), events))
    }
}

impl fmt::Debug for Histogram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Histogram")
            .field("count", &self.count())
            .field("p50", &self.quantile(0.5))
            .field("p99", &self.quantile(0.99))
            .finish_non_exhaustive()
    }
}

/// A histogram that is being counted into. Its kilobyte is taken with the first duration: of ten
/// thousand logs that are open most may never be written.
#[derive(Debug, Default)]
pub(crate) struct Recorder {
    buckets: OnceLock<Box<[AtomicU64]>>,
    sum_ns: AtomicU64,
}

impl Recorder {
    pub(crate) fn record(&self, took: Duration) {
        let buckets = self.buckets.get_or_init(|| (0..BUCKETS).map(|_| AtomicU64::new(0)).collect());
        buckets[bucket_of(took)].fetch_add(1, Ordering::Relaxed);
        let ns = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.sum_ns.fetch_add(ns, Ordering::Relaxed);
    }

    pub(crate) fn snapshot(&self) -> Histogram {
        Histogram {
            buckets: self
                .buckets
                .get()
                .map(|buckets| buckets.iter().map(|bucket| bucket.load(Ordering::Relaxed)).collect())
                .unwrap_or_default(),
            sum: Duration::from_nanos(self.sum_ns.load(Ordering::Relaxed)),
        }
    }
}

/// Bucket `n` holds what takes longer than 2^(n/4) and at most 2^((n+1)/4) microseconds, with the
/// quarters spaced evenly; the first also holds what is shorter, the last what is longer.
fn bucket_of(took: Duration) -> usize {
    // Rounded up, so that a bucket's bound is never below what it holds.
    let us = u64::try_from(took.as_nanos().div_ceil(1_000)).unwrap_or(u64::MAX).max(1);
    let above = us - 1;
    let Some(doubling) = above.checked_ilog2() else { return 0 };
    let within = above - (1 << doubling);
    let step = (u128::from(within) * u128::from(STEPS)) >> doubling;
    let bucket = doubling as usize * STEPS as usize + usize::try_from(step).unwrap_or(0);
    bucket.min(BUCKETS - 1)
}

fn most_of(bucket: usize) -> Duration {
    let (doubling, step) = (bucket / STEPS as usize, (bucket % STEPS as usize) as u64 + 1);
    let start = 1u64 << doubling;
    // A quarter of a short doubling is less than a microsecond: what falls there is whole.
    Duration::from_micros(start + (start * step).div_ceil(u64::from(STEPS)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_first_bucket_that_reaches_it() {
        let bounds: Vec<u64> = (0..2_000)
            .chain((11..31).flat_map(|bit| {
                let at = 1u64 << bit;
                [at - 1, at, at + 1, at + at / 4, at + at / 4 + 1, at + at / 2, at + at / 2 + 1]
            }))
            .collect();
        for us in bounds {
            let took = Duration::from_micros(us);
            let bucket = bucket_of(took);
            assert!(most_of(bucket) >= took, "{took:?} is in a bucket up to {:?}", most_of(bucket));
            let too_high = most_of(bucket).saturating_sub(took);
            assert!(too_high <= took.max(Duration::from_micros(8)) / 4, "{took:?}: {:?}", most_of(bucket));
        }
    }

    #[test]
    fn a_quantile_is_at_most_a_quarter_too_high() {
        let recorder = Recorder::default();
        assert_eq!(recorder.snapshot().quantile(0.5), None);
        (1..=1_000).for_each(|ms| recorder.record(Duration::from_millis(ms)));
        let histogram = recorder.snapshot();
        assert_eq!(histogram.count(), 1_000);
        assert_eq!(histogram.sum(), Duration::from_millis(500_500));
        for (q, exact_ms) in [(0.0, 1.0), (0.5, 500.0), (0.99, 990.0), (1.0, 1_000.0)] {
            let found_ms = histogram.quantile(q).unwrap().as_secs_f64() * 1_000.0;
            assert!((exact_ms..=exact_ms * 1.25).contains(&found_ms), "{q}: {found_ms}");
        }
    }

    #[test]
    fn no_duration_is_too_short_or_too_long() {
        let recorder = Recorder::default();
        recorder.record(Duration::ZERO);
        recorder.record(Duration::MAX);
        assert_eq!(recorder.snapshot().count(), 2);
    }
}
