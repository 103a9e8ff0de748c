//! Repairs of each of these damages: they lose what they name and nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use logmill_log::inspect::{FindingKind, Plan, RepairStep, Severity, plan_repair};
use logmill_log::sim::Sim;
use logmill_log::{ErrorKind, Log, LogOptions, LogSet, LogState, SetOptions};
use logmill_record::{Batch, Offset};

use crate::common::batch;
use crate::scene::{Batches, DIR, Damage, LOGS, Scene, ending, log_of, open, open_log, survivors};
use crate::{look, lost};

/// The batches that a repaired directory serves, having checked that it is whole.
fn served_after_repair(sim: &Sim, what: &str) -> BTreeMap<&'static str, Batches> {
    let report = look(sim);
    // A wrong leader epoch without an index to tell the right one is left as it is.
    let damaged = report
        .findings
        .iter()
        .any(|finding| finding.severity > Severity::Note && finding.kind != FindingKind::Headers);
    assert!(!damaged, "{what}: {:?}", report.findings);
    let set = open(sim).unwrap_or_else(|error| panic!("{what}: {error}"));
    let serve = |name| {
        let log = open_log(&set, name).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(matches!(log.stats().state, LogState::Open), "{what}: {:?}", log.stats());
        let found = survivors(&log);
        log.append(&[batch(&[b"after the repair"])]).unwrap().wait().unwrap();
        (name, found)
    };
    LOGS.map(serve).into()
}

/// Every offset that a plan names, of one log.
fn named(steps: &[RepairStep], log: &str) -> Vec<Range<Offset>> {
    let of_log = steps.iter().filter(|step| step.log.as_deref() == Some(Path::new(log)));
    of_log.flat_map(|step| step.gone.clone()).collect()
}

/// Plans the repair of a damaged directory, which changes nothing, and does it; the offsets that it
/// names as gone, of each log. `None` if it is refused, because a newer version seems to have written a file.
fn repaired(sim: &Sim, what: &str) -> Option<BTreeMap<&'static str, Vec<Range<Offset>>>> {
    let before = sim.fs.digest();
    let plan = match plan_repair(&sim.env(), DIR, &mut |_| ()) {
        Ok(plan) => plan,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NewerFormat, "{what}: {error}");
            return None;
        }
    };
    assert_eq!(sim.fs.digest(), before, "{what}: a plan changes nothing");
    if plan.report().findings.iter().any(|finding| finding.kind == FindingKind::Unread) {
        assert!(plan.steps().is_empty(), "{what}: {:?}", plan.steps());
        return None;
    }
    let gone = LOGS.map(|name| (name, named(plan.steps(), name))).into();
    plan.execute().unwrap_or_else(|error| panic!("{what}: {error}"));
    Some(gone)
}

/// What a repaired log serves of what was written; all else that it serves are batches without records,
/// where something is named as gone.
fn without_bridges(served: &Batches, written: &Batches, gone: &[Range<Offset>], what: &str) -> Batches {
    let is_bridge = |offset: u64, bytes: &Bytes| is_empty(bytes) && is_in(gone, offset);
    let mut found = served.clone();
    found.retain(|offset, bytes| {
        let is_known = written.contains_key(offset);
        assert!(is_known || is_bridge(*offset, bytes), "{what}: a batch at {offset}");
        is_known && !is_bridge(*offset, bytes)
    });
    found
}

impl Scene {
    /// The batches of a log that are gone after a repair: they are named, or were torn and never promised.
    fn lost_in_repair(
        &self,
        (path, damage): (&Path, Damage),
        (name, served): (&str, &Batches),
        gone: &[Range<Offset>],
        what: &str,
    ) -> BTreeSet<u64> {
        let what = &format!("{what}: {name}");
        let written = &self.logs[name];
        let found = without_bridges(served, written, gone, what);
        let is_hit = ending(path) == "log" && log_of(path) == Some(name);
        let torn = self.may_be_torn(path, damage).filter(|_| is_hit);
        // An epoch lies before its batch's checksum: a repair may have to take it as it is.
        let epochs_may_differ = is_hit && self.is_epoch(path, damage);
        let lost = lost(written, &found, epochs_may_differ, what);
        for offset in &lost {
            let is_torn = torn.is_some_and(|torn| *offset >= torn);
            assert!(is_torn || is_in(gone, *offset), "{what} lost {offset}; gone {gone:?}");
        }
        for offset in found.keys() {
            assert!(!is_in(gone, *offset), "{what} has {offset}, which is named as gone");
        }
        lost
    }
}

#[test]
fn a_repair_loses_exactly_the_offsets_that_it_names() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let (mut mended, mut restored, mut lost_batches) = (0, 0, 0);
        for (path, damage) in scene.each_damage(7) {
            let what = format!("clean {clean}, {damage:?} of {}", path.display());
            let sim = scene.damaged(path, damage);
            let before = sim.fs.digest();
            let Some(gone) = repaired(&sim, &what) else { continue };
            let any_gone = gone.values().any(|gone| !gone.is_empty());
            mended += usize::from(sim.fs.digest() != before);
            restored += usize::from(!any_gone && ending(path) == "log");
            for (name, served) in served_after_repair(&sim, &what) {
                let lost = scene.lost_in_repair((path, damage), (name, &served), &gone[name], &what);
                lost_batches += lost.len();
            }
            if matches!(damage, Damage::Flip(..)) && any_gone {
                let kept = sim.fs.files().iter().any(|file| file.to_string_lossy().contains(".log.damaged-"));
                assert!(kept, "{what}: what was taken out is saved");
            }
        }
        println!("clean {clean}: repaired {mended}, without a loss {restored}, batches gone {lost_batches}");
        assert!(lost_batches > 0);
    }
}

fn is_in(gone: &[Range<Offset>], offset: u64) -> bool {
    gone.iter().any(|gone| gone.contains(&Offset(offset)))
}

fn is_empty(bytes: &Bytes) -> bool {
    Batch::parse(bytes.clone()).unwrap().header().record_count == 0
}

#[test]
fn a_repair_that_loses_power_at_any_call_can_be_done_again() {
    let scene = Scene::new(true);
    let logs: Vec<&PathBuf> =
        scene.files.keys().filter(|path| ending(path) == "log" && path.starts_with("/data/log")).collect();
    let small: Vec<&PathBuf> = scene.files.keys().filter(|path| path.extension().is_none()).collect();
    let mut cuts = 0;
    for path in logs.into_iter().chain(small) {
        // In the second batch of a segment, so that there are others in front of it and behind.
        let damage = Damage::Flip(scene.files[path].len() as u64 / 2, 3);
        let whole = scene.damaged(path, damage);
        let before = whole.fs.changes();
        let gone = {
            let plan = plan_repair(&whole.env(), DIR, &mut |_| ()).unwrap();
            let gone: Vec<_> = plan.steps().iter().flat_map(|step| step.gone.clone()).collect();
            plan.execute().unwrap();
            gone
        };
        let changes = whole.fs.changes() - before;
        let expected = served_after_repair(&whole, "without a cut");
        for nth in 1..=changes {
            let mut sim = scene.damaged(path, damage);
            sim.fs.power_off_at(nth);
            let cut = plan_repair(&sim.env(), DIR, &mut |_| ()).and_then(Plan::execute);
            assert!(cut.is_err(), "{damage:?} of {}: the power went at call {nth}", path.display());
            sim.crash();
            plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
            let what = format!("{damage:?} of {} cut at {nth} of {changes}", path.display());
            assert_eq!(served_after_repair(&sim, &what), expected, "{what}; gone {gone:?}");
            cuts += 1;
        }
    }
    println!("power cuts in repairs: {cuts}");
    assert!(cuts > 20);
}

/// A segment counts as sealed by the next one's name. If a power cut in the repair took that back, its
/// damage would pass for a torn write, and be cut.
#[test]
fn the_names_that_a_repair_goes_by_outlast_it() {
    let killed_in_a_roll = |seed| {
        let mut sim = Sim::new(seed);
        let set = LogSet::open(DIR, SetOptions::new(sim.env())).unwrap();
        let log: Log = set.create("log", b"", LogOptions::default()).unwrap();
        for _ in 0..3 {
            log.append(&[batch(&[b"acknowledged"])]).unwrap().wait().unwrap();
        }
        // Index, next segment, directory: it dies in the last.
        sim.fs.die_at(6);
        log.roll().unwrap_err();
        drop((set, log));
        sim.kill();
        let segment = "/data/log/00000000000000000000.log";
        let middle = sim.fs.read_file(segment).unwrap().len() as u64 / 2;
        assert!(sim.fs.read_file("/data/log/00000000000000000003.log").is_ok(), "it is there, for now");
        sim.fs.flip(segment, middle, 1).unwrap();
        sim
    };
    let whole = killed_in_a_roll(0);
    let before = whole.fs.changes();
    plan_repair(&whole.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
    // The first takes the lock, and the second makes the names last.
    let changes = 3..=whole.fs.changes() - before;
    for (seed, nth) in (0..8).flat_map(|seed| changes.clone().map(move |nth| (seed, nth))) {
        let mut sim = killed_in_a_roll(seed);
        sim.fs.power_off_at(nth);
        plan_repair(&sim.env(), DIR, &mut |_| ()).and_then(Plan::execute).unwrap_err();
        sim.crash();
        plan_repair(&sim.env(), DIR, &mut |_| ()).unwrap().execute().unwrap();
        let log = open_log(&open(&sim).unwrap(), "log").unwrap();
        assert_eq!(log.end_offset(), Offset(3), "seed {seed}, cut at {nth}");
        let kept = survivors(&log).into_iter().filter(|(_, bytes)| !is_empty(bytes));
        assert_eq!(kept.map(|(offset, _)| offset).collect::<Vec<_>>(), [0, 2], "seed {seed}, cut at {nth}");
    }
}
