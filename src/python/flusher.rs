//! Sends what a response holds back, while the application works on its next block, and what a client has not taken of one that the
//! application has given all of, while it is at something else.
//!
//! An application that yields blocks one right behind the other would have each sent by a system call that costs many times what the
//! block did. So those that follow fast wait for company ([`ResponseWriter::stream`]), and a thread of its own sees to it that none waits
//! for the application: PEP 3333 ("Buffering and Streaming") asks the server to guarantee that transmission continues while the next
//! block is produced. It needs no interpreter, and knows neither requests nor connections.
//!
//! [`ResponseWriter::stream`]: super::transmission::Transmission::stream

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, TryLockError, Weak};
use std::time::Duration;

use super::panics::caught;
use super::response_writer::{Found, ResponseWriter};
use crate::sys::thread;

/// How long a block may wait for others. It is looked for what waits this often, so that none does for much longer.
const LONGEST_HOLD: Duration = Duration::from_micros(250);

/// A client that takes nothing of what it is sent is tried again after twice as long each time, up to this.
const LONGEST_PAUSE: Duration = Duration::from_millis(2);

/// A response that has had nothing to send at so many looks is not looked at any more, until it does again: calling the thread costs the
/// application more than a few looks in vain.
const QUIET_LOOKS: u32 = 8;

/// The thread that flushes, and the responses it looks after: at most one a thread that runs the application, and listener. The thread
/// starts with the first of them. Clones are the same one.
#[derive(Clone, Default)]
pub struct Flusher(Arc<Shared>);

#[derive(Default)]
struct Shared {
    charges: Mutex<Charges>,
    /// There is one more to look after.
    called: Condvar,
}

#[derive(Default)]
struct Charges {
    is_running: bool,
    responses: Vec<Charge>,
}

/// A response to look after.
struct Charge {
    response: Weak<Mutex<ResponseWriter>>,
    quiet_looks: u32,
    /// Until the next look, at most.
    pause: Duration,
}

impl Flusher {
    /// Looks after `response` from now on, until it has been quiet for a while, of which [`ResponseWriter::leave_to_itself`] tells it.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn look_after(&self, response: &Arc<Mutex<ResponseWriter>>) -> std::io::Result<()> {
        let mut charges = self.0.lock();
        if !charges.is_running {
            let shared = self.0.clone();
            thread::spawn("flusher", move || shared.run())?;
            charges.is_running = true;
        }
        charges.responses.push(Charge { response: Arc::downgrade(response), quiet_looks: 0, pause: LONGEST_HOLD });
        self.0.called.notify_one();
        Ok(())
    }
}

impl Shared {
    fn run(&self) {
        let mut charges = self.lock();
        loop {
            let Some(pause) = charges.responses.iter().map(|charge| charge.pause).min() else {
                charges = self.called.wait(charges).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            charges = self.called.wait_timeout(charges, pause).unwrap_or_else(PoisonError::into_inner).0;
            charges.responses.retain_mut(Charge::look);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Charges> {
        self.charges.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Charge {
    /// Sends what waits; `false` when nothing has for long enough.
    fn look(&mut self) -> bool {
        let Some(response) = self.response.upgrade() else { return false };
        let mut response = match response.try_lock() {
            Ok(response) => response,
            Err(TryLockError::Poisoned(response)) => response.into_inner(),
            // Somebody is sending; nobody else's blocks are to wait for that.
            Err(TryLockError::WouldBlock) => return true,
        };
        let Ok(found) = caught(|| response.flush_for_application()) else {
            response.give_up_after_fault();
            return false;
        };
        self.quiet_looks = if found == Found::Nothing { self.quiet_looks + 1 } else { 0 };
        self.pause = if found == Found::SlowClient { (2 * self.pause).min(LONGEST_PAUSE) } else { LONGEST_HOLD };
        if self.quiet_looks < QUIET_LOOKS {
            return true;
        }
        response.leave_to_itself();
        false
    }
}
