//! Deleting the oldest records of partitions.
//!
//! A partition's start moves on, and whole segments below it go. That waits for the partition's disk, so each
//! partition has a queue of its own for it: one that hangs holds up no other, and one thread at most. Its places are
//! few and its own too: a deletion keeps its place when its caller has given up, and may be asked for again and again.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::Arc;

use logmill_log::ErrorKind;
use logmill_log::env::Work;
use logmill_record::Offset;

use super::state::{OffsetRange, Partition};
use crate::access::{Operation, authorize};
use crate::broker::{Broker, Core};
use crate::budget::{Budget, Permit};
use crate::context::RequestContext;
use crate::error::{Error, PartitionName};
use crate::exec::{Receiver, Serial, reply};
use crate::limits::Limit;

/// The oldest records of a topic's partitions are to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRecords {
    /// The topic's name.
    pub topic: String,
    /// Which partitions, and the offset before which records go; `None` is the partition's end when its turn
    /// comes.
    pub partitions: Vec<(u32, Option<Offset>)>,
}

/// What became of a partition's oldest records.
#[derive(Clone, Debug)]
pub struct DeletedRecords {
    /// The partition's number.
    pub partition: u32,
    /// Where the partition starts now: at the offset asked for, or where it started already if that is later.
    pub outcome: Result<Offset, Error>,
}

impl Broker {
    /// Deletes the oldest records of partitions, with an answer for each, in order of their numbers. They stay
    /// deleted when the answer comes; the space of whole segments is free then.
    ///
    /// # Errors
    /// [`TopicNotFound`](crate::Reason::TopicNotFound),
    /// [`PartitionNotFound`](crate::Reason::PartitionNotFound),
    /// [`LimitExceeded`](crate::Reason::LimitExceeded), and then nothing is deleted. What goes wrong with one
    /// partition stands in its result, such as [`OffsetOutOfRange`](crate::Reason::OffsetOutOfRange) for an
    /// offset beyond its end.
    ///
    /// ```
    /// use logmill_broker::{Broker, Config, CreateTopic, DeleteRecords, RequestContext};
    /// use logmill_log::env::block_on;
    ///
    /// # let dir = tempfile::tempdir()?;
    /// let config = Config::new(dir.path());
    /// let scheduler = config.env.scheduler.clone();
    /// let broker = Broker::open(config)?;
    /// let context = RequestContext::embedded();
    /// block_on(&*scheduler, broker.create_topic(&context, CreateTopic::new("readings")))?;
    ///
    /// let all = DeleteRecords { topic: "readings".into(), partitions: vec![(0, None)] };
    /// let deleted = block_on(&*scheduler, broker.delete_records(&context, all))?;
    /// assert_eq!(deleted[0].outcome.as_ref().unwrap().get(), 0); // there were none
    /// broker.close()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn delete_records(
        &self,
        context: &RequestContext,
        request: DeleteRecords,
    ) -> impl Future<Output = Result<Vec<DeletedRecords>, Error>> + Send + 'static + use<> {
        let allowed = authorize(context, &Operation::DeleteRecords { topic: &request.topic });
        let begun =
            allowed.and_then(|()| self.core().check_open()).and_then(|()| begin(self.core(), request));
        async move {
            let mut results = Vec::new();
            for (partition, answer) in begun? {
                let outcome = answer.await.unwrap_or_else(|_| Err(Error::fault("a deletion of records")));
                results.push(DeletedRecords { partition, outcome });
            }
            Ok(results)
        }
    }
}

/// A partition's deletions of records: one runs at a time, and few wait.
#[derive(Debug)]
pub(super) struct Deletions {
    queue: Arc<Serial>,
    places: Budget,
}

impl Deletions {
    pub(super) fn new(core: &Core) -> Self {
        let queue = Serial::new(Arc::clone(&core.config.env.scheduler), Work::Append);
        Self { queue, places: core.bounds.budget(Limit::MaxPartitionDeletions) }
    }

    fn take_place(&self, name: &PartitionName) -> Result<Permit, Error> {
        let doing = || format!("another deletion of records of {name}");
        let advice =
            "the disk has not answered those before it; look at the disk if it stays so, and try again";
        let place = self.places.take_for(1, doing, advice);
        place.map_err(|error| error.with("topic", &name.topic).with("partition", name.partition))
    }
}

type Answers = Vec<(u32, Receiver<Result<Offset, Error>>)>;

/// Puts each partition's deletion into its queue. All of them, or an error and none.
fn begin(core: &Arc<Core>, request: DeleteRecords) -> Result<Answers, Error> {
    let DeleteRecords { topic, partitions } = request;
    let topic = core.catalog.topic(&topic)?;
    let mut asked = BTreeMap::new();
    for (number, before) in partitions {
        if asked.insert(number, (topic.share(number)?, before)).is_some() {
            return Err(Error::field("partition", number, "each is named once"));
        }
    }
    let place = |(partition, _): &(Arc<Partition>, _)| partition.deletions(core).take_place(partition.name());
    let places = asked.values().map(place).collect::<Result<Vec<_>, _>>()?;
    let mut answers = Answers::new();
    for ((number, (partition, before)), place) in asked.into_iter().zip(places) {
        let (sender, receiver) = reply();
        let deleted = Arc::clone(&partition);
        // A close waits for it.
        let held = (place, core.background.take(1));
        partition.deletions(core).queue.push(Box::new(move || {
            let outcome = delete_before(&deleted, before);
            // Before the answer: whoever has it may send another.
            drop(held);
            sender.send(outcome);
        }));
        answers.push((number, receiver));
    }
    Ok(answers)
}

fn delete_before(partition: &Partition, before: Option<Offset>) -> Result<Offset, Error> {
    let log = partition.log()?;
    let before = before.unwrap_or_else(|| log.end_offset());
    log.set_start_offset(before).map_err(|error| match error.kind() {
        ErrorKind::OutOfRange => {
            let OffsetRange { start, end, .. } = partition.range();
            partition.name().out_of_range(before, start, end)
        }
        _ => partition.explain(&error),
    })
}
