# The commands of this project. On a fresh Debian 12 with Rust, each installs what it misses.
#
#   make demo    builds and runs the proxy before three built-in origins
#   make test    installs what the tests need, and passes them all
#   make check   what CI runs: format, lints, docs, licences, tests, examples
#   make fuzz    the HTTP/1 codec with mutated messages, for SECONDS=60
#   make differential  the engine of HTTP/1 against Pingora, for SECONDS=60
#   make release  target/release/clockwise for packages: profile-guided, compiled twice
#   make bench   the ring against MD5 and Pingora's, the proxy against bare Pingora and others, TLS too

.PHONY: demo test check fuzz differential bench build release tools

# Pingora builds zlib-ng, and ring some C: a C compiler and cmake are needed.
tools:
	@tests/install.sh build

build: tools
	cargo build --release --locked

release:
	tests/install.sh release
	release/build

demo: build
	target/release/clockwise demo

test:
	tests/install.sh
	cargo test --locked

check:
	.ci/run

fuzz:
	cargo test --locked --test fuzz -- http1 $(SECONDS)

differential:
	cargo test --locked --test fuzz -- differential $(SECONDS)

bench:
	tests/install.sh bench
	cargo bench --locked --bench ring
	benches/proxy/run
	benches/tls/run
	benches/reload/run
