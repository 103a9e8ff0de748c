//! Who asks, from what tonic knows of a request.

use std::sync::atomic::Ordering;

use tonic::Request;

use super::Services;
use super::connection::Connection;
use crate::context::{Listener, Principal, RequestContext};

impl Services {
    pub(super) fn context<T>(&self, request: &Request<T>) -> RequestContext {
        RequestContext {
            principal: Principal::Anonymous,
            peer: request.extensions().get::<Connection>().and_then(Connection::peer),
            listener: Listener::Grpc,
            request_id: self.next_request_id(),
        }
    }

    /// Counts from 1: 0 is a call in the same process.
    pub(super) fn next_request_id(&self) -> u64 {
        self.next_request.fetch_add(1, Ordering::Relaxed) + 1
    }
}
