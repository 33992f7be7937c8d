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
    open_with(bytes, password, ROUNDS)
}

fn open_with(bytes: &[u8], password: &[u8], rounds: u32) -> Result<Zeroizing<Vec<u8>>, SealError> {
    let token = URL_SAFE.decode(bytes.trim_ascii()).map_err(|_| SealError::Form("it is not URL-safe base64"))?;
    let cut = token.len().checked_sub(TAG).filter(|&cut| cut >= HEAD + IV && (cut - HEAD - IV).is_multiple_of(16));
    let (signed, tag) = token.split_at(cut.ok_or(SealError::Form("its length is not that of a token"))?);
    let (iv, sealed) = signed[HEAD..].split_at(IV);

    let mut keys = Zeroizing::new([0u8; 32]);
    pbkdf2::pbkdf2_hmac::<Sha256>(password, SALT, rounds, keys.as_mut_slice());
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

#[cfg(test)]
mod tests {
    use aes::cipher::BlockEncryptMut as _;

    use super::*;

    /// A token as the scheme has it, its key made in one round.
    fn token(password: &[u8], text: &[u8]) -> String {
        let mut keys = [0u8; 32];
        pbkdf2::pbkdf2_hmac::<Sha256>(password, SALT, 1, &mut keys);
        let iv = [9u8; IV];
        let cipher = cbc::Encryptor::<Aes128>::new(keys[16..].into(), (&iv).into());
        let body = cipher.encrypt_padded_vec_mut::<Pkcs7>(text);
        let signed = [&[0x80, 0, 0, 0, 0, 0x6b, 2, 0xfc, 0x95][..], &iv, &body].concat();
        let mut mac = Hmac::<Sha256>::new_from_slice(&keys[..16]).unwrap();
        mac.update(&signed);
        URL_SAFE.encode([&signed[..], &mac.finalize().into_bytes()].concat())
    }

    #[test]
    fn a_token_opens_whole_and_unaltered_with_its_own_password_only() {
        for text in [&b"{}"[..], b"0123456789abcdef", b""] {
            let token = token(b"right", text);
            assert!(token.as_bytes().starts_with(PREFIX));
            assert_eq!(open_with(token.as_bytes(), b"right", 1).unwrap().as_slice(), text);
            assert_eq!(open_with(format!("{token}\n").as_bytes(), b"right", 1).unwrap().as_slice(), text);
            assert_eq!(open_with(token.as_bytes(), b"wrong", 1), Err(SealError::Refused));
            let bytes = URL_SAFE.decode(&token).unwrap();
            for at in 0..bytes.len() {
                let mut altered = bytes.clone();
                altered[at] ^= 4;
                assert_eq!(
                    open_with(URL_SAFE.encode(altered).as_bytes(), b"right", 1),
                    Err(SealError::Refused),
                    "{at}"
                );
                assert!(open_with(URL_SAFE.encode(&bytes[..at]).as_bytes(), b"right", 1).is_err(), "length {at}");
            }
        }
    }
}
