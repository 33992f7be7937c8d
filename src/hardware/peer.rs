//! Reading the specs of a peer: bounded before they are kept or shown.

use super::machine::MAX_ENTRIES;
use super::specs::Specs;

/// The most bytes of JSON that specs may have.
pub const MAX_SPECS_BYTES: usize = 128 * 1024;
/// Longest text in specs, in bytes: names, versions, reasons.
pub(super) const MAX_TEXT: usize = 1024;
/// Longest model name, in bytes; NVML's own limit is 96.
const MAX_MODEL: usize = 96;

/// Why a peer's specs are refused.
#[derive(Debug, thiserror::Error)]
pub enum SpecsError {
    /// Too long to be specs.
    #[error("specs of {0} bytes, at most {MAX_SPECS_BYTES} are read")]
    TooLong(usize),
    /// Not specs.
    #[error("not specs in JSON")]
    Json(#[source] serde_json::Error),
    /// A list is longer than any real machine's.
    #[error("{list} has {count} entries, at most {MAX_ENTRIES} are accepted")]
    TooMany {
        /// The JSON key.
        list: &'static str,
        /// Its entries.
        count: usize,
    },
    /// A text is too long or holds control characters.
    #[error("{0} holds a text that is too long or not printable")]
    Text(&'static str),
    /// A figure is not a finite number of at least 0.
    #[error("{0} is not a sensible number")]
    Figure(&'static str),
    /// One device is offered twice.
    #[error("device {0} is offered twice")]
    Duplicate(crate::ids::DeviceId),
}

impl Specs {
    /// Reads specs that a peer sent. Unknown keys are ignored, so that newer peers are understood.
    ///
    /// # Errors
    /// [`SpecsError`] names what is wrong; nothing of such specs is kept.
    pub fn from_peer(json: &[u8]) -> Result<Specs, SpecsError> {
        if json.len() > MAX_SPECS_BYTES {
            return Err(SpecsError::TooLong(json.len()));
        }
        let specs: Specs = serde_json::from_slice(json).map_err(SpecsError::Json)?;
        specs.check()?;
        Ok(specs)
    }

    fn check(&self) -> Result<(), SpecsError> {
        let lists = [
            ("gpu.details", self.gpu.as_ref().map_or(0, |g| g.details.len())),
            ("gpus", self.gpus.len()),
            ("disks", self.disks.len()),
            ("networks", self.networks.len()),
            ("devices", self.devices.len()),
            ("problems", self.problems.len()),
        ];
        if let Some(&(list, count)) = lists.iter().find(|(_, count)| *count > MAX_ENTRIES) {
            return Err(SpecsError::TooMany { list, count });
        }
        within("devices", MAX_MODEL, self.devices.iter().map(|d| d.model.as_str()))?;
        within("gpus", MAX_MODEL, self.gpus.iter().map(|g| g.name.as_str()))?;
        let gpu_texts = self.gpus.iter().flat_map(|g| [g.pci_bus_id.as_deref(), g.compute_capability.as_deref()]);
        within("gpus", MAX_MODEL, gpu_texts.flatten())?;
        within("gpu.details", MAX_MODEL, self.gpu.iter().flat_map(|g| &g.details).map(|d| d.name.as_str()))?;
        let processor = self.processor.iter().flat_map(|p| [p.model.as_str(), p.architecture.as_str()]);
        within("processor", MAX_TEXT, processor)?;
        let n = &self.nvidia;
        let nvidia = [Some(n.status.as_str()), n.driver_version.as_deref(), n.cuda_version.as_deref()];
        within("nvidia", MAX_TEXT, nvidia.into_iter().flatten())?;
        let disks = self.disks.iter().flat_map(|d| [d.name.as_str(), d.mount.as_str(), d.file_system.as_str()]);
        within("disks", MAX_TEXT, disks)?;
        within("networks", MAX_TEXT, self.networks.iter().map(|n| n.name.as_str()))?;
        within("os", MAX_TEXT, self.os.iter().flat_map(|o| [o.name.as_str(), o.kernel.as_str()]))?;
        within("problems", MAX_TEXT, self.problems.iter().flat_map(|(k, v)| [k.as_str(), v.as_str()]))?;
        within("docker", MAX_TEXT, [self.docker.to_string().as_str()])?;

        let sensible = |v: f64| v.is_finite() && v >= 0.0;
        if !self.cpu.iter().all(|c| sensible(c.frequency)) {
            return Err(SpecsError::Figure("cpu.frequency"));
        }
        if !self.gpu.iter().all(|g| sensible(g.capacity) && g.details.iter().all(|d| sensible(d.capacity))) {
            return Err(SpecsError::Figure("gpu.capacity"));
        }
        if !self.gpus.iter().all(|g| g.power_limit_watts.is_none_or(sensible)) {
            return Err(SpecsError::Figure("gpus.power_limit_watts"));
        }
        for (i, d) in self.devices.iter().enumerate() {
            if self.devices[..i].iter().any(|earlier| earlier.device == d.device) {
                return Err(SpecsError::Duplicate(d.device));
            }
        }
        Ok(())
    }
}

fn within<'a>(key: &'static str, limit: usize, texts: impl IntoIterator<Item = &'a str>) -> Result<(), SpecsError> {
    let bad = |t: &str| t.len() > limit || t.chars().any(char::is_control);
    if texts.into_iter().any(bad) { Err(SpecsError::Text(key)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::super::specs::OfferedDevice;
    use super::*;
    use crate::ids::DeviceId;

    fn offered(model: &str) -> OfferedDevice {
        OfferedDevice { device: DeviceId::cpu(0), model: model.into(), memory_bytes: 1 }
    }
    fn refused(specs: &Specs) -> String {
        Specs::from_peer(&serde_json::to_vec(specs).unwrap()).unwrap_err().to_string()
    }

    #[test]
    fn an_empty_object_is_specs_of_a_machine_that_offers_nothing() {
        assert_eq!(Specs::from_peer(b"{}").unwrap(), Specs::default());
    }

    #[test]
    fn newer_keys_are_ignored() {
        assert!(Specs::from_peer(br#"{"has_docker": true, "tpu": [1, 2]}"#).unwrap().has_docker);
    }

    #[test]
    fn a_device_offered_twice_is_refused() {
        let specs = Specs { devices: vec![offered("cpu-1"), offered("cpu-2")], ..Specs::default() };
        assert_eq!(refused(&specs), "device CPU-0 is offered twice");
    }

    #[test]
    fn text_that_could_forge_a_log_line_is_refused() {
        let specs = Specs { devices: vec![offered("H100\nINFO all is well")], ..Specs::default() };
        assert_eq!(refused(&specs), "devices holds a text that is too long or not printable");
        let specs = Specs { devices: vec![offered(&"x".repeat(97))], ..Specs::default() };
        assert_eq!(refused(&specs), "devices holds a text that is too long or not printable");
    }

    #[test]
    fn lists_and_bodies_are_bounded() {
        let many = (0..65).map(|i| (i.to_string(), String::new())).collect();
        assert_eq!(
            refused(&Specs { problems: many, ..Specs::default() }),
            "problems has 65 entries, at most 64 are accepted"
        );
        let long = Specs::from_peer(&vec![b' '; MAX_SPECS_BYTES + 1]).unwrap_err();
        assert!(matches!(long, SpecsError::TooLong(_)));
    }

    #[test]
    fn what_is_not_json_is_an_error_with_its_place() {
        let error = Specs::from_peer(br#"{"cpu": {"count": "many"}}"#).unwrap_err();
        assert!(crate::telemetry::error_chain(&error).starts_with("not specs in JSON: invalid type"), "{error:?}");
    }
}
