#!/usr/bin/env bash
# Builds the RocksDB that the crate librocksdb-sys bundles, once per machine, and prints the folder that holds it.
#
# The crate compiles 342 files one by one (12 minutes on two cores). The same sources, unchanged, compile as ten
# concatenated units in two minutes, because parsing headers is most of the work. The result lies in a cache that
# every clone and every cargo profile on this machine finds; the key is crate version, compiler and flags.
# A plain `cargo build` works without this script and is merely slower.
#
# Usage: ROCKSDB_LIB_DIR=$(scripts/rocksdb.sh) ROCKSDB_STATIC=1 cargo build
set -euo pipefail
cd "$(dirname "$0")/.."

units=10
cache=${KLAMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/klamm}
say() { printf '%s\n' "$*" >&2; }

if command -v clang++ >/dev/null; then cxx=clang++; else cxx=g++; fi
case $(uname -m) in
  x86_64) cpu="-march=x86-64-v2 -mpclmul" ;;
  aarch64) cpu="-march=armv8-a+crc+aes+crypto" ;;
  *) cpu="" ;;
esac
flags="-std=c++20 -O2 -fPIC -ffunction-sections -fdata-sections -DNDEBUG -DHAVE_ALIGNED_NEW -DHAVE_UINT128_EXTENSION -DOS_LINUX -DROCKSDB_PLATFORM_POSIX \
-DROCKSDB_LIB_IO_POSIX -DROCKSDB_SCHED_GETCPU_PRESENT -DROCKSDB_AUXV_GETAUXVAL_PRESENT -DROCKSDB_FALLOCATE_PRESENT \
-DROCKSDB_RANGESYNC_PRESENT -include cstdint -w $cpu"

# Filtered by platform: cargo then fetches only the crates that this machine builds.
host=$(rustc -vV | sed -n 's/^host: //p')
crate=$(cargo metadata --format-version 1 --locked --filter-platform "$host" |
  python3 -c 'import json,sys
for p in json.load(sys.stdin)["packages"]:
    if p["name"] == "librocksdb-sys": print(p["version"], p["manifest_path"].rsplit("/", 1)[0])')
version=${crate%% *}
source=${crate#* }
key=$(printf '%s\n' "$version" "$($cxx --version | head -1)" "$flags" | sha256sum | cut -c1-16)
home=$cache/rocksdb/$version-$key
if [ -f "$home/librocksdb.a" ]; then
  echo "$home"
  exit 0
fi

mkdir -p "$cache/rocksdb"
exec 9>"$cache/rocksdb/.lock"
flock 9
if [ -f "$home/librocksdb.a" ]; then
  echo "$home"
  exit 0
fi

say "RocksDB $version: compiling $units units with $cxx (about two minutes on two cores, once per machine)"
work=$cache/rocksdb/.work-$key
rm -rf "$work"
mkdir -p "$work"
files=$(grep -v '^util/build_version.cc$' "$source/rocksdb_lib_sources.txt" | sed "s|^|$source/rocksdb/|")
files="$files
$source/build_version.cc"
# Contiguous slices keep neighbours of one folder together; those share most headers.
count=$(printf '%s\n' "$files" | wc -l)
per=$(((count + units - 1) / units))
printf '%s\n' "$files" | split -l "$per" -d - "$work/list."
for list in "$work"/list.*; do
  sed 's|.*|#include "&"|' "$list" >"$work/unit${list##*.}.cc"
done
jobs=$(nproc)
export cxx flags source work
printf '%s\n' "$work"/unit*.cc | xargs -P "$jobs" -I{} sh -c '
  $cxx $flags -I"$source" -I"$source/rocksdb" -I"$source/rocksdb/include" -c {} -o {}.o &&
  echo "  compiled $(ls "$work"/*.o | wc -l) units" >&2'
ar crs "$work/librocksdb.a" "$work"/*.o
mkdir -p "$home"
mv "$work/librocksdb.a" "$home/"
rm -rf "$work"
say "RocksDB $version: kept in $home"
echo "$home"
