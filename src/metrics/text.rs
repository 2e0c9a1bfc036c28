//! The two text formats of Prometheus.
//!
//! Text 0.0.4 is what every reader knows; OpenMetrics 1.0 names counters without their `_total` in
//! the lines above the samples, and has an end that tells a whole page from half of one.

use std::fmt::Write;

use super::families::{Family, Kind, Measured, Sample};
use crate::scoreboard::{BOUNDS_NS, Histogram};

/// A format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' text format, version 0.0.4.
    Prometheus,
    /// OpenMetrics, version 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The media type of a page.
    pub fn media_type(self) -> &'static str {
        match self {
            Format::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// A page of these families. A family without a sample is left out.
pub fn page(families: &[Family], format: Format) -> String {
    // A worker adds about four lines to the hundred that there always are.
    let mut page = String::with_capacity(16 * 1024);
    for family in families.iter().filter(|family| !family.samples.is_empty()) {
        print_family(&mut page, family, format);
    }
    if format == Format::OpenMetrics {
        page.push_str("# EOF\n");
    }
    page
}

fn print_family(page: &mut String, family: &Family, format: Format) {
    let Family { name, help, kind, samples } = family;
    let suffix = if *kind == Kind::Counter { "_total" } else { "" };
    let announced = if format == Format::OpenMetrics { "" } else { suffix };
    let kind = match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    // Writing into a text cannot fail.
    let _ = write!(page, "# HELP {name}{announced} {help}\n# TYPE {name}{announced} {kind}\n");
    for sample in samples {
        print_sample(page, &format!("{name}{suffix}"), sample);
    }
}

fn print_sample(page: &mut String, name: &str, sample: &Sample) {
    match &sample.value {
        Measured::Count(count) => print_line(page, name, &sample.labels, &[], &count.to_string()),
        Measured::Quantity(value) => print_line(page, name, &sample.labels, &[], &value.to_string()),
        Measured::Durations(histogram) => print_histogram(page, name, &sample.labels, histogram),
    }
}

fn print_histogram(page: &mut String, name: &str, labels: &[(&'static str, String)], histogram: &Histogram) {
    let bucket = format!("{name}_bucket");
    let mut below = 0;
    for (count, bound) in histogram.buckets.iter().zip(BOUNDS_NS.iter().map(Some).chain([None])) {
        below += count;
        // "1.0" rather than "1": OpenMetrics wants it so, and a series keeps its name in both
        // formats.
        let bound = bound.map_or_else(|| "+Inf".to_owned(), |&bound| format!("{:?}", bound as f64 / 1e9));
        print_line(page, &bucket, labels, &[("le", &bound)], &below.to_string());
    }
    print_line(page, &format!("{name}_sum"), labels, &[], &(histogram.sum_ns as f64 / 1e9).to_string());
    print_line(page, &format!("{name}_count"), labels, &[], &below.to_string());
}

fn print_line(
    page: &mut String,
    name: &str,
    labels: &[(&'static str, String)],
    more: &[(&'static str, &str)],
    value: &str,
) {
    page.push_str(name);
    let all = labels.iter().map(|(name, value)| (*name, value.as_str())).chain(more.iter().copied());
    let mut before = '{';
    for (name, value) in all {
        let _ = write!(page, "{before}{name}=\"");
        value.chars().for_each(|character| match character {
            '\\' => page.push_str("\\\\"),
            '"' => page.push_str("\\\""),
            '\n' => page.push_str("\\n"),
            other => page.push(other),
        });
        page.push('"');
        before = ',';
    }
    if before == ',' {
        page.push('}');
    }
    let _ = writeln!(page, " {value}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn family(kind: Kind, labels: Vec<(&'static str, String)>, value: Measured) -> Family {
        Family { name: "m_things", help: "Things.", kind, samples: vec![Sample { labels, value }] }
    }

    #[test]
    fn a_counter_is_announced_as_each_format_wants_it() {
        let counter = [family(Kind::Counter, vec![("at", "a\"b\\c\nd".to_owned())], Measured::Count(3))];
        let sample = "m_things_total{at=\"a\\\"b\\\\c\\nd\"} 3\n";
        assert_eq!(
            page(&counter, Format::Prometheus),
            format!("# HELP m_things_total Things.\n# TYPE m_things_total counter\n{sample}")
        );
        assert_eq!(
            page(&counter, Format::OpenMetrics),
            format!("# HELP m_things Things.\n# TYPE m_things counter\n{sample}# EOF\n")
        );
    }

    #[test]
    fn a_histogram_is_cumulative_and_ends_with_its_count() {
        let mut histogram = Histogram::default();
        (histogram.buckets[0], histogram.buckets[2], histogram.buckets[18]) = (1, 2, 4);
        histogram.sum_ns = 1_500_000_000;
        let text =
            page(&[family(Kind::Histogram, vec![], Measured::Durations(Box::new(histogram)))], Format::Prometheus);
        for line in [
            "m_things_bucket{le=\"0.001\"} 1",
            "m_things_bucket{le=\"0.005\"} 3",
            "m_things_bucket{le=\"1.0\"} 3",
            "m_things_bucket{le=\"+Inf\"} 7",
            "m_things_sum 1.5",
            "m_things_count 7",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in {text}");
        }
    }
}
