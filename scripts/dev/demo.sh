# shellcheck shell=sh
build_release
fetch_model build/bin/attn || die "the model could not be fetched: see the line above"
# Without its second sentence the model hesitates between two languages (0.08 nats in exact arithmetic), and
# 8-bit activations may tip it into the other one.
question=${*:-What is the capital of France? Answer in English.}
say "attn generate \"$question\""
exec build/bin/attn generate "$question"
