//! What lies after the checkpoint: whole batches are written again, a torn end is saved and cut off.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_record::HEADER_LEN;

use super::Recovery;
use crate::env::{File, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::log::Recovered;

/// Files are copied and written again in pieces of this size.
const PIECE_LEN: u64 = 1 << 20;

impl Recovery<'_> {
    /// Puts the bytes of the active segment between two positions on disk for good, and its length.
    pub(super) fn settle_tail(&self, data: &Path, file: &dyn File, from: u64, to: u64) -> Result<(), Error> {
        rewrite(file, from, to)
            .and_then(|()| file.sync_data())
            .map_err(|error| Error::io("write again and sync", data, error))
    }

    /// Saves a torn tail aside and cuts it off; the caller syncs the cut.
    pub(super) fn cut_tail(
        &self,
        data: &Path,
        file: &dyn File,
        end: u64,
        len: u64,
        what: &str,
    ) -> Result<(), Error> {
        // Named by the epoch too: what an earlier open saved is never replaced.
        let aside = PathBuf::from(format!("{}.torn-{end}-{}", data.display(), self.expected.epoch));
        let copy_and_cut = |copy: Arc<dyn File>| -> io::Result<()> {
            for_pieces(end, len, |position, piece_len| {
                let mut piece = vec![0; piece_len];
                atomic::read_exact(file, &mut piece, position)?;
                atomic::write_all(&*copy, &mut [IoSlice::new(&piece)], position - end)
            })?;
            copy.sync_data()?;
            self.fs.sync_dir(self.dir)?;
            file.set_len(end)
        };
        let save = || {
            self.fs.open(&aside, OpenMode::CreateNew).and_then(|copy| {
                // A part of a copy would take the name from the next attempt, and perhaps its space.
                copy_and_cut(copy).inspect_err(|_| drop(self.fs.remove_file(&aside)))
            })
        };
        let saved = match save() {
            Err(error) if is_full(&error) && self.fs.make_room() => save(),
            saved => saved,
        };
        saved.map_err(|error| {
            let message = format!(
                "{} ends in a torn write at byte {end} that cannot be saved to {} ({error}); the log can \
                 be read; free some space and open it again to write",
                data.display(),
                aside.display(),
            );
            Error::new(ErrorKind::ReadOnly, message).at_path(data).because(error)
        })?;
        self.note_mended(Recovered { torn_tails: 1, torn_bytes: len - end, ..Recovered::default() });
        tracing::warn!(
            file = %data.display(), position = end, bytes = len - end, saved = %aside.display(), what,
            "cut off a torn write that was never acknowledged"
        );
        Ok(())
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// Cuts off everything from `position` for good. A sync of it has failed, and a sync of the cut
/// may fail too and then lie when it is tried again: so that what is cut cannot come back as
/// records, its first header goes first.
pub(super) fn take_back(file: &dyn File, position: u64) -> io::Result<()> {
    let nothing = [0; HEADER_LEN];
    atomic::write_all(file, &mut [IoSlice::new(&nothing)], position)?;
    file.sync_data()?;
    file.set_len(position)?;
    file.sync_data()
}

/// Writes the bytes from `from` to `to` again, so that the next sync really puts them on disk.
fn rewrite(file: &dyn File, from: u64, to: u64) -> io::Result<()> {
    for_pieces(from, to, |position, len| {
        let mut piece = vec![0; len];
        atomic::read_exact(file, &mut piece, position)?;
        atomic::write_all(file, &mut [IoSlice::new(&piece)], position)
    })
}

/// Calls `each` with the position and length of one piece after another.
fn for_pieces(from: u64, to: u64, mut each: impl FnMut(u64, usize) -> io::Result<()>) -> io::Result<()> {
    let mut position = from;
    while position < to {
        let len = PIECE_LEN.min(to - position);
        each(position, usize::try_from(len).map_err(|_| io::ErrorKind::FileTooLarge)?)?;
        position += len;
    }
    Ok(())
}
