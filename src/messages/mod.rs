//! Typed messages between actors.
