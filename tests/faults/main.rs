//! Every actor of a miner and of a validator, hit by every fault: the others go on answering, an operator can see what
//! happened, and the actor is back, or the node has ended with its documented code.
//!
//! The nodes are whole: a ledger, real loopback HTTP, real proofs, a thread for each actor. The faults strike in the
//! actors' contexts, so this knows nothing of any actor but its name; a new actor is covered by being in the tree, and
//! by being named in [`subnet::Role::actors`].
//!
//! * [`restarts`]: a panic, an error, a wait that never ends. The node stays up.
//! * [`away`]: no fault of an actor: the chain is away, from the start or while both nodes run.
//! * [`leases`]: nor is it one that a miner is away, or says nothing.
//! * [`blocked`]: a blocked thread, in a process of its own for each actor, because the process must end.

#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests: a panic is a failed test")]

mod away;
mod blocked;
mod leases;
mod probe;
mod restarts;
mod subnet;
