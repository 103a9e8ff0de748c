//! A simulated machine: a disk that tears, fills up and fails, a clock that stands still, and
//! background work in seeded order. One seed is one identical run.
//!
//! A program that takes its [`Env`] from a [`Sim`] runs on one thread, without real time and real
//! files. A test lets it work, takes the power away, and looks at what is left:
//!
//! ```
//! use std::io::IoSlice;
//! use std::path::Path;
//! use logmill_log::env::OpenMode;
//! use logmill_log::sim::Sim;
//!
//! # fn main() -> std::io::Result<()> {
//! let mut sim = Sim::new(7);
//! let env = sim.env();
//! let file = env.fs.open(Path::new("/note"), OpenMode::CreateNew)?;
//! file.write_at(&[IoSlice::new(b"said")], 0)?;
//! file.sync_data()?;
//! env.fs.sync_dir(Path::new("/"))?;
//!
//! let env = sim.crash();
//! let file = env.fs.open(Path::new("/note"), OpenMode::Read)?;
//! assert_eq!(file.status()?.len, 4);
//! # Ok(())
//! # }
//! ```
//!
//! A seed repeats a run only if the program leaves nothing else to chance: no threads, no clock
//! but the [`Env`]'s, no order out of a `HashMap`.

mod calls;
mod clock;
mod disk;
mod fault_fs;
mod machine;
mod random;
mod rule;
mod scheduler;

use std::sync::Arc;

pub use clock::SimClock;
pub use fault_fs::FaultFs;
pub use random::SimRandom;
pub use rule::{Fault, Op, Rule};
pub use scheduler::SeededScheduler;

use crate::env::Env;

/// A simulated machine and the seed that drives it.
///
/// ```
/// use logmill_log::sim::Sim;
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), logmill_log::Error> {
/// let mut sim = Sim::new(7);
/// let log = Log::open("/data", SetOptions::new(sim.env()), LogOptions::default())?;
/// let id = log.id();
///
/// let env = sim.crash(); // the power goes; what `log` was can do nothing any more
/// let log = Log::open("/data", SetOptions::new(env), LogOptions::default())?;
/// assert_eq!(log.id(), id);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct Sim {
    /// The disk and its faults. It stays the same over crashes.
    pub fs: FaultFs,
    /// The time. It stays the same over crashes.
    pub clock: SimClock,
    /// The background work of the program that runs now. A crash replaces it.
    pub scheduler: Arc<SeededScheduler>,
    random: SimRandom,
}

impl Sim {
    /// A machine with an empty disk.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let random = SimRandom::new(seed);
        let clock = SimClock::new();
        let fs = FaultFs::new(clock.clone(), random.fork());
        let scheduler = Arc::new(SeededScheduler::new(clock.clone(), random.fork()));
        Self { fs, clock, scheduler, random }
    }

    /// What a program needs to run on this machine, until the next crash or kill.
    #[must_use]
    pub fn env(&self) -> Env {
        Env {
            fs: self.fs.mount(),
            clock: Arc::new(self.clock.clone()),
            random: Arc::new(self.random.fork()),
            scheduler: Arc::clone(&self.scheduler) as _,
        }
    }

    /// The power goes and comes back: see [`FaultFs::crash`]. Tasks that wait are dropped, and
    /// what is left of the program can do nothing any more. The environment returned is over the
    /// same disk.
    pub fn crash(&mut self) -> Env {
        self.fs.crash();
        self.restart()
    }

    /// The program is killed, the machine runs on: see [`FaultFs::kill`].
    pub fn kill(&mut self) -> Env {
        self.fs.kill();
        self.restart()
    }

    /// A generator for the workload of a test, seeded from this machine's.
    #[must_use]
    pub fn random(&self) -> SimRandom {
        self.random.fork()
    }

    fn restart(&mut self) -> Env {
        // After the disk: what the tasks own may still call it in its `Drop`.
        self.scheduler.close();
        self.scheduler = Arc::new(SeededScheduler::new(self.clock.clone(), self.random.fork()));
        self.env()
    }
}
