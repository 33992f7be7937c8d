//! Canary rentals: a validator rents a miner as a tenant would, and proves in the rented container what the miner proves at
//! its axon.
//!
//! The proof of an epoch says that the miner's address has the devices. A tenant cares that a *rented container* has them. So
//! now and then the validator rents a miner's free devices, logs in over SSH with the pinned host key, uploads
//! `compute-prover`, has it compute a fresh challenge there, draws the positions after the roots, verifies, and always gives
//! the devices back. Miners that speak only the original's protocol are rented over that. It shows the rented path as a tenant sees it, driver library and all; it is no attestation.
//!
//! Read in this order: [`course`] (the stages as a pure state machine, and what they come to), [`reason`] (why a stage fails,
//! and on whose side), [`standing`] (what it costs), [`schedule`] (whose turn it is), [`remote`] (what is needed of SSH, as a trait), [`ssh`] (the
//! real one), [`original`] (renting over the original's protocol), [`prove`] (the proof over the login), [`witness`] (whether it is we who are cut off), [`mod@drive`] (all stages, each with its deadline), [`simulated`] (a remote
//! machine within this process, with every fault there is).

pub mod course;
pub mod drive;
pub mod original;
pub mod prove;
pub mod reason;
pub mod remote;
pub mod schedule;
pub mod simulated;
pub mod ssh;
pub mod standing;
pub mod witness;

#[cfg(test)]
mod tests;

pub use course::{Course, Outcome, Report, Stage, StageTime};
pub use drive::{Landlord, Limits, Plan, Rented, Tools, drive};
pub use prove::{Models, Proved, Task};
pub use reason::{Fault, Reason};
pub use remote::{Access, Login, Process, Remote, Session};
pub use witness::{Others, Witness};
