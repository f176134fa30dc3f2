//! `clockwise migrate`: the configuration file of the old proxy is translated, and every key keeps its server.

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
use crate::support::reference_proxy::ReferenceProxy;
use crate::support::tls::Authority;

/// Debian puts servers where an ordinary user's PATH does not look.
const PATH: &str = "/usr/sbin:/usr/local/sbin:/usr/bin:/bin:/usr/local/bin";

#[test]
fn migrated_nginx_configuration_keeps_every_key_on_its_server() {
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
    translate(&directory, "nginx.conf", &["--strict"]);
    assert_same(&directory, address);
}

#[test]
fn migrated_haproxy_configuration_keeps_every_key_on_its_server() {
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
    translate(&directory, "haproxy.cfg", &["--strict"]);
    assert_same(&directory, address);
}

/// The servers of a `server-template` take ids, so those after them have other ones.
#[test]
fn migrated_haproxy_configuration_counts_the_servers_of_templates() {
    let origins: Vec<_> = (0..5).map(|_| Origin::named()).collect();
    let label = |number: usize| origins[number].label();
    let (directory, address) = (tempfile::tempdir().unwrap(), port::free());
    let cfg = format!(
        "defaults\n    mode http\n    timeout connect 5s\n    timeout client 30s\n    timeout server 30s\n\
         frontend web\n    bind {address}\n    default_backend app\n\
         backend app\n    balance uri whole\n    hash-type consistent\n    \
         server a {}\n    server-template t 7-9 127.0.0.1:9 disabled\n    server b {}\n    \
         server c {} id 6\n    server-template u 2 127.0.0.1:9 disabled\n    server d {}\n    server e {} id 12\n",
        label(0),
        label(1),
        label(2),
        label(3),
        label(4),
    );
    fs::write(directory.path().join("haproxy.cfg"), cfg).unwrap();
    let arguments = ["-db", "-f", "haproxy.cfg"].map(str::to_owned);
    let _haproxy = start("haproxy", &arguments, directory.path(), address);
    translate(&directory, "haproxy.cfg", &[]);
    assert_same(&directory, address);
}

/// Envoy places a server on a Unix socket by its path.
#[test]
fn migrated_envoy_configuration_keeps_every_key_on_its_unix_socket() {
    let (directory, address) = (tempfile::tempdir().unwrap(), port::free());
    let path = |number: usize| directory.path().join(format!("{number}.sock"));
    let servers: Vec<_> = (0..4)
        .map(|number| {
            let label = format!("unix:{}", path(number).display());
            Nginx::serving(
                "",
                &format!("listen {label}; location / {{ return 200 \"{label}\"; }}"),
            )
        })
        .collect();
    let endpoint = |number: usize| {
        let path = path(number);
        format!(
            "        - endpoint: {{address: {{pipe: {{path: {}}}}}}}\n",
            path.display()
        )
    };
    let endpoints: String = (0..servers.len()).map(endpoint).collect();
    let (ip, port) = (address.ip(), address.port());
    let text = format!(
        "static_resources:
  listeners:
  - address: {{socket_address: {{address: {ip}, port_value: {port}}}}}
    filter_chains:
    - filters:
      - name: envoy.filters.network.http_connection_manager
        typed_config:
          \"@type\": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: app
          route_config:
            virtual_hosts:
            - name: all
              domains: [\"*\"]
              routes: [{{match: {{prefix: /}}, route: {{cluster: app, hash_policy: [{{header: {{header_name: \":path\"}}}}]}}}}]
          http_filters:
          - {{name: router, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
  clusters:
  - name: app
    type: STATIC
    lb_policy: RING_HASH
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
{endpoints}"
    );
    fs::write(directory.path().join("envoy.yaml"), &text).unwrap();
    let arguments = ["-c", "envoy.yaml", "--use-dynamic-base-id", "-l", "error"];
    let _envoy = ReferenceProxy::start("envoy", &arguments, address, &[("envoy.yaml", &text)]);
    translate(&directory, "envoy.yaml", &["--strict"]);
    assert_same(&directory, address);
}

/// What its file becomes, but for the ports, answers alike.
#[test]
fn migrated_nginx_tls_configuration_answers_like_nginx() {
    let site = NginxFixture::new();
    let directory = tempfile::tempdir().unwrap();
    let (old, new) = ((port::free(), port::free()), (port::free(), port::free()));
    let at = directory.path().display();
    let main = format!("daemon off;\nmaster_process off;\npid {at}/pid;\nevents {{}}\n");
    let conf = |file: &str, text: String| fs::write(directory.path().join(file), text).unwrap();
    conf("nginx.conf", main + &site.http(old));
    conf("new.conf", site.http(new));
    let arguments = ["-p", ".", "-c", "nginx.conf", "-e", "stderr"].map(str::to_owned);
    let _nginx = start("nginx", &arguments, directory.path(), old.1);
    let output = run(directory.path(), &["migrate", "new.conf", "--strict"], "");
    assert!(output.status.success(), "{output:?}");
    let yaml = String::from_utf8(output.stdout).unwrap();
    let _edge = Edge::start(&format!("{yaml}\nadmin: {{address: 127.0.0.1:0}}\n"));
    for addresses in [old, new] {
        site.assert_answers(addresses);
    }
}

/// An edge: a redirect, TLS for two names, one of which is for clients with a certificate only, and a server
/// that proves who it is and answers with the `Host` that it got.
struct NginxFixture {
    sites: Authority,
    staff: Authority,
    server: Nginx,
}

impl NginxFixture {
    fn new() -> Self {
        let (sites, staff) = (Authority::new(), Authority::new());
        for name in ["open.test", "closed.test", "peer.test"] {
            sites.issue(name, &[name]);
        }
        staff.issue("clerk", &["clerk"]);
        let answer = "location / { return 200 $http_host; }";
        let server = format!("{} {answer}", files(&sites, "peer.test"));
        Self {
            server: Nginx::serving("ssl", &server),
            sites,
            staff,
        }
    }

    /// nginx's words for it.
    fn http(&self, (plain, tls): (SocketAddr, SocketAddr)) -> String {
        let (open, closed) = (
            files(&self.sites, "open.test"),
            files(&self.sites, "closed.test"),
        );
        let (issuer, staff) = (path(&self.sites, "ca.crt"), path(&self.staff, "ca.crt"));
        let (server, port) = (self.server.label(), tls.port());
        format!(
            "http {{
    access_log off;
    upstream app {{ hash $request_uri consistent; server {server}; }}
    proxy_ssl_verify on;
    proxy_ssl_name peer.test;
    proxy_ssl_trusted_certificate {issuer};
    proxy_set_header Host $http_host;
    server {{ listen {plain}; server_name open.test; return 301 https://$host:{port}$request_uri; }}
    server {{
        listen {tls} ssl http2 default_server;
        server_name open.test;
        {open}
        location / {{ proxy_pass https://app; }}
    }}
    server {{
        listen {tls} ssl http2;
        server_name closed.test;
        {closed}
        ssl_client_certificate {staff};
        ssl_verify_client on;
        location / {{ proxy_pass https://app; }}
    }}
}}
"
        )
    }

    #[track_caller]
    fn assert_answers(&self, (plain, tls): (SocketAddr, SocketAddr)) {
        let (cert, key) = (
            path(&self.staff, "clerk.crt"),
            path(&self.staff, "clerk.key"),
        );
        let shown = ["--cert", &cert, "--key", &key];
        let told = ["-s", "-w", " %{http_code} HTTP/%{http_version}"];
        let asked = |name: &str, more: &[&str]| {
            let output = self.sites.try_curl(name, tls, &[&told, more].concat());
            String::from_utf8(output.stdout).unwrap()
        };
        let port = tls.port();
        let answer = |name, version| format!("{name}:{port} 200 HTTP/{version}");
        assert_eq!(asked("open.test", &[]), answer("open.test", "2"));
        assert_eq!(
            asked("open.test", &["--http1.1"]),
            answer("open.test", "1.1")
        );
        assert_eq!(asked("closed.test", &shown), answer("closed.test", "2"));
        // nginx says 400, we say 403.
        let refused = asked("closed.test", &["-o", "/dev/null"]);
        assert!(refused.starts_with(" 40"), "{refused}");
        let answer = Connection::open(plain).get("/a?b=c").expect("an answer");
        assert!(matches!(answer.status, 301 | 308), "{answer:?}");
        let location = answer.header("location").unwrap_or_default();
        assert!(location.ends_with(&format!(":{port}/a?b=c")), "{location}");
    }
}

fn path(authority: &Authority, file: &str) -> String {
    authority.path(file).display().to_string()
}

/// A certificate and its key, in nginx's words.
fn files(authority: &Authority, name: &str) -> String {
    let (cert, key) = (format!("{name}.crt"), format!("{name}.key"));
    let (cert, key) = (path(authority, &cert), path(authority, &key));
    format!("ssl_certificate {cert}; ssl_certificate_key {key};")
}

/// Writes `clockwise.yaml`, what the old system's file becomes.
#[track_caller]
fn translate(directory: &TempDir, file: &str, options: &[&str]) {
    let arguments = [&["migrate", file, "-o", "clockwise.yaml"], options].concat();
    let output = run(directory.path(), &arguments, "");
    assert!(output.status.success(), "{output:?}");
}

/// Asks the old system for 1,000 keys, and our ring by `clockwise.yaml`.
#[track_caller]
fn assert_same(directory: &TempDir, address: SocketAddr) {
    let cli = |arguments: &[&str], input: &str| {
        let output = run(directory.path(), arguments, input);
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    };
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
fn migrate_reports_untranslated_lines_and_strict_exits_with_3() {
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
fn migrate_of_invalid_input_is_refused_with_its_position() {
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
