#!/bin/sh
# Installs cco from the archive that lies beside this script, for this user alone: no root, nothing outside of HOME.
#
#   ./install.sh [--prefix DIR] [ARCHIVE]     installs, or replaces what is installed
#   ./install.sh --remove [--prefix DIR]      removes exactly what was installed, and folders that were made for it
#
# Without --prefix: ~/.local. The archive must be listed in SHA256SUMS beside it, and be what is listed there.
set -eu
umask 022

fail() { printf 'error: %s\n' "$1" >&2; [ $# -lt 2 ] || printf 'help: %s\n' "$2" >&2; exit 1; }

prefix='' archive='' remove=''
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) [ $# -ge 2 ] || fail '--prefix wants a folder'; prefix=$2; shift ;;
        --remove) remove=yes ;;
        -h | --help) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p;}' "$0"; exit 0 ;;
        -*) fail "unknown option: $1" "$0 --help" ;;
        *) archive=$1 ;;
    esac
    shift
done
if [ -z "$prefix" ]; then
    [ -n "${HOME-}" ] || fail 'HOME is not set' 'name a folder: --prefix DIR'
    prefix=$HOME/.local
fi
case $prefix in /*) ;; *) prefix=$PWD/$prefix ;; esac
# What was installed: the files and the folders that were made, in the order in which they were.
list=$prefix/share/cco/installed

# make_folder DIR: makes it and what is above it, and writes down what was made.
make_folder() {
    [ -d "$1" ] && return 0
    make_folder "$(dirname "$1")"
    mkdir "$1"
    printf 'd %s\n' "$1" >>"$made"
}

if [ -n "$remove" ]; then
    [ -f "$list" ] || fail "nothing is installed below $prefix" 'name its folder: --prefix DIR'
    while read -r kind path; do [ "$kind" = f ] && rm -f "$path"; done <"$list"
    folders=$(sed -n 's/^d //p' "$list" | sed '1!G;h;$!d')
    rm -f "$list"
    # A folder in which something else lies by now stays.
    printf '%s\n' "$folders" | while IFS= read -r path; do [ -z "$path" ] || rmdir "$path" 2>/dev/null || true; done
    echo "removed from $prefix"
    exit 0
fi

here=$(cd "$(dirname "$0")" && pwd)
if [ -z "$archive" ]; then
    for found in "$here"/cco-*.tar.gz; do
        [ -f "$found" ] || fail "there is no archive beside $0" 'name it: install.sh ARCHIVE'
        [ -z "$archive" ] || fail "there are several archives beside $0" 'name one: install.sh ARCHIVE'
        archive=$found
    done
fi
[ -f "$archive" ] || fail "there is no file $archive"
name=$(basename "$archive")
sums=$(dirname "$archive")/SHA256SUMS
[ -f "$sums" ] || fail "there is no SHA256SUMS beside $archive" 'it comes with the archive, from the same place'
want=$(awk -v name="$name" '$2 == name || $2 == "*" name { print $1; exit }' "$sums")
[ -n "$want" ] || fail "SHA256SUMS does not list $name"
if command -v sha256sum >/dev/null 2>&1; then got=$(sha256sum "$archive"); else got=$(shasum -a 256 "$archive"); fi
got=${got%% *}
[ "$got" = "$want" ] || fail "$name is not what SHA256SUMS says: it was changed or is not whole" 'get it again; nothing was installed'

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
made=$work/installed
# What an earlier installation made is still ours.
if [ -f "$list" ]; then cat "$list" >"$made"; else : >"$made"; fi
tar -xzf "$archive" -C "$work"
tree=$work/${name%.tar.gz}
[ -x "$tree/bin/cco" ] || fail "$name holds no program"
"$tree/bin/cco" version >"$work/version" 2>&1 || fail "the program does not run here: $(head -n 1 "$work/version")" 'is it the archive for this kind of machine?'

# put FROM TO: beside the old file, then in its place, so that there is always a whole one.
put() {
    make_folder "$(dirname "$2")"
    cp "$1" "$2.new"
    mv -f "$2.new" "$2"
    grep -qxF "f $2" "$made" || printf 'f %s\n' "$2" >>"$made"
}
(cd "$tree" && find . -type f | LC_ALL=C sort) >"$work/files"
while IFS= read -r file; do
    file=${file#./}
    put "$tree/$file" "$prefix/$file"
done <"$work/files"
chmod 755 "$prefix/bin/cco"
make_folder "$(dirname "$list")"
cp "$made" "$list"

echo "installed: $prefix/bin/cco $(cat "$work/version")"
case ":${PATH-}:" in
    *":$prefix/bin:"*) ;;
    *) echo "note: $prefix/bin is not in your PATH: add it, for example with  export PATH=\"$prefix/bin:\$PATH\"" ;;
esac
if "$prefix/bin/cco" status >/dev/null 2>&1; then
    echo 'next: cco daemon restart (a gateway of the old version still runs; no stream is cut)'
else
    echo 'next: cco daemon start, then cco run -- claude'
fi
