//! The dialects of the ring against the programs themselves, with random servers, weights and keys: every key
//! goes to the same server.
//!
//! `cargo test --test it dialects:: -- --nocapture` prints the table. Servers are random in every run; a failure
//! names the seed, and `DIALECTS_SEED` repeats it. `DIALECTS_KEYS` sets the number of keys, 2,000 by default.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::LazyLock;
use std::thread;

use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use crate::support::client::{Request, try_send};
use crate::support::edge::{ConfigBuilder, run};
use crate::support::origin::Origin;
use crate::support::reference_proxy::{ReferenceProxy, ask_from, output, spread};
use crate::support::{port, wait};

/// Keys of one comparison: an algorithm that differs anywhere shows it in the first dozens.
static KEYS: LazyLock<usize> = LazyLock::new(|| {
    let given = std::env::var("DIALECTS_KEYS").ok();
    given.map_or(2_000, |keys| keys.parse().expect("a number"))
});

/// What is drawn for one comparison.
struct RandomCase {
    rng: StdRng,
    seed: u64,
    weights: Vec<u16>,
    /// What is added to each weight, in thousandths; empty: nothing.
    thousandths: Vec<u16>,
    addresses: Vec<SocketAddr>,
    origins: Vec<Origin>,
}

impl RandomCase {
    /// 3 to 9 servers that answer with their addresses.
    fn new() -> Self {
        let mut draw = Self::of(Vec::new());
        draw.origins = (0..draw.rng.gen_range(3..10))
            .map(|_| Origin::named())
            .collect();
        draw.addresses = draw.origins.iter().map(|origin| origin.address).collect();
        draw.draw_weights()
    }

    fn of(addresses: Vec<SocketAddr>) -> Self {
        let given = std::env::var("DIALECTS_SEED").ok();
        let seed = given.map_or_else(rand::random, |seed| seed.parse().expect("a number"));
        let rng = StdRng::seed_from_u64(seed);
        let draw = Self {
            rng,
            seed,
            weights: Vec::new(),
            thousandths: Vec::new(),
            addresses,
            origins: Vec::new(),
        };
        draw.draw_weights()
    }

    /// So many servers at this address.
    fn at(host: IpAddr, count: usize) -> Self {
        let origins = (0..count).map(|_| Origin::named_at(port::free_at(host)));
        let origins: Vec<_> = origins.collect();
        let mut draw = Self::of(origins.iter().map(|origin| origin.address).collect());
        draw.origins = origins;
        draw
    }

    /// With all weights that there are.
    fn heavy(mut self) -> Self {
        let rng = &mut self.rng;
        self.weights.fill_with(|| rng.gen_range(1..=256));
        self
    }

    /// With weights from `least` on that have a fraction.
    fn fractional(mut self, least: u16) -> Self {
        let rng = &mut self.rng;
        self.weights.fill_with(|| rng.gen_range(least..5));
        let thousandths = self.weights.iter().map(|_| rng.gen_range(1..1_000));
        self.thousandths = thousandths.collect();
        self
    }

    /// A server's weight as it is written.
    fn weight(&self, number: usize) -> String {
        let whole = self.weights[number];
        let thousandths = self.thousandths.get(number);
        thousandths.map_or(whole.to_string(), |more| format!("{whole}.{more:03}"))
    }

    fn draw_weights(mut self) -> Self {
        self.weights = self
            .addresses
            .iter()
            .map(|_| self.rng.gen_range(1..6))
            .collect();
        self
    }

    /// One server is down from now on; which.
    fn kill(&mut self) -> usize {
        let dead = self.rng.gen_range(0..self.addresses.len());
        self.origins[dead].down();
        dead
    }

    /// Keys that need no escape in a URL.
    fn keys(&mut self) -> Vec<String> {
        let letters: Vec<char> = ('a'..='z')
            .chain('A'..='Z')
            .chain('0'..='9')
            .chain("-_.~".chars())
            .collect();
        let mut key = || {
            let length = self.rng.gen_range(1..24);
            (0..length)
                .map(|_| *letters.choose(&mut self.rng).unwrap())
                .collect()
        };
        (0..*KEYS).map(|_| key()).collect()
    }

    /// Keys of which every third has bytes above those of ASCII.
    fn wild_keys(&mut self) -> Vec<String> {
        let mut keys = self.keys();
        for key in keys.iter_mut().step_by(3) {
            let at = self.rng.gen_range(0..=key.len());
            key.insert_str(
                at,
                ["é", "\u{80}", "ÿ", "日本", "🦀"]
                    .choose(&mut self.rng)
                    .unwrap(),
            );
        }
        keys
    }

    /// Lines of another system's configuration, one for each server.
    fn lines(&self, line: impl Fn(usize, SocketAddr, u16) -> String) -> String {
        let servers = self.addresses.iter().zip(&self.weights).enumerate();
        servers.fold(String::new(), |mut text, (number, (address, weight))| {
            let _ = writeln!(text, "{}", line(number, *address, *weight));
            text
        })
    }

    /// A configuration of Clockwise with these servers; `id` gives further keys of a peer.
    fn site(&self, ring: &str, id: impl Fn(usize, SocketAddr) -> String) -> ConfigBuilder {
        let peers = self.addresses.iter().enumerate().map(|(number, address)| {
            let (weight, id) = (self.weight(number), id(number, *address));
            format!("{{address: \"{address}\", weight: {weight}{id}}}")
        });
        ConfigBuilder::of(peers).app("ring", ring)
    }

    /// Where Clockwise says each key goes.
    fn predict(&self, site: &ConfigBuilder, dead: Option<usize>, keys: &[String]) -> Vec<String> {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join("c.yaml"), site.yaml()).unwrap();
        let mut arguments = vec!["ring", "owner", "-c", "c.yaml", "-u", "app"];
        let dead = dead.map(|dead| self.addresses[dead].to_string());
        arguments.extend(dead.iter().flat_map(|dead| ["--down", dead]));
        arguments.push("-");
        let output = run(directory.path(), &arguments, &keys.join("\n"));
        assert!(output.status.success(), "{output:?}");
        let lines = String::from_utf8(output.stdout).unwrap();
        lines
            .lines()
            .map(|line| line.split_once('\t').unwrap().1.to_owned())
            .collect()
    }

    /// Prints a line of the table; panics if the two disagree about a key.
    #[track_caller]
    fn compare(&self, dialect: &str, keys: &[String], theirs: &[String], ours: &[String]) {
        assert_eq!((theirs.len(), ours.len()), (keys.len(), keys.len()));
        let owners: HashMap<&String, usize> =
            theirs.iter().fold(HashMap::new(), |mut owners, owner| {
                *owners.entry(owner).or_default() += 1;
                owners
            });
        let wrong: Vec<_> = (0..keys.len())
            .filter(|&at| theirs[at] != ours[at])
            .collect();
        eprintln!(
            "| {dialect} | {} | {} | {} |",
            keys.len(),
            owners.len(),
            wrong.len()
        );
        // Of the 15 bits that twemproxy takes of a CRC-32 all lie before the first point of most rings; of
        // Traefik's hash the last bytes of a server's URL hardly change the upper ones.
        assert!(
            owners.len() > 1 || dialect == "twemproxy, crc32" || dialect.starts_with("traefik"),
            "all keys on one server"
        );
        if let Some(&at) = wrong.first() {
            panic!(
                "{dialect}, seed {}: {} of {} keys differ; `{}` is on {}, not {}",
                self.seed,
                wrong.len(),
                keys.len(),
                keys[at],
                theirs[at],
                ours[at]
            );
        }
    }
}

fn no_id(_: usize, _: SocketAddr) -> String {
    String::new()
}

/// `/?k=KEY` for every key.
fn by_query(keys: &[String]) -> Vec<Request> {
    keys.iter()
        .map(|key| Request::get(&format!("/?k={key}")))
        .collect()
}

/// `/KEY` for every key; the key is the whole path.
fn by_path(keys: &mut [String]) -> Vec<Request> {
    for key in keys.iter_mut() {
        key.insert(0, '/');
    }
    keys.iter().map(|key| Request::get(key)).collect()
}

fn by_header(keys: &[String]) -> Vec<Request> {
    keys.iter()
        .map(|key| Request::get("/").header("x-key", key))
        .collect()
}

fn nginx(draw: &RandomCase, key: &str) -> ReferenceProxy {
    nginx_as(draw, key, |server| server.to_string())
}

/// nginx with these `server` lines.
fn nginx_as(
    draw: &RandomCase,
    key: &str,
    written: impl Fn(SocketAddr) -> String,
) -> ReferenceProxy {
    let address = port::free();
    let servers = draw.lines(|_, server, weight| {
        let server = written(server);
        format!("server {server} weight={weight} max_fails=1 fail_timeout=1h;")
    });
    let text = format!(
        "daemon off; master_process off; pid pid; error_log stderr crit;
        events {{ worker_connections 1024; }}
        http {{
            access_log off; keepalive_requests 1000000;
            client_body_temp_path b; proxy_temp_path p; fastcgi_temp_path f; uwsgi_temp_path u; scgi_temp_path s;
            upstream app {{ hash {key} consistent; keepalive 16; {servers} }}
            server {{ listen {address}; location / {{
                proxy_pass http://app; proxy_http_version 1.1; proxy_set_header Connection \"\";
            }} }}
        }}"
    );
    ReferenceProxy::start(
        "nginx",
        &["-p", ".", "-c", "nginx.conf", "-e", "stderr"],
        address,
        &[("nginx.conf", &text)],
    )
}

#[test]
fn nginx_placement_matches_with_a_dead_server() {
    let mut draw = RandomCase::new();
    let keys = draw.keys();
    let nginx = nginx(&draw, "$arg_k");
    let site = draw.site("nginx", no_id);
    let theirs = nginx.ask_all(&by_query(&keys));
    draw.compare("nginx", &keys, &theirs, &draw.predict(&site, None, &keys));
    let dead = draw.kill();
    let theirs = nginx.ask_all(&by_query(&keys));
    draw.compare(
        "nginx, one down",
        &keys,
        &theirs,
        &draw.predict(&site, Some(dead), &keys),
    );
}

#[test]
fn nginx_placement_matches_with_weights_ipv6_and_binary_keys() {
    let mut draw = RandomCase::at(Ipv6Addr::LOCALHOST.into(), 7).heavy();
    let keys = draw.wild_keys();
    let nginx = nginx(&draw, "$http_x_key");
    let theirs = nginx.ask_all(&by_header(&keys));
    let ours = draw.predict(&draw.site("nginx", no_id), None, &keys);
    draw.compare("nginx, IPv6 and heavy", &keys, &theirs, &ours);
}

#[test]
fn nginx_placement_matches_with_many_named_servers() {
    let mut draw = RandomCase::at(Ipv4Addr::LOCALHOST.into(), 60);
    let keys = draw.keys();
    let name = |server: SocketAddr| format!("localhost:{}", server.port());
    let nginx = nginx_as(&draw, "$arg_k", name);
    let site = draw.site("nginx", |_, server| format!(", id: \"{}\"", name(server)));
    let theirs = nginx.ask_all(&by_query(&keys));
    let ours = draw.predict(&site, None, &keys);
    draw.compare("nginx, 60 names", &keys, &theirs, &ours);
}

/// A server that is there twice has the points of the heavier one.
#[test]
fn nginx_placement_matches_with_a_duplicate_server() {
    let mut draw = RandomCase::new();
    let keys = draw.keys();
    let (weights, address) = (draw.weights.clone(), draw.addresses[0]);
    draw.addresses.push(address);
    draw.weights.push(7);
    let theirs = nginx(&draw, "$arg_k").ask_all(&by_query(&keys));
    draw.addresses.pop();
    draw.weights = weights;
    draw.weights[0] = 7;
    let ours = draw.predict(&draw.site("nginx", no_id), None, &keys);
    draw.compare("nginx, one twice", &keys, &theirs, &ours);
}

/// Addresses of clients on the loopback network.
fn sources(draw: &mut RandomCase) -> Vec<IpAddr> {
    let mut source = || Ipv4Addr::from(0x7f00_0000 | draw.rng.gen_range(1..0xff_ffff)).into();
    (0..*KEYS).map(|_| source()).collect()
}

/// The peers that Clockwise selects, with the key from the request.
fn ask_ours(site: &ConfigBuilder, requests: &[Request]) -> Vec<String> {
    let edge = site.start();
    spread(requests, |part| {
        let mut connection = edge.connect();
        part.iter()
            .map(|request| connection.exchange(request).unwrap().text())
            .collect()
    })
}

#[test]
fn nginx_placement_matches_by_binary_remote_addr() {
    let mut draw = RandomCase::new();
    let sources = sources(&mut draw);
    let nginx = nginx(&draw, "$binary_remote_addr");
    let site = draw
        .site("nginx", no_id)
        .app("key", "{client_ip: {form: binary}}");
    let edge = site.start();
    let ours = spread(&sources, |part| {
        part.iter()
            .map(|source| ask_from(*source, edge.address).unwrap())
            .collect()
    });
    let keys: Vec<_> = sources.iter().map(ToString::to_string).collect();
    draw.compare(
        "nginx, $binary_remote_addr",
        &keys,
        &nginx.ask_from(&sources),
        &ours,
    );
}

/// Requests with up to `most` of each of these values, empty or a number: query parameter `k`, cookie `k`, header line
/// `x-key`. One number at least is the first of its kind: without a key all systems choose freely.
fn with_empty_values(draw: &mut RandomCase, most: usize) -> Vec<Request> {
    let mut values = || -> Vec<String> {
        let count = draw.rng.gen_range(0..=most);
        let value = |_| match draw.rng.gen_range(0..3) {
            0 => String::new(),
            _ => draw.rng.gen_range(0..1_000).to_string(),
        };
        (0..count).map(value).collect()
    };
    let mut requests = Vec::new();
    while requests.len() < *KEYS {
        let all = [values(), values(), values()];
        if all
            .iter()
            .any(|values| values.first().is_some_and(|first| !first.is_empty()))
        {
            let [queries, cookies, lines] = all;
            let named = |values: Vec<String>| values.into_iter().map(|value| format!("k={value}"));
            let query: Vec<_> = named(queries).collect();
            let mut request = Request::get(&format!("/?{}", query.join("&")));
            let cookies: Vec<_> = named(cookies).collect();
            if !cookies.is_empty() {
                request = request.header("cookie", &cookies.join("; "));
            }
            for line in lines {
                request = request.header("x-key", &line);
            }
            requests.push(request);
        }
    }
    requests
}

/// Of cookies and parameters nginx takes the first, also an empty one. Of header lines, too, before 1.23.0; later it joins
/// them (nginx's CHANGES of 1.23.0).
#[test]
fn nginx_placement_matches_with_repeated_and_empty_values() {
    let mut draw = RandomCase::new();
    let requests = with_empty_values(&mut draw, 2);
    let version = Command::new("/usr/sbin/nginx").arg("-v").output().unwrap();
    let version = String::from_utf8(version.stderr).unwrap();
    let minor = version
        .split('.')
        .nth(1)
        .and_then(|minor| minor.parse::<u16>().ok());
    let is_old = version.contains("/1.") && minor.expect("a version") < 23;
    let lines = if is_old { "first" } else { "joined" };
    let site = draw.site("nginx", no_id).app(
        "key",
        &format!(
            "{{any: [{{query: {{name: k, empty: value}}}}, {{cookie: {{name: k, empty: value}}}}, \
             {{header: {{name: x-key, values: {lines}, empty: value}}}}], separator: \"\"}}"
        ),
    );
    let theirs = nginx(&draw, "$arg_k$cookie_k$http_x_key").ask_all(&requests);
    let ours = ask_ours(&site, &requests);
    let names: Vec<_> = requests
        .iter()
        .map(|request| format!("{request:?}"))
        .collect();
    draw.compare("nginx, repeated and empty values", &names, &theirs, &ours);
}

/// HAProxy by these directives of a backend.
fn haproxy(
    draw: &RandomCase,
    directives: &str,
    ids: &[Option<u32>],
    dead: Option<usize>,
) -> ReferenceProxy {
    let address = port::free();
    let servers = draw.lines(|number, server, weight| {
        let id = ids
            .get(number)
            .copied()
            .flatten()
            .map_or(String::new(), |id| format!("id {id}"));
        let down = if dead == Some(number) { "disabled" } else { "" };
        format!("    server s{number} {server} weight {weight} {id} {down}")
    });
    let text = format!(
        "global\n    maxconn 1000\ndefaults\n    mode http\n    timeout client 30s\n    timeout server 30s\n    timeout connect 5s
frontend f\n    bind {address}\n    default_backend app
backend app\n    {}\n{servers}\n",
        directives.replace(';', "\n   ")
    );
    ReferenceProxy::start(
        "haproxy",
        &["-db", "-f", "haproxy.cfg"],
        address,
        &[("haproxy.cfg", &text)],
    )
}

fn haproxy_agrees(
    directives: &str,
    options: &str,
    with_ids: bool,
    requests: fn(&mut [String]) -> Vec<Request>,
) {
    let mut draw = RandomCase::new();
    let mut keys = draw.keys();
    let requests = requests(&mut keys);
    let some = |number: usize| with_ids && number % 2 == 1;
    let ids: Vec<_> = (0..draw.addresses.len())
        .map(|number| some(number).then(|| 4 * u32::try_from(number).unwrap() - 2))
        .collect();
    let id = |number: usize, _| ids[number].map_or(String::new(), |id| format!(", id: {id}"));
    let site = draw.site(&format!("{{dialect: haproxy{options}}}"), id);
    for dead in [None, Some(draw.rng.gen_range(0..draw.addresses.len()))] {
        let theirs = haproxy(&draw, directives, &ids, dead).ask_all(&requests);
        let down = if dead.is_some() { ", one down" } else { "" };
        let name = format!("haproxy, {}{down}", directives.replace(';', ","));
        draw.compare(&name, &keys, &theirs, &draw.predict(&site, dead, &keys));
    }
}

#[test]
fn haproxy_placement_matches_by_uri() {
    haproxy_agrees(
        "balance uri whole; hash-type consistent",
        "",
        false,
        by_path,
    );
}

#[test]
fn haproxy_placement_matches_by_hash_functions_and_ids() {
    let query = |keys: &mut [String]| by_query(keys);
    let by = |hash_type: &str| format!("balance url_param k; hash-type consistent {hash_type}");
    haproxy_agrees(&by("sdbm"), ", hash: sdbm", true, query);
    haproxy_agrees(&by("djb2"), ", hash: djb2", true, query);
    haproxy_agrees(
        &by("wt6 avalanche"),
        ", hash: wt6, avalanche: true",
        true,
        query,
    );
    haproxy_agrees(&by("crc32"), ", hash: crc32", true, query);
}

#[test]
fn haproxy_placement_matches_by_source() {
    let mut draw = RandomCase::new();
    let sources = sources(&mut draw);
    let keys: Vec<_> = sources.iter().map(ToString::to_string).collect();
    let haproxy = haproxy(&draw, "balance source; hash-type consistent", &[], None);
    let site = draw.site("{dialect: haproxy, hash: source}", no_id);
    let ours = draw.predict(&site, None, &keys);
    draw.compare(
        "haproxy, balance source",
        &keys,
        &haproxy.ask_from(&sources),
        &ours,
    );
}

#[test]
fn haproxy_placement_matches_with_weights_ipv6_and_binary_keys() {
    let mut draw = RandomCase::at(Ipv6Addr::LOCALHOST.into(), 40).heavy();
    let keys = draw.wild_keys();
    let directives = "balance hash req.fhdr(x-key); hash-type consistent";
    let theirs = haproxy(&draw, directives, &[], None).ask_all(&by_header(&keys));
    let ours = draw.predict(&draw.site("haproxy", no_id), None, &keys);
    draw.compare("haproxy, 40 IPv6 and heavy", &keys, &theirs, &ours);
}

/// HAProxy takes header fields for lists.
#[test]
fn haproxy_placement_matches_by_a_header_element() {
    for (balance, end) in [("hdr(x-key)", "first"), ("hash req.hdr(x-key)", "last")] {
        let mut draw = RandomCase::new();
        let (keys, more, others) = (draw.keys(), draw.wild_keys(), draw.wild_keys());
        let all = keys.iter().zip(&more).zip(&others);
        let requests: Vec<_> = all
            .enumerate()
            .map(|(number, ((key, more), other))| {
                let request = Request::get("/");
                match number % 3 {
                    0 => request.header("x-key", key),
                    1 => request.header("x-key", &format!("{key} ,\t{more}")),
                    _ => {
                        let line = format!("{key},\"{more}, {other}\"");
                        let request = request.header("x-key", &line);
                        request.header("x-key", &format!("{other} , {more}"))
                    }
                }
            })
            .collect();
        let site = draw.site("haproxy", no_id);
        let key = format!("{{header: {{name: x-key, element: {end}}}}}");
        let ours = ask_ours(&site.app("key", &key), &requests);
        let directives = format!("balance {balance}; hash-type consistent");
        let theirs = haproxy(&draw, &directives, &[], None).ask_all(&requests);
        draw.compare(&format!("haproxy, {balance}"), &keys, &theirs, &ours);
    }
}

/// Of parameters HAProxy takes the first, of the elements of header lines `req.hdr` the last; also an empty one.
#[test]
fn haproxy_placement_matches_with_repeated_and_empty_values() {
    let last = "{header: {name: x-key, element: last, empty: value}}";
    for (balance, key, part) in [
        ("url_param k", "{query: {name: k, empty: value}}", "?k="),
        (
            "hash url_param(k)",
            "{query: {name: k, empty: value}}",
            "?k=",
        ),
        ("hash req.hdr(x-key)", last, "x-key: "),
    ] {
        let mut draw = RandomCase::new();
        let mut requests = with_empty_values(&mut draw, 2);
        // Without a value HAProxy takes one server after the other.
        requests.retain(|request| format!("{request:?}").contains(part));
        let site = draw.site("haproxy", no_id).app("key", key);
        let ours = ask_ours(&site, &requests);
        let directives = format!("balance {balance}; hash-type consistent");
        let theirs = haproxy(&draw, &directives, &[], None).ask_all(&requests);
        let names: Vec<_> = requests.iter().map(|it| format!("{it:?}")).collect();
        let title = format!("haproxy, {balance}, repeated and empty values");
        draw.compare(&title, &names, &theirs, &ours);
    }
}

/// Varnish with a shard director and these further subroutines.
fn varnish(draw: &RandomCase, subroutines: &str, dead: Option<usize>) -> ReferenceProxy {
    let address = port::free();
    let backends = draw.lines(|number, server, _| {
        let probe = if dead == Some(number) {
            ".probe = { .url = \"/\"; .initial = 0; .interval = 1h; }"
        } else {
            ""
        };
        format!(
            "backend b{number} {{ .host = \"{}\"; .port = \"{}\"; {probe} }}",
            server.ip(),
            server.port()
        )
    });
    let added = draw.lines(|number, _, _| {
        let weight = draw.weight(number);
        let real = if weight.contains('.') { "" } else { ".0" };
        format!("app.add_backend(b{number}, weight={weight}{real});")
    });
    let text = format!(
        "vcl 4.1; import directors; {backends}
        sub vcl_init {{ new app = directors.shard(); {added} app.reconfigure(); }}
        {subroutines}"
    );
    let listen = address.to_string();
    let arguments = [
        "-F",
        "-n",
        "@DIR@",
        "-a",
        &listen,
        "-f",
        "@DIR@/v.vcl",
        "-s",
        "malloc,16m",
        "-j",
        "none",
    ];
    let varnish = ReferenceProxy::start("varnishd", &arguments, address, &[("v.vcl", &text)]);
    wait::until("varnish to answer", || {
        let answer = try_send(address, &Request::get("/"));
        answer.is_ok_and(|answer| answer.status == 200)
    });
    varnish
}

const BY_URL: &str = "sub vcl_recv {
    set req.backend_hint = app.backend(by=URL, warmup=0.0, rampup=0s); return (pass);
}";
const BY_HASH: &str = "sub vcl_recv { return (pass); }
    sub vcl_backend_fetch { set bereq.backend = app.backend(by=HASH, warmup=0.0, rampup=0s); }";

#[test]
fn varnish_placement_matches_by_request_hash() {
    let mut draw = RandomCase::new();
    let mut keys = draw.keys();
    let requests: Vec<_> = keys
        .iter_mut()
        .map(|key| {
            let host = format!("{}.example", key.to_lowercase());
            let url = format!("/{key}?q");
            *key = format!("{url}\u{1f}{host}");
            Request::get(&url).header("Host", &host)
        })
        .collect();
    let site = draw.site("{dialect: varnish, by: hash}", |number, _| {
        format!(", id: b{number}")
    });
    let site = site.app("key", "{any: [path_and_query, {header: host}]}");
    let theirs = varnish(&draw, BY_HASH, None).ask_all(&requests);
    draw.compare(
        "varnish, by=HASH",
        &keys,
        &theirs,
        &draw.predict(&site, None, &keys),
    );
}

const BY_KEY: &str = "import std; sub vcl_recv {
    set req.backend_hint = app.backend(by=KEY, key=std.integer(req.http.x-key, 0), warmup=0.0, rampup=0s);
    return (pass);
}";

#[test]
fn varnish_placement_matches_by_number_with_weights_and_ipv6() {
    let mut draw = RandomCase::at(Ipv6Addr::LOCALHOST.into(), 7).heavy();
    let mut number = || draw.rng.r#gen::<u32>().to_string();
    let keys: Vec<_> = (0..*KEYS).map(|_| number()).collect();
    let site = draw.site("{dialect: varnish, by: key}", |number, _| {
        format!(", id: b{number}")
    });
    let theirs = varnish(&draw, BY_KEY, None).ask_all(&by_header(&keys));
    let ours = draw.predict(&site, None, &keys);
    draw.compare("varnish, by=KEY, IPv6 and heavy", &keys, &theirs, &ours);
}

#[test]
fn varnish_placement_matches_with_fractions_of_weights() {
    let mut draw = RandomCase::new().fractional(1);
    let mut keys = draw.keys();
    let requests = by_path(&mut keys);
    let theirs = varnish(&draw, BY_URL, None).ask_all(&requests);
    let site = draw.site("varnish", |number, _| format!(", id: b{number}"));
    let ours = draw.predict(&site, None, &keys);
    draw.compare("varnish, fractions", &keys, &theirs, &ours);
}

#[test]
fn varnish_placement_matches_with_a_dead_server() {
    let mut draw = RandomCase::new();
    let mut keys = draw.keys();
    let requests = by_path(&mut keys);
    let site = draw.site("varnish", |number, _| format!(", id: b{number}"));
    let theirs = varnish(&draw, BY_URL, None).ask_all(&requests);
    draw.compare("varnish", &keys, &theirs, &draw.predict(&site, None, &keys));
    let dead = draw.kill();
    let theirs = varnish(&draw, BY_URL, Some(dead)).ask_all(&requests);
    draw.compare(
        "varnish, one down",
        &keys,
        &theirs,
        &draw.predict(&site, Some(dead), &keys),
    );
}

fn envoy(draw: &RandomCase, function: &str, policies: &str) -> ReferenceProxy {
    let address = port::free();
    let endpoints = draw.lines(|_, server, weight| {
        let (ip, port) = (server.ip(), server.port());
        let socket = format!("{{socket_address: {{address: \"{ip}\", port_value: {port}}}}}");
        format!("        - {{endpoint: {{address: {socket}}}, load_balancing_weight: {weight}}}")
    });
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
            - {{name: all, domains: [\"*\"], routes: [{{match: {{prefix: /}}, route: {{cluster: app, hash_policy: [{policies}]}}}}]}}
          http_filters:
          - {{name: router, typed_config: {{\"@type\": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}}}
  clusters:
  - name: app
    type: STATIC
    lb_policy: RING_HASH
    ring_hash_lb_config: {{hash_function: {function}}}
    load_assignment:
      cluster_name: app
      endpoints:
      - lb_endpoints:
{endpoints}"
    );
    let arguments = [
        "-c",
        "envoy.yaml",
        "--use-dynamic-base-id",
        "--concurrency",
        "2",
        "-l",
        "error",
    ];
    ReferenceProxy::start("envoy", &arguments, address, &[("envoy.yaml", &text)])
}

#[test]
fn envoy_placement_matches_by_header() {
    for (theirs, ours) in [("XX_HASH", "xxhash"), ("MURMUR_HASH_2", "murmur2")] {
        let mut draw = RandomCase::new();
        let keys = draw.keys();
        let site = draw.site(&format!("{{dialect: envoy, hash: {ours}}}"), no_id);
        let envoy = envoy(&draw, theirs, "{header: {header_name: x-key}}");
        let answers = envoy.ask_all(&by_header(&keys));
        draw.compare(
            &format!("envoy, {ours}"),
            &keys,
            &answers,
            &draw.predict(&site, None, &keys),
        );
    }
}

#[test]
fn envoy_placement_matches_with_weights_ipv6_and_binary_keys() {
    for count in [5, 40] {
        let mut draw = RandomCase::at(Ipv6Addr::LOCALHOST.into(), count).heavy();
        let keys = draw.wild_keys();
        let envoy = envoy(&draw, "XX_HASH", "{header: {header_name: x-key}}");
        let theirs = envoy.ask_all(&by_header(&keys));
        let ours = draw.predict(&draw.site("envoy", no_id), None, &keys);
        draw.compare(
            &format!("envoy, {count} IPv6 and heavy"),
            &keys,
            &theirs,
            &ours,
        );
    }
}

#[test]
fn envoy_placement_matches_by_several_hash_policies() {
    let mut draw = RandomCase::new();
    let (keys, more) = (draw.keys(), draw.keys());
    let policies = "{header: {header_name: x-key}}, {header: {header_name: x-none}}, {query_parameter: {name: k}}";
    let requests: Vec<_> = keys
        .iter()
        .zip(&more)
        .map(|(header, query)| Request::get(&format!("/?k={query}")).header("x-key", header))
        .collect();
    let site = draw.site("envoy", no_id).app(
        "key",
        "{any: [{header: x-key}, {header: x-none}, {query: k}]}",
    );
    let ours = ask_ours(&site, &requests);
    let answers = envoy(&draw, "XX_HASH", policies).ask_all(&requests);
    draw.compare("envoy, header and query", &keys, &answers, &ours);
}

/// An empty parameter and an empty header line are keys for Envoy; an empty cookie is none.
#[test]
fn envoy_placement_matches_with_empty_values() {
    let mut draw = RandomCase::new();
    let requests = with_empty_values(&mut draw, 1);
    let policies =
        "{query_parameter: {name: k}}, {cookie: {name: k}}, {header: {header_name: x-key}}";
    let site = draw.site("envoy", no_id).app(
        "key",
        "{any: [{query: {name: k, empty: value}}, {cookie: k}, {header: {name: x-key, empty: value}}]}",
    );
    let theirs = envoy(&draw, "XX_HASH", policies).ask_all(&requests);
    let ours = ask_ours(&site, &requests);
    let names: Vec<_> = requests
        .iter()
        .map(|request| format!("{request:?}"))
        .collect();
    draw.compare("envoy, empty values", &names, &theirs, &ours);
}

/// Of a header Envoy hashes all lines, also empty ones, in the order of their bytes.
#[test]
fn envoy_placement_matches_with_repeated_header_lines() {
    let mut draw = RandomCase::new();
    let mut lines = || {
        let count = draw.rng.gen_range(1..4);
        let value = |_| match draw.rng.gen_range(0..4) {
            0 => String::new(),
            _ => draw.rng.gen_range(0..1_000).to_string(),
        };
        (0..count).map(value).collect::<Vec<_>>()
    };
    let requests: Vec<_> = (0..*KEYS)
        .map(|_| {
            let lines = lines().into_iter();
            lines.fold(Request::get("/"), |request, line| {
                request.header("x-key", &line)
            })
        })
        .collect();
    let key = "{header: {name: x-key, values: sorted, empty: value}}";
    let ours = ask_ours(&draw.site("envoy", no_id).app("key", key), &requests);
    let theirs = envoy(&draw, "XX_HASH", "{header: {header_name: x-key}}").ask_all(&requests);
    let names: Vec<_> = requests.iter().map(|it| format!("{it:?}")).collect();
    draw.compare("envoy, repeated header lines", &names, &theirs, &ours);
}

/// A memcached that has every key: the value is its own address.
fn memcached() -> SocketAddr {
    let address = port::free();
    let listener = TcpListener::bind(address).unwrap();
    thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            thread::spawn(move || serve(&connection, &address.to_string()));
        }
    });
    address
}

/// Answers `get KEY` until the connection ends.
fn serve(mut connection: &TcpStream, name: &str) {
    let requests = BufReader::new(connection.try_clone().unwrap()).lines();
    for line in requests.map_while(Result::ok) {
        let key = line.trim_end().trim_start_matches("get ");
        let answer = format!("VALUE {key} 0 {}\r\n{name}\r\nEND\r\n", name.len());
        if connection.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// What each key's server answers.
fn get_all(address: SocketAddr, keys: &[String]) -> Vec<String> {
    spread(keys, |part| {
        let mut connection = TcpStream::connect(address).unwrap();
        connection.set_read_timeout(Some(wait::PATIENCE)).unwrap();
        let mut lines = BufReader::new(connection.try_clone().unwrap()).lines();
        let mut get = |key: &String| {
            connection
                .write_all(format!("get {key}\r\n").as_bytes())
                .unwrap();
            let mut answer = lines.by_ref().take(3).map(Result::unwrap);
            let value = answer.nth(1).unwrap();
            assert_eq!(answer.next().as_deref(), Some("END"));
            value
        };
        part.iter().map(&mut get).collect()
    })
}

#[test]
fn twemproxy_placement_matches_by_every_hash_function() {
    let words = [
        "fnv1a_64",
        "fnv1_64",
        "fnv1a_32",
        "fnv1_32",
        "crc32",
        "crc32a",
        "md5",
        "one_at_a_time",
    ];
    for function in words {
        let addresses = (0..StdRng::from_entropy().gen_range(3..30)).map(|_| memcached());
        let mut draw = RandomCase::of(addresses.collect()).heavy();
        let mut keys = draw.wild_keys();
        for key in keys.iter_mut().step_by(10) {
            key.push_str("{tag}x");
        }
        let address = port::free();
        // Every other node has a name.
        let named = |number: usize| number % 2 == 1;
        let servers = draw.lines(|number, server, weight| {
            let name = if named(number) {
                format!(" node{number}")
            } else {
                String::new()
            };
            format!("   - {server}:{weight}{name}")
        });
        let text = format!(
            "app:\n  listen: {address}\n  hash: {function}\n  hash_tag: \"{{}}\"\n  distribution: ketama\n  preconnect: true\n  servers:\n{servers}"
        );
        let (stats, arguments) = (port::free(), ["-c", "n.yml", "-a"]);
        let (host, port) = (stats.ip().to_string(), stats.port().to_string());
        let arguments: Vec<_> = arguments.into_iter().chain([&*host, "-s", &port]).collect();
        let nutcracker =
            ReferenceProxy::start("nutcracker", &arguments, address, &[("n.yml", &text)]);
        let id = |number, _| {
            if named(number) {
                format!(", id: node{number}")
            } else {
                String::new()
            }
        };
        let site = draw.site(
            &format!("{{dialect: twemproxy, hash: {function}, hash_tag: \"{{}}\"}}"),
            id,
        );
        let theirs = get_all(nutcracker.address, &keys);
        draw.compare(
            &format!("twemproxy, {function}"),
            &keys,
            &theirs,
            &draw.predict(&site, None, &keys),
        );
    }
}

/// Traffic Server with a parent for each server, whose `hash_string` may follow.
fn traffic_server(draw: &RandomCase, hash_string: fn(SocketAddr) -> String) -> ReferenceProxy {
    let address = port::free();
    let parents = draw.lines(|number, server, _| {
        format!("{server}|{}{};", draw.weight(number), hash_string(server))
    });
    let parents = parents.replace('\n', "");
    let parent =
        format!("dest_domain=. parent=\"{parents}\" round_robin=consistent_hash go_direct=false\n");
    // All servers are this machine, which is no reason to take them for Traffic Server itself.
    let records = format!(
        "CONFIG proxy.config.http.server_ports STRING {}:ip-in={}
CONFIG proxy.config.admin.user_id STRING #-1
CONFIG proxy.config.http.cache.http INT 0
CONFIG proxy.config.log.logging_enabled INT 0
CONFIG proxy.config.http.no_dns_just_forward_to_parent INT 1
CONFIG proxy.config.http.parent_proxy.self_detect INT 0
CONFIG proxy.config.http.parent_proxy.fail_threshold INT 1
CONFIG proxy.config.http.parent_proxy.retry_time INT 3600
",
        address.port(),
        address.ip()
    );
    let layout = "prefix: @DIR@\nexec_prefix: @DIR@\nbindir: /usr/bin\nsbindir: /usr/sbin
sysconfdir: @DIR@\ndatadir: @DIR@\nincludedir: @DIR@\nlibdir: @DIR@\nlibexecdir: @DIR@
localstatedir: @DIR@\nruntimedir: @DIR@\nlogdir: @DIR@\ncachedir: @DIR@\n";
    let files = [
        ("runroot.yaml", layout),
        ("records.config", &records),
        ("parent.config", &parent),
        ("remap.config", "map / http://app.example/\n"),
        (
            "ip_allow.yaml",
            "ip_allow: [{apply: in, ip_addrs: 127.0.0.0/8, action: allow, methods: ALL}]\n",
        ),
        ("storage.config", ""),
    ];
    let arguments = ["--run-root=@DIR@/runroot.yaml"];
    ReferenceProxy::start("traffic_server", &arguments, address, &files)
}

#[test]
fn ats_placement_matches_with_a_dead_server() {
    let mut draw = RandomCase::new();
    let mut keys = draw.keys();
    let requests = by_path(&mut keys);
    let site = draw.site("ats", |_, server| format!(", id: \"{server}\""));
    let other = traffic_server(&draw, |server| format!("&{server}"));
    let theirs = other.ask_all(&requests);
    draw.compare("ats", &keys, &theirs, &draw.predict(&site, None, &keys));
    let dead = draw.kill();
    wait::until("the dead parent to be left alone", || {
        let answers = |request| try_send(other.address, request).unwrap().status == 200;
        requests.iter().take(100).all(answers)
    });
    let theirs = other.ask_all(&requests);
    let ours = draw.predict(&site, Some(dead), &keys);
    draw.compare("ats, one down", &keys, &theirs, &ours);
}

/// Without a `hash_string`, Traffic Server places a parent by its host, without the port.
#[test]
fn ats_placement_matches_by_host() {
    let hosts = (2..8).map(|last| IpAddr::from([127, 0, 0, last]));
    let origins: Vec<_> = hosts
        .map(|host| Origin::named_at(port::free_at(host)))
        .collect();
    let addresses: Vec<_> = origins.iter().map(|origin| origin.address).collect();
    let whole = RandomCase::of(addresses.clone());
    for mut draw in [whole, RandomCase::of(addresses).fractional(0)] {
        let mut keys = draw.keys();
        let requests = by_path(&mut keys);
        let theirs = traffic_server(&draw, |_| String::new()).ask_all(&requests);
        let ours = draw.predict(&draw.site("ats", no_id), None, &keys);
        draw.compare("ats, by host", &keys, &theirs, &ours);
    }
}

/// Caddy by this policy; a server that fails once is left alone.
fn caddy(draw: &RandomCase, program: &str, policy: &str) -> ReferenceProxy {
    let address = port::free();
    let servers = draw.lines(|_, server, _| server.to_string());
    let servers = servers.replace('\n', " ");
    let text = format!(
        "{{\n    admin off\n    auto_https off\n    log {{\n        level ERROR\n    }}\n}}
http://:{} {{
    bind {}
    reverse_proxy {servers} {{
        lb_policy {policy}
        lb_try_duration 20s
        lb_try_interval 1ms
        max_fails 1
        fail_duration 1h
    }}
}}
",
        address.port(),
        address.ip()
    );
    let arguments = ["run", "--config", "Caddyfile", "--adapter", "caddyfile"];
    ReferenceProxy::start(program, &arguments, address, &[("Caddyfile", &text)])
}

/// The present one, and Debian's, which hashes otherwise.
const CADDYS: [(&str, &str, &str); 2] = [
    ("caddy", "xxhash", ""),
    ("/usr/bin/caddy", "fnv1a_32", " 2.6"),
];

#[test]
fn caddy_placement_matches_by_header_with_a_dead_server() {
    for (program, hash, version) in CADDYS {
        let mut draw = RandomCase::new();
        let keys = draw.keys();
        let site = draw.site(&format!("{{dialect: caddy, hash: {hash}}}"), no_id);
        let caddy = caddy(&draw, program, "header X-Key");
        let compare = |draw: &RandomCase, dead, name: &str| {
            let theirs = caddy.ask_all(&by_header(&keys));
            let ours = draw.predict(&site, dead, &keys);
            draw.compare(&format!("caddy{version}, {name}"), &keys, &theirs, &ours);
        };
        compare(&draw, None, "header");
        let dead = draw.kill();
        compare(&draw, Some(dead), "header, one down");
    }
}

#[test]
fn caddy_placement_matches_by_uri_and_query() {
    let uri: fn(&mut [String]) -> Vec<Request> = by_path;
    let query: fn(&mut [String]) -> Vec<Request> = |keys| by_query(keys);
    let [(present, xxhash, _), (past, fnv, version)] = CADDYS;
    for (program, hash, name, policy, requests) in [
        (present, xxhash, String::new(), "uri_hash", uri),
        (present, xxhash, String::new(), "query k", query),
        (past, fnv, version.to_owned(), "uri_hash", uri),
    ] {
        let mut draw = RandomCase::new();
        let mut keys = draw.keys();
        let requests = requests(&mut keys);
        let site = draw.site(&format!("{{dialect: caddy, hash: {hash}}}"), no_id);
        let theirs = caddy(&draw, program, policy).ask_all(&requests);
        let ours = draw.predict(&site, None, &keys);
        draw.compare(&format!("caddy{name}, {policy}"), &keys, &theirs, &ours);
    }
}

#[test]
fn caddy_placement_matches_with_many_ipv6_servers_and_binary_keys() {
    let mut draw = RandomCase::at(Ipv6Addr::LOCALHOST.into(), 40);
    let keys = draw.wild_keys();
    let theirs = caddy(&draw, "caddy", "header X-Key").ask_all(&by_header(&keys));
    let ours = draw.predict(&draw.site("caddy", no_id), None, &keys);
    draw.compare("caddy, 40 IPv6", &keys, &theirs, &ours);
}

#[test]
fn caddy_placement_matches_by_client_address() {
    let [present, past] = CADDYS;
    for ((program, hash, version), policy) in [
        (present, "ip_hash"),
        (present, "client_ip_hash"),
        (past, "ip_hash"),
    ] {
        let mut draw = RandomCase::new();
        let sources = sources(&mut draw);
        let keys: Vec<_> = sources.iter().map(ToString::to_string).collect();
        let site = draw.site(&format!("{{dialect: caddy, hash: {hash}}}"), no_id);
        let theirs = caddy(&draw, program, policy).ask_from(&sources);
        let ours = draw.predict(&site, None, &keys);
        draw.compare(&format!("caddy{version}, {policy}"), &keys, &theirs, &ours);
    }
}

/// Traefik, which asks its servers every 100 ms whether they are well.
fn traefik(draw: &RandomCase) -> ReferenceProxy {
    let address = port::free();
    let servers = draw.lines(|_, server, weight| {
        format!("        - {{url: \"http://{server}\", weight: {weight}}}")
    });
    let text = format!(
        "http:
  routers:
    all: {{rule: \"PathPrefix(`/`)\", service: app}}
  services:
    app:
      loadBalancer:
        strategy: hrw
        healthCheck: {{path: /, interval: 100ms, timeout: 5s}}
        servers:
{servers}"
    );
    let listen = format!("--entryPoints.web.address={address}");
    let arguments = [
        &listen,
        "--providers.file.filename=@DIR@/app.yaml",
        "--global.checkNewVersion=false",
        "--log.level=ERROR",
    ];
    let traefik = ReferenceProxy::start("traefik", &arguments, address, &[("app.yaml", &text)]);
    wait::until("traefik to read its servers", || {
        let answer = try_send(address, &Request::get("/"));
        answer.is_ok_and(|answer| answer.status == 200)
    });
    traefik
}

#[test]
fn traefik_placement_matches_with_a_dead_server() {
    for _ in 0..3 {
        let mut draw = RandomCase::new();
        let sources = sources(&mut draw);
        let keys: Vec<_> = sources.iter().map(ToString::to_string).collect();
        let site = draw.site("traefik", |_, server| format!(", id: \"http://{server}\""));
        let traefik = traefik(&draw);
        let theirs = traefik.ask_from(&sources);
        let ours = draw.predict(&site, None, &keys);
        draw.compare("traefik", &keys, &theirs, &ours);
        let is_first = |address: &SocketAddr| address.to_string() == theirs[0];
        let dead = draw.addresses.iter().position(is_first).unwrap();
        draw.origins[dead].down();
        wait::until("the dead server to be found out", || {
            let answer = ask_from(sources[0], traefik.address);
            answer.is_ok_and(|owner| owner.parse::<SocketAddr>().is_ok())
        });
        let theirs = traefik.ask_from(&sources);
        let ours = draw.predict(&site, Some(dead), &keys);
        draw.compare("traefik, one down", &keys, &theirs, &ours);
    }
}

/// The library's own code, in a Python module: the owner of each line of `keys`. The module gives the library
/// as many bytes of a key as it has characters, so each key gets more of these.
const LIBKETAMA: &str = "from ketama import Ketama
ring = Ketama('servers')
for line in open('keys', encoding='utf-8'):
    key = line.rstrip('\\n')
    key += 'x' * (len(key.encode()) - len(key))
    print(ring.get_server(key)[1])
";

#[test]
fn libketama_placement_matches_the_library() {
    for _ in 0..5 {
        let mut draw = RandomCase::new().heavy();
        let keys = draw.wild_keys();
        let servers = draw.lines(|_, server, weight| format!("{server}\t{weight}"));
        let files = [
            ("servers", &*servers),
            ("keys", &keys.join("\n")),
            ("ask.py", LIBKETAMA),
        ];
        let theirs = output("python3", &["ask.py"], &files);
        let theirs: Vec<_> = theirs.lines().map(str::to_owned).collect();
        let site = draw.site("libketama", no_id);
        let ours = draw.predict(&site, None, &keys);
        draw.compare("libketama", &keys, &theirs, &ours);
    }
}

/// Debian's library from Python: the server of each line of `keys`, by the behaviour that is the first argument.
/// Servers are added before or after the behaviour is set, by the second.
const LIBMEMCACHED: &str = "import ctypes, sys
library = ctypes.CDLL('libmemcached.so.11')
library.memcached_create.restype = ctypes.c_void_p
memory = ctypes.c_void_p(library.memcached_create(None))
number, value = map(int, sys.argv[1].split('='))
def choose():
    assert library.memcached_behavior_set(memory, number, ctypes.c_uint64(value)) == 0
if sys.argv[2] == 'before':
    choose()
servers = [line.split() for line in open('servers')]
for host, port, weight in servers:
    assert library.memcached_server_add_with_weight(memory, host.encode(), int(port), int(weight)) == 0
if sys.argv[2] == 'after':
    choose()
for key in open('keys', 'rb').read().split(b'\\n'):
    host, port, _ = servers[library.memcached_generate_hash(memory, key, ctypes.c_size_t(len(key)))]
    print(f'[{host}]:{port}' if ':' in host else f'{host}:{port}')
";

/// `MEMCACHED_BEHAVIOR_KETAMA`.
const KETAMA: &str = "3=1";
/// `MEMCACHED_BEHAVIOR_DISTRIBUTION` with `MEMCACHED_DISTRIBUTION_CONSISTENT`.
const CONSISTENT: &str = "9=1";
/// `MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED`.
const WEIGHTED: &str = "16=1";

/// Where libmemcached puts each key.
fn libmemcached(draw: &RandomCase, keys: &[String], behaviour: &str, when: &str) -> Vec<String> {
    let servers =
        draw.lines(|_, server, weight| format!("{} {} {weight}", server.ip(), server.port()));
    let (servers, keys) = (servers.trim_end(), keys.join("\n"));
    let files = [
        ("servers", servers),
        ("keys", &keys),
        ("ask.py", LIBMEMCACHED),
    ];
    let theirs = output("python3", &["ask.py", behaviour, when], &files);
    theirs.lines().map(str::to_owned).collect()
}

/// Servers that are never asked; every other one has memcached's own port, which is not part of its name.
fn memcached_addresses() -> Vec<SocketAddr> {
    let address = |last: u8| {
        let port = if last.is_multiple_of(2) {
            11_211
        } else {
            11_300 + u16::from(last)
        };
        let host = match last % 3 {
            0 => IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last.into())),
            _ => IpAddr::from([192, 0, 2, last]),
        };
        SocketAddr::new(host, port)
    };
    (1..12).map(address).collect()
}

#[test]
fn libmemcached_placement_matches_the_library() {
    for (behaviour, name) in [(KETAMA, "ketama"), (CONSISTENT, "consistent")] {
        let mut draw = RandomCase::of(memcached_addresses());
        draw.weights.fill(1);
        let keys = draw.wild_keys();
        let theirs = libmemcached(&draw, &keys, behaviour, "before");
        let ours = draw.predict(&draw.site("libmemcached", no_id), None, &keys);
        draw.compare(&format!("libmemcached, {name}"), &keys, &theirs, &ours);
    }
}

/// With weights libmemcached has the points of twemproxy, unless the distribution is chosen after the servers.
#[test]
fn libmemcached_placement_matches_with_weights() {
    for (behaviour, when, ring) in [
        (KETAMA, "after", "libmemcached"),
        (
            KETAMA,
            "before",
            "{dialect: twemproxy, hash: one_at_a_time}",
        ),
        (
            CONSISTENT,
            "before",
            "{dialect: twemproxy, hash: one_at_a_time}",
        ),
        (WEIGHTED, "before", "{dialect: twemproxy, hash: md5}"),
        (WEIGHTED, "after", "{dialect: twemproxy, hash: md5}"),
    ] {
        // twemproxy has no brackets to remove.
        let only_v4 = memcached_addresses()
            .into_iter()
            .filter(SocketAddr::is_ipv4);
        let mut draw = RandomCase::of(only_v4.collect()).heavy();
        let keys = draw.wild_keys();
        let theirs = libmemcached(&draw, &keys, behaviour, when);
        let ours = draw.predict(&draw.site(ring, no_id), None, &keys);
        let title = format!("libmemcached, {behaviour} {when} weights as {ring}");
        draw.compare(&title, &keys, &theirs, &ours);
    }
}
