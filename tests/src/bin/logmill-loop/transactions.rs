//! A producer of transactions of a few records each.

use logmill_client::{Client, Error, ProducerRecord, TransactionalOptions};

use crate::say;

/// In a transaction, one for each of the partitions 0 and 1 in turn.
const RECORDS: u32 = 6;

/// Until it is ended from outside, or fenced.
pub(crate) async fn work(url: &str, id: &str, topic: &str, name: &str) -> Result<(), Error> {
    let client = Client::connect(url).await?;
    let mut producer = client.transactional_producer(id, TransactionalOptions::default()).await?;
    for number in 0.. {
        for index in 0..RECORDS {
            let record = ProducerRecord::new(topic, format!("{name} {number} {index}")).partition(index % 2);
            // Each is answered before the next, so that a transaction is open most of the time.
            let stored = match producer.send(record).await {
                Ok(delivery) => delivery.await.map(drop),
                Err(error) => Err(error),
            };
            if let Err(error) = stored {
                // Whether it is over with this producer is what the commit says.
                say(&format!("failed {}", error.reason()));
                break;
            }
            say("stored");
        }
        producer.commit().await?;
        say(&format!("committed {number}"));
    }
    Ok(())
}
