//! Random writes, cuts and syncs against an oracle that knows only the live file's history.

use std::collections::BTreeSet;

use logmill_log::env::{File, Fs};
use logmill_log::sim::{Fault, Op, Rule, Sim, SimRandom};

use super::{SECTOR, create, p, read_all, try_write};

/// The file as it was at any moment since the last sync, when it was this.
struct Oracle {
    moments: Vec<Vec<u8>>,
    lengths: BTreeSet<usize>,
}

impl Oracle {
    fn new(live: Vec<u8>) -> Self {
        Self { lengths: BTreeSet::from([live.len()]), moments: vec![live] }
    }

    /// The file now, after a write that started at `written_from`.
    fn saw(&mut self, live: Vec<u8>, written_from: usize) {
        // A write that extends can be cut off anywhere.
        let before = self.moments[self.moments.len() - 1].len();
        self.lengths.extend(before.max(written_from)..live.len());
        self.lengths.insert(live.len());
        self.moments.push(live);
    }

    fn check(&self, found: &[u8], seed: u64) {
        assert!(self.lengths.contains(&found.len()), "seed {seed}: length {}", found.len());
        for (position, byte) in found.iter().enumerate() {
            let was = |live: &Vec<u8>| live.get(position).unwrap_or(&0) == byte;
            assert!(self.moments.iter().any(was), "seed {seed}: byte {position} is {byte}");
        }
    }
}

fn change(file: &dyn File, random: &SimRandom) -> u64 {
    let position = random.below(6 * SECTOR as u64);
    if random.one_in(5) {
        file.set_len(position).unwrap();
        return position;
    }
    let value = u8::try_from(1 + random.below(255)).unwrap();
    let len = usize::try_from(1 + random.below(3 * SECTOR as u64)).unwrap();
    try_write(file, &vec![value; len], position).unwrap();
    position
}

#[test]
fn a_crash_leaves_only_what_was_there_since_the_last_sync() {
    for seed in 0..1500 {
        let sim = Sim::new(seed);
        let random = sim.random();
        let file = create(&sim.fs, "/f");
        sim.fs.sync_dir(p("/")).unwrap();
        let mut oracle = Oracle::new(Vec::new());
        for _ in 0..random.below(20) {
            if random.one_in(6) {
                file.sync_data().unwrap();
                oracle = Oracle::new(read_all(&*file).unwrap());
            } else {
                let from = change(&*file, &random);
                oracle.saw(read_all(&*file).unwrap(), usize::try_from(from).unwrap());
            }
        }
        sim.fs.crash();
        oracle.check(&sim.fs.read_file("/f").unwrap(), seed);
    }
}

#[test]
fn failed_syncs_lose_bytes_but_invent_none() {
    for seed in 0..1500 {
        let sim = Sim::new(seed);
        let random = sim.random();
        let file = create(&sim.fs, "/f");
        sim.fs.sync_dir(p("/")).unwrap();
        sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncData).always().one_in(2));
        // Without trust in any sync, everything since the start is possible.
        let mut oracle = Oracle::new(Vec::new());
        for _ in 0..random.below(20) {
            if random.one_in(4) {
                let _ = file.sync_data();
            } else if random.one_in(8) {
                sim.fs.drop_caches();
                oracle.check(&read_all(&*file).unwrap(), seed);
            } else {
                let from = change(&*file, &random);
                oracle.saw(read_all(&*file).unwrap(), usize::try_from(from).unwrap());
            }
        }
        sim.fs.drop_caches();
        let clean = read_all(&*file).unwrap();
        sim.fs.clear_rules();
        file.sync_data().unwrap();
        sim.fs.crash();
        let found = sim.fs.read_file("/f").unwrap();
        assert_eq!(found, clean, "seed {seed}: what the cache had to read again is what lasts");
        oracle.check(&found, seed);
    }
}
