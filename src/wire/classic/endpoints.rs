//! The last nonce of each calling object: classic nonces rise for each pair of hotkey and uuid.
//!
//! Invariants:
//! - of one caller and uuid a nonce is admitted at most once, and only if it is newer than the last one;
//! - a pair is remembered for as long as its last nonce could be fresh; when there is no room the new pair is refused,
//!   and nothing live is ever forgotten to make room;
//! - no caller can take more than its own share of the room;
//! - what was signed before this table began is refused, since an earlier table may have admitted it;
//! - once a pair was forgotten, nothing as old as its last nonce is admitted, whatever the clocks of two workers say.
//!
//! A wall clock that is set back takes the floor with it (`floor.rs`), but not the pairs: a caller that signed in
//! what is now the future must wait, or take a fresh uuid.

use std::collections::{BTreeSet, HashMap};

use super::error::ClassicError;
use super::verify::{ClassicCaller, ClassicPolicy};
use crate::ids::Hotkey;
use crate::wire::floor::Floor;

/// How many pairs of hotkey and uuid are remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointLimits {
    /// Over all callers.
    pub total: usize,
    /// For one hotkey.
    pub per_hotkey: usize,
}

impl Default for EndpointLimits {
    /// 65,536 in all (about 14 MB), 1,024 for one hotkey.
    fn default() -> Self {
        EndpointLimits { total: 65_536, per_hotkey: 1_024 }
    }
}

type Pair = (Hotkey, [u8; 16]);

/// The last nonces that were admitted.
#[derive(Debug)]
pub struct Endpoints {
    limits: EndpointLimits,
    policy: ClassicPolicy,
    last: HashMap<Pair, u64>,
    by_age: BTreeSet<(u64, Pair)>,
    per_hotkey: HashMap<Hotkey, usize>,
    floor: Floor,
}

impl Endpoints {
    /// An empty table. Requests signed before `started_ns` are refused as stale.
    pub fn new(limits: EndpointLimits, policy: ClassicPolicy, started_ns: u64) -> Self {
        Endpoints {
            limits,
            policy,
            last: HashMap::new(),
            by_age: BTreeSet::new(),
            per_hotkey: HashMap::new(),
            floor: Floor::at(started_ns),
        }
    }

    /// Whether this could be admitted. For a caller whose signature was not checked yet: a replay costs no check.
    ///
    /// # Errors
    /// [`ClassicError::Replayed`] or [`ClassicError::Overtaken`].
    pub fn look(&mut self, caller: &ClassicCaller, now_ns: u64) -> Result<(), ClassicError> {
        self.forget_stale(now_ns);
        let nonce = caller.caller.nonce;
        match self.last.get(&(caller.caller.hotkey, caller.endpoint)) {
            Some(last) if nonce == *last => Err(ClassicError::Replayed),
            Some(last) if nonce < *last => Err(ClassicError::Overtaken),
            _ if self.floor.refuses(nonce) => Err(ClassicError::Overtaken),
            _ => Ok(()),
        }
    }

    /// Remembers the nonce of a fresh request whose signature held. `Ok` at most once for a caller, uuid and nonce.
    ///
    /// # Errors
    /// Those of [`look`](Self::look), or [`ClassicError::Overloaded`].
    pub fn admit(&mut self, caller: &ClassicCaller, now_ns: u64) -> Result<(), ClassicError> {
        let (pair, nonce) = ((caller.caller.hotkey, caller.endpoint), caller.caller.nonce);
        self.look(caller, now_ns)?;
        if let Some(last) = self.last.get_mut(&pair) {
            self.by_age.remove(&(*last, pair));
            self.by_age.insert((nonce, pair));
            *last = nonce;
            return Ok(());
        }
        if self.last.len() >= self.limits.total {
            return Err(ClassicError::Overloaded("too many callers within the freshness window"));
        }
        let share = self.per_hotkey.entry(pair.0).or_default();
        if *share >= self.limits.per_hotkey {
            return Err(ClassicError::Overloaded("too many uuids of this hotkey within the freshness window"));
        }
        *share += 1;
        self.last.insert(pair, nonce);
        self.by_age.insert((nonce, pair));
        Ok(())
    }

    /// How many pairs are remembered.
    pub fn len(&self) -> usize {
        self.last.len()
    }

    /// Whether none is remembered.
    pub fn is_empty(&self) -> bool {
        self.last.is_empty()
    }

    fn forget_stale(&mut self, now_ns: u64) {
        self.floor.follow(now_ns, self.policy.max_ahead, self.policy.longest_age());
        let oldest = now_ns.saturating_sub(self.policy.longest_age().as_nanos() as u64);
        while let Some(&(nonce, pair)) = self.by_age.first()
            && nonce < oldest
        {
            self.by_age.pop_first();
            self.last.remove(&pair);
            self.floor.forgot(nonce);
            if let Some(share) = self.per_hotkey.get_mut(&pair.0) {
                *share -= 1;
                if *share == 0 {
                    self.per_hotkey.remove(&pair.0);
                }
            }
        }
    }
}
