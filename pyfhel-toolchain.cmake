# Read by CMake while pip builds pyfhel (CMAKE_TOOLCHAIN_FILE, see the Makefile): SEAL as pyfhel 3.5 ships it
# clones Microsoft GSL, zlib and zstd over the network in the middle of a build. None is needed to encrypt;
# without them the build uses nothing but the source distribution whose hash pip checked.
set(SEAL_BUILD_DEPS OFF CACHE BOOL "" FORCE)
set(SEAL_USE_MSGSL OFF CACHE BOOL "" FORCE)
set(SEAL_USE_ZLIB OFF CACHE BOOL "" FORCE)
set(SEAL_USE_ZSTD OFF CACHE BOOL "" FORCE)
