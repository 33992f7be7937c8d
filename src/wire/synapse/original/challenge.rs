//! `Challenge`: the password puzzle of the original's first versions. Its callers are gone, the class is still served.

use serde::{Deserialize, Serialize};

use super::objects::{Output, or_default};
use crate::wire::classic::{ClassicSynapse, lax};

/// A puzzle, and its reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Challenge {
    /// Hash of the password.
    pub challenge_hash: String,
    /// Its salt.
    pub challenge_salt: String,
    /// Kind of hash, as hashcat numbers them.
    pub challenge_mode: String,
    /// Characters that the password is made of.
    pub challenge_chars: String,
    /// Its form, as hashcat writes it.
    pub challenge_mask: String,
    /// Its length.
    #[serde(deserialize_with = "lax::int")]
    pub challenge_difficulty: i64,
    /// The answer.
    #[serde(deserialize_with = "or_default")]
    pub output: Output,
}

impl Default for Challenge {
    fn default() -> Self {
        Challenge {
            challenge_hash: String::new(),
            challenge_salt: String::new(),
            challenge_mode: String::new(),
            challenge_chars: String::new(),
            challenge_mask: String::new(),
            challenge_difficulty: 7,
            output: Output::default(),
        }
    }
}

impl ClassicSynapse for Challenge {
    const NAME: &'static str = "Challenge";
}
