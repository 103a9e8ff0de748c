//! The consumer: a member of a group, which is given records of its share of the partitions.
//!
//! A task, the [driver], keeps the member's stream open, gives signs of life and takes in what the node says; the
//! [state] decides what is handed out, committed and given up. The reader takes events and records out of the state when
//! it asks for them. What the node may send ahead is bounded by credit.

mod driver;
mod event;
mod state;
mod unit;

pub use event::{AssignedPartition, Assignment, ConsumerEvent, LostReason, UnitRecords};

use std::sync::Arc;
use std::time::Duration;

use logmill_proto::v1;
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{timeout, timeout_at};

use crate::clock::deadline_in;
use crate::convert::partition_to;
use crate::{Client, Error, Isolation, OffsetToCommit, UnitEpoch};
use driver::Shared;
use state::State;

/// How long a node may take to end the stream of a consumer that leaves.
const GOODBYE: Duration = Duration::from_secs(5);
/// As long is tried to tell it where there is no stream.
const GOODBYE_UNHEARD: Duration = Duration::from_secs(1);

/// A consumer that is about to join its group; from [`Client::consumer`].
#[derive(Clone, Debug)]
#[must_use = "it is no member before `join`"]
pub struct ConsumerBuilder {
    client: Client,
    join: v1::JoinGroup,
    /// A partition that there cannot be.
    wrong: Option<Error>,
    auto_commit: bool,
    reconnect_timeout: Duration,
}

impl Client {
    /// A consumer that shares its work with the other members of `group`.
    ///
    /// ```no_run
    /// use logmill_client::{Client, ConsumerEvent};
    ///
    /// # async fn example(client: Client) -> Result<(), logmill_client::Error> {
    /// let mut consumer = client.consumer("alarms").topics(["readings"]).join().await?;
    /// while let Some(event) = consumer.next().await {
    ///     if let ConsumerEvent::Records(records) = event? {
    ///         for record in records.data.records() {
    ///             println!("{}: {:?}", records.unit, record?.value);
    ///         }
    ///     }
    /// }
    /// consumer.close().await
    /// # }
    /// ```
    pub fn consumer(&self, group: &str) -> ConsumerBuilder {
        let join = v1::JoinGroup {
            group: group.to_owned(),
            credit_bytes: 4 << 20,
            format: v1::Format::Batches.into(),
            ..v1::JoinGroup::default()
        };
        ConsumerBuilder {
            client: self.clone(),
            join,
            wrong: None,
            auto_commit: true,
            reconnect_timeout: Duration::from_secs(60),
        }
    }
}

impl ConsumerBuilder {
    /// The topics of which it wants partitions: each is a unit, named `topic/partition`. A topic may be made later.
    /// Either this or [`units`](ConsumerBuilder::units), and the same for all members of the group.
    pub fn topics<T: Into<String>>(mut self, topics: impl IntoIterator<Item = T>) -> ConsumerBuilder {
        self.join.topics.extend(topics.into_iter().map(Into::into));
        self
    }

    /// The units that it can work on, each a name and its topics and partitions. All members declare the same.
    ///
    /// ```no_run
    /// # async fn example(client: logmill_client::Client) -> Result<(), logmill_client::Error> {
    /// let of = |partition| vec![("orders", partition), ("payments", partition)];
    /// let units = (0..4).map(|partition| (format!("join-{partition}"), of(partition)));
    /// let consumer = client.consumer("billing").units(units).join().await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn units<N: Into<String>, T: Into<String>>(
        mut self,
        units: impl IntoIterator<Item = (N, Vec<(T, u32)>)>,
    ) -> ConsumerBuilder {
        for (name, partitions) in units {
            let of = |(topic, partition): (T, u32)| {
                Ok(v1::TopicPartition { topic: topic.into(), partition: partition_to(partition)? })
            };
            match partitions.into_iter().map(of).collect::<Result<_, Error>>() {
                Ok(partitions) => self.join.units.push(v1::Unit { name: name.into(), partitions }),
                Err(error) => self.wrong = Some(error),
            }
        }
        self
    }

    /// Whether what was handed out is committed by itself when the next is asked for, of a unit every ten milliseconds at
    /// most; so unless set to `false`.
    pub fn auto_commit(mut self, auto_commit: bool) -> ConsumerBuilder {
        self.auto_commit = auto_commit;
        self
    }

    /// The place of a static member: whoever joins with it succeeds who had it before, and no other unit moves for it.
    pub fn instance_id(mut self, instance_id: impl Into<String>) -> ConsumerBuilder {
        self.join.instance_id = Some(instance_id.into());
        self
    }

    /// Begin at the end of partitions for which nothing is committed, and not at their first record. That place is
    /// committed before the consumer hears of the partition: nothing is passed over if it breaks off before it commits.
    pub fn start_at_latest(mut self) -> ConsumerBuilder {
        self.join.start = Some(v1::position::Edge::Latest.into());
        self
    }

    /// How long it keeps its units while the node does not hear of it, from 1 s to 30 min; 30 s unless set.
    pub fn session_timeout(mut self, timeout: Duration) -> ConsumerBuilder {
        self.join.session_timeout_ms = Some(millis(timeout));
        self
    }

    /// How long it may take to give up a unit, from 1 s to 30 min; 60 s unless set. A handler that takes longer for what
    /// it was given last loses the unit.
    pub fn rebalance_timeout(mut self, timeout: Duration) -> ConsumerBuilder {
        self.join.rebalance_timeout_ms = Some(millis(timeout));
        self
    }

    /// Whether it is told before a unit comes, so that it can prepare; not unless set.
    pub fn warms_up(mut self, warms_up: bool) -> ConsumerBuilder {
        self.join.warms_up = warms_up;
        self
    }

    /// How many bytes of batches the node may send ahead; 4 MiB unless set. With 0 it sends none, for a consumer that
    /// reads by itself.
    pub fn credit_bytes(mut self, bytes: usize) -> ConsumerBuilder {
        self.join.credit_bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        self
    }

    /// Which records of transactions to read; committed ones unless set.
    pub fn isolation(mut self, isolation: Isolation) -> ConsumerBuilder {
        self.join.isolation = isolation.into();
        self
    }

    /// For how long a broken connection is tried again before [`next`](Consumer::next) reports it; a minute unless set.
    pub fn reconnect_timeout(mut self, timeout: Duration) -> ConsumerBuilder {
        self.reconnect_timeout = timeout;
        self
    }

    /// Joins the group.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a name or a time that is not allowed, and without topics or units;
    /// [`Conflict`](crate::ErrorKind::Conflict) for a group that is divided in another way (`GROUP_MISMATCH`); and those
    /// of every call.
    pub async fn join(self) -> Result<Consumer, Error> {
        let ConsumerBuilder { client, join, wrong, auto_commit, reconnect_timeout } = self;
        if let Some(error) = wrong {
            return Err(error);
        }
        let runtime = client.runtime().clone();
        let shared = Arc::new(Shared {
            client,
            reconnect_timeout,
            state: Mutex::new(State::new(join, auto_commit)),
            news: Notify::new(),
            settled: Notify::new(),
            done: Notify::new(),
        });
        let replies = driver::open(&shared).await?;
        let driver = runtime.spawn(driver::run(Arc::clone(&shared), replies));
        Ok(Consumer { committer: Committer(Arc::clone(&shared)), shared, driver: Some(driver) })
    }
}

fn millis(time: Duration) -> i32 {
    i32::try_from(time.as_millis()).unwrap_or(i32::MAX)
}

/// A member of a group; from [`ConsumerBuilder::join`].
///
/// Each unit of the group belongs to one member at a time. Records of it come in order, and each goes to the handler at
/// least once: again, if the handler's end, a crash say, comes before the commit. A handler may take as long as it wants:
/// signs of life are given by a task of its own, which needs a thread of the runtime that the handler does not block.
///
/// Unless [`auto_commit`](ConsumerBuilder::auto_commit) is off, what was handed out counts as done when
/// [`next`](Consumer::next) is called again, and is committed then, or ten milliseconds after the last commit of its unit.
/// So it is when a unit is given up, and at the [`close`](Consumer::close), without that pause. Dropped without a close,
/// a consumer keeps its units until its session is over.
#[derive(Debug)]
pub struct Consumer {
    shared: Arc<Shared>,
    committer: Committer,
    driver: Option<JoinHandle<()>>,
}

impl Consumer {
    /// What happens next: records, or something about the units; waits as long as there is nothing.
    ///
    /// Dropping the future loses nothing. A broken connection comes back by itself, and the consumer keeps its units if
    /// that is within its session.
    ///
    /// # Errors
    /// An error that waiting may heal comes after `reconnect_timeout` of trying, and the refusal of a commit that cannot
    /// succeed before anything else; after both it goes on. Any other error is the last item, such as `MEMBER_UNKNOWN` when another member has
    /// come with its instance id; then comes `None`.
    pub async fn next(&mut self) -> Option<Result<ConsumerEvent, Error>> {
        let commits_later = self.shared.change(|state| {
            state.handled();
            state.commit_due().is_some()
        });
        if commits_later {
            self.shared.done.notify_one();
        }
        loop {
            {
                let mut state = self.shared.state.lock();
                if let Some(event) = state.pop() {
                    return Some(event);
                }
                if state.over {
                    return None;
                }
            }
            self.shared.news.notified().await;
        }
    }

    /// Commits where the group is to go on in partitions of a unit; on disk when this returns.
    ///
    /// # Errors
    /// As [`Committer::commit`].
    ///
    /// ```no_run
    /// use logmill_client::{Consumer, ConsumerEvent, OffsetToCommit};
    ///
    /// # async fn example(mut consumer: Consumer) -> Result<(), logmill_client::Error> {
    /// while let Some(event) = consumer.next().await {
    ///     if let ConsumerEvent::Records(records) = event? {
    ///         // … what is to be done with them; then:
    ///         consumer.commit(&records.unit, &[OffsetToCommit::from(&records.data)]).await?;
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn commit(&self, unit: &UnitEpoch, offsets: &[OffsetToCommit]) -> Result<(), Error> {
        self.committer.commit(unit, offsets).await
    }

    /// What commits for this consumer, for other tasks.
    #[must_use]
    pub fn committer(&self) -> Committer {
        self.committer.clone()
    }

    /// Its id among the members of the group.
    #[must_use]
    pub fn member_id(&self) -> String {
        self.shared.state.lock().member_id().to_owned()
    }

    /// Commits what was handed out, unless commits are manual, and leaves the group, so that the others have its units at
    /// once.
    ///
    /// # Errors
    /// What was handed out could not be committed, and may come to another member. Or all of it is committed and the node
    /// could not be told that the consumer leaves ([`Unavailable`](crate::ErrorKind::Unavailable)): the others have its
    /// units when its session is over.
    pub async fn close(mut self) -> Result<(), Error> {
        let deadline = deadline_in(self.shared.client.request_timeout());
        self.shared.change(State::close);
        let settled = async {
            while !self.shared.state.lock().is_settled() {
                self.shared.settled.notified().await;
            }
        };
        let is_late = timeout_at(deadline, settled).await.is_err();
        let (failure, was_over, is_joined) = self.shared.change(|state| {
            let was_over = state.over;
            state.leave();
            (state.take_failure(), was_over, state.joined)
        });
        let limit = if is_joined { GOODBYE } else { GOODBYE_UNHEARD };
        if let Some(mut driver) = self.driver.take()
            && timeout(limit, &mut driver).await.is_err()
        {
            driver.abort();
        }
        let peer = self.shared.client.peer();
        match failure {
            Some(error) => Err(error),
            None if is_late => Err(peer.timeout("a commit", self.shared.client.request_timeout())),
            None if was_over => Err(state::closed()),
            None if !self.shared.state.lock().left => Err(peer.not_left()),
            None => Ok(()),
        }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        if let Some(driver) = self.driver.take() {
            driver.abort();
        }
        self.shared.change(|state| {
            if !state.over {
                state.fail(state::closed());
            }
        });
    }
}

/// Commits for a [`Consumer`], also while it waits for records. A clone is the same.
#[derive(Clone, Debug)]
pub struct Committer(Arc<Shared>);

impl Committer {
    /// Commits where the group is to go on in partitions of a unit; on disk when this returns.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) for a unit that is another member's by now (`STALE_ASSIGNMENT`), and for
    /// an offset before one that was committed (`COMMIT_WENT_BACK`); [`OutOfRange`](crate::ErrorKind::OutOfRange), and
    /// those of every call. After [`Timeout`](crate::ErrorKind::Timeout) and
    /// [`OutcomeUnknown`](crate::ErrorKind::OutcomeUnknown) it may be committed.
    pub async fn commit(&self, unit: &UnitEpoch, offsets: &[OffsetToCommit]) -> Result<(), Error> {
        for offset in offsets {
            partition_to(offset.partition)?;
        }
        let (answer, answered) = oneshot::channel();
        self.0.change(|state| state.commit(unit.clone(), offsets.to_vec(), answer));
        let limit = self.0.client.request_timeout();
        match timeout(limit, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(state::closed()),
            Err(_) => Err(self.0.client.peer().timeout("a commit", limit)),
        }
    }

    /// The consumer is ready for a unit that it was told to [prepare](ConsumerEvent::WarmUp) for.
    pub fn warmed(&self, unit: &str) {
        self.0.change(|state| state.warmed(unit));
    }
}
