//! The words of supervision: states, causes of restarts, outcomes of messages. Closed sets, so that every series
//! exists from the start.

use serde::{Serialize, Serializer};
use std::time::SystemTime;

macro_rules! labelled {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $label:literal;)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$vdoc])* $variant,)* }
        impl $name {
            /// Every variant, in declaration order.
            pub const ALL: [$name; [$($name::$variant),*].len()] = [$($name::$variant),*];
            /// The metric label: snake case, stable.
            pub fn label(self) -> &'static str { match self { $($name::$variant => $label),* } }
        }
        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.pad(self.label()) }
        }
    };
}

labelled! {
    /// Where an actor is in its life.
    State {
        /// Waiting for its dependencies, or being built: its factory, `started`, or a future that `started` waits on.
        Starting = "starting";
        /// Taking messages.
        Running = "running";
        /// Failed; a new incarnation follows after a delay. Messages queue.
        BackingOff = "backing_off";
        /// Finishing admitted messages, refusing new ones.
        Draining = "draining";
        /// Ended in order.
        Stopped = "stopped";
        /// Failed too often and was given up.
        Failed = "failed";
    }
}

labelled! {
    /// Why an incarnation ended and was replaced.
    Cause {
        /// A panic in `started`, a handler or a future of the actor.
        Panic = "panic";
        /// The actor called [`Ctx::fail`](super::Ctx::fail).
        Error = "error";
        /// The actor called `ctx.stop()` or `ctx.terminate()`; a supervised actor is then replaced.
        Stopped = "stopped";
        /// No heartbeat for the silence limit although its thread turns: a wait that never ends.
        Unresponsive = "unresponsive";
        /// Its factory panicked.
        PanicInFactory = "panic_in_factory";
    }
}

labelled! {
    /// How a message ended.
    Outcome {
        /// Handled, and its reply is done. A reply that is an `Err` value counts as `ok`: the actor did its work.
        Ok = "ok";
        /// Its handler or reply called [`Ctx::fail`](super::Ctx::fail).
        Error = "error";
        /// Its handler or reply panicked.
        Panic = "panic";
        /// Never handled, because its caller had given up before its turn came.
        Abandoned = "abandoned";
        /// Lost with an incarnation that failed meanwhile, or with a mailbox that closed.
        Dropped = "dropped";
    }
}

/// The last failure of an actor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// What kind of failure.
    pub cause: Cause,
    /// The panic's or error's text.
    pub text: String,
    /// `file:line:column` of the panic, where there was one.
    pub location: Option<String>,
    /// When, by the machine's clock.
    #[serde(serialize_with = "rfc3339")]
    pub at: SystemTime,
}

fn rfc3339<S: Serializer>(at: &SystemTime, out: S) -> Result<S::Ok, S::Error> {
    // A clock before 1970 has no such text.
    let at = (*at).max(SystemTime::UNIX_EPOCH);
    out.collect_str(&humantime::format_rfc3339_millis(at))
}

/// What `/debug/actors` shows of an actor, beside its own snapshot.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Its name.
    pub name: &'static str,
    /// Its state.
    pub state: State,
    /// Restarts by cause, causes without any left out.
    pub restarts: std::collections::BTreeMap<&'static str, u64>,
    /// Its last failure.
    pub last_failure: Option<Failure>,
    /// Messages admitted and not yet answered.
    pub mailbox_depth: usize,
    /// Messages admitted at once.
    pub mailbox_capacity: usize,
    /// Milliseconds since its last heartbeat.
    pub heartbeat_age_ms: u64,
}
