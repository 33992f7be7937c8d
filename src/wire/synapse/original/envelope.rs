//! The credentials of a rental, hidden from everybody but the renter, and opened by it: base64 of RSA-OAEP (SHA-256 throughout, no label)
//! under the key that the renter sent.
//!
//! What the envelope is worth: it keeps the credentials from whoever only listens. Under the classic scheme a body is not
//! authenticated, so whoever can change bodies on their way can put its own key in, see [`crate::actors::miner::original`].

use std::fmt;

use argon2::{Algorithm, Argon2, Block, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use rsa::pkcs8::{Document, EncodePublicKey as _, LineEnding, SubjectPublicKeyInfoRef};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Oaep, RsaPrivateKey, RsaPublicKey, pkcs1};
use russh::keys::HashAlg;
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use super::PublicKey;

/// The longest PEM text that is read, in bytes (a key of 8192 bits has about 1,450).
pub const MAX_PEM: usize = 8 * 1024;
/// The shortest modulus that is used, in bits.
pub const MIN_BITS: usize = 2048;
/// The longest modulus that is used, in bits.
pub const MAX_BITS: usize = 8192;

/// The cost of a password's hash: OWASP's first choice for Argon2id. A password has 119 bits, so it only has to be there.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// What the original writes as its version, and callers compare with their own: 1.8.3.
pub const VERSION: u32 = 183;

/// Why credentials cannot be sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// There is no key.
    #[error("no public key was sent")]
    NoKey,
    /// More text than a key has.
    #[error("the public key has {0} bytes, at most {MAX_PEM} are read")]
    TooLong(usize),
    /// Not an RSA public key in PEM.
    #[error("the public key is no RSA key in PEM: {0}")]
    NoRsaKey(String),
    /// Too weak, or too large to be worth the time.
    #[error("the public key has {0} bits, {MIN_BITS} to {MAX_BITS} are used")]
    Bits(usize),
    /// More than one block of this key holds.
    #[error("the credentials have {length} bytes, the key hides at most {most}")]
    Credentials {
        /// Bytes to hide.
        length: usize,
        /// What the key can hide.
        most: usize,
    },
    /// The key does not encrypt.
    #[error("the public key does not encrypt: {0}")]
    Encrypt(String),
}

/// A renter's RSA key, fit for use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CallerKey(RsaPublicKey);

impl CallerKey {
    /// Reads PEM text, as SubjectPublicKeyInfo (`BEGIN PUBLIC KEY`) or as PKCS #1 (`BEGIN RSA PUBLIC KEY`).
    ///
    /// # Errors
    /// All of [`EnvelopeError`] but the last two.
    pub fn read(pem: &str) -> Result<Self, EnvelopeError> {
        let pem = pem.trim();
        if pem.is_empty() {
            return Err(EnvelopeError::NoKey);
        }
        if pem.len() > MAX_PEM {
            return Err(EnvelopeError::TooLong(pem.len()));
        }
        let (label, document) = Document::from_pem(pem).map_err(|e| EnvelopeError::NoRsaKey(e.to_string()))?;
        let der = document.as_bytes();
        let (n, e) = match label {
            "PUBLIC KEY" => of_spki(der),
            "RSA PUBLIC KEY" => of_pkcs1(der),
            _ => return Err(EnvelopeError::NoRsaKey("it is labelled as something else".to_owned())),
        }
        .map_err(EnvelopeError::NoRsaKey)?;
        if !(MIN_BITS..=MAX_BITS).contains(&n.bits()) {
            return Err(EnvelopeError::Bits(n.bits()));
        }
        // Checks the exponent and that both are odd.
        RsaPublicKey::new_with_max_size(n, e, MAX_BITS)
            .map(CallerKey)
            .map_err(|e| EnvelopeError::NoRsaKey(e.to_string()))
    }

    /// The most bytes that this key hides: 190 at 2048 bits.
    pub fn capacity(&self) -> usize {
        // OAEP takes two hashes and two bytes.
        self.0.size().saturating_sub(2 * Sha256::output_size() + 2)
    }

    /// Hides `credentials`: what stands as `info` in the reply.
    ///
    /// # Errors
    /// [`EnvelopeError::Credentials`] or [`EnvelopeError::Encrypt`].
    pub fn seal(&self, credentials: &Credentials) -> Result<String, EnvelopeError> {
        let text = credentials.expose_json();
        let (length, most) = (text.len(), self.capacity());
        if length > most {
            return Err(EnvelopeError::Credentials { length, most });
        }
        let hidden = self.0.encrypt(&mut OsRng, Oaep::new::<Sha256>(), text.as_bytes());
        hidden.map(|bytes| STANDARD.encode(bytes)).map_err(|e| EnvelopeError::Encrypt(e.to_string()))
    }
}

/// A renter's key pair, made for one rental.
///
/// One envelope is opened with it, and nobody sees how long that takes: timing tells nothing of the key (RUSTSEC-2023-0071).
pub struct RenterKey {
    private: RsaPrivateKey,
    public: PublicKey,
}

/// Why an envelope tells no login.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// No base64, or longer than any envelope.
    #[error("the envelope is no base64 of at most {MAX_ENVELOPE} bytes")]
    Text,
    /// Not made for this key, or altered.
    #[error("the envelope does not open with the key that was sent")]
    Key,
    /// What is in it is no JSON with a user, a password and a port.
    #[error("the envelope holds no login")]
    Content,
}

/// The longest envelope that is read, in characters.
const MAX_ENVELOPE: usize = 4 * 1024;

/// What an envelope tells a renter.
#[derive(Clone, Deserialize)]
pub struct OpenedLogin {
    /// The user; the original knows `root` only.
    pub username: String,
    /// The password; empty for a miner that takes keys only.
    pub password: SecretString,
    /// The SSH server's port.
    pub port: u16,
}

impl fmt::Debug for OpenedLogin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OpenedLogin({} at port {}, redacted)", self.username, self.port)
    }
}

impl RenterKey {
    /// A fresh key of [`MIN_BITS`], as the original's callers make them. Takes a second or so, so not on an actor's thread.
    ///
    /// # Errors
    /// [`EnvelopeError::Encrypt`], if the key cannot be made or written.
    pub fn generate() -> Result<Self, EnvelopeError> {
        let wrong = |error: String| EnvelopeError::Encrypt(error);
        let private = RsaPrivateKey::new(&mut OsRng, MIN_BITS).map_err(|e| wrong(e.to_string()))?;
        let public = private.to_public_key().to_public_key_pem(LineEnding::LF).map_err(|e| wrong(e.to_string()))?;
        Ok(RenterKey { private, public: PublicKey(public) })
    }

    /// The half that is sent, and that owns the rental.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Opens the `info` of a reply.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(&self, info: &str) -> Result<OpenedLogin, OpenError> {
        if info.len() > MAX_ENVELOPE {
            return Err(OpenError::Text);
        }
        let hidden = STANDARD.decode(info.trim()).map_err(|_| OpenError::Text)?;
        let opened = self.private.decrypt_blinded(&mut OsRng, Oaep::new::<Sha256>(), &hidden);
        let opened = Zeroizing::new(opened.map_err(|_| OpenError::Key)?);
        serde_json::from_slice(&opened).map_err(|_| OpenError::Content)
    }
}

impl fmt::Debug for RenterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RenterKey(redacted)")
    }
}

fn of_spki(der: &[u8]) -> Result<(BigUint, BigUint), String> {
    let info = SubjectPublicKeyInfoRef::try_from(der).map_err(|e| e.to_string())?;
    info.algorithm.assert_algorithm_oid(pkcs1::ALGORITHM_OID).map_err(|e| e.to_string())?;
    of_pkcs1(info.subject_public_key.as_bytes().ok_or("its bits are no bytes")?)
}

fn of_pkcs1(der: &[u8]) -> Result<(BigUint, BigUint), String> {
    let key = pkcs1::RsaPublicKey::try_from(der).map_err(|e| e.to_string())?;
    let number = |n: pkcs1::UintRef<'_>| BigUint::from_bytes_be(n.as_bytes());
    Ok((number(key.modulus), number(key.public_exponent)))
}

/// How a renter logs in.
#[derive(Clone)]
pub struct Credentials {
    password: SecretString,
    port: u16,
    host_key: Option<String>,
}

/// Why a password cannot be hashed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HashError {
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness: {0}")]
    Randomness(String),
    /// Argon2 refuses, which it does for none of our parameters.
    #[error("the password cannot be hashed: {0}")]
    Argon2(String),
}

impl Credentials {
    /// Characters of a password: the original has 10, any number is accepted.
    const PASSWORD: usize = 20;

    /// A fresh password for `root` at the SSH server on `port`.
    ///
    /// # Errors
    /// If the operating system gives no randomness.
    pub fn generate(port: u16) -> Result<Self, getrandom::Error> {
        const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
        // Of 256 values 248 are four for each letter; the others are thrown away, so that all letters are as likely.
        let mut password = Zeroizing::new(String::with_capacity(Self::PASSWORD));
        let mut random = Zeroizing::new([0u8; 32]);
        while password.len() < Self::PASSWORD {
            getrandom::fill(random.as_mut_slice())?;
            let usable = random.iter().map(|b| usize::from(*b)).filter(|b| *b < LETTERS.len() * 4);
            let room = Self::PASSWORD - password.len();
            password.extend(usable.take(room).map(|b| char::from(LETTERS[b % LETTERS.len()])));
        }
        Ok(Credentials { password: SecretString::from(password.as_str()), port, host_key: None })
    }

    /// For a renter that logs in with its key alone: there is no password.
    pub fn without_password(port: u16) -> Self {
        Credentials { password: SecretString::default(), port, host_key: None }
    }

    /// With the fingerprint of the SSH server's key (`SHA256:…`), where it is one: an old caller does not look at it, and
    /// another can.
    #[must_use]
    pub fn with_host_key(mut self, line: Option<&str>) -> Self {
        let key = line.and_then(|line| russh::keys::PublicKey::from_openssh(line).ok());
        self.host_key = key.map(|key| key.fingerprint(HashAlg::Sha256).to_string());
        self
    }

    /// What the container's SSH server is given of the password: a PHC string of Argon2id. Takes 19 MiB and some ten
    /// milliseconds, so not on an actor's thread.
    ///
    /// # Errors
    /// [`HashError`].
    pub fn password_hash(&self) -> Result<String, HashError> {
        let wrong = |e: argon2::Error| HashError::Argon2(e.to_string());
        let mut salt = [0u8; 16];
        getrandom::fill(&mut salt).map_err(|e| HashError::Randomness(e.to_string()))?;
        let params = Params::new(MEMORY_KIB, PASSES, LANES, Some(32)).map_err(wrong)?;
        let mut hash = Zeroizing::new([0u8; 32]);
        let mut memory = vec![Block::default(); params.block_count()];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(
                self.password.expose_secret().as_bytes(),
                &salt,
                hash.as_mut_slice(),
                &mut memory,
            )
            .map_err(wrong)?;
        let (salt, hash) = (STANDARD_NO_PAD.encode(salt), STANDARD_NO_PAD.encode(hash.as_slice()));
        Ok(format!("$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p={LANES}${salt}${hash}"))
    }

    /// The text that callers expect in the envelope. Must not reach a log.
    fn expose_json(&self) -> Zeroizing<String> {
        // The password's letters need no escapes.
        let (password, port) = (self.password.expose_secret(), self.port);
        // Nor do those of a fingerprint.
        let host_key = self.host_key.iter().map(|key| format!(r#", "host_key": "{key}""#)).collect::<String>();
        Zeroizing::new(format!(
            r#"{{"username": "root", "password": "{password}", "port": {port}, "version": {VERSION}{host_key}}}"#
        ))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(port {}, redacted)", self.port)
    }
}
