//! The `gunicorn` package in the server: its own tests, and how it is found inside the server.

use std::process::Command;

use crate::util::server::Plan;
use crate::util::{root, venv};

#[test]
fn the_package_passes_its_own_tests() {
    let script = root().join("tests/facade/test_facade.py");
    let python = venv().join("bin/python");
    let output = Command::new(python).arg(script).env("PYTHONDONTWRITEBYTECODE", "1").output().expect("a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_carried_package_is_found_before_an_installed_one() {
    let app = "import gunicorn, json, sys\n\
               def application(environ, start_response):\n\
               \x20   start_response('200 OK', [('Content-Type', 'application/json')])\n\
               \x20   return [json.dumps([gunicorn.__version__, gunicorn.SERVER, 'logging' in sys.modules]).encode()]\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app);
    let installed = plan.path("site").display().to_string();
    std::fs::create_dir_all(plan.path("site/gunicorn")).expect("a folder");
    std::fs::write(plan.path("site/gunicorn/__init__.py"), "raise SystemExit('the wrong one')\n").expect("a file");
    let server = plan.env("PYTHONPATH", installed).start();
    assert_eq!(server.get("/").text(), "[\"27.0.1\", \"monoceros\", false]");
    server.finish();
}

#[test]
fn missing_modules_of_the_package_are_named() {
    let app = "import gunicorn.workers.gasgi\n";
    let mut server = Plan::app("app").in_own_folder().file("app.py", app).launch();
    assert_eq!(server.wait_for_exit().code(), Some(3));
    server.wait_for_log("No module named 'gunicorn.workers.gasgi': monoceros brings a gunicorn package of its own");
    server.expect_gone();
}

#[test]
fn the_config_file_may_rename_the_server() {
    for (config, expected) in [
        ("import gunicorn\ngunicorn.SERVER = 'shop'\n", Some("shop")),
        (
            "import gunicorn.http.wsgi\n\
             old = gunicorn.http.wsgi.Response.default_headers\n\
             def mine(self): return [line for line in old(self) if not line.startswith('Server:')]\n\
             gunicorn.http.wsgi.Response.default_headers = mine\n",
            None,
        ),
        ("import gunicorn\ngunicorn.SERVER_SOFTWARE = 'shop/2'\n", Some("monoceros")),
        ("import gunicorn.http.wsgi as wsgi\nwsgi.SERVER = 'shop'\nwsgi.SERVER_SOFTWARE = 'shop/2'\n", Some("shop")),
        ("", Some("monoceros")),
    ] {
        let server = Plan::app("echo").config(config).start();
        let answer = server.get("/");
        assert_eq!(answer.header("Server"), expected, "{config}");
        let software =
            if config.contains("shop/2") { "shop/2" } else { concat!("monoceros/", env!("CARGO_PKG_VERSION")) };
        assert_eq!(answer.json()["SERVER_SOFTWARE"], *software, "{config}");
        server.finish();
    }
}

#[test]
fn logging_that_was_imported_before_the_server_gets_its_loggers_all_the_same() {
    let app = "import logging\n\
               def application(environ, start_response):\n\
               \x20   logging.getLogger('gunicorn.error').info('said by the app')\n\
               \x20   start_response('200 OK', [])\n    return [b'ok']\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app).file("sitecustomize.py", "import logging\n");
    let folder = plan.path("").display().to_string();
    let server = plan.env("PYTHONPATH", folder).start();
    assert_eq!(server.get("/").text(), "ok");
    server.wait_for_log("[INFO] said by the app");
    server.finish();
}

#[test]
fn a_gunicorn_that_was_imported_before_the_server_makes_room() {
    let config = "import gunicorn\n\
                  from gunicorn.glogging import Logger\n\
                  def post_fork(server, worker):\n\
                  \x20   worker.log.info('%s %s', gunicorn.SERVER, isinstance(worker.log, Logger))\n";
    let plan = Plan::app("echo").file("conf.py", config).file("sitecustomize.py", "import gunicorn.glogging\n");
    for file in ["__init__", "glogging"] {
        std::fs::create_dir_all(plan.path("gunicorn")).expect("a folder");
        std::fs::write(plan.path(&format!("gunicorn/{file}.py")), "SERVER = 'another'\n").expect("a file");
    }
    let (folder, path) = (plan.path("").display().to_string(), plan.path("conf.py").display().to_string());
    let server = plan.env("PYTHONPATH", folder).args(["--config", &path]).start();
    assert_eq!(server.get("/").status, 200);
    server.wait_for_log("[INFO] monoceros True");
    server.finish();
}

/// Coverage and debuggers look for the files of code, unless the name says that there is none.
#[test]
fn carried_code_is_named_as_no_file() {
    let app = "import json, sys\nfrom gunicorn import util\n\
               def application(environ, start_response):\n\
               \x20   start_response('200 OK', [])\n\
               \x20   finder = type(sys.meta_path[0]).find_spec\n\
               \x20   names = {code.__code__.co_filename for code in (finder, util.parse_address)}\n\
               \x20   frame = sys._getframe()\n\
               \x20   while frame := frame.f_back:\n        names.add(frame.f_code.co_filename)\n\
               \x20   return [json.dumps(sorted(names)).encode()]\n";
    let server = Plan::app("app:application").in_own_folder().file("app.py", app).start();
    let names = server.get("/").text();
    assert!(names.contains("<monoceros>/finder.py") && names.contains("<monoceros>/gunicorn/util.py"), "{names}");
    assert!(!names.contains("\"monoceros/"), "{names}");
    server.finish();
}
