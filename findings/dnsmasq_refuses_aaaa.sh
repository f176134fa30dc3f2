#!/usr/bin/env bash
# dnsmasq: what it answers for the IPv6 address of a name that it has only an IPv4 address of, without another name server to ask.
#
# Software: dnsmasq-base 2.90-4~deb12u2 of Debian 12, as the name server of a host or of a lab.
# Expected: an answer without records (RFC 2308: NODATA), since the name exists and has no such record.
# Seen: REFUSED, by which a client cannot tell a name without IPv6 from a server that fails; `--local=/test/` makes it NODATA.
#       A client that takes the first error for the answer of both questions finds no address at all.
set -euo pipefail
cd "$(mktemp -d)"
trap 'kill $(jobs -p) 2>/dev/null || true; rm -rf "$PWD"' EXIT
apt-get -qq download dnsmasq-base=2.90-4~deb12u2 2>/dev/null
dpkg -x dnsmasq-base_*.deb .
start() {
    usr/sbin/dnsmasq --no-daemon --conf-file=/dev/null --user="$(id -un)" --pid-file= --no-resolv --no-hosts \
        --listen-address=127.0.0.1 --port="$1" --bind-interfaces --host-record=app.test,10.0.0.1 "${@:2}" 2>/dev/null &
}
start 25353
start 25354 --local=/test/
cat >ask.py <<'P'
import socket, struct, sys, time
def ask(port, kind):
    question = struct.pack('>HHHHHH', 7, 0x100, 1, 0, 0, 0) + b'\x03app\x04test\x00' + struct.pack('>HH', kind, 1)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.2)
        for _ in range(50):
            client.sendto(question, ('127.0.0.1', port))
            try:
                answer = client.recv(512)
            except OSError:
                time.sleep(0.1)
                continue
            flags, answers = struct.unpack('>2xH2xH', answer[:8])
            return {0: 'NOERROR', 5: 'REFUSED'}.get(flags & 15, str(flags & 15)), answers
    sys.exit('dnsmasq does not answer')
seen = {(name, port): ask(port, kind) for port in (25353, 25354) for name, kind in (('A', 1), ('AAAA', 28))}
for (name, port), (code, answers) in seen.items():
    print(f'{"with" if port == 25354 else "without"} --local: {name}: {code}, {answers} records')
expected = [('NOERROR', 1), ('REFUSED', 0), ('NOERROR', 1), ('NOERROR', 0)]
sys.exit(list(seen.values()) != expected and 'the answers of dnsmasq have changed')
P
python3 ask.py
