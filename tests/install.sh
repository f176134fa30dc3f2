#!/bin/sh
# Installs what is needed beside Rust, on Debian 12: `install.sh build` for the program (a dependency is
# built with cmake), without an argument what the tests need too, `install.sh bench` the benchmarks' tools as
# well. Does nothing, and needs no network, where all is there.
set -eu

# A command that proves it, and the package it comes from.
build='cc:build-essential cmake:cmake'
test='curl:curl nginx:nginx-light python3:python3'
bench='wrk:wrk haproxy:haproxy taskset:util-linux'

case "${1:-test}" in
build) wanted="$build" ;;
test) wanted="$build $test" ;;
bench) wanted="$build $test $bench" ;;
*)
    echo "usage: $0 [build|test|bench]" >&2
    exit 2
    ;;
esac

PATH="$PATH:/usr/sbin:/sbin"
missing=''
for pair in $wanted; do
    command -v "${pair%%:*}" >/dev/null || missing="$missing ${pair#*:}"
done
[ -n "$missing" ] || exit 0

# Word by word: both are lists.
# shellcheck disable=SC2086
install() {
    $as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends $missing
}

as_root=''
[ "$(id -u)" -eq 0 ] || as_root=sudo
echo "installing:$missing"
# The package lists of a fresh image are empty, those of an old one name what is gone.
install || { $as_root apt-get -qq update && install; }
