#!/usr/bin/env bash
# A key manager and an unmodified MinIO server that uses it over KES, from nothing, on this machine.
#
#   run.sh [api-key|certificate] [FOLDER]
#
#   api-key      MinIO shows who it is with an API key in its environment (default)
#   certificate  MinIO shows who it is with a client certificate and key in files
#   FOLDER       where everything is kept [default: a fresh folder in /tmp]; a second run on the same folder finds all of it again
#
# It starts both servers, writes objects with SSE-KMS and SSE-S3, reads them back, shows the audit, and stops both. KEEP=1 leaves
# them running and says how to reach them. MOAT, MINIO and MC name the programs where they are not on the PATH.
set -euo pipefail

variant=${1:-api-key}
folder=${2:-$(mktemp -d /tmp/moat-minio-kes.XXXXXX)}
moat=${MOAT:-moat} minio=${MINIO:-minio} mc=${MC:-mc}

fail() {
    echo "run.sh: $*" >&2
    exit 2
}

case $variant in
api-key | certificate) ;;
-h | --help) sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' && exit 0 ;;
*) fail "unknown variant $variant: api-key or certificate (see --help)" ;;
esac
for program in "$moat" "$minio" "$mc"; do
    command -v "$program" >/dev/null || fail "$program is not on the PATH: name the programs with MOAT, MINIO and MC"
done

mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
# The ports, which can be chosen by environment.
kms_port=${KMS_PORT:-$(("$RANDOM" % 10000 + 20000))}
minio_port=${MINIO_PORT:-$((kms_port + 1))}
console_port=$((kms_port + 2))

pids=()
end() {
    for pid in "${pids[@]}"; do
        kill "$pid" 2>/dev/null && wait "$pid" 2>/dev/null || true
    done
}
trap end EXIT

# wait_for WHAT LOG COMMAND...
wait_for() {
    local what=$1 log=$2 deadline=$((SECONDS + 60))
    shift 2
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < deadline)) || fail "$what did not come up; see $log"
        sleep 0.2
    done
}

# ---- 1. The key manager. Its first start makes a CA, certificates, the HSM key and the enclave "moat". ----

export MOAT_DATA=$folder/kms
"$moat" kms server --data "$MOAT_DATA" --kms-listen "127.0.0.1:$kms_port" >"$folder/kms.log" 2>&1 &
pids+=($!)
wait_for "the key manager" "$folder/kms.log" "$moat" kms status

# ---- 2. What MinIO may do, as KES writes policies, and who MinIO is. ----

"$moat" kms policy create minio \
    --allow '/v1/key/create/minio-*' --allow '/v1/key/generate/minio-*' --allow '/v1/key/decrypt/minio-*' \
    --allow '/v1/key/describe/minio-*' --allow '/v1/key/list/*' --allow /v1/status

case $variant in
api-key)
    if [[ ! -f $folder/minio.key ]]; then
        # The key is shown once; MinIO's environment is where it goes.
        (umask 077 && "$moat" kms identity create --policy minio --json |
            sed -n 's/.*"kes_api_key": "\(.*\)".*/\1/p' >"$folder/minio.key")
    fi
    MINIO_KMS_KES_API_KEY=$(<"$folder/minio.key")
    export MINIO_KMS_KES_API_KEY
    ;;
certificate)
    if [[ ! -f $folder/minio-client.crt ]]; then
        "$moat" pki leaf minio-client --usage client --ca "$MOAT_DATA/ca/ca.crt" --out "$folder/minio-client"
        "$moat" kms identity create --certificate "$folder/minio-client.crt" --policy minio
    fi
    export MINIO_KMS_KES_CERT_FILE=$folder/minio-client.crt MINIO_KMS_KES_KEY_FILE=$folder/minio-client.key
    ;;
esac

# ---- 3. MinIO. It makes its default key by itself when it first asks for it. ----

export MINIO_KMS_KES_ENDPOINT=https://127.0.0.1:$kms_port MINIO_KMS_KES_KEY_NAME=minio-default
export MINIO_KMS_KES_CAPATH=$MOAT_DATA/trust/ca.pem
export MINIO_ROOT_USER=minio-root MINIO_ROOT_PASSWORD=${MINIO_ROOT_PASSWORD:-minio-root-secret}
"$minio" server "$folder/minio" --address "127.0.0.1:$minio_port" --console-address "127.0.0.1:$console_port" >"$folder/minio.log" 2>&1 &
pids+=($!)
export MC_HOST_example=http://$MINIO_ROOT_USER:$MINIO_ROOT_PASSWORD@127.0.0.1:$minio_port
export MC_CONFIG_DIR=$folder/mc
wait_for MinIO "$folder/minio.log" "$mc" ready example

# ---- 4. Encrypted objects, and the line that each key release left. ----

"$mc" admin kms key status example
# Listed into a variable: `grep -q` leaves at its first match, and the lister that is still writing then fails the pipeline.
keys=$("$mc" admin kms key list example)
[[ $keys == *minio-lake* ]] || "$mc" admin kms key create example minio-lake
"$mc" mb --ignore-existing example/lake
"$mc" encrypt set sse-kms minio-lake example/lake
echo 'a secret of the lake' | "$mc" pipe example/lake/by-rule
echo 'another one' | "$mc" pipe --enc-s3 example/lake/by-request example/lake/by-request
[[ $("$mc" cat example/lake/by-rule) == 'a secret of the lake' ]]
[[ $("$mc" cat example/lake/by-request) == 'another one' ]]
"$mc" stat example/lake/by-rule

"$moat" kms audit show --last 12
"$moat" kms audit verify
echo "a MinIO server encrypts with Moat's key manager ($variant); everything is in $folder"

if [[ ${KEEP:-} == 1 ]]; then
    echo "MinIO: http://127.0.0.1:$minio_port (user $MINIO_ROOT_USER); key manager: $MINIO_KMS_KES_ENDPOINT; press Ctrl-C to end"
    wait
fi
