//! The streaming rpc of `FetchService`.

use bytes::Bytes;
use logmill_proto::v1;
use logmill_proto::v1::subscribe_request::Request as Sent;
use logmill_proto::v1::subscribe_response::Reply;
use tonic::{Status, Streaming};

use super::connection::Connection;
use super::convert::{positive, to_isolation};
use super::encode::{Format, MAX_REPLY_BYTES, Room, frame};
use super::fetch::{to_format, to_partitions};
use super::outbox::{Outbox, Replies};
use super::status::with_reason;
use super::{Services, pieces};
use crate::context::RequestContext;
use crate::error::Error;
use crate::fetch::{Credit, Subscribe, Subscription};

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

    let (outbox, replies) = Outbox::new(connection);
    let sender = Sender { subscription, format, outbox, services: services.clone() };
    tokio::spawn(sender.run(requests));
    Ok(replies)
}

struct Sender {
    subscription: Subscription,
    format: Format,
    outbox: Outbox,
    services: Services,
}

impl Sender {
    async fn run(mut self, requests: Streaming<v1::SubscribeRequest>) {
        let outbox = self.outbox.clone();
        let stopping = self.services.stopping.clone();
        let last = tokio::select! {
            last = self.send(requests) => last,
            () = stopping.fired() => Err(Error::closing().into()),
            // The client is gone.
            () = outbox.closed() => return,
        };
        if let Err(status) = last {
            outbox.fail(status).await;
        }
    }

    /// Sends records until something ends it, or the client grants no more and its credit is used up.
    async fn send(&mut self, requests: Streaming<v1::SubscribeRequest>) -> Result<(), Status> {
        let mut room = Room::new(MAX_REPLY_BYTES);
        let partitions: Vec<_> =
            self.subscription.started().iter().map(|data| frame(data, &mut room)).collect();
        self.outbox.send(to_pieces(Reply::Started(v1::SubscribeStarted { partitions }))?).await;

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
            let (services, format) = (&self.services, self.format);
            let wrap = |data| to_pieces(Reply::Data(data));
            if let Some(error) = self.outbox.send_data(services, data, format, &credit, wrap).await? {
                self.subscription.end_last(error);
            }
        }
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
