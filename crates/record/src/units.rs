//! The two integers that must never be swapped: a place in a log and a time.

use std::fmt;

/// The place of a record in its log: 0 for the first, one more for each that follows.
///
/// Kafka keeps offsets in an `i64`, so a valid one is at most [`Offset::MAX`]. The field is open for literals
/// and patterns; whatever comes from outside goes through [`Offset::new`] or `try_from`.
///
/// ```
/// use logmill_record::Offset;
///
/// assert_eq!(Offset(41).next(), Offset(42));
/// assert_eq!(Offset::new(u64::MAX), None);
/// assert!(Offset::try_from(-1_i64).is_err());
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The first offset of a new log.
    pub const ZERO: Offset = Offset(0);
    /// The largest offset that the format can hold: `i64::MAX`.
    pub const MAX: Offset = Offset(i64::MAX as u64);

    /// The offset, or `None` above [`Offset::MAX`].
    #[must_use]
    pub const fn new(offset: u64) -> Option<Offset> {
        if offset <= Offset::MAX.0 { Some(Offset(offset)) } else { None }
    }

    /// The number itself.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The offset after this one; [`Offset::MAX`] stays where it is.
    #[must_use]
    pub const fn next(self) -> Offset {
        self.saturating_add(1)
    }

    /// The offset `count` further on, or `None` past [`Offset::MAX`].
    #[must_use]
    pub const fn checked_add(self, count: u64) -> Option<Offset> {
        match self.0.checked_add(count) {
            Some(sum) => Offset::new(sum),
            None => None,
        }
    }

    /// The offset `count` further on, at most [`Offset::MAX`].
    #[must_use]
    pub const fn saturating_add(self, count: u64) -> Offset {
        match self.checked_add(count) {
            Some(sum) => sum,
            None => Offset::MAX,
        }
    }

    /// How many offsets lie from `earlier` up to this one, or `None` if `earlier` is the later one.
    #[must_use]
    pub const fn checked_sub(self, earlier: Offset) -> Option<u64> {
        self.0.checked_sub(earlier.0)
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl TryFrom<u64> for Offset {
    type Error = OffsetOutOfRange;

    fn try_from(offset: u64) -> Result<Offset, OffsetOutOfRange> {
        Offset::new(offset).ok_or(OffsetOutOfRange { value: offset.into() })
    }
}

impl TryFrom<i64> for Offset {
    type Error = OffsetOutOfRange;

    fn try_from(offset: i64) -> Result<Offset, OffsetOutOfRange> {
        u64::try_from(offset).map(Offset).map_err(|_| OffsetOutOfRange { value: offset.into() })
    }
}

/// As Kafka writes it; an offset above [`Offset::MAX`], which no log has, becomes `i64::MAX`.
impl From<Offset> for i64 {
    fn from(offset: Offset) -> i64 {
        i64::try_from(offset.0).unwrap_or(i64::MAX)
    }
}

/// An integer that cannot be an [`Offset`]: negative, or above `i64::MAX`.
///
/// ```
/// use logmill_record::Offset;
///
/// let error = Offset::try_from(-7_i64).unwrap_err();
/// assert!(error.to_string().starts_with("offset -7 is out of range"));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("offset {value} is out of range: an offset is between 0 and {}", i64::MAX)]
pub struct OffsetOutOfRange {
    value: i128,
}

/// A time in milliseconds since 1970-01-01T00:00:00Z; negative before that.
///
/// ```
/// use logmill_record::TimestampMs;
///
/// assert!(TimestampMs(-86_400_000) < TimestampMs(0));
/// assert_eq!(TimestampMs::NONE, TimestampMs(-1));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimestampMs(pub i64);

impl TimestampMs {
    /// Kafka's "no timestamp", -1; it cannot be told from the last millisecond of 1969.
    pub const NONE: TimestampMs = TimestampMs(-1);

    /// The milliseconds.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }
}

impl fmt::Display for TimestampMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_end_at_the_largest_i64() {
        assert_eq!(Offset::new(i64::MAX as u64), Some(Offset::MAX));
        assert_eq!(Offset::new(i64::MAX as u64 + 1), None);
        assert_eq!(Offset::MAX.next(), Offset::MAX);
        assert_eq!(Offset::MAX.checked_add(1), None);
        assert_eq!(Offset(7).checked_add(u64::MAX), None);
        assert_eq!(Offset(7).checked_sub(Offset(8)), None);
        assert_eq!(i64::from(Offset(u64::MAX)), i64::MAX);
        assert_eq!(Offset::try_from(i64::MAX), Ok(Offset::MAX));
    }

    #[test]
    fn a_refused_offset_is_named_in_the_error() {
        let error = Offset::try_from(-7_i64).unwrap_err().to_string();
        assert!(error.starts_with("offset -7 is out of range"), "{error}");
        let error = Offset::try_from(u64::MAX).unwrap_err().to_string();
        assert!(error.contains("18446744073709551615"), "{error}");
    }
}
