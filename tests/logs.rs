//! Log lines: error lines, access lines with every atom, whole lines from many workers.

use std::fs;
use std::thread;

use nix::sys::signal::Signal::{SIGHUP, SIGUSR1};

use crate::util::server::{Plan, Server};
use crate::util::wait_until;

#[test]
fn an_error_line_has_time_pid_and_level() {
    let server = Server::start("echo", []);
    let line = server.log().lines().next().expect("a line").to_string();
    // [2026-11-20 07:37:16 +0000] [31384] [INFO] Starting monoceros 0.2.0
    let (time, rest) = line[1..].split_once("] ").expect("a time in brackets");
    assert_eq!(rest, format!("[{}] [INFO] Starting monoceros {}", server.pid(), env!("CARGO_PKG_VERSION")));
    let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    assert!(shape == "0000-00-00 00:00:00 +0000" || shape == "0000-00-00 00:00:00 -0000", "{time:?}");
    server.finish();
}

#[test]
fn the_level_decides_what_is_written() {
    let quiet = Plan::app("echo").args(["--log-level", "warning"]);
    // Without "Listening at" the harness knows the address only if it is a socket file.
    let mut server = quiet.unix().launch();
    server.address = crate::util::client::Address::Unix(server.path("socket"));
    wait_until("the socket", || crate::util::client::Client::try_connect(&server.address).is_ok());
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.log(), "");
    server.finish();
    let server = Server::start("echo", ["--log-level", "debug"]);
    assert_eq!(server.get("/some%20where?a=b").status, 200);
    server.wait_for_log("[DEBUG] GET /some%20where\n");
    server.finish();
}

#[test]
fn the_default_access_line_is_the_combined_one() {
    let server = Server::start("echo", ["--access-logfile", "-"]);
    let mut client = server.connect();
    client.request("GET", "/noread?q=1", &["Referer: http://r/", "User-Agent: a \"quoted\" agent"], b"");
    let line = access_line(&server);
    let (before, after) = line.split_once('[').expect("a time");
    let (time, rest) = after.split_once("] ").expect("a time");
    assert_eq!(before, "127.0.0.1 - - ");
    assert_eq!((time.len(), &time[2..3], &time[6..7], &time[11..12]), (26, "/", "/", ":"), "{time}");
    let (request, rest) = rest.split_once(" 200 ").expect("a status");
    assert_eq!(request, r#""GET /noread?q=1 HTTP/1.1""#);
    assert!(rest.ends_with(r#" "http://r/" "a \"quoted\" agent""#), "{rest}");
    server.finish();
}

#[test]
fn every_atom_has_its_value() {
    // format, what the line must be; {pid} stands for the worker's
    let table = [
        ("%(h)s|%(l)s|%(u)s", "127.0.0.1|-|joe"),
        ("%(m)s|%(U)s|%(q)s|%(H)s|%(r)s", "POST|/a b|x=%20|HTTP/1.1|POST /a%20b?x=%20 HTTP/1.1"),
        ("%(s)s|%(p)s", "200|<{pid}>"),
        ("%(f)s|%(a)s", "-|-"),
        ("%({x-sent}i)s|%({absent}i)s", "yes|-"),
        ("%({content-type}o)s|%({absent}o)s", "application/json|-"),
        ("%({REQUEST_METHOD}e)s|%({wsgi.url_scheme}e)s|%({ABSENT}e)s", "POST|http|-"),
        ("%(nonsense)s|100%%", "-|100%"),
    ];
    for (format, wanted) in table {
        let server = Server::start("echo", ["--access-logfile", "-", "--access-logformat", format]);
        let worker = server.wait_for_workers(1)[0];
        // joe:secret
        let headers = ["X-Sent: yes", "Authorization: Basic am9lOnNlY3JldA=="];
        server.connect().request("POST", "/a%20b?x=%20", &headers, b"body");
        assert_eq!(access_line(&server), wanted.replace("{pid}", &worker.to_string()), "{format}");
        server.finish();
    }
}

#[test]
fn the_atoms_of_time_and_size_are_numbers() {
    let format = "%(T)s %(D)s %(M)s %(L)s %(b)s %(B)s";
    let server = Server::start("process", ["--access-logfile", "-", "--access-logformat", format]);
    let body = server.get("/sleep?0.1").body.len();
    let line = access_line(&server);
    let atoms: Vec<&str> = line.split(' ').collect();
    let [seconds, micro, milli, decimal, bytes, count] = atoms[..] else { panic!("{line}") };
    let micro: u64 = micro.parse().expect("%(D)s is a number");
    assert!((100_000..5_000_000).contains(&micro), "{line}");
    let whole = micro / 1_000_000;
    assert_eq!(seconds, whole.to_string());
    assert_eq!(milli.parse::<u64>().expect("%(M)s is a number"), micro / 1000);
    assert_eq!(decimal, format!("{whole}.{:06}", micro % 1_000_000));
    assert_eq!((bytes, count), (body.to_string().as_str(), body.to_string().as_str()));
    server.finish();
}

#[test]
fn a_response_without_a_body_counts_0_bytes_and_chunks_are_not_counted() {
    let server = Server::start("responses", ["--access-logfile", "-", "--access-logformat", "%(U)s %(b)s"]);
    let mut client = server.connect();
    client.get("/204-body");
    client.get("/two-blocks");
    client.request("HEAD", "/two-blocks", &[], b"");
    wait_until("three lines", || server.stdout().lines().count() == 3);
    assert_eq!(server.stdout(), "/204-body 0\n/two-blocks 10\n/two-blocks 0\n");
    server.finish();
}

#[test]
fn a_client_cannot_forge_a_line() {
    let server = Server::start("echo", ["--access-logfile", "-", "--access-logformat", "%(U)s"]);
    assert_eq!(server.get("/a%0Ab%0D%1B[31m").status, 200);
    assert_eq!(server.get("/second").status, 200);
    wait_until("the second line", || server.stdout().contains("/second"));
    let lines = server.stdout();
    assert_eq!(lines.lines().count(), 2, "{lines:?}");
    assert!(!lines.contains('\r') && !lines.contains('\x1b'), "{lines:?}");
    server.finish();
}

#[test]
fn without_an_access_log_nothing_goes_to_stdout() {
    let server = Server::start("echo", []);
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.stdout(), "");
    server.finish();
}

#[test]
fn lines_of_many_workers_stay_whole() {
    let plan = Plan::app("echo");
    let access = plan.path("access.log");
    let server = plan
        .args(["--workers", "3", "--access-logfile", access.to_str().expect("a plain path")])
        .args(["--access-logformat", "<%(U)s>"])
        .start();
    server.wait_for_workers(3);
    const EACH: usize = 400;
    thread::scope(|scope| {
        for name in ["a", "b", "c", "d"] {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.connect();
                let path = format!("/{}", name.repeat(200));
                (0..EACH).for_each(|_| assert_eq!(client.get(&path).status, 200));
            });
        }
    });
    let text = || fs::read_to_string(&access).expect("the access log");
    wait_until("every line", || text().lines().count() == 4 * EACH);
    assert!(text().lines().all(|line| line.len() == 203 && line.starts_with("</") && line.ends_with('>')));
    server.finish();
}

#[test]
fn captured_output_goes_to_the_error_log() {
    let plan = Plan::app("process").error_log("error.log").args(["--capture-output"]);
    let server = plan.start();
    server.get("/print?written-by-the-app");
    server.wait_for_log("written-by-the-app");
    assert_eq!(server.stdout(), "");
    server.finish();
}

#[test]
fn a_reload_that_fails_gives_captured_streams_back() {
    let plan = Plan::app("app").in_own_folder().file("app.py", "from echo import application\n");
    let plan = plan.env("PYTHONPATH", crate::util::apps().display().to_string());
    let path = plan.path("conf.py").display().to_string();
    let file = plan.path("error.log").display().to_string();
    let mut server = plan.file("conf.py", "").args(["--config", &path]).start();
    server.wait_for_workers(1);
    server.write("conf.py", &format!("errorlog = '{file}'\ncapture_output = True\n"));
    server.write("app.py", "1 / 0\n");
    server.signal(SIGHUP);
    wait_until("the reload", || std::fs::read_to_string(&file).is_ok_and(|log| log.contains("Reload failed")));
    // A line of a later worker.
    server.write("conf.py", "");
    server.write("app.py", "from echo import application\nprint('printed at import', flush=True)\n");
    server.signal(SIGHUP);
    wait_until("what the new worker prints", || server.stdout().contains("printed at import"));
    server.allow("");
    server.finish();
}

#[test]
fn what_the_app_prints_stays_where_it_is_printed() {
    let server = Server::start("process", []);
    server.get("/print?written-by-the-app");
    assert_eq!(server.stdout(), "written-by-the-app\n");
    server.finish();
}

#[test]
fn a_log_that_goes_away_stops_no_request() {
    // Every write to this device fails for want of space.
    let plan = Plan::app("echo").args(["--access-logfile", "/dev/full"]);
    let mut server = plan.start();
    (0..50).for_each(|_| assert_eq!(server.get("/").status, 200));
    server.allow("[ERROR]");
    server.finish();
}

#[test]
fn logs_stay_in_their_folder_when_the_app_changes_to_another() {
    let app = "import os\nos.chdir('/')\nfrom echo import application\n";
    let plan = Plan::app("app").started_in_own_folder().file("app.py", app).error_log("error.log");
    let plan = plan.env("PYTHONPATH", crate::util::apps().display().to_string());
    let server = plan.args(["--error-logfile", "error.log", "--access-logfile", "access.log"]).start();
    let lines = |name: &str| fs::read_to_string(server.path(name)).unwrap_or_default();
    assert_eq!(server.get("/").status, 200);
    wait_until("an access line", || lines("access.log").contains("GET / "));
    for name in ["error.log", "access.log"] {
        fs::rename(server.path(name), server.path(&format!("{name}.1"))).expect("a log");
    }
    server.signal(SIGUSR1);
    wait_until("both logs anew", || server.path("error.log").exists() && server.path("access.log").exists());
    assert_eq!(server.get("/").status, 200);
    wait_until("an access line", || lines("access.log").contains("GET / "));
    assert!(!lines("error.log").contains("[ERROR]"), "{}", lines("error.log"));
    server.finish();
}

fn access_line(server: &Server) -> String {
    wait_until("an access line", || server.stdout().ends_with('\n'));
    let text = server.stdout();
    assert_eq!(text.lines().count(), 1, "{text}");
    text.trim_end_matches('\n').to_string()
}
