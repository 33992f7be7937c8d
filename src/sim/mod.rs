//! A whole subnet in one process.
