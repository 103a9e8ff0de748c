//! What must be found after a power cut: everything acknowledged, nothing that was not written,
//! in order; and the log goes on.

use std::collections::BTreeMap;
use std::path::Path;

use logmill_log::{Log, LogSet, LogState, SetOptions};
use logmill_record::{Batch, BatchBuilder, NewRecord, Offset, TimestampMs};

use crate::notes::{self, Note};
use crate::{LOGS, WRITERS, name, options, value};

/// What was promised of one log before the power went.
#[derive(Default)]
struct Promised {
    created: bool,
    /// Offset to writer and number.
    acked: BTreeMap<u64, (usize, u64)>,
    seen: u64,
    start: u64,
    /// The furthest start that was ever asked for.
    most_start: u64,
}

/// Prints one line of figures and one for each violation; the caller adds them up.
pub(crate) fn run(dir: &Path, notes: &str, entries: u64) {
    let mut promised: Vec<Promised> = (0..LOGS).map(|_| Promised::default()).collect();
    for (held_at, note) in notes::read(notes) {
        note_promise(&mut promised, note, held_at <= entries);
    }
    let mut figures = Figures::default();
    match LogSet::open(dir, SetOptions::default()) {
        Ok(set) => {
            for (log, promised) in promised.iter().enumerate() {
                if let Err(what) = check_log(&set, log, promised, &mut figures) {
                    figures.violation(&format!("log {log}: {what}"));
                }
            }
            if let Err(error) = set.close() {
                figures.violation(&format!("the set cannot be closed: {error}"));
            }
        }
        Err(error) => {
            figures.acked = promised.iter().map(|log| log.acked.len() as u64).sum();
            figures.lost = figures.acked;
            figures.violation(&format!("the set cannot be opened: {error}"));
        }
    }
    let Figures { acked, lost, records, violations } = figures;
    println!("acked={acked} lost={lost} records={records} violations={violations}");
}

#[derive(Default)]
struct Figures {
    acked: u64,
    lost: u64,
    records: u64,
    violations: u64,
}

impl Figures {
    fn violation(&mut self, what: &str) {
        println!("violation: {what}");
        self.violations += 1;
    }
}

fn note_promise(promised: &mut [Promised], note: Note, held: bool) {
    match note {
        Note::Created { log } => promised[log].created |= held,
        Note::Acked { log, writer, n, offset } if held => {
            promised[log].acked.insert(offset, (writer, n));
        }
        Note::Seen { log, end } if held => promised[log].seen = promised[log].seen.max(end),
        Note::Trimming { log, start } => promised[log].most_start = promised[log].most_start.max(start),
        Note::Trimmed { log, start } if held => promised[log].start = promised[log].start.max(start),
        _ => {}
    }
}

fn check_log(set: &LogSet, number: usize, promised: &Promised, figures: &mut Figures) -> Result<(), String> {
    figures.acked += promised.acked.len() as u64;
    if !set.holds_log(name(number)).map_err(|error| error.to_string())? {
        figures.lost += promised.acked.len() as u64;
        return if promised.created { Err("it is gone".into()) } else { Ok(()) };
    }
    let log = set.open_log(name(number), options()).map_err(|error| {
        figures.lost += promised.acked.len() as u64;
        error.to_string()
    })?;
    let state = log.stats().state;
    if !matches!(state, LogState::Open) {
        figures.violation(&format!("log {number} cannot be written: {state:?}"));
    }
    let start = log.start_offset().get();
    if start < promised.start || start > promised.most_start {
        let (least, most) = (promised.start, promised.most_start);
        figures.violation(&format!("log {number} starts at {start}, and not between {least} and {most}"));
    }
    let (found, damage) = read(&log, number);
    figures.records += found.len() as u64;
    let lost = promised.acked.range(start..).filter(|(offset, record)| found.get(offset) != Some(*record));
    let lost = lost.count() as u64;
    figures.lost += lost;
    let end = log.end_offset().get();
    if lost > 0 || end < promised.seen {
        let seen = promised.seen;
        return Err(format!("{lost} acknowledged are lost; it ends at {end}, a reader saw {seen}"));
    }
    damage?;
    goes_on(&log)
}

type Records = BTreeMap<u64, (usize, u64)>;

/// Every record with its writer and number, checked byte by byte, up to the first that is wrong.
fn read(log: &Log, number: usize) -> (Records, Result<(), String>) {
    let mut found = Records::new();
    let damage = read_into(&mut found, log, number);
    (found, damage)
}

fn read_into(found: &mut Records, log: &Log, number: usize) -> Result<(), String> {
    let mut last = [None::<u64>; WRITERS];
    let mut next = log.start_offset();
    while next < log.end_offset() {
        let out = log.read(next, 1 << 20).map_err(|error| error.to_string())?;
        for chunk in out.chunks {
            let mut rest = chunk.batches;
            while let Some(batch) = Batch::split_from(&mut rest).map_err(|error| error.to_string())? {
                for record in batch.records().map_err(|error| error.to_string())? {
                    let record = record.map_err(|error| error.to_string())?;
                    if record.offset < next {
                        continue;
                    }
                    if record.offset != next {
                        return Err(format!("offset {} follows where {next} is due", record.offset));
                    }
                    next = next.next();
                    let (writer, n) = written(number, record.value.unwrap_or_default())?;
                    if last[writer].is_some_and(|last| n != last + 1) {
                        return Err(format!("record {n} of writer {writer} follows {:?}", last[writer]));
                    }
                    last[writer] = Some(n);
                    found.insert(record.offset.get(), (writer, n));
                }
            }
        }
    }
    Ok(())
}

/// Whose record this is, which must be the bytes that were written.
fn written(log: usize, bytes: &[u8]) -> Result<(usize, u64), String> {
    let part = |at: usize| Some(u64::from_le_bytes(*bytes.get(at * 8..)?.first_chunk()?));
    let (writer, n) = part(1).zip(part(2)).ok_or("a record is too short")?;
    let writer =
        usize::try_from(writer).ok().filter(|writer| *writer < WRITERS).ok_or("nobody wrote this")?;
    if value(log, writer, n) == bytes { Ok((writer, n)) } else { Err("wrong bytes".into()) }
}

/// A recovered log takes records and gives them back.
fn goes_on(log: &Log) -> Result<(), String> {
    let mut batch = BatchBuilder::new();
    let record = NewRecord { timestamp: TimestampMs(0), key: None, value: Some(b"on"), headers: &[] };
    batch.push(&record).map_err(|error| error.to_string())?;
    let batch = batch.build().map_err(|error| error.to_string())?;
    let appended = log.append(&[batch]).and_then(|receipt| {
        let first = receipt.first_offset();
        receipt.wait().map(|_| first)
    });
    let first: Offset = appended.map_err(|error| error.to_string())?;
    log.read(first, 100).map_err(|error| error.to_string())?;
    Ok(())
}
