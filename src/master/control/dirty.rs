//! The replies to commands about dirty workers. Most of them wait for the dirty arbiter, which
//! knows the workers.

use serde_json::{Value, json};

use super::super::Master;
use super::super::dirty::{Query, Request};
use super::{Awaited, CommandReply};

/// What the arbiter is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Question {
    /// `show all`
    ShowAll,
    /// `show dirty`
    ShowDirty,
    /// `dirty add`, `dirty remove`
    Change(Request),
}

impl Question {
    fn request(self) -> Request {
        match self {
            Question::ShowAll | Question::ShowDirty => Request::Status,
            Question::Change(request) => request,
        }
    }
}

impl Master {
    /// Asks the arbiter. Without an arbiter the reply is known at once.
    pub(super) fn ask_dirty(&self, question: Question) -> CommandReply {
        let asked = self.dirty_arbiter().and(self.dirty.socket(self.generations.serving.number));
        let Some(socket) = asked else { return CommandReply::Now(self.dirty_reply(question, None)) };
        match Query::begin(&socket, question.request()) {
            Ok(query) => {
                self.waiter.watch(std::os::fd::AsRawFd::as_raw_fd(&query));
                CommandReply::Later(Awaited::Arbiter(question, query))
            }
            Err(error) => CommandReply::Now(self.dirty_reply(question, Some(Err(error)))),
        }
    }

    /// The reply to a command. `said` is the arbiter's answer; `None` without an arbiter.
    pub(super) fn dirty_reply(&self, question: Question, said: Option<Result<Value, String>>) -> Result<Value, String> {
        let pid = self.dirty_arbiter().filter(|_| said.is_some()).map(|pid| pid.as_raw());
        let failed = |error: &str| json!({"success": false, "error": error});
        Ok(match (question, said) {
            (Question::Change(_), None) => failed("Dirty arbiter not running"),
            (Question::Change(_), Some(said)) => said.unwrap_or_else(|error| failed(&error)),
            (Question::ShowAll, said) => {
                let workers = said.and_then(Result::ok).map_or_else(|| json!([]), |status| status["workers"].clone());
                self.show_all(pid, &workers)
            }
            (Question::ShowDirty, None) => json!({"enabled": false, "pid": null, "workers": [], "apps": []}),
            (Question::ShowDirty, Some(Ok(status))) => {
                json!({"enabled": true, "pid": pid, "workers": status["workers"], "apps": status["app_workers"]})
            }
            (Question::ShowDirty, Some(Err(error))) => {
                json!({"enabled": true, "pid": pid, "workers": [], "apps": [], "error": error})
            }
        })
    }
}
