//! A panic below a request is a fault of the server's. It costs that request: never the thread, nor the worker with all its others.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pyo3::exceptions::PySystemError;
use pyo3::prelude::*;

/// Calls `action`, and makes an exception of a panic in it. (One that comes by way of Python, from a method that the application has called,
/// goes on as a panic where Rust takes the exception.)
///
/// # Errors
/// That of `action`, or `SystemError` for a panic.
pub fn contain<T>(action: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
    caught(action).unwrap_or_else(|panic| Err(PySystemError::new_err(format!("a fault of the server: {panic}"))))
}

/// Calls `action`; what a panic in it said is the error. Whatever `action` has in its hands must bear being left at any moment: plain data
/// does, behind mutexes whose poison is ignored.
///
/// # Errors
/// It has panicked.
pub fn caught<T>(action: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(action)).map_err(|panic| message(&*panic))
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "a panic".to_owned())
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::fd::RawFd;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::exchange::{Body, Exchange, RequestView, Wait, WriteChunk};
    use crate::http::request::{RequestHead, Scheme};
    use crate::python::app::App;
    use crate::python::call::{CallOptions, Caller};
    use crate::python::environ::ListenerInfo;
    use crate::python::hooks::Hooks;
    use crate::python::response_writer::Disposition;
    use crate::sys::socket::{Cork, Peer};

    #[test]
    fn what_a_panic_said_is_kept() {
        assert_eq!(caught(|| 1), Ok(1));
        assert_eq!(caught(|| -> u8 { panic!("plain") }), Err("plain".to_owned()));
        assert_eq!(caught(|| -> u8 { panic!("number {}", 7) }), Err("number 7".to_owned()));
        assert_eq!(caught(|| -> u8 { std::panic::panic_any(7) }), Err("a panic".to_owned()));
    }

    /// Where the server panics.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Trap {
        Nowhere,
        InReadBody,
        InWrite { before: usize },
        InHasQueued,
    }

    /// A connection of which one part is at fault, once.
    struct Faulty {
        trap: Mutex<Trap>,
        head: RequestHead,
        written: Arc<Mutex<Vec<u8>>>,
    }

    impl Faulty {
        fn pass(&self, here: Trap) {
            let is_set = {
                let mut trap = self.trap.lock().unwrap();
                let is_set = *trap == here;
                if is_set {
                    *trap = Trap::Nowhere;
                }
                is_set
            };
            assert!(!is_set, "trapped {here:?}");
        }
    }

    impl Exchange for Faulty {
        fn request(&self) -> RequestView<'_> {
            RequestView {
                buffer: b"",
                head: &self.head,
                peer: &Peer::Unix,
                remote_addr: "",
                proxied: None,
                site: 0,
                scheme: Scheme::Http,
                secured: None,
                decoded_length: None,
            }
        }

        fn take_body(&mut self) -> Body {
            Body::Stream(Box::new(Body::empty()))
        }

        fn return_buffer(&mut self, _: Vec<u8>) {}

        fn write(&mut self, parts: &[&[u8]], _: Cork) -> io::Result<usize> {
            let before = self.written.lock().unwrap().len().min(1);
            self.pass(Trap::InWrite { before });
            let bytes = parts.concat();
            self.written.lock().unwrap().extend_from_slice(&bytes);
            Ok(bytes.len())
        }

        fn put_by(&mut self, _: &[u8]) -> bool {
            false
        }

        fn is_put_by(&self) -> bool {
            false
        }

        fn queue(&mut self, _: WriteChunk) {}

        fn flush_queued(&mut self) -> io::Result<bool> {
            Ok(true)
        }

        fn has_queued(&self) -> bool {
            self.pass(Trap::InHasQueued);
            false
        }

        fn wait_to_write(&mut self) -> io::Result<Wait> {
            Err(io::ErrorKind::TimedOut.into())
        }

        fn read_body(&mut self, _: &mut [u8]) -> io::Result<usize> {
            self.pass(Trap::InReadBody);
            Ok(0)
        }

        fn wait_to_read(&mut self) -> io::Result<Wait> {
            Err(io::ErrorKind::TimedOut.into())
        }

        fn may_keep_alive(&self) -> bool {
            true
        }

        fn lend_socket(&mut self) -> io::Result<RawFd> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

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
            flusher: crate::python::flusher::Flusher::default(),
        };
        Caller::new(py, &app, vec![site], options, &Hooks::default()).unwrap()
    }

    #[test]
    fn a_panic_below_a_request_costs_that_request_and_no_more() {
        Python::initialize();
        Python::attach(|py| {
            let mut caller = caller(py);
            for (trap, begins_with, ending) in [
                (Trap::Nowhere, "HTTP/1.1 200 OK", Disposition::KeepAlive),
                (Trap::InReadBody, "HTTP/1.1 500 ", Disposition::Close),
                // Nobody knows how much of the head is out.
                (Trap::InWrite { before: 0 }, "", Disposition::Broken),
                // Whoever sends the second block meets it: the application's thread, or the flusher's.
                (Trap::InWrite { before: 1 }, "HTTP/1.1 200 OK", Disposition::Broken),
                (Trap::InHasQueued, "HTTP/1.1 500 ", Disposition::Close),
                (Trap::Nowhere, "HTTP/1.1 200 OK", Disposition::KeepAlive),
            ] {
                let written = Arc::default();
                let exchange =
                    Faulty { trap: Mutex::new(trap), head: RequestHead::default(), written: Arc::clone(&written) };
                let finished = caller.call(py, Box::new(exchange));
                let text = String::from_utf8(written.lock().unwrap().clone()).unwrap();
                assert!(text.starts_with(begins_with), "{trap:?}: {text}");
                assert!(text.matches("HTTP/1.1").count() <= 1, "{trap:?}: {text}");
                let is_met_by_flusher = ending == Disposition::Broken && finished.ending == Disposition::Gone;
                assert!(finished.ending == ending || is_met_by_flusher, "{trap:?}: {:?}", finished.ending);
                assert_eq!(finished.environ_values.len(), 1, "{trap:?}");
            }
        });
    }
}
