//! The pipeline: earthquakes per network and UTC day, written with the public builder.

use std::path::Path;

use logmill_processing::{
    Aggregate, AtLeastOnce, Mill, Pipeline, Plan, RunReport, Sqlite, TimestampMs, Topic, Tumbling, Windowed,
    days, millis,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{RESULTS, SOURCE};
use crate::failure::{Exit, Failure};
use crate::when::day_text;

/// The table in the SQLite file.
pub(super) const TABLE: &str = "quakes_per_day";

/// A feature of the feed, as far as the pipeline needs it. Only what the result needs can make a
/// feature unusable; place and depth may be anything.
#[derive(Serialize, Deserialize)]
struct Feature {
    properties: Properties,
    #[serde(default)]
    geometry: Value,
}

#[derive(Serialize, Deserialize)]
struct Properties {
    #[serde(rename = "type")]
    kind: String,
    time: Option<i64>,
    net: Option<String>,
    mag: Option<f64>,
    #[serde(default)]
    place: Value,
}

/// An earthquake.
#[derive(Clone, Serialize, Deserialize)]
struct Quake {
    net: String,
    magnitude: f64,
    place: Option<String>,
    /// Kilometres below the surface; negative above sea level.
    depth_km: Option<f64>,
    time: i64,
}

impl Quake {
    fn from_feature(feature: Feature) -> Result<Self, &'static str> {
        let Feature { properties, geometry } = feature;
        let time = properties.time.ok_or("it has no time")?;
        if day_text(TimestampMs(time)).is_none() {
            return Err("its time is not in the years 1 to 9999");
        }
        Ok(Self {
            net: properties.net.ok_or("it has no network (properties.net)")?,
            magnitude: properties.mag.ok_or("it has no magnitude (properties.mag)")?,
            place: properties.place.as_str().map(str::to_owned),
            depth_km: geometry.pointer("/coordinates/2").and_then(Value::as_f64),
            time,
        })
    }
}

/// One network's day: a row of the table, and a record of the topic.
#[derive(Clone, Serialize, Deserialize)]
struct Day {
    net: String,
    day: String,
    count: i64,
    max_mag: f64,
    mean_mag: f64,
}

impl Day {
    fn from_window(window: Windowed<String, Magnitudes>) -> Result<Self, &'static str> {
        let Magnitudes { count, max, sum } = window.value;
        #[expect(clippy::cast_precision_loss, reason = "a day has fewer than 2^53 quakes")]
        let mean_mag = sum / count as f64;
        let day = day_text(window.start).ok_or("its day is not in the years 1 to 9999")?;
        Ok(Self { net: window.key, day, count, max_mag: max, mean_mag })
    }
}

/// Count, largest and sum of magnitudes.
#[derive(Clone, Copy, Serialize, Deserialize)]
struct Magnitudes {
    count: i64,
    max: f64,
    sum: f64,
}

struct Strength;

impl Aggregate for Strength {
    type In = Quake;
    type Acc = Magnitudes;
    type Out = Magnitudes;

    fn init(&self) -> Magnitudes {
        // The smallest number, not −∞: an accumulator has to survive a codec.
        Magnitudes { count: 0, max: f64::MIN, sum: 0.0 }
    }

    fn add(&self, acc: &mut Magnitudes, quake: Quake) {
        acc.count += 1;
        acc.max = acc.max.max(quake.magnitude);
        acc.sum += quake.magnitude;
    }

    fn merge(&self, acc: &mut Magnitudes, other: Magnitudes) {
        acc.count += other.count;
        acc.max = acc.max.max(other.max);
        acc.sum += other.sum;
    }

    fn finish(&self, acc: &Magnitudes) -> Magnitudes {
        *acc
    }
}

/// The plan over the topic of events, with its table in `sqlite`.
fn plan(sqlite: &Path) -> Result<Plan, Failure> {
    let quakes = Pipeline::new(SOURCE);
    let per_day = quakes
        .source(Topic::json::<Feature>(SOURCE).time(|feature| feature.properties.time))
        .filter(|feature| feature.properties.kind == "earthquake")
        .try_map("quake", Quake::from_feature)
        .key_by(|quake| quake.net.clone())
        .window(Tumbling::of(days(1)))
        .aggregate("per_day", Strength)
        .try_map("row", Day::from_window);
    per_day.clone().sink("table", Sqlite::upsert::<Day>(sqlite, TABLE).key(["net", "day"]));
    // Written again after a crash, under the same key: whoever reads it takes the last.
    per_day.to("topic", Topic::json::<Day>(RESULTS).key(|day| format!("{}/{}", day.net, day.day)));
    quakes.build().map_err(|error| Failure::new(Exit::Failed, error.to_string()))
}

/// Runs it over what the topic holds now, and goes on where an earlier run ended.
pub(super) async fn run(url: &str, sqlite: &Path) -> Result<RunReport, Failure> {
    let plan = plan(sqlite)?;
    let mill = Mill::connect(url).await.map_err(|error| failure(&error))?;
    mill.run_to_end(&plan, AtLeastOnce::every(millis(100))).await.map_err(|error| failure(&error))
}

fn failure(error: &logmill_processing::Error) -> Failure {
    use logmill_processing::ErrorKind;
    let exit = match error.kind() {
        ErrorKind::Unavailable => Exit::Unavailable,
        ErrorKind::NotFound => Exit::NotFound,
        ErrorKind::Denied => Exit::Denied,
        ErrorKind::Busy | ErrorKind::Fenced => Exit::Conflict,
        _ => Exit::Failed,
    };
    Failure::new(exit, error.to_string())
}
