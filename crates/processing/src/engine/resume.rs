//! Whether a stored position and the topic as it is fit together.

use std::path::Path;

use crate::backend::TopicDescription;
use crate::error::{Error, ErrorKind};
use crate::sqlite::Position;

/// Refuses a position that cannot be gone on from. Processing something else in silence would be worse than to stop.
pub(super) fn check(
    position: &Position,
    topic: &TopicDescription,
    pipeline: &str,
    database: &Path,
) -> Result<(), Error> {
    let Position { topic: name, partition, topic_id, resume } = position;
    let refuse = |what: String| {
        Err(Error::new(
            ErrorKind::Position,
            format!(
                "pipeline {pipeline:?} cannot go on in topic {name:?}: {what}. To process what the topic holds now, \
                 give the pipeline another name, or another SQLite file than {}",
                database.display()
            ),
        ))
    };
    if *topic_id != topic.topic_id {
        return refuse(format!(
            "its position belongs to a topic of that name that was deleted (its id was {topic_id}, this one's is {})",
            topic.topic_id
        ));
    }
    let Some(state) = topic.partitions.iter().find(|state| state.partition == *partition) else {
        return refuse(format!("partition {partition}, which it has read, is gone"));
    };
    if resume.read > state.stable_end {
        return refuse(format!(
            "it has read partition {partition} up to offset {}, and the partition ends at {}: the topic has lost \
             records, or is an older copy",
            resume.read, state.stable_end
        ));
    }
    if resume.replay < state.start_offset {
        let needs = if resume.replay < resume.read { "open windows need" } else { "it would read next" };
        return refuse(format!(
            "{needs} partition {partition} from offset {}, and the partition starts at {}: records in between were \
             deleted",
            resume.replay, state.start_offset
        ));
    }
    if resume.replay > resume.read {
        return refuse(format!("the position of partition {partition} contradicts itself"));
    }
    Ok(())
}
