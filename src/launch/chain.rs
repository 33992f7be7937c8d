//! The client for the chain that the settings name.

use std::sync::Arc;

use crate::chain::ledger::{Deadlines, LedgerClient, LedgerEndpoint};
use crate::chain::{Chain, Signer};
use crate::exit::Exit;
use crate::settings::{Network, Settings};

/// A client bound to the settings' subnet and this key. Nothing is sent before the first call.
///
/// # Errors
/// [`Exit`] after it was logged what is wrong.
pub fn client(settings: &Settings, signer: Arc<dyn Signer>) -> Result<Arc<dyn Chain>, Exit> {
    let deadlines = Deadlines { read: settings.subtensor.request_timeout, submit: settings.weights.confirm_timeout };
    match &settings.subtensor.network {
        Network::Ledger(url) => {
            let client = url.as_str().parse::<LedgerEndpoint>().map_err(|error| error.to_string()).and_then(|at| {
                LedgerClient::http(&at, settings.netuid, signer, deadlines)
                    .map(|client| client.with_mechanism(settings.weights.mechanism))
                    .map_err(|error| crate::telemetry::error_chain(&error))
            });
            let client = client.map_err(|error| {
                tracing::error!(error, "no client for the ledger");
                Exit::Config
            })?;
            Ok(Arc::new(client))
        }
        network => {
            tracing::error!(
                %network,
                endpoint = crate::telemetry::redact_url(&settings.subtensor.endpoint()),
                "this version speaks to a devnet's ledger only: --subtensor.network ledger=http://127.0.0.1:PORT"
            );
            Err(Exit::Unavailable)
        }
    }
}
