#!/bin/sh
# Install a build into a temporary prefix, move it, and build a stranger's program against it in every
# way we promise: pkg-config and find_package, shared and static.
#   tests/install/install.sh BUILD_DIR
set -eu
build=$(cd "${1:?usage: tests/install/install.sh BUILD_DIR}" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT INT TERM
cc=${CC:-cc}
generator=$(sed -n 's/^CMAKE_GENERATOR:INTERNAL=//p' "$build/CMakeCache.txt")

fail() {
    echo "install: $*" >&2
    exit 1
}

cmake --install "$build" --prefix "$work/first" >"$work/log" || fail "cmake --install: $(cat "$work/log")"
mv "$work/first" "$work/prefix" # an installed tree can be moved
prefix=$work/prefix
[ -e "$prefix/lib/libattn.so" ] || fail "there is no lib/libattn.so"
lm=
[ ! -e "$prefix/lib/libattn_lm.so" ] || lm=yes
if grep -rl "$build" "$prefix" --include='*.pc' --include='*.cmake' --include='*.h'; then
    fail "these files name the build folder"
fi

PKG_CONFIG_PATH=$prefix/lib/pkgconfig
export PKG_CONFIG_PATH
run() {
    out=$(LD_LIBRARY_PATH=$prefix/lib "$@") || fail "$* failed"
    case $out in
    *"attn "*) echo "${1##*/}: $out" ;;
    *) fail "$* printed: $out" ;;
    esac
}

# shellcheck disable=SC2046 # pkg-config prints words
one() {
    one_name=$1
    one_package=$2
    $cc -std=c11 -Wall -Werror "$here/consumer/$one_package.c" -o "$work/$one_name" \
        $(pkg-config --cflags --libs "$one_package")
    run "$work/$one_name"
    # Statically: our archives, the system's own libraries as they come.
    $cc -std=c11 -Wall -Werror "$here/consumer/$one_package.c" -o "$work/${one_name}_static" \
        $(pkg-config --cflags --libs --static "$one_package" |
            sed "s|-lattn_lm|$prefix/lib/libattn_lm.a|; s|-lattn\\b|$prefix/lib/libattn.a|")
    if readelf -d "$work/${one_name}_static" | grep -q 'NEEDED.*libattn'; then
        fail "${one_name}_static still needs a shared libattn"
    fi
    run "$work/${one_name}_static"
}
one pkgconfig attn
[ -z "$lm" ] || one pkgconfig_lm attn_lm

[ -z "$lm" ] && want_lm=OFF || want_lm=ON
{
    cmake -S "$here/consumer" -B "$work/consumer" -G "$generator" -DCMAKE_PREFIX_PATH="$prefix" \
        -DWANT_LM="$want_lm" &&
        cmake --build "$work/consumer"
} >"$work/log" 2>&1 || fail "find_package(attn): $(cat "$work/log")"
for program in "$work"/consumer/use_*; do
    [ ! -x "$program" ] || run "$program"
done

if [ -n "$lm" ] && [ -x "$prefix/bin/attn" ]; then
    "$prefix/bin/attn" --version >/dev/null || fail "bin/attn --version failed"
    if [ -e "$here/../../docs/man/attn.1" ]; then
        [ -e "$prefix/share/man/man1/attn.1" ] || fail "the man page was not installed"
    fi
fi
echo "installed, moved, and used through pkg-config and find_package"
