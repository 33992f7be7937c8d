//! Wallet files as Bittensor's own tools wrote them, and the programs that use them.
//!
//! The slow decryptions are few. NaCl takes 512 MiB and, unoptimised, four seconds: one is made. Fernet takes ten million
//! rounds and half a minute: it is left to `--ignored`, which `scripts/test` runs. What can be checked with cheaper keys,
//! every altered byte for example, is in the unit tests of `wallet::sealed`.

#![expect(clippy::unwrap_used, reason = "a test's helpers fail the test")]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use compute_subnet::wallet::keyfile::{self, KeyfileErrorKind as K};
use compute_subnet::wallet::password::{Source, Sources, Whose, variable};
use compute_subnet::wallet::{LoadedKey, Sealed, UnlockError, sealed::SealError, unlock};
use secrecy::SecretString;

const MINER: &str = env!("CARGO_BIN_EXE_compute-miner");
const VALIDATOR: &str = env!("CARGO_BIN_EXE_compute-validator");
const REGISTER: &str = env!("CARGO_BIN_EXE_compute-register");
const PASSWORD: &str = "Correct-Horse-9!";
const ABANDON: &str = "5EPCUjPxiHAcNooYipQFWr9NmmXJKpNG5RhcntXwbtUySrgH";
const ALICE: &str = "5GrwvaEF5zXb26Fz9rcQpDWS57CtERHpNehXCPcNoHGKutQY";

/// One at a time: two decryptions at once would take twice the memory.
static SLOW: Mutex<()> = Mutex::new(());

fn vectors() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/wallets")
}

/// The files of the manifest: path, mode and what it says of each.
fn manifest() -> Vec<(String, u32, serde_json::Value)> {
    let text = fs::read(vectors().join("MANIFEST.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(manifest["password_of_every_encrypted_file"], PASSWORD);
    let row = |file: &serde_json::Value| {
        let mode = u32::from_str_radix(file["mode"].as_str().unwrap().trim_start_matches("0o"), 8).unwrap();
        (file["path"].as_str().unwrap().to_owned(), mode, file.clone())
    };
    manifest["files"].as_array().unwrap().iter().map(row).collect()
}

/// The wallets of the vectors with the modes that their tools gave them, in directories of mode 0700.
fn wallets() -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    for (path, mode, _) in manifest() {
        let to = root.path().join(&path);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(vectors().join(&path), &to).unwrap();
        set_mode(&to, mode);
        for dir in to.ancestors().skip(1).take_while(|dir| *dir != root.path()) {
            set_mode(dir, 0o700);
        }
    }
    root
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// What a node makes of a file.
#[derive(Debug, PartialEq)]
enum Outcome {
    Hotkey(&'static str),
    Address(&'static str),
    Refused(&'static str),
}
use Outcome::{Address, Hotkey, Refused};

const HK_SEED: &str = "5DtDLm5rQHShDqojQpsvcN8tRXHVFaecfDoRet1SU6BFD9Fi";

/// Every file of the manifest. Three differ from what its tool did: the damaged seed, which it cannot read back, and the
/// Fernet file, which it no longer can, load here; ed25519 does not.
const EXPECTED: [(&str, Outcome); 17] = [
    ("watch/coldkeypub.txt", Address(ABANDON)),
    ("encrypted/coldkey", Hotkey(ABANDON)),
    ("encrypted/coldkeypub.txt", Address(ABANDON)),
    ("encrypted/hotkeys/hk_enc", Hotkey(ABANDON)),
    ("legacy/hotkeys/hk_ansible_vault", Hotkey(ABANDON)),
    ("legacy/hotkeys/hk_fernet", Hotkey(ABANDON)),
    ("legacy/hotkeys/hk_raw_hex", Refused("some tools read as a seed and others as a public key")),
    ("legacy/hotkeys/hk_v7_json_full", Hotkey(ABANDON)),
    ("legacy/hotkeys/hk_v7_json_privatekey_only", Hotkey(ALICE)),
    ("plain/coldkey", Hotkey(ABANDON)),
    ("plain/coldkeypub.txt", Address(ABANDON)),
    ("plain/hotkeys/hk_ed25519", Refused("cryptoType 0 is not supported (0 is ed25519)")),
    ("plain/hotkeys/hk_mnemonic12", Hotkey(ABANDON)),
    ("plain/hotkeys/hk_mnemonic24", Hotkey("5DqrYQvokrzYkioJSFc6RWd2gnBibZSsKALyXZV3XJ1V8rAv")),
    ("plain/hotkeys/hk_seed", Hotkey(HK_SEED)),
    ("plain/hotkeys/hk_uri_alice", Hotkey(ALICE)),
    ("plain/hotkeys/hk_uri_derived", Hotkey("5FncfQd6TSSpUMsaoMFpibpTtF8wRnrfEk8yx9HSZWvr1HQ9")),
];

#[test]
fn every_file_of_the_manifest_is_the_address_it_says_or_is_refused_with_the_reason() {
    let _slow = SLOW.lock().unwrap();
    let root = wallets();
    let listed: BTreeSet<String> = manifest().into_iter().map(|(path, ..)| path).collect();
    assert_eq!(listed, EXPECTED.iter().map(|(path, _)| (*path).to_owned()).collect(), "every file has its row");
    let password = SecretString::from(PASSWORD);
    for (path, _, said) in manifest() {
        let (_, expected) = EXPECTED.iter().find(|(row, _)| *row == path).unwrap();
        let file = root.path().join(&path);
        if SLOW_FILES.contains(&path.as_str()) {
            continue; // opened by the test below
        }
        let loaded = keyfile::read(&file).unwrap().open(Some(&password));
        match expected {
            Hotkey(address) => assert_eq!(loaded.unwrap().hotkey().to_string(), *address, "{path}"),
            Address(address) => {
                assert_eq!(keyfile::load_coldkeypub(&file).unwrap().to_string(), *address, "{path}");
                let refused = loaded.unwrap_err();
                assert!(matches!(refused.kind, K::NoSecret), "{path}: {refused}");
            }
            Refused(reason) => {
                let refused = loaded.unwrap_err().to_string();
                assert!(refused.contains(reason) && refused.contains(&path), "{refused}");
            }
        }
        if let (Some(theirs), Hotkey(ours) | Address(ours)) = (said["loads_as"].as_str(), expected) {
            assert_eq!(theirs, *ours, "{path}: as the tool that wrote it");
        }
    }
}

#[test]
fn each_secret_of_a_plain_file_is_enough_alone() {
    for (path, _, _) in manifest().into_iter().filter(|(path, ..)| path.starts_with("plain/hotkeys")) {
        let Some((_, Hotkey(address))) = EXPECTED.iter().find(|(row, _)| *row == path) else { continue };
        let whole: serde_json::Value = serde_json::from_slice(&fs::read(vectors().join(&path)).unwrap()).unwrap();
        let secrets = ["secretSeed", "secretPhrase", "privateKey"];
        for kept in secrets.into_iter().filter(|name| whole[*name].is_string()) {
            let mut one = whole.clone();
            one.as_object_mut().unwrap().retain(|name, _| name == kept || !secrets.contains(&name.as_str()));
            let loaded = keyfile::decode(one.to_string().as_bytes(), None);
            if path.ends_with("hk_seed") && kept == "secretSeed" {
                assert!(matches!(loaded, Err(K::UnreadableSecret)), "the damaged seed alone is no key");
            } else {
                assert_eq!(loaded.unwrap().hotkey().to_string(), *address, "{path} by {kept}");
            }
        }
    }
}

/// Left to the slow tests.
const SLOW_FILES: [&str; 2] = ["encrypted/coldkey", "legacy/hotkeys/hk_fernet"];

#[test]
#[ignore = "half a minute of ten million rounds: scripts/test runs it"]
fn the_slow_files_of_the_manifest_open_too() {
    let _slow = SLOW.lock().unwrap();
    for path in SLOW_FILES {
        let file = keyfile::read(&vectors().join(path)).unwrap();
        let key = file.open(Some(&SecretString::from(PASSWORD))).unwrap();
        assert_eq!(key.hotkey().to_string(), ABANDON, "{path}");
    }
}

#[test]
#[ignore = "two more times 512 MiB and four seconds: scripts/test runs it"]
fn a_wrong_password_and_an_altered_file_do_not_open_nacl() {
    let _slow = SLOW.lock().unwrap();
    let file = fs::read(vectors().join("encrypted/hotkeys/hk_enc")).unwrap();
    let refused = keyfile::decode(&file, Some(&SecretString::from("correct-horse-9!"))).unwrap_err();
    assert!(matches!(refused, K::Sealed { sealed: Sealed::Nacl, error: SealError::Refused }), "{refused}");
    let mut altered = file.clone();
    altered[300] ^= 1;
    let refused = keyfile::decode(&altered, Some(&SecretString::from(PASSWORD))).unwrap_err();
    assert!(matches!(refused, K::Sealed { sealed: Sealed::Nacl, error: SealError::Refused }), "{refused}");
}

// ---- passwords ----

const VAULT: &str = "legacy/hotkeys/hk_ansible_vault";

/// The key, and where its password came from.
fn load_with(file: &Path, environment: &[(String, String)]) -> Result<(LoadedKey, Option<Source>), UnlockError> {
    let lookup = |name: &str| environment.iter().find(|(n, _)| n == name).map(|(_, value)| OsString::from(value));
    let mut told = None;
    let sources = Sources { whose: Whose::Hotkey, file: None, environment: &lookup, terminal: false };
    unlock::load(file, &sources, |_, source| told = Some(source.clone())).map(|loaded| (loaded, told))
}

fn open_with(file: &Path, environment: &[(String, String)]) -> Result<(String, Option<Source>), UnlockError> {
    load_with(file, environment).map(|(loaded, told)| (loaded.keypair.hotkey().to_string(), told))
}

#[test]
fn the_environments_password_opens_the_file_obfuscated_or_plain() {
    let root = wallets();
    let file = root.path().join(VAULT);
    let name = variable(&file);
    // As the wallet library writes it: computed here, not by the code under test.
    let masked: Vec<u8> = PASSWORD.bytes().enumerate().map(|(at, b)| b ^ name.as_bytes()[at % name.len()]).collect();
    for value in [base64(&masked), PASSWORD.to_owned()] {
        let opened = open_with(&file, &[(name.clone(), value)]).unwrap();
        assert_eq!(opened, (ABANDON.to_owned(), Some(Source::Environment(name.clone()))));
    }
    let refused = open_with(&file, &[(name.clone(), "other".to_owned())]).unwrap_err();
    let text = refused.to_string();
    assert!(matches!(refused, UnlockError::WrongPassword { .. }));
    for told in [file.to_str().unwrap(), "Ansible vault", "wallet.password_file", "hotkey-password", &name] {
        assert!(text.contains(told), "{told}: {text}");
    }
    assert!(!text.contains("other\"") && !text.contains(PASSWORD));
    let none = open_with(&file, &[]).unwrap_err();
    assert!(matches!(none, UnlockError::NoPassword { .. }) && none.to_string().contains(&name), "{none}");
    // A plain file takes no password and asks for none.
    let plain = root.path().join("plain/hotkeys/hk_seed");
    assert_eq!(open_with(&plain, &[(variable(&plain), "x".to_owned())]).unwrap(), (HK_SEED.to_owned(), None));
}

/// Standard base64 with padding, by hand.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let digits = bytes.chunks(3).flat_map(|three| {
        let word = three.iter().fold(0u32, |word, &b| word << 8 | u32::from(b)) << (8 * (3 - three.len()));
        (0..4).map(move |at| match at <= three.len() {
            true => char::from(DIGITS[(word >> (18 - 6 * at)) as usize & 63]),
            false => '=',
        })
    });
    digits.collect()
}

// ---- the programs ----

fn program(exe: &str, home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(exe);
    command.args(args).env_clear().env("HOME", home).stdin(Stdio::null());
    command
}

/// Standard output, standard error, exit code.
fn told(output: Output) -> (String, String, Option<i32>) {
    (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap(), output.status.code())
}

fn register(root: &Path, args: &[&str]) -> (String, String, Option<i32>) {
    register_with(root, &[], args)
}

/// `compute-register` with these settings, then `wallet` and its arguments.
fn register_with(root: &Path, settings: &[&str], args: &[&str]) -> (String, String, Option<i32>) {
    let path = root.to_str().unwrap();
    let all = [settings, &["--wallet.path", path, "wallet"], args].concat();
    let (out, err, code) = told(program(REGISTER, root, &all).output().unwrap());
    (out.replace(path, "WALLETS"), err.replace(path, "WALLETS"), code)
}

#[test]
fn the_wallets_of_a_machine_are_listed_without_a_password() {
    let root = wallets();
    fs::write(root.path().join("notes.txt"), "x").unwrap();
    fs::create_dir(root.path().join("empty")).unwrap();
    fs::write(root.path().join("legacy/hotkeys/foreign\u{1b}[31m"), "not a key").unwrap();
    fs::create_dir(root.path().join("legacy/hotkeys/directory")).unwrap();
    let public = fs::read(root.path().join("watch/coldkeypub.txt")).unwrap();
    fs::write(root.path().join("encrypted/hotkeys/hk_encpub.txt"), &public).unwrap();
    fs::write(root.path().join("encrypted/hotkeys/elsewherepub.txt"), &public).unwrap();
    fs::set_permissions(root.path().join("plain"), fs::Permissions::from_mode(0o755)).unwrap();
    set_mode(&root.path().join("plain/hotkeys"), 0o755);
    for dir in ["empty", "legacy/hotkeys/directory"] {
        set_mode(&root.path().join(dir), 0o700);
    }
    for file in
        ["legacy/hotkeys/foreign\u{1b}[31m", "encrypted/hotkeys/hk_encpub.txt", "encrypted/hotkeys/elsewherepub.txt"]
    {
        set_mode(&root.path().join(file), 0o600);
    }
    let (out, err, code) = register(root.path(), &["list"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    insta::assert_snapshot!("list", out);
    let (json, _, code) = register(root.path(), &["list", "--json"]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (code, json["wallets"].as_array().unwrap().len(), json["foreign"].as_array().unwrap().len()),
        (Some(0), 4, 2)
    );
    let keys = json["wallets"].as_array().unwrap().iter().flat_map(|w| w["hotkeys"].as_array().unwrap()).count();
    assert_eq!(keys, 15);
    let (_, err, code) = register(&root.path().join("none"), &["list"]);
    assert!(code == Some(65) && err.contains("--wallet.path"), "{err}");
}

#[test]
fn a_wallet_is_shown_with_the_names_of_its_secrets_only() {
    let root = wallets();
    let (out, err, code) = register(root.path(), &["show", "plain"]);
    // One of its keys no node can use.
    assert_eq!((code, err.as_str()), (Some(65), ""));
    insta::assert_snapshot!("show_plain", out);
    for secret in ["abandon", "2ec306fc", "4ed8d4b1", "abf8e5bd"] {
        let (json, ..) = register(root.path(), &["show", "plain", "--json"]);
        assert!(!out.contains(secret) && !json.contains(secret), "{secret}");
    }
    let (out, _, code) = register(root.path(), &["show", "watch"]);
    assert!(code == Some(0) && out.contains(ABANDON) && out.contains("it has no hotkeys"), "{out}");
    let (_, err, code) = register(root.path(), &["show", "nobody"]);
    assert!(code == Some(65) && err.contains("wallet list"), "{err}");
}

#[test]
fn a_shown_wallet_is_unlocked_only_by_its_password() {
    let root = wallets();
    let password = root.path().join("password");
    fs::write(&password, format!("{PASSWORD}\n")).unwrap();
    let file = format!("wallet.password_file={}", password.display());
    let vault = ["show", "legacy", "--hotkey", "hk_ansible_vault"];
    let unlock = || register_with(root.path(), &["--set", &file], &[&vault[..], &["--unlock"]].concat());
    let (out, _, code) = register(root.path(), &vault);
    assert!(code == Some(0) && out.contains("address  unknown") && out.contains("--unlock tries"), "{out}");
    let (out, err, code) = unlock();
    assert!(code == Some(0) && out.contains(ABANDON) && out.contains("a node can act with it: "), "{out}");
    assert!(err.contains("decrypting with the password from WALLETS/password (wallet.password_file)"), "{err}");
    fs::write(&password, "wrong").unwrap();
    let (out, _, code) = unlock();
    assert!(code == Some(65) && out.contains("does not open key file"), "{out}");
    // A companion that states another key.
    let public = fs::read_to_string(root.path().join("watch/coldkeypub.txt")).unwrap().replace(ABANDON, ALICE);
    fs::write(root.path().join("legacy/hotkeys/hk_ansible_vaultpub.txt"), public).unwrap();
    fs::write(&password, PASSWORD).unwrap();
    let (out, _, code) = unlock();
    assert!(code == Some(65) && out.contains("states another key"), "{out}");
}

/// What a node says and how it ends if it has no directory for its database, which it needs after it has its key.
async fn node(exe: &str, home: &Path, hotkey: &str, environment: &[(&str, &Path)]) -> (String, Option<i32>) {
    let path = home.to_str().unwrap();
    let wallet = ["--wallet.path", path, "--wallet.name", "legacy", "--wallet.hotkey", hotkey];
    let ledger = ["--subtensor.network", "ledger=http://127.0.0.1:1", "--node.data_dir", "/dev/null/none"];
    let mut command = program(exe, home, &[&wallet[..], &ledger].concat());
    command.envs(environment.iter().copied());
    let output = tokio::process::Command::from(command).kill_on_drop(true).output();
    let ended = tokio::time::timeout(Duration::from_secs(30), output).await.expect("the node ends");
    let (_, err, code) = told(ended.unwrap());
    (err, code)
}

#[tokio::test]
async fn a_node_takes_the_password_of_its_hotkey_from_systemd_and_says_what_it_waits_for() {
    let root = wallets();
    let credentials = root.path().join("credentials");
    fs::create_dir(&credentials).unwrap();
    fs::write(credentials.join("hotkey-password"), PASSWORD).unwrap();
    set_mode(&credentials.join("hotkey-password"), 0o600);
    for exe in [MINER, VALIDATOR] {
        let given = [("CREDENTIALS_DIRECTORY", credentials.as_path())];
        let (err, code) = node(exe, root.path(), "hk_ansible_vault", &given).await;
        assert_eq!(err.matches("decrypting the hotkey").count(), 1, "{err}");
        assert!(err.contains("a credential of systemd") && !err.contains(PASSWORD), "{err}");
        assert!(err.contains("the key file has mode 0644, others can read the secret"), "{err}");
        // The key was had; what is missing is the directory.
        assert!(code != Some(65) && !err.contains("the hotkey cannot be used"), "{code:?}: {err}");
        assert!(err.contains("/dev/null/none"), "{err}");

        let (err, code) = node(exe, root.path(), "hk_ansible_vault", &[]).await;
        assert_eq!(code, Some(65), "{err}");
        assert!(err.contains("there is no password") && err.contains("wallet.password_file"), "{err}");
    }
}

/// A terminal: the end that a person types at, and the program's.
fn pseudoterminal() -> (fs::File, fs::File) {
    use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
    let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&controller).unwrap();
    unlockpt(&controller).unwrap();
    let name = ptsname(&controller, Vec::new()).unwrap();
    let terminal = fs::OpenOptions::new().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    (controller.into(), terminal)
}

/// The program, once it asks at the terminal for the password of the Ansible vault.
fn asking(mut command: Command, terminal: &fs::File) -> Child {
    command.stdin(terminal.try_clone().unwrap()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut prompt = Vec::new();
    let stderr = child.stderr.as_mut().unwrap();
    while !prompt.ends_with(b"hk_ansible_vault: ") {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{}", String::from_utf8_lossy(&prompt));
        prompt.push(byte[0]);
    }
    child
}

#[test]
fn no_program_that_loads_a_key_can_leave_a_core_dump() {
    let root = wallets();
    let path = root.path().to_str().unwrap();
    let show = ["--wallet.path", path, "wallet", "show", "legacy", "--hotkey", "hk_ansible_vault", "--unlock"];
    let wallet = ["--wallet.path", path, "--wallet.name", "legacy", "--wallet.hotkey", "hk_ansible_vault"];
    let ledger = ["--subtensor.network", "ledger=http://127.0.0.1:1", "--node.data_dir", "/dev/null/none"];
    let node = [&wallet[..], &ledger].concat();
    let (_controller, terminal) = pseudoterminal();
    for (exe, args) in [(MINER, &node[..]), (VALIDATOR, &node), (REGISTER, &show)] {
        let mut child = asking(program(exe, root.path(), args), &terminal);
        let limits = fs::read_to_string(format!("/proc/{}/limits", child.id())).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
        assert_eq!(core.split_whitespace().collect::<Vec<_>>(), ["0", "0", "bytes"], "{exe}");
    }
}

#[test]
fn a_key_that_is_not_the_one_of_the_public_file_beside_it_is_refused_with_both_addresses() {
    let root = wallets();
    let public = fs::read_to_string(root.path().join("watch/coldkeypub.txt")).unwrap();
    for (file, environment) in [("plain/hotkeys/hk_mnemonic12", None), (VAULT, Some(PASSWORD.to_owned()))] {
        let file = root.path().join(file);
        let environment: Vec<_> = environment.into_iter().map(|password| (variable(&file), password)).collect();
        let companion = PathBuf::from(format!("{}pub.txt", file.display()));
        fs::write(&companion, &public).unwrap();
        assert_eq!(open_with(&file, &environment).unwrap().0, ABANDON, "the same key");
        fs::write(&companion, "no key").unwrap();
        let unclear: Vec<_> =
            load_with(&file, &environment).unwrap().0.warnings.iter().map(ToString::to_string).collect();
        let unclear = unclear.join("\n");
        assert!(unclear.contains("not a JSON key file") && unclear.contains(companion.to_str().unwrap()), "{unclear}");
        fs::write(&companion, public.replace(ABANDON, ALICE)).unwrap();
        let refused = open_with(&file, &environment).unwrap_err();
        let text = refused.to_string();
        assert!(matches!(refused, UnlockError::AnotherKey { .. }), "{text}");
        for told in [file.to_str().unwrap(), companion.to_str().unwrap(), ABANDON, ALICE, "states another key"] {
            assert!(text.contains(told), "{told}: {text}");
        }
    }
}

#[test]
fn a_person_at_a_terminal_is_asked_and_nothing_is_shown() {
    let root = wallets();
    let path = root.path().to_str().unwrap();
    let show = ["--wallet.path", path, "wallet", "show", "legacy", "--hotkey", "hk_ansible_vault", "--unlock"];
    let session = |keys: &str| {
        let (mut controller, terminal) = pseudoterminal();
        let before = rustix::termios::tcgetattr(&terminal).unwrap();
        // Only once it asks: what is typed before is shown by the terminal itself.
        let child = asking(program(REGISTER, root.path(), &show), &terminal);
        controller.write_all(keys.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let after = rustix::termios::tcgetattr(&terminal).unwrap();
        assert_eq!(before.local_modes, after.local_modes, "the terminal is given back as it was");
        // What the terminal showed: nothing, so that nothing is there to be read but what is written now.
        (&terminal).write_all(b".").unwrap();
        let mut shown = [0; 256];
        let length = controller.read(&mut shown).unwrap();
        assert_eq!(&shown[..length], b".", "typed keys are not shown");
        (String::from_utf8(output.stdout).unwrap(), output.status.code())
    };
    let (out, code) = session(&format!("wrong\x15{PASSWORD}\r"));
    assert!(code == Some(0) && out.contains(ABANDON), "{out}");
    let (out, code) = session("half\x03");
    assert!(code == Some(65) && out.contains("no password was entered"), "{out}");
}
