//! Files that the app names in `X-Sendfile` or `X-Accel-Redirect` instead of sending them.

use crate::static_files::{ask, long, plan};
use crate::util::server::Server;

#[test]
fn the_apps_files_are_sent_in_place_of_its_body() {
    let plan = plan("sendfile", "");
    let folder = plan.path("static");
    let protected = format!("/protected={}", folder.display());
    let mut server = plan.args(["--x-sendfile", folder.to_str().expect("a path"), "--x-accel-map", &protected]).start();
    let mut client = server.connect();
    let file = folder.join("a.css").display().to_string();
    let query = |status: &str, headers: &[(&str, &str)]| {
        let headers: Vec<String> = headers.iter().map(|(name, value)| format!("[\"{name}\",\"{value}\"]")).collect();
        format!("[\"{status}\",[{}]]", headers.join(",")).replace(' ', "%20").replace('"', "%22")
    };
    for path in ["/", "/write", "/wrapper", "/generator", "/twice"] {
        for header in [("X-Sendfile", file.as_str()), ("x-accel-redirect", "/protected/a.css")] {
            let headers = [header, ("Content-Length", "3"), ("Set-Cookie", "a=b")];
            let target = format!("{path}?{}", query("200 OK", &headers));
            let response = client.get(&target);
            assert_eq!((response.status, response.text().as_str()), (200, "body {}"), "{target}");
            assert_eq!(response.header("Content-Type"), Some("text/css; charset=utf-8"));
            assert_eq!((response.header(header.0), response.header("Set-Cookie")), (None, Some("a=b")));
            let etag = format!("If-None-Match: {}", response.header("ETag").expect("a tag"));
            assert_eq!(ask(&mut client, &target, &[&etag]).status, 304, "{target}");
            let part = ask(&mut client, &target, &["Range: bytes=-2"]);
            assert_eq!((part.status, part.text().as_str()), (206, "{}"), "{target}");
            let head = client.request("HEAD", &target, &[], b"");
            assert_eq!((head.status, head.content_length()), (200, Some(7)), "{target}");
            assert_eq!(client.request("POST", &target, &["Range: bytes=-2"], b"x").text(), "body {}", "{target}");
        }
    }
    let long_file = ("X-Accel-Redirect", "/protected/long");
    assert!(client.get(&format!("/?{}", query("200 OK", &[long_file]))).body == long());
    let parts = ask(&mut client, &format!("/?{}", query("200 OK", &[long_file])), &["Range: bytes=0-9,100000-250000"]);
    assert!(parts.status == 206 && parts.body.len() > 150_010, "{} {}", parts.status, parts.body.len());
    let refused = client.get(&format!("/?{}", query("403 Forbidden", &[("X-Sendfile", &file)])));
    assert_eq!((refused.status, refused.text().as_str()), (403, "body {}"));
    let nothing = client.get(&format!("/?{}", query("204 No Content", &[("X-Sendfile", &file)])));
    assert_eq!((nothing.status, nothing.header("X-Sendfile"), nothing.content_length()), (204, None, None));
    for (header, status) in [
        (("X-Sendfile", "/etc/passwd"), 500),
        (("X-Sendfile", &format!("{}/../secret", folder.display())), 500),
        (("X-Sendfile", &format!("{}/none", folder.display())), 404),
        (("X-Accel-Redirect", "/protected/../secret"), 500),
        (("X-Accel-Redirect", "/elsewhere/a.css"), 500),
        (("X-Accel-Redirect", "/protected/none"), 404),
    ] {
        let response = client.get(&format!("/?{}", query("200 OK", &[header])));
        assert_eq!(response.status, status, "{header:?}");
        assert!(!response.text().contains("not what"), "{header:?}");
    }
    // What nobody has allowed is a header like any other, and clients cannot ask for the files.
    assert_eq!(client.get("/protected/a.css").text(), "not what was asked for");
    server.wait_for_log("Cannot send the file that the app has named (X-Sendfile: \"/etc/passwd\")");
    server.allow("Cannot send the file");
    server.finish();
    let server = Server::start("sendfile", []);
    let response = server.get(&format!("/?{}", query("200 OK", &[("X-Sendfile", "/etc/passwd")])));
    assert_eq!(
        (response.header("X-Sendfile"), response.text().as_str()),
        (Some("/etc/passwd"), "not what was asked for")
    );
    server.finish();
}
