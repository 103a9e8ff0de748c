//! Which offset is at a place of a partition.

use std::future::Future;

use super::cursor::locate;
use crate::access::{Operation, authorize};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error::Error;
use crate::topic::{PartitionOffset, Position};

/// The most places in one request.
const MAX_POSITIONS: usize = 10_000;

impl Broker {
    /// Finds the offsets at places of a topic's partitions, in the order asked.
    ///
    /// # Errors
    /// [`TopicNotFound`](crate::Reason::TopicNotFound),
    /// [`PartitionNotFound`](crate::Reason::PartitionNotFound),
    /// [`OffsetOutOfRange`](crate::Reason::OffsetOutOfRange) for an offset that is not between start and end.
    pub fn list_offsets(
        &self,
        context: &RequestContext,
        topic: &str,
        positions: Vec<(u32, Position)>,
    ) -> impl Future<Output = Result<Vec<PartitionOffset>, Error>> + Send + 'static + use<> {
        let found = authorize(context, &Operation::ListOffsets { topic })
            .and_then(|()| self.core().check_open())
            .and_then(|()| check_count(positions.len()))
            .and_then(|()| self.core().catalog.topic(topic));
        self.core().read(found, "a search for offsets", move |_, topic| {
            let find = |(number, position)| {
                let partition = topic.partition(number)?;
                let (offset, timestamp) = locate(partition, position)?;
                Ok(PartitionOffset { partition: number, offset, timestamp })
            };
            positions.into_iter().map(find).collect()
        })
    }
}

fn check_count(positions: usize) -> Result<(), Error> {
    if positions <= MAX_POSITIONS {
        return Ok(());
    }
    let doing = format!("a search for {positions} offsets");
    Err(Error::limit("max_positions", MAX_POSITIONS, &doing, "ask in several requests"))
}
