"""The workload `latency`: percentiles at one constant rate for all, 70 % of what the slowest can serve at most.

First wrk loads each contestant as fast as it answers. Then `paced.rs` sends requests at the rate that follows, on a
schedule that waits for no response: the head of `paced.rs` explains what it measures.
"""

import statistics

import machine
import proxies
import report
import workloads

SHARE = 0.7


def run(bench, options):
    rate, notes = choose_rate(bench, options)
    rounds = []
    for number in range(options.rounds):
        samples = {}
        for name in report.in_turn(bench.names, number):
            samples[name] = measure(bench, bench.proxies[name], rate, options.seconds)
        rounds.append(samples)
        times = ", ".join(f"{name} {samples[name].p99}" for name in bench.names)
        machine.say(f"latency: round {number + 1} of {options.rounds}: p99 {times} µs")
    bars = [
        report.Bar(name, proxies.CONTESTANTS[name].title, [samples[name].p99 for samples in rounds])
        for name in bench.names
    ]
    errors = sum(sample.load.errors for samples in rounds for sample in samples.values())
    complaints = [f"latency: {errors} requests were not answered as they should be"] if errors else []
    return report.Report(
        f"Latency at {rate:,} requests / s", "µs until 99 % of the responses are complete", notes, table(rounds), bars,
        complaints,
    )


def choose_rate(bench, options):
    """Requests per second, and how they were chosen."""
    load = workloads.Load(bench, "get")
    fastest = {}
    for name, proxy in bench.proxies.items():
        load.warm_up(proxy)
        fastest[name] = load.sample(proxy, options.seconds)
        machine.say(f"latency: {name} serves at most {fastest[name].rate:,.0f} requests / s")
    slowest = min(fastest, key=lambda name: fastest[name].rate)
    sample = fastest[slowest]
    note = f"{100 * SHARE:.0f} % of the maximum of {proxies.CONTESTANTS[slowest].title}, {sample.rate:,.0f} requests / s "
    return int(SHARE * sample.rate), [note + f"(limit: {workloads.limit([sample])})."]


class Sample:
    """The percentiles of one round; µs."""

    def __init__(self, load, p50, p99, p999, longest, lag):
        self.load, self.p50, self.p99, self.p999, self.longest, self.lag = load, p50, p99, p999, longest, lag


def measure(bench, proxy, rate, seconds):
    command = [bench.built["paced"], proxy.address, rate, seconds]
    load, times = workloads.sample(bench, proxy, command)
    return Sample(load, *times)


def table(rounds):
    header = ["proxy", "p50 µs", "p99 µs", "p99.9 µs", "max µs", "errors", "proxy core", "load core", "generator's lag µs"]
    rows = []
    for name in rounds[0]:
        samples = [one[name] for one in rounds]
        times = [[getattr(sample, what) for sample in samples] for what in ("p50", "p99", "p999", "longest")]
        rows.append([
            proxies.CONTESTANTS[name].title,
            *(report.spread(values, 0) for values in times),
            str(sum(sample.load.errors for sample in samples)),
            f"{statistics.median(sample.load.proxy_core for sample in samples):.0%}",
            f"{statistics.median(sample.load.load_core for sample in samples):.0%}",
            f"{statistics.median(sample.lag for sample in samples):.0f}",
        ])
    return report.table(header, rows)
