//! What opens an encrypted file, and what does not. The two slow schemes are opened in `tests/wallet.rs`.

use super::*;

const PASSWORD: &str = "Correct-Horse-9!";

fn vector(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/vectors/wallets/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn open(bytes: &[u8], password: &str) -> Result<Zeroizing<Vec<u8>>, SealError> {
    Sealed::of(bytes).expect("an encrypted file").open(bytes, &SecretString::from(password))
}

#[test]
fn the_scheme_is_known_by_the_first_bytes() {
    assert_eq!(Sealed::of(&vector("encrypted/hotkeys/hk_enc")), Some(Sealed::Nacl));
    assert_eq!(Sealed::of(&vector("legacy/hotkeys/hk_ansible_vault")), Some(Sealed::Ansible));
    assert_eq!(Sealed::of(&vector("legacy/hotkeys/hk_fernet")), Some(Sealed::Fernet));
    for plain in [&b"{}"[..], b"", b"$NAC", b" $NACL", b"0x11"] {
        assert_eq!(Sealed::of(plain), None);
    }
}

#[test]
fn an_ansible_vault_opens_with_its_password_only() {
    let file = vector("legacy/hotkeys/hk_ansible_vault");
    let plain = open(&file, PASSWORD).unwrap();
    assert!(plain.starts_with(b"{\"accountId\"") && plain.ends_with(b"}"));
    for wrong in ["", "correct-horse-9!", "Correct-Horse-9!\n"] {
        assert_eq!(open(&file, wrong), Err(SealError::Refused));
    }
}

#[test]
fn no_altered_or_shortened_ansible_vault_opens() {
    let file = vector("legacy/hotkeys/hk_ansible_vault");
    let body = b"$ANSIBLE_VAULT;1.1;AES256\n".len();
    for at in (body..file.len() - 1).step_by(97) {
        let mut altered = file.clone();
        altered[at] = if altered[at] == b'3' { b'4' } else { b'3' };
        assert!(open(&altered, PASSWORD).is_err(), "byte {at}");
    }
    for length in [14, 25, 26, 30, 100, 1000, file.len() - 3] {
        assert!(open(&file[..length], PASSWORD).is_err(), "length {length}");
    }
    let newer = String::from_utf8(file).unwrap().replace(";1.1;", ";1.2;");
    assert!(matches!(open(newer.as_bytes(), PASSWORD), Err(SealError::Form(_))));
}

#[test]
fn a_file_that_no_password_can_open_is_refused_before_the_costly_part() {
    // Each of these is instant; a try at either scheme is not.
    for length in [5, 28, 29, 44] {
        let file = vector("encrypted/hotkeys/hk_enc");
        assert!(matches!(open(&file[..length], PASSWORD), Err(SealError::Form(_))), "length {length}");
    }
    let token = vector("legacy/hotkeys/hk_fernet");
    for length in [6, 40, token.len() - 4] {
        assert!(matches!(open(&token[..length], PASSWORD), Err(SealError::Form(_))), "length {length}");
    }
    assert!(matches!(open(b"gAAAAA not base64", PASSWORD), Err(SealError::Form(_))));
}
