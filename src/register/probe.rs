//! `probe`: is this axon reachable, and does it take my key? Asked is the axon itself, with the original's question whether
//! the machine is free, which changes nothing there; no node of this machine is needed.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;
use tokio::net::lookup_host;
use tokio::time::timeout;

use super::text::{columns, row};
use super::{Context, NodeRole, complain, parse};
use crate::clock::SystemClock;
use crate::exit::Exit;
use crate::ids::Hotkey;
use crate::launch::DevnetKey;
use crate::sim::keys::{DevnetKeys, SEED_FILE};
use crate::telemetry::error_chain;
use crate::wallet::password::Sources;
use crate::wallet::{Keypair, unlock};
use crate::wire::classic::ClassicSynapse;
use crate::wire::dendrite::{AskError, ClassicReply, Dendrite, Peer, ReplySigner, Schemes};
use crate::wire::synapse::original::Allocate;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The axon, as the chain shows it; [ADDRESS]:PORT for IPv6.
    #[arg(value_name = "HOST:PORT")]
    axon: String,
    /// The hotkey that serves there, as an SS58 address.
    #[arg(long, value_name = "SS58")]
    receiver: String,
    /// With what the request is signed.
    #[arg(long, value_enum, default_value_t = Scheme::Both)]
    scheme: Scheme,
    /// How long the answer may take.
    #[arg(long, value_name = "TIME", default_value = "12s", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Call as validator N (miner N with --role miner) of this devnet directory, not as the wallet's hotkey: DIR or DIR:N.
    #[arg(long, value_name = "DIR[:N]")]
    devnet_keys: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scheme {
    /// Both: for an axon of unknown age.
    Both,
    /// That of SDK 6 to 10 only.
    Classic,
    /// That of SDK 11 only.
    Btauth,
}

impl Scheme {
    fn name(self) -> &'static str {
        match self {
            Scheme::Both => "both",
            Scheme::Classic => "classic",
            Scheme::Btauth => "btauth",
        }
    }
}

impl From<Scheme> for Schemes {
    fn from(scheme: Scheme) -> Self {
        match scheme {
            Scheme::Both => Schemes::Both,
            Scheme::Classic => Schemes::Classic,
            Scheme::Btauth => Schemes::Btauth,
        }
    }
}

/// What is printed. The JSON form is stable.
#[derive(Debug, Serialize)]
struct Report {
    axon: SocketAddr,
    receiver: Hotkey,
    caller: Hotkey,
    request: &'static str,
    scheme: &'static str,
    success: bool,
    /// `success`, or the label of [`AskError`].
    outcome: &'static str,
    /// As the SDK's dendrite shows it.
    status: Option<u16>,
    text: String,
    /// Whether the machine is free, if the axon said so.
    free: Option<bool>,
    elapsed_ms: f64,
    /// `receiver`, `nobody` or `unknown`.
    signed_by: &'static str,
    /// What to look at; empty after a success.
    check: Vec<&'static str>,
}

pub(super) async fn run(context: &Context, args: Args) -> Result<(), Exit> {
    let Args { axon, receiver, scheme, timeout: within, devnet_keys } = args;
    let receiver: Hotkey = parse(&receiver, "hotkey")?;
    let addr = resolve(&axon, within).await?;
    let keypair = match devnet_keys.as_deref().map(DevnetKey::from) {
        Some(key) => devnet_key(&key, context.role)?,
        None => wallet_key(context)?,
    };
    let unable = |problem: String| {
        complain(&problem);
        Exit::Unavailable
    };
    let dendrite = Dendrite::new(keypair, Arc::new(SystemClock), None).map_err(|error| unable(error_chain(&error)))?;
    let reply = dendrite.ask_signed(&Peer { hotkey: receiver, addr }, &question(), within, scheme.into()).await;
    let report = Report {
        axon: addr,
        receiver,
        caller: dendrite.hotkey(),
        request: Allocate::NAME,
        scheme: scheme.name(),
        success: reply.answer.is_ok(),
        outcome: reply.answer.as_ref().err().map_or("success", AskError::label),
        status: reply.code(),
        text: reply.text(),
        free: reply.answer.as_ref().ok().and_then(|answer| answer.output.status()),
        elapsed_ms: reply.elapsed.as_secs_f64() * 1e3,
        signed_by: match reply.signer {
            ReplySigner::Peer(_) => "receiver",
            ReplySigner::Nobody => "nobody",
            ReplySigner::Unknown => "unknown",
        },
        check: checks(&reply),
    };
    context.answer(&report, text)?;
    match reply.answer {
        Ok(_) => Ok(()),
        Err(AskError::Unavailable(_) | AskError::Timeout(_) | AskError::Disconnected | AskError::Own(_)) => {
            Err(Exit::Unavailable)
        }
        Err(_) => Err(Exit::Data),
    }
}

/// The original's availability probe.
fn question() -> Allocate {
    Allocate { checking: true, timeline: 1, ..Allocate::default() }
}

async fn resolve(axon: &str, within: Duration) -> Result<SocketAddr, Exit> {
    let found = match timeout(within, lookup_host(axon)).await {
        Ok(Ok(mut found)) => found.next().ok_or_else(|| "no address of that name".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err(format!("no answer about that name within {within:?}")),
    };
    found.map_err(|problem| {
        complain(&format!("'{axon}' is not a HOST:PORT that can be called: {problem}"));
        Exit::Usage
    })
}

fn devnet_key(key: &DevnetKey, role: NodeRole) -> Result<Keypair, Exit> {
    // Loading would make a seed where there is none.
    if !Path::new(&key.dir).join(SEED_FILE).is_file() {
        complain(&format!("no devnet's keys in {}", key.dir.display()));
        return Err(Exit::Data);
    }
    let keys = DevnetKeys::load(&key.dir).map_err(|error| {
        complain(&error_chain(&error));
        Exit::Data
    })?;
    Ok(match role {
        NodeRole::Miner => keys.miner(key.number),
        NodeRole::Validator => keys.validator(key.number),
    })
}

pub(super) fn wallet_key(context: &Context) -> Result<Keypair, Exit> {
    let file = context.settings.wallet.hotkey_file();
    let loaded = unlock::load(
        &file,
        &Sources::of_process(context.settings.wallet.password_file.as_deref()),
        |sealed, source| {
            complain(&format!("decrypting with the password from {source}: {}", sealed.cost()));
        },
    );
    let loaded = loaded.map_err(|error| {
        complain(&format!("the hotkey cannot be used: {}", error_chain(&error)));
        complain("name another one: --wallet.name NAME --wallet.hotkey NAME, --wallet.path DIR");
        Exit::Data
    })?;
    for warning in loaded.warnings {
        complain(&format!("{}: {warning}", file.display()));
    }
    Ok(loaded.keypair)
}

/// What to look at, the likeliest first.
fn checks<T>(reply: &ClassicReply<T>) -> Vec<&'static str> {
    let mut checks = match &reply.answer {
        Ok(_) => Vec::new(),
        Err(error) => causes(error),
    };
    if reply.signer == ReplySigner::Unknown {
        checks.push(
            "the reply's signature is not the receiver's: another hotkey answers there, or a proxy changes replies",
        );
    }
    checks
}

fn causes(error: &AskError) -> Vec<&'static str> {
    match error {
        AskError::Unavailable(_) => vec![
            "the node runs and its log says that the axon listens",
            "address and port are the ones that the chain shows: axon.external_ip, axon.external_port",
            "the router forwards the port, and no firewall rejects it",
        ],
        AskError::Timeout(_) => vec![
            "a firewall or router drops packets without a word: ask from another network too",
            "the node may have too much to do: its /readyz",
        ],
        AskError::Disconnected => vec![
            "the axon closed the connection without an answer: the original's axon does so when it fails, its log says why",
            "a proxy or a port forwarding without a node behind it",
        ],
        AskError::ClientResponse(_) => vec!["something else than an axon listens there: the port"],
        AskError::Payload(_) => {
            vec!["the connection broke off within the reply: a proxy, or a node that was just ended"]
        }
        AskError::Parse(_) => vec![
            "something else than an axon answers there: the port, a proxy's error page",
            "the text says what could not be read",
        ],
        AskError::NoStatus => vec![
            "a proxy that drops headers with underscores (nginx: underscores_in_headers on)",
            "something else than an axon answers there: the port",
        ],
        AskError::Server { code: 401, .. } => vec![
            "--receiver is the hotkey that serves there: the request is signed for it",
            "the clocks of both machines (NTP)",
            "the axon accepts this scheme: try --scheme classic and --scheme btauth",
        ],
        AskError::Server { code: 403, .. } => {
            vec![
                "the axon is reached and refuses this hotkey; the text says why: registration, stake, permit, a list, a penalty",
            ]
        }
        AskError::Server { code: 404 | 405, .. } => {
            vec!["an axon of another kind, a validator's for example, or none: the port, the receiver"]
        }
        AskError::Server { code: 429, .. } => vec!["the axon limits how often it is asked: wait and ask again"],
        AskError::Server { code: 503, .. } => {
            vec!["the node is not ready or has too much to do: its /readyz; ask again"]
        }
        AskError::Server { .. } => vec!["the axon is reached and could not answer: its log"],
        AskError::Own(_) => vec!["this machine: its addresses, its limit on open files"],
    }
}

fn text(report: &Report) -> String {
    let signed = match report.signed_by {
        "receiver" => "by the receiver, so it is a node of this software",
        "nobody" => "by nobody; replies of the SDK never are",
        _ => "by somebody else than the receiver",
    };
    let status = report.status.map_or_else(|| "-".to_owned(), |status| status.to_string());
    // A peer's words.
    let said: String = report.text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let mut rows = vec![
        row(["axon", &format!("{}, receiver {}", report.axon, report.receiver)]),
        row(["caller", &report.caller.to_string()]),
        row(["request", &format!("/{}, scheme {}", report.request, report.scheme)]),
        row(["answer", &format!("{status} {said}")]),
        row(["time", &format!("{:.1} ms", report.elapsed_ms)]),
        row(["signed", signed]),
    ];
    if let Some(free) = report.free {
        rows.push(row(["machine", if free { "free" } else { "not free: rented, or not to be rented now" }]));
    }
    rows.extend(report.check.iter().map(|check| row(["check", check])));
    columns(&rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_names_something_to_look_at_and_a_success_nothing() {
        let text = || String::from("x");
        let server = |code| AskError::Server { code, message: text() };
        let errors = [
            AskError::Unavailable(text()),
            AskError::Timeout(1.0),
            AskError::Disconnected,
            AskError::ClientResponse(text()),
            AskError::Payload(text()),
            AskError::Parse(text()),
            AskError::NoStatus,
            AskError::Own(text()),
        ];
        for error in errors.into_iter().chain([401, 403, 404, 408, 429, 500, 503].map(server)) {
            assert!(!causes(&error).is_empty(), "{error:?}");
        }
        let reply = |signer| ClassicReply { answer: Ok(()), signer, elapsed: Duration::ZERO };
        assert!(checks(&reply(ReplySigner::Nobody)).is_empty());
        assert_eq!(
            checks(&reply(ReplySigner::Unknown)).len(),
            1,
            "a wrong signature is worth a look though it is no failure"
        );
    }
}
