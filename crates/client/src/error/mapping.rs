//! From what gRPC, HTTP/2 and the network report to [`Error`].
//!
//! The one distinction that must not be wrong: whether an append that failed may have happened. It certainly
//! has not if no connection came about, or if the node itself refused it; in every other case it may have, and so
//! it may where a fault inside the node has ended the call.

use std::error::Error as StdError;
use std::time::Duration;

use logmill_proto::v1;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::{Error, ErrorKind};

/// The reason of an append whose outcome nobody knows, the node's and ours.
const OUTCOME_UNKNOWN: &str = "OUTCOME_UNKNOWN";
/// The reason of what is larger than its receiver takes, the node's and ours.
const MESSAGE_TOO_LARGE: &str = "MESSAGE_TOO_LARGE";
/// The node's reason of a call that a fault in its program ended, with or without an effect.
const INTERNAL_FAULT: &str = "INTERNAL_FAULT";
/// The node's reason of a partition that has lost what was read from it.
const LOG_TRUNCATED: &str = "LOG_TRUNCATED";

/// The node at the other end, as errors name it.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    pub(crate) url: String,
}

/// How a call failed that brought no reason of a node.
enum Failure {
    /// No connection came about: nothing was sent.
    NotReached,
    /// There was a connection, and it ended in the middle.
    Broken,
    /// A status came in answer.
    Answered,
}

impl Peer {
    /// A call that changes nothing, or one whose error says by itself that nothing was changed.
    pub(crate) fn error(&self, status: &Status) -> Error {
        if let Some(info) = status.get_details_error_info() {
            return answered(status, info.reason).with_metadata(info.metadata);
        }
        match failure(status) {
            Failure::NotReached => self.not_reached(&root_cause(status)),
            Failure::Broken => self.broken(&root_cause(status)),
            // Nodes give a reason with every error of their own; this one is gRPC's, at either end.
            Failure::Answered if status.code() == Code::OutOfRange => message_too_large(status),
            Failure::Answered if status.code() == Code::Unimplemented => self.lacks_call(status),
            Failure::Answered => answered(status, code_name(status.code()).into()),
        }
    }

    /// A call that appends records.
    pub(crate) fn append_error(&self, status: &Status) -> Error {
        let refused = status.get_details_error_info().is_some()
            || match failure(status) {
                Failure::NotReached => true,
                Failure::Broken => false,
                Failure::Answered => refuses(status.code()),
            };
        if refused { of_append(self.error(status)) } else { self.outcome_unknown(&root_cause(status)) }
    }

    /// The first call on a new connection, which shows what is at the other end.
    pub(crate) fn greeting_error(&self, status: &Status) -> Error {
        let not_http2 = causes(status).filter_map(|cause| cause.downcast_ref()).any(is_no_http2);
        let known = status.get_details_error_info().is_some();
        match failure(status) {
            Failure::Broken if not_http2 => self.not_a_node("does not speak gRPC", &root_cause(status)),
            Failure::Broken => self.hung_up(&root_cause(status)),
            Failure::Answered if !known && answers_strangers(status.code()) => {
                let said =
                    if status.message().is_empty() { code_name(status.code()) } else { status.message() };
                self.not_a_node("is not a Logmill node", said)
            }
            _ => self.error(status),
        }
    }

    fn not_a_node(&self, what: &str, cause: &str) -> Error {
        let Peer { url } = self;
        let message =
            format!("what answers at {url} {what} ({cause}): give the address that `logmill serve` prints");
        Error::new(ErrorKind::Unsupported, "NOT_A_NODE", message)
    }

    /// A call that gRPC knows nothing of, at the other end: the node says why itself where it lacks something else.
    fn lacks_call(&self, status: &Status) -> Error {
        let Peer { url } = self;
        let version = env!("CARGO_PKG_VERSION");
        let said = match status.message() {
            "" => String::new(),
            said => format!(" ({said})"),
        };
        let message = format!(
            "the node at {url} does not have this call{said}, so it is probably older than this client, which is of \
             version {version}: update the node, or use a client of the node's version"
        );
        Error::new(ErrorKind::Unsupported, code_name(Code::Unimplemented), message)
    }

    fn hung_up(&self, cause: &str) -> Error {
        let Peer { url } = self;
        let message = format!(
            "{url} was connected to, but hung up before it answered ({cause}): check that a Logmill node runs \
             there, and that the address is right"
        );
        Error::new(ErrorKind::Unavailable, "UNAVAILABLE", message)
    }

    pub(crate) fn not_reached(&self, cause: &str) -> Error {
        let Peer { url } = self;
        let message = format!(
            "no Logmill node can be reached at {url} ({cause}): start one with `logmill serve`, or correct \
             the address"
        );
        Error::new(ErrorKind::Unavailable, "UNAVAILABLE", message)
    }

    pub(crate) fn connect_timeout(&self, limit: Duration) -> Error {
        let Peer { url } = self;
        let message = format!(
            "no Logmill node answered at {url} within {limit:?}: check that it runs and answers, and that the \
             address is right"
        );
        Error::new(ErrorKind::Unavailable, "UNAVAILABLE", message)
    }

    pub(crate) fn broken(&self, cause: &str) -> Error {
        let Peer { url } = self;
        let message = format!(
            "the connection to the node at {url} broke before it answered ({cause}): check that the node runs, \
             and try again"
        );
        Error::new(ErrorKind::Unavailable, "UNAVAILABLE", message)
    }

    pub(crate) fn timeout(&self, rpc: &str, limit: Duration) -> Error {
        let Peer { url } = self;
        let message = format!(
            "the node at {url} did not answer {rpc} within {limit:?}: it may be overloaded or stopped; look at \
             its log, or allow more time for a request"
        );
        Error::new(ErrorKind::Timeout, "TIMEOUT", message)
    }

    pub(crate) fn not_left(&self) -> Error {
        let Peer { url } = self;
        let message = format!(
            "the node at {url} could not be told that the consumer leaves: what was handed out is committed, and the other \
             members have its units when its session timeout is over"
        );
        Error::new(ErrorKind::Unavailable, "UNAVAILABLE", message)
    }

    pub(crate) fn outcome_unknown(&self, cause: &str) -> Error {
        let Peer { url } = self;
        let message = format!(
            "it is not known whether the node at {url} appended these records ({cause}): read the end of the \
             partition before you send them again"
        );
        Error::new(ErrorKind::OutcomeUnknown, OUTCOME_UNKNOWN, message)
    }
}

/// A failure reported inside a reply.
pub(crate) fn in_reply(error: v1::Error) -> Error {
    let code = Code::from_i32(error.code);
    let reason = if error.reason.is_empty() { code_name(code).to_owned() } else { error.reason };
    Error::new(kind(code, &reason), reason, error.message).with_metadata(error.metadata)
}

/// As [`in_reply`], of records that were to be appended.
pub(crate) fn in_append_reply(error: v1::Error) -> Error {
    of_append(in_reply(error))
}

fn of_append(error: Error) -> Error {
    if error.reason() == INTERNAL_FAULT { error.with_kind(ErrorKind::OutcomeUnknown) } else { error }
}

fn answered(status: &Status, reason: String) -> Error {
    let message = match status.message() {
        "" => format!("the node answered {} without saying why: look at its log", code_name(status.code())),
        message => message.to_owned(),
    };
    Error::new(kind(status.code(), &reason), reason, message)
}

fn message_too_large(status: &Status) -> Error {
    let message = format!(
        "a message is larger than its receiver takes ({}): ask for less, or raise max_reply_bytes if it was a \
         reply",
        status.message()
    );
    Error::new(ErrorKind::TooLarge, MESSAGE_TOO_LARGE, message)
}

fn kind(code: Code, reason: &str) -> ErrorKind {
    match reason {
        OUTCOME_UNKNOWN => return ErrorKind::OutcomeUnknown,
        MESSAGE_TOO_LARGE => return ErrorKind::TooLarge,
        LOG_TRUNCATED => return ErrorKind::Truncated,
        _ => {}
    }
    match code {
        Code::Unavailable | Code::Cancelled => ErrorKind::Unavailable,
        Code::DeadlineExceeded => ErrorKind::Timeout,
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::InvalidArgument => ErrorKind::Invalid,
        Code::OutOfRange => ErrorKind::OutOfRange,
        Code::PermissionDenied | Code::Unauthenticated => ErrorKind::Denied,
        Code::ResourceExhausted => ErrorKind::Exhausted,
        Code::FailedPrecondition | Code::Aborted => ErrorKind::Conflict,
        Code::DataLoss => ErrorKind::Corrupt,
        Code::Unimplemented => ErrorKind::Unsupported,
        Code::Ok | Code::Unknown | Code::Internal => ErrorKind::Internal,
    }
}

/// Whether a status of this code, sent by the other end without a reason, means that nothing was appended.
fn refuses(code: Code) -> bool {
    matches!(
        code,
        Code::InvalidArgument
            | Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::FailedPrecondition
            | Code::OutOfRange
            | Code::Unimplemented
    )
}

/// What a server says to a call that it has never heard of.
fn answers_strangers(code: Code) -> bool {
    matches!(code, Code::Unimplemented | Code::Unknown | Code::Internal)
}

fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// A status that tonic made here carries what it was made from; one that was received does not.
fn failure(status: &Status) -> Failure {
    if status.source().is_none() {
        return Failure::Answered;
    }
    if causes(status).any(<dyn StdError>::is::<tonic::ConnectError>) {
        return Failure::NotReached;
    }
    Failure::Broken
}

/// Our own h2 found that what it read is not HTTP/2. On a connection that has worked before, this would be
/// damage on the way, and the connection broke like any other.
fn is_no_http2(error: &h2::Error) -> bool {
    let garbled = [h2::Reason::PROTOCOL_ERROR, h2::Reason::FRAME_SIZE_ERROR, h2::Reason::HTTP_1_1_REQUIRED];
    error.is_library() && error.is_go_away() && error.reason().is_some_and(|reason| garbled.contains(&reason))
}

pub(crate) fn root_cause(error: &(dyn StdError + 'static)) -> String {
    match causes(error).last().and_then(|last| last.downcast_ref::<Status>()) {
        Some(status) if !status.message().is_empty() => status.message().to_owned(),
        Some(status) => status.code().description().to_owned(),
        None => causes(error).last().map_or_else(String::new, ToString::to_string),
    }
}

fn causes<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}
