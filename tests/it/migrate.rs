//! `clockwise migrate`: the very file that the old system runs with, and every key on its server.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::client::Connection;
use crate::support::edge::{Edge, run};
use crate::support::load::keys;
use crate::support::nginx::Nginx;
use crate::support::origin::Origin;
use crate::support::port;
use crate::support::process::Process;
use crate::support::tls::Authority;

/// Debian puts servers where an ordinary user's PATH does not look.
const PATH: &str = "/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin";

#[test]
fn every_key_of_a_running_nginx_stays_on_its_server() {
    let origins: Vec<_> = (0..5).map(|_| Origin::named()).collect();
    let servers = origins
        .iter()
        .zip([1, 2, 1, 3, 1])
        .map(|(origin, weight)| format!("        server {} weight={weight};\n", origin.label()));
    let (directory, address) = (tempfile::tempdir().unwrap(), port::free());
    let at = directory.path().display();
    let temp = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|name| format!("    {name}_temp_path {at}/{name};\n"));
    fs::write(
        directory.path().join("servers.inc"),
        servers.collect::<String>(),
    )
    .unwrap();
    let conf = format!(
        "daemon off;\nmaster_process off;\npid {at}/pid;\nevents {{}}\nhttp {{\n{}    access_log off;\n    \
         upstream app {{\n        hash $request_uri consistent;\n        include servers.inc;\n    }}\n    \
         server {{\n        listen {address};\n        location / {{ proxy_pass http://app; }}\n    }}\n}}\n",
        temp.concat(),
    );
    fs::write(directory.path().join("nginx.conf"), conf).unwrap();
    let arguments = ["-p", &at.to_string(), "-c", "nginx.conf", "-e", "stderr"].map(str::to_owned);
    let _nginx = start("nginx", &arguments, directory.path(), address);
    assert_same(&directory, "nginx.conf", address);
}

#[test]
fn every_key_of_a_running_haproxy_stays_on_its_server() {
    let origins: Vec<_> = (0..5).map(|_| Origin::named()).collect();
    let settings = ["weight 2", "id 11", "", "id 2 weight 3", ""];
    let servers = origins
        .iter()
        .zip(settings)
        .zip('a'..)
        .map(|((origin, setting), name)| {
            format!("    server {name} {} {setting}\n", origin.label())
        });
    let (directory, address) = (tempfile::tempdir().unwrap(), port::free());
    let cfg = format!(
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
         frontend web\n    bind {address}\n    default_backend app\n\
         backend app\n    balance uri whole\n    hash-type consistent\n{}",
        servers.collect::<String>(),
    );
    fs::write(directory.path().join("haproxy.cfg"), cfg).unwrap();
    let arguments = ["-db", "-f", "haproxy.cfg"].map(str::to_owned);
    let _haproxy = start("haproxy", &arguments, directory.path(), address);
    assert_same(&directory, "haproxy.cfg", address);
}

/// An edge of nginx: a redirect, TLS for two names, one of which is for clients with a certificate only, and servers
/// that prove who they are. What its file becomes, but for the ports, answers alike.
#[test]
fn what_an_nginx_with_tls_becomes_answers_as_it_does() {
    let (sites, staff) = (Authority::new(), Authority::new());
    for name in ["open.test", "closed.test", "peer.test"] {
        sites.issue(name, &[name]);
    }
    staff.issue("clerk", &["clerk"]);
    let path = |authority: &Authority, file: &str| authority.path(file).display().to_string();
    let files = |name: &str| {
        let (cert, key) = (format!("{name}.crt"), format!("{name}.key"));
        let (cert, key) = (path(&sites, &cert), path(&sites, &key));
        format!("ssl_certificate {cert}; ssl_certificate_key {key};")
    };
    let server = format!(
        "{} location / {{ return 200 $http_host; }}",
        files("peer.test")
    );
    let server = Nginx::serving("ssl", &server);
    let servers = format!(
        "http {{\n    access_log off;\n    upstream app {{ hash $request_uri consistent; server {}; }}\n    \
         proxy_ssl_verify on; proxy_ssl_name peer.test; proxy_ssl_trusted_certificate {};\n    \
         proxy_set_header Host $http_host;\n    \
         server {{ listen PLAIN; server_name open.test; return 301 https://$host:SECURE$request_uri; }}\n    \
         server {{ listen TLS ssl http2 default_server; server_name open.test; {}\n        \
         location / {{ proxy_pass https://app; }} }}\n    \
         server {{ listen TLS ssl http2; server_name closed.test; {} ssl_client_certificate {}; ssl_verify_client on;\n        \
         location / {{ proxy_pass https://app; }} }}\n}}\n",
        server.label(),
        path(&sites, "ca.crt"),
        files("open.test"),
        files("closed.test"),
        path(&staff, "ca.crt"),
    );
    let at = |plain: SocketAddr, tls: SocketAddr| {
        let text = servers.replace("PLAIN", &plain.to_string());
        let text = text.replace("SECURE", &tls.port().to_string());
        text.replace("TLS", &tls.to_string())
    };
    let directory = tempfile::tempdir().unwrap();
    let old = (port::free(), port::free());
    let conf = format!(
        "daemon off;\nmaster_process off;\npid {}/pid;\nevents {{}}\n{}",
        directory.path().display(),
        at(old.0, old.1),
    );
    fs::write(directory.path().join("nginx.conf"), conf).unwrap();
    let arguments = ["-p", ".", "-c", "nginx.conf", "-e", "stderr"].map(str::to_owned);
    let _nginx = start("nginx", &arguments, directory.path(), old.1);
    let new = (port::free(), port::free());
    fs::write(directory.path().join("new.conf"), at(new.0, new.1)).unwrap();
    let output = run(directory.path(), &["migrate", "new.conf", "--strict"], "");
    assert!(output.status.success(), "{output:?}");
    let yaml = String::from_utf8(output.stdout).unwrap();
    let _edge = Edge::start(&format!("{yaml}\nadmin: {{address: 127.0.0.1:0}}\n"));

    let (cert, key) = (path(&staff, "clerk.crt"), path(&staff, "clerk.key"));
    let shown = ["--cert", &cert, "--key", &key];
    let told = ["-s", "-w", " %{http_code} HTTP/%{http_version}"];
    let asked = |address, name: &str, more: &[&str]| {
        let output = sites.try_curl(name, address, &[&told, more].concat());
        String::from_utf8(output.stdout).unwrap()
    };
    for (name, more, answer) in [
        ("open.test", &[][..], "200 HTTP/2"),
        ("open.test", &["--http1.1"], "200 HTTP/1.1"),
        ("closed.test", &shown, "200 HTTP/2"),
    ] {
        for address in [old.1, new.1] {
            let answer = format!("{name}:{} {answer}", address.port());
            assert_eq!(asked(address, name, more), answer);
        }
    }
    // nginx says 400, we say 403.
    for address in [old.1, new.1] {
        let refused = asked(address, "closed.test", &["-o", "/dev/null"]);
        assert!(refused.starts_with(" 40"), "{refused}");
    }
    for (plain, tls) in [old, new] {
        let answer = Connection::open(plain).get("/a?b=c").expect("an answer");
        assert!(matches!(answer.status, 301 | 308), "{answer:?}");
        let location = answer.header("location").unwrap_or_default();
        assert!(
            location.ends_with(&format!(":{}/a?b=c", tls.port())),
            "{location}"
        );
    }
}

/// Asks the old system for 1,000 keys, and our ring by the YAML that its file becomes.
#[track_caller]
fn assert_same(directory: &TempDir, file: &str, address: SocketAddr) {
    let cli = |arguments: &[&str], input: &str| {
        let output = run(directory.path(), arguments, input);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    cli(&["migrate", file, "-o", "clockwise.yaml", "--strict"], "");
    cli(&["check", "-c", "clockwise.yaml"], "");
    let targets: Vec<_> = keys(1000)
        .into_iter()
        .map(|key| format!("/page/{key}?from={key}"))
        .collect();
    let owners = cli(
        &["ring", "owner", "-c", "clockwise.yaml", "-u", "app", "-"],
        &targets.join("\n"),
    );
    let mut connection = Connection::open(address);
    let mut moved = Vec::new();
    for (target, line) in targets.iter().zip(owners.lines()) {
        let answer = connection.get(target).expect("an answer");
        assert_eq!(answer.status, 200, "{answer:?}");
        let owner = line.split('\t').nth(1).expect("a label");
        if answer.text() != owner {
            moved.push(format!("{target}: from {} to {owner}", answer.text()));
        }
        if answer.closes() {
            connection = Connection::open(address);
        }
    }
    assert!(
        moved.is_empty(),
        "{} keys moved: {:#?}",
        moved.len(),
        moved.first()
    );
    assert_eq!(owners.lines().count(), targets.len());
}

/// Starts a program that listens on `address`.
fn start(program: &str, arguments: &[String], directory: &Path, address: SocketAddr) -> Process {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .current_dir(directory)
        .env("PATH", PATH);
    Process::listening(program, &mut command, address)
}

const OLD: &str = "http {\n    gzip on;\n    upstream app { hash $uri consistent; server 10.0.0.1:80; }\n    \
                   server { location / { proxy_pass http://app; } }\n}\n";

#[test]
fn what_is_not_translated_is_told_by_line_and_strict_counts_it() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("old.txt"), OLD).unwrap();
    let migrate = |arguments: &[&str]| {
        let all = [&["migrate", "old.txt"], arguments].concat();
        let output = run(directory.path(), &all, "");
        let errors = String::from_utf8(output.stderr).unwrap();
        (
            output.status.code(),
            String::from_utf8(output.stdout).unwrap(),
            errors,
        )
    };
    let (code, yaml, errors) = migrate(&["--from", "nginx"]);
    assert_eq!(code, Some(0), "{errors}");
    assert!(
        errors.contains("old.txt:2:5: `gzip` is not translated"),
        "{errors}"
    );
    assert!(
        yaml.contains("# old.txt:2: `gzip` is not translated"),
        "{yaml}"
    );
    let (code, strict, _) = migrate(&["--from", "nginx", "--strict"]);
    assert_eq!((code, strict), (Some(3), yaml));
    let (code, _, errors) = migrate(&["--from", "nginx", "--json"]);
    let first: serde_json::Value = serde_json::from_str(errors.lines().next().unwrap()).unwrap();
    assert_eq!(
        (code, &first["kind"], &first["line"]),
        (Some(0), &"not_translated".into(), &2.into())
    );
}

#[test]
fn wrong_input_is_refused_with_its_place() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(directory.path().join(name), bytes).unwrap();
    write("nginx.conf", b"http {\n");
    write("haproxy.cfg", b"\x7fELF\xff\xfe");
    write("config", OLD.as_bytes());
    for (arguments, part) in [
        (["migrate", "nginx.conf"], "nginx.conf:1:6"),
        (["migrate", "haproxy.cfg"], "UTF-8"),
        (["migrate", "config"], "--from"),
        (["migrate", "missing.yaml"], "missing.yaml"),
        (["migrate", "."], "--from"),
    ] {
        let output = run(directory.path(), &arguments, "");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {errors}");
        assert!(errors.contains(part), "{part} in {errors}");
        assert!(output.stdout.is_empty());
    }
    let onto = run(
        directory.path(),
        &["migrate", "config", "--from", "nginx", "-o", "config"],
        "",
    );
    assert_eq!(onto.status.code(), Some(1));
}
