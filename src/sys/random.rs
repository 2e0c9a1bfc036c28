//! Random numbers of the kernel.

/// A number that no other process has, also none that was forked from the same one. The standard
/// library's hashers are no substitute: a fork copies their keys.
pub fn seed() -> u128 {
    let mut bytes = [0; 16];
    // SAFETY: the kernel writes at most so many bytes, which the array has.
    let written = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if written == bytes.len() as isize {
        return u128::from_ne_bytes(bytes);
    }
    // Only where a sandbox forbids the call: time and pid tell processes apart just as well.
    let time = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    time.as_nanos() << 32 | u128::from(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_are_equal() {
        assert_ne!(seed(), seed());
    }
}
