//! What loops make of what they read: in each [pass](crate::standing), of each record once.

use std::collections::BTreeMap;

use logmill_record::Offset;

use crate::ledger::Contents;
use crate::standing::{Spot, Standings};
use crate::world::IN;

/// What a loop makes of a record.
pub(crate) fn made_of(group: &str, pass: usize, partition: u32, offset: Offset) -> String {
    format!("{group}:{pass}:{partition}:{offset}")
}

/// How often something was made of each record of a partition, by pass.
type Made = BTreeMap<u32, BTreeMap<usize, BTreeMap<Offset, u32>>>;

/// All that a group has made.
fn made_by(group: &str, contents: &Contents) -> Made {
    let mut made = Made::new();
    let values = contents.values().flat_map(|(_, records)| records.values());
    for what in values.filter_map(|value| Some(value.split_once('|')?.1)) {
        let Some(rest) = what.strip_prefix(group).and_then(|rest| rest.strip_prefix(':')) else { continue };
        let numbers: Vec<u64> = rest.split(':').map(|number| number.parse().unwrap()).collect();
        let [pass, partition, offset] = numbers[..] else { panic!("a loop has made {what}") };
        let of = made.entry(u32::try_from(partition).unwrap()).or_default();
        let of = of.entry(usize::try_from(pass).unwrap()).or_default();
        *of.entry(Offset(offset)).or_default() += 1;
    }
    made
}

/// A group has read all that there is of these partitions, and is in that pass of each.
pub(crate) fn check_loop(contents: &Contents, group: &str, at: &BTreeMap<u32, usize>, standings: &Standings) {
    let mut made = made_by(group, contents);
    for ((_, partition), (topic, records)) in contents.iter().filter(|((topic, _), _)| *topic == IN) {
        let Some(last) = at.get(partition) else { continue };
        let mut by_pass = made.remove(partition).unwrap_or_default();
        let spot = (*topic, *partition);
        for pass in 0..=*last {
            let made = by_pass.remove(&pass).unwrap_or_default();
            let end = (pass == *last).then_some(Offset(u64::MAX));
            check_pass((group, spot, pass), records.keys(), made, end, standings);
        }
        assert!(by_pass.is_empty(), "{group} has made {by_pass:?} of {partition} after pass {last}");
    }
    assert!(made.is_empty(), "{group} has made {made:?} of what is not there");
}

/// Of every record from where a pass began to where it ended something was made once, and of nothing else. It ended
/// there, or at some place behind all that was acknowledged.
fn check_pass<'a>(
    (group, spot, pass): (&str, Spot, usize),
    records: impl Iterator<Item = &'a Offset>,
    mut made: BTreeMap<Offset, u32>,
    end: Option<Offset>,
    standings: &Standings,
) {
    let begin = standings.begin(group, spot, pass).expect("it was begun");
    let committed = standings.furthest(group, spot, pass).unwrap_or(begin);
    let last_made = made.last_key_value().map_or(begin, |(last, _)| last.saturating_add(1));
    let end = end.unwrap_or(committed.max(last_made));
    for offset in records.filter(|offset| (begin..end).contains(offset)) {
        let times = made.remove(offset).unwrap_or(0);
        assert_eq!(times, 1, "{group} has made that much of {offset} of {} in pass {pass}", spot.1);
    }
    assert!(made.is_empty(), "{group} has made {made:?} of {} in pass {pass}, from {begin} on", spot.1);
}
