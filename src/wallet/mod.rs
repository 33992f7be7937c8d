//! A neuron's keys: the sr25519 hotkey it signs with, the files it comes from, and the address of its owner.
//!
//! Invariants:
//! - a secret is wiped when its last holder drops it, and no `Debug`, `Display` or log here prints one;
//! - a file that exists is never overwritten;
//! - a key is used only if it belongs to the public key and address that its file states;
//! - a password never comes from a command line.
//!
//! One file for each part: `keyfile` reads what a file holds, `sealed` decrypts it, `password` finds the password,
//! `unlock` puts the three together, `listing` looks at all wallets of a machine without any password.
//!
//! No node needs the coldkey's secret, and none reads it. A registration does, at the operator's word: it opens it as
//! `unlock` opens a hotkey, but never with a hotkey's password.

pub mod keyfile;
pub mod keypair;
pub mod listing;
pub mod lock;
pub mod password;
mod phrase;
pub mod sealed;
mod signer;
mod terminal;
pub mod unlock;

pub use keyfile::{KeyfileError, KeyfileWarning};
pub use keypair::{KeyError, Keypair, verify};
pub use lock::{HotkeyLock, HotkeyLockError};
pub use sealed::Sealed;
pub use signer::Signer;
pub use unlock::{LoadedKey, UnlockError};
