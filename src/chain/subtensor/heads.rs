//! What a node tells of the chain's heads, without being asked again.

use serde::Deserialize;
use subxt::config::substrate::SubstrateHeader;
use subxt::ext::codec::Encode;
use subxt::utils::H256;
use tokio::time::Instant;

use crate::ids::{BlockNumber, Hash32};

/// A block's header as a node sends it.
#[derive(Debug, Clone, Deserialize)]
#[serde(transparent)]
pub struct Header(SubstrateHeader<H256>);

impl Header {
    /// Number, hash, and the hash of the block before.
    pub fn id(&self) -> BlockId {
        let hash = blake2b_256(&self.0.encode());
        BlockId { number: self.0.number, hash, parent: Hash32(self.0.parent_hash.0) }
    }
}

/// Which block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockId {
    /// Its number.
    pub number: BlockNumber,
    /// Its hash: blake2b-256 of its header.
    pub hash: Hash32,
    /// The hash of the block before.
    pub parent: Hash32,
}

/// The heads of one connection.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// The best block.
    pub best: BlockId,
    /// The newest block that cannot be taken back.
    pub finalized: BlockId,
    /// When the best block was told.
    pub since: Instant,
}

/// blake2b with 32 bytes.
pub(crate) fn blake2b_256(bytes: &[u8]) -> Hash32 {
    use blake2::digest::consts::U32;
    use blake2::{Blake2b, Digest};
    Hash32(Blake2b::<U32>::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_of_a_node_has_the_hash_that_the_node_gives_it() {
        // Block 1 of a real runtime (spec 218), as `chain_getHeader` and `chain_getBlockHash` told it.
        let header: Header = serde_json::from_str(HEADER).unwrap();
        let id = header.id();
        assert_eq!(id.number, 1);
        assert_eq!(hex::encode(id.hash.0), "cc27dbf4da695ba9374fb66ca90b81fb3fc614992f12be1451a21413b7d819e1");
        assert_eq!(id.parent, Hash32([0x45; 32]));
    }

    const HEADER: &str = r#"{"parentHash":"0x4545454545454545454545454545454545454545454545454545454545454545","number":"0x00000001","stateRoot":"0x0000000000000000000000000000000000000000000000000000000000000000","extrinsicsRoot":"0x5255475a8e4809bc001c5a8f636d75daf0f851216f84040db2974d94fba70cf1","digest":{"logs":["0x06617572612001931c2300000000"]}}"#;
}
