//! A disk that fills up: appends end in time, what must go on has a reserve.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and waits for threads"
)]

mod common;
#[path = "common/hook_fs.rs"]
mod hook_fs;

use std::io::IoSlice;
use std::sync::Arc;
use std::time::Duration;

use common::{batch, texts};
use hook_fs::{Call, HookFs};
use logmill_log::env::{Env, OpenMode};
use logmill_log::inspect::{plan_repair, verify};
use logmill_log::sim::{Fault, Op, Rule, Sim};
use logmill_log::{ErrorKind, Log, LogOptions, LogSet, ReserveState, SetOptions};
use logmill_record::Offset;
use parking_lot::Mutex;

const MIB: u64 = 1 << 20;
const TICK: Duration = Duration::from_secs(11);
const RESERVE: &str = "/data/reserve";

fn open(options: SetOptions) -> (LogSet, Log) {
    let set = LogSet::open("/data", options).unwrap();
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    (set, log)
}

fn append(log: &Log, bytes: u64) -> Result<(), logmill_log::Error> {
    let value = vec![b'x'; usize::try_from(bytes).unwrap()];
    log.append(&[batch(&[&value])])?.wait()
}

#[test]
fn appends_are_refused_below_the_watermark_and_go_on_above_it() {
    let sim = Sim::new(1);
    sim.fs.set_capacity_bytes(20 * MIB);
    let (set, log) = open(SetOptions::new(sim.env()).low_space_bytes(8 * MIB));
    let refused = loop {
        if let Err(error) = append(&log, 100_000) {
            break error;
        }
        sim.scheduler.run_until_idle();
    };
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(refused.to_string().contains("free some space"), "{refused}");
    let left = set.space().unwrap().available_bytes;
    assert!((4 * MIB - 200_000..8 * MIB).contains(&left), "refused with {left} left");
    assert!(set.stats().is_low_on_space);
    let records = texts(&log, 0).len();

    sim.fs.set_capacity_bytes(40 * MIB);
    sim.scheduler.run_for(TICK);
    append(&log, 100_000).unwrap();
    assert_eq!(texts(&log, 0).len(), records + 1, "a refused append left nothing");
}

#[test]
fn the_reserve_is_really_written_and_lasts() {
    let mut sim = Sim::new(1);
    let (set, log) = open(SetOptions::new(sim.env()).reserve_bytes(3 * MIB));
    assert_eq!(set.stats().reserve, ReserveState::Missing, "not before the set answers");
    sim.scheduler.run_until_idle();
    assert_eq!(set.stats().reserve, ReserveState::Held);
    drop((log, set));
    let set = LogSet::open("/data", SetOptions::new(sim.crash()).reserve_bytes(3 * MIB)).unwrap();
    let reserve = sim.fs.read_file(RESERVE).unwrap();
    assert_eq!(reserve.len() as u64, 3 * MIB);
    assert!(reserve.chunks(4096).all(|block| block.iter().any(|byte| *byte != 0)));
    let writes = sim.fs.calls(Op::Write);
    sim.scheduler.run_until_idle();
    assert_eq!(set.stats().reserve, ReserveState::Held);
    assert_eq!(sim.fs.calls(Op::Write), writes, "it is found, not written again");
}

#[test]
fn a_full_disk_spends_the_reserve_on_the_checkpoint_and_the_close_and_not_on_appends() {
    let mut sim = Sim::new(1);
    sim.fs.set_capacity_bytes(12 * MIB);
    let (set, log) = open(SetOptions::new(sim.env()).reserve_bytes(MIB));
    sim.scheduler.run_until_idle();
    for bytes in [100_000, 1_000, 10, 1] {
        while append(&log, bytes).is_ok() {}
    }
    assert_eq!(append(&log, 1).unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(set.stats().reserve, ReserveState::Held, "appends do not use it");
    let records = texts(&log, 0).len();
    sim.scheduler.run_for(Duration::from_secs(2)); // the checkpoint
    assert_eq!(set.stats().reserve, ReserveState::Spent);
    assert!(set.space().unwrap().available_bytes > MIB / 2);
    let refused = append(&log, 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    assert!(refused.to_string().contains("reserve"), "{refused}");
    sim.scheduler.run_for(TICK);
    assert_eq!(set.stats().reserve, ReserveState::Spent, "there is no space for it yet");
    set.close().unwrap();
    drop((log, set));

    sim.fs.set_capacity_bytes(20 * MIB);
    let set = LogSet::open("/data", SetOptions::new(sim.crash()).reserve_bytes(MIB)).unwrap();
    let log = set.open_log("a", LogOptions::default()).unwrap();
    sim.scheduler.run_for(TICK);
    assert_eq!(set.stats().reserve, ReserveState::Held);
    append(&log, 1).unwrap();
    assert_eq!(texts(&log, 0).len(), records + 1);
}

#[test]
fn a_reserve_cut_off_by_a_crash_is_written_again() {
    for at in 1..12 {
        let mut sim = Sim::new(at);
        let (set, log) = open(SetOptions::new(sim.env()).reserve_bytes(MIB));
        sim.fs.power_off_at(at);
        sim.scheduler.run_until_idle();
        drop((log, set));
        let set = LogSet::open("/data", SetOptions::new(sim.crash()).reserve_bytes(MIB)).unwrap();
        sim.scheduler.run_until_idle();
        assert_eq!(set.stats().reserve, ReserveState::Held, "power off at {at}");
        assert_eq!(sim.fs.read_file(RESERVE).unwrap().len() as u64, MIB);
    }
}

#[test]
fn a_torn_tail_is_saved_with_the_reserve() {
    let mut sim = Sim::new(5);
    let options = |env| SetOptions::new(env).reserve_bytes(MIB);
    let (set, log) = open(options(sim.env()));
    sim.scheduler.run_until_idle();
    append(&log, 10).unwrap();
    drop((log, set));
    let env = sim.kill();
    let data = "/data/a/00000000000000000000.log";
    let file = env.fs.open(data.as_ref(), OpenMode::ReadWrite).unwrap();
    let len = file.status().unwrap().len;
    file.write_at(&[IoSlice::new(&[1; 40_000])], len).unwrap();
    let used: u64 = sim.fs.files().iter().map(|path| sim.fs.read_file(path).unwrap().len() as u64).sum();
    sim.fs.set_capacity_bytes(used + 10_000);
    let set = LogSet::open("/data", options(env)).unwrap();
    sim.scheduler.run_until_idle();
    let log = set.open_log("a", LogOptions::default()).unwrap();
    assert!(matches!(log.stats().state, logmill_log::LogState::Open), "{:?}", log.stats().state);
    assert_eq!(set.stats().reserve, ReserveState::Spent);
    let torn = sim.fs.files().into_iter().find(|path| path.to_string_lossy().contains("torn")).unwrap();
    assert_eq!(sim.fs.read_file(torn).unwrap(), [1; 40_000]);
}

#[test]
fn a_full_directory_opens_on_the_reserve_that_an_earlier_process_left() {
    let mut sim = Sim::new(1);
    let options = |env| SetOptions::new(env).reserve_bytes(3 * MIB);
    let (set, log) = open(options(sim.env()));
    append(&log, 1_000).unwrap();
    sim.scheduler.run_until_idle();
    assert_eq!(set.stats().reserve, ReserveState::Held);
    drop((log, set));
    let env = sim.kill();
    let used = used_bytes(&sim);
    sim.fs.set_capacity_bytes(used);

    let set = LogSet::open("/data", options(env)).unwrap();
    assert_eq!(set.stats().reserve, ReserveState::Spent);
    let log = set.open_log("a", LogOptions::default()).unwrap();
    assert_eq!(texts(&log, 0).len(), 1);
    assert_eq!(append(&log, 1).unwrap_err().kind(), ErrorKind::Full);
    set.close().unwrap();
}

#[test]
fn a_repair_on_a_full_disk_uses_the_reserve() {
    for reserve in [0, MIB] {
        let mut sim = Sim::new(1);
        let (set, log) = open(SetOptions::new(sim.env()).reserve_bytes(reserve));
        sim.scheduler.run_until_idle();
        for _ in 0..4 {
            append(&log, 100_000).unwrap();
        }
        log.roll().unwrap();
        set.close().unwrap();
        drop((set, log));
        let env = sim.kill();
        let data = env.fs.open("/data/a/00000000000000000000.log".as_ref(), OpenMode::ReadWrite).unwrap();
        data.write_at(&[IoSlice::new(b"damage")], 150_000).unwrap();
        data.sync_data().unwrap();
        let used = used_bytes(&sim);
        sim.fs.set_capacity_bytes(used);

        let plan = plan_repair(&env, "/data", &mut |_| ()).unwrap();
        assert!(!plan.steps().is_empty());
        let done = plan.execute();
        if reserve == 0 {
            assert_eq!(done.unwrap_err().kind(), ErrorKind::Full);
            continue;
        }
        done.unwrap();
        assert!(sim.fs.read_file(RESERVE).is_err(), "it was needed");
        assert!(!verify(&env, "/data", &mut |_| ()).unwrap().is_damaged());
        let set = LogSet::open("/data", SetOptions::new(env)).unwrap();
        let log = set.open_log("a", LogOptions::default()).unwrap();
        assert_eq!(texts(&log, 0).len(), 3, "one record was damaged");
    }
}

/// The bytes that the disk holds.
fn used_bytes(sim: &Sim) -> u64 {
    let space = sim.env().fs.space("/data".as_ref()).unwrap();
    space.total_bytes - space.available_bytes
}

#[test]
fn a_log_by_which_its_owner_makes_room_goes_on_below_the_watermark_and_on_the_reserve() {
    let sim = Sim::new(1);
    sim.fs.set_capacity_bytes(12 * MIB);
    let options = SetOptions::new(sim.env()).reserve_bytes(MIB).low_space_bytes(4 * MIB);
    let (set, log) = open(options);
    let vital = set.create("vital", b"", LogOptions::default().may_use_last_space(true)).unwrap();
    sim.scheduler.run_until_idle();
    while append(&log, 100_000).is_ok() {
        sim.scheduler.run_until_idle();
    }
    assert!(set.stats().is_low_on_space && set.stats().reserve == ReserveState::Held);
    append(&vital, 1_000).unwrap();
    assert_eq!(set.stats().reserve, ReserveState::Held, "there is space left");

    let used = used_bytes(&sim);
    sim.fs.set_capacity_bytes(used);
    append(&vital, 1_000).unwrap();
    assert_eq!(set.stats().reserve, ReserveState::Spent);
    append(&vital, 1_000).unwrap();
    let refused = append(&log, 1).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Full);
    while append(&vital, 100_000).is_ok() {}
    let records = texts(&vital, 0).len();
    assert!(records > 3, "all of the reserve is used");
    drop((set, log, vital));
    sim.fs.set_capacity_bytes(u64::MAX);
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    assert_eq!(texts(&set.open_log("vital", LogOptions::default()).unwrap(), 0).len(), records);
}

#[test]
fn a_close_does_not_wait_for_the_whole_reserve() {
    let dir = tempfile::tempdir().unwrap();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.lock();
    let fs = {
        let gate = Arc::clone(&gate);
        HookFs::asking(move |call, path| {
            if call == Call::Write && path.ends_with("reserve.tmp") {
                drop(gate.lock());
            }
            Ok(())
        })
    };
    let env = Env { fs, ..Env::real() };
    let set = LogSet::open(dir.path(), SetOptions::new(env).reserve_bytes(64 * MIB)).unwrap();
    let temporary = dir.path().join("reserve.tmp");
    while !temporary.exists() {
        std::thread::yield_now();
    }
    let closing = {
        let set = set.clone();
        std::thread::spawn(move || set.close())
    };
    // It is in the middle of a piece: that one it ends.
    std::thread::sleep(Duration::from_millis(50));
    drop(held);
    closing.join().unwrap().unwrap();
    assert!(!temporary.exists() && !dir.path().join("reserve").exists());
}

#[test]
fn a_reserve_whose_release_was_not_synced_is_written_again() {
    let sim = Sim::new(1);
    let options =
        SetOptions::new(sim.env()).reserve_bytes(1 << 20).maintenance_interval(Duration::from_secs(1));
    let set = LogSet::open("/data", options).unwrap();
    let log = set.create("a", b"", LogOptions::default()).unwrap();
    sim.scheduler.run_for(Duration::from_secs(3));
    log.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
    for _ in 0..2 {
        sim.fs.inject(Rule::new(Fault::NoSpace).on(Op::Write).path("*meta.tmp"));
    }
    sim.fs.inject(Rule::new(Fault::Io).on(Op::SyncDir).path("/data"));
    log.set_start_offset(Offset(1)).unwrap_err();
    sim.fs.clear_rules();
    sim.scheduler.run_for(Duration::from_secs(60));
    assert_eq!(set.stats().reserve, ReserveState::Held);
    assert!(sim.fs.read_file("/data/reserve").is_ok(), "what is said to be held is there");
}
