//! Readers: some fetch, some subscribe, each from several partitions at once.

use std::collections::BTreeMap;
use std::time::Duration;

use logmill_broker::{
    Broker, Credit, Error, Fetch, FetchFrom, PartitionData, Position, Reason, RequestContext, Subscribe,
    Subscription, decode,
};
use logmill_record::Offset;

use crate::history::{Id, Place, Session};
use crate::world::{Call, World, answer};

/// A record where it is; `None` if it is none of the history's.
type Found = (Offset, Option<Id>);

/// Where a reader is in a partition.
pub(crate) struct At {
    place: Place,
    next: Position,
    session: Option<Session>,
    /// What it has, if it tells the broker the epoch of that, and is told what is lost of it.
    held: Option<Held>,
}

/// All that a reader has of a partition, but for what it was told is lost.
#[derive(Default)]
struct Held {
    since: Option<Offset>,
    records: BTreeMap<Offset, Option<Id>>,
    /// Where it has been since, with the epochs that it was given there.
    places: BTreeMap<Offset, i32>,
}

impl Held {
    fn add(&mut self, data: &PartitionData, found: &[Found]) {
        self.since.get_or_insert(data.from_offset);
        if let Some(epoch) = data.last_epoch {
            self.places.insert(data.next_offset, epoch);
        }
        for (offset, id) in found {
            if let Some(other) = self.records.insert(*offset, *id) {
                assert_eq!(*id, other, "{}: what is before the diverging offset is there", data.topic);
            }
        }
    }

    /// What is from there on is lost. Where to go on: at a place before it of which the epoch is known.
    fn take_back(&mut self, diverging: Offset) -> Position {
        self.records.split_off(&diverging);
        self.places.retain(|place, _| *place <= diverging);
        match self.places.last_key_value() {
            Some((place, _)) => Position::Offset(*place),
            None => {
                *self = Self::default();
                Position::Earliest
            }
        }
    }

    fn last_epoch(&self) -> Option<i32> {
        self.places.last_key_value().map(|(_, epoch)| *epoch)
    }
}

pub(crate) enum Reader {
    Fetching(Vec<At>, Option<Call<Result<Vec<PartitionData>, Error>>>),
    Subscribing(Vec<At>, Stage),
}

/// How far a subscription is.
pub(crate) enum Stage {
    None,
    Opening(Call<Result<Subscription, Error>>),
    Reading { next: Call<(Subscription, Result<PartitionData, Error>)>, credit: Credit, owed: u64 },
}

impl At {
    fn new(place: Place, held: Option<Held>) -> Self {
        Self { place, next: Position::Earliest, session: None, held }
    }

    fn from(&self) -> FetchFrom {
        let from = FetchFrom::new(&*self.place.topic, self.place.partition, self.next);
        FetchFrom { last_epoch: self.held.as_ref().and_then(Held::last_epoch), ..from }
    }

    fn restart(&mut self) {
        (self.next, self.session) = (Position::Earliest, None);
        self.held = self.held.take().map(|_| Held::default());
    }

    /// Takes what came; false if it was an error.
    fn take(&mut self, world: &World, data: &PartitionData) -> bool {
        if let Some(error) = &data.error {
            world.note(error);
            match error.reason() {
                Reason::OffsetOutOfRange => self.restart(),
                Reason::LogTruncated => {
                    // A subscription itself knows the epoch of what it has sent.
                    let diverging = diverging(error);
                    self.next = match &mut self.held {
                        Some(held) => held.take_back(diverging),
                        None => Position::Offset(diverging),
                    };
                    self.session = None;
                }
                _ => {}
            }
            return false;
        }
        let begin = || world.history.session(&self.place, data.from_offset);
        let session = *self.session.get_or_insert_with(begin);
        let found = identified(data);
        for (offset, id) in &found {
            world.history.read(session, *offset, *id);
        }
        if let Some(held) = &mut self.held {
            held.add(data, &found);
        }
        self.next = Position::Offset(data.next_offset);
        true
    }
}

fn diverging(error: &Error) -> Offset {
    let found = error.metadata().iter().find(|(name, _)| *name == "diverging_offset");
    Offset(found.expect("it says where").1.parse().unwrap())
}

/// The records that came, by whom they say sent them.
fn identified(data: &PartitionData) -> Vec<Found> {
    let records = data.chunks.iter().flat_map(|chunk| decode(chunk.batches.clone(), data.from_offset));
    let id = |record: logmill_broker::DecodedRecord| Id::of(&record.value.unwrap_or_default());
    let identified = records.map(|record| record.expect("what is stored can be read"));
    identified.map(|record| (record.offset, id(record))).collect()
}

impl Reader {
    pub(crate) fn new(world: &World) -> Self {
        let mut places = world.places();
        while places.len() > 1 && world.one_in(2) {
            places.remove(world.index(places.len()));
        }
        let tells = world.one_in(2);
        let at = |place| At::new(place, tells.then(Held::default));
        let places = places.into_iter().map(at).collect();
        if world.one_in(2) { Self::Fetching(places, None) } else { Self::Subscribing(places, Stage::None) }
    }

    /// Asks for more, if nothing is under way.
    pub(crate) fn go_on(&mut self, world: &World) {
        match self {
            Self::Fetching(places, call @ None) => {
                if world.one_in(12) {
                    // Starts again: what was there is still there.
                    places.iter_mut().for_each(At::restart);
                }
                let mut fetch = Fetch::new(places.iter().map(At::from).collect());
                fetch.max_bytes = world.index(3_000);
                if world.one_in(2) {
                    fetch = fetch.max_wait(Duration::from_millis(world.below(500)));
                }
                *call = Some(Box::pin(world.broker.fetch(&world.context, fetch)));
            }
            Self::Subscribing(places, stage @ Stage::None) => {
                *stage =
                    Stage::Opening(subscribe(&world.broker, &world.context, places, 1 + world.below(3_000)));
            }
            Self::Subscribing(_, Stage::Reading { credit, owed, .. }) if *owed > 0 => {
                credit.grant(std::mem::take(owed));
            }
            _ => {}
        }
    }

    /// Takes what has come.
    pub(crate) fn collect(&mut self, world: &World) {
        match self {
            Self::Fetching(places, call) => {
                let Some(come) = call.as_mut().and_then(answer) else { return };
                *call = None;
                for (at, data) in places.iter_mut().zip(come.unwrap_or_default()) {
                    at.take(world, &data);
                }
            }
            Self::Subscribing(places, stage) => {
                if let Some(next) = stage.collect(world, places) {
                    *stage = next;
                }
            }
        }
    }

    /// Reads a partition to its end, nothing failing any more: then a reader that was told of what was lost has
    /// what is there.
    pub(crate) fn compare(&mut self, world: &World, place: &Place, start: Offset, there: &[Found]) {
        let (Self::Fetching(places, _) | Self::Subscribing(places, _)) = self;
        let Some(at) = places.iter_mut().find(|at| at.place == *place) else { return };
        if at.held.is_none() {
            return;
        }
        at.read_to_end(world);
        let held = at.held.as_ref().expect("it was there");
        let from = start.max(held.since.expect("it has read to the end"));
        let mut has: BTreeMap<Offset, Option<Id>> =
            held.records.range(from..).map(|(at, id)| (*at, *id)).collect();
        let there: BTreeMap<Offset, Option<Id>> =
            there.iter().copied().filter(|(at, _)| *at >= from).collect();
        if world.topic(&place.topic).compacted {
            has.retain(|offset, _| there.contains_key(offset));
        }
        assert!(
            has == there,
            "{place}: a reader that was told what is lost has {has:?}, and there is {there:?}"
        );
    }

    /// The connection is gone. It goes on where it was, as a new session.
    pub(crate) fn cut_off(&mut self) {
        let places = match self {
            Self::Fetching(places, call) => {
                *call = None;
                places
            }
            Self::Subscribing(places, stage) => {
                *stage = Stage::None;
                places
            }
        };
        places.iter_mut().for_each(|at| at.session = None);
    }
}

fn subscribe(
    broker: &Broker,
    context: &RequestContext,
    places: &[At],
    credit_bytes: u64,
) -> Call<Result<Subscription, Error>> {
    let partitions = places.iter().map(At::from).collect();
    Box::pin(broker.subscribe(context, Subscribe::new(partitions, credit_bytes)))
}

fn next(mut subscription: Subscription) -> Call<(Subscription, Result<PartitionData, Error>)> {
    Box::pin(async move {
        let data = subscription.next().await;
        (subscription, data)
    })
}

impl Stage {
    /// Takes what has come; where the subscription is then, if it moved.
    fn collect(&mut self, world: &World, places: &mut [At]) -> Option<Self> {
        match self {
            Self::None => None,
            Self::Opening(call) => {
                let Ok(subscription) = answer(call)? else { return Some(Self::None) };
                let mut good = true;
                for (at, data) in places.iter_mut().zip(subscription.started()) {
                    good &= at.take(world, data);
                }
                let credit = subscription.credit();
                Some(if good {
                    Self::Reading { next: next(subscription), credit, owed: 0 }
                } else {
                    Self::None
                })
            }
            Self::Reading { next: call, credit, owed } => {
                let (subscription, data) = answer(call)?;
                let Ok(data) = data else { return Some(Self::None) };
                *owed += data.size_bytes() as u64;
                let is_here =
                    |at: &&mut At| *at.place.topic == *data.topic && at.place.partition == data.partition;
                let at = places.iter_mut().find(is_here).expect("of a partition that was asked for");
                if !at.take(world, &data) {
                    return Some(Self::None);
                }
                let (credit, owed) = (credit.clone(), *owed);
                Some(Self::Reading { next: next(subscription), credit, owed })
            }
        }
    }
}

impl At {
    fn read_to_end(&mut self, world: &World) {
        loop {
            let fetch = world.broker.fetch(&world.context, Fetch::new(vec![self.from()]));
            let data = world.wait(fetch).unwrap().remove(0);
            if self.take(world, &data) {
                if data.next_offset == data.end_offset {
                    return;
                }
            } else {
                let reason = data.error.expect("it was not taken").reason();
                assert!(matches!(reason, Reason::OffsetOutOfRange | Reason::LogTruncated), "{reason}");
            }
        }
    }
}

/// Everything that a partition holds, and where it starts.
pub(crate) fn read_all(world: &World, place: &Place) -> Result<(Offset, Vec<Found>), Error> {
    let mut at = At::new(place.clone(), None);
    let (mut start, mut records) = (None, Vec::new());
    loop {
        let fetch = world.broker.fetch(&world.context, Fetch::new(vec![at.from()]));
        let data = world.wait(fetch)?.remove(0);
        if let Some(error) = data.error {
            return Err(error);
        }
        records.extend(identified(&data));
        let start = *start.get_or_insert(data.from_offset);
        if data.next_offset == data.end_offset {
            return Ok((start, records));
        }
        at.next = Position::Offset(data.next_offset);
    }
}
