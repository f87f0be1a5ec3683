//! Amounts of money as whole numbers: billionths of a dollar where it is stored, trillionths where it is computed.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;

use minicbor::{Decode, Encode};
use serde::{Deserialize, Serialize};

/// Trillionths in a billionth.
const PICO_IN_NANO: i128 = 1000;

/// Billionths of a US dollar: what an exchange costs, after rounding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize, Encode, Decode)]
#[serde(transparent)]
#[cbor(transparent)]
pub struct NanoUsd(#[n(0)] pub i64);

/// Trillionths of a US dollar: what a part of an exchange costs, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct PicoUsd(pub i128);

impl PicoUsd {
    /// The nearest whole number of billionths, the even one where two are as near; `None` where it is over nine billion
    /// dollars.
    pub fn to_nano(self) -> Option<NanoUsd> {
        let (floor, rest) = match i64::try_from(self.0) {
            // All but sums of millions of dollars: they are divided by one multiplication, longer numbers by a loop.
            Ok(pico) => (pico.div_euclid(PICO_IN_NANO as i64).into(), pico.rem_euclid(PICO_IN_NANO as i64).into()),
            Err(_) => (self.0.div_euclid(PICO_IN_NANO), self.0.rem_euclid(PICO_IN_NANO)),
        };
        let up = match rest.cmp(&(PICO_IN_NANO / 2)) {
            std::cmp::Ordering::Less => 0,
            std::cmp::Ordering::Equal => floor & 1,
            std::cmp::Ordering::Greater => 1,
        };
        i64::try_from(floor + up).ok().map(NanoUsd)
    }
}

impl Add for PicoUsd {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sum for PicoUsd {
    fn sum<I: Iterator<Item = Self>>(parts: I) -> Self {
        parts.fold(Self(0), Add::add)
    }
}

/// Writes `units` of a 10^-`places`th dollar: exact, with at least `least` decimals.
fn write_decimal(f: &mut fmt::Formatter<'_>, units: i128, places: u32, least: usize) -> fmt::Result {
    let scale = 10_u128.pow(places);
    let (whole, rest) = (units.unsigned_abs() / scale, units.unsigned_abs() % scale);
    let decimals = format!("{rest:0width$}", width = places as usize);
    let needed = decimals.trim_end_matches('0').len().max(least);
    let sign = if units < 0 { "-" } else { "" };
    let point = if needed > 0 { "." } else { "" };
    write!(f, "{sign}{whole}{point}{}", &decimals[..needed])
}

impl fmt::Display for NanoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0.into(), 9, 2)
    }
}

impl fmt::Display for PicoUsd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0, 12, 2)
    }
}

/// The price of one token: trillionths of a US dollar, which is also millionths of a dollar for a million tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Rate(pub u64);

impl Rate {
    /// What so many tokens cost.
    pub fn times(self, tokens: u64) -> PicoUsd {
        PicoUsd(i128::from(self.0).saturating_mul(tokens.into()))
    }

    /// This rate times a factor, if that is a whole number of trillionths.
    pub fn scaled(self, factor: Factor) -> Option<Self> {
        let product = self.0.checked_mul(factor.0.into())?;
        product.is_multiple_of(1000).then_some(Self(product / 1000))
    }
}

/// In dollars for a million tokens, as price lists write it.
impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0.into(), 6, 0)
    }
}

/// A factor on a price, in thousandths.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Factor(pub u32);

impl fmt::Display for Factor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_decimal(f, self.0.into(), 3, 0)
    }
}

/// Why a text is no amount that can be kept exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadDecimal {
    /// It is not a number in JSON's form.
    NotANumber,
    /// It is below zero.
    Negative,
    /// It has more decimals than can be kept.
    TooFine,
    /// It is beyond every sensible amount.
    TooLarge,
}

impl fmt::Display for BadDecimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotANumber => "not a number",
            Self::Negative => "negative",
            Self::TooFine => "too many decimals to be kept exactly",
            Self::TooLarge => "too large",
        })
    }
}

/// Reads a number as JSON writes it (`1.25`, `5e-3`) as a whole number of 10^-`places`ths, without a detour through
/// binary fractions. Numbers from 10^12 up are too large.
pub fn decimal(text: &str, places: u32) -> Result<u64, BadDecimal> {
    let (negative, text) = text.strip_prefix('-').map_or((false, text), |rest| (true, rest));
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => {
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(BadDecimal::NotANumber);
            }
            // An exponent beyond these bounds is beyond every amount as well.
            let size = digits.parse().unwrap_or(i32::MAX).min(1_000_000);
            (mantissa, if exponent.starts_with('-') { -size } else { size })
        }
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, "0"));
    let well_formed = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    if !well_formed(whole) || !well_formed(fraction) || (whole.len() > 1 && whole.starts_with('0')) {
        return Err(BadDecimal::NotANumber);
    }
    let digits = format!("{whole}{fraction}");
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return Ok(0);
    }
    if negative {
        return Err(BadDecimal::Negative);
    }
    let significant = digits.trim_end_matches('0');
    let zeros = (digits.len() - significant.len()) as i64 - fraction.len() as i64 + i64::from(exponent);
    // The value is `significant` times ten to the `zeros`.
    if significant.len() as i64 + zeros > 12 {
        return Err(BadDecimal::TooLarge);
    }
    let shift = u32::try_from(zeros + i64::from(places)).map_err(|_| BadDecimal::TooFine)?;
    let units = significant.parse::<u64>().ok().and_then(|n| n.checked_mul(10_u64.checked_pow(shift)?));
    units.ok_or(BadDecimal::TooLarge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_half_goes_to_the_even_neighbour() {
        for (pico, nano) in [
            (0, 0),
            (499, 0),
            (500, 0),
            (501, 1),
            (1499, 1),
            (1500, 2),
            (1501, 2),
            (2500, 2),
            (2501, 3),
            (3500, 4),
            (-500, 0),
            (-501, -1),
            (-1500, -2),
            (-2500, -2),
        ] {
            assert_eq!(PicoUsd(pico).to_nano(), Some(NanoUsd(nano)), "{pico}");
        }
        let most = i128::from(i64::MAX) * 1000;
        assert_eq!(PicoUsd(most + 499).to_nano(), Some(NanoUsd(i64::MAX)));
        assert_eq!((PicoUsd(most + 501).to_nano(), PicoUsd(i128::MAX).to_nano()), (None, None));
    }

    #[test]
    fn decimals_are_read_exactly() {
        for (text, want) in [
            ("0", Ok(0)),
            ("-0.0", Ok(0)),
            ("0e99999999999", Ok(0)),
            ("1", Ok(1_000_000)),
            ("0.1", Ok(100_000)),
            ("18.75", Ok(18_750_000)),
            ("0.000001", Ok(1)),
            ("0.0000010", Ok(1)),
            ("2.5e-3", Ok(2_500)),
            ("1E+2", Ok(100_000_000)),
            ("100e-2", Ok(1_000_000)),
            ("999999999999", Ok(999_999_999_999_000_000)),
            ("0.0000001", Err(BadDecimal::TooFine)),
            ("1e-7", Err(BadDecimal::TooFine)),
            ("1e-99999999999", Err(BadDecimal::TooFine)),
            ("1000000000000", Err(BadDecimal::TooLarge)),
            ("1e99999999999", Err(BadDecimal::TooLarge)),
            ("-1", Err(BadDecimal::Negative)),
            ("-1e-9", Err(BadDecimal::Negative)),
            ("", Err(BadDecimal::NotANumber)),
            ("-", Err(BadDecimal::NotANumber)),
            ("1.", Err(BadDecimal::NotANumber)),
            (".5", Err(BadDecimal::NotANumber)),
            ("01", Err(BadDecimal::NotANumber)),
            ("1e", Err(BadDecimal::NotANumber)),
            ("+1", Err(BadDecimal::NotANumber)),
            ("\"1\"", Err(BadDecimal::NotANumber)),
            ("null", Err(BadDecimal::NotANumber)),
            ("NaN", Err(BadDecimal::NotANumber)),
            ("1 ", Err(BadDecimal::NotANumber)),
        ] {
            assert_eq!(decimal(text, 6), want, "{text:?}");
        }
    }

    #[test]
    fn amounts_are_written_exactly() {
        for (nano, want) in [
            (0, "0.00"),
            (53_889_220, "0.05388922"),
            (1_500_000_000, "1.50"),
            (1, "0.000000001"),
            (-12_000_000_000, "-12.00"),
            (i64::MIN, "-9223372036.854775808"),
        ] {
            assert_eq!(NanoUsd(nano).to_string(), want);
        }
        assert_eq!(PicoUsd(1).to_string(), "0.000000000001");
        assert_eq!((Rate(125_000).to_string(), Rate(4_000_000).to_string()), ("0.125".into(), "4".into()));
        assert_eq!(Factor(1100).to_string(), "1.1");
    }

    #[test]
    fn a_rate_is_scaled_exactly_or_not_at_all() {
        assert_eq!(Rate(137_500).scaled(Factor(1100)), Some(Rate(151_250)));
        assert_eq!(Rate(1).scaled(Factor(1100)), None);
        assert_eq!(Rate(u64::MAX).scaled(Factor(2000)), None);
        assert_eq!(Rate(u64::MAX).times(u64::MAX).0, i128::from(u64::MAX).saturating_mul(u64::MAX.into()));
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_again(units in 0_u64..1_000_000_000_000_000_000) {
            proptest::prop_assert_eq!(decimal(&Rate(units).to_string(), 6), Ok(units));
        }
    }
}
