//! The C library's words for error numbers.

use std::io;

use nix::errno::Errno;

/// An error as Python shows an `OSError`, which is the text that people search their logs for:
/// `[Errno 98] Address already in use`.
pub fn as_python_shows(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(number) => format!("[Errno {number}] {}", Errno::from_raw(number).desc()),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_kernel_has_its_number_and_any_other_its_text() {
        let shown = as_python_shows(&io::Error::from_raw_os_error(libc::EADDRINUSE));
        assert_eq!(shown, format!("[Errno {}] Address already in use", libc::EADDRINUSE));
        assert_eq!(as_python_shows(&io::Error::other("no")), "no");
    }
}
