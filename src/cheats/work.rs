//! Cheats of the product: provers that answer without having computed all of it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::{Cheat, Draw, Outcome, Predicted, Q, percent};
use crate::actors::validator::challenge_runner::round::Attempts;
use crate::ids::{DeviceId, Hotkey};
use crate::proof::prover::forging::{Forged, Forgery, SeedField};
use crate::proof::tile::{TILE_ENTRIES, Tile, entry};
use crate::proof::verifier::{check_openings, check_roots};
use crate::proof::{Challenge, Position, Work, cpu, sample_positions};
use crate::verdict::{UnknownCause, Verdict};

static GO: AtomicBool = AtomicBool::new(false);

fn challenge(run: &[u8; 32], n: u32, rounds: u32) -> Challenge {
    let nonce = blake3::derive_key("compute-subnet cheats, nonce of the work", run);
    let work = Work::new(n, 64, rounds).unwrap();
    Challenge { nonce, epoch: 2, hotkey: Hotkey([3; 32]), device: DeviceId::cpu(0), work }
}

/// Everything that a prover computed: it is opened without being computed again.
struct Book {
    forged: Forged,
    openings: Vec<u8>,
}

impl Book {
    fn of(forgery: Forgery, challenge: &Challenge) -> Self {
        let forged = Forged::make(forgery, challenge, 1, &GO).unwrap();
        let (work, side) = (*forged.computed(), forged.computed().side());
        let tiles = work.tiles() as u32;
        let every: Vec<Position> = (0..work.rounds * tiles)
            .map(|i| Position { round: i / tiles, row: i % tiles / side * 32, col: i % tiles % side * 32 })
            .collect();
        let openings = forged.tiles(&every, &GO).unwrap();
        Book { forged, openings }
    }

    fn opening(&self, position: &Position) -> &[u8] {
        let (work, one) = (self.forged.computed(), self.forged.computed().opening_len());
        let index = u64::from(position.round) * work.tiles() + position.tile_index(work);
        &self.openings[index as usize * one..][..one]
    }

    /// What is sent for these positions; `None` for nothing.
    fn open(&self, positions: &[Position]) -> Option<Vec<u8>> {
        let tiles =
            |opened: &[Position]| Ok::<_, ()>(opened.iter().map(|p| self.opening(p)).collect::<Vec<_>>().concat());
        self.forged.open_with(positions, tiles).unwrap()
    }

    /// The share of the entries of the first round that are the product's, whose tiles these are.
    fn share_right(&self, product: &[Tile]) -> f64 {
        let one = self.forged.computed().opening_len();
        let right: usize = product
            .iter()
            .zip(self.openings.chunks_exact(one))
            .map(|(tile, said)| (0..TILE_ENTRIES).filter(|i| entry(said, *i) == Some(tile.0[*i])).count())
            .sum();
        right as f64 / (product.len() * TILE_ENTRIES) as f64
    }
}

/// What the validator makes of one draw of `q` positions.
fn judge(book: &Book, challenge: &Challenge, q: usize, draw: &mut Draw) -> Outcome {
    let roots = book.forged.roots();
    if let Err(rejection) = check_roots(challenge, roots) {
        return Outcome::Caught(rejection.reason);
    }
    let positions = sample_positions(&challenge.work, q, &draw.seed());
    let Some(openings) = book.open(&positions) else {
        // The miner's own refusal, asked again until the deadline.
        let mut attempts = Attempts::default();
        attempts.failed(UnknownCause::Refused, "no openings today".to_owned());
        let verdict: Verdict = attempts.verdict();
        return match verdict {
            Verdict::Fail { reason, .. } => Outcome::Caught(reason),
            other => Outcome::Beyond(format!("{other:?}")),
        };
    };
    match check_openings(challenge, roots, &positions, &openings) {
        Ok(_) => Outcome::Passed,
        Err(rejection) => Outcome::Caught(rejection.reason),
    }
}

/// A cheat with this prover.
fn of(
    name: &str,
    does: &str,
    (predicted, formula): (Predicted, String),
    gains: &str,
    q: usize,
    made: (Arc<Challenge>, Forgery, Arc<Book>),
) -> Cheat {
    let (challenge, forgery, book) = made;
    Cheat {
        name: name.to_owned(),
        does: does.to_owned(),
        predicted,
        formula,
        reason: forgery.expected(),
        gains: gains.to_owned(),
        attempt: Box::new(move |draw| judge(&book, &challenge, q, draw)),
    }
}

pub(super) fn cheats(run: &[u8; 32]) -> Vec<Cheat> {
    let mut all = certain(run);
    all.extend(by_share(run));
    all.extend(by_round(run));
    all
}

/// Those that no draw lets through.
fn certain(run: &[u8; 32]) -> Vec<Cheat> {
    const ALL: &str = "all of the work";
    const NOTHING: &str = "nothing: the work is done";
    let challenge = Arc::new(challenge(run, 128, 2));
    let seed = Forgery::WrongSeed;
    [
        (
            "an answer made before",
            "computes ahead for a nonce of its own, or replays an answer",
            seed(SeedField::Nonce),
            ALL,
        ),
        ("another epoch", "answers with the proof of another epoch", seed(SeedField::Epoch), ALL),
        ("another hotkey", "answers with another miner's proof", seed(SeedField::Hotkey), ALL),
        ("another device", "answers for one device with another's proof", seed(SeedField::Device), ALL),
        ("another n", "computes a product of half the side", seed(SeedField::N), "three quarters of the time"),
        ("another k", "computes with another inner dimension", seed(SeedField::K), "half of the time, with half of k"),
        ("another number of rounds", "answers with rounds of a longer proof", seed(SeedField::Rounds), NOTHING),
        ("forged roots", "computes everything and sends other roots", Forgery::RandomRoots, NOTHING),
        ("a root too few", "leaves the last round out", Forgery::MissingRound, "one round of R"),
        ("a root too many", "sends a round that was not asked for", Forgery::ExtraRound, NOTHING),
        ("forged paths", "changes one bit of each path", Forgery::ForgedPaths, NOTHING),
        ("short paths", "sends paths without their last sibling", Forgery::ShortPaths, NOTHING),
        ("long paths", "sends paths with one sibling more", Forgery::LongPaths, NOTHING),
        ("short openings", "sends one byte less", Forgery::ShortOpenings, NOTHING),
        ("a missing opening", "leaves the last opening out", Forgery::MissingOpening, "a position of its choice"),
        ("an extra opening", "sends the last opening twice", Forgery::ExtraOpening, NOTHING),
        ("reordered openings", "sends the openings in the reverse order", Forgery::ReversedOpenings, NOTHING),
        (
            "a tile from another position",
            "opens the tile beside, with its own path",
            Forgery::OtherTile,
            "all tiles but a few",
        ),
        ("one tile for all", "opens the first tile for every position", Forgery::OneTileForAll, "all tiles but one"),
        ("a tile from another round", "opens the tile of the round after", Forgery::OtherRound, "all rounds but one"),
        ("noise", "sends openings of the right length, full of noise", Forgery::Garbage, ALL),
        (
            "withheld openings",
            "sends the roots and, when the positions do not suit it, no openings",
            Forgery::WithholdOpenings,
            "a second draw",
        ),
    ]
    .into_iter()
    .map(|(name, does, forgery, gains)| {
        let made = (challenge.clone(), forgery, Arc::new(Book::of(forgery, &challenge)));
        of(name, does, (Predicted::Certain, "certain".to_owned()), gains, Q, made)
    })
    .collect()
}

/// Those that are lucky where every position shows an entry that is right all the same: 1 − p^q.
fn by_share(run: &[u8; 32]) -> Vec<Cheat> {
    // Tiles are skipped of a larger product, or 1 % of them would be none.
    let (large, small) = (Arc::new(challenge(run, 512, 1)), Arc::new(challenge(run, 256, 1)));
    let [of_large, of_small] = [&large, &small].map(|challenge| {
        let (work, keys) = (challenge.work, challenge.seed_0().keys());
        (0..work.tiles()).map(|number| cpu::tile(&keys, &work, number).unwrap()).collect::<Vec<Tile>>()
    });
    let skip = |percent: u32| Forgery::SkipTiles { ratio: f64::from(percent) / 100.0 };
    let inside = |of_1024: u32| Forgery::SkipEntries { ratio: f64::from(of_1024) / 1024.0 };
    let low_rank = |rows: u32| Forgery::LowRank { rows };
    let low_precision = |bits: u32| Forgery::LowPrecision { bits };
    let rate = "as much of the time";
    let nothing = "nothing: every tile is computed";
    let faster = "what faster, rounding units save";
    [
        ("1 % of the tiles skipped", "commits to zeros in their place", skip(1), Q, rate),
        ("5 % of the tiles skipped", "the same", skip(5), Q, rate),
        ("10 % of the tiles skipped", "the same", skip(10), Q, rate),
        ("5 % of each tile wrong", "51 entries in a row of each tile", inside(51), Q, nothing),
        ("an eighth of each tile wrong, 10 positions", "128 entries of each tile", inside(128), 10, nothing),
        ("a constant C", "commits to zeros", Forgery::Constant { entry: 0 }, Q, "all of the time"),
        ("a low-rank C", "computes 28 of 32 rows, and repeats four of them", low_rank(28), Q, "an eighth of the time"),
        ("a low-rank C, 2 positions", "computes 16 of 32 rows, and repeats them", low_rank(16), 2, "half of the time"),
        ("a low-precision C", "rounds sums to 11 bits, as half precision does", low_precision(11), Q, faster),
        ("a low-precision C, 1 position", "the same", low_precision(11), 1, faster),
        ("a nearly exact C, 10 positions", "rounds sums to 16 bits", low_precision(16), 10, faster),
    ]
    .into_iter()
    .map(|(name, does, forgery, q, gains)| {
        let (challenge, product) = match forgery {
            Forgery::SkipTiles { .. } => (large.clone(), &of_large),
            _ => (small.clone(), &of_small),
        };
        let book = Book::of(forgery, &challenge);
        let right = book.share_right(product);
        let caught = 1.0 - right.powi(q as i32);
        let formula = format!("1 − p^{q}, p = {}: {}", percent(right), percent(caught));
        of(name, does, (Predicted::Rate(caught), formula), gains, q, (challenge, forgery, Arc::new(book)))
    })
    .collect()
}

/// Those that are lucky where every position falls into a round that is right.
fn by_round(run: &[u8; 32]) -> Vec<Cheat> {
    const ROUNDS: u32 = 4;
    let challenge = Arc::new(challenge(run, 128, ROUNDS));
    let parallel = "begins rounds before it has the root that seeds them, with a guessed one";
    let shared = "rounds could be shared out among cards";
    [
        ("a made-up round", "sends a random root for the last round", Forgery::MadeUpRound, 3, "one round of R"),
        ("rounds at the same time", parallel, Forgery::GuessedRoots, 1, shared),
    ]
    .into_iter()
    .flat_map(|(name, does, forgery, right, gains)| {
        let (challenge, book) = (challenge.clone(), Arc::new(Book::of(forgery, &challenge)));
        [4, Q].map(move |q| {
            let caught = 1.0 - (f64::from(right) / f64::from(ROUNDS)).powi(q as i32);
            let formula = format!("1 − ({right}/{ROUNDS})^{q}: {}", percent(caught));
            let name = if q == Q { name.to_owned() } else { format!("{name}, {q} positions") };
            let made = (challenge.clone(), forgery, book.clone());
            of(&name, does, (Predicted::Rate(caught), formula), gains, q, made)
        })
    })
    .collect()
}

/// The three figures that the design names.
#[test]
fn the_predictions_are_those_of_the_design() {
    let caught = |share: f64| percent(1.0 - (1.0 - share).powi(Q as i32));
    assert_eq!([caught(0.01), caught(0.05), caught(0.10)], ["48.5 %", "96.6 %", "99.90 %"]);
}
