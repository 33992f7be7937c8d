//! Timelock encryption: bytes that nobody reads before a round of the beacon [`quicknet`] is published.
//!
//! The scheme is Boneh and Franklin's `FullIdent` over BLS12-381 around AES-256-GCM, in the byte layout of the crate `tle`
//! of ideal-lab5/timelock, which the chain decrypts with. All numbers are little endian, "bytes" is a u64 length and the
//! data:
//!
//! | at | content |
//! |---|---|
//! | 0 | `u`, a point of G2, compressed: 96 |
//! | 96 | `v`, bytes of 32: sigma, masked by the pairing |
//! | 136 | `w`, bytes of 32: the key, masked by sigma |
//! | 176 | the body, bytes of the payload's length + 44: bytes of ciphertext and tag, then bytes of the 12-byte nonce |
//! | 236 + payload | the suite's name, bytes of 8: `AES_GCM_` |
//!
//! `r = sha256(sigma ‖ key) mod q`, `u = r·generator`, `v = sigma ⊕ sha256(e(identity, r·beacon's key))`,
//! `w = key ⊕ sha256(sigma)`. Whoever has the round's signature computes the same pairing as `e(signature, u)`, hence
//! sigma, the key and the payload, and `u` once more, which must be the same to the byte.
//!
//! # Invariants
//! - A ciphertext is [`OVERHEAD`] bytes longer than its payload and at most [`MAX_CIPHERTEXT`] long.
//! - No length in a ciphertext is believed: the layout follows from how much there is, and each stated length must agree.
//! - What [`decrypt`] gives is what was encrypted: each altered bit is an error.
//!
//! # Design notes
//! The arithmetic is not constant in time. A validator encrypts once an epoch with secrets that it uses once, and nobody
//! can have it encrypt at will.

use std::fmt;

use aes_gcm::aead::{Aead as _, KeyInit as _};
use aes_gcm::{Aes256Gcm, Key, Nonce};
use ark_bls12_381::{Bls12_381, Fr, G1Affine, G2Affine};
use ark_ec::pairing::{Pairing as _, PairingOutput};
use ark_ec::{AffineRepr as _, CurveGroup as _};
use ark_ff::PrimeField as _;
use ark_serialize::{CanonicalDeserialize as _, CanonicalSerialize as _};
use secrecy::zeroize::Zeroizing;
use sha2::{Digest as _, Sha256};

use super::quicknet::{self, SIGNATURE_BYTES};

/// Bytes of a ciphertext beyond its payload.
pub const OVERHEAD: usize = U + 2 * (LENGTH + 32) + LENGTH + BODY_EXTRA + LENGTH + SUITE.len();
/// The longest ciphertext that the chain takes: `MAX_CRV3_COMMIT_SIZE_BYTES` of pallet SubtensorModule.
pub const MAX_CIPHERTEXT: usize = 5000;
/// The longest payload; that of 256 weights has 1,069 bytes.
pub const MAX_PAYLOAD: usize = MAX_CIPHERTEXT - OVERHEAD;

const U: usize = 96;
const LENGTH: usize = 8;
const TAG: usize = 16;
const NONCE: usize = 12;
const BODY_EXTRA: usize = LENGTH + TAG + LENGTH + NONCE;
const SUITE: &[u8; 8] = b"AES_GCM_";
/// The bytes of an element of the target group.
const TARGET: usize = 576;

/// Why bytes could not be encrypted or decrypted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimelockError {
    /// The payload is too long for a commit.
    #[error("a payload of {0} bytes: the chain takes commits of up to {MAX_PAYLOAD}; send fewer weights")]
    PayloadTooLong(usize),
    /// Round 0.
    #[error("round 0: the beacon's first round is 1, nothing would ever open this")]
    Round,
    /// The ciphertext is shorter than an empty payload's, or longer than the chain takes.
    #[error("a ciphertext of {0} bytes, expected {OVERHEAD} to {MAX_CIPHERTEXT}")]
    Length(usize),
    /// A field does not have the length that it must have in a ciphertext of this size.
    #[error("the length of {field} at byte {at} is {stated}, in this ciphertext it can only be {expected}")]
    FieldLength {
        /// The field.
        field: &'static str,
        /// Where its length stands.
        at: usize,
        /// The length stated.
        stated: u64,
        /// The length that the layout leaves.
        expected: usize,
    },
    /// The body is not encrypted with AES-GCM.
    #[error("the cipher suite is {0}, expected AES_GCM_")]
    Suite(String),
    /// `u` is no point of its group.
    #[error("u at byte 0 is not a compressed point of G2")]
    Point,
    /// The signature is not the beacon's of the round.
    #[error("this is not quicknet's signature of round {0}; ask the beacon for that round again")]
    Signature(u64),
    /// The authentication failed.
    #[error("the ciphertext was altered, or made for another round than {0}")]
    Refused(u64),
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random(#[source] getrandom::Error),
}

/// The randomness of one encryption, wiped when it goes. Used twice it would give away what it hides, so that
/// [`encrypt`] takes it whole and it cannot be cloned.
pub struct TimelockSecrets {
    sigma: Zeroizing<[u8; 32]>,
    key: Zeroizing<[u8; 32]>,
    nonce: [u8; NONCE],
}

impl TimelockSecrets {
    /// These very secrets: sigma, the AES key, its nonce. For tests; each must be random and used once.
    pub fn new(sigma: [u8; 32], key: [u8; 32], nonce: [u8; 12]) -> Self {
        TimelockSecrets { sigma: Zeroizing::new(sigma), key: Zeroizing::new(key), nonce }
    }

    /// Fresh secrets from the operating system's randomness.
    ///
    /// # Errors
    /// [`TimelockError::Random`] if the operating system gives none.
    pub fn random() -> Result<Self, TimelockError> {
        let mut secrets = Self::new([0; 32], [0; 32], [0; NONCE]);
        for bytes in [&mut secrets.sigma[..], &mut secrets.key[..], &mut secrets.nonce[..]] {
            getrandom::fill(bytes).map_err(TimelockError::Random)?;
        }
        Ok(secrets)
    }

    /// `r`: what `u` is the image of.
    fn scalar(&self) -> Zeroizing<Fr> {
        let hash = Zeroizing::new(<[u8; 32]>::from(
            Sha256::new().chain_update(self.sigma.as_slice()).chain_update(self.key.as_slice()).finalize(),
        ));
        Zeroizing::new(Fr::from_be_bytes_mod_order(hash.as_slice()))
    }

    fn cipher(&self) -> Aes256Gcm {
        Aes256Gcm::new(Key::<Aes256Gcm>::from_slice(self.key.as_slice()))
    }
}

impl fmt::Debug for TimelockSecrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TimelockSecrets(..)")
    }
}

/// Encrypts `payload` to the beacon's `round`. The result is [`OVERHEAD`] bytes longer. One pairing: some milliseconds.
///
/// # Errors
/// [`TimelockError::PayloadTooLong`] above [`MAX_PAYLOAD`] bytes, [`TimelockError::Round`] for round 0.
pub fn encrypt(payload: &[u8], round: u64, secrets: TimelockSecrets) -> Result<Vec<u8>, TimelockError> {
    if payload.len() > MAX_PAYLOAD {
        return Err(TimelockError::PayloadTooLong(payload.len()));
    }
    if round == 0 {
        return Err(TimelockError::Round);
    }
    seal(payload, round, &secrets, &secrets.scalar())
}

fn seal(payload: &[u8], round: u64, secrets: &TimelockSecrets, r: &Fr) -> Result<Vec<u8>, TimelockError> {
    // e(identity, r·key) = e(r·identity, key), which is less work.
    let shared = Bls12_381::pairing((quicknet::identity(round) * r).into_affine(), *quicknet::KEY);
    let v = masked(&secrets.sigma, &mask_of(&shared));
    let w = masked(&secrets.key, &Sha256::digest(secrets.sigma.as_slice()).into());
    let sealed = secrets.cipher().encrypt(Nonce::from_slice(&secrets.nonce), payload);
    // AES-GCM refuses from 64 GiB on.
    let sealed = sealed.map_err(|_| TimelockError::PayloadTooLong(payload.len()))?;

    let mut out = Vec::with_capacity(OVERHEAD + payload.len());
    out.extend_from_slice(&compressed(r));
    put(&mut out, v.as_slice());
    put(&mut out, w.as_slice());
    put_length(&mut out, payload.len() + BODY_EXTRA);
    put(&mut out, &sealed);
    put(&mut out, &secrets.nonce);
    put(&mut out, SUITE);
    Ok(out)
}

/// Decrypts with the beacon's `signature` of `round`. Three pairings: some milliseconds.
///
/// # Errors
/// [`TimelockError`]: the bytes are no ciphertext, the signature is not the round's, or the ciphertext was altered or made
/// for another round.
pub fn decrypt(ciphertext: &[u8], round: u64, signature: &[u8; SIGNATURE_BYTES]) -> Result<Vec<u8>, TimelockError> {
    let parts = Parts::read(ciphertext)?;
    let signature = quicknet::signature_point(round, signature).ok_or(TimelockError::Signature(round))?;
    parts.open(round, signature)
}

/// What hides sigma: the hash of the pairing.
fn mask_of(shared: &PairingOutput<Bls12_381>) -> [u8; 32] {
    let mut bytes = Zeroizing::new([0u8; TARGET]);
    shared.serialize_compressed(&mut bytes[..]).expect("an element of the target group has 576 bytes");
    Sha256::digest(bytes.as_slice()).into()
}

fn masked(bytes: &[u8; 32], mask: &[u8; 32]) -> Zeroizing<[u8; 32]> {
    Zeroizing::new(std::array::from_fn(|i| bytes[i] ^ mask[i]))
}

/// `r·generator` as bytes.
fn compressed(r: &Fr) -> [u8; U] {
    let mut bytes = [0; U];
    let point = (G2Affine::generator() * r).into_affine();
    point.serialize_compressed(&mut bytes[..]).expect("a compressed point of G2 has 96 bytes");
    bytes
}

fn put_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&(length as u64).to_le_bytes());
}

fn put(out: &mut Vec<u8>, bytes: &[u8]) {
    put_length(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// A ciphertext's fields.
struct Parts<'a> {
    u: &'a [u8],
    v: &'a [u8; 32],
    w: &'a [u8; 32],
    sealed: &'a [u8],
    nonce: &'a [u8; NONCE],
}

impl<'a> Parts<'a> {
    fn read(ciphertext: &'a [u8]) -> Result<Self, TimelockError> {
        let total = ciphertext.len();
        let payload = total.checked_sub(OVERHEAD).filter(|_| total <= MAX_CIPHERTEXT);
        let payload = payload.ok_or(TimelockError::Length(total))?;
        let mut reader = Reader { rest: ciphertext, total };
        let u = reader.take(U)?;
        let v = reader.array("v")?;
        let w = reader.array("w")?;
        reader.length("the body", payload + BODY_EXTRA)?;
        reader.length("the encrypted payload", payload + TAG)?;
        let sealed = reader.take(payload + TAG)?;
        let nonce = reader.array("the nonce")?;
        let suite: &[u8; SUITE.len()] = reader.array("the cipher suite's name")?;
        if suite != SUITE {
            return Err(TimelockError::Suite(suite.escape_ascii().to_string()));
        }
        Ok(Parts { u, v, w, sealed, nonce })
    }

    /// The payload, by the round's signature.
    fn open(&self, round: u64, signature: G1Affine) -> Result<Vec<u8>, TimelockError> {
        let u = G2Affine::deserialize_compressed(self.u).map_err(|_| TimelockError::Point)?;
        let sigma = masked(self.v, &mask_of(&Bls12_381::pairing(signature, u)));
        let key = masked(self.w, &Sha256::digest(sigma.as_slice()).into());
        let secrets = TimelockSecrets { sigma, key, nonce: *self.nonce };
        if compressed(&secrets.scalar()) != self.u {
            return Err(TimelockError::Refused(round));
        }
        let opened = secrets.cipher().decrypt(Nonce::from_slice(self.nonce), self.sealed);
        opened.map_err(|_| TimelockError::Refused(round))
    }
}

/// Reads fields one after the other.
struct Reader<'a> {
    rest: &'a [u8],
    total: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], TimelockError> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(TimelockError::Length(self.total))?;
        self.rest = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<&'a [u8; N], TimelockError> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(TimelockError::Length(self.total))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A stated length, which must be `expected`.
    fn length(&mut self, field: &'static str, expected: usize) -> Result<(), TimelockError> {
        let at = self.total - self.rest.len();
        let stated = u64::from_le_bytes(*self.fixed()?);
        if stated != expected as u64 {
            return Err(TimelockError::FieldLength { field, at, stated, expected });
        }
        Ok(())
    }

    /// A field of fixed length behind its length.
    fn array<const N: usize>(&mut self, field: &'static str) -> Result<&'a [u8; N], TimelockError> {
        self.length(field, N)?;
        self.fixed()
    }
}

#[cfg(test)]
mod tests;
