//! `logmill bench`: what a node does under load, measured through the public client.
//!
//! Every record is one call of the client and has contents of its own. Latency is open loop: the
//! clock starts when a record should have been sent, so that a stall is paid by every record that
//! was due meanwhile. Figures are printed with what they depend on: durability, batch size,
//! connections, bytes in flight, and the processor time and memory of both sides.

mod figures;
mod load;
mod payload;
mod process;
mod target;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Subcommand, ValueEnum};
use logmill_client::Acks;

use crate::client::seconds;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Measure what a node does under load
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:\n  logmill bench produce --json")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Produce(ProduceArgs),
}

/// Produce records through the client, and print rates, latencies and what they cost
///
/// Without --server it starts a node of its own over a new directory, and removes both afterwards.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill bench produce                                     as fast as it goes, durable, 1 KiB records
  logmill bench produce --rate 10000 --connections 10       open loop: 10,000 records a second over 10 connections
  logmill bench produce --server http://127.0.0.1:7070 --server-pid $(pgrep logmill) --json")]
pub(crate) struct ProduceArgs {
    /// A node that runs already, instead of one of its own
    #[arg(long, env = "LOGMILL_SERVER", value_name = "URL")]
    server: Option<String>,

    /// That node's process, to measure its processor time and memory
    #[arg(long, value_name = "PID", requires = "server")]
    server_pid: Option<u32>,

    /// Where its own node keeps its data: a directory that is not there yet, and is removed afterwards;
    /// by default a new one in the current directory
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    data_dir: Option<PathBuf>,

    /// The size of a record's value
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    record_bytes: usize,

    /// What the client fills a batch up to
    #[arg(long, default_value_t = 64 * 1024, value_name = "BYTES")]
    batch_bytes: usize,

    /// How much a connection may have sent and not acknowledged; as much again may wait to be sent
    #[arg(long, default_value_t = 8 << 20, value_name = "BYTES")]
    in_flight_bytes: usize,

    /// Connections, each with a producer of its own
    #[arg(long, default_value_t = 1, value_name = "N")]
    connections: u32,

    /// Partitions of the topic; records have no key
    #[arg(long, default_value_t = 1, value_name = "N")]
    partitions: u32,

    /// Records per second over all connections; without it as fast as it goes
    #[arg(long, value_name = "N")]
    rate: Option<f64>,

    /// When a record is acknowledged
    #[arg(long, value_enum, default_value = "durable")]
    acks: Durability,

    /// How long to measure
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    time: Duration,

    /// How long to run before that
    #[arg(long, default_value = "2", value_name = "SECONDS", value_parser = seconds)]
    warm_up: Duration,

    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Durability {
    /// When it is on disk: fdatasync has returned
    Durable,
    /// When the operating system has it; a power cut can take it back
    Written,
}

impl Durability {
    fn acks(self) -> Acks {
        match self {
            Self::Durable => Acks::Durable,
            Self::Written => Acks::Written,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Written => "written",
        }
    }
}

impl ProduceArgs {
    fn check(&self) -> Result<(), Failure> {
        let wrong = |what: &str| Err(Failure::new(Exit::Usage, what));
        if self.rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)) {
            return wrong("--rate has to be more than 0 and at most 1,000,000,000 records a second");
        }
        if self.record_bytes < payload::LEAST_BYTES {
            return wrong("--record-bytes has to be at least 8, so that no record is like another");
        }
        if self.connections == 0 || self.connections > 10_000 {
            return wrong("--connections has to be from 1 to 10,000");
        }
        Ok(())
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let What::Produce(args) = args.what;
    args.check()?;
    let target = target::Target::start(&args).await?;
    let measured = tokio::select! {
        measured = load::run(&args, &target) => measured,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Failed, "interrupted")),
    };
    // The node and its directory go, also after a failure.
    let ended = target.end().await;
    let measured = measured?;
    ended?;
    let mut output = Output::stdout();
    let figures = figures::Figures::new(&args, &measured);
    if args.json {
        output.json(&figures)?;
    } else {
        figures.print(&mut output)?;
    }
    output.flush()
}
