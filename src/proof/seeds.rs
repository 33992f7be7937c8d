//! Seeds and keys: how a challenge fixes the matrices and hashes of each round.
//!
//! `seed_0` binds the work to nonce, epoch, miner, device and size; `seed_{t+1}` binds it to the root of round `t`, so
//! that rounds cannot be computed out of order or ahead of time. All keys are BLAKE3 `derive_key`; joined fields are
//! little-endian and of fixed length.

use super::work::{Challenge, Root};

const SEED: &str = "compute-proof/1 seed";
const ENTRIES: &str = "compute-proof/1 entries";
const LEAF: &str = "compute-proof/1 leaf";
const NODE: &str = "compute-proof/1 node";
const NEXT: &str = "compute-proof/1 next";

/// The seed of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seed(pub [u8; 32]);

/// The keys of one round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RoundKeys {
    /// `E_t`: key of the keystreams that are the entries of `A` and `B`.
    pub entries: [u8; 32],
    /// `L_t`: key of the hash of a tile.
    pub leaf: [u8; 32],
    /// `D_t`: key of the hash of an inner node.
    pub node: [u8; 32],
}

impl Seed {
    /// The seed of the first round: `derive_key("compute-proof/1 seed", nonce ‖ epoch ‖ hotkey ‖ device ‖ n ‖ k ‖ R)`.
    pub fn first(challenge: &Challenge) -> Seed {
        let mut material = [0u8; 100];
        material[..32].copy_from_slice(&challenge.nonce);
        material[32..40].copy_from_slice(&challenge.epoch.to_le_bytes());
        material[40..72].copy_from_slice(&challenge.hotkey.0);
        material[72..88].copy_from_slice(&challenge.device.0);
        material[88..92].copy_from_slice(&challenge.work.n.to_le_bytes());
        material[92..96].copy_from_slice(&challenge.work.k.to_le_bytes());
        material[96..100].copy_from_slice(&challenge.work.rounds.to_le_bytes());
        Seed(blake3::derive_key(SEED, &material))
    }

    /// The next round's seed: `derive_key("compute-proof/1 next", seed ‖ root)`.
    #[must_use]
    pub fn next(&self, root: &Root) -> Seed {
        let mut material = [0u8; 64];
        material[..32].copy_from_slice(&self.0);
        material[32..].copy_from_slice(&root.0);
        Seed(blake3::derive_key(NEXT, &material))
    }

    /// This round's keys.
    pub fn keys(&self) -> RoundKeys {
        RoundKeys {
            entries: blake3::derive_key(ENTRIES, &self.0),
            leaf: blake3::derive_key(LEAF, &self.0),
            node: blake3::derive_key(NODE, &self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{DeviceId, Hash32, Hotkey};
    use crate::proof::Work;

    #[test]
    fn every_field_of_a_challenge_changes_its_seed() {
        let base = Challenge {
            nonce: [1; 32],
            epoch: 7,
            hotkey: Hotkey([2; 32]),
            device: DeviceId::cpu(0),
            work: Work::new(64, 128, 2).unwrap(),
        };
        let mut others = vec![base.clone(); 7];
        others[0].nonce[31] ^= 1;
        others[1].epoch += 1;
        others[2].hotkey.0[0] ^= 1;
        others[3].device = DeviceId::cpu(1);
        others[4].work.n = 128;
        others[5].work.k = 64;
        others[6].work.rounds = 1;
        for other in others {
            assert_ne!(other.seed_0(), base.seed_0(), "{other:?}");
        }
    }

    #[test]
    fn the_next_seed_depends_on_the_root_and_on_the_seed() {
        let (a, b) = (Seed([1; 32]), Seed([2; 32]));
        assert_ne!(a.next(&Hash32([0; 32])), a.next(&Hash32([1; 32])));
        assert_ne!(a.next(&Hash32([0; 32])), b.next(&Hash32([0; 32])));
    }
}
