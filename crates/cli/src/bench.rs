//! `logmill bench`: what a node does under load, measured through the public client.
//!
//! Records have contents of their own, and each is looked at. With a rate, latency is open loop: the
//! clock starts when a record was due, so that a stall is paid by every record that was due
//! meanwhile. Figures are printed with what they depend on: durability, batch size, connections,
//! bytes in flight, and the processor time and memory of both sides.

mod args;
mod consume;
mod e2e;
mod figures;
mod measure;
mod payload;
mod process;
mod produce;
mod receive;
mod send;
mod target;

use std::sync::Arc;

use clap::Subcommand;
use logmill_client::Client;
use logmill_log::env::{Clock as _, SystemClock};

use crate::failure::{Exit, Failure};
use crate::node::blocking;
use crate::output::Output;
use args::{Common, Durability};
use figures::{Conditions, Figures};
use measure::{Measured, touch_memory};
use send::Load;
use target::Target;

/// Measure what a node does under load
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill bench produce --json
  logmill bench consume --record-bytes 100
  logmill bench e2e --rate 1000 --record-bytes 100")]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Produce(ProduceArgs),
    Consume(ConsumeArgs),
    E2e(E2eArgs),
}

/// Produce records through the client, and print rates, latencies and what they cost
///
/// Latencies are from when a record was due to its acknowledgement. Without --server it starts a node of
/// its own over a new directory, and removes both afterwards.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill bench produce      as fast as it goes, durable, 1 KiB records
  logmill bench produce --rate 10000 --connections 10      open loop, 10,000 records a second
  logmill bench produce --server http://127.0.0.1:7070 --server-pid $(pgrep logmill) --json")]
struct ProduceArgs {
    #[command(flatten)]
    common: Common,

    /// Connections, each with a producer of its own
    #[arg(long, default_value_t = 1, value_name = "N")]
    connections: u32,

    /// Records per second over all connections; without it as fast as it goes
    #[arg(long, value_name = "N")]
    rate: Option<f64>,

    /// When a record is acknowledged
    #[arg(long, value_enum, default_value = "durable")]
    acks: Durability,
}

/// Read records that are there already through the client, again and again
///
/// It produces them first; the clock starts after that. Every record is looked at. Latencies are from when
/// records were asked for, or were due if there is a rate, to their arrival. Without --server it starts a
/// node of its own over a new directory, and removes both afterwards.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill bench consume                                 one reader, as fast as it goes
  logmill bench consume --connections 4 --rate 200000   four readers, 200,000 a second in all")]
struct ConsumeArgs {
    #[command(flatten)]
    common: Common,

    /// Readers, each on a connection of its own; each reads everything
    #[arg(long, default_value_t = 1, value_name = "N")]
    connections: u32,

    /// Records per second over all readers; without it as fast as it goes
    #[arg(long, value_name = "N")]
    rate: Option<f64>,

    /// How much there is to be read, in all partitions together
    #[arg(long, default_value_t = 1 << 30, value_name = "BYTES")]
    backlog_bytes: u64,

    /// How much the node may send ahead of a reader
    #[arg(long, default_value_t = 4 << 20, value_name = "BYTES")]
    credit_bytes: usize,
}

/// Produce records and receive them on another connection
///
/// Latencies are from when a record was due to its arrival at the subscriber. Every record that is
/// acknowledged has to arrive. Without --server it starts a node of its own over a new directory, and
/// removes both afterwards.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill bench e2e                                       1,000 records a second
  logmill bench e2e --rate 10000 --connections 10 --json  10,000 from 10 producers")]
struct E2eArgs {
    #[command(flatten)]
    common: Common,

    /// Connections, each with a producer of its own; there is one more, of the subscriber
    #[arg(long, default_value_t = 1, value_name = "N")]
    connections: u32,

    /// Records per second over all producers
    #[arg(long, default_value_t = 1_000.0, value_name = "N")]
    rate: f64,

    /// When a record is acknowledged
    #[arg(long, value_enum, default_value = "durable")]
    acks: Durability,

    /// How much the node may send ahead of the subscriber
    #[arg(long, default_value_t = 4 << 20, value_name = "BYTES")]
    credit_bytes: usize,
}

impl ProduceArgs {
    fn load(&self) -> Load {
        Load { connections: self.connections, rate: self.rate, acks: self.acks.acks() }
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            work: "produce",
            latency: "from when a record was due to its acknowledgement",
            durability: self.acks.name(),
            connections: self.connections,
            rate: self.rate,
            credit_bytes: None,
            backlog_bytes: None,
        }
    }
}

impl ConsumeArgs {
    fn conditions(&self) -> Conditions {
        Conditions {
            work: "consume",
            latency: match self.rate {
                Some(_) => "of a delivery, from when it was due to its arrival",
                None => "of a delivery, from when it was asked for to its arrival",
            },
            durability: Durability::Durable.name(),
            connections: self.connections,
            rate: self.rate,
            credit_bytes: Some(self.credit_bytes),
            backlog_bytes: Some(self.backlog_bytes),
        }
    }
}

impl E2eArgs {
    fn load(&self) -> Load {
        Load { connections: self.connections, rate: Some(self.rate), acks: self.acks.acks() }
    }

    fn conditions(&self) -> Conditions {
        Conditions {
            work: "e2e",
            latency: "from when a record was due to its arrival at the subscriber",
            durability: self.acks.name(),
            connections: self.connections,
            rate: Some(self.rate),
            credit_bytes: Some(self.credit_bytes),
            backlog_bytes: None,
        }
    }
}

impl What {
    fn common(&self) -> &Common {
        match self {
            Self::Produce(args) => &args.common,
            Self::Consume(args) => &args.common,
            Self::E2e(args) => &args.common,
        }
    }

    fn conditions(&self) -> Conditions {
        match self {
            Self::Produce(args) => args.conditions(),
            Self::Consume(args) => args.conditions(),
            Self::E2e(args) => args.conditions(),
        }
    }

    /// The load, over a topic of its own.
    async fn measure(&self, target: &Target) -> Result<Measured, Failure> {
        blocking(touch_memory).await?;
        let admin = Client::connect(&target.url).await?;
        let topic: Arc<str> = format!("bench-{}-{}", SystemClock::new().now(), std::process::id()).into();
        admin.create_topic(&topic, Some(self.common().partitions)).await?;
        let measured = match self {
            Self::Produce(args) => produce::run(args, target, &topic).await,
            Self::Consume(args) => consume::run(args, target, &topic).await,
            Self::E2e(args) => e2e::run(args, target, &topic).await,
        };
        // What was produced has served its purpose, also if something went wrong.
        let deleted = admin.delete_topic(&topic).await;
        let measured = measured?;
        deleted?;
        Ok(measured)
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let what = args.what;
    let conditions = what.conditions();
    what.common().check(conditions.connections, conditions.rate)?;
    let target = Target::start(what.common()).await?;
    let measured = tokio::select! {
        measured = what.measure(&target) => measured,
        _ = tokio::signal::ctrl_c() => Err(Failure::new(Exit::Failed, "interrupted")),
    };
    // The node and its directory go, also after a failure.
    let ended = target.end().await;
    let measured = measured?;
    ended?;
    let figures = Figures::new(what.common(), conditions, &measured);
    let mut output = Output::stdout();
    if what.common().json {
        output.json(&figures)?;
    } else {
        figures.print(&mut output)?;
    }
    output.flush()
}
