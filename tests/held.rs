//! The resources of a worker that clients can hold by sending little: its time, its connections,
//! its descriptors, its memory and its disk. Whatever they hold, others are served at once, and no
//! worker is killed.

use std::io::{ErrorKind, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::util::client::{Address, Client};
use crate::util::metrics;
use crate::util::process::{SetOnDrop, anonymous, cpu_time, open_files, written};
use crate::util::server::{Plan, Server, send};
use crate::util::{PATIENCE, wait_until};

/// A chunk of one byte, which is what costs most beside what it carries.
const TINY: &str = "1\r\nx\r\n";

/// How long an ordinary client may wait at p99.
const AT_P99: Duration = Duration::from_millis(20);

#[test]
fn a_crowd_of_uploads_in_tiny_chunks_delays_no_other_client() {
    const UPLOADS: usize = 100;
    // Several times as fast as that, and the senders would need all of the machine.
    const BYTES_A_SECOND: usize = 4_000_000;
    let mut server = Server::start("clients", ["--timeout", "5"]);
    let worker = server.wait_for_workers(1)[0];
    let mut uploads: Vec<Upload> = (0..UPLOADS).map(|_| Upload::begin(&server)).collect();
    let mut ordinary = server.connect();
    let is_over = AtomicBool::new(false);
    let seconds: Vec<Duration> = thread::scope(|scope| {
        scope.spawn(|| {
            let (start, mut sent) = (Instant::now(), 0);
            for number in (0..UPLOADS).cycle() {
                if is_over.load(Ordering::Relaxed) {
                    return;
                }
                if sent as f64 > start.elapsed().as_secs_f64() * BYTES_A_SECOND as f64 {
                    thread::sleep(Duration::from_millis(1));
                }
                sent += uploads[number].go_on();
            }
        });
        let _end = SetOnDrop(&is_over);
        // An effect that grows from turn to turn takes a while to show.
        let mut seconds = Vec::new();
        for second in 0..40 {
            let wait = wait_at_p99(&mut ordinary);
            if second >= 3 {
                seconds.push(wait);
            }
            if seconds.len() >= 5 && seconds.iter().any(|wait| *wait < AT_P99) {
                break;
            }
        }
        seconds
    });
    println!("an ordinary client waited at p99, second by second: {seconds:?}");
    // What the uploads cost they cost in every second; a busy machine is busier in some than in
    // others.
    let best = seconds.into_iter().min().expect("some seconds");
    assert!(best < AT_P99, "{best:?} at best");
    assert_eq!(server.workers(), [worker], "{}", server.log());
    drop(uploads);
    server.allow("Invalid request");
    server.finish();
}

/// A client's upload, spooled already.
struct Upload {
    stream: TcpStream,
    block: String,
    at: usize,
}

impl Upload {
    fn begin(server: &Server) -> Upload {
        const SPOOLED: usize = 262_160;
        let mut stream = TcpStream::connect(("127.0.0.1", server.address.port())).expect("the server accepts");
        let head = "POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        write!(stream, "{head}{SPOOLED:x}\r\n{}\r\n", "y".repeat(SPOOLED)).expect("the server takes what is sent");
        stream.set_nonblocking(true).expect("a socket");
        Upload { stream, block: TINY.repeat(1000), at: 0 }
    }

    /// Sends what the kernel takes of one more block, and says how much that was.
    fn go_on(&mut self) -> usize {
        match self.stream.write(&self.block.as_bytes()[self.at..]) {
            Ok(count) => {
                self.at = (self.at + count) % self.block.len();
                count
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("an upload was cut: {error}"),
        }
    }
}

/// How long a client that asks all the time waits for its answers within a second: the 99th
/// percentile. Requests that it would have sent while it waited count as if they had been.
fn wait_at_p99(client: &mut Client) -> Duration {
    const INTERVAL: Duration = Duration::from_millis(2);
    let (start, mut waits) = (Instant::now(), Vec::new());
    while start.elapsed() < Duration::from_secs(1) {
        thread::sleep(INTERVAL);
        let asked = Instant::now();
        assert_eq!(client.get("/").text(), "ok");
        let mut wait = asked.elapsed();
        waits.push(wait);
        while wait > INTERVAL {
            wait -= INTERVAL;
            waits.push(wait);
        }
    }
    waits.sort_unstable();
    waits[waits.len() * 99 / 100]
}

#[test]
fn chunks_cost_by_their_bytes_not_by_their_number() {
    const CHUNKS: usize = 1_000_000;
    let spooled = Plan::app("clients").args(["--body-buffer", "1000"]);
    let streamed = Plan::app("clients").args(["--body-buffer", "1000", "--body-spool", "0"]);
    for (way, plan) in [("spooled", spooled), ("streamed", streamed)] {
        let server = plan.start();
        let worker = server.wait_for_workers(1)[0];
        assert_eq!(server.connect().request("POST", "/read", &[], b"x").text(), "1");
        let (time, writes) = (cpu_time(worker), written(worker));
        let mut client = server.connect();
        client.send("POST /read HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let block = TINY.repeat(10_000);
        (0..CHUNKS / 10_000).for_each(|_| client.send(&block));
        client.send("0\r\n\r\n");
        assert_eq!(client.read().text(), CHUNKS.to_string());
        let (time, writes) = (cpu_time(worker) - time, written(worker) - writes);
        println!("{way}: {time:?} and {writes} writes for {CHUNKS} chunks");
        assert!(time < Duration::from_millis(500), "{way}: {time:?}");
        assert!(writes < CHUNKS as u64 / 20, "{way}: {writes} writes");
        server.finish();
    }
}

#[test]
fn a_field_that_is_repeated_costs_by_its_bytes_not_by_their_square() {
    const ROUNDS: u32 = 10;
    let server = Server::start("clients", []);
    let worker = server.wait_for_workers(1)[0];
    let request = |name: &dyn Fn(usize) -> String| {
        let fields: String = (0..99).map(|number| format!("{}: {}\r\n", name(number), "y".repeat(8000))).collect();
        format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n")
    };
    let [repeated, distinct] = [request(&|_| "X-00".to_owned()), request(&|number| format!("X-{number:02}"))];
    let mut client = server.connect();
    let mut cost = |request: &str| {
        let before = cpu_time(worker);
        for _ in 0..10 {
            client.send(request);
            assert_eq!(client.read().status, 200);
        }
        cpu_time(worker) - before
    };
    // In turns, so that what else the machine does weighs on both.
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (cost(&repeated), cost(&distinct))).collect();
    let of_repeated: Duration = rounds.iter().map(|round| round.0).sum();
    let of_distinct: Duration = rounds.iter().map(|round| round.1).sum();
    println!("{of_repeated:?} for one name, {of_distinct:?} for 99 names");
    assert!(of_repeated < 3 * of_distinct, "{of_repeated:?}, and {of_distinct:?} for fields of other names");
    server.finish();
}

#[test]
fn clients_that_never_finish_a_request_are_closed_for_those_that_do() {
    const HELD: usize = 200;
    for first in ["G", "", "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx"] {
        let places = HELD.to_string();
        let mut server =
            Server::start("clients", ["--worker-connections", &places, "--health-path", "/health", "--timeout", "5"]);
        let worker = server.wait_for_workers(1)[0];
        let crowd: Vec<Client> = (0..HELD * 3 / 2)
            .map(|_| {
                let mut client = server.connect();
                client.send(first);
                client
            })
            .collect();
        let start = Instant::now();
        let mut waits: Vec<Duration> = (0..100)
            .map(|_| {
                let asked = Instant::now();
                assert_eq!(server.get("/").text(), "ok");
                assert_eq!(server.get("/health").status, 200);
                asked.elapsed()
            })
            .collect();
        waits.sort_unstable();
        println!("{first:?}: all served within {:?}, half of them within {:?}", start.elapsed(), waits[50]);
        assert!(start.elapsed() < Duration::from_secs(8), "{first:?}: {:?}", start.elapsed());
        assert!(waits[50] < 2 * Duration::from_millis(50), "{first:?}: {:?}", waits[50]);
        assert_eq!(server.workers(), [worker], "{}", server.log());
        drop(crowd);
        server.allow("make room for others");
        server.finish();
    }
}

#[test]
fn a_client_that_is_closed_for_room_gets_503() {
    let mut server = Server::start("clients", ["--worker-connections", "100", "--metrics-bind", "127.0.0.1:0"]);
    let mut crowd: Vec<Client> = (0..100).map(|_| server.connect()).collect();
    crowd.iter_mut().for_each(|client| client.send("GET /a HTTP/1.1\r\n"));
    let mut others: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    others.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    // The oldest connections were closed.
    for client in &mut crowd[..10] {
        let answer = client.read();
        assert_eq!((answer.status, answer.says_close()), (503, true));
        client.expect_closed(PATIENCE);
    }
    let found = metrics::read(&metrics::metrics_of(&server));
    assert!(found["monoceros_requests_refused_total{reason=\"overloaded\"}"] >= 10.0, "{found:?}");
    // The newest are still served.
    for client in &mut crowd[90..] {
        client.send("Host: a\r\n\r\n");
        assert_eq!(client.read_for("GET").map(|answer| answer.status).ok(), Some(500), "there is no such path");
    }
    drop(crowd);
    for fault in ["make room for others", "Error handling request", "Traceback"] {
        server.allow(fault);
    }
    server.finish();
}

#[test]
fn clients_leave_descriptors_to_the_application() {
    const ALLOWED: usize = 256;
    let mut server = Plan::app("clients")
        .through(["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"])
        .args(["--health-path", "/health", "--timeout", "5"])
        .start();
    let worker = server.wait_for_workers(1)[0];
    let silent: Vec<Client> = (0..2 * ALLOWED).map(|_| server.connect()).collect();
    for round in 0..50 {
        assert_eq!(server.get("/open?20").text(), "20", "round {round}");
        assert_eq!(server.get("/health").status, 200);
    }
    println!("{} of {ALLOWED} descriptors are in use", open_files(worker));
    // Uploads take a second one each.
    let mut uploads: Vec<Client> = (0..ALLOWED).map(|_| server.connect()).collect();
    for client in &mut uploads {
        let _ = client.try_send(format!(
            "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n{}",
            "x".repeat(300_000)
        ));
    }
    for round in 0..20 {
        // One turn of the event loop may take some of the reserve, until it makes room.
        assert_eq!(server.get("/open?12").text(), "12", "round {round} beside uploads");
    }
    assert_eq!(server.workers(), [worker], "{}", server.log());
    assert!(!server.log().contains("Cannot accept"), "{}", server.log());
    drop((silent, uploads));
    server.allow("make room for others");
    server.finish();
}

#[test]
fn an_application_that_takes_nearly_all_descriptors_keeps_no_client_out() {
    let server = Plan::app("clients").through(["sh", "-c", "ulimit -n 256; exec \"$@\"", "sh"]).start();
    server.wait_for_workers(1);
    assert_eq!(server.get("/keep?200").text(), "200");
    let mut kept: Vec<Client> = (0..5).map(|_| server.connect()).collect();
    for _ in 0..20 {
        kept.iter_mut().for_each(|client| assert_eq!(client.get("/").text(), "ok"));
        assert_eq!(server.get("/").text(), "ok");
    }
    server.finish();
}

#[test]
fn a_low_soft_limit_of_descriptors_is_raised_as_far_as_it_may_be() {
    const CLIENTS: usize = 200;
    let server = Plan::app("clients").through(["sh", "-c", "ulimit -S -n 100; exec \"$@\"", "sh"]).start();
    let worker = server.wait_for_workers(1)[0];
    let mut clients: Vec<Client> = (0..CLIENTS).map(|_| server.connect()).collect();
    clients.iter_mut().for_each(|client| assert_eq!(client.get("/").status, 200));
    assert!(open_files(worker) > CLIENTS);
    server.finish();
}

#[test]
fn unfinished_heads_together_are_bounded_in_memory() {
    const CLIENTS: usize = 100;
    let mut server = Server::start("clients", ["--worker-buffer", "4000000", "--timeout", "5"]);
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    let before = anonymous(worker);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{}", format!("X: {}\r\n", "y".repeat(8000)).repeat(50));
    let mut crowd: Vec<Client> = (0..CLIENTS)
        .map(|_| {
            let mut client = server.connect();
            // It may be told to leave before all of it is sent.
            let _ = client.try_send(&head);
            client
        })
        .collect();
    assert_eq!(server.get("/").text(), "ok");
    wait_until("a client to be closed for others", || server.log().contains("make room for others"));
    let grown = anonymous(worker).saturating_sub(before);
    println!("{CLIENTS} heads of {} bytes: {grown} bytes more", head.len());
    assert!(grown < 16_000_000, "{grown} bytes more");
    // Some of them may go on: those that have cost least.
    let ends = crowd.iter_mut().map(|client| {
        client.try_send("\r\n").is_ok() && client.read_for("GET").is_ok_and(|answer| answer.status == 200)
    });
    assert!(ends.filter(|&is_served| is_served).count() > 0);
    drop(crowd);
    server.allow("make room for others");
    server.finish();
}

#[test]
fn bodies_go_to_files_early_where_memory_is_short() {
    let mut server = Server::start("clients", ["--worker-buffer", "2000000"]);
    let worker = server.wait_for_workers(1)[0];
    let at_rest = server.files_at_rest(worker);
    let mut uploads: Vec<Client> = (0..40)
        .map(|_| {
            let mut client = server.connect();
            client.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n");
            client.send("x".repeat(100_000));
            client
        })
        .collect();
    // Each by itself would stay in memory.
    wait_until("files beside the connections", || open_files(worker) > at_rest + uploads.len());
    for client in &mut uploads {
        client.send("x".repeat(100_000));
        assert_eq!(client.read().text(), "200000");
    }
    server.allow("make room for others");
    server.finish();
}

#[test]
fn spooled_bodies_together_are_bounded() {
    const BOUND: u64 = 4_000_000;
    let mut server = Server::start("clients", ["--worker-spool", "4000000", "--timeout", "5"]);
    let worker = server.wait_for_workers(1)[0];
    let is_over = AtomicBool::new(false);
    let highest = thread::scope(|scope| {
        let senders: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut sent_away = 0;
                    while !is_over.load(Ordering::Relaxed) {
                        sent_away += usize::from(flood(&server, &is_over));
                    }
                    sent_away
                })
            })
            .collect();
        let _end = SetOnDrop(&is_over);
        let (start, mut highest) = (Instant::now(), 0);
        while start.elapsed() < Duration::from_secs(3) {
            highest = highest.max(spooled(worker));
            assert_eq!(server.get("/").text(), "ok");
        }
        is_over.store(true, Ordering::Relaxed);
        let sent_away: usize = senders.into_iter().map(|sender| sender.join().expect("no panic")).sum();
        assert!(sent_away > 0, "no client was closed");
        highest
    });
    println!("at most {highest} bytes in files");
    // A turn of each of them may come on top.
    assert!(highest < BOUND + 4 * (1 << 20), "{highest} bytes in files");
    wait_until("their files to be closed", || spooled(worker) == 0);
    // An upload that needs a file finds room again.
    assert_eq!(server.connect().request("POST", "/read", &[], &vec![b'x'; 1_000_000]).text(), "1000000");
    assert_eq!(server.workers(), [worker], "{}", server.log());
    server.allow("make room for others");
    server.finish();
}

/// Uploads without an end; says whether it was the server that ended it.
fn flood(server: &Server, is_over: &AtomicBool) -> bool {
    let Address::Tcp(port) = server.address else { panic!("a TCP address") };
    let mut stream = TcpStream::connect(("127.0.0.1", port)).expect("the server accepts");
    stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
    let head = "POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 100000000000\r\n\r\n";
    let mut sent = stream.write_all(head.as_bytes());
    let block = vec![b'x'; 65536];
    while sent.is_ok() && !is_over.load(Ordering::Relaxed) {
        sent = stream.write_all(&block);
    }
    sent.is_err()
}

/// The bytes of the temporary files that a process has open.
fn spooled(pid: i32) -> u64 {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("the process lives").flatten();
    let is_spool = |path: &std::path::Path| {
        let name = path.to_string_lossy();
        // The scoreboard and the stacks are in memory (memfd_create(2)).
        name.ends_with(" (deleted)") && !name.starts_with("/memfd:")
    };
    files
        .filter(|file| std::fs::read_link(file.path()).is_ok_and(|target| is_spool(&target)))
        .filter_map(|file| file.path().metadata().ok())
        .filter(|data| data.is_file())
        .map(|data| data.len())
        .sum()
}

#[test]
fn a_worker_that_waits_for_a_client_is_not_stuck() {
    let server = Server::start(
        "clients",
        ["--timeout", "2", "--body-buffer", "10", "--body-spool", "0", "--response-spool", "0"],
    );
    let worker = server.wait_for_workers(1)[0];
    // For one that reads its stream slowly, and for one that sends its body so.
    let mut reader = Client::connect_narrow(&server.address);
    reader.send("GET /stream?200 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    wait_until("the stream to begin", || server.gate_files("began-").len() == 1);
    thread::sleep(Duration::from_millis(3500));
    assert_eq!(server.workers(), [worker], "{}", server.log());
    assert!(reader.take_rest(PATIENCE).len() > 200 * 65536);
    let mut sender = server.connect();
    sender.send("POST /read HTTP/1.1\r\nHost: a\r\nContent-Length: 200\r\n\r\n");
    sender.send("x".repeat(100));
    thread::sleep(Duration::from_millis(3500));
    assert_eq!(server.workers(), [worker], "{}", server.log());
    sender.send("x".repeat(100));
    assert_eq!(sender.read().text(), "200");
    server.finish();
}

#[test]
fn clients_that_have_not_been_read_yet_are_not_closed() {
    // All requests are in the kernel while the worker is stopped: more connections can be closed
    // than it seems.
    const HELD: usize = 100;
    let server = Server::start("clients", ["--worker-connections", "100", "--timeout", "0"]);
    let worker = server.wait_for_workers(1)[0];
    assert_eq!(server.get("/").status, 200);
    send(worker, Signal::SIGSTOP);
    let mut crowd: Vec<Client> = (0..3 * HELD)
        .map(|_| {
            let mut client = server.connect();
            client.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
            client
        })
        .collect();
    send(worker, Signal::SIGCONT);
    for client in &mut crowd {
        assert_eq!(client.read().status, 200);
    }
    server.finish();
}

#[test]
fn a_client_that_pipelines_does_not_keep_others_from_the_poll() {
    let app = "import time\n\
               count = 0\n\
               def application(environ, start_response):\n\
               \x20   global count\n\
               \x20   count += 1\n\
               \x20   time.sleep(0.002)\n\
               \x20   text = str(count).encode()\n\
               \x20   start_response('200 OK', [('Content-Length', str(len(text)))])\n\
               \x20   return [text]\n";
    const MANY: usize = 1500;
    for threads in ["1", "2"] {
        let server = Plan::app("app").in_own_folder().file("app.py", app).args(["--threads", threads]).start();
        let mut pipeliner = server.connect();
        pipeliner.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n".repeat(MANY));
        pipeliner.read();
        let count: usize = server.get("/").text().parse().expect("a number");
        assert!(count < MANY / 3, "{count} requests were served before, with {threads}");
        (1..MANY).for_each(|_| assert_eq!(pipeliner.read().status, 200));
        server.finish();
    }
}

#[test]
fn no_bound_on_connections_is_zero() {
    let server = Server::start("clients", ["--worker-connections", "0", "--health-path", "/health"]);
    assert_eq!((server.get("/health").status, server.get("/").status), (200, 200));
    server.finish();
}
