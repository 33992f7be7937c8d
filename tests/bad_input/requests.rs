//! Requests that a miner must refuse: the status, the error's name, the signature and the counters of each.

use std::collections::BTreeMap;

use compute_subnet::chain::epoch_of;
use compute_subnet::ids::{ChallengeId, DeviceId, Epoch, Hash32};
use compute_subnet::proof::verifier::{check_openings, check_roots};
use compute_subnet::proof::{Challenge, Position, Work};
use compute_subnet::wire::synapse::{ChallengeRefusal, ChallengeReply, ChallengeRequest, DeviceWork, OpeningsRequest};
use serde_json::json;

use crate::common::{Reply, assert_unharmed, free_ports, get, inside, metrics, until};
use crate::world::{Running, World, counted, honest, key, now_ns, signed, signed_at, validator_key};

const SPECS: &str = "/ComputeSpecs";
const CHALLENGE: &str = "/ComputeChallenge";
const OPENINGS: &str = "/ComputeOpenings";

/// How admission decided, if it came that far.
type Admission = Option<(&'static str, &'static str)>;
const PERMIT: Admission = Some(("admitted", "permit"));

/// What a request must come to.
struct Expected {
    status: u16,
    /// The `error` of the body; empty for a reply that is none.
    error: &'static str,
    /// Whether the miner signs it: only after the caller has proved who it is, and never for a repeat.
    signed: bool,
    /// The label of its outcome in `/metrics`; `None` where the path is none of the axon's.
    outcome: Option<&'static str>,
    admission: Admission,
}

fn refused(status: u16, error: &'static str) -> Expected {
    Expected { status, error, signed: false, outcome: Some(error), admission: None }
}

fn not_admitted(reason: &'static str) -> Expected {
    let admission = Some(("refused", reason));
    Expected { status: 403, error: reason, signed: true, outcome: Some("not_admitted"), admission }
}

const OK: Expected = Expected { status: 200, error: "", signed: true, outcome: Some("ok"), admission: PERMIT };

/// Sends nothing by itself: compares a reply with what it must be, and the counters before and after.
async fn check(
    what: &str,
    miner: &Running,
    path: &str,
    send: impl Future<Output = Reply>,
    expected: Expected,
) -> Reply {
    let before = metrics(miner.web).await;
    let reply = send.await;
    let after = metrics(miner.web).await;
    let Expected { status, error, signed, outcome, admission } = expected;
    assert_eq!(reply.status, status, "{what}: {}", reply.text());
    if !error.is_empty() {
        let body = reply.json();
        assert_eq!(body["error"], error, "{what}: {body}");
        assert!(body["detail"].as_str().is_some_and(|d| !d.is_empty()), "{what} says no more than its name");
    }
    assert_eq!(reply.head.contains("x-compute-reply-signature: 0x"), signed, "{what}: {}", reply.head);
    let mut wanted = BTreeMap::new();
    if let Some(outcome) = outcome {
        wanted.insert(format!("compute_axon_requests_total{{outcome=\"{outcome}\",path=\"{path}\"}}"), 1.0);
    }
    if let Some((decision, reason)) = admission {
        wanted.insert(format!("compute_admissions_total{{decision=\"{decision}\",reason=\"{reason}\"}}"), 1.0);
    }
    assert_eq!(counted(&before, &after), wanted, "{what}");
    reply
}

/// A miner among callers of every kind; it admits the two validators.
async fn miner_among_callers(world: &mut World) -> Running {
    world.settings.blacklist.hotkeys = vec![key("Denied").hotkey()];
    let neurons =
        [("Validator", 100_000), ("Second", 100_000), ("Poor", 10), ("Idle", 0), ("Denied", 100_000), ("Miner", 0)];
    let ledger = world.ledger(&neurons).await;
    let miner = world.miner(world.input("Miner", world.in_process(&ledger, &key("Miner"))), honest()).unwrap();
    until("the ledger gives permits and the miner admits both validators", async || {
        for caller in [validator_key(), key("Second")] {
            if miner.call(&caller, SPECS, b"{}").await.status != 200 {
                return None;
            }
        }
        (get(miner.web, "/readyz").await.status == 200).then_some(())
    })
    .await;
    miner
}

#[test]
fn every_bad_request_has_its_status_and_is_counted_and_the_miner_goes_on() {
    inside(async |runtime| {
        let mut world = World::new(runtime);
        let miner = miner_among_callers(&mut world).await;
        let (us, validator) = (miner.hotkey, validator_key());

        let malformed = Expected { status: 400, signed: true, admission: PERMIT, ..refused(400, "malformed_body") };
        for body in [&b"{\"challenge\":"[..], b"[]", b"", b"\xff\xfe", b"{\"challenge\": \"no hex\"}"] {
            let what = format!("body {:?}", String::from_utf8_lossy(body));
            let expected = Expected { ..malformed };
            let reply = check(&what, &miner, CHALLENGE, miner.call(&validator, CHALLENGE, body), expected).await;
            assert!(!reply.text().contains("no hex"), "a refusal does not repeat what was sent: {}", reply.text());
        }
        let deep = "[".repeat(60_000);
        let send = miner.call(&validator, CHALLENGE, deep.as_bytes());
        check("deeply nested JSON", &miner, CHALLENGE, send, malformed).await;

        let large = vec![b' '; world.settings.axon.max_body_bytes + 1];
        let send = miner.call(&validator, SPECS, &large);
        check("a body of one byte too much", &miner, SPECS, send, refused(413, "too_large")).await;

        let headers = signed(&validator, SPECS, b"{}", &us);
        check("the original", &miner, SPECS, miner.post(SPECS, &headers, b"{}"), OK).await;
        let expected = Expected { admission: PERMIT, ..refused(401, "replayed_request") };
        check("a replay", &miner, SPECS, miner.post(SPECS, &headers, b"{}"), expected).await;

        let headers = signed(&validator, SPECS, b"{}", &us);
        let send = miner.post(SPECS, &headers, b"{ }");
        check("another body than was signed", &miner, SPECS, send, refused(401, "bad_signature")).await;
        let headers = signed(&validator, OPENINGS, b"{}", &us);
        let send = miner.post(SPECS, &headers, b"{}");
        check("another path than was signed", &miner, SPECS, send, refused(401, "bad_signature")).await;
        let mut headers = signed(&key("Stranger"), SPECS, b"{}", &us);
        for (name, value) in &mut headers {
            if name == "x-bittensor-hotkey" {
                *value = validator.hotkey().to_string();
            }
        }
        let send = miner.post(SPECS, &headers, b"{}");
        check("a validator's name under another's signature", &miner, SPECS, send, refused(401, "bad_signature")).await;

        let headers = signed(&validator, SPECS, b"{}", &key("Second").hotkey());
        let send = miner.post(SPECS, &headers, b"{}");
        check("signed for another receiver", &miner, SPECS, send, refused(401, "wrong_receiver")).await;
        let minute = 60_000_000_000;
        for (what, nonce) in [("a minute old", now_ns() - minute), ("a minute ahead", now_ns() + minute)] {
            let headers = signed_at(nonce, &validator, SPECS, b"{}", &us);
            check(what, &miner, SPECS, miner.post(SPECS, &headers, b"{}"), refused(401, "stale_request")).await;
        }
        check("no signature at all", &miner, SPECS, miner.post(SPECS, &[], b"{}"), refused(401, "malformed_auth"))
            .await;

        for (name, reason) in [
            ("Stranger", "not_registered"),
            ("Idle", "no_validator_permit"),
            ("Poor", "not_enough_stake"),
            ("Denied", "denied_hotkey"),
        ] {
            let caller = key(name);
            let send = miner.call(&caller, SPECS, b"{}");
            let reply = check(name, &miner, SPECS, send, not_admitted(reason)).await;
            assert!(reply.json()["detail"].as_str().unwrap().contains("; "), "the remedy is told: {}", reply.text());
        }

        // What is no request of ours at all.
        let none = || Expected { status: 404, error: "", signed: false, outcome: Some("not_found"), admission: None };
        let send = miner.call(&validator, "/ComputeNothing", b"{}");
        check("an unknown path", &miner, "other", send, none()).await;
        let page = get(miner.axon.unwrap(), SPECS);
        check("GET instead of POST", &miner, "other", page, none()).await;

        check("a good request after all of them", &miner, SPECS, miner.call(&validator, SPECS, b"{}"), OK).await;
        assert_unharmed("miner", miner.web, &miner.view).await;
        assert_eq!(get(miner.web, "/readyz").await.status, 200);
        miner.end().await;
    });
}

fn challenge(id: u8, device: DeviceId, n: u32, k: u32, rounds: u32) -> ChallengeRequest {
    let devices = vec![DeviceWork { device, n, k, rounds }];
    ChallengeRequest { challenge: ChallengeId([id; 16]), nonce: Hash32([id; 32]), epoch: 7, devices }
}

fn body(request: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(request).unwrap()
}

/// Sends a challenge of the current epoch in the validator's slot: the miner's answer to it, and the epoch.
async fn in_turn(what: &str, world: &World, miner: &Running, request: &ChallengeRequest) -> (ChallengeReply, Epoch) {
    until(what, async || {
        let block = metrics(miner.web).await["compute_chain_block"] as u64;
        let epoch = epoch_of(block, world.settings.netuid, world.settings.devnet.tempo);
        let bytes = body(&ChallengeRequest { epoch, ..request.clone() });
        let reply = check(what, miner, CHALLENGE, miner.call(&validator_key(), CHALLENGE, &bytes), OK).await;
        match serde_json::from_slice(&reply.body).unwrap() {
            ChallengeReply::Busy { .. } => None,
            ChallengeReply::Refused { reason: ChallengeRefusal::WrongEpoch, .. } => None,
            reply => Some((reply, epoch)),
        }
    })
    .await
}

/// A challenge that the miner refuses in its reply.
async fn refuses(what: &str, world: &World, miner: &Running, request: &ChallengeRequest, reason: ChallengeRefusal) {
    let (reply, _) = in_turn(what, world, miner, request).await;
    let ChallengeReply::Refused { reason: found, detail } = &reply else { panic!("{what}: {reply:?}") };
    assert_eq!(*found, reason, "{what}: {detail}");
    assert!(!detail.is_empty(), "{what}");
}

#[test]
fn work_that_a_miner_must_not_do_starts_no_prover() {
    inside(async |runtime| {
        let mut world = World::new(runtime);
        let miner = miner_among_callers(&mut world).await;
        let (here, elsewhere) = (DeviceId::cpu(0), DeviceId::cpu(5));

        refuses(
            "a device not offered",
            &world,
            &miner,
            &challenge(1, elsewhere, 128, 64, 1),
            ChallengeRefusal::NoDevice,
        )
        .await;
        let largest = challenge(2, here, 131_072, 65_536, 256);
        refuses("the largest work there is", &world, &miner, &largest, ChallengeRefusal::Budget).await;
        let over_budget = challenge(2, here, 131_072, 65_536, 1);
        let needed = Work::new(131_072, 65_536, 1).unwrap().memory_bytes();
        let one_prover = world.settings.prover.memory_limit_bytes();
        assert!(one_prover < needed && needed < world.settings.budget.memory_mib << 20);
        refuses("more memory than one prover may have", &world, &miner, &over_budget, ChallengeRefusal::Budget).await;
        for (n, k, rounds) in [(33, 64, 1), (0, 0, 0), (u32::MAX, u32::MAX, u32::MAX), (128, 64, 257), (262_144, 64, 1)]
        {
            let what = format!("n {n} k {k} rounds {rounds}");
            refuses(&what, &world, &miner, &challenge(3, here, n, k, rounds), ChallengeRefusal::Invalid).await;
        }
        let mut twice = challenge(4, here, 128, 64, 1);
        twice.devices.push(twice.devices[0]);
        refuses("a device asked twice", &world, &miner, &twice, ChallengeRefusal::Invalid).await;
        let none = ChallengeRequest { devices: vec![], ..challenge(5, here, 128, 64, 1) };
        refuses("no device", &world, &miner, &none, ChallengeRefusal::Invalid).await;

        let page = metrics(miner.web).await;
        let runs = page.iter().filter(|(name, _)| name.starts_with("compute_prover_runs_total"));
        assert_eq!(runs.map(|(_, value)| value).sum::<f64>(), 0.0, "no prover was started");
        assert_unharmed("miner", miner.web, &miner.view).await;
        miner.end().await;
    });
}

#[test]
fn openings_are_for_the_caller_and_the_positions_they_were_made_for() {
    inside(async |runtime| {
        let mut world = World::new(runtime);
        let miner = miner_among_callers(&mut world).await;
        let (validator, second) = (validator_key(), key("Second"));
        let request = challenge(9, DeviceId::cpu(0), 128, 64, 2);
        let (reply, epoch) = in_turn("a challenge", &world, &miner, &request).await;
        let ChallengeReply::Roots { devices } = reply else { panic!("{reply:?}") };

        let open = |challenge: u8, device: DeviceId, positions: Vec<[u32; 3]>| {
            body(&OpeningsRequest { challenge: ChallengeId([challenge; 16]), device, positions })
        };
        let here = DeviceId::cpu(0);
        let no = |status, error| Expected { status, error, signed: true, outcome: Some("refused"), admission: PERMIT };
        let not_found = || no(404, "not_found");
        let invalid = || no(400, "invalid");
        let cases = [
            ("an unknown challenge", &validator, open(8, here, vec![[0, 0, 0]]), not_found()),
            ("another device", &validator, open(9, DeviceId::cpu(1), vec![[0, 0, 0]]), not_found()),
            ("another caller's commitment", &second, open(9, here, vec![[0, 0, 0]]), not_found()),
            ("a round too far", &validator, open(9, here, vec![[2, 0, 0]]), invalid()),
            ("a row too far", &validator, open(9, here, vec![[0, 128, 0]]), invalid()),
            ("a column too far", &validator, open(9, here, vec![[0, 0, 0], [0, 0, u32::MAX]]), invalid()),
            ("no position", &validator, open(9, here, vec![]), invalid()),
            ("too many positions", &validator, open(9, here, vec![[0, 0, 0]; 1025]), invalid()),
        ];
        for (what, caller, bytes, expected) in cases {
            check(what, &miner, OPENINGS, miner.call(caller, OPENINGS, &bytes), expected).await;
        }

        // None of that used the commitment up: the right request is answered, and verifies.
        let asked = [[0, 0, 0], [1, 127, 127], [0, 64, 3]];
        let bytes = open(9, here, asked.to_vec());
        let reply = check("the right request", &miner, OPENINGS, miner.call(&validator, OPENINGS, &bytes), OK).await;
        let work = Work::new(128, 64, 2).unwrap();
        let asked: Vec<Position> = asked.iter().map(|&[round, row, col]| Position { round, row, col }).collect();
        let challenge = Challenge { nonce: [9; 32], epoch, hotkey: miner.hotkey, device: here, work };
        check_roots(&challenge, &devices[0].roots).unwrap();
        check_openings(&challenge, &devices[0].roots, &asked, &reply.body).unwrap();
        assert_unharmed("miner", miner.web, &miner.view).await;
        miner.end().await;
    });
}

#[test]
fn a_miner_that_has_not_seen_the_subnet_admits_nobody_and_asks_to_come_again() {
    inside(async |runtime| {
        let world = World::new(runtime);
        let nowhere = ([127, 0, 0, 1], free_ports()).into();
        let miner = world.miner(world.input("Miner", world.over_http(nowhere, &key("Miner"))), honest()).unwrap();
        let ready = until("the miner serves", async || {
            if !miner.view.all_running() {
                return None;
            }
            Some(get(miner.web, "/readyz").await)
        })
        .await;
        assert_eq!(ready.status, 503);
        let admission = Some(("refused", "snapshot_missing"));
        let expected =
            || Expected { status: 503, error: "not_ready", signed: true, outcome: Some("not_ready"), admission };
        let headers = signed(&validator_key(), SPECS, b"{}", &miner.hotkey);
        // Who is told to come again may send the same request again: nothing was remembered of it.
        for what in ["before the first block", "the same again"] {
            check(what, &miner, SPECS, miner.post(SPECS, &headers, b"{}"), expected()).await;
        }
        assert_unharmed("miner", miner.web, &miner.view).await;
        assert_eq!(ready.json()["reasons"], json!([{"part": "chain", "reason": "no block was read yet"}]));
        miner.end().await;
    });
}
