//! A place in a trace, as the header `traceparent` writes it (W3C Trace Context, level 1). Refuses everything that is not
//! well formed: a trace that was not sent rightly is not followed.

use std::{fmt, str::FromStr};

/// The bit of the flags that says that the caller keeps this trace. The others are not ours to pass on.
const SAMPLED: u8 = 1;

/// One span of a trace: what a later span names as its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TraceParent {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this is no traceparent of the form 00-TRACE-SPAN-FLAGS")]
pub struct Malformed;

impl TraceParent {
    /// A span of a trace. An id of zero is invalid by the standard and becomes one.
    pub fn new(trace_id: u128, span_id: u64, sampled: bool) -> Self {
        Self { trace_id: trace_id.max(1), span_id: span_id.max(1), flags: if sampled { SAMPLED } else { 0 } }
    }

    /// The span `span_id` below this one.
    #[must_use]
    pub fn child(self, span_id: u64) -> Self {
        Self { span_id: span_id.max(1), ..self }
    }

    /// The trace id.
    pub fn trace_id(self) -> u128 {
        self.trace_id
    }

    /// The span id.
    pub fn span_id(self) -> u64 {
        self.span_id
    }

    /// Whether the caller keeps this trace.
    pub fn sampled(self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// The trace id as 32 hex digits: what log lines and problems carry.
    pub fn trace(self) -> String {
        format!("{:032x}", self.trace_id)
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl FromStr for TraceParent {
    type Err = Malformed;

    /// A version above 00 may have more parts, which are ignored, as the standard asks.
    fn from_str(text: &str) -> Result<Self, Malformed> {
        let mut parts = text.split('-');
        let mut part = |length| {
            let part = parts.next().filter(|part| part.len() == length).ok_or(Malformed)?;
            let hex = part.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            if hex { Ok(part) } else { Err(Malformed) }
        };
        let (version, trace_id, span_id, flags) = (part(2)?, part(32)?, part(16)?, part(2)?);
        if version == "ff" || (version == "00" && parts.next().is_some()) {
            return Err(Malformed);
        }
        let trace_id = u128::from_str_radix(trace_id, 16).map_err(|_| Malformed)?;
        let span_id = u64::from_str_radix(span_id, 16).map_err(|_| Malformed)?;
        let flags = u8::from_str_radix(flags, 16).map_err(|_| Malformed)? & SAMPLED;
        if trace_id == 0 || span_id == 0 { Err(Malformed) } else { Ok(Self { trace_id, span_id, flags }) }
    }
}

#[cfg(test)]
mod tests {
    use super::TraceParent;

    #[test]
    fn a_trace_is_followed_only_when_it_is_well_formed() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parsed: TraceParent = good.parse().unwrap();
        assert_eq!(parsed, TraceParent::new(0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c, 0xb7ad_6b71_6920_3331, true));
        assert_eq!(parsed.to_string(), good);
        assert!("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more".parse::<TraceParent>().is_ok());
        for bad in [
            "",
            "00",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
        ] {
            assert!(bad.parse::<TraceParent>().is_err(), "{bad}");
        }
    }
}
