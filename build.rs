//! Tells a release build which commit it was made from, as `COMPUTE_COMMIT`, for `compute_build_info`. A value that is set from outside wins.
//!
//! Reads `.git` only, runs nothing, and never fails a build: from a tarball the commit stays unknown. Changes that were
//! not committed are not seen. Debug builds are left alone, so that a commit does not rebuild what is being worked on.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=COMPUTE_COMMIT");
    let release = std::env::var("PROFILE").is_ok_and(|p| p == "release");
    if !release || std::env::var_os("COMPUTE_COMMIT").is_some() {
        return;
    }
    let root = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from).unwrap_or_default();
    let Some(git) = Git::of(&root) else { return };
    // A path that does not exist would make cargo run this each time.
    for path in git.watched().iter().filter(|p| p.exists()) {
        println!("cargo::rerun-if-changed={}", path.display());
    }
    if let Some(commit) = git.commit() {
        println!("cargo::rustc-env=COMPUTE_COMMIT={}", &commit[..12]);
    }
}

/// Where a checkout keeps what it knows.
#[derive(Debug)]
pub(crate) struct Git {
    /// This checkout's own: `HEAD`.
    own: PathBuf,
    /// What several worktrees share: branches.
    common: PathBuf,
}

impl Git {
    /// The checkout whose root this is; `None` if there is none, as in a tarball. Directories above are not looked at:
    /// they belong to something else.
    pub(crate) fn of(root: &Path) -> Option<Self> {
        let dot = root.join(".git");
        let own = match std::fs::read_to_string(&dot) {
            // A worktree or a submodule has a file that points to the place.
            Ok(text) => root.join(text.strip_prefix("gitdir:")?.trim()),
            Err(_) if dot.is_dir() => dot,
            Err(_) => return None,
        };
        let common = match std::fs::read_to_string(own.join("commondir")) {
            Ok(text) => own.join(text.trim()),
            Err(_) => own.clone(),
        };
        Some(Git { own, common })
    }

    /// The branch that is checked out, as `refs/heads/NAME`; `None` when a commit is.
    fn branch(&self) -> Option<String> {
        let head = std::fs::read_to_string(self.own.join("HEAD")).ok()?;
        head.strip_prefix("ref:").map(|name| name.trim().to_owned())
    }

    /// The commit that is checked out, as 40 or 64 lower-case hex digits.
    pub(crate) fn commit(&self) -> Option<String> {
        let hex = |text: &str| {
            let digits = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
            (digits && [40, 64].contains(&text.len())).then(|| text.to_owned())
        };
        let Some(branch) = self.branch() else {
            return hex(std::fs::read_to_string(self.own.join("HEAD")).ok()?.trim());
        };
        if let Ok(text) = std::fs::read_to_string(self.common.join(&branch)) {
            return hex(text.trim());
        }
        let packed = std::fs::read_to_string(self.common.join("packed-refs")).ok()?;
        let (commit, _) = packed.lines().filter_map(|l| l.split_once(' ')).find(|(_, name)| *name == branch)?;
        hex(commit)
    }

    /// What changes when another commit is checked out or made. A branch that is only in `packed-refs` gets a file of
    /// its own with its next commit, which changes the directory.
    pub(crate) fn watched(&self) -> Vec<PathBuf> {
        let mut paths = vec![self.own.join("HEAD"), self.common.join("packed-refs")];
        let branch = self.branch().map(|name| self.common.join(name));
        paths.push(branch.filter(|file| file.exists()).unwrap_or_else(|| self.common.join("refs/heads")));
        paths
    }
}
