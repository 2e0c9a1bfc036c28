//! A setting's value before it has a type: as a config file, the environment or the command line
//! gives it.
//!
//! The readers are the only conversions. The error of each says what it accepts. They never name
//! the setting, because the caller knows it and adds it.

use std::fmt;
use std::path::PathBuf;

use crate::base::repr;

/// A value as it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// Python's None, JSON's null.
    None,
    /// True or false.
    Bool(bool),
    /// A whole number.
    Int(i64),
    /// Text, also from sources whose values have no types.
    Str(String),
    /// Several values.
    List(Vec<Value>),
    /// Named values, in the order given.
    Map(Vec<(String, Value)>),
    /// A Python object (a function, a class), as Python shows it.
    Object(String),
}

/// Why a value is invalid: the offending part, and the fault as the end of a sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueError {
    value: String,
    problem: String,
}

impl ValueError {
    /// `text` is the offending part; `problem` continues the sentence: "is not a valid port
    /// number".
    pub fn new(text: &str, problem: impl Into<String>) -> ValueError {
        ValueError { value: repr::of_str(text), problem: problem.into() }
    }

    fn of(value: &Value, problem: impl Into<String>) -> ValueError {
        ValueError { value: value.repr(), problem: problem.into() }
    }
}

impl fmt::Display for ValueError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.value, self.problem)
    }
}

impl std::error::Error for ValueError {}

impl Value {
    /// A whole number from 0 to `max`. Text may have a base: `0x1f`, `0o17`, `0b1`. True is 1, as
    /// in Python.
    pub fn count(&self, max: i64) -> Result<i64, ValueError> {
        let number = match self {
            Value::Int(number) => Some(*number),
            Value::Bool(yes) => Some(i64::from(*yes)),
            Value::Str(text) => parse_int(text),
            _ => None,
        };
        match number {
            Some(number) if number > max => {
                Err(ValueError::of(self, format!("is more than the largest allowed, {max}")))
            }
            Some(number) if number >= 0 => Ok(number),
            _ => Err(ValueError::of(self, "is not a non-negative integer")),
        }
    }

    /// File mode bits: as [`Value::count`], but text with a leading zero is octal (`0022`), as in a
    /// shell.
    pub fn mode(&self) -> Result<u32, ValueError> {
        let number = match self {
            Value::Str(text) => match parse_mode(text) {
                Some(number) => Value::Int(number).count(MODE_BITS),
                None => Err(ValueError::of(self, "is not a file mode such as 0022")),
            },
            _ => self.count(MODE_BITS),
        };
        number.map(|bits| bits as u32)
    }

    /// True or false, also as text in any case. None is false, as in gunicorn.
    pub fn bool(&self) -> Result<bool, ValueError> {
        match self {
            Value::Bool(yes) => Ok(*yes),
            Value::None => Ok(false),
            Value::Str(text) if text.trim().eq_ignore_ascii_case("true") => Ok(true),
            Value::Str(text) if text.trim().eq_ignore_ascii_case("false") => Ok(false),
            _ => Err(ValueError::of(self, "is not true or false")),
        }
    }

    /// Text, without white space around it.
    pub fn text(&self) -> Result<String, ValueError> {
        match self {
            Value::Str(text) => Ok(text.trim().to_owned()),
            _ => Err(ValueError::of(self, "is not a string")),
        }
    }

    /// Text that may be missing: None and empty text are both `None`.
    pub fn optional_text(&self) -> Result<Option<String>, ValueError> {
        match self {
            Value::None => Ok(None),
            _ => self.text().map(|text| Some(text).filter(|text| !text.is_empty())),
        }
    }

    /// A path that may be missing.
    pub fn optional_path(&self) -> Result<Option<PathBuf>, ValueError> {
        Ok(self.optional_text()?.map(PathBuf::from))
    }

    /// A list of texts. A single text is a list of one; None and empty text are empty lists.
    pub fn texts(&self) -> Result<Vec<String>, ValueError> {
        match self {
            Value::None => Ok(Vec::new()),
            Value::Str(text) if text.is_empty() => Ok(Vec::new()),
            Value::Str(_) => Ok(vec![self.text()?]),
            Value::List(items) => items.iter().map(Value::text).collect(),
            _ => Err(ValueError::of(self, "is not a list of strings")),
        }
    }

    /// A list of texts, written with commas or as a real list; empty items are left out.
    pub fn comma_separated(&self) -> Result<Vec<String>, ValueError> {
        let items = self.texts()?;
        let items = items.iter().flat_map(|text| text.split(',')).map(str::trim);
        Ok(items.filter(|item| !item.is_empty()).map(str::to_owned).collect())
    }

    /// Names and texts, in the order given.
    pub fn map_of_texts(&self) -> Result<Vec<(String, String)>, ValueError> {
        match self {
            Value::Map(entries) => entries.iter().map(|(name, value)| Ok((name.clone(), value.text()?))).collect(),
            _ => Err(ValueError::of(self, "is not a mapping of names to strings")),
        }
    }

    /// Whether it is a Python object.
    pub fn is_object(&self) -> bool {
        matches!(self, Value::Object(_))
    }

    /// A Python object, or the dotted name to import it by; `None` for None and empty text.
    pub fn object(&self) -> Result<Option<String>, ValueError> {
        match self {
            Value::Object(shown) => Ok(Some(shown.clone())),
            Value::None | Value::Str(_) => self.optional_text(),
            _ => Err(ValueError::of(self, "is not a function, nor the name of one")),
        }
    }

    /// The value as Python's repr writes it: text in quotes.
    pub fn repr(&self) -> String {
        match self {
            Value::Str(text) => repr::of_str(text),
            _ => self.to_string(),
        }
    }
}

/// As Python's str() writes it: `None`, `True`, `['a', 'b']`; text at the top bare.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::None => f.write_str("None"),
            Value::Bool(true) => f.write_str("True"),
            Value::Bool(false) => f.write_str("False"),
            Value::Int(number) => write!(f, "{number}"),
            Value::Str(text) | Value::Object(text) => f.write_str(text),
            Value::List(items) => {
                let items: Vec<String> = items.iter().map(Value::repr).collect();
                write!(f, "[{}]", items.join(", "))
            }
            Value::Map(entries) => {
                let entry = |(name, value): &(String, Value)| format!("{}: {}", repr::of_str(name), value.repr());
                let entries: Vec<String> = entries.iter().map(entry).collect();
                write!(f, "{{{}}}", entries.join(", "))
            }
        }
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Value {
        Value::Bool(yes)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Str(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Str(text)
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Value {
        value.map_or(Value::None, Into::into)
    }
}

impl<T: Into<Value>> FromIterator<T> for Value {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Value {
        Value::List(items.into_iter().map(Into::into).collect())
    }
}

/// Read, write and execute for three, and the three special bits.
const MODE_BITS: i64 = 0o7777;

/// Python's `int(text, 0)`: a base prefix, underscores between digits, no other leading zero.
fn parse_int(text: &str) -> Option<i64> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, digits) = match lower.get(..2) {
        Some("0x") => (16, &lower[2..]),
        Some("0o") => (8, &lower[2..]),
        Some("0b") => (2, &lower[2..]),
        _ => (10, lower.as_str()),
    };
    // `from_str_radix` accepts a second sign.
    let leads_with_zero = base == 10 && digits.len() > 1 && digits.starts_with('0');
    let loose = digits.starts_with(['_', '+', '-']) || digits.ends_with('_') || digits.contains("__");
    if loose || (leads_with_zero && !digits.trim_matches(['0', '_']).is_empty()) {
        return None;
    }
    let number = i64::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -number } else { number })
}

/// gunicorn's own reading of `--umask`: a zero in front of a digit means octal.
fn parse_mode(text: &str) -> Option<i64> {
    let text = text.trim();
    match text.strip_prefix('0') {
        Some(digits) if digits.starts_with(|first: char| first.is_ascii_digit()) => parse_int(&format!("0o{digits}")),
        _ => parse_int(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_as_python_reads_them() {
        let cases = [
            (Value::Int(0), Some(0)),
            (Value::Int(-1), None),
            (Value::Bool(true), Some(1)),
            (Value::None, None),
            (Value::from("7"), Some(7)),
            (Value::from(" 7 "), Some(7)),
            (Value::from("+7"), Some(7)),
            (Value::from("-7"), None),
            (Value::from("--7"), None),
            (Value::from("0x1F"), Some(31)),
            (Value::from("0o17"), Some(15)),
            (Value::from("0b11"), Some(3)),
            (Value::from("1_000"), Some(1000)),
            (Value::from("1__0"), None),
            (Value::from("_1"), None),
            (Value::from("00"), Some(0)),
            (Value::from("010"), None),
            (Value::from("0x"), None),
            (Value::from("0x-1"), None),
            (Value::from(""), None),
            (Value::from("é"), None),
            (Value::from("1.5"), None),
            (Value::from("99999999999999999999"), None),
            (Value::List(vec![Value::Int(1)]), None),
        ];
        for (value, expected) in cases {
            assert_eq!(value.count(i64::MAX).ok(), expected, "{value:?}");
        }
    }

    #[test]
    fn a_count_above_its_limit_names_the_limit() {
        let error = Value::from("70000").count(65535).unwrap_err();
        assert_eq!(error.to_string(), "'70000' is more than the largest allowed, 65535");
    }

    #[test]
    fn a_mode_with_a_leading_zero_is_octal() {
        let cases = [
            (Value::from("0022"), Some(0o22)),
            (Value::from("022"), Some(0o22)),
            (Value::from("0o22"), Some(0o22)),
            (Value::from("0x12"), Some(0o22)),
            (Value::from("18"), Some(0o22)),
            (Value::from("0"), Some(0)),
            (Value::Int(18), Some(0o22)),
            (Value::from("09"), None),
            (Value::from("010000"), None),
            (Value::Int(-1), None),
        ];
        for (value, expected) in cases {
            assert_eq!(value.mode().ok(), expected, "{value:?}");
        }
    }

    #[test]
    fn booleans_are_booleans_or_true_or_false_in_any_case() {
        let cases = [
            (Value::Bool(true), Some(true)),
            (Value::None, Some(false)),
            (Value::from(" TRUE "), Some(true)),
            (Value::from("False"), Some(false)),
            (Value::from("yes"), None),
            (Value::Int(1), None),
        ];
        for (value, expected) in cases {
            assert_eq!(value.bool().ok(), expected, "{value:?}");
        }
    }

    #[test]
    fn lists_take_one_text_for_a_list_of_one() {
        let two = Value::from_iter(["a", "b, c"]);
        assert_eq!(two.texts().unwrap(), ["a", "b, c"]);
        assert_eq!(two.comma_separated().unwrap(), ["a", "b", "c"]);
        assert_eq!(Value::from("a,,b ").comma_separated().unwrap(), ["a", "b"]);
        assert_eq!(Value::from("a,b").texts().unwrap(), ["a,b"]);
        assert!(Value::from("").texts().unwrap().is_empty());
        assert!(Value::None.texts().unwrap().is_empty());
        assert!(Value::Int(1).texts().is_err());
        assert!(Value::List(vec![Value::Int(1)]).texts().is_err());
    }

    #[test]
    fn values_print_as_python_prints_them() {
        let map = Value::Map(vec![("A".into(), Value::from("on")), ("B".into(), Value::Int(1))]);
        let cases = [
            (Value::None, "None"),
            (Value::Bool(false), "False"),
            (Value::Int(-3), "-3"),
            (Value::from("a b"), "a b"),
            (Value::from_iter(["a", "it's", "\0\n"]), r#"['a', "it's", '\x00\n']"#),
            (map, "{'A': 'on', 'B': 1}"),
        ];
        for (value, expected) in cases {
            assert_eq!(value.to_string(), expected);
        }
    }
}
