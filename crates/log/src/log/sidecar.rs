//! The files beside a segment's data, and making anew what a `.state` has to say.
//!
//! A `.state` that is missing, damaged, or written for other contents is no loss: what it says
//! follows from the batches since the nearest earlier one that is good, or from the log's start.

use std::io;
use std::path::Path;
use std::sync::Arc;

use logmill_record::{Batch, BatchHeader, Offset, TimestampMs};

use super::LogInner;
use super::producers::{Note, Producers};
use super::state::State;
use crate::env::{File, Fs};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::index::Footer;
use crate::format::state::StateFile;
use crate::segment::{DATA, Gaps, INDEX, STATE, Scan, Sealed, path, scan};

/// A marker is a batch of one small record.
const MAX_MARKER_LEN: usize = 64 * 1024;

/// The files that are written beside a segment's data when it is sealed or closed.
pub(super) struct Pair {
    pub(super) footer: Footer,
    index: Vec<u8>,
    /// Nothing, if there is nothing to say.
    state: Option<Vec<u8>>,
}

impl State {
    /// The pair of the active segment as it stands.
    pub(super) fn encode_pair(&self) -> Pair {
        let (index, footer) = self.active.index.encode();
        let needed = footer.producers || !self.producers.is_empty();
        Pair { footer, index, state: needed.then(|| self.producers.to_file().encode(&footer)) }
    }
}

impl LogInner {
    /// Writes both files; the caller syncs the directory.
    pub(super) fn write_pair(&self, pair: &Pair) -> Result<(), Error> {
        let fs = &*self.env.fs;
        if let Some(state) = &pair.state {
            atomic::write_and_rename(fs, &path(&self.dir, pair.footer.base, STATE), state)?;
        }
        atomic::write_and_rename(fs, &path(&self.dir, pair.footer.base, INDEX), &pair.index)
    }
}

/// The `.state` of the segment with this footer, if there is one that is true of it.
///
/// # Errors
///
/// `NewerFormat`: a newer version can tell, and it must not be replaced.
pub(crate) fn load_state(fs: &dyn Fs, dir: &Path, footer: &Footer) -> Result<Option<StateFile>, Error> {
    let path = path(dir, footer.base, STATE);
    let Ok(Some(bytes)) = atomic::read(fs, &path) else { return Ok(None) };
    match StateFile::decode(&path, &bytes, footer) {
        Ok(state) => Ok(Some(state)),
        Err(error) if error.kind() == ErrorKind::NewerFormat => Err(error),
        Err(error) => {
            tracing::warn!(%error, "what it says of producers is made anew");
            Ok(None)
        }
    }
}

/// Makes the `.state` of a segment that compaction has written anew say so: what is known at its
/// end is the same.
pub(super) fn carry_over(fs: &dyn Fs, dir: &Path, old: &Footer, new: &Footer) -> Result<(), Error> {
    match load_state(fs, dir, old)? {
        Some(state) => atomic::write_and_rename(fs, &path(dir, new.base, STATE), &state.encode(new)),
        None => Ok(()),
    }
}

/// The producers at the end of the last of `segments`, the log's first ones; and whether the
/// `.state` of that last one was of use. `may_exist` says of which segments to look for one,
/// and `open_data` opens the data of those that have to be read.
pub(super) fn producers_after(
    fs: &dyn Fs,
    dir: &Path,
    segments: &[Arc<Sealed>],
    may_exist: impl Fn(Offset) -> bool,
    open_data: impl Fn(&Sealed) -> Result<Arc<dyn File>, Error>,
) -> Result<(Producers, bool), Error> {
    let mut producers = Producers::default();
    let mut known = 0;
    for (index, segment) in segments.iter().enumerate().rev() {
        let nobody = segment.txns().is_some_and(|txns| txns.knows_none && txns.aborted.is_empty());
        let state = if may_exist(segment.base()) { load_state(fs, dir, segment.footer())? } else { None };
        if let Some(state) = state {
            producers = Producers::at_end(state);
        } else if !nobody {
            continue;
        }
        known = index + 1;
        break;
    }
    for segment in &segments[known..] {
        producers.take_aborted();
        if segment.footer().producers {
            replay_segment(dir, segment, &mut producers, &open_data)?;
        }
        if segment.is_short() {
            producers.lose_sequences();
        }
    }
    producers.note_durable(Offset::MAX);
    Ok((producers, known == segments.len()))
}

fn replay_segment(
    dir: &Path,
    segment: &Sealed,
    producers: &mut Producers,
    open_data: impl Fn(&Sealed) -> Result<Arc<dyn File>, Error>,
) -> Result<(), Error> {
    let data = path(dir, segment.base(), DATA);
    tracing::info!(file = %data.display(), "reading what is known of producers from the data");
    let file = open_data(segment)?;
    let (footer, gaps) = (segment.footer(), Gaps::Below(segment.end()));
    replay(&*file, footer, gaps, footer.last_appended_at, producers)
        .map_err(|error| Error::io("read", &data, error))
}

/// Applies the batches of a data file to what was known before it.
pub(crate) fn replay(
    file: &dyn File,
    footer: &Footer,
    gaps: Gaps,
    appended_at: TimestampMs,
    producers: &mut Producers,
) -> io::Result<()> {
    let (base, to) = (footer.base, footer.data_len);
    let whole = Scan { file, base, from: 0, offset: base, to, gaps, crc: false };
    let mut replay = Replay::new(file, appended_at, std::mem::take(producers));
    let found = scan(&whole, |_, header| replay.visit(header))?;
    *producers = replay.finish()?;
    if found.damage.is_some() {
        producers.lose_sequences();
    }
    Ok(())
}

/// Follows a scan of a data file from its first byte.
pub(super) struct Replay<'a> {
    file: &'a dyn File,
    appended_at: TimestampMs,
    position: u64,
    producers: Producers,
    failed: Option<io::Error>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(file: &'a dyn File, appended_at: TimestampMs, producers: Producers) -> Self {
        Self { file, appended_at, position: 0, producers, failed: None }
    }

    /// A batch of the file, with damage before it.
    pub(super) fn visit_at(&mut self, position: u64, header: &BatchHeader) {
        self.position = position;
        self.visit(header);
    }

    /// The next batch of the file.
    pub(super) fn visit(&mut self, header: &BatchHeader) {
        let position = self.position;
        self.position += header.total_len as u64;
        match Note::found(header, || read_marker(self.file, position, header)) {
            Ok(None) => {}
            Ok(Some(note)) => self.producers.apply(&note, header.base_offset, self.appended_at),
            Err(error) => self.failed = Some(error),
        }
    }

    /// The producers after all that was visited.
    pub(super) fn finish(self) -> io::Result<Producers> {
        self.failed.map_or(Ok(self.producers), Err)
    }
}

/// `None` if it is damaged, or no marker.
fn read_marker(file: &dyn File, position: u64, header: &BatchHeader) -> io::Result<Option<Batch>> {
    if header.total_len > MAX_MARKER_LEN {
        return Ok(None);
    }
    let mut bytes = vec![0; header.total_len];
    atomic::read_exact(file, &mut bytes, position)?;
    let marker = Batch::parse(bytes.into());
    if let Err(error) = &marker {
        let (offset, id) = (header.base_offset, header.producer_id);
        tracing::error!(%offset, id, %error, "a marker is damaged: its transaction counts as aborted");
    }
    Ok(marker.ok())
}
