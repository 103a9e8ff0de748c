//! The database of one run: rows and positions in one transaction, and one writer at a time.
//!
//! Two tables of our own (format 1):
//!
//! | table | row per | columns |
//! |---|---|---|
//! | `logmill_pipelines` | pipeline | `format`; `epoch`: moved on by each run that opens the file; `steps`: the stateful steps as JSON |
//! | `logmill_positions` | source partition | `topic_id`; `read_offset`: all before it is handled; `replay_offset`: the smallest offset that an open window needs, else the read position; `largest_time_ms`: the largest event time read; `closed_ms`: every window that ends at or before it was emitted; `refused`: the offsets from `replay_offset` on that were refused for their time, as JSON `[[from, to], …]`, each `to` not included; NULL if there are none |
//!
//! Opening and checking is one transaction: a run that is refused leaves nothing behind, and does not fence the run
//! that works. Each commit names the epoch it was opened with; no row changed means that a later run has the file.

use std::path::{Path, PathBuf};
use std::time::Duration;

use logmill_record::{Offset, OffsetOutOfRange};
use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, TransactionBehavior, params};

use super::TableSpec;
use super::error::failed;
use super::table::Table;
use crate::error::{Error, ErrorKind};
use crate::flow::Refused;

/// The format of our own tables.
const FORMAT: i64 = 1;
/// How long another writer may hold the lock.
const BUSY_TIMEOUT: Duration = Duration::from_millis(if cfg!(test) { 50 } else { 10_000 });

const CREATE: &str = "
CREATE TABLE IF NOT EXISTS logmill_pipelines (
    pipeline TEXT NOT NULL PRIMARY KEY,
    format INTEGER NOT NULL,
    epoch INTEGER NOT NULL,
    steps TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS logmill_positions (
    pipeline TEXT NOT NULL,
    topic TEXT NOT NULL,
    partition INTEGER NOT NULL,
    topic_id TEXT NOT NULL,
    read_offset INTEGER NOT NULL,
    replay_offset INTEGER NOT NULL,
    largest_time_ms INTEGER,
    closed_ms INTEGER,
    refused TEXT,
    PRIMARY KEY (pipeline, topic, partition)
);";

/// How far a source partition has been handled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Position {
    pub(crate) topic: String,
    pub(crate) partition: u32,
    pub(crate) topic_id: String,
    pub(crate) resume: Resume,
}

/// Where to go on in a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resume {
    /// Every record before it is handled.
    pub(crate) read: Offset,
    /// The smallest offset that an open window needs; at most `read`.
    pub(crate) replay: Offset,
    /// The largest event time before `read`.
    pub(crate) largest: Option<i64>,
    /// The closed watermark; `i64::MIN` if nothing was ever closed.
    pub(crate) closed: i64,
    /// What was refused for its time, from `replay` on.
    pub(crate) refused: Refused,
}

/// The open database.
#[derive(Debug)]
pub(crate) struct Store {
    db: Connection,
    path: PathBuf,
    pipeline: String,
    epoch: i64,
    tables: Vec<Table>,
}

impl Store {
    /// Opens the file, checks everything, and takes it over from any other run of `pipeline`.
    ///
    /// `steps` describes the stateful steps: a plan with others cannot go on from this position. `check` gets the
    /// positions and refuses those that cannot be gone on from.
    pub(crate) fn open(
        path: &Path,
        pipeline: &str,
        steps: &str,
        tables: &[&TableSpec],
        check: impl FnOnce(&[Position]) -> Result<(), Error>,
    ) -> Result<(Self, Vec<Position>), Error> {
        let mut db = connect(path)?;
        let sql = |error| failed(path, "read the pipeline's position", error);
        let tx = db
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(|error| failed(path, "begin a transaction", error))?;
        tx.execute_batch(CREATE)
            .map_err(|error| failed(path, "create the tables for the position", error))?;
        check_pipeline(&tx, path, pipeline, steps)?;
        let positions = load(&tx, pipeline).map_err(sql)?;
        check(&positions)?;
        let tables = tables
            .iter()
            .map(|spec| Table::open(&tx, spec, !positions.is_empty()))
            .collect::<Result<Vec<_>, _>>()?;
        let epoch = tx
            .query_row(
                "INSERT INTO logmill_pipelines (pipeline, format, epoch, steps) VALUES (?1, ?2, 1, ?3)
                 ON CONFLICT (pipeline) DO UPDATE SET epoch = epoch + 1 RETURNING epoch",
                params![pipeline, FORMAT, steps],
                |row| row.get(0),
            )
            .map_err(sql)?;
        tx.commit().map_err(|error| failed(path, "commit", error))?;
        Ok((Self { db, path: path.to_owned(), pipeline: pipeline.to_owned(), epoch, tables }, positions))
    }

    /// Commits a step: `rows` by table, in the order of the tables at [`open`](Self::open), and the positions.
    pub(crate) fn commit(&mut self, rows: &[Vec<Vec<Value>>], positions: &[Position]) -> Result<(), Error> {
        let path = &self.path;
        let sql = |error| failed(path, "commit a step", error);
        let tx = self.db.transaction_with_behavior(TransactionBehavior::Immediate).map_err(sql)?;
        let mine = tx
            .execute(
                "UPDATE logmill_pipelines SET epoch = epoch WHERE pipeline = ?1 AND epoch = ?2",
                params![self.pipeline, self.epoch],
            )
            .map_err(sql)?;
        if mine == 0 {
            return Err(Error::new(
                ErrorKind::Fenced,
                format!(
                    "pipeline {:?}: another run has taken over SQLite file {}, and this one has ended without \
                     writing to it again. Run a pipeline once at a time",
                    self.pipeline,
                    path.display(),
                ),
            ));
        }
        for (table, rows) in self.tables.iter().zip(rows) {
            table.upsert(&tx, path, rows)?;
        }
        for position in positions {
            save(&tx, &self.pipeline, position).map_err(sql)?;
        }
        tx.commit().map_err(sql)
    }
}

fn connect(path: &Path) -> Result<Connection, Error> {
    let sql = |error| failed(path, "open it", error);
    let db = Connection::open(path).map_err(sql)?;
    db.busy_timeout(BUSY_TIMEOUT).map_err(sql)?;
    let mode: String = db.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(sql)?;
    if !mode.eq_ignore_ascii_case("wal") {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "SQLite file {}: the write-ahead log cannot be used here (journal mode stays {mode:?}); put the \
                 file on a local file system",
                path.display()
            ),
        ));
    }
    db.pragma_update(None, "synchronous", "FULL").map_err(sql)?;
    Ok(db)
}

/// The pipeline's own row has to be of our format and of the same stateful steps.
fn check_pipeline(tx: &Transaction<'_>, path: &Path, pipeline: &str, steps: &str) -> Result<(), Error> {
    let known: Option<(i64, String)> = tx
        .query_row("SELECT format, steps FROM logmill_pipelines WHERE pipeline = ?1", [pipeline], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .optional()
        .map_err(|error| failed(path, "read the pipeline's position", error))?;
    match known {
        Some((format, _)) if format != FORMAT => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "SQLite file {}: the position of pipeline {pipeline:?} has format {format}, and this version knows \
                 {FORMAT}. Run the version that wrote it, or a newer one",
                path.display()
            ),
        )),
        Some((_, known)) if known != steps => Err(Error::new(
            ErrorKind::Invalid,
            format!(
                "pipeline {pipeline:?}: its windowed steps were {known} when it last ran, and are {steps} now: its \
                 open windows in SQLite file {} cannot be carried over. Give the pipeline another name or another \
                 file, and it starts from the beginning of its topics",
                path.display()
            ),
        )),
        _ => Ok(()),
    }
}

fn load(tx: &Transaction<'_>, pipeline: &str) -> rusqlite::Result<Vec<Position>> {
    let mut statement = tx.prepare(
        "SELECT topic, partition, topic_id, read_offset, replay_offset, largest_time_ms, closed_ms, refused
         FROM logmill_positions WHERE pipeline = ?1 ORDER BY topic, partition",
    )?;
    let offset = |row: &Row<'_>, column: usize| {
        let number: i64 = row.get(column)?;
        Offset::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, number))
    };
    let positions = statement.query_map([pipeline], |row| {
        Ok(Position {
            topic: row.get(0)?,
            partition: row.get(1)?,
            topic_id: row.get(2)?,
            resume: Resume {
                read: offset(row, 3)?,
                replay: offset(row, 4)?,
                largest: row.get(5)?,
                closed: row.get::<_, Option<i64>>(6)?.unwrap_or(i64::MIN),
                refused: refused(row, 7)?,
            },
        })
    })?;
    positions.collect()
}

fn refused(row: &Row<'_>, column: usize) -> rusqlite::Result<Refused> {
    let Some(text) = row.get::<_, Option<String>>(column)? else { return Ok(Refused::default()) };
    let wrong = |error| rusqlite::Error::FromSqlConversionFailure(column, Type::Text, error);
    let ranges: Vec<(u64, u64)> = serde_json::from_str(&text).map_err(|error| wrong(error.into()))?;
    let ranges = ranges
        .into_iter()
        .map(|(from, to)| Ok(Offset::try_from(from)?..Offset::try_from(to)?))
        .collect::<Result<_, OffsetOutOfRange>>()
        .map_err(|error| wrong(error.into()))?;
    Refused::from_ranges(ranges).ok_or_else(|| wrong("the ranges of refused offsets are not in order".into()))
}

/// As [`refused`] reads it.
fn refused_text(refused: &Refused) -> Option<String> {
    let ranges: Vec<_> = refused.ranges().iter().map(|range| [range.start.0, range.end.0]).collect();
    let text = || serde_json::to_string(&ranges).expect("invariant: numbers always have a JSON form");
    (!ranges.is_empty()).then(text)
}

fn save(tx: &Transaction<'_>, pipeline: &str, position: &Position) -> rusqlite::Result<()> {
    let Position { topic, partition, topic_id, resume } = position;
    let closed = (resume.closed != i64::MIN).then_some(resume.closed);
    tx.prepare_cached(
        "INSERT INTO logmill_positions
             (pipeline, topic, partition, topic_id, read_offset, replay_offset, largest_time_ms, closed_ms,
              refused)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
         ON CONFLICT (pipeline, topic, partition) DO UPDATE SET
             topic_id = excluded.topic_id, read_offset = excluded.read_offset,
             replay_offset = excluded.replay_offset, largest_time_ms = excluded.largest_time_ms,
             closed_ms = excluded.closed_ms, refused = excluded.refused",
    )?
    .execute(params![
        pipeline,
        topic,
        partition,
        topic_id,
        i64::from(resume.read),
        i64::from(resume.replay),
        resume.largest,
        closed,
        refused_text(&resume.refused)
    ])?;
    Ok(())
}

#[cfg(test)]
mod tests;
