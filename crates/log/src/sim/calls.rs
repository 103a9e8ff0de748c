//! The calls that programs make to a simulated disk.

use std::io::{self, IoSlice};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use parking_lot::MutexGuard;
use rustix::io::Errno;

use super::disk::{self, FileImage, InodeId};
use super::machine::Machine;
use super::{Fault, FaultFs, Op};
use crate::env::{Clock, Entry, File, FileStatus, Fs, Lock, Map, OpenMode, Space};

impl FaultFs {
    /// Makes one call, unless something strikes it.
    fn call<T>(&self, op: Op, path: &Path, run: impl FnOnce(&mut Machine) -> io::Result<T>) -> io::Result<T> {
        let path = disk::normal(path)?;
        let mut machine = self.lock_machine();
        machine.begin(self.boot, op, &path)?;
        let result = run(&mut machine);
        finish(machine, result)
    }

    fn hold(&self, machine: &mut Machine, inode: InodeId, path: &Path, writable: bool) -> io::Result<Handle> {
        let path = disk::normal(path)?;
        machine.disk.opened(inode);
        let fs = Self { machine: Arc::clone(&self.machine), boot: Some(machine.boot) };
        Ok(Handle { fs, inode, path, writable })
    }
}

impl Fs for FaultFs {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let op = if mode == OpenMode::CreateNew { Op::Create } else { Op::Open };
        let handle = self.call(op, path, |machine| {
            let inode = match mode {
                OpenMode::Read | OpenMode::ReadWrite => machine.disk.lookup_file(path)?,
                OpenMode::CreateNew => machine.disk.create_file(path, machine.clock.now())?,
            };
            self.hold(machine, inode, path, mode != OpenMode::Read)
        })?;
        Ok(Arc::new(handle))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        self.call(Op::List, dir, |machine| machine.disk.list(dir))
    }

    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Op::CreateDir, dir, |machine| machine.disk.create_dir(dir))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.call(Op::Rename, from, |machine| machine.disk.rename(from, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.call(Op::RemoveFile, path, |machine| machine.disk.remove_file(path))
    }

    fn remove_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Op::RemoveDir, dir, |machine| machine.disk.remove_dir(dir))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        self.call(Op::SyncDir, dir, |machine| {
            let inode = machine.disk.lookup_dir(dir)?;
            if machine.syncs() {
                machine.disk.sync_dir(inode);
            }
            Ok(())
        })
    }

    fn lock(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        let handle = self.call(Op::Lock, path, |machine| {
            let inode = match machine.disk.lookup_file(path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    machine.disk.create_file(path, machine.clock.now())?
                }
                found => found?,
            };
            if !machine.locks.insert(inode) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.hold(machine, inode, path, true)
        })?;
        Ok(Box::new(HeldLock(handle)))
    }

    fn space(&self, dir: &Path) -> io::Result<Space> {
        self.call(Op::Space, dir, |machine| {
            machine.disk.lookup(dir)?;
            Ok(Space { available_bytes: machine.available_bytes(), total_bytes: machine.capacity_bytes })
        })
    }
}

/// What a call returns: nothing good if the power went while it ran.
fn finish<T>(machine: MutexGuard<'_, Machine>, result: io::Result<T>) -> io::Result<T> {
    let power = machine.check_power();
    // Before the result is dropped: a handle in it locks the machine to be closed.
    drop(machine);
    power.and(result)
}

/// An open file. It is dead once the machine has restarted.
#[derive(Debug)]
struct Handle {
    fs: FaultFs,
    inode: InodeId,
    path: String,
    writable: bool,
}

impl Handle {
    /// Makes one call, unless something strikes it; `run` is told how many bytes it may transfer.
    fn call<T>(&self, op: Op, run: impl FnOnce(&mut Machine, usize) -> io::Result<T>) -> io::Result<T> {
        let mut machine = self.fs.lock_machine();
        let limit = machine.begin(self.fs.boot, op, &self.path)?;
        let result = run(&mut machine, limit);
        finish(machine, result)
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let mut machine = self.fs.lock_machine();
        if self.fs.boot == Some(machine.boot) {
            machine.disk.closed(self.inode);
        }
    }
}

impl File for Handle {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.call(Op::Read, |machine, limit| {
            let image = machine.disk.file(self.inode).live();
            let rest = usize::try_from(position).ok().and_then(|position| image.get(position..));
            let rest = rest.unwrap_or_default();
            let count = rest.len().min(buf.len()).min(limit);
            buf[..count].copy_from_slice(&rest[..count]);
            Ok(count)
        })
    }

    fn write_at(&self, parts: &[IoSlice<'_>], position: u64) -> io::Result<usize> {
        self.call(Op::Write, |machine, limit| {
            if !self.writable {
                return Err(Errno::BADF.into());
            }
            let mut bytes: Vec<u8> = parts.iter().flat_map(|part| part.iter().copied()).collect();
            bytes.truncate(limit);
            if bytes.is_empty() {
                return Ok(0);
            }
            let start = usize::try_from(position).unwrap_or(usize::MAX);
            let end = start.saturating_add(bytes.len());
            check_limit(end)?;
            let possible_end = machine.fit(machine.disk.file(self.inode).live().len(), end);
            if possible_end <= start {
                return Err(Errno::NOSPC.into());
            }
            bytes.truncate(possible_end - start);
            let now = machine.clock.now();
            machine.disk.file_mut(self.inode).write(&bytes, start, now);
            Ok(bytes.len())
        })
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut machine = self.fs.lock_machine();
        let fault = machine.strike(self.fs.boot, Op::SyncData, &self.path)?;
        let result = match fault {
            Some(fault @ (Fault::Io | Fault::NoSpace)) => {
                let Machine { disk, random, .. } = &mut *machine;
                disk.file_mut(self.inode).fail_sync(random);
                Err(if fault == Fault::Io { Errno::IO.into() } else { Errno::NOSPC.into() })
            }
            Some(Fault::Short(_) | Fault::Stall(_)) | None => {
                if machine.syncs() {
                    machine.disk.file_mut(self.inode).sync();
                }
                Ok(())
            }
        };
        finish(machine, result)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.call(Op::SetLen, |machine, _| {
            if !self.writable {
                return Err(Errno::INVAL.into());
            }
            let len = usize::try_from(len).unwrap_or(usize::MAX);
            check_limit(len)?;
            if machine.fit(machine.disk.file(self.inode).live().len(), len) < len {
                return Err(Errno::NOSPC.into());
            }
            let now = machine.clock.now();
            machine.disk.file_mut(self.inode).set_len(len, now);
            Ok(())
        })
    }

    fn status(&self) -> io::Result<FileStatus> {
        self.call(Op::Status, |machine, _| {
            let image = machine.disk.file(self.inode);
            Ok(FileStatus { len: image.live().len() as u64, modified: image.modified() })
        })
    }

    fn map(&self, len: u64) -> io::Result<Arc<dyn Map>> {
        let bytes = self.call(Op::Map, |machine, _| {
            let image: &FileImage = machine.disk.file(self.inode);
            let bytes = usize::try_from(len).ok().and_then(|len| image.live().get(..len));
            bytes.map(<[u8]>::to_vec).ok_or_else(|| {
                io::Error::new(io::ErrorKind::UnexpectedEof, "the file is shorter than its map")
            })
        })?;
        Ok(Arc::new(HeapMap { fs: self.fs.clone(), path: self.path.clone(), bytes }))
    }
}

/// Files are held in memory.
fn check_limit(len: usize) -> io::Result<()> {
    if len > disk::FILE_LIMIT_BYTES { Err(Errno::FBIG.into()) } else { Ok(()) }
}

#[derive(Debug)]
struct HeldLock(Handle);

impl Lock for HeldLock {}

impl Drop for HeldLock {
    fn drop(&mut self) {
        let mut machine = self.0.fs.lock_machine();
        if self.0.fs.boot == Some(machine.boot) {
            machine.locks.remove(&self.0.inode);
        }
    }
}

/// A copy of a file's bytes.
#[derive(Debug)]
struct HeapMap {
    fs: FaultFs,
    path: String,
    bytes: Vec<u8>,
}

impl AsRef<[u8]> for HeapMap {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Map for HeapMap {
    fn populate(&self, range: Range<usize>) -> io::Result<()> {
        self.bytes.get(range).ok_or(Errno::NOMEM)?;
        let mut machine = self.fs.lock_machine();
        machine.begin(self.fs.boot, Op::Populate, &self.path)?;
        finish(machine, Ok(()))
    }
}
