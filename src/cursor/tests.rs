use super::*;

fn listing(last_value: i64, holders: &[&str]) -> Listing {
    Listing { last_value, holders: holders.iter().map(|name| name.to_string()).collect() }
}

fn gaps(cursor: &Cursor) -> Vec<(i64, i64)> {
    cursor.gaps().map(|range| (range.low, range.high)).collect()
}

/// A cursor that runs with everything up to `head` decided.
fn running(head: i64) -> Cursor {
    let mut cursor = Cursor::start(listing(head, &[]));
    cursor.take(Form::Full, listing(head, &[]), &[], false).expect("an empty table");
    assert_eq!((cursor.form(), cursor.head()), (Form::Cursor, head));
    cursor
}

#[test]
fn a_fresh_table_is_decided_by_the_first_statement() {
    assert_eq!(running(0).head(), 0);
}

#[test]
fn the_start_waits_for_every_writer_that_was_there() {
    let mut cursor = Cursor::start(listing(5, &["1/1"]));
    cursor.take(Form::Full, listing(5, &["1/1"]), &[4], false).expect("fine");
    assert_eq!(cursor.form(), Form::Full);
    // gone by this listing, but it may have committed after this statement's snapshot
    cursor.take(Form::Full, listing(7, &["2/2"]), &[], false).expect("fine");
    assert_eq!(cursor.form(), Form::Full);
    cursor.take(Form::Full, listing(7, &["2/2"]), &[3, 7], false).expect("fine");
    assert_eq!((cursor.form(), cursor.head()), (Form::Cursor, 7));
    assert_eq!(gaps(&cursor), [(6, 6)], "5 and below are decided, 6 was drawn later");
}

#[test]
fn a_full_first_statement_decides_only_up_to_its_last_row() {
    let mut cursor = Cursor::start(listing(100, &[]));
    cursor.take(Form::Full, listing(100, &[]), &[10, 11], true).expect("fine");
    assert_eq!((cursor.head(), gaps(&cursor)), (11, vec![]));
}

#[test]
fn a_prepared_transaction_without_a_name_stops_every_decision() {
    let mut cursor = Cursor::start(listing(5, &["-1/7"]));
    cursor.take(Form::Full, listing(5, &["-1/7"]), &[], false).expect("fine");
    cursor.take(Form::Full, listing(5, &[]), &[], false).expect("fine");
    assert_eq!(cursor.form(), Form::Full);
    cursor.take(Form::Full, listing(5, &[]), &[], false).expect("fine");
    assert_eq!(cursor.form(), Form::Cursor);

    cursor.take(Form::Cursor, listing(7, &["-1/8"]), &[7], false).expect("fine");
    cursor.take(Form::Cursor, listing(7, &["-1/8"]), &[], false).expect("fine");
    assert_eq!(gaps(&cursor), [(6, 6)]);
}

#[test]
fn a_gap_dies_in_the_second_statement_after_its_writers_are_gone() {
    let mut cursor = running(0);
    cursor.take(Form::Cursor, listing(3, &["1/1", "2/2"]), &[3], false).expect("fine");
    assert_eq!(gaps(&cursor), [(1, 2)]);
    cursor.take(Form::Cursor, listing(3, &["2/2", "3/3"]), &[], false).expect("fine");
    assert_eq!(gaps(&cursor), [(1, 2)], "2/2 is still writing");
    cursor.take(Form::Cursor, listing(3, &["3/3"]), &[], false).expect("fine");
    assert_eq!(gaps(&cursor), [(1, 2)], "2/2 was listed before this snapshot");
    cursor.take(Form::Cursor, listing(3, &["3/3"]), &[], false).expect("fine");
    assert_eq!(gaps(&cursor), [], "3/3 came later and holds nothing back");
}

#[test]
fn a_late_commit_fills_its_gap_and_splits_the_range() {
    let mut cursor = running(0);
    cursor.take(Form::Cursor, listing(9, &["1/1"]), &[9], false).expect("fine");
    cursor.take(Form::Cursor, listing(9, &["1/1"]), &[1, 4, 8], false).expect("fine");
    assert_eq!(gaps(&cursor), [(2, 3), (5, 7)]);
}

#[test]
fn a_gap_above_the_last_row_of_a_cut_statement_is_not_decided() {
    let mut cursor = running(0);
    cursor.take(Form::Cursor, listing(9, &["1/1"]), &[9], false).expect("fine");
    cursor.take(Form::Cursor, listing(9, &[]), &[], false).expect("fine");
    cursor.take(Form::Cursor, listing(9, &[]), &[2, 4], true).expect("fine");
    assert_eq!(gaps(&cursor), [(5, 8)], "1 and 3 are dead, the rest was cut off");
}

#[test]
fn a_sequence_that_went_back_is_told() {
    let mut cursor = running(8);
    assert_eq!(cursor.take(Form::Cursor, listing(7, &[]), &[], false), Err(WentBack { head: 8, last_value: 7 }));
}

#[test]
fn numbers_may_begin_below_zero() {
    let mut cursor = running(-1000);
    cursor.take(Form::Cursor, listing(-1000, &[]), &[], false).expect("nothing is there yet");
    cursor.take(Form::Cursor, listing(-998, &[]), &[-999, -998], false).expect("two rows");
    assert_eq!((cursor.head(), gaps(&cursor)), (-998, vec![]));
}

#[test]
fn the_proof_scan_counts_rows_that_nobody_waited_for() {
    let mut cursor = running(8);
    let learnt = cursor.take(Form::Full, listing(10, &["1/1"]), &[3, 10], false).expect("fine");
    assert_eq!((learnt.rescued, cursor.head(), gaps(&cursor)), (1, 10, vec![(9, 9)]));
    let late = cursor.take(Form::Full, listing(10, &["1/1"]), &[9], false).expect("fine");
    assert_eq!(late.rescued, 0, "9 was a gap");
}

#[test]
fn too_many_gaps_lead_back_to_the_full_form_and_out_again() {
    let mut cursor = running(0);
    let every_other: Vec<i64> = (1..=MAX_GAP_RANGES as i64 + 1).map(|n| 2 * n).collect();
    let top = every_other[every_other.len() - 1];
    cursor.take(Form::Cursor, listing(top, &["1/1"]), &[], false).expect("fine");
    cursor.take(Form::Cursor, listing(top, &["1/1"]), &every_other, true).expect("fine");
    assert_eq!(cursor.form(), Form::Full);
    cursor.take(Form::Full, listing(top, &["1/1"]), &[], false).expect("fine");
    cursor.take(Form::Full, listing(top, &[]), &[], false).expect("fine");
    assert_eq!(cursor.form(), Form::Full);
    cursor.take(Form::Full, listing(top, &[]), &[], false).expect("fine");
    assert_eq!((cursor.form(), cursor.head()), (Form::Cursor, top));
}

#[test]
fn a_writer_that_pins_a_million_numbers_leads_to_the_full_form() {
    let mut cursor = running(0);
    let far = MAX_GAP_NUMBERS + 2;
    cursor.take(Form::Cursor, listing(far, &["1/1"]), &[far], false).expect("fine");
    assert_eq!(cursor.form(), Form::Full);
}

#[test]
fn a_table_that_breaks_the_rules_stays_in_full_form() {
    let mut cursor = Cursor::full_only();
    cursor.take(Form::Full, listing(5, &[]), &[5], false).expect("fine");
    assert_eq!(cursor.form(), Form::Full);
}
