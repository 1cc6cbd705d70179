//! A control group that goes with its owner.

use crate::child_process::at_the_end;
use std::{
    io,
    path::{Path, PathBuf},
    process::Child,
};

/// Removes control groups and those in them, once their processes have ended.
const REMOVER: &str = r#"
for folder in "$@"; do
    patience=200
    while [ -d "$folder" ] && [ "$patience" -gt 0 ]; do
        patience=$((patience - 1))
        find "$folder" -depth -type d -exec rmdir {} \; 2>/dev/null || true
        [ -d "$folder" ] && sleep 0.05
    done
done
"#;

/// A control group in every hierarchy of the machine: with version 2 there is one, with version 1 one per controller.
#[derive(Debug)]
pub struct OwnedCgroup {
    path: String,
    remover: Child,
}

impl OwnedCgroup {
    /// A new one, beside all others.
    pub fn create(prefix: &str) -> io::Result<Self> {
        let path = format!("/{prefix}{:08x}", rand::random::<u32>());
        let folders: Vec<PathBuf> =
            hierarchies()?.into_iter().map(|folder| folder.join(path.trim_start_matches('/'))).collect();
        let remover = at_the_end(REMOVER, &folders)?;
        folders.iter().try_for_each(std::fs::create_dir)?;
        Ok(Self { path, remover })
    }

    /// Its path in each hierarchy.
    pub fn path(&self) -> &str {
        &self.path
    }
}

impl Drop for OwnedCgroup {
    fn drop(&mut self) {
        drop(self.remover.stdin.take());
        let _ = self.remover.wait();
    }
}

fn hierarchies() -> io::Result<Vec<PathBuf>> {
    let root = Path::new("/sys/fs/cgroup");
    if let Ok(there) = std::fs::read_to_string(root.join("cgroup.controllers")) {
        // The kubelet wants all of these in its group, and a group has what the one above it hands on.
        let wanted = ["cpu", "cpuset", "memory", "pids", "hugetlb"];
        let handed_on: String = there
            .split_whitespace()
            .filter(|controller| wanted.contains(controller))
            .map(|controller| format!("+{controller} "))
            .collect();
        std::fs::write(root.join("cgroup.subtree_control"), handed_on)?;
        return Ok(vec![root.to_owned()]);
    }
    let folders = std::fs::read_dir(root)?.map(|entry| entry.map(|entry| entry.path()));
    let folders = folders.collect::<io::Result<Vec<_>>>()?;
    // Some are links to others.
    Ok(folders.into_iter().filter(|path| !path.is_symlink() && path.join("cgroup.procs").exists()).collect())
}
