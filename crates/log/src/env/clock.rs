//! Time, injected.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use logmill_record::TimestampMs;

/// Where the time comes from.
///
/// ```
/// use logmill_log::env::{Clock, SystemClock};
///
/// let clock = SystemClock::new();
/// let before = clock.monotonic();
/// assert!(clock.now().0 > 1_700_000_000_000, "milliseconds since 1970");
/// assert!(clock.monotonic() >= before);
/// ```
pub trait Clock: fmt::Debug + Send + Sync {
    /// The wall time. It can jump, also backwards.
    fn now(&self) -> TimestampMs;

    /// Time since some fixed instant. It never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks; see [`Clock`].
///
/// ```
/// use logmill_log::env::{Clock, SystemClock};
///
/// println!("{} ms since 1970", SystemClock::new().now().0);
/// ```
#[derive(Debug)]
pub struct SystemClock {
    started: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts at zero now.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the seam itself")]
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam itself")]
    fn now(&self) -> TimestampMs {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        TimestampMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.started.elapsed()
    }
}
