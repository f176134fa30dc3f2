#!/usr/bin/env bash
# nginx with `resolver`, and dnsmasq that knows a name with an IPv4 address only (`host-record`), and no other name server.
#
# Software: nginx 1.22.1-9+deb12u9 and dnsmasq-base 2.90-4~deb12u2 of Debian 12.
# Expected: dnsmasq answers "no such record" (NOERROR, empty) for the IPv6 address of a name that it has, and nginx uses the IPv4 one.
# Seen: dnsmasq answers REFUSED for type AAAA, and nginx then has no address at all: each request is 502, though the answer
# for type A arrived. `ipv6=off` in nginx or `--local=/test/` in dnsmasq (what it does not know then does not exist) helps.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download nginx=1.22.1-9+deb12u9 dnsmasq-base=2.90-4~deb12u2 \
    libnetfilter-conntrack3 libnfnetlink0 libnftables1 libnftnl11 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu"
cat >run.py <<'P'
import collections, getpass, http.client, os, socket, struct, subprocess, time


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


edge, origin, dns = free_port(), free_port(), free_port(socket.SOCK_DGRAM)


def code(kind):
    """The response code and the number of records that dnsmasq answers with; kind 1 is A, 28 is AAAA."""
    query = struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 0) + b"\x03app\x04test\0" + struct.pack(">HH", kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(1)
        client.sendto(query, ("127.0.0.1", dns))
        answer = client.recv(512)
    return {0: "NOERROR", 5: "REFUSED"}.get(answer[3] & 15, answer[3] & 15), answer[7]


def retry(call):
    for _ in range(300):
        try:
            return call()
        except OSError:
            time.sleep(0.1)
    raise TimeoutError


def statuses():
    client = http.client.HTTPConnection("127.0.0.1", edge)
    counts = collections.Counter()
    for _ in range(20):
        client.request("GET", "/")
        response = client.getresponse()
        response.read()
        counts[response.status] += 1
    return dict(counts)


def run(resolver="", local=""):
    with open("nginx.conf", "w") as file:
        paths = " ".join(f"{kind}_temp_path {kind};" for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"])
        file.write(
            "daemon off; worker_processes 1; pid nginx.pid; error_log nginx.log; events {}\n"
            f"http {{ access_log off; {paths} resolver 127.0.0.1:{dns} {resolver};\n"
            f"server {{ listen 127.0.0.1:{edge}; set $peer app.test; location / {{ proxy_pass http://$peer:{origin}; }} }}\n"
            f"server {{ listen 127.0.0.1:{origin}; return 204; }} }}\n"
        )
    command = ["usr/sbin/dnsmasq", "-k", "-C", "/dev/null", "-p", str(dns), "--user=" + getpass.getuser(), "--pid-file=", "--no-hosts"]
    command += ["--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--host-record=app.test,127.0.0.1", *filter(None, [local])]
    started = [subprocess.Popen(command)]
    started.append(subprocess.Popen(["usr/sbin/nginx", "-p", os.getcwd(), "-c", "nginx.conf", "-e", "nginx.log"], stderr=subprocess.DEVNULL))
    try:
        answers = retry(lambda: (code(1), code(28)))
        found = retry(statuses)
    finally:
        for one in started:
            one.terminate()
            one.wait()
    print(f"resolver '{resolver}', dnsmasq '{local}': A, AAAA: {answers}; requests: {found}")
    return *answers, found


address, none, refused = ("NOERROR", 1), ("NOERROR", 0), ("REFUSED", 0)
assert run() == (address, refused, {502: 20}), "dnsmasq or nginx has changed"
assert run("ipv6=off") == (address, refused, {204: 20}), "nginx with ipv6=off has changed"
assert run(local="--local=/test/") == (address, none, {204: 20}), "dnsmasq with --local has changed"
P
python3 run.py
