//! The credentials of a rental, hidden from everybody but the renter: base64 of RSA-OAEP (SHA-256 throughout, no label)
//! under the key that the renter sent.
//!
//! What the envelope is worth: it keeps the credentials from whoever only listens. Under the classic scheme a body is not
//! authenticated, so whoever can change bodies on their way can put its own key in, see [`crate::actors::miner::original`].

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsa::pkcs8::{Document, SubjectPublicKeyInfoRef};
use rsa::rand_core::OsRng;
use rsa::traits::PublicKeyParts as _;
use rsa::{BigUint, Oaep, RsaPublicKey, pkcs1};
use secrecy::zeroize::Zeroizing;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};

/// The longest PEM text that is read, in bytes (a key of 8192 bits has about 1,450).
pub const MAX_PEM: usize = 8 * 1024;
/// The shortest modulus that is used, in bits.
pub const MIN_BITS: usize = 2048;
/// The longest modulus that is used, in bits.
pub const MAX_BITS: usize = 8192;

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
        Ok(Credentials { password: SecretString::from(password.as_str()), port })
    }

    /// The text that callers expect in the envelope. Must not reach a log.
    fn expose_json(&self) -> Zeroizing<String> {
        // The password's letters need no escapes.
        let (password, port) = (self.password.expose_secret(), self.port);
        Zeroizing::new(format!(
            r#"{{"username": "root", "password": "{password}", "port": {port}, "version": {VERSION}}}"#
        ))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials(port {}, redacted)", self.port)
    }
}
