//! The control socket: commands of an operator's program, answered in the master's loop.
//!
//! The socket speaks gunicorn's protocol. Each turn of the loop looks at every client without
//! waiting, so a client that stands still costs nobody anything, and forks, reloads and upgrades go
//! on beside it. `frames` decodes requests, and `commands` carries them out. Some replies follow in
//! a later turn: the outcome of a reload, the `stacks` of workers, what the dirty arbiter says.

mod commands;
mod dirty;
mod frames;
mod stacks;

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{error, info};
use serde_json::{Value, json};

use crate::settings::Config;
use crate::sys::errno::as_python_shows;
use crate::sys::poll::is_hung_up;
use crate::sys::process::Pid;
use crate::sys::socket::{BindAddress, BindOptions, Cork, Listener, Stream};
use crate::sys::stack_file;

use self::dirty::Question;
use super::dirty::Query;
use super::waiter::MasterWaiter;
use super::{Departure, Master};

use self::stacks::{AskedWorkers, WantedWorkers};

/// Clients at a time. Those behind them wait in the kernel.
const CLIENTS: usize = 16;

/// Clients that may wait in the kernel.
const BACKLOG: u32 = 16;

/// How long a client may send nothing: gunicorn's number.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of replies that a client may leave unread.
const MOST_UNREAD: usize = 4 << 20;

/// Commands of one client in one turn of the loop.
const COMMANDS_PER_TURN: usize = 16;

/// Characters of a command that the log shows.
const MOST_LOGGED: usize = 200;

#[derive(Default)]
pub(super) struct Control {
    listener: Option<(PathBuf, u32, Listener)>,
    clients: Vec<ControlClient>,
    /// A client may have sent more commands than the last turn carried out, or may wait for room
    /// that is there now.
    has_more: bool,
}

struct ControlClient {
    stream: Stream,
    input: Vec<u8>,
    output: Vec<u8>,
    last_heard: Instant,
    /// The process and the user that have connected, as far as the kernel knows.
    peer: Option<(Pid, u32)>,
    /// The id of the command that waits for its reply, and what it waits for. Further commands wait
    /// behind that one.
    awaits: Option<(Value, Awaited)>,
    is_over: bool,
}

/// What a command leads to.
enum CommandReply {
    /// This is the whole reply.
    Now(Result<Value, String>),
    /// The reply follows when this is there.
    Later(Awaited),
}

/// What a reply waits for.
enum Awaited {
    /// The end of a reload, after `before` others have ended.
    Reload { before: u32 },
    /// Its turn to ask workers for their stacks: one client at a time does so.
    Turn(WantedWorkers),
    /// The stacks of workers.
    Stacks(AskedWorkers),
    /// What the dirty arbiter says.
    Arbiter(Question, Query),
}

impl Control {
    /// Opens, moves or closes the socket as the settings say.
    pub fn follow(&mut self, config: &Config, waiter: &MasterWaiter) {
        let wanted = config.control_path().map(|path| (path, config.control_socket_mode));
        if self.listener.as_ref().map(|(path, mode, _)| (path, mode))
            == wanted.as_ref().map(|(path, mode)| (path, mode))
        {
            return;
        }
        self.close();
        let Some((path, mode)) = wanted else { return };
        match open(&path, mode) {
            Ok(listener) => {
                info!("Control socket listening at {}", path.display());
                waiter.watch(listener.as_raw_fd());
                self.listener = Some((path, mode, listener));
            }
            Err(error) => {
                error!("control_socket: cannot listen at {}: {}", path.display(), as_python_shows(&error));
            }
        }
    }

    /// Closes the socket and all clients. Before that each client is sent as much of its replies as
    /// it takes at once.
    pub fn close(&mut self) {
        self.clients.iter_mut().for_each(ControlClient::send);
        self.clients.clear();
        self.has_more = false;
        if let Some((_, _, listener)) = self.listener.take() {
            listener.unlink();
        }
    }

    /// Whether there is anything to look at.
    pub fn is_open(&self) -> bool {
        self.listener.is_some() || !self.clients.is_empty()
    }

    /// When the master must look at the clients though nothing has come from them: at once if
    /// commands are left, soon if a worker may have written its stacks, else when the first client
    /// has been silent, or has waited for the dirty arbiter, for too long.
    pub fn deadline(&self) -> Option<Instant> {
        if self.has_more {
            return Some(Instant::now());
        }
        if self.clients.iter().any(ControlClient::awaits_stacks) {
            return Some(Instant::now() + stack_file::LOOK);
        }
        self.clients.iter().filter_map(ControlClient::deadline).min()
    }

    /// Tells the clients that wait for a reload how one has ended.
    pub fn tell_reload(&mut self, outcome: &Result<Value, String>) {
        for client in &mut self.clients {
            match client.awaits.take() {
                Some((id, Awaited::Reload { before: 0 })) => {
                    client.last_heard = Instant::now();
                    client.reply(&id, outcome.clone());
                    // A command may wait behind this one.
                    self.has_more = true;
                }
                Some((id, Awaited::Reload { before })) => {
                    client.awaits = Some((id, Awaited::Reload { before: before - 1 }));
                }
                other => client.awaits = other,
            }
        }
    }

    fn accept(&mut self, waiter: &MasterWaiter, now: Instant) {
        let Some((_, _, listener)) = &self.listener else { return };
        while self.clients.len() < CLIENTS
            && let Ok((stream, _)) = listener.accept()
        {
            waiter.watch(stream.as_raw_fd());
            let (input, output, peer) = (Vec::new(), Vec::new(), stream.peer_process());
            let (awaits, is_over) = (None, false);
            self.clients.push(ControlClient { stream, input, output, last_heard: now, peer, awaits, is_over });
        }
    }
}

impl ControlClient {
    /// Reads what has come, and takes the next command out of it.
    fn next(&mut self, now: Instant) -> Option<(Value, Result<Vec<String>, String>)> {
        if self.awaits.is_some() || self.output.len() > MOST_UNREAD {
            return None;
        }
        let mut buffer = [0; 4096];
        loop {
            match frames::take(&mut self.input) {
                frames::Read::Request(id, words) => return Some((id, words)),
                frames::Read::Partial => {}
                frames::Read::Broken => {
                    self.is_over = true;
                    return None;
                }
            }
            match self.stream.read(&mut buffer) {
                Ok(count) if count > 0 => {
                    self.last_heard = now;
                    self.input.extend_from_slice(&buffer[..count]);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                Ok(_) | Err(_) => {
                    self.is_over = true;
                    return None;
                }
            }
        }
    }

    /// When the client has been silent for too long; `None` while it waits for a reply.
    fn silent_until(&self) -> Option<Instant> {
        self.awaits.is_none().then(|| self.last_heard + IDLE_TIMEOUT)
    }

    /// When the master must look at the client though nothing has come from it.
    fn deadline(&self) -> Option<Instant> {
        match &self.awaits {
            Some((_, Awaited::Arbiter(_, query))) => Some(query.deadline()),
            _ => self.silent_until(),
        }
    }

    /// Whether the client is kept. While it waits for a reply the master does not read from it, and
    /// asks the kernel whether it has hung up.
    fn stays(&self, now: Instant) -> bool {
        !self.is_over
            && match self.silent_until() {
                Some(until) => now < until,
                None => !is_hung_up(self.stream.as_raw_fd()),
            }
    }

    fn awaits_stacks(&self) -> bool {
        matches!(self.awaits, Some((_, Awaited::Stacks(_) | Awaited::Turn(_))))
    }

    /// The dirty arbiter's answer, once it has come, with the id of the command and its question.
    fn take_answer(&mut self, now: Instant) -> Option<(Value, Question, Result<Value, String>)> {
        let Some((_, Awaited::Arbiter(question, query))) = &mut self.awaits else { return None };
        let (question, said) = (*question, query.poll(now)?);
        let (id, _) = self.awaits.take()?;
        self.last_heard = now;
        Some((id, question, said))
    }

    /// How the log names the client.
    fn shown(&self) -> String {
        self.peer.map_or_else(|| "unknown".to_owned(), |(pid, user)| format!("uid:{user}, pid:{pid}"))
    }

    fn reply(&mut self, id: &Value, outcome: Result<Value, String>) {
        let object = match outcome {
            Ok(data) => json!({"id": id, "status": "ok", "data": data}),
            Err(error) => json!({"id": id, "status": "error", "error": error}),
        };
        self.output.extend(frames::frame(&object));
    }

    /// Sends what the client takes.
    fn send(&mut self) {
        while !self.output.is_empty() {
            match self.stream.write(&self.output, Cork::No) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => {
                    self.is_over = true;
                    return;
                }
            }
        }
    }
}

fn open(path: &Path, mode: u32) -> std::io::Result<Listener> {
    use std::os::unix::fs::DirBuilderExt;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty() && !folder.exists()) {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    }
    // The file has its mode from the first moment on.
    let options = BindOptions { backlog: BACKLOG, umask: !mode & 0o777, owner: None, reuse_port: false };
    Listener::bind(&BindAddress::Unix(path.to_owned()), options)
}

impl Master {
    /// Opens, moves or closes the socket as the settings in force say.
    pub(super) fn open_control(&mut self) {
        self.control.follow(&self.generations.serving.service.config, &self.waiter);
        let path = self.control.listener.as_ref().map_or_else(String::new, |(path, _, _)| path.display().to_string());
        self.workers.scoreboard().set_control_path(&path);
    }

    /// Answers the clients of the control socket. Breaks if a command stops the server.
    pub(super) fn serve_control(&mut self) -> ControlFlow<Departure> {
        if !self.control.is_open() {
            return ControlFlow::Continue(());
        }
        let now = Instant::now();
        self.control.accept(&self.waiter, now);
        let (mut departure, mut has_more) = (ControlFlow::Continue(()), false);
        // The clients are taken out of `self`, because a command borrows the whole master.
        let mut clients = std::mem::take(&mut self.control.clients);
        for client in &mut clients {
            self.tell_stacks(client, now);
            if let Some((id, question, said)) = client.take_answer(now) {
                client.reply(&id, self.dirty_reply(question, Some(said)));
            }
            let mut left = COMMANDS_PER_TURN;
            while left > 0
                && departure.is_continue()
                && let Some((id, words)) = client.next(now)
            {
                left -= 1;
                match words.map(|words| self.command(&words, &client.shown(), &mut departure)) {
                    Ok(CommandReply::Now(outcome)) => client.reply(&id, outcome),
                    Ok(CommandReply::Later(awaited)) => client.awaits = Some((id, awaited)),
                    Err(error) => client.reply(&id, Err(error)),
                }
            }
            client.send();
            has_more |= left == 0;
        }
        self.let_next_ask(&mut clients);
        let was_full = clients.len() >= CLIENTS;
        clients.retain(|client| client.stays(now));
        // The poll does not tell again of a client that has come while there was no room for it.
        self.control.has_more = has_more || was_full && clients.len() < CLIENTS;
        self.control.clients = clients;
        departure
    }

    /// Tells a client the stacks that it waits for, if all are there.
    fn tell_stacks(&self, client: &mut ControlClient, now: Instant) {
        if let Some((_, Awaited::Stacks(asked))) = &mut client.awaits
            && let Some(told) = asked.reply(now)
            && let Some((id, _)) = client.awaits.take()
        {
            client.last_heard = now;
            client.reply(&id, Ok(told));
        }
    }

    /// Lets the next client ask for stacks. One client at a time asks, because a worker has one
    /// file for all answers.
    fn let_next_ask(&self, clients: &mut [ControlClient]) {
        if clients.iter().any(|client| matches!(client.awaits, Some((_, Awaited::Stacks(_))))) {
            return;
        }
        for client in clients {
            if let Some((_, awaited)) = &mut client.awaits
                && let Awaited::Turn(wanted) = *awaited
            {
                *awaited = Awaited::Stacks(self.ask_for_stacks(wanted));
                return;
            }
        }
    }

    /// Tells the clients that wait for it how the reload has ended.
    pub(super) fn tell_reload(&mut self, outcome: Result<Value, String>) {
        self.control.tell_reload(&outcome);
        self.control.clients.iter_mut().for_each(ControlClient::send);
    }
}
