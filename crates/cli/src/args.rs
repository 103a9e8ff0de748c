//! The command line as a whole: which commands there are, and how a wrong one is answered.

use std::ffi::OsString;
use std::io::Write as _;
use std::process::ExitCode;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

use crate::failure::{Exit, Failure};
use crate::{bench, consume, group, log, produce, quickstart, serve, topic, txn};

/// A durable log broker with a stream processor inside.
#[derive(Debug, Parser)]
#[command(name = "logmill", version, arg_required_else_help = true, after_help = AFTER_HELP)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Start with:
  logmill quickstart                      the main job on real events, with a result to look at
  logmill serve --data-dir ./data         a node of your own

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 node unavailable, 4 denied, 5 not found, 6 conflict, \
7 damage found, 124 timed out. LOGMILL_LOG sets what is logged to standard error, such as 'debug' or 'logmill_log=trace'.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Serve(serve::Args),
    Topic(topic::Args),
    Produce(produce::Args),
    Consume(consume::Args),
    Group(group::Args),
    Txn(txn::Args),
    Quickstart(quickstart::Args),
    Bench(bench::Args),
    Log(log::Args),
}

impl Command {
    pub(crate) fn run(self) -> Result<(), Failure> {
        // Only a node has something to tell while all is well.
        start_tracing(if matches!(self, Self::Serve(_)) { "info" } else { "error" })?;
        match self {
            Self::Serve(args) => block_on(serve::run(args)),
            Self::Topic(args) => block_on(topic::run(args)),
            Self::Produce(args) => block_on(produce::run(args)),
            Self::Consume(args) => block_on(consume::run(args)),
            Self::Group(args) => block_on(group::run(args)),
            Self::Txn(args) => block_on(txn::run(args)),
            Self::Quickstart(args) => block_on(quickstart::run(args)),
            Self::Bench(args) => block_on(bench::run(args)),
            Self::Log(args) => log::run(args),
        }
    }
}

/// Reads the command line. What is no command, `--help` among it, has been answered already and
/// comes back as the code to exit with.
pub(crate) fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, ExitCode> {
    let args: Vec<OsString> = args.into_iter().collect();
    Args::try_parse_from(&args).map(|args| args.command).map_err(|error| {
        let (text, exit) = answer(&error, &args);
        // Nobody is left to tell if the stream is closed.
        let _ = match exit {
            None => std::io::stdout().write_all(text.as_bytes()),
            Some(_) => std::io::stderr().write_all(text.as_bytes()),
        };
        exit.map_or(ExitCode::SUCCESS, |exit| ExitCode::from(exit as u8))
    })
}

/// What to print for a command line that is no command, and the exit code if it is wrong.
fn answer(error: &clap::Error, args: &[OsString]) -> (String, Option<Exit>) {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => (error.to_string(), None),
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => (error.to_string(), Some(Exit::Usage)),
        ErrorKind::InvalidSubcommand => {
            let unknown = match error.get(ContextKind::InvalidSubcommand) {
                Some(ContextValue::String(name)) => name.as_str(),
                _ => "",
            };
            let parent = deepest_command(args);
            let known: Vec<&str> = parent.get_subcommands().map(clap::Command::get_name).collect();
            let name = parent.get_bin_name().unwrap_or("logmill");
            let known = known.join(", ");
            let text = format!(
                "logmill: there is no command '{unknown}': there are {known}; '{name} --help' says more\n"
            );
            (text, Some(Exit::Usage))
        }
        _ => {
            let name = deepest_command(args).get_bin_name().unwrap_or("logmill").to_owned();
            let sentence = sentence(&error.to_string());
            (format!("logmill: {sentence}; '{name} --help' says more\n"), Some(Exit::Usage))
        }
    }
}

/// The last command that the arguments name before something else comes.
fn deepest_command(args: &[OsString]) -> clap::Command {
    let mut command = Args::command();
    command.build();
    for arg in args.iter().skip(1) {
        match command.find_subcommand(arg) {
            Some(found) => command = found.clone(),
            None => break,
        }
    }
    command
}

/// The first paragraph of clap's message on one line, and its tip in brackets.
fn sentence(message: &str) -> String {
    let message = message.strip_prefix("error: ").unwrap_or(message);
    let mut paragraphs = message.split("\n\n");
    let lines = paragraphs.next().unwrap_or_default().lines().map(str::trim);
    let mut sentence = lines.collect::<Vec<_>>().join(" ");
    if let Some(tip) = paragraphs.find_map(|paragraph| paragraph.trim().strip_prefix("tip: ")) {
        sentence = format!("{sentence} ({})", tip.lines().next().unwrap_or_default());
    }
    sentence
}

/// Logs go to standard error, as many as `LOGMILL_LOG` asks for.
fn start_tracing(default: &str) -> Result<(), Failure> {
    const VARIABLE: &str = "LOGMILL_LOG";
    let filter = match std::env::var(VARIABLE) {
        Ok(filter) if !filter.is_empty() => filter,
        _ => default.to_owned(),
    };
    if let Some(word) = no_level(&filter) {
        let message = format!(
            "{VARIABLE} is '{filter}', and there is no level '{word}': use off, error, warn, info, debug or trace, or \
             TARGET=LEVEL"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    let filter = EnvFilter::try_new(&filter).map_err(|error| {
        Failure::new(Exit::Usage, format!("{VARIABLE} is '{filter}', which is no filter: {error}"))
    })?;
    let ansi = std::io::IsTerminal::is_terminal(&std::io::stderr());
    // Fails only if tests in one process have set it already.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(ansi)
        // A line that cannot be written is dropped: reporting that on the same stream panics.
        .log_internal_errors(false)
        .try_init();
    Ok(())
}

/// A word alone in a filter that was meant for a level. It would be taken for the name of a module, which nobody has,
/// and everything else would be silent, errors too.
fn no_level(filter: &str) -> Option<&str> {
    let is_module =
        |word: &str| word.starts_with("logmill") || word.contains(['=', ':', '_', '[', ']', '{', '}']);
    let words = filter.split(',').map(str::trim).filter(|word| !word.is_empty());
    words.filter(|word| !is_module(word)).find(|word| word.parse::<LevelFilter>().is_err())
}

/// Runs a command to its end on a runtime of its own.
fn block_on(command: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| {
        Failure::new(Exit::Failed, format!("cannot start the threads of the runtime: {error}"))
    })?;
    let result = runtime.block_on(command);
    // A read of standard input may hang in a thread: nothing waits for it.
    runtime.shutdown_background();
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_that_is_no_level_is_not_taken_for_a_module() {
        for wrong in ["warning", "erorr", "info,verbose", "logmill=debug, inof"] {
            assert!(no_level(wrong).is_some(), "{wrong}");
        }
        for good in
            ["warn", "INFO", "off", "logmill_log=trace", "logmill", "info,h2=debug", "a::b", "error,", "3"]
        {
            assert_eq!(no_level(good), None, "{good}");
        }
    }

    fn told(line: &str) -> (String, Option<Exit>) {
        let args: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        answer(&Args::try_parse_from(&args).expect_err("it is wrong"), &args)
    }

    #[test]
    fn the_command_line_is_well_formed() {
        Args::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        let mut command = Args::command();
        command.build();
        let mut commands = vec![command];
        while let Some(command) = commands.pop() {
            let help = command.clone().render_long_help().to_string();
            assert!(help.contains("\n  logmill ") || command.get_name() == "help", "{help}");
            commands.extend(command.get_subcommands().filter(|sub| sub.get_name() != "help").cloned());
        }
    }

    /// The terminal's width breaks them, and a second break by hand makes stumps.
    #[test]
    fn paragraphs_of_a_help_are_not_broken_by_hand() {
        let mut command = Args::command();
        command.build();
        let mut commands = vec![command];
        while let Some(command) = commands.pop() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            let is_prose = |line: &str| !line.is_empty() && !line.starts_with("  ") && !line.ends_with(':');
            let lines: Vec<&str> = help.lines().collect();
            for pair in lines.windows(2) {
                assert!(!(is_prose(pair[0]) && is_prose(pair[1])), "{}: {pair:?}", command.get_name());
            }
            for line in lines.iter().filter(|line| line.starts_with("  ")) {
                assert!(line.len() <= 100, "{}: {line}", command.get_name());
            }
            commands.extend(command.get_subcommands().cloned());
        }
    }

    #[test]
    fn a_wrong_line_is_answered_in_one_sentence() {
        for line in ["logmill topic create", "logmill consume t --from soon", "logmill serve --port 1"] {
            let (text, exit) = told(line);
            assert_eq!(exit, Some(Exit::Usage), "{text}");
            assert!(text.starts_with("logmill: ") && text.ends_with(" --help' says more\n"), "{text}");
            assert_eq!(text.lines().count(), 1, "{text}");
        }
        assert!(told("logmill topic create").0.contains("'logmill topic create --help'"));
    }

    #[test]
    fn no_command_gets_the_help_and_an_unknown_one_the_commands_there_are() {
        let (text, exit) = told("logmill");
        assert!(exit == Some(Exit::Usage) && text.contains("quickstart"), "{text}");
        let (text, exit) = told("logmill qickstart");
        assert!(
            exit == Some(Exit::Usage) && text.starts_with("logmill: there is no command 'qickstart'"),
            "{text}"
        );
        assert!(text.contains("quickstart"), "{text}");
        let (text, _) = told("logmill topic frob");
        assert!(text.contains("describe") && !text.contains("quickstart"), "{text}");
    }
}
