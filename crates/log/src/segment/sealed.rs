//! A sealed segment: it never changes, and its data is memory-mapped at the first read.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use logmill_record::{Offset, TimestampMs};
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use super::walk::{Damage, Placement, Walk, find_record, take, walk};
use super::{AppendTimes, Batches, DATA, Gaps, INDEX, Txns, path, rebuild};
use crate::env::{File, Fs, Map, OpenMode};
use crate::error::{Error, ErrorKind};
use crate::format::atomic;
use crate::format::index::{Footer, Row, Rows};
use crate::read::Chunk;

/// A segment that is no longer written.
#[derive(Debug)]
pub(crate) struct Sealed {
    fs: Arc<dyn Fs>,
    dir: PathBuf,
    footer: Footer,
    /// Where the next segment begins: after `footer.next_offset` only if data is missing.
    end: Offset,
    /// Whether compaction may have taken offsets out.
    gaps: Gaps,
    /// Held for reading while the files are opened by their names, for writing while other files
    /// are given these names; true from then on.
    replaced: RwLock<bool>,
    /// Rows that could not be written to an index file and live in memory only.
    unwritten: Option<Rows>,
    loaded: Mutex<Option<Arc<Loaded>>>,
    /// Once somebody has asked.
    txns: OnceLock<Txns>,
}

#[derive(Debug)]
struct Loaded {
    map: Arc<dyn Map>,
    bytes: Bytes,
    rows: Rows,
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
        dir: &Path,
        footer: Footer,
        end: Offset,
        gaps: Gaps,
        unwritten: Option<Rows>,
    ) -> Self {
        let (dir, replaced, loaded) = (dir.to_owned(), RwLock::new(false), Mutex::new(None));
        Self { fs, dir, footer, end, gaps, replaced, unwritten, loaded, txns: OnceLock::new() }
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

    /// Reads from `from`, which lies in this segment, about `max_bytes` but at least one batch.
    pub(crate) fn read(&self, from: Offset, max_bytes: usize) -> Result<Vec<Chunk>, Error> {
        if from >= self.footer.next_offset {
            let missing = self.footer.next_offset..self.end;
            return Err(Error::corrupt(
                &self.data_path(),
                self.footer.data_len,
                missing,
                "it ends too early",
            ));
        }
        let loaded = self.load()?;
        let first = self.row_of(&loaded, from);
        let (mut chunks, mut left) = (Vec::new(), max_bytes);
        for index in first..loaded.rows.len() {
            let row = self.row(&loaded, index)?;
            match self.read_row(&loaded, &row, from, left) {
                Ok(None) => {}
                Ok(Some((chunk, whole))) => {
                    left = left.saturating_sub(chunk.batches.len());
                    chunks.push(chunk);
                    if !whole || left == 0 {
                        break;
                    }
                }
                // What lies before damage is handed out; who asks for the damage gets the error.
                Err(_) if !chunks.is_empty() => break,
                Err(error) => return Err(error),
            }
        }
        if chunks.is_empty() {
            // The last batch of a segment always stays.
            let what = "the offset that was asked for is not where the index says";
            return Err(Error::corrupt(&self.data_path(), 0, from..self.end, what));
        }
        Ok(chunks)
    }

    /// The first record at or after both `at` and `start`.
    pub(crate) fn find_time(
        &self,
        at: TimestampMs,
        start: Offset,
    ) -> Result<Option<(Offset, TimestampMs)>, Error> {
        let loaded = self.load()?;
        let first = loaded.rows.partition_point(|row| row.max_timestamp < at);
        for index in first..loaded.rows.len() {
            let row = self.row(&loaded, index)?;
            let (bytes, walked) = self.walk_row(&loaded, &row)?;
            let found = find_record(&bytes, &walked.batches, at, start);
            if let Some(found) = found.map_err(|damage| self.corrupt(&row, damage))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// One row's batches from `from` on, and whether they reach the row's end. `None` if compaction
    /// took out all that was there.
    fn read_row(
        &self,
        loaded: &Loaded,
        row: &RowRange,
        from: Offset,
        max: usize,
    ) -> Result<Option<(Chunk, bool)>, Error> {
        let (bytes, walked) = self.walk_row(loaded, row)?;
        let taken = take(&bytes, &walked.batches, from, max).map_err(|damage| self.corrupt(row, damage))?;
        if taken.range.is_empty() {
            return walked.damage.map_or(Ok(None), |damage| Err(self.corrupt(row, damage)));
        }
        let whole = taken.range.end == row.bytes.len();
        let (appended_at, appended_at_estimated) = row.row.appended(row.appended_by);
        let chunk = Chunk {
            batches: bytes.slice(taken.range),
            appended_at,
            appended_at_estimated,
            next_offset: taken.next_offset,
        };
        Ok(Some((chunk, whole)))
    }

    /// The bytes of a row and the batches in them, checked against the index. Where a header is
    /// damaged, the batches before it are good all the same: they stand on their own CRC.
    fn walk_row(&self, loaded: &Loaded, row: &RowRange) -> Result<(Bytes, Walk), Error> {
        let bytes = self.bytes(loaded, row.bytes.clone())?;
        let gaps = match self.gaps {
            Gaps::None => Gaps::None,
            Gaps::Below(_) => Gaps::Below(row.offsets.end),
        };
        let mut walked = walk(&bytes, row.offsets.start, gaps);
        if let Some(len) = walked.cut_off {
            let next = walked.batches.last().map_or(row.offsets.start, |batch| batch.header.next_offset());
            let at = walked.batches.last().map_or(0, Placement::end);
            let what = format!("a batch claims {len} bytes, past the end of its row");
            walked.damage = Some(Damage { at, from: next, to: None, what });
        }
        if walked.damage.is_none() && walked.check != row.row.check {
            let what = "the headers of its batches are not those that were written";
            return Err(Error::corrupt(&self.data_path(), row.bytes.start as u64, row.offsets.clone(), what));
        }
        Ok((bytes, walked))
    }

    fn corrupt(&self, row: &RowRange, damage: Damage) -> Error {
        let offsets = damage.from..damage.to.unwrap_or(row.offsets.end);
        Error::corrupt(&self.data_path(), (row.bytes.start + damage.at) as u64, offsets, damage.what)
    }

    /// A range of the data, in memory.
    fn bytes(&self, loaded: &Loaded, range: Range<usize>) -> Result<Bytes, Error> {
        let data_path = self.data_path();
        let what_failed = |error| Error::io("read", &data_path, error);
        match loaded.map.populate(range.clone()) {
            Ok(()) => Ok(loaded.bytes.slice(range)),
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                let names = self.names()?;
                let file = self.fs.open(&data_path, OpenMode::Read).map_err(what_failed)?;
                drop(names);
                let mut buf = vec![0; range.len()];
                atomic::read_exact(&*file, &mut buf, range.start as u64).map_err(what_failed)?;
                Ok(buf.into())
            }
            Err(error) => Err(what_failed(error)),
        }
    }

    /// The number of the row that holds `from`.
    fn row_of(&self, loaded: &Loaded, from: Offset) -> usize {
        let relative = from.get() - self.footer.base.get();
        loaded.rows.partition_point(|row| u64::from(row.relative_offset) <= relative).saturating_sub(1)
    }

    fn row(&self, loaded: &Loaded, index: usize) -> Result<RowRange, Error> {
        let base = self.footer.base;
        let row = loaded.rows.get(index).expect("the caller stays below the number of rows");
        let next = loaded.rows.get(index + 1);
        let end = next.map_or(self.footer.data_len, |next| u64::from(next.position));
        let next_offset =
            next.map_or(self.footer.next_offset, |next| base.saturating_add(next.relative_offset.into()));
        let range = RowRange {
            bytes: row.position as usize..usize::try_from(end).unwrap_or(usize::MAX),
            offsets: base.saturating_add(row.relative_offset.into())..next_offset,
            appended_by: next.map_or(self.footer.last_appended_at, |next| next.appended_at),
            row,
        };
        if range.bytes.start < range.bytes.end && range.bytes.end <= loaded.bytes.len() {
            return Ok(range);
        }
        let what =
            "a row of its index points outside the segment; remove the index file and open the log again";
        Err(Error::corrupt(&self.data_path(), u64::from(row.position), range.offsets, what))
    }

    fn load(&self) -> Result<Arc<Loaded>, Error> {
        let mut loaded = self.loaded.lock();
        if let Some(loaded) = &*loaded {
            return Ok(Arc::clone(loaded));
        }
        let data_path = self.data_path();
        let names = self.names()?;
        let file =
            self.fs.open(&data_path, OpenMode::Read).map_err(|error| Error::io("open", &data_path, error))?;
        let rows = self.rows_or_rebuilt(&*file)?;
        drop(names);
        let map = file.map(self.footer.data_len).map_err(|error| Error::io("map", &data_path, error))?;
        let bytes = Bytes::from_owner(MapOwner(Arc::clone(&map)));
        let fresh = Arc::new(Loaded { map, bytes, rows });
        *loaded = Some(Arc::clone(&fresh));
        Ok(fresh)
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

    fn data_path(&self) -> PathBuf {
        path(&self.dir, self.footer.base, DATA)
    }
}

/// A row with the bytes and offsets that it stands for.
struct RowRange {
    row: Row,
    bytes: Range<usize>,
    offsets: Range<Offset>,
    /// No batch of it was appended later.
    appended_by: TimestampMs,
}
