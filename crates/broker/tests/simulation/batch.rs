//! Records that say who sent them.

use bytes::Bytes;
use logmill_broker::ProduceRecord;
use logmill_record::{Batch, BatchBuilder, BatchOptions, Compression, NewRecord, TimestampMs};

use crate::history::Id;
use crate::world::World;

const CODECS: [Compression; 4] =
    [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// More than the largest batch takes.
const ROOM: usize = 8_000;

/// What some records are like, however often they are sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Like {
    filler: usize,
    keyed: bool,
    compression: Compression,
}

impl Like {
    /// As the seed has it; records of a compacted topic have keys.
    pub(crate) fn any(world: &World, topic: &str) -> Self {
        let filler = world.index(if world.one_in(4) { 900 } else { 60 });
        let keyed = world.topic(topic).compacted || world.one_in(4);
        let compression = if world.one_in(5) { CODECS[world.index(4)] } else { Compression::None };
        Self { filler, keyed, compression }
    }

    fn value(self, id: Id) -> String {
        id.value(&"x".repeat(self.filler))
    }

    fn key(self, id: Id) -> Option<String> {
        self.keyed.then(|| id.key())
    }

    /// As plain records.
    pub(crate) fn records(self, ids: &[Id]) -> Vec<ProduceRecord> {
        let record = |id: &Id| {
            let (key, value) = (self.key(*id).map(Bytes::from), Some(Bytes::from(self.value(*id))));
            ProduceRecord { key, value, ..ProduceRecord::default() }
        };
        ids.iter().map(record).collect()
    }

    /// As a batch that a producer made.
    pub(crate) fn batch(self, ids: &[Id]) -> Batch {
        let options = BatchOptions::new().compression(self.compression);
        let mut builder = BatchBuilder::with_options(options, ROOM);
        for id in ids {
            let (key, value) = (self.key(*id), self.value(*id));
            let (key, value) = (key.as_deref().map(str::as_bytes), Some(value.as_bytes()));
            builder.push(&NewRecord { timestamp: TimestampMs(1_000), key, value, headers: &[] }).unwrap();
        }
        builder.build().unwrap()
    }
}
