//! A real disk that is full to the last byte: a file system of a few MiB, made and mounted here.
//!
//! That takes root. Without it nothing is tested, and the run says so.
#![cfg(all(feature = "sim", target_os = "linux"))]
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::disallowed_methods,
    reason = "a test may stop where it fails, and this one fills a disk by hand"
)]

mod common;

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use common::{batch, read_all};
use logmill_log::env::{Clock as _, SystemClock};
use logmill_log::sim::SimRandom;
use logmill_log::{Error, ErrorKind, Log, LogOptions, LogSet, ReserveState, SetOptions};
use logmill_record::Offset;
use parking_lot::Mutex;
use tempfile::TempDir;

const BYTES: u64 = 4 << 20;
const LOGS: usize = 2;
const ROUNDS: u64 = 6;
/// What becomes free after each round.
const PIECE: usize = 400_000;
const RESERVE: u64 = 100_000;
/// Nothing that is waited for takes nearly as long.
const LIMIT: Duration = Duration::from_secs(30);

/// A small file system, unmounted when it goes.
struct SmallDisk {
    dir: TempDir,
}

impl SmallDisk {
    /// In memory: full means that not a page is left.
    fn tmpfs() -> Option<Self> {
        let size = format!("size={BYTES}");
        Self::mount(&["-t", "tmpfs", "-o", &size, "tmpfs"])
    }

    /// ext4 on a file: blocks are given out late, a journal lies beside them.
    fn ext4() -> Option<Self> {
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(2 * BYTES).unwrap();
        let path = image.path().to_str().unwrap();
        // No blocks kept for root, which this test runs as.
        run("mkfs.ext4", &["-q", "-F", "-m", "0", path]).then_some(())?;
        // The loop device holds the file from here on.
        Self::mount(&["-t", "ext4", "-o", "loop", path])
    }

    fn mount(args: &[&str]) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let at = [dir.path().to_str().unwrap()];
        run("mount", &[args, &at].concat()).then_some(Self { dir })
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Files that take space, by their number; the data directory allows for `lost+found`.
    fn ballast(&self, number: u64) -> PathBuf {
        let dir = self.path().join("lost+found");
        fs::create_dir_all(&dir).unwrap();
        dir.join(number.to_string())
    }

    /// Takes every byte that is left.
    fn fill(&self) {
        let mut file = File::options().create(true).append(true).open(self.ballast(ROUNDS)).unwrap();
        for len in [1 << 16, 1 << 12, 1 << 9, 1] {
            let full = loop {
                if let Err(error) = file.write_all(&vec![0xbb; len]).and_then(|()| file.sync_all()) {
                    break error;
                }
            };
            assert_eq!(full.kind(), io::ErrorKind::StorageFull);
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        assert!(run("umount", &[self.path().to_str().unwrap()]) || std::thread::panicking());
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn options() -> LogOptions {
    LogOptions::default().segment_bytes(100_000)
}

/// The records that were acknowledged in each log.
#[derive(Default)]
struct Told(Vec<Vec<u8>>);

fn append(log: &Log, told: &mut Told, values: &[Vec<u8>]) -> Result<(), Error> {
    let groups: Vec<_> =
        values.chunks(2).map(|values| batch(&values.iter().map(Vec::as_slice).collect::<Vec<_>>())).collect();
    let receipt = log.append(&groups)?;
    assert_eq!(receipt.first_offset().get(), told.0.len() as u64, "nothing is half-appended");
    receipt.wait()?;
    told.0.extend_from_slice(values);
    Ok(())
}

/// Appends groups of all sizes until nothing fits, not even a byte.
fn append_until_full(random: &SimRandom, logs: &[Log], told: &mut [Told]) {
    let mut most = 30_000;
    while most > 0 {
        let which = usize::try_from(random.below(LOGS as u64)).unwrap();
        let (log, told) = (&logs[which], &mut told[which]);
        let len = usize::try_from(random.below(most)).unwrap();
        let count = 1 + random.below(5);
        let values: Vec<_> = (0..count).map(|n| vec![b'a' + u8::try_from(n).unwrap(); len]).collect();
        if let Err(error) = append(log, told, &values) {
            assert_eq!(error.kind(), ErrorKind::Full, "{error}");
            assert_eq!(log.written_end().get(), told.0.len() as u64, "nothing is half-appended");
            most /= 2;
        }
    }
}

fn check(logs: &[Log], told: &[Told]) {
    for (log, told) in logs.iter().zip(told) {
        let found = read_all(log, Offset(0)).unwrap().into_iter().map(|(_, value)| value);
        assert!(found.eq(told.0.iter().cloned()), "{:?}: what was acknowledged is there", log.dir());
    }
}

fn open(disk: &SmallDisk, reserve: u64) -> Result<(LogSet, Vec<Log>), Error> {
    let of_set = SetOptions::default().reserve_bytes(reserve).maintenance_interval(Duration::from_millis(5));
    let set = LogSet::open(disk.path(), of_set)?;
    let name = |n| format!("log-{n}");
    let open = |n| {
        if set.holds_log(name(n))? {
            set.open_log(name(n), options())
        } else {
            set.create(name(n), b"", options())
        }
    };
    let logs = (0..LOGS).map(open).collect::<Result<_, _>>()?;
    Ok((set, logs))
}

/// Waits until the set holds its reserve.
fn keep(set: &LogSet, reserve: u64) {
    let clock = SystemClock::new();
    while reserve > 0 && set.stats().reserve != ReserveState::Held {
        assert!(clock.monotonic() < LIMIT, "with space again there is a reserve again");
        std::thread::yield_now();
    }
}

/// One at a time: while a child process begins, it holds the directories' locks too.
static ONE: Mutex<()> = Mutex::new(());

fn a_full_disk(name: &str, make: fn() -> Option<SmallDisk>, reserve: u64) {
    let _one = ONE.lock();
    let disk = make();
    let Some(disk) = disk else {
        // Past the capture of output: nobody is to believe that this was tested.
        let what = format!("NOT TESTED: a full {name}; it takes root and `mount`\n");
        io::stderr().write_all(what.as_bytes()).unwrap();
        return;
    };
    let seed = 7;
    let random = SimRandom::new(seed);
    (0..ROUNDS).for_each(|round| fs::write(disk.ballast(round), vec![0xbb; PIECE]).unwrap());
    let (mut set, mut logs) = open(&disk, reserve).unwrap();
    keep(&set, reserve);
    let mut told: Vec<Told> = logs.iter().map(|_| Told::default()).collect();
    let mut shut = 0;
    for round in 0..ROUNDS {
        if reserve == 0 {
            append_until_full(&random, &logs, &mut told);
        }
        // With a reserve held: what it frees when it is needed, nobody else is to take.
        disk.fill();
        append_until_full(&random, &logs, &mut told);
        check(&logs, &told);
        // Every other time as a killed process leaves it.
        if round % 2 == 0
            && let Err(error) = set.close()
        {
            assert!(reserve == 0 && error.kind() == ErrorKind::Full, "{error}");
        }
        drop((set, logs));
        (set, logs) = match open(&disk, reserve) {
            Ok(opened) => opened,
            Err(error) => {
                assert!(reserve == 0 && error.kind() == ErrorKind::Full, "{error}");
                shut += 1;
                fs::remove_file(disk.ballast(round)).unwrap();
                open(&disk, reserve).unwrap()
            }
        };
        check(&logs, &told);
        let _ = fs::remove_file(disk.ballast(round));
        keep(&set, reserve);
        let ends = logs.iter().map(Log::end_offset).collect::<Vec<_>>();
        for (log, told) in logs.iter().zip(&mut told) {
            append(log, told, &[b"there is space again".to_vec()]).unwrap();
        }
        assert!(logs.iter().zip(ends).all(|(log, end)| log.end_offset() == end.next()));
    }
    let records: usize = told.iter().map(|told| told.0.len()).sum();
    println!(
        "{name}, reserve of {reserve}: {records} records acknowledged, lost 0; open refused for want of \
         space {shut} of {ROUNDS} times"
    );
    set.close().unwrap();
}

#[test]
fn a_full_disk_loses_nothing_and_goes_on_with_space_again() {
    a_full_disk("tmpfs", SmallDisk::tmpfs, 0);
    a_full_disk("ext4", SmallDisk::ext4, 0);
}

#[test]
fn with_a_reserve_a_directory_opens_and_closes_without_a_free_byte() {
    a_full_disk("tmpfs", SmallDisk::tmpfs, RESERVE);
    a_full_disk("ext4", SmallDisk::ext4, RESERVE);
}
