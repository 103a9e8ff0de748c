//! Errors as gRPC has them: a status with details, or a part of a reply.

use std::collections::HashMap;

use logmill_proto::v1;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use super::ERROR_DOMAIN;
use crate::error::Error;

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
