"""ZooKeeper on a free port of loopback (or another address), by default 3.8 from the Debian package, and a small client of its wire protocol.

The client opens a session for each call, so it survives whatever a test does to the
server in between.
"""

import contextlib
import socket
import struct

from kit.process import Process, free_port, write_properties

JAR = "/usr/share/java/zookeeper.jar"
TICK_MS = 500

NO_NODE = -101
NO_AUTH = -102
NODE_EXISTS = -110


class ZooError(Exception):
    def __init__(self, code, path):
        super().__init__(f"ZooKeeper answers {code} about {path}")
        self.code = code


class Stat:
    def __init__(self, data):
        (self.czxid, self.mzxid, self.created_ms, _mtime, self.version, _cversion, _aversion, self.owner, _length, self.children,
         _pzxid) = struct.unpack(">qqqqiiiqiiq", data)  # fmt: skip


class Server(Process):
    """One server, started at once; `port` and the data stay the same over restarts."""

    name = "zookeeper"

    def __init__(self, folder, classpath=JAR, force_sync=False, host="127.0.0.1", wrap=list, options=(), settings=None):
        super().__init__(folder)
        self.port, self.host = free_port(), host
        # Makes the command that runs a command where the server shall run.
        self.wrap = wrap
        self.classpath, self.force_sync = classpath, force_sync
        # Of the JVM, besides.
        self.options = options
        # Of zoo.cfg, besides.
        self.settings = settings or {}
        self.start()

    def command(self):
        settings = {
            "tickTime": TICK_MS, "dataDir": self.folder / "zookeeper", "clientPort": self.port,
            "clientPortAddress": self.host, "admin.enableServer": "false", "4lw.commands.whitelist": "*",
            "maxClientCnxns": 0, "minSessionTimeout": 2 * TICK_MS, "maxSessionTimeout": 60_000,
        }  # fmt: skip
        file = write_properties(self.folder / "zoo.cfg", settings | self.settings)
        jvm = ["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1"]
        sync = f"-Dzookeeper.forceSync={'yes' if self.force_sync else 'no'}"
        main = "org.apache.zookeeper.server.ZooKeeperServerMain"
        return self.wrap(["java", *jvm, *self.options, sync, "-cp", self.classpath, main, str(file)])

    def ready(self):
        return "Mode:" in self.word("srvr")

    def word(self, command):
        """The answer to a four-letter command; empty if there is none."""
        with contextlib.suppress(OSError), socket.create_connection((self.host, self.port), timeout=2) as connection:
            connection.sendall(command.encode())
            return b"".join(iter(lambda: connection.recv(4096), b"")).decode(errors="replace")
        return ""

    def tree(self, root):
        return Tree(self.port, root, self.host)


class Tree:
    """The nodes below `root`. Every call is a session of its own."""

    def __init__(self, port, root="", host="127.0.0.1"):
        self.port, self.root, self.host = port, root, host

    def _call(self, kind, path, body=b""):
        def exactly(stream, count):
            data = stream.read(count)
            if len(data) != count:
                raise ConnectionError("ZooKeeper closed the connection")
            return data

        def frame(stream):
            return exactly(stream, struct.unpack(">i", exactly(stream, 4))[0])

        full = (self.root + path) or "/"
        name = full.encode()
        with socket.create_connection((self.host, self.port), timeout=10) as connection:
            stream = connection.makefile("rb")
            hello = struct.pack(">iqiqi", 0, 0, 10_000, 0, 16) + bytes(16)
            connection.sendall(struct.pack(">i", len(hello)) + hello)
            frame(stream)
            request = struct.pack(">iii", 1, kind, len(name)) + name + body
            connection.sendall(struct.pack(">i", len(request)) + request)
            answer = frame(stream)
            close = struct.pack(">ii", 2, -11)
            connection.sendall(struct.pack(">i", len(close)) + close)
            frame(stream)
        code = struct.unpack(">iqi", answer[:16])[2]
        if code:
            raise ZooError(code, full)
        return answer[16:]

    def get(self, path):
        """(data, stat); None if there is no such node."""
        try:
            answer = self._call(4, path, b"\0")
        except ZooError as error:
            if error.code == NO_NODE:
                return None
            raise
        length = max(struct.unpack(">i", answer[:4])[0], 0)
        return answer[4 : 4 + length], Stat(answer[4 + length :])

    def stat(self, path):
        node = self.get(path)
        return node and node[1]

    def children(self, path):
        answer = self._call(8, path, b"\0")
        count, at = struct.unpack(">i", answer[:4])[0], 4
        names = []
        for _ in range(count):
            length = struct.unpack_from(">i", answer, at)[0]
            names.append(answer[at + 4 : at + 4 + length].decode())
            at += 4 + length
        return sorted(names)

    def acl(self, path):
        """[(permissions, scheme, id)]; None if nobody in particular may not even ask."""
        try:
            answer = self._call(6, path)
        except ZooError as error:
            if error.code == NO_AUTH:
                return None
            raise
        count, at = struct.unpack(">i", answer[:4])[0], 4
        found = []

        def text():
            nonlocal at
            length = struct.unpack_from(">i", answer, at)[0]
            at += 4 + length
            return answer[at - length : at].decode()

        for _ in range(count):
            permissions = struct.unpack_from(">i", answer, at)[0]
            at += 4
            found.append((permissions, text(), text()))
        return found

    def create(self, path, data=b"", sequential=False):
        """Persistent; anybody may do anything with it."""
        acl = struct.pack(">iii", 1, 31, 5) + b"world" + struct.pack(">i", 6) + b"anyone"
        answer = self._call(1, path, struct.pack(">i", len(data)) + data + acl + struct.pack(">i", 2 if sequential else 0))
        return answer[4:].decode()

    def set(self, path, data):
        self._call(5, path, struct.pack(">i", len(data)) + data + struct.pack(">i", -1))

    def delete(self, path):
        self._call(2, path, struct.pack(">i", -1))
