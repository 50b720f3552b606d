//! How often which fault was made, and which one comes next.

use std::collections::BTreeMap;

use fastrand::Rng;

use super::fault::Kind;

/// How often what was done.
pub struct Tally {
    kinds: Vec<Kind>,
    struck: BTreeMap<Kind, usize>,
    missed: BTreeMap<Kind, usize>,
    pairs: usize,
}

impl Tally {
    /// Of a run that makes these kinds.
    pub fn new(kinds: Vec<Kind>) -> Tally {
        Tally { kinds, struck: BTreeMap::new(), missed: BTreeMap::new(), pairs: 0 }
    }

    /// What the run makes.
    pub fn kinds(&self) -> &[Kind] {
        &self.kinds
    }

    /// These were tried together, and of them those happened.
    pub fn dealt(&mut self, tried: &[Kind], struck: &[Kind]) {
        for kind in tried {
            let counter = if struck.contains(kind) { &mut self.struck } else { &mut self.missed };
            *counter.entry(*kind).or_default() += 1;
        }
        self.pairs += usize::from(struck.len() == 2);
    }

    /// How often it happened.
    pub fn count(&self, kind: Kind) -> usize {
        self.struck.get(&kind).copied().unwrap_or(0)
    }

    /// How often it was tried and did not happen.
    pub fn missed(&self, kind: Kind) -> usize {
        self.missed.get(&kind).copied().unwrap_or(0)
    }

    /// All faults.
    pub fn total(&self) -> usize {
        self.struck.values().sum()
    }

    /// How often two were there at once.
    pub fn pairs(&self) -> usize {
        self.pairs
    }

    /// Of the kinds that can be made any number of times, how often the rarest one happened.
    pub fn least(&self) -> usize {
        self.kinds.iter().filter(|kind| kind.most() == usize::MAX).map(|kind| self.count(*kind)).min().unwrap_or(0)
    }

    /// Two different ones.
    pub fn draw_two(&self, chance: &mut Rng) -> [Kind; 2] {
        let first = self.draw(chance, None);
        [first, self.draw(chance, Some(first))]
    }

    /// By chance mostly one of those that happened least often, or just one.
    fn draw(&self, chance: &mut Rng, not: Option<Kind>) -> Kind {
        let can_be = |kind: &&Kind| self.count(**kind) < kind.most() && Some(**kind) != not;
        let can_be: Vec<Kind> = self.kinds.iter().filter(can_be).copied().collect();
        let fewest = can_be.iter().map(|kind| self.count(*kind)).min().unwrap_or(0);
        let rare: Vec<Kind> = can_be.iter().copied().filter(|kind| self.count(*kind) == fewest).collect();
        let among = if chance.u8(0..4) > 0 { rare } else { can_be };
        *chance.choice(&among).expect("there are kinds")
    }
}
