//! Where a wallet's files lie: `{wallet.path}/{name}/coldkeypub.txt` and `{wallet.path}/{name}/hotkeys/{hotkey}`.

use std::path::{Path, PathBuf};

/// Why a wallet's place cannot be named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WalletPathError {
    /// A wallet's or hotkey's name would leave its directory.
    #[error("{field} {name:?} is not a file name: use a name without slashes, other than . and ..")]
    Name {
        /// `wallet.name` or `wallet.hotkey`.
        field: &'static str,
        /// What was given.
        name: String,
    },
    /// The path starts with `~` and the home directory is not known.
    #[error("wallet.path {0:?} starts with ~ and HOME is not set: give the path in full")]
    NoHome(PathBuf),
}

/// The places of one wallet's files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalletPaths {
    wallet: PathBuf,
    hotkey: String,
}

impl WalletPaths {
    /// The wallet `name` under `path`, with the hotkey `hotkey`. A leading `~/` in `path` stands for `home`.
    ///
    /// # Errors
    /// [`WalletPathError`] if a name is no plain file name, or `~` has no meaning.
    pub fn new(path: &Path, name: &str, hotkey: &str, home: Option<&Path>) -> Result<Self, WalletPathError> {
        let root = match (path.strip_prefix("~"), home) {
            (Ok(rest), Some(home)) => home.join(rest),
            (Ok(_), None) => return Err(WalletPathError::NoHome(path.to_owned())),
            (Err(_), _) => path.to_owned(),
        };
        check("wallet.name", name)?;
        check("wallet.hotkey", hotkey)?;
        Ok(WalletPaths { wallet: root.join(name), hotkey: hotkey.to_owned() })
    }

    /// The hotkey's secret file.
    pub fn hotkey(&self) -> PathBuf {
        self.wallet.join("hotkeys").join(&self.hotkey)
    }

    /// The coldkey's public file.
    pub fn coldkeypub(&self) -> PathBuf {
        self.wallet.join("coldkeypub.txt")
    }
}

fn check(field: &'static str, name: &str) -> Result<(), WalletPathError> {
    if name.is_empty() || name == "." || name == ".." || name.contains(['/', '\\', '\0']) {
        return Err(WalletPathError::Name { field, name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_lie_where_other_bittensor_tools_look() {
        let paths = WalletPaths::new(Path::new("~/.bittensor/wallets"), "default", "hot1", Some(Path::new("/home/op")));
        let paths = paths.unwrap();
        assert_eq!(paths.hotkey(), Path::new("/home/op/.bittensor/wallets/default/hotkeys/hot1"));
        assert_eq!(paths.coldkeypub(), Path::new("/home/op/.bittensor/wallets/default/coldkeypub.txt"));
    }

    #[test]
    fn a_name_cannot_leave_its_directory() {
        for name in ["", ".", "..", "../x", "a/b", "/etc/passwd"] {
            let wrong = WalletPaths::new(Path::new("/w"), "default", name, None);
            assert_eq!(wrong, Err(WalletPathError::Name { field: "wallet.hotkey", name: name.to_owned() }));
            let wrong = WalletPaths::new(Path::new("/w"), name, "default", None);
            assert_eq!(wrong, Err(WalletPathError::Name { field: "wallet.name", name: name.to_owned() }));
        }
        assert!(matches!(WalletPaths::new(Path::new("~/w"), "a", "b", None), Err(WalletPathError::NoHome(_))));
    }
}
