//! The original's synapses: `Allocate`, `Challenge` and `Specs` of the subnet's Python nodes, field for field.
//!
//! They travel under the classic scheme ([`crate::wire::classic`]), reply and request being the same object: a reply is the
//! request with its output filled in. Names, order and defaults of the fields are the original's.
//!
//! Invariants:
//! - lenient in: every field may be missing, unknown keys are ignored, and what old callers send for "nothing" (`null` or
//!   `""` for a key or an object) is nothing;
//! - exact out: every field of the class is always written, and the objects within ([`objects`]) leave as they came;
//! - what a body says of itself is nobody's word: the classes name no hashed fields, so the signature covers no body.
//!
//! [`mode`] tells what an `Allocate` asks for, [`demand`] whether the machine has it, [`envelope`] hides the credentials of its reply.

mod allocate;
mod challenge;
pub mod demand;
pub mod envelope;
pub mod mode;
pub mod objects;
mod specs;

pub use allocate::{Allocate, PublicKey};
pub use challenge::Challenge;
pub use envelope::{CallerKey, Credentials, EnvelopeError, HashError, OpenError, OpenedLogin, RenterKey};
pub use mode::Mode;
pub use objects::{DeviceRequirement, DockerAction, DockerRequirement, Output};
pub use specs::{Specs, specs_text};

#[cfg(test)]
mod tests;
