# Included by CMake when BoringSSL's project starts (CMAKE_PROJECT_BoringSSL_INCLUDE, tools/boringssl): its 300 small C++
# files spend most of their compilation on the same few headers, which are compiled once instead.
function(precompile)
  target_precompile_headers(crypto PRIVATE <algorithm> <array> <functional> <memory> <optional> <string> <string_view> <utility>
    <vector> <openssl/mem.h> <openssl/span.h> <openssl/x509.h> ${CMAKE_CURRENT_SOURCE_DIR}/crypto/internal.h)
  target_precompile_headers(ssl PRIVATE ${CMAKE_CURRENT_SOURCE_DIR}/ssl/internal.h)
endfunction()
cmake_language(DEFER CALL precompile)
