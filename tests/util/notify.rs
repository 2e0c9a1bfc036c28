//! The other end of sd_notify(3): the messages that a service manager receives.

use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::wait_until;

/// A service manager's socket, and every message to it.
pub struct NotifySocket {
    path: PathBuf,
    heard: Arc<Mutex<Vec<String>>>,
}

impl NotifySocket {
    pub fn at(path: &Path) -> NotifySocket {
        let socket = UnixDatagram::bind(path).expect("a free path");
        socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        let heard = Arc::new(Mutex::new(Vec::new()));
        let listener = Arc::downgrade(&heard);
        // As a real manager, it listens all the time: the socket's buffer is short.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Some(heard) = listener.upgrade() {
                if let Ok(count) = socket.recv(&mut buffer) {
                    let message = String::from_utf8_lossy(&buffer[..count]).into_owned();
                    heard.lock().unwrap_or_else(PoisonError::into_inner).push(message);
                }
            }
        });
        NotifySocket { path: path.to_path_buf(), heard }
    }

    pub fn path(&self) -> &str {
        self.path.to_str().expect("a plain path")
    }

    /// Every message so far, in order.
    pub fn heard(&self) -> Vec<String> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub fn count(&self, text: &str) -> usize {
        self.heard().iter().filter(|message| message.contains(text)).count()
    }

    #[track_caller]
    pub fn wait_for(&self, text: &str, times: usize) {
        wait_until(&format!("{times} times {text:?} from the server"), || self.count(text) >= times);
    }

    /// Each "n of m workers serving" that was said.
    pub fn serving(&self) -> Vec<(usize, usize)> {
        let numbers = |message: &String| {
            let (serving, rest) = message.strip_prefix("STATUS=")?.split_once(" of ")?;
            Some((serving.parse().ok()?, rest.split(' ').next()?.parse().ok()?))
        };
        self.heard().iter().filter_map(numbers).collect()
    }
}
