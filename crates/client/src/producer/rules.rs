//! What a topic asks of the batches that come for it, and whether this program can make them.

use logmill_record::{BatchBuilder, BatchError, BatchOptions, Compression, NewRecord, TimestampMs};

use crate::{Error, ErrorKind, Setting};

/// The settings of a topic that a batch is refused by, as [errors](is_by_rules) name them.
const COMPRESSION_TYPE: &str = "compression.type";
pub(super) const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// What a topic asks of batches, as far as its node has said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct TopicRules {
    /// How all are compressed; `None` leaves it to the producer.
    pub(super) compression: Option<Compression>,
    /// What none may pass, as it is sent.
    pub(super) max_message_bytes: Option<usize>,
}

impl TopicRules {
    /// A node that does not tell a setting asks for nothing by it.
    pub(super) fn of(topic: &str, settings: &[Setting]) -> Result<TopicRules, Error> {
        let value = |name| settings.iter().find(|setting| setting.name == name).map(|it| it.value.as_str());
        let compression = match value(COMPRESSION_TYPE) {
            Some(text) => compression(topic, text)?,
            None => None,
        };
        let bytes = |text: &str| {
            let nonsense = || Error::nonsense(format!("topic {topic} has {MAX_MESSAGE_BYTES} {text:?}"));
            text.parse().map_err(|_| nonsense())
        };
        let max_message_bytes = value(MAX_MESSAGE_BYTES).map(bytes).transpose()?;
        Ok(TopicRules { compression, max_message_bytes })
    }
}

fn compression(topic: &str, text: &str) -> Result<Option<Compression>, Error> {
    let codec = match text {
        "producer" => return Ok(None),
        "uncompressed" => return Ok(Some(Compression::None)),
        "gzip" => Compression::Gzip,
        "snappy" => Compression::Snappy,
        "lz4" => Compression::Lz4,
        "zstd" => Compression::Zstd,
        _ => {
            let message = format!(
                "topic {topic} has {COMPRESSION_TYPE} {text:?}, which this client does not know: use one that is \
                 as new as the node, or alter the topic"
            );
            return Err(Error::new(ErrorKind::Unsupported, "BATCH_UNSUPPORTED", message));
        }
    };
    check_codec(codec, &format!("the {COMPRESSION_TYPE} of topic {topic}"))?;
    Ok(Some(codec))
}

/// Whether this program can compress like this; an error says who asks for it.
pub(super) fn check_codec(codec: Compression, who: &str) -> Result<(), Error> {
    let mut batch = BatchBuilder::with_options(BatchOptions::new().compression(codec), 0);
    let record = NewRecord { timestamp: TimestampMs(0), key: None, value: None, headers: &[] };
    let built = batch.push(&record).and_then(|()| batch.build());
    built.map(drop).map_err(|error| lacks_codec(codec, who, error))
}

fn lacks_codec(codec: Compression, who: &str, error: BatchError) -> Error {
    let message = format!(
        "{who} is {codec}, and this program was built without it: turn on the feature `{codec}` of logmill-client"
    );
    Error::new(ErrorKind::Unsupported, "BATCH_UNSUPPORTED", message)
        .with_metadata([("codec", codec.to_string())])
        .with_source(error)
}

/// Whether a batch was refused by what its topic asks for, which may have changed since it was learnt.
pub(super) fn is_by_rules(error: &Error) -> bool {
    match error.reason() {
        "RECORD_REFUSED" => error.metadata("setting") == Some(COMPRESSION_TYPE),
        "MESSAGE_TOO_LARGE" => error.metadata("limit") == Some(MAX_MESSAGE_BYTES),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SettingSource;

    fn rules(settings: &[(&str, &str)]) -> Result<TopicRules, Error> {
        let setting = |(name, value): &(&str, &str)| Setting {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
            source: SettingSource::Topic,
        };
        TopicRules::of("t", &settings.iter().map(setting).collect::<Vec<_>>())
    }

    #[test]
    fn a_topic_may_name_a_codec_forbid_them_or_leave_it_to_the_producer() {
        let codec = |text: &str| rules(&[("compression.type", text)]).unwrap().compression;
        assert_eq!(codec("producer"), None);
        assert_eq!(codec("uncompressed"), Some(Compression::None));
        for codec_of in [Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd] {
            assert_eq!(codec(&codec_of.to_string()), Some(codec_of));
        }
        let error = rules(&[("compression.type", "brotli")]).unwrap_err();
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unsupported, "BATCH_UNSUPPORTED"));
        assert_eq!(rules(&[("retention.ms", "-1")]).unwrap(), TopicRules::default());
    }

    #[test]
    fn a_largest_batch_that_is_no_number_is_not_taken_for_none() {
        let max = |text| rules(&[("max.message.bytes", text)]).map(|rules| rules.max_message_bytes);
        assert_eq!(max("2000").unwrap(), Some(2_000));
        assert_eq!(max("-1").unwrap_err().kind(), ErrorKind::Internal);
    }

    #[test]
    fn a_codec_that_the_program_lacks_is_named_with_the_feature_that_brings_it() {
        let codec = Compression::Zstd;
        let cause = BatchError::UnsupportedCompression { compression: codec };
        let error = lacks_codec(codec, "the compression.type of topic t", cause);
        assert_eq!((error.kind(), error.metadata("codec")), (ErrorKind::Unsupported, Some("zstd")));
        let text = error.to_string();
        assert!(text.contains("topic t") && text.contains("the feature `zstd` of logmill-client"), "{text}");
    }
}
