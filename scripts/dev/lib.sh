# shellcheck shell=sh
# shellcheck disable=SC2034 # the lists are for the files that source this one
# What the words of ./dev share. Sourced from the root of the repository.

# One compiler and linker job per processor this process may use.
: "${JOBS:=$(nproc 2>/dev/null || echo 2)}"

DEFAULT_MODEL=smollm2-135m-instruct
DEFAULT_MODEL_FILE=${ATTN_CACHE:-${HOME:-}/.cache/attn}/SmolLM2-135M-Instruct.Q4_1.gguf

APT_BUILD="gcc libc6-dev cmake ninja-build pkg-config libpcre2-dev libutf8proc-dev libjansson-dev
    zlib1g-dev libjs-chart.js"
APT_FETCH="python3 python3-pip ca-certificates"
APT_TEST="g++ libcmocka-dev binutils git python3 python3-pip python3-venv ca-certificates"
APT_LINT="gcc g++ clang clang-format clang-tidy cppcheck shellcheck python3 git"
APT_FUZZ="clang libclang-rt-14-dev llvm python3"
APT_DOCS="mandoc python3 git"

say() {
    printf 'dev: %s\n' "$*"
}

die() {
    printf 'dev: %s\n' "$*" >&2
    exit 1
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then
        "$@"
    elif command -v sudo >/dev/null 2>&1; then
        sudo "$@"
    else
        die "need root to run: $* (install sudo, or run this once as root: ./dev setup)"
    fi
}

apt_install() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 -y \
        --no-install-recommends install "$@" >/dev/null
}

apt_has() {
    dpkg-query -W -f='${Status}\n' "$1" 2>/dev/null | grep -q '^install ok installed'
}

# need PACKAGE...: install the Debian packages that are missing, and say which.
need() {
    if ! command -v dpkg-query >/dev/null 2>&1 || ! command -v apt-get >/dev/null 2>&1; then
        say "not a Debian system: please see to these yourself: $*"
        return 0
    fi
    need_missing=
    for need_package; do
        apt_has "$need_package" || need_missing="$need_missing $need_package"
    done
    [ -n "$need_missing" ] || return 0
    say "installing through apt:$need_missing"
    # shellcheck disable=SC2086 # a list of words
    if ! apt_install $need_missing 2>/dev/null; then
        say "refreshing apt's package lists"
        as_root apt-get -qq update || die "apt-get update failed: is the network there?"
        # shellcheck disable=SC2086
        apt_install $need_missing || die "apt could not install:$need_missing"
    fi
}

# configure DIR [CMAKE...]: configure a build folder, quietly unless it fails.
configure() {
    configure_dir=$1
    shift
    mkdir -p "$configure_dir"
    if ! cmake -S . -B "$configure_dir" -G Ninja "$@" >"$configure_dir/configure.log" 2>&1; then
        cat "$configure_dir/configure.log" >&2
        return 1
    fi
}

# compile DIR: with a running line of progress on a terminal, without a word elsewhere.
compile() {
    if [ -t 1 ]; then
        cmake --build "$1" -j "$JOBS"
    else
        cmake --build "$1" -j "$JOBS" -- --quiet
    fi
}

# The one release build that build, demo and bench share.
build_release() {
    # shellcheck disable=SC2086
    need $APT_BUILD
    say "building into build/"
    configure build -DCMAKE_BUILD_TYPE=Release -DATTN_BUILD_TESTS=OFF "$@" ||
        die "CMake could not configure build/, see above"
    compile build || die "the build failed, see above"
}

# python_extras: a virtual environment with what only tests need; puts it first in PATH.
python_extras() {
    extras_stamp=build/venv/stamp
    extras_sum=$(cksum <tests/golden/requirements.txt)
    if [ "$(cat $extras_stamp 2>/dev/null)" != "$extras_sum" ]; then
        say "installing through pip into build/venv: $(grep -v '^#' tests/golden/requirements.txt |
            tr '\n' ' ')"
        mkdir -p build
        if ! { python3 -m venv build/venv &&
            build/venv/bin/python -m pip -q --disable-pip-version-check install \
                -r tests/golden/requirements.txt; }; then
            say "that failed: tests that need these packages will be skipped"
            return 0
        fi
        printf '%s\n' "$extras_sum" >$extras_stamp
    fi
    PATH=$PWD/build/venv/bin:$PATH
    export PATH
}

# fetch_model PROGRAM: the default model, into the cache folder, unless it is there.
fetch_model() {
    # shellcheck disable=SC2086
    need $APT_FETCH
    "$1" fetch "$DEFAULT_MODEL"
}
