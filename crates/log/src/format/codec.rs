//! Writing and reading small checksummed files.

use std::path::Path;

use logmill_record::Offset;

use super::VERSION;
use crate::error::{Error, ErrorKind};

/// Builds a file: name and version first, a CRC-32 of everything last.
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    pub(crate) fn new(magic: [u8; 4]) -> Self {
        let mut writer = Self(magic.to_vec());
        writer.u16(VERSION);
        writer.u16(0);
        writer
    }

    pub(crate) fn u16(&mut self, value: u16) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u32(&mut self, value: u32) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn u64(&mut self, value: u64) {
        self.0.extend(value.to_le_bytes());
    }

    pub(crate) fn bytes(&mut self, value: &[u8]) {
        self.0.extend(value);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        let checksum = crc32fast::hash(&self.0);
        self.u32(checksum);
        self.0
    }
}

/// Reads a file that [`Writer`] built, having checked its name, version and checksum.
pub(crate) struct Reader<'a> {
    path: &'a Path,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn open(path: &'a Path, bytes: &'a [u8], magic: [u8; 4]) -> Result<Self, Error> {
        check_prefix(path, bytes, magic)?;
        let (body, checksum) =
            bytes.split_last_chunk::<4>().ok_or_else(|| damaged(path, "it is too short"))?;
        if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
            return Err(damaged(path, "its checksum does not match"));
        }
        Ok(Self { path, rest: &body[PREFIX_LEN.min(body.len())..] })
    }

    /// [`Reader::open`] for a file that can be made again from the data: one that says that it is of a
    /// newer version, and has not the checksum that every version has, is damaged.
    pub(crate) fn open_sidecar(path: &'a Path, bytes: &'a [u8], magic: [u8; 4]) -> Result<Self, Error> {
        Self::open(path, bytes, magic).map_err(|error| {
            let is_whole = bytes
                .split_last_chunk::<4>()
                .is_some_and(|(body, checksum)| crc32fast::hash(body) == u32::from_le_bytes(*checksum));
            if is_whole { error } else { not_newer(path, error) }
        })
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        self.take().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, Error> {
        self.take().map(u64::from_le_bytes)
    }

    pub(crate) fn offset(&mut self) -> Result<Offset, Error> {
        Offset::new(self.u64()?).ok_or_else(|| self.damaged("it holds an offset that is out of range"))
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        self.take()
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<&'a [u8], Error> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.too_short())?;
        self.rest = rest;
        Ok(head)
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn damaged(&self, what: &str) -> Error {
        damaged(self.path, what)
    }

    fn take<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| self.too_short())?;
        self.rest = rest;
        Ok(*head)
    }

    fn too_short(&self) -> Error {
        damaged(self.path, "it is too short")
    }
}

const PREFIX_LEN: usize = 8;

/// Checks the name and the version that every file begins with.
pub(crate) fn check_prefix(path: &Path, bytes: &[u8], magic: [u8; 4]) -> Result<(), Error> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX_LEN>() else {
        return Err(damaged(path, "it is too short"));
    };
    if prefix[..4] != magic {
        return Err(damaged(path, "it does not begin as such a file does"));
    }
    let version = u16::from_le_bytes([prefix[4], prefix[5]]);
    if version > VERSION {
        let message = format!(
            "{} has format version {version}, written by a newer Logmill; this one reads up to \
             {VERSION}: use the newer program",
            path.display(),
        );
        return Err(Error::new(ErrorKind::NewerFormat, message).at_path(path));
    }
    if version == 0 {
        return Err(damaged(path, "it has format version 0"));
    }
    Ok(())
}

/// Damage, in place of an error that takes the file for a newer program's.
pub(crate) fn not_newer(path: &Path, error: Error) -> Error {
    let newer = error.kind() == ErrorKind::NewerFormat;
    if newer { damaged(path, "its version is not the one that was written") } else { error }
}

pub(crate) fn damaged(path: &Path, what: &str) -> Error {
    let message = format!(
        "{} is damaged: {what}; run `logmill log repair` on the data directory, which says what it would do",
        path.display()
    );
    Error::new(ErrorKind::Corrupt, message).at_path(path)
}
