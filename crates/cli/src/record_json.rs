//! Records as JSON, without loss: what `consume --json` prints and `produce --input json` takes.
//!
//! One object on one line: `topic`, `partition`, `offset`, `timestamp` (milliseconds since
//! 1970-01-01 UTC), `key` and `value` as text, or `key_base64` and `value_base64` where the bytes
//! are not UTF-8; null where there is none, which is not the same as "". `headers` is an array of
//! `[name, value]` pairs, so that order and repeated names survive; a value is text, null, or
//! `{"base64": …}`.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use logmill_record::TimestampMs;
use serde::de::IgnoredAny;
use serde::ser::{SerializeMap, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use crate::when::parse_time;

/// A record as it was read.
#[derive(Debug)]
pub(crate) struct RecordOut<'a> {
    pub(crate) topic: &'a str,
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    pub(crate) timestamp: TimestampMs,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: &'a [(&'a str, Option<&'a [u8]>)],
}

impl Serialize for RecordOut<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("topic", self.topic)?;
        map.serialize_entry("partition", &self.partition)?;
        map.serialize_entry("offset", &self.offset)?;
        map.serialize_entry("timestamp", &self.timestamp.0)?;
        bytes_entry(&mut map, ["key", "key_base64"], self.key)?;
        bytes_entry(&mut map, ["value", "value_base64"], self.value)?;
        map.serialize_entry("headers", &Headers(self.headers))?;
        map.end()
    }
}

pub(crate) fn bytes_entry<M: SerializeMap>(
    map: &mut M,
    [text_name, base64_name]: [&'static str; 2],
    bytes: Option<&[u8]>,
) -> Result<(), M::Error> {
    match bytes.map(|bytes| str::from_utf8(bytes).map_err(|_| BASE64.encode(bytes))) {
        None => map.serialize_entry(text_name, &()),
        Some(Ok(text)) => map.serialize_entry(text_name, text),
        Some(Err(base64)) => map.serialize_entry(base64_name, &base64),
    }
}

pub(crate) struct Headers<'a>(pub(crate) &'a [(&'a str, Option<&'a [u8]>)]);

impl Serialize for Headers<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut seq = serializer.serialize_seq(Some(self.0.len()))?;
        for (name, value) in self.0 {
            let value = value.map(|bytes| match str::from_utf8(bytes) {
                Ok(text) => HeaderValue::Text(text.to_owned()),
                Err(_) => HeaderValue::Base64 { base64: BASE64.encode(bytes) },
            });
            seq.serialize_element(&(name, value))?;
        }
        seq.end()
    }
}

/// A header's value: text, or bytes that are not UTF-8.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum HeaderValue {
    Text(String),
    Base64 { base64: String },
}

/// A record to append, as it stood on a line of input.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct RecordIn {
    pub(crate) timestamp: Option<TimestampMs>,
    pub(crate) key: Option<Bytes>,
    pub(crate) value: Option<Bytes>,
    pub(crate) headers: Vec<(String, Option<Bytes>)>,
}

/// The line itself. `topic`, `partition` and `offset` say where a record came from; where it goes
/// is said by the command. A field of another name is an error: a misspelt one would be lost.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    #[serde(rename = "topic")]
    _topic: Option<IgnoredAny>,
    #[serde(rename = "partition")]
    _partition: Option<IgnoredAny>,
    #[serde(rename = "offset")]
    _offset: Option<IgnoredAny>,
    timestamp: Option<TimeIn>,
    key: Option<String>,
    key_base64: Option<String>,
    value: Option<String>,
    value_base64: Option<String>,
    #[serde(default)]
    headers: Vec<(String, Option<HeaderValue>)>,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "a timestamp is milliseconds since 1970-01-01 UTC, or RFC 3339 text")]
enum TimeIn {
    Milliseconds(i64),
    Text(String),
}

/// Reads one line; the error says what is wrong with it.
pub(crate) fn parse_record(line: &[u8]) -> Result<RecordIn, String> {
    let line: Line = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    let timestamp = match line.timestamp {
        None => None,
        Some(TimeIn::Milliseconds(milliseconds)) => Some(TimestampMs(milliseconds)),
        Some(TimeIn::Text(text)) => {
            Some(parse_time(&text).ok_or("its timestamp is not a time such as 2018-02-07T01:30:00Z")?)
        }
    };
    let headers = line.headers.into_iter().map(|(name, value)| {
        let value = match value {
            None => None,
            Some(HeaderValue::Text(text)) => Some(Bytes::from(text)),
            Some(HeaderValue::Base64 { base64 }) => Some(decode(&base64, "a header")?),
        };
        Ok((name, value))
    });
    Ok(RecordIn {
        timestamp,
        key: either(line.key, line.key_base64, "key")?,
        value: either(line.value, line.value_base64, "value")?,
        headers: headers.collect::<Result<_, String>>()?,
    })
}

fn either(text: Option<String>, base64: Option<String>, name: &str) -> Result<Option<Bytes>, String> {
    match (text, base64) {
        (None, None) => Ok(None),
        (Some(text), None) => Ok(Some(Bytes::from(text))),
        (None, Some(base64)) => decode(&base64, &format!("{name}_base64")).map(Some),
        (Some(_), Some(_)) => Err(format!("it has both {name} and {name}_base64")),
    }
}

fn decode(base64: &str, name: &str) -> Result<Bytes, String> {
    BASE64.decode(base64).map(Bytes::from).map_err(|error| format!("{name} is not base64: {error}"))
}

#[cfg(test)]
mod tests;
