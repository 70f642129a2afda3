"""Frames as a stranger may send them: requests, batches in which every field may lie, and bombs in every codec."""

import struct
import time
import zlib

from kit import wire

MIB = 1 << 20
NOW = int(time.time() * 1000)


def string(text):
    data = text if isinstance(text, bytes) else text.encode()
    return struct.pack(">h", len(data)) + data


def frame(key, version, body=b"", client=b"\0\7hostile", correlation=1, flexible=False):
    head = struct.pack(">hhi", key, version, correlation) + client + (b"\0" if flexible else b"")
    return struct.pack(">i", len(head) + len(body)) + head + body


METADATA = frame(3, 1, struct.pack(">i", 0))


def varint(n):
    return wire._varint(n)


def record(value, delta=0, key=None):
    body = b"\0" + varint(0) + varint(delta) + (varint(-1) if key is None else varint(len(key)) + key)
    body += varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def batch(records=None, count=1, attributes=0, base=0, last_delta=None, producer=(-1, -1, -1), magic=2, time_ms=NOW, crc=None):
    """A batch in which every field may lie."""
    records = record(b"v") if records is None else records
    last = count - 1 if last_delta is None else last_delta
    body = struct.pack(">hiqqqhii", attributes, last, time_ms, time_ms, *producer, count) + records
    checksum = wire.crc32c(body) if crc is None else crc
    return struct.pack(">qiibI", base, len(body) + 9, -1, magic, checksum) + body


def produce(topic, records, acks=-1, partition=0):
    data = struct.pack(">i", -1) if records is None else struct.pack(">i", len(records)) + records
    body = struct.pack(">hhii", -1, acks, 5000, 1) + string(topic) + struct.pack(">ii", 1, partition) + data
    return body


def endless_record(size):
    """The start of one record whose value has `size` bytes, all of them zero."""
    inner = b"\0" + varint(0) + varint(0) + varint(-1) + varint(size)
    return varint(len(inner) + size + 1) + inner


def gzip_bomb(size):
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    out = [packer.compress(endless_record(size))]
    zeros = bytes(MIB)
    out += [packer.compress(zeros) for _ in range(size // MIB)]
    return b"".join(out) + packer.compress(b"\0") + packer.flush()


def snappy_bomb(size):
    start = endless_record(size)
    pairs = size // 64
    return uvarint(len(start) + 1 + 64 * pairs) + bytes([len(start) << 2]) + start + b"\0" + b"\xfe\1\0" * pairs


def uvarint(n):
    out = bytearray()
    while n >= 0x80:
        out.append(n & 0x7F | 0x80)
        n >>= 7
    return bytes(out + bytes([n]))


def lz4_frame(*blocks, header=b"\x60\x70"):
    """Independent blocks of at most 4 MiB, no checksums but the header's, which is a byte of xxh32."""
    mask = 0xFFFFFFFF
    h = (374761393 + len(header)) & mask
    for byte in header:
        h = (h + byte * 374761393) & mask
        h = ((h << 11 | h >> 21) & mask) * 2654435761 & mask
    h = (h ^ h >> 15) * 2246822519 & mask
    h = (h ^ h >> 13) * 3266489917 & mask
    check = (h ^ h >> 16) >> 8 & 0xFF
    body = b"".join(struct.pack("<I", len(block)) + block for block in blocks)
    return b"\x04\x22\x4d\x18" + header + bytes([check]) + body + bytes(4)


def lz4_bomb(size):
    """Each block: a literal, a match of almost 4 MiB at distance 1, and the five literals that end a block."""
    long = 4 * MIB - 100
    lengths, rest = divmod(long - 19, 255)
    match = b"\x1f\0\1\0" + b"\xff" * lengths + bytes([rest])
    start = endless_record(size)
    first = bytes([0xF0, len(start) - 15]) + start if len(start) >= 15 else bytes([len(start) << 4]) + start
    return lz4_frame(first, *[match + b"\x50" + bytes(5)] * (size // long + 1))


def zstd_block(kind, size, data, last=False):
    return struct.pack("<I", size << 3 | kind << 1 | last)[:3] + data


def zstd_bomb(size, window=0x38):
    start = endless_record(size)
    blocks = [zstd_block(0, len(start), start)]
    blocks += [zstd_block(1, 128 << 10, b"\0")] * (size // (128 << 10))
    return b"\x28\xb5\x2f\xfd\0" + bytes([window]) + b"".join(blocks) + zstd_block(1, 1, b"\0", last=True)


def fetch7(session, epoch, partitions, forgotten=0, wait_ms=0, max_bytes=2**31 - 1):
    body = struct.pack(">iiiibii", -1, wait_ms, 0, max_bytes, 0, session, epoch)
    body += struct.pack(">i", 1) + string("t") + struct.pack(">i", len(partitions))
    body += b"".join(struct.pack(">iqqi", p, o, -1, 2**31 - 1) for p, o in partitions)
    if forgotten:
        body += struct.pack(">i", 1) + string("t") + struct.pack(">i", forgotten) + bytes(4 * forgotten)
    else:
        body += struct.pack(">i", 0)
    return body


def fetch_of(topic, offset, max_bytes=2**31 - 1, wait_ms=1000):
    body = struct.pack(">iiiibi", -1, wait_ms, 1, max_bytes, 0, 1) + string(topic)
    return frame(1, 4, body + struct.pack(">iiqi", 1, 0, offset, max_bytes))


def join(group, version=2, session_ms=10_000, member="", metadata=b"m"):
    body = string(group) + struct.pack(">ii", session_ms, 10_000) + string(member)
    if version >= 5:
        body += struct.pack(">h", -1)
    return body + string("consumer") + struct.pack(">i", 1) + string("range") + struct.pack(">i", len(metadata)) + metadata
