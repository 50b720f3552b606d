use proptest::prelude::*;

use super::*;

fn writer(outbox: u128) -> Writer {
    Writer {
        outbox: Uuid::from_u128(outbox),
        owner: Owner { instance: "a".into(), start: 1, epoch: 1 },
        database: DatabaseIdentity { system: "7".into(), timeline: 1 },
    }
}

fn record(n: u64, previous: Checksum) -> Record {
    let entries = vec![Entry { seq: n as i64, fingerprint: Fingerprint(n), topic: 0, partition: 3, offset: 9 }];
    Record { writer: writer(5), n, previous, topics: vec!["orders".into()], entries }
}

prop_compose! {
    fn any_record()(
        ids in (any::<u128>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<u32>()),
        names in (".{0,20}", ".{0,20}"),
        previous in any::<u64>(),
        topics in prop::collection::vec("[a-z]{1,9}", 1..5),
        entries in prop::collection::vec((any::<i64>(), any::<u64>(), any::<u32>(), any::<i32>(), any::<i64>()), 0..200),
    ) -> Record {
        let count = topics.len() as u32;
        let entries = entries.into_iter().map(|(seq, print, topic, partition, offset)| {
            Entry { seq, fingerprint: Fingerprint(print), topic: topic % count, partition, offset }
        });
        Record {
            writer: Writer {
                outbox: Uuid::from_u128(ids.0),
                owner: Owner { instance: names.0, start: ids.2, epoch: ids.3 },
                database: DatabaseIdentity { system: names.1, timeline: ids.4 },
            },
            n: ids.1,
            previous: Checksum(previous),
            entries: entries.collect(),
            topics,
        }
    }
}

proptest! {
    #[test]
    fn a_record_comes_back_as_it_was(record in any_record()) {
        let (bytes, checksum) = record.encode();
        prop_assert_eq!(Record::decode(&bytes), Ok((record, checksum)));
    }

    #[test]
    fn a_damaged_record_is_refused(record in any_record(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
        let (mut bytes, _) = record.encode();
        let at = at.index(bytes.len());
        bytes[at] ^= flip;
        prop_assert!(Record::decode(&bytes).is_err());
    }

    #[test]
    fn a_shortened_or_lengthened_record_is_refused(record in any_record(), cut in any::<prop::sample::Index>()) {
        let (mut bytes, _) = record.encode();
        prop_assert!(Record::decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(0);
        prop_assert!(Record::decode(&bytes).is_err());
    }

    /// Behind a valid checksum too: whatever the bytes say, decoding ends with an answer.
    #[test]
    fn arbitrary_bytes_never_panic(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = wire::decode(&body);
        let mut signed = vec![FORMAT];
        signed.extend(&body);
        let checksum = Checksum::of(&signed);
        signed.extend(checksum.0.to_le_bytes());
        let _ = Record::decode(&signed);
    }
}

#[test]
fn five_thousand_events_take_about_eleven_bytes_each() {
    let entries = (0..5000).map(|i| Entry {
        seq: 1000 + i,
        fingerprint: Fingerprint(i as u64),
        topic: 0,
        partition: (i % 12) as i32,
        offset: i / 12,
    });
    let (bytes, _) = Record { entries: entries.collect(), ..record(1, Checksum(0)) }.encode();
    assert!(bytes.len() < 5000 * 12, "{}", bytes.len());
}

#[test]
fn a_chain_is_read_to_its_end() {
    let (first, one) = record(1, Checksum(0)).encode();
    let (second, two) = record(2, one).encode();
    let mut reading = Reading::start(Uuid::from_u128(5), Applied::default(), 0);
    assert!(matches!(reading.accept(0, &first), Ok(Some(_))));
    assert!(matches!(reading.accept(2, &second), Ok(Some(_))));
    let view = reading.finish(4, 4).expect("whole");
    assert_eq!(view.last, Applied { n: 2, offset: 2, checksum: two });
    assert_eq!(view.owners_above, [writer(5).owner]);
}

#[test]
fn the_base_must_be_where_it_was() {
    let (first, one) = record(1, Checksum(0)).encode();
    let base = Applied { n: 1, offset: 4, checksum: one };
    let mut reading = Reading::start(Uuid::from_u128(5), base, 2);
    assert_eq!(reading.accept(4, &first), Ok(None));
    assert_eq!(reading.finish(6, 6).expect("whole").last, base);

    let mut moved = Reading::start(Uuid::from_u128(5), base, 2);
    assert_eq!(moved.accept(6, &first).map_err(|halt| halt.code), Err(HaltCode::KafkaBehind));
    let empty = Reading::start(Uuid::from_u128(5), base, 2);
    assert_eq!(empty.finish(2, 2).map_err(|halt| halt.code), Err(HaltCode::KafkaBehind));
    let trimmed = || Reading::start(Uuid::from_u128(5), base, 5);
    assert_eq!(trimmed().accept(6, &first).map_err(|halt| halt.code), Err(HaltCode::JournalWindow));
    assert_eq!(trimmed().finish(6, 6).map_err(|halt| halt.code), Err(HaltCode::JournalWindow));
    let foreign = Record { writer: writer(6), ..record(3, one) }.encode().0;
    assert_eq!(trimmed().accept(6, &foreign).map_err(|halt| halt.code), Err(HaltCode::ForeignJournal));
}

#[test]
fn holes_other_chains_and_other_outboxes_are_halts() {
    let start = || Reading::start(Uuid::from_u128(5), Applied::default(), 0);
    let code = |bytes: &[u8]| start().accept(0, bytes).map_err(|halt| halt.code).expect_err("refused");
    assert_eq!(code(&record(2, Checksum(0)).encode().0), HaltCode::KafkaBehind);
    assert_eq!(code(&record(1, Checksum(9)).encode().0), HaltCode::KafkaBehind);
    assert_eq!(code(&Record { writer: writer(6), ..record(1, Checksum(0)) }.encode().0), HaltCode::ForeignJournal);
    assert_eq!(code(b"\x02something newer"), HaltCode::JournalVersion);
    assert_eq!(code(b"\x01rubbish"), HaltCode::ForeignJournal);
    assert_eq!(code(b""), HaltCode::ForeignJournal);
}

/// What the pages reckon with: `docs/guarantees.md` for the format, `docs/operating.md` and `check` for the room that a journal takes.
#[test]
fn an_event_takes_eleven_bytes_in_a_large_batch_and_fourteen_in_a_small_one() {
    let bytes = |events: i64| {
        let entry = |i: i64| Entry {
            seq: 1_000_000_000 + i,
            fingerprint: Fingerprint(i as u64),
            topic: 0,
            partition: i as i32 % 12,
            offset: 90_000_000 + i / 12,
        };
        let writer = Writer {
            owner: Owner { instance: "shop-7d9c5b6f4-x2x9q".into(), start: u64::MAX, epoch: 1_000 },
            database: DatabaseIdentity { system: "7577577577577577577".into(), timeline: 3 },
            ..writer(u128::MAX)
        };
        let entries = (0..events).map(entry).collect();
        let record = Record { writer, n: 1_000_000, previous: Checksum(u64::MAX), topics: vec!["orders".into()], entries };
        record.encode().0.len() as f64 / events as f64
    };
    assert!((11.0..11.5).contains(&bytes(1_000)), "{}", bytes(1_000));
    assert!((13.0..15.0).contains(&bytes(50)), "{}", bytes(50));
}
