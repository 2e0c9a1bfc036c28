//! `status`: how the server is at this moment.

use serde_json::{Map, Number, Value};

use super::frame::{Order, frame};
use super::reading::{Memory, Reading};
use super::{DEGRADED, OK, print, serves_fully};
use crate::metrics::families::{Family, Measured, Sample};
use crate::metrics::{Extras, Source, gather};
use crate::scoreboard::{BOUNDS_NS, Scoreboard};

/// Columns of a frame that goes to a file.
const WIDTH: usize = 80;

/// How the state is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Text,
    Json,
    /// By the exit status alone.
    Probe,
}

/// Prints the state, and returns the exit status that tells it.
pub(super) fn show(board: &Scoreboard, form: Form) -> i32 {
    match form {
        Form::Text => print_frame(board),
        Form::Json => print(&json(board).to_string()),
        Form::Probe => {
            let serves = board.passes_checks() && board.read_workers().iter().any(|worker| worker.is_serving());
            return if serves { OK } else { DEGRADED };
        }
    }
    if serves_fully(board) { OK } else { DEGRADED }
}

/// A single frame: everything since the start.
pub(super) fn print_frame(board: &Scoreboard) {
    let order = Order { column: 0, is_reversed: false };
    for line in frame(&Reading::of(board, Memory::Resident), None, order, WIDTH) {
        print(line.text.trim_end());
    }
}

/// The metrics by their names without the prefix; a metric with labels is a list.
fn json(board: &Scoreboard) -> Value {
    let families = gather(&Source {
        board,
        listeners: &[],
        python: "",
        worker_class: "",
        certificates: &[],
        extras: Extras { open_fds: true },
    });
    let mut all = Map::new();
    all.insert("name".to_owned(), board.name().into());
    all.insert("pid".to_owned(), board.master().as_raw().into());
    all.insert("generation".to_owned(), board.generation().into());
    all.insert("serves_fully".to_owned(), serves_fully(board).into());
    for family in families.iter().filter(|family| family.name != "monoceros_build_info") {
        all.insert(family.name.trim_start_matches("monoceros_").to_owned(), of_family(family));
    }
    let pids = board.read_workers().into_iter().filter_map(|worker| {
        let age = Number::from_f64(worker.age.as_secs_f64())?;
        let fields: [(&str, Value); 5] = [
            ("worker", worker.number.into()),
            ("pid", worker.pid?.as_raw().into()),
            ("state", format!("{:?}", worker.phase).to_lowercase().into()),
            ("served", worker.served.into()),
            ("age_seconds", age.into()),
        ];
        Some(Value::Object(fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()))
    });
    all.insert("worker_processes".to_owned(), pids.collect());
    Value::Object(all)
}

fn of_family(family: &Family) -> Value {
    match &family.samples[..] {
        [Sample { labels, value }] if labels.is_empty() => of_value(value),
        samples => samples.iter().map(of_sample).collect(),
    }
}

fn of_sample(sample: &Sample) -> Value {
    let mut fields: Map<String, Value> =
        sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.as_str().into())).collect();
    fields.insert("value".to_owned(), of_value(&sample.value));
    Value::Object(fields)
}

fn of_value(value: &Measured) -> Value {
    match value {
        Measured::Count(count) => (*count).into(),
        Measured::Quantity(quantity) => Number::from_f64(*quantity).map_or(Value::Null, Value::Number),
        Measured::Durations(histogram) => {
            let bounds = BOUNDS_NS.iter().map(|&bound| format!("{:?}", bound as f64 / 1e9)).chain(["+Inf".to_owned()]);
            let mut below = 0;
            let buckets: Map<String, Value> = bounds
                .zip(histogram.buckets)
                .map(|(bound, count)| {
                    below += count;
                    (bound, below.into())
                })
                .collect();
            serde_json::json!({"count": histogram.count(), "sum": histogram.sum_ns as f64 / 1e9, "buckets": buckets})
        }
    }
}
