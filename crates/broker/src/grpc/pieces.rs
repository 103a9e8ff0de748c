//! Replies as they are on the wire, in pieces: batches that were read are not copied, they are a piece each.
//!
//! prost copies what it encodes into one buffer. A field of protobuf is its tag, its length and its bytes, so that a
//! buffer with all that goes before a batch, and then the batch itself, are the same message.

use bytes::{BufMut, Bytes, BytesMut};
use logmill_proto::v1;
use prost::Message;
use prost::encoding::{WireType, encode_key, encode_varint, encoded_len_varint, key_len};

use crate::error::Error;

/// Fields of `fetch.proto` and `groups.proto`.
const RESPONSE_PARTITIONS: u32 = 1;
const RESPONSE_DATA: u32 = 2;
const PARTITION_CHUNKS: u32 = 6;
const CHUNK_BATCHES: u32 = 4;
const CONSUME_DATA: u32 = 7;
const UNIT_DATA_DATA: u32 = 2;

/// What goes before a message on the wire: a flag that says that it is not compressed, and its length.
const PREFIX_BYTES: usize = 5;

/// A message as it is on the wire, in the order in which its pieces are sent.
pub(super) fn of_subscription(message: v1::SubscribeResponse) -> Result<Vec<Bytes>, Error> {
    match message.reply {
        Some(v1::subscribe_response::Reply::Data(data)) => of_partitions(RESPONSE_DATA, vec![data]),
        _ => of_small(&message),
    }
}

/// See [`of_subscription`].
pub(super) fn of_consume(message: v1::ConsumeResponse) -> Result<Vec<Bytes>, Error> {
    let Some(v1::consume_response::Reply::Data(v1::UnitData { unit, data: Some(data) })) = message.reply
    else {
        return of_small(&message);
    };
    let unit = v1::UnitData { unit, data: None };
    let length = data.encoded_len();
    let inner = unit.encoded_len() + field_len(UNIT_DATA_DATA, length);
    let whole = field_len(CONSUME_DATA, inner);
    let mut out = Pieces::of(whole, whole.saturating_sub(batches_len(&data)))?;
    out.begin(CONSUME_DATA, inner);
    unit.encode_raw(&mut out.open);
    out.begin(UNIT_DATA_DATA, length);
    out.partition(data);
    Ok(out.finish())
}

/// A message that has no batches.
fn of_small(message: &impl Message) -> Result<Vec<Bytes>, Error> {
    let length = message.encoded_len();
    let mut out = Pieces::of(length, length)?;
    message.encode(&mut out.open).map_err(|_| Error::fault("the encoding of a reply"))?;
    Ok(out.finish())
}

/// See [`of_subscription`].
pub(super) fn of_fetch(message: v1::FetchResponse) -> Result<Vec<Bytes>, Error> {
    of_partitions(RESPONSE_PARTITIONS, message.partitions)
}

/// A message that has these partitions, each as a field of this number, and nothing else.
fn of_partitions(field: u32, partitions: Vec<v1::PartitionData>) -> Result<Vec<Bytes>, Error> {
    let lengths: Vec<_> = partitions.iter().map(Message::encoded_len).collect();
    let length = lengths.iter().map(|length| field_len(field, *length)).sum::<usize>();
    let batches: usize = partitions.iter().map(batches_len).sum();
    let mut out = Pieces::of(length, length.saturating_sub(batches))?;
    for (partition, length) in partitions.into_iter().zip(lengths) {
        out.begin(field, length);
        out.partition(partition);
    }
    Ok(out.finish())
}

/// The bytes of batches in a partition's part.
fn batches_len(partition: &v1::PartitionData) -> usize {
    let batches = |chunk: &v1::Chunk| match &chunk.data {
        Some(v1::chunk::Data::Batches(batches)) => batches.len(),
        _ => 0,
    };
    partition.chunks.iter().map(batches).sum()
}

fn field_len(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

struct Pieces {
    done: Vec<Bytes>,
    /// What is small, until something large comes.
    open: BytesMut,
}

impl Pieces {
    /// A message of this length, of which so many bytes are small.
    fn of(length: usize, small: usize) -> Result<Self, Error> {
        let prefix = u32::try_from(length).map_err(|_| Error::fault("a reply of more than 4 GiB"))?;
        let mut open = BytesMut::with_capacity(PREFIX_BYTES + small);
        open.put_u8(0);
        open.put_u32(prefix);
        Ok(Self { done: Vec::new(), open })
    }

    /// A field of this number and length, whose bytes follow.
    fn begin(&mut self, field: u32, length: usize) {
        encode_key(field, WireType::LengthDelimited, &mut self.open);
        encode_varint(length as u64, &mut self.open);
    }

    /// What is in a partition's part.
    fn partition(&mut self, mut partition: v1::PartitionData) {
        let chunks = std::mem::take(&mut partition.chunks);
        partition.encode_raw(&mut self.open);
        for chunk in chunks {
            self.chunk(chunk);
        }
    }

    fn chunk(&mut self, mut chunk: v1::Chunk) {
        self.begin(PARTITION_CHUNKS, chunk.encoded_len());
        match chunk.data.take() {
            Some(v1::chunk::Data::Batches(batches)) => {
                chunk.encode_raw(&mut self.open);
                self.begin(CHUNK_BATCHES, batches.len());
                self.done.extend([self.open.split().freeze(), batches]);
            }
            data => v1::Chunk { data, ..chunk }.encode_raw(&mut self.open),
        }
    }

    fn finish(mut self) -> Vec<Bytes> {
        self.done.push(self.open.freeze());
        self.done.retain(|piece| !piece.is_empty());
        self.done
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(chunks: Vec<v1::Chunk>) -> v1::PartitionData {
        let aborted = vec![v1::AbortedRange { producer_id: 3, first_offset: 1, last_offset: 9 }];
        v1::PartitionData {
            topic: "t".into(),
            partition: 300,
            end_offset: 7,
            last_epoch: Some(0),
            aborted,
            chunks,
            ..Default::default()
        }
    }

    fn partitions() -> Vec<v1::PartitionData> {
        let batches = |bytes: usize| v1::chunk::Data::Batches(vec![7; bytes].into());
        let record = v1::FetchedRecord { value: Some("x".into()), ..Default::default() };
        let records = v1::chunk::Data::Records(v1::FetchedRecords { records: vec![record] });
        let chunk = |data| v1::Chunk { appended_at_ms: 5, appended_at_estimated: true, data };
        vec![
            partition(vec![]),
            partition(vec![
                chunk(Some(batches(300))),
                chunk(Some(batches(0))),
                chunk(Some(batches(100_000))),
            ]),
            partition(vec![chunk(Some(records)), chunk(None)]),
        ]
    }

    /// Decodes what is behind the prefix, after a look at that.
    fn decode<M: Message + Default>(pieces: &[Bytes]) -> M {
        let wire = pieces.concat();
        assert_eq!(wire[0], 0);
        assert_eq!(wire[1..5], u32::try_from(wire.len() - 5).unwrap().to_be_bytes());
        M::decode(&wire[5..]).unwrap()
    }

    #[test]
    fn the_pieces_are_the_message() {
        let fetched = v1::FetchResponse { partitions: partitions() };
        assert_eq!(decode::<v1::FetchResponse>(&of_fetch(fetched.clone()).unwrap()), fetched);
        let started = v1::SubscribeStarted { partitions: partitions() };
        let mut replies = vec![v1::subscribe_response::Reply::Started(started)];
        replies.extend(partitions().into_iter().map(v1::subscribe_response::Reply::Data));
        for reply in replies {
            let message = v1::SubscribeResponse { reply: Some(reply) };
            assert_eq!(decode::<v1::SubscribeResponse>(&of_subscription(message.clone()).unwrap()), message);
        }
        let unit = Some(v1::UnitEpoch { unit: "t/0".into(), epoch: 3 });
        let of_unit = |data| v1::consume_response::Reply::Data(v1::UnitData { unit: unit.clone(), data });
        let mut replies: Vec<_> = partitions().into_iter().map(|data| of_unit(Some(data))).collect();
        let joined = v1::GroupJoined { member_id: "m".into(), session_timeout_ms: 300 };
        replies.extend([of_unit(None), v1::consume_response::Reply::Joined(joined)]);
        for reply in replies {
            let message = v1::ConsumeResponse { reply: Some(reply) };
            assert_eq!(decode::<v1::ConsumeResponse>(&of_consume(message.clone()).unwrap()), message);
        }
        let nothing = v1::FetchResponse::default();
        assert_eq!(decode::<v1::FetchResponse>(&of_fetch(nothing.clone()).unwrap()), nothing);
    }

    #[test]
    fn batches_are_not_copied() {
        let batches = Bytes::from(vec![7; 100_000]);
        let at = batches.as_ptr();
        let data = Some(v1::chunk::Data::Batches(batches));
        let chunk = v1::Chunk { appended_at_ms: 5, appended_at_estimated: false, data };
        let pieces = of_fetch(v1::FetchResponse { partitions: vec![partition(vec![chunk])] }).unwrap();
        assert!(pieces.iter().any(|piece| piece.as_ptr() == at && piece.len() == 100_000));
    }
}
