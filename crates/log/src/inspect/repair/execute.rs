//! Doing one piece of a repair, so that it is on disk when it is done.

use std::io;
use std::path::Path;

use super::super::verify::MergeLook;
use super::files::remove;
use super::plan::{Action, Segment};
use super::rewrite::rewrite;
use super::states::make_states;
use crate::env::{Fs, OpenMode};
use crate::error::Error;
use crate::format::atomic;
use crate::format::checkpoint::{self, Checkpoint};
use crate::format::meta::FILE as META;
use crate::format::replacement::MERGE;
use crate::log::remove_segments;
use crate::segment::{DATA, Gaps, INDEX, path, rebuild};
use crate::set::{CHECKPOINT, SET};

pub(super) fn execute(fs: &dyn Fs, data_dir: &Path, action: &Action, rows: &Checkpoint) -> Result<(), Error> {
    match action {
        Action::Set(set) => atomic::replace(fs, &data_dir.join(SET), &set.encode()),
        Action::Meta { dir, meta } => atomic::replace(fs, &dir.join(META), &meta.encode()),
        Action::Merge { dir, look } => end_merge(fs, dir, look),
        Action::Unbegun { dir, base } => {
            remove(fs, &path(dir, *base, DATA))?;
            fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
        }
        Action::Begin { dir, base } => {
            let data = path(dir, *base, DATA);
            match fs.open(&data, OpenMode::CreateNew) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                    return Err(Error::io("create", &data, error));
                }
                _ => {}
            }
            fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))
        }
        Action::Rewrite { dir, look, refuted } => rewrite(fs, dir, *look, refuted),
        Action::Index { dir, look } => make_index(fs, dir, *look),
        Action::States { dir, segments } => make_states(fs, dir, segments),
        Action::Checkpoint => atomic::replace(fs, &data_dir.join(CHECKPOINT), &checkpoint::encode(rows)),
    }
}

fn end_merge(fs: &dyn Fs, dir: &Path, look: &MergeLook) -> Result<(), Error> {
    if !look.replaced.whole {
        for base in &look.replaced.bases {
            let data = path(dir, *base, DATA);
            match fs.rename(&data, &data.with_extension("log.replaced")) {
                // Moved already, before a crash.
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(Error::io("move aside", &data, error));
                }
                _ => {}
            }
        }
        fs.sync_dir(dir).map_err(|error| Error::io("sync", dir, error))?;
    }
    if !look.replaced.bases.is_empty() {
        remove_segments(fs, dir, &mut look.replaced.bases.clone())?;
    }
    let record = path(dir, look.base, MERGE);
    let moved = if look.damaged {
        fs.rename(&record, &record.with_extension(format!("{MERGE}.damaged")))
    } else {
        fs.remove_file(&record)
    };
    moved.and_then(|()| fs.sync_dir(dir)).map_err(|error| Error::io("move", &record, error))
}

/// The data is whole: its headers make the index.
fn make_index(fs: &dyn Fs, dir: &Path, segment: Segment) -> Result<(), Error> {
    let data = path(dir, segment.base, DATA);
    let gaps = if segment.gaps { Gaps::Below(segment.end) } else { Gaps::None };
    let index = fs
        .open(&data, OpenMode::Read)
        .and_then(|file| rebuild(&*file, segment.base, file.status()?, gaps))
        .map_err(|error| Error::io("read", &data, error))?;
    atomic::replace(fs, &path(dir, segment.base, INDEX), &index.0.encode().0)
}
