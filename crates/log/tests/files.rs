//! The log on real files: what it promises in the ordinary course, and what it says when a
//! directory is not what it should be.
#![allow(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and damages files by hand"
)]

mod common;

use std::error::Error as _;
use std::fs;
use std::io::Write;
use std::time::Duration;

use common::{batch, batch_at, read_all, texts};
use logmill_log::env::Env;
use logmill_log::{Error, ErrorKind, Log, LogOptions, LogSet, LogState, SetOptions, inspect};
use logmill_record::{Offset, TimestampMs};

fn open(dir: &std::path::Path) -> Log {
    Log::open(dir, SetOptions::default(), small_segments()).unwrap()
}

fn small_segments() -> LogOptions {
    LogOptions::default().segment_bytes(1_000)
}

fn numbered(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|n| format!("record {n}")).collect()
}

fn fill(log: &Log, range: std::ops::Range<usize>) {
    for text in numbered(range) {
        log.append(&[batch(&[text.as_bytes()])]).unwrap().wait().unwrap();
    }
}

#[test]
fn what_was_acknowledged_is_read_back_in_order_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0..100);
    assert!(log.stats().segments > 5, "{:?}", log.stats());
    assert_eq!(texts(&log, 0), numbered(0..100));
    assert_eq!(texts(&log, 57), numbered(57..100));
}

#[test]
fn a_clean_close_and_open_goes_on_under_a_new_epoch() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let log = open(dir.path());
        assert_eq!(log.set().epoch(), round + 1);
        assert_eq!(log.end_offset(), Offset(u64::try_from(round).unwrap() * 30));
        let from = usize::try_from(round).unwrap() * 30;
        fill(&log, from..from + 30);
        log.set().close().unwrap();
    }
    assert_eq!(texts(&open(dir.path()), 0), numbered(0..120));
}

#[test]
fn without_a_close_nothing_acknowledged_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    for round in 0..4 {
        let log = open(dir.path());
        fill(&log, round * 30..round * 30 + 30);
        drop(log);
    }
    assert_eq!(texts(&open(dir.path()), 0), numbered(0..120));
}

#[test]
fn readers_see_no_more_than_what_is_durable() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let receipt = log.append(&[batch(&[b"a", b"b"])]).unwrap();
    let seen = log.read(Offset(0), 100).unwrap();
    assert!(seen.end_offset == Offset(0) || seen.end_offset == Offset(2));
    receipt.wait().unwrap();
    assert_eq!(log.read(Offset(0), 100).unwrap().end_offset, Offset(2));
}

#[test]
fn a_group_of_batches_gets_consecutive_offsets_in_one_receipt() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let receipt = log.append(&[batch(&[b"a", b"b"]), batch(&[b"c"])]).unwrap();
    assert_eq!((receipt.first_offset(), receipt.last_offset()), (Offset(0), Offset(2)));
    receipt.wait().unwrap();
    assert_eq!(texts(&log, 0), ["a", "b", "c"]);
}

#[test]
fn a_read_returns_the_first_batch_even_above_its_limit() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    let large = vec![b'x'; 300_000];
    log.append(&[batch(&[&large])]).unwrap().wait().unwrap();
    log.append(&[batch(&[b"after"])]).unwrap().wait().unwrap();
    let out = log.read(Offset(0), 1).unwrap();
    assert_eq!(out.next_offset, Offset(1));
    log.roll().unwrap();
    let out = log.read(Offset(0), 1).unwrap();
    assert_eq!(out.next_offset, Offset(1));
    assert_eq!(texts(&log, 1), ["after"]);
}

#[test]
fn a_reader_in_the_middle_of_a_batch_gets_the_whole_batch() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    log.append(&[batch(&[b"a", b"b", b"c"])]).unwrap().wait().unwrap();
    for sealed in [false, true] {
        if sealed {
            log.roll().unwrap();
        }
        let out = log.read(Offset(1), 1_000).unwrap();
        assert_eq!(out.next_offset, Offset(3));
        assert_eq!(texts(&log, 2), ["c"]);
    }
}

#[test]
fn offsets_outside_the_log_are_refused_with_the_range() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0..3);
    assert!(log.read(Offset(3), 100).unwrap().chunks.is_empty());
    let error = log.read(Offset(4), 100).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange);
    assert!(error.to_string().contains("offsets 0 to 3"), "{error}");
}

#[test]
fn a_time_finds_its_first_record_in_sealed_and_active_segments() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    // Producers disagree: times go up by 10 with every fifth one far behind.
    for n in 0..200_i64 {
        let time = if n % 5 == 4 { 0 } else { n * 10 };
        log.append(&[batch_at(time, &[b"some value that fills segments"])]).unwrap().wait().unwrap();
    }
    assert!(log.stats().segments > 5);
    for (at, offset, time) in [(0, 0, 0), (15, 2, 20), (40, 5, 50), (1_000, 100, 1_000), (1_980, 198, 1_980)]
    {
        let found = log.find_time(TimestampMs(at)).unwrap();
        assert_eq!(found, Some((Offset(offset), TimestampMs(time))), "first at or after {at}");
    }
    assert_eq!(log.find_time(TimestampMs(1_981)).unwrap(), None);
    assert_eq!(log.find_time(TimestampMs(-5)).unwrap(), Some((Offset(0), TimestampMs(0))));
}

#[test]
fn waiting_at_the_end_ends_with_a_record_or_with_the_time() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    assert!(!log.wait_beyond(Offset(0), Duration::from_millis(20)).unwrap());
    let writer = log.clone();
    std::thread::scope(|scope| {
        scope.spawn(move || fill(&writer, 0..1));
        assert!(log.wait_beyond(Offset(0), Duration::from_secs(20)).unwrap());
    });
    log.close().unwrap();
    let error = log.wait_beyond(Offset(5), Duration::from_secs(20)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Closed);
}

#[test]
fn many_writers_share_syncs_and_keep_their_own_order() {
    let dir = tempfile::tempdir().unwrap();
    let log =
        Log::open(dir.path(), SetOptions::default(), LogOptions::default().segment_bytes(20_000)).unwrap();
    std::thread::scope(|scope| {
        for writer in 0..8 {
            let log = log.clone();
            scope.spawn(move || {
                for n in 0..100 {
                    let text = format!("{writer} {n:03}");
                    log.append(&[batch(&[text.as_bytes()])]).unwrap().wait().unwrap();
                }
            });
        }
    });
    let all = texts(&log, 0);
    assert_eq!(all.len(), 800);
    for writer in 0..8 {
        let own: Vec<_> = all.iter().filter(|text| text.starts_with(&format!("{writer} "))).collect();
        assert!(own.is_sorted(), "writer {writer}");
        assert_eq!(own.len(), 100);
    }
}

#[test]
fn a_lost_or_damaged_index_is_rebuilt_from_the_data() {
    for damage in ["remove", "cut", "flip"] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        fill(&log, 0..50);
        log.set().close().unwrap();
        drop(log);
        for entry in fs::read_dir(dir.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|ending| ending == "index") {
                let mut bytes = fs::read(&path).unwrap();
                match damage {
                    "remove" => fs::remove_file(&path).unwrap(),
                    "cut" => fs::write(&path, &bytes[..bytes.len() / 2]).unwrap(),
                    _ => {
                        let last = bytes.len() - 20;
                        bytes[last] ^= 1;
                        fs::write(&path, bytes).unwrap();
                    }
                }
            }
        }
        let log = open(dir.path());
        assert_eq!(texts(&log, 0), numbered(0..50), "{damage}");
        assert!(log.read(Offset(0), 10).unwrap().chunks[0].appended_at_estimated, "{damage}");
    }
}

#[test]
fn a_torn_tail_is_saved_aside_and_cut() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0..3);
    drop(log);
    let data = dir.path().join("00000000000000000000.log");
    let whole = fs::metadata(&data).unwrap().len();
    fs::OpenOptions::new().append(true).open(&data).unwrap().write_all(b"half a batch").unwrap();
    let log = open(dir.path());
    assert_eq!(texts(&log, 0), numbered(0..3));
    assert_eq!(
        fs::read(dir.path().join(format!("00000000000000000000.log.torn-{whole}-2"))).unwrap(),
        b"half a batch"
    );
    fill(&log, 3..5);
    drop(log);
    assert_eq!(texts(&open(dir.path()), 0), numbered(0..5));
}

#[test]
fn damage_in_a_sealed_segment_costs_that_batch_and_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0..50);
    log.set().close().unwrap();
    drop(log);
    let data = dir.path().join("00000000000000000000.log");
    let mut bytes = fs::read(&data).unwrap();
    let value = bytes.windows(8).position(|window| window == b"record 3").unwrap();
    bytes[value] ^= 0x10;
    fs::write(&data, bytes).unwrap();

    let log = open(dir.path());
    let error = read_all(&log, Offset(0)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let gone = error.offsets().unwrap();
    assert_eq!(gone, Offset(3)..Offset(4), "{error}");
    assert_eq!(log.read(Offset(0), 10_000).unwrap().next_offset, gone.start);
    assert_eq!(texts(&log, gone.end.get()), numbered(usize::try_from(gone.end.get()).unwrap()..50));
    fill(&log, 50..51);
}

#[test]
fn damage_that_was_promised_in_the_active_segment_makes_the_log_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default()).unwrap();
    fill(&log, 0..10);
    log.set().close().unwrap();
    drop(log);
    let data = dir.path().join("00000000000000000000.log");
    let len = fs::metadata(&data).unwrap().len();
    fs::OpenOptions::new().write(true).open(&data).unwrap().set_len(len - 30).unwrap();

    let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default()).unwrap();
    assert!(matches!(log.stats().state, LogState::ReadOnly(_)), "{:?}", log.stats());
    let error = log.append(&[batch(&[b"x"])]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ReadOnly, "{error}");
    let cause = error.source().unwrap().downcast_ref::<Error>().unwrap();
    assert_eq!((cause.kind(), cause.offsets()), (ErrorKind::Corrupt, Some(Offset(9)..Offset(10))));
    let error = read_all(&log, Offset(0)).unwrap_err();
    assert_eq!(error.offsets().unwrap(), Offset(9)..Offset(10), "{error}");
    assert_eq!(log.read(Offset(0), 100_000).unwrap().next_offset, Offset(9));
    assert_eq!(fs::metadata(&data).unwrap().len(), len - 30, "nothing was touched");
}

#[test]
fn a_directory_is_open_once() {
    let dir = tempfile::tempdir().unwrap();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let error = LogSet::open(dir.path(), SetOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Locked);
    assert!(error.to_string().contains("in use by another process"), "{error}");
    set.close().unwrap();
    LogSet::open(dir.path(), SetOptions::default()).unwrap();
}

#[test]
fn a_directory_that_is_not_one_is_refused_in_a_sentence() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"photograph").unwrap();
    let error = LogSet::open(&file, SetOptions::default()).unwrap_err();
    assert!(error.to_string().contains("is not a directory"), "{error}");
    let error = LogSet::open(dir.path(), SetOptions::default()).unwrap_err();
    assert!(error.to_string().contains("is not a data directory"), "{error}");
    assert_eq!(fs::read(&file).unwrap(), b"photograph");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1, "nothing was written beside it");
}

#[test]
fn files_of_a_newer_version_are_refused_and_left_alone() {
    for name in ["set", "meta", "checkpoint"] {
        let dir = tempfile::tempdir().unwrap();
        let log = open(dir.path());
        fill(&log, 0..2);
        log.set().close().unwrap();
        drop(log);
        let path = dir.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[4] = 2;
        fs::write(&path, &bytes).unwrap();
        let error = Log::open(dir.path(), SetOptions::default(), LogOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::NewerFormat, "{name}: {error}");
        assert!(error.to_string().contains("newer Logmill"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
    }
}

#[test]
fn a_closed_log_answers_so() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0..1);
    log.close().unwrap();
    log.close().unwrap();
    assert_eq!(log.append(&[batch(&[b"x"])]).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(log.read(Offset(0), 10).unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(texts(&open(dir.path()), 0), numbered(0..1));
}

#[test]
fn a_log_of_a_set_that_is_closed_can_be_opened_again_from_the_set() {
    let dir = tempfile::tempdir().unwrap();
    let set = LogSet::open(dir.path(), SetOptions::default()).unwrap();
    let log = set.create("orders", b"", small_segments()).unwrap();
    fill(&log, 0..1);
    log.close().unwrap();
    let again = set.open_log("orders", small_segments()).unwrap();
    assert_eq!(texts(&again, 0), numbered(0..1));
}

#[test]
fn closing_a_log_that_was_opened_by_itself_closes_its_set() {
    let dir = tempfile::tempdir().unwrap();
    let log = open(dir.path());
    fill(&log, 0..1);
    log.close().unwrap();
    // Given back, though there still is a handle.
    let report = inspect::verify(&Env::real(), dir.path(), &mut |_| ()).unwrap();
    assert!(report.clean && report.findings.is_empty(), "{report:?}");
    assert_eq!(log.set().open_log("", small_segments()).unwrap_err().kind(), ErrorKind::Closed);
}
