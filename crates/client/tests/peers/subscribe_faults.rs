//! What a subscription does when its node breaks, lies, or would send too much.

use std::sync::Arc;
use std::time::Duration;

use logmill_client::{Client, ErrorKind, FetchFrom, PartitionData, Position, Subscribe, Subscription};
use logmill_proto::v1;
use logmill_proto::v1::position::At;
use logmill_proto::v1::subscribe_request::Request;
use logmill_proto::v1::subscribe_response::Reply;
use logmill_record::Offset;
use parking_lot::Mutex;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use crate::fake::{Fake, SubscribeSession, stored};

const SOON: Duration = Duration::from_secs(20);

impl SubscribeSession {
    /// Reads `start`, answers `started`, and gives where the reader wants to start in partition 0, and its
    /// credit.
    async fn start(&mut self) -> (i64, i64) {
        let Some(Request::Start(start)) = self.request().await.and_then(|it| it.request) else {
            panic!("not a start");
        };
        self.reply(Reply::Started(v1::SubscribeStarted::default())).await;
        let Some(At::Offset(offset)) = start.partitions[0].position.and_then(|it| it.at) else {
            panic!("not an offset: {start:?}");
        };
        (offset, start.credit_bytes)
    }

    async fn data(&self, from: i64, count: u64) {
        let base = u64::try_from(from).unwrap();
        let chunk = v1::Chunk {
            appended_at_ms: 1_000,
            appended_at_estimated: false,
            data: Some(v1::chunk::Data::Batches(stored(base, count))),
        };
        self.reply(Reply::Data(v1::PartitionData {
            topic: "t".into(),
            next_offset: i64::try_from(base + count).unwrap(),
            end_offset: 1_000,
            chunks: vec![chunk],
            ..Default::default()
        }))
        .await;
    }

    async fn credit(&mut self) -> Option<i64> {
        match self.request().await?.request {
            Some(Request::Credit(credit)) => Some(credit.bytes),
            other => panic!("not credit: {other:?}"),
        }
    }

    async fn reply(&self, reply: Reply) {
        let _ = self.replies.send(Ok(v1::SubscribeResponse { reply: Some(reply) })).await;
    }
}

fn from(position: impl Into<Position>) -> Subscribe {
    FetchFrom::new("t", 0, position).into()
}

async fn next(subscription: &mut Subscription) -> PartitionData {
    timeout(SOON, subscription.next()).await.expect("data in time").unwrap().unwrap()
}

fn offsets(data: &PartitionData) -> Vec<u64> {
    data.records().map(|record| record.unwrap().offset.get()).collect()
}

#[tokio::test]
async fn reading_goes_on_after_a_break_where_it_was() {
    let fake = Fake::new().subscribing(|mut session: SubscribeSession| async move {
        let (at, _) = session.start().await;
        // Each stream sends three records, of which the first lies before the offset asked for.
        session.data((at - 1).max(0), 3).await;
        sleep(Duration::from_millis(20)).await;
        session.break_off().await;
    });
    let node = fake.start().await;
    let mut subscription = node.client().await.subscribe(from(Offset(5))).await.unwrap();
    let mut seen = Vec::new();
    for _ in 0..4 {
        seen.extend(offsets(&next(&mut subscription).await));
    }
    assert_eq!(seen, (5..13).collect::<Vec<u64>>());
}

#[tokio::test]
async fn reading_goes_on_when_the_node_comes_back() {
    let fake = Fake::new().subscribing(|mut session: SubscribeSession| async move {
        let (at, _) = session.start().await;
        session.data(at, 2).await;
        session.replies.closed().await;
    });
    let mut node = fake.start().await;
    let mut subscription = node.client().await.subscribe(from(Offset(0))).await.unwrap();
    assert_eq!(offsets(&next(&mut subscription).await), [0, 1]);
    node.kill();
    // A reader that gives up waiting and comes back loses nothing.
    assert!(timeout(Duration::from_millis(200), subscription.next()).await.is_err());
    node.restart().await;
    assert_eq!(offsets(&next(&mut subscription).await), [2, 3]);
}

#[tokio::test]
async fn a_place_given_as_latest_or_by_time_is_fixed_at_the_start() {
    let fake = Fake::new().subscribing(|mut session: SubscribeSession| async move {
        let (at, _) = session.start().await;
        if session.number.is_multiple_of(2) {
            // Breaks before anything has come.
            return session.break_off().await;
        }
        session.data(at, 1).await;
        session.replies.closed().await;
    });
    let node = fake.start().await;
    let client = node.client().await;
    for position in [Position::Latest, Position::Time(logmill_record::TimestampMs(7))] {
        let mut subscription = client.subscribe(from(position)).await.unwrap();
        assert_eq!(offsets(&next(&mut subscription).await), [100], "as the fake node answers ListOffsets");
    }
}

#[tokio::test]
async fn credit_is_granted_for_what_was_read_and_for_no_more() {
    let granted = Arc::new(Mutex::new(Vec::new()));
    let script_granted = Arc::clone(&granted);
    let fake = Fake::new().subscribing(move |mut session: SubscribeSession| {
        let granted = Arc::clone(&script_granted);
        async move {
            let (_, credit) = session.start().await;
            granted.lock().push(credit);
            session.data(0, 1).await;
            session.data(1, 2).await;
            while let Some(credit) = session.credit().await {
                granted.lock().push(credit);
            }
        }
    });
    let node = fake.start().await;
    let subscribe = Subscribe { credit_bytes: 1_000, ..from(Offset(0)) };
    let mut subscription = node.client().await.subscribe(subscribe).await.unwrap();
    let first = next(&mut subscription).await.size_bytes();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(*granted.lock(), [1_000], "what was just handed out is not read yet");
    let second = next(&mut subscription).await.size_bytes();
    assert!(timeout(Duration::from_millis(50), subscription.next()).await.is_err());
    let read = i64::try_from(first + second).unwrap();
    let all_granted = async {
        while granted.lock().iter().skip(1).sum::<i64>() < read {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(SOON, all_granted).await.expect("credit for all that was read");
    assert_eq!(granted.lock().iter().skip(1).sum::<i64>(), read);
}

#[tokio::test]
async fn a_node_that_stays_away_is_reported_and_tried_again_on_demand() {
    let mut node = Fake::new()
        .subscribing(|mut session: SubscribeSession| async move {
            let (at, _) = session.start().await;
            session.data(at, 1).await;
            session.replies.closed().await;
        })
        .start()
        .await;
    let subscribe = Subscribe { reconnect_timeout: Duration::from_millis(300), ..from(Offset(0)) };
    let mut subscription = node.client().await.subscribe(subscribe).await.unwrap();
    next(&mut subscription).await;
    node.kill();
    let error = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    node.restart().await;
    assert_eq!(offsets(&next(&mut subscription).await), [1]);
}

#[tokio::test]
async fn an_error_that_waiting_does_not_heal_is_the_last_item() {
    let fake = Fake::new().subscribing(|mut session: SubscribeSession| async move {
        let (at, _) = session.start().await;
        session.data(at, 1).await;
        let _ = session.replies.send(Err(Status::not_found("the topic was deleted"))).await;
    });
    let node = fake.start().await;
    let mut subscription = node.client().await.subscribe(from(Offset(0))).await.unwrap();
    next(&mut subscription).await;
    let error = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert!(timeout(SOON, subscription.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_start_that_is_refused_or_ignored_fails_at_once() {
    let refusing = Fake::new().subscribing(|session: SubscribeSession| async move {
        let _ = session.replies.send(Err(Status::not_found("no topic"))).await;
    });
    let node = refusing.start().await;
    let error = node.client().await.subscribe(from(Offset(0))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);

    let silent = Fake::new().subscribing(|session: SubscribeSession| async move {
        session.replies.closed().await;
    });
    let node = silent.start().await;
    let limit = Duration::from_millis(200);
    let client = Client::builder(&node.url()).connect_timeout(limit).connect().await.unwrap();
    let error = timeout(SOON, client.subscribe(from(Offset(0)))).await.unwrap().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);

    let lying = Fake::new().subscribing(|mut session: SubscribeSession| async move {
        session.start().await;
        session.reply(Reply::Data(v1::PartitionData { topic: "other".into(), ..Default::default() })).await;
        session.replies.closed().await;
    });
    let node = lying.start().await;
    let subscribe = Subscribe { reconnect_timeout: Duration::ZERO, ..from(Offset(0)) };
    let mut subscription = node.client().await.subscribe(subscribe).await.unwrap();
    let error = timeout(SOON, subscription.next()).await.unwrap().unwrap().unwrap_err();
    assert!(error.to_string().contains("other/0"), "{error}");
}

fn partition(partition: i32, code: Code) -> v1::PartitionData {
    let error = Some(v1::Error { code: code.into(), ..Default::default() });
    v1::PartitionData { topic: "t".into(), partition, error, ..Default::default() }
}

#[tokio::test]
async fn partitions_that_cannot_be_read_are_told_of_and_the_others_go_on() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let script_asked = Arc::clone(&asked);
    let fake = Fake::new().subscribing(move |mut session: SubscribeSession| {
        let asked = Arc::clone(&script_asked);
        async move {
            let Some(Request::Start(start)) = session.request().await.and_then(|it| it.request) else {
                panic!("not a start");
            };
            asked.lock().push(start.partitions.iter().map(|it| it.partition).collect::<Vec<i32>>());
            let refused = if session.number == 1 { vec![partition(2, Code::NotFound)] } else { Vec::new() };
            session.reply(Reply::Started(v1::SubscribeStarted { partitions: refused })).await;
            if session.number == 0 {
                session.reply(Reply::Data(partition(1, Code::NotFound))).await;
                session.reply(Reply::Data(partition(2, Code::FailedPrecondition))).await;
                session.break_off().await;
            }
            session.data(0, 1).await;
            session.reply(Reply::Data(partition(0, Code::NotFound))).await;
        }
    });
    let node = fake.start().await;
    let all: Vec<FetchFrom> = (0..3).map(|partition| FetchFrom::new("t", partition, Offset(0))).collect();
    let mut subscription = node.client().await.subscribe(all.into()).await.unwrap();
    let mut told = Vec::new();
    while let Some(data) = timeout(SOON, subscription.next()).await.unwrap() {
        let data = data.unwrap();
        told.push((data.partition, data.error.map(|error| error.kind())));
    }
    let expected = [
        (1, Some(ErrorKind::NotFound)),
        (2, Some(ErrorKind::Conflict)),
        (2, Some(ErrorKind::NotFound)),
        (0, None),
        (0, Some(ErrorKind::NotFound)),
    ];
    assert_eq!(told, expected);
    assert_eq!(*asked.lock(), [vec![0, 1, 2], vec![0, 2]], "what is gone is not asked for again");

    let refusing = Fake::new().subscribing(|mut session: SubscribeSession| async move {
        let _ = session.request().await;
        let partitions = vec![partition(0, Code::OutOfRange)];
        session.reply(Reply::Started(v1::SubscribeStarted { partitions })).await;
        session.replies.closed().await;
    });
    let node = refusing.start().await;
    let error = node.client().await.subscribe(from(Offset(7))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::OutOfRange, "at the start it is the caller who is wrong");
}

/// The epoch that came last goes with the place, and the topic's id, also before any record has come.
#[tokio::test]
async fn the_epoch_and_the_topic_of_what_was_read_are_told_when_reading_goes_on() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let script_asked = Arc::clone(&asked);
    let fake = Fake::new().subscribing(move |mut session: SubscribeSession| {
        let asked = Arc::clone(&script_asked);
        async move {
            let Some(Request::Start(start)) = session.request().await.and_then(|it| it.request) else {
                panic!("not a start");
            };
            let of_0 = start.partitions[0].clone();
            asked.lock().push((of_0.position.and_then(|it| it.at), of_0.last_epoch, of_0.topic_id));
            let stands = v1::PartitionData {
                topic: "t".into(),
                topic_id: Some("the first".into()),
                next_offset: 5,
                last_epoch: of_0.last_epoch.or(Some(3)),
                ..Default::default()
            };
            session.reply(Reply::Started(v1::SubscribeStarted { partitions: vec![stands] })).await;
            match session.number {
                0 => session.break_off().await,
                1 => {
                    let chunk = v1::Chunk {
                        appended_at_ms: 1_000,
                        appended_at_estimated: false,
                        data: Some(v1::chunk::Data::Batches(stored(5, 1))),
                    };
                    let data = v1::PartitionData {
                        topic: "t".into(),
                        topic_id: Some("the first".into()),
                        next_offset: 6,
                        end_offset: 6,
                        last_epoch: Some(7),
                        chunks: vec![chunk],
                        ..Default::default()
                    };
                    session.reply(Reply::Data(data)).await;
                    session.break_off().await;
                }
                _ => {
                    let mut lost = partition(0, Code::OutOfRange);
                    let error = lost.error.as_mut().unwrap();
                    error.reason = "LOG_TRUNCATED".into();
                    error.metadata.insert("diverging_offset".into(), "4".into());
                    session.reply(Reply::Data(lost)).await;
                    session.replies.closed().await;
                }
            }
        }
    });
    let node = fake.start().await;
    let mut subscription = node.client().await.subscribe(from(Offset(5))).await.unwrap();
    let data = next(&mut subscription).await;
    assert_eq!((offsets(&data), data.last_epoch), (vec![5], Some(7)));
    let error = next(&mut subscription).await.error.unwrap();
    assert_eq!((error.kind(), error.diverging_offset()), (ErrorKind::Truncated, Some(Offset(4))));
    assert!(timeout(SOON, subscription.next()).await.unwrap().is_none(), "it is not read any more");
    let at = |offset| Some(At::Offset(offset));
    let first = || Some("the first".to_owned());
    assert_eq!(*asked.lock(), [(at(5), None, None), (at(5), Some(3), first()), (at(6), Some(7), first())]);
}
