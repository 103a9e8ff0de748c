//! A member that writes what it reads to another topic, a few records in a step.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_client::{
    Client, CommittedStep, Consumer, ConsumerEvent, Error, ErrorKind, OffsetToCommit, ProducerRecord, Step,
    UnitEpoch, UnitRecords,
};
use logmill_record::Offset;

use crate::say;

/// So few that what comes at once takes many steps, and whoever is frozen has some left to try.
const RECORDS_IN_STEP: usize = 5;

/// Until it is ended from outside. A line says what happened, the unit, and the epoch.
pub(crate) async fn work(
    url: &str,
    group: &str,
    (from, to): (&str, &str),
    session_ms: u64,
    instance_id: Option<&str>,
) -> Result<(), Error> {
    let (client, mut consumer) = loop {
        let session = Duration::from_millis(session_ms);
        match join(url, group, from, session, instance_id).await {
            // Its node may have been killed just now.
            Err(error) if error.kind() == ErrorKind::Unavailable => {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            joined => break joined?,
        }
    };
    let mut sequences = BTreeMap::new();
    while let Some(event) = consumer.next().await {
        match event? {
            ConsumerEvent::Assigned(assignment) => {
                say(&format!("assigned {}", name(&assignment.unit)));
                let next = assignment.last_step.map_or(0, |last| last + 1);
                sequences.insert(assignment.unit, next);
            }
            ConsumerEvent::Records(records) => {
                let sequence = sequences.get_mut(&records.unit).expect("it was assigned");
                commit(&client, group, to, &records, sequence).await?;
            }
            ConsumerEvent::Revoke(unit) => say(&format!("revoked {}", name(&unit))),
            ConsumerEvent::Lost { unit, .. } => say(&format!("lost {}", name(&unit))),
            other => panic!("{other:?}"),
        }
    }
    Ok(())
}

async fn join(
    url: &str,
    group: &str,
    from: &str,
    session: Duration,
    instance_id: Option<&str>,
) -> Result<(Client, Consumer), Error> {
    let client = Client::connect(url).await?;
    let mut consumer = client.consumer(group).topics([from]).auto_commit(false).session_timeout(session);
    if let Some(id) = instance_id {
        consumer = consumer.instance_id(id);
    }
    let consumer = consumer.join().await?;
    Ok((client, consumer))
}

fn name(unit: &UnitEpoch) -> String {
    format!("{} {}", unit.unit, unit.epoch)
}

/// Each record goes to the partition of the same number, with the epoch in which it was read.
async fn commit(
    client: &Client,
    group: &str,
    to: &str,
    records: &UnitRecords,
    sequence: &mut i64,
) -> Result<(), Error> {
    let (topic, partition) = (&records.data.topic, records.data.partition);
    let read = records.data.records().collect::<Result<Vec<_>, _>>()?;
    for part in read.chunks(RECORDS_IN_STEP) {
        let [.., last] = part else { continue };
        let next = OffsetToCommit::new(topic.clone(), partition, Offset(last.offset.get() + 1));
        let mut step = Step::new(group, records.unit.clone(), *sequence).offset(next);
        for record in part {
            let value = record.value.as_deref().unwrap_or_default();
            let value = format!("{} {}", String::from_utf8_lossy(value), records.unit.epoch);
            step.push(ProducerRecord::new(to, value).partition(partition))?;
        }
        match committed(client, &step).await {
            Ok(_) => say(&format!("step {}", name(&records.unit))),
            Err(error) if error.reason() == "STALE_ASSIGNMENT" => {
                say(&format!("refused {}", name(&records.unit)));
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        *sequence += 1;
    }
    Ok(())
}

/// Asks again until it is known.
async fn committed(client: &Client, step: &Step) -> Result<CommittedStep, Error> {
    loop {
        match client.commit_step(step).await {
            Err(error) if error.kind() == ErrorKind::OutcomeUnknown => {}
            known => return known,
        }
    }
}
