//! Asks miners for their specs in batches, keeps the last answer of each, and notices changes.
//!
//! Invariants: a miner that does not answer delays no other's request or answer, and a round is over in the time that it was
//! given; what is kept is bounded by the number of neurons asked last. A miner's specs are its own words: they choose what it is asked to prove, and
//! nothing else rests on them.
//!
//! On restart: the next round asks everybody again.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use actix::prelude::*;
use tokio::time::{Instant, sleep};

use crate::actors::journal::Journal;
use crate::clock::SharedClock;
use crate::ids::{BlockNumber, Hotkey};
use crate::messages::journal::Note;
use crate::messages::validator::specs_collector::{CollectSpecs, KnownSpecs, SpecsResult, Target};
use crate::runtime::{Ctx, Handle, Inspect, Supervised};
use crate::settings::Live;
use crate::store::Record;
use crate::store::records::SpecsRecord;
use crate::verdict::UnknownCause;
use crate::wire::dendrite::{CallError, Dendrite, FanOut, Peer, Unanswered, fan_out};
use crate::wire::synapse::{SpecsReply, SpecsRequest};

/// Largest specs reply read, in bytes.
const MAX_REPLY: usize = 256 * 1024;
/// Requests under way at the same time: as many as a subnet has neurons.
const AT_ONCE: usize = 256;
/// First wait before a miner that is not ready is asked again; each one is twice as long as the last.
const NOT_READY_RETRY: Duration = Duration::from_millis(100);

/// What the collector works with.
pub struct SpecsCollectorSetup {
    /// Signs and sends the requests.
    pub dendrite: Dendrite,
    /// Miners whose requests begin at the same time; the next batch waits for a few milliseconds, not for answers.
    pub batch: usize,
    /// How long each may take.
    pub deadline: Duration,
    /// Keeps what was answered.
    pub journal: Handle<Journal>,
    /// The wall clock.
    pub clock: SharedClock,
}

/// The actor.
pub struct SpecsCollector {
    /// What it works with, as the settings have it now.
    live: Live<Arc<SpecsCollectorSetup>>,
    setup: Arc<SpecsCollectorSetup>,
    known: HashMap<Hotkey, Arc<SpecsReply>>,
    rounds: u64,
    block: BlockNumber,
}

impl SpecsCollector {
    /// A collector that knows nobody.
    pub fn new(live: Live<Arc<SpecsCollectorSetup>>) -> Self {
        let setup = live.get();
        SpecsCollector { live, setup, known: HashMap::new(), rounds: 0, block: 0 }
    }

    /// The answers as they count: who gave none is taken at its last word.
    fn settle(&self, mut answers: HashMap<Hotkey, SpecsResult>) -> HashMap<Hotkey, SpecsResult> {
        for (hotkey, answer) in &mut answers {
            if let (Err(_), Some(known)) = (&answer, self.known.get(hotkey)) {
                *answer = Ok(known.clone());
            }
        }
        answers
    }

    fn keep(&mut self, answers: &HashMap<Hotkey, SpecsResult>) {
        self.rounds += 1;
        self.known.retain(|hotkey, _| answers.contains_key(hotkey));
        for (hotkey, answer) in answers {
            let Ok(reply) = answer else { continue };
            let old = self.known.insert(*hotkey, reply.clone());
            if old.as_ref().is_some_and(|old| old.devices == reply.devices) {
                continue;
            }
            if old.is_some() {
                tracing::info!(%hotkey, devices = reply.devices.len(), "the miner offers other devices than before");
            }
            let record = Record::Specs(SpecsRecord {
                hotkey: *hotkey,
                taken_at_ms: self.setup.clock.now_ms(),
                block: self.block,
                json: serde_json::json!(**reply),
            });
            if let Err(error) = self.setup.journal.tell(Note(record)) {
                tracing::warn!(%hotkey, %error, "specs not recorded");
            }
        }
    }
}

async fn ask(setup: Arc<SpecsCollectorSetup>, target: Target) -> SpecsResult {
    let peer = Peer { hotkey: target.hotkey, addr: target.address };
    let until = Instant::now() + setup.deadline;
    let mut pause = NOT_READY_RETRY;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        match setup.dendrite.call(&peer, &SpecsRequest::default(), left, MAX_REPLY).await {
            Ok(reply) => return Ok(Arc::new(reply.body)),
            Err(CallError::Status { code: 503, .. }) if left > pause => sleep(pause).await,
            Err(error) => return Err((error.cause(), error.to_string())),
        }
        pause *= 2;
    }
}

/// Why there are no specs, where no request says it.
fn unanswered(why: Unanswered) -> (UnknownCause, String) {
    match why {
        Unanswered::Late => (UnknownCause::Timeout, "no specs within the time that the round has for them".into()),
        Unanswered::NotAsked => (UnknownCause::OwnFault, "the round's time was over before its turn".into()),
        Unanswered::Panicked => (UnknownCause::OwnFault, "the validator failed while it asked".into()),
    }
}

impl Actor for SpecsCollector {
    type Context = Ctx<Self>;
}

impl Supervised for SpecsCollector {
    const MESSAGES: &'static [&'static str] = &["CollectSpecs", "KnownSpecs"];
}

impl Handler<CollectSpecs> for SpecsCollector {
    type Result = ResponseActFuture<Self, HashMap<Hotkey, SpecsResult>>;
    fn handle(&mut self, CollectSpecs { targets, block, within }: CollectSpecs, _: &mut Ctx<Self>) -> Self::Result {
        self.block = block;
        self.setup = self.live.get();
        let setup = self.setup.clone();
        let round = async move {
            let how = FanOut { batch: setup.batch, at_once: setup.batch.max(AT_ONCE) };
            let answers = fan_out(targets, |target| ask(setup.clone(), target), within, how).await;
            let result = |(target, answer): (Target, Result<SpecsResult, Unanswered>)| {
                (target.hotkey, answer.unwrap_or_else(|why| Err(unanswered(why))))
            };
            answers.into_iter().map(result).collect::<HashMap<_, _>>()
        };
        Box::pin(round.into_actor(self).map(|answers, act, _| {
            let answers = act.settle(answers);
            act.keep(&answers);
            answers
        }))
    }
}

impl Handler<KnownSpecs> for SpecsCollector {
    type Result = MessageResult<KnownSpecs>;
    fn handle(&mut self, _: KnownSpecs, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(self.known.clone())
    }
}

impl Handler<Inspect> for SpecsCollector {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, _: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({ "known": self.known.len(), "rounds": self.rounds }))
    }
}
