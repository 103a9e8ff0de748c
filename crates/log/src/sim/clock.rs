//! Time that passes only when told to.

use std::sync::Arc;
use std::time::Duration;

use logmill_record::TimestampMs;
use parking_lot::Mutex;

use crate::env::Clock;

/// 2026-01-01T00:00:00Z.
const START_MS: i64 = 1_767_225_600_000;

/// A virtual clock: it stands still until somebody advances it. Clones share the time.
///
/// ```
/// use std::time::Duration;
/// use logmill_log::env::Clock;
/// use logmill_log::sim::SimClock;
///
/// let clock = SimClock::new();
/// let before = clock.now();
/// clock.advance(Duration::from_secs(2));
/// assert_eq!(clock.now().0 - before.0, 2_000);
/// assert_eq!(clock.monotonic(), Duration::from_secs(2));
/// ```
#[derive(Clone, Debug, Default)]
pub struct SimClock(Arc<Mutex<Times>>);

#[derive(Debug, Default)]
struct Times {
    monotonic: Duration,
    /// How far the wall clock has been set off from the monotonic time.
    jumped_ms: i64,
}

impl SimClock {
    /// A clock that shows the start of 2026; its monotonic time is zero.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Lets time pass, on the wall and monotonic.
    pub fn advance(&self, by: Duration) {
        let mut times = self.0.lock();
        times.monotonic = times.monotonic.saturating_add(by);
    }

    /// Sets the wall time forward, or back where negative. The monotonic time stays.
    pub fn jump(&self, by_ms: i64) {
        let mut times = self.0.lock();
        times.jumped_ms = times.jumped_ms.saturating_add(by_ms);
    }

    /// Lets time pass until this monotonic time, unless it is past already.
    pub(super) fn advance_to(&self, monotonic: Duration) {
        let mut times = self.0.lock();
        times.monotonic = times.monotonic.max(monotonic);
    }
}

impl Clock for SimClock {
    fn now(&self) -> TimestampMs {
        let times = self.0.lock();
        let passed_ms = i64::try_from(times.monotonic.as_millis()).unwrap_or(i64::MAX);
        TimestampMs(START_MS.saturating_add(times.jumped_ms).saturating_add(passed_ms))
    }

    fn monotonic(&self) -> Duration {
        self.0.lock().monotonic
    }
}
