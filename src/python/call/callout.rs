//! Requests for a worker class that overrides how gunicorn's classes answer them (`handle_request`,
//! `handle_error`): a method of the worker gets the request, and calls back for the application.
//!
//! The method may call back from another thread, twice, or not at all. So what the call needs is
//! shared through a [`RequestTurn`], and what becomes of the connection follows from the response
//! as it stands at the end. This module must not know the classes: `gunicorn/workers/_served.py`
//! does.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Instant;

use pyo3::exceptions::{PyException, PyOSError, PyRuntimeError, PyStopIteration, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::{CallOutcome, Caller, RequestObjects, values_of};
use crate::base::unpoisoned::Unpoisoned;
use crate::exchange::{Exchange, RequestView};
use crate::python::environ::EnvironError;
use crate::python::errors::traceback;
use crate::python::hooks::Hooks;
use crate::python::panics::{caught, contain};
use crate::python::request_hooks::{HookedRequest, RequestHooks};
use crate::python::response_writer::{Disposition, Wanted, lock};
use crate::sys::fork;

/// The worker's method that answers requests, and what makes its `req`.
pub(super) struct Callout {
    /// `ServedWorker._answer`
    method: Py<PyAny>,
    /// Makes the objects of requests.
    requests: RequestHooks,
}

/// One request, as the method gets it: through this object the method calls the application.
#[pyclass(frozen, module = "monoceros")]
pub(super) struct RequestTurn {
    state: Mutex<TurnState>,
    observer: Option<Arc<RequestHooks>>,
    sendfile: bool,
    since: Instant,
}

struct TurnState {
    /// `None` once the request is over.
    shared: Option<Shared>,
    /// The environ that the application was called with last.
    environ: Option<Py<PyDict>>,
    /// What becomes of the connection, once a response is whole or an error was answered.
    ending: Option<Disposition>,
    /// Whether Python's logging has got the access line.
    is_logged: bool,
}

struct Shared {
    objects: RequestObjects,
    /// The environ made from the request; each call of the application gets a copy.
    environ: Py<PyDict>,
}

/// A turn, and the arguments of the class's method for it.
pub(super) type BegunTurn<'py> = Result<(Py<RequestTurn>, Bound<'py, PyTuple>), EnvironError>;

/// How a turn has ended: the last environ, and what becomes of the connection.
pub(super) struct TurnEnd {
    pub environ: Option<Py<PyDict>>,
    pub ending: Option<Disposition>,
    /// Whether Python's logging has got the access line. It gets none of a request whose response
    /// begins only then: the class answers the application's error later.
    pub is_logged: bool,
}

impl Callout {
    /// The callout for the worker class that `hooks` know; `None` where the class overrides neither
    /// method.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn of(py: Python<'_>, hooks: &Hooks) -> PyResult<Option<Callout>> {
        let Some(bridge) = hooks.bridge_of("handle_request") else { return Ok(None) };
        let method = bridge.bind(py).getattr("worker")?.getattr("_answer")?.unbind();
        Ok(Some(Callout { method, requests: RequestHooks::new(bridge.clone_ref(py), false, false, false) }))
    }

    /// The method that gets the requests.
    pub fn method(&self) -> &Py<PyAny> {
        &self.method
    }

    /// The turn of `request`, and the arguments of the method for it.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn begin<'py>(
        &self,
        py: Python<'py>,
        request: &RequestView<'_>,
        objects: &RequestObjects,
        environ: Bound<'py, PyDict>,
        terms: (Option<Arc<RequestHooks>>, bool),
    ) -> PyResult<(Py<RequestTurn>, Bound<'py, PyTuple>)> {
        let (observer, sendfile) = terms;
        let seen = self.requests.see(py, request, objects.input.bind(py).as_any())?;
        let shared = Shared { objects: objects.share(py), environ: environ.unbind() };
        let state = TurnState { shared: Some(shared), environ: None, ending: None, is_logged: false };
        let turn = Py::new(py, RequestTurn { state: Mutex::new(state), observer, sendfile, since: Instant::now() })?;
        let arguments = (&turn, seen.into_request(), &objects.socket, request.client.site).into_pyobject(py)?;
        Ok((turn, arguments))
    }
}

#[pymethods]
impl RequestTurn {
    /// The environ for a call of the application. The response begins anew, if nothing of it is
    /// sent.
    fn environ<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let Shared { objects, environ } = self.share(py)?;
        lock(&objects.response).begin_again();
        environ.bind(py).copy()
    }

    /// Calls the application, sends what it returns, and closes the result. Raises what the
    /// application raises. Where the head is out already, the error is logged, and StopIteration
    /// raised instead, as in gunicorn.
    fn run(&self, py: Python<'_>, app: &Bound<'_, PyAny>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let Shared { objects, .. } = self.share(py)?;
        let before = self.hold().environ.replace(environ.clone().unbind());
        drop(before);
        let returned = contain(|| app.call1((environ, &objects.start_response)));
        fork::end_copies();
        match returned.and_then(|result| objects.deliver(py, &result, self.sendfile)) {
            Ok(ending) => {
                self.settle(ending);
                Ok(())
            }
            Err(error) => Err(self.raised(py, &objects, error)),
        }
    }

    /// Writes the access line, if Python's logging writes it, and calls `post_request`.
    fn after(&self, py: Python<'_>, req: Py<PyAny>, environ: &Bound<'_, PyDict>) -> PyResult<()> {
        let Some(observer) = &self.observer else { return Ok(()) };
        let Shared { objects, .. } = self.share(py)?;
        let response = lock(&objects.response).view();
        self.hold().is_logged = observer.logs() && response.is_some();
        let observed = HookedRequest::of(req, self.since);
        let told = contain(|| observer.after(py, &observed, Some(environ), response.as_ref()));
        if let Err(error) = told {
            log::error!("{}", traceback(py, &error));
        }
        Ok(())
    }

    /// Logs the error, and answers with 500 if nothing is sent yet.
    fn fail(&self, py: Python<'_>, error: Bound<'_, PyAny>) -> PyResult<()> {
        let Shared { objects, .. } = self.share(py)?;
        let ending = objects.fail(py, &PyErr::from_value(error));
        self.settle(ending);
        Ok(())
    }
}

impl RequestTurn {
    /// Ends the turn: a later call of the application through it raises.
    pub fn close(&self) -> TurnEnd {
        let (shared, end) = {
            let mut state = self.hold();
            let TurnState { environ, ending, is_logged, .. } = &mut *state;
            let end = TurnEnd { environ: environ.take(), ending: ending.take(), is_logged: *is_logged };
            (state.shared.take(), end)
        };
        drop(shared);
        end
    }

    /// The exception that the class gets where the application has raised `error`.
    fn raised(&self, py: Python<'_>, objects: &RequestObjects, error: PyErr) -> PyErr {
        let is_sending = {
            let mut response = lock(&objects.response);
            response.begin_again();
            response.is_head_out() && !response.client_is_gone()
        };
        let is_of_gunicorns = (error.is_instance_of::<PyException>(py) || error.is_instance_of::<PySystemExit>(py))
            && !error.is_instance_of::<PyOSError>(py);
        if !is_sending || !is_of_gunicorns {
            return error;
        }
        self.settle(objects.fail(py, &error));
        PyStopIteration::new_err(())
    }

    fn settle(&self, ending: Disposition) {
        let mut state = self.hold();
        if state.shared.is_some() {
            state.ending = Some(ending);
        }
    }

    fn share(&self, py: Python<'_>) -> PyResult<Shared> {
        let state = self.hold();
        let shared = state
            .shared
            .as_ref()
            .map(|Shared { objects, environ }| Shared { objects: objects.share(py), environ: environ.clone_ref(py) });
        drop(state);
        shared.ok_or_else(|| PyRuntimeError::new_err("the request is over"))
    }

    fn hold(&self) -> MutexGuard<'_, TurnState> {
        self.state.lock().unpoisoned()
    }
}

impl Caller {
    /// Has the worker's class answer a request, whose turn has [begun](Caller::begin_turn). The
    /// class itself calls the hooks.
    pub(super) fn call_out(
        &self,
        py: Python<'_>,
        (exchange, wanted): (Box<dyn Exchange>, Wanted),
        site: usize,
        begun: Result<BegunTurn<'_>, String>,
    ) -> CallOutcome {
        let kit = &self.kits[site].objects;
        // Code of the class runs after the response.
        lock(&kit.response).begin(exchange, wanted, true);
        let answered = begun.and_then(|begun| {
            caught(|| match begun {
                Ok((turn, arguments)) => self.answer_by_class(py, kit, turn.get(), arguments),
                Err(error) => CallOutcome {
                    ending: kit.refuse(py, error),
                    environ_values: Vec::new(),
                    is_worker_wanted: true,
                    has_panicked: false,
                    is_logged: false,
                },
            })
        });
        answered.unwrap_or_else(|panic| self.after_panic(kit, &panic))
    }

    /// The turn of `request`, with the arguments of the class's method.
    pub(super) fn begin_turn<'py>(&mut self, py: Python<'py>, request: &RequestView<'_>) -> BegunTurn<'py> {
        let kit = &mut self.kits[request.client.site];
        let began = self.options.queue_time.then_some(self.began);
        let environ = self.environs.build(py, &mut kit.templates, request, began)?;
        let callout = self.callout.as_ref().expect("a request is given to a class that wants it");
        let terms = (self.observer.clone(), self.options.sendfile);
        Ok(callout.begin(py, request, &kit.objects, environ, terms)?)
    }

    fn answer_by_class(
        &self,
        py: Python<'_>,
        kit: &RequestObjects,
        turn: &RequestTurn,
        arguments: Bound<'_, PyTuple>,
    ) -> CallOutcome {
        let callout = self.callout.as_ref().expect("the turn has come of it");
        let returned = contain(|| callout.method.bind(py).call1(arguments));
        fork::end_copies();
        let TurnEnd { environ, ending, is_logged } = turn.close();
        let (ending, is_worker_wanted) = kit.settle_turn(py, returned, ending);
        let keys = &self.options.environ_keys;
        let values = environ.map_or_else(Vec::new, |environ| values_of(environ.bind(py), keys));
        CallOutcome { ending, environ_values: values, is_worker_wanted, has_panicked: false, is_logged }
    }
}

impl RequestObjects {
    /// New references to the same objects.
    fn share(&self, py: Python<'_>) -> RequestObjects {
        RequestObjects {
            response: self.response.clone(),
            starter: self.starter.clone_ref(py),
            start_response: self.start_response.clone_ref(py),
            input: self.input.clone_ref(py),
            errors: self.errors.clone_ref(py),
            early_hints: self.early_hints.clone_ref(py),
            socket: self.socket.clone_ref(py),
        }
    }

    /// Sends what the application returned, and closes it. The caller answers a failure to send.
    fn deliver(&self, py: Python<'_>, result: &Bound<'_, PyAny>, sendfile: bool) -> PyResult<Disposition> {
        let mut outcome = contain(|| self.respond(py, result, sendfile));
        if let Some(close) = self.closer(py, result) {
            outcome = outcome.and_then(|()| Ok(lock(&self.response).complete(true)?));
            if let Err(error) = contain(|| close.call0()) {
                self.log_error(py, &error);
            }
            fork::end_copies();
        }
        outcome.map(|()| self.finish(py))
    }

    /// What becomes of the connection, and whether the worker goes on. The worker's method has
    /// `returned` whether the connection may be kept, and whether the worker goes on; the turn has
    /// come to `ending`.
    pub(super) fn settle_turn(
        &self,
        py: Python<'_>,
        returned: PyResult<Bound<'_, PyAny>>,
        ending: Option<Disposition>,
    ) -> (Disposition, bool) {
        match returned.and_then(|returned| returned.extract::<(bool, bool)>()) {
            Err(error) => (self.fail(py, &error), true),
            Ok((may_keep, is_wanted)) => {
                let ending = ending.unwrap_or_else(|| lock(&self.response).leave());
                let is_cut = ending == Disposition::KeepAlive && !may_keep;
                (if is_cut { Disposition::Close } else { ending }, is_wanted)
            }
        }
    }
}
