//! The names of a line's fields under each [`Schema`]: the server's own, Elastic's, Google's and
//! OpenTelemetry's. The module knows names, and nothing of where the values come from.

use std::sync::OnceLock;
use std::time::Duration;

use chrono::{DateTime, FixedOffset, SecondsFormat, Utc};

use super::Level;
use super::entry::{AccessEntry, Entry, Schema, worker};
use super::object::Object;
use super::scope::{RequestIds, TraceIds};

/// The version of Elastic Common Schema whose names these are.
const ECS_VERSION: &str = "8.11.0";

/// A line of the error log.
pub(super) fn record(schema: Schema, entry: &Entry) -> Object {
    match schema {
        Schema::Own => own_record(entry),
        Schema::Ecs => ecs_record(entry),
        Schema::Gcp => gcp_record(entry),
        Schema::Otel => otel_record(entry),
    }
}

/// A line of the access log, written at `time`.
pub(super) fn access(schema: Schema, entry: &AccessEntry, time: DateTime<FixedOffset>) -> Object {
    match schema {
        Schema::Own => own_access(entry, time),
        Schema::Ecs => ecs_access(entry, time),
        Schema::Gcp => gcp_access(entry, time),
        Schema::Otel => otel_access(entry, time),
    }
}

fn own_record(entry: &Entry) -> Object {
    let mut object = Object::default();
    object.put("time", local(entry.time));
    object.put("pid", entry.pid);
    object.put("level", entry.level.name());
    object.put("message", &entry.text);
    object.put_known("worker", entry.worker);
    own_ids(&mut object, &entry.request);
    if let Some(failure) = &entry.failure {
        object.put("error_type", &failure.kind);
        object.put("error_message", &failure.reason);
    }
    object
}

fn own_access(entry: &AccessEntry, time: DateTime<FixedOffset>) -> Object {
    let mut object = Object::default();
    object.put("time", local(time));
    object.put("pid", std::process::id());
    object.put("remote_addr", &entry.remote_addr);
    object.put("user", &entry.user);
    object.put("method", &entry.method);
    object.put("target", &entry.target);
    object.put("protocol", &entry.protocol);
    object.put("status", entry.status);
    object.put("bytes", entry.bytes);
    object.put("duration", entry.duration.as_secs_f64());
    object.put("referer", &entry.referer);
    object.put("user_agent", &entry.user_agent);
    object.put_known("host", entry.host.as_ref());
    object.put_known("scheme", entry.scheme.as_ref());
    object.put_known("request_bytes", entry.received);
    object.put_known("queue", seconds(entry.queue));
    object.put_known("worker", worker());
    object.put_known("connection", entry.connection);
    object.put_known("peer", entry.peer.as_ref());
    own_ids(&mut object, &entry.request);
    object
}

fn own_ids(object: &mut Object, request: &RequestIds) {
    object.put_known("request_id", request.id.as_ref());
    if let Some(TraceIds { trace_id, span_id, .. }) = &request.trace {
        object.put("trace_id", trace_id);
        object.put("span_id", span_id);
    }
}

fn ecs_record(entry: &Entry) -> Object {
    let mut object = ecs_start(entry.time, entry.level, &entry.message, entry.pid, entry.worker);
    ecs_ids(&mut object, &entry.request);
    if let Some(failure) = &entry.failure {
        object.put("error.type", &failure.kind);
        object.put("error.message", &failure.reason);
        object.put("error.stack_trace", &failure.stack);
    }
    object
}

fn ecs_access(entry: &AccessEntry, time: DateTime<FixedOffset>) -> Object {
    let mut object = ecs_start(time, Level::Info, &summary(entry), std::process::id(), worker());
    let (path, query) = path_and_query(&entry.target);
    object.put("event.dataset", "monoceros.access");
    object.put("event.duration", nanoseconds(entry.duration));
    object.put("http.request.method", &entry.method);
    object.put_known("http.version", version(&entry.protocol));
    object.put("url.original", &entry.target);
    object.put("url.path", path);
    object.put_known("url.query", query);
    object.put_known("url.scheme", entry.scheme.as_ref());
    object.put_known("url.domain", entry.host.as_deref().map(name_of_host));
    object.put("http.response.status_code", entry.status);
    object.put("http.response.body.bytes", entry.bytes);
    object.put_known("http.request.bytes", entry.received);
    object.put_known("http.request.referrer", entry.referer.as_ref());
    object.put_known("client.ip", ip(&entry.remote_addr));
    object.put_known("source.ip", ip(entry.peer.as_ref().unwrap_or(&entry.remote_addr)));
    object.put_known("user.name", entry.user.as_ref());
    object.put_known("user_agent.original", entry.user_agent.as_ref());
    object.put_known("monoceros.queue", seconds(entry.queue));
    object.put_known("monoceros.connection", entry.connection);
    ecs_ids(&mut object, &entry.request);
    object
}

/// The members that ecs-logging wants first, in this order, then the members of every line.
fn ecs_start(time: DateTime<FixedOffset>, level: Level, message: &str, pid: u32, worker: Option<usize>) -> Object {
    let mut object = Object::default();
    object.put("@timestamp", utc(time));
    object.put("log.level", level.name().to_ascii_lowercase());
    object.put("message", message);
    object.put("ecs.version", ECS_VERSION);
    object.put("process.pid", pid);
    object.put_known("monoceros.worker", worker);
    object
}

fn ecs_ids(object: &mut Object, request: &RequestIds) {
    object.put_known("http.request.id", request.id.as_ref());
    if let Some(TraceIds { trace_id, span_id, .. }) = &request.trace {
        object.put("trace.id", trace_id);
        object.put("span.id", span_id);
    }
}

fn gcp_record(entry: &Entry) -> Object {
    let mut object = gcp_start(entry.time, entry.level, &entry.message, entry.pid, entry.worker);
    gcp_ids(&mut object, &entry.request);
    if let Some(failure) = &entry.failure {
        // Google's Error Reporting looks for the traceback under this name.
        object.put("stack_trace", &failure.stack);
        object.put("error_type", &failure.kind);
        object.put("error_message", &failure.reason);
    }
    object
}

fn gcp_access(entry: &AccessEntry, time: DateTime<FixedOffset>) -> Object {
    // The levels of the request lines that Google's own servers write.
    let level = match entry.status {
        500.. => Level::Error,
        400.. => Level::Warning,
        _ => Level::Info,
    };
    let mut object = gcp_start(time, level, &summary(entry), std::process::id(), worker());
    let mut request = Object::default();
    request.put("requestMethod", &entry.method);
    request.put("requestUrl", url(entry));
    request.put("status", entry.status);
    // Numbers of 64 bits are text in Google's JSON.
    request.put("responseSize", entry.bytes.to_string());
    request.put_known("requestSize", entry.received.map(|bytes| bytes.to_string()));
    request.put("latency", format!("{:.6}s", entry.duration.as_secs_f64()));
    request.put("protocol", &entry.protocol);
    request.put("remoteIp", &entry.remote_addr);
    request.put_known("userAgent", entry.user_agent.as_ref());
    request.put_known("referer", entry.referer.as_ref());
    object.put_object("httpRequest", &request);
    object.put_known("user", entry.user.as_ref());
    object.put_known("queue", seconds(entry.queue));
    object.put_known("connection", entry.connection);
    object.put_known("peer", entry.peer.as_ref());
    gcp_ids(&mut object, &entry.request);
    object
}

fn gcp_start(time: DateTime<FixedOffset>, level: Level, message: &str, pid: u32, worker: Option<usize>) -> Object {
    let mut object = Object::default();
    object.put("time", local(time));
    object.put("severity", level.name());
    object.put("message", message);
    object.put("pid", pid);
    object.put_known("worker", worker);
    object
}

fn gcp_ids(object: &mut Object, request: &RequestIds) {
    object.put_known("request_id", request.id.as_ref());
    if let Some(TraceIds { trace_id, span_id, is_sampled }) = &request.trace {
        object.put("logging.googleapis.com/trace", gcp_trace(trace_id));
        object.put("logging.googleapis.com/spanId", span_id);
        object.put("logging.googleapis.com/trace_sampled", is_sampled);
    }
}

/// A trace as Google Cloud Trace names it, where the project is known. Else it is the id alone: the
/// logging agent puts the project before it, if it is told to.
fn gcp_trace(trace_id: &str) -> String {
    static PROJECT: OnceLock<Option<String>> = OnceLock::new();
    let project = PROJECT.get_or_init(|| std::env::var("GOOGLE_CLOUD_PROJECT").ok().filter(|name| !name.is_empty()));
    match project {
        Some(project) => format!("projects/{project}/traces/{trace_id}"),
        None => trace_id.to_owned(),
    }
}

fn otel_record(entry: &Entry) -> Object {
    let mut attributes = Object::default();
    attributes.put("process.pid", entry.pid);
    attributes.put_known("monoceros.worker", entry.worker);
    attributes.put_known("http.request.id", entry.request.id.as_ref());
    if let Some(failure) = &entry.failure {
        attributes.put("exception.type", &failure.kind);
        attributes.put("exception.message", &failure.reason);
        attributes.put("exception.stacktrace", &failure.stack);
    }
    otel_line(entry.time, entry.level, &entry.message, &entry.request, &attributes)
}

fn otel_access(entry: &AccessEntry, time: DateTime<FixedOffset>) -> Object {
    let (path, query) = path_and_query(&entry.target);
    let mut attributes = Object::default();
    attributes.put("http.request.method", &entry.method);
    attributes.put("url.path", path);
    attributes.put_known("url.query", query);
    attributes.put_known("url.scheme", entry.scheme.as_ref());
    attributes.put("http.response.status_code", entry.status);
    attributes.put("http.response.body.size", entry.bytes);
    attributes.put_known("http.request.size", entry.received);
    attributes.put("http.server.request.duration", entry.duration.as_secs_f64());
    attributes.put("client.address", &entry.remote_addr);
    attributes.put("network.peer.address", entry.peer.as_ref().unwrap_or(&entry.remote_addr));
    attributes.put_known("network.protocol.version", version(&entry.protocol));
    attributes.put_known("server.address", entry.host.as_deref().map(name_of_host));
    attributes.put_known("user_agent.original", entry.user_agent.as_ref());
    attributes.put_known("http.request.header.referer", entry.referer.as_ref().map(|referer| [referer]));
    attributes.put_known("user.name", entry.user.as_ref());
    attributes.put("process.pid", std::process::id());
    attributes.put_known("monoceros.worker", worker());
    attributes.put_known("monoceros.queue", seconds(entry.queue));
    attributes.put_known("monoceros.connection", entry.connection);
    attributes.put_known("http.request.id", entry.request.id.as_ref());
    otel_line(time, Level::Info, &summary(entry), &entry.request, &attributes)
}

/// The top of a record. The names are the data model's; for the trace they are those of "Trace
/// Context in non-OTLP Log Formats".
fn otel_line(
    time: DateTime<FixedOffset>,
    level: Level,
    body: &str,
    request: &RequestIds,
    attributes: &Object,
) -> Object {
    let mut object = Object::default();
    object.put("Timestamp", utc(time));
    object.put("SeverityText", level.name());
    object.put("SeverityNumber", severity_number(level));
    object.put("Body", body);
    if let Some(TraceIds { trace_id, span_id, is_sampled }) = &request.trace {
        object.put("trace_id", trace_id);
        object.put("span_id", span_id);
        object.put("trace_flags", if *is_sampled { "01" } else { "00" });
    }
    object.put_object("Attributes", attributes);
    object
}

/// The first number of each range of the data model's field SeverityNumber.
fn severity_number(level: Level) -> u8 {
    match level {
        Level::Debug => 5,
        Level::Info => 9,
        Level::Warning => 13,
        Level::Error => 17,
        Level::Critical => 21,
    }
}

/// RFC 3339, local time with its offset, to the millisecond.
fn local(time: DateTime<FixedOffset>) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, false)
}

/// RFC 3339, UTC as `Z`, to the millisecond.
fn utc(time: DateTime<FixedOffset>) -> String {
    time.with_timezone(&Utc).to_rfc3339_opts(SecondsFormat::Millis, true)
}

/// The text by which a person finds a request in a list of messages.
fn summary(entry: &AccessEntry) -> String {
    let word = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    format!("{} {} {}", word(&entry.method), word(&entry.target), entry.status)
}

/// Path and query of a request target; one in absolute form has an authority before them.
fn path_and_query(target: &str) -> (&str, Option<&str>) {
    let target = match target.split_once("://") {
        Some((_, rest)) if !target.starts_with('/') => rest.find('/').map_or("", |at| &rest[at..]),
        _ => target,
    };
    match target.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (target, None),
    }
}

fn url(entry: &AccessEntry) -> String {
    match (&entry.scheme, &entry.host) {
        (Some(scheme), Some(host)) if entry.target.starts_with('/') => format!("{scheme}://{host}{}", entry.target),
        _ => entry.target.clone(),
    }
}

/// An address of the client, if it is one: over a unix socket there is none, and a member of type
/// `ip` with another text would have Elasticsearch refuse the line.
fn ip(text: &str) -> Option<&str> {
    text.parse::<std::net::IpAddr>().is_ok().then_some(text)
}

/// A Host header without its port.
fn name_of_host(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if !port.contains(']') => name,
        _ => host,
    }
}

/// `1.1` of `HTTP/1.1`.
fn version(protocol: &str) -> Option<&str> {
    protocol.strip_prefix("HTTP/")
}

fn seconds(duration: Option<Duration>) -> Option<f64> {
    duration.map(|duration| duration.as_secs_f64())
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
