//! What each model is worth: base scores, nominal rates, floors, aliases.
//!
//! A table is checked when it is made, and all its problems are reported at once. The floors follow two rules (the
//! proof's design, "what the time proves"): a floor is at least 70 % of the nominal rate, and it is above half the
//! best rate of any model priced below, so that one card does not pass as two dearer ones.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::score::ALLOCATION_BONUS;
use crate::verdict::FailReason;

/// Devices of one machine that count, by the mission's rule.
pub const DEFAULT_MAX_DEVICES: usize = 8;
/// The least share of its nominal rate that a floor may be.
pub const MIN_FLOOR_SHARE: f64 = 0.70;

/// One model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRow {
    /// The model's name as NVML spells it, or the name of a device class.
    pub name: String,
    /// The base score of one device at full rate, above 0.
    pub base: f64,
    /// The rate that an honest device reaches, in int8 operations a second. A timed row without one is not calibrated:
    /// its devices are `Unknown(UncalibratedModel)`.
    #[serde(default)]
    pub nominal_ops: Option<f64>,
    /// A claim below this rate is `Fail(BelowFloor)`, in int8 operations a second.
    #[serde(default)]
    pub floor_ops: Option<f64>,
    /// Other spellings of the name, exact.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// A model that no floor separates from this one; for people, it changes no score.
    #[serde(default)]
    pub twin: Option<String>,
    /// Whether the proved rate counts. `false` for device classes of a devnet: a Pass then pays the whole base.
    #[serde(default = "yes")]
    pub timed: bool,
}

fn yes() -> bool {
    true
}

/// One thing that is wrong with a table.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TableProblem {
    /// There is no row.
    #[error("the table has no row; add at least one model")]
    NoRows,
    /// No device would count.
    #[error("at most 0 devices would count; set the limit to 8")]
    NoDevices,
    /// A base score is not a number above 0.
    #[error("{model}: base score {base} is not a finite number above 0")]
    Base {
        /// The row.
        model: String,
        /// Its base.
        base: f64,
    },
    /// A rate is not a number above 0.
    #[error("{model}: {field} {value} is not a finite number above 0")]
    Rate {
        /// The row.
        model: String,
        /// `nominal_ops` or `floor_ops`.
        field: &'static str,
        /// Its value.
        value: f64,
    },
    /// A name or alias stands for two rows, or is empty.
    #[error("the name {name:?} of {model} is empty or taken by {other}")]
    Name {
        /// The row.
        model: String,
        /// The name or alias.
        name: String,
        /// The row that has it already.
        other: String,
    },
    /// A floor without a nominal rate.
    #[error("{0}: floor_ops without nominal_ops; give both or neither")]
    FloorWithoutNominal(String),
    /// A floor on a row whose rate does not count.
    #[error("{0}: floor_ops on an untimed row; remove it or set timed")]
    FloorOnUntimed(String),
    /// A floor outside 70 % to 100 % of the nominal rate.
    #[error("{model}: the floor is {share:.2} of the nominal rate, it must be between 0.70 and 1")]
    FloorShare {
        /// The row.
        model: String,
        /// Floor divided by nominal rate.
        share: f64,
    },
    /// One cheaper card could pass as two of these.
    #[error("{model}: the floor must be above {half:.4e}, half the rate of {cheaper}, which is priced below it")]
    PassesAsTwo {
        /// The row.
        model: String,
        /// The cheaper model.
        cheaper: String,
        /// Half the cheaper model's nominal rate, in operations a second.
        half: f64,
    },
    /// A twin that has no row.
    #[error("{model}: its twin {twin:?} has no row")]
    Twin {
        /// The row.
        model: String,
        /// The missing name.
        twin: String,
    },
}

/// Everything that is wrong with a table.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct TableError(pub Vec<TableProblem>);

/// A checked table.
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreTable {
    rows: Vec<ModelRow>,
    by_name: HashMap<String, usize>,
    max_devices: usize,
    scaling: f64,
    bonus: f64,
}

impl ScoreTable {
    /// A table of these rows; `max_devices` of one machine count ([`DEFAULT_MAX_DEVICES`]).
    ///
    /// # Errors
    /// [`TableError`] with every problem found.
    pub fn new(rows: Vec<ModelRow>, max_devices: usize) -> Result<Self, TableError> {
        let mut problems = Vec::new();
        if rows.is_empty() {
            problems.push(TableProblem::NoRows);
        }
        if max_devices == 0 {
            problems.push(TableProblem::NoDevices);
        }
        let by_name = index(&rows, &mut problems);
        for row in &rows {
            check_row(row, &rows, &by_name, &mut problems);
        }
        if !problems.is_empty() {
            return Err(TableError(problems));
        }
        let highest = rows.iter().map(|r| r.base).fold(0.0, f64::max);
        let scaling = 100.0 / (max_devices as f64 * highest);
        Ok(ScoreTable { rows, by_name, max_devices, scaling, bonus: ALLOCATION_BONUS })
    }

    /// The same table with another bonus for a rented machine than [`ALLOCATION_BONUS`].
    #[must_use]
    pub fn with_bonus(mut self, bonus: f64) -> Self {
        self.bonus = bonus;
        self
    }

    /// The row of this model, by its name or an alias, both exact (letter case too, as NVML spells).
    pub fn find(&self, model: &str) -> Option<&ModelRow> {
        self.by_name.get(model).map(|i| &self.rows[*i])
    }
    /// `100 / (8 · highest base)`: 3.125 when the highest base is 4.00.
    pub fn scaling(&self) -> f64 {
        self.scaling
    }
    /// What a rented machine gets on top.
    pub fn bonus(&self) -> f64 {
        self.bonus
    }
    /// How many devices of one machine count.
    pub fn max_devices(&self) -> usize {
        self.max_devices
    }
    /// The rows, in the order given.
    pub fn rows(&self) -> &[ModelRow] {
        &self.rows
    }
}

fn index(rows: &[ModelRow], problems: &mut Vec<TableProblem>) -> HashMap<String, usize> {
    let mut by_name: HashMap<String, usize> = HashMap::new();
    for (i, row) in rows.iter().enumerate() {
        for name in std::iter::once(&row.name).chain(&row.aliases) {
            let taken = by_name.get(name).copied();
            if name.trim().is_empty() || taken.is_some() {
                let other = taken.map_or("no row", |o| rows[o].name.as_str()).to_owned();
                problems.push(TableProblem::Name { model: row.name.clone(), name: name.clone(), other });
            } else {
                by_name.insert(name.clone(), i);
            }
        }
    }
    by_name
}

fn check_row(row: &ModelRow, rows: &[ModelRow], by_name: &HashMap<String, usize>, problems: &mut Vec<TableProblem>) {
    let model = || row.name.clone();
    let positive = |x: f64| x.is_finite() && x > 0.0;
    if !positive(row.base) {
        problems.push(TableProblem::Base { model: model(), base: row.base });
    }
    for (field, value) in [("nominal_ops", row.nominal_ops), ("floor_ops", row.floor_ops)] {
        if let Some(value) = value.filter(|v| !positive(*v)) {
            problems.push(TableProblem::Rate { model: model(), field, value });
        }
    }
    if let Some(twin) = row.twin.as_ref().filter(|t| !by_name.contains_key(*t)) {
        problems.push(TableProblem::Twin { model: model(), twin: twin.clone() });
    }
    let Some(floor) = row.floor_ops.filter(|f| positive(*f)) else { return };
    if !row.timed {
        problems.push(TableProblem::FloorOnUntimed(model()));
    }
    let Some(nominal) = row.nominal_ops else {
        problems.push(TableProblem::FloorWithoutNominal(model()));
        return;
    };
    let share = floor / nominal;
    if !(MIN_FLOOR_SHARE..=1.0).contains(&share) {
        problems.push(TableProblem::FloorShare { model: model(), share });
    }
    for cheaper in rows.iter().filter(|r| r.timed && r.base < row.base) {
        if let Some(half) = cheaper.nominal_ops.map(|n| n / 2.0).filter(|half| floor <= *half) {
            problems.push(TableProblem::PassesAsTwo { model: model(), cheaper: cheaper.name.clone(), half });
        }
    }
}

/// What a proved rate (operations a second) says against the row's floor: [`FailReason::BelowFloor`] or nothing. Rows
/// that are not timed, or have no floor, fail nobody. A rate that is no number is below every floor.
pub fn judge_rate(row: &ModelRow, rate: f64) -> Option<FailReason> {
    let floor = row.floor_ops.filter(|_| row.timed)?;
    let reached = rate >= floor;
    (!reached).then_some(FailReason::BelowFloor)
}
