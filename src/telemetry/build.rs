//! What is running.

/// The labels of `compute_build_info`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuildInfo {
    /// The package's version.
    pub version: String,
    /// The commit it was built from, in 12 digits, see `build.rs`; `unknown` in debug builds and those from a tarball,
    /// unless `COMPUTE_COMMIT` was set when it was built.
    pub commit: String,
    /// `miner` or `validator`.
    pub role: String,
}

impl BuildInfo {
    /// This build in a role.
    pub fn of(role: &str) -> Self {
        BuildInfo {
            version: env!("CARGO_PKG_VERSION").into(),
            commit: option_env!("COMPUTE_COMMIT").unwrap_or("unknown").into(),
            role: role.into(),
        }
    }
}

impl std::fmt::Display for BuildInfo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "compute-{} {} ({})", self.role, self.version, self.commit)
    }
}
