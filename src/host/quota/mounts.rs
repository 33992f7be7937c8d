//! What is mounted, as `/proc/self/mountinfo` tells it. Pure.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Mount {
    /// The device, as `major:minor`.
    pub(crate) device: String,
    /// Where it is.
    pub(crate) at: PathBuf,
    /// The type of its file system.
    pub(crate) kind: String,
    /// What is mounted there, as the file system tells it: a device mostly.
    pub(crate) source: PathBuf,
    /// The file system's own options.
    pub(crate) options: Vec<String>,
}

/// All mounts, in the order in which they were made, as far as a line can be read.
pub(crate) fn parse(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(line).collect()
}

fn line(line: &str) -> Option<Mount> {
    // 36 35 98:0 /root /at rw,noatime shared:1 - ext4 /dev/loop0 rw,errors=continue
    let (front, back) = line.split_once(" - ")?;
    let mut front = front.split(' ').skip(2);
    let (device, at) = (front.next()?, front.nth(1)?);
    let mut back = back.split(' ');
    let (kind, source, options) = (back.next()?, back.next()?, back.next().unwrap_or(""));
    Some(Mount {
        device: device.to_owned(),
        at: unescaped(at),
        kind: kind.to_owned(),
        source: unescaped(source),
        options: options.split(',').map(str::to_owned).collect(),
    })
}

/// A path in which blanks and backslashes are octal numbers.
fn unescaped(text: &str) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let number = match (first, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', ..]) => {
                Some((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'))
            }
            _ => None,
        };
        out.push(number.unwrap_or(*first));
        rest = if number.is_some() { tail.get(3..).unwrap_or(&[]) } else { tail };
    }
    PathBuf::from(OsString::from_vec(out))
}

/// The mount that this path lies on: the deepest, and of several in one place the last.
pub(crate) fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    let above = mounts.iter().filter(|mount| path.starts_with(&mount.at));
    above.max_by_key(|mount| mount.at.components().count())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
43 27 7:0 / /data/vol\\040umes/a rw,nosuid,nodev shared:5 master:3 - ext4 /dev/loop0 rw,errors=remount-ro
44 27 7:0 /layer /var/lib/docker/overlay2/ab\\134c rw - ext4 /dev/loop0 rw
45 27 0:50 / /data rw - xfs /dev/sdb1 rw,prjquota
46 27 0:51 / /data rw - tmpfs tmpfs rw
a broken line
";

    #[test]
    fn mounts_are_read_with_blanks_and_propagation_in_them() {
        let mounts = parse(TEXT);
        assert_eq!(mounts.len(), 5, "a line that is none is left out");
        assert_eq!(mounts[1].at, Path::new("/data/vol umes/a"));
        assert_eq!((mounts[1].device.as_str(), mounts[1].source.as_path()), ("7:0", Path::new("/dev/loop0")));
        assert_eq!(mounts[2].at, Path::new("/var/lib/docker/overlay2/ab\\c"));
        assert_eq!(mounts[3].options, ["rw", "prjquota"]);
    }

    #[test]
    fn a_path_lies_on_the_deepest_mount_and_there_on_the_last() {
        let mounts = parse(TEXT);
        let kind = |path: &str| holding(&mounts, Path::new(path)).map(|mount| mount.kind.as_str());
        assert_eq!(kind("/data/x"), Some("tmpfs"));
        assert_eq!(kind("/data/vol umes/a/b"), Some("ext4"));
        assert_eq!(kind("/database"), Some("ext4"));
        assert_eq!(kind("relative"), None);
    }
}
