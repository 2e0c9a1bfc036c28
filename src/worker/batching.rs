//! When bytes for a client go out at once, and when they wait a moment for more: the policy, and
//! all of its numbers.
//!
//! Each send costs a system call and wakes a client, which can cost more than the application's
//! part. So a block of an iteration that follows fast waits for the next block, and a short
//! response waits for those to requests that are ready. PEP 3333 ("Buffering and Streaming") asks
//! that a block goes out while the next one is produced: the standby thread sends those that are
//! due.

use std::time::{Duration, Instant};

use crate::base::ablation::{Mechanism, is_off};
use crate::exchange::Hint;

/// A block that comes this soon after the one before it may wait. At that pace a send for each
/// costs a tenth of the time; at a faster one it would soon cost more than the application.
const FAST: Duration = Duration::from_micros(50);

/// Blocks and responses that are longer do not wait.
const SHORT: usize = 8 * 1024;

/// Most bytes that wait for more.
pub const MOST_WAITING: usize = 32 * 1024;

/// How long a block may wait for the next. The standby thread looks this often for what is due.
pub const LONGEST_WAIT: Duration = Duration::from_micros(250);

/// How long a whole response may wait for those to requests that are ready. Sent together, they
/// wake their clients once instead of each time: on a virtual machine a wake-up costs as much as a
/// short request. Nor do the application and the kernel's network code then keep driving each other
/// out of the processor's caches.
pub const RESPONSE_WAIT: Duration = Duration::from_micros(200);

/// Most responses that wait for each other.
pub const MOST_RESPONSES: usize = 8;

/// Where requests have lately taken no longer than this, in nanoseconds, a response may wait for
/// those behind it; one request of a second rules that out for the next fifty.
pub const SHORT_REQUEST_NS: u64 = 100_000;

/// One response's place in the policy.
#[derive(Default)]
pub struct Batching {
    /// Whether other requests are ready, whose responses this one may wait for.
    has_company: bool,
    /// Until when the next block of an iteration follows the last one, which was sent or put off,
    /// so fast that it may wait.
    fast_until: Option<Instant>,
    waits: Waits,
}

/// What the bytes in the queue wait for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Waits {
    /// For the client, or nothing waits.
    #[default]
    Not,
    /// For the next block, until this moment at most.
    ForBlock(Instant),
    /// For other responses.
    ForResponses,
}

impl Batching {
    /// The next response begins. `has_company` says that other responses are about to follow.
    pub fn begin(&mut self, has_company: bool) {
        let has_company = has_company && !is_off(Mechanism::ResponseBatching);
        *self = Batching { has_company, ..Batching::default() };
    }

    /// Whether bytes with this `hint` are ever kept.
    pub fn may_defer(&self, hint: Hint) -> bool {
        match hint {
            Hint::MoreSoon => self.fast_until.is_some(),
            Hint::LastOfResponse => self.has_company,
            Hint::Now | Hint::LastOfConnection => false,
        }
    }

    /// Whether `length` bytes are to be kept for now. `queued` bytes are in the queue, all of which
    /// [wait](Waits) for more to come.
    pub fn defers(&mut self, hint: Hint, length: usize, queued: usize) -> bool {
        match hint {
            Hint::MoreSoon => self.defers_block(length, queued),
            Hint::LastOfResponse => {
                let defers = self.has_company && queued == 0 && length <= SHORT;
                if defers {
                    self.waits = Waits::ForResponses;
                }
                defers
            }
            Hint::Now | Hint::LastOfConnection => false,
        }
    }

    fn defers_block(&mut self, length: usize, queued: usize) -> bool {
        let Some(fast_until) = self.fast_until else { return false };
        let now = Instant::now();
        let defers = now < fast_until && length <= SHORT && queued + length <= MOST_WAITING;
        if defers {
            self.fast_until = Some(now + FAST);
            if self.waits == Waits::Not {
                self.waits = Waits::ForBlock(now + LONGEST_WAIT);
            }
        }
        defers
    }

    /// A block of an iteration has been handed to the kernel.
    pub fn block_was_sent(&mut self) {
        if !is_off(Mechanism::BlockBatching) {
            self.fast_until = Some(Instant::now() + FAST);
        }
    }

    /// What the queue waits for.
    pub fn waits(&self) -> Waits {
        self.waits
    }

    /// What waited has been sent, or waits for the client now.
    pub fn end_wait(&mut self) {
        self.waits = Waits::Not;
    }

    /// The response waits for no other responses: it has taken long already.
    pub fn leave_company(&mut self) {
        self.has_company = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_wait_that_follow_fast_are_short_and_find_room() {
        let mut batching = Batching::default();
        assert!(!batching.defers(Hint::MoreSoon, 1, 0), "the first goes at once");
        // A machine that is busy may take long between two lines.
        let follows = |length, queued| {
            (0..1000).any(|_| {
                let mut batching = Batching::default();
                batching.block_was_sent();
                batching.defers(Hint::MoreSoon, length, queued)
            })
        };
        assert!(follows(SHORT, 0));
        assert!(follows(SHORT, MOST_WAITING - SHORT));
        assert!(!follows(SHORT + 1, 0), "long");
        assert!(!follows(SHORT, MOST_WAITING - SHORT + 1), "no room");
        batching.fast_until = Some(Instant::now());
        assert!(!batching.defers(Hint::MoreSoon, 1, 0), "slow");
        assert_eq!(batching.waits(), Waits::Not);
    }

    #[test]
    fn a_block_waits_from_the_first_that_waits() {
        let mut batching = Batching::default();
        let start = Instant::now();
        batching.fast_until = Some(start + Duration::from_secs(1));
        assert!(batching.defers(Hint::MoreSoon, 1, 0));
        let Waits::ForBlock(until) = batching.waits() else { panic!("it waits") };
        assert!(until >= start + LONGEST_WAIT);
        batching.fast_until = Some(start + Duration::from_secs(1));
        assert!(batching.defers(Hint::MoreSoon, 1, 1));
        assert_eq!(batching.waits(), Waits::ForBlock(until));
        batching.end_wait();
        assert_eq!(batching.waits(), Waits::Not);
    }

    #[test]
    fn a_short_whole_response_waits_in_company_only() {
        for (has_company, length, queued, defers) in
            [(true, SHORT, 0, true), (false, 1, 0, false), (true, SHORT + 1, 0, false), (true, 1, 1, false)]
        {
            let mut batching = Batching::default();
            batching.begin(has_company);
            assert_eq!(
                batching.defers(Hint::LastOfResponse, length, queued),
                defers,
                "{has_company} {length} {queued}"
            );
            assert_eq!(batching.waits() == Waits::ForResponses, defers);
            batching.leave_company();
            assert!(!batching.defers(Hint::LastOfResponse, 1, 0));
            assert!(!batching.defers(Hint::Now, 1, 0) && !batching.defers(Hint::LastOfConnection, 1, 0));
        }
    }
}
