//! The miner's axon: verified requests become messages.
//!
//! Everything that touches a peer's bytes happens in the HTTP worker, in [`axon::handle`]; admission is judged
//! there too, on the last published snapshot. Only then is an actor asked, with a deadline.

use std::sync::Arc;
use std::time::Duration;

use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, HttpResponse, Resource, Route, guard};
use tokio::sync::watch;

use super::allocation_manager::AllocationManager;
use super::challenge_runner::ChallengeRunner;
use super::original::{NotNow, Original};
use super::specs_collector::SpecsCollector;
use crate::actors::auto_updater::VERSION;
use crate::admission::{Decision, Need, Policy, RefusalClass, Snapshot, admit_caller};
use crate::clock::SharedClock;
use crate::ids::Hotkey;
use crate::messages::miner::allocation_manager::{
    Allocate, ChangeLease, HeldReceipts, LeaseStatus, ListLeases, Release, Renew,
};
use crate::messages::miner::challenge_runner::{FillMemory, Open, OpenError, OpenMemory, Prove, ScanMemory};
use crate::messages::miner::specs_collector::GetSpecs;
use crate::runtime::{AskError, Handle};
use crate::settings::Live;
use crate::telemetry::NodeMetrics;
use crate::telemetry::events::AdmissionRefused;
use crate::wire::axon::{self, AdmissionRefusal, AxonGate, Declined, Refusal};
use crate::wire::classic::{ClassicSynapse, Ping, path};
use crate::wire::synapse::original::{
    Allocate as OriginalAllocate, Challenge as OriginalChallenge, Specs as OriginalSpecs,
};
use crate::wire::synapse::{
    AllocateRequest, ChallengeRequest, DeviceOffer, LeaseChangeRequest, LeaseStatusRequest, MemoryFillRequest,
    MemoryOpenRequest, MemoryScanRequest, OpeningsRequest, RawBytes, ReleaseRequest, RenewRequest, SpecsReply,
    SpecsRequest, Synapse, WhoReply, WhoRequest,
};

/// What the routes share.
pub struct AxonState {
    /// Verifies requests and signs replies.
    pub gate: Arc<AxonGate>,
    /// What the operator wants of callers.
    pub policy: Live<Arc<Policy>>,
    /// The guard's last word.
    pub snapshot: watch::Receiver<Option<Arc<Snapshot>>>,
    /// A snapshot older than this admits nobody …
    pub max_snapshot_age: Duration,
    /// … but to what concerns a lease that exists, where the caller has shown that it is its own: that goes on while the chain
    /// cannot be read, up to this age.
    pub max_known_age: Duration,
    /// How long the prover may take in all.
    pub prove_deadline: Duration,
    /// How long everything else may take.
    pub deadline: Duration,
    /// Answers [`WhoRequest`].
    pub who: WhoReply,
    /// The wall clock.
    pub clock: SharedClock,
    /// The node's metrics.
    pub metrics: Arc<NodeMetrics>,
    /// Answers [`SpecsRequest`].
    pub specs: Handle<SpecsCollector>,
    /// Answers challenges.
    pub challenges: Handle<ChallengeRunner>,
    /// Answers calls about leases.
    pub allocations: Handle<AllocationManager>,
    /// Answers the original's synapses.
    pub original: Original,
}

impl AxonState {
    /// Whether this caller may do what validators do.
    fn admit(&self, caller: &Hotkey) -> Result<(), AdmissionRefusal> {
        self.admit_within(self.max_snapshot_age, caller)
    }

    /// Whether it may, by a snapshot that is at most so old.
    fn admit_within(&self, max_age: Duration, caller: &Hotkey) -> Result<(), AdmissionRefusal> {
        let snapshot = self.snapshot.borrow().clone();
        let now = self.clock.now_ms();
        let decision = admit_caller(&self.policy.get(), snapshot.as_deref(), now, max_age, caller, Need::Validator);
        match decision {
            Decision::Admitted(via) => {
                self.metrics.admission("admitted", via.label());
                Ok(())
            }
            Decision::Refused(refusal) => {
                AdmissionRefused { hotkey: *caller, reason: refusal.label() }.emit(&self.metrics);
                let detail = format!("{refusal}; {}", refusal.remedy());
                Err(match refusal.class() {
                    RefusalClass::Forbidden => AdmissionRefusal::Forbidden { reason: refusal.label(), detail },
                    RefusalClass::Unavailable => AdmissionRefusal::NotReady { detail },
                })
            }
        }
    }
}

fn unavailable(error: AskError) -> Refusal {
    match error {
        AskError::Overloaded => Refusal::overloaded("this node has too much to do, ask again"),
        AskError::Deadline => Refusal::unavailable("this node did not finish in time"),
        AskError::Crashed | AskError::Gone => Refusal::unavailable("this part of the node is being restarted"),
    }
}

type State = web::Data<Arc<AxonState>>;

/// Registers the axon's paths.
pub fn routes(state: Arc<AxonState>) -> impl Fn(&mut web::ServiceConfig) + Clone + Send + Sync + 'static {
    move |config: &mut web::ServiceConfig| {
        config
            .app_data(web::Data::new(state.clone()))
            .route(SpecsRequest::PATH, web::post().to(specs))
            .route(ChallengeRequest::PATH, web::post().to(challenge))
            .route(OpeningsRequest::PATH, web::post().to(openings))
            .route(MemoryFillRequest::PATH, web::post().to(memory_fill))
            .route(MemoryScanRequest::PATH, web::post().to(memory_scan))
            .route(MemoryOpenRequest::PATH, web::post().to(memory_openings))
            .route(AllocateRequest::PATH, web::post().to(allocate))
            .route(ReleaseRequest::PATH, web::post().to(release))
            .route(LeaseStatusRequest::PATH, web::post().to(lease))
            .route(LeaseChangeRequest::PATH, web::post().to(change))
            .route(RenewRequest::PATH, web::post().to(renew))
            .route(WhoRequest::PATH, web::post().to(who))
            .service(original::<Ping>(|| web::route().to(ping)))
            .service(original::<OriginalAllocate>(|| web::route().to(original_allocate)))
            .service(original::<OriginalChallenge>(|| web::route().to(original_challenge)))
            .service(original::<OriginalSpecs>(|| web::route().to(original_specs)))
            .default_service(web::to(unknown));
    }
}

/// The names of the original's synapses that are served.
pub const ORIGINAL: &[&str] = &[Ping::NAME, OriginalAllocate::NAME, OriginalChallenge::NAME, OriginalSpecs::NAME];

/// A class of the original at its path, for the methods that the SDK's axon takes.
fn original<S: ClassicSynapse>(handler: impl Fn() -> Route) -> Resource {
    web::resource(path::<S>())
        .route(handler().guard(guard::Post()))
        .route(handler().guard(guard::Get()))
        .default_service(web::to(wrong_method))
}

/// Serves one request of the original's classes.
async fn serve_original<S, H, F>(state: &AxonState, request: HttpRequest, body: Payload, handler: H) -> HttpResponse
where
    S: ClassicSynapse,
    H: FnOnce(Hotkey, S) -> F,
    F: Future<Output = Result<S, Declined<S>>>,
{
    axon::handle_classic(&state.gate, request, body, |caller: &Hotkey| state.admit(caller), handler).await
}

/// Answers that we are here.
async fn ping(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve_original(&state, request, body, async |_, ping: Ping| Ok(ping)).await
}

async fn original_allocate(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve_original(&state, request, body, async |caller, mut synapse: OriginalAllocate| {
        synapse.output = Default::default();
        match state.original.allocate(caller, &synapse).await {
            Ok(output) => {
                synapse.output = output;
                Ok(synapse)
            }
            Err(reason) => Err(not_now(&reason, synapse)),
        }
    })
    .await
}

async fn original_challenge(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve_original(&state, request, body, async |_, mut synapse: OriginalChallenge| {
        synapse.output = state.original.challenge(&synapse);
        Ok(synapse)
    })
    .await
}

async fn original_specs(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve_original(&state, request, body, async |_, mut synapse: OriginalSpecs| {
        match state.original.specs(&synapse).await {
            Ok(text) => {
                synapse.specs_output = text;
                Ok(synapse)
            }
            Err(reason) => Err(not_now(&reason, synapse)),
        }
    })
    .await
}

/// No answer: its caller goes on as if nobody had been there.
fn not_now<S>(reason: &NotNow, synapse: S) -> Declined<S> {
    Declined::With { status: 503, message: reason.to_string(), synapse }
}

async fn unknown(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    axon::not_found(&state.gate, request, body, ORIGINAL).await
}

async fn wrong_method(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    axon::method_not_allowed(&state.gate, request, body).await
}

/// Serves one request: verified and admitted before `handler` hears of it, with the caller's proved hotkey.
async fn serve<S, H, F>(state: &AxonState, request: HttpRequest, body: Payload, handler: H) -> HttpResponse
where
    S: Synapse,
    H: FnOnce(Hotkey, S) -> F,
    F: Future<Output = Result<S::Reply, Refusal>>,
{
    serve_within(state, state.max_snapshot_age, request, body, handler).await
}

/// [`serve`], for a caller that is admitted by a snapshot at most so old.
async fn serve_within<S, H, F>(
    state: &AxonState,
    max_age: Duration,
    request: HttpRequest,
    body: Payload,
    handler: H,
) -> HttpResponse
where
    S: Synapse,
    H: FnOnce(Hotkey, S) -> F,
    F: Future<Output = Result<S::Reply, Refusal>>,
{
    let admission = |caller: &Hotkey| state.admit_within(max_age, caller);
    axon::handle(&state.gate, request, body, admission, |caller, synapse| handler(caller.hotkey, synapse)).await
}

async fn specs(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve(&state, request, body, async |_, _: SpecsRequest| {
        let specs = state.specs.ask(GetSpecs, state.deadline).await.map_err(unavailable)?;
        let leases = state.allocations.ask(ListLeases, state.deadline).await.map_err(unavailable)?;
        let receipts = state.allocations.ask(HeldReceipts, state.deadline).await.map_err(unavailable)?;
        let offer = |d: &crate::hardware::OfferedDevice| DeviceOffer {
            device: d.device,
            model: d.model.clone(),
            memory_bytes: d.memory_bytes,
        };
        Ok(SpecsReply {
            version: VERSION.into(),
            devices: specs.specs.devices.iter().map(offer).collect(),
            specs: serde_json::json!(*specs.specs),
            leases: leases.iter().map(|l| l.id).collect(),
            receipts,
        })
    })
    .await
}

async fn challenge(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve(&state, request, body, async |caller, request: ChallengeRequest| {
        state.challenges.ask(Prove { caller, request }, state.prove_deadline).await.map_err(unavailable)
    })
    .await
}

async fn openings(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve(&state, request, body, async |caller, request: OpeningsRequest| {
        opened(state.challenges.ask(Open { caller, request }, state.prove_deadline).await)
    })
    .await
}

async fn memory_fill(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve(&state, request, body, async |caller, request: MemoryFillRequest| {
        state.challenges.ask(FillMemory { caller, request }, state.prove_deadline).await.map_err(unavailable)
    })
    .await
}

async fn memory_scan(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve(&state, request, body, async |caller, request: MemoryScanRequest| {
        state.challenges.ask(ScanMemory { caller, request }, state.prove_deadline).await.map_err(unavailable)
    })
    .await
}

async fn memory_openings(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve(&state, request, body, async |caller, request: MemoryOpenRequest| {
        opened(state.challenges.ask(OpenMemory { caller, request }, state.prove_deadline).await)
    })
    .await
}

fn opened(answer: Result<Result<Vec<u8>, OpenError>, AskError>) -> Result<RawBytes, Refusal> {
    match answer.map_err(unavailable)? {
        Ok(bytes) => Ok(RawBytes(bytes)),
        Err(OpenError::Unknown) => Err(Refusal::not_found(OpenError::Unknown.to_string())),
        Err(OpenError::Busy) => Err(Refusal::overloaded(OpenError::Busy.to_string())),
        Err(error @ OpenError::Positions(_)) => Err(Refusal::invalid(error.to_string())),
        Err(error @ (OpenError::Prover(_) | OpenError::NotAgain(_))) => Err(Refusal::unavailable(error.to_string())),
    }
}

async fn allocate(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve(&state, request, body, async |caller, request: AllocateRequest| {
        state.allocations.ask(Allocate { caller, request }, state.deadline).await.map_err(unavailable)
    })
    .await
}

async fn release(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve_within(&state, state.max_known_age, request, body, async |caller, request: ReleaseRequest| {
        state.allocations.ask(Release { caller, request }, state.deadline).await.map_err(unavailable)
    })
    .await
}

async fn lease(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve_within(&state, state.max_known_age, request, body, async |caller, request: LeaseStatusRequest| {
        state.allocations.ask(LeaseStatus { caller, request }, state.deadline).await.map_err(unavailable)
    })
    .await
}

async fn change(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve_within(&state, state.max_known_age, request, body, async |caller, request: LeaseChangeRequest| {
        state.allocations.ask(ChangeLease { caller, request }, state.deadline).await.map_err(unavailable)
    })
    .await
}

async fn renew(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    serve_within(&state, state.max_known_age, request, body, async |caller, request: RenewRequest| {
        state.allocations.ask(Renew { caller, request }, state.deadline).await.map_err(unavailable)
    })
    .await
}

/// Answers our own hotkey and nobody else, whatever the subnet says of it: so that a second node of it finds the first.
async fn who(state: State, request: HttpRequest, body: Payload) -> HttpResponse {
    let own = state.gate.hotkey();
    let admission = |caller: &Hotkey| match *caller == own {
        true => Ok(()),
        false => Err(AdmissionRefusal::Forbidden {
            reason: "not_this_hotkey",
            detail: "only the hotkey that is served here is told which process serves it".to_owned(),
        }),
    };
    axon::handle(&state.gate, request, body, admission, async |_, _: WhoRequest| Ok(state.who.clone())).await
}
