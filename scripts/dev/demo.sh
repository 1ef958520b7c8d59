# shellcheck shell=sh
build_release
fetch_model build/bin/attn || die "the model could not be fetched: see the line above"
question=${*:-What is the capital of France?}
say "attn generate \"$question\""
exec build/bin/attn generate "$question"
