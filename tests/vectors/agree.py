#!/usr/bin/env python3
"""Expected owners of random keys, by programs that share nothing with Clockwise.

  agree.py DIALECT config            a configuration with one upstream, `vectors`
  agree.py DIALECT keys              its keys, one a line
  agree.py DIALECT check < ANSWERS   compares KEY<TAB>LABEL lines with the expected owners;
                                     exit 1 on any difference
  agree.py DIALECT rows              a file of vectors

DIALECT is `circle` (the textbook: hashlib and bisect, below), `ketama` or `ketama-weighted` (uhashring's).
Everything follows from --seed; --keys and --servers are the numbers of each.
"""
import argparse
import bisect
import hashlib
import random
import string
import sys

VNODES = 40  # digests per unit of weight in ketama, 4 points each


class Circle:
    """The textbook ring."""

    def __init__(self, servers, replicas=3):
        points = [
            (self.hash(f"{name}-{i}"), name)
            for name, weight in servers
            for i in range(replicas * weight)
        ]
        points.sort()
        self.hashes = [point for point, _ in points]
        self.names = [name for _, name in points]

    @staticmethod
    def hash(text):
        return int(hashlib.md5(text.encode()).hexdigest(), 16) % 2**32

    def owner(self, key):
        place = bisect.bisect_right(self.hashes, self.hash(key))
        return self.names[place % len(self.names)]


class Ketama:
    """The Python package uhashring, its ketama-compatible ring."""

    def __init__(self, servers):
        from uhashring import HashRing

        # A number of virtual nodes for each server: its own weights are shares of the total.
        nodes = {name: {"vnodes": VNODES * weight} for name, weight in servers}
        self.ring = HashRing(nodes, hash_fn="ketama")

    def owner(self, key):
        return self.ring.get_node(key)


def server(rng):
    name = "".join(rng.choices(string.ascii_lowercase + string.digits, k=rng.randint(1, 12)))
    form = rng.choice(["{0}.example.com:{2}", "{0}:{2}", "{1}:{2}"])
    address = ".".join(str(rng.randint(1, 254)) for _ in range(4))
    return form.format(name, address, rng.randint(1, 65535))


def key(rng):
    return "".join(rng.choices(string.ascii_letters + string.digits + "/-_.:=", k=rng.randint(1, 80)))


def distinct(make, count):
    made = {}
    while len(made) < count:
        made[make()] = None
    return list(made)


def config(servers, dialect):
    lines = ["listeners: [{address: 127.0.0.1:8080}]", "routes: [{upstream: vectors}]"]
    lines += ["upstreams:", "  vectors:", f"    ring: {dialect}", "    peers:"]
    lines += [
        f'      - {{address: "127.0.0.1:{port}", label: "{name}", weight: {weight}}}'
        for port, (name, weight) in enumerate(servers, 1)
    ]
    return "\n".join(lines) + "\n"


def check(owners):
    answers = [line.rstrip("\n") for line in sys.stdin]
    expected = [f"{key}\t{owner}" for key, owner in owners]
    wrong = [(a, e) for a, e in zip(answers, expected) if a != e]
    for answer, right in wrong[:10]:
        print(f"got {answer!r}, expected {right!r}", file=sys.stderr)
    print(f"{len(answers)} answers, {len(expected)} expected, {len(wrong)} differ", file=sys.stderr)
    return 1 if wrong or len(answers) != len(expected) else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("dialect", choices=["circle", "ketama", "ketama-weighted"])
    parser.add_argument("action", choices=["config", "keys", "check", "rows"])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keys", type=int, default=100_000)
    parser.add_argument("--servers", type=int, default=20)
    args = parser.parse_args()

    rng = random.Random(args.seed)
    weight = (lambda: rng.randint(1, 8)) if args.dialect.endswith("weighted") else (lambda: 1)
    servers = [(name, weight()) for name in distinct(lambda: server(rng), args.servers)]
    keys = distinct(lambda: key(rng), args.keys)
    if args.action == "config":
        sys.stdout.write(config(servers, args.dialect.removesuffix("-weighted")))
        return 0
    if args.action == "keys":
        print("\n".join(keys))
        return 0
    ring = (Circle if args.dialect == "circle" else Ketama)(servers)
    owners = [(key, ring.owner(key)) for key in keys]
    if args.action == "check":
        return check(owners)
    print("\n".join(f"{name}\t{weight}" for name, weight in servers), end="\n\n")
    print("\n".join("\t".join(row) for row in owners))
    return 0


if __name__ == "__main__":
    sys.exit(main())
