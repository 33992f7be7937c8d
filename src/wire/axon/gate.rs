//! What all requests to one axon share.

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actix_web::HttpRequest;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::outcome::{AdmissionRefusal, AxonEvents, AxonOutcome, RequestSeen};
use super::rates::{Limiters, Rates};
use crate::clock::SharedClock;
use crate::ids::Hotkey;
use crate::wallet::Keypair;
use crate::wire::btauth::{self, AuthError, AuthHeaders, AuthPolicy, Caller};
use crate::wire::classic::{
    self, ClassicCaller, ClassicError, ClassicHeaders, ClassicPolicy, DENDRITE_VERSION, EndpointLimits, Endpoints,
};
use crate::wire::nonces::{NonceLimits, NonceTable};

/// Bounds on one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AxonLimits {
    /// Headers of one request. The HTTP server refuses more than 96 by itself.
    pub max_headers: usize,
    /// Their names and values together, in bytes. The HTTP server refuses more than 128 KiB by itself.
    pub max_header_bytes: usize,
    /// Largest request body, in bytes.
    pub max_body_bytes: usize,
    /// From the first look at the request until its body has arrived.
    pub body_deadline: Duration,
    /// From calling the handler until its answer. Handlers have deadlines of their own; this one bounds them all.
    pub handler_deadline: Duration,
    /// Handlers at work at the same time, at least 1. Further requests are refused, not queued.
    pub at_once: usize,
}

impl Default for AxonLimits {
    /// 64 headers of 16 KiB, 64 KiB, 5 s, 5 minutes, 64 at once.
    fn default() -> Self {
        AxonLimits {
            max_headers: 64,
            max_header_bytes: 16 * 1024,
            max_body_bytes: 64 * 1024,
            body_deadline: Duration::from_secs(5),
            handler_deadline: Duration::from_secs(300),
            at_once: 64,
        }
    }
}

/// Which schemes of authentication an axon accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Accepts {
    /// `btauth/1`.
    pub btauth: bool,
    /// The scheme of SDK 6 to 10. Never for our own synapses.
    pub classic: bool,
}

impl Accepts {
    /// Both schemes.
    pub const BOTH: Accepts = Accepts { btauth: true, classic: true };
}

/// How a gate judges requests.
#[derive(Debug, Clone, Copy)]
pub struct GateRules {
    /// The version integer that we tell callers of the classic scheme.
    pub version: u64,
    /// The freshness window of `btauth/1`.
    pub btauth: AuthPolicy,
    /// The freshness window of the classic scheme.
    pub classic: ClassicPolicy,
    /// Bounds on one request.
    pub limits: AxonLimits,
    /// Nonces of `btauth/1` that are remembered.
    pub nonces: NonceLimits,
    /// Nonces of the classic scheme that are remembered.
    pub endpoints: EndpointLimits,
    /// How often one address and one hotkey may ask.
    pub rates: Rates,
}

impl Default for GateRules {
    fn default() -> Self {
        GateRules {
            version: DENDRITE_VERSION,
            btauth: AuthPolicy::default(),
            classic: ClassicPolicy::default(),
            limits: AxonLimits::default(),
            nonces: NonceLimits::default(),
            endpoints: EndpointLimits::default(),
            rates: Rates::default(),
        }
    }
}

/// What a listener notes with a connection that comes from this machine itself: requests over it do not show that others
/// can reach it.
#[derive(Debug, Clone, Copy)]
pub struct FromHere;

/// Whether requests from an address are looked at.
type AdmitAddress = dyn Fn(IpAddr) -> Result<(), AdmissionRefusal> + Send + Sync;

/// What all requests to one axon share.
pub struct AxonGate {
    pub(super) keypair: Keypair,
    /// The hotkey's address.
    pub(super) address: String,
    pub(super) rules: GateRules,
    accepts: Box<dyn Fn() -> Accepts + Send + Sync>,
    addresses: Box<AdmitAddress>,
    pub(super) limiters: Limiters,
    clock: SharedClock,
    nonces: Mutex<NonceTable>,
    endpoints: Mutex<Endpoints>,
    handlers: Semaphore,
    events: Arc<dyn AxonEvents>,
    /// When the last request from elsewhere was answered, in milliseconds since the Unix epoch; 0 before the first.
    last_request_ms: AtomicU64,
}

/// Why a handler gave no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WorkProblem {
    Overloaded,
    Deadline,
}

impl AxonGate {
    /// A gate that answers as `keypair` and accepts both schemes. Requests signed before now are refused.
    pub fn new(keypair: Keypair, clock: SharedClock, rules: GateRules, events: Arc<dyn AxonEvents>) -> Self {
        let now = clock.now_ns();
        AxonGate {
            nonces: Mutex::new(NonceTable::new(rules.nonces, rules.btauth, now)),
            endpoints: Mutex::new(Endpoints::new(rules.endpoints, rules.classic, now)),
            handlers: Semaphore::new(rules.limits.at_once.max(1)),
            accepts: Box::new(|| Accepts::BOTH),
            addresses: Box::new(|_| Ok(())),
            limiters: Limiters::new(rules.rates),
            address: keypair.hotkey().to_string(),
            keypair,
            rules,
            clock,
            events,
            last_request_ms: AtomicU64::new(0),
        }
    }

    /// The same gate that asks `accepts`, for each request, which schemes it accepts.
    pub fn accepting(self, accepts: impl Fn() -> Accepts + Send + Sync + 'static) -> Self {
        AxonGate { accepts: Box::new(accepts), ..self }
    }

    /// The same gate that asks `addresses`, a pure look at a snapshot, for each request before anything of it is looked at.
    pub fn admitting(self, addresses: impl Fn(IpAddr) -> Result<(), AdmissionRefusal> + Send + Sync + 'static) -> Self {
        AxonGate { addresses: Box::new(addresses), ..self }
    }

    /// The hotkey that requests must be signed for.
    pub fn hotkey(&self) -> Hotkey {
        self.keypair.hotkey()
    }

    /// When the last request from elsewhere was answered, in milliseconds since the Unix epoch; none before the first.
    pub fn last_request_ms(&self) -> Option<u64> {
        Some(self.last_request_ms.load(Ordering::Relaxed)).filter(|ms| *ms > 0)
    }

    pub(super) fn accepts(&self) -> Accepts {
        (self.accepts)()
    }

    pub(super) fn admit_address(&self, ip: IpAddr) -> Result<(), AdmissionRefusal> {
        (self.addresses)(ip)
    }

    pub(super) fn limits(&self) -> &AxonLimits {
        &self.rules.limits
    }

    pub(super) fn now_ns(&self) -> u64 {
        self.clock.now_ns()
    }

    pub(super) fn authenticate(&self, request: &HttpRequest, body: &[u8]) -> Result<Caller, AuthError> {
        let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers = AuthHeaders::collect(headers)?;
        let target = request.uri().path_and_query().map_or("/", |t| t.as_str());
        let (now, us) = (self.clock.now_ns(), self.keypair.hotkey());
        btauth::verify(&headers, request.method().as_str(), target, body, now, &us, &self.rules.btauth)
    }

    // A panic while one of the tables is locked would be between two whole operations of it; what it holds stays true.

    pub(super) fn admit_nonce(&self, caller: &Caller) -> Result<(), AuthError> {
        self.nonces.lock().unwrap_or_else(PoisonError::into_inner).admit(caller, self.clock.now_ns())
    }

    /// Uses up, with a request that was admitted under `btauth/1`, the classic request that its headers hold too.
    pub(super) fn use_up_twin(&self, request: &HttpRequest, caller: &Caller) -> Result<(), AuthError> {
        let names = || request.headers().keys().map(|name| name.as_str());
        if !ClassicHeaders::present(names()) {
            return Ok(());
        }
        const TWO: AuthError = AuthError::MalformedAuth("the classic headers beside are not of the same request");
        let headers = request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes()));
        let headers = ClassicHeaders::collect(headers).map_err(|_| TWO)?;
        let Some(twin) = classic::twin(&headers, caller).map_err(|_| TWO)? else { return Ok(()) };
        match self.admit_endpoint(&twin) {
            Err(ClassicError::Overloaded(detail)) => Err(AuthError::Overloaded(detail)),
            // Used up already, by now or for ever.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    pub(super) fn look_endpoint(&self, caller: &ClassicCaller) -> Result<(), ClassicError> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).look(caller, self.clock.now_ns())
    }

    pub(super) fn admit_endpoint(&self, caller: &ClassicCaller) -> Result<(), ClassicError> {
        self.endpoints.lock().unwrap_or_else(PoisonError::into_inner).admit(caller, self.clock.now_ns())
    }

    /// Lets a handler work, if there is room, until its deadline.
    pub(super) async fn work<T>(&self, handler: impl Future<Output = T>) -> Result<T, WorkProblem> {
        let _working = self.handlers.try_acquire().map_err(|_| WorkProblem::Overloaded)?;
        timeout(self.rules.limits.handler_deadline, handler).await.map_err(|_| WorkProblem::Deadline)
    }

    pub(super) fn tell(
        &self,
        request: &HttpRequest,
        path: &'static str,
        outcome: AxonOutcome,
        caller: Option<&Hotkey>,
        body_signed: bool,
    ) {
        if request.conn_data::<FromHere>().is_none() {
            self.last_request_ms.store(self.clock.now_ms().max(1), Ordering::Relaxed);
        }
        let peer = request.peer_addr().map(|peer| peer.ip());
        self.events.request(RequestSeen { path, outcome, caller, body_signed, peer });
    }
}

impl std::fmt::Debug for AxonGate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AxonGate").field("hotkey", &self.hotkey()).field("rules", &self.rules).finish_non_exhaustive()
    }
}
