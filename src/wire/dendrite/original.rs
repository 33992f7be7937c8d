//! What is read of replies to the original's classes.

use serde::Deserialize;

use super::ClassicCall;
use crate::wire::synapse::original::{Allocate, Challenge, Output, Specs};

/// The reply to [`Allocate`] and [`Challenge`].
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct OutputOnly {
    /// The answer; empty where none was given.
    #[serde(default)]
    pub output: Output,
}

/// The reply to [`Specs`].
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SpecsOutput {
    /// JSON of the original's five sections, or nothing. Text of a peer.
    #[serde(default)]
    pub specs_output: String,
}

impl ClassicCall for Allocate {
    type Output = OutputOnly;
}
impl ClassicCall for Challenge {
    type Output = OutputOnly;
}
impl ClassicCall for Specs {
    type Output = SpecsOutput;
}
