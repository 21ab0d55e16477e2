# The target, the amounts and the counts, for the scripts in this folder.
#
# URL     http://localhost:3000, or a remote one        HOST      Host header, for an ingress
# ARCHIVE its archive folder, when it is on this machine  NAMESPACE, RELEASE  it is on a cluster
# REQUESTS, CONNECTIONS, RATE, DURATION (seconds)  amounts  WARMUP  uncounted requests at the start (200)
# BODY    the body to post instead of the usage below
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
url=${URL:-http://localhost:3000}
endpoint=$url/api/usages
body=${BODY:-'{"patientId":"100","timestamp":"Tue Nov 01 2016 09:11:51 GMT-0500 (CDT)","medication":"Albuterol"}'}
for name in REQUESTS CONNECTIONS RATE DURATION; do
    [[ ${!name:-1} =~ ^[1-9][0-9]*$ ]] || { echo "$name: ${!name} is not a whole number above 0" >&2; exit 2; }
done
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

target=(--url "$url")
host=()
if [[ -n ${HOST:-} ]]; then target+=(--host "$HOST"); host=(-H "Host: $HOST"); fi
if [[ -n ${ARCHIVE:-} ]]; then target+=(--archive "$(realpath "$ARCHIVE")"); fi
if [[ -n ${NAMESPACE:-} ]]; then target+=(--namespace "$NAMESPACE" --release "${RELEASE:-busyapi}"); fi

need() { command -v "$1" >/dev/null || { echo "$1 is missing: $2" >&2; exit 2; }; }

loadtest() {
    local python=$root/.venv/bin/python
    [[ -x $python ]] || python=python3
    (cd "$root" && "$python" -m loadtest "$@")
}

# Fill caches and open the first connections, over one connection with curl.
warm_up() {
    local count=${WARMUP:-200}
    ((count == 0)) && return
    curl --silent --fail-with-body --output /dev/null "${host[@]}" \
        -H "Content-Type: application/json" --data "$body" "$endpoint?[1-$count]" \
        || { echo "$endpoint does not accept usages" >&2; exit 2; }
}

begin() {
    need curl "apt-get install curl"
    warm_up
    loadtest snapshot "${target[@]}" >"$work/before.json"
}

# finish TOOL SENT CREATED UNKNOWN: count the rest as refused. Exit with 1 if the counts disagree.
finish() {
    loadtest reconcile "$work/before.json" "${target[@]}" --tool "$1" --sent "$2" --created "$3" \
        --refused $(($2 - $3 - $4)) --unknown "$4"
}

# all_created SENT CREATED: check that all were created, for tools that only send valid usages.
all_created() {
    (($1 == $2)) || { echo "FAILED only $2 of $1 were answered with 201"; exit 1; }
}
