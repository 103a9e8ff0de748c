//! Which offsets may follow one another in a segment.

use logmill_record::{BatchHeader, Offset};

/// Whether offsets may be missing between batches. They are where compaction took whole batches
/// out, and nowhere else: elsewhere a gap is damage.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Gaps {
    /// Each batch begins where the one before it ended.
    None,
    /// Each begins there or later, and none reaches past this offset.
    Below(Offset),
}

impl Gaps {
    /// Checks that a batch may come where `expected` is the next offset; else says why not.
    pub(crate) fn check(self, header: &BatchHeader, expected: Offset) -> Result<(), String> {
        let claimed = header.base_offset;
        match self {
            Self::None if claimed == expected => Ok(()),
            Self::None => Err(format!("a batch claims offset {claimed} where {expected} follows")),
            Self::Below(end) if claimed >= expected && header.next_offset() <= end => Ok(()),
            Self::Below(end) => Err(format!(
                "a batch claims offsets {claimed} to {} where only {expected} to {end} are left",
                header.next_offset(),
            )),
        }
    }
}
