//! Verdicts over time become scores, scores become weights. All of it is pure.
//!
//! Read in this order: [`table`] (what each model is worth), [`judge`] (one epoch's findings become verdicts that
//! count), [`history`] (what a device's verdicts say over time), [`memory`] (what its proofs of memory cost it), [`score`] (one machine's score, part by part),
//! [`mod@weights`] (scores as the chain takes them), [`burn`] (a share that nobody earns), [`receipt`] (how a machine that
//! another validator rents shows it), [`presented`] (the receipts of an epoch) and [`overclaim`] (what a table would pay for claims that are not true).
//!
//! # The rule
//! `scaling = 100 / (8 · highest base)`; a machine's score is the sum of `base · min(1, rate / nominal)` over its 8
//! best proved devices, times `scaling` (0 to 100), plus 100 while it is rented. It is linear in the proved rate so
//! that a missing card is never paid.
//!
//! # Whole numbers
//! Rates are operations a second, bases 10⁻⁶, factors and scores 10⁻⁹, credits 10⁻¹⁵; there is no floating point
//! between a verdict and a weight, so that whoever redoes the arithmetic gets the same bits.
//!
//! # Invariants
//! - Only a `Pass` of the epoch pays, or a rented device's last `Pass` while its lease holds.
//! - A model without a row, or without a nominal rate, pays nothing. It is never rated as the nearest row.
//! - Models that no floor separates pay the lowest base among them.
//! - Every device of a score says in its part why it counts or not.
//! - [`Judge::judge`], [`score_all`] and [`weigh_with`] are all there is from findings to weights; the live node and an
//!   offline replay call the same three.

pub mod burn;
pub mod history;
pub mod judge;
pub mod memory;
pub mod overclaim;
pub mod points;
pub mod presented;
pub mod receipt;
pub mod score;
pub mod table;
pub mod weights;

#[cfg(test)]
mod tests;

pub use burn::{Burn, WHOLE_PPB, weigh_with};
pub use history::{DeviceHistory, HistoryRules, JudgedRate, Kept};
pub use judge::{Counted, DeviceFinding, DuePenalty, Judge, Judged, MinerFinding};
pub use memory::{MemoryStanding, MemoryStandings};
pub use overclaim::{Claims, best_claims, by_rate_alone};
pub use points::{Points, decimal, rate_text};
pub use presented::{Presented, ReceiptStanding};
pub use receipt::LeaseReceipt;
pub use score::{
    ALLOCATION_BONUS, DeviceJudgement, DevicePart, MinerJudgement, PartReason, Scaling, Score, ScoreRow,
    duplicate_claims, machine_score, score_all,
};
pub use table::{DEFAULT_MAX_DEVICES, Limit, ModelRow, RateSource, ScoreTable, TableError, TableProblem};
pub use weights::{WeightError, WeightLimits, fit, weigh, weigh_totals, weights};
