"""klamm among Apache Kafka's brokers: each of its roles, and replacing brokers one by one, under load.

Beside what the checker finds, a row fails when a JVM broker ends by itself or says what `jvm_lines` lists.
"""

import time

from cluster import scenarios
from cluster.churn import Operator
from cluster.copies import Copies
from cluster.rig import SESSION_S, Failed
from cluster.scenarios import STALE_ENDS, Plan
from kit.broker import Klamm

KINDS = "3.9.1 3.9.1 klamm"
INTERNAL = ("__consumer_offsets", "__transaction_state")
MIXED = []


def mixed(name, kinds=None):
    """`kinds`: the brokers that the row begins with, if not those of the run."""

    def take(function):
        MIXED.append((name, kinds, function))
        return function

    return take


def of_kind(cluster, klamm):
    return [node for node in cluster.nodes.values() if isinstance(node, Klamm) == klamm]


def settled(cluster, seconds=60):
    def nothing():
        error, moving = cluster.at_controller(lambda client: client.reassigning())
        return error == 0 and not moving

    cluster.until(seconds, nothing, "every reassignment to end")


def elect_preferred(cluster, topic):
    """Waits until the preferred replica leads each partition."""

    def led():
        parts = list(cluster.describe([topic])[2][topic])
        cluster.at_controller(lambda client: client.elect_preferred(topic, parts))
        found = cluster.describe([topic])[2][topic].values()
        return all(part.leader == part.replicas[0] for part in found)

    cluster.until(60, led, f"the preferred leaders of {topic}")


def place(cluster, topic, number):
    """Makes a broker lead every partition of a topic, by a reassignment and a preferred election."""
    others = [n for n in sorted(cluster.nodes) if n != number]
    moved = {part: [number, *others] for part in cluster.describe([topic])[2][topic]}

    def ask():
        error, codes = cluster.at_controller(lambda client: client.reassign(topic, moved))
        return error == 0 and not any(codes.values())

    cluster.until(30, ask, f"a reassignment of {topic} to be taken")
    settled(cluster)
    cluster.in_sync([topic])
    elect_preferred(cluster, topic)


def place_internal(cluster, number):
    for topic in INTERNAL:
        if cluster.describe([topic])[2][topic]:
            place(cluster, topic, number)


def take_controller(cluster, number, tries=40):
    """Deletes the controller's node until that broker wins it, and waits until all brokers have heard."""
    for _ in range(tries):
        if cluster.controller() == number:
            break
        cluster.tree.delete("/controller")
        cluster.until(20, lambda: cluster.controller() is not None, "a controller")
    else:
        raise Failed(f"b{number} was not elected in {tries} tries")
    for node in cluster.alive():
        cluster.until(20, lambda n=node.number: cluster.describe([], n)[0] == number, f"{node.label} to hear of the controller")


def stop(node):
    code, seconds = node.term()
    if code not in (0, 143):
        raise Failed(f"{node.label} ended with {code} on SIGTERM\n{node.tail(10)}")
    return seconds


def strike_each(run, arrange):
    """kill -9 and SIGTERM of klamm and of a JVM broker, each out of the same arrangement."""
    cluster = run.cluster
    for klamm in (True, False):
        for how in ("kill -9", "SIGTERM"):
            arrange()
            victim, what = run.rng.choice(of_kind(cluster, klamm)), "klamm" if klamm else "JVM"
            run.rest(2)
            if how == "SIGTERM":
                stop(victim)
            else:
                victim.kill9()
            flows = run.flowing(60)
            run.rest(1)
            back = victim.restart()
            run.note(f"{how} of {what}: goes on after {flows:.1f} s, back {back:.1f} s, in sync {run.in_sync():.1f} s")
    arrange()
    run.rest(2)


def role(cluster, plan, name, arrange, **how):
    """`arrange(run, klamm, jvm)` brings the role about; `klamm` and `jvm` are ids."""

    def body(run):
        klamm, jvm = of_kind(cluster, True)[0].number, of_kind(cluster, False)[0].number
        strike_each(run, lambda: arrange(run, klamm, jvm))

    return plan.run(cluster, name, body, exempt=STALE_ENDS, **how)


@mixed("mixed-follower")
def follower(cluster, plan):
    """klamm follows JVM leaders; the JVM brokers coordinate and control."""

    def arrange(run, klamm, jvm):
        take_controller(cluster, jvm)
        place(cluster, run.topic, jvm)
        place_internal(cluster, jvm)

    return role(cluster, plan, "follower", arrange)


@mixed("mixed-leader")
def leader(cluster, plan):
    """klamm leads, JVM brokers follow it and control."""

    def arrange(run, klamm, jvm):
        take_controller(cluster, jvm)
        place(cluster, run.topic, klamm)
        place_internal(cluster, jvm)

    return role(cluster, plan, "leader", arrange)


@mixed("mixed-coordinator")
def coordinator(cluster, plan):
    """klamm coordinates groups and transactions; before each strike the coordinators have moved there and back again."""

    def body(run):
        copies = Copies(run)
        klamm, jvm = of_kind(cluster, True)[0].number, of_kind(cluster, False)[0].number

        def arrange():
            take_controller(cluster, jvm)
            for number in (jvm, klamm):
                place_internal(cluster, number)
                run.rest(2)

        try:
            strike_each(run, arrange)
        except BaseException:
            copies.abandon()
            raise

    return plan.run(cluster, "coordinator", body, rate=200, exempt=STALE_ENDS)


@mixed("mixed-controller")
def controller(cluster, plan):
    """klamm controls the JVM brokers."""

    def arrange(run, klamm, jvm):
        take_controller(cluster, klamm)

    return role(cluster, plan, "controller", arrange)


@mixed("mixed-after-another-boot")
def after_another_boot(cluster, plan):
    """klamm leads, dies, and is back as after a loss of power: a JVM controller has seen it go, so all it had gets new epochs."""

    def body(run):
        klamm, jvm = of_kind(cluster, True)[0], of_kind(cluster, False)[0].number
        take_controller(cluster, jvm)
        place(cluster, run.topic, klamm.number)
        alone = f"{run.topic}-alone"
        cluster.topic(alone, 2, 1, min_insync_replicas=1)
        parts = list(cluster.describe([alone])[2][alone])
        cluster.at_controller(lambda client: client.reassign(alone, {part: [klamm.number] for part in parts}))
        settled(cluster)
        cluster.in_sync([alone])
        before = {topic: cluster.epochs(topic) for topic in (run.topic, alone)}
        klamm.kill9()
        klamm.settings["klamm.boot.id"] = f"another-{plan.seed}"
        back = klamm.restart()
        run.note(f"back {back:.1f} s, in sync {run.in_sync():.1f} s after the kill")
        cluster.in_sync([alone], 30)
        for topic, epochs in before.items():
            old = {part for part, epoch in cluster.epochs(topic).items() if epoch <= epochs[part]}
            if old:
                raise Failed(f"{topic}: partitions {old} still have their leader epochs")
        if back < SESSION_S / 2:
            raise Failed(f"it was back after {back:.1f} s: it did not wait for its old session to end")

    return plan.run(cluster, "boot", body, exempt=STALE_ENDS)


@mixed("mixed-administration")
def administration(cluster, plan):
    """klamm controls; an administrator moves, elects, configures, grows, deletes and makes anew."""

    def body(run):
        klamm = of_kind(cluster, True)[0].number
        take_controller(cluster, klamm)
        Operator(run).work(plan.pick(60, 20))
        if cluster.controller() != klamm:
            raise Failed(f"b{cluster.controller()} controls, though nobody asked klamm to give that up")

    return plan.run(cluster, "administration", body, rate=200)


@mixed("mixed-transactions")
def transactions(cluster, plan):
    """R15 over both kinds."""
    return scenarios.transactions(cluster, Plan(plan.seed, True))


@mixed("mixed-group-churn")
def group_churn(cluster, plan):
    """R16 over both kinds."""
    return scenarios.group_churn(cluster, Plan(plan.seed, True))


@mixed("mixed-kill-any")
def kill_any(cluster, plan):
    """R1 over both kinds."""
    return scenarios.kill_any(cluster, Plan(plan.seed, True))


def replace(run, number, kind, **extra):
    """Stops a broker, and starts one of another kind under its id, on an empty directory. The seconds that took."""
    cluster, began = run.cluster, time.monotonic()
    cluster.in_sync()
    settled(cluster)
    stop(cluster.broker(number))
    node = cluster.renew(number, kind, extra)
    node.restart()
    cluster.in_sync()
    for topic in cluster.describe()[2]:
        elect_preferred(cluster, topic)
    run.flowing()
    return time.monotonic() - began


@mixed("mixed-roll-there-and-back", "3.9.1 3.9.1 3.9.1")
def roll(cluster, plan):
    """Each of three JVM brokers is replaced by klamm, then each klamm by a JVM broker; the first klamm may not control at first."""

    def body(run):
        copies, took = Copies(run), []
        try:
            took.append(replace(run, 1, "klamm", **{"klamm.controller.eligible": "false"}))
            took.append(replace(run, 2, "klamm"))
            first = cluster.broker(1)
            stop(first)
            first.settings["klamm.controller.eligible"] = "true"
            first.restart()
            took.append(replace(run, 3, "klamm"))
            if of_kind(cluster, False):
                raise Failed("a JVM broker is left")
            run.rest(3)
            for number in (1, 2, 3):
                took.append(replace(run, number, "3.9.1"))
            if of_kind(cluster, True):
                raise Failed("a klamm is left")
        except BaseException:
            copies.abandon()
            raise
        run.note("replaced in " + ", ".join(f"{seconds:.0f}" for seconds in took) + " s")

    return plan.run(cluster, "roll", body, rate=200)
