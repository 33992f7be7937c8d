//! One HTTP exchange with an axon, and the connections that are kept for the next one.
//!
//! Invariants:
//! - a request goes out once: it is never retried, redirected or sent through a proxy. (Where a kept connection turns out
//!   to be closed before the first byte was written, the HTTP library takes another one; nothing had gone out then.);
//! - a reply is bounded: its head by the HTTP library (100 headers, 400 KiB), its body by the caller;
//! - kept connections are bounded: [`Keep::per_axon`] for each axon and [`Keep::axons`] axons in all, and none is used
//!   again after [`Keep::idle`].
//!
//! Design notes:
//! - both uvicorn's and actix's servers close a connection that was idle for 5 s. We let go after 4 s, so that it is we who
//!   let go: a second remains for the network and for clocks that tick coarsely;
//! - a race remains: the server ends, or closes early, just when a request is on its way. Then the connection closes without
//!   an answer, and nobody can tell whether the request was read. That is [`Failure::Closed`], which says nothing about the
//!   peer's work: `Unreachable`, never a fail. The next request takes a fresh connection;
//! - whether an axon may keep connections is decided before the request, by a small table of the axons spoken to in the last
//!   few seconds. Who has no place in it is asked through a client that keeps none.

use std::collections::HashMap;
use std::error::Error;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use reqwest::header::{CONTENT_TYPE, HeaderMap};
use reqwest::{Client, Response};
use tokio::time::Instant;

/// Connecting takes no longer than this, whatever the call's deadline.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An error reply longer than this is not read.
const MAX_ERROR_BYTES: usize = 16 * 1024;
/// Characters of a peer's words that are kept.
const MAX_DETAIL_CHARS: usize = 300;

/// Which connections are kept for the next request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// How long an idle one may still be used. Less than every server's own limit.
    pub idle: Duration,
    /// Idle ones for each axon. Zero keeps none.
    pub per_axon: usize,
    /// Axons that may have any.
    pub axons: usize,
}

impl Default for Keep {
    /// 4 s, 2 for each of 256 axons.
    fn default() -> Self {
        Keep { idle: Duration::from_secs(4), per_axon: 2, axons: 256 }
    }
}

/// What came back, before anything in it is believed.
pub(super) struct Received {
    pub(super) status: u16,
    pub(super) headers: HeaderMap,
    pub(super) body: Vec<u8>,
    pub(super) sent_at: Instant,
    pub(super) received_at: Instant,
}

/// Why nothing came back.
#[derive(Debug)]
pub(super) enum Failure {
    /// No connection.
    Connect(reqwest::Error),
    /// The connection ended before the reply's head was complete.
    Closed(reqwest::Error),
    /// What came is not HTTP.
    Protocol(String),
    /// The connection ended within the reply's body.
    Cut(reqwest::Error),
    /// The body exceeds this many bytes.
    TooLarge(usize),
    /// We could not send.
    Own(String),
}

/// Sends requests.
pub(super) struct Exchanger {
    keeping: Client,
    closing: Client,
    kept: Kept,
}

impl Exchanger {
    /// Sends from `local_address`, or from where the system chooses.
    pub(super) fn new(keep: Keep, local_address: Option<IpAddr>) -> Result<Self, Failure> {
        let client = |per_axon: usize| {
            Client::builder()
                .no_proxy()
                .redirect(reqwest::redirect::Policy::none())
                .retry(reqwest::retry::never())
                .pool_idle_timeout(keep.idle)
                .pool_max_idle_per_host(per_axon)
                .http1_only()
                .connect_timeout(CONNECT_TIMEOUT)
                .local_address(local_address)
                .build()
                .map_err(|e| Failure::Own(chain(&e)))
        };
        Ok(Exchanger { keeping: client(keep.per_axon)?, closing: client(0)?, kept: Kept::new(keep) })
    }

    /// Posts `body` and reads the whole reply, of at most `max_reply_bytes` if it is a 200.
    pub(super) async fn post(
        &self,
        to: SocketAddr,
        path: &str,
        headers: impl IntoIterator<Item = (String, String)>,
        body: Vec<u8>,
        max_reply_bytes: usize,
    ) -> Result<Received, Failure> {
        let place = self.kept.begin(to);
        let client = if place.is_some() { &self.keeping } else { &self.closing };
        // An address of IPv6 prints with its brackets.
        let mut request = client.post(format!("http://{to}{path}"));
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let request = request.header(CONTENT_TYPE, "application/json").body(body).build();
        let request = request.map_err(|e| Failure::Own(chain(&e)))?;

        let sent_at = Instant::now();
        let response = client.execute(request).await.map_err(|e| classify(e, Phase::Head))?;
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let limit = if status == 200 { max_reply_bytes } else { max_reply_bytes.min(MAX_ERROR_BYTES) };
        let (body, received_at) = read_body(response, limit).await?;
        Ok(Received { status, headers, body, sent_at, received_at })
    }
}

async fn read_body(mut response: Response, limit: usize) -> Result<(Vec<u8>, Instant), Failure> {
    if response.content_length().is_some_and(|length| length > limit as u64) {
        return Err(Failure::TooLarge(limit));
    }
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|e| classify(e, Phase::Body))? {
        if body.len() + chunk.len() > limit {
            return Err(Failure::TooLarge(limit));
        }
        body.extend_from_slice(&chunk);
    }
    Ok((body, Instant::now()))
}

/// The axons that may have idle connections.
struct Kept {
    keep: Keep,
    axons: Mutex<HashMap<SocketAddr, Use>>,
}

/// How an axon's connections are used.
struct Use {
    under_way: usize,
    last: Instant,
}

/// A request under way to an axon that has a place.
struct Place<'a>(&'a Kept, SocketAddr);

impl Kept {
    fn new(keep: Keep) -> Self {
        Kept { keep, axons: Mutex::new(HashMap::new()) }
    }

    fn begin(&self, axon: SocketAddr) -> Option<Place<'_>> {
        let now = Instant::now();
        let mut axons = self.axons.lock().unwrap_or_else(PoisonError::into_inner);
        if !axons.contains_key(&axon) && axons.len() >= self.keep.axons {
            // The HTTP library looks for connections to drop once in an idle time, so one may be there for twice as long.
            axons.retain(|_, used| used.under_way > 0 || now.duration_since(used.last) <= self.keep.idle * 2);
            if axons.len() >= self.keep.axons {
                return None;
            }
        }
        axons.entry(axon).or_insert(Use { under_way: 0, last: now }).under_way += 1;
        Some(Place(self, axon))
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut axons = self.0.axons.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(used) = axons.get_mut(&self.1) {
            used.under_way -= 1;
            used.last = Instant::now();
        }
    }
}

/// What was being read when something went wrong.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Head,
    Body,
}

/// Tells our own faults and unreadable replies from a peer that cannot be reached or hangs up.
fn classify(error: reqwest::Error, phase: Phase) -> Failure {
    let mut source: Option<&(dyn Error + 'static)> = Some(&error);
    while let Some(cause) = source {
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && is_own_fault(io)
        {
            return Failure::Own(io.to_string());
        }
        // The HTTP library's parse errors ("invalid HTTP version parsed" and the like) have no public type.
        let text = cause.to_string();
        if ["invalid ", "message head is too large", "unexpected transfer-encoding"].iter().any(|p| text.starts_with(p))
        {
            return Failure::Protocol(shorten(&text));
        }
        source = cause.source();
    }
    match phase {
        _ if error.is_builder() => Failure::Own(chain(&error)),
        _ if error.is_connect() => Failure::Connect(error.without_url()),
        Phase::Head => Failure::Closed(error.without_url()),
        Phase::Body => Failure::Cut(error.without_url()),
    }
}

/// Out of file descriptors, memory or ports, or an address that is not ours.
fn is_own_fault(error: &io::Error) -> bool {
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    use io::ErrorKind::*;
    matches!(error.raw_os_error(), Some(ENFILE | EMFILE))
        || matches!(error.kind(), AddrNotAvailable | AddrInUse | OutOfMemory | PermissionDenied)
}

fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A peer's words, made safe to print: short, no control characters.
pub(super) fn shorten(text: &str) -> String {
    text.chars().take(MAX_DETAIL_CHARS).map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn only_so_many_axons_have_kept_connections_and_a_quiet_one_makes_room() {
        let kept = Kept::new(Keep { axons: 2, ..Keep::default() });
        let axon = |n: u16| SocketAddr::from(([127, 0, 0, 1], n));
        let first = kept.begin(axon(1));
        assert!(first.is_some() && kept.begin(axon(2)).is_some() && kept.begin(axon(3)).is_none());
        assert!(kept.begin(axon(2)).is_some(), "who has a place keeps it");
        tokio::time::advance(kept.keep.idle * 2 + Duration::from_millis(1)).await;
        assert!(kept.begin(axon(3)).is_some(), "the quiet one's place");
        assert!(kept.begin(axon(2)).is_none(), "the other one has a request under way");
        drop(first);
        assert!(kept.axons.lock().unwrap().len() <= 2);
    }
}
