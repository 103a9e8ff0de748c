//! Receiving: every record is looked at.

use logmill_client::{Client, FetchFrom, PartitionData, Position, Subscribe, Subscription};
use logmill_record::Inflater;

use super::payload;
use crate::failure::{Exit, Failure};

/// Reads all partitions of a topic from the start.
pub(super) async fn subscribe(
    client: &Client,
    topic: &str,
    partitions: u32,
    credit_bytes: usize,
) -> Result<Subscription, Failure> {
    let all = (0..partitions).map(|partition| FetchFrom::new(topic, partition, Position::Earliest));
    let subscribe = Subscribe { credit_bytes, ..Subscribe::from(all.collect::<Vec<_>>()) };
    Ok(client.subscribe(subscribe).await?)
}

/// Hands out when each record was due; returns how many there were. A record of another size than was
/// sent ends the bench.
pub(super) fn look_at(
    data: &PartitionData,
    record_bytes: usize,
    inflater: &mut Inflater,
    mut each: impl FnMut(std::time::Duration),
) -> Result<u64, Failure> {
    if let Some(error) = &data.error {
        return Err(Failure::new(Exit::Failed, format!("{}/{}: {error}", data.topic, data.partition)));
    }
    let wrong = |what: String| {
        let place = format!("{}/{} before offset {}", data.topic, data.partition, data.next_offset);
        Failure::new(Exit::Failed, format!("{place}: {what}"))
    };
    let mut count = 0;
    for chunk in &data.chunks {
        for batch in chunk.batches() {
            let batch = batch.map_err(|error| wrong(error.to_string()))?;
            for record in batch.records_with(inflater).map_err(|error| wrong(error.to_string()))? {
                let record = record.map_err(|error| wrong(error.to_string()))?;
                let value = record.value.filter(|value| value.len() == record_bytes);
                let due = value.and_then(payload::due).ok_or_else(|| {
                    wrong("a record that was not sent by this bench; has the topic another producer?".into())
                })?;
                each(due);
                count += 1;
            }
        }
    }
    Ok(count)
}
