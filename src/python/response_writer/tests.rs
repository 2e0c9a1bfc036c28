use std::io::Write;
use std::os::fd::OwnedFd;

use super::*;
use crate::exchange::recording::{Received, RecordingExchange};

/// What the application says of a response to which there is nothing to say.
fn ok(content_length: Option<u64>) -> ResponseHead {
    ResponseHead { status: b"200 OK".to_vec(), code: 200, content_length, ..ResponseHead::default() }
}

/// A response of which only the head is known, and its client.
fn started(head: ResponseHead) -> (ResponseWriter, Arc<Mutex<Received>>) {
    let (exchange, received) = RecordingExchange::new();
    let mut response = ResponseWriter::new(b"".as_slice().into(), None);
    begin(&mut response, Box::new(exchange));
    response.take_draft();
    response.start(Box::new(head));
    (response, received)
}

fn begin(response: &mut ResponseWriter, exchange: Box<dyn Exchange>) {
    let wanted = Wanted::by(&exchange.request());
    response.begin(exchange, wanted, false);
}

/// A response whose head is out, and its client, who has taken nothing of a body.
fn begun(content_length: Option<u64>) -> (ResponseWriter, Arc<Mutex<Received>>) {
    let (mut response, received) = started(ok(content_length));
    response.send(&[], false).unwrap();
    assert_eq!(std::mem::take(&mut received.lock().unwrap().hints).len(), 1, "the head");
    received.lock().unwrap().bytes.clear();
    (response, received)
}

#[test]
fn an_end_without_bytes_is_not_written() {
    for (content_length, writes) in [(Some(0), 0), (None, 1)] {
        let (mut response, received) = begun(content_length);
        assert_eq!(response.finish(), Disposition::KeepAlive);
        assert_eq!(received.lock().unwrap().hints.len(), writes, "{content_length:?}");
    }
}

#[test]
fn what_is_sent_says_what_comes_behind_it() {
    let with_upgrade = ResponseHead { upgrade: true, ..ok(Some(0)) };
    let rows = [
        ("whole", ok(Some(0)), true, Hint::LastOfResponse),
        ("not whole", ok(Some(1)), false, Hint::Now),
        ("a last chunk", ok(None), true, Hint::LastOfResponse),
        ("more to come", ok(None), false, Hint::Now),
        ("another protocol", with_upgrade, true, Hint::Now),
    ];
    for (name, head, last, hint) in rows {
        let (mut response, received) = started(head);
        response.send(&[], last).unwrap();
        assert_eq!(received.lock().unwrap().hints, [hint], "{name}");
    }
}

#[test]
fn the_end_of_the_connection_comes_with_the_last_bytes_where_nothing_is_called_between() {
    for (is_observed, is_followed, hint) in
        [(false, false, Hint::LastOfConnection), (true, false, Hint::Now), (false, true, Hint::Now)]
    {
        let (mut response, received) = started(ok(None));
        response.wanted.version = Version::Http10;
        response.start_again(ok(None));
        response.is_followed = is_observed;
        response.complete(is_followed).unwrap();
        assert_eq!(received.lock().unwrap().hints, [hint], "{is_observed} {is_followed}");
    }
}

#[test]
fn what_the_exchange_has_no_room_for_is_handed_over_later() {
    let (mut response, received) = begun(Some(10));
    received.lock().unwrap().room = 4;
    response.transmit_one(b"0123456789", Hint::Now).unwrap();
    assert!(response.has_backlog());
    assert!(matches!(response.try_send_backlog().unwrap(), Tried::NotYet(_)));
    received.lock().unwrap().room = 3;
    assert!(matches!(response.try_send_backlog().unwrap(), Tried::NotYet(_)));
    received.lock().unwrap().room = usize::MAX;
    assert_eq!(response.try_send_backlog().unwrap(), Tried::Done(()));
    assert!(!response.has_backlog());
    assert_eq!(received.lock().unwrap().bytes, b"0123456789");
}

#[test]
fn nothing_overtakes_what_waits_and_the_end_leaves_it_to_the_exchange() {
    let (mut response, received) = begun(None);
    received.lock().unwrap().room = 4;
    response.transmit_one(b"0123456789", Hint::Now).unwrap();
    received.lock().unwrap().room = usize::MAX;
    response.transmit_one(b" and more ", Hint::Now).unwrap();
    assert_eq!(received.lock().unwrap().bytes, b"0123");
    assert_eq!(response.finish(), Disposition::KeepAlive);
    assert!(!response.has_backlog());
    assert_eq!(received.lock().unwrap().bytes, b"0123456789 and more 0\r\n\r\n");
}

#[test]
fn a_file_does_not_overtake_a_head_that_has_no_room() {
    for (content_length, body) in [(Some(4), &b"\r\n\r\nfile"[..]), (None, b"\r\n\r\n4\r\nfile\r\n0\r\n\r\n")] {
        for room in [0, 5, usize::MAX] {
            let (mut response, received) = started(ok(content_length));
            received.lock().unwrap().room = room;
            response.send_file(file_of(b"a file"), 2, 4).unwrap();
            assert!(!response.has_backlog());
            assert_eq!(response.finish(), Disposition::KeepAlive);
            let bytes = received.lock().unwrap().bytes.clone();
            let shown = String::from_utf8_lossy(&bytes);
            assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n") && bytes.ends_with(body), "{room}: {shown}");
        }
    }
}

#[test]
fn a_client_that_leaves_before_a_file_is_gone() {
    let (mut response, received) = started(ok(Some(4)));
    received.lock().unwrap().is_gone = true;
    response.send_file(file_of(b"file"), 0, 4).unwrap_err();
    assert!(response.client_is_gone());
    assert_eq!(response.finish(), Disposition::Gone);
}

fn file_of(bytes: &[u8]) -> OwnedFd {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.into()
}

#[test]
fn an_error_behind_the_head_leaves_the_response_incomplete() {
    let (mut response, received) = begun(Some(5));
    assert_eq!(response.fail(500, "a page"), Disposition::Broken);
    assert_eq!(received.lock().unwrap().bytes, b"");
    assert!(response.length_complaint().is_some());
}

#[test]
fn a_client_that_is_gone_is_the_end_of_its_request_only() {
    let (mut response, received) = begun(Some(3));
    received.lock().unwrap().is_gone = true;
    assert_eq!(response.finish(), Disposition::Gone);
    assert!(response.client_is_gone());
    let (exchange, summary) = response.end(false).unwrap();
    assert_eq!(summary.status, CLIENT_CLOSED_REQUEST);
    received.lock().unwrap().is_gone = false;
    begin(&mut response, exchange);
    response.take_draft();
    response.start(Box::new(ok(Some(0))));
    assert_eq!(response.finish(), Disposition::KeepAlive);
}

#[test]
fn a_live_response_keeps_out_of_files() {
    for is_live in [false, true] {
        let (_, received) = started(ResponseHead { is_live, ..ok(None) });
        assert_eq!(received.lock().unwrap().avoids_files, is_live);
    }
}

impl ResponseWriter {
    /// As after a second `start_response` with `exc_info`.
    fn start_again(&mut self, head: ResponseHead) {
        self.take_draft();
        self.start(Box::new(head));
    }
}
