//! Between the API's signed integers and the types that cannot be negative. What a node answers is checked
//! like anything else that comes in from outside.

use logmill_record::Offset;

use crate::Error;

pub(crate) fn partition_to(partition: u32) -> Result<i32, Error> {
    i32::try_from(partition)
        .map_err(|_| Error::invalid(format!("there is no partition {partition}: a topic has at most 10,000")))
}

pub(crate) fn partition_from(partition: i32) -> Result<u32, Error> {
    u32::try_from(partition).map_err(|_| Error::nonsense(format!("partition {partition}")))
}

pub(crate) fn offset_from(offset: i64) -> Result<Offset, Error> {
    Offset::try_from(offset).map_err(|error| Error::nonsense(error).with_source(error))
}

pub(crate) fn count_from(what: &str, count: i64) -> Result<u64, Error> {
    u64::try_from(count).map_err(|_| Error::nonsense(format!("{what} is {count}")))
}

pub(crate) fn count32_from(what: &str, count: i32) -> Result<u32, Error> {
    u32::try_from(count).map_err(|_| Error::nonsense(format!("{what} is {count}")))
}

/// A limit that a request carries; the node has the last word on one that is too high.
pub(crate) fn limit_to(bytes: usize) -> i32 {
    i32::try_from(bytes).unwrap_or(i32::MAX)
}
