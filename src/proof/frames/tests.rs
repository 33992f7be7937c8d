use super::*;
use proptest::prelude::*;

fn challenge() -> Challenge {
    let work = Work::new(64, 128, 2).unwrap();
    Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId([3; 16]), work }
}

fn memory_challenge() -> memory::Challenge {
    let size = memory::Size::new(1 << 32, 256, 4096).unwrap();
    memory::Challenge { nonce: [1; 32], epoch: 7, hotkey: Hotkey([2; 32]), device: DeviceId([3; 16]), size }
}

fn all() -> Vec<Frame> {
    vec![
        Frame::Fill { challenge: memory_challenge(), threads: 3 },
        Frame::Scan { nonce_0: ScanNonce([9; 32]) },
        Frame::OpenBlocks { positions: vec![memory::Position { scan: 4095, block: u32::MAX }; 5] },
        Frame::Filled,
        Frame::ScanRoots { roots: vec![Hash32([7; 32]); 4096] },
        Frame::BlockOpenings { bytes: vec![1, 2, 3] },
        Frame::Commit { challenge: challenge(), threads: 3 },
        Frame::Open { positions: vec![Position { round: 1, row: 2, col: 3 }; 5] },
        Frame::Bye,
        Frame::Roots { roots: vec![Hash32([7; 32]); 2] },
        Frame::Openings { bytes: vec![1, 2, 3] },
        Frame::Error { kind: ErrorKind::OutOfMemory, text: "too little".into() },
    ]
}

#[test]
fn every_frame_decodes_to_itself_and_says_how_long_it_was() {
    for frame in all() {
        let mut bytes = frame.encode().unwrap();
        let length = bytes.len();
        bytes.extend_from_slice(b"more");
        assert_eq!(decode(&bytes, MAX_BODY).unwrap(), Some((frame, length)));
    }
}

#[test]
fn an_incomplete_frame_is_not_an_error_yet() {
    for frame in all() {
        let bytes = frame.encode().unwrap();
        for end in (0..bytes.len()).take(200).chain([bytes.len() - 1]) {
            assert!(decode(&bytes[..end], MAX_BODY).unwrap().is_none());
        }
    }
}

#[test]
fn the_largest_openings_of_memory_fit_into_their_frame() {
    let largest = memory_challenge().size.opening_len() * MAX_POSITIONS;
    assert_eq!(largest, MAX_BLOCK_OPENINGS);
    assert!(Frame::BlockOpenings { bytes: vec![0; largest] }.encode().is_ok());
    assert!(matches!(Frame::BlockOpenings { bytes: vec![0; largest + 1] }.encode(), Err(FrameError::TooLong { .. })));
}

#[test]
fn lengths_above_the_bound_of_their_kind_or_of_the_reader_are_refused_from_the_header_alone() {
    let header = |length: u32, kind: u8| {
        let [a, b, c, d] = length.to_le_bytes();
        [a, b, c, d, kind]
    };
    let say = |bytes: [u8; 5], max| decode(&bytes, max).unwrap_err().to_string();
    assert_eq!(say(header(u32::MAX, 18), MAX_BODY), "openings frame of 4294967295 bytes, at most 19922944 are allowed");
    assert_eq!(say(header(105, 1), MAX_BODY), "commit frame of 105 bytes, at most 104 are allowed");
    assert_eq!(say(header(1, 3), MAX_BODY), "bye frame of 1 bytes, at most 0 are allowed");
    assert_eq!(say(header(11, 18), 10), "openings frame of 11 bytes, at most 10 are allowed");
    assert_eq!(say(header(0, 99), MAX_BODY), "no frame has kind 99");
    assert_eq!(say(header(109, 12), MAX_BODY), "fill frame of 109 bytes, at most 108 are allowed");
    assert_eq!(say(header(33, 13), MAX_BODY), "scan frame of 33 bytes, at most 32 are allowed");
    assert_eq!(say(header(32_769, 14), MAX_BODY), "open blocks frame of 32769 bytes, at most 32768 are allowed");
    assert_eq!(say(header(1, 28), MAX_BODY), "filled frame of 1 bytes, at most 0 are allowed");
    assert_eq!(say(header(131_073, 29), MAX_BODY), "scan roots frame of 131073 bytes, at most 131072 are allowed");
    assert_eq!(
        say(header(u32::MAX, 30), MAX_BODY),
        "block openings frame of 4294967295 bytes, at most 4128768 are allowed"
    );
}

#[test]
fn bodies_that_do_not_fit_their_kind_are_refused() {
    assert!(matches!(decode_body(Kind::COMMIT, &[0; 103]), Err(FrameError::Body { .. })));
    let no_work = decode_body(Kind::COMMIT, &[0; 104]).unwrap_err();
    assert!(no_work.to_string().starts_with("commit frame: n is 0"), "{no_work}");
    assert!(matches!(decode_body(Kind::OPEN, &[0; 13]), Err(FrameError::Body { .. })));
    assert!(matches!(decode_body(Kind::FILL, &[0; 107]), Err(FrameError::Body { .. })));
    let no_size = decode_body(Kind::FILL, &[0; 108]).unwrap_err();
    assert!(no_size.to_string().starts_with("fill frame: blocks is 0"), "{no_size}");
    assert!(matches!(decode_body(Kind::SCAN, &[0; 31]), Err(FrameError::Body { .. })));
    assert!(matches!(decode_body(Kind::OPEN_BLOCKS, &[0; 12]), Err(FrameError::Body { .. })));
    assert!(matches!(decode_body(Kind::SCAN_ROOTS, &[0; 31]), Err(FrameError::Body { .. })));
    assert!(matches!(decode_body(Kind::ROOTS, &[0; 31]), Err(FrameError::Body { .. })));
    assert!(matches!(decode_body(Kind::ERROR, &[]), Err(FrameError::Body { .. })));
    assert!(matches!(decode_body(Kind::ERROR, &[9]), Err(FrameError::Body { .. })));
}

#[test]
fn content_above_its_bound_is_not_sent_and_error_texts_are_cut_at_a_character() {
    let too_many = Frame::Roots { roots: vec![Hash32([0; 32]); 257] };
    assert!(matches!(too_many.encode(), Err(FrameError::TooLong { .. })));
    let too_many = Frame::ScanRoots { roots: vec![Hash32([0; 32]); 4097] };
    assert!(matches!(too_many.encode(), Err(FrameError::TooLong { .. })));
    let long = Frame::Error { kind: ErrorKind::Internal, text: "ä".repeat(1000) };
    let Some((Frame::Error { text, .. }, _)) = decode(&long.encode().unwrap(), MAX_BODY).unwrap() else { panic!() };
    assert_eq!(text, "ä".repeat(512));
}

#[tokio::test]
async fn frames_cross_a_pipe_and_its_end_is_told_apart_from_a_cut() {
    let (mut near, mut far) = tokio::io::duplex(64);
    let writer = tokio::spawn(async move {
        for frame in all() {
            write_frame(&mut near, &frame).await.unwrap();
        }
        near.write_all(&[9, 0, 0]).await.unwrap();
    });
    for frame in all() {
        assert_eq!(read_frame(&mut far, MAX_BODY).await.unwrap(), Some(frame));
    }
    assert!(matches!(read_frame(&mut far, MAX_BODY).await, Err(FrameError::Ended)));
    writer.await.unwrap();
    let (near, mut far) = tokio::io::duplex(64);
    drop(near);
    assert!(read_frame(&mut far, MAX_BODY).await.unwrap().is_none());
}

#[tokio::test]
async fn a_hello_of_the_wrong_side_or_version_is_refused() {
    let read = async |bytes: &[u8]| read_hello(&mut &*bytes, PROVER_HELLO).await;
    assert!(read(&PROVER_HELLO).await.is_ok());
    assert!(matches!(read(&HOST_HELLO).await, Err(FrameError::Hello { .. })));
    assert!(matches!(read(b"cproofP\x02").await, Err(FrameError::Hello { .. })));
    assert!(matches!(read(b"cpr").await, Err(FrameError::Ended)));
}

proptest! {
    #[test]
    fn garbage_never_panics_the_decoder(bytes in proptest::collection::vec(any::<u8>(), 0..300), max in 0usize..400) {
        let _ = decode(&bytes, max);
    }

    #[test]
    fn garbage_with_a_true_header_never_panics_the_decoder(
        kind in prop_oneof![1u8..4, 12u8..15, 17u8..20, 28u8..31],
        body in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let mut bytes = (body.len() as u32).to_le_bytes().to_vec();
        bytes.push(kind);
        bytes.extend(body);
        if let Ok(Some((frame, length))) = decode(&bytes, MAX_BODY) {
            prop_assert_eq!(length, bytes.len());
            // What was understood says the same again, but for error texts that were no UTF-8.
            if !matches!(frame, Frame::Error { .. }) {
                prop_assert_eq!(frame.encode().unwrap(), bytes);
            }
        }
    }
}
