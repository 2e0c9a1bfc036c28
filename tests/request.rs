//! The environ that the app is given.

use std::fs;

use crate::util::json::Json;
use crate::util::server::{Plan, Server};

const SERVER_SOFTWARE: &str = concat!("monoceros/", env!("CARGO_PKG_VERSION"));

#[test]
fn the_environ_is_gunicorns() {
    let server = Server::start("echo", []);
    let mut client = server.connect();
    let headers = ["Host: example.org:81", "User-Agent: tests", "X-Two: a", "x-two: b", "Content-Type: text/x"];
    client.send(format!(
        "POST /a%20b/%E2%82%AC?q=%20&r HTTP/1.1\r\n{}\r\nContent-Length: 2\r\n\r\nhi",
        headers.join("\r\n")
    ));
    let seen = client.read().json();
    for (key, value) in [
        ("REQUEST_METHOD", "POST"),
        ("PATH_INFO", "/a b/\u{e2}\u{82}\u{ac}"),
        ("QUERY_STRING", "q=%20&r"),
        ("RAW_URI", "/a%20b/%E2%82%AC?q=%20&r"),
        ("SCRIPT_NAME", ""),
        ("SERVER_PROTOCOL", "HTTP/1.1"),
        ("SERVER_SOFTWARE", SERVER_SOFTWARE),
        ("SERVER_NAME", "127.0.0.1"),
        ("REMOTE_ADDR", "127.0.0.1"),
        ("CONTENT_TYPE", "text/x"),
        ("CONTENT_LENGTH", "2"),
        ("HTTP_HOST", "example.org:81"),
        ("HTTP_USER_AGENT", "tests"),
        ("HTTP_X_TWO", "a,b"),
        ("wsgi.url_scheme", "http"),
    ] {
        assert_eq!(seen[key], value, "{key}");
    }
    assert_eq!(seen["wsgi.version"], Json::parse("[1, 0]"));
    for (key, value) in [
        ("wsgi.multithread", false),
        ("wsgi.multiprocess", false),
        ("wsgi.run_once", false),
        ("wsgi.input_terminated", true),
    ] {
        assert_eq!(seen[key], Json::Bool(value), "{key}");
    }
    assert!(seen["REMOTE_PORT"].text().parse::<u16>().is_ok());
    assert!(seen["SERVER_PORT"].text().parse::<u16>().is_ok());
    server.finish();
}

#[test]
fn the_environ_holds_these_keys_and_no_others() {
    let server = Server::start("echo", []);
    let seen = server.get("/").json();
    let wanted = [
        "HTTP_HOST",
        "PATH_INFO",
        "QUERY_STRING",
        "RAW_URI",
        "REMOTE_ADDR",
        "REMOTE_PORT",
        "REQUEST_METHOD",
        "SCRIPT_NAME",
        "SERVER_NAME",
        "SERVER_PORT",
        "SERVER_PROTOCOL",
        "SERVER_SOFTWARE",
        "gunicorn.socket",
        "wsgi.early_hints",
        "wsgi.errors",
        "wsgi.file_wrapper",
        "wsgi.input",
        "wsgi.input_terminated",
        "wsgi.multiprocess",
        "wsgi.multithread",
        "wsgi.run_once",
        "wsgi.url_scheme",
        "wsgi.version",
    ];
    assert_eq!(seen["keys"].texts(), wanted);
    assert_eq!(seen["exact_dict"], Json::Bool(true));
    let strings = seen["keys"].texts().into_iter().filter(|key| !key.contains('.'));
    for key in strings {
        assert_eq!(seen["types"][key], "str", "{key}");
    }
    server.finish();
}

#[test]
fn each_request_has_an_environ_of_its_own() {
    let server = Server::start("echo", []);
    let mut client = server.connect();
    client.request("GET", "/", &["X-Once: 1", "Content-Type: text/x"], b"");
    let second = client.get("/").json();
    for key in ["left.behind", "HTTP_X_ONCE", "CONTENT_TYPE"] {
        assert!(second.get(key).is_none(), "{key} came over from the request before");
    }
    server.finish();
}

/// The server finds the header block in its cache; values that do not come from the headers must
/// still be each request's own.
#[test]
fn requests_with_the_same_headers_have_each_their_own_line_and_client() {
    let server = Server::start("echo", []);
    let headers = ["Cookie: c=1", "X-Two: a", "X-Two: b"];
    let long = format!("/{}?{}", "p".repeat(700), "q".repeat(800));
    let mut clients = [server.connect(), server.connect(), server.connect()];
    let mut ports = clients.each_ref().map(|_| String::new());
    for round in 0..3 {
        for (number, client) in clients.iter_mut().enumerate() {
            for (method, target) in
                [("GET", "/"), ("PUT", "/a%20b?x=1"), ("GET", &long), ("GET", "/other"), ("GET", "/")]
            {
                let seen = client.request(method, target, &headers, b"").json();
                let (path, query) = target.split_once('?').unwrap_or((target, ""));
                assert_eq!(seen["REQUEST_METHOD"], method);
                assert_eq!(seen["RAW_URI"], target);
                assert_eq!(seen["PATH_INFO"], path.replace("%20", " ").as_str());
                assert_eq!(seen["QUERY_STRING"], query);
                assert_eq!((seen["HTTP_COOKIE"].text(), seen["HTTP_X_TWO"].text()), ("c=1", "a,b"));
                assert!(seen.get("left.behind").is_none());
                if round == 0 {
                    ports[number] = seen["REMOTE_PORT"].text().to_owned();
                }
                assert_eq!(seen["REMOTE_PORT"].text(), ports[number]);
            }
        }
    }
    assert!(ports[0] != ports[1] && ports[1] != ports[2]);
    server.finish();
}

#[test]
fn a_script_name_that_comes_again_is_taken_off_each_path() {
    let server = Server::start("echo", []);
    let mut client = server.connect();
    for target in ["/x/a", "/x/b", "/x/b", "/x/c%20d"] {
        let seen = client.request("GET", target, &["SCRIPT_NAME: /x"], b"").json();
        assert_eq!(seen["SCRIPT_NAME"], "/x");
        assert_eq!(seen["PATH_INFO"], target.replace("%20", " ").strip_prefix("/x").expect("it begins so"));
    }
    server.finish();
}

#[test]
fn behind_a_unix_socket_a_client_has_a_port_only_if_a_proxy_names_it() {
    let server = Plan::app("echo").unix().args(["--proxy-protocol", "v1", "--forwarded-allow-ips", "*"]).start();
    for _ in 0..3 {
        let mut client = server.connect();
        client.send("PROXY TCP4 1.2.3.4 5.6.7.8 4711 80\r\n");
        let seen = client.request("GET", "/", &["X-Forwarded-Proto: https"], b"").json();
        assert_eq!((seen["REMOTE_ADDR"].text(), seen["REMOTE_PORT"].text()), ("1.2.3.4", "4711"));
        assert_eq!(seen["wsgi.url_scheme"], "https");
        let seen = server.connect().request("GET", "/", &["X-Forwarded-Proto: https"], b"").json();
        assert_eq!(seen["REMOTE_ADDR"], "");
        assert!(seen.get("REMOTE_PORT").is_none() && seen.get("PROXY_PROTOCOL").is_none());
    }
    server.finish();
}

#[test]
fn over_a_unix_socket_there_is_no_peer_and_the_host_names_the_server() {
    let server = Plan::app("echo").unix().start();
    let seen = server.connect().request("GET", "/", &[], b"").json();
    assert_eq!(seen["REMOTE_ADDR"], "");
    assert!(seen.get("REMOTE_PORT").is_none());
    assert_eq!((&seen["SERVER_NAME"], &seen["SERVER_PORT"]), (&Json::Text("test".into()), &Json::Text("80".into())));
    // A unix peer is trusted: it is the proxy in front.
    let seen = server.connect().request("GET", "/", &["X-Forwarded-Proto: https"], b"").json();
    assert_eq!(seen["wsgi.url_scheme"], "https");
    server.finish();
}

#[test]
fn the_scheme_is_taken_only_from_trusted_peers() {
    let trusting = Server::start("echo", []);
    let wary = Server::start("echo", ["--forwarded-allow-ips", "10.0.0.1"]);
    let by_network = Server::start("echo", ["--forwarded-allow-ips", "10.0.0.0/8,127.0.0.0/8"]);
    for (server, scheme) in [(&trusting, "https"), (&wary, "http"), (&by_network, "https")] {
        let seen = server.connect().request("GET", "/", &["X-Forwarded-Proto: https"], b"").json();
        assert_eq!(seen["wsgi.url_scheme"], scheme);
        assert_eq!(seen["HTTP_X_FORWARDED_PROTO"], "https");
    }
    let ignored = wary.connect().request("GET", "/x", &["SCRIPT_NAME: /x"], b"").json();
    assert_eq!((ignored["SCRIPT_NAME"].text(), ignored["PATH_INFO"].text()), ("", "/x"));
    for server in [trusting, wary, by_network] {
        server.finish();
    }
}

#[test]
fn script_name_comes_off_the_path() {
    let mut server = Plan::app("echo").env("SCRIPT_NAME", "/mounted").start();
    let seen = server.get("/mounted/here%20now").json();
    assert_eq!((seen["SCRIPT_NAME"].text(), seen["PATH_INFO"].text()), ("/mounted", "/here now"));
    let elsewhere = server.get("/other");
    assert_eq!(elsewhere.status, 500);
    assert!(elsewhere.text().contains("Configuration problem: Request path"), "{}", elsewhere.text());
    server.allow("");
    server.finish();
}

#[test]
fn every_byte_of_a_header_value_reaches_the_app() {
    let server = Server::start("echo", []);
    let bytes: Vec<u8> = (0x21..=0x7e).chain(0x80..=0xff).collect();
    let mut client = server.connect();
    client.send([b"GET / HTTP/1.1\r\nHost: test\r\nX-All: ".as_slice(), &bytes, b"\r\n\r\n"].concat());
    let wanted: String = bytes.iter().map(|&byte| byte as char).collect();
    assert_eq!(client.read().json()["HTTP_X_ALL"], wanted.as_str());
    server.finish();
}

#[test]
fn the_environment_of_the_process_stays_out_of_the_environ() {
    let server = Plan::app("echo").env("SOME_SECRET", "hidden").start();
    assert!(server.get("/").json().get("SOME_SECRET").is_none());
    server.finish();
}

#[test]
fn several_workers_say_so() {
    let server = Server::start("echo", ["--workers", "2"]);
    assert_eq!(server.get("/").json()["wsgi.multiprocess"], Json::Bool(true));
    server.finish();
}

#[test]
fn every_form_of_app_is_served() {
    let forms = [
        (r#"echo:factory("x", times=3)"#, "xxx"),
        (r#"echo:factory("y")"#, "y"),
        ("echo:instance", "instance"),
        ("echo:bound_method", "instance"),
        ("echo:Iterated", "class"),
    ];
    for (app, wanted) in forms {
        let server = Server::start(app, []);
        assert_eq!(server.get("/").json(), *wanted, "{app}");
        server.finish();
    }
    let server = Server::start("responses:partial", []);
    assert_eq!(server.get("/").body, b"ok");
    server.finish();
}

#[test]
fn the_interpreter_is_the_virtualenvs_and_the_app_runs_in_its_main_thread() {
    let server = Server::start("process", []);
    let python = server.get("/python").json();
    let venv = fs::canonicalize(crate::util::venv()).expect("the virtualenv is there");
    assert_eq!(python["prefix"].text(), venv.to_str().expect("a plain path"));
    assert!(python["flask"].text().starts_with(venv.to_str().expect("a plain path")));
    assert_eq!(python["main_thread"], Json::Bool(true));
    let apps = fs::canonicalize(crate::util::apps()).expect("the apps are there");
    assert_eq!(fs::canonicalize(python["cwd"].text()).expect("a folder"), apps);
    assert_eq!(fs::canonicalize(python["path"].texts()[0]).expect("a folder"), apps);
    assert_eq!(python["server_software"], *SERVER_SOFTWARE);
    assert_eq!(server.get("/own-handler").json(), *"set");
    server.finish();
}

#[test]
fn background_threads_run_between_requests() {
    let server = Server::start("process", []);
    assert_eq!(server.get("/thread").json().number(), 0.0);
    crate::util::wait_until("the thread to count", || server.get("/thread").json().number() > 3.0);
    server.finish();
}

#[test]
fn the_apps_own_children_are_the_apps_to_reap() {
    let server = Server::start("process", []);
    assert_eq!(server.get("/children").json(), Json::parse("[7, 7, 7]"));
    server.finish();
}

// Each of gunicorn's switches, and one of ours: what they let through, and what the app then sees.
#[test]
fn what_is_refused_passes_where_it_is_permitted() {
    let switches = [
        ("--permit-obsolete-folding", "GET / HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n\r\n", "HTTP_X", "a b"),
        ("--strip-header-spaces", "GET / HTTP/1.1\r\nHost: a\r\nX : a\r\n\r\n", "HTTP_X", "a"),
        ("--permit-unconventional-http-method", "get / HTTP/1.1\r\nHost: a\r\n\r\n", "REQUEST_METHOD", "get"),
        ("--permit-unconventional-http-version", "GET / HTTP/3.0\r\nHost: a\r\n\r\n", "SERVER_PROTOCOL", "HTTP/3.0"),
        ("--permit-missing-host", "GET / HTTP/1.1\r\n\r\n", "PATH_INFO", "/"),
    ];
    let mut strict = Server::start("echo", []);
    for (switch, request, key, value) in switches {
        let mut client = strict.connect();
        client.send(request);
        let refusal = client.read();
        assert_eq!((refusal.status, refusal.says_close()), (400, true), "without {switch}");
        let server = Server::start("echo", [switch]);
        let mut client = server.connect();
        client.send(request);
        assert_eq!(client.read().json()[key], value, "{switch}");
        server.finish();
    }
    strict.allow("Invalid request");
    strict.finish();
    // This one works on what another has let through.
    let server = Server::start("echo", ["--permit-unconventional-http-method", "--casefold-http-method"]);
    assert_eq!(server.connect().request("Get", "/", &[], b"").json()["REQUEST_METHOD"], "GET");
    server.finish();
}

#[test]
fn a_trusted_proxy_sends_the_headers_that_are_set_for_it() {
    let config = "secure_scheme_headers = {'X-SCHEME': 'tls'}\nforwarder_headers = 'X_USER'\n";
    for (allowed, scheme, user) in [("127.0.0.1", "https", Some("bob")), ("10.0.0.0/8", "http", None)] {
        let plan = Plan::app("echo").file("proxy.py", config);
        let path = plan.path("proxy.py").display().to_string();
        let server = plan.args(["-c", &path, "--forwarded-allow-ips", allowed]).start();
        let report = server.connect().request("GET", "/", &["X-Scheme: tls", "X_User: bob"], b"").json();
        assert_eq!(report["wsgi.url_scheme"], scheme, "{allowed}");
        assert_eq!(report.get("HTTP_X_USER").map(Json::text), user, "{allowed}");
        // The defaults no longer apply.
        let report = server.connect().request("GET", "/", &["X-Forwarded-Proto: https"], b"").json();
        assert_eq!(report["wsgi.url_scheme"], "http");
        server.finish();
    }
}

/// Objects of the environ serve one request after another, as long as no app keeps one: new ones
/// would cost each request twice its time.
#[test]
fn the_objects_of_an_environ_serve_again_unless_the_app_keeps_one() {
    let app = "kept = []\n\
               def application(environ, start_response):\n\
               \x20   if environ['PATH_INFO'] == '/keep':\n        kept.append(environ['wsgi.input'])\n\
               \x20   start_response('200 OK', [])\n\
               \x20   return [str(id(environ['wsgi.input'])).encode()]\n";
    for config in ["", "def post_request(worker, req): pass\n"] {
        let server = Plan::app("app").in_own_folder().file("app.py", app).config(config).start();
        let mut client = server.connect();
        let first = client.get("/").text();
        assert!((0..5).all(|_| client.get("/").text() == first), "with {config:?}");
        assert_eq!(client.get("/keep").text(), first);
        assert!((0..5).all(|_| client.get("/").text() != first), "the kept one is the app's");
        server.finish();
    }
}
