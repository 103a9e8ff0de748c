//! How an idempotent producer numbers its batches: as `logmill-client` does, without its clock.

/// Of one partition.
pub(crate) struct Numbering {
    pub(crate) epoch: i16,
    next: i32,
    /// A batch failed, and nothing goes out while others are under way.
    recovering: bool,
    /// A batch that may be stored was given up: the next batch begins a new epoch.
    given_up: bool,
    /// The next request says that it knows of a failure.
    after_failure: bool,
}

impl Numbering {
    /// The log takes any sequence as the first of a producer, so some begin near the largest.
    pub(crate) fn starting_at(next: i32) -> Self {
        Self { epoch: 0, next, recovering: false, given_up: false, after_failure: false }
    }

    /// Whether the first batch may go; `may_be_stored` if it has a sequence from before.
    pub(crate) fn may_send(&self, may_be_stored: bool, in_flight: usize) -> bool {
        in_flight == 0 || !(self.recovering || (self.given_up && !may_be_stored))
    }

    /// The sequence of a batch of so many records that goes out now.
    pub(crate) fn number(&mut self, may_be_stored: Option<i32>, records: usize) -> i32 {
        if let Some(sequence) = may_be_stored {
            return sequence;
        }
        if std::mem::take(&mut self.given_up) {
            (self.epoch, self.next, self.after_failure) = (self.epoch + 1, 0, true);
        }
        let sequence = self.next;
        self.next = sequence.wrapping_add(i32::try_from(records).unwrap()) & i32::MAX;
        sequence
    }

    /// To be asked after the number.
    pub(crate) fn take_after_failure(&mut self) -> bool {
        std::mem::take(&mut self.recovering) | std::mem::take(&mut self.after_failure)
    }

    pub(crate) fn recover(&mut self) {
        self.recovering = true;
    }

    /// The batch with this sequence is not stored, nor is any behind it.
    pub(crate) fn rewind(&mut self, sequence: i32) {
        if self.next.wrapping_sub(sequence) & i32::MAX < 1 << 30 {
            self.next = sequence;
        }
    }

    pub(crate) fn give_up(&mut self) {
        self.given_up = true;
    }

    pub(crate) fn has_given_up(&self) -> bool {
        self.given_up
    }
}
