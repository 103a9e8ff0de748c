//! Which offset is at a place of a partition.

use std::future::Future;
use std::sync::Arc;

use logmill_record::{Offset, TimestampMs};

use super::Isolation;
use super::place::locate;
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::catalog::TopicState;
use crate::context::RequestContext;
use crate::error::Error;
use crate::limits::Limit;
use crate::topic::{PartitionOffset, Position};

impl Broker {
    /// Finds the offsets at places of a topic's partitions, in the order asked, for a reader of committed records:
    /// the latest is where one that starts now begins, which is the last stable offset.
    ///
    /// # Errors
    /// As [`list_offsets_with`](Broker::list_offsets_with).
    pub fn list_offsets(
        &self,
        context: &RequestContext,
        topic: &str,
        positions: Vec<(u32, Position)>,
    ) -> impl Future<Output = Result<Vec<PartitionOffset>, Error>> + Send + 'static + use<> {
        self.list_offsets_with(context, topic, positions, Isolation::ReadCommitted)
    }

    /// As [`list_offsets`](Broker::list_offsets), for a reader with this say on transactions.
    ///
    /// # Errors
    /// [`TopicNotFound`](crate::Reason::TopicNotFound),
    /// [`PartitionNotFound`](crate::Reason::PartitionNotFound),
    /// [`OffsetOutOfRange`](crate::Reason::OffsetOutOfRange) for an offset that is not between start and end,
    /// [`LimitExceeded`](crate::Reason::LimitExceeded).
    pub fn list_offsets_with(
        &self,
        context: &RequestContext,
        topic: &str,
        positions: Vec<(u32, Position)>,
        isolation: Isolation,
    ) -> impl Future<Output = Result<Vec<PartitionOffset>, Error>> + Send + 'static + use<> {
        let count = positions.len();
        let doing = || format!("a search for {count} offsets");
        let bounds = &self.core().bounds;
        let found = authorize(context, &Operation::ListOffsets { topic })
            .and_then(|()| self.core().check_open())
            .and_then(|()| bounds.check(Limit::MaxPositions, count, doing, "ask in several requests"))
            .and_then(|()| self.core().catalog.topic(topic));
        let core = Arc::clone(self.core());
        async move {
            let topic = found?;
            let mut offsets = Vec::with_capacity(positions.len());
            for (partition, position) in positions {
                let (offset, timestamp) = find(&core, &topic, (partition, position), isolation).await?;
                offsets.push(PartitionOffset { partition, offset, timestamp });
            }
            Ok(offsets)
        }
    }
}

/// The offset at a position, and the timestamp there if it was found by time, which takes a search.
async fn find(
    core: &Arc<Core>,
    topic: &Arc<TopicState>,
    (number, position): (u32, Position),
    isolation: Isolation,
) -> Result<(Offset, Option<TimestampMs>), Error> {
    let partition = topic.partition(number)?;
    if !matches!(position, Position::Time(_)) {
        return locate(partition, position, isolation);
    }
    let turn = partition.reads().take().await;
    let topic = Arc::clone(topic);
    let search = move |_: &_| {
        let _turn = turn;
        locate(topic.partition(number)?, position, isolation)
    };
    core.read("a search for offsets", search).await
}
