//! The command line, as argparse would read it: texts, streams, exit codes.

use std::net::TcpListener;
use std::os::fd::AsRawFd;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use crate::util::client::{Address, Client};
use crate::util::server::{Finished, Plan};

#[test]
fn help_and_version_answer_and_end() {
    let expected = concat!("monoceros (version ", env!("CARGO_PKG_VERSION"), ")\n");
    for flag in ["--version", "-v"] {
        let finished = run(&[flag]);
        assert_eq!((finished.code, finished.stdout.as_str()), (Some(0), expected), "{flag}");
    }
    for flag in ["--help", "-h"] {
        let finished = run(&[flag]);
        assert_eq!(finished.code, Some(0));
        assert!(
            finished.stdout.to_lowercase().starts_with("usage: monoceros [options] [app_module]"),
            "{}",
            finished.stdout
        );
        for option in ["-b ", "--bind", "--workers", "--limit-request-field_size", "--no-sendfile", "--log-file"] {
            assert!(finished.stdout.contains(option), "{option} is not in --help");
        }
    }
}

#[test]
fn usage_errors_go_to_stderr_and_end_with_2() {
    // arguments, what is said
    let table: &[(&[&str], &str)] = &[
        (&["--no-such-option", "echo"], "monoceros: error: unrecognized arguments: --no-such-option"),
        (&["--workers"], "expected one argument"),
        (&["--log", "x", "echo"], "ambiguous option: --log could match"),
        (&["--daemon=yes", "echo"], "ignored explicit argument 'yes'"),
    ];
    for (args, said) in table {
        let finished = run(args);
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        assert!(finished.stderr.contains(said), "{args:?}: {}", finished.stderr);
        assert!(finished.stderr.to_lowercase().starts_with("usage: monoceros"), "{args:?}: {}", finished.stderr);
        assert_eq!(finished.stdout, "", "{args:?}");
    }
}

#[test]
fn every_way_to_write_an_option_is_understood() {
    let ways: &[&[&str]] = &[
        &["-w", "2", "echo"],
        &["-w2", "echo"],
        &["--workers=2", "echo"],
        &["--workers", "2", "echo"],
        &["echo", "-w2"],
        &["-w2", "--", "echo"],
        // An unambiguous prefix is enough.
        &["--workers", "2", "--backl", "5", "echo"],
    ];
    for way in ways {
        let plan = Plan::bare().args(["--print-config"]);
        let finished = way.iter().fold(plan, |plan, arg| plan.args([arg])).run();
        assert_eq!(finished.code, Some(0), "{way:?}: {finished:?}");
        assert_eq!(setting(&finished, "workers").as_deref(), Some("2"), "{way:?}: {finished:?}");
    }
}

#[test]
fn without_an_app_there_is_nothing_to_serve() {
    let finished = run(&[]);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("No application module specified."), "{}", finished.stderr);
}

#[test]
fn check_config_loads_the_app_and_binds_nothing() {
    let good = Plan::app("echo").bound_elsewhere().args(["--bind", "192.0.2.1:1", "--check-config"]).run();
    assert_eq!((good.code, good.stdout.as_str(), good.stderr.as_str()), (Some(0), "", ""));
    let talks = Plan::app("app")
        .in_own_folder()
        .file("app.py", "print('loading')\nfrom wsgiref.simple_server import demo_app as application");
    assert_eq!(talks.args(["--check-config"]).run().stdout, "loading\n");
    let bad = Plan::app("broken.raises").args(["--check-config"]).run();
    assert_eq!(bad.code, Some(1));
    assert!(bad.stderr.contains("Error while loading the application:"), "{}", bad.stderr);
    assert!(bad.stderr.contains("this module cannot be imported"), "{}", bad.stderr);
}

#[test]
fn print_config_shows_every_setting_sorted() {
    let finished = Plan::app("echo").args(["--print-config", "--workers", "3", "--timeout", "7"]).run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    let names: Vec<&str> = finished.stdout.lines().filter_map(|line| line.split_whitespace().next()).collect();
    assert!(names.len() > 50 && names.is_sorted(), "{names:?}");
    assert_eq!(setting(&finished, "workers").as_deref(), Some("3"));
    assert_eq!(setting(&finished, "timeout").as_deref(), Some("7"));
    assert_eq!(setting(&finished, "backlog").as_deref(), Some("2048"));
}

#[test]
fn the_first_minute_of_the_readme_works() {
    let server = Plan::app("wsgi").chdir(crate::util::root().join("examples/hello")).start();
    assert_eq!(server.get("/").text(), "Hello from monoceros\n");
    server.finish();
    let server =
        Plan::app(r#"app:create_app(greeting="Hello")"#).chdir(crate::util::root().join("examples/flask_app")).start();
    assert_eq!(server.get("/").text(), "Hello from Flask\n");
    assert_eq!(server.get("/count?to=2").text(), "0\n1\n");
    server.finish();
}

#[test]
fn several_binds_are_all_served() {
    let plan = Plan::app("echo");
    let socket = format!("unix:{}", plan.path("second").display());
    let server = plan.args(["--bind", &socket]).start();
    assert_eq!(server.get("/").status, 200);
    let second = Address::Unix(server.path("second"));
    assert_eq!(Client::connect(&second).get("/").status, 200);
    assert!(server.log().contains(&format!(",{socket} (")), "{}", server.log());
    server.finish();
}

#[test]
fn an_inherited_descriptor_is_served() {
    // The harness's own listener, passed by number. Servers of other tests inherit it too, without
    // harm.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("bound").port();
    fcntl(&listener, FcntlArg::F_SETFD(FdFlag::empty())).expect("our own descriptor");
    let bind = format!("fd://{}", listener.as_raw_fd());
    let server = Plan::app("echo").bound_elsewhere().args(["--bind", &bind]).start();
    assert_eq!(Client::connect(&Address::Tcp(port)).get("/").status, 200);
    server.finish();
}

fn run(args: &[&str]) -> Finished {
    args.iter().fold(Plan::bare().bound_elsewhere(), |plan, arg| plan.args([arg])).run()
}

/// The value in a `name = value` line.
fn setting(finished: &Finished, name: &str) -> Option<String> {
    let lines = finished.stdout.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_string()).next()
}
