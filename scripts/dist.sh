#!/usr/bin/env bash
# Builds the program that is shipped, optimised for what it does under load, and prints where it is.
#
#   scripts/dist.sh            build with the profile of an earlier run, or make one first
#   scripts/dist.sh --train    make the profile anew: instrumented build, load; then the build
#
# The code under a small request is flat and wide: what costs is instructions that are not in the cache, and jumps that are guessed
# wrongly. A profile tells the compiler which functions belong together and which branches are taken. The load is that of bench/: the
# key manager on its wires, the store, the proxy. An older profile still fits what has not changed since.
set -euo pipefail

case ${1:-} in
'' | --train) ;;
*) sed -n '2,5s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2 && exit 2 ;;
esac
cd "$(dirname "${BASH_SOURCE[0]}")/.."

: "${CARGO_TARGET_DIR:=$HOME/.cache/moat/target}"
export CARGO_TARGET_DIR
# Of its own, since what is built with other flags would throw out the daily builds.
target=$CARGO_TARGET_DIR/pgo
profile=$target/merged.profdata

# The merger belongs to the compiler: the format of profiles changes with it.
rustup component add llvm-tools >/dev/null
merger=$(rustc --print sysroot)/lib/rustlib/$(rustc -vV | sed -n 's/^host: //p')/bin/llvm-profdata

if [[ ${1:-} == --train || ! -f $profile ]]; then
    cargo build --release --locked --quiet -p moat-loader
    rm -rf "$target/raw"
    RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-generate=$target/raw" CARGO_TARGET_DIR=$target cargo build --release --locked -p moat
    export MOAT_BIN=$target/release/moat MOAT_LOADER=$CARGO_TARGET_DIR/release/moat-loader
    # Figures of an instrumented program say nothing.
    python3 bench/kms.py --rounds 1 --seconds 1 --connections 1,64 --batches 1,100 >/dev/null
    python3 bench/proxy.py --rounds 1 --seconds 1 --peers moat --only 1k,4k-c1,4k-c64,64m-c8 >/dev/null
    rows=(put-4k-c8 get-4k-c8 head-200-c8 put-64m-c8 get-64m-c8 put-256k-c8 get-256k-c8 range-128k-c8 list-folder)
    python3 bench/run.py --quick --peers moat "${rows[@]/#/--only=}" >/dev/null
    "$merger" merge -o "$profile" "$target/raw"
fi

# That the profile knows nothing of what was written since is no news.
RUSTFLAGS="${RUSTFLAGS:-} -Cprofile-use=$profile -Cllvm-args=-pgo-warn-missing-function=false" CARGO_TARGET_DIR=$target \
    cargo build --profile dist --locked -p moat
echo "$target/dist/moat"
