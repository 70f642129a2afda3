"""Where the processes of a cluster run: network namespaces joined by a bridge, or plain loopback.

With namespaces every process has an address of its own, and packets between any two of them can be dropped, lost or
slowed. They live in a network and mount namespace of their own (`enter`), so nothing of them outlives the rig or touches
the host. Loopback has no faults; scenarios that cut say so.
"""

import os
import shutil
import subprocess
import sys

BRIDGE, CLIENT = "kbr0", "10.77.0.254"
INSIDE = "KLAMM_RIG_NAMESPACE"
FAULTS = """
table inet fault {
  set cut_in { type ipv4_addr; }
  set cut_out { type ipv4_addr; }
  chain in {
    type filter hook input priority 0;
    ip saddr @cut_in drop
  }
  chain out {
    type filter hook output priority 0;
    ip daddr @cut_out drop
  }
  chain lossy {
    type filter hook input priority 10;
  }
}
"""


def enter():
    """Goes on in namespaces of its own: this program starts anew there, with the same process id. Whether it has."""
    if os.environ.get(INSIDE):
        return True
    if os.environ.get("KLAMM_RIG_LOOPBACK") or not all(shutil.which(tool) for tool in ("unshare", "ip", "nft", "nsenter")):
        return False
    new = ["unshare", "-nm"] if os.geteuid() == 0 else ["unshare", "-Urnm"]
    probe = "mount -t tmpfs tmpfs /run && ip link add kbr1 type bridge && nft add table inet probe"
    if subprocess.run([*new, "sh", "-c", probe], stderr=subprocess.DEVNULL, check=False).returncode:
        return False
    os.environ[INSIDE] = "1"
    sys.stdout.flush()
    os.execvp(new[0], [*new, sys.executable, *sys.orig_argv[1:]])
    return True


def entered():
    """Whether this program runs in namespaces of its own, where what it mounts ends with it."""
    return bool(os.environ.get(INSIDE))


def here():
    """The network that this program runs in."""
    return Namespaces() if entered() else Loopback()


def ip(*arguments):
    subprocess.run(["ip", *arguments], check=True)


class Loopback:
    """Everything on 127.0.0.1."""

    faults = False

    def add(self, name):
        return "127.0.0.1"

    def wrap(self, name, command):
        return list(command)

    def heal(self):
        pass


class Namespaces:
    """A namespace for each name; `cut` and the like take names, and CLIENT for where the clients are."""

    faults = True

    def __init__(self):
        self.addresses = {"client": CLIENT}
        subprocess.run(["mount", "-t", "tmpfs", "tmpfs", "/run"], check=True)
        ip("link", "set", "lo", "up")
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("addr", "add", f"{CLIENT}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")

    def add(self, name):
        """Makes the namespace of `name` if there is none; its address."""
        if name in self.addresses:
            return self.addresses[name]
        number = len(self.addresses)
        address = self.addresses[name] = f"10.77.0.{number}"
        ip("netns", "add", name)
        ip("link", "add", f"v{number}", "type", "veth", "peer", "name", "eth0", "netns", name)
        ip("link", "set", f"v{number}", "master", BRIDGE, "up")
        ip("-n", name, "addr", "add", f"{address}/24", "dev", "eth0")
        ip("-n", name, "link", "set", "eth0", "up")
        ip("-n", name, "link", "set", "lo", "up")
        self.nft(name, FAULTS)
        return address

    def wrap(self, name, command):
        return ["nsenter", f"--net=/run/netns/{name}", *command]

    def nft(self, name, script):
        subprocess.run(self.wrap(name, ["nft", "-f", "-"]), input=script, text=True, check=True)

    def cut(self, one, *others):
        """Drops what goes between `one` and each of the others, both ways."""
        self.cut_to(one, *others)
        self.cut_from(one, *others)

    def cut_from(self, one, *others):
        """Drops what `one` sends to the others."""
        addresses = ", ".join(self.addresses[other] for other in others)
        self.nft(one, f"add element inet fault cut_out {{ {addresses} }}")

    def cut_to(self, one, *others):
        """Drops what the others send to `one`."""
        addresses = ", ".join(self.addresses[other] for other in others)
        self.nft(one, f"add element inet fault cut_in {{ {addresses} }}")

    def lose(self, one, percent):
        """Drops that share of what comes to `one`."""
        self.nft(one, f"add rule inet fault lossy numgen random mod 100 < {percent} drop")

    def reset(self, one, port):
        """Answers what comes to a port of `one` with a TCP reset, established connections as well."""
        self.nft(one, f"add rule inet fault lossy tcp dport {port} reject with tcp reset")

    def slow(self, one, rate):
        """Lets `one` send no faster, for example 1mbit."""
        shape = ["tc", "qdisc", "replace", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "16kb", "latency", "400ms"]
        subprocess.run(self.wrap(one, shape), check=True)

    def heal(self):
        for name in self.addresses:
            if name != "client":
                self.nft(name, "flush set inet fault cut_in; flush set inet fault cut_out; flush chain inet fault lossy")
                clear = self.wrap(name, ["tc", "qdisc", "del", "dev", "eth0", "root"])
                subprocess.run(clear, stderr=subprocess.DEVNULL, check=False)
