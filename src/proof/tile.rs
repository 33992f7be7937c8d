//! A tile of the product: 32 × 32 entries, the unit that is hashed and opened.

/// Rows and columns of a tile.
pub const TILE: usize = 32;
/// Entries of a tile.
pub const TILE_ENTRIES: usize = TILE * TILE;
/// Bytes of a tile: row-major `i32`, little-endian. Four whole BLAKE3 chunks.
pub const TILE_BYTES: usize = 4 * TILE_ENTRIES;

/// The entries of one tile, row-major.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Tile(pub [i32; TILE_ENTRIES]);

impl Tile {
    /// A tile of zeros.
    pub fn zero() -> Self {
        Tile([0; TILE_ENTRIES])
    }

    /// The bytes that are hashed and sent.
    pub fn to_bytes(&self) -> [u8; TILE_BYTES] {
        let mut out = [0u8; TILE_BYTES];
        for (bytes, entry) in out.chunks_exact_mut(4).zip(&self.0) {
            bytes.copy_from_slice(&entry.to_le_bytes());
        }
        out
    }
}

/// The entry at `index` (row-major) of a tile's bytes; `None` if the bytes end before it.
pub fn entry(bytes: &[u8], index: usize) -> Option<i32> {
    let four = bytes.get(4 * index..4 * index + 4)?;
    Some(i32::from_le_bytes(four.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_row_major_little_endian() {
        let mut tile = Tile::zero();
        tile.0[33] = -2;
        let bytes = tile.to_bytes();
        assert_eq!(bytes[132..136], [0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(entry(&bytes, 33), Some(-2));
        assert_eq!(entry(&bytes, TILE_ENTRIES), None);
    }
}
