//! A struct as a row: its `Serialize` writes one SQLite value per field.

use std::fmt;

use rusqlite::types::Value;
use serde::ser::{Impossible, Serialize, SerializeStruct, Serializer};

use super::Column;

/// The values of `row` in the order of `columns`; or why SQLite cannot hold them.
pub(crate) fn row_of<T: Serialize>(row: &T, columns: &[Column]) -> Result<Vec<Value>, String> {
    let fields = fields_of(row)?;
    let mut values = Vec::with_capacity(columns.len());
    let mut fields = fields.into_iter().peekable();
    for column in columns {
        let value = match fields.next_if(|field| field.name == column.name) {
            Some(field) => field.cell.value,
            // Left out by `skip_serializing_if`.
            None => Value::Null,
        };
        if value == Value::Null && !column.nullable {
            return Err(format!("column {:?} has no value, and is not an Option", column.name));
        }
        values.push(value);
    }
    match fields.next() {
        Some(field) => Err(format!("field {:?} is not one of the columns known at the start", field.name)),
        None => Ok(values),
    }
}

/// The fields of `row`, as they are serialized.
pub(super) fn fields_of<T: Serialize>(row: &T) -> Result<Vec<Field>, String> {
    row.serialize(Fields(Vec::new())).map_err(|error| error.0)
}

/// A serialized field.
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) cell: Cell,
}

/// A value, and whether it came out of an `Option`.
pub(super) struct Cell {
    pub(super) value: Value,
    pub(super) optional: bool,
}

/// Why a value is not a row or a column.
#[derive(Debug)]
pub(super) struct NotARow(String);

impl fmt::Display for NotARow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotARow {}

impl serde::ser::Error for NotARow {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self(message.to_string())
    }
}

type Never = Impossible<Cell, NotARow>;
type NoRow = Impossible<Vec<Field>, NotARow>;

/// Serializes the row itself, which must be a struct.
struct Fields(Vec<Field>);

impl SerializeStruct for Fields {
    type Ok = Vec<Field>;
    type Error = NotARow;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), NotARow> {
        let cell =
            value.serialize(CellSerializer).map_err(|error| NotARow(format!("column {name:?}: {error}")))?;
        self.0.push(Field { name, cell });
        Ok(())
    }

    fn end(self) -> Result<Vec<Field>, NotARow> {
        Ok(self.0)
    }
}

fn no_row<T>(what: &str) -> Result<T, NotARow> {
    Err(NotARow(format!("a row must be a struct with named fields, and this is {what}")))
}

/// The methods of a `Serializer` that refuse their value, whatever it is.
macro_rules! refuse {
    ($refuse:ident: $($method:ident($($of:ty),*) = $what:literal;)*) => {
        $(fn $method(self, $(_: $of),*) -> Result<Self::Ok, NotARow> {
            $refuse($what)
        })*
    };
}

impl Serializer for Fields {
    type Ok = Vec<Field>;
    type Error = NotARow;
    type SerializeSeq = NoRow;
    type SerializeTuple = NoRow;
    type SerializeTupleStruct = NoRow;
    type SerializeTupleVariant = NoRow;
    type SerializeMap = NoRow;
    type SerializeStruct = Self;
    type SerializeStructVariant = NoRow;

    refuse! { no_row:
        serialize_bool(bool) = "a bool";
        serialize_i8(i8) = "an integer";
        serialize_i16(i16) = "an integer";
        serialize_i32(i32) = "an integer";
        serialize_i64(i64) = "an integer";
        serialize_u8(u8) = "an integer";
        serialize_u16(u16) = "an integer";
        serialize_u32(u32) = "an integer";
        serialize_u64(u64) = "an integer";
        serialize_f32(f32) = "a float";
        serialize_f64(f64) = "a float";
        serialize_char(char) = "a char";
        serialize_str(&str) = "a string";
        serialize_bytes(&[u8]) = "a byte string";
        serialize_none() = "an Option";
        serialize_unit() = "a unit";
        serialize_unit_struct(&'static str) = "a unit struct";
        serialize_unit_variant(&'static str, u32, &'static str) = "an enum";
    }

    fn serialize_struct(self, _: &'static str, len: usize) -> Result<Self, NotARow> {
        Ok(Self(Vec::with_capacity(len)))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Vec<Field>, NotARow> {
        value.serialize(self)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<Vec<Field>, NotARow> {
        no_row("an Option")
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Vec<Field>, NotARow> {
        no_row("an enum")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<NoRow, NotARow> {
        no_row("a list")
    }

    fn serialize_tuple(self, _: usize) -> Result<NoRow, NotARow> {
        no_row("a tuple")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<NoRow, NotARow> {
        no_row("a tuple struct")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<NoRow, NotARow> {
        no_row("an enum")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<NoRow, NotARow> {
        no_row("a map (or a struct with a flattened field)")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<NoRow, NotARow> {
        no_row("an enum")
    }
}

/// Serializes one column.
struct CellSerializer;

fn cell(value: Value) -> Result<Cell, NotARow> {
    Ok(Cell { value, optional: false })
}

fn nested<T>(what: &str) -> Result<T, NotARow> {
    Err(NotARow(format!(
        "{what} does not fit into one column: give each part a field of its own, or write it as text"
    )))
}

fn real(value: f64) -> Result<Cell, NotARow> {
    if value.is_nan() {
        return Err(NotARow("NaN cannot be stored, SQLite would make it NULL".to_owned()));
    }
    cell(Value::Real(value))
}

impl Serializer for CellSerializer {
    type Ok = Cell;
    type Error = NotARow;
    type SerializeSeq = Never;
    type SerializeTuple = Never;
    type SerializeTupleStruct = Never;
    type SerializeTupleVariant = Never;
    type SerializeMap = Never;
    type SerializeStruct = Never;
    type SerializeStructVariant = Never;

    fn serialize_bool(self, value: bool) -> Result<Cell, NotARow> {
        cell(Value::Integer(value.into()))
    }

    fn serialize_i8(self, value: i8) -> Result<Cell, NotARow> {
        cell(Value::Integer(value.into()))
    }

    fn serialize_i16(self, value: i16) -> Result<Cell, NotARow> {
        cell(Value::Integer(value.into()))
    }

    fn serialize_i32(self, value: i32) -> Result<Cell, NotARow> {
        cell(Value::Integer(value.into()))
    }

    fn serialize_i64(self, value: i64) -> Result<Cell, NotARow> {
        cell(Value::Integer(value))
    }

    fn serialize_u8(self, value: u8) -> Result<Cell, NotARow> {
        cell(Value::Integer(value.into()))
    }

    fn serialize_u16(self, value: u16) -> Result<Cell, NotARow> {
        cell(Value::Integer(value.into()))
    }

    fn serialize_u32(self, value: u32) -> Result<Cell, NotARow> {
        cell(Value::Integer(value.into()))
    }

    fn serialize_u64(self, value: u64) -> Result<Cell, NotARow> {
        match i64::try_from(value) {
            Ok(value) => cell(Value::Integer(value)),
            Err(_) => Err(NotARow(format!("{value} is beyond SQLite's largest integer, {}", i64::MAX))),
        }
    }

    fn serialize_f32(self, value: f32) -> Result<Cell, NotARow> {
        real(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<Cell, NotARow> {
        real(value)
    }

    fn serialize_char(self, value: char) -> Result<Cell, NotARow> {
        cell(Value::Text(value.to_string()))
    }

    fn serialize_str(self, value: &str) -> Result<Cell, NotARow> {
        cell(Value::Text(value.to_owned()))
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<Cell, NotARow> {
        cell(Value::Blob(value.to_owned()))
    }

    fn serialize_none(self) -> Result<Cell, NotARow> {
        Ok(Cell { value: Value::Null, optional: true })
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Cell, NotARow> {
        Ok(Cell { value: value.serialize(self)?.value, optional: true })
    }

    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<Cell, NotARow> {
        cell(Value::Text(variant.to_owned()))
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<Cell, NotARow> {
        value.serialize(self)
    }

    refuse! { nested:
        serialize_unit() = "a unit";
        serialize_unit_struct(&'static str) = "a unit struct";
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: &T,
    ) -> Result<Cell, NotARow> {
        nested("an enum with data")
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Never, NotARow> {
        nested("a list")
    }

    fn serialize_tuple(self, _: usize) -> Result<Never, NotARow> {
        nested("a tuple or array")
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Never, NotARow> {
        nested("a tuple struct")
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, NotARow> {
        nested("an enum with data")
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Never, NotARow> {
        nested("a map")
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Never, NotARow> {
        nested("a struct")
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Never, NotARow> {
        nested("an enum with data")
    }
}
