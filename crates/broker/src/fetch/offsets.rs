//! Which offset is at a place of a partition.

use std::future::Future;

use super::cursor::locate;
use crate::access::{Operation, authorize};
use crate::broker::Broker;
use crate::context::RequestContext;
use crate::error::Error;
use crate::limits::Limit;
use crate::topic::{PartitionOffset, Position};

impl Broker {
    /// Finds the offsets at places of a topic's partitions, in the order asked.
    ///
    /// # Errors
    /// [`TopicNotFound`](crate::Reason::TopicNotFound),
    /// [`PartitionNotFound`](crate::Reason::PartitionNotFound),
    /// [`OffsetOutOfRange`](crate::Reason::OffsetOutOfRange) for an offset that is not between start and end,
    /// [`LimitExceeded`](crate::Reason::LimitExceeded).
    pub fn list_offsets(
        &self,
        context: &RequestContext,
        topic: &str,
        positions: Vec<(u32, Position)>,
    ) -> impl Future<Output = Result<Vec<PartitionOffset>, Error>> + Send + 'static + use<> {
        let count = positions.len();
        let doing = || format!("a search for {count} offsets");
        let bounds = &self.core().bounds;
        let found = authorize(context, &Operation::ListOffsets { topic })
            .and_then(|()| self.core().check_open())
            .and_then(|()| bounds.check(Limit::MaxPositions, count, doing, "ask in several requests"))
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
