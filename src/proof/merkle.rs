//! The tree over a round's tiles, and paths in it.
//!
//! `leaf = keyed_hash(L_t, tile)`, `node = keyed_hash(D_t, left ‖ right)`. The number of leaves is a power of four, so
//! there is no padding. A path lists siblings from the bottom; at level `l` the node is the right child if and only if
//! bit `l` of the tile's index is 1: the index binds the position.

use std::sync::atomic::AtomicBool;

use super::workers::{Cancelled, OutOfMemory, filled, share_out};
use crate::ids::Hash32;

/// Nodes of a level that one thread makes at a time; levels of fewer are made by one thread.
const NODES_AT_A_TIME: usize = 4096;

/// The hash of a tile's bytes.
pub fn leaf(leaf_key: &[u8; 32], tile: &[u8]) -> Hash32 {
    Hash32(*blake3::keyed_hash(leaf_key, tile).as_bytes())
}

/// The hash of two nodes.
pub fn node(node_key: &[u8; 32], left: &Hash32, right: &Hash32) -> Hash32 {
    let mut pair = [0u8; 64];
    pair[..32].copy_from_slice(&left.0);
    pair[32..].copy_from_slice(&right.0);
    Hash32(*blake3::keyed_hash(node_key, &pair).as_bytes())
}

/// The root that a leaf at `index` and its path lead to. `path` is whole 32-byte siblings, bottom-up; bytes of an
/// incomplete sibling at its end are ignored, so check the length first.
pub fn walk(node_key: &[u8; 32], leaf: Hash32, index: u64, path: &[u8]) -> Hash32 {
    let mut here = leaf;
    for (level, bytes) in path.chunks_exact(32).enumerate() {
        let mut sibling = Hash32([0; 32]);
        sibling.0.copy_from_slice(bytes);
        let is_right = index.checked_shr(level as u32).unwrap_or(0) & 1 == 1;
        here = if is_right { node(node_key, &sibling, &here) } else { node(node_key, &here, &sibling) };
    }
    here
}

/// The inner nodes of one round's tree. The leaves stay with the caller, who keeps them for all rounds.
pub struct Tree<'a> {
    leaves: &'a [Hash32],
    /// `inner[0]` holds the parents of the leaves, the last level the root alone.
    inner: Vec<Vec<Hash32>>,
}

impl<'a> Tree<'a> {
    /// Builds the tree over `leaves`, a power of two of them or none.
    pub fn build(node_key: &[u8; 32], leaves: &'a [Hash32]) -> Self {
        debug_assert!(leaves.is_empty() || leaves.len().is_power_of_two());
        let mut inner: Vec<Vec<Hash32>> = Vec::new();
        let mut below = leaves;
        while below.len() > 1 {
            let level = below.chunks_exact(2).map(|pair| node(node_key, &pair[0], &pair[1])).collect();
            inner.push(level);
            below = inner.last().map_or(&[], Vec::as_slice);
        }
        Tree { leaves, inner }
    }

    /// [`Tree::build`] with at most `threads` threads, and an error where memory cannot be had.
    pub(super) fn build_with<E: From<Cancelled> + From<OutOfMemory>>(
        node_key: &[u8; 32],
        leaves: &'a [Hash32],
        threads: usize,
        cancel: &AtomicBool,
    ) -> Result<Self, E> {
        debug_assert!(leaves.is_empty() || leaves.len().is_power_of_two());
        let mut inner: Vec<Vec<Hash32>> = Vec::new();
        let mut below = leaves;
        while below.len() > 1 {
            let mut level = filled(below.len() / 2, Hash32([0; 32]))?;
            let workers = vec![(); threads.min(level.len() / NODES_AT_A_TIME).max(1)];
            let parts = level.chunks_mut(NODES_AT_A_TIME).zip(below.chunks(2 * NODES_AT_A_TIME));
            share_out(workers, parts, cancel, |(), (nodes, below)| {
                for (made, pair) in nodes.iter_mut().zip(below.chunks_exact(2)) {
                    *made = node(node_key, &pair[0], &pair[1]);
                }
            })?;
            inner.push(level);
            below = inner.last().map_or(&[], Vec::as_slice);
        }
        Ok(Tree { leaves, inner })
    }

    /// The root; zeros for a tree without leaves.
    pub fn root(&self) -> Hash32 {
        let top = self.inner.last().map_or(self.leaves, Vec::as_slice);
        top.first().copied().unwrap_or(Hash32([0; 32]))
    }

    /// The siblings on the way from the leaf at `index` to the root, bottom-up. Shorter if there is no such leaf.
    pub fn path(&self, index: u64) -> Vec<Hash32> {
        let levels = std::iter::once(self.leaves).chain(self.inner.iter().map(Vec::as_slice));
        levels
            .take(self.inner.len())
            .enumerate()
            .filter_map(|(level, nodes)| nodes.get((index >> level) as usize ^ 1).copied())
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proof::cpu::CpuError;

    fn leaves(count: u8) -> Vec<Hash32> {
        (0..count).map(|i| leaf(&[1; 32], &[i])).collect()
    }

    fn bytes(path: &[Hash32]) -> Vec<u8> {
        path.iter().flat_map(|h| h.0).collect()
    }

    #[test]
    fn every_leafs_path_leads_to_the_root() {
        let leaves = leaves(16);
        let tree = Tree::build(&[2; 32], &leaves);
        for (index, leaf) in leaves.iter().enumerate() {
            let path = bytes(&tree.path(index as u64));
            assert_eq!(path.len(), 4 * 32);
            assert_eq!(walk(&[2; 32], *leaf, index as u64, &path), tree.root());
        }
    }

    #[test]
    fn the_tree_does_not_depend_on_threads() {
        let leaves: Vec<Hash32> = (0u32..32_768).map(|i| leaf(&[1; 32], &i.to_le_bytes())).collect();
        let go = AtomicBool::new(false);
        for count in [0, 1, 2, 8192, 16_384, 32_768] {
            let expected = Tree::build(&[2; 32], &leaves[..count]);
            for threads in [1, 3, 16] {
                let made: Result<_, CpuError> = Tree::build_with(&[2; 32], &leaves[..count], threads, &go);
                assert!(made.unwrap().inner == expected.inner, "{count} leaves, {threads} threads");
            }
        }
        let raised: Result<_, CpuError> = Tree::build_with(&[2; 32], &leaves, 2, &AtomicBool::new(true));
        assert_eq!(raised.err(), Some(CpuError::Cancelled));
    }

    #[test]
    fn a_path_with_one_side_bit_wrong_leads_elsewhere() {
        let leaves = leaves(16);
        let tree = Tree::build(&[2; 32], &leaves);
        let path = bytes(&tree.path(5));
        for bit in 0..4 {
            assert_ne!(walk(&[2; 32], leaves[5], 5 ^ (1 << bit), &path), tree.root(), "bit {bit}");
        }
    }

    #[test]
    fn a_single_leaf_is_its_own_root_with_an_empty_path() {
        let one = leaves(1);
        let tree = Tree::build(&[2; 32], &one);
        assert_eq!(tree.root(), one[0]);
        assert!(tree.path(0).is_empty());
    }

    #[test]
    fn the_tree_is_the_plain_definition() {
        let l = leaves(4);
        let key = [2; 32];
        let expected = node(&key, &node(&key, &l[0], &l[1]), &node(&key, &l[2], &l[3]));
        assert_eq!(Tree::build(&key, &l).root(), expected);
    }
}
