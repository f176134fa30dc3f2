#!/bin/sh
# Installs what the tests need beside Rust, on Debian 12: nginx as a real origin, cmake for a
# dependency's build, Python for the vectors. Does nothing, and needs no network, where all is there.
set -eu

# A command that proves it, and the package it comes from.
wanted='
cc:build-essential
cmake:cmake
curl:curl
nginx:nginx-light
python3:python3
'

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
