//! What is noted outside of the machine that loses its power.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// Where in the device's count of writes its number of entries stands.
const ENTRIES_AT: u64 = 16;

/// One line of the notes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    /// The log is there.
    Created { log: usize },
    /// The record of that writer is at that offset, and stays.
    Acked { log: usize, writer: usize, n: u64, offset: u64 },
    /// A reader was shown everything below that offset.
    Seen { log: usize, end: u64 },
    /// The log's start is about to be moved.
    Trimming { log: usize, start: u64 },
    /// It was.
    Trimmed { log: usize, start: u64 },
}

/// Writes notes, each with the number of device writes before which it held.
pub(crate) struct Notes {
    file: File,
    write_log: File,
}

impl Notes {
    #[expect(clippy::disallowed_methods, reason = "notes are no part of what is tested")]
    pub(crate) fn create(path: &str, write_log: &str) -> Self {
        Self { file: File::create(path).unwrap(), write_log: File::open(write_log).unwrap() }
    }

    /// To be called when what the note says has happened: the count is read after that.
    pub(crate) fn add(&self, note: Note) {
        let mut entries = [0; 8];
        self.write_log.read_exact_at(&mut entries, ENTRIES_AT).unwrap();
        let entries = u64::from_le_bytes(entries);
        let line = match note {
            Note::Created { log } => format!("{entries} created {log}\n"),
            Note::Acked { log, writer, n, offset } => {
                format!("{entries} acked {log} {writer} {n} {offset}\n")
            }
            Note::Seen { log, end } => format!("{entries} seen {log} {end}\n"),
            Note::Trimming { log, start } => format!("{entries} trimming {log} {start}\n"),
            Note::Trimmed { log, start } => format!("{entries} trimmed {log} {start}\n"),
        };
        // One call, so that lines of several threads stay whole.
        (&self.file).write_all(line.as_bytes()).unwrap();
    }
}

/// All notes with their numbers of device writes.
pub(crate) fn read(path: impl AsRef<Path>) -> Vec<(u64, Note)> {
    fs::read_to_string(path).unwrap().lines().map(parse).collect()
}

fn parse(line: &str) -> (u64, Note) {
    let mut words = line.split(' ');
    let entries = words.next().unwrap().parse().unwrap();
    let what = words.next().unwrap();
    let parts: Vec<u64> = words.map(|word| word.parse().unwrap()).collect();
    let log = usize::try_from(parts[0]).unwrap();
    let note = match (what, &parts[1..]) {
        ("created", []) => Note::Created { log },
        ("acked", &[writer, n, offset]) => {
            Note::Acked { log, writer: usize::try_from(writer).unwrap(), n, offset }
        }
        ("seen", &[end]) => Note::Seen { log, end },
        ("trimming", &[start]) => Note::Trimming { log, start },
        ("trimmed", &[start]) => Note::Trimmed { log, start },
        _ => panic!("not a note: {line}"),
    };
    (entries, note)
}
