//! Places in a partition, and the offsets found there.

use logmill_proto::v1;
use logmill_proto::v1::position::{At, Edge};
use logmill_record::{Offset, TimestampMs};

use crate::convert::{offset_from, partition_from, partition_to};
use crate::{Client, Error, Isolation};

/// A place in a partition, for a reader to start at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Position {
    /// This offset: between the partition's start and its end, both included.
    Offset(Offset),
    /// The first record whose timestamp is at or after this time, be it committed or not; the partition's end if
    /// there is none.
    Time(TimestampMs),
    /// The first record that is still kept.
    Earliest,
    /// The end of what the reader sees: only records that it could not have read before. For one of committed
    /// records, that is the last stable offset: what is committed from now on lies behind it.
    Latest,
}

impl From<Offset> for Position {
    fn from(offset: Offset) -> Position {
        Position::Offset(offset)
    }
}

/// The offset at a place of a partition; from [`Client::list_offsets`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PartitionOffset {
    /// The partition's number.
    pub partition: u32,
    /// The offset: of the record found, or the partition's end.
    pub offset: Offset,
    /// The timestamp of the record found, for a place given by time that holds one.
    pub timestamp: Option<TimestampMs>,
}

impl Client {
    /// The offsets at given places of a topic's partitions, in the order asked for, for a reader of committed
    /// records.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) for an unknown topic or partition,
    /// [`OutOfRange`](crate::ErrorKind::OutOfRange) for an offset that the partition does not have, and those
    /// of every call.
    ///
    /// ```no_run
    /// use logmill_client::{Client, Position};
    /// use logmill_record::TimestampMs;
    ///
    /// # async fn example(client: Client) -> Result<(), logmill_client::Error> {
    /// let noon = Position::Time(TimestampMs(1_767_268_800_000));
    /// for found in client.list_offsets("orders", &[(0, noon), (1, noon)]).await? {
    ///     println!("partition {}: offset {}", found.partition, found.offset);
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn list_offsets(
        &self,
        topic: &str,
        positions: &[(u32, Position)],
    ) -> Result<Vec<PartitionOffset>, Error> {
        self.list_offsets_with(topic, positions, Isolation::ReadCommitted).await
    }

    /// As [`list_offsets`](Client::list_offsets), for a reader with this say on transactions: it decides what the
    /// [latest](Position::Latest) place is.
    ///
    /// # Errors
    /// As [`list_offsets`](Client::list_offsets).
    pub async fn list_offsets_with(
        &self,
        topic: &str,
        positions: &[(u32, Position)],
        isolation: Isolation,
    ) -> Result<Vec<PartitionOffset>, Error> {
        let positions = positions
            .iter()
            .map(|&(partition, position)| {
                let position = Some(position.into());
                Ok(v1::PartitionPosition { partition: partition_to(partition)?, position })
            })
            .collect::<Result<Vec<_>, Error>>()?;
        let asked = positions.len();
        let request =
            v1::ListOffsetsRequest { topic: topic.to_owned(), positions, isolation: isolation.into() };
        let reply = self.call("ListOffsets", self.topics_rpc().list_offsets(request)).await?;
        if reply.offsets.len() != asked {
            let got = reply.offsets.len();
            return Err(Error::nonsense(format!("{got} offsets for {asked} places")));
        }
        reply.offsets.into_iter().map(PartitionOffset::try_from).collect()
    }
}

impl From<Position> for v1::Position {
    fn from(position: Position) -> v1::Position {
        let at = match position {
            Position::Offset(offset) => At::Offset(offset.into()),
            Position::Time(TimestampMs(ms)) => At::TimestampMs(ms),
            Position::Earliest => At::Edge(Edge::Earliest.into()),
            Position::Latest => At::Edge(Edge::Latest.into()),
        };
        v1::Position { at: Some(at) }
    }
}

impl TryFrom<v1::PartitionOffset> for PartitionOffset {
    type Error = Error;

    fn try_from(found: v1::PartitionOffset) -> Result<PartitionOffset, Error> {
        Ok(PartitionOffset {
            partition: partition_from(found.partition)?,
            offset: offset_from(found.offset)?,
            timestamp: found.timestamp_ms.map(TimestampMs),
        })
    }
}
