//! `logmill serve`: a node in the foreground.

use std::net::SocketAddr;
use std::path::PathBuf;

use logmill_broker::TopicSettings;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Exit, Failure};
use crate::node::Node;
use crate::output::Output;
use crate::topic::parse_setting;

/// Run a node in the foreground until SIGTERM or Ctrl-C
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill serve --data-dir ./data
  logmill serve --data-dir ./data --listen 127.0.0.1:0      (a free port: see its first line)
  logmill serve --data-dir ./data --topic-default retention.ms=604800000

One line on standard output says when the node is ready, and its address. It logs to standard error.")]
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
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    // Before the node starts: a signal while it recovers must not be lost.
    let cannot = |error| Failure::new(Exit::Failed, format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    raise_file_limit();
    let topic_defaults = TopicSettings::new(args.topic_defaults.iter().map(|(name, value)| (name, value)))
        .map_err(|error| Failure::new(Exit::Usage, error.to_string()))?;
    let mut node = Node::start(&args.data_dir, args.listen, topic_defaults).await?;
    announce(&node, &args)?;
    let why = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
        failure = node.failed() => return Err(failure),
    };
    tracing::info!("{why}: finishing what is in flight");
    node.stop().await?;
    tracing::info!("stopped");
    Ok(())
}

/// Every partition keeps a file open: as many as this user may have, where the usual limit is for
/// programs that mind descriptors above 1,023.
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
