//! sr25519 key pairs: derivation, signing, verification.
//!
//! Signatures use the context `substrate`, as every Bittensor tool does. Seeds expand in schnorrkel's ED25519 mode,
//! which is substrate's convention; the other mode gives another address for the same seed.

use std::fmt;
use std::sync::Arc;

use schnorrkel::derive::{ChainCode, Derivation as _};
use schnorrkel::{ExpansionMode, MiniSecretKey, PublicKey, SecretKey, Signature};
use secrecy::zeroize::{Zeroize, Zeroizing};

use super::phrase;
use crate::ids::Hotkey;

/// The signing context of substrate accounts.
const CONTEXT: &[u8] = b"substrate";

/// The mini secret of substrate's published development phrase ("bottom drive obey lake …"). Everybody has it.
const DEV_MINI_SECRET: [u8; 32] = [
    0xfa, 0xc7, 0x95, 0x9d, 0xbf, 0xe7, 0x2f, 0x05, 0x2e, 0x5a, 0x0c, 0x3c, 0x8d, 0x65, 0x30, 0xf2, 0x02, 0xb0, 0x2f,
    0xd8, 0xf9, 0xf5, 0xca, 0x35, 0x80, 0xec, 0x8d, 0xeb, 0x77, 0x97, 0x47, 0x9e,
];

/// Why a key cannot be made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes are no secret key in schnorrkel's form. The ed25519-style form of polkadot-js exports ends here too.
    #[error("not a secret key in schnorrkel's form (32 bytes of canonical scalar, 32 bytes of nonce)")]
    SecretForm,
    /// The text is no key URI.
    #[error(
        "not a key: expected junctions such as //Alice or //miner/3, each of 1 to 31 bytes, perhaps after a phrase"
    )]
    Uri,
    /// The operating system gave no random bytes.
    #[error("no random bytes from the operating system")]
    Random(#[source] getrandom::Error),
}

/// An sr25519 key pair. Clones share one copy of the secret, which is wiped when the last of them goes.
#[derive(Clone)]
pub struct Keypair(Arc<Inner>);

struct Inner {
    // Its own `Drop` wipes the secret.
    pair: schnorrkel::Keypair,
    hotkey: Hotkey,
}

impl Keypair {
    /// A fresh key from the operating system's randomness.
    ///
    /// # Errors
    /// [`KeyError::Random`] if the operating system gives none.
    pub fn generate() -> Result<Self, KeyError> {
        let mut seed = Zeroizing::new([0u8; 32]);
        getrandom::fill(seed.as_mut_slice()).map_err(KeyError::Random)?;
        Ok(Self::from_seed(&seed))
    }

    /// The key of a 32-byte mini secret, the `secretSeed` of hotkey files.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        let mini = Zeroizing::new(
            MiniSecretKey::from_bytes(seed).expect("a mini secret of the right length is always accepted"),
        );
        Self::from_pair(mini.expand_to_keypair(ExpansionMode::Ed25519))
    }

    /// The key of 64 bytes in schnorrkel's form (scalar, nonce), the `privateKey` of hotkey files.
    ///
    /// # Errors
    /// [`KeyError::SecretForm`] if the scalar is not canonical.
    pub fn from_private_key(bytes: &[u8; 64]) -> Result<Self, KeyError> {
        let secret = SecretKey::from_bytes(bytes).map_err(|_| KeyError::SecretForm)?;
        Ok(Self::from_pair(secret.to_keypair()))
    }

    /// The key of a URI as substrate's tools have them: a recovery phrase, then hard (`//name`) and soft (`/name`)
    /// junctions. Without a phrase it is a development key, `//Alice` for example, derived from substrate's published
    /// phrase: for tests and the devnet only, since everybody can derive it.
    ///
    /// # Errors
    /// [`KeyError::Uri`] if there is neither a phrase nor a junction, or one of them is wrong. A password (`///word`) is
    /// not supported.
    pub fn from_uri(uri: &str) -> Result<Self, KeyError> {
        let (words, mut path) = uri.split_at(uri.find('/').unwrap_or(uri.len()));
        let mut key = match words {
            "" if path.is_empty() => return Err(KeyError::Uri),
            "" => Self::from_seed(&DEV_MINI_SECRET),
            words => Self::from_seed(&*phrase::mini_secret(words).ok_or(KeyError::Uri)?),
        };
        while let Some(rest) = path.strip_prefix('/') {
            let (hard, rest) = rest.strip_prefix('/').map_or((false, rest), |rest| (true, rest));
            let (junction, rest) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            let code = ChainCode(chain_code(junction)?);
            key = if hard {
                let mini = Zeroizing::new(key.0.pair.hard_derive_mini_secret_key(Some(code), b"").0);
                Self::from_pair(mini.expand_to_keypair(ExpansionMode::Ed25519))
            } else {
                Self::from_pair(key.0.pair.derived_key_simple(code, b"").0)
            };
            path = rest;
        }
        Ok(key)
    }

    fn from_pair(pair: schnorrkel::Keypair) -> Self {
        let hotkey = Hotkey(pair.public.to_bytes());
        Keypair(Arc::new(Inner { pair, hotkey }))
    }

    /// The public key.
    pub fn hotkey(&self) -> Hotkey {
        self.0.hotkey
    }

    /// The signature of these bytes. Two signatures of the same bytes differ: the scheme is randomised.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.0.pair.sign_simple(CONTEXT, message).to_bytes()
    }

    /// The secret in schnorrkel's form, for writing a hotkey file.
    pub(crate) fn private_key(&self) -> Zeroizing<[u8; 64]> {
        let mut bytes = self.0.pair.secret.to_bytes();
        let out = Zeroizing::new(bytes);
        bytes.zeroize();
        out
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({}, secret hidden)", self.0.hotkey)
    }
}

/// Whether `signature` is this hotkey's over these bytes. A key or signature that is no valid encoding is `false`.
pub fn verify(hotkey: &Hotkey, message: &[u8], signature: &[u8; 64]) -> bool {
    let (Ok(public), Ok(signature)) = (PublicKey::from_bytes(&hotkey.0), Signature::from_bytes(signature)) else {
        return false;
    };
    public.verify_simple(CONTEXT, message, &signature).is_ok()
}

/// The chain code of a junction: a number as u64, other text with its SCALE length, both padded with zeros.
fn chain_code(junction: &str) -> Result<[u8; 32], KeyError> {
    if junction.is_empty() || junction.len() > 31 {
        return Err(KeyError::Uri);
    }
    let mut code = [0u8; 32];
    if let Ok(number) = junction.parse::<u64>() {
        code[..8].copy_from_slice(&number.to_le_bytes());
    } else {
        // SCALE's compact form of a length below 64 is one byte, four times the length.
        code[0] = (junction.len() as u8) << 2;
        code[1..=junction.len()].copy_from_slice(junction.as_bytes());
    }
    Ok(code)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";
    const BOB: &str = "5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";

    #[test]
    fn development_keys_have_their_published_addresses() {
        assert_eq!(Keypair::from_uri("//Alice").unwrap().hotkey().to_string(), ALICE);
        assert_eq!(Keypair::from_uri("//Bob").unwrap().hotkey().to_string(), BOB);
        // Published by substrate's sp-keyring.
        let stash = Keypair::from_uri("//Alice//stash").unwrap().hotkey().to_string();
        assert_eq!(stash, "5GNJqTPyNqANBkUVMN1LPPrxXnFouWXoe2wNSmmEoLctxiZY");
    }

    #[test]
    fn a_published_seed_gives_its_published_address() {
        // //Alice's mini secret, as `subkey inspect //Alice` prints it.
        let mut seed = [0u8; 32];
        hex::decode_to_slice("e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a", &mut seed).unwrap();
        assert_eq!(Keypair::from_seed(&seed).hotkey().to_string(), ALICE);
    }

    #[test]
    fn empty_or_long_junctions_wrong_words_and_passwords_are_refused() {
        for uri in ["", "Alice", "/", "//", "//Alice/", "////", "//Alice///pw", "//an-overlong-junction-of-33-bytes-xx"]
        {
            assert_eq!(Keypair::from_uri(uri).unwrap_err(), KeyError::Uri, "{uri}");
        }
    }

    #[test]
    fn a_phrase_with_hard_and_soft_junctions_gives_the_address_that_other_tools_give() {
        let words = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        let address = |uri: &str| Keypair::from_uri(uri).unwrap().hotkey().to_string();
        assert_eq!(address(&format!("{words}//hard/soft")), "5FncfQd6TSSpUMsaoMFpibpTtF8wRnrfEk8yx9HSZWvr1HQ9");
        assert_eq!(address(words), "5EPCUjPxiHAcNooYipQFWr9NmmXJKpNG5RhcntXwbtUySrgH");
        let soft = Keypair::from_uri("//Alice/soft").unwrap();
        assert!(verify(&soft.hotkey(), b"m", &soft.sign(b"m")));
    }

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        let alice = Keypair::from_uri("//Alice").unwrap();
        let bob = Keypair::from_uri("//Bob").unwrap();
        let signature = alice.sign(b"message");
        assert!(verify(&alice.hotkey(), b"message", &signature));
        assert!(!verify(&alice.hotkey(), b"massage", &signature));
        assert!(!verify(&bob.hotkey(), b"message", &signature));
        for byte in 0..64 {
            let mut wrong = signature;
            wrong[byte] ^= 1;
            assert!(!verify(&alice.hotkey(), b"message", &wrong), "byte {byte}");
        }
        // 32 bytes that encode no point, and a signature that encodes none.
        assert!(!verify(&Hotkey([0xff; 32]), b"message", &signature));
        assert!(!verify(&alice.hotkey(), b"message", &[0xff; 64]));
    }

    #[test]
    fn the_private_key_restores_the_key() {
        let key = Keypair::generate().unwrap();
        let again = Keypair::from_private_key(&key.private_key()).unwrap();
        assert_eq!(again.hotkey(), key.hotkey());
        assert!(verify(&key.hotkey(), b"m", &again.sign(b"m")));
        assert_eq!(Keypair::from_private_key(&[0xff; 64]).unwrap_err(), KeyError::SecretForm);
    }

    #[test]
    fn debug_output_holds_no_secret() {
        let key = Keypair::from_uri("//Alice").unwrap();
        let text = format!("{key:?} {:#?}", Some(&key));
        let secret = hex::encode(*key.private_key());
        assert!(text.contains(ALICE));
        assert!(!text.contains(&secret[..16]) && !text.contains(&secret[64..80]));
    }
}
