//! What a server says at `metrics_bind`.

use std::collections::BTreeMap;

use super::client::{Address, Client, Response};
use super::server::{Plan, Server};

/// Samples by name and labels.
pub type Samples = BTreeMap<String, f64>;

/// A server that answers for metrics at a port of the kernel's choice, and where that is.
#[track_caller]
pub fn measured(plan: Plan) -> (Server, Address) {
    let server = plan.args(["--metrics-bind", "127.0.0.1:0"]).start();
    let address = metrics_of(&server);
    (server, address)
}

/// Where the metrics of a server are, which has a port of the kernel's choice for them.
#[track_caller]
pub fn metrics_of(server: &Server) -> Address {
    server.wait_for_log("Metrics at: ");
    let log = server.log();
    let line = log.lines().rev().find_map(|line| line.split_once("Metrics at: http://127.0.0.1:")).expect("a line");
    Address::Tcp(line.1.split('/').next().expect("a port").parse().expect("a port"))
}

/// The page, asked for with these headers.
#[track_caller]
pub fn ask(address: &Address, headers: &[&str]) -> Response {
    Client::connect(address).request("GET", "/metrics", headers, b"")
}

/// Each sample of a page by its name and labels.
pub fn samples(page: &str) -> Samples {
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let sample = |line: &str| {
        let (name, value) = line.rsplit_once(' ').expect("a name and a value");
        (name.to_owned(), value.parse().expect("a number"))
    };
    lines.map(sample).collect()
}

#[track_caller]
pub fn read(address: &Address) -> Samples {
    samples(&ask(address, &[]).text())
}

/// All samples of this name together, whatever their labels.
pub fn sum(found: &Samples, name: &str) -> f64 {
    found.iter().filter(|(key, _)| key.split('{').next() == Some(name)).map(|(_, value)| value).sum()
}

/// Whether samples of this name only ever rise.
pub fn is_total(name: &str) -> bool {
    let name = name.split('{').next().unwrap_or_default();
    ["_total", "_bucket", "_sum", "_count"].iter().any(|end| name.ends_with(end))
}
