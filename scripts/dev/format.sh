# shellcheck shell=sh
need clang-format git
git ls-files -z --cached --others --exclude-standard '*.c' '*.h' | xargs -0 -r clang-format -i
say "formatted with $(clang-format --version)"
