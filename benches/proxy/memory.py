"""The workload `idle`: the resident memory that one idle connection takes.

Each contestant is started anew, warmed up, and left alone; then 5,000 clients connect. Each sends one request, so that
the proxy has done for the connection whatever it does, and keeps the connection. What the resident memory has grown by, over
5,000, is the figure. The kernel's memory for sockets is not in it; it is the same for all.
"""

import contextlib
import statistics
import time

import machine
import proxies
import report
import workloads

CONNECTIONS = 5000
SETTLE = 1  # seconds, until what requests have left behind is freed
REQUEST = b"GET /key/%d HTTP/1.1\r\nHost: bench.test\r\n\r\n"
END = b"\r\n\r\nok\n"


def run(bench, options):
    rounds = []
    for number in range(options.rounds):
        rounds.append({name: measure(bench, name) for name in report.in_turn(bench.names, number)})
        sizes = ", ".join(f"{name} {rounds[-1][name].each:.1f}" for name in bench.names)
        machine.say(f"idle: round {number + 1} of {options.rounds}: {sizes} KiB")
    bars = [
        report.Bar(name, proxies.CONTESTANTS[name].title, [samples[name].each for samples in rounds])
        for name in bench.names
    ]
    closed = sum(sample.closed for samples in rounds for sample in samples.values())
    complaints = [f"idle: {closed} connections did not stay open"] if closed else []
    title = f"{CONNECTIONS:,} idle connections"
    return report.Report(title, "KiB of resident memory per idle connection", [], table(rounds), bars, complaints)


class Sample:
    """Resident memory without and with the connections."""

    def __init__(self, before, after, closed):
        self.at_rest = before / 1024**2  # MiB
        self.each = (after - before) / CONNECTIONS / 1024  # KiB per connection
        self.closed = closed


def measure(bench, name):
    with contextlib.ExitStack() as stack:
        proxy = bench.start(stack, name)
        workloads.Load(bench, "get").warm_up(proxy)
        time.sleep(SETTLE)
        before = machine.resident(proxy.pid)
        clients = []
        for number in range(CONNECTIONS):
            clients.append(stack.enter_context(machine.connect(proxy.address)))
            ask(clients[-1], number)
        time.sleep(SETTLE)
        return Sample(before, machine.resident(proxy.pid), sum(map(is_closed, clients)))


def ask(client, number):
    client.sendall(REQUEST % number)
    received = b""
    while not received.endswith(END):
        piece = client.recv(4096)
        received += piece or machine.fail(f"connection {number} was closed after {received!r}")
    if not received.startswith(b"HTTP/1.1 200 "):
        machine.fail(f"unexpected response: {received!r}")


def is_closed(client):
    client.setblocking(False)
    try:
        return client.recv(1) == b""
    except BlockingIOError:
        return False


def table(rounds):
    header = ["proxy", "KiB / connection", "× bare", "× nginx", "MiB at rest", "closed"]
    rows = []
    for name in rounds[0]:
        samples = [one[name] for one in rounds]
        ratios = [report.spread(report.ratios(rounds, name, base, lambda one: one.each), 2) for base in proxies.BASES]
        rows.append([
            proxies.CONTESTANTS[name].title,
            report.spread([sample.each for sample in samples], 1),
            *ratios,
            f"{statistics.median(sample.at_rest for sample in samples):.1f}",
            str(sum(sample.closed for sample in samples)),
        ])
    return report.table(header, rows)
