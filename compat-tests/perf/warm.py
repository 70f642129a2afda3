"""When a broker is warm: its rounds cost the same, or it has had its chance.

A JIT goes on for gigabytes: beside a cool Kafka every broker looks good. So each row drives both brokers in turn until
two rounds of one behind the other agree, or until so many bytes have passed through it; one that is warm is driven on
while the other is not, so both have had the same.

    python3 warm.py     checks the rule against brokers that are made up
"""

from dataclasses import dataclass, field

GIB = 1 << 30


@dataclass
class Warmed:
    """What the warm-up of one row came to, by the broker's name."""

    passed: dict = field(default_factory=dict)
    costs: dict = field(default_factory=dict)
    agreed: dict = field(default_factory=dict)

    def line(self):
        def of(name):
            last = ", ".join(f"{cost:.3g}" for cost in self.costs[name][-2:])
            how = "steady" if self.agreed[name] else "not steady, the bound is reached"
            return f"{name} {self.passed[name] / GIB:.2f} GiB in {len(self.costs[name])} rounds ({how}: {last})"

        return "; ".join(of(name) for name in self.passed)


def agree(costs, within):
    """Whether the last two differ by no more than this share of the larger."""
    if len(costs) < 2:
        return False
    one, other = costs[-2:]
    return abs(one - other) <= within * max(one, other)


def until_steady(brokers, one_round, bytes_max=10 * GIB, within=0.1, rounds_max=None):
    """Drives each broker until its last two rounds agree.

    `one_round(broker, n)`: its cost, in whatever unit, and the bytes that passed. `rounds_max`: for rows of few bytes.
    """
    warmed = Warmed({b.name: 0 for b in brokers}, {b.name: [] for b in brokers}, {b.name: False for b in brokers})
    n = 0
    while not all(done(warmed, b.name, bytes_max, rounds_max) for b in brokers):
        for broker in brokers:
            cost, passed = one_round(broker, n)
            if passed <= 0:
                raise ValueError(f"{broker.name}: a round of nothing warms nobody")
            warmed.passed[broker.name] += passed
            warmed.costs[broker.name].append(cost)
            warmed.agreed[broker.name] = agree(warmed.costs[broker.name], within)
        n += 1
    return warmed


def done(warmed, name, bytes_max, rounds_max):
    enough = warmed.passed[name] >= bytes_max or (rounds_max is not None and len(warmed.costs[name]) >= rounds_max)
    return warmed.agreed[name] or enough


def check():
    """The rule, by costs that are known."""

    class MadeUp:
        def __init__(self, name, costs):
            self.name, self.costs, self.rounds = name, costs, 0

        def round(self, n):
            assert n == self.rounds, "both have had the same number of rounds"
            self.rounds += 1
            return self.costs[min(n, len(self.costs) - 1)], GIB

    def run(*brokers, **options):
        return until_steady(brokers, lambda broker, n: broker.round(n), **options)

    # One is steady at once; the other's JIT goes on.
    at_once, jit = MadeUp("klamm", [1.0]), MadeUp("kafka", [6, 4, 3, 2.5, 2.4])
    warmed = run(at_once, jit)
    assert (at_once.rounds, jit.rounds) == (5, 5), warmed
    assert warmed.agreed == {"klamm": True, "kafka": True}
    # What never agrees ends at the bound.
    restless = MadeUp("kafka", [1, 2] * 100)
    warmed = run(restless)
    assert restless.rounds == 10 and not warmed.agreed["kafka"], warmed
    assert "the bound is reached" in warmed.line()
    assert run(MadeUp("kafka", [1, 2] * 100), bytes_max=3 * GIB).passed["kafka"] == 3 * GIB
    assert len(run(MadeUp("kafka", [1, 2] * 100), rounds_max=4).costs["kafka"]) == 4
    # Agreement counts at the end alone.
    late = MadeUp("klamm", [1, 1, 5, 9, 9])
    assert run(late, MadeUp("kafka", [9, 7, 5, 3, 3])).agreed == {"klamm": True, "kafka": True} and late.rounds == 5
    assert agree([1.0, 1.1], 0.1) and not agree([1.0, 1.2], 0.1) and not agree([1.0], 0.1)
    try:
        until_steady([MadeUp("klamm", [1])], lambda broker, n: (1, 0))
    except ValueError:
        pass
    else:
        raise AssertionError("a round of no bytes would never end")


if __name__ == "__main__":
    check()
    print("PASS  warm-up: two rounds that agree, or the bound")
