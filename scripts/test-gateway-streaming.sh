#!/usr/bin/env bash
# Seven checks of a running gateway with a real request each: daemon, key, health, answer, stream, metrics, audit.
# Costs two short answers.
#
#   scripts/test-gateway-streaming.sh [--model MODEL] [--url URL] [--key-stdin] [--simulated]
#
# The key comes from ANTHROPIC_API_KEY, or from standard input with --key-stdin. With --simulated, a simulator and a
# gateway of their own are started in a folder of their own: no key, no network, and nothing of yours is touched.
# The program is `cco` in PATH, or what CCO names.
#
# Ends with 0 if all seven passed, 1 if one did not, 2 if there is no key or the call is wrong.
set -u
umask 077

wrong() { printf '%s\n' "$1" >&2; exit 2; }
cco=${CCO:-cco} model=claude-haiku-5-5 url='' simulated='' key=${ANTHROPIC_API_KEY-}
while [ $# -gt 0 ]; do
    case $1 in
        --model) model=${2-}; [ -n "$model" ] || wrong '--model wants a name'; shift ;;
        --url) url=${2-}; [ -n "$url" ] || wrong '--url wants an address'; shift ;;
        --key-stdin) IFS= read -r key || true ;;
        --simulated) simulated=yes ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
        *) wrong "unknown argument: $1" ;;
    esac
    shift
done

folder=$(mktemp -d) || exit 1
started=''
finish() {
    for pid in $started; do kill "$pid" 2>/dev/null; done
    for pid in $started; do wait "$pid" 2>/dev/null; done
    rm -rf "$folder"
}
trap finish EXIT

green='' red='' plain=''
if [ -t 1 ] && [ -z "${NO_COLOR-}" ]; then green=$(printf '\033[32m') red=$(printf '\033[31m') plain=$(printf '\033[0m'); fi
number=0 failed=0
good() { number=$((number + 1)); printf '%d/7 %s✓%s %s\n' "$number" "$green" "$plain" "$1"; }
bad() { number=$((number + 1)) failed=$((failed + 1)); printf '%d/7 %s✗%s %s\n' "$number" "$red" "$plain" "$1"; }

# In the folder, a file that grows to hold this text; gives up after ten seconds or when the process is gone.
wait_for() {
    for _ in $(seq 100); do
        grep -q "$2" "$folder/$1" 2>/dev/null && return 0
        kill -0 "$3" 2>/dev/null || break
        sleep 0.1
    done
    cat "$folder/$1" >&2
    return 1
}

if [ -n "$simulated" ]; then
    export CCO_HOME=$folder/home
    mkdir "$CCO_HOME"
    key=simulated
    "$cco" simulate --unmarked --script 'every=5' >"$folder/simulator" 2>&1 &
    started=$!
    wait_for simulator 'http://' "$started" || { echo 'the simulator did not start' >&2; exit 1; }
    upstream=$(sed -n 's/.*\(http:\/\/[0-9.:]*\).*/\1/p' "$folder/simulator" | head -n 1)
    printf '{"providers":{"anthropic":{"baseUrl":"%s"}}}\n' "$upstream" >"$CCO_HOME/config.json"
    "$cco" serve --listen 127.0.0.1:0 >"$folder/gateway" 2>"$folder/log" &
    started="$started $!"
    wait_for gateway 'listening on' "$!" || { cat "$folder/log" >&2; exit 1; }
    echo "simulated: no provider is asked, in $CCO_HOME"
fi
if [ -z "$key" ]; then
    echo 'no key: set ANTHROPIC_API_KEY, use scripts/test-gateway-streaming-with-creds.sh, or --simulated' >&2
    exit 2
fi

# 1: the daemon, and the port that serves model requests.
"$cco" status --json >"$folder/status" 2>"$folder/why"
port=$(sed -n 's/.*"port":\([0-9][0-9]*\).*/\1/p' "$folder/status" | head -n 1)
if [ -n "$port" ]; then
    good "daemon: running, port $port"
    url=${url:-http://127.0.0.1:$port}
else
    bad "daemon: not running: $(head -n 1 "$folder/why")"
    url=${url:-http://127.0.0.1:54548}
fi

# The key goes through a file: arguments can be seen by everybody on the machine.
printf 'header = "x-api-key: %s"\n' "$key" >"$folder/key"
# ask NAME PATH [curl's options]: fills NAME.head and NAME.body in the folder; the status is in $status.
ask() {
    name=$1 path=$2
    shift 2
    status=$(curl --silent --show-error --max-time 120 --dump-header "$folder/$name.head" --output "$folder/$name.body" \
        --write-out '%{http_code}' "$@" "$url$path" 2>"$folder/$name.why") || status=000
    tr -d '\r' <"$folder/$name.head" >"$folder/$name.fields" 2>/dev/null
}
generate() {
    ask "$1" /v1/messages --config "$folder/key" --no-buffer --trace-ascii "$folder/$1.trace" --trace-time \
        --header 'content-type: application/json' --header 'anthropic-version: 2023-06-01' \
        --data "{\"model\":\"$model\",\"max_tokens\":64,\"stream\":$2,\"messages\":[{\"role\":\"user\",\"content\":\"Count from one to twenty in words.\"}]}"
}
# field NAME FIELD: a field of a head.
field() { awk -v name="$2" '{ at = index($0, ":") } at && tolower(substr($0, 1, at - 1)) == name { sub(/^[^:]*: */, ""); print; exit }' "$folder/$1.fields" 2>/dev/null; }
# said NAME: why a request went wrong, in a line without control characters.
said() {
    if [ "$status" = 000 ]; then head -n 1 "$folder/$1.why"; else
        printf 'status %s: ' "$status"
        head -c 300 "$folder/$1.body" | tr -d '\000-\037'
    fi
}
# of NAME KEY: the last number of this name in a body, whatever it is written in.
of() { grep -o "\"$2\": *[0-9.eE+-]*" "$folder/$1.body" | tail -n 1 | sed 's/.*: *//'; }

# 2: the key.
end=''
[ ${#key} -ge 16 ] && end=" (…$(printf '%s' "$key" | tail -c 4))"
ask models /v1/models --config "$folder/key" --header 'anthropic-version: 2023-06-01'
if [ "$status" = 200 ]; then good "key: present$end, accepted by the provider"; else bad "key: present$end, not accepted: $(said models)"; fi

# 3: health.
ask health /gateway/health
if [ "$status" = 200 ] && grep -q '"status": *"healthy"' "$folder/health.body"; then good 'health: healthy'; else bad "health: $(said health)"; fi

ask before /gateway/metrics

# 4: an answer in one piece.
generate whole false
whole_ok=''
if [ "$status" != 200 ]; then
    bad "answer: $(said whole)"
elif ! grep -q '"type": *"message"' "$folder/whole.body" || [ -z "$(of whole output_tokens)" ]; then
    bad 'answer: not a message with its usage'
else
    whole_ok=yes
    good "answer: a message, $(of whole input_tokens) tokens in, $(of whole output_tokens) out"
fi

# 5: a streamed answer: its headers, the order of its events, and when they arrived.
generate stream true
faults=''
for want in 'content-type text/event-stream' 'cache-control no-cache' 'connection keep-alive' 'x-accel-buffering no'; do
    name=${want%% *}
    case "$(field stream "$name")" in "${want#* }"*) ;; *) faults="$faults; no \`$name: ${want#* }\`" ;; esac
done
order=$(sed -n 's/^event: *//p' "$folder/stream.body" 2>/dev/null | tr -d '\r' | awk '
    function wrong(what) { if (!why) why = what " at event " NR }
    ended { wrong("something behind message_stop") }
    NR == 1 && $0 != "message_start" { wrong("not message_start") }
    NR > 1 && $0 == "message_start" { wrong("a second message_start") }
    $0 == "content_block_start" { if (open) wrong("a block within a block"); open = 1 }
    $0 == "content_block_delta" { if (!open) wrong("a delta outside of a block"); deltas++ }
    $0 == "content_block_stop" { if (!open) wrong("the end of no block"); open = 0 }
    $0 == "message_delta" { if (open) wrong("message_delta within a block"); told = 1 }
    $0 == "message_stop" { if (!told) wrong("message_stop without message_delta"); ended = 1 }
    $0 == "error" { wrong("an error") }
    END { if (!ended) wrong("no message_stop"); if (!deltas) wrong("no delta"); print why }')
[ -n "$order" ] && faults="$faults; $order"
# Pieces as curl received them: events that arrive together were held back.
pieces=$(awk '/<= Recv data/ { n++; split($1, t, ":"); last = t[1] * 3600 + t[2] * 60 + t[3]; if (n == 1) first = last }
    END { printf "%d %.0f", n, (last - first) * 1000 }' "$folder/stream.trace" 2>/dev/null)
deltas=$(grep -c '^event: *content_block_delta' "$folder/stream.body" 2>/dev/null)
if [ "${deltas:-0}" -gt 3 ] && { [ "${pieces%% *}" -lt 3 ] || [ "${pieces##* }" -lt 1 ]; }; then
    faults="$faults; $deltas deltas arrived all at once"
fi
counts=$(sed -n 's/^event: *//p' "$folder/stream.body" 2>/dev/null | tr -d '\r' | sort | uniq -c | awk '{ printf "%s%s %s", sep, $1, $2; sep = ", " }')
if [ "$status" != 200 ]; then bad "stream: $(said stream)"; elif [ -n "$faults" ]; then bad "stream: ${faults#; }"; else
    good "stream: four headers, legal order, in ${pieces%% *} pieces over ${pieces##* } ms: $counts"
fi

# 6: both are counted, and cost what their usage costs.
ask after /gateway/metrics
# counted NAME KEY: a number of the summary.
counted() { sed -n 's/.*"summary": *{\([^}]*\)}.*/\1/p' "$folder/$1.body" 2>/dev/null | tr ',' '\n' | sed -n "s/.*\"$2\": *\([0-9.eE+-]*\).*/\1/p"; }
"$cco" prices "$model" --json >"$folder/prices" 2>/dev/null
price() { sed -n "s/.*\"$1\": *\"\{0,1\}\([0-9.]*\).*/\1/p" "$folder/prices" | head -n 1; }
verdict=$(awk -v r0="$(counted before total_requests)" -v r1="$(counted after total_requests)" \
    -v c0="$(counted before total_cost_usd)" -v c1="$(counted after total_cost_usd)" \
    -v i0="$(counted before total_input_tokens)" -v i1="$(counted after total_input_tokens)" \
    -v o0="$(counted before total_output_tokens)" -v o1="$(counted after total_output_tokens)" \
    -v pi="$(price input)" -v po="$(price output)" 'BEGIN {
        if (r0 == "" || r1 == "") { print "no `total_requests`"; exit }
        if (r1 - r0 != 2) { printf "%d requests more, not 2", r1 - r0; exit }
        if (pi == "" || po == "") { print "no price of this model"; exit }
        cost = ((i1 - i0) * pi + (o1 - o0) * po) / 1e6
        if (cost <= 0 || (c1 - c0 - cost) ^ 2 > 4e-16) printf "$%.9f more, but the usage costs $%.9f", c1 - c0, cost
    }')
if [ "$status" != 200 ]; then bad "metrics: $(said after)"; elif [ -n "$verdict" ]; then bad "metrics: $verdict"; else
    good "metrics: 2 requests more, and what they cost is what their usage costs"
fi

# 7: the audit holds both.
"$cco" logs --json --limit 20 >"$folder/logs" 2>"$folder/why"
missing=''
for name in whole stream; do
    id=$(field "$name" x-cco-request-id)
    if [ -z "$id" ]; then missing="$missing $name (no id)"; elif ! grep "\"$id\"" "$folder/logs" | grep -q '"outcome": *"success"'; then missing="$missing $name"; fi
done
if [ -z "$missing" ]; then good 'audit: holds both, as successes'; else bad "audit: not there:$missing"; fi

if [ "$failed" -gt 0 ]; then echo "$failed of 7 checks failed"; exit 1; fi
echo 'all 7 checks passed'
