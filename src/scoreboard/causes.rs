//! The closed lists that the scoreboard counts by: why workers ended, and why requests were refused.

/// Why a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The server stops.
    Stop,
    /// A reload or an upgrade has put another in its place.
    Reload,
    /// There were too many (TTOU, `workers`).
    ScaleDown,
    /// `max_requests`, or a hook that wanted no more of it.
    MaxRequests,
    /// `max_worker_lifetime`.
    Lifetime,
    /// `max_worker_memory`.
    Memory,
    /// `timeout`: it was silent.
    Timeout,
    /// `request_timeout`.
    RequestTimeout,
    /// It ended, or was ended, before it served.
    BootFailed,
    /// A signal that nobody sends on purpose, or an exit status other than 0.
    Crash,
    /// The kernel has killed it for want of memory.
    OutOfMemory,
    /// Another process has ended it.
    Killed,
}

impl Cause {
    /// All of them, in the order of their words on the board.
    pub const ALL: [Cause; 12] = [
        Cause::Stop,
        Cause::Reload,
        Cause::ScaleDown,
        Cause::MaxRequests,
        Cause::Lifetime,
        Cause::Memory,
        Cause::Timeout,
        Cause::RequestTimeout,
        Cause::BootFailed,
        Cause::Crash,
        Cause::OutOfMemory,
        Cause::Killed,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Cause::Stop => "stop",
            Cause::Reload => "reload",
            Cause::ScaleDown => "scale_down",
            Cause::MaxRequests => "max_requests",
            Cause::Lifetime => "lifetime",
            Cause::Memory => "memory",
            Cause::Timeout => "timeout",
            Cause::RequestTimeout => "request_timeout",
            Cause::BootFailed => "boot_failed",
            Cause::Crash => "crash",
            Cause::OutOfMemory => "oom",
            Cause::Killed => "killed",
        }
    }
}

/// Why a request was refused without the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// The request line, the method or the version.
    RequestLine,
    /// A header field, or what several say together.
    Header,
    /// The request line or the header is too long.
    HeadTooLong,
    /// The framing of the body.
    Body,
    /// `limit_request_body`.
    BodyTooLarge,
    /// It did not arrive in time.
    Timeout,
    /// A PROXY header, or a packet of uwsgi.
    Proxy,
    /// The wrong one of HTTP, HTTPS and uwsgi.
    Protocol,
    /// The worker had to make room.
    Overloaded,
}

impl Refusal {
    /// All of them, in the order of their words on the board.
    pub const ALL: [Refusal; 9] = [
        Refusal::RequestLine,
        Refusal::Header,
        Refusal::HeadTooLong,
        Refusal::Body,
        Refusal::BodyTooLarge,
        Refusal::Timeout,
        Refusal::Proxy,
        Refusal::Protocol,
        Refusal::Overloaded,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Refusal::RequestLine => "request_line",
            Refusal::Header => "header",
            Refusal::HeadTooLong => "head_too_long",
            Refusal::Body => "body",
            Refusal::BodyTooLarge => "body_too_large",
            Refusal::Timeout => "timeout",
            Refusal::Proxy => "proxy",
            Refusal::Protocol => "protocol",
            Refusal::Overloaded => "overloaded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_the_word_of_its_place() {
        assert!(Cause::ALL.iter().enumerate().all(|(place, &cause)| cause as usize == place));
        assert!(Refusal::ALL.iter().enumerate().all(|(place, &refusal)| refusal as usize == place));
    }
}
