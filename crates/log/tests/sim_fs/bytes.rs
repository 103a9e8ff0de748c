//! What a crash leaves of the bytes of one file.

use std::collections::BTreeSet;
use std::time::Duration;

use logmill_log::env::{Clock, File};
use logmill_log::sim::{Fault, FaultFs, Op, Rule, Sim};

use super::{SECTOR, open, outcomes, write};

/// Content after a crash of a file that lasted as `before`, over many seeds.
fn after(seeds: u64, before: &[u8], change: impl Fn(&dyn File)) -> BTreeSet<Vec<u8>> {
    let run = |fs: &FaultFs| {
        fs.write_file("/f", before).unwrap();
        change(&*open(fs, "/f"));
    };
    outcomes(seeds, run, |fs| fs.read_file("/f").unwrap())
}

#[test]
fn synced_bytes_are_never_lost() {
    let found = after(200, b"", |file| {
        write(file, &[b'a'; 5000], 0);
        file.set_len(3000).unwrap();
        write(file, &[b'b'; 1500], 2000);
        file.sync_data().unwrap();
    });
    let expected = [[b'a'; 2000].as_slice(), &[b'b'; 1500]].concat();
    assert_eq!(found, BTreeSet::from([expected]));
}

#[test]
fn of_unsynced_sectors_every_subset_can_be_kept_and_one_of_them_torn() {
    let found = after(4000, &[b'a'; 3 * SECTOR], |file| write(file, &[b'b'; 3 * SECTOR], 0));
    let mut subsets = BTreeSet::new();
    let mut tears = BTreeSet::new();
    let mut tears_behind_a_loss = BTreeSet::new();
    for bytes in found {
        let mut torn = 0;
        let subset = bytes.chunks(SECTOR).map(|sector| {
            let new = sector.iter().take_while(|&&byte| byte == b'b').count();
            assert!(sector[new..].iter().all(|&byte| byte == b'a'), "a sector is torn once, new bytes first");
            if new > 0 && new < SECTOR {
                torn += 1;
                tears.insert(new);
            }
            new > 0
        });
        subsets.insert(subset.collect::<Vec<_>>());
        assert!(torn <= 1);
        if torn == 1 && bytes.starts_with(b"a") {
            tears_behind_a_loss.insert(bytes.iter().filter(|&&byte| byte == b'b').count());
        }
    }
    assert_eq!(subsets.len(), 8);
    assert!(tears_behind_a_loss.len() > 100, "also where an earlier sector was lost");
    assert!(tears.len() > 300, "torn at {} places", tears.len());
    assert!(tears.first() <= Some(&3) && tears.last() >= Some(&509), "at any byte");
}

#[test]
fn any_version_of_a_sector_can_be_kept() {
    let found = after(1000, &[b'a'; SECTOR], |file| {
        for version in *b"bcd" {
            write(file, &[version; SECTOR], 0);
        }
    });
    let whole = found.iter().filter(|bytes| bytes.iter().all(|byte| *byte == bytes[0]));
    assert_eq!(whole.map(|bytes| bytes[0]).collect::<Vec<_>>(), b"abcd");
}

#[test]
fn an_extension_is_kept_or_not_and_holes_are_zeros() {
    let found = after(2000, &[b'a'; 100], |file| write(file, &[b'b'; 1900], 100));
    let lengths: BTreeSet<_> = found.iter().map(Vec::len).collect();
    assert_eq!((lengths.first(), lengths.last()), (Some(&100), Some(&2000)));
    assert!(lengths.len() > 100, "a write that extends is cut off anywhere");
    let mut holes = 0;
    for bytes in &found {
        assert_eq!(bytes[..100], [b'a'; 100]);
        assert!(bytes[100..].iter().all(|byte| *byte == b'b' || *byte == 0));
        holes += usize::from(bytes.len() == 2000 && bytes.contains(&0));
    }
    assert!(holes > 0, "the length can last without the bytes");
}

#[test]
fn a_gap_that_was_never_written_is_zeros() {
    let found = after(500, b"a", |file| write(file, b"b", 2000));
    for bytes in &found {
        assert_eq!(bytes[0], b'a');
        let rest = bytes[1..].strip_suffix(b"b").unwrap_or(&bytes[1..]);
        assert!(rest.iter().all(|byte| *byte == 0));
    }
    assert!(found.contains(b"a".as_slice()) && found.iter().any(|bytes| bytes.ends_with(b"b")));
}

#[test]
fn what_was_cut_off_stays_off_once_the_cut_lasts() {
    for cut in [0, 512, 700] {
        let found = after(300, &[b'a'; 1024], |file| {
            file.set_len(cut as u64).unwrap();
            file.set_len(1500).unwrap();
        });
        let kept = vec![b'a'; cut];
        let extended = [kept.as_slice(), &vec![0; 1500 - cut]].concat();
        assert_eq!(found, BTreeSet::from([vec![b'a'; 1024], kept, extended]), "cut to {cut}");
    }
    let found = after(2000, &[b'a'; 1024], |file| {
        write(file, &[b'b'; 1024], 0);
        file.set_len(700).unwrap();
        file.set_len(1500).unwrap();
    });
    let is_extended = |bytes: &&Vec<u8>| bytes.len() == 1500;
    assert!(found.iter().any(|bytes| is_extended(&bytes) && bytes[..700] == [b'b'; 700]));
    assert!(found.iter().filter(is_extended).all(|bytes| bytes[700..].iter().all(|byte| *byte == 0)));
}

#[test]
fn bytes_written_behind_a_cut_are_not_seen_without_it() {
    for sync_fails in [false, true] {
        let run = |fs: &FaultFs| {
            fs.write_file("/f", [b'a'; 1024]).unwrap();
            let file = open(fs, "/f");
            file.set_len(512).unwrap();
            write(&*file, &[b'b'; 300], 512);
            if sync_fails {
                fs.inject(Rule::new(Fault::Io).on(Op::SyncData));
                file.sync_data().unwrap_err();
            }
        };
        let found = outcomes(2000, run, |fs| fs.read_file("/f").unwrap());
        let mut tails = BTreeSet::new();
        for bytes in &found {
            assert_eq!(bytes[..512], [b'a'; 512]);
            let tail = &bytes[512..];
            if tail != [b'a'; 512] {
                let new = tail.iter().take_while(|&&byte| byte == b'b').count();
                assert!(tail.len() <= 300 && tail[new..].iter().all(|&byte| byte == 0));
            }
            tails.insert(tail);
        }
        for tail in [[b'a'; 512].as_slice(), &[0; 300], &[]] {
            assert!(tails.contains(tail), "{:?}… is reached", tail.first());
        }
        assert_eq!(tails.contains([b'b'; 300].as_slice()), !sync_fails);
    }
}

#[test]
fn the_zeros_behind_a_cut_can_reach_the_device_before_the_cut_does() {
    let found = after(1000, &[b'a'; 1024], |file| {
        file.set_len(700).unwrap();
        write(file, &[b'b'; 100], 600);
    });
    let early = [[b'a'; 600].as_slice(), &[b'b'; 100], &[0; 324]].concat();
    assert!(found.contains(&early), "a sector goes to the device as it is in memory");
}

#[test]
fn the_time_of_change_lasts_with_the_length() {
    let modified = |seed, extend: bool, sync: bool| {
        let sim = Sim::new(seed);
        sim.fs.write_file("/f", b"a").unwrap();
        let before = sim.clock.now();
        sim.clock.advance(Duration::from_secs(1));
        let file = open(&sim.fs, "/f");
        write(&*file, b"b", u64::from(extend));
        assert_eq!(file.status().unwrap().modified, sim.clock.now());
        if sync {
            file.sync_data().unwrap();
        }
        sim.fs.crash();
        open(&sim.fs, "/f").status().unwrap().modified.0 - before.0
    };
    let found = |extend, sync| (0..50).map(|seed| modified(seed, extend, sync)).collect::<BTreeSet<_>>();
    assert_eq!(found(false, false), BTreeSet::from([0, 1000]));
    assert_eq!(found(true, false), BTreeSet::from([0, 1000]));
    assert_eq!(found(false, true), BTreeSet::from([0, 1000]), "the data lasts, its time may not");
    assert_eq!(found(true, true), BTreeSet::from([1000]));
}
