//! The `gunicorn` package that the server carries: its own tests, and how it is found inside the server.

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
fn what_the_package_does_not_have_is_told_by_name() {
    let app = "import gunicorn.workers.ggevent\n";
    let mut server = Plan::app("app").in_own_folder().file("app.py", app).launch();
    assert_eq!(server.wait_for_exit().code(), Some(3));
    server.wait_for_log("No module named 'gunicorn.workers.ggevent': monoceros brings a gunicorn package of its own");
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
        ("", Some("monoceros")),
    ] {
        let plan = Plan::app("echo").file("conf.py", config);
        let path = plan.path("conf.py").display().to_string();
        let server = plan.args(["--config", &path]).start();
        assert_eq!(server.get("/").header("Server"), expected, "{config}");
        server.finish();
    }
}
