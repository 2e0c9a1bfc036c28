//! What the server tells of itself: numbers from the scoreboard and the kernel, by their names.
//!
//! [`families`] gathers them, [`text`] prints them for Prometheus, [`http`] answers a scraper;
//! [`statsd`] tells an agent. This layer must not know who reads, nor how a worker or the master
//! comes by its numbers. No name of a client's choice ever becomes a label: what a label can be is
//! a closed list.

pub mod families;
pub mod http;
pub mod statsd;
pub mod text;

pub use self::families::{Extras, Family, Kind, Sample, Source, gather};
