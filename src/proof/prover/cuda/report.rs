//! What this machine has for the cuda backend, for people and for the node that starts provers.

use serde::{Deserialize, Serialize};

use super::driver::{self, Gpu};
use super::{cublaslt, unwinding};

/// What was found. Looking opens no device.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Report {
    /// The GPUs that CUDA's driver offers.
    pub gpus: Vec<Gpu>,
    /// The CUDA version that the driver supports, 1000 × major + 10 × minor, if there is a driver.
    pub driver: Option<i32>,
    /// Why the driver offers none, with what to do.
    pub problem: Option<String>,
    /// The cublasLt that products are made with, and its version.
    pub cublaslt: Option<String>,
    /// Why products are made by the own kernel, where they are.
    pub no_cublaslt: Option<String>,
}

/// Looks.
pub fn report() -> Report {
    let mut report = Report::default();
    match driver::gpus() {
        Ok(gpus) => report.gpus = gpus,
        Err(error) => {
            report.problem = Some(error.to_string());
            return report;
        }
    }
    let found = unwinding(|| {
        let version = driver::driver_version()?;
        report.driver = Some(version);
        cublaslt::found(version)
    });
    match found {
        Ok(name) => report.cublaslt = Some(name),
        Err(error) => report.no_cublaslt = Some(error.to_string()),
    }
    report
}
