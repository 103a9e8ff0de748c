//! What the machine wants done.

use super::names::{AssignmentEpoch, MemberStream, UnitId};
use super::restore::OwnershipRecord;

/// Something to do. The caller takes actions from [`Group::take_actions`](super::Group::take_actions) after every call
/// and does them in their order, as far as they concern the same unit or the same stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// End what owners of the unit up to this epoch have left: abort transactions that are open, let no step that is
    /// under way become one that counts. Answer with [`Group::settled`](super::Group::settled), and go on trying until
    /// it is: nobody gets the unit before.
    Settle { unit: UnitId, epoch: AssignmentEpoch },
    /// Make durable who is to have the unit, or that nobody has it and nobody is awaited for it. Answer with
    /// [`Group::persisted`](super::Group::persisted) when it is, or with
    /// [`Group::persist_failed`](super::Group::persist_failed) if it may not be. Of a unit, only one is under way.
    Persist(OwnershipRecord),
    /// What was persisted of the unit is of no more use: its topic is gone, and never comes again. What is called the
    /// same may come, so this epoch is to be remembered: see [`Group::restore`](super::Group::restore).
    Forget { unit: UnitId, epoch: AssignmentEpoch },
    /// The unit is the member's from now on, and every warm-up of it is over.
    Assign { to: MemberStream, unit: UnitId, epoch: AssignmentEpoch },
    /// Send nothing more of the unit, and tell the member to finish with it: it commits, then confirms, which is
    /// [`Group::revoked`](super::Group::revoked). Until then, or until its rebalance timeout, it owns the unit.
    Revoke { to: MemberStream, unit: UnitId, epoch: AssignmentEpoch },
    /// The unit is going to move to the member, which prepares for it and then says
    /// [`Group::warmed`](super::Group::warmed). It owns nothing yet.
    WarmUp { to: MemberStream, unit: UnitId },
    /// The unit does not come after all.
    CancelWarmUp { to: MemberStream, unit: UnitId },
    /// The member owned the unit and does not any more: nothing that it commits from now on counts.
    Lost { to: MemberStream, unit: UnitId, epoch: AssignmentEpoch, why: LostWhy },
    /// Tell the stream why it ends, and end it. Its member owns nothing on it any more.
    Close { to: MemberStream, why: CloseWhy },
}

/// Why a member that stays has lost a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LostWhy {
    /// It did not confirm a revoke within its rebalance timeout.
    RevokeTimedOut,
    /// A topic of the unit was deleted, or the member itself declares the unit no more.
    Gone,
}

/// Why a stream has to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseWhy {
    /// The same member has come on another stream.
    Replaced,
    /// Another member has come with its instance id. Coming back, this one would take it away again, so its client
    /// must not try by itself: two processes are configured with one id.
    InstanceTaken,
    /// Nothing was heard from it for its session timeout.
    Expired,
}
