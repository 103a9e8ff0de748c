//! While nothing fails, a simulated disk cannot be told from the machine's own.

use std::io;
use std::path::Path;
use std::sync::Arc;

use logmill_log::env::{File, Fs, OpenMode, StdFs};
use logmill_log::sim::{Sim, SimRandom};

use super::{read_all, try_write};

const PATHS: [&str; 9] = ["a", "b", "d", "d/a", "d/d", "d/d/a", "e", "e/b", "a/x"];

/// One file system under test, with the files that are open on it.
struct Side<'a> {
    fs: &'a dyn Fs,
    root: &'a Path,
    open: Vec<Arc<dyn File>>,
}

/// What a call gave, in a form that can be compared.
fn told<T: std::fmt::Debug>(result: io::Result<T>) -> String {
    match result {
        Ok(value) => format!("{value:?}"),
        Err(error) => format!("{:?} {:?}", error.kind(), error.raw_os_error()),
    }
}

impl Side<'_> {
    /// Makes the call that the numbers say.
    fn call(&mut self, numbers: [u64; 5]) -> String {
        let [call, first, second, position, len] = numbers;
        let path = |number: u64| self.root.join(PATHS[usize::try_from(number).unwrap() % PATHS.len()]);
        let (path, other) = (path(first), path(second));
        let fs = self.fs;
        match call % 16 {
            0 => told(fs.list(&path)),
            1 | 2 => told(fs.create_dir(&path)),
            3 | 4 => told(fs.rename(&path, &other)),
            5 => told(fs.remove_file(&path)),
            6 => told(fs.remove_dir(&path)),
            7 => told(fs.sync_dir(self.root)),
            8 => {
                let held = fs.lock(&path);
                let again = fs.lock(&path).map(|_| ());
                told(held.map(|_| ())) + &told(again)
            }
            9 | 10 => self.open(fs.open(&path, OpenMode::CreateNew)),
            11 => self.open(fs.open(&path, OpenMode::ReadWrite)),
            // The standard library opens directories for reading; nothing here does.
            12 if fs.list(&path).is_err() => self.open(fs.open(&path, OpenMode::Read)),
            _ if self.open.is_empty() => String::new(),
            _ => {
                let at = usize::try_from(first).unwrap() % self.open.len();
                self.call_file(at, second, position % 3000, len % 2000)
            }
        }
    }

    fn open(&mut self, opened: io::Result<Arc<dyn File>>) -> String {
        told(opened.map(|file| self.open.push(file)))
    }

    fn call_file(&mut self, at: usize, call: u64, position: u64, len: u64) -> String {
        let file = &self.open[at];
        let count = usize::try_from(len).unwrap();
        match call % 8 {
            0 | 1 => told(try_write(&**file, &vec![u8::try_from(len % 256).unwrap(); count], position)),
            2 => told(file.set_len(position)),
            3 => {
                let mut bytes = vec![1; count];
                told(file.read_at(&mut bytes, position)) + &format!("{bytes:?}")
            }
            4 => told(file.status().map(|status| status.len)) + &told(read_all(&**file)),
            5 if len > 0 => told(file.map(len).map(|map| (*map).as_ref().to_vec())),
            6 => told(file.sync_data()),
            7 => {
                self.open.remove(at);
                String::new()
            }
            _ => String::new(),
        }
    }
}

fn compare(seed: u64) {
    let real_dir = tempfile::tempdir().unwrap();
    let sim = Sim::new(seed);
    let random = SimRandom::new(seed);
    let mut real = Side { fs: &StdFs, root: real_dir.path(), open: Vec::new() };
    let mut simulated = Side { fs: &sim.fs, root: Path::new("/"), open: Vec::new() };
    for step in 0..200 {
        let numbers = [(); 5].map(|()| random.next_u64());
        assert_eq!(real.call(numbers), simulated.call(numbers), "seed {seed}, step {step}: {numbers:?}");
    }
}

#[test]
fn calls_return_what_the_operating_system_returns() {
    (0..100).for_each(compare);
}
