//! What a hotkey file may be, and what is refused.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use super::*;
use crate::ids::Coldkey;

const ALICE_SEED: &str = "0xe5be9a5092b81bca64be81d212e7f2f9eba183bb7a90954f7b76361f6edb5c0a";

fn alice() -> Keypair {
    Keypair::from_uri("//Alice").unwrap()
}

fn bob() -> Keypair {
    Keypair::from_uri("//Bob").unwrap()
}

fn private_hex(key: &Keypair) -> String {
    format!("0x{}", hex::encode(*key.private_key()))
}

fn public_hex(key: &Keypair) -> String {
    format!("0x{}", hex::encode(key.hotkey().0))
}

fn refusal(content: &str) -> KeyfileErrorKind {
    decode(content.as_bytes(), None).unwrap_err()
}

fn load(path: &Path) -> Result<Keypair, KeyfileError> {
    read(path)?.open(None)
}

#[test]
fn a_created_file_loads_as_the_same_key_and_is_private() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wallets/default/hotkeys/miner1");
    let key = Keypair::generate().unwrap();
    create(&path, &key).unwrap();
    let file = read(&path).unwrap();
    assert_eq!(file.open(None).unwrap().hotkey(), key.hotkey());
    assert_eq!(file.warnings(), []);
    assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    for made in ["wallets", "wallets/default", "wallets/default/hotkeys"] {
        assert_eq!(fs::metadata(dir.path().join(made)).unwrap().mode() & 0o777, 0o700, "{made}");
    }
    let beside: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(beside, ["miner1"], "no temporary file stays behind");
}

#[test]
fn an_existing_file_is_never_overwritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hot");
    create(&path, &alice()).unwrap();
    let before = fs::read(&path).unwrap();
    assert!(matches!(create(&path, &bob()).unwrap_err().kind, KeyfileErrorKind::Exists));
    assert_eq!(fs::read(&path).unwrap(), before);
    // A dangling link is somebody's file too.
    let link = dir.path().join("link");
    std::os::unix::fs::symlink(dir.path().join("elsewhere"), &link).unwrap();
    assert!(matches!(create(&link, &bob()).unwrap_err().kind, KeyfileErrorKind::Exists));
    assert!(!dir.path().join("elsewhere").exists());
}

#[test]
fn a_file_or_directory_that_others_can_use_is_read_with_a_warning() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hot");
    create(&path, &alice()).unwrap();
    let warned = |file: u32, directory: u32| {
        fs::set_permissions(&path, fs::Permissions::from_mode(file)).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(directory)).unwrap();
        let file = read(&path).unwrap();
        file.open(None).unwrap();
        file.warnings().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(warned(0o600, 0o700), [""; 0]);
    assert_eq!(warned(0o400, 0o711), [""; 0]);
    assert_eq!(warned(0o644, 0o700), ["the key file has mode 0644, others can read the secret: chmod 600 it"]);
    assert_eq!(warned(0o620, 0o700), ["the key file has mode 0620, others can change the file: chmod 600 it"]);
    let seen = format!("directory {} has mode 0755, others can see its files: chmod 700 it", dir.path().display());
    assert_eq!(warned(0o600, 0o755), [seen]);
    let replaced = warned(0o604, 0o777);
    assert!(replaced.len() == 2 && replaced[1].contains("others can put another key there"), "{replaced:?}");
}

#[test]
fn a_seed_is_expanded_as_substrate_does_and_old_nulls_are_read() {
    let text = format!(
        r#"{{"accountId":null,"publicKey":null,"privateKey":null,"secretPhrase":null,"secretSeed":"{ALICE_SEED}",
        "ss58Address":"{}","somethingNew":[1]}}"#,
        alice().hotkey()
    );
    assert_eq!(decode(text.as_bytes(), None).unwrap().hotkey(), alice().hotkey());
}

#[test]
fn a_damaged_or_foreign_seed_falls_through_to_the_private_key() {
    for seed in [r"\u0002\u00ff", ALICE_SEED] {
        let text = format!(
            r#"{{"publicKey":"{}","secretSeed":"{seed}","privateKey":"{}","cryptoType":1}}"#,
            public_hex(&bob()),
            private_hex(&bob())
        );
        assert_eq!(decode(text.as_bytes(), None).unwrap().hotkey(), bob().hotkey(), "{seed}");
    }
}

#[test]
fn a_secret_of_another_public_key_is_refused() {
    let text = format!(r#"{{"publicKey":"{}","privateKey":"{}"}}"#, public_hex(&alice()), private_hex(&bob()));
    assert!(matches!(refusal(&text), KeyfileErrorKind::WrongSecret { stated } if stated == alice().hotkey()));
    let text = format!(
        r#"{{"publicKey":"{}","ss58Address":"{}","privateKey":"{}"}}"#,
        public_hex(&alice()),
        bob().hotkey(),
        private_hex(&bob())
    );
    assert!(matches!(refusal(&text), KeyfileErrorKind::PublicMismatch));
}

#[test]
fn each_unusable_file_is_refused_by_name() {
    use KeyfileErrorKind as K;
    let private = private_hex(&alice());
    assert!(matches!(refusal(ALICE_SEED), K::BareHex));
    assert!(matches!(refusal(&format!("{}\n", ALICE_SEED.to_uppercase().replace("0X", "0x"))), K::BareHex));
    assert!(matches!(refusal("$NACL..."), K::Encrypted { sealed: Sealed::Nacl }));
    assert!(matches!(refusal("$ANSIBLE_VAULT;1.1;AES256\n00"), K::Encrypted { .. }));
    assert!(matches!(refusal("gAAAAABk"), K::Encrypted { .. }));
    assert!(matches!(refusal(""), K::Json { .. }));
    assert!(matches!(refusal("[]"), K::Json { .. }));
    assert!(matches!(refusal(r#"{"secretPhrase":"a b c"}"#), K::UnreadableSecret));
    assert!(matches!(refusal(&format!(r#"{{"publicKey":"{}"}}"#, public_hex(&alice()))), K::NoSecret));
    assert!(matches!(refusal(r#"{"privateKey":"0x12"}"#), K::UnreadableSecret));
    assert!(matches!(refusal(&format!(r#"{{"privateKey":"{private}","cryptoType":0}}"#)), K::CryptoType(0)));
    let wrong = format!(r#"{{"privateKey":"{private}","ss58Address":"5nope"}}"#);
    assert!(matches!(refusal(&wrong), K::PublicField { field: "ss58Address" }));
    let two = format!(r#"{{"secretSeed":"{ALICE_SEED}","privateKey":"{}"}}"#, private_hex(&bob()));
    assert!(matches!(refusal(&two), K::SecretsDisagree));
    assert!(matches!(refusal(&" ".repeat(MAX_FILE_BYTES + 1)), K::TooLong));
    assert!(refusal(r#"{"cryptoType":0,"privateKey":"0x"}"#).to_string().contains("ed25519"));
}

#[test]
fn an_overlong_file_is_refused_unread() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hot");
    fs::write(&path, vec![b' '; MAX_FILE_BYTES + 1]).unwrap();
    assert!(matches!(load(&path).unwrap_err().kind, KeyfileErrorKind::TooLong));
    let missing = load(&dir.path().join("none")).unwrap_err();
    assert!(matches!(missing.kind, KeyfileErrorKind::Io { doing: "open it", .. }));
    assert!(missing.to_string().contains("none"));
    assert!(matches!(load(dir.path()).unwrap_err().kind, KeyfileErrorKind::NotAFile));
    // A pipe that nobody writes to must not hold up a node.
    let pipe = dir.path().join("pipe");
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RUSR, 0).unwrap();
    assert!(matches!(load(&pipe).unwrap_err().kind, KeyfileErrorKind::NotAFile));
}

#[test]
fn no_error_or_debug_output_holds_a_secret() {
    let private = private_hex(&alice());
    // Valid JSON up to the end, then a stray character: a parser's own message may quote what it saw.
    let broken = format!(r#"{{"privateKey":"{private}","secretSeed":"{ALICE_SEED}","cryptoType":"{private}"}}"#);
    let kind = refusal(&broken);
    let text = format!("{kind} {kind:?}");
    assert!(!text.contains(&private[2..18]) && !text.contains(&ALICE_SEED[2..18]), "{text}");

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("hot");
    create(&path, &alice()).unwrap();
    let text = format!("{:?}", load(&path).unwrap());
    assert!(!text.contains(&private[2..18]), "{text}");
}

#[test]
fn the_owners_address_round_trips_without_any_secret() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("w/coldkeypub.txt");
    let owner = Coldkey(bob().hotkey().0);
    create_coldkeypub(&path, &owner).unwrap();
    assert_eq!(load_coldkeypub(&path).unwrap(), owner);
    assert!(matches!(create_coldkeypub(&path, &owner).unwrap_err().kind, KeyfileErrorKind::Exists));
    assert!(matches!(load(&path).unwrap_err().kind, KeyfileErrorKind::NoSecret));
    let empty = dir.path().join("empty");
    fs::write(&empty, "{}").unwrap();
    assert!(matches!(load_coldkeypub(&empty).unwrap_err().kind, KeyfileErrorKind::NoPublic));
}

const PHRASE: &str = "bottom drive obey lake curtain smoke basket hold race lonely fit walk";

#[test]
fn any_one_secret_is_enough_and_a_phrase_is_read_as_substrate_does() {
    let dev = Keypair::from_uri(PHRASE).unwrap();
    let address = dev.hotkey();
    assert_eq!(decode(format!(r#"{{"secretPhrase":"{PHRASE}"}}"#).as_bytes(), None).unwrap().hotkey(), address);
    let text = format!(r#"{{"secretPhrase":"{PHRASE}","secretSeed":"{ALICE_SEED}","ss58Address":"{address}"}}"#);
    assert_eq!(decode(text.as_bytes(), None).unwrap().hotkey(), address, "a foreign seed falls through to the phrase");
    let text = format!(r#"{{"secretPhrase":"{PHRASE}","ss58Address":"{}"}}"#, alice().hotkey());
    assert!(matches!(refusal(&text), KeyfileErrorKind::WrongSecret { .. }));
}

#[test]
fn what_is_told_of_a_file_without_a_password() {
    let text = format!(r#"{{"publicKey":"{}","secretSeed":"{ALICE_SEED}","privateKey":"x"}}"#, public_hex(&alice()));
    let seen = inspect(text.as_bytes()).unwrap();
    assert_eq!((seen.secrets, seen.sealed, seen.crypto_type), (vec!["secretSeed", "privateKey"], None, None));
    assert_eq!((seen.public.unwrap(), seen.key.unwrap()), (Some(alice().hotkey()), alice().hotkey()));
    let seen = inspect(b"$NACL and so on").unwrap();
    assert_eq!(seen.sealed, Some(Sealed::Nacl));
    assert!(matches!(seen.key, Err(KeyfileErrorKind::Encrypted { .. })));
    assert!(matches!(decode_public(b"$NACL and so on"), Err(KeyfileErrorKind::Encrypted { .. })));
}
