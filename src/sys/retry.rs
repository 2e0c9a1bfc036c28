//! Two errors of a system call that are no failures: after EINTR the call is made again, and EAGAIN
//! says that a non-blocking call would have to wait.

use std::io::{self, ErrorKind};

/// Calls `call` again while signals interrupt it (EINTR); `None` when it would block (EAGAIN).
///
/// # Errors
/// Any other error of `call`.
pub fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<Option<T>> {
    loop {
        match call() {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(None),
            result => return result.map(Some),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interrupted_call_is_repeated_and_one_that_would_block_gives_none() {
        let mut calls = 0;
        let result = retry(|| {
            calls += 1;
            if calls < 3 { Err(ErrorKind::Interrupted.into()) } else { Ok(calls) }
        });
        assert_eq!(result.unwrap(), Some(3));
        assert_eq!(retry(|| Err::<(), _>(ErrorKind::WouldBlock.into())).unwrap(), None);
        let other = retry(|| Err::<(), _>(ErrorKind::BrokenPipe.into())).unwrap_err();
        assert_eq!(other.kind(), ErrorKind::BrokenPipe);
    }
}
