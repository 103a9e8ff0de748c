//! Where units belong: the fewest moves to a balance.
//!
//! An assignment is *balanced* if no chain of hand-overs would make it more even: there are no members `a`, `b` such
//! that `a` has at least two units more than `b`, and `a` could give a unit to `b`, or give one to a member that then
//! gives one of its own on, and so forth to `b`, each only what the next may have. This is an optimal semi-matching
//! (Harvey, Ladner, Lovász, Tamir: "Semi-matchings for bipartite graphs and load balancing", 2006): nothing can lower
//! the largest count, nor then the next. Where all members may have all units, counts differ by at most one.
//!
//! Units stay where they are unless such a chain asks for them. A chain is the shortest that there is, it begins at the
//! member with the most and ends at the one with the least, so that where all may have all, no assignment that is
//! balanced has fewer moves. What a member does not have yet goes before what it works on.
//!
//! Every chain lowers the sum of the squares of the counts, so this ends; it has no choice that is not made by order.

use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Units that the same members may have.
#[derive(Debug, Default)]
pub(super) struct Class {
    /// Those members, in order.
    pub(super) eligible: Vec<usize>,
    pub(super) units: Vec<Place>,
}

/// Where a unit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The member that has it, or that it is on its way to; one of those eligible.
    pub(super) at: Option<usize>,
    /// The member that works on it and was not told to stop, and so can keep it at no cost.
    pub(super) owner: Option<usize>,
}

/// Gives every unit that a taker is eligible for a place, and brings the places into balance. `takers` says of each
/// member whether units may come to it; the others may only keep what they have.
pub(super) fn balance(takers: &[bool], classes: &mut [Class]) {
    let mut balance = Balance {
        takers,
        load: vec![0; takers.len()],
        held: takers.iter().map(|_| BTreeMap::new()).collect(),
        classes,
    };
    balance.count();
    balance.place_the_loose();
    while balance.improve() {}
}

struct Balance<'a> {
    takers: &'a [bool],
    classes: &'a mut [Class],
    /// How many units each member has.
    load: Vec<usize>,
    /// By member, and by class.
    held: Vec<BTreeMap<usize, Held>>,
}

/// What a member has of a class, by what it costs to take it away.
#[derive(Debug, Default)]
struct Held {
    /// Nobody works on these: they cost nothing.
    loose: Vec<usize>,
    /// On their way, by their present owner: a move is called off, and another begins, unless it is back to the owner.
    arriving: BTreeMap<usize, Vec<usize>>,
    /// The member works on these.
    owned: Vec<usize>,
}

impl Held {
    /// The cheapest to give to that member.
    fn take(&mut self, to: usize) -> Option<usize> {
        self.take_arriving(to)
            .or_else(|| self.loose.pop())
            .or_else(|| {
                let owner = *self.arriving.last_key_value()?.0;
                self.take_arriving(owner)
            })
            .or_else(|| self.owned.pop())
    }

    fn take_arriving(&mut self, owner: usize) -> Option<usize> {
        let units = self.arriving.get_mut(&owner)?;
        let unit = units.pop();
        if units.is_empty() {
            self.arriving.remove(&owner);
        }
        unit
    }

    fn is_empty(&self) -> bool {
        self.loose.is_empty() && self.arriving.is_empty() && self.owned.is_empty()
    }

    /// What the cheapest costs.
    fn cost(&self) -> u8 {
        match (self.loose.is_empty(), self.arriving.is_empty()) {
            (false, _) => 0,
            (true, false) => 1,
            (true, true) => 2,
        }
    }
}

/// One hand-over: a unit of the class from the member before to this one.
#[derive(Clone, Copy)]
struct HandOver {
    from: usize,
    class: usize,
}

impl Balance<'_> {
    fn count(&mut self) {
        for class in 0..self.classes.len() {
            for unit in 0..self.classes[class].units.len() {
                if let Some(member) = self.classes[class].units[unit].at {
                    self.put(class, unit, member);
                }
            }
        }
    }

    fn put(&mut self, class: usize, unit: usize, member: usize) {
        let place = &mut self.classes[class].units[unit];
        place.at = Some(member);
        let held = self.held[member].entry(class).or_default();
        match place.owner {
            None => held.loose.push(unit),
            Some(owner) if owner == member => held.owned.push(unit),
            Some(owner) => held.arriving.entry(owner).or_default().push(unit),
        }
        self.load[member] += 1;
    }

    /// Those with the fewest takers first: they have the least choice.
    fn place_the_loose(&mut self) {
        let mut order: Vec<usize> = (0..self.classes.len()).collect();
        order.sort_by_key(|class| self.classes[*class].eligible.len());
        for class in order {
            for unit in 0..self.classes[class].units.len() {
                if self.classes[class].units[unit].at.is_some() {
                    continue;
                }
                let takers = self.classes[class].eligible.iter().copied().filter(|m| self.takers[*m]);
                let Some(least) = takers.min_by_key(|member| self.load[*member]) else { break };
                self.put(class, unit, least);
            }
        }
    }

    /// Moves along one chain, if there is any.
    fn improve(&mut self) -> bool {
        let takers = (0..self.load.len()).filter(|member| self.takers[*member]);
        let Some(least) = takers.map(|member| self.load[member]).min() else { return false };
        let mut givers: Vec<usize> = (0..self.load.len()).filter(|m| self.load[*m] >= least + 2).collect();
        givers.sort_by_cached_key(|member| (Reverse(self.load[*member]), self.cost(*member)));
        for giver in givers {
            if let Some((reached_by, to)) = self.chain(giver, least) {
                return self.hand_over(giver, &reached_by, to).is_some();
            }
        }
        false
    }

    /// The shortest chain to a member with at least two units less: to the one with the least of those as near, which is
    /// no less than `least`. How each member is reached, and which one is the last.
    fn chain(&self, giver: usize, least: usize) -> Option<(Vec<Option<HandOver>>, usize)> {
        let mut reached_by: Vec<Option<HandOver>> = vec![None; self.load.len()];
        let mut nearest = vec![giver];
        while !nearest.is_empty() {
            let mut next = Vec::new();
            for (from, class) in self.cheapest_first(&nearest) {
                for to in self.classes[class].eligible.iter().copied() {
                    if !self.takers[to] || to == giver || reached_by[to].is_some() {
                        continue;
                    }
                    reached_by[to] = Some(HandOver { from, class });
                    if self.load[to] == least {
                        return Some((reached_by, to));
                    }
                    next.push(to);
                }
            }
            let fewest = next.iter().copied().min_by_key(|member| self.load[*member]);
            if let Some(to) = fewest.filter(|to| self.load[*to] + 2 <= self.load[giver]) {
                return Some((reached_by, to));
            }
            nearest = next;
        }
        None
    }

    /// What the cheapest of its units costs.
    fn cost(&self, member: usize) -> Option<u8> {
        self.held[member].values().map(Held::cost).min()
    }

    /// What these members could give, and of what class.
    fn cheapest_first<'a>(&'a self, members: &'a [usize]) -> impl Iterator<Item = (usize, usize)> + 'a {
        (0..3).flat_map(move |cost| {
            members.iter().flat_map(move |member| {
                let at_cost = self.held[*member].iter().filter(move |(_, held)| held.cost() == cost);
                at_cost.map(move |(class, _)| (*member, *class))
            })
        })
    }

    /// From the end of the chain to its beginning, so that nobody gives on what it has just got. `None` if the chain
    /// has a gap.
    fn hand_over(&mut self, giver: usize, reached_by: &[Option<HandOver>], mut to: usize) -> Option<()> {
        while to != giver {
            let HandOver { from, class } = reached_by[to]?;
            let held = self.held[from].get_mut(&class)?;
            let unit = held.take(to)?;
            if held.is_empty() {
                self.held[from].remove(&class);
            }
            self.load[from] -= 1;
            self.put(class, unit, to);
            to = from;
        }
        Some(())
    }
}
