//! A Django project over real HTTP, with one worker and with three, over TCP and over a unix
//! socket: sessions, the admin behind its CSRF form, a 20 MB upload, a stream, static files.

use std::process::Command;

use crate::flask::{MULTIPART, multipart, sha256};
use crate::util::client::{Client, Response};
use crate::util::server::{Plan, Server};
use crate::util::{apps, venv};

#[test]
fn one_worker_over_tcp() {
    drive(site(), 1);
}

#[test]
fn one_worker_over_a_unix_socket() {
    drive(site().unix(), 1);
}

#[test]
fn three_workers_over_tcp() {
    drive(site().args(["--workers", "3"]), 3);
}

#[test]
fn three_workers_over_a_unix_socket() {
    drive(site().unix().args(["--workers", "3"]), 3);
}

fn drive(plan: Plan, workers: usize) {
    let mut server = plan.start();
    server.wait_for_workers(workers);
    session(&server);
    admin_login(&server);
    upload(&server);
    stream(&mut server.connect());
    static_files(&mut server.connect());
    addresses(&mut server.connect());
    for text in ["Forbidden (CSRF", "Not Found: "] {
        server.allow(text);
    }
    server.finish();
}

fn session(server: &Server) {
    let mut jar = Jar::default();
    for visit in 1..=5 {
        let answer = jar.request(&mut server.connect(), "GET", "/visits", b"");
        assert_eq!(answer.json()["visits"].number(), f64::from(visit));
    }
}

fn admin_login(server: &Server) {
    let mut jar = Jar::default();
    let mut client = server.connect();
    let redirected = jar.request(&mut client, "GET", "/admin/", b"");
    assert_eq!((redirected.status, redirected.header("Location")), (302, Some("/admin/login/?next=/admin/")));
    let form = jar.request(&mut client, "GET", "/admin/login/?next=/admin/", b"");
    let page = form.text();
    let token = form_token(&page);

    let without = jar.request(&mut client, "POST", "/admin/login/", b"username=admin&password=secret");
    assert_eq!(without.status, 403, "the token is needed");

    let fields = format!("csrfmiddlewaretoken={token}&username=admin&password=secret&next=%2Fadmin%2F");
    let welcome = jar.request(&mut client, "POST", "/admin/login/?next=/admin/", fields.as_bytes());
    assert_eq!((welcome.status, welcome.header("Location")), (302, Some("/admin/")), "{}", welcome.text());
    let admin = jar.request(&mut client, "GET", "/admin/", b"");
    assert_eq!(admin.status, 200);
    assert!(admin.text().contains("Site administration"), "{}", admin.text());
}

fn upload(server: &Server) {
    let content: Vec<u8> = (0..20_000_000u32).map(|index| (index % 251) as u8).collect();
    let answer = server.connect().request("POST", "/upload", &[MULTIPART], &multipart("big.bin", &content)).json();
    assert_eq!(answer["size"].number() as usize, content.len());
    assert_eq!(answer["sha256"], sha256(&content).as_str());
}

fn stream(client: &mut Client) {
    let wanted: String = (0..1000).map(|number| format!("line {number}\n")).collect();
    assert_eq!(client.get("/stream").text(), wanted);
}

fn static_files(client: &mut Client) {
    let css = client.get("/static/site.css");
    assert_eq!((css.status, css.text().as_str()), (200, "body { color: #123456; }\n"));
    assert_eq!(css.header("Content-Type"), Some("text/css; charset=\"utf-8\""));
    // WhiteNoise returns a file by wsgi.file_wrapper: the whole, a part of it, or nothing if the
    // client has it cached.
    let part = client.request("GET", "/static/site.css", &["Range: bytes=5-9"], b"");
    assert_eq!((part.status, part.text().as_str()), (206, "{ col"));
    let modified = css.header("Last-Modified").expect("a date").to_string();
    let known = client.request("GET", "/static/site.css", &[&format!("If-Modified-Since: {modified}")], b"");
    assert_eq!((known.status, known.body.len()), (304, 0));
    let admin_css = client.get("/static/admin/css/base.css");
    assert!(admin_css.status == 200 && admin_css.body.len() > 10_000);
}

fn addresses(client: &mut Client) {
    let seen = client.request("GET", "/where/a%20b/%C3%A9?q=1", &["X-Forwarded-Proto: https"], b"").json();
    assert_eq!(seen["uri"].text(), "https://test/where/a%20b/%C3%A9?q=1");
    assert_eq!(client.get("/where/../visits").status, 200, "dots are Django's to judge");
}

/// A fresh project: database, static files and an administrator in the test's own folder.
fn site() -> Plan {
    let project = apps().join("django_site");
    let plan = Plan::app("site_project.wsgi").chdir(&project);
    let data = plan.path("data").display().to_string();
    std::fs::create_dir(&data).expect("the test's folder is writable");
    let script = "import django; django.setup()\n\
        from django.core.management import call_command as call\n\
        call('migrate', verbosity=0)\n\
        call('collectstatic', interactive=False, verbosity=0)\n\
        call('createsuperuser', interactive=False, username='admin', email='a@example.org', verbosity=0)\n";
    let made = Command::new(venv().join("bin/python"))
        .args(["-c", script])
        .current_dir(&project)
        .env("SITE_DATA", &data)
        .env("DJANGO_SETTINGS_MODULE", "site_project.settings")
        .env("DJANGO_SUPERUSER_PASSWORD", "secret")
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .output()
        .expect("the virtualenv has a python");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    plan.env("SITE_DATA", &data)
}

fn form_token(page: &str) -> &str {
    let after = page.split_once("name=\"csrfmiddlewaretoken\" value=\"").expect("a login form").1;
    after.split_once('"').expect("a token").0
}

/// The cookies of one browser.
#[derive(Default)]
struct Jar {
    cookies: Vec<(String, String)>,
}

impl Jar {
    fn request(&mut self, client: &mut Client, method: &str, target: &str, form: &[u8]) -> Response {
        let pairs: Vec<String> = self.cookies.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let mut headers = Vec::new();
        let cookie = format!("Cookie: {}", pairs.join("; "));
        if !pairs.is_empty() {
            headers.push(cookie.as_str());
        }
        if !form.is_empty() {
            headers.push("Content-Type: application/x-www-form-urlencoded");
        }
        let response = client.request(method, target, &headers, form);
        for line in response.all("Set-Cookie") {
            let (name, value) = line.split(';').next().expect("a pair").split_once('=').expect("a pair");
            self.cookies.retain(|(known, _)| known != name);
            self.cookies.push((name.to_string(), value.to_string()));
        }
        response
    }
}
