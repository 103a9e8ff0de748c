//! What a machine or a person does to a data directory, and what a caller asks for that cannot be:
//! always a typed error that says where, never a panic, and no memory taken for what a file claims.
#![cfg(feature = "sim")]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and damages files by hand"
)]

mod common;

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use common::{batch, texts};
use logmill_log::env::Env;
use logmill_log::inspect::{DumpOptions, FindingKind, Severity, dump, list, plan_repair, verify};
use logmill_log::sim::Sim;
use logmill_log::{Error, ErrorKind, Log, LogOptions, LogSet, LogState, Receipt, SetOptions};
use logmill_record::{Batch, Offset, TimestampMs};

fn options() -> LogOptions {
    LogOptions::default().segment_bytes(1_000)
}

/// A data directory with a log of several segments, closed cleanly.
fn closed(dir: &Path, records: usize) -> LogSet {
    let set = LogSet::open(dir, SetOptions::default()).unwrap();
    let log = set.create("log", b"", options()).unwrap();
    fill(&log, 0..records);
    set.close().unwrap();
    set
}

fn fill(log: &Log, range: std::ops::Range<usize>) {
    for n in range {
        log.append(&[batch(&[format!("record {n}").as_bytes()])]).unwrap().wait().unwrap();
    }
}

fn open(dir: &Path) -> Result<Log, Error> {
    LogSet::open(dir, SetOptions::default())?.open_log("log", options())
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_small_file_that_claims_to_be_large_is_damage_before_memory_is_taken_for_it() {
    for name in ["set", "checkpoint", "log/meta", "log/00000000000000000000.index"] {
        let dir = tempfile::tempdir().unwrap();
        drop(closed(dir.path(), 30));
        let path = dir.path().join(name);
        fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
        match open(dir.path()) {
            Ok(log) => assert_eq!(texts(&log, 0).len(), 30, "{name}: made again from the data"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{name}: {error}");
                assert_eq!(error.path(), Some(&*path), "{error}");
            }
        }
    }
}

#[test]
fn a_batch_that_claims_more_than_there_is_takes_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 30));
    let data = dir.path().join("log/00000000000000000000.log");
    let mut bytes = fs::read(&data).unwrap();
    bytes[8..12].copy_from_slice(&i32::MAX.to_be_bytes());
    fs::write(&data, bytes).unwrap();
    fs::remove_file(dir.path().join("log/00000000000000000000.index")).unwrap();
    let log = open(dir.path()).unwrap();
    let error = log.read(Offset(0), 100).unwrap_err();
    assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(&*data)), "{error}");
    assert_eq!((error.position(), error.offsets().unwrap().start), (Some(0), Offset(0)), "{error}");
    drop(log);
    let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    let found = report.findings.iter().find(|finding| finding.kind == FindingKind::Batch).unwrap();
    assert_eq!(found.offsets, Some(Offset(0)..Offset(1)), "{found}");
}

#[test]
fn a_log_behind_a_link_is_the_log() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(closed(&data, 30));
    let elsewhere = dir.path().join("elsewhere");
    fs::rename(data.join("log"), &elsewhere).unwrap();
    symlink(&elsewhere, data.join("log")).unwrap();
    let listing = list(&Env::real(), &data).unwrap();
    assert_eq!(listing.logs[0].end_offset, Offset(30));
    let log = open(&data).unwrap();
    fill(&log, 30..40);
    assert_eq!(texts(&log, 0).len(), 40);
    log.set().close().unwrap();
    drop(log);

    fs::remove_dir_all(&elsewhere).unwrap();
    let error = open(&data).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

#[test]
fn directories_behind_links_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let set = LogSet::open(&data, SetOptions::default()).unwrap();
    for path in ["topics/a/0", "topics/a/1"] {
        fill(&set.create(path, b"", options()).unwrap(), 0..3);
    }
    set.close().unwrap();
    for (name, at) in [("all", "topics"), ("one", "topics/a"), ("a.b", "topics/a/1")] {
        let elsewhere = dir.path().join(name);
        fs::rename(data.join(at), &elsewhere).unwrap();
        symlink(&elsewhere, data.join(at)).unwrap();
        if name != "a.b" {
            // The last one would be the third link of its path.
            let logs = list(&Env::real(), &data).unwrap().logs;
            assert_eq!(logs.len(), 2, "{name}: {logs:?}");
        }
    }
    fs::remove_file(data.join("topics/a/1")).unwrap();
    fs::rename(dir.path().join("a.b"), data.join("topics/a/1")).unwrap();
    // A checkpoint that is made again has to know of the logs behind the links.
    fs::remove_file(data.join("checkpoint")).unwrap();
    let set = LogSet::open(&data, SetOptions::default()).unwrap();
    assert!(set.open_log("topics/a/1", options()).is_ok());
    set.close().unwrap();
    let report = verify(&Env::real(), &data, &mut |_| ()).unwrap();
    assert!(!report.is_damaged() && report.logs.len() == 2, "{:?}", report.findings);
    assert!(list(&Env::real(), &data).unwrap().logs.iter().all(|log| log.checkpoint.is_some()));
}

#[test]
fn a_link_that_leads_back_shows_no_log_twice() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    drop(closed(&data, 3));
    fs::create_dir(data.join("more")).unwrap();
    symlink(&data, data.join("more/back")).unwrap();
    let report = verify(&Env::real(), &data, &mut |_| ()).unwrap();
    assert!(!report.is_damaged() && report.logs.len() == 1, "{:?}", report.findings);
}

/// Puts what is no plain file there.
fn make(what: &str, path: &Path) {
    use rustix::fs::{CWD, FileType, Mode, mknodat};
    let mode = Mode::RUSR | Mode::WUSR;
    match what {
        "directory" => fs::create_dir(path).unwrap(),
        // Opening it would wait for who writes to it, for ever.
        "FIFO" => mknodat(CWD, path, FileType::Fifo, mode, 0).unwrap(),
        _ => mknodat(CWD, path, FileType::Socket, mode, 0).unwrap(),
    }
}

#[test]
fn what_is_no_plain_file_is_named_and_not_waited_for() {
    let segment = "log/00000000000000000000.log";
    for name in ["set", "checkpoint", "log/meta", segment, "log/00000000000000000000.index"] {
        for what in ["directory", "FIFO", "socket"] {
            let dir = tempfile::tempdir().unwrap();
            drop(closed(dir.path(), 30));
            let path = dir.path().join(name);
            fs::remove_file(&path).unwrap();
            make(what, &path);
            let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
            let found = report.findings.iter().find(|finding| finding.file == path);
            let found = found.unwrap_or_else(|| panic!("{name} is a {what}: {:?}", report.findings));
            assert!(found.severity > Severity::Note, "{found}");
            assert!(found.what.contains(what), "{found}");
            assert!(list(&Env::real(), dir.path()).is_ok(), "{name} is a {what}");
            if name.ends_with(".index") {
                continue;
            }
            let error = open(dir.path()).unwrap_err();
            assert_eq!((error.kind(), error.path()), (ErrorKind::Corrupt, Some(&*path)), "{error}");
            assert!(error.to_string().contains(what), "{error}");
        }
    }
}

#[test]
fn a_segment_is_read_without_an_index_that_is_no_plain_file() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 30));
    let index = dir.path().join("log/00000000000000000000.index");
    fs::remove_file(&index).unwrap();
    make("FIFO", &index);
    let log = open(dir.path()).unwrap();
    assert_eq!(texts(&log, 0).len(), 30);
    log.set().close().unwrap();
    assert!(!verify(&Env::real(), dir.path(), &mut |_| ()).unwrap().is_damaged(), "it was made again");
}

#[test]
fn a_copy_of_a_log_beside_it_is_damage() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 3));
    copy(&dir.path().join("log"), &dir.path().join("twin"));
    let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    let [found] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((found.severity, found.kind), (Severity::Data, FindingKind::Copy));
    assert_eq!(found.log.as_deref(), Some(Path::new("twin")));
    assert!(found.what.contains("the log that log is"), "{found}");
}

#[test]
fn files_outside_of_logs_are_noted() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 3));
    fs::create_dir_all(dir.path().join("a/b")).unwrap();
    for name in ["notes.txt", "a/b/c", "set.tmp"] {
        fs::write(dir.path().join(name), "x").unwrap();
    }
    let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    let mut files: Vec<_> =
        report.findings.iter().map(|found| found.file.strip_prefix(dir.path()).unwrap()).collect();
    files.sort();
    assert_eq!(files, ["a/b/c", "notes.txt", "set.tmp"].map(Path::new), "{:?}", report.findings);
    assert!(!report.is_damaged() && report.findings.iter().all(|found| found.kind == FindingKind::Stray));
}

#[test]
fn a_file_that_is_no_segment_is_not_dumped() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 3));
    let dumped = |path: &Path| {
        let mut count = 0;
        dump(&Env::real(), path, &DumpOptions::default(), &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        })
        .map(|()| count)
    };
    let (segment, log) = (dir.path().join("log/00000000000000000000.log"), dir.path().join("log"));
    for name in ["meta", "00000000000000000000.index"] {
        let error = dumped(&log.join(name)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.to_string().contains("is no segment"), "{error}");
    }
    let (other, torn) = (dir.path().join("copy"), log.join("00000000000000000000.log.torn-0-1"));
    fs::copy(&segment, &other).unwrap();
    fs::write(&torn, "torn").unwrap();
    assert_eq!((dumped(&segment).unwrap(), dumped(&other).unwrap(), dumped(&torn).unwrap()), (3, 3, 1));
}

#[test]
fn zeros_are_called_zeros() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 3));
    let segment = dir.path().join("log/00000000000000000000.log");
    let mut bytes = fs::read(&segment).unwrap();
    let at = bytes.len() * 2 / 3;
    bytes[at..].fill(0);
    fs::write(&segment, bytes).unwrap();
    let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    assert!(report.findings[0].what.contains("zeros"), "{:?}", report.findings);
    let log = open(dir.path()).unwrap();
    let error = log.read(Offset(2), 1 << 20).unwrap_err();
    assert!(error.to_string().contains("zeros") && !error.to_string().contains("Kafka"), "{error}");
}

/// An open reads an index's footer alone.
#[test]
fn rows_of_an_index_that_are_damaged_are_written_again_by_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 30));
    let index = dir.path().join("log/00000000000000000000.index");
    let mut bytes = fs::read(&index).unwrap();
    bytes[12] ^= 1;
    fs::write(&index, &bytes).unwrap();
    let log = open(dir.path()).unwrap();
    assert_eq!(texts(&log, 0).len(), 30);
    log.set().close().unwrap();
    assert_eq!(fs::read(&index).unwrap(), bytes, "an open has no reason to look");
    let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    let [found] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert_eq!((found.kind, &found.file), (FindingKind::Index, &index));
    assert!(found.advice.contains("for good by a repair"), "{found}");
    plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap().execute().unwrap();
    assert!(!verify(&Env::real(), dir.path(), &mut |_| ()).unwrap().is_damaged());
}

#[test]
fn a_repair_gives_a_log_its_owner_back_where_that_is_known() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 3));
    fs::remove_file(dir.path().join("log/meta")).unwrap();
    let plan = || plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    let too_much = plan().with_owners(|_| Some(vec![0; (1 << 20) + 1].into()));
    assert_eq!(too_much.map(drop).unwrap_err().kind(), ErrorKind::Invalid);
    let plan = plan().with_owners(|log| (log == Path::new("log")).then(|| "mine".into())).unwrap();
    assert!(plan.steps()[0].what.contains("what its owner keeps with it"), "{}", plan.steps()[0]);
    plan.execute().unwrap();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    assert_eq!(set.read_meta("log").unwrap().owner, "mine");
}

#[test]
fn a_log_has_one_path_however_it_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.create("a/log", b"", options()).unwrap();
    for path in ["./a/log", "a/./log", "a//log/", "a/log/."] {
        let again = set.open_log(path, options()).unwrap();
        fill(&again, 0..1);
        assert_eq!(again.end_offset(), log.end_offset(), "{path}: two writers");
        assert_eq!(set.create(path, b"", options()).unwrap_err().kind(), ErrorKind::Exists);
    }
}

#[test]
fn a_log_lies_below_its_directory_and_takes_none_of_its_names() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let set = LogSet::open(&data, SetOptions::default()).unwrap();
    let absolute = data.join("log");
    let strange = std::ffi::OsStr::from_bytes(b"\xff");
    let wrong = ["..", "../log", "a/../log", "/", "set", "meta", "a/meta", "lock", "checkpoint", "reserve"];
    // Inspections pass these over, and so does who makes a lost checkpoint again.
    let done_with = ["a.deleted", "a.deleted/0", "a.replaced-3"];
    for path in wrong.iter().chain(&done_with).map(Path::new).chain([&*absolute, Path::new(strange)]) {
        for outcome in [
            set.create(path, b"", options()).map(drop),
            set.open_log(path, options()).map(drop),
            set.holds_log(path).map(drop),
            set.read_meta(path).map(drop),
        ] {
            let error = outcome.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid, "{}: {error}", path.display());
        }
    }
    let mut names: Vec<_> = fs::read_dir(&data).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["lock", "set"]);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing beside the directory");
}

#[test]
fn a_log_that_is_not_there_is_said_to_be_missing() {
    let dir = tempfile::tempdir().unwrap();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let error = set.open_log("orders", options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(
        error.to_string().contains("there is no log at ") && error.to_string().contains("orders"),
        "{error}"
    );
}

#[test]
fn a_single_log_is_not_put_into_a_directory_of_many() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 1));
    let before = fs::read(dir.path().join("set")).unwrap();
    let error = Log::open(dir.path(), SetOptions::default(), options()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("LogSet::open"), "{error}");
    assert_eq!(fs::read(dir.path().join("set")).unwrap(), before, "nothing was changed");
    assert!(open(dir.path()).is_ok());
}

#[test]
fn a_directory_that_vanishes_under_an_open_log_is_an_error_of_whoever_asks() {
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let set = LogSet::open(&data, SetOptions::default()).unwrap();
    let log = set.create("log", b"", options()).unwrap();
    fill(&log, 0..30);
    fs::remove_dir_all(&data).unwrap();
    let mut failed = None;
    // Appends go into the open file until a segment has to be begun.
    for n in 30..90 {
        match log.append(&[batch(&[format!("record {n}").as_bytes()])]).and_then(Receipt::wait) {
            Ok(()) => {}
            Err(error) => failed = Some(error),
        }
    }
    let error = failed.expect("segments were begun");
    let kinds = [ErrorKind::NotFound, ErrorKind::OutcomeUnknown, ErrorKind::Poisoned];
    assert!(kinds.contains(&error.kind()), "{error}");
    assert!(error.to_string().contains(data.to_str().unwrap()), "{error}");
    let _ = log.read(Offset(0), 100);
    let _ = log.roll();
    assert!(set.close().is_err(), "the checkpoint cannot be written");
}

#[test]
fn a_copy_whose_checkpoint_is_newer_than_its_logs_opens_for_reading_and_can_be_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    drop(closed(&old, 3));
    copy(&old, &new);
    let log = open(&new).unwrap();
    fill(&log, 3..6);
    log.set().close().unwrap();
    drop(log);
    fs::copy(new.join("checkpoint"), old.join("checkpoint")).unwrap();

    let log = open(&old).unwrap();
    let LogState::ReadOnly(error) = log.stats().state else { panic!("{:?}", log.stats()) };
    assert_eq!((error.kind(), error.offsets()), (ErrorKind::Corrupt, Some(Offset(3)..Offset(6))), "{error}");
    assert_eq!(log.read(Offset(0), 10_000).unwrap().next_offset, Offset(3));
    drop(log);
    let report = verify(&Env::real(), &old, &mut |_| ()).unwrap();
    let found = report.findings.iter().find(|finding| finding.kind == FindingKind::Missing).unwrap();
    assert_eq!((found.severity, found.offsets.clone()), (Severity::Data, Some(Offset(3)..Offset(6))));

    plan_repair(&Env::real(), &old, &mut |_| ()).unwrap().execute().unwrap();
    let log = open(&old).unwrap();
    fill(&log, 6..7);
    assert_eq!(texts(&log, 0), ["record 0", "record 1", "record 2", "record 6"]);
    assert_eq!(log.end_offset(), Offset(7), "offsets that were promised are not given out again");
}

#[test]
fn a_copy_whose_checkpoint_is_older_than_its_logs_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (old, new) = (dir.path().join("old"), dir.path().join("new"));
    drop(closed(&old, 3));
    copy(&old, &new);
    let log = open(&new).unwrap();
    fill(&log, 3..40);
    log.set().close().unwrap();
    drop(log);
    fs::copy(old.join("checkpoint"), new.join("checkpoint")).unwrap();

    let report = verify(&Env::real(), &new, &mut |_| ()).unwrap();
    assert!(!report.is_damaged(), "{:?}", report.findings);
    let log = open(&new).unwrap();
    assert_eq!(texts(&log, 0).len(), 40);
    fill(&log, 40..41);
}

#[test]
fn a_clock_that_goes_back_takes_no_time_of_append_with_it() {
    let sim = Sim::new(5);
    let set = LogSet::open("/data", SetOptions::new(sim.env())).unwrap();
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    let mut last = TimestampMs(i64::MIN);
    for n in 0..20 {
        fill(&log, n..n + 1);
        sim.clock.jump(if n % 3 == 0 { -86_400_000 } else { 1_000 });
        if n == 10 {
            log.roll().unwrap();
        }
    }
    let mut next = Offset::ZERO;
    while next < log.end_offset() {
        let out = log.read(next, 1).unwrap();
        for chunk in &out.chunks {
            assert!(chunk.appended_at >= last, "at {next}");
            last = chunk.appended_at;
        }
        next = out.next_offset;
    }
    sim.scheduler.run_for(Duration::from_secs(60));
    set.close().unwrap();
    let report = verify(&sim.env(), "/data", &mut |_| ()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}

#[test]
fn offsets_that_cannot_be_are_out_of_range() {
    let dir = tempfile::tempdir().unwrap();
    drop(closed(dir.path(), 3));
    let log = open(dir.path()).unwrap();
    assert!(Offset::try_from(-1_i64).is_err());
    for from in [Offset(4), Offset::MAX, Offset(u64::MAX)] {
        let error = log.read(from, 100).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::OutOfRange, "{error}");
        assert!(error.to_string().contains("offsets 0 to 3"), "{error}");
    }
    assert_eq!(log.find_time(TimestampMs(i64::MAX)).unwrap(), None);
    assert_eq!(log.find_time(TimestampMs(i64::MIN)).unwrap().unwrap().0, Offset(0));
    assert!(!log.wait_beyond(Offset(u64::MAX), Duration::from_millis(5)).unwrap());
}

/// A batch whose header claims `offsets` offsets and has one record.
fn wide(offsets: u32) -> Batch {
    let mut bytes = batch(&[b"one"]).bytes().to_vec();
    bytes[23..27].copy_from_slice(&(offsets - 1).to_be_bytes());
    let crc = crc_fast::crc32_iscsi(&bytes[21..]);
    bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    Batch::parse(bytes.into()).unwrap()
}

#[test]
fn batches_that_take_more_offsets_than_a_segment_has_are_refused_or_begin_another() {
    let dir = tempfile::tempdir().unwrap();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.create("log", b"", LogOptions::default()).unwrap();
    assert_eq!(log.append(&[]).unwrap_err().kind(), ErrorKind::Invalid);
    let half = wide(1 << 31);
    let error = log.append(&[half.clone(), half.clone()]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert_eq!(log.written_end(), Offset(0), "nothing was appended");
    for n in 1..=3_u64 {
        log.append(std::slice::from_ref(&half)).unwrap().wait().unwrap();
        assert_eq!(log.written_end().get(), n << 31);
    }
    assert!(log.stats().segments >= 2, "{:?}", log.stats());
    // Larger than a segment is to be: it gets one of its own.
    let large = vec![b'x'; 300_000];
    log.set_options(LogOptions::default().segment_bytes(1_000));
    log.append(&[batch(&[&large])]).unwrap().wait().unwrap();
    set.close().unwrap();
    drop((log, set));
    let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    assert!(report.findings.is_empty(), "{:?}", report.findings);
}
