//! Who reads what is committed, and who reads everything.

use std::collections::BTreeMap;

use logmill_broker::{Error, Fetch, FetchFrom, Isolation, PartitionData, Position, Uuid};
use logmill_record::Offset;

use crate::ledger::Contents;
use crate::world::{Call, IN, OUT, PARTITIONS, Place, SIDE, World, answer};

/// A reader of a partition.
pub(crate) struct Reader {
    place: Place,
    topic_id: Option<Uuid>,
    next: Position,
    isolation: Isolation,
    call: Option<Call<Result<Vec<PartitionData>, Error>>>,
}

/// Every partition.
pub(crate) fn places(world: &World) -> impl Iterator<Item = Place> + use<> {
    let of = |name, count| (0..count).map(move |partition| (name, partition));
    of(IN, world.in_partitions).chain(of(OUT, PARTITIONS)).chain([(SIDE, 0)])
}

/// The records that came, with their offsets.
pub(crate) fn records(data: &PartitionData) -> Vec<(Offset, String)> {
    let text = |record: logmill_broker::DecodedRecord| {
        String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("it was sent as text")
    };
    let records = data.records().map(|record| record.expect("what is stored can be read"));
    records.map(|record| (record.offset, text(record))).collect()
}

/// Has the ledger check what somebody has read who asked for what is committed.
pub(crate) fn has_read(world: &mut World, data: &PartitionData) {
    for (offset, value) in records(data) {
        world.ledger.read(data.topic_id.expect("it was read"), data.partition, offset, &value);
    }
}

impl Reader {
    pub(crate) fn new(world: &World) -> Self {
        let isolation = if world.one_in(5) { Isolation::ReadUncommitted } else { Isolation::ReadCommitted };
        Self { place: Self::choose(world), topic_id: None, next: Position::Earliest, isolation, call: None }
    }

    fn choose(world: &World) -> Place {
        let all: Vec<_> = places(world).collect();
        all[world.index(all.len())]
    }

    pub(crate) fn go_on(&mut self, world: &World) {
        if self.call.is_some() {
            return;
        }
        if world.one_in(15) {
            (self.topic_id, self.next) = (None, Position::Earliest);
            if world.one_in(3) {
                self.place = Self::choose(world);
            }
        }
        let from =
            FetchFrom { topic_id: self.topic_id, ..FetchFrom::new(self.place.0, self.place.1, self.next) };
        let fetch = Fetch::new(vec![from]).max_bytes(world.index(2_000)).isolation(self.isolation);
        self.call = Some(Box::pin(world.broker.fetch(&world.context, fetch)));
    }

    pub(crate) fn collect(&mut self, world: &mut World) {
        let Some(come) = self.call.as_mut().and_then(answer) else { return };
        self.call = None;
        let Ok(data) = come.map(|mut all| all.remove(0)) else { return };
        if let Some(error) = &data.error {
            world.count(format!("read: {}", error.reason()));
            (self.topic_id, self.next) = (None, Position::Earliest);
            return;
        }
        world.count("read: answered");
        (self.topic_id, self.next) = (data.topic_id, Position::Offset(data.next_offset));
        match self.isolation {
            Isolation::ReadCommitted => has_read(world, &data),
            Isolation::ReadUncommitted => drop(records(&data)),
        }
    }

    pub(crate) fn cut_off(&mut self) {
        self.call = None;
    }
}

/// All that is committed, nothing failing any more: no transaction holds anything back.
pub(crate) fn read_all(world: &mut World) -> Contents {
    let mut contents = Contents::new();
    for place in places(world) {
        let mut next = Position::Earliest;
        let mut all = BTreeMap::new();
        loop {
            let fetch = Fetch::new(vec![FetchFrom::new(place.0, place.1, next)]);
            let data = world.wait(world.broker.fetch(&world.context, fetch)).unwrap().remove(0);
            if let Some(error) = data.error {
                assert_eq!(place.0, SIDE, "{place:?}: {error}");
                break;
            }
            has_read(world, &data);
            all.extend(records(&data));
            assert_eq!(data.last_stable_offset, data.end_offset, "{place:?}: a transaction is left open");
            if data.next_offset == data.end_offset {
                contents.insert(place, (data.topic_id.expect("it was read"), all));
                break;
            }
            next = Position::Offset(data.next_offset);
        }
    }
    contents
}
