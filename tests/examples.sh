#!/usr/bin/env bash
# Checks every configuration in conf/, with certificates made for the occasion in place of those that it names; and the rules
# for Prometheus.
# usage: tests/examples.sh PROGRAM
set -euo pipefail
cd "$(dirname "$0")/.."
program=$1
place=/etc/clockwise/tls
made=$(mktemp -d)
trap 'rm -rf "$made"' EXIT

certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 90 -subj "/CN=$1" \
        -addext "subjectAltName=DNS:$1.example.org" -keyout "$made/$1.key" -out "$made/$1.crt" 2>"$made/said" ||
        { cat "$made/said" >&2; exit 1; }
    echo secret >"$made/$1.password"
    chmod 600 "$made/$1.key" "$made/$1.password"
}

revocations() {
    : >"$made/index"
    echo 01 >"$made/number"
    printf '[ca]\ndefault_ca = here\n[here]\ndatabase = %s\ncrlnumber = %s\ncrl_extensions = list\n[list]\n%s\n' \
        "$made/index" "$made/number" 'authorityKeyIdentifier = keyid:always' >"$made/ca.conf"
    openssl ca -gencrl -config "$made/ca.conf" -md sha256 -crldays 30 -keyfile "$made/$1.key" -cert "$made/$1.crt" \
        -out "$made/$1.crl" 2>"$made/said" || { cat "$made/said" >&2; exit 1; }
}

for name in $(grep -rhoE "$place/[a-z-]+" conf | sed "s#$place/##" | sort -u); do
    certificate "$name"
    revocations "$name"
done
promtool check rules conf/alerts.yaml
for config in conf/*.yaml conf/examples/*.yaml; do
    [ "$config" != conf/alerts.yaml ] || continue
    sed "s#$place/#$made/#g" "$config" >"$made/config.yaml"
    if ! "$program" check --offline -c "$made/config.yaml" >"$made/said" 2>&1; then
        printf '%s\n' "$config" >&2
        cat "$made/said" >&2
        exit 1
    fi
    printf '%s: ok\n' "$config"
done
