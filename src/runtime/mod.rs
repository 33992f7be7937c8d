//! Supervision on actix.
