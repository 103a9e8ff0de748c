//! Every call that changes the disk, of a fixed workload of 200 operations: the power goes in it,
//! or the program is killed in it, and what was not synced is kept in several ways.

use logmill_log::sim::Sim;

use crate::machine::Run;
use crate::model::End;
use crate::{in_parallel, setting};

const OPERATIONS: usize = 200;
const WORKLOAD: u64 = 20;

/// Runs the workload until the machine is off, or to its end.
fn run(seed: u64, prepare: impl FnOnce(&Sim)) -> Run {
    let mut run = Run::new(Sim::new(seed), WORKLOAD);
    prepare(&run.sim);
    for _ in 0..OPERATIONS {
        if !run.step(false) {
            break;
        }
    }
    run
}

#[test]
fn nothing_acknowledged_is_lost_at_any_boundary() {
    let subsets = setting("LOGMILL_BOUNDARY_SUBSETS", 6);
    let before = Run::new(Sim::new(0), WORKLOAD).sim.fs.changes();
    let mut cases = Vec::new();
    for seed in 0..subsets {
        let changes = run(seed, |_| ()).sim.fs.changes() - before;
        cases.extend((1..=changes).map(|nth| (seed, nth)));
    }
    let boundaries = cases.len();
    let total = in_parallel(&cases, |&(seed, nth)| {
        // One of the subsets is all of it: a process that is killed leaves the page cache.
        let kill = seed == 0;
        let mut run = run(seed, |sim| if kill { sim.fs.die_at(nth) } else { sim.fs.power_off_at(nth) });
        let (op, path) = run.sim.fs.went_off_in().expect("the workload gets to each of its boundaries");
        let ending = path.extension().map_or("no ending".into(), |ending| ending.display().to_string());
        run.end(if kill { End::Kill } else { End::Power }, false);
        for _ in 0..10 {
            run.step(false);
        }
        run.end(End::Power, false);
        [(format!("{op:?} ({ending})"), 1)].into()
    });
    println!(
        "boundaries {boundaries} ({subsets} subsets of some {} each), violations 0",
        boundaries as u64 / subsets
    );
    println!("{total:?}");
    assert!(total.len() > 8, "the workload has calls of few kinds: {total:?}");
}
