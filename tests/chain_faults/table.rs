//! The table of faults: each row is run, measured and printed, and is in `docs/chain.md` word for word.

use std::collections::BTreeMap;
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::bench::{D, PAUSE, S, SLACK, SUBMIT, chain};
use crate::{calls, endpoints, submissions};

/// Rows that run at a time: their deadlines are short.
const AT_ONCE: usize = 4;

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
        D * self.answers + S * self.stalls + PAUSE * self.pauses + SUBMIT * self.submits
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

type Run = Box<dyn FnOnce() -> Pin<Box<dyn Future<Output = Duration> + Send>> + Send>;

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
        run: impl FnOnce() -> F + Send + 'static,
    ) -> Self {
        Row { name, does, noticed, bound, run: Box::new(move || Box::pin(run())) }
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
    let only = std::env::var("COMPUTE_TEST_FAULT").ok();
    let (gate, mut running) = (Arc::new(Semaphore::new(AT_ONCE)), JoinSet::new());
    let mut told = Vec::new();
    let mut names = BTreeMap::new();
    for (place, row) in
        rows().into_iter().enumerate().filter(|(_, row)| only.as_ref().is_none_or(|o| row.name.contains(o.as_str())))
    {
        let (gate, run) = (gate.clone(), row.run);
        let task = running.spawn(async move {
            let _turn = gate.acquire_owned().await.unwrap();
            (place, run().await)
        });
        names.insert(task.id(), row.name);
        told.push((place, row.name, row.bound));
    }
    let (mut measured, mut failed) = (BTreeMap::new(), Vec::new());
    while let Some(ended) = running.join_next_with_id().await {
        match ended {
            Ok((_, (place, took))) => drop(measured.insert(place, took)),
            Err(error) => failed.push(format!("{}: {error}", names[&error.id()])),
        }
    }
    println!("answer: {D:?}, stall: {S:?}, pause: {PAUSE:?}, submit: {SUBMIT:?}");
    println!("{:<42} {:<24} {:>9} {:>9}", "fault", "bound", "at most", "took");
    for (place, name, bound) in told {
        let took = measured.get(&place);
        let shown = took.map_or("FAILED".to_owned(), |t| format!("{} ms", t.as_millis()));
        println!("{name:<42} {:<24} {:>6} ms {shown:>9}", bound.to_string(), bound.time().as_millis());
        if let Some(took) = took.filter(|took| **took > bound.time() + SLACK) {
            failed.push(format!("{name}: whole after {took:?}, which is more than {bound}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
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
