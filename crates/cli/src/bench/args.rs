//! What `logmill bench` is told, as far as its commands have it in common.

use std::path::PathBuf;
use std::time::Duration;

use clap::ValueEnum;
use logmill_client::{Acks, ProducerOptions};

use super::payload;
use crate::client::seconds;
use crate::codec::Codec;
use crate::failure::{Exit, Failure};

/// The node, the records, and how long.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct Common {
    /// A node that runs already, instead of one of its own
    #[arg(long, env = "LOGMILL_SERVER", value_name = "URL")]
    pub(super) server: Option<String>,

    /// That node's process, to measure its processor time and memory
    #[arg(long, value_name = "PID", requires = "server")]
    pub(super) server_pid: Option<u32>,

    /// Where its own node keeps its data: a directory that is not there yet, and is removed afterwards;
    /// by default a new one in the current directory
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    pub(super) data_dir: Option<PathBuf>,

    /// The size of a record's value
    #[arg(long, default_value_t = 1024, value_name = "BYTES")]
    pub(super) record_bytes: usize,

    /// What the client fills a batch up to, before it is compressed
    #[arg(long, default_value_t = 64 * 1024, value_name = "BYTES")]
    pub(super) batch_bytes: usize,

    /// How the client compresses batches; the values are random bytes, which no codec shrinks
    #[arg(long, value_enum, default_value = "uncompressed", value_name = "CODEC")]
    pub(super) compression: Codec,

    /// How much a connection may have sent and not acknowledged; as much again may wait to be sent
    #[arg(long, default_value_t = 8 << 20, value_name = "BYTES")]
    pub(super) in_flight_bytes: usize,

    /// Partitions of the topic; records have no key
    #[arg(long, default_value_t = 1, value_name = "N")]
    pub(super) partitions: u32,

    /// How long to measure
    #[arg(long, default_value = "10", value_name = "SECONDS", value_parser = seconds)]
    pub(super) time: Duration,

    /// How long to run before that
    #[arg(long, default_value = "2", value_name = "SECONDS", value_parser = seconds)]
    pub(super) warm_up: Duration,

    /// Print one JSON document
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Durability {
    /// When it is on disk: fdatasync has returned
    Durable,
    /// When the operating system has it; a power cut can take it back
    Written,
}

impl Durability {
    pub(super) fn acks(self) -> Acks {
        match self {
            Self::Durable => Acks::Durable,
            Self::Written => Acks::Written,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Durable => "durable",
            Self::Written => "written",
        }
    }
}

impl Common {
    /// Refuses what cannot be measured.
    pub(super) fn check(&self, connections: u32, rate: Option<f64>) -> Result<(), Failure> {
        let wrong = |what: String| Err(Failure::new(Exit::Usage, what));
        if rate.is_some_and(|rate| !(rate > 0.0 && rate <= 1e9)) {
            return wrong("--rate has to be more than 0 and at most 1,000,000,000 records a second".into());
        }
        if self.record_bytes < payload::LEAST_BYTES {
            let least = payload::LEAST_BYTES;
            return wrong(format!(
                "--record-bytes has to be at least {least}: a record's number, and when it was due"
            ));
        }
        if connections == 0 || connections > 10_000 {
            return wrong("--connections has to be from 1 to 10,000".into());
        }
        Ok(())
    }

    pub(super) fn producer_options(&self, acks: Acks) -> ProducerOptions {
        ProducerOptions {
            acks,
            max_batch_bytes: self.batch_bytes,
            compression: self.compression.compression(),
            max_in_flight_bytes: self.in_flight_bytes,
            max_buffered_bytes: self.in_flight_bytes.saturating_mul(2),
            ..ProducerOptions::default()
        }
    }
}
