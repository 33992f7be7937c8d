//! Axon and dendrite over real loopback sockets: what a peer may send, and what happens to everything else.
#![expect(clippy::unwrap_used, reason = "test helpers outside test functions")]

#[path = "wire_http/support.rs"]
mod support;

#[path = "wire_http/axon.rs"]
mod axon;
#[path = "wire_http/classic.rs"]
mod classic;
#[path = "wire_http/dendrite.rs"]
mod dendrite;
#[path = "wire_http/size.rs"]
mod size;
