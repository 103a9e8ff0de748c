//! Each byte of a small data directory turned over, and each file cut at each length, in turn: all
//! damage to data is noticed by `verify`, no wrong byte is served, and what is not hit is readable.
#![cfg(feature = "sim")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may stop where it fails")]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/keyed.rs"]
mod keyed;
mod repairing;
mod scene;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use common::index_file::{FOOTER_LEN, PREFIX_LEN, ROW_LEN};
use logmill_log::inspect::{CheckpointRow, Finding, FindingKind, Report, Severity, verify};
use logmill_log::sim::Sim;
use logmill_log::{Error, ErrorKind, LogSet, LogState};
use logmill_record::LEADER_EPOCH;
use scene::{Batches, DIR, Damage, LOGS, Scene, ending, log_of, open, open_log, survivors};

pub(crate) fn look(sim: &Sim) -> Report {
    verify(&sim.env(), DIR, &mut |_| ()).unwrap()
}

#[test]
fn verify_finds_nothing_in_a_whole_directory_and_changes_nothing() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let sim = scene.machine();
        let before = sim.fs.digest();
        let report = look(&sim);
        assert!(report.findings.is_empty(), "{:?}", report.findings);
        assert_eq!((report.clean, report.logs.len()), (clean, LOGS.len()));
        for log in &report.logs {
            let batches = &scene.logs[log.path.to_str().unwrap()];
            assert_eq!(log.batches, batches.len() as u64, "{}", log.path.display());
        }
        assert_eq!(sim.fs.digest(), before);
    }
}

#[test]
fn the_scene_has_something_of_everything() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let rows = |path: &str| (scene.files[Path::new(path)].len() - PREFIX_LEN - FOOTER_LEN) / ROW_LEN;
        assert!(rows("/data/rows/00000000000000000000.index") >= 3, "several rows");
        let sim = scene.machine();
        let set = open(&sim).unwrap();
        let keys = open_log(&set, "keys").unwrap();
        assert!(scene.logs["keys"].len() < usize::try_from(keys.end_offset().get()).unwrap() / 2);
        assert!(set.read_meta("keys").unwrap().gaps_below.get() > 0, "it was compacted");
        let paid = open_log(&set, "paid").unwrap();
        assert_eq!(paid.aborted(paid.start_offset()..paid.end_offset()).unwrap().len(), 1);
        assert_eq!(paid.open_transactions().len(), 1);
        drop((set, keys, paid));
        let newest = scene.files[Path::new("/data/log/00000000000000000012.log")].len() as u64;
        let has_tail = scene.checkpoint.get("log").is_some_and(|row| row.position < newest);
        assert_eq!(has_tail, !clean, "a tail behind the checkpoint");
    }
}

#[test]
fn verify_notices_every_flipped_byte_and_every_cut() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let mut counts: BTreeMap<(Severity, &str), u32> = BTreeMap::new();
        for (path, damage) in scene.each_damage(1) {
            let sim = scene.damaged(path, damage);
            let severity = match verify(&sim.env(), DIR, &mut |_| ()) {
                Ok(report) => {
                    let worst = report.findings.iter().map(|finding| finding.severity).max();
                    if worst.is_none() && scene.is_unnoticed(path, damage) {
                        continue;
                    }
                    worst.unwrap_or_else(|| panic!("{damage:?} of {} went unnoticed", path.display()))
                }
                // A flip in the version of a file.
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::NewerFormat, "{error}");
                    Severity::Data
                }
            };
            let is_tail = scene.is_behind_the_checkpoint(path, damage);
            match ending(path) {
                // An epoch that there never was is none of a torn write.
                "log" if is_tail && scene.is_epoch(path, damage) => {}
                "log" if is_tail => assert_eq!(severity, Severity::Note, "{damage:?} of {}", path.display()),
                "log" | "meta" => assert_eq!(severity, Severity::Data, "{damage:?} of {}", path.display()),
                _ => assert!(severity >= Severity::Sidecar, "{damage:?} of {}", path.display()),
            }
            *counts.entry((severity, ending(path))).or_default() += 1;
        }
        println!("clean {clean}: {counts:?}");
    }
}

/// The batches that a damaged directory serves, of each log; the set is still open.
fn served(sim: &Sim) -> Result<(LogSet, BTreeMap<&'static str, Batches>, usize), Error> {
    let set = open(sim)?;
    let (mut found, mut read_only) = (BTreeMap::new(), 0);
    for name in LOGS {
        let log = open_log(&set, name)?;
        read_only += usize::from(matches!(log.stats().state, LogState::ReadOnly(_)));
        found.insert(name, survivors(&log));
    }
    Ok((set, found, read_only))
}

/// What is read of a damaged directory is what was written, byte for byte, and all of it but what
/// the damage hit.
#[test]
fn no_wrong_byte_is_served_and_what_is_not_hit_is_readable() {
    for clean in [true, false] {
        let scene = Scene::new(clean);
        let (mut refused, mut all_read_only, mut most_lost) = (0, 0, BTreeMap::<String, usize>::new());
        for (path, damage) in scene.each_damage(7) {
            let what = format!("clean {clean}, {damage:?} of {}", path.display());
            let sim = scene.damaged(path, damage);
            let (set, found, read_only) = match served(&sim) {
                Ok(served) => served,
                Err(error) => {
                    // Nothing is served without the small files; the data is not touched.
                    assert!(["set", "meta", "checkpoint"].contains(&ending(path)), "{what}: {error}");
                    refused += 1;
                    continue;
                }
            };
            all_read_only += read_only;
            let may_cost = (ending(path) == "log").then(|| scene.may_cost(path, damage));
            for (name, written) in &scene.logs {
                let lost = lost(written, &found[name], false, &what);
                let may_lose = may_cost.clone().filter(|_| log_of(path) == Some(*name)).unwrap_or(0..0);
                for offset in &lost {
                    assert!(may_lose.contains(offset), "{what}: {name} lost {offset}, may lose {may_lose:?}");
                }
                let most = most_lost.entry(format!("{name} {}", ending(path))).or_default();
                *most = lost.len().max(*most);
            }
            if ending(path) != "log" {
                assert_made_again(
                    &sim,
                    &set,
                    path,
                    scene.is_newest(&path.with_extension("log")),
                    damage,
                    &what,
                );
            }
        }
        println!(
            "clean {clean}: refused {refused}, read-only {all_read_only}, most batches lost {most_lost:?}"
        );
    }
}

/// The first offsets of the batches that are not there; those that are, are as they were written.
fn lost(written: &Batches, found: &Batches, epochs_may_differ: bool, what: &str) -> BTreeSet<u64> {
    for (offset, bytes) in found {
        let mut expected =
            written.get(offset).unwrap_or_else(|| panic!("{what}: nothing was at {offset}")).to_vec();
        if epochs_may_differ {
            expected[LEADER_EPOCH].copy_from_slice(&bytes[LEADER_EPOCH]);
        }
        assert_eq!(expected, bytes.as_ref(), "{what}: the batch at {offset}");
    }
    written.keys().filter(|offset| !found.contains_key(offset)).copied().collect()
}

/// What can be made again from the data is whole on disk when the directory has been open. The
/// rows of a sealed segment's index and its producers are made again when they are needed, and not
/// written.
fn assert_made_again(sim: &Sim, set: &LogSet, path: &Path, is_newest: bool, damage: Damage, what: &str) {
    set.close().unwrap();
    let report = look(sim);
    let is_left = |finding: &&Finding| {
        let rows = matches!(damage, Damage::Flip(..)) && finding.kind == FindingKind::Index;
        let is_needed = !rows && finding.kind != FindingKind::State;
        finding.severity > Severity::Note && (is_needed || is_newest || finding.file != path)
    };
    let left = report.findings.iter().find(is_left);
    assert!(left.is_none(), "{what}: {left:?}");
}

impl Scene {
    /// Whether the damage makes a wrong epoch of a right one.
    pub(crate) fn is_epoch(&self, path: &Path, damage: Damage) -> bool {
        let of_batch = |at| usize::try_from(at - self.batch_at(path, at).bytes.start).unwrap();
        matches!(damage, Damage::Flip(at, _) if ending(path) == "log" && LEADER_EPOCH.contains(&of_batch(at)))
    }

    /// Whether nothing is the matter: a write that was not acknowledged is there in whole batches.
    fn is_unnoticed(&self, path: &Path, damage: Damage) -> bool {
        let is_whole = |at| self.batch_at(path, at).bytes.start == at;
        let is_cut = matches!(damage, Damage::Cut(at) if is_whole(at));
        let is_tail = ending(path) == "log" && self.is_behind_the_checkpoint(path, damage);
        is_tail && is_cut
    }

    /// Whether nothing there was ever promised.
    pub(crate) fn is_behind_the_checkpoint(&self, path: &Path, damage: Damage) -> bool {
        self.promised(path).is_some_and(|row| damage.position() >= row.position)
    }

    /// From which offset on the damage makes a torn write of what was never promised.
    fn may_be_torn(&self, path: &Path, damage: Damage) -> Option<u64> {
        let promised = self.promised(path)?;
        match damage {
            Damage::Cut(at) if at < promised.position => Some(promised.end_offset.get()),
            _ if damage.position() < promised.position => None,
            _ => Some(self.may_cost(path, damage).start),
        }
    }

    /// How much of the newest segment of a killed log was promised.
    fn promised(&self, path: &Path) -> Option<CheckpointRow> {
        let newest = self.is_newest(path).then(|| log_of(path)).flatten()?;
        self.checkpoint.get(newest).copied()
    }
}
