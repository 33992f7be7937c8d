//! The calling side against sockets that do as told: replies as the SDK's client judges them, connections, many at once.
#![expect(clippy::unwrap_used, reason = "test helpers outside test functions")]

#[path = "dendrite/ask.rs"]
mod ask;
#[path = "dendrite/connections.rs"]
mod connections;
#[path = "dendrite/many.rs"]
mod many;
#[path = "dendrite/probe.rs"]
mod probe;
#[path = "dendrite/support.rs"]
mod support;
#[path = "dendrite/vectors.rs"]
mod vectors;
