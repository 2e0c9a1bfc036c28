//! Applications whose standard library gevent or eventlet has patched, under several threads: the
//! server's threads are the system's all the same.

use std::thread;
use std::time::{Duration, Instant};

use crate::util::server::{Plan, Server};
use crate::util::variable_for_classes;

const PATCHES: [&str; 2] =
    ["from gevent import monkey\nmonkey.patch_all()\n", "import eventlet\neventlet.monkey_patch()\n"];

/// Sleeps for a second in each request. The module is imported after whoever has patched.
const SLEEPS: &str = "import threading, time\n\
                      def application(environ, start_response):\n\
                      \x20   time.sleep(1)\n\
                      \x20   start_response('200 OK', [('Content-Type', 'text/plain')])\n\
                      \x20   return [threading.current_thread().name.encode()]\n";

#[test]
fn three_threads_sleep_side_by_side_whatever_the_config_file_has_patched() {
    let servers = PATCHES.map(|patch| {
        let plan = Plan::app("app").in_own_folder().file("app.py", SLEEPS).file("conf.py", patch);
        let path = plan.path("conf.py").display().to_string();
        plan.args(["--threads", "3", "--config", &path])
    });
    expect_three_at_once(servers);
}

#[test]
fn three_threads_sleep_side_by_side_whatever_the_app_has_patched() {
    let servers = PATCHES.map(|patch| {
        Plan::app("app").in_own_folder().file("app.py", &format!("{patch}{SLEEPS}")).args(["--threads", "3"])
    });
    expect_three_at_once(servers);
}

/// Three requests that sleep for a second take less than three, and the server stops in good
/// order.
#[track_caller]
fn expect_three_at_once(plans: [Plan; 2]) {
    for plan in plans {
        let (name, value) = variable_for_classes();
        let mut server = plan.env(name, value).start();
        // gevent and eventlet tell what they think of the order of imports.
        server.allow("Warning");
        server.wait_for_workers(1);
        let start = Instant::now();
        thread::scope(|scope| {
            let requests: Vec<_> = (0..3).map(|_| scope.spawn(|| status_of(&server))).collect();
            for request in requests {
                assert_eq!(request.join().expect("an answer"), 200);
            }
        });
        assert!(start.elapsed() < Duration::from_millis(2800), "{:?}", start.elapsed());
        server.finish();
    }
}

fn status_of(server: &Server) -> u16 {
    server.get("/").status
}
