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
    let body = bytes.strip_prefix(PREFIX).unwrap_or(bytes);
    let Some((nonce, sealed)) = body.split_at_checked(NONCE) else { return Err(SealError::Form("it is too short")) };
    // Before the expensive part: a file cut short never costs a try.
    let Some((tag, text)) = sealed.split_at_checked(TAG) else { return Err(SealError::Form("it is too short")) };
    let key = key(password)?;
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
