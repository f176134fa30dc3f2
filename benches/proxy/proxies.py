"""The contestants: what they are, how each is configured for the same work, and how they are started.

The same work: one thread on the first core; the path as the key of a consistent hash over three peers; connections to
peers are kept; `X-Forwarded-For`, `-Proto` and `-Host` and a new `X-Request-Id` for the peer; a line per request in a
file, of the same fields as far as the proxy has them. `bare` and `quiet` do less, on purpose.
"""

import dataclasses
import functools
import pathlib
import subprocess

import machine

HERE = pathlib.Path(__file__).resolve().parent
PEERS = 3
PINGAP = "0.13.1"
LARGE = 1_000_000  # bytes
CONFIGURED = ["-c", "@CONFIG@"]


@dataclasses.dataclass(frozen=True)
class Contestant:
    title: str
    program: str
    config: str | None  # the name of its template
    arguments: list
    env: dict = dataclasses.field(default_factory=dict)


CONTESTANTS = {
    "bare": Contestant(
        "bare Pingora",
        "bare",
        None,
        ["@LISTEN@", "@TLS_LISTEN@", "@CERTS@/bench.crt", "@CERTS@/bench.key", "@PEER1@", "@PEER2@", "@PEER3@"],
    ),
    "clockwise": Contestant(
        "Clockwise", "clockwise", "clockwise.yaml", ["run", *CONFIGURED], {"CLOCKWISE_HTTP1": "engine"}
    ),
    "quiet": Contestant(
        "Clockwise, all off", "clockwise", "quiet.yaml", ["run", *CONFIGURED], {"CLOCKWISE_HTTP1": "engine"}
    ),
    "pingora": Contestant(
        "Clockwise through Pingora", "clockwise", "clockwise.yaml", ["run", *CONFIGURED], {"CLOCKWISE_HTTP1": "pingora"}
    ),
    "nginx": Contestant("nginx", "nginx", "nginx.conf", CONFIGURED),
    "haproxy": Contestant("HAProxy", "haproxy", "haproxy.cfg", ["-db", "-f", "@CONFIG@"]),
    "envoy": Contestant(
        "Envoy",
        "envoy",
        "envoy.yaml",
        [*CONFIGURED, "--concurrency", "1", "--use-dynamic-base-id", "--log-level", "error"],
    ),
    "pingap": Contestant("Pingap", "pingap", "pingap.toml", CONFIGURED),
}

BASES = ["bare", "nginx"]  # always there: the ratios are to them
LATE = ["pingap"]  # not there unless asked for, as it takes long to build


@dataclasses.dataclass
class Proxy:
    """A running contestant."""

    pid: int
    address: str
    tls_address: str
    log: pathlib.Path


class Bench:
    """The peers, and the contestants in front of them."""

    def __init__(self, stack, directory, contestants, built):
        """`contestants`: by name. `built`: the paths of the programs of this project that are needed."""
        self.stack, self.directory, self.contestants, self.built = stack, directory, contestants, built
        self.names = list(contestants)
        self.proxy_core, self.load_core = machine.two_cores()
        self.starts = 0
        machine.allow_many_files()
        machine.certify(directory)
        self.programs = {name: self.find(contestant.program) for name, contestant in contestants.items()}
        self.peers = machine.free_addresses(PEERS)
        self.origin = self.start_origin()

    def start_origin(self):
        (self.directory / "large.bin").write_bytes(bytes(LARGE))
        config = machine.render(HERE / "origin.conf", self.directory, self.peer_values())
        command = [machine.tool("nginx"), "-c", config]
        return machine.start(self.stack, command, self.load_core, self.directory / "origin.out", self.peers)

    @functools.cached_property
    def proxies(self):
        """All contestants; they run from now to the end, and are loaded in turn."""
        return {name: self.start(self.stack, name) for name in self.names}

    def start(self, stack, name):
        contestant = self.contestants[name]
        self.starts += 1
        directory = self.directory / f"{name}-{self.starts}"
        directory.mkdir()
        listen, tls_listen = machine.free_addresses(2)
        # HAProxy writes no file but its standard output.
        output = directory / "output"
        log = output if name == "haproxy" else directory / "access.log"
        values = self.peer_values() | {
            "LISTEN": listen,
            "TLS_LISTEN": tls_listen,
            "LISTEN_PORT": listen.rsplit(":", 1)[1],
            "TLS_PORT": tls_listen.rsplit(":", 1)[1],
            "CERTS": self.directory,
            "LOG": log,
        }
        if contestant.config:
            values["CONFIG"] = machine.render(HERE / contestant.config, directory, values)
        arguments = [machine.fill_in(argument, values) for argument in contestant.arguments]
        command = [self.programs[name], *arguments]
        pid = machine.start(stack, command, self.proxy_core, output, [listen, tls_listen], contestant.env)
        return Proxy(pid, listen, tls_listen, log)

    def peer_values(self):
        values = {f"PEER{number}": peer for number, peer in enumerate(self.peers, 1)}
        return values | {f"{name}_PORT": peer.rsplit(":", 1)[1] for name, peer in values.items()}

    def find(self, program):
        """The path of a contestant's program."""
        if program in self.built:
            return self.built[program]
        return pingap() if program == "pingap" else machine.tool(program)


def pingap():
    """The best-known proxy on Pingora, a crate; built into the cache once."""
    root = machine.CACHE / "pingap"
    program = root / "bin/pingap"
    if not program.exists():
        machine.tool("protoc")
        machine.say(f"building Pingap {PINGAP}, once; this takes long")
        command = [machine.tool("cargo"), "install", "pingap", "--version", PINGAP, "--locked", "--root", root]
        if subprocess.run(command).returncode != 0:
            machine.fail("Pingap was not built")
    return program
