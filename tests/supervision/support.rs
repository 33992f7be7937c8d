//! One actor that can fail in every way, and a node around it.

use actix::prelude::*;
use compute_subnet::exit::Exit;
use compute_subnet::runtime::Supervised;
use compute_subnet::runtime::*;
use prometheus::Registry;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::oneshot;

pub(crate) const S: fn(u64) -> Duration = Duration::from_secs;

macro_rules! messages {
    ($($name:ident $(($arg:ty))? => $result:literal;)*) => {
        $(#[derive(Message)] #[rtype(result = $result)] pub(crate) struct $name $((pub(crate) $arg))?;)*
    };
}
messages! {
    Incr => "u64";
    Boom => "u64";
    BoomLater => "u64";
    Slow(u64) => "u64";
    Deaf => "u64";
    Nap(u64) => "u64";
    Fail => "Result<u64, String>";
    FailLater => "u64";
    StopSelf => "()";
    CancelThenBoom => "()";
    SpanNow => "Vec<String>";
    Unlisted => "()";
}

/// What happened, in order, as seen from inside the actors.
pub(crate) type Journal = Arc<Mutex<Vec<String>>>;

#[derive(Default)]
pub(crate) struct Dummy {
    pub(crate) n: u64,
    pub(crate) name: &'static str,
    pub(crate) journal: Journal,
    pub(crate) boom_in_started: bool,
    pub(crate) boom_in_stopping: bool,
    pub(crate) _bomb: Bomb,
    pub(crate) start_takes: Duration,
    pub(crate) ticks: Option<Arc<Mutex<u64>>>,
    pub(crate) ticker: Option<SpawnHandle>,
}
impl Dummy {
    fn note(&self, what: &str) {
        self.journal.lock().unwrap().push(format!("{} {what}", self.name));
    }
}
impl Actor for Dummy {
    type Context = Ctx<Self>;
    fn started(&mut self, ctx: &mut Ctx<Self>) {
        assert!(!self.boom_in_started, "boom in started");
        self.note("started");
        if !self.start_takes.is_zero() {
            ctx.wait(tokio::time::sleep(self.start_takes).into_actor(self));
        }
        if let Some(ticks) = self.ticks.clone() {
            self.ticker = Some(ctx.run_interval(S(1), move |_, _| *ticks.lock().unwrap() += 1));
        }
    }
    fn stopping(&mut self, _: &mut Ctx<Self>) -> Running {
        assert!(!self.boom_in_stopping, "boom in stopping");
        self.note("stopping");
        Running::Stop
    }
    fn stopped(&mut self, _: &mut Ctx<Self>) {
        self.note("stopped");
    }
}
/// Panics in its `Drop`, if armed.
#[derive(Default)]
pub(crate) struct Bomb(pub(crate) bool);
impl Drop for Bomb {
    fn drop(&mut self) {
        if self.0 && !std::thread::panicking() {
            panic!("boom in drop");
        }
    }
}
impl Supervised for Dummy {
    const MESSAGES: &'static [&'static str] = &[
        "Incr",
        "Boom",
        "BoomLater",
        "Slow",
        "Deaf",
        "Nap",
        "Fail",
        "FailLater",
        "StopSelf",
        "CancelThenBoom",
        "SpanNow",
    ];
}

/// The line of the panic in `Handler<Boom>`.
pub(crate) const BOOM_LINE: u32 = line!() + 4;
impl Handler<Boom> for Dummy {
    type Result = u64;
    fn handle(&mut self, _: Boom, _: &mut Ctx<Self>) -> u64 {
        panic!("boom {}", std::mem::replace(&mut self.n, 99))
    }
}
impl Handler<Incr> for Dummy {
    type Result = u64;
    fn handle(&mut self, _: Incr, _: &mut Ctx<Self>) -> u64 {
        self.n += 1;
        self.n
    }
}
impl Handler<BoomLater> for Dummy {
    type Result = ResponseActFuture<Self, u64>;
    fn handle(&mut self, _: BoomLater, _: &mut Ctx<Self>) -> Self::Result {
        Box::pin(tokio::time::sleep(S(3)).into_actor(self).map(|(), _, _| panic!("boom later")))
    }
}
impl Handler<Slow> for Dummy {
    type Result = ResponseActFuture<Self, u64>;
    fn handle(&mut self, slow: Slow, _: &mut Ctx<Self>) -> Self::Result {
        Box::pin(tokio::time::sleep(S(slow.0)).into_actor(self).map(move |(), _, _| slow.0))
    }
}
impl Handler<Deaf> for Dummy {
    type Result = AtomicResponse<Self, u64>;
    fn handle(&mut self, _: Deaf, _: &mut Ctx<Self>) -> Self::Result {
        AtomicResponse::new(Box::pin(std::future::pending().into_actor(self)))
    }
}
impl Handler<Nap> for Dummy {
    type Result = AtomicResponse<Self, u64>;
    fn handle(&mut self, nap: Nap, ctx: &mut Ctx<Self>) -> Self::Result {
        ctx.protect(S(nap.0));
        AtomicResponse::new(Box::pin(tokio::time::sleep(S(nap.0)).into_actor(self).map(move |(), _, _| nap.0)))
    }
}
impl Handler<Fail> for Dummy {
    type Result = Result<u64, String>;
    fn handle(&mut self, _: Fail, ctx: &mut Ctx<Self>) -> Self::Result {
        ctx.fail("the disk is full");
        ctx.fail("a consequence");
        Err("sorry".into())
    }
}
impl Handler<FailLater> for Dummy {
    type Result = ResponseActFuture<Self, u64>;
    fn handle(&mut self, _: FailLater, _: &mut Ctx<Self>) -> Self::Result {
        let work = tokio::time::sleep(S(1)).into_actor(self);
        Box::pin(work.map(|(), _, ctx: &mut Ctx<Self>| {
            ctx.fail("later");
            5
        }))
    }
}
impl Handler<StopSelf> for Dummy {
    type Result = ();
    fn handle(&mut self, _: StopSelf, ctx: &mut Ctx<Self>) {
        ctx.stop();
    }
}
impl Handler<CancelThenBoom> for Dummy {
    type Result = ();
    fn handle(&mut self, _: CancelThenBoom, ctx: &mut Ctx<Self>) {
        ctx.cancel_future(self.ticker.unwrap());
        panic!("boom")
    }
}
impl Handler<SpanNow> for Dummy {
    type Result = ResponseActFuture<Self, Vec<String>>;
    fn handle(&mut self, _: SpanNow, _: &mut Ctx<Self>) -> Self::Result {
        let now = || tracing::Span::current().metadata().map_or("-", |m| m.name()).to_owned();
        let before = now();
        Box::pin(tokio::time::sleep(S(1)).into_actor(self).map(move |(), _, _| vec![before, now()]))
    }
}
impl Handler<Unlisted> for Dummy {
    type Result = ();
    fn handle(&mut self, _: Unlisted, _: &mut Ctx<Self>) {}
}
impl Handler<Inspect> for Dummy {
    type Result = MessageResult<Inspect>;
    fn handle(&mut self, _: Inspect, ctx: &mut Ctx<Self>) -> Self::Result {
        MessageResult(serde_json::json!({ "name": ctx.name(), "n": self.n }))
    }
}

/// Runs `f` on an actix system whose clock only moves when nothing else can.
pub(crate) fn paused<T>(f: impl Future<Output = T>) -> T {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    System::with_tokio_rt(runtime).block_on(f)
}

pub(crate) fn config() -> TreeConfig {
    TreeConfig {
        node: "test".into(),
        placement: Placement::Here,
        backoff: Backoff { first: S(1), cap: S(60), max_failures: 8, window: S(3600) },
        heartbeat: S(5),
        silence_limit: S(15),
        probe_timeout: S(1),
        monitor_period: S(1),
        jitter: 0.0,
        seed: Some(1),
    }
}
pub(crate) fn spec(name: &'static str) -> ChildSpec {
    ChildSpec { name, mailbox: 4, after: &[], drain: S(30) }
}

/// A tree on this thread, its registry, and a handle to each dummy.
pub(crate) struct Node {
    pub(crate) registry: Registry,
    pub(crate) tree: Tree,
    pub(crate) view: TreeView,
    pub(crate) journal: Journal,
}
impl Node {
    pub(crate) fn new() -> Self {
        Self::with(config())
    }
    pub(crate) fn with(cfg: TreeConfig) -> Self {
        let registry = Registry::new();
        let tree = Tree::here(cfg, RuntimeMetrics::register(&registry).unwrap());
        Node { view: tree.view(), registry, tree, journal: Journal::default() }
    }
    /// Starts a dummy that `make` builds; it is told how many there were before.
    pub(crate) fn add(
        &mut self,
        spec: ChildSpec,
        mut make: impl FnMut(u32) -> Dummy + Send + 'static,
    ) -> Handle<Dummy> {
        let (handle, seat) = self.tree.declare::<Dummy>(spec);
        let (mut lives, journal) = (0, self.journal.clone());
        let factory = move |ctx: &mut Ctx<Dummy>| {
            lives += 1;
            let mut dummy = make(lives - 1);
            (dummy.name, dummy.journal) = (ctx.name(), journal.clone());
            dummy
        };
        self.tree.start(seat, factory).unwrap();
        handle
    }
    pub(crate) fn dummy(&mut self, name: &'static str) -> Handle<Dummy> {
        self.add(spec(name), |_| Dummy::default())
    }
    /// Runs the tree in the background. Send, or drop, the first to stop it; await the second for its exit.
    pub(crate) fn run(self) -> (oneshot::Sender<()>, tokio::task::JoinHandle<Exit>) {
        let (stop, stopped) = oneshot::channel();
        let run = self.tree.run(async {
            let _ = stopped.await;
        });
        (stop, tokio::task::spawn_local(run))
    }
}

/// The value of the series `name{labels}`, labels in the registry's (alphabetical) order; histograms give their count.
pub(crate) fn sample(registry: &Registry, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let families = registry.gather();
    let family = families.iter().find(|f| f.name() == name)?;
    let wanted = |m: &&prometheus::proto::Metric| {
        labels.iter().all(|(k, v)| m.get_label().iter().any(|l| l.name() == *k && l.value() == *v))
    };
    let metric = family.get_metric().iter().find(wanted)?;
    Some(match family.get_field_type() {
        prometheus::proto::MetricType::COUNTER => metric.get_counter().get_value(),
        prometheus::proto::MetricType::GAUGE => metric.get_gauge().get_value(),
        _ => metric.get_histogram().get_sample_count() as f64,
    })
}
/// `compute_actor_messages_total` of one actor.
pub(crate) fn messages(registry: &Registry, actor: &str, message: &str, outcome: &str) -> u64 {
    let labels = [("actor", actor), ("message", message), ("outcome", outcome)];
    sample(registry, "compute_actor_messages_total", &labels).expect("the series exists") as u64
}
