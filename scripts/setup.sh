#!/usr/bin/env bash
# Installs what is missing on this machine for a group of targets, through apt, and nothing that is already there.
#
#   build    what the broker needs to compile (make run, make build)
#   test     what `make test` uses besides: kcat, ZooKeeper and its Java, a word list, Python's venv, what librdkafka is
#            built with
#   cluster  what cuts networks: nft, ip, unshare
#   compat   what the other suites and clients of others need: Maven, npm, a JDK
#
# Usage: scripts/setup.sh [GROUP …]        without a group: build test
set -euo pipefail
say() { printf '%s\n' "$*" >&2; }

# package, then how to tell that it is there already: a command, or a file pattern (it contains a slash).
build="
gcc            cc
g++            c++
make           make
clang          clang++
libclang-dev   /usr/lib/llvm-*/lib/libclang*.so*|/usr/lib/*/libclang*.so*|/usr/lib64/libclang*.so*
python3        python3
"
test="
kcat                   kcat
default-jre-headless   java
zookeeper              /usr/share/java/zookeeper.jar
wamerican              /usr/share/dict/american-english
libsasl2-dev           /usr/include/sasl/sasl.h
libssl-dev             /usr/include/openssl/ssl.h
libzstd-dev            /usr/include/zstd.h
liblz4-dev             /usr/include/lz4.h
libcurl4-openssl-dev   /usr/include/curl/curl.h|/usr/include/*/curl/curl.h
rapidjson-dev          /usr/include/rapidjson/document.h
zlib1g-dev             /usr/include/zlib.h
python3-venv           /usr/lib/python3*/ensurepip/__init__.py|/usr/local/lib/python3*/ensurepip/__init__.py|~/.pyenv/versions/*/lib/python3*/ensurepip/__init__.py
"
compat="
maven                  mvn
npm                    npm
default-jdk-headless   javac
"
cluster="
nftables    nft
iproute2    ip
util-linux  unshare
"

there() {
  case $1 in
    */*)
      local pattern
      # A pattern stands for any file it matches, so it must expand.
      IFS='|'
      for pattern in $1; do
        pattern=${pattern/#\~/$HOME}
        unset IFS
        if compgen -G "$pattern" >/dev/null; then return 0; fi
        IFS='|'
      done
      unset IFS
      return 1
      ;;
    *) command -v "$1" >/dev/null ;;
  esac
}

[ $# -gt 0 ] || set -- build test
missing=()
for group in "$@"; do
  case $group in build | test | compat | cluster) ;; *)
    say "setup: unknown group '$group'"
    exit 1
    ;;
  esac
  while read -r package check; do
    [ -n "$package" ] || continue
    there "$check" || missing+=("$package")
  done <<<"${!group}"
done

if ! command -v cargo >/dev/null; then
  say "setup: there is no cargo here; install a Rust toolchain (rust-version in Cargo.toml says which) first"
  exit 1
fi
[ ${#missing[@]} -gt 0 ] || exit 0

if ! command -v apt-get >/dev/null; then
  say "setup: no apt here; please install by hand what these Debian packages hold: ${missing[*]}"
  exit 1
fi
sudo=()
if [ "$(id -u)" -ne 0 ]; then
  if ! command -v sudo >/dev/null; then
    say "setup: please run as root: apt-get install ${missing[*]}"
    exit 1
  fi
  sudo=(sudo)
fi
say "setup: installing ${missing[*]}"
install() {
  "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}" >&2
}
# The package lists of a fresh machine are empty, those of an old one may be out of date.
install || { "${sudo[@]}" apt-get update >&2 && install; }
