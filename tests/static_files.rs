//! Files that the server sends without the app (`static_map`).

use std::fs::{self, File, FileTimes};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use nix::sys::signal::Signal::SIGHUP;

use crate::util::client::{Broken, Client, Response};
use crate::util::process::open_files;
use crate::util::server::Plan;
use crate::util::tls::{Authority, Key};
use crate::util::{is_root, wait_until};

const LONG: usize = 300_000;

/// The bytes of the long file: no two stretches of it are alike.
pub fn long() -> Vec<u8> {
    (0..LONG as u32).flat_map(|number| (number / 4).to_le_bytes()[number as usize % 4..][..1].to_vec()).collect()
}

/// An hour ago, so that validators are strong.
pub fn settle(path: &Path) {
    let hour_ago = SystemTime::now() - Duration::from_secs(3600);
    let file = File::options().write(true).open(path).expect("the file");
    file.set_times(FileTimes::new().set_modified(hour_ago)).expect("times can be set");
}

/// A plan that serves a folder at `/static`, with these options, and the folder's files.
pub fn plan(app: &str, options: &str) -> Plan {
    let plan = Plan::app(app);
    let folder = plan.path("static");
    fs::create_dir_all(folder.join("sub/.hidden")).expect("folders");
    fs::create_dir(folder.join(".git")).expect("a folder");
    fs::write(plan.path("secret"), "secret").expect("a file");
    for (name, content) in [
        ("a.css", &b"body {}"[..]),
        ("a b.txt", b"spaced"),
        ("empty", b""),
        ("sub/page.html", b"<p>"),
        ("sub/index.html", b"index"),
        ("base.27e20196a850.css", b"hashed"),
        (".env", b"hidden"),
        (".git/config", b"hidden"),
        ("sub/.hidden/file", b"hidden"),
        ("long", &long()),
    ] {
        fs::write(folder.join(name), content).expect("a file");
        settle(&folder.join(name));
    }
    let map = format!("/static={}{options}", folder.display());
    plan.args(["--static-map", &map])
}

pub fn ask(client: &mut Client, target: &str, headers: &[&str]) -> Response {
    client.request("GET", target, headers, b"")
}

#[test]
fn a_file_is_sent_with_all_that_there_is_to_say_and_the_app_hears_nothing() {
    let server = plan("echo", "").start();
    let mut client = server.connect();
    let response = client.get("/static/a.css?v=1");
    assert_eq!((response.status, response.text().as_str()), (200, "body {}"));
    assert_eq!(response.header("Content-Type"), Some("text/css; charset=utf-8"));
    assert_eq!(response.header("Accept-Ranges"), Some("bytes"));
    assert_eq!((response.header("Cache-Control"), response.header("Vary")), (None, None));
    let etag = response.header("ETag").expect("a tag");
    assert!(etag.starts_with('"') && etag.ends_with("-7\""), "{etag}");
    for name in ["Date", "Server", "Last-Modified"] {
        assert!(response.header(name).is_some(), "{name}: {response:?}");
    }
    assert!(!response.says_close());
    let head = client.request("HEAD", "/static/a.css", &[], b"");
    assert_eq!((head.status, head.content_length(), head.header("ETag")), (200, Some(7), Some(etag)));
    assert_eq!(client.get("/static/empty").content_length(), Some(0));
    assert_eq!(client.get("/static/a%20b.txt").text(), "spaced");
    assert_eq!(client.get("/%73tatic/sub/%70age.html").header("Content-Type"), Some("text/html; charset=utf-8"));
    assert!(client.get("/static/long").body == long());
    assert_eq!(client.get("/static/none").status, 404);
    // What is not below the prefix is the app's.
    assert!(client.get("/statics/a.css").text().contains("PATH_INFO"));
    assert_eq!(client.get("/calls").text(), "1", "the app was called once");
    server.finish();
}

#[test]
fn requests_that_come_at_once_are_answered_in_their_order() {
    let server = plan("echo", "").start();
    let mut client = server.connect();
    let mut pipelined = String::new();
    for number in 0..300 {
        let target = ["/static/a.css", "/static/none", "/static/long", "/calls"][number % 4];
        pipelined += &format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
    }
    let writer = std::thread::spawn({
        let mut client = server.connect();
        move || {
            client.send(pipelined);
            for number in 0..300 {
                let response = client.read();
                let expected = [(200, 7), (404, 10), (200, LONG), (200, 1)][number % 4];
                assert_eq!((response.status, response.body.len()), expected, "{number}");
            }
        }
    });
    assert_eq!(client.get("/static/a.css").text(), "body {}", "on another connection");
    writer.join().expect("all were answered");
    // Old clients, and those that want no more.
    client.send("GET /static/a.css HTTP/1.0\r\n\r\n");
    let response = client.read();
    assert_eq!((response.version.as_str(), response.text().as_str()), ("HTTP/1.0", "body {}"));
    client.expect_closed(Duration::from_secs(5));
    let mut client = server.connect();
    assert!(ask(&mut client, "/static/long", &["Connection: close"]).says_close());
    client.expect_closed(Duration::from_secs(5));
    server.finish();
}

#[test]
fn other_methods_are_told_which_there_are() {
    let server = plan("echo", "").start();
    let mut client = server.connect();
    for (method, body) in
        [("POST", &b"x=1"[..]), ("PUT", b""), ("DELETE", b""), ("OPTIONS", b""), ("PATCH", &[b'x'; 100_000])]
    {
        let response = client.request(method, "/static/a.css", &[], body);
        assert_eq!((response.status, response.header("Allow")), (405, Some("GET, HEAD")), "{method}");
    }
    // The body of a GET is read, and means nothing.
    assert_eq!(client.request("GET", "/static/a.css", &[], b"body").text(), "body {}");
    client.send("GET /static/a.css HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(client.read().text(), "body {}");
    assert_eq!(client.get("/calls").text(), "0");
    server.finish();
}

#[test]
fn a_client_that_has_the_file_is_told_so() {
    let server = plan("echo", ",max-age=60").start();
    let mut client = server.connect();
    let first = client.get("/static/a.css");
    let (etag, modified) = (first.header("ETag").expect("a tag"), first.header("Last-Modified").expect("a date"));
    let rows = [
        (format!("If-None-Match: {etag}"), 304),
        (format!("If-None-Match: \"x\", W/{etag}"), 304),
        ("If-None-Match: *".to_owned(), 304),
        ("If-None-Match: \"x\"".to_owned(), 200),
        (format!("If-Modified-Since: {modified}"), 304),
        ("If-Modified-Since: Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 200),
        (format!("If-Match: {etag}"), 200),
        ("If-Match: \"x\"".to_owned(), 412),
        (format!("If-Unmodified-Since: {modified}"), 200),
        ("If-Unmodified-Since: Sun, 06 Nov 1994 08:49:37 GMT".to_owned(), 412),
    ];
    for (condition, status) in rows {
        for method in ["GET", "HEAD"] {
            let response = client.request(method, "/static/a.css", &[&condition], b"");
            assert_eq!(response.status, status, "{method} {condition}");
            assert_eq!(response.header("ETag"), Some(etag), "{method} {condition}");
            if status == 412 {
                assert_eq!(response.header("Cache-Control"), None, "{method} {condition}");
            }
            if status == 304 {
                assert_eq!(response.header("Cache-Control"), Some("public, max-age=60"));
                assert_eq!((response.header("Content-Length"), response.header("Content-Type")), (None, None));
            }
        }
    }
    server.finish();
}

#[test]
fn ranges_are_sent_one_by_one_or_as_parts() {
    let server = plan("echo", "").start();
    let mut client = server.connect();
    let long = long();
    for (range, from, to) in [
        ("0-0", 0, 1),
        ("100-199", 100, 200),
        ("299990-", 299_990, LONG),
        ("299990-999999999", 299_990, LONG),
        ("-5", LONG - 5, LONG),
        ("-999999999", 0, LONG),
        ("0-", 0, LONG),
        ("100000-250000", 100_000, 250_001),
    ] {
        let response = ask(&mut client, "/static/long", &[&format!("Range: bytes={range}")]);
        assert_eq!((response.status, response.body.len()), (206, to - from), "{range}");
        assert!(response.body == long[from..to], "{range}");
        let expected = format!("bytes {from}-{}/{LONG}", to - 1);
        assert_eq!(response.header("Content-Range"), Some(expected.as_str()));
    }
    for range in ["300000-", "300000-300001", "-0"] {
        let response = ask(&mut client, "/static/long", &[&format!("Range: bytes={range}")]);
        assert_eq!((response.status, response.header("Content-Range")), (416, Some("bytes */300000")), "{range}");
    }
    let parts = ask(&mut client, "/static/long", &["Range: bytes=0-9,100000-250000,-1"]);
    assert_eq!(parts.status, 206);
    let boundary = parts.header("Content-Type").and_then(|kind| kind.strip_prefix("multipart/byteranges; boundary="));
    let boundary = boundary.expect("a boundary");
    let mut expected = Vec::new();
    for (index, (from, to)) in [(0, 10), (100_000, 250_001), (LONG - 1, LONG)].into_iter().enumerate() {
        let start = if index == 0 { "" } else { "\r\n" };
        let head = format!(
            "{start}--{boundary}\r\nContent-Type: application/octet-stream\r\nContent-Range: bytes {from}-{}/{LONG}\r\n\r\n",
            to - 1
        );
        expected.extend_from_slice(head.as_bytes());
        expected.extend_from_slice(&long[from..to]);
    }
    expected.extend_from_slice(format!("\r\n--{boundary}--\r\n").as_bytes());
    assert!(parts.body == expected);
    // What is ignored: nonsense, too many, overlapping ones, and ranges of another state of the
    // file.
    let many: Vec<String> = (0..17).map(|number| format!("{number}-{number}")).collect();
    let etag = parts.header("ETag").expect("a tag");
    let stale = ["Range: bytes=0-9", "If-Range: \"x\""];
    for headers in
        [&["Range: lines=0-9"][..], &[&format!("Range: bytes={}", many.join(","))], &["Range: bytes=0-,0-"], &stale]
    {
        assert_eq!(ask(&mut client, "/static/long", headers).status, 200, "{headers:?}");
    }
    let fresh = ["Range: bytes=0-9", &format!("If-Range: {etag}")];
    assert_eq!(ask(&mut client, "/static/long", &fresh).status, 206);
    let head = client.request("HEAD", "/static/long", &["Range: bytes=0-9"], b"");
    assert_eq!((head.status, head.content_length()), (200, Some(LONG)));
    server.finish();
}

#[test]
fn the_best_form_is_sent_that_the_client_can_read() {
    let plan = plan("echo", "");
    let folder = plan.path("static");
    for (ending, content) in [("gz", "gzip form"), ("br", "brotli form"), ("zst", "zstd form")] {
        fs::write(folder.join(format!("a.css.{ending}")), content).expect("a file");
    }
    let server = plan.start();
    let mut client = server.connect();
    let rows = [
        (&[][..], "body {}", None),
        (&["Accept-Encoding: gzip, deflate, br, zstd"], "brotli form", Some("br")),
        (&["Accept-Encoding: gzip, zstd"], "zstd form", Some("zstd")),
        (&["Accept-Encoding: gzip;q=1.0, br;q=0.1"], "gzip form", Some("gzip")),
        (&["Accept-Encoding: br;q=0, gzip"], "gzip form", Some("gzip")),
        (&["Accept-Encoding: deflate"], "body {}", None),
        (&["Accept-Encoding: identity;q=1, *;q=0"], "body {}", None),
    ];
    let mut tags = std::collections::HashSet::new();
    for (headers, text, coding) in rows {
        let response = ask(&mut client, "/static/a.css", headers);
        assert_eq!((response.text().as_str(), response.header("Content-Encoding")), (text, coding), "{headers:?}");
        assert_eq!(response.header("Content-Type"), Some("text/css; charset=utf-8"));
        assert_eq!(response.header("Vary"), Some("Accept-Encoding"), "{headers:?}");
        tags.insert(response.header("ETag").expect("a tag").to_owned());
    }
    assert_eq!(tags.len(), 4, "each form has a tag of its own: {tags:?}");
    let part = ask(&mut client, "/static/a.css", &["Accept-Encoding: br", "Range: bytes=0-5"]);
    assert_eq!((part.status, part.text().as_str()), (206, "brotli"));
    let itself = ask(&mut client, "/static/a.css.gz", &["Accept-Encoding: gzip"]);
    assert_eq!((itself.header("Content-Type"), itself.header("Content-Encoding")), (Some("application/gzip"), None));
    server.finish();
}

#[test]
fn no_path_leads_out_of_the_folder_or_to_what_is_hidden() {
    let plan = plan("echo", "");
    let folder = plan.path("static");
    symlink("../secret", folder.join("out")).expect("a link");
    symlink(plan.path("secret"), folder.join("absolute")).expect("a link");
    symlink("..", folder.join("up")).expect("a link");
    symlink("/", folder.join("sub/root")).expect("a link");
    symlink("a.css", folder.join("inside.css")).expect("a link");
    nix::unistd::mkfifo(&folder.join("pipe"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
    let server = plan.start();
    let mut client = server.connect();
    let steps = [
        "..",
        "%2e%2e",
        "%2E.",
        ".%2e",
        "..%2f..",
        "%2e%2e%2f",
        "%252e%252e",
        "..%5c",
        "..\\",
        "..;",
        "..%00",
        "...",
        "%c0%ae%c0%ae",
        "%ef%bc%8e%ef%bc%8e",
    ];
    let mut paths: Vec<String> = steps.iter().map(|step| format!("/static/{step}/secret")).collect();
    paths.extend(steps.iter().map(|step| format!("/static/sub/{step}/{step}/secret")));
    for path in [
        "/static//secret",
        "/static/%2fetc/passwd",
        "/static/%2f%2fetc%2fpasswd",
        "/static//etc/passwd",
        "/static/./a.css",
        "/static/sub/../a.css",
        "/static/a.css/",
        "/static/a.css/..",
        "/static/a.css%00",
        "/static/a.css%00.png",
        "/static/.env",
        "/static/%2eenv",
        "/static/.git/config",
        "/static/sub/.hidden/file",
        "/static/sub",
        "/static/sub/",
        "/static",
        "/static/",
        "/static/out",
        "/static/absolute",
        "/static/up/secret",
        "/static/up/static/a.css",
        "/static/sub/root/etc/passwd",
        "/static/pipe",
        "/static/..",
        "/static/.",
        "/static/a.css/more",
    ] {
        paths.push(path.to_owned());
    }
    paths.push(format!("/static/{}", "x".repeat(3000)));
    for path in &paths {
        let response = client.get(path);
        assert_eq!(response.status, 404, "{path}: {}", response.text());
    }
    assert_eq!(client.get("/static/inside.css").text(), "body {}", "a link to what is in the folder");
    assert_eq!(client.get("/calls").text(), "0");
    server.finish();
}

#[test]
fn links_may_lead_out_where_the_operator_says_so() {
    let plan = plan("echo", ",symlinks");
    symlink(plan.path("secret"), plan.path("static").join("out")).expect("a link");
    let server = plan.start();
    assert_eq!(server.get("/static/out").text(), "secret");
    for path in ["/static/../secret", "/static/%2e%2e/secret", "/static/.env"] {
        assert_eq!(server.get(path).status, 404, "{path}");
    }
    server.finish();
}

#[test]
fn a_file_that_may_not_be_read_is_forbidden() {
    if !is_root() {
        return println!("not tried: this needs root, whose workers may be somebody else");
    }
    // It imports nothing: the interpreter's own folder may be one that only root can enter.
    let app = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'app']\n";
    let plan = plan("app", "").in_own_folder().file("app.py", app).args(["--user", "54321"]);
    let folder = plan.path("static");
    for path in [&plan.path(""), &folder] {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
    }
    fs::set_permissions(folder.join("a.css"), fs::Permissions::from_mode(0o600)).expect("a mode");
    let mut server = plan.start();
    assert_eq!(server.get("/static/a.css").status, 403);
    assert_eq!(server.get("/static/sub/page.html").status, 200);
    server.wait_for_log("Cannot open the file of \"/static/a.css\"");
    server.allow("Cannot open the file");
    server.finish();
}

#[test]
fn maps_have_their_options() {
    let plan = plan("echo", ",max-age=60,immutable");
    let folder = plan.path("static");
    fs::write(plan.path("robots.txt"), "User-agent: *").expect("a file");
    let robots = format!("/robots.txt={}", plan.path("robots.txt").display());
    let pages = format!("/static/pages={},index", folder.join("sub").display());
    let all = format!("/={},fall-through,immutable=all", folder.display());
    let server = plan.args(["--static-map", &robots, "--static-map", &pages, "--static-map", &all]).start();
    let mut client = server.connect();
    let for_ever = Some("public, max-age=31536000, immutable");
    assert_eq!(client.get("/static/a.css").header("Cache-Control"), Some("public, max-age=60"));
    assert_eq!(client.get("/static/base.27e20196a850.css").header("Cache-Control"), for_ever);
    // One file, and nothing below it.
    let robots = client.get("/robots.txt");
    assert_eq!(
        (robots.text().as_str(), robots.header("Content-Type")),
        ("User-agent: *", Some("text/plain; charset=utf-8"))
    );
    assert_eq!(client.get("/robots.txt/more").status, 404);
    // The longest prefix counts, and a directory has an index.
    assert_eq!(client.get("/static/pages/").text(), "index");
    let moved = client.get("/static/pages?a=b");
    assert_eq!((moved.status, moved.header("Location")), (301, Some("/static/pages/?a=b")));
    assert_eq!(client.get("/static/pages/none").status, 404);
    // What is not there is the app's.
    assert_eq!(client.get("/a.css").header("Cache-Control"), for_ever);
    for target in ["/none", "/", "/.env", "/../secret"] {
        assert!(client.get(target).text().contains("PATH_INFO"), "{target}");
    }
    assert!(client.request("POST", "/a.css", &[], b"x").text().contains("PATH_INFO"));
    server.finish();
}

#[test]
fn what_the_settings_get_wrong_is_said_at_the_start_and_changes_nothing_at_a_reload() {
    for (value, expected) in [
        ("static", "is not of the form /PREFIX=PATH"),
        ("/static=/nowhere/at/all", "there is no directory or file '/nowhere/at/all'"),
        ("/static=/tmp,max-age=soon", "has a max-age of 'soon'"),
        ("/=/tmp", "leaves no request to the app"),
    ] {
        let finished = Plan::app("echo").args(["--static-map", value]).run();
        assert_eq!(finished.code, Some(1), "{value}");
        let said = finished.stderr;
        assert!(said.contains(expected) && said.contains("static_map"), "{value}: {said}");
    }
    let finished = Plan::app("echo").args(["--x-sendfile", "/nowhere"]).run();
    assert!(finished.code == Some(1) && finished.stderr.contains("'x_sendfile'"), "{}", finished.stderr);
    let plan = Plan::app("echo");
    let folder = plan.path("static");
    fs::create_dir(&folder).expect("a folder");
    fs::write(folder.join("a"), "a").expect("a file");
    let config = |path: &Path| format!("static_map = ['/static={}']\n", path.display());
    let plan = plan.file("conf.py", &config(&folder));
    let file = plan.path("conf.py");
    let mut server = plan.args(["-c", file.to_str().expect("a plain path")]).start();
    assert_eq!(server.get("/static/a").text(), "a");
    server.write("conf.py", &config(Path::new("/nowhere")));
    server.signal(SIGHUP);
    server.wait_for_log("there is no directory or file '/nowhere'");
    assert_eq!(server.get("/static/a").text(), "a");
    server.allow("there is no directory or file");
    server.finish();
}

#[test]
fn files_are_sent_while_every_thread_is_in_the_app() {
    for threads in ["1", "2"] {
        let server = plan("process", "").args(["--workers", "2", "--threads", threads]).start();
        server.wait_for_workers(2);
        let busy = 2 * threads.parse::<usize>().expect("a number");
        let mut kept = server.connect();
        assert_eq!(kept.get("/static/a.css").text(), "body {}");
        let mut clients: Vec<_> = (0..busy).map(|_| server.connect()).collect();
        clients.iter_mut().for_each(|client| client.send("GET /wait HTTP/1.1\r\nHost: a\r\n\r\n"));
        wait_until("every thread to be in the app", || server.entered() == busy);
        for _ in 0..5 {
            assert!(server.get("/static/long").body == long(), "on a connection of its own");
            assert_eq!(kept.get("/static/a.css").text(), "body {}", "on a kept connection");
        }
        server.release();
        clients.iter_mut().for_each(|client| assert_eq!(client.read().status, 200));
        server.finish();
    }
}

#[test]
fn a_gigabyte_goes_out_to_slow_readers_while_others_are_served() {
    const LENGTH: u64 = 1 << 30;
    let plan = plan("echo", "");
    let path = plan.path("static").join("huge");
    let mut file = File::create(&path).expect("a file");
    file.seek(SeekFrom::Start(LENGTH - 3)).expect("a hole");
    file.write_all(b"end").expect("an end");
    settle(&path);
    let server = plan.start();
    let worker = server.wait_for_workers(1)[0];
    let files = open_files(worker);
    let mut slow: Vec<Client> = (0..20).map(|_| Client::connect_narrow(&server.address)).collect();
    slow.iter_mut().for_each(|client| client.send("GET /static/huge HTTP/1.1\r\nHost: a\r\n\r\n"));
    for client in &mut slow {
        assert_eq!(client.read_head().expect("a head").content_length(), Some(LENGTH as usize));
    }
    assert!(open_files(worker) <= files + 20 + 8, "they share the file");
    assert!(server.get("/calls").text() == "0", "the thread is free");
    // One that reads gets all of it, and only that.
    let mut quick = server.connect();
    let part = ask(&mut quick, "/static/huge", &["Range: bytes=1073741820-"]);
    assert_eq!((part.status, part.body.as_slice()), (206, &b"\0end"[..]));
    quick.send("GET /static/huge HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    quick.read_head().expect("a head");
    let mut left = LENGTH;
    while left > 0 {
        let block = quick.read_exactly(usize::try_from(left.min(1 << 22)).expect("it fits"));
        left -= block.len() as u64;
        assert!(left > 0 || block.ends_with(b"end"));
    }
    quick.expect_closed(Duration::from_secs(5));
    drop(slow);
    wait_until("their files to be closed", || open_files(worker) <= files + 1);
    server.finish();
}

#[test]
fn a_file_that_shrinks_ends_the_connection_and_one_that_is_replaced_shows() {
    let server = plan("echo", "").start();
    let path = server.path("static").join("long");
    let mut slow = Client::connect_narrow(&server.address);
    let huge = File::create(server.path("static").join("huge")).expect("a file");
    huge.set_len(1 << 26).expect("a hole");
    slow.send("GET /static/huge HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.read_head().expect("a head");
    huge.set_len(1 << 10).expect("a shorter file");
    while slow.read_within("HEAD", Duration::from_secs(1)).is_ok() {}
    assert!(slow.take_rest(Duration::from_secs(15)).len() < 1 << 26, "less than was promised");
    let new = server.path("new");
    fs::write(&new, "another").expect("a file");
    fs::rename(&new, &path).expect("a new file");
    wait_until("the new file", || server.get("/static/long").text() == "another");
    fs::remove_file(&path).expect("removed");
    wait_until("its end", || server.get("/static/long").status == 404);
    server.finish();
}

#[test]
fn under_tls_files_are_sent_too() {
    let root = Authority::root("Test root");
    let plan = plan("echo", "").tls(&root.server(Key::Ecdsa, &["localhost"]));
    let server = plan.start().trusting(root.trust());
    let mut client = server.connect();
    assert_eq!(client.get("/static/a.css").text(), "body {}");
    assert!(client.get("/static/long").body == long());
    let part = ask(&mut client, "/static/long", &["Range: bytes=100000-250000"]);
    assert!(part.status == 206 && part.body == long()[100_000..=250_000]);
    let mut slow = server.connect();
    slow.send("GET /static/long HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20));
    assert_eq!(client.get("/calls").text(), "0");
    for _ in 0..20 {
        assert!(slow.read().body == long());
    }
    server.finish();
}

#[test]
fn the_access_log_has_a_line_for_each() {
    let plan = plan("echo", "");
    let access = plan.path("access.log");
    let server = plan
        .args(["--access-logfile", access.to_str().expect("a plain path")])
        .args(["--access-logformat", "%(m)s %(U)s %(s)s %(B)s %({Content-Type}o)s %({x}e)s"])
        .start();
    let mut client = server.connect();
    client.get("/static/a.css?v=1");
    client.request("HEAD", "/static/a.css", &[], b"");
    client.get("/static/none");
    client.request("POST", "/static/a.css", &[], b"");
    ask(&mut client, "/static/long", &["Range: bytes=0-99"]);
    let mut gone = Client::connect_narrow(&server.address);
    let huge = File::create(server.path("static").join("huge")).expect("a file");
    huge.set_len(1 << 26).expect("a hole");
    gone.send("GET /static/huge HTTP/1.1\r\nHost: a\r\n\r\n");
    gone.read_head().expect("a head");
    gone.reset();
    let lines = || fs::read_to_string(&access).unwrap_or_default();
    wait_until("six lines", || lines().lines().count() == 6);
    let expected = "GET /static/a.css 200 7 text/css; charset=utf-8 -\nHEAD /static/a.css 200 0 text/css; charset=utf-8 -\n\
                    GET /static/none 404 10 text/plain -\nPOST /static/a.css 405 19 text/plain -\n\
                    GET /static/long 206 100 application/octet-stream -\nGET /static/huge 499 ";
    assert!(lines().starts_with(expected), "{}", lines());
    server.finish();
}

#[test]
fn a_slow_reader_is_cut_in_its_time() {
    let mut server = plan("echo", "").args(["--write-timeout", "2"]).start();
    let huge = File::create(server.path("static").join("huge")).expect("a file");
    huge.set_len(1 << 26).expect("a hole");
    let mut slow = Client::connect_narrow(&server.address);
    slow.send("GET /static/huge HTTP/1.1\r\nHost: a\r\n\r\n");
    slow.read_head().expect("a head");
    server.wait_for_log("does not read");
    assert!(matches!(
        slow.read_for("GET"),
        Err(Broken::Closed | Broken::Malformed(_) | Broken::Silent | Broken::TruncatedHead)
    ));
    server.allow("does not read");
    server.finish();
}

#[test]
fn a_directory_that_is_away_when_a_worker_boots_is_served_when_it_is_back() {
    let mut server = plan("echo", "").start();
    let old = server.wait_for_workers(1);
    fs::rename(server.path("static"), server.path("away")).expect("a folder");
    crate::util::server::send(old[0], nix::sys::signal::Signal::SIGKILL);
    wait_until("another worker", || server.workers() != old && server.has_serving(1));
    assert_eq!(server.get("/static/a.css").status, 404);
    fs::rename(server.path("away"), server.path("static")).expect("a folder");
    wait_until("the file", || server.get("/static/a.css").status == 200);
    server.allow("was sent SIGKILL");
    server.finish();
}
