//! One request through the application: environ, call, iteration, `close()`, and what happens when
//! any of them fails.

mod callout;
mod in_flight;
mod responding;
mod stepwise;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use pyo3::exceptions::{PyStopIteration, PySystemExit};
use pyo3::prelude::*;
use pyo3::types::PyDict;

use callout::Callout;
pub use in_flight::{InFlight, Look, Runner};
pub use stepwise::{Begun, SharedCalls, StepwiseCaller};

use super::app::App;
use super::environ::{EnvironBuilder, EnvironError, EnvironTemplates, Fixtures, ListenerInfo};
use super::errors::{ErrorStream, failure, traceback};
use super::extras::{ClientSocket, EarlyHints};
use super::file_wrapper::FileWrapper;
use super::hooks::Hooks;
use super::hub;
use super::input::Input;
use super::loggers;
use super::panics::{caught, contain};
use super::raw::reference_count;
use super::request_context;
use super::request_hooks::{HookedRequest, RequestHooks};
use super::response_writer::{self, Disposition, Progress, ResponseSummary, ResponseWriter, Wanted, lock};
use super::signals;
use super::start_response::StartResponse;
use crate::base::ablation::{Mechanism, is_off};
use crate::exchange::{Exchange, RequestView};
use crate::files::AppFiles;
use crate::http::request::Span;
use crate::logging::{RequestIds, Scope, within};
use crate::sys::fork;

/// How the application is called, beyond what a [`ListenerInfo`] says.
#[derive(Clone)]
pub struct CallOptions {
    /// `wsgi.file_wrapper` may use `sendfile(2)`.
    pub sendfile: bool,
    /// Environ keys whose values the access log wants.
    pub environ_keys: Vec<String>,
    /// The access log wants response headers.
    pub logs_headers: bool,
    /// The line of the Server header, or nothing.
    pub server: Arc<[u8]>,
    /// The files that the application may name instead of sending them.
    pub files: Option<Arc<AppFiles>>,
    /// The environ says how long the request has waited (`monoceros.queue_time`).
    pub queue_time: bool,
}

/// A request that has been answered.
pub struct Finished {
    /// The connection, back from the application.
    pub exchange: Box<dyn Exchange>,
    /// What becomes of the connection.
    pub ending: Disposition,
    /// What was sent.
    pub summary: ResponseSummary,
    /// The values of [`CallOptions::environ_keys`], in their order, as the application left them.
    pub environ_values: Vec<Option<String>>,
    /// No hook has asked for the worker to be replaced.
    pub is_worker_wanted: bool,
    /// Python's logging was given the access line.
    pub is_logged: bool,
}

/// Exceptions of the application that were logged since [`take_raised`].
static RAISED: AtomicU64 = AtomicU64::new(0);

/// How many exceptions of the application were logged since the last call.
pub fn take_raised() -> u64 {
    if RAISED.load(Relaxed) == 0 { 0 } else { RAISED.swap(0, Relaxed) }
}

/// The environ of a request, and what the observer has of the request, if there is one.
type Prepared<'py> = (Result<Bound<'py, PyDict>, EnvironError>, Option<HookedRequest>);

/// The outcome of a request besides its response; as in [`Finished`].
struct CallOutcome {
    ending: Disposition,
    environ_values: Vec<Option<String>>,
    is_worker_wanted: bool,
    /// The server has panicked: the objects of this request must not serve another.
    has_panicked: bool,
    is_logged: bool,
}

/// Calls the application, one request after another. Each application thread has one.
pub struct Caller {
    app: Py<PyAny>,
    listener_infos: Vec<ListenerInfo>,
    kits: Vec<Kit>,
    environs: EnvironBuilder,
    options: CallOptions,
    in_flight: InFlight,
    hooks: Hooks,
    observer: Option<Arc<RequestHooks>>,
    /// Set where the worker's class answers requests by a method of its own.
    callout: Option<Callout>,
    /// Whether Python's logging wrote the logs when the observer was made.
    python_wrote: bool,
    /// When the request began.
    began: Instant,
}

impl Caller {
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
        let kits: Vec<Kit> = listener_infos.iter().map(|site| Kit::new(py, site, &options)).collect::<PyResult<_>>()?;
        let in_flight = InFlight::default();
        kits.iter().enumerate().for_each(|(site, kit)| in_flight.set(site, &kit.objects.response));
        Ok(Caller {
            app: app.callable().clone_ref(py),
            listener_infos,
            kits,
            environs: EnvironBuilder::new(py),
            options,
            in_flight,
            hooks: hooks.clone(),
            observer: hooks.observer(py).map(Arc::new),
            callout: Callout::of(py, hooks)?,
            python_wrote: loggers::python_writes(),
            began: Instant::now(),
        })
    }

    /// Notes when the next request began: `start` for [`InFlight`], `began` for the environ.
    pub fn note_start(&mut self, start: u64, began: Instant) {
        self.in_flight.note_start(start);
        self.began = began;
    }

    /// Runs the application for the request in `exchange`, to the last byte handed over or queued.
    pub fn call(&mut self, py: Python<'_>, mut exchange: Box<dyn Exchange>) -> Finished {
        let body = exchange.take_body();
        let request = exchange.request();
        let site = request.client.site;
        // The input of the last request has come to its end.
        if !body.is_empty() {
            self.kits[site].objects.input.get().begin(body);
        }
        if log::log_enabled!(log::Level::Debug) {
            note(py, &request);
        }
        request_context::enter(py, &request);
        self.follow_loggers(py);
        let wanted = Wanted::by(&request);
        let served = if self.callout.is_some() {
            let begun = caught(|| self.begin_turn(py, &request));
            self.call_out(py, (exchange, wanted), site, begun)
        } else {
            let prepared = caught(|| self.prepare(py, &request));
            self.serve(py, (exchange, wanted), site, prepared)
        };
        let kit = &mut self.kits[site];
        let (exchange, summary) = kit.objects.end(py, self.options.logs_headers);
        request_context::leave(py);
        if served.has_panicked {
            self.environs = EnvironBuilder::new(py);
        }
        let is_held = kit.objects.is_still_held(py, kit.templates.count());
        if served.has_panicked || is_held || is_off(Mechanism::ObjectReuse) {
            // The next request must not appear in an object that the application kept.
            match Kit::new(py, &self.listener_infos[site], &self.options) {
                Ok(fresh) => {
                    self.in_flight.set(site, &fresh.objects.response);
                    *kit = fresh;
                }
                Err(error) => log::error!("{}", traceback(py, &error)),
            }
        }
        let CallOutcome { ending, environ_values, is_worker_wanted, is_logged, .. } = served;
        Finished { exchange, ending, summary, environ_values, is_worker_wanted, is_logged }
    }

    /// Makes the observer anew where Python's logging has begun to write the logs, or ceased to.
    fn follow_loggers(&mut self, py: Python<'_>) {
        if self.python_wrote != loggers::python_writes() {
            self.python_wrote = !self.python_wrote;
            self.observer = self.hooks.observer(py).map(Arc::new);
        }
    }

    /// What `request` is served with: its environ, and what the observer has of it.
    fn prepare<'py>(&mut self, py: Python<'py>, request: &RequestView<'_>) -> Prepared<'py> {
        let mut observed = self.observe(py, request);
        (self.environ(py, request, observed.as_mut()), observed)
    }

    /// Serves a request, from the call of the application to the last hook. The environ is dropped
    /// at the end: it holds references that [`RequestObjects::is_still_held`] counts.
    fn serve(
        &self,
        py: Python<'_>,
        (exchange, wanted): (Box<dyn Exchange>, Wanted),
        site: usize,
        prepared: Result<Prepared<'_>, String>,
    ) -> CallOutcome {
        let kit = &self.kits[site].objects;
        let is_observed = self.observer.is_some() || !self.options.environ_keys.is_empty();
        lock(&kit.response).begin(exchange, wanted, is_observed);
        let served = prepared.and_then(|(environ, observed)| caught(|| self.run(py, kit, environ, observed)));
        served.unwrap_or_else(|panic| self.after_panic(kit, &panic))
    }

    fn after_panic(&self, kit: &RequestObjects, panic: &str) -> CallOutcome {
        CallOutcome {
            ending: kit.fall(panic),
            environ_values: vec![None; self.options.environ_keys.len()],
            is_worker_wanted: true,
            is_logged: false,
            has_panicked: true,
        }
    }

    /// Runs a request, from the call of the application to the last hook.
    fn run(
        &self,
        py: Python<'_>,
        kit: &RequestObjects,
        environ: Result<Bound<'_, PyDict>, EnvironError>,
        observed: Option<HookedRequest>,
    ) -> CallOutcome {
        let (ending, environ) = match environ {
            Ok(environ) => (kit.run(py, &self.app, &environ, self.options.sendfile), Some(environ)),
            Err(error) => (kit.refuse(py, error), None),
        };
        let keys = &self.options.environ_keys;
        let environ_values = environ.as_ref().map_or_else(Vec::new, |environ| values_of(environ, keys));
        let is_logged = observed.is_some() && self.observer.as_ref().is_some_and(|observer| observer.logs());
        let is_worker_wanted = match (&self.observer, observed) {
            (Some(observer), Some(observed)) => {
                let response = lock(&kit.response).view();
                let asked = contain(|| observer.after(py, &observed, environ.as_ref(), response.as_ref()));
                asked.inspect_err(|error| kit.log_error(py, error)).unwrap_or(true)
            }
            _ => true,
        };
        CallOutcome { ending, environ_values, is_worker_wanted, is_logged, has_panicked: false }
    }

    /// Makes gunicorn's `req` of the request for the observer, if there is one.
    fn observe(&self, py: Python<'_>, request: &RequestView<'_>) -> Option<HookedRequest> {
        let observer = self.observer.as_ref()?;
        let observed = observer.see(py, request, self.kits[request.client.site].objects.input.bind(py).as_any());
        observed.inspect_err(|error| log::error!("{}", traceback(py, error))).ok()
    }

    /// The environ of `request`, with the changes that `pre_request` has made.
    fn environ<'py>(
        &mut self,
        py: Python<'py>,
        request: &RequestView<'_>,
        observed: Option<&mut HookedRequest>,
    ) -> Result<Bound<'py, PyDict>, EnvironError> {
        let templates = &mut self.kits[request.client.site].templates;
        let began = self.options.queue_time.then_some(self.began);
        let (Some(observer), Some(observed)) = (&self.observer, observed) else {
            return self.environs.build(py, templates, request, began);
        };
        observer.before(py, observed)?;
        let environ = self.environs.build(py, templates, request, began)?;
        observer.amend(py, observed, &environ)?;
        Ok(environ)
    }

    /// A view of the request that this caller serves, for other threads.
    pub fn in_flight(&self) -> InFlight {
        self.in_flight.clone()
    }
}

/// What the requests of a listener are served with, one after another.
struct Kit {
    objects: RequestObjects,
    /// Templates that hold these objects.
    templates: EnvironTemplates,
}

impl Kit {
    fn new(py: Python<'_>, site: &ListenerInfo, options: &CallOptions) -> PyResult<Kit> {
        let objects = RequestObjects::new(py, options)?;
        let templates = objects.templates(py, site)?;
        Ok(Kit { objects, templates })
    }
}

/// The objects that a request's environ and call are made with. They serve one request after
/// another, as long as no application keeps one of them.
struct RequestObjects {
    response: Arc<Mutex<ResponseWriter>>,
    starter: Py<StartResponse>,
    /// The method of `starter` that the application is given.
    start_response: Py<PyAny>,
    input: Py<Input>,
    errors: Py<ErrorStream>,
    early_hints: Py<EarlyHints>,
    socket: Py<ClientSocket>,
}

/// How often a caller looks whether the application still waits for the client.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl RequestObjects {
    fn new(py: Python<'_>, options: &CallOptions) -> PyResult<RequestObjects> {
        let response = response_writer::shared(&options.server, options.files.as_ref());
        let starter = Py::new(py, StartResponse::new(py, &response)?)?;
        let start_response = StartResponse::callable(starter.bind(py))?;
        let input = Py::new(py, Input::new(response.clone()))?;
        let errors = Py::new(py, ErrorStream::new())?;
        let early_hints = Py::new(py, EarlyHints::new(response.clone()))?;
        let socket = Py::new(py, ClientSocket::new(response.clone()))?;
        Ok(RequestObjects { response, starter, start_response, input, errors, early_hints, socket })
    }

    /// Templates of the environs of `site` that hold these objects.
    fn templates(&self, py: Python<'_>, site: &ListenerInfo) -> PyResult<EnvironTemplates> {
        let file_wrapper = py.get_type::<FileWrapper>();
        let fixtures = Fixtures {
            input: self.input.bind(py).as_any(),
            errors: self.errors.bind(py).as_any(),
            early_hints: self.early_hints.bind(py).as_any(),
            socket: self.socket.bind(py).as_any(),
            file_wrapper: file_wrapper.as_any(),
        };
        EnvironTemplates::new(py, site, &fixtures)
    }

    /// Takes the exchange back, once no code of the application waits for the client any more.
    fn end(&self, py: Python<'_>, with_headers: bool) -> (Box<dyn Exchange>, ResponseSummary) {
        self.errors.get().finish_line(py);
        let (mut exchange, summary) = loop {
            if let Some(ended) = lock(&self.response).end(with_headers) {
                break ended;
            }
            hub::pause(py, LOOK_AGAIN);
        };
        // Only now: until here a thread of the application may have been reading the body.
        exchange.return_buffer(self.input.get().end(py));
        (exchange, summary)
    }

    /// Whether the application still holds an object that must not outlive its request. `templates`
    /// is the number of templates that hold these objects.
    fn is_still_held(&self, py: Python<'_>, templates: usize) -> bool {
        // The kit holds one reference to each object, and each template one; `start_response` holds
        // one to `starter`.
        let at_rest = 1 + templates as isize;
        // Without the interpreter's lock the counts prove nothing (decision 33).
        cfg!(Py_GIL_DISABLED)
            || reference_count(&self.start_response) > 1
            || reference_count(&self.starter) > 2
            || reference_count(self.starter.get().writer()) > 1
            || reference_count(&self.input) > at_rest
            || reference_count(&self.early_hints) > at_rest
            || reference_count(&self.socket) > at_rest
            || self.socket.get().was_used(py)
    }

    fn run(&self, py: Python<'_>, app: &Py<PyAny>, environ: &Bound<'_, PyDict>, sendfile: bool) -> Disposition {
        let returned = contain(|| app.bind(py).call1((environ, &self.start_response)));
        fork::end_copies();
        match returned {
            Ok(result) => self.answer(py, &result, sendfile),
            // Flask-Sock and similar libraries raise this after they have used the socket
            // themselves: nothing is to be sent.
            Err(error) if error.is_instance_of::<PyStopIteration>(py) && self.progress() == Progress::Waiting => {
                Disposition::Gone
            }
            Err(error) => self.fail(py, &error),
        }
    }

    fn progress(&self) -> Progress {
        lock(&self.response).progress()
    }

    fn finish(&self, py: Python<'_>) -> Disposition {
        let (ending, complaint) = {
            let mut response = lock(&self.response);
            (response.finish(), response.length_complaint())
        };
        if let Some(complaint) = complaint {
            let (request, ids) = self.describe_request();
            loggers::aside(py, || within(ids.into(), || log::warn!("{request}: {complaint}")));
        }
        ending
    }

    fn fail(&self, py: Python<'_>, error: &PyErr) -> Disposition {
        if lock(&self.response).client_is_gone() {
            let (request, ids) = self.describe_request();
            within(ids.into(), || log::debug!("Ignoring connection reset by the client: {request}"));
            return Disposition::Gone;
        }
        self.log_error(py, error);
        lock(&self.response).fail(500, "")
    }

    /// Logs a panic of the server, and answers with 500 if nothing is sent yet.
    fn fall(&self, panic: &str) -> Disposition {
        let fallen = caught(|| {
            let (request, ids) = self.describe_request();
            within(ids.into(), || log::error!("Error handling request {request}: a fault of the server: {panic}"));
            lock(&self.response).fail(500, "")
        });
        fallen.unwrap_or(Disposition::Gone)
    }

    fn refuse(&self, py: Python<'_>, error: EnvironError) -> Disposition {
        let message = match error {
            EnvironError::Misplaced(error) => {
                log::warn!("Configuration problem: {}", error.message());
                format!("Configuration problem: {}", error.message())
            }
            EnvironError::Python(error) => {
                self.log_error(py, &error);
                String::new()
            }
        };
        lock(&self.response).fail(500, &message)
    }

    fn log_error(&self, py: Python<'_>, error: &PyErr) {
        RAISED.fetch_add(1, Relaxed);
        let (request, ids) = self.describe_request();
        let (method, target) = request.split_once(' ').unwrap_or((&request, ""));
        let is_logged = match &ids.id {
            None => loggers::exception(py, error, "Error handling request %s %s", &[method, target]),
            Some(id) => loggers::exception(py, error, "[%s] Error handling request %s %s", &[id, method, target]),
        };
        if !is_logged {
            let failure = failure(py, error);
            let text = format!("Error handling request {request}\n{}", failure.stack);
            let scope = Scope { request: ids, failure: Some(failure) };
            // Other Python threads need not wait for a slow log.
            loggers::aside(py, || within(scope, || log::error!("{text}")));
        }
        if error.is_instance_of::<PySystemExit>(py) {
            log::debug!("The application asked to exit.");
            signals::exit_asked_for(py);
        }
    }

    /// The request line's method and target, and the request's ids.
    fn describe_request(&self) -> (String, RequestIds) {
        let response = lock(&self.response);
        (response.describe_request(), response.ids())
    }
}

/// What gunicorn's default `pre_request` logs.
fn note(py: Python<'_>, request: &RequestView<'_>) {
    let text = |span: Span| String::from_utf8_lossy(span.of(request.buffer));
    let (method, path) = (text(request.head.method), text(request.head.path));
    let ids = request_context::ids_of(request);
    loggers::aside(py, || within(ids.into(), || log::debug!("{method} {path}")));
}

/// The values of `keys` as text, as the application left them. The keys are in lower case, and
/// compared without regard to case, as in gunicorn.
fn values_of(environ: &Bound<'_, PyDict>, keys: &[String]) -> Vec<Option<String>> {
    if keys.is_empty() {
        return Vec::new();
    }
    let mut values = vec![None; keys.len()];
    // Over a copy: str() of a value may run the application's code, which may change the dict.
    for (name, value) in
        environ.items().iter().filter_map(|item| item.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>().ok())
    {
        let name = name.to_string();
        for (key, found) in keys.iter().zip(&mut values) {
            if name.eq_ignore_ascii_case(key) {
                *found = value.str().ok().map(|text| text.to_string_lossy().into_owned());
            }
        }
    }
    values
}
