# What `cmake --install` puts below a prefix, which may be moved as a whole afterwards.
include(CMakePackageConfigHelpers)

install(TARGETS contexture_library EXPORT contexture-targets)
install(TARGETS contexture_reference_backend LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
if(TARGET contexture_mpi)
  install(TARGETS contexture_mpi LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR})
endif()
if(CONTEXTURE_PROGRAM)
  install(TARGETS contexture contexture_llm_generate)
endif()
install(DIRECTORY ${PROJECT_SOURCE_DIR}/include/contexture DESTINATION ${CMAKE_INSTALL_INCLUDEDIR})
install(DIRECTORY ${PROJECT_SOURCE_DIR}/models/ DESTINATION ${CMAKE_INSTALL_DATADIR}/contexture/models)

# find_package(Contexture) and contexture::contexture.
set(package ${CMAKE_INSTALL_LIBDIR}/cmake/Contexture)
install(EXPORT contexture-targets NAMESPACE contexture:: FILE ContextureTargets.cmake DESTINATION ${package})
get_target_property(library_type contexture_library TYPE)
configure_package_config_file(${PROJECT_SOURCE_DIR}/cmake/ContextureConfig.cmake.in
                              ${PROJECT_BINARY_DIR}/ContextureConfig.cmake INSTALL_DESTINATION ${package})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/ContextureConfigVersion.cmake COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/ContextureConfig.cmake ${PROJECT_BINARY_DIR}/ContextureConfigVersion.cmake
        DESTINATION ${package})

# pkg-config contexture.
set(from_package ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig)
file(RELATIVE_PATH prefix_from_package ${from_package} ${CMAKE_INSTALL_PREFIX})
configure_file(${PROJECT_SOURCE_DIR}/cmake/contexture.pc.in ${PROJECT_BINARY_DIR}/contexture.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/contexture.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)
