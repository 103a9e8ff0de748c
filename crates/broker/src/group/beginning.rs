//! Units that begin at the latest where nothing is committed: that place is on disk before the member hears of them.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use logmill_record::Offset;

use super::{AssignedPartition, Assignment, CommittedOffset, GroupEvent, MemberHandle};
use crate::error::{Error, Reason};
use crate::fetch::{Isolation, locate};
use crate::limits::Limit;
use crate::offsets::OffsetToCommit;
use crate::topic::Position;

/// A disk may fail once, or for long.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Assignments that are not told yet, by unit.
#[derive(Debug, Default)]
pub(super) struct Beginnings(BTreeMap<String, Beginning>);

/// An assignment with the places where it begins, which are being committed.
struct Beginning {
    assignment: Assignment,
    commit: Pin<Box<dyn Future<Output = Result<(), Error>> + Send>>,
}

impl fmt::Debug for Beginning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Beginning").field("assignment", &self.assignment).finish_non_exhaustive()
    }
}

impl Beginnings {
    /// Commits where a unit begins; it is told [when that is on disk](Self::poll).
    pub(super) fn insert(&mut self, handle: &MemberHandle, isolation: Isolation, mut assignment: Assignment) {
        let mut starts = Vec::new();
        for of in assignment.partitions.iter_mut().filter(|of| of.committed.is_none()) {
            // What cannot be read says so in its data.
            let Some(offset) = latest(handle, of, isolation) else { continue };
            of.committed = Some(CommittedOffset { offset, last_epoch: None, metadata: String::new() });
            starts.push(OffsetToCommit::new(of.topic.as_str(), of.partition, offset));
        }
        let (unit, epoch) = (assignment.unit.clone(), assignment.epoch);
        let commit = Box::pin(commit_all(handle.clone(), unit.clone(), epoch, starts));
        self.0.insert(unit, Beginning { assignment, commit });
    }

    /// The assignment of a unit that is not told yet, to be told now or never.
    pub(super) fn take(&mut self, unit: &str) -> Option<Assignment> {
        self.0.remove(unit).map(|beginning| beginning.assignment)
    }

    /// The next assignment that may be told. One that is over by now is told too: that it is comes next.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<GroupEvent> {
        let ready =
            self.0.iter_mut().find_map(|(unit, beginning)| match beginning.commit.as_mut().poll(context) {
                Poll::Ready(committed) => Some((unit.clone(), committed)),
                Poll::Pending => None,
            });
        let Some((unit, committed)) = ready else { return Poll::Pending };
        let assignment = self.take(&unit);
        Poll::Ready(match (committed, assignment) {
            (Err(error), _) if !is_of_the_unit(&error) => GroupEvent::Closed(error),
            (_, Some(assignment)) => GroupEvent::Assigned(assignment),
            (_, None) => GroupEvent::Closed(Error::fault("an assignment")),
        })
    }
}

/// Whether an error is about the unit, of which more is heard, or about one of its partitions, whose data say so.
fn is_of_the_unit(error: &Error) -> bool {
    matches!(
        error.reason(),
        Reason::StaleAssignment
            | Reason::MemberUnknown
            | Reason::TopicNotFound
            | Reason::PartitionNotFound
            | Reason::OffsetOutOfRange
    )
}

fn latest(handle: &MemberHandle, of: &AssignedPartition, isolation: Isolation) -> Option<Offset> {
    let topic = handle.core.catalog.topic(&of.topic).ok().filter(|topic| topic.id == of.topic_id)?;
    let (offset, _) = locate(topic.partition(of.partition).ok()?, Position::Latest, isolation).ok()?;
    Some(offset)
}

/// Commits where a unit begins, however often it takes while it is its owner's.
async fn commit_all(
    handle: MemberHandle,
    unit: String,
    epoch: i32,
    starts: Vec<OffsetToCommit>,
) -> Result<(), Error> {
    let at_once = handle.core.bounds.limits().get(Limit::MaxCommitPartitions).max(1);
    let mut pause = FIRST_PAUSE;
    for part in starts.chunks(at_once) {
        while let Err(error) = handle.commit(&unit, epoch, part.to_vec()).await {
            let passes = matches!(
                error.reason(),
                Reason::OutcomeUnknown | Reason::PartitionReopening | Reason::DiskFull | Reason::IoFailed
            );
            if !passes {
                return Err(error);
            }
            tracing::warn!(group = %handle.coordinator.name, unit, %error, "where a unit begins is committed again");
            handle.core.timer.sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }
    Ok(())
}
