//! A response for which the application has named a file (`X-Sendfile`, `X-Accel-Redirect`): the
//! file takes the place of its body.

use std::sync::Arc;

use super::response_writer::ResponseHead;
use crate::files::{AppFiles, Asked};
use crate::http::conditional::Conditions;
use crate::http::error::reason_phrase;
use crate::http::request::RequestHead;

/// Puts the file that was `asked` for in place of the body of the response with this `head`, or a
/// page that says why not. `request` is the head of the request, and what its spans point into. May
/// wait for the disk.
pub fn put_in_place(head: &mut ResponseHead, files: &Arc<AppFiles>, asked: &Asked, request: &(RequestHead, Vec<u8>)) {
    let (request, source) = request;
    let method = request.method.of(source);
    let (is_get, is_head) = (method == b"GET", method == b"HEAD");
    let conditions = if is_get || is_head { Conditions::of(request, source) } else { Conditions::default() };
    let reply = files.reply(asked, (head.code, &head.headers), &conditions, is_head).unwrap_or_else(|refusal| {
        log::error!("Cannot send the file that the app has named ({}): {refusal}", asked.describe());
        refusal.reply()
    });
    if reply.status != head.code {
        head.code = reply.status;
        head.status = format!("{} {}", reply.status, reason_phrase(reply.status)).into_bytes();
        head.known.set_status(None);
    }
    head.content_length = (!reply.body.is_empty()).then_some(reply.length);
    head.headers = reply.lines;
    head.body = Some(reply.body);
}
