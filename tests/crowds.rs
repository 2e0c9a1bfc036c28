//! More clients than a worker may hold, clients that send nothing, and how they spread over the
//! workers (rows SV-55 and SV-56 of the fault matrix). `MONOCEROS_CHAOS=long` doubles the numbers.

use std::collections::HashMap;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::util::client::Client;
use crate::util::load::{Load, version};
use crate::util::process::{anonymous, cpu_ticks};
use crate::util::server::{Plan, Server};
use crate::util::{count, wait_until};

/// Connections that each worker of the floods may hold.
const HELD: usize = 10;

#[test]
fn thousands_of_idle_connections_cost_little() {
    // SL-11
    let idle = count(10_000, 5_000).min(files_allowed().saturating_sub(1000));
    let server = Plan::app("process").args(["--worker-connections", "12000", "--backlog", "512"]).start();
    let worker = server.wait_for_workers(1)[0];
    (0..200).for_each(|_| assert_eq!(server.get("/").status, 200));
    let before = anonymous(worker);
    let clients: Vec<Client> = (0..idle)
        .map(|_| {
            let mut client = server.connect();
            assert_eq!(client.get("/").status, 200);
            client
        })
        .collect();
    let each = anonymous(worker).saturating_sub(before) / idle as u64;
    let busy = cpu_ticks(worker);
    thread::sleep(Duration::from_secs(2));
    let ticks = cpu_ticks(worker) - busy;
    let fastest = (0..20).map(|_| fresh_request(&server)).min().expect("twenty of them");
    println!("{idle} idle: {each} bytes each, {ticks} ticks of CPU in 2 s, a fresh request in {fastest:?}");
    assert!(each < 8192, "{each} bytes a connection");
    // A tick is a hundredth of a second: the bound is a twentieth of a processor.
    assert!(ticks <= 10, "{ticks} ticks while nothing happened");
    assert!(fastest < Duration::from_millis(10), "the fastest fresh request took {fastest:?}");
    // Every one of them is still served.
    for mut client in clients.into_iter().step_by(100) {
        assert_eq!(client.get("/").status, 200);
    }
    server.finish();
}

/// Raises the limit of open files of this process as far as possible, and returns it. The servers
/// it starts inherit the limit.
fn files_allowed() -> usize {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the hard limit may be had");
    usize::try_from(hard).unwrap_or(usize::MAX)
}

fn fresh_request(server: &Server) -> Duration {
    let start = Instant::now();
    assert_eq!(server.get("/").status, 200);
    start.elapsed()
}

#[test]
fn clients_that_have_just_connected_are_not_closed_for_others() {
    for workers in [1, 4] {
        let server = flooded("process", workers);
        let mut crowd: Vec<Client> = (0..3 * HELD * workers).map(|_| server.connect()).collect();
        for client in &mut crowd {
            client.send("GET / HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        }
        for client in &mut crowd {
            assert_eq!(client.read().status, 200, "{workers} workers");
        }
        server.finish();
    }
}

#[test]
fn clients_past_the_limit_replace_silent_ones() {
    let server = flooded("process", 1);
    let mut crowd: Vec<Client> = Vec::new();
    for _ in 0..3 * HELD {
        let mut client = server.connect();
        assert_eq!(client.get("/").status, 200);
        crowd.push(client);
    }
    // The connections that were idle for longest were closed.
    crowd.drain(..2 * HELD).for_each(|mut client| client.expect_closed(Duration::from_secs(5)));
    crowd.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    // Connections that never send anything are closed too, after a moment.
    let silent: Vec<Client> = (0..2 * HELD).map(|_| server.connect()).collect();
    assert_eq!(server.get("/").status, 200);
    drop(silent);
    server.finish();
}

#[test]
fn no_client_is_refused_or_forgotten_among_three_times_too_many() {
    for workers in [1, 4] {
        let server = flooded("app", workers);
        let clients = 3 * HELD * workers / 2;
        let start = Instant::now();
        let load = Load::during(&server.address, clients, |load| {
            wait_until("many answers", || load.ok() > 20 * clients && start.elapsed() > Duration::from_secs(2));
        });
        load.expect_no_failure();
        server.wait_for_workers(workers);
        server.finish();
    }
}

fn flooded(app: &str, workers: usize) -> Server {
    let plan = Plan::app(app);
    let plan = if app == "app" { plan.in_own_folder().file("app.py", &version(1)) } else { plan };
    let (held, workers_text) = (HELD.to_string(), workers.to_string());
    serving(plan.args(["--worker-connections", &held, "--workers", &workers_text]), workers)
}

#[test]
fn kept_connections_spread_over_the_workers() {
    expect_spread(
        |server| {
            let mut crowd: Vec<Client> = (0..40).map(|_| server.connect()).collect();
            crowd.iter_mut().map(|client| client.get("/").text()).collect()
        },
        |held| held.iter().max() <= held.iter().min().map(|fewest| 2 * fewest).as_ref(),
    );
}

#[test]
fn requests_of_kept_connections_spread_over_the_workers() {
    const CLIENTS: usize = 16;
    const EACH: usize = 100;
    let ask = |client: &mut Client| (0..EACH).map(|_| client.get("/").text()).collect::<Vec<_>>();
    expect_spread(
        |server| {
            // All of them are there before the first is done.
            let mut crowd: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
            crowd.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
            thread::scope(|scope| {
                let clients: Vec<_> = crowd.iter_mut().map(|client| scope.spawn(move || ask(client))).collect();
                clients.into_iter().flat_map(|client| client.join().expect("no panic")).collect()
            })
        },
        |served| {
            let even = CLIENTS * EACH / 4;
            served.iter().all(|count| count.abs_diff(even) * 4 <= even)
        },
    );
}

/// Four workers each get their part of a crowd's requests: `crowd` returns the worker of each
/// answer, `is_fair` judges how many each gave. Siblings wait for a less busy worker for
/// milliseconds only; if the machine does not schedule it for longer, they go on without it. So one
/// fair crowd in twenty is enough, and an unfair server has none.
fn expect_spread(crowd: impl Fn(&Server) -> Vec<String>, is_fair: impl Fn(&[usize]) -> bool) {
    let mut seen = Vec::new();
    for _ in 0..20 {
        let server = serving(Plan::app("process").args(["--workers", "4"]), 4);
        let mut shares: HashMap<String, usize> = HashMap::new();
        crowd(&server).into_iter().for_each(|worker| *shares.entry(worker).or_default() += 1);
        let shares: Vec<usize> = shares.into_values().collect();
        println!("{shares:?}");
        server.finish();
        if shares.len() == 4 && is_fair(&shares) {
            return;
        }
        seen.push(shares);
    }
    panic!("never spread fairly: {seen:?}");
}

/// While every worker is busy.
fn serving(plan: Plan, workers: usize) -> Server {
    let server = plan.start();
    server.wait_for_workers(workers);
    server
}
