//! Searching a segment for leader epochs, by the rows of its index.
//!
//! Epochs never fall from batch to batch. They lie before a batch's CRC, so that only a whole row, whose
//! checksum covers them, says what they are.

use logmill_record::Offset;

use crate::error::Error;

/// The epochs of the batches that one row stands for.
#[derive(Debug)]
pub(crate) struct RowEpochs {
    /// The offset at which the row begins.
    pub(crate) begins: Offset,
    /// Where each batch begins, and its epoch; none if the row is damaged.
    pub(crate) batches: Option<Vec<(Offset, i32)>>,
}

impl RowEpochs {
    /// Whether a batch of an epoch above this one is among them. What is damaged may be one: whoever is sent
    /// there goes back too far rather than not far enough.
    fn rises_above(&self, epoch: i32) -> bool {
        let last = self.batches.as_ref().map(|batches| batches.last());
        last.is_none_or(|last| last.is_some_and(|(_, last)| *last > epoch))
    }

    fn first_above(&self, epoch: i32) -> Offset {
        let mut batches = self.batches.iter().flatten();
        batches.find(|(_, found)| *found > epoch).map_or(self.begins, |(offset, _)| *offset)
    }
}

/// The epoch of the last batch that begins below `offset` in the rows up to `last`. What is damaged is passed
/// over.
pub(crate) fn epoch_before(
    offset: Offset,
    last: usize,
    read: impl Fn(usize) -> Result<RowEpochs, Error>,
) -> Result<Option<i32>, Error> {
    for row in (0..=last).rev() {
        let batches = read(row)?.batches.unwrap_or_default();
        if let Some((_, epoch)) = batches.iter().rfind(|(begins, _)| *begins < offset) {
            return Ok(Some(*epoch));
        }
    }
    Ok(None)
}

/// Where the first batch of a larger epoch begins, in so many rows; or damage that may hide it.
pub(crate) fn first_above(
    epoch: i32,
    rows: usize,
    read: impl Fn(usize) -> Result<RowEpochs, Error>,
) -> Result<Option<Offset>, Error> {
    let (mut low, mut high, mut found) = (0, rows, None);
    while low < high {
        let middle = low + (high - low) / 2;
        let row = read(middle)?;
        if row.rises_above(epoch) {
            (high, found) = (middle, Some(row.first_above(epoch)));
        } else {
            low = middle + 1;
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of two batches each, at offsets 0, 1, 2, ... with these epochs; 0 stands for damage.
    fn rows(epochs: &[i32]) -> impl Fn(usize) -> Result<RowEpochs, Error> {
        let batches: Vec<(Offset, i32)> = (0..).map(Offset).zip(epochs.iter().copied()).collect();
        let rows: Vec<Vec<(Offset, i32)>> = batches.chunks(2).map(<[_]>::to_vec).collect();
        move |row| {
            let batches = rows[row].clone();
            let whole = batches.iter().all(|(_, epoch)| *epoch > 0);
            Ok(RowEpochs { begins: batches[0].0, batches: whole.then_some(batches) })
        }
    }

    #[test]
    fn the_first_batch_of_a_larger_epoch_is_found_wherever_it_is() {
        let epochs = [1, 1, 1, 2, 2, 4, 4, 4];
        for epoch in 0..5 {
            let expected = (0..).zip(epochs).find(|(_, found)| *found > epoch).map(|(at, _)| Offset(at));
            assert_eq!(first_above(epoch, 4, rows(&epochs)).unwrap(), expected, "above {epoch}");
        }
    }

    #[test]
    fn damage_counts_as_a_later_epoch_for_who_is_sent_back_and_not_for_who_asks_what_was_before() {
        let epochs = [1, 1, 0, 0, 2, 2];
        assert_eq!(first_above(1, 3, rows(&epochs)).unwrap(), Some(Offset(2)));
        assert_eq!(epoch_before(Offset(4), 1, rows(&epochs)).unwrap(), Some(1));
        assert_eq!(epoch_before(Offset(5), 2, rows(&epochs)).unwrap(), Some(2));
        assert_eq!(epoch_before(Offset(0), 0, rows(&epochs)).unwrap(), None);
    }
}
