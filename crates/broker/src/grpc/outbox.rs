//! What a stream of records answers, on its way to the client: each reply with the memory that it takes.

use bytes::Bytes;
use logmill_proto::v1;
use logmill_record::Offset;
use tokio::sync::mpsc;
use tonic::Status;

use super::Services;
use super::connection::{Connection, Held};
use super::encode::{Encoded, Format, MAX_REPLY_BYTES, Room, fill, frame};
use crate::error::Error;
use crate::fetch::{Credit, PartitionData};

/// Replies that wait for the stream; each has up to 1 MiB of records.
const REPLIES: usize = 2;

/// A message in pieces. Records are in their own bytes by then: as long as one is a slice of the batch that they
/// came from, all of that, inflated, would stay in memory.
pub(super) type Answer = Result<Vec<Bytes>, Status>;

/// The replies of a stream, each with the memory that it takes.
pub(super) type Replies = mpsc::Receiver<(Answer, Held)>;

/// Where the replies of a stream go. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Outbox {
    replies: mpsc::Sender<(Answer, Held)>,
    connection: Connection,
}

impl Outbox {
    pub(super) fn new(connection: Connection) -> (Self, Replies) {
        let (replies, waiting) = mpsc::channel(REPLIES);
        (Self { replies, connection }, waiting)
    }

    /// Sends a reply when there is room for it. Whether the client is gone is [looked at](Self::closed) elsewhere.
    pub(super) async fn send(&self, pieces: Vec<Bytes>) {
        let held = self.connection.hold_reply(pieces.iter().map(Bytes::len).sum());
        let _ = self.replies.send((Ok(pieces), held)).await;
    }

    /// Ends the stream with a status.
    pub(super) async fn fail(&self, status: Status) {
        let _ = self.replies.send((Err(status), self.connection.hold_reply(0))).await;
    }

    /// Ready when the client is gone.
    pub(super) async fn closed(&self) {
        self.replies.closed().await;
    }

    /// Sends what was read, in as many replies as it takes, each of which `wrap` makes a message, and settles what it
    /// costs of the credit. Answers why nothing may come after it: of a partition with a batch that cannot be decoded,
    /// who went on would go past it.
    pub(super) async fn send_data(
        &self,
        services: &Services,
        mut data: PartitionData,
        format: Format,
        credit: &Credit,
        wrap: impl Fn(v1::PartitionData) -> Result<Vec<Bytes>, Error> + Clone + Send + 'static,
    ) -> Result<Option<Error>, Error> {
        let bytes = data.size_bytes();
        let mut payload = 0;
        let failed = loop {
            let wrap = wrap.clone();
            let encode = move || {
                let mut room = Room::new(MAX_REPLY_BYTES);
                let framed = frame(&data, &mut room);
                let encoded = fill(&data, framed, format, &mut room);
                let Encoded { data: message, payload, cut, failed, .. } = encoded;
                let next = Offset::try_from(message.next_offset).ok().filter(|_| cut);
                let next = failed.map_or(Ok(next.map(|next| (next, message.last_epoch))), Err);
                (wrap(message), payload, next, data)
            };
            let (pieces, sent, next, rest) = services.encode(format, bytes, encode).await?;
            (data, payload) = (rest, payload + sent);
            self.send(pieces?).await;
            match next {
                Ok(Some(next)) => (data.from_offset, data.from_epoch) = next,
                Ok(None) => break None,
                Err(error) => break Some(error),
            }
        };
        // What counts is the chunks as the client sees them, and not what was read: records that were compressed
        // are more, and those before the offset asked for are not there.
        credit.spend(payload);
        credit.grant(bytes as u64);
        Ok(failed)
    }
}
