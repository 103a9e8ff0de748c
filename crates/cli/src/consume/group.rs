//! `logmill consume --group`: records of one member's share, committed when they are printed.

use std::time::Duration;

use logmill_client::{Committer, ConsumerEvent, OffsetToCommit, UnitRecords};
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;

use super::{Args, Printer};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::when::StartPosition;

/// How long the node may take to answer the last commits and the goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// Prints until it is interrupted, or has printed as many records as were asked for; then it leaves the group.
pub(super) async fn run(args: Args, group: &str) -> Result<(), Failure> {
    let start_at_latest = match args.from {
        StartPosition::Earliest => false,
        StartPosition::Latest => true,
        StartPosition::Offset(_) | StartPosition::Time(_) => {
            let message = format!(
                "with --group, --from is earliest or latest, and holds where nothing is committed: to have group {group} \
                 go on elsewhere, use 'logmill group reset'"
            );
            return Err(Failure::new(Exit::Usage, message));
        }
    };
    let cannot = |error| Failure::new(Exit::Failed, format!("cannot wait for signals: {error}"));
    let mut terminate = signal(SignalKind::terminate()).map_err(cannot)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(cannot)?;
    let client = args.server.connect().await?;
    // A group waits for topics that may come; who types a name wants one that is there.
    client.describe_topic(&args.topic).await?;
    let consumer = client
        .consumer(group)
        .topics([&*args.topic])
        .auto_commit(false)
        .isolation(args.isolation())
        .reconnect_timeout(args.server.timeout);
    let consumer = if start_at_latest { consumer.start_at_latest() } else { consumer };
    let consumer = match args.session_timeout {
        Some(timeout) => consumer.session_timeout(timeout),
        None => consumer,
    };
    let mut consumer = consumer.join().await?;
    let committer = consumer.committer();

    let mut output = Output::stdout();
    let printer = Printer { json: args.json, sanitize: output.is_terminal(), topic: &args.topic };
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut result = Ok(());
    while left > 0 && result.is_ok() {
        let event = tokio::select! {
            event = consumer.next() => event,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
        };
        result = match event {
            Some(Ok(ConsumerEvent::Records(records))) => tokio::select! {
                printed = print(&printer, &records, &mut left, &committer, &mut output) => printed,
                // A node that does not answer a commit keeps nobody.
                _ = terminate.recv() => break,
                _ = interrupt.recv() => break,
            },
            Some(Ok(_)) => Ok(()),
            Some(Err(error)) => Err(error.into()),
            None => Err(Failure::new(Exit::Failed, "the node ended the membership")),
        };
    }
    // So that the others have its units at once, however this ends.
    let left = timeout(GOODBYE, consumer.close()).await;
    result?;
    output.flush()?;
    let not_answered = "the node does not answer: what was printed last may come to another member, which has the units when \
                        the session timeout is over";
    Ok(left.map_err(|_| Failure::new(Exit::TimedOut, not_answered))??)
}

/// Prints what is left to print, and commits behind it.
async fn print(
    printer: &Printer<'_>,
    records: &UnitRecords,
    left: &mut u64,
    committer: &Committer,
    output: &mut Output,
) -> Result<(), Failure> {
    let mut next = OffsetToCommit::from(&records.data);
    for record in records.data.records() {
        let record = record?;
        if *left == 0 {
            // The epoch that came is that of the end of what came.
            next = OffsetToCommit::new(next.topic, next.partition, record.offset);
            break;
        }
        printer.print(records.data.partition, &record, output)?;
        *left -= 1;
    }
    output.flush()?;
    match committer.commit(&records.unit, &[next]).await {
        // It went to another member meanwhile, which prints it again.
        Err(error) if error.reason() == "STALE_ASSIGNMENT" => Ok(()),
        committed => committed.map_err(Failure::from),
    }
}
