# shellcheck shell=sh
# shellcheck disable=SC2086 # package lists are words
need $APT_BUILD $APT_FETCH $APT_TEST $APT_LINT $APT_FUZZ $APT_DOCS
python_extras
say "everything that ./dev needs is installed"
