//! The chain as a validator and a miner need it: blocks, the metagraph, serving, weights, registration.
//!
//! [`Chain`] is the edge: actors and binaries hold an `Arc<dyn Chain>` and nothing else of this module's insides.
//! [`ledger`] is a small chain of our own, with the rules and the error names of the real one, for the devnet, for
//! tests and for simulation; [`subtensor`] is the client for the real one. [`epoch`] has the arithmetic of epochs, [`slots`]
//! whose turn it is within one, [`heads`] tells an endpoint that is behind from a reorganisation, [`standing`] says how our
//! own neuron stands and what threatens it, [`serving`] which endpoints it may announce and when, [`weights`] are the ways
//! that weights take, and [`commit`] seals them until the chain may see them; [`types`] has the values, [`error`] what can go
//! wrong and [`vitals`] what a client tells of its connections. Calls that change the chain are signed by a [`Signer`], a
//! wallet's key.
//!
//! # Invariants
//! - Every outside wait ends: an implementation of [`Chain`] has a deadline for each call.
//! - A call that changes the chain returns once it is **included** in a block, with that block's number; if it failed there, once
//!   that block is final. After [`ChainError::Deadline`] of such a call nothing is known: look at the metagraph before trying
//!   again. After [`ChainError::Unsent`] it is known that nothing was sent.
//! - A refusal carries the chain's own error name, see [`Rejection`].

pub mod commit;
pub mod epoch;
pub mod error;
pub mod heads;
pub mod ledger;
pub mod serving;
pub mod slots;
pub mod standing;
pub mod subtensor;
pub mod types;
pub mod vitals;
pub mod weights;

use std::net::IpAddr;
use std::sync::Arc;

use async_trait::async_trait;

pub use self::epoch::{
    EpochClock, EpochState, STATEFUL_EPOCHS, epoch_of, first_reveal_block, first_reveal_block_modulo, is_epoch_block,
    next_epoch_block,
};
pub use self::error::{ChainError, Class, Rejection};
pub use self::slots::{MemorySlot, SlotTable};
pub use self::types::{
    AxonInfo, BlockHead, Hyperparameters, Inclusion, Metagraph, Neuron, PrometheusInfo, RAO_PER_TAO, ReplacedBy,
    Replacement, Standing, Weights,
};
pub use self::vitals::{Cause, Vitals};
pub use self::weights::{PreparedWeights, Route, ShownCommit, WeightsShown};
use crate::ids::{BlockNumber, Coldkey, Hash32, Hotkey, Netuid, Uid};
pub use crate::wallet::Signer;

/// A chain, bound to one subnet and one signing hotkey.
///
/// Implementations hold a deadline for each call. Reads may lag behind by a block.
#[async_trait]
pub trait Chain: Send + Sync {
    /// The subnet that this is bound to.
    fn netuid(&self) -> Netuid;

    /// The hotkey that signs [`serve_axon`](Chain::serve_axon), [`serve_prometheus`](Chain::serve_prometheus) and
    /// [`submit_weights`](Chain::submit_weights).
    fn hotkey(&self) -> Hotkey;

    /// What became of its calls and connections since the start, for metrics. Waits for nothing.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    /// The newest block.
    async fn head(&self) -> Result<BlockHead, ChainError>;

    /// The number of the newest finalised block: it and those before it never change. A chain of one author finalises
    /// every block as it makes it.
    async fn finalized(&self) -> Result<BlockNumber, ChainError>;

    /// The hash of block `n`; `None` if there is no such block yet, or it is too old to be kept.
    async fn block_hash(&self, n: BlockNumber) -> Result<Option<Hash32>, ChainError>;

    /// The subnet's neurons as of one block.
    async fn metagraph(&self) -> Result<Arc<Metagraph>, ChainError>;

    /// The subnet's rules as of the newest block.
    async fn hyperparameters(&self) -> Result<Hyperparameters, ChainError>;

    /// The free balance of an account, in rao; 0 for an account that the chain does not know.
    async fn balance(&self, coldkey: &Coldkey) -> Result<u64, ChainError>;

    /// Publishes where this hotkey's axon listens. `version` is free; the compute subnet's is 183.
    ///
    /// The chain limits the rate: compare with [`Neuron::serves_axon`] first and skip what is already there.
    async fn serve_axon(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError>;

    /// Publishes where this hotkey's metrics are. The rate limit counts apart from the axon's.
    async fn serve_prometheus(&self, ip: IpAddr, port: u16, version: u32) -> Result<Inclusion, ChainError>;

    /// Makes weights ready to be sent in the way that the subnet takes them now. Nothing is signed or sent.
    async fn prepare_weights(&self, weights: &Weights) -> Result<PreparedWeights, ChainError>;

    /// Whether the chain would take prepared weights now, by its own word where it can be asked. Nothing is submitted, but the node
    /// that is asked sees a signed call that holds for some minutes.
    async fn check_weights(&self, _: &PreparedWeights) -> Result<(), ChainError> {
        Ok(())
    }

    /// Sends prepared weights: sets them, or commits to them. Only ratios matter: the chain scales the largest up to 65,535.
    ///
    /// At most one call of it can be included. None is signed at a head more than [`SENDING`](weights::SENDING) blocks
    /// after [`PreparedWeights::at`] ([`ChainError::Unsent`]), and none is included more than
    /// [`call_lifetime`](Chain::call_lifetime) blocks after it was signed.
    async fn submit_weights(&self, weights: &PreparedWeights) -> Result<Inclusion, ChainError>;

    /// Reveals weights whose hash was committed to, within [`PreparedWeights::reveal`]. Timelocked ones are revealed by the
    /// chain, plain ones by nobody.
    async fn reveal_weights(&self, weights: &PreparedWeights) -> Result<Inclusion, ChainError>;

    /// Blocks within which a signed call is included or never: the length of its era. Whoever got no answer knows after that
    /// many finalised blocks that the call will not come any more.
    fn call_lifetime(&self) -> u64;

    /// What the chain shows of this hotkey's weights, as of its newest finalised block.
    async fn weights_shown(&self) -> Result<WeightsShown, ChainError>;

    /// The weights of all validators of the subnet that have set any, as of the newest finalised block.
    async fn weights_of_all(&self) -> Result<Vec<(Uid, Vec<(Uid, u16)>)>, ChainError>;

    /// [Prepares](Chain::prepare_weights) and [sends](Chain::submit_weights) weights.
    async fn set_weights(&self, weights: &Weights) -> Result<Inclusion, ChainError> {
        self.submit_weights(&self.prepare_weights(weights).await?).await
    }

    /// Registers `hotkey` in the subnet for what that costs, paid and signed by `coldkey` (`burned_register`).
    async fn register(&self, hotkey: Hotkey, coldkey: &dyn Signer) -> Result<Inclusion, ChainError>;

    /// [Registers](Chain::register) `hotkey` if that costs no more than `limit_rao`.
    ///
    /// A chain that has no call with a limit takes the price of the block that holds the call; all that can be done is to look
    /// at it once more right before the call is sent.
    ///
    /// # Errors
    /// [`Rejection::RegistrationPriceLimitExceeded`] if it costs more.
    async fn register_within(
        &self,
        hotkey: Hotkey,
        limit_rao: u64,
        coldkey: &dyn Signer,
    ) -> Result<Inclusion, ChainError> {
        register_at_most(self, hotkey, limit_rao, coldkey).await
    }
}

/// [Registers](Chain::register) where the chain has no call with a limit: if the newest block's price is within it.
///
/// # Errors
/// As for [`Chain::register_within`].
pub(crate) async fn register_at_most(
    chain: &(impl Chain + ?Sized),
    hotkey: Hotkey,
    limit_rao: u64,
    coldkey: &dyn Signer,
) -> Result<Inclusion, ChainError> {
    let rules = chain.hyperparameters().await.map_err(ChainError::unsent)?;
    if rules.burn_rao > limit_rao {
        return Err(Rejection::RegistrationPriceLimitExceeded.into());
    }
    chain.register(hotkey, coldkey).await
}
