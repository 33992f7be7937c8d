//! Who may log in: the files that the miner keeps in the server's directory, read anew at each attempt.
//!
//! | file | content | absent |
//! |---|---|---|
//! | `host_key` | the server's private key, ed25519, as OpenSSH keeps it | the server does not start |
//! | `user_key` | the renter's public key | nobody logs in with it |
//! | `terminal_key` | a key that the renter let in for a while | nobody logs in with it |
//! | `password_hash` | an argon2id hash (PHC) of a password | no password lets anybody in |

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use argon2::password_hash::{PasswordHash, PasswordVerifier};
use argon2::{Algorithm, Argon2, Params};
use russh::keys::{PrivateKey, PublicKey};
use tokio::sync::Semaphore;

use super::{keys, log, read_bounded};

/// The most of any of the files that is read, in bytes.
const MOST: u64 = 64 << 10;
/// Passwords that are tried at once: each takes the memory that its hash asks for.
const TRIED_AT_ONCE: usize = 2;
/// The dearest hash that is computed: KiB of memory, passes.
const DEAREST: (u32, u32) = (64 << 10, 16);

/// The directory with the files.
#[derive(Debug, Clone)]
pub(crate) struct Access {
    dir: PathBuf,
    trying: Arc<Semaphore>,
}

impl Access {
    /// Who may log in is said in this directory.
    pub(crate) fn new(dir: PathBuf) -> Self {
        Self { dir, trying: Arc::new(Semaphore::new(TRIED_AT_ONCE)) }
    }

    /// The server's own key. Blocks.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is no private key without a passphrase. The text never has any of the key.
    pub(crate) fn host_key(&self) -> Result<PrivateKey, String> {
        let path = self.dir.join("host_key");
        let bytes = read_bounded(&path, MOST).map_err(|e| format!("{}: {e}", path.display()))?;
        match PrivateKey::from_openssh(&bytes) {
            Ok(key) if key.is_encrypted() => Err(format!("{}: it has a passphrase: make one without", path.display())),
            Ok(key) => Ok(key),
            Err(e) => Err(format!("{}: no private key of OpenSSH: {e}", path.display())),
        }
    }

    /// The name of the file that lets this key in, if one does.
    pub(crate) async fn finds(&self, key: &PublicKey) -> Option<&'static str> {
        let (this, key) = (self.clone(), key.key_data().clone());
        let found = tokio::task::spawn_blocking(move || {
            ["user_key", "terminal_key"].into_iter().find(|file| this.keys(file).iter().any(|k| *k.key_data() == key))
        });
        found.await.ok().flatten()
    }

    fn keys(&self, file: &'static str) -> Vec<PublicKey> {
        let text = match read_bounded(&self.dir.join(file), MOST) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Vec::new(),
            Err(e) => {
                log::say(format_args!("{file} cannot be read, so it lets nobody in: {e}"));
                return Vec::new();
            }
        };
        let (keys, bad) = keys::parse(&text);
        for (line, why) in bad.iter().take(3) {
            log::say(format_args!("{file}, line {line}, lets nobody in: {why}"));
        }
        keys
    }

    /// Whether there is a password at all.
    pub(crate) async fn takes_passwords(&self) -> bool {
        tokio::fs::try_exists(self.dir.join("password_hash")).await.unwrap_or(false)
    }

    /// Whether this is the password. Never where there is no hash of one.
    pub(crate) async fn opens(&self, password: &str) -> bool {
        let (this, password) = (self.clone(), password.to_owned());
        let Ok(_one_of_few) = self.trying.acquire().await else { return false };
        let tried = tokio::task::spawn_blocking(move || {
            let hash = match read_bounded(&this.dir.join("password_hash"), MOST) {
                Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
                Err(e) if e.kind() == io::ErrorKind::NotFound => return false,
                Err(e) => {
                    log::say(format_args!("password_hash cannot be read, so it lets nobody in: {e}"));
                    return false;
                }
            };
            verify(hash.trim(), &password).unwrap_or_else(|why| {
                log::say(format_args!("password_hash lets nobody in: {why}"));
                false
            })
        });
        tried.await.unwrap_or(false)
    }
}

/// Whether the password has this hash. The reason why there is no telling has nothing of the hash.
fn verify(hash: &str, password: &str) -> Result<bool, &'static str> {
    let hash = PasswordHash::new(hash).map_err(|_| "it is no hash in PHC form ($argon2id$v=19$m=…,t=…,p=…$…$…)")?;
    if Algorithm::try_from(hash.algorithm) != Ok(Algorithm::Argon2id) {
        return Err("it is of another kind than argon2id");
    }
    let params = Params::try_from(&hash).map_err(|_| "its parameters are none of argon2id")?;
    if params.m_cost() > DEAREST.0 || params.t_cost() > DEAREST.1 {
        return Err("it is too dear to compute: at most 65536 KiB of memory and 16 passes");
    }
    Ok(Argon2::default().verify_password(password.as_bytes(), &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use argon2::password_hash::{PasswordHasher, SaltString};
    use russh::keys::ssh_key::private::Ed25519Keypair;

    fn key(seed: u8) -> PrivateKey {
        Ed25519Keypair::from_seed(&[seed; 32]).into()
    }

    fn hash(password: &str, memory: u32, algorithm: Algorithm) -> String {
        let hasher = Argon2::new(algorithm, argon2::Version::V0x13, Params::new(memory, 1, 1, None).unwrap());
        hasher
            .hash_password(password.as_bytes(), &SaltString::encode_b64(b"salt of tests").unwrap())
            .unwrap()
            .to_string()
    }

    #[tokio::test]
    async fn a_key_lets_in_while_its_file_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::new(dir.path().into());
        let (mine, other) = (key(1), key(2));
        assert_eq!(access.finds(mine.public_key()).await, None);
        std::fs::write(dir.path().join("terminal_key"), mine.public_key().to_openssh().unwrap()).unwrap();
        assert_eq!(access.finds(mine.public_key()).await, Some("terminal_key"));
        assert_eq!(access.finds(other.public_key()).await, None);
        std::fs::write(dir.path().join("terminal_key"), other.public_key().to_openssh().unwrap()).unwrap();
        assert_eq!(access.finds(mine.public_key()).await, None);
    }

    #[tokio::test]
    async fn a_password_opens_only_while_there_is_a_hash_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::new(dir.path().into());
        assert!(!access.takes_passwords().await && !access.opens("").await);
        std::fs::write(dir.path().join("password_hash"), hash("right", 64, Algorithm::Argon2id) + "\n").unwrap();
        assert!(access.takes_passwords().await);
        assert!(access.opens("right").await);
        assert!(!access.opens("wrong").await && !access.opens("").await);
    }

    #[test]
    fn hashes_of_other_kinds_and_prices_open_nothing() {
        assert_eq!(verify(&hash("right", 64, Algorithm::Argon2id), "right"), Ok(true));
        for bad in ["", "right", "$argon2id$", "$6$salt$hash", &hash("right", 64, Algorithm::Argon2i)] {
            assert!(verify(bad, "right").is_err(), "{bad}");
        }
        let dear = hash("right", 64, Algorithm::Argon2id).replace("m=64", "m=4000000");
        assert_eq!(verify(&dear, "right"), Err("it is too dear to compute: at most 65536 KiB of memory and 16 passes"));
    }

    #[test]
    fn a_host_key_that_is_none_is_named_without_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let access = Access::new(dir.path().into());
        assert!(access.host_key().unwrap_err().contains("host_key"));
        std::fs::write(dir.path().join("host_key"), "-----BEGIN SECRET").unwrap();
        let error = access.host_key().unwrap_err();
        assert!(error.contains("no private key") && !error.contains("SECRET"), "{error}");
        std::fs::write(dir.path().join("host_key"), key(1).to_openssh(Default::default()).unwrap()).unwrap();
        assert_eq!(access.host_key().unwrap().public_key(), key(1).public_key());
    }
}
