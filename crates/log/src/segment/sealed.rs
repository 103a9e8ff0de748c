//! A sealed segment: it never changes, and its data is memory-mapped at the first read.
//!
//! Lock order: the segment's `loaded`, then its names; neither is held while the set's maps are.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::{AppendTimes, Batches, DATA, Gaps, INDEX, Maps, Txns, path, rebuild};
use crate::env::{File, FileStatus, Fs, Map, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::index::{Footer, Rows};
use crate::options::ReadMode;

/// A segment that is no longer written.
#[derive(Debug)]
pub(crate) struct Sealed {
    fs: Arc<dyn Fs>,
    pub(super) dir: PathBuf,
    pub(super) footer: Footer,
    /// Where the next segment begins: after `footer.next_offset` only if data is missing.
    pub(super) end: Offset,
    /// Whether compaction may have taken offsets out.
    pub(super) gaps: Gaps,
    /// Held for reading while the files are opened by their names, for writing while other files
    /// are given these names; true from then on.
    replaced: RwLock<bool>,
    /// Rows that could not be written to an index file and live in memory only.
    unwritten: Option<Rows>,
    maps: Arc<Maps>,
    loaded: Mutex<Option<Arc<Loaded>>>,
    /// Once somebody has asked.
    txns: OnceLock<Txns>,
    /// Read since [`Maps`] last looked.
    used: AtomicBool,
}

/// What is kept of a segment that is read, until the set has read too many others since.
#[derive(Debug)]
pub(super) struct Loaded {
    /// `None` where reads copy.
    mapped: Option<Mapped>,
    pub(super) rows: Rows,
}

#[derive(Debug)]
struct Mapped {
    map: Arc<dyn Map>,
    bytes: Bytes,
}

/// Lets [`Bytes`] own a share of a map.
struct MapOwner(Arc<dyn Map>);

impl AsRef<[u8]> for MapOwner {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl Sealed {
    pub(crate) fn new(
        fs: Arc<dyn Fs>,
        maps: Arc<Maps>,
        dir: &Path,
        footer: Footer,
        end: Offset,
        gaps: Gaps,
        unwritten: Option<Rows>,
    ) -> Self {
        let (dir, replaced, loaded) = (dir.to_owned(), RwLock::new(false), Mutex::new(None));
        let used = AtomicBool::new(false);
        Self { fs, dir, footer, end, gaps, replaced, unwritten, maps, loaded, used, txns: OnceLock::new() }
    }

    pub(crate) fn base(&self) -> Offset {
        self.footer.base
    }

    pub(crate) fn end(&self) -> Offset {
        self.end
    }

    pub(crate) fn data_len(&self) -> u64 {
        self.footer.data_len
    }

    /// When its last batch was appended, or an upper bound.
    pub(crate) fn last_appended_at(&self) -> TimestampMs {
        self.footer.last_appended_at
    }

    pub(crate) fn footer(&self) -> &Footer {
        &self.footer
    }

    /// What it has to do with transactions, if that is known yet.
    pub(crate) fn txns(&self) -> Option<&Txns> {
        self.txns.get()
    }

    /// Remembers that; the first one to say it is right.
    pub(crate) fn set_txns(&self, txns: Txns) -> &Txns {
        self.txns.get_or_init(|| txns)
    }

    pub(crate) fn records(&self) -> u64 {
        self.footer.records
    }

    /// Opens the data, for reading all of it.
    pub(crate) fn open_data(&self) -> Result<Arc<dyn File>, Error> {
        let data_path = self.data_path();
        let _names = self.names()?;
        self.fs.open(&data_path, OpenMode::Read).map_err(|error| Error::io("open", &data_path, error))
    }

    /// The batches of the segment, whose data is `file` at `data_path`.
    pub(crate) fn batches<'a>(&self, file: &'a dyn File, data_path: &'a Path) -> Batches<'a> {
        Batches::new(file, data_path, self.footer.data_len, self.footer.base, self.end)
    }

    /// Refuses to go by batches whose headers, read from front to back, have another CRC than those
    /// that were written.
    pub(crate) fn expect_headers(&self, data_path: &Path, crc: u32) -> Result<(), Error> {
        if crc == self.footer.headers_crc {
            return Ok(());
        }
        let what = "the headers of its batches are not those that were written";
        Err(Error::corrupt(data_path, 0, self.base()..self.end(), what))
    }

    /// When its batches were appended; `file` is its data, for the case that its index has gone.
    pub(crate) fn append_times(&self, file: &dyn File) -> Result<AppendTimes, Error> {
        let _names = self.names()?;
        Ok(AppendTimes::new(self.rows_or_rebuilt(file)?, self.footer.last_appended_at))
    }

    /// Whether data is known to be missing at its end.
    pub(crate) fn is_short(&self) -> bool {
        self.footer.next_offset < self.end
    }

    pub(crate) fn max_timestamp(&self) -> TimestampMs {
        self.footer.max_timestamp
    }

    /// The index, and the data as it is read, opened if they are not.
    pub(super) fn load(self: &Arc<Self>) -> Result<Arc<Loaded>, Error> {
        self.used.store(true, Ordering::Relaxed);
        let fresh = {
            let mut loaded = self.loaded.lock();
            if let Some(loaded) = &*loaded {
                return Ok(Arc::clone(loaded));
            }
            Arc::clone(loaded.insert(Arc::new(self.open()?)))
        };
        // Without the lock of this one: another has to let go for it.
        self.maps.admit(self);
        Ok(fresh)
    }

    fn open(&self) -> Result<Loaded, Error> {
        let data_path = self.data_path();
        let names = self.names()?;
        let file =
            self.fs.open(&data_path, OpenMode::Read).map_err(|error| Error::io("open", &data_path, error))?;
        let rows = self.rows_or_rebuilt(&*file)?;
        drop(names);
        let mapped = match self.maps.mode() {
            ReadMode::Map => {
                let map =
                    file.map(self.footer.data_len).map_err(|error| Error::io("map", &data_path, error))?;
                let bytes = Bytes::from_owner(MapOwner(Arc::clone(&map)));
                Some(Mapped { map, bytes })
            }
            ReadMode::Copy => None,
        };
        Ok(Loaded { mapped, rows })
    }

    /// Whether it was read since this was last asked.
    pub(super) fn take_used(&self) -> bool {
        self.used.swap(false, Ordering::Relaxed)
    }

    /// Lets go of map and rows; the next read opens them again. Who still reads keeps them.
    pub(super) fn unload(&self) {
        self.loaded.lock().take();
    }

    /// A range of the data, in memory.
    pub(super) fn bytes(&self, loaded: &Loaded, range: Range<usize>) -> Result<Bytes, Error> {
        if let Some(mapped) = &loaded.mapped {
            match mapped.map.populate(range.clone()) {
                Ok(()) => return Ok(mapped.bytes.slice(range)),
                Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
                Err(error) => return Err(Error::io("read", &self.data_path(), error)),
            }
        }
        let file = self.open_data()?;
        let mut buf = vec![0; range.len()];
        atomic::read_exact(&*file, &mut buf, range.start as u64)
            .map_err(|error| Error::io("read", &self.data_path(), error))?;
        Ok(buf.into())
    }

    /// The right to open the files by their names: for as long as it is held they are this
    /// segment's, and not those that compaction puts in their place. The error is for who holds a
    /// view from before that; the log's read looks for the segment again.
    fn names(&self) -> Result<RwLockReadGuard<'_, bool>, Error> {
        let replaced = self.replaced.read();
        if *replaced {
            let what = format!("{} has been replaced by compaction; read again", self.data_path().display());
            return Err(Error::new(ErrorKind::NotFound, what).at_path(&self.data_path()));
        }
        Ok(replaced)
    }

    /// The right to give the files' names to others. Who sets it to true must put another view in
    /// this one's place before giving it back.
    pub(crate) fn replace_names(&self) -> RwLockWriteGuard<'_, bool> {
        self.replaced.write()
    }

    fn rows_or_rebuilt(&self, file: &dyn File) -> Result<Rows, Error> {
        match &self.unwritten {
            Some(rows) => Ok(rows.clone()),
            None => self.read_rows().or_else(|error| self.rebuild_rows(file, &error)),
        }
    }

    fn read_rows(&self) -> Result<Rows, Error> {
        let index_path = path(&self.dir, self.footer.base, INDEX);
        match atomic::read(&*self.fs, &index_path)? {
            Some(file) => Rows::new(&index_path, &file.into(), &self.footer),
            None => Err(Error::io("open", &index_path, io::ErrorKind::NotFound.into())),
        }
    }

    /// An index that was good when the log was opened and is not now.
    fn rebuild_rows(&self, file: &dyn File, why: &Error) -> Result<Rows, Error> {
        let data_path = self.data_path();
        tracing::warn!(file = %data_path.display(), %why, "rebuilt the index of a sealed segment in memory");
        let (index, found) = file
            .status()
            .map(|status| FileStatus { modified: self.footer.last_appended_at, ..status })
            .and_then(|status| rebuild(file, self.footer.base, status, self.gaps))
            .map_err(|error| Error::io("read", &data_path, error))?;
        match found.damage {
            // Without rows there is no way behind the damage.
            Some(what) if index.rows().is_empty() => {
                let offsets = self.footer.base..self.footer.next_offset;
                Err(Error::corrupt(&data_path, found.end, offsets, what))
            }
            _ => Ok(Rows::from_rows(index.rows())),
        }
    }

    pub(super) fn data_path(&self) -> PathBuf {
        path(&self.dir, self.footer.base, DATA)
    }
}
