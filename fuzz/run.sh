#!/bin/sh
# Runs fuzz targets from their committed corpus, each for some seconds.
#
#   fuzz/run.sh SECONDS [TARGET...]      all targets if none is named
#   KEEP=1 fuzz/run.sh SECONDS TARGET    what is learned stays in the target folder, for long runs
#   fuzz/run.sh --merge TARGET...        adds to the committed corpus what such runs learned, if it
#                                        reaches new code
#
# Needs only the pinned toolchain and a C++ compiler: libFuzzer comes as source with libfuzzer-sys,
# and the instrumentation is a pass of the stable compiler. What makes a target fail is written to
# fuzz/artifacts; `fuzz/run.sh 0 TARGET` tries those again, with the corpus. Ends with 1 if any
# target failed, or was blind for lack of coverage feedback.
set -eu

# An input that takes longer is a finding. Ten times what the slowest one takes on a busy machine.
input_seconds_max=10
# The targets need under 100 MiB.
memory_mib_max=1024
# Limits of requests are in the thousands; longer inputs only make everything slower.
input_bytes_max=16384

cd "$(dirname "$0")"
self=$(basename "$0")
usage() {
    sed -n '2,7s/^# \{0,1\}//p' "$self" >&2
    exit 2
}
merge=
case "${1:-}" in
--merge) merge=1 ;;
'' | *[!0-9]*) usage ;;
*) seconds=$1 ;;
esac
shift
[ $# -gt 0 ] || set -- $(cd fuzz_targets && ls | sed 's/\.rs$//')

host=$(rustc -vV | sed -n 's/^host: //p')
build=${CARGO_TARGET_DIR:-$PWD/target}
case $build in */fuzz) ;; *) build=$build/fuzz ;; esac
# With a target named, build scripts and macros stay free of the instrumentation.
bins=
for target; do
    [ -f "fuzz_targets/$target.rs" ] || { echo "fuzz: there is no target $target" >&2; exit 2; }
    bins="$bins --bin $target"
done
RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
-Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
-Cllvm-args=-sanitizer-coverage-trace-compares" \
    cargo build --quiet --locked --target "$host" --target-dir "$build" $bins

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
failed=0
for target; do
    binary=$build/$host/debug/$target
    kept=$build/corpus/$target
    learned=$work/$target
    [ -z "${KEEP:-}" ] || learned=$kept
    artifacts=artifacts/$target
    mkdir -p "$learned" "$artifacts" "corpus/$target"
    if [ -n "$merge" ]; then
        "$binary" -merge=1 -max_len=$input_bytes_max "corpus/$target" "$kept" >"$work/log" 2>&1 ||
            { cat "$work/log"; exit 1; }
        printf '%-20s %s\n' "$target" "$(sed -n 's/^MERGE-OUTER: \(.*new files.*\)/\1/p' "$work/log" | tail -n 1)"
        continue
    fi
    set -- -timeout=$input_seconds_max -rss_limit_mb=$memory_mib_max -max_len=$input_bytes_max \
        -artifact_prefix="$artifacts/" -print_final_stats=1
    [ -f "dict/$target.dict" ] && set -- "$@" "-dict=dict/$target.dict"
    if [ "$seconds" -gt 0 ]; then
        set -- "$@" -max_total_time="$seconds"
    else
        set -- "$@" -runs=0
    fi
    status=0
    "$binary" "$@" "$learned" "corpus/$target" "$artifacts" >"$work/log" 2>&1 || status=$?
    runs=$(sed -n 's/^stat::number_of_executed_units: *//p' "$work/log")
    coverage=$(sed -n 's/.* cov: \([0-9]*\) .*/\1/p' "$work/log" | tail -n 1)
    if [ $status -ne 0 ]; then
        printf '%-20s FAILED; the input is in fuzz/%s\n' "$target" "$artifacts"
        grep -A 3 "panicked at\|^==.*ERROR\|^SUMMARY" "$work/log" >&2 || tail -n 40 "$work/log" >&2
        failed=1
    elif [ "${coverage:-0}" -lt 10 ]; then
        printf '%-20s FAILED; no coverage feedback, so the instrumentation does not work here\n' "$target"
        failed=1
    else
        printf '%-20s %9s runs, %5s edges covered\n' "$target" "${runs:-?}" "$coverage"
    fi
done
exit $failed
