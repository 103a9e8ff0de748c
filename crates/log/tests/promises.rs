//! What was acknowledged stays promised, whatever became of the files that say so: sessions in
//! which a log is not opened, a checkpoint or a `meta` that is gone.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, reason = "a test may stop where it fails")]

mod common;

use std::path::Path;

use common::{batch, texts};
use logmill_log::inspect::{FindingKind, plan_repair, verify};
use logmill_log::sim::{Op, Sim};
use logmill_log::{ErrorKind, Log, LogOptions, LogSet, LogState, SetOptions};

const DIR: &str = "/data";
const FIRST: &str = "/data/a/00000000000000000000.log";

fn open_set(sim: &Sim) -> LogSet {
    LogSet::open(DIR, SetOptions::new(sim.env())).unwrap()
}

fn open(set: &LogSet, path: &str) -> Log {
    set.open_log(path, LogOptions::default()).unwrap()
}

fn append(log: &Log, values: &[&str]) {
    for value in values {
        log.append(&[batch(&[value.as_bytes()])]).unwrap().wait().unwrap();
    }
}

fn remove(sim: &Sim, path: &str) {
    sim.fs.mount().remove_file(Path::new(path)).unwrap();
}

/// A set with the logs `a` and `b`, closed cleanly; `a` holds `one`, `two` and `three`.
fn closed_set() -> Sim {
    let sim = Sim::new(5);
    let set = open_set(&sim);
    append(&set.create("a", b"mine", LogOptions::default()).unwrap(), &["one", "two", "three"]);
    set.create("b", b"", LogOptions::default()).unwrap();
    set.close().unwrap();
    sim
}

/// A session that opens `b` alone and closes the set cleanly.
fn pass_by(sim: &Sim) {
    let set = open_set(sim);
    append(&open(&set, "b"), &["of b"]);
    set.close().unwrap();
}

#[test]
fn a_name_left_by_a_kill_is_made_to_last_after_sessions_that_did_not_open_the_log() {
    // Killed in the roll, between the making of the next segment and the sync of its name.
    let killed = |nth| {
        let sim = closed_set();
        let set = open_set(&sim);
        let log = open(&set, "a");
        sim.fs.die_at(nth);
        log.roll().unwrap_err();
        (sim.fs.went_off_in().unwrap().0 == Op::SyncDir).then_some(sim)
    };
    let mut sim = (1..).find_map(killed).unwrap();
    sim.kill();
    let second = "/data/a/00000000000000000003.log";
    assert!(sim.fs.read_file(second).is_ok(), "{:?}", sim.fs.files());
    pass_by(&sim);

    let set = open_set(&sim);
    append(&open(&set, "a"), &["four"]);
    drop(set);
    sim.crash();
    assert_eq!(texts(&open(&open_set(&sim), "a"), 0), ["one", "two", "three", "four"]);
}

#[test]
fn a_torn_tail_stays_one_after_sessions_that_did_not_open_the_log() {
    let mut sim = closed_set();
    let set = open_set(&sim);
    append(&open(&set, "a"), &["four"]);
    drop(set);
    sim.kill();
    let mut bytes = sim.fs.read_file(FIRST).unwrap();
    bytes.extend(b"half a batch");
    sim.fs.write_file(FIRST, bytes).unwrap();
    pass_by(&sim);

    let report = verify(&sim.env(), DIR, &mut |_| ()).unwrap();
    assert!(report.clean && !report.is_damaged(), "{:?}", report.findings);
    assert!(report.findings.iter().any(|finding| finding.kind == FindingKind::TornTail));
    let set = open_set(&sim);
    let log = open(&set, "a");
    assert!(matches!(log.stats().state, LogState::Open), "{:?}", log.stats().state);
    assert_eq!(texts(&log, 0), ["one", "two", "three", "four"]);
}

#[test]
fn a_log_left_alone_after_a_clean_close_is_still_closed_cleanly() {
    let sim = closed_set();
    pass_by(&sim);
    let set = open_set(&sim);
    let before = sim.fs.calls(Op::SyncDir) + sim.fs.calls(Op::SyncData);
    let log = open(&set, "a");
    assert_eq!(sim.fs.calls(Op::SyncDir) + sim.fs.calls(Op::SyncData), before);
    assert_eq!(texts(&log, 0), ["one", "two", "three"]);
}

#[test]
fn what_lies_behind_the_end_of_a_log_that_was_closed_cleanly_is_not_cut() {
    let sim = closed_set();
    let mut bytes = sim.fs.read_file(FIRST).unwrap();
    bytes.extend(b"of another copy");
    sim.fs.write_file(FIRST, &bytes).unwrap();
    for _ in 0..2 {
        let set = open_set(&sim);
        let log = open(&set, "a");
        assert!(matches!(log.stats().state, LogState::ReadOnly(_)), "{:?}", log.stats().state);
        set.close().unwrap();
        assert_eq!(sim.fs.read_file(FIRST).unwrap(), bytes);
    }
}

#[test]
fn without_the_checkpoint_of_a_clean_close_damage_is_no_torn_write() {
    let mut sim = closed_set();
    let data = sim.fs.read_file(FIRST).unwrap();
    let second = data.windows(3).position(|bytes| bytes == b"two").unwrap() as u64;
    // The header of the batch that holds "two": its base offset.
    sim.fs.flip(FIRST, second - 61 - 6, 2).unwrap();
    let index = "/data/a/00000000000000000000.index";
    remove(&sim, index);
    let damaged = sim.fs.read_file(FIRST).unwrap();
    assert_ne!(damaged, data);
    remove(&sim, "/data/checkpoint");
    // A kill in between forgets nothing, also not of logs that were not opened.
    drop(open_set(&sim));
    sim.kill();
    for killed in [true, false] {
        let set = open_set(&sim);
        let log = open(&set, "a");
        assert!(matches!(log.stats().state, LogState::ReadOnly(_)), "{:?}", log.stats().state);
        assert!(log.append(&[batch(&[b"x"])]).is_err());
        if killed {
            drop((log, set));
            sim.kill();
        } else {
            set.close().unwrap();
        }
        assert_eq!(sim.fs.read_file(FIRST).unwrap(), damaged, "nothing is cut");
    }
    let plan = plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap();
    plan.execute().unwrap();
    let set = open_set(&sim);
    let log = open(&set, "a");
    assert!(matches!(log.stats().state, LogState::Open), "{:?}", log.stats().state);
    append(&log, &["four"]);
    assert_eq!(texts(&log, 2), ["three", "four"]);
}

#[test]
fn a_checkpoint_that_is_gone_after_a_clean_close_is_made_again() {
    let sim = closed_set();
    remove(&sim, "/data/checkpoint");
    let set = open_set(&sim);
    assert!(sim.fs.read_file("/data/checkpoint").is_ok());
    let log = open(&set, "a");
    append(&log, &["four"]);
    set.close().unwrap();
    let report = verify(&sim.env(), DIR, &mut |_| ()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn a_log_whose_meta_is_gone_is_not_made_anew() {
    let sim = closed_set();
    remove(&sim, "/data/a/meta");
    let files = sim.fs.files();
    let set = open_set(&sim);
    let created = set.create("a", b"", LogOptions::default()).map(|_| ());
    let opened = set.open_log("a", LogOptions::default()).map(|_| ());
    for refused in [created, opened] {
        let error = refused.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert!(error.to_string().contains("a/meta is missing"), "{error}");
        assert!(error.to_string().contains("logmill log repair"), "{error}");
    }
    set.close().unwrap();
    assert_eq!(sim.fs.files(), files);

    plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
    assert_eq!(texts(&open(&open_set(&sim), "a"), 0), ["one", "two", "three"]);
}

#[test]
fn a_single_log_whose_meta_is_gone_is_not_made_anew() {
    let sim = Sim::new(5);
    let again = || Log::open(DIR, SetOptions::new(sim.env()), LogOptions::default());
    let log = again().unwrap();
    append(&log, &["one"]);
    log.roll().unwrap();
    log.close().unwrap();
    remove(&sim, "/data/meta");
    assert_eq!(again().unwrap_err().kind(), ErrorKind::Corrupt);
    // The same where only later segments are there.
    remove(&sim, "/data/00000000000000000000.log");
    assert_eq!(again().unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn a_creation_that_was_cut_off_can_be_done_again() {
    let sim = Sim::new(5);
    sim.fs.write_file("/data/a/00000000000000000000.log", b"").unwrap();
    sim.fs.write_file("/data/b/unrelated", b"").unwrap();
    let other = Sim::new(6);
    open_set(&other).close().unwrap();
    sim.fs.write_file("/data/set", other.fs.read_file("/data/set").unwrap()).unwrap();
    let set = open_set(&sim);
    append(&set.create("a", b"", LogOptions::default()).unwrap(), &["one"]);
}

#[test]
fn a_directory_that_has_lost_its_set_file_names_the_repair_that_mends_it() {
    let sim = closed_set();
    remove(&sim, "/data/set");
    let error = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt);
    assert!(error.to_string().contains("logmill log repair"), "{error}");
    plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
    assert_eq!(texts(&open(&open_set(&sim), "a"), 0), ["one", "two", "three"]);
}
