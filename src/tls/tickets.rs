//! Session tickets that every worker of a generation can read (RFC 5077, RFC 8446 section 4.6.1),
//! so that a client resumes its session whichever worker accepts its next connection.
//!
//! The key of each epoch is derived from a seed that the workers share and that changes with the
//! certificates. Workers need not communicate for it: an epoch is a span of the monotonic clock,
//! which is the same in all processes.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use aws_lc_rs::hmac;
use rustls::server::ProducesTickets;

use crate::sys::clock::monotonic_ms;

/// How long new tickets are encrypted with one key. They are accepted for one epoch more.
const EPOCH_MS: u64 = 6 * 60 * 60 * 1000;

/// The lifetime that clients are told, in seconds.
const LIFETIME_S: u32 = 12 * 60 * 60;

const EPOCH_BYTES: usize = size_of::<u64>();

/// Makes tickets and reads them. A ticket is the number of its epoch, a nonce, and the encrypted
/// state of the session.
pub(super) struct Tickets {
    seed: hmac::Key,
}

impl Tickets {
    /// Tickets under keys that are derived from `seed`.
    pub fn new(seed: [u8; 32]) -> Tickets {
        Tickets { seed: hmac::Key::new(hmac::HMAC_SHA256, &seed) }
    }

    fn key(&self, epoch: u64) -> Option<RandomizedNonceKey> {
        RandomizedNonceKey::new(&AES_256_GCM, hmac::sign(&self.seed, &epoch.to_be_bytes()).as_ref()).ok()
    }

    fn seal(&self, state: &[u8], epoch: u64) -> Option<Vec<u8>> {
        let name = epoch.to_be_bytes();
        let mut sealed = state.to_vec();
        let nonce = self.key(epoch)?.seal_in_place_append_tag(Aad::from(name), &mut sealed).ok()?;
        Some([&name[..], nonce.as_ref(), &sealed].concat())
    }

    fn open(&self, ticket: &[u8], now: u64) -> Option<Vec<u8>> {
        let (name, rest) = ticket.split_first_chunk::<EPOCH_BYTES>()?;
        let (nonce, sealed) = rest.split_first_chunk::<NONCE_LEN>()?;
        let epoch = u64::from_be_bytes(*name);
        if epoch != now && epoch.checked_add(1) != Some(now) {
            return None;
        }
        let mut state = sealed.to_vec();
        let key = self.key(epoch)?;
        let length = key.open_in_place(Nonce::assume_unique_for_key(*nonce), Aad::from(*name), &mut state).ok()?.len();
        state.truncate(length);
        Some(state)
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        LIFETIME_S
    }

    fn encrypt(&self, state: &[u8]) -> Option<Vec<u8>> {
        self.seal(state, monotonic_ms() / EPOCH_MS)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        self.open(ticket, monotonic_ms() / EPOCH_MS)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_is_read_for_two_epochs_by_workers_with_the_same_seed() {
        let (ours, sibling, stranger) = (Tickets::new([1; 32]), Tickets::new([1; 32]), Tickets::new([2; 32]));
        let ticket = ours.seal(b"state", 5).unwrap();
        for (reader, now, expected) in [
            (&sibling, 5, true),
            (&sibling, 6, true),
            (&sibling, 7, false),
            (&sibling, 4, false),
            (&stranger, 5, false),
        ] {
            assert_eq!(reader.open(&ticket, now), expected.then(|| b"state".to_vec()), "{now}");
        }
    }

    #[test]
    fn a_ticket_that_was_touched_or_cut_is_refused() {
        let tickets = Tickets::new([1; 32]);
        let ticket = tickets.seal(b"state", 5).unwrap();
        for at in 0..ticket.len() {
            let mut touched = ticket.clone();
            touched[at] ^= 1;
            assert_eq!(tickets.open(&touched, 5), None, "{at}");
            assert_eq!(tickets.open(&ticket[..at], 5), None, "{at}");
        }
        assert_eq!(tickets.open(&[0xff; 64], u64::MAX), None);
    }
}
