#!/bin/sh
# Load on the proxy beside nginx and HAProxy; see bench/README.md and `bench/proxy.sh --help`.
set -eu
cd "$(dirname "$0")/.."
: "${CARGO_TARGET_DIR:=$HOME/.cache/moat/target}"
export CARGO_TARGET_DIR
cargo build --release --locked --quiet -p moat-loader
MOAT_LOADER="$CARGO_TARGET_DIR/release/moat-loader" exec python3 bench/proxy.py "$@"
