//! The chain as a validator and a miner need it.
