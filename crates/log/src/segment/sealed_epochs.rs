//! Leader epochs in a sealed segment. Where its footer says that there is but one, nothing is read.

use std::sync::Arc;

use logmill_record::Offset;

use super::Gaps;
use super::epoch_search::{RowEpochs, epoch_before, first_above};
use super::sealed::{Loaded, Sealed};
use crate::error::Error;

impl Sealed {
    /// The leader epoch of the last batch that begins below `offset`; none if there is no such batch here.
    pub(crate) fn epoch_before(self: &Arc<Self>, offset: Offset) -> Result<Option<i32>, Error> {
        let footer = self.footer();
        if footer.batches == 0 || offset <= footer.base {
            return Ok(None);
        }
        let one = (footer.first_epoch == footer.last_epoch).then_some(footer.last_epoch);
        if one.is_some() && matches!(self.gaps, Gaps::None) {
            return Ok(one);
        }
        let loaded = self.load()?;
        if one.is_some() {
            return Ok(one.filter(|_| self.first_batch(&loaded) < offset));
        }
        let last = self.row_of(&loaded, Offset(offset.get() - 1));
        epoch_before(offset, last, |row| self.row_epochs(&loaded, row))
    }

    /// Where the first batch of a larger epoch begins; none if there is none here.
    pub(crate) fn end_of_epoch(self: &Arc<Self>, epoch: i32) -> Result<Option<Offset>, Error> {
        let footer = self.footer();
        if footer.batches == 0 || footer.last_epoch <= epoch {
            return Ok(None);
        }
        let all = footer.first_epoch > epoch;
        if all && matches!(self.gaps, Gaps::None) {
            return Ok(Some(footer.base));
        }
        let loaded = self.load()?;
        if all {
            return Ok(Some(self.first_batch(&loaded)));
        }
        first_above(epoch, loaded.rows.len(), |row| self.row_epochs(&loaded, row))
    }

    /// Where the first batch begins: behind the base, if compaction took some out.
    fn first_batch(&self, loaded: &Loaded) -> Offset {
        let relative = loaded.rows.get(0).map_or(0, |row| row.relative_offset);
        self.base().saturating_add(relative.into())
    }

    fn row_epochs(&self, loaded: &Loaded, index: usize) -> Result<RowEpochs, Error> {
        let row = self.row(loaded, index)?;
        let bytes = self.bytes(loaded, row.bytes.clone())?;
        Ok(self.check().epochs(&row, &bytes))
    }
}
