//! Configs and apps as people have them, unchanged under this server.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use nix::sys::signal::Signal::{SIGHUP, SIGTERM};

use crate::util::client::Address;
use crate::util::server::{Plan, Server, send};
use crate::util::{apps, venv, wait_until};

#[test]
fn a_demanding_platform_config_runs_a_django_site() {
    let port = TcpListener::bind("[::]:0").and_then(|socket| socket.local_addr()).expect("a free port").port();
    let config = apps().join("heroku_conf.py").display().to_string();
    let plan = Plan::bare().bound_elsewhere().chdir(apps().join("django_site"));
    let data = plan.path("").display().to_string();
    let plan = plan.env("PORT", port.to_string()).env("WEB_CONCURRENCY", "2").env("SITE_DATA", data);
    let mut server = plan.args(["--config", &config]).launch();
    server.address = Address::Tcp(port);
    server.wait_for_log("2 workers of gthread");
    server.wait_for_workers(2);
    server.wait_for_log_times("Booting worker", 2);
    wait_until("an answer", || crate::util::client::Client::try_connect(&server.address).is_ok());
    let mut client = server.connect();
    let headers = ["X-Request-ID: abc-1", "X-Forwarded-For: 203.0.113.9", "X-Forwarded-Proto: https"];
    let answer = client.request("GET", "/nowhere", &headers, b"");
    assert_eq!(answer.status, 404);
    assert!(!answer.says_close(), "95 seconds of keep-alive");
    let line = "at=404 method=GET path=\"/nowhere\" request_id=abc-1 fwd=\"203.0.113.9\" service=";
    wait_until("the access line", || server.stdout().contains(line));
    server.signal(SIGHUP);
    server.wait_for_log_times("Booting worker", 4);
    wait_until("the old workers to go", || server.has_serving(2));
    assert_eq!(server.get("/nowhere").status, 404);
    server.allow("Not Found: /nowhere");
    server.finish();
}

#[test]
fn prometheus_forgets_a_worker_that_has_gone() {
    let config = "from prometheus_client import multiprocess\n\
                  def child_exit(server, worker):\n    multiprocess.mark_process_dead(worker.pid)\n";
    let plan = Plan::app("counted").config(config);
    let folder = plan.path("metrics").display().to_string();
    fs::create_dir(&folder).expect("a folder");
    let server = plan.env("PROMETHEUS_MULTIPROC_DIR", &folder).start();
    let first: i32 = server.get("/").text().parse().expect("a pid");
    assert!(server.get("/metrics").text().contains("shop_in_use 1.0"), "{}", server.get("/metrics").text());
    assert!(fs::exists(format!("{folder}/gauge_livesum_{first}.db")).expect("a folder"));
    send(first, SIGTERM);
    wait_until("the dead worker's gauge to go", || {
        !fs::exists(format!("{folder}/gauge_livesum_{first}.db")).expect("a folder")
    });
    wait_until("its replacement", || !server.workers().contains(&first) && server.has_serving(1));
    let metrics = server.get("/metrics").text();
    assert!(metrics.contains("shop_requests_total 1.0"), "its requests still count: {metrics}");
    server.finish();
}

#[test]
fn post_fork_opens_a_connection_for_each_worker() {
    let app = "import os, sqlite3\n\
               connection = None\n\
               def application(environ, start_response):\n\
               \x20   owner, = connection.execute('select pid from owner').fetchone()\n\
               \x20   start_response('200 OK', [])\n\
               \x20   return [b'own' if owner == os.getpid() else b'shared']\n";
    let config = "import os, sqlite3\npreload_app = True\nworkers = 2\n\
                  def post_fork(server, worker):\n\
                  \x20   import app\n\
                  \x20   app.connection = sqlite3.connect(':memory:', check_same_thread=False)\n\
                  \x20   app.connection.execute('create table owner (pid)')\n\
                  \x20   app.connection.execute('insert into owner values (?)', (os.getpid(),))\n\
                  def worker_exit(server, worker):\n\
                  \x20   import app\n\
                  \x20   app.connection.close()\n\
                  \x20   server.log.info('closed by %s', worker.pid)\n";
    let server = Plan::app("app").in_own_folder().file("app.py", app).config(config).start();
    let workers = server.wait_for_workers(2);
    for _ in 0..10 {
        assert_eq!(server.get("/").text(), "own");
    }
    let log = server.path("stderr");
    server.finish_keeping(|| {
        let log = fs::read_to_string(log).expect("the log is there");
        assert!(workers.iter().all(|pid| log.contains(&format!("closed by {pid}"))), "{log}");
    });
}

#[test]
fn flask_sock_speaks_over_the_clients_socket() {
    let client = "import sys, simple_websocket\n\
                  ws = simple_websocket.Client(sys.argv[1])\n\
                  for word in ['one', 'two' * 50000]:\n\
                  \x20   ws.send(word)\n\
                  \x20   assert ws.receive(timeout=10) == word.upper(), 'not what was sent'\n\
                  ws.close()\n";
    for threads in ["1", "4"] {
        let server = Server::start("socket_echo", ["--threads", threads]);
        let Address::Tcp(port) = server.address else { panic!("a port") };
        for _ in 0..3 {
            let url = format!("ws://127.0.0.1:{port}/echo");
            let run = Command::new(venv().join("bin/python")).args(["-c", client, &url]).output().expect("a Python");
            assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
            assert_eq!(server.get("/").text(), "plain");
        }
        server.finish();
    }
}

#[test]
fn background_threads_send_while_the_worker_idles_and_flush_at_exit() {
    for args in [["--threads", "1"], ["--threads", "3"]] {
        let server = Server::start("background", args);
        let worker = server.wait_for_workers(1)[0];
        let sent = server.path("gate/sent");
        let lines = || fs::read_to_string(&sent).unwrap_or_default();
        assert_eq!(server.get("/first").status, 200);
        wait_until("the first event, without another client", || lines() == format!("{worker} /first\n"));
        let mut client = server.connect();
        for number in 0..10 {
            assert_eq!(client.get(&format!("/{number}")).status, 200);
        }
        drop(client);
        server.finish_keeping(|| assert_eq!(lines().lines().count(), 11, "flushed at exit: {}", lines()));
    }
}
