//! `logmill log dump`.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use logmill_log::env::Env;
use logmill_log::inspect::{DumpOptions, Dumped, DumpedBatch, DumpedDamage, dump};
use logmill_record::{Batch, BatchError, Inflater, Offset, Record, TimestampType};
use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};
use serde_json::{Value, json};

use super::{name_of, typed_name};
use crate::failure::{Exit, Failure};
use crate::output::{Output, counted};
use crate::record_json::{Headers, bytes_entry};
use crate::when::time_text;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The data directory, or one of its .log files
    path: PathBuf,
    /// Only this log, by its path in the directory as 'ls' prints it
    #[arg(long, value_name = "PATH")]
    log: Option<PathBuf>,
    /// Also the records of each batch
    #[arg(long)]
    records: bool,
    /// Only batches that hold this offset or come after it
    #[arg(long, value_name = "OFFSET", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=i64::MAX.unsigned_abs()))]
    from: u64,
    /// End after so many batches
    #[arg(long, value_name = "N")]
    limit: Option<u64>,
    /// Print JSON, a batch on each line
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args, output: &mut Output) -> Result<(), Failure> {
    let mut options = DumpOptions::default().from(Offset(args.from));
    if let Some(log) = &args.log {
        refuse_file(&args.path)?;
        options = options.log(typed_name(log));
    }
    let mut left = args.limit.unwrap_or(u64::MAX);
    let mut printer = Printer { args, output, file: None };
    let mut outcome = Ok(());
    dump(&Env::real(), &args.path, &options, &mut |dumped| {
        if left == 0 {
            return ControlFlow::Break(());
        }
        left -= 1;
        outcome = printer.print(&dumped);
        if outcome.is_err() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    outcome
}

/// A file is one log's: a choice among logs would be passed over.
fn refuse_file(path: &Path) -> Result<(), Failure> {
    if !path.is_file() {
        return Ok(());
    }
    let message = format!(
        "{} is a file, in which --log finds no logs: leave --log out, or give the data directory",
        path.display()
    );
    Err(Failure::new(Exit::Usage, message))
}

struct Printer<'a> {
    args: &'a Args,
    output: &'a mut Output,
    /// The file that the last line was about.
    file: Option<PathBuf>,
}

impl Printer<'_> {
    fn print(&mut self, dumped: &Dumped) -> Result<(), Failure> {
        match dumped {
            Dumped::Batch(batch) if self.args.json => self.output.json(&self.batch_json(batch)),
            Dumped::Batch(batch) => {
                self.heading(&batch.file)?;
                self.batch_lines(batch)
            }
            Dumped::Damage(damage) if self.args.json => self.output.json(&damage_json(damage)),
            Dumped::Damage(damage) => {
                self.heading(&damage.file)?;
                let (position, what) = (damage.position, &damage.what);
                let (bytes, offsets) = (counted(damage.len, "byte", "bytes"), offsets_text(damage));
                self.output.line(format_args!("{position:>11} damaged: {bytes}, {offsets}: {what}"))
            }
            _ => Ok(()),
        }
    }

    fn heading(&mut self, file: &Path) -> Result<(), Failure> {
        if self.file.as_deref() == Some(file) {
            return Ok(());
        }
        if self.file.is_some() {
            self.output.line("")?;
        }
        self.file = Some(file.to_owned());
        self.output.line(file.display())?;
        self.output.line(format_args!(
            "{:>11} {:>12} {:>8} {:>10} {:>6} {:<24} {:<8} FLAGS",
            "POSITION", "OFFSET", "RECORDS", "BYTES", "EPOCH", "LARGEST TIMESTAMP", "CODEC"
        ))
    }

    fn batch_lines(&mut self, batch: &DumpedBatch) -> Result<(), Failure> {
        let header = &batch.header;
        self.output.line(format_args!(
            "{:>11} {:>12} {:>8} {:>10} {:>6} {:<24} {:<8} {}",
            batch.position,
            header.base_offset,
            header.record_count,
            header.total_len,
            header.leader_epoch,
            time_text(header.max_timestamp),
            header.attributes.compression().to_string(),
            flags(batch),
        ))?;
        if !self.args.records {
            return Ok(());
        }
        let output = &mut *self.output;
        let mut printed = Ok(());
        let read = each_record(batch, |record| {
            printed = output.line(format_args!(
                "{:>24} {} {} => {}",
                record.offset,
                time_text(record.timestamp),
                shown(record.key),
                shown(record.value),
            ));
            printed.is_ok()
        });
        printed?;
        match read {
            Ok(()) => Ok(()),
            Err(error) => self.output.line(format_args!("{:>24} {error}", "unreadable:")),
        }
    }

    fn batch_json(&self, batch: &DumpedBatch) -> Value {
        let header = &batch.header;
        let attributes = header.attributes;
        let mut document = json!({
            "log": batch.log.as_deref().map(name_of),
            "file": batch.file.display().to_string(),
            "position": batch.position,
            "bytes": header.total_len,
            "base_offset": header.base_offset.get(),
            "last_offset": header.last_offset().get(),
            "record_count": header.record_count,
            "leader_epoch": header.leader_epoch,
            "base_timestamp": header.base_timestamp.0,
            "max_timestamp": header.max_timestamp.0,
            "timestamp_type": match attributes.timestamp_type() {
                TimestampType::CreateTime => "CreateTime",
                TimestampType::LogAppendTime => "LogAppendTime",
            },
            "compression": attributes.compression().to_string(),
            "transactional": attributes.is_transactional(),
            "control": attributes.is_control(),
            "producer_id": header.producer_id,
            "producer_epoch": header.producer_epoch,
            "base_sequence": header.base_sequence,
            "crc_ok": true,
        });
        if self.args.records {
            let mut records = Vec::new();
            let read = each_record(batch, |record| {
                records.push(json!(RecordJson(record)));
                true
            });
            document["records"] = records.into();
            if let Err(error) = read {
                document["unreadable"] = error.to_string().into();
            }
        }
        document
    }
}

/// The offsets that are gone with it, the last one among them.
fn offsets_text(damage: &DumpedDamage) -> String {
    let from = damage.from.get();
    match damage.to.map(|to| to.get().saturating_sub(1)) {
        None => format!("from offset {from} on"),
        Some(last) if last < from => "no offset".to_owned(),
        Some(last) if last == from => format!("offset {from}"),
        Some(last) => format!("offsets {from} to {last}"),
    }
}

fn damage_json(damage: &DumpedDamage) -> Value {
    json!({
        "log": damage.log.as_deref().map(name_of),
        "file": damage.file.display().to_string(),
        "position": damage.position,
        "bytes": damage.len,
        "first_offset": damage.from.get(),
        "end_offset": damage.to.map(Offset::get),
        "crc_ok": false,
        "damage": damage.what,
    })
}

/// Calls `each` for the batch's records until it says no.
fn each_record(batch: &DumpedBatch, mut each: impl FnMut(&Record<'_>) -> bool) -> Result<(), BatchError> {
    let batch = Batch::parse(batch.bytes.clone())?;
    let mut inflater = Inflater::default();
    for record in batch.records_with(&mut inflater)? {
        if !each(&record?) {
            break;
        }
    }
    Ok(())
}

fn flags(batch: &DumpedBatch) -> String {
    let header = &batch.header;
    let mut flags = Vec::new();
    if header.attributes.is_control() {
        flags.push("control".to_owned());
    }
    if header.attributes.is_transactional() {
        flags.push("transactional".to_owned());
    }
    if header.producer_id >= 0 {
        let (id, epoch, sequence) = (header.producer_id, header.producer_epoch, header.base_sequence);
        flags.push(format!("producer {id}:{epoch} from {sequence}"));
    }
    if flags.is_empty() { "-".to_owned() } else { flags.join(", ") }
}

/// Bytes on one line that steer no terminal.
fn shown(bytes: Option<&[u8]>) -> String {
    match bytes {
        None => "null".to_owned(),
        Some(bytes) => format!("{:?}", String::from_utf8_lossy(bytes)),
    }
}

/// A record with its place in the log.
struct RecordJson<'a>(&'a Record<'a>);

impl Serialize for RecordJson<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let record = self.0;
        let headers: Vec<_> = record.headers().map(|header| (header.key, header.value)).collect();
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("offset", &record.offset.get())?;
        map.serialize_entry("timestamp", &record.timestamp.0)?;
        bytes_entry(&mut map, ["key", "key_base64"], record.key)?;
        bytes_entry(&mut map, ["value", "value_base64"], record.value)?;
        map.serialize_entry("headers", &Headers(&headers))?;
        map.end()
    }
}
