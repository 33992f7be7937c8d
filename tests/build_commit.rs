//! Which commit a release build says it was made from: every shape of `.git`, and none.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::path::{Path, PathBuf};

#[path = "../build.rs"]
#[expect(dead_code, clippy::print_stdout, reason = "cargo runs its main and listens to it")]
mod build;
use build::Git;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn write(path: PathBuf, text: &str) {
    std::fs::create_dir_all(path.parent().unwrap()).unwrap();
    std::fs::write(path, text).unwrap();
}

fn commit(root: &Path) -> Option<String> {
    Git::of(root)?.commit()
}

#[test]
fn the_commit_is_found_on_a_branch_without_one_and_in_packed_refs() {
    let dir = tempfile::tempdir().unwrap();
    let git = dir.path().join(".git");
    write(git.join("HEAD"), &format!("{COMMIT}\n"));
    assert_eq!(commit(dir.path()).as_deref(), Some(COMMIT));

    write(git.join("HEAD"), "ref: refs/heads/a/branch\n");
    assert_eq!(commit(dir.path()), None, "a branch without a commit");
    write(git.join("packed-refs"), &format!("# pack-refs with: peeled\n{COMMIT} refs/heads/a/branch\n"));
    assert_eq!(commit(dir.path()).as_deref(), Some(COMMIT));

    let newer = COMMIT.replace('0', "f");
    write(git.join("refs/heads/a/branch"), &format!("{newer}\n"));
    assert_eq!(commit(dir.path()), Some(newer), "a branch's own file is newer than the packed one");
    assert!(Git::of(dir.path()).unwrap().watched().contains(&git.join("refs/heads/a/branch")));
}

#[test]
fn the_commit_of_a_worktree_is_its_own_and_its_branches_are_shared() {
    let dir = tempfile::tempdir().unwrap();
    let (main, tree) = (dir.path().join("main/.git"), dir.path().join("tree"));
    write(tree.join(".git"), &format!("gitdir: {}\n", main.join("worktrees/tree").display()));
    write(main.join("worktrees/tree/HEAD"), "ref: refs/heads/tree\n");
    write(main.join("worktrees/tree/commondir"), "../..\n");
    write(main.join("HEAD"), "ref: refs/heads/main\n");
    write(main.join("refs/heads/tree"), COMMIT);
    assert_eq!(commit(&tree).as_deref(), Some(COMMIT));
}

#[test]
fn a_tarball_has_no_commit_even_inside_another_checkout() {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path().join(".git/HEAD"), COMMIT);
    let inner = dir.path().join("unpacked");
    std::fs::create_dir(&inner).unwrap();
    assert!(Git::of(&inner).is_none());
}

#[test]
fn what_is_no_commit_is_not_told() {
    let dir = tempfile::tempdir().unwrap();
    for wrong in ["", "0123", "ref: refs/heads/../../../etc/passwd", &COMMIT.to_uppercase(), &"g".repeat(40)] {
        write(dir.path().join(".git/HEAD"), wrong);
        assert_eq!(commit(dir.path()), None, "{wrong:?}");
    }
}
