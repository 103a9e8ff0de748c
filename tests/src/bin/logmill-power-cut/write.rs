//! The workload: several threads append to several logs, which roll, lose their oldest segments,
//! and are closed and opened again.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::thread;

use logmill_log::env::Env;
use logmill_log::{Log, LogSet, Receipt, SetOptions};
use logmill_record::{BatchBuilder, NewRecord, Offset, TimestampMs};

use crate::no_sync::NoSync;
use crate::notes::{Note, Notes};
use crate::{LOGS, WRITERS, name, options, value};

/// How often the data directory is opened: at first it is new, then it was closed, then dropped.
const SESSIONS: u64 = 4;
/// How many appends a writer has under way.
const IN_FLIGHT: usize = 3;

pub(crate) fn run(dir: &Path, notes: &str, write_log: &str, appends: u64, no_sync: bool) {
    let notes = Notes::create(notes, write_log);
    let mut next = [[0; WRITERS]; LOGS];
    for session in 0..SESSIONS {
        let mut env = Env::real();
        if no_sync {
            env.fs = Arc::new(NoSync);
        }
        let set = LogSet::open(dir, SetOptions::new(env)).unwrap();
        let logs: Vec<Log> = (0..LOGS).map(|log| open(&set, log, &notes)).collect();
        thread::scope(|scope| {
            for (log, next) in next.iter_mut().enumerate() {
                for (writer, next) in next.iter_mut().enumerate() {
                    let (notes, handle) = (&notes, &logs[log]);
                    let appends = appends / SESSIONS;
                    scope.spawn(move || {
                        Writer { log, writer, handle, notes, flying: VecDeque::new() }.run(next, appends);
                    });
                }
            }
        });
        logs.iter().enumerate().for_each(|(log, handle)| trim(log, handle, &notes));
        if session % 2 == 0 {
            set.close().unwrap();
        }
    }
}

fn open(set: &LogSet, log: usize, notes: &Notes) -> Log {
    if set.holds_log(name(log)).unwrap() {
        return set.open_log(name(log), options()).unwrap();
    }
    let handle = set.create(name(log), b"power cut", options()).unwrap();
    notes.add(Note::Created { log });
    handle
}

/// Gives up the older half of a log.
fn trim(log: usize, handle: &Log, notes: &Notes) {
    let start = handle.start_offset().get().midpoint(handle.end_offset().get());
    notes.add(Note::Trimming { log, start });
    handle.set_start_offset(Offset(start)).unwrap();
    notes.add(Note::Trimmed { log, start });
}

struct Writer<'a> {
    log: usize,
    writer: usize,
    handle: &'a Log,
    notes: &'a Notes,
    flying: VecDeque<(u64, Receipt)>,
}

impl Writer<'_> {
    fn run(&mut self, next: &mut u64, appends: u64) {
        for _ in 0..appends {
            let value = value(self.log, self.writer, *next);
            let mut batch = BatchBuilder::new();
            let record =
                NewRecord { timestamp: TimestampMs(0), key: None, value: Some(&value), headers: &[] };
            batch.push(&record).unwrap();
            let receipt = self.handle.append(&[batch.build().unwrap()]).unwrap();
            self.flying.push_back((*next, receipt));
            *next += 1;
            if self.flying.len() == IN_FLIGHT {
                self.acknowledge();
            }
        }
        while !self.flying.is_empty() {
            self.acknowledge();
        }
    }

    fn acknowledge(&mut self) {
        let (n, receipt) = self.flying.pop_front().unwrap();
        let offset = receipt.first_offset().get();
        receipt.wait().unwrap();
        self.notes.add(Note::Acked { log: self.log, writer: self.writer, n, offset });
        let end = self.handle.end_offset().get();
        self.notes.add(Note::Seen { log: self.log, end });
    }
}
