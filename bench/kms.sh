#!/bin/sh
# Load on the key manager over each of its wires; see bench/README.md and `bench/kms.sh --help`.
set -eu
cd "$(dirname "$0")/.."
: "${CARGO_TARGET_DIR:=$HOME/.cache/moat/target}"
export CARGO_TARGET_DIR
cargo build --release --locked --quiet -p moat-loader
MOAT_LOADER="$CARGO_TARGET_DIR/release/moat-loader" exec python3 bench/kms.py "$@"
