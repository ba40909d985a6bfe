//! Durations as people write them in configuration: `250ms`, `10s`, `5m`, `36h`, `30d`, or several in falling order
//! (`1h 30m`). Refuses signs, fractions, bare numbers and anything longer than [`LONGEST`].

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// The longest duration a person may configure: ten years. Past it a typing error is likelier than a wish.
pub const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);

/// The units, longest first, with their length in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A duration that reads and prints as `1h 30m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HumanDuration(pub Duration);

/// Why a text is no duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a duration: write whole numbers with d, h, m, s or ms, longest first, such as `1h 30m` or `250ms`"
)]
pub struct DurationError(String);

impl FromStr for HumanDuration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        parse(text).filter(|duration| *duration <= LONGEST).map(Self).ok_or_else(|| DurationError(text.to_owned()))
    }
}

fn parse(text: &str) -> Option<Duration> {
    let (mut rest, mut total, mut units) = (text.trim(), 0_u64, UNITS.iter());
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let (_, length) = units.find(|(name, _)| *name == unit)?;
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*length)?)?;
        rest = tail.trim_start();
    }
    Some(Duration::from_millis(total))
}

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut left = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        if left == 0 {
            return f.write_str("0s");
        }
        let mut space = "";
        for (unit, length) in UNITS {
            if left >= length {
                write!(f, "{space}{}{unit}", left / length)?;
                left %= length;
                space = " ";
            }
        }
        Ok(())
    }
}

impl fmt::Debug for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for HumanDuration {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for HumanDuration {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Duration, HumanDuration};

    #[test]
    fn durations_read_and_print_as_people_write_them() {
        for (text, millis) in
            [("250ms", 250), ("10s", 10_000), ("1h 30m", 5_400_000), ("30d", 2_592_000_000), ("0s", 0)]
        {
            let duration: HumanDuration = text.parse().unwrap();
            assert_eq!((duration.0, duration.to_string().as_str()), (Duration::from_millis(millis), text));
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "10", "s", "-1s", "1.5s", "30m 1h", "1h 1h", "1w", "99999999999d", "18446744073709551615d"] {
            assert!(text.parse::<HumanDuration>().is_err(), "{text}");
        }
    }
}
