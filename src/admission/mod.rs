//! Who may call us, whom we ask, and why not.
//!
//! Read in this order: [`policy`] (what the operator wants), [`snapshot`] (what the chain and the penalties say, at one
//! moment), [`refusal`] (every reason there is) and [`admit`] (the rules).
//!
//! The order of the rules is fixed and tested: allow-list → registered → stake or permit → denied hotkeys → denied
//! coldkeys → exploiters → one IP per UID → penalties. Everything is a pure function of policy, snapshot and time.

pub mod admit;
pub mod policy;
pub mod refusal;
pub mod snapshot;

#[cfg(test)]
mod tests;

pub use admit::{Decision, Need, Via, admit_caller, admit_miners};
pub use policy::Policy;
pub use refusal::{Refusal, RefusalClass};
pub use snapshot::{Peer, Penalty, Snapshot};
