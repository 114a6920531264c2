# A driver for tests of modules and launches on machines without a GPU; loaded at run time, as the real one is.
add_library(culebra_fake_driver SHARED ${CMAKE_CURRENT_LIST_DIR}/fake_driver.cc ${CMAKE_CURRENT_LIST_DIR}/image.cc)
target_include_directories(culebra_fake_driver PRIVATE native ${CMAKE_CURRENT_LIST_DIR})
target_compile_options(culebra_fake_driver PRIVATE ${warnings})
if(CULEBRA_SANITIZE)
  target_compile_options(culebra_fake_driver PRIVATE -fsanitize=${sanitizers} -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_link_options(culebra_fake_driver PRIVATE -fsanitize=${sanitizers})
endif()
add_dependencies(culebra_tests culebra_fake_driver)
set_property(SOURCE ${CMAKE_CURRENT_SOURCE_DIR}/tests/native/module_test.cc APPEND PROPERTY COMPILE_DEFINITIONS
  "CULEBRA_FAKE_DRIVER=\"$<TARGET_FILE:culebra_fake_driver>\""
  "CULEBRA_AXPY_PTX=\"${CMAKE_CURRENT_SOURCE_DIR}/tests/native/axpy.ptx\""
  "CULEBRA_TRITON_ARTEFACTS=\"${CMAKE_CURRENT_SOURCE_DIR}/native/triton/artefacts\"")
