//! One request from its start to its answer: having jobs read what there is, and waiting until it is enough.
//!
//! A job reads one partition after another. Beside one that takes long another goes on with the rest, so that a disk
//! that does not answer holds up no other partition; what comes late is taken all the same, while there is time.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use parking_lot::Mutex;

use super::cursor::Cursor;
use super::job::Job;
use super::table::{Table, work};
use super::wait::{Woken, wait};
use super::{Fetch, Fetched, MAX_WAIT, ReplyRoom, cursors};
use crate::access::{Operation, authorize};
use crate::broker::Core;
use crate::budget::{Budget, Permit};
use crate::context::RequestContext;
use crate::error::Error;

/// So long a request that has waited long enough, or has enough, still waits for looks that are under way.
const PATIENCE: Duration = Duration::from_secs(1);
/// So many jobs it has at once where reads take long: each has room among replies.
const MOST_JOBS: usize = 4;

/// A request that is under way.
pub(super) struct Round {
    table: Arc<Mutex<Table>>,
    max_wait: Duration,
    /// Those that take long.
    jobs: Vec<Job<()>>,
}

/// Checks a fetch and finds its partitions.
pub(super) fn start(
    core: &Arc<Core>,
    context: &RequestContext,
    mut request: Fetch,
    own: Budget,
) -> Result<Round, Error> {
    core.check_open()?;
    let topics = request.partitions.iter().map(|from| from.topic.as_str()).collect();
    authorize(context, &Operation::Fetch { topics })?;
    if request.max_wait > MAX_WAIT {
        let rule = format!("a fetch waits at most {} ms", MAX_WAIT.as_millis());
        return Err(Error::field("max_wait_ms", request.max_wait.as_millis(), &rule));
    }
    let cursors = cursors(core, std::mem::take(&mut request.partitions), request.isolation)?;
    let first = core.rotation.fetch_add(1, Ordering::Relaxed);
    let room = ReplyRoom::new(core.replies.clone(), own);
    let table = Table::to_read(cursors, first, &request, room);
    // One that does not wait for records waits for its turn to read those that are there.
    let max_wait = if request.max_wait.is_zero() { PATIENCE } else { request.max_wait };
    Ok(Round::new(table, max_wait))
}

/// Finds out where the cursors are.
pub(super) async fn settle(core: &Arc<Core>, cursors: Vec<Cursor>) -> Result<Vec<Cursor>, Error> {
    let mut round = Round::new(Table::to_settle(cursors), Duration::ZERO);
    round.go_on(core).await?;
    let settled = round.table.lock().end();
    Ok(settled)
}

impl Round {
    fn new(table: Table, max_wait: Duration) -> Self {
        Self { table: Arc::new(Mutex::new(table)), max_wait, jobs: Vec::new() }
    }

    pub(super) async fn run(mut self, core: &Arc<Core>) -> Result<Fetched, Error> {
        self.go_on(core).await?;
        self.table.lock().fetched()
    }

    /// Reads and waits until it is enough, or time is over.
    async fn go_on(&mut self, core: &Arc<Core>) -> Result<(), Error> {
        let mut until = Some(core.timer.sleep(self.max_wait));
        let (mut patience, mut waiting) = (None, None);
        loop {
            self.pass(core).await?;
            let (enough, complete) = {
                let table = self.table.lock();
                (table.has_enough(), table.is_complete())
            };
            if enough {
                until = None;
            }
            // Who can begin no more has no use for a turn.
            let can_begin = self.jobs.len() < MOST_JOBS;
            let waited = if can_begin { self.table.lock().waited(until.is_some()) } else { Vec::new() };
            let over = match &mut until {
                Some(until) => {
                    if waiting.is_none() {
                        waiting = Some(wait_permit(core)?);
                    }
                    until
                }
                None if complete => return Ok(()),
                None => patience.get_or_insert_with(|| core.timer.sleep(PATIENCE)),
            };
            match wait(waited, &mut self.jobs, over, core.closing.fired()).await {
                Woken::More => {}
                Woken::Turn(index, turn) => self.table.lock().cursors[index].set_turn(turn),
                Woken::Ended(index, error) => {
                    self.table.lock().cursors[index].end(&error);
                    until = None;
                }
                Woken::Lost(error) => return Err(error),
                Woken::Until if until.take().is_some() => {}
                Woken::Until | Woken::Closing => return Ok(()),
            }
        }
    }

    /// Has what is there read, by a job; where that takes long, another one goes on with the rest.
    async fn pass(&mut self, core: &Core) -> Result<(), Error> {
        self.table.lock().line_up();
        while self.jobs.len() < MOST_JOBS && self.table.lock().has_next() {
            let table = Arc::clone(&self.table);
            let mut job = Job::start(core, move || work(&table));
            match job.unless_slow(core).await {
                Some(ended) => ended?,
                None => self.jobs.push(job),
            }
        }
        Ok(())
    }
}

impl Drop for Round {
    fn drop(&mut self) {
        let cursors = self.table.lock().end();
        drop(cursors);
    }
}

fn wait_permit(core: &Core) -> Result<Permit, Error> {
    let advice = "send again when others have ended, or without max_wait_ms";
    core.waiting_fetches.take_for(1, || "a fetch that waits".to_owned(), advice)
}
