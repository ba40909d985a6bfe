//! An author's JSON becomes a typed value, or a sentence about why not. Refuses silently converting one type into another.

use chrono::{DateTime, Datelike, NaiveDate, NaiveTime, SecondsFormat, SubsecRound, Utc};
use serde_json::{Number, Value};
use uuid::Uuid;

use crate::{
    model::shape::{Field, Type},
    store::rows::Arg,
};

/// The greatest whole number that JavaScript holds exactly and safely on both sides of zero.
pub(super) const INTEGER_MAX: i64 = 1 << 53;
/// The most characters of a decimal: far inside what `numeric` holds, far above what a person writes.
const DECIMAL_MAX_LENGTH: usize = 100;
/// The most elements of a `string[]` or `integer[]`.
const LIST_MAX: usize = 1_000;

/// Reads `value` as something the column may hold: type, null, choice, range and length.
pub(super) fn accept(field: &Field, value: &Value) -> Result<Arg, String> {
    let arg = read(field, value)?;
    if value.is_null() {
        return if field.nullable { Ok(arg) } else { Err(format!("`{}` must not be null", field.name)) };
    }
    bounds(field, &arg)?;
    Ok(arg)
}

/// Reads `value` as one of the column's type, whatever the column's limits: for comparing.
pub(super) fn read(field: &Field, value: &Value) -> Result<Arg, String> {
    typed(field.ty, value).ok_or_else(|| match value {
        Value::String(text) if text.contains('\0') => format!("`{}` must not hold a NUL character", field.name),
        _ => format!("`{}` must be {}", field.name, field.ty.expectation()),
    })
}

fn typed(ty: Type, value: &Value) -> Option<Arg> {
    let null = value.is_null();
    Some(match ty {
        Type::Text => Arg::Text(if null { None } else { Some(text(value)?) }),
        Type::Decimal => Arg::Text(if null { None } else { Some(decimal(value)?) }),
        Type::Integer => Arg::Int(if null { None } else { Some(integer(value)?) }),
        Type::Number => Arg::Float(if null { None } else { Some(value.as_f64()?) }),
        Type::Boolean => Arg::Bool(if null { None } else { Some(value.as_bool()?) }),
        Type::Date => Arg::Date(if null { None } else { Some(date(value)?) }),
        Type::Time => Arg::Time(if null { None } else { Some(time(value)?) }),
        Type::Instant => Arg::Instant(if null { None } else { Some(instant(value)?) }),
        Type::Uuid => Arg::Uuid(if null { None } else { Some(uuid(value)?) }),
        Type::Json if null => Arg::Json(None),
        Type::Json => Arg::Json(Some(without_nul(value).then(|| value.clone())?)),
        Type::Texts => Arg::Texts(if null { None } else { Some(list(value, text)?) }),
        Type::Integers => Arg::Ints(if null { None } else { Some(list(value, integer)?) }),
    })
}

fn bounds(field: &Field, arg: &Arg) -> Result<(), String> {
    let name = &field.name;
    let number = match arg {
        Arg::Int(Some(n)) => Some(as_double(*n)),
        Arg::Float(Some(n)) => Some(*n),
        Arg::Text(Some(n)) if field.ty == Type::Decimal => n.parse().ok(),
        _ => None,
    };
    if let (Some(number), Some(min)) = (number, field.min)
        && number < min
    {
        return Err(format!("`{name}` must be at least {min}"));
    }
    if let (Some(number), Some(max)) = (number, field.max)
        && number > max
    {
        return Err(format!("`{name}` must be at most {max}"));
    }
    if let (Arg::Text(Some(text)), Some(max)) = (arg, field.max_length)
        && text.chars().count() as u64 > max
    {
        return Err(format!("`{name}` must have at most {max} characters"));
    }
    if let (Arg::Text(Some(text)), Some(allowed)) = (arg, &field.allowed)
        && !allowed.contains(text)
    {
        return Err(format!("`{name}` must be one of {}", allowed.join(", ")));
    }
    Ok(())
}

/// Exact: [`INTEGER_MAX`] bounds what gets here.
#[expect(clippy::cast_precision_loss, reason = "whole numbers are at most 2^53, which a double holds exactly")]
fn as_double(n: i64) -> f64 {
    n as f64
}

fn text(value: &Value) -> Option<String> {
    value.as_str().filter(|text| !text.contains('\0')).map(str::to_owned)
}

fn integer(value: &Value) -> Option<i64> {
    let whole = match value.as_i64() {
        Some(n) => n,
        // JavaScript writes a large whole number as 1e15.
        None => value.as_f64().filter(|n| n.fract() == 0.0 && n.abs() <= 9_007_199_254_740_992.0).map(|n| {
            #[expect(clippy::cast_possible_truncation, reason = "whole and within 2^53, by the filter above")]
            let whole = n as i64;
            whole
        })?,
    };
    (-INTEGER_MAX..=INTEGER_MAX).contains(&whole).then_some(whole)
}

fn decimal(value: &Value) -> Option<String> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let unsigned = text.strip_prefix('-').unwrap_or(&text);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (text.len() <= DECIMAL_MAX_LENGTH && digits(whole) && digits(fraction)).then_some(text)
}

/// Years 1 to 9999: what both four digits and Postgres' calendar can say.
fn date(value: &Value) -> Option<NaiveDate> {
    let text = value.as_str().filter(|text| text.len() == 10)?;
    NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|date| (1..=9999).contains(&date.year()))
}

fn time(value: &Value) -> Option<NaiveTime> {
    let text = value.as_str()?;
    let format = match text.len() {
        5 => "%H:%M",
        8 => "%H:%M:%S",
        _ => return None,
    };
    NaiveTime::parse_from_str(text, format).ok().map(|time| time.trunc_subsecs(0))
}

fn instant(value: &Value) -> Option<DateTime<Utc>> {
    let parsed = DateTime::parse_from_rfc3339(value.as_str()?).ok()?.with_timezone(&Utc);
    (1..=9999).contains(&parsed.year()).then(|| parsed.trunc_subsecs(3))
}

fn uuid(value: &Value) -> Option<Uuid> {
    value.as_str().filter(|text| text.len() == 36).and_then(|text| text.parse().ok())
}

fn list<T>(value: &Value, element: impl Fn(&Value) -> Option<T>) -> Option<Vec<T>> {
    let elements = value.as_array().filter(|elements| elements.len() <= LIST_MAX)?;
    elements.iter().map(element).collect()
}

/// `jsonb` cannot hold NUL, in texts and keys alike.
fn without_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => !text.contains('\0'),
        Value::Array(elements) => elements.iter().all(without_nul),
        Value::Object(members) => members.iter().all(|(key, value)| !key.contains('\0') && without_nul(value)),
        _ => true,
    }
}

/// A list of the column's type, for `in`.
pub(super) fn read_list(field: &Field, values: &[Value]) -> Result<Arg, String> {
    let args = values.iter().map(|value| read(field, value)).collect::<Result<Vec<_>, _>>()?;
    macro_rules! gather {
        ($variant:ident) => {
            args.into_iter().filter_map(|arg| if let Arg::$variant(value) = arg { value } else { None }).collect()
        };
    }
    Ok(match field.ty {
        Type::Text | Type::Decimal => Arg::Texts(Some(gather!(Text))),
        Type::Integer => Arg::Ints(Some(gather!(Int))),
        Type::Number => Arg::Floats(gather!(Float)),
        Type::Boolean => Arg::Bools(gather!(Bool)),
        Type::Date => Arg::Dates(gather!(Date)),
        Type::Time => Arg::Times(gather!(Time)),
        Type::Instant => Arg::Instants(gather!(Instant)),
        Type::Uuid => Arg::Uuids(gather!(Uuid)),
        Type::Json | Type::Texts | Type::Integers => {
            return Err(format!("`{}` cannot be compared with `in`", field.name));
        }
    })
}

/// The value as JSON in the one spelling that Postgres reads.
pub(super) fn to_json(arg: Arg) -> Value {
    fn some<T>(value: Option<T>, into: impl Fn(T) -> Value) -> Value {
        value.map_or(Value::Null, into)
    }
    match arg {
        Arg::Text(value) => some(value, Value::String),
        Arg::Int(value) => some(value, Value::from),
        Arg::Float(value) => some(value, |n| Number::from_f64(n).map_or(Value::Null, Value::Number)),
        Arg::Bool(value) => some(value, Value::Bool),
        Arg::Uuid(value) => some(value, |id| Value::String(id.to_string())),
        Arg::Date(value) => some(value, |date| Value::String(date.to_string())),
        Arg::Time(value) => some(value, |time| Value::String(time.to_string())),
        Arg::Instant(value) => some(value, |at| Value::String(at.to_rfc3339_opts(SecondsFormat::Millis, true))),
        Arg::Json(value) => value.unwrap_or(Value::Null),
        Arg::Texts(value) => some(value, Value::from),
        Arg::Ints(value) => some(value, Value::from),
        // Lists for `in`: bound, never stored.
        Arg::Floats(_) | Arg::Bools(_) | Arg::Uuids(_) | Arg::Dates(_) | Arg::Times(_) | Arg::Instants(_) => {
            Value::Null
        }
    }
}
