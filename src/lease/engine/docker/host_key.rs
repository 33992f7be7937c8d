//! The key of a container's SSH server: made for one lease, and kept nowhere but in its container.

use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use russh::keys::ssh_key::{LineEnding, PrivateKey};

/// A new key.
pub(super) struct HostKey {
    /// The private half, as the server reads it.
    pub(super) private: Vec<u8>,
    /// The public half: one line in OpenSSH's format, without a comment.
    pub(super) public: String,
}

impl HostKey {
    /// Makes one.
    ///
    /// # Errors
    /// What is missing for it: the system's randomness, or the format.
    pub(super) fn make() -> Result<Self, String> {
        let mut seed = [0u8; 32];
        getrandom::fill(&mut seed).map_err(|error| format!("no randomness for a host key: {error}"))?;
        let wrong = |error: russh::keys::ssh_key::Error| format!("a host key cannot be written: {error}");
        let pair = KeypairData::from(Ed25519Keypair::from_seed(&seed));
        let key = PrivateKey::new(pair, "").map_err(wrong)?;
        let private = key.to_openssh(LineEnding::LF).map_err(wrong)?.as_bytes().to_vec();
        let public = key.public_key().to_openssh().map_err(wrong)?.trim_end().to_owned();
        Ok(HostKey { private, public })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_key_is_another_one_and_its_halves_belong_together() {
        let (one, two) = (HostKey::make().unwrap(), HostKey::make().unwrap());
        assert_ne!(one.public, two.public);
        assert!(one.public.starts_with("ssh-ed25519 AAAA") && one.public.split(' ').count() == 2, "{}", one.public);
        let read = PrivateKey::from_openssh(&one.private).unwrap();
        assert_eq!(read.public_key().to_openssh().unwrap().trim_end(), one.public);
    }
}
