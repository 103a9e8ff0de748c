//! Reading the results back: the table from the SQLite file, the dead letters from their topic.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use logmill_client::{Client, ErrorKind, Fetch, FetchFrom, FetchedRecord};
use rusqlite::{Connection, OpenFlags};

use super::SOURCE;
use super::pipeline::TABLE;
use super::report::{DeadReason, Row};
use crate::failure::{Exit, Failure};

/// Hands every record that the topic holds now to `look`; a topic that is not there has none.
pub(super) async fn each_record(
    client: &Client,
    topic: &str,
    mut look: impl FnMut(&FetchedRecord),
) -> Result<(), Failure> {
    let partitions = match client.describe_topic(topic).await {
        Ok(description) => description.partitions,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for info in partitions {
        let mut next = info.start_offset;
        while next < info.end_offset {
            let from = FetchFrom::new(topic, info.partition, next);
            for data in client.fetch(Fetch::from(from)).await? {
                if let Some(error) = data.error {
                    return Err(error.into());
                }
                for record in data.records() {
                    look(&record?);
                }
                next = data.next_offset;
            }
        }
    }
    Ok(())
}

/// What was set aside, and why.
pub(super) struct DeadLetters {
    pub(super) count: u64,
    /// The most frequent reason first.
    pub(super) reasons: Vec<DeadReason>,
}

/// Reads the pipeline's dead letters. A letter that was written again after a crash counts once.
pub(super) async fn dead_letters(client: &Client) -> Result<DeadLetters, Failure> {
    let mut seen = HashSet::new();
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    each_record(client, &format!("{SOURCE}.dead"), |letter| {
        let header = |name: &str| {
            let value = letter.headers.iter().rev().find(|(header, _)| header == name)?.1.as_ref()?;
            Some(String::from_utf8_lossy(value).into_owned())
        };
        let origin = (header("logmill.origin.partition"), header("logmill.origin.offset"));
        if seen.insert((origin, letter.key.clone(), letter.value.clone())) {
            *counts
                .entry(header("logmill.error").unwrap_or_else(|| "no reason given".to_owned()))
                .or_default() += 1;
        }
    })
    .await?;
    let mut reasons: Vec<_> =
        counts.into_iter().map(|(reason, count)| DeadReason { reason, count }).collect();
    reasons.sort_by_key(|reason| std::cmp::Reverse(reason.count));
    Ok(DeadLetters { count: reasons.iter().map(|reason| reason.count).sum(), reasons })
}

/// Reads the table from the SQLite file, in order of network and day.
pub(super) fn table(sqlite: &Path) -> Result<Vec<Row>, Failure> {
    let read = || -> rusqlite::Result<Vec<Row>> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(sqlite, flags)?;
        let query = format!("SELECT net, day, count, max_mag, mean_mag FROM {TABLE} ORDER BY net, day");
        let mut statement = connection.prepare(&query)?;
        let rows = statement.query_map([], |row| {
            Ok(Row {
                net: row.get(0)?,
                day: row.get(1)?,
                count: row.get(2)?,
                max_mag: row.get(3)?,
                mean_mag: row.get(4)?,
            })
        })?;
        rows.collect()
    };
    read().map_err(|error| {
        let file = sqlite.display();
        Failure::new(Exit::Failed, format!("cannot read the table {TABLE} in {file}: {error}"))
    })
}
