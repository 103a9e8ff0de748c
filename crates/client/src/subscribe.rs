//! Subscribe: reading from partitions as records arrive.
//!
//! A subscription is driven by its reader and has no task of its own: the node may send as many bytes as the
//! reader has granted, and what was handed out is granted anew when the reader asks for more. Reading goes on
//! after a break at the offset after the last record handed out, and tells the node the leader epoch there, and the
//! topic's id: if the partition has lost what was handed out, or another topic has its name, the reader is told so and
//! not given other records in its place.

mod places;
mod requests;

use std::collections::VecDeque;
use std::time::Duration;

use logmill_proto::v1;
use logmill_proto::v1::subscribe_response::Reply;
use tokio::time::{Instant, sleep_until, timeout};
use tonic::Streaming;

use crate::backoff::Backoff;
use crate::{Client, Error, FetchFrom, Isolation, PartitionData, Position};
use places::Places;
use requests::{Credit, Requests};

/// A stream that held so long was a good one: the next break is not counted to those before.
const GOOD_STREAM: Duration = Duration::from_secs(5);

/// What to read as it arrives; for [`Client::subscribe`].
///
/// ```
/// use logmill_client::{FetchFrom, Position, Subscribe};
///
/// let all = (0..4).map(|partition| FetchFrom::new("orders", partition, Position::Latest)).collect::<Vec<_>>();
/// let subscribe = Subscribe { credit_bytes: 1 << 20, ..Subscribe::from(all) };
/// assert_eq!(subscribe.partitions.len(), 4);
/// ```
#[derive(Clone, Debug)]
pub struct Subscribe {
    /// The partitions and where to start in each; at least one, each partition once.
    pub partitions: Vec<FetchFrom>,
    /// How many bytes of batches the node may send ahead of the reader; 4 MiB unless set. A batch that is
    /// larger comes alone.
    pub credit_bytes: usize,
    /// For how long a broken connection is tried again before [`next`](Subscription::next) reports it; a
    /// minute unless set.
    pub reconnect_timeout: Duration,
    /// Which records of transactions to read; committed ones unless set.
    pub isolation: Isolation,
}

impl Default for Subscribe {
    fn default() -> Subscribe {
        Subscribe {
            partitions: Vec::new(),
            credit_bytes: 4 << 20,
            reconnect_timeout: Duration::from_secs(60),
            isolation: Isolation::default(),
        }
    }
}

impl From<FetchFrom> for Subscribe {
    fn from(from: FetchFrom) -> Subscribe {
        Subscribe::from(vec![from])
    }
}

impl From<Vec<FetchFrom>> for Subscribe {
    fn from(partitions: Vec<FetchFrom>) -> Subscribe {
        Subscribe { partitions, ..Subscribe::default() }
    }
}

/// Records of partitions as they arrive; from [`Client::subscribe`].
#[derive(Debug)]
pub struct Subscription {
    client: Client,
    places: Places,
    credit_bytes: usize,
    reconnect_timeout: Duration,
    isolation: Isolation,
    stream: Option<Open>,
    /// What came with `started`: partitions that cannot be read.
    refused: VecDeque<PartitionData>,
    /// Bytes handed out and not granted anew.
    consumed_bytes: usize,
    backoff: Backoff,
    not_before: Instant,
    broken_since: Option<Instant>,
    ended: bool,
}

#[derive(Debug)]
struct Open {
    replies: Streaming<v1::SubscribeResponse>,
    credit: Credit,
    since: Instant,
}

impl Client {
    /// Reads from partitions and goes on as records arrive.
    ///
    /// Places given as [`Latest`](Position::Latest) or by time are fixed now: a break later on skips nothing.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`OutOfRange`](crate::ErrorKind::OutOfRange), and those of
    /// every call.
    ///
    /// ```no_run
    /// use logmill_client::{Client, FetchFrom, Position};
    ///
    /// # async fn example(client: Client) -> Result<(), logmill_client::Error> {
    /// let from = FetchFrom::new("orders", 0, Position::Earliest);
    /// let mut subscription = client.subscribe(from.into()).await?;
    /// while let Some(data) = subscription.next().await {
    ///     for record in data?.records() {
    ///         println!("{}", record?.offset);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    pub async fn subscribe(&self, subscribe: Subscribe) -> Result<Subscription, Error> {
        let Subscribe { mut partitions, credit_bytes, reconnect_timeout, isolation } = subscribe;
        if credit_bytes == 0 {
            return Err(Error::invalid("credit_bytes is 0, so that the node could send nothing"));
        }
        let moves = |at| matches!(at, Position::Latest | Position::Time(_));
        self.resolve(&mut partitions, isolation, moves).await?;
        let mut subscription = Subscription {
            client: self.clone(),
            places: Places::new(partitions),
            credit_bytes,
            reconnect_timeout,
            isolation,
            stream: None,
            refused: VecDeque::new(),
            consumed_bytes: 0,
            backoff: Backoff::default(),
            not_before: Instant::now(),
            broken_since: None,
            ended: false,
        };
        subscription.open().await?;
        match subscription.refused.pop_front().and_then(|data| data.error) {
            Some(error) => Err(error),
            None => Ok(subscription),
        }
    }
}

impl Subscription {
    /// The next records, of whichever partition has some; waits as long as there are none.
    ///
    /// The records of the call before count as read when this is called, and the node may send as many bytes
    /// more. Dropping the future loses nothing. A partition that cannot be read any more is reported with its
    /// [error](PartitionData::error), which its [`records`](PartitionData::records) give as well, and the others
    /// go on; after the last one comes `None`. So is one that has lost what came from it
    /// ([`Truncated`](crate::ErrorKind::Truncated)): it is to be subscribed to anew, from
    /// [`diverging_offset`](Error::diverging_offset) on.
    ///
    /// # Errors
    /// An error that waiting may heal comes after `reconnect_timeout` of trying, and the next call tries again
    /// from the same place. Any other error is the last item; then comes `None`.
    pub async fn next(&mut self) -> Option<Result<PartitionData, Error>> {
        self.grant();
        while !self.ended {
            match self.receive().await {
                Ok(data) => return Some(Ok(data)),
                Err(error) => {
                    if let Some(error) = self.broke(error) {
                        return Some(Err(error));
                    }
                }
            }
        }
        None
    }

    async fn receive(&mut self) -> Result<PartitionData, Error> {
        if self.stream.is_none() {
            sleep_until(self.not_before).await;
            self.open().await?;
        }
        if let Some(data) = self.refused.pop_front() {
            self.ended = self.places.all_gone() && self.refused.is_empty();
            return Ok(data);
        }
        let Some(Open { replies, .. }) = &mut self.stream else {
            return Err(self.client.peer().broken("it was not opened"));
        };
        match replies.message().await {
            Ok(Some(v1::SubscribeResponse { reply: Some(Reply::Data(data)) })) => self.accept(data),
            Ok(Some(_)) => Err(Error::nonsense("a reply on a subscription is no data")),
            Ok(None) => Err(self.client.peer().broken("the node ended the stream")),
            Err(status) => Err(self.client.peer().error(&status)),
        }
    }

    fn accept(&mut self, data: v1::PartitionData) -> Result<PartitionData, Error> {
        let data = self.places.accept(data)?;
        self.consumed_bytes = data.size_bytes();
        self.backoff.reset();
        self.broken_since = None;
        self.ended = self.places.all_gone();
        Ok(data)
    }

    fn grant(&mut self) {
        let bytes = std::mem::take(&mut self.consumed_bytes);
        if let Some(stream) = &self.stream {
            stream.credit.grant(bytes);
        }
    }

    /// Lets go of the stream; gives the error if the reader has to know it now.
    fn broke(&mut self, error: Error) -> Option<Error> {
        let now = Instant::now();
        let stream = self.stream.take();
        if !error.kind().is_retriable() {
            self.ended = true;
            return Some(error);
        }
        tracing::debug!(%error, "a subscription broke");
        if stream.is_some_and(|stream| now - stream.since >= GOOD_STREAM) {
            self.backoff.reset();
            self.broken_since = None;
        }
        self.not_before = now + self.backoff.next();
        if now - *self.broken_since.get_or_insert(now) < self.reconnect_timeout {
            return None;
        }
        self.broken_since = None;
        Some(error)
    }

    async fn open(&mut self) -> Result<(), Error> {
        let start = v1::SubscribeStart {
            partitions: self.places.wanted()?,
            format: v1::Format::Batches.into(),
            isolation: self.isolation.into(),
            credit_bytes: i64::try_from(self.credit_bytes).unwrap_or(i64::MAX),
        };
        let (requests, credit) = Requests::new(start);
        let opening = async {
            let mut replies = self.client.fetch_rpc().subscribe(requests).await?.into_inner();
            let first = replies.message().await?;
            Ok((replies, first))
        };
        let (peer, limit) = (self.client.peer(), self.client.connect_timeout());
        let (replies, first) = match timeout(limit, opening).await {
            Ok(opened) => opened.map_err(|status: tonic::Status| peer.error(&status))?,
            Err(_) => return Err(peer.timeout("Subscribe", limit)),
        };
        let Some(Reply::Started(started)) = first.and_then(|response| response.reply) else {
            return Err(Error::nonsense("a subscription does not begin with `started`"));
        };
        for data in started.partitions {
            if data.error.is_some() {
                self.refused.push_back(self.places.accept(data)?);
            } else {
                self.places.started(&data);
            }
        }
        self.stream = Some(Open { replies, credit, since: Instant::now() });
        Ok(())
    }
}
