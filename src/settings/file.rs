//! Config files in TOML, YAML and JSON, read by the crate `config`. The layer `python` runs config
//! files in Python.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ::config::{File, FileFormat};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

use super::error::Error;
use super::value::Value;

/// Reads the top-level keys of a data file and their values, sorted by key. The file's extension
/// chooses the format.
///
/// # Errors
/// The file cannot be read, or has another format than its extension says. The text names the file
/// and, where known, the line.
pub fn read_file(path: &Path) -> Result<Vec<(String, Value)>, Error> {
    let unreadable = |reason: String| Error::UnreadableFile { path: path.to_owned(), reason };
    let format = format_of(path).ok_or_else(|| unreadable("it does not end in .toml, .yaml, .yml or .json".into()))?;
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    parse(&text, format).map_err(unreadable)
}

/// The format that a file's extension stands for, if it is one of these.
pub(super) fn format_of(path: &Path) -> Option<FileFormat> {
    match path.extension()?.to_str()? {
        "toml" => Some(FileFormat::Toml),
        "yaml" | "yml" => Some(FileFormat::Yaml),
        "json" => Some(FileFormat::Json),
        _ => None,
    }
}

fn parse(text: &str, format: FileFormat) -> Result<Vec<(String, Value)>, String> {
    let source = ::config::Config::builder().add_source(File::from_str(text, format));
    // The crate returns tables in no order. Sorted, they give the same warnings every time.
    let table = source.build().and_then(|built| built.try_deserialize::<BTreeMap<String, Value>>());
    Ok(table.map_err(|error| error.to_string())?.into_iter().collect())
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

/// Accepts any value of the format.
struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::None)
    }

    fn visit_bool<E>(self, yes: bool) -> Result<Value, E> {
        Ok(Value::Bool(yes))
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(Value::Int(number))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(i64::try_from(number).map_or_else(|_| Value::Str(number.to_string()), Value::Int))
    }

    /// Numbers that are not whole become text: no setting takes them, and the error then shows what
    /// was written.
    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(Value::Str(number.to_string()))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::Str(text.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        map.sort_by(|a: &(String, Value), b| a.0.cmp(&b.0));
        Ok(Value::Map(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_settings_are_read_from_each_language() {
        let toml = "workers = 3\nbind = ['a:1', 'b:2']\nreload = true\n[secure_scheme_headers]\nX-Proto = 'https'\n";
        let yaml = "workers: 3\nbind:\n  - a:1\n  - b:2\nreload: true\nsecure_scheme_headers:\n  X-Proto: https\n";
        let json =
            r#"{"workers": 3, "bind": ["a:1", "b:2"], "reload": true, "secure_scheme_headers": {"X-Proto": "https"}}"#;
        let expected = vec![
            ("bind".to_owned(), Value::from_iter(["a:1", "b:2"])),
            ("reload".to_owned(), Value::Bool(true)),
            ("secure_scheme_headers".to_owned(), Value::Map(vec![("X-Proto".into(), Value::from("https"))])),
            ("workers".to_owned(), Value::Int(3)),
        ];
        for (text, format) in [(toml, FileFormat::Toml), (yaml, FileFormat::Yaml), (json, FileFormat::Json)] {
            assert_eq!(parse(text, format).unwrap(), expected, "{format:?}");
        }
    }

    #[test]
    fn null_is_none_and_a_fraction_stays_as_written() {
        let values = parse(r#"{"a": null, "b": 1.5}"#, FileFormat::Json).unwrap();
        assert_eq!(values, [("a".to_owned(), Value::None), ("b".to_owned(), Value::from("1.5"))]);
    }

    #[test]
    fn an_empty_file_sets_nothing() {
        for format in [FileFormat::Toml, FileFormat::Yaml] {
            assert_eq!(parse("", format), Ok(Vec::new()), "{format:?}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = read_file(Path::new("/proc/nonexistent/a.toml")).unwrap_err().to_string();
        assert_eq!(
            error,
            "the config file '/proc/nonexistent/a.toml' cannot be read: No such file or directory (os error 2)"
        );
        assert!(read_file(Path::new("a.ini")).is_err());
        assert!(parse("workers = = 3", FileFormat::Toml).is_err());
    }
}
