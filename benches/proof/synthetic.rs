//! Proofs that the verifier takes, without their products: the tiles at the positions are given, and the tree over all of
//! them is made up but for what leads from these to the root.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use compute_subnet::ids::Hash32;
use compute_subnet::proof::tile::TILE_BYTES;
use compute_subnet::proof::{Challenge, Position, Root, merkle};

use super::Result;

pub(crate) struct Proof {
    pub(crate) root: Root,
    pub(crate) openings: Vec<u8>,
}

/// The proof of one round that opens these positions; `tile` gives the bytes of the tile at a position.
pub(crate) fn proof(
    challenge: &Challenge,
    positions: &[Position],
    mut tile: impl FnMut(&Position) -> Result<[u8; TILE_BYTES]>,
) -> Result<Proof> {
    let work = challenge.work;
    let keys = challenge.seed_0().keys();
    let mut tiles = BTreeMap::new();
    for position in positions {
        if let Entry::Vacant(place) = tiles.entry(position.tile_index(&work)) {
            place.insert(tile(position)?);
        }
    }
    let leaves = tiles.iter().map(|(index, bytes)| (*index, merkle::leaf(&keys.leaf, bytes))).collect();
    let levels = sparse_tree(&keys.node, leaves, work.depth());
    let mut openings = Vec::with_capacity(positions.len() * work.opening_len());
    for position in positions {
        let index = position.tile_index(&work);
        openings.extend_from_slice(&tiles[&index]);
        for (level, nodes) in levels.iter().take(work.depth() as usize).enumerate() {
            openings.extend_from_slice(&nodes[&(index >> level ^ 1)].0);
        }
    }
    let root = levels.last().and_then(|top| top.get(&0)).copied().ok_or("a tree has a root")?;
    Ok(Proof { root, openings })
}

/// The levels of a tree, from these leaves up to the root: what leads to it and the siblings of that, which are arbitrary.
fn sparse_tree(node_key: &[u8; 32], leaves: BTreeMap<u64, Hash32>, depth: u32) -> Vec<BTreeMap<u64, Hash32>> {
    let mut levels = vec![leaves];
    for level in 0..depth as usize {
        let nodes = &mut levels[level];
        let missing: Vec<u64> =
            nodes.keys().map(|index| index ^ 1).filter(|index| !nodes.contains_key(index)).collect();
        nodes.extend(missing.into_iter().map(|index| (index, arbitrary(level, index))));
        let pairs = nodes.iter().filter(|(index, _)| *index % 2 == 0);
        let above = pairs.map(|(left, hash)| (left / 2, merkle::node(node_key, hash, &nodes[&(left + 1)]))).collect();
        levels.push(above);
    }
    levels
}

fn arbitrary(level: usize, index: u64) -> Hash32 {
    Hash32(*blake3::hash(&[(level as u64).to_le_bytes(), index.to_le_bytes()].concat()).as_bytes())
}
