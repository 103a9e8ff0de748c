//! The columns of a row type, before there is a row.
//!
//! A made-up instance is deserialized: its `Deserialize` says which fields it wants, and gets an example of what it
//! asks for. That instance is serialized, and what comes out are the columns: names, order and types as real rows will
//! have them, whatever `rename`, `with` or `skip` attributes do in between.
//!
//! Types that check their input (a date, a UUID, an address) refuse an example that is no such thing; then the next
//! one of [`EXAMPLES`] is tried in that place.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use rusqlite::types::Value;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, EnumAccess, IntoDeserializer, MapAccess,
    VariantAccess, Visitor,
};
use serde::{Serialize, forward_to_deserialize_any};

use super::row::fields_of;
use super::{Column, ColumnKind};

/// Strings that text types with a syntax of their own accept.
const EXAMPLES: [&str; 9] = [
    "",
    "a",
    "0",
    "1970-01-01",
    "00:00:00",
    "1970-01-01T00:00:00",
    "1970-01-01T00:00:00Z",
    "00000000-0000-4000-8000-000000000000",
    "127.0.0.1",
];

/// The columns of `Row`, or why it cannot be a row of a table.
pub(super) fn columns_of<Row: Serialize + DeserializeOwned>() -> Result<Vec<Column>, String> {
    let type_name = std::any::type_name::<Row>();
    let example = example_of::<Row>().map_err(|reason| format!("{type_name} cannot be a row: {reason}"))?;
    let fields = fields_of(&example).map_err(|reason| format!("{type_name} cannot be a row: {reason}"))?;
    let mut columns = Vec::with_capacity(fields.len());
    for field in fields {
        let kind = match field.cell.value {
            Value::Text(_) => ColumnKind::Text,
            Value::Integer(_) => ColumnKind::Integer,
            Value::Real(_) => ColumnKind::Real,
            Value::Blob(_) => ColumnKind::Blob,
            Value::Null => {
                return Err(format!(
                    "{type_name} cannot be a row: the type of column {:?} is not known",
                    field.name
                ));
            }
        };
        columns.push(Column { name: field.name.to_owned(), kind, nullable: field.cell.optional });
    }
    if columns.is_empty() {
        return Err(format!("{type_name} cannot be a row: it has no fields"));
    }
    Ok(columns)
}

fn example_of<Row: DeserializeOwned>() -> Result<Row, String> {
    let probe = Probe::default();
    loop {
        probe.state.borrow_mut().start_over();
        match Row::deserialize(RowProbe(&probe)) {
            Ok(row) => return Ok(row),
            Err(refusal) => probe.state.borrow_mut().learn(refusal)?,
        }
    }
}

#[derive(Default)]
struct Probe {
    state: RefCell<State>,
}

/// What was tried so far. Every round of probing asks the same questions in the same order.
#[derive(Default)]
struct State {
    /// Per string that is asked for, the example to give.
    choices: Vec<usize>,
    /// How many strings were asked for in this round.
    strings: usize,
    /// Names that lead to a field that had a value already: aliases.
    aliases: HashSet<&'static str>,
    field: Option<&'static str>,
    /// Whether a string was the last thing given.
    gave_string: bool,
}

impl State {
    fn start_over(&mut self) {
        self.strings = 0;
        self.field = None;
        self.gave_string = false;
    }

    fn string(&mut self) -> &'static str {
        if self.choices.len() == self.strings {
            self.choices.push(0);
        }
        let choice = self.choices[self.strings];
        self.strings += 1;
        self.gave_string = true;
        EXAMPLES[choice]
    }

    /// Makes the next round go further than this one, or says why it cannot.
    fn learn(&mut self, refusal: Refusal) -> Result<(), String> {
        let reason = match refusal {
            Refusal::Twice => match self.field {
                Some(alias) if self.aliases.insert(alias) => return Ok(()),
                _ => "two fields have the same name".to_owned(),
            },
            Refusal::Because(reason) => {
                let last = self.choices.get_mut(self.strings.wrapping_sub(1)).filter(|_| self.gave_string);
                if let Some(choice) = last.filter(|choice| **choice + 1 < EXAMPLES.len()) {
                    *choice += 1;
                    return Ok(());
                }
                reason
            }
        };
        Err(match self.field {
            Some(field) => format!("column {field:?}: {reason}"),
            None => reason,
        })
    }
}

/// Why a round ended.
#[derive(Debug)]
enum Refusal {
    /// A field got a second value.
    Twice,
    Because(String),
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Twice => f.write_str("a field came twice"),
            Self::Because(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Refusal {}

impl de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::Because(message.to_string())
    }

    fn duplicate_field(_: &'static str) -> Self {
        Self::Twice
    }
}

/// The row itself.
struct RowProbe<'a>(&'a Probe);

impl<'de> Deserializer<'de> for RowProbe<'_> {
    type Error = Refusal;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal::Because("a row must be a struct with named fields, none of them flattened".to_owned()))
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_map(Columns { probe: self.0, fields: fields.iter() })
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        seq tuple tuple_struct map enum identifier ignored_any
    }
}

struct Columns<'a> {
    probe: &'a Probe,
    fields: std::slice::Iter<'static, &'static str>,
}

impl<'de> MapAccess<'de> for Columns<'_> {
    type Error = Refusal;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Refusal> {
        let mut state = self.probe.state.borrow_mut();
        let next = self.fields.find(|field| !state.aliases.contains(**field));
        state.field = next.copied();
        state.gave_string = false;
        drop(state);
        next.map(|field| seed.deserialize(field.into_deserializer())).transpose()
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Refusal> {
        seed.deserialize(ColumnProbe(self.probe))
    }
}

/// One column: gives an example of what is asked for.
struct ColumnProbe<'a>(&'a Probe);

fn nested<T>(what: &str) -> Result<T, Refusal> {
    Err(Refusal::Because(format!(
        "{what} does not fit into one column: give each part a field of its own, or write it as text"
    )))
}

macro_rules! examples {
    ($($method:ident = $visit:ident($example:expr);)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            visitor.$visit($example)
        })*
    };
}

impl<'de> Deserializer<'de> for ColumnProbe<'_> {
    type Error = Refusal;

    // 1 rather than 0, for types that are never zero.
    examples! {
        deserialize_bool = visit_bool(true);
        deserialize_i8 = visit_i8(1);
        deserialize_i16 = visit_i16(1);
        deserialize_i32 = visit_i32(1);
        deserialize_i64 = visit_i64(1);
        deserialize_u8 = visit_u8(1);
        deserialize_u16 = visit_u16(1);
        deserialize_u32 = visit_u32(1);
        deserialize_u64 = visit_u64(1);
        deserialize_f32 = visit_f32(1.0);
        deserialize_f64 = visit_f64(1.0);
        deserialize_char = visit_char('a');
        deserialize_bytes = visit_bytes(b"a");
        deserialize_byte_buf = visit_bytes(b"a");
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let example = self.0.state.borrow_mut().string();
        visitor.visit_str(example)
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        match variants.first() {
            Some(variant) => visitor.visit_enum(FirstVariant(variant)),
            None => nested("an enum without variants"),
        }
    }

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        Err(Refusal::Because(
            "its type is only known from each value: use String, i64, f64 or bool".to_owned(),
        ))
    }

    fn deserialize_i128<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        nested("a 128-bit integer")
    }

    fn deserialize_u128<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        nested("a 128-bit integer")
    }

    fn deserialize_unit<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        nested("a unit")
    }

    fn deserialize_unit_struct<V: Visitor<'de>>(self, _: &'static str, _: V) -> Result<V::Value, Refusal> {
        nested("a unit struct")
    }

    fn deserialize_seq<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        nested("a list")
    }

    fn deserialize_tuple<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Refusal> {
        nested("a tuple or array")
    }

    fn deserialize_tuple_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: usize,
        _: V,
    ) -> Result<V::Value, Refusal> {
        nested("a tuple struct")
    }

    fn deserialize_map<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Refusal> {
        nested("a map")
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Refusal> {
        nested("a struct")
    }

    forward_to_deserialize_any! { identifier ignored_any }
}

struct FirstVariant(&'static str);

impl<'de> EnumAccess<'de> for FirstVariant {
    type Error = Refusal;
    type Variant = Unit;

    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Unit), Refusal> {
        Ok((seed.deserialize(self.0.into_deserializer())?, Unit))
    }
}

struct Unit;

impl<'de> VariantAccess<'de> for Unit {
    type Error = Refusal;

    fn unit_variant(self) -> Result<(), Refusal> {
        Ok(())
    }

    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, _: T) -> Result<T::Value, Refusal> {
        nested("an enum with data")
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, _: V) -> Result<V::Value, Refusal> {
        nested("an enum with data")
    }

    fn struct_variant<V: Visitor<'de>>(self, _: &'static [&'static str], _: V) -> Result<V::Value, Refusal> {
        nested("an enum with data")
    }
}

#[cfg(test)]
mod tests;
