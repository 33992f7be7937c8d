//! What is wrong with a configuration, all of it, each with its place and its remedy.

use std::fmt;

use super::value::Source;
use crate::exit::Exit;

/// One wrong key or value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where it was written.
    pub source: Source,
    /// The key's path, dots between the keys; empty where the whole source is meant.
    pub key: String,
    /// What is wrong, and what is expected instead.
    pub reason: String,
    /// The valid name that is nearest to what was written.
    pub nearest: Option<String>,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.source)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.reason)?;
        match &self.nearest {
            Some(name) => write!(f, "; did you mean {name}?"),
            None => Ok(()),
        }
    }
}

/// Everything that is wrong with a configuration. Never empty when it is returned as an error.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Problems(pub Vec<Problem>);

impl Problems {
    /// The exit code of a program that cannot start for this: [`Exit::Config`] (78).
    pub fn exit(&self) -> Exit {
        Exit::Config
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.len() {
            1 => f.write_str("the configuration has 1 problem:")?,
            n => write!(f, "the configuration has {n} problems:")?,
        }
        self.0.iter().try_for_each(|problem| write!(f, "\n  {problem}"))
    }
}

impl std::error::Error for Problems {}

/// The candidate that was most likely meant by `written`, if any is near enough.
pub(crate) fn nearest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<String> {
    let written = written.to_ascii_lowercase();
    candidates
        .into_iter()
        .map(|name| (name, strsim::damerau_levenshtein(&written, &name.to_ascii_lowercase())))
        .filter(|(name, distance)| *distance <= name.len().max(written.len()).div_ceil(3))
        .min_by_key(|(_, distance)| *distance)
        .map(|(name, _)| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_finds_its_name_and_nonsense_finds_none() {
        let names = ["port", "ip", "external_port"];
        assert_eq!(nearest("prot", names).as_deref(), Some("port"));
        assert_eq!(nearest("externalport", names).as_deref(), Some("external_port"));
        assert_eq!(nearest("colour", names), None);
    }
}
