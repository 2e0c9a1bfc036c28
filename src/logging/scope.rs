//! The request that a record belongs to, and the exception that the record tells of: what a line
//! says besides its text.
//!
//! A caller that knows them sets a scope for the length of one call that writes a record. No code
//! of an application runs in a scope: records for Python's logging are passed on outside of it.

use std::cell::RefCell;

thread_local! {
    static CURRENT: RefCell<Option<Scope>> = const { RefCell::new(None) };
}

/// What a line says besides its text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scope {
    /// The request that the record is written in.
    pub request: RequestIds,
    /// The exception that the record tells of.
    pub failure: Option<Failure>,
}

/// The ids by which a request is known here and at other hops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestIds {
    /// The request's own id: printable ASCII without quotes.
    pub id: Option<String>,
    /// The trace that it belongs to.
    pub trace: Option<TraceIds>,
}

/// A place in a trace, as in W3C Trace Context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceIds {
    /// The trace: 32 hexadecimal digits.
    pub trace_id: String,
    /// The caller's span: 16 hexadecimal digits.
    pub span_id: String,
    /// Whether the caller may have recorded the trace.
    pub is_sampled: bool,
}

/// An exception.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The name of its class.
    pub kind: String,
    /// The exception's message.
    pub reason: String,
    /// Its traceback, with which the record's text ends.
    pub stack: String,
}

impl RequestIds {
    /// Whether the request has neither an id nor a trace.
    pub fn is_empty(&self) -> bool {
        self.id.is_none() && self.trace.is_none()
    }
}

impl From<RequestIds> for Scope {
    fn from(request: RequestIds) -> Scope {
        Scope { request, failure: None }
    }
}

/// Runs `write`, whose records are written in this scope.
pub fn within<T>(scope: Scope, write: impl FnOnce() -> T) -> T {
    exchanged(Some(scope), write)
}

/// Runs `pass_on`, which may run an application's code, outside of any scope.
pub(super) fn outside<T>(pass_on: impl FnOnce() -> T) -> T {
    exchanged(None, pass_on)
}

/// The scope in force.
pub(super) fn current() -> Option<Scope> {
    // A thread that ends may log after its thread-local values are gone.
    CURRENT.try_with(|current| current.borrow().clone()).ok().flatten()
}

/// Puts the former scope back however `run` ends.
struct PutBack(Option<Scope>);

impl Drop for PutBack {
    fn drop(&mut self) {
        CURRENT.set(self.0.take());
    }
}

fn exchanged<T>(scope: Option<Scope>, run: impl FnOnce() -> T) -> T {
    let _before = PutBack(CURRENT.replace(scope));
    run()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scope_holds_for_one_call() {
        let named = |id: &str| Scope::from(RequestIds { id: Some(id.to_owned()), trace: None });
        within(named("a"), || {
            within(named("b"), || assert_eq!(current(), Some(named("b"))));
            outside(|| assert_eq!(current(), None));
            assert_eq!(current(), Some(named("a")));
        });
        assert_eq!(current(), None);
    }
}
