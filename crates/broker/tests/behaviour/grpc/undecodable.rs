//! Stored batches that can be read, and not be decoded.

use logmill_log::{LogOptions, LogSet, SetOptions};
use logmill_record::{Batch, BatchError};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use v1::chunk::Data;
use v1::position::Edge;
use v1::subscribe_response::Reply;

use super::*;
use crate::common::{Node, batch, config};

/// A batch whose records say that they are compressed, and are not.
fn undecodable() -> Batch {
    const ATTRIBUTES: usize = 22;
    const CRC: std::ops::Range<usize> = 17..21;
    const GZIP: u8 = 1;
    let mut bytes = batch(["lost"]).bytes().to_vec();
    bytes[ATTRIBUTES] |= GZIP;
    let Err(BatchError::CrcMismatch { computed, .. }) = Batch::parse(bytes.clone().into()) else {
        panic!("its checksum is that of other attributes")
    };
    bytes[CRC].copy_from_slice(&computed.to_be_bytes());
    Batch::parse(bytes.into()).unwrap()
}

/// A node with two partitions: `a`, `b`, a batch that cannot be decoded, `c` in the first, `good` in the second.
async fn served(dir: &tempfile::TempDir) -> Served {
    let prepared = config(dir);
    let path = dir.path().to_owned();
    let prepare = move || {
        let node = Node::open(prepared);
        node.create("t", 2).unwrap();
        node.say("t", 1, "good").unwrap();
        let id = node.wait(node.broker.describe_topic(&node.context, "t")).unwrap().topic.id;
        node.broker.close().unwrap();
        drop(node);
        let set = LogSet::open(path, SetOptions::default()).unwrap();
        let log = set.open_log(format!("topics/{id}/0"), LogOptions::default()).unwrap();
        let batches = [batch(["a"]), batch(["b"]), undecodable(), batch(["c"])];
        log.append(&batches).unwrap().wait().unwrap();
        set.close().unwrap();
    };
    tokio::task::spawn_blocking(prepare).await.unwrap();
    Served::start(config(dir)).await
}

fn offsets(data: &v1::PartitionData) -> Vec<i64> {
    let records = data.chunks.iter().flat_map(|chunk| match &chunk.data {
        Some(Data::Records(records)) => records.records.clone(),
        other => panic!("{other:?}"),
    });
    records.map(|record| record.offset).collect()
}

fn is_corrupt(data: &v1::PartitionData, next_offset: i64) {
    let error = data.error.as_ref().unwrap_or_else(|| panic!("{data:?}"));
    assert_eq!(
        (error.reason.as_str(), data.next_offset, offsets(data).len()),
        ("DATA_CORRUPT", next_offset, 0)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscription_ends_at_a_batch_that_cannot_be_decoded_and_other_partitions_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(&dir).await;
    let partitions = (0..2).map(|partition| from("t", partition, at_edge(Edge::Earliest))).collect();
    let start = v1::SubscribeStart { partitions, credit_bytes: 1_000_000, ..v1::SubscribeStart::default() };
    let (requests, outgoing) = mpsc::channel(1);
    let request = Some(v1::subscribe_request::Request::Start(start));
    requests.send(v1::SubscribeRequest { request }).await.unwrap();
    let mut replies = served.fetches().subscribe(ReceiverStream::new(outgoing)).await.unwrap().into_inner();
    let mut of = [Vec::new(), Vec::new()];
    replies.message().await.unwrap().unwrap();
    while of[0].len() < 2 || of[1].len() < 2 {
        let Some(Reply::Data(data)) = replies.message().await.unwrap().unwrap().reply else {
            panic!("no data")
        };
        // What comes after the error would come before this.
        if data.partition == 0 && data.error.is_some() {
            served.say("t", 1, "more").await;
        }
        of[usize::try_from(data.partition).unwrap()].push(data);
    }
    assert_eq!((offsets(&of[0][0]), of[0][0].next_offset), (vec![0, 1], 2));
    is_corrupt(&of[0][1], 2);
    assert_eq!((of[0].len(), offsets(&of[1][1])), (2, vec![1]));
    served.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_brings_what_lies_before_a_batch_that_cannot_be_decoded() {
    let dir = tempfile::tempdir().unwrap();
    let served = served(&dir).await;
    let at = async |offset| {
        let partitions = vec![from("t", 0, at_offset(offset)), from("t", 1, at_offset(0))];
        let request = v1::FetchRequest { partitions, ..v1::FetchRequest::default() };
        let mut data = served.fetches().fetch(request).await.unwrap().into_inner().partitions;
        assert_eq!(offsets(&data.remove(1)), [0]);
        data.remove(0)
    };
    let before = at(1).await;
    assert_eq!((offsets(&before), before.next_offset, &before.error), (vec![1], 2, &None));
    is_corrupt(&at(2).await, 2);
    let behind = at(3).await;
    assert_eq!((offsets(&behind), behind.next_offset), (vec![3], 4));
    served.stop().await;
}
