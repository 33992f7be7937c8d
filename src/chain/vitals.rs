//! What a client of the chain tells of its connections, for metrics.

use std::time::Duration;

use super::subtensor::rpc::{METHODS, OUTCOMES};

/// Why a connection was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Cause {
    /// A call got no answer within its deadline.
    Timeout,
    /// The connection was closed, reset, or its other side has gone silent.
    Broken,
    /// An answer that is none, or that belongs to another question.
    Garbage,
    /// No new head for too long.
    HeadStill,
    /// Finalised blocks were not told of, though there are newer ones.
    FinalitySilent,
    /// The node ended a subscription.
    SubscriptionEnded,
    /// The runtime was upgraded and the new one could not be read.
    Runtime,
}

impl Cause {
    /// All of them.
    pub const ALL: [Cause; 7] = [
        Cause::Timeout,
        Cause::Broken,
        Cause::Garbage,
        Cause::HeadStill,
        Cause::FinalitySilent,
        Cause::SubscriptionEnded,
        Cause::Runtime,
    ];

    /// Its name in metrics.
    pub fn label(self) -> &'static str {
        match self {
            Cause::Timeout => "timeout",
            Cause::Broken => "broken",
            Cause::Garbage => "garbage",
            Cause::HeadStill => "head_still",
            Cause::FinalitySilent => "finality_silent",
            Cause::SubscriptionEnded => "subscription_ended",
            Cause::Runtime => "runtime",
        }
    }
}

/// The connections of a client since it was made. Every method, outcome and cause is named, also those that never were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vitals {
    /// Calls by method and outcome.
    pub calls: Vec<(&'static str, &'static str, u64)>,
    /// Connections that were opened and found to be in order.
    pub connected: u64,
    /// Attempts to connect to an endpoint that failed.
    pub failed: u64,
    /// Connections that were given up, by cause.
    pub ended: Vec<(Cause, u64)>,
    /// The endpoint in use, counted from 1 in the order of the settings.
    pub endpoint: Option<usize>,
    /// Time since the connection in use told of its newest head.
    pub head_age: Option<Duration>,
}

/// Of a client that has no connections of its own.
impl Default for Vitals {
    fn default() -> Self {
        let calls = METHODS.iter().flat_map(|method| OUTCOMES.map(|outcome| (*method, outcome, 0))).collect();
        let ended = Cause::ALL.map(|cause| (cause, 0)).to_vec();
        Vitals { calls, connected: 0, failed: 0, ended, endpoint: None, head_age: None }
    }
}
