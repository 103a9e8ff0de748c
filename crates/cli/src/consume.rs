//! `logmill consume`: records to standard output.
//!
//! Where to stop is fixed at the start: the end that each partition has then. So a busy topic does
//! not keep the command running, and with `--follow` nothing does but `-n`.

mod group;

use std::collections::HashMap;
use std::time::Duration;

use logmill_client::{
    Client, Fetch, FetchFrom, FetchedRecord, Isolation, PartitionData, PartitionInfo, Position, Subscribe,
};
use logmill_record::Offset;
use tokio::sync::mpsc;

use crate::client::{ServerArgs, session_seconds};
use crate::failure::{Exit, Failure};
use crate::output::Output;
use crate::produce::no_partition;
use crate::record_json::RecordOut;
use crate::when::StartPosition;

/// What a node takes in one subscription.
const PARTITIONS_AT_ONCE: usize = 1_000;

/// Print the records of a topic
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill consume hits
  logmill consume hits --from 2018-02-07T00:00:00Z --json
  logmill consume hits --partition 2 --from 1000 -n 10
  logmill consume hits --from latest --follow
  logmill consume hits --group alarms

With --group it is a member of that group: it prints its share of the partitions, goes on where the group has come, and \
on as records arrive, until it is interrupted or -n is reached. What is printed is committed; after a crash, the last of it \
may be printed again.

Without --json it prints each record's value on a line. With --json nothing is lost: topic, partition, offset, \
timestamp (ms since 1970-01-01 UTC), key and value as text or, where they are not UTF-8, as key_base64 and \
value_base64, and headers as [name, value] pairs.")]
pub(crate) struct Args {
    /// The topic's name
    topic: String,

    /// Where to start: earliest, latest, an offset, or an RFC 3339 time. With --group: where nothing is committed
    #[arg(long, default_value = "earliest", value_name = "POSITION", allow_hyphen_values = true)]
    from: StartPosition,

    /// Only this partition
    #[arg(long, value_name = "N")]
    partition: Option<u32>,

    /// Go on as records arrive, instead of ending at the end of the topic
    #[arg(long)]
    follow: bool,

    /// Share the partitions with the other members of this group, and remember how far it has come
    #[arg(long, value_name = "GROUP", conflicts_with = "partition")]
    group: Option<String>,

    /// With --group: keep the share for so many seconds when the node hears nothing of this member, from 1 to 1800; 30
    /// unless given
    #[arg(long, requires = "group", value_name = "SECONDS", value_parser = session_seconds)]
    session_timeout: Option<Duration>,

    /// Print also records of transactions that are open or were aborted. Without it, an open one holds back what was
    /// appended behind its first record
    #[arg(long)]
    read_uncommitted: bool,

    /// End after so many records
    #[arg(short = 'n', long = "count", value_name = "N")]
    count: Option<u64>,

    /// Print JSON, one record on a line
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    server: ServerArgs,
}

pub(crate) async fn run(mut args: Args) -> Result<(), Failure> {
    if let Some(group) = args.group.take() {
        return group::run(args, &group).await;
    }
    let client = args.server.connect().await?;
    let Plan { from, mut ends, suspects } = plan(&client, &args).await?;
    let mut output = Output::stdout();
    let printer = Printer { json: args.json, sanitize: output.is_terminal(), topic: &args.topic };
    let mut left = args.count.unwrap_or(u64::MAX);
    let mut incoming = subscribe(&client, &from, args.isolation(), args.server.timeout);
    while left > 0 && !ends.is_empty() {
        let data = next_data(&mut incoming, &mut output).await?;
        // What comes after a partition's end was reached is not asked for any more.
        let Some(&end) = ends.get(&data.partition) else { continue };
        for record in data.records() {
            let record = record?;
            if record.offset >= end || left == 0 {
                break;
            }
            printer.print(data.partition, &record, &mut output)?;
            left -= 1;
        }
        if data.next_offset >= end {
            ends.remove(&data.partition);
        }
    }
    output.flush()?;
    if left > 0 { report_damage(&client, &suspects).await } else { Ok(()) }
}

/// All there is has been printed: that is not all there was if a read at the end meets damage.
async fn report_damage(client: &Client, ends: &[FetchFrom]) -> Result<(), Failure> {
    for ends in ends.chunks(PARTITIONS_AT_ONCE) {
        for data in client.fetch(Fetch::from(ends.to_vec())).await? {
            if let Some(error) = data.error {
                return Err(error.into());
            }
        }
    }
    Ok(())
}

type Incoming = mpsc::Receiver<Result<PartitionData, logmill_client::Error>>;

/// Who follows along sees everything before this waits.
async fn next_data(incoming: &mut Incoming, output: &mut Output) -> Result<PartitionData, Failure> {
    let data = match incoming.try_recv() {
        Ok(data) => Some(data),
        Err(_) => {
            output.flush()?;
            incoming.recv().await
        }
    };
    let data = data.ok_or_else(|| Failure::new(Exit::Failed, "the node ended the subscription"))??;
    match data.error {
        Some(error) => Err(error.into()),
        None => Ok(data),
    }
}

/// Where to start in each partition, and before which offset to stop.
struct Plan {
    from: Vec<FetchFrom>,
    ends: HashMap<u32, Offset>,
    /// The ends of partitions that something is wrong with: they can lie before what was acknowledged.
    suspects: Vec<FetchFrom>,
}

impl Args {
    fn isolation(&self) -> Isolation {
        if self.read_uncommitted { Isolation::ReadUncommitted } else { Isolation::ReadCommitted }
    }
}

async fn plan(client: &Client, args: &Args) -> Result<Plan, Failure> {
    let topic = &args.topic;
    let mut partitions = client.describe_topic(topic).await?.partitions;
    if let Some(only) = args.partition {
        let count = u32::try_from(partitions.len()).unwrap_or(u32::MAX);
        partitions.retain(|info| info.partition == only);
        if partitions.is_empty() {
            return Err(no_partition(topic, only, count));
        }
    }
    let position = args.from.position();
    let suspects = partitions
        .iter()
        .filter(|info| info.error.is_some())
        .map(|info| FetchFrom::new(topic.as_str(), info.partition, info.end_offset))
        .collect();
    let mut plan = Plan { from: Vec::new(), ends: HashMap::new(), suspects };
    for partitions in partitions.chunks(PARTITIONS_AT_ONCE) {
        let asked: Vec<_> = partitions.iter().map(|info| (info.partition, position)).collect();
        let starts = client.list_offsets_with(topic, &asked, args.isolation()).await?;
        let ends = ends(client, args, partitions).await?;
        for (start, end) in starts.iter().zip(ends).filter(|(start, end)| start.offset < *end) {
            plan.from.push(FetchFrom::new(topic.as_str(), start.partition, start.offset));
            plan.ends.insert(start.partition, end);
        }
    }
    Ok(plan)
}

/// Before which offsets to stop: the end of what can be read now. What lies behind an open transaction cannot, and
/// nobody knows when.
async fn ends(client: &Client, args: &Args, partitions: &[PartitionInfo]) -> Result<Vec<Offset>, Failure> {
    if args.follow {
        return Ok(vec![Offset::MAX; partitions.len()]);
    }
    let latest: Vec<_> = partitions.iter().map(|info| (info.partition, Position::Latest)).collect();
    let ends = client.list_offsets_with(&args.topic, &latest, args.isolation()).await?;
    Ok(ends.into_iter().map(|end| end.offset).collect())
}

/// Data of all partitions as it arrives; dropping the receiver ends it.
fn subscribe(client: &Client, from: &[FetchFrom], isolation: Isolation, patience: Duration) -> Incoming {
    let (sender, receiver) = mpsc::channel(2);
    for partitions in from.chunks(PARTITIONS_AT_ONCE) {
        let subscribe = Subscribe::from(partitions.to_vec());
        let request = Subscribe { reconnect_timeout: patience, isolation, ..subscribe };
        let (client, sender) = (client.clone(), sender.clone());
        tokio::spawn(async move {
            let mut subscription = match client.subscribe(request).await {
                Ok(subscription) => subscription,
                Err(error) => {
                    // Nobody listens any more: nothing is left to do either way.
                    let _ = sender.send(Err(error)).await;
                    return;
                }
            };
            while let Some(data) = subscription.next().await {
                if sender.send(data).await.is_err() {
                    return;
                }
            }
        });
    }
    receiver
}

struct Printer<'a> {
    json: bool,
    /// Records come from anyone: on a terminal, their control characters must not steer it.
    sanitize: bool,
    topic: &'a str,
}

impl Printer<'_> {
    fn print(&self, partition: u32, record: &FetchedRecord, output: &mut Output) -> Result<(), Failure> {
        if self.json {
            let headers: Vec<(&str, Option<&[u8]>)> =
                record.headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
            return output.json(&RecordOut {
                topic: self.topic,
                partition,
                offset: record.offset.get(),
                timestamp: record.timestamp,
                key: record.key.as_deref(),
                value: record.value.as_deref(),
                headers: &headers,
            });
        }
        let value = record.value.as_deref().unwrap_or_default();
        if self.sanitize {
            return output.line(sanitized(value));
        }
        output.bytes(value)?;
        output.bytes(b"\n")
    }
}

/// Text for a terminal: what is not UTF-8 replaced, control characters but tabs written as escapes.
fn sanitized(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for c in String::from_utf8_lossy(bytes).chars() {
        if c.is_control() && c != '\t' {
            text.extend(c.escape_default());
        } else {
            text.push(c);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_cannot_steer_the_terminal() {
        assert_eq!(sanitized("a\tä".as_bytes()), "a\tä");
        assert_eq!(sanitized(b"\x1b]0;x\x07\r\n\xff"), "\\u{1b}]0;x\\u{7}\\r\\n\u{fffd}");
    }
}
