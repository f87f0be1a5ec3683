#!/usr/bin/env bash
# The life of an installation, in an empty home: what is published is checked, installed, set up, used, put over an older
# version's store, removed, and the home must then be as it was. No network but the loopback.
#
#   tests/install/life.sh DIR     DIR: what `cargo xtask dist` wrote
#
# Prints a line a check; ends with 1 if one failed.
set -u
umask 022
export LC_ALL=C
dist=$(cd "${1:?which folder?}" && pwd)
root=$(cd "$(dirname "$0")/../.." && pwd)
work=$(mktemp -d)
home=$work/home
mkdir "$home"
simulator=''
finish() {
    "$home/.local/bin/cco" daemon stop >/dev/null 2>&1
    [ -z "$simulator" ] || { kill "$simulator" && wait "$simulator"; } 2>/dev/null
    rm -rf "$work"
}
trap finish EXIT

failed=0
good() { printf '✓ %s\n' "$1"; }
bad() { printf '✗ %s\n' "$1"; failed=$((failed + 1)); [ ! -s "$work/said" ] || sed 's/^/    /' "$work/said" | tail -n 20; }
# check WHAT COMMAND…: the command must succeed.
check() { what=$1; shift; if "$@" >"$work/said" 2>&1; then good "$what"; else bad "$what"; fi; }
refused() { what=$1; shift; if "$@" >"$work/said" 2>&1; then bad "$what"; else good "$what"; fi; }
says() { grep -qF -- "$1" "$work/said"; }
run() { env -i HOME="$home" PATH="$home/.local/bin:/usr/local/bin:/usr/bin:/bin" "$@"; }

archive=$(echo "$dist"/cco-*.tar.gz)
name=$(basename "$archive" .tar.gz)

# What is published.
check 'the checksums are those of the files' sh -c "cd '$dist' && sha256sum --check --strict SHA256SUMS"
check 'the archive holds program, pages and completions' sh -c "tar -tzf '$archive' >'$work/list' \
    && for file in bin/cco share/man/man1/cco.1.gz share/man/man1/cco-daemon-start.1.gz share/bash-completion/completions/cco \
        share/zsh/site-functions/_cco share/fish/vendor_completions.d/cco.fish share/doc/cco/sbom.cdx.json; \
    do grep -qxF '$name/'\$file '$work/list' || { echo \"\$file is missing\"; exit 1; }; done"
check 'the list of contents is one of CycloneDX' python3 -c "
import json, sys
told = json.load(open('$dist/sbom.cdx.json'))
assert told['bomFormat'] == 'CycloneDX' and len(told['components']) > 50, told
refs = {c['bom-ref'] for c in told['components']} | {told['metadata']['component']['bom-ref']}
assert all(on in refs for d in told['dependencies'] for on in d['dependsOn'])"

# The Debian package.
deb=$(echo "$dist"/cco_*.deb)
if [ -f "$deb" ] && command -v dpkg-deb >/dev/null; then
    check 'the package tells what it is' sh -c "dpkg-deb --info '$deb' && dpkg-deb --field '$deb' Package | grep -qx cco"
    check 'the package holds the program' sh -c "dpkg-deb --contents '$deb' | grep -q 'root/root.* \./usr/bin/cco$'"
    mkdir -p "$work/debian/var/lib/dpkg/info" "$work/debian/var/lib/dpkg/updates"
    : >"$work/debian/var/lib/dpkg/status"
    dpkg="dpkg --force-not-root --force-depends --force-script-chrootless --root=$work/debian"
    check 'dpkg installs it' sh -c "$dpkg --log=/dev/null --install '$deb' && '$work/debian/usr/bin/cco' version"
    check 'dpkg removes it' sh -c "$dpkg --log=/dev/null --purge cco && ! test -e '$work/debian/usr/bin/cco'"
else
    bad 'no dpkg-deb, or no package: NOT RUN'
fi

# The installer: what was tampered with is refused, and leaves nothing.
mkdir "$work/tampered"
cp "$dist"/cco-*.tar.gz "$dist/SHA256SUMS" "$dist/install.sh" "$work/tampered"
printf 'x' >>"$work/tampered/$name.tar.gz"
refused 'a changed archive is refused' run sh "$work/tampered/install.sh"
says 'was changed or is not whole' || bad 'and it is said why'
cp "$archive" "$work/tampered/"
grep -v "$name" "$dist/SHA256SUMS" >"$work/tampered/SHA256SUMS"
refused 'an archive that is not listed is refused' run sh "$work/tampered/install.sh"
rm "$work/tampered/SHA256SUMS"
refused 'an archive without checksums is refused' run sh "$work/tampered/install.sh"
check 'nothing was installed by any of them' sh -c "[ -z \"\$(ls -A '$home')\" ]"

# Somebody's home, with something in it.
mkdir "$home/.config" "$home/project"
echo 'mine' >"$home/.config/mine"
cp -a "$home" "$work/before"

check 'installed' run sh "$dist/install.sh"
says "installed: $home/.local/bin/cco" || bad 'it says where'
check 'installed once more, over itself' run sh "$dist/install.sh"
check 'it runs' run cco version

# The store of the first version, as it was written then.
mkdir -m 0700 "$home/.cco"
check 'the store of an older version' python3 -c "
import sqlite3
db = sqlite3.connect('$home/.cco/ledger.db')
db.executescript(open('$root/crates/ledger/tests/data/form-1.sql').read())
db.execute('PRAGMA user_version = 1')
db.commit()"
chmod 600 "$home/.cco/ledger.db"

# Without a function between: what is ended later is the simulator itself.
env -i HOME="$home" PATH="$home/.local/bin:/usr/bin:/bin" cco simulate --journal "$work/journal" >"$work/simulator" 2>&1 &
simulator=$!
for _ in $(seq 100); do grep -q http "$work/simulator" && break; sleep 0.1; done
at=$(sed -n 's/.*\(http:\/\/[0-9.:]*\).*/\1/p' "$work/simulator" | head -n 1)
check 'configured' sh -c "export HOME='$home' PATH='$home/.local/bin:/usr/bin:/bin'; cco config init \
    && cco config set server.listen 127.0.0.1:0 && cco config set providers.anthropic.baseUrl '$at'"
check 'a key is stored' sh -c "printf 'sk-ant-api03-of-the-installation-0000' | env -i HOME='$home' PATH=/usr/bin:/bin \
    '$home/.local/bin/cco' credentials store ANTHROPIC_API_KEY --backend file"
check 'started' run cco daemon start
check 'status' run cco status
says 'Running: true' || bad 'it runs'
check 'claude is set up' run cco setup claude --pay stored --yes
check 'its settings are there' test -s "$home/.claude/settings.json"
# shellcheck disable=SC2016 # that shell's own variables
client='printf "%s\n" "$ANTHROPIC_CUSTOM_HEADERS" >"$0"
    curl -sS --fail "$ANTHROPIC_BASE_URL/v1/messages" -H "authorization: Bearer $ANTHROPIC_AUTH_TOKEN" -H "@$0" \
    -H "anthropic-version: 2023-06-01" -H "content-type: application/json" \
    -d "{\"model\":\"claude-haiku-5-5\",\"max_tokens\":9,\"messages\":[{\"role\":\"user\",\"content\":\"Hello.\"}]}"'
check 'a client runs through it' run cco run --project life -- sh -c "$client" "$work/headers"
if ! says '"type":"message"' || ! says 'paying with: stored key'; then bad 'it was answered, and who pays was said'; fi
check 'the records of the older version and the new one' sh -c "env -i HOME='$home' '$home/.local/bin/cco' logs --json --limit 99 >'$work/logs' \
    && [ \"\$(wc -l <'$work/logs')\" -eq 3 ] && grep -q '\"project\":\"life\"' '$work/logs'"
check 'the newer form of the store' sh -c "[ \"\$(python3 -c \"import sqlite3; print(sqlite3.connect('$home/.cco/ledger.db').execute('PRAGMA user_version').fetchone()[0])\")\" -gt 1 ]"
check 'a new version takes over' sh -c "env -i HOME='$home' PATH=/usr/bin:/bin sh '$dist/install.sh' && env -i HOME='$home' PATH=/usr/bin:/bin '$home/.local/bin/cco' daemon restart"

check 'uninstalled' run cco uninstall --purge --yes
check 'the program is removed' run sh "$dist/install.sh" --remove
kill "$simulator" && wait "$simulator" 2>/dev/null
simulator=''
check 'the home is as it was before' diff -r "$work/before" "$home"
check 'and nobody serves any more' sh -c "! pgrep -f '^$home/.local/bin/cco' >/dev/null"

if [ "$failed" -gt 0 ]; then echo "$failed checks failed"; exit 1; fi
echo 'all checks passed'
