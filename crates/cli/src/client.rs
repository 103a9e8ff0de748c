//! The connection to a node that client commands share, and its errors as exit codes.

use std::time::Duration;

use logmill_client::{Client, ErrorKind};

use crate::failure::{Exit, Failure};

/// What every command about something on a node takes.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Common {
    #[command(flatten)]
    pub(crate) server: ServerArgs,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// Which node, and how long to wait for it.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct ServerArgs {
    /// The node's address
    #[arg(long, env = "LOGMILL_SERVER", default_value = "http://127.0.0.1:7070", value_name = "URL")]
    pub(crate) server: String,

    /// Give up when the node does not answer a request within so many seconds (exit code 124)
    #[arg(long, env = "LOGMILL_TIMEOUT", default_value = "30", value_name = "SECONDS", value_parser = seconds)]
    pub(crate) timeout: Duration,
}

impl ServerArgs {
    /// Connects to the node.
    pub(crate) async fn connect(&self) -> Result<Client, Failure> {
        let client = Client::builder(&self.server).request_timeout(self.timeout);
        client
            .connect_timeout(self.timeout.min(Duration::from_secs(5)))
            .connect()
            .await
            .map_err(Failure::from)
    }
}

/// A positive number of seconds, fractions allowed.
pub(crate) fn seconds(text: &str) -> Result<Duration, String> {
    const MOST: f64 = 86_400.0 * 365.0;
    match text.parse::<f64>() {
        Ok(seconds) if seconds > 0.0 && seconds <= MOST => Ok(Duration::from_secs_f64(seconds)),
        _ => {
            Err("a number of seconds is expected, greater than 0 and at most a year (31,536,000)".to_owned())
        }
    }
}

/// How long a member of a group may be unheard of.
pub(crate) fn session_seconds(text: &str) -> Result<Duration, String> {
    match text.parse::<f64>() {
        Ok(seconds) if (1.0..=1_800.0).contains(&seconds) => Ok(Duration::from_secs_f64(seconds)),
        _ => Err("a number of seconds from 1 to 1800 is expected".to_owned()),
    }
}

impl From<logmill_client::Error> for Failure {
    fn from(error: logmill_client::Error) -> Self {
        Self::new(exit_of(error.kind()), error.to_string())
    }
}

fn exit_of(kind: ErrorKind) -> Exit {
    match kind {
        ErrorKind::Unavailable => Exit::Unavailable,
        ErrorKind::Timeout => Exit::TimedOut,
        ErrorKind::NotFound | ErrorKind::OutOfRange => Exit::NotFound,
        ErrorKind::AlreadyExists | ErrorKind::Conflict => Exit::Conflict,
        ErrorKind::Invalid | ErrorKind::TooLarge => Exit::Usage,
        ErrorKind::Denied => Exit::Denied,
        // Full, unknown, damaged, foreign: nothing that a script could tell apart by a number.
        _ => Exit::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_may_have_fractions_and_are_positive() {
        assert_eq!(seconds("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["0", "-1", "NaN", "inf", "1e300", "x", ""] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn kinds_have_the_exit_codes_of_the_help() {
        for (kind, code) in [
            (ErrorKind::Exhausted, 1),
            (ErrorKind::Invalid, 2),
            (ErrorKind::TooLarge, 2),
            (ErrorKind::Unavailable, 3),
            (ErrorKind::Denied, 4),
            (ErrorKind::NotFound, 5),
            (ErrorKind::AlreadyExists, 6),
            (ErrorKind::Timeout, 124),
        ] {
            assert_eq!(exit_of(kind) as u8, code, "{kind:?}");
        }
    }
}
