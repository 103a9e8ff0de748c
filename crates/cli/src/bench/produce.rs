//! `logmill bench produce`: records up to their acknowledgement.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::ProduceArgs;
use super::measure::{Measured, Timetable, measure};
use super::send;
use super::target::Target;
use crate::failure::Failure;

pub(super) async fn run(args: &ProduceArgs, target: &Target, topic: &Arc<str>) -> Result<Measured, Failure> {
    let load = args.load();
    let producers = send::connect(&target.url, &args.common, load).await?;
    let times = Timetable::new(&args.common);
    let acknowledged = Arc::new(AtomicU64::new(0));
    let mut tasks = send::start(producers, topic, (&args.common, load), &times, &acknowledged);
    measure(&times, target.process, &acknowledged, &mut tasks).await
}
