//! A disk that hangs: an ext4 of a few MiB, made and mounted here, which is frozen.
//!
//! That takes root.

use std::path::Path;
use std::process::{Command, Stdio};

use tempfile::{NamedTempFile, TempDir};

/// Unmounted when it goes.
pub(crate) struct Disk(TempDir);

impl Disk {
    pub(crate) fn ext4() -> Option<Self> {
        let image = NamedTempFile::new().unwrap();
        image.as_file().set_len(256 << 20).unwrap();
        let image = image.path().to_str().unwrap();
        run("mkfs.ext4", &["-q", "-F", image]).then_some(())?;
        let at = tempfile::tempdir().unwrap();
        // The loop device holds the file from here on.
        let mounted = run("mount", &["-t", "ext4", "-o", "loop", image, at.path().to_str().unwrap()]);
        let disk = mounted.then_some(Self(at))?;
        let can_freeze = disk.freezes("-f") && disk.freezes("-u");
        can_freeze.then_some(disk)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// What is written or synced from now on waits, in the kernel, until the disk thaws.
    pub(crate) fn freeze(&self) -> Frozen<'_> {
        assert!(self.freezes("-f"));
        Frozen(self)
    }

    fn freezes(&self, how: &str) -> bool {
        run("fsfreeze", &[how, self.path().to_str().unwrap()])
    }
}

/// The disk thaws when it goes.
pub(crate) struct Frozen<'a>(&'a Disk);

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        assert!(self.0.freezes("-u") || std::thread::panicking());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        assert!(run("umount", &[self.path().to_str().unwrap()]) || std::thread::panicking());
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
