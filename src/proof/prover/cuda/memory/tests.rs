//! Fills, scans and openings of the emulated device against the backend for processors, bit for bit.

use super::*;
use crate::ids::{DeviceId, Hotkey};
use crate::proof::memory::{cpu, sample_positions, verifier};
use crate::proof::prover::cuda::emulated::{Arch, Emulated};
use crate::proof::verifier::Checked;

static GO: AtomicBool = AtomicBool::new(false);
const NONCE: ScanNonce = ScanNonce([9; 32]);
/// Launches of one group, and nothing but roots kept.
const SMALLEST: Cut = Cut { fill: 1, kept: 0, piece: GROUP_BYTES };

fn challenge(blocks: u64, iterations: u32, scans: u32) -> Challenge {
    let size = Size::new(blocks, iterations, scans).unwrap();
    Challenge { nonce: [4; 32], epoch: 3, hotkey: Hotkey([4; 32]), device: DeviceId([5; 16]), size }
}

fn device() -> Emulated {
    Emulated::new(Arch::Ampere)
}

fn filled(challenge: &Challenge, cut: &Cut, device: Emulated) -> Filled<Emulated> {
    Filled::fill(device, challenge, cut, &GO).unwrap()
}

/// Roots and openings of some positions, from the device and from the backend for processors.
fn assert_same(challenge: &Challenge, filled: &mut Filled<Emulated>, nonce: ScanNonce, what: &str) {
    let expected = cpu::fill(challenge, 1, u64::MAX, &GO).unwrap().scan(nonce, &GO).unwrap();
    let roots = filled.scan(nonce, &GO).unwrap();
    assert_eq!(roots, expected.roots(), "{what}");
    let positions = sample_positions(&challenge.size, 12, &[1; 32]);
    let openings = filled.open(&positions, &GO).unwrap();
    assert_eq!(openings, expected.open(&positions, &GO).unwrap(), "{what}");
    let checked = verifier::check_openings(challenge, &nonce, &roots, &positions, &openings);
    assert_eq!(checked, Ok(Checked { samples: 12 }), "{what}");
}

#[test]
fn roots_and_openings_are_those_of_the_cpu_backend() {
    // One group; powers of two; padding of one, of some, of nearly half; more than a warp's groups; more than a block's.
    for (blocks, iterations, scans) in
        [(4, 1, 1), (8, 2, 3), (12, 16, 2), (16, 8, 2), (36, 1, 2), (100, 4, 1), (132, 1, 2), (516, 1, 1)]
    {
        let challenge = challenge(blocks, iterations, scans);
        // All leaves kept; some level between, if there is one; nothing but the roots.
        for kept in [Cut::GPU.kept, 64 * u64::from(scans), 0] {
            let cut = Cut { kept, ..Cut::GPU };
            let device = device();
            let allocated = device.watch();
            let mut memory = filled(&challenge, &cut, device);
            assert_same(&challenge, &mut memory, NONCE, &format!("{blocks} blocks, {kept} bytes kept"));
            drop(memory);
            assert_eq!(allocated(), 0, "nothing is left on the device");
        }
    }
}

#[test]
fn the_memory_may_lie_in_many_pieces_and_be_filled_in_many_launches() {
    let challenge = challenge(132, 2, 2);
    for (largest, pieces) in [(u64::MAX, 1), (32 * GROUP_BYTES, 2), (9 * GROUP_BYTES, 4), (GROUP_BYTES, 33)] {
        for kept in [Cut::GPU.kept, 256, 0] {
            let mut device = device();
            // The tree is smaller than the smallest piece.
            device.largest = largest;
            let cut = Cut { kept: kept.min(largest), ..SMALLEST };
            let mut memory = filled(&challenge, &cut, device);
            assert!(memory.pieces.len() >= pieces, "{} pieces", memory.pieces.len());
            assert_eq!(memory.pieces.iter().map(|piece| piece.groups).sum::<u64>(), 33);
            assert_same(&challenge, &mut memory, NONCE, &format!("{largest} bytes a piece, {kept} bytes kept"));
        }
    }
}

#[test]
fn a_second_scan_replaces_the_first_and_openings_are_in_the_order_asked() {
    let challenge = challenge(36, 2, 3);
    let mut memory = filled(&challenge, &Cut { kept: 96 * 3, ..Cut::GPU }, device());
    for nonce in [NONCE, ScanNonce([8; 32]), NONCE] {
        assert_same(&challenge, &mut memory, nonce, "scanned again");
    }
    let positions = [(2, 35), (0, 0), (2, 35), (1, 7), (0, 1)].map(|(scan, block)| Position { scan, block });
    let one = challenge.size.opening_len();
    let all = memory.open(&positions, &GO).unwrap();
    for (position, opening) in positions.iter().zip(all.chunks_exact(one)) {
        assert_eq!(memory.open(&[*position], &GO).unwrap(), opening);
    }
}

#[test]
fn an_opening_shows_what_the_device_holds() {
    let challenge = challenge(16, 2, 1);
    let mut memory = filled(&challenge, &Cut::GPU, device());
    let roots = memory.scan(NONCE, &GO).unwrap();
    let position = [Position { scan: 0, block: 5 }];
    let honest = memory.open(&position, &GO).unwrap();
    // Block 4, of the same group, is another one from here on.
    let other = crate::proof::memory::block::fill(Kernel::best(), &[1; 32], 4, 2);
    let bytes: Vec<u8> = other.0.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.pieces[0].memory.write(4 * BLOCK_BYTES, &bytes);
    let opened = memory.open(&position, &GO).unwrap();
    assert_ne!(opened, honest);
    assert!(verifier::check_openings(&challenge, &NONCE, &roots, &position, &opened).is_err());
}

#[test]
fn positions_outside_are_an_error() {
    let mut memory = filled(&challenge(16, 1, 1), &Cut::GPU, device());
    let early = Position { scan: 0, block: 0 };
    assert_eq!(memory.open(&[early], &GO), Err(CudaError::NoSuchBlock(early)));
    memory.scan(NONCE, &GO).unwrap();
    for (scan, block) in [(1, 0), (0, 16), (u32::MAX, u32::MAX)] {
        let outside = Position { scan, block };
        assert_eq!(memory.open(&[outside], &GO), Err(CudaError::NoSuchBlock(outside)));
    }
    assert_eq!(memory.open(&[], &GO), Ok(Vec::new()));
}

#[test]
fn memory_that_does_not_fit_is_refused_with_both_numbers_before_anything_is_allocated() {
    let challenge = challenge(1 << 20, 1, 64);
    let needed = memory_bytes(&challenge.size);
    // A scan's tree and its levels, all nodes kept that 64 MiB take, the coefficients, what is left alone.
    let trees = 32 * ((1 << 18) + (1 << 17) + (1 << 16)) + (64 << 20);
    assert_eq!(needed, (1 << 30) + trees + 1024 + (64 << 20));
    let mut device = device();
    (device.free, device.lost_after) = (needed - 1, 1); // only the question for free memory is answered
    let refused = Filled::fill(device, &challenge, &Cut::GPU, &GO).err();
    assert_eq!(refused, Some(CudaError::OutOfMemory { needed, free: needed - 1 }));
}

#[test]
fn memory_that_cannot_be_had_in_any_pieces_is_out_of_memory_and_nothing_is_left() {
    let challenge = challenge(132, 1, 1);
    for (largest, cut) in [(GROUP_BYTES - 1, SMALLEST), (40 * GROUP_BYTES, Cut { piece: 64 * GROUP_BYTES, ..SMALLEST })]
    {
        let mut device = device();
        // Says that more is free than it gives.
        device.largest = largest;
        device.withheld = device.free - 20 * GROUP_BYTES;
        let allocated = device.watch();
        let refused = Filled::fill(device, &challenge, &cut, &GO).err();
        let Some(CudaError::OutOfMemory { needed, free }) = refused else { panic!("{refused:?}") };
        assert_eq!(needed, challenge.size.bytes());
        assert!(free < 20 * GROUP_BYTES, "{free}");
        assert_eq!(allocated(), 0);
    }
}

#[test]
fn a_device_that_is_lost_at_any_time_is_an_error_and_nothing_is_left_on_it() {
    let challenge = challenge(36, 1, 2);
    let cut = Cut { kept: 0, ..SMALLEST };
    let mut lost = 0;
    for after in 0.. {
        let mut device = device();
        device.lost_after = after;
        let allocated = device.watch();
        let answer = || -> Result<(), CudaError> {
            let mut memory = Filled::fill(device, &challenge, &cut, &GO)?;
            memory.scan(NONCE, &GO)?;
            memory.open(&[Position { scan: 1, block: 35 }], &GO).map(drop)
        };
        let done = answer();
        assert_eq!(allocated(), 0);
        match done {
            Ok(()) => break,
            Err(error) => assert!(matches!(error, CudaError::Vanished { .. }), "{error:?}"),
        }
        lost += 1;
    }
    assert!(lost > 50, "{lost}");
}

#[test]
fn a_raised_flag_ends_fill_scan_and_open() {
    let raised = AtomicBool::new(true);
    let challenge = challenge(16, 1, 1);
    let device = device();
    let allocated = device.watch();
    let ended = Filled::fill(device, &challenge, &Cut::GPU, &raised).err();
    assert_eq!((ended, allocated()), (Some(CudaError::Cancelled), 0));
    let mut memory = filled(&challenge, &Cut::GPU, self::device());
    assert_eq!(memory.scan(NONCE, &raised), Err(CudaError::Cancelled));
    memory.scan(NONCE, &GO).unwrap();
    assert_eq!(memory.open(&[Position { scan: 0, block: 0 }], &raised), Err(CudaError::Cancelled));
}

#[test]
fn the_kept_level_is_the_lowest_that_fits() {
    let plan = |blocks, scans| Plan::of(&Size::new(blocks, 1, scans).unwrap(), &Cut::GPU);
    // 126 GiB in 64 scans: 32,768 nodes of each, of 1,024 leaves.
    let large = plan(126 << 20, 64);
    assert_eq!((large.leaves, large.nodes, large.kept_level()), (1 << 25, 1 << 15, 10));
    assert_eq!(large.parts(), [1 << 30, 1 << 29, 1 << 28, 64 << 20]);
    let largest = plan(1 << 32, 4096);
    assert_eq!((largest.nodes, largest.kept_level()), (512, 21));
    let small = plan(4, 1);
    assert_eq!((small.leaves, small.nodes, small.kept_level(), small.parts()), (1, 1, 0, [32; 4]));
    let roots = Plan::of(&Size::new(1 << 20, 1, 3).unwrap(), &SMALLEST);
    assert_eq!((roots.nodes, roots.parts()[3]), (1, 96));
}
