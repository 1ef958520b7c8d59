# shellcheck shell=sh
build_release "$@"
say "built build/bin/attn, build/lib/libattn.a, build/lib/libattn.so and libattn_lm beside them"
