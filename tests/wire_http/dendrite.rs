//! Which replies a dendrite believes, and what it says about the others.

use std::future::pending;
use std::net::SocketAddr;
use std::time::Duration;

use compute_subnet::ids::Hotkey;
use compute_subnet::verdict::UnknownCause;
use compute_subnet::wallet::Keypair;
use compute_subnet::wire::dendrite::{ClassicCall, ReplySigner, Schemes};
use compute_subnet::wire::reply::{ReplyProof, sign_reply};
use compute_subnet::wire::synapse::{SpecsReply, SpecsRequest};
use compute_subnet::wire::{CallError, Dendrite, Peer, Reply};
use tokio::net::TcpListener;

use crate::support::*;

const SPECS: &[u8] = br#"{"version":"9"}"#;

async fn call(peer: &Peer) -> Result<Reply<SpecsReply>, CallError> {
    caller("Bob").0.call(peer, &SpecsRequest {}, LONG, 1000).await
}

fn signature(by: &Keypair, status: u16, body: &[u8], nonce: u64, caller: &Hotkey) -> String {
    format!("x-compute-reply-signature: {}", sign_reply(by, status, body, nonce, caller))
}

/// A peer whose reply has this status, signature by Alice over `signed` and `body` as sent.
async fn signing_peer(status: u16, signed: &'static [u8], body: &'static [u8]) -> Peer {
    fake_peer(move |asked| async move {
        http(status, &[signature(&key("Alice"), status, signed, asked.nonce, &asked.caller)], body)
    })
    .await
}

#[actix_web::test]
async fn a_reply_signed_for_this_request_is_believed() {
    let peer = signing_peer(200, SPECS, SPECS).await;
    assert_eq!(call(&peer).await.unwrap().body.version, "9");
}

#[actix_web::test]
async fn an_unsigned_reply_is_not() {
    let peer = fake_peer(|_| async { http(200, &[], SPECS) }).await;
    let error = call(&peer).await.unwrap_err();
    assert!(matches!(error, CallError::UnsignedReply(200)), "{error:?}");
    assert_eq!(error.cause(), UnknownCause::UnsignedReply);
}

#[actix_web::test]
async fn a_changed_body_status_nonce_caller_or_signer_is_not() {
    let changed = signing_peer(200, SPECS, br#"{"version":"8"}"#).await;
    let status =
        fake_peer(|a| async move { http(200, &[signature(&key("Alice"), 403, SPECS, a.nonce, &a.caller)], SPECS) });
    let nonce =
        fake_peer(|a| async move { http(200, &[signature(&key("Alice"), 200, SPECS, a.nonce + 1, &a.caller)], SPECS) });
    let other = key("Charlie").hotkey();
    let to =
        fake_peer(move |a| async move { http(200, &[signature(&key("Alice"), 200, SPECS, a.nonce, &other)], SPECS) });
    let by =
        fake_peer(|a| async move { http(200, &[signature(&key("Charlie"), 200, SPECS, a.nonce, &a.caller)], SPECS) });
    let twice = fake_peer(|a| async move {
        let line = signature(&key("Alice"), 200, SPECS, a.nonce, &a.caller);
        http(200, &[line.clone(), line], SPECS)
    });
    let junk = fake_peer(|_| async { http(200, &["x-compute-reply-signature: 0xzz".to_owned()], SPECS) });
    let peers = [changed, status.await, nonce.await, to.await, by.await, twice.await, junk.await];
    for (i, peer) in peers.iter().enumerate() {
        let error = call(peer).await.unwrap_err();
        assert!(matches!(error, CallError::BadReplySignature(200)), "{i}: {error:?}");
        assert_eq!(error.cause(), UnknownCause::BadReplySignature);
    }
}

#[actix_web::test]
async fn a_signed_reply_that_is_no_answer_is_malformed() {
    let peer = signing_peer(200, b"[1]", b"[1]").await;
    let error = call(&peer).await.unwrap_err();
    assert!(matches!(error, CallError::Malformed(_)), "{error:?}");
    assert_eq!(error.cause(), UnknownCause::MalformedReply);
}

#[actix_web::test]
async fn something_that_does_not_speak_http_is_malformed() {
    let peer = fake_peer(|_| async { b"SSH-2.0-OpenSSH_9.9\r\n\r\n".to_vec() }).await;
    let error = call(&peer).await.unwrap_err();
    assert!(matches!(error, CallError::Malformed(_)), "{error:?}");
}

#[actix_web::test]
async fn an_overlong_reply_is_cut_off_whether_or_not_it_states_its_size() {
    let stated = fake_peer(|_| async { http(200, &[], &[b' '; 1001]) }).await;
    let endless = fake_peer(|_| async {
        let mut bytes = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for _ in 0..100 {
            bytes.extend_from_slice(b"10\r\n0123456789abcdef\r\n");
        }
        bytes
    })
    .await;
    for peer in [stated, endless] {
        let error = call(&peer).await.unwrap_err();
        assert!(matches!(error, CallError::TooLarge(1000)), "{error:?}");
        assert_eq!(error.cause(), UnknownCause::MalformedReply);
    }
}

#[actix_web::test]
async fn a_signed_refusal_carries_the_peers_words_made_safe() {
    let body = br#"{"error":"denied_hotkey","detail":"line\n\u001b[31mred"}"#;
    let peer = signing_peer(403, body, body).await;
    let error = call(&peer).await.unwrap_err();
    assert_eq!(error.cause(), UnknownCause::Refused);
    let CallError::Status { code, error, detail, signed } = error else { panic!("{error:?}") };
    assert_eq!((code, error.as_str(), signed), (403, "denied_hotkey", true));
    assert_eq!(detail, "line  [31mred");
}

#[actix_web::test]
async fn an_unsigned_error_page_of_a_proxy_is_nobodys_refusal() {
    let peer = fake_peer(|_| async { http(502, &[], b"<html>bad gateway</html>") }).await;
    let error = call(&peer).await.unwrap_err();
    assert!(matches!(error, CallError::UnsignedReply(502)), "{error:?}");
}

#[actix_web::test]
async fn a_redirect_is_not_followed() {
    let target = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let location = format!("location: http://{}/x", target.local_addr().unwrap());
    let peer = fake_peer(move |_| async move { http(307, &[location], b"") }).await;
    let error = call(&peer).await.unwrap_err();
    assert!(matches!(error, CallError::UnsignedReply(307)), "{error:?}");
    let nobody = tokio::time::timeout(Duration::ZERO, target.accept()).await;
    assert!(nobody.is_err(), "the redirect's target was called");
}

#[actix_web::test]
async fn silence_ends_at_the_deadline() {
    let peer = fake_peer(|_| pending()).await;
    let within = Duration::from_millis(50);
    let error = caller("Bob").0.call(&peer, &SpecsRequest {}, within, 1000).await.unwrap_err();
    assert!(matches!(error, CallError::Deadline(d) if d == within), "{error:?}");
    assert_eq!(error.cause(), UnknownCause::Timeout);
}

#[actix_web::test]
async fn nobody_listening_or_a_broken_connection_is_unreachable() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let closed = Peer { hotkey: key("Alice").hotkey(), addr };
    let hangs_up = fake_peer(|_| async { Vec::new() }).await;
    let breaks_off = fake_peer(|_| async { b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n{".to_vec() }).await;
    for peer in [closed, hangs_up, breaks_off] {
        let error = call(&peer).await.unwrap_err();
        assert!(matches!(error, CallError::Unreachable(_)), "{error:?}");
        assert_eq!(error.cause(), UnknownCause::Unreachable);
    }
}

#[actix_web::test]
async fn an_address_that_is_not_ours_is_our_own_fault() {
    let axon = Axon::start().await;
    // TEST-NET-1: no machine has it.
    let bob = Dendrite::new(key("Bob"), axon.clock.clone(), Some([192, 0, 2, 1].into())).unwrap();
    let error = bob.call(&axon.peer, &SpecsRequest {}, LONG, 1000).await.unwrap_err();
    assert!(matches!(error, CallError::Own(_)), "{error:?}");
    assert_eq!(error.cause(), UnknownCause::OwnFault);
}

#[actix_web::test]
async fn debug_output_names_the_hotkey_and_no_secret() {
    let (bob, _) = caller("Bob");
    assert_eq!(format!("{bob:?}"), format!("Dendrite({})", bob.hotkey()));
    let axon: SocketAddr = ([127, 0, 0, 1], 9).into();
    let peer = Peer { hotkey: bob.hotkey(), addr: axon };
    assert!(format!("{peer:?}").contains("127.0.0.1:9"));
}

#[test]
fn a_call_can_move_between_threads() {
    fn movable<T: Send>(_: T) {}
    let (bob, _) = caller("Bob");
    let peer = Peer { hotkey: bob.hotkey(), addr: ([127, 0, 0, 1], 9).into() };
    movable(bob.call(&peer, &SpecsRequest {}, LONG, 1));
}

/// What is read of a reply to [`Told`].
#[derive(Debug, serde::Deserialize)]
pub(crate) struct ToldOutput {
    act: String,
}
impl ClassicCall for Told {
    type Output = ToldOutput;
}

#[actix_web::test]
async fn our_own_axon_answers_a_request_of_both_schemes_and_signs_what_btauth_asked() {
    let axon = Axon::start().await;
    let asked = Told { text: "hello".to_owned(), ..Told::default() };
    let (bob, _) = caller("Bob");
    for schemes in [Schemes::Both, Schemes::Classic, Schemes::Btauth, Schemes::Both, Schemes::Classic] {
        let reply = bob.ask_signed(&axon.peer, &asked, LONG, schemes).await;
        let holds = |proof: &ReplyProof| proof.holds(&key("Alice").hotkey(), &bob.hotkey());
        let signed = matches!(&reply.signer, ReplySigner::Peer(proof) if holds(proof));
        assert_eq!(signed, schemes != Schemes::Classic, "{schemes:?}: {reply:?}");
        assert_eq!(reply.answer.unwrap().act, bob.hotkey().to_string(), "{schemes:?}");
    }
    assert_eq!(axon.handled(), 5);
}

#[actix_web::test]
async fn a_refusal_of_our_own_axon_is_told_in_its_words_whatever_the_scheme() {
    let axon = Axon::start().await;
    let (dave, _) = caller("Dave");
    for schemes in [Schemes::Both, Schemes::Classic] {
        let reply = dave.ask_signed(&axon.peer, &Told::default(), LONG, schemes).await;
        assert_eq!(reply.code(), Some(403), "{reply:?}");
        assert!(reply.text().contains("on the deny-list"), "{schemes:?}: {}", reply.text());
    }
}
