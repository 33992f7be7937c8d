//! Messages of [`crate::actors::blacklist_guard::BlacklistGuard`].

use actix::Message;

use crate::admission::Subject;
use crate::ids::{Hotkey, Uid};
use crate::store::records::PenaltyRecord;

/// Refuse this hotkey or address until the penalty ends. It is recorded; a record that is there already stays as it is.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct Penalise(pub PenaltyRecord);

/// End every penalty of this hotkey or address now. Replies, once that is on record, whether there was one.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Result<bool, crate::store::StoreError>")]
pub struct Lift(pub Subject);

/// Which neurons may be asked as miners, and why not the others.
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "Vec<(Uid, Hotkey, Result<(), crate::admission::Refusal>)>")]
pub struct AdmitMiners;
