//! What the worker counts of requests on its row of the scoreboard, where they end.
//!
//! It is called once for each request, and adds numbers that are known there already.

use std::time::Duration;

use crate::exchange::CLIENT_CLOSED_REQUEST;
use crate::http::error::Error;
use crate::python::call::take_raised;
use crate::python::response_writer::ResponseSummary;
use crate::scoreboard::{Count, RefusalCause, Row, ServedCounts};

/// A request was answered by the application. It has waited for `queue` before, and that took
/// `in_app`; `received` are its bytes.
pub fn served(row: &Row, (queue, in_app): (Duration, Duration), received: u64, summary: &ResponseSummary) {
    row.count_served(&ServedCounts {
        status: summary.status,
        duration: queue + in_app,
        queue,
        received,
        sent: summary.sent,
    });
    if summary.status == CLIENT_CLOSED_REQUEST {
        row.count(Count::Aborted);
    }
    for _ in 0..take_raised() {
        row.count(Count::AppError);
    }
}

/// The client of a request that was ready has gone.
pub fn left(row: &Row) {
    row.count(Count::Aborted);
    row.count_response(CLIENT_CLOSED_REQUEST);
}

/// A request was refused.
pub fn refused(row: &Row, error: &Error) {
    row.count(Count::Refused(reason(error)));
    row.count_response(error.status());
}

fn reason(error: &Error) -> RefusalCause {
    match error {
        Error::InvalidRequestLine(_)
        | Error::InvalidMethod(_)
        | Error::InvalidVersion(_)
        | Error::UnsupportedVersion(..) => RefusalCause::RequestLine,
        Error::InvalidHeader(_)
        | Error::InvalidHeaderName(_)
        | Error::ObsoleteFolding(_)
        | Error::ExpectationFailed(_)
        | Error::InvalidSchemeHeaders => RefusalCause::Header,
        Error::LimitRequestLine { .. } | Error::LimitRequestHeaders(_) => RefusalCause::HeadTooLong,
        Error::UnsupportedTransferCoding(_)
        | Error::InvalidChunkSize(_)
        | Error::ChunkMissingTerminator(_)
        | Error::InvalidChunkExtension(_) => RefusalCause::Body,
        Error::ContentTooLarge => RefusalCause::BodyTooLarge,
        Error::RequestTimeout => RefusalCause::Timeout,
        Error::InvalidProxyLine(_)
        | Error::InvalidProxyHeader(_)
        | Error::ForbiddenProxyRequest(_)
        | Error::InvalidUwsgiPacket(_)
        | Error::ForbiddenUwsgiRequest => RefusalCause::Proxy,
        Error::PlainHttpOnTls
        | Error::TlsOnPlainHttp
        | Error::HttpOnUwsgi
        | Error::TlsOnPlainUwsgi
        | Error::UnsupportedUwsgiModifier(_) => RefusalCause::Protocol,
        Error::Overloaded => RefusalCause::Overloaded,
    }
}
