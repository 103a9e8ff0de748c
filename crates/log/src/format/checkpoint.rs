//! The file `checkpoint`: up to where each log of a set is known to be on disk.
//!
//! It decides what damage means: before it, bytes that were promised are gone; after it, the
//! write that tore was never acknowledged, or cannot be told from one. Of a log that was closed cleanly
//! it is the end, and nothing is behind it.

use std::collections::BTreeMap;
use std::path::Path;

use logmill_record::Offset;
use uuid::Uuid;

use super::{Reader, Writer};
use crate::error::Error;

const MAGIC: [u8; 4] = *b"LMCP";
const ROW_LEN: usize = 16 + 3 * 8 + 4;
/// The log was closed cleanly.
const FLAG_CLEAN: u32 = 1;

/// How far one log is known to be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Durable {
    /// Base offset of the active segment.
    pub(crate) active_base: Offset,
    /// The offset after the last durable record.
    pub(crate) end: Offset,
    /// The length of the active segment's durable bytes.
    pub(crate) position: u64,
}

/// What the checkpoint says of one log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Row {
    pub(crate) durable: Durable,
    /// The log was closed cleanly there: nothing lies behind, and the names of its files are on disk.
    /// In the file it counts only if the set was closed cleanly too, since it stays there while the
    /// log is open again.
    pub(crate) clean: bool,
}

/// The checkpoint of a set, by the logs' identities.
pub(crate) type Checkpoint = BTreeMap<Uuid, Row>;

pub(crate) fn encode(checkpoint: &Checkpoint) -> Vec<u8> {
    let mut writer = Writer::new(MAGIC);
    writer.u32(u32::try_from(checkpoint.len()).expect("a set holds fewer than 2^32 logs"));
    for (id, Row { durable, clean }) in checkpoint {
        writer.bytes(id.as_bytes());
        writer.u64(durable.active_base.get());
        writer.u64(durable.end.get());
        writer.u64(durable.position);
        writer.u32(if *clean { FLAG_CLEAN } else { 0 });
    }
    writer.finish()
}

pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Checkpoint, Error> {
    let mut reader = Reader::open(path, bytes, MAGIC)?;
    let rows = reader.u32()? as usize;
    if reader.remaining() != rows.saturating_mul(ROW_LEN) {
        return Err(reader.damaged("its length does not match its number of logs"));
    }
    let mut checkpoint = Checkpoint::new();
    for _ in 0..rows {
        let id = Uuid::from_bytes(reader.array()?);
        let active_base = reader.offset()?;
        let end = reader.offset()?;
        let position = reader.u64()?;
        let clean = reader.u32()? & FLAG_CLEAN != 0;
        checkpoint.insert(id, Row { durable: Durable { active_base, end, position }, clean });
    }
    Ok(checkpoint)
}
