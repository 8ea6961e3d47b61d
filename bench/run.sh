#!/bin/sh
# Load on Moat, MinIO and SeaweedFS in interleaved rounds; see bench/README.md and `bench/run.sh --help`.
set -eu
cd "$(dirname "$0")/.."
: "${CARGO_TARGET_DIR:=$HOME/.cache/moat/target}"
export CARGO_TARGET_DIR
cargo build --release --locked --quiet -p moat-loader
MOAT_LOADER="$CARGO_TARGET_DIR/release/moat-loader" exec python3 bench/run.py "$@"
