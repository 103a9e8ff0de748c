//! Files on disk: which there are, and how to make the next read of them go to the disk.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use rustix::fs::{Advice, fadvise};

/// All files below a directory.
///
/// # Panics
/// If the directory cannot be read.
#[must_use]
pub fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir).expect("the directory can be listed") {
        let path = entry.expect("the directory can be listed").path();
        if path.is_dir() {
            files.append(&mut files_below(&path));
        } else {
            files.push(path);
        }
    }
    files.sort();
    files
}

/// Makes the next read of the files below `dir` go to the disk; says how. Their data is dropped from
/// the page cache, whoever has written it. With `LOGMILL_BENCH_DROP_CACHES=1`, and the right to, all
/// caches of the machine are: names and inodes too.
///
/// # Panics
/// If a file cannot be synced, or the caches not be dropped.
#[must_use = "the figure says which"]
pub fn drop_from_cache(dir: &Path) -> &'static str {
    for path in files_below(dir) {
        let file = OpenOptions::new().read(true).open(&path).expect("the file can be opened");
        file.sync_all().expect("the file can be synced");
        fadvise(&file, 0, None, Advice::DontNeed).expect("the kernel takes the advice");
    }
    if std::env::var_os("LOGMILL_BENCH_DROP_CACHES").is_none() {
        return "page cache of its files dropped";
    }
    let mut drop_caches = OpenOptions::new();
    let mut file = drop_caches.write(true).open("/proc/sys/vm/drop_caches").expect("root may do this");
    std::io::Write::write_all(&mut file, b"3").expect("the caches can be dropped");
    "all caches of the machine dropped"
}
