//! A neuron's keys: the sr25519 hotkey it signs with, the files it comes from, and the address of its owner.
//!
//! Invariants:
//! - a secret is wiped when its last holder drops it, and no `Debug` or `Display` here prints one;
//! - a file that exists is never overwritten;
//! - a key is used only if it belongs to the public key and address that its file states.
//!
//! The coldkey's secret is never needed and never read.

pub mod keyfile;
pub mod keypair;
pub mod lock;
pub mod paths;
mod signer;

pub use keyfile::{KeyfileError, KeyfileWarning, LoadedKey};
pub use keypair::{KeyError, Keypair, verify};
pub use lock::{HotkeyLock, HotkeyLockError};
pub use paths::{WalletPathError, WalletPaths};
pub use signer::Signer;
