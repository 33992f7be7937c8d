//! Who may call us, whom we ask, and why not.
//!
//! Read in this order: [`policy`] (what the operator wants), [`snapshot`] (what the chain and the penalties say, at one
//! moment), [`quorum`] (whether versions count), [`refusal`] (every reason there is), [`admit`] (the rules), [`subject`]
//! and [`anomaly`] (whom a penalty is for, and what brings one by itself).
//!
//! The order of the rules is fixed and tested. Before anything of a request is believed: the address's penalty. Then:
//! allow-list → registered → stake or permit → denied hotkeys → denied coldkeys → exploiters → version → one IP per UID →
//! penalties. Everything is a pure function of policy, snapshot and time.

pub mod admit;
pub mod anomaly;
pub mod policy;
pub mod quorum;
pub mod refusal;
pub mod snapshot;
pub mod subject;

#[cfg(test)]
mod tests;

pub use admit::{Decision, Need, Via, admit_address, admit_caller, admit_miners};
pub use anomaly::{Anomalies, Anomaly, AnomalyLimits, Seen};
pub use policy::Policy;
pub use quorum::Quorum;
pub use refusal::{Refusal, RefusalClass};
pub use snapshot::{Peer, Penalty, Snapshot};
pub use subject::{Address, Subject};
