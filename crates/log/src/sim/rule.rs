//! Which calls fail, and how.

use std::time::Duration;

use super::SimRandom;

/// The calls to a file system, by kind.
///
/// ```
/// use logmill_log::sim::Op;
///
/// assert!(Op::SyncData.changes(), "it changes what lasts");
/// assert!(!Op::Read.changes());
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Op {
    /// `Fs::open` of a file that exists.
    Open,
    /// `Fs::open` of a new file.
    Create,
    /// `Fs::list`.
    List,
    /// `Fs::create_dir`.
    CreateDir,
    /// `Fs::rename`; its path is the old name.
    Rename,
    /// `Fs::remove_file`.
    RemoveFile,
    /// `Fs::remove_dir`.
    RemoveDir,
    /// `Fs::sync_dir`.
    SyncDir,
    /// `Fs::lock`.
    Lock,
    /// `Fs::space`.
    Space,
    /// `File::read_at`.
    Read,
    /// `File::write_at`.
    Write,
    /// `File::sync_data`.
    SyncData,
    /// `File::set_len`.
    SetLen,
    /// `File::status`.
    Status,
    /// `File::map`.
    Map,
    /// `Map::populate`.
    Populate,
}

impl Op {
    pub(super) const COUNT: usize = Self::Populate as usize + 1;

    /// Whether a call of this kind can change the disk. Syncs do: they change what lasts.
    #[must_use]
    pub fn changes(self) -> bool {
        match self {
            Self::Create | Self::CreateDir | Self::Rename | Self::RemoveFile | Self::RemoveDir => true,
            Self::SyncDir | Self::Lock | Self::Write | Self::SyncData | Self::SetLen => true,
            Self::Open | Self::List | Self::Space | Self::Read => false,
            Self::Status | Self::Map | Self::Populate => false,
        }
    }
}

/// What happens instead of success. A call that fails changes nothing, syncs excepted: see
/// [`FaultFs`](super::FaultFs).
///
/// ```
/// use std::path::Path;
/// use logmill_log::env::{Fs, OpenMode};
/// use logmill_log::sim::{Fault, Op, Rule, Sim};
///
/// let sim = Sim::new(1);
/// sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Create));
/// let full = sim.fs.open(Path::new("/file"), OpenMode::CreateNew).map(drop).unwrap_err();
/// assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
/// assert!(sim.fs.open(Path::new("/file"), OpenMode::CreateNew).is_ok(), "only once");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The error of a broken device (EIO).
    Io,
    /// The error of a full device (ENOSPC), `io::ErrorKind::StorageFull`.
    NoSpace,
    /// A read or write transfers at most this many bytes, but at least one. Other calls succeed.
    Short(usize),
    /// The call succeeds after this time has passed on the simulated clock. Nothing else runs
    /// meanwhile.
    Stall(Duration),
}

/// A rule for [`FaultFs::inject`](super::FaultFs::inject): a fault and the calls that it strikes,
/// which are the next call of any kind to any path unless the rule says otherwise.
///
/// ```
/// use logmill_log::sim::{Fault, Op, Rule};
///
/// // The third sync of a segment fails, and the fourth.
/// let rule = Rule::new(Fault::Io).on(Op::SyncData).path("*.log").nth(3).times(2);
/// # let _ = rule;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Rule {
    fault: Fault,
    ops: Vec<Op>,
    pattern: String,
    skip: u64,
    left: u64,
    one_in: u64,
}

impl Rule {
    /// This fault, at the next call.
    pub fn new(fault: Fault) -> Self {
        Self { fault, ops: Vec::new(), pattern: "*".to_owned(), skip: 0, left: 1, one_in: 1 }
    }

    /// Only calls of this kind, or of one of these kinds when said more than once.
    pub fn on(mut self, op: Op) -> Self {
        self.ops.push(op);
        self
    }

    /// Only calls to these paths. `*` stands for any characters, `/` among them. A call to an
    /// open file has the path that the file was opened by.
    pub fn path(mut self, pattern: impl Into<String>) -> Self {
        self.pattern = pattern.into();
        self
    }

    /// From the `n`-th such call on; the first is 1.
    pub fn nth(mut self, n: u64) -> Self {
        self.skip = n.saturating_sub(1);
        self
    }

    /// So many times, then never again.
    pub fn times(mut self, n: u64) -> Self {
        self.left = n;
        self
    }

    /// Until [`FaultFs::clear_rules`](super::FaultFs::clear_rules).
    pub fn always(self) -> Self {
        self.times(u64::MAX)
    }

    /// Only one in `n` such calls on average, which ones is up to the seed.
    pub fn one_in(mut self, n: u64) -> Self {
        self.one_in = n;
        self
    }

    /// Whether this call is struck, and by what.
    pub(super) fn strike(&mut self, op: Op, path: &str, random: &SimRandom) -> Option<Fault> {
        if self.left == 0 || !(self.ops.is_empty() || self.ops.contains(&op)) || !glob(&self.pattern, path) {
            return None;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return None;
        }
        if self.one_in > 1 && !random.one_in(self.one_in) {
            return None;
        }
        self.left -= 1;
        Some(self.fault)
    }
}

/// Whether `pattern`, in which `*` stands for any characters, matches all of `text`.
fn glob(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((before, after)) => text.strip_prefix(before).is_some_and(|rest| {
            (0..=rest.len()).any(|skip| rest.get(skip..).is_some_and(|rest| glob(after, rest)))
        }),
    }
}
