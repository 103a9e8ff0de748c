//! Members that join, leave, die and are succeeded, one after the other: only the units that have to move do; the others
//! keep owner and epoch and go on being read; and every record is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use logmill_client::{Client, Consumer, ConsumerEvent, UnitRecords};
use parking_lot::Mutex;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

use crate::loops::{Feed, LIMIT, check_committed};
use crate::node;

const UNITS: u32 = 40;
const MEMBERS: usize = 12;

/// Which member has which unit in which epoch.
type Owners = BTreeMap<String, (usize, i32)>;

/// What members hear, each before it asks for more.
#[derive(Default)]
struct Heard {
    owners: Owners,
    /// By member that is there, how many units it has.
    counts: BTreeMap<usize, usize>,
    /// Up to where each unit was read.
    read: BTreeMap<String, u64>,
    /// What dead members have left: the last of it was not committed, and comes again.
    left_by_dead: BTreeSet<String>,
}

impl Heard {
    fn hear(&mut self, member: usize, event: ConsumerEvent) {
        match event {
            ConsumerEvent::Assigned(assignment) => {
                let at = assignment.partitions[0].committed_offset.map_or(0, logmill_record::Offset::get);
                let unit = assignment.unit;
                let read = self.read.entry(unit.unit.clone()).or_default();
                let comes_again = self.left_by_dead.remove(&unit.unit);
                assert!(at == *read || comes_again && at < *read, "{unit} goes on at {at}, and not {read}");
                *read = at;
                *self.counts.get_mut(&member).unwrap() += 1;
                let former = self.owners.insert(unit.unit.clone(), (member, unit.epoch));
                assert_eq!(former, None, "{unit} is {member}'s, and was not taken from another");
            }
            ConsumerEvent::Records(records) => self.read(member, &records),
            ConsumerEvent::Revoke(unit) => {
                assert_eq!(self.owners.remove(&unit.unit), Some((member, unit.epoch)));
                *self.counts.get_mut(&member).unwrap() -= 1;
            }
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, member: usize, records: &UnitRecords) {
        let unit = &records.unit;
        assert_eq!(self.owners.get(&unit.unit), Some(&(member, unit.epoch)), "who reads {unit} has it");
        let read = self.read.get_mut(&unit.unit).unwrap();
        for record in records.data.records() {
            assert_eq!(record.unwrap().offset.get(), *read, "{unit}: none is left out, and none comes twice");
            *read += 1;
        }
    }

    fn is_gone(&mut self, member: usize, how: &End) {
        let left = self.owners.extract_if(.., |_, (owner, _)| *owner == member).map(|(unit, _)| unit);
        match how {
            End::Leaves => left.for_each(drop),
            End::Dies => self.left_by_dead.extend(left),
        }
        self.counts.remove(&member);
    }

    fn is_balanced(&self) -> bool {
        let (least, most) = (self.counts.values().min(), self.counts.values().max());
        self.owners.len() == UNITS as usize && least.zip(most).is_some_and(|(least, most)| most - least <= 1)
    }
}

enum End {
    Leaves,
    Dies,
}

struct Member {
    number: usize,
    end: oneshot::Sender<End>,
    task: JoinHandle<()>,
}

struct Group {
    url: String,
    heard: Arc<Mutex<Heard>>,
    members: Vec<Member>,
    next: usize,
}

impl Group {
    async fn join(&mut self, instance_id: Option<&str>, session_timeout: Duration) {
        let client = Client::connect(&self.url).await.unwrap();
        let mut consumer = client.consumer("g").topics(["t"]).session_timeout(session_timeout);
        if let Some(id) = instance_id {
            consumer = consumer.instance_id(id);
        }
        let consumer = consumer.join().await.unwrap();
        let number = self.next;
        self.next += 1;
        self.heard.lock().counts.insert(number, 0);
        let (end, ends) = oneshot::channel();
        let task = tokio::spawn(work(consumer, number, Arc::clone(&self.heard), ends));
        self.members.push(Member { number, end, task });
    }

    /// The member at this place ends.
    async fn end(&mut self, at: usize, how: End) {
        let Member { number, end, task } = self.members.remove(at);
        end.send(how).unwrap_or_else(|_| panic!("member {number} has failed"));
        task.await.unwrap();
    }

    /// When the group has come to a balance again: which units have another owner or epoch, and who has them now and
    /// had them before.
    async fn moved_since(&self, before: &Owners) -> Moved {
        let after = self.balanced().await;
        let mut moved = Moved::default();
        for (unit, owner) in &after {
            if before[unit] != *owner {
                assert!(before[unit].1 < owner.1, "{unit}: {:?}, {owner:?}", before[unit]);
                moved.units += 1;
                moved.from.insert(before[unit].0);
                moved.to.insert(owner.0);
            }
        }
        moved
    }

    async fn balanced(&self) -> Owners {
        let balanced = async {
            while !self.heard.lock().is_balanced() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LIMIT, balanced).await.unwrap();
        self.heard.lock().owners.clone()
    }
}

#[derive(Debug, Default)]
struct Moved {
    units: usize,
    from: BTreeSet<usize>,
    to: BTreeSet<usize>,
}

async fn work(
    mut consumer: Consumer,
    member: usize,
    heard: Arc<Mutex<Heard>>,
    mut ends: oneshot::Receiver<End>,
) {
    let end = loop {
        tokio::select! {
            event = consumer.next() => heard.lock().hear(member, event.unwrap().unwrap()),
            end = &mut ends => break end.unwrap(),
        }
    };
    heard.lock().is_gone(member, &end);
    match end {
        End::Leaves => consumer.close().await.unwrap(),
        End::Dies => drop(consumer),
    }
}

fn units_of(owners: &Owners, member: usize) -> usize {
    owners.values().filter(|(owner, _)| *owner == member).count()
}

#[test]
fn only_what_has_to_move_moves_and_every_record_is_read() {
    let (_dir, node, _program) = node();
    let runtime = Runtime::new().unwrap();
    let client = runtime.block_on(Client::connect(node.url())).unwrap();
    runtime.block_on(client.create_topic("t", Some(UNITS))).unwrap();
    let feed = Feed::begin(&runtime, &client, "t", UNITS, 1);
    let heard = Arc::new(Mutex::new(Heard::default()));
    let group = Group { url: node.url().to_owned(), heard, members: Vec::new(), next: 0 };
    let mut group = runtime.block_on(comes_and_goes(group));
    let sent = feed.stop(&runtime);
    runtime.block_on(async {
        check_committed(&client, "g", UNITS, sent).await;
        while !group.members.is_empty() {
            group.end(0, End::Leaves).await;
        }
    });
    let read = std::mem::take(&mut group.heard.lock().read);
    assert!(
        read.len() == UNITS as usize && read.values().all(|read| *read == sent),
        "{sent} of each: {read:?}"
    );
}

async fn comes_and_goes(mut group: Group) -> Group {
    let long = LIMIT * 5;
    group.join(Some("zero"), long).await;
    let mut owners = group.balanced().await;
    for number in 1..MEMBERS {
        group.join(None, long).await;
        let moved = group.moved_since(&owners).await;
        assert_eq!(moved.to, [number].into(), "nobody but who has come gets any: {moved:?}");
        assert_eq!(moved.units, UNITS as usize / (number + 1), "as few as give it its share: {moved:?}");
        owners = group.balanced().await;
    }
    for at in [7, 1, 4] {
        let number = group.members[at].number;
        group.end(at, End::Leaves).await;
        let moved = group.moved_since(&owners).await;
        assert_eq!(moved.from, [number].into(), "nobody but who has left loses any: {moved:?}");
        assert_eq!(moved.units, units_of(&owners, number));
        owners = group.balanced().await;
    }

    // Who succeeds another under its instance id gets what that one had, and nothing else moves.
    group.end(0, End::Dies).await;
    group.join(Some("zero"), long).await;
    let moved = group.moved_since(&owners).await;
    assert_eq!((&moved.from, moved.to), (&[0].into(), [MEMBERS].into()));
    assert_eq!(moved.units, units_of(&owners, 0));

    group.join(None, Duration::from_secs(1)).await;
    owners = group.balanced().await;
    let dies = group.members.len() - 1;
    let number = group.members[dies].number;
    group.end(dies, End::Dies).await;
    let moved = group.moved_since(&owners).await;
    assert_eq!(moved.from, [number].into(), "nobody but who has died loses any: {moved:?}");
    assert_eq!(moved.units, units_of(&owners, number));
    group
}
