//! The log's own files, byte for byte: `set`, `meta`, `checkpoint`, `.index`, `.state` and `.merge`.
//!
//! All integers are little-endian. Each file begins with four bytes that name it and a version;
//! a newer version is refused in a sentence, and a checksum that does not match is damage.
//! `docs/formats.md` specifies them and the golden files of this crate's tests pin them.

pub(crate) mod atomic;
pub(crate) mod checkpoint;
mod codec;
pub(crate) mod index;
pub(crate) mod meta;
pub(crate) mod replacement;
pub(crate) mod set_file;
pub(crate) mod state;

pub(crate) use codec::{Reader, Writer, damaged};

/// The version of every file of this crate.
pub(crate) const VERSION: u16 = 1;
