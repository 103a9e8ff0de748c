//! Making a log's `.state` files again, each from the one before it and the batches in between.

use std::path::Path;

use super::files::{read_index, remove};
use super::plan::Segment;
use crate::env::{Fs, OpenMode};
use crate::error::Error;
use crate::format::atomic;
use crate::log::{Producers, load_state, replay};
use crate::segment::{DATA, Gaps, INDEX, STATE, path};

/// Writes what is missing, and removes what is of no use and has nothing to say.
pub(super) fn make_states(fs: &dyn Fs, dir: &Path, segments: &[Segment]) -> Result<(), Error> {
    let mut producers = Producers::default();
    for segment in segments {
        let state = path(dir, segment.base, STATE);
        // The newest segment after a kill: the open makes its own.
        let Some((footer, _)) = read_index(fs, &path(dir, segment.base, INDEX), segment.base) else {
            return remove(fs, &state);
        };
        if let Some(good) = load_state(fs, dir, &footer)? {
            producers = Producers::at_end(good);
            continue;
        }
        producers.take_aborted();
        let data = path(dir, segment.base, DATA);
        let gaps = if segment.gaps { Gaps::Below(segment.end) } else { Gaps::None };
        fs.open(&data, OpenMode::Read)
            .and_then(|file| replay(&*file, &footer, gaps, footer.last_appended_at, &mut producers))
            .map_err(|error| Error::io("read", &data, error))?;
        if !segment.gaps && !footer.is_contiguous() {
            // An empty batch stands where batches of some producer were.
            producers.lose_sequences();
        }
        if footer.producers || !producers.is_empty() {
            atomic::replace(fs, &state, &producers.to_file().encode(&footer))?;
        } else {
            remove(fs, &state)?;
        }
    }
    Ok(())
}
