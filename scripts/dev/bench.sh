# shellcheck shell=sh
# Speed of attention and of the default model; with --peers beside other programs on this machine.
peers=
for argument; do
    case $argument in
    --peers) peers=yes ;;
    *)
        echo "usage: ./dev bench [--peers]" >&2
        exit 2
        ;;
    esac
done

build_release
say "attn bench sdpa"
build/bin/attn bench sdpa 1x16x2048x64 1x8x2048x128 1x32/8x1,4096x128
say "attn bench sdpa --causal"
build/bin/attn bench sdpa --causal 1x16x2048x64 1x8x2048x128

fetch_model build/bin/attn || die "the model could not be fetched: see the line above"
say "attn bench lm"
build/bin/attn bench lm "$DEFAULT_MODEL_FILE" --prompt 512 --generate 128
[ -n "$peers" ] || exit 0

# shellcheck disable=SC2086
need g++ $APT_TEST
say "building the peers into build/peers-venv: see bench/peers/README.md"
bench/peers/setup --jobs "$JOBS"
for depth in 0 4096; do
    say "attn and llama.cpp, $depth tokens in the cache"
    build/peers-venv/bin/python bench/peers/lm_compare.py "$DEFAULT_MODEL_FILE" --depth $depth
done
