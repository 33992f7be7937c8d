//! The kernels' source, run on this machine's CPU, against the definitions in Rust, bit for bit.

use std::sync::atomic::AtomicBool;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use super::device::{Device, Product, at};
use super::emulated::{Arch, Emulated};
use super::kernels::Launch;
use super::{CudaError, commit_on, gpus, rounds};
use crate::ids::{DeviceId, Hash32, Hotkey};
use crate::proof::keystream::{self, Matrix};
use crate::proof::tile::TILE_BYTES;
use crate::proof::verifier::{Checked, check_openings};
use crate::proof::{Challenge, Work, cpu, merkle, sample_positions, selftest};

static GO: AtomicBool = AtomicBool::new(false);

fn random(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut out);
    out
}

fn challenge(n: u32, k: u32, rounds: u32) -> Challenge {
    let work = Work::new(n, k, rounds).unwrap();
    Challenge { nonce: [9; 32], epoch: 3, hotkey: Hotkey([4; 32]), device: DeviceId([5; 16]), work }
}

fn finish(device: &mut Emulated) {
    device.wait(0, &mut |_| panic!("nothing was fetched")).unwrap();
}

fn hashes(bytes: &[u8]) -> Vec<Hash32> {
    bytes.as_chunks::<32>().0.iter().map(|hash| Hash32(*hash)).collect()
}

#[test]
fn rows_are_the_keystream() {
    let mut device = Emulated::new(Arch::Ampere);
    for (matrix, first, rows, k) in [(Matrix::A, 0, 32, 64), (Matrix::B, 4096, 7, 512), (Matrix::A, 131_071, 1, 65_536)]
    {
        let out = device.with(&vec![0; rows * k]);
        let key = [first as u8; 32];
        device.launch(0, &Launch::fill_rows(&key, first, matrix as u32, rows as u32, k as u32, &out)).unwrap();
        finish(&mut device);
        for (row, found) in (first..).zip(out.read().chunks_exact(k)) {
            let mut expected = vec![0; k];
            keystream::fill(&key, row, matrix, &mut expected);
            assert!(found == expected, "{matrix:?} row {row} k {k}");
        }
    }
}

#[test]
fn hashes_of_a_strip_are_those_of_its_tiles() {
    let mut device = Emulated::new(Arch::Ampere);
    for (rows, n) in [(32usize, 32usize), (64, 128), (32, 2048), (128, 1024)] {
        let content = random(n as u64, 4 * rows * n);
        let (strip, leaves) = (device.with(&content), device.with(&vec![0; 64 + rows * n / 32]));
        let key = [7; 32];
        device.launch(0, &Launch::hash_tiles(&key, &strip, rows as u32, n as u32, &leaves, 64)).unwrap();
        finish(&mut device);
        let found = hashes(&leaves.read());
        assert_eq!(found[..2], [Hash32([0; 32]); 2], "what lies before the strip's hashes is left alone");
        for (number, found) in found[2..].iter().enumerate() {
            let (row, column) = (number / (n / 32) * 32, number % (n / 32) * 32);
            let line = |line: usize| &content[4 * ((row + line) * n + column)..][..128];
            let tile: Vec<u8> = (0..32).flat_map(line).copied().collect();
            assert_eq!(tile.len(), TILE_BYTES);
            assert_eq!(*found, merkle::leaf(&key, &tile), "tile {number} of {rows} × {n}");
        }
    }
}

#[test]
fn a_level_of_the_tree_is_the_hashes_of_pairs() {
    let mut device = Emulated::new(Arch::Ampere);
    for count in [1usize, 2, 128, 300] {
        let content = random(count as u64, 64 * count);
        let (below, above) = (device.with(&content), device.with(&vec![0; 32 * count]));
        device.launch(0, &Launch::hash_nodes(&[6; 32], at(&below, 0), count as u32, at(&above, 0))).unwrap();
        finish(&mut device);
        let pairs = hashes(&content);
        let expected: Vec<Hash32> =
            pairs.chunks_exact(2).map(|pair| merkle::node(&[6; 32], &pair[0], &pair[1])).collect();
        assert_eq!(hashes(&above.read()), expected);
    }
}

#[test]
fn a_strip_of_the_product_is_the_dot_products_of_its_rows() {
    for arch in [Arch::Turing, Arch::Ampere] {
        let mut device = Emulated::new(arch);
        for (rows, n, k) in
            [(32, 32, 64), (32, 256, 128), (64, 128, 192), (128, 128, 256), (256, 32, 320), (128, 64, 1024)]
        {
            let (a, b) = (random(1, rows * k), random(2, n * k));
            let (on_a, on_b) = (device.with(&a), device.with(&b));
            let c = device.with(&vec![0x5a; 4 * rows * n]);
            let product = Product { a: &on_a, b: &on_b, c: &c, rows: rows as u32, n: n as u32, k: k as u32 };
            device.multiply(0, &product).unwrap();
            finish(&mut device);
            let found = c.read();
            let entries = found.as_chunks::<4>().0.iter().map(|entry| i32::from_le_bytes(*entry));
            for (number, entry) in entries.enumerate() {
                let (i, j) = (number / n, number % n);
                let row = a[i * k..][..k].iter().zip(&b[j * k..][..k]);
                let expected: i32 = row.map(|(&x, &y)| i32::from(x as i8) * i32::from(y as i8)).sum();
                assert_eq!(entry, expected, "{arch:?} {rows}×{n}×{k}: ({i}, {j})");
            }
        }
    }
}

/// A memory proof's vector: nonce 32×01, epoch 7, hotkey 32×02, uuid 16×03, 16 blocks, 8 iterations, 2 scans; nonce_0 32×09.
#[test]
fn blocks_and_scans_of_a_memory_proof_are_those_of_its_vector() {
    let (blocks, iterations, scans) = (16u32, 8u32, 2u32);
    let fields: [&[u8]; 7] = [
        &[1; 32],
        &7u64.to_le_bytes(),
        &[2; 32],
        &[3; 16],
        &u64::from(blocks).to_le_bytes(),
        &iterations.to_le_bytes(),
        &scans.to_le_bytes(),
    ];
    let fill =
        blake3::derive_key("compute-proof/1 fill", &blake3::derive_key("compute-proof/1 memory", &fields.concat()));
    let mut device = Emulated::new(Arch::Ampere);
    let content = device.with(&vec![0; 1024 * blocks as usize]);
    device.launch(0, &Launch::fill_blocks(&fill, iterations, 0, blocks, at(&content, 0))).unwrap();
    finish(&mut device);
    let words: Vec<u32> = content.read().as_chunks::<4>().0.iter().map(|word| u32::from_le_bytes(*word)).collect();
    assert_eq!(words[..4], [0x9ee4_be3a, 0x9f64_cb09, 0x52c9_11fa, 0x35de_c424]);
    assert_eq!(words[15 * 256 + 255], 0xc48a_3700);

    let roots = [
        "81901788ab1bcf8e4bc1469935d75fd2c6b7a17978590a1f5d84d9e68b467667",
        "cc40ed98f84e24db3047892f59331109531066e26d5c01d0b2a623310765c2c3",
    ];
    let mut nonce = [9; 32];
    for expected in roots {
        let key = |context| blake3::derive_key(context, &nonce);
        let (coefficients, leaves) = (device.with(&[0; 1024]), device.with(&[0; 4 * 32]));
        let third = Launch::fill_rows(&key("compute-proof/1 scan"), 0, 3, 1, 1024, &coefficients);
        device.launch(0, &third).unwrap();
        let leaf_key = key("compute-proof/1 scan-leaf");
        let scan = Launch::scan_groups(&leaf_key, &coefficients, at(&content, 0), 4, 4, at(&leaves, 0));
        device.launch(0, &scan).unwrap();
        finish(&mut device);
        let tree = hashes(&leaves.read());
        let root = merkle::Tree::build(&key("compute-proof/1 scan-node"), &tree).root();
        assert_eq!(root.to_string(), expected);
        nonce = blake3::derive_key("compute-proof/1 scan-next", &[nonce, root.0].concat());
    }
}

#[test]
fn leaves_of_a_scan_are_the_digests_of_their_groups_and_then_zeros() {
    let mut device = Emulated::new(Arch::Ampere);
    for groups in [1usize, 3, 37, 130] {
        let (content, weights) = (random(3, 4096 * groups), random(4, 1024));
        let padded = groups.next_power_of_two();
        let (blocks, coefficients) = (device.with(&content), device.with(&weights));
        let leaves = device.with(&vec![0xff; 32 * padded]);
        let (count, all) = (groups as u32, padded as u32);
        let scan = Launch::scan_groups(&[8; 32], &coefficients, at(&blocks, 0), count, all, at(&leaves, 0));
        device.launch(0, &scan).unwrap();
        finish(&mut device);
        let word = |bytes: &[u8], at: usize| u32::from_le_bytes(bytes[4 * at..][..4].try_into().unwrap());
        let digest = |block: &[u8]| -> Vec<u8> {
            let term = |m: usize, w: usize| word(&weights, 4 * m + w).wrapping_mul(word(block, 4 * m + w));
            let sum = |w: usize| (0..64).map(|m| term(m, w)).fold(0u32, u32::wrapping_add);
            (0..4).flat_map(|w| sum(w).to_le_bytes()).collect()
        };
        let leaf =
            |group: &[u8]| merkle::leaf(&[8; 32], &group.chunks_exact(1024).flat_map(digest).collect::<Vec<u8>>());
        let mut expected: Vec<Hash32> = content.chunks_exact(4096).map(leaf).collect();
        expected.resize(padded, Hash32([0; 32]));
        assert_eq!(hashes(&leaves.read()), expected, "{groups} groups");
    }
}

#[test]
fn roots_and_openings_are_those_of_the_cpu_backend() {
    for (arch, free, challenge) in [
        (Arch::Ampere, 16 << 30, selftest::challenge().unwrap()),
        (Arch::Turing, 16 << 30, challenge(32, 64, 2)),
        (Arch::Turing, 16 << 30, challenge(128, 256, 2)),
        // Little memory: strips of 32 rows, on both lanes by turns.
        (Arch::Ampere, (256 << 20) + 250_000, challenge(256, 64, 2)),
    ] {
        let mut device = Emulated::new(arch);
        device.free = free;
        let made = rounds::commit(&mut device, &challenge, 2, &GO).unwrap();
        let expected = cpu::commit(&challenge, 2, &GO).unwrap();
        assert_eq!(made.roots(), expected.roots(), "{arch:?} {:?}", challenge.work);
        assert_eq!(device.allocated(), 0, "nothing is left on the device");
        let positions = sample_positions(&challenge.work, 20, &[1; 32]);
        let openings = made.open(&positions, &GO).unwrap();
        assert_eq!(openings, expected.open(&positions, &GO).unwrap());
        assert_eq!(check_openings(&challenge, made.roots(), &positions, &openings), Ok(Checked { samples: 20 }));
    }
}

#[test]
fn a_device_that_is_lost_at_any_time_is_an_error_and_nothing_is_left_on_it() {
    let challenge = challenge(64, 64, 1);
    let mut lost = 0;
    for after in 0.. {
        let mut device = Emulated::new(Arch::Ampere);
        device.lost_after = after;
        match rounds::commit(&mut device, &challenge, 1, &GO) {
            Ok(_) => break,
            Err(error) => assert!(matches!(error, CudaError::Vanished { .. }), "{error:?}"),
        }
        assert_eq!(device.allocated(), 0);
        lost += 1;
    }
    assert!(lost > 15, "{lost}");
}

#[test]
fn a_raised_flag_ends_the_rounds_and_leaves_nothing_on_the_device() {
    let mut device = Emulated::new(Arch::Ampere);
    let ended = rounds::commit(&mut device, &challenge(64, 64, 1), 1, &AtomicBool::new(true));
    assert_eq!((ended.err(), device.allocated()), (Some(CudaError::Cancelled), 0));
}

#[test]
fn work_that_does_not_fit_is_refused_before_anything_is_allocated() {
    let mut device = Emulated::new(Arch::Ampere);
    device.free = 1 << 20;
    device.lost_after = 1; // only the question for free memory is answered
    let refused = rounds::commit(&mut device, &challenge(64, 64, 1), 1, &GO).err();
    assert!(matches!(refused, Some(CudaError::OutOfMemory { free: 0x10_0000, .. })), "{refused:?}");
}

#[test]
fn without_a_driver_the_error_says_what_to_install() {
    let challenge = challenge(64, 64, 1);
    let refused = commit_on(challenge.device, super::Multiplier::Best, &challenge, 1, &GO).err().unwrap();
    match gpus() {
        Err(CudaError::NoDriver) => {
            assert_eq!(refused, CudaError::NoDriver);
            assert_eq!(
                refused.to_string(),
                "there is no CUDA driver: libcuda.so.1 was not found; install NVIDIA's driver, 525 or later (in a \
                 container: run it with --gpus)"
            );
        }
        // A machine with a driver: it has no device of this UUID.
        _ => assert!(refused.is_absence(), "{refused}"),
    }
}
