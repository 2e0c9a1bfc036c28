//! What is served where no module is named, and at which address where none is: scripts by their
//! path, `--autodetect`, and the variables of hosting platforms.

use std::fs;
use std::process::Command;

use nix::sys::signal::Signal::SIGHUP;

use crate::util::client::{Address, Client};
use crate::util::nginx::free_port;
use crate::util::server::{Plan, listening_at};
use crate::util::{python, root, wait_until};

/// A script as mod_wsgi loads them: it imports what lies beside it and finds its own folder.
const SCRIPT: &str = "import os, helper\n\
    def application(environ, start_response):\n\
    \x20   start_response('200 OK', [('Content-Type', 'text/plain')])\n\
    \x20   return [f'{helper.TEXT} {os.path.basename(__file__)} {__name__}'.encode()]\n\
    def make(text):\n\
    \x20   return lambda environ, start_response: start_response('200 OK', []) and None or [text.encode()]\n";

/// Names and what they hold.
type Texts<'a> = &'a [(&'a str, &'a str)];

fn in_folder(files: Texts<'_>) -> Plan {
    let plan = Plan::bare().in_own_folder();
    for (name, content) in files {
        let path = plan.path(name);
        fs::create_dir_all(path.parent().expect("a file in a folder")).expect("the test's folder is writable");
        fs::write(path, content).expect("the test's folder is writable");
    }
    plan
}

#[test]
fn a_script_is_loaded_by_its_path_whatever_its_suffix() {
    for name in ["wsgi/application", "wsgi/site.wsgi", "wsgi/site.py"] {
        let server =
            in_folder(&[(name, SCRIPT), ("wsgi/helper.py", "TEXT = 'beside'")]).args(["--wsgi-file", name]).start();
        let file = name.strip_prefix("wsgi/").expect("it begins so");
        assert_eq!(server.get("/").text(), format!("beside {file} _wsgi_script"));
        server.finish_keeping(|| ());
    }
    let files = [("run", SCRIPT), ("helper.py", "TEXT = ''")];
    let server = in_folder(&files).args(["--wsgi-file", "run:make('made')", "--preload"]).start();
    assert_eq!(server.get("/").text(), "made");
    server.finish();
}

#[test]
fn a_script_leaves_no_bytecode_and_a_reload_reads_it_again() {
    let files = [("run", SCRIPT), ("helper.py", "TEXT = 'one'")];
    let server = in_folder(&files).args(["--wsgi-file", "run"]).start();
    assert_eq!(server.get("/").text(), "one run _wsgi_script");
    assert!(!server.path("__pycache__/run.cpython-311.pyc").exists());
    server.write("run", &SCRIPT.replace("{helper.TEXT}", "two"));
    server.signal(SIGHUP);
    wait_until("the new script", || server.get("/").text() == "two run _wsgi_script");
    server.finish();
}

#[test]
fn a_changed_script_replaces_the_workers_under_reload() {
    let files = [("run", SCRIPT), ("helper.py", "TEXT = 'one'")];
    let mut server = in_folder(&files).args(["--wsgi-file", "run", "--reload"]).start();
    assert_eq!(server.get("/").text(), "one run _wsgi_script");
    server.write("run", &SCRIPT.replace("{helper.TEXT}", "two"));
    wait_until("the new script", || server.get("/").text() == "two run _wsgi_script");
    server.allow("Reloader is on");
    server.finish();
}

#[test]
fn a_script_that_cannot_be_served_is_named() {
    let checked = in_folder(&[]).args(["--wsgi-file", "gone", "--check-config"]).run();
    assert_eq!(checked.code, Some(1));
    assert!(checked.stderr.contains("Failed to find the WSGI script '"), "{}", checked.stderr);
    let both = in_folder(&[("run", SCRIPT)]).args(["--wsgi-file", "run", "echo"]).run();
    assert_eq!(both.code, Some(1));
    assert!(both.stderr.contains("APP_MODULE names an application as well"), "{}", both.stderr);
    let broken = in_folder(&[("run", "import nowhere_to_be_found")]).args(["--wsgi-file", "run"]).run();
    assert_eq!(broken.code, Some(3));
    assert!(broken.stderr.contains("/run\", line 1"), "{}", broken.stderr);
}

#[test]
fn autodetect_serves_what_it_finds_and_says_so() {
    let hello = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'found']\n";
    let cases: [(Texts<'_>, &str); 4] = [
        (&[("wsgi.py", hello)], "wsgi.py, and does as `monoceros wsgi`"),
        (&[("ROOT/application", hello)], "ROOT/application, and does as `monoceros --wsgi-file ROOT/application`"),
        (&[("app.py", &hello.replace("application", "app"))], "app.py, and does as `monoceros app:app`"),
        (
            &[("web/manage.py", "import django"), ("web/shop/__init__.py", ""), ("web/shop/wsgi.py", hello)],
            "Django's manage.py, and does as `monoceros --chdir web shop.wsgi`",
        ),
    ];
    for (files, said) in cases {
        let server = in_folder(files).args(["--autodetect"]).start();
        assert_eq!(server.get("/").text(), "found", "{said}");
        assert!(server.log().contains(&format!("[INFO] Autodetect has found {said}\n")), "{}", server.log());
        server.finish();
    }
    let nothing = in_folder(&[("main.py", hello)]).args(["--autodetect"]).run();
    assert_eq!(nothing.code, Some(1));
    assert!(
        nothing.stderr.trim().starts_with("Error: autodetect: nothing to serve was found in "),
        "{}",
        nothing.stderr
    );
    let plain = in_folder(&[("wsgi.py", hello)]).run();
    assert_eq!((plain.code, plain.stderr.trim()), (Some(1), "Error: No application module specified."));
}

/// Platforms ask `scripts/stage` before the server is there.
#[test]
fn autodetect_and_stage_find_the_same() {
    let cases: [(Texts<'_>, Texts<'_>); 7] = [
        (&[("wsgi.py", "application = print"), ("app.py", "app = print")], &[]),
        (&[("wsgi/application", "application = print")], &[]),
        (&[("app.py", "def application(a, b): pass")], &[]),
        (&[("site/manage.py", "django"), ("site/shop/wsgi.py", "application = print")], &[]),
        (&[("site/manage.py", "django"), ("ROOT/application", "application = print")], &[]),
        (&[("setup.py", ""), ("src/shop.py", ""), ("wsgi.py", "application = print")], &[]),
        (&[("a b/c", "application = print")], &[("OPENSHIFT_PYTHON_WSGI_APPLICATION", "a b/c")]),
    ];
    for (files, variables) in cases {
        let plan = in_folder(files).args(["--autodetect", "--check-config"]);
        let told = Command::new(python())
            .arg(root().join("scripts/stage"))
            .arg("find")
            .arg(plan.path(""))
            .envs(variables.iter().copied())
            .output()
            .expect("a Python");
        let told = String::from_utf8_lossy(&told.stdout).into_owned();
        let arguments = told.lines().find_map(|line| line.strip_prefix("ARGUMENTS=")).expect("it says so");
        let arguments = shlex::split(arguments).expect("one word").concat();
        let checked = variables.iter().fold(plan, |plan, (name, value)| plan.env(name, value)).run();
        assert_eq!(checked.code, Some(0), "{}", checked.stderr);
        assert!(
            checked.stderr.contains(&format!("does as `monoceros {arguments}`\n")),
            "{arguments}: {}",
            checked.stderr
        );
    }
}

#[test]
fn a_platforms_variables_name_the_address_where_nobody_else_does() {
    let port = free_port().to_string();
    let gear = |plan: Plan| plan.env("OPENSHIFT_PYTHON_IP", "127.0.0.2").env("OPENSHIFT_PYTHON_PORT", &port);
    let address_of = |plan: Plan| {
        let server = plan.bound_elsewhere().start();
        let line = server.log().lines().find(|line| line.contains("Listening at")).unwrap_or_default().to_owned();
        assert!(listening_at(&server.log()).is_some());
        server.finish();
        line.split("http://").nth(1).unwrap_or_default().split(' ').next().unwrap_or_default().to_owned()
    };
    assert_eq!(address_of(Plan::app("echo").env("VCAP_APP_PORT", &port)), format!("0.0.0.0:{port}"));
    assert_eq!(address_of(gear(Plan::app("echo"))), format!("127.0.0.2:{port}"));
    assert_eq!(address_of(gear(Plan::app("echo")).env("PORT", &port)), format!("0.0.0.0:{port}"));
    let bound = gear(Plan::app("echo")).args(["--bind", &format!("127.0.0.1:{port}")]);
    assert_eq!(address_of(bound), format!("127.0.0.1:{port}"));
    // Off, gunicorn's own address counts, which another program may have.
    let off = gear(Plan::app("echo")).args(["--no-platform-bind", "--print-config"]).bound_elsewhere().run();
    assert!(off.stdout.contains("['127.0.0.1:8000']"), "{}", off.stdout);
}

#[test]
fn a_gear_needs_no_configuration() {
    let hello = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'gear']\n";
    let port = free_port().to_string();
    let plan = in_folder(&[("wsgi/application", hello)]).args(["--autodetect", "--workers", "auto"]).bound_elsewhere();
    let plan = plan.env("OPENSHIFT_PYTHON_IP", "127.0.0.1").env("OPENSHIFT_PYTHON_PORT", &port);
    let server = plan.env("OPENSHIFT_GEAR_MEMORY_MB", "512").start();
    server.wait_for_workers(2);
    let mut client = Client::connect(&Address::Tcp(port.parse().expect("a port")));
    assert_eq!(client.get("/").text(), "gear");
    server.finish();
}
