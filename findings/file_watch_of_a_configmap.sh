#!/usr/bin/env bash
# Two libraries that watch files by inotify: how many of three updates of `peers.json` a watch of that path notices, if the file is
# written in place, replaced by `rename`, or updated as Kubernetes updates a ConfigMap (a symbolic link `..data` that is replaced).
#
# Software: watchfiles 1.3.0 (made of the Rust crate `notify`) and watchdog 7.1.0, both of PyPI.
# Expected: a watch of a path notices each change of what the path names, or else no change at all.
# Seen: watchfiles notices the first `rename` and the first update of a ConfigMap, and no later one: it watches the inode that the
# path named at the start. So a test with one update passes. watchdog notices each `rename`, and no update of a ConfigMap. A watch
# of the folder notices all; of a ConfigMap it names `..data`, not `peers.json`.
set -euo pipefail
cd "$(mktemp -d)"
trap 'rm -rf "$PWD"' EXIT
python3 -m venv v
v/bin/pip install -q watchfiles==1.3.0 watchdog==7.1.0
cat >run.py <<'P'
import os, pathlib, tempfile, threading, time
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


def write(folder, number):
    (folder / "peers.json").write_text(str(number))


def rename(folder, number):
    (folder / "new").write_text(str(number))
    os.rename(folder / "new", folder / "peers.json")


def configmap(folder, number):
    """As the kubelet does it: a new folder, `..data` to it, the old folder removed; `peers.json` is a link to `..data/peers.json`."""
    new = folder / f"..{number}"
    new.mkdir()
    (new / "peers.json").write_text(str(number))
    os.symlink(new.name, folder / "..new")
    os.rename(folder / "..new", folder / "..data")
    old = folder / f"..{number - 1}"
    if old.exists():
        (old / "peers.json").unlink()
        old.rmdir()
    if not (folder / "peers.json").is_symlink():
        os.symlink("..data/peers.json", folder / "peers.json")


def noticed(watch, update, what):
    """Which of three updates the watch noticed; it is of the file or of its folder."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = pathlib.Path(name).absolute()
        update(folder, 0)
        events = threading.Event()
        stop = watch(str(folder / "peers.json" if what == "file" else folder), events.set)
        time.sleep(1)
        found = []
        for number in (1, 2, 3):
            events.clear()
            update(folder, number)
            found.append(events.wait(2))
            time.sleep(0.5)
        stop()
        return "".join("yes " if one else "no " for one in found).strip()


table = {}
for watch in (by_watchfiles, by_watchdog):
    for what in ("file", "folder"):
        for update in (write, rename, configmap):
            row = watch.__name__[3:], what, update.__name__
            table[row] = noticed(watch, update, what)
            print(*row, "->", table[row], flush=True)
every, first, none = "yes yes yes", "yes no no", "no no no"
files = {
    "watchfiles": {"write": every, "rename": first, "configmap": first},
    "watchdog": {"write": every, "rename": every, "configmap": none},
}
for (library, what, update), found in table.items():
    assert found == (files[library][update] if what == "file" else every), f"{library} has changed: {what}, {update}"
P
v/bin/python run.py
