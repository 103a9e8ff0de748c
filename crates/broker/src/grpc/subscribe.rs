//! The streaming rpc of `FetchService`.

use bytes::Bytes;
use logmill_proto::v1;
use logmill_proto::v1::subscribe_request::Request as Sent;
use logmill_proto::v1::subscribe_response::Reply;
use logmill_record::Offset;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use super::connection::{Connection, Held};
use super::convert::to_isolation;
use super::encode::{Encoded, Format, MAX_REPLY_BYTES, Room, fill, frame};
use super::fetch::{to_format, to_partitions};
use super::status::with_reason;
use super::{Services, pieces};
use crate::context::RequestContext;
use crate::error::Error;
use crate::fetch::{Credit, PartitionData, Subscribe, Subscription};

/// Replies that wait for the stream; each has up to 1 MiB of records.
const REPLIES: usize = 2;

/// A message in pieces. Records are in their own bytes by then: as long as one is a slice of the batch that they
/// came from, all of that, inflated, would stay in memory.
pub(super) type Answer = Result<Vec<Bytes>, Status>;

/// The replies of a subscription, each with the memory that it takes.
pub(super) type Replies = mpsc::Receiver<(Answer, Held)>;

/// Reads the first message and opens the subscription.
pub(super) async fn start(
    services: &Services,
    context: &RequestContext,
    connection: Connection,
    mut requests: Streaming<v1::SubscribeRequest>,
) -> Result<Replies, Status> {
    let first = requests.message().await.map_err(with_reason)?.and_then(|message| message.request);
    let Some(Sent::Start(start)) = first else {
        return Err(Error::missing("start", "the first message of a subscription says what to read").into());
    };
    let v1::SubscribeStart { partitions, format, isolation, credit_bytes } = start;
    let (format, isolation) = (to_format(format)?, to_isolation(isolation)?);
    let partitions = to_partitions(partitions)?;
    let credit_bytes = positive("credit_bytes", credit_bytes)?;
    let (subscribe, own) = (Subscribe { partitions, credit_bytes, isolation }, connection.replies().clone());
    let subscription = services.broker.subscribe_within(context, subscribe, own).await?;

    let (replies, waiting) = mpsc::channel(REPLIES);
    let sender = Sender { subscription, format, replies, connection, services: services.clone() };
    tokio::spawn(sender.run(requests));
    Ok(waiting)
}

struct Sender {
    subscription: Subscription,
    format: Format,
    replies: mpsc::Sender<(Answer, Held)>,
    connection: Connection,
    services: Services,
}

impl Sender {
    async fn run(mut self, requests: Streaming<v1::SubscribeRequest>) {
        let replies = self.replies.clone();
        let stopping = self.services.stopping.clone();
        let last = tokio::select! {
            last = self.send(requests) => last,
            () = stopping.fired() => Err(Error::closing().into()),
            // The client is gone.
            () = replies.closed() => return,
        };
        if let Err(status) = last {
            let held = self.connection.hold_reply(0);
            let _ = replies.send((Err(status), held)).await;
        }
    }

    /// Sends records until something ends it, or the client grants no more and its credit is used up.
    async fn send(&mut self, requests: Streaming<v1::SubscribeRequest>) -> Result<(), Status> {
        let mut room = Room::new(MAX_REPLY_BYTES);
        let partitions: Vec<_> =
            self.subscription.started().iter().map(|data| frame(data, &mut room)).collect();
        self.reply(to_pieces(Reply::Started(v1::SubscribeStarted { partitions }))?).await;

        let credit = self.subscription.credit();
        let mut granting = std::pin::pin!(grant(credit.clone(), requests));
        let mut granted_all = false;
        loop {
            if granted_all && credit.is_used_up() {
                return Ok(());
            }
            let data = tokio::select! {
                ended = &mut granting, if !granted_all => {
                    ended?;
                    granted_all = true;
                    continue;
                }
                data = self.subscription.next() => data?,
            };
            self.send_data(data).await?;
        }
    }

    /// Sends what was read, in as many replies as it takes. Of a partition with a batch that cannot be decoded nothing
    /// comes after the error: who went on would go past it.
    async fn send_data(&mut self, mut data: PartitionData) -> Result<(), Error> {
        let (format, bytes) = (self.format, data.size_bytes());
        let mut payload = 0;
        loop {
            let encode = move || {
                let mut room = Room::new(MAX_REPLY_BYTES);
                let framed = frame(&data, &mut room);
                let encoded = fill(&data, framed, format, &mut room);
                let Encoded { data: message, payload, cut, failed, .. } = encoded;
                let next = Offset::try_from(message.next_offset).ok().filter(|_| cut);
                let next = failed.map_or(Ok(next.map(|next| (next, message.last_epoch))), Err);
                (to_pieces(Reply::Data(message)), payload, next, data)
            };
            let (pieces, sent, next, rest) = self.services.encode(format, bytes, encode).await?;
            (data, payload) = (rest, payload + sent);
            self.reply(pieces?).await;
            match next {
                Ok(Some(next)) => (data.from_offset, data.from_epoch) = next,
                Ok(None) => break,
                Err(error) => {
                    self.subscription.end_last(error);
                    break;
                }
            }
        }
        // What counts is the chunks as the client sees them, and not what was read: records that were compressed
        // are more, and those before the offset asked for are not there.
        let credit = self.subscription.credit();
        credit.spend(payload);
        credit.grant(bytes as u64);
        Ok(())
    }

    async fn reply(&self, pieces: Vec<Bytes>) {
        let held = self.connection.hold_reply(pieces.iter().map(Bytes::len).sum());
        // Whether the client is gone is looked at elsewhere.
        let _ = self.replies.send((Ok(pieces), held)).await;
    }
}

fn to_pieces(reply: Reply) -> Result<Vec<Bytes>, Error> {
    pieces::of_subscription(v1::SubscribeResponse { reply: Some(reply) })
}

/// Takes what the client grants, until it has no more to say.
async fn grant(credit: Credit, mut requests: Streaming<v1::SubscribeRequest>) -> Result<(), Status> {
    while let Some(message) = requests.message().await.map_err(with_reason)? {
        match message.request {
            Some(Sent::Credit(granted)) => credit.grant(positive("bytes", granted.bytes)?),
            Some(Sent::Start(_)) | None => {
                let rule = "after the first message of a subscription, every message grants credit";
                return Err(Error::missing("credit", rule).into());
            }
        }
    }
    Ok(())
}

fn positive(field: &'static str, value: i64) -> Result<u64, Error> {
    u64::try_from(value)
        .ok()
        .filter(|value| *value > 0)
        .ok_or_else(|| Error::field(field, value, "it is at least 1"))
}
