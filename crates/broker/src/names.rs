//! Which names and sizes a topic can have: Kafka's rules.

use crate::error::{Error, Reason, shorten};

/// The longest topic name, in bytes, which are characters here.
pub const MAX_TOPIC_NAME_BYTES: usize = 249;

/// The most partitions that a topic can have.
pub const MAX_PARTITIONS: u32 = 10_000;

/// Checks the name of a topic that somebody wants to create.
///
/// Kafka's rules: 1 to 249 of `a-z`, `A-Z`, `0-9`, `.`, `_` and `-`, neither `.` nor `..`; and not
/// starting with `__`, which is kept for the node's own topics.
///
/// # Errors
/// [`Reason::TopicNameInvalid`], saying which rule the name breaks.
///
/// ```
/// use logmill_broker::check_topic_name;
///
/// assert!(check_topic_name("quakes-per-day").is_ok());
/// assert!(check_topic_name("../x").is_err());
/// assert!(check_topic_name("__offsets").is_err());
/// ```
pub fn check_topic_name(name: &str) -> Result<(), Error> {
    const ALLOWED: &str = "a-z, A-Z, 0-9, '.', '_' and '-'";
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    let rule = if name.is_empty() {
        format!("a topic name has 1 to {MAX_TOPIC_NAME_BYTES} characters of {ALLOWED}")
    } else if name.len() > MAX_TOPIC_NAME_BYTES {
        format!("it has {} bytes, and a topic name at most {MAX_TOPIC_NAME_BYTES}", name.len())
    } else if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        format!("it has the character {c:?}, and a topic name only {ALLOWED}")
    } else if matches!(name, "." | "..") {
        "\".\" and \"..\" mean directories".to_owned()
    } else if name.starts_with("__") {
        "names that start with \"__\" are kept for the node's own topics".to_owned()
    } else {
        return Ok(());
    };
    let shown = shorten(name);
    let message = format!("{shown:?} cannot be the name of a topic: {rule}");
    Err(Error::new(Reason::TopicNameInvalid, message).with("topic", shown))
}

/// Checks a transactional id: 1 to 249 bytes, no control characters.
pub(crate) fn check_transactional_id(id: &str) -> Result<(), Error> {
    check_text("transactional_id", id)
}

/// Checks the name of a group: 1 to 249 bytes, no control characters.
pub(crate) fn check_group(group: &str) -> Result<(), Error> {
    check_text("group", group)
}

/// Checks a name that is only a name: 1 to 249 bytes, no control characters, and not only spaces.
pub(crate) fn check_text(field: &'static str, text: &str) -> Result<(), Error> {
    let rule = if text.trim().is_empty() {
        "a name has at least one character that is not a space"
    } else if text.len() > MAX_TOPIC_NAME_BYTES {
        "a name has at most 249 bytes"
    } else if text.chars().any(char::is_control) {
        "a name has no control characters"
    } else {
        return Ok(());
    };
    Err(Error::field(field, format!("{:?}", shorten(text)), rule))
}

/// Checks the number of partitions of a topic that somebody wants to create.
pub(crate) fn check_partition_count(partitions: i64) -> Result<u32, Error> {
    match u32::try_from(partitions) {
        Ok(count @ 1..=MAX_PARTITIONS) => Ok(count),
        _ => Err(Error::new(
            Reason::PartitionCountInvalid,
            format!("a topic cannot have {partitions} partitions: give it 1 to {MAX_PARTITIONS}"),
        )
        .with("partitions", partitions)
        .with("max_partitions", MAX_PARTITIONS)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_kafkas_rules() {
        let longest = "a".repeat(MAX_TOPIC_NAME_BYTES);
        for good in ["a", "A.b_c-9", "...", "_one", "-", longest.as_str()] {
            assert!(check_topic_name(good).is_ok(), "{good:?}");
        }
        let too_long = "a".repeat(MAX_TOPIC_NAME_BYTES + 1);
        let bad = ["", ".", "..", "../x", "a/b", "a b", "a\0", "é", "__x", "__", too_long.as_str()];
        for bad in bad {
            let error = check_topic_name(bad).unwrap_err();
            assert_eq!(error.reason(), Reason::TopicNameInvalid, "{bad:?}");
            assert!(error.message().contains("cannot be the name of a topic"), "{error}");
        }
    }

    #[test]
    fn a_huge_name_is_not_repeated_whole() {
        let error = check_topic_name(&"x".repeat(5_000_000)).unwrap_err();
        assert!(error.message().len() < 1_000, "{} bytes", error.message().len());
        assert!(error.message().contains("5000000 bytes"), "{error}");
    }

    #[test]
    fn partitions_have_bounds() {
        assert_eq!(check_partition_count(1).unwrap(), 1);
        assert_eq!(check_partition_count(10_000).unwrap(), 10_000);
        for bad in [0, -1, 10_001, 10_000_000, i64::MAX, i64::MIN] {
            let error = check_partition_count(bad).unwrap_err();
            assert_eq!(error.reason(), Reason::PartitionCountInvalid, "{bad}");
        }
    }
}
