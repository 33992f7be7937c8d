//! The client for the chain that the settings name.

use std::sync::Arc;
use std::time::Duration;

use crate::chain::ledger::{Deadlines, LedgerClient, LedgerEndpoint};
use crate::chain::subtensor::{ClientSettings, LinkSettings, Mechanism, SubtensorChain};
use crate::chain::{Chain, Signer};
use crate::clock::SystemClock;
use crate::exit::Exit;
use crate::runtime::Backoff;
use crate::settings::{Network, Settings};

/// A head that stands still for longer, five blocks, makes another endpoint worth a try.
const STALLED_AFTER: Duration = Duration::from_secs(60);

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
        _ => {
            let client = SubtensorChain::new(subtensor(settings), signer).map_err(|error| {
                tracing::error!(error = crate::telemetry::error_chain(&error), "no client for the chain");
                Exit::Config
            })?;
            Ok(Arc::new(client))
        }
    }
}

/// How a subtensor chain is reached.
fn subtensor(settings: &Settings) -> ClientSettings {
    let link = LinkSettings {
        endpoints: settings.subtensor.endpoints(),
        genesis: settings.subtensor.network.genesis(),
        never: settings.subtensor.network.never(),
        deadline: settings.subtensor.request_timeout,
        stalled_after: STALLED_AFTER,
        retry: Backoff { first: Duration::from_millis(500), cap: Duration::from_secs(30), ..Backoff::default() },
    };
    ClientSettings {
        link,
        mechanism: Mechanism { netuid: settings.netuid, id: settings.weights.mechanism },
        submit: settings.weights.confirm_timeout,
        clock: Arc::new(SystemClock),
    }
}
