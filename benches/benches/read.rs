//! Sequential reads of a warm log, against a pass of CRC-32C over the same mapped bytes.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use crc_fast::{CrcAlgorithm, checksum};
use logmill_bench::{Aim, Row, Run, Unit, Values, batch_of_bytes, compare, files_below, fill, open};
use logmill_log::env::{Fs as _, Map, OpenMode, StdFs};
use logmill_log::{Log, LogOptions};
use logmill_record::Offset;

const RECORD_LEN: usize = 1024;
const BATCH_LEN: usize = 64 * 1024;
const READ_LEN: usize = 1 << 20;

fn main() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let run = Run::begin("sequential read, against a CRC of the same bytes", dir, 512 << 20);
    let mut values = Values::default();
    let dir = run.directory();
    let log = open(dir.path(), LogOptions::default());
    let batches = (0..run.pick(4096, 32)).map(|_| batch_of_bytes(&mut values, BATCH_LEN, RECORD_LEN, 0));
    fill(&log, batches, 16 << 20);
    log.roll().expect("the last segment can be sealed");

    let total = usize::try_from(log.stats().stored_bytes).expect("it fits in memory");
    let maps: Vec<Arc<dyn Map>> = sealed_files(dir.path()).iter().map(|path| map(path)).collect();
    let crc = || {
        run.megabytes_per_s(total, || {
            let mut seen = 0;
            for map in &maps {
                for piece in (**map).as_ref().chunks(READ_LEN) {
                    std::hint::black_box(checksum(CrcAlgorithm::Crc32Iscsi, piece));
                    seen += piece.len();
                }
            }
            assert_eq!(seen, total, "every byte was gone over once");
        })
    };
    let row = Row {
        title: "sequential read, warm, 64 KiB batches, CRC checked",
        conditions: &format!(
            "{} MB in batches of 63 records of 1 KiB, sealed, in the page cache; reads of 1 MiB",
            total / 1_000_000
        ),
        unit: Unit::MegabytesPerS,
        aim: Aim::RatioAtLeast(0.6),
    };
    let base_name = "CRC-32C of the same bytes, mapped";
    compare(&run, &row, ("Log::read", || read(&run, &log, total)), (base_name, crc));
    show_that_nothing_is_copied(&log);
    log.close().expect("a log closes");
}

fn read(run: &Run, log: &Log, total: usize) -> f64 {
    run.megabytes_per_s(total, || {
        let mut next = Offset(0);
        let mut seen = 0;
        while next < log.end_offset() {
            let out = log.read(next, READ_LEN).expect("the log can be read");
            seen += out.chunks.iter().map(|chunk| chunk.batches.len()).sum::<usize>();
            next = out.next_offset;
        }
        assert_eq!(seen, total, "every byte was read once");
    })
}

/// The data files that hold anything: the active segment is empty after a roll.
fn sealed_files(dir: &Path) -> Vec<std::path::PathBuf> {
    let holds_data = |path: &Path| {
        path.extension().is_some_and(|extension| extension == "log")
            && fs::metadata(path).expect("the file is there").len() > 0
    };
    files_below(dir).into_iter().filter(|path| holds_data(path)).collect()
}

/// Maps a file as the log does.
fn map(path: &Path) -> Arc<dyn Map> {
    let file = StdFs.open(path, OpenMode::Read).expect("the file can be opened");
    let len = file.status().expect("the file can be looked at").len;
    let map = file.map(len).expect("the file can be mapped");
    map.populate(0..usize::try_from(len).expect("it fits in memory")).expect("the file can be read");
    map
}

/// What a read hands out lies in a map of the segment's file, by what the kernel says of the address.
fn show_that_nothing_is_copied(log: &Log) {
    let mut next = Offset(0);
    let (mut chunks, mut bytes) = (0, 0);
    while next < log.end_offset() {
        let out = log.read(next, READ_LEN).expect("the log can be read");
        let maps = fs::read_to_string("/proc/self/maps").expect("the kernel lists the maps");
        for chunk in &out.chunks {
            let at = chunk.batches.as_ptr() as usize;
            let of_segment = maps.lines().any(|line| {
                line.ends_with(".log") && range_of(line).is_some_and(|range| range.contains(&at))
            });
            assert!(of_segment, "a chunk at {at:#x} lies in no map of a segment:\n{maps}");
            chunks += 1;
            bytes += chunk.batches.len();
        }
        next = out.next_offset;
    }
    println!("no copy: all {chunks} chunks, {bytes} bytes, lie in maps of the segments' files\n");
}

/// The addresses at the head of a line of /proc/self/maps.
fn range_of(line: &str) -> Option<std::ops::Range<usize>> {
    let (start, end) = line.split_once(' ')?.0.split_once('-')?;
    Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
}
