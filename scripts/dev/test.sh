# shellcheck shell=sh
# shellcheck disable=SC2086
# The tests. The last line is "N passed, N failed".
full=
for argument; do
    case $argument in
    --full) full=yes ;;
    *)
        echo "usage: ./dev test [--full]" >&2
        exit 2
        ;;
    esac
done

passed=0
failed=0
skipped=0
ctest_prefix=

# verdict: the counts, and the exit status that goes with them.
verdict() {
    [ $skipped -eq 0 ] || say "$skipped skipped, each named above with what it lacks"
    echo "$passed passed, $failed failed"
    [ $failed -eq 0 ] || exit 1
    exit 0
}

# testcases REPORT PATTERN: how many tests of CTest's JUnit report look so.
testcases() {
    grep -c "^[[:space:]]*<$2" "$1" || true
}

# why_skipped REPORT: each skipped test with the last line it printed.
why_skipped() {
    awk '/^[[:space:]]*<testcase / { split($0, part, "\""); name = part[2]; skip = 0 }
        /^[[:space:]]*<skipped message="SKIP_/ { skip = 1; last = "" }
        skip && /<\/?system-out>/ { gsub(/^.*<system-out>|<\/system-out>.*$/, "") }
        skip { gsub(/&quot;/, "\""); gsub(/&apos;/, "\047"); gsub(/&amp;/, "\\&") }
        skip && /[^[:space:]]/ && !/^[[:space:]]*<[a-z\/]/ { last = $0 }
        skip && /<\/testcase>/ { print "dev: skipped " name ": " last }' "$1"
}

# run_tests TITLE DIR [CTEST...]: one pass of CTest, added to the counts.
run_tests() {
    run_title=$1
    run_dir=$2
    shift 2
    run_report=$PWD/$run_dir/report.xml
    rm -f "$run_report"
    say "$run_title"
    run_start=$(date +%s)
    $ctest_prefix ctest --test-dir "$run_dir" -j "$JOBS" --output-on-failure --no-tests=ignore \
        --output-junit "$run_report" "$@" || true
    if [ ! -s "$run_report" ]; then
        say "CTest left no report for: $run_title"
        failed=$((failed + 1))
        return 0
    fi
    run_total=$(testcases "$run_report" "testcase ")
    run_passed=$(testcases "$run_report" 'testcase .* status="run">')
    run_skipped=$(testcases "$run_report" 'skipped message="SKIP_')
    # What could not be started at all counts as failed.
    run_failed=$((run_total - run_passed - run_skipped))
    passed=$((passed + run_passed))
    failed=$((failed + run_failed))
    skipped=$((skipped + run_skipped))
    why_skipped "$run_report"
    say "$run_title: $run_passed passed, $run_failed failed, $run_skipped skipped" \
        "in $(($(date +%s) - run_start)) s"
}

# broken WHAT: a step before the tests failed; that is a failure too.
broken() {
    say "$1 failed"
    failed=$((failed + 1))
}

# levels_here: the levels that this machine has kernels for, best first, under the cap of ATTN_ISA.
levels_here() {
    levels_flags=" $(sed -n 's/^flags[[:space:]]*: //p; s/^Features[[:space:]]*: //p' /proc/cpuinfo |
        head -n 1) "
    levels=" c "
    case $levels_flags in *' asimd '*) levels=" neon$levels" ;; esac
    case $levels_flags in *' avx2 '*) levels=" avx2$levels" ;; esac
    case $levels_flags in *' avx512bw '*) levels=" avx512$levels" ;; esac
    case $levels_flags in *' avx512_vnni '*) levels=" avx512vnni$levels" ;; esac
    case $levels in
    *" ${ATTN_ISA:-none} "*) levels="$ATTN_ISA ${levels#*" $ATTN_ISA "}" ;;
    esac
    echo $levels
}

need $APT_BUILD $APT_TEST
python_extras
. scripts/dev/testbuild.sh
say "building with warnings as errors into build/test/"
if ! build_for_tests; then
    broken "the build"
    verdict
fi
fetch_model build/test/bin/attn ||
    say "the model could not be fetched: tests that need it will be skipped"

# Best level: everything. Lower levels: a tenth of the random cases (ATTN_TEST_FRACTION divides them),
# no training (label "learn"), and nothing that no kernel takes part in, or little beyond what the rest shows.
levels=$(levels_here)
best=${levels%% *}
if [ -n "$full" ]; then
    run_tests "everything at the best level ($best)" build/test
else
    run_tests "everything at the best level ($best)" build/test -LE full
fi
if [ -n "$full" ]; then
    fraction=1
    leave_out='house|install|learn|full'
else
    fraction=10
    leave_out='house|install|cli|files|learn|full'
fi
export ATTN_TEST_FRACTION=$fraction
cap=${ATTN_ISA-}
for level in $levels; do
    [ "$level" = "$best" ] && continue
    export ATTN_ISA="$level"
    run_tests "level $level, 1/$fraction of the random cases" build/test -LE "$leave_out"
done
unset ATTN_ISA
[ -z "$cap" ] || export ATTN_ISA="$cap"

# Sanitizers: a sensible subset, or with --full all that does not need the model's speed. Warnings are no errors
# here: the checks that are woven in make GCC see conversions that nobody wrote.
if [ -n "$full" ]; then
    fraction=4
    leave_out='house|install|model|learn|full'
else
    fraction=50
    leave_out='house|install|model|cli|slow|learn|full'
fi
export ATTN_TEST_FRACTION=$fraction
export ASAN_OPTIONS="${ASAN_OPTIONS:-detect_leaks=1:allocator_may_return_null=1}"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:-print_stacktrace=1}"
say "building with the address and undefined-behaviour sanitizers into build/asan-ubsan/"
if cmake --preset asan-ubsan -DATTN_WERROR=OFF >/dev/null && compile build/asan-ubsan; then
    run_tests "ASan and UBSan, 1/$fraction of the random cases" build/asan-ubsan \
        -LE "$leave_out"
else
    broken "the sanitizer build"
fi
if [ -n "$full" ]; then
    say "building with the thread sanitizer into build/tsan/"
    if cmake --preset tsan -DATTN_WERROR=OFF >/dev/null && compile build/tsan; then
        # GCC 12's thread sanitizer cannot start where addresses are randomised by more than 28 bits.
        ! setarch "$(uname -m)" -R true 2>/dev/null || ctest_prefix="setarch $(uname -m) -R"
        run_tests "TSan, 1/$fraction of the random cases" build/tsan \
            -LE "$leave_out"
    else
        broken "the thread sanitizer build"
    fi
fi
verdict
