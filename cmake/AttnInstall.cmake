# cmake --install: headers, both libraries, the program, its man page, pkg-config files and the CMake
# package: find_package(attn) gives attn::attn and, where libattn_lm was built, attn::lm (shared), and
# the same with _static.
if(NOT TARGET attn_shared)
  return()
endif()
include(CMakePackageConfigHelpers)

set(lm_headers generate.h gguf.h lm.h model.h model_file.h safetensors.h sampler.h tensor.h tokenizer.h tokenizer_train.h)
set(exclude)
set(targets attn_static attn_shared)
if(TARGET attn_lm_shared)
  list(APPEND targets attn_lm_static attn_lm_shared)
else()
  foreach(header ${lm_headers})
    list(APPEND exclude PATTERN ${header} EXCLUDE)
  endforeach()
endif()
install(DIRECTORY include/attn DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} FILES_MATCHING PATTERN *.h
        ${exclude})

# Static libraries name what they need themselves: the exported package repeats it for CMake, the .pc
# files in their private fields for pkg-config.
install(TARGETS ${targets} EXPORT attnTargets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR}
        LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
install(EXPORT attnTargets NAMESPACE attn:: DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/attn)
configure_package_config_file(
  cmake/attnConfig.cmake.in ${PROJECT_BINARY_DIR}/attnConfig.cmake
  INSTALL_DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/attn)
write_basic_package_version_file(${PROJECT_BINARY_DIR}/attnConfigVersion.cmake
                                 COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/attnConfig.cmake ${PROJECT_BINARY_DIR}/attnConfigVersion.cmake
        DESTINATION ${CMAKE_INSTALL_LIBDIR}/cmake/attn)

# Where pkg-config finds the prefix: relative to the .pc file when the folders are relative, so that
# an installed tree can be moved.
set(ATTN_PC_PREFIX ${CMAKE_INSTALL_PREFIX})
set(ATTN_PC_LIBDIR ${CMAKE_INSTALL_FULL_LIBDIR})
set(ATTN_PC_INCLUDEDIR ${CMAKE_INSTALL_FULL_INCLUDEDIR})
if(NOT IS_ABSOLUTE "${CMAKE_INSTALL_LIBDIR}" AND NOT IS_ABSOLUTE "${CMAKE_INSTALL_INCLUDEDIR}")
  file(RELATIVE_PATH up "/${CMAKE_INSTALL_LIBDIR}/pkgconfig" "/")
  string(REGEX REPLACE "/$" "" up "${up}")
  set(ATTN_PC_PREFIX "\${pcfiledir}/${up}")
  set(ATTN_PC_LIBDIR "\${prefix}/${CMAKE_INSTALL_LIBDIR}")
  set(ATTN_PC_INCLUDEDIR "\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}")
endif()
set(pc attn)
if(TARGET attn_lm_shared)
  list(APPEND pc attn_lm)
endif()
foreach(name ${pc})
  configure_file(cmake/${name}.pc.in ${PROJECT_BINARY_DIR}/${name}.pc @ONLY)
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
endforeach()

if(TARGET attn_program)
  install(TARGETS attn_program RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
  if(EXISTS ${PROJECT_SOURCE_DIR}/docs/man/attn.1)
    install(FILES docs/man/attn.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
  endif()
endif()
install(FILES LICENSE README.md DESTINATION ${CMAKE_INSTALL_DOCDIR} OPTIONAL)
