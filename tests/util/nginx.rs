//! A real nginx in front of the server under test.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::Signal::SIGTERM;

use super::client::{Address, Client};
use super::server::send;
use super::tools::program_on_path;
use super::wait_until;

/// It ends with the value.
pub struct Nginx {
    pub address: Address,
    child: Child,
    folder: PathBuf,
}

impl Nginx {
    /// Starts it in `folder`, which it makes. `servers` makes the blocks of `http` from the port
    /// that it is to listen on. `None` where the machine has no nginx, which is said.
    #[track_caller]
    pub fn start(folder: &Path, servers: impl FnOnce(u16) -> String) -> Option<Nginx> {
        let nginx = program_on_path("nginx")?;
        fs::create_dir_all(folder).expect("the test's own folder");
        let here = folder.to_str().expect("a plain path");
        let port = free_port();
        let servers = servers(port);
        let whole = format!(
            "daemon off;\nmaster_process off;\npid {here}/pid;\nerror_log {here}/error.log;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path {here}/b;\nproxy_temp_path {here}/p;\nfastcgi_temp_path {here}/f;\n\
             uwsgi_temp_path {here}/u;\nscgi_temp_path {here}/s;\n{servers}}}\n"
        );
        fs::write(folder.join("nginx.conf"), whole).expect("the test's own folder");
        let mut command = Command::new(nginx);
        command.args(["-p", here, "-c", &format!("{here}/nginx.conf")]).stderr(Stdio::null());
        let child = command.spawn().expect("nginx can be run");
        let nginx = Nginx { address: Address::Tcp(port), child, folder: folder.to_path_buf() };
        wait_until("nginx", || Client::try_connect(&nginx.address).is_ok());
        Some(nginx)
    }

    #[track_caller]
    pub fn connect(&self) -> Client {
        Client::connect(&self.address)
    }

    /// What it complains of.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("error.log")).unwrap_or_default()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            send(self.child.id() as i32, SIGTERM);
        }
        let _ = self.child.wait();
    }
}

/// A port that nobody has at the moment.
pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port").port()
}
