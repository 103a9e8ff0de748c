//! `logmill produce`: standard input as records, acknowledged one by one.
//!
//! Two loops in one task: one reads lines and sends, the other waits for the acknowledgements in
//! the order of the lines and reports them. The first failure stops the reading; what was sent
//! before is still waited for, so that the last sentence can say what is stored and what is not.

use std::cell::Cell;
use std::io::BufRead;

use bytes::Bytes;
use clap::ValueEnum;
use logmill_client::{Client, Delivery, Producer, ProducerOptions, ProducerRecord};
use serde::Serialize;
use tokio::sync::{Notify, mpsc};

use crate::client::ServerArgs;
use crate::codec::Codec;
use crate::failure::{Exit, Failure};
use crate::output::{Output, counted};
use crate::record_json::parse_record;

/// No record is nearly as long; a stream without line ends must not fill the memory.
const MAX_LINE_BYTES: usize = 64 << 20;
/// Lines read ahead of the producer.
const LINES_AHEAD: usize = 1_024;
/// Records sent whose acknowledgement has not been reported yet.
const DELIVERIES_AHEAD: usize = 65_536;

/// Send lines of standard input as records; each is on disk before it is acknowledged
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  echo 'hello' | logmill produce hits
  logmill produce hits --key home --json < lines.txt
  logmill consume hits --json | logmill produce copy --input json")]
pub(crate) struct Args {
    /// The topic's name
    topic: String,

    /// What a line is
    #[arg(long, value_enum, default_value = "lines")]
    input: Input,

    /// The key of every record; with --input json a record has its own
    #[arg(long)]
    key: Option<String>,

    /// The partition; without it by the key, and without a key a batch here, a batch there
    #[arg(long, value_name = "N")]
    partition: Option<u32>,

    /// How batches are compressed; a topic whose compression.type is not 'producer' gets what that says
    #[arg(long, value_enum, default_value = "uncompressed", value_name = "CODEC")]
    compression: Codec,

    /// Print {"partition", "offset"} for each record as it is acknowledged
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Input {
    /// A record's value, as it is
    Lines,
    /// A record as 'consume --json' prints it; its topic, partition and offset are not looked at
    Json,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    if args.input == Input::Json && args.key.is_some() {
        let message = "with --input json each record has its own key: leave out --key";
        return Err(Failure::new(Exit::Usage, message));
    }
    let client = args.server.connect().await?;
    check_target(&client, &args).await?;
    let producer = client.producer(ProducerOptions {
        compression: args.compression.compression(),
        delivery_timeout: args.server.timeout,
        ..Default::default()
    })?;
    let (line_sender, lines) = mpsc::channel(LINES_AHEAD);
    tokio::task::spawn_blocking(move || read_lines(std::io::stdin().lock(), &line_sender));
    let (delivery_sender, deliveries) = mpsc::channel(DELIVERIES_AHEAD);
    let stop = Stop::default();
    let mut output = Output::stdout();
    let ((), stored) = tokio::join!(
        send_lines(&args, &producer, lines, delivery_sender, &stop),
        report_deliveries(args.json, deliveries, &stop, &mut output),
    );
    let stored = counted(stored, "record", "records");
    if let Some(failure) = stop.failure.take() {
        let Failure::Told { exit, message } = failure else { return Err(failure) };
        return Err(Failure::new(exit, format!("{message} ({stored} stored)")));
    }
    if !args.json {
        output.line(format_args!("stored {stored} in topic {}", args.topic))?;
    }
    output.flush()
}

/// A misspelt topic or a wrong partition is better told before anything is read.
async fn check_target(client: &Client, args: &Args) -> Result<(), Failure> {
    let count = client.describe_topic(&args.topic).await?.topic.partition_count;
    match args.partition {
        Some(partition) if partition >= count => Err(no_partition(&args.topic, partition, count)),
        _ => Ok(()),
    }
}

pub(crate) fn no_partition(topic: &str, partition: u32, count: u32) -> Failure {
    let last = count.saturating_sub(1);
    let message =
        format!("topic {topic} has no partition {partition}: its partitions are numbered 0 to {last}");
    Failure::new(Exit::NotFound, message)
}

/// How the two loops tell each other to stop.
#[derive(Default)]
struct Stop {
    failure: Cell<Option<Failure>>,
    told: Notify,
}

impl Stop {
    /// The first failure stands.
    fn because(&self, failure: Failure) {
        let first = self.failure.take().unwrap_or(failure);
        self.failure.set(Some(first));
        self.told.notify_one();
    }
}

async fn send_lines(
    args: &Args,
    producer: &Producer,
    mut lines: mpsc::Receiver<Result<Vec<u8>, String>>,
    deliveries: mpsc::Sender<(u64, Delivery)>,
    stop: &Stop,
) {
    let topic = args.topic.as_str().into();
    let template = ProducerRecord { topic, partition: args.partition, ..Default::default() };
    let mut number = 0;
    loop {
        let line = tokio::select! {
            line = lines.recv() => line,
            () = stop.told.notified() => None,
        };
        let Some(line) = line else { return };
        number += 1;
        let record = match line.and_then(|line| record_of(args, &template, line)) {
            Ok(record) => record,
            Err(why) => {
                return stop
                    .because(Failure::new(Exit::Failed, format!("line {number} of the input: {why}")));
            }
        };
        match producer.send(record).await {
            // The other loop ends only after this one.
            Ok(delivery) => {
                let _ = deliveries.send((number, delivery)).await;
            }
            Err(error) => return stop.because(of_line(number, error)),
        }
    }
}

fn record_of(args: &Args, template: &ProducerRecord, line: Vec<u8>) -> Result<ProducerRecord, String> {
    let record = template.clone();
    match args.input {
        Input::Lines => {
            let key = args.key.clone().map(Bytes::from);
            Ok(ProducerRecord { key, value: Some(line.into()), ..record })
        }
        Input::Json => {
            let line = parse_record(&line)?;
            Ok(ProducerRecord {
                key: line.key,
                value: line.value,
                timestamp: line.timestamp,
                headers: line.headers,
                ..record
            })
        }
    }
}

fn of_line(number: u64, error: logmill_client::Error) -> Failure {
    Failure::from(error).while_doing(format_args!("line {number} of the input"))
}

#[derive(Serialize)]
struct Acknowledged {
    partition: u32,
    offset: u64,
}

/// Waits for each record's acknowledgement, in the order of the lines; returns how many came.
async fn report_deliveries(
    json: bool,
    mut deliveries: mpsc::Receiver<(u64, Delivery)>,
    stop: &Stop,
    output: &mut Output,
) -> u64 {
    let mut stored = 0;
    let mut report = |acknowledged: Option<Acknowledged>| {
        let told = match acknowledged {
            Some(acknowledged) => output.json(&acknowledged),
            None => output.flush(),
        };
        match told {
            // Nobody reads the report any more; the records are sent all the same.
            Ok(()) | Err(Failure::OutputClosed) => {}
            Err(failure) => stop.because(failure),
        }
    };
    loop {
        let next = match deliveries.try_recv() {
            Ok(next) => Some(next),
            Err(_) => {
                // Who reads the report may wait for it: nothing stays behind while this waits.
                report(None);
                deliveries.recv().await
            }
        };
        let Some((number, delivery)) = next else { return stored };
        match delivery.await {
            Ok(delivered) => {
                stored += 1;
                if json {
                    let offset = delivered.offset.get();
                    report(Some(Acknowledged { partition: delivered.partition, offset }));
                }
            }
            Err(error) => stop.because(of_line(number, error)),
        }
    }
}

/// Reads lines without their ends until the input or its reader ends.
fn read_lines(mut input: impl BufRead, lines: &mpsc::Sender<Result<Vec<u8>, String>>) {
    loop {
        let line = match read_line(&mut input) {
            Ok(None) => return,
            Ok(Some(line)) => Ok(line),
            Err(why) => Err(why),
        };
        let failed = line.is_err();
        if lines.blocking_send(line).is_err() || failed {
            return;
        }
    }
}

fn read_line(input: &mut impl BufRead) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let mut limited = std::io::Read::take(input, MAX_LINE_BYTES as u64);
    let read = limited.read_until(b'\n', &mut line).map_err(|error| format!("it cannot be read: {error}"))?;
    if read == 0 {
        return Ok(None);
    }
    if line.last() == Some(&b'\n') {
        line.pop();
    } else if read == MAX_LINE_BYTES {
        return Err(format!("it is longer than {} MiB", MAX_LINE_BYTES >> 20));
    }
    Ok(Some(line))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines_of(mut input: &[u8]) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| read_line(&mut input).expect("it can be read")).collect()
    }

    #[test]
    fn lines_come_without_their_ends_and_the_last_needs_none() {
        assert_eq!(lines_of(b""), Vec::<Vec<u8>>::new());
        assert_eq!(lines_of(b"\n"), [b""]);
        assert_eq!(lines_of(b"a\n\nb"), [&b"a"[..], b"", b"b"]);
        assert_eq!(lines_of(b"\xff\x00\n"), [b"\xff\x00"]);
        assert_eq!(lines_of(b"a\r\nb\r"), [&b"a\r"[..], b"b\r"]);
    }

    #[test]
    fn an_endless_line_is_refused() {
        let mut endless = std::io::BufReader::new(std::io::repeat(b'x'));
        let why = read_line(&mut endless).expect_err("it is refused");
        assert!(why.contains("64 MiB"), "{why}");
    }
}
