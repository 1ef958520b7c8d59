# shellcheck shell=sh
# shellcheck disable=SC2086
# Each target for a while; what it finds is kept beside its corpus in build/fuzz/corpus/<target>.
seconds=${1:-20}
case $seconds in
'' | *[!0-9]*)
    echo "usage: ./dev fuzz [SECONDS]" >&2
    exit 2
    ;;
esac
need $APT_BUILD $APT_FUZZ
say "building the fuzz targets with clang into build/fuzz/"
if ! configure build/fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_BUILD_TYPE=RelWithDebInfo \
    -DATTN_FUZZ=ON -DATTN_SANITIZE=address,undefined -DATTN_BUILD_EXAMPLES=OFF \
    -DATTN_BUILD_CLI=OFF -DATTN_BUILD_TESTS=OFF || ! compile build/fuzz; then
    die "the fuzz targets did not build"
fi
python3 tests/fuzz/make_seeds.py build/fuzz/seeds

bad=0
found=0
for target in build/fuzz/fuzz/fuzz_*; do
    [ -x "$target" ] || continue
    found=$((found + 1))
    name=${target##*/}
    corpus=build/fuzz/corpus/$name
    mkdir -p "$corpus"
    seeds=build/fuzz/seeds/$name
    [ -d "$seeds" ] || seeds=
    say "$name for $seconds s"
    if ! "$target" -max_total_time="$seconds" -rss_limit_mb=2048 -timeout=10 -verbosity=0 \
        -print_final_stats=1 -artifact_prefix="$corpus/crash-" "$corpus" $seeds; then
        say "$name found something: see $corpus/crash-* and run $target on it"
        bad=$((bad + 1))
    fi
done
say "$found fuzz targets, $bad with findings"
[ $bad -eq 0 ]
