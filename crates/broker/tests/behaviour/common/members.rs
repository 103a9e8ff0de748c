//! Members of groups, as several tests have them.

use logmill_broker::{Assignment, GroupEvent, Member};
use logmill_log::sim::Sim;

use super::{Node, simulated};

/// A node with the topic `t` of so many partitions, each with three records.
pub(crate) fn three_records_each(sim: &Sim, partitions: u32) -> Node {
    let node = simulated(sim);
    node.create("t", partitions).unwrap();
    for partition in 0..partitions {
        for value in ["a", "b", "c"] {
            node.say("t", partition, value).unwrap();
        }
    }
    node
}

/// The unit that the member is given next.
pub(crate) fn assigned(node: &Node, member: &mut Member) -> Assignment {
    match node.wait(member.next()) {
        GroupEvent::Assigned(assignment) => assignment,
        other => panic!("{other:?}"),
    }
}

/// Where the unit's only partition goes on.
pub(crate) fn committed(of: &Assignment) -> Option<u64> {
    of.partitions[0].committed.as_ref().map(|committed| committed.offset.get())
}
