//! `logmill topic`: create, list, describe, alter, add partitions, delete records, delete.

mod change;

use clap::Subcommand;
use logmill_client::{PartitionInfo, SettingSource, TopicDescription, TopicInfo};
use serde_json::{Value, json};

use crate::client::Common;
use crate::failure::Failure;
use crate::output::{Output, bytes_text, counted, plain_table, thousands, to_f64};
use crate::when::time_text;

/// Create, list, describe, alter and delete topics
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill topic create hits --partitions 4
  logmill topic list --json
  logmill topic alter hits --set retention.ms=604800000
  logmill topic delete hits")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Create a topic; it is durable when the command returns
    #[command(after_help = "\
Examples:
  logmill topic create hits --partitions 4
  logmill topic create hits --set retention.ms=604800000 --set segment.bytes=16777216
  logmill topic create latest --set cleanup.policy=compact

What it prints is what is in force; the guide says what each setting does.")]
    Create {
        /// The topic's name: 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'
        topic: String,
        /// How many partitions, 1 to 10,000; 1 unless said
        #[arg(long, value_name = "N")]
        partitions: Option<u32>,
        /// Give it a setting of its own; can be repeated
        #[arg(long = "set", value_name = "NAME=VALUE", value_parser = parse_setting)]
        settings: Vec<(String, String)>,
        #[command(flatten)]
        common: Common,
    },
    /// List topics
    #[command(visible_alias = "ls", after_help = "Example:\n  logmill topic list --internal")]
    List {
        /// Also those that pipelines made for themselves
        #[arg(long)]
        internal: bool,
        #[command(flatten)]
        common: Common,
    },
    /// Show a topic's settings and partitions
    #[command(after_help = "Example:\n  logmill topic describe hits --json")]
    Describe {
        /// The topic's name
        topic: String,
        #[command(flatten)]
        common: Common,
    },
    /// Change settings of a topic; the others stay as they are
    #[command(after_help = "\
Examples:
  logmill topic alter hits --set retention.ms=604800000 --set max.message.bytes=4194304
  logmill topic alter hits --reset retention.ms
  logmill topic alter hits --append cleanup.policy=compact

What it prints is what is in force then.")]
    Alter(change::AlterArgs),
    /// Give a topic more partitions; records are not moved
    #[command(after_help = "\
Example:
  logmill topic add-partitions hits --partitions 8

Records of a key may go to another partition than before, so their order is no longer kept by one partition.")]
    AddPartitions(change::AddPartitionsArgs),
    /// Delete the oldest records of partitions, without asking
    #[command(after_help = "\
Examples:
  logmill topic delete-records hits --before 0=1000 --before 3=end
  logmill topic delete-records hits --all")]
    DeleteRecords(change::DeleteRecordsArgs),
    /// Delete a topic and its records, without asking
    #[command(after_help = "Example:\n  logmill topic delete hits")]
    Delete {
        /// The topic's name
        topic: String,
        #[command(flatten)]
        common: Common,
    },
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut output = Output::stdout();
    match args.action {
        Action::Create { topic, partitions, settings, common } => {
            let client = common.server.connect().await?;
            let settings: Vec<(&str, &str)> =
                settings.iter().map(|(name, value)| (&**name, &**value)).collect();
            let topic = client.create_topic_with(&topic, partitions, &settings).await?;
            created(&topic, common.json, &mut output)?;
        }
        Action::List { internal, common } => {
            let topics = common.server.connect().await?.list_topics(internal).await?;
            list(&topics, common.json, &mut output)?;
        }
        Action::Describe { topic, common } => {
            let description = common.server.connect().await?.describe_topic(&topic).await?;
            describe(&description, common.json, &mut output)?;
        }
        Action::Alter(args) => change::alter(args, &mut output).await?,
        Action::AddPartitions(args) => change::add_partitions(args, &mut output).await?,
        Action::DeleteRecords(args) => change::delete_records(args, &mut output).await?,
        Action::Delete { topic, common } => {
            common.server.connect().await?.delete_topic(&topic).await?;
            if common.json {
                output.json(&json!({ "deleted": topic }))?;
            } else {
                output.line(format_args!("deleted topic {topic}"))?;
            }
        }
    }
    output.flush()
}

/// A setting as it is typed.
pub(crate) fn parse_setting(text: &str) -> Result<(String, String), String> {
    let (name, value) =
        text.split_once('=').ok_or("write it as NAME=VALUE, such as retention.ms=86400000")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

fn created(topic: &TopicInfo, json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        return output.json(&topic_json(topic));
    }
    output.line(format_args!("created topic {} with {}", topic.name, partitions_text(topic)))?;
    in_force(topic, output)
}

/// Retention above all: what is kept, and for how long, must not be a surprise.
fn in_force(topic: &TopicInfo, output: &mut Output) -> Result<(), Failure> {
    for setting in &topic.settings {
        let own = if setting.source == SettingSource::Topic { "  (set for this topic)" } else { "" };
        output.line(format_args!("  {} = {}{own}", setting.name, setting.value))?;
    }
    Ok(())
}

fn list(topics: &[TopicInfo], json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        return topics.iter().try_for_each(|topic| output.json(&topic_json(topic)));
    }
    if topics.is_empty() {
        return output.line("there are no topics yet; create one with 'logmill topic create NAME'");
    }
    let mut table = plain_table(["NAME", "PARTITIONS", "CREATED"], &[1]);
    for topic in topics {
        table.add_row([topic.name.clone(), topic.partition_count.to_string(), time_text(topic.created_at)]);
    }
    output.line(table.trim_fmt())
}

fn describe(description: &TopicDescription, json: bool, output: &mut Output) -> Result<(), Failure> {
    let TopicDescription { topic, partitions, .. } = description;
    if json {
        let mut document = topic_json(topic);
        document["partitions"] = partitions.iter().map(partition_json).collect();
        return output.json(&document);
    }
    let records: u64 = partitions.iter().map(record_count).sum();
    let stored: u64 = partitions.iter().map(|partition| partition.stored_bytes).sum();
    output.line(format_args!("topic       {}", topic.name))?;
    output.line(format_args!("id          {}", topic.topic_id))?;
    output.line(format_args!("created     {}", time_text(topic.created_at)))?;
    output.line(format_args!("partitions  {}", topic.partition_count))?;
    output.line(format_args!("records     {}", thousands(records)))?;
    output.line(format_args!("stored      {}", size_text(stored, records)))?;
    output.line("")?;
    let mut settings = plain_table(["SETTING", "VALUE", "SOURCE"], &[]);
    for setting in &topic.settings {
        settings.add_row([setting.name.as_str(), setting.value.as_str(), source_text(setting.source)]);
    }
    output.line(settings.trim_fmt())?;
    output.line("")?;
    let mut table =
        plain_table(["PARTITION", "START", "END", "STORED", "SEGMENTS", "STATE"], &[0, 1, 2, 3, 4]);
    for partition in partitions {
        table.add_row([
            partition.partition.to_string(),
            partition.start_offset.to_string(),
            partition.end_offset.to_string(),
            bytes_text(to_f64(partition.stored_bytes)),
            partition.segment_count.to_string(),
            partition.error.as_ref().map_or_else(|| "ok".to_owned(), ToString::to_string),
        ]);
    }
    output.line(table.trim_fmt())
}

fn topic_json(topic: &TopicInfo) -> Value {
    let settings = topic.settings.iter().map(|setting| {
        json!({ "name": setting.name, "value": setting.value, "source": source_text(setting.source) })
    });
    json!({
        "name": topic.name,
        "topic_id": topic.topic_id,
        "partition_count": topic.partition_count,
        "created_at_ms": topic.created_at.0,
        "internal": topic.internal,
        "settings": settings.collect::<Value>(),
    })
}

fn partition_json(partition: &PartitionInfo) -> Value {
    json!({
        "partition": partition.partition,
        "start_offset": partition.start_offset.get(),
        "end_offset": partition.end_offset.get(),
        "stored_bytes": partition.stored_bytes,
        "segment_count": partition.segment_count,
        "leader_epoch": partition.leader_epoch,
        "error": partition.error.as_ref().map(|error| json!({
            "reason": error.reason(),
            "message": error.to_string(),
        })),
    })
}

fn source_text(source: SettingSource) -> &'static str {
    match source {
        SettingSource::Default => "default",
        SettingSource::Node => "node",
        SettingSource::Topic => "topic",
        _ => "unknown",
    }
}

fn partitions_text(topic: &TopicInfo) -> String {
    counted(topic.partition_count.into(), "partition", "partitions")
}

fn record_count(partition: &PartitionInfo) -> u64 {
    partition.end_offset.checked_sub(partition.start_offset).unwrap_or_default()
}

fn size_text(stored_bytes: u64, records: u64) -> String {
    let stored = bytes_text(to_f64(stored_bytes));
    if records == 0 {
        return stored;
    }
    format!("{stored}, {} a record", bytes_text(to_f64(stored_bytes) / to_f64(records)))
}
