//! Replaces the settings in force of a running node by what its layers say now: at SIGHUP, or when an operator asks.

use std::sync::Arc;

use tokio::sync::{Mutex, watch};

use crate::settings::reload::{Change, Changes, Outcome, reread};
use crate::settings::{Cli, Line, Loaded, Problems, Role, Settings};
use crate::telemetry::logging::LogControl;

/// Where a node's settings came from, so that they can be read again.
#[derive(Debug, Clone)]
pub struct Layers {
    /// What the program is.
    pub role: Role,
    /// Its command line.
    pub cli: Cli,
    /// Its environment.
    pub env: Vec<(String, String)>,
    /// What was read at the start.
    pub loaded: Loaded,
    /// The program's logs, whose level is a setting.
    pub logs: Option<LogControl>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The layers, or what would be in force, have problems.
    #[error("{0}")]
    Problems(Problems),
    /// The node cannot work with them.
    #[error("the node cannot work with these settings: {0}")]
    Unusable(String),
    /// The node has no layers of its own.
    #[error("this node's settings are those of the program that runs it: start that again")]
    Fixed,
    /// Reading failed.
    #[error("the settings were not read: {0}")]
    Interrupted(String),
}

/// Checks what only a node of its role can tell.
pub(crate) type Check = fn(&Settings) -> Result<(), String>;

/// Holds the layers and publishes the settings. One reload at a time.
pub struct Reloader {
    layers: Option<Mutex<Layers>>,
    settings: watch::Sender<Arc<Settings>>,
    check: Check,
}

impl Reloader {
    pub(crate) fn new(layers: Option<Layers>, settings: watch::Sender<Arc<Settings>>, check: Check) -> Self {
        Reloader { layers: layers.map(Mutex::new), settings, check }
    }

    /// Reads the layers again and puts what may change at once into force. Logs what became of each changed key.
    ///
    /// # Errors
    /// [`ReloadError`]; nothing has changed then.
    pub async fn reload(&self) -> Result<Changes, ReloadError> {
        let done = self.reread().await;
        match &done {
            Ok(Changes { changes, warnings }) => {
                for Change { key, old, new, outcome } in changes {
                    match outcome {
                        Outcome::Applied => tracing::info!(key, old, new, "setting applied"),
                        other => {
                            tracing::warn!(key, old, new, "setting not applied: {}; {}", other.text(), other.remedy())
                        }
                    }
                }
                warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                tracing::info!(changed = changes.len(), "settings read again");
            }
            Err(error) => tracing::error!(%error, "settings not reloaded, nothing has changed"),
        }
        done
    }

    async fn reread(&self) -> Result<Changes, ReloadError> {
        let Some(layers) = &self.layers else { return Err(ReloadError::Fixed) };
        let mut layers = layers.lock().await;
        let Layers { role, cli, env, loaded, .. } = layers.clone();
        let read = tokio::task::spawn_blocking(move || reread(&loaded, role, &cli, &env)).await;
        let (next, changes) =
            read.map_err(|e| ReloadError::Interrupted(e.to_string()))?.map_err(ReloadError::Problems)?;
        (self.check)(&next.settings).map_err(ReloadError::Unusable)?;
        if let Some(logs) = &layers.logs {
            logs.set(next.settings.logging.level().into()).map_err(ReloadError::Unusable)?;
        }
        self.settings.send_replace(Arc::new(next.settings.clone()));
        layers.loaded = next;
        Ok(changes)
    }

    /// Every setting in force, without secrets.
    pub async fn lines(&self) -> Vec<Line> {
        match &self.layers {
            Some(layers) => layers.lock().await.loaded.lines(),
            None => self.settings.borrow().lines(),
        }
    }
}
