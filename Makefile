# `make up` and `make test` are the two commands of the README. Each installs what it needs on a bare Debian 12 with a
# Rust toolchain; everything else here is for those who build on it.

CARGO ?= cargo
export CARGO_TERM_COLOR ?= auto

.PHONY: up down build test unit integration lint release bench deps test-deps clean

# The two-minute proof: the shortest build that serves, then a recorded shell on this machine.
up: build
	@"$$(scripts/binary dev)" up $(UP_FLAGS)

# Stops what `make up` left running.
down: build
	@"$$(scripts/binary dev)" up --stop

build: deps
	$(CARGO) build --locked -p munjigi

deps:
	@scripts/deps build

test-deps:
	@scripts/deps test

# Everything: unit and integration tests, with real peers. Ends with the count of all of them.
test: deps test-deps
	@scripts/test

unit: deps
	$(CARGO) test --locked --workspace --lib --bins

integration: deps test-deps
	$(CARGO) test --locked -p munjigi --test integration

lint: deps
	$(CARGO) fmt --all --check
	$(CARGO) clippy --locked --workspace --all-targets -- -D warnings

# What is shipped: link-time optimisation, stripped.
release: deps
	$(CARGO) build --locked --release -p munjigi

# Ratios against OpenSSH, measured in one run on this machine; see bench/README.md.
bench: release
	@scripts/deps bench
	$(CARGO) build --locked --release -p munjigi-link --example probe --example load
	$(CARGO) build --locked --release -p munjigi-core --example policy_speed
	$(CARGO) build --locked --release -p munjigi --example hostile --example ssh_logins
	bench/run $(BENCH_FLAGS)

clean:
	$(CARGO) clean
