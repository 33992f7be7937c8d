use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rsa::pkcs1::EncodeRsaPublicKey as _;
use rsa::pkcs8::{DecodePrivateKey as _, EncodePublicKey as _, LineEnding};
use rsa::{Oaep, RsaPrivateKey, RsaPublicKey};
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use sha2::Sha256;

use super::*;
use crate::hardware;
use crate::wire::classic::envelope::{TerminalJson, Whole};
use crate::wire::classic::{ClassicSynapse, EMPTY_BODY_HASH, Envelope};

const VECTORS: &str = include_str!("../../../../tests/vectors/axon/compute_subnet_9.0.0.json");
/// A key of 2048 bits for these tests.
const KEY: &str = include_str!("../../../../tests/vectors/rsa_2048_of_tests.pem");

fn read<S: ClassicSynapse>(body: Value) -> S {
    Envelope::read(body.to_string().as_bytes()).unwrap_or_else(|e| panic!("{e}: {body}")).own
}

/// Reads a captured body and writes it again, base fields and all.
fn again<S: ClassicSynapse>(body: &str) -> Value {
    let Envelope { base, own } = Envelope::<S>::read(body.as_bytes()).unwrap();
    let whole: Value = serde_json::from_str(body).unwrap();
    let terminal = |name: &str| serde_json::from_value::<TerminalJson>(whole[name].clone()).unwrap();
    let bytes = Whole::new(&base, terminal("dendrite"), terminal("axon"), &own).encode().unwrap();
    serde_json::from_slice(&bytes).unwrap()
}

#[test]
fn captured_bodies_are_read_and_written_again_as_they_were() {
    let vectors: Value = serde_json::from_str(VECTORS).unwrap();
    let mut seen = 0;
    for vector in vectors["vectors"].as_array().unwrap() {
        let id = vector["id"].as_str().unwrap();
        for side in ["request", "response"] {
            let body = || vector[side]["body_text"].as_str().unwrap();
            let written = match id {
                "ok_compute_allocate" | "ok_compute_allocate_check" => again::<Allocate>(body()),
                "ok_compute_challenge" => again::<Challenge>(body()),
                "ok_compute_specs" => again::<Specs>(body()),
                _ => continue,
            };
            assert_eq!(written, serde_json::from_str::<Value>(body()).unwrap(), "{id} {side}");
            seen += 1;
        }
    }
    assert_eq!(seen, 8);
}

#[test]
fn nothing_sent_is_the_originals_defaults_in_its_order() {
    let keys = |text: &str| {
        let mut places: Vec<(usize, String)> = serde_json::from_str::<Value>(text)
            .unwrap()
            .as_object()
            .unwrap()
            .keys()
            .map(|key| (text.find(&format!("\"{key}\":")).unwrap(), key.clone()))
            .collect();
        places.sort_unstable();
        places.into_iter().map(|(_, key)| key).collect::<Vec<_>>().join(" ")
    };
    let allocate = read::<Allocate>(json!({}));
    let text = serde_json::to_string(&allocate).unwrap();
    assert_eq!(
        serde_json::from_str::<Value>(&text).unwrap(),
        json!({
            "timeline": 0, "device_requirement": {}, "checking": true, "output": {}, "public_key": "",
            "docker_requirement":
                {"base_image": "ubuntu", "ssh_key": "", "ssh_port": 4444, "volume_path": "/tmp", "dockerfile": ""},
            "docker_change": false, "docker_action": {"action": "", "ssh_key": "", "key_type": ""},
        })
    );
    // All top-level keys; those of the objects within come sorted.
    let order = "timeline device_requirement checking output public_key docker_requirement docker_change docker_action";
    assert_eq!(keys(&text), order);

    let challenge = read::<Challenge>(json!({}));
    let text = serde_json::to_string(&challenge).unwrap();
    let order =
        "challenge_hash challenge_salt challenge_mode challenge_chars challenge_mask challenge_difficulty output";
    assert_eq!(keys(&text), order);
    assert_eq!((challenge.challenge_difficulty, challenge.output), (7, Output::default()));
    assert_eq!(serde_json::to_string(&read::<Specs>(json!({}))).unwrap(), r#"{"specs_input":"","specs_output":""}"#);

    assert_eq!(Envelope::<Allocate>::read(b"{}").unwrap().body_hash(), EMPTY_BODY_HASH);
}

#[test]
fn what_old_callers_send_for_nothing_is_nothing() {
    let nothing = read::<Allocate>(json!({
        "public_key": null, "device_requirement": "", "docker_requirement": null, "docker_action": "", "output": null,
    }));
    assert_eq!(nothing, Allocate::default());
    // As lenient as pydantic with the rest, and no more.
    let lax = read::<Allocate>(json!({"timeline": "60", "checking": 0, "docker_change": "yes", "later": [1]}));
    assert_eq!((lax.timeline, lax.checking, lax.docker_change), (60, false, true));
    for wrong in [
        json!({"timeline": 0.5}),
        json!({"timeline": null}),
        json!({"checking": "perhaps"}),
        json!({"public_key": 7}),
        json!({"device_requirement": "big"}),
        json!({"docker_action": []}),
    ] {
        assert!(Envelope::<Allocate>::read(wrong.to_string().as_bytes()).is_err(), "{wrong}");
    }
}

#[test]
fn objects_are_read_key_by_key_and_sent_back_whole() {
    let body = json!({
        "device_requirement": {
            "cpu": {"count": 4}, "gpu": {"count": 2, "capacity": 24564.0, "type": "rtx"},
            "hard_disk": {"capacity": 107374182400.0}, "ram": {"capacity": -1}, "testing": true, "later": {"a": 1},
        },
        "docker_requirement": {"ssh_key": " ssh-ed25519 AAAA me\n", "later": 1},
        "docker_action": {"action": "resume", "ssh_key": 7, "key_type": "terminal"},
    });
    let request = read::<Allocate>(body.clone());
    let wanted = &request.device_requirement;
    assert_eq!((wanted.cpu_count(), wanted.gpu_count(), wanted.gpu_capacity_mib()), (Some(4), Some(2), Some(24_564)));
    assert_eq!((wanted.gpu_type(), wanted.is_testing()), ("rtx", true));
    assert_eq!((wanted.hard_disk_bytes(), wanted.ram_bytes()), (Some(107_374_182_400), None));
    let container = &request.docker_requirement;
    assert_eq!((container.ssh_key(), container.base_image()), ("ssh-ed25519 AAAA me", ""), "replaced, not merged");
    assert_eq!((container.ssh_port(), container.dockerfile(), container.volume_path()), (None, "", ""));
    let action = &request.docker_action;
    assert_eq!((action.action(), action.ssh_key(), action.key_type()), ("resume", "", "terminal"));
    let written = serde_json::to_value(&request).unwrap();
    for object in ["device_requirement", "docker_requirement", "docker_action"] {
        assert_eq!(written[object], body[object]);
    }
    let nothing = read::<Allocate>(json!({"device_requirement": {"cpu": 3, "gpu": {}}}));
    assert_eq!((nothing.device_requirement.cpu_count(), nothing.device_requirement.gpu_count()), (None, None));
}

#[test]
fn an_output_says_what_it_was_given() {
    let output = Output::of(true).with_info("aW5mbw==".to_owned()).with_port(4444);
    assert_eq!(serde_json::to_value(&output).unwrap(), json!({"status": true, "info": "aW5mbw==", "port": 4444}));
    assert_eq!((output.status(), output.info(), output.port()), (Some(true), Some("aW5mbw=="), Some(4444)));
    assert_eq!((Output::default().status(), Output::default().port()), (None, None));
}

#[test]
fn the_key_that_owns_a_rental_is_not_printed() {
    let request = read::<Allocate>(json!({"public_key": "-----BEGIN PUBLIC KEY-----"}));
    assert!(!format!("{request:?}").contains("BEGIN"), "{request:?}");
    assert_eq!(read::<Allocate>(json!({"public_key": " x\n"})).public_key.text(), "x");
}

fn private() -> RsaPrivateKey {
    RsaPrivateKey::from_pkcs8_pem(KEY).unwrap()
}

fn pem(key: &RsaPublicKey) -> String {
    key.to_public_key_pem(LineEnding::LF).unwrap()
}

#[test]
fn credentials_are_for_the_holder_of_the_private_key() {
    let public = private().to_public_key();
    let pkcs1 = public.to_pkcs1_pem(LineEnding::CRLF).unwrap();
    for text in [pem(&public), format!("  {}\n\n", pem(&public)), pem(&public).trim().to_owned(), pkcs1] {
        let key = CallerKey::read(&text).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert_eq!(key.capacity(), 190);
        let credentials = Credentials::generate(65_535).unwrap();
        let info = key.seal(&credentials).unwrap();
        assert_eq!(info.len(), 344);
        assert_ne!(info, key.seal(&credentials).unwrap(), "no two envelopes are alike");
        let hidden = STANDARD.decode(info).unwrap();
        let opened: Value =
            serde_json::from_slice(&private().decrypt(Oaep::new::<Sha256>(), &hidden).unwrap()).unwrap();
        let password = opened["password"].as_str().unwrap();
        assert!(password.len() == 20 && password.bytes().all(|b| b.is_ascii_alphanumeric()), "{password}");
        assert_eq!(opened, json!({"username": "root", "password": password, "port": 65_535, "version": 183}));
        assert!(!format!("{credentials:?}").contains(password));
    }
}

#[test]
fn a_key_that_cannot_be_used_is_refused_with_its_reason() {
    let public = private().to_public_key();
    let good = pem(&public);
    let refused = |text: &str| CallerKey::read(text).unwrap_err();
    assert_eq!(refused(" \n"), EnvelopeError::NoKey);
    assert_eq!(refused(&"x".repeat(8_193)), EnvelopeError::TooLong(8_193));
    for text in ["secret?", "-----BEGIN PUBLIC KEY-----\nMFww\n-----END PUBLIC KEY-----\n", KEY, &good[..200]] {
        let error = refused(text);
        assert!(matches!(error, EnvelopeError::NoRsaKey(_)), "{error}");
        assert!(!error.to_string().contains("secret"), "{error}");
    }
    let of_bits = |bits: usize| {
        let n = (rsa::BigUint::from(1u8) << (bits - 1)) + rsa::BigUint::from(1u8);
        CallerKey::read(&pem(&RsaPublicKey::new_unchecked(n, rsa::BigUint::from(65_537u32))))
    };
    assert_eq!(of_bits(2_047), Err(EnvelopeError::Bits(2_047)));
    assert!(of_bits(2_048).is_ok() && of_bits(8_192).is_ok());
    assert_eq!(of_bits(8_193), Err(EnvelopeError::Bits(8_193)));
    let even = RsaPublicKey::new_unchecked(rsa::BigUint::from(1u8) << 2_047, rsa::BigUint::from(65_537u32));
    assert!(matches!(refused(&pem(&even)), EnvelopeError::NoRsaKey(_)));
}

#[test]
fn specs_are_told_in_the_originals_five_sections() {
    let ram = hardware::Ram { total: 10, available: 8, used: 2, free: 7, swap_total: 0, swap_used: 0, swap_free: 0 };
    let specs = hardware::Specs { ram: Some(ram), has_docker: true, ..Default::default() };
    let told: Value = serde_json::from_str(&specs_text(&specs)).unwrap();
    assert_eq!(told.as_object().unwrap().len(), 5);
    assert_eq!((&told["cpu"], &told["gpu"], &told["hard_disk"]), (&json!({}), &json!({}), &json!({})));
    assert_eq!((&told["ram"]["total"], &told["has_docker"]), (&json!(10), &json!(true)));
}

fn opened(info: &str) -> Value {
    let hidden = STANDARD.decode(info).unwrap();
    serde_json::from_slice(&private().decrypt(Oaep::new::<Sha256>(), &hidden).unwrap()).unwrap()
}

#[test]
fn the_hash_of_a_password_is_a_phc_string_that_only_this_password_verifies() {
    use argon2::{Algorithm, Argon2, Block, Params, Version};
    let verifies = |hash: &str, password: &str| {
        let parts: Vec<&str> = hash.split('$').collect();
        let ["", "argon2id", "v=19", "m=19456,t=2,p=1", salt, hash] = parts[..] else { panic!("{hash}") };
        let bytes = |text: &str| base64::engine::general_purpose::STANDARD_NO_PAD.decode(text).unwrap();
        let params = Params::new(19456, 2, 1, Some(32)).unwrap();
        let mut memory = vec![Block::default(); params.block_count()];
        let mut out = [0u8; 32];
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into_with_memory(password.as_bytes(), &bytes(salt), &mut out, &mut memory)
            .unwrap();
        out == bytes(hash)[..]
    };
    let credentials = Credentials::generate(4444).unwrap();
    let (first, second) = (credentials.password_hash().unwrap(), credentials.password_hash().unwrap());
    assert_ne!(first, second, "each has a salt of its own");
    let sealed = CallerKey::read(&pem(&private().to_public_key())).unwrap().seal(&credentials).unwrap();
    let opened = opened(&sealed);
    let password = opened["password"].as_str().unwrap();
    assert!(verifies(&first, password) && verifies(&second, password) && !verifies(&first, "another"));
    assert!(!format!("{credentials:?}").contains(password));
}

#[test]
fn the_fingerprint_of_the_hosts_key_fits_into_the_smallest_envelope() {
    let line = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJdD7y3aLq454yWBdwLWbieU1ebz9/cu7/QEXn9OIeZJ";
    let credentials = Credentials::generate(u16::MAX).unwrap().with_host_key(Some(line));
    let sealed = CallerKey::read(&pem(&private().to_public_key())).unwrap().seal(&credentials).unwrap();
    let envelope = opened(&sealed);
    assert!(envelope["host_key"].as_str().is_some_and(|f| f.starts_with("SHA256:") && f.len() == 50), "{envelope}");
    let odd = Credentials::generate(1).unwrap().with_host_key(Some("no key\"}"));
    let sealed = CallerKey::read(&pem(&private().to_public_key())).unwrap().seal(&odd).unwrap();
    let envelope = opened(&sealed);
    assert!(envelope.get("host_key").is_none(), "{envelope}");
}

#[test]
fn a_renter_opens_its_envelope_and_no_other() {
    let (mine, others) = (RenterKey::generate().unwrap(), RenterKey::generate().unwrap());
    assert!(mine.public().text().starts_with("-----BEGIN PUBLIC KEY-----"));
    let caller = CallerKey::read(mine.public().text()).unwrap();
    let info = caller.seal(&Credentials::generate(4444).unwrap()).unwrap();
    let login = mine.open(&format!("{info}\n")).unwrap();
    assert_eq!((login.username.as_str(), login.port, login.password.expose_secret().len()), ("root", 4444, 20));
    assert!(!format!("{login:?} {mine:?}").contains(login.password.expose_secret()));
    assert_eq!(others.open(&info).unwrap_err(), OpenError::Key);
    assert_eq!(mine.open("no base64!").unwrap_err(), OpenError::Text);
    assert_eq!(mine.open(&"A".repeat(5_000)).unwrap_err(), OpenError::Text);
    assert_eq!(mine.open("AAAA").unwrap_err(), OpenError::Key);
}
