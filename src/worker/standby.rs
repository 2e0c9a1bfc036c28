//! How the standby thread waits, and how it is called. What the thread does is told in
//! [`super::thread_pool`].
//!
//! Calling a thread costs more than most of what an application does between two blocks, so a
//! caller first looks how attentive the standby thread is. The module knows neither connections nor
//! the event loop.

use std::sync::atomic::{AtomicBool, AtomicU8, Ordering::SeqCst};
use std::sync::{Condvar, Mutex};
use std::time::Duration;

use super::batching::LONGEST_WAIT;
use crate::base::unpoisoned::Unpoisoned;

/// The standby thread looks this often whether all threads are busy; a request is held up for no
/// longer than twice that.
pub const BUSY_LOOK: Duration = Duration::from_millis(5);

/// How attentive the standby thread is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Attention {
    /// It sleeps until it is called: no thread runs the application.
    Asleep,
    /// It looks every [`BUSY_LOOK`].
    ToThreads,
    /// It looks every [`LONGEST_WAIT`]: bytes wait for more to come.
    ToBytes,
}

impl Attention {
    /// How long the thread waits between two looks; `None`: until it is called.
    fn interval(self) -> Option<Duration> {
        match self {
            Attention::Asleep => None,
            Attention::ToThreads => Some(BUSY_LOOK),
            Attention::ToBytes => Some(LONGEST_WAIT),
        }
    }
}

/// The wait of a worker's standby thread.
#[derive(Debug)]
pub struct Standby {
    attention: AtomicU8,
    /// Bytes have begun to wait since the last [`Standby::take_bytes`].
    has_bytes: AtomicBool,
    is_called: Mutex<bool>,
    call: Condvar,
}

impl Standby {
    /// A standby thread that has not waited yet: it looks before it first does.
    pub fn new() -> Self {
        Standby {
            attention: AtomicU8::new(Attention::ToBytes as u8),
            has_bytes: AtomicBool::new(false),
            is_called: Mutex::new(false),
            call: Condvar::new(),
        }
    }

    /// Has the standby thread look soon, if it is less attentive than `needed`.
    pub fn call_for(&self, needed: Attention) {
        if needed == Attention::ToBytes {
            self.has_bytes.store(true, SeqCst);
        }
        if self.attention.load(SeqCst) < needed as u8 {
            // Until the standby thread has woken, one call is enough.
            self.attention.fetch_max(needed as u8, SeqCst);
            self.call();
        }
    }

    /// For the standby thread: whether bytes have begun to wait since the last call. For bytes that
    /// still wait after a look, the thread [calls](Standby::call_for) itself again.
    pub fn take_bytes(&self) -> bool {
        self.has_bytes.swap(false, SeqCst)
    }

    /// Has the standby thread look at once.
    pub fn call(&self) {
        *self.is_called.lock().unpoisoned() = true;
        self.call.notify_one();
    }

    /// For the standby thread: announces how attentive it is from now on. It must look once more
    /// before it waits: whoever came before this call found it attentive, and did not call.
    pub fn set_attention(&self, attention: Attention) {
        self.attention.store(attention as u8, SeqCst);
    }

    /// For the standby thread: waits until it is called, or is to look again.
    pub fn wait(&self, attention: Attention) {
        let is_called = self.is_called.lock().unpoisoned();
        let mut is_called = match attention.interval() {
            _ if *is_called => is_called,
            Some(interval) => self.call.wait_timeout(is_called, interval).unpoisoned().0,
            None => self.call.wait_while(is_called, |is_called| !*is_called).unpoisoned(),
        };
        *is_called = false;
    }
}

impl Default for Standby {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    #[test]
    fn a_call_ends_the_wait_also_where_it_comes_first() {
        let standby = Arc::new(Standby::new());
        standby.set_attention(Attention::Asleep);
        standby.call_for(Attention::ToThreads);
        standby.wait(Attention::Asleep);
        let waits = standby.clone();
        let waiter = thread::spawn(move || waits.wait(Attention::Asleep));
        standby.call_for(Attention::ToBytes);
        waiter.join().unwrap();
    }

    #[test]
    fn who_is_attentive_enough_is_not_called() {
        let standby = Standby::new();
        for (attention, needed, is_called) in [
            (Attention::Asleep, Attention::ToThreads, true),
            (Attention::ToThreads, Attention::ToThreads, false),
            (Attention::ToThreads, Attention::ToBytes, true),
            (Attention::ToBytes, Attention::ToBytes, false),
        ] {
            standby.set_attention(attention);
            standby.call_for(needed);
            assert_eq!(std::mem::take(&mut *standby.is_called.lock().unwrap()), is_called, "{attention:?} {needed:?}");
        }
    }
}
