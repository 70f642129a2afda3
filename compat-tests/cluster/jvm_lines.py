"""Lines of Apache Kafka's log that no fault explains: what a JVM broker says when a neighbour did wrong."""

import re

# Data that do not fit, ids that differ, errors that nobody catches, and ends of the process.
MATTER = re.compile(
    r"below high watermark|Unexpected offset in append|UnexpectedAppendOffset|CorruptRecord|Inconsistent topic|INCONSISTENT_TOPIC"
    r"|InconsistentTopic|Halting|Exiting Kafka|[Ff]atal|FATAL|Uncaught exception|Unexpected error|UnsupportedVersion|SchemaException"
    r"|Error when parsing|invalid messages|OutOfMemory|Stopping serving replicas|IllegalState|BufferUnderflow|sent an invalid"
)
# A start while the old session lives is refused, a deposed controller's request is an exception, and so is an answer on its way from
# a log that a former leader cuts meanwhile. All come without klamm, too.
USUAL = re.compile(
    r"ControllerMovedException|NodeExists|ZooKeeperClientTimeout|Fatal error during KafkaServer startup|truncated during write"
)
FAILED = re.compile(r"Partition (\S+) marked as failed")
FENCED = re.compile(r"Partition (\S+) has an older epoch")
# Other threads speak in between.
NEAR = 300


def that_matter(text):
    """The lines that matter, and those about a partition that a fetcher gave up for another reason than an older epoch: a follower
    that hears of a new leader epoch after its leader waits for its own LeaderAndIsr so."""
    found, lines, fenced = [], text.splitlines(), {}
    for at, line in enumerate(lines):
        if told := FENCED.search(line):
            fenced[told[1]] = at
        if failed := FAILED.search(line):
            if at - fenced.pop(failed[1], -NEAR) >= NEAR:
                found.append(line)
        # What caused it stands in the line, or in the next ones.
        elif MATTER.search(line) and not any(USUAL.search(near) for near in lines[at : at + 3]):
            found.append(line)
    return found
