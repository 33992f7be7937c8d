//! Recovery phrases as substrate reads them: the key comes from the ENTROPY that the words stand for, not, as BIP-39 has
//! it, from the words themselves. Wallets of other chains derive other keys from the same words.

use bip39::{Language, Mnemonic};
use secrecy::zeroize::Zeroizing;
use sha2::Sha512;

/// As BIP-39 has it, with an empty password.
const SALT: &[u8] = b"mnemonic";
const ROUNDS: u32 = 2048;

/// The mini secret of an English phrase of 12 to 24 words; `None` if it is none, or its checksum is wrong.
pub(super) fn mini_secret(phrase: &str) -> Option<Zeroizing<[u8; 32]>> {
    // Wipes itself when dropped.
    let mnemonic = Mnemonic::parse_in_normalized(Language::English, phrase).ok()?;
    let (entropy, length) = mnemonic.to_entropy_array();
    let entropy = Zeroizing::new(entropy);
    let mut seed = Zeroizing::new([0u8; 64]);
    pbkdf2::pbkdf2_hmac::<Sha512>(&entropy[..length], SALT, ROUNDS, seed.as_mut_slice());
    let mut mini = Zeroizing::new([0u8; 32]);
    mini.copy_from_slice(&seed[..32]);
    Some(mini)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wallet::Keypair;

    fn address(phrase: &str) -> Option<String> {
        mini_secret(phrase).map(|mini| Keypair::from_seed(&mini).hotkey().to_string())
    }

    #[test]
    fn phrases_give_the_addresses_that_other_tools_give() {
        // Published by substrate: the development phrase, of which //Alice and the others are children.
        let dev = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";
        assert_eq!(address(dev).as_deref(), Some("5DfhGyQdFobKM8NsWvEeAKk5EQQgYe9AydgJ7rMB6E1EqRzV"));
        let words12 = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about";
        assert_eq!(address(words12).as_deref(), Some("5EPCUjPxiHAcNooYipQFWr9NmmXJKpNG5RhcntXwbtUySrgH"));
        let words24 = "letter advice cage absurd amount doctor acoustic avoid letter advice cage absurd amount doctor \
                       acoustic avoid letter advice cage absurd amount doctor acoustic bless";
        assert_eq!(address(words24).as_deref(), Some("5DqrYQvokrzYkioJSFc6RWd2gnBibZSsKALyXZV3XJ1V8rAv"));
    }

    #[test]
    fn words_that_are_no_phrase_give_no_key() {
        let wrong_checksum = "abandon ".repeat(12);
        for phrase in ["", "abandon", &wrong_checksum, "a b c d e f g h i j k l", &"abandon ".repeat(8000)] {
            assert_eq!(address(phrase), None);
        }
    }
}
