//! Certificates and keys as operators handle them: wrong ones, new ones while clients come and go,
//! one for each host.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use nix::sys::signal::Signal::SIGHUP;

use crate::util::client::{Address, Client};
use crate::util::load::{Load, version};
use crate::util::server::{Plan, Server};
use crate::util::tls::{Authority, Issued, Key, openssl, word};
use crate::util::{is_root, wait_until};

/// Files that cannot be used, and a part of the sentence that says so.
#[test]
fn a_mistake_in_the_files_is_one_sentence_and_status_1() {
    let root = Authority::root("Test root");
    let [good, other] = ["a", "b"].map(|name| root.server(Key::Ecdsa, &[name]));
    let encrypted = openssl(&["pkey", "-aes128", "-passout", "pass:secret"], &good.key).text;
    let cases: &[(&str, &str, &[&str], &str)] = &[
        ("none.pem", "good.key", &[], "certfile \"none.pem\" does not exist"),
        ("good.pem", "none.key", &[], "keyfile \"none.key\" does not exist"),
        ("good.pem", "garbage", &[], "\"garbage\" holds no private key"),
        ("garbage", "good.key", &[], "\"garbage\" holds no certificate that can be used"),
        ("good.key", "good.key", &[], "\"good.key\" holds no certificate that can be used"),
        ("broken.pem", "good.key", &[], "the certificate in \"broken.pem\" is broken"),
        ("cut.pem", "good.key", &[], "\"cut.pem\" is not a PEM file that can be read"),
        ("good.pem", "other.key", &[], "the key in \"other.key\" does not belong to the certificate in \"good.pem\""),
        ("good.pem", "encrypted.key", &[], "the key in \"encrypted.key\" is encrypted"),
        ("good.pem", "broken.key", &[], "the key in \"broken.key\" cannot be used"),
        ("good.pem", "tmp", &[], "keyfile \"tmp\" cannot be read: Is a directory"),
        ("good.pem", "good.key", &["--ca-certs", "none", "--cert-reqs", "2"], "ca_certs \"none\" does not exist"),
        ("good.pem", "good.key", &["--ca-certs", "garbage", "--cert-reqs", "1"], "\"garbage\" holds no certificate"),
        ("good.pem", "good.key", &["--cert-reqs", "2"], "cert_reqs demands client certificates, but without ca_certs"),
        ("good.pem", "good.key", &["--ciphers", "RC4:AES128-SHA"], "no cipher suite is left by 'ciphers'"),
        ("good.pem", "good.key", &["--tls-certificate", "good.pem,other.key"], "does not belong to the certificate"),
    ];
    for &(certificate, key, more, expected) in cases {
        let plan =
            Plan::app("app").in_own_folder().file("app.py", &version(1)).pair("good", &good).pair("other", &other);
        let plan = plan
            .file("garbage", "garbage\n")
            .file("encrypted.key", &encrypted)
            .file("cut.pem", &good.certificate[..60]);
        let plan = plan.file("broken.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        let plan = plan.file("broken.key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n");
        let finished = more
            .iter()
            .fold(plan.args(["--certfile", certificate, "--keyfile", key]), |plan, word| plan.args([*word]))
            .run();
        assert_eq!(finished.code, Some(1), "{expected}: {}", finished.stderr);
        let lines: Vec<&str> = finished.stderr.trim().lines().collect();
        assert!(
            lines.len() == 1 && lines[0].starts_with("Error: ") && lines[0].contains(expected),
            "{expected}: {lines:?}"
        );
    }
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).pair("good", &good);
    let finished = plan.args(["--keyfile", "good.key"]).run();
    assert_eq!((finished.code, finished.stderr.trim()), (Some(1), "Error: keyfile is set, but no certfile"));
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).pair("good", &good);
    let finished = plan.args(["--check-config", "--certfile", "good.pem", "--keyfile", "none.key"]).run();
    assert_eq!((finished.code, finished.stderr.trim()), (Some(1), "Error: keyfile \"none.key\" does not exist"));
}

#[test]
fn odd_settings_are_warned_of() {
    let root = Authority::root("Test root");
    let [middle, stranger] = ["Middle", "Stranger"].map(|name| root.intermediate(name));
    let issued = middle.server(Key::Ecdsa, &["localhost"]).chained(&stranger);
    let plan =
        Plan::app("tls").args(["--ciphers", "ECDHE+AESGCM:DHE-RSA-AES128-GCM-SHA256:!aNULL", "--cert-reqs", "1"]);
    let mut server = plan.args(["--ssl-version", "TLSv1_2"]).tls(&issued).start();
    for expected in [
        "no cipher suite here matches DHE-RSA-AES128-GCM-SHA256 of 'ciphers'",
        "is broken: 'CN=localhost' is signed by 'CN=Middle', but 'CN=Stranger' follows",
        "cert_reqs asks for client certificates, but there are no ca_certs",
        "the setting 'ssl_version' has no effect",
    ] {
        server.wait_for_log(expected);
        server.allow(expected);
    }
    server.finish();
}

#[test]
fn one_file_may_hold_certificate_and_key() {
    let root = Authority::root("Test root");
    let issued = root.server(Key::Ecdsa, &["localhost"]);
    let both = Issued { certificate: issued.key.clone() + &issued.certificate, key: String::new() };
    let plan = Plan::app("tls").pair("both", &both);
    let file = word(plan.path("both.pem"));
    let server = plan.args(["--certfile", &file]).start().trusting(root.trust());
    assert_eq!(server.get("/").text(), "ok");
    server.finish();
}

#[test]
fn the_ciphers_of_the_setting_are_the_ones_that_are_spoken() {
    let root = Authority::root("Test root");
    let issued = root.server(Key::Rsa, &["localhost"]);
    let cases = [
        ("ECDHE-RSA-CHACHA20-POLY1305", "-tls1_2", Some("ECDHE-RSA-CHACHA20-POLY1305")),
        ("ECDHE+AES128", "-tls1_2", Some("ECDHE-RSA-AES128-GCM-SHA256")),
        ("ECDHE+AES128", "-tls1_3", Some("TLS_AES_256_GCM_SHA384")),
        ("TLS_AES_128_GCM_SHA256", "-tls1_2", None),
    ];
    for (ciphers, version, expected) in cases {
        let mut server = Plan::app("tls").args(["--ciphers", ciphers]).tls(&issued).start();
        let to = format!("127.0.0.1:{}", server.address.port());
        let said = openssl(&["s_client", "-connect", &to, version], "").text;
        let cipher = said.lines().find_map(|line| line.split_once("Cipher is ").map(|(_, name)| name.trim()));
        assert_eq!(cipher.filter(|name| *name != "(NONE)"), expected, "{ciphers} {version}: {said}");
        server.allow("TLS: ");
        server.finish();
    }
}

#[test]
fn each_host_has_its_certificate() {
    let root = Authority::root("Test root");
    let main = root.server(Key::Ecdsa, &["localhost"]);
    let [shop, rsa] = [Key::Ecdsa, Key::Rsa].map(|key| root.server(key, &["shop.example"]));
    let all = root.server(Key::Ecdsa, &["*.all.example", "all.example"]);
    let plan = Plan::app("tls").pair("shop", &shop).pair("rsa", &rsa).pair("all", &all);
    let word = |plan: &Plan, name: &str| {
        format!("{},{}", word(plan.path(&format!("{name}.pem"))), word(plan.path(&format!("{name}.key"))))
    };
    let words = ["shop", "rsa", "all"].map(|name| word(&plan, name));
    let plan = words.iter().fold(plan, |plan, word| plan.args(["--tls-certificate", word]));
    let server = plan.tls(&main).start();
    let port = server.address.port();
    for (host, expected) in [
        ("localhost", &main),
        ("shop.example", &shop),
        ("SHOP.example", &shop),
        ("www.all.example", &all),
        ("all.example", &all),
        // No name at all is sent for an address.
        ("127.0.0.1", &main),
    ] {
        let shown = root.trust().asking_for(host).certificate_of(port).expect("a handshake");
        assert!(shown == expected.der(), "{host}");
    }
    // A client that can check RSA alone gets the host's RSA certificate.
    let to = format!("127.0.0.1:{port}");
    let arguments =
        ["s_client", "-connect", &to, "-servername", "shop.example", "-tls1_2", "-sigalgs", "RSA-PSS+SHA256"];
    // As OpenSSL 3 words it, up to 3.4 and from then on.
    let said = openssl(&arguments, "").text;
    assert!(["RSA-PSS", "rsa_pss"].iter().any(|kind| said.contains(&format!("Peer signature type: {kind}"))), "{said}");
    // Another host's client gets the default, and is the one to refuse it.
    let refused = root.trust().asking_for("other.example").certificate_of(port);
    assert!(refused.is_err_and(|error| error.to_string().contains("certificate")));
    let mut server = server;
    server.allow("TLS: ");
    server.finish();
}

/// A server with two workers whose certificates are in its folder, and how clients reach it.
fn renewable(root: &Authority, issued: &Issued, more: &[&str]) -> Server {
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).pair("server", issued);
    let plan = plan.args(["--workers", "2", "--certfile", "server.pem", "--keyfile", "server.key"]);
    let server = more.iter().fold(plan, |plan, word| plan.args([*word])).start().trusting(root.trust());
    server.wait_for_workers(2);
    server
}

fn replace(server: &Server, issued: &Issued) {
    // As certbot and others do it: each file whole, one after the other.
    for (name, text) in [("server.pem", &issued.certificate), ("server.key", &issued.key)] {
        server.write("new", text);
        fs::rename(server.path("new"), server.path(name)).expect("two files of one folder");
    }
}

/// Waits until every new connection is shown this certificate, many times in a row.
fn wait_until_shown(root: &Authority, server: &Server, issued: &Issued) {
    let (port, expected) = (server.address.port(), issued.der());
    wait_until("the new certificate from every worker", || {
        (0..20).all(|_| root.trust().certificate_of(port).expect("a handshake") == expected)
    });
}

#[test]
fn hup_takes_new_certificates_up_under_load_and_keeps_the_old_where_they_are_bad() {
    let root = Authority::root("Test root");
    let [first, second] = [(); 2].map(|()| root.server(Key::Ecdsa, &["localhost"]));
    let mut server = renewable(&root, &first, &[]);
    let workers = server.workers();
    let load = Load::during(&server.address, 4, |_| {
        wait_until_shown(&root, &server, &first);
        replace(&server, &second);
        server.signal(SIGHUP);
        wait_until_shown(&root, &server, &second);
        wait_until("the old workers to end", || server.workers().iter().all(|pid| !workers.contains(pid)));
    });
    load.expect_no_failure();
    assert!(load.ok() > 0, "{load}");

    let serving = server.wait_for_workers(2);
    for (file, bad, reason) in [
        ("server.key", first.key.as_str(), "does not belong to the certificate"),
        ("server.key", "garbage", "holds no private key"),
        ("server.pem", "garbage", "holds no certificate"),
    ] {
        server.write(file, bad);
        server.signal(SIGHUP);
        server.wait_for_log(reason);
        assert_eq!(server.workers(), serving);
        assert!(root.trust().certificate_of(server.address.port()).expect("a handshake") == second.der());
        replace(&server, &second);
    }
    fs::remove_file(server.path("server.key")).expect("it is there");
    server.signal(SIGHUP);
    server.wait_for_log("keyfile \"server.key\" does not exist");
    // A worker that is replaced meanwhile has the certificates of its generation.
    crate::util::server::send(serving[0], nix::sys::signal::Signal::SIGKILL);
    wait_until("another worker", || server.has_serving(2) && !server.workers().contains(&serving[0]));
    wait_until_shown(&root, &server, &second);
    server.allow("Reload failed, everything stays as it was");
    server.allow("was sent SIGKILL");
    server.finish();
}

#[test]
fn changed_files_are_taken_up_under_load_without_a_restart() {
    let root = Authority::root("Test root");
    let [first, second, third] = [(); 3].map(|()| root.server(Key::Ecdsa, &["localhost"]));
    let mut server = renewable(&root, &first, &["--tls-watch"]);
    let workers = server.wait_for_workers(2);
    let load = Load::during(&server.address, 4, |_| {
        wait_until_shown(&root, &server, &first);
        replace(&server, &second);
        wait_until_shown(&root, &server, &second);
    });
    load.expect_no_failure();
    assert!(load.ok() > 0, "{load}");
    server.wait_for_log("Certificates changed: new connections are under the new ones");

    server.write("server.key", &third.key);
    server.wait_for_log(
        "Certificates changed, but cannot be used; the old ones stay: the key in \"server.key\" does not belong",
    );
    assert!(root.trust().certificate_of(server.address.port()).expect("a handshake") == second.der());
    server.write("server.pem", &third.certificate);
    wait_until_shown(&root, &server, &third);
    assert_eq!(server.workers(), workers, "no worker was replaced");
    // A worker that comes later has them as well.
    crate::util::server::send(workers[0], nix::sys::signal::Signal::SIGKILL);
    wait_until("another worker", || server.has_serving(2) && !server.workers().contains(&workers[0]));
    wait_until_shown(&root, &server, &third);
    server.allow("cannot be used; the old ones stay");
    server.allow("was sent SIGKILL");
    server.finish();
}

#[test]
fn workers_need_not_be_able_to_read_the_key() {
    if !is_root() {
        return println!("not tried: this needs root");
    }
    let root = Authority::root("Test root");
    let [first, second] = [(); 2].map(|()| root.server(Key::Ecdsa, &["localhost"]));
    let secret = tempfile::Builder::new().permissions(fs::Permissions::from_mode(0o700)).tempdir().expect("a folder");
    let path = |name: &str| secret.path().join(name);
    let write = |issued: &Issued| {
        fs::write(path("pem"), &issued.certificate).expect("writable");
        fs::write(path("key"), &issued.key).expect("writable");
    };
    write(&first);
    // It imports nothing: the interpreter's own folder may be one that only root can enter.
    let app = "def application(environ, start_response):\n    start_response('200 OK', [])\n    return [b'ok']\n";
    let plan = Plan::app("app").in_own_folder().file("app.py", app);
    fs::set_permissions(plan.path(""), fs::Permissions::from_mode(0o755)).expect("our own folder");
    let plan = plan.args(["--certfile", &word(path("pem")), "--keyfile", &word(path("key"))]);
    let server = plan.args(["--user", "54321", "--group", "54322", "--tls-watch"]).start().trusting(root.trust());
    assert_eq!(server.get("/").text(), "ok");
    write(&second);
    wait_until_shown(&root, &server, &second);
    server.finish();
}

/// A port without TLS speaks TLS after a reload, and the other way round.
#[test]
fn a_reload_turns_tls_on_and_off() {
    let root = Authority::root("Test root");
    let issued = root.server(Key::Ecdsa, &["localhost"]);
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1)).pair("server", &issued).file("conf.py", "");
    let conf = word(plan.path("conf.py"));
    let server = plan.args(["--config", &conf]).start();
    let port = server.address.port();
    assert!(server.get("/").text().starts_with("v1"));
    server.write("conf.py", "certfile = 'server.pem'\nkeyfile = 'server.key'\n");
    server.signal(SIGHUP);
    let mut server = server;
    server.allow("TLS was sent to a port");
    wait_until("TLS", || root.trust().certificate_of(port).is_ok());
    server.write("conf.py", "");
    server.signal(SIGHUP);
    let plain = Address::Tcp(port);
    server.allow("Plain HTTP was sent to a port");
    wait_until("plain HTTP", || Client::connect(&plain).get("/").status == 200);
    server.finish();
}

/// A config file with an `ssl_context` hook, beside the pairs `server`, `other` and the authority
/// `clients.pem`.
fn hooked(hook: &str) -> (Plan, [Issued; 2], [Authority; 2]) {
    let authorities = ["Test root", "Client root"].map(Authority::root);
    let issued = ["localhost", "other.example"].map(|name| authorities[0].server(Key::Ecdsa, &[name, "localhost"]));
    let plan = Plan::app("app").in_own_folder().file("app.py", &version(1));
    let plan = plan.pair("server", &issued[0]).pair("other", &issued[1]).file("clients.pem", &authorities[1].pem());
    let conf = format!("import ssl\ncertfile = 'server.pem'\nkeyfile = 'server.key'\n\n{hook}");
    let plan = plan.file("conf.py", &conf);
    let path = word(plan.path("conf.py"));
    (plan.args(["--config", &path]), issued, authorities)
}

#[test]
fn an_ssl_context_hook_may_change_what_the_settings_say() {
    let hook = "def ssl_context(conf, default_ssl_context_factory):\n    context = default_ssl_context_factory()\n    \
                context.minimum_version = ssl.TLSVersion.TLSv1_3\n    return context\n";
    let (plan, [issued, _], [root, _]) = hooked(hook);
    let mut server = plan.start().trusting(root.trust());
    assert!(server.get("/").text().starts_with("v1"));
    let port = server.address.port();
    assert!(root.trust().certificate_of(port).expect("a handshake") == issued.der());
    let to = format!("127.0.0.1:{port}");
    assert!(openssl(&["s_client", "-connect", &to, "-tls1_2"], "").text.contains("alert protocol version"));
    server.allow("TLS: ");
    server.finish();
}

#[test]
fn an_ssl_context_of_the_hooks_own_is_taken_over() {
    let hook = "def ssl_context(conf, default_ssl_context_factory):\n    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n    \
                context.load_cert_chain('other.pem', 'other.key')\n    context.load_verify_locations('clients.pem')\n    \
                context.verify_mode = ssl.CERT_REQUIRED\n    context.set_ciphers('ECDHE+CHACHA20')\n    return context\n";
    let (plan, [_, other], [root, clients]) = hooked(hook);
    let mut server = plan.start();
    let port = server.address.port();
    let known = Address::Tls(port, root.trust_as(&clients.client("alice", 2090)));
    assert!(Client::connect(&known).get("/").text().starts_with("v1"));
    let stranger = Address::Tls(port, root.trust());
    let mut refused = Client::connect(&stranger);
    let _ = refused.try_send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(refused.read_for("GET").is_err());
    assert!(root.trust().certificate_of(port).expect("TLS 1.3 tells of a refusal later") == other.der());
    server.allow("TLS: ");
    server.finish();
}

#[test]
fn an_unsupported_context_is_refused_with_what_to_do_instead() {
    let within = |lines: &str| format!("def ssl_context(conf, default_ssl_context_factory):\n    {lines}\n");
    let default = "context = default_ssl_context_factory()";
    for (hook, expected) in [
        (within("return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)"), "call its load_cert_chain() within the hook"),
        (within("return None"), "ssl_context returned None, which is no ssl.SSLContext"),
        (
            within(&format!("{default}\n    context.sni_callback = print\n    return context")),
            "name the certificate of each host in tls_certificates instead",
        ),
        (
            within(&format!("{default}\n    context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF\n    return context")),
            "revocation lists cannot be checked here",
        ),
        (
            within(&format!(
                "{default}\n    context.options |= ssl.OP_NO_TLSv1_2 | ssl.OP_NO_TLSv1_3\n    return context"
            )),
            "speaks neither TLS 1.2 nor 1.3",
        ),
        (within("raise OSError('no such HSM')"), "OSError: no such HSM"),
    ] {
        let finished = hooked(&hook).0.run();
        assert_eq!(finished.code, Some(1), "{expected}: {}", finished.stderr);
        assert!(
            finished.stderr.trim().starts_with("Error: ") && finished.stderr.contains(expected),
            "{expected}: {}",
            finished.stderr
        );
    }
}
