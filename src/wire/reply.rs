//! The signature of a reply: pure.
//!
//! `btauth/1` signs requests only. Between our own nodes the header [`REPLY_SIGNATURE_HEADER`] holds `0x` and the hex of
//! the responder's sr25519 signature over six lines joined by LF without a trailing one: `computereply/1`, the status
//! code, the lower-case hex SHA-256 of the body, the request's nonce, the responder's and the caller's address. The nonce
//! never repeats for a caller, so a reply answers one request only.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::signature::{parse_signature, show_signature};
use crate::ids::{Hash32, Hotkey};
use crate::wallet::{Keypair, verify};

/// Header of a reply's signature.
pub const REPLY_SIGNATURE_HEADER: &str = "x-compute-reply-signature";

/// What shows a third party that a peer sent a reply: the signature and what it is over, without the body.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReplyProof {
    /// The request's nonce.
    pub nonce: u64,
    /// The SHA-256 of the body. The status is 200.
    pub body_sha256: Hash32,
    /// The signature, as in the header.
    pub signature: String,
}

impl ReplyProof {
    /// Whether `responder` signed this reply, with status 200, to `caller`.
    pub fn holds(&self, responder: &Hotkey, caller: &Hotkey) -> bool {
        let Some(signature) = parse_signature(&self.signature) else { return false };
        let signed = lines(200, &self.body_sha256.to_string(), self.nonce, responder, caller);
        verify(responder, signed.as_bytes(), &signature)
    }
}

/// The SHA-256 of a body.
pub fn body_sha256(body: &[u8]) -> Hash32 {
    Hash32(Sha256::digest(body).into())
}

/// The header value that signs a reply to `caller`'s request with this nonce.
pub fn sign_reply(keypair: &Keypair, status: u16, body: &[u8], nonce: u64, caller: &Hotkey) -> String {
    let signature = keypair.sign(payload(status, body, nonce, &keypair.hotkey(), caller).as_bytes());
    show_signature(&signature)
}

/// Whether a header value is `responder`'s signature of this reply to `caller`'s request with this nonce.
pub fn verify_reply(header: &str, status: u16, body: &[u8], nonce: u64, responder: &Hotkey, caller: &Hotkey) -> bool {
    let Some(signature) = parse_signature(header) else { return false };
    verify(responder, payload(status, body, nonce, responder, caller).as_bytes(), &signature)
}

fn payload(status: u16, body: &[u8], nonce: u64, responder: &Hotkey, caller: &Hotkey) -> String {
    lines(status, &body_sha256(body).to_string(), nonce, responder, caller)
}

fn lines(status: u16, body_sha256: &str, nonce: u64, responder: &Hotkey, caller: &Hotkey) -> String {
    format!("computereply/1\n{status}\n{body_sha256}\n{nonce}\n{responder}\n{caller}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_answers_one_request_of_one_caller_by_one_responder() {
        let miner = Keypair::from_uri("//Alice").unwrap();
        let (us, other) =
            (Keypair::from_uri("//Bob").unwrap().hotkey(), Keypair::from_uri("//Charlie").unwrap().hotkey());
        let header = sign_reply(&miner, 200, b"body", 7, &us);
        assert!(verify_reply(&header, 200, b"body", 7, &miner.hotkey(), &us));
        let proof = ReplyProof { nonce: 7, body_sha256: body_sha256(b"body"), signature: header.clone() };
        assert!(proof.holds(&miner.hotkey(), &us));
        assert!(!proof.holds(&other, &us) && !proof.holds(&miner.hotkey(), &other));
        assert!(!ReplyProof { nonce: 8, ..proof.clone() }.holds(&miner.hotkey(), &us));
        assert!(!ReplyProof { body_sha256: body_sha256(b"bodx"), ..proof }.holds(&miner.hotkey(), &us));
        assert!(!verify_reply(&header, 403, b"body", 7, &miner.hotkey(), &us), "status");
        assert!(!verify_reply(&header, 200, b"bodx", 7, &miner.hotkey(), &us), "body");
        assert!(!verify_reply(&header, 200, b"body", 8, &miner.hotkey(), &us), "nonce");
        assert!(!verify_reply(&header, 200, b"body", 7, &other, &us), "responder");
        assert!(!verify_reply(&header, 200, b"body", 7, &miner.hotkey(), &other), "caller");
        for header in ["", "0x", "0xzz", "\u{e9}", &header[..128], &format!("{header}00")] {
            assert!(!verify_reply(header, 200, b"body", 7, &miner.hotkey(), &us), "{header}");
        }
    }

    #[test]
    fn the_signed_lines_are_the_documented_ones() {
        let alice = Keypair::from_uri("//Alice").unwrap().hotkey();
        let bob = Keypair::from_uri("//Bob").unwrap().hotkey();
        let expected = "computereply/1\n200\ne3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855\n9\n\
            5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY\n5FHneW46xGXgs5mUiveU4sbTyGBzmstUspZC92UhjJM694ty";
        assert_eq!(payload(200, b"", 9, &alice, &bob), expected);
    }
}
