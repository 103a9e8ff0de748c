//! Syncs that fail, and syncs that lie.

use std::collections::BTreeSet;

use logmill_log::env::Fs;
use logmill_log::sim::{Fault, FaultFs, Op, Rule, Sim};

use super::{SECTOR, create, open, outcomes, p, read_all, write};

/// A file of three sectors `a`, written over with `b`, and the sync of that fails.
fn fail(fs: &FaultFs) {
    fs.write_file("/f", [b'a'; 3 * SECTOR]).unwrap();
    let file = open(fs, "/f");
    write(&*file, &[b'b'; 3 * SECTOR], 0);
    fs.inject(Rule::new(Fault::Io).on(Op::SyncData));
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(5));
    assert_eq!(read_all(&*file).unwrap(), [b'b'; 3 * SECTOR], "the page cache still has it");
}

#[test]
fn a_later_sync_does_not_bring_back_what_a_failed_one_lost() {
    let run = |fs: &FaultFs| {
        fail(fs);
        let file = open(fs, "/f");
        file.sync_data().unwrap();
        write(&*file, b"c", 0);
        file.sync_data().unwrap();
        assert_eq!(read_all(&*file).unwrap()[1..], [b'b'; 3 * SECTOR - 1]);
    };
    let found = outcomes(500, run, |fs| fs.read_file("/f").unwrap());
    let kept: BTreeSet<_> = found
        .iter()
        .map(|bytes| {
            assert_eq!(bytes[0], b'c');
            assert!(bytes[1..SECTOR].iter().all(|byte| *byte == b'b'), "written again, so it lasts");
            bytes[SECTOR..].chunks(SECTOR).map(|sector| {
                assert!(sector.iter().all(|byte| *byte == sector[0]), "no power was lost: nothing is torn");
                sector[0]
            })
        })
        .map(Vec::from_iter)
        .collect();
    assert_eq!(kept, BTreeSet::from([*b"aa", *b"ab", *b"ba", *b"bb"].map(Vec::from)));
}

#[test]
fn dropping_the_cache_shows_the_loss_and_keeps_what_is_dirty() {
    let mut lost = 0;
    for seed in 0..100 {
        let sim = Sim::new(seed);
        fail(&sim.fs);
        let file = open(&sim.fs, "/f");
        write(&*file, b"c", 0);
        sim.fs.drop_caches();
        let seen = read_all(&*file).unwrap();
        assert_eq!(seen[..2], *b"cb");
        lost += usize::from(seen.contains(&b'a'));
        file.sync_data().unwrap();
        sim.fs.crash();
        assert_eq!(sim.fs.read_file("/f").unwrap(), seen, "seed {seed}");
    }
    assert!(lost > 50, "lost {lost}");
}

#[test]
fn bytes_written_again_after_a_failed_sync_last() {
    let run = |fs: &FaultFs| {
        fail(fs);
        let file = open(fs, "/f");
        write(&*file, &read_all(&*file).unwrap(), 0);
        file.sync_data().unwrap();
    };
    let found = outcomes(100, run, |fs| fs.read_file("/f").unwrap());
    assert_eq!(found, BTreeSet::from([vec![b'b'; 3 * SECTOR]]));
}

#[test]
fn a_length_whose_bytes_a_failed_sync_lost_lasts_with_the_next_sync() {
    let run = |fs: &FaultFs| {
        fs.write_file("/f", b"").unwrap();
        let file = open(fs, "/f");
        write(&*file, &[b'b'; SECTOR], 0);
        fs.inject(Rule::new(Fault::NoSpace).on(Op::SyncData));
        assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(28));
        file.sync_data().unwrap();
    };
    let found = outcomes(100, run, |fs| fs.read_file("/f").unwrap());
    assert_eq!(found, BTreeSet::from([vec![0; SECTOR], vec![b'b'; SECTOR]]));
}

#[test]
fn names_stay_unsynced_when_the_sync_of_their_directory_fails() {
    let run = |again: bool| {
        move |fs: &FaultFs| {
            create(fs, "/f");
            fs.inject(Rule::new(Fault::Io).on(Op::SyncDir).path(""));
            assert!(fs.sync_dir(p("/")).is_err());
            if again {
                fs.sync_dir(p("/")).unwrap();
            }
        }
    };
    assert_eq!(outcomes(50, run(false), |fs| fs.files().len()), BTreeSet::from([0, 1]));
    assert_eq!(outcomes(50, run(true), |fs| fs.files().len()), BTreeSet::from([1]));
}

#[test]
fn syncs_that_lie_lose_data() {
    let run = |fs: &FaultFs| {
        fs.write_file("/f", b"a").unwrap();
        fs.lie_about_sync(true);
        let file = open(fs, "/f");
        write(&*file, b"b", 0);
        file.sync_data().unwrap();
        create(fs, "/g").sync_data().unwrap();
        fs.sync_dir(p("/")).unwrap();
    };
    let found = outcomes(100, run, |fs| (fs.read_file("/f").unwrap(), fs.files().len()));
    assert!(found.contains(&(b"a".to_vec(), 1)), "both lost");
    assert!(found.contains(&(b"b".to_vec(), 2)), "both kept");
}
