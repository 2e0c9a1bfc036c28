//! Decimal numbers as protocols write them: ASCII digits and nothing else. The standard library's
//! `from_str` also takes a sign.

/// The number that `digits` are; `None` if there are none, if another byte is among them, or if the
/// number does not fit.
pub fn parse(digits: &[u8]) -> Option<u64> {
    let number = digits.iter().try_fold(0_u64, |number, &digit| {
        let digit = digit.is_ascii_digit().then(|| digit - b'0')?;
        number.checked_mul(10)?.checked_add(u64::from(digit))
    })?;
    (!digits.is_empty()).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_digits_are_a_number() {
        let cases: [(&[u8], Option<u64>); 9] = [
            (b"0", Some(0)),
            (b"0080", Some(80)),
            (b"18446744073709551615", Some(u64::MAX)),
            (b"18446744073709551616", None),
            (b"", None),
            (b"+1", None),
            (b"-1", None),
            (b"1 ", None),
            (b"1_0", None),
        ];
        for (digits, number) in cases {
            assert_eq!(parse(digits), number, "{}", digits.escape_ascii());
        }
    }
}
