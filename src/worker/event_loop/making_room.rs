//! Which connections are ended where the worker can hold no more: because there are too many,
//! because unfinished requests take too much memory or disk, or because clients have taken the
//! application's descriptors. New connections and health checks always find room, and wait for it
//! only a moment.

use std::time::Duration;

use super::{EventLoop, idle};
use crate::worker::connection::{Connection, ConnectionStanding, Step};
use crate::worker::counting;

/// How long a connection that is fresh or idle keeps its place where the worker is full. Most heads
/// come at once.
const CROWDED_TIME: Duration = Duration::from_millis(25);

/// So many of the newest fresh connections keep their place for longer, until they count as late.
/// Otherwise a crowd of clients that connect before they send anything would only push each other
/// out.
const NEWEST: usize = 64;

/// How many connections are ended at once where the process has no descriptor left.
const SEVERAL: usize = 16;

impl EventLoop {
    /// Whether each further connection is one too many.
    pub(super) fn is_full(&self) -> bool {
        self.connections.len() >= self.accepting.most_connections || self.limits.holdings.is_in_reserve()
    }

    /// Whether another connection may be held, or one given up for it.
    pub(super) fn has_room(&self) -> bool {
        !self.is_full() || !self.queues.dispensable.is_empty()
    }

    /// Whether clients may be waiting while the worker is full.
    pub(super) fn waits_for_room(&self) -> bool {
        self.is_full() && self.is_awaited()
    }

    /// Where room is needed in this turn, finds the connections that can be ended for it. Gives the
    /// application back its reserve of descriptors.
    pub(super) fn look_for_room(&mut self) {
        self.queues.dispensable.clear();
        if self.limits.holdings.is_in_reserve() {
            self.make_much_room();
            if self.connections.len() < NEWEST {
                // The application itself has so many descriptors: no client is to be kept out for
                // that.
                self.limits.holdings.leave_reserve();
            }
        } else if self.waits_for_room() {
            self.find_dispensable(false);
        }
    }

    /// Ends connections as long as the one that has just come is one too many. To be called after
    /// the accept, which may bring none.
    pub(super) fn make_room(&mut self) {
        let is_one_too_many = |this: &Self| {
            this.connections.len() > this.accepting.most_connections || this.limits.holdings.is_in_reserve()
        };
        while is_one_too_many(self) && self.give_one_up() {}
    }

    /// Ends connections until the application has its reserve of descriptors, and several more that
    /// can be done without. Says whether any were ended.
    pub(super) fn make_much_room(&mut self) -> bool {
        let mut has_made_room = false;
        self.find_dispensable(true);
        while self.limits.holdings.is_in_reserve() && self.give_one_up() {
            has_made_room = true;
        }
        self.find_dispensable(false);
        has_made_room |= (0..SEVERAL).filter(|_| self.give_one_up()).count() > 0;
        if !has_made_room {
            self.find_dispensable(true);
            has_made_room = self.give_one_up();
            self.queues.dispensable.clear();
        }
        has_made_room
    }

    /// Ends the requests that have held most for longest, where all of them together hold too much.
    pub(super) fn keep_within_bounds(&mut self) {
        while let Some((good, mut excess)) = self.limits.holdings.excess() {
            let now = self.clock.now;
            let cost = |connection: &Connection| {
                // A request that waits for the application is ended last: its client has done
                // nothing wrong.
                let weight = u128::from(connection.held().of(good)) * connection.held_for(now).as_millis().max(1);
                (!connection.is_ready(), weight)
            };
            let mut holders = Vec::new();
            self.each_idle(|key, connection| {
                let held = connection.held().of(good);
                if held > 0 {
                    holders.push((cost(connection), key, held));
                }
            });
            holders.sort_unstable_by_key(|&(cost, ..)| std::cmp::Reverse(cost));
            let mut leaving = Vec::new();
            for (_, key, held) in holders {
                if excess == 0 {
                    break;
                }
                excess = excess.saturating_sub(held);
                leaving.push(key);
            }
            if leaving.is_empty() {
                // The rest is held by requests that the application has.
                break;
            }
            leaving.into_iter().for_each(|key| self.give_up(key));
        }
        if self.limits.holdings.is_in_reserve() {
            self.make_much_room();
        }
    }

    /// Finds the connections that can be done without. Where it is `urgent`, all others that may be
    /// ended (see [`Connection::standing`]) follow them.
    pub(super) fn find_dispensable(&mut self, urgent: bool) {
        let now = self.clock.now;
        let mut found: Vec<(ConnectionStanding, usize)> = Vec::new();
        self.each_idle(|key, connection| found.extend(connection.standing(now).map(|standing| (standing, key))));
        found.sort_unstable();
        let fresh = found.iter().filter(|(standing, _)| matches!(standing, ConnectionStanding::Fresh(_))).count();
        let mut fresh_left = fresh.saturating_sub(NEWEST);
        let (first, last): (Vec<_>, Vec<_>) = found.into_iter().partition(|(standing, _)| match standing {
            ConnectionStanding::Fresh(since) => {
                let is_of_the_newest = fresh_left == 0;
                fresh_left = fresh_left.saturating_sub(1);
                !is_of_the_newest && now >= *since + CROWDED_TIME
            }
            ConnectionStanding::Idle(since) => now >= *since + CROWDED_TIME,
            ConnectionStanding::Late(_) | ConnectionStanding::Slow(_) => true,
            ConnectionStanding::Busy(_) => false,
        });
        let mut last = if urgent { last } else { Vec::new() };
        // Fresh ones go first: a client that was served just now is about to ask again.
        last.sort_by_key(|(standing, _)| !matches!(standing, ConnectionStanding::Fresh(_)));
        self.queues.dispensable.clear();
        self.queues.dispensable.extend(first.into_iter().chain(last).map(|(_, key)| key));
    }

    /// Ends the connection that can best be done without; says whether there was one. A connection
    /// of which something has arrived meanwhile stays.
    fn give_one_up(&mut self) -> bool {
        while let Some(key) = self.queues.dispensable.pop_front() {
            let Some(mut connection) = idle(&self.connections, key) else { continue };
            let Some(standing) = connection.standing(self.clock.now) else { continue };
            let moves = matches!(standing, ConnectionStanding::Busy(_));
            if !moves && !connection.has_unsent() && connection.has_arrived() {
                connection.note_unread(false);
                drop(connection);
                self.queues.unfinished.push(key);
                continue;
            }
            drop(connection);
            self.give_up(key);
            return true;
        }
        false
    }

    fn give_up(&mut self, key: usize) {
        let Some(mut connection) = idle(&self.connections, key) else { return };
        match connection.make_room() {
            Step::Refused(error) => {
                counting::refused(self.siblings.row(), &error);
                self.unlogged.rejections.refused(connection.remote_addr(), &error);
                self.unlogged.requests.push(connection.take_unserved(error.status()));
            }
            Step::Stalled => self.unlogged.rejections.stalled(connection.remote_addr()),
            _ => {}
        }
        drop(connection);
        self.remove(key);
    }
}
