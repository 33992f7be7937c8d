//! The reading side: every record in order, and for everything that is wrong where exactly.
//!
//! Each line is checked by itself (form, canonical text), against the one before (hash, number) and, for a seal, against the
//! validator's key. After a problem the reader finds its way back into the chain where it can, so that two damaged places
//! are two problems and not everything after the first.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::fmt;
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{FORMAT, Head, Kind, canon, chain, segment_name, segments};
use crate::ids::{Hash32, Hotkey};

/// Digits of a hash, at the beginning of each line.
const DIGITS: usize = 64;

/// A record and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Located {
    /// The segment's number.
    pub segment: u64,
    /// The line in it, from 1.
    pub line: u64,
    /// The line's bytes in the segment, its end included.
    pub bytes: Range<u64>,
    /// The record's number in the log, from 0.
    pub seq: u64,
    /// When it was written, in milliseconds since the Unix epoch, by the validator's clock.
    pub at_ms: u64,
    /// What it is about.
    pub kind: String,
    /// What it says.
    pub body: Value,
    /// Its hash.
    pub hash: Hash32,
}

impl Located {
    /// The epoch it speaks of, if it does.
    pub fn epoch(&self) -> Option<u64> {
        self.body.get("epoch").and_then(Value::as_u64)
    }

    /// The validator that it names, if it is a segment's first record.
    pub fn hotkey(&self) -> Option<Hotkey> {
        (self.kind == Kind::Segment.label()).then(|| self.body.get("hotkey")?.as_str()?.parse().ok())?
    }

    fn problem(&self, fault: Fault) -> Problem {
        let Located { segment, line, seq, .. } = *self;
        let (bytes, kind) = (self.bytes.clone(), Some(self.kind.clone()));
        Problem { segment, line, bytes, seq: Some(seq), kind, epoch: self.epoch(), fault }
    }
}

/// What is wrong with a place in the log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The segment's bytes cannot be had.
    #[error("the segment cannot be read: {0}")]
    Unreadable(String),
    /// Segments between two others are gone.
    #[error("the segments from {from} to {to} are missing")]
    MissingSegments {
        /// The first that is missing.
        from: u64,
        /// The last that is missing.
        to: u64,
    },
    /// The last line has no end.
    #[error("the line has no end: the segment was cut off here, or its last byte was changed")]
    NotTerminated,
    /// The line is no record.
    #[error("the line is no record: {0}")]
    NotARecord(String),
    /// The text is JSON, but not in its canonical form.
    #[error("the text is not in canonical form")]
    NotCanonical,
    /// The hash is not that of this text after the record before.
    #[error(
        "the hash does not follow from the text and the record before: {recorded} is written, {computed} follows{note}"
    )]
    WrongHash {
        /// The hash as written.
        recorded: Hash32,
        /// The hash as it should be.
        computed: Hash32,
        /// What else can be said.
        note: String,
    },
    /// The record's number is not the next one.
    #[error("the record's number is {found}, expected {expected}")]
    WrongSeq {
        /// The next number.
        expected: u64,
        /// The number found.
        found: u64,
    },
    /// The segment does not begin as a segment must.
    #[error("the segment does not begin as it must: {0}")]
    WrongHeader(String),
    /// A header inside a segment.
    #[error("a segment's first record in the middle of a segment")]
    StrayHeader,
    /// The segment does not follow from the one before.
    #[error("the segment follows record {found}, but the segment before ends with another")]
    WrongLink {
        /// The hash that the header names.
        found: Hash32,
    },
    /// The validator itself says that the log was damaged before this segment.
    #[error("the validator continued a damaged log here and says of the damage: {0}")]
    DeclaredBreak(String),
    /// A seal is not the validator's over the record before.
    #[error("the seal is not the validator's signature over the record before")]
    WrongSeal,
    /// Weights that are followed by something else than their seal.
    #[error("the weights are not followed by their seal: nobody vouches for them")]
    Unsealed,
    /// The segment is another validator's.
    #[error("the segment is of the validator {found}, expected {expected}")]
    WrongHotkey {
        /// Who was demanded, or wrote the segment before.
        expected: Hotkey,
        /// Who its header names.
        found: Hotkey,
    },
    /// The log ends before what the database knows.
    #[error("the log ends before record {seq} {hash}, which the database knows: its end was cut off or replaced")]
    EndsEarly {
        /// The record's number.
        seq: u64,
        /// Its hash.
        hash: Hash32,
    },
}

/// Something wrong, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The segment's number.
    pub segment: u64,
    /// The line in it, from 1; 0 for the segment as a whole.
    pub line: u64,
    /// The bytes in the segment within which it lies.
    pub bytes: Range<u64>,
    /// The number of the record, as far as it can be read.
    pub seq: Option<u64>,
    /// Its kind, as far as it can be read.
    pub kind: Option<String>,
    /// Its epoch, as far as it can be read.
    pub epoch: Option<u64>,
    /// What is wrong.
    pub fault: Fault,
}

impl Problem {
    fn of_segment(segment: u64, fault: Fault) -> Self {
        Problem { segment, line: 0, bytes: 0..0, seq: None, kind: None, epoch: None, fault }
    }

    /// Whether the validator said of it itself.
    pub fn is_declared(&self) -> bool {
        matches!(self.fault, Fault::DeclaredBreak(_))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", segment_name(self.segment))?;
        if self.line > 0 {
            write!(f, ", line {}, bytes {} to {}", self.line, self.bytes.start, self.bytes.end)?;
        }
        if let Some(seq) = self.seq {
            write!(f, ", record {seq}")?;
        }
        if let Some(kind) = &self.kind {
            write!(f, " ({kind}")?;
            if let Some(epoch) = self.epoch {
                write!(f, " of epoch {epoch}")?;
            }
            write!(f, ")")?;
        }
        write!(f, ": {}", self.fault)
    }
}

/// What the next record follows.
#[derive(Debug, Clone, Default)]
enum Before {
    /// Nothing is known of it: before the first segment, or behind a line that could not be read.
    #[default]
    Unknown,
    /// One of these: behind a damaged record, its hash as written and as computed.
    OneOf(Vec<Hash32>),
}

/// Where the chain stands between two lines or segments.
#[derive(Debug, Clone, Default)]
pub(super) struct Link {
    before: Before,
    /// The number of the record before, where it is known.
    seq: Option<u64>,
    /// Whether there was any record before.
    begun: bool,
    /// Whose log it is, as demanded or as the segment before says.
    hotkey: Option<Hotkey>,
    /// What is to be said of the weights before, unless their seal is next.
    unsealed: Option<Box<Problem>>,
}

/// The records of one segment.
pub(super) struct SegmentReader<'a> {
    segment: u64,
    content: Cow<'a, [u8]>,
    at: usize,
    line: u64,
    link: Link,
    hotkey: Option<Hotkey>,
    ready: VecDeque<Result<Located, Problem>>,
}

/// The parts of a line, before they are believed.
struct Line {
    seq: u64,
    at_ms: u64,
    kind: String,
    body: Value,
}

impl<'a> SegmentReader<'a> {
    /// The records in `content`. Without a `link` the segment's header is believed about what it follows.
    pub(super) fn new(segment: u64, content: impl Into<Cow<'a, [u8]>>, link: Option<Link>) -> Self {
        let link = link.unwrap_or_default();
        SegmentReader { segment, content: content.into(), at: 0, line: 0, link, hotkey: None, ready: VecDeque::new() }
    }

    /// What the next segment's first record must follow.
    pub(super) fn into_link(self) -> Link {
        self.link
    }

    fn read_line(&mut self) {
        let rest = self.content.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|b| *b == b'\n');
        let length = end.map_or(rest.len(), |end| end + 1);
        let bytes = self.at as u64..(self.at + length) as u64;
        let line = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default().to_vec();
        self.at += length;
        self.line += 1;
        let unsealed = self.link.unsealed.take();
        match self.check(&line, end.is_some(), &bytes) {
            Ok(record) => {
                if let Some(problem) = unsealed.filter(|_| record.kind != Kind::Seal.label()) {
                    self.ready.push_back(Err(*problem));
                }
                if record.kind == Kind::Weights.label() {
                    self.link.unsealed = Some(Box::new(record.problem(Fault::Unsealed)));
                }
                self.ready.push_back(Ok(record));
            }
            // The damaged line may have been the seal.
            Err(problem) => self.ready.push_back(Err(*problem)),
        }
    }

    fn check(&mut self, line: &[u8], terminated: bool, bytes: &Range<u64>) -> Result<Located, Box<Problem>> {
        let parsed = line.get(DIGITS + 1..).ok_or_else(|| Fault::NotARecord("it is too short".to_owned()));
        let parsed = parsed.and_then(parse);
        let (seq, kind, epoch) = match &parsed {
            Ok(l) => (Some(l.seq), Some(l.kind.clone()), l.body.get("epoch").and_then(Value::as_u64)),
            Err(_) => (None, None, None),
        };
        let (segment, number) = (self.segment, self.line);
        let problem = |fault| {
            Box::new(Problem { segment, line: number, bytes: bytes.clone(), seq, kind: kind.clone(), epoch, fault })
        };
        let first = self.line == 1;
        let link = std::mem::take(&mut self.link);
        self.link.begun = true;
        self.link.hotkey = link.hotkey;
        let recorded = recorded_hash(line);
        let text = line.get(DIGITS + 1..).unwrap_or_default();
        // A header names what it follows.
        let named = match &parsed {
            Ok(l) if first => l.body.get("prev").and_then(Value::as_str).and_then(|p| p.parse::<Hash32>().ok()),
            _ => None,
        };
        let candidates = match (&link.before, named) {
            (_, Some(named)) if first => vec![named],
            (Before::OneOf(hashes), _) => hashes.clone(),
            (Before::Unknown, _) => Vec::new(),
        };
        let computed: Vec<Hash32> = candidates.iter().map(|before| chain::next(before, text)).collect();
        // Behind damage the next record may follow the hash as it is written, or as it should have been.
        let after: Vec<Hash32> = recorded.iter().chain(&computed).copied().collect();
        // A line that is no record may be half of one, or two of them: nothing is known behind it.
        let known = parsed.is_ok() && !after.is_empty();
        self.link.before = if known { Before::OneOf(after) } else { Before::Unknown };
        self.link.seq = seq;
        if !terminated {
            self.link.before = Before::Unknown;
            return Err(problem(Fault::NotTerminated));
        }
        let Some(hash) = recorded else {
            let why = format!("it does not begin with {DIGITS} digits 0-9a-f and a space");
            return Err(problem(Fault::NotARecord(why)));
        };
        if let Some(expected) = computed.first()
            && !computed.contains(&hash)
        {
            let note = parsed.as_ref().err().map_or(String::new(), |fault| format!("; {fault}"));
            return Err(problem(Fault::WrongHash { recorded: hash, computed: *expected, note }));
        }
        // From here on the text is what was hashed, unless nothing is known of the record before.
        self.link.before = Before::OneOf(vec![hash]);
        let Line { seq, at_ms, kind: of_kind, body } = parsed.map_err(&problem)?;
        let expected = link.seq.map(|s| s.wrapping_add(1));
        let header = of_kind == Kind::Segment.label();
        if first {
            let hotkey = check_header(segment, seq, header, &body).map_err(&problem)?;
            self.hotkey = Some(hotkey);
            self.link.hotkey = Some(hotkey);
            if let Some(expected) = link.hotkey.filter(|expected| *expected != hotkey) {
                self.ready.push_back(Err(*problem(Fault::WrongHotkey { expected, found: hotkey })));
            }
            if let Some(said) = body.get("broken").filter(|b| !b.is_null()) {
                let why = said.get("why").and_then(Value::as_str).unwrap_or("nothing");
                self.ready.push_back(Err(*problem(Fault::DeclaredBreak(why.to_owned()))));
            } else if let (Before::OneOf(before), Some(named)) = (&link.before, named)
                && !before.contains(&named)
            {
                self.ready.push_back(Err(*problem(Fault::WrongLink { found: named })));
            } else if let Some(expected) = expected.filter(|e| *e != seq) {
                self.ready.push_back(Err(*problem(Fault::WrongSeq { expected, found: seq })));
            }
        } else if header {
            return Err(problem(Fault::StrayHeader));
        } else if let Some(expected) = expected.filter(|e| *e != seq) {
            return Err(problem(Fault::WrongSeq { expected, found: seq }));
        }
        if of_kind == Kind::Seal.label() {
            let (before, hotkey) = (link.single(), self.hotkey);
            // Behind damage there is nothing to hold the seal against; the damage itself was told.
            if let (Some((seq, before)), Some(hotkey)) = (before, hotkey)
                && !chain::seal_holds(&body, &hotkey, seq, &before)
            {
                return Err(problem(Fault::WrongSeal));
            }
        }
        Ok(Located { segment, line: number, bytes: bytes.clone(), seq, at_ms, kind: of_kind, body, hash })
    }
}

impl Link {
    /// The record before, where it is certain.
    fn single(&self) -> Option<(u64, Hash32)> {
        match (&self.before, self.seq) {
            (Before::OneOf(hashes), Some(seq)) if hashes.len() == 1 => Some((seq, *hashes.first()?)),
            _ => None,
        }
    }
}

impl Iterator for SegmentReader<'_> {
    type Item = Result<Located, Problem>;
    fn next(&mut self) -> Option<Self::Item> {
        if self.ready.is_empty() {
            if self.at >= self.content.len() {
                return None;
            }
            self.read_line();
        }
        self.ready.pop_front()
    }
}

/// The hash that a line begins with: 64 lower-case digits and a space.
fn recorded_hash(line: &[u8]) -> Option<Hash32> {
    let digits = line.get(..DIGITS)?;
    let lower = digits.iter().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(b));
    if !lower || line.get(DIGITS) != Some(&b' ') {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn parse(text: &[u8]) -> Result<Line, Fault> {
    let not = |why: String| Fault::NotARecord(why);
    let mut value: Value = serde_json::from_slice(text).map_err(|e| not(format!("its text is no JSON: {e}")))?;
    let canonical = canon::encode(&value).map_err(|e| not(e.to_string()))?;
    if canonical.as_bytes() != text {
        return Err(Fault::NotCanonical);
    }
    let missing = || not("it is not made of at_ms, body, kind and seq".to_owned());
    let members = value.as_object_mut().filter(|m| m.len() == 4).ok_or_else(missing)?;
    let body = members.remove("body").ok_or_else(missing)?;
    let number = |name: &str| members.get(name).and_then(Value::as_u64).ok_or_else(missing);
    let kind = members.get("kind").and_then(Value::as_str).ok_or_else(missing)?;
    Ok(Line { seq: number("seq")?, at_ms: number("at_ms")?, kind: kind.to_owned(), body })
}

/// What must hold of a segment's first record by itself. Gives the validator's key.
fn check_header(segment: u64, seq: u64, is_header: bool, body: &Value) -> Result<Hotkey, Fault> {
    let wrong = |why: &str| Fault::WrongHeader(why.to_owned());
    if !is_header {
        return Err(wrong("its first record is of another kind"));
    }
    let number = |name: &str| body.get(name).and_then(Value::as_u64);
    if number("format") != Some(FORMAT) {
        return Err(wrong("it is of a format that this program does not know"));
    }
    if number("segment") != Some(segment) {
        return Err(wrong("it names another segment's number than its file name"));
    }
    if number("first_seq") != Some(seq) {
        return Err(wrong("it names another first record than itself"));
    }
    let hotkey = body.get("hotkey").and_then(Value::as_str).and_then(|h| h.parse::<Hotkey>().ok());
    let hotkey = hotkey.ok_or_else(|| wrong("it names no validator"))?;
    let prev = body.get("prev").and_then(Value::as_str).and_then(|p| p.parse::<Hash32>().ok());
    let prev = prev.ok_or_else(|| wrong("it names no record before it"))?;
    if seq == 0 && prev != chain::genesis(&hotkey) {
        return Err(wrong("it is the first of the log, but does not follow the validator's beginning"));
    }
    Ok(hotkey)
}

/// The records of a whole log, from its first segment that is left, or from a later one.
pub struct LogReader {
    dir: PathBuf,
    left: VecDeque<u64>,
    current: Option<SegmentReader<'static>>,
    last: Option<u64>,
    link: Link,
}

impl LogReader {
    /// A reader of the log in `dir`, the directory that holds the segments.
    ///
    /// # Errors
    /// If the directory cannot be listed. One that is not there is an empty log.
    pub fn new(dir: &Path) -> std::io::Result<Self> {
        let left = segments(dir)?.into();
        Ok(LogReader { dir: dir.to_path_buf(), left, current: None, last: None, link: Link::default() })
    }

    /// Demands that the log is this validator's, if one is given.
    pub fn of(mut self, hotkey: Option<Hotkey>) -> Self {
        self.link.hotkey = hotkey;
        self
    }

    /// Forgets what the next segment must follow, but not whose it must be.
    fn unlink(&mut self) {
        self.link = Link { hotkey: self.link.hotkey, ..Link::default() };
    }
}

impl Iterator for LogReader {
    type Item = Result<Located, Problem>;
    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(next) = self.current.as_mut().and_then(Iterator::next) {
                return Some(next);
            }
            if let Some(done) = self.current.take() {
                self.link = done.into_link();
            }
            let segment = *self.left.front()?;
            if let Some(last) = self.last.filter(|last| last + 1 < segment) {
                self.last = Some(segment - 1);
                self.unlink();
                let fault = Fault::MissingSegments { from: last + 1, to: segment - 1 };
                return Some(Err(Problem::of_segment(segment, fault)));
            }
            self.left.pop_front();
            self.last = Some(segment);
            match fs::read(self.dir.join(segment_name(segment))) {
                Ok(content) if content.is_empty() => {
                    let fault = Fault::WrongHeader("it is empty".to_owned());
                    return Some(Err(Problem::of_segment(segment, fault)));
                }
                Ok(content) => {
                    self.current = Some(SegmentReader::new(segment, content, Some(std::mem::take(&mut self.link))))
                }
                Err(error) => {
                    self.unlink();
                    return Some(Err(Problem::of_segment(segment, Fault::Unreadable(error.to_string()))));
                }
            }
        }
    }
}

/// What a look at the whole log came to.
#[derive(Debug, Clone, Default, PartialEq, serde::Serialize)]
pub struct Report {
    /// The validator that the log names. Whether it is the right one only the reader can tell.
    pub hotkey: Option<Hotkey>,
    /// Segments that hold a record.
    pub segments: u64,
    /// Records that are in order.
    pub records: u64,
    /// Bytes of those.
    pub bytes: u64,
    /// The first and the last of them.
    pub seqs: Option<(u64, u64)>,
    /// The hash of the last.
    pub hash: Option<Hash32>,
    /// The first and the last epoch that was closed.
    pub epochs: Option<(u64, u64)>,
    /// Seals that hold.
    pub seals: u64,
    /// The record that the last seal is over.
    pub sealed: Option<u64>,
    /// Everything that is wrong, as text.
    pub problems: Vec<String>,
}

impl Report {
    /// The report as text, its last line a sentence that says how it ended.
    pub fn to_text(&self) -> String {
        use std::fmt::Write as _;
        let mut out = String::new();
        let range = |range: Option<(u64, u64)>| range.map_or("none".to_owned(), |(a, b)| format!("{a} to {b}"));
        let hotkey = self.hotkey.map_or("none".to_owned(), |hotkey| hotkey.to_string());
        let _ = writeln!(out, "validator {hotkey}");
        let _ = writeln!(out, "segments  {}", self.segments);
        let _ = writeln!(out, "records   {} ({}), {} bytes", self.records, range(self.seqs), self.bytes);
        let _ = writeln!(out, "epochs    {}", range(self.epochs));
        let sealed = self.sealed.map_or(String::new(), |seq| format!(", the last over record {seq}"));
        let _ = writeln!(out, "seals     {}{sealed}", self.seals);
        if let Some(hash) = self.hash {
            let _ = writeln!(out, "last hash {hash}");
        }
        for problem in &self.problems {
            let _ = writeln!(out, "problem   {problem}");
        }
        let _ = match self.problems.len() {
            0 if self.records == 0 => writeln!(out, "the log is empty"),
            0 => writeln!(out, "every record follows from the one before, and every seal is the validator's"),
            1 => writeln!(out, "the log is damaged in 1 place"),
            n => writeln!(out, "the log is damaged in {n} places"),
        };
        out
    }
}

/// Checks the whole log in `dir`. `head` is what the database says of its end, where that is known; a log that goes on
/// behind it is in order. `hotkey` is the validator whose log it must be; without it, any one validator's will do.
///
/// # Errors
/// If the directory cannot be listed.
pub fn verify(dir: &Path, head: Option<Head>, hotkey: Option<Hotkey>) -> std::io::Result<(Report, Vec<Problem>)> {
    let mut report = Report::default();
    let mut problems = Vec::new();
    let mut head_seen = head.is_none();
    let (mut last_segment, mut last_bytes) = (0, 0..0);
    for record in LogReader::new(dir)?.of(hotkey) {
        match record {
            Ok(record) => {
                report.records += 1;
                report.hotkey = record.hotkey().or(report.hotkey);
                report.bytes += record.bytes.end - record.bytes.start;
                report.seqs = Some((report.seqs.map_or(record.seq, |s| s.0), record.seq));
                report.hash = Some(record.hash);
                if record.kind == Kind::Segment.label() {
                    report.segments += 1;
                }
                if record.kind == Kind::Epoch.label()
                    && let Some(epoch) = record.epoch()
                {
                    report.epochs = Some((report.epochs.map_or(epoch, |e| e.0), epoch));
                }
                if record.kind == Kind::Seal.label() {
                    report.seals += 1;
                    report.sealed = Some(record.seq.wrapping_sub(1));
                }
                head_seen |= head.is_some_and(|h| (h.seq, h.hash) == (record.seq, record.hash));
                (last_segment, last_bytes) = (record.segment, record.bytes);
            }
            // A node that runs may be writing there; what is not acknowledged is nobody's evidence.
            Err(problem) if head.is_some_and(|h| (problem.segment, problem.bytes.start) >= (h.segment, h.bytes)) => {}
            Err(problem) => problems.push(problem),
        }
    }
    if let Some(head) = head.filter(|_| !head_seen) {
        let fault = Fault::EndsEarly { seq: head.seq, hash: head.hash };
        let end = last_bytes.end;
        problems.push(Problem { bytes: end..end, ..Problem::of_segment(last_segment, fault) });
    }
    report.problems = problems.iter().map(ToString::to_string).collect();
    Ok((report, problems))
}

#[cfg(test)]
mod tests;
