//! The canned replies that real dendrites of SDK 9.0.0 and 10.5.0 were given: ours judges them as those did.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use compute_subnet::wire::dendrite::AskError;
use serde_json::Value;

use crate::support::*;

/// Where our judgement differs, and why.
const DIFFERENCES: [(&str, Option<u16>, &str); 1] = [(
    "upper_case_header_names",
    Some(200),
    "names of HTTP headers have no case; the SDK compares them with case by accident, and our HTTP library has lowered \
     them before we see them. A proxy that writes them so changes nothing about the answer",
)];

/// Where the judgement is the same and the output is not given, though the SDK's object holds it.
const WITHHELD: [&str; 5] = [
    // No success: what comes with one that does not count does not count either.
    "fields_only_no_headers",
    "bad_status_header",
    "status_header_disagrees",
    "upper_case_header_names",
    "dashes_instead_of_underscores",
];

async fn replay(capture: &str) {
    let capture: Value = serde_json::from_str(capture).unwrap();
    let cases = capture["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 33);
    let mut differed = Vec::new();
    for case in cases {
        let (id, expected) = (case["id"].as_str().unwrap(), &case["result"]);
        // The text form is shortened.
        let bytes = STANDARD.decode(case["response_b64"].as_str().unwrap()).unwrap();
        let server = Server::start(move |_| Answer::Close(bytes.clone())).await;
        let reply = bob().ask(&server.peer, &echo(), LONG).await;

        let code = expected["dendrite_status_code"].as_u64().map(|code| u16::try_from(code).unwrap());
        match DIFFERENCES.iter().find(|(name, ..)| *name == id) {
            Some((_, ours, _)) => {
                assert_eq!(reply.code(), *ours, "{id}");
                assert_ne!(*ours, code, "{id} is no difference");
                differed.push(id);
                continue;
            }
            None => assert_eq!(reply.code(), code, "{id}: {reply:?}"),
        }
        assert_eq!(reply.answer.is_ok(), expected["is_success"].as_bool().unwrap(), "{id}: {reply:?}");
        let held = !expected["output"].as_object().unwrap().is_empty();
        match &reply.answer {
            Ok(answer) => {
                let output = serde_json::to_value(&answer.output).unwrap();
                assert_eq!(output, expected["output"], "{id}");
            }
            Err(_) => assert_eq!(held, WITHHELD.contains(&id), "{id}"),
        }
        let theirs = expected["dendrite_status_message"].as_str().unwrap_or_default();
        check_text(id, &reply.answer, theirs);
        assert_eq!(case["request_count"], server.requests().len(), "{id}: a request goes out once");
    }
    assert_eq!(differed, DIFFERENCES.map(|(id, ..)| id));
}

/// The SDK's texts end in the words of its libraries; the part before is the same, a peer's own words are its own.
fn check_text(id: &str, answer: &Result<EchoOutput, AskError>, theirs: &str) {
    let Err(error) = answer else { return };
    let ours = error.to_string();
    match error {
        AskError::Server { message, .. } => {
            let shortened: String = theirs.chars().take(300).collect();
            assert_eq!(*message, shortened, "{id}");
        }
        AskError::NoStatus => assert_eq!(theirs, "", "{id}"),
        _ => {
            let kind = |text: &str| text.split(':').next().unwrap().to_owned();
            assert_eq!(kind(&ours), kind(theirs), "{id}: {ours}");
        }
    }
}

#[tokio::test]
async fn replies_are_judged_as_by_sdk_9_0_0() {
    replay(include_str!("../vectors/axon/dendrite_vs_stub_9.0.0.json")).await;
}

#[tokio::test]
async fn replies_are_judged_as_by_sdk_10_5_0() {
    replay(include_str!("../vectors/axon/dendrite_vs_stub_10.5.0.json")).await;
}
