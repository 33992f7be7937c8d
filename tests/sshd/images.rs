//! Images of all kinds, as directories that the server is shut into.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::bed::{Bed, copy_program, left_out};

/// What shuts a program into a directory as this user; `None` where that is not allowed.
fn shut_in(dir: &Path, user: Option<&str>) -> Option<Vec<String>> {
    let dir = dir.display().to_string();
    let user = user.map(|user| format!("--userspec={user}"));
    let of = |first: &[&str]| {
        first
            .iter()
            .map(|w| (*w).to_owned())
            .chain(["chroot".to_owned()])
            .chain(user.clone())
            .chain([dir.clone()])
            .collect()
    };
    if rustix::process::geteuid().is_root() {
        return Some(of(&[]));
    }
    // Without root it takes a name space of users, which has only one.
    let allowed =
        user.is_none() && Command::new("unshare").args(["--map-root-user", "true"]).status().is_ok_and(|s| s.success());
    allowed.then(|| of(&["unshare", "--map-root-user"]))
}

/// A server in an image of this directory; `None` where that is not allowed.
fn server(dir: tempfile::TempDir, user: Option<&str>) -> Option<Bed> {
    let Some(prefix) = shut_in(dir.path(), user) else {
        left_out("the SSH server in images: neither root nor a name space of users");
        return None;
    };
    let root = dir.path().to_owned();
    Bed::prepare(&root);
    if let Some(number) = user.and_then(|user| user.split(':').next()?.parse().ok()) {
        // Its files are that user's, for it has to read them.
        for entry in fs::read_dir(root.join(".compute")).unwrap() {
            chown(entry.unwrap().path(), Some(number), Some(number)).unwrap();
        }
        chown(root.join(".compute"), Some(number), Some(number)).unwrap();
    }
    let prefix: Vec<&str> = prefix.iter().map(String::as_str).collect();
    Some(Bed::launch(dir, &prefix, |path| Path::new("/").join(path.strip_prefix(&root).unwrap())))
}

#[test]
fn in_an_image_with_nothing_in_it_files_come_and_programs_run() {
    let Some(bed) = server(tempfile::tempdir().unwrap(), None) else { return };
    // The only program there.
    assert_eq!(bed.prints("/.compute/sshd --version"), format!("compute-sshd {}\n", env!("CARGO_PKG_VERSION")));
    fs::write(bed.path("file"), "content").unwrap();
    let done = bed.sftp(&format!("pwd\nput {} /new\nchmod 644 /new\n", bed.path("file").display()));
    assert!(
        done.status.success() && String::from_utf8_lossy(&done.stdout).contains("Remote working directory: /"),
        "{done:?}"
    );
    assert_eq!(fs::read_to_string(bed.path("new")).unwrap(), "content");
    let done = bed.ssh("/missing 'a b'");
    assert_eq!(
        (done.status.code(), String::from_utf8_lossy(&done.stderr).trim()),
        (Some(127), "/missing: No such file or directory (os error 2)")
    );
    let shell = bed.client("ssh").args(["-T", "root@127.0.0.1"]).output().unwrap();
    assert_eq!(shell.status.code(), Some(126));
    assert!(String::from_utf8_lossy(&shell.stderr).contains("the image has no shell"), "{shell:?}");
}

/// An image as Alpine's: one program for all commands, no bash, no glibc.
fn small_image() -> Option<tempfile::TempDir> {
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(PathBuf::from).into_iter().find(|path| path.exists());
    let Some(busybox) = busybox else {
        left_out("the SSH server in an image like Alpine's: no busybox (on Debian: busybox-static)");
        return None;
    };
    let dir = tempfile::tempdir().unwrap();
    for name in ["bin", "etc", "root", "tmp"] {
        fs::create_dir(dir.path().join(name)).unwrap();
    }
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    copy_program(&busybox, &dir.path().join("bin/busybox"));
    for name in ["sh", "ash", "ls", "cat", "id", "pwd", "wc"] {
        symlink("busybox", dir.path().join("bin").join(name)).unwrap();
    }
    fs::write(dir.path().join("etc/passwd"), "root:x:0:0:root:/root:/bin/ash\napp:x:1234:1234::/tmp:/sbin/nologin\n")
        .unwrap();
    Some(dir)
}

#[test]
fn in_an_image_like_alpines_its_own_shell_is_the_login() {
    let Some(bed) = small_image().and_then(|dir| server(dir, None)) else { return };
    assert_eq!(bed.prints("echo $0 $SHELL $HOME; pwd; ls /bin | wc -l"), "ash /bin/ash /root\n/root\n8\n");
    assert_eq!(bed.ssh("exit 9").status.code(), Some(9));
}

#[test]
fn in_an_image_with_a_user_of_its_own_the_login_is_that_user() {
    let Some(dir) = small_image() else { return };
    if !rustix::process::geteuid().is_root() {
        return left_out("the SSH server as another user than root: needs root");
    }
    let Some(bed) = server(dir, Some("1234:1234")) else { return };
    // nologin keeps nobody out who rents the container.
    assert_eq!(bed.prints("id -u; echo $USER $HOME $0"), "1234\napp /tmp sh\n");
    let named = bed.client("ssh").args(["app@127.0.0.1", "id -u"]).output().unwrap();
    assert_eq!(named.stdout, b"1234\n");
}
