//! The seams between the log and the machine: file system, clock, randomness and scheduling.
//!
//! Nothing in this crate, and nothing above it that shares its [`Env`], reads the time, draws a
//! random number, touches a file or starts a thread by any other way. [`Env::real`] is the
//! machine; the `sim` feature has an environment in which one seed is one identical run, and in
//! which disks tear, fill up and fail.

mod block_on;
mod clock;
mod fs;
mod map;
mod random;
mod scheduler;
mod sleep;
mod std_fs;
mod thread_pool;
mod within;

use std::sync::Arc;

pub use block_on::block_on;
pub use clock::{Clock, SystemClock};
pub use fs::{Entry, File, FileStatus, Fs, Lock, Map, OpenMode, Space};
pub use random::{OsRandom, Random};
pub use scheduler::{Scheduler, Task, Wanted, Work};
pub use sleep::{Sleep, sleep};
pub use std_fs::StdFs;
pub use thread_pool::ThreadPool;
use uuid::Uuid;
pub(crate) use within::within;

/// Everything that the log needs from the machine it runs on. Cheap to clone.
///
/// ```
/// use logmill_log::env::Env;
///
/// let env = Env::real();
/// assert!(env.clock.now().0 > 0);
/// assert_ne!(env.new_uuid(), env.new_uuid());
/// ```
#[derive(Clone, Debug)]
pub struct Env {
    /// Files and directories.
    pub fs: Arc<dyn Fs>,
    /// Wall time and monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Random bytes.
    pub random: Arc<dyn Random>,
    /// Who runs background work.
    pub scheduler: Arc<dyn Scheduler>,
}

impl Env {
    /// The machine itself: its file system, its clocks, its random source, and threads that are
    /// started when there is work and joined when the last handle goes.
    #[must_use]
    pub fn real() -> Self {
        Self {
            fs: Arc::new(StdFs),
            clock: Arc::new(SystemClock::new()),
            random: Arc::new(OsRandom),
            scheduler: Arc::new(ThreadPool::new()),
        }
    }

    /// A new random (version 4) UUID.
    #[must_use]
    pub fn new_uuid(&self) -> Uuid {
        let mut bytes = [0; 16];
        self.random.fill(&mut bytes);
        uuid::Builder::from_random_bytes(bytes).into_uuid()
    }
}
