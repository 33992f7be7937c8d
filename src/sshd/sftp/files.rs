//! What SFTP's requests do to files. Blocks.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{File, Metadata, ReadDir};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::fs::{self, AtFlags, CWD, Mode, OFlags, RenameFlags, StatVfs};

use super::attributes::{self, Wanted};
use super::packet::{
    ATTRS, CLOSE, Code, DATA, EXTENDED, EXTENDED_REPLY, FSETSTAT, FSTAT, Fields, HANDLE, INIT, LARGEST, LARGEST_DATA,
    LSTAT, MKDIR, Malformed, NAME, OPEN, OPENDIR, Packet, READ, READDIR, READLINK, REALPATH, REMOVE, RENAME, RMDIR,
    SETSTAT, STAT, STATUS, SYMLINK, VERSION, WRITE,
};

/// Files and directories that a client may have open at once.
const OPEN_AT_ONCE: usize = 256;
/// Entries of a directory in an answer.
const ENTRIES: usize = 100;
/// The version that is spoken.
const SPOKEN: u32 = 3;
/// Extensions of OpenSSH, and their versions.
const EXTENSIONS: [(&str, &str); 8] = [
    ("posix-rename@openssh.com", "1"),
    ("statvfs@openssh.com", "2"),
    ("fstatvfs@openssh.com", "2"),
    ("hardlink@openssh.com", "1"),
    ("fsync@openssh.com", "1"),
    ("lsetstat@openssh.com", "1"),
    ("limits@openssh.com", "1"),
    ("expand-path@openssh.com", "1"),
];

/// Why a request is not answered with what it asks for.
#[derive(Debug)]
enum Refused {
    /// The kernel says no.
    Io(io::Error),
    /// This server does.
    With(Code, &'static str),
}

impl From<io::Error> for Refused {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<rustix::io::Errno> for Refused {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Io(error.into())
    }
}

impl From<Malformed> for Refused {
    fn from(_: Malformed) -> Self {
        Self::With(Code::BadMessage, "the request makes no sense")
    }
}

impl Refused {
    fn status(&self) -> (Code, String) {
        match self {
            Self::With(code, text) => (*code, (*text).to_owned()),
            Self::Io(error) => {
                let code = match error.kind() {
                    io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Code::NoSuchFile,
                    io::ErrorKind::PermissionDenied => Code::PermissionDenied,
                    _ => Code::Failure,
                };
                let text = error.to_string();
                (code, text.split(" (os error").next().unwrap_or_default().to_owned())
            }
        }
    }
}

/// What a handle stands for.
#[derive(Debug)]
enum Opened {
    File { file: File, appends: bool },
    Directory(PathBuf, ReadDir),
}

/// A client's files.
#[derive(Debug)]
pub(crate) struct Files {
    home: PathBuf,
    opened: HashMap<u32, Opened>,
    next: u32,
}

impl Files {
    /// Nothing is open. Names that are not absolute are below `home`.
    pub(crate) fn new(home: PathBuf) -> Self {
        Self { home, opened: HashMap::new(), next: 0 }
    }

    /// The answer to a request, a packet with its length.
    pub(crate) fn answer(&mut self, request: &[u8]) -> Vec<u8> {
        let mut fields = Fields(request);
        let (Ok(kind), Ok(number)) = (fields.byte(), fields.number()) else {
            return status(0, Code::BadMessage, "a request without a number");
        };
        if kind == INIT {
            // The number is the client's version. Versions to come speak this one too.
            let mut version = Packet::new(VERSION, SPOKEN);
            for (name, value) in EXTENSIONS {
                version.bytes(name.as_bytes()).bytes(value.as_bytes());
            }
            return version.finish();
        }
        self.try_answer(kind, number, &mut fields).unwrap_or_else(|refused| {
            let (code, text) = refused.status();
            status(number, code, &text)
        })
    }

    fn try_answer(&mut self, kind: u8, number: u32, fields: &mut Fields<'_>) -> Result<Vec<u8>, Refused> {
        let done = || Ok(status(number, Code::Ok, ""));
        match kind {
            OPEN => {
                let (path, flags, wanted) = (self.path(fields)?, fields.number()?, Wanted::read(fields)?);
                let flags = attributes::open_flags(flags)?;
                let file = fs::open(path, flags, wanted.mode().unwrap_or(Mode::from_raw_mode(0o666)))?;
                let opened = Opened::File { file: file.into(), appends: flags.contains(OFlags::APPEND) };
                self.keep(number, opened)
            }
            OPENDIR => {
                let path = self.path(fields)?;
                let entries = std::fs::read_dir(&path)?;
                self.keep(number, Opened::Directory(path, entries))
            }
            CLOSE => {
                let handle = handle(fields)?;
                self.opened.remove(&handle).ok_or(NO_HANDLE)?;
                done()
            }
            READ => {
                let ((file, _), offset, length) = (self.file(fields)?, fields.long()?, fields.number()?);
                read(number, file, offset, length)
            }
            WRITE => {
                let ((file, appends), offset, data) = (self.file(fields)?, fields.long()?, fields.bytes()?);
                if appends {
                    io::Write::write_all(&mut &*file, data)?;
                } else {
                    file.write_all_at(data, offset)?;
                }
                done()
            }
            READDIR => self.read_dir(number, fields),
            STAT => Ok(attributes_of(number, &std::fs::metadata(self.path(fields)?)?)),
            LSTAT => Ok(attributes_of(number, &std::fs::symlink_metadata(self.path(fields)?)?)),
            FSTAT => Ok(attributes_of(number, &self.file(fields)?.0.metadata()?)),
            SETSTAT => {
                let (path, wanted) = (self.path(fields)?, Wanted::read(fields)?);
                change(&path, &wanted, AtFlags::empty())?;
                done()
            }
            FSETSTAT => {
                let ((file, _), wanted) = (self.file(fields)?, Wanted::read(fields)?);
                change_open(file, &wanted)?;
                done()
            }
            REMOVE => {
                std::fs::remove_file(self.path(fields)?)?;
                done()
            }
            MKDIR => {
                let (path, wanted) = (self.path(fields)?, Wanted::read(fields)?);
                fs::mkdir(path, wanted.mode().unwrap_or(Mode::from_raw_mode(0o777)))?;
                done()
            }
            RMDIR => {
                std::fs::remove_dir(self.path(fields)?)?;
                done()
            }
            REALPATH => Ok(name(number, real(&self.path(fields)?)?.as_os_str())),
            RENAME => {
                rename(&self.path(fields)?, &self.path(fields)?)?;
                done()
            }
            READLINK => Ok(name(number, std::fs::read_link(self.path(fields)?)?.as_os_str())),
            SYMLINK => {
                // In this order in all servers and clients since OpenSSH's, though the draft has it the other way round.
                let target = fields.bytes()?;
                std::os::unix::fs::symlink(OsStr::from_bytes(target), self.path(fields)?)?;
                done()
            }
            EXTENDED => self.extended(number, fields),
            _ => Err(Refused::With(Code::Unsupported, "an unknown request")),
        }
    }

    fn extended(&mut self, number: u32, fields: &mut Fields<'_>) -> Result<Vec<u8>, Refused> {
        let done = || Ok(status(number, Code::Ok, ""));
        match fields.bytes()? {
            b"posix-rename@openssh.com" => {
                std::fs::rename(self.path(fields)?, self.path(fields)?)?;
                done()
            }
            b"hardlink@openssh.com" => {
                std::fs::hard_link(self.path(fields)?, self.path(fields)?)?;
                done()
            }
            b"fsync@openssh.com" => {
                self.file(fields)?.0.sync_all()?;
                done()
            }
            b"lsetstat@openssh.com" => {
                let (path, wanted) = (self.path(fields)?, Wanted::read(fields)?);
                change(&path, &wanted, AtFlags::SYMLINK_NOFOLLOW)?;
                done()
            }
            b"statvfs@openssh.com" => Ok(file_system(number, &fs::statvfs(self.path(fields)?)?)),
            b"fstatvfs@openssh.com" => Ok(file_system(number, &fs::fstatvfs(self.file(fields)?.0)?)),
            b"limits@openssh.com" => {
                let mut reply = Packet::new(EXTENDED_REPLY, number);
                reply
                    .long(LARGEST as u64)
                    .long(LARGEST_DATA.into())
                    .long(LARGEST_DATA.into())
                    .long(OPEN_AT_ONCE as u64);
                Ok(reply.finish())
            }
            b"expand-path@openssh.com" => {
                let path = fields.bytes()?;
                let path = match path.strip_prefix(b"~") {
                    Some(b"") => self.home.clone(),
                    Some([b'/', below @ ..]) => self.home.join(OsStr::from_bytes(below)),
                    Some(_) => return Err(Refused::With(Code::NoSuchFile, "there is no home of other users")),
                    None => self.absolute(path)?,
                };
                Ok(name(number, real(&path)?.as_os_str()))
            }
            _ => Err(Refused::With(Code::Unsupported, "an unknown extension")),
        }
    }

    fn path(&self, fields: &mut Fields<'_>) -> Result<PathBuf, Refused> {
        self.absolute(fields.bytes()?)
    }

    fn absolute(&self, path: &[u8]) -> Result<PathBuf, Refused> {
        if path.contains(&0) {
            return Err(Refused::With(Code::NoSuchFile, "a name with a zero byte"));
        }
        Ok(self.home.join(OsStr::from_bytes(path)))
    }

    fn keep(&mut self, number: u32, opened: Opened) -> Result<Vec<u8>, Refused> {
        if self.opened.len() >= OPEN_AT_ONCE {
            return Err(Refused::With(Code::Failure, "too many open files"));
        }
        while self.opened.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let handle = self.next;
        self.next = self.next.wrapping_add(1);
        self.opened.insert(handle, opened);
        let mut reply = Packet::new(HANDLE, number);
        reply.bytes(&handle.to_be_bytes());
        Ok(reply.finish())
    }

    /// An open file, and whether it is only appended to.
    fn file(&self, fields: &mut Fields<'_>) -> Result<(&File, bool), Refused> {
        match self.opened.get(&handle(fields)?) {
            Some(Opened::File { file, appends }) => Ok((file, *appends)),
            Some(Opened::Directory(..)) => Err(Refused::With(Code::Failure, "the handle is a directory's")),
            None => Err(NO_HANDLE),
        }
    }

    fn read_dir(&mut self, number: u32, fields: &mut Fields<'_>) -> Result<Vec<u8>, Refused> {
        let Some(Opened::Directory(path, entries)) = self.opened.get_mut(&handle(fields)?) else {
            return Err(NO_HANDLE);
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs().cast_signed());
        let mut found = Vec::new();
        for entry in entries.take(ENTRIES) {
            let name = entry?.file_name();
            // One that is gone by now is none.
            if let Ok(metadata) = std::fs::symlink_metadata(path.join(&name)) {
                found.push((name, metadata));
            }
        }
        if found.is_empty() {
            return Err(Refused::With(Code::Eof, ""));
        }
        let mut reply = Packet::new(NAME, number);
        reply.number(u32::try_from(found.len()).unwrap_or_default());
        for (name, metadata) in found {
            let name = name.as_bytes();
            reply.bytes(name).bytes(&attributes::long_line(name, &metadata, now));
            attributes::write(&mut reply, &metadata);
        }
        Ok(reply.finish())
    }
}

const NO_HANDLE: Refused = Refused::With(Code::Failure, "there is no such handle");

fn handle(fields: &mut Fields<'_>) -> Result<u32, Refused> {
    fields.bytes()?.try_into().map(u32::from_be_bytes).map_err(|_| NO_HANDLE)
}

fn status(number: u32, code: Code, text: &str) -> Vec<u8> {
    let mut reply = Packet::new(STATUS, number);
    reply.number(code as u32).bytes(text.as_bytes()).bytes(b"");
    reply.finish()
}

fn name(number: u32, name: &OsStr) -> Vec<u8> {
    let mut reply = Packet::new(NAME, number);
    reply.number(1).bytes(name.as_bytes()).bytes(name.as_bytes()).number(0);
    reply.finish()
}

fn attributes_of(number: u32, metadata: &Metadata) -> Vec<u8> {
    let mut reply = Packet::new(ATTRS, number);
    attributes::write(&mut reply, metadata);
    reply.finish()
}

fn file_system(number: u32, of: &StatVfs) -> Vec<u8> {
    let mut reply = Packet::new(EXTENDED_REPLY, number);
    for value in
        [of.f_bsize, of.f_frsize, of.f_blocks, of.f_bfree, of.f_bavail, of.f_files, of.f_ffree, of.f_favail, of.f_fsid]
    {
        reply.long(value);
    }
    // Read-only and no set-user-ID are 1 and 2 for the kernel and here.
    reply.long(of.f_flag.bits() & 3).long(of.f_namemax);
    reply.finish()
}

fn read(number: u32, file: &File, offset: u64, length: u32) -> Result<Vec<u8>, Refused> {
    let mut data = vec![0; usize::try_from(length.min(LARGEST_DATA)).unwrap_or_default()];
    let mut read = 0;
    while read < data.len() {
        match file.read_at(&mut data[read..], offset.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(more) => read += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // What cannot be read at an offset is read as it comes, a FIFO for example.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::SPIPE.raw_os_error()) => {
                read = io::Read::read(&mut &*file, &mut data)?;
                break;
            }
            Err(error) => return Err(error.into()),
        }
    }
    if read == 0 && length > 0 {
        return Err(Refused::With(Code::Eof, ""));
    }
    let mut reply = Packet::new(DATA, number);
    reply.bytes(&data[..read]);
    Ok(reply.finish())
}

/// Renames a file to a name that is free: version 3 has no other way, clients use the extension to replace a file.
fn rename(from: &Path, to: &Path) -> Result<(), Refused> {
    match fs::renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // Not every file system can.
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if std::fs::symlink_metadata(to).is_err() => {
            Ok(std::fs::rename(from, to)?)
        }
        Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) => Err(rustix::io::Errno::EXIST.into()),
        done => Ok(done?),
    }
}

fn change(path: &Path, wanted: &Wanted, flags: AtFlags) -> Result<(), Refused> {
    if let Some(size) = wanted.size {
        // Never waits for the other end of a FIFO, which has no size either. Nor has a link.
        let mut how = OFlags::WRONLY | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        how.set(OFlags::NOFOLLOW, flags.contains(AtFlags::SYMLINK_NOFOLLOW));
        fs::ftruncate(fs::open(path, how, Mode::empty())?, size)?;
    }
    if let Some(mode) = wanted.mode() {
        if flags.is_empty() { fs::chmod(path, mode)? } else { fs::chmodat(CWD, path, mode, flags)? }
    }
    if let Some(times) = wanted.times() {
        fs::utimensat(CWD, path, &times, flags)?;
    }
    if let Some((user, group)) = wanted.owner() {
        fs::chownat(CWD, path, user, group, flags)?;
    }
    Ok(())
}

fn change_open(file: &File, wanted: &Wanted) -> Result<(), Refused> {
    if let Some(size) = wanted.size {
        file.set_len(size)?;
    }
    if let Some(mode) = wanted.mode() {
        fs::fchmod(file, mode)?;
    }
    if let Some(times) = wanted.times() {
        fs::futimens(file, &times)?;
    }
    if let Some((user, group)) = wanted.owner() {
        fs::fchown(file, user, group)?;
    }
    Ok(())
}

/// A path without links, `.` and `..`. Its last part need not be there, and below what is not there nothing is a link.
fn real(path: &Path) -> Result<PathBuf, Refused> {
    match std::fs::canonicalize(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let plain = without_dots(path);
            match (plain.parent().map(std::fs::canonicalize), plain.file_name()) {
                (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
                _ => Ok(plain),
            }
        }
        found => Ok(found?),
    }
}

fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::from("/");
    for part in path.components() {
        match part {
            Component::ParentDir => {
                plain.pop();
            }
            Component::Normal(name) => plain.push(name),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// Asks, and splits the answer into its kind and what follows its number.
    fn ask(files: &mut Files, kind: u8, fields: &[&[u8]]) -> (u8, Vec<u8>) {
        let reply = files.answer(&[&[kind, 0, 0, 0, 9][..], &fields.concat()].concat());
        assert_eq!(usize::try_from(u32::from_be_bytes(reply[..4].try_into().unwrap())).unwrap(), reply.len() - 4);
        assert_eq!(reply[5..9], [0, 0, 0, 9], "the answer is to another request");
        (reply[4], reply[9..].to_vec())
    }

    fn code(files: &mut Files, kind: u8, fields: &[&[u8]]) -> u32 {
        let (kind, rest) = ask(files, kind, fields);
        assert_eq!(kind, STATUS);
        u32::from_be_bytes(rest[..4].try_into().unwrap())
    }

    fn string(bytes: &[u8]) -> Vec<u8> {
        [&u32::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
    }

    fn open(files: &mut Files, name: &str, flags: u32) -> Vec<u8> {
        let (kind, handle) = ask(files, OPEN, &[&string(name.as_bytes()), &flags.to_be_bytes(), &[0; 4]]);
        assert_eq!(kind, HANDLE, "{name}");
        handle
    }

    #[test]
    fn a_file_is_written_read_and_closed() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().into());
        let handle = open(&mut files, "new", 0x1a);
        assert_eq!(code(&mut files, WRITE, &[&handle, &3u64.to_be_bytes(), &string(b"data")]), 0);
        assert_eq!(code(&mut files, CLOSE, &[&handle]), 0);
        assert_eq!(code(&mut files, CLOSE, &[&handle]), Code::Failure as u32);
        let handle = open(&mut files, "new", 1);
        let all = ask(&mut files, READ, &[&handle, &0u64.to_be_bytes(), &u32::MAX.to_be_bytes()]);
        assert_eq!(all, (DATA, string(b"\0\0\0data")));
        assert_eq!(code(&mut files, READ, &[&handle, &7u64.to_be_bytes(), &[0, 0, 1, 0]]), Code::Eof as u32);
        assert_eq!(code(&mut files, WRITE, &[&handle, &[0; 8], &string(b"x")]), Code::Failure as u32);
        assert_eq!(code(&mut files, OPEN, &[&string(b"new"), &[0, 0, 0, 0x2a], &[0; 4]]), Code::Failure as u32);
        assert_eq!(code(&mut files, OPEN, &[&string(b"none"), &[0, 0, 0, 1], &[0; 4]]), Code::NoSuchFile as u32);
    }

    #[test]
    fn names_that_are_no_text_are_listed_and_opened() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().into());
        std::fs::write(dir.path().join(OsStr::from_bytes(b"caf\xe9")), "x").unwrap();
        let (kind, handle) = ask(&mut files, OPENDIR, &[&string(b".")]);
        assert_eq!(kind, HANDLE);
        let (kind, names) = ask(&mut files, READDIR, &[&handle]);
        assert_eq!((kind, &names[..12]), (NAME, &[&[0, 0, 0, 1][..], &string(b"caf\xe9")].concat()[..]));
        assert_eq!(code(&mut files, READDIR, &[&handle]), Code::Eof as u32);
        assert_eq!(code(&mut files, REMOVE, &[&string(b"caf\xe9")]), 0);
        assert_eq!(code(&mut files, REMOVE, &[&string(b"a\0b")]), Code::NoSuchFile as u32);
    }

    #[test]
    fn a_rename_replaces_only_where_it_is_asked_to() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().into());
        for name in ["a", "b"] {
            std::fs::write(dir.path().join(name), name).unwrap();
        }
        assert_eq!(code(&mut files, RENAME, &[&string(b"a"), &string(b"b")]), Code::Failure as u32);
        assert_eq!(code(&mut files, RENAME, &[&string(b"a"), &string(b"c")]), 0);
        let replace = [string(b"posix-rename@openssh.com"), string(b"c"), string(b"b")].concat();
        assert_eq!(code(&mut files, EXTENDED, &[&replace]), 0);
        assert_eq!(std::fs::read(dir.path().join("b")).unwrap(), b"a");
    }

    #[test]
    fn attributes_change_as_asked_and_links_are_followed_or_not() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().into());
        std::fs::write(dir.path().join("file"), "12345").unwrap();
        assert_eq!(code(&mut files, SYMLINK, &[&string(b"file"), &string(b"link")]), 0);
        let wanted = [&[0, 0, 0, 13][..], &2u64.to_be_bytes(), &[0, 0, 1, 0o200], &[0, 0, 0, 7, 0, 0, 0, 8]].concat();
        assert_eq!(code(&mut files, SETSTAT, &[&string(b"link"), &wanted]), 0);
        let size = [&string(b"lsetstat@openssh.com")[..], &string(b"link"), &1u32.to_be_bytes(), &[0; 8]].concat();
        assert_eq!(code(&mut files, EXTENDED, &[&size]), Code::Failure as u32, "a link has no size");
        let metadata = std::fs::metadata(dir.path().join("file")).unwrap();
        assert_eq!((metadata.len(), metadata.permissions().mode() & 0o777), (2, 0o600 & 0o777));
        assert_eq!(std::os::unix::fs::MetadataExt::mtime(&metadata), 8);
        let is_link = |(kind, rest): (u8, Vec<u8>)| kind == ATTRS && rest[20..24] == 0o120_777u32.to_be_bytes();
        assert!(
            is_link(ask(&mut files, LSTAT, &[&string(b"link")]))
                && !is_link(ask(&mut files, STAT, &[&string(b"link")]))
        );
        assert_eq!(
            ask(&mut files, READLINK, &[&string(b"link")]).1[..12],
            [&[0, 0, 0, 1][..], &string(b"file")].concat()
        );
    }

    #[test]
    fn a_path_is_made_real_though_its_end_is_not_there() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().canonicalize().unwrap();
        let mut files = Files::new(home.clone());
        for (path, expected) in
            [(".", home.clone()), ("new", home.join("new")), ("a/../b/./c", home.join("b/c")), ("/../..", "/".into())]
        {
            let (kind, rest) = ask(&mut files, REALPATH, &[&string(path.as_bytes())]);
            let expected = string(expected.as_os_str().as_bytes());
            assert_eq!((kind, &rest[4..4 + expected.len()]), (NAME, &expected[..]), "{path}");
        }
    }

    #[test]
    fn no_more_files_are_open_than_the_bound() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().into());
        for _ in 0..OPEN_AT_ONCE {
            assert_eq!(ask(&mut files, OPENDIR, &[&string(b".")]).0, HANDLE);
        }
        assert_eq!(code(&mut files, OPENDIR, &[&string(b".")]), Code::Failure as u32);
    }

    #[test]
    fn a_fifo_without_another_end_does_not_hold_the_server_up() {
        let dir = tempfile::tempdir().unwrap();
        let mut files = Files::new(dir.path().into());
        let made = std::process::Command::new("mkfifo").arg(dir.path().join("fifo")).status().unwrap();
        assert!(made.success());
        let handle = open(&mut files, "fifo", 1);
        assert_eq!(code(&mut files, READ, &[&handle, &[0; 8], &[0, 0, 0, 9]]), Code::Eof as u32);
        assert_eq!(code(&mut files, CLOSE, &[&handle]), 0);
        assert_eq!(code(&mut files, OPEN, &[&string(b"fifo"), &[0, 0, 0, 2], &[0; 4]]), Code::Failure as u32);
        let to_a_size = [&1u32.to_be_bytes()[..], &[0; 8]].concat();
        assert_eq!(code(&mut files, SETSTAT, &[&string(b"fifo"), &to_a_size]), Code::Failure as u32);
    }

    proptest::proptest! {
        #[test]
        fn no_request_makes_it_panic(kind in 0u8.., rest in proptest::collection::vec(proptest::num::u8::ANY, 0..64)) {
            // Below a home that is not there, and with lengths that no name fits, no request changes anything.
            let mut files = Files::new("/nonexistent/home".into());
            files.answer(&[&[kind, 0, 0, 0, 9, 0, 0][..], &rest].concat());
            files.answer(&rest);
        }
    }
}
