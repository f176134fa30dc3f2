"""This machine, for the benchmarks: its cores, processes, ports and programs.

Nothing here knows which proxies are compared. Everything listens on 127.0.0.1, on ports that the kernel chose.
"""

import contextlib
import json
import os
import pathlib
import resource
import shutil
import socket
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
CACHE = ROOT / "tests/.cache"
START_LIMIT = 20  # seconds
TICK = os.sysconf("SC_CLK_TCK")


# ── cores


def two_cores():
    cores = sorted(os.sched_getaffinity(0))
    return cores[:2] if len(cores) >= 2 else fail("two cores are needed: one for the proxy, one for the load")


def pinned(core):
    return lambda: os.sched_setaffinity(0, {core})


def core_time(core):
    """Time in which a core was not idle; seconds. proc_stat(5)."""
    lines = pathlib.Path("/proc/stat").read_text().splitlines()
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(
        int, next(line for line in lines if line.startswith(f"cpu{core} ")).split()[1:9]
    )
    return (user + nice + system + irq + softirq + steal) / TICK


# ── processes


def start(stack, command, core, output, addresses, env=None):
    """Starts a server on one core, which ends with the stack; its pid, once it listens on all addresses."""
    with output.open("a") as out:
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=os.environ | (env or {}),
            preexec_fn=pinned(core),
        )
    stack.callback(process.wait)
    stack.callback(process.kill)
    deadline = time.monotonic() + START_LIMIT
    while not all(map(listens, addresses)):
        if process.poll() is not None or time.monotonic() > deadline:
            fail(f"{pathlib.Path(command[0]).name} does not listen:\n{output.read_text()}")
        time.sleep(0.05)
    return process.pid


def load(command, core, env=None):
    """Runs a load generator to its end; the numbers of its line `RESULT …`, and its CPU time in seconds."""
    before = children_time()
    result = subprocess.run(
        list(map(str, command)), capture_output=True, text=True, env=os.environ | (env or {}), preexec_fn=pinned(core)
    )
    line = next((line for line in result.stdout.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        fail(f"{pathlib.Path(command[0]).name} failed:\n{result.stdout}{result.stderr}")
    return [int(number) for number in line.split()[1:]], children_time() - before


def children_time():
    """CPU time of all children that ended; seconds."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def cpu_time(pid):
    """User and system time of a process with all its threads; seconds.

    The clock is the one that clock_getcpuclockid(3) names, which Python lacks: it counts nanoseconds, /proc only ticks.
    """
    scheduler = 2
    return time.clock_gettime(~pid << 3 | scheduler)


def resident(pid):
    """Resident memory of a process, pages that several share counted in part; bytes. proc_pid_smaps(5)."""
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return 1024 * int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def allow_many_files():
    """Raises the limit of open files, for this process and its children, as far as it goes."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ── ports


def free_addresses(count):
    """Addresses whose ports the kernel says are free; all are held until all are known."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [f"127.0.0.1:{one.getsockname()[1]}" for one in sockets]


def connect(address, timeout=5, receive_buffer=None):
    """A connected socket. `receive_buffer`: its size in bytes, from before the connect, as the window depends on it."""
    host, port = address.rsplit(":", 1)
    client = socket.socket()
    try:
        client.settimeout(timeout)
        if receive_buffer:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.connect((host, int(port)))
    except OSError:
        client.close()
        raise
    return client


def listens(address):
    with contextlib.suppress(OSError), connect(address, timeout=1):
        return True
    return False


# ── programs and files


def build(names):
    """Builds programs of this project (`clockwise`, or a benchmark's) with the release profile; their paths."""
    if not names:
        return {}
    say("building " + ", ".join(names))
    targets = ["--bin=clockwise" if name == "clockwise" else f"--bench={name}" for name in names]
    command = [tool("cargo"), "build", "--release", "--locked", *targets, "--message-format=json-render-diagnostics"]
    result = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if result.returncode != 0:
        fail("the build failed")
    messages = map(json.loads, result.stdout.splitlines())
    built = {m["target"]["name"]: m["executable"] for m in messages if m.get("executable")}
    return {name: built[name] for name in names}


def tool(name):
    """The path of an installed program."""
    places = [str(CACHE / "venv/bin"), os.environ.get("PATH", ""), "/usr/sbin", "/sbin"]
    return shutil.which(name, path=":".join(places)) or fail(f"{name} is not installed: tests/install.sh bench")


def fill_in(text, values):
    """Replaces each `@NAME@` by its value."""
    for name, value in values.items():
        text = text.replace(f"@{name}@", str(value))
    return text


def render(template, directory, values):
    """Writes a configuration with its values filled in; its path."""
    path = directory / template.name
    path.write_text(fill_in(template.read_text(), {"DIR": directory} | values))
    return path


def certify(directory):
    """A self-signed certificate (ECDSA P-256): `bench.crt`, `bench.key`, and `bench.pem` with both."""
    command = [tool("openssl"), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    subject = ["-subj", "/CN=bench", "-addext", "subjectAltName=DNS:bench.test", "-addext", "basicConstraints=CA:FALSE"]
    out = ["-days", "2", "-keyout", directory / "bench.key", "-out", directory / "bench.crt"]
    subprocess.run([*command, *subject, *out], check=True, capture_output=True)
    pem = [(directory / name).read_text() for name in ("bench.crt", "bench.key")]
    (directory / "bench.pem").write_text("".join(pem))


# ── messages


def say(text):
    print(text, file=sys.stderr, flush=True)


def fail(text):
    say(f"error: {text}")
    sys.exit(1)
