"""Tests in a process of their own, so that one which ends its process ends no other.

A folder's conftest hands its tests to ``protocol``. They run one after the other in a worker, a
second pytest, which sends its reports back. A worker that dies fails the test it was at, and the
next test gets a new worker.
"""

from __future__ import annotations

import atexit
import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from _pytest.runner import runtestprotocol

HERE = "XTREMELY_TEST_WORKER"  # set in a worker to the number of the pipe for its reports
_workers: dict[Path, Worker] = {}


class Worker:
    """A pytest that waits for names of tests in a folder."""

    def __init__(self, folder: Path, config: pytest.Config):
        read, write = os.pipe()
        self.process = subprocess.Popen(
            [sys.executable, __file__, str(folder), str(config.rootpath)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            pass_fds=[write],
            env={**os.environ, HERE: str(write)},
            cwd=config.invocation_params.dir,
        )
        os.close(write)
        self.reports = os.fdopen(read, encoding="utf-8")

    def run(self, test: str, following: str) -> list[dict] | str:
        """The reports of a test, or how its process ended."""
        try:
            self.process.stdin.write(json.dumps([test, following]) + "\n")
            self.process.stdin.flush()
            line = self.reports.readline()
        except BrokenPipeError:
            line = ""
        if line:
            return json.loads(line)
        printed = self.process.communicate()[0]
        code = self.process.returncode
        ended = signal.Signals(-code).name if code < 0 else f"exit code {code}"
        return f"the process of this test ended with {ended}\n{printed[-4000:]}"

    def close(self) -> None:
        """Let the worker end by itself."""
        self.process.stdin.close()
        self.process.wait(60)


def protocol(item: pytest.Item, following: pytest.Item | None, folder: Path) -> bool | None:
    """Run a test of a folder in the folder's worker; None for other tests and in the worker."""
    apart = folder in item.path.parents and HERE not in os.environ
    if not apart or item.config.option.usepdb or item.config.option.capture == "no":
        return None
    worker = _workers.pop(folder, None) or Worker(folder, item.config)
    hook = item.ihook
    hook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
    stays = following is not None and folder in following.path.parents
    found = worker.run(item.nodeid, following.nodeid if stays else "")
    if isinstance(found, str):
        found = [_crash(item, found)]
    else:
        found = [
            item.config.hook.pytest_report_from_serializable(config=item.config, data=data)
            for data in found
        ]
        for report in found:
            if isinstance(report.longrepr, list):  # a skip's place and reason, made a list by JSON
                report.longrepr = tuple(report.longrepr)
        _workers[folder] = worker
    for report in found:
        hook.pytest_runtest_logreport(report=report)
    hook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
    if not stays and folder in _workers:
        _workers.pop(folder).close()
    return True


def _crash(item: pytest.Item, text: str) -> pytest.TestReport:
    return pytest.TestReport(
        nodeid=item.nodeid,
        location=item.location,
        keywords={},
        outcome="failed",
        longrepr=text,
        when="call",
    )


class Loop:
    """What a worker does instead of running all its tests: it runs those it is told to."""

    def __init__(self):
        # pytest takes the standard input away from its tests; the pipe for reports is below 10
        self.names = fcntl.fcntl(0, fcntl.F_DUPFD, 10)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Read names from the standard input until it is closed."""
        tests = {item.nodeid: item for item in session.items}
        with os.fdopen(int(os.environ[HERE]), "w", encoding="utf-8") as out:
            for line in os.fdopen(self.names, encoding="utf-8"):
                test, following = json.loads(line)
                reports = runtestprotocol(tests[test], nextitem=tests.get(following), log=False)
                hook = session.config.hook
                data = [
                    hook.pytest_report_to_serializable(config=session.config, report=one)
                    for one in reports
                ]
                out.write(json.dumps(data, default=str) + "\n")
                out.flush()
        return True


@atexit.register
def _close() -> None:
    for worker in _workers.values():
        worker.process.kill()


def main(folder: str, root: str) -> int:
    """The worker's own pytest."""
    options = ["-q", "-p", "no:cacheprovider", "-m", "", "--rootdir", root]
    return int(pytest.main([folder, *options], plugins=[Loop()]))


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
