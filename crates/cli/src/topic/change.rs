//! `logmill topic alter`, `add-partitions` and `delete-records`.

use logmill_client::{Error, SettingChange};
use logmill_record::Offset;
use serde_json::json;

use super::{Common, in_force, parse_setting, partitions_text, topic_json};
use crate::failure::Failure;
use crate::output::Output;

#[derive(Debug, clap::Args)]
#[group(id = "changes", required = true, multiple = true, args = ["set", "reset", "append", "remove"])]
pub(super) struct AlterArgs {
    /// The topic's name
    topic: String,
    /// Give it a setting of its own; can be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    set: Vec<(String, String)>,
    /// Take a setting of its own back, so that the node's holds; can be repeated
    #[arg(long, value_name = "NAME")]
    reset: Vec<String>,
    /// Add to a setting that is a list, which only cleanup.policy is
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    append: Vec<(String, String)>,
    /// Take out of a setting that is a list
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_setting)]
    remove: Vec<(String, String)>,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn alter(args: AlterArgs, output: &mut Output) -> Result<(), Failure> {
    let AlterArgs { topic, set, reset, append, remove, common } = args;
    let set = set.into_iter().map(|(name, value)| SettingChange::set(name, value));
    let reset = reset.into_iter().map(SettingChange::reset);
    let append = append.into_iter().map(|(name, value)| SettingChange::append(name, value));
    let remove = remove.into_iter().map(|(name, value)| SettingChange::remove(name, value));
    let changes: Vec<SettingChange> = set.chain(reset).chain(append).chain(remove).collect();
    let topic = common.server.connect().await?.alter_topic(&topic, &changes).await?;
    if common.json {
        return output.json(&topic_json(&topic));
    }
    output.line(format_args!("altered topic {}", topic.name))?;
    in_force(&topic, output)
}

#[derive(Debug, clap::Args)]
pub(super) struct AddPartitionsArgs {
    /// The topic's name
    topic: String,
    /// How many it is to have in all, more than now and at most 10,000
    #[arg(long, value_name = "N")]
    partitions: u32,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn add_partitions(args: AddPartitionsArgs, output: &mut Output) -> Result<(), Failure> {
    let AddPartitionsArgs { topic, partitions, common } = args;
    let topic = common.server.connect().await?.add_partitions(&topic, partitions).await?;
    if common.json {
        return output.json(&topic_json(&topic));
    }
    output.line(format_args!("topic {} has {} now", topic.name, partitions_text(&topic)))
}

#[derive(Debug, clap::Args)]
#[group(id = "which", required = true, multiple = false, args = ["before", "all"])]
pub(super) struct DeleteRecordsArgs {
    /// The topic's name
    topic: String,
    /// A partition, and the offset before which its records go, or 'end'; can be repeated
    #[arg(long, value_name = "PARTITION=OFFSET", value_parser = parse_before)]
    before: Vec<(u32, Option<Offset>)>,
    /// All records of all partitions
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    common: Common,
}

pub(super) async fn delete_records(args: DeleteRecordsArgs, output: &mut Output) -> Result<(), Failure> {
    let DeleteRecordsArgs { topic, before, all, common } = args;
    let client = common.server.connect().await?;
    let partitions = if all {
        let count = client.describe_topic(&topic).await?.topic.partition_count;
        (0..count).map(|partition| (partition, None)).collect()
    } else {
        before
    };
    let mut failed: Option<Error> = None;
    for deleted in client.delete_records(&topic, &partitions).await? {
        let partition = deleted.partition;
        match deleted.outcome {
            Ok(start) if common.json => {
                output.json(&json!({ "partition": partition, "start_offset": start.get() }))?;
            }
            Ok(start) => output.line(format_args!("partition {partition} starts at {start}"))?,
            Err(error) => {
                if common.json {
                    let told = json!({ "reason": error.reason(), "message": error.to_string() });
                    output.json(&json!({ "partition": partition, "error": told }))?;
                }
                failed = failed.or(Some(error));
            }
        }
    }
    let Some(error) = failed else { return Ok(()) };
    // What was done is told before what was not.
    output.flush()?;
    Err(error.into())
}

/// A partition and an offset as they are typed.
fn parse_before(text: &str) -> Result<(u32, Option<Offset>), String> {
    const FORM: &str = "write it as PARTITION=OFFSET, such as 0=1000, or 0=end";
    let (partition, offset) = text.split_once('=').ok_or(FORM)?;
    let partition = partition.trim().parse().map_err(|_| FORM)?;
    let before = match offset.trim() {
        "end" => None,
        offset => Some(Offset(offset.parse().map_err(|_| FORM)?)),
    };
    Ok((partition, before))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_partition_and_an_offset_are_read_as_they_are_typed() {
        assert_eq!(parse_before("0=1000"), Ok((0, Some(Offset(1_000)))));
        assert_eq!(parse_before("3=end"), Ok((3, None)));
        for wrong in ["", "0", "=", "0=", "-1=5", "0=-5", "a=b", "0=latest"] {
            assert!(parse_before(wrong).unwrap_err().contains("PARTITION=OFFSET"), "{wrong}");
        }
    }
}
