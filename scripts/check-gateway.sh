#!/bin/sh
# Asks a running gateway the four things that its documentation promises: health, an answer, a streamed answer, and
# metrics that went up by exactly these two. Ends with 1 at the first that is not as it should be.
#
#   scripts/check-gateway.sh [URL]        the default is http://127.0.0.1:54548
#
# The key is taken from ANTHROPIC_API_KEY, the model from CCO_CHECK_MODEL. It costs two short answers.
set -eu

url=${1:-http://127.0.0.1:54548}
key=${ANTHROPIC_API_KEY:-cco}
model=${CCO_CHECK_MODEL:-claude-haiku-5-5}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
    printf 'FAILED %s\n' "$1" >&2
    if [ -f "$folder/body" ]; then
        head -c 2000 "$folder/body" >&2
        echo >&2
    fi
    exit 1
}

# ask PATH [curl's options]: the body is in $folder/body, the head in $folder/head.
ask() {
    path=$1
    shift
    status=$(curl --silent --show-error --max-time 120 --dump-header "$folder/head" --output "$folder/body" \
        --write-out '%{http_code}' "$@" "$url$path") || fail "$path: no answer"
    [ "$status" = 200 ] || fail "$path: status $status"
}

# The key goes through a file: arguments can be seen by everybody on the machine.
umask 077
printf 'header = "x-api-key: %s"\n' "$key" >"$folder/key"

# generate STREAM
generate() {
    ask /v1/messages --config "$folder/key" --no-buffer \
        --header 'content-type: application/json' --header 'anthropic-version: 2023-06-01' \
        --data "{\"model\":\"$model\",\"max_tokens\":64,\"stream\":$1,\"messages\":[{\"role\":\"user\",\"content\":\"Say hello.\"}]}"
}

counted() {
    ask /gateway/metrics
    sed -n 's/.*"total_requests":\([0-9]*\).*/\1/p' "$folder/body" | grep . || fail 'metrics: no `total_requests`'
}

ask /gateway/health
grep -q '"status":"healthy"' "$folder/body" || fail 'health: not healthy'
echo '1/4 health: healthy'

before=$(counted)

generate false
grep -q '"type":"message"' "$folder/body" || fail 'answer: not a message'
echo '2/4 answer: a message'

generate true
grep -qi '^content-type: text/event-stream' "$folder/head" || fail 'stream: not a stream of events'
for event in message_start content_block_delta message_stop; do
    grep -q "^event: $event" "$folder/body" || fail "stream: no $event"
done
echo '3/4 stream: from message_start to message_stop'

after=$(counted)
[ "$after" -eq $((before + 2)) ] || fail "metrics: $before before, $after after two answers"
for name in total_cost_usd total_input_tokens total_output_tokens; do
    grep -q "\"$name\":" "$folder/body" || fail "metrics: no \`$name\`"
done
echo "4/4 metrics: $before before, $after after"
