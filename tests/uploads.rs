//! Request bodies in chunks, as frameworks see them: most of them find a body by its
//! `CONTENT_LENGTH` alone.

use crate::util::server::{Plan, Server};

/// The header of a form.
const FORM: &str = "Content-Type: application/x-www-form-urlencoded\r\n";

/// `body` in chunks of `size` bytes.
fn chunked(body: &[u8], size: usize) -> Vec<u8> {
    let mut message = Vec::new();
    for chunk in body.chunks(size) {
        message.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        message.extend_from_slice(chunk);
        message.extend_from_slice(b"\r\n");
    }
    message.extend_from_slice(b"0\r\n\r\n");
    message
}

/// A `POST` whose body is coded as `coding` says and then comes in chunks of `size` bytes.
fn post(target: &str, headers: &str, coding: &str, body: &[u8], size: usize) -> Vec<u8> {
    let head = format!("POST {target} HTTP/1.1\r\nHost: test\r\n{headers}Transfer-Encoding: {coding}\r\n\r\n");
    [head.as_bytes(), &chunked(body, size)].concat()
}

#[test]
fn django_falcon_bottle_and_flask_get_a_chunked_upload_whole() {
    // In memory, in a file, and in the middle of a line of requests on one connection.
    let long: Vec<u8> = (0..600_000_u32).map(|index| b'a' + (index % 26) as u8).collect();
    for app in ["django_app", "falcon_app", "bottle_app", "flask_app"] {
        let server = Server::start(&format!("uploads:{app}"), []);
        let mut client = server.connect();
        for round in 0..3 {
            client.send(post("/form", FORM, "chunked", b"a=hello+world&b=2", 4));
            assert_eq!(client.read().text(), "hello world", "{app}, round {round}");
            client.send(post("/raw", "", "Chunked", b"hello", 5));
            assert_eq!(client.read().text(), "hello", "{app}, round {round}");
        }
        client.send(post("/raw", "", "chunked", &long, 50_000));
        assert!(client.read().body == long, "{app}: a long body came out different");
        client.send(post("/raw", "", "chunked", b"", 1));
        assert_eq!(client.read().text(), "", "{app}");
        server.finish();
    }
}

#[test]
fn a_decoded_body_has_its_length_and_no_coding() {
    let server = Server::start("uploads:declared", ["--body-buffer", "1000", "--body-spool", "5000"]);
    let mut client = server.connect();
    let declared = |body: &[u8]| format!("{} None {}", body.len(), body.len());
    // Twice each: the second time the header block is known.
    for size in [0, 1, 5, 1000, 4999, 5, 0] {
        let body = vec![b'x'; size];
        for _ in 0..2 {
            client.send(post("/", "", "chunked", &body, 700));
            assert_eq!(client.read().text(), declared(&body), "{size} bytes");
        }
    }
    // `identity` is no coding.
    client.send(post("/", "", "identity, chunked", b"hello", 3));
    assert_eq!(client.read().text(), declared(b"hello"));
    // One with a length of its own in between, and one without a body.
    assert_eq!(client.request("POST", "/", &[], b"four").text(), "4 None 4");
    assert_eq!(client.get("/").text(), "None None 0");
    // A body that still arrives has no length yet: this one is longer than any one read.
    client.send(post("/", "", "chunked", &vec![b'x'; 1_000_000], 700));
    assert_eq!(client.read().text(), "None chunked 1000000");
    // Beneath the chunks there is another coding, which is the app's to undo.
    let mut client = server.connect();
    client.send(post("/", "", "gzip, chunked", b"hello", 5));
    assert_eq!(client.read().text(), "None gzip, chunked 5");
    server.finish();
}

/// A request that goes to an idle sibling is read there once more, or takes its body along as a
/// file.
#[test]
fn a_request_that_is_passed_on_keeps_its_length() {
    let conf = "def pre_request(worker, req):\n    req.headers.append(('X-MORE', '1'))\n";
    let app = "import os, pathlib, time\n\
               gate = pathlib.Path(os.environ['GATE'])\n\
               def application(environ, start_response):\n\
               \x20   if environ['PATH_INFO'] == '/wait':\n\
               \x20       (gate / 'entered-1').touch()\n\
               \x20       while not (gate / 'release').exists(): time.sleep(0.005)\n\
               \x20   length, coding = environ.get('CONTENT_LENGTH'), environ.get('HTTP_TRANSFER_ENCODING')\n\
               \x20   more = environ.get('HTTP_X_MORE')\n\
               \x20   text = f\"{length} {coding} {len(environ['wsgi.input'].read())} {more} {os.getpid()}\"\n\
               \x20   start_response('200 OK', [])\n\
               \x20   return [text.encode()]\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app).file("conf.py", conf);
    let path = plan.path("conf.py").display().to_string();
    let server = plan.args(["--config", &path, "--workers", "2", "--body-buffer", "1000"]).start();
    let pids = server.wait_for_workers(2);
    let mut kept: Vec<_> = (0..8).map(|_| server.connect()).collect();
    let owners: Vec<String> = kept.iter_mut().map(|client| last_word(&client.get("/").text())).collect();
    // One worker is held; what its connections ask for goes to the other one.
    let mut held = server.connect();
    held.send("GET /wait HTTP/1.1\r\nHost: test\r\n\r\n");
    crate::util::wait_until("the request to be inside the app", || server.entered() == 1);
    for (client, owner) in kept.iter_mut().zip(&owners) {
        for size in [5, 50_000] {
            client.send(post("/", "", "chunked", &vec![b'x'; size], 1000));
            let answer = client.read().text();
            assert!(answer.starts_with(&format!("{size} None {size} 1 ")), "{answer} of {owner}, {pids:?}");
        }
    }
    server.release();
    assert!(held.read().text().starts_with("None None 0 1 "));
    server.finish();
}

fn last_word(text: &str) -> String {
    text.rsplit(' ').next().unwrap_or_default().to_owned()
}
