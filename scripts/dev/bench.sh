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
if [ -f bench/shapes/default.txt ]; then
    build/bin/attn bench sdpa --shapes bench/shapes/default.txt
else
    build/bin/attn bench sdpa 1x16x2048x64 1x8x2048x128 1x32/8x1,4096x128
fi
if fetch_model build/bin/attn; then
    say "attn bench lm"
    build/bin/attn bench lm --prompt 512 --generate 128
fi
if [ -n "$peers" ]; then
    if [ ! -x bench/peers/run ]; then
        die "bench/peers/run is missing"
    fi
    exec bench/peers/run
fi
