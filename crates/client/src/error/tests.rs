use std::collections::HashMap;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::*;

fn peer() -> Peer {
    Peer { url: "http://node:7070".into() }
}

fn refusal(code: Code, reason: &str) -> Status {
    let metadata = HashMap::from([("topic".to_owned(), "orders".to_owned())]);
    let details = ErrorDetails::with_error_info(reason, "logmill", metadata);
    Status::with_error_details(code, "a sentence of the node", details)
}

/// As tonic makes it when the connection breaks in the middle.
fn broken() -> Status {
    Status::from_error(Box::new(std::io::Error::from(std::io::ErrorKind::ConnectionReset)))
}

/// As tonic makes it when no connection comes about.
fn not_reached() -> Status {
    let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
    Status::from_error(Box::new(tonic::ConnectError(Box::new(refused))))
}

#[test]
fn the_nodes_own_reason_sentence_and_metadata_come_through() {
    let error = peer().error(&refusal(Code::NotFound, "TOPIC_NOT_FOUND"));
    assert_eq!(error.kind(), ErrorKind::NotFound);
    assert_eq!(error.reason(), "TOPIC_NOT_FOUND");
    assert_eq!(error.metadata("topic"), Some("orders"));
    assert_eq!(error.to_string(), "a sentence of the node");
}

#[test]
fn an_error_inside_a_reply_says_the_same_as_a_status() {
    let error = logmill_proto::v1::Error {
        code: Code::NotFound.into(),
        reason: "TOPIC_NOT_FOUND".into(),
        message: "a sentence of the node".into(),
        metadata: HashMap::from([("topic".to_owned(), "orders".to_owned())]),
    };
    let (inside, outside) = (in_reply(error), peer().error(&refusal(Code::NotFound, "TOPIC_NOT_FOUND")));
    assert_eq!(format!("{inside:?}"), format!("{outside:?}"));
}

#[test]
fn without_a_reason_the_code_is_the_reason() {
    let error = peer().error(&Status::permission_denied("not you"));
    assert_eq!((error.kind(), error.reason()), (ErrorKind::Denied, "PERMISSION_DENIED"));
    let silent = peer().error(&Status::new(Code::Internal, ""));
    assert!(silent.to_string().contains("INTERNAL"), "{silent}");
}

#[test]
fn a_node_that_is_not_there_is_named_with_the_cause() {
    let error = peer().error(&not_reached());
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    let text = error.to_string();
    assert!(text.contains("http://node:7070") && text.contains("connection refused"), "{text}");
}

#[test]
fn an_append_that_may_have_happened_is_never_called_anything_else() {
    let unclear = [
        broken(),
        Status::unavailable("a proxy lost the node"),
        Status::cancelled("somewhere on the way"),
        Status::deadline_exceeded("somewhere on the way"),
        Status::unknown("no status"),
        Status::internal("a panic"),
        Status::resource_exhausted("calm down"),
        refusal(Code::Unknown, "OUTCOME_UNKNOWN"),
    ];
    for status in unclear {
        let error = peer().append_error(&status);
        assert_eq!(error.kind(), ErrorKind::OutcomeUnknown, "{status:?}");
        assert_eq!(error.reason(), "OUTCOME_UNKNOWN");
    }
}

#[test]
fn a_fault_inside_the_node_leaves_an_append_open_and_nothing_else() {
    let fault = refusal(Code::Internal, "INTERNAL_FAULT");
    let error = peer().append_error(&fault);
    assert_eq!((error.kind(), error.reason()), (ErrorKind::OutcomeUnknown, "INTERNAL_FAULT"));
    assert_eq!(
        (error.to_string().as_str(), error.metadata("topic")),
        ("a sentence of the node", Some("orders"))
    );
    assert_eq!(peer().error(&fault).kind(), ErrorKind::Internal);
    let inside = logmill_proto::v1::Error { reason: "INTERNAL_FAULT".into(), ..Default::default() };
    assert_eq!(in_append_reply(inside.clone()).kind(), ErrorKind::OutcomeUnknown);
    assert_eq!(in_reply(inside).kind(), ErrorKind::Internal);
}

#[test]
fn a_call_that_the_node_does_not_have_is_put_down_to_its_age() {
    for (status, says) in
        [(Status::new(Code::Unimplemented, ""), "call,"), (Status::unimplemented("no"), "(no)")]
    {
        let error = peer().error(&status);
        assert_eq!((error.kind(), error.reason()), (ErrorKind::Unsupported, "UNIMPLEMENTED"));
        let text = error.to_string();
        assert!(text.contains("http://node:7070") && text.contains(env!("CARGO_PKG_VERSION")), "{text}");
        assert!(text.contains("older") && text.contains(says), "{text}");
    }
    let own = peer().error(&refusal(Code::Unimplemented, "BATCH_UNSUPPORTED"));
    assert_eq!(own.to_string(), "a sentence of the node");
}

#[test]
fn an_append_that_was_refused_or_never_sent_did_not_happen() {
    let cases = [
        (not_reached(), ErrorKind::Unavailable),
        (refusal(Code::Unavailable, "NODE_CLOSING"), ErrorKind::Unavailable),
        (refusal(Code::ResourceExhausted, "DISK_FULL"), ErrorKind::Exhausted),
        (Status::not_found("no such topic"), ErrorKind::NotFound),
        (Status::out_of_range("message too large"), ErrorKind::TooLarge),
        (refusal(Code::InvalidArgument, "MESSAGE_TOO_LARGE"), ErrorKind::TooLarge),
        (refusal(Code::InvalidArgument, "BATCH_INVALID"), ErrorKind::Invalid),
    ];
    for (status, kind) in cases {
        assert_eq!(peer().append_error(&status).kind(), kind, "{status:?}");
    }
}

#[test]
fn a_reply_over_the_limit_names_the_setting() {
    let error = peer().error(&Status::out_of_range("decoded message length too large: found 9 bytes"));
    assert!(error.to_string().contains("max_reply_bytes"), "{error}");
}
