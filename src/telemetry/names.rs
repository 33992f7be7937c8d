//! Every metric's name, kind, help and labels, in one place. Nothing else may spell a metric's name.

/// What kind of series a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only goes up; the name ends in `_total`.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations in buckets.
    Histogram,
}

macro_rules! metrics {
    ($($variant:ident = $name:literal, $kind:ident, [$($label:literal),*], $help:literal;)*) => {
        /// A metric that a node exports.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Metric { $(#[doc = $help] $variant,)* }
        impl Metric {
            /// Every metric.
            pub const ALL: &'static [Metric] = &[$(Metric::$variant),*];
            /// The exported name.
            pub fn name(self) -> &'static str { match self { $(Metric::$variant => $name),* } }
            /// The help text.
            pub fn help(self) -> &'static str { match self { $(Metric::$variant => $help),* } }
            /// The kind of series.
            pub fn kind(self) -> Kind { match self { $(Metric::$variant => Kind::$kind),* } }
            /// The label names, in order.
            pub fn labels(self) -> &'static [&'static str] { match self { $(Metric::$variant => &[$($label),*]),* } }
        }
    };
}

metrics! {
    ActorState = "compute_actor_state", Gauge, ["actor", "state"], "1 for the state the actor is in, 0 for the others.";
    ActorRestarts = "compute_actor_restarts_total", Counter, ["actor", "cause"], "Restarts of the actor by cause.";
    ActorMessages = "compute_actor_messages_total", Counter, ["actor", "message", "outcome"], "Messages by type and outcome.";
    ActorHandling = "compute_actor_handling_seconds", Histogram, ["actor", "message"], "Time from taking a message off the mailbox to its reply.";
    ActorQueueWait = "compute_actor_queue_wait_seconds", Histogram, ["actor"], "Time a message waited in the mailbox.";
    ActorMailboxDepth = "compute_actor_mailbox_depth", Gauge, ["actor"], "Messages admitted and not yet answered.";
    ActorMailboxCapacity = "compute_actor_mailbox_capacity", Gauge, ["actor"], "Messages the actor admits at once.";
    ActorHeartbeatAge = "compute_actor_heartbeat_age_seconds", Gauge, ["actor"], "Time since the actor's last heartbeat.";
}
