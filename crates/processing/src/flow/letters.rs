//! Letters: source records set aside, as they came, with where they came from and why.
//!
//! Their headers are specified in the crate's documentation, "Records that cannot be processed".

use std::collections::BTreeMap;

use bytes::Bytes;
use logmill_record::{BatchError, InflateLimits, Offset, TimestampMs};

use super::{Flow, unreadable};
use crate::error::Error;
use crate::operator::{Letter, Origin, OutRecord, Why};

/// Reasons are cut here: a letter has to fit where its record did.
const MAX_REASON_BYTES: usize = 1_024;

impl Flow {
    /// The letters as records, by the topic that they go to.
    pub(super) fn address(&self, letters: Vec<Letter>) -> Result<BTreeMap<String, Vec<OutRecord>>, Error> {
        let originals = self.originals(&letters)?;
        let mut addressed: BTreeMap<String, Vec<OutRecord>> = BTreeMap::new();
        for letter in letters {
            let topic = match letter.why {
                Why::Dead(_) => self.plan.dead_topic(),
                Why::Late { .. } => self.plan.late_topic(letter.node),
            };
            let record = self.letter(&letter, &originals);
            addressed.entry(topic.to_owned()).or_default().push(record);
        }
        Ok(addressed)
    }

    fn letter(&self, letter: &Letter, originals: &BTreeMap<(usize, Offset), OutRecord>) -> OutRecord {
        let mut window = None;
        let mut record = match (self.step.record(letter.origin), letter.origin) {
            (Some(taken), _) => originals.get(&(taken.partition, taken.offset)).cloned(),
            (None, Origin::Window(index)) => {
                window = self.step.spans.get(index as usize).copied();
                None
            }
            (None, Origin::Record(_)) => None,
        }
        .unwrap_or_else(|| OutRecord {
            key: None,
            value: None,
            timestamp: TimestampMs(window.map_or(TimestampMs::NONE.0, |(_, end)| end - 1)),
            headers: vec![("logmill.origin.topic".to_owned(), Some(Bytes::from(self.topic.clone())))],
            spread: 0,
        });
        let mut add =
            |name: &str, value: String| record.headers.push((name.to_owned(), Some(Bytes::from(value))));
        add("logmill.step", self.plan.step_name(letter.node).to_owned());
        match &letter.why {
            Why::Dead(reason) => add("logmill.error", cut(reason).to_owned()),
            Why::Late { start, end } => window = Some((*start, *end)),
        }
        if let Some((start, end)) = window {
            add("logmill.window.start", start.to_string());
            add("logmill.window.end", end.to_string());
        }
        record
    }

    /// The source records that letters are about, with their origin in the headers; each batch is walked once.
    fn originals(&self, letters: &[Letter]) -> Result<BTreeMap<(usize, Offset), OutRecord>, Error> {
        let wanted = letters.iter().filter_map(|letter| self.step.record(letter.origin));
        let mut originals: BTreeMap<(usize, Offset), Option<OutRecord>> =
            wanted.map(|taken| ((taken.partition, taken.offset), None)).collect();
        for (at, partition) in self.partitions.iter().enumerate() {
            for batch in partition.batches() {
                let header = batch.header();
                let mut inside = originals.range_mut((at, header.base_offset)..=(at, header.last_offset()));
                if inside.next().is_none() {
                    continue;
                }
                let unreadable = |error: BatchError| unreadable(&self.topic, partition, error);
                let batch = batch.inflate(&InflateLimits::default()).map_err(unreadable)?;
                for record in batch.records().map_err(unreadable)? {
                    let record = record.map_err(unreadable)?;
                    let Some(original) = originals.get_mut(&(at, record.offset)) else { continue };
                    let slice = |bytes: &[u8]| batch.bytes().slice_ref(bytes);
                    let mut headers: Vec<(String, Option<Bytes>)> = record
                        .headers()
                        .map(|header| (header.key.to_owned(), header.value.map(slice)))
                        .collect();
                    let mut add =
                        |name: &str, value: String| headers.push((name.to_owned(), Some(value.into())));
                    add("logmill.origin.topic", self.topic.clone());
                    add("logmill.origin.partition", partition.number.to_string());
                    add("logmill.origin.offset", record.offset.to_string());
                    *original = Some(OutRecord {
                        key: record.key.map(slice),
                        value: record.value.map(slice),
                        timestamp: record.timestamp,
                        headers,
                        spread: partition.number,
                    });
                }
            }
        }
        Ok(originals.into_iter().filter_map(|(place, record)| Some((place, record?))).collect())
    }
}

fn cut(reason: &str) -> &str {
    let mut end = reason.len().min(MAX_REASON_BYTES);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    &reason[..end]
}
