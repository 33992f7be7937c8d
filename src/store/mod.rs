//! The node's database.
