//! The SQLite sink: rows into a table, in one transaction with how far the pipeline has read.
//!
//! * The columns come from the row type, known before the first record ([`probe`]); a row is written by its
//!   `Serialize` ([`row`]).
//! * The table is created where it is missing, and refused where it has other columns ([`table`]).
//! * Rows, positions and the claim of the one writer are committed together ([`store`]). The tables that this needs
//!   start with `logmill_` and live in the same file: rows and position can only be moved, copied or lost together.

mod error;
mod probe;
mod row;
mod store;
mod table;

use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use row::row_of;
pub(crate) use store::{Position, Resume, Store};

/// An SQLite database as a sink.
#[derive(Debug)]
pub struct Sqlite(());

impl Sqlite {
    /// Rows of type `Row` for `table` of the database file at `path`: a row whose key is there already replaces it.
    ///
    /// `Row` is a struct whose fields are the columns, by their serialized names: strings, `char`s and enums without
    /// data are `TEXT`, integers and `bool` are `INTEGER`, floats are `REAL`, byte strings `BLOB`. A column is
    /// `NOT NULL` unless its field is an `Option`. Structs, lists and maps inside a row are refused by
    /// [`build`](crate::Pipeline::build); so is a type whose fields only each value knows.
    ///
    /// A row that SQLite cannot hold as it is (an integer beyond `i64`, NaN) is a
    /// [dead letter](crate#records-that-cannot-be-processed).
    ///
    /// ```
    /// use logmill_processing::Sqlite;
    /// use serde::{Deserialize, Serialize};
    ///
    /// #[derive(Serialize, Deserialize)]
    /// struct PerMinute {
    ///     page: String,
    ///     start: i64,
    ///     hits: u64,
    /// }
    ///
    /// // CREATE TABLE "hits" ("page" TEXT NOT NULL, "start" INTEGER NOT NULL, "hits" INTEGER NOT NULL,
    /// //                      PRIMARY KEY ("page", "start"))
    /// let sink = Sqlite::upsert::<PerMinute>("stats.db", "hits").key(["page", "start"]);
    /// ```
    pub fn upsert<Row: Serialize + DeserializeOwned>(
        path: impl AsRef<Path>,
        table: impl Into<String>,
    ) -> UpsertTable<Row> {
        UpsertTable {
            spec: TableSpec {
                path: path.as_ref().to_owned(),
                table: table.into(),
                columns: probe::columns_of::<Row>().map(Arc::from),
                key: Vec::new(),
            },
            row: PhantomData,
        }
    }
}

/// A table that rows of type `Row` are written to.
#[must_use]
pub struct UpsertTable<Row> {
    pub(crate) spec: TableSpec,
    row: PhantomData<fn(Row)>,
}

impl<Row> UpsertTable<Row> {
    /// The columns that make the primary key; at least one, none of them an `Option`.
    pub fn key<C: Into<String>>(mut self, columns: impl IntoIterator<Item = C>) -> Self {
        self.spec.key = columns.into_iter().map(Into::into).collect();
        self
    }
}

impl<Row> fmt::Debug for UpsertTable<Row> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("UpsertTable").field(&self.spec).finish()
    }
}

/// A table and what is known about it before it is opened.
#[derive(Clone, Debug)]
pub(crate) struct TableSpec {
    pub(crate) path: PathBuf,
    pub(crate) table: String,
    /// Or why the row type has none.
    pub(crate) columns: Result<Arc<[Column]>, String>,
    pub(crate) key: Vec<String>,
}

/// A column of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) kind: ColumnKind,
    pub(crate) nullable: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColumnKind {
    Text,
    Integer,
    Real,
    Blob,
}

impl ColumnKind {
    /// As it stands in `CREATE TABLE`.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Text => "TEXT",
            Self::Integer => "INTEGER",
            Self::Real => "REAL",
            Self::Blob => "BLOB",
        }
    }
}
