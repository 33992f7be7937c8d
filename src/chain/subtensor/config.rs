//! The chain's types for subxt.

use subxt::config::substrate::SubstrateConfig;
use subxt::config::{Config, HashFor};
use subxt::metadata::ArcMetadata;

/// Substrate's usual types with addresses that have no account index, as subtensor has them.
#[derive(Debug, Clone)]
pub struct SubtensorConfig(pub(super) SubstrateConfig);

impl Config for SubtensorConfig {
    type AccountId = <SubstrateConfig as Config>::AccountId;
    type Address = subxt::utils::MultiAddress<Self::AccountId, ()>;
    type Signature = <SubstrateConfig as Config>::Signature;
    type Hasher = <SubstrateConfig as Config>::Hasher;
    type Header = <SubstrateConfig as Config>::Header;
    type TransactionExtensions = subxt::config::DefaultTransactionExtensions<Self>;
    type AssetId = <SubstrateConfig as Config>::AssetId;

    fn genesis_hash(&self) -> Option<HashFor<Self>> {
        self.0.genesis_hash()
    }

    fn spec_and_transaction_version_for_block_number(&self, block_number: u64) -> Option<(u32, u32)> {
        self.0.spec_and_transaction_version_for_block_number(block_number)
    }

    fn metadata_for_spec_version(&self, spec_version: u32) -> Option<ArcMetadata> {
        self.0.metadata_for_spec_version(spec_version)
    }

    fn set_metadata_for_spec_version(&self, spec_version: u32, metadata: ArcMetadata) {
        self.0.set_metadata_for_spec_version(spec_version, metadata);
    }
}
