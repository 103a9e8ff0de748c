//! What a history consists of.

use std::fmt;
use std::sync::Arc;

use logmill_record::Offset;

use super::{Ack, Cut, Id, Place, Session, To, Visible};

/// One thing that was done or came.
#[derive(Clone, Debug)]
pub(super) enum Event {
    Visible { topic: Arc<str>, visible: Visible },
    Compacted { topic: Arc<str> },
    Sent { to: To, id: Id },
    Acknowledged { place: Place, id: Id, offset: Offset, ack: Ack },
    Refused { to: To, id: Id },
    Unknown { to: To, id: Id },
    Session { place: Place, session: Session, from: Offset },
    Read { session: Session, offset: Offset, id: Option<Id> },
    Cut { cut: Cut },
    Fault { kind: &'static str },
    MayRemove { place: Place, below: Offset },
    Contents { place: Place, start: Offset, records: Vec<(Offset, Option<Id>)> },
}

impl Event {
    /// What it is counted as.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::Visible { .. } => "visibility changed",
            Self::Compacted { .. } => "topics compacted",
            Self::Sent { .. } => "sent",
            Self::Acknowledged { ack: Ack::Durable, .. } => "acknowledged durable",
            Self::Acknowledged { ack: Ack::Written, .. } => "acknowledged written",
            Self::Refused { .. } => "refused",
            Self::Unknown { .. } => "unknown",
            Self::Session { .. } => "sessions",
            Self::Read { .. } => "read",
            Self::Cut { cut: Cut::Kill } => "kill",
            Self::Cut { cut: Cut::Power } => "power cut",
            Self::Cut { cut: Cut::FailedSync(_) } => "failed sync",
            Self::Fault { kind } => kind,
            Self::MayRemove { .. } => "removals allowed",
            Self::Contents { .. } => "partitions read whole",
        }
    }

    pub(super) fn is_fault(&self) -> bool {
        matches!(self, Self::Cut { .. } | Self::Fault { .. })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name();
        match self {
            Self::Visible { topic, visible } => write!(f, "{name}: {topic} to {visible:?}"),
            Self::Compacted { topic } => write!(f, "{name}: {topic}"),
            Self::Sent { to, id } | Self::Refused { to, id } | Self::Unknown { to, id } => {
                write!(f, "{name}: {to}: {id}")
            }
            Self::Acknowledged { place, id, offset, .. } => write!(f, "{name}: {place}: {id} at {offset}"),
            Self::Session { place, session, from } => write!(f, "session {}: {place} from {from}", session.0),
            Self::Read { session, offset, id: Some(id) } => {
                write!(f, "{name}: session {}: {id} at {offset}", session.0)
            }
            Self::Read { session, offset, id: None } => {
                write!(f, "{name}: session {}: garbage at {offset}", session.0)
            }
            Self::Cut { cut: Cut::FailedSync(place) } => write!(f, "{name}: {place}"),
            Self::Cut { .. } | Self::Fault { .. } => write!(f, "{name}"),
            Self::MayRemove { place, below } => write!(f, "{name}: {place} below {below}"),
            Self::Contents { place, start, records } => {
                write!(f, "contents: {place} from {start}, {} records", records.len())
            }
        }
    }
}
