//! Frames between a node and its prover: whatever a reader accepts is what a writer would have written.
#![no_main]

use compute_subnet::proof::frames::{Frame, HEADER, MAX_BODY, decode, read_frame};
use futures_util::FutureExt as _;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    // Small bounds too: a reader's own bound holds whatever the header says.
    let (bound, bytes) = match bytes {
        [0, rest @ ..] => (64, rest),
        [_, rest @ ..] => (MAX_BODY, rest),
        [] => return,
    };
    let decoded = decode(bytes, bound);
    // The reader of a stream and the decoder of a buffer are two programs with one meaning.
    let mut stream = bytes;
    let read = read_frame(&mut stream, bound).now_or_never().expect("memory is always ready");
    match (&decoded, &read) {
        (Ok(Some((frame, used))), Ok(Some(same))) => {
            assert_eq!(frame, same);
            assert_eq!(stream.len(), bytes.len() - used);
        }
        (Ok(None), Ok(None)) => assert!(bytes.is_empty()),
        (Ok(None), Err(_)) | (Err(_), Err(_)) => {}
        other => panic!("the two readers disagree: {other:?}"),
    }

    let Ok(Some((frame, used))) = decoded else { return };
    assert!(used <= HEADER + bound);
    let encoded = frame.encode().expect("what was within its bound is within its bound");
    if !matches!(frame, Frame::Error { .. }) {
        assert_eq!(encoded, &bytes[..used]);
    }
    // The text of an error is cut and made UTF-8, after which it stays what it is.
    let (again, length) = decode(&encoded, MAX_BODY).expect("own frames are accepted").expect("and complete");
    assert_eq!(length, encoded.len());
    match (&frame, &again) {
        (Frame::Error { kind, text }, Frame::Error { kind: same, text: cut }) => {
            assert!(kind == same && text.starts_with(cut.as_str()));
        }
        _ => assert_eq!(frame, again),
    }
    for end in [0, HEADER - 1, HEADER, used / 2, used - 1] {
        if end < used {
            assert!(matches!(decode(&bytes[..end], bound), Ok(None)), "a part of a frame is no frame and no error");
        }
    }
});
