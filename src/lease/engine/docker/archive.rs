//! The files that go into a container, as the tar archive that the engine's archive call takes.
//!
//! Everything lies below `/.compute`, which only the container's root can open. Names, owners and modes are ours alone:
//! nothing a renter wrote becomes a name, and no content is read by a shell.

/// The folder of the SSH server and its files, from the container's root, with a slash at its end.
const FOLDER: &str = ".compute/";
/// The block of a tar archive, bytes.
const BLOCK: usize = 512;

/// A file below `/.compute`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Entry<'a> {
    /// Its name in the folder.
    pub(super) name: &'static str,
    /// Its permissions.
    pub(super) mode: u32,
    /// What is in it.
    pub(super) content: &'a [u8],
}

/// An archive (ustar) to be unpacked at the container's root: the folder and these files, all root's.
pub(super) fn archive(entries: &[Entry<'_>]) -> Vec<u8> {
    let size: usize = entries.iter().map(|entry| entry.content.len() + 2 * BLOCK).sum();
    let mut out = Vec::with_capacity(size + 3 * BLOCK);
    out.extend_from_slice(&header(FOLDER, 0o700, 0, b'5'));
    for entry in entries {
        out.extend_from_slice(&header(&format!("{FOLDER}{}", entry.name), entry.mode, entry.content.len(), b'0'));
        out.extend_from_slice(entry.content);
        out.resize(out.len().next_multiple_of(BLOCK), 0);
    }
    // Two empty blocks end an archive.
    out.resize(out.len() + 2 * BLOCK, 0);
    out
}

/// A header of the ustar format: name at 0, mode at 100, owner at 108 and 116, size at 124, time at 136, checksum at 148,
/// type at 156, magic at 257. Numbers are octal text. Names are shorter than their 100 bytes.
fn header(name: &str, mode: u32, size: usize, kind: u8) -> [u8; BLOCK] {
    let mut block = [0u8; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| {
        for (slot, byte) in block[at..].iter_mut().zip(bytes) {
            *slot = *byte;
        }
    };
    put(0, name.as_bytes());
    put(100, format!("{mode:07o}\0").as_bytes());
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, b"00000000000\0");
    put(148, b"        ");
    put(156, &[kind]);
    put(257, b"ustar\x0000");
    put(265, b"root\0");
    put(297, b"root\0");
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    for (slot, byte) in block[148..].iter_mut().zip(format!("{sum:06o}\0 ").bytes()) {
        *slot = byte;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(archive: &[u8]) -> std::path::PathBuf {
        use std::io::Write as _;
        let dir = tempfile::tempdir().unwrap().keep();
        let mut tar = std::process::Command::new("tar")
            .args(["-x", "--no-same-owner", "-p", "-C"])
            .arg(&dir)
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        tar.stdin.take().unwrap().write_all(archive).unwrap();
        assert!(tar.wait().unwrap().success());
        dir
    }

    #[test]
    fn tar_unpacks_what_was_packed_with_its_modes() {
        use std::os::unix::fs::PermissionsExt as _;
        let long: Vec<u8> = (0..70_000u32).map(|i| i as u8).collect();
        let dir = unpacked(&archive(&[
            Entry { name: "sshd", mode: 0o700, content: &long },
            Entry { name: "user_key", mode: 0o600, content: b"ssh-ed25519 AAAA '$(id)' \"x\"\n" },
            Entry { name: "terminal_key", mode: 0o600, content: b"" },
        ]));
        let folder = dir.join(".compute");
        let mode = |path: &std::path::Path| path.metadata().unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(std::fs::read(folder.join("sshd")).unwrap(), long);
        assert_eq!(mode(&folder.join("sshd")), 0o700);
        assert_eq!(std::fs::read(folder.join("user_key")).unwrap(), b"ssh-ed25519 AAAA '$(id)' \"x\"\n");
        assert_eq!(mode(&folder.join("user_key")), 0o600);
        assert_eq!(std::fs::read(folder.join("terminal_key")).unwrap(), b"");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
