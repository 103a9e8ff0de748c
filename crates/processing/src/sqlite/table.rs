//! The user's table: created where it is missing, compared where it exists, upserted into.

use std::path::Path;
use std::sync::Arc;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::error::failed;
use super::{Column, ColumnKind, TableSpec};
use crate::error::{Error, ErrorKind};

/// A table that is known to take the rows.
#[derive(Debug)]
pub(super) struct Table {
    name: String,
    upsert: String,
}

impl Table {
    /// Checks the table that is there, or creates it: not for a pipeline that has a position already, since the rows
    /// before it would be missing.
    pub(super) fn open(db: &Connection, spec: &TableSpec, has_position: bool) -> Result<Self, Error> {
        let path = &spec.path;
        let columns = spec.columns.as_ref().map_err(|why| Error::new(ErrorKind::Invalid, why.as_str()))?;
        let found = existing(db, path, &spec.table)?;
        if found.is_empty() && has_position {
            return Err(Error::new(
                ErrorKind::Invalid,
                format!(
                    "SQLite file {}: table {:?} is not there, but the pipeline has a position: the rows of all \
                     records before it would be missing. Put the table back, or give the pipeline another name or \
                     another file, and it starts from the beginning of its topics",
                    path.display(),
                    spec.table
                ),
            ));
        }
        if found.is_empty() {
            db.execute(&create_statement(&spec.table, columns, &spec.key), [])
                .map_err(|error| failed(path, &format!("create table {:?}", spec.table), error))?;
        } else {
            check(path, spec, columns, &found)?;
        }
        Ok(Self { name: spec.table.clone(), upsert: upsert_statement(&spec.table, columns, &spec.key) })
    }

    /// Writes the rows, in their order.
    pub(super) fn upsert(&self, db: &Connection, path: &Path, rows: &[Vec<Value>]) -> Result<(), Error> {
        let doing = || format!("write to table {:?}", self.name);
        let mut statement = db.prepare_cached(&self.upsert).map_err(|error| failed(path, &doing(), error))?;
        for row in rows {
            statement.execute(params_from_iter(row)).map_err(|error| failed(path, &doing(), error))?;
        }
        Ok(())
    }
}

/// A column of a table that exists.
struct Existing {
    name: String,
    declared: String,
    /// Place in the primary key, from 1; 0 outside of it.
    key_place: usize,
}

fn existing(db: &Connection, path: &Path, table: &str) -> Result<Vec<Existing>, Error> {
    let query = || {
        let mut statement = db.prepare("SELECT name, type, pk FROM pragma_table_info(?1)")?;
        let columns = statement.query_map([table], |row| {
            let key_place: i64 = row.get(2)?;
            Ok(Existing {
                name: row.get(0)?,
                declared: row.get(1)?,
                key_place: usize::try_from(key_place).unwrap_or_default(),
            })
        })?;
        columns.collect::<Result<Vec<_>, rusqlite::Error>>()
    };
    query().map_err(|error| failed(path, &format!("read the columns of table {table:?}"), error))
}

/// The table may have its columns in another order, and other constraints; names, types and key must be the same.
fn check(path: &Path, spec: &TableSpec, columns: &Arc<[Column]>, found: &[Existing]) -> Result<(), Error> {
    let mut key: Vec<&Existing> = found.iter().filter(|column| column.key_place > 0).collect();
    key.sort_by_key(|column| column.key_place);
    let same_columns = found.len() == columns.len()
        && columns.iter().all(|column| {
            found
                .iter()
                .any(|there| there.name == column.name && affinity(&there.declared) == Some(column.kind))
        });
    // ON CONFLICT names the key as a set.
    let same_key = key.len() == spec.key.len() && key.iter().all(|there| spec.key.contains(&there.name));
    if same_columns && same_key {
        return Ok(());
    }
    let there: Vec<String> =
        found.iter().map(|column| format!("{} {}", column.name, column.declared)).collect();
    let there_key: Vec<&str> = key.iter().map(|column| column.name.as_str()).collect();
    let wanted: Vec<String> =
        columns.iter().map(|column| format!("{} {}", column.name, column.kind.sql())).collect();
    Err(Error::new(
        ErrorKind::Invalid,
        format!(
            "SQLite file {}: table {:?} exists with other columns: it has ({}; key {}), the pipeline writes \
             ({}; key {}). Name another table, or drop this one",
            path.display(),
            spec.table,
            there.join(", "),
            there_key.join(", "),
            wanted.join(", "),
            spec.key.join(", "),
        ),
    ))
}

/// The types that SQLite treats as ours; <https://www.sqlite.org/datatype3.html>, section 3.1.
fn affinity(declared: &str) -> Option<ColumnKind> {
    let declared = declared.to_ascii_uppercase();
    let has = |part| declared.contains(part);
    if has("INT") {
        Some(ColumnKind::Integer)
    } else if has("CHAR") || has("CLOB") || has("TEXT") {
        Some(ColumnKind::Text)
    } else if has("BLOB") || declared.is_empty() {
        Some(ColumnKind::Blob)
    } else if has("REAL") || has("FLOA") || has("DOUB") {
        Some(ColumnKind::Real)
    } else {
        None
    }
}

fn create_statement(table: &str, columns: &[Column], key: &[String]) -> String {
    let columns: Vec<String> = columns
        .iter()
        .map(|column| {
            let constraint = if column.nullable { "" } else { " NOT NULL" };
            format!("{} {}{constraint}", quoted(&column.name), column.kind.sql())
        })
        .collect();
    format!("CREATE TABLE {} ({}, PRIMARY KEY ({}))", quoted(table), columns.join(", "), list(key))
}

fn upsert_statement(table: &str, columns: &[Column], key: &[String]) -> String {
    let names: Vec<&String> = columns.iter().map(|column| &column.name).collect();
    let places: Vec<String> = (1..=columns.len()).map(|place| format!("?{place}")).collect();
    let updates: Vec<String> = names
        .iter()
        .filter(|name| !key.contains(name))
        .map(|name| format!("{0} = excluded.{0}", quoted(name)))
        .collect();
    let action =
        if updates.is_empty() { "NOTHING".to_owned() } else { format!("UPDATE SET {}", updates.join(", ")) };
    format!(
        "INSERT INTO {} ({}) VALUES ({}) ON CONFLICT ({}) DO {action}",
        quoted(table),
        list(&names),
        places.join(", "),
        list(key),
    )
}

fn list(names: &[impl AsRef<str>]) -> String {
    names.iter().map(|name| quoted(name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// An identifier, whatever characters it has.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
