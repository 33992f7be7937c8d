//! What a table would pay a card for claims that it can meet without being what it claims. Pure.
//!
//! A proof shows a rate, a capacity and a bandwidth at one address, not a chip. So one card may answer for several: their
//! claims share its rate, its memory and its bandwidth, and each must hold its own floors. Credit is linear in the rate,
//! up to the nominal rate. [`best_claims`] finds the set that is paid best; where that is more than the card's own base,
//! the difference is what the table gives away. Models without rate, memory and bandwidth floors cannot be claimed here.
//!
//! How fast a card really is at this work is not known before it was measured: asked with its nominal rate the answer is
//! what is likely, with [`ModelRow::best`] what is possible at most.

use super::score::factor_ppb;
use super::table::{ModelRow, ScoreTable};

/// Claims that one card could meet at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// The models claimed, one entry for each claim; the best paid for its rate first.
    pub models: Vec<String>,
    /// What they are paid together: base times factor in 10⁻¹⁵, before scaling.
    pub credit: u64,
}

/// What one claim of a model needs and pays.
struct Claim<'a> {
    name: &'a str,
    /// In 10⁻⁶: the base that is paid, that of the cheapest twin.
    price: u64,
    nominal: u64,
    floor: Share,
}

/// Of a card: operations a second, bytes, bytes a second.
#[derive(Clone, Copy)]
struct Share {
    rate: u64,
    memory: u64,
    bandwidth: u64,
}

impl Share {
    fn without(self, floor: Share) -> Option<Share> {
        Some(Share {
            rate: self.rate.checked_sub(floor.rate)?,
            memory: self.memory.checked_sub(floor.memory)?,
            bandwidth: self.bandwidth.checked_sub(floor.bandwidth)?,
        })
    }
}

fn claims(table: &ScoreTable) -> Vec<Claim<'_>> {
    table.rows().iter().filter(|row| row.timed).filter_map(|row| claim(table, row)).collect()
}

fn claim<'a>(table: &ScoreTable, row: &'a ModelRow) -> Option<Claim<'a>> {
    let floor = Share { rate: row.floor_ops?, memory: row.memory?.floor, bandwidth: row.bandwidth?.floor };
    Some(Claim { name: &row.name, price: table.paid_base(row).0, nominal: row.nominal_ops?, floor })
}

/// `a.price / a.per` against `b.price / b.per`, exactly.
fn denser(a: &Claim<'_>, b: &Claim<'_>, per: fn(&Claim<'_>) -> u64) -> std::cmp::Ordering {
    let cross = |x: &Claim<'_>, y: &Claim<'_>| u128::from(x.price) * u128::from(per(y));
    cross(a, b).cmp(&cross(b, a))
}

/// The best paid set of claims that a card of this model, working at `rate` operations a second, could meet at once; its
/// own claim if nothing is paid better. `None` for a model whose memory or bandwidth is not known.
pub fn best_claims(table: &ScoreTable, card: &ModelRow, rate: u64) -> Option<Claims> {
    let has = Share { rate, memory: card.memory?.best, bandwidth: card.bandwidth?.best };
    let mut claims = claims(table);
    claims.sort_by(|a, b| denser(b, a, |c| c.floor.memory).then_with(|| a.name.cmp(b.name)));
    let densest = |per: fn(&Claim<'_>) -> u64| {
        let mut best = Vec::with_capacity(claims.len());
        for i in (0..claims.len()).rev() {
            let after = best.last().copied().unwrap_or(i);
            best.push(if denser(&claims[i], &claims[after], per).is_ge() { i } else { after });
        }
        best.reverse();
        best
    };
    let (by_rate, by_bandwidth) = (densest(|c| c.nominal), densest(|c| c.floor.bandwidth));
    let own = claims.iter().position(|claim| claim.name == card.name);
    let own = own.filter(|own| has.without(claims[*own].floor).is_some());
    let chosen: Vec<usize> = own.into_iter().collect();
    let credit = paid(&claims, &chosen, rate).0;
    let mut search = Search { claims, by_rate, by_bandwidth, rate, best: chosen, credit };
    search.add(0, &mut Vec::new(), has, 0);
    let (credit, order) = paid(&search.claims, &search.best, rate);
    let models = order.into_iter().map(|i| search.claims[i].name.to_owned()).collect();
    Some(Claims { models, credit })
}

/// Branch and bound over multisets of claims.
struct Search<'a> {
    /// By price for memory, the best first.
    claims: Vec<Claim<'a>>,
    /// For each place, the claim from there on with the highest price for its nominal rate, and for its bandwidth floor.
    by_rate: Vec<usize>,
    by_bandwidth: Vec<usize>,
    /// The card's.
    rate: u64,
    best: Vec<usize>,
    credit: u64,
}

impl Search<'_> {
    /// Tries all sets that continue `chosen`, whose full prices are `price`, with claims from `from` on.
    fn add(&mut self, from: usize, chosen: &mut Vec<usize>, left: Share, price: u64) {
        let (credit, _) = paid(&self.claims, chosen, self.rate);
        if credit > self.credit {
            (self.best, self.credit) = (chosen.clone(), credit);
        }
        for i in from..self.claims.len() {
            if self.most(i, left).saturating_add(price).saturating_mul(1_000_000_000) <= self.credit {
                return;
            }
            if let Some(left) = left.without(self.claims[i].floor) {
                chosen.push(i);
                self.add(i, chosen, left, price.saturating_add(self.claims[i].price));
                chosen.pop();
            }
        }
    }

    /// The most that claims from `from` on could be paid for what is left, in 10⁻⁶: what the scarcest of the three buys.
    fn most(&self, from: usize, left: Share) -> u64 {
        let buys = |left: u64, claim: &Claim<'_>, per: u64| {
            let buys = (u128::from(left) * u128::from(claim.price)).div_ceil(u128::from(per.max(1)));
            u64::try_from(buys).unwrap_or(u64::MAX)
        };
        let (rate, bandwidth) = (&self.claims[self.by_rate[from]], &self.claims[self.by_bandwidth[from]]);
        let memory = &self.claims[from];
        buys(left.rate, rate, rate.nominal).min(buys(left.memory, memory, memory.floor.memory)).min(buys(
            left.bandwidth,
            bandwidth,
            bandwidth.floor.bandwidth,
        ))
    }
}

/// What claims that fit are paid in 10⁻¹⁵ when `rate` is shared out best: every floor first, then to whom it brings most.
/// With them in that order.
fn paid(claims: &[Claim<'_>], chosen: &[usize], rate: u64) -> (u64, Vec<usize>) {
    let mut order = chosen.to_vec();
    order.sort_by(|a, b| denser(&claims[*b], &claims[*a], |c| c.nominal).then(a.cmp(b)));
    let floors: u64 = chosen.iter().map(|i| claims[*i].floor.rate).sum();
    let mut left = rate.saturating_sub(floors);
    let mut credit = 0u64;
    for claim in order.iter().map(|i| &claims[*i]) {
        let more = left.min(claim.nominal.saturating_sub(claim.floor.rate));
        left -= more;
        let factor = factor_ppb(claim.floor.rate.saturating_add(more), claim.nominal);
        credit = credit.saturating_add(claim.price.saturating_mul(factor));
    }
    (credit, order)
}

/// The same where only the rate is proved: the model that pays most for `rate` operations a second when it is claimed as
/// often as it takes, how often, and what that pays in 10⁻¹⁵. `None` if the rate is below every floor.
pub fn by_rate_alone(table: &ScoreTable, rate: u64) -> Option<(String, u64, u64)> {
    let of = |claim: &Claim<'_>| {
        let most = rate / claim.floor.rate.max(1);
        let times = rate.div_ceil(claim.nominal.max(1)).min(most);
        let share = rate.checked_div(times)?;
        let credit = claim.price.saturating_mul(factor_ppb(share, claim.nominal)).saturating_mul(times);
        Some((claim.name.to_owned(), times, credit))
    };
    claims(table).iter().filter_map(of).max_by_key(|(_, _, credit)| *credit)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::table::Limit;
    use super::*;

    /// A model of this price in hundredths, with nominal rate, memory and bandwidth; floors are 75 %.
    fn model(name: &str, base: u64, rate: u64, memory: u64, bandwidth: u64) -> ModelRow {
        let limit = |best| Some(Limit { best, floor: best * 3 / 4 });
        ModelRow {
            name: name.to_owned(),
            base_micro: base * 10_000,
            nominal_ops: Some(rate),
            floor_ops: Some(rate * 3 / 4),
            memory: limit(memory),
            bandwidth: limit(bandwidth),
            timed: true,
            ..ModelRow::default()
        }
    }

    fn best(table: &ScoreTable, name: &str, rate: u64) -> (Vec<String>, u64) {
        let Claims { models, credit } = best_claims(table, table.find(name).unwrap(), rate).unwrap();
        (models, credit / 10_000_000_000_000)
    }

    #[test]
    fn a_card_claims_what_its_rate_memory_and_bandwidth_hold_at_once() {
        let rows = vec![model("big", 100, 1_000, 800, 800), model("small", 60, 400, 400, 400)];
        let table = ScoreTable::new(rows, 8).unwrap();
        assert_eq!(best(&table, "big", 1_000), (vec!["small".to_owned(), "small".to_owned()], 120));
        // Two need 600 at least, and are paid in proportion.
        assert_eq!(best(&table, "big", 700), (vec!["small".to_owned(), "small".to_owned()], 105));
        assert_eq!(best(&table, "big", 599), (vec!["small".to_owned()], 60));
        assert_eq!(best(&table, "small", 400), (vec!["small".to_owned()], 60));
        assert_eq!(best(&table, "small", 200), (Vec::new(), 0));
        let narrow = model("big", 100, 1_000, 800, 599);
        let table = ScoreTable::new(vec![narrow, model("small", 60, 400, 400, 400)], 8).unwrap();
        assert_eq!(best(&table, "big", 1_000), (vec!["big".to_owned()], 100));
    }

    #[test]
    fn twins_are_worth_the_cheapest_of_them_to_whoever_claims_them() {
        let mut rows = vec![model("dear", 100, 100, 100, 100), model("cheap", 50, 90, 100, 100)];
        rows[0].twins = vec!["cheap".to_owned()];
        rows[1].twins = vec!["dear".to_owned()];
        let table = ScoreTable::new(rows, 8).unwrap();
        assert_eq!(best(&table, "cheap", 90).1, 50);
        assert_eq!(best(&table, "dear", 100).1, 50);
    }

    #[test]
    fn with_the_rate_alone_a_card_is_as_many_as_its_rate_holds() {
        let rows = vec![model("big", 100, 1_000, 800, 800), model("small", 60, 400, 400, 400)];
        let table = ScoreTable::new(rows, 8).unwrap();
        assert_eq!(by_rate_alone(&table, 1_000), Some(("small".to_owned(), 3, 1_498_500_000_000_000)));
        assert_eq!(by_rate_alone(&table, 700).map(|(_, times, _)| times), Some(2));
        assert_eq!(by_rate_alone(&table, 299), None);
    }

    #[test]
    fn what_has_no_memory_floor_is_neither_claimed_nor_asked_about() {
        let bare = ModelRow { memory: None, ..model("bare", 400, 1_000, 100, 100) };
        let table = ScoreTable::new(vec![bare, model("small", 60, 400, 400, 400)], 8).unwrap();
        assert_eq!(best_claims(&table, table.find("bare").unwrap(), 1_000), None);
        assert_eq!(best(&table, "small", 400).1, 60);
    }

    /// All multisets, without any bound.
    fn exhaustive(claims: &[Claim<'_>], from: usize, chosen: &mut Vec<usize>, left: Share, rate: u64) -> u64 {
        let mut most = paid(claims, chosen, rate).0;
        for i in from..claims.len() {
            if let Some(left) = left.without(claims[i].floor) {
                chosen.push(i);
                most = most.max(exhaustive(claims, i, chosen, left, rate));
                chosen.pop();
            }
        }
        most
    }

    proptest! {
        #[test]
        fn the_search_finds_what_trying_everything_finds(
            figures in prop::collection::vec((1u64..400, 90u64..400, 90u64..400, 90u64..400), 1..5), percent in 50u64..170,
        ) {
            let rows: Vec<ModelRow> = figures
                .iter()
                .enumerate()
                .map(|(i, (base, rate, memory, bandwidth))| model(&i.to_string(), *base, *rate, *memory, *bandwidth))
                .collect();
            // Tables that break the rules of floors are refused; what is left is still most of them.
            let Ok(table) = ScoreTable::new(rows, 8) else { return Ok(()) };
            for card in table.rows() {
                let rate = card.nominal_ops.unwrap() * percent / 100;
                let has = Share { rate, memory: card.memory.unwrap().best, bandwidth: card.bandwidth.unwrap().best };
                let most = exhaustive(&claims(&table), 0, &mut Vec::new(), has, rate);
                prop_assert_eq!(best_claims(&table, card, rate).unwrap().credit, most);
            }
        }
    }
}
