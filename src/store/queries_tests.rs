//! What the typed reads promise.
