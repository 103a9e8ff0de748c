//! What an inspection looks into and what it leaves alone: links, directories that their owner is done with,
//! strange names, and logs that it cannot read.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "a test may stop where it fails, and looks at the disk itself"
)]

mod common;

use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use common::{batch, read_all};
use logmill_log::env::Env;
use logmill_log::inspect::{Finding, FindingKind, Severity, list, plan_repair, verify};
use logmill_log::{ErrorKind, LogOptions, LogSet, SetOptions};
use logmill_record::Offset;

fn findings(dir: &Path) -> Vec<Finding> {
    verify(&Env::real(), dir, &mut |_| ()).unwrap().findings
}

fn above_notes(dir: &Path) -> Vec<String> {
    let found = findings(dir);
    found.iter().filter(|found| found.severity > Severity::Note).map(ToString::to_string).collect()
}

fn repair(dir: &Path) -> Vec<String> {
    let plan = plan_repair(&Env::real(), dir, &mut |_| ()).unwrap();
    let steps = plan.steps().iter().map(ToString::to_string).collect();
    plan.execute().unwrap();
    steps
}

/// A data directory with these logs, of four records and one, closed cleanly.
fn closed(dir: &Path, logs: &[&str]) {
    let set = LogSet::open(dir, SetOptions::default()).unwrap();
    for path in logs {
        let log = set.create(path, b"", LogOptions::default()).unwrap();
        for _ in 0..4 {
            log.append(&[batch(&[b"twenty bytes of text"])]).unwrap().wait().unwrap();
        }
        log.roll().unwrap();
        log.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
    }
    set.close().unwrap();
}

fn data(dir: &Path, log: &str) -> PathBuf {
    dir.join(log).join("00000000000000000000.log")
}

/// Turns a byte of a record over, in the second of four batches.
fn damage(dir: &Path, log: &str) {
    let data = data(dir, log);
    let mut bytes = fs::read(&data).unwrap();
    let len = bytes.len() / 4;
    bytes[len + 70] ^= 1;
    fs::write(&data, bytes).unwrap();
}

/// A broker renames the directory of a deleted topic, and unlinks its files one after the other, by their
/// names. Wherever a kill cuts that off, nothing is damaged: the next start goes on with it.
#[test]
fn a_deletion_that_was_cut_off_is_no_damage_and_is_left_alone() {
    let root = tempfile::tempdir().unwrap();
    let topic = "topics/00112233-4455-6677-8899-aabbccddeeff";
    for cut in 0.. {
        let dir = root.path().join(cut.to_string());
        closed(&dir, &[&format!("{topic}/0")]);
        let doomed = dir.join(format!("{topic}.deleted"));
        fs::rename(dir.join(topic), &doomed).unwrap();
        let mut files: Vec<_> =
            fs::read_dir(doomed.join("0")).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files.iter().take(cut) {
            fs::remove_file(file).unwrap();
        }
        let found = findings(&dir);
        let of_topic: Vec<_> = found.iter().filter(|found| found.file.starts_with(&doomed)).collect();
        assert_eq!((of_topic.len(), above_notes(&dir)), (1, vec![]), "{cut} of {} are gone", files.len());
        assert_eq!(repair(&dir), [""; 0]);
        assert!(list(&Env::real(), &dir).unwrap().logs.is_empty());
        if cut == files.len() {
            break;
        }
    }
}

#[test]
fn a_list_of_topics_that_was_replaced_is_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &["internal/metadata", "internal/old"]);
    fs::rename(dir.path().join("internal/old"), dir.path().join("internal/metadata.replaced-3")).unwrap();
    damage(dir.path(), "internal/metadata.replaced-3");
    assert_eq!(above_notes(dir.path()), [""; 0]);
    assert_eq!(repair(dir.path()), [""; 0]);
}

/// One directory that can be reached in two ways is no copy of itself.
#[test]
fn a_log_that_a_link_leads_to_once_more_is_no_copy() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &["logs/a"]);
    symlink("logs", dir.path().join("by-name")).unwrap();
    symlink("a", dir.path().join("logs/0")).unwrap();
    assert_eq!(findings(dir.path()), []);
    let logs = list(&Env::real(), dir.path()).unwrap().logs;
    assert_eq!(logs.iter().map(|log| log.path.as_path()).collect::<Vec<_>>(), [Path::new("logs/a")]);
}

#[test]
fn a_repair_mends_a_log_that_a_link_leads_to_once_more_as_any_other() {
    for linked in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        closed(dir.path(), &["logs/a"]);
        damage(dir.path(), "logs/a");
        if linked {
            symlink("logs", dir.path().join("by-name")).unwrap();
        }
        let steps = repair(dir.path());
        let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
        let log = set.open_log("logs/a", LogOptions::default()).unwrap();
        let offsets: Vec<_> =
            read_all(&log, Offset(0)).unwrap().into_iter().map(|(at, _)| at.get()).collect();
        assert_eq!(offsets, [0, 2, 3, 4], "linked: {linked}; {steps:#?}");
    }
}

/// A link can lead into the data directory of another set, which somebody has open: that lock counts there.
#[test]
fn a_repair_leaves_alone_what_lies_in_a_directory_that_somebody_has_open() {
    let root = tempfile::tempdir().unwrap();
    let (live, other) = (root.path().join("live"), root.path().join("other"));
    closed(&live, &["topics/a"]);
    damage(&live, "topics/a");
    let bytes = fs::read(data(&live, "topics/a")).unwrap();
    let _open = LogSet::open(&live, SetOptions::default()).unwrap();
    closed(&other, &["logs/a"]);
    // Below it, into it, and above it.
    for target in [live.join("topics"), live.join("topics/a"), live.clone(), root.path().to_owned()] {
        symlink(&target, other.join("more")).unwrap();
        let found = findings(&other);
        let kinds: Vec<_> = found.iter().map(|found| (found.severity, found.kind)).collect();
        assert_eq!(kinds, [(Severity::Note, FindingKind::Stray)], "{}: {found:?}", target.display());
        assert_eq!(repair(&other), [""; 0], "{}", target.display());
        assert_eq!(fs::read(data(&live, "topics/a")).unwrap(), bytes, "{}", target.display());
        fs::remove_file(other.join("more")).unwrap();
    }
}

/// Whoever has a directory below open has another lock than the one of the directory that was named.
#[test]
fn a_data_directory_below_is_not_looked_into() {
    for is_data_directory in [false, true] {
        let above = tempfile::tempdir().unwrap();
        if is_data_directory {
            closed(above.path(), &["own"]);
        }
        let below = above.path().join("par/a");
        fs::create_dir_all(&below).unwrap();
        closed(&below, &["log"]);
        damage(&below, "log");
        let set = LogSet::open(&below, SetOptions::default()).unwrap();
        let log = set.open_log("log", LogOptions::default()).unwrap();
        let bytes = fs::read(data(&below, "log")).unwrap();
        if is_data_directory {
            assert!(repair(above.path()).is_empty());
            let found = findings(above.path());
            assert!(
                found.len() == 1 && found[0].to_string().contains("data directory of its own"),
                "{found:?}"
            );
        } else {
            let error = plan_repair(&Env::real(), above.path(), &mut |_| ()).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Invalid);
            assert!(error.to_string().contains(&below.display().to_string()), "{error}");
            assert!(!above.path().join("set").exists());
        }
        assert_eq!(fs::read(data(&below, "log")).unwrap(), bytes);
        drop(log);
        set.close().unwrap();
    }
}

#[test]
fn a_name_that_is_not_utf8_is_a_note_and_stops_nobody() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &["a"]);
    for place in ["", "a"] {
        for name in [&b"\xff"[..], b"\xff.tmp", b"\xff.deleted", b"00000000000000000003.log\xff"] {
            fs::write(dir.path().join(place).join(std::ffi::OsStr::from_bytes(name)), b"x").unwrap();
        }
    }
    fs::create_dir(dir.path().join(std::ffi::OsStr::from_bytes(b"dir\xff"))).unwrap();
    let found = findings(dir.path());
    assert_eq!((found.len(), above_notes(dir.path())), (9, vec![]), "{found:?}");
    assert!(found.iter().any(|found| found.file.to_string_lossy().contains(r"\xFF")), "{found:?}");
    assert_eq!(list(&Env::real(), dir.path()).unwrap().logs.len(), 1);
    assert_eq!(repair(dir.path()), [""; 0]);
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.open_log("a", LogOptions::default()).unwrap();
    assert_eq!(log.end_offset(), Offset(5));
}

/// Its magic, and a version that there is not yet.
fn make_newer(meta: &Path) {
    let mut bytes = fs::read(meta).unwrap();
    bytes[4] = 2;
    fs::write(meta, bytes).unwrap();
}

#[test]
fn a_log_that_a_newer_version_wrote_is_left_as_it_is_and_the_others_are_looked_into() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &["a", "b", "c"]);
    make_newer(&dir.path().join("b/meta"));
    damage(dir.path(), "b");
    damage(dir.path(), "c");
    let report = verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    let found: Vec<_> =
        report.findings.iter().map(|found| (found.kind, found.log.clone().unwrap())).collect();
    assert_eq!(found, [(FindingKind::Unread, "b".into()), (FindingKind::Batch, "c".into())]);
    assert_eq!(report.findings[0].severity, Severity::Data);
    let before = fs::read(data(dir.path(), "b")).unwrap();
    let checkpoint = fs::read(dir.path().join("checkpoint")).unwrap();
    assert!(repair(dir.path()).iter().all(|step| step.contains("/c/")));
    assert_eq!(fs::read(data(dir.path(), "b")).unwrap(), before);
    assert_eq!(fs::read(dir.path().join("checkpoint")).unwrap(), checkpoint);
    let found: Vec<_> = findings(dir.path()).into_iter().map(|found| found.kind).collect();
    assert_eq!(found.iter().filter(|kind| **kind != FindingKind::Stray).count(), 1, "{found:?}");
}

/// Without its row in a checkpoint that is made anew, what was acknowledged in it would count as torn.
#[test]
fn a_checkpoint_is_not_made_anew_without_a_log_that_could_not_be_read() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &["a", "b"]);
    make_newer(&dir.path().join("b/meta"));
    fs::write(dir.path().join("checkpoint"), b"damaged").unwrap();
    assert_eq!(repair(dir.path()), [""; 0]);
}

#[test]
fn a_log_of_which_too_many_offsets_are_gone_is_left_as_it_is_and_the_others_are_mended() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &["a", "b"]);
    damage(dir.path(), "b");
    fs::write(dir.path().join("a/09223372036854775807.log"), b"x").unwrap();
    let plan = plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    assert_eq!(plan.not_mended().len(), 1, "{plan:?}");
    let (path, why) = &plan.not_mended()[0];
    assert_eq!((path.as_path(), why.kind()), (Path::new("a"), ErrorKind::Invalid), "{why}");
    let of_b = |step: &logmill_log::inspect::RepairStep| step.log.as_deref() == Some(Path::new("b"));
    assert!(!plan.steps().is_empty() && plan.steps().iter().all(of_b), "{:?}", plan.steps());
    plan.execute().unwrap();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    assert_eq!(set.open_log("b", LogOptions::default()).unwrap().end_offset(), Offset(5));
}

#[test]
fn a_file_that_only_has_the_name_of_a_segment_is_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let text = dir.path().join("00000000000000000042.log");
    fs::write(&text, b"Dear diary").unwrap();
    let error = plan_repair(&Env::real(), dir.path(), &mut |_| ()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.to_string().contains("it may be no data directory"), "{error}");
    assert_eq!(fs::read(&text).unwrap(), b"Dear diary");
}

#[test]
fn without_set_nothing_is_said_of_a_clean_close() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &["a"]);
    for name in ["set", "checkpoint"] {
        fs::remove_file(dir.path().join(name)).unwrap();
    }
    let found = findings(dir.path());
    let checkpoint = found.iter().find(|found| found.kind == FindingKind::Checkpoint).unwrap();
    let text = checkpoint.to_string();
    assert!(!text.contains("cleanly") && text.contains("a repair makes it again"), "{text}");
}

#[test]
fn the_end_of_a_write_that_a_kill_cut_off_is_not_said_to_be_more_than_is_known() {
    let dir = tempfile::tempdir().unwrap();
    let live = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = live.create("a", b"", LogOptions::default()).unwrap();
    log.append(&[batch(&[b"x"])]).unwrap().wait().unwrap();
    log.retire();
    drop((log, live));
    let data = data(dir.path(), "a");
    let mut bytes = fs::read(&data).unwrap();
    bytes.extend([7; 10]);
    fs::write(&data, bytes).unwrap();
    let found = findings(dir.path());
    let tail = found.iter().find(|found| found.kind == FindingKind::TornTail).unwrap().to_string();
    assert!(
        tail.contains("the last 10 bytes are not whole, behind what the checkpoint (offset 0)"),
        "{tail}"
    );
    assert!(tail.contains("or damage to it; the next start saves them aside"), "{tail}");
}

#[test]
fn a_step_names_what_it_does_and_not_what_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), &["a"]);
    damage(dir.path(), "a");
    let steps = repair(dir.path());
    let step = steps.iter().find(|step| step.contains("written anew")).unwrap();
    assert!(step.contains("damaged places taken out: 1") && !step.contains("put right"), "{step}");
}
