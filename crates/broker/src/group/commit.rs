//! How far the owner of a unit has read.

use std::future::Future;
use std::sync::Arc;

use super::hold::Held;
use super::member::MemberHandle;
use crate::error::Error;
use crate::limits::Limit;
use crate::offsets::{CheckedCommit, OffsetToCommit};

impl MemberHandle {
    /// Says how far the owner of a unit has read. It is on disk when the answer comes; whoever owns the unit next goes
    /// on there.
    ///
    /// Commits are taken in the order of the calls. Within an epoch an offset never goes back.
    ///
    /// # Errors
    /// [`StaleAssignment`](crate::Reason::StaleAssignment) of a unit that is another's now, or of a partition that is
    /// not in it; [`OffsetOutOfRange`](crate::Reason::OffsetOutOfRange) for an offset past the end;
    /// [`CommitWentBack`](crate::Reason::CommitWentBack); [`RequestInvalid`](crate::Reason::RequestInvalid);
    /// [`MemberUnknown`](crate::Reason::MemberUnknown), also where the group was deleted;
    /// [`TopicNotFound`](crate::Reason::TopicNotFound); [`PartitionNotFound`](crate::Reason::PartitionNotFound);
    /// [`LimitExceeded`](crate::Reason::LimitExceeded) for too many offsets;
    /// [`NodeClosing`](crate::Reason::NodeClosing). Nothing is committed then. After
    /// [`OutcomeUnknown`](crate::Reason::OutcomeUnknown) it is not known.
    pub fn commit(
        &self,
        unit: &str,
        epoch: i32,
        offsets: Vec<OffsetToCommit>,
    ) -> impl Future<Output = Result<(), Error>> + Send + 'static + use<> {
        let committed = self.heartbeat().and_then(|()| self.begin_commit(unit, epoch, offsets));
        async move { committed?.await }
    }

    fn begin_commit(
        &self,
        unit: &str,
        epoch: i32,
        offsets: Vec<OffsetToCommit>,
    ) -> Result<impl Future<Output = Result<(), Error>> + Send + 'static + use<>, Error> {
        let core = Arc::clone(&self.core);
        core.check_open()?;
        let count = offsets.len();
        let doing = || format!("a commit of {count} offsets");
        core.bounds.check(Limit::MaxCommitPartitions, count, doing, "make several commits")?;
        // Of two commits at the same time the order is that of the log: see `Offsets::commit`.
        let held: Held = self.coordinator.hold(&core, unit, epoch)?;
        let checked: Vec<CheckedCommit> = core.offsets.check(&core, &held, offsets)?;
        let written = core.offsets.commit(&core, checked)?;
        Ok(self.core.carry_on("a commit", async move {
            let outcome = written.await;
            drop(held);
            outcome
        }))
    }
}
