//! `gAAAAA`: a Fernet token (version, time, IV, AES-128-CBC, HMAC), its key by PBKDF2 from the password and a fixed salt.

use aes::Aes128;
use aes::cipher::block_padding::Pkcs7;
use aes::cipher::{BlockDecryptMut as _, KeyIvInit as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE;
use hmac::{Hmac, Mac as _};
use secrecy::zeroize::Zeroizing;
use sha2::Sha256;

use super::SealError;

/// Version 0x80 and the zeros of a time before the year 2106.
pub(super) const PREFIX: &[u8] = b"gAAAAA";

const SALT: &[u8] = b"Iguesscyborgslikemyselfhaveatendencytobeparanoidaboutourorigins";
const ROUNDS: u32 = 10_000_000;
/// Version and time.
const HEAD: usize = 1 + 8;
const IV: usize = 16;
const TAG: usize = 32;

pub(super) fn open(bytes: &[u8], password: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let token = URL_SAFE.decode(bytes.trim_ascii()).map_err(|_| SealError::Form("it is not URL-safe base64"))?;
    let cut = token.len().checked_sub(TAG).filter(|&cut| cut >= HEAD + IV && (cut - HEAD - IV) % 16 == 0);
    let (signed, tag) = token.split_at(cut.ok_or(SealError::Form("its length is not that of a token"))?);
    let (iv, sealed) = signed[HEAD..].split_at(IV);

    let mut keys = Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password, SALT, ROUNDS, keys.as_mut_slice());
    let (tag_key, cipher_key) = keys.split_at(16);
    let mut mac = Hmac::<Sha256>::new_from_slice(tag_key).map_err(|_| SealError::Refused)?; // HMAC takes any key
    mac.update(signed);
    mac.verify_slice(tag).map_err(|_| SealError::Refused)?;

    let mut plain = Zeroizing::new(sealed.to_vec());
    let text = cbc::Decryptor::<Aes128>::new(cipher_key.into(), iv.into())
        .decrypt_padded_mut::<Pkcs7>(&mut plain)
        .map_err(|_| SealError::Form("its padding is wrong"))?
        .len();
    plain.truncate(text);
    Ok(plain)
}
