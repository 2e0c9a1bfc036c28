//! Several threads of the app at one `wsgi.input`, of a body that streams.

use std::thread;
use std::time::{Duration, Instant};

use crate::util::server::{Plan, Server};
use crate::util::wait_until;

fn start(threads: &str) -> Server {
    let streaming = ["--body-buffer", "1000", "--body-spool", "0", "--client-body-timeout", "25"];
    Plan::app("readers").args(streaming).args(["--threads", threads]).start()
}

#[test]
fn each_byte_goes_to_one_of_them_and_the_end_comes_once_it_is_there() {
    for threads in ["1", "3"] {
        let server = start(threads);
        let worker = server.wait_for_workers(1);
        for _ in 0..10 {
            let mut client = server.connect();
            client.send("POST /share HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
            // A line comes in three pieces, with time enough between them for a reader to wait for
            // the rest of it.
            for _ in 0..100 {
                for piece in [&[b'x'; 300][..], &[b'y'; 400], b"zzz\n"] {
                    client.send([format!("{:x}\r\n", piece.len()).as_bytes(), piece, b"\r\n"].concat());
                    thread::sleep(Duration::from_micros(300));
                }
            }
            client.send("0\r\n\r\n");
            let answer = client.read().text();
            assert!(["70400 bytes, 0 short", "70400 bytes, 1 short"].contains(&answer.as_str()), "{answer}");
        }
        assert_eq!(server.workers(), worker);
        server.finish();
    }
}

#[test]
fn the_answer_waits_for_no_thread_that_reads_on() {
    for threads in ["1", "3"] {
        let mut server = start(threads);
        let worker = server.wait_for_workers(1);
        for (number, how) in ["return", "write", "yield", "raise"].into_iter().enumerate() {
            let mut client = server.connect();
            client.send(format!("POST /leave-and-{how} HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n\r\n"));
            client.send(vec![b'x'; 100_000]);
            let start = Instant::now();
            let answer = client.read();
            match how {
                "raise" => assert_eq!(answer.status, 500),
                _ => assert_eq!(answer.text(), "answer", "{how}"),
            }
            client.take_rest(Duration::from_secs(10));
            assert!(start.elapsed() < Duration::from_secs(10), "{how}: {:?}", start.elapsed());
            wait_until("the readers to hear that it is over", || server.gate_files("ended-").len() > number);
            assert_eq!(server.get("/").text(), "ok");
        }
        assert_eq!(server.workers(), worker);
        server.allow("Error handling request");
        server.allow("Traceback");
        server.finish();
    }
}
