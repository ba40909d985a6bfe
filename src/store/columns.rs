//! The columns that a statement over an app's table gives back, and the JSON text that becomes of them.
//!
//! Postgres could write the JSON itself, but would then set up and run an expression for each column in every statement.
//! Plain columns it sends as they lie; writing them out here costs a fraction of that.

use std::fmt::Write as _;

use chrono::{DateTime, Datelike, NaiveDate, Timelike};
use serde_json::Value;
use sqlx::{
    Decode, Row, ValueRef,
    error::BoxDynError,
    postgres::{PgRow, PgValueRef},
};
use uuid::Uuid;

use super::rows::{quoted, sql_type};
use crate::model::shape::{Field, Type};

/// From the first day of the common era to 2000-01-01, with which Postgres begins to count.
const EPOCH_DAYS: i32 = 730_120;
/// From 1970-01-01 to 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// The least and the greatest double that is written without an exponent, as by Postgres.
const PLAIN_NUMBERS: std::ops::Range<f64> = 1e-4..1e15;

/// Columns of an app's table, which the statement calls `t`.
#[derive(Debug, Clone)]
pub struct Columns {
    /// What is selected, in that order.
    list: Vec<Column>,
    /// How many of them, from the first, make the row.
    shown: usize,
    place: Option<Place>,
}

#[derive(Debug, Clone)]
struct Column {
    name: String,
    ty: Type,
}

/// Which row's place in the order is wanted, and the columns in which it stands.
#[derive(Debug, Clone)]
struct Place {
    row: usize,
    columns: Vec<usize>,
}

impl Columns {
    /// The columns of a row.
    pub fn of<'a>(fields: impl Iterator<Item = &'a Field>) -> Self {
        let list: Vec<Column> = fields.map(Column::of).collect();
        Self { shown: list.len(), list, place: None }
    }

    /// Also wants to know where the row with this index stands in an order by `fields`.
    #[must_use]
    pub fn with_place_of<'a>(mut self, row: usize, fields: impl Iterator<Item = &'a Field>) -> Self {
        let mut columns = Vec::new();
        for field in fields {
            let known = self.list.iter().position(|column| column.name == field.name);
            columns.push(known.unwrap_or(self.list.len()));
            if known.is_none() {
                self.list.push(Column::of(field));
            }
        }
        self.place = Some(Place { row, columns });
        self
    }

    /// Whether Postgres has anything to compute for a row, beyond handing its columns out.
    pub fn computed(&self) -> bool {
        self.list.iter().any(|column| column.ty == Type::Decimal)
    }

    /// The list as SQL. Each column is cast to the type it has, which Postgres leaves out of the plan. But a connection may
    /// have the statement prepared from before a new version changed the type, and so that is another statement.
    pub(super) fn sql(&self) -> String {
        let mut sql = String::new();
        for (index, column) in self.list.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            // What a decimal is in binary, Postgres alone writes out right.
            let ty = if column.ty == Type::Decimal { "text" } else { sql_type(column.ty) };
            write!(sql, "{comma}t.{}::{ty}", quoted(&column.name)).expect("a string takes it");
        }
        sql
    }

    /// The row as a JSON object.
    pub(super) fn json(&self, row: &PgRow) -> Result<String, sqlx::Error> {
        let mut text = String::from("{");
        for (index, column) in self.list[..self.shown].iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            push_text(&column.name, &mut text);
            text.push(':');
            column.push(row, index, &mut text)?;
        }
        text.push('}');
        Ok(text)
    }

    /// The place of a row as a JSON list of texts, if it is the row whose place is wanted.
    pub(super) fn place(&self, index: usize, row: &PgRow) -> Result<Option<String>, sqlx::Error> {
        let Some(place) = self.place.as_ref().filter(|place| place.row == index) else { return Ok(None) };
        let mut texts = Vec::with_capacity(place.columns.len());
        for &index in &place.columns {
            let mut text = String::new();
            self.list[index].push(row, index, &mut text)?;
            // Numbers go as texts too, so that nothing on the way rounds them.
            let quoted = text.starts_with('"') || text == "null";
            texts.push(if quoted { text } else { format!("\"{text}\"") });
        }
        Ok(Some(format!("[{}]", texts.join(","))))
    }
}

impl Column {
    fn of(field: &Field) -> Self {
        Self { name: field.name.clone(), ty: field.ty }
    }

    /// Adds the value that stands at `index` in `row`.
    fn push(&self, row: &PgRow, index: usize, text: &mut String) -> Result<(), sqlx::Error> {
        let value = row.try_get_raw(index)?;
        push(value, self.ty, text).map_err(|source| sqlx::Error::ColumnDecode { index: self.name.clone(), source })
    }
}

/// Adds a value as the JSON of `krilin.d.ts`.
fn push(value: PgValueRef<'_>, ty: Type, text: &mut String) -> Result<(), BoxDynError> {
    if value.is_null() {
        text.push_str("null");
        return Ok(());
    }
    match ty {
        Type::Text | Type::Decimal => push_text(value.as_str()?, text),
        Type::Integer => write!(text, "{}", i64::decode(value)?)?,
        Type::Number => push_number(f64::decode(value)?, text)?,
        Type::Boolean => write!(text, "{}", bool::decode(value)?)?,
        Type::Date => push_date(i32::decode(value)?, text)?,
        Type::Time => push_time(i64::decode(value)?, text)?,
        Type::Instant => push_instant(i64::decode(value)?, text)?,
        // Its version, which is 1, and then JSON.
        Type::Json => text.push_str(value.as_str()?.strip_prefix('\u{1}').ok_or("a jsonb of another version")?),
        Type::Uuid => write!(text, "\"{}\"", Uuid::decode(value)?)?,
        Type::Texts => push_list(&Vec::<Option<String>>::decode(value)?, text, |element, text| {
            push_text(element, text);
            Ok(())
        })?,
        Type::Integers => {
            push_list(&Vec::<Option<i64>>::decode(value)?, text, |element, text| write!(text, "{element}"))?;
        }
    }
    Ok(())
}

fn push_text(value: &str, text: &mut String) {
    let escaped = |byte: u8| byte < b' ' || byte == b'"' || byte == b'\\';
    if value.bytes().any(escaped) {
        text.push_str(&Value::from(value).to_string());
    } else {
        text.push('"');
        text.push_str(value);
        text.push('"');
    }
}

/// The shortest text that is read as the same double; whole numbers without a point.
fn push_number(number: f64, text: &mut String) -> std::fmt::Result {
    if !number.is_finite() {
        let infinity = if number.is_sign_positive() { "Infinity" } else { "-Infinity" };
        write!(text, "\"{}\"", if number.is_nan() { "NaN" } else { infinity })
    } else if number == 0.0 || PLAIN_NUMBERS.contains(&number.abs()) {
        write!(text, "{number}")
    } else {
        write!(text, "{number:e}")
    }
}

/// Days since 2000-01-01. What no app can write may have come of a text when the column changed its type; such days are
/// written in Postgres' way.
fn push_date(days: i32, text: &mut String) -> Result<(), BoxDynError> {
    match days {
        i32::MAX => text.push_str("\"infinity\""),
        i32::MIN => text.push_str("\"-infinity\""),
        days => {
            let date = days.checked_add(EPOCH_DAYS).and_then(NaiveDate::from_num_days_from_ce_opt);
            let date = date.ok_or("a date out of range")?;
            let (year, era) = if date.year() > 0 { (date.year(), "") } else { (1 - date.year(), " BC") };
            write!(text, "\"{year:04}-{:02}-{:02}{era}\"", date.month(), date.day())?;
        }
    }
    Ok(())
}

/// Microseconds since midnight; seconds only if there are any.
fn push_time(micros: i64, text: &mut String) -> std::fmt::Result {
    let seconds = micros / 1_000_000;
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    write!(text, "\"{hour:02}:{minute:02}")?;
    if second > 0 {
        write!(text, ":{second:02}")?;
    }
    text.push('"');
    Ok(())
}

/// Microseconds since 2000-01-01 in UTC. Infinity is no instant and shows as null.
fn push_instant(micros: i64, text: &mut String) -> Result<(), BoxDynError> {
    if matches!(micros, i64::MIN | i64::MAX) {
        text.push_str("null");
        return Ok(());
    }
    let at = micros.checked_add(EPOCH_MICROS).and_then(DateTime::from_timestamp_micros);
    let at = at.ok_or("an instant out of range")?;
    let year = if at.year() > 0 { at.year() } else { 1 - at.year() };
    let millis = at.timestamp_subsec_millis();
    write!(text, "\"{year:04}-{:02}-{:02}T", at.month(), at.day())?;
    write!(text, "{:02}:{:02}:{:02}.{millis:03}Z\"", at.hour(), at.minute(), at.second())?;
    Ok(())
}

fn push_list<T>(
    elements: &[Option<T>],
    text: &mut String,
    push: impl Fn(&T, &mut String) -> std::fmt::Result,
) -> std::fmt::Result {
    text.push('[');
    for (index, element) in elements.iter().enumerate() {
        if index > 0 {
            text.push(',');
        }
        match element {
            Some(element) => push(element, text)?,
            None => text.push_str("null"),
        }
    }
    text.push(']');
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(push: impl FnOnce(&mut String)) -> String {
        let mut text = String::new();
        push(&mut text);
        text
    }

    #[test]
    fn a_number_is_written_so_that_it_is_read_as_the_same_one() {
        for (number, expected) in [
            (5.0, "5"),
            (0.0, "0"),
            (-0.0, "-0"),
            (0.1, "0.1"),
            (-0.000_1, "-0.0001"),
            (0.000_012_5, "1.25e-5"),
            (123_456_789_012_345.6, "123456789012345.6"),
            (1e15, "1e15"),
            (f64::MAX, "1.7976931348623157e308"),
            (5e-324, "5e-324"),
            (f64::NAN, "\"NaN\""),
            (f64::NEG_INFINITY, "\"-Infinity\""),
        ] {
            assert_eq!(written(|text| push_number(number, text).unwrap()), expected);
        }
    }

    #[test]
    fn days_times_and_instants_are_written_as_by_postgres() {
        for (days, expected) in [
            (0, "\"2000-01-01\""),
            (10_286, "\"2028-02-29\""),
            (-730_119, "\"0001-01-01\""),
            (-730_120, "\"0001-12-31 BC\""),
            (2_921_940, "\"10000-01-01\""),
            (i32::MAX, "\"infinity\""),
        ] {
            assert_eq!(written(|text| push_date(days, text).unwrap()), expected);
        }
        assert!(push_date(i32::MAX - 1, &mut String::new()).is_err());
        for (seconds, expected) in [(0, "\"00:00\""), (73_800, "\"20:30\""), (25_689, "\"07:08:09\"")] {
            assert_eq!(written(|text| push_time(seconds * 1_000_000, text).unwrap()), expected);
        }
        for (micros, expected) in [
            (0, "\"2000-01-01T00:00:00.000Z\""),
            (-1_000, "\"1999-12-31T23:59:59.999Z\""),
            (848_682_800_500_000, "\"2026-11-22T17:13:20.500Z\""),
            (i64::MAX, "null"),
        ] {
            assert_eq!(written(|text| push_instant(micros, text).unwrap()), expected);
        }
    }

    #[test]
    fn a_text_is_escaped_where_json_wants_it() {
        for value in ["", "plain, Zo\u{eb} \u{7f}", "a \"quote\"", "back\\slash", "line\nline", "\u{1}"] {
            assert_eq!(written(|text| push_text(value, text)), Value::from(value).to_string());
        }
        let list = [Some("a".to_owned()), None, Some("\"".to_owned())];
        let texts = written(|text| {
            let push = |element: &String, text: &mut String| {
                push_text(element, text);
                Ok(())
            };
            push_list(&list, text, push).unwrap();
        });
        assert_eq!(texts, r#"["a",null,"\""]"#);
    }
}
