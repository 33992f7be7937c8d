//! Who signs calls to the chain: sr25519 in the context `substrate`, as every Bittensor key does.

use schnorrkel::{ExpansionMode, Keypair, MiniSecretKey, PublicKey, Signature};

use crate::ids::Hotkey;

/// The signing context of substrate chains.
const CONTEXT: &[u8] = b"substrate";

/// A key that can sign. Implementations never print their secret.
pub trait Signer: Send + Sync {
    /// The public key. A coldkey that signs is asked the same way: the bytes are an account's either way.
    fn hotkey(&self) -> Hotkey;
    /// The sr25519 signature over `msg`. Two signatures over the same message differ.
    fn sign(&self, msg: &[u8]) -> [u8; 64];
}

/// Whether `signature` is `signer`'s over `msg`. Bytes that are no key or no signature are simply false.
pub fn verify(signer: &Hotkey, msg: &[u8], signature: &[u8; 64]) -> bool {
    let Ok(key) = PublicKey::from_bytes(&signer.0) else { return false };
    let Ok(signature) = Signature::from_bytes(signature) else { return false };
    key.verify_simple(CONTEXT, msg, &signature).is_ok()
}

/// A key from a 32-byte seed, for tests and for keys that exist only as long as a devnet.
pub struct SeedSigner(Keypair);

impl SeedSigner {
    /// The key of this seed, expanded as wallets do.
    pub fn from_seed(seed: [u8; 32]) -> Self {
        // Every 32 bytes are a mini secret key; the only error is a wrong length.
        let mini = MiniSecretKey::from_bytes(&seed).expect("32 bytes are always a mini secret key");
        SeedSigner(mini.expand_to_keypair(ExpansionMode::Ed25519))
    }
}

impl Signer for SeedSigner {
    fn hotkey(&self) -> Hotkey {
        Hotkey(self.0.public.to_bytes())
    }
    fn sign(&self, msg: &[u8]) -> [u8; 64] {
        self.0.sign_simple(CONTEXT, msg).to_bytes()
    }
}

impl std::fmt::Debug for SeedSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SeedSigner({})", self.hotkey())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_holds_for_its_key_and_message_only() {
        let key = SeedSigner::from_seed([1; 32]);
        let signature = key.sign(b"message");
        assert!(verify(&key.hotkey(), b"message", &signature));
        assert!(!verify(&key.hotkey(), b"massage", &signature));
        assert!(!verify(&SeedSigner::from_seed([2; 32]).hotkey(), b"message", &signature));
        assert!(!verify(&key.hotkey(), b"message", &[0xff; 64]));
        assert!(!verify(&Hotkey([0xff; 32]), b"message", &signature));
    }

    #[test]
    fn the_seed_of_the_development_key_alice_gives_her_address() {
        let seed = hex::decode("e5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a").unwrap();
        let alice = SeedSigner::from_seed(seed.try_into().unwrap());
        assert_eq!(alice.hotkey().to_string(), "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY");
    }

    #[test]
    fn debug_output_has_the_address_and_no_secret() {
        let text = format!("{:?}", SeedSigner::from_seed([0xab; 32]));
        assert!(text.starts_with("SeedSigner(5"), "{text}");
        assert!(!text.contains("abab"), "{text}");
    }
}
