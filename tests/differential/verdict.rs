//! Two transcripts held against each other, and the difference against what is allowed.

use super::case::{Allowance, Filter, Line};
use super::play::IN_VAIN;

/// The faults of a case: lines that differ and should not, and allowances that no line needs any
/// longer.
pub fn faults(
    gunicorn: &[String],
    ours: &[String],
    filter: &Filter,
    differs: &[Allowance],
    known: &str,
) -> Vec<String> {
    let mut faults = mishaps(gunicorn, "gunicorn");
    faults.extend(mishaps(ours, "ours"));
    let keep = |lines: &[String], others: &[String]| -> Vec<String> {
        lines.iter().filter(|line| filter.keeps(line, others)).cloned().collect()
    };
    let (gunicorn, ours) = (keep(gunicorn, ours), keep(ours, gunicorn));
    let mut left = difference(&gunicorn, &ours);
    for Allowance { id, lines } in differs {
        if !known.contains(&format!("<a id=\"{id}\"></a>")) {
            faults.push(format!("docs/differences.md has no {id}"));
        }
        if lines.is_empty() {
            faults.push(format!("the allowance {id} names no line"));
        }
        for Line { sign, is_many, pattern } in lines {
            let before = left.len();
            let mut is_first = true;
            left.retain(|(other, line)| {
                let is_meant = other == sign && (*is_many || is_first) && fits(pattern, line);
                is_first &= !is_meant;
                !is_meant
            });
            if left.len() == before {
                faults.push(format!("stale, {id} is not seen:\n    {sign} {pattern}"));
            }
        }
    }
    if !left.is_empty() {
        let lines: Vec<String> = left.iter().map(|(sign, line)| format!("    {sign} {line}")).collect();
        faults.push(format!("differs (- gunicorn, + ours):\n{}", lines.join("\n")));
    }
    if gunicorn.is_empty() && ours.is_empty() {
        faults.push("nothing was compared".into());
    }
    faults
}

/// Waits that failed. If both servers fail to reach a state there is no difference, but the case
/// shows nothing.
fn mishaps(lines: &[String], side: &str) -> Vec<String> {
    let in_vain = lines.iter().filter(|line| line.starts_with(IN_VAIN) || *line == "< (silence)");
    in_vain.map(|line| format!("{side}: {line}")).collect()
}

impl Filter {
    /// `others` is the other server's transcript.
    fn keeps(&self, line: &str, others: &[String]) -> bool {
        let has = |words: &[String]| words.iter().any(|word| line.contains(word));
        let is_foreign = |name: &str| match &self.settings[..] {
            [] => false,
            [word] if word == "common" => !others.iter().any(|other| setting(other) == Some(name)),
            names => !names.iter().any(|wanted| wanted == name),
        };
        (self.only.is_empty() || has(&self.only)) && !has(&self.without) && !setting(line).is_some_and(is_foreign)
    }
}

/// The name in a line of `--print-config`.
fn setting(line: &str) -> Option<&str> {
    Some(line.strip_prefix("out: ")?.split_once(" =")?.0)
}

/// The lines that are not in a longest common subsequence, in order: `-` only in the first, `+`
/// only in the second.
fn difference(first: &[String], second: &[String]) -> Vec<(char, String)> {
    let mut common = vec![vec![0; second.len() + 1]; first.len() + 1];
    for i in (0..first.len()).rev() {
        for j in (0..second.len()).rev() {
            common[i][j] =
                if first[i] == second[j] { common[i + 1][j + 1] + 1 } else { common[i + 1][j].max(common[i][j + 1]) };
        }
    }
    let (mut i, mut j) = (0, 0);
    let mut lines = Vec::new();
    while i < first.len() || j < second.len() {
        if i < first.len() && j < second.len() && first[i] == second[j] {
            (i, j) = (i + 1, j + 1);
        } else if j == second.len() || (i < first.len() && common[i + 1][j] >= common[i][j + 1]) {
            lines.push(('-', first[i].clone()));
            i += 1;
        } else {
            lines.push(('+', second[j].clone()));
            j += 1;
        }
    }
    lines
}

/// Whether a line is `pattern`, in which `*` stands for any text.
fn fits(pattern: &str, line: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[test]
fn a_verdict_tells_new_allowed_and_stale_differences_apart() {
    let lines = |text: &str| text.lines().map(String::from).collect::<Vec<_>>();
    let allow = |id: &str, lines: &[(char, &str)]| {
        let line = |(sign, text): &(char, &str)| Line { sign: *sign, is_many: false, pattern: (*text).into() };
        vec![Allowance { id: id.into(), lines: lines.iter().map(line).collect() }]
    };
    let known = "| <a id=\"one\"></a>a | b |";
    let judge = |ours: &str, differs: &[Allowance]| {
        faults(&lines("a\nb 1 c\nd"), &lines(ours), &Filter::default(), differs, known).len()
    };
    assert_eq!(judge("a\nb 1 c\nd", &[]), 0);
    assert_eq!(judge("a\nb 2 c\nd", &[]), 1);
    assert_eq!(judge("a\nb 2 c\nd", &allow("one", &[('-', "b * c"), ('+', "b 2*")])), 0);
    assert_eq!(judge("a\nb 2 c\nd", &allow("two", &[('-', "b * c"), ('+', "b 2*")])), 1, "an id that is not there");
    assert_eq!(judge("a\nb 1 c\nd", &allow("one", &[('-', "b * c")])), 1, "stale");
    assert_eq!(judge("a\nb 2 c\nd", &allow("one", &[])), 2, "an empty allowance allows nothing");
}
