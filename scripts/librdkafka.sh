#!/usr/bin/env bash
# Builds librdkafka, its own test-runner and its rdkafka_performance, once per machine, and prints the folder.
#
#   FOLDER/tests/test-runner     the suite that `make compat` runs, unmodified (cwd must be FOLDER/tests)
#   FOLDER/rdkafka_performance   the load generator of `make bench`
#
# Sources come from package registries, through their own clients: librdkafka with its tests lies inside the npm
# package @confluentinc/kafka-javascript; the crate rdkafka-sys carries examples/rdkafka_performance.c (and an older
# librdkafka with tests, which is used where there is no npm).
#
# Usage: folder=$(scripts/librdkafka.sh)
set -euo pipefail
cd "$(dirname "$0")/.."

npm_package=@confluentinc/kafka-javascript@1.10.1
npm_version=2.15.1
crate=rdkafka-sys
crate_version=4.10.0
cache=${KLAMM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/klamm}
say() { printf '%s\n' "$*" >&2; }

mkdir -p "$cache"
# The newer one wins; the older is good enough where it cannot be had.
if [ -f "$cache/librdkafka-$npm_version/.complete" ]; then
  echo "$cache/librdkafka-$npm_version"
  exit 0
fi
if ! command -v npm >/dev/null && [ -f "$cache/librdkafka-2.12.1/.complete" ]; then
  echo "$cache/librdkafka-2.12.1"
  exit 0
fi
exec 9>"$cache/.librdkafka.lock"
flock 9

work=$(mktemp -d "$cache/.librdkafka-XXXXXX")
trap 'rm -rf "$work"' EXIT
crate_folder() {
  mkdir -p "$work/crate/src" && : >"$work/crate/src/lib.rs"
  printf '[package]\nname = "x"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = "=%s"\n[workspace]\n' \
    "$crate" "$crate_version" >"$work/crate/Cargo.toml"
  (cd "$work/crate" && cargo metadata --format-version 1) | python3 -c 'import json,sys
for p in json.load(sys.stdin)["packages"]:
    if p["name"] == sys.argv[1]: print(p["manifest_path"].rsplit("/", 1)[0])' "$crate"
}
example=$(crate_folder)/librdkafka
if command -v npm >/dev/null; then
  version=$npm_version
  say "librdkafka $version: taking it from the npm package $npm_package"
  (cd "$work" && npm pack --silent "$npm_package" >/dev/null && tar xzf ./*.tgz)
  source=$work/package/deps/librdkafka
else
  version=2.12.1
  say "librdkafka $version: no npm here, taking the older one of the crate $crate"
  cp -r "$example" "$work/librdkafka"
  chmod -R u+w "$work/librdkafka"
  source=$work/librdkafka
fi
home=$cache/librdkafka-$version
[ -f "$home/.complete" ] && echo "$home" && exit 0

log=$cache/librdkafka-$version.log
say "librdkafka $version: building the library and its tests (about four minutes on two cores; log: $log)"
rm -rf "$home"
mv "$source" "$home"
cp "$example/examples/rdkafka_performance.c" "$home/"
(
  cd "$home"
  chmod +x configure lds-gen.py
  ./configure --enable-zstd
  nice -n 10 make -j"$(nproc)" libs
  nice -n 10 make -j"$(nproc)" -C tests build
  # Makefile.config has what the library was linked with (-lz -lssl -lzstd …).
  libs=$(sed -n 's/^LIBS+*=[ \t]*//p' Makefile.config | tr '\n' ' ')
  # shellcheck disable=SC2086
  cc -O2 -Isrc rdkafka_performance.c src/librdkafka.a -o rdkafka_performance $libs -lpthread -lm -ldl
  find . -name '*.o' -delete
) >"$log" 2>&1 9>&- || {
  tail -30 "$log" >&2
  say "librdkafka $version: did not build; see $log"
  exit 1
}
touch "$home/.complete"
echo "$home"
