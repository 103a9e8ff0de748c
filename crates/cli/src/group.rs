//! `logmill group`: list, describe, reset, delete.

use clap::Subcommand;
use logmill_client::{
    Client, GroupDescription, GroupMember, GroupOffset, GroupSummary, GroupUnit, OffsetReset,
};
use logmill_record::Offset;
use serde_json::{Value, json};

use crate::client::Common;
use crate::failure::{Exit, Failure};
use crate::output::{Output, counted, duration_text, plain_table, thousands};
use crate::when::{StartPosition, time_text};

/// See how far groups have come, have them go on elsewhere, delete them
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  logmill group ls
  logmill group describe alarms
  logmill group reset alarms --to earliest
  logmill group delete alarms

A group shares the partitions of topics among its members, such as 'logmill consume --group', and remembers how far it \
has come.")]
pub(crate) struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List groups
    #[command(visible_alias = "list", after_help = "Example:\n  logmill group ls --json")]
    Ls {
        #[command(flatten)]
        common: Common,
    },
    /// Show a group's members, their units, and how far it is behind
    #[command(after_help = "\
Examples:
  logmill group describe alarms
  logmill group describe alarms --json

LAG is at most how many records are left to read, and WAITED how long the first of them has waited. The offsets of a topic that was deleted are shown until they are deleted too.")]
    Describe {
        /// The group's name
        group: String,
        #[command(flatten)]
        common: Common,
    },
    /// Move a group to other offsets; without --execute, only show the changes
    #[command(after_help = "\
Examples:
  logmill group reset alarms --to earliest
  logmill group reset alarms --to 2018-02-07T00:00:00Z --topic readings --execute
  logmill group reset alarms --to 1000 --topic readings/3 --execute

Its members are to be stopped before: a group that has some, or awaits some, is left as it is.")]
    Reset(ResetArgs),
    /// Delete a group, or what it has committed for a topic, without asking
    #[command(after_help = "\
Examples:
  logmill group delete alarms
  logmill group delete alarms --topic readings

Its members are to be stopped before: a group that has some, or awaits some, is left as it is.")]
    Delete {
        /// The group's name
        group: String,
        /// Only what it has committed for this topic, which may be deleted already
        #[arg(long, value_name = "TOPIC")]
        topic: Option<String>,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
struct ResetArgs {
    /// The group's name
    group: String,
    /// Where to go on: earliest, latest, an offset, or an RFC 3339 time
    #[arg(long, value_name = "POSITION", allow_hyphen_values = true)]
    to: StartPosition,
    /// A topic, or one partition of it; can be repeated. Every topic for which it has committed something, unless said
    #[arg(long = "topic", value_name = "TOPIC[/PARTITION]", value_parser = parse_partitions)]
    topics: Vec<Partitions>,
    /// Do it
    #[arg(long)]
    execute: bool,
    #[command(flatten)]
    common: Common,
}

/// A topic, and one of its partitions or all.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Partitions {
    topic: String,
    partition: Option<u32>,
}

/// A topic or a partition as they are typed. No topic has a slash in its name.
fn parse_partitions(text: &str) -> Result<Partitions, String> {
    let Some((topic, partition)) = text.rsplit_once('/') else {
        return Ok(Partitions { topic: text.to_owned(), partition: None });
    };
    let form = "write it as TOPIC, or as TOPIC/PARTITION, such as readings/3";
    let partition = partition.parse().map_err(|_| form)?;
    Ok(Partitions { topic: topic.to_owned(), partition: Some(partition) })
}

pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let mut output = Output::stdout();
    match args.action {
        Action::Ls { common } => {
            let groups = common.server.connect().await?.list_groups().await?;
            list(&groups, common.json, &mut output)?;
        }
        Action::Describe { group, common } => {
            let group = common.server.connect().await?.describe_group(&group).await?;
            if common.json {
                output.json(&group_json(&group))?;
            } else {
                describe(&group, &mut output)?;
            }
        }
        Action::Reset(args) => reset(args, &mut output).await?,
        Action::Delete { group, topic, common } => {
            if let Some((name, _)) = topic.as_deref().and_then(|topic| topic.split_once('/')) {
                let message = format!(
                    "offsets are deleted for whole topics: give --topic {name}, or use 'logmill group reset'"
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            let client = common.server.connect().await?;
            let Some(topic) = topic else {
                client.delete_group(&group).await?;
                match common.json {
                    true => output.json(&json!({ "deleted": group }))?,
                    false => output.line(format_args!("deleted group {group}"))?,
                }
                return output.flush();
            };
            let count = client.delete_group_offsets(&group, &topic).await?;
            match (count, common.json) {
                (_, true) => output.json(&json!({ "group": group, "topic": topic, "partitions": count }))?,
                (0, false) => {
                    output.line(format_args!("group {group} had committed nothing for topic {topic}"))?;
                }
                (_, false) => {
                    let partitions = counted(count.into(), "partition", "partitions");
                    output.line(format_args!(
                        "deleted what group {group} had committed for {partitions} of topic {topic}"
                    ))?;
                }
            }
        }
    }
    output.flush()
}

async fn reset(args: ResetArgs, output: &mut Output) -> Result<(), Failure> {
    let ResetArgs { group, to, topics, execute, common } = args;
    let client = common.server.connect().await?;
    let topics = if topics.is_empty() { committed_topics(&client, &group).await? } else { by_topic(topics) };
    let topics: Vec<(&str, &[u32])> = topics.iter().map(|(topic, it)| (&**topic, &**it)).collect();
    let to = to.position();
    let resets = match execute {
        true => client.reset_offsets(&group, &topics, to).await?,
        false => client.plan_offset_reset(&group, &topics, to).await?,
    };
    if common.json {
        return resets.iter().try_for_each(|reset| output.json(&reset_json(reset, execute)));
    }
    let mut table = plain_table(["TOPIC", "PARTITION", "FROM", "TO"], &[1, 2, 3]);
    for OffsetReset { topic, partition, from, to, .. } in &resets {
        let from = from.map_or_else(|| "-".to_owned(), |from| from.to_string());
        table.add_row([topic.clone(), partition.to_string(), from, to.to_string()]);
    }
    output.line(table.trim_fmt())?;
    output.line("")?;
    match execute {
        true => output.line(format_args!("group {group} goes on there")),
        false => output.line("nothing was changed: add --execute to do it"),
    }
}

async fn committed_topics(client: &Client, group: &str) -> Result<Vec<(String, Vec<u32>)>, Failure> {
    let offsets = client.describe_group(group).await?.offsets;
    // Of a topic that was deleted nothing can be reset.
    let mut topics: Vec<(String, Vec<u32>)> = offsets
        .into_iter()
        .filter(|offset| offset.lag_records.is_some())
        .map(|offset| (offset.topic, Vec::new()))
        .collect();
    topics.sort_unstable();
    topics.dedup();
    if topics.is_empty() {
        let message = format!(
            "group {group} has committed nothing for a topic that is there: say which to reset, with --topic"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(topics)
}

/// Each topic once, with those of its partitions that were named; none means all.
fn by_topic(named: Vec<Partitions>) -> Vec<(String, Vec<u32>)> {
    let mut topics: Vec<(String, Option<Vec<u32>>)> = Vec::new();
    for Partitions { topic, partition } in named {
        let index = topics.iter().position(|(known, _)| *known == topic).unwrap_or_else(|| {
            topics.push((topic, Some(Vec::new())));
            topics.len() - 1
        });
        let partitions = &mut topics[index].1;
        match partition {
            Some(partition) => {
                if let Some(some) = partitions.as_mut().filter(|some| !some.contains(&partition)) {
                    some.push(partition);
                }
            }
            None => *partitions = None,
        }
    }
    topics.into_iter().map(|(topic, partitions)| (topic, partitions.unwrap_or_default())).collect()
}

fn list(groups: &[GroupSummary], json: bool, output: &mut Output) -> Result<(), Failure> {
    if json {
        return groups.iter().try_for_each(|group| {
            output.json(&json!({
                "group": group.group,
                "state": group.state.to_string(),
                "member_count": group.member_count,
            }))
        });
    }
    if groups.is_empty() {
        return output.line("there are no groups yet; 'logmill consume TOPIC --group NAME' makes one");
    }
    let mut table = plain_table(["GROUP", "STATE", "MEMBERS"], &[2]);
    for group in groups {
        table.add_row([group.group.clone(), group.state.to_string(), group.member_count.to_string()]);
    }
    output.line(table.trim_fmt())
}

fn describe(group: &GroupDescription, output: &mut Output) -> Result<(), Failure> {
    let GroupDescription { members, unowned, offsets, not_committed, .. } = group;
    let lag: u64 = offsets.iter().filter_map(|offset| offset.lag_records).sum();
    output.line(format_args!("group    {}", group.group))?;
    output.line(format_args!("state    {}", group.state))?;
    output.line(format_args!("members  {}", members.len()))?;
    let known = offsets.iter().filter(|offset| offset.lag_records.is_some()).count();
    output.line(format_args!("lag      {}", lag_text(lag, known, not_committed.len())))?;
    if !members.is_empty() || !unowned.is_empty() {
        output.line("")?;
        let mut table = plain_table(["UNIT", "MEMBER", "EPOCH", "STATUS", "NEXT"], &[2]);
        for member in members {
            for unit in &member.units {
                table.add_row(unit_row(&name_of(member), unit));
            }
            if member.units.is_empty() {
                table.add_row(["-".to_owned(), name_of(member), String::new(), String::new(), String::new()]);
            }
        }
        for unit in unowned {
            table.add_row(unit_row("-", unit));
        }
        output.line(table.trim_fmt())?;
    }
    if offsets.is_empty() && not_committed.is_empty() {
        return Ok(());
    }
    output.line("")?;
    let mut table =
        plain_table(["TOPIC", "PARTITION", "OFFSET", "LAG", "WAITED", "COMMITTED"], &[1, 2, 3, 4]);
    let mut rows: Vec<_> =
        offsets.iter().map(|offset| (&offset.topic, offset.partition, Some(offset))).collect();
    rows.extend(not_committed.iter().map(|(topic, partition)| (topic, *partition, None)));
    rows.sort_by_key(|(topic, partition, _)| (*topic, *partition));
    for (topic, partition, offset) in rows {
        table.add_row(offset_row(topic, partition, offset));
    }
    output.line(table.trim_fmt())
}

fn offset_row(topic: &str, partition: u32, committed: Option<&GroupOffset>) -> [String; 6] {
    let Some(offset) = committed else {
        let [offset, lag, waited, committed] = ["-"; 4].map(ToOwned::to_owned);
        return [topic.to_owned(), partition.to_string(), offset, lag, waited, committed];
    };
    // Another topic may have its name by now.
    let is_deleted = offset.lag_records.is_none();
    [
        if is_deleted { format!("{topic} (deleted)") } else { topic.to_owned() },
        partition.to_string(),
        offset.offset.to_string(),
        offset.lag_records.map_or_else(|| "-".to_owned(), thousands),
        waited_text(offset),
        time_text(offset.committed_at),
    ]
}

/// The lag where something is committed for a topic that is there, and for how many partitions that is not so.
fn lag_text(lag: u64, known: usize, unknown: usize) -> String {
    let lag = match lag {
        0 => "0 records".to_owned(),
        lag => format!("at most {}", counted(lag, "record", "records")),
    };
    let partitions = |count: usize| counted(count as u64, "partition", "partitions");
    match (known, unknown) {
        (0, _) => "unknown: no offset is committed".to_owned(),
        (_, 0) => lag,
        _ => format!(
            "{lag} in {}; unknown for {} with no committed offset",
            partitions(known),
            partitions(unknown)
        ),
    }
}

/// Where nothing waits, nothing has waited.
fn waited_text(offset: &GroupOffset) -> String {
    let waits = offset.lag_records.is_some_and(|records| records > 0);
    let waited = offset.lag.filter(|_| waits).map(|lag| duration_text(lag.as_secs_f64()));
    waited.unwrap_or_else(|| "-".to_owned())
}

fn name_of(member: &GroupMember) -> String {
    let name = member.instance_id.as_ref().unwrap_or(&member.member_id);
    if member.connected { name.clone() } else { format!("{name} (away)") }
}

fn unit_row(member: &str, unit: &GroupUnit) -> [String; 5] {
    let next = unit.next_member.clone().unwrap_or_default();
    [unit.unit.clone(), member.to_owned(), unit.epoch.to_string(), unit.status.clone(), next]
}

fn group_json(group: &GroupDescription) -> Value {
    let member = |member: &GroupMember| {
        json!({
            "member_id": member.member_id,
            "instance_id": member.instance_id,
            "connected": member.connected,
            "units": member.units.iter().map(unit_json).collect::<Value>(),
        })
    };
    let partition = |(topic, partition): &(String, u32)| json!({ "topic": topic, "partition": partition });
    json!({
        "group": group.group,
        "state": group.state.to_string(),
        "members": group.members.iter().map(member).collect::<Value>(),
        "unowned": group.unowned.iter().map(unit_json).collect::<Value>(),
        "offsets": group.offsets.iter().map(offset_json).collect::<Value>(),
        "not_committed": group.not_committed.iter().map(partition).collect::<Value>(),
    })
}

fn unit_json(unit: &GroupUnit) -> Value {
    json!({
        "unit": unit.unit,
        "epoch": unit.epoch,
        "status": unit.status,
        "next_member": unit.next_member,
    })
}

fn offset_json(offset: &GroupOffset) -> Value {
    json!({
        "topic": offset.topic,
        "topic_id": offset.topic_id,
        "partition": offset.partition,
        "offset": offset.offset.get(),
        "metadata": offset.metadata,
        "committed_at_ms": offset.committed_at.0,
        "lag_records": offset.lag_records,
        "lag_ms": offset.lag.map(|lag| u64::try_from(lag.as_millis()).unwrap_or(u64::MAX)),
    })
}

fn reset_json(reset: &OffsetReset, executed: bool) -> Value {
    json!({
        "topic": reset.topic,
        "partition": reset.partition,
        "from": reset.from.map(Offset::get),
        "to": reset.to.get(),
        "executed": executed,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_may_be_named_with_one_of_its_partitions() {
        let parsed = |text| parse_partitions(text).map(|it| (it.topic, it.partition));
        assert_eq!(parsed("readings"), Ok(("readings".to_owned(), None)));
        assert_eq!(parsed("readings/3"), Ok(("readings".to_owned(), Some(3))));
        for wrong in ["readings/", "readings/x", "readings/-1"] {
            assert!(parsed(wrong).unwrap_err().contains("TOPIC/PARTITION"), "{wrong}");
        }
    }

    #[test]
    fn partitions_are_gathered_by_topic_and_a_topic_alone_is_all_of_them() {
        let named = ["a/1", "b", "a/2", "b/3", "a/1", "c/0", "c"].map(|text| parse_partitions(text).unwrap());
        let gathered = by_topic(named.to_vec());
        let expected = [("a", vec![1, 2]), ("b", vec![]), ("c", vec![])];
        assert_eq!(gathered, expected.map(|(topic, partitions)| (topic.to_owned(), partitions)));
    }
}
