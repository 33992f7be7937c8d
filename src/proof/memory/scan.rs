//! One scan: digests of all blocks in groups of four, and the tree over them.
//!
//! `leaf = keyed_hash(leaf key, digests of blocks 4g … 4g+3)`, 64 bytes; leaves are padded to a power of two with zeros;
//! `node = keyed_hash(node key, left ‖ right)`. Nodes and paths are [`merkle`]'s: the index binds the position.

use super::block::{self, DIGEST_BYTES, Digest, Words};
use super::keys::ScanKeys;
use super::size::GROUP;
use crate::ids::Hash32;
use crate::proof::gemm::Kernel;
use crate::proof::merkle;

/// Bytes of the digests of a group's three other blocks.
pub const OTHERS_BYTES: usize = (GROUP - 1) * DIGEST_BYTES;
/// A leaf where no block is.
pub const PADDING: Hash32 = Hash32([0; 32]);

/// The digests of one group's blocks, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Group([u8; GROUP * DIGEST_BYTES]);

impl Group {
    /// The digests of these blocks: the first four, with zeros for those that are missing.
    pub fn of(kernel: Kernel, keys: &ScanKeys, blocks: &[Words]) -> Self {
        let mut group = [0u8; GROUP * DIGEST_BYTES];
        for (digest, block) in group.chunks_exact_mut(DIGEST_BYTES).zip(blocks) {
            digest.copy_from_slice(&block::digest(kernel, &keys.coefficients, block));
        }
        Group(group)
    }

    /// One digest, put in its place (modulo 4) among the three others of an opening: [`OTHERS_BYTES`].
    pub fn with_others(own: &Digest, place: usize, others: &[u8]) -> Self {
        let mut others = others.chunks_exact(DIGEST_BYTES);
        let mut group = [0u8; GROUP * DIGEST_BYTES];
        for (at, slot) in group.chunks_exact_mut(DIGEST_BYTES).enumerate() {
            if at == place % GROUP {
                slot.copy_from_slice(own);
            } else if let Some(other) = others.next() {
                slot.copy_from_slice(other);
            }
        }
        Group(group)
    }

    /// All digests but that at `place` (modulo 4): what an opening begins with.
    pub fn others(&self, place: usize) -> [u8; OTHERS_BYTES] {
        let own = place % GROUP * DIGEST_BYTES;
        let mut others = [0u8; OTHERS_BYTES];
        let (head, tail) = others.split_at_mut(own);
        head.copy_from_slice(&self.0[..own]);
        tail.copy_from_slice(&self.0[own + DIGEST_BYTES..]);
        others
    }

    /// The leaf of the tree.
    pub fn leaf(&self, keys: &ScanKeys) -> Hash32 {
        merkle::leaf(&keys.leaf, &self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::memory::keys::ScanNonce;

    #[test]
    fn a_group_is_put_together_again_from_one_digest_and_the_others() {
        let keys = ScanNonce([1; 32]).keys();
        let blocks: Vec<Words> = (0..4).map(|i| block::fill(Kernel::best(), &[2; 32], i, 1)).collect();
        let group = Group::of(Kernel::best(), &keys, &blocks);
        for (place, own) in blocks.iter().enumerate() {
            let own = block::digest(Kernel::scalar(), &keys.coefficients, own);
            assert_eq!(Group::with_others(&own, place, &group.others(place)), group);
            let elsewhere = Group::with_others(&own, place + 1, &group.others(place));
            assert_ne!(elsewhere.leaf(&keys), group.leaf(&keys));
        }
    }
}
