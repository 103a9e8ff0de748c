//! The table against a model that knows nothing but the batches there ever were.

use logmill_record::{Offset, TimestampMs};

use super::{Kind, Note, Producers, Verdict};
use crate::error::ErrorKind;
use crate::format::index::Footer;
use crate::format::state::{REMEMBERED_BATCHES, StateFile};
use crate::segment::IndexBuilder;
use crate::sim::SimRandom;

fn note(producer_id: i64, epoch: i16, first: i32, records: u32) -> Note {
    let last_offset_delta = records - 1;
    let last_sequence = super::note::sequence_after(first, last_offset_delta);
    let kind = Kind::Data { first_sequence: first, last_sequence, opens: false };
    Note { producer_id, epoch, last_offset_delta, kind }
}

fn transactional(note: Note) -> Note {
    let Kind::Data { first_sequence, last_sequence, .. } = note.kind else { return note };
    Note { kind: Kind::Data { first_sequence, last_sequence, opens: true }, ..note }
}

fn marker(producer_id: i64, epoch: i16, kind: Kind) -> Note {
    Note { producer_id, epoch, last_offset_delta: 0, kind }
}

/// Checks and applies; the offset after it, or what kept it out.
fn append(table: &mut Producers, at: u64, note: Note) -> Result<Verdict, ErrorKind> {
    let verdict = table.check(&[Some(note)]).map_err(|error| error.kind())?;
    if verdict == Verdict::Fresh {
        table.apply(&note, Offset(at), TimestampMs(i64::try_from(at).unwrap_or(0)));
    }
    Ok(verdict)
}

#[test]
fn sequences_wrap_to_zero() {
    let mut table = Producers::default();
    assert_eq!(append(&mut table, 0, note(1, 0, i32::MAX - 1, 4)), Ok(Verdict::Fresh));
    assert_eq!(table.get(1).and_then(super::Producer::last_sequence), Some(1));
    assert_eq!(append(&mut table, 4, note(1, 0, 3, 1)), Err(ErrorKind::OutOfSequence));
    assert_eq!(append(&mut table, 4, note(1, 0, 2, 1)), Ok(Verdict::Fresh));
    let first = Verdict::Duplicate(Offset(0), Offset(4), TimestampMs(0));
    assert_eq!(append(&mut table, 5, note(1, 0, i32::MAX - 1, 4)), Ok(first));
    assert_eq!(append(&mut table, 5, note(2, 0, i32::MAX, 1)), Ok(Verdict::Fresh));
    assert_eq!(append(&mut table, 6, note(2, 0, 0, 1)), Ok(Verdict::Fresh), "2^31 - 1 is followed by 0");
}

#[test]
fn what_lies_behind_is_told_from_what_comes_too_early() {
    let mut table = Producers::default();
    assert_eq!(append(&mut table, 0, note(1, 0, i32::MAX - 9, 10)), Ok(Verdict::Fresh));
    assert_eq!(append(&mut table, 10, note(1, 0, 0, 10)), Ok(Verdict::Fresh), "ten follows, past the wrap");
    for (first, records) in [(9, 1), (0, 9), (i32::MAX, 1), (i32::MAX - 9, 5)] {
        let answer = append(&mut table, 20, note(1, 0, first, records));
        assert_eq!(answer, Err(ErrorKind::SequenceForgotten), "{first}");
    }
    let half_new = append(&mut table, 20, note(1, 0, 5, 10));
    assert_eq!(half_new, Err(ErrorKind::OutOfSequence), "the log does not have all of it");
    assert_eq!(append(&mut table, 20, note(1, 0, 11, 1)), Err(ErrorKind::OutOfSequence));
    let of_new_epoch = append(&mut table, 20, note(1, 1, i32::MAX, 1));
    assert_eq!(of_new_epoch, Err(ErrorKind::OutOfSequence), "nothing of the epoch has been");
}

#[test]
fn sixty_four_batches_are_remembered() {
    let mut table = Producers::default();
    let count = REMEMBERED_BATCHES as u64 + 1;
    for n in 0..count {
        append(&mut table, n, note(1, 0, i32::try_from(n).unwrap_or(0), 1)).unwrap_or(Verdict::Fresh);
    }
    assert_eq!(append(&mut table, count, note(1, 0, 0, 1)), Err(ErrorKind::SequenceForgotten));
    let second = Verdict::Duplicate(Offset(1), Offset(2), TimestampMs(1));
    assert_eq!(append(&mut table, count, note(1, 0, 1, 1)), Ok(second));
}

#[test]
fn a_marker_of_a_newer_epoch_fences_and_begins_anew() {
    let mut table = Producers::default();
    assert_eq!(append(&mut table, 0, transactional(note(1, 3, 7, 2))), Ok(Verdict::Fresh));
    assert_eq!(append(&mut table, 2, note(1, 3, 9, 1)), Err(ErrorKind::Invalid), "not part of it");
    assert_eq!(append(&mut table, 2, marker(1, 4, Kind::Abort)), Ok(Verdict::Fresh));
    assert_eq!(append(&mut table, 3, note(1, 3, 9, 1)), Err(ErrorKind::Fenced));
    assert_eq!(append(&mut table, 3, note(1, 4, 9, 1)), Err(ErrorKind::OutOfSequence));
    assert_eq!(append(&mut table, 3, note(1, 4, 0, 1)), Ok(Verdict::Fresh));
    assert_eq!(append(&mut table, 4, marker(1, 3, Kind::Commit)), Err(ErrorKind::Fenced));
    let aborted: Vec<_> = table.aborted().iter().map(|txn| (txn.first_offset, txn.last_offset)).collect();
    assert_eq!(aborted, [(Offset(0), Offset(2))]);
}

#[test]
fn only_a_durable_marker_moves_what_is_stable() {
    let mut table = Producers::default();
    for (at, note) in [(0, transactional(note(1, 0, 0, 1))), (1, transactional(note(2, 0, 0, 1)))] {
        assert_eq!(append(&mut table, at, note), Ok(Verdict::Fresh));
    }
    assert_eq!(append(&mut table, 2, marker(1, 0, Kind::Commit)), Ok(Verdict::Fresh));
    assert_eq!(table.first_unstable(), Some(Offset(0)));
    table.note_durable(Offset(2));
    assert_eq!(table.first_unstable(), Some(Offset(0)), "the marker itself is not on disk");
    table.note_durable(Offset(3));
    assert_eq!(table.first_unstable(), Some(Offset(1)));
}

#[test]
fn a_group_counts_batch_by_batch_and_is_a_duplicate_only_as_a_whole() {
    let mut table = Producers::default();
    let group = [Some(note(1, 0, 0, 2)), None, Some(note(1, 0, 2, 1))];
    assert_eq!(table.check(&group).ok(), Some(Verdict::Fresh));
    let with_gap = [Some(note(1, 0, 0, 2)), Some(note(1, 0, 3, 1))];
    assert_eq!(table.check(&with_gap).map_err(|error| error.kind()), Err(ErrorKind::OutOfSequence));
    assert!(table.is_empty(), "a check changes nothing");

    table.apply(&note(1, 0, 0, 2), Offset(0), TimestampMs(7));
    table.apply(&note(1, 0, 2, 1), Offset(2), TimestampMs(7));
    let again = [Some(note(1, 0, 0, 2)), Some(note(1, 0, 2, 1))];
    let whole = Verdict::Duplicate(Offset(0), Offset(3), TimestampMs(7));
    assert_eq!(table.check(&again).ok(), Some(whole));
    let half = [Some(note(1, 0, 2, 1)), Some(note(1, 0, 3, 1))];
    assert_eq!(table.check(&half).map_err(|error| error.kind()), Err(ErrorKind::Invalid));
}

#[test]
fn the_one_longest_unheard_of_makes_room_unless_in_a_transaction() {
    let mut table = Producers { most: 3, ..Producers::default() };
    assert_eq!(append(&mut table, 0, transactional(note(1, 0, 0, 1))), Ok(Verdict::Fresh));
    for id in [2, 3, 4] {
        assert_eq!(append(&mut table, id, note(i64::try_from(id).unwrap_or(0), 0, 0, 1)), Ok(Verdict::Fresh));
    }
    let known: Vec<i64> = table.by_id.keys().copied().collect();
    assert_eq!(known, [1, 3, 4]);
    for (at, id) in [(5, 3), (6, 4)] {
        assert_eq!(append(&mut table, at, transactional(note(id, 0, 1, 1))), Ok(Verdict::Fresh));
    }
    assert_eq!(append(&mut table, 7, note(9, 0, 0, 1)), Err(ErrorKind::Limit));
}

#[test]
fn who_is_silent_is_forgotten_but_not_in_a_transaction() {
    let mut table = Producers::default();
    table.apply(&transactional(note(1, 0, 0, 1)), Offset(0), TimestampMs(0));
    table.apply(&note(2, 0, 0, 1), Offset(1), TimestampMs(10));
    table.apply(&note(3, 0, 0, 1), Offset(2), TimestampMs(20));
    table.expire(TimestampMs(25), std::time::Duration::from_millis(10));
    let known: Vec<i64> = table.by_id.keys().copied().collect();
    assert_eq!(known, [1, 3]);
    assert_eq!(append(&mut table, 3, note(2, 0, 57, 1)), Ok(Verdict::Fresh), "any sequence is taken");
}

/// Every batch of one producer, and what may come next.
#[derive(Default)]
struct Model {
    epoch: i16,
    batches: Vec<(i32, u32, u64)>,
    transaction: Option<u64>,
    known: bool,
    anew: bool,
}

impl Model {
    fn answer(&self, epoch: i16, first: i32, records: u32, opens: bool) -> Result<Option<u64>, ErrorKind> {
        let seen = self.batches.iter().rev().take(REMEMBERED_BATCHES);
        if let Some((_, _, at)) =
            seen.filter(|_| epoch == self.epoch).find(|(f, n, _)| (*f, *n) == (first, records))
        {
            return Ok(Some(*at));
        }
        let next = match self.batches.last() {
            Some((first, records, _)) if epoch == self.epoch => {
                Some((i64::from(*first) + i64::from(*records)) % (1 << 31))
            }
            _ if self.known && (epoch > self.epoch || self.anew) => Some(0),
            _ => None,
        };
        match next {
            _ if self.known && epoch < self.epoch => Err(ErrorKind::Fenced),
            Some(next) if next != i64::from(first) => {
                // Sequences go round; what lies in the half behind has been.
                let back = (next - i64::from(first)).rem_euclid(1 << 31);
                let has_been = back < 1 << 30 && i64::from(records) <= back && !self.batches.is_empty();
                Err(if epoch == self.epoch && has_been {
                    ErrorKind::SequenceForgotten
                } else {
                    ErrorKind::OutOfSequence
                })
            }
            _ if self.transaction.is_some() && !opens => Err(ErrorKind::Invalid),
            _ => Ok(None),
        }
    }

    fn enter(&mut self, epoch: i16) {
        if self.known && epoch != self.epoch {
            self.batches.clear();
            self.anew = true;
        }
        (self.known, self.epoch) = (true, epoch);
    }
}

/// A table and the models of its producers, which are given the same batches.
struct Compared {
    random: SimRandom,
    table: Producers,
    models: [Model; 3],
    /// Where the log goes on.
    at: u64,
}

impl Compared {
    fn below(&self, bound: u64) -> i32 {
        i32::try_from(self.random.below(bound)).unwrap_or(0)
    }

    /// A batch or a marker of one of the producers; now and then the table is read back from its file.
    fn step(&mut self, what: &str) {
        let which = usize::try_from(self.random.below(3)).unwrap_or(0);
        let one_off = || i16::from(self.random.one_in(20));
        let epoch = self.models[which].epoch + one_off() - one_off();
        if epoch < 0 {
            return;
        }
        if self.random.one_in(8) {
            return self.end_transaction(which, epoch, what);
        }
        self.produce(which, epoch, what);
        let open = self.models.iter().filter_map(|model| model.transaction).min().map(Offset);
        self.table.note_durable(Offset(self.at));
        assert_eq!(self.table.first_unstable(), open, "{what}");
        if self.random.one_in(30) {
            self.table = Producers::at_end(reread(&self.table.to_file(), self.at));
        }
    }

    fn end_transaction(&mut self, which: usize, epoch: i16, what: &str) {
        let kind = if self.random.one_in(2) { Kind::Commit } else { Kind::Abort };
        let outcome = append(&mut self.table, self.at, marker(id(which), epoch, kind));
        let model = &mut self.models[which];
        let fenced = model.known && epoch < model.epoch;
        assert_eq!(outcome.is_err(), fenced, "{what}");
        if !fenced {
            model.enter(epoch);
            model.transaction = None;
            self.at += 1;
        }
    }

    fn produce(&mut self, which: usize, epoch: i16, what: &str) {
        let (first, count) = self.draw(&self.models[which], epoch);
        let model = &mut self.models[which];
        let opens = model.transaction.is_some() != self.random.one_in(10);
        let batch = note(id(which), epoch, first, count);
        let outcome = append(&mut self.table, self.at, if opens { transactional(batch) } else { batch });
        let expected = model.answer(epoch, first, count, opens);
        let got = outcome.map(|verdict| match verdict {
            Verdict::Fresh => None,
            Verdict::Duplicate(first, ..) => Some(first.get()),
        });
        assert_eq!(got, expected, "{what}: {batch:?}");
        if expected == Ok(None) {
            model.enter(epoch);
            model.batches.push((first, count, self.at));
            model.anew = false;
            if opens {
                model.transaction.get_or_insert(self.at);
            }
            self.at += u64::from(count);
        }
    }

    /// First sequence and length of a batch: mostly what comes next, or one that was before, or one out
    /// of sequence.
    fn draw(&self, model: &Model, epoch: i16) -> (i32, u32) {
        let records = self.below(3).unsigned_abs() + 1;
        let (first, count) = match model.batches.last() {
            Some((first, records, _)) if epoch == model.epoch => {
                (super::note::sequence_after(*first, *records), self.below(3).unsigned_abs() + 1)
            }
            _ if model.known => (0, records),
            _ => (i32::MAX - self.below(4), records),
        };
        if self.random.one_in(6) {
            return (super::note::sequence_after(first, self.below(5).unsigned_abs()), count);
        }
        if self.random.one_in(4) && !model.batches.is_empty() {
            let back = self.below(70.min(model.batches.len() as u64)).unsigned_abs() as usize;
            let (first, count, _) = model.batches[model.batches.len() - 1 - back];
            return (first, count);
        }
        (first, count)
    }
}

fn id(which: usize) -> i64 {
    i64::try_from(which).unwrap_or(0)
}

#[test]
fn the_table_answers_as_a_model_does_also_after_its_file_was_read_back() {
    for seed in 0..200 {
        let random = SimRandom::new(seed);
        let mut compared =
            Compared { random, table: Producers::default(), models: Default::default(), at: 0 };
        (0..300).for_each(|step| compared.step(&format!("seed {seed}, step {step}")));
    }
}

fn reread(state: &StateFile, next: u64) -> StateFile {
    let footer = Footer { next_offset: Offset(next), ..*IndexBuilder::new(Offset(0)).footer() };
    let path = std::path::Path::new("a.state");
    let bytes = state.encode(&footer);
    let read = StateFile::decode(path, &bytes, &footer).ok();
    assert_eq!(read.as_ref(), Some(state));
    for len in 0..bytes.len().min(200) {
        assert!(StateFile::decode(path, &bytes[..len], &footer).is_err(), "cut to {len} bytes");
    }
    let other = Footer { headers_crc: 1, ..footer };
    assert!(StateFile::decode(path, &bytes, &other).is_err(), "of other contents");
    state.clone()
}
