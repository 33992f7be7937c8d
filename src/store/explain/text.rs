//! The text of an [`Explanation`] for a terminal.

use std::borrow::Cow;
use std::fmt::{self, Write};
use std::time::{Duration, UNIX_EPOCH};

use super::Explanation;
use crate::ids::Epoch;
use crate::scoring::history::ENOUGH_RATES;
use crate::scoring::{JudgedRate, decimal};
use crate::verdict::Side;

impl Explanation {
    /// Whether this node has anything at all to say about the hotkey.
    pub fn is_empty(&self) -> bool {
        self.uid.is_none() && self.score.is_none() && self.verdicts.is_empty() && self.leases.is_empty()
    }

    /// The text for a terminal, without colours, ending in a line feed.
    pub fn to_text(&self) -> String {
        let mut out = String::new();
        // Writing to a String cannot fail.
        let _ = self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) -> fmt::Result {
        self.write_head(out)?;
        if self.is_empty() {
            return writeln!(out, "\nNothing is known about this hotkey: this node has never seen it registered.");
        }
        self.write_admission(out)?;
        self.write_score(out)?;
        self.write_verdicts(out)?;
        self.write_leases(out)?;
        self.write_weights(out)
    }

    fn write_head(&self, out: &mut String) -> fmt::Result {
        writeln!(out, "hotkey   {}", self.hotkey)?;
        if let Some(uid) = self.uid {
            let seen = self.last_seen_block.map(|b| format!(", seen at block {b}")).unwrap_or_default();
            writeln!(out, "uid      {uid}{seen}")?;
        }
        if let Some(coldkey) = self.coldkey {
            writeln!(out, "coldkey  {coldkey}")?;
        }
        Ok(())
    }

    fn write_admission(&self, out: &mut String) -> fmt::Result {
        match &self.admission {
            None => {}
            Some(a) if a.admitted => writeln!(out, "admitted {} ({})", plain(&a.text), plain(&a.reason))?,
            Some(a) => {
                writeln!(out, "\nNot admitted: {} ({})", plain(&a.text), plain(&a.reason))?;
                remedy(out, "  ", &a.remedy)?;
            }
        }
        for p in &self.penalties {
            let detail = if p.detail.is_empty() { String::new() } else { format!(": {}", plain(&p.detail)) };
            let left = Duration::from_secs(p.until_ms.saturating_sub(self.at_ms) / 1000);
            writeln!(
                out,
                "\nPenalised for {}{detail}\n  until {} ({} left)",
                plain(&p.reason),
                time(p.until_ms),
                humantime::format_duration(left)
            )?;
        }
        Ok(())
    }

    fn write_score(&self, out: &mut String) -> fmt::Result {
        let Some(view) = &self.score else {
            return writeln!(out, "\nNo score yet.");
        };
        let parts = &view.parts;
        writeln!(out, "\nScore {} in epoch {}", view.score, view.epoch)?;
        if parts.devices.is_empty() {
            writeln!(out, "  no device was judged")?;
        }
        let mut sum = 0u128;
        for d in &parts.devices {
            let model = if d.model.is_empty() { "unknown model".into() } else { plain(&d.model) };
            write!(out, "  {}  {model}: ", d.device)?;
            if d.verdict != "pass" {
                write!(out, "{} {}, ", plain(&d.verdict), plain(&d.reason))?;
                if d.credit == 0 {
                    writeln!(out, "0")?;
                    continue;
                }
            }
            write!(out, "base {} × ", decimal(d.base_micro.into(), 6, 4))?;
            match (d.rate, d.nominal) {
                (Some(rate), Some(nominal)) => write!(out, "min(1, {} / {})", ops(rate), ops(nominal))?,
                _ => write!(out, "{}", decimal(d.factor_ppb.into(), 9, 4))?,
            }
            write!(out, " = {}", decimal(d.credit.into(), 15, 4))?;
            if d.counted {
                sum += u128::from(d.credit);
                writeln!(out)?;
            } else {
                writeln!(out, ", not counted: only the best {} are", parts.scaling.max_devices)?;
            }
            if let Some(judged) = &d.judged {
                writeln!(out, "    {}", rate_text(judged))?;
            }
        }
        writeln!(
            out,
            "  sum {} × {} = {}\n  allocated bonus {}\n  total {}",
            decimal(sum, 15, 4),
            parts.scaling,
            parts.gpu,
            parts.bonus,
            parts.total
        )?;
        parts.notes.iter().try_for_each(|note| writeln!(out, "  note: {}", plain(note)))
    }

    fn write_verdicts(&self, out: &mut String) -> fmt::Result {
        let Some(newest) = self.verdicts.first().map(|v| v.epoch) else {
            return writeln!(out, "\nNo verdicts yet.");
        };
        writeln!(out, "\nVerdicts of epoch {newest}")?;
        for v in self.verdicts.iter().filter(|v| v.epoch == newest) {
            let device = v.device.as_deref().unwrap_or("whole miner");
            match &v.evidence {
                Some(e) => writeln!(
                    out,
                    "  {device}: pass, {} operations in {} s ({}), {} samples checked",
                    e.operations,
                    decimal(e.elapsed_ns.into(), 9, 3),
                    ops(e.rate()),
                    e.samples
                )?,
                None => {
                    writeln!(out, "  {device}: {} {}: {}", v.verdict, v.reason, v.text)?;
                    if !v.detail.is_empty() {
                        writeln!(out, "    seen: {}", plain(&v.detail))?;
                    }
                    if let Some(side) = v.side {
                        writeln!(
                            out,
                            "    side: {}; an unknown pays nothing for its epoch and is no penalty",
                            side_text(side)
                        )?;
                    }
                    remedy(out, "    ", &v.remedy)?;
                }
            }
        }
        self.write_history(out, newest)
    }

    /// One line for each earlier epoch.
    fn write_history(&self, out: &mut String, newest: Epoch) -> fmt::Result {
        let mut epochs: Vec<Epoch> = self.verdicts.iter().map(|v| v.epoch).filter(|e| *e != newest).collect();
        epochs.dedup();
        for epoch in epochs.into_iter().take(8) {
            let of: Vec<String> = self
                .verdicts
                .iter()
                .filter(|v| v.epoch == epoch)
                .map(|v| {
                    let device = v.device.as_deref().unwrap_or("whole miner");
                    if v.verdict == "pass" {
                        format!("{device} pass")
                    } else {
                        format!("{device} {} {}", v.verdict, v.reason)
                    }
                })
                .collect();
            writeln!(out, "  epoch {epoch}: {}", of.join(", "))?;
        }
        Ok(())
    }

    fn write_leases(&self, out: &mut String) -> fmt::Result {
        if self.leases.is_empty() {
            return Ok(());
        }
        writeln!(out, "\nLeases")?;
        for l in &self.leases {
            let when = if l.live {
                format!("until {}", time(l.expires_at_ms))
            } else {
                format!("since {}", time(l.updated_ms))
            };
            writeln!(out, "  {} {} {when}, {}, renter {}", l.id, plain(&l.state), l.devices.join(" "), l.renter)?;
        }
        Ok(())
    }

    fn write_weights(&self, out: &mut String) -> fmt::Result {
        match &self.weights {
            None => writeln!(out, "\nThis node has not set weights yet.")?,
            Some(w) => {
                let at = w.included_block.map_or_else(|| "an unknown block".to_owned(), |b| format!("block {b}"));
                writeln!(
                    out,
                    "\nWeight {} of 65535 ({:.2} % of {} entries) for epoch {}, on chain since {at}",
                    w.weight,
                    w.share * 100.0,
                    w.entries,
                    w.epoch
                )?;
            }
        }
        if let Some(w) = &self.attempt {
            let detail = if w.detail.is_empty() { String::new() } else { format!(": {}", plain(&w.detail)) };
            writeln!(
                out,
                "Weight {} for epoch {} was made at block {}, {}{detail}",
                w.weight,
                w.epoch,
                w.block,
                w.status.label()
            )?;
        }
        Ok(())
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_text())
    }
}

fn remedy(out: &mut String, indent: &str, text: &str) -> fmt::Result {
    if text.is_empty() { Ok(()) } else { writeln!(out, "{indent}remedy: {}", plain(text)) }
}

/// Text that peers may have had a hand in, on one line and without control characters: what is printed here must not move
/// the cursor, change colours or look like another line.
fn plain(text: &str) -> Cow<'_, str> {
    if text.chars().any(char::is_control) {
        text.chars().map(|c| if c.is_control() { '\u{FFFD}' } else { c }).collect::<String>().into()
    } else {
        text.into()
    }
}

fn side_text(side: Side) -> &'static str {
    match side {
        Side::Miner => "miner",
        Side::Validator => "validator",
        Side::Network => "network",
    }
}

fn time(ms: u64) -> String {
    let at = UNIX_EPOCH + Duration::from_millis(ms.min(253_402_300_799_000));
    humantime::format_rfc3339_seconds(at).to_string()
}

/// Why this rate and not another.
fn rate_text(rate: &JudgedRate) -> String {
    let JudgedRate { paid, present, median, of, .. } = *rate;
    if of == 1 {
        return format!("rate {}: the first under this claim", ops(paid));
    }
    let which = match paid {
        paid if paid == present && paid == median => "as the median",
        paid if paid == median => "paid by the median",
        _ if (of as usize) < ENOUGH_RATES => "paid by the lower of both, while there are few",
        _ => "paid as it is, far below the median",
    };
    format!("rate {} this epoch, {} the median of the last {of}: {which}", ops(present), ops(median))
}

/// A rate with a decimal prefix.
pub(super) fn ops(rate: u64) -> String {
    const PREFIXES: [(u32, &str); 5] = [(15, "P"), (12, "T"), (9, "G"), (6, "M"), (3, "k")];
    match PREFIXES.iter().find(|(digits, _)| rate >= 10u64.pow(*digits)) {
        Some((digits, prefix)) => format!("{} {prefix}op/s", decimal(rate.into(), *digits, 3)),
        None => format!("{rate} op/s"),
    }
}
