//! The model's cursor and the one of the code: what the model proves of the one holds for the other.

use std::collections::BTreeSet;

use outboxd::cursor::{Cursor as Code, Form, Listing as CodeListing};

use crate::cursor::{Listing, NAMELESS};
use crate::relay::Cursor;
use crate::rules::Rules;

/// Numbers that occur.
const NUMBERS: u8 = 6;
/// Limits that a statement may have.
const LIMITS: [usize; 3] = [1, 2, 9];

/// Who may be writing.
const HOLDERS: [u8; 6] = [0, 1, 2, 3, NAMELESS, NAMELESS | 1];

fn names(holders: u8) -> BTreeSet<String> {
    let named = (0..2).filter(|at| holders & (1 << at) != 0).map(|at| format!("{at}/7"));
    named.chain((holders & NAMELESS != 0).then(|| "-1/7".to_owned())).collect()
}

fn coded(listing: Listing) -> CodeListing {
    CodeListing { last_value: listing.last_value.into(), holders: names(listing.holders) }
}

/// Head and gaps, as numbers.
fn of_code(code: &Code) -> (Form, i64, Vec<i64>) {
    (code.form(), code.head(), code.gaps().flat_map(|range| range.low..=range.high).collect())
}

fn of_model(model: &Cursor) -> (Form, i64, Vec<i64>) {
    match model {
        Cursor::Running { head, gaps, .. } => (Form::Cursor, i64::from(*head), gaps.iter().map(|gap| i64::from(gap.seq)).collect()),
        _ => (Form::Full, 0, Vec::new()),
    }
}

/// What a table might answer: a subset of the numbers that the statement asks for, in order, cut at a limit.
fn answer(chance: &mut fastrand::Rng, form: Form, head: i64, gaps: &[i64], last_value: u8, limit: usize) -> Vec<u8> {
    let asked = |seq: &i64| form == Form::Full || *seq > head || gaps.contains(seq);
    let rows = (1..=i64::from(last_value)).filter(asked).filter(|_| chance.bool());
    rows.take(limit).map(|seq| seq as u8).collect()
}

fn play(seed: u64) {
    let mut chance = fastrand::Rng::with_seed(seed);
    let (mut last_value, writers) = (chance.u8(..NUMBERS), HOLDERS[chance.usize(..HOLDERS.len())]);
    let start = Listing { last_value, holders: writers };
    let mut code = Code::start(coded(start));
    let mut model = Cursor::Starting { floor: last_value, holders: writers, previous: writers };
    for _ in 0..12 {
        let (form, head, gaps) = of_code(&code);
        let form = if chance.u8(..8) == 0 { Form::Full } else { form };
        last_value = if chance.u8(..30) == 0 { 0 } else { NUMBERS.min(last_value + chance.u8(..3)) };
        let limit = LIMITS[chance.usize(..3)];
        let seqs = answer(&mut chance, form, head, &gaps, last_value, limit);
        let listing = Listing { last_value, holders: HOLDERS[chance.usize(..HOLDERS.len())] };
        let rescued = model.rescued(&seqs);
        let numbers: Vec<i64> = seqs.iter().map(|seq| i64::from(*seq)).collect();
        let cut = seqs.len() == limit;
        match (code.take(form, coded(listing), &numbers, cut), model.take(listing, &seqs, cut, Rules::without(&[]))) {
            (Ok(learnt), Ok(next)) => {
                model = next;
                assert_eq!((of_code(&code), learnt.rescued), (of_model(&model), rescued), "seed {seed}");
            }
            (Err(_), Err(_)) => return,
            (by_code, by_model) => panic!("seed {seed}: {by_code:?}, {by_model:?}"),
        }
    }
}

#[test]
fn the_cursor_of_the_code_does_what_that_of_the_model_does() {
    (0..200_000).for_each(play);
}
