//! The files beside a segment's data, as the steps of a repair find and remove them.

use std::path::Path;

use logmill_record::Offset;

use crate::env::Fs;
use crate::error::Error;
use crate::format::atomic;
use crate::format::index::{Footer, Rows};

/// Removes a file that may not be there.
pub(super) fn remove(fs: &dyn Fs, path: &Path) -> Result<(), Error> {
    atomic::remove_left_over(fs, path).map_err(|error| Error::io("remove", path, error))
}

/// The index that was made of the whole segment, which still says when batches were appended.
pub(super) fn read_index(fs: &dyn Fs, index: &Path, base: Offset) -> Option<(Footer, Rows)> {
    let bytes = atomic::read(fs, index).ok()??;
    let (footer, rows) = Rows::whole(index, &bytes.into()).ok()?;
    (footer.base == base).then_some((footer, rows))
}
