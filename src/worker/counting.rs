//! What the worker counts on its row of the scoreboard when a request ends.
//!
//! It is called once for each request, and adds numbers that the caller knows already.

use std::time::Duration;

use crate::exchange::CLIENT_CLOSED_REQUEST;
use crate::http::error::Error;
use crate::python::call::take_raised;
use crate::python::response_writer::ResponseSummary;
use crate::scoreboard::{Count, RefusalCause, Row, ServedCounts};

/// The application has answered a request, which waited for `queue`, then ran for `in_app`, and is
/// `received` bytes long.
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
