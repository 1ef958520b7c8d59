# The rooms become libattn.a and libattn.so: libc, libm and threads, nothing else.
get_property(rooms GLOBAL PROPERTY ATTN_ROOMS)
set(objects)
foreach(room ${rooms})
  list(APPEND objects $<TARGET_OBJECTS:${room}>)
endforeach()
if(NOT rooms)
  message(STATUS "attn: no room has sources yet, libattn is not built")
  return()
endif()

add_library(attn_static STATIC ${objects})
add_library(attn_shared SHARED ${objects})
target_link_libraries(attn_static PUBLIC Threads::Threads m)
target_link_libraries(attn_shared PRIVATE Threads::Threads m)
foreach(lib attn_static attn_shared)
  target_include_directories(
    ${lib} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}/include>
                  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  set_target_properties(${lib} PROPERTIES OUTPUT_NAME attn LINKER_LANGUAGE C)
  target_link_options(${lib} PRIVATE ${ATTN_LINK_FLAGS})
endforeach()
set_target_properties(attn_shared PROPERTIES VERSION ${PROJECT_VERSION}
                                             SOVERSION ${PROJECT_VERSION_MAJOR}
                                             EXPORT_NAME attn)
add_library(attn::attn ALIAS attn_shared)
add_library(attn::attn_static ALIAS attn_static)
