//! Every call that changes the disk, of a fixed workload: the set and its logs are made, 200
//! operations follow, and the set is closed. The power goes in the call, or the program is killed
//! in it, and what was not synced is kept in several ways.

use logmill_log::sim::Sim;

use crate::machine::Run;
use crate::model::End;
use crate::{in_parallel, point, setting};

const OPERATIONS: usize = 200;
const WORKLOAD: u64 = 20;

/// Runs the workload until the machine is off, or to its end.
fn run(seed: u64, prepare: impl FnOnce(&Sim)) -> Run {
    let mut run = Run::new(Sim::new(seed), WORKLOAD);
    prepare(&run.sim);
    if run.begin(None) && (0..OPERATIONS).all(|_| run.step(false)) {
        run.close_set();
    }
    run
}

#[test]
fn nothing_acknowledged_is_lost_at_any_boundary() {
    let subsets = setting("LOGMILL_BOUNDARY_SUBSETS", 6);
    let mut cases = Vec::new();
    for seed in 0..subsets {
        let changes = run(seed, |_| ()).sim.fs.changes();
        cases.extend((1..=changes).map(|nth| (seed, nth)));
    }
    let boundaries = cases.len();
    let total = in_parallel(&cases, |&(seed, nth)| {
        // One of the subsets is all of it: a process that is killed leaves the page cache.
        let kill = seed == 0;
        let mut run = run(seed, |sim| if kill { sim.fs.die_at(nth) } else { sim.fs.power_off_at(nth) });
        let point = point(&run.sim).expect("the workload gets to each of its boundaries");
        run.end(if kill { End::Kill } else { End::Power }, false);
        for _ in 0..10 {
            run.step(false);
        }
        run.end(End::Power, false);
        [(point, 1)].into()
    });
    println!(
        "boundaries {boundaries} ({subsets} subsets of some {} each), violations 0",
        boundaries as u64 / subsets
    );
    println!("{total:#?}");
    for what in [
        "CreateDir (directory)",
        "Lock (lock)",
        "Create (log)",
        "Create (cleaned)",
        "Write (log)",
        "Write (merge)",
        "Write (meta)",
        "Write (set)",
        "Write (checkpoint)",
        "SyncData (log)",
        "SyncDir (directory)",
        "Rename (merge)",
        "Rename (meta)",
        "Rename (set)",
        "Rename (checkpoint)",
        "Rename (index)",
        "Rename (state)",
        "RemoveFile (log)",
        "RemoveFile (merge)",
    ] {
        assert!(total.contains_key(what), "the workload has no such call: {what}");
    }
}
