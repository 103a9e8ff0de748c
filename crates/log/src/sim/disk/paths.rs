//! Paths, and the operations on names that a program asks for, refused as Linux refuses them.

use std::io;
use std::path::{Component, Path, PathBuf};

use logmill_record::TimestampMs;
use rustix::io::Errno;

use super::names::Key;
use super::{Disk, FileImage, InodeId, Node};
use crate::env::Entry;

impl Disk {
    pub(in crate::sim) fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = InodeId::ROOT;
        for name in components(path)? {
            self.check_dir(at)?;
            at = self.names.get(&(at, name)).ok_or(Errno::NOENT)?;
        }
        Ok(at)
    }

    pub(in crate::sim) fn lookup_dir(&self, path: &Path) -> io::Result<InodeId> {
        let dir = self.lookup(path)?;
        self.check_dir(dir)?;
        Ok(dir)
    }

    /// The directory that a path's last name is or would be in, and that name.
    fn place(&self, path: &Path) -> io::Result<Key> {
        let mut names = components(path)?;
        let name = names.pop().ok_or(Errno::BUSY)?;
        let dir = self.lookup_dir(&names.iter().collect::<PathBuf>())?;
        Ok((dir, name))
    }

    fn check_dir(&self, inode: InodeId) -> io::Result<()> {
        if self.is_dir(inode) { Ok(()) } else { Err(Errno::NOTDIR.into()) }
    }

    pub(in crate::sim) fn lookup_file(&self, path: &Path) -> io::Result<InodeId> {
        let inode = self.lookup(path)?;
        if self.is_dir(inode) { Err(Errno::ISDIR.into()) } else { Ok(inode) }
    }

    pub(in crate::sim) fn create_file(&mut self, path: &Path, now: TimestampMs) -> io::Result<InodeId> {
        let key = self.place(path)?;
        if self.names.get(&key).is_some() {
            return Err(Errno::EXIST.into());
        }
        let inode = self.add(Node::File { image: FileImage::new(now), handles: 0 });
        self.names.set(key, inode);
        Ok(inode)
    }

    pub(in crate::sim) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.lookup(path).is_ok() {
            return Err(Errno::EXIST.into());
        }
        let key = self.place(path)?;
        let inode = self.add(Node::Dir);
        self.names.set(key, inode);
        Ok(())
    }

    /// A file that is there as if it had always been, its directories with it.
    pub(in crate::sim) fn plant_file(&mut self, path: &Path, now: TimestampMs) -> io::Result<InodeId> {
        let mut names = components(path)?;
        let name = names.pop().ok_or(Errno::ISDIR)?;
        let mut dir = InodeId::ROOT;
        for name in names {
            dir = self.plant((dir, name), || Node::Dir);
            self.check_dir(dir)?;
        }
        let file = self.plant((dir, name), || Node::File { image: FileImage::new(now), handles: 0 });
        if self.is_dir(file) { Err(Errno::ISDIR.into()) } else { Ok(file) }
    }

    fn plant(&mut self, key: Key, node: impl FnOnce() -> Node) -> InodeId {
        let inode = self.names.get(&key).unwrap_or_else(|| self.add(node()));
        self.names.set_durable(key, inode);
        inode
    }

    pub(in crate::sim) fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let dir = self.lookup_dir(dir)?;
        let entry = |(name, inode): (&str, _)| Entry { name: name.to_owned(), is_dir: self.is_dir(inode) };
        Ok(self.names.list(dir).map(entry).collect())
    }

    pub(in crate::sim) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_names, to_names) = (components(from)?, components(to)?);
        let (from, to) = (self.place(from)?, self.place(to)?);
        let inode = self.names.get(&from).ok_or(Errno::NOENT)?;
        let replaced = self.names.get(&to);
        if replaced == Some(inode) {
            return Ok(());
        }
        let moves_dir = self.is_dir(inode);
        if moves_dir && to_names.starts_with(&from_names) {
            return Err(Errno::INVAL.into());
        }
        match replaced.map(|replaced| (moves_dir, replaced, self.is_dir(replaced))) {
            Some((_, _, true)) if from_names.starts_with(&to_names) => return Err(Errno::NOTEMPTY.into()),
            Some((false, _, true)) => return Err(Errno::ISDIR.into()),
            Some((true, _, false)) => return Err(Errno::NOTDIR.into()),
            Some((true, replaced, true)) => self.check_empty(replaced)?,
            Some((false, _, false)) | None => {}
        }
        self.names.rename(from, to, inode, moves_dir);
        Ok(())
    }

    pub(in crate::sim) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.lookup_file(path)?;
        self.names.remove(self.place(path)?);
        Ok(())
    }

    pub(in crate::sim) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.lookup_dir(path)?;
        self.check_empty(dir)?;
        self.names.remove(self.place(path)?);
        Ok(())
    }

    fn check_empty(&self, dir: InodeId) -> io::Result<()> {
        if self.names.list(dir).next().is_some() { Err(Errno::NOTEMPTY.into()) } else { Ok(()) }
    }
}

/// The names along a path; relative paths start at the root too.
fn components(path: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(name) => names.push(name.to_str().ok_or(Errno::INVAL)?.to_owned()),
            Component::ParentDir | Component::Prefix(_) => return Err(Errno::INVAL.into()),
        }
    }
    Ok(names)
}

/// One spelling of a path.
pub(in crate::sim) fn normal(path: &Path) -> io::Result<String> {
    Ok(components(path)?.iter().fold(String::new(), |path, name| path + "/" + name))
}
