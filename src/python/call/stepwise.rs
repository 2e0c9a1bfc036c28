//! One request through the application in steps, for a worker whose requests run in greenlets.
//!
//! Python calls the application there, and iterates its result (`gunicorn/_gevent.py`). So no frame
//! of ours lies on the stack while the application runs, where greenlets switch. Between two steps
//! nothing is borrowed or locked, and a [`StepwiseCaller`] belongs to one greenlet.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use pyo3::exceptions::PyStopIteration;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::callout::{Callout, RequestTurn, TurnEnd};
use super::{CallOptions, Finished, InFlight, RequestObjects, note, values_of};
use crate::base::unpoisoned::Unpoisoned;
use crate::exchange::{Exchange, RequestView};
use crate::python::app::App;
use crate::python::environ::{EnvironBuilder, EnvironError, EnvironTemplates, Fixtures, ListenerInfo};
use crate::python::errors::traceback;
use crate::python::file_wrapper::FileWrapper;
use crate::python::hooks::Hooks;
use crate::python::loggers;
use crate::python::panics::{caught, contain};
use crate::python::request_context;
use crate::python::request_hooks::{HookedRequest, RequestHooks};
use crate::python::response_writer::{Disposition, Progress, Wanted, lock};
use crate::sys::fork;

/// Most builders of environs that are kept: one is enough, unless a finalizer switches greenlets
/// while an environ is built.
const MOST_BUILDERS: usize = 4;

/// What all greenlets of a worker call the application with.
pub struct SharedCalls {
    app: Py<PyAny>,
    /// Set where the worker's class answers requests by a method of its own.
    callout: Option<Callout>,
    listener_infos: Vec<ListenerInfo>,
    options: CallOptions,
    hooks: Hooks,
    /// A builder is taken out while an environ is built: the interpreter may run finalizers
    /// meanwhile, which may switch to another greenlet.
    builders: Mutex<Vec<Builder>>,
    observer: Mutex<Observer>,
}

/// Makes environs, for one request at a time.
struct Builder {
    environs: EnvironBuilder,
    /// One for each listener. They hold no objects of a request.
    templates: Vec<EnvironTemplates>,
}

/// The hooks that look at requests; made anew when Python's logging begins to write.
struct Observer {
    python_wrote: bool,
    hooks: Option<Arc<RequestHooks>>,
}

/// Calls the application for one request after another, in one greenlet.
pub struct StepwiseCaller {
    shared: Arc<SharedCalls>,
    objects: RequestObjects,
    in_flight: InFlight,
    running: Option<RunningRequest>,
}

/// What is remembered of the request that is being served.
struct RunningRequest {
    observer: Option<Arc<RequestHooks>>,
    observed: Option<HookedRequest>,
    /// The turn, where the worker's class answers the request.
    turn: Option<Py<RequestTurn>>,
    /// Whether Python's logging has got the access line from the class, once that has answered.
    is_logged_by_class: Option<bool>,
    /// Whether the class wants the worker to go on, where it answers the request.
    is_worker_wanted: bool,
    /// Set only where a hook or the access log needs it when the application is done.
    environ: Option<Py<PyDict>>,
    /// What becomes of the connection, where that is settled before the end.
    ending: Option<Disposition>,
    has_panicked: bool,
}

impl RunningRequest {
    fn new(observer: Option<Arc<RequestHooks>>) -> RunningRequest {
        RunningRequest {
            observer,
            observed: None,
            turn: None,
            is_logged_by_class: None,
            is_worker_wanted: true,
            environ: None,
            ending: None,
            has_panicked: false,
        }
    }
}

/// How a request has begun.
pub enum Begun {
    /// The application is to be called with these arguments.
    Call(Py<PyTuple>),
    /// The request is answered already.
    Over(Finished),
}

impl SharedCalls {
    /// Makes ready to call `app` for requests on `listener_infos`, each shown to the `hooks` that
    /// want to see it.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn new(
        py: Python<'_>,
        app: &App,
        listener_infos: Vec<ListenerInfo>,
        options: CallOptions,
        hooks: &Hooks,
    ) -> PyResult<Self> {
        let observer = Observer { python_wrote: loggers::python_writes(), hooks: hooks.observer(py).map(Arc::new) };
        Ok(SharedCalls {
            app: app.callable().clone_ref(py),
            callout: Callout::of(py, hooks)?,
            listener_infos,
            options,
            hooks: hooks.clone(),
            builders: Mutex::default(),
            observer: Mutex::new(observer),
        })
    }

    /// What is to be called for each request: the application, or the method of the worker's class
    /// that has it called.
    pub fn callable(&self) -> &Py<PyAny> {
        self.callout.as_ref().map_or(&self.app, Callout::method)
    }

    /// The hooks of the worker's config.
    pub fn hooks(&self) -> &Hooks {
        &self.hooks
    }

    /// Whether the access log shows values of environs.
    fn wants_environs(&self) -> bool {
        !self.options.environ_keys.is_empty()
    }

    fn observer(&self, py: Python<'_>) -> Option<Arc<RequestHooks>> {
        let python_writes = loggers::python_writes();
        {
            let known = self.observer.lock().unpoisoned();
            if known.python_wrote == python_writes {
                return known.hooks.clone();
            }
        }
        let hooks = self.hooks.observer(py).map(Arc::new);
        let before = std::mem::replace(
            &mut *self.observer.lock().unpoisoned(),
            Observer { python_wrote: python_writes, hooks: hooks.clone() },
        );
        drop(before);
        hooks
    }

    /// The environ of `request`, without the objects that belong to it alone.
    fn build<'py>(
        &self,
        py: Python<'py>,
        request: &RequestView<'_>,
        began: Instant,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let began = self.options.queue_time.then_some(began);
        let known = self.builders.lock().unpoisoned().pop();
        let mut builder = match known {
            Some(builder) => builder,
            None => Builder::new(py, &self.listener_infos)?,
        };
        // A panic drops the builder, so that it is not used again.
        let built = builder.environs.build(py, &mut builder.templates[request.client.site], request, began);
        let mut builders = self.builders.lock().unpoisoned();
        if builders.len() < MOST_BUILDERS {
            builders.push(builder);
        }
        built
    }
}

impl Builder {
    fn new(py: Python<'_>, listener_infos: &[ListenerInfo]) -> PyResult<Builder> {
        let none = py.None().into_bound(py);
        let file_wrapper = py.get_type::<FileWrapper>();
        let fixtures = Fixtures {
            input: &none,
            errors: &none,
            early_hints: &none,
            socket: &none,
            file_wrapper: file_wrapper.as_any(),
        };
        let templates = listener_infos.iter().map(|site| EnvironTemplates::new(py, site, &fixtures));
        Ok(Builder { environs: EnvironBuilder::new(py), templates: templates.collect::<PyResult<_>>()? })
    }
}

impl StepwiseCaller {
    /// A caller for a new greenlet.
    ///
    /// # Errors
    /// `MemoryError`.
    pub fn new(py: Python<'_>, shared: &Arc<SharedCalls>) -> PyResult<Self> {
        let objects = RequestObjects::new(py, &shared.options)?;
        let in_flight = InFlight::default();
        in_flight.set(0, &objects.response);
        Ok(StepwiseCaller { shared: shared.clone(), objects, in_flight, running: None })
    }

    /// A view of the request that this caller serves, for other threads.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }

    /// Whether a request has begun and not ended.
    pub fn is_running(&self) -> bool {
        self.running.is_some()
    }

    /// Begins the request in `exchange`, which was taken at the moment `began`, up to the call of
    /// the application. The scoreboard says `start` for that moment.
    pub fn begin(&mut self, py: Python<'_>, mut exchange: Box<dyn Exchange>, (start, began): (u64, Instant)) -> Begun {
        self.in_flight.note_start(start);
        self.objects.input.get().begin(exchange.take_body());
        let request = exchange.request();
        if log::log_enabled!(log::Level::Debug) {
            note(py, &request);
        }
        let observer = self.shared.observer(py);
        request_context::enter(py, &request);
        let wanted = Wanted::by(&request);
        let mut running = RunningRequest::new(observer);
        let prepared = caught(|| match &self.shared.callout {
            Some(callout) => self.turn(py, callout, (&request, began), &mut running),
            None => self.call(py, (&request, began), &mut running),
        });
        let is_observed = running.observer.is_some() || self.shared.wants_environs() || self.shared.callout.is_some();
        lock(&self.objects.response).begin(exchange, wanted, is_observed);
        let arguments = match prepared {
            Ok(Ok(arguments)) => Some(arguments.unbind()),
            Ok(Err(error)) => {
                running.ending = Some(self.objects.refuse(py, error));
                None
            }
            Err(panic) => {
                (running.ending, running.has_panicked) = (Some(self.objects.fall(&panic)), true);
                None
            }
        };
        self.running = Some(running);
        arguments.map_or_else(|| Begun::Over(self.end(py)), Begun::Call)
    }

    /// The arguments of the application for `request`, which is remembered in `running`.
    fn call<'py>(
        &self,
        py: Python<'py>,
        (request, began): (&RequestView<'_>, Instant),
        running: &mut RunningRequest,
    ) -> Result<Bound<'py, PyTuple>, EnvironError> {
        let observer = running.observer.clone();
        running.observed = self.observe(py, observer.as_deref(), request);
        let environ = self.environ(py, (request, began), observer.as_deref().zip(running.observed.as_mut()))?;
        running.environ = (observer.is_some() || self.shared.wants_environs()).then(|| environ.clone().unbind());
        Ok(PyTuple::new(py, [environ.as_any(), self.objects.start_response.bind(py)])?)
    }

    /// The arguments of the worker's method, which has the application called.
    fn turn<'py>(
        &self,
        py: Python<'py>,
        callout: &Callout,
        (request, began): (&RequestView<'_>, Instant),
        running: &mut RunningRequest,
    ) -> Result<Bound<'py, PyTuple>, EnvironError> {
        let environ = self.environ(py, (request, began), None)?;
        let terms = (running.observer.clone(), self.shared.options.sendfile);
        let (turn, arguments) = callout.begin(py, request, &self.objects, environ, terms)?;
        running.turn = Some(turn);
        Ok(arguments)
    }

    fn observe(
        &self,
        py: Python<'_>,
        observer: Option<&RequestHooks>,
        request: &RequestView<'_>,
    ) -> Option<HookedRequest> {
        let observed = observer?.see(py, request, self.objects.input.bind(py).as_any());
        observed.inspect_err(|error| log::error!("{}", traceback(py, error))).ok()
    }

    /// The environ of `request`, with the changes of `pre_request` where the request is `observed`.
    fn environ<'py>(
        &self,
        py: Python<'py>,
        (request, began): (&RequestView<'_>, Instant),
        observed: Option<(&RequestHooks, &mut HookedRequest)>,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let observed = match observed {
            Some((observer, observed)) => {
                observer.before(py, observed)?;
                Some((observer, &*observed))
            }
            None => None,
        };
        let environ = self.shared.build(py, request, began)?;
        let RequestObjects { input, errors, early_hints, socket, .. } = &self.objects;
        environ.set_item(pyo3::intern!(py, "wsgi.input"), input)?;
        environ.set_item(pyo3::intern!(py, "wsgi.errors"), errors)?;
        environ.set_item(pyo3::intern!(py, "wsgi.early_hints"), early_hints)?;
        environ.set_item(pyo3::intern!(py, "gunicorn.socket"), socket)?;
        if let Some((observer, observed)) = observed {
            observer.amend(py, observed, &environ)?;
        }
        Ok(environ)
    }

    /// Sends what the application returned, where it need not be iterated; returns `false` where it
    /// must be.
    ///
    /// # Errors
    /// The result cannot be sent, or the client is gone.
    pub fn answer(&mut self, py: Python<'_>, result: &Bound<'_, PyAny>) -> PyResult<bool> {
        fork::end_copies();
        if let Some(running) = &mut self.running
            && let Some(turn) = running.turn.take()
        {
            // The class has sent the response.
            let TurnEnd { environ, ending, is_logged } = turn.get().close();
            running.is_logged_by_class = Some(is_logged);
            let (ending, is_wanted) = self.objects.settle_turn(py, Ok(result.clone()), ending);
            (running.environ, running.ending, running.is_worker_wanted) = (environ, Some(ending), is_wanted);
            return Ok(true);
        }
        contain(|| self.objects.respond_at_once(py, result, self.shared.options.sendfile))
    }

    /// Sends one block of an iteration; returns whether more are wanted.
    ///
    /// # Errors
    /// As [`StepwiseCaller::answer`].
    pub fn stream(&self, py: Python<'_>, block: &Bound<'_, PyAny>) -> PyResult<bool> {
        fork::end_copies();
        contain(|| self.objects.stream(py, block))
    }

    /// The iteration is over.
    ///
    /// # Errors
    /// The application has not called `start_response`.
    pub fn iterated(&self) -> PyResult<()> {
        fork::end_copies();
        self.objects.expect_started()
    }

    /// Completes the response, before the result is closed: the client need not wait for a slow
    /// `close()`, nor can `close()` add to the response.
    ///
    /// # Errors
    /// The client is gone.
    pub fn complete(&self) -> PyResult<()> {
        contain(|| Ok(lock(&self.objects.response).complete(true)?))
    }

    /// Logs that closing the result has failed. The response stays as it is.
    pub fn note_failed_close(&self, py: Python<'_>, error: &PyErr) {
        self.objects.log_error(py, error);
        fork::end_copies();
    }

    /// The request has failed with `error`; `in_call` says that the call of the application has
    /// raised it.
    pub fn fail(&mut self, py: Python<'_>, error: &PyErr, in_call: bool) {
        // Flask-Sock and similar libraries raise this after they have used the socket themselves:
        // nothing is to be sent.
        let is_taken = in_call && error.is_instance_of::<PyStopIteration>(py);
        let ending = if is_taken && self.objects.progress() == Progress::Waiting {
            Disposition::Gone
        } else {
            self.objects.fail(py, error)
        };
        self.end_with(ending);
    }

    /// The request has taken longer than `request_timeout`: logs `error`, the timeout's exception,
    /// and answers with 504.
    pub fn time_out(&mut self, py: Python<'_>, error: &PyErr) {
        self.objects.log_error(py, error);
        let ending = lock(&self.objects.response).fail(504, "");
        self.end_with(ending);
    }

    /// The worker ends, and the request with it: its client sees the connection close.
    pub fn give_up(&mut self) {
        lock(&self.objects.response).give_up_after_fault();
        self.end_with(Disposition::Gone);
    }

    fn end_with(&mut self, ending: Disposition) {
        if let Some(running) = &mut self.running {
            running.ending = Some(ending);
        }
    }

    /// Ends the request that has begun; the caller is ready for the next.
    pub fn end(&mut self, py: Python<'_>) -> Finished {
        fork::end_copies();
        let running = self.running.take().expect("a request is ended once, by who has begun it");
        let RunningRequest { observer, observed, turn, is_worker_wanted, ending, has_panicked, .. } = running;
        let (mut environ, mut is_logged) = (running.environ, running.is_logged_by_class);
        let is_told = observed.is_some();
        if let Some(turn) = turn {
            // The method of the class has not returned.
            let end = turn.get().close();
            (environ, is_logged) = (end.environ, Some(end.is_logged));
        }
        let ended = caught(|| {
            let ending = ending.unwrap_or_else(|| self.objects.finish(py));
            let environ = environ.map(|environ| environ.into_bound(py));
            let keys = &self.shared.options.environ_keys;
            let values = environ.as_ref().map_or_else(Vec::new, |environ| values_of(environ, keys));
            let is_wanted = match (&observer, observed) {
                (Some(observer), Some(observed)) => self.tell(py, observer, &observed, environ.as_ref()),
                _ => is_worker_wanted,
            };
            (ending, values, is_wanted)
        });
        let has_panicked = has_panicked || ended.is_err();
        let (ending, environ_values, is_worker_wanted) = ended.unwrap_or_else(|panic| {
            (self.objects.fall(&panic), vec![None; self.shared.options.environ_keys.len()], true)
        });
        let (exchange, summary) = self.objects.end(py, self.shared.options.logs_headers);
        request_context::leave(py);
        self.in_flight.note_start(0);
        if has_panicked || self.objects.is_still_held(py, 0) {
            self.renew(py);
        }
        let is_logged = is_logged.unwrap_or_else(|| is_told && observer.is_some_and(|observer| observer.logs()));
        Finished { exchange, ending, summary, environ_values, is_worker_wanted, is_logged }
    }

    fn tell(
        &self,
        py: Python<'_>,
        observer: &RequestHooks,
        observed: &HookedRequest,
        environ: Option<&Bound<'_, PyDict>>,
    ) -> bool {
        let response = lock(&self.objects.response).view();
        let asked = contain(|| observer.after(py, observed, environ, response.as_ref()));
        asked.inspect_err(|error| self.objects.log_error(py, error)).unwrap_or(true)
    }

    /// Replaces the objects: the next request must not appear in one that the application kept.
    fn renew(&mut self, py: Python<'_>) {
        match RequestObjects::new(py, &self.shared.options) {
            Ok(fresh) => {
                self.in_flight.set(0, &fresh.response);
                self.objects = fresh;
            }
            Err(error) => log::error!("{}", traceback(py, &error)),
        }
    }
}
