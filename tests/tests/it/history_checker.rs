//! The checker of histories: each anomaly is reported from a history that has it, and none from a good one.

use logmill_record::Offset;
use logmill_tests::history::{Ack, Cut, History, Id, Kind, Place, Sending, Tally, To, Visible};

/// A partition, and a producer that promises each record once.
fn begin() -> (History, Place, u32) {
    let history = History::new();
    let producer = history.producer(Sending::Once);
    (history, Place::new("t", 0), producer)
}

/// So many records are sent, and acknowledged as durable at offsets from 0 on.
fn stored(history: &History, place: &Place, producer: u32, count: u64) -> Vec<Id> {
    let store = |offset| {
        let id = history.sent(place, producer);
        history.acknowledged(place, id, Offset(offset), Ack::Durable);
        id
    };
    (0..count).map(store).collect()
}

/// In the end the partition holds these, one at each offset from `start` on.
fn ends_with(history: &History, place: &Place, start: u64, ids: &[Id]) {
    let records = ids.iter().zip(start..).map(|(id, offset)| (Offset(offset), Some(*id))).collect();
    history.contents(place, Offset(start), records);
}

fn anomalies(history: &History) -> Vec<Kind> {
    history.check().anomalies.iter().map(|anomaly| anomaly.kind).collect()
}

#[test]
fn a_good_history_has_no_anomalies_and_is_counted() {
    let (history, place, producer) = begin();
    let ids = stored(&history, &place, producer, 3);
    let (refused, unknown) = (history.sent(&place, producer), history.sent(&place, producer));
    history.refused(&place, refused);
    history.unknown(&place, unknown);
    let reader = history.session(&place, Offset(1));
    history.read(reader, Offset(1), Some(ids[1]));
    history.read(reader, Offset(2), Some(ids[2]));
    history.acknowledged(&place, ids[1], Offset(1), Ack::Durable);
    history.cut(&Cut::Power);
    history.fault("paused process");
    ends_with(&history, &place, 0, &[ids[0], ids[1], ids[2], unknown]);

    let report = history.check();
    assert_eq!(report.anomalies, []);
    let mut tally = Tally::default();
    tally.add(&report);
    let mut both = tally.clone();
    both.merge(&tally);
    let said = both.to_string();
    assert!(said.starts_with("2 histories\n"), "{said}");
    for counted in ["acknowledged durable 8", "read 4", "refused 2", "unknown 2", "sent 10"] {
        assert!(said.contains(counted), "{said}");
    }
    assert!(said.contains("4 faults: paused process 2, power cut 2"), "{said}");
    assert!(said.contains("anomalies 0: lost 0, doubled 0, reordered 0,"), "{said}");
}

#[test]
fn an_acknowledged_record_that_is_not_there_is_lost() {
    let (history, place, producer) = begin();
    let ids = stored(&history, &place, producer, 2);
    ends_with(&history, &place, 0, &ids[..1]);
    let report = history.check();
    assert_eq!(
        report.anomalies[0].to_string(),
        "lost: t/0: record 0 1, acknowledged at offset 1, is not there"
    );
    let mut tally = Tally::default();
    tally.add(&report);
    assert!(tally.to_string().ends_with(
        "anomalies 1: lost 1, doubled 0, reordered 0, wrong offset 0, refused but \
         stored 0, invented 0, not monotone 0, skipped 0, vanished 0, changed 0"
    ));
}

#[test]
fn what_was_only_written_is_lost_to_a_power_cut_or_a_failed_sync_and_not_to_a_kill() {
    let lost_after = |cuts: &[Cut], durable_behind: bool| {
        let (history, place, producer) = begin();
        let id = history.sent(&place, producer);
        history.acknowledged(&place, id, Offset(0), Ack::Written);
        let mut there = Vec::new();
        if durable_behind {
            let id = history.sent(&place, producer);
            history.acknowledged(&place, id, Offset(1), Ack::Durable);
            there.push((Offset(1), Some(id)));
        }
        cuts.iter().for_each(|cut| history.cut(cut));
        history.contents(&place, Offset(0), there);
        anomalies(&history)
    };
    let elsewhere = Cut::FailedSync(Place::new("t", 1));
    assert_eq!(lost_after(&[], false), [Kind::Lost]);
    assert_eq!(lost_after(&[Cut::Kill, elsewhere], false), [Kind::Lost]);
    assert_eq!(lost_after(&[Cut::Power], false), []);
    assert_eq!(lost_after(&[Cut::FailedSync(Place::new("t", 0))], false), []);
    assert_eq!(
        lost_after(&[Cut::Power], true),
        [Kind::Lost],
        "what lies behind it was on disk, so it was too"
    );
}

#[test]
fn an_answer_with_the_offset_of_another_record_is_found() {
    let (history, place, producer) = begin();
    let ids = stored(&history, &place, producer, 2);
    history.acknowledged(&place, ids[1], Offset(0), Ack::Durable);
    ends_with(&history, &place, 0, &ids);
    assert_eq!(anomalies(&history), [Kind::WrongOffset]);
}

#[test]
fn a_record_that_is_there_twice_is_doubled_unless_its_producer_takes_that() {
    for (sending, expected) in [(Sending::Once, vec![Kind::Doubled]), (Sending::Again, vec![])] {
        let history = History::new();
        let (place, producer) = (Place::new("t", 0), history.producer(sending));
        let id = history.sent(&place, producer);
        ends_with(&history, &place, 0, &[id, id]);
        assert_eq!(anomalies(&history), expected);
    }
}

#[test]
fn records_of_one_producer_in_another_order_are_reordered_and_those_of_two_are_not() {
    let (history, place, producer) = begin();
    let other = history.producer(Sending::Once);
    let (first, second) = (history.sent(&place, producer), history.sent(&place, producer));
    let others = history.sent(&place, other);
    ends_with(&history, &place, 0, &[others, first, second]);
    assert_eq!(anomalies(&history), []);
    ends_with(&history, &place, 0, &[second, others, first]);
    assert_eq!(anomalies(&history), [Kind::Reordered]);
}

#[test]
fn a_refused_record_is_nowhere() {
    let (history, place, producer) = begin();
    let id = history.sent(&place, producer);
    history.refused(&place, id);
    ends_with(&history, &place, 0, &[id]);
    assert_eq!(anomalies(&history), [Kind::RefusedStored]);
}

#[test]
fn what_was_never_sent_there_is_invented() {
    let (history, place, producer) = begin();
    let elsewhere = history.sent(&Place::new("t", 1), producer);
    let never = Id { producer, number: 77 };
    let records = vec![(Offset(0), Some(elsewhere)), (Offset(1), Some(never)), (Offset(2), None)];
    history.contents(&place, Offset(0), records);
    assert_eq!(anomalies(&history), [Kind::Invented; 3]);
}

#[test]
fn a_reader_that_goes_back_or_leaves_a_record_out_is_found() {
    let (history, place, producer) = begin();
    let ids = stored(&history, &place, producer, 4);
    ends_with(&history, &place, 0, &ids);
    let reader = history.session(&place, Offset(0));
    history.read(reader, Offset(0), Some(ids[0]));
    history.read(reader, Offset(2), Some(ids[2]));
    history.read(reader, Offset(2), Some(ids[2]));
    assert_eq!(anomalies(&history), [Kind::NotMonotone, Kind::Skipped]);
}

#[test]
fn what_a_reader_saw_does_not_vanish_or_change() {
    let (history, place, producer) = begin();
    let (one, other) = (history.sent(&place, producer), history.sent(&place, producer));
    let reader = history.session(&place, Offset(0));
    history.read(reader, Offset(0), Some(one));
    history.read(reader, Offset(1), Some(other));
    history.cut(&Cut::Power);
    ends_with(&history, &place, 0, &[other]);
    assert_eq!(anomalies(&history), [Kind::Vanished, Kind::Changed]);
}

#[test]
fn readers_of_what_is_written_may_see_it_vanish_with_the_power() {
    for (cut, expected) in [(Cut::Power, vec![]), (Cut::Kill, vec![Kind::Vanished])] {
        let (history, place, producer) = begin();
        history.visible("t", Visible::Written);
        let id = history.sent(&place, producer);
        let reader = history.session(&place, Offset(0));
        history.read(reader, Offset(0), Some(id));
        history.cut(&cut);
        ends_with(&history, &place, 0, &[]);
        assert_eq!(anomalies(&history), expected);
    }
}

#[test]
fn records_may_go_from_the_front_only_where_that_was_asked_for() {
    let (history, place, producer) = begin();
    let ids = stored(&history, &place, producer, 3);
    ends_with(&history, &place, 2, &ids[2..]);
    assert_eq!(anomalies(&history), [Kind::Lost, Kind::Lost]);
    history.may_remove(&place, Offset(1));
    assert_eq!(anomalies(&history), [Kind::Lost]);
    history.may_remove(&place, Offset(2));
    assert_eq!(anomalies(&history), []);
    // What two were told of a place that is gone still has to agree.
    history.acknowledged(&place, ids[0], Offset(1), Ack::Durable);
    assert_eq!(anomalies(&history), [Kind::WrongOffset]);
}

#[test]
fn a_compacted_topic_lets_go_of_a_record_for_a_later_one_of_its_key_and_of_no_other() {
    let (history, place, producer) = begin();
    history.compacted("t");
    let ids = stored(&history, &place, producer, 6);
    let reader = history.session(&place, Offset(0));
    history.read(reader, Offset(0), Some(ids[0]));
    let left = |from: usize| (from..6).map(|n| (Offset(n as u64), Some(ids[n]))).collect::<Vec<_>>();
    assert!(ids[0].key() == ids[4].key() && ids[1].key() == ids[5].key());
    history.contents(&place, Offset(0), left(2));
    let report = history.check();
    assert!(report.anomalies.is_empty(), "{report:?}");
    assert_eq!(report.operations["compacted away"], 2);
    history.contents(&place, Offset(0), left(3));
    assert_eq!(anomalies(&history), [Kind::Lost]);
    // The one that it gave way to has to be there, behind it.
    history.contents(&place, Offset(0), left(2).into_iter().filter(|(_, id)| *id != Some(ids[4])).collect());
    assert_eq!(anomalies(&history), [Kind::Lost, Kind::Lost, Kind::Vanished]);
}

#[test]
fn a_record_of_which_the_broker_chooses_the_partition_may_be_in_any_of_its_topic() {
    let history = History::new();
    let producer = history.producer(Sending::Once);
    let id = history.sent(To::Topic("t".into()), producer);
    ends_with(&history, &Place::new("t", 3), 0, &[id]);
    assert_eq!(anomalies(&history), []);
    ends_with(&history, &Place::new("u", 3), 0, &[id]);
    assert_eq!(anomalies(&history), [Kind::Invented]);
}

#[test]
fn values_say_which_record_they_are() {
    let id = Id { producer: 3, number: 44 };
    assert_eq!(Id::of(id.value("").as_bytes()), Some(id));
    assert_eq!(Id::of(id.value("and more, with spaces").as_bytes()), Some(id));
    for garbage in ["", "3", "3 44", "3 x y", "x 44 y", "-3 44 y", "99999999999 44 y"] {
        assert_eq!(Id::of(garbage.as_bytes()), None, "{garbage:?}");
    }
}
