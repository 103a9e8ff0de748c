use std::num::NonZeroU32;

use serde::{Deserialize, Deserializer, Serializer};

use super::*;

fn shown<Row: Serialize + DeserializeOwned>() -> Vec<String> {
    let columns = columns_of::<Row>().unwrap();
    columns
        .iter()
        .map(|column| {
            let null = if column.nullable { " NULL" } else { "" };
            format!("{} {}{null}", column.name, column.kind.sql())
        })
        .collect()
}

fn refused<Row: Serialize + DeserializeOwned>() -> String {
    let reason = columns_of::<Row>().unwrap_err();
    let (_, reason) = reason.split_once(" cannot be a row: ").unwrap();
    reason.to_owned()
}

#[test]
fn fields_are_columns() {
    #[derive(Serialize, Deserialize)]
    struct Row {
        text: String,
        letter: char,
        small: i8,
        large: u64,
        yes: bool,
        ratio: f32,
        maybe: Option<f64>,
        never_zero: NonZeroU32,
        level: Level,
        id: Id,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "lowercase")]
    enum Level {
        Low,
        High,
    }
    #[derive(Serialize, Deserialize)]
    struct Id(String);
    assert_eq!(
        shown::<Row>(),
        [
            "text TEXT",
            "letter TEXT",
            "small INTEGER",
            "large INTEGER",
            "yes INTEGER",
            "ratio REAL",
            "maybe REAL NULL",
            "never_zero INTEGER",
            "level TEXT",
            "id TEXT",
        ]
    );
    let _ = Level::High;
}

#[test]
fn columns_have_the_names_and_types_that_rows_are_serialized_with() {
    fn as_text<S: Serializer>(value: &u64, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(value)
    }
    fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
    #[derive(Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Row {
        first_name: String,
        #[serde(rename(serialize = "out", deserialize = "in"))]
        renamed: i64,
        #[serde(alias = "old", alias = "older")]
        aliased: i64,
        #[serde(skip)]
        hidden: i64,
        #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
        number: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        rarely: Option<i64>,
    }
    let _ = |row: Row| row.hidden;
    assert_eq!(
        shown::<Row>(),
        ["firstName TEXT", "out INTEGER", "aliased INTEGER", "number TEXT", "rarely INTEGER NULL"]
    );
}

#[test]
fn types_with_a_syntax_get_an_example_that_they_accept() {
    #[derive(Serialize, Deserialize)]
    struct Row {
        name: String,
        address: std::net::IpAddr,
        day: Day,
        other: Day,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(try_from = "String", into = "String")]
    #[derive(Clone)]
    struct Day(String);
    impl From<Day> for String {
        fn from(day: Day) -> String {
            day.0
        }
    }
    impl TryFrom<String> for Day {
        type Error = &'static str;
        fn try_from(text: String) -> Result<Day, &'static str> {
            let dashes = text.len() == 10 && text.as_bytes()[4] == b'-' && text.as_bytes()[7] == b'-';
            if dashes { Ok(Day(text)) } else { Err("not a day") }
        }
    }
    assert_eq!(shown::<Row>(), ["name TEXT", "address TEXT", "day TEXT", "other TEXT"]);
}

#[test]
fn what_has_no_place_in_a_row_is_said() {
    #[derive(Serialize, Deserialize)]
    struct Of<T> {
        field: T,
    }
    #[derive(Serialize, Deserialize)]
    enum Shape {
        Circle { radius: f64 },
    }
    #[derive(Serialize, Deserialize)]
    struct Pair(i64, i64);
    #[derive(Serialize, Deserialize)]
    struct Flat {
        id: i64,
        #[serde(flatten)]
        rest: Of<i64>,
    }
    #[derive(Serialize, Deserialize)]
    #[serde(try_from = "i64", into = "i64")]
    #[derive(Clone)]
    struct Never;
    impl From<Never> for i64 {
        fn from(_: Never) -> i64 {
            0
        }
    }
    impl TryFrom<i64> for Never {
        type Error = &'static str;
        fn try_from(_: i64) -> Result<Never, &'static str> {
            Err("never")
        }
    }
    let nested = "does not fit into one column: give each part a field of its own, or write it as text";
    assert_eq!(refused::<Of<Vec<i64>>>(), format!("column \"field\": a list {nested}"));
    assert_eq!(refused::<Of<Of<i64>>>(), format!("column \"field\": a struct {nested}"));
    assert_eq!(refused::<Of<Shape>>(), format!("column \"field\": an enum with data {nested}"));
    assert_eq!(refused::<Of<u128>>(), format!("column \"field\": a 128-bit integer {nested}"));
    assert_eq!(
        refused::<Of<serde_json::Value>>(),
        "column \"field\": its type is only known from each value: use String, i64, f64 or bool"
    );
    assert_eq!(refused::<Of<Never>>(), "column \"field\": never");
    let not_a_struct = "a row must be a struct with named fields, none of them flattened";
    assert_eq!(refused::<Pair>(), not_a_struct);
    assert_eq!(refused::<Flat>(), not_a_struct);
    assert_eq!(refused::<String>(), not_a_struct);
    let _ = Shape::Circle { radius: 1.0 };
}
