//! Where a renter logs in, hidden from everybody but the caller of the request.
//!
//! The caller makes a key pair for one request and sends the public half ([`ReplyKey`]); the miner seals the login under
//! it ([`SealedLogin`]). Both travel in signed bodies, so nobody in between can put another key or another login in, and
//! who records the traffic can open nothing later: the secret half ([`ReplySecret`]) dies with the request.
//!
//! A sealed box is libsodium's `crypto_box_seal` (X25519, XSalsa20-Poly1305): peers in other languages have it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use crypto_box::{PublicKey, SecretKey};
use rsa::rand_core::OsRng;
use secrecy::zeroize::Zeroizing;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The longest login that is opened, in bytes.
const MAX_LOGIN: usize = 4 * 1024;
/// The longest text of a sealed login that is read: [`MAX_LOGIN`] and what sealing adds, in base64.
const MAX_SEALED: usize = (MAX_LOGIN + 48).div_ceil(3) * 4;

/// How a renter logs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// The user.
    pub user: String,
    /// The host, an IP address.
    pub host: String,
    /// The TCP port of the SSH server.
    pub port: u16,
    /// The server's public key, one line in OpenSSH's format. Whoever logs in accepts no other; `None` for a container of
    /// which it is not known.
    #[serde(default)]
    pub host_key: Option<String>,
}

/// Why a login cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// The key seals nothing.
    #[error("the login cannot be sealed for this reply key")]
    Seal,
    /// It was sealed for another key, or changed on its way.
    #[error("the login was not sealed for this request")]
    NotOurs,
    /// What was sealed is no login.
    #[error("what was sealed is no login")]
    NoLogin,
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Randomness,
}

/// The public half of a request's key pair: 64 hex digits on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReplyKey(#[serde(with = "hex::serde")] [u8; 32]);

impl ReplyKey {
    /// The login, for the holder of the secret half alone.
    ///
    /// # Errors
    /// [`LoginError::Seal`].
    pub fn seal(&self, login: &Login) -> Result<SealedLogin, LoginError> {
        let text = serde_json::to_vec(login).map_err(|_| LoginError::Seal)?;
        let sealed = PublicKey::from_bytes(self.0).seal(&mut OsRng, &text).map_err(|_| LoginError::Seal)?;
        Ok(SealedLogin(sealed))
    }
}

/// The secret half. It lives as long as the request; never printed, wiped when dropped.
pub struct ReplySecret(SecretKey);

impl ReplySecret {
    /// A pair for one request.
    ///
    /// # Errors
    /// [`LoginError::Randomness`].
    pub fn generate() -> Result<Self, LoginError> {
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(bytes.as_mut_slice()).map_err(|_| LoginError::Randomness)?;
        Ok(ReplySecret(SecretKey::from_bytes(*bytes)))
    }

    /// What the request carries.
    pub fn public(&self) -> ReplyKey {
        ReplyKey(*self.0.public_key().as_bytes())
    }

    /// The login in a reply to that request.
    ///
    /// # Errors
    /// [`LoginError::NotOurs`] or [`LoginError::NoLogin`].
    pub fn open(&self, sealed: &SealedLogin) -> Result<Login, LoginError> {
        if sealed.0.len() > MAX_LOGIN + 48 {
            return Err(LoginError::NoLogin);
        }
        let text = self.0.unseal(&sealed.0).map_err(|_| LoginError::NotOurs)?;
        serde_json::from_slice(&text).map_err(|_| LoginError::NoLogin)
    }
}

impl fmt::Debug for ReplySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ReplySecret(redacted)")
    }
}

/// A [`Login`] that only the caller of the request can read: base64 on the wire.
#[derive(Clone, PartialEq, Eq)]
pub struct SealedLogin(Vec<u8>);

impl fmt::Debug for SealedLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SealedLogin({} bytes)", self.0.len())
    }
}

impl Serialize for SealedLogin {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for SealedLogin {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = String::deserialize(d)?;
        if text.len() > MAX_SEALED {
            return Err(D::Error::custom("a sealed login is shorter"));
        }
        STANDARD.decode(&text).map(SealedLogin).map_err(|_| D::Error::custom("a sealed login is base64"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login() -> Login {
        let host_key = Some("ssh-ed25519 AAAA".to_owned());
        Login { user: "root".into(), host: "192.0.2.1".into(), port: 4444, host_key }
    }

    #[test]
    fn only_the_caller_of_the_request_reads_the_login() {
        let (ours, other) = (ReplySecret::generate().unwrap(), ReplySecret::generate().unwrap());
        let key: ReplyKey = serde_json::from_str(&serde_json::to_string(&ours.public()).unwrap()).unwrap();
        assert_eq!(key, ours.public());
        let text = serde_json::to_string(&key.seal(&login()).unwrap()).unwrap();
        assert!(!text.contains("192.0.2.1"));
        let sealed: SealedLogin = serde_json::from_str(&text).unwrap();
        assert_eq!(ours.open(&sealed), Ok(login()));
        assert_eq!(other.open(&sealed), Err(LoginError::NotOurs));
        assert!(!format!("{ours:?}").contains(&hex::encode(ours.0.to_bytes())));
    }

    #[test]
    fn what_was_changed_on_its_way_or_is_no_login_is_refused() {
        let ours = ReplySecret::generate().unwrap();
        let SealedLogin(good) = ours.public().seal(&login()).unwrap();
        for i in 0..good.len() {
            let mut changed = good.clone();
            changed[i] ^= 1;
            assert_eq!(ours.open(&SealedLogin(changed)), Err(LoginError::NotOurs), "byte {i}");
        }
        for length in [0, 1, 31, 32, 47, 48] {
            assert_eq!(ours.open(&SealedLogin(good[..length].to_vec())), Err(LoginError::NotOurs), "{length} bytes");
        }
        assert_eq!(ours.open(&SealedLogin(vec![0; 1 << 20])), Err(LoginError::NoLogin));
        let other = PublicKey::from_bytes(ours.public().0).seal(&mut OsRng, b"{}").unwrap();
        assert_eq!(ours.open(&SealedLogin(other)), Err(LoginError::NoLogin));
        assert!(serde_json::from_str::<SealedLogin>("\"no base64!\"").is_err());
        assert!(serde_json::from_value::<SealedLogin>("A".repeat(MAX_SEALED + 4).into()).is_err());
    }
}
