//! The simulated disk: inodes with the bytes of files, and names that lead to them.
//!
//! Files and names last apart from each other: syncing a file says nothing about its name. An
//! inode lives as long as a name can lead to it, in any state that a crash can lead to, or
//! somebody has it open.

mod crash;
mod names;
mod paths;
mod sectors;

use std::collections::{BTreeMap, BTreeSet};

use names::Names;
pub(super) use paths::normal;
pub(super) use sectors::FileImage;

use super::SimRandom;

/// Longer files are refused (EFBIG): they are held in memory.
pub(super) const FILE_LIMIT_BYTES: usize = 1 << 30;

const SWEEP_AT_LEAST: usize = 16;

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
    /// Sweeping pays off when there are so many.
    sweep_at: usize,
}

impl Disk {
    pub(super) fn new() -> Self {
        let nodes = BTreeMap::from([(InodeId::ROOT, Node::Dir)]);
        Self { nodes, next: InodeId::ROOT.next(), names: Names::default(), sweep_at: SWEEP_AT_LEAST }
    }

    fn is_dir(&self, inode: InodeId) -> bool {
        matches!(self.nodes[&inode], Node::Dir)
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

    pub(super) fn sync_dir(&mut self, dir: InodeId) {
        self.names.sync(dir);
        if self.nodes.len() >= self.sweep_at {
            self.sweep();
        }
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
        self.sweep_at = SWEEP_AT_LEAST.max(self.nodes.len() * 2);
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
