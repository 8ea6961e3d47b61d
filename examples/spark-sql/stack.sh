# Sourced by run.sh with the data folder of `moat up`: sets the endpoints, the credentials and what to trust.
# Everything is read from the files that `moat up` writes or reads there; the environment wins where both speak.

stack_data=$1

# The value of NAME in a KEY=value file, without running the file as a program.
stack_value() {
    sed -n "s/^\(export \)\{0,1\}$2=//p" "$1" | tail -n 1 | tr -d "\"'"
}

# stack_url SCHEME SECTION KEY DEFAULT_PORT: where a listener of moat.toml is reached from this machine.
stack_url() {
    local listen=""
    if [[ -f $stack_data/moat.toml ]]; then
        listen=$(awk -v section="[$2]" -v key="$3" '
            /^\[/ { inside = ($1 == section) }
            inside && $1 == key { gsub(/["'\'']/, "", $3); print $3 }' "$stack_data/moat.toml")
    fi
    listen=${listen:-127.0.0.1:$4}
    echo "$1://${listen/#0.0.0.0:/127.0.0.1:}"
}

access_key=$(stack_value "$stack_data/root.env" MOAT_ROOT_USER)
secret_key=$(stack_value "$stack_data/root.env" MOAT_ROOT_PASSWORD)
[[ -n $access_key && -n $secret_key ]] || {
    echo "no root credentials in $stack_data/root.env" >&2
    exit 2
}

ca_pem=$stack_data/trust/ca.pem
truststore=$stack_data/trust/truststore.p12
# A truststore holds nothing secret: the password is the one that Java's own has.
truststore_password=${MOAT_TRUSTSTORE_PASSWORD:-changeit}

store_url=${MOAT_STORE_URL:-$(stack_url https store listen 9000)}
proxy_https_url=${MOAT_PROXY_HTTPS_URL:-$(stack_url https proxy listen_https 8090)}
proxy_http_url=${MOAT_PROXY_HTTP_URL:-$(stack_url http proxy listen_http 8091)}
