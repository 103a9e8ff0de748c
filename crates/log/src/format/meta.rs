//! The file `meta`: which log a directory holds, where it starts, and what its owner keeps with it.

use std::path::Path;

use bytes::Bytes;
use logmill_record::Offset;
use uuid::Uuid;

use super::{Reader, Writer};
use crate::error::{Error, ErrorKind};

/// The file's name.
pub(crate) const FILE: &str = "meta";

const MAGIC: [u8; 4] = *b"LMME";

/// The most that an owner keeps with a log.
const MAX_OWNER_BYTES: usize = 1 << 20;

/// Refuses what is too much to keep with a log.
pub(crate) fn check_owner(owner: &[u8]) -> Result<(), Error> {
    if owner.len() <= MAX_OWNER_BYTES {
        return Ok(());
    }
    let message =
        format!("an owner keeps at most 1 MiB with a log, not {} bytes; store them elsewhere", owner.len());
    Err(Error::new(ErrorKind::Invalid, message))
}

/// What is known of a log without opening it.
///
/// ```
/// use logmill_log::{LogOptions, LogSet, SetOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let dir = tempfile::tempdir()?;
/// let set = LogSet::open(dir.path(), SetOptions::default())?;
/// let log = set.create("orders", b"currency=EUR", LogOptions::default())?;
/// let meta = set.read_meta("orders")?;
/// assert_eq!(meta.id, log.id());
/// assert_eq!(meta.owner.as_ref(), b"currency=EUR");
/// assert_eq!(meta.start_offset.get(), 0);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LogMeta {
    /// The log's identity, never used again.
    pub id: Uuid,
    /// The first offset that is kept.
    pub start_offset: Offset,
    /// Compaction may have left gaps below this offset; above it a gap is damage.
    pub gaps_below: Offset,
    /// Compaction has been through all below this offset: there each key has one record.
    pub clean_below: Offset,
    /// What the owner stored with the log when it was created.
    pub owner: Bytes,
}

impl LogMeta {
    /// Of a new log.
    pub(crate) fn new(id: Uuid, owner: Bytes) -> Self {
        let zero = Offset::ZERO;
        Self { id, start_offset: zero, gaps_below: zero, clean_below: zero, owner }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.bytes(self.id.as_bytes());
        writer.u64(self.start_offset.get());
        writer.u64(self.gaps_below.get());
        writer.u64(self.clean_below.get());
        writer.u32(u32::try_from(self.owner.len()).expect("create() bounds the owner's bytes"));
        writer.bytes(&self.owner);
        writer.finish()
    }

    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::open(path, bytes, MAGIC)?;
        let id = Uuid::from_bytes(reader.array()?);
        let start_offset = reader.offset()?;
        let gaps_below = reader.offset()?;
        let clean_below = reader.offset()?;
        let owner_len = reader.u32()? as usize;
        let owner = Bytes::copy_from_slice(reader.bytes(owner_len)?);
        Ok(Self { id, start_offset, gaps_below, clean_below, owner })
    }
}
