//! Reading every byte of a data directory and saying what is not as it was written.

mod data;
mod frame;
mod index;
mod log;
mod state;
mod whole;

pub(super) use data::DataLook;
pub(super) use frame::Frame;
pub(super) use log::{Look, MergeLook};
pub(super) use whole::counter_behind;

use std::path::{Path, PathBuf};

use bytes::Bytes;
use logmill_record::Offset;
use uuid::Uuid;

use super::directory::Directory;
use super::finding::{Finding, FindingKind, Progress, Severity};
use super::list::{SegmentListing, segments};
use crate::env::{Env, Fs};
use crate::error::{Error, ErrorKind};

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
/// `NewerFormat` of the directory's own files; `Io` if the disk cannot be read. Damage is no error, nor is a log
/// that a newer version wrote or that this user may not read: they are in the report.
pub fn verify(env: &Env, dir: impl AsRef<Path>, progress: &mut dyn FnMut(Progress)) -> Result<Report, Error> {
    let directory = Directory::open(&*env.fs, dir.as_ref())?;
    verify_in(&*env.fs, &directory, progress).map(|seen| seen.report)
}

/// [`verify`] of one log of the directory, by its path below it: the report has no other, and none of what is beside
/// the logs.
///
/// ```
/// use logmill_log::env::Env;
/// use logmill_log::inspect::verify_log;
/// use logmill_log::{LogOptions, LogSet, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// set.create("orders/0", b"", LogOptions::default())?;
/// set.close()?;
/// let report = verify_log(&Env::real(), dir.path(), "orders/0", &mut |_| ())?;
/// assert!(!report.is_damaged() && report.logs.len() == 1);
/// # Ok(())
/// # }
/// ```
///
/// # Errors
///
/// As [`verify`], and `NotFound` if there is no such log.
pub fn verify_log(
    env: &Env,
    dir: impl AsRef<Path>,
    log: impl AsRef<Path>,
    progress: &mut dyn FnMut(Progress),
) -> Result<Report, Error> {
    let (mut directory, log) = (Directory::open(&*env.fs, dir.as_ref())?, log.as_ref());
    directory.found.logs.retain(|path| path == log);
    if directory.found.logs.is_empty() {
        let message = format!("{} holds no log {}", directory.path.display(), log.display());
        return Err(Error::new(ErrorKind::NotFound, message).at_path(&directory.path.join(log)));
    }
    look_in(&*env.fs, &directory, progress).map(|seen| seen.report)
}

/// What a pass over a directory saw.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) report: Report,
    pub(super) frame: Frame,
    pub(super) looks: Vec<Look>,
    /// Whether every log could be looked into.
    pub(super) all_read: bool,
}

/// [`verify`] in a directory that is held already.
pub(super) fn verify_in(
    fs: &dyn Fs,
    directory: &Directory,
    progress: &mut dyn FnMut(Progress),
) -> Result<Seen, Error> {
    let mut seen = look_in(fs, directory, progress)?;
    let findings = &mut seen.report.findings;
    whole::note_copies(&seen.looks, &directory.path, findings);
    if seen.all_read {
        whole::note_lost_logs(&directory.path, &seen.frame, &seen.looks, findings);
    }
    whole::note_strays(directory, findings);
    Ok(seen)
}

/// Looks at the directory's own files and at its logs, each by itself.
fn look_in(fs: &dyn Fs, directory: &Directory, progress: &mut dyn FnMut(Progress)) -> Result<Seen, Error> {
    let dir = &directory.path;
    let mut findings = Vec::new();
    let mut frame = Frame::read(fs, dir, &mut findings)?;
    let mut listed = Vec::with_capacity(directory.found.logs.len());
    for path in &directory.found.logs {
        match segments(fs, &dir.join(path)) {
            Ok(segments) => listed.push((path, segments)),
            Err(error) => findings.push(unread(dir, path, error)?),
        }
    }
    let (mut looks, mut of_logs) = look_at_logs(fs, dir, &frame, &listed, progress)?;
    if let Some(finding) = whole::older_set(dir, &frame, &looks) {
        findings.push(finding);
        // What an older copy says of a clean close is of another time.
        if let Some(set) = frame.set.as_mut().filter(|set| set.clean) {
            set.clean = false;
            (looks, of_logs) = look_at_logs(fs, dir, &frame, &listed, progress)?;
        }
    }
    findings.append(&mut of_logs);
    let all_read = findings.iter().all(|finding| finding.kind != FindingKind::Unread);
    let report = Report {
        dir: dir.clone(),
        id: frame.set.map(|set| set.id),
        clean: frame.clean(),
        logs: looks.iter().map(|look| look.report.clone()).collect(),
        findings,
    };
    Ok(Seen { report, frame, looks, all_read })
}

/// Looks at each log, of which the segments are listed.
fn look_at_logs(
    fs: &dyn Fs,
    dir: &Path,
    frame: &Frame,
    listed: &[(&PathBuf, Vec<SegmentListing>)],
    progress: &mut dyn FnMut(Progress),
) -> Result<(Vec<Look>, Vec<Finding>), Error> {
    let total_bytes = listed.iter().flat_map(|(_, segments)| segments).map(|segment| segment.bytes).sum();
    let mut meter = Meter { done_bytes: 0, total_bytes, told: 0, tell: progress };
    meter.add(0);
    let (mut looks, mut findings) = (Vec::with_capacity(listed.len()), Vec::new());
    for (path, segments) in listed {
        let view = log::View { fs, dir, below: path, frame, gaps_below: Offset::MAX, clean: false };
        let before = findings.len();
        match view.look(segments, &mut findings, &mut meter) {
            Ok(look) => looks.push(look),
            Err(error) => {
                findings.truncate(before);
                findings.push(unread(dir, path, error)?);
            }
        }
    }
    Ok((looks, findings))
}

/// A log that this program cannot look into, or may not; any other error ends the inspection.
fn unread(dir: &Path, below: &Path, error: Error) -> Result<Finding, Error> {
    if !matches!(error.kind(), ErrorKind::Denied | ErrorKind::NewerFormat) {
        return Err(error);
    }
    let file = error.path().map_or_else(|| dir.join(below), Path::to_owned);
    let what = format!("this log was not looked into: {error}");
    let advice = "the others were, and a repair leaves this one as it is";
    let finding = of_frame(Severity::Data, FindingKind::Unread, file, what, advice);
    Ok(Finding { log: Some(below.to_owned()), ..finding })
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
