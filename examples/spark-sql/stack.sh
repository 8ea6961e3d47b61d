# Sourced by run.sh with the data folder of `moat up`: sets the endpoints, the credentials and what to trust.
# Everything is read from the files that `moat up` writes for its users; the environment wins where both speak.

stack_data=$1

# The value of NAME in a KEY=value file, without running the file as a program.
stack_value() {
    sed -n "s/^\(export \)\{0,1\}$2=//p" "$1" | tail -n 1 | tr -d "\"'"
}

access_key=$(stack_value "$stack_data/root.env" MOAT_ROOT_USER)
secret_key=$(stack_value "$stack_data/root.env" MOAT_ROOT_PASSWORD)
[[ -n $access_key && -n $secret_key ]] || {
    echo "no root credentials in $stack_data/root.env" >&2
    exit 2
}

ca_pem=$stack_data/trust/ca.pem
truststore=$stack_data/trust/truststore.p12
truststore_password=${MOAT_TRUSTSTORE_PASSWORD:-changeit}

store_url=${MOAT_STORE_URL:-https://127.0.0.1:9000}
proxy_https_url=${MOAT_PROXY_HTTPS_URL:-https://127.0.0.1:8090}
proxy_http_url=${MOAT_PROXY_HTTP_URL:-http://127.0.0.1:8091}
