//! Mechanisms that exist for speed alone, and a way to measure the server without one of them.
//!
//! `scripts/bench --without NAME` builds the program with the feature `ablation`, which no other
//! build has, and names a mechanism in the environment. Without the feature [`is_off`] is constant,
//! and the compiler removes it. What each mechanism brings stands in
//! `docs/internals/performance.md`.

#[cfg(feature = "ablation")]
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// A mechanism that the server would be correct without.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// Header blocks that have been read before are compared instead of parsed.
    HeaderCache,
    /// An environ with the headers of a cached block in it is copied.
    EnvironTemplates,
    /// The objects of a request serve the next one.
    ObjectReuse,
    /// The `str` of a value that comes again is used again.
    ValueCache,
    /// The key of a header name that comes again is used again.
    HeaderNames,
    /// The lines of response headers that come again are used again.
    HeaderLines,
    /// A short response waits for those to requests that are ready.
    ResponseBatching,
    /// A block of an iteration waits for the next.
    BlockBatching,
    /// The head and the blocks of a short response are put together before they are sent.
    Gathering,
    /// The buffer of a request's body goes to the next request with a body.
    BodyBuffers,
    /// The last bytes of a connection leave together with its end.
    CorkedEnd,
    /// Pages of code that only the start has needed are given back to the kernel.
    CodeGivenBack,
}

/// Every mechanism, and its name for `scripts/bench --without`.
pub const MECHANISMS: [(Mechanism, &str); 12] = [
    (Mechanism::HeaderCache, "header-cache"),
    (Mechanism::EnvironTemplates, "environ-templates"),
    (Mechanism::ObjectReuse, "object-reuse"),
    (Mechanism::ValueCache, "value-cache"),
    (Mechanism::HeaderNames, "header-names"),
    (Mechanism::HeaderLines, "header-lines"),
    (Mechanism::ResponseBatching, "response-batching"),
    (Mechanism::BlockBatching, "block-batching"),
    (Mechanism::Gathering, "gathering"),
    (Mechanism::BodyBuffers, "body-buffers"),
    (Mechanism::CorkedEnd, "corked-end"),
    (Mechanism::CodeGivenBack, "code-given-back"),
];

/// One bit for each mechanism that is switched off.
#[cfg(feature = "ablation")]
static SWITCHED_OFF: AtomicU32 = AtomicU32::new(0);

/// Whether the server does without the mechanism.
#[cfg(feature = "ablation")]
pub fn is_off(mechanism: Mechanism) -> bool {
    SWITCHED_OFF.load(Relaxed) & (1 << mechanism as u32) != 0
}

/// Whether the server does without the mechanism: it does not, in this build.
#[cfg(not(feature = "ablation"))]
#[inline(always)]
pub const fn is_off(_mechanism: Mechanism) -> bool {
    false
}

/// Switches the mechanism with this name off, from now on.
///
/// # Errors
/// A sentence that no mechanism has this name.
#[cfg(feature = "ablation")]
pub fn switch_off(name: &str) -> Result<(), String> {
    let Some((mechanism, _)) = MECHANISMS.iter().find(|(_, known)| *known == name) else {
        let known: Vec<&str> = MECHANISMS.iter().map(|(_, name)| *name).collect();
        return Err(format!("no mechanism is called {name:?}; there are: {}", known.join(", ")));
    };
    SWITCHED_OFF.fetch_or(1 << *mechanism as u32, Relaxed);
    Ok(())
}
