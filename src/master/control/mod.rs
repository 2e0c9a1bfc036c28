//! The control socket: commands of an operator's program, answered in the master's loop.
//!
//! It speaks gunicorn's protocol. Each turn of the loop looks at every client without waiting, so a
//! client that stands still costs nobody anything, and forks, reloads and upgrades go on beside it.
//! `frames` reads what has come, `commands` does it.

mod commands;
mod frames;

use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use log::{error, info};
use serde_json::{Value, json};

use crate::settings::Config;
use crate::sys::errno::as_python_shows;
use crate::sys::socket::{BindAddress, BindOptions, Cork, Listener, Stream};

use super::waiter::MasterWaiter;
use super::{Departure, Master};

/// Clients at a time. Those behind them wait in the kernel.
const CLIENTS: usize = 16;

/// Clients that may wait there.
const BACKLOG: u32 = 16;

/// How long a client may send nothing: gunicorn's number.
const IDLE_TIMEOUT: Duration = Duration::from_secs(300);

/// Bytes of replies that a client may leave unread.
const MOST_UNREAD: usize = 4 << 20;

/// Commands of one client in one turn of the loop.
const COMMANDS_PER_TURN: usize = 16;

#[derive(Default)]
pub(super) struct Control {
    listener: Option<(PathBuf, u32, Listener)>,
    clients: Vec<Client>,
    /// A client may have sent more commands than were its share of the last turn.
    has_more: bool,
}

struct Client {
    stream: Stream,
    input: Vec<u8>,
    output: Vec<u8>,
    last_heard: Instant,
    /// The id of the command that waits for a reload, and how many reloads end before that.
    awaits_reload: Option<(Value, u32)>,
    is_over: bool,
}

/// What a command leads to.
enum Reply {
    /// This is the whole reply.
    Now(Result<Value, String>),
    /// It follows when the reload is settled, and so many `before` it.
    WhenReloaded { before: u32 },
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

    /// Closes the socket and all clients, once what they were told is on its way.
    pub fn close(&mut self) {
        self.clients.iter_mut().for_each(Client::send);
        self.clients.clear();
        if let Some((_, _, listener)) = self.listener.take() {
            listener.unlink();
        }
    }

    /// Whether there is anything to look at.
    pub fn is_open(&self) -> bool {
        self.listener.is_some() || !self.clients.is_empty()
    }

    /// When there is something to do though nothing has come: at once, or when the first client has
    /// been silent for too long.
    pub fn deadline(&self) -> Option<Instant> {
        if self.has_more {
            return Some(Instant::now());
        }
        self.clients.iter().map(|client| client.last_heard + IDLE_TIMEOUT).min()
    }

    /// Tells those who wait for it how a reload has ended.
    pub fn tell_reload(&mut self, outcome: &Result<Value, String>) {
        for client in &mut self.clients {
            match client.awaits_reload.take() {
                Some((id, 0)) => client.reply(&id, outcome.clone()),
                Some((id, before)) => client.awaits_reload = Some((id, before - 1)),
                None => {}
            }
        }
    }

    fn accept(&mut self, waiter: &MasterWaiter, now: Instant) {
        let Some((_, _, listener)) = &self.listener else { return };
        while self.clients.len() < CLIENTS
            && let Ok((stream, _)) = listener.accept()
        {
            waiter.watch(stream.as_raw_fd());
            let (input, output) = (Vec::new(), Vec::new());
            self.clients.push(Client { stream, input, output, last_heard: now, awaits_reload: None, is_over: false });
        }
    }
}

impl Client {
    /// Reads what has come, and takes the next command out of it.
    fn next(&mut self, now: Instant) -> Option<(Value, Result<Vec<String>, String>)> {
        if self.awaits_reload.is_some() || self.output.len() > MOST_UNREAD {
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

    /// Answers the clients of the control socket. Breaks if one of them has the server stop.
    pub(super) fn serve_control(&mut self) -> ControlFlow<Departure> {
        if !self.control.is_open() {
            return ControlFlow::Continue(());
        }
        let now = Instant::now();
        self.control.accept(&self.waiter, now);
        let (mut departure, mut has_more) = (ControlFlow::Continue(()), false);
        // The clients are set aside, since commands concern all of the master.
        let mut clients = std::mem::take(&mut self.control.clients);
        for client in &mut clients {
            let mut left = COMMANDS_PER_TURN;
            while left > 0
                && departure.is_continue()
                && let Some((id, words)) = client.next(now)
            {
                left -= 1;
                match words.map(|words| self.command(&words, &mut departure)) {
                    Ok(Reply::Now(outcome)) => client.reply(&id, outcome),
                    Ok(Reply::WhenReloaded { before }) => client.awaits_reload = Some((id, before)),
                    Err(error) => client.reply(&id, Err(error)),
                }
            }
            client.send();
            has_more |= left == 0;
        }
        self.control.has_more = has_more;
        clients.retain(|client| !client.is_over && now < client.last_heard + IDLE_TIMEOUT);
        self.control.clients = clients;
        departure
    }

    /// Tells the clients that wait for it how the reload has ended.
    pub(super) fn tell_reload(&mut self, outcome: Result<Value, String>) {
        self.control.tell_reload(&outcome);
        self.control.clients.iter_mut().for_each(Client::send);
    }
}
