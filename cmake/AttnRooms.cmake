# The words that the CMakeLists.txt of the rooms are written in. An empty list is never an error:
# what has no sources yet is not created.

# Flags and definitions that every target of ours gets.
function(attn_target_defaults target)
  target_compile_options(${target} PRIVATE ${ATTN_C_FLAGS})
  target_compile_definitions(${target} PRIVATE ${ATTN_C_DEFINITIONS})
  target_link_options(${target} PRIVATE ${ATTN_LINK_FLAGS})
endfunction()

# attn_room(NAME SOURCES file…): one room of libattn, compiled once as an object library. Its files
# include each other as "room/file.h".
function(attn_room name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES")
  if(NOT arg_SOURCES)
    return()
  endif()
  add_library(${name} OBJECT ${arg_SOURCES})
  attn_target_defaults(${name})
  target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/include
                                             ${PROJECT_SOURCE_DIR}/src)
  set_property(GLOBAL APPEND PROPERTY ATTN_ROOMS ${name})
endfunction()

# attn_kernel(FAMILY name FILES file…): files of src/kernels/<name>/. The end of a file's name says
# its ISA level and with it its flags; levels that this machine type lacks are left out.
function(attn_kernel)
  cmake_parse_arguments(PARSE_ARGV 0 arg "" "FAMILY" "FILES")
  foreach(file ${arg_FILES})
    set(path ${CMAKE_CURRENT_SOURCE_DIR}/${arg_FAMILY}/${file})
    set(flags -fno-lto ${ATTN_KERNEL_FLAGS})
    string(REGEX MATCH "_(avx2|avx512|avx512vnni|avx512bf16|amx|neon|neonbf16|sve)\\.c$" _ ${file})
    if(CMAKE_MATCH_1)
      if(NOT CMAKE_MATCH_1 IN_LIST ATTN_LEVELS)
        continue()
      endif()
      list(APPEND flags ${ATTN_FLAGS_${CMAKE_MATCH_1}})
    endif()
    set_source_files_properties(${path} PROPERTIES COMPILE_OPTIONS "${flags}")
    set_property(GLOBAL APPEND PROPERTY ATTN_KERNEL_FILES ${path})
  endforeach()
endfunction()

# What unit tests, examples and benches link: the static libraries, or with ATTN_LINK_SHARED the
# shared ones, which show them nothing but the exported names.
if(ATTN_LINK_SHARED)
  set(ATTN_LIB attn_shared)
  set(ATTN_LM_LIB attn_lm_shared)
else()
  set(ATTN_LIB attn_static)
  set(ATTN_LM_LIB attn_lm_static)
endif()

# attn_program(NAME SOURCES file… [LM] [DIR subdir] [LIBS lib…]): a program that sees public headers
# only. Not created when the library it needs is not there.
function(attn_program name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "LM" "DIR" "SOURCES;LIBS")
  set(lib ${ATTN_LIB})
  if(arg_LM)
    set(lib ${ATTN_LM_LIB} ${ATTN_LIB})
  endif()
  foreach(l ${lib})
    if(NOT TARGET ${l})
      return()
    endif()
  endforeach()
  add_executable(${name} ${arg_SOURCES})
  attn_target_defaults(${name})
  target_link_libraries(${name} PRIVATE ${lib} ${arg_LIBS} m Threads::Threads)
  if(arg_DIR)
    set_target_properties(${name} PROPERTIES RUNTIME_OUTPUT_DIRECTORY
                                             ${PROJECT_BINARY_DIR}/${arg_DIR})
  endif()
endfunction()

# attn_example(01_sdpa [LM] [ARGS arg…]): examples/01_sdpa.c, built, and run as a test.
function(attn_example name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "LM" "" "ARGS")
  set(lm)
  if(arg_LM)
    set(lm LM)
  endif()
  attn_program(example_${name} ${lm} DIR examples SOURCES ${name}.c)
  if(NOT TARGET example_${name})
    return()
  endif()
  set_target_properties(example_${name} PROPERTIES OUTPUT_NAME ${name})
  if(ATTN_BUILD_TESTS)
    add_test(NAME example_${name} COMMAND example_${name} ${arg_ARGS})
    set_tests_properties(example_${name} PROPERTIES LABELS example TIMEOUT 120)
  endif()
endfunction()

# What all time limits of tests go times: 5 under sanitizers, and $ATTN_TEST_PATIENCE, as it is at
# configuration, on a slow or busy machine.
function(attn_test_patience result)
  set(patience 1)
  if("$ENV{ATTN_TEST_PATIENCE}" MATCHES "^[1-9][0-9]?$")
    set(patience $ENV{ATTN_TEST_PATIENCE})
  endif()
  if(ATTN_SANITIZE)
    math(EXPR patience "5 * ${patience}")
  endif()
  set(${result} ${patience} PARENT_SCOPE)
endfunction()

# attn_unit_test(test_view [LM] [SOURCES file…] [ARGS arg…] [LIBS lib…] [TIMEOUT s] [LABELS l…]):
# a cmocka program of public headers and tests/unit's own helpers, default source <name>.c.
function(attn_unit_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "LM" "TIMEOUT" "SOURCES;ARGS;LIBS;LABELS")
  if(NOT arg_SOURCES)
    set(arg_SOURCES ${name}.c)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  attn_test_patience(patience)
  math(EXPR arg_TIMEOUT "${patience} * ${arg_TIMEOUT}")
  set(lm)
  if(arg_LM)
    set(lm LM)
  endif()
  attn_program(${name} ${lm} DIR tests SOURCES ${arg_SOURCES}
               LIBS ${arg_LIBS} attn_test_common ${ATTN_CMOCKA})
  if(NOT TARGET ${name})
    return()
  endif()
  add_test(NAME ${name} COMMAND ${name} ${arg_ARGS})
  set_tests_properties(${name} PROPERTIES LABELS "unit;${arg_LABELS}" TIMEOUT ${arg_TIMEOUT}
                                          SKIP_RETURN_CODE 77)
endfunction()

# attn_script_test(NAME COMMAND word… [LABELS l…] [TIMEOUT s] [LM]): a script under CTest. It finds
# the program in $ATTN_PROGRAM, libraries in $ATTN_LIB_DIR and the sources in $ATTN_SOURCE_DIR; its own time
# limits go times $ATTN_TEST_PATIENCE (attn_test_patience says how much); exit code 77 means skipped. LM: only
# when the attn program is built.
function(attn_script_test name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "LM" "TIMEOUT" "COMMAND;LABELS")
  if(arg_LM AND NOT TARGET attn_program)
    return()
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  attn_test_patience(patience)
  math(EXPR arg_TIMEOUT "${patience} * ${arg_TIMEOUT}")
  add_test(NAME ${name} COMMAND ${arg_COMMAND} WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  set_tests_properties(
    ${name}
    PROPERTIES LABELS "${arg_LABELS}"
               TIMEOUT ${arg_TIMEOUT}
               SKIP_RETURN_CODE 77
               ENVIRONMENT
               "ATTN_PROGRAM=${PROJECT_BINARY_DIR}/bin/attn;ATTN_LIB_DIR=${PROJECT_BINARY_DIR}/lib;ATTN_SOURCE_DIR=${PROJECT_SOURCE_DIR};ATTN_TEST_PATIENCE=${patience}"
  )
endfunction()

# attn_fuzz(fuzz_gguf [LM]): a libFuzzer target, tests/fuzz/<name>.c. Like the kernel runner it may reach
# behind the public headers.
function(attn_fuzz name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "LM" "" "")
  set(lm)
  if(arg_LM)
    set(lm LM)
  endif()
  attn_program(${name} ${lm} DIR fuzz SOURCES ${name}.c)
  if(TARGET ${name})
    target_include_directories(${name} PRIVATE ${PROJECT_SOURCE_DIR}/src)
    target_link_options(${name} PRIVATE -fsanitize=fuzzer)
  endif()
endfunction()

# A library found by pkg-config, or an error that names the package to install.
function(attn_need target module package)
  find_package(PkgConfig REQUIRED)
  if(TARGET PkgConfig::${target})
    return()
  endif()
  pkg_check_modules(${target} QUIET IMPORTED_TARGET GLOBAL ${module})
  if(NOT ${target}_FOUND)
    message(FATAL_ERROR "attn needs ${module}: install ${package} (./dev setup does), "
                        "or configure with -DATTN_BUILD_LM=OFF for libattn alone")
  endif()
endfunction()

# attn_lm_room(NAME SOURCES file… [LIBS lib…]): one room of libattn_lm, compiled once as an object
# library. LIBS are third parties that its files include.
function(attn_lm_room name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "SOURCES;LIBS")
  if(NOT arg_SOURCES OR NOT TARGET attn_static)
    return()
  endif()
  add_library(attn_${name}_objects OBJECT ${arg_SOURCES})
  attn_target_defaults(attn_${name}_objects)
  target_include_directories(attn_${name}_objects PRIVATE ${PROJECT_SOURCE_DIR}/include
                                                          ${PROJECT_SOURCE_DIR}/src)
  target_link_libraries(attn_${name}_objects PRIVATE ${arg_LIBS})
  set_property(GLOBAL APPEND PROPERTY ATTN_LM_ROOMS attn_${name}_objects)
endfunction()

# attn_lm_library(): the rooms of libattn_lm become libattn_lm.a and libattn_lm.so, when there are any.
function(attn_lm_library)
  get_property(rooms GLOBAL PROPERTY ATTN_LM_ROOMS)
  if(NOT rooms)
    return()
  endif()
  set(objects)
  foreach(room ${rooms})
    list(APPEND objects $<TARGET_OBJECTS:${room}>)
  endforeach()
  set(others PkgConfig::JANSSON PkgConfig::PCRE2 PkgConfig::UTF8PROC)
  add_library(attn_lm_static STATIC ${objects})
  add_library(attn_lm_shared SHARED ${objects})
  target_link_libraries(attn_lm_static PUBLIC attn_static PRIVATE ${others} m)
  target_link_libraries(attn_lm_shared PUBLIC attn_shared PRIVATE ${others} m)
  foreach(lib attn_lm_static attn_lm_shared)
    set_target_properties(${lib} PROPERTIES OUTPUT_NAME attn_lm LINKER_LANGUAGE C)
    target_link_options(${lib} PRIVATE ${ATTN_LINK_FLAGS})
  endforeach()
  set_target_properties(attn_lm_shared PROPERTIES VERSION ${PROJECT_VERSION}
                                                  SOVERSION ${PROJECT_VERSION_MAJOR}
                                                  EXPORT_NAME lm
                                                  INSTALL_RPATH "$ORIGIN")
  set_target_properties(attn_lm_static PROPERTIES EXPORT_NAME lm_static)
  add_library(attn::lm ALIAS attn_lm_shared)
endfunction()

# attn_cli_program(file…): build/bin/attn, linked with the static libraries so that the file alone
# can be copied about.
function(attn_cli_program)
  if(NOT ARGN)
    return()
  endif()
  attn_need(JANSSON jansson libjansson-dev)
  attn_need(ZLIB zlib zlib1g-dev)
  add_executable(attn_program ${ARGN})
  attn_target_defaults(attn_program)
  target_link_libraries(attn_program PRIVATE attn_lm_static attn_static PkgConfig::JANSSON
                                             PkgConfig::ZLIB m)
  set_target_properties(attn_program PROPERTIES OUTPUT_NAME attn)
  target_compile_definitions(attn_program PRIVATE ATTN_PROGRAM_VERSION="${PROJECT_VERSION}")
endfunction()
