//! Random operations on names against an oracle that knows only the live history.

use std::collections::{BTreeMap, BTreeSet};

use logmill_log::env::Fs;
use logmill_log::sim::{FaultFs, Sim, SimRandom};

use super::{create, p, write};

const NAMES: [&str; 8] = ["/a", "/b", "/c", "/d", "/sub/a", "/sub/b", "/sub/c", "/sub/d"];

/// What is in each file, by name. Every file has a content of its own.
type Files = BTreeMap<&'static str, String>;

struct Oracle {
    now: Files,
    /// What each name may have after a crash; `None` for nothing.
    possible: BTreeMap<&'static str, BTreeSet<Option<String>>>,
    /// Files that have lasted and had a name ever since.
    safe: BTreeSet<String>,
}

impl Oracle {
    fn new() -> Self {
        let possible = NAMES.map(|name| (name, BTreeSet::from([None])));
        Self { now: Files::new(), possible: possible.into(), safe: BTreeSet::new() }
    }

    fn saw(&mut self) {
        for (name, possible) in &mut self.possible {
            possible.insert(self.now.get(name).cloned());
        }
        self.safe.retain(|content| self.now.values().any(|now| now == content));
    }

    fn synced(&mut self, dir: &str) {
        for (name, possible) in self.possible.iter_mut().filter(|(name, _)| dir_of(name) == dir) {
            *possible = BTreeSet::from([self.now.get(name).cloned()]);
            self.safe.extend(self.now.get(name).cloned());
        }
    }

    fn check(&self, fs: &FaultFs, seed: u64) {
        let content = |name: &str| fs.read_file(name).ok().map(|bytes| String::from_utf8(bytes).unwrap());
        for (name, possible) in &self.possible {
            let content = content(name);
            assert!(possible.contains(&content), "seed {seed}: {name} has {content:?}, not of {possible:?}");
        }
        let there: BTreeSet<_> = NAMES.iter().filter_map(|name| content(name)).collect();
        assert!(self.safe.is_subset(&there), "seed {seed}: lost {:?}", self.safe.difference(&there));
    }
}

fn dir_of(name: &str) -> &str {
    if name.starts_with("/sub/") { "/sub" } else { "/" }
}

fn step(fs: &FaultFs, oracle: &mut Oracle, random: &SimRandom, serial: u64) {
    let name = || NAMES[usize::try_from(random.below(8)).unwrap()];
    let (first, second) = (name(), name());
    match random.below(6) {
        0 | 1 if !oracle.now.contains_key(first) => {
            let file = create(fs, first);
            write(&*file, serial.to_string().as_bytes(), 0);
            file.sync_data().unwrap();
            oracle.now.insert(first, serial.to_string());
        }
        2 if oracle.now.contains_key(first) => {
            fs.remove_file(p(first)).unwrap();
            oracle.now.remove(first);
        }
        3 => {
            fs.sync_dir(p(dir_of(first))).unwrap();
            oracle.synced(dir_of(first));
        }
        _ if oracle.now.contains_key(first) && first != second => {
            fs.rename(p(first), p(second)).unwrap();
            let content = oracle.now.remove(first).unwrap();
            oracle.now.insert(second, content);
        }
        _ => {}
    }
    oracle.saw();
}

#[test]
fn a_crash_leaves_each_name_as_it_was_at_some_moment_and_loses_no_file() {
    for seed in 0..2000 {
        let sim = Sim::new(seed);
        let random = sim.random();
        sim.fs.create_dir(p("/sub")).unwrap();
        sim.fs.sync_dir(p("/")).unwrap();
        let mut oracle = Oracle::new();
        for serial in 0..random.below(25) {
            step(&sim.fs, &mut oracle, &random, serial);
        }
        sim.fs.crash();
        oracle.check(&sim.fs, seed);
        let settled = sim.fs.digest();
        sim.fs.crash();
        assert_eq!(sim.fs.digest(), settled, "seed {seed}: a second crash finds nothing unsynced");
    }
}
