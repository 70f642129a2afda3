"""One number of librdkafka's test-runner, unmodified, as a process of its own."""

import dataclasses
import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time


@dataclasses.dataclass
class Outcome:
    result: str
    seconds: float
    detail: str = ""


def run_one(number, suite, kafka, reached, logs, limit, name=None, options=(), environment=None):
    """`reached`: where the brokers are, and what more test.conf says; `name` of its files in `logs`; `environment`: what more
    the test is told."""
    name = name or number
    bootstrap, login = reached
    conf = logs / f"{name}.conf"
    conf.write_text(
        f"bootstrap.servers={bootstrap}\ntest.timeout.multiplier=2\nbroker.address.family=v4\n{login}"
    )
    # Its own folder: the runner cuts longer paths off.
    folder = tempfile.TemporaryDirectory(prefix="report-")
    report = pathlib.Path(folder.name) / "report.json"
    log_path = logs / f"{name}.log"
    environment = dict(
        os.environ,
        **(environment or {}),
        TESTS=number,
        RDKAFKA_TEST_CONF=str(conf),
        TEST_KAFKA_VERSION="3.9.0",
        TEST_REPORT=str(report),
        BROKERS=bootstrap,
        LD_LIBRARY_PATH=f"{suite}/src:{suite}/src-cpp",
    )
    if kafka:
        environment["KAFKA_PATH"] = str(kafka)
    # The runner behaves differently when it believes to be on CI.
    environment.pop("CI", None)
    began = time.monotonic()
    with open(log_path, "wb") as log:
        child = subprocess.Popen(
            ["./test-runner", "-L", "-p1", *options],
            cwd=suite / "tests",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
    with folder:
        return judge(code, report, log_path, time.monotonic() - began)


def judge(code, report, log_path, seconds):
    if code is None:
        return Outcome("fail", seconds, "stopped: over the time limit")
    try:
        rows = json.loads(report.read_text(), strict=False)["tests"]
    except (OSError, ValueError):
        rows = {}
    states = [row["state"] for name, row in rows.items() if not name.startswith("<")]
    if code != 0 or "FAILED" in states:
        return Outcome("fail", seconds, reason_in(log_path) or f"exit code {code}")
    if "PASSED" in states:
        return Outcome("pass", seconds)
    return Outcome("skip", seconds, reason_in(log_path, skip=True))


def reason_in(log_path, skip=False):
    """The line in which the runner says why."""
    text = plain_text(log_path)
    pattern = r"(?:SKIPPING TEST|SKIPPED?): (.*)" if skip else r'### Test "[^\n]*" failed at (\S+) at [^\n]*###\n([^\n]*)'
    found = re.findall(pattern, text)
    if not found:
        return ""
    return found[0] if skip else " ".join(found[0])


def plain_text(log_path):
    """A log without its colours."""
    return re.sub(r"\x1b\[[0-9;]*m", "", log_path.read_text(errors="replace"))
