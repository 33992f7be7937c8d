//! `Allocate`: one class for everything about rentals; [`Mode`](super::Mode) tells what it asks for.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

use super::objects::{DeviceRequirement, DockerAction, DockerRequirement, Output, or_default};
use crate::wire::classic::{ClassicSynapse, lax};

/// A request about the rental of a machine, and its reply.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allocate {
    /// Days; which of several things is asked depends on whether it is above 0.
    #[serde(deserialize_with = "lax::int")]
    pub timeline: i64,
    /// What the machine should have, see [`demand`](super::demand).
    #[serde(deserialize_with = "or_default")]
    pub device_requirement: DeviceRequirement,
    /// Whether only to look.
    #[serde(deserialize_with = "lax::boolean")]
    pub checking: bool,
    /// The answer.
    #[serde(deserialize_with = "or_default")]
    pub output: Output,
    /// The caller's RSA key: encrypts the credentials, and owns the rental from then on.
    #[serde(deserialize_with = "text_or_none")]
    pub public_key: PublicKey,
    /// What the container should be like. A caller's object replaces the default as a whole.
    #[serde(deserialize_with = "or_default")]
    pub docker_requirement: DockerRequirement,
    /// Whether `docker_action` is asked for.
    #[serde(deserialize_with = "lax::boolean")]
    pub docker_change: bool,
    /// What to do with the container.
    #[serde(deserialize_with = "or_default")]
    pub docker_action: DockerAction,
}

impl Default for Allocate {
    fn default() -> Self {
        Allocate {
            timeline: 0,
            device_requirement: DeviceRequirement::default(),
            checking: true,
            output: Output::default(),
            public_key: PublicKey::default(),
            docker_requirement: DockerRequirement::default(),
            docker_change: false,
            docker_action: DockerAction::default(),
        }
    }
}

impl ClassicSynapse for Allocate {
    const NAME: &'static str = "Allocate";
}

/// An RSA public key as PEM text, any text until it is read by [`CallerKey`](super::CallerKey). Whoever shows the same
/// text again owns the rental, so it is not printed.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PublicKey(pub String);

impl PublicKey {
    /// The text that counts: keys are compared without the white space around them.
    pub fn text(&self) -> &str {
        self.0.trim()
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({} bytes)", self.0.len())
    }
}

/// Callers that know no key send `null`.
fn text_or_none<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PublicKey, D::Error> {
    Option::<String>::deserialize(deserializer).map(|text| PublicKey(text.unwrap_or_default()))
}
