"""The workloads that measure CPU time per request, with wrk as the load generator.

The cost of a proxy in a round is the CPU time of its process (user and system, all threads) over the requests that were
answered meanwhile. A request in the large workload is a megabyte, in the others a few bytes or 4 KB.
"""

import contextlib
import dataclasses
import os
import pathlib
import statistics
import time

import machine
import proxies
import report

HERE = pathlib.Path(__file__).resolve().parent
WARM_UP = 1  # seconds

# Of a core's time: busy enough to be what limits the throughput, idle enough not to be, and little enough for other
# processes not to matter.
SATURATED = 0.95
HAS_ROOM = 0.90
QUIET = 0.10


@dataclasses.dataclass(frozen=True)
class Workload:
    title: str
    connections: int = 64
    scheme: str = "http"


WORKLOADS = {
    "get": Workload("Small GET"),
    "post": Workload("POST of 4 KB"),
    "connect": Workload("Small GET, a new connection each"),
    "large": Workload("GET of 1 MB", connections=16),
    "https": Workload("Small GET, HTTPS", scheme="https"),
}


@dataclasses.dataclass
class Sample:
    """What one round of load on one proxy gave. Shares are of a core's time."""

    requests: int
    errors: int
    seconds: float
    cpu: float  # seconds, of the proxy
    others: float  # share of the proxy's core, of all other processes
    proxy_core: float  # share in which it was busy
    load_core: float
    origin: float  # share of the load's core
    generator: float

    @property
    def cost(self):
        """CPU time per request; µs."""
        return self.cpu / self.requests * 1e6

    @property
    def rate(self):
        """Requests per second."""
        return self.requests / self.seconds


def run(bench, name, options):
    """Measures all contestants with one workload."""
    workload = WORKLOADS[name]
    load = Load(bench, name)
    for contestant, proxy in bench.proxies.items():
        machine.say(f"{name}: warming {contestant} up")
        load.warm_up(proxy)
    rounds = []
    for number in range(options.rounds):
        samples = {}
        for contestant in report.in_turn(bench.names, number):
            samples[contestant] = load.sample(bench.proxies[contestant], options.seconds)
        rounds.append(samples)
        costs = ", ".join(f"{contestant} {samples[contestant].cost:.2f}" for contestant in bench.names)
        machine.say(f"{name}: round {number + 1} of {options.rounds}: {costs} µs")
    costs = {contestant: [samples[contestant].cost for samples in rounds] for contestant in bench.names}
    bars = [report.Bar(contestant, proxies.CONTESTANTS[contestant].title, costs[contestant]) for contestant in costs]
    return report.Report(
        workload.title, "CPU µs per request", [], table(rounds), bars, complaints(rounds, name, options.at_most)
    )


class Load:
    """Clients that send the next request as soon as they have the response."""

    def __init__(self, bench, name):
        self.bench, self.name, self.workload = bench, name, WORKLOADS[name]
        # All proxies get the same offer: TLS 1.3 with one cipher suite and one group.
        self.env = {"OPENSSL_CONF": str(HERE / "openssl.cnf")}

    def warm_up(self, proxy):
        machine.load(self.command(proxy, WARM_UP), self.bench.load_core, self.env)

    def sample(self, proxy, seconds):
        return sample(self.bench, proxy, self.command(proxy, seconds), self.env)[0]

    def command(self, proxy, seconds):
        address = proxy.tls_address if self.workload.scheme == "https" else proxy.address
        command = [machine.tool("wrk"), "-t1", f"-c{self.workload.connections}", f"-d{seconds}s", "--timeout", "10s"]
        return [*command, "-s", HERE / "requests.lua", f"{self.workload.scheme}://{address}", self.name]


def sample(bench, proxy, command, env=None):
    """Runs a load generator; a `Sample`, and what its result has besides requests and errors."""
    before = times(bench, proxy)
    (requests, errors, *rest), generator = machine.load(command, bench.load_core, env)
    seconds, cpu, proxy_core, load_core, origin = (
        after - before for after, before in zip(times(bench, proxy), before, strict=True)
    )
    with contextlib.suppress(FileNotFoundError):
        os.truncate(proxy.log, 0)  # it is written in append mode
    if requests == 0:
        machine.fail(f"{proxy.log.parent.name} answered nothing, with {errors} errors")
    others = max(0.0, proxy_core - cpu)
    shares = [value / seconds for value in (others, proxy_core, load_core, origin, generator)]
    return Sample(requests, errors, seconds, cpu, *shares), rest


def times(bench, proxy):
    """The clock, and the CPU times that a sample takes the difference of; seconds."""
    return [
        time.monotonic(),
        machine.cpu_time(proxy.pid),
        machine.core_time(bench.proxy_core),
        machine.core_time(bench.load_core),
        machine.cpu_time(bench.origin),
    ]


def limit(samples):
    """What kept the throughput of a proxy from being higher."""
    others, proxy_core, load_core, origin, generator = (
        statistics.median(getattr(sample, what) for sample in samples)
        for what in ("others", "proxy_core", "load_core", "origin", "generator")
    )
    if others > QUIET:
        return "other processes"
    if load_core > SATURATED and proxy_core < HAS_ROOM:
        return "origin" if origin > generator else "load generator"
    return "proxy" if proxy_core >= HAS_ROOM else "neither core"


def table(rounds):
    header = ["proxy", "CPU µs / request", "× bare", "× nginx", "requests / s", "errors"]
    header += ["others", "load core", "origin", "limit"]
    rows = []
    for name in rounds[0]:
        samples = [one[name] for one in rounds]
        ratios = [report.spread(report.ratios(rounds, name, base, lambda one: one.cost), 3) for base in proxies.BASES]
        rate, others, load_core, origin = (
            statistics.median(getattr(sample, what) for sample in samples)
            for what in ("rate", "others", "load_core", "origin")
        )
        rows.append([
            proxies.CONTESTANTS[name].title,
            report.spread([sample.cost for sample in samples], 2),
            *ratios,
            f"{rate:,.0f}",
            str(sum(sample.errors for sample in samples)),
            f"{others:.0%}",
            f"{load_core:.0%}",
            f"{origin:.0%}",
            limit(samples),
        ])
    return report.table(header, rows)


def complaints(rounds, name, at_most):
    errors = sum(sample.errors for samples in rounds for sample in samples.values())
    found = [f"{name}: {errors} requests were not answered as they should be"] if errors else []
    if at_most and "clockwise" in rounds[0]:
        ratio = statistics.median(report.ratios(rounds, "clockwise", "bare", lambda one: one.cost))
        if ratio > at_most:
            found.append(f"{name}: Clockwise is at {ratio:.3f} × bare, above {at_most}")
    return found
