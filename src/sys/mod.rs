//! The kernel, one module for each subject. In the library only this layer and `python` have unsafe
//! blocks.
//!
//! Everything here takes plain values and answers with `io::Result` or a small error of its own. It
//! must not know the settings, HTTP, Python or its callers. It never logs: the caller knows what a
//! failure means.

pub mod beneath;
pub mod cgroup;
pub mod clock;
pub mod daemon;
pub mod errno;
pub mod failure_note;
pub mod fd_channel;
pub mod fork;
pub mod inotify;
pub mod log_file;
pub mod memory;
pub mod notify;
pub mod output;
pub mod pidfile;
pub mod poll;
pub mod process;
pub mod random;
pub mod retry;
pub mod seqlock;
pub mod shared;
pub mod signal;
pub mod socket;
pub mod stack_file;
pub mod stop_accepting;
mod stream;
pub mod system;
pub mod tcp_info;
pub mod terminal;
pub mod thread;
pub mod title;
pub mod unix_client;
pub mod user;
pub mod wakeup;
