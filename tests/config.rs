//! Settings from files, environment and command line: which takes precedence, and the messages
//! about wrong ones.

use crate::util::server::{Finished, Plan};
use crate::util::wait_until;

#[test]
fn each_layer_overrides_the_one_below() {
    let file = "workers = 2\nbacklog = 100\ntimeout = 11\nkeepalive = 3\n";
    let finished = Plan::app("echo")
        .started_in_own_folder()
        .file("gunicorn.conf.py", file)
        .env("WEB_CONCURRENCY", "9")
        .env("GUNICORN_CMD_ARGS", "--timeout 12 --keep-alive=4")
        .env("PYTHONPATH", crate::util::apps().display().to_string())
        .args(["--keep-alive", "5", "--print-config"])
        .run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for (name, value) in
        [("backlog", "100"), ("workers", "2"), ("timeout", "12"), ("keepalive", "5"), ("graceful_timeout", "30")]
    {
        assert_eq!(setting(&finished, name), value, "{name}");
    }
}

#[test]
fn defaults_come_from_the_environment() {
    let plan = Plan::app("echo").bound_elsewhere().env("WEB_CONCURRENCY", "4").env("PORT", "1234");
    let finished = plan.env("FORWARDED_ALLOW_IPS", "10.1.1.1").args(["--print-config"]).run();
    assert_eq!(setting(&finished, "workers"), "4");
    assert!(setting(&finished, "bind").contains("0.0.0.0:1234"), "{finished:?}");
    assert!(setting(&finished, "forwarded_allow_ips").contains("10.1.1.1"), "{finished:?}");
}

/// As under gunicorn, which reads these variables before it runs the file.
#[test]
fn what_a_config_file_puts_into_the_environment_changes_no_default() {
    let code = "import os\nos.environ.update(PORT='1234', WEB_CONCURRENCY='4', FORWARDED_ALLOW_IPS='10.1.1.1')\n";
    let plan = Plan::app("echo").bound_elsewhere().file("conf.py", code);
    let path = plan.path("conf.py").display().to_string();
    let finished = plan.args(["--config", &path, "--print-config"]).run();
    assert_eq!(setting(&finished, "workers"), "1", "{finished:?}");
    assert!(setting(&finished, "bind").contains("127.0.0.1:8000"), "{finished:?}");
    assert!(setting(&finished, "forwarded_allow_ips").contains("127.0.0.1"), "{finished:?}");
}

#[test]
fn every_kind_of_config_file_is_read() {
    let table = [
        ("conf.py", "import os\nworkers = 1 + 2\nraw_env = ['A=' + os.path.join('b', 'c')]\n"),
        ("conf.toml", "workers = 3\nraw_env = ['A=b/c']\n"),
        ("conf.yaml", "workers: 3\nraw_env: ['A=b/c']\n"),
        ("conf.json", "{\"workers\": 3, \"raw_env\": [\"A=b/c\"]}"),
    ];
    for (name, content) in table {
        let plan = Plan::app("process").file(name, content);
        let path = plan.path(name).display().to_string();
        for form in [path.clone(), format!("file:{path}")] {
            let plan = Plan::app("process").args(["--config", &form]);
            let server = plan.start();
            server.wait_for_workers(3);
            assert_eq!(server.get("/env?A").json(), *"b/c", "{form}");
            server.finish();
        }
        drop(plan);
    }
}

#[test]
fn a_module_can_be_the_config_file() {
    let plan = Plan::app("echo").started_in_own_folder().file("my_settings.py", "workers = 5\n");
    let here = format!("{},{}", plan.path("").display(), crate::util::apps().display());
    let finished =
        plan.env("PYTHONPATH", here.replace(',', ":")).args(["--config", "python:my_settings", "--print-config"]).run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(setting(&finished, "workers"), "5");
}

#[test]
fn a_reload_forgets_what_a_module_no_longer_sets() {
    let hook = "workers = 2\nWORD = 'HOOKED'\ndef post_fork(server, worker):\n    worker.log.info(WORD)\n";
    let plan = Plan::app("echo").file("my_settings.py", hook);
    let here = plan.path("").display().to_string();
    let mut server = plan.env("PYTHONPATH", here).args(["--config", "python:my_settings"]).start();
    let before = server.wait_for_workers(2);
    server.wait_for_log_times("HOOKED", 2);
    // The hook stays in force, with the names that it needs.
    server.write("my_settings.py", "workers = 3\n1 / 0\n");
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.wait_for_log("Reload failed");
    crate::util::server::send(before[0], nix::sys::signal::Signal::SIGTERM);
    server.wait_for_log_times("HOOKED", 3);
    server.wait_for_workers(2);
    server.write("my_settings.py", "");
    server.signal(nix::sys::signal::Signal::SIGHUP);
    wait_until(
        "the one worker of the defaults",
        || matches!(&server.workers()[..], [worker] if !before.contains(worker)),
    );
    assert_eq!(server.get("/").status, 200);
    assert_eq!(server.log().matches("HOOKED").count(), 3, "{}", server.log());
    server.allow("");
    server.finish();
}

#[test]
fn a_config_file_may_be_compiled() {
    let plan = Plan::app("echo").file("conf.py", "workers = 5\nraw_env = [f'NAME={__name__}', f'FILE={__file__}']\n");
    let [source, compiled] = ["conf.py", "conf.pyc"].map(|name| plan.path(name).display().to_string());
    let code = "import py_compile, sys; py_compile.compile(sys.argv[1], sys.argv[2], doraise=True)";
    let python = crate::util::venv().join("bin/python");
    let mut compiling = std::process::Command::new(python);
    let made = compiling.args(["-c", code, source.as_str(), compiled.as_str()]).status().expect("a Python");
    assert!(made.success());
    let finished = plan.args(["--config", &compiled, "--print-config"]).run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert_eq!(setting(&finished, "workers"), "5");
    for part in ["NAME=__config__".to_owned(), format!("FILE={compiled}")] {
        assert!(setting(&finished, "raw_env").contains(&part), "{part}: {finished:?}");
    }
}

#[test]
fn lists_may_be_any_iterable() {
    let config = "import glob\n\
                  raw_env = {'A=1'}\n\
                  raw_paste_global_conf = (f'{name}={value}' for name, value in {'b': 2, 'c': 3}.items())\n\
                  reload_extra_files = glob.iglob(__file__)\n\
                  forwarded_allow_ips = frozenset({'10.1.1.1'})\n";
    let plan = Plan::app("echo").file("conf.py", config);
    let path = plan.path("conf.py").display().to_string();
    let finished = plan.args(["--config", &path, "--print-config"]).run();
    assert_eq!(finished.code, Some(0), "{finished:?}");
    for (name, parts) in [
        ("raw_env", vec!["A=1"]),
        ("raw_paste_global_conf", vec!["b=2", "c=3"]),
        ("reload_extra_files", vec![path.as_str()]),
        ("forwarded_allow_ips", vec!["10.1.1.1"]),
    ] {
        let shown = setting(&finished, name);
        assert!(parts.iter().all(|part| shown.contains(part)), "{name}: {shown}");
    }
    for value in ["b'A=1'", "5", "(1 / 0 for _ in 'a')"] {
        let plan = Plan::app("echo").file("conf.py", &format!("raw_env = {value}\n"));
        let path = plan.path("conf.py").display().to_string();
        assert_eq!(plan.args(["--config", &path, "--print-config"]).run().code, Some(1), "{value}");
    }
}

#[test]
fn a_wrong_value_that_is_overridden_stops_nothing() {
    let (none, flag): (&[&str], &[&str]) = (&[], &["-k", "gthread"]);
    for (variable, arguments) in [("-k gthread", none), ("", flag), ("-k eventlet", flag)] {
        let mut plan = Plan::app("echo").file("conf.py", "worker_class = 'eventlet'\n");
        let path = plan.path("conf.py").display().to_string();
        for argument in arguments {
            plan = plan.args([*argument]);
        }
        let plan = plan.env("GUNICORN_CMD_ARGS", variable).args(["--config", &path, "--print-config"]);
        let finished = plan.run();
        assert_eq!(finished.code, Some(0), "{variable:?} {arguments:?}: {finished:?}");
        assert_eq!(setting(&finished, "worker_class"), "gthread");
    }
}

#[test]
fn the_default_file_is_read_where_the_program_starts() {
    let plan = Plan::app("echo").started_in_own_folder().file("gunicorn.conf.py", "workers = 6\n");
    let finished = plan.env("PYTHONPATH", crate::util::apps().display().to_string()).args(["--print-config"]).run();
    assert_eq!(setting(&finished, "workers"), "6");
}

#[test]
fn the_app_may_stand_in_the_config_file() {
    let server = Plan::bare().config("wsgi_app = 'echo:application'\n").start();
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn wrong_values_are_one_sentence_and_exit_1() {
    // file, content, words which the sentence must hold
    let table: &[(&str, &str, &[&str])] = &[
        ("conf.py", "workers = 'abc'", &["workers", "abc"]),
        ("conf.py", "workers = -1", &["workers", "-1"]),
        ("conf.toml", "timeout = 'soon'", &["timeout", "soon"]),
        ("conf.yaml", "preload_app: maybe", &["preload_app", "maybe"]),
        ("conf.json", "{\"backlog\": \"x\"}", &["backlog", "x"]),
        ("conf.py", "forwarded_allow_ips = 'nonsense'", &["forwarded_allow_ips", "nonsense"]),
    ];
    for (name, content, words) in table {
        let plan = Plan::app("echo").file(name, content);
        let path = plan.path(name).display().to_string();
        let finished = plan.args(["--config", &path]).run();
        assert_eq!(finished.code, Some(1), "{content}: {finished:?}");
        for word in *words {
            assert!(finished.stderr.contains(word), "{content}: {}", finished.stderr);
        }
        assert!(!finished.stderr.contains("panicked"), "{content}: {}", finished.stderr);
    }
}

#[test]
fn a_wrong_value_is_named_with_its_source() {
    // arguments, GUNICORN_CMD_ARGS, config file, the sentence
    let table: &[(&[&str], &str, &str, &str)] = &[
        (&["-u", "no_user"], "", "", "invalid value for 'user': No such user: 'no_user' (command line)"),
        (&[], "-g no_group", "", "invalid value for 'group': No such group: 'no_group' (GUNICORN_CMD_ARGS)"),
        (&[], "", "chdir = '/no/where'", "invalid value for 'chdir': can't chdir to '/no/where': No such"),
        (&["--chdir", "/no/where"], "", "", "(os error 2) (command line)"),
        (&["--reload-extra-file", "/no"], "", "", "'reload_extra_files': there is no file '/no' (command line)"),
        (
            &["--statsd-host", "a:b"],
            "",
            "",
            "'statsd_host': Value must be one of ('host:port', 'unix://PATH') (command",
        ),
        (&["--http-protocols", "h2"], "", "", "HTTP/2 is not supported yet ('http_protocols' is 'h2') (command line)"),
        (
            &["--dirty-app", "a:B:0"],
            "",
            "",
            "'a:B:0' is no dirty app: that is MODULE:CLASS, or MODULE:CLASS:N with N of at least 1",
        ),
        (
            &[],
            "",
            "def dirty_post_fork(worker): pass",
            "must take 2 arguments (arbiter, worker), and takes 1 (config file)",
        ),
        (&[], "-w x", "", "argument -w/--workers: invalid int value: 'x' (GUNICORN_CMD_ARGS)"),
        (
            &[],
            "",
            "on_exit = 'a.b'",
            "invalid value for 'on_exit': 'a.b' cannot be imported: No module named 'a' (config file)",
        ),
        (&[], "", "def on_exit(): pass", "must take 1 argument (server), and takes 0 (config file)"),
        (
            &["--logger-class", "no.x"],
            "",
            "",
            "invalid value for 'logger_class': class uri 'no.x' invalid or not found",
        ),
        (&["--logger-class", "no.x"], "", "", "ModuleNotFoundError: No module named 'no' (command line)"),
        (&["-k", "eventlet"], "", "", "gunicorn has dropped it in version 26; take 'gevent' and leave eventlet.monkey"),
        (&["-k", "egg:gunicorn#eventlet"], "", "", "or 'gthread' with threads (Flask-SocketIO: async_mode='threading'"),
        (&["-k", "asgi"], "", "", "take 'uvicorn.workers.UvicornWorker' (pip install uvicorn), which runs ASGI apps"),
        (&[], "", "worker_class = 5", "invalid value for 'worker_class': 5 is not a string (config file)"),
    ];
    for (arguments, environment, config, sentence) in table {
        let mut plan = Plan::app("echo").chdir(crate::util::apps()).env("GUNICORN_CMD_ARGS", environment);
        if arguments.contains(&"--chdir") || config.contains("chdir") {
            plan = Plan::app("echo").started_in_own_folder();
        }
        for argument in *arguments {
            plan = plan.args([*argument]);
        }
        plan = plan.config(config);
        let finished = plan.run();
        assert!(matches!(finished.code, Some(1 | 2)), "{sentence}: {finished:?}");
        assert!(finished.stderr.contains(sentence), "{sentence}: {}", finished.stderr);
    }
}

#[test]
fn gunicorns_own_worker_classes_may_be_given_as_objects_and_by_functions() {
    let table = [
        ("from gunicorn.workers.gthread import ThreadWorker as worker_class", "gthread"),
        ("import gunicorn.workers.sync\nworker_class = gunicorn.workers.sync.SyncWorker", "sync"),
        ("def worker_class(): return 'gthread'", "gthread"),
        ("from gunicorn.workers.gthread import ThreadWorker\nworker_class = lambda: ThreadWorker", "gthread"),
        ("worker_class = '#sync'", "sync"),
    ];
    for (config, class) in table {
        let server = Plan::app("echo").config(&format!("{config}\ndef on_starting(server): pass\n")).start();
        server.wait_for_log(&format!("Using worker: {class}"));
        assert_eq!(server.get("/").status, 200, "{config}");
        server.finish();
    }
}

#[test]
fn a_config_file_that_exits_keeps_its_status() {
    // what it says, the status, standard error
    let table = [
        ("sys.exit(9)", 9, ""),
        ("sys.exit('not here')", 1, "not here\n"),
        ("sys.exit()", 0, ""),
        ("raise SystemExit(['a'])", 1, "['a']\n"),
        ("on_starting = lambda server: sys.exit(9)", 9, "Starting"),
        ("when_ready = lambda server: sys.exit('not now')", 1, "not now\n"),
        ("nworkers_changed = lambda server, new, old: sys.exit(9)", 9, ""),
    ];
    for (line, status, said) in table {
        let config = format!("import atexit, sys\natexit.register(print, 'at exit')\nprint('configured')\n{line}\n");
        let finished = Plan::app("echo").config(&config).run();
        assert_eq!(finished.code, Some(status), "{line}: {finished:?}");
        assert!(finished.stderr.contains(said), "{line}: {finished:?}");
        assert!(!finished.stderr.contains("Traceback"), "{line}: {finished:?}");
        assert!(said.is_empty() == finished.stderr.is_empty(), "{line}: {finished:?}");
        assert_eq!(finished.stdout, "configured\nat exit\n", "{line}");
    }
}

#[test]
fn a_config_file_that_exits_in_a_reload_fails_it() {
    let mut server = Plan::app("echo").config("").start();
    let before = server.wait_for_workers(1);
    server.write("conf.py", "import sys\nsys.exit(9)\n");
    server.signal(nix::sys::signal::Signal::SIGHUP);
    server.wait_for_log("Reload failed");
    server.wait_for_log("the config file has ended the program with status 9");
    assert_eq!(server.workers(), before);
    server.allow("");
    server.finish();
}

#[test]
fn what_a_wrong_config_file_prints_is_printed() {
    let plan = Plan::app("echo").config("print('configured')\nworkers = 'many'\n");
    assert_eq!(plan.run().stdout, "configured\n");
}

#[test]
fn an_app_without_a_name_behind_its_colon_is_no_app() {
    let finished = Plan::app("echo:").run();
    assert_eq!(finished.code, Some(4), "{finished:?}");
    assert!(finished.stderr.contains("Failed to parse '' as an attribute name or function call."), "{finished:?}");
}

#[test]
fn a_folder_that_is_not_there_is_an_error() {
    let finished = Plan::app("echo").chdir("/no/such/folder").run();
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.stderr.contains("/no/such/folder"), "{}", finished.stderr);
}

#[test]
fn wrong_values_on_the_command_line_name_the_setting() {
    let table = [("--workers", "abc", "abc"), ("--timeout", "-3", "-3"), ("--umask", "99x", "99x")];
    for (option, value, said) in table.into_iter().chain([("--bind", "127.0.0.1:http", "http")]) {
        let finished = Plan::app("echo").bound_elsewhere().args([option, value]).run();
        assert!(matches!(finished.code, Some(1 | 2)), "{option} {value}: {finished:?}");
        assert!(finished.stderr.contains(said), "{option} {value}: {}", finished.stderr);
    }
}

#[test]
fn a_broken_or_missing_file_is_an_error() {
    let missing = Plan::app("echo").args(["--config", "/no/such/conf.py"]).run();
    assert_eq!(missing.code, Some(1));
    assert!(missing.stderr.contains("'/no/such/conf.py' doesn't exist"), "{}", missing.stderr);
    for (name, content) in
        [("conf.py", "workers = (("), ("conf.py", "1 / 0"), ("conf.toml", "workers = ="), ("conf.json", "{")]
    {
        let plan = Plan::app("echo").file(name, content);
        let path = plan.path(name).display().to_string();
        let finished = plan.args(["--config", &path]).run();
        assert_eq!(finished.code, Some(1), "{content}: {finished:?}");
        assert!(finished.stderr.contains(name), "{content}: {}", finished.stderr);
    }
}

#[test]
fn an_unknown_name_in_a_file_is_warned_of_and_ignored() {
    let plan = Plan::app("echo").file("conf.toml", "worker = 3\n");
    let path = plan.path("conf.toml").display().to_string();
    let mut server = plan.args(["--config", &path]).start();
    server.wait_for_log("workers");
    assert_eq!(server.get("/").status, 200);
    server.allow("worker");
    server.finish();
}

#[test]
fn a_setting_we_do_not_have_is_refused_and_its_default_is_not() {
    let refused = Plan::app("echo").args(["--http2-cleartext", "prior-knowledge"]).run();
    assert_eq!(refused.code, Some(1));
    assert!(refused.stderr.contains("HTTP/2 is not supported yet"), "{}", refused.stderr);
    let server = Plan::app("echo").args(["--http2-cleartext", "off"]).start();
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn raw_env_reaches_the_app() {
    let server = Plan::app("process").args(["--env", "ONE=1", "-e", "TWO=a=b"]).start();
    assert_eq!(server.get("/env?ONE").json(), *"1");
    assert_eq!(server.get("/env?TWO").json(), *"a=b");
    server.finish();
}

#[test]
fn pythonpath_finds_the_app() {
    let apps = crate::util::apps().display().to_string();
    let server = Plan::app("echo").in_own_folder().args(["--pythonpath", &format!("/nowhere,{apps}")]).start();
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

/// `sys.path` without the interpreter's own entries, as a worker sees it
const SEARCH_PATH: &str = "import json, os, sys\n\
    def application(environ, start_response):\n\
    \x20   start_response('200 OK', [])\n\
    \x20   root = os.environ['ROOT']\n\
    \x20   own = [path for path in sys.path if not os.path.isabs(path) or path.startswith(root)]\n\
    \x20   return [json.dumps([path.replace(root, '') for path in own]).encode()]\n";

#[test]
fn chdir_and_pythonpath_go_before_the_folder_of_the_start() {
    // arguments, config file, what stands in front of sys.path under gunicorn
    let table: [(&[&str], &str, &str); 6] = [
        (&[], "", r#"["/start"]"#),
        (&["--chdir", "../app"], "", r#"["/app", "/start"]"#),
        (
            &["--chdir", "../start/../app", "--pythonpath", "rel,../lib"],
            "",
            r#"["/lib", "/app/rel", "/app", "/start"]"#,
        ),
        (&["--pythonpath", "rel"], "", r#"["/start/rel", "/start"]"#),
        (&[], "chdir = '../app'\npythonpath = 'rel'\n", r#"["/app/rel", "/app", "/start"]"#),
        (&["--preload", "--chdir", "../link"], "", r#"["/link", "/start"]"#),
    ];
    for (arguments, config, expected) in table {
        let plan = Plan::app("shown").started_in_own_folder();
        let root = std::fs::canonicalize(plan.path("")).expect("the test's folder").display().to_string();
        for folder in ["start", "app"] {
            std::fs::create_dir(plan.path(folder)).expect("a folder");
        }
        std::os::unix::fs::symlink(plan.path("app"), plan.path("link")).expect("a link");
        let mut plan = plan.file("app/only_here.py", "").file("start/shown.py", SEARCH_PATH).working_dir("start");
        plan = plan.env("ROOT", root.trim_end_matches('/'));
        for argument in arguments {
            plan = plan.args([*argument]);
        }
        if !config.is_empty() {
            plan = plan.file("start/gunicorn.conf.py", config);
        }
        let server = plan.start();
        assert_eq!(server.get("/").text(), expected, "{arguments:?} {config:?}");
        server.finish();
    }
}

#[test]
fn no_writable_folder_is_needed() {
    let server = Plan::app("echo").args(["--worker-tmp-dir", "/dev/shm"]).env("TMPDIR", "/proc/nonexistent").start();
    assert_eq!(server.get("/").status, 200);
    server.finish();
}

#[test]
fn what_a_config_file_prints_is_printed_once() {
    let plan = Plan::app("echo").file("conf.py", "workers = 2\nprint('configured')\n");
    let config = plan.path("conf.py").display().to_string();
    let mut server = plan.args(["-c", &config]).start();
    server.wait_for_workers(2);
    assert_eq!(server.get("/").status, 200);
    server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert_eq!(server.stdout(), "configured\n");
    server.expect_gone();
}

fn setting(finished: &Finished, name: &str) -> String {
    let lines = finished.stdout.lines().filter_map(|line| line.split_once('='));
    let found = lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim().to_string()).next();
    found.unwrap_or_else(|| panic!("{name} is not printed: {finished:?}"))
}
