//! What an axon lets through, and how it refuses the rest.

use std::time::Duration;

use compute_subnet::ids::{ChallengeId, DeviceId};
use compute_subnet::wire::synapse::{ChallengeReply, ChallengeRequest, OpeningsRequest, SpecsRequest, Synapse};
use compute_subnet::wire::{AxonLimits, AxonOutcome, CallError, Dendrite, NonceLimits, Peer};
use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

fn status_of<T: std::fmt::Debug>(result: Result<T, CallError>) -> (u16, String, bool) {
    match result.unwrap_err() {
        CallError::Status { code, error, signed, .. } => (code, error, signed),
        other => panic!("expected a status, got {other:?}"),
    }
}

#[actix_web::test]
async fn a_signed_request_is_answered_to_its_proved_sender() {
    let axon = Axon::start().await;
    let (bob, _) = caller("Bob");
    let reply = bob.call(&axon.peer, &SpecsRequest {}, LONG, 10_000).await.unwrap();
    assert_eq!(reply.body.specs["caller"], bob.hotkey().to_string());
    assert!(reply.sent_at <= reply.received_at);
    assert_eq!(axon.events.last(), Some(("/ComputeSpecs", AxonOutcome::Ok, Some(bob.hotkey()))));
}

#[actix_web::test]
async fn raw_openings_arrive_as_they_were_sent() {
    let axon = Axon::start().await;
    let (bob, _) = caller("Bob");
    let positions = vec![[0, 1, 2]; 30];
    let request = OpeningsRequest { challenge: ChallengeId([1; 16]), device: DeviceId::cpu(0), positions };
    let reply = bob.call(&axon.peer, &request, LONG, 3000).await.unwrap();
    assert_eq!(reply.body.0, vec![7; 3000]);
}

#[actix_web::test]
async fn calls_at_one_instant_have_nonces_of_their_own() {
    let axon = Axon::start().await;
    let (bob, _) = caller("Bob");
    let calls = (0..20).map(|_| bob.call(&axon.peer, &SpecsRequest {}, LONG, 10_000));
    assert!(join_all(calls).await.iter().all(Result::is_ok));
    assert_eq!(axon.handled(), 20);
}

#[actix_web::test]
async fn a_dendrite_calls_from_the_address_it_was_given() {
    let axon = Axon::start().await;
    let clock = axon.clock.clone();
    let bob = Dendrite::new(key("Bob"), clock, Some([127, 0, 9, 4].into())).unwrap();
    let reply = bob.call(&axon.peer, &SpecsRequest {}, LONG, 10_000).await.unwrap();
    assert_eq!(reply.body.specs["from"], "127.0.9.4");
}

#[actix_web::test]
async fn a_body_changed_on_the_way_is_refused_and_not_handled() {
    let axon = Axon::start().await;
    let reply = axon.post(&axon.signed(b"{}"), b"{ }").await;
    assert_eq!((reply.status, reply.error().as_str(), reply.is_signed()), (401, "bad_signature", false));
    assert_eq!(axon.handled(), 0);
    assert_eq!(axon.events.last(), Some(("/ComputeSpecs", AxonOutcome::BadSignature, None)));
}

#[actix_web::test]
async fn a_request_to_another_path_or_with_a_query_is_refused() {
    let axon = Axon::start().await;
    let headers = axon.signed(b"{}");
    let reply = raw_post(axon.peer.addr, ChallengeRequest::PATH, &headers, b"{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "bad_signature"));
    let reply = raw_post(axon.peer.addr, "/ComputeSpecs?x=1", &headers, b"{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "bad_signature"));
}

#[actix_web::test]
async fn a_request_for_another_receiver_is_refused() {
    let axon = Axon::start().await;
    let (bob, _) = caller("Bob");
    let elsewhere = Peer { hotkey: key("Charlie").hotkey(), ..axon.peer };
    let result = bob.call(&elsewhere, &SpecsRequest {}, LONG, 10_000).await;
    assert_eq!(status_of(result), (401, "wrong_receiver".to_owned(), false));
}

#[actix_web::test]
async fn a_replay_is_refused_without_a_second_signed_reply() {
    let axon = Axon::start().await;
    let headers = axon.signed(b"{}");
    let first = axon.post(&headers, b"{}").await;
    assert_eq!((first.status, first.is_signed()), (200, true));
    let second = axon.post(&headers, b"{}").await;
    assert_eq!((second.status, second.error().as_str(), second.is_signed()), (401, "replayed_request", false));
    assert_eq!(axon.handled(), 1);
}

#[actix_web::test]
async fn freshness_ends_exactly_at_its_edges() {
    let axon = Axon::start().await;
    let (bob, clock) = caller("Bob");
    for (nonce, fresh) in [
        (NOW - 10 * SECOND, true),
        (NOW - 10 * SECOND - 1, false),
        (NOW + 2 * SECOND, true),
        (NOW + 2 * SECOND + 1, false),
    ] {
        // A dendrite never goes back in time, so each edge has its own.
        let (bob, clock) = if nonce < NOW { caller("Bob") } else { (bob.clone(), clock.clone()) };
        clock.set_ns(nonce);
        let result = bob.call(&axon.peer, &SpecsRequest {}, LONG, 10_000).await;
        if fresh {
            assert!(result.is_ok(), "{nonce}: {result:?}");
        } else {
            assert_eq!(status_of(result), (401, "stale_request".to_owned(), false), "{nonce}");
        }
    }
}

#[actix_web::test]
async fn a_missing_signature_or_another_scheme_is_refused() {
    let axon = Axon::start().await;
    let mut headers = axon.signed(b"{}");
    headers.push(("X-Bittensor-Crypto".to_owned(), "ed25519".to_owned()));
    let reply = axon.post(&headers, b"{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "bad_signature"));

    headers.retain(|(name, _)| name != "x-bittensor-signature");
    let reply = axon.post(&headers, b"{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "malformed_auth"));

    let reply = axon.post(&[], b"{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "malformed_auth"));

    let mut headers = axon.signed(b"{}");
    headers.push(("X-BITTENSOR-HOTKEY".to_owned(), key("Charlie").hotkey().to_string()));
    let reply = axon.post(&headers, b"{}").await;
    assert_eq!((reply.status, reply.error().as_str()), (401, "malformed_auth"), "two senders");
    assert_eq!(axon.handled(), 0);
}

#[actix_web::test]
async fn the_size_limit_is_exact_whether_or_not_the_size_is_stated() {
    let axon = Axon::start().await;
    let limit = AxonLimits::default().max_body_bytes;
    let mut body = b"{}".to_vec();
    body.resize(limit, b' ');
    assert_eq!(axon.post(&axon.signed(&body), &body).await.status, 200);
    body.push(b' ');
    let reply = axon.post(&axon.signed(&body), &body).await;
    assert_eq!((reply.status, reply.error().as_str()), (413, "too_large"));

    let mut chunked = b"POST /ComputeSpecs HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..=limit / 0x8000 {
        chunked.extend_from_slice(b"8000\r\n");
        chunked.resize(chunked.len() + 0x8000, b' ');
        chunked.extend_from_slice(b"\r\n");
    }
    let reply = raw(axon.peer.addr, &chunked).await;
    assert_eq!((reply.status, reply.error().as_str()), (413, "too_large"));
    assert_eq!(axon.handled(), 1);
}

#[actix_web::test]
async fn a_body_that_does_not_arrive_is_not_waited_for() {
    let limits = AxonLimits { body_deadline: Duration::from_millis(50), ..AxonLimits::default() };
    let axon = Axon::with(limits, NonceLimits::default()).await;
    let mut stream = TcpStream::connect(axon.peer.addr).await.unwrap();
    stream.write_all(b"POST /ComputeSpecs HTTP/1.1\r\nhost: x\r\ncontent-length: 10\r\n\r\n{").await.unwrap();
    let mut reply = Vec::new();
    tokio::time::timeout(LONG, stream.read_to_end(&mut reply)).await.expect("answered and closed").unwrap();
    let text = String::from_utf8(reply).unwrap();
    assert!(text.starts_with("HTTP/1.1 408") && text.contains("slow_body"), "{text}");
    assert_eq!(axon.events.outcomes(), [AxonOutcome::SlowBody]);
}

#[actix_web::test]
async fn a_malformed_body_is_refused_with_a_signature_and_without_an_echo() {
    let axon = Axon::start().await;
    let body = br#"["a-secret-token"]"#;
    let reply = axon.post(&axon.signed(body), body).await;
    assert_eq!((reply.status, reply.error().as_str(), reply.is_signed()), (400, "malformed_body", true));
    assert!(!String::from_utf8(reply.body).unwrap().contains("secret"));

    let deep = "[".repeat(60_000);
    let headers = sign_as(&key("Bob"), SpecsRequest::PATH, deep.as_bytes(), NOW + 1, &axon.peer.hotkey);
    assert_eq!(axon.post(&headers, deep.as_bytes()).await.status, 400);
    assert_eq!(axon.handled(), 0);
}

#[actix_web::test]
async fn policy_answers_403_and_a_missing_snapshot_503_both_signed() {
    let axon = Axon::start().await;
    let result = caller("Dave").0.call(&axon.peer, &SpecsRequest {}, LONG, 10_000).await;
    assert_eq!(status_of(result), (403, "denied_hotkey".to_owned(), true));
    let result = caller("Eve").0.call(&axon.peer, &SpecsRequest {}, LONG, 10_000).await;
    assert_eq!(status_of(result), (503, "not_ready".to_owned(), true));
    assert_eq!(axon.events.outcomes(), [AxonOutcome::NotAdmitted, AxonOutcome::NotReady]);
    assert_eq!(axon.handled(), 0);
}

#[actix_web::test]
async fn those_not_admitted_cannot_fill_the_nonce_table() {
    let axon = Axon::with(AxonLimits::default(), NonceLimits { total: 2, per_hotkey: 2 }).await;
    let (dave, (bob, _)) = (caller("Dave").0, caller("Bob"));
    for _ in 0..5 {
        assert_eq!(status_of(dave.call(&axon.peer, &SpecsRequest {}, LONG, 10_000).await).0, 403);
    }
    for _ in 0..2 {
        assert!(bob.call(&axon.peer, &SpecsRequest {}, LONG, 10_000).await.is_ok());
    }
    let result = bob.call(&axon.peer, &SpecsRequest {}, LONG, 10_000).await;
    assert_eq!(status_of(result), (503, "overloaded".to_owned(), false));
    assert_eq!(axon.handled(), 2);
}

#[actix_web::test]
async fn a_panic_is_one_requests_500_and_the_axon_goes_on() {
    let axon = Axon::start().await;
    let (bob, _) = caller("Bob");
    for _ in 0..3 {
        let result = bob.call(&axon.peer, &challenge_of(PANICS), LONG, 10_000).await;
        assert_eq!(status_of(result), (500, "panic".to_owned(), true));
        assert_eq!(axon.events.last(), Some(("/ComputeChallenge", AxonOutcome::Panic, Some(bob.hotkey()))));
    }
    let reply = bob.call(&axon.peer, &challenge_of(BUSY), LONG, 10_000).await.unwrap();
    assert_eq!(reply.body, ChallengeReply::Busy { until_ms: 5 });
}

#[actix_web::test]
async fn a_handlers_refusal_is_passed_on() {
    let axon = Axon::start().await;
    let (bob, _) = caller("Bob");
    let result = bob.call(&axon.peer, &challenge_of(REFUSES), LONG, 10_000).await;
    assert_eq!(status_of(result), (409, "conflict".to_owned(), true));
    assert_eq!(axon.events.outcomes(), [AxonOutcome::Refused]);
}

#[actix_web::test]
async fn a_handler_that_never_answers_is_given_up() {
    let limits = AxonLimits { handler_deadline: Duration::from_millis(50), ..AxonLimits::default() };
    let axon = Axon::with(limits, NonceLimits::default()).await;
    let (bob, _) = caller("Bob");
    let result = bob.call(&axon.peer, &challenge_of(NEVER_ANSWERS), LONG, 10_000).await;
    assert_eq!(status_of(result), (503, "handler_deadline".to_owned(), true));
    assert_eq!(axon.events.outcomes(), [AxonOutcome::HandlerDeadline]);
}

#[actix_web::test]
async fn no_more_handlers_work_at_once_than_allowed() {
    let limits = AxonLimits { handler_deadline: LONG, at_once: 1, ..AxonLimits::default() };
    let axon = Axon::with(limits, NonceLimits::default()).await;
    let (bob, _) = caller("Bob");
    let peer = axon.peer;
    let stuck =
        tokio::task::spawn_local(async move { bob.call(&peer, &challenge_of(NEVER_ANSWERS), LONG, 10_000).await });
    let (charlie, _) = caller("Charlie");
    let until_overloaded =
        async { while status_of(charlie.call(&axon.peer, &challenge_of(REFUSES), LONG, 10_000).await).0 != 503 {} };
    tokio::time::timeout(LONG, until_overloaded)
        .await
        .expect("the second request is refused while the first is at work");
    let refused = status_of(charlie.call(&axon.peer, &challenge_of(REFUSES), LONG, 10_000).await);
    assert_eq!(refused, (503, "overloaded".to_owned(), true));
    assert_eq!(axon.events.outcomes().last(), Some(&AxonOutcome::Overloaded));
    stuck.abort();
}

#[actix_web::test]
async fn a_handler_that_ended_makes_room_for_the_next() {
    let limits = AxonLimits { handler_deadline: Duration::from_secs(2), at_once: 1, ..AxonLimits::default() };
    let axon = Axon::with(limits, NonceLimits::default()).await;
    let (bob, _) = caller("Bob");
    for (epoch, code, error) in
        [(NEVER_ANSWERS, 503, "handler_deadline"), (PANICS, 500, "panic"), (REFUSES, 409, "conflict")]
    {
        let result = bob.call(&axon.peer, &challenge_of(epoch), LONG, 10_000).await;
        assert_eq!(status_of(result), (code, error.to_owned(), true));
    }
}

#[actix_web::test]
async fn a_body_without_end_is_not_read_without_end_whatever_the_path() {
    let limits = AxonLimits { max_body_bytes: 1024, ..AxonLimits::default() };
    let axon = Axon::with(limits, NonceLimits::default()).await;
    for (path, status) in
        [("/Told/extra", "404"), ("/Nope", "404"), ("/NoMethod", "405"), ("/Told", "401"), (SpecsRequest::PATH, "413")]
    {
        let (mut read, mut write) = TcpStream::connect(axon.peer.addr).await.unwrap().into_split();
        let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n");
        write.write_all(head.as_bytes()).await.unwrap();
        let endless = async {
            let chunk = format!("200\r\n{}\r\n", "x".repeat(0x200));
            while write.write_all(chunk.as_bytes()).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let mut reply = Vec::new();
        let both = async { tokio::join!(endless, read.read_to_end(&mut reply)) };
        // Until the next write fails: the connection is closed, not only answered.
        let ended = tokio::time::timeout(LONG, both).await;
        assert!(ended.is_ok(), "{path} is read without end");
        assert!(
            reply.starts_with(format!("HTTP/1.1 {status}").as_bytes()),
            "{path}: {}",
            String::from_utf8_lossy(&reply)
        );
    }
}
