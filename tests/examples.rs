//! What stands in `examples/` and `conf/` for others to copy: it names only what the server knows,
//! and the manifests among it follow rules that no schema has. Where a chapter of docs/hosts has a
//! test that runs its files, that stands elsewhere.

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::util::server::Plan;
use crate::util::{program, python, root, venv};

/// Names and values: of variables, or of settings.
type Pairs = &'static [(&'static str, &'static str)];

/// Files that hold command lines of the server, or its config.
const FOLDERS: [&str; 10] = [
    "examples/kubernetes",
    "examples/charts",
    "examples/container",
    "conf/supervisord",
    "conf/systemd",
    "conf/runit",
    "conf/s6",
    "conf/monit",
    "conf/logrotate",
    "conf/nginx",
];

#[test]
fn every_flag_in_a_command_line_of_the_server_is_one_that_it_has() {
    let help = Plan::bare().bound_elsewhere().args(["--help"]).run().stdout;
    let known: HashSet<&str> = help.split(|c: char| !is_of_a_flag(c)).filter(|word| word.starts_with("--")).collect();
    let (mut checked, mut faults) = (0, Vec::new());
    for file in FOLDERS.iter().flat_map(|folder| files(&root().join(folder))) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        // A command goes on in the next line after a backslash.
        for line in text.replace("\\\n", " ").lines().filter(|line| is_a_start_of_the_server(line)) {
            for flag in line.split(|c: char| !is_of_a_flag(c)).filter(|word| word.starts_with("--")) {
                checked += 1;
                if !known.contains(flag) {
                    faults.push(format!("{}: {flag}", file.display()));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert!(checked > 15, "only {checked} flags were found");
}

#[test]
fn every_variable_that_an_example_names_is_read_somewhere() {
    let known: HashSet<String> = ["src", "python"]
        .iter()
        .flat_map(|folder| files(&root().join(folder)))
        .filter_map(|file| fs::read_to_string(file).ok())
        .flat_map(|text| variables(&text))
        .collect();
    assert!(known.len() > 2, "{known:?}");
    for file in FOLDERS.iter().flat_map(|folder| files(&root().join(folder))) {
        let Ok(text) = fs::read_to_string(&file) else { continue };
        for name in variables(&text) {
            assert!(known.contains(&name), "{}: {name}", file.display());
        }
    }
}

#[test]
fn the_manifests_follow_our_rules_and_name_only_settings_that_there_are() {
    let mut manifests = Command::new(python());
    manifests.arg(root().join("scripts/manifests")).args(["--rules", "--program"]).arg(program());
    let output = manifests.env("VIRTUAL_ENV", venv()).output().expect("a Python");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let tools = venv().file_name().expect("a name").to_string_lossy().replace("test-venv-", "manifests-");
    the_rules_find_what_is_wrong(&venv().with_file_name(tools).join("bin/python"));
}

/// The rules themselves: a manifest with every fault is told of each. `tools` is the Python that
/// `scripts/manifests` has made.
fn the_rules_find_what_is_wrong(tools: &Path) {
    let broken = root().join("tests/manifests/broken.yaml");
    let output =
        Command::new(tools).arg(root().join("tests/manifests/rules.py")).arg(&broken).output().expect("it ran");
    let said = String::from_utf8_lossy(&output.stdout);
    let expected = fs::read_to_string(&broken).expect("it is there");
    let expected: Vec<&str> =
        expected.lines().filter_map(|line| line.split_once("# says: ")).map(|(_, text)| text).collect();
    assert!(expected.len() > 15, "{expected:?}");
    for text in &expected {
        assert!(said.contains(text), "{text:?} is not among\n{said}");
    }
    assert_eq!(said.lines().count(), expected.len(), "{said}");
}

#[test]
fn the_entry_point_of_the_official_image_takes_its_variables_and_arguments() {
    // environment, arguments, the settings that come of it
    let table: &[(Pairs, &[&str], &str)] = &[
        (&[], &["app:app"], "['0.0.0.0:8000'] auto 30 1"),
        (&[("GUNICORN_BIND", "unix:/run/app.sock")], &["app:app"], "['unix:/run/app.sock'] auto"),
        (&[("GUNICORN_HOST", "127.0.0.1"), ("GUNICORN_PORT", "9000")], &["app:app"], "['127.0.0.1:9000'] auto"),
        (
            &[("GUNICORN_WORKERS", "3"), ("GUNICORN_ARGS", "--timeout 7 --threads 2")],
            &["--preload", "app:app"],
            "['0.0.0.0:8000'] 3 7 2 True",
        ),
    ];
    for (environment, arguments, expected) in table {
        let output = entry_point(environment, &[arguments, &["--print-config"][..]].concat());
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        let names: &[&str] = &["bind", "workers", "timeout", "threads", "preload_app"];
        let values = names.iter().map(|name| setting(&said, name)).collect::<Vec<_>>().join(" ");
        assert!(values.starts_with(expected), "{values} is not {expected}");
    }
    // Anything else is a command of its own.
    assert_eq!(String::from_utf8_lossy(&entry_point(&[], &["echo", "a", "b"]).stdout), "a b\n");
    let nothing = entry_point(&[], &[]);
    assert_eq!(nothing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nothing.stderr).contains("name the application"));
}

/// A config file of the shape that the images of 2019 brought along, and their variables.
#[test]
fn a_config_file_that_reads_the_old_images_variables_runs_as_it_is() {
    let table: &[(Pairs, Pairs)] = &[
        (&[], &[("bind", "['0.0.0.0:80']"), ("loglevel", "info"), ("timeout", "120"), ("keepalive", "5")]),
        (
            &[
                ("HOST", "127.0.0.1"),
                ("PORT", "8080"),
                ("LOG_LEVEL", "debug"),
                ("GRACEFUL_TIMEOUT", "9"),
                ("MAX_WORKERS", "1"),
            ],
            &[("bind", "['127.0.0.1:8080']"), ("loglevel", "debug"), ("graceful_timeout", "9"), ("workers", "1")],
        ),
        (
            &[("BIND", "unix:/tmp/a.sock"), ("WEB_CONCURRENCY", "5")],
            &[("bind", "['unix:/tmp/a.sock']"), ("workers", "5")],
        ),
    ];
    for (environment, expected) in table {
        let plan = Plan::app("echo").bound_elsewhere().file("gunicorn_conf.py", OLD_CONFIG);
        let path = plan.path("gunicorn_conf.py").display().to_string();
        let plan = environment.iter().fold(plan, |plan, (name, value)| plan.env(name, value));
        let finished = plan.args(["-c", &path, "--print-config"]).run();
        assert_eq!((finished.code, finished.stderr.as_str()), (Some(0), ""), "{finished:?}");
        for (name, value) in *expected {
            // The file prints what it has found, too.
            assert_eq!(setting(&finished.stdout, name), *value, "{name} of {environment:?}");
        }
    }
}

const OLD_CONFIG: &str = "
import json, multiprocessing, os

per_core = float(os.getenv('WORKERS_PER_CORE', '1'))
concurrency = os.getenv('WEB_CONCURRENCY')
most = int(os.getenv('MAX_WORKERS') or 0)
if concurrency:
    web_concurrency = int(concurrency)
    assert web_concurrency > 0
else:
    web_concurrency = max(int(per_core * multiprocessing.cpu_count()), 2)
    if most:
        web_concurrency = min(web_concurrency, most)
host, port = os.getenv('HOST', '0.0.0.0'), os.getenv('PORT', '80')
use_bind = os.getenv('BIND') or f'{host}:{port}'

loglevel = use_loglevel = os.getenv('LOG_LEVEL', 'info')
workers = web_concurrency
bind = use_bind
errorlog = os.getenv('ERROR_LOG', '-') or None
worker_tmp_dir = '/dev/shm'
accesslog = os.getenv('ACCESS_LOG', '-') or None
graceful_timeout = int(os.getenv('GRACEFUL_TIMEOUT', '120'))
timeout = int(os.getenv('TIMEOUT', '120'))
keepalive = int(os.getenv('KEEP_ALIVE', '5'))
log_data = {'loglevel': loglevel, 'workers': workers, 'host': host, 'port': port}
print(json.dumps(log_data))
";

fn entry_point(environment: Pairs, arguments: &[&str]) -> Output {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("app.py"), "def app(environ, start_response): ...\n").expect("a fresh folder");
    let mut command = Command::new("sh");
    command.arg(root().join("examples/container/official-image/entrypoint.sh")).args(arguments);
    command.env("MONOCEROS", program()).env("VIRTUAL_ENV", venv()).env("PYTHONDONTWRITEBYTECODE", "1");
    command.current_dir(folder.path()).env_remove("WEB_CONCURRENCY").env_remove("PORT");
    command.envs(environment.iter().copied()).output().expect("a shell")
}

fn setting(printed: &str, name: &str) -> String {
    let line = printed.lines().find(|line| line.split_whitespace().next() == Some(name) && line.contains(" = "));
    line.and_then(|line| line.split_once(" = ")).map_or_else(String::new, |(_, value)| value.to_owned())
}

/// A line that starts the server, and is no remark.
fn is_a_start_of_the_server(line: &str) -> bool {
    let line = line.trim_start();
    let is_remark = line.starts_with(['#', ';']) && !line.starts_with("#!");
    let names_it = ["monoceros --", "monoceros\"", "CMD [", "command: [\"--", "extraArgs:"];
    !is_remark && names_it.iter().any(|name| line.contains(name))
}

fn is_of_a_flag(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Names such as `MONOCEROS_CPUS` in a text.
fn variables(text: &str) -> Vec<String> {
    let is_of_a_name = |c: char| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_';
    let words = text.split(|c: char| !is_of_a_name(c));
    words.filter(|word| word.starts_with("MONOCEROS_") && word.len() > 10).map(str::to_owned).collect()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let paths = entries.flatten().map(|entry| entry.path());
    paths.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
