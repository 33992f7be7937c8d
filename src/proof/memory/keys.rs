//! Keys: how a challenge fixes the blocks, and how nonces fix what is asked of them in each scan.
//!
//! The fill's key binds the blocks to nonce, epoch, miner, device and size. Nobody knows the first scan's nonce before
//! the memory is filled; each later one depends on the root of the scan before, so that scans cannot be joined into one.

use serde::{Deserialize, Serialize};

use super::block::Words;
use super::size::Challenge;
use crate::proof::keystream::Matrix;
use crate::proof::work::Root;

const MEMORY: &str = "compute-proof/1 memory";
const FILL: &str = "compute-proof/1 fill";
const SCAN: &str = "compute-proof/1 scan";
const SCAN_LEAF: &str = "compute-proof/1 scan-leaf";
const SCAN_NODE: &str = "compute-proof/1 scan-node";
const SCAN_NEXT: &str = "compute-proof/1 scan-next";

/// What one scan's coefficients and hashes are derived from; in text, 64 hex digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ScanNonce(#[serde(with = "hex::serde")] pub [u8; 32]);

/// What one scan weighs and hashes with.
pub struct ScanKeys {
    /// `q`: the first 256 words of `KS(derive_key("compute-proof/1 scan", nonce), 0, 3)`.
    pub coefficients: Words,
    /// Key of the hash of a group's digests.
    pub leaf: [u8; 32],
    /// Key of the hash of an inner node.
    pub node: [u8; 32],
}

/// `F`, the key of all blocks: `derive_key("compute-proof/1 fill", M)` of
/// `M = derive_key("compute-proof/1 memory", nonce ‖ epoch ‖ hotkey ‖ device ‖ N u64 ‖ T u32 ‖ S u32)`.
pub fn fill_key(challenge: &Challenge) -> [u8; 32] {
    let mut material = [0u8; 104];
    material[..32].copy_from_slice(&challenge.nonce);
    material[32..40].copy_from_slice(&challenge.epoch.to_le_bytes());
    material[40..72].copy_from_slice(&challenge.hotkey.0);
    material[72..88].copy_from_slice(&challenge.device.0);
    material[88..96].copy_from_slice(&challenge.size.blocks().to_le_bytes());
    material[96..100].copy_from_slice(&challenge.size.iterations().to_le_bytes());
    material[100..104].copy_from_slice(&challenge.size.scans().to_le_bytes());
    blake3::derive_key(FILL, &blake3::derive_key(MEMORY, &material))
}

impl ScanNonce {
    /// The next scan's nonce: `derive_key("compute-proof/1 scan-next", nonce ‖ root)`.
    #[must_use]
    pub fn next(&self, root: &Root) -> ScanNonce {
        let mut material = [0u8; 64];
        material[..32].copy_from_slice(&self.0);
        material[32..].copy_from_slice(&root.0);
        ScanNonce(blake3::derive_key(SCAN_NEXT, &material))
    }

    /// The key of the stream that the coefficients are read from: `derive_key("compute-proof/1 scan", nonce)`.
    pub fn coefficients_key(&self) -> [u8; 32] {
        blake3::derive_key(SCAN, &self.0)
    }

    /// This scan's keys.
    pub fn keys(&self) -> ScanKeys {
        ScanKeys {
            coefficients: Words::stream(&self.coefficients_key(), 0, Matrix::Scan),
            leaf: blake3::derive_key(SCAN_LEAF, &self.0),
            node: blake3::derive_key(SCAN_NODE, &self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hash32, Hotkey};
    use crate::proof::memory::Size;

    #[test]
    fn every_field_of_a_challenge_changes_the_key_of_its_blocks() {
        let size = |n, t, s| Size::new(n, t, s).unwrap();
        let base = Challenge {
            nonce: [1; 32],
            epoch: 7,
            hotkey: Hotkey([2; 32]),
            device: DeviceId::cpu(0),
            size: size(16, 8, 2),
        };
        let mut others = vec![base.clone(); 7];
        others[0].nonce[31] ^= 1;
        others[1].epoch += 1;
        others[2].hotkey.0[0] ^= 1;
        others[3].device = DeviceId::cpu(1);
        others[4].size = size(20, 8, 2);
        others[5].size = size(16, 4, 2);
        others[6].size = size(16, 8, 1);
        for other in others {
            assert_ne!(fill_key(&other), fill_key(&base), "{other:?}");
        }
    }

    #[test]
    fn the_next_nonce_depends_on_the_root_and_on_the_nonce() {
        let (a, b) = (ScanNonce([1; 32]), ScanNonce([2; 32]));
        assert_ne!(a.next(&Hash32([0; 32])), a.next(&Hash32([1; 32])));
        assert_ne!(a.next(&Hash32([0; 32])), b.next(&Hash32([0; 32])));
        assert_ne!(a.keys().coefficients, b.keys().coefficients);
    }
}
