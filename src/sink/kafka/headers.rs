//! The headers of a record: `id`, `type`, `source`, `time`, then the row's own, in this order.

use std::borrow::Cow;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::event::{Event, EventId};

/// Names that begin so belong to outboxd.
const RESERVED: &str = "outboxd-";

/// Where headers are collected. Names may occur more than once.
pub trait Headers {
    /// Adds a header; `None` is a header without value.
    fn add(&mut self, name: &str, value: Option<&[u8]>);
}

/// Why the headers of a row cannot be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadHeaders {
    /// `malformed_headers` or `reserved_header`.
    pub code: &'static str,
    /// What is wrong, without contents.
    pub detail: String,
}

impl BadHeaders {
    fn malformed(detail: impl Into<String>) -> Self {
        Self { code: "malformed_headers", detail: detail.into() }
    }
}

/// Writes the headers of `event` to `out`. `source` is the configured one, for rows that name none.
///
/// Returns how many of the row's own headers were left out because a column says the same: the column wins.
pub fn write(event: &Event<'_>, source: Option<&str>, out: &mut impl Headers) -> Result<usize, BadHeaders> {
    let source = event.source.or(source);
    match event.id {
        EventId::Uuid(id) => out.add("id", Some(id.hyphenated().encode_lower(&mut [0; 36]).as_bytes())),
        EventId::Text { text, .. } => out.add("id", Some(text.as_bytes())),
    }
    if !event.kind.is_empty() {
        out.add("type", Some(event.kind.as_bytes()));
    }
    if let Some(source) = source {
        out.add("source", Some(source.as_bytes()));
    }
    if let Some(created_at_us) = event.created_at_us {
        out.add("time", Some(&rfc3339(created_at_us)));
    }
    let Some(json) = event.headers else { return Ok(0) };
    let taken = Taken { kind: !event.kind.is_empty(), source: source.is_some(), time: event.created_at_us.is_some() };
    write_own(json, taken, out)
}

/// Which of the names that can be missing the columns have given.
#[derive(Clone, Copy)]
struct Taken {
    kind: bool,
    source: bool,
    time: bool,
}

impl Taken {
    fn has(self, name: &str) -> bool {
        match name {
            "id" => true,
            "type" => self.kind,
            "source" => self.source,
            "time" => self.time,
            _ => false,
        }
    }
}

fn write_own(json: &[u8], taken: Taken, out: &mut impl Headers) -> Result<usize, BadHeaders> {
    let mut walk = Walk { taken, out, overruled: 0, problem: None };
    let mut input = serde_json::Deserializer::from_slice(json);
    let walked = input.deserialize_map(&mut walk).and_then(|()| input.end());
    let (overruled, problem) = (walk.overruled, walk.problem);
    match (problem, walked) {
        (Some(problem), _) => Err(problem),
        // Its message could quote the contents: only the place is passed on.
        (None, Err(error)) => Err(BadHeaders::malformed(format!("they are not a JSON object (column {})", error.column()))),
        (None, Ok(())) => Ok(overruled),
    }
}

/// Goes through the object once, without building it.
struct Walk<'a, H> {
    taken: Taken,
    out: &'a mut H,
    overruled: usize,
    problem: Option<BadHeaders>,
}

impl<'de, H: Headers> Visitor<'de> for &mut Walk<'_, H> {
    type Value = ();

    fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((Text(name), value)) = map.next_entry::<Text<'de>, &'de RawValue>()? {
            if let Err(problem) = self.take(&name, value.get()) {
                self.problem = Some(problem);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(())
    }
}

impl<H: Headers> Walk<'_, H> {
    /// `json` is one value without spaces around it: its first byte tells what it is.
    fn take(&mut self, name: &str, json: &str) -> Result<(), BadHeaders> {
        if name.starts_with(RESERVED) {
            let detail = format!("names that begin with {RESERVED} are outboxd's own");
            return Err(BadHeaders { code: "reserved_header", detail });
        }
        if self.taken.has(name) {
            self.overruled += 1;
            return Ok(());
        }
        match json.as_bytes().first() {
            Some(b'{' | b'[') => return Err(BadHeaders::malformed("a value is an object or an array")),
            Some(b'n') => self.out.add(name, None),
            Some(b'"') => {
                let Text(text) = serde_json::from_str(json).map_err(|_| BadHeaders::malformed("a value is not valid text"))?;
                self.out.add(name, Some(text.as_bytes()));
            }
            // Numbers and booleans as they are written.
            _ => self.out.add(name, Some(json.as_bytes())),
        }
        Ok(())
    }
}

/// Text that is borrowed from the input unless it holds an escape.
struct Text<'de>(Cow<'de, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct AsText;
        impl<'de> Visitor<'de> for AsText {
            type Value = Text<'de>;
            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("text")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }
        input.deserialize_str(AsText)
    }
}

/// `2026-01-31T23:59:59.123456Z`. Years outside of 0000–9999 have no such form and are cut to it.
fn rfc3339(microseconds: i64) -> [u8; 27] {
    const FIRST: i64 = -62_167_219_200_000_000;
    const LAST: i64 = 253_402_300_799_999_999;
    let microseconds = microseconds.clamp(FIRST, LAST);
    let (days, of_day) = (microseconds.div_euclid(86_400_000_000), microseconds.rem_euclid(86_400_000_000));
    let (year, month, day) = civil(days);
    let seconds = of_day / 1_000_000;
    let mut out = *b"0000-00-00T00:00:00.000000Z";
    digits(&mut out[0..4], year);
    digits(&mut out[5..7], month);
    digits(&mut out[8..10], day);
    digits(&mut out[11..13], seconds / 3_600);
    digits(&mut out[14..16], seconds / 60 % 60);
    digits(&mut out[17..19], seconds % 60);
    digits(&mut out[20..26], of_day % 1_000_000);
    out
}

fn digits(out: &mut [u8], mut number: i64) {
    for digit in out.iter_mut().rev() {
        *digit = b'0' + (number % 10) as u8;
        number /= 10;
    }
}

/// Year, month and day of a day number counted from 1970-01-01. Years are taken to begin in March, so that the leap day is the last
/// one of a year and months need no table (Howard Hinnant, "chrono-compatible low-level date algorithms").
fn civil(days: i64) -> (i64, i64, i64) {
    const DAYS_IN_400_YEARS: i64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(DAYS_IN_400_YEARS), days.rem_euclid(DAYS_IN_400_YEARS));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (400 * era + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    impl Headers for Vec<(String, Option<Vec<u8>>)> {
        fn add(&mut self, name: &str, value: Option<&[u8]>) {
            self.push((name.to_owned(), value.map(<[u8]>::to_vec)));
        }
    }

    fn event(headers: Option<&'static [u8]>) -> Event<'static> {
        Event {
            seq: 1,
            id: Uuid::from_u128(0x0123_4567_89ab_cdef_0123_4567_89ab_cdef).into(),
            topic: "orders",
            key: None,
            kind: "",
            source: None,
            payload: None,
            headers,
            created_at_us: Some(1_769_903_999_123_456),
        }
    }

    fn written(event: &Event<'_>, source: Option<&str>) -> Result<(Vec<String>, usize), BadHeaders> {
        let mut out = Vec::new();
        let overruled = write(event, source, &mut out)?;
        let show = |value: Option<Vec<u8>>| value.map_or("-".into(), |value| String::from_utf8_lossy(&value).into_owned());
        Ok((out.into_iter().map(|(name, value)| format!("{name}={}", show(value))).collect(), overruled))
    }

    fn own(headers: &'static str) -> Result<(Vec<String>, usize), BadHeaders> {
        written(&event(Some(headers.as_bytes())), None).map(|(all, overruled)| (all[2..].to_vec(), overruled))
    }

    #[test]
    fn the_columns_come_first_and_empty_ones_are_left_out() {
        let bare = event(None);
        let always = ["id=01234567-89ab-cdef-0123-456789abcdef", "time=2026-01-31T23:59:59.123456Z"];
        assert_eq!(written(&bare, None), Ok((always.map(String::from).to_vec(), 0)));
        let full = Event { kind: "Placed", source: Some("shop"), ..bare };
        let (all, _) = written(&full, Some("configured")).expect("valid headers");
        assert_eq!(all, [always[0], "type=Placed", "source=shop", always[1]]);
        let (all, _) = written(&bare, Some("configured")).expect("valid headers");
        assert_eq!(all, [always[0], "source=configured", always[1]]);
    }

    #[test]
    fn an_id_of_another_type_is_its_text_and_a_time_that_nobody_tells_is_left_out() {
        let id = EventId::Text { text: "42", fingerprint: crate::event::Fingerprint(1) };
        let bare = Event { id, created_at_us: None, ..event(Some(br#"{"time": "own", "id": "x"}"#)) };
        assert_eq!(written(&bare, None), Ok((vec!["id=42".into(), "time=own".into()], 1)));
    }

    #[test]
    fn scalars_become_text_and_null_has_no_value() {
        let (all, _) = own(r#" {"a": "x y", "b": 1.10, "c": true, "d": null, "e": "", "f": 123456789012345678901234567890} "#)
            .expect("valid headers");
        assert_eq!(all, ["a=x y", "b=1.10", "c=true", "d=-", "e=", "f=123456789012345678901234567890"]);
        assert_eq!(own(r#"{"\u00e4": "\u20ac\n"}"#).map(|(all, _)| all), Ok(vec!["ä=€\n".to_owned()]));
        assert_eq!(own("{}"), Ok((vec![], 0)));
    }

    #[test]
    fn a_column_wins_over_a_header_of_the_row_and_it_is_counted() {
        assert_eq!(own(r#"{"id": "x", "time": 1, "type": "t", "source": "s"}"#), Ok((vec!["type=t".into(), "source=s".into()], 2)));
        let full = Event { kind: "Placed", source: Some("shop"), ..event(Some(br#"{"type": 1, "source": 2, "k": 3}"#)) };
        let (all, overruled) = written(&full, None).expect("valid headers");
        assert_eq!((&*all[4], overruled), ("k=3", 2));
    }

    #[test]
    fn what_is_not_an_object_of_scalars_is_refused() {
        for bad in ["", "null", "[]", "\"x\"", "1", "{", "{\"a\": {}}", "{\"a\": [1]}", "{} x", "{\"a\": \"\\ud800\"}", "{\"a\" 1}"]
        {
            assert_eq!(own(bad).map_err(|bad| bad.code), Err("malformed_headers"), "{bad}");
        }
        assert_eq!(written(&event(Some(b"{\"a\": \"\xff\"}")), None).map_err(|bad| bad.code), Err("malformed_headers"));
        assert_eq!(own(r#"{"outboxd-x": 1}"#).map_err(|bad| bad.code), Err("reserved_header"));
    }

    #[test]
    fn a_refusal_tells_no_contents() {
        let refused = own(r#"{"secret": sesame}"#).expect_err("not JSON");
        assert!(!refused.detail.contains("secret") && !refused.detail.contains("sesame"), "{}", refused.detail);
    }

    proptest! {
        #[test]
        fn times_are_those_of_the_time_crate(microseconds in -62_167_219_200_000_000_i64..=253_402_300_799_999_999) {
            let nanoseconds = i128::from(microseconds) * 1_000;
            let expected = time::OffsetDateTime::from_unix_timestamp_nanos(nanoseconds).expect("within years 0 to 9999");
            let day = format!("{:04}-{:02}-{:02}", expected.year(), u8::from(expected.month()), expected.day());
            let (hour, minute, second, micro) = expected.to_hms_micro();
            let expected = format!("{day}T{hour:02}:{minute:02}:{second:02}.{micro:06}Z");
            let written = rfc3339(microseconds);
            prop_assert_eq!(std::str::from_utf8(&written), Ok(&*expected));
        }
    }
}
