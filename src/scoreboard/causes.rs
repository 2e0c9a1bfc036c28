//! The closed lists that the scoreboard counts by: why workers ended, and why requests were
//! refused.

/// Why a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitCause {
    /// The server stops.
    Stop,
    /// A reload or an upgrade has put another in its place; or it asked for a replacement without
    /// `max_requests`.
    Reload,
    /// There were too many (TTOU, `workers`).
    ScaleDown,
    /// It asked for a replacement under `max_requests`.
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

impl ExitCause {
    /// All of them, in the order of their words on the board.
    pub const ALL: [ExitCause; 12] = [
        ExitCause::Stop,
        ExitCause::Reload,
        ExitCause::ScaleDown,
        ExitCause::MaxRequests,
        ExitCause::Lifetime,
        ExitCause::Memory,
        ExitCause::Timeout,
        ExitCause::RequestTimeout,
        ExitCause::BootFailed,
        ExitCause::Crash,
        ExitCause::OutOfMemory,
        ExitCause::Killed,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            ExitCause::Stop => "stop",
            ExitCause::Reload => "reload",
            ExitCause::ScaleDown => "scale_down",
            ExitCause::MaxRequests => "max_requests",
            ExitCause::Lifetime => "lifetime",
            ExitCause::Memory => "memory",
            ExitCause::Timeout => "timeout",
            ExitCause::RequestTimeout => "request_timeout",
            ExitCause::BootFailed => "boot_failed",
            ExitCause::Crash => "crash",
            ExitCause::OutOfMemory => "oom",
            ExitCause::Killed => "killed",
        }
    }
}

/// Why a request was refused without the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalCause {
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
    /// The client spoke the wrong one of HTTP, HTTPS and uwsgi.
    Protocol,
    /// The worker had to make room.
    Overloaded,
}

impl RefusalCause {
    /// All of them, in the order of their words on the board.
    pub const ALL: [RefusalCause; 9] = [
        RefusalCause::RequestLine,
        RefusalCause::Header,
        RefusalCause::HeadTooLong,
        RefusalCause::Body,
        RefusalCause::BodyTooLarge,
        RefusalCause::Timeout,
        RefusalCause::Proxy,
        RefusalCause::Protocol,
        RefusalCause::Overloaded,
    ];

    /// Its name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            RefusalCause::RequestLine => "request_line",
            RefusalCause::Header => "header",
            RefusalCause::HeadTooLong => "head_too_long",
            RefusalCause::Body => "body",
            RefusalCause::BodyTooLarge => "body_too_large",
            RefusalCause::Timeout => "timeout",
            RefusalCause::Proxy => "proxy",
            RefusalCause::Protocol => "protocol",
            RefusalCause::Overloaded => "overloaded",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_the_word_of_its_place() {
        assert!(ExitCause::ALL.iter().enumerate().all(|(place, &cause)| cause as usize == place));
        assert!(RefusalCause::ALL.iter().enumerate().all(|(place, &refusal)| refusal as usize == place));
    }
}
