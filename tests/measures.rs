//! Whether what is measured is true: against what the app, the client and the kernel's clock say.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

use crate::util::client::{Address, Client};
use crate::util::metrics::{measured, read, sum};
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

/// Answers with the moment at which it was entered, and how long it has taken since: by the clock
/// that the tests read too.
const APP: &str = r#"
import os, pathlib, sys, time

gate = pathlib.Path(os.environ["GATE"])
entered_spin = []


def hang():
    while not (gate / "release").exists():
        time.sleep(0.005)


def spin():
    # Holds the interpreter until another request is in.
    sys.setswitchinterval(0.02)
    known = len(entered_spin)
    while len(entered_spin) == known:
        pass


def application(environ, start_response):
    entered = time.monotonic()
    entered_spin.append(entered)
    path = environ["PATH_INFO"]
    if path == "/sleep":
        time.sleep(float(environ["QUERY_STRING"]))
    elif path == "/hang":
        (gate / f"entered-{entered!r}").touch()
        hang()
    elif path == "/spin":
        (gate / "spins").touch()
        spin()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{entered!r} {time.monotonic() - entered!r}".encode()]
"#;

/// How often a wait is measured that a busy machine may lengthen.
const ROUNDS: usize = 6;

fn serve<const N: usize>(args: [&str; N]) -> (Server, Address) {
    let plan = Plan::app("app").in_own_folder().file("app.py", APP);
    let (server, address) = measured(plan.args(["--timeout", "0"]).args(args));
    server.wait_for_workers(1);
    (server, address)
}

/// When the app was entered, and how long it took.
fn told(client: &mut Client) -> (f64, f64) {
    let text = client.read().text();
    let (entered, took) = text.split_once(' ').expect("two numbers");
    (entered.parse().expect("a number"), took.parse().expect("a number"))
}

fn ask(client: &mut Client, target: &str) {
    client.send(format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n"));
}

/// Python's time.monotonic().
fn monotonic() -> f64 {
    let now = clock_gettime(ClockId::CLOCK_MONOTONIC).expect("there is such a clock");
    now.tv_sec() as f64 + now.tv_nsec() as f64 / 1e9
}

#[test]
fn the_busy_share_is_that_of_a_load_of_known_duty() {
    let (server, address) = serve(["--threads", "4"]);
    let (before, began) = (sum(&read(&address), "monoceros_busy_seconds_total"), monotonic());
    // Four clients, each of which has a thread asleep for three quarters of the time.
    let own: f64 = thread::scope(|scope| {
        let client = || {
            let mut client = server.connect();
            let mut own = 0.0;
            for _ in 0..3 {
                ask(&mut client, "/sleep?0.9");
                own += told(&mut client).1;
                thread::sleep(Duration::from_millis(300));
            }
            own
        };
        let clients: Vec<_> = (0..4).map(|_| scope.spawn(client)).collect();
        clients.into_iter().map(|client| client.join().expect("it was answered")).sum()
    });
    wait_until("all to be counted", || sum(&read(&address), "monoceros_requests_total") == 12.0);
    let (found, took) = (read(&address), monotonic() - began);
    let busy = sum(&found, "monoceros_busy_seconds_total") - before;
    let of_all = found["monoceros_threads"] * took;
    assert_eq!(found["monoceros_threads"], 4.0);
    assert!((busy - own).abs() <= 0.02 * own, "busy {busy} s, in the app {own} s");
    assert!((busy / of_all - own / of_all).abs() <= 0.02, "{} of the time, and not {}", busy / of_all, own / of_all);
    server.finish();
}

#[test]
fn a_wait_in_the_worker_is_measured_to_five_milliseconds() {
    let (server, address) = serve([]);
    let mut kept = server.connect();
    ask(&mut kept, "/");
    told(&mut kept);
    expect_true_waits(&server, &address, || std::mem::replace(&mut kept, server.connect()));
    server.finish();
}

#[test]
fn a_wait_in_the_accept_queue_is_measured_to_five_milliseconds() {
    let (server, address) = serve([]);
    expect_true_waits(&server, &address, || server.connect());
    server.finish();
}

/// Has a request of `next_client` wait behind another, and compares what is told with the time from
/// its way out of the client to its way into the app. The machine may keep the server from seeing
/// the request at once, so a round may fall short, but not all of them.
fn expect_true_waits(server: &Server, address: &Address, mut next_client: impl FnMut() -> Client) {
    let counts = || {
        let found = read(address);
        (
            found["monoceros_queue_seconds_count"],
            found["monoceros_queue_seconds_sum"],
            found["monoceros_requests_in_flight"],
        )
    };
    let mut errors = Vec::new();
    for _ in 0..ROUNDS {
        let mut waiting = next_client();
        let before = counts().0;
        let mut first = server.connect();
        ask(&mut first, "/sleep?0.25");
        wait_until("the first to be in the app", || counts().2 == 1.0);
        let sent = monotonic();
        // It sleeps for long enough to see the other's count apart from its own.
        ask(&mut waiting, "/sleep?1");
        told(&mut first);
        let mut without_its_own = 0.0;
        wait_until("the first to be counted", || {
            let (count, waited, _) = counts();
            without_its_own = waited;
            count == before + 1.0
        });
        let waited = told(&mut waiting).0 - sent;
        wait_until("the second to be counted", || counts().0 == before + 2.0);
        let error = (counts().1 - without_its_own - waited) * 1000.0;
        errors.push(error);
        if error.abs() <= 5.0 {
            break;
        }
    }
    let least = errors.iter().map(|error| error.abs()).fold(f64::MAX, f64::min);
    assert!(least <= 5.0, "milliseconds too much: {errors:?}");
    // It cannot have waited for longer than it was under way, but for a tick of the kernel's clock.
    assert!(errors.iter().all(|error| *error <= 10.0), "milliseconds too much: {errors:?}");
}

#[test]
fn the_age_of_the_oldest_request_is_right_while_all_threads_hang() {
    let (server, address) = serve(["--threads", "2"]);
    let sent = monotonic();
    let mut clients: Vec<_> = (0..2).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| ask(client, "/hang"));
    wait_until("both to hang", || server.gate_files("entered-").len() == 2);
    let entered = |name: &String| -> f64 { name.trim_start_matches("entered-").parse().expect("a number") };
    let first = server.gate_files("entered-").iter().map(entered).fold(f64::MAX, f64::min);
    for _ in 0..5 {
        let before = monotonic();
        let age = read(&address)["monoceros_oldest_request_seconds"];
        let after = monotonic();
        // It began between its way out of the client and its way into the app.
        assert!((before - first..=after - sent).contains(&age), "{age}: {} to {}", before - first, after - sent);
        thread::sleep(Duration::from_millis(50));
    }
    server.release();
    for client in &mut clients {
        assert!(told(client).1 > 0.2, "it has hung");
    }
    server.finish();
}

#[test]
fn greenlets_are_counted_each_but_only_their_thread_is_busy() {
    let busy = |found: &_| sum(found, "monoceros_busy_seconds_total");
    let (server, address) = serve(["-k", "gevent"]);
    let sent = monotonic();
    // More than a row of the scoreboard has places for.
    let mut clients: Vec<_> = (0..70).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| ask(client, "/hang"));
    wait_until("all to hang", || server.gate_files("entered-").len() == 70);
    let before = (monotonic(), busy(&read(&address)));
    thread::sleep(Duration::from_secs(1));
    let found = read(&address);
    let passed = monotonic() - before.0;
    assert_eq!(found["monoceros_requests_in_flight"], 70.0);
    assert!((1.0..monotonic() - sent).contains(&found["monoceros_oldest_request_seconds"]), "{found:?}");
    assert!(found["monoceros_threads_busy"] <= 1.0, "{found:?}");
    let busy = busy(&found) - before.1;
    assert!(busy > 0.0 && busy < passed, "{busy} of {passed}");
    server.release();
    clients.iter_mut().for_each(|client| assert!(told(client).1 > 1.0));
    wait_until("quiet", || read(&address)["monoceros_requests_in_flight"] == 0.0);
    server.finish();
}

#[test]
fn a_thread_that_waits_for_the_interpreter_has_that_counted() {
    let (server, address) = serve(["--threads", "2"]);
    let before = read(&address)["monoceros_attach_seconds_total"];
    let mut spinning = server.connect();
    ask(&mut spinning, "/spin");
    wait_until("the interpreter to be held", || !server.gate_files("spins").is_empty());
    let mut other = server.connect();
    ask(&mut other, "/");
    told(&mut other);
    told(&mut spinning);
    wait_until("both to be counted", || sum(&read(&address), "monoceros_requests_total") == 2.0);
    let waited = read(&address)["monoceros_attach_seconds_total"] - before;
    // CPython asks whoever holds it to let go after an interval, here of 20 ms.
    assert!((0.01..5.0).contains(&waited), "{waited}");
    server.finish();
}

#[test]
fn a_trusted_proxys_word_tells_the_wait_before_the_server() {
    let since_epoch = || SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
    let two_seconds_ago = |header: &str, unit: f64| format!("{header}: t={:.0}", (since_epoch() - 2.0) * unit);
    for (trusted, is_counted) in [("127.0.0.1", true), ("10.0.0.1", false)] {
        let (server, address) = serve(["--forwarded-allow-ips", trusted]);
        let began = monotonic();
        for header in [two_seconds_ago("X-Request-Start", 1e3), two_seconds_ago("x-queue-start", 1e6)] {
            assert_eq!(server.connect().request("GET", "/", &[&header], b"").status, 200);
        }
        assert_eq!(server.connect().request("GET", "/", &["X-Request-Start: soon"], b"").status, 200);
        wait_until("all to be counted", || sum(&read(&address), "monoceros_requests_total") == 3.0);
        let found = read(&address);
        let told = found.get("monoceros_upstream_queue_seconds_count").copied();
        assert_eq!(told, is_counted.then_some(2.0), "{found:?}");
        if is_counted {
            let waited = found["monoceros_upstream_queue_seconds_sum"];
            let most = 2.0 * (2.0 + monotonic() - began);
            // Milliseconds were rounded.
            assert!((3.99..=most).contains(&waited), "{waited}");
        }
        server.finish();
    }
}
