//! Renting over the original's protocol: its `Allocate`, as tenants of its miners ask it.
//!
//! `probe → allocate` with a fresh RSA key, whose text owns the rental and is replayed to return it; the reply hides a password
//! under that key. No host key is told, so whoever answers at the port is believed: the report says so
//! ([`Report::host_key_pinned`](super::Report)). Nothing is signed but the request's headers: whoever sits between could have
//! written a reply. That, and that such miners take one tenant at a time, is why a canary over this protocol is told and costs
//! nothing that was not shown by the proof itself.
//!
//! What such a miner says is compared with what is there: its `status: true` begins a login, and where no container answers the
//! canary ends at that stage.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::ExposeSecret as _;
use serde_json::json;
use tokio::time::sleep;

use super::drive::{Landlord, Plan, Rented};
use super::reason::{Fault, Reason};
use super::remote::{Access, Login};
use super::ssh::fresh_key;
use crate::ids::LeaseId;
use crate::telemetry::printable;
use crate::verdict::UnknownCause;
use crate::wire::dendrite::{AskError, Dendrite, Peer};
use crate::wire::synapse::original::{Allocate, DeviceRequirement, DockerRequirement, Output, PublicKey, RenterKey};

/// How long a probe may take: the original's callers wait as long.
const PROBE: Duration = Duration::from_secs(30);
/// How long one call for a return may take, and the wait before the next; there are three of them.
const RETURN: Duration = Duration::from_secs(60);
const RETURN_RETRY: [Duration; 2] = [Duration::from_secs(2), Duration::from_secs(5)];
/// Days that are asked for, as a tenant does: the original's miners never end a rental by themselves, ours by their own limit.
const DAYS: i64 = 30;
/// Longest user name that is taken, in bytes.
const MAX_USER: usize = 32;

/// Rents one miner once.
pub struct Original {
    dendrite: Dendrite,
    peer: Peer,
    public: PublicKey,
    /// None for a rental that is only to be returned.
    private: Option<Arc<RenterKey>>,
    /// How long the miner may take to start a container.
    allocate: Duration,
}

impl Original {
    /// Rents with this key; `allocate` bounds the miner's start of a container.
    pub fn renting(dendrite: Dendrite, peer: Peer, key: Arc<RenterKey>, allocate: Duration) -> Self {
        Original { dendrite, peer, public: key.public().clone(), private: Some(key), allocate }
    }

    /// Returns what was rented with the key of which this is the public half.
    pub fn returning(dendrite: Dendrite, peer: Peer, public: PublicKey) -> Self {
        Original { dendrite, peer, public, private: None, allocate: Duration::ZERO }
    }

    async fn ask(&self, request: Allocate, within: Duration) -> Result<Output, Fault> {
        let reply = self.dendrite.ask(&self.peer, &request, within).await;
        reply.answer.map(|answer| answer.output).map_err(|error| {
            let reason = match error.cause() {
                UnknownCause::OwnFault => Reason::OwnFault,
                _ if matches!(error, AskError::Server { .. }) => Reason::Refused,
                _ => Reason::NoAnswer,
            };
            Fault::new(reason, error.to_string())
        })
    }

    /// Whether the miner says that a container of our key runs.
    async fn owns(&self) -> Result<bool, Fault> {
        let request = Allocate { public_key: self.public.clone(), ..Allocate::default() };
        let output = self.ask(request, PROBE).await?;
        output.status().ok_or_else(|| Fault::new(Reason::Refused, "it does not say whether it is rented"))
    }

    async fn give_back(&self) -> Result<(), Fault> {
        let request = Allocate { checking: false, public_key: self.public.clone(), ..Allocate::default() };
        match self.ask(request, RETURN).await?.status() {
            Some(true) => Ok(()),
            // It says the same of a rental that it has ended before: its answer may have been lost.
            _ if !self.owns().await? => Ok(()),
            _ => Err(Fault::new(Reason::Refused, "the miner does not end the rental")),
        }
    }
}

/// What a tenant asks of a machine whose devices it does not know: what the original's programs ask.
fn wish(key: &PublicKey, ssh_key: &str) -> Allocate {
    let machine = json!({
        "cpu": {"count": 1}, "gpu": {"count": 1, "capacity": 0, "type": ""},
        "hard_disk": {"capacity": 1u64 << 30}, "ram": {"capacity": 1u64 << 30},
    });
    let container = json!({
        "base_image": "ubuntu", "ssh_key": ssh_key, "ssh_port": 4444, "volume_path": "/tmp", "dockerfile": "",
    });
    let object = |value: serde_json::Value| value.as_object().cloned().unwrap_or_default();
    Allocate {
        timeline: DAYS,
        checking: false,
        public_key: key.clone(),
        device_requirement: DeviceRequirement::from(object(machine)),
        docker_requirement: DockerRequirement::from(object(container)),
        ..Allocate::default()
    }
}

#[async_trait]
impl Landlord for Original {
    async fn rent(&self, _: &Plan) -> Result<Rented, Fault> {
        let private = self.private.as_ref();
        let private = private.ok_or_else(|| Fault::new(Reason::OwnFault, "the key of this rental is not here"))?;
        let (by_key, ssh_key) = fresh_key()?;
        let wish = wish(&self.public, &ssh_key);
        let probe = Allocate { checking: true, public_key: PublicKey::default(), ..wish.clone() };
        match self.ask(probe, PROBE.min(self.allocate)).await?.status() {
            Some(true) => {}
            Some(false) => return Err(Fault::new(Reason::NotFree, "the miner says that it is rented")),
            None => return Err(Fault::new(Reason::Refused, "the miner does not say whether it is free")),
        }
        let output = self.ask(wish, self.allocate).await?;
        if output.status() != Some(true) {
            return Err(Fault::new(Reason::Refused, "the miner answered the rental with status false, and no reason"));
        }
        let info = output.info().ok_or_else(|| Fault::new(Reason::NoLogin, "the reply has no credentials"))?;
        let login = private.open(info).map_err(|error| Fault::new(Reason::NoLogin, error.to_string()))?;
        if login.username.is_empty() || login.username.len() > MAX_USER || login.port == 0 {
            return Err(Fault::new(Reason::NoLogin, "the credentials name no user, or no port"));
        }
        let addr = SocketAddr::new(self.peer.addr.ip(), login.port);
        let user = printable(&login.username, MAX_USER);
        // A miner of ours that takes keys only hands out no password.
        let login = if login.password.expose_secret().is_empty() { by_key } else { Login::Password(login.password) };
        Ok(Rented { access: Access { addr, user, login, host_key: None } })
    }

    async fn release(&self, _: LeaseId) -> Result<(), Fault> {
        let mut waits = RETURN_RETRY.iter();
        loop {
            let fault = match self.give_back().await {
                Ok(()) => return Ok(()),
                Err(fault) => fault,
            };
            match waits.next() {
                Some(wait) => sleep(*wait).await,
                None => return Err(fault),
            }
        }
    }
}
