//! A GeoJSON feed as records: what to produce, in which order.
//!
//! A broken feature is no reason to stop: it becomes a record all the same, and the pipeline sets
//! it aside with the reason. Only a file that is no feed at all is refused.

use std::io;
use std::path::Path;

use bytes::Bytes;
use logmill_record::TimestampMs;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::failure::{Exit, Failure, exit_of_io};
use crate::when::day_text;

/// The feed inside the binary; where it is from stands in `data/README.md`.
static EMBEDDED: &str = include_str!("../../data/earthquakes.json");

/// What to do about a file that is no feed.
const WANTED: &str = "give a GeoJSON feature collection, such as earthquake.usgs.gov has them";

/// The largest file that is read, so that a wrong argument does not fill the memory.
const MAX_FEED_BYTES: u64 = 1 << 30;

/// Features in the order in which they are produced: by time, those without a usable one last.
#[derive(Debug)]
pub(super) struct Feed {
    /// What the feed is called in the result.
    pub(super) name: String,
    /// The features.
    pub(super) features: Vec<Feature>,
}

/// A feature as a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Feature {
    /// The feature's id, or the SHA-256 of its JSON in hex if it has none.
    pub(super) key: Bytes,
    /// The feature's JSON, byte for byte as it stood in the feed.
    pub(super) value: Bytes,
    /// `properties.time`, if it is a time.
    pub(super) time: Option<TimestampMs>,
}

impl Feed {
    /// The feed inside the binary.
    pub(super) fn embedded() -> Result<Self, Failure> {
        Self::parse("earthquakes.json (inside the program)", EMBEDDED.as_bytes())
    }

    /// Reads the file at `path`.
    pub(super) fn read(path: &Path) -> Result<Self, Failure> {
        let name = path.display().to_string();
        let cannot = |error: io::Error| {
            Failure::new(exit_of_io(&error), format!("cannot read the feed {name}: {error}"))
        };
        let status = std::fs::metadata(path).map_err(cannot)?;
        if status.len() > MAX_FEED_BYTES {
            let message = format!("the feed {name} is larger than 1 GiB: split it");
            return Err(Failure::new(Exit::Failed, message));
        }
        Self::parse(&name, &std::fs::read(path).map_err(cannot)?)
    }

    /// Reads a feature collection.
    pub(super) fn parse(name: &str, json: &[u8]) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Collection<'a> {
            #[serde(borrow)]
            features: Option<Vec<&'a RawValue>>,
        }
        let refuse = |why: String| Failure::new(Exit::Failed, format!("the feed {name} {why}"));
        let collection: Collection<'_> =
            serde_json::from_slice(json).map_err(|error| match error.classify() {
                serde_json::error::Category::Eof if json.iter().all(u8::is_ascii_whitespace) => {
                    refuse(format!("is empty; {WANTED}"))
                }
                serde_json::error::Category::Eof => refuse(format!(
                    "is cut off: its JSON ends in the middle, at line {} column {}; fetch the file again",
                    error.line(),
                    error.column()
                )),
                serde_json::error::Category::Data => {
                    refuse(format!("is JSON, but no GeoJSON feed: {error}; {WANTED}"))
                }
                _ => refuse(format!("is not JSON: {error}; {WANTED}")),
            })?;
        let features = match collection.features {
            None => {
                return Err(refuse(format!("has no \"features\"; {WANTED}")));
            }
            Some(features) if features.is_empty() => {
                return Err(refuse("has no features: there is nothing to do".to_owned()));
            }
            Some(features) => features,
        };
        let mut features: Vec<_> = features.into_iter().map(Feature::from_json).collect();
        // Stable, so that features of the same time keep the feed's order.
        features.sort_by_key(|feature| (feature.time.is_none(), feature.time));
        Ok(Self { name: name.to_owned(), features })
    }
}

impl Feature {
    fn from_json(json: &RawValue) -> Self {
        #[derive(Deserialize)]
        struct Probe<'a> {
            #[serde(borrow)]
            id: Option<&'a RawValue>,
            #[serde(borrow)]
            properties: Option<&'a RawValue>,
        }
        #[derive(Deserialize)]
        struct Properties<'a> {
            #[serde(borrow)]
            time: Option<&'a RawValue>,
        }
        let json = json.get();
        // Each level by itself, so that whatever else is wrong hides neither the id nor the time.
        let probe = serde_json::from_str::<Probe<'_>>(json).ok();
        let id = probe.as_ref().and_then(|probe| probe.id).and_then(|id| id_text(id.get()));
        let properties = probe.and_then(|probe| probe.properties);
        let time = properties
            .and_then(|raw| serde_json::from_str::<Properties<'_>>(raw.get()).ok()?.time)
            .and_then(|raw| usable_time(raw.get()));
        let key = id.unwrap_or_else(|| hex(&Sha256::digest(json.as_bytes())));
        Self { key: key.into(), value: Bytes::copy_from_slice(json.as_bytes()), time }
    }
}

/// GeoJSON allows text and numbers as ids; empty text identifies nothing.
fn id_text(json: &str) -> Option<String> {
    match serde_json::from_str(json).ok()? {
        serde_json::Value::String(id) if !id.is_empty() => Some(id),
        serde_json::Value::Number(_) => Some(json.to_owned()),
        _ => None,
    }
}

/// Whole milliseconds, on a day that a calendar has.
fn usable_time(json: &str) -> Option<TimestampMs> {
    let time = TimestampMs(serde_json::from_str(json).ok()?);
    day_text(time).map(|_| time)
}

/// Bytes as hexadecimal digits.
pub(super) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
