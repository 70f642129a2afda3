"""Debian's word list (package wamerican) as records, and how to tell that they came back unharmed.

A record is one line `key<TAB>value`; key and value are the word, so that both must survive, and partitions differ.
"""

import hashlib
import pathlib

LISTS = ["/usr/share/dict/american-english", "/usr/share/dict/words"]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def write(path, limit=None):
    """Writes the records to `path`, at most `limit` of them. Returns their number."""
    source = next((name for name in LISTS if pathlib.Path(name).exists()), None)
    if not source:
        raise FileNotFoundError("no word list: scripts/setup.sh test installs wamerican")
    words = pathlib.Path(source).read_text(encoding="utf-8").splitlines()[:limit]
    pathlib.Path(path).write_text("".join(f"{word}\t{word}\n" for word in words), encoding="utf-8")
    return len(words)


def digest(path):
    """Number of lines and a checksum of them, whatever their order: partitions come back in any."""
    lines = sorted(pathlib.Path(path).read_bytes().splitlines())
    return len(lines), hashlib.sha256(b"\n".join(lines)).hexdigest()[:16]
