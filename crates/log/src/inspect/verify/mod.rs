//! Reading every byte of a data directory and saying what is not as it was written.

mod data;
mod index;
mod log;
mod state;
mod whole;

pub(super) use data::DataLook;
pub(super) use log::{Look, MergeLook};

use std::path::{Path, PathBuf};

use bytes::Bytes;
use logmill_record::Offset;
use uuid::Uuid;

use super::directory::Directory;
use super::finding::{Finding, FindingKind, Progress, Severity};
use super::list::{SegmentListing, segments};
use crate::env::{Env, Fs};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::set_file::SetFile;
use crate::set::{CHECKPOINT, SET};

/// What a data directory looks like.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{Report, verify};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let report: Report = verify(&Env::real(), dir.path(), &mut |_| ())?;
/// assert!(!report.is_damaged() && report.clean);
/// for finding in &report.findings {
///     println!("{finding}");
/// }
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Report {
    /// The data directory.
    pub dir: PathBuf,
    /// Its identity; `None` if `set` cannot be read.
    pub id: Option<Uuid>,
    /// Whether it was closed cleanly.
    pub clean: bool,
    /// Its logs, by their paths.
    pub logs: Vec<LogReport>,
    /// What was found, in the order in which it was met.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether anything is damaged: data, or files that can be made again from it.
    #[must_use]
    pub fn is_damaged(&self) -> bool {
        self.findings.iter().any(|finding| finding.severity > Severity::Note)
    }

    /// How many findings are of this severity.
    #[must_use]
    pub fn count(&self, severity: Severity) -> usize {
        self.findings.iter().filter(|finding| finding.severity == severity).count()
    }
}

/// What a log of it holds, whole batches only.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{LogReport, verify};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let report = verify(&Env::real(), dir.path(), &mut |_| ())?;
/// let log: &LogReport = &report.logs[0];
/// assert_eq!((log.segments, log.batches, log.records), (1, 0, 0));
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct LogReport {
    /// Its path below the data directory; empty if it is the directory itself.
    pub path: PathBuf,
    /// Its identity; `None` if `meta` cannot be read.
    pub id: Option<Uuid>,
    /// What its owner keeps with it.
    pub owner: Option<Bytes>,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// The offset after the last whole batch.
    pub end_offset: Offset,
    /// Segment files.
    pub segments: usize,
    /// Bytes of segment files.
    pub bytes: u64,
    /// Whole batches.
    pub batches: u64,
    /// Records in them.
    pub records: u64,
}

/// Reads every byte of the data directory `dir` and reports what is damaged, calling `progress`
/// now and then. Changes nothing.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::{verify};
/// use logmill_log::{Log, LogOptions, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// # Log::open(dir.path(), SetOptions::default(), LogOptions::default())?.close()?;
/// let report = verify(&Env::real(), dir.path(), &mut |_| ())?;
/// assert!(!report.is_damaged(), "{:?}", report.findings);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// `NotFound`, `Denied`; `Invalid` if it is no data directory; `Locked` if somebody has it open;
/// `NewerFormat`; `Io` if the disk cannot be read. Damage is no error: it is in the report.
pub fn verify(env: &Env, dir: impl AsRef<Path>, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    let directory = Directory::open(&*env.fs, dir.as_ref())?;
    verify_in(&*env.fs, &directory, progress).map(|seen| seen.report)
}

/// What is known of a directory as a whole while its logs are looked at.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) set: Option<SetFile>,
    /// `None` if there should be one and it cannot be read.
    pub(super) checkpoint: Option<Checkpoint>,
}

impl Frame {
    fn clean(&self) -> bool {
        self.set.is_some_and(|set| set.clean)
    }
}

/// What a pass over a directory saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) report: Report,
    pub(super) frame: Frame,
    pub(super) looks: Vec<Look>,
}

/// [`verify`] in a directory that is held already.
pub(super) fn verify_in(
    fs: &dyn Fs,
    directory: &Directory,
    progress: &mut dyn FnMut(Progress),
) -> Result<Seen, Error> {
    let dir = &directory.path;
    let mut findings = Vec::new();
    let frame = read_frame(fs, dir, &mut findings)?;
    let mut listed = Vec::with_capacity(directory.found.logs.len());
    for path in &directory.found.logs {
        listed.push((path, segments(fs, &dir.join(path))?));
    }
    let total_bytes = listed.iter().flat_map(|(_, segments)| segments).map(|segment| segment.bytes).sum();
    let mut meter = Meter { done_bytes: 0, total_bytes, told: 0, tell: progress };
    meter.add(0);
    let mut looks = Vec::with_capacity(listed.len());
    for (path, segments) in listed {
        let view = log::View { fs, dir, below: path, frame: &frame, gaps_below: Offset::MAX, clean: false };
        looks.push(view.look(&segments, &mut findings, &mut meter)?);
    }
    whole::note_copies(&looks, dir, &mut findings);
    whole::note_lost_logs(dir, &frame, &looks, &mut findings);
    whole::note_strays(directory, &mut findings);
    let report = Report {
        dir: dir.clone(),
        id: frame.set.map(|set| set.id),
        clean: frame.clean(),
        logs: looks.iter().map(|look| look.report.clone()).collect(),
        findings,
    };
    Ok(Seen { report, frame, looks })
}

fn read_frame(fs: &dyn Fs, dir: &Path, findings: &mut Vec<Finding>) -> Result<Frame, Error> {
    let path = dir.join(SET);
    let read = atomic::read(fs, &path).and_then(|bytes| match bytes {
        Some(bytes) => SetFile::decode(&path, &bytes).map(Some),
        None => Ok(None),
    });
    let advice = "it can be made again, under a new identity";
    let set = match read {
        Ok(Some(set)) => Some(set),
        Ok(None) => {
            let what = "the file that says what the directory is is missing";
            findings.push(of_frame(Severity::Sidecar, FindingKind::SetFile, path, what.into(), advice));
            None
        }
        Err(error) => {
            let what = damage(error)?;
            findings.push(of_frame(Severity::Sidecar, FindingKind::SetFile, path, what, advice));
            None
        }
    };
    let path = dir.join(CHECKPOINT);
    let read = atomic::read(fs, &path).and_then(|bytes| match bytes {
        Some(bytes) => checkpoint::decode(&path, &bytes).map(Some),
        None => Ok(None),
    });
    let kind = FindingKind::Checkpoint;
    let checkpoint = match read {
        Ok(Some(checkpoint)) => Some(checkpoint),
        Ok(None) if set.is_some_and(|set| !set.clean) => {
            let what = "it is not there: the directory was not open for long enough to write it";
            let advice = "the next open reads the newest segment of each log whole";
            findings.push(of_frame(Severity::Note, kind, path, what.into(), advice));
            Some(Checkpoint::new())
        }
        Ok(None) => {
            let what = "it is missing, though the directory was closed cleanly";
            let advice =
                "the next open makes it again from the logs, all of whose bytes count as acknowledged";
            findings.push(of_frame(Severity::Sidecar, kind, path, what.into(), advice));
            None
        }
        Err(error) => {
            let what = damage(error)?;
            let advice = "it can be made again; until then the directory does not open";
            findings.push(of_frame(Severity::Sidecar, kind, path, what, advice));
            None
        }
    };
    Ok(Frame { set, checkpoint })
}

fn of_frame(
    severity: Severity,
    kind: FindingKind,
    file: PathBuf,
    what: String,
    advice: impl Into<String>,
) -> Finding {
    Finding { severity, kind, log: None, file, position: None, offsets: None, what, advice: advice.into() }
}

/// The text of an error that is a finding; others end the inspection.
fn damage(error: Error) -> Result<String, Error> {
    if error.kind() != ErrorKind::Corrupt {
        return Err(error);
    }
    // Only what is no plain file comes from the operating system as damage: its cause says which.
    if let Some(source) = std::error::Error::source(&error) {
        return Ok(source.to_string());
    }
    let text = error.to_string();
    let file = error.path().map_or_else(String::new, |path| format!("{} ", path.display()));
    let text = text.strip_prefix(&file).unwrap_or(&text);
    Ok(text.split_once(';').map_or(text, |(what, _)| what).to_owned())
}

/// Tells how far a pass has come, not more often than every few megabytes.
pub(super) struct Meter<'a> {
    done_bytes: u64,
    total_bytes: u64,
    told: u64,
    tell: &'a mut dyn FnMut(Progress),
}

impl Meter<'_> {
    const STEP: u64 = 4 << 20;

    pub(super) fn add(&mut self, bytes: u64) {
        self.done_bytes += bytes;
        if self.done_bytes >= self.told {
            self.told = self.done_bytes + Self::STEP;
            let (done_bytes, total_bytes) = (self.done_bytes, self.total_bytes);
            (self.tell)(Progress { done_bytes, total_bytes });
        }
    }
}

impl std::fmt::Debug for Meter<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Meter").field("done_bytes", &self.done_bytes).finish_non_exhaustive()
    }
}

/// Where the line is between what was promised and what may be torn, in a log's newest segment.
#[derive(Clone, Copy, Debug)]
pub(super) enum Line {
    /// Up to here it was promised.
    At { position: u64, end: Offset },
    /// Nobody knows: all of it counts as promised.
    Unknown,
}

/// A segment to look at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) listing: SegmentListing,
    /// Where the next segment begins; `None` for the newest.
    pub(super) end: Option<Offset>,
}
