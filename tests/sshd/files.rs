//! Files, by `sftp` and `scp`.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

use crate::bed::{Bed, bytes};

#[test]
fn files_go_there_and_back_with_their_times_and_permissions() {
    let bed = Bed::start();
    let (there, back) = (bed.path("there"), bed.path("back"));
    fs::create_dir(&there).unwrap();
    let file = bed.path("file");
    fs::write(&file, bytes(10 << 20)).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    fs::File::open(&file)
        .unwrap()
        .set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000))
        .unwrap();
    let done =
        bed.sftp(&format!("put -p {} {1}/a\nget -p {1}/a {2}\n", file.display(), there.display(), back.display()));
    assert!(done.status.success(), "{done:?}");
    assert!(fs::read(&back).unwrap() == bytes(10 << 20));
    for copy in [there.join("a"), back] {
        let metadata = fs::metadata(copy).unwrap();
        assert_eq!((metadata.mtime(), metadata.mode() & 0o777), (1_600_000_000, 0o640));
    }
}

#[test]
fn directories_links_and_renames_work() {
    let bed = Bed::start();
    let dir = bed.path("there");
    fs::create_dir(&dir).unwrap();
    fs::write(bed.path("file"), "content").unwrap();
    let done = bed.sftp(&format!(
        "cd {}\npwd\nmkdir sub\nput {} sub/one\nrename sub/one sub/two\nsymlink two sub/link\nln sub/two sub/hard\nchmod 600 sub/two\n\
         ls -l sub\ndf .\nrm sub/hard\n-rmdir sub\n",
        dir.display(),
        bed.path("file").display()
    ));
    assert!(done.status.success(), "{done:?}");
    let printed = String::from_utf8_lossy(&done.stdout);
    assert!(printed.contains(&format!("Remote working directory: {}", dir.display())), "{printed}");
    assert!(printed.contains("-rw-------") && printed.contains("lrwxrwxrwx"), "{printed}");
    assert_eq!(fs::read_link(dir.join("sub/link")).unwrap().to_str(), Some("two"));
    assert_eq!(fs::read_to_string(dir.join("sub/link")).unwrap(), "content");
    assert!(!dir.join("sub/hard").exists() && dir.join("sub").exists(), "a directory with files in it is not removed");
    assert!(String::from_utf8_lossy(&done.stderr).contains("rmdir"), "{done:?}");
}

#[test]
fn whole_trees_are_copied_with_names_of_all_kinds() {
    use std::os::unix::ffi::OsStrExt;
    let bed = Bed::start();
    let (from, there, back) = (bed.path("from"), bed.path("there"), bed.path("back"));
    fs::create_dir_all(from.join("deep/er")).unwrap();
    let names: [&[u8]; 5] = [b"plain", b"with space", "gr\u{fc}n".as_bytes(), b"caf\xe9", b"quo'te\"d"];
    for (index, name) in names.into_iter().enumerate() {
        fs::write(from.join("deep/er").join(std::ffi::OsStr::from_bytes(name)), bytes(index * 100_000)).unwrap();
    }
    for index in 0..250 {
        fs::write(from.join(format!("many{index}")), index.to_string()).unwrap();
    }
    let host = |path: &std::path::Path| format!("root@127.0.0.1:{}", path.display());
    let up = bed.client("scp").args(["-q", "-r"]).arg(&from).arg(host(&there)).output().unwrap();
    assert!(up.status.success(), "{up:?}");
    let down = bed.client("scp").args(["-q", "-r"]).arg(host(&there)).arg(&back).output().unwrap();
    assert!(down.status.success(), "{down:?}");
    let same = std::process::Command::new("diff").arg("-r").args([&from, &back]).output().unwrap();
    assert!(same.status.success(), "{same:?}");
}

#[test]
fn what_does_not_work_says_so() {
    let bed = Bed::start();
    let done = bed.sftp("get /nonexistent/file /tmp/never\n");
    assert!(!done.status.success() && String::from_utf8_lossy(&done.stderr).contains("not found"), "{done:?}");
    let done = bed.client("ssh").args(["-s", "root@127.0.0.1", "nothing"]).output().unwrap();
    assert!(String::from_utf8_lossy(&done.stderr).contains("subsystem request failed"), "{done:?}");
}
