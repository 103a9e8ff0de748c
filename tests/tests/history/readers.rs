//! Readers that tell a history what they read, and go on where they were whatever happens.

use std::sync::Arc;
use std::time::Duration;

use logmill_client::{
    Client, Error, ErrorKind, Fetch, FetchFrom, PartitionData, Position, Subscribe, Subscription,
};
use logmill_record::Offset;
use logmill_tests::history::{Id, Place, Session};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::run::Scene;

/// Where the places end, once nothing is produced any more.
pub(crate) type Ends = watch::Receiver<Option<Vec<Offset>>>;

/// The next try of a reader that could not read.
const PAUSE: Duration = Duration::from_millis(10);
/// A subscription reports sooner than most faults end that it is cut off, and is asked again.
const RECONNECT: Duration = Duration::from_millis(300);

/// No fault keeps a subscription from everything so long.
const SILENCE: Duration = Duration::from_secs(60);

/// Where a reader is in each of the places.
struct Reader {
    scene: Arc<Scene>,
    next: Vec<Offset>,
    sessions: Vec<Session>,
}

impl Reader {
    fn new(scene: Arc<Scene>) -> Self {
        let next = vec![Offset::ZERO; scene.places.len()];
        let begin = |place| scene.history.session(place, Offset::ZERO);
        let sessions = scene.places.iter().map(begin).collect();
        Self { scene, next, sessions }
    }

    /// Whether it has come to the ends. It may be past them: what was answered as written is seen once it is
    /// on disk, and what a producer gave up can still arrive.
    fn is_at(&self, ends: Option<&Vec<Offset>>) -> bool {
        ends.is_some_and(|ends| self.next.iter().zip(ends).all(|(next, end)| next >= end))
    }

    fn wanted(&self) -> Vec<FetchFrom> {
        let each = self.scene.places.iter().zip(&self.next);
        each.map(|(place, next)| FetchFrom::new(&*place.topic, place.partition, *next)).collect()
    }

    fn accept(&mut self, data: &PartitionData) {
        if let Some(error) = &data.error {
            return expect_passing(error);
        }
        let is_it = |place: &Place| *place.topic == *data.topic && place.partition == data.partition;
        let index = self.scene.places.iter().position(is_it).expect("it was asked for");
        for record in data.records() {
            let record = record.unwrap();
            assert!(record.offset < data.next_offset, "{data:?}");
            let id = record.value.and_then(|value| Id::of(&value));
            self.scene.history.read(self.sessions[index], record.offset, id);
        }
        self.next[index] = data.next_offset;
    }
}

/// Subscribes to all places and reads until it has come to their ends.
pub(crate) async fn subscribe(client: Client, scene: Arc<Scene>, mut ends: Ends) {
    let mut reader = Reader::new(scene);
    let mut subscription: Option<Subscription> = None;
    while !reader.is_at(ends.borrow_and_update().as_ref()) {
        let Some(open) = &mut subscription else {
            let from = Subscribe::from(reader.wanted());
            let subscribe = Subscribe { reconnect_timeout: RECONNECT, credit_bytes: 20_000, ..from };
            match client.subscribe(subscribe).await {
                Ok(opened) => subscription = Some(opened),
                Err(error) => pause_after(&error).await,
            }
            continue;
        };
        tokio::select! {
            next = open.next() => match next {
                Some(Ok(data)) => reader.accept(&data),
                // The next call tries again.
                Some(Err(error)) => expect_passing(&error),
                None => subscription = None,
            },
            told = ends.changed() => told.unwrap(),
            () = sleep(SILENCE) => panic!("nothing comes from {:?} on, up to {:?}", reader.next, *ends.borrow()),
        }
    }
}

/// Fetches from all places, waiting for records, until it has come to their ends.
pub(crate) async fn fetch(client: Client, scene: Arc<Scene>, mut ends: Ends) {
    let mut reader = Reader::new(scene);
    while !reader.is_at(ends.borrow_and_update().as_ref()) {
        let max_wait = Duration::from_millis(50);
        let fetch = Fetch { max_wait, max_bytes: 20_000, ..Fetch::from(reader.wanted()) };
        match client.fetch(fetch).await {
            Ok(all) => all.iter().for_each(|data| reader.accept(data)),
            Err(error) => pause_after(&error).await,
        }
    }
}

/// All that a partition holds.
pub(crate) async fn read_whole(client: &Client, place: &Place) -> (Offset, Vec<(Offset, Option<Id>)>) {
    let mut records = Vec::new();
    let mut position = Position::Earliest;
    loop {
        let from = FetchFrom::new(&*place.topic, place.partition, position);
        let data = client.fetch(from.into()).await.unwrap().remove(0);
        assert!(data.error.is_none(), "{:?}", data.error);
        for record in data.records() {
            let record = record.unwrap();
            records.push((record.offset, record.value.and_then(|value| Id::of(&value))));
        }
        if data.next_offset == data.end_offset {
            return (data.start_offset, records);
        }
        position = Position::Offset(data.next_offset);
    }
}

async fn pause_after(error: &Error) {
    expect_passing(error);
    sleep(PAUSE).await;
}

fn expect_passing(error: &Error) {
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
}
