//! Fetch: reading from partitions, once.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_proto::v1;
use logmill_record::Offset;

use crate::convert::{limit_to, partition_to};
use crate::{Client, Error, Isolation, PartitionData, Position};

/// What to read, once; for [`Client::fetch`].
///
/// ```
/// use std::time::Duration;
/// use logmill_client::{Fetch, FetchFrom, Position};
///
/// let fetch = Fetch {
///     max_wait: Duration::from_secs(5),
///     ..Fetch::from(FetchFrom::new("orders", 0, Position::Earliest))
/// };
/// assert_eq!(fetch.partitions.len(), 1);
/// ```
#[derive(Clone, Debug)]
pub struct Fetch {
    /// The partitions and where to read in each; at least one, each partition once.
    pub partitions: Vec<FetchFrom>,
    /// At most about so many bytes of records; the first batch comes even if it is larger. 1 MiB unless set,
    /// and at most 3,900,000.
    pub max_bytes: usize,
    /// Wait for so many bytes; 1 unless set.
    pub min_bytes: usize,
    /// Wait at most so long, up to a minute; not at all unless set.
    pub max_wait: Duration,
    /// Which records of transactions to read; committed ones unless set.
    pub isolation: Isolation,
}

/// A partition and where to read in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FetchFrom {
    /// The topic's name.
    pub topic: String,
    /// The partition's number.
    pub partition: u32,
    /// Where to read.
    pub position: Position,
    /// For a reader that goes on at an offset: the [`last_epoch`](PartitionData::last_epoch) that came with what
    /// it has. Should the partition have lost that, the answer is [`Truncated`](crate::ErrorKind::Truncated).
    /// [`PartitionData::go_on`] fills it in.
    pub last_epoch: Option<i32>,
    /// For a reader that goes on: the [`topic_id`](PartitionData::topic_id) that came with what it has. Should that
    /// topic have been deleted and another created under its name, the answer is
    /// [`NotFound`](crate::ErrorKind::NotFound). [`PartitionData::go_on`] fills it in.
    pub topic_id: Option<String>,
}

impl FetchFrom {
    /// Reads `topic`'s `partition` from `position` on, having read nothing before.
    #[must_use]
    pub fn new(topic: impl Into<String>, partition: u32, position: impl Into<Position>) -> FetchFrom {
        let (topic, position) = (topic.into(), position.into());
        FetchFrom { topic, partition, position, last_epoch: None, topic_id: None }
    }

    pub(crate) fn to_proto(&self, max_bytes: i32) -> Result<v1::FetchPartition, Error> {
        Ok(v1::FetchPartition {
            topic: self.topic.clone(),
            partition: partition_to(self.partition)?,
            position: Some(self.position.into()),
            max_bytes,
            last_epoch: self.last_epoch.filter(|_| matches!(self.position, Position::Offset(_))),
            topic_id: self.topic_id.clone(),
        })
    }
}

impl Default for Fetch {
    fn default() -> Fetch {
        let (max_wait, isolation) = (Duration::ZERO, Isolation::default());
        Fetch { partitions: Vec::new(), max_bytes: 1 << 20, min_bytes: 1, max_wait, isolation }
    }
}

impl From<FetchFrom> for Fetch {
    fn from(from: FetchFrom) -> Fetch {
        Fetch::from(vec![from])
    }
}

impl From<Vec<FetchFrom>> for Fetch {
    fn from(partitions: Vec<FetchFrom>) -> Fetch {
        Fetch { partitions, ..Fetch::default() }
    }
}

impl Client {
    /// Reads from partitions, once: what there is, which after `max_wait` may be nothing. One entry for each
    /// partition asked for, in the same order; one that cannot be read carries its
    /// [error](PartitionData::error) and does not hold up the others. A position by time is looked up
    /// first, which all of them wait for.
    ///
    /// # Errors
    /// Those of every call, and those of the look-up of a position by time, for the whole call:
    /// [`NotFound`](crate::ErrorKind::NotFound) if its partition is not there, for instance.
    ///
    /// ```no_run
    /// use logmill_client::{Client, Fetch, FetchFrom, Position};
    ///
    /// # async fn example(client: Client) -> Result<(), logmill_client::Error> {
    /// let from = FetchFrom::new("orders", 0, Position::Earliest);
    /// for data in client.fetch(from.into()).await? {
    ///     for record in data.records() {
    ///         let record = record?;
    ///         println!("{}: {:?}", record.offset, record.value);
    ///     }
    ///     println!("to be continued with {:?}", data.go_on());
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn fetch(&self, mut fetch: Fetch) -> Result<Vec<PartitionData>, Error> {
        let by_time = |position| matches!(position, Position::Time(_));
        self.resolve(&mut fetch.partitions, fetch.isolation, by_time).await?;
        let partitions =
            fetch.partitions.iter().map(|from| from.to_proto(0)).collect::<Result<Vec<_>, Error>>()?;
        let max_wait_ms = i32::try_from(fetch.max_wait.as_millis()).unwrap_or(i32::MAX);
        let request = v1::FetchRequest {
            partitions,
            max_bytes: limit_to(fetch.max_bytes),
            min_bytes: limit_to(fetch.min_bytes),
            max_wait_ms,
            format: v1::Format::Batches.into(),
            isolation: fetch.isolation.into(),
        };
        let limit = self.request_timeout().saturating_add(fetch.max_wait);
        let reply = self.call_within(limit, "Fetch", self.fetch_rpc().fetch(request)).await?;
        if reply.partitions.len() != fetch.partitions.len() {
            let (got, asked) = (reply.partitions.len(), fetch.partitions.len());
            return Err(Error::nonsense(format!("data of {got} partitions, asked for {asked}")));
        }
        let answers = fetch.partitions.iter().zip(reply.partitions);
        answers.map(|(asked, data)| PartitionData::received(data, asked.floor())).collect()
    }

    /// Looks up the offsets of those positions that `which` names. Stored batches come whole, so a reader has
    /// to know its exact offset to leave out what lies before it, and to go on there after a break.
    pub(crate) async fn resolve(
        &self,
        partitions: &mut [FetchFrom],
        isolation: Isolation,
        which: impl Fn(Position) -> bool,
    ) -> Result<(), Error> {
        let mut by_topic: BTreeMap<String, Vec<&mut FetchFrom>> = BTreeMap::new();
        for from in partitions.iter_mut().filter(|from| which(from.position)) {
            by_topic.entry(from.topic.clone()).or_default().push(from);
        }
        for (topic, partitions) in by_topic {
            let asked: Vec<_> = partitions.iter().map(|from| (from.partition, from.position)).collect();
            let found = self.list_offsets_with(&topic, &asked, isolation).await?;
            for (from, found) in partitions.into_iter().zip(found) {
                from.position = Position::Offset(found.offset);
            }
        }
        Ok(())
    }
}

impl FetchFrom {
    /// The offset before which nothing was asked for.
    pub(crate) fn floor(&self) -> Offset {
        match self.position {
            Position::Offset(offset) => offset,
            // What lies before the start is left out by `PartitionData`; the end is the end of a batch.
            Position::Earliest | Position::Latest | Position::Time(_) => Offset::ZERO,
        }
    }
}
