# The commands of this project. On a fresh Debian 12 with Rust, each installs what it misses.
#
#   make demo    builds and runs the proxy before three built-in origins
#   make test    installs what the tests need, and passes them all
#   make check   what CI runs: format, lints, docs, licences, tests, examples
#   make fuzz    the HTTP/1 codec with mutated messages, for SECONDS=60
#   make fuzz-http2   a running proxy with valid and malformed frames of HTTP/2, for SECONDS=60
#   make fuzz-config  the reader of the configuration with mutated files, for SECONDS=60
#   make differential  the engine of HTTP/1 against Pingora, for SECONDS=60
#   make release  target/release/clockwise for packages: profile-guided, compiled twice
#   make bench   the ring against MD5 and Pingora's, the proxy against bare Pingora and others, memory and TLS too

.PHONY: demo test check fuzz fuzz-http2 fuzz-config differential bench build release tools

# Pingora builds zlib-ng, ring some C, and etcd-client its messages: a C compiler, cmake and protoc are needed.
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

fuzz-http2:
	cargo test --locked --test fuzz -- http2 $(SECONDS)

fuzz-config:
	cargo test --locked --test fuzz -- config $(SECONDS)

differential:
	cargo test --locked --test fuzz -- differential $(SECONDS)

bench:
	tests/install.sh bench
	cargo bench --locked --bench ring
	benches/proxy/run
	benches/memory/run
	benches/tls/run
	benches/reload/run
