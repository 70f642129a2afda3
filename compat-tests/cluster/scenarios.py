"""The fault scenarios (R1 to R19 as our reference numbers them), each a function of a cluster.

Times are those of a full run, in brackets of a quick one. What a scenario must bring about is asserted here; what its clients
saw is the checker's.
"""

import time

from cluster.churn import Operator, churn
from cluster.copies import Copies
from cluster.rig import LAG_S, SESSION_S, Failed
from cluster.run import Run

SCENARIOS = []
# A leader that was replaced without its knowledge answers ListOffsets from what it knows, as Kafka's does.
STALE_ENDS = [("HW_REGRESS", "a replaced leader answers from what it knows")]


def scenario(name, faults=False):
    """`faults`: it needs namespaces."""

    def take(function):
        SCENARIOS.append((name, faults, function))
        return function

    return take


class Plan:
    """What is asked for: a seed, and whether the run is a quick one."""

    def __init__(self, seed, quick):
        self.seed, self.quick = seed, quick

    def pick(self, full, quick):
        return quick if self.quick else full

    def run(self, cluster, name, body, **how):
        run = Run(cluster, name, self.seed, **how)
        try:
            run.told("faults", lambda: body(run))
        except Exception:
            run.abandon()
            run.save()
            raise
        return run.finish()


def others(cluster, number):
    return [node.label for node in cluster.nodes.values() if node.number != number]


@scenario("followers-serve-consumers")
def followers_serve(cluster, plan):
    """Every replica answers a consumer's Fetch 11 (KIP-392), which the end of every other row reads them by."""
    runs = []

    def body(run):
        runs.append(run)
        run.rest(3)

    note = plan.run(cluster, "KIP392", body)
    if runs[0].refused:
        raise Failed(f"followers {sorted(runs[0].refused)} answer NOT_LEADER_OR_FOLLOWER; {note}")
    return note


@scenario("kill-one")
def kill_one(cluster, plan):
    """kill -9 of one broker that leads, and nothing else: how long no acknowledgement comes."""
    gaps, back = [], []

    def body(run):
        for _ in range(plan.pick(3, 1)):
            victim = cluster.broker(cluster.leader(run.topic, run.rng.randrange(run.partitions)))
            run.rest(2)
            began = time.monotonic()
            victim.kill9()
            run.flowing(60)
            gaps.append(time.monotonic() - began)
            victim.restart()
            back.append(run.in_sync())
        run.note(f"all partitions acknowledge again after {max(gaps):.1f} s, in sync {max(back):.1f} s after the restart")

    return plan.run(cluster, "kill-one", body)


@scenario("R1-kill-any")
def kill_any(cluster, plan):
    """kill -9 of any broker every 10 s for 10 minutes (1), back after 0 to 15 s (8); often two are away."""

    def body(run):
        end, due, kills = time.monotonic() + plan.pick(600, 60), {}, 0
        strike = time.monotonic()
        while time.monotonic() < end:
            now = time.monotonic()
            if now >= strike and cluster.alive():
                strike, kills = now + 10, kills + 1
                victim = run.rng.choice(cluster.alive())
                victim.kill9()
                due[victim.number] = now + run.rng.uniform(0, plan.pick(15, 8))
            for number in [n for n, at in due.items() if at <= now]:
                del due[number]
                cluster.broker(number).launch()
            cluster.tend()
            time.sleep(0.1)
        run.note(f"{kills} kills")

    return plan.run(cluster, "R1", body)


@scenario("R3-rolling-SIGTERM")
def rolling_term(cluster, plan):
    """Every broker is stopped and started in turn, 5 times (1): no error reaches a client."""

    def body(run):
        stops = []
        for _ in range(plan.pick(5, 1)):
            for node in cluster.nodes.values():
                code, seconds = node.term()
                stops.append(seconds)
                if code not in (0, 143):
                    raise Failed(f"{node.label} ended with {code} on SIGTERM\n{node.tail(10)}")
                run.rest(1)
                node.restart()
                run.in_sync()
                run.rest(1)
        run.note(f"{len(stops)} stops, the slowest took {max(stops):.1f} s")
        run.refuse_errors()

    return plan.run(cluster, "R3", body)


@scenario("R4-zombie-leader")
def zombie_leader(cluster, plan):
    """SIGSTOP of a leader for 5 to 60 s (12), then SIGCONT: it acknowledges nothing of what is not its own any more."""

    def body(run):
        for _ in range(plan.pick(4, 1)):
            victim = cluster.broker(cluster.leader(run.topic, run.rng.randrange(run.partitions)))
            length = plan.pick(run.rng.uniform(5, 60), 2 * SESSION_S)
            victim.pause()
            run.rest(length)
            victim.resume()
            run.in_sync()
            run.note(f"paused {length:.0f} s")

    return plan.run(cluster, "R4", body, exempt=STALE_ENDS)


def shapes(cluster, run):
    """{name: what it cuts}, around the leader of a partition of the run."""
    net = cluster.network
    leader = cluster.leader(run.topic, run.rng.randrange(run.partitions))
    me, rest = f"b{leader}", others(cluster, leader)
    return {
        "leader from all": lambda: net.cut(me, *rest, "zk"),
        "leader deaf": lambda: net.cut_to(me, *rest),
        "leader dumb": lambda: net.cut_from(me, *rest),
        "bridge": lambda: net.cut(me, rest[0]),
        "leader from ZooKeeper": lambda: net.cut(me, "zk"),
        "leader from brokers": lambda: net.cut(me, *rest),
        "follower from all": lambda: net.cut(rest[0], me, rest[1], "zk"),
    }


@scenario("R5-cuts", faults=True)
def cuts(cluster, plan):
    """Cuts of every shape, 20 s each (three of the shapes), each healed; service is back within 30 s of that."""

    def body(run):
        names = list(shapes(cluster, run))
        if plan.quick:
            names = ["leader from all"] + run.rng.sample(names[1:], 2)
        for name in names:
            shapes(cluster, run)[name]()
            run.rest(LAG_S * 1.5 + 5)
            cluster.network.heal()
            back = run.flowing(60)
            run.note(f"{name}: back {back:.1f} s, in sync {back + run.in_sync():.1f} s after the healing")
            if back > 30:
                raise Failed(f"{name}: service came back {back:.1f} s after the healing")

    return plan.run(cluster, "R5", body, exempt=STALE_ENDS)


def new_controller(cluster, old, seconds=SESSION_S + 10):
    """Waits for another controller; the seconds that took."""
    return cluster.until(seconds, lambda: cluster.controller() not in (None, old), f"a controller other than {old}")[1]


@scenario("R6-controller-killed")
def controller_killed(cluster, plan):
    """kill -9 of the controller, 3 times (1): another takes over, under a higher epoch, and makes topics."""

    def body(run):
        for n in range(plan.pick(3, 1)):
            old, epoch = cluster.controller(), cluster.controller_epoch()
            cluster.broker(old).kill9()
            took = new_controller(cluster, old)
            if cluster.controller_epoch() <= epoch:
                raise Failed(f"controller epoch {epoch} did not rise")
            # One replica may be the dead one's, whose registration may outlive the election by a moment.
            made = cluster.topic(f"{run.topic}-after{n}", 3, 2, whole=False)
            run.note(f"another controller after {took:.1f} s, a topic {made:.1f} s later")
            cluster.broker(old).restart()
            run.in_sync()

    return plan.run(cluster, "R6a", body)


@scenario("R6-controller-cut-off", faults=True)
def controller_cut(cluster, plan):
    """The controller is cut off from ZooKeeper, not from brokers: two think that they control, one epoch counts."""

    def body(run):
        old, epoch = cluster.controller(), cluster.controller_epoch()
        cluster.network.cut(f"b{old}", "zk")
        took = new_controller(cluster, old)
        # Leaders move while the old one may still speak.
        victim = next(node for node in cluster.nodes.values() if node.number not in (old, cluster.controller()))
        victim.pause()
        run.rest(plan.pick(15, 8))
        victim.resume()
        run.rest(2)
        cluster.network.heal()
        run.in_sync()
        if cluster.controller_epoch() <= epoch:
            raise Failed(f"controller epoch {epoch} did not rise")
        run.note(f"another controller after {took:.1f} s")

    return plan.run(cluster, "R6b", body, exempt=STALE_ENDS)


@scenario("R7-ZooKeeper-gone-15-s")
def zookeeper_gone(cluster, plan):
    """ZooKeeper is killed and back after 15 s: produce goes on; no leader changes twice."""

    def body(run):
        for _ in range(plan.pick(3, 1)):
            before = cluster.epochs(run.topic)
            run.rest(1)
            began = time.monotonic()
            cluster.server.kill()
            run.rest(15)
            gone = time.monotonic()
            cluster.server.start()
            run.rest(2 * SESSION_S)
            run.in_sync()
            after = cluster.epochs(run.topic)
            twice = {p: (before[p], after[p]) for p in before if after[p] > before[p] + 1}
            run.note(
                f"gap {gap_between(run, began, gone):.2f} s while gone, {gap_between(run, gone, time.monotonic()):.2f} s after"
            )
            if twice:
                raise Failed(f"leaders changed more than once: {twice}")

    return plan.run(cluster, "R7a", body)


def gap_between(run, begin, end):
    """The longest time without an acknowledgement under acks=all in some partition, within an interval."""
    from history.model import History
    from history.rules import longest_gaps

    events = [e for e in list(run.record.events) if e["e"] in ("send", "producer")]
    return max(seconds for seconds, _ in longest_gaps(History(events), begin, end).values())


@scenario("R7-session-expired", faults=True)
def session_expired(cluster, plan):
    """One broker's session ends (its packets to ZooKeeper are dropped): it registers again, its epoch rises."""

    def body(run):
        for _ in range(plan.pick(3, 1)):
            number = cluster.leader(run.topic, run.rng.randrange(run.partitions))
            node = cluster.broker(number)
            before = node.registered().czxid
            cluster.network.cut(node.label, "zk")
            cluster.until(3 * SESSION_S, lambda n=node: n.registered() is None, "the session to end")
            run.rest(plan.pick(10, 3))
            cluster.network.heal()
            took = cluster.until(30, lambda n=node: n.registered(), "the broker to register again")[1]
            if node.registered().czxid <= before:
                raise Failed("the broker epoch did not rise")
            run.in_sync()
            run.note(f"registered again after {took:.1f} s")

    return plan.run(cluster, "R7b", body, exempt=STALE_ENDS)


@scenario("R8-bad-network", faults=True)
def bad_network(cluster, plan):
    """A fifth of all packets lost, one broker on 1 Mbit/s, connections reset; 30 s each (10)."""

    def body(run):
        length, net = plan.pick(30, 10), cluster.network
        for node in cluster.nodes.values():
            net.lose(node.label, 20)
        run.rest(length)
        net.heal()
        lost = run.flowing(60)
        victim = run.rng.choice(list(cluster.nodes.values()))
        net.slow(victim.label, "1mbit")
        run.rest(length)
        net.heal()
        slow = run.flowing(60)
        for _ in range(plan.pick(6, 2)):
            victim = run.rng.choice(list(cluster.nodes.values()))
            net.reset(victim.label, victim.port)
            run.rest(0.5)
            net.heal()
            run.rest(1, 3)
        run.note(f"goes on {lost:.1f} s after loss, {slow:.1f} s after slowness")

    return plan.run(cluster, "R8", body, rate=200, exempt=STALE_ENDS)


@scenario("R15-transactions")
def transactions(cluster, plan):
    """Copiers, exactly once, through kills of any broker (coordinators of their transactions among them) and a pause."""

    def body(run):
        copies = Copies(run)
        try:
            for n in range(plan.pick(6, 2)):
                run.rest(plan.pick(10, 5))
                victim = run.rng.choice(list(cluster.nodes.values()))
                if n % 3 == 2:
                    victim.pause()
                    run.rest(SESSION_S + 3)
                    victim.resume()
                else:
                    victim.kill9()
                    run.rest(0, 5)
                    victim.restart()
                run.in_sync()
        except BaseException:
            copies.abandon()
            raise

    return plan.run(cluster, "R15", body, rate=plan.pick(200, 100), exempt=STALE_ENDS)


@scenario("R16-group-churn")
def group_churn(cluster, plan):
    """Members join, leave and die, one is static; the coordinator is killed 4 times (1)."""
    return plan.run(cluster, "R16", lambda run: churn(run, plan.pick(180, 30), plan.pick(4, 1)), rate=200)


@scenario("R17-administration")
def administration(cluster, plan):
    """Reassignment, preferred election, settings, more partitions, topics deleted and made anew, controller killed."""
    return plan.run(cluster, "R17", lambda run: Operator(run).work(plan.pick(180, 30), plan.pick(2, 0)), rate=200)


def isr_to_one(run):
    """Followers die one by one, then the last leader; (leader, followers), the followers up again."""
    cluster = run.cluster
    leader = cluster.leader(run.topic, 0)
    followers = [node for node in cluster.nodes.values() if node.number != leader]
    for node in followers:
        node.kill9()
        run.rest(SESSION_S + 2)
    run.flowing(30)
    run.rest(2)
    cluster.broker(leader).kill9()
    for node in followers:
        node.restart()
    cluster.all_known(30)
    return cluster.broker(leader), followers


@scenario("R19-isr-dies-in-order")
def isr_dies(cluster, plan):
    """Followers die one by one, then the last leader; the others alone may not lead, and nothing is lost."""

    def body(run):
        leader, _ = isr_to_one(run)
        # What the others lack was acknowledged: whichever leads now would lose it.
        for _ in range(20):
            found = cluster.describe([run.topic])[2][run.topic]
            led = {p: state.leader for p, state in found.items() if state.leader > 0}
            if led:
                raise Failed(f"replicas out of sync lead: {led}")
            run.rest(0.2)
        leader.restart()
        run.note(f"acknowledged again {run.flowing(60):.1f} s after the last leader is back")

    return plan.run(cluster, "R19", body, min_insync_replicas=1)


LOSSES = [
    (kind, "an unclean election loses")
    for kind in (
        "LOST_WRITE", "VANISHED", "WRONG_OFFSET", "INCONSISTENT_OFFSET", "STALE_LEADER_ORDER", "HW_REGRESS", "OFFSET_RESET",
        "UNPROCESSED", "POLL_SKIP", "STALE_COMMIT",
    )
]  # fmt: skip


@scenario("R19-unclean-election")
def unclean(cluster, plan):
    """The same with unclean elections allowed: records are lost, which the checker must see, and replicas are equal after."""
    losses = []

    def body(run):
        leader, _ = isr_to_one(run)
        run.note(f"the others lead after {run.flowing(60):.1f} s")
        run.rest(2)
        leader.restart()
        run.in_sync()
        losses.append(run)

    note = plan.run(cluster, "R19u", body, exempt=LOSSES, min_insync_replicas=1, unclean_leader_election_enable="true")
    if not losses[0].figures["lost"]:
        raise Failed(f"nothing was lost, so this proves nothing: {note}")
    return note


def short(cluster, plan):
    """The form of `make test`: one kill -9 of a leader, one SIGTERM of another."""

    def body(run):
        victim = cluster.broker(cluster.leader(run.topic))
        victim.kill9()
        run.note(f"goes on {run.flowing(60):.1f} s after the kill")
        victim.restart()
        run.in_sync()
        other = cluster.broker(cluster.leader(run.topic))
        _, seconds = other.term()
        run.note(f"SIGTERM took {seconds:.1f} s")
        run.flowing(30)
        other.restart()
        run.in_sync()

    return plan.run(cluster, "short", body, rate=200)
