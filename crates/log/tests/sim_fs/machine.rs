//! The machine as a whole: crashes, kills, power cuts at any call, damage, and seeds.

use std::collections::BTreeSet;
use std::io::ErrorKind;
use std::path::PathBuf;

use logmill_log::env::{Fs, OpenMode};
use logmill_log::sim::{Op, Sim};

use super::{create, open, p, read_all, try_write, write};

#[test]
fn handles_mounts_and_locks_die_in_a_crash_and_in_a_kill() {
    for kill in [false, true] {
        let mut sim = Sim::new(1);
        let old = sim.env();
        sim.fs.write_file("/a", "a").unwrap();
        let file = open(&*old.fs, "/a");
        let lock = old.fs.lock(p("/lock")).unwrap();
        assert_eq!(old.fs.lock(p("/lock")).unwrap_err().kind(), ErrorKind::WouldBlock);

        let new = if kill { sim.kill() } else { sim.crash() };
        let before = sim.fs.digest();
        assert!(file.status().is_err() && file.sync_data().is_err() && file.set_len(0).is_err());
        assert!(file.read_at(&mut [0], 0).is_err() && try_write(&*file, b"b", 0).is_err());
        assert!(file.map(1).is_err());
        assert!(old.fs.list(p("/")).is_err() && old.fs.create_dir(p("/d")).is_err());
        assert!(old.fs.open(p("/a"), OpenMode::Read).is_err());
        assert_eq!(sim.fs.digest(), before);

        let held = new.fs.lock(p("/lock")).unwrap();
        drop(lock);
        assert!(new.fs.lock(p("/lock")).is_err(), "a dead lock does not give back a live one");
        drop(held);
        assert!(new.fs.lock(p("/lock")).is_ok());
        assert_eq!(read_all(&*open(&*new.fs, "/a")).unwrap(), b"a");
    }
}

#[test]
fn a_kill_loses_nothing_by_itself() {
    let after = |seed| {
        let mut sim = Sim::new(seed);
        write(&*create(&*sim.env().fs, "/a"), b"a", 0);
        sim.kill();
        assert_eq!(sim.fs.read_file("/a").unwrap(), b"a");
        sim.crash();
        sim.fs.read_file("/a").ok()
    };
    let outcomes: BTreeSet<_> = (0..100).map(after).collect();
    assert!(outcomes.contains(&None) && outcomes.contains(&Some(b"a".to_vec())), "nothing was synced");
}

/// A few calls of each kind; the bytes of `/log` last one by one.
fn workload(fs: &dyn Fs, acknowledged: &mut u64) -> std::io::Result<()> {
    let log = fs.open(p("/log"), OpenMode::CreateNew)?;
    fs.sync_dir(p("/"))?;
    for position in 0..5 {
        try_write(&*log, b"x", position)?;
        log.sync_data()?;
        *acknowledged += 1;
        log.status()?;
    }
    log.set_len(5)?;
    fs.create_dir(p("/dir"))?;
    fs.rename(p("/dir"), p("/moved"))?;
    fs.remove_dir(p("/moved"))
}

#[test]
fn the_power_can_go_at_every_change() {
    let whole = Sim::new(0);
    workload(&whole.fs, &mut 0).unwrap();
    assert_eq!(whole.fs.changes(), 16);
    assert_eq!((whole.fs.calls(Op::Write), whole.fs.calls(Op::Status)), (5, 5));

    let mut more_than_acknowledged = 0;
    for (nth, seed) in (1..=16).flat_map(|nth| (0..40).map(move |seed| (nth, seed))) {
        let sim = Sim::new(seed);
        sim.fs.power_off_at(nth);
        let mut acknowledged = 0;
        workload(&sim.fs, &mut acknowledged).unwrap_err();
        assert!(sim.fs.is_off() && sim.fs.list(p("/")).is_err(), "until the crash nothing works");
        assert_eq!(sim.fs.changes(), nth);

        sim.fs.crash();
        assert!(!sim.fs.is_off());
        let len = sim.fs.read_file("/log").map_or(0, |bytes| bytes.len() as u64);
        assert!((acknowledged..=acknowledged + 1).contains(&len), "{nth}: {acknowledged}, {len} bytes");
        more_than_acknowledged += usize::from(len > acknowledged);
    }
    assert!(more_than_acknowledged > 0, "a call cut off can have its effect");
}

#[test]
fn a_sync_cut_off_may_have_done_its_work_or_not() {
    let after = |seed| {
        let sim = Sim::new(seed);
        sim.fs.write_file("/a", b"a").unwrap();
        let file = open(&sim.fs, "/a");
        write(&*file, b"b", 0);
        create(&sim.fs, "/new");
        sim.fs.power_off_at(1 + seed % 2);
        assert!(file.sync_data().is_err() | sim.fs.sync_dir(p("/")).is_err());
        sim.fs.crash();
        (seed % 2, sim.fs.read_file("/a").unwrap(), sim.fs.files().len())
    };
    let (lost, kept) = (b"a".to_vec(), b"b".to_vec());
    let expected = [
        (0, lost.clone(), 1),
        (0, lost, 2),
        (0, kept.clone(), 1),
        (0, kept.clone(), 2),
        (1, kept.clone(), 1),
        (1, kept, 2),
    ];
    assert_eq!((0..200).map(after).collect::<BTreeSet<_>>(), BTreeSet::from(expected));
}

#[test]
fn a_seed_is_a_run() {
    let run = |seed| {
        let mut sim = Sim::new(seed);
        let random = sim.random();
        for _ in 0..20 {
            let env = sim.env();
            for _ in 0..10 {
                let path = format!("/{}", random.below(5));
                let file = env.fs.open(p(&path), OpenMode::CreateNew);
                let file = file.unwrap_or_else(|_| open(&*env.fs, &path));
                let bytes = vec![u8::try_from(random.below(256)).unwrap(); 700];
                write(&*file, &bytes, random.below(4000));
                if random.one_in(3) {
                    file.sync_data().unwrap();
                }
                if random.one_in(5) {
                    env.fs.sync_dir(p("/")).unwrap();
                }
            }
            sim.crash();
        }
        (sim.fs.digest(), sim.fs.history(), sim.env().new_uuid())
    };
    assert_eq!(run(1), run(1));
    let different: BTreeSet<_> = (0..10).map(|seed| run(seed).0).collect();
    assert_eq!(different.len(), 10);
}

#[test]
fn the_digest_tells_what_lasts_from_what_does_not() {
    let sim = Sim::new(1);
    sim.fs.write_file("/a", b"a").unwrap();
    let file = open(&sim.fs, "/a");
    let mut digests = vec![sim.fs.digest()];
    write(&*file, b"b", 0);
    digests.push(sim.fs.digest());
    file.sync_data().unwrap();
    digests.push(sim.fs.digest());
    create(&sim.fs, "/b");
    digests.push(sim.fs.digest());
    sim.fs.sync_dir(p("/")).unwrap();
    digests.push(sim.fs.digest());
    assert_eq!(digests.iter().collect::<BTreeSet<_>>().len(), 5);
    file.status().unwrap();
    assert_eq!(sim.fs.digest(), digests[4], "looking changes nothing");
}

#[test]
fn damage_lasts_and_shows() {
    let sim = Sim::new(1);
    sim.fs.write_file("/d/a", [0; 3]).unwrap();
    let file = open(&sim.fs, "/d/a");
    let whole = sim.fs.digest();
    sim.fs.flip("/d/a", 1, 7).unwrap();
    assert_eq!(read_all(&*file).unwrap(), [0, 128, 0]);
    assert_ne!(sim.fs.digest(), whole);
    sim.fs.crash();
    assert_eq!(sim.fs.read_file("/d/a").unwrap(), [0, 128, 0]);
    sim.fs.flip("/d/a", 1, 7).unwrap();
    assert_eq!(sim.fs.digest(), whole);

    sim.fs.truncate("/d/a", 1).unwrap();
    sim.fs.crash();
    assert_eq!(sim.fs.read_file("/d/a").unwrap(), [0]);
    sim.fs.write_file("/d/a", b"new").unwrap();
    sim.fs.crash();
    assert_eq!(sim.fs.read_file("/d/a").unwrap(), b"new");
    assert_eq!(sim.fs.files(), [PathBuf::from("/d/a")]);

    assert!(sim.fs.flip("/d/a", 3, 0).is_err() && sim.fs.flip("/d", 0, 0).is_err());
    assert!(sim.fs.write_file("/d", b"").is_err() && sim.fs.write_file("/d/a/b", b"").is_err());
}

#[test]
fn a_planted_name_lasts_whatever_was_unsynced_about_it() {
    for seed in 0..50 {
        let sim = Sim::new(seed);
        create(&sim.fs, "/a");
        sim.fs.remove_file(p("/a")).unwrap();
        sim.fs.write_file("/a", "a").unwrap();
        create(&sim.fs, "/d");
        sim.fs.rename(p("/d"), p("/b")).unwrap();
        sim.fs.write_file("/b", "b").unwrap();
        sim.fs.crash();
        assert_eq!(sim.fs.read_file("/a").unwrap(), b"a");
        assert_eq!(sim.fs.read_file("/b").unwrap(), b"b");
    }
}
