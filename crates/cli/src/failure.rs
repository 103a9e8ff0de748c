//! Why a command ended without doing what was asked: one sentence and an exit code.
//!
//! Every command returns [`Failure`]; only `crate::main` prints it. The exit codes are part of the
//! public interface: scripts tell "there is no such topic" from "there is no such node" by them.

use std::fmt;
use std::io;

/// What the process reports to whoever started it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Anything that has no code of its own.
    Failed = 1,
    /// The arguments cannot be right, whatever the state of the node.
    Usage = 2,
    /// The node is not there, or cannot serve for now.
    Unavailable = 3,
    /// Not allowed, by the node or by the operating system.
    Denied = 4,
    /// A topic, an offset or a file that is not there.
    NotFound = 5,
    /// It exists already, or someone else has it.
    Conflict = 6,
    /// The data directory that was looked at is damaged.
    Damaged = 7,
    /// The node did not answer in time.
    TimedOut = 124,
}

/// The end of a command that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    /// To be told in one sentence.
    Told {
        /// The exit code.
        exit: Exit,
        /// The sentence, without the program's name.
        message: String,
    },
    /// Whoever read standard output has had enough: nothing to say, and nothing went wrong.
    OutputClosed,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self::Told { exit, message: one_line(&message.into()) }
    }

    /// Writing to standard output failed.
    pub(crate) fn output(error: &io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::OutputClosed
        } else {
            Self::new(Exit::Failed, format!("cannot write to standard output: {error}"))
        }
    }

    /// The same failure with what was being done in front of it.
    pub(crate) fn while_doing(self, what: impl fmt::Display) -> Self {
        match self {
            Self::Told { exit, message } => Self::Told { exit, message: format!("{what}: {message}") },
            Self::OutputClosed => Self::OutputClosed,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Told { message, .. } => f.write_str(message),
            Self::OutputClosed => f.write_str("standard output is closed"),
        }
    }
}

/// The exit code for an error of the operating system.
pub(crate) fn exit_of_io(error: &io::Error) -> Exit {
    match error.kind() {
        io::ErrorKind::NotFound => Exit::NotFound,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Exit::Denied,
        io::ErrorKind::AddrInUse | io::ErrorKind::AlreadyExists | io::ErrorKind::ResourceBusy => {
            Exit::Conflict
        }
        io::ErrorKind::TimedOut => Exit::TimedOut,
        _ => Exit::Failed,
    }
}

/// An error and its causes as one text; a cause that the text before it already says is left out.
pub(crate) fn with_causes(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}

/// Control characters become spaces: a sentence stays one line, also when a file name does not,
/// and nothing from outside steers the terminal.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_one_line_without_terminal_escapes() {
        let failure = Failure::new(Exit::Failed, "cannot read a\nb\u{1b}[31m");
        assert_eq!(failure.to_string(), "cannot read a b [31m");
    }

    #[test]
    fn a_closed_pipe_is_no_failure_to_tell() {
        let error = io::Error::from(io::ErrorKind::BrokenPipe);
        assert_eq!(Failure::output(&error), Failure::OutputClosed);
        let error = io::Error::from(io::ErrorKind::StorageFull);
        assert_ne!(Failure::output(&error), Failure::OutputClosed);
    }

    #[test]
    fn causes_are_said_once() {
        #[derive(Debug)]
        struct Outer(io::Error);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("cannot open the log")
            }
        }
        impl std::error::Error for Outer {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                Some(&self.0)
            }
        }
        assert_eq!(
            with_causes(&Outer(io::Error::other("disk on fire"))),
            "cannot open the log: disk on fire"
        );
    }
}
