#!/usr/bin/env bash
# Unbound, when the only name server of a zone (`stub-zone`) is silent for two minutes, and then answers again with a new address.
#
# Software: unbound 1.17.1-2+deb12u4 of Debian 12. The time to live of the address is 2 s. A client asks once a second.
# Expected: the name works again some seconds after its name server does.
# Seen: more than two minutes later, Unbound has not sent one query to the name server. Clients get SERVFAIL, and with
# `serve-expired: yes` the old address with a time to live of 30 s, each time anew. In a longer run this lasted 13 minutes.
# With `infra-keep-probing: yes` the new address came after one minute. After an outage of 20 s it came after 7 s.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
apt-get -qq download unbound=1.17.1-2+deb12u4 libprotobuf-c1 libevent-2.1-7 libpython3.11 2>/dev/null
for package in *.deb; do dpkg -x "$package" .; done
export LD_LIBRARY_PATH="$PWD/usr/lib/x86_64-linux-gnu"
cat >run.py <<'P'
import os, socket, struct, subprocess, threading, time

OUTAGE, AFTER = 120, 130
NAME = b"\x03app\x04test\0" + struct.pack(">HH", 1, 1)


def listener():
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    return one


class NameServer:
    """Answers with `address`, or not at all; counts the queries."""

    def __init__(self):
        self.address, self.queries, self.udp = "127.0.0.1", 0, listener()
        self.port = self.udp.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            query, client = self.udp.recvfrom(1500)
            self.queries += 1
            end = query.index(b"\0", 12) + 5
            (kind,) = struct.unpack(">H", query[end - 4 : end - 2])
            if self.address:
                data = [socket.inet_aton(self.address)] if kind == 1 else []
                head = query[:2] + struct.pack(">HHHHH", 0x8580, 1, len(data), 0, 0)
                records = [b"\xc0\x0c" + struct.pack(">HHIH", 1, 1, 2, 4) + one for one in data]
                self.udp.sendto(head + query[12:end] + b"".join(records), client)


class Unbound:
    def __init__(self, option):
        self.option, self.server = option, NameServer()
        with listener() as free:
            self.port = free.getsockname()[1]
        file = f"{self.port}.conf"
        with open(file, "w") as config:
            config.write(
                f"server:\n {option}\n directory: '{os.getcwd()}'\n chroot: ''\n username: ''\n pidfile: ''\n use-syslog: no\n"
                f" interface: 127.0.0.1@{self.port}\n do-not-query-localhost: no\n module-config: iterator\n"
                " local-zone: test. nodefault\nremote-control:\n control-enable: no\n"
                f"stub-zone:\n name: test\n stub-addr: 127.0.0.1@{self.server.port}\n"
            )
        self.process = subprocess.Popen(["usr/sbin/unbound", "-d", "-c", file], stderr=subprocess.DEVNULL)

    def ask(self):
        """Address and time to live, or the response code, or that there was no answer."""
        with listener() as client:
            client.settimeout(0.2)
            client.sendto(struct.pack(">HHHHHH", 1, 0x0100, 1, 0, 0, 0) + NAME, ("127.0.0.1", self.port))
            try:
                answer = client.recv(1500)
            except TimeoutError:
                return "no answer"
        if not answer[7]:
            return {0: "NOERROR", 2: "SERVFAIL"}.get(answer[3] & 15, answer[3] & 15)
        record = answer[12 + len(NAME) :]
        return f"{socket.inet_ntoa(record[12:16])} for {struct.unpack('>I', record[6:10])[0]} s"


every = [Unbound(option) for option in ("", "serve-expired: yes", "infra-keep-probing: yes")]
try:
    until = time.monotonic() + 30
    while not all(one.ask().startswith("127.0.0.1 ") for one in every):
        assert time.monotonic() < until, "Unbound does not start"
        time.sleep(0.5)

    def ask_for(seconds):
        """What each instance answers, a second apart; by answer, the second of the first and the last one."""
        began, seen = time.monotonic(), [{} for _ in every]
        while time.monotonic() < began + seconds:
            for one, answers in zip(every, seen):
                answer, now = one.ask(), round(time.monotonic() - began)
                first, _ = answers.get(answer, (now, now))
                answers[answer] = first, now
            time.sleep(1)
        return seen

    for one in every:
        one.server.address = None
    ask_for(OUTAGE)
    before = [one.server.queries for one in every]
    for one in every:
        one.server.address = "127.0.0.2"
    seen = ask_for(AFTER)
    queries = [one.server.queries - count for one, count in zip(every, before)]
finally:
    for one in every:
        one.process.terminate()
        one.process.wait()
for one, answers, count in zip(every, seen, queries):
    print(f"'{one.option}': {count} queries since the name server answers;", *[f"{a}: {s}-{e} s;" for a, (s, e) in answers.items()])
new = [any(answer.startswith("127.0.0.2 ") for answer in answers) for answers in seen]
assert new == [False, False, True] and queries[:2] == [0, 0], "Unbound recovers otherwise now"
assert "SERVFAIL" in seen[0] and "127.0.0.1 for 30 s" in seen[1], "Unbound answers otherwise now"
P
python3 run.py
