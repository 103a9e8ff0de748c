//! `logmill serve`: a node in the foreground.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use logmill_broker::{
    Config, DEFAULT_LOW_SPACE_BYTES, DEFAULT_PRODUCER_ID_EXPIRATION, DEFAULT_RESERVE_BYTES,
    DEFAULT_STALL_TIMEOUT, Limit, Limits, TopicSettings,
};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::failure::{Exit, Failure};
use crate::node::{Node, STOP_TIMEOUT};
use crate::output::Output;
use crate::topic::parse_setting;

/// Run a node in the foreground until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES, after_long_help = long_help())]
pub(crate) struct Args {
    /// The directory that holds everything; made if it is not there
    #[arg(long, env = "LOGMILL_DATA_DIR", default_value = "logmill-data", value_name = "DIR")]
    data_dir: PathBuf,

    /// The address to serve on, of this machine only: there is no TLS and no authentication yet
    #[arg(long, env = "LOGMILL_LISTEN", default_value = "127.0.0.1:7070", value_name = "ADDR:PORT")]
    listen: SocketAddr,

    /// A setting for topics that do not have their own; can be repeated
    #[arg(long = "topic-default", value_name = "NAME=VALUE", value_parser = parse_setting)]
    topic_defaults: Vec<(String, String)>,

    /// A limit on what is in use at once, of those that --help lists; can be repeated, and in the environment has
    /// commas between
    #[arg(long = "limit", env = "LOGMILL_LIMITS", value_delimiter = ',', value_name = "NAME=NUMBER", value_parser = parse_limit)]
    limits: Vec<(Limit, usize)>,

    /// Milliseconds after which a partition forgets an idempotent producer that sends it nothing
    /// (Kafka's producer.id.expiration.ms)
    #[arg(long, env = "LOGMILL_PRODUCER_ID_EXPIRATION_MS", default_value_t = ms(DEFAULT_PRODUCER_ID_EXPIRATION), value_name = "MS")]
    producer_id_expiration_ms: u64,

    /// Milliseconds after which a client is cut that does not begin to speak HTTP/2, or that does not read what it
    /// asked for, or not finish a request, while memory for others runs out
    #[arg(long, env = "LOGMILL_STALL_TIMEOUT_MS", default_value_t = ms(DEFAULT_STALL_TIMEOUT), value_name = "MS")]
    stall_timeout_ms: u64,

    /// Milliseconds that a stop waits for a disk that hangs, after calls under way have had their 10 s
    #[arg(long, env = "LOGMILL_STOP_TIMEOUT_MS", default_value_t = ms(STOP_TIMEOUT), value_name = "MS")]
    stop_timeout_ms: u64,

    /// Bytes of the disk that are held in reserve, for what has to be written when it is full
    #[arg(long, env = "LOGMILL_RESERVE_BYTES", default_value_t = DEFAULT_RESERVE_BYTES, value_name = "BYTES")]
    reserve_bytes: u64,

    /// Bytes of free space on the disk below which records are refused
    #[arg(long, env = "LOGMILL_LOW_SPACE_BYTES", default_value_t = DEFAULT_LOW_SPACE_BYTES, value_name = "BYTES")]
    low_space_bytes: u64,
}

const EXAMPLES: &str = "\
Examples:
  logmill serve --data-dir ./data
  logmill serve --data-dir ./data --listen 127.0.0.1:0      (a free port: see its first line)
  logmill serve --data-dir ./data --topic-default retention.ms=604800000
  logmill serve --data-dir ./data --limit max_connections=500 --limit max_topics=100

One line on standard output says when the node is ready, and its address. It logs to standard error.";

/// The examples, and the table of limits.
fn long_help() -> String {
    let defaults = Limits::default();
    let mut help = format!("{EXAMPLES}\n\nLimits, with their units and what they are unless set:\n");
    for limit in Limit::ALL {
        let (unit, default) = (limit.unit(), defaults.get(*limit));
        // Writing to a string does not fail.
        let _ = write!(help, "\n  {limit} ({unit}, {default})\n     {}\n", limit.describes());
    }
    help
}

const fn ms(duration: Duration) -> u64 {
    duration.as_secs() * 1_000 + duration.subsec_millis() as u64
}

/// A limit by its name, and what it is to be.
fn parse_limit(text: &str) -> Result<(Limit, usize), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=NUMBER, such as max_connections=500")?;
    let limit = Limit::find(name.trim()).ok_or_else(|| {
        let all: Vec<&str> = Limit::ALL.iter().map(|limit| limit.as_str()).collect();
        format!("there is no limit {name:?}: there are {}", all.join(", "))
    })?;
    let value = value.trim().parse::<usize>().ok().filter(|value| *value > 0);
    Ok((limit, value.ok_or_else(|| format!("{limit} is a whole number, at least 1"))?))
}

impl Args {
    /// What the node is told.
    fn config(&self) -> Result<Config, Failure> {
        let topic_defaults =
            TopicSettings::new(self.topic_defaults.iter().map(|(name, value)| (name, value)))
                .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
        let mut limits = Limits::default();
        self.limits.iter().for_each(|(limit, value)| limits.set(*limit, *value));
        Ok(Config {
            topic_defaults,
            limits,
            producer_id_expiration: Duration::from_millis(self.producer_id_expiration_ms),
            stall_timeout: Duration::from_millis(self.stall_timeout_ms),
            reserve_bytes: self.reserve_bytes,
            low_space_bytes: self.low_space_bytes,
            ..Config::new(&self.data_dir)
        })
    }
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    // Before the node starts: a signal while it recovers must not be lost.
    let cannot = |error| Failure::new(Exit::Failed, format!("cannot wait for signals: {error}"));
    let mut signals = Signals {
        terminate: signal(SignalKind::terminate()).map_err(cannot)?,
        interrupt: signal(SignalKind::interrupt()).map_err(cannot)?,
    };
    raise_file_limit();
    let config = args.config()?;
    let mut node = tokio::select! {
        started = Node::start(config, args.listen) => started?,
        // Like a kill, which the next start recovers from: this one may be stuck, on a disk that hangs.
        why = signals.any() => {
            tracing::info!("{why}: the start is left off");
            return Ok(());
        }
    };
    announce(&node, &args)?;
    let why = tokio::select! {
        why = signals.any() => why,
        failure = node.failed() => return Err(failure),
    };
    tracing::info!("{why}: finishing what is in flight");
    node.stop(Duration::from_millis(args.stop_timeout_ms)).await?;
    tracing::info!("stopped");
    Ok(())
}

/// Those that ask the node to stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// The name of the next one.
    async fn any(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}

/// 512 files of partitions and up to 4,096 connections do not fit the usual soft limit of 1,024 descriptors:
/// takes what the hard limit allows.
fn raise_file_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current < limit.maximum || limit.maximum.is_none() {
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        if let Err(error) = setrlimit(Resource::Nofile, raised) {
            tracing::warn!(%error, "cannot raise the limit of open files; see `ulimit -n`");
        }
    }
}

/// A node goes on serving when whoever started it does not read the line.
fn announce(node: &Node, args: &Args) -> Result<(), Failure> {
    let mut output = Output::stdout();
    let line = format!("logmill is ready at {} with its data in {}", node.url(), args.data_dir.display());
    match output.line(line).and_then(|()| output.flush()) {
        Err(Failure::OutputClosed) => Ok(()),
        other => other,
    }
}
