//! Requests that say something else than was signed, or come at another time, or again.

use compute_subnet::wallet::Keypair;
use compute_subnet::wire::btauth;

use crate::requests::{ALLOCATE, PROBE, Request, SECOND, now_ns, taking};
use crate::stage::Stage;

const NONCE: &str = "bt_header_dendrite_nonce";
const SIGNATURE: &str = "bt_header_dendrite_signature";
const VERSION: &str = "bt_header_dendrite_version";
const HOTKEY: &str = "bt_header_dendrite_hotkey";
const BODY_HASH: &str = "computed_body_hash";
const TIMEOUT: &str = "timeout";

/// Whoever changes nothing of what handlers did passes.
async fn without_effect(mut stage: Stage, attack: impl AsyncFnOnce(&mut Stage)) -> Stage {
    let before = stage.effects().await;
    attack(&mut stage).await;
    assert_eq!(stage.effects().await, before, "a handler ran");
    stage
}

pub(crate) async fn a_body_changed_on_the_way_is_refused_where_it_is_signed(stage: Stage) -> Stage {
    without_effect(stage, async |stage| {
        let mut request = stage.own();
        let at = request.body.iter().position(|b| *b == b'9').unwrap();
        request.body[at] = b'8';
        stage.refused("one digit of the lease", &request, 401, "bad_signature").await;
        let mut request = stage.own();
        request.body.push(b' ');
        stage.refused("a space behind", &request, 401, "bad_signature").await;
        let mut request = stage.own();
        request.path.push_str("?x=1");
        stage.refused("another target", &request, 401, "bad_signature").await;
        // The original's classes hash no field, so their bodies are signed by nobody; a hash that was signed must hold.
        // A changed field that a class does hash: `raw_body_hash_mismatch_500` of the captures, tests/axon_replay.rs.
        let hash = "1".repeat(64);
        let request = stage.classic().with(BODY_HASH, &hash);
        stage.refused("a body hash that was not signed", &request, 401, "Signature mismatch").await;
    })
    .await
}

pub(crate) async fn a_hotkey_named_in_a_body_is_nobody(stage: Stage) -> Stage {
    let stranger = Keypair::from_uri("//Stranger").unwrap();
    without_effect(stage, async |stage| {
        let (us, validator) = (stage.us(), stage.caller().hotkey());
        let body = taking(&validator);
        let request = Request::classic(&stranger, &us, body.as_bytes(), now_ns());
        stage.refused("a stranger who names a validator", &request, 403, "Key is blacklisted").await;
        let own = Request::own(&stranger, &us, ALLOCATE, &stage.taking(), now_ns());
        stage.refused("a stranger with a validator's lease", &own, 403, "not_registered").await;
        let named = Request::classic(&stranger, &us, body.as_bytes(), now_ns()).with(HOTKEY, &validator.to_string());
        stage.refused("a validator's name over a stranger's signature", &named, 401, "Signature mismatch").await;
        let named = own.with(btauth::HOTKEY_HEADER, &validator.to_string());
        stage.refused("the same under btauth", &named, 401, "bad_signature").await;
    })
    .await
}

pub(crate) async fn a_request_counts_once(mut stage: Stage) -> Stage {
    let own = Request::own(stage.caller(), &stage.us(), "/ComputeSpecs", b"{}", now_ns());
    let classic = Request::classic(stage.caller(), &stage.us(), PROBE.as_bytes(), now_ns());
    for request in [&own, &classic] {
        assert_eq!(stage.send(request).await.status, 200);
    }
    without_effect(stage, async |stage| {
        for _ in 0..20 {
            stage.refused("the same again", &own, 401, "replayed_request").await;
            stage.refused("the same again", &classic, 401, "a newer one was last processed").await;
        }
        // What is not signed does not make it another request.
        let later = classic.with(TIMEOUT, "1000.0").with(VERSION, "0");
        stage.refused("the same with other words", &later, 401, "a newer one was last processed").await;
    })
    .await
}

pub(crate) async fn a_request_counts_once_also_across_a_restart(mut stage: Stage) -> Stage {
    let own = Request::own(stage.caller(), &stage.us(), "/ComputeSpecs", b"{}", now_ns());
    let classic = Request::classic(stage.caller(), &stage.us(), PROBE.as_bytes(), now_ns()).with(TIMEOUT, "60.0");
    for request in [&own, &classic] {
        assert_eq!(stage.send(request).await.status, 200);
    }
    let stage = stage.restart().await;
    without_effect(stage, async |stage| {
        stage.refused("again after the restart", &own, 401, "stale_request").await;
        stage.refused("again after the restart", &classic, 401, "a newer one was last processed").await;
    })
    .await
}

pub(crate) async fn a_request_from_the_future_is_refused(stage: Stage) -> Stage {
    without_effect(stage, async |stage| {
        for ahead in [15, 3600, 10_000_000] {
            let nonce = now_ns() + ahead * SECOND;
            let own = Request::own(stage.caller(), &stage.us(), ALLOCATE, &stage.taking(), nonce);
            stage.refused("signed ahead of its time", &own, 401, "stale_request").await;
            let body = taking(&stage.us());
            let classic = Request::classic(stage.caller(), &stage.us(), body.as_bytes(), nonce);
            stage.refused("signed ahead of its time", &classic, 401, "Nonce is in the future").await;
        }
    })
    .await
}

/// A classic request that would take the machine, signed ten minutes ago.
fn old(stage: &Stage) -> Request {
    let body = taking(&stage.us());
    Request::classic(stage.caller(), &stage.us(), body.as_bytes(), now_ns() - 600 * SECOND)
}

pub(crate) async fn an_old_request_stays_old_whatever_timeout_it_states(stage: Stage) -> Stage {
    without_effect(stage, async |stage| {
        for timeout in ["600.0", "1e9", "1e300"] {
            let request = old(stage).with(TIMEOUT, timeout);
            stage.refused(timeout, &request, 401, "Nonce is too old").await;
        }
        for timeout in ["inf", "NaN", "-1", "0x10"] {
            let request = old(stage).with(TIMEOUT, timeout);
            stage.refused(timeout, &request, 500, "Internal Server Error").await;
        }
    })
    .await
}

pub(crate) async fn an_old_version_or_none_does_not_switch_freshness_off(stage: Stage) -> Stage {
    without_effect(stage, async |stage| {
        for version in ["7001999", "700", "0"] {
            let request = old(stage).with(VERSION, version);
            stage.refused(version, &request, 401, "Nonce is too old").await;
        }
        let request = old(stage).without(VERSION);
        stage.refused("no version", &request, 401, "Nonce is too old").await;
    })
    .await
}

pub(crate) async fn a_request_without_signature_is_refused(stage: Stage) -> Stage {
    without_effect(stage, async |stage| {
        let request = stage.classic().without(SIGNATURE);
        stage.refused("no signature", &request, 401, "Missing Signature").await;
        let request = stage.classic().with(SIGNATURE, "");
        stage.refused("an empty one", &request, 401, "Invalid signature format").await;
        let request = stage.classic().with(SIGNATURE, &format!("0x{}", "0".repeat(128)));
        stage.refused("zeros", &request, 401, "Signature mismatch").await;
        let request = stage.classic().without(NONCE);
        stage.refused("no nonce", &request, 401, "Missing Nonce").await;
        let request = stage.own().without(btauth::SIGNATURE_HEADER);
        stage.refused("no signature", &request, 401, "malformed_auth").await;
        let request = stage.own().with(btauth::SIGNATURE_HEADER, &format!("0x{}", "0".repeat(128)));
        stage.refused("zeros", &request, 401, "bad_signature").await;
        let mut request = stage.own();
        request.headers.clear();
        stage.refused("nothing at all", &request, 401, "malformed_auth").await;
        // Failing under one scheme is no way to be judged by the other.
        let mut both = stage.classic().without(SIGNATURE);
        both.headers.extend(stage.own().headers);
        stage.refused("both schemes, one broken", &both, 401, "bad_signature").await;
    })
    .await
}

pub(crate) async fn a_signature_for_another_axon_is_refused_here(stage: Stage) -> Stage {
    without_effect(stage, async |stage| {
        let other = stage.honest().hotkey();
        let own = Request::own(stage.caller(), &other, ALLOCATE, &stage.taking(), now_ns());
        stage.refused("signed for another", &own, 401, "wrong_receiver").await;
        let us = stage.us().to_string();
        stage.refused("and readdressed", &own.with(btauth::RECEIVER_HEADER, &us), 401, "bad_signature").await;
        let own = stage.own().without(btauth::RECEIVER_HEADER);
        stage.refused("for nobody", &own, 401, "wrong_receiver").await;
        let body = taking(&other);
        let classic = Request::classic(stage.caller(), &other, body.as_bytes(), now_ns());
        stage.refused("signed for another", &classic, 401, "Signature mismatch").await;
        let classic = classic.with("bt_header_axon_hotkey", &us);
        stage.refused("and readdressed", &classic, 401, "Signature mismatch").await;
    })
    .await
}

pub(crate) async fn another_kind_of_signature_is_refused(stage: Stage) -> Stage {
    without_effect(stage, async |stage| {
        let own = stage.own().with(btauth::CRYPTO_HEADER, "ed25519");
        stage.refused("ed25519", &own, 401, "bad_signature").await;
        for name in ["ecdsa", "mldsa", "hashed", "none", ""] {
            let own = stage.own().with(btauth::CRYPTO_HEADER, name);
            stage.refused(name, &own, 401, "malformed_auth").await;
        }
    })
    .await
}
