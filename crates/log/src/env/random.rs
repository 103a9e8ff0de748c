//! Randomness, injected.

use std::fmt;

/// Where random bytes come from: identities of logs and sets, and nothing that decides about data.
///
/// ```
/// use logmill_log::env::{OsRandom, Random};
///
/// let (mut one, mut other) = ([0; 16], [0; 16]);
/// OsRandom.fill(&mut one);
/// OsRandom.fill(&mut other);
/// assert_ne!(one, other);
/// ```
pub trait Random: fmt::Debug + Send + Sync {
    /// Fills `bytes` with random bytes.
    fn fill(&self, bytes: &mut [u8]);
}

/// The operating system's random source.
///
/// ```
/// use logmill_log::env::{OsRandom, Random};
///
/// let mut bytes = [0; 32];
/// OsRandom.fill(&mut bytes);
/// assert_ne!(bytes, [0; 32]);
/// ```
#[derive(Debug)]
pub struct OsRandom;

impl Random for OsRandom {
    fn fill(&self, bytes: &mut [u8]) {
        getrandom::fill(bytes).expect("the operating system has a random source");
    }
}
