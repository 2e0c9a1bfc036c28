//! Finds the setting that a misspelled name probably means.

use super::setting::Setting;
use super::table::{NOT_SUPPORTED, all};

/// The setting whose flag has that name (`log_level` for `--log-level`), or whose own name differs
/// by one or two letters.
pub(super) fn nearest_setting(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let settings = || all().chain(NOT_SUPPORTED);
    let has_flag =
        |setting: &&Setting| setting.flags.iter().any(|flag| flag.trim_start_matches('-').replace('-', "_") == name);
    if let Some(setting) = settings().find(has_flag) {
        return Some(setting.name);
    }
    let slips = (name.len() / 3).min(MOST_SLIPS);
    let distances = settings().map(|setting| (edit_distance(&name, setting.name), setting.name));
    distances.filter(|(distance, _)| *distance <= slips).min().map(|(_, near)| near)
}

/// The most letters that may differ; with more it is another word.
const MOST_SLIPS: usize = 2;

/// How many letters to insert, delete or replace to turn one name into the other (Levenshtein).
fn edit_distance(from: &str, to: &str) -> usize {
    if from.len().abs_diff(to.len()) > MOST_SLIPS {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (i, letter) in from.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, other) in to.bytes().enumerate() {
            let replaced = diagonal + usize::from(letter != other);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[to.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_is_recognized_and_another_word_is_not() {
        let cases = [
            ("worker", Some("workers")),
            ("wokrers", Some("workers")),
            ("Workers", Some("workers")),
            ("access_logfile", Some("accesslog")),
            ("max-requests", Some("max_requests")),
            ("threds", Some("threads")),
            ("cores", None),
            ("host", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest_setting(name), expected, "{name}");
        }
    }
}
