//! The lowest layer: small functions that several layers need and no crate offers.
//!
//! It must not know HTTP, settings or the system. A function belongs here once two layers that must
//! not name each other use it.
#![forbid(unsafe_code)]

pub mod ablation;
pub mod decimal;
pub mod repr;
pub mod unpoisoned;
