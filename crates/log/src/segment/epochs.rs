//! Which leader epochs may follow one another in a log.

/// They are the data directory's open counter, so they never fall from batch to batch, and none
/// is above it. They lie before the CRC: without an index to hold against
/// them, this is all that is known.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Epochs {
    last: i32,
    most: i32,
}

impl Epochs {
    /// After a batch with epoch `last`, where the directory's counter is at `most`.
    pub(crate) fn after(last: i32, most: i32) -> Self {
        // An epoch that was indexed after it was damaged must not make all that follow wrong.
        Self { last: if last <= most { last.max(1) } else { 1 }, most }
    }

    /// That of the batch before.
    pub(crate) fn last(&self) -> i32 {
        self.last
    }

    /// Whether this can be the next epoch.
    pub(crate) fn fit(&self, epoch: i32) -> bool {
        (self.last..=self.most).contains(&epoch)
    }

    /// Whether this can be the next epoch, which it then is.
    pub(crate) fn admit(&mut self, epoch: i32) -> bool {
        let fits = self.fit(epoch);
        if fits {
            self.last = epoch;
        }
        fits
    }

    /// Whether this can be the next epoch where `behind` follows: of two that fall, the one that
    /// rose is the one not to believe.
    pub(crate) fn admit_before(&mut self, epoch: i32, behind: Option<i32>) -> bool {
        let overtaken = behind.is_some_and(|behind| (self.last..epoch).contains(&behind));
        !overtaken && self.admit(epoch)
    }

    /// What is wrong with an epoch that cannot be next.
    pub(crate) fn refusal(&self, epoch: i32) -> String {
        let Self { last, most } = self;
        format!(
            "a batch claims leader epoch {epoch}, which cannot stand here: they go up from {last} to {most}"
        )
    }
}
