//! What each model is worth: base scores, nominal rates, floors, aliases.
//!
//! A table is checked when it is made, and all its problems are reported at once. The floors follow two rules (the
//! proof's design, "what the time proves"): a floor is at least 70 % of what an honest card has, in rate, memory and
//! bandwidth alike, and no card priced below has twice all of a model's floors, so that one card does not pass as two
//! dearer ones.
//!
//! # Twins
//! Models that no floor separates, in either direction or in one, name each other. Any of them may be the cheapest of
//! them, so each is paid that one's base ([`ScoreTable::paid_base`]) until something else than a proof tells them apart.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::points::{Points, decimal};
use super::score::{ALLOCATION_BONUS, Scaling};

/// Devices of one machine that count, by the mission's rule.
pub const DEFAULT_MAX_DEVICES: usize = 8;
/// The least share of its nominal rate that a floor may be, in percent.
pub const MIN_FLOOR_PERCENT: u64 = 70;
/// The highest base score: 1,000, in 10⁻⁶. It keeps a credit within 64 bits.
pub const MAX_BASE_MICRO: u64 = 1_000_000_000;
/// The most devices of one machine that a table may count.
pub const MAX_COUNTED_DEVICES: usize = 64;

/// Where the figures of a row come from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RateSource {
    /// The rate was measured, on a card that is known to be one.
    #[default]
    Measured,
    /// The rate is an estimate: a share of the dense peak in the maker's data sheet.
    Datasheet,
}

impl RateSource {
    /// The word in configuration and tables.
    pub fn label(self) -> &'static str {
        match self {
            RateSource::Measured => "measured",
            RateSource::Datasheet => "datasheet",
        }
    }
}

/// A quantity of a card that claims share: memory in bytes, or memory bandwidth in bytes a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// The most that a card of the model has: the data sheet's figure.
    pub best: u64,
    /// A claim of the model needs so much.
    pub floor: u64,
}

/// One model.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelRow {
    /// The model's name as NVML spells it, or the name of a device class.
    pub name: String,
    /// The base score of one device at full rate, in 10⁻⁶: 1 to [`MAX_BASE_MICRO`].
    pub base_micro: u64,
    /// The rate that an honest device reaches, in int8 operations a second. A timed row without one is not calibrated:
    /// its devices are `Unknown(UncalibratedModel)`.
    #[serde(default)]
    pub nominal_ops: Option<u64>,
    /// A claim below this rate is `Fail(BelowFloor)`, in int8 operations a second.
    #[serde(default)]
    pub floor_ops: Option<u64>,
    /// The highest rate that a card of the model can reach, in int8 operations a second: the data sheet's dense peak.
    /// Without one the nominal rate stands for it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub best_ops: Option<u64>,
    /// Memory, in bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<Limit>,
    /// Memory bandwidth, in bytes a second.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bandwidth: Option<Limit>,
    /// Where the rates come from.
    #[serde(default)]
    pub source: RateSource,
    /// Other spellings of the name, exact.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Models that no floor separates from this one. The base of the cheapest of them is paid.
    #[serde(default)]
    pub twins: Vec<String>,
    /// Whether the proved rate counts. `false` for device classes of a devnet: a Pass then pays the whole base.
    #[serde(default = "yes")]
    pub timed: bool,
}

fn yes() -> bool {
    true
}

impl ModelRow {
    /// The highest rate that a card of the model is known to reach, in operations a second.
    pub fn best(&self) -> Option<u64> {
        self.best_ops.or(self.nominal_ops)
    }

    /// Whether one card of this model has what `times` claims of `claimed` need at once: rate, memory and bandwidth. What
    /// is not known of either row separates nothing.
    pub fn passes_as(&self, claimed: &ModelRow, times: u64) -> bool {
        let has = |best: Option<u64>, floor: Option<u64>| match (best, floor) {
            (Some(best), Some(floor)) => product(floor, times) <= u128::from(best),
            _ => true,
        };
        let of = |limit: fn(&ModelRow) -> Option<Limit>| {
            has(limit(self).map(|limit| limit.best), limit(claimed).map(|limit| limit.floor))
        };
        has(self.best(), claimed.floor_ops) && of(|row| row.memory) && of(|row| row.bandwidth)
    }
}

fn product(a: u64, b: u64) -> u128 {
    u128::from(a) * u128::from(b)
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
    /// More devices would count than the arithmetic has room for.
    #[error("{0} devices would count; set the limit to {MAX_COUNTED_DEVICES} or less")]
    TooManyDevices(usize),
    /// A base score is 0 or too high.
    #[error("{model}: base score {} is not above 0 and at most 1000", decimal((*base_micro).into(), 6, 6))]
    Base {
        /// The row.
        model: String,
        /// Its base, in 10⁻⁶.
        base_micro: u64,
    },
    /// A rate is 0.
    #[error("{model}: {field} is 0; give a rate above 0, or none")]
    Rate {
        /// The row.
        model: String,
        /// `nominal_ops` or `floor_ops`.
        field: &'static str,
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
    /// A floor outside 70 % to 100 % of what an honest card has.
    #[error("{model}: the floor is {percent} % of {of}, it must be between 70 % and 100 %")]
    FloorShare {
        /// The row.
        model: String,
        /// `the nominal rate`, `the memory` or `the bandwidth`.
        of: &'static str,
        /// The floor's share, in percent, rounded down.
        percent: u64,
    },
    /// A nominal rate above what a card can reach.
    #[error("{0}: nominal_ops is above best_ops")]
    NominalAboveBest(String),
    /// One cheaper card could pass as two of these.
    #[error(
        "{model}: the floor must be above {half} operations a second, half the rate of {cheaper}, which is priced below \
         it, or memory or bandwidth above half of that card's"
    )]
    PassesAsTwo {
        /// The row.
        model: String,
        /// The cheaper model.
        cheaper: String,
        /// Half the cheaper model's best rate, in operations a second.
        half: u64,
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

/// A checked table. Serialised as its rows, `max_devices` and `bonus`, all whole numbers; checked again when read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "TableForm", into = "TableForm")]
pub struct ScoreTable {
    rows: Vec<ModelRow>,
    by_name: HashMap<String, usize>,
    max_devices: usize,
    scaling: Scaling,
    bonus: Points,
}

/// How a table is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TableForm {
    rows: Vec<ModelRow>,
    max_devices: usize,
    bonus: Points,
}

impl From<ScoreTable> for TableForm {
    fn from(table: ScoreTable) -> Self {
        TableForm { rows: table.rows, max_devices: table.max_devices, bonus: table.bonus }
    }
}

impl TryFrom<TableForm> for ScoreTable {
    type Error = TableError;
    fn try_from(form: TableForm) -> Result<Self, TableError> {
        Ok(ScoreTable::new(form.rows, form.max_devices)?.with_bonus(form.bonus))
    }
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
        if max_devices > MAX_COUNTED_DEVICES {
            problems.push(TableProblem::TooManyDevices(max_devices));
        }
        let by_name = index(&rows, &mut problems);
        for row in &rows {
            check_row(row, &rows, &by_name, &mut problems);
        }
        if !problems.is_empty() {
            return Err(TableError(problems));
        }
        let max_base_micro = rows.iter().map(|r| r.base_micro).max().unwrap_or(0);
        let scaling = Scaling { max_devices: max_devices as u64, max_base_micro };
        Ok(ScoreTable { rows, by_name, max_devices, scaling, bonus: ALLOCATION_BONUS })
    }

    /// The same table with another bonus for a rented machine than [`ALLOCATION_BONUS`].
    #[must_use]
    pub fn with_bonus(mut self, bonus: Points) -> Self {
        self.bonus = bonus;
        self
    }

    /// The row of this model, by its name or an alias, both exact (letter case too, as NVML spells).
    pub fn find(&self, model: &str) -> Option<&ModelRow> {
        self.by_name.get(model).map(|i| &self.rows[*i])
    }
    /// The base that this row is paid, in 10⁻⁶, with the twin whose base it is if that is another's: the lowest of the
    /// row and its twins.
    pub fn paid_base<'a>(&'a self, row: &'a ModelRow) -> (u64, Option<&'a str>) {
        let twins = row.twins.iter().filter_map(|twin| self.find(twin));
        match twins.min_by_key(|twin| twin.base_micro).filter(|twin| twin.base_micro < row.base_micro) {
            Some(twin) => (twin.base_micro, Some(&twin.name)),
            None => (row.base_micro, None),
        }
    }
    /// `100 / (8 · highest base)`, as a fraction.
    pub fn scaling(&self) -> Scaling {
        self.scaling
    }
    /// What a rented machine gets on top.
    pub fn bonus(&self) -> Points {
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
    if !(1..=MAX_BASE_MICRO).contains(&row.base_micro) {
        problems.push(TableProblem::Base { model: model(), base_micro: row.base_micro });
    }
    for (field, value) in [("nominal_ops", row.nominal_ops), ("floor_ops", row.floor_ops), ("best_ops", row.best_ops)] {
        if value == Some(0) {
            problems.push(TableProblem::Rate { model: model(), field });
        }
    }
    for twin in row.twins.iter().filter(|twin| !by_name.contains_key(*twin)) {
        problems.push(TableProblem::Twin { model: model(), twin: twin.clone() });
    }
    let mut share = |of, floor: u64, whole: u64| {
        if product(floor, 100) < product(whole, MIN_FLOOR_PERCENT) || floor > whole {
            let percent = product(floor, 100).checked_div(whole.into()).and_then(|p| u64::try_from(p).ok());
            let percent = percent.unwrap_or(u64::MAX);
            problems.push(TableProblem::FloorShare { model: model(), of, percent });
        }
    };
    for (of, limit) in [("the memory", row.memory), ("the bandwidth", row.bandwidth)] {
        if let Some(Limit { best, floor }) = limit {
            share(of, floor, best);
        }
    }
    let nominal_and_floor = row.nominal_ops.zip(row.floor_ops.filter(|floor| *floor > 0));
    if let Some((nominal, floor)) = nominal_and_floor {
        share("the nominal rate", floor, nominal);
    }
    if row.nominal_ops > row.best() {
        problems.push(TableProblem::NominalAboveBest(model()));
    }
    if row.floor_ops.is_none_or(|floor| floor == 0) {
        return;
    }
    if !row.timed {
        problems.push(TableProblem::FloorOnUntimed(model()));
    }
    if row.nominal_ops.is_none() {
        problems.push(TableProblem::FloorWithoutNominal(model()));
        return;
    }
    for cheaper in rows.iter().filter(|r| r.timed && r.base_micro < row.base_micro) {
        if let Some(best) = cheaper.best().filter(|_| cheaper.passes_as(row, 2)) {
            let cheaper = cheaper.name.clone();
            problems.push(TableProblem::PassesAsTwo { model: model(), cheaper, half: best / 2 });
        }
    }
}
