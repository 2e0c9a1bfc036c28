//! Nothing that a client or an application sends adds a line, ends a field or controls a terminal,
//! in any form of log.

use crate::util::json::Json;
use crate::util::server::{Plan, Server};
use crate::util::wait_until;

/// Says on `wsgi.errors` and in an exception what the query says.
const APP: &str = "import urllib.parse\n\
                   def application(environ, start_response):\n\
                   \x20   text = urllib.parse.unquote(environ['QUERY_STRING'])\n\
                   \x20   if text:\n\
                   \x20       environ['wsgi.errors'].write('said ' + text + '\\n')\n\
                   \x20       environ['wsgi.errors'].write(text + '\\n')\n\
                   \x20       raise ValueError('raised ' + text)\n\
                   \x20   start_response('200 OK', [])\n    return [b'ok']\n";

/// A user named `a\n"b\<C1>[2J<U+2028>`, an agent that ends the quotes with a backslash of its own,
/// and a path that erases the screen.
const REQUEST: &[u8] = b"GET /x%9b2J%0d%0a HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YQoiYlzCm1sySuKAqDpw\r\n\
                         User-Agent: \\\" 200 \"\x9b\r\nConnection: close\r\n\r\n";

/// The same characters, and the head of a record.
const QUERY: &str = "/?%1b[2J%c2%9b2J%e2%80%a8%0a[2026-11-20%2007:37:16%20%2b0000]%20[1]%20[INFO]%20forged";

fn plan(config: &str) -> Plan {
    Plan::app("app").in_own_folder().file("app.py", APP).config(config)
}

/// Characters that control a terminal or end a line for some reader.
#[track_caller]
fn expect_plain(text: &str) {
    let steers =
        |character: char| character != '\n' && (character.is_control() || matches!(character, '\u{2028}' | '\u{2029}'));
    assert!(!text.contains(steers), "{text:?}");
}

#[track_caller]
fn expect_access_line(server: &Server, expected: &str) {
    let mut client = server.connect();
    client.send(REQUEST);
    assert_eq!(client.read().status, 200);
    assert_eq!(server.get("/second").status, 200);
    wait_until("the second line", || server.stdout().contains("/second"));
    let stdout = server.stdout();
    expect_plain(&stdout);
    assert_eq!(stdout.lines().count(), 2, "{stdout:?}");
    assert_eq!(stdout.lines().next(), Some(expected));
}

#[test]
fn a_clients_fields_stay_fields_in_access_lines() {
    let format = "accesslog = '-'\naccess_log_format = '%(u)s \"%(r)s\" \"%(U)s\" \"%(a)s\" \"%(a).2s\"'\n";
    let python = "from gunicorn.glogging import Logger\nclass logger_class(Logger): pass\n";
    let line = r#"a\x0a\"b\\\x9b[2J\u2028 "GET /x%9b2J%0d%0a HTTP/1.1" "/x\x9b2J\x0d\x0a" "\\\" 200 \"\x9b" "\\""#;
    for config in [format.to_owned(), format!("{format}{python}")] {
        let server = plan(&config).start();
        expect_access_line(&server, line);
        server.finish();
    }
}

#[test]
fn a_clients_fields_stay_fields_in_json() {
    let mut server = plan("accesslog = '-'\nlog_format = 'json'\n").launch();
    wait_until_listening(&mut server);
    let mut client = server.connect();
    client.send(REQUEST);
    assert_eq!(client.read().status, 200);
    wait_until("the line", || server.stdout().ends_with('\n'));
    let stdout = server.stdout();
    expect_plain(&stdout);
    assert_eq!(stdout.lines().count(), 1, "{stdout:?}");
    let line = Json::parse(&stdout);
    assert_eq!(line.get("user").expect("a user").text(), "a\n\"b\\\u{9b}[2J\u{2028}");
    assert_eq!(line.get("user_agent").expect("an agent").text(), "\\\" 200 \"\u{9b}");
    assert_eq!(line.get("target").expect("a target").text(), "/x%9b2J%0d%0a");
    server.finish();
}

#[test]
fn client_text_in_app_messages_makes_no_record() {
    for python in ["", "from gunicorn.glogging import Logger\nclass logger_class(Logger): pass\n"] {
        let mut server = plan(python).start();
        assert_eq!(server.get(QUERY).status, 500);
        server.wait_for_log("ValueError: raised");
        server.wait_for_log("said \\x1b[2J\\x9b2J\\u2028\n [2026");
        let log = server.log();
        // The formatter of Python's logging decides how a traceback looks.
        let native = if python.is_empty() { log.as_str() } else { log.split("ValueError").next().expect("the start") };
        expect_plain(native);
        assert!(!native.lines().any(|line| line.starts_with("[2026-11-20")), "{log}");
        server.allow("");
        server.finish();
    }
}

#[test]
fn in_json_wsgi_errors_makes_records_and_no_other_lines() {
    let mut server = plan("log_format = 'json'\n").launch();
    wait_until_listening(&mut server);
    assert_eq!(server.get(QUERY).status, 500);
    wait_until("the error", || server.log().contains("ValueError: raised"));
    let log = server.log();
    expect_plain(&log);
    let said = log.lines().map(|line| Json::parse(line).get("message").expect("a message").text().to_owned());
    let said: Vec<String> = said.collect();
    for expected in ["said \u{1b}[2J\u{9b}2J\u{2028}", "[2026-11-20 07:37:16 +0000] [1] [INFO] forged"] {
        assert!(said.iter().any(|message| message == expected), "{said:?}");
    }
    server.allow("");
    server.finish();
}

/// In JSON the line is not where the harness looks for it.
fn wait_until_listening(server: &mut Server) {
    wait_until("the start", || server.log().contains("Listening at") && server.log().contains("Booting worker"));
    let log = server.log();
    let port = log.split("127.0.0.1:").nth(1).and_then(|rest| rest.split(' ').next()).expect("a port");
    server.address = crate::util::client::Address::Tcp(port.parse().expect("a number"));
}
