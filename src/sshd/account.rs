//! Whose login it is: what the image's `/etc/passwd` says of the user that this process runs as, and which shell there is.

use std::path::{Path, PathBuf};

use super::read_bounded;

/// Shells that are looked for where `/etc/passwd` names none that is there, the first that is there wins.
const SHELLS: [&str; 3] = ["/bin/bash", "/bin/sh", "/bin/ash"];
/// Names of programs that stand in `/etc/passwd` to keep people out. Who rents a container is to get in.
const NO_SHELLS: [&str; 2] = ["nologin", "false"];
/// The most of `/etc/passwd` that is read, in bytes.
const MOST: u64 = 1 << 20;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The name.
    pub(crate) name: String,
    /// The home directory, absolute.
    pub(crate) home: PathBuf,
    /// The shell, absolute; `None` where none is named, or one that keeps people out.
    pub(crate) shell: Option<PathBuf>,
}

/// The first entry with this user id. Lines that are none are passed over.
pub(crate) fn find(passwd: &str, uid: u32) -> Option<Entry> {
    passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, id, _, _, home, shell] = fields[..] else { return None };
        let absolute = |text: &str| Some(PathBuf::from(text)).filter(|path| path.is_absolute());
        if name.is_empty() || id.parse() != Ok(uid) {
            return None;
        }
        let keeps_out = |path: &PathBuf| path.file_name().is_some_and(|name| NO_SHELLS.iter().any(|no| name == *no));
        Some(Entry {
            name: name.to_owned(),
            home: absolute(home).unwrap_or_else(|| "/".into()),
            shell: absolute(shell.trim_end()).filter(|path| !keeps_out(path)),
        })
    })
}

/// Who logs in, as far as the image says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Account {
    /// The name: that of `/etc/passwd`, else `root`.
    pub(crate) name: String,
    /// The home directory, which need not be there.
    pub(crate) home: PathBuf,
    /// A shell that is there; `None` in an image without any.
    pub(crate) shell: Option<PathBuf>,
}

impl Account {
    /// Looks at the image as it is now: a renter may install a shell and name it in `/etc/passwd`. Blocks.
    pub(crate) fn look_up() -> Self {
        let uid = rustix::process::geteuid().as_raw();
        let passwd = read_bounded(Path::new("/etc/passwd"), MOST).unwrap_or_default();
        let entry = find(&String::from_utf8_lossy(&passwd), uid);
        // What the container's engine took from the image, where there is no `/etc/passwd`.
        let home = std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let (name, home, wanted) = match entry {
            Some(entry) => (entry.name, entry.home, entry.shell),
            None => ("root".to_owned(), home.unwrap_or_else(|| "/".into()), None),
        };
        let shell = wanted.into_iter().chain(SHELLS.map(PathBuf::from)).find(|path| is_program(path));
        Self { name, home, shell }
    }

    /// Whether this name may log in: that of the account, and `root`, whatever the image calls it.
    pub(crate) fn is_called(&self, user: &str) -> bool {
        user == "root" || user == self.name
    }
}

fn is_program(path: &Path) -> bool {
    path.is_file() && rustix::fs::access(path, rustix::fs::Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\nbroken:0\n:x:7:7::/:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/usr/sbin/nologin\n\
                          app:x:1000:1000:,,,:home/app:\nbig:x:4294967296:0::/:/bin/sh\n";

    #[test]
    fn the_entry_of_a_user_is_found() {
        let root = Entry { name: "root".into(), home: "/root".into(), shell: Some("/bin/bash".into()) };
        assert_eq!(find(PASSWD, 0), Some(root));
        assert_eq!(find(PASSWD, 5), None);
        assert_eq!(find(PASSWD, 7), None, "an entry without a name is none");
        assert_eq!(find("", 0), None);
    }

    #[test]
    fn a_shell_that_keeps_people_out_is_none() {
        assert_eq!(find(PASSWD, 33).unwrap().shell, None);
    }

    #[test]
    fn a_home_that_is_no_place_is_the_root() {
        let app = find(PASSWD, 1000).unwrap();
        assert_eq!((app.home, app.shell), (PathBuf::from("/"), None));
    }

    #[test]
    fn root_may_always_log_in_and_the_account_by_its_name() {
        let account = Account { name: "app".into(), home: "/".into(), shell: None };
        assert!(account.is_called("root") && account.is_called("app"));
        assert!(!account.is_called("App") && !account.is_called(""));
    }
}
