"""A raw Kafka client of a few requests, in plain Python: for measurements and faults where a stock client's own waits,
retries and threads would be in the way. Versions are fixed: ApiVersions 0, Metadata 1, Produce 3, Fetch 4,
ListOffsets 1, FindCoordinator 0, CreateTopics 2, InitProducerId 0."""

import socket
import struct


def _crc32c_table():
    table = []
    for n in range(256):
        for _ in range(8):
            n = (n >> 1) ^ 0x82F63B78 if n & 1 else n >> 1
        table.append(n)
    return table


_TABLE = _crc32c_table()


def crc32c(data):
    """CRC-32C of some bytes; slow, meant for small batches."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _TABLE[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    return crc ^ 0xFFFFFFFF


def _varint(n):
    n = (n << 1) ^ (n >> 63)
    n &= (1 << 64) - 1
    out = bytearray()
    while True:
        if n < 0x80:
            out.append(n)
            return bytes(out)
        out.append(n & 0x7F | 0x80)
        n >>= 7


def batch(values, timestamp, producer=(-1, -1, -1)):
    """A v2 record batch of keyless values. `producer`: id, epoch, base sequence."""
    records = b""
    for i, value in enumerate(values):
        record = b"\0" + _varint(0) + _varint(i) + _varint(-1) + _varint(len(value)) + value + _varint(0)
        records += _varint(len(record)) + record
    n = len(values)
    body = struct.pack(">hiqqqhii", 0, n - 1, timestamp, timestamp, *producer, n) + records
    return struct.pack(">qiibI", 0, len(body) + 9, -1, 2, crc32c(body)) + body


def string(text):
    """A string field: its length in two bytes, then UTF-8."""
    data = text.encode()
    return struct.pack(">h", len(data)) + data


class Reader:
    """Reads fields of a response in order."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        values = struct.unpack_from(">" + form, self.data, self.at)
        self.at += struct.calcsize(">" + form)
        return values[0] if len(values) == 1 else values

    def string(self):
        n = self.take("h")
        self.at += max(n, 0)
        return None if n < 0 else self.data[self.at - n : self.at].decode()

    def bytes(self):
        n = self.take("i")
        self.at += max(n, 0)
        return b"" if n < 0 else self.data[self.at - n : self.at]

    def array(self, element):
        return [element(self) for _ in range(max(self.take("i"), 0))]


class Client:
    """One connection; one request at a time, unless `send` and `receive` are called apart."""

    def __init__(self, port, timeout=30.0, host="127.0.0.1", client_id="klamm-compat"):
        self.client_id = client_id
        self.socket = socket.create_connection((host, port), timeout=timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.correlation = self.received = 0

    def close(self):
        self.socket.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _exactly(self, n):
        parts = bytearray()
        while len(parts) < n:
            part = self.socket.recv(n - len(parts))
            if not part:
                raise ConnectionError("closed by the broker")
            parts += part
        return bytes(parts)

    def call(self, key, version, body):
        """Sends one request and reads its response's body."""
        self.send(key, version, body)
        return self.receive()

    def send(self, key, version, body):
        """Sends a request whose response is received later."""
        self.correlation += 1
        frame = struct.pack(">hhi", key, version, self.correlation) + string(self.client_id) + body
        self.socket.sendall(struct.pack(">i", len(frame)) + frame)

    def receive(self):
        """The body of the next response, which answers the oldest request that was sent."""
        self.received += 1
        response = self._exactly(struct.unpack(">i", self._exactly(4))[0])
        assert struct.unpack(">i", response[:4])[0] == self.received, "a reply out of order"
        return Reader(response[4:])

    def metadata(self, topics=None):
        """(brokers, {topic: (error, {partition: (error, leader)})}); topics None asks for all."""
        names = struct.pack(">i", -1) if topics is None else struct.pack(">i", len(topics)) + b"".join(map(string, topics))
        r = self.call(3, 1, names)
        brokers = r.array(lambda r: (r.take("i"), r.string(), r.take("i"), r.string()))
        r.take("i")

        def partition(r):
            error, index, leader = r.take("hii")
            r.array(lambda r: r.take("i"))
            r.array(lambda r: r.take("i"))
            return index, (error, leader)

        def topic(r):
            error = r.take("h")
            name = r.string()
            r.take("b")
            return name, (error, dict(r.array(partition)))

        return brokers, dict(r.array(topic))

    def create_topic(self, name, partitions, timeout_ms=60000, configs=None):
        """Error code of the creation."""
        configs = configs or {}
        one = string(name) + struct.pack(">ih", partitions, 1) + struct.pack(">i", 0) + struct.pack(">i", len(configs))
        one += b"".join(string(k) + string(v) for k, v in configs.items())
        r = self.call(19, 2, struct.pack(">i", 1) + one + struct.pack(">i", timeout_ms) + b"\0")
        r.take("i")
        return r.array(lambda r: (r.string(), r.take("h"), r.string()))[0][1]

    def delete_topic(self, name, timeout_ms=10_000):
        """Error code of the deletion."""
        r = self.call(20, 1, struct.pack(">i", 1) + string(name) + struct.pack(">i", timeout_ms))
        r.take("i")
        return r.array(lambda r: (r.string(), r.take("h"))[1])[0]

    def produce(self, topic, batches, acks=-1, timeout_ms=30000):
        """batches: {partition: bytes}. {partition: (error, base offset)}."""
        data = b"".join(struct.pack(">ii", p, len(b)) + b for p, b in batches.items())
        body = struct.pack(">hhii", -1, acks, timeout_ms, 1) + string(topic) + struct.pack(">i", len(batches)) + data
        r = self.call(0, 3, body)

        def partition(r):
            index, error, base, _time = r.take("ihqq")
            return index, (error, base)

        answer = r.array(lambda r: (r.string(), dict(r.array(partition))))
        return answer[0][1]

    def list_offsets(self, topic, partitions, timestamp):
        """{partition: (error, offset)}; timestamp −1 is the end, −2 the start."""
        body = struct.pack(">i", -1) + struct.pack(">i", 1) + string(topic) + struct.pack(">i", len(partitions))
        body += b"".join(struct.pack(">iq", p, timestamp) for p in partitions)
        r = self.call(2, 1, body)

        def partition(r):
            index, error, _time, offset = r.take("ihqq")
            return index, (error, offset)

        return r.array(lambda r: (r.string(), dict(r.array(partition))))[0][1]

    def fetch(self, topic, offsets, max_bytes=1 << 20, max_wait_ms=100):
        """offsets: {partition: offset}. {partition: (error, high watermark, records)}."""
        body = struct.pack(">iiiibi", -1, max_wait_ms, 1, 1 << 30, 0, 1) + string(topic) + struct.pack(">i", len(offsets))
        body += b"".join(struct.pack(">iqi", p, o, max_bytes) for p, o in offsets.items())
        r = self.call(1, 4, body)
        r.take("i")

        def partition(r):
            index, error, high_watermark, _stable = r.take("ihqq")
            r.array(lambda r: r.take("qq"))
            return index, (error, high_watermark, r.bytes())

        return r.array(lambda r: (r.string(), dict(r.array(partition))))[0][1]

    def delete_records(self, topic, offsets, timeout_ms=10_000):
        """offsets: {partition: first to be kept}. {partition: (error, low watermark)}."""
        body = struct.pack(">i", 1) + string(topic) + struct.pack(">i", len(offsets))
        body += b"".join(struct.pack(">iq", p, offset) for p, offset in offsets.items()) + struct.pack(">i", timeout_ms)
        r = self.call(21, 0, body)
        r.take("i")

        def partition(r):
            index, low_watermark, error = r.take("iqh")
            return index, (error, low_watermark)

        return r.array(lambda r: (r.string(), dict(r.array(partition))))[0][1]

    def find_coordinator(self, group):
        """(error, broker id, host, port)."""
        r = self.call(10, 0, string(group))
        return r.take("h"), r.take("i"), r.string(), r.take("i")

    def init_producer_id(self):
        """(error, producer id, epoch)."""
        r = self.call(22, 0, struct.pack(">hi", -1, 60000))
        r.take("i")
        return r.take("hqh")


def batches(records):
    """Splits fetched bytes into whole batches: (base offset, last offset, bytes)."""
    at = 0
    while at + 61 <= len(records):
        base, length = struct.unpack_from(">qi", records, at)
        end = at + 12 + length
        if end > len(records):
            return
        yield base, base + struct.unpack_from(">i", records, at + 23)[0], records[at:end]
        at = end


def values(one):
    """(offset, value) of an uncompressed batch."""
    base = struct.unpack_from(">q", one, 0)[0]
    count = struct.unpack_from(">i", one, 57)[0]
    at = 61

    def varint():
        nonlocal at
        shift = n = 0
        while True:
            byte = one[at]
            at += 1
            n |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return (n >> 1) ^ -(n & 1)

    for _ in range(count):
        length = varint()
        end = at + length
        at += 1
        varint()
        delta = varint()
        key = varint()
        at += max(key, 0)
        size = varint()
        yield base + delta, one[at : at + size] if size >= 0 else None
        at = end
