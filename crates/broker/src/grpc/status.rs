//! Errors as gRPC has them: a status with details, or a part of a reply.

use std::collections::HashMap;

use logmill_proto::v1;
use tonic::codegen::http::HeaderMap;
use tonic::metadata::MetadataValue;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::ERROR_DOMAIN;
use crate::error::{Error, Reason, shorten};

/// The only encoding of messages that is read.
const IDENTITY: &str = "identity";

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let details = ErrorDetails::with_error_info(error.reason().as_str(), ERROR_DOMAIN, metadata(&error));
        Self::with_error_details(Code::from_i32(error.code().number()), error.message(), details)
    }
}

impl From<Error> for v1::Error {
    fn from(error: Error) -> Self {
        Self {
            code: error.code().number(),
            reason: error.reason().as_str().to_owned(),
            message: error.message().to_owned(),
            metadata: metadata(&error),
        }
    }
}

fn metadata(error: &Error) -> HashMap<String, String> {
    error.metadata().iter().map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

/// What tonic says of a request that it cannot read is a fault of the node's, and has no reason: gRPC leaves that to
/// the application, which knows that nothing was done. Every other status stays as it is.
pub(super) fn with_reason(status: Status) -> Status {
    if status.code() != Code::Internal || !status.details().is_empty() {
        return status;
    }
    let said = shorten(status.message().trim_end_matches('.'));
    let message =
        format!("the request cannot be read: {said}: send messages as the API's .proto files have them");
    Error::new(Reason::RequestInvalid, message).into()
}

/// The same of an answer's headers, which have the status if it is all that there is. `path` is what was called.
pub(super) fn status_with_reason(headers: &HeaderMap, path: &str) -> Option<Status> {
    let status = Status::from_header_map(headers).filter(|status| status.details().is_empty())?;
    match status.code() {
        Code::Unimplemented => Some(unknown_rpc(path).into()),
        Code::Internal => Some(with_reason(status)),
        _ => None,
    }
}

/// Nothing here is called `path`.
pub(super) fn unknown_rpc(path: &str) -> Error {
    let path = shorten(path);
    let message = format!(
        "this node has no rpc {path:?}: look at the name, and whether the node's version has it already, or still"
    );
    Error::new(Reason::RpcUnknown, message).with("rpc", path)
}

/// Refuses what gRPC itself would have to decompress: batches come compressed by their producers.
pub(super) fn check_encoding(headers: &HeaderMap) -> Result<(), Status> {
    let Some(encoding) = headers.get("grpc-encoding").filter(|encoding| *encoding != IDENTITY) else {
        return Ok(());
    };
    let encoding = shorten(&String::from_utf8_lossy(encoding.as_bytes()));
    let message = format!(
        "the request is compressed with {encoding:?}, and this node reads none that gRPC compressed: turn it off in \
         the client, and let producers compress their batches"
    );
    let mut status =
        Status::from(Error::new(Reason::EncodingUnsupported, message).with("encoding", encoding));
    status.metadata_mut().insert("grpc-accept-encoding", MetadataValue::from_static(IDENTITY));
    Err(status)
}
