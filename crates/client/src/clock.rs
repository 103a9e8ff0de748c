//! The wall clock, which records without a time of their own and produce requests are stamped with.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use logmill_record::TimestampMs;
use tokio::time::Instant;

#[derive(Clone)]
pub(crate) struct Clock(Arc<dyn Fn() -> TimestampMs + Send + Sync>);

impl Clock {
    pub(crate) fn new(now: impl Fn() -> TimestampMs + Send + Sync + 'static) -> Clock {
        Clock(Arc::new(now))
    }

    pub(crate) fn system() -> Clock {
        Clock::new(system_now)
    }

    pub(crate) fn now(&self) -> TimestampMs {
        (self.0)()
    }
}

/// A clock before 1970 reads as 1970: such a machine has lost its time altogether.
fn system_now() -> TimestampMs {
    #[expect(
        clippy::disallowed_methods,
        reason = "the default of the clock that is injected everywhere else"
    )]
    let since_epoch = std::time::SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    TimestampMs(i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX))
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Clock")
    }
}

/// So long from now; "never" is some thirty years.
pub(crate) fn deadline_in(limit: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 24 * 60 * 60);
    Instant::now() + limit.min(FAR)
}
