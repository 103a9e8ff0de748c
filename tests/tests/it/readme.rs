//! The tour in README.md is a test: what it says to type is typed here.
//!
//! Under the heading "Five-minute tour" every block whose fence says "sh" is run by bash, in order,
//! in one empty directory, and has to succeed. The first line `logmill serve …` of a block runs in
//! the background, as in a shell of its own, until the end; what follows starts when it is ready.
//! `logmill` is this build; lines that start with `cargo` build it and are left out. A block that
//! shows output, or is not to be run, says something else, such as "text" or "console".

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use logmill_tests::{Node, finish, free_port};

use crate::logmill;

const HEADING: &str = "## Five-minute tour";

/// The bodies of the "sh" blocks under the heading, up to the next heading of its level.
fn tour(readme: &str) -> Option<Vec<String>> {
    let mut lines = readme.lines().skip_while(|line| line.trim_end() != HEADING);
    lines.next()?;
    let mut blocks = Vec::new();
    let mut block: Option<String> = None;
    let mut other_fence = false;
    for line in lines {
        match (&mut block, line.trim_end()) {
            (Some(_), "```") => blocks.extend(block.take()),
            (Some(block), line) => {
                block.push_str(line);
                block.push('\n');
            }
            (None, line) if other_fence => other_fence = line != "```",
            (None, "```sh") => block = Some(String::new()),
            (None, line) if line.starts_with("```") => other_fence = true,
            (None, line) if line.starts_with("## ") => break,
            (None, _) => {}
        }
    }
    Some(blocks)
}

struct Shell {
    path: String,
    address: String,
    dir: std::path::PathBuf,
}

impl Shell {
    fn command(&self, script: &str) -> Command {
        let mut command = Command::new("bash");
        command.args(["-euo", "pipefail", "-c", script]).current_dir(&self.dir).env("PATH", &self.path);
        command
            .env("LOGMILL_LISTEN", &self.address)
            .env("LOGMILL_SERVER", format!("http://{}", self.address));
        command
    }
}

#[test]
fn the_tour_can_be_typed() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(path).expect("README.md is there");
    let blocks = tour(&readme).unwrap_or_else(|| panic!("README.md has no heading {HEADING:?}"));
    assert!(!blocks.is_empty(), "the tour has no ```sh block");
    let dir = tempfile::tempdir().unwrap();
    let bin = dir.path().join("bin");
    let work = dir.path().join("work");
    for dir in [&bin, &work] {
        fs::create_dir(dir).unwrap();
    }
    symlink(logmill().path(), bin.join("logmill")).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let shell = Shell { path, address: format!("127.0.0.1:{}", free_port()), dir: work };
    let mut nodes = Vec::new();
    for block in blocks {
        let (mut serve, mut rest) = (None, String::new());
        for line in block.lines().filter(|line| !line.starts_with("cargo ")) {
            if line.starts_with("logmill serve") && serve.is_none() {
                serve = Some(line.trim_end_matches(['&', ' ']).to_owned());
            } else {
                rest.push_str(line);
                rest.push('\n');
            }
        }
        if let Some(serve) = serve {
            nodes.push(Node::from_command(shell.command(&format!("exec {serve}"))));
        }
        let outcome = finish(shell.command(&rest), b"");
        assert_eq!(outcome.code, 0, "{rest}\nsaid {} {}", outcome.stdout, outcome.stderr);
        println!("{rest}{}", outcome.stdout);
    }
}

#[test]
fn only_shell_blocks_of_the_tour_are_taken() {
    let readme = "# x\n```sh\nno\n```\n## Five-minute tour\ntext\n```sh\none\ntwo\n```\n```text\n## no\n```sh\n```\n\
                  ### part\n```sh\nthree\n```\n## Next\n```sh\nno\n```\n";
    assert_eq!(tour(readme), Some(vec!["one\ntwo\n".to_owned(), "three\n".to_owned()]));
    assert_eq!(tour("# x\n"), None);
}
