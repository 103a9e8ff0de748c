//! The file `set`: what a data directory is, and how often it has been opened.

use std::path::Path;

use uuid::Uuid;

use super::{Reader, Writer};
use crate::error::Error;

const MAGIC: [u8; 4] = *b"LMST";

/// The contents of `set`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SetFile {
    /// The data directory's identity.
    pub(crate) id: Uuid,
    /// Moved on at each open, and before a poisoned log is opened again: the leader epoch.
    pub(crate) open_counter: u32,
    /// Written at a clean close and gone with the next open.
    pub(crate) clean: bool,
}

impl SetFile {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new(MAGIC);
        writer.bytes(self.id.as_bytes());
        writer.u32(self.open_counter);
        writer.u32(self.clean.into());
        writer.finish()
    }

    pub(crate) fn decode(path: &Path, bytes: &[u8]) -> Result<Self, Error> {
        let mut reader = Reader::open(path, bytes, MAGIC)?;
        let id = Uuid::from_bytes(reader.array()?);
        Ok(Self { id, open_counter: reader.u32()?, clean: reader.u32()? == 1 })
    }
}
