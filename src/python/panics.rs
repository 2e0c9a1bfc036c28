//! Contains panics. A panic during a request is a fault of the server. It ends that request, but
//! neither the thread nor the worker with its other requests.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;

/// Calls `action`, and turns a panic in it into an exception. (If the panic is in a method that the
/// application has called, pyo3 resumes it when Rust takes the exception.)
///
/// # Errors
/// That of `action`, or `SystemError` for a panic.
pub fn contain<T>(action: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    caught(action).unwrap_or_else(|panic| Err(PySystemError::new_err(format!("a fault of the server: {panic}"))))
}

/// Calls `action`; the error is the message of a panic in it. All data that `action` changes must
/// stay valid when it stops at any point. Plain data does, behind mutexes whose poison is ignored.
///
/// # Errors
/// `action` has panicked.
pub fn caught<T>(action: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(action)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

#[cfg(test)]
mod tests {
    use pyo3::Python;

    use crate::exchange::recording::{RecordingExchange, Trap};
    use crate::python::app::App;
    use crate::python::call::{CallOptions, Caller};
    use crate::python::environ::ListenerInfo;
    use crate::python::hooks::Hooks;
    use crate::python::response_writer::Disposition;

    /// Reads its input, and answers with two blocks.
    const APP: &std::ffi::CStr = c"lambda environ, start_response: (
        environ['wsgi.input'].read(), start_response('200 OK', []), (block for block in (b'one', b'two')))[2]";

    fn caller(py: Python<'_>) -> Caller {
        let app = App::new(py.eval(APP, None, None).unwrap().unbind());
        let site = ListenerInfo {
            server: None,
            socket_path: String::new(),
            multithread: false,
            multiprocess: false,
            script_name: String::new(),
        };
        let options = CallOptions {
            sendfile: false,
            environ_keys: vec!["a".to_owned()],
            logs_headers: false,
            server: b"".as_slice().into(),
            files: None,
            queue_time: false,
        };
        Caller::new(py, &app, vec![site], options, &Hooks::default()).unwrap()
    }

    #[test]
    fn a_panic_in_a_request_ends_only_that_request() {
        Python::initialize();
        Python::attach(|py| {
            let mut caller = caller(py);
            for (trap, begins_with, ending) in [
                (None, "HTTP/1.1 200 OK", Disposition::KeepAlive),
                (Some(Trap::InReadBody), "HTTP/1.1 500 ", Disposition::Close),
                (Some(Trap::InFlush), "HTTP/1.1 500 ", Disposition::Close),
                // Nobody knows how much of the head is out.
                (Some(Trap::InSend { before: 0 }), "", Disposition::Broken),
                (Some(Trap::InSend { before: 1 }), "HTTP/1.1 200 OK", Disposition::Broken),
                (None, "HTTP/1.1 200 OK", Disposition::KeepAlive),
            ] {
                let (exchange, received) = RecordingExchange::new();
                received.lock().unwrap().trap = trap;
                let finished = caller.call(py, Box::new(exchange));
                let text = String::from_utf8(received.lock().unwrap().bytes.clone()).unwrap();
                assert!(text.starts_with(begins_with), "{trap:?}: {text}");
                assert!(text.matches("HTTP/1.1").count() <= 1, "{trap:?}: {text}");
                assert_eq!(finished.ending, ending, "{trap:?}");
                assert_eq!(finished.environ_values.len(), 1, "{trap:?}");
            }
        });
    }
}
