#!/usr/bin/env bash
# A key manager and an unmodified MinIO server that uses it as it would use MinKMS, from nothing, on this machine.
#
#   run.sh [FOLDER]
#
#   FOLDER  where everything is kept [default: a fresh folder in /tmp]; a second run on the same folder finds all of it again
#
# The key manager is set up with the command lines that MinKMS's own set-up scripts hold: `moat` takes them when it is called by the
# name `minkms`. It starts both servers, writes objects with SSE-KMS and SSE-S3, reads them back, shows the audit, and stops both.
# KEEP=1 leaves them running and says how to reach them. MOAT, MINIO and MC name the programs where they are not on the PATH.
set -euo pipefail

folder=${1:-$(mktemp -d /tmp/moat-minio-minkms.XXXXXX)}
moat=${MOAT:-moat} minio=${MINIO:-minio} mc=${MC:-mc}

fail() {
    echo "run.sh: $*" >&2
    exit 2
}

case $folder in
-h | --help) sed -n '2,/^set -euo/p' "${BASH_SOURCE[0]}" | sed -n 's/^# \{0,1\}//p' && exit 0 ;;
-*) fail "unknown option $folder (see --help)" ;;
esac
for program in "$moat" "$minio" "$mc"; do
    command -v "$program" >/dev/null || fail "$program is not on the PATH: name the programs with MOAT, MINIO and MC"
done

mkdir -p "$folder/bin"
folder=$(cd "$folder" && pwd)
ln -sf "$(command -v "$moat")" "$folder/bin/minkms"
PATH=$folder/bin:$PATH
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

# once FILE COMMAND...: keeps what a command prints, for those who may read secrets, and prints it only once.
once() {
    local file=$1
    shift
    [[ -s $file ]] || (umask 077 && "$@" >"$file")
}

# ---- 1. The key manager: MinKMS's environment and configuration file. ----

once "$folder/hsm.key" minkms --soft-hsm
once "$folder/root.txt" minkms identity
MINIO_KMS_HSM_KEY=$(<"$folder/hsm.key")
root_key=$(grep -oE 'k[0-9]+:[A-Za-z0-9_-]+' "$folder/root.txt")
if [[ ! -f $folder/certs/public.crt ]]; then
    mkdir -p "$folder/certs"
    "$moat" pki ca 'example CA' --out "$folder/certs/ca"
    "$moat" pki leaf localhost --host localhost --host 127.0.0.1 --ca "$folder/certs/ca.crt" --out "$folder/certs/kms"
    mv "$folder/certs/kms.crt" "$folder/certs/public.crt"
    mv "$folder/certs/kms.key" "$folder/certs/private.key"
fi
cat >"$folder/config.yaml" <<END
version: v1
address: 127.0.0.1:$kms_port
tls:
  certs:
    - key: $folder/certs/private.key
      cert: $folder/certs/public.crt
END
MINIO_KMS_HSM_KEY=$MINIO_KMS_HSM_KEY MOAT_KMS_ROOT_API_KEY=$root_key \
    minkms server "$folder/kms" --config "$folder/config.yaml" >"$folder/kms.log" 2>&1 &
pids+=($!)

export MINIO_KMS_SERVER=https://127.0.0.1:$kms_port MOAT_KMS_CA=$folder/certs/ca.crt
wait_for "the key manager" "$folder/kms.log" minkms stat

# ---- 2. An enclave, and who MinIO is. Run again, these say "already exists", which is no failure. ----

minkms add-enclave -a "$root_key" aistor-deployment
once "$folder/minio.txt" minkms add-identity -a "$root_key" --enclave aistor-deployment --admin aistor-identity
minkms create-key -a "$root_key" --enclave aistor-deployment spark-encryption-key
minkms list-keys -a "$root_key" --enclave aistor-deployment

# ---- 3. MinIO. The CA goes where MinIO looks for those that it trusts. ----

export MINIO_KMS_ENCLAVE=aistor-deployment MINIO_KMS_SSE_KEY=spark-encryption-key
MINIO_KMS_API_KEY=$(grep -oE 'k[0-9]+:[A-Za-z0-9_-]+' "$folder/minio.txt")
export MINIO_KMS_API_KEY
export MINIO_ROOT_USER=minio-root MINIO_ROOT_PASSWORD=${MINIO_ROOT_PASSWORD:-minio-root-secret}
mkdir -p "$folder/minio-certs/CAs"
cp "$folder/certs/ca.crt" "$folder/minio-certs/CAs/kms.crt"
"$minio" server "$folder/minio" --certs-dir "$folder/minio-certs" \
    --address "127.0.0.1:$minio_port" --console-address "127.0.0.1:$console_port" >"$folder/minio.log" 2>&1 &
pids+=($!)
export MC_HOST_example=http://$MINIO_ROOT_USER:$MINIO_ROOT_PASSWORD@127.0.0.1:$minio_port
export MC_CONFIG_DIR=$folder/mc
wait_for MinIO "$folder/minio.log" "$mc" ready example

# ---- 4. Encrypted objects, and the line that each key release left. ----

"$mc" admin kms key status example
# Listed into a variable: `grep -q` leaves at its first match, and the lister that is still writing then fails the pipeline.
keys=$("$mc" admin kms key list example)
[[ $keys == *lake-key* ]] || "$mc" admin kms key create example lake-key
"$mc" mb --ignore-existing example/lake
"$mc" encrypt set sse-kms lake-key example/lake
echo 'a secret of the lake' | "$mc" pipe example/lake/by-rule
echo 'another one' | "$mc" pipe --enc-s3 example/lake/by-request example/lake/by-request
[[ $("$mc" cat example/lake/by-rule) == 'a secret of the lake' ]]
[[ $("$mc" cat example/lake/by-request) == 'another one' ]]
"$mc" stat example/lake/by-rule

"$moat" kms audit show --data "$folder/kms" --last 12
"$moat" kms audit verify --data "$folder/kms"
echo "a MinIO server encrypts with Moat's key manager (MinKMS); everything is in $folder"

if [[ ${KEEP:-} == 1 ]]; then
    echo "MinIO: http://127.0.0.1:$minio_port (user $MINIO_ROOT_USER); key manager: $MINIO_KMS_SERVER; press Ctrl-C to end"
    wait
fi
