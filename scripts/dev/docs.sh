# shellcheck shell=sh
# shellcheck disable=SC2086
need $APT_DOCS
bad=0
for page in docs/man/*.1; do
    [ -e "$page" ] || continue
    mandoc -T lint -W warning "$page" || bad=1
done
python3 scripts/check_links || bad=1
[ $bad -eq 0 ] || die "the documents have faults, see above"
say "man pages and links are in order"
