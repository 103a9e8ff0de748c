//! Where a subscription is in each of its partitions.

use std::collections::HashMap;

use logmill_proto::v1;
use logmill_record::Offset;

use crate::{Error, ErrorKind, FetchFrom, PartitionData, Position};

#[derive(Debug)]
pub(super) struct Places {
    places: Vec<Place>,
    by_name: HashMap<String, HashMap<u32, usize>>,
}

#[derive(Debug)]
struct Place {
    /// Where to go on.
    from: FetchFrom,
    /// The node has said that there is nothing to read, and will say so again.
    gone: bool,
}

impl Places {
    pub(super) fn new(partitions: Vec<FetchFrom>) -> Places {
        let mut by_name: HashMap<String, HashMap<u32, usize>> = HashMap::new();
        for (index, from) in partitions.iter().enumerate() {
            by_name.entry(from.topic.clone()).or_default().insert(from.partition, index);
        }
        Places { places: partitions.into_iter().map(|from| Place { from, gone: false }).collect(), by_name }
    }

    /// What to ask the node for.
    pub(super) fn wanted(&self) -> Result<Vec<v1::FetchPartition>, Error> {
        self.places.iter().filter(|place| !place.gone).map(|place| place.from.to_proto(0)).collect()
    }

    pub(super) fn all_gone(&self) -> bool {
        self.places.iter().all(|place| place.gone)
    }

    /// Takes in what the node sent, and moves on behind it.
    pub(super) fn accept(&mut self, data: v1::PartitionData) -> Result<PartitionData, Error> {
        let Some(place) = self.find(&data.topic, data.partition) else {
            let name = format!("{}/{}", data.topic, data.partition);
            return Err(Error::nonsense(format!("data of {name}, for which it was not asked")));
        };
        let data = PartitionData::received(data, place.from.floor())?;
        match &data.error {
            None => place.from = data.go_on(),
            Some(error) => place.gone = is_lasting(error.kind()),
        }
        Ok(data)
    }

    /// Takes in where a partition stands, of which nothing has come yet: from here on it would be noticed if another
    /// topic got its name, or what lies before the place were lost.
    pub(super) fn started(&mut self, data: &v1::PartitionData) {
        let Some(place) = self.find(&data.topic, data.partition) else { return };
        place.from.topic_id = data.topic_id.clone().or(place.from.topic_id.take());
        if place.from.position == Position::Offset(Offset::try_from(data.next_offset).unwrap_or_default()) {
            place.from.last_epoch = data.last_epoch;
        }
    }

    fn find(&mut self, topic: &str, partition: i32) -> Option<&mut Place> {
        let index = *self.by_name.get(topic)?.get(&u32::try_from(partition).ok()?)?;
        self.places.get_mut(index)
    }
}

/// Whether a partition is not worth asking for on the next stream. One that only failed may be healed by the
/// restart of its node that ends the present stream.
fn is_lasting(kind: ErrorKind) -> bool {
    use ErrorKind::{Denied, Invalid, NotFound, OutOfRange, TooLarge, Truncated};
    matches!(kind, NotFound | OutOfRange | Truncated | Invalid | TooLarge | Denied)
}
