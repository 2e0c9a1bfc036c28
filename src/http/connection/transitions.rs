//! What can happen to a connection in which stage, and where it leads: the table of the module's
//! documentation, as data.

/// A [`super::Stage`] without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum StageKind {
    Proxy,
    Idle,
    Head,
    Body,
    Serving,
    Closing,
    Lingering,
    Over,
}

/// What happens. Each is one of [`super::Http1`]'s methods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Event {
    Bytes,
    End,
    Broken,
    Time,
    FinishedKeepAlive,
    FinishedClose,
    Flushed,
    Gathered,
    Refused,
    Linger,
    Close,
}

/// A [`super::Action`] without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ActionKind {
    Wait,
    SendContinue,
    EndProxy,
    Serve,
    Refuse,
    Flush,
    Rest,
    ShutDown,
    LastLook,
    Left,
    Close,
}

/// Where an event can lead in a stage.
pub(super) struct TransitionRow {
    pub(super) stage: StageKind,
    pub(super) event: Event,
    pub(super) outcomes: &'static [(StageKind, ActionKind)],
}

/// Whether the table has this transition.
pub(super) fn allows(from: StageKind, event: Event, to: StageKind, action: ActionKind) -> bool {
    TABLE.iter().any(|row| row.stage == from && row.event == event && row.outcomes.contains(&(to, action)))
}

const fn row(stage: StageKind, event: Event, outcomes: &'static [(StageKind, ActionKind)]) -> TransitionRow {
    TransitionRow { stage, event, outcomes }
}

/// Every transition.
#[rustfmt::skip]
pub(super) const TABLE: &[TransitionRow] = {
    use ActionKind as A;
    use Event as E;
    use StageKind as S;
    /// What a head leads to, however its bytes have come.
    const HEAD: &[(StageKind, ActionKind)] = &[
        (S::Head, A::Wait), (S::Body, A::Wait), (S::Body, A::SendContinue), (S::Serving, A::Serve),
        (S::Lingering, A::Refuse),
    ];
    /// The same, and an empty line before it leads nowhere.
    const LINE_OR_HEAD: &[(StageKind, ActionKind)] = &[
        (S::Idle, A::Wait), (S::Head, A::Wait), (S::Body, A::Wait), (S::Body, A::SendContinue),
        (S::Serving, A::Serve), (S::Lingering, A::Refuse),
    ];
    &[
        row(S::Proxy, E::Bytes, &[
            (S::Proxy, A::Wait), (S::Idle, A::EndProxy), (S::Head, A::EndProxy), (S::Lingering, A::Refuse),
        ]),
        row(S::Proxy, E::End, &[(S::Proxy, A::Close)]),
        row(S::Proxy, E::Broken, &[(S::Proxy, A::Close)]),
        row(S::Proxy, E::Time, &[(S::Proxy, A::Wait), (S::Proxy, A::Close), (S::Lingering, A::Refuse)]),
        row(S::Proxy, E::Close, &[(S::Over, A::Wait)]),

        row(S::Idle, E::Bytes, LINE_OR_HEAD),
        row(S::Idle, E::End, &[(S::Idle, A::Close)]),
        row(S::Idle, E::Broken, &[(S::Idle, A::Close)]),
        row(S::Idle, E::Time, &[(S::Idle, A::Wait), (S::Idle, A::LastLook)]),
        row(S::Idle, E::Flushed, &[(S::Idle, A::Wait), (S::Idle, A::Rest)]),
        row(S::Idle, E::Gathered, &[(S::Idle, A::Close), (S::Serving, A::Serve), (S::Lingering, A::Refuse)]),
        row(S::Idle, E::Refused, &[(S::Lingering, A::Refuse)]),
        row(S::Idle, E::Linger, &[(S::Lingering, A::Wait)]),
        row(S::Idle, E::Close, &[(S::Over, A::Wait)]),

        row(S::Head, E::Bytes, HEAD),
        row(S::Head, E::End, &[(S::Head, A::Close)]),
        row(S::Head, E::Broken, &[(S::Head, A::Close)]),
        row(S::Head, E::Time, &[(S::Head, A::Wait), (S::Lingering, A::Refuse)]),
        row(S::Head, E::Flushed, HEAD),
        row(S::Head, E::Refused, &[(S::Lingering, A::Refuse)]),
        row(S::Head, E::Linger, &[(S::Lingering, A::Wait)]),
        row(S::Head, E::Close, &[(S::Over, A::Wait)]),

        row(S::Body, E::Bytes, &[(S::Body, A::Wait), (S::Serving, A::Serve), (S::Lingering, A::Refuse)]),
        row(S::Body, E::End, &[(S::Body, A::Left), (S::Lingering, A::Refuse)]),
        row(S::Body, E::Broken, &[(S::Body, A::Left)]),
        row(S::Body, E::Time, &[(S::Body, A::Wait), (S::Lingering, A::Refuse)]),
        row(S::Body, E::Flushed, &[(S::Body, A::Wait)]),
        row(S::Body, E::Linger, &[(S::Lingering, A::Wait)]),
        row(S::Body, E::Close, &[(S::Over, A::Wait)]),

        row(S::Serving, E::Time, &[(S::Serving, A::Wait)]),
        row(S::Serving, E::FinishedKeepAlive, &[(S::Idle, A::Flush), (S::Head, A::Flush)]),
        row(S::Serving, E::FinishedClose, &[(S::Closing, A::Flush)]),
        row(S::Serving, E::Flushed, &[(S::Serving, A::Wait)]),
        row(S::Serving, E::Close, &[(S::Over, A::Wait)]),

        row(S::Closing, E::Time, &[(S::Closing, A::Wait)]),
        row(S::Closing, E::Flushed, &[(S::Closing, A::Close)]),
        row(S::Closing, E::Close, &[(S::Over, A::Wait)]),

        row(S::Lingering, E::Bytes, &[(S::Lingering, A::Wait), (S::Lingering, A::Close)]),
        row(S::Lingering, E::End, &[(S::Lingering, A::Wait), (S::Lingering, A::Close)]),
        row(S::Lingering, E::Broken, &[(S::Lingering, A::Close)]),
        row(S::Lingering, E::Time, &[(S::Lingering, A::Wait), (S::Lingering, A::Close)]),
        row(S::Lingering, E::Flushed, &[(S::Lingering, A::ShutDown)]),
        row(S::Lingering, E::Close, &[(S::Over, A::Wait)]),

        row(S::Over, E::Time, &[(S::Over, A::Wait)]),
        row(S::Over, E::Linger, &[(S::Lingering, A::Wait)]),
        row(S::Over, E::Close, &[(S::Over, A::Wait)]),
    ]
};

/// What cannot happen in a stage, and why not.
#[cfg(test)]
#[rustfmt::skip]
pub(super) const NEVER: &[(StageKind, &[Event], &str)] = {
    use Event as E;
    use StageKind as S;
    &[
        (S::Proxy, &[E::FinishedKeepAlive, E::FinishedClose], "no request has begun"),
        (S::Proxy, &[E::Flushed], "nothing is queued"),
        (S::Proxy, &[E::Gathered], "a connection that is handed over is past it"),
        (S::Proxy, &[E::Refused, E::Linger], "TLS has not begun, and the header is refused here"),
        (S::Idle, &[E::FinishedKeepAlive, E::FinishedClose], "no request is served"),
        (S::Head, &[E::FinishedKeepAlive, E::FinishedClose], "no request is served"),
        (S::Head, &[E::Gathered], "it is the first event of a connection"),
        (S::Body, &[E::FinishedKeepAlive, E::FinishedClose], "no request is served"),
        (S::Body, &[E::Gathered], "it is the first event of a connection"),
        (S::Body, &[E::Refused], "the caller objects only to what comes before a head"),
        (S::Serving, &[E::Bytes, E::End, E::Broken], "nothing is read until the response is out"),
        (S::Serving, &[E::Gathered, E::Refused, E::Linger], "the request is ready already"),
        (S::Closing, &[E::Bytes, E::End, E::Broken], "nothing is read until the response is out"),
        (S::Closing, &[E::FinishedKeepAlive, E::FinishedClose], "the request is answered already"),
        (S::Closing, &[E::Gathered, E::Refused, E::Linger], "no request follows"),
        (S::Lingering, &[E::FinishedKeepAlive, E::FinishedClose, E::Gathered, E::Refused], "no request follows"),
        (S::Lingering, &[E::Linger], "it does so already"),
        (S::Over, &[E::Bytes, E::End, E::Broken], "nothing is read"),
        (S::Over, &[E::Flushed], "nothing is sent"),
        (S::Over, &[E::FinishedKeepAlive, E::FinishedClose, E::Gathered, E::Refused], "no request follows"),
    ]
};
