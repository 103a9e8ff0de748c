//! A member that only says how far it has read, one commit behind the other.

use std::collections::BTreeMap;

use logmill_broker::{Error, Reason};
use logmill_record::Offset;

use crate::member::{Member, News, Owned, to_commit};
use crate::standing::Spot;
use crate::world::{Call, World, answer};

pub(crate) struct Committer {
    pub(crate) member: Member,
    /// How far it is, by unit.
    at: BTreeMap<String, Offset>,
    /// How far it was acknowledged, by epoch and partition; also before the last start of the node.
    furthest: BTreeMap<(i32, Spot), Offset>,
    under_way: Vec<UnderWay>,
}

struct UnderWay {
    owned: Owned,
    offset: Offset,
    said: String,
    /// It must be refused, for this reason.
    in_vain: Option<&'static str>,
    call: Call<Result<(), Error>>,
}

impl Committer {
    pub(crate) fn new(group: &'static str, has_units: bool, instance: Option<&'static str>) -> Self {
        let member = Member::new(group, has_units, instance);
        Self { member, at: BTreeMap::new(), furthest: BTreeMap::new(), under_way: Vec::new() }
    }

    pub(crate) fn go_on(&mut self, world: &mut World) {
        if world.is_stopped(self.member.group) {
            return self.member.stop(world);
        }
        if !self.member.is_in() {
            if world.one_in(4) {
                return self.commit_as_former(world);
            }
            // Two of one instance shall not do nothing but succeed each other.
            if world.one_in(if self.member.instance.is_some() { 4 } else { 2 }) {
                self.member.join(world);
            }
            return;
        }
        match world.below(60) {
            0 => self.member.leave(world),
            1 => self.member.lost(),
            2 => self.member.reborn(),
            3 => return self.commit_as_former(world),
            _ => {}
        }
        let units: Vec<String> = self.member.units.keys().cloned().collect();
        if units.is_empty() {
            return;
        }
        let unit = units[world.index(units.len())].clone();
        let owned = self.member.units[&unit].clone();
        if owned.revoked && world.one_in(4) {
            return self.member.confirm(world, &unit);
        }
        let at = self.at.entry(unit.clone()).or_insert(owned.committed);
        // Often past the end, which is refused.
        let offset = at.saturating_add(world.below(4));
        *at = offset;
        self.commit(world, &unit, owned, offset);
        if world.one_in(10) {
            self.go_back(world, &unit);
        }
    }

    fn commit(&mut self, world: &mut World, unit: &str, owned: Owned, offset: Offset) {
        let Some(handle) = self.member.handle.clone() else { return };
        let is_over = world.ledger.owners.is_over(self.member.group, unit, owned.epoch);
        let who = format!("{} {unit} {}", self.member.group, owned.epoch);
        let said = world.ledger.standings.commit(&who, owned.pass, offset);
        let call = handle.commit(unit, owned.epoch, vec![to_commit(&said, owned.partition, offset)]);
        let in_vain = is_over.then_some("another owns the unit");
        self.under_way.push(UnderWay { owned, offset, said, in_vain, call: Box::pin(call) });
    }

    /// Which an owner does not do, and the node does not let it.
    fn go_back(&mut self, world: &mut World, unit: &str) {
        let Some(owned) = self.member.units.get(unit).cloned() else { return };
        let spot = (owned.topic_id, owned.partition);
        let Some(there) = self.furthest.get(&(owned.epoch, spot)).copied() else { return };
        if there.get() == 0 {
            return;
        }
        if there <= owned.committed {
            world.count("commits that go back to before a restart or a break");
        }
        self.commit(world, unit, owned, Offset(there.get() - 1));
        self.under_way.last_mut().expect("it was sent").in_vain = Some("it goes back");
    }

    /// With an epoch that is over, if the unit has moved.
    fn commit_as_former(&mut self, world: &mut World) {
        let Some((unit, owned, handle)) = self.member.former.pop() else { return };
        let is_over = world.ledger.owners.is_over(self.member.group, &unit, owned.epoch);
        let offset = owned.committed.saturating_add(world.below(8));
        if !is_over {
            return; // It may be its own again, where its own commits are under way.
        }
        world.count("commits of a former owner");
        let who = format!("zombie {unit} {}", owned.epoch);
        let said = world.ledger.standings.commit(&who, owned.pass, offset);
        let call = handle.commit(&unit, owned.epoch, vec![to_commit(&said, owned.partition, offset)]);
        let in_vain = Some("another owns the unit");
        self.under_way.push(UnderWay { owned, offset, said, in_vain, call: Box::pin(call) });
    }

    pub(crate) fn collect(&mut self, world: &mut World) {
        for news in self.member.listen(world) {
            let (News::Assigned(unit) | News::Lost(unit)) = news;
            self.at.remove(&unit);
        }
        let group = self.member.group;
        let mut waiting = Vec::new();
        for mut it in std::mem::take(&mut self.under_way) {
            let Some(come) = answer(&mut it.call) else {
                waiting.push(it);
                continue;
            };
            let told = come.as_ref().map(|()| it.said.clone()).map_err(Error::reason);
            world.told(group, "commit of an owner", told);
            match come {
                Ok(()) => {
                    assert_eq!(it.in_vain, None, "{}: was taken", it.said);
                    let spot = (it.owned.topic_id, it.owned.partition);
                    world.ledger.standings.acknowledged(group, spot, &it.said);
                    let furthest = self.furthest.entry((it.owned.epoch, spot)).or_default();
                    *furthest = it.offset.max(*furthest);
                }
                Err(error) if is_refusal(error.reason()) => {
                    world.ledger.standings.refused(&it.said);
                    if error.reason() == Reason::OffsetOutOfRange {
                        // Below what is under way, of which none is taken either.
                        self.at.clear();
                    }
                }
                Err(_) => {}
            }
        }
        self.under_way = waiting;
    }

    pub(crate) fn cut_off(&mut self) {
        self.under_way.clear();
    }

    pub(crate) fn node_ended(&mut self) {
        self.cut_off();
        self.at.clear();
        self.member.node_ended();
    }
}

/// Whether nothing was committed, for sure.
pub(crate) fn is_refusal(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::StaleAssignment
            | Reason::OffsetOutOfRange
            | Reason::CommitWentBack
            | Reason::MemberUnknown
            | Reason::RequestInvalid
    )
}
