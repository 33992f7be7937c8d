//! `$NACL`: 24 bytes of nonce and an XSalsa20-Poly1305 box, its key by argon2i from the password and a fixed salt.

use argon2::{Algorithm, Argon2, Block, Params, Version};
use crypto_secretbox::aead::AeadInPlace as _;
use crypto_secretbox::{KeyInit as _, XSalsa20Poly1305};
use secrecy::zeroize::Zeroizing;

use super::SealError;

pub(super) const PREFIX: &[u8] = b"$NACL";

/// The salt that all Bittensor tools share.
const SALT: [u8; 16] = [0x13, 0x71, 0x83, 0xdf, 0xf1, 0x5a, 0x09, 0xbc, 0x9c, 0x90, 0xb5, 0x51, 0x87, 0x39, 0xe9, 0xb1];
/// Memory of argon2, in KiB, which is also its blocks: libsodium's "sensitive" limit.
const BLOCKS: u32 = 512 * 1024;
const PASSES: u32 = 8;
const NONCE: usize = 24;
const TAG: usize = 16;

pub(super) fn open(bytes: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    open_with(bytes, || key(password))
}

/// Opens the box with the key that `key` makes, which it is asked for only if there is a box at all.
fn open_with(
    bytes: &[u8],
    key: impl FnOnce() -> Result<Zeroizing<[u8; 32]>, SealError>,
) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let body = bytes.strip_prefix(PREFIX).unwrap_or(bytes);
    let Some((nonce, sealed)) = body.split_at_checked(NONCE) else { return Err(SealError::Form("it is too short")) };
    // Before the expensive part: a file cut short never costs a try.
    let Some((tag, text)) = sealed.split_at_checked(TAG) else { return Err(SealError::Form("it is too short")) };
    let key = key()?;
    let mut plain = Zeroizing::new(text.to_vec());
    XSalsa20Poly1305::new((&*key).into())
        .decrypt_in_place_detached(nonce.into(), b"", &mut plain, tag.into())
        .map_err(|_| SealError::Refused)?;
    Ok(plain)
}

fn key(password: &[u8]) -> Result<Zeroizing<[u8; 32]>, SealError> {
    let params = Params::new(BLOCKS, PASSES, 1, Some(32)).map_err(|_| SealError::Form("its parameters"))?;
    // Asked for rather than taken: without the memory the node says so instead of being aborted. So large an allocation
    // is a mapping of its own, which goes back to the system, cleared, as soon as it is dropped.
    let mut memory: Vec<Block> = Vec::new();
    memory.try_reserve_exact(params.block_count()).map_err(|_| SealError::Memory)?;
    memory.resize(params.block_count(), Block::default());
    let mut key = Zeroizing::new([0u8; 32]);
    Argon2::new(Algorithm::Argon2i, Version::V0x13, params)
        .hash_password_into_with_memory(password, &SALT, key.as_mut_slice(), &mut memory)
        .map_err(|_| SealError::Refused)?; // only a password of 4 GiB is refused here
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sealed(key: [u8; 32], text: &[u8]) -> Vec<u8> {
        let nonce = [7; NONCE];
        let mut body = text.to_vec();
        let cipher = XSalsa20Poly1305::new((&key).into());
        let tag = cipher.encrypt_in_place_detached((&nonce).into(), b"", &mut body).unwrap();
        [PREFIX, &nonce, &tag, &body].concat()
    }

    #[test]
    fn a_box_opens_whole_and_unaltered_with_its_own_key_only() {
        let file = sealed([1; 32], b"{\"secretSeed\":\"0x\"}");
        let open = |bytes: &[u8], key: u8| open_with(bytes, || Ok(Zeroizing::new([key; 32])));
        assert_eq!(open(&file, 1).unwrap().as_slice(), b"{\"secretSeed\":\"0x\"}");
        assert_eq!(open(&file, 2), Err(SealError::Refused));
        for at in PREFIX.len()..file.len() {
            let mut altered = file.clone();
            altered[at] ^= 0x10;
            assert_eq!(open(&altered, 1), Err(SealError::Refused), "byte {at}");
            assert!(open(&file[..at], 1).is_err(), "length {at}");
        }
    }
}
