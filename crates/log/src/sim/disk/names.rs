//! The names in directories: as a program sees them, as the device has them, and the operations
//! between, in order.
//!
//! A name can be lost or kept apart from all others, but not against these: the names of one
//! directory's `sync_dir` last together; a file moved is never lost on the way (its old name goes
//! only if its new one has come, so that both, either, but never none may exist); a directory
//! moved has one name at any time, and directories move in order, so that none ends up inside
//! itself.

use std::collections::{BTreeMap, BTreeSet};

use super::{InodeId, crash::Mood};
use crate::sim::SimRandom;

/// A name in a directory.
pub(in crate::sim) type Key = (InodeId, String);

#[derive(Debug, Default)]
pub(in crate::sim) struct Names {
    live: BTreeMap<Key, InodeId>,
    durable: BTreeMap<Key, InodeId>,
    unsynced: Vec<Change>,
}

/// One operation. What of it lasts already has been taken out.
#[derive(Debug)]
struct Change {
    removed: Option<Key>,
    set: Option<(Key, InodeId)>,
    moves_dir: bool,
}

/// Up to which operation, not included, each name has changed on the device.
type Reach = BTreeMap<Key, usize>;

impl Names {
    pub(in crate::sim) fn get(&self, key: &Key) -> Option<InodeId> {
        self.live.get(key).copied()
    }

    /// The live names in a directory.
    pub(in crate::sim) fn list(&self, dir: InodeId) -> impl Iterator<Item = (&str, InodeId)> {
        in_dir(&self.live, dir)
    }

    /// The names in a directory that a crash cannot take.
    pub(in crate::sim) fn list_durable(&self, dir: InodeId) -> impl Iterator<Item = (&str, InodeId)> {
        in_dir(&self.durable, dir)
    }

    /// Every inode that has a live name.
    pub(in crate::sim) fn named(&self) -> BTreeSet<InodeId> {
        self.live.values().copied().collect()
    }

    pub(in crate::sim) fn set(&mut self, key: Key, inode: InodeId) {
        self.live.insert(key.clone(), inode);
        self.unsynced.push(Change { removed: None, set: Some((key, inode)), moves_dir: false });
    }

    /// Sets a name on both sides, as if it had always been there.
    pub(in crate::sim) fn set_durable(&mut self, key: Key, inode: InodeId) {
        for change in &mut self.unsynced {
            change.removed.take_if(|removed| *removed == key);
            change.set.take_if(|(set, _)| *set == key);
        }
        self.live.insert(key.clone(), inode);
        self.durable.insert(key, inode);
    }

    pub(in crate::sim) fn remove(&mut self, key: Key) {
        self.live.remove(&key);
        self.unsynced.push(Change { removed: Some(key), set: None, moves_dir: false });
    }

    pub(in crate::sim) fn rename(&mut self, from: Key, to: Key, inode: InodeId, moves_dir: bool) {
        self.live.remove(&from);
        self.live.insert(to.clone(), inode);
        self.unsynced.push(Change { removed: Some(from), set: Some((to, inode)), moves_dir });
    }

    /// Makes the names of a directory last.
    pub(in crate::sim) fn sync(&mut self, dir: InodeId) {
        let all = self.unsynced.len();
        let reach = self.changes_by_name().into_keys().filter(|key| key.0 == dir).map(|key| (key, all));
        self.settle(reach.collect());
    }

    /// The power goes and comes back: of the unsynced operations some have reached the device.
    pub(in crate::sim) fn crash(&mut self, random: &SimRandom) {
        let all = self.unsynced.len();
        let mood = Mood::draw(random);
        let moment = random.index(all + 1);
        let mut reach = Reach::new();
        for (key, changes) in self.changes_by_name() {
            let until = match mood {
                Mood::All => all,
                Mood::Nothing => 0,
                Mood::Prefix => moment,
                Mood::Mixed => {
                    random.index(changes.len() + 1).checked_sub(1).map_or(0, |last| changes[last] + 1)
                }
            };
            reach.insert(key, until);
        }
        self.settle(reach);
        self.unsynced.clear();
        self.live = self.durable.clone();
    }

    /// What each inode is named by in any of the states that a crash can lead to.
    pub(in crate::sim) fn possible(&self) -> BTreeMap<InodeId, BTreeSet<InodeId>> {
        let mut children = BTreeMap::<InodeId, BTreeSet<InodeId>>::new();
        let unsynced = self.unsynced.iter().filter_map(|change| change.set.as_ref());
        let settled = self.live.iter().chain(&self.durable);
        for (key, inode) in settled.chain(unsynced.map(|(key, inode)| (key, inode))) {
            children.entry(key.0).or_default().insert(*inode);
        }
        children
    }

    /// Forgets directories that are gone, and with them their names.
    pub(in crate::sim) fn retain_dirs(&mut self, exists: impl Fn(InodeId) -> bool) {
        self.live.retain(|key, _| exists(key.0));
        self.durable.retain(|key, _| exists(key.0));
        for change in &mut self.unsynced {
            change.removed.take_if(|key| !exists(key.0));
            change.set.take_if(|(key, _)| !exists(key.0));
        }
        self.forget_settled();
    }

    /// Which operations change each name, in order.
    fn changes_by_name(&self) -> BTreeMap<Key, Vec<usize>> {
        let mut changes = BTreeMap::<Key, Vec<usize>>::new();
        for (at, change) in self.unsynced.iter().enumerate() {
            for key in change.removed.iter().chain(change.set.as_ref().map(|(key, _)| key)) {
                changes.entry(key.clone()).or_default().push(at);
            }
        }
        changes
    }

    /// Applies to the durable names what they reach, and what must come with it.
    fn settle(&mut self, mut reach: Reach) {
        while self.extend(&mut reach) {}
        let reaches = |key: &Key, at: usize| reach.get(key).is_some_and(|&until| at < until);
        for (at, change) in self.unsynced.iter_mut().enumerate() {
            if let Some(key) = change.removed.take_if(|key| reaches(key, at)) {
                self.durable.remove(&key);
            }
            if let Some((key, inode)) = change.set.take_if(|(key, _)| reaches(key, at)) {
                self.durable.insert(key, inode);
            }
        }
        self.forget_settled();
    }

    /// Extends the reach by what the rules of the module ask for; true if anything was missing.
    fn extend(&self, reach: &mut Reach) -> bool {
        let mut missing = Vec::new();
        let mut dirs_moved = 0;
        let reaches = |key: &Key, at: usize| reach.get(key).is_some_and(|&until| at < until);
        for (at, change) in self.unsynced.iter().enumerate() {
            let Some((to, _)) = &change.set else { continue };
            let arrived = reaches(to, at);
            if change.moves_dir && arrived {
                dirs_moved = at + 1;
            }
            if !arrived && change.removed.as_ref().is_some_and(|from| reaches(from, at)) {
                missing.push((to.clone(), at + 1));
            }
        }
        for (at, change) in
            self.unsynced[..dirs_moved].iter().enumerate().filter(|(_, change)| change.moves_dir)
        {
            let keys = change.removed.iter().chain(change.set.as_ref().map(|(to, _)| to));
            missing.extend(keys.filter(|key| !reaches(key, at)).map(|key| (key.clone(), at + 1)));
        }
        let found = !missing.is_empty();
        for (key, until) in missing {
            let reached = reach.entry(key).or_default();
            *reached = until.max(*reached);
        }
        found
    }

    fn forget_settled(&mut self) {
        self.unsynced.retain(|change| change.removed.is_some() || change.set.is_some());
    }
}

fn in_dir(names: &BTreeMap<Key, InodeId>, dir: InodeId) -> impl Iterator<Item = (&str, InodeId)> {
    names.range((dir, String::new())..(dir.next(), String::new())).map(|(key, inode)| (&*key.1, *inode))
}
