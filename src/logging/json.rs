//! Both logs as JSON: one object per line (`log_format`), for log collectors.
//!
//! A line has the same values under each [`Schema`], which gives them the names that a collector
//! knows ([`super::schemas`]). Bytes of the client become characters as in the text form (see
//! [`super::access_format`]); JSON's escapes keep an object on one line, and control characters out
//! of it (see [`super::escape`]).

use std::io::{self, Write};

use super::access_format::AccessRecord;
use super::basic_user::basic_user;
use super::entry::{AccessEntry, Entry, Schema, worker};
use super::object::Object;
use super::{Level, Scope, escape, local_time, schemas};

/// Writes a record of the error log.
///
/// # Errors
/// Those of `out`.
pub(super) fn write_record(
    out: &mut impl Write,
    schema: Schema,
    level: Level,
    text: &str,
    scope: Option<Scope>,
) -> io::Result<()> {
    let Scope { request, failure } = scope.unwrap_or_default();
    let above = failure.as_ref().and_then(|failure| text.strip_suffix(&failure.stack));
    let message = above.map_or(text, |above| above.trim_end_matches('\n')).to_owned();
    let (time, pid, worker, text) = (local_time::now(), std::process::id(), worker(), text.to_owned());
    let entry = Entry { time, pid, worker, level, text, message, request, failure };
    let mut line = Vec::new();
    push(&mut line, &schemas::record(schema, &entry));
    line.push(b'\n');
    out.write_all(&line)
}

/// Appends the object of one answered request to `out`.
pub(super) fn render_access(out: &mut Vec<u8>, schema: Schema, record: &impl AccessRecord) {
    push(out, &schemas::access(schema, &entry_of(record), local_time::now()));
}

/// The object of one answered request.
pub fn access_object(schema: Schema, entry: &AccessEntry) -> String {
    let mut out = Vec::new();
    push(&mut out, &schemas::access(schema, entry, local_time::now()));
    String::from_utf8(out).unwrap_or_default()
}

fn entry_of(record: &impl AccessRecord) -> AccessEntry {
    AccessEntry {
        remote_addr: latin1(record.remote_addr()),
        user: record.request_header("authorization").and_then(basic_user),
        method: latin1(record.method()),
        target: latin1(record.raw_uri()),
        protocol: latin1(record.protocol()),
        status: record.status(),
        bytes: record.bytes_sent(),
        duration: record.duration(),
        referer: record.request_header("referer").map(latin1),
        user_agent: record.request_header("user-agent").map(latin1),
        host: record.request_header("host").map(latin1),
        scheme: record.scheme().map(str::to_owned),
        received: record.bytes_received(),
        queue: record.queue(),
        connection: record.connection(),
        peer: record.peer(),
        request: record.ids(),
    }
}

fn push(out: &mut Vec<u8>, object: &Object) {
    escape::push_json(out, &object.to_text());
}

/// Each byte is the Latin-1 character of that number (PEP 3333).
fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|&byte| char::from(byte)).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::scope::{Failure, RequestIds, TraceIds};
    use super::*;

    const ALL: [Schema; 4] = [Schema::Own, Schema::Ecs, Schema::Gcp, Schema::Otel];

    fn record(schema: Schema, text: &str, scope: Option<Scope>) -> serde_json::Value {
        let mut line = Vec::new();
        write_record(&mut line, schema, Level::Error, text, scope).unwrap();
        let text = String::from_utf8(line.clone()).unwrap();
        assert_eq!(text.find(['\n', '\u{85}', '\u{2028}']), Some(text.len() - 1));
        serde_json::from_slice(&line).unwrap()
    }

    fn scope() -> Scope {
        let trace = TraceIds { trace_id: "4b".repeat(16), span_id: "00f0".repeat(4), is_sampled: true };
        Scope {
            request: RequestIds { id: Some("r-1".to_owned()), trace: Some(trace) },
            failure: Some(Failure {
                kind: "KeyError".to_owned(),
                reason: "'lost'".to_owned(),
                stack: "Traceback\nKeyError: 'lost'".to_owned(),
            }),
        }
    }

    #[test]
    fn a_record_is_one_line_that_reads_back() {
        let text = "first \"quoted\"\nsecond \u{1}\u{85}\u{2028}";
        for (schema, member) in ALL.into_iter().zip(["message", "message", "message", "Body"]) {
            assert_eq!(record(schema, text, None)[member], text);
        }
        let read = record(Schema::Own, text, None);
        assert_eq!(read["level"], "ERROR");
        assert!(chrono::DateTime::parse_from_rfc3339(read["time"].as_str().unwrap()).is_ok());
    }

    #[test]
    fn a_traceback_is_a_field_where_the_schema_has_one() {
        let text = "Error handling request GET /\nTraceback\nKeyError: 'lost'";
        let own = record(Schema::Own, text, Some(scope()));
        assert_eq!((&own["message"], &own["error_type"]), (&text.into(), &"KeyError".into()));
        let ecs = record(Schema::Ecs, text, Some(scope()));
        assert_eq!(ecs["message"], "Error handling request GET /");
        assert_eq!((&ecs["error.type"], &ecs["error.message"]), (&"KeyError".into(), &"'lost'".into()));
        assert_eq!(ecs["error.stack_trace"], "Traceback\nKeyError: 'lost'");
        let gcp = record(Schema::Gcp, text, Some(scope()));
        assert_eq!((&gcp["severity"], &gcp["stack_trace"]), (&"ERROR".into(), &ecs["error.stack_trace"]));
        let otel = record(Schema::Otel, text, Some(scope()));
        assert_eq!(otel["Attributes"]["exception.stacktrace"], ecs["error.stack_trace"]);
        assert_eq!((&otel["SeverityText"], &otel["SeverityNumber"]), (&"ERROR".into(), &17.into()));
    }

    #[test]
    fn every_schema_names_the_request_and_its_trace() {
        let (trace, span) = ("4b".repeat(16), "00f0".repeat(4));
        let [own, ecs, gcp, otel] = ALL.map(|schema| record(schema, "text", Some(scope())));
        assert_eq!(
            (&own["request_id"], &own["trace_id"], &own["span_id"]),
            (&"r-1".into(), &trace.clone().into(), &span.clone().into())
        );
        assert_eq!(
            (&ecs["http.request.id"], &ecs["trace.id"], &ecs["span.id"]),
            (&"r-1".into(), &trace.clone().into(), &span.clone().into())
        );
        assert_eq!(gcp["request_id"], "r-1");
        assert!(gcp["logging.googleapis.com/trace"].as_str().unwrap().ends_with(&trace));
        assert_eq!(
            (&gcp["logging.googleapis.com/spanId"], &gcp["logging.googleapis.com/trace_sampled"]),
            (&span.clone().into(), &true.into())
        );
        assert_eq!(
            (&otel["trace_id"], &otel["span_id"], &otel["trace_flags"]),
            (&trace.into(), &span.into(), &"01".into())
        );
    }

    #[test]
    fn an_access_line_has_the_names_of_its_schema() {
        let entry = AccessEntry {
            remote_addr: "1.2.3.4".to_owned(),
            method: "GET".to_owned(),
            target: "/a%20b?c=d".to_owned(),
            protocol: "HTTP/1.1".to_owned(),
            status: 503,
            bytes: 12,
            duration: Duration::from_micros(1500),
            host: Some("example.com".to_owned()),
            scheme: Some("https".to_owned()),
            queue: Some(Duration::from_millis(2)),
            ..AccessEntry::default()
        };
        let [own, ecs, gcp, otel] =
            ALL.map(|schema| serde_json::from_str::<serde_json::Value>(&access_object(schema, &entry)).unwrap());
        assert_eq!(
            (&own["target"], &own["duration"], &own["queue"]),
            (&"/a%20b?c=d".into(), &0.0015.into(), &0.002.into())
        );
        assert_eq!((&ecs["url.path"], &ecs["url.query"]), (&"/a%20b".into(), &"c=d".into()));
        assert_eq!((&ecs["event.duration"], &ecs["http.response.status_code"]), (&1_500_000.into(), &503.into()));
        let request = &gcp["httpRequest"];
        assert_eq!(request["requestUrl"], "https://example.com/a%20b?c=d");
        assert_eq!((&request["latency"], &request["responseSize"]), (&"0.001500s".into(), &"12".into()));
        assert_eq!((&request["status"], &gcp["severity"]), (&503.into(), &"ERROR".into()));
        let attributes = &otel["Attributes"];
        assert_eq!(
            (&attributes["http.request.method"], &attributes["client.address"]),
            (&"GET".into(), &"1.2.3.4".into())
        );
        assert_eq!(attributes["http.server.request.duration"], 0.0015);
    }

    #[test]
    fn a_client_without_an_address_and_an_absolute_target_leave_no_member_that_is_wrong() {
        let entry = AccessEntry { target: "http://a:81/b?c".to_owned(), ..AccessEntry::default() };
        let ecs: serde_json::Value = serde_json::from_str(&access_object(Schema::Ecs, &entry)).unwrap();
        assert_eq!((ecs.get("client.ip"), ecs.get("source.ip")), (None, None));
        assert_eq!((&ecs["url.path"], &ecs["url.query"]), (&"/b".into(), &"c".into()));
    }
}
