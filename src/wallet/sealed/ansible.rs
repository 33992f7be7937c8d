//! `$ANSIBLE_VAULT;1.1;AES256`: hex in lines, in it the hex of a salt, an HMAC and a ciphertext, one a line.

use aes::Aes256;
use aes::cipher::{KeyIvInit as _, StreamCipher as _};
use ctr::Ctr128BE;
use hmac::{Hmac, Mac as _};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

use super::SealError;

pub(super) const PREFIX: &[u8] = b"$ANSIBLE_VAULT";

/// The only header that Bittensor's tools ever wrote.
const HEADER: &[u8] = b"$ANSIBLE_VAULT;1.1;AES256";
const ROUNDS: u32 = 10_000;
const BLOCK: usize = 16;

pub(super) fn open(bytes: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let (header, body) = bytes.iter().position(|&b| b == b'\n').map_or((bytes, &[][..]), |end| bytes.split_at(end));
    if header.trim_ascii_end() != HEADER {
        return Err(SealError::Form("its first line is not $ANSIBLE_VAULT;1.1;AES256"));
    }
    let digits: Vec<u8> = body.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    let lines = unhex(&digits)?;
    let mut lines = lines.split(|&b| b == b'\n');
    let mut line = || lines.next().ok_or(SealError::Form("it holds fewer than three lines")).and_then(unhex);
    let (salt, tag, sealed) = (line()?, line()?, line()?);

    let mut keys = Zeroizing::new([0u8; 80]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password, &salt, ROUNDS, keys.as_mut_slice());
    let (cipher_key, rest) = keys.split_at(32);
    let (tag_key, iv) = rest.split_at(32);
    let mut mac = Hmac::<Sha256>::new_from_slice(tag_key).map_err(|_| SealError::Refused)?; // HMAC takes any key
    mac.update(&sealed);
    mac.verify_slice(&tag).map_err(|_| SealError::Refused)?;

    let mut plain = Zeroizing::new(sealed);
    Ctr128BE::<Aes256>::new(cipher_key.into(), iv.into()).apply_keystream(&mut plain);
    let padding = plain.last().map_or(0, |&last| usize::from(last));
    let text = plain.len().checked_sub(padding).filter(|_| (1..=BLOCK).contains(&padding));
    let text = text.filter(|&text| plain[text..].iter().all(|&b| usize::from(b) == padding));
    plain.truncate(text.ok_or(SealError::Form("its padding is wrong"))?);
    Ok(plain)
}

fn unhex(digits: &[u8]) -> Result<Vec<u8>, SealError> {
    hex::decode(digits).map_err(|_| SealError::Form("it holds something else than hex digits"))
}
