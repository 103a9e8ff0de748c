//! How far each group has come, as far as anybody was told.
//!
//! What a group reads from one place on is a *pass*: the first begins where nothing was committed, and each
//! [`Decree`] of an operator, who has it go on elsewhere, begins another.
//!
//! * Whoever owns a unit next goes on at, or behind, every commit of the pass that was acknowledged; and a commit that
//!   was refused is nowhere.
//! * Once a decree was answered, nothing of a pass before it counts: the group goes on exactly there. One that was
//!   refused, or was asked for only to look, changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use logmill_broker::Uuid;
use logmill_record::Offset;

/// A partition of one topic, also when another comes to have its name.
pub(crate) type Spot = (Uuid, u32);

/// A commit that somebody tried.
#[derive(Debug)]
struct Commit {
    offset: Offset,
    pass: usize,
    refused: bool,
}

/// That a group is to go on elsewhere in some partitions, each with the number of the pass that begins.
#[derive(Debug)]
pub(crate) struct Decree {
    group: String,
    passes: Vec<(Spot, usize)>,
}

#[derive(Debug)]
struct Standing {
    /// Where each pass begins; `None` where nothing is committed.
    begins: Vec<Option<Offset>>,
    /// The pass of the last decree that was carried out.
    decreed: usize,
    /// Those of decrees that may have been, or may yet be; and whether nothing is under way of it any more.
    maybe: BTreeMap<usize, bool>,
    /// Those that somebody was seen to begin.
    begun: BTreeSet<usize>,
    /// How far each has come.
    acknowledged: BTreeMap<usize, Offset>,
}

impl Default for Standing {
    fn default() -> Self {
        let (maybe, begun, acknowledged) = (BTreeMap::new(), BTreeSet::new(), BTreeMap::new());
        Self { begins: vec![None], decreed: 0, maybe, begun, acknowledged }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Standings {
    /// By what was said with it.
    commits: BTreeMap<String, Commit>,
    of: BTreeMap<(String, Spot), Standing>,
}

impl Decree {
    /// The pass that begins with it in a partition.
    pub(crate) fn pass(&self, partition: u32) -> Option<usize> {
        self.passes.iter().find(|((_, of), _)| *of == partition).map(|(_, pass)| *pass)
    }
}

impl Standings {
    fn of(&mut self, group: &str, spot: Spot) -> &mut Standing {
        self.of.entry((group.to_owned(), spot)).or_default()
    }

    /// Somebody commits; what is returned is said with it.
    pub(crate) fn commit(&mut self, who: &str, pass: usize, offset: Offset) -> String {
        let said = format!("{who}#{}", self.commits.len());
        self.commits.insert(said.clone(), Commit { offset, pass, refused: false });
        said
    }

    pub(crate) fn refused(&mut self, said: &str) {
        self.commits.get_mut(said).expect("it was tried").refused = true;
    }

    pub(crate) fn acknowledged(&mut self, group: &str, spot: Spot, said: &str) {
        let Commit { offset, pass, .. } = self.commits[said];
        let furthest = self.of(group, spot).acknowledged.entry(pass).or_insert(offset);
        *furthest = offset.max(*furthest);
    }

    /// How far the group has come in a pass, as far as anybody was told.
    pub(crate) fn furthest(&self, group: &str, spot: Spot, pass: usize) -> Option<Offset> {
        self.of.get(&(group.to_owned(), spot))?.acknowledged.get(&pass).copied()
    }

    /// Where a pass began, if there was one of that number.
    pub(crate) fn begin(&self, group: &str, spot: Spot, pass: usize) -> Option<Offset> {
        let begins =
            self.of.get(&(group.to_owned(), spot)).map(|standing| standing.begins.get(pass).copied());
        begins.unwrap_or((pass == 0).then_some(None)).map(|begin| begin.unwrap_or(Offset(0)))
    }

    /// Somebody is told where the group goes on, and what was said with it. Gives the pass that this is.
    pub(crate) fn observed(&mut self, group: &str, spot: Spot, at: Option<(Offset, &str)>) -> usize {
        let standing = self.of.entry((group.to_owned(), spot)).or_default();
        match at {
            Some((offset, said)) if !said.is_empty() => {
                let tried = self.commits.get(said).expect("somebody has committed it");
                assert!(!tried.refused, "{group}: {said} was refused, and counts");
                assert_eq!(tried.offset, offset, "{group}: {said}");
                standing.check_commit(group, spot.1, tried);
                // Whatever was meant to come after it has not.
                standing.maybe.retain(|number, is_over| !*is_over || *number <= tried.pass);
                tried.pass
            }
            at => standing.begin(group, spot.1, at.map(|(offset, _)| offset)),
        }
    }

    /// Who looks from now on sees the group there, or behind it.
    pub(crate) fn least(&self, group: &str, spot: Spot) -> Option<Offset> {
        let standing = self.of.get(&(group.to_owned(), spot))?;
        let may_begin = standing.may_be().map(|pass| (pass, standing.begins[pass]));
        let furthest = standing.acknowledged.last_key_value();
        let goes_on = |(pass, begin): (usize, Option<Offset>)| match furthest {
            Some((last, offset)) if *last >= pass => Some(*offset),
            _ => begin,
        };
        may_begin.map(goes_on).min().flatten()
    }

    /// Whether a group that goes on there is told from one that does not: no pass that may be the present one began
    /// at the same place, and has come no further.
    pub(crate) fn can_tell(&self, group: &str, spot: Spot, to: Option<Offset>) -> bool {
        let Some(standing) = self.of.get(&(group.to_owned(), spot)) else { return to.is_some() };
        standing.may_be().all(|pass| !standing.may_begin(pass, to))
    }

    /// An operator asks for a group to go on elsewhere.
    pub(crate) fn asked(&mut self, group: &str, to: &[(Spot, Option<Offset>)]) -> Decree {
        let mut passes = Vec::new();
        for (spot, to) in to {
            let standing = self.of(group, *spot);
            standing.begins.push(*to);
            let number = standing.begins.len() - 1;
            standing.maybe.insert(number, false);
            passes.push((*spot, number));
        }
        Decree { group: group.to_owned(), passes }
    }

    /// It was answered.
    pub(crate) fn carried_out(&mut self, decree: &Decree) {
        for (spot, number) in &decree.passes {
            let standing = self.of(&decree.group, *spot);
            standing.decreed = standing.decreed.max(*number);
            standing.maybe.retain(|other, is_over| other != number && !*is_over);
        }
    }

    /// It was refused.
    pub(crate) fn dropped(&mut self, decree: &Decree) {
        for (spot, number) in &decree.passes {
            let standing = self.of(&decree.group, *spot);
            standing.maybe.remove(number);
            let has_begun = standing.begun.contains(number);
            assert!(!has_begun, "{}: pass {number} of {} has begun, and was refused", decree.group, spot.1);
        }
    }

    pub(crate) fn started(&mut self) {
        self.of.values_mut().for_each(|it| it.maybe.values_mut().for_each(|is_over| *is_over = true));
    }
}

impl Standing {
    fn check_commit(&self, group: &str, partition: u32, tried: &Commit) {
        let Commit { offset, pass, .. } = tried;
        assert!(
            *pass >= self.decreed,
            "{group}: of {partition}, {offset} of pass {pass} counts, and the operator was told of {}",
            self.decreed
        );
        if let Some((last, furthest)) = self.acknowledged.last_key_value() {
            assert!(
                (last, furthest) <= (pass, offset),
                "{group}: {offset} of pass {pass} counts in {partition}, and {furthest} of {last} was acknowledged"
            );
        }
    }

    /// The passes one of which is the present one, unless somebody has committed since.
    fn may_be(&self) -> impl Iterator<Item = usize> + '_ {
        [self.decreed].into_iter().chain(self.maybe.keys().copied())
    }

    /// Whether who is there may be at the beginning of the pass.
    fn may_begin(&self, pass: usize, at: Option<Offset>) -> bool {
        self.begins[pass] == at && self.acknowledged.range(pass..).next().is_none()
    }

    /// A pass begins here, or has not come any further.
    fn begin(&mut self, group: &str, partition: u32, at: Option<Offset>) -> usize {
        let Some(pass) = self.may_be().find(|pass| self.may_begin(*pass, at)) else {
            panic!("{group}: {partition} goes on at {at:?}, which nobody has asked for: {self:?}");
        };
        if self.maybe.get(&pass) == Some(&true) {
            self.decreed = pass;
        }
        if self.decreed >= pass {
            self.maybe.retain(|_, is_over| !*is_over);
        }
        self.begun.insert(pass);
        pass
    }
}
