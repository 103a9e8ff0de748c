//! How far the opening of a broker is, for who waits for it.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

use logmill_log::ScanProgress;
use parking_lot::Mutex;

/// How far the opening of a broker is. See [`Config::on_open`](crate::Config::on_open).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OpenProgress {
    /// Partitions that are open, or could not be opened.
    pub done: usize,
    /// All that there are.
    pub total: usize,
    /// Bytes that had to be read, to within 16 MiB for each partition: none after a clean stop.
    pub scanned_bytes: u64,
}

/// Hears how far the opening of a broker is, on the threads that open it, which it holds up.
///
/// ```
/// use logmill_broker::{Broker, Config, OnOpen};
///
/// # fn main() -> Result<(), logmill_broker::OpenError> {
/// # let dir = tempfile::tempdir().unwrap();
/// let on_open = OnOpen::new(|so_far| eprintln!("{} of {} partitions", so_far.done, so_far.total));
/// let broker = Broker::open(Config { on_open: Some(on_open), ..Config::new(dir.path()) })?;
/// # broker.close().unwrap();
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct OnOpen(Arc<dyn Fn(OpenProgress) + Send + Sync>);

impl OnOpen {
    /// Calls `hear` after each partition, and after every 16 MiB that one of them has to read.
    #[must_use]
    pub fn new(hear: impl Fn(OpenProgress) + Send + Sync + 'static) -> Self {
        Self(Arc::new(hear))
    }
}

impl fmt::Debug for OnOpen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnOpen")
    }
}

/// Counts what has been opened. The lock is a leaf.
#[derive(Debug)]
pub(crate) struct Opening {
    on_open: Option<OnOpen>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    so_far: OpenProgress,
    scanned: BTreeMap<PathBuf, u64>,
}

impl Opening {
    pub(crate) fn new(on_open: Option<OnOpen>) -> Arc<Self> {
        Arc::new(Self { on_open, state: Mutex::default() })
    }

    pub(crate) fn begin(&self, total: usize) {
        self.note(|state| state.so_far.total = total);
    }

    pub(crate) fn opened(&self) {
        self.note(|state| state.so_far.done += 1);
    }

    pub(crate) fn scanned(&self, log: ScanProgress<'_>) {
        self.note(|state| {
            state.scanned.insert(log.log.to_owned(), log.scanned_bytes);
            state.so_far.scanned_bytes = state.scanned.values().sum();
        });
    }

    fn note(&self, change: impl FnOnce(&mut State)) {
        let Some(OnOpen(hear)) = &self.on_open else { return };
        let so_far = {
            let mut state = self.state.lock();
            change(&mut state);
            state.so_far
        };
        hear(so_far);
    }
}
