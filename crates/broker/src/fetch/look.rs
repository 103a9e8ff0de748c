//! One look into a partition, which may block: apart from the cursor that it is for, so that a disk that does not
//! answer holds up nothing else of what the cursor belongs to.

use std::sync::Arc;

use logmill_log::{AbortedTxn, ErrorKind, ReadOut};

use super::place::{Place, out_of_range};
use super::{FetchFrom, Isolation};
use crate::catalog::TopicState;
use crate::error::{Error, Reason};
use crate::exec::Turn;

/// See the module. It gives its turn back when it has ended.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) from: Arc<FetchFrom>,
    pub(super) topic: Arc<TopicState>,
    pub(super) isolation: Isolation,
    /// Where the cursor is, if that is known.
    pub(super) place: Option<Place>,
    /// Where it may block.
    pub(super) _turn: Option<Turn>,
    /// About how much to read; `None` only finds out where the cursor is, and that the log holds what the reader has.
    pub(super) max_bytes: Option<usize>,
}

/// What a look has brought.
#[derive(Debug)]
pub(super) struct Looked {
    /// Where the cursor was, and how the partition stands now.
    pub(super) place: Place,
    pub(super) outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// There is no place to read at.
    Nowhere(Error),
    /// There is one, and nothing was to be read.
    Settled,
    Read(ReadOut, Vec<AbortedTxn>),
    Failed(Error),
}

impl Look {
    /// Blocks.
    pub(super) fn run(self) -> Looked {
        let found = self
            .place
            .map_or_else(|| Place::find(&self.topic, &self.from, self.isolation), |place| (place, None));
        let (mut place, nowhere) = found;
        let outcome = match (nowhere, self.max_bytes) {
            (Some(error), _) => Outcome::Nowhere(error),
            (None, None) => self.settle(&mut place),
            (None, Some(max_bytes)) => self.read(&mut place, max_bytes),
        };
        Looked { place, outcome }
    }

    fn settle(&self, place: &mut Place) -> Outcome {
        match self.confirm(place) {
            Err(error) if error.reason() != Reason::PartitionReopening => Outcome::Failed(error),
            // Else the next read finds out.
            _ => Outcome::Settled,
        }
    }

    fn confirm(&self, place: &mut Place) -> Result<(), Error> {
        let partition = self.topic.partition(self.from.partition)?;
        let (log, generation) = partition.lane()?.serving();
        place.confirm(partition, &log, generation)
    }

    fn read(&self, place: &mut Place, max_bytes: usize) -> Outcome {
        self.read_on(place, max_bytes)
            .map_or_else(Outcome::Failed, |(read, aborted)| Outcome::Read(read, aborted))
    }

    fn read_on(&self, place: &mut Place, max_bytes: usize) -> Result<(ReadOut, Vec<AbortedTxn>), Error> {
        let partition = self.topic.partition(self.from.partition)?;
        let (log, generation) = partition.lane()?.serving();
        place.confirm(partition, &log, generation)?;
        let from = place.next;
        let read = self.isolation.read(&log, from, max_bytes).map_err(|error| match error.kind() {
            ErrorKind::OutOfRange => out_of_range(partition, from),
            _ => partition.explain(&error),
        })?;
        (place.start, place.end) = (read.start_offset, read.end_offset);
        place.last_stable = read.last_stable_offset;
        let is_told = self.isolation == Isolation::ReadCommitted;
        if !is_told || !read.chunks.iter().any(|chunk| chunk.transactional) {
            return Ok((read, Vec::new()));
        }
        let aborted = log.aborted(from..read.next_offset).map_err(|error| partition.explain(&error))?;
        Ok((read, aborted))
    }
}
