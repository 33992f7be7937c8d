//! What a session's programs find in their environment.

use std::ffi::OsString;
use std::path::Path;

use super::account::Account;

/// Where programs are looked for if the image says nothing.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a client may not set: what says who logs in and where programs come from, and what the loader of programs reads.
const REFUSED: [&str; 6] = ["HOME", "LOGNAME", "PATH", "SHELL", "USER", "GLIBC_TUNABLES"];
const REFUSED_PREFIXES: [&str; 3] = ["LD_", "SSH_", "MALLOC_"];
/// The longest name and value of a variable that a client sets, in bytes.
const LONGEST: (usize, usize) = (256, 32 << 10);
/// How many variables a client may set for a session.
const MOST: usize = 128;

/// Whether a client may set this variable, as one of so many. `LANG` and `LC_…` it may.
pub(crate) fn may_set(name: &str, value: &str, already: usize) -> bool {
    let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|b| !b.is_ascii_digit());
    let refused = REFUSED.contains(&name) || REFUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    already < MOST
        && is_name
        && !refused
        && name.len() <= LONGEST.0
        && value.len() <= LONGEST.1
        && !value.contains('\0')
}

/// What is known of a session when its program is started.
#[derive(Debug, Clone)]
pub(crate) struct Login<'a> {
    /// Who logs in.
    pub(crate) account: &'a Account,
    /// As in `SSH_CONNECTION`: address and port of the client, address and port of this server.
    pub(crate) connection: &'a [String; 4],
    /// The kind of the client's terminal and the path of its own, if it asked for one.
    pub(crate) terminal: Option<(&'a str, &'a Path)>,
    /// What the client has set, checked with [`may_set`].
    pub(crate) set: &'a [(String, String)],
}

/// The variables of a session's program. The image's own come first, as this process has them; who logs in is said over
/// them, and what the client sets over that.
pub(crate) fn of(login: &Login<'_>, image: impl Iterator<Item = (OsString, OsString)>) -> Vec<(OsString, OsString)> {
    let mut all: Vec<(OsString, OsString)> =
        image.filter(|(name, _)| !name.as_encoded_bytes().starts_with(b"SSH_")).collect();
    let mut set = |name: &str, value: OsString| match all.iter_mut().find(|(there, _)| there == name) {
        Some(there) => there.1 = value,
        None => all.push((name.into(), value)),
    };
    let Account { name, home, shell } = login.account;
    set("USER", name.into());
    set("LOGNAME", name.into());
    set("HOME", home.into());
    if let Some(shell) = shell {
        set("SHELL", shell.into());
    }
    let [client, client_port, server, server_port] = login.connection;
    set("SSH_CONNECTION", format!("{client} {client_port} {server} {server_port}").into());
    set("SSH_CLIENT", format!("{client} {client_port} {server_port}").into());
    for (name, value) in login.set {
        set(name, value.into());
    }
    if let Some((kind, path)) = login.terminal {
        set("TERM", kind.into());
        set("SSH_TTY", path.into());
    }
    if !all.iter().any(|(name, _)| name == "PATH") {
        all.push(("PATH".into(), PATH.into()));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(
        image: &[(&str, &str)],
        set: &[(&str, &str)],
        terminal: Option<(&str, &Path)>,
    ) -> Vec<(String, String)> {
        let account = Account { name: "root".into(), home: "/root".into(), shell: Some("/bin/ash".into()) };
        let connection = ["10.0.0.9", "4000", "172.17.0.2", "22"].map(str::to_owned);
        let set: Vec<_> = set.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        let login = Login { account: &account, connection: &connection, terminal, set: &set };
        let image = image.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let text = |text: OsString| text.into_string().unwrap();
        of(&login, image).into_iter().map(|(name, value)| (text(name), text(value))).collect()
    }

    #[test]
    fn a_login_finds_what_the_image_sets_and_who_it_is() {
        let all = environment(
            &[
                ("PATH", "/opt/cuda/bin:/bin"),
                ("HOME", "/"),
                ("NVIDIA_VISIBLE_DEVICES", "all"),
                ("SSH_AUTH_SOCK", "/x"),
            ],
            &[("LANG", "de_DE.UTF-8")],
            Some(("xterm", Path::new("/dev/pts/3"))),
        );
        let has = |name: &str| all.iter().filter(|(n, _)| n == name).map(|(_, v)| v.as_str()).collect::<Vec<_>>();
        assert_eq!(has("PATH"), ["/opt/cuda/bin:/bin"]);
        assert_eq!(has("NVIDIA_VISIBLE_DEVICES"), ["all"]);
        assert_eq!((has("HOME"), has("USER"), has("SHELL")), (vec!["/root"], vec!["root"], vec!["/bin/ash"]));
        assert_eq!(
            (has("TERM"), has("SSH_TTY"), has("LANG")),
            (vec!["xterm"], vec!["/dev/pts/3"], vec!["de_DE.UTF-8"])
        );
        assert_eq!(has("SSH_CONNECTION"), ["10.0.0.9 4000 172.17.0.2 22"]);
        assert_eq!(has("SSH_AUTH_SOCK"), [""; 0]);
    }

    #[test]
    fn an_image_that_sets_nothing_still_has_a_path() {
        assert!(environment(&[], &[], None).contains(&("PATH".into(), PATH.into())));
    }

    #[test]
    fn a_client_sets_its_language_and_its_own_variables() {
        for name in ["LANG", "LC_ALL", "TERM", "WANDB_API_KEY", "_x1"] {
            assert!(may_set(name, "value", 0), "{name}");
        }
    }

    #[test]
    fn a_client_does_not_set_what_programs_are_found_and_loaded_by() {
        for name in ["PATH", "HOME", "SHELL", "USER", "LD_PRELOAD", "SSH_TTY", "", "1A", "A B", "A=B", "Ä", "A\0"] {
            assert!(!may_set(name, "value", 0), "{name}");
        }
        assert!(
            !may_set("A", "a\0b", 0)
                && !may_set("A", &"x".repeat(LONGEST.1 + 1), 0)
                && !may_set(&"A".repeat(257), "", 0)
        );
        assert!(!may_set("A", "", MOST), "no more than {MOST}");
    }
}
