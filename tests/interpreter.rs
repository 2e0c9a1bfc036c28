//! The interpreter as programs find it: the module `__main__`, the stream `wsgi.errors`, and the
//! time zone.

use crate::util::server::{Plan, Server};
use crate::util::{self, wait_until};

/// Evaluates the query string and answers with the repr of what it gives, or the exception's type.
const APP: &str = r#"
import faulthandler
import io
import multiprocessing
import os
import sys
import time
from urllib.parse import unquote


def twice(number):
    return 2 * number


def spawned(method):
    with multiprocessing.get_context(method).Pool(1) as pool:
        return pool.map_async(twice, [1, 2]).get(60)


def set_zone(name):
    os.environ["TZ"] = name
    time.tzset()
    return time.strftime("%z")


def application(environ, start_response):
    main, errors = sys.modules["__main__"], environ["wsgi.errors"]
    scope = {**globals(), "environ": environ, "main": main, "errors": errors}
    try:
        value = eval(unquote(environ["QUERY_STRING"]), scope)
        text = repr(value)
    except Exception as error:
        text = "!" + type(error).__name__
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [text.encode()]
"#;

fn plan() -> Plan {
    Plan::app("app").in_own_folder().file("app.py", APP)
}

#[track_caller]
fn ask(server: &Server, expression: &str) -> String {
    let query: String = expression.bytes().map(|byte| format!("%{byte:02x}")).collect();
    server.get(&format!("/?{query}")).text()
}

#[test]
fn wsgi_errors_answers_what_a_stream_is_asked() {
    let server = plan().start();
    for (expression, answer) in [
        ("errors.isatty()", "False"),
        ("errors.closed", "False"),
        ("errors.writable(), errors.readable(), errors.seekable()", "(True, False, False)"),
        ("errors.encoding", "'utf-8'"),
        // As under gunicorn: there is no descriptor that the server would not take away again.
        ("errors.fileno()", "!UnsupportedOperation"),
        ("issubclass(io.UnsupportedOperation, OSError)", "True"),
        // Characters, as those of any text stream.
        ("errors.write('one line\\n')", "9"),
        ("errors.write('caf\\xe9 \\u20ac\\n')", "7"),
        ("errors.write('')", "0"),
        ("errors.write('\\udc80\\n')", "2"),
        ("errors.writelines(['a', 'b\\n'])", "None"),
        ("print('printed', file=errors, flush=True)", "None"),
        ("errors.write(b'bytes')", "!TypeError"),
        // The log is not the app's to close.
        ("errors.close(), errors.closed, errors.write('after close\\n')", "(None, False, 12)"),
        ("errors.flush()", "None"),
        ("errors.name", "'<wsgi.errors>'"),
    ] {
        assert_eq!(ask(&server, expression), answer, "{expression}");
    }
    for text in ["one line\n", "caf\u{e9} \u{20ac}\n", "ab\n", "printed\n", "after close\n"] {
        server.wait_for_log(text);
    }
    server.finish();
}

#[test]
fn the_main_module_has_a_file_and_processes_can_be_spawned() {
    let server = plan().start();
    assert_eq!(ask(&server, "main.__name__"), "'__main__'");
    assert_eq!(ask(&server, "os.path.isabs(main.__file__), os.path.isfile(main.__file__)"), "(True, True)");
    let name = util::program().file_name().expect("a name").to_string_lossy().into_owned();
    assert_eq!(ask(&server, "os.path.basename(main.__file__)"), format!("{name:?}").replace('"', "'"));
    assert_eq!(ask(&server, "main.__package__"), "None");
    // What a new interpreter is told of the main module must not be the program's bytes.
    for method in ["spawn", "forkserver"] {
        assert_eq!(ask(&server, &format!("spawned({method:?})")), "[2, 4]", "{method}");
    }
    server.finish();
}

#[test]
fn a_name_without_a_path_is_looked_for_as_the_shell_does() {
    let program = util::program();
    let folder = program.parent().expect("a folder").display().to_string();
    let path = format!("{folder}:{}", std::env::var("PATH").unwrap_or_default());
    let name = program.file_name().expect("a name").to_owned();
    let server = plan().through(["/usr/bin/env"]).program(name).env("PATH", path).start();
    assert_eq!(ask(&server, "main.__file__"), format!("'{}'", program.display()));
    server.finish();
}

/// gunicorn's lines are written by Python's logging, in the local time of the process: an app that
/// sets it sets theirs.
#[test]
fn the_logs_are_in_the_time_zone_that_the_app_has_set() {
    let plan = plan().env("TZ", "UTC");
    let access = plan.path("access").display().to_string();
    let server = plan.args(["--access-logfile", &access]).start();
    let last_zone = || {
        let log = std::fs::read_to_string(&access).unwrap_or_default();
        log.lines().last().and_then(|line| Some(line.split_once(']')?.0.rsplit_once(' ')?.1.to_owned()))
    };
    for (zone, offset) in [("<+0345>-3:45", "+0345"), ("EST5", "-0500"), ("UTC", "+0000"), ("<-0930>9:30", "-0930")] {
        assert_eq!(ask(&server, &format!("set_zone({zone:?})")), format!("'{offset}'"));
        // A line's time is rendered once a second.
        wait_until("a line of the new zone", || {
            assert_eq!(ask(&server, "1"), "1");
            last_zone().as_deref() == Some(offset)
        });
    }
    // Without tzset() nothing has changed, for Python and for the log.
    assert_eq!(ask(&server, "os.environ.update(TZ='UTC'), time.strftime('%z')"), "(None, '-0930')");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(ask(&server, "1"), "1");
    wait_until("the line", || last_zone().as_deref() == Some("-0930"));
    server.finish();
}

#[test]
fn an_app_stays_in_the_folder_to_which_it_has_changed() {
    let app = "import os\nos.chdir('/')\nfrom process import application\n";
    for preload in [false, true] {
        let plan = Plan::app("app").started_in_own_folder().file("app.py", app);
        let plan = plan.env("PYTHONPATH", crate::util::apps().display().to_string());
        let server = if preload { plan.args(["--preload"]) } else { plan }.start();
        assert_eq!(server.get("/python").json()["cwd"], "/", "{preload}");
        server.finish();
    }
}
