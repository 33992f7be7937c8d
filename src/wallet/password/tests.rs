//! Which source counts, and how its value is read.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use secrecy::ExposeSecret;

use super::*;

const KEYFILE: &str = "/tmp/x/out/vectors/wallets/encrypted/coldkey";
const VARIABLE: &str = "BT_PW__TMP_X_OUT_VECTORS_WALLETS_ENCRYPTED_COLDKEY";
const PASSWORD: &str = "Correct-Horse-9!";

fn masked(name: &str, password: &str) -> String {
    STANDARD.encode(password.bytes().zip(name.bytes().cycle()).map(|(b, key)| b ^ key).collect::<Vec<u8>>())
}

/// The readings and the source, with this file and environment and without a terminal.
fn find(file: Option<&Path>, environment: &[(&str, &str)]) -> Result<Option<Found>, PasswordError> {
    let environment: HashMap<&str, &str> = environment.iter().copied().collect();
    let lookup = |name: &str| environment.get(name).map(OsString::from);
    Sources { whose: Whose::Hotkey, file, environment: &lookup, terminal: false }.find(Path::new(KEYFILE))
}

#[test]
fn a_coldkey_is_never_tried_with_the_password_of_a_hotkey() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "the hotkey's").unwrap();
    fs::write(dir.path().join(CREDENTIAL), "the hotkey's").unwrap();
    let credentials = OsString::from(dir.path());
    let given = |variable: Option<&'static str>| {
        let lookup = |name: &str| match name {
            "CREDENTIALS_DIRECTORY" => Some(credentials.clone()),
            VARIABLE => variable.map(OsString::from),
            _ => None,
        };
        let sources = Sources { whose: Whose::Coldkey, file: Some(&file), environment: &lookup, terminal: false };
        sources.find(Path::new(KEYFILE)).unwrap().map(|found| texts(&found).join(","))
    };
    assert_eq!(given(None), None);
    assert_eq!(given(Some("the coldkey's")).as_deref(), Some("the coldkey's"));
    let places = Sources::of_coldkey().places(Path::new(KEYFILE));
    assert!(places.contains(VARIABLE) && !places.contains("password_file"), "{places}");
}

fn texts(found: &Found) -> Vec<&str> {
    found.readings.iter().map(ExposeSecret::expose_secret).collect()
}

#[test]
fn the_variable_has_the_name_that_other_tools_give_it() {
    assert_eq!(variable(Path::new(KEYFILE)), VARIABLE);
    let home = variable(Path::new("/root/.bittensor/wallets/x/coldkey"));
    assert_eq!(home, "BT_PW__ROOT__BITTENSOR_WALLETS_X_COLDKEY");
}

#[test]
fn the_first_source_that_has_a_password_counts() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "from the file").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
    let credentials = dir.path().to_str().unwrap();
    fs::write(dir.path().join(CREDENTIAL), "from systemd\n").unwrap();
    let all = [("CREDENTIALS_DIRECTORY", credentials), (VARIABLE, "from the environment")];

    let found = find(Some(&file), &all).unwrap().unwrap();
    assert_eq!((texts(&found), &found.source), (vec!["from the file"], &Source::File(file.clone())));
    assert_eq!(found.warning, None);
    let found = find(None, &all).unwrap().unwrap();
    assert_eq!(texts(&found), ["from systemd"]);
    assert!(matches!(found.source, Source::Credential(_)));
    fs::remove_file(dir.path().join(CREDENTIAL)).unwrap();
    let found = find(None, &all).unwrap().unwrap();
    assert_eq!((texts(&found), &found.source), (vec!["from the environment"], &Source::Environment(VARIABLE.into())));
    assert!(find(None, &[("CREDENTIALS_DIRECTORY", ""), (VARIABLE, "")]).unwrap().is_none());
    // A file that is named but not there is not passed over.
    let missing = find(Some(&dir.path().join("none")), &all).unwrap_err();
    assert!(missing.to_string().contains("none: cannot open it"), "{missing}");
}

#[test]
fn one_line_end_of_a_file_is_not_part_of_the_password() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    let read = |content: &[u8]| {
        fs::write(&file, content).unwrap();
        find(Some(&file), &[]).map(|found| texts(&found.unwrap()).join("|")).map_err(|error| error.to_string())
    };
    assert_eq!(read(b"pass word\n").unwrap(), "pass word");
    assert_eq!(read(b"pass\r\n").unwrap(), "pass");
    assert_eq!(read(b"pass").unwrap(), "pass");
    assert_eq!(read(b" pass \n\n").unwrap(), " pass \n");
    for (content, wrong) in [
        (&b""[..], "is empty"),
        (b"\n", "is empty"),
        (b"\xff\xfe", "is not UTF-8 text"),
        (&[b'x'; MAX_PASSWORD_BYTES + 1], "is longer than 4096 bytes"),
    ] {
        assert!(read(content).unwrap_err().contains(wrong), "{wrong}");
    }
}

#[test]
fn a_password_file_that_others_can_read_is_warned_about() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("password");
    fs::write(&file, "p").unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let warning = find(Some(&file), &[]).unwrap().unwrap().warning.unwrap().to_string();
    assert!(warning.contains("0640") && warning.contains("chmod 600"), "{warning}");
}

#[test]
fn an_obfuscated_variable_is_tried_unmasked_first_and_then_as_it_stands() {
    let value = masked(VARIABLE, PASSWORD);
    assert_eq!(texts(&find(None, &[(VARIABLE, &value)]).unwrap().unwrap()), [PASSWORD, &value]);
    // No base64, and base64 that does not become text.
    for plain in [PASSWORD, "////"] {
        assert_eq!(texts(&find(None, &[(VARIABLE, plain)]).unwrap().unwrap()), [plain]);
    }
}

#[test]
fn no_debug_output_holds_a_password() {
    let found = find(None, &[(VARIABLE, PASSWORD)]).unwrap().unwrap();
    assert!(!format!("{found:?}").contains(PASSWORD));
    let long = PASSWORD.repeat(1000);
    assert!(!format!("{:?}", find(None, &[(VARIABLE, &long)]).unwrap_err()).contains(PASSWORD));
}
