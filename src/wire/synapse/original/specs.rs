//! `Specs`: what a machine is, as a text of JSON. The original's miners no longer serve it; ours do.

use serde::{Deserialize, Serialize};

use crate::hardware;
use crate::wire::classic::ClassicSynapse;

/// A question about a machine, and its reply.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Specs {
    /// A program to run, in the original's first versions; nothing is made of it.
    pub specs_input: String,
    /// JSON of the original's five sections, or nothing where they are not known.
    pub specs_output: String,
}

impl ClassicSynapse for Specs {
    const NAME: &'static str = "Specs";
}

/// The original's sections of `specs`, as the text it sends. Speeds are left out, see [`hardware::Specs`].
pub fn specs_text(specs: &hardware::Specs) -> String {
    #[derive(Serialize)]
    struct Sections<'a> {
        cpu: Section<'a, hardware::Cpu>,
        gpu: Section<'a, hardware::GpuSummary>,
        hard_disk: Section<'a, hardware::HardDisk>,
        ram: Section<'a, hardware::Ram>,
        has_docker: bool,
    }
    #[derive(Serialize)]
    #[serde(untagged)]
    enum Section<'a, T> {
        Known(&'a T),
        Absent {},
    }
    fn section<T>(known: &Option<T>) -> Section<'_, T> {
        known.as_ref().map_or(Section::Absent {}, Section::Known)
    }
    let sections = Sections {
        cpu: section(&specs.cpu),
        gpu: section(&specs.gpu),
        hard_disk: section(&specs.hard_disk),
        ram: section(&specs.ram),
        has_docker: specs.has_docker,
    };
    serde_json::to_string(&sections).unwrap_or_default()
}
