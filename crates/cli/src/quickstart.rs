//! `logmill quickstart`: the main job on real events, end to end.
//!
//! It does nothing that a user could not: it starts a node, and everything after that goes through
//! the public client and the public pipeline builder, over gRPC on a loopback port.

mod feed;
mod ingest;
mod next;
mod pipeline;
mod report;
mod results;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use logmill_broker::Config;
use logmill_client::{Client, NodeInfo, TopicDescription};
use logmill_processing::RunReport;

use crate::failure::{Exit, Failure, exit_of_io};
use crate::node::{Node, STOP_TIMEOUT};
use crate::output::{Output, to_f64};
use feed::Feed;
use ingest::Ingested;
use report::{Capacity, Delays, Percentiles, Report, Throughput, bytes_per_s};
use results::DeadLetters;

/// The events.
const SOURCE: &str = "earthquakes";
const SOURCE_PARTITIONS: u32 = 4;
/// The results, as the topic has them.
const RESULTS: &str = "quakes-per-day";
/// The SQLite file's name in the data directory.
const SQLITE_NAME: &str = "quakes.db";

/// Run the main job on real events: store a week of earthquakes, process them, show the result
///
/// It starts a node over a new directory, which is kept, produces the events into a topic, and runs a
/// pipeline over them: earthquakes per network and day, with their largest and mean magnitude, into an
/// SQLite table and a topic. What cannot be processed is set aside with the reason.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill quickstart
  logmill quickstart --data-dir ./quakes        again: produces only what is missing
  logmill quickstart --input all_week.geojson --json

Newer feeds: https://earthquake.usgs.gov/earthquakes/feed/v1.0/geojson.php")]
pub(crate) struct Args {
    /// Another GeoJSON feed than the one inside the program
    #[arg(long, value_name = "FILE")]
    input: Option<PathBuf>,

    /// The node's data directory, made if it is not there; by default a new logmill-quickstart-N in the
    /// current directory
    #[arg(long, value_name = "DIR")]
    data_dir: Option<PathBuf>,

    /// The SQLite file for the results; by default quakes.db in the data directory
    #[arg(long, value_name = "FILE")]
    sqlite: Option<PathBuf>,

    /// Print the result as one JSON document
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    // What is wrong with the input is said before anything is made.
    let feed = match &args.input {
        Some(path) => Feed::read(path)?,
        None => Feed::embedded()?,
    };
    let data_dir = absolute(&match args.data_dir {
        Some(dir) => dir,
        None => new_directory()?,
    })?;
    let sqlite = match &args.sqlite {
        Some(path) => absolute(path)?,
        None => data_dir.join(SQLITE_NAME),
    };
    let node = Node::start(Config::new(&data_dir), SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).await?;
    let done = main_job(&node.url(), &feed, &sqlite).await;
    // Cleanly, also after a failure: what is stored stays.
    let stopped = node.stop(STOP_TIMEOUT).await;
    let done = done?;
    stopped?;
    let report = done.report(&feed, &sqlite, &data_dir)?;
    let mut output = Output::stdout();
    if args.json {
        output.json(&report)?;
    } else {
        report.print(&mut output)?;
    }
    output.flush()
}

/// What the main job gave.
struct Done {
    ingested: Ingested,
    run: RunReport,
    topic: TopicDescription,
    node: NodeInfo,
    dead: DeadLetters,
}

async fn main_job(url: &str, feed: &Feed, sqlite: &Path) -> Result<Done, Failure> {
    let client = Client::connect(url).await?;
    ingest::ensure_topic(&client).await?;
    let ingested = ingest::produce_missing(&client, feed).await?;
    let run = pipeline::run(url, sqlite).await?;
    let dead = results::dead_letters(&client).await?;
    let topic = client.describe_topic(SOURCE).await?;
    let node = client.describe_node().await?;
    Ok(Done { ingested, run, topic, node, dead })
}

impl Done {
    fn report(&self, feed: &Feed, sqlite: &Path, data_dir: &Path) -> Result<Report, Failure> {
        let Self { ingested, run, topic, node, dead } = self;
        let table = results::table(sqlite)?;
        let records: u64 =
            topic.partitions.iter().filter_map(|p| p.end_offset.checked_sub(p.start_offset)).sum();
        let stored_bytes: u64 = topic.partitions.iter().map(|partition| partition.stored_bytes).sum();
        let mean_stored_bytes = (records > 0).then(|| to_f64(stored_bytes) / to_f64(records));
        let rate_per_s = ingested.rate_per_s();
        // Windows that a killed run left open give rows without a record being read for the first time.
        let worked = run.records_in() > 0 || run.records_out() > 0;
        let processing_rate_per_s = (run.records_in() > 0).then(|| run.rate_per_s());
        let stored_bytes_per_s = mean_stored_bytes.zip(rate_per_s).map(|(bytes, rate)| bytes * rate);
        let program = std::env::current_exe().map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot tell where this program is: {error}"))
        })?;
        Ok(Report {
            input: feed.name.clone(),
            records,
            produced: ingested.produced,
            dead: dead.count,
            late: run.late(),
            rows: table.len(),
            sqlite: sqlite.display().to_string(),
            data_dir: data_dir.display().to_string(),
            rate_per_s,
            processing_rate_per_s,
            delay_ms: Delays { stored: ingested.delay(), processed: processed_delay(run) },
            capacity: Capacity {
                mean_stored_bytes,
                stored_bytes,
                disk_available_bytes: node.available_bytes,
                disk_total_bytes: node.capacity_bytes,
                seconds_until_full: stored_bytes_per_s.map(|rate| to_f64(node.available_bytes) / rate),
            },
            throughput_bytes_per_s: Throughput {
                in_: ingested.bytes_per_s(),
                out: if worked { bytes_per_s(run.bytes_out(), run.elapsed) } else { None },
            },
            table,
            dead_reasons: dead.reasons.clone(),
            next: next::commands(&program, data_dir, RESULTS, SOURCE),
        })
    }
}

fn processed_delay(run: &RunReport) -> Percentiles {
    let measured = |ms: u64| (run.delay.records() > 0).then(|| to_f64(ms));
    Percentiles { p50: measured(run.delay.p50_ms()), p99: measured(run.delay.p99_ms()) }
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("'{}' cannot be a path: {error}", path.display())))
}

/// The first logmill-quickstart-N that is not there yet.
fn new_directory() -> Result<PathBuf, Failure> {
    let mut number = 1;
    loop {
        let dir = PathBuf::from(format!("logmill-quickstart-{number}"));
        match std::fs::create_dir(&dir) {
            Ok(()) => return Ok(dir),
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => number += 1,
            Err(error) => {
                let message = format!(
                    "cannot make a directory for the node here ({}): {error}; choose another place with --data-dir",
                    dir.display()
                );
                return Err(Failure::new(exit_of_io(&error), message));
            }
        }
    }
}
