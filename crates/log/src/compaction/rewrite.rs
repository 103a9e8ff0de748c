//! Writing what compaction keeps of a segment, beside it.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use logmill_record::{Batch, Offset};

use crate::env::{File, Fs, OpenMode};
use crate::error::Error;
use crate::format::atomic;
use crate::format::index::{Footer, Row};
use crate::segment::{DATA, ENDINGS, HEAD_LEN, INDEX, IndexBuilder, Placed, path};

/// Files that are to replace a segment's end so, behind the ending of the file to be replaced.
pub(crate) const CLEANED: &str = "cleaned";
/// Batches are gathered up to so much before they are written.
const PIECE_LEN: usize = 1 << 20;

/// The path of the file that is to replace one of a segment's.
pub(crate) fn cleaned_path(dir: &Path, base: Offset, ending: &str) -> PathBuf {
    path(dir, base, &format!("{ending}.{CLEANED}"))
}

/// Removes what a rewriting has left, if anything.
pub(crate) fn discard(fs: &dyn Fs, dir: &Path, base: Offset) -> io::Result<()> {
    for ending in ENDINGS {
        match fs.remove_file(&cleaned_path(dir, base, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

/// A segment being written anew. Nothing is written until something differs.
pub(crate) struct Rewrite<'a> {
    fs: &'a dyn Fs,
    dir: &'a Path,
    base: Offset,
    source: &'a dyn File,
    /// The new data file, once there is a difference.
    out: Option<Arc<dyn File>>,
    gathered: Vec<u8>,
    /// Bytes written to the new file.
    written: u64,
    index: IndexBuilder,
}

/// What replaces a segment: its rows and its footer. The files are written and synced.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) rows: Vec<Row>,
    pub(crate) footer: Footer,
}

impl<'a> Rewrite<'a> {
    pub(crate) fn new(fs: &'a dyn Fs, dir: &'a Path, base: Offset, source: &'a dyn File) -> Self {
        let index = IndexBuilder::new(base);
        Self { fs, dir, base, source, out: None, gathered: Vec::new(), written: 0, index }
    }

    /// Begins the new segment at once, whether or not it will differ from the source.
    pub(crate) fn begin(&mut self) -> Result<(), Error> {
        self.differ(0)
    }

    /// The batch at `position` of the source is to be left out.
    pub(crate) fn leave_out(&mut self, position: u64) -> Result<(), Error> {
        self.differ(position)
    }

    /// `batch` is to stand for the one at `position` of the source; `changed` if it differs.
    pub(crate) fn keep(
        &mut self,
        position: u64,
        batch: &Batch,
        changed: bool,
        placed: Placed,
    ) -> Result<(), Error> {
        if changed {
            self.differ(position)?;
        }
        let bytes = batch.bytes();
        let head: &[u8; HEAD_LEN] = bytes.first_chunk().expect("a batch has a header");
        self.index.push(head, batch.header(), placed);
        if self.out.is_some() {
            self.gathered.extend_from_slice(bytes);
            if self.gathered.len() >= PIECE_LEN {
                self.flush()?;
            }
        }
        Ok(())
    }

    /// Syncs the new files; `None` if nothing differs. `last` tells what the source's index says
    /// of its last append.
    pub(crate) fn finish(mut self, last: &Footer) -> Result<Option<Rewritten>, Error> {
        if self.out.is_none() {
            return Ok(None);
        }
        self.flush()?;
        if let Some(out) = &self.out {
            out.sync_data().map_err(|error| self.failed(error))?;
        }
        self.index.set_last_appended_at(last.last_appended_at);
        let (bytes, footer) = self.index.encode();
        let index_path = cleaned_path(self.dir, self.base, INDEX);
        atomic::write_new(self.fs, &index_path, &bytes)
            .map_err(|error| Error::io("write", &index_path, error))?;
        Ok(Some(Rewritten { rows: self.index.rows().to_vec(), footer }))
    }

    /// From here on the new segment differs: it is begun with what lies before `position`.
    fn differ(&mut self, position: u64) -> Result<(), Error> {
        if self.out.is_some() {
            return Ok(());
        }
        let data_path = cleaned_path(self.dir, self.base, DATA);
        let out = discard(self.fs, self.dir, self.base)
            .and_then(|()| self.fs.open(&data_path, OpenMode::CreateNew))
            .map_err(|error| self.failed(error))?;
        self.out = Some(out);
        let mut copied = 0;
        while copied < position {
            let len = (position - copied).min(PIECE_LEN as u64);
            let mut piece = vec![0; usize::try_from(len).expect("at most a piece")];
            atomic::read_exact(self.source, &mut piece, copied)
                .map_err(|error| Error::io("read", &path(self.dir, self.base, DATA), error))?;
            self.gathered = piece;
            self.flush()?;
            copied += len;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        if let Some(out) = &self.out {
            atomic::write_all(&**out, &mut [IoSlice::new(&self.gathered)], self.written)
                .map_err(|error| self.failed(error))?;
            self.written += self.gathered.len() as u64;
            self.gathered.clear();
        }
        Ok(())
    }

    fn failed(&self, error: io::Error) -> Error {
        Error::io("write", &cleaned_path(self.dir, self.base, DATA), error)
    }
}
