//! A length of time as an author writes it: `500ms`, `30s`, `5m`, `12h`, `7d`. Refuses zero, signs and sums (`1h30m`).

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

/// The most digits a period may have before its unit.
const DIGITS_MAX: usize = 6;

/// The units, longest first, in milliseconds.
const UNITS: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];

/// A positive length of time. Written back in the largest unit that holds it exactly: `120s` comes back as `2m`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Period(Duration);

/// Why a text is no period.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a length of time: a whole number from 1 to 999999 and one of ms, s, m, h, d, such as `30s`")]
pub struct PeriodError(String);

impl Period {
    /// A period of `seconds`.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    /// The length.
    pub fn duration(self) -> Duration {
        self.0
    }
}

impl FromStr for Period {
    type Err = PeriodError;

    fn from_str(text: &str) -> Result<Self, PeriodError> {
        let error = || PeriodError(text.to_owned());
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let (_, unit_ms) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(error)?;
        if number.len() > DIGITS_MAX || number.starts_with('0') {
            return Err(error());
        }
        let count: u64 = number.parse().map_err(|_| error())?;
        Ok(Self(Duration::from_millis(count * unit_ms)))
    }
}

impl TryFrom<String> for Period {
    type Error = PeriodError;

    fn try_from(text: String) -> Result<Self, PeriodError> {
        text.parse()
    }
}

impl From<Period> for String {
    fn from(period: Period) -> Self {
        period.to_string()
    }
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = u64::try_from(self.0.as_millis()).unwrap_or(u64::MAX);
        let (name, unit_ms) = UNITS.iter().find(|(_, unit_ms)| ms.is_multiple_of(*unit_ms)).unwrap_or(&UNITS[4]);
        write!(f, "{}{name}", ms / unit_ms)
    }
}

impl fmt::Debug for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Period({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::Period;

    #[test]
    fn a_period_is_one_number_and_one_unit() {
        for (text, back) in [("500ms", "500ms"), ("120s", "2m"), ("48h", "2d"), ("90m", "90m"), ("999999d", "999999d")]
        {
            assert_eq!(text.parse::<Period>().unwrap().to_string(), back);
        }
        for bad in ["", "0s", "s", "5", "1h30m", "-1s", "1.5s", "05s", "1000000s", "5 s", "5S"] {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
    }
}
