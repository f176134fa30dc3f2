#!/usr/bin/env bash
# HAProxy with `server-template` over SRV records: the share of 600 keys that each server gets, by weights and priorities of the records.
#
# Software: haproxy 2.6.12-1+deb12u3 and dnsmasq-base 2.90-4~deb12u2 of Debian 12.
# Expected: shares by weight; equal shares for weights of 0, which RFC 2782 asks for "when there isn't any server selection to do";
# records of the higher priority value only when the others are down.
# Seen: weights of 0 for all are 503 for all requests, and one record of 0 among others gets nothing. 1, 10 and 256 are equal: a
# weight is divided by 256 and rounded up. Priorities are ignored.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download haproxy=2.6.12-1+deb12u3 dnsmasq-base=2.90-4~deb12u2 \
    liblua5.3-0 libopentracing1 libopentracing-c-wrapper0 libnetfilter-conntrack3 libnfnetlink0 libnftables1 libnftnl11 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu"
cat >run.py <<'P'
import collections, getpass, http.client, socket, subprocess, time

KEYS = range(600)


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


edge, statistics, origin, dns = free_port(), free_port(), free_port(), free_port(socket.SOCK_DGRAM)
with open("haproxy.cfg", "w") as file:
    file.write(
        f"global\n stats socket 127.0.0.1:{statistics}\n"
        "defaults\n mode http\n timeout connect 5s\n timeout client 20s\n timeout server 20s\n"
        f"resolvers dns\n nameserver one 127.0.0.1:{dns}\n"
        f"frontend edge\n bind 127.0.0.1:{edge}\n default_backend app\n"
        "backend app\n balance uri\n hash-type consistent\n"
        " server-template s 3 _http._tcp.app.test resolvers dns resolve-prefer ipv4 init-addr none\n"
        "listen origins\n" + "".join(f" bind 127.0.0.{number}:{origin}\n" for number in (1, 2, 3)) +
        " http-request return status 200 hdr x-address %[dst]\n"
    )


def resolved():
    """The number of servers that have an address."""
    try:
        with socket.create_connection(("127.0.0.1", statistics)) as control:
            control.sendall(b"show servers state app\n")
            return sum(" 127.0.0." in line for line in control.makefile())
    except OSError:
        return 0


def spread(*records):
    """Requests per server, or per status of an error, for three records of (priority, weight)."""
    command = ["usr/sbin/dnsmasq", "-k", "-C", "/dev/null", "-p", str(dns), "--user=" + getpass.getuser(), "--pid-file="]
    command += ["--listen-address=127.0.0.1", "--bind-interfaces", "--no-resolv", "--no-hosts", "--local=/test/"]
    for number, (priority, weight) in enumerate(records, 1):
        command.append(f"--host-record=s{number}.test,127.0.0.{number}")
        command.append(f"--srv-host=_http._tcp.app.test,s{number}.test,{origin},{priority},{weight}")
    started = [subprocess.Popen(command), subprocess.Popen(["usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"], stderr=subprocess.DEVNULL)]
    try:
        until = time.monotonic() + 30
        while resolved() < 3:
            assert time.monotonic() < until, "HAProxy does not resolve the records"
            time.sleep(0.2)
        client, counts = http.client.HTTPConnection("127.0.0.1", edge), collections.Counter()
        for key in KEYS:
            client.request("GET", f"/k{key}")
            response = client.getresponse()
            response.read()
            counts[response.getheader("x-address") or response.status] += 1
        return counts
    finally:
        for one in started:
            one.terminate()
            one.wait()


def show(title, *records):
    counts = spread(*records)
    print(f"{title}: {dict(sorted(counts.items(), key=str))}")
    return counts


equal = show("weights 1, 1, 1", (0, 1), (0, 1), (0, 1))
assert len(equal) == 3 and min(equal.values()) > 100, "equal weights are handled otherwise now"
assert show("weights 0, 0, 0", (0, 0), (0, 0), (0, 0)) == {503: 600}, "weights of 0 are handled otherwise now"
assert "127.0.0.3" not in show("weights 1, 1, 0", (0, 1), (0, 1), (0, 0)), "a weight of 0 is handled otherwise now"
assert show("weights 1, 10, 256", (0, 1), (0, 10), (0, 256)) == equal, "weights are scaled otherwise now"
assert show("priorities 0, 1, 2", (0, 1), (1, 1), (2, 1)) == equal, "priorities are handled otherwise now"
P
python3 run.py
