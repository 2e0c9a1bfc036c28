//! Short responses to requests that are ready together are sent together, and none waits for an app
//! that is busy with something else.

use nix::sys::signal::Signal;

use crate::util::client::Client;
use crate::util::process::{is_asleep, is_stopped};
use crate::util::server::{Plan, Server, send};
use crate::util::tls::{Authority, Key};
use crate::util::{PATIENCE, wait_until};

/// Makes the worker find all these requests at once, in this order. It has to be done with those
/// before: until it has seen that nothing else has come on a connection, it reads that one first.
fn ask_together<const N: usize>(worker: i32, requests: [(&mut Client, &str); N]) {
    wait_until("the worker to be idle", || is_asleep(worker));
    send(worker, Signal::SIGSTOP);
    wait_until("the worker to stand still", || is_stopped(worker));
    for (client, target) in requests {
        client.send(format!("GET {target} HTTP/1.1\r\nHost: test\r\n\r\n"));
    }
    send(worker, Signal::SIGCONT);
}

/// Clients whose connections the worker knows, and a worker whose requests have lately been short.
fn known_clients<const N: usize>(server: &Server) -> [Client; N] {
    let mut clients = [(); N].map(|()| server.connect());
    clients.iter_mut().for_each(ask_for_little);
    clients
}

/// Requests that take as little time as they can, one right behind the other.
fn ask_for_little(client: &mut Client) {
    const COUNT: usize = 30;
    client.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n".repeat(COUNT));
    (0..COUNT).for_each(|_| assert_eq!(client.read().text(), "ok"));
}

/// How many segments with data have been sent to the client with that port.
fn segments(client: &mut Client, port: u16) -> usize {
    client.get(&format!("/segments?{port}")).text().parse().expect("a number")
}

#[test]
fn a_short_response_is_kept_back_for_the_next_one() {
    let server = Server::start("company", []);
    let worker = server.wait_for_workers(1)[0];
    let [mut first, mut second] = known_clients(&server);
    let port = first.port();
    // One round is enough, but on a busy machine a response may come too late to be deferred.
    wait_until("the first response to be kept back", || {
        let before = segments(&mut second, port);
        ask_for_little(&mut second);
        ask_together(worker, [(&mut first, "/"), (&mut second, &format!("/segments?{port}"))]);
        let sent: usize = second.read().text().parse().expect("a number");
        assert_eq!(first.read().text(), "ok");
        sent == before
    });
    server.finish();
}

#[test]
fn responses_do_not_wait_for_all_that_are_ready() {
    let server = Server::start("company", []);
    let worker = server.wait_for_workers(1)[0];
    let mut clients: [Client; 12] = known_clients(&server);
    let port = clients[0].port();
    let before = segments(&mut clients[1], port);
    ask_for_little(&mut clients[1]);
    let target = format!("/segments?{port}");
    let mut requests = clients.each_mut().map(|client| (client, "/"));
    requests[11].1 = &target;
    ask_together(worker, requests);
    let [others @ .., last] = &mut clients;
    others.iter_mut().for_each(|client| assert_eq!(client.read().text(), "ok"));
    assert_eq!(last.read().text(), (before + 1).to_string());
    server.finish();
}

#[test]
fn a_response_waits_for_no_request_that_takes_long() {
    let root = Authority::root("Test root");
    let secured = Plan::app("company").tls(&root.server(Key::Ecdsa, &["localhost"])).start().trusting(root.trust());
    for server in [Server::start("company", []), secured] {
        let worker = server.wait_for_workers(1)[0];
        let [mut first, mut second] = known_clients(&server);
        ask_together(worker, [(&mut first, "/"), (&mut second, "/wait")]);
        assert_eq!(first.read().text(), "ok");
        server.release();
        assert_eq!(second.read().text(), "waited");
        server.finish();
    }
}

#[test]
fn a_response_waits_for_none_of_several_threads() {
    let server = Server::start("company", ["--threads", "2"]);
    let worker = server.wait_for_workers(1)[0];
    let [mut first, mut second, mut third, mut fourth] = known_clients(&server);
    ask_together(worker, [(&mut first, "/"), (&mut second, "/wait"), (&mut third, "/"), (&mut fourth, "/wait")]);
    assert_eq!(first.read().text(), "ok");
    assert_eq!(third.read().text(), "ok");
    server.release();
    assert_eq!(second.read().text(), "waited");
    assert_eq!(fourth.read().text(), "waited");
    server.finish();
}

#[test]
fn a_response_does_not_wait_while_the_app_closes_it() {
    for threads in ["1", "2"] {
        let server = Server::start("company", ["--threads", threads]);
        let worker = server.wait_for_workers(1)[0];
        let [mut first, mut second] = known_clients(&server);
        ask_together(worker, [(&mut first, "/wait-in-close"), (&mut second, "/")]);
        assert_eq!(first.read().text(), "before the wait");
        wait_until("close() to be called", || server.entered() == 1);
        server.release();
        assert_eq!(second.read().text(), "ok");
        server.finish();
    }
}

#[test]
fn a_worker_that_is_interrupted_sends_what_is_finished() {
    let server = Server::start("company", []);
    let worker = server.wait_for_workers(1)[0];
    let [mut first, mut second, mut third] = known_clients(&server);
    ask_together(worker, [(&mut first, "/"), (&mut second, "/interrupt"), (&mut third, "/wait")]);
    assert_eq!(first.read().text(), "ok");
    assert_eq!(second.read().text(), "interrupted");
    third.expect_closed(PATIENCE);
    server.finish();
}
