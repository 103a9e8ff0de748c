//! The public gRPC API of Logmill as Rust types, generated at build time from `proto/logmill/v1`.
//!
//! This crate owns nothing but the generated code: what a message means, its units and limits, is
//! said in the `.proto` files, whose comments are also the docs here. `bytes` fields are
//! [`bytes::Bytes`], so that record batches pass through decoding without another copy.
//!
//! Features: `client` generates the client stubs, `server` the service traits. Neither is on by
//! default: a program that only reads or writes messages needs neither.
//!
//! ```
//! use logmill_proto::v1::{Position, position::{At, Edge}};
//! use prost::Message;
//!
//! let earliest = Position { at: Some(At::Edge(Edge::Earliest.into())) };
//! let bytes = earliest.encode_to_vec();
//! assert_eq!(Position::decode(&bytes[..])?, earliest);
//! # Ok::<(), prost::DecodeError>(())
//! ```
#![warn(missing_docs)]

/// Version 1 of the API: package `logmill.v1`.
pub mod v1 {
    // Generated code keeps to its generator's habits, not to ours.
    #![allow(clippy::all, clippy::pedantic, missing_debug_implementations, missing_docs, rustdoc::all)]
    #![allow(unreachable_pub, unused_qualifications)]
    tonic::include_proto!("logmill.v1");
}

/// The files of the API as an encoded `google.protobuf.FileDescriptorSet`, for server reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

#[cfg(test)]
mod tests {
    use prost::Message;
    use prost_types::{FileDescriptorSet, MethodOptions};

    use super::*;

    /// Without the option it would be unknown as well, and nobody could tell whether that was decided.
    #[test]
    fn every_rpc_says_whether_it_can_be_sent_again() {
        let files = FileDescriptorSet::decode(DESCRIPTORS).unwrap().file;
        let rpcs: Vec<_> = files.into_iter().flat_map(|file| file.service).flat_map(|it| it.method).collect();
        assert_eq!(rpcs.len(), 27);
        for rpc in rpcs {
            let MethodOptions { idempotency_level, .. } = rpc.options.clone().unwrap_or_default();
            assert!(idempotency_level.is_some(), "{}", rpc.name());
        }
    }
}
