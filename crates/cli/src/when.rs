//! Times and places in a partition, as people write them.

use std::str::FromStr;

use jiff::civil::date;
use jiff::{Span, Timestamp};
use logmill_client::Position;
use logmill_record::{Offset, TimestampMs};

/// Where to start reading: what `--from` takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StartPosition {
    /// The first record that is still kept.
    Earliest,
    /// Only what comes from now on.
    Latest,
    /// This offset.
    Offset(u64),
    /// The first record at or after this time.
    Time(TimestampMs),
}

impl StartPosition {
    /// As the client says it.
    pub(crate) const fn position(self) -> Position {
        match self {
            Self::Earliest => Position::Earliest,
            Self::Latest => Position::Latest,
            Self::Offset(offset) => Position::Offset(Offset(offset)),
            Self::Time(time) => Position::Time(time),
        }
    }
}

impl FromStr for StartPosition {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "earliest" => return Ok(Self::Earliest),
            "latest" => return Ok(Self::Latest),
            _ => {}
        }
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            return match text.parse::<u64>() {
                Ok(offset) if i64::try_from(offset).is_ok() => Ok(Self::Offset(offset)),
                _ => Err(format!("{text} is larger than any offset")),
            };
        }
        parse_time(text).map(Self::Time).ok_or_else(|| {
            "it is neither 'earliest' nor 'latest', nor an offset (digits only), nor a time such as \
             2018-02-07T01:30:00Z"
                .to_owned()
        })
    }
}

/// Reads a time as RFC 3339 writes it. Parts of a millisecond are rounded up, so that "the first
/// record at or after" stays true.
pub(crate) fn parse_time(text: &str) -> Option<TimestampMs> {
    let time: Timestamp = text.parse().ok()?;
    let nanoseconds = time.as_nanosecond();
    let milliseconds = nanoseconds.div_euclid(1_000_000) + i128::from(nanoseconds.rem_euclid(1_000_000) != 0);
    i64::try_from(milliseconds).ok().map(TimestampMs)
}

/// A time as RFC 3339 writes it, in UTC and with milliseconds; a number that is no time of the
/// years −9999 to 9999 stays a number of milliseconds.
pub(crate) fn time_text(time: TimestampMs) -> String {
    match Timestamp::from_millisecond(time.0) {
        Ok(time) => format!("{time:.3}"),
        Err(_) => format!("{} ms", time.0),
    }
}

/// The UTC day of a time as 'YYYY-MM-DD', or `None` outside the years 1 to 9999, which that form
/// cannot write.
pub(crate) fn day_text(time: TimestampMs) -> Option<String> {
    const DAY_MS: i64 = 86_400_000;
    // Not by way of `Timestamp`, which ends hours before the calendar does.
    let days = Span::new().try_days(time.0.div_euclid(DAY_MS)).ok()?;
    let date = date(1970, 1, 1).checked_add(days).ok()?;
    (date.year() >= 1).then(|| date.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_words_digits_or_times() {
        assert_eq!("earliest".parse(), Ok(StartPosition::Earliest));
        assert_eq!("latest".parse(), Ok(StartPosition::Latest));
        assert_eq!("017".parse(), Ok(StartPosition::Offset(17)));
        assert_eq!(
            "2018-02-07T01:26:13.840Z".parse(),
            Ok(StartPosition::Time(TimestampMs(1_517_966_773_840)))
        );
        assert_eq!(
            "2018-02-07T02:26:13.84+01:00".parse(),
            Ok(StartPosition::Time(TimestampMs(1_517_966_773_840)))
        );
    }

    #[test]
    fn anything_else_is_refused_with_what_would_do() {
        for text in ["", "-1", "1e3", "yesterday", "2018-02-07", "2018-02-30T00:00:00Z", "２"] {
            let error = text.parse::<StartPosition>().expect_err(text);
            assert!(error.contains("2018-02-07T01:30:00Z"), "{text}: {error}");
        }
        for text in ["9223372036854775808", "99999999999999999999999"] {
            assert!(text.parse::<StartPosition>().expect_err(text).contains("larger than any offset"));
        }
    }

    #[test]
    fn parts_of_a_millisecond_are_rounded_up() {
        assert_eq!(parse_time("1970-01-01T00:00:00.0000001Z"), Some(TimestampMs(1)));
        assert_eq!(parse_time("1969-12-31T23:59:59.9985Z"), Some(TimestampMs(-1)));
    }

    #[test]
    fn days_are_utc_days_of_a_calendar() {
        let day = |ms| day_text(TimestampMs(ms));
        assert_eq!(day(0).as_deref(), Some("1970-01-01"));
        assert_eq!(day(-1).as_deref(), Some("1969-12-31"));
        assert_eq!(day(253_402_300_799_999).as_deref(), Some("9999-12-31"));
        assert_eq!(day(-62_135_596_800_000).as_deref(), Some("0001-01-01"));
        for outside in [-62_135_596_800_001, 253_402_300_800_000, i64::MIN, i64::MAX] {
            assert_eq!(day(outside), None);
        }
    }

    #[test]
    fn times_are_written_in_utc_with_milliseconds() {
        assert_eq!(time_text(TimestampMs(1_517_966_773_840)), "2018-02-07T01:26:13.840Z");
        assert_eq!(time_text(TimestampMs(-1)), "1969-12-31T23:59:59.999Z");
        assert_eq!(time_text(TimestampMs(i64::MAX)), "9223372036854775807 ms");
    }
}
