//! `stacks`: the requests that workers are at, and where in the code.
//!
//! A worker writes its stacks when it is asked by a signal
//! ([`stack_file`](crate::sys::stack_file)). The master goes on meanwhile, and looks again at each
//! turn of its loop until all have answered or their time is over.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::sys::stack_file::{NoAnswer, Question, Written};

use super::super::Master;
use super::super::worker::Worker;

/// How long a worker may take to write its stacks.
const PATIENCE: Duration = Duration::from_secs(2);

/// Bytes of stacks in one reply. A worker whose stacks do not fit any more is shown without them.
const MOST_BYTES: usize = 4 << 20;

/// The workers that a client wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum WantedWorkers {
    All,
    /// The one with this pid.
    One(i64),
}

/// The workers that were asked.
pub(super) struct AskedWorkers(Vec<AskedWorker>);

struct AskedWorker {
    /// What the master knows of the worker.
    shown: Map<String, Value>,
    answer: Answer,
}

enum Answer {
    Awaited(Question),
    Given(Result<String, NoAnswer>),
}

impl AskedWorkers {
    /// Takes the answers that have come, and returns the reply once all have.
    pub fn reply(&mut self, now: Instant) -> Option<Value> {
        self.0.iter_mut().for_each(|worker| worker.answer.look(now));
        if self.0.iter().any(|worker| matches!(worker.answer, Answer::Awaited(_))) {
            return None;
        }
        let mut room = MOST_BYTES;
        let workers: Vec<Value> =
            std::mem::take(&mut self.0).into_iter().map(|worker| worker.told(&mut room)).collect();
        Some(json!({"count": workers.len(), "workers": workers}))
    }
}

impl Answer {
    fn look(&mut self, now: Instant) {
        if let Answer::Awaited(question) = self
            && let Some(given) = question.answer(now)
        {
            *self = Answer::Given(given);
        }
    }
}

impl AskedWorker {
    fn told(self, room: &mut usize) -> Value {
        let mut shown = self.shown;
        let (stacks, error) = match self.answer {
            Answer::Given(Ok(stacks)) if stacks.len() <= *room => {
                *room -= stacks.len();
                (json!(stacks), Value::Null)
            }
            Answer::Given(Ok(_)) => (Value::Null, json!("left out: the reply is full; ask for this worker alone")),
            Answer::Given(Err(reason)) => (Value::Null, json!(reason.to_string())),
            Answer::Awaited(_) => (Value::Null, json!(NoAnswer::Silent.to_string())),
        };
        shown.insert("stacks".to_owned(), stacks);
        shown.insert("error".to_owned(), error);
        Value::Object(shown)
    }
}

impl Master {
    /// Asks the workers for their stacks.
    pub(super) fn ask_for_stacks(&self, wanted: WantedWorkers) -> AskedWorkers {
        let is_wanted = |worker: &&&Worker| match wanted {
            WantedWorkers::All => true,
            WantedWorkers::One(pid) => i64::from(worker.pid.as_raw()) == pid,
        };
        let asked = |worker: &&Worker| AskedWorker {
            shown: self.shown_with_requests(worker),
            answer: Question::ask(worker.pid, Written::ThreadsAndGreenlets, PATIENCE)
                .map_or_else(|reason| Answer::Given(Err(reason)), Answer::Awaited),
        };
        AskedWorkers(self.by_age().iter().filter(is_wanted).map(asked).collect())
    }

    fn shown_with_requests(&self, worker: &Worker) -> Map<String, Value> {
        let requests = self.workers.scoreboard().read_requests();
        let own = requests.iter().filter(|request| request.row == worker.number);
        let told: Vec<Value> =
            own.map(|request| json!({"age": request.age.as_secs_f64(), "request": request.text})).collect();
        let fields = [
            ("pid", json!(worker.pid.as_raw())),
            ("number", json!(worker.number)),
            ("state", json!(format!("{:?}", worker.row.state()).to_lowercase())),
            ("in_flight", json!(worker.row.running())),
            ("requests", Value::Array(told)),
        ];
        fields.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
    }
}
