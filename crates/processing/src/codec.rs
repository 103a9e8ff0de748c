//! How a record's value becomes a `T`, and a `T` a record's value.

use bytes::Bytes;
use logmill_record::{Batch, Record};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Both directions of one encoding. The reasons are for the dead letter beside the record, never for a log line:
/// they may quote the value.
pub(crate) struct Codec<T> {
    pub(crate) name: &'static str,
    pub(crate) decode: fn(&Batch, &Record<'_>) -> Result<T, String>,
    pub(crate) encode: fn(&T) -> Result<Bytes, String>,
}

impl<T> Clone for Codec<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Codec<T> {}

impl<T: Serialize + DeserializeOwned> Codec<T> {
    pub(crate) fn json() -> Self {
        Self {
            name: "json",
            decode: |_, record| {
                serde_json::from_slice(value_of(record)?)
                    .map_err(|error| format!("not the JSON expected: {error}"))
            },
            encode: |value| {
                serde_json::to_vec(value)
                    .map(Bytes::from)
                    .map_err(|error| format!("cannot be written as JSON: {error}"))
            },
        }
    }
}

impl Codec<Bytes> {
    pub(crate) fn bytes() -> Self {
        Self {
            name: "bytes",
            decode: |batch, record| Ok(batch.bytes().slice_ref(value_of(record)?)),
            encode: |value| Ok(value.clone()),
        }
    }
}

fn value_of<'a>(record: &Record<'a>) -> Result<&'a [u8], String> {
    record.value.ok_or_else(|| "the record has no value (null)".to_owned())
}
