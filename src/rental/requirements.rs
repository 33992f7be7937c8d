//! What a renter asks for, and the original's dict of it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::literal::{self, Literal, LiteralError};
use crate::lease::machine::MAX_DEVICES;
use crate::settings::nearest;

/// A MiB in bytes: the original's unit of GPU memory.
const MIB: u64 = 1 << 20;
/// The longest model name that is asked for, in bytes.
pub const MAX_MODEL: usize = 128;

/// What a machine must have. Zero asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Requirements {
    /// Devices, all of one miner, 1 to [`MAX_DEVICES`].
    pub devices: usize,
    /// Only this model, by NVML's name, an alias of the table or a device class; letter case does not matter.
    pub model: Option<String>,
    /// Memory of each device, in bytes.
    pub gpu_memory_bytes: u64,
    /// CPU cores.
    pub cpus: u32,
    /// Memory of the machine, in bytes.
    pub ram_bytes: u64,
    /// Free space of its disk, in bytes.
    pub disk_bytes: u64,
}

impl Default for Requirements {
    fn default() -> Self {
        Requirements { devices: 1, model: None, gpu_memory_bytes: 0, cpus: 0, ram_bytes: 0, disk_bytes: 0 }
    }
}

/// Why requirements cannot be read or served. Every problem is named.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RequirementsError {
    /// Neither JSON nor a Python literal.
    #[error("neither JSON nor a Python dict: {0}")]
    Literal(#[from] LiteralError),
    /// Keys or values that mean nothing.
    #[error("{}", .0.join("; "))]
    Problems(Vec<String>),
}

impl Requirements {
    /// Any `devices` of one machine.
    pub fn any(devices: usize) -> Self {
        Requirements { devices, ..Requirements::default() }
    }

    /// Reads the original's dict, as JSON or as a Python literal:
    /// `{'cpu': {'count': 2}, 'gpu': {'count': 1, 'capacity': 24000, 'type': ''}, 'hard_disk': {'capacity': 1073741824},
    /// 'ram': {'capacity': 1073741824}}`. Capacities of disk and memory are bytes, that of the GPU is MiB of each one;
    /// fractions are rounded up. What is left out, `None` and `{}` ask for nothing, and no model is any model.
    ///
    /// # Errors
    /// [`RequirementsError`]. Keys that the original does not know are errors.
    pub fn parse(text: &str) -> Result<Self, RequirementsError> {
        let Literal::Dict(sections) = literal::parse(text)? else {
            return Err(RequirementsError::Problems(vec!["requirements are a dict: {…}".to_owned()]));
        };
        let mut problems = Vec::new();
        let mut wanted = Requirements::default();
        for (name, section) in &sections {
            match name.as_str() {
                "cpu" => wanted.cpu(section, &mut problems),
                "gpu" => wanted.gpu(section, &mut problems),
                "hard_disk" => wanted.disk_bytes = capacity("hard_disk", section, &mut problems),
                "ram" => wanted.ram_bytes = capacity("ram", section, &mut problems),
                "testing" => testing(section, &mut problems),
                _ => unknown("", name, &["cpu", "gpu", "hard_disk", "ram", "testing"], &mut problems),
            }
        }
        if let Err(RequirementsError::Problems(more)) = wanted.check() {
            problems.extend(more);
        }
        if problems.is_empty() { Ok(wanted) } else { Err(RequirementsError::Problems(problems)) }
    }

    /// Whether they can be served at all: at least one device, no more than a lease holds, a name that is one.
    ///
    /// # Errors
    /// [`RequirementsError::Problems`].
    pub fn check(&self) -> Result<(), RequirementsError> {
        let mut problems = Vec::new();
        if self.devices == 0 {
            problems.push("at least one device must be rented".to_owned());
        }
        if self.devices > MAX_DEVICES {
            problems.push(format!("{} devices, one lease has at most {MAX_DEVICES}", self.devices));
        }
        if let Some(model) = &self.model {
            let blank = model.trim().is_empty();
            if blank || model.len() > MAX_MODEL || model.chars().any(char::is_control) {
                problems.push(format!("a model is printable text of 1 to {MAX_MODEL} bytes"));
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(RequirementsError::Problems(problems)) }
    }

    /// Whether anything is asked for that only a miner's own word tells.
    pub fn needs_specs(&self) -> bool {
        self.gpu_memory_bytes > 0 || self.cpus > 0 || self.ram_bytes > 0 || self.disk_bytes > 0
    }

    fn cpu(&mut self, section: &Literal, problems: &mut Vec<String>) {
        for (key, value) in entries("cpu", section, problems) {
            match key.as_str() {
                "count" => self.cpus = u32::try_from(count("cpu.count", value, problems)).unwrap_or(u32::MAX),
                _ => unknown("cpu.", key, &["count"], problems),
            }
        }
    }

    fn gpu(&mut self, section: &Literal, problems: &mut Vec<String>) {
        for (key, value) in entries("gpu", section, problems) {
            match (key.as_str(), value) {
                ("count", Literal::None) => {}
                ("count", value) => {
                    self.devices = usize::try_from(count("gpu.count", value, problems)).unwrap_or(usize::MAX);
                }
                ("capacity", value) => {
                    self.gpu_memory_bytes = number("gpu.capacity", value, problems).saturating_mul(MIB);
                }
                ("type", Literal::None) => {}
                ("type", Literal::Text(model)) => self.model = Some(model.clone()).filter(|m| !m.is_empty()),
                ("type", other) => problems.push(format!("gpu.type must be text, not {}", other.kind())),
                _ => unknown("gpu.", key, &["count", "capacity", "type"], problems),
            }
        }
    }
}

fn entries<'a>(name: &str, section: &'a Literal, problems: &mut Vec<String>) -> &'a [(String, Literal)] {
    match section {
        Literal::Dict(entries) => entries,
        Literal::None => &[],
        other => {
            problems.push(format!("{name} must be a dict, not {}", other.kind()));
            &[]
        }
    }
}

fn capacity(name: &str, section: &Literal, problems: &mut Vec<String>) -> u64 {
    let mut bytes = 0;
    for (key, value) in entries(name, section, problems) {
        match key.as_str() {
            "capacity" => bytes = number(&format!("{name}.capacity"), value, problems),
            _ => unknown(&format!("{name}."), key, &["capacity"], problems),
        }
    }
    bytes
}

/// The original's validators mark rentals that only test a machine; nothing else is one.
fn testing(value: &Literal, problems: &mut Vec<String>) {
    match value {
        Literal::None | Literal::Bool(false) => {}
        Literal::Bool(true) => {
            problems.push(
                "testing: true marks the tests of the original's validators; ask for a short rental instead".into(),
            );
        }
        other => problems.push(format!("testing must be a truth value, not {}", other.kind())),
    }
}

fn unknown(section: &str, key: &str, known: &[&str], problems: &mut Vec<String>) {
    let shown: String = key.chars().filter(|c| !c.is_control()).take(40).collect();
    let hint = match nearest(key, known.iter().copied()) {
        Some(near) => format!("did you mean {section}{near}?"),
        None => format!("known are {}", known.join(", ")),
    };
    problems.push(format!("there is no requirement {section}{shown}; {hint}"));
}

/// A whole number: `2` and `2.0` are, `2.5` is not.
fn count(name: &str, value: &Literal, problems: &mut Vec<String>) -> u64 {
    match value {
        Literal::Float(n) if n.fract() != 0.0 => {
            problems.push(format!("{name} must be a whole number, not {n}"));
            0
        }
        other => number(name, other, problems),
    }
}

/// A number of at least 0, rounded up.
fn number(name: &str, value: &Literal, problems: &mut Vec<String>) -> u64 {
    match value {
        Literal::None => return 0,
        Literal::Int(n) => {
            if let Ok(n) = u64::try_from(*n) {
                return n;
            }
        }
        // A cast of a float saturates.
        Literal::Float(n) if *n >= 0.0 => return n.ceil() as u64,
        _ => {}
    }
    problems.push(match value {
        Literal::Int(_) | Literal::Float(_) => format!("{name} must not be below 0"),
        other => format!("{name} must be a number, not {}", other.kind()),
    });
    0
}

/// A size for people: `80 GiB`, `1.5 TiB`, `512 MiB`.
pub fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let text = format!("{value:.1}");
    format!("{} {}", text.strip_suffix(".0").unwrap_or(&text), UNITS.get(unit).unwrap_or(&"bytes"))
}

/// Reads a size: a number of bytes, or with a unit: `512MiB`, `1.5 TiB`, `80G` (the same as GiB), `500GB` (10⁹ each).
///
/// # Errors
/// What is wrong with it.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    let factor: u64 = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" | "bytes" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        other => return Err(format!("'{other}' is no unit of size; known are KiB, MiB, GiB, TiB and KB, MB, GB, TB")),
    };
    let bytes = match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(factor),
        // A fraction of a unit; beyond 2⁵³ bytes it is not exact.
        Err(_) => number.parse::<f64>().ok().map(|n| n * factor as f64).filter(|n| *n < 1e18).map(|n| n.ceil() as u64),
    };
    bytes.ok_or_else(|| format!("'{text}' is no size: a number and a unit are needed, for example 80GiB"))
}

impl fmt::Display for Requirements {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} × {}", self.devices, self.model.as_deref().unwrap_or("any model"))?;
        if self.gpu_memory_bytes > 0 {
            write!(f, " with {} each", size(self.gpu_memory_bytes))?;
        }
        if self.cpus > 0 {
            write!(f, ", {} cores", self.cpus)?;
        }
        if self.ram_bytes > 0 {
            write!(f, ", {} of memory", size(self.ram_bytes))?;
        }
        if self.disk_bytes > 0 {
            write!(f, ", {} of disk", size(self.disk_bytes))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn problems(text: &str) -> String {
        Requirements::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn the_originals_dict_is_understood_as_json_and_as_python() {
        let wanted = Requirements {
            devices: 1,
            model: Some("NVIDIA GeForce RTX 4090".into()),
            gpu_memory_bytes: 24_000 * MIB,
            cpus: 2,
            ram_bytes: 1 << 30,
            disk_bytes: 1 << 30,
        };
        let json = r#"{"cpu":{"count":2},"gpu":{"count":1,"capacity":24000,"type":"NVIDIA GeForce RTX 4090"},
            "hard_disk":{"capacity":1073741824},"ram":{"capacity":1073741824}}"#;
        let python = "{'cpu': {'count': 2.0}, 'gpu': {'count': 1, 'capacity': 24000.0, 'type': 'NVIDIA GeForce RTX 4090'}, \
            'hard_disk': {'capacity': 1073741823.5}, 'ram': {'capacity': 1073741824.0}, 'testing': False}";
        assert_eq!(Requirements::parse(json), Ok(wanted.clone()));
        assert_eq!(Requirements::parse(python), Ok(wanted));
        for anything in ["{}", "{'gpu': {}}", "{'gpu': None, 'cpu': {'count': 0}}", "{'gpu': {'count': 1, 'type': ''}}"]
        {
            assert_eq!(Requirements::parse(anything), Ok(Requirements::default()), "{anything}");
        }
    }

    #[test]
    fn every_problem_is_told_and_a_slip_finds_its_key() {
        assert_eq!(
            problems("{'gpus': {}, 'cpu': {'cout': 2}, 'ram': {'capacity': '1g'}, 'gpu': {'count': 1.5}}"),
            "there is no requirement gpus; did you mean gpu?; there is no requirement cpu.cout; did you mean cpu.count?; \
             ram.capacity must be a number, not text; gpu.count must be a whole number, not 1.5; at least one device must \
             be rented"
        );
        assert_eq!(problems("{'gpu': {'count': 0}}"), "at least one device must be rented");
        assert_eq!(problems("{'gpu': {'count': 65}}"), "65 devices, one lease has at most 64");
        assert_eq!(problems("{'ram': {'capacity': -1}}"), "ram.capacity must not be below 0");
        assert_eq!(problems("{'gpu': {'type': 3}}"), "gpu.type must be text, not a whole number");
        assert_eq!(problems("[1]"), "requirements are a dict: {…}");
        assert!(problems("{'testing': True}").contains("short rental"));
        assert!(problems("{'colour': 1}").ends_with("known are cpu, gpu, hard_disk, ram, testing"));
        assert!(problems("gpu=1").starts_with("neither JSON nor a Python dict: at byte 0"));
        let long = format!("{{'gpu': {{'type': '{}'}}}}", "x".repeat(129));
        assert_eq!(problems(&long), "a model is printable text of 1 to 128 bytes");
    }

    #[test]
    fn sizes_are_read_with_their_units() {
        let sizes = [
            ("0", 0),
            ("1024", 1024),
            ("512MiB", 512 << 20),
            ("80g", 80 << 30),
            ("1.5 TiB", 1536 << 30),
            ("2KB", 2_000),
        ];
        for (text, bytes) in sizes {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for wrong in ["", "GiB", "-1", "1..5", "5 apples", "99999999999999999999", "18446744073709551615K"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn they_read_as_a_sentence() {
        let all = Requirements {
            devices: 2,
            model: Some("NVIDIA H200".into()),
            gpu_memory_bytes: 140 << 30,
            cpus: 16,
            ram_bytes: 1536 << 20,
            disk_bytes: 2 << 40,
        };
        assert_eq!(all.to_string(), "2 × NVIDIA H200 with 140 GiB each, 16 cores, 1.5 GiB of memory, 2 TiB of disk");
        assert_eq!(Requirements::default().to_string(), "1 × any model");
        assert!(!Requirements::any(3).needs_specs() && all.needs_specs());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_reader_fail(text in ".{0,200}") {
            let _ = Requirements::parse(&text);
        }

        #[test]
        fn what_is_written_is_read_whatever_the_spelling(
            devices in 1_usize..=MAX_DEVICES, mib in 0_u64..1 << 30, cpus in 0_u32.., ram in 0_u64..1 << 60,
            model in proptest::option::of("[A-Za-z0-9 -]{1,20}[0-9]"), float: bool,
        ) {
            let shown = |n: u64| if float && n < 1 << 50 { format!("{n}.0") } else { n.to_string() };
            let kind = model.clone().map_or("None".to_owned(), |m| format!("'{m}'"));
            let text = format!(
                "{{'cpu': {{'count': {cpus}}}, 'gpu': {{'count': {devices}, 'capacity': {}, 'type': {kind}}}, 'ram': {{'capacity': {}}}}}",
                shown(mib), shown(ram),
            );
            let wanted =
                Requirements { devices, model, gpu_memory_bytes: mib * MIB, cpus, ram_bytes: ram, disk_bytes: 0 };
            prop_assert_eq!(Requirements::parse(&text), Ok(wanted));
        }
    }
}
