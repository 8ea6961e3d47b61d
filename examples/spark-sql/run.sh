#!/usr/bin/env bash
# Runs the Spark SQL job of this folder against a running stack (`moat up`), one row of the demo's table.
#
#   run.sh [--direct|--https|--http] [--sse-kms] [--select-only] [--quiet]
#
#   --direct       straight to the store over https (default)
#   --https        through the proxy's https listener
#   --http         through the proxy's plain http listener: no certificates needed at the client
#   --sse-kms      the client asks for SSE-KMS and names a key, instead of leaving it to the bucket's rule
#   --select-only  writes nothing, reads what an earlier run of the same row wrote
#   --quiet        prints the last line only
#
# The data folder of the stack is $MOAT_DATA, else ./moat-data, else the one that `KEEP=1 make demo` left running.
# More knobs (environment): MOAT_BUCKET (lake), MOAT_SSE_KMS_KEY (demo-key), MOAT_SCALE (0.01), MOAT_ROW (the folder in the
# bucket; several names, with spaces between, are done in turn), MOAT_REPORT (file for the result as JSON), MOAT_SPARK (spark35 or spark4), SPARK_MASTER (local[2]),
# MOAT_SPARK_EVENT_LOG (s3a:// folder), MOAT_LOCAL_TABLES (local copy of the tables), and MOAT_STORE_URL, MOAT_PROXY_HTTPS_URL,
# MOAT_PROXY_HTTP_URL where the addresses differ from what the data folder says.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
repository=$(cd "$here/../.." && pwd)

fail() {
    echo "run.sh: $*" >&2
    exit 2
}

usage() {
    sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p'
}

path=direct sse_kms=no select_only=no quiet=no
for argument in "$@"; do
    case $argument in
    --direct) path=direct ;;
    --https) path=https ;;
    --http) path=http ;;
    --sse-kms) sse_kms=yes ;;
    --select-only) select_only=yes ;;
    --quiet) quiet=yes ;;
    -h | --help) usage && exit 0 ;;
    *) fail "unknown option $argument (see --help)" ;;
    esac
done

# ---- the stack ----

find_data_folder() {
    local candidate
    for candidate in "${MOAT_DATA:-}" ./moat-data "$repository/.work/demo/data"; do
        if [[ -n $candidate && -f $candidate/root.env ]]; then
            (cd "$candidate" && pwd)
            return
        fi
    done
    fail "no stack found: start one with \`moat up --data moat-data --bucket lake\` or \`KEEP=1 make demo\`, or set MOAT_DATA to its folder"
}

data=$(find_data_folder)
# shellcheck source=/dev/null
source "$here/stack.sh" "$data"

case $path in
direct) endpoint=$store_url ;;
https) endpoint=$proxy_https_url ;;
http) endpoint=$proxy_http_url ;;
esac
curl --silent --show-error --fail --max-time 10 --cacert "$ca_pem" --output /dev/null "$endpoint/minio/health/live" ||
    fail "nothing healthy answers at $endpoint, although $data exists: is \`moat up --data $data\` running?"
[[ $path != http || $sse_kms == no ]] ||
    fail "--http with --sse-kms cannot work: SDK v1 in Spark 3.5 refuses it at the client ('HTTPS must be used when sending customer encryption keys'); leave encryption to the bucket's rule, or use --https"

# ---- Spark ----

spark=${MOAT_SPARK:-spark35}
tools=${MOAT_TOOLS:-$repository/.tools}
python3 "$repository/scripts/tools.py" --dir "$tools" "$spark"
export PYSPARK_PYTHON=$tools/$spark/bin/python PYSPARK_DRIVER_PYTHON=$tools/$spark/bin/python
SPARK_HOME=$("$PYSPARK_PYTHON" -c 'import os, pyspark; print(os.path.dirname(pyspark.__file__))')
export SPARK_HOME

bucket=${MOAT_BUCKET:-lake}
row=${MOAT_ROW:-$path$([[ $sse_kms == no ]] || echo -sse-kms)}
bases=()
for name in $row; do bases+=("s3a://$bucket/rows/$name"); done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

encryption="" cluster=""
if [[ $sse_kms == yes ]]; then
    encryption="spark.hadoop.fs.s3a.encryption.algorithm SSE-KMS
spark.hadoop.fs.s3a.encryption.key ${MOAT_SSE_KMS_KEY:-demo-key}"
fi
if [[ -n ${MOAT_SPARK_EVENT_LOG:-} ]]; then
    cluster="spark.eventLog.enabled true
spark.eventLog.dir $MOAT_SPARK_EVENT_LOG"
fi

# The template holds secrets once filled in: a file for us alone, removed when we end.
settings=$work/spark-defaults.conf
(umask 077 && : >"$settings")
text=$(<"$here/spark-defaults.conf.template")
fill() {
    text=${text//"@$1@"/"$2"}
}
fill ENDPOINT "$endpoint"
fill ACCESS_KEY "$access_key"
fill SECRET_KEY "$secret_key"
fill TRUST_OPTIONS "-Djavax.net.ssl.trustStore=$truststore -Djavax.net.ssl.trustStorePassword=$truststore_password -Djavax.net.ssl.trustStoreType=PKCS12"
fill ENCRYPTION "$encryption"
fill BASE "${bases[0]}"
fill CORES "$(nproc)"
fill CLUSTER "$cluster"
printf '%s\n' "$text" >"$settings"

arguments=(--base "${bases[@]}" --local "${MOAT_LOCAL_TABLES:-$repository/.work/tables}" --scale "${MOAT_SCALE:-0.01}")
[[ $select_only == no ]] || arguments+=(--select-only)
[[ $quiet == no ]] || arguments+=(--quiet)
[[ -z ${MOAT_REPORT:-} ]] || arguments+=(--report "$MOAT_REPORT")

[[ $quiet == yes ]] || echo "row $row: $endpoint, ${bases[*]}"
# --py-files would be needed only if Python ran on executors; the job is SQL all through.
"$SPARK_HOME/bin/spark-submit" \
    --master "${SPARK_MASTER:-local[2]}" \
    --properties-file "$settings" \
    --driver-java-options "-Djavax.net.ssl.trustStore=$truststore -Djavax.net.ssl.trustStorePassword=$truststore_password -Djavax.net.ssl.trustStoreType=PKCS12 -Dlog4j2.configurationFile=file:$here/log4j2.properties" \
    "$here/job.py" "${arguments[@]}"
