//! Choosing what is rented: requirements, the choice among miners, what earlier rentals say, and when a machine is no
//! longer what was rented. Pure: `now` and facts come in, values go out.
//!
//! Read in this order: [`literal`] (dicts as people and programs write them), [`requirements`] (what is asked for),
//! [`record`] (what earlier rentals at a miner came to), [`select`] (who fits, in which order, and why), [`hardware`]
//! (when a proof shows that rented hardware was changed). [`crate::lease`] has what happens then.

pub mod hardware;
pub mod literal;
pub mod record;
pub mod requirements;
pub mod select;

pub use record::{Outcome, Record};
pub use requirements::{Requirements, RequirementsError};
pub use select::{Candidate, Machine, candidates};
