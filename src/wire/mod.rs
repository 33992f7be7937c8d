//! Signed HTTP between nodes.
