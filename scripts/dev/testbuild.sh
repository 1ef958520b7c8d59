# shellcheck shell=sh
# The build that test and lint share: warnings are errors, and unit tests and examples link the shared
# libraries, so that they see exported names alone.
build_for_tests() {
    configure build/test -DCMAKE_BUILD_TYPE=Release -DATTN_WERROR=ON -DATTN_LINK_SHARED=ON \
        -DATTN_BUILD_TESTS=ON && compile build/test
}
