#!/usr/bin/env bash
# The same seven checks, with the key from cco's credential store: it is never printed and is in no environment.
#
#   scripts/test-gateway-streaming-with-creds.sh [--name NAME] [the arguments of test-gateway-streaming.sh]
#
# The name is ANTHROPIC_API_KEY where none is given. Ends with 2 if there is no such credential.
set -u
umask 077

cco=${CCO:-cco} name=ANTHROPIC_API_KEY
case ${1-} in
    --name)
        name=${2-}
        [ -n "$name" ] || { echo '--name wants a name' >&2; exit 2; }
        shift 2
        ;;
    -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
esac
unset ANTHROPIC_API_KEY
if ! "$cco" credentials retrieve "$name" --yes >/dev/null; then
    echo "no key: store one with \`cco credentials store $name\`" >&2
    exit 2
fi
set -o pipefail
"$cco" credentials retrieve "$name" --yes | "$(dirname "$0")/test-gateway-streaming.sh" --key-stdin "$@"
