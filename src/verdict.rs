//! What a judgement of hardware or liveness can be: pass, fail or unknown, never anything in between.
//!
//! Reasons are closed enums with a metric label, a text for people and a remedy, all safe to publish.
//! `Unknown` pays nothing for its epoch and is no penalty; scores move on `Pass` and `Fail` only.

use serde::{Deserialize, Serialize};

/// Who has to act so that an [`Unknown`](Verdict::Unknown) becomes a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// The miner who was asked.
    Miner,
    /// The validator who asked.
    Validator,
    /// The path between them.
    Network,
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal, $text:literal, $remedy:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* #[doc = $text] $variant,)* }
        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: &'static [$name] = &[$($name::$variant),*];
            /// The metric label: snake case, stable.
            pub fn label(self) -> &'static str { match self { $($name::$variant => $label),* } }
            /// What happened, as a lower-case fragment.
            pub fn text(self) -> &'static str { match self { $($name::$variant => $text),* } }
            /// What the side that can act should do.
            pub fn remedy(self) -> &'static str { match self { $($name::$variant => $remedy),* } }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(self.label()) }
        }
    };
}

#[cfg(feature = "node")]
pub(crate) use reasons;

reasons! {
    /// Why a proof failed.
    FailReason {
        WrongDevices = "wrong_devices", "the answer does not hold exactly one entry for each device asked", "answer for every device of the challenge, once, and for no other";
        WrongRounds = "wrong_rounds", "the number of roots is not the number of rounds asked", "compute every round of the challenge";
        WrongLength = "wrong_length", "the openings are not of the length that the challenge fixes", "send what belongs to each position, in the order asked";
        PathMismatch = "path_mismatch", "a tile's path does not lead to the committed root", "open the tiles that were committed, at the positions asked";
        EntryMismatch = "entry_mismatch", "an entry of an opened tile is not the product's", "compute the product; a single skipped tile is enough for this verdict";
        WrongScans = "wrong_scans", "the number of roots is not the number of scans asked", "scan the memory as often as the challenge asks";
        MemoryMismatch = "memory_mismatch", "a block and what was opened with it do not lead to the scan's root", "hold every block of the challenge until its scans are done; a single missing block is enough for this verdict";
        MemoryNotProved = "memory_not_proved", "the last proofs of this device's memory failed, or were not answered", "see the detail for the proof's reason; the next proof of memory that passes clears it";
        OpeningWithheld = "opening_withheld", "the roots were sent but the openings were not", "keep the commitment until the opening deadline has passed";
        OpeningUnanswered = "opening_unanswered", "the roots were sent, then no answer at all until the opening deadline", "check that the axon stays reachable until the opening deadline has passed";
        BelowFloor = "below_floor", "the proved rate is below the floor of the claimed model", "claim the model that is installed, and keep the device free for proofs";
        CanaryFailed = "canary_failed", "the device did not prove itself in a rented container", "see the detail for the stage; rent out the devices that are proved; the next canary that passes clears it";
        DuplicateDevice = "duplicate_device", "two hotkeys claim the same device", "register each device with one hotkey";
        Unresponsive = "unresponsive", "no answer in several windows of its own in a row", "check that the axon is reachable from outside and that the prover starts";
    }
}

reasons! {
    /// Why nothing can be said.
    UnknownCause {
        Unreachable = "unreachable", "the miner's axon could not be reached", "check address, port and firewall of the axon";
        Timeout = "timeout", "no answer before the deadline", "check the load of the miner and the network path";
        Refused = "refused", "the miner refused the challenge", "see the refusal's reason in the detail";
        BudgetRefused = "budget_refused", "the challenge exceeds the miner's own budget", "raise the miner's budget or ask for less work";
        Busy = "busy", "the miner is serving another window", "wait until the time it named";
        UnsignedReply = "unsigned_reply", "the reply carries no signature", "run a node that signs its replies";
        BadReplySignature = "bad_reply_signature", "the reply's signature does not verify", "check that no proxy changes the reply and that the hotkey is the registered one";
        MalformedReply = "malformed_reply", "the reply could not be read", "run matching versions";
        ProverCrashed = "prover_crashed", "the miner's prover ended early", "see the miner's log for the prover's last words";
        ProverHung = "prover_hung", "the miner's prover did not finish in its time limit", "see the load of the miner; raise prover.time_limit";
        ProverGarbage = "prover_garbage", "the miner's prover wrote something that is no answer", "reinstall the prover";
        DeviceFailed = "device_failed", "the device cannot be used, failed, was lost or has too little free memory", "see the detail, nvidia-smi and the kernel's log (Xid) on the miner";
        NoDevice = "no_device", "the miner offers no device", "check the driver, or that the device is listed in the specs";
        UncalibratedModel = "uncalibrated_model", "the device's model has no row in the table", "add the row to config.yaml: scoring.gpus";
        NoSpecs = "no_specs", "the miner's specs are not known yet", "wait for the next specs round";
        Rented = "rented", "the device is rented and is not disturbed", "none needed while the validator knows of the lease; a miner that says so without one misses its window";
        OwnFault = "own_fault", "the validator could not do its part", "see the validator's log";
    }
}

impl FailReason {
    /// Whether it counts towards a penalty beyond the lost epoch. What another can cause does not: a second hotkey may
    /// claim an honest miner's device, and somebody in between may keep a miner from answering. Nor does one proof of memory,
    /// or one canary rental, over and over, in each epoch that it costs.
    pub fn penalised(self) -> bool {
        use FailReason::*;
        !matches!(self, DuplicateDevice | Unresponsive | MemoryNotProved | CanaryFailed)
    }
}

impl UnknownCause {
    /// Whose side the cause lies on.
    pub fn side(self) -> Side {
        use UnknownCause::*;
        match self {
            Refused | BudgetRefused | Busy | UnsignedReply | BadReplySignature | MalformedReply | ProverCrashed
            | ProverHung | ProverGarbage | DeviceFailed | NoDevice => Side::Miner,
            Unreachable | Timeout => Side::Network,
            UncalibratedModel | NoSpecs | Rented | OwnFault => Side::Validator,
        }
    }
}

/// What a passed proof shows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PassEvidence {
    /// Operations of the plain product, `2·n²·k·rounds`.
    pub operations: u64,
    /// From before the challenge's first byte went out until the last byte of the roots was read, in nanoseconds.
    pub elapsed_ns: u64,
    /// Openings checked.
    pub samples: u32,
}

impl PassEvidence {
    /// The proved rate in operations a second, rounded down; 0 without a time.
    pub fn rate(&self) -> u64 {
        let rate = (u128::from(self.operations) * 1_000_000_000).checked_div(self.elapsed_ns.into()).unwrap_or(0);
        u64::try_from(rate).unwrap_or(u64::MAX)
    }
}

/// The judgement of one device in one epoch, by a proof whose pass shows `E`: work, unless said otherwise.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "verdict")]
pub enum Verdict<E = PassEvidence> {
    /// What was asked was done, at the address, in the time.
    Pass {
        /// What was measured.
        evidence: E,
    },
    /// The answer is wrong, and the miner is answerable for it.
    Fail {
        /// Which check caught it.
        reason: FailReason,
        /// Where exactly (device, round, tile), safe to publish.
        detail: String,
    },
    /// Nothing can be said.
    Unknown {
        /// Why not.
        cause: UnknownCause,
        /// What was seen, safe to publish.
        detail: String,
    },
}

/// The judgement of one device's memory in one epoch.
pub type MemoryVerdict = Verdict<crate::proof::memory::Evidence>;

impl<E> Verdict<E> {
    /// The metric label of the kind of verdict: `pass`, `fail` or `unknown`.
    pub fn kind(&self) -> &'static str {
        match self {
            Verdict::Pass { .. } => "pass",
            Verdict::Fail { .. } => "fail",
            Verdict::Unknown { .. } => "unknown",
        }
    }
    /// The metric label of the reason: `none` for a pass.
    pub fn reason(&self) -> &'static str {
        match self {
            Verdict::Pass { .. } => "none",
            Verdict::Fail { reason, .. } => reason.label(),
            Verdict::Unknown { cause, .. } => cause.label(),
        }
    }
    /// A failure with its detail.
    pub fn fail(reason: FailReason, detail: impl Into<String>) -> Self {
        Verdict::Fail { reason, detail: detail.into() }
    }
    /// An unknown with its detail.
    pub fn unknown(cause: UnknownCause, detail: impl Into<String>) -> Self {
        Verdict::Unknown { cause, detail: detail.into() }
    }
}
