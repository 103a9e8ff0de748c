//! Time, injected: what an idle partition and the end of a step are measured with.

use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use logmill_record::TimestampMs;

/// Where the engine's time comes from. Event time never comes from here, only silence and delay do.
pub(crate) trait Clock: fmt::Debug + Send + Sync {
    /// The wall time. It can jump, also backwards.
    fn now(&self) -> TimestampMs;

    /// Time since some fixed instant. It never goes back.
    fn monotonic(&self) -> Duration;
}

/// The machine's clocks.
#[derive(Debug)]
pub(crate) struct SystemClock {
    started: Instant,
}

impl SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam itself")]
    pub(crate) fn new() -> Self {
        Self { started: Instant::now() }
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
