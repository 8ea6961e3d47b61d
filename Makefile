# Everything that people and CI run. `make` alone says what there is.

# One target folder for all checkouts on a machine: dependencies are built once.
export CARGO_TARGET_DIR ?= $(HOME)/.cache/moat/target
# Clients, Spark and peers, pinned; see scripts/tools.py. Another folder can be named, to share it between checkouts.
export MOAT_TOOLS ?= $(CURDIR)/.tools

RELEASE := $(CARGO_TARGET_DIR)/release/moat
PYTHON := $(MOAT_TOOLS)/client/bin/python
# What the end-to-end tests use; rclone is left out where no Debian mirror is reached, and says so.
TEST_TOOLS := postgres softhsm minio client boto3-1.24 aws s3cmd rclone mc spark35 spark4 java-v2
# What the unit tests use: the servers and tokens that the key manager works with.
CHECK_TOOLS := postgres softhsm
# Further arguments for a benchmark, e.g. `make bench-proxy BENCH='--rounds 1 --seconds 2 --only https-4k-c64'`.
BENCH ?=
# Further arguments for pytest, e.g. `make e2e PYTEST='-k range -x'`.
PYTEST ?=

.PHONY: help
help:
	@echo 'make demo    the whole thread: Spark and boto3 on an encrypted store, with evidence (KEEP=1 leaves it running)'
	@echo 'make check   format, clippy, tidy and unit tests: what to run before a commit'
	@echo 'make test    everything that CI runs: check, then end-to-end tests with real clients'
	@echo 'make e2e     the end-to-end tests alone (PYTEST="-k name" picks some)'
	@echo 'make soak    an hour of mixed use of the key manager, which its audit then has to hold (SECONDS=n; not in CI)'
	@echo 'make dist    the program that is shipped, optimised with a profile of its load; two builds from nothing (not in CI)'
	@echo 'make bench   load, beside MinIO and SeaweedFS (not in CI)'
	@echo 'make bench-proxy  load on the proxy, beside nginx and HAProxy (not in CI)'
	@echo 'make clean   removes .work and the build, keeps the tools'

.PHONY: demo
demo: release
	@scripts/tools.py client spark35
	@MOAT_BIN='$(RELEASE)' '$(PYTHON)' demo/demo.py

.PHONY: demo-stop
demo-stop:
	@'$(PYTHON)' demo/demo.py --stop

.PHONY: release
release:
	@command -v cargo >/dev/null || { echo 'make: cargo is missing: install Rust with rustup; rust-toolchain.toml names the version' >&2; exit 1; }
	cargo build --release --locked -p moat -p moat-loader

.PHONY: check
check:
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked -- -D warnings
	cargo xtask tidy
	@scripts/tools.py $(CHECK_TOOLS)
	cargo test --workspace --locked

.PHONY: e2e
e2e: release
	@scripts/tools.py $(TEST_TOOLS)
	@MOAT_BIN='$(RELEASE)' '$(PYTHON)' -m pytest -c tests/pytest.ini tests $(PYTEST)
	@echo 'the same S3 suite with boto3 1.24'
	@MOAT_BIN='$(RELEASE)' '$(MOAT_TOOLS)/boto3-1.24/bin/python' -m pytest -c tests/pytest.ini tests/s3 $(PYTEST)

# Mixed use of a key manager on every wire for SECONDS, with restarts; then its audit has to hold all of it.
SECONDS ?= 3600
.PHONY: soak
soak: release
	@scripts/tools.py minio client mc
	@MOAT_BIN='$(RELEASE)' MOAT_MIXED_SECONDS='$(SECONDS)' '$(PYTHON)' -m pytest -c tests/pytest.ini tests/kms/test_mixed_use.py $(PYTEST)

.PHONY: test
test: check fuzz-smoke e2e

# Seconds for each fuzz target, from the committed corpus.
.PHONY: fuzz-smoke
fuzz-smoke:
	fuzz/smoke.sh

.PHONY: bench
bench: release
	@MOAT_BIN='$(RELEASE)' bench/run.sh

# The program that is shipped: optimised with a profile of what it does under load.
.PHONY: dist
dist:
	@scripts/dist.sh

.PHONY: bench-proxy
bench-proxy: dist
	@MOAT_BIN='$(CARGO_TARGET_DIR)/pgo/dist/moat' bench/proxy.sh $(BENCH)

.PHONY: clean
clean:
	rm -rf .work
	cargo clean
