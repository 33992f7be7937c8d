//! A whole subnet in one process: a ledger, a validator, miners and a renter, over real loopback HTTP.

pub mod aside;
pub mod audit;
pub mod devnet;
pub mod keys;
pub mod periods;
pub mod processes;
pub mod renter;
pub mod screen;
pub mod table;
