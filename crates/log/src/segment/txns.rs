//! What a sealed segment has to do with transactions.

use logmill_record::Offset;

use crate::format::state::AbortedTxn;

/// Known at the segment's end.
#[derive(Debug)]
pub(crate) struct Txns {
    /// Those whose marker lies in the segment.
    pub(crate) aborted: Vec<AbortedTxn>,
    /// The first offset of the earliest that was open.
    pub(crate) first_open: Option<Offset>,
    /// No producer was known at all.
    pub(crate) knows_none: bool,
}
