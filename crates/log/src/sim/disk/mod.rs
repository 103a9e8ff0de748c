//! The simulated disk: inodes with the bytes of files, and names that lead to them.
//!
//! Files and names last apart from each other: syncing a file says nothing about its name. An
//! inode lives as long as a name can lead to it, in any state that a crash can lead to, or
//! somebody has it open.

mod crash;
mod names;
mod sectors;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Component, Path, PathBuf};

use logmill_record::TimestampMs;
use rustix::io::Errno;

use names::{Key, Names};
pub(super) use sectors::FileImage;

use super::SimRandom;
use crate::env::Entry;

/// Longer files are refused (EFBIG): they are held in memory.
pub(super) const FILE_LIMIT_BYTES: usize = 1 << 30;

/// Names a file or directory whatever it is called. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct InodeId(u64);

impl InodeId {
    const ROOT: Self = Self(0);

    fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

#[derive(Debug)]
pub(super) enum Node {
    File {
        image: FileImage,
        /// How many have it open.
        handles: u32,
    },
    Dir,
}

#[derive(Debug)]
pub(super) struct Disk {
    nodes: BTreeMap<InodeId, Node>,
    next: InodeId,
    names: Names,
}

impl Disk {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(InodeId::ROOT, Node::Dir)]);
        Self { nodes, next: InodeId::ROOT.next(), names: Names::default() }
    }

    pub(super) fn lookup(&self, path: &Path) -> io::Result<InodeId> {
        let mut at = InodeId::ROOT;
        for name in components(path)? {
            self.check_dir(at)?;
            at = self.names.get(&(at, name)).ok_or(Errno::NOENT)?;
        }
        Ok(at)
    }

    pub(super) fn lookup_dir(&self, path: &Path) -> io::Result<InodeId> {
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

    fn is_dir(&self, inode: InodeId) -> bool {
        matches!(self.nodes[&inode], Node::Dir)
    }

    pub(super) fn lookup_file(&self, path: &Path) -> io::Result<InodeId> {
        let inode = self.lookup(path)?;
        if self.is_dir(inode) { Err(Errno::ISDIR.into()) } else { Ok(inode) }
    }

    pub(super) fn file(&self, inode: InodeId) -> &FileImage {
        match &self.nodes[&inode] {
            Node::File { image, .. } => image,
            Node::Dir => unreachable!("file inodes stay files"),
        }
    }

    pub(super) fn file_mut(&mut self, inode: InodeId) -> &mut FileImage {
        match self.nodes.get_mut(&inode) {
            Some(Node::File { image, .. }) => image,
            _ => unreachable!("an open or named file exists"),
        }
    }

    fn add(&mut self, node: Node) -> InodeId {
        let inode = self.next;
        self.next = inode.next();
        self.nodes.insert(inode, node);
        inode
    }

    pub(super) fn create_file(&mut self, path: &Path, now: TimestampMs) -> io::Result<InodeId> {
        let key = self.place(path)?;
        if self.names.get(&key).is_some() {
            return Err(Errno::EXIST.into());
        }
        let inode = self.add(Node::File { image: FileImage::new(now), handles: 0 });
        self.names.set(key, inode);
        Ok(inode)
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        if self.lookup(path).is_ok() {
            return Err(Errno::EXIST.into());
        }
        let key = self.place(path)?;
        let inode = self.add(Node::Dir);
        self.names.set(key, inode);
        Ok(())
    }

    /// A file that is there as if it had always been, its directories with it.
    pub(super) fn plant_file(&mut self, path: &Path, now: TimestampMs) -> io::Result<InodeId> {
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

    pub(super) fn list(&self, dir: &Path) -> io::Result<Vec<Entry>> {
        let dir = self.lookup_dir(dir)?;
        let entry = |(name, inode): (&str, _)| Entry { name: name.to_owned(), is_dir: self.is_dir(inode) };
        Ok(self.names.list(dir).map(entry).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let inode = self.lookup(from)?;
        let (from_names, to_names) = (components(from)?, components(to)?);
        let (from, to) = (self.place(from)?, self.place(to)?);
        let moves_dir = self.is_dir(inode);
        if let Some(replaced) = self.names.get(&to) {
            if replaced == inode {
                return Ok(());
            }
            match (moves_dir, self.is_dir(replaced)) {
                (false, true) => return Err(Errno::ISDIR.into()),
                (true, false) => return Err(Errno::NOTDIR.into()),
                (true, true) => self.check_empty(replaced)?,
                (false, false) => {}
            }
        }
        if moves_dir && to_names.starts_with(&from_names) {
            return Err(Errno::INVAL.into());
        }
        self.names.rename(from, to, inode, moves_dir);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        self.lookup_file(path)?;
        self.names.remove(self.place(path)?);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let dir = self.lookup_dir(path)?;
        self.check_empty(dir)?;
        self.names.remove(self.place(path)?);
        Ok(())
    }

    fn check_empty(&self, dir: InodeId) -> io::Result<()> {
        if self.names.list(dir).next().is_some() { Err(Errno::NOTEMPTY.into()) } else { Ok(()) }
    }

    pub(super) fn sync_dir(&mut self, dir: InodeId) {
        self.names.sync(dir);
        self.sweep();
    }

    pub(super) fn opened(&mut self, inode: InodeId) {
        if let Some(Node::File { handles, .. }) = self.nodes.get_mut(&inode) {
            *handles += 1;
        }
    }

    pub(super) fn closed(&mut self, inode: InodeId) {
        if let Some(Node::File { handles, .. }) = self.nodes.get_mut(&inode) {
            *handles -= 1;
        }
    }

    /// The bytes of all files that have a name or are open.
    pub(super) fn used_bytes(&self) -> u64 {
        let named = self.names.named();
        let used = self.nodes.iter().map(|(inode, node)| match node {
            Node::File { image, handles } if *handles > 0 || named.contains(inode) => {
                image.live().len() as u64
            }
            _ => 0,
        });
        used.sum()
    }

    pub(super) fn drop_caches(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File { image, .. } = node {
                image.drop_cache();
            }
        }
    }

    /// All programs end: nothing is open any more.
    pub(super) fn close_all(&mut self) {
        for node in self.nodes.values_mut() {
            if let Node::File { handles, .. } = node {
                *handles = 0;
            }
        }
        self.sweep();
    }

    /// The power goes and comes back.
    pub(super) fn crash(&mut self, random: &SimRandom) {
        self.names.crash(random);
        for node in self.nodes.values_mut() {
            if let Node::File { image, .. } = node {
                image.crash(random);
            }
        }
        self.close_all();
    }

    /// Drops inodes that nothing leads to.
    fn sweep(&mut self) {
        let children = self.names.possible();
        let mut found = BTreeSet::from([InodeId::ROOT]);
        let mut to_visit = vec![InodeId::ROOT];
        while let Some(dir) = to_visit.pop() {
            let new = children.get(&dir).into_iter().flatten().filter(|inode| found.insert(**inode));
            to_visit.extend(new);
        }
        self.nodes.retain(|inode, node| {
            found.contains(inode) || matches!(node, Node::File { handles, .. } if *handles > 0)
        });
        self.names.retain_dirs(|dir| found.contains(&dir));
    }

    /// Every path with the bytes of its file, `None` for a directory; in order.
    pub(super) fn walk(&self, side: Side) -> Vec<(String, Option<&[u8]>)> {
        let mut found = Vec::new();
        self.walk_dir(side, InodeId::ROOT, "", &mut found);
        found
    }

    fn walk_dir<'a>(
        &'a self,
        side: Side,
        dir: InodeId,
        path: &str,
        found: &mut Vec<(String, Option<&'a [u8]>)>,
    ) {
        let children: Vec<_> = match side {
            Side::Live => self.names.list(dir).collect(),
            Side::Durable => self.names.list_durable(dir).collect(),
        };
        for (name, inode) in children {
            let path = format!("{path}/{name}");
            match (&self.nodes[&inode], side) {
                (Node::File { image, .. }, Side::Live) => found.push((path, Some(image.live()))),
                (Node::File { image, .. }, Side::Durable) => found.push((path, Some(image.durable()))),
                (Node::Dir, _) => {
                    found.push((path.clone(), None));
                    self.walk_dir(side, inode, &path, found);
                }
            }
        }
    }
}

/// What a program sees, or what a crash cannot take.
#[derive(Clone, Copy, Debug)]
pub(super) enum Side {
    Live,
    Durable,
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
pub(super) fn normal(path: &Path) -> io::Result<String> {
    Ok(components(path)?.iter().fold(String::new(), |path, name| path + "/" + name))
}
