//! Draws the devnet's table: over and over in place on a terminal, once an epoch elsewhere.

use std::io::{IsTerminal as _, Write as _};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, interval};

use super::table::{Table, TableSource};
use crate::ids::Epoch;

/// How often the table is read, and drawn on a terminal.
const REDRAW: Duration = Duration::from_millis(500);

/// A line for people, on standard output. A closed pipe is no reason to stop.
pub fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

/// Columns and rows of the terminal on standard output, if it is one that tells.
fn size() -> Option<(usize, usize)> {
    let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok()?;
    (size.ws_col > 0 && size.ws_row > 0).then_some((size.ws_col.into(), size.ws_row.into()))
}

/// The text cut to the terminal, so that no line wraps and the cursor finds back to the first one.
fn fit(text: &str, (columns, rows): (usize, usize)) -> Vec<String> {
    let mut lines: Vec<String> = text.lines().map(|l| l.chars().take(columns.saturating_sub(1)).collect()).collect();
    let room = rows.saturating_sub(1).max(1);
    if lines.len() > room {
        let hidden = lines.len() - room + 1;
        lines.truncate(room - 1);
        lines.push(format!("… {hidden} more rows; a taller terminal shows them"));
    }
    lines
}

/// Shows the table, and sets `enough` once the weights of `epochs` epochs are on chain.
pub async fn show(source: TableSource, epochs: Option<u64>, enough: watch::Sender<bool>, begun: Instant) {
    let terminal = std::io::stdout().is_terminal();
    let mut tick = interval(REDRAW);
    let mut drawn = 0;
    let mut shown: Option<Epoch> = None;
    // A continued devnet begins with the weights of its last run; only those set from now on count.
    let mut last: Option<Option<Epoch>> = None;
    let mut set = 0;
    loop {
        tick.tick().await;
        // A validator that does not answer is being started.
        let Some(table) = source.read().await else { continue };
        let last = last.get_or_insert(table.on_chain);
        let complete = table.on_chain.is_some() && table.on_chain == table.epoch && table.on_chain != shown;
        if terminal {
            let lines = fit(&table.render(), size().unwrap_or((100, 40)));
            let back = if drawn == 0 { String::new() } else { format!("\r\x1b[{drawn}A\x1b[J") };
            say(&format!("{back}{}", lines.join("\n")));
            drawn = lines.len();
        } else if complete {
            say(&later(begun, &table));
        }
        if complete {
            shown = table.on_chain;
        }
        if table.on_chain > *last {
            (*last, set) = (table.on_chain, set + 1);
        }
        if epochs.is_some_and(|wanted| set >= wanted) {
            enough.send_replace(true);
            return;
        }
    }
}

fn later(begun: Instant, table: &Table) -> String {
    format!("\n{:.1} s after the start:\n{}", begun.elapsed().as_secs_f64(), table.render().trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_never_outgrows_the_terminal() {
        let text = "aaaa\nbbbbbbbb\nc\nd\ne";
        assert_eq!(fit(text, (5, 40)), ["aaaa", "bbbb", "c", "d", "e"]);
        assert_eq!(fit(text, (80, 4)), ["aaaa", "bbbbbbbb", "… 3 more rows; a taller terminal shows them"]);
        assert_eq!(fit(text, (80, 1)).len(), 1);
    }
}
