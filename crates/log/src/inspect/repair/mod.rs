//! Mending a data directory: first a plan, that changes nothing, then, if the owner wants it, the
//! work.
//!
//! Offsets stay as they are. Where records are gone, an empty batch takes their offsets, so that
//! what follows keeps its own, readers go on behind it, and no offset is given out twice. What is
//! taken out of a segment is saved beside it first. Every file is replaced whole and in an order in
//! which a crash leaves a directory that opens no worse than before, and that a new plan finishes.

mod execute;
mod files;
mod plan;
mod rewrite;
mod states;

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use logmill_record::Offset;

use self::plan::Action;
use super::directory::Directory;
use super::finding::Progress;
use super::verify::{Report, verify_in};
use crate::env::Env;
use crate::error::{Error, ErrorKind, InWords};
use crate::format::checkpoint::Checkpoint;
use crate::format::meta::check_owner;
use crate::set::WithReserve;

/// One thing that a repair does.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{RepairStep, plan_repair};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// # #[expect(clippy::disallowed_methods, reason = "damage by hand")]
/// std::fs::write(dir.path().join("checkpoint"), "not what was written")?;
/// let plan = plan_repair(&Env::real(), dir.path(), &mut |_| ())?;
/// let step: &RepairStep = &plan.steps()[0];
/// assert!(step.file.ends_with("checkpoint") && step.gone.is_empty());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RepairStep {
    /// The log's path below the data directory; `None` for the directory's own files.
    pub log: Option<PathBuf>,
    /// The file that is written.
    pub file: PathBuf,
    /// What is done.
    pub what: String,
    /// The offsets whose records are gone, in order.
    pub gone: Vec<Range<Offset>>,
}

impl fmt::Display for RepairStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.what)?;
        for (index, gone) in self.gone.iter().enumerate() {
            let before = if index == 0 { "; gone:" } else { "," };
            write!(f, "{before} {}", InWords(gone))?;
        }
        Ok(())
    }
}

/// What a repair of a data directory would do. It holds the directory's lock.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::plan_repair;
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// # #[expect(clippy::disallowed_methods, reason = "damage by hand")]
/// std::fs::write(dir.path().join("checkpoint"), "not what was written")?;
///
/// let plan = plan_repair(&Env::real(), dir.path(), &mut |_| ())?;
/// for step in plan.steps() {
///     println!("{step}");
/// }
/// plan.execute()?;
/// Log::open(dir.path(), SetOptions::default(), LogOptions::default())?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "a plan changes nothing until it is executed"]
pub struct Plan {
    env: Env,
    directory: Directory,
    report: Report,
    steps: Vec<RepairStep>,
    actions: Vec<Action>,
    checkpoint: Checkpoint,
    not_mended: Vec<(PathBuf, Error)>,
}

/// Reads every byte of the data directory `dir`, as [`verify`](super::verify()) does, and plans how
/// to mend what is damaged. Changes nothing.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{plan_repair};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let plan = plan_repair(&Env::real(), dir.path(), &mut |_| ())?;
/// assert!(plan.steps().is_empty(), "there is nothing to mend");
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`verify`](super::verify()); `Invalid` if nothing but a name says that there is a log: it could be anybody's
/// file.
pub fn plan_repair(
    env: &Env,
    dir: impl AsRef<Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Plan, Error> {
    let directory = Directory::open(&*env.fs, dir.as_ref())?;
    let seen = verify_in(&*env.fs, &directory, progress)?;
    directory.refuse_unmarked(&*env.fs)?;
    let planned = plan::plan(env, &directory.path, &seen);
    let (steps, actions) = planned.steps.into_iter().unzip();
    let (report, checkpoint, not_mended) = (seen.report, planned.checkpoint, planned.not_mended);
    Ok(Plan { env: env.clone(), directory, report, steps, actions, checkpoint, not_mended })
}

impl Plan {
    /// What was found.
    #[must_use]
    pub fn report(&self) -> &Report {
        &self.report
    }

    /// What would be done; nothing if there is nothing to mend.
    #[must_use]
    pub fn steps(&self) -> &[RepairStep] {
        &self.steps
    }

    /// The logs that are damaged and stay as they are, by their paths below the data directory, and why: more
    /// offsets are gone than can be bridged.
    #[must_use]
    pub fn not_mended(&self) -> &[(PathBuf, Error)] {
        &self.not_mended
    }

    /// Gives each log whose `meta` is made again what its owner kept with it, where `owner_of` knows that
    /// by the log's path below the data directory; of the others it is empty.
    ///
    /// ```
    /// use logmill_log::env::Env;
    /// use logmill_log::inspect::plan_repair;
    /// use logmill_log::{Log, LogOptions, SetOptions};
    ///
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let dir = tempfile::tempdir()?;
    /// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
    /// let plan = plan_repair(&Env::real(), dir.path(), &mut |_| ())?;
    /// plan.with_owners(|log| log.ends_with("orders").then(|| "currency=EUR".into()))?.execute()?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// `Invalid` if that is more than an owner can keep.
    pub fn with_owners(mut self, owner_of: impl Fn(&Path) -> Option<Bytes>) -> Result<Self, Error> {
        let is_new = |path: &Path| self.report.logs.iter().any(|log| log.path == path && log.id.is_none());
        for (step, action) in self.steps.iter_mut().zip(&mut self.actions) {
            let (Action::Meta { meta, .. }, Some(log)) = (action, &step.log) else { continue };
            let Some(owner) = owner_of(log).filter(|_| is_new(log)) else { continue };
            check_owner(&owner)?;
            meta.owner = owner;
            step.what =
                "made again, with a new identity and what its owner keeps with it; records below its start \
                         may be back"
                    .to_owned();
        }
        Ok(self)
    }

    /// Does it, step by step, each of them on disk before the next begins. Where there is no space,
    /// it takes what a set has left [in reserve](crate::SetOptions::reserve_bytes).
    ///
    /// # Errors
    ///
    /// `Full`, `Denied`, `Io`: what was done until then is done, and a new plan has the rest.
    pub fn execute(self) -> Result<(), Error> {
        let dir = &self.directory.path;
        let fs = WithReserve::left_in(dir, self.env.fs);
        // The plan goes by the names that there are. A killed process may have left one that a power
        // cut would take back: the segment before it would be the newest again, and its damage a torn
        // write.
        for dir in self.actions.iter().filter_map(Action::dir).collect::<BTreeSet<_>>() {
            fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
        }
        for action in &self.actions {
            let act = || execute::execute(&*fs, dir, action, &self.checkpoint);
            match act() {
                // Each can be done again from its beginning, as after a crash.
                Err(error) if error.kind() == ErrorKind::Full && fs.make_room() => act()?,
                done => done?,
            }
        }
        Ok(())
    }
}
