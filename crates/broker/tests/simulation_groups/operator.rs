//! An operator, who stops a group now and then to have it go on elsewhere, and sometimes forgets to stop it first.

use std::time::Duration;

use logmill_broker::{Error, OffsetReset, Position, Reason, ResetOffsets};
use logmill_record::Offset;

use crate::chain;
use crate::member::Member;
use crate::standing::{Decree, Spot};
use crate::steps;
use crate::world::{Call, IN, World, answer};

/// Those that it cares for.
const GROUPS: &[&str] = &["plain", "units", steps::GROUP, chain::GROUP];

/// By then every session is over that nobody keeps alive, unless the node was started meanwhile.
const SESSIONS_END: Duration = Duration::from_secs(7);

/// So often it looks after a group that it has stopped, and gives up.
const PATIENCE: u32 = 14;

#[derive(Default)]
pub(crate) struct Operator {
    /// How often it goes on with the group that is stopped.
    patience: u32,
    asked: Option<Asked>,
}

struct Asked {
    group: &'static str,
    what: What,
    to: Vec<(Spot, Option<Offset>)>,
    /// Where each is at least, or behind it.
    least: Vec<Option<Offset>>,
    /// `None` if it only looks.
    decree: Option<Decree>,
    /// It must be refused: somebody is there.
    in_vain: bool,
    call: Call<Resets>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum What {
    Look,
    Reset,
    DeleteOffsets,
    DeleteGroup,
}

impl What {
    const fn name(self) -> &'static str {
        match self {
            Self::Look => "look at a reset",
            Self::Reset => "reset",
            Self::DeleteOffsets => "delete offsets",
            Self::DeleteGroup => "delete group",
        }
    }
}

type Resets = Result<Vec<OffsetReset>, Error>;

impl What {
    const fn deletes(self) -> bool {
        matches!(self, Self::DeleteOffsets | Self::DeleteGroup)
    }

    fn call(self, world: &World, group: &str, partitions: Vec<u32>, to: Position) -> Call<Resets> {
        let (broker, context) = (&world.broker, &world.context);
        match self {
            Self::DeleteOffsets => {
                let deleted = broker.delete_offsets(context, group, IN);
                Box::pin(async move { deleted.await.map(|_| Vec::new()) })
            }
            Self::DeleteGroup => {
                let deleted = broker.delete_group(context, group);
                Box::pin(async move { deleted.await.map(|()| Vec::new()) })
            }
            Self::Look | Self::Reset => {
                let (group, topics) = (group.to_owned(), vec![(IN.to_owned(), partitions)]);
                let request = ResetOffsets { group, topics, to, execute: self != Self::Look };
                Box::pin(broker.reset_offsets(context, request))
            }
        }
    }
}

impl Operator {
    pub(crate) fn go_on(&mut self, world: &mut World, members: &[&Member]) {
        if self.asked.is_some() {
            return;
        }
        let Some(group) = world.stopped else {
            let group = GROUPS[world.index(GROUPS.len())];
            if world.one_in(4) {
                self.ask(world, group, members);
            } else {
                (world.stopped, self.patience) = (Some(group), PATIENCE);
                world.line(format!("operator: stops {group}"));
            }
            return;
        };
        self.patience -= 1;
        if self.patience == 0 {
            world.stopped = None;
        } else if world.one_in(3) {
            world.pass(SESSIONS_END);
        } else {
            self.ask(world, group, members);
        }
    }

    fn ask(&mut self, world: &mut World, group: &'static str, members: &[&Member]) {
        let all: Vec<u32> = (0..world.in_partitions).collect();
        let one = vec![all[world.index(all.len())]];
        let (mut what, mut to, partitions) = match world.below(8) {
            0 => (What::DeleteOffsets, None, (0..world.in_asked).collect()),
            1 => (What::DeleteGroup, None, (0..world.in_asked).collect()),
            2 => (What::Reset, Some(Offset(0)), all),
            3 => (What::Reset, Some(Offset(0)), one),
            _ => (What::Reset, Some(Offset(world.below(40))), one),
        };
        let spots = partitions.iter().map(|partition| (world.in_id, *partition));
        let spots: Vec<Spot> = spots.collect();
        let can_tell = spots.iter().all(|spot| world.ledger.standings.can_tell(group, *spot, to));
        if world.one_in(4) || !can_tell {
            (what, to) = (What::Look, to.or(Some(Offset(0))));
        }
        let spots: Vec<(Spot, Option<Offset>)> = spots.into_iter().map(|spot| (spot, to)).collect();
        let least = spots.iter().map(|(spot, _)| world.ledger.standings.least(group, *spot)).collect();
        let in_vain = members.iter().any(|member| member.group == group && member.is_there(world));
        let decree = (what != What::Look).then(|| world.ledger.standings.asked(group, &spots));
        world.line(format!("operator: {} of {group}: {spots:?}", what.name()));
        let to = Position::Offset(to.unwrap_or(Offset(0)));
        let call = what.call(world, group, partitions, to);
        self.asked = Some(Asked { group, what, to: spots, least, decree, in_vain, call });
    }

    /// Takes the answer, if it has come.
    pub(crate) fn collect(&mut self, world: &mut World, members: &[&Member]) {
        let Some(asked) = &mut self.asked else { return };
        let Some(come) = answer(&mut asked.call) else { return };
        let asked = self.asked.take().expect("it was there");
        let told = come.as_ref().map(|resets| format!("{resets:?}")).map_err(Error::reason);
        world.told("operator", asked.what.name(), told);
        match come {
            Ok(resets) => {
                asked.answered(world, &resets, members);
                if asked.what != What::Look && world.one_in(2) {
                    world.stopped = None;
                }
            }
            Err(error) if is_refusal(error.reason()) => {
                asked.decree.iter().for_each(|decree| world.ledger.standings.dropped(decree));
            }
            Err(_) => {}
        }
    }

    /// Nothing fails, and it waits for its answer. What it has stopped goes on.
    pub(crate) fn finish(&mut self, world: &mut World, members: &[&Member]) {
        world.stopped = None;
        let Some(asked) = &mut self.asked else { return };
        let call = std::mem::replace(&mut asked.call, Box::pin(std::future::pending()));
        let come = world.wait(call);
        asked.call = Box::pin(std::future::ready(come));
        self.collect(world, members);
    }

    /// The node has ended.
    pub(crate) fn node_ended(&mut self) {
        self.asked = None;
    }
}

impl Asked {
    fn answered(&self, world: &mut World, resets: &[OffsetReset], members: &[&Member]) {
        let Self { group, what, to, least, decree, in_vain, .. } = self;
        assert!(!in_vain, "{group}: {} was answered, and it has members", what.name());
        for ((reset, (spot, to)), least) in resets.iter().zip(to).zip(least) {
            assert_eq!((reset.partition, Some(reset.to)), (spot.1, *to), "{group}: {reset:?}");
            assert!(reset.from >= *least, "{group}: {reset:?}, and {least:?} was acknowledged");
        }
        assert!(what.deletes() || resets.len() == to.len(), "{group}: {resets:?}");
        let Some(decree) = decree else { return };
        world.ledger.standings.carried_out(decree);
        world.count(format!("{}: {group}", what.name()));
        for member in members.iter().filter(|member| member.group == *group && member.is_there(world)) {
            for (unit, owned) in &member.units {
                let begins = decree.pass(owned.partition).unwrap_or(0);
                assert!(owned.pass >= begins, "{group}: {} behind the back of {unit}'s owner", what.name());
            }
        }
    }
}

/// Whether nothing was changed, for sure.
fn is_refusal(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::GroupNotEmpty | Reason::GroupNotFound | Reason::OffsetOutOfRange | Reason::PartitionNotFound
    )
}
