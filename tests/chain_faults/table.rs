//! The table of faults: each row is run, measured and printed, and is in `docs/chain.md` word for word.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::bench::{PATIENCE, answer, chain, pause, slack, stall, submit_limit};
use crate::{calls, endpoints, submissions};

/// Rows that run at a time: their deadlines are short.
const AT_ONCE: usize = 3;
/// So many times the time for a row that is run again.
const AGAIN: u32 = 4;

/// How long something may take, in the settings' own measures.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bound {
    /// `subtensor.request_timeout`.
    pub(crate) answers: u32,
    /// A minute in a node: the time that a head may stand still.
    pub(crate) stalls: u32,
    /// Half a minute in a node: the longest pause between two rounds of endpoints.
    pub(crate) pauses: u32,
    /// `weights.confirm_timeout`.
    pub(crate) submits: u32,
}

/// So many deadlines of an answer.
pub(crate) const fn answers(answers: u32) -> Bound {
    Bound { answers, stalls: 0, pauses: 0, submits: 0 }
}

impl Bound {
    pub(crate) const fn stall(self) -> Self {
        Bound { stalls: 1, ..self }
    }
    pub(crate) const fn pause(self) -> Self {
        Bound { pauses: 1, ..self }
    }
    pub(crate) const fn submit(self) -> Self {
        Bound { submits: 1, ..self }
    }
    fn time(self) -> Duration {
        answer() * self.answers + stall() * self.stalls + pause() * self.pauses + submit_limit() * self.submits
    }
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [(self.submits, "submit"), (self.stalls, "stall"), (self.pauses, "pause"), (self.answers, "answer")];
        let parts: Vec<String> = parts.iter().filter(|(n, _)| *n > 0).map(|(n, of)| format!("{n} {of}")).collect();
        f.write_str(&if parts.is_empty() { "at once".to_owned() } else { parts.join(" + ") })
    }
}

type Run = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Duration> + Send>> + Send + Sync>;

/// A fault.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    /// What it does.
    pub(crate) does: &'static str,
    /// How it is noticed, and what is done.
    pub(crate) noticed: &'static str,
    /// Until the client is whole again.
    pub(crate) bound: Bound,
    run: Run,
}

impl Row {
    /// `run` brings the fault about, checks what the client does, and says how long it was not whole.
    pub(crate) fn new<F: Future<Output = Duration> + Send + 'static>(
        name: &'static str,
        does: &'static str,
        noticed: &'static str,
        bound: Bound,
        run: impl Fn() -> F + Send + Sync + 'static,
    ) -> Self {
        Row { name, does, noticed, bound, run: Arc::new(move || Box::pin(run())) }
    }

    /// What it took, if that is within the bound.
    fn within(&self, took: Result<Duration, String>) -> Result<Duration, String> {
        match took? {
            took if took > self.bound.time() + slack() => {
                Err(format!("whole after {took:?}, later than {}", self.bound))
            }
            took => Ok(took),
        }
    }

    /// The row as `docs/chain.md` has it, but for what was measured.
    fn documented(&self) -> String {
        format!("| {} | {} | {} | {} |", self.name, self.does, self.noticed, self.bound)
    }
}

fn rows() -> Vec<Row> {
    [endpoints::rows(), calls::rows(), submissions::rows()].into_iter().flatten().collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_fault_is_noticed_and_overcome_within_its_bound() {
    if chain().is_none() {
        return;
    }
    let only = std::env::var("COMPUTE_TEST_FAULT").unwrap_or_default();
    let rows: Vec<Row> = rows().into_iter().filter(|row| row.name.contains(&only)).collect();
    let (gate, mut running) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    for (place, row) in rows.iter().enumerate() {
        let (gate, run) = (gate.clone(), row.run.clone());
        running.spawn(async move {
            let _turn = gate.acquire_owned().await.unwrap();
            (place, took(&run, row_limit()).await)
        });
    }
    let mut measured = BTreeMap::new();
    while let Some(ended) = running.join_next().await {
        let (place, took) = ended.unwrap();
        measured.insert(place, took);
    }
    println!("answer: {:?}, stall: {:?}, pause: {:?}, submit: {:?}", answer(), stall(), pause(), submit_limit());
    println!("{:<42} {:<24} {:>9} {:>9}", "fault", "bound", "at most", "took");
    let mut failed = Vec::new();
    for (place, row) in rows.iter().enumerate() {
        let line = |took: Duration, more: &str| {
            let (name, bound, most) = (row.name, row.bound.to_string(), row.bound.time().as_millis());
            println!("{name:<42} {bound:<24} {most:>6} ms {:>6} ms{more}", took.as_millis());
        };
        let first = measured.remove(&place).unwrap();
        match row.within(first) {
            Ok(took) => line(took, ""),
            // Deadlines of less than a second can pass because the machine has other work. Alone and with more time the
            // same must hold; what is wrong with the client fails again.
            Err(why) => {
                println!("{}: again, alone, with {AGAIN} times the time, for {why}", row.name);
                PATIENCE.store(AGAIN, Ordering::SeqCst);
                match row.within(took(&row.run, row_limit()).await) {
                    Ok(took) => line(took, ", the second time"),
                    Err(why) => failed.push(format!("{}: {why}", row.name)),
                }
                PATIENCE.store(1, Ordering::SeqCst);
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// No row takes longer, whatever happens.
fn row_limit() -> Duration {
    stall() * 40
}

/// What a row measured, or how it failed.
async fn took(run: &Run, limit: Duration) -> Result<Duration, String> {
    let task = tokio::spawn(run());
    match tokio::time::timeout(limit, task).await {
        Ok(Ok(took)) => Ok(took),
        Ok(Err(failed)) => Err(failed.to_string().chars().take(300).collect()),
        Err(_) => Err(format!("it hangs: more than {limit:?}")),
    }
}

#[test]
fn the_table_of_the_operators_document_is_this_one() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/chain.md");
    let document = std::fs::read_to_string(path).unwrap();
    let table: Vec<&str> = document.lines().skip_while(|line| *line != "<!-- faults -->").skip(4).collect();
    let rows: Vec<String> = rows().iter().map(Row::documented).collect();
    for (nth, row) in rows.iter().enumerate() {
        // The last cell is what was measured once.
        let measured = table.get(nth).and_then(|line| line.strip_prefix(row.as_str()));
        let is_time = measured.is_some_and(|cell| cell.trim_end_matches(" |").ends_with(" ms"));
        assert!(is_time, "docs/chain.md: the rows should be, each with a time,\n{}", rows.join("\n"));
    }
    assert_eq!(table.get(rows.len()).copied().unwrap_or_default(), "", "docs/chain.md has rows that nobody checks");
}
