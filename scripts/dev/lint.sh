# shellcheck shell=sh
# shellcheck disable=SC2086
# What a reviewer should not have to look for. Every check runs, then the verdict.
need $APT_BUILD $APT_TEST $APT_LINT
bad=

# check NAME COMMAND...: run it, remember its name when it fails.
check() {
    check_name=$1
    shift
    say "$check_name"
    "$@" || bad="$bad, $check_name"
}

sources() {
    git ls-files -z --cached --others --exclude-standard "$@"
}

clang_format() {
    sources '*.c' '*.h' | xargs -0 -r clang-format --dry-run -Werror
}

shell_check() {
    { sources dev .ci/run '*.sh'; grep -lsZ '^#!/bin/sh' scripts/check_* bench/peers/*; } |
        sort -zu | xargs -0 -r shellcheck
}

cpp_check() {
    cppcheck --quiet --std=c11 --enable=warning,portability --inline-suppr --error-exitcode=1 \
        --suppress=missingIncludeSystem --suppress=negativeIndex -j "$JOBS" -I include -I src \
        src examples
}

# Not the kernels: an intrinsic per line tells the analyser nothing and takes it minutes. Not the definition
# of attn_fail(), which scripts/clang_tidy.h makes a macro of.
clang_tidy() {
    sources 'src/*.c' | grep -zvE '^src/(kernels/|base/status\.c)' |
        xargs -0 -r -n 4 -P "$JOBS" clang-tidy --quiet -p build/test --extra-arg=-D_GNU_SOURCE= \
            --extra-arg=-include --extra-arg="$PWD/scripts/clang_tidy.h" 2>build/test/clang-tidy.log
}

clang_build() {
    configure build/clang -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=Release -DATTN_WERROR=ON &&
        compile build/clang
}

say "configuring and building with warnings as errors into build/test/"
. scripts/dev/testbuild.sh
build_for_tests || die "the build failed"

check "clang, warnings as errors" clang_build
check "clang-format" clang_format
check "shellcheck" shell_check
check "who may include whom" python3 scripts/check_includes
check "exported names" sh scripts/check_symbols build/test
check "headers alone, as C11 and C++17" sh scripts/check_headers
check "cppcheck" cpp_check
check "clang-tidy" clang_tidy
[ -z "$bad" ] || die "failed: ${bad#, }"
say "lint is clean"
