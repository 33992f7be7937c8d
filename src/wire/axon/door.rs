//! What every request meets first, before anything of it is worked on: the address it comes from, the size of its head.

use std::time::Duration;

use actix_web::HttpRequest;

use super::gate::AxonGate;
use super::outcome::{AdmissionRefusal, AxonOutcome};

/// Why a request is turned away.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Turned {
    pub(super) status: u16,
    pub(super) outcome: AxonOutcome,
    /// In one word, for callers of our own synapses.
    pub(super) error: &'static str,
    pub(super) message: String,
    /// Seconds until it may come again, where that helps.
    pub(super) retry_after_s: Option<u16>,
}

impl Turned {
    /// Too many requests of `whom`.
    pub(super) fn too_many(outcome: AxonOutcome, whom: &str, wait: Duration) -> Self {
        let seconds = u16::try_from(wait.as_secs()).unwrap_or(u16::MAX).saturating_add(1);
        let message = format!("too many requests of this {whom}, come again in {seconds} s");
        Turned { status: 429, outcome, error: outcome.label(), message, retry_after_s: Some(seconds) }
    }
}

impl AxonGate {
    /// Whether a request may be looked at. Counts it against its address.
    pub(super) fn enter(&self, request: &HttpRequest) -> Result<(), Turned> {
        if let Some(peer) = request.peer_addr() {
            self.admit_address(peer.ip()).map_err(|refusal| match refusal {
                AdmissionRefusal::Forbidden { reason, detail } => Turned {
                    status: 403,
                    outcome: AxonOutcome::AddressRefused,
                    error: reason,
                    message: format!("Forbidden. Address is blacklisted: {detail}."),
                    retry_after_s: None,
                },
                AdmissionRefusal::NotReady { detail } => Turned {
                    status: 503,
                    outcome: AxonOutcome::NotReady,
                    error: "not_ready",
                    message: detail,
                    retry_after_s: None,
                },
            })?;
            let counted = self.limiters.address(peer.ip());
            counted.map_err(|wait| Turned::too_many(AxonOutcome::TooManyOfAddress, "address", wait))?;
        }
        let limits = self.limits();
        let (mut count, mut bytes) = (0, 0);
        for (name, value) in request.headers() {
            count += 1;
            bytes += name.as_str().len() + value.len();
        }
        if count <= limits.max_headers && bytes <= limits.max_header_bytes {
            return Ok(());
        }
        let (most, size) = (limits.max_headers, limits.max_header_bytes);
        Err(Turned {
            status: 431,
            outcome: AxonOutcome::HeadersTooLarge,
            error: "headers_too_large",
            message: format!("more than {most} headers, or more than {size} bytes of them"),
            retry_after_s: None,
        })
    }
}
