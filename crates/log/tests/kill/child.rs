//! The process that is killed: it appends, rolls and removes old records from several threads, says
//! each acknowledgement in a line of its own, closes everything now and then, and never ends.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use logmill_log::{Log, LogSet, Receipt, SetOptions};
use logmill_record::Offset;

use crate::op::{self, LOGS, Op, THREADS, WINDOW};

/// Where it works.
pub(crate) const DIR: &str = "LOGMILL_KILL_DIR";
/// Which of the processes over that directory it is.
pub(crate) const ROUND: &str = "LOGMILL_KILL_ROUND";
/// What it says when it begins to append.
pub(crate) const READY: &str = "ready";

/// Appends of each thread between two closings.
const APPENDS: u64 = 300;
/// Records that a log keeps, about.
const KEPT: u64 = 400;

pub(crate) fn run(dir: &Path) {
    let round = std::env::var(ROUND).unwrap().parse().unwrap();
    for life in 0.. {
        let set = LogSet::open(dir, SetOptions::default()).unwrap();
        let logs: Vec<_> = (0..LOGS).map(|log| op::open(&set, log)).collect();
        println!("{READY}");
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let numbers = life * APPENDS..(life + 1) * APPENDS;
            let append_as = |thread| {
                let (logs, numbers) = (&logs, numbers.clone());
                scope.spawn(move || append(logs, numbers.map(|number| Op { round, thread, number })))
            };
            let threads: Vec<_> = (0..THREADS).map(append_as).collect();
            scope.spawn(|| look_after(&logs, &done));
            threads.into_iter().for_each(|thread| thread.join().unwrap());
            done.store(true, Ordering::Release);
        });
        set.close().unwrap();
    }
}

fn append(logs: &[Log], ops: impl Iterator<Item = Op>) {
    let mut under_way = VecDeque::new();
    for op in ops {
        let log = &logs[usize::try_from(op.log()).unwrap()];
        let batches = op.batches();
        let receipt = log.append(&batches).unwrap();
        assert!(!receipt.is_duplicate(), "{op} is new");
        if op.is_idempotent() && op.number.is_multiple_of(5) {
            let again = log.append(&batches).unwrap();
            assert!(again.is_duplicate() && again.first_offset() == receipt.first_offset(), "{op} is not");
        }
        under_way.push_back((op, receipt));
        if under_way.len() as u64 == WINDOW {
            under_way.pop_front().into_iter().for_each(acknowledge);
        }
    }
    under_way.into_iter().for_each(acknowledge);
}

fn acknowledge((op, receipt): (Op, Receipt)) {
    let first = receipt.first_offset();
    receipt.wait().unwrap();
    // One write of the system each, as lines are: what was said whole was acknowledged.
    println!("ack {op} {first}");
}

/// Moves the starts on, rolls, and lets readers look.
fn look_after(logs: &[Log], done: &AtomicBool) {
    for turn in 0_u64.. {
        if done.load(Ordering::Acquire) {
            return;
        }
        for (which, log) in logs.iter().enumerate() {
            println!("seen {which} {}", log.end_offset());
            let start = Offset(log.end_offset().get().saturating_sub(KEPT));
            if turn % 8 == 7 && start > log.start_offset() {
                println!("start? {which} {start}");
                println!("start! {which} {}", log.set_start_offset(start).unwrap());
            }
            if turn % 16 == 15 {
                log.roll().unwrap();
            }
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}
