//! What a request may look like: the user's choices, as plain data.
//!
//! The worker fills a [`Policy`] from the settings once; the parsers only read it. The module must
//! not know where a value came from.

use super::grammar::is_ows;

/// gunicorn's request settings, under gunicorn's names. `Policy::default()` holds gunicorn's
/// defaults.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Longest request line in bytes, its CRLF not counted; 0 stands for no limit of its own.
    pub limit_request_line: usize,
    /// Most header fields in a request, and most trailer fields after a chunked body.
    pub limit_request_fields: usize,
    /// Longest header field in bytes, name and CRLF counted; also bounds a chunk-size line.
    pub limit_request_field_size: usize,
    /// Take obsolete line folding (RFC 9112, 5.2) and join the lines with one space.
    pub permit_obsolete_folding: bool,
    /// Drop white space between a header's name and its colon, which RFC 9112, 5.1 forbids.
    pub strip_header_spaces: bool,
    /// Take methods in lower case, with `#`, shorter than 3 or longer than 20 bytes.
    pub permit_unconventional_http_method: bool,
    /// Take versions outside 1.x; those below 1.1 are treated as 1.0, those above as 1.1.
    pub permit_unconventional_http_version: bool,
    /// Turn the method into upper case.
    pub casefold_http_method: bool,
    /// Take an HTTP/1.1 request whose Host is missing or empty, as gunicorn does (RFC 9112, 3.2
    /// forbids it).
    pub permit_missing_host: bool,
    /// Refuse an absolute target that contradicts Host, instead of ignoring Host (RFC 9112, 3.2.2).
    pub strict_host: bool,
    /// What happens to header names with an underscore, which CGI cannot tell from a hyphen.
    pub header_map: UnderscoredNames,
    /// Names in upper case that a trusted peer may send with an underscore; `"*"` stands for all.
    pub forwarder_headers: Vec<String>,
    /// Header in upper case and the value by which a trusted peer says that its client came over
    /// https.
    pub secure_scheme_headers: Vec<(String, String)>,
}

/// What happens to a header whose name has an underscore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderscoredNames {
    /// The header is dropped, silently.
    Drop,
    /// The request is refused with 400.
    Refuse,
    /// The header is passed on, and may pose as one with a hyphen.
    Dangerous,
}

impl Policy {
    /// The longest request line in bytes, its CRLF not counted: never unbounded.
    pub(super) fn longest_request_line(&self) -> usize {
        match self.limit_request_line {
            0 => REQUEST_LINE_CEILING,
            limit => limit.min(REQUEST_LINE_CEILING),
        }
    }

    /// The longest field in bytes with its CRLF; 0 means gunicorn's default, as in gunicorn.
    pub(super) fn longest_field(&self) -> usize {
        match self.limit_request_field_size {
            0 => DEFAULT_FIELD_SIZE,
            limit => limit,
        }
    }

    /// The most fields in one head or trailer section; 0 means gunicorn's ceiling, as in gunicorn.
    pub(super) fn most_fields(&self) -> usize {
        match self.limit_request_fields {
            0 => FIELDS_CEILING,
            limit => limit.min(FIELDS_CEILING),
        }
    }

    /// Whether `line` continues the field before it (RFC 9112, 5.2), and the policy permits that.
    pub(super) fn continues_field(&self, line: &[u8]) -> bool {
        self.permit_obsolete_folding && line.first().is_some_and(|&byte| is_ows(byte))
    }

    /// Whether a switch is on under which the parser reports other bytes than were sent.
    pub(super) fn rewrites_heads(&self) -> bool {
        self.permit_obsolete_folding || self.strip_header_spaces || self.casefold_http_method
    }
}

impl Default for Policy {
    fn default() -> Self {
        let owned = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        Policy {
            limit_request_line: 4094,
            limit_request_fields: 100,
            limit_request_field_size: DEFAULT_FIELD_SIZE,
            permit_obsolete_folding: false,
            strip_header_spaces: false,
            permit_unconventional_http_method: false,
            permit_unconventional_http_version: false,
            casefold_http_method: false,
            permit_missing_host: false,
            strict_host: false,
            header_map: UnderscoredNames::Drop,
            forwarder_headers: vec!["SCRIPT_NAME".to_owned(), "PATH_INFO".to_owned()],
            secure_scheme_headers: vec![
                owned("X-FORWARDED-PROTOCOL", "ssl"),
                owned("X-FORWARDED-PROTO", "https"),
                owned("X-FORWARDED-SSL", "on"),
            ],
        }
    }
}

/// The part of a policy that a body decoder keeps for the chunk lines and trailers to come.
#[derive(Clone, Copy, Debug)]
pub(super) struct FieldRules {
    pub(super) longest_field: usize,
    pub(super) most_fields: usize,
    pub(super) permit_obsolete_folding: bool,
    pub(super) strip_header_spaces: bool,
    pub(super) header_map: UnderscoredNames,
}

impl FieldRules {
    pub(super) fn of(policy: &Policy) -> Self {
        FieldRules {
            longest_field: policy.longest_field(),
            most_fields: policy.most_fields(),
            permit_obsolete_folding: policy.permit_obsolete_folding,
            strip_header_spaces: policy.strip_header_spaces,
            header_map: policy.header_map,
        }
    }

    /// [`Policy::continues_field`], for trailers.
    pub(super) fn continues_field(&self, line: &[u8]) -> bool {
        self.permit_obsolete_folding && line.first().is_some_and(|&byte| is_ows(byte))
    }
}

/// gunicorn's default for `limit_request_field_size`, in bytes.
const DEFAULT_FIELD_SIZE: usize = 8190;

/// gunicorn's own ceiling on the number of fields.
const FIELDS_CEILING: usize = 32_768;

/// Even "no limit" needs one, or a client could fill the memory with one line. 1 MiB.
const REQUEST_LINE_CEILING: usize = 1 << 20;
