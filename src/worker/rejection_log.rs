//! Refused requests in the error log: each is worth a line, but nobody may fill a disk by sending
//! many.
//!
//! The first refusal of a cause is logged once a turn's input and output are done. Those that
//! follow within the same second are counted, and the count is logged when the second is over.

use std::mem::{Discriminant, discriminant};

use crate::http::error::Error;

/// The longest text that a line quotes, in bytes: a cause can hold a whole request line.
const LONGEST_TEXT: usize = 400;

/// The causes of the current second.
#[derive(Default)]
pub struct RejectionLog {
    seen: Vec<Seen>,
}

struct Seen {
    cause: Cause,
    /// The line of the first refusal.
    text: String,
    more: u64,
    is_logged: bool,
}

/// Each cause has at most one entry.
#[derive(PartialEq, Eq)]
enum Cause {
    Refused(Discriminant<Error>),
    /// A client does not read its response.
    Stalled,
    /// A client's TLS came to nothing.
    Tls,
}

impl RejectionLog {
    /// A request from `remote_addr` was refused.
    pub fn refused(&mut self, remote_addr: &str, error: &Error) {
        self.note(Cause::Refused(discriminant(error)), || format!("Invalid request from ip={remote_addr}: {error}"));
    }

    /// A client was disconnected because it took nothing of its response for longer than
    /// `write_timeout`.
    pub fn stalled(&mut self, remote_addr: &str) {
        self.note(Cause::Stalled, || {
            format!("Closing the connection of ip={remote_addr}, which does not read its response")
        });
    }

    /// A client's TLS came to nothing.
    pub fn tls_failed(&mut self, remote_addr: &str, reason: &str) {
        self.note(Cause::Tls, || format!("Invalid request from ip={remote_addr}: TLS: {reason}"));
    }

    /// Logs what is new. Call it when little else waits: the log may be slow.
    pub fn log_new(&mut self) {
        for seen in self.seen.iter_mut().filter(|seen| !seen.is_logged) {
            log::warn!("{}", seen.text);
            seen.is_logged = true;
        }
    }

    /// A second has passed.
    pub fn end_second(&mut self) {
        self.log_new();
        for Seen { text, more, .. } in self.seen.drain(..) {
            if more > 0 {
                log::warn!("{text} ({more} more like it within a second)");
            }
        }
    }

    fn note(&mut self, cause: Cause, text: impl FnOnce() -> String) {
        if let Some(seen) = self.seen.iter_mut().find(|seen| seen.cause == cause) {
            seen.more += 1;
            return;
        }
        self.seen.push(Seen { cause, text: shorten(text()), more: 0, is_logged: false });
    }
}

fn shorten(mut text: String) -> String {
    if text.len() > LONGEST_TEXT {
        let end = (0..=LONGEST_TEXT).rev().find(|&end| text.is_char_boundary(end)).unwrap_or(0);
        text.truncate(end);
        text.push_str("...");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_entry_a_cause_and_second() {
        let mut refusals = RejectionLog::default();
        for round in 0..1000_u32 {
            refusals.refused("1.2.3.4", &Error::InvalidMethod(round.to_string().into_bytes()));
            refusals.refused("1.2.3.4", &Error::RequestTimeout);
            refusals.stalled("1.2.3.4");
        }
        let counts: Vec<u64> = refusals.seen.iter().map(|seen| seen.more).collect();
        assert_eq!(counts, [999, 999, 999]);
        refusals.log_new();
        assert!(refusals.seen.iter().all(|seen| seen.is_logged));
        refusals.end_second();
        assert!(refusals.seen.is_empty());
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let shown = shorten("\u{e9}".repeat(1000));
        assert_eq!(shown, format!("{}...", "\u{e9}".repeat(LONGEST_TEXT / 2)));
        assert_eq!(shorten("short".to_owned()), "short");
    }
}
