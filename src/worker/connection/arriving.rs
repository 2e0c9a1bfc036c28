//! What arrives, and what the protocol makes of it.

use std::sync::Arc;
use std::time::Instant;

use super::request::Gatherer;
use super::{Connection, Step};
use crate::http::connection::{Action, ClientProtocol, Context, Http1, Received, Refusal};
use crate::http::date::DateCache;
use crate::http::error::{Error, ErrorPage};
use crate::http::header_cache::HeaderCache;
use crate::http::proxy::Origin;
use crate::http::response;
use crate::sys::clock::unix_time;
use crate::worker::read_context::Incoming;
use crate::worker::write_queue::Flushed;

/// An input buffer larger than this is given back when the connection falls idle.
const IDLE_BUFFER: usize = 4 * 1024;

impl Connection {
    /// Gives the protocol bytes that have come, and takes the action that they lead to.
    pub(super) fn on_bytes(&mut self, mut arrival: Incoming<'_>, now: Instant) -> Step {
        let (bytes, known) = arrival.parts();
        let (http, context) = self.split(known);
        let mut action = http.on_bytes(bytes, context, now);
        if let Action::EndProxy(origin) = action {
            if let Some(step) = self.end_proxy(origin, now) {
                return step;
            }
            let (http, context) = self.split(arrival.parts().1);
            action = http.on_bytes(&[], context, now);
        }
        if let Action::Serve(Received::LastBytes(count)) = action {
            self.request.store = Some(arrival.into_body(count));
        }
        self.take_action(action, now)
    }

    /// The protocol, and what it works on.
    pub(super) fn split<'a>(
        &'a mut self,
        known: Option<&'a mut HeaderCache>,
    ) -> (&'a mut Http1, Context<'a, Gatherer<'a>>) {
        let (head, sink) = self.request.parts(&self.limits);
        let (limits, is_trusted, input) = (&self.limits.http, self.client.is_trusted, &mut self.input);
        (&mut self.http, Context { limits, is_trusted, known, input, head, sink })
    }

    /// Takes the protocol's action. Returns what the event loop is to do next.
    pub(super) fn take_action(&mut self, action: Action, now: Instant) -> Step {
        match action {
            // `finish` itself deals with `Flush`, `after_flush` with `Rest`, and `on_bytes` with
            // `EndProxy`.
            Action::Wait | Action::Flush | Action::Rest | Action::EndProxy(_) => Step::Wait,
            Action::SendContinue => {
                self.output.push(response::CONTINUE);
                if self.output.flush(&mut self.transport, now).is_ok() { Step::Wait } else { Step::Close }
            }
            Action::Serve(received) => {
                let may_be_check = matches!(received, Received::NoBody);
                self.request.begin(received, &mut self.input);
                self.name_client();
                let ready_at = now.checked_sub(self.waited_before).unwrap_or(now);
                self.request.note_ready(ready_at, self.client.is_trusted);
                match self.check().filter(|_| may_be_check) {
                    Some(check) => check,
                    None if self.is_for_file() => Step::File,
                    None => Step::Call,
                }
            }
            Action::Refuse(refusal) => {
                self.name_client();
                self.refuse(refusal, now)
            }
            Action::ShutDown if self.transport.shutdown_write().is_ok() => Step::Wait,
            Action::ShutDown | Action::Close => Step::Close,
            Action::LastLook => Step::LastLook,
            Action::Left => {
                self.name_client();
                Step::Left
            }
        }
    }

    /// Under uwsgi, takes the client from the head, once that is whole.
    pub(super) fn name_client(&mut self) {
        if self.http.protocol() == ClientProtocol::Uwsgi && self.http.has_whole_head() {
            Arc::make_mut(&mut self.client).take_packet(&self.request.head);
        }
    }

    /// Ends the stage of the PROXY header, which said `origin` if there was one. Returns the next
    /// step, or `None` where the request follows in the input.
    fn end_proxy(&mut self, origin: Option<Origin>, now: Instant) -> Option<Step> {
        if let Some(origin) = origin
            && let Err(error) = Arc::make_mut(&mut self.client).take_proxy_header(origin, &self.limits)
        {
            // No request has begun, so the log must find none in the input.
            self.input = Vec::new();
            return Some(self.refuse_as(error, now));
        }
        if self.acceptor.is_none() {
            return self.input.is_empty().then_some(Step::Wait);
        }
        let arrived = std::mem::take(&mut self.input);
        // The bytes behind the header are to be read again, through TLS, even if no event follows.
        self.arrivals.note(false);
        Some(if self.begin_tls(arrived).is_ok() { Step::Again } else { Step::Close })
    }

    /// The step for a health check; `None` for any other request.
    fn check(&self) -> Option<Step> {
        if !self.limits.own_paths.are_checks_given() {
            return None;
        }
        let head = &self.request.head;
        let source = head.source(self.request.bytes());
        let is_at = |path: &Option<String>| path.as_ref().is_some_and(|path| head.path.of(source) == path.as_bytes());
        let step = if is_at(&self.limits.own_paths.health) {
            Step::Check
        } else if is_at(&self.limits.own_paths.live) {
            Step::LiveCheck
        } else {
            return None;
        };
        matches!(head.method.of(source), b"GET" | b"HEAD").then_some(step)
    }

    /// Refuses the client for an error that the protocol itself has not found.
    pub(super) fn refuse_as(&mut self, error: Error, now: Instant) -> Step {
        let action = self.http.refuse(error, &mut self.input, &self.limits.http, now);
        self.take_action(action, now)
    }

    /// Answers with the error's page; no further requests are read.
    pub(super) fn refuse(&mut self, Refusal { error, is_head }: Refusal, now: Instant) -> Step {
        let page = ErrorPage { status: error.status(), message: &error.message(), is_head, lines: b"" };
        self.output.push(&page.render(DateCache::new().get(unix_time())));
        self.request.store = None;
        match self.output.flush(&mut self.transport, now) {
            Ok(Flushed::All) if self.transport.shutdown_write().is_ok() => Step::Refused(error),
            Ok(Flushed::Blocked | Flushed::Paused) => Step::Refused(error),
            _ => Step::Close,
        }
    }

    /// Frees the buffers that an idle connection does not need.
    pub(super) fn shrink(&mut self) {
        if self.input.capacity() > IDLE_BUFFER {
            // Hardly ever more than nothing: a line end behind a body.
            self.input.shrink_to_fit();
        }
        self.request.shrink();
    }
}
