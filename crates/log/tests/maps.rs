//! Sealed segments are read through maps, without a copy, within a budget, or by `pread`.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "common/hook_fs.rs"]
mod hook_fs;

use std::fs;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hook_fs::{Call, HookFs};
use logmill_log::env::Env;
use logmill_log::{ErrorKind, Log, LogOptions, ReadMode, SetOptions};
use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};

const SEGMENTS: u64 = 6;

/// A log of several sealed segments with one batch each; the offset is the value.
fn segments(dir: &Path, options: SetOptions) -> Log {
    let log = Log::open(dir, options, LogOptions::default()).unwrap();
    for value in 0..SEGMENTS {
        let mut batch = BatchBuilder::new();
        let value = value.to_be_bytes();
        let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(&value), headers: &[] };
        batch.push(&record).unwrap();
        log.append(&[batch.build().unwrap()]).unwrap().wait().unwrap();
        log.roll().unwrap();
    }
    log
}

/// Where data files below `dir` are mapped into this process.
fn mapped(dir: &Path) -> Vec<Range<usize>> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap();
    let ours = maps.lines().filter(|line| line.contains(dir.to_str().unwrap()));
    ours.map(|line| {
        let (start, end) = line.split_once(' ').unwrap().0.split_once('-').unwrap();
        usize::from_str_radix(start, 16).unwrap()..usize::from_str_radix(end, 16).unwrap()
    })
    .collect()
}

fn read_all(log: &Log) {
    for offset in 0..SEGMENTS {
        let out = log.read(Offset(offset), 1).unwrap();
        assert_eq!(out.next_offset, Offset(offset + 1));
        assert!(out.chunks[0].batches.ends_with(&[offset.to_be_bytes().as_slice(), &[0]].concat()));
    }
}

#[test]
fn a_chunk_of_a_sealed_segment_is_the_mapped_file_itself() {
    let dir = tempfile::tempdir().unwrap();
    let log = segments(dir.path(), SetOptions::default());
    let out = log.read(Offset(2), 1).unwrap();
    let bytes = out.chunks[0].batches.as_ptr_range();
    let holds = |map: &Range<usize>| map.start <= bytes.start as usize && bytes.end as usize <= map.end;
    assert!(mapped(dir.path()).iter().any(holds), "{:?} in {:?}", bytes, mapped(dir.path()));
}

#[test]
fn no_more_segments_are_mapped_than_the_set_may_have() {
    let dir = tempfile::tempdir().unwrap();
    let log = segments(dir.path(), SetOptions::default().max_maps(2));
    for _ in 0..3 {
        read_all(&log);
        assert_eq!(mapped(dir.path()).len(), 2);
    }
}

#[test]
fn bytes_that_a_reader_holds_outlive_their_segments_place_in_the_budget() {
    let dir = tempfile::tempdir().unwrap();
    let log = segments(dir.path(), SetOptions::default().max_maps(1));
    let held = log.read(Offset(0), 1).unwrap();
    let before = held.chunks[0].batches.to_vec();
    read_all(&log);
    assert_eq!(mapped(dir.path()).len(), 2);
    assert_eq!(held.chunks[0].batches, before);
    drop(held);
    assert_eq!(mapped(dir.path()).len(), 1);
}

#[test]
fn where_reads_copy_nothing_is_mapped() {
    let dir = tempfile::tempdir().unwrap();
    let log = segments(dir.path(), SetOptions::default().read_mode(ReadMode::Copy));
    read_all(&log);
    assert_eq!(mapped(dir.path()), []);
}

#[test]
fn batches_with_one_time_of_append_are_one_chunk_however_many_rows_they_take() {
    let dir = tempfile::tempdir().unwrap();
    let log = Log::open(dir.path(), SetOptions::default(), LogOptions::default()).unwrap();
    let value = vec![7; 20 << 10];
    let batches: Vec<_> = (0..10)
        .map(|_| {
            let mut batch = BatchBuilder::new();
            let record =
                NewRecord { timestamp: TimestampMs(0), key: None, value: Some(&value), headers: &[] };
            batch.push(&record).unwrap();
            batch.build().unwrap()
        })
        .collect();
    log.append(&batches).unwrap().wait().unwrap();
    log.roll().unwrap();
    let out = log.read(Offset(3), 1 << 20).unwrap();
    assert_eq!(out.chunks.len(), 1);
    assert_eq!(out.next_offset, Offset(10));
    assert_eq!(
        out.chunks[0].batches.len(),
        batches[3..].iter().map(|batch| batch.bytes().len()).sum::<usize>()
    );
    // A bound in the middle of a row, and behind one.
    for most in [1, 25 << 10, 45 << 10, 90 << 10] {
        let out = log.read(Offset(3), most).unwrap();
        let len: usize = out.chunks.iter().map(|chunk| chunk.batches.len()).sum();
        assert!(len <= most.max(batches[3].bytes().len()) && len + batches[3].bytes().len() > most, "{len}");
    }
}

/// A set on a machine where bringing a map into memory fails so, and how often segments are read by
/// calls.
fn unpopulated(error: fn() -> io::Error) -> (SetOptions, Arc<AtomicUsize>) {
    let reads = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&reads);
    let fs = HookFs::asking(move |call, path| {
        let is_data = path.extension().is_some_and(|ending| ending == "log");
        match call {
            Call::Populate => return Err(error()),
            Call::Read if is_data => drop(counted.fetch_add(1, Ordering::Relaxed)),
            _ => {}
        }
        Ok(())
    });
    (SetOptions::new(Env { fs, ..Env::real() }), reads)
}

#[test]
fn a_map_that_the_disk_cannot_fill_is_an_error_of_the_read() {
    const EIO: i32 = 5;
    let dir = tempfile::tempdir().unwrap();
    let (options, reads) = unpopulated(|| io::Error::from_raw_os_error(EIO));
    let log = segments(dir.path(), options);
    let error = log.read(Offset(2), 1).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    assert_eq!(error.path(), Some(&*dir.path().join(format!("{:020}.log", 2))));
    assert!(error.to_string().contains("look at the system's log"), "{error}");
    assert_eq!(reads.load(Ordering::Relaxed), 0, "it is not tried in another way");
    assert!(log.read(Offset(SEGMENTS), 1).unwrap().chunks.is_empty(), "the log is not ended by it");
}

#[test]
fn a_kernel_that_cannot_fill_maps_gets_its_reads_by_calls() {
    let dir = tempfile::tempdir().unwrap();
    let (options, reads) = unpopulated(|| io::ErrorKind::Unsupported.into());
    let log = segments(dir.path(), options);
    let before = reads.load(Ordering::Relaxed);
    read_all(&log);
    assert!(reads.load(Ordering::Relaxed) >= before + usize::try_from(SEGMENTS).unwrap());
    let out = log.read(Offset(1), 1).unwrap();
    let bytes = out.chunks[0].batches.as_ptr_range();
    let holds = |map: &Range<usize>| map.start <= bytes.start as usize && bytes.end as usize <= map.end;
    assert!(!mapped(dir.path()).iter().any(holds), "the bytes are a copy");
}
