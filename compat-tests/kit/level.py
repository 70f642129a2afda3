"""Whether a figure stays level over a run, however it jumps about: medians of its thirds."""

import statistics


def level(samples, limits):
    """`samples`: a dict of figures for each second. `limits`: by how much the last third's median may exceed the middle one's,
    as (part of that, constant). {name: (median of the first, middle, last third, whether it is level)}."""
    third, found = len(samples) // 3, {}
    for name, (part, constant) in limits.items():
        first, middle, last = (
            statistics.median(one[name] for one in samples[at : at + third]) for at in (0, third, 2 * third)
        )
        found[name] = (first, middle, last, last <= middle * (1 + part) + constant)
    return found
