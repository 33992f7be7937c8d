//! Looking at a node from outside while something is wrong with it: asks to its actors, and its pages over HTTP.

use compute_subnet::runtime::{AskError, State, TreeView};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::runtime::Runtime;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How often each actor is asked.
const PERIOD: Duration = Duration::from_millis(50);
/// No answer may take longer: far more than a busy machine needs, and less than the fault that is looked at lasts
/// (`supervision.silence_limit`), so that whoever waits for its end is found.
const LIMIT: Duration = Duration::from_secs(2);
/// No wait reaches this unless something is wrong.
pub(crate) const LONG: Duration = Duration::from_secs(60);

/// How one actor answered while it was watched.
#[derive(Debug)]
pub(crate) struct Answers {
    pub(crate) actor: String,
    pub(crate) answered: u32,
    pub(crate) worst: Duration,
    /// Every ask without an answer within [`LIMIT`].
    pub(crate) failed: Vec<String>,
}

/// Asks actors every 50 ms, each on a task of its own so that none waits for another, until it is told to end.
pub(crate) struct Watch {
    end: watch::Sender<bool>,
    tasks: Vec<JoinHandle<Answers>>,
}

impl Watch {
    pub(crate) fn nobody() -> Self {
        Watch { end: watch::Sender::new(false), tasks: Vec::new() }
    }

    /// Also watches every actor of `view` but `victim`.
    pub(crate) fn and(mut self, runtime: &Runtime, node: &'static str, view: &TreeView, victim: Option<&str>) -> Self {
        for actor in view.names().into_iter().filter(|name| Some(*name) != victim) {
            self.tasks.push(runtime.spawn(ask(node, actor, view.clone(), self.end.subscribe())));
        }
        self
    }

    /// The answers of everybody.
    pub(crate) async fn end(self) -> Vec<Answers> {
        self.end.send_replace(true);
        let mut all = Vec::new();
        for task in self.tasks {
            all.push(task.await.unwrap());
        }
        all
    }
}

/// Asks one actor. A node that stops refuses asks: from then on there is nothing to measure, and the first refusal by
/// an actor that drains or has ended is the end. Every ask before it counts, whatever becomes of it.
async fn ask(node: &'static str, actor: &'static str, view: TreeView, mut end: watch::Receiver<bool>) -> Answers {
    let mut seen = Answers { actor: format!("{node}/{actor}"), answered: 0, worst: Duration::ZERO, failed: Vec::new() };
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            _ = end.wait_for(|end| *end) => return seen,
        }
        let asked = Instant::now();
        let answer = view.inspect(actor, LIMIT).await;
        seen.worst = seen.worst.max(asked.elapsed());
        match answer {
            Ok(_) => seen.answered += 1,
            Err(AskError::Gone) if matches!(view.state(actor), Some(State::Draining | State::Stopped)) => return seen,
            Err(error) => seen.failed.push(format!("{error} after {:?}", asked.elapsed())),
        }
    }
}

/// Everybody answered, every time, within [`LIMIT`]. Returns the one whose answer took longest.
pub(crate) fn assert_all_answered<'a>(context: &str, answers: &'a [Answers]) -> &'a Answers {
    for seen in answers {
        assert!(seen.failed.is_empty(), "{context}: {} did not answer: {:?}", seen.actor, seen.failed);
        assert!(seen.answered > 0, "{context}: {} was never asked", seen.actor);
    }
    answers.iter().max_by_key(|seen| seen.worst).expect("somebody was watched")
}

/// Calls `look` until it finds something, at most for `limit`.
pub(crate) async fn until<T>(limit: Duration, mut look: impl AsyncFnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + limit;
    loop {
        if let Some(found) = look().await {
            return Some(found);
        }
        if Instant::now() >= until {
            return None;
        }
        sleep(Duration::from_millis(20)).await;
    }
}

/// A node's pages. Every request is a connection of its own.
#[derive(Clone)]
pub(crate) struct Pages {
    client: reqwest::Client,
    at: SocketAddr,
}

impl Pages {
    pub(crate) fn of(at: SocketAddr) -> Self {
        let client = reqwest::Client::builder().pool_max_idle_per_host(0).timeout(Duration::from_secs(5));
        Pages { client: client.build().unwrap(), at }
    }

    /// The page, if it is served and fine.
    pub(crate) async fn get(&self, path: &str) -> Option<String> {
        let reply = self.client.get(format!("http://{}{path}", self.at)).send().await.ok()?;
        if reply.status().is_success() { reply.text().await.ok() } else { None }
    }

    /// The page, however its node is.
    pub(crate) async fn text(&self, path: &str) -> Option<String> {
        self.client.get(format!("http://{}{path}", self.at)).send().await.ok()?.text().await.ok()
    }

    pub(crate) async fn metrics(&self) -> Option<Metrics> {
        let text = self.get("/metrics").await?;
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (series, value) = line.rsplit_once(' ').unwrap();
            (series.to_owned(), value.parse().unwrap())
        };
        Some(Metrics(samples.map(sample).collect()))
    }
}

/// One scrape: values by series.
#[derive(Debug, PartialEq)]
pub(crate) struct Metrics(BTreeMap<String, f64>);

impl Metrics {
    pub(crate) fn state(&self, actor: &str) -> Option<State> {
        let at = |s: &State| self.0[&format!("compute_actor_state{{actor=\"{actor}\",state=\"{s}\"}}")];
        let mut now = State::ALL.into_iter().filter(|s| at(s) == 1.0);
        let state = now.next();
        // Between two gauges' updates a scrape may see none or two.
        if now.next().is_none() { state } else { None }
    }
    pub(crate) fn heartbeat_age(&self, actor: &str) -> Duration {
        Duration::from_secs_f64(self.0[&format!("compute_actor_heartbeat_age_seconds{{actor=\"{actor}\"}}")])
    }
    /// One series, or the sum of all of its name.
    pub(crate) fn sum(&self, name: &str) -> f64 {
        let of = |series: &&String| series.as_str() == name || series.starts_with(&format!("{name}{{"));
        self.0.keys().filter(of).map(|series| self.0[series]).sum()
    }
    /// Every actor's restarts by cause.
    pub(crate) fn restarts(&self) -> BTreeMap<String, u64> {
        let all = self.0.iter().filter(|(series, _)| series.starts_with("compute_actor_restarts_total{"));
        all.map(|(series, n)| (series.clone(), *n as u64)).collect()
    }
}

pub(crate) fn restart_series(actor: &str, cause: &str) -> String {
    format!("compute_actor_restarts_total{{actor=\"{actor}\",cause=\"{cause}\"}}")
}
