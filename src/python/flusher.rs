//! Sends what a response holds back, while the application works on its next block.
//!
//! An application that yields blocks one right behind the other would have each sent by a system call that costs many times what the
//! block did. So those that follow fast wait for company ([`Transmission::stream`]), and a thread of its own sees to it that none waits
//! for the application: PEP 3333 ("Buffering and Streaming") asks the server to guarantee that transmission continues while the next
//! block is produced. It needs no interpreter, and knows neither requests nor connections.
//!
//! [`Transmission::stream`]: super::transmission::Transmission::stream

use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::time::Duration;

use super::transmission::{Transmission, lock};

/// How long a block may wait for others. It is looked for what waits this often, so that none does for much longer.
const LONGEST_HOLD: Duration = Duration::from_micros(250);

/// A response that has held nothing back at so many looks is not looked at any more, until it does again: being called back costs the
/// application more than a few looks in vain.
const QUIET_LOOKS: u32 = 8;

/// The thread that flushes, and the responses it looks after: at most one a thread that runs the application, and listener. The thread
/// starts with the first response that holds something back. Clones are the same one.
#[derive(Clone, Default)]
pub struct Flusher(Arc<Shared>);

#[derive(Default)]
struct Shared {
    charges: Mutex<Charges>,
    /// There is somebody to look after.
    called: Condvar,
}

#[derive(Default)]
struct Charges {
    is_running: bool,
    responses: Vec<Charge>,
}

struct Charge {
    response: Weak<Mutex<Transmission>>,
    quiet_looks: u32,
}

impl Flusher {
    /// Looks after `response` from now on, until it has been quiet for a while; the caller remembers that.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn look_after(&self, response: &Arc<Mutex<Transmission>>) -> std::io::Result<()> {
        let mut charges = self.0.lock();
        if !charges.is_running {
            let shared = self.0.clone();
            std::thread::Builder::new().name("flusher".to_owned()).spawn(move || shared.run())?;
            charges.is_running = true;
        }
        charges.responses.push(Charge { response: Arc::downgrade(response), quiet_looks: 0 });
        self.0.called.notify_one();
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        loop {
            let mut charges = self.lock();
            while charges.responses.is_empty() {
                charges = self.called.wait(charges).unwrap_or_else(PoisonError::into_inner);
            }
            drop(charges);
            std::thread::sleep(LONGEST_HOLD);
            self.lock().responses.retain_mut(Charge::look);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Charges> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge {
    /// Sends what waits; `false` when nothing has for long enough.
    fn look(&mut self) -> bool {
        let Some(response) = self.response.upgrade() else { return false };
        let mut response = lock(&response);
        self.quiet_looks = if response.flush_for_a_while() { 0 } else { self.quiet_looks + 1 };
        if self.quiet_looks < QUIET_LOOKS {
            return true;
        }
        response.leave_to_itself();
        false
    }
}
