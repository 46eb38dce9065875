"""Tests of taskrunnerd: `python -m pytest`. pytest is the only package needed.

The sections are those of the module, in its order. A test talks to a real daemon
(`serve`, or `shared` where a fresh one is not needed) through a client that holds
every answer against the schema of its route, or calls a pure function, or drives a
`Daemon` in this process by a clock whose hands it moves. Where only the steps differ,
they are a table of scenes that `play` performs; Scene has the words of its scripts.
Nothing sleeps: tests wait for an answer, an event, a FIFO or the end of a process, and
`within` gives up with the daemon's log.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import copy
import ctypes
import errno
import fcntl
import functools
import gc
import hashlib
import http.client
import http.server
import io
import itertools
import json
import multiprocessing
import os
import platform
import py_compile
import queue
import random
import re
import resource
import select
import shlex
import shutil
import signal
import socket
import socketserver
import sqlite3
import ssl
import stat
import struct
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import traceback
import types
import uuid
import warnings
import zlib
import zoneinfo
from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone, tzinfo
from pathlib import Path
from typing import Any, Callable, NamedTuple, NoReturn

import pytest

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

import taskrunnerd as tr  # noqa: E402

# Compiled once and not for each of the many daemons that start a Python of their own or
# are upgraded, which would take longer than the tests themselves.
_FOLDER = tempfile.TemporaryDirectory(prefix="taskrunnerd-tests-")
PROGRAM = Path(_FOLDER.name) / "taskrunnerd.pyc"
py_compile.compile(str(HERE / "taskrunnerd.py"), str(PROGRAM), doraise=True)
# nohup lets every child ignore it; what a caught signal does is not inherited.
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, lambda *_: None)
# Daemons that are forks of this process or live in it look again sooner.
SHIPPED_HANGUP_CHECK_S = tr.HANGUP_CHECK_S
tr.STORE_RETRY_S = tr.DISK_LOOK_S = tr.HANGUP_CHECK_S = 0.2
# So long may a busy machine take for what takes a second elsewhere.
DEADLINE_S = 60.0
NEEDS_PROC = pytest.mark.skipif(
    not os.path.exists("/proc/self/environ"), reason="needs /proc"
)
TRACEPARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


# ---- The bench: a real daemon, a checking client, a clock with hands ---------


def within(seconds: float, found: Callable[[], Any], what: str) -> Any:
    """The first true result of `found`, or a failure that says what was awaited."""
    give_up = time.monotonic() + seconds
    pause, pause_s = threading.Event(), 0.001
    while True:
        result = found()
        if result:
            return result
        assert time.monotonic() < give_up, f"never happened: {what}"
        pause.wait(pause_s)
        pause_s = min(2 * pause_s, 0.01)


class Reply(NamedTuple):
    """An answer, its JSON already held against the schema of the route."""

    status: int
    headers: Any
    raw: bytes
    json: Any

    @property
    def faults(self) -> list[tuple[str, str]]:
        """(location, message) of each fault in a problem."""
        return [(e["location"], e["message"]) for e in self.json.get("errors", [])]


def check_answer(method: str, path: str, reply: Reply) -> None:
    """Fail when an answer is not what the API's own tables promise."""
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["Referrer-Policy"] == "no-referrer"
    assert reply.headers["X-Request-Id"]
    if path.startswith("/api"):
        assert reply.headers["Cache-Control"] == "no-store"
    if method == "HEAD" or reply.status in (204, 304):
        assert reply.raw == b""
        return
    media = reply.headers["Content-Type"]
    schema = None
    if reply.status >= 400 and media != "application/json":
        assert media == "application/problem+json", reply
        assert reply.json["status"] == reply.status
        schema = "ErrorModel"
    elif media == "application/json" and path != "/openapi.json":
        routes, _ = tr.match(path.partition("?")[0])
        route = routes["GET" if method == "HEAD" else method]
        assert reply.status in (route.status, 503), reply
        schema = route.answer
    if schema:
        faults = list(tr.find_faults(tr.SCHEMAS[schema], reply.json, ()))
        assert not faults, (faults, reply.json)
        assert reply.raw.endswith(b"\n") and b"null" not in reply.raw.split(b'"')[::2]
        link = f'</schemas/{schema}.json>; rel="describedBy"'
        assert reply.headers["Link"] == link
        if isinstance(reply.json, dict):
            assert reply.json["$schema"].endswith(f"/schemas/{schema}.json")


class SseEvent(NamedTuple):
    """A server-sent event."""

    name: str
    id: str
    data: Any


@contextlib.contextmanager
def quiet_fork() -> Iterator[None]:
    """Fork without the warning of threads: what is forked needs none of the locks that
    they could hold. Those of earlier tests are idle; no test has a daemon in this
    process, and with it SQLite's locks, that also forks one."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*multi-threaded", DeprecationWarning)
        yield


def serve_in_fork(
    argv: list[str], environment: dict[str, str], before: Callable[[], object]
) -> NoReturn:
    """Be a daemon in the child of Popen, which believes in an exec: the pipe that tells
    it of failures is closed."""
    before()
    os.closerange(3, 4096)
    gc.freeze()
    os.environ.clear()
    os.environ.update(environment)
    sys.argv = argv
    tr.OWN_FILE = argv[0]
    with open(1, "w") as sys.stdout, open(2, "w") as sys.stderr:
        try:
            outcome = tr.main(page=tr.PAGE)
            tr.leave_at_once(outcome if isinstance(outcome, int) else outcome())
        except BaseException:
            traceback.print_exc()
            tr.leave_at_once(1)


class Served:
    """A real daemon in a folder of its own."""

    # Whether it starts a Python of its own; else it is a fork of this process, since
    # to start Python takes longer than most tests.
    is_fresh = False

    def __init__(self, folder: Path, tasks: Any, *flags: str, **variables: str) -> None:
        self.folder = folder
        self.program = PROGRAM
        self.flags = flags
        self.mark = uuid.uuid4().hex
        self.variables = {"TR_TEST_MARK": self.mark, **variables}
        self.token = ""
        self.tls: ssl.SSLContext | None = None
        # What a fork does before it is a daemon.
        self.before: Callable[[], object] = lambda: None
        self.log = folder / "daemon.log"
        self.process: subprocess.Popen[bytes] | None = None
        # Of a server in this process.
        self.server: Any = None
        self.daemon: Any = None
        self.write_tasks(tasks)

    def write_tasks(self, tasks: Any) -> None:
        """Write tasks.json; a whole document if it has the key tasks."""
        document = tasks if "tasks" in tasks else {"tasks": tasks}
        (self.folder / "tasks.json").write_text(json.dumps(document))

    def environment(self) -> dict[str, str]:
        """What the daemon sees: this process's, without its TASKRUNNERD_ variables."""
        base = {k: v for k, v in os.environ.items() if not k.startswith("TASKRUNNERD_")}
        return {**base, **self.variables}

    def command(self, *arguments: str) -> list[str]:
        """The command line of a taskrunnerd command."""
        return [sys.executable, str(self.program), *arguments]

    def start(self) -> Served:
        """Start it and wait until it is ready."""
        self.launch()
        return self.await_ready()

    def launch(self) -> None:
        """Start it."""
        command = self.command("--port", "0", *self.flags)
        environment = self.environment()
        is_fork = self.program is PROGRAM and not self.is_fresh
        be_daemon = functools.partial(
            serve_in_fork, command[1:], environment, self.before
        )
        with open(self.log, "ab") as log, quiet_fork():
            self.process = subprocess.Popen(
                command,
                cwd=self.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                preexec_fn=be_daemon if is_fork else None,  # noqa: PLW1509
                # Python ignores SIGPIPE and SIGXFSZ from its start on.
                restore_signals=not is_fork,
            )

    def await_ready(self) -> Served:
        """Return when it is ready."""
        assert self.process and self.process.stdout
        line = self.process.stdout.readline()
        assert line, f"did not start: {self.log.read_text()}"
        ready = json.loads(line)
        assert ready["event"] == "ready" and ready["pid"] == self.process.pid
        self.url = ready.get("url", "")
        self.socket = ready.get("socket", "")
        self.port = int(self.url.rpartition(":")[2] or 0)
        return self

    def dial(self, timeout: float = DEADLINE_S) -> socket.socket:
        """A raw connection; to the Unix socket where there is no port."""
        if self.port:
            client = socket.create_connection(("127.0.0.1", self.port), timeout)
            if self.tls:
                client = self.tls.wrap_socket(client, server_hostname="localhost")
            return client
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(timeout)
        client.connect(self.socket)
        return client

    def connect(self, timeout: float = DEADLINE_S) -> http.client.HTTPConnection:
        """A keep-alive connection."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout)
        if not self.port or self.tls:
            connection.connect = lambda: setattr(  # type: ignore[method-assign]
                connection, "sock", self.dial(timeout)
            )
        return connection

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: dict[str, str] | None = None,
        connection: http.client.HTTPConnection | None = None,
    ) -> Reply:
        """Send a request and check the answer. `body` is JSON, or bytes as they are."""
        headers = dict(headers or {})
        if self.token:
            headers.setdefault("Authorization", f"Bearer {self.token}")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
            headers.setdefault("Content-Type", "application/json")
        used = connection or self.connect()
        used.request(method, path, body, headers)
        answer = used.getresponse()
        raw = answer.read()
        if connection is None:
            used.close()
        parsed = (
            json.loads(raw)
            if "json" in (answer.headers["Content-Type"] or "") and raw
            else None
        )
        reply = Reply(answer.status, answer.headers, raw, parsed)
        check_answer(method, path, reply)
        return reply

    def get(self, path: str, status: int = 200, **headers: str) -> Reply:
        """GET a path and expect a status."""
        reply = self.request(
            "GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        assert reply.status == status, reply
        return reply

    def post(self, path: str, body: Any = None, status: int = 200) -> Reply:
        """POST and expect a status."""
        reply = self.request("POST", path, body)
        assert reply.status == status, reply
        return reply

    def trigger(self, task: str, params: Any = None, query: str = "") -> Any:
        """Trigger a task and return the run at once."""
        body = None if params is None else {"params": params}
        return self.post(f"/api/tasks/{task}/run{query}", body, 201).json

    def run(self, task: str, params: Any = None) -> Any:
        """Trigger a task and return the ended run."""
        run = self.trigger(task, params, f"?wait=true&wait_timeout={int(DEADLINE_S)}")
        assert run["status"] == "ended", run
        return run

    def run_now(self, run: Any) -> Any:
        """A run as it is now."""
        return self.get(f"/api/tasks/{run['task_name']}/runs/{run['id']}").json

    def ended(self, run: Any) -> Any:
        """The run once it has ended."""

        def look() -> Any:
            now = self.run_now(run)
            return now if now["status"] == "ended" else None

        return within(DEADLINE_S, look, f"end of {run['id']}\n{self.log.read_text()}")

    def stop(self, run: Any) -> Reply:
        """Ask a run to stop."""
        return self.request(
            "POST", f"/api/tasks/{run['task_name']}/runs/{run['id']}/stop"
        )

    def raw(self, run: Any) -> bytes:
        """The output of a run, as written."""
        return self.get(f"/api/tasks/{run['task_name']}/runs/{run['id']}/log/raw").raw

    def lines(self, run: Any, query: str = "?from=0&limit=10000") -> list[Any]:
        """The output of a run, by lines."""
        return self.get(
            f"/api/tasks/{run['task_name']}/runs/{run['id']}/log{query}"
        ).json["lines"]

    @contextlib.contextmanager
    def events(self, path: str, **headers: str) -> Iterator[Iterator[SseEvent]]:
        """The server-sent events of a path, as they come; comments are left out."""
        connection = self.connect()
        sent = {k.replace("_", "-"): v for k, v in headers.items()}
        if self.token:
            sent["Authorization"] = f"Bearer {self.token}"
        connection.request("GET", path, headers=sent)
        answer = connection.getresponse()
        assert answer.status == 200, answer.read()
        assert answer.headers["Content-Type"] == "text/event-stream"
        try:
            yield parse_events(answer)
        finally:
            answer.close()
            connection.close()

    def exchange(self, raw: bytes, timeout: float = DEADLINE_S) -> bytes:
        """Send raw bytes and read until the daemon closes the connection."""
        with self.dial(timeout) as client:
            client.sendall(raw)
            return b"".join(iter(lambda: client.recv(65536), b""))

    def end(self, number: int = signal.SIGTERM) -> int:
        """Signal the daemon and return its exit code."""
        assert self.process
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for the daemon's end and return its exit code."""
        assert self.process
        if self.process.returncode is None:
            # Popen would look again and again, at ever longer intervals. Not every
            # system has this call.
            with contextlib.suppress(AttributeError, OSError):
                fd, poll = os.pidfd_open(self.process.pid), select.poll()
                poll.register(fd, select.POLLIN)
                poll.poll(DEADLINE_S * 1000)
                os.close(fd)
        try:
            code = self.process.wait(DEADLINE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            assert self.process.stdout
            self.process.stdout.close()
        self.process = None
        return code

    def close(self) -> None:
        """End the daemon if it lives, and fail when it leaves anything or had a bug."""
        if self.process and self.process.poll() is None:
            assert self.end() == 0, self.log.read_text()
        elif self.process:
            self.wait()
        text = self.log.read_text() if self.log.exists() else ""
        # pytest shows it with a failure.
        print(f"{self.log}:\n{text[-20_000:]}")
        assert "Traceback" not in text, text
        assert not marked_pids(self.mark), (
            f"left behind: {describe(marked_pids(self.mark))}"
        )


def parse_events(lines: Iterator[bytes] | Any) -> Iterator[SseEvent]:
    """Server-sent events out of a stream of lines."""
    fields: dict[str, str] = {}
    for line in lines:
        text = line.decode().rstrip("\n")
        if not text and fields:
            yield SseEvent(
                fields["event"], fields.get("id", ""), json.loads(fields["data"])
            )
            fields = {}
        elif text and not text.startswith(":"):
            name, _, value = text.partition(": ")
            fields[name] = value


def marked_pids(mark: str) -> list[int]:
    """Live processes that carry a mark in their environment."""
    found = []
    for name in os.listdir("/proc") if os.path.exists("/proc/self/environ") else []:
        with contextlib.suppress(OSError):
            if name.isdigit():
                with open(f"/proc/{name}/environ", "rb", buffering=0) as environ:
                    if mark.encode() in environ.read():
                        found.append(int(name))
    return found


def describe(pids: list[int]) -> str:
    """Command lines of processes."""
    texts = []
    for pid in pids:
        with contextlib.suppress(OSError):
            texts.append(f"{pid} {Path(f'/proc/{pid}/cmdline').read_bytes()!r}")
    return "; ".join(texts)


def is_alive(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"


def open_files(daemon: Served | None = None) -> int:
    """How many file descriptors a daemon has open; or this process, where what earlier
    tests left is closed first."""
    if daemon:
        assert daemon.process
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))
    gc.collect()
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture(scope="session", autouse=True)
def frozen_heap():
    """What is there after the collection of tests stays: no collection of garbage need
    walk through it, nor make a fork have a copy of it."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., Served]]:
    """Start daemons: serve(tasks, *flags, **environment)."""
    served: list[Served] = []

    def start(tasks: Any, *flags: str, **variables: str) -> Served:
        folder = tmp_path / f"daemon{len(served)}"
        folder.mkdir()
        served.append(Served(folder, tasks, *flags, **variables))
        return served[-1].start()

    yield start
    for daemon in served:
        daemon.close()


SHARED_TASKS: dict[str, Any] = {
    "hello": {"run": "echo hello"},
    "true": {"run": "true", "max_concurrent": 64},
    "fail": {"run": "echo 'went wrong' >&2; exit 3"},
    "echo": {
        "params": [{"env": "TEXT", "default": "some text"}],
        "run": "printf '%s' \"$TEXT\"",
        "max_concurrent": 16,
    },
    "wait-for-fifo": {
        "params": [{"arg": "fifo", "required": True}],
        "run": 'echo waiting; cat "$1"',
        "max_concurrent": 16,
    },
    "forbidden": {"run": "true", "api_trigger": False},
}


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One daemon with SHARED_TASKS for tests that leave nothing running in it."""
    daemon = Served(tmp_path_factory.mktemp("shared"), SHARED_TASKS).start()
    yield daemon
    daemon.close()


@pytest.fixture
def fifo(tmp_path: Path) -> Path:
    """A FIFO: a child that opens it blocks until the test writes or closes."""
    path = tmp_path / "fifo"
    os.mkfifo(path)
    return path


class FakeClock(tr.Clock):
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.ms = 1_800_000_000_000
        self.s = 1000.0

    def wall_ms(self) -> int:
        """The date."""
        return self.ms

    def monotonic_s(self) -> float:
        """The stop watch."""
        return self.s

    def set_date(self, hours: float) -> None:
        """What an operator or NTP does: the date jumps, no time passes."""
        self.ms += int(hours * 3_600_000)

    def pass_time(self, seconds: float) -> None:
        """Move both hands."""
        self.ms += int(seconds * 1000)
        self.s += seconds


def write_config(folder: Path, document: Any) -> str:
    """A tasks.json in a folder; returns its path."""
    path = folder / "tasks.json"
    text = document if isinstance(document, str) else json.dumps(document, indent=2)
    path.write_text(text)
    return str(path)


def has_drained(daemon: tr.Daemon) -> bool:
    """Whether nothing runs any more in a daemon of which only tests move the clock."""
    if not daemon.draining:
        return False
    # What is killed at a time is killed by a tick, which now starts nothing.
    daemon.tick()
    with daemon._mutex:
        return not daemon._running()


@pytest.fixture
def in_process(tmp_path: Path) -> Iterator[Callable[..., tr.Daemon]]:
    """Daemons in this process: in_process(tasks, clock). Their schedule does not run by
    itself: tests call tick(). With `after`, one that succeeds another, which ends."""
    made: list[tr.Daemon] = []

    def end(daemon: tr.Daemon) -> None:
        drained = in_thread(lambda: daemon.drain(0))
        within(DEADLINE_S, lambda: has_drained(daemon), "drained")
        drained()
        daemon.close()
        daemon.folder.unlock()

    def make(
        tasks: Any, clock: tr.Clock | None = None, after: tr.Daemon | None = None
    ) -> tr.Daemon:
        folder = tmp_path / f"in-process{len(made)}"
        if after:
            end(after)
            made.remove(after)
            folder = Path(after.folder.path).parent
        folder.mkdir(exist_ok=True)
        config = tr.load_config(write_config(folder, {"tasks": tasks}))
        data = tr.DataFolder(str(folder / "data"))
        assert data.lock() == 0
        daemon = tr.Daemon(config, data, clock or tr.Clock())
        daemon.recover()
        made.append(daemon)
        return daemon

    yield make
    for daemon in made:
        end(daemon)


class CheckedLock:
    """A lock that notes when a thread takes it while it holds another one: no thread
    may ever hold two (I3). Put in place of threading.Lock for in-process daemons."""

    held = threading.local()
    broken: list[str] = []

    def __init__(self) -> None:
        self._lock = _plain_lock()

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        """As threading.Lock."""
        count = getattr(self.held, "count", 0)
        if count:
            self.broken.append("".join(traceback.format_stack(limit=8)))
        got = self._lock.acquire(blocking, timeout)
        self.held.count = count + got
        return got

    def release(self) -> None:
        """As threading.Lock."""
        self.held.count -= 1
        self._lock.release()

    def locked(self) -> bool:
        """As threading.Lock."""
        return self._lock.locked()

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


_plain_lock = threading.Lock


@pytest.fixture
def one_lock_only(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Fail when any thread holds two of the daemon's locks at once."""

    class Threading:
        """The module threading as the daemon sees it, with checked locks."""

        Lock = CheckedLock

        def __getattr__(self, name: str) -> Any:
            return getattr(threading, name)

    monkeypatch.setattr(tr, "threading", Threading())
    CheckedLock.broken.clear()
    yield
    assert not CheckedLock.broken, CheckedLock.broken[0]


# ---- 2. Values: clock, time text, identifiers, durations, sizes -------------


def test_clock_tells_date_and_stop_watch():
    clock = tr.Clock()
    before_ms, before_s = time.time_ns() // 1_000_000, time.monotonic()
    assert before_ms <= clock.wall_ms() <= time.time_ns() // 1_000_000
    assert before_s <= clock.monotonic_s() <= time.monotonic()


@pytest.mark.parametrize("unix_ms, text", [
    (0, "1970-01-01T00:00:00.000Z"), (1, "1970-01-01T00:00:00.001Z"),
    (951_782_400_000, "2000-02-29T00:00:00.000Z"),
    (1_769_846_400_000, "2026-01-31T08:00:00.000Z"),
    (253_402_300_799_999, "9999-12-31T23:59:59.999Z"),
    (-500, "1969-12-31T23:59:59.500Z"),
])  # fmt: skip
def test_time_text_and_parse_time_are_inverse(unix_ms, text):
    assert tr.time_text(unix_ms) == text
    assert tr.parse_time(text) == unix_ms


def test_time_survives_text_for_any_instant():
    rng = random.Random(2)
    for _ in range(2000):
        unix_ms = rng.randrange(-62_135_596_800_000, 253_402_300_800_000)
        assert tr.parse_time(tr.time_text(unix_ms)) == unix_ms


@pytest.mark.parametrize("text, same_as", [
    ("2026-01-31T08:00:00Z", "2026-01-31T08:00:00.000Z"),
    ("2026-01-31t08:00:00z", "2026-01-31T08:00:00.000Z"),
    ("2026-01-31 08:00:00Z", "2026-01-31T08:00:00.000Z"),
    ("2026-01-31T08:00:00.5Z", "2026-01-31T08:00:00.500Z"),
    ("2026-01-31T08:00:00.123456789Z", "2026-01-31T08:00:00.123Z"),
    ("2026-01-31T08:00:00+00:00", "2026-01-31T08:00:00.000Z"),
    ("2026-01-31T08:00:00+05:30", "2026-01-31T02:30:00.000Z"),
    ("2026-01-31T22:00:00-03:00", "2026-02-01T01:00:00.000Z"),
    ("2016-12-31T23:59:60Z", "2016-12-31T23:59:59.000Z"),
])  # fmt: skip
def test_parse_time_reads_every_form_of_rfc3339(text, same_as):
    assert tr.time_text(tr.parse_time(text)) == same_as


@pytest.mark.parametrize("text", [
    "", "yesterday", "2026-01-31", "2026-01-31T08:00:00", "2026-01-31T08:00Z",
    "2026-1-31T08:00:00Z", "2026-02-29T08:00:00Z", "2026-13-01T08:00:00Z",
    "2026-01-31T24:00:00Z", "2026-01-31T08:60:00Z", "2026-01-31T08:00:61Z",
    "2026-01-31T08:00:00.Z", "2026-01-31T08:00:00+0100", "2026-01-31T08:00:00+24:00",
    "2026-01-31T08:00:00+01:60", "2026-01-31T08:00:00Z\n", " 2026-01-31T08:00:00Z",
    "0000-01-01T00:00:00Z", "0001-01-01T00:00:00+01:00", "9999-12-31T23:59:59-01:00",
    "\u0662\u0660\u0662\u0666-01-31T08:00:00Z",
])  # fmt: skip
def test_parse_time_refuses(text):
    with pytest.raises(ValueError, match="is not an RFC 3339 time; write 2026-01-31T"):
        tr.parse_time(text)


def test_time_does_not_depend_on_the_zone_of_the_machine(monkeypatch):
    try:
        monkeypatch.setenv("TZ", "XXX+11")
        time.tzset()
        assert tr.time_text(1_769_846_400_000) == "2026-01-31T08:00:00.000Z"
        assert tr.parse_time("2026-01-31T08:00:00Z") == 1_769_846_400_000
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize("number, text", [
    (0, "0" * 26), (31, "0" * 25 + "Z"), (32, "0" * 24 + "10"),
    (2**128 - 1, "7" + "Z" * 25), (1_469_918_176_385 << 80, "01ARYZ6S41" + "0" * 16),
])  # fmt: skip
def test_ulid_text_and_number_are_inverse(number, text):
    assert tr.ulid_text(number) == text
    assert tr.ulid_number(text) == number


def test_ulid_has_26_characters_and_begins_with_its_time():
    made = tr.Ulids().make(1_469_918_176_385)
    assert re.fullmatch("01ARYZ6S41[0-9A-HJKMNP-TV-Z]{16}", made)
    assert tr.matches(tr.RUN_ID_PATTERN, made)


def test_ulids_of_two_makers_differ():
    assert tr.Ulids().make(1) != tr.Ulids().make(1)


@pytest.mark.parametrize("seed", range(5))
def test_ulids_sort_in_the_order_of_making_whatever_the_clock_does(seed):
    rng = random.Random(seed)
    ids, made, now_ms = tr.Ulids(), [], 1_700_000_000_000
    for _ in range(2000):
        now_ms += rng.choice([0, 0, 0, 1, 1, 7, 5000, -1, -3, -60_000])
        made.append(ids.make(now_ms))
        if rng.random() < 0.01:  # the daemon starts again and knows only the newest
            ids = tr.Ulids(made[-1])
    assert made == sorted(made)
    assert len(set(made)) == len(made)
    assert all(tr.matches(tr.RUN_ID_PATTERN, one) for one in made)


def test_ulid_takes_the_clock_up_again_once_it_has_caught_up():
    ids = tr.Ulids()
    ids.make(2000)
    back = ids.make(1000)
    assert tr.ulid_number(back) >> 80 == 2000
    assert tr.ulid_number(ids.make(2001)) >> 80 == 2001


def test_ulid_counts_on_past_the_last_of_a_millisecond(monkeypatch):
    monkeypatch.setattr(tr.os, "urandom", lambda size: b"\xff" * size)
    ids = tr.Ulids()
    made = [ids.make(5), ids.make(5), ids.make(6)]
    assert made == sorted(set(made))


@pytest.mark.parametrize("text, seconds", [
    ("0s", 0), ("250ms", 0.25), ("30s", 30), ("1.5s", 1.5), ("5m", 300),
    ("1h30m", 5400), ("2d", 172_800), ("1w", 604_800), ("1d2h3m4s", 93_784),
    ("3660d", 3660 * 86_400),
])  # fmt: skip
def test_parse_duration_reads(text, seconds):
    assert tr.parse_duration(text) == seconds


@pytest.mark.parametrize("text", [
    "", "5", "s", "abc", "-5s", "+5s", "5 s", "5S", "1h 30m", "1h30", ".5s", "5.s",
    "1e3s", "5s\n", "1y", "\u0663s",
])  # fmt: skip
def test_parse_duration_refuses(text):
    with pytest.raises(ValueError, match="is not a duration; write 30s, 5m, 1h30m, 2d"):
        tr.parse_duration(text)


@pytest.mark.parametrize("text", ["3661d", "9" * 5000 + "w", "1d" * 3661])
def test_parse_duration_refuses_more_than_ten_years(text):
    with pytest.raises(ValueError, match="is longer than ten years"):
        tr.parse_duration(text)


@pytest.mark.parametrize("seconds, text", [
    (0, "0.00 s"), (0.25, "0.25 s"), (12.34, "12.3 s"), (60, "1m00s"), (245.9, "4m05s"),
    (7800, "2h10m"), (3 * 86_400 + 4 * 3600, "3d4h"),
])  # fmt: skip
def test_duration_text_is_for_people(seconds, text):
    assert tr.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "ns"), [(0, 0), (1, 10**9), (0.25, 250_000_000), (5400, 5400 * 10**9)]
)
def test_nanoseconds_are_whole(seconds, ns):
    assert tr.nanoseconds(seconds) == ns
    assert isinstance(tr.nanoseconds(seconds), int)


@pytest.mark.parametrize("text, size_bytes", [
    ("0b", 0), ("512b", 512), ("64kb", 65_536), ("100mb", 104_857_600),
    ("100MB", 104_857_600), ("100 mb", 104_857_600), ("1.5gb", 1_610_612_736),
    ("2tb", 2_199_023_255_552),
])  # fmt: skip
def test_parse_size_reads(text, size_bytes):
    assert tr.parse_size(text) == size_bytes


@pytest.mark.parametrize(
    "text", ["", "mb", "100", "100m", "-1mb", "1e3mb", ".5mb", "1mb1kb", "1mb\n", "1pb"]
)
def test_parse_size_refuses(text):
    with pytest.raises(ValueError, match="is not a size; write 64kb, 100mb, 1gb"):
        tr.parse_size(text)


def test_parse_size_refuses_what_no_number_can_hold():
    with pytest.raises(ValueError, match="is"):
        tr.parse_size("9" * 400 + "gb")


@pytest.mark.parametrize("size_bytes, text", [
    (0, "0 B"), (512, "512 B"), (1024, "1.0 KB"), (1536, "1.5 KB"),
    (16 * 1024 * 1024, "16.0 MB"), (5 * 1024**4, "5.0 TB"),
    (5000 * 1024**4, "5000.0 TB"),
])  # fmt: skip
def test_size_text_is_for_people(size_bytes, text):
    assert tr.size_text(size_bytes) == text


# ---- 3. Cron: parse an expression, find the next tick in a zone; pure -------


def has_zones():
    try:
        return bool(zoneinfo.ZoneInfo("Europe/Berlin"))
    except zoneinfo.ZoneInfoNotFoundError:
        return False


needs_zones = pytest.mark.skipif(
    not has_zones(), reason="no time zone database on this machine"
)
CRON_START = "2026-03-04 10:17:30"  # a Wednesday


def utc_s(text):
    """Unix seconds of a UTC date with time, `2026-03-04 10:17[:30]`."""
    return int(datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp())


def utc_text(at_s):
    text = f"{datetime.fromtimestamp(at_s, timezone.utc):%Y-%m-%d %H:%M:%S}"
    return text.removesuffix(":00")


def next_ticks(cron, after_s, count):
    ticks = []
    for _ in range(count):
        ticks.append(tr.next_tick(cron, after_s))
        after_s = ticks[-1].at_s
    return ticks


def ticks_until(cron, after_s, until_s):
    ticks = []
    tick = tr.next_tick(cron, after_s)
    while tick.at_s <= until_s:
        ticks.append(tick)
        tick = tr.next_tick(cron, tick.at_s)
    return ticks


@pytest.mark.parametrize("text, expected", [
    # minutes
    ("* * * * *", "2026-03-04 10:18, 2026-03-04 10:19"),
    ("? ? ? ? ?", "2026-03-04 10:18, 2026-03-04 10:19"),
    ("*/5 * * * *", "2026-03-04 10:20, 2026-03-04 10:25"),
    ("*/7 * * * *", "2026-03-04 10:21, 2026-03-04 10:28"),
    ("*/60 * * * *", "2026-03-04 11:00, 2026-03-04 12:00"),
    ("0-59/15 * * * *", "2026-03-04 10:30, 2026-03-04 10:45"),
    ("50/5 * * * *", "2026-03-04 10:50, 2026-03-04 10:55, 2026-03-04 11:50"),
    ("5 * * * *", "2026-03-04 11:05, 2026-03-04 12:05"),
    ("17,19 * * * *", "2026-03-04 10:19, 2026-03-04 11:17"),
    ("19,17,19 * * * *", "2026-03-04 10:19, 2026-03-04 11:17"),
    ("10-19/3 * * * *", "2026-03-04 10:19, 2026-03-04 11:10"),
    ("1-3,58-59 * * * *", "2026-03-04 10:58, 2026-03-04 10:59, 2026-03-04 11:01"),
    ("*,5 * * * *", "2026-03-04 10:18, 2026-03-04 10:19"),
    # hours
    ("0 12 * * *", "2026-03-04 12:00, 2026-03-05 12:00"),
    (" 0  12\t* * * ", "2026-03-04 12:00, 2026-03-05 12:00"),
    ("30 3 * * *", "2026-03-05 03:30, 2026-03-06 03:30"),
    ("0 0 * * *", "2026-03-05 00:00, 2026-03-06 00:00"),
    ("0 8-18 * * *", "2026-03-04 11:00, 2026-03-04 12:00"),
    ("0 8-18/4 * * *", "2026-03-04 12:00, 2026-03-04 16:00, 2026-03-05 08:00"),
    ("0 22,2 * * *", "2026-03-04 22:00, 2026-03-05 02:00"),
    ("*/20 9-10 * * *", "2026-03-04 10:20, 2026-03-04 10:40, 2026-03-05 09:00"),
    ("30 */6 * * *", "2026-03-04 12:30, 2026-03-04 18:30, 2026-03-05 00:30"),
    ("15 10/5 * * *", "2026-03-04 15:15, 2026-03-04 20:15, 2026-03-05 10:15"),
    # weekdays
    ("0 9 * * 1-5", "2026-03-05 09:00, 2026-03-06 09:00, 2026-03-09 09:00"),
    ("0 9 * * mon-fri", "2026-03-05 09:00, 2026-03-06 09:00, 2026-03-09 09:00"),
    ("0 9 * * MON,wEd", "2026-03-09 09:00, 2026-03-11 09:00"),
    ("0 9 * * 0", "2026-03-08 09:00, 2026-03-15 09:00"),
    ("0 9 * * 7", "2026-03-08 09:00, 2026-03-15 09:00"),
    ("0 9 * * sun", "2026-03-08 09:00, 2026-03-15 09:00"),
    ("00 09 * * 01", "2026-03-09 09:00, 2026-03-16 09:00"),
    ("0 9 * * 5-7", "2026-03-06 09:00, 2026-03-07 09:00, 2026-03-08 09:00"),
    ("0 9 * * fri-sun", "2026-03-06 09:00, 2026-03-07 09:00, 2026-03-08 09:00"),
    ("0 9 * * 7-2", "2026-03-08 09:00, 2026-03-09 09:00, 2026-03-10 09:00"),
    ("0 9 * * fri-sun/2", "2026-03-06 09:00, 2026-03-08 09:00, 2026-03-13 09:00"),
    ("0 9 * * 1/2", "2026-03-06 09:00, 2026-03-09 09:00, 2026-03-11 09:00"),
    ("0 9 * * */3", "2026-03-07 09:00, 2026-03-08 09:00, 2026-03-11 09:00"),
    ("0 9 * * 7/2", "2026-03-08 09:00, 2026-03-15 09:00"),
    # days and months
    ("0 0 1 * *", "2026-04-01 00:00, 2026-05-01 00:00"),
    ("0 0 30 * *", "2026-03-30 00:00, 2026-04-30 00:00"),
    ("0 0 31 * *", "2026-03-31 00:00, 2026-05-31 00:00, 2026-07-31 00:00"),
    ("0 0 * 6 *", "2026-06-01 00:00, 2026-06-02 00:00"),
    ("59 23 31 12 *", "2026-12-31 23:59, 2027-12-31 23:59"),
    ("0 0 1 jan *", "2027-01-01 00:00, 2028-01-01 00:00"),
    ("0 0 1 JAN-mar/2 *", "2027-01-01 00:00, 2027-03-01 00:00"),
    ("0 0 1 */3 *", "2026-04-01 00:00, 2026-07-01 00:00"),
    ("0 0 1 11/1 *", "2026-11-01 00:00, 2026-12-01 00:00, 2027-11-01 00:00"),
    ("0 0 29 2 *", "2028-02-29 00:00, 2032-02-29 00:00"),
    ("0 0 28-31 2 *", "2027-02-28 00:00, 2028-02-28 00:00, 2028-02-29 00:00"),
    ("0 0 31 2,5 *", "2026-05-31 00:00, 2027-05-31 00:00"),
    # a day or a weekday, and Vixie's rule: a star in front makes it both
    ("0 0 13 * 5", "2026-03-06 00:00, 2026-03-13 00:00, 2026-03-20 00:00"),
    ("0 0 1,15 * mon", "2026-03-09 00:00, 2026-03-15 00:00, 2026-03-16 00:00"),
    ("0 0 30 2 mon", "2027-02-01 00:00, 2027-02-08 00:00"),
    ("0 0 1-31 * mon", "2026-03-05 00:00, 2026-03-06 00:00"),
    ("0 0 ? * mon", "2026-03-09 00:00, 2026-03-16 00:00"),
    ("0 0 13 * ?", "2026-03-13 00:00, 2026-04-13 00:00"),
    ("0 0 */2 * mon", "2026-03-09 00:00, 2026-03-23 00:00, 2026-04-13 00:00"),
    ("0 0 1-7 * */2", "2026-03-05 00:00, 2026-03-07 00:00, 2026-04-02 00:00"),
    ("0 0 */31 2 *", "2027-02-01 00:00, 2028-02-01 00:00"),
    ("0 0 29 2 */7", "2032-02-29 00:00, 2060-02-29 00:00, 2088-02-29 00:00"),
    ("0 0 29 2 */6", "2032-02-29 00:00, 2048-02-29 00:00"),
    # seconds
    ("* * * * * *", "2026-03-04 10:17:31, 2026-03-04 10:17:32"),
    ("*/10 * * * * *", "2026-03-04 10:17:40, 2026-03-04 10:17:50"),
    ("30 * * * * *", "2026-03-04 10:18:30, 2026-03-04 10:19:30"),
    ("0 * * * * *", "2026-03-04 10:18, 2026-03-04 10:19"),
    ("30 17 10 4 3 *", "2027-03-04 10:17:30"),
    ("15,45 30 6 * * 1", "2026-03-09 06:30:15, 2026-03-09 06:30:45"),
    ("59/1 59 23 31 12 ?", "2026-12-31 23:59:59, 2027-12-31 23:59:59"),
    # words for all of it
    ("@yearly", "2027-01-01 00:00, 2028-01-01 00:00"),
    ("@annually", "2027-01-01 00:00, 2028-01-01 00:00"),
    ("@monthly", "2026-04-01 00:00, 2026-05-01 00:00"),
    ("@weekly", "2026-03-08 00:00, 2026-03-15 00:00"),
    ("@daily", "2026-03-05 00:00, 2026-03-06 00:00"),
    (" @Midnight ", "2026-03-05 00:00, 2026-03-06 00:00"),
    ("@hourly", "2026-03-04 11:00, 2026-03-04 12:00"),
    ("@every 90s", "2026-03-04 10:18, 2026-03-04 10:19:30"),
    ("@every 1h30m", "2026-03-04 10:30, 2026-03-04 12:00"),
    ("@EVERY\t1d", "2026-03-05 00:00, 2026-03-06 00:00"),
    # zones that are there without a database
    ("CRON_TZ=UTC 0 12 * * *", "2026-03-04 12:00, 2026-03-05 12:00"),
    ("TZ=Etc/UTC\t@hourly", "2026-03-04 11:00, 2026-03-04 12:00"),
])  # fmt: skip
def test_cron_ticks_of_an_expression(text, expected):
    expected = expected.split(", ")
    ticks = next_ticks(tr.parse_cron(text), utc_s(CRON_START), len(expected))
    assert [utc_text(tick.at_s) for tick in ticks] == expected
    assert all(tick.fires and not tick.note for tick in ticks)


CRON_WEEKDAYS = "write 0 to 7 or sun to sat"
CRON_MACROS = (
    "@yearly, @annually, @monthly, @weekly, @daily, @midnight, @hourly, @every 5m"
)
CRON_FIELDS = "write 5 (minute hour day month weekday) or 6 with seconds first"


@pytest.mark.parametrize("text, message", [
    ("61 * * * *", '"61" is not a minute; write 0 to 59'),
    ("60 * * * * *", '"60" is not a second; write 0 to 59'),
    ("0 24 * * *", '"24" is not an hour; write 0 to 23'),
    ("0 0 0 * *", '"0" is not a day of the month; write 1 to 31'),
    ("0 0 1-32 * *", '"32" is not a day of the month; write 1 to 31'),
    ("0 0 L * *", '"L" is not a day of the month; write 1 to 31'),
    ("0 0 * 13 *", '"13" is not a month; write 1 to 12 or jan to dec'),
    ("0 0 * mon *", '"mon" is not a month; write 1 to 12 or jan to dec'),
    ("0 0 * * 8", f'"8" is not a weekday; {CRON_WEEKDAYS}'),
    ("0 0 * * monday", f'"monday" is not a weekday; {CRON_WEEKDAYS}'),
    ("0 0 * * 5#2", f'"5#2" is not a weekday; {CRON_WEEKDAYS}'),
    ("-1 * * * *", '"" is not a minute; write 0 to 59'),
    ("1,,2 * * * *", '"" is not a minute; write 0 to 59'),
    ("1- * * * *", '"" is not a minute; write 0 to 59'),
    ("1-2-3 * * * *", '"2-3" is not a minute; write 0 to 59'),
    ("*-5 * * * *", '"*" is not a minute; write 0 to 59'),
    ("** * * * *", '"**" is not a minute; write 0 to 59'),
    ("1.5 * * * *", '"1.5" is not a minute; write 0 to 59'),
    ("+5 * * * *", '"+5" is not a minute; write 0 to 59'),
    ("\u0663 * * * *", '"\u0663" is not a minute; write 0 to 59'),
    ("00005 * * * *", '"00005" is not a minute; write 0 to 59'),
    ("30-10 * * * *", '"30-10" runs backwards; write 30-59,0-10'),
    ("0 22-2 * * *", '"22-2" runs backwards; write 22-23,0-2'),
    ("0 0 * nov-feb *", '"nov-feb" runs backwards; write 11-12,1-2'),
    ("0 0 * * fri-mon", '"fri-mon" runs backwards; write 5-6,0-1'),
    ("*/0 * * * *", '"*/0" has a faulty step; write 1 to 60 after the /'),
    ("*/ * * * *", '"*/" has a faulty step; write 1 to 60 after the /'),
    ("*/90 * * * *", '"*/90" has a faulty step; write 1 to 60 after the /'),
    ("0 1-9/-2 * * *", '"1-9/-2" has a faulty step; write 1 to 24 after the /'),
    ("0 */2/3 * * *", '"*/2/3" has a faulty step; write 1 to 24 after the /'),
    ("0 0 * * */8", '"*/8" has a faulty step; write 1 to 7 after the /'),
    ("/5 * * * *", '"" is not a minute; write 0 to 59'),
    ("", f"0 fields; {CRON_FIELDS}"), (" \t", f"0 fields; {CRON_FIELDS}"),
    ("hourly", f"1 field; {CRON_FIELDS}"), ("0 3 * *", f"4 fields; {CRON_FIELDS}"),
    ("0 0 0 1 1 * 2026", f"7 fields; {CRON_FIELDS}"),
    ("CRON_TZ=UTC", f"0 fields; {CRON_FIELDS}"),
    ("0 0 30 2 *", "can never fire: no such date as 30 February"),
    ("0 0 30,31 feb ?", "can never fire: no such date as 30 February"),
    ("0 0 30 2 */2", "can never fire: no such date as 30 February"),
    ("0 0 31 4,6 *", "can never fire: no such date as 31 April or 31 June"),
    ("@reboot", '"@reboot" is no time of its own; use run_on_start instead'),
    ("@dialy", f'"@dialy" is unknown; write {CRON_MACROS}'),
    ("@daily 5", f'"@daily 5" is unknown; write {CRON_MACROS}'),
    ("@every 0s", '"@every 0s" is not whole seconds, at least 1s'),
    ("@every 0.5s", '"@every 0.5s" is not whole seconds, at least 1s'),
    ("@every 1.5s", '"@every 1.5s" is not whole seconds, at least 1s'),
    ("@every 9999d", '"9999d" is longer than ten years'),
    ("*," * 600, "1200 characters; write at most 1000"),
])  # fmt: skip
def test_cron_fault_says_what_would_be_right(text, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tr.parse_cron(text)


@pytest.mark.parametrize("text", ["@every", "@every x", "@every 5", "@everyhour"])
def test_cron_every_wants_a_duration(text):
    with pytest.raises(ValueError, match=r"duration|@everyhour"):
        tr.parse_cron(text)


def test_cron_leap_day_waits_through_2100():
    cron = tr.parse_cron("0 0 29 2 *")
    assert utc_text(tr.next_tick(cron, utc_s("2096-03-01 00:00")).at_s) == (
        "2104-02-29 00:00"
    )


def test_cron_every_counts_from_the_anchor():
    cron = tr.parse_cron("@every 1h30m")
    anchor_s = utc_s("2026-03-04 10:00:07")
    before = tr.next_tick(cron, anchor_s - 10**6, anchor_s)
    first = tr.next_tick(cron, anchor_s, anchor_s)
    second = tr.next_tick(cron, first.at_s, anchor_s)
    assert before == first == (anchor_s + 5400, True, "")
    assert second == (anchor_s + 10800, True, "")
    assert tr.next_tick(cron, first.at_s - 1, anchor_s) == first


@needs_zones
def test_cron_zone_in_front_beats_the_zone_given():
    cron = tr.parse_cron("CRON_TZ=Asia/Kathmandu 0 0 * * *", "No/Matter")
    assert cron.zone_name == "Asia/Kathmandu"
    assert cron.text == "0 0 * * *"
    tick = tr.next_tick(cron, utc_s(CRON_START))
    assert utc_text(tick.at_s) == "2026-03-04 18:15"


@needs_zones
@pytest.mark.parametrize("name, message", [
    ("Europe/Berln", "did you mean Europe/Berlin"),
    ("europe/berlin", "did you mean Europe/Berlin"),
    ("Berlin", "did you mean Europe/Berlin"),
    ("new_york", "did you mean America/New_York"), ("Europe", "did you mean "),
    ("", "write one like Etc/UTC"),
    ("CET-1CEST,M3.5.0,M10.5.0/3", "write one like Etc/UTC"),
    ("../../etc/passwd", "write one like Etc/UTC"),
    ("/etc/passwd", "write one like Etc/UTC"), ("zone.tab", ""),
    ("a\0b", "write one like Etc/UTC"), ("x" * 900, "write one like Etc/UTC"),
])  # fmt: skip
def test_cron_unknown_zone_is_refused(name, message):
    message = f'unknown time zone "{name[:60]}"; {message}'
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        tr.parse_cron("* * * * *", name)


@pytest.fixture
def no_zones(monkeypatch):
    """A machine without a zone database."""
    monkeypatch.setitem(sys.modules, "tzdata", None)
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    tr.zone_named.cache_clear()
    yield
    zoneinfo.reset_tzpath()
    tr.zone_named.cache_clear()


def test_cron_without_zones_runs_utc_and_says_what_to_install(no_zones):
    for name in ("UTC", "Etc/UTC"):
        assert tr.next_tick(tr.parse_cron("@hourly", name), 0).at_s == 3600
    message = (
        "no time zone database on this machine;"
        " install tzdata (Debian: apt install tzdata) or use UTC"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        tr.parse_cron("@hourly", "Europe/Berlin")


@pytest.fixture
def libc(monkeypatch):
    """To set TZ and the like, which the C library then forgets again."""
    if platform.libc_ver()[0] != "glibc":
        pytest.skip("other C libraries read other zones, from other places")
    monkeypatch.delenv("TZDIR", raising=False)
    yield monkeypatch
    monkeypatch.undo()
    time.tzset()
    tr._spans.cache_clear()


def assert_zone_of_libc(name):
    """Every week of two years has, in the zone, the date that date(1) shows."""
    from_s = utc_s("2026-11-28 12:00")
    for at_s in range(from_s, from_s + 730 * 86400, 7 * 86400):
        shown = datetime.fromisoformat(tr.zone_text(at_s, name))
        assert shown.timestamp() == at_s
        assert shown.timetuple()[:6] == time.localtime(at_s)[:6]


ZONE_NOW_S = 1_795_867_200  # 2026-11-28 12:00
needs_zones_of_libc = pytest.mark.skipif(
    not Path("/usr/share/zoneinfo/Asia/Tokyo").exists(),
    reason="the C library has no time zone database, or has it elsewhere",
)


@needs_zones_of_libc
@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("Asia/Tokyo", "Asia/Tokyo"),
        (":Europe/Berlin", "Europe/Berlin"),
        ("/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        (":/usr/share/zoneinfo/Asia/Tokyo", "Asia/Tokyo"),
        ("", "UTC"),
        (":", "UTC"),
        ("UTC0", "UTC"),
        ("EST5EDT", "EST5EDT"),  # also a file
        ("CET-1CEST,M3.5.0,M10.5.0/3", "local"),
        (":CET-1CEST,M3.5.0/2,M10.5.0/3", "local"),
        ("NZST-12:00:00NZDT-13:00,M9.5.0,M4.1.0/3", "local"),
        ("<-03>3", "local"),
        ("<+0545>-5:45", "local"),
        ("AAA3BBB,J60,J300/-1", "local"),
        ("AAA3BBB,59/0,300", "local"),
        ("{folder}/copy", "local"),
        ("{folder}/link", "Asia/Tokyo"),
    ],
)
def test_cron_zone_of_tz_is_that_of_the_c_library(tmp_path, libc, variable, expected):
    zone = Path("/usr/share/zoneinfo/Asia/Tokyo")
    if "{" in variable:
        shutil.copy(zone, tmp_path / "copy")
        (tmp_path / "another").symlink_to(zone)
        (tmp_path / "link").symlink_to("another")
    libc.setenv("TZ", variable.format(folder=tmp_path))
    assert tr.local_zone(ZONE_NOW_S) == (expected, "")
    assert_zone_of_libc(expected)


@needs_zones
@pytest.mark.parametrize("variable, fault", [
    ("Asia/Toky", 'unknown time zone "Asia/Toky"; did you mean Asia/Tokyo'),
    ("Europe", 'unknown time zone "Europe"; did you mean Europe/'),
    ("Nowhere", 'unknown time zone "Nowhere"; write one like Etc/UTC'),
    ("CET-1CEST,M3.5.0", 'unknown time zone "CET-1CEST,M3.5.0"; write one like'),
    ("/no/file", 'unknown time zone "/no/file"; write one like Etc/UTC'),
    ("XXX-25", 'unknown time zone "XXX-25"; write one like'),
    ("XXX+24", 'unknown time zone "XXX+24"; write one like'),
    ("XXX23YYY-24,J1,J2", 'unknown time zone "XXX23YYY-24,J1,J2"; write one'),
    ("{folder}/notes", 'unknown time zone "/'),
])  # fmt: skip
def test_cron_zone_that_libc_takes_for_utc_is_refused(tmp_path, libc, variable, fault):
    (tmp_path / "notes").write_text("no zone")
    libc.setenv("TZ", variable.format(folder=tmp_path))
    tasks = {name: {"run": "true", "cron": "@daily"} for name in "ab"}
    (found,) = faults_of(tmp_path, {"tasks": tasks})
    assert "tasks.a.cron: TZ: " + fault in found
    assert found.endswith(", or in TZ rules like CET-1CEST,M3.5.0,M10.5.0/3")
    # Nobody needs it here.
    tasks = {
        "a": {"run": "true", "cron": "CRON_TZ=Asia/Tokyo @daily"},
        "b": {"run": "true", "cron": "@daily", "timezone": "UTC"},
    }
    assert faults_of(tmp_path, {"tasks": tasks}) == []


@needs_zones_of_libc
def test_cron_zone_that_libc_cannot_find_is_utc_with_a_warning(tmp_path, libc):
    """As in an image with Python's tzdata and without the system's."""
    libc.setenv("TZ", "Asia/Tokyo")
    libc.setenv("TZDIR", str(tmp_path))
    task = {"run": "true", "cron": "@daily"}
    document = {"timezone": "local", "tasks": {"a": task, "b": task}}
    config = tr.load_config(write_config(tmp_path, document))
    assert {task.cron.zone_name for task in config.tasks.values()} == {"UTC"}
    (warning,) = config.warnings
    assert warning.place == "tasks.a.cron"
    assert re.fullmatch(
        r"TZ says Asia/Tokyo, [0-9T:-]{19}\+09:00; the C library, as date shows, has"
        r" UTC, [0-9T:-]{19}\+00:00, and cron follows it; .*",
        warning.message,
    )
    shutil.copy("/usr/share/zoneinfo/Asia/Tokyo", tmp_path / "Ours")
    libc.setenv("TZ", "Ours")
    assert tr.local_zone(ZONE_NOW_S) == ("local", "")
    assert_zone_of_libc("local")


# In a mount namespace, where /etc is a folder of the test: what local_zone makes of
# the files that others leave there. Zones stand in /etc/z.
ZONES_OF_ETC = """
import json, os, shutil, sys, time
import taskrunnerd as tr
for case in json.load(sys.stdin):
    for name in {*os.listdir("/etc")} - {"ld.so.cache"}:
        path = os.path.join("/etc", name)
        shutil.rmtree(path) if os.path.isdir(path) else os.remove(path)
    for name, zone in case.items():
        path = os.path.join("/etc", name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        if zone.startswith("-> "):
            os.symlink(zone[3:], path)
        elif "/" in zone:
            shutil.copy("/usr/share/zoneinfo/" + zone, path)
        else:
            with open(path, "w") as file:
                file.write(zone.replace(".", "/") + "\\n")
    now_s = int(sys.argv[1])
    try:
        name, warning = tr.local_zone(now_s)
        text = tr.zone_text(now_s, name)
    except ValueError as error:
        name, warning, text = "", str(error), ""
    print(json.dumps([name, text, time.strftime("%T", time.localtime(now_s)), warning]))
"""


@needs_zones_of_libc
def test_cron_zone_of_etc_is_that_of_the_c_library(tmp_path, libc):
    tokyo = {"z/zoneinfo/Asia/Tokyo": "Asia/Tokyo"}
    link = {"localtime": "-> z/zoneinfo/Asia/Tokyo"}
    copy = {"localtime": "Asia/Tokyo"}
    cases = [
        # what is in /etc, what the zone is called, what is warned of
        ({**tokyo, **link}, "Asia/Tokyo", ""),
        ({**tokyo, **link, "timezone": "Europe.Berlin"}, "Asia/Tokyo", ""),
        ({**tokyo, "localtime": "-> a", "a": link["localtime"]}, "Asia/Tokyo", ""),
        (copy, "local", ""),
        ({**copy, "timezone": "Europe.Berlin"}, "local", ""),
        ({**copy, "timezone": "Asia.Tokyo"}, "Asia/Tokyo", ""),
        ({**copy, "timezone": "nonsense"}, "local", ""),
        # As a bind mount does it: it follows the link.
        ({"localtime": "-> z/zoneinfo/Etc/UTC", "z/zoneinfo/Etc/UTC": "Asia/Tokyo"},
         "local", ""),
        ({"localtime": "-> z/zoneinfo/My/Zone", "z/zoneinfo/My/Zone": "Asia/Tokyo"},
         "local", ""),
        ({}, "UTC", ""),
        ({"timezone": "Asia.Tokyo"}, "UTC", ""),
        ({"localtime": "nonsense"}, "UTC", ""),
        (link, "UTC", "/etc/localtime says Asia/Tokyo, 2026-11-28T21:00:00+09:00"),
        ({"localtime": "-> /no/zoneinfo/Asia/Toky"}, "",
         '/etc/localtime: unknown time zone "Asia/Toky"; did you mean Asia/Tokyo'),
    ]  # fmt: skip
    (tmp_path / "etc").mkdir()
    shutil.copy("/etc/ld.so.cache", tmp_path / "etc")
    own = () if os.geteuid() == 0 else ("--user", "--map-root-user")
    script = 'mount --bind "$1" /etc && shift && exec "$@"'
    namespace = ["unshare", *own, "--mount", "sh", "-c", script, "sh", tmp_path / "etc"]
    if subprocess.run([*namespace, "true"], stderr=subprocess.DEVNULL).returncode:
        pytest.skip("no mount namespace to be had")
    libc.delenv("TZ", raising=False)
    python = os.path.realpath(sys.executable)
    told = subprocess.run(
        [*namespace, python, "-c", ZONES_OF_ETC, str(ZONE_NOW_S)],
        input=json.dumps([files for files, _, _ in cases]), stdout=subprocess.PIPE,
        check=True, text=True, timeout=DEADLINE_S, cwd=HERE,
    ).stdout  # fmt: skip
    for (files, name, warning), line in zip(cases, told.splitlines()):
        found, text, shown, warned = json.loads(line)
        assert (found, warned[: len(warning)]) == (name, warning), files
        assert bool(warned) == bool(warning), files
        assert text[11:19] in (shown, ""), files
    assert len(told.splitlines()) == len(cases)


# Every tick in UTC; x: does not fire.
BERLIN, NEW_YORK, LORD_HOWE = "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"


@needs_zones
@pytest.mark.parametrize("zone, text, after, expected", [
    # Berlin skips 02:00 to 03:00 at 01:00 UTC on 29 March
    (BERLIN, "30 2 * * *", "03-28 00:00", "28 01:30, 29 01:00, 30 00:30"),
    (BERLIN, "0,30 2 * * *", "03-29 00:00", "29 01:00, 30 00:00, 30 00:30"),
    (BERLIN, "* 2 * * *", "03-29 00:00", "29 01:00, 30 00:00, 30 00:01"),
    (BERLIN, "0,30 2,3 * * *", "03-29 00:00", "29 01:00, 29 01:30, 30 00:00"),
    (BERLIN, "59 59 2 * * *", "03-29 00:00", "29 01:00, 30 00:59:59"),
    (BERLIN, "0 3 * * *", "03-29 00:00", "29 01:00, 30 01:00"),
    (BERLIN, "0 2 29 3 *", "03-29 00:59:59", "29 01:00"),
    (BERLIN, "30 * * * *", "03-29 00:00", "29 00:30, 29 01:30, 29 02:30"),
    (BERLIN, "0 */2 * * *", "03-28 22:00", "28 23:00, 29 02:00, 29 04:00"),
    (BERLIN, "0 2/6 * * *", "03-28 20:00", "29 06:00, 29 12:00"),
    (BERLIN, "0 1-3/1 * * *", "03-28 22:00", "29 00:00, 29 01:00, 29 23:00"),
    # and shows 02:00 to 03:00 again from 01:00 UTC on 25 October
    (BERLIN, "30 2 * * *", "10-25 00:00", "25 00:30, 25 01:30x, 26 01:30"),
    (BERLIN, "0 2,3 * * *", "10-24 23:00", "25 00:00, 25 01:00x, 25 02:00"),
    (BERLIN, "0 3 * * *", "10-24 23:00", "25 02:00, 26 02:00"),
    (BERLIN, "59 1 * * *", "10-24 23:00", "24 23:59, 26 00:59"),
    (BERLIN, "30 2 25 10 *", "10-25 00:30", "25 01:30x"),
    (BERLIN, "30 * * * *", "10-25 00:00", "25 00:30, 25 01:30, 25 02:30"),
    (BERLIN, "0 */2 * * *", "10-24 23:00", "25 00:00, 25 01:00, 25 03:00"),
    (BERLIN, "0 2-4/2 * * *", "10-24 23:00", "25 00:00, 25 01:00, 25 03:00"),
    (BERLIN, "@every 30m", "10-25 00:15", "25 00:30, 25 01:00, 25 01:30"),
    ("UTC", "30 2 * * *", "10-25 00:00", "25 02:30, 26 02:30"),
    # New York skips 02:00 to 03:00 at 07:00 UTC on 8 March
    (NEW_YORK, "30 2 * * *", "03-07 00:00", "07 07:30, 08 07:00, 09 06:30"),
    (NEW_YORK, "0 2,3 * * *", "03-08 00:00", "08 07:00, 09 06:00, 09 07:00"),
    (NEW_YORK, "@hourly", "03-08 05:30", "08 06:00, 08 07:00, 08 08:00"),
    # and shows 01:00 to 02:00 again from 06:00 UTC on 1 November
    (NEW_YORK, "30 1 * * *", "11-01 00:00", "01 05:30, 01 06:30x, 02 06:30"),
    (NEW_YORK, "@hourly", "11-01 04:30", "01 05:00, 01 06:00, 01 07:00"),
    # Lord Howe shows 01:30 to 02:00 again from 15:00 UTC on 4 April
    (LORD_HOWE, "45 1 * * *", "04-04 00:00", "04 14:45, 04 15:15x, 05 15:15"),
    (LORD_HOWE, "15 1 * * *", "04-04 00:00", "04 14:15, 05 14:45"),
    (LORD_HOWE, "45 * * * *", "04-04 14:00", "04 14:45, 04 15:15, 04 16:15"),
    (LORD_HOWE, "*/15 * * * *", "04-04 14:30", "04 14:45, 04 15:00, 04 15:15"),
    # and skips 02:00 to 02:30 at 15:30 UTC on 3 October
    (LORD_HOWE, "15 2 * * *", "10-03 00:00", "03 15:30, 04 15:15"),
    (LORD_HOWE, "0,15,30 2 * * *", "10-03 00:00", "03 15:30, 04 15:00, 04 15:15"),
    (LORD_HOWE, "15 * * * *", "10-03 14:30", "03 14:45, 03 16:15"),
    (LORD_HOWE, "@hourly", "10-03 14:00", "03 14:30, 03 16:00, 03 17:00"),
])  # fmt: skip
def test_cron_daylight_saving(zone, text, after, expected):
    expected = expected.split(", ")
    ticks = next_ticks(tr.parse_cron(text, zone), utc_s(f"2026-{after}"), len(expected))
    assert [
        utc_text(tick.at_s)[8:] + ("" if tick.fires else "x") for tick in ticks
    ] == expected


@needs_zones
@pytest.mark.parametrize("text, after, note", [
    ("30 2 * * *", "2026-03-28 12:00", "no 02:30 on 2026-03-29; fires at"),
    ("0 3 * * *", "2026-03-28 12:00", ""),
    ("30 2 * * *", "2026-10-25 00:00", "first of two 02:30 on 2026-10-25"),
    ("30 2 * * *", "2026-10-25 00:30", "second of two 02:30 on 2026-10-25; does"),
    ("5 30 * * * *", "2026-10-25 01:00", "second of two 02:30:05 on 2026-10-25"),
    ("0 * * * *", "2026-10-25 01:00", ""),
])  # fmt: skip
def test_cron_note_says_what_daylight_saving_does(text, after, note):
    tick = tr.next_tick(tr.parse_cron(text, BERLIN), utc_s(after))
    assert tick.note.startswith(note)
    assert bool(tick.note) == bool(note)


@needs_zones
def test_cron_day_that_does_not_exist_fires_once_after_it():
    after_s = utc_s("2011-12-30 09:00")  # 23:00 on the 29th, and the 31st comes next
    for text in ("0 12 30 12 *", "*/5 9-17 30 12 *", "0 0 * * *"):
        tick = tr.next_tick(tr.parse_cron(text, "Pacific/Apia"), after_s)
        assert (utc_text(tick.at_s), tick.fires) == ("2011-12-30 10:00", True)
        assert tick.note.startswith("no ")
    hourly = next_ticks(tr.parse_cron("0 * * * *", "Pacific/Apia"), after_s, 3)
    assert [utc_text(tick.at_s) for tick in hourly] == [
        "2011-12-30 10:00", "2011-12-30 11:00", "2011-12-30 12:00",
    ]  # fmt: skip


@needs_zones
def test_cron_change_at_midnight_moves_the_daily_tick():
    # St John's went from 00:01 back to 23:01 of the day before.
    cron = tr.parse_cron("30 23 * * *", "America/St_Johns")
    ticks = next_ticks(cron, utc_s("2006-10-29 00:00"), 3)
    assert [(utc_text(tick.at_s), tick.fires) for tick in ticks] == [
        ("2006-10-29 02:00", True),
        ("2006-10-29 03:00", False),
        ("2006-10-30 03:00", True),
    ]
    # Santiago skips from 00:00 to 01:00.
    tick = tr.next_tick(
        tr.parse_cron("@daily", "America/Santiago"), utc_s("2026-09-05 12:00")
    )
    assert utc_text(tick.at_s) == "2026-09-06 04:00"


class Drawn(NamedTuple):
    """A random expression, with the values its fields were made from."""

    text: str
    values: list[set[int]]  # second, minute, hour, day, month, weekday
    either: bool
    fixed: bool

    def matches(self, wall):
        seconds, minutes, hours, days, months, weekdays = self.values
        if wall.minute not in minutes or wall.hour not in hours:
            return False
        if wall.second not in seconds or wall.month not in months:
            return False
        found = wall.day in days, wall.isoweekday() % 7 in weekdays
        return any(found) if self.either else all(found)


def drawn_part(rng, low, high):
    first, last = sorted(rng.randint(low, high) for _ in range(2))
    step = rng.randint(1, min(20, high - low))
    return rng.choice(
        [
            (str(first), {first}),
            (f"{first}-{last}", set(range(first, last + 1))),
            (f"{first}-{last}/{step}", set(range(first, last + 1, step))),
            (f"{first}/{step}", set(range(first, high + 1, step))),
            (f"*/{step}", set(range(low, high + 1, step))),
        ]
    )


def drawn_field(rng, low, high, star_chance):
    if rng.random() < star_chance:
        return rng.choice("*?"), set(range(low, high + 1))
    parts = [drawn_part(rng, low, high) for _ in range(rng.choice([1, 1, 2, 3]))]
    return ",".join(text for text, _ in parts), set().union(*(v for _, v in parts))


def drawn_cron(rng, star_chances=(1, 0.2, 0.4, 0.8, 0.9, 0.8)):
    bounds = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 6)]
    fields = [
        drawn_field(rng, low, high, chance)
        for (low, high), chance in zip(bounds, star_chances)
    ]
    if star_chances[0] == 1:
        fields[0] = "0", {0}
    texts, values = [text for text, _ in fields], [values for _, values in fields]
    either = not any(texts[place][0] in "*?" for place in (3, 5))
    fixed = texts[2][0] not in "*?" and "/" not in texts[2]
    return Drawn(" ".join(texts), values, either, fixed)


class Shown(NamedTuple):
    """What the clock of a zone shows at an instant."""

    at_s: int
    wall: datetime
    again: bool  # it has shown the same before
    twice: bool  # it has, or it will
    skipped: list[datetime]  # what it has not shown, right before this


def shown_times(zone, from_s, until_s, step_s):
    step = timedelta(seconds=step_s)
    instants = range(from_s, until_s, step_s)
    walls = [
        datetime.fromtimestamp(at_s, zone).replace(tzinfo=None, fold=0)
        for at_s in instants
    ]
    counts = collections.Counter(walls)
    shown, seen = [], set()
    for at_s, wall, before in zip(instants, walls, [walls[0], *walls]):
        missing = (wall - before) // step - 1
        skipped = [before + step * (1 + place) for place in range(missing)]
        shown.append(Shown(at_s, wall, wall in seen, counts[wall] > 1, skipped))
        seen.add(wall)
    return shown


def oracle_ticks(drawn, shown):
    """Ticks found by looking at every instant: the rules, word for word.

    Each with whether it fires and whether daylight saving does something to it.
    """
    ticks = []
    for at_s, wall, again, twice, skipped in shown:
        late = drawn.fixed and any(drawn.matches(missed) for missed in skipped)
        if late or drawn.matches(wall):
            ticks.append((at_s, not (drawn.fixed and again), late or twice))
    return ticks


def changes_of(zone, from_s, until_s):
    """Instants, to the minute, at which the offset changes."""

    def offset(at_s):
        return datetime.fromtimestamp(at_s, zone).utcoffset()

    changes = []
    for at_s in range(from_s, until_s, 43200):
        if offset(at_s) != offset(at_s + 43200):
            minutes = range(at_s, at_s + 43200, 60)
            changes += [m + 60 for m in minutes if offset(m) != offset(m + 60)]
    return changes


def assert_ticks_as_oracle(rng, drawn, zone_name, shown):
    """From the middle of `shown`, in a walk and from instants at random."""
    from_s, until_s = shown[len(shown) // 2].at_s, shown[-1].at_s
    expected = [tick for tick in oracle_ticks(drawn, shown) if tick[0] > from_s]
    cron = tr.parse_cron(drawn.text, zone_name)
    ticks = ticks_until(cron, from_s, until_s)
    where = f"{drawn.text} in {zone_name} after {from_s}"
    assert [(*tick[:2], bool(tick.note)) for tick in ticks] == expected, where
    for _ in range(3 if ticks else 0):
        at_s = rng.randrange(from_s, ticks[-1].at_s)
        later = bisect_right([tick.at_s for tick in ticks], at_s)
        assert tr.next_tick(cron, at_s) == ticks[later], where


@needs_zones
@pytest.mark.parametrize("zone_name", [
    "Australia/Lord_Howe", "Pacific/Apia", "Africa/Casablanca", "America/St_Johns",
    "Asia/Kathmandu", "Europe/Berlin", "America/New_York", "UTC", "America/Santiago",
    "Pacific/Chatham",
])  # fmt: skip
def test_cron_agrees_with_looking_at_every_minute(zone_name):
    rng = random.Random(zone_name)
    zone = zoneinfo.ZoneInfo(zone_name)
    from_s, until_s = utc_s("2020-01-01 00:00"), utc_s("2041-01-01 00:00")
    centres = changes_of(zone, from_s, until_s)
    centres = rng.sample(centres, min(len(centres), 20))
    centres += [rng.randrange(from_s, until_s, 60) for _ in range(5)]
    for centre_s in centres:
        shown = shown_times(zone, centre_s - 15 * 3600, centre_s + 8 * 3600, 60)
        for _ in range(3):
            assert_ticks_as_oracle(rng, drawn_cron(rng), zone_name, shown)


@needs_zones
def test_cron_agrees_with_looking_at_every_minute_around_a_missing_day():
    rng = random.Random(2011)
    change_s = utc_s("2011-12-30 10:00")
    apia = zoneinfo.ZoneInfo("Pacific/Apia")
    shown = shown_times(apia, change_s - 80 * 3600, change_s + 60 * 3600, 60)
    for _ in range(60):
        assert_ticks_as_oracle(rng, drawn_cron(rng), "Pacific/Apia", shown)


class MadeUpZone(tzinfo):
    """A zone that changes its offset once."""

    def __init__(self, change_s, before_s, later_s):
        self.before, self.later = (timedelta(seconds=s) for s in (before_s, later_s))
        change = datetime.fromtimestamp(change_s, timezone.utc).replace(tzinfo=None)
        self.walls = change + self.before, change + self.later

    def fromutc(self, when):
        old, new = when + self.before, when + self.later
        if old.replace(tzinfo=None) < self.walls[0]:
            return old
        return new.replace(fold=new.replace(tzinfo=None) < self.walls[0])

    def utcoffset(self, when):
        wall = when.replace(tzinfo=None)
        changed = wall >= self.walls[0] or (wall >= self.walls[1] and when.fold)
        return self.later if changed else self.before

    def dst(self, when):
        return None

    def tzname(self, when):
        return None


def test_cron_agrees_with_looking_at_every_minute_of_changes_of_any_size(monkeypatch):
    rng = random.Random(24)
    zones = {}
    monkeypatch.setattr(tr, "zone_named", zones.get)
    for _ in range(50):
        size_s = rng.choice([1800, 3600, 7200, rng.randrange(60, 86400, 60)])
        # Next to where the spans of a zone are cut; nothing of it must show.
        change_s = rng.randint(0, 60) * tr._CHUNK_S + rng.choice([0, 0, 2]) * 86400
        change_s += rng.randrange(-size_s, size_s, 60)
        shift_s = rng.choice([1, -1]) * size_s
        before_s = rng.randrange(-36000, 36000, 900) - shift_s // 120 * 60
        later_s = before_s + shift_s
        zone_name = f"Made/Up {change_s} {before_s} {later_s}"
        zone = zones[zone_name] = MadeUpZone(change_s, before_s, later_s)
        around_s = max(size_s, 10800)
        shown = shown_times(zone, change_s - 2 * around_s, change_s + 2 * around_s, 60)
        for _ in range(5):
            drawn = drawn_cron(rng, (1, 0.2, 0.4, 0.9, 1, 0.9))
            assert_ticks_as_oracle(rng, drawn, zone_name, shown)


def test_cron_tick_is_the_same_from_however_far_away(monkeypatch):
    change_s = 51 * tr._CHUNK_S + 2 * 86400 + 1800
    monkeypatch.setattr(tr, "zone_named", lambda _: MadeUpZone(change_s, 3600, 0))
    first_s, second_s = change_s - 2700, change_s + 900
    wall = datetime.fromtimestamp(second_s, timezone.utc)
    cron = tr.parse_cron(f"{wall:%M %H %d %m} *", "Made/Up again")
    for after_s in range(first_s - 350 * 86400, first_s, 21599):
        tick = tr.next_tick(cron, after_s)
        assert tick[:2] == (first_s, True)
        assert tick.note.startswith("first of two")
    assert tr.next_tick(cron, first_s)[:2] == (second_s, False)


@needs_zones
@pytest.mark.parametrize("zone_name, change", [
    ("Europe/Berlin", "2026-03-29 01:00"), ("Europe/Berlin", "2026-10-25 01:00"),
    ("Australia/Lord_Howe", "2026-04-04 15:00"),
    ("Australia/Lord_Howe", "2026-10-03 15:30"),
    ("America/St_Johns", "2006-10-29 02:31"),
])  # fmt: skip
def test_cron_agrees_with_looking_at_every_second(zone_name, change):
    rng = random.Random(change)
    change_s = utc_s(change)
    zone = zoneinfo.ZoneInfo(zone_name)
    shown = shown_times(zone, change_s - 5400, change_s + 4000, 1)
    for _ in range(10):
        drawn = drawn_cron(rng, (0.2, 0.5, 0.5, 1, 1, 1))
        assert_ticks_as_oracle(rng, drawn, zone_name, shown)


def test_cron_agrees_with_looking_at_every_day():
    rng = random.Random(29)
    for _ in range(150):
        drawn = drawn_cron(rng, (1, 1, 1, 0.3, 0.3, 0.3))
        text = " ".join(["0 0 0", *drawn.text.split()[3:]])
        start = datetime(rng.randint(1970, 2110), rng.randint(1, 12), 1, 12)  # noqa: DTZ001
        days = (start.replace(hour=0) + timedelta(days=n) for n in range(1, 366 * 41))
        expected = next(filter(drawn.matches, days), None)
        if expected is None:
            with pytest.raises(ValueError, match="can never fire"):
                tr.parse_cron(text)
            continue
        tick = tr.next_tick(tr.parse_cron(text), utc_s(str(start)))
        assert utc_text(tick.at_s) == f"{expected:%Y-%m-%d %H:%M}", text


@needs_zones
def test_cron_every_minute_is_never_dark_and_never_twice():
    for zone_name in (BERLIN, NEW_YORK, LORD_HOWE, "Pacific/Apia"):
        cron = tr.parse_cron("* * * * *", zone_name)
        for after in ("2011-12-30 00:00", "2026-03-28 20:00", "2026-10-24 20:00"):
            after_s = utc_s(after)
            ticks = next_ticks(cron, after_s, 1500)
            assert [tick.at_s - after_s for tick in ticks] == [
                60 * count for count in range(1, 1501)
            ]
            assert all(tick.fires for tick in ticks)


@needs_zones
def test_cron_year_of_hundreds_of_schedules():
    rng = random.Random(1000)
    zones = ["UTC", BERLIN, NEW_YORK, "America/Santiago", "Asia/Kathmandu"]
    kinds = (
        [("{minute} * * * *", 8760)] * 16
        + [("*/20 * * * *", 26280)] * 2
        + [("{minute} {hour} * * *", 365)] * 200
        + [("{minute} {hour} * * {weekday}", 52)] * 100
    )
    from_s, until_s = utc_s("2026-01-01 00:00"), utc_s("2027-01-01 00:00")
    for pattern, count in kinds:
        text = pattern.format(
            minute=rng.randrange(60), hour=rng.randrange(24), weekday=rng.randrange(7)
        )
        cron = tr.parse_cron(text, rng.choice(zones))
        ticks = ticks_until(cron, from_s - 1, until_s - 1)
        fired = sum(tick.fires for tick in ticks)
        assert fired == count or (count == 52 and fired == 53), (text, cron.zone_name)
        assert len(ticks) - fired <= 1, (text, cron.zone_name)


@pytest.mark.parametrize("text, words", [
    ("* * * * *", "every minute"), ("*/5 * * * *", "every 5 minutes"),
    ("*/7 * * * *", "*/7 * * * *"), ("* * * * * *", "every second"),
    ("*/10 * * * * *", "every 10 seconds"), ("@hourly", "every hour"),
    ("15 * * * *", "every hour at :15"), ("30 15 * * * *", "every hour at :15:30"),
    ("0 */2 * * *", "every 2 hours"),
    ("0 */2 * * 1-5", "every 2 hours, Monday to Friday"),
    ("0 */5 * * *", "0 */5 * * *"), ("30 */2 * * *", "30 */2 * * *"),
    ("30 3 * * *", "every day at 03:30"), ("5 30 3 * * *", "every day at 03:30:05"),
    ("0 6,18 * * *", "every day at 06:00 and 18:00"),
    ("0 */8 * * *", "every day at 00:00, 08:00 and 16:00"),
    ("0 9 * * 1-5", "Monday to Friday at 09:00"),
    ("0 9 * * fri-sun", "Friday to Sunday at 09:00"),
    ("0 9 * * 0,6", "Saturday and Sunday at 09:00"),
    ("0 9 * * mon,wed,fri", "Monday, Wednesday and Friday at 09:00"),
    ("@weekly", "Sunday at 00:00"), ("@monthly", "on day 1 of the month at 00:00"),
    ("@yearly", "every 1 January at 00:00"),
    ("0 8 15 1,7 *", "every 15 January and July at 08:00"),
    ("0 0 13 * 5", "0 0 13 * 5"), ("*/5 9-17 * * 1-5", "*/5 9-17 * * 1-5"),
    ("@every 1h30m", "every 1h30m"),
])  # fmt: skip
def test_cron_words(text, words):
    assert tr.cron_words(tr.parse_cron(text)) == words


def test_cron_words_of_any_expression_are_short():
    rng = random.Random(5)
    for _ in range(500):
        drawn = drawn_cron(rng, (0.5, 0.5, 0.5, 0.5, 0.5, 0.5))
        if "31" in drawn.text or "30" in drawn.text or "29" in drawn.text:
            continue
        assert 0 < len(tr.cron_words(tr.parse_cron(drawn.text))) < 200


# ---- 4. Schemas: the shape of everything that crosses the wire --------------

KEYWORDS = {
    "type", "description", "enum", "pattern", "format", "minLength", "maxLength",
    "minimum", "maximum", "minItems", "maxItems", "items", "properties", "required",
    "additionalProperties", "propertyNames", "default", "$ref", "oneOf",
}  # fmt: skip
FORMATS = {
    "any-text", "kept-duration-text", "date-time", "uri", "uri-reference",
    "duration-text", "positive-duration-text", "log-size-text", "signal", "status-list",
    "cursor",
}  # fmt: skip


def schemas_within(place, schema):
    """A schema and all schemas inside it, each with where it stands."""
    yield place, schema
    for name, field in schema.get("properties", {}).items():
        yield from schemas_within(f"{place}.{name}", field)
    for keyword in ("items", "additionalProperties", "propertyNames"):
        if isinstance(schema.get(keyword), dict):
            yield from schemas_within(f"{place}/{keyword}", schema[keyword])


def all_schemas():
    """Every schema of every table."""
    tables = {**tr.SCHEMAS, **tr.PARAMS, **tr.PATH_PARAMS, **tr.HEADERS}
    return [pair for name in tables for pair in schemas_within(name, tables[name])]


def test_schemas_use_no_keyword_outside_the_dialect():
    used = {keyword for _, schema in all_schemas() for keyword in schema}
    assert used == KEYWORDS


def test_schemas_use_no_format_outside_the_dialect():
    assert {s["format"] for _, s in all_schemas() if "format" in s} == FORMATS


def test_schemas_refer_only_to_schemas_that_exist():
    refs = {schema["$ref"] for _, schema in all_schemas() if "$ref" in schema}
    assert refs
    assert refs <= {f"{name}.json" for name in tr.SCHEMAS}
    assert tr.resolved({"$ref": "Run.json"}) is tr.SCHEMAS["Run"]


def test_schema_with_a_reference_says_nothing_else():
    """`resolved` drops what stands beside a $ref."""
    beside = [place for place, s in all_schemas() if "$ref" in s and len(s) > 1]
    assert beside == []


def test_schemas_have_only_patterns_that_begin_at_the_begin():
    patterns = {s["pattern"] for _, s in all_schemas() if "pattern" in s}
    assert all(pattern[0] == "^" and re.compile(pattern) for pattern in patterns)


def test_schemas_require_only_members_they_know():
    for place, schema in all_schemas():
        assert set(schema.get("required", ())) <= set(schema.get("properties", ())), (
            place
        )


def test_schemas_of_objects_are_closed_or_maps():
    for place, schema in all_schemas():
        if schema.get("type") == "object":
            closed = schema["additionalProperties"] is False
            assert closed or "type" in tr.resolved(schema["additionalProperties"]), (
                place
            )


def test_schemas_describe_every_member():
    for place, schema in all_schemas():
        for name, field in schema.get("properties", {}).items():
            assert tr.resolved(field).get("description"), f"{place}.{name}"


def test_defaults_are_right_by_their_own_schema():
    found = [(place, s) for place, s in all_schemas() if "default" in s]
    assert len(found) > 20
    for place, schema in found:
        assert list(tr.find_faults(schema, schema["default"], ())) == [], place


def test_task_keys_have_the_defaults_that_are_promised():
    promised = {
        "params": [], "env": {}, "secrets": {}, "env_base": "inherit",
        "working_dir": ".", "shell": "/bin/sh", "api_trigger": True,
        "graceful_stop": "5s", "stop_signal": "SIGTERM", "exit_codes": [0],
        "orphans": "kill", "max_concurrent": 1, "on_overlap": "queue", "queue_max": 100,
        "log_max_size": "100mb", "log_on_full": "drop_old",
    }  # fmt: skip
    defaults = {key: schema.get("default") for key, schema in tr.TASK_KEYS.items()}
    assert {key: defaults[key] for key in promised} == promised


NEEDY = {"run": "true", "params": [{"env": "A", "required": True}]}


@pytest.mark.parametrize("hooks, defaults, faults", [
    ({"a": {"on_failure": "b"}, "b": {"on_failure": ["c", "c"]}}, {}, []),
    ({"a": {"on_success": "bb"}}, {}, [
        'tasks.a.on_success: no task "bb"; did you mean b?']),
    ({}, {"on_recovery": ["b", "x"]}, ['defaults.on_recovery: no task "x"']),
    ({"a": {"on_failure": ["b", "needy"]}}, {}, [
        'tasks.a.on_failure: "needy" has a required parameter without a default']),
    ({"a": {"on_failure": "a"}}, {}, [
        "tasks.a.on_failure: a cycle that would never end: a → a"]),
    ({"a": {"on_success": ["c", "b"]}, "b": {"on_recovery": "c"}, "c": {
        "on_failure": "a"}}, {"on_success": "a"}, ["a cycle that would never"]),
    ({"a": {"on_failure": 5}, "b": {"on_success": ["c", 6]}}, {}, [
        "tasks.a.on_failure: must be text or a list",
        "tasks.b.on_success[1]: must be text"]),
    # Those of the defaults are not for what they trigger, at once or in turn.
    ({"b": {"on_failure": "c"}}, {"on_failure": "b", "on_success": "b"}, []),
])  # fmt: skip
def test_hooks_name_tasks_and_make_no_cycle(tmp_path, hooks, defaults, faults):
    tasks = {name: {"run": "true", **hooks.get(name, {})} for name in "abc"}
    document = {"defaults": defaults, "tasks": {**tasks, "needy": NEEDY}}
    found = faults_of(tmp_path, document)
    assert len(found) == len(faults)
    assert all(fault in text for fault, text in zip(faults, found)), found


def test_hooks_of_the_defaults_are_not_for_hook_tasks(tmp_path):
    tasks = {
        "build": {"run": "true", "on_success": "deploy"},
        "deploy": {"run": "true", "on_failure": []},
        "mail": {"run": "true", "on_failure": "sms"},
        "sms": {"run": "true"},
    }
    defaults = {"on_failure": "mail", "on_success": "mail"}
    document = {"defaults": defaults, "tasks": tasks}
    config = tr.load_config(write_config(tmp_path, document))
    shown = {name: (t.on_failure, t.on_success) for name, t in config.tasks.items()}
    assert shown == {
        "build": (("mail",), ("deploy",)), "deploy": ((), ("mail",)),
        "mail": (("sms",), ()), "sms": ((), ()),
    }  # fmt: skip


def test_task_key_is_shown_recorded_and_compared_by_its_row(tmp_path):
    task = task_of(tmp_path)
    shown = {row.key for row in tr.TASK_FIELDS.values() if row.kind.read}
    made = {"working_dir", "shell"}
    assert shown < set(tr.SCHEMAS["Task"]["properties"])
    assert set(tr.SCHEMAS["Task"]["required"]) - shown == {
        "name", "params", "coalesce", "running", "queued", "parameters", "kind",
        "autostart", *made,
    }  # fmt: skip
    absent = {"timeout", "keep_runs"}
    assert set(tr.shown_settings(task)) == (shown | made) - absent
    for field, row in tr.TASK_FIELDS.items():
        assert tr.changed_keys(task, task._replace(**{field: "other"})) == [row.key]
        assert (field in tr.task_record(task)) == row.until_end


def test_task_takes_the_record_of_another_version(tmp_path):
    # As the first version that could be upgraded in place wrote it.
    record = {
        "timeout_s": None, "graceful_stop_s": 2.0, "stop_signal": 2,
        "exit_codes": [0, 3], "orphans": "leave", "log_max_bytes": 1024,
        "log_on_full": "kill_task", "retry_attempts": 2, "retry_delay_s": 1.5,
        "retry_backoff": "linear",
    }  # fmt: skip
    task = task_of(tmp_path, timeout="5s", stderr="merge")
    found = tr.with_record(task, {**record, "of_a_later_version": 1})
    assert (found.stop_signal, found.exit_codes) == (signal.SIGINT, (0, 3))
    assert isinstance(found.stop_signal, signal.Signals)
    assert json.loads(json.dumps(tr.task_record(found))) == {
        **record, "stderr": "merge",
    }  # fmt: skip


# ---- 5. Validation: one walk over value and schema --------------------------

TEXT = {"type": "string"}
WHOLE = {"type": "integer"}
CLOSED = {
    "type": "object", "required": ["name"],
    "properties": {"name": TEXT, "count": WHOLE}, "additionalProperties": False,
}  # fmt: skip


@pytest.mark.parametrize("at, text", [
    ((), ""), (("body",), "body"), (("body", "params", "NAME"), "body.params.NAME"),
    (("ids", 3), "ids[3]"),
    (("tasks", "a", "params", 0, "env"), "tasks.a.params[0].env"), ((0,), "[0]"),
])  # fmt: skip
def test_location_reads_like_a_path(at, text):
    assert tr.Fault(at, "").location == text


@pytest.mark.parametrize("schema, value, faults", [
    ({}, {"any": [1, None]}, []), (TEXT, "", []), (TEXT, 5, [("v", "must be text")]),
    (TEXT, None, [("v", "must be text")]), ({"type": ["string", "null"]}, None, []),
    ({"type": ["string", "null"]}, 1, [("v", "must be text or null")]),
    ({"type": "boolean"}, False, []),
    ({"type": "boolean"}, 0, [("v", "must be true or false")]),
    ({"type": "boolean"}, "true", [("v", "must be true or false")]), (WHOLE, -3, []),
    (WHOLE, True, [("v", "must be a whole number")]),
    (WHOLE, 1.5, [("v", "must be a whole number")]), ({"type": "number"}, 1.5, []),
    ({"type": "number"}, 2, []),
    ({"type": "number"}, True, [("v", "must be a number")]),
    ({"type": "number"}, "2", [("v", "must be a number")]),
    ({"type": "array"}, {}, [("v", "must be a list")]),
    ({"type": "object"}, [], [("v", "must be an object")]),
    ({"type": "null"}, 0, [("v", "must be null")]),
    ({"type": "string", "enum": ["asc", "desc"]}, "asc", []),
    (
        {"type": "string", "enum": ["asc", "desc"]},
        "dsc",
        [("v", "must be one of asc, desc; did you mean desc?")],
    ),
    (
        {"type": "string", "enum": ["asc", "desc"]},
        "",
        [("v", "must be one of asc, desc")],
    ),
    ({"type": "string", "minLength": 1}, "", [("v", "must not be empty")]),
    ({"type": "string", "maxLength": 3}, "abc", []),
    (
        {"type": "string", "maxLength": 3},
        "abcd",
        [("v", "must have at most 3 characters")],
    ),
    (TEXT, "a\0b", [("v", "must not contain a NUL character")]),
    ({"type": "string", "pattern": "^a$"}, "a", []),
    ({"type": "string", "pattern": "^a$"}, "a\n", [("v", "must match ^a$")]),
    ({"type": "string", "pattern": "^-"}, "--long", []),
    ({"type": "string", "pattern": "^-"}, "long", [("v", "must match ^-")]),
    ({"type": "integer", "minimum": 1, "maximum": 3}, 3, []),
    ({"type": "integer", "minimum": 1, "maximum": 3}, 4, [("v", "must be 1 to 3")]),
    ({"type": "integer", "minimum": 1, "maximum": 3}, 0, [("v", "must be 1 to 3")]),
    ({"type": "integer", "minimum": 0}, -1, [("v", "must be 0 or more")]),
    ({"type": "array", "minItems": 1}, [], [("v", "must not be empty")]),
    (
        {"type": "array", "maxItems": 1, "items": WHOLE},
        ["a", "b"],
        [("v", "must have at most 1 entries")],
    ),
    (
        {"type": "array", "items": WHOLE},
        [1, "2", 3, None],
        [
            ("v[1]", "must be a whole number"),
            ("v[3]", "must be a whole number"),
        ],
    ),
    (CLOSED, {"name": "x", "count": 1}, []),
    (CLOSED, {}, [("v.name", "must be there")]),
    (
        CLOSED,
        {"nam": 1, "count": "x"},
        [
            ("v.name", "must be there"),
            ("v.nam", "unknown key; did you mean name?"),
            ("v.count", "must be a whole number"),
        ],
    ),
    (CLOSED, {"name": "", "zzz": 1}, [("v.zzz", "unknown key")]),
    (
        {"type": "object", "additionalProperties": WHOLE},
        {"a": 1, "b": "2"},
        [("v.b", "must be a whole number")],
    ),
    (
        {
            "type": "object",
            "additionalProperties": TEXT,
            "propertyNames": {"pattern": "^[a-z]$"},
        },
        {"a": "x", "a\n": "y"},
        [("v.a\n", "the name must match ^[a-z]$")],
    ),
    ({"$ref": "LogLine.json"}, [], [("v", "must be an object")]),
])  # fmt: skip
def test_find_faults_finds(schema, value, faults):
    found = list(tr.find_faults(schema, value, ("v",)))
    assert [(fault.location, fault.message) for fault in found] == faults


@pytest.mark.parametrize("schema_format, right, wrong, message", [
    ("date-time", "2026-01-31T08:00:00Z", "now", "is not an RFC 3339 time"),
    ("duration-text", "0s", "5", "is not a duration"),
    ("positive-duration-text", "1ms", "0s", "is not longer than nothing"),
    ("positive-duration-text", "1ms", "5", "is not a duration"),
    ("log-size-text", "1kb", "1023b", "must be at least 1.0 KB"),
    ("log-size-text", "1kb", "1", "is not a size"),
    ("signal", "SIGUSR1", "USR1", '"USR1" is not a signal'),
    ("signal", "SIGINT", "SIG_IGN", '"SIG_IGN" is not a signal'),
    ("signal", "SIGHUP", "SIGKILL", "SIGKILL cannot be caught"),
    ("signal", "SIGHUP", "SIGSTOP", "SIGSTOP cannot be caught"),
    ("status-list", "failed, running", "failed,bad", '"bad" is not a status'),
    ("status-list", "pending", "", '"" is not a status'),
])  # fmt: skip
def test_find_faults_checks_formats(schema_format, right, wrong, message):
    schema = {"type": "string", "format": schema_format}
    assert list(tr.find_faults(schema, right, ())) == []
    [fault] = tr.find_faults(schema, wrong, ())
    assert message in fault.message


def test_fault_shows_the_value_and_cuts_a_long_one():
    assert tr.Fault(("q",), "bad", 5).detail() == {
        "location": "q", "message": "bad", "value": 5,
    }  # fmt: skip
    assert tr.Fault(("q",), "bad", "x" * 200).detail()["value"] == "x" * 200
    assert tr.Fault(("q",), "bad", "x" * 201).detail()["value"] == "x" * 200 + "…"
    cut = tr.Fault(("q",), "bad", list(range(1000))).detail()["value"]
    assert cut.startswith("[0, 1, 2,")
    assert len(cut) == 201


def test_fault_without_a_value_shows_none():
    assert tr.Fault(("q",), "bad").detail() == {"location": "q", "message": "bad"}
    assert tr.Fault(("q",), "bad", None).detail()["value"] is None


@pytest.mark.parametrize("fault, text", [
    (("tasks.json", 3, 14, "tasks.a", "bad"), "tasks.json:3:14: tasks.a: bad"),
    (("tasks.json", 1, 1, "", "bad"), "tasks.json:1:1: bad"),
    (("tasks.json", 0, 0, "", "bad"), "tasks.json: bad"),
])  # fmt: skip
def test_config_fault_reads_like_a_compiler_message(fault, text):
    assert str(tr.ConfigFault(*fault)) == text


@pytest.mark.parametrize("word, known, suggestion", [
    ("tiemout", ["timeout", "user"], "; did you mean timeout?"),
    ("TIMEOUT", ["timeout", "user"], "; did you mean timeout?"),
    ("name", ["FILE", "NAME"], "; did you mean NAME?"),
    ("zzz", ["timeout", "user"], ""), ("", ["timeout"], ""), ("a", [], ""),
])  # fmt: skip
def test_nearest_suggests_a_known_word(word, known, suggestion):
    assert tr.nearest(word, known) == suggestion


@pytest.mark.parametrize("text", ["true", "TRUE", "True", "1", "t", "T"])
def test_parse_boolean_reads_true(text):
    assert tr.parse_boolean(text) is True


@pytest.mark.parametrize("text", ["false", "FALSE", "0", "f", "F"])
def test_parse_boolean_reads_false(text):
    assert tr.parse_boolean(text) is False


@pytest.mark.parametrize("text", ["", "yes", "no", "2", " true", "on"])
def test_parse_boolean_refuses(text):
    with pytest.raises(ValueError, match="is not true or false"):
        tr.parse_boolean(text)


@pytest.mark.parametrize("kind, text, value", [
    ("boolean", "T", True), ("boolean", "", False), ("integer", "-12", -12),
    ("integer", "+7", 7), ("integer", "007", 7), ("string", "7", "7"),
    ("string", "", ""),
])  # fmt: skip
def test_coerced_gives_the_type_of_the_schema(kind, text, value):
    coerced = tr.coerced({"type": kind}, text)
    assert coerced == value
    assert type(coerced) is type(value)


@pytest.mark.parametrize(
    "text", ["", "1.0", "1e3", "0x1", "1_000", " 1", "1\n", "9" * 19, "\u0663"]
)
def test_coerced_refuses_what_is_not_a_whole_number(text):
    with pytest.raises(ValueError, match="must be a whole number"):
        tr.coerced({"type": "integer"}, text)


@pytest.mark.parametrize("raw, value", [
    (b'{"a": [1, 2.5, "x", null, true]}', {"a": [1, 2.5, "x", None, True]}),
    (b"\xef\xbb\xbf[]", []), ('"\u2022"'.encode(), "\u2022"), (b' "" \n', ""),
])  # fmt: skip
def test_json_value_reads(raw, value):
    assert tr.json_value(raw) == value


@pytest.mark.parametrize("raw", [
    b"", b"{", b"{'a': 1}", b'{"a": 1,}', b"[1] 2", b'"a\nb"', b"01", b"NaN",
    b"[Infinity]", b"-Infinity", b"1e400", b"-1" + b"0" * tr.INTEGER_MAX_DIGITS,
    b'"\xff"', '{"a": 1}'.encode("utf-16"),
])  # fmt: skip
def test_json_value_refuses(raw):
    with pytest.raises(ValueError, match=r"."):
        tr.json_value(raw)


def nested(levels, opening="[", closing="]"):
    """JSON of so many levels."""
    return (opening * levels + "1" + closing * levels).encode()


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_json_value_bounds_the_nesting(opening, closing):
    tr.json_value(nested(tr.JSON_MAX_DEPTH, opening, closing))
    for levels in (tr.JSON_MAX_DEPTH + 1, 100_000):
        with pytest.raises(ValueError, match="nested deeper than 64 levels"):
            tr.json_value(nested(levels, opening, closing))


@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b'["\\"' * 9999])
def test_json_value_refuses_nesting_that_never_ends(raw):
    with pytest.raises(ValueError, match=r"."):
        tr.json_value(raw)


def test_json_value_counts_no_brackets_inside_text():
    for text in ("[" * 1000, '\\"' + "[" * 1000, "{" * 500 + "\\\\"):
        assert tr.json_value(f'["{text}"]'.encode()) == [json.loads(f'"{text}"')]


def test_json_value_accepts_many_small_objects():
    assert len(tr.json_value(b"[" + b",".join([b"[{}]"] * 5000) + b"]")) == 5000


def depth_of(value):
    """How deep a JSON value is nested."""
    if not isinstance(value, (list, dict)):
        return 0
    members = value.values() if isinstance(value, dict) else value
    return 1 + max(map(depth_of, members), default=0)


def random_json(rng, deepest):
    """A JSON value with names and texts full of quotes and brackets."""
    kind = rng.randrange(4) if deepest else 3
    text = "".join(rng.choice('[]{}"\\,: a\u2022') for _ in range(rng.randrange(6)))
    if kind == 0:
        return [random_json(rng, deepest - 1) for _ in range(rng.randrange(4))]
    if kind == 1:
        return {text: random_json(rng, deepest - 1), "x": random_json(rng, deepest - 1)}
    if kind == 2:
        return [random_json(rng, deepest - 1)]
    return rng.choice([text, 1, -2.5, None, True])


def test_json_value_measures_the_nesting_as_a_parser_does(monkeypatch):
    rng = random.Random(64)
    for _ in range(500):
        value = random_json(rng, 9)
        raw = json.dumps(value, ensure_ascii=rng.random() < 0.5).encode()
        depth = depth_of(value)
        monkeypatch.setattr(tr, "JSON_MAX_DEPTH", depth)
        assert tr.json_value(raw) == value
        if depth:
            monkeypatch.setattr(tr, "JSON_MAX_DEPTH", depth - 1)
            with pytest.raises(ValueError, match="nested deeper"):
                tr.json_value(raw)


def test_json_is_read_and_walked_on_the_small_stack_of_a_connection():
    done: list[Any] = []

    def read():
        value = tr.json_value(nested(tr.JSON_MAX_DEPTH, '{"params":', "}"))
        done.extend(tr.find_faults(tr.SCHEMAS["Trigger"], value, ("body",)))
        done.append(tr.Fault(("body",), "", value).detail())
        with pytest.raises(ValueError, match="nested deeper"):
            tr.json_value(nested(100_000))

    usual = threading.stack_size(tr.THREAD_STACK_BYTES)
    try:
        thread = threading.Thread(target=read)
        thread.start()
    finally:
        threading.stack_size(usual)
    thread.join(DEADLINE_S)
    assert len(done) == 2


def test_deeply_nested_body_is_refused_and_the_daemon_lives(shared):
    for raw in (nested(100_000), b"[" * 1_000_000):
        reply = shared.request("POST", "/api/tasks/hello/run", raw)
        assert reply.status == 400
        assert reply.faults == [("body", "not JSON: nested deeper than 64 levels")]
    assert shared.run("true")["end_reason"] == "success"


# ---- 6. Tasks and configuration: tasks.json, parameters ---------------------


def faults_of(folder, document):
    """The faults of a tasks.json, as people read them."""
    path = write_config(folder, document)
    try:
        tr.load_config(path)
    except tr.ConfigError as error:
        return [str(fault._replace(path="tasks.json")) for fault in error.faults]
    return []


def task_of(folder, defaults=None, /, **settings):
    """The task `a` with some settings."""
    tasks = {"a": {"run": "true", **settings}}
    document = {"defaults": defaults or {}, "tasks": tasks}
    return tr.load_config(write_config(folder, document)).tasks["a"]


def one_setting(key, value):
    """A tasks.json with a setting on line 2, its value from column len(key) + 5."""
    run = "" if key in ("run", "notify") else '"run": "true",'
    return f'{{"tasks": {{"a": {{{run}\n"{key}": {json.dumps(value)}}}}}}}'


GOOD_SETTINGS = [
    ("run", "echo hello", "run", "echo hello"),
    ("run", ["df", "-k"], "run", ("df", "-k")),
    ("notify", "https://a.b/c", "notify",
     {"targets": ["https://a.b/c"], "format": "chat", "smtp": ""}),
    ("notify_format", "text", "notify", None),
    ("smtp", "smtps://u:p@h", "notify", None),
    ("description", "Backs up", "description", "Backs up"),
    ("group", "system", "group", "system"), ("env_base", "clean", "name", "a"),
    ("shell", "/bin/bash", "shell", ("/bin/bash", "-e", "-c")),
    ("shell", "dash", "shell", ("dash", "-e", "-c")),
    ("shell", "./ksh", "shell", ("./ksh", "-e", "-c")),
    ("shell", "bash", "shell",
     ("bash", "--noprofile", "--norc", "-e", "-o", "pipefail", "-c")),
    ("shell", "/bin/busybox", "shell", ("/bin/busybox", "sh", "-e", "-c")),
    ("shell", "/usr/bin/perl", "shell", ("/usr/bin/perl", "-c")),
    ("shell", "./bash-wrapper", "shell", ("./bash-wrapper", "-c")),
    ("shell", ["/usr/bin/perl", "-e"], "shell", ("/usr/bin/perl", "-e")),
    ("shell", ["/bin/sh", "-c"], "shell", ("/bin/sh", "-c")),
    ("umask", "022", "umask", 0o022), ("umask", "0077", "umask", 0o077),
    ("api_trigger", False, "api_trigger", False),
    ("timeout", "1h30m", "timeout_s", 5400),
    ("graceful_stop", "0s", "graceful_stop_s", 0),
    ("stop_signal", "SIGINT", "stop_signal", signal.SIGINT),
    ("exit_codes", [0, 3, 255], "exit_codes", (0, 3, 255)),
    ("orphans", "leave", "orphans", "leave"),
    ("max_concurrent", 1, "max_concurrent", 1),
    ("max_concurrent", 1024, "max_concurrent", 1024),
    ("on_overlap", "queue", "on_overlap", "queue"),
    ("on_overlap", "skip", "on_overlap", "skip"),
    ("on_overlap", "terminate", "on_overlap", "terminate"),
    ("on_overlap", "coalesce", "on_overlap", "coalesce"),
    ("queue_max", 0, "queue_max", 0), ("queue_max", 10_000, "queue_max", 10_000),
    ("stderr", "merge", "stderr", "merge"),
    ("log_max_size", "1kb", "log_max_bytes", 1024),
    ("log_on_full", "drop_old", "log_on_full", "drop_old"),
    ("log_on_full", "drop_new", "log_on_full", "drop_new"),
    ("log_on_full", "kill_task", "log_on_full", "kill_task"),
    ("keep_runs", 1, "keep_runs", 1), ("keep_for", "2d", "keep_for_s", 2 * 86_400),
    ("keep_for", "forever", "keep_for_s", None),
    ("on_failure", [], "on_failure", ()), ("on_success", [], "on_success", ()),
    ("on_recovery", [], "on_recovery", ()),
    ("retry_attempts", 100, "retry_attempts", 100),
    ("retry_delay", "2m", "retry_delay_s", 120),
    ("retry_backoff", "linear", "retry_backoff", "linear"),
    ("retry_backoff", "exponential", "retry_backoff", "exponential"),
    ("cron", "TZ=UTC @daily", "cron", tr.parse_cron("@daily")),
    ("timezone", "UTC", "cron", None), ("jitter", "5m", "jitter_s", 300),
    ("run_on_start", True, "run_on_start", True),
    ("catch_up", "all", "catch_up", "all"), ("catch_up", "skip", "catch_up", "skip"),
    ("max_catch_up_runs", 10_000, "max_catch_up_runs", 10_000),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "field", "expected"), GOOD_SETTINGS)
def test_setting_reaches_the_task(tmp_path, key, value, field, expected):
    path = write_config(tmp_path, one_setting(key, value))
    assert getattr(tr.load_config(path).tasks["a"], field) == expected


def test_task_without_settings_has_the_defaults(tmp_path):
    task = task_of(tmp_path)
    own = ("TASKRUNNERD_", "OLDPWD")
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(own)}
    assert os.path.samefile(task.working_dir, tmp_path)
    assert task == tr.Task(
        name="a", run="true", notify=None, description="", group="", params=(),
        environ={**inherited, "PWD": str(tmp_path)}, secrets=(),
        working_dir=task.working_dir, shell=("/bin/sh", "-e", "-c"), umask=-1,
        account=None, api_trigger=True, timeout_s=None, graceful_stop_s=5,
        stop_signal=signal.SIGTERM, exit_codes=(0,), orphans="kill", max_concurrent=1,
        on_overlap="queue", queue_max=100, stderr="separate",
        log_max_bytes=100 * 1024 * 1024, log_on_full="drop_old", keep_runs=None,
        keep_for_s=90 * 86_400, retry_attempts=0, retry_delay_s=5,
        retry_backoff="constant", on_failure=(), on_success=(), on_recovery=(),
        cron=None, jitter_s=0, run_on_start=False, catch_up="latest",
        max_catch_up_runs=100,
    )  # fmt: skip


@needs_zones
def test_zone_of_a_schedule_is_the_nearest_one_named(tmp_path):
    tasks = {
        "top": {"cron": "@daily", "run": "true"},
        "own": {"cron": "@daily", "timezone": "Asia/Tokyo", "run": "true"},
        "front": {"cron": "TZ=UTC @daily", "timezone": "Asia/Tokyo", "run": "true"},
    }
    document = {"timezone": "Europe/Berlin", "tasks": tasks}
    loaded = tr.load_config(write_config(tmp_path, document)).tasks
    zones = [task.cron.zone_name for task in loaded.values()]
    assert zones == ["Europe/Berlin", "Asia/Tokyo", "UTC"]


@needs_zones
def test_zone_at_the_top_is_checked_once(tmp_path):
    tasks = {name: {"cron": "@daily", "run": "true"} for name in "ab"}
    tasks["c"] = {"timezone": "Berlin", "run": "true"}
    document = {"timezone": "Europe/Berln", "tasks": tasks}
    top, own = faults_of(tmp_path, document)
    better = "did you mean Europe/Berlin"
    unknown = 'unknown time zone "Europe/Berln"'
    assert top == f"tasks.json:2:15: timezone: {unknown}; {better}"
    assert own.endswith(f': tasks.c.timezone: unknown time zone "Berlin"; {better}')


@pytest.mark.parametrize("key, value", [("cron", "@daily"), ("run_on_start", True)])
def test_schedule_wants_defaults_for_required_parameters(tmp_path, key, value):
    params: list[Any] = [{"env": "A"}, {"env": "B", "required": True}]
    document = {"tasks": {"a": {"run": "true", key: value, "params": params}}}
    (fault,) = faults_of(tmp_path, document)
    assert fault.endswith(
        "tasks.a.params[1]: is required, so a task with a schedule must give it a "
        "default"
    )
    params[1]["default"] = "x"
    assert faults_of(tmp_path, document) == []


TARGET = "must be https://…, http://… or mailto:ADDRESS"
DURATION = "is not a duration; write 30s, 5m, 1h30m, 2d"
BAD_SETTINGS = [
    ("run", 5, "2:8: tasks.a.run: must be text or a list"),
    ("run", "", "2:8: tasks.a.run: must not be empty"),
    ("run", [], "2:8: tasks.a.run: must not be empty"),
    ("run", [""], "2:9: tasks.a.run[0]: must name a program"),
    ("run", ["ls", 5], "2:15: tasks.a.run[1]: must be text"),
    ("run", "a\0b", "2:8: tasks.a.run: must not contain a NUL character"),
    ("notify", 5, "2:11: tasks.a.notify: must be text or a list"),
    ("notify", "b@c", f"2:11: tasks.a.notify: {TARGET}"),
    ("notify", ["mailto:x", "http://:8/"], f"2:24: tasks.a.notify[1]: {TARGET}"),
    ("notify_format", "ntfy", "2:18: tasks.a.notify_format: must be one of chat, "),
    ("smtp", 5, "2:9: tasks.a.smtp: must be text"),
    ("description", 5, "2:16: tasks.a.description: must be text"),
    ("group", ["x"], "2:10: tasks.a.group: must be text"),
    ("params", {}, "2:11: tasks.a.params: must be a list"),
    ("params", ["NAME"], "2:12: tasks.a.params[0]: must be an object"),
    ("env", [], "2:8: tasks.a.env: must be an object"),
    ("env", {"A": 5}, "2:14: tasks.a.env.A: must be text"),
    ("env", {"A-B": "x"},
     "2:9: tasks.a.env.A-B: the name must match ^[A-Za-z_][A-Za-z0-9_]*$"),
    ("env", {"TASKRUNNERD_X": "x"},
     "2:26: tasks.a.env.TASKRUNNERD_X: names that begin with TASKRUNNERD_ are taken"),
    ("env_file", 5, "2:13: tasks.a.env_file: must be text"),
    ("secrets", "x", "2:12: tasks.a.secrets: must be an object"),
    ("secrets", {"A": None}, "2:18: tasks.a.secrets.A: must be text"),
    ("secrets", {"TASKRUNNERD_X": "x"}, ("2:30: tasks.a.secrets.TASKRUNNERD_X: "
     "names that begin with TASKRUNNERD_ are taken")),
    ("secrets_file", True, "2:17: tasks.a.secrets_file: must be text"),
    ("env_base", "cleen",
     "2:13: tasks.a.env_base: must be one of inherit, clean; did you mean clean?"),
    ("working_dir", 5, "2:16: tasks.a.working_dir: must be text"),
    ("shell", "", "2:10: tasks.a.shell: must not be empty"),
    ("shell", [], "2:10: tasks.a.shell: must not be empty"),
    ("shell", ["sh", ""], "2:17: tasks.a.shell[1]: must not be empty"),
    ("shell", 1, "2:10: tasks.a.shell: must be text or a list"),
    ("umask", 22, "2:10: tasks.a.umask: must be text"),
    ("umask", "088", "2:10: tasks.a.umask: must match ^0?[0-7]{3}$"),
    ("user", "", "2:9: tasks.a.user: must not be empty"),
    ("api_trigger", "no", "2:16: tasks.a.api_trigger: must be true or false"),
    ("timeout", "abc", f'2:12: tasks.a.timeout: "abc" {DURATION}'),
    ("timeout", 30, "2:12: tasks.a.timeout: must be text"),
    ("timeout", "0s",
     '2:12: tasks.a.timeout: "0s" is not longer than nothing; write 30s, 5m'),
    ("timeout", "20000d", '2:12: tasks.a.timeout: "20000d" is longer than ten years'),
    ("graceful_stop", "5", f'2:18: tasks.a.graceful_stop: "5" {DURATION}'),
    ("stop_signal", "TERM", ('2:16: tasks.a.stop_signal: "TERM" is not a signal; '
     "write SIGTERM, SIGINT, SIGUSR1")),
    ("stop_signal", "SIGKILL",
     "2:16: tasks.a.stop_signal: SIGKILL cannot be caught; write SIGTERM or SIGINT"),
    ("stderr", "both", "2:11: tasks.a.stderr: must be one of separate, merge"),
    ("orphans", "let", "2:12: tasks.a.orphans: must be one of kill, leave"),
    ("exit_codes", 0, "2:15: tasks.a.exit_codes: must be a list"),
    ("exit_codes", [], "2:15: tasks.a.exit_codes: must not be empty"),
    ("exit_codes", [0, 256], "2:19: tasks.a.exit_codes[1]: must be 0 to 255"),
    ("exit_codes", [-1], "2:16: tasks.a.exit_codes[0]: must be 0 to 255"),
    ("max_concurrent", 0, "2:19: tasks.a.max_concurrent: must be 1 to 1024"),
    ("max_concurrent", 1025, "2:19: tasks.a.max_concurrent: must be 1 to 1024"),
    ("max_concurrent", "2", "2:19: tasks.a.max_concurrent: must be a whole number"),
    ("max_concurrent", True, "2:19: tasks.a.max_concurrent: must be a whole number"),
    ("on_overlap", "skipp",
     ("2:15: tasks.a.on_overlap: must be one of queue, skip, terminate, "
     "coalesce; did you mean skip?")),
    ("queue_max", -1, "2:14: tasks.a.queue_max: must be 0 to 10000"),
    ("queue_max", 10_001, "2:14: tasks.a.queue_max: must be 0 to 10000"),
    ("log_max_size", "big",
     '2:17: tasks.a.log_max_size: "big" is not a size; write 64kb, 100mb, 1gb'),
    ("log_max_size", "1b", "2:17: tasks.a.log_max_size: must be at least 1.0 KB"),
    ("log_on_full", "drop",
     ("2:16: tasks.a.log_on_full: must be one of drop_old, drop_new, kill_task; "
     "did you mean drop_old?")),
    ("keep_runs", 0, "2:14: tasks.a.keep_runs: must be 1 to 10000000"),
    ("retry_attempts", 101, "2:19: tasks.a.retry_attempts: must be 0 to 100"),
    ("retry_delay", "x", f'2:16: tasks.a.retry_delay: "x" {DURATION}'),
    ("retry_backoff", "quadratic",
     "2:18: tasks.a.retry_backoff: must be one of constant, linear, exponential"),
    ("cron", 5, "2:9: tasks.a.cron: must be text"),
    ("cron", "0 3 * *", "2:9: tasks.a.cron: 4 fields; "),
    ("cron", "61 * * * *", '2:9: tasks.a.cron: "61" is not a minute; write 0 to 59'),
    ("cron", "0 0 30 2 *",
     "2:9: tasks.a.cron: can never fire: no such date as 30 February"),
    ("timezone", "", "2:13: tasks.a.timezone: must not be empty"),
    ("jitter", "-1s", f'2:11: tasks.a.jitter: "-1s" {DURATION}'),
    ("run_on_start", 1, "2:17: tasks.a.run_on_start: must be true or false"),
    ("catch_up", "newest", "2:13: tasks.a.catch_up: must be one of latest, all, skip"),
    ("max_catch_up_runs", 0, "2:22: tasks.a.max_catch_up_runs: must be 1 to 10000"),
    ("on_failure", 5, "2:15: tasks.a.on_failure: must be text or a list"),
    ("on_success", "b", '2:15: tasks.a.on_success: no task "b"'),
    ("on_recovery", "a", "2:16: tasks.a.on_recovery: a cycle that would never "),
    ("keep_for", "0d", '2:13: tasks.a.keep_for: "0d" is not longer than nothing; '),
    ("tiemout", "5s", "2:1: tasks.a.tiemout: unknown key; did you mean timeout?"),
    ("Timeout", "5s", "2:1: tasks.a.Timeout: unknown key; did you mean timeout?"),
    ("xyzzy", 1, "2:1: tasks.a.xyzzy: unknown key"),
]  # fmt: skip


@pytest.mark.parametrize(("key", "value", "fault"), BAD_SETTINGS)
def test_setting_is_refused_at_its_place(tmp_path, key, value, fault):
    [found] = faults_of(tmp_path, one_setting(key, value))
    if fault.endswith(" "):
        found = found[: len("tasks.json:") + len(fault)]
    assert found == f"tasks.json:{fault}"


def test_tables_of_settings_leave_out_no_key():
    good, bad = {row[0] for row in GOOD_SETTINGS}, {row[0] for row in BAD_SETTINGS}
    apart = {"params", "env", "env_file", "secrets", "secrets_file"}
    assert good | apart | {"working_dir", "user"} == set(tr.TASK_KEYS)
    assert bad - {"tiemout", "Timeout", "xyzzy"} == set(tr.TASK_KEYS)


@pytest.mark.parametrize("text, faults", [
    ("", ["1:1: not JSON: "]), (" \n ", ["2:2: not JSON: "]),
    ('{\n "tasks": {\n  "a": nope }}', ["3:8: not JSON: "]),
    ('{"tasks": {}} {}', ["1:15: not JSON: extra data"]),
    ("[]", ["1:1: must be an object"]), (' "text"', ["1:2: must be an object"]),
    ("{}", ["1:1: tasks: must be there"]),
    ('{"tasks": null}', ["1:11: tasks: must be an object"]),
    ('{"tasks": {"a": "true"}}', ["1:17: tasks.a: must be an object"]),
    (
        '{"tasks": {\n"a": {}}}',
        [
            (
                "2:6: tasks.a.run: must be there: a shell script, "
                "or a list of a program and arguments"
            )
        ],
    ),
    (
        '{"tasks": {"my task": {"run": "true"}}}',
        ["1:12: tasks.my task: the name must match ^[a-zA-Z0-9._:-]{1,100}$"],
    ),
    (
        '{"tasks": {"..": {"run": "true"}}}',
        ["1:12: tasks...: is not a usable name; write letters, digits, - and _"],
    ),
    (
        '{"task": {}}',
        [
            "1:1: tasks: must be there",
            "1:2: task: unknown key; did you mean tasks?",
        ],
    ),
    ('{"tasks": {}, "defaults": []}', ["1:27: defaults: must be an object"]),
    (
        '{"tasks": {},\r\n"defaults": {"timeouts": 1}}',
        ["2:14: defaults.timeouts: unknown key; did you mean timeout?"],
    ),
    ('{"tasks": {}, "$schema": 5}', ["1:26: $schema: must be text"]),
    (
        '{"tasks": {}, "defaults": {"run": "true"}}',
        ["1:35: defaults.run: belongs to a task, not to the defaults"],
    ),
])  # fmt: skip
def test_config_is_refused_at_its_place(tmp_path, text, faults):
    found = faults_of(tmp_path, text)
    assert len(found) == len(faults)
    for one, fault in zip(found, faults):
        # What a parser has against a text differs between Python versions.
        assert one.startswith(f"tasks.json:{fault}")
        assert one == f"tasks.json:{fault}" or fault.endswith("not JSON: ")


def test_config_may_name_its_schema_and_have_no_tasks(tmp_path):
    document = {"$schema": "schema.json", "tasks": {}}
    assert tr.load_config(write_config(tmp_path, document)).tasks == {}


def test_config_keeps_the_order_of_the_file(tmp_path):
    names = ["zeta", "alpha", "m.2:x-y_z", "A" * 100]
    tasks = {name: {"run": "true"} for name in names}
    assert list(tr.load_config(write_config(tmp_path, {"tasks": tasks})).tasks) == names


def test_config_faults_of_shape_come_together_in_the_order_of_the_file(tmp_path):
    text = """{
  "tasks": {
    "b": {"timeout": "abc", "run": ""},
    "a": {"run": "true", "max_concurrent": 0,
          "max_concurrent": 5000}
  },
  "defaults": {"tiemout": "5s"}
}"""
    assert faults_of(tmp_path, text) == [
        f'tasks.json:3:22: tasks.b.timeout: "abc" {DURATION}',
        "tasks.json:3:36: tasks.b.run: must not be empty",
        ("tasks.json:5:11: tasks.a.max_concurrent: repeated; "
         "each name may stand only once"),
        "tasks.json:5:29: tasks.a.max_concurrent: must be 1 to 1024",
        "tasks.json:7:16: defaults.tiemout: unknown key; did you mean timeout?",
    ]  # fmt: skip


def test_config_faults_of_every_kind_come_together(tmp_path):
    text = """{"tasks": {
"a": {"run": "true", "timeout": "abc", "env_file": "missing.env"},
"b": {},
"c": {"run": "true", "user": "no-such-user", "tiemout": "5s"},
"d": {"run": "true", "params": [{"arg": "x"}]}
}}"""
    assert faults_of(tmp_path, text) == [
        f'tasks.json:2:33: tasks.a.timeout: "abc" {DURATION}',
        ('tasks.json:2:52: tasks.a.env_file: "missing.env" cannot be read: '
         "No such file or directory"),
        ("tasks.json:3:6: tasks.b.run: must be there: a shell script, "
         "or a list of a program and arguments"),
        'tasks.json:4:30: tasks.c.user: no such user "no-such-user"',
        "tasks.json:4:46: tasks.c.tiemout: unknown key; did you mean timeout?",
        ("tasks.json:5:14: tasks.d.run: the script never uses its arguments (x); "
         'write "$@" or $1'),
    ]  # fmt: skip


def test_config_fault_of_a_name_does_not_hide_those_below_it(tmp_path):
    text = '{"tasks": {"my task": {"run": "true",\n"timeout": "abc"}}}'
    assert faults_of(tmp_path, text) == [
        (
            "tasks.json:1:12: tasks.my task: the name must match "
            "^[a-zA-Z0-9._:-]{1,100}$"
        ),
        f'tasks.json:2:12: tasks.my task.timeout: "abc" {DURATION}',
    ]


REPEATED = "repeated; each name may stand only once"


@pytest.mark.parametrize("text, faults", [
    ('{"tasks": {},\n"tasks": {}}', [f"2:1: tasks: {REPEATED}"]),
    (
        '{"tasks": {"a": {"run": "1"},\n"a": {"run": "2"}}}',
        [f"2:1: tasks.a: {REPEATED}"],
    ),
    ('{"tasks": {"a": {"run": "1",\n"run": "2"}}}', [f"2:1: tasks.a.run: {REPEATED}"]),
    (
        '{"tasks": {"a": {"run": "1", "env": {"X": "1",\n"X": "1"}}}}',
        [f"2:1: tasks.a.env.X: {REPEATED}"],
    ),
    (
        '{"tasks": {"a": {"run": "1", "params": [{"env": "A",\n"env": "B"}]}}}',
        [f"2:1: tasks.a.params[0].env: {REPEATED}"],
    ),
    (
        '{"tasks": {"a": {"run": "1",\n"\\u0072un": "2",\n"run": "3"}}}',
        [f"2:1: tasks.a.run: {REPEATED}", f"3:1: tasks.a.run: {REPEATED}"],
    ),
])  # fmt: skip
def test_config_refuses_a_name_that_stands_twice(tmp_path, text, faults):
    assert faults_of(tmp_path, text) == [f"tasks.json:{fault}" for fault in faults]


def test_config_names_may_come_again_in_another_object(tmp_path):
    tasks = {"run": {"run": "run", "env": {"run": "run"}}, "env": {"run": "env"}}
    assert faults_of(tmp_path, {"tasks": tasks}) == []


def test_config_places_are_right_among_quotes_and_brackets(tmp_path):
    text = (
        '{"tasks": {"a": {"description": "\\"}],{[: \\\\", "run": ["x", "{\\"["],\n'
        '\t"exit_codes": [1, 2 ,\n3.5]}}}'
    )
    assert faults_of(tmp_path, text) == [
        "tasks.json:3:1: tasks.a.exit_codes[2]: must be a whole number"
    ]


def test_config_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "tasks.json").write_bytes(b'\xef\xbb\xbf{"tasks": {"a": {}}}')
    with pytest.raises(tr.ConfigError, match=r":1:17: tasks\.a\.run: must be there"):
        tr.load_config(str(tmp_path / "tasks.json"))


def test_config_columns_count_characters_not_bytes(tmp_path):
    text = '{"tasks": {"a": {"description": "\u20ac\u20ac", "run": 5}}}'
    path = tmp_path / "tasks.json"
    path.write_bytes(text.encode())
    with pytest.raises(tr.ConfigError, match=r":1:46: tasks\.a\.run: must be text or"):
        tr.load_config(str(path))


def test_config_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "tasks.json"
    path.write_bytes(b'{"tasks": {}, "$schema": "\xe9"}')
    with pytest.raises(tr.ConfigError, match=r"tasks\.json: byte 26 is not UTF-8"):
        tr.load_config(str(path))


@pytest.mark.parametrize("value, fault", [
    ("NaN", "NaN is not JSON"), ("[" * 100_000, "nested deeper than 64 levels"),
    ("9" * 5000, "a number is too large"),
])  # fmt: skip
def test_config_that_json_forbids_is_refused(tmp_path, value, fault):
    text = f'{{"tasks": {{"a": {{"run": "true", "max_concurrent": {value}}}}}}}'
    [found] = faults_of(tmp_path, text)
    assert fault in found


@pytest.mark.parametrize("value", ["1e400", "-1e400", "1.0", "1e2"])
def test_config_number_that_is_not_whole_is_refused(tmp_path, value):
    text = f'{{"tasks": {{"a": {{"run": "true", "max_concurrent": {value}}}}}}}'
    assert faults_of(tmp_path, text) == [
        "tasks.json:1:51: tasks.a.max_concurrent: must be a whole number"
    ]


def test_config_with_a_size_beyond_all_numbers_is_refused(tmp_path):
    [found] = faults_of(tmp_path, one_setting("log_max_size", "9" * 400 + "gb"))
    assert found.startswith("tasks.json:2:17: tasks.a.log_max_size: ")


@pytest.mark.parametrize("key, value", [
    ("run", "echo \ud800"), ("run", ["\udc80"]), ("working_dir", "\udc80"),
    ("env", {"X": "\ud800"}), ("secrets", {"X": "hunter2\ud800"}),
])  # fmt: skip
def test_config_with_text_that_has_no_bytes_is_refused(tmp_path, key, value):
    """Half of a surrogate pair cannot reach a program, nor the history in an error."""
    [found] = faults_of(tmp_path, one_setting(key, value))
    assert found.endswith("must be valid Unicode")


def test_config_that_is_missing_names_the_command_that_writes_one(tmp_path):
    with pytest.raises(tr.ConfigError) as caught:
        tr.load_config(str(tmp_path / "tasks.json"))
    assert str(caught.value) == (
        f"{tmp_path}/tasks.json: no such file; "
        "`python taskrunnerd.py init` writes an example"
    )


def test_config_that_is_a_folder_is_refused(tmp_path):
    with pytest.raises(tr.ConfigError, match="cannot be read: Is a directory"):
        tr.load_config(str(tmp_path))


def test_config_beyond_its_size_limit_is_refused(tmp_path):
    path = tmp_path / "tasks.json"
    text = b'{"tasks": {}}'
    path.write_bytes(text + b" " * (tr.CONFIG_MAX_BYTES - len(text)))
    assert tr.load_config(str(path)).tasks == {}
    with open(path, "ab") as file:
        file.write(b" ")
    with pytest.raises(tr.ConfigError, match=r"tasks\.json: larger than 16\.0 MB"):
        tr.load_config(str(path))


# -- defaults


def test_defaults_hold_for_every_task_that_has_no_own_value(tmp_path):
    document = {
        "defaults": {"timeout": "1h", "max_concurrent": 3, "exit_codes": [0, 1]},
        "tasks": {"a": {"run": "true"}, "b": {"run": "true", "timeout": "5s"}},
    }
    tasks = tr.load_config(write_config(tmp_path, document)).tasks
    assert (tasks["a"].timeout_s, tasks["b"].timeout_s) == (3600, 5)
    assert [tasks[name].max_concurrent for name in "ab"] == [3, 3]
    assert tasks["b"].exit_codes == (0, 1)


def test_defaults_may_have_every_key_but_run(tmp_path):
    (tmp_path / "file").write_text("")
    special: dict[str, Any] = {
        "params": [{"env": "P"}], "env": {"A": "1"}, "secrets": {"S": "1"},
        "env_file": "file", "secrets_file": "file", "working_dir": ".",
    }  # fmt: skip
    good = {key: value for key, value, _, _ in GOOD_SETTINGS}
    for key in ("run", "notify"):
        document = {"defaults": {key: good.pop(key)}, "tasks": {}}
        [fault] = faults_of(tmp_path, document)
        assert f"defaults.{key}: belongs to a task" in fault
    defaults = {**good, **special}
    assert {*defaults, "run", "notify", "user"} == set(tr.TASK_KEYS)
    assert task_of(tmp_path, defaults).params[0].key == "P"


def test_defaults_merge_env_and_secrets_and_the_task_wins(tmp_path):
    defaults = {
        "env": {"A": "default", "B": "default"},
        "secrets": {"S": "default-secret", "T": "default-secret"},
    }
    own = {"env": {"B": "own", "C": "own"}, "secrets": {"T": "own-secret"}}
    task = task_of(tmp_path, defaults, **own)
    expected = {
        "A": "default", "B": "own", "C": "own", "S": "default-secret",
        "T": "own-secret",
    }  # fmt: skip
    assert {name: task.environ[name] for name in expected} == expected
    assert set(task.secrets) == {"default-secret", "own-secret"}


def test_defaults_of_other_keys_are_replaced(tmp_path):
    defaults = {"params": [{"env": "A"}, {"env": "B"}], "exit_codes": [0, 7]}
    task = task_of(tmp_path, defaults, params=[{"env": "C"}], exit_codes=[1])
    assert [param.key for param in task.params] == ["C"]
    assert task.exit_codes == (1,)


@pytest.mark.parametrize("defaults, fault", [
    ('"timeout": "abc"', f'2:12: defaults.timeout: "abc" {DURATION}'),
    ('"user": "no-such-user"', '2:9: defaults.user: no such user "no-such-user"'),
    (
        '"env_file": "no.env"',
        (
            '2:13: defaults.env_file: "no.env" cannot be read: '
            "No such file or directory"
        ),
    ),
    (
        '"params": [{"env": "A", "arg": "A"}]',
        "2:12: defaults.params[0]: must have exactly one of env, arg, option, flag",
    ),
    (
        '"env": {"TASKRUNNERD_X": "1"}',
        (
            "2:26: defaults.env.TASKRUNNERD_X: "
            "names that begin with TASKRUNNERD_ are taken"
        ),
    ),
])  # fmt: skip
def test_defaults_at_fault_are_shown_once_and_there(tmp_path, defaults, fault):
    tasks = '"a": {"run": "true"}, "b": {"run": "true"}, "c": {"run": "true"}'
    text = f'{{"defaults": {{\n{defaults}}}, "tasks": {{{tasks}}}}}'
    assert faults_of(tmp_path, text) == [f"tasks.json:{fault}"]


@pytest.mark.parametrize("key", ["env", "secrets"])
def test_defaults_at_fault_are_not_blamed_on_a_task_that_adds_its_own(tmp_path, key):
    text = (
        f'{{"defaults": {{"{key}": {{\n"TASKRUNNERD_X": "1"}}}},'
        f'"tasks": {{"a": {{"run": "true", "{key}": {{"B": "1"}}}}}}}}'
    )
    assert faults_of(tmp_path, text) == [
        (
            f"tasks.json:2:18: defaults.{key}.TASKRUNNERD_X: "
            "names that begin with TASKRUNNERD_ are taken"
        )
    ]


# -- environment


def test_env_file_is_read_by_lines(tmp_path):
    (tmp_path / "some.env").write_text(
        "# a comment\n"
        "\n"
        "   \t\n"
        "PLAIN=value\n"
        "  INDENTED = spaced out \n"
        "export EXPORTED=yes\n"
        "EMPTY=\n"
        "EQUALS=a=b=c\n"
        'DOUBLE="two  words "\n'
        "SINGLE='it is'\n"
        'QUOTED="it\'s"\n'
        'INSIDE=it\'s "so"\n'
        "HASH=a#b#\n"
        'NOTED="a b" # note\n'
        "NOTED_TOO='#1'\t#\n"
        "AFTER= 'blanks' \t\n"
        r'ESCAPED="a \"b\" \\ \$HOME #1"'
        "\n"
        "LITERAL='$HOME \\n \\\"'\n"
        "KEY='-----BEGIN-----\nabc=\n\n# no comment\nB=1\n'\n"
        'JSON="{\n  \\"a\\": 1\n}" # of lines\n'
        "TWICE=1\n"
        "TWICE=2\n"
        "#OFF=1\r\n"
        "WINDOWS=dos\r\n"
        "UNICODE=\u20ac\n"
        "LAST=end",
        encoding="utf-8",
    )
    environ = task_of(tmp_path, env_file="some.env", env_base="clean").environ
    expected = {
        "PLAIN": "value", "INDENTED": "spaced out", "EXPORTED": "yes", "EMPTY": "",
        "EQUALS": "a=b=c", "DOUBLE": "two  words ", "SINGLE": "it is", "QUOTED": "it's",
        "INSIDE": 'it\'s "so"', "HASH": "a#b#", "NOTED": "a b", "NOTED_TOO": "#1",
        "AFTER": "blanks", "ESCAPED": 'a "b" \\ $HOME #1', "LITERAL": '$HOME \\n \\"',
        "KEY": "-----BEGIN-----\nabc=\n\n# no comment\nB=1\n", "JSON": '{\n  "a": 1\n}',
        "TWICE": "2", "WINDOWS": "dos", "UNICODE": "\u20ac", "LAST": "end",
    }  # fmt: skip
    assert {name: environ.get(name) for name in expected} == expected
    assert set(environ) - set(expected) <= {"PATH", "LANG", "HOME", "PWD"}


def test_env_file_may_begin_with_a_byte_order_mark(tmp_path):
    (tmp_path / "some.env").write_bytes(b"\xef\xbb\xbfA=1\n")
    assert task_of(tmp_path, env_file="some.env").environ["A"] == "1"


@pytest.mark.parametrize("mark", ["\u2028", "\x0c", "\x1d", "\x85"])
def test_env_file_value_may_hold_what_only_unicode_calls_a_line_end(tmp_path, mark):
    (tmp_path / "some.env").write_text(f"A=x{mark}y\n", encoding="utf-8")
    assert task_of(tmp_path, env_file="some.env").environ["A"] == f"x{mark}y"


def test_env_file_and_env_and_secrets_have_their_order(tmp_path):
    (tmp_path / "e").write_text("A=env_file\nB=env_file\nC=env_file\nD=env_file\n")
    (tmp_path / "s").write_text("C=secrets_file\nD=secrets_file\n")
    environ = task_of(
        tmp_path, env_file="e", secrets_file="s", env={"B": "env"},
        secrets={"D": "secrets"},
    ).environ  # fmt: skip
    assert [environ[name] for name in "ABCD"] == [
        "env_file", "env", "secrets_file", "secrets",
    ]  # fmt: skip


@pytest.mark.parametrize("key", ["env_file", "secrets_file"])
@pytest.mark.parametrize("content, line", [
    (b"A=1\nhunter2hunter2\n", 2), (b"=hunter2hunter2\n", 1),
    (b"export =hunter2hunter2\n", 1), (b"A B=hunter2hunter2\n", 1),
    (b"1A=hunter2hunter2\n", 1), (b"# fine\n\nA-B=hunter2hunter2\n", 3),
    (b"A=hunter2\0hunter2\n", 1), (b"hunter2hunter2", 1),
])  # fmt: skip
def test_env_file_line_at_fault_is_named_but_not_shown(tmp_path, key, content, line):
    (tmp_path / "some.env").write_bytes(content)
    [fault] = faults_of(tmp_path, one_setting(key, "some.env"))
    assert fault == (
        f"tasks.json:2:{len(key) + 5}: tasks.a.{key}: "
        f"some.env:{line}: not a KEY=VALUE line"
    )


BARE = "ambiguous; write '…' around a value with a $, a \\ or a # after a blank"
DOUBLE = r"ambiguous; write \$, \\ and \" in double quotes, and no other \ there"
SINGLE = r"""ambiguous; write "…\\" for a \ before the quote"""
OPEN_QUOTE = "a quote that is not closed, or text behind the closing one"


@pytest.mark.parametrize("line, fault", [
    # What Docker Compose, systemd or both of them do not take as it stands.
    ("A=hunter2 # note", BARE), ("A=hunter2\t#", BARE), ("A=#hunter2", BARE),
    ("A= # hunter2", BARE), ("A=$hunter2", BARE), ("A=hunter2$", BARE),
    ("A=${HUNTER:-hunter2}", BARE), (r"A=C:\hunter2", BARE), ("A=hunter2\\\nB=2", BARE),
    ('A="hunter2 $HOME"', DOUBLE), (r'A="hunter2\n"', DOUBLE),
    (r'A="hunter2\\\t"', DOUBLE), (r'A="hunter2\d"', DOUBLE),
    ('A="hunter2\\\nB"', DOUBLE), (r"A='hunter\'", SINGLE),
    (r"A='hunter\'s'", OPEN_QUOTE), ("A='hunter2", OPEN_QUOTE),
    ("A='hunter2\"", OPEN_QUOTE), ('export A = "hunter2', OPEN_QUOTE),
    ('A="hunter" 2', OPEN_QUOTE), ("A='hunter''2'", OPEN_QUOTE),
    ("A='hunter2'# note", OPEN_QUOTE), ("A='hunter\n2' note", OPEN_QUOTE),
    ("A: hunter2", "not a KEY=VALUE line"), ("; hunter2", "not a KEY=VALUE line"),
    ("A", "not a KEY=VALUE line"), ("A='hunter\0'", "not a KEY=VALUE line"),
])  # fmt: skip
def test_env_file_line_that_is_read_in_two_ways_is_refused(tmp_path, line, fault):
    (tmp_path / "some.env").write_text(f"Z='1\n2'\n{line}\n")
    found = faults_of(tmp_path, one_setting("env_file", "some.env"))
    assert found[0] == f"tasks.json:2:13: tasks.a.env_file: some.env:3: {fault}"
    assert not any("unter" in each for each in found)


def test_env_file_shows_all_lines_at_fault(tmp_path):
    (tmp_path / "some.env").write_text("one\nA=1\ntwo\n")
    found = faults_of(tmp_path, one_setting("env_file", "some.env"))
    assert [fault.rpartition("tasks.a.env_file: ")[2] for fault in found] == [
        "some.env:1: not a KEY=VALUE line",
        "some.env:3: not a KEY=VALUE line",
    ]


@pytest.mark.parametrize("key", ["env_file", "secrets_file"])
@pytest.mark.parametrize("name, reason", [
    ("missing.env", "No such file or directory"), (".", "Is a directory"),
    ("latin1.env", "not UTF-8 text"),
])  # fmt: skip
def test_env_file_that_cannot_be_read_is_refused(tmp_path, key, name, reason):
    (tmp_path / "latin1.env").write_bytes(b"A=hunter2\xe9\n")
    assert faults_of(tmp_path, one_setting(key, name)) == [
        f'tasks.json:2:{len(key) + 5}: tasks.a.{key}: "{name}" cannot be read: {reason}'
    ]


@pytest.mark.parametrize("key", ["env_file", "secrets_file"])
def test_env_file_may_not_set_names_of_the_daemon(tmp_path, key):
    """A file shared with the daemon must not hand its token to the program."""
    (tmp_path / "some.env").write_text("TASKRUNNERD_TOKEN=hunter2hunter2\n")
    [fault] = faults_of(tmp_path, one_setting(key, "some.env"))
    assert "names that begin with TASKRUNNERD_ are taken" in fault
    assert "hunter2" not in fault


def test_env_file_beyond_the_size_limit_is_refused_not_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(tr, "CONFIG_MAX_BYTES", 200)
    (tmp_path / "some.env").write_text("A=1\n" * 30 + "PASSWORD=" + "x" * 200)
    [fault] = faults_of(tmp_path, one_setting("secrets_file", "some.env"))
    assert "larger than" in fault


def test_secret_values_stay_out_of_the_text_of_a_task(tmp_path):
    task = task_of(tmp_path, secrets={"PASSWORD": "hunter2hunter2"})
    assert task.environ["PASSWORD"] == "hunter2hunter2"
    assert "hunter2" not in repr(task)


@pytest.mark.parametrize(("value", "is_redacted"), [("12345", False), ("123456", True)])
def test_secrets_are_redacted_from_six_characters_on(tmp_path, value, *, is_redacted):
    task = task_of(tmp_path, secrets={"PASSWORD": value})
    assert task.secrets == ((value,) if is_redacted else ())


def test_secrets_of_a_file_are_redacted_too(tmp_path):
    (tmp_path / "s").write_text("A=from-the-file\nB='quoted secret'\n")
    task = task_of(tmp_path, secrets_file="s")
    assert set(task.secrets) == {"from-the-file", "quoted secret"}


@pytest.mark.parametrize("secrets", [
    '{"A-B": "hunter2hunter2"}', '{"A": "hunter2\\u0000hunter2"}',
    '{"A": ["hunter2hunter2"]}', '{"TASKRUNNERD_A": "hunter2hunter2"}',
    '{"A": "hunter2hunter2", "A": "hunter2hunter2"}', '"hunter2hunter2"',
    '{"A": "hunter2hunter2" ]',
])  # fmt: skip
def test_secrets_at_fault_are_not_shown(tmp_path, secrets, capfd):
    text = f'{{"tasks": {{"a": {{"run": "true", "secrets": {secrets}}}}}}}'
    path = write_config(tmp_path, text)
    assert tr.main(["validate", "--config", path]) == 78
    assert tr.main(["validate", "--config", path, "--json"]) == 78
    out, err = capfd.readouterr()
    assert "tasks.json:1:" in err
    assert "hunter2" not in out + err


def test_env_base_inherits_all_but_the_settings_of_the_daemon(tmp_path, monkeypatch):
    monkeypatch.setenv("TASKRUNNERD_TOKEN", "hunter2hunter2")
    monkeypatch.setenv("TASKRUNNERD_PORT", "1")
    monkeypatch.setenv("MINE", "kept")
    environ = task_of(tmp_path).environ
    assert environ["MINE"] == "kept"
    assert not [name for name in environ if name.startswith("TASKRUNNERD_")]


def test_env_base_clean_starts_from_next_to_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("MINE", "not kept")
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setenv("HOME", "/somewhere")
    environ = task_of(tmp_path, env_base="clean", env={"A": "1"}).environ
    assert environ == {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LANG": "C.UTF-8", "HOME": "/somewhere", "PWD": str(tmp_path), "A": "1",
    }  # fmt: skip


@pytest.mark.parametrize("written, expected", [
    (".", "home"), ("", "home"), ("./sub/", "home/sub"), ("sub//.", "home/sub"),
    ("current", "home/current"), ("current/../x", "elsewhere/x"),
    ("../home/current", "home/current"), ("..", ""),
])  # fmt: skip
@pytest.mark.parametrize("env_base", ["inherit", "clean"])
def test_pwd_is_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    env_base: str, written: str, expected: str,
) -> None:  # fmt: skip
    """A link that a deployment points elsewhere is still the directory's name."""
    monkeypatch.setenv("PWD", "/wrong")
    monkeypatch.setenv("OLDPWD", "/wrong")
    tmp_path = tmp_path.resolve()
    for name in ("home/sub", "elsewhere/v1", "elsewhere/x"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "home" / "current").symlink_to("../elsewhere/v1")
    task = task_of(tmp_path / "home", env_base=env_base, working_dir=written)
    assert task.environ["PWD"] == task.working_dir == str(tmp_path / expected)
    assert "OLDPWD" not in task.environ
    for base in (tmp_path, tmp_path / "home"):
        given = task_of(base, env_base=env_base, env={"PWD": "/chosen"})
        assert given.environ["PWD"] == "/chosen"


def test_env_base_clean_may_be_corrected_by_env(tmp_path):
    environ = task_of(tmp_path, env_base="clean", env={"PATH": "/opt/bin"}).environ
    assert environ["PATH"] == "/opt/bin"


def test_paths_are_relative_to_the_config_not_to_the_daemon(tmp_path, monkeypatch):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    home.mkdir()
    elsewhere.mkdir()
    (home / "e").write_text("A=right\n")
    (elsewhere / "e").write_text("A=wrong\n")
    tasks = {
        "a": {"run": "true", "env_file": "e", "working_dir": "sub"},
        "b": {"run": "true", "working_dir": str(elsewhere)},
    }
    write_config(home, {"tasks": tasks})
    monkeypatch.chdir(elsewhere)
    found = tr.load_config("../home/tasks.json").tasks
    assert found["a"].environ["A"] == "right"
    assert os.path.samefile(os.path.dirname(found["a"].working_dir), home)
    assert os.path.isabs(found["a"].working_dir)
    assert found["b"].working_dir == str(elsewhere)


# -- user


@pytest.mark.parametrize("user, fault", [
    ("no-such-user", 'no such user "no-such-user"'),
    ("root:no-such-group", 'no such group "no-such-group"'),
    (":root", 'no such user ""'),
    ("99999999999999999999", 'no such user "99999999999999999999"'),
    ("\u00b2", 'no such user "\u00b2"'), ("root:\u00b2", 'no such group "\u00b2"'),
    ("root:99999999999999999999", 'no such group "99999999999999999999"'),
])  # fmt: skip
def test_user_that_does_not_exist_is_refused(tmp_path, user, fault):
    assert faults_of(tmp_path, one_setting("user", user)) == [
        f"tasks.json:2:9: tasks.a.user: {fault}"
    ]


def test_user_needs_root(tmp_path, monkeypatch):
    monkeypatch.setattr(tr.os, "geteuid", lambda: 4_000_000)
    for user in ("root", "0", "root:root"):
        assert faults_of(tmp_path, one_setting("user", user)) == [
            f'tasks.json:2:9: tasks.a.user: running as "{user}" needs root'
        ]


def test_user_who_runs_the_daemon_needs_no_root(tmp_path, monkeypatch):
    monkeypatch.setattr(tr.os, "geteuid", lambda: 0)
    root = task_of(tmp_path, user="root").account
    monkeypatch.setattr(tr.os, "geteuid", lambda: 1)
    pwd = pytest.importorskip("pwd")
    try:
        entry = pwd.getpwuid(1)
    except KeyError:
        pytest.skip("the machine knows no user 1")
    monkeypatch.setattr(tr.os, "getegid", lambda: entry.pw_gid)
    own = task_of(tmp_path, user="1").account
    assert root
    assert own
    assert (root.uid, own.uid, own.name) == (0, 1, entry.pw_name)


def test_user_is_found_by_name_and_number_and_may_have_a_group(tmp_path, monkeypatch):
    grp, pwd = pytest.importorskip("grp"), pytest.importorskip("pwd")
    monkeypatch.setattr(tr.os, "geteuid", lambda: 0)
    entry = pwd.getpwuid(0)
    other = next((g for g in grp.getgrall() if g.gr_gid != entry.pw_gid), None)
    if not other:
        pytest.skip("the machine has one group only")
    for user in (entry.pw_name, "0"):
        account = task_of(tmp_path, user=user).account
        assert account
        assert (account.name, account.home) == (entry.pw_name, entry.pw_dir)
        assert (account.uid, account.gid) == (0, entry.pw_gid)
    for group in (other.gr_name, str(other.gr_gid)):
        account = task_of(tmp_path, user=f"{entry.pw_name}:{group}").account
        assert account
        assert account.gid == other.gr_gid
        assert other.gr_gid in account.groups


def test_user_gets_an_environment_of_the_own(tmp_path, monkeypatch):
    pwd = pytest.importorskip("pwd")
    monkeypatch.setattr(tr.os, "geteuid", lambda: 0)
    monkeypatch.setenv("HOME", "/wrong")
    monkeypatch.setenv("SHELL", "/wrong")
    for env_base in ("inherit", "clean"):
        task = task_of(tmp_path, user="root", env_base=env_base)
        assert task.account
        assert task.environ["HOME"] == task.account.home != "/wrong"
        assert task.environ["USER"] == task.environ["LOGNAME"] == "root"
        assert task.environ["SHELL"] == pwd.getpwuid(0).pw_shell
    own = task_of(tmp_path, user="root", env={"HOME": "/chosen"})
    assert own.environ["HOME"] == "/chosen"


# -- parameters


def params_text(*params, run="$@"):
    """A tasks.json with parameters, each on a line of its own from line 2."""
    lines = ",\n".join(json.dumps(param) for param in params)
    return f'{{"tasks": {{"a": {{"params": [\n{lines}],\n"run": {json.dumps(run)}}}}}}}'


@pytest.mark.parametrize("param, fault", [
    ({}, "2:1: tasks.a.params[0]: must have exactly one of env, arg, option, flag"),
    (
        {"env": "A", "flag": "-a"},
        "2:1: tasks.a.params[0]: must have exactly one of env, arg, option, flag",
    ),
    ({"env": "A-B"}, "2:9: tasks.a.params[0].env: must match ^[A-Za-z_][A-Za-z0-9_]*$"),
    (
        {"env": "TASKRUNNERD_RUN_ID"},
        "2:9: tasks.a.params[0].env: names that begin with TASKRUNNERD_ are taken",
    ),
    ({"arg": ""}, "2:9: tasks.a.params[0].arg: must not be empty"),
    ({"option": "level"}, "2:12: tasks.a.params[0].option: must match ^-"),
    ({"flag": "dry"}, "2:10: tasks.a.params[0].flag: must match ^-"),
    (
        {"env": "A", "type": "int"},
        (
            "2:22: tasks.a.params[0].type: must be one of string, number, integer; "
            "did you mean integer?"
        ),
    ),
    (
        {"env": "A", "defalt": "x"},
        "2:14: tasks.a.params[0].defalt: unknown key; did you mean default?",
    ),
    (
        {"env": "A", "default": None},
        (
            "2:25: tasks.a.params[0].default: must be text or true or false "
            "or a number"
        ),
    ),
    ({"env": "A", "choices": []}, "2:25: tasks.a.params[0].choices: must not be empty"),
    ({"env": "A", "choices": [1]}, "2:26: tasks.a.params[0].choices[0]: must be text"),
    (
        {"env": "A", "required": "yes"},
        "2:26: tasks.a.params[0].required: must be true or false",
    ),
    (
        {"env": "A", "default": "c", "choices": ["a", "b"]},
        "2:25: tasks.a.params[0].default: must be one of a, b",
    ),
    (
        {"env": "A", "default": "five", "type": "integer"},
        "2:25: tasks.a.params[0].default: must be a whole number",
    ),
    (
        {"env": "A", "default": 1.5, "type": "integer"},
        "2:25: tasks.a.params[0].default: must be a whole number",
    ),
    (
        {"env": "A", "default": True, "type": "number"},
        "2:25: tasks.a.params[0].default: must be a number",
    ),
    (
        {"flag": "-a", "default": "maybe"},
        "2:27: tasks.a.params[0].default: must be true or false",
    ),
    (
        {"env": "A", "default": "x" * 32_769},
        "2:25: tasks.a.params[0].default: must have at most 32768 bytes, has 32769",
    ),
    (
        {"env": "A", "default": "\ud800"},
        "2:25: tasks.a.params[0].default: must be valid Unicode",
    ),
])  # fmt: skip
def test_param_declaration_is_refused_at_its_place(tmp_path, param, fault):
    assert faults_of(tmp_path, params_text(param)) == [f"tasks.json:{fault}"]


def test_param_keys_may_not_be_declared_twice(tmp_path):
    text = params_text({"env": "NAME"}, {"arg": "other"}, {"arg": "NAME"})
    assert faults_of(tmp_path, text) == [
        "tasks.json:4:1: tasks.a.params[2]: the key NAME is declared twice"
    ]


def test_param_secret_default_at_fault_is_not_shown(tmp_path):
    wrong = {"env": "A", "secret": True, "type": "integer", "default": "hunter2"}
    [fault] = faults_of(tmp_path, params_text(wrong))
    assert fault.endswith("default: must be a whole number")


def test_param_has_its_defaults(tmp_path):
    assert task_of(tmp_path, params=[{"env": "A"}]).params == (
        tr.Param(
            kind="env",
            key="A",
            type="string",
            default=None,
            required=False,
            choices=(),
            allow_custom=False,
            secret=False,
            description="",
        ),
    )


@pytest.mark.parametrize("fields, text", [
    ({"default": "x"}, "x"), ({"default": ""}, ""),
    ({"default": 5, "type": "integer"}, "5"),
    ({"default": 1.5, "type": "number"}, "1.5"), ({"default": 7}, "7"),
    ({"default": True}, "true"),
    ({"default": "other", "choices": ["a"], "allow_custom": True}, "other"),
])  # fmt: skip
def test_param_default_becomes_text(tmp_path, fields, text):
    task = task_of(tmp_path, params=[{"env": "A", **fields}])
    assert tr.resolve_params(task, {}) == {"A": text}


@pytest.mark.parametrize("script", [
    'echo "$@"', "echo $*", "echo $1", 'echo "${1}"', "echo ${2:-none}", "echo ${@}",
    "echo ${*}", 'echo "${#1}"', "echo ${10}", "while getopts ab: o; do echo; done",
])  # fmt: skip
def test_script_that_uses_its_arguments_is_accepted(tmp_path, script):
    task = task_of(tmp_path, run=script, params=[{"arg": "file"}])
    assert task.run == script


@pytest.mark.parametrize(
    "script", ["echo", "echo $0", "echo $HOME", "echo $$", "echo '1 @ *'", "echo ${A1}"]
)
@pytest.mark.parametrize("kind", ["arg", "option", "flag"])
def test_script_that_never_uses_its_arguments_is_refused(tmp_path, script, kind):
    text = params_text({"env": "ENV"}, {kind: "--name"}, {"arg": "file"}, run=script)
    assert faults_of(tmp_path, text) == [
        (
            "tasks.json:5:8: tasks.a.run: the script never uses its arguments "
            '(--name, file); write "$@" or $1'
        )
    ]


@pytest.mark.parametrize("run", ["echo", ["echo"]])
def test_program_that_needs_no_dollar_is_accepted(tmp_path, run):
    params = [{"env": "A"}] if isinstance(run, str) else [{"env": "A"}, {"arg": "b"}]
    assert len(task_of(tmp_path, run=run, params=params).params) == len(params)


PARAMS = [
    {"env": "NAME", "default": "stranger"}, {"env": "PLAIN"},
    {"arg": "file", "default": "some file"},
    {"option": "--level", "type": "integer", "default": 3}, {"option": "--date="},
    {"flag": "--dry-run"}, {"flag": "-v", "default": True},
    {"arg": "ratio", "type": "number"}, {"env": "COLOUR", "choices": ["red", "green"]},
    {"env": "SIZE", "choices": ["s", "m"], "allow_custom": True},
    {"env": "PASSWORD", "secret": True, "default": "the-default-secret"},
    {"env": "PIN", "secret": True, "type": "integer", "choices": ["1234", "5678"]},
]  # fmt: skip
DEFAULTS = {
    "NAME": "stranger", "file": "some file", "--level": "3", "-v": "true",
    "PASSWORD": "the-default-secret",
}  # fmt: skip


@pytest.fixture
def many_params(tmp_path):
    """A task with parameters of every kind."""
    return task_of(tmp_path, run=["show"], params=PARAMS)


@pytest.mark.parametrize("given, changes", [
    ({}, {}), ({"NAME": "world"}, {"NAME": "world"}), ({"NAME": None}, {"NAME": None}),
    ({"NAME": ""}, {"NAME": ""}), ({"PLAIN": None}, {}), ({"PLAIN": ""}, {"PLAIN": ""}),
    ({"file": None}, {"file": None}), ({"file": ""}, {"file": ""}),
    ({"--level": "-12"}, {"--level": "-12"}), ({"--level": "0"}, {"--level": "0"}),
    ({"--date=": "2026-01-31"}, {"--date=": "2026-01-31"}),
    ({"--dry-run": "true"}, {"--dry-run": "true"}),
    ({"--dry-run": "T"}, {"--dry-run": "true"}),
    ({"--dry-run": "1"}, {"--dry-run": "true"}),
    ({"--dry-run": "FALSE"}, {"--dry-run": "false"}),
    ({"--dry-run": "0"}, {"--dry-run": "false"}), ({"-v": "f"}, {"-v": "false"}),
    ({"-v": None}, {"-v": None}), ({"ratio": "-0.5"}, {"ratio": "-0.5"}),
    ({"ratio": "1e-3"}, {"ratio": "1e-3"}), ({"ratio": "2E+5"}, {"ratio": "2E+5"}),
    ({"COLOUR": "green"}, {"COLOUR": "green"}), ({"SIZE": "xxl"}, {"SIZE": "xxl"}),
    ({"NAME": "x" * 32_768}, {"NAME": "x" * 32_768}),
    ({"NAME": "\u20ac" * 10_922}, {"NAME": "\u20ac" * 10_922}),
    ({"NAME": "$(rm); `x` \n'\""}, {"NAME": "$(rm); `x` \n'\""}),
])  # fmt: skip
def test_params_resolve_to(many_params, given, changes):
    """Absent means the default, null omits, "" is a value."""
    expected = {k: v for k, v in {**DEFAULTS, **changes}.items() if v is not None}
    assert tr.resolve_params(many_params, given) == expected


BAD_PARAMS = [
    ({"nmae": "x"}, "nmae", "unknown parameter"),
    ({"name": "x"}, "name", "unknown parameter; did you mean NAME?"),
    ({"--leve": "1"}, "--leve", "unknown parameter; did you mean --level?"),
    ({"NAME": 5}, "NAME", 'must be text, such as "5" in quotes'),
    ({"NAME": True}, "NAME", 'must be text, such as "5" in quotes'),
    ({"NAME": ["x"]}, "NAME", 'must be text, such as "5" in quotes'),
    (
        {"NAME": "x" * 32_769},
        "NAME",
        "must have at most 32768 bytes, has 32769",
    ),
    (
        {"NAME": "\u20ac" * 10_923},
        "NAME",
        "must have at most 32768 bytes, has 32769",
    ),
    ({"NAME": "\ud800"}, "NAME", "must be valid Unicode"),
    ({"NAME": "\udc80"}, "NAME", "must be valid Unicode"),
    ({"--level": "1.5"}, "--level", "must be a whole number"),
    ({"--level": ""}, "--level", "must be a whole number"),
    ({"--level": "007"}, "--level", "must be a whole number"),
    ({"--level": "1_000"}, "--level", "must be a whole number"),
    ({"--level": "1e3"}, "--level", "must be a whole number"),
    ({"--level": "5\n"}, "--level", "must be a whole number"),
    ({"--level": "\u0663"}, "--level", "must be a whole number"),
    *(
        ({"ratio": text}, "ratio", "must be a number")
        for text in (
            "",
            " ",
            "NaN",
            "Infinity",
            "-Infinity",
            "1_000",
            "0x10",
            " 1",
            "1 ",
            "+1",
            "01",
            ".5",
            "1.",
            "1e",
            "1,5",
            "5\n",
            "\uff15",
        )
    ),
    ({"--dry-run": ""}, "--dry-run", "must be true or false"),
    ({"--dry-run": "yes"}, "--dry-run", "must be true or false"),
    ({"COLOUR": "blue"}, "COLOUR", "must be one of red, green"),
    ({"COLOUR": ""}, "COLOUR", "must be one of red, green"),
]


@pytest.mark.parametrize(("given", "key", "message"), BAD_PARAMS)
def test_params_are_refused(many_params, given, key, message):
    with pytest.raises(tr.Problem) as caught:
        tr.resolve_params(many_params, given)
    assert caught.value.status == 422
    [fault] = caught.value.faults
    assert fault.location == f"body.params.{key}"
    assert fault.message.startswith(message)


@pytest.mark.parametrize("param, given, is_fault", [
    ({"env": "A", "required": True}, {}, True),
    ({"env": "A", "required": True}, {"A": None}, True),
    ({"env": "A", "required": True}, {"A": ""}, False),
    ({"env": "A", "required": True}, {"A": "x"}, False),
    ({"env": "A", "required": True, "default": "x"}, {}, False),
    ({"env": "A", "required": True, "default": "x"}, {"A": None}, True),
    ({"flag": "-a", "required": True}, {}, True),
    ({"flag": "-a", "required": True}, {"-a": "false"}, False),
    ({"env": "A"}, {}, False), ({"env": "A"}, {"A": None}, False),
])  # fmt: skip
def test_required_param_must_be_there_and_not_null(tmp_path, param, given, *, is_fault):
    task = task_of(tmp_path, run=["show"], params=[param])
    found = [(x.location, x.message) for x in tr.bound_params(task, given)[1]]
    key = task.params[0].key
    fault = (f"body.params.{key}", "must be there and not null")
    assert found == ([fault] if is_fault else [])


def test_secret_param_is_hidden_where_it_is_shown(many_params):
    values = tr.resolve_params(many_params, {"PIN": "1234"})
    shown = tr.shown_params(many_params, values)
    assert (values["PIN"], values["PASSWORD"]) == ("1234", "the-default-secret")
    assert (shown["PIN"], shown["PASSWORD"]) == ("•••", "•••")
    assert shown["NAME"] == "stranger"


def test_params_render_in_the_order_of_their_declaration(many_params):
    given = {
        "-v": "false", "ratio": "0.5", "--dry-run": "1", "--date=": "2026 01",
        "PLAIN": "", "file": "-x y",
    }  # fmt: skip
    values = tr.resolve_params(many_params, given)
    assert tr.render_params(many_params, values) == (
        ["-x y", "--level", "3", "--date=2026 01", "--dry-run", "0.5"],
        {"NAME": "stranger", "PLAIN": "", "PASSWORD": "the-default-secret"},
    )


def test_params_that_are_omitted_render_as_nothing(many_params):
    given = dict.fromkeys(DEFAULTS)
    assert tr.resolve_params(many_params, given) == {}
    assert tr.render_params(many_params, {}) == ([], {})


def test_params_that_are_empty_render_as_empty_arguments(many_params):
    arguments, _ = tr.render_params(many_params, {"file": "", "--date=": ""})
    assert arguments == ["", "--date="]


@pytest.mark.parametrize("run, argv", [
    (["df", "-k"], ["df", "-k", "x y", "--", "$1"]),
    ('echo "$@"', ["/bin/sh", "-e", "-c", 'echo "$@"', "a", "x y", "--", "$1"]),
])  # fmt: skip
def test_command_line_gives_arguments_beside_the_script(tmp_path, run, argv):
    task = task_of(tmp_path, run=run)
    assert tr.command_line(task, ["x y", "--", "$1"]) == argv


@pytest.fixture(scope="session")
def show(tmp_path_factory):
    """A daemon whose tasks print the parameters they get."""
    script = (
        "printf '<%s>' \"$@\"\n"
        'printf \' NAME=%s PLAIN=%s\' "${NAME-unset}" "${PLAIN-unset}"'
    )
    tasks = {
        "show": {"run": script + " # a comment", "params": PARAMS},
        "list": {"run": ["printf", "<%s>", "first"], "params": PARAMS},
        "open": {"run": "true", "params": [{"env": "COLOUR", "choices": ["red"]}]},
        "strict": {
            "run": "true",
            "params": [
                {"env": "USER_NAME", "required": True},
                {"env": "PASSWORD", "required": True, "secret": True},
                {"env": "COUNT", "type": "integer"},
            ],
        },
    }
    daemon = Served(tmp_path_factory.mktemp("show"), tasks).start()
    yield daemon
    daemon.close()


NO_ARGUMENTS = {"file": None, "--level": None, "-v": None}


@pytest.mark.parametrize("task, params, output", [
    ("show", None, "<some file><--level><3><-v> NAME=stranger PLAIN=unset"),
    ("show", {**NO_ARGUMENTS, "NAME": None}, "<> NAME=unset PLAIN=unset"),
    ("show", {**NO_ARGUMENTS, "file": "", "NAME": "", "PLAIN": ""}, "<> NAME= PLAIN="),
    (
        "show",
        {"file": "$(echo no) `no` \"'", "NAME": "; echo $HOME", "-v": "0"},
        "<$(echo no) `no` \"'><--level><3> NAME=; echo $HOME PLAIN=unset",
    ),
    ("show", {"file": "two\nlines"}, "<two\nlines><--level><3><-v> NAME=stranger"),
    (
        "show",
        {"--date=": "today", "--dry-run": "t", "ratio": "1e3"},
        "<some file><--level><3><--date=today><--dry-run><-v><1e3> NAME=stranger",
    ),
    ("show", {"NAME": "\u20ac"}, "<some file><--level><3><-v> NAME=\u20ac PLAIN="),
    ("list", {"--level": "7"}, "<first><some file><--level><7><-v>"),
])  # fmt: skip
def test_params_reach_the_program(show, task, params, output):
    run = show.run(task, params)
    assert run["end_reason"] == "success", run
    assert show.raw(run).decode().startswith(output)


def test_params_of_a_run_are_told_with_secrets_hidden(show):
    run = show.run("show", {"PASSWORD": "hunter2hunter2", "NAME": None, "-v": "T"})
    expected = {
        "file": "some file", "--level": "3", "-v": "true", "PASSWORD": "•••",
    }  # fmt: skip
    assert run["params"] == expected
    assert show.run_now(run)["params"] == expected


def test_params_at_fault_are_all_listed_and_located(show):
    wrong = {
        "COUNT": "many", "PASSWORD": None, "usr_name": "x", "USER_NAME": 5,
    }  # fmt: skip
    reply = show.post("/api/tasks/strict/run", {"params": wrong}, 422)
    located = dict(reply.faults)
    assert sorted(located) == sorted(f"body.params.{key}" for key in wrong)
    assert len(reply.faults) == 4
    assert located["body.params.COUNT"] == "must be a whole number"
    assert located["body.params.PASSWORD"] == "must be there and not null"
    assert located["body.params.usr_name"].startswith("unknown parameter")
    assert located["body.params.USER_NAME"].startswith("must be text")


def test_params_that_are_required_but_absent_are_all_listed(show):
    for body in (None, {}, {"params": {}}):
        reply = show.post("/api/tasks/strict/run", body, 422)
        assert reply.faults == [
            ("body.params.USER_NAME", "must be there and not null"),
            ("body.params.PASSWORD", "must be there and not null"),
        ]


def has_bytes(value):
    """Whether a value is text that UTF-8 can carry."""
    return isinstance(value, str) and not re.search("[\ud800-\udfff]", value)


@pytest.mark.parametrize(
    ("given", "key", "message"),
    [row for row in BAD_PARAMS if all(map(has_bytes, row[0].values()))],
)
def test_params_at_fault_are_422(show, given, key, message):
    reply = show.post("/api/tasks/show/run", {"params": given}, 422)
    [(location, found)] = reply.faults
    assert location == f"body.params.{key}"
    assert found.startswith(message)


@pytest.mark.parametrize("half", [chr(0xD800), chr(0xDC80)])
def test_param_with_half_a_surrogate_pair_is_422_and_the_next_one_runs(serve, half):
    daemon = serve({"a": {"run": "true", "params": [{"env": "NAME"}]}})
    reply = daemon.post("/api/tasks/a/run", {"params": {"NAME": half}}, 422)
    assert reply.faults == [("body.params.NAME", "must be valid Unicode")]
    assert daemon.run("a", {"NAME": "fine"})["end_reason"] == "success"


def test_param_with_a_nul_byte_is_422(show):
    reply = show.post("/api/tasks/show/run", {"params": {"NAME": "a\0b"}}, 422)
    assert reply.faults == [("body.params.NAME", "must not contain a NUL character")]


def test_param_value_at_fault_is_shown_and_cut(show):
    for value, shown in (("blue", "blue"), ("x" * 500, "x" * 200 + "…")):
        body = {"params": {"COLOUR": value}}
        [error] = show.post("/api/tasks/open/run", body, 422).json["errors"]
        assert error["value"] == shown


@pytest.mark.parametrize("value", [
    "hunter2", "hunter2\0", "hunter2\ud800", ["hunter2"], {"hunter2": 1},
    "hunter2" * 10_000,
])  # fmt: skip
def test_secret_param_at_fault_is_never_shown(show, value):
    reply = show.post("/api/tasks/show/run", {"params": {"PIN": value}}, 422)
    assert [location for location, _ in reply.faults] == ["body.params.PIN"]
    assert b"hunter2" not in reply.raw


def test_secret_param_under_a_misspelt_key_is_not_shown(show):
    for value in ("hunter2", ["hunter2"], {"hunter2": 1}):
        body = {"params": {"PASWORD": value}}
        reply = show.post("/api/tasks/show/run", body, 422)
        assert b"hunter2" not in reply.raw


def test_secret_params_leave_no_trace_in_the_answers(show):
    show.run("show", {"PASSWORD": "hunter2hunter2"})
    for path in ("/api/tasks/show", "/api/tasks", "/api/tasks/show/runs", "/api/runs"):
        raw = show.get(path).raw
        assert b"hunter2" not in raw
        assert b"the-default-secret" not in raw


# ---- 7. Decisions: admission, verdict, retries, retention, ticks ------------


@pytest.mark.parametrize("policy, active, queued, decision", [
    ("queue", 0, 0, "start"), ("queue", 1, 0, "start"), ("queue", 2, 0, "queue"),
    ("queue", 2, 2, "queue"), ("queue", 2, 3, "queue_full"),
    ("queue", 2, 9, "queue_full"), ("queue", 1, 1, "queue"),
    ("queue", 0, 3, "queue_full"), ("skip", 1, 0, "start"), ("skip", 2, 0, "skipped"),
    ("skip", 1, 1, "skipped"), ("terminate", 1, 0, "start"),
    ("terminate", 2, 0, "queue"), ("terminate", 2, 3, "queue"),
    ("terminate", 1, 1, "queue"), ("coalesce", 1, 0, "start"),
    ("coalesce", 2, 2, "queue"), ("coalesce", 2, 3, "queue_full"),
])  # fmt: skip
def test_admit_decides(tmp_path, policy, active, queued, decision):
    task = task_of(tmp_path, max_concurrent=2, queue_max=3, on_overlap=policy)
    assert tr.admit(task, active, queued) == decision


def test_admit_with_no_queue_starts_or_refuses(tmp_path):
    task = task_of(tmp_path, queue_max=0)
    assert tr.admit(task, 0, 0) == "start"
    assert tr.admit(task, 1, 0) == "queue_full"


@pytest.mark.parametrize("policy, staying, queued, victims", [
    ("terminate", 0, 0, 0), ("terminate", 2, 0, 0), ("terminate", 2, 1, 1),
    ("terminate", 1, 1, 0), ("terminate", 2, 2, 2), ("terminate", 0, 3, 1),
    ("queue", 2, 5, 0), ("skip", 2, 5, 0),
])  # fmt: skip
def test_count_victims_makes_room_for_the_newest(
    tmp_path, policy, staying, queued, victims
):
    task = task_of(tmp_path, max_concurrent=2, on_overlap=policy)
    assert tr.count_victims(task, staying, queued) == victims


@pytest.mark.parametrize("cause, returncode, end_reason, exit_code, signal_name", [
    (None, 0, "success", 0, None), (None, 3, "success", 3, None),
    (None, 1, "failed", 1, None), (None, 255, "failed", 255, None),
    (None, -9, "failed", 137, "SIGKILL"), (None, -15, "failed", 143, "SIGTERM"),
    (None, -99, "failed", 227, "signal 99"),
    ("stopped", -15, "stopped", 143, "SIGTERM"), ("stopped", 0, "stopped", 0, None),
    ("timeout", -9, "timeout", 137, "SIGKILL"), ("timeout", 1, "timeout", 1, None),
    ("log_overflow", -15, "log_overflow", 143, "SIGTERM"),
    ("daemon_stopped", -15, "daemon_stopped", 143, "SIGTERM"),
])  # fmt: skip
def test_verdict_reads_the_end_of_a_program(
    tmp_path, cause, returncode, end_reason, exit_code, signal_name
):
    task = task_of(tmp_path, exit_codes=[0, 3])
    expected = (end_reason, exit_code, signal_name)
    assert tr.verdict(task, cause, returncode) == expected


def test_verdict_of_zero_is_a_failure_when_the_task_says_so(tmp_path):
    task = task_of(tmp_path, exit_codes=[3])
    assert tr.verdict(task, None, 0).end_reason == "failed"


def test_verdict_of_a_signal_is_a_failure_even_if_its_code_is_allowed(tmp_path):
    task = task_of(tmp_path, exit_codes=[0, 137])
    assert tr.verdict(task, None, -9) == ("failed", 137, "SIGKILL")
    assert tr.verdict(task, None, 137) == ("success", 137, None)


@pytest.mark.parametrize("backoff, delay, expected", [
    ("constant", "5s", [5, 5, 5, 5]), ("linear", "5s", [5, 10, 15, 20]),
    ("exponential", "60s", [60, 120, 240, 300]),
    ("exponential", "10m", [600, 600, 600, 600]), ("exponential", "0s", [0, 0, 0, 0]),
])  # fmt: skip
def test_retry_delay_grows_up_to_a_limit(tmp_path, backoff, delay, expected):
    settings = {"retry_attempts": 4, "retry_delay": delay, "retry_backoff": backoff}
    task = task_of(tmp_path, **settings)
    found = [tr.retry_delay_s(task, "failed", attempt) for attempt in range(5)]
    assert found == [*expected, None]
    many = task._replace(retry_attempts=100)
    assert tr.retry_delay_s(many, "failed", 99) in (expected[-1], 300)


@pytest.mark.parametrize("end_reason", tr.END_REASONS)
def test_retry_is_for_runs_that_failed(tmp_path, end_reason):
    task = task_of(tmp_path, retry_attempts=1)
    again = tr.retry_delay_s(task, end_reason, 0) is not None
    assert again == (end_reason in ("failed", "timeout", "log_overflow"))


@pytest.mark.parametrize("keep_for, now_ms, text", [
    ("1s", 1_769_846_400_000, "2026-01-31T07:59:59.000Z"),
    ("1d", 1_769_846_400_000, "2026-01-30T08:00:00.000Z"),
    ("250ms", 1_769_846_400_000, "2026-01-31T07:59:59.750Z"),
    ("9w", 1000, "1970-01-01T00:00:00.000Z"),
])  # fmt: skip
def test_forget_before_is_keep_for_ago(tmp_path, keep_for, now_ms, text):
    assert tr.forget_before(task_of(tmp_path, keep_for=keep_for), now_ms) == text


def test_forget_before_is_never_with_forever_and_the_default_waits(tmp_path):
    now_ms = 1_769_846_400_000
    forever, default = task_of(tmp_path, keep_for="forever"), task_of(tmp_path)
    assert tr.forget_before(forever, now_ms) is None
    assert tr.forget_before(default, now_ms, now_ms + 1) is None
    assert tr.forget_before(default, now_ms, now_ms) == "2025-11-02T08:00:00.000Z"
    said = task_of(tmp_path, keep_for="30d")
    assert tr.forget_before(said, now_ms, now_ms + 1) is not None


# ---- 8. Store: the history of runs in SQLite --------------------------------


EPOCH_MS = 1_800_000_000_000
RUN_IDS = tr.Ulids()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[tr.Store]:
    """An empty store of its own."""
    opened = tr.Store(str(tmp_path / "history.sqlite3"))
    yield opened
    opened.close()


def new_run(task_name: str = "backup", **fields: Any) -> tr.Run:
    """A run with a fresh id, pending unless told otherwise."""
    known = {
        "id": RUN_IDS.make(EPOCH_MS),
        "task_name": task_name,
        "status": tr.PENDING,
        "triggered_by": "api",
        "created_at": tr.time_text(EPOCH_MS),
    }
    return tr.Run(**{**known, **fields})


def as_running(run: tr.Run) -> tr.Run:
    """The same run once it is running."""
    return run._replace(status=tr.RUNNING, start_at=tr.time_text(EPOCH_MS + 1))


def as_ended(run: tr.Run, reason: str = tr.SUCCESS, **fields: Any) -> tr.Run:
    """The same run once it has ended."""
    at = tr.time_text(EPOCH_MS + 2)
    known = {"status": tr.ENDED, "end_reason": reason, "end_at": at, "exit_code": 0}
    return run._replace(**{**known, **fields})


def record(store: tr.Store, *runs: tr.Run) -> None:
    """Put runs into the history, durably."""
    store.flush(*[store.enqueue(tr.write_created(run)) for run in runs])


def put(store: tr.Store, write: tr.Write) -> tr.Write:
    """Make one write durable."""
    store.flush(store.enqueue(write))
    return write


def ask(store: tr.Store, sql: str, *values: Any) -> list[Any]:
    """What any other program would read from the store's file."""
    with contextlib.closing(sqlite3.connect(store._path)) as other:
        return other.execute(sql, values).fetchall()


ANY = tr.RunFilter()


def everything(store: tr.Store, which: tr.RunFilter = ANY) -> list[tr.Run]:
    """All matching runs, newest first."""
    return store.list_runs(which, ("created_at", "desc"), -1)


def random_runs(rng: random.Random, count: int) -> list[tr.Run]:
    """Runs of every kind, oldest first; some are made in the same millisecond."""
    ids = tr.Ulids()
    ms = EPOCH_MS
    runs = []
    for _ in range(count):
        ms += rng.choice([0, 0, 1, 500, 60_000])
        status = rng.choice([*tr.STATUSES, tr.ENDED, tr.ENDED])
        started = status != tr.PENDING and rng.random() < 0.8
        ended = status == tr.ENDED
        runs.append(
            tr.Run(
                id=ids.make(ms),
                task_name=rng.choice(["backup", "Back-Up.2", "mail:send", "1_000"]),
                status=status,
                triggered_by=rng.choice(tr.TRIGGERS),
                created_at=tr.time_text(ms),
                end_reason=rng.choice(tr.END_REASONS) if ended else None,
                exit_code=rng.choice([0, 0, 1, 3, 137, 255]) if ended else -1,
                start_at=tr.time_text(ms + rng.randrange(9)) if started else None,
                end_at=tr.time_text(ms + 9) if ended else None,
                duration=rng.randrange(5) * 1_000_000 if ended and started else None,
                params=rng.choice([None, {"NAME": "Zoë"}, {"A": "", "B": '"\n'}]),
                retry_attempt=rng.choice([0, 0, 0, 1, 2]),
                instance_index=0,
                via=rng.choice([None, None, *tr.VIAS]),
                cpu_seconds=rng.choice([None, 0.25]),
            )
        )
    return runs


def random_filter(rng: random.Random, runs: list[tr.Run]) -> tr.RunFilter:
    """A filter of one to four criteria, most of which match something."""
    at = rng.choice(runs)
    words = [*tr.STATUSES, *tr.END_REASONS]
    part = at.id[-rng.randint(1, 4) :]
    given = {
        "status": rng.choice([",", ", "]).join(rng.sample(words, rng.randint(1, 4))),
        "task_name": rng.choice([at.task_name, "unknown"]),
        "triggered_by": rng.choice(tr.TRIGGERS),
        "via": rng.choice(tr.VIAS),
        "created_after": rng.choice(runs).created_at,
        "created_before": rng.choice(runs).created_at.replace("Z", "+00:00"),
        "exit_code_min": rng.choice([-1, 0, 1, 2, 137, 256]),
        "exit_code_max": rng.choice([-1, 0, 1, 2, 137, 256]),
        "retries_only": rng.choice([True, True, False]),
        "search": rng.choice([part, part.lower(), "BACK", "up", "_", "%", "l:s", "'"]),
    }
    chosen = rng.sample(sorted(given), rng.randint(1, 4))
    return tr.RunFilter(**{name: given[name] for name in chosen})


def is_match(run: tr.Run, which: tr.RunFilter) -> bool:
    """Whether a filter means a run, said as plainly as can be."""
    words = (which.status or "").replace(" ", "").split(",")
    after, before = which.created_after, which.created_before
    created = tr.parse_time(run.created_at)
    low, high = which.exit_code_min, which.exit_code_max
    return all(
        [
            not which.status or run.status in words or run.end_reason in words,
            which.task_name in (None, run.task_name),
            which.triggered_by in (None, run.triggered_by),
            which.via in (None, run.via),
            after is None or created >= tr.parse_time(after),
            before is None or created <= tr.parse_time(before),
            low is None or run.exit_code >= low,
            high is None or run.exit_code <= high,
            not which.retries_only or run.retry_attempt > 0,
            not which.search
            or which.search.lower() in run.task_name.lower()
            or which.search.upper() in run.id,
        ]
    )


def sort_key(field: str) -> Callable[[tr.Run], Any]:
    """How a list is ordered: no value comes first, equal ones by id."""

    def key(run: tr.Run) -> Any:
        value = getattr(run, field)
        if field == "status":
            value = run.end_reason or run.status
        return (value is not None, value if value is not None else 0, run.id)

    return key


SORT_FIELDS = ("task_name", "status", "start_at", "exit_code", "duration", "created_at")


@pytest.fixture(scope="module")
def history(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[tr.Store, list[tr.Run]]]:
    """A store with 400 random runs, and the same runs as a plain list."""
    runs = random_runs(random.Random(8), 400)
    opened = tr.Store(str(tmp_path_factory.mktemp("history") / "history.sqlite3"))
    record(opened, *runs)
    yield opened, runs
    opened.close()


def test_store_gives_back_every_field_of_a_run(store: tr.Store) -> None:
    run = tr.Run(
        id=RUN_IDS.make(EPOCH_MS),
        task_name="deploy",
        status=tr.ENDED,
        triggered_by="cron",
        created_at=tr.time_text(EPOCH_MS),
        end_reason=tr.FAILED,
        exit_code=137,
        signal="SIGKILL",
        error="killed: it took longer than 5 s",
        scheduled_at=tr.time_text(EPOCH_MS - 1),
        start_at=tr.time_text(EPOCH_MS + 1),
        end_at=tr.time_text(EPOCH_MS + 2),
        duration=123_456_789_012,
        params={"NAME": "Zoë \U0001f600", "EMPTY": "", "LINES": "a\nb\0c"},
        retry_attempt=2,
        retry_of_run_id=RUN_IDS.make(EPOCH_MS),
        instance_index=1,
        output_bytes=1 << 40,
        output_dropped_bytes=0,
        cpu_seconds=0.015625,
        max_rss_bytes=1 << 33,
        survivors=2,
        summary="killed by SIGKILL after 2m03s",
        request_id="7b4c",
        traceparent=TRACEPARENT,
        result={"a": [1, 2.5, True, "\ud800 Zoë"], "b": ""},
        via="task",
        cause_run_id=RUN_IDS.make(EPOCH_MS),
    )
    assert None not in run, "a field was forgotten here"
    record(store, run)
    assert store.find_run(run.id) == run


@pytest.mark.parametrize("result", [0, False, "", [], {}, "\ud800", 1e300, 2**200])
def test_store_gives_back_a_result_that_looks_like_nothing(
    store: tr.Store, result: Any
) -> None:
    run = new_run()
    record(store, run)
    ended = run._replace(status=tr.ENDED, end_reason=tr.SUCCESS, result=result)
    store.flush(store.enqueue(tr.write_ended(ended)))
    assert store.find_run(run.id) == ended
    # A page of a thousand runs must not weigh a thousand results.
    for listed in (store.find_runs([run.id]), past(store)):
        assert listed == [ended._replace(result=None)]


def past(store: tr.Store) -> list[tr.Run]:
    """All runs of a store as a list shows them."""
    return store.list_runs(tr.RunFilter(), ("created_at", "asc"), 1000)


def test_store_gives_none_for_what_has_no_value(store: tr.Store) -> None:
    run = new_run()
    record(store, run)
    assert store.find_run(run.id) == run
    assert store.find_run(run.id[::-1]) is None


def test_store_commits_to_the_disk_before_it_returns(store: tr.Store) -> None:
    assert store._db.execute("pragma synchronous").fetchone() == (2,)
    assert store._db.execute("pragma journal_mode").fetchone() == ("wal",)


def test_store_reads_no_other_database_than_it_writes(store: tr.Store) -> None:
    (path, *_) = store.files
    os.rename(path, path + ".old")
    with pytest.raises(tr.StoreError, match="No such file"):
        store.find_run("x")
    assert not os.path.exists(path)
    os.rename(path + ".old", path)
    assert store.find_run("x") is None
    store.close()
    with pytest.raises(tr.StoreError, match="the daemon has shut down"):
        store.find_run("x")


def test_store_shows_a_flushed_write_to_other_processes_at_once(
    store: tr.Store,
) -> None:
    run = new_run()
    for change, status in [
        (tr.write_created(run), tr.PENDING),
        (tr.write_started(as_running(run)), tr.RUNNING),
        (tr.write_ended(as_ended(run)), tr.ENDED),
    ]:
        put(store, change)
        assert ask(store, "select status from runs") == [(status,)]


def test_store_writes_nothing_before_the_flush(store: tr.Store) -> None:
    write = store.enqueue(tr.write_created(new_run()))
    assert not write.done
    assert everything(store) == []
    store.flush(write)
    assert write.done
    assert write.changed == 1


def test_store_applies_writes_in_the_order_of_enqueue(store: tr.Store) -> None:
    """Flushing the last one takes along what was put in line before it (I2)."""
    run = new_run()
    steps = [tr.write_created(run)]
    steps += [
        tr.write_ended(as_ended(run, exit_code=code)) for code in range(2, 1300)
    ] + [tr.write_trashed([run.id], 1), tr.write_restored([run.id])]
    assert len(steps) > 2 * tr.COMMIT_MAX_WRITES
    for step in steps:
        store.enqueue(step)
    store.flush(steps[-1])
    assert all(step.done and step.error is None for step in steps)
    assert [r.exit_code for r in everything(store)] == [1299]


def test_store_flushes_what_an_other_thread_put_in_line(store: tr.Store) -> None:
    run = new_run()
    created, started = tr.write_created(run), tr.write_started(as_running(run))
    store.enqueue(created)
    store.enqueue(started)
    store.flush(started)
    assert created.done
    store.flush(created)
    assert store.find_run(run.id) == as_running(run)


def statements_of(store: tr.Store) -> list[str]:
    """The first words of all that the store's writing connection executes from now."""
    seen: list[str] = []
    store._db.set_trace_callback(lambda sql: seen.append(" ".join(sql.split()[:2])))
    return seen


class Threads:
    """Threads that must all come to an end; what one raises fails the test."""

    def __init__(self) -> None:
        self.raised: list[BaseException] = []
        self._threads: list[threading.Thread] = []

    def start(self, body: Callable[..., Any], *arguments: Any) -> None:
        """Run a body in a thread of its own."""

        def guarded() -> None:
            try:
                body(*arguments)
            except BaseException as error:
                self.raised.append(error)

        thread = threading.Thread(target=guarded, daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self) -> None:
        """Wait for all of them and raise what they raised."""
        give_up = time.monotonic() + DEADLINE_S
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
            assert not thread.is_alive(), "a thread is stuck"
        if self.raised:
            raise self.raised[0]


def test_store_commits_for_all_who_wait_at_once(store: tr.Store) -> None:
    """While a commit is under way others gather, and one commit serves them all."""
    seen = statements_of(store)
    threads = Threads()
    writes = [tr.write_created(new_run()) for _ in range(25)]
    with contextlib.closing(
        sqlite3.connect(store._path, isolation_level=None)
    ) as other:
        other.execute("begin immediate")
        # However long it takes until all of them wait.
        store._db.execute(f"pragma busy_timeout = {int(DEADLINE_S * 1000)}")
        threads.start(put, store, writes[0])
        within(DEADLINE_S, lambda: store._committing and not store._pending, "a leader")
        for write in writes[1:]:
            threads.start(put, store, write)
        within(DEADLINE_S, lambda: len(store._pending) == 24, "followers")
        other.execute("rollback")
        threads.join()
    assert len(everything(store)) == 25
    assert [sql for sql in seen if sql.startswith("begin")] == ["begin immediate"]


def test_store_serves_32_threads_until_all_are_done(store: tr.Store) -> None:
    """Good and bad writes mixed; nobody is forgotten, each error reaches its owner."""
    runs = [[new_run(f"task{n}") for _ in range(6)] for n in range(32)]

    def live(number: int) -> None:
        for run in runs[number]:
            put(store, tr.write_created(run))
            assert store.find_run(run.id) == run
            with pytest.raises(tr.StoreError, match="UNIQUE"):
                put(store, tr.write_created(run))
            started = store.enqueue(tr.write_started(as_running(run)))
            ended = store.enqueue(tr.write_ended(as_ended(run, exit_code=number)))
            store.flush(started, ended)
            found = store.find_run(run.id)
            assert found
            assert found.exit_code == number

    threads = Threads()
    for number in range(32):
        threads.start(live, number)
    threads.join()
    assert sorted(store.tallies()) == sorted(
        (f"task{n}", tr.SUCCESS, "api", 6) for n in range(32)
    )


def test_store_bad_write_does_not_take_others_with_it(store: tr.Store) -> None:
    known, before, after = new_run(), new_run(), new_run()
    record(store, known)
    writes = [store.enqueue(tr.write_created(run)) for run in (before, known, after)]
    store.flush(writes[0])
    store.flush(writes[2])
    with pytest.raises(tr.StoreError, match="UNIQUE constraint failed"):
        store.flush(writes[1])
    assert everything(store) == [after, before, known]


def test_store_flush_of_several_tells_of_the_bad_one(store: tr.Store) -> None:
    known, fresh = new_run(), new_run()
    record(store, known)
    writes = [store.enqueue(tr.write_created(run)) for run in (known, fresh)]
    with pytest.raises(tr.StoreError):
        store.flush(*writes)
    assert everything(store) == [fresh, known]
    assert [write.error is None for write in writes] == [False, True]


def test_store_failed_write_leaves_nothing_of_itself(store: tr.Store) -> None:
    """The second statement fails, so the first one is undone."""
    run, other = as_ended(new_run()), new_run()
    record(store, run)
    store._db.execute(
        "create trigger no before delete on runs begin"
        " select raise(abort, 'not today'); end"
    )
    trash = store.enqueue(tr.write_trashed([run.id], 1))
    more = store.enqueue(tr.write_created(other))
    with pytest.raises(tr.StoreError, match="not today"):
        store.flush(trash)
    store.flush(more)
    assert ask(store, "select count(*) from trash") == [(0,)]
    assert everything(store) == [other, run]
    store._db.execute("drop trigger no")
    assert put(store, tr.write_trashed([run.id], 1)).changed == 2
    assert everything(store) == [other]


def test_store_full_disk_fails_only_those_that_need_room(store: tr.Store) -> None:
    run = new_run()
    record(store, run)
    pages = store._db.execute("pragma page_count").fetchone()[0]
    store._db.execute(f"pragma max_page_count = {pages}")
    huge = new_run(params={"TEXT": "x" * 100_000})
    small = store.enqueue(tr.write_started(as_running(run)))
    large = store.enqueue(tr.write_created(huge))
    last = store.enqueue(tr.write_ended(as_ended(run)))
    with pytest.raises(tr.StoreError, match="full"):
        store.flush(large)
    store.flush(small, last)
    assert [r.status for r in everything(store)] == [tr.ENDED]
    assert store.tallies() == [("backup", tr.SUCCESS, "api", 1)]
    store._db.execute(f"pragma max_page_count = {pages + 1000}")
    record(store, huge)
    assert everything(store)[0] == huge


def test_store_full_disk_undoes_a_write_that_stands_alone(store: tr.Store) -> None:
    pages = store._db.execute("pragma page_count").fetchone()[0]
    store._db.execute(f"pragma max_page_count = {pages}")
    with pytest.raises(tr.StoreError, match="full"):
        record(store, new_run(params={"TEXT": "x" * 100_000}))
    assert everything(store) == []
    assert store.tallies() == []
    assert not store._db.in_transaction


@pytest.mark.parametrize("company", [0, 2])
@pytest.mark.parametrize(
    "fields",
    [{"error": "lone \ud800 surrogate"}, {"exit_code": 1 << 70}, {"error": object()}],
    ids=["surrogate", "huge number", "no value"],
)
def test_store_goes_on_after_a_value_that_sqlite_cannot_hold(
    store: tr.Store, fields: Any, company: int
) -> None:
    """Whatever makes a commit fail, the next leader must find its place free."""
    threads = Threads()
    good = [new_run() for _ in range(company)]
    writes = [store.enqueue(tr.write_created(run)) for run in good]
    bad = store.enqueue(tr.write_created(new_run(**fields)))

    def fail() -> None:
        with pytest.raises(tr.StoreError):
            store.flush(bad)

    threads.start(fail)
    threads.join()
    last = new_run()
    threads.start(store.flush, *writes)
    threads.start(record, store, last)
    threads.join()
    assert everything(store) == [last, *reversed(good)]


def test_store_tallies_equal_a_recount_after_every_step(store: tr.Store) -> None:
    """I6, on a random walk over everything that may happen to runs."""
    rng = random.Random(6)
    runs: dict[str, tr.Run] = {}
    trash: dict[str, tr.Run] = {}

    def some(known: dict[str, tr.Run], status: tuple[str, ...]) -> list[tr.Run]:
        fit = [run for run in known.values() if run.status in status]
        return rng.sample(fit, min(len(fit), rng.randint(1, 3)))

    def step() -> list[tr.Write]:
        kind = rng.choice("ccccsseeetrf")
        writes = []
        if kind == "c":
            fresh = random_runs(rng, 1)[0]._replace(id=RUN_IDS.make(EPOCH_MS))
            runs[fresh.id] = fresh
            return [tr.write_created(fresh, rng.choice([None, {"KEY": "value"}]))]
        if kind in "se":
            which = (tr.PENDING,) if kind == "s" else (tr.PENDING, tr.RUNNING)
            for run in some(runs, which):
                reason = rng.choice(tr.END_REASONS)
                runs[run.id] = as_running(run) if kind == "s" else as_ended(run, reason)
                change = tr.write_started if kind == "s" else tr.write_ended
                writes.append(change(runs[run.id]))
            return writes
        if kind == "t":
            chosen = some(runs, tr.STATUSES)
            gone = [run for run in chosen if run.ended]
            trash.update({run.id: runs.pop(run.id) for run in gone})
            return [tr.write_trashed([run.id for run in chosen], 1)] if chosen else []
        chosen = some(trash, tr.STATUSES)
        if kind == "f":
            chosen += some(runs, (tr.ENDED,))
        ids = [run.id for run in chosen]
        for run_id in ids:
            run = trash.pop(run_id, None) or runs.pop(run_id)
            if kind == "r":
                runs[run_id] = run
        forget = tr.write_forgotten if kind == "f" else tr.write_restored
        return [forget(ids)] if ids else []

    for _ in range(250):
        writes = [write for _ in range(rng.randint(1, 4)) for write in step()]
        store.flush(*[store.enqueue(write) for write in writes])
        counted: dict[tuple[str, str, str], int] = {}
        for run in runs.values():
            kind = (run.task_name, run.end_reason or run.status, run.triggered_by)
            counted[kind] = counted.get(kind, 0) + 1
        assert {row[:3]: row[3] for row in store.tallies()} == counted
        assert store.count_runs(tr.RunFilter()) == len(runs)
    assert everything(store) == sorted(runs.values(), reverse=True)
    assert len(runs) > 30
    assert trash


def plainly_counted(runs: list[tr.Run]) -> tr.Counted:
    """What the runs of a task came to, said as plainly as can be."""
    ended = [run for run in runs if run.ended]
    begun = [run for run in ended if run.start_at]
    good = [run for run in begun if run.end_reason == tr.SUCCESS]
    took = [run.duration for run in ended if run.duration is not None]
    limits = [tr.nanoseconds(limit_s) for limit_s in tr.DURATION_BUCKETS_S]
    buckets = [bisect_left(limits, duration) for duration in took]
    kinds = collections.Counter((r.end_reason or "", r.triggered_by) for r in ended)
    ends_s = [tr.parse_time(run.end_at or "") / 1000 for run in begun]
    good_s = [tr.parse_time(run.end_at or "") / 1000 for run in good]
    return tr.Counted(
        ended=tuple((*kind, kinds[kind]) for kind in sorted(kinds)),
        last_end_s=max(ends_s, default=0),
        last_success_s=max(good_s, default=0),
        exit_code=begun[-1].exit_code if begun else None,
        started=len(took),
        dropped_bytes=sum(run.output_dropped_bytes or 0 for run in ended),
        duration_ns=sum(took),
        took=tuple(buckets.count(index) for index in range(len(limits))),
    )


def test_store_counts_what_ended_for_good(store: tr.Store) -> None:
    rng = random.Random(61)
    runs = [
        run._replace(
            end_at=run.end_at and tr.time_text(EPOCH_MS + 1001 * n),
            duration=run.duration and int(10 ** rng.uniform(6, 14)),
            output_dropped_bytes=rng.choice([None, 0, 7]) if run.ended else None,
        )
        for n, run in enumerate(random_runs(rng, 300))
    ]
    record(store, *runs)
    names = sorted({run.task_name for run in runs})
    expected = {
        name: plainly_counted([run for run in runs if run.task_name == name])
        for name in names
    }
    assert store.counted() == expected
    assert store.counted(names[1:2]) == {names[1]: expected[names[1]]}
    ids = [run.id for run in runs if run.ended]
    put(store, tr.write_trashed(ids, 1))
    put(store, tr.write_restored(ids[:50]))
    put(store, tr.write_forgotten(ids[30:]))
    assert store.counted() == expected
    again = tr.Store(store._path)
    assert again.counted() == expected
    again.close()


def test_store_counts_a_duration_in_the_first_bucket_that_holds_it(
    store: tr.Store,
) -> None:
    limits = [tr.nanoseconds(limit_s) for limit_s in tr.DURATION_BUCKETS_S]
    for duration in (0, *limits, *(limit + 1 for limit in limits)):
        run = as_running(new_run())
        record(store, run)
        for _ in range(2):
            # The second time is no other end.
            put(store, tr.write_ended(as_ended(run, duration=duration)))
    (counted,) = store.counted().values()
    assert counted.took == (2, *[2] * (len(limits) - 1))
    assert counted.started == 2 * len(limits) + 1


def test_store_counts_missed_ticks_with_their_row(store: tr.Store) -> None:
    run = as_ended(new_run(triggered_by="cron"), tr.MISSED, exit_code=-1)
    assert put(store, tr.write_missed(run, 3)).changed
    put(store, tr.write_missed(run._replace(id=RUN_IDS.make(EPOCH_MS)), 40))
    counted = store.counted()["backup"]
    assert counted.ticks_missed == 43
    assert counted.ended == (("missed", "cron", 2),)
    assert (counted.last_end_s, counted.exit_code, counted.started) == (0, None, 0)


def test_list_filters_agree_with_plain_python(
    history: tuple[tr.Store, list[tr.Run]],
) -> None:
    opened, runs = history
    rng = random.Random(81)
    sizes = set()
    for _ in range(100):
        which = random_filter(rng, runs)
        wanted = [run for run in reversed(runs) if is_match(run, which)]
        assert everything(opened, which) == wanted, which
        assert opened.count_runs(which) == len(wanted), which
        assert opened.list_ids(which, "", 1000) == [run.id for run in wanted], which
        sizes.add(len(wanted))
    assert len(sizes) > 30, "the filters are not worth the name"


@pytest.mark.parametrize("name", tr.RunFilter._fields)
def test_list_filter_narrows_the_list(
    history: tuple[tr.Store, list[tr.Run]], name: str
) -> None:
    """Each criterion alone lets some runs through and holds others back."""
    opened, runs = history
    value = {
        "status": "failed,pending",
        "task_name": "backup",
        "triggered_by": "cron",
        "via": "task",
        "created_after": runs[200].created_at,
        "created_before": runs[200].created_at,
        "exit_code_min": 1,
        "exit_code_max": 0,
        "retries_only": True,
        "search": "up",
    }[name]
    found = everything(opened, tr.RunFilter(**{name: value}))
    assert 0 < len(found) < 400
    assert opened.count_runs(tr.RunFilter(**{name: value})) == len(found)


def test_list_bounds_in_time_are_from_and_up_to(
    history: tuple[tr.Store, list[tr.Run]],
) -> None:
    """A run created at created_after is in, and so is one created at created_before."""
    opened, runs = history
    at = runs[200].created_at
    after = everything(opened, tr.RunFilter(created_after=at))
    before = everything(opened, tr.RunFilter(created_before=at))
    assert runs[200] in after
    assert runs[200] in before
    both = [run for run in runs if run.created_at == at]
    assert all(run in before and run in after for run in both)
    assert len(before) + len(after) == 400 + len(both)


def test_list_understands_times_of_other_zones(
    history: tuple[tr.Store, list[tr.Run]],
) -> None:
    opened, runs = history
    at_ms = tr.parse_time(runs[200].created_at)
    local = tr.time_text(at_ms + 5_400_000).replace("Z", "+01:30")
    utc = tr.RunFilter(created_after=runs[200].created_at)
    assert everything(opened, tr.RunFilter(created_after=local)) == everything(
        opened, utc
    )


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("field", SORT_FIELDS)
def test_list_sorts_by_every_field_with_the_id_as_a_tie_break(
    history: tuple[tr.Store, list[tr.Run]], field: str, direction: str
) -> None:
    opened, runs = history
    for which in (tr.RunFilter(), tr.RunFilter(status="ended,running")):
        wanted = [run for run in runs if is_match(run, which)]
        wanted.sort(key=sort_key(field), reverse=direction == "desc")
        found = opened.list_runs(which, (field, direction), 1000)
        assert [run.id for run in found] == [run.id for run in wanted]


def test_list_pages_put_together_are_the_list(
    history: tuple[tr.Store, list[tr.Run]],
) -> None:
    opened, runs = history
    rng = random.Random(82)
    for _ in range(30):
        which = random_filter(rng, runs)
        sort = (rng.choice(SORT_FIELDS), rng.choice(["asc", "desc"]))
        limit = rng.randint(1, 90)
        whole = opened.list_runs(which, sort, 1000)
        pages = [
            opened.list_runs(which, sort, limit, offset)
            for offset in range(0, len(whole) + limit, limit)
        ]
        assert [run for page in pages for run in page] == whole
        assert pages[-1] == [] or len(whole) % limit


def test_list_ids_go_on_below_an_id(history: tuple[tr.Store, list[tr.Run]]) -> None:
    opened, runs = history
    which = tr.RunFilter(status="ended")
    wanted = [run.id for run in reversed(runs) if run.ended]
    found: list[str] = []
    while True:
        batch = opened.list_ids(which, found[-1] if found else "", 17)
        found += batch
        if len(batch) < 17:
            break
    assert found == wanted


@pytest.mark.parametrize(
    "which",
    [
        tr.RunFilter(),
        tr.RunFilter(status="pending"),
        tr.RunFilter(status="ended"),
        tr.RunFilter(status="failed,timeout,running"),
        tr.RunFilter(task_name="backup"),
        tr.RunFilter(triggered_by="cron"),
        tr.RunFilter(created_after=tr.time_text(EPOCH_MS)),
        tr.RunFilter(retries_only=True),
        tr.RunFilter(task_name="backup", triggered_by="cron", status="failed"),
        tr.RunFilter(task_name="backup", status="failed,timeout,crashed,pending"),
        tr.RunFilter(task_name="backup", status="success"),
        tr.RunFilter(task_name="backup", status="running,pending"),
    ],
    ids=lambda which: " ".join(f"{k}={v}" for k, v in which._asdict().items() if v),
)
def test_list_never_walks_all_runs(
    store: tr.Store, monkeypatch: pytest.MonkeyPatch, which: tr.RunFilter
) -> None:
    """A count asks the tallies or an index. A page is read in the order of an index
    or of the ids, so that it may stop at its limit."""
    asked: list[tuple[str, Any]] = []
    plain_rows = store._rows

    def rows(sql: str, values: Any = ()) -> list[Any]:
        asked.append((sql, values))
        return plain_rows(sql, values)

    def plan() -> list[str]:
        sql, values = asked[-1]
        return [row[3] for row in plain_rows(f"explain query plan {sql}", values)]

    monkeypatch.setattr(store, "_rows", rows)
    store.count_runs(which)
    searched = [step for step in plan() if "runs" in step.split()]
    index = "runs_retried" if which.retries_only else "runs_by_state"
    index = "PRIMARY KEY (id>?)" if which.created_after else index
    assert all(index in step for step in searched), plan()
    store.list_runs(which, ("created_at", "desc"), 50)
    states = (which.status or "").split(",")
    # What several states have is merged, at most a page of each.
    assert len(states) > 1 or not any("TEMP B-TREE" in step for step in plan()), plan()
    for state in {*states} - {"", "ended"} if which.task_name else ():
        index = "runs_unsuccessful (task_name=? AND end_reason=?"
        index = "runs_by_task" if state == "success" else index
        index = "runs_by_state" if state in ("pending", "running") else index
        assert any(index in step for step in plan()), plan()


@pytest.mark.parametrize("field", ["task_name", "status", "created_at"])
def test_list_sort_reads_an_index(store: tr.Store, field: str) -> None:
    """These do not sort the whole history to show its first page."""
    asked: list[str] = []
    plain_rows = store._rows
    store._rows = lambda sql, values=(): (  # type: ignore[method-assign]
        asked.append(sql) or plain_rows(sql, values)  # type: ignore[func-returns-value]
    )
    for direction in ("asc", "desc"):
        store.list_runs(tr.RunFilter(), (field, direction), 50)
        plan = [
            row[3] for row in plain_rows(f"explain query plan {asked[-1]}", [50, 0])
        ]
        assert not [step for step in plan if "TEMP B-TREE" in step], plan


def test_bulk_filter_the_store_cannot_hold_is_the_clients_fault(
    serve: Callable[..., Served],
) -> None:
    daemon = serve({"true": {"run": "true"}})
    for name, value in [
        ("exit_code_min", 1 << 70),
        ("exit_code_max", -(1 << 63) - 1),
        ("search", "lone \ud800 surrogate"),
    ]:
        body = {"match_all": True, "filter": {name: value}}
        reply = daemon.post("/api/runs/bulk/delete", body, 422)
        assert [at for at, _ in reply.faults] == [f"body.filter.{name}"]


def test_find_runs_gives_the_known_ones_newest_first(
    store: tr.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tr, "STATEMENT_MAX_VALUES", 7)
    runs = [new_run() for _ in range(30)]
    record(store, *runs)
    ids = [run.id for run in runs] + [RUN_IDS.make(EPOCH_MS)]
    random.Random(1).shuffle(ids)
    assert store.find_runs(ids) == runs[::-1]
    assert store.find_runs([]) == []


def test_store_takes_ten_thousand_ids_at_once(store: tr.Store) -> None:
    """As many as a bulk operation may name."""
    run = as_ended(new_run())
    record(store, run)
    ids = [run.id, *(RUN_IDS.make(EPOCH_MS) for _ in range(tr.BULK_MAX_IDS - 1))]
    assert store.find_runs(ids) == [run]
    assert put(store, tr.write_trashed(ids, 1)).changed == 2
    assert put(store, tr.write_restored(ids)).changed == 2
    assert put(store, tr.write_forgotten(ids)).changed == 1


@pytest.mark.skipif(sys.version_info < (3, 11), reason="needs Connection.setlimit")
def test_store_gives_no_statement_more_than_five_hundred_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite before 3.32 takes 999."""
    connect = sqlite3.connect

    def limited(*args: Any, **named: Any) -> Any:
        db = connect(*args, **named)
        db.setlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER, tr.STATEMENT_MAX_VALUES)
        return db

    assert tr.STATEMENT_MAX_VALUES == 500
    monkeypatch.setattr(sqlite3, "connect", limited)
    store = tr.Store(str(tmp_path / "history.sqlite3"))
    runs = [as_ended(new_run(f"task-{n}")) for n in range(1300)]
    runs += [as_ended(new_run("task-1")) for _ in range(1100)]
    record(store, *runs)
    ids = [run.id for run in runs]
    assert len(store.find_runs(ids)) == 2400
    many = tr.RunFilter(search="task-", status=",".join(["success", "ended"] * 1000))
    assert store.count_runs(many) == 2400
    ended = tr.RunFilter(status="failed,ended," * 999 + "ended")
    assert store.count_runs(ended) == 2400
    assert len(store.list_ids(many, ids[-1], 9999)) == 2399
    assert len(store.list_runs(many, ("created_at", "desc"), 1000)) == 1000
    assert len(store.counted([f"task-{n}" for n in range(1300)])) == 1300
    before = tr.time_text(EPOCH_MS * 2)
    assert len(store.expired_ids("task-1", 600, before)) > tr.STATEMENT_MAX_VALUES
    put(store, tr.write_forgotten(store.expired_ids("task-1", 600, before)))
    assert put(store, tr.write_trashed(ids, 1)).changed > 1000
    assert put(store, tr.write_restored(ids)).changed > 1000
    assert put(store, tr.write_forgotten(ids)).changed > 1000
    assert store.count_runs(tr.RunFilter()) == 0
    store.close()


def test_trash_takes_only_ended_runs(store: tr.Store) -> None:
    pending, ended = new_run(), as_ended(new_run())
    running = as_running(new_run())
    record(store, pending, running, ended)
    trash = put(store, tr.write_trashed([pending.id, running.id, ended.id], 5))
    assert trash.changed == 2
    assert everything(store) == [running, pending]
    assert store.find_run(ended.id) is None
    assert store.list_ids(tr.RunFilter(), "", 9, "trash") == [ended.id]


def test_trash_gives_a_run_back_as_it_was(store: tr.Store) -> None:
    run = as_ended(new_run(params={"A": "b"}), tr.FAILED, error="it broke", exit_code=3)
    record(store, run)
    put(store, tr.write_trashed([run.id], 5))
    assert put(store, tr.write_restored([run.id])).changed == 2
    assert everything(store) == [run]
    assert store.list_ids(tr.RunFilter(), "", 9, "trash") == []
    assert put(store, tr.write_restored([run.id])).changed == 0
    assert put(store, tr.write_trashed([run.id], 6)).changed == 2


def test_trash_is_filtered_like_the_history(store: tr.Store) -> None:
    rng = random.Random(83)
    runs = [run for run in random_runs(rng, 120) if run.ended]
    record(store, *runs)
    put(store, tr.write_trashed([run.id for run in runs], 5))
    for _ in range(100):
        which = random_filter(rng, runs)
        wanted = [run.id for run in reversed(runs) if is_match(run, which)]
        assert store.list_ids(which, "", 1000, "trash") == wanted, which
        assert everything(store, which) == []


def test_trash_names_what_was_deleted_before_a_time(store: tr.Store) -> None:
    early, late = as_ended(new_run("a")), as_ended(new_run("b"))
    record(store, early, late)
    put(store, tr.write_trashed([early.id], 1000))
    put(store, tr.write_trashed([late.id], 2000))
    assert store.trashed_before(1000) == []
    assert store.trashed_before(1001) == [("a", early.id)]
    assert sorted(store.trashed_before(2001)) == [("a", early.id), ("b", late.id)]


def test_forgotten_runs_are_in_no_table(store: tr.Store) -> None:
    kept, trashed, plain = (as_ended(new_run()) for _ in range(3))
    record(store, kept, trashed, plain)
    put(store, tr.write_trashed([trashed.id], 1))
    assert put(store, tr.write_forgotten([trashed.id, plain.id])).changed == 2
    assert everything(store) == [kept]
    assert ask(store, "select count(*) from trash") == [(0,)]
    assert put(store, tr.write_restored([trashed.id])).changed == 0


def test_unended_runs_come_oldest_first_with_their_secret_parameters(
    store: tr.Store,
) -> None:
    runs = [new_run(f"t{n % 3}") for n in range(9)]
    runs[2], runs[5] = as_running(runs[2]), as_ended(runs[5])
    shuffled = random.Random(2).sample(runs, 9)
    for run in shuffled:
        put(store, tr.write_created(run, {"KEY": run.id} if run != runs[0] else None))
    wanted = [(run, {"KEY": run.id}) for run in runs if not run.ended]
    assert store.unended_runs() == [(runs[0], {}), *wanted[1:]]


DAMAGES = [
    ("params", "'{\"NAME\": '"),
    ("params", "'[1]'"),
    ("params", "x'7b7d'"),
    ("params", "7"),
    ("result", "'nothing'"),
    ("error", "x'00ff'"),
    ("exit_code", "'none'"),
    ("status", "x'00'"),
    ("end_reason", "x'ff'"),
    ("created_at", "x'ff'"),
    ("cpu_seconds", "'many'"),
]


@pytest.mark.parametrize(("column", "value"), DAMAGES)
def test_damaged_row_is_told_and_hides_no_other(
    store: tr.Store, column: str, value: str
) -> None:
    runs = [as_ended(new_run(params={"NAME": "x"})) for _ in range(3)]
    record(store, *runs)
    with contextlib.closing(sqlite3.connect(store._path)) as other:
        sql = f"update runs set {column} = {value} where id = ?"
        other.execute(sql, [runs[1].id])
        other.commit()
    found = store.find_run(runs[1].id)
    lost = f"the record of this run is damaged: {column} cannot be read"
    assert found and found.error == lost
    assert (found.id, found.task_name) == (runs[1].id, "backup")
    stand_in = (None, "ended", tr.time_text(0), -1, lost)
    assert found.document().get(column) in stand_in
    listed = store.list_runs(tr.RunFilter(), ("created_at", "desc"), 9)
    assert [run.id for run in listed] == [run.id for run in runs[::-1]]
    # A list does not read results.
    assert listed[1].error == (lost if column != "result" else None)
    assert [run.id for run in store.find_runs([run.id for run in runs])]


def test_damaged_text_is_shown_with_marks(store: tr.Store) -> None:
    """Of text that is not UTF-8 the rest can be read."""
    runs = [as_ended(new_run(error="cafe")) for _ in range(2)]
    record(store, *runs)
    with contextlib.closing(sqlite3.connect(store._path)) as other:
        sql = "update runs set error = cast(x'636166e9' as text) where id = ?"
        other.execute(sql, [runs[0].id])
        other.commit()
    listed = store.list_runs(tr.RunFilter(), ("created_at", "asc"), 9)
    assert [run.error for run in listed] == ["caf\ufffd", "cafe"]


def test_damaged_rows_do_not_stop_the_start(remains: Any) -> None:
    """A run that waits does not begin with other parameters than it was given."""
    lost = remains.leave("ok", 9, {"KEY": "x"}, params={"NAME": "x"})
    hidden = remains.leave("ok", 8, {"KEY": "x"}, params={"NAME": "x"})
    running = remains.leave("ok", 7, status="running", start_at="-")
    whole = remains.leave("ok", 6)
    hook = remains.leave("ok", 5, via="task", cause_run_id=running.id)
    with contextlib.closing(sqlite3.connect(remains.store._path)) as other:
        for column, run in (("params", lost), ("secret_params", hidden)):
            sql = f"update runs set {column} = '{{' where id = ?"
            other.execute(sql, [run.id])
        other.execute("insert into schedules values ('tick', '@every 1h', 'now')")
        other.commit()
    params = [{"env": "NAME"}, {"env": "KEY", "secret": True}]
    tick = {"run": "true", "cron": "@every 1h"}
    daemon = remains.revive({"ok": {"run": "true", "params": params}, "tick": tick})
    for run, column in ((lost, "params"), (hidden, "secret_params")):
        ended = daemon.find_run(run.id)
        assert ended.end_reason == "skipped"
        assert f"is damaged: {column} cannot be read" in ended.error
    assert daemon.find_run(running.id).end_reason == "crashed"
    assert end_of(daemon, whole).end_reason == "success"
    ended = end_of(daemon, hook)
    assert ended.end_reason == "start_failed" and "is damaged: stdin" in ended.error


def test_secret_parameters_are_forgotten_at_the_end(store: tr.Store) -> None:
    run = new_run()
    put(store, tr.write_created(run, {"KEY": "hunter2hunter2"}))
    put(store, tr.write_started(as_running(run)))
    assert store.unended_runs() == [(as_running(run), {"KEY": "hunter2hunter2"})]
    put(store, tr.write_ended(as_ended(run)))
    assert ask(store, "select secret_params from runs") == [(None,)]
    put(store, tr.write_trashed([run.id], 1))
    assert ask(store, "select secret_params from trash") == [(None,)]
    put(store, tr.write_restored([run.id]))
    assert ask(store, "select secret_params from runs") == [(None,)]


def test_secret_parameters_are_in_no_answer_of_the_store(store: tr.Store) -> None:
    run = new_run(params={"KEY": tr.HIDDEN})
    put(store, tr.write_created(run, {"KEY": "hunter2hunter2"}))
    assert "hunter2" not in repr([store.find_run(run.id), everything(store)])


def test_newest_id_counts_the_trash(store: tr.Store) -> None:
    assert store.newest_id() == ""
    older, newer = as_ended(new_run()), as_ended(new_run())
    record(store, older, newer)
    assert store.newest_id() == newer.id
    put(store, tr.write_trashed([newer.id], 1))
    assert store.newest_id() == newer.id
    put(store, tr.write_forgotten([newer.id]))
    assert store.newest_id() == older.id
    # Somebody wrote to the history by hand: the next start was a traceback.
    record(store, as_ended(new_run()._replace(id="short")))
    assert store.newest_id() == older.id


@pytest.mark.parametrize("reason", tr.END_REASONS)
def test_last_failure_is_the_newest_run_that_failed(
    store: tr.Store, reason: str
) -> None:
    assert store.last_failure() is None
    older = as_ended(new_run(), reason)
    record(store, older, as_ended(new_run()), new_run())
    failed = reason in ("failed", "timeout", "crashed", "log_overflow", "start_failed")
    assert store.last_failure() == (older if failed else None)
    newer = as_ended(new_run(), tr.FAILED)
    record(store, newer)
    assert store.last_failure() == newer


def test_last_runs_are_the_newest_of_each_task(store: tr.Store) -> None:
    assert store.last_runs() == {}
    runs = [new_run(name) for name in ("a", "b", "a", "c", "b")]
    record(store, *runs)
    assert store.last_runs() == {"a": runs[2], "b": runs[4], "c": runs[3]}
    assert store.last_run("a") == runs[2]
    assert store.last_run("d") is None
    put(store, tr.write_forgotten([runs[3].id]))
    assert store.last_runs() == {"a": runs[2], "b": runs[4]}


def test_expired_runs_are_ended_ones_beyond_keep_runs_or_too_old(
    store: tr.Store,
) -> None:
    runs = random_runs(random.Random(84), 150)
    record(store, *runs)
    mine = [run for run in runs if run.task_name == "backup"]
    ended = [run.id for run in mine if run.ended]
    at = mine[len(mine) // 3].created_at
    old = [run.id for run in mine if run.ended and run.created_at < at]
    assert old
    assert store.expired_ids("backup", None, None) == []
    assert store.expired_ids("backup", 5, None) == ended[:-5]
    assert store.expired_ids("backup", 0, None) == ended
    assert store.expired_ids("backup", 1000, None) == []
    assert store.expired_ids("backup", None, at) == old
    assert store.expired_ids("backup", 5, at) == sorted({*ended[:-5], *old})
    assert store.expired_ids("other", 0, at) == []


def test_expired_runs_come_in_batches(
    store: tr.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tr, "RETENTION_BATCH_RUNS", 4)
    runs = [as_ended(new_run()) for _ in range(11)]
    record(store, *runs)
    sizes = []
    while True:
        batch = store.expired_ids("backup", 2, None)
        if not batch:
            break
        sizes.append(len(batch))
        put(store, tr.write_forgotten(batch))
    assert sizes == [4, 4, 1]
    assert everything(store) == runs[:-3:-1]


def test_store_survives_close_and_open(tmp_path: Path) -> None:
    path = str(tmp_path / "history.sqlite3")
    runs = random_runs(random.Random(85), 50)
    opened = tr.Store(path)
    record(opened, *runs)
    tallies = sorted(opened.tallies())
    opened.close()
    assert sorted(os.listdir(tmp_path)) == ["history.sqlite3"]
    for _ in range(2):
        again = tr.Store(path)
        assert everything(again) == runs[::-1]
        assert sorted(again.tallies()) == tallies
        again.close()


def test_store_is_readable_when_its_writer_was_killed(tmp_path: Path) -> None:
    """What flush returned for is there; what was only put in line is not."""
    path = str(tmp_path / "history.sqlite3")
    script = (
        "import os, sys, taskrunnerd as tr\n"
        "store = tr.Store(sys.argv[1])\n"
        "for n in range(20):\n"
        "    run = tr.Run(tr.ulid_text(n), 'a', 'pending', 'api', tr.time_text(n))\n"
        "    write = store.enqueue(tr.write_created(run))\n"
        "    if n < 19: store.flush(write)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    killed = subprocess.run([sys.executable, "-c", script, path], cwd=HERE)
    assert killed.returncode == -signal.SIGKILL
    again = tr.Store(path)
    assert [tr.ulid_number(run.id) for run in everything(again)] == [*range(18, -1, -1)]
    assert again.tallies() == [("a", "pending", "api", 19)]
    again.close()


@NEEDS_PROC
def test_store_refuses_the_layout_of_a_later_version(tmp_path):
    path = str(tmp_path / "history.sqlite3")
    opened = tr.Store(path)
    record(opened, new_run())
    opened._db.execute("update meta set value = '7.1' where name = 'version'")
    opened._db.execute("pragma user_version = 7")
    opened.close()
    before, files = Path(path).read_bytes(), open_files()
    with pytest.raises(tr.StoreError) as refusal:
        tr.Store(path)
    assert open_files() == files
    told = f"{path}: made by another version of taskrunnerd, 7.1 (layout 7); this is "
    assert str(refusal.value) == f"{told}{tr.VERSION} and knows layouts up to 2"
    assert Path(path).read_bytes() == before


@pytest.mark.parametrize(
    "script",
    [
        "create table notes (text)",
        "create table runs (id); pragma user_version = 1",
        "pragma application_id = 7",
        "create table notes (text); pragma user_version = 2; pragma application_id = 7",
    ],
)
def test_store_refuses_the_database_of_another_program(tmp_path, script: str):
    path = tmp_path / "history.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.executescript(script)
    before = path.read_bytes()
    with pytest.raises(tr.StoreError, match="this is the database of another program"):
        tr.Store(str(path))
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["history.sqlite3"]


def test_layout_has_a_number_of_its_own():
    """A layout that differs by a word is another one: it needs the next number and a
    way from this one, and only then its hash here."""
    found = hashlib.sha256(" ".join(tr._LAYOUT.split()).encode()).hexdigest()
    assert (tr._LAYOUT_VERSION, found[:16]) == (2, "2e549b54c4b7ebd4")


def layout_1(columns, counters, count_end):
    """The statements of layout 1, in one of its forms."""
    of_run = f"""id text primary key, task_name text not null, status text not null,
        triggered_by text not null, created_at text not null, end_reason text,
        exit_code integer not null, signal text, error text, scheduled_at text,
        start_at text, end_at text, duration integer, params text,
        retry_attempt integer not null, retry_of_run_id text,
        instance_index integer not null, output_bytes integer,
        output_dropped_bytes integer, cpu_seconds real, max_rss_bytes integer,
        survivors integer, {columns} secret_params text"""
    key = "task_name = {0}.task_name and triggered_by = {0}.triggered_by"
    less = f"""update tallies set runs = runs - 1 where {key.format("old")}
        and state = coalesce(old.end_reason, old.status)"""
    more = """insert into tallies (task_name, state, triggered_by, runs) values
        (new.task_name, coalesce(new.end_reason, new.status), new.triggered_by, 1)
        on conflict (task_name, state, triggered_by) do update set runs = runs + 1"""
    count = f"{count_end} where {key.format('new')} and state = new.end_reason"
    added = f"{count} and not exists (select 1 from trash where id = new.id);"
    changed = f"{count} and old.end_reason is null;"
    return f"""create table runs ({of_run}) without rowid;
        create table trash ({of_run}, deleted_at integer not null) without rowid;
        create table tallies (task_name text, state text, triggered_by text,
            runs integer not null, {counters}
            primary key (task_name, state, triggered_by)) without rowid;
        create index runs_by_task on runs (task_name, id);
        create index runs_by_state on runs (coalesce(end_reason, status), id);
        create index runs_by_start on runs (start_at, id);
        create trigger runs_added after insert on runs begin {more};
            {added if count_end else ""} end;
        create trigger runs_changed after update of status, end_reason on runs
            begin {less}; {more}; {changed if count_end else ""} end;
        create trigger runs_removed after delete on runs begin {less}; end;
        pragma user_version = 1; pragma journal_mode = wal;"""


COUNT_END_1 = """update tallies set ended = ended + 1,
    started = started + (new.duration is not null),
    ended_at = case when new.start_at is null then ended_at else new.end_at end,
    exit_code = case when new.start_at is null then exit_code else new.exit_code end,
    dropped_bytes = dropped_bytes + coalesce(new.output_dropped_bytes, 0),
    duration = duration + coalesce(new.duration, 0),
    took_0 = took_0 + coalesce(new.duration between 0 and 100000000, 0)"""
LATER_TABLES_1 = """create table schedules (task_name text primary key,
        schedule text not null, seen_until text not null) without rowid;
    create table claims (key text primary key, fingerprint text not null,
        run_id text not null, claimed_ms integer not null) without rowid;
    create index claims_by_age on claims (claimed_ms);"""
LAST_LAYOUT_1 = LATER_TABLES_1 + layout_1(
    "summary text, request_id text, traceparent text, result text,",
    "ended_at text, exit_code integer,"
    + "".join(
        f"{name} integer not null default 0,"
        for name in (
            *("ended", "started", "dropped_bytes", "ticks", "duration"),
            *(f"took_{n}" for n in range(11)),
        )
    ),
    COUNT_END_1,
)
FIRST_LAYOUT_1 = layout_1("", "", "")


class Old(NamedTuple):
    """A database of layout 1 as a daemon that died has left it, and what is in it."""

    path: str
    runs: list[tr.Run]
    trash: list[tr.Run]
    forgotten: list[tr.Run]
    is_first: bool

    def check(self, store):
        """That a store holds all of it."""
        assert everything(store) == self.runs[::-1]
        live = [run for run in self.runs if not run.ended]
        assert store.unended_runs() == [(run, {"KEY": run.id}) for run in live]
        kinds = collections.Counter(
            (run.task_name, run.end_reason or run.status, run.triggered_by)
            for run in self.runs
        )
        assert {row[:3]: row[3] for row in store.tallies()} == kinds
        counted = self.runs + self.trash + ([] if self.is_first else self.forgotten)
        for name, found in store.counted().items():
            wanted = plainly_counted([r for r in counted if r.task_name == name])
            ticks = 0 if self.is_first or name != "1_000" else 41
            assert found == wanted._replace(
                ticks_missed=ticks,
                last_end_s=found.last_end_s,
                last_success_s=found.last_success_s,
                exit_code=found.exit_code,
            )
        ids = [run.id for run in self.trash]
        assert store.list_ids(ANY, "", 999, table="trash") == sorted(ids)[::-1]
        assert store.trashed_before(6) == []
        if not self.is_first:
            assert store.schedules() == {
                "backup": ("0 5 * * *", "2027-01-01T05:00:00Z")
            }
            assert store.find_claim("k", 4) == tr.Claim("k", "f", ids[0], 5)


@pytest.fixture(params=["first", "last"])
def old_store(tmp_path, request):
    """A database of layout 1, in the form it had first or last."""
    is_first = request.param == "first"
    late = ["via", "cause_run_id"]
    late += ["summary", "request_id", "traceparent", "result"] if is_first else []
    names = [name for name in tr.Run._fields if name not in late]
    summary = None if is_first else "it is"
    runs = [
        run._replace(via=None, duration=run.duration and 1, summary=summary)
        for run in random_runs(random.Random(2), 120)
    ]
    trash = [run for run in runs if run.ended][:20]
    forgotten = [run for run in runs if run.ended][20:25]
    live_at = tmp_path / "live" / "history.sqlite3"
    live_at.parent.mkdir()
    with contextlib.closing(sqlite3.connect(live_at)) as db:
        db.execute("pragma synchronous = off")
        db.executescript(FIRST_LAYOUT_1 if is_first else LAST_LAYOUT_1)
        marks = ", ".join("?" * len(names))
        insert = f"insert into runs ({', '.join(names)}, secret_params)"
        for run in runs:
            row = dict(zip(tr.Run._fields, tr._row_from_run(run)))
            secret = None if run.ended else json.dumps({"KEY": run.id})
            values = [*(row[name] for name in names), secret]
            db.execute(f"{insert} values ({marks}, ?)", values)
        columns = ", ".join(names)
        for chosen, is_kept in ((trash, True), (forgotten, False)):
            for run in chosen:
                if is_kept:
                    db.execute(
                        f"insert into trash ({columns}, deleted_at) select {columns}, 6"
                        " from runs where id = ?", [run.id]
                    )  # fmt: skip
                db.execute("delete from runs where id = ?", [run.id])
        if not is_first:
            db.execute(
                "update tallies set ticks = 41 where task_name = '1_000'"
                " and state = (select max(state) from tallies where task_name = '1_000'"
                " and ended > 0) and triggered_by = (select max(triggered_by) from"
                " tallies as t where t.task_name = '1_000' and t.state = tallies.state)"
            )
            seen = "insert into schedules values ('backup', '0 5 * * *', ?)"
            db.execute(seen, ["2027-01-01T05:00:00Z"])
            db.execute("insert into claims values ('k', 'f', ?, 5)", [trash[0].id])
        db.commit()
        # As kill -9 leaves it: most of it is in the write-ahead log only.
        for path in live_at.parent.iterdir():
            shutil.copy(path, tmp_path)
    kept = [run for run in runs if run not in trash and run not in forgotten]
    path = str(tmp_path / "history.sqlite3")
    assert os.path.getsize(f"{path}-wal")
    os.chmod(path, 0o640)
    return Old(path, kept, trash, forgotten, is_first)


def test_store_of_layout_1_is_brought_to_this_one(old_store, caplog, monkeypatch):
    Path(f"{old_store.path}-new").write_text("left by one that was killed")
    monkeypatch.setattr(tr, "MIGRATION_TELLS_STEPS", 500)
    folder, told = tr.DataFolder(os.path.dirname(old_store.path)), []

    def sorting_in():
        with contextlib.closing(sqlite3.connect(":memory:")) as db:
            return db.execute("pragma temp_store_directory").fetchone()

    before = sorting_in()
    folder.tell_busy = lambda: told.append(sorting_in())
    with caplog.at_level("INFO"):
        opened = tr._open_store(folder)
    # What is too much for the memory is sorted where there is room.
    assert told.count((os.path.realpath(folder.path),)) > 3
    assert sorting_in() == before
    words = rf"history brought to layout 2 runs={len(old_store.runs)} took=\d\.\d+s"
    assert re.fullmatch(words, caplog.messages[-1])
    assert not opened.is_new
    old_store.check(opened)
    assert opened._db.execute("pragma auto_vacuum").fetchone() == (2,)
    empty = tr.Store(str(Path(old_store.path).parent / "live" / "empty.sqlite3"))
    layout = "select sql from sqlite_master order by name"
    assert opened._rows(layout) == empty._rows(layout)
    empty.close()
    assert stat.S_IMODE(os.stat(old_store.path).st_mode) == 0o640
    put(opened, tr.write_restored([run.id for run in old_store.trash]))
    assert everything(opened) == sorted(old_store.runs + old_store.trash)[::-1]
    opened.close()
    names = ["history.sqlite3", "live", "logs", "results"]
    assert sorted(os.listdir(folder.path)) == names
    caplog.clear()
    tr.Store(old_store.path).close()
    assert caplog.messages == []


KILLED_AT_ANY_STEP = """
import os, shutil, signal, sys
import taskrunnerd as tr

def counting(call):
    def counted(*args, **more):
        step()
        return call(*args, **more)
    return counted

def step():
    global steps
    steps -= 1
    if not steps:
        os.kill(os.getpid(), signal.SIGKILL)

tr.MIGRATION_TELLS_STEPS = 2500
folder, count, killed = sys.argv[1], 0, True
while killed:
    count += 1
    work = shutil.copytree(folder, f"{folder}-{count}")
    pid = os.fork()
    if not pid:
        steps = count
        for name in ("fchmod", "fsync", "rename"):
            setattr(os, name, counting(getattr(os, name)))
        tr.Store(work + "/history.sqlite3", tell_busy=step)
        os._exit(0)
    killed = os.waitpid(pid, 0)[1] == signal.SIGKILL
print(count)
"""


@pytest.mark.parametrize("old_store", ["last"], indirect=True)
def test_store_of_layout_1_survives_kill_9_at_any_step(old_store, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    for path in tmp_path.glob("history*"):
        path.rename(folder / path.name)
    argv = [sys.executable, "-c", KILLED_AT_ANY_STEP, str(folder)]
    told = subprocess.run(argv, cwd=HERE, capture_output=True, timeout=DEADLINE_S)
    assert told.returncode == 0, told.stderr.decode()
    count = int(told.stdout)
    assert 5 < count < 40
    layouts = []
    for n in range(1, count + 1):
        path = f"{folder}-{n}/history.sqlite3"
        with contextlib.closing(sqlite3.connect(path)) as db:
            layouts += db.execute("pragma user_version").fetchone()
        opened = tr.Store(path)
        old_store.check(opened)
        opened.close()
        assert os.listdir(f"{folder}-{n}") == ["history.sqlite3"]
    assert set(layouts) == {1, 2} and layouts == sorted(layouts)


def test_store_of_layout_1_is_read_and_not_changed_by_a_rehearsal(
    old_store,
):
    folder = Path(old_store.path).parent
    before = {path.name: path.read_bytes() for path in folder.glob("history*3*")}
    looked = tr.Store(old_store.path, look_only=True)
    assert not looked.is_new
    if not old_store.is_first:
        old_store.check(looked)
    assert everything(looked) == old_store.runs[::-1]
    assert looked.schedules().keys() == (
        {"backup"} if not old_store.is_first else set()
    )
    with pytest.raises(tr.StoreError, match="readonly"):
        put(looked, tr.write_forgotten(["x"]))
    # A reader's marks in -shm are no change.
    for name in ("history.sqlite3", "history.sqlite3-wal"):
        assert (folder / name).read_bytes() == before[name]
    assert not (folder / "history.sqlite3-new").exists()
    looked.close()


@pytest.mark.parametrize("look_only", [True, False])
def test_store_of_layout_1_without_room_beside_it_is_not_touched(
    old_store, monkeypatch, look_only
):
    folder = Path(old_store.path).parent
    size_bytes = sum(os.path.getsize(old_store.path + end) for end in ("", "-wal"))
    free = types.SimpleNamespace(f_bavail=8, f_frsize=4096)
    with monkeypatch.context() as patched:
        patched.setattr(tr.os, "statvfs", lambda _: free)
        with pytest.raises(tr.StoreError) as refusal:
            tr.Store(old_store.path, look_only=look_only)
    words = f"too little room: layout 2 takes up to {size_bytes} bytes beside it, 32768"
    assert words in str(refusal.value)
    assert "make room on the disk" in str(tr._unusable("x", str(refusal.value)))
    assert os.listdir(folder).count("history.sqlite3-new") == 0
    with contextlib.closing(sqlite3.connect(old_store.path)) as db:
        assert db.execute("pragma user_version").fetchone() == (1,)
    opened = tr.Store(old_store.path)
    old_store.check(opened)
    opened.close()


def test_store_of_layout_1_is_left_as_it_is_while_somebody_has_it_open(
    old_store, monkeypatch
):
    monkeypatch.setattr(tr, "BUSY_TIMEOUT_S", 0)
    with contextlib.closing(sqlite3.connect(old_store.path)) as other:
        assert other.execute("select count(*) from trash").fetchone() == (20,)
        with pytest.raises(tr.StoreError, match="locked"):
            tr.Store(old_store.path)
        assert other.execute("select count(*) from trash").fetchone() == (20,)
    assert not os.path.exists(f"{old_store.path}-new")
    opened = tr.Store(old_store.path)
    old_store.check(opened)
    opened.close()


@pytest.mark.skipif(not os.path.exists("/proc/locks"), reason="no /proc/locks")
@pytest.mark.parametrize("old_store", ["last"], indirect=True)
def test_rehearsal_is_refused_while_another_process_has_layout_1_open(old_store):
    folder = Path(old_store.path).parent
    (folder / "tasks.json").write_text('{"tasks": {}}')
    reads = "import sqlite3; db = sqlite3.connect('history.sqlite3')"
    reads += "; db.execute('select * from runs').fetchall(); print(); input()"
    argv = [sys.executable, str(HERE / "taskrunnerd.py"), "--data", str(folder)]
    environ = {**os.environ, tr._REHEARSAL_VARIABLE: "1"}

    def rehearsed():
        told = subprocess.run(
            [*argv, "validate", "--json"], cwd=folder, env=environ,
            stdin=subprocess.DEVNULL, capture_output=True, timeout=DEADLINE_S,
        )  # fmt: skip
        return told.stdout.decode().splitlines()[1:], told.stderr.decode()

    reader, pipe = [sys.executable, "-c", reads], subprocess.PIPE
    with subprocess.Popen(reader, cwd=folder, stdin=pipe, stdout=pipe) as other:
        assert other.stdout and other.stdout.readline()
        # This process is the one whose program is to be replaced.
        with contextlib.closing(tr.Store(old_store.path, look_only=True)):
            answers, error = rehearsed()
            assert (answers, f"locked by process {other.pid}," in error) == ([], True)
            assert "end the other program" in error
            other.communicate(b"\n")
            answers, error = rehearsed()
            assert (answers, "locked" in error) == (["{}"], False)


def test_store_refuses_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite3"
    path.write_bytes(b"this is a letter to my aunt\n" * 100)
    with pytest.raises(
        tr.StoreError, match=r"history\.sqlite3: file is not a database"
    ):
        tr.Store(str(path))
    assert path.read_bytes().startswith(b"this is a letter")


def test_store_without_a_folder_says_where(tmp_path: Path) -> None:
    with pytest.raises(
        tr.StoreError, match=r"nowhere/history\.sqlite3: unable to open"
    ):
        tr.Store(str(tmp_path / "nowhere" / "history.sqlite3"))


def test_store_that_cannot_be_read_raises_store_error(store: tr.Store) -> None:
    store._db.execute("drop table tallies")
    with pytest.raises(tr.StoreError, match="no such table: tallies"):
        store.tallies()
    assert everything(store) == []


@pytest.mark.parametrize("writable", ["", "/tmp", "mine", "own"])
def test_store_sorts_beside_itself_where_nothing_else_can_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writable: str
) -> None:
    monkeypatch.setenv("SQLITE_TMPDIR", "mine")
    monkeypatch.setenv("TMPDIR", "own")
    monkeypatch.setattr(tr.os, "access", lambda path, _: path == writable)
    folder = tmp_path / "it's"
    folder.mkdir()
    store = tr.Store(str(folder / "history.sqlite3"))
    try:
        (found,) = ask(store, "pragma temp_store_directory") or [("",)]
        assert found[0] == ("" if writable else str(folder))
    finally:
        # It holds for all of SQLite in this process.
        store._db.execute("pragma temp_store_directory = ''")
        store.close()


@pytest.fixture
def lax_umask() -> Iterator[None]:
    """A process that hides nothing by itself."""
    before = os.umask(0)
    yield
    os.umask(before)


def modes_below(folder: Path) -> dict[str, int]:
    """The permissions of everything in a folder, by its name in it."""
    return {
        str(path.relative_to(folder)): path.stat().st_mode & 0o777
        for path in [folder, *folder.rglob("*")]
    }


def test_store_files_are_for_their_owner_only(tmp_path: Path, lax_umask: None) -> None:
    folder = tmp_path / "state"
    place = tr.DataFolder(str(folder))
    assert place.lock() == 0
    opened = tr.Store(place.database)
    record(opened, new_run())
    assert modes_below(folder) == {
        ".": 0o700,
        "logs": 0o700,
        "results": 0o700,
        f"results/{os.geteuid()}": 0o700,
        "lock": 0o600,
        "history.sqlite3": 0o600,
        "history.sqlite3-wal": 0o600,
        "history.sqlite3-shm": 0o600,
    }
    opened.close()
    place.unlock()


@pytest.fixture
def readers(store: tr.Store, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every connection that the store makes to read."""
    made: list[Any] = []
    connect = store._connect

    def count() -> Any:
        reader = connect()
        made.append(reader)
        return reader

    monkeypatch.setattr(store, "_connect", count)
    return made


def test_store_has_few_connections_for_many_readers(
    store: tr.Store, readers: list[Any]
) -> None:
    record(store, *[new_run() for _ in range(50)])
    threads = Threads()
    gate = threading.Barrier(24)

    def read() -> None:
        gate.wait(DEADLINE_S)
        for _ in range(5):
            assert len(everything(store)) == 50

    for _ in range(24):
        threads.start(read)
    threads.join()
    assert 1 <= len(readers) <= tr.READERS_MAX


def test_store_has_one_connection_for_one_reader(
    store: tr.Store, readers: list[Any]
) -> None:
    for _ in range(5):
        assert everything(store) == []
    assert len(readers) == 1


def test_store_readers_cannot_write(store: tr.Store) -> None:
    with pytest.raises(tr.StoreError, match="readonly"):
        store._rows("delete from runs")


# ---- 9. Logs: what a run wrote, line by line when somebody asks -------------

OUT, ERR = tr.STDOUT, tr.STDERR
AT_MS = 1_800_000_000_000


class Kept(NamedTuple):
    """All that a reader says of a log."""

    lines: list[tr.LogLine]
    raw: bytes
    total_lines: int
    first_available: int
    truncated: bool

    @property
    def texts(self):
        """The texts of the program's own lines."""
        return [line.text for line in self.lines if line.stream != tr.SYSTEM]

    @property
    def gaps(self):
        """(line number, lines, bytes) of each gap, read from its text."""
        found = []
        for line in self.lines:
            if line.stream == tr.SYSTEM:
                lines, left_out = re.findall(r"[0-9]+", line.text)[:2]
                found.append((line.n, int(lines), int(left_out)))
        return found


def read_log(base):
    """A whole log, read at once."""
    with tr.LogReader(base) as log:
        lines = log.lines(0, 10**9)
        raw = b"".join(log.raw(0, log.kept_bytes))
        assert len(raw) == log.kept_bytes
        return Kept(lines, raw, log.total_lines, log.first_available, log.truncated)


def glance(base):
    """Read a log that may be damaged; nothing may be raised."""
    with tr.LogReader(base) as log:
        assert log.first_available <= log.total_lines
        assert len(b"".join(log.raw(0, log.kept_bytes))) <= log.kept_bytes
        log.lines(0, 10**9)
    look_for(base, "x")


def look_for(base, text, start=0):
    """The lines of one log that a search finds, whatever their case."""
    run_id = base.rpartition("/")[2]
    found = tr.find_in_logs([(run_id, base)], (text, False), (run_id, start), 10**9)
    assert not found.next_run_id
    return [hit.line for hit in found.hits]


@pytest.fixture
def open_log(tmp_path):
    """Writers of fresh logs: open_log(max_bytes, on_full, secrets)."""
    numbers = itertools.count()

    def make(max_bytes=100 * tr.MIB, on_full=tr.DROP_OLD, secrets=()):
        folder = str(tmp_path / "logs")
        base = tr.log_base(folder, f"task{next(numbers)}", tr.ulid_text(1))
        return tr.LogWriter(base, max_bytes, on_full, secrets)

    return make


def write_all(log, written, size=10**9, pause_s=0.0):
    """Write bytes to stdout in chunks of a size, with pauses."""
    now_s = 1.0
    for at in range(0, len(written), size):
        log.write(OUT, written[at : at + size], AT_MS, now_s)
        now_s += pause_s
        if pause_s:
            log.release(AT_MS, now_s)


def kept_of(log, written, size=10**9, pause_s=0.0):
    """What is kept of a log that is written so and closed."""
    write_all(log, written, size, pause_s)
    log.close(AT_MS)
    return read_log(log.base)


def counted(*numbers):
    """Lines with their numbers, each to be written alone."""
    return [b"line %d\n" % n for n in range(*numbers)]


def files_of(base):
    """The files of a log with their contents, by their path."""
    folder = Path(base).parent
    paths = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path): path.read_bytes() for path in sorted(paths)}


def put_back(files):
    """Restore the files of a log."""
    for path, content in files.items():
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        Path(path).write_bytes(content)


class PlainLog:
    """What a log must say, worked out in the plainest way: the lines of two streams in
    the order in which they were completed, or had to be let go."""

    def __init__(self):
        self.lines: list[tr.LogLine] = []
        self.raw = b""
        self.written = 0
        self._held = [b"", b""]
        self._since_s = [0.0, 0.0]
        self._broken = [False, False]

    def _let_go(self, stream, piece, ms):
        ends = piece.endswith(b"\n")
        text = (piece[:-1] if ends else piece).decode("utf-8", "replace")
        n = len(self.lines)
        self.lines.append(tr.LogLine(n, ms, stream, text, self._broken[stream]))
        self._broken[stream] = not ends
        self.raw += piece

    def write(self, stream, chunk, ms, now_s):
        """A chunk arrives."""
        self.written += len(chunk)
        if not chunk and self._held[stream]:
            self._let_go(stream, self._held[stream], ms)
            self._held[stream] = b""
        if not self._held[stream]:
            self._since_s[stream] = now_s
        *whole, rest = (self._held[stream] + chunk).split(b"\n")
        for line in whole:
            self._let_go(stream, line + b"\n", ms)
            self._since_s[stream] = now_s
        self._held[stream] = rest

    def release(self, ms, now_s):
        """Time passes."""
        for stream in (OUT, ERR):
            if self._held[stream] and now_s - self._since_s[stream] >= 0.5:
                self._let_go(stream, self._held[stream], ms)
                self._held[stream] = b""

    def close(self, ms):
        """Both streams end."""
        for stream in (OUT, ERR):
            if self._held[stream]:
                self._let_go(stream, self._held[stream], ms)


def random_output(rng):
    """Something a program might write: text, noise, ends of lines, nothing else."""
    kinds = [
        lambda: b"\n" * rng.randint(1, 3), lambda: b"\r\n", lambda: b"a few words ",
        "Zoë — \U0001f600 ".encode, lambda: b"\x1b[31mred\x1b[0m\0\0",
        lambda: bytes(rng.randrange(256) for _ in range(rng.randint(1, 40))),
        lambda: b"\xe2\x82", lambda: b"0123456789" * rng.randint(1, 200),
    ]  # fmt: skip
    return b"".join(rng.choice(kinds)() for _ in range(rng.randint(1, 6)))


@pytest.mark.parametrize("seed", range(12))
def test_log_agrees_with_a_plain_reading_of_the_same_bytes(open_log, monkeypatch, seed):
    """Two streams at random, read in random ranges, while it grows and after."""
    rng = random.Random(900 + seed)
    if seed % 2:
        # Many small blocks instead of one large one.
        monkeypatch.setattr(tr, "LOG_BLOCK_BYTES", 500)
        monkeypatch.setattr(tr, "_RECORDS_AT_ONCE", 5)
    log, plain = open_log(), PlainLog()
    ms, now_s = AT_MS, 50.0
    for step in range(150):
        ms += rng.randrange(200)
        now_s += rng.choice([0.0, 0.0, 0.1, 0.3, 0.6])
        for each in (log, plain):
            each.release(ms, now_s)
        stream, chunk = rng.choice([OUT, OUT, ERR]), random_output(rng)
        if rng.random() < 0.02:
            chunk = b""
        for each in (log, plain):
            each.write(stream, chunk, ms, now_s)
        if step % 50 == 49:
            assert read_log(log.base).lines == plain.lines
    for each in (log, plain):
        each.close(ms + 1)
    kept = read_log(log.base)
    assert kept == Kept(plain.lines, plain.raw, len(plain.lines), 0, False)
    assert (log.output_bytes, log.dropped_bytes) == (plain.written, 0)
    assert len(plain.raw) == plain.written
    with tr.LogReader(log.base) as reader:
        assert reader.written_bytes == plain.written
        for _ in range(60):
            start, limit = rng.randrange(kept.total_lines + 3), rng.randint(1, 40)
            assert reader.lines(start, limit) == plain.lines[start : start + limit]
            low, high = (rng.randrange(plain.written + 9) for _ in range(2))
            assert b"".join(reader.raw(low, high)) == plain.raw[low:high]


@pytest.mark.parametrize("written, texts", [
    (b"", []), (b"\n", [""]), (b"\n\n\n", ["", "", ""]), (b"a", ["a"]), (b"a\n", ["a"]),
    (b"a\nb", ["a", "b"]), (b"a\r\nb\r\n", ["a\r", "b\r"]),
    (b"1%\r2%\r3%\n", ["1%\r2%\r3%"]), (b"nul \0 byte\n", ["nul \0 byte"]),
    (b"\xff\xfe caf\xc3\n", ["�� caf�"]),
    ("Zoë \u2028 \x0b \x85\n".encode(), ["Zoë \u2028 \x0b \x85"]),
    (b"\x1b[1mbold\x1b[0m\n", ["\x1b[1mbold\x1b[0m"]),
])  # fmt: skip
def test_log_line_ends_at_a_newline_and_nowhere_else(open_log, written, texts):
    for size in (1, 2, 100):
        kept = kept_of(open_log(), written, size)
        assert (kept.texts, kept.raw) == (texts, written)
        assert [line.n for line in kept.lines] == [*range(len(texts))]
        assert not any(line.continued for line in kept.lines)


def test_log_files_are_what_grep_and_less_read(open_log):
    log = open_log()
    log.write(OUT, b"one\ntwo\n", AT_MS, 1.0)
    log.write(ERR, b"\xff three\n", AT_MS, 1.0)
    assert Path(log.base + ".log").read_bytes() == b"one\ntwo\n\xff three\n"
    log.close(AT_MS)
    assert {Path(p).suffix for p in files_of(log.base)} == {".log", ".idx"}


def test_log_without_output_has_no_files(open_log):
    log = open_log()
    log.write(OUT, b"", AT_MS, 1.0)
    log.release(AT_MS, 9.0)
    log.close(AT_MS)
    assert files_of(log.base) == {}
    assert read_log(log.base) == Kept([], b"", 0, 0, False)


def test_log_files_are_for_their_owner_only(open_log, tmp_path, lax_umask):
    kept_of(open_log(tr.KIB), b"some words to fill it\n" * 100, 22)
    modes = modes_below(tmp_path / "logs" / "task0")
    assert len(modes) > 6
    for name, mode in modes.items():
        assert mode == (0o600 if Path(name).suffix in (".log", ".idx") else 0o700)
    # So is an index that repair makes.
    log = open_log()
    kept_of(log, b"some words\n")
    os.unlink(log.base + ".idx")
    tr.repair_log(log.base)
    assert os.stat(log.base + ".idx").st_mode & 0o777 == 0o600


def test_log_streams_never_mix_inside_a_line(open_log):
    log = open_log()
    for letter in b"good":
        log.write(OUT, bytes([letter]), AT_MS, 1.0)
        log.write(ERR, bytes([letter - 32]), AT_MS, 1.0)
    assert read_log(log.base).raw == b""
    log.write(ERR, b"\n", AT_MS + 1, 1.2)
    log.write(OUT, b"\n", AT_MS + 2, 1.3)
    log.close(AT_MS + 3)
    kept = read_log(log.base)
    assert kept.raw == b"GOOD\ngood\n"
    assert kept.lines == [
        tr.LogLine(0, AT_MS + 1, ERR, "GOOD"),
        tr.LogLine(1, AT_MS + 2, OUT, "good"),
    ]


def test_log_lets_an_unfinished_line_go_after_half_a_second(open_log):
    log = open_log()
    assert log.hold_left_s(5.0) is None
    log.write(OUT, b"Password", AT_MS, 5.0)
    log.write(OUT, b": ", AT_MS, 5.3)
    assert log.hold_left_s(5.3) == pytest.approx(0.2)
    log.release(AT_MS + 1, 5.49)
    assert read_log(log.base).raw == b""
    assert log.hold_left_s(7.0) == 0.0
    log.release(AT_MS + 2, 5.5)
    assert read_log(log.base).lines == [tr.LogLine(0, AT_MS + 2, OUT, "Password: ")]
    assert log.hold_left_s(5.5) is None
    log.write(OUT, b"accepted\nnext", AT_MS + 3, 6.0)
    assert log.hold_left_s(6.0) == pytest.approx(0.5)
    log.close(AT_MS + 4)
    assert read_log(log.base).lines[1:] == [
        tr.LogLine(1, AT_MS + 3, OUT, "accepted", True),
        tr.LogLine(2, AT_MS + 4, OUT, "next"),
    ]


def test_log_holds_each_stream_by_its_own_clock(open_log):
    log = open_log()
    log.write(OUT, b"out", AT_MS, 1.0)
    log.write(ERR, b"err", AT_MS, 1.4)
    assert log.hold_left_s(1.4) == pytest.approx(0.1)
    log.release(AT_MS, 1.5)
    assert read_log(log.base).texts == ["out"]
    assert log.hold_left_s(1.5) == pytest.approx(0.4)
    log.release(AT_MS, 1.9)
    assert read_log(log.base).texts == ["out", "err"]


def test_log_end_of_a_stream_lets_its_line_go(open_log):
    log = open_log()
    log.write(OUT, b"out", AT_MS, 1.0)
    log.write(ERR, b"err", AT_MS, 1.0)
    log.write(ERR, b"", AT_MS, 1.0)
    assert read_log(log.base).lines == [tr.LogLine(0, AT_MS, ERR, "err")]
    log.close(AT_MS + 1)
    assert read_log(log.base).lines[1:] == [tr.LogLine(1, AT_MS + 1, OUT, "out")]


def joined(lines):
    """The texts of whole lines, their pieces put together."""
    texts: list[str] = []
    for line in lines:
        if line.continued:
            texts[-1] += line.text
        else:
            texts.append(line.text)
    return texts


LONG_SIZES = (0, 1, 65_535, 65_536, 65_537, 131_072, 131_073, 200_000)


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("letter", ["x", "é", "€", "\U0001f600"])
def test_log_cuts_long_lines_into_pieces_between_characters(open_log, letter, seed):
    """Pieces are at most 64 KiB; put together they are the line."""
    rng = random.Random(940 + seed)
    sizes = rng.sample(LONG_SIZES, 5)
    texts = ["a" * rng.randrange(3) + letter * (size // 2) for size in sizes]
    written = "".join(f"{text}\n" for text in texts).encode()
    log = open_log()
    at = 0
    while at < len(written):
        size = rng.choice([1, 1000, 4096, 65_536, 65_537, 262_144])
        log.write(OUT, written[at : at + size], AT_MS, 1.0)
        at += size
    log.close(AT_MS)
    kept = read_log(log.base)
    assert kept.raw == written
    assert max(len(line.text.encode()) for line in kept.lines) <= 65_536
    assert joined(kept.lines) == texts
    assert [line.n for line in kept.lines] == [*range(kept.total_lines)]


def test_log_does_not_cut_a_line_of_64_kib(open_log):
    for end, size in ((b"\n", 65_537), (b"\n", 65_536), (b"", 65_536)):
        kept = kept_of(open_log(), b"x" * 65_536 + end, size)
        assert kept.lines == [tr.LogLine(0, AT_MS, OUT, "x" * 65_536)]


def test_log_writes_a_long_line_out_without_waiting_for_its_end(open_log):
    """Memory for held lines is bounded by the longest piece."""
    log = open_log()
    for _ in range(40):
        log.write(OUT, b"x" * 10_000, AT_MS, 1.0)
    kept = read_log(log.base)
    assert len(kept.raw) >= 400_000 - 65_536
    assert [line.continued for line in kept.lines] == [False] + [True] * (
        len(kept.lines) - 1
    )
    log.write(ERR, b"other\n", AT_MS, 1.0)
    log.write(OUT, b"\nnext\n", AT_MS, 1.0)
    log.close(AT_MS)
    kept = read_log(log.base)
    assert kept.lines[-1] == tr.LogLine(kept.total_lines - 1, AT_MS, OUT, "next")
    others = [line for line in kept.lines if line.stream == ERR]
    assert [(line.text, line.continued) for line in others] == [("other", False)]


# -- caps


def numbered(rng, total, longest):
    """Different lines of random length, each saying its number."""
    lines = []
    size = 0
    while size < total:
        line = b"%d " % len(lines)
        line += b"." * rng.randrange(max(1, longest - len(line))) + b"\n"
        lines.append(line)
        size += len(line)
    return lines


def feed(log, lines, rng):
    """Write lines in random chunks, some of them cut inside a line."""
    written = b"".join(lines)
    at = 0
    while at < len(written):
        size = rng.choice([1, 7, 100, 1000, 5000, 70_000])
        log.write(OUT, written[at : at + size], AT_MS, 1.0)
        at += size


CAPS = (tr.KIB, 1500, 4 * tr.KIB, 50_000, 256 * tr.KIB, 400_000, tr.MIB)


@pytest.mark.parametrize("cap", CAPS)
@pytest.mark.parametrize("times", [1, 2, 5])
def test_log_drop_old_keeps_the_head_and_the_newest_part(open_log, cap, times):
    rng = random.Random(cap + times)
    longest = min(150, cap // 16)
    lines = numbered(rng, cap * times + cap // 2, longest)
    written = b"".join(lines)
    log = open_log(cap)
    feed(log, lines, rng)
    log.close(AT_MS)
    kept = read_log(log.base)

    ((gap_n, gap_lines, gap_bytes),) = kept.gaps
    place = [line.stream for line in kept.lines].index(tr.SYSTEM)
    head, tail = kept.lines[:place], kept.lines[place + 1 :]
    assert gap_n == place + gap_lines - 1
    assert gap_bytes == log.dropped_bytes == len(written) - len(kept.raw)
    assert log.output_bytes == len(written)
    assert [line.n for line in head + tail] == [
        *range(place),
        *range(gap_n + 1, len(lines)),
    ]
    own = [(line.text + "\n").encode() for line in head + tail]
    assert own == lines[:place] + lines[gap_n + 1 :]
    assert kept.raw == b"".join(own)
    assert (kept.total_lines, kept.first_available) == (len(lines), 0)
    assert kept.truncated
    assert not log.full

    head_bytes = len(b"".join(lines[:place]))
    segment = (cap - min(64 * tr.KIB, cap // 4)) // 4
    assert len(kept.raw) <= cap
    assert min(64 * tr.KIB, cap // 4, segment) - longest < head_bytes <= 64 * tr.KIB
    assert len(kept.raw) - head_bytes >= 3 * (segment - longest)


@pytest.mark.parametrize("on_full", tr.LOG_POLICIES)
@pytest.mark.parametrize("size", [100, 30_000, 200_000])
def test_log_keeps_all_of_what_fits(open_log, on_full, size):
    """Up to the cap without the head, which may have to be kept apart later."""
    log = open_log(tr.MIB, on_full)
    kept = kept_of(log, (b"x" * 99 + b"\n") * 9800, size)
    assert (len(kept.texts), kept.gaps, kept.truncated) == (9800, [], False)
    assert (log.full, log.dropped_bytes) == (False, 0)


def random_steps(rng, secrets):
    """What may happen to a log: ("disk", room), ("hand over",), or a chunk of a line on
    one of two streams, or of many lines, and how long the program then pauses."""
    unfinished = ["", ""]
    for _ in range(rng.choice([20, 200])):
        chance = rng.random()
        if chance < 0.02:
            yield "disk", rng.choice([0, 20, 40, 60, 300])
        elif chance < 0.15:
            yield "disk", 10**9
        elif chance < 0.17:
            yield ("hand over",)
        stream = rng.choice([OUT, OUT, ERR])
        words = ["x", "words ", "é", "\r", "0123456789" * 5, *secrets]
        text = "".join(rng.choices(words, k=rng.randrange(4)))
        if rng.random() < 0.5 or len(unfinished[stream] + text) > 100:
            text += "\n" * rng.randint(1, 2)
        if rng.random() < 0.1:
            text += "a line\n" * rng.randrange(300)
        unfinished[stream] = (unfinished[stream] + text).rpartition("\n")[2]
        yield "write", stream, text.encode(), rng.choice([0.0, 0.0, 0.1, 0.6])


@pytest.mark.parametrize("seed", range(40))
def test_log_is_the_same_for_all_its_readers_whatever_happens_to_it(
    open_log, monkeypatch, seed
):
    """Caps, held lines, secrets, full disks and upgrades at random: what is kept is
    what a log without a cap has in the same place, what is not is told as a gap, and
    nothing is counted twice."""
    rng = random.Random(7000 + seed)
    disk = Disk(10**9)
    monkeypatch.setattr(tr, "os", disk)
    secrets = rng.choice([(), ("hunter2", "hunter2000")])
    cap, on_full = rng.choice(CAPS[:4]), rng.choice(tr.LOG_POLICIES)
    log, twin = open_log(cap, on_full, secrets), open_log(secrets=secrets)
    ms, now_s, room = AT_MS, 1.0, rng.choice([0, 10**9])

    def check():
        logs = [p for p in files_of(log.base) if p.endswith(".log")]
        assert sum(map(os.path.getsize, logs)) <= cap
        whole = read_log(twin.base).raw
        start, raw, gaps = 0, b"", []
        with tr.LogReader(log.base) as reader:
            for part in parts_of(reader, 0):
                own = whole[start : part.end]
                assert part.stream == tr.SYSTEM or part.content == own
                if part.stream == tr.SYSTEM:
                    gaps.append(part.content.decode())
                else:
                    raw += own
                start = part.end
            assert start == reader.written_bytes
            lines = reader.lines(0, 10**9)
            n, limit = rng.randrange(reader.total_lines + 2), rng.choice([1, 30, 10**9])
            # A gap is a line with the number of the last one missing.
            assert reader.lines(n, limit) == [x for x in lines if x.n >= n][:limit]
            newest = max(reader.first_available, reader.total_lines - 7)
            assert reader.last_lines(7) == [x for x in lines if x.n >= newest]
        kept = read_log(log.base)
        assert kept.raw == raw == b"".join(read_on(log.base)[0])
        assert [f"{line.text}\n" for line in lines if line.stream == tr.SYSTEM] == gaps
        own_lines = [line for line in lines if line.stream != tr.SYSTEM]
        assert "".join(kept.texts) == raw.decode("utf-8", "replace").replace("\n", "")
        assert look_for(log.base, "LINE") == [n for n in own_lines if "line" in n.text]
        assert not [s for s in secrets if s.encode() in raw]
        low, high = sorted(rng.randrange(len(raw) + 2) for _ in range(2))
        with tr.LogReader(log.base) as reader:
            assert b"".join(reader.raw(low, high)) == raw[low:high]
        if not secrets:
            held = sum(map(len, log._held))
            assert log.output_bytes == len(raw) + log.dropped_bytes + held
        left_out = sum(gap[2] for gap in kept.gaps)
        untold = log._ends_in_gap and not log.closed
        assert untold or left_out == log.dropped_bytes

    for step, (what, *how) in enumerate(random_steps(rng, secrets)):
        if what == "disk":
            room = how[0]
        elif what == "hand over":
            record = json.loads(json.dumps(log.record()))
            log._close_files()
            log = tr.LogWriter.resumed(log.base, record)
        else:
            ms, now_s = ms + 1, now_s + how[2]
            for each, disk.room in ((log, room), (twin, 10**9)):
                each.release(ms, now_s)
                each.write(how[0], how[1], ms, now_s)
        disk.room = 10**9
        if step % 10 == 0:
            check()
    log.close(ms)
    twin.close(ms)
    check()


@pytest.mark.parametrize("on_full", [tr.DROP_NEW, tr.KILL_TASK])
@pytest.mark.parametrize("cap", CAPS)
def test_log_drop_new_keeps_the_beginning(open_log, cap, on_full):
    """Up to the cap, at best to the end of a line; nothing small slips in later."""
    rng = random.Random(cap)
    lines = numbered(rng, 2 * cap, 150)
    log = open_log(cap, on_full)
    feed(log, lines, rng)
    log.write(ERR, b"\n", AT_MS, 1.0)
    log.close(AT_MS)
    kept = read_log(log.base)
    written = b"".join(lines) + b"\n"
    assert written.startswith(kept.raw)
    assert cap - 150 < len(kept.raw) <= cap
    assert log.full
    assert log.output_bytes == len(written)
    assert log.dropped_bytes == len(written) - len(kept.raw)
    count = len(kept.texts)
    # A line that was cut counts as two.
    total = len(lines) + 1 + (not kept.raw.endswith(b"\n"))
    assert kept.gaps == [(total - 1, total - count, log.dropped_bytes)]
    assert (kept.total_lines, kept.truncated) == (total, True)


@pytest.mark.parametrize("on_full", [tr.DROP_NEW, tr.KILL_TASK])
def test_log_is_full_with_the_first_byte_too_many(open_log, on_full):
    log = open_log(2000, on_full)
    write_all(log, (b"z" * 99 + b"\n") * 20, 100)
    assert (log.full, log.dropped_bytes) == (False, 0)
    log.write(OUT, b"\n", AT_MS, 1.0)
    assert (log.full, log.dropped_bytes) == (True, 1)


@pytest.mark.parametrize("on_full", [tr.DROP_NEW, tr.KILL_TASK])
def test_log_written_line_by_line_is_not_full_before_its_cap(open_log, on_full):
    """A task must not be killed because its lines are short."""
    cap = 256 * tr.KIB
    log = open_log(cap, on_full)
    line = b"a line of thirty bytes or so.\n"
    count = cap // len(line)
    kept = kept_of(log, line * count, len(line))
    assert not log.full, f"full after {log.output_bytes - log.dropped_bytes} bytes"
    assert len(kept.lines) == count


@pytest.mark.parametrize("on_full", tr.LOG_POLICIES)
@pytest.mark.parametrize("written", [b"x\n", b"\n", b"x"])
def test_log_index_never_outgrows_the_log(open_log, on_full, written):
    """A program that writes a byte at a time must not fill the disk with records."""
    cap = 64 * tr.KIB
    log = open_log(cap, on_full)
    now_s = 1.0
    for _ in range(20_000):
        log.write(OUT, written, AT_MS, now_s)
        now_s += 0.6
        log.release(AT_MS, now_s)
    log.close(AT_MS)
    files = files_of(log.base)
    records = sum(len(c) for path, c in files.items() if path.endswith(".idx"))
    assert records <= (6 if on_full == tr.DROP_OLD else 17) * cap
    kept = read_log(log.base)
    assert log.output_bytes == 20_000 * len(written)
    assert log.output_bytes == len(kept.raw) + log.dropped_bytes
    assert kept.total_lines == 20_000


def test_log_line_longer_than_a_tiny_cap_is_kept_in_part(open_log):
    """The cap binds also when there is no newline to cut at."""
    for on_full in tr.LOG_POLICIES:
        log = open_log(tr.KIB, on_full)
        kept = kept_of(log, b"0123456789" * 2000, 400)
        assert 500 < len(kept.raw) <= tr.KIB
        assert set(kept.raw) <= set(b"0123456789")
        assert log.output_bytes == 20_000 == len(kept.raw) + log.dropped_bytes
        assert sum(gap[2] for gap in kept.gaps) == log.dropped_bytes


def test_log_keeps_streams_and_times_over_a_rotation(open_log):
    log = open_log(tr.KIB)
    wanted = {}
    for n in range(300):
        stream = (OUT, ERR)[n % 3 == 0]
        log.write(stream, b"line %d\n" % n, AT_MS + n, 1.0)
        wanted[n] = tr.LogLine(n, AT_MS + n, stream, f"line {n}")
    log.close(AT_MS)
    lines = [line for line in read_log(log.base).lines if line.stream != tr.SYSTEM]
    assert len(lines) > 50
    assert lines == [wanted[line.n] for line in lines]


# -- secrets

KEYS = ("hunter2", "correct horse", "-----BEGIN\nKEY-----", "pässwörd")


def redacted(written):
    """What the log may keep of a text that comes in one piece."""
    for key in KEYS:
        written = written.replace(key.encode(), b"[redacted]")
    return written


def test_log_redacts_a_secret_split_at_any_byte(open_log):
    written = b"a hunter2hunter2 is a\ncorrect horse\n"
    written += "-----BEGIN\nKEY----- and pässwörd, hunter, correct hors".encode()
    wanted = redacted(written)
    assert wanted.count(b"[redacted]") == 5
    for at in range(len(written) + 1):
        log = open_log(secrets=KEYS)
        write_all(log, written[:at])
        assert kept_of(log, written[at:]).raw == wanted, at
        assert log.output_bytes == len(written)


@pytest.mark.parametrize("secret, encoding", [
    ("geheimnüs", "utf-8"), ("geheimnüs", "iso-8859-1"), ("100 € Glück", "iso-8859-15"),
    ("пароль", "utf-8"), ("пароль", "koi8-r"),
])  # fmt: skip
def test_log_redacts_a_secret_whatever_the_locale(
    open_log, monkeypatch, secret, encoding
):
    """KOI8-R as the locale of the daemon; the others without."""
    monkeypatch.setattr(tr, "SECRET_ENCODINGS", (*tr.SECRET_ENCODINGS[:3], "koi8-r"))
    written = f"it is {secret}!\n".encode(encoding)
    for at in range(len(written)):
        log = open_log(secrets=[secret, "hunter2"])
        log.write(OUT, written[:at], AT_MS, 1.0)
        log = tr.LogWriter.resumed(log.base, json.loads(json.dumps(log.record())))
        log.write(OUT, written[at:] + b"hunter2\n", AT_MS, 1.0)
        log.close(AT_MS)
        assert read_log(log.base).raw == b"it is [redacted]!\n[redacted]\n", at


@pytest.mark.parametrize("seed", range(10))
def test_log_redacts_secrets_in_random_chunks(open_log, seed):
    """Over two streams, with pauses, so that held lines are let go in between."""
    rng = random.Random(960 + seed)
    log = open_log(secrets=KEYS)
    words = [*KEYS, "hunter", "correct ", "horse\n", "-----BEGIN\n", "x", "\n", "p"]
    written = ["".join(rng.choices(words, k=200)).encode() for _ in range(2)]
    rests, now_s = written[:], 1.0
    while any(rests):
        stream = rng.choice([OUT, ERR])
        size = rng.randint(1, 12)
        if rests[stream]:
            log.write(stream, rests[stream][:size], AT_MS, now_s)
            rests[stream] = rests[stream][size:]
        now_s += rng.choice([0.0, 0.0, 0.0, 0.6])
        log.release(AT_MS, now_s)
    log.close(AT_MS)
    for stream in (OUT, ERR):
        mine = [line for line in read_log(log.base).lines if line.stream == stream]
        text = "".join(
            ("" if line.continued or not index else "\n") + line.text
            for index, line in enumerate(mine)
        )
        assert text == redacted(written[stream]).decode().rstrip("\n") or (
            text.rstrip("\n") == redacted(written[stream]).decode().rstrip("\n")
        )


@pytest.mark.parametrize("secrets, written, wanted", [
    (("abcdef", "abcdefghij"), b"abcdefghij\n", b"[redacted]\n"),
    (("abcdef", "abcdefghij"), b"abcdefxy\n", b"[redacted]xy\n"),
    (("cdefgh", "abcdefghij"), b"abcdefghij\n", b"[redacted]\n"),
    (("cdefgh", "abcdefghij"), b"abcdefghi\n", b"ab[redacted]i\n"),
    (("abcabc",), b"abcabcabcabc\n", b"[redacted][redacted]\n"),
    (("aaaaaa",), b"aaaaaaa\n", b"[redacted]a\n"),
    (("abcdef", "redacted"), b"abcdef redacted\n", b"[redacted] [redacted]\n"),
], ids=[
    "prefix", "only prefix", "inner", "only inner", "twice", "overlap", "word",
])  # fmt: skip
@pytest.mark.parametrize("pause_s", [0.0, 0.6])
def test_log_redacts_alike_however_the_output_is_chunked(
    open_log, secrets, written, wanted, pause_s
):
    """Secrets that begin alike or hold one another: the longest one counts."""
    for size in range(1, len(written) + 1):
        kept = kept_of(open_log(secrets=secrets), written, size, pause_s)
        assert kept.raw == wanted, size


def test_log_redacts_overlapping_secrets_so_that_none_is_seen(open_log):
    secrets = ("abcdef", "defghi", "ghijkl")
    for written in (b"abcdefghijkl\n", b"abcdefghi\n", b"defghijkl\n", b"xabcdefg\n"):
        for at in range(len(written)):
            log = open_log(secrets=secrets)
            write_all(log, written[:at], pause_s=0.6)
            raw = kept_of(log, written[at:]).raw
            assert b"[redacted]" in raw
            assert not [s for s in secrets if s.encode() in raw], (written, at, raw)


@pytest.mark.parametrize("size", [1000, 65_536, 400_000])
def test_log_redacts_a_secret_across_the_cut_of_a_long_line(open_log, size):
    for before in (65_530, 65_533, 131_070):
        written = b"x" * before + b"correct horse" + b"y" * 10
        kept = kept_of(open_log(secrets=KEYS), written, size)
        assert kept.raw == redacted(written)


@pytest.mark.parametrize("on_full", tr.LOG_POLICIES)
def test_log_shows_no_secret_at_the_cut_of_its_cap(open_log, on_full):
    for shift in range(16):
        written = b"." * shift + b"correct horse" * 300
        raw = kept_of(open_log(tr.KIB, on_full, KEYS), written, 50).raw
        assert b"redacted" in raw
        assert b"correct" not in raw and b"horse" not in raw


# -- errors of the disk


class Disk:
    """The module os as the log writer sees it, with a disk of limited room: a write
    that does not fit writes what does and fails."""

    def __init__(self, room):
        self.room = room
        self.number = 28

    def __getattr__(self, name):
        return getattr(os, name)

    def write(self, fd, chunk):
        """As os.write, and a short count or ENOSPC when there is no room."""
        fits = chunk[: self.room]
        if not fits:
            raise OSError(self.number, os.strerror(self.number))
        self.room -= len(fits)
        return os.write(fd, fits)


@pytest.mark.parametrize("lost", [1, 2, 5])
def test_log_survives_a_disk_that_is_full_at_any_byte(open_log, monkeypatch, lost):
    """What could not be written is counted and said, what follows is read as ever,
    after any number of lost lines."""
    for room in range(200):
        disk = Disk(room)
        monkeypatch.setattr(tr, "os", disk)
        log = open_log()
        for n in range(14):
            log.write(n % 2, b"line %02d\n" % n, AT_MS + n, 1.0)
            if log.dropped_bytes >= lost * 8:
                disk.room = 10**9
        log.close(AT_MS)
        kept = read_log(log.base)
        own = [line for line in kept.lines if line.stream != tr.SYSTEM]
        assert own == [
            tr.LogLine(line.n, AT_MS + line.n, line.n % 2, f"line {line.n:02}")
            for line in own
        ], room
        missing = 14 - len(own)
        assert missing <= lost
        assert sum(lines for _, lines, _ in kept.gaps) == missing, room
        assert log.dropped_bytes == missing * 8
        assert log.output_bytes == len(kept.raw) + log.dropped_bytes, room
        assert ("No space left on device" in log.error) == (missing > 0), room
        assert kept.total_lines == 14


def test_log_says_what_is_missing_when_the_disk_stays_full_to_the_end(
    open_log, monkeypatch
):
    for room in range(240):
        disk = Disk(room)
        monkeypatch.setattr(tr, "os", disk)
        log = open_log()
        for n in range(8):
            log.write(OUT, b"line %d\n" % n, AT_MS, 1.0)
        log.write(OUT, b"unfinished", AT_MS, 1.0)
        log.close(AT_MS)
        monkeypatch.undo()
        kept = read_log(log.base)
        assert kept.texts == [f"line {n}" for n in range(8)][: len(kept.texts)], room
        assert log.output_bytes == 66 == len(kept.raw) + log.dropped_bytes, room
        assert "No space left on device" in log.error, room


def test_log_error_does_not_blame_the_cap(open_log, monkeypatch):
    """An operator must not raise log_max_size when the disk was full."""
    disk = Disk(0)
    monkeypatch.setattr(tr, "os", disk)
    log = open_log()
    write_all(log, b"lost\n")
    disk.room = 10**9
    first, *others = kept_of(log, b"kept\n").lines
    assert [line.text for line in others] == ["kept"]
    assert "left out" in first.text and "log_max_size reached" not in first.text


def test_log_that_somebody_removes_goes_on_within_its_cap(open_log, tmp_path):
    """An operator short of room deletes the files of a run that is still writing."""
    log = open_log(4 * tr.KIB)
    for n, line in enumerate(counted(2000)):
        if n in (100, 900):
            shutil.rmtree(tmp_path / "logs")
        write_all(log, line)
    kept = kept_of(log, b"")
    assert len(kept.raw) <= 4 * tr.KIB
    assert kept.texts[-1] == "line 1999"
    assert kept.total_lines == 2000


def test_log_hits_a_limit_of_the_kernel_and_goes_on(tmp_path):
    """No file may grow beyond 10,000 bytes: the output goes on in further ones."""
    script = (
        "import json, resource, sys, taskrunnerd as tr\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "log = tr.LogWriter(sys.argv[1], tr.MIB, tr.DROP_OLD, ())\n"
        "for n in range(5_000):\n"
        "    log.write(0, b'line %d\\n' % n, 7, 1.0)\n"
        "log.close(7)\n"
        "print(json.dumps([log.output_bytes, log.dropped_bytes, log.error]))\n"
    )
    base = str(tmp_path / "logs" / "task" / "run")
    limited = subprocess.run(
        [sys.executable, "-c", script, base], cwd=HERE, capture_output=True, text=True
    )
    assert limited.returncode == 0, limited.stderr
    written, dropped, error = json.loads(limited.stdout)
    kept = read_log(base)
    assert (
        written
        == len(kept.raw) + dropped
        == sum(len(f"line {n}\n") for n in range(5000))
    )
    assert 0 < dropped < written // 100
    assert "File too large" in error
    own = [line for line in kept.lines if line.stream != tr.SYSTEM]
    assert [line.text for line in own] == [f"line {line.n}" for line in own]
    assert own[-1].n == 4999
    assert sum(gap[2] for gap in kept.gaps) == dropped


def test_run_whose_output_cannot_be_written_is_not_disturbed(serve):
    script = "for i in 1 2 3; do echo $i; echo $i >&2; done; exit 3"
    daemon = serve({"talk": {"run": script, "exit_codes": [3]}})
    logs = daemon.folder / ".taskrunnerd" / "logs"
    (logs / "talk").symlink_to(logs / "nowhere" / "talk")
    run = daemon.run("talk")
    assert (run["end_reason"], run["exit_code"]) == ("success", 3)
    assert (run["output_bytes"], run["output_dropped_bytes"]) == (12, 12)
    assert "output could not be written: " in run["error"]
    assert daemon.raw(run) == b""
    assert daemon.lines(run) == []


def test_log_whose_file_was_replaced_goes_on_in_a_new_segment_after_an_upgrade(
    open_log,
):
    log = open_log()
    log.write(OUT, b"before\n", AT_MS, 1.0)
    record = json.loads(json.dumps(log.record()))
    log.close(AT_MS)
    os.unlink(log.base + ".log")
    os.mkfifo(log.base + ".log")
    after = in_thread(lambda: tr.LogWriter.resumed(log.base, record))()
    assert after.error == "output could not be written: No such device or address"
    after.write(OUT, b"after\n", AT_MS, 1.0)
    after.close(AT_MS)
    assert Path(log.base + ".more/1.log").read_bytes() == b"after\n"


def test_log_that_cannot_be_read_is_answered_with_a_problem(serve):
    """An error of the disk is not mistaken for a client that hung up."""
    daemon = serve({"talk": {"run": "echo words"}})
    run = daemon.run("talk")
    logs = daemon.folder / ".taskrunnerd" / "logs"
    (logs / "talk").rename(logs / "elsewhere")
    (logs / "talk").write_text("in the way")
    path = f"/api/tasks/talk/runs/{run['id']}/log"
    for end in ("", "/raw", "/stream"):
        assert "Not a directory" in daemon.get(path + end, 503).json["detail"]


# -- repair


def sample_log(log):
    """Some lines on two streams with an unfinished end; returns how they read."""
    for n in range(9):
        log.write(n % 2, b"line %d\n" % n * (1 + n % 3), AT_MS + n, 1.0)
    log.write(OUT, b"\n\nunfinished", AT_MS + 10, 1.0)
    log.close(AT_MS + 11)
    return read_log(log.base).lines


def test_repair_of_a_sound_log_changes_nothing(open_log):
    for cap in (tr.MIB, tr.KIB):
        log = open_log(cap)
        for _ in range(20):
            sample_log(log)
        before = files_of(log.base)
        os.utime(log.base + ".log", ns=(0, 1_700_000_000_123_000_000))
        assert tr.repair_log(log.base) > 0
        assert files_of(log.base) == before


def test_repair_tells_when_the_log_was_last_written(open_log):
    """What the index says; of bytes it does not know, the time stamp of the file."""
    log = open_log()
    assert tr.repair_log(log.base) == 0
    assert files_of(log.base) == {}
    sample_log(log)
    os.utime(log.base + ".log", ns=(0, 1_800_000_005_123_456_789))
    assert tr.repair_log(log.base) == AT_MS + 11
    os.truncate(log.base + ".idx", 5 * tr._RECORD.size)
    assert tr.repair_log(log.base) == 1_800_000_005_123


def test_repair_of_an_index_cut_at_any_byte(open_log):
    """All bytes are read again; where the index was lost, as lines of stdout with the
    time of the last write."""
    log = open_log()
    lines = sample_log(log)
    files = files_of(log.base)
    index = files[log.base + ".idx"]
    os.utime(log.base + ".log", ns=(0, 1_700_000_000_123_000_000))
    for size in [*range(len(index)), None]:
        if size is None:
            os.unlink(log.base + ".idx")
        else:
            Path(log.base + ".idx").write_bytes(index[:size])
        glance(log.base)
        tr.repair_log(log.base)
        kept = read_log(log.base)
        assert kept.raw == files[log.base + ".log"], size
        assert [(x.n, x.text) for x in kept.lines] == [(x.n, x.text) for x in lines]
        sound = [line for line in kept.lines if line.ts != 1_700_000_000_123]
        assert sound == lines[: len(sound)], size
        assert {line.stream for line in kept.lines[len(sound) :]} <= {OUT}, size
        once = files_of(log.base)
        tr.repair_log(log.base)
        assert files_of(log.base) == once, size


def test_repair_of_a_log_cut_at_any_byte(open_log):
    """A power cut may leave an index that knows more than the log has."""
    log = open_log()
    sample_log(log)
    files = files_of(log.base)
    raw = files[log.base + ".log"]
    for size in range(len(raw)):
        put_back(files)
        Path(log.base + ".log").write_bytes(raw[:size])
        glance(log.base)
        tr.repair_log(log.base)
        kept = read_log(log.base)
        assert kept.raw == raw[:size]
        texts = raw[:size].decode().split("\n")
        assert kept.texts == (texts if texts[-1] else texts[:-1]), size
        assert [line.n for line in kept.lines] == [*range(len(kept.lines))], size


def test_repair_of_a_log_longer_than_its_index(open_log):
    log = open_log()
    lines = sample_log(log)
    with open(log.base + ".log", "ab") as file:
        file.write(b" no more\nand more\n" + b"x" * 100_000)
    tr.repair_log(log.base)
    kept = read_log(log.base)
    assert kept.lines[: len(lines)] == lines
    assert kept.texts[len(lines) :][:2] == [" no more", "and more"]
    assert "".join(kept.texts[len(lines) + 2 :]) == "x" * 100_000
    assert max(map(len, kept.texts)) <= 65_536
    assert kept.raw == Path(log.base + ".log").read_bytes()


@pytest.mark.parametrize("records", [1, 3])
def test_repair_of_an_index_that_ends_in_zeros(open_log, records):
    """Some file systems give a file its new length before its new bytes: after a power
    cut its end is zeros."""
    for cap in (tr.MIB, tr.KIB):
        log = open_log(cap)
        for _ in range(20):
            sample_log(log)
        before = read_log(log.base)
        index = max(
            (p for p in files_of(log.base) if p.endswith(".idx")),
            key=lambda path: (".more" in path, int("0" + Path(path).stem[-3:])),
        )
        content = Path(index).read_bytes()
        blank = min(records * tr._RECORD.size, len(content) - tr._RECORD.size)
        Path(index).write_bytes(content[:-blank] + b"\0" * blank)
        tr.repair_log(log.base)
        kept = read_log(log.base)
        assert kept.raw == before.raw
        assert [(x.n, x.text) for x in kept.lines] == [
            (x.n, x.text) for x in before.lines
        ]


def rotated_log(open_log):
    """A closed log of a head and several segments."""
    log = open_log(tr.KIB)
    for n in range(300):
        log.write(n % 2, b"line %d\n" % n, AT_MS + n, 1.0)
    log.close(AT_MS)
    assert len(files_of(log.base)) >= 8
    return log


def test_repair_of_a_rotated_log_at_every_byte_of_its_newest_index(open_log):
    """Also without it, as when a power cut came before the folder was written."""
    log = rotated_log(open_log)
    before = read_log(log.base)
    newest = f"{log.base}.more/{max(tr._later_segments(log.base))}.idx"
    content = Path(newest).read_bytes()
    for size in [*range(len(content)), None]:
        os.unlink(newest)
        if size is not None:
            Path(newest).write_bytes(content[:size])
            glance(log.base)
        tr.repair_log(log.base)
        kept = read_log(log.base)
        assert kept.raw == before.raw, size
        told, wanted = ([(x.n, x.text) for x in k.lines] for k in (kept, before))
        assert told == wanted, size


def test_repair_of_any_damage_leaves_a_readable_log(open_log):
    """Files of a log lost or cut at random: neither repair nor reading may fail."""
    rng = random.Random(97)
    log = rotated_log(open_log)
    files = files_of(log.base)
    for _ in range(80):
        put_back(files)
        for path in rng.sample(sorted(files), rng.randint(1, 3)):
            if rng.random() < 0.3:
                os.unlink(path)
            else:
                os.truncate(path, rng.randrange(len(files[path])))
        glance(log.base)
        tr.repair_log(log.base)
        kept = read_log(log.base)
        numbers = [line.n for line in kept.lines]
        assert numbers == sorted(set(numbers))
        tr.remove_log(log.base)
        assert files_of(log.base) == {}


# -- reading while somebody writes


def test_log_readers_see_a_sound_log_while_it_rotates(open_log):
    """Lines keep their numbers and texts, and no reader fails, at no moment."""
    log = open_log(10_000)

    def write():
        for n in range(0, 20_000, 10):
            chunk = b"".join(b"line %d\n" % (n + i) for i in range(10))
            log.write(OUT, chunk, AT_MS, 1.0)
        log.close(AT_MS)

    def check(lines):
        numbers = [line.n for line in lines]
        assert numbers == sorted(set(numbers))
        for line in lines:
            assert line.stream == tr.SYSTEM or line.text == f"line {line.n}", line

    def read(seed):
        rng = random.Random(seed)
        while not log.closed:
            with tr.LogReader(log.base) as reader:
                assert reader.first_available <= reader.total_lines
                for _ in range(3):
                    check(reader.lines(rng.randrange(reader.total_lines + 1), 300))
                    check(look_for(log.base, "7", rng.randrange(100)))
                for block in reader.raw(0, reader.kept_bytes):
                    assert set(block) <= set(b"line 0123456789\n")
                assert reader.truncated in (True, False)

    threads = Threads()
    threads.start(write)
    for seed in range(3):
        threads.start(read, seed)
    threads.join()
    kept = read_log(log.base)
    check(kept.lines)
    assert kept.texts[-1] == "line 19999"


def test_log_reader_opened_before_a_rotation_still_reads(open_log):
    log = open_log(4 * tr.KIB)
    for n in range(200):
        log.write(OUT, b"line %d\n" % n, AT_MS, 1.0)
    with tr.LogReader(log.base) as early:
        for n in range(200, 3000):
            log.write(OUT, b"line %d\n" % n, AT_MS, 1.0)
        for start in range(0, 200, 7):
            for line in early.lines(start, 100):
                assert line.text == f"line {line.n}"
        assert b"line 0\nline 1\n" in b"".join(early.raw(0, early.kept_bytes))


def test_log_of_very_long_lines_is_read_in_small_portions(open_log):
    log = open_log()
    wide = b"x" * 60_000 + b"\n"
    for _ in range(100):
        log.write(OUT, wide, AT_MS, 1.0)
    log.write(OUT, b"end\n", AT_MS, 1.0)
    log.close(AT_MS)
    with tr.LogReader(log.base) as reader:
        page = reader.lines(7, tr.LOG_PAGE_MAX_LINES)
        assert [line.n for line in page] == list(range(7, 7 + len(page)))
        assert 0 <= len(page) * 60_000 - tr.LOG_PAGE_MAX_CHARS < 60_000
        numbers, n = [], 0
        while n < 101:
            lines, n = reader.next_lines(n)
            assert (len(lines) - 1) * 60_000 < tr.STREAM_CHARS_AT_ONCE
            numbers += [line.n for line in lines]
        assert numbers == list(range(101))
        last = reader.last_lines(tr.OUTPUT_MAX_LINES)
        assert [line.n for line in last] == list(range(101 - len(last), 101))
        assert last[-1].text == "end"
        assert 0 < tr.OUTPUT_MAX_CHARS - (len(last) - 1) * 60_000 < 60_003
    run_id = log.base.rpartition("/")[2]
    hits: list[int] = []
    place: tuple[str, int] = (run_id, 0)
    while place[0]:
        found = tr.find_in_logs([(run_id, log.base)], ("xx", True), place, 10**9)
        assert (len(found.hits) - 1) * 60_000 < tr.LOG_PAGE_MAX_CHARS
        hits += [hit.line.n for hit in found.hits]
        place = (found.next_run_id, found.next_line)
    assert hits == list(range(100))


@NEEDS_PROC
def test_log_reader_that_runs_out_of_files_leaves_none_open(open_log, monkeypatch):
    log = open_log(4 * tr.KIB)
    for n in range(2000):
        log.write(OUT, b"line %d\n" % n, AT_MS, 1.0)
    before, real_open = open_files(), os.open

    def check_with(allowed):
        opened = itertools.count()

        def open_few(*arguments, **options):
            if next(opened) >= allowed:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
            return real_open(*arguments, **options)

        with monkeypatch.context() as patch:
            patch.setattr(os, "open", open_few)
            with pytest.raises(OSError, match="Too many open files"):
                tr.LogReader(log.base)
        assert open_files() == before

    for allowed in range(4):
        check_with(allowed)


@NEEDS_PROC
def test_log_leaves_no_files_open(open_log):
    before = open_files()
    log = open_log(tr.KIB)
    for n in range(300):
        log.write(OUT, b"line %d\n" % n, AT_MS, 1.0)
        read_log(log.base)
    log.close(AT_MS)
    tr.repair_log(log.base)
    look_for(log.base, "line")
    tr.remove_log(log.base)
    read_log(log.base)
    assert open_files() == before


def test_follower_is_woken_by_growth_and_by_the_end(open_log):
    log = open_log()
    seen: list[int] = []

    def follow():
        end = 0
        while not log.closed or not seen:
            end = log.wait_growth(end, DEADLINE_S)
            seen.append(end)

    started_s = time.monotonic()
    threads = Threads()
    threads.start(follow)
    log.write(OUT, b"one\n", AT_MS, 1.0)
    within(DEADLINE_S, lambda: 4 in seen, "growth")
    log.write(OUT, b"two\n", AT_MS, 1.0)
    within(DEADLINE_S, lambda: 8 in seen, "more growth")
    log.close(AT_MS)
    threads.join()
    assert seen[-1] == 8
    assert time.monotonic() - started_s < DEADLINE_S


def test_follower_does_not_wait_for_what_is_there(open_log):
    log = open_log()
    log.write(OUT, b"one\n", AT_MS, 1.0)
    assert log.wait_growth(0, 3600) == 4
    assert log.wait_growth(-1, 3600) == 4
    assert log.wait_growth(4, 0.0) == 4
    log.write(OUT, b"held", AT_MS, 1.0)
    assert log.wait_growth(4, 0.0) == 4
    log.close(AT_MS)
    assert log.wait_growth(8, 3600) == 8


def test_follower_misses_nothing_of_a_fast_writer(open_log):
    log = open_log()
    found: list[int] = []

    def follow():
        n, end = 0, -1
        while True:
            last_look = log.closed
            with tr.LogReader(log.base) as reader:
                lines = reader.lines(n, 500)
            found.extend(int(line.text) for line in lines)
            n += len(lines)
            if last_look and not lines:
                return
            if not lines:
                end = log.wait_growth(end, DEADLINE_S)

    threads = Threads()
    threads.start(follow)
    for n in range(4000):
        log.write(OUT, b"%d\n" % n, AT_MS, 1.0)
    log.close(AT_MS)
    threads.join()
    assert found == [*range(4000)]


def read_on(base, offset=0):
    """The blocks of a log from an offset on, and where they end."""
    blocks = []
    while True:
        with tr.LogReader(base) as log:
            block, offset = log.next_block(offset)
        if not block:
            return blocks, offset
        blocks.append(block)


def test_log_is_read_on_in_blocks_of_whole_lines(open_log, monkeypatch):
    monkeypatch.setattr(tr, "LOG_BLOCK_BYTES", 100)
    log = open_log()
    assert read_on(log.base) == ([], 0)
    written = b"".join(b"line %d\n" % n for n in range(200)) + b"x" * 250 + b"\nend"
    log.write(OUT, written[:1000], AT_MS, 1.0)
    log.write(OUT, written[1000:], AT_MS, 1.0)
    log.release(AT_MS, 1.0 + tr.HOLD_S)
    blocks, end = read_on(log.base)
    assert (b"".join(blocks), end) == (written, len(written))
    assert all(len(block) <= 100 for block in blocks)
    short = [block for block in blocks if b"x" not in block and block != b"end"]
    assert len(short) > 10 and all(block.endswith(b"\n") for block in short)
    log.write(ERR, b" of it\n", AT_MS, 1.0)
    assert read_on(log.base, end)[0] == [b" of it\n"]


def test_log_that_lost_what_comes_next_is_read_on_at_the_oldest_kept(
    open_log, monkeypatch
):
    monkeypatch.setattr(tr, "LOG_HEAD_BYTES", 200)
    log = open_log(4 * tr.KIB)

    def write(numbers):
        for n in numbers:
            log.write(OUT, b"line %04d\n" % n, AT_MS, 1.0)

    def numbers(block):
        return [int(line[5:]) for line in block.splitlines()]

    write(range(300))
    with tr.LogReader(log.base) as early:
        assert numbers(early.next_block(500)[0])[0] == 50
        write(range(300, 3000))
        # Of that segment, others find only the first 200 bytes now.
        assert numbers(early.next_block(500)[0])[0] == 50
    blocks, end = read_on(log.base, 500)
    rest = numbers(b"".join(blocks))
    assert end == 30_000 and rest == [*range(rest[0], 3000)]
    assert 2500 < rest[0] < 2800


@pytest.mark.parametrize("on_full", [tr.DROP_OLD, tr.DROP_NEW])
def test_log_that_ends_in_a_gap_is_read_on_to_its_end(open_log, on_full):
    log = open_log(100, on_full)
    log.write(OUT, b"kept\n", AT_MS, 1.0)
    log.disk = tr.DiskWatch("/", 10**18, tr.Clock())
    log.write(OUT, b"lost\n" * 100, AT_MS, 1.0)
    log.close(AT_MS)
    assert read_on(log.base) == ([b"kept\n"], 5)


def parts_of(reader, offset):
    """The parts of a log from an offset on, as a client comes back for them."""
    while True:
        parts, offset = reader.next_parts(offset)
        if not parts:
            return
        yield from parts


@pytest.mark.parametrize("seed", range(8))
def test_log_parts_are_the_bytes_of_each_stream_from_any_offset_on(open_log, seed):
    """Torn lines, no last newline, bytes that are no text; a reader that comes back
    with the offset it was told loses nothing and gets nothing twice."""
    rng = random.Random(seed)
    log = open_log(40 * tr.MIB)
    wrote = {OUT: b"", ERR: b""}
    seen = {OUT: b"", ERR: b""}
    at = 0
    for _ in range(60):
        stream = rng.choice((OUT, ERR))
        size = rng.choice((1, 7, 300, 70_000, 200_000))
        chunk = bytes(rng.choices(b"ab\n\r\x1b\xff\xc3", k=size))
        wrote[stream] += chunk
        log.write(stream, chunk, AT_MS, 1.0)
        if rng.random() < 0.3:
            log.release(AT_MS, 9.0)
        if rng.random() < 0.3:
            with tr.LogReader(log.base) as reader:
                for part in itertools.islice(parts_of(reader, at), rng.randrange(4)):
                    assert part.end == at + len(part.content)
                    assert 0 < len(part.content) <= tr.LOG_PART_BYTES
                    at = part.end
                    seen[part.stream] += part.content
    log.close(AT_MS)
    with tr.LogReader(log.base) as reader:
        for part in parts_of(reader, at):
            seen[part.stream] += part.content
        assert seen == wrote
        whole = b"".join(reader.raw(0, reader.kept_bytes))
        for start in rng.sample(range(len(whole) + 1), 20):
            assert b"".join(p.content for p in parts_of(reader, start)) == whole[start:]


def test_log_parts_say_what_was_left_out(open_log):
    log = open_log(4 * tr.KIB)
    for line in counted(1000):
        write_all(log, line)
    kept = kept_of(log, b"")
    [(_, lines, left_out)] = kept.gaps
    said = f"{lines} lines ({left_out} bytes) were left out here\n"
    with tr.LogReader(log.base) as reader:
        head, gap, *rest = parts_of(reader, 0)
        assert gap.content == said.encode()
        assert gap.stream == tr.SYSTEM and gap.end == head.end + left_out
        assert head.content + b"".join(p.content for p in rest) == kept.raw
        # Some of it was read before it was dropped.
        (gap, *again) = parts_of(reader, gap.end - 5)
        assert gap.content == b"5 bytes were left out here\n"
        assert again == rest


def test_log_parts_of_a_log_cut_to_its_head_meanwhile_are_those_that_were_open(
    open_log,
):
    log = open_log(tr.MIB)
    line = b"x" * 999 + b"\n"
    log.write(OUT, 300 * line, AT_MS, 1.0)
    with tr.LogReader(log.base) as reader:
        for _ in range(2000):
            log.write(OUT, line, AT_MS, 1.0)
        assert b"".join(part.content for part in parts_of(reader, 0)) == 300 * line
    with tr.LogReader(log.base) as reader:
        head, gap, *_ = parts_of(reader, 65_000 - 1)
        assert head == (65_000, OUT, b"\n") and gap.stream == tr.SYSTEM


# -- search


class Archive(NamedTuple):
    """Logs of several runs, (run id, base path), and their lines as plain lists, newest
    run first."""

    runs: list[tuple[str, str]]
    lines: list[list[tr.LogLine]]


WORDS = [
    "alpha", "Beta", "BETA", "gam", "ma", " ", "é", "É", "Ж", "ж", "[x]", "%", "\t",
]  # fmt: skip


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Twelve logs: empty ones, rotated ones, ones with long lines."""
    rng = random.Random(98)
    folder = str(tmp_path_factory.mktemp("archive"))
    runs, lines = [], []
    for number in range(12):
        run_id = tr.ulid_text(1000 - number)
        runs.append((run_id, tr.log_base(folder, f"task{number % 2}", run_id)))
        limit = (tr.MIB, 6000)[number % 2]
        log = tr.LogWriter(runs[-1][1], limit, tr.DROP_OLD, ())
        for _ in range(rng.choice([0, 1, 60, 300])):
            text = "".join(rng.choices(WORDS, k=rng.randrange(9)))
            log.write(rng.choice([OUT, ERR]), f"{text}\n".encode(), AT_MS, 1.0)
        log.write(OUT, b"unfinished beta", AT_MS, 1.0)
        log.close(AT_MS)
        lines.append(read_log(log.base).lines)
    return Archive(runs, lines)


def plain_search(archive, text, *, match_case):
    """Every hit, newest run first, found by looking at each line."""
    hits = []
    for (run_id, _), lines in zip(archive.runs, archive.lines):
        for line in lines:
            own, wanted = line.text, text
            if not match_case:
                own, wanted = own.casefold(), wanted.casefold()
            if line.stream != tr.SYSTEM and wanted in own:
                hits.append(tr.LogHit(run_id, line))
    return hits


def search_all(archive, text, limit, *, match_case):
    """Every hit and the number of searches, going on until there is no more."""
    hits: list[tr.LogHit] = []
    runs, start = archive.runs, ("", 0)
    for searches in itertools.count(1):
        found = tr.find_in_logs(iter(runs), (text, match_case), start, limit)
        assert len(found.hits) <= limit
        hits += found.hits
        if not found.next_run_id:
            return hits, searches
        ids = [run_id for run_id, _ in runs]
        runs = runs[ids.index(found.next_run_id) :]
        start = (found.next_run_id, found.next_line)
        assert searches < 5000, "the search does not come to an end"
    raise AssertionError


QUERIES = [
    "a", "beta", "BETA", "gamma", "[x]", "%", "\t", "é", "É", "ж", "éЖ", "x] ", "zz",
]  # fmt: skip


@pytest.mark.parametrize("match_case", [False, True])
@pytest.mark.parametrize("block", [64, 1_048_576])
def test_search_finds_what_a_plain_search_finds(
    archive, monkeypatch, match_case, block
):
    """At once and in pages of any size: no hit is lost, none comes twice."""
    monkeypatch.setattr(tr, "LOG_BLOCK_BYTES", block)
    rng = random.Random(99)
    sizes = []
    for text in QUERIES:
        wanted = plain_search(archive, text, match_case=match_case)
        for limit in (100_000, max(1, len(wanted)), rng.randint(20, 200)):
            hits, _ = search_all(archive, text, limit, match_case=match_case)
            assert hits == wanted, (text, limit)
        sizes.append(len(wanted))
    assert sizes[0] > 300
    assert sizes[-1] == 0
    rare = plain_search(archive, "éЖ", match_case=match_case)
    assert search_all(archive, "éЖ", 1, match_case=match_case)[0] == rare


def test_search_case_matters_only_when_asked(archive):
    for text in ("Beta", "É", "Ж"):
        with_case, _ = search_all(archive, text, 10_000, match_case=True)
        without, _ = search_all(archive, text, 10_000, match_case=False)
        swapped, _ = search_all(archive, text.swapcase(), 10_000, match_case=False)
        assert 0 < len(with_case) < len(without)
        assert swapped == without


def test_search_exhausted_exactly_at_its_limit_has_no_cursor(archive):
    wanted = plain_search(archive, "beta", match_case=False)
    asked = (archive.runs, ("beta", False), ("", 0))
    found = tr.find_in_logs(*asked, len(wanted))
    assert (found.hits, found.next_run_id, found.scanned_runs) == (wanted, "", 12)
    found = tr.find_in_logs(*asked, len(wanted) - 1)
    assert (found.hits, found.next_run_id) == (wanted[:-1], wanted[-1].run_id)
    assert found.next_line == wanted[-1].line.n


@pytest.mark.parametrize("budget", [1, 1000, 5000])
def test_search_stops_at_its_budget_and_goes_on(archive, monkeypatch, budget):
    monkeypatch.setattr(tr, "SEARCH_BUDGET_BYTES", budget)
    hits, searches = search_all(archive, "a", 10_000, match_case=False)
    assert hits == plain_search(archive, "a", match_case=False)
    assert searches > 1
    monkeypatch.setattr(tr, "SEARCH_BUDGET_BYTES", 10**9)
    monkeypatch.setattr(tr, "SEARCH_BUDGET_RUNS", 5)
    hits, searches = search_all(archive, "a", 10_000, match_case=False)
    assert hits == plain_search(archive, "a", match_case=False)
    assert searches == 3


def test_search_reads_no_more_than_its_budget_of_one_long_log(open_log, monkeypatch):
    """One log may be larger than what a single answer should cost."""
    log = open_log()
    for n in range(3000):
        log.write(OUT, b"line %d of a long log\n" % n, AT_MS, 1.0)
    log.close(AT_MS)
    runs = [(log.base.rpartition("/")[2], log.base)]
    place = Archive(runs, [read_log(log.base).lines])
    monkeypatch.setattr(tr, "LOG_BLOCK_BYTES", 1000)
    monkeypatch.setattr(tr, "SEARCH_BUDGET_BYTES", 10_000)
    hits, searches = search_all(place, "99", 10_000, match_case=True)
    assert hits == plain_search(place, "99", match_case=True)
    assert searches > 3


@pytest.mark.parametrize("text, line", [
    ("strasse", "Straße"), ("straße", "STRASSE"), ("kelvin", "\u212aelvin"),
    ("office", "o\ufb03ce"), ("ΣΊΣΥΦΟΣ", "σίσυφος"),
])  # fmt: skip
def test_search_hit_does_not_depend_on_its_neighbours(open_log, text, line):
    """Whether a line is found must not hang on what stands beside it."""
    found = []
    for neighbour in ("nothing alike", text):
        log = open_log()
        log.write(OUT, f"{line}\n{neighbour}\n".encode(), AT_MS, 1.0)
        log.close(AT_MS)
        found.append([line.n for line in look_for(log.base, text) if line.n == 0])
    assert found[0] == found[1]
    if not text.isascii():
        assert found[0] == [0]


def test_search_of_runs_without_logs_finds_nothing(tmp_path):
    runs = [(tr.ulid_text(n), str(tmp_path / f"gone{n}")) for n in range(3)]
    found = tr.find_in_logs(runs, ("x", False), ("", 0), 10)
    assert found == tr.LogSearch([], 3)


# -- removing


def test_removed_log_leaves_nothing(open_log):
    for log in (open_log(), rotated_log(open_log)):
        log.write(OUT, b"words\n", AT_MS, 1.0)
        log.close(AT_MS)
        other = log.base[:-1] + "Z"
        Path(other + ".log").write_text("another run")
        tr.remove_log(log.base)
        assert os.listdir(Path(log.base).parent) == [Path(other).name + ".log"]
        tr.remove_log(log.base)
        assert read_log(log.base).total_lines == 0


@pytest.mark.parametrize("ending", [".idx", ".log"])
def test_removed_log_leaves_nothing_after_a_crash_amid_a_rotation(open_log, ending):
    """The daemon died when one file of a segment was gone and the other was not."""
    log = rotated_log(open_log)
    number = min(tr._later_segments(log.base))
    os.unlink(f"{log.base}.more/{number}{ending}")
    glance(log.base)
    tr.repair_log(log.base)
    read_log(log.base)
    tr.remove_log(log.base)
    assert os.listdir(Path(log.base).parent) == []


# ---- 10. Processes: spawn, read, signal, reap -------------------------------

TOKEN = "token-of-the-daemon"
SHOW_ARGUMENTS = "#!/bin/sh\nprintf '%s\\n' \"$@\"\n"

# It ends once its child has told who it is.
LOSE_CHILD = (
    "import os, sys\n"
    "told, tell = os.pipe()\n"
    "if os.fork() == 0:\n"
    "    os.setsid()\n"
    "    if sys.argv[2:] == ['silent']:\n"
    "        null = os.open(os.devnull, os.O_RDWR)\n"
    "        os.dup2(null, 1)\n"
    "        os.dup2(null, 2)\n"
    "    with open(sys.argv[1], 'w') as fifo:\n"
    "        fifo.write(f'{os.getpid()}\\n')\n"
    "    os.close(tell)\n"
    "    import time\n"
    "    time.sleep(99)\n"
    "os.close(tell)\n"
    "os.read(told, 1)\n"
    "os.wait3(os.WNOHANG)\n"
)

GIVE_PIPE = (
    "import socket\n"
    "client = socket.socket(socket.AF_UNIX)\n"
    "client.connect('place')\n"
    "socket.send_fds(client, [b'x'], [1])\n"
    "client.recv(9)\n"
)

PROGRAM_TASKS = {
    "give-pipe": {"run": [sys.executable, "-c", GIVE_PIPE]},
    "exit": {
        "params": [{"arg": "code", "required": True}],
        "run": 'exit "$1"',
        "exit_codes": [0, 3, 137],
    },
    "die": {
        "params": [{"arg": "signal", "required": True}],
        "run": 'ulimit -c 0; kill -"$1" $$',
        "exit_codes": [0, 137],
    },
    "hold": {
        "params": [{"arg": "fifo", "required": True}],
        "run": 'read -r code <"$1"; exit "$code"',
    },
    "environment": {
        "params": [{"env": "GIVEN", "default": "by default"}],
        "env": {"OWN": "of the task"},
        "run": ["env", "-0"],
    },
    "buffered": {"env": {"PYTHONUNBUFFERED": ""}, "run": ["env", "-0"]},
    "clean": {"env_base": "clean", "run": ["env", "-0"]},
    "list": {
        "params": [{"arg": "text", "default": "$HOME * 'x' \"y\" `z`"}],
        "run": ["./show-arguments", "first", "$HOME;"],
    },
    "text": {
        "params": [{"arg": "one"}, {"option": "--two"}, {"flag": "--three"}],
        "run": 'printf "%s\\n" "$0" "$@" # no comment swallows arguments',
    },
    "other-shell": {
        "params": [{"arg": "one", "default": "1"}],
        "shell": "./show-arguments",
        "run": "the script: $1",
    },
    "stops-at-fault": {"run": "echo before\nfalse\necho after"},
    "no-shell": {
        "params": [{"arg": "one", "default": "1"}],
        "shell": sys.executable,
        "run": "import sys; print(sys.argv); sys.exit(3)",
    },
    "listed": {"shell": [sys.executable, "-Ic"], "run": "import sys; sys.exit(3)"},
    "listed-shell": {
        "params": [{"arg": "one", "default": "1"}],
        "shell": ["/bin/sh", "-c"],
        "run": 'false; echo "$0" "$1"',
    },
    "pipe": {"shell": "bash", "run": 'false | cat; echo "$0"'},
    "merged": {
        "stderr": "merge",
        "run": "i=0; while [ $i -lt 200 ]; do echo $i; echo $((i + 1)) >&2;"
        " i=$((i + 2)); done; exit 3",
    },
    "merged-list": {"stderr": "merge", "run": ["ls", "-d", "/", "/no/such/file"]},
    "stdin": {"run": "readlink /proc/self/fd/0; cat; echo end of input"},
    "stat": {"run": ["cat", "/proc/self/stat"]},
    "files": {"run": ["ls", "/proc/self/fd"]},
    "ignored": {"run": ["grep", "SigIgn", "/proc/self/status"]},
    "umask-027": {"umask": "027", "run": "umask"},
    "umask-own": {"run": "umask"},
    "folder": {"working_dir": "sub", "run": "pwd -P; cat note"},
    "folder-told": {"working_dir": "sub/.", "run": ["printenv", "PWD"]},
    "secrets": {
        "secrets": {"LONG": "hunter2 and more", "SHORT": "abc"},
        "params": [{"env": "GIVEN", "secret": True}],
        "run": 'echo "$LONG" "$SHORT" "$GIVEN"; printf \'%s\' "$LONG" >kept',
    },
    "lose": {
        "params": [{"arg": "fifo"}, {"arg": "how"}],
        "run": [sys.executable, "-c", LOSE_CHILD],
    },
    "usage": {"run": "i=0; while [ $i -lt 30000 ]; do i=$((i+1)); done"},
}


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """A daemon with a token, PROGRAM_TASKS, and files that they use."""
    folder = tmp_path_factory.mktemp("programs")
    (folder / "sub").mkdir()
    (folder / "sub" / "note").write_text("a note\n")
    (folder / "show-arguments").write_text(SHOW_ARGUMENTS)
    (folder / "show-arguments").chmod(0o755)
    daemon = Served(folder, PROGRAM_TASKS, TASKRUNNERD_TOKEN=TOKEN)
    daemon.variables.update(TASKRUNNERD_LOG_LEVEL="info", OF_THE_DAEMON="seen")
    daemon.token = TOKEN
    daemon.start()
    yield daemon
    daemon.close()


def is_known(daemon):
    """Whether the daemon has noted of each program that it runs, and since when."""
    with daemon._mutex:
        return all(live.child for live in daemon._running())


def is_parked(daemon):
    """Whether the thread of each program has left it to the next daemon."""
    with daemon._mutex:
        return all(live.parked for live in daemon._running())


def await_known(daemon, run):
    """Wait until a daemon has noted which program is that of a run."""
    known = f"run started task={run['task_name']} run={run['id']} "
    within(DEADLINE_S, lambda: known in daemon.log.read_text(), known)


def reach(fifo, daemon=None):
    """A FIFO opened for writing, once a program reads it; a daemon in this process may
    know of that program only later, and its time limit counts from then."""

    def look():
        with contextlib.suppress(OSError):
            return os.open(fifo, os.O_WRONLY | os.O_NONBLOCK)
        return None

    fd = int(within(DEADLINE_S, look, f"a reader of {fifo}"))
    if daemon:
        within(DEADLINE_S, lambda: is_known(daemon), "the program is known")
    return fd


def let_go(fifo, text="0\n"):
    """Give a program the line it waits for."""
    fd = reach(fifo)
    os.write(fd, text.encode())
    os.close(fd)


@contextlib.contextmanager
def reading(fifo):
    """Open a FIFO that programs write to; call the result to await the next line."""
    fd = os.open(fifo, os.O_RDWR | os.O_NONBLOCK)
    held = bytearray()

    def look():
        with contextlib.suppress(BlockingIOError):
            held.extend(os.read(fd, 4096))
        line, newline, rest = bytes(held).partition(b"\n")
        if not newline:
            return None
        held[:] = rest
        return line.decode() + "\n"

    try:
        yield lambda: within(DEADLINE_S, look, f"a line in {fifo}").strip()
    finally:
        os.close(fd)


def environment_of(daemon, task):
    """What a task that prints its environment saw, with the run under RUN."""
    run = daemon.run(task)
    pairs = daemon.raw(run).decode().rstrip("\0").split("\0")
    return {**dict(pair.split("=", 1) for pair in pairs), "RUN": run["id"]}


def test_exit_codes_from_0_to_255_are_those_of_the_program(programs):
    connection = programs.connect()
    for code in range(256):
        body = {"params": {"code": str(code)}}
        path = "/api/tasks/exit/run?wait=true"
        run = programs.request("POST", path, body, None, connection).json
        reason = "success" if code in (0, 3, 137) else "failed"
        assert (run["exit_code"], run["end_reason"]) == (code, reason)
        assert "signal" not in run
        assert "error" not in run
    connection.close()


@pytest.mark.parametrize(
    "name", ["HUP", "INT", "QUIT", "KILL", "SEGV", "PIPE", "TERM", "USR1", "35"]
)
def test_signal_is_named_and_the_code_is_128_more(programs, name):
    run = programs.run("die", {"signal": name})
    number = 35 if name == "35" else getattr(signal, f"SIG{name}")
    told = "signal 35" if name == "35" else f"SIG{name}"
    assert (run["exit_code"], run["signal"]) == (128 + number, told)
    # Not even 137, which is among the accepted codes: it did not exit by itself.
    assert run["end_reason"] == "failed"


def test_exit_code_is_minus_one_until_the_end(programs, fifo):
    run = programs.trigger("hold", {"fifo": str(fifo)})
    queued = programs.trigger("hold", {"fifo": str(fifo)})
    assert run["exit_code"] == queued["exit_code"] == -1
    assert (run["status"], queued["status"]) == ("running", "pending")
    fd = reach(fifo)
    now = programs.run_now(run)
    assert now["status"] == "running"
    assert now["exit_code"] == -1
    assert {"end_at", "end_reason", "duration", "output_bytes"}.isdisjoint(now)
    os.write(fd, b"9\n")
    os.close(fd)
    assert programs.ended(run)["exit_code"] == 9
    let_go(fifo)
    assert programs.ended(queued)["exit_code"] == 0


def test_used_time_and_memory_are_counted(programs):
    run = programs.run("usage")
    assert 0 < run["cpu_seconds"] < DEADLINE_S
    assert run.get("max_rss_bytes", tr.MIB) > 100 * 1024
    assert 0 < run["duration"] < DEADLINE_S * 1e9


@pytest.mark.parametrize(
    ("more_bytes", "is_known"),
    [(-tr.MIB, False), (0, False), (tr.MIB // 2, False), (64 * tr.MIB, True)],
)
def test_memory_is_told_where_it_is_above_that_of_the_daemon(
    tmp_path, more_bytes, is_known
):
    """What Linux counts begins with what the daemon had at the fork."""
    own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    most = own * (1 if sys.platform == "darwin" else tr.KIB) + more_bytes
    child = types.SimpleNamespace(pid=1, reap=lambda: tr.Usage(0, 0.1, most))
    processes = tr.Processes(str(tmp_path))
    for _ in range(2):
        usage = processes.reap(child)
        assert usage == tr.Usage(0, 0.1, most if is_known else None)
    processes.close()


def elf(machine, loader):
    """The head of a 64-bit program for a machine, which wants a loader."""
    name = loader.encode() + b"\0"
    order = "<" if sys.byteorder == "little" else ">"
    mark = b"\x7fELF\2" + bytes([1 if order == "<" else 2, 1]) + bytes(9)
    sizes = (64, 56, 1, 0, 0, 0)
    header = struct.pack(f"{order}HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, *sizes)
    wants = struct.pack(f"{order}IIQQQQQQ", 3, 4, 120, 0, 0, len(name), len(name), 1)
    return mark + header + wants + name


OWN_HEAD = Path(sys.executable).read_bytes()[:20]
OWN_MACHINE = int.from_bytes(OWN_HEAD[18:20], sys.byteorder)
OTHER_MACHINE = 183 if OWN_MACHINE != 183 else 62
START_FILES = {
    "plain": (b"#!/bin/sh\n", 0o644),
    "script": (b"#!/no/interpreter\n", 0o755),
    "formless": (b"\x01\x02", 0o755),
    "dos": (b"#!/bin/sh\r\necho\r\n", 0o755),
    "marked": (b"\xef\xbb\xbf#!/bin/sh\n", 0o755),
    "empty": (b"", 0o755),
    "foreign": (elf(OTHER_MACHINE, "/no/loader"), 0o755),
    "loaderless": (elf(OWN_MACHINE, "/no/loader"), 0o755),
    "damaged": (elf(OWN_MACHINE, "/no/loader")[:40], 0o755),
    "cut": (b"\x7fELF", 0o755),
}
NO_FILE, DENIED = "No such file or directory", "Permission denied"
START_FAULTS = {
    # With a PATH of its own: a folder there that may not be read gives another reason.
    "no-program": (
        {"run": ["no-such-program"], "env_base": "clean"},
        f'cannot start "no-such-program": {NO_FILE}: install it or write its path',
    ),
    "no-file": ({"run": ["./no"]}, f'"./no": {NO_FILE}: correct the path; it begins'),
    "no-shell": ({"run": "true", "shell": "/no/sh"}, f'start "/no/sh": {NO_FILE}'),
    "shell-words": (
        {"run": "true", "shell": "sh -e", "env_base": "clean"},
        "that is one name; write a list",
    ),
    "blanks": ({"run": ["ls -l"], "env_base": "clean"}, "write a list of the program"),
    "home": ({"run": ["~/x"]}, "without a shell ~ and $ stand for themselves"),
    "dangling": ({"run": ["./dangling"]}, "it is a link to nothing"),
    "no-folder": (
        {"run": "true", "working_dir": "no-folder"},
        f'no-folder": {NO_FILE}: make it or correct working_dir',
    ),
    "file-as-folder": (
        {"run": "true", "working_dir": "plain"},
        'plain": Not a directory: it or what is above it is a file; name a folder',
    ),
    "file-above": (
        {"run": ["./plain/x"]},
        '"./plain/x": Not a directory: what is above it is a file; correct the path',
    ),
    "circle": ({"run": ["./circle"]}, "its links lead in a circle; correct them"),
    "folder-circle": (
        {"run": "true", "working_dir": "circle"},
        "its links lead in a circle; correct them",
    ),
    # With a path: on the way along PATH another folder may be forbidden.
    "long-name": (
        {"run": ["./" + "x" * 300]},
        "File name too long: write a shorter name",
    ),
    "not-executable": (
        {"run": ["./plain"]},
        f'"./plain": {DENIED}: it is not executable; use chmod +x',
    ),
    "not-in-path": ({"run": ["plain"], "env": {"PATH": "."}}, "use chmod +x"),
    "a-folder": ({"run": ["./sub"]}, f"{DENIED}: it is a directory; name a program"),
    "no-interpreter": (
        {"run": ["./script"]},
        f'"./script": {NO_FILE}: its interpreter /no/interpreter is not there',
    ),
    "dos": ({"run": ["./dos"]}, "its lines end with CR LF; save it with LF"),
    "no-format": ({"run": ["./formless"]}, "Exec format error: write #!/bin/sh, or"),
    "marked": ({"run": ["./marked"]}, "a byte order mark stands in front of its #!"),
    "empty": ({"run": ["./empty"]}, "it is damaged or empty; install it again"),
    "too-long": (
        {"run": ["true", "x" * 200_000], "env_base": "clean"},
        "Argument list too long: pass long text in a file",
    ),
    "foreign": (
        {"run": ["./foreign"]},
        f"for another machine ({tr._ELF_MACHINES[OTHER_MACHINE]}); this one is ",
    ),
    "loaderless": ({"run": ["./loaderless"]}, "its loader is not there; take what"),
    "damaged": ({"run": ["./damaged"]}, "it is damaged or empty; install it again"),
    "cut": ({"run": ["./cut"]}, "it is damaged or empty; install it again"),
}
if OWN_HEAD[:5] != b"\x7fELF\2":
    for binary in ("foreign", "loaderless", "damaged"):
        del START_FAULTS[binary]


@pytest.fixture(scope="module")
def unstartable(tmp_path_factory):
    """A daemon whose tasks cannot be started."""
    folder = tmp_path_factory.mktemp("unstartable")
    (folder / "sub").mkdir()
    (folder / "dangling").symlink_to("nowhere")
    (folder / "circle").symlink_to("circle")
    for name, (content, mode) in START_FILES.items():
        (folder / name).write_bytes(content)
        (folder / name).chmod(mode)
    tasks = {name: settings for name, (settings, _) in START_FAULTS.items()}
    daemon = Served(folder, tasks).start()
    yield daemon
    daemon.close()


@pytest.mark.parametrize("name", START_FAULTS)
def test_program_that_cannot_start_says_why(unstartable, name):
    run = unstartable.run(name)
    assert (run["end_reason"], run["exit_code"]) == ("start_failed", -1)
    assert START_FAULTS[name][1] in run["error"]
    assert {"signal", "cpu_seconds", "duration"}.isdisjoint(run)
    assert run["output_bytes"] == 0
    # The slot is free again.
    assert unstartable.run(name)["end_reason"] == "start_failed"


@pytest.mark.parametrize(
    "number, filename, words",
    [
        (errno.EACCES, "./x", "user nobody may not execute it or its interpreter"),
        (errno.EACCES, "/", "user nobody may not enter it or a folder above"),
        (errno.EPERM, "/", "cannot become user nobody: Operation not permitted"),
        (errno.EINVAL, None, "cannot become user nobody: Invalid argument"),
        (errno.EAGAIN, None, "there are too many processes; see ulimit -u and"),
        (errno.EMFILE, None, "raise ulimit -n or LimitNOFILE"),
        (errno.EIO, "./x", "Input/output error"),
    ],
)
def test_start_that_fails_for_the_machine_says_why(number, filename, words):
    account = tr.Account("nobody", "/", "/bin/sh", 65534, 65534, ())
    command = tr.Command(["./x"], {}, "/", -1, account)
    error = OSError(number, os.strerror(number), filename)
    assert words in tr._start_error_text(command, error)


def test_program_on_a_file_system_without_programs_says_so(tmp_path, monkeypatch):
    (tmp_path / "x").write_text("#!/bin/sh\n")
    (tmp_path / "x").chmod(0o755)
    command = tr.Command(["./x"], {}, str(tmp_path), -1, None)
    error = OSError(errno.EACCES, "Permission denied", "./x")
    assert "the daemon's user may not" in tr._start_error_text(command, error)
    flags = types.SimpleNamespace(f_flag=tr._NOEXEC)
    monkeypatch.setattr(tr.os, "statvfs", lambda _: flags)
    if tr._NOEXEC:
        assert "is mounted noexec" in tr._start_error_text(command, error)


def test_program_sees_its_run(programs):
    seen = environment_of(programs, "environment")
    own = {k: v for k, v in seen.items() if k.startswith("TASKRUNNERD_")}
    assert own == {
        "TASKRUNNERD_RUN_ID": seen["RUN"],
        "TASKRUNNERD_TASK": "environment",
        "TASKRUNNERD_ATTEMPT": "0",
        "TASKRUNNERD_TRIGGER": "api",
        "TASKRUNNERD_REQUEST_ID": own["TASKRUNNERD_REQUEST_ID"],
        "TASKRUNNERD_RESULT": own["TASKRUNNERD_RESULT"],
    }
    assert "TRACEPARENT" not in seen
    assert (seen["GIVEN"], seen["OWN"]) == ("by default", "of the task")
    assert seen["OF_THE_DAEMON"] == "seen"


def test_program_never_sees_the_token_and_little_in_a_clean_environment(programs):
    seen = {
        n: environment_of(programs, n) for n in ("environment", "buffered", "clean")
    }
    assert all(TOKEN not in found.values() for found in seen.values())
    clean = seen["clean"]
    assert "OF_THE_DAEMON" not in clean and "PATH" in clean
    assert clean["TASKRUNNERD_RUN_ID"] == clean["RUN"]
    # Python is unbuffered unless the task says otherwise.
    assert clean["PYTHONUNBUFFERED"] == "1"
    assert seen["buffered"]["PYTHONUNBUFFERED"] == ""


NEEDS_BASH = pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")


@pytest.mark.parametrize("task, given, code, lines", [
    ("list", {}, 0, ["first", "$HOME;", "$HOME * 'x' \"y\" `z`"]),
    ("text", {"one": "a b; $(c)", "--two": "", "--three": "true"}, 0,
        ["text", "a b; $(c)", "--two", "", "--three"]),
    ("other-shell", {}, 0, ["-c", "the script: $1", "other-shell", "1"]),
    # perl -e -c only checks a program, which was a success.
    ("no-shell", {}, 3, ["['-c', 'no-shell', '1']"]),
    ("listed", {}, 3, []),
    ("listed-shell", {}, 0, ["listed-shell 1"]),
    pytest.param("pipe", {}, 1, [], marks=NEEDS_BASH),
    # A text ends at its first fault.
    ("stops-at-fault", {}, 1, ["before"]),
    pytest.param("stdin", {}, 0, ["/dev/null", "end of input"], marks=NEEDS_PROC),
    # No open files are inherited; the fourth is the folder that ls reads.
    pytest.param("files", {}, 0, ["0", "1", "2", "3"], marks=NEEDS_PROC),
])  # fmt: skip
def test_program_gets_its_arguments_shell_and_files(programs, task, given, code, lines):
    run = programs.run(task, given)
    assert run["exit_code"] == code
    assert programs.raw(run).decode() == "".join(line + "\n" for line in lines)


def test_merged_stderr_is_stdout_in_written_order(programs):
    """From two pipes, either line of a pair may be read first."""
    run = programs.run("merged")
    found = programs.lines(run)
    assert [line["text"] for line in found] == list(map(str, range(200)))
    assert {line["stream"] for line in found} == {"stdout"}
    assert re.fullmatch(r"exit 3 after .*; last line: 199", run["summary"])
    assert programs.get("/api/tasks/merged").json["stderr"] == "merge"
    streams = {line["stream"] for line in programs.lines(programs.run("merged-list"))}
    assert streams == {"stdout"}


@NEEDS_PROC
def test_program_leads_a_session_of_its_own(programs):
    fields = programs.raw(programs.run("stat")).decode().split()
    pid, group, session, terminal = fields[0], fields[4], fields[5], fields[6]
    assert pid == group == session
    assert terminal == "0"


@NEEDS_PROC
def test_program_dies_of_a_broken_pipe_as_usual(programs):
    mask = int(programs.raw(programs.run("ignored")).split()[1], 16)
    assert not mask & 1 << signal.SIGPIPE - 1


class Abroad(Served):
    """A daemon that starts a Python of its own, in a locale that is not UTF-8."""

    is_fresh = True

    def __init__(self, folder, tasks, encoding):
        variables = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
        if encoding != "ascii":
            variables.update(LC_ALL="made", LOCPATH=str(folder))
            made = ["localedef", "-i", "en_US", "-f", encoding, str(folder / "made")]
            if not shutil.which("localedef") or subprocess.run(made).returncode:
                pytest.skip("needs localedef and its sources")
        # One byte that is é in one of these encodings, and no text in UTF-8.
        super().__init__(folder, tasks, **variables, BYTE="\udce9")


@pytest.mark.parametrize("encoding", ["ascii", "ISO-8859-1"])
def test_text_reaches_programs_as_utf8_in_any_locale(tmp_path, encoding):
    folder = tmp_path.resolve() / "dé€"
    folder.mkdir()
    (folder / "é€.env").write_text("FILE=é€\n", encoding="utf-8")
    script = 'printf "%s\\n" é€ "$ENV" "$FILE" "$PARAM" "$1" "$BYTE" "$SECRET"; pwd'
    task = {
        "run": script,
        "env": {"ENV": "é€"},
        "env_file": "é€.env",
        "secrets": {"SECRET": "geheim-é€"},
        "params": [{"env": "PARAM"}, {"arg": "arg", "default": "é€"}],
        "working_dir": "../dé€",
    }
    listed = {"run": ["./é€"], "working_dir": str(folder)}
    daemon = Abroad(tmp_path, {"text": task, "listed": listed}, encoding)
    daemon.folder = folder
    daemon.write_tasks({"text": task, "listed": listed})
    daemon.start()
    seen = daemon.raw(daemon.run("text", {"PARAM": "é€"})).splitlines()
    text = "é€".encode()
    assert seen == [*[text] * 5, b"\xe9", b"[redacted]", os.fsencode(folder)]
    assert '"./é€"' in daemon.run("listed")["error"]
    assert daemon.get("/api/info").json["config_path"] == str(folder / "tasks.json")
    daemon.close()
    told = subprocess.run(
        daemon.command("import-crontab", "-"), cwd=folder, env=daemon.environment(),
        input="@daily echo é€".encode(), stdout=subprocess.PIPE, timeout=DEADLINE_S,
    )  # fmt: skip
    assert text in told.stdout


@contextlib.contextmanager
def handing_down_signals(ignored):
    """Let what is started meanwhile find some signals ignored and all blocked."""
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in ignored]
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for number, handler in before:
            signal.signal(number, handler)


@NEEDS_PROC
def test_no_program_finds_a_signal_ignored_or_blocked(serve):
    """Where the parent of the daemon ignored SIGCHLD every run hung for ever."""
    names = "CHLD HUP INT QUIT TERM USR1 USR2 ALRM TSTP TTIN TTOU PIPE WINCH RTMIN"
    tasks = {
        "fail": {"run": "exit 3"},
        "signals": {"run": ["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]},
    }
    with handing_down_signals([signal.Signals["SIG" + n] for n in names.split()]):
        daemon = serve(tasks)
    for is_new in (True, False):
        # Which the daemon goes on to ignore itself, also after an upgrade.
        for number in (signal.SIGUSR1, signal.SIGHUP, signal.SIGALRM):
            daemon.process.send_signal(number)
        seen = daemon.raw(daemon.run("signals")).decode()
        assert [int(mask, 16) for mask in seen.split()[1::2]] == [0, 0], seen
        assert daemon.run("fail")["exit_code"] == 3
        if is_new:
            upgrade(daemon)
    daemon.close()
    assert "reloaded" not in daemon.log.read_text()


@NEEDS_PROC
def test_standard_descriptors_that_were_closed_are_no_other_files(tmp_path):
    """Log lines went into the lock file."""
    daemon = Served(tmp_path, {"hello": {"run": "echo hello"}})
    daemon.socket, daemon.port = str(tmp_path / "s"), 0
    command = daemon.command("--port", "none", "--socket", "s")
    closed = ["sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh", *command]
    process = subprocess.Popen(closed, cwd=tmp_path, env=daemon.environment())

    def is_there():
        with contextlib.suppress(OSError):
            return bool(daemon.get("/api/info").json)
        return False

    try:
        within(DEADLINE_S, is_there, "the daemon answers")
        for is_new in (True, False):
            links = [os.readlink(f"/proc/{process.pid}/fd/{fd}") for fd in range(3)]
            assert links == [os.devnull] * 3
            assert daemon.raw(daemon.run("hello")) == b"hello\n"
            if is_new:
                upgrade(daemon)
        assert json.loads((tmp_path / ".taskrunnerd" / "lock").read_text())["pid"]
        process.terminate()
        assert process.wait(DEADLINE_S) == 0
    finally:
        process.kill()
        process.wait()
    told = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *daemon.command("--bogus")],
        cwd=tmp_path, env=daemon.environment(), stdout=subprocess.PIPE,
        timeout=DEADLINE_S,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (64, b"")


@NEEDS_PROC
def test_protection_from_the_oom_killer_is_for_the_daemon_alone(
    in_process, fifo, monkeypatch
):
    # To have less than 0 needs CAP_SYS_RESOURCE; from more, anybody may go back.
    own = Path("/proc/self/oom_score_adj")
    score = own.read_text()
    if int(score):
        pytest.skip("this process has a score that it may not get back")
    monkeypatch.setattr(tr, "_is_oom_protected", lambda: True)
    own.write_text("9")
    try:
        daemon = in_process({"hold": {"run": f"read -r line <{fifo}"}})
        run = daemon.trigger("hold", {}, "api")
        held = reach(fifo, daemon)
        theirs = Path(f"/proc/{daemon._live[run.id].child.pid}/oom_score_adj")
        assert (theirs.read_text(), own.read_text()) == ("0\n", "9\n")
    finally:
        own.write_text(score)
    finish_with(held, "x\n")


def test_command_heeds_signals_that_were_blocked(serve, fifo):
    daemon = serve({"hold": {"run": f"read -r line <{fifo}"}})
    command, environment = daemon.command("run", "hold"), daemon.environment()
    with handing_down_signals([]):
        process = subprocess.Popen(command, cwd=daemon.folder, env=environment)
    held = reach(fifo)
    process.terminate()
    try:
        assert process.wait(DEADLINE_S) == 143
    finally:
        process.kill()
        process.wait()
        os.close(held)


def test_unit_cannot_be_printed_without_a_current_directory(tmp_path):
    (tmp_path / "gone").mkdir()
    script = 'cd gone && rmdir ../gone && exec "$@"'
    command = [sys.executable, str(PROGRAM), "--config", "x.json", "systemd-unit"]
    told = subprocess.run(
        ["sh", "-c", script, "sh", *command], cwd=tmp_path, timeout=DEADLINE_S,
        text=True, capture_output=True,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (78, "")
    assert told.stderr.endswith("--config x.json: this directory is gone; write a "
                                "whole path\n")  # fmt: skip


def test_folder_that_the_daemon_was_started_in_may_go(serve, tmp_path):
    task = {"run": "pwd", "working_dir": "/"}
    daemon = serve({"pwd": task}, "--data", str(tmp_path / "data"))
    path = str(daemon.folder.resolve() / "tasks.json")
    shutil.rmtree(daemon.folder)
    assert daemon.get("/api/info").json["config_path"] == path
    assert daemon.raw(daemon.run("pwd")) == b"/\n"


def test_umask_is_that_of_the_task(programs):
    own = os.umask(0)
    os.umask(own)
    assert int(programs.raw(programs.run("umask-027")), 8) == 0o027
    assert int(programs.raw(programs.run("umask-own")), 8) == own


def test_working_dir_is_relative_to_tasks_json(programs):
    lines = programs.raw(programs.run("folder")).decode().splitlines()
    assert lines == [str((programs.folder / "sub").resolve()), "a note"]
    told = programs.raw(programs.run("folder-told")).decode()
    assert told == f"{programs.folder.resolve() / 'sub'}\n"


def test_secrets_reach_the_program_and_not_its_output(programs):
    run = programs.run("secrets", {"GIVEN": "told in confidence"})
    assert programs.raw(run) == b"[redacted] abc [redacted]\n"
    assert (programs.folder / "kept").read_text() == "hunter2 and more"
    assert run["params"] == {"GIVEN": tr.HIDDEN}
    assert "hunter2" not in programs.log.read_text()
    assert "confidence" not in programs.log.read_text()


@NEEDS_ROOT
def test_user_changes_identity_groups_and_home(serve):
    import grp
    import pwd

    user = pwd.getpwnam("nobody")
    group = grp.getgrgid(user.pw_gid)
    other = next(g for g in grp.getgrall() if g.gr_gid not in (0, group.gr_gid))
    task = {
        "run": 'id -u; id -g; id -G; echo "$HOME $USER $LOGNAME"',
        "working_dir": "/",
    }
    daemon = serve(
        {
            "plain": {**task, "user": "nobody"},
            "grouped": {**task, "user": f"{user.pw_uid}:{other.gr_name}"},
        }
    )
    for name, gid in (("plain", user.pw_gid), ("grouped", other.gr_gid)):
        run = daemon.run(name)
        assert run["exit_code"] == 0, run
        uid_line, gid_line, groups, names = daemon.raw(run).decode().splitlines()
        assert (uid_line, gid_line) == (str(user.pw_uid), str(gid))
        assert {int(g) for g in groups.split()} == set(
            os.getgrouplist(user.pw_name, gid)
        )
        assert names == f"{user.pw_dir} nobody nobody"


# -- the journal of started programs, and what a dead daemon left


@pytest.fixture
def processes(tmp_path):
    """Processes with a journal in tmp_path."""
    made = tr.Processes(str(tmp_path))
    yield made
    made.close()


def see_off(child):
    """Wait for the end of a program, and let go of it."""
    within(DEADLINE_S, lambda: child.exited or child.read(1) is None, "its end")
    child.reap()
    child.close()


# No two suites on this machine have the same: each ends what it finds by them.
RUN_ID = tr.ulid_text(uuid.uuid4().int >> 8)
OTHER_ID = tr.ulid_text(uuid.uuid4().int >> 8)
NAP = (sys.executable, "-c", "import time; print(flush=True); time.sleep(99)")


@pytest.fixture
def napping(processes, tmp_path, monkeypatch):
    """Start sleeping programs of run RUN_ID, which no daemon knows; their pids. To end
    them may take a while."""
    monkeypatch.setattr(tr, "DRAIN_S", DEADLINE_S)
    started = []

    def start(**variables):
        environ = tr.encoded_environ(variables)
        command = tr.Command(list(NAP), environ, str(tmp_path), -1, None)
        started.append(processes.spawn(command, RUN_ID))
        # From its first line on the environment in /proc is its own.
        within(DEADLINE_S, lambda: started[-1].read(1), "the first line")
        return int(started[-1].pid)

    yield start
    for child in started:
        child.signal_group(signal.SIGKILL)
        child.reap()
        child.close()


@NEEDS_PROC
def test_leftover_is_recognised_by_the_journal(processes, napping):
    pid = napping()
    assert processes.end_leftovers({OTHER_ID}) == {}
    assert is_alive(pid)
    assert processes.end_leftovers({RUN_ID}) == {RUN_ID: 1}
    assert not is_alive(pid)


@NEEDS_PROC
@pytest.mark.parametrize("forged", ["start time", "boot id", "run id", "pid"])
def test_stranger_with_a_recorded_pid_is_left_alone(
    processes, tmp_path, napping, forged
):
    pid = napping()
    journal = tmp_path / "processes"
    fields = journal.read_text().split()
    if forged == "start time":
        fields[2:-1] = [f"{float(second) - 1000:.2f}" for second in fields[2:-1]]
    elif forged == "boot id":
        fields[-1] = str(uuid.UUID(int=1))
    elif forged == "run id":
        fields[0] = OTHER_ID
    else:
        # The parent is older than the program that was started.
        fields[1] = str(os.getpid())
    journal.write_text(" ".join(fields) + "\n")
    assert processes.end_leftovers({RUN_ID}) == {}
    assert is_alive(pid)


@NEEDS_PROC
def test_leftover_that_left_its_group_is_found_by_its_mark(
    processes, napping, tmp_path
):
    lost = napping(TASKRUNNERD_RUN_ID=RUN_ID)
    of_other_run = napping(TASKRUNNERD_RUN_ID=OTHER_ID)
    (tmp_path / "processes").write_text("")
    assert processes.end_leftovers({RUN_ID}) == {RUN_ID: 1}
    assert not is_alive(lost)
    assert is_alive(of_other_run)


def test_journal_keeps_live_runs_and_what_came_later(processes, tmp_path):
    journal = tmp_path / "processes"
    old, live, new = (f"{tr.ulid_text(n)} {n} 5.00 5.01 boot\n" for n in (1, 2, 3))
    journal.write_text(old + live)
    end = processes.journal_bytes()
    with open(journal, "a") as file:
        file.write(new)
    processes.trim_journal({tr.ulid_text(2)}, end)
    assert journal.read_text() == live + new
    program = tr.Command(["true"], {}, str(tmp_path), -1, None)
    child = processes.spawn(program, RUN_ID)
    see_off(child)
    assert journal.read_text().splitlines()[2].startswith(f"{RUN_ID} {child.pid} ")


def test_journal_is_kept_when_the_disk_is_full(processes, tmp_path, monkeypatch):
    journal = tmp_path / "processes"
    lines = "".join(f"{tr.ulid_text(n)} {n} 5.00 5.01 boot\n" for n in (1, 2))
    journal.write_text(lines)
    with monkeypatch.context() as patch:
        patch.setattr(tr.os, "write", lambda _, data: len(data) - 1)
        with pytest.raises(OSError, match="No space left"):
            processes.trim_journal({tr.ulid_text(2)}, len(lines))
    assert journal.read_text() == lines
    processes.trim_journal({tr.ulid_text(2)}, len(lines))
    assert journal.read_text() == lines.splitlines(keepends=True)[1]


def test_journal_with_garbage_of_a_power_cut_stops_nobody(processes, tmp_path):
    program = tr.Command(["true"], {}, str(tmp_path), -1, None)
    child = processes.spawn(program, RUN_ID)
    see_off(child)
    journal = tmp_path / "processes"
    fields = journal.read_bytes().split()
    garbled = b" ".join([*fields[:1], *[b"x"] * len(fields[1:-1]), fields[-1]])
    journal.write_bytes(b"\0\0\0\n\xff\xfe x\n\n" + garbled + b"\n" + fields[0][:9])
    assert processes.end_leftovers({RUN_ID}) == {}
    processes.trim_journal((), processes.journal_bytes())
    assert (tmp_path / "processes").read_bytes() == b""


@NEEDS_PROC
def test_spawns_that_wait_for_others_have_no_open_files(processes, tmp_path):
    """Hundreds may, where a daemon may have 1,024 files open."""
    before = open_files()
    gate = Gate(processes, "_start_known", by_caller)
    program = tr.Command(["true"], {}, str(tmp_path), -1, None)
    spawns = [in_thread(lambda: processes.spawn(program, RUN_ID)) for _ in range(50)]
    gate.await_caller()
    within(DEADLINE_S, lambda: processes._spawning.free == 0, "no more may start")
    assert open_files() <= before + 4 * tr.SPAWNS_AT_ONCE
    gate.open()
    for child in [spawn() for spawn in spawns]:
        see_off(child)


@NEEDS_PROC
def test_spawn_that_fails_leaves_no_open_files(processes, tmp_path):
    before = open_files()
    wrong = tr.Command(["/no/program"], {}, str(tmp_path), -1, None)
    for _ in range(20):
        with pytest.raises(tr.StartError):
            processes.spawn(wrong, RUN_ID)
    assert open_files() == before


# ---- 11. Daemon: the monitor of all live state, and its loops ---------------

# A Condition would find out by taking the lock, which is what CheckedLock forbids.
CheckedLock._is_owned = CheckedLock.locked  # type: ignore[attr-defined]

HELD = {
    "params": [{"arg": "fifo", "required": True}],
    "run": 'read -r code <"$1" || code=0; exit "$code"',
}
STUBBORN = {**HELD, "run": "trap '' TERM INT\n" + HELD["run"]}


@pytest.fixture
def fifos(tmp_path):
    """Make FIFOs: fifos() is the path of a new one."""
    numbers = itertools.count()

    def make():
        path = str(tmp_path / f"fifo{next(numbers)}")
        os.mkfifo(path)
        return path

    return make


def state_of(daemon, run):
    """A run, or the run with an id, as the daemon knows it now."""
    now = daemon.find_run(run if isinstance(run, str) else run.id)
    assert now
    return now


def end_of(daemon, run):
    """The run once it has ended; the schedule is called meanwhile."""

    def look():
        daemon.tick()
        now = state_of(daemon, run)
        return now if now.ended else None

    ended = within(DEADLINE_S, look, f"end of {run}")
    # Behind the mutex: everything that belongs to its end has been done.
    assert ended.id not in daemon.live_ids()
    return ended


def hold(daemon, task, fifo):
    """Trigger a task that waits for a line from a FIFO."""
    return daemon.trigger(task, {"fifo": fifo}, "api")


def counts(daemon, task="hold"):
    """(running, queued) of a task."""
    state = next(s for s in daemon.task_states() if s.task.name == task)
    return state.running, state.queued


def events_of(daemon, run=None):
    """Names of the events so far, of one run or of all."""
    events = daemon.events_after(0, 0)
    return [e.name for e in events if run is None or e.run.id == run.id]


CALLER = "caller"


def in_thread(body):
    """Begin something in a thread; call the result to have its outcome."""
    outcome = []

    def keep():
        try:
            outcome.append(body())
        except BaseException as error:
            outcome.append(error)

    thread = threading.Thread(target=keep, name=CALLER, daemon=True)
    thread.start()

    def join():
        thread.join(DEADLINE_S)
        assert outcome, "never came back"
        if isinstance(outcome[0], BaseException):
            raise outcome[0]
        return outcome[0]

    return join


class Gate:
    """Stands before a method of an object: calls that `picks` chooses wait until it is
    opened, before the method (or, with `after`, behind it)."""

    def __init__(self, owner, name, picks, *, after=False):
        self._open = threading.Event()
        self._reached = threading.Event()
        method = getattr(owner, name)

        def gated(*arguments):
            chosen = picks(*arguments)
            result = method(*arguments) if after else None
            if chosen:
                self._reached.set()
                assert self._open.wait(DEADLINE_S)
            return result if after else method(*arguments)

        setattr(owner, name, gated)

    def await_caller(self):
        """Return when somebody waits before the gate."""
        assert self._reached.wait(DEADLINE_S), "nobody came to the gate"

    def open(self):
        """Let everybody through, now and later."""
        self._open.set()


def by_caller(*_):
    """Picks what threads of the test ask for with `in_thread`."""
    return threading.current_thread().name == CALLER


def by_daemon(*_):
    """Picks what the daemon's own threads do."""
    current = threading.current_thread()
    return current is not threading.main_thread() and current.name != CALLER


MINUTELY = {"run": "true", "cron": "* * * * *", "timezone": "UTC"}
HOUR_S = 3600


# -- scenes: scripts that are played on a daemon in this process

SETTINGS = {
    "held": HELD,
    "stubborn": STUBBORN,
    "polite": {**HELD, "run": "trap 'exit 0' TERM\n" + 'read -r code <"$1" || exit 0'},
    "loud": {**HELD, "run": "echo x\n" + HELD["run"]},
    "nine": {**HELD, "run": 'read -r code <"$1"; exit 9'},
    "suspended": {
        **HELD,
        "run": "trap 'exit 7' TERM\necho $$ >\"$1\"\nkill -STOP $$\nexit 8",
    },
    # Its leader goes at once, its child ignores the signal.
    "family": {
        **HELD,
        "run": "(trap '' TERM; sh -c 'echo $$ >\"$0\"; exec sleep 99' \"$1\") &\nwait",
    },
    # The signal that asks it to end does nothing, from its very first moment.
    "endless": {"run": "sleep 99", "stop_signal": "SIGWINCH"},
    "leaver": {**HELD, "run": 'sleep 99 & echo $! >"$1"'},
    "stubborn-leaver": {
        **HELD,
        "run": "trap '' TERM\necho $$ >\"$1\"\n"
        'sh -c \'echo $$ >"$0"; exec sleep 99\' "$1" &',
    },
    "minutely": MINUTELY,
    "ok": {"run": "true"},
}
START_THREAD = threading.Thread.start
FACT = re.compile(r"([\w@-]+)(=|~|)(.*)", re.DOTALL)


def seconds(text):
    """A time such as 1.5s or -7h."""
    return float(text[:-1]) * {"s": 1, "h": 3600, "d": 86_400}[text[-1]]


def utc_ms(text):
    """A time in RFC 3339 in milliseconds."""
    return round(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp() * 1000)


def last_of(daemon, task):
    """The last run of a task, if it is as it is now."""
    (state,) = [s for s in daemon.task_states() if s.task.name == task]
    last = state.last_run
    return [last.id] if last and last == daemon.find_run(last.id) else []


def started_in(daemon):
    """The runs that were started, in this order."""
    events = daemon.events_after(0, 0)
    return [event.run.id for event in events if event.name == "run.started"]


def asked_in(daemon):
    """The live runs that have been asked to end."""
    with daemon._mutex:
        return [run_id for run_id, live in daemon._live.items() if live.cause]


def ended_of(daemon, task):
    """Why the past runs of a task ended, and for which tick they were."""
    return [
        f"{run.end_reason}@{run.scheduled_at[11:19]}"
        if run.scheduled_at
        else run.end_reason
        for run in past_runs(daemon, task)
    ]


# Steps that are a call; Scene has the others.
DONE = {
    # The date and time at which the scene begins.
    "at": lambda s, text: setattr(s.clock, "ms", utc_s(text) * 1000),
    # Somebody sets the date forward or back.
    "date": lambda s, text: s.clock.set_date(seconds(text) / HOUR_S),
    "drain": lambda s, text: s.daemon.drain(seconds(text)),
    # Declare a task no longer.
    "drop": lambda s, task: s.tasks.pop(task),
    "hurry": lambda s: s.daemon.hurry(),
    # Time goes by, and nobody looks.
    "later": lambda s, text: s.clock.pass_time(seconds(text)),
    "listen": lambda s: s.caplog.set_level("INFO"),
    "meet": lambda s, gate: s.gates[gate].await_caller(),
    # The data directory moves away, or back.
    "move": lambda s, old, new: (s.place / old).rename(s.place / new),
    "open": lambda s, gate: s.gates[gate].open(),
    "pausing": lambda s, text: setattr(s.daemon, "pausing", text == "yes"),
    "restart": lambda s: s.restart(),
    "tick": lambda s: s.daemon.tick(),
    "unpause": lambda s: s.daemon.unpause(),
    # Let time go by until all this is so.
    "wind": lambda s, *words: s.do_expect(*words, winding_s=1),
    "with": lambda s, *words: s.do_task("hold", *words),
}


class Look(NamedTuple):
    """What a fact is about: the run and the task that were named last."""

    scene: Any
    daemon: Any
    run: Any
    task: str


SEEN = {
    "alive": lambda at: [n for n, pid in at.scene.pids.items() if is_alive(pid)],
    "answered": lambda at: at.scene.runs,
    "asked": lambda at: asked_in(at.daemon),
    "by": lambda at: [run.triggered_by for run in past_runs(at.daemon, at.task)],
    "claiming": lambda at: at.daemon._claiming,
    "claimed": lambda at: len(claims(at.daemon)),
    "complaint": lambda at: at.run.error.replace(at.scene.denial, "DENIED").split("; "),
    "draining": lambda at: at.daemon.draining,
    # In how many seconds a run starts, or how long ago it did or ended.
    "due": lambda at: (
        (utc_ms(at.run.end_at or at.run.start_at) - at.scene.clock.ms) / 1000
    ),
    "errors": lambda at: [run.error for run in past_runs(at.daemon, at.task)],
    "events": lambda at: [name[4:] for name in events_of(at.daemon, at.run)],
    # How often runs of a task ended ever, by why and how they were triggered.
    "ends": lambda at: [
        "/".join(map(str, e)) for e in at.daemon.counted()[at.task].ended
    ],
    # The signals that were sent to a run.
    "heard": lambda at: [s for run_id, s in at.scene.signals if run_id == at.run.id],
    "ids": lambda at: sorted(run.id for run in at.scene.runs.values()),
    "kept": lambda at: kept_ids(at.daemon),
    "keys": lambda at: claims(at.daemon),
    "known": lambda at: is_known(at.daemon),
    "last": lambda at: last_of(at.daemon, at.task),
    "live": lambda at: at.daemon.live_ids(),
    # Which runs have left files under logs/.
    "logs": lambda at: [
        run.id for run in at.scene.runs.values() if log_files(at.daemon, run)
    ],
    "missed": lambda at: at.daemon.counted()[at.task].ticks_missed,
    "newest": lambda at: [
        f for e in at.daemon.events_after(0, 0)[-1:] for f in (e.name, e.run.id)
    ],
    "next": lambda at: next_run(at.daemon, at.task),
    "of": lambda at: [at.run.retry_of_run_id],
    "past": lambda at: ended_of(at.daemon, at.task),
    "row": lambda at: at.daemon.store.find_run(at.run.id).status,
    "said": lambda at: at.scene.caplog.text,
    "schedules": lambda at: at.daemon.store.schedules(),
    "sound": lambda at: (
        not check_store(at.daemon, [run.id for run in at.scene.runs.values()])
    ),
    "spawned": lambda at: at.scene.spawned,
    "started": lambda at: started_in(at.daemon),
    "stored": lambda at: at.daemon.store.count_runs(tr.RunFilter()),
    "suspended": lambda at: [
        name
        for name, pid in at.scene.pids.items()
        if ") T " in Path(f"/proc/{pid}/stat").read_text()
    ],
    "trash": lambda at: trash(at.daemon),
    "unready": lambda at: at.daemon.why_not_ready(),
    # What a waiter without patience gets.
    "waited": lambda at: at.daemon.wait(at.run.id, 0, lambda: True).status,
}


class Scene:
    """Plays a script: steps at line ends and semicolons, each a verb and its words.

    A run has the name that the script gives it, and a FIFO of its own at which its
    program waits. What a step awaits is a condition, never a time; the clock moves only
    by steps. A step that fails is named, with what had become of all runs.

    Facts follow on `expect` (until they are so), `now` (they are so at this moment),
    `trigger` and `told` (of the run in the answer): `a=running` or `a=failed` for a run
    by its status or why it ended, then its fields, `exit_code=3` or with a part of the
    text `error~words`; `hold=1+2` for a task with one run at work and two in its queue.
    """

    def __init__(self, make, make_fifo, patches, log):
        self.make, self.patches, self.caplog = make, patches, log
        self.clock = FakeClock()
        self.daemon = None
        self.tasks = {}
        self.declared = {"hold"}
        self.runs = {}
        self.fifos = collections.defaultdict(make_fifo)
        self.held = {}
        self.gates = {}
        self.begun = []
        self.waiters = {}
        self.spawned = []
        self.forgotten = []
        self.pids = {}
        self.readers = contextlib.ExitStack()
        self.signals = []
        signal_group = tr.Child.signal_group

        def note(child, number):
            self.signals.append((child.run_id, signal.Signals(number).name))
            return signal_group(child, number)

        patches.setattr(tr.Child, "signal_group", note)

    def play(self, script):
        """Play all steps; lines that begin with # are for readers."""
        lines = [line for line in script.splitlines() if line.strip()[:1] != "#"]
        steps = [step.strip() for line in lines for step in line.split(";")]
        for number, step in enumerate(steps):
            try:
                if step:
                    self.do(*shlex.split(step))
            except (Exception, pytest.fail.Exception) as error:
                states = {name: self.find(name) for name in self.runs}
                played = "; ".join(filter(None, steps[:number]))
                why = f"{step!r}: {error!r}\nafter: {played}\nruns: {states}"
                raise AssertionError(why) from error
        for join in self.begun:
            join()

    def do(self, verb, *words):
        """One step."""
        if not self.daemon and verb not in ("with", "task", "at", "listen"):
            self.tasks = self.tasks or {"hold": dict(HELD)}
            self.restart()
        short = DONE.get(verb)
        return short(self, *words) if short else getattr(self, f"do_{verb}")(*words)

    def restart(self):
        """A daemon, or the next one in the place of the one that is there."""
        self.daemon = self.make(self.tasks, self.clock, self.daemon)
        self.place = Path(self.daemon.folder.path).parent

        def note(_, run_id):
            row = self.daemon.store.find_run(run_id)
            self.spawned.append(run_id if row.start_at else f"{run_id} too early")
            return False

        Gate(self.daemon.processes, "spawn", note)

    def close(self):
        """Let everything go."""
        self.readers.close()
        for gate in self.gates.values():
            gate.open()
        for fd in self.held.values():
            os.close(fd)

    # what is looked at

    def find(self, name):
        """A run as the daemon knows it; None if it does not."""
        return self.daemon.find_run(self.runs[name].id)

    def text(self, found):
        """Something as a script writes it, with the names of runs for their ids."""
        if isinstance(found, (str, int, float, type(None))):
            return str(found)
        known = {run.id: name for name, run in self.runs.items()}
        return ",".join(known.get(one, str(one)) for one in found)

    def fault(self, words, find):
        """The first fact that is not so; `find` gives a run by its name."""
        run, task = None, next(iter(self.tasks))
        for word in words:
            name, sign, wanted = FACT.fullmatch(word).groups()
            if name in self.runs:
                run = find(name)
                found = run and (run.end_reason or run.status)
                if run and run.ended and name not in self.forgotten:
                    assert self.daemon.store.find_run(run.id) == run
                    assert run.id not in self.daemon.live_ids()
            elif name in self.declared:
                task = name
                found = sign and "{}+{}".format(*counts(self.daemon, task))
            elif name in SEEN:
                found = SEEN[name](Look(self, self.daemon, run, task))
            else:
                found = getattr(run, name)
            told = self.text(found)
            if sign and not (wanted in told if sign == "~" else wanted == told):
                return f"{word}, not {told}"
        return ""

    # what is done

    def do_task(self, name, *words):
        """Declare a task, or change it: by a key of SETTINGS, then by its settings."""
        self.declared.add(name)
        task = self.tasks.setdefault(name, dict(HELD) if name == "hold" else {})
        for word in words:
            key, sign, value = word.partition("=")
            task.update({key: value} if sign else SETTINGS[word])
            if sign and re.fullmatch(r"true|false|\d+|\[.*", value):
                task[key] = json.loads(value)

    def do_trigger(self, *words):
        """Trigger runs of the task hold, or `a@task`."""
        facts = []
        for word in words:
            name, sign, wanted = FACT.fullmatch(word).groups()
            name, _, task = name.partition("@")
            if name not in tr.Run._fields and name not in SEEN:
                task = task or "hold"
                given = (
                    {"fifo": self.fifos[name]} if self.tasks[task].get("params") else {}
                )
                self.runs[name] = self.daemon.trigger(task, given, "api")
            facts.append(name + sign + wanted)
        fault = self.fault(facts, self.runs.get)
        assert not fault, fault

    def do_find(self, name):
        """Name the newest live run, whose trigger was not answered yet."""
        self.runs[name] = self.daemon.find_run(self.daemon.live_ids()[-1])

    def do_next(self, name, _, first):
        """Name the attempt that waits for its time after another run."""

        def look():
            run_id = self.daemon.store.next_attempt(self.runs[first].id)
            run = run_id and self.daemon.find_run(run_id)
            return run if run and events_of(self.daemon, run) else None

        self.fifos[name] = self.fifos[first]
        self.runs[name] = within(DEADLINE_S, look, "a pending attempt")

    def do_reach(self, name, early=""):
        """Await the program at its FIFO, and unless `early`, that it is known."""
        self.held[name] = reach(self.fifos[name], None if early else self.daemon)

    def do_hear(self, name, *pids):
        """Name the processes of a program that tell their pids to its FIFO."""
        next_line = self.readers.enter_context(reading(self.fifos[name]))
        self.pids.update((pid, int(next_line())) for pid in pids)

    def do_deny(self, name):
        """Let nobody signal a program and its group, as if it were another user's."""
        pid = self.daemon._live[self.runs[name].id].child.pid
        self.denial = f"cannot be signalled: {tr.process_text(pid)}"
        self.readers.enter_context(signals_denied(self.patches, pid))

    def do_overflow(self, name):
        """The log of a run is full, which ends it."""
        live = self.daemon._live[self.runs[name].id]
        self.daemon.request_stop(live, "log_overflow", "wrote more than 1kb")

    def do_free(self, *words):
        """Let programs exit: `free a b=3`."""
        for word in words:
            name, _, code = word.partition("=")
            fd = self.held.pop(name, None)
            finish_with(reach(self.fifos[name]) if fd is None else fd, f"{code or 0}\n")

    def do_finish(self, *words):
        """Trigger runs and let each end before the next: `finish a b=3`."""
        for word in words:
            run, _, code = word.partition("=")
            name, _, task = run.partition("@")
            self.do_trigger(run)
            if not task:
                self.do_free(word)
            self.do_expect(f"{name}={'failed' if code else 'success'}")

    def do_leave(self, name):
        """Close a FIFO that was reached."""
        os.close(self.held.pop(name))

    def do_stop(self, *words):
        """Stop runs; `stop a=False` if that is refused."""
        for word in words:
            name, _, done = word.partition("=")
            run_id = self.runs[name].id if name in self.runs else RUN_ID
            assert str(self.daemon.stop(run_id)) == (done or "True")

    def do_pass(self, text):
        """Time goes by, and the schedule has a look."""
        self.clock.pass_time(seconds(text))
        self.sleep_s = self.daemon.tick()

    def do_reload(self):
        write_config(Path(self.daemon.config.path).parent, {"tasks": self.tasks})
        self.daemon.reload()

    def once(self, name, key, task=""):
        """(run, whether it came before) of a trigger with a key."""
        task = task or next(iter(self.tasks))
        given = (
            {"fifo": self.fifos[name]} if "params" in self.tasks.get(task, ()) else {}
        )
        claim = tr.Claim(key, "", "", 0)
        run, header = self.daemon.trigger_once(task, given, tr.NO_TRACE, claim)
        return run, header == tr.REPLAYED_HEADER

    def do_once(self, name, key, task=""):
        """Trigger a run with a key."""
        run, is_old = self.once(name, key, task)
        assert not is_old and run.id not in [known.id for known in self.runs.values()]
        self.runs[name] = run

    def do_again(self, name, key):
        """A trigger with a key gets the run that it made."""
        before = self.find(name)
        run, is_old = self.once(name, key)
        assert is_old and run.id == self.runs[name].id
        assert run == before or not before.ended

    def do_limit(self, name, value):
        """Change a constant of the module."""
        self.patches.setattr(tr, name, json.loads(value))

    def do_store(self, what):
        """Let no commit find room, or only none that inserts, or let it work again."""

        def full(batch):
            texts = [sql for write in batch for sql, _ in write.statements]
            if what == "locked":
                raise sqlite3.OperationalError("database is locked")
            if what == "full" or any("insert" in text for text in texts):
                raise sqlite3.OperationalError("database or disk is full")
            type(self.daemon.store)._commit(self.daemon.store, batch)

        self.do_limit("STORE_RETRY_S", "0.01")
        vars(self.daemon.store).pop("_commit", None)
        if what != "works":
            self.daemon.store._commit = full

    def do_room(self, free_bytes):
        """How much room there is on the disk; a second later it is known."""
        self.patches.setattr(os, "statvfs", Room(int(free_bytes)))
        self.clock.pass_time(tr.DISK_LOOK_S)

    def do_threads(self, what):
        """Let no thread be had, or let there be some again."""

        def refuse(_):
            raise RuntimeError("can't start new thread")

        start = refuse if what == "none" else START_THREAD
        self.patches.setattr(threading.Thread, "start", start)

    def do_forget(self, name):
        """Take a run's row out of the history behind the daemon's back."""
        self.forgotten.append(name)
        delete = tr.Write(("delete from runs where id = ?", [self.runs[name].id]))
        self.daemon.store.flush(self.daemon.store.enqueue(delete))

    def do_fails(self, *words):
        """A step fails because the store does."""
        with pytest.raises(tr.StoreError, match="full"):
            self.do(*words)

    def do_pause(self):
        """Ask for an upgrade, which is not possible at once."""
        assert not self.daemon.pause(0.0)

    def do_sleeps(self, text):
        """The schedule would sleep for a while, at most so long."""
        assert 0 < self.sleep_s <= float(text.rstrip("s")), self.sleep_s

    def do_expect(self, *words, winding_s=0):
        def look():
            self.clock.pass_time(winding_s)
            with contextlib.suppress(tr.StoreError):
                self.daemon.tick()
            faults[:] = [self.fault(words, self.find)]
            return not faults[0]

        faults = []
        try:
            within(DEADLINE_S, look, "what is expected")
        except AssertionError as error:
            raise AssertionError(f"{error}: {faults}") from None

    def do_now(self, *words):
        fault = self.fault(words, self.find)
        assert not fault, fault

    def do_wait(self, *names):
        """Begin to wait for the ends of runs; `told` has what the waiters got."""
        for name in names:
            body = functools.partial(self.daemon.wait, self.runs[name].id, DEADLINE_S)
            self.waiters[name] = in_thread(lambda body=body: body(lambda: True))

    def do_told(self, *words):
        answers = {name: join() for name, join in self.waiters.items()}
        fault = self.fault(words, answers.__getitem__)
        assert not fault, fault

    def do_gate(self, name, who, after=""):
        """Let nobody through a method: the daemon's threads, or those of `begin`."""
        owner, method, picks = {
            "flush": (self.daemon.store, "flush"),
            "spawn": (self.daemon.processes, "spawn"),
            "reap": (self.daemon, "reap"),
            "park": (self.daemon, "park"),
        }[name] + (by_daemon if who == "daemon" else by_caller,)
        self.gates[name] = Gate(owner, method, picks, after=bool(after))

    def do_begin(self, *words):
        """Do a step in a thread; `join` for all that were begun to be over."""
        self.begun.append(in_thread(lambda: self.do(*words)))

    def do_join(self):
        while self.begun:
            self.begun.pop(0)()

    def do_refused(self, status, text, *words):
        """A step is refused with a status and a text in the detail."""
        with pytest.raises(tr.Problem) as caught:
            self.do(*words)
        assert str(caught.value.status) == status
        assert text in caught.value.detail, caught.value.detail
        if status == "503":
            assert "Retry-After" in caught.value.headers

    def do_delete(self, count, *names):
        """Delete so many of some runs."""
        ids = [self.runs[name].id for name in names]
        assert self.daemon.delete([*ids, RUN_ID]) == int(count)

    def do_restore(self, count, *names):
        ids = [self.runs[name].id for name in names]
        assert self.daemon.restore([*ids, RUN_ID]) == int(count)


def scenes(text):
    """A table of scenes: a title, and below it the steps, further to the right."""
    found = re.findall(r"^(\S.*)\n((?:[ \t]+.*\n|\n)+)", text, re.MULTILINE)
    rows = [pytest.param(steps, id=title.replace(" ", "-")) for title, steps in found]
    return pytest.mark.parametrize("scene", rows)


@pytest.fixture
def play(in_process, fifos, monkeypatch, caplog):
    """Play a scene."""
    scene = Scene(in_process, fifos, monkeypatch, caplog)
    yield scene.play
    scene.close()


# -- overlap: queue, skip, terminate, coalesce


@scenes("""
the queue is first in first out
    trigger a=running b=pending c=pending d=pending; reach a; now hold=1+3
    free a; reach b; now a=success hold=1+2
    free b; reach c; now b=success hold=1+1
    free c; reach d; now c=success hold=1+0
    free d; expect d=success hold=0+0

a trigger never overtakes at the moment a slot frees
    # A program has ended, its end is not yet on the disk: the queued run owns the slot.
    trigger a b; gate flush daemon; free a; meet flush
    trigger c=pending; now hold=1+1; open flush
    free b; expect b=success; free c; expect c=success; now spawned=a,b,c
    now started=a,b,c

max_concurrent runs are at work at once
    with max_concurrent=3; trigger a b c d e
    reach a; reach b; reach c; free a b c; expect a=success b=success c=success
    expect hold=2+0; free d e; expect d=success e=success

skip ends the fresh run
    with on_overlap=skip; trigger a=running
    trigger b=skipped status=ended exit_code=-1 error~skip events=created,failed
    now hold=1+0; free a; expect a=success; trigger c=running; free c; expect c=success

a queue of none refuses
    with queue_max=0; trigger a=running b=queue_full status=ended error~0
    free a; expect a=success

a full queue refuses
    with queue_max=2; trigger a b c d=queue_full status=ended error~2
    free a; expect a=success; free b; expect b=success; free c; expect c=success

terminate waits until the slot is really free
    with stubborn on_overlap=terminate; trigger a; reach a; trigger b=pending
    now hold=1+1 a=running; pass 4.9s; now a=running heard=SIGTERM,SIGCONT
    later 0.1s; expect a=stopped signal=SIGKILL error~on_overlap error~terminate
    expect b=running
    free b; expect b=success

terminate stops the oldest
    with on_overlap=terminate max_concurrent=2; trigger a b c; expect a=stopped
    free b c; expect b=success c=success

terminate supersedes queued runs with newer ones
    with stubborn on_overlap=terminate; trigger a; reach a; trigger b c d
    now b=stopped start_at=None error~'newer run' c=stopped start_at=None
    now c error~'newer run' hold=1+1; pass 5s; expect a=stopped
    free d; expect d=success
""")
def test_overlap(play, scene):
    play(scene)


def join_hold(daemon, fifo, key=""):
    """(run, header) of a trigger of `hold`."""
    given = {"fifo": fifo}
    if key:
        claim = tr.Claim(key, fifo, "", 0)
        return daemon.trigger_once("hold", given, tr.NO_TRACE, claim)
    return daemon.trigger_or_join("hold", given, "api")


def test_coalesce_joins_the_run_that_waits_with_the_same_parameters(in_process, fifos):
    daemon = in_process({"hold": {**HELD, "on_overlap": "coalesce"}})
    mine, other = fifos(), fifos()
    first = hold(daemon, "hold", mine)
    waiting, header = join_hold(daemon, mine)
    assert (first.status, waiting.status, header) == ("running", "pending", "")
    assert join_hold(daemon, mine, "key") == (waiting, tr.COALESCED_HEADER)
    assert join_hold(daemon, mine, "key") == (waiting, tr.REPLAYED_HEADER)
    different = hold(daemon, "hold", other)
    assert counts(daemon) == (1, 2)
    # A tick cannot be another run's, and says so.
    lane = daemon._lanes["hold"]
    with daemon._mutex:
        ticked = daemon._admit(lane, {"fifo": mine}, "cron").run
    assert (ticked.end_reason, waiting.id in ticked.error) == ("skipped", True)
    # One that is stopped is nobody's, also while its record is on its way.
    with daemon._mutex:
        doomed = daemon._lanes["hold"].queue[-1]
        doomed.cause = "stopped"
        assert daemon._like_waiting(lane, {"fifo": other}) is None
        doomed.cause = None
    assert daemon.stop(different.id)
    fresh, header = join_hold(daemon, other)
    assert (fresh.id != different.id, header) == (True, "")
    let_go(mine)
    end_of(daemon, first)
    within(DEADLINE_S, lambda: state_of(daemon, waiting).status == "running", "start")
    # What runs may have read what the caller has just changed.
    after, header = join_hold(daemon, mine)
    assert (after.id != waiting.id, header) == (True, "")
    for run, path in ((waiting, mine), (fresh, other), (after, mine)):
        let_go(path)
        assert end_of(daemon, run).end_reason == "success"
    assert len(daemon.store.list_ids(tr.RunFilter(), "", 99)) == 5


def test_coalesce_waits_for_the_first_record_of_the_run_that_it_joins(
    in_process, fifos, monkeypatch
):
    daemon = in_process({"hold": {**HELD, "on_overlap": "coalesce"}})
    path = fifos()
    first = hold(daemon, "hold", path)
    commit = daemon.store._commit

    def refuses_runs(batch):
        if any("insert into runs" in sql for w in batch for sql, _ in w.statements):
            raise tr.sqlite3.OperationalError("database is locked")
        commit(batch)

    gate = Gate(daemon.store, "flush", by_caller)
    creator = in_thread(lambda: hold(daemon, "hold", path))
    gate.await_caller()
    with monkeypatch.context() as patch:
        patch.setattr(daemon.store, "_commit", refuses_runs)
        with pytest.raises(tr.Problem) as caught:
            join_hold(daemon, path, "key")
        assert caught.value.status == 507
        assert claims(daemon) == []
    gate.open()
    with pytest.raises(tr.Problem):
        creator()
    let_go(path)
    end_of(daemon, first)


# -- timeouts and the stop ladder


@scenes("""
a timeout ends a run
    with timeout=90s; trigger a; reach a; pass 89.9s; sleeps 0.2s; now a=running heard=
    later 0.2s; expect a=timeout exit_code=143 signal=SIGTERM error~1m30s
    now a duration=90100000000

a timeout counts from the start of the program
    with timeout=60s; trigger a b; reach a; later 59s; free a; expect a=success
    reach b; pass 59s; now b=running heard=; free b; expect b=success

a program that exits with 0 at its timeout has timed out
    with polite timeout=1s; trigger a; reach a; pass 1s; now a heard=SIGTERM,SIGCONT
    # Some shells look for signals only when a command is over.
    leave a; expect a=timeout exit_code=0

a stop ends a running run
    trigger a; reach a; stop a
    expect a=stopped exit_code=143 signal=SIGTERM error=None

the stop signal is that of the task
    with stop_signal=SIGUSR1; trigger a; reach a; stop a
    expect a=stopped signal=SIGUSR1

a stop kills after the grace period and not before
    with stubborn graceful_stop=20s; trigger a; reach a; stop a; later 10s
    # Asking again neither fails nor begins the grace period anew.
    stop a; pass 9.9s; now a=running heard=SIGTERM,SIGCONT
    later 0.1s; expect a=stopped signal=SIGKILL

a stop takes a queued run out of the queue
    trigger a b c; wait b; stop b; now b=stopped exit_code=-1 start_at=None
    now b error='its program was not started' hold=1+1; told b=stopped
    free a; expect a=success; free c; expect c=success

a stop of an ended or an unknown run is refused
    finish a; stop a=False nobody=False; now a=success

a stop after the end of the program keeps its outcome
    # The program has exited, but the daemon has not come to reap it.
    gate reap daemon; trigger a; free a=4; meet reap; stop a=False; open reap
    expect a=failed exit_code=4 error=None

a stop before the program is started starts none
    gate flush caller; begin trigger a; meet flush; find a; stop a; open flush; join
    expect a=stopped exit_code=-1 summary='stopped: its program was not started'
    now spawned=

a stop while the program is being started reaches it
    gate spawn daemon after; trigger a; meet spawn; stop a; open spawn; expect a=stopped

a stop while the program is being started still kills
    # The grace period is over before the program is known.
    with stubborn; gate spawn daemon after; trigger a; meet spawn; reach a early
    stop a; pass 6s; open spawn; expect a=stopped signal=SIGKILL
""")
def test_limits_and_stops(play, scene):
    play(scene)


@NEEDS_PROC
@scenes("""
a stop wakes a program that was suspended
    with suspended; trigger a; hear a p; expect suspended=p known=True; stop a
    # No time passes: SIGKILL cannot be what ended it.
    expect a=stopped exit_code=7

a stop wakes a suspended program that is being started
    with suspended; gate spawn daemon after; trigger a; hear a p; expect suspended=p
    stop a; open spawn; expect a=stopped exit_code=7

a stop ends the whole group
    with family; trigger a; hear a child; stop a; now live=a alive=child a=running
    later 5s; expect a=stopped signal=SIGTERM; now alive=

a background child is ended after the program
    with leaver; trigger a; hear a child; expect a=success exit_code=0 error=None
    now alive=

a background child that ignores the signal is killed
    with stubborn-leaver; trigger a; hear a program child; expect alive=child known=True
    # It ended by itself; a stop comes too late to change that.
    now a=running; stop a=False
    # The grace period begins when the daemon sees that there is something left.
    wind a=success exit_code=0; now alive=
""")
def test_groups(play, scene):
    play(scene)


@NEEDS_PROC
@pytest.mark.parametrize("how", ["loud", "silent"])
def test_child_that_left_the_group_is_ended_too(programs, fifos, how):
    """Whether it holds the pipes of the run or not."""
    path = fifos()
    with reading(path) as next_line:
        run = programs.trigger("lose", {"fifo": path, "how": how})
        pid = int(next_line())
    ended = programs.ended(run)
    assert (ended["end_reason"], ended["exit_code"]) == ("success", 0)
    assert "error" not in ended
    assert not is_alive(pid)


@NEEDS_PROC
@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs /proc")
@pytest.mark.parametrize(
    "program",
    ["yes 'a line of some length' | head -c", "head </dev/zero -c"],
    ids=["lines", "one line"],
)
def test_flood_of_output_takes_no_memory(serve, program):
    """The most memory there ever was while 100 MB went through."""
    flood_bytes = 100_000_000
    tasks = {"flood": {"run": f"{program} {flood_bytes}"}, "true": {"run": "true"}}
    daemon = serve(tasks)
    daemon.run("true")
    assert daemon.process
    proc = Path(f"/proc/{daemon.process.pid}")

    def memory_kib(name):
        found = re.search(rf"{name}:\s+(\d+) kB", (proc / "status").read_text())
        assert found
        return int(found[1])

    # From here on the kernel notes the peak anew: proc_pid_clear_refs(5).
    (proc / "clear_refs").write_text("5")
    idle_kib = memory_kib("VmRSS")
    run = daemon.run("flood")
    assert run["output_bytes"] == flood_bytes
    assert memory_kib("VmHWM") - idle_kib < 20_000_000 // tr.KIB


def test_flood_of_many_runs_is_written_by_a_few_at_a_time(in_process, monkeypatch):
    """So that requests find the interpreter free."""
    programs = 3 * tr.PUMPS_AT_ONCE
    daemon = in_process({"say": {"run": "echo x", "max_concurrent": programs}})
    read, write = tr.Child.read, tr.LogWriter.write
    lock, all_read = _plain_lock(), threading.Event()
    have_read = set()
    within_now = []
    most = []

    def spy_read(child, timeout_s):
        chunks = read(child, timeout_s)
        if chunks:
            with lock:
                have_read.add(child.pid)
            if len(have_read) == programs:
                all_read.set()
        return chunks

    def spy_write(log, *chunk):
        with lock:
            within_now.append(1)
            most.append(len(within_now))
        assert all_read.wait(DEADLINE_S)
        write(log, *chunk)
        with lock:
            within_now.pop()

    monkeypatch.setattr(tr.Child, "read", spy_read)
    monkeypatch.setattr(tr.LogWriter, "write", spy_write)
    monkeypatch.setattr(tr, "PUMP_BYTES", 0)
    runs = [daemon.trigger("say", {}, "api") for _ in range(programs)]
    assert {end_of(daemon, run).output_bytes for run in runs} == {2}
    assert max(most) == tr.PUMPS_AT_ONCE


# Every 4 ms it forks anew in a session of its own; as long as any of it lives, it holds
# a lock on its file. It ends with the tests, whatever becomes of them.
FORK_ANEW = (
    "import fcntl, os, sys, time\n"
    "fcntl.flock(os.open(sys.argv[1], os.O_RDWR), fcntl.LOCK_EX)\n"
    "if sys.argv[2] == 'silent':\n"
    "    null = os.open(os.devnull, os.O_RDWR)\n"
    "    os.dup2(null, 1)\n"
    "    os.dup2(null, 2)\n"
    "began = time.monotonic()\n"
    "while os.fork() == 0 and time.monotonic() < began + 60:\n"
    "    os.setsid()\n"
    "    time.sleep(0.004)\n"
)


@NEEDS_PROC
@pytest.mark.parametrize("how", ["loud", "silent"])
def test_chain_that_forks_anew_all_the_time_is_ended(serve, monkeypatch, how):
    """Where there are no cgroups, too."""
    monkeypatch.setattr(tr, "_own_cgroup", str)
    run = [sys.executable, "-Sc", FORK_ANEW, "lock", how]
    daemon = serve({"chain": {"run": run, "graceful_stop": "0s"}})
    (daemon.folder / "lock").touch()
    ended = daemon.run("chain")
    assert (ended["end_reason"], ended["survivors"] > 0) == ("success", True)
    with open(daemon.folder / "lock") as lock:

        def is_free():
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
            return False

        within(DEADLINE_S, is_free, "nothing of it lives")


@NEEDS_PROC
@pytest.mark.parametrize(
    ("script", "patience"),
    [
        ("sleep 99 & echo $!", "60s"),
        ("sleep 99 >/dev/null 2>&1 & sleep 98 >/dev/null 2>&1 & echo $!", "60s"),
        ("(trap '' TERM; exec sleep 99) >/dev/null 2>&1 & echo $!", "0s"),
    ],
    ids=["has the pipes", "two", "ignores the signal"],
)
def test_group_is_ended_without_proc_and_counts_as_one(
    serve, monkeypatch, script, patience
):
    monkeypatch.setattr(tr, "_HAS_PROC", False)
    monkeypatch.setattr(tr.Processes, "_adopted", lambda _: [])
    monkeypatch.setattr(tr, "_own_cgroup", str)
    daemon = serve({"leave": {"run": script, "graceful_stop": patience}})
    run = daemon.run("leave")
    assert (run["end_reason"], run["survivors"]) == ("success", 1)
    assert "error" not in run
    assert not is_alive(int(daemon.raw(run)))


def test_orphans_are_left_alone_if_the_task_says_so(in_process, fifos):
    task = {
        "params": [{"arg": "fifo"}, {"arg": "how", "default": "silent"}],
        "run": [sys.executable, "-c", LOSE_CHILD],
        "orphans": "leave",
    }
    daemon = in_process({"lose": task})
    path = fifos()
    with reading(path) as next_line:
        run = hold(daemon, "lose", path)
        pid = int(next_line())
    assert end_of(daemon, run).end_reason == "success"
    try:
        assert is_alive(pid)
    finally:
        os.kill(pid, signal.SIGKILL)


TAKE_PIPE = (
    "import os, socket\n"
    "server = socket.socket(socket.AF_UNIX)\n"
    "server.bind('place')\n"
    "server.listen()\n"
    "print(os.getpid(), flush=True)\n"
    "connection, _ = server.accept()\n"
    "kept = socket.recv_fds(connection, 9, 1)\n"
    "connection.send(b'taken')\n"
    "server.accept()\n"
)


@NEEDS_PROC
@pytest.mark.parametrize("taker", ["stranger", "another run"])
def test_stranger_that_was_given_the_pipe_is_named_and_not_killed(
    serve, monkeypatch, taker
):
    """As process 1 is by `systemd-run --pipe`: the run does not wait for it, and it
    lives on."""
    monkeypatch.setattr(tr, "DRAIN_S", 0.2)
    take = [sys.executable, "-c", TAKE_PIPE]
    daemon = serve({"take": {"run": take}, "give-pipe": PROGRAM_TASKS["give-pipe"]})
    stranger = None
    if taker == "stranger":
        stranger = subprocess.Popen(take, cwd=daemon.folder, stdout=subprocess.PIPE)
        assert stranger.stdout
        pid = stranger.stdout.readline()
    else:
        run = daemon.trigger("take")
        pid = within(DEADLINE_S, lambda: daemon.raw(run), "it listens")
    try:
        ended = daemon.run("give-pipe")
        assert (ended["end_reason"], ended["exit_code"]) == ("success", 0)
        assert is_alive(int(pid))
        assert str(int(pid)) in ended["error"]
        assert "stdout" in ended["error"]
    finally:
        if stranger:
            stranger.kill()
            stranger.communicate()


LINGERS = ["true", "after a while"]


def linger(monkeypatch, told, go_on):
    """Have programs LINGERS tell their pid to a FIFO before their exec, and then wait
    for somebody to open another one."""
    really = subprocess.Popen

    def wait():
        # Of a test that fails, nothing is left.
        signal.alarm(int(2 * DEADLINE_S))
        with open(told, "w") as file:
            file.write(f"{os.getpid()}\n")
        with open(go_on):
            pass

    def start(argv, **options):
        if argv == LINGERS:
            options["preexec_fn"] = wait
        return really(argv, **options)

    monkeypatch.setattr(subprocess, "Popen", start)


@NEEDS_PROC
@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("has", ["the daemon's end", "the program's end"])
def test_program_that_is_being_started_is_no_survivor_of_another_run(
    in_process, fifos, monkeypatch, has
):
    """Until its exec it has ends of the other's pipes."""
    told, go_on, path = fifos(), fifos(), fifos()
    linger(monkeypatch, told, go_on)
    script = 'sleep 99 & read -r code <"$1"'
    daemon = in_process({"hold": {**HELD, "run": script}, "linger": {"run": LINGERS}})
    processes, found, looked = daemon.processes, [], threading.Event()
    survivors = processes.survivors

    def spy(*child, **how):
        pids = survivors(*child, **how)
        found.extend(pids)
        looked.set()
        return pids

    monkeypatch.setattr(processes, "survivors", spy)
    gate = Gate(processes, "_start_known", lambda c, _: c.argv != LINGERS)
    run = hold(daemon, "hold", path)
    gate.await_caller()
    if has == "the daemon's end":
        gate.open()
        # Its start is over: what it waits for is not given to the other one as well.
        fd = reach(path, daemon)
    with reading(told) as next_line:
        innocent = daemon.trigger("linger", {}, "api")
        pid = int(next_line())
    if has == "the program's end":
        gate.open()
        fd = reach(path)
    # It has this one, too.
    os.write(fd, b"0\n")
    os.close(fd)
    assert looked.wait(DEADLINE_S)
    let_go(go_on, "")
    assert (end_of(daemon, innocent).end_reason, found.count(pid)) == ("success", 0)
    ended = end_of(daemon, run)
    assert (ended.survivors, ended.error) == (1, None)


@NEEDS_PROC
def test_signal_to_a_program_that_is_being_started_is_not_the_daemons(
    serve, fifos, monkeypatch
):
    """As Ctrl-C and systemd send it to all there is; until its exec, what the daemon
    does with a signal is what the program does."""
    told, go_on = fifos(), fifos()
    linger(monkeypatch, told, go_on)
    daemon = serve({"linger": {"run": LINGERS}})
    with reading(told) as next_line:
        run = daemon.trigger("linger")
        pid = int(next_line())
    for number in tr._SIGNALS:
        os.kill(pid, number)
    status = Path(f"/proc/{pid}/status")
    none = re.compile(r"^SigPnd:\s0+\nShdPnd:\s0+$", re.MULTILINE)
    within(DEADLINE_S, lambda: none.search(status.read_text()), "all have arrived")
    let_go(go_on, "")
    assert daemon.ended(run)["end_reason"] == "success"
    # What came before has been done when this has.
    assert daemon.process
    daemon.process.send_signal(signal.SIGHUP)
    within(DEADLINE_S, lambda: "reloaded" in daemon.log.read_text(), "a reload")
    text = daemon.log.read_text()
    words = ("stopping", "upgrade", "Thread 0x")
    assert (text.count("reloaded"), [w for w in words if w in text]) == (1, [])


def test_survivor_that_cannot_be_killed_does_not_hold_the_run(
    in_process, fifos, monkeypatch
):
    """Such as one that waits for a disk."""
    monkeypatch.setattr(tr, "DRAIN_S", 0.1)
    monkeypatch.setattr(tr, "SURVIVOR_LOOKS", 5)
    really = tr.signal_process
    monkeypatch.setattr(tr, "signal_process", lambda *_: True)
    task = {**HELD, "graceful_stop": "0s", "run": 'sh -c "echo \\$\\$ >$1; sleep 99" &'}
    daemon = in_process({"hold": task})
    path = fifos()
    with reading(path) as next_line:
        run = hold(daemon, "hold", path)
        pid = int(next_line())
    try:
        # After SURVIVOR_LOOKS, long before the sleep is over.
        ended = within(
            DEADLINE_S,
            lambda: (r := state_of(daemon, run)).ended and r,
            "end of the run",
        )
        assert str(pid) in ended.error or "process" in ended.error
    finally:
        for member in tr.group_members(os.getpgid(pid)):
            really(member, signal.SIGKILL)
        end_of(daemon, run)


# -- programs that the daemon may not signal


@contextlib.contextmanager
def signals_denied(monkeypatch, pid):
    """Let nobody signal a process and its group, as if it were another user's."""

    def denied(really):
        def signal_other(other, number):
            if other == pid:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            really(other, number)

        return signal_other

    with monkeypatch.context() as patch:
        patch.setattr(tr.os, "kill", denied(os.kill))
        patch.setattr(tr.os, "killpg", denied(os.killpg))
        yield


@scenes("""
a timeout of a program that cannot be signalled is told of at once
    with timeout=5s graceful_stop=1s; trigger a; reach a; deny a; pass 5s; stop a=False
    now a=running complaint=DENIED events=created,started,updated; pass 3s; free a=3
    expect a=timeout exit_code=3 signal=None complaint='took longer than 5.0 s,DENIED'

a stop of a program that cannot be signalled is refused
    with graceful_stop=1s; trigger a; reach a; deny a; stop a=False
    now a=running complaint=DENIED events=created,started,updated; pass 3s; free a=3
    expect a=failed exit_code=3 signal=None complaint=DENIED

a full log of a program that cannot be signalled is told of at once
    with graceful_stop=1s; trigger a; reach a; deny a; overflow a; stop a=False
    now a=running complaint=DENIED events=created,started,updated; pass 3s; free a=3
    expect a=log_overflow exit_code=3 signal=None complaint='wrote more than 1kb,DENIED'

a program that cannot be signalled makes no room
    with on_overlap=terminate graceful_stop=1s; trigger a; reach a; deny a; trigger b
    stop a=False; now a=running complaint=DENIED events=created,started,updated; pass 3s
    free a=3; expect a=failed exit_code=3 signal=None complaint=DENIED; free b
    expect b=success
""")
def test_denied_signals(play, scene):
    play(scene)


def test_shutdown_leaves_without_a_program_that_cannot_be_signalled(
    in_process, fifos, monkeypatch
):
    task = {**HELD, "timeout": "5s", "retry_attempts": 1, "max_concurrent": 2}
    clock = FakeClock()
    daemon = in_process({"hold": task}, clock)
    paths = [fifos(), fifos()]
    run, other = (hold(daemon, "hold", path) for path in paths)
    helds = [reach(path, daemon) for path in paths]
    pid = daemon._live[run.id].child.pid
    denied = f"cannot be signalled: {tr.process_text(pid)}"
    with signals_denied(monkeypatch, pid):
        drained = in_thread(lambda: daemon.drain(0))
        within(DEADLINE_S, lambda: has_drained(daemon), "drained")
        drained()
    ended, killed = state_of(daemon, run), state_of(daemon, other)
    assert (ended.end_reason, ended.exit_code) == ("daemon_stopped", -1)
    said = f"the daemon was stopped; {denied}; its program goes on"
    assert (ended.error, ended.survivors) == (said, 1)
    assert daemon.store.find_run(run.id) == ended
    assert (killed.end_reason, killed.survivors) == ("daemon_stopped", 0)
    assert is_alive(pid)
    for held in helds:
        os.close(held)
    os.waitpid(pid, 0)


def lose_rights():
    """Give up what lets root signal other users and look into their programs: CAP_KILL
    and CAP_SYS_PTRACE, capabilities(7). What it executes has them again."""
    version_3, lost = 0x20080522, 1 << 5 | 1 << 19
    header = struct.pack("=Ii", version_3, 0)
    libc, found = ctypes.CDLL(None), ctypes.create_string_buffer(24)
    assert libc.capget(header, found) == 0
    low = [mask & ~lost for mask in struct.unpack_from("=3I", found.raw)]
    assert libc.capset(header, struct.pack("=3I", *low) + found.raw[12:]) == 0


@pytest.fixture
def unprivileged(tmp_path):
    """A daemon that may not signal other users, which its programs become."""
    if os.geteuid() != 0 or not shutil.which("setpriv"):
        pytest.skip("needs root and setpriv(1)")
    made = Served(tmp_path, {"become": BECOME_OTHER, "leave": LEAVE_TO_OTHER})
    made.variables["TASKRUNNERD_SHUTDOWN_TIMEOUT"] = "0s"
    made.before = lose_rights
    yield made.start()
    made.close()


BECOME_OTHER = {
    "params": [{"arg": "fifo"}],
    "run": "exec setpriv --reuid=65534 sh -c 'echo other; exec cat' <\"$1\"",
    "max_concurrent": 2,
}
# It ends once what it leaves is another user's.
LEAVE_TO_OTHER = {
    "params": [{"arg": "told"}, {"arg": "tool"}],
    "run": """
        setpriv --reuid=65534 "$2" sh -c 'echo >&9; exec sleep 98' \\
            9>"$1" >/dev/null 2>&1 &
        read -r _ <"$1"
    """,
    "graceful_stop": "1h",
}


def become_other(daemon, fifo):
    """A run whose program is another user's, and waits at a FIFO."""
    run = daemon.trigger("become", {"fifo": fifo})
    held = reach(fifo)
    within(DEADLINE_S, lambda: daemon.raw(run) == b"other\n", "another user")
    await_known(daemon, run)
    return run, held


@NEEDS_PROC
def test_program_of_another_user_is_told_of_by_a_daemon_without_rights(
    unprivileged, fifos
):
    run, held = become_other(unprivileged, fifos())
    answer = unprivileged.stop(run)
    denied = re.escape("cannot be signalled: ") + r"(\d+) \((sh|cat)\)"
    detail = answer.json["detail"]
    assert answer.status == 409
    assert re.fullmatch(f"the run goes on, its program {denied}", detail), detail
    assert re.fullmatch(denied, unprivileged.run_now(run)["error"])
    finish_with(held, "")
    ended = unprivileged.ended(run)
    assert (ended["end_reason"], ended["exit_code"]) == ("success", 0)
    # A shutdown, and a crash.
    run, held = become_other(unprivileged, fifos())
    assert unprivileged.end() == 0
    unprivileged.start()
    ended = unprivileged.run_now(run)
    assert (ended["end_reason"], ended["exit_code"]) == ("daemon_stopped", -1)
    assert re.search(f"; {denied}; its program goes on$", ended["error"])
    run, other = become_other(unprivileged, fifos())
    unprivileged.end(signal.SIGKILL)
    unprivileged.start()
    ended = unprivileged.run_now(run)
    assert ended["end_reason"] == "crashed"
    assert re.search(f"; {denied}$", ended["error"]), ended
    os.close(held)
    os.close(other)
    within(DEADLINE_S, lambda: not marked_pids(unprivileged.mark), "both are gone")


def test_interrupted_client_is_told_that_the_program_cannot_be_signalled(
    unprivileged, fifos
):
    path = fifos()
    runner = Runner(unprivileged, "become", f"fifo={path}")
    held = reach(path)
    runner.await_output(b"other\n")
    await_known(unprivileged, only_run(unprivileged))
    runner.process.send_signal(signal.SIGINT)
    said = b"the run goes on, its program cannot be signalled: "
    within(DEADLINE_S, lambda: said in runner.err.read_bytes(), "its words")
    finish_with(held, "")
    assert runner.end().code == 0


@NEEDS_PROC
@pytest.mark.parametrize("tool", ["env", "setsid"])
def test_leftover_of_another_user_is_told_of_by_a_daemon_without_rights(
    unprivileged, fifos, tool
):
    ended = unprivileged.run("leave", {"told": fifos(), "tool": tool})
    assert (ended["end_reason"], ended["survivors"]) == ("success", 1)
    found = re.match(r"cannot be signalled: (\d+) \((sh|sleep)\)", ended["error"])
    assert found
    os.kill(int(found[1]), signal.SIGKILL)
    within(DEADLINE_S, lambda: not is_alive(int(found[1])), "its end")


# -- programs in cgroups of their own


@pytest.mark.parametrize(
    ("own", "mounts", "directory"),
    [
        ("0::/a.slice/b.service", ["/ /sys/fs/cgroup cgroup2"], "/a.slice/b.service"),
        ("0::/", ["/ /sys/fs/cgroup cgroup2"], ""),
        ("0::/docker/1/x", ["/docker/1 /sys/fs/cgroup cgroup2"], "/x"),
        ("0::/docker/1", ["/docker/1 /sys/fs/cgroup cgroup2"], ""),
        ("0::/a", ["/b /mnt cgroup2", "/ /sys/fs/cgroup cgroup2"], "/a"),
        (
            "4:memory:/m\n1:name=systemd:/s\n0::/u",
            ["/ /sys/fs/cgroup/memory cgroup", "/ /sys/fs/cgroup/unified cgroup2"],
            "/unified/u",
        ),
        ("0::/docker/12", ["/docker/1 /sys/fs/cgroup cgroup2"], None),
        ("4:memory:/m", ["/ /sys/fs/cgroup/memory cgroup"], None),
        ("0::/", [], None),
        ("", ["/ /sys/fs/cgroup cgroup2"], None),
    ],
)
def test_own_cgroup_is_found_however_it_is_mounted(monkeypatch, own, mounts, directory):
    lines = ["23 1 0:20 / /proc rw - proc proc rw"]
    for number, mount in enumerate(mounts):
        root, place, kind = mount.split()
        options = "rw,nosuid shared:9" if number else "rw,relatime"
        lines.append(f"{number} 23 0:9 {root} {place} {options} - {kind} {kind} rw")
    texts = {"/proc/self/cgroup": f"{own}\n", "/proc/self/mountinfo": "\n".join(lines)}
    monkeypatch.setattr(tr, "_kernel_text", texts.__getitem__)
    found = "" if directory is None else f"/sys/fs/cgroup{directory}"
    assert tr._own_cgroup() == found


@pytest.mark.parametrize(
    ("kind", "mark", "fault"),
    [
        ("a container's", None, ""),
        ("a service's", "user.delegate", ""),
        ("a service's before systemd 251", "trusted.delegate", ""),
        ("a login session's", "", "^systemd manages .* was not told Delegate=yes$"),
        ("the machine's", None, "^no cgroup v2 but that of the whole machine"),
        ("none", None, "^no cgroup v2 but that of the whole machine"),
        ("read-only", None, "may not be written$"),
    ],
)
def test_cgroups_are_made_only_where_they_are_the_daemons(
    tmp_path, monkeypatch, kind, mark, fault
):
    def getxattr(_, name):
        if name == mark:
            return b"1"
        raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))

    monkeypatch.setattr(tr.os.path, "isdir", lambda _: mark is not None)
    monkeypatch.setattr(tr.os, "getxattr", getxattr, raising=False)
    monkeypatch.setattr(tr.os, "access", lambda *_: kind != "read-only")
    if kind != "the machine's":
        (tmp_path / "cgroup.kill").touch()
    found = tr._cgroup_fault("" if kind == "none" else str(tmp_path))
    assert bool(found) == bool(fault)
    assert re.search(fault, found)


def test_cgroup_tells_its_memory_before_it_goes(tmp_path):
    (tmp_path / "memory.peak").write_text("123456789\n")
    (tmp_path / "cgroup.procs").write_text("12\n34\n")
    child = types.SimpleNamespace(cgroup=str(tmp_path))
    # It cannot be removed: here because of its files, else because of processes.
    assert tr.Cgroups(str(tmp_path)).leave(child) == [12, 34]
    assert child.peak_bytes == 123456789


def test_cgroup_gets_what_is_forked_by_one_that_ends_while_it_is_looked_at(
    tmp_path, monkeypatch
):
    cgroups = tr.Cgroups(str(tmp_path))
    cgroups.path = str(tmp_path)
    # What the daemon's own cgroup lists, look by look: 2 ends after it was listed, and
    # has forked 3, which only the next look can see.
    looks = [[1, 2], [1, 3], [1]]
    moved = []
    child = types.SimpleNamespace(pid=1, run_id=RUN_ID)
    monkeypatch.setattr(tr, "_kernel_text", lambda _: " ".join(map(str, looks.pop(0))))
    monkeypatch.setattr(tr, "write_cgroup", lambda *words: moved.append(words))
    monkeypatch.setattr(tr, "_stat", lambda pid: None if pid == 2 else object())
    monkeypatch.setattr(tr, "_is_new", lambda pid, _: pid == 3)
    cgroups.join(child, 0.0, {1})
    path = str(tmp_path / RUN_ID)
    assert moved == [(path, "cgroup.procs", "1"), (path, "cgroup.procs", "3")]
    assert looks == []


@pytest.mark.parametrize("text", ["/etc", "garbage\n", ""])
def test_record_of_cgroups_that_is_not_its_own_removes_nothing(tmp_path, text):
    (tmp_path / "kept").mkdir()
    (tmp_path / "cgroup").write_text(text or str(tmp_path))
    cgroups = tr.Cgroups(str(tmp_path))
    cgroups.clear(tuple)
    assert (tmp_path / "kept").is_dir()
    assert cgroups.find([RUN_ID]) == {}


# No mark, no group, no pipe, no parent, and forked before anybody knows the program.
ESCAPE = "(env -i setsid sleep 98 >/dev/null 2>&1 &)\n"


def cgroups_below(path):
    """Names of the cgroups in one, the deepest first."""
    found = [folder.relative_to(path) for folder in path.rglob("*") if folder.is_dir()]
    return sorted(map(str, found), reverse=True)


def has_gone(path):
    """Remove a cgroup, if its last process has gone; returns whether that worked."""
    with contextlib.suppress(OSError):
        path.rmdir()
    return not path.exists()


@pytest.fixture
def in_cgroup(tmp_path):
    """A daemon that is not started yet, and the cgroup in which it will be, its own."""
    path = Path(tr._own_cgroup() or "/nowhere", f"test-{uuid.uuid4().hex}")
    try:
        path.mkdir()
    except OSError as error:
        pytest.skip(f"no cgroup v2 that may be written: {error}")
    try:
        with contextlib.suppress(OSError):
            os.setxattr(path, "user.delegate", b"1")
        if tr._cgroup_fault(str(path)):
            pytest.skip(tr._cgroup_fault(str(path)))
        hold = {**HELD, "run": ESCAPE + HELD["run"], "graceful_stop": "1h"}
        escape = {"run": ESCAPE, "max_concurrent": 8, "graceful_stop": "1h"}
        made = Served(tmp_path, {"escape": escape, "hold": hold})
        procs = path / "cgroup.procs"
        made.before = lambda: procs.write_text(str(os.getpid()))
        yield made, path
        made.close()
        assert cgroups_below(path) == []
    finally:
        (path / "cgroup.kill").write_text("1")
        for name in [*cgroups_below(path), "."]:
            ended = functools.partial(has_gone, path / name)
            within(DEADLINE_S, ended, f"the end of {path}")


def begin_to_hold(daemon, fifo):
    """A run that waits at a FIFO, which is open for writing, and is known."""
    run = daemon.trigger("hold", {"fifo": fifo})
    held = reach(fifo)
    await_known(daemon, run)
    return run, held


def test_nothing_escapes_from_a_cgroup(in_cgroup, fifos):
    daemon, place = in_cgroup
    daemon.start()
    assert daemon.get("/api/info").json["tracking"] == "cgroup"
    run, held = begin_to_hold(daemon, fifos())
    with ThreadPoolExecutor(8) as pool:
        ended = list(pool.map(daemon.run, ["escape"] * 24))
    assert {(r["end_reason"], r["survivors"]) for r in ended} == {("success", 1)}
    left = {"daemon", run["id"]}
    within(
        DEADLINE_S,
        lambda: {Path(name).name for name in cgroups_below(place)[:-1]} == left,
        "one for the run that goes on",
    )
    finish_with(held, "3\n")
    now = daemon.ended(run)
    assert (now["exit_code"], now["survivors"]) == (3, 1)


def test_cgroups_of_a_killed_daemon_are_ended_from_anywhere(in_cgroup, fifos):
    daemon, place = in_cgroup
    daemon.start()
    run, held = begin_to_hold(daemon, fifos())
    daemon.end(signal.SIGKILL)
    daemon.before = lambda: None
    daemon.start()
    assert cgroups_below(place) == []
    now = daemon.run_now(run)
    assert now["end_reason"] == "crashed"
    assert "2 of its processes were left and have been killed" in now["error"]
    os.close(held)


def test_cgroup_goes_with_its_run_through_an_upgrade(in_cgroup, fifos):
    daemon, _ = in_cgroup
    daemon.start()
    run, held = begin_to_hold(daemon, fifos())
    upgrade(daemon)
    assert daemon.get("/api/info").json["tracking"] == "cgroup"
    finish_with(held, "3\n")
    now = daemon.ended(run)
    assert (now["exit_code"], now["survivors"]) == (3, 1)


# -- out of memory, or not


@pytest.mark.parametrize(
    ("end", "counts", "summary"),
    [
        ("kill -KILL $$", (3, 4), "killed by SIGKILL .*, probably out of memory"),
        ("kill -KILL $$", (3, 3), "killed by SIGKILL after [0-9.]+ s"),
        ("exit 137", (3, 4), "exit 137 .*, probably out of memory"),
        ("exit 137", (3, 3), "exit 137 after [0-9.]+ s"),
        ("kill -TERM $$", (3, 4), "killed by SIGTERM after [0-9.]+ s"),
        ("exit 1", (3, 4), "exit 1 after [0-9.]+ s"),
        (
            "echo no room >&2; kill -KILL $$",
            (0, 1),
            "killed by SIGKILL .*, probably out of memory; last error line: no room",
        ),
    ],
)
def test_out_of_memory_is_said_only_after_the_kernel(
    in_process, fifos, monkeypatch, end, counts, summary
):
    counted = list(counts)
    monkeypatch.setattr(tr, "oom_kills", lambda _: counted[0])
    task = {**HELD, "run": HELD["run"].partition(";")[0] + f"\n{end}"}
    daemon = in_process({"hold": task})
    path = fifos()
    run = hold(daemon, "hold", path)
    held = reach(path, daemon)
    del counted[0]
    finish_with(held, "0\n")
    assert re.fullmatch(summary, end_of(daemon, run).summary)


@pytest.mark.parametrize("killed", [0, 2])
def test_cgroup_knows_better_than_the_machine_who_ran_out_of_memory(tmp_path, killed):
    events = f"low 0\nmax 7\noom 3\noom_kill {killed}\noom_group_kill 1\n"
    (tmp_path / "memory.events").write_text(events)
    halt_fd, other = os.pipe()
    child = tr.Child(1, RUN_ID, {}, halt_fd)
    child.oom_kills_before = -1
    assert child.ran_out_of_memory()
    child.cgroup = str(tmp_path)
    assert child.ran_out_of_memory() == bool(killed)
    os.close(halt_fd)
    os.close(other)


# -- waiting


def test_thousand_waiters_wake_with_the_end(in_process, fifos):
    daemon = in_process({"hold": HELD})
    path = fifos()
    run = hold(daemon, "hold", path)
    askers = set()
    all_ask = threading.Event()

    def still_there():
        askers.add(threading.get_ident())
        if len(askers) == 1000:
            all_ask.set()
        return True

    before = threading.stack_size(256 * 1024)
    try:
        waiters = [
            in_thread(lambda: daemon.wait(run.id, 60, still_there)) for _ in range(1000)
        ]
    finally:
        threading.stack_size(before)
    assert all_ask.wait(DEADLINE_S)
    let_go(path, "5\n")
    ended = [waiter() for waiter in waiters]
    assert len(ended) == 1000
    assert set(map(str, ended)) == {str(ended[0])}
    assert (ended[0].status, ended[0].exit_code) == ("ended", 5)


def test_wait_gives_up_with_the_run_as_it_is(in_process, fifos, monkeypatch):
    monkeypatch.setattr(tr, "HANGUP_CHECK_S", 0.01)
    clock = FakeClock()
    daemon = in_process({"hold": HELD}, clock)
    path = fifos()
    first, queued = hold(daemon, "hold", path), hold(daemon, "hold", path)
    assert daemon.wait(first.id, 0, lambda: True).status == "running"

    def time_flies():
        clock.pass_time(100)
        return True

    assert daemon.wait(queued.id, 300, time_flies).status == "pending"
    assert clock.monotonic_s() - 1000 == 300
    for run in (first, queued):
        let_go(path)
        end_of(daemon, run)


def test_wait_for_an_ended_run_returns_at_once(in_process):
    daemon = in_process({"ok": {"run": "true"}})
    ended = end_of(daemon, daemon.trigger("ok", {}, "api"))
    assert daemon.wait(ended.id, 60, lambda: False) == ended


def test_wait_for_an_unknown_run_is_404(in_process):
    daemon = in_process({"ok": {"run": "true"}})
    with pytest.raises(tr.Problem) as caught:
        daemon.wait(RUN_ID, 60, lambda: True)
    assert caught.value.status == 404
    assert RUN_ID in caught.value.detail


def test_wait_ends_when_the_caller_has_gone(in_process, fifos):
    daemon = in_process({"hold": HELD})
    path = fifos()
    run = hold(daemon, "hold", path)
    waiter = in_thread(lambda: daemon.wait(run.id, 3600, lambda: False))
    with pytest.raises(tr.CallerGone):
        waiter()
    assert state_of(daemon, run).status == "running"
    assert SHIPPED_HANGUP_CHECK_S < 1
    let_go(path)
    assert end_of(daemon, run).end_reason == "success"


def test_follower_is_woken_as_soon_as_the_log_is_there(in_process, fifos):
    daemon = in_process({"hold": HELD})
    gate = Gate(daemon._crew, "_body", by_daemon)
    path = fifos()
    run = hold(daemon, "hold", path)
    gate.await_caller()
    woken = in_thread(lambda: daemon.wait_output(run.id, -1, 3600))
    within(DEADLINE_S, lambda: daemon._live[run.id].awaited, "a follower")
    gate.open()
    assert woken() == -1
    let_go(path)
    end_of(daemon, run)


def test_follower_sleeps_while_the_end_is_being_recorded(in_process, fifos):
    """It asked again and again, as fast as it could: for ever on a full disk."""
    daemon = in_process({"hold": HELD})
    path = fifos()
    run = hold(daemon, "hold", path)
    held = reach(path)
    gate = Gate(daemon.store, "flush", by_daemon)
    finish_with(held, "0\n")
    gate.await_caller()
    started_s = time.monotonic()
    assert daemon.wait_output(run.id, 0, 0.1) == -1
    assert time.monotonic() - started_s >= 0.1
    woken = in_thread(lambda: daemon.wait_output(run.id, 0, 3600))
    gate.open()
    woken()
    end_of(daemon, run)


@scenes("""
a wait counts the time in the queue
    trigger a b; wait b; free a; expect a=success; free b=6
    told b=failed exit_code=6

a drain lets the waiters of queued runs go
    trigger a b; wait a b; reach a; drain 60s
    told a=daemon_stopped error~'daemon was stopped' b=pending
    now b=pending row=pending
    refused 503 'shutting down' trigger c; now unready~'shutting down'; stop b

a trigger is not answered before it is durable
    gate flush caller; begin trigger a; meet flush
    now answered= spawned= events= kept=; open flush; join
    free a; expect a=success spawned=a

an end is durable before anybody is told
    trigger a; wait a; gate flush daemon; free a; meet flush
    now a=running waited=running events=created,started
    open flush; told a=success; now a=success

a stop of a queued run is durable before anybody is told
    trigger a b; gate flush caller; begin stop b; meet flush
    now b=pending events=created; open flush; join; now b=stopped
    free a; expect a=success

a trigger that cannot be recorded leaves nothing
    store inserts; refused 507 'disk is full' trigger a
    now answered= live= hold=0+0 events= kept=; store works; pass 1s; now unready=
    finish b

an end without room is kept and its waiters get it once it is durable
    trigger a; reach a; wait a; store full; free a
    expect unready='runs cannot be recorded: database or disk is full'
    now a=running; refused 507 full trigger b; store works; told a=success exit_code=0
    pass 1s; now unready=; finish b

retention without room is tried again soon and no timeout is missed
    with timeout=2s; task ok ok keep_runs=1; finish x@ok y@ok z@ok
    trigger a; reach a; store full
    fails pass 1s; fails pass 1s; fails pass 1s; now kept=x,y,z,a; store works
    expect a=timeout; pass 1s; now x=None y=None z=success

trash without room is emptied soon after
    with loud; finish a; delete 1 a; store full; fails pass 602s; store works
    now trash=a; pass 1s; now trash=; restore 0 a
""")
def test_waits_and_records(play, scene):
    play(scene)


# -- a disk without room


class Room:
    """os.statvfs of a file system with as much room as the test says."""

    def __init__(self, free_bytes, free_files=10**6):
        self.free_bytes = free_bytes
        self.free_files = free_files
        self.files = 10**7
        self.asked = 0

    def __call__(self, path):
        """As os.statvfs."""
        self.asked += 1
        return types.SimpleNamespace(
            f_bavail=self.free_bytes,
            f_frsize=1,
            f_favail=self.free_files,
            f_files=self.files,
        )


@pytest.fixture
def room(monkeypatch):
    """The room on the disk of in-process daemons: plenty at first."""
    found = Room(10**12)
    monkeypatch.setattr(os, "statvfs", found)
    return found


@pytest.mark.parametrize("is_full, least, looks", [
    (False, 64 * tr.MIB, [
        (64 * tr.MIB, ""),
        (64 * tr.MIB - 1, "64.0 MB free on the disk, under 64.0 MB"),
        (0, "0 B free on the disk, under 64.0 MB"),
        (10**12, ""),
    ]),
    # One that was full needs a little more to have room again.
    (True, tr.MIB, [
        (2 * tr.MIB - 1, "2.0 MB free on the disk, 1.0 MB of it stay free"),
        (2 * tr.MIB, ""),
        (tr.MIB, ""),
    ]),
])  # fmt: skip
def test_disk_is_low_below_its_limit_of_bytes(room, is_full, least, looks):
    clock = FakeClock()
    disk = tr.DiskWatch("/", least, clock)
    if is_full:
        disk.note_full()
    for room.free_bytes, low in looks:
        clock.pass_time(tr.DISK_LOOK_S)
        assert disk.reason_low() == low


def test_disk_is_low_below_its_limit_of_inodes(room):
    clock = FakeClock()
    disk, careless = (tr.DiskWatch("/", least, clock) for least in (1, 0))
    room.free_files = tr.DISK_MIN_FREE_FILES - 1
    assert disk.reason_low() == "1023 inodes free, under 1024"
    assert careless.reason_low() == ""
    room.files = 0
    clock.pass_time(tr.DISK_LOOK_S)
    assert disk.reason_low() == "", "a file system that does not count inodes"


def test_disk_is_looked_at_once_in_a_second_and_full_at_once(room):
    clock = FakeClock()
    disk = tr.DiskWatch("/", 1, clock)
    for _ in range(1000):
        assert disk.reason_low() == ""
    assert room.asked == 1
    disk.note_full()
    assert disk.reason_low() == "the disk is full"
    clock.pass_time(tr.DISK_LOOK_S - 0.01)
    assert disk.reason_low() == "the disk is full"
    assert room.asked == 1
    clock.pass_time(0.01)
    assert disk.reason_low() == ""


def test_disk_has_room_for_what_is_above_its_limit_and_not_taken(room):
    """What is under way to the disk is given to nobody else, whenever one looks."""
    disk = tr.DiskWatch("/", tr.MIB, FakeClock())
    room.free_bytes = 40 * tr.MIB
    assert [disk.take(10 * tr.MIB) for _ in range(2)] == ["", ""]
    assert room.asked == 1
    assert disk.take(10 * tr.MIB) == ""
    assert room.asked == 2, "near the limit"
    assert not disk.try_take(9 * tr.MIB + 1)
    disk.note_written(30 * tr.MIB)
    room.free_bytes = 10 * tr.MIB
    assert disk.reason_low() == ""
    low = "10.0 MB free on the disk, 1.0 MB of it stay free"
    assert disk.take(9 * tr.MIB + 1) == low
    assert disk.take(1) == disk.reason_low() == low


def test_reserve_is_given_up_in_parts_and_made_again_where_there_is_room(
    tmp_path, room
):
    folder = tr.DataFolder(str(tmp_path))
    disk = tr.DiskWatch("/", tr.MIB, FakeClock())
    room.free_bytes = 2 * tr.MIB - 1
    folder.keep_reserve(disk)
    assert not folder.give_up_reserve()
    room.free_bytes += 1
    folder.keep_reserve(disk)
    assert (tmp_path / "reserve").stat().st_size == tr.MIB
    room.free_bytes = tr.MIB
    for part in range(1, 17):
        assert folder.give_up_reserve()
        size_bytes = (tmp_path / "reserve").stat().st_size
        assert size_bytes == tr.MIB - part * 64 * tr.KIB
    assert not folder.give_up_reserve()
    folder.keep_reserve(disk)
    assert not folder.give_up_reserve()


def test_disk_that_cannot_be_asked_is_not_low(tmp_path):
    assert tr.DiskWatch(str(tmp_path / "gone"), 1, tr.Clock()).reason_low() == ""


@pytest.fixture
def careless_sqlite(monkeypatch):
    """An SQLite that by itself does not overwrite what it deletes."""
    connect = sqlite3.connect

    def careless(*args, **named):
        db = connect(*args, **named)
        db.execute("pragma secure_delete = off")
        return db

    monkeypatch.setattr(sqlite3, "connect", careless)


def files_with(word, daemon):
    """The files of the data directory in which a word stands."""
    files = [path for path in Path(daemon.folder.path).rglob("*") if path.is_file()]
    return [path for path in files if word in path.read_bytes()]


@pytest.mark.parametrize("times", [2, 2000])
def test_secret_parameters_are_in_no_file_once_their_runs_have_ended(
    in_process, careless_sqlite, fifos, times
):
    """Also very long ones, and those of a run that never began."""
    clock = FakeClock()
    task = {**HELD, "params": [*HELD["params"], {"env": "KEY", "secret": True}]}
    daemon = in_process({"hold": task}, clock)
    daemon.tick()
    path = fifos()
    params = {"fifo": path, "KEY": "hunter2-" * times}
    run, queued = (daemon.trigger("hold", params, "api") for _ in range(2))
    assert files_with(b"hunter2", daemon)
    assert daemon.stop(queued.id)
    os.close(reach(path, daemon))
    end_of(daemon, run)
    database = daemon.folder.database
    with contextlib.closing(sqlite3.connect(database, isolation_level=None)) as reader:
        reader.execute("begin")
        reader.execute("select id from runs").fetchone()
        clock.pass_time(tr.SIGN_OF_LIFE_S)
        daemon.tick()
        assert files_with(b"hunter2", daemon), "left alone while somebody reads"
    clock.pass_time(tr.SIGN_OF_LIFE_S)
    daemon.tick()
    assert files_with(b"hunter2", daemon) == []
    assert os.stat(f"{database}-wal").st_size == 0


def test_secret_parameters_of_crashed_runs_are_in_no_file(remains, careless_sqlite):
    shown = {"KEY": tr.HIDDEN}
    remains.leave("ok", 9, {"KEY": "hunter2"}, status="running", params=shown)
    daemon = remains.revive({"ok": {"run": "true"}})
    daemon.tick()
    assert files_with(b"hunter2", daemon) == []


def test_secret_parameters_are_not_left_in_the_log_of_a_dead_daemon(tmp_path):
    store = tr.Store(str(tmp_path / "history.sqlite3"))
    assert not store.found_log
    again = tr.Store(store._path)
    assert again.found_log
    clock = FakeClock()
    folder = tr.DataFolder(str(tmp_path))
    processes = tr.Processes(str(tmp_path))
    assert tr.Housekeeper(folder, again, processes, clock).secret_ended
    for closed in (processes, again, store):
        closed.close()


@scenes("""
a low disk refuses triggers until there is room
    room 1000000000000; now unready=; room 0; now unready~'0 B free on the disk'
    refused 507 '0 B free on the disk' trigger a; now live= events= kept=
    room 1000000000000; now unready=; finish a

a locked store refuses a trigger but drops no output
    # Another process in the database is no full disk.
    with loud; store locked; refused 507 'database is locked' trigger a; store works
    now unready=; finish a; now a output_bytes=2 output_dropped_bytes=0
""")
def test_room(play, scene):
    play(scene)


def test_low_disk_drops_output_and_says_so_while_the_program_goes_on(
    in_process, room, fifos
):
    """More than a pipe holds, so that the program would block if nobody read."""
    clock = FakeClock()
    script = (
        'echo before; read -r go <"$1"; yes gone | head -n 100000; echo >"$2"\n'
        'read -r go <"$1"; echo after'
    )
    params = [{"arg": "first"}, {"arg": "second"}]
    daemon = in_process({"talk": {"run": script, "params": params}}, clock)
    path, drained = fifos(), fifos()
    run = daemon.trigger("talk", {"first": path, "second": drained}, "api")
    base = daemon.log_of(run)
    within(DEADLINE_S, lambda: read_log(base).raw == b"before\n", "the first line")
    room.free_bytes = 0
    clock.pass_time(tr.DISK_LOOK_S)
    let_go(path)
    with open(drained, "rb") as written:
        assert written.read() == b"\n"
    log = daemon._live[run.id].log
    within(DEADLINE_S, lambda: log.dropped_bytes == 500_000, "all is dropped")
    room.free_bytes = 10**12
    clock.pass_time(tr.DISK_LOOK_S)
    let_go(path)
    ended = end_of(daemon, run)
    assert (ended.end_reason, ended.output_dropped_bytes) == ("success", 500_000)
    assert ended.output_bytes == 500_000 + len("before\nafter\n")
    assert ended.error.startswith("output could not be written: 0 B free on the disk")
    kept = read_log(base)
    assert kept.raw == b"before\nafter\n"
    assert [line.text for line in kept.lines] == [
        "before",
        "100000 lines (500000 bytes) were left out here",
        "after",
    ]


def test_disk_full_in_a_log_refuses_triggers_at_once(
    in_process, room, monkeypatch, fifos
):
    daemon = in_process({"copy": {**HELD, "run": 'cat "$1"'}}, FakeClock())
    path = fifos()
    run = hold(daemon, "copy", path)
    fd = reach(path)
    disk = Disk(0)
    monkeypatch.setattr(tr, "_write_all", disk.write)
    os.write(fd, b"lost\n")
    within(DEADLINE_S, daemon.why_not_ready, "the full disk")
    assert daemon.why_not_ready() == "the disk is full"
    with pytest.raises(tr.Problem, match="the disk is full"):
        hold(daemon, "copy", path)
    os.close(fd)
    ended = end_of(daemon, run)
    assert ended.output_dropped_bytes == 5
    assert "No space left on device" in ended.error


def store_without_room(daemon, monkeypatch):
    """From now on no commit finds room, until the event is set."""
    monkeypatch.setattr(tr, "STORE_RETRY_S", 0.01)
    commit, has_room = daemon.store._commit, threading.Event()

    def full(batch):
        if not has_room.is_set():
            raise tr.sqlite3.OperationalError("database or disk is full")
        commit(batch)

    monkeypatch.setattr(daemon.store, "_commit", full)
    return has_room


def test_log_stream_does_not_spin_while_the_end_has_no_room(
    in_process, monkeypatch, fifos
):
    """The log is closed, the end not durable: nothing grows, and nothing is over."""
    daemon = in_process({"hold": HELD})
    path = fifos()
    run = hold(daemon, "hold", path)
    fd = reach(path)
    has_room = store_without_room(daemon, monkeypatch)
    os.close(fd)
    within(DEADLINE_S, daemon.why_not_ready, "the refused record")
    assert daemon.wait_output(run.id, -1, 3600) == 0
    follower = in_thread(lambda: daemon.wait_output(run.id, 0, 3600))
    has_room.set()
    assert end_of(daemon, run).end_reason == "success"
    assert follower() == -1


def test_drain_does_not_wait_for_ever_for_an_end_without_room(
    in_process, monkeypatch, fifos, caplog
):
    daemon = in_process({"hold": HELD})
    path = fifos()
    run = hold(daemon, "hold", path)
    fd = reach(path)
    waiter = in_thread(lambda: daemon.wait(run.id, DEADLINE_S, lambda: True))
    has_room = store_without_room(daemon, monkeypatch)
    os.close(fd)
    within(DEADLINE_S, daemon.why_not_ready, "the refused record")
    daemon.drain(0.05)
    assert waiter().status == "running"
    (said,) = [r.getMessage() for r in caplog.records if "will not know" in r.msg]
    assert said.endswith(f"task=hold run={run.id} reason=success exit_code=0")
    has_room.set()


# -- a data directory that goes away


def replace_by_copy(path):
    """What a backup that is put back does."""
    copy = path.with_name("copy")
    shutil.copy(path, copy)
    copy.replace(path)


def make_anew(data):
    """What a second daemon does, which finds nothing there."""
    shutil.rmtree(data)
    folder = tr.DataFolder(str(data))
    assert folder.lock() == 0
    folder.unlock()


LOSSES = {
    "removed": shutil.rmtree,
    "renamed": lambda data: data.rename(data.with_name("elsewhere")),
    "made-anew": make_anew,
    "without-lock": lambda data: (data / "lock").unlink(),
    "other-lock": lambda data: replace_by_copy(data / "lock"),
    "without-database": lambda data: (data / "history.sqlite3").unlink(),
    "other-database": lambda data: replace_by_copy(data / "history.sqlite3"),
    "other-write-ahead-log": lambda data: replace_by_copy(data / "history.sqlite3-wal"),
}


@pytest.mark.parametrize("loss", LOSSES)
def test_data_directory_that_is_gone_starts_nothing_and_ends_what_runs(
    in_process, fifos, caplog, loss
):
    clock = FakeClock()
    tasks = {
        "hold": {**HELD, "retry_attempts": 1, "retry_delay": "1s"},
        "tick": {"run": "true", "cron": "* * * * *", "catch_up": "skip"},
    }
    daemon = in_process(tasks, clock)
    good, bad, queued = fifos(), fifos(), fifos()
    daemon.tick()
    runs = [hold(daemon, "hold", path) for path in (bad, good, queued)]
    fd = reach(bad, daemon)
    data = Path(daemon.folder.path)
    LOSSES[loss](data)
    for _ in range(3):
        clock.pass_time(tr.SIGN_OF_LIFE_S)
        assert daemon.tick() > 0, "no loop spins"
    (said,) = [r.getMessage() for r in caplog.records if "gone" in r.getMessage()]
    assert str(data) in said and "restart the daemon" in said
    assert daemon.why_not_ready().startswith(f"the data directory is gone: {data}")
    with pytest.raises(tr.Problem, match="is gone") as caught:
        hold(daemon, "hold", good)
    assert caught.value.status == 503
    waiter = in_thread(lambda: daemon.wait(runs[0].id, DEADLINE_S, lambda: True))
    os.write(fd, b"7\n")
    os.close(fd)
    ended = waiter()
    assert (ended.end_reason, ended.exit_code) == ("failed", 7)
    for _ in range(2):
        clock.pass_time(60)
        assert daemon.tick() > 0
    assert counts(daemon) == (0, 3) and counts(daemon, "tick") == (0, 0)
    assert daemon._lanes["tick"].last_run is None
    with pytest.raises(tr.StoreError, match="is gone"), daemon.handover():
        pass


@scenes("""
a data directory that comes back goes on
    listen; with; task tick minutely; trigger a b; move data elsewhere; later 61s; tick
    free a; expect hold=0+1; now b=pending unready~gone; move elsewhere data; pass 5s
    now a=success unready= said~'the data directory is back'; free b; expect b=success
    now tick by=cron past=success@08:01:00
""")
def test_lost_directory(play, scene):
    play(scene)


def test_reload_by_signal_without_the_history_is_refused_and_told(in_process, caplog):
    daemon = in_process({"ok": {"run": "true"}})
    path = Path(daemon.folder.database)
    path.rename(path.with_name("elsewhere"))
    while daemon.store._readers:
        daemon.store._readers.pop().close()
    tr._reload(daemon)
    assert f"not reloaded fault={path}: No such file" in caplog.text
    path.with_name("elsewhere").rename(path)


def test_data_directory_on_a_read_only_disk_is_no_place(in_process, monkeypatch):
    clock = FakeClock()
    daemon = in_process({"ok": {"run": "true"}}, clock)

    def refuse(fd):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    with monkeypatch.context() as patch:
        patch.setattr(os, "utime", refuse)
        assert daemon.tick() > 0
    assert daemon.why_not_ready().endswith("lock: Read-only file system")
    clock.pass_time(tr.SIGN_OF_LIFE_S)
    daemon.tick()
    assert end_of(daemon, daemon.trigger("ok", {}, "api")).end_reason == "success"


def test_folders_and_journal_that_are_removed_are_made_again(in_process):
    clock = FakeClock()
    daemon = in_process({"ok": {"run": "echo x"}}, clock)
    data = Path(daemon.folder.path)
    for name in ("logs", "results"):
        shutil.rmtree(data / name)
    (data / "processes").unlink()
    clock.pass_time(tr.SIGN_OF_LIFE_S)
    daemon.tick()
    for name in ("logs", "results", f"results/{os.geteuid()}"):
        assert (data / name).stat().st_mode & 0o777 == 0o700
    run = end_of(daemon, daemon.trigger("ok", {}, "api"))
    assert read_log(daemon.log_of(run)).raw == b"x\n"
    assert run.id in (data / "processes").read_text()


def test_daemon_without_its_data_directory_ends_what_it_is_asked_for(
    serve, monkeypatch, fifo
):
    """Waiting clients get their ends; nobody gets anything new, and no upgrade."""
    monkeypatch.setattr(tr, "SIGN_OF_LIFE_S", 0.02)
    daemon = serve({"hold": HELD})
    query = "?wait=true"
    waiter = in_thread(lambda: daemon.trigger("hold", {"fifo": str(fifo)}, query))
    fd = reach(fifo)
    (daemon.folder / ".taskrunnerd").rename(daemon.folder / "elsewhere")
    ready = functools.partial(daemon.request, "GET", "/readyz")
    within(DEADLINE_S, lambda: ready().status == 503, "not ready")
    assert "is gone" in ready().json["detail"]
    daemon.post("/api/tasks/hold/run", {"params": {"fifo": "x"}}, 503)
    daemon.process.send_signal(signal.SIGUSR2)
    refused = "upgrade refused error=the data directory is gone"
    within(DEADLINE_S, lambda: refused in daemon.log.read_text(), "the refusal")
    os.close(fd)
    assert waiter()["end_reason"] == "success"
    assert daemon.end() == 0


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 8 MB, which only root may mount."""
    path = tmp_path / "small-disk"
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=8m,mode=700", "tmpfs", str(path)]
    if os.geteuid() != 0 or not shutil.which("mount"):
        pytest.skip("needs root and mount(8)")
    mounted = subprocess.run(mount, capture_output=True, text=True, check=False)
    if mounted.returncode:
        pytest.skip(f"may not mount: {mounted.stderr.strip()}")
    yield path
    # Lazily: a test that failed may have left a daemon there.
    subprocess.run(["umount", "-l", str(path)], check=True)


def fill(disk, leave_bytes):
    """Take all room of a disk but some; returns the file to remove."""
    path = disk / "filler"
    with contextlib.suppress(OSError), open(path, "wb", buffering=0) as filler:
        while True:
            found = os.statvfs(disk)
            excess = found.f_bavail * found.f_frsize - leave_bytes
            if excess <= 0:
                break
            filler.write(bytes(min(excess, tr.MIB)))
    return path


TALK = {"params": HELD["params"], "run": 'cat "$1"'}


def test_disk_below_min_free_stops_triggers_and_output_until_there_is_room(
    small_disk, serve, fifo
):
    daemon = serve({"talk": TALK}, "--data", str(small_disk), "--min-free", "2mb")
    run = daemon.trigger("talk", {"fifo": str(fifo)})
    fd = reach(fifo)
    os.write(fd, b"before\n")
    within(DEADLINE_S, lambda: daemon.raw(run) == b"before\n", "the first line")
    filler = fill(small_disk, tr.MIB)

    def readiness():
        return daemon.request("GET", "/readyz")

    within(DEADLINE_S, lambda: readiness().status == 503, "the full disk")
    assert "free on the disk, under 2.0 MB" in readiness().json["detail"]
    refused = daemon.post("/api/tasks/talk/run", {"params": {"fifo": "/"}}, 507)
    assert "free on the disk, under 2.0 MB" in refused.json["detail"]
    assert int(refused.headers["Retry-After"]) > 0
    assert daemon.get("/api/runs?limit=1").json["total"] == 1
    # More than all pipes hold: it can be written only because it is read.
    lost = b"lost\n" * 400_000
    os.set_blocking(fd, True)
    assert os.write(fd, lost) == len(lost)
    filler.unlink()
    within(DEADLINE_S, lambda: readiness().status == 200, "room again")
    os.write(fd, b"after\n")
    os.close(fd)
    ended = daemon.ended(run)
    kept = daemon.raw(run)
    assert (ended["end_reason"], ended["exit_code"]) == ("success", 0)
    assert kept.startswith(b"before\n") and kept.endswith(b"after\n")
    assert ended["output_bytes"] == len(lost) + len("before\nafter\n")
    assert ended["output_dropped_bytes"] == ended["output_bytes"] - len(kept) > 0
    assert "output could not be written: " in ended["error"]
    gaps = [n["text"] for n in daemon.lines(run) if n["stream"] == "system"]
    assert re.findall(r"\((\d+) bytes\)", " ".join(gaps)) == [
        str(ended["output_dropped_bytes"])
    ]
    os.mkfifo(fifo.parent / "next")
    last = daemon.trigger("talk", {"fifo": str(fifo.parent / "next")})
    let_go(fifo.parent / "next", "all is well\n")
    assert daemon.ended(last)["output_dropped_bytes"] == 0
    assert daemon.raw(last) == b"all is well\n"


def has_reserve(folder):
    """Whether the reserve is whole and really on the disk."""
    path = folder / "reserve"
    return path.exists() and path.stat().st_blocks * 512 >= tr.MIB


@pytest.mark.parametrize(("min_free", "free_bytes"), [("2mb", 2 * tr.MIB), ("0b", 1)])
def test_output_leaves_free_what_has_to_stay_free(
    small_disk, serve, fifos, min_free, free_bytes
):
    """Two writers, each of which could fill the disk between two looks."""
    script = 'cat "$1"; yes | head -c 9000000'
    flood = {"params": HELD["params"], "run": script, "max_concurrent": 2}
    daemon = serve({"flood": flood}, "--data", str(small_disk), "--min-free", min_free)
    within(DEADLINE_S, lambda: has_reserve(small_disk), "the reserve")
    paths = [fifos() for _ in range(2)]
    runs = [daemon.trigger("flood", {"fifo": str(path)}) for path in paths]
    for fd in [reach(path) for path in paths]:
        os.close(fd)
    ended = [daemon.ended(run) for run in runs]
    assert [run["end_reason"] for run in ended] == ["success"] * 2
    found = os.statvfs(small_disk)
    # The records of the ends may take a little of it.
    own_bytes = 512 * tr.KIB
    assert found.f_bavail * found.f_frsize >= free_bytes - own_bytes
    for run in ended:
        dropped = run["output_dropped_bytes"]
        assert dropped == 9_000_000 - len(daemon.raw(run)) > 0
        assert "output could not be written: " in run["error"]
    assert daemon.request("GET", "/readyz").status == 503


def test_ends_are_recorded_on_a_disk_that_another_process_has_filled(
    small_disk, serve, fifos
):
    tasks = {"talk": {**TALK, "max_concurrent": 20}}
    daemon = serve(tasks, "--data", str(small_disk), "--min-free", "0b")
    within(DEADLINE_S, lambda: has_reserve(small_disk), "the reserve")
    held = []
    for path in [fifos() for _ in range(20)]:
        run = daemon.trigger("talk", {"fifo": str(path)})
        held.append((run, reach(path)))
    filler = small_disk / "filler"
    with open(filler, "wb") as file:
        cat = subprocess.run(["cat", "/dev/zero"], stdout=file, stderr=-3, check=False)
    assert cat.returncode == 1
    assert os.statvfs(small_disk).f_bavail == 0
    for run, fd in held[:10]:
        os.close(fd)
        assert daemon.ended(run)["exit_code"] == 0
    for _, fd in held[10:]:
        os.close(fd)
    for run, _ in held[10:]:
        assert daemon.ended(run)["end_reason"] == "success"
    assert b"store failed" not in daemon.log.read_bytes()
    assert not has_reserve(small_disk)
    assert daemon.request("GET", "/readyz").status == 503
    filler.unlink()
    within(DEADLINE_S, lambda: has_reserve(small_disk), "the reserve again")
    within(DEADLINE_S, lambda: daemon.request("GET", "/readyz").status == 200, "room")
    assert daemon.end() == 0
    assert not (small_disk / "reserve").exists(), "nothing can end any more"


def test_crash_is_recorded_on_a_disk_that_another_process_has_filled(
    small_disk, serve, fifos
):
    """The reserve of the dead daemon makes room for the next one."""
    tasks = {"talk": {**TALK, "max_concurrent": 5}}
    daemon = serve(tasks, "--data", str(small_disk), "--min-free", "0b")
    within(DEADLINE_S, lambda: has_reserve(small_disk), "the reserve")
    runs = [daemon.trigger("talk", {"fifo": str(fifos())}) for _ in range(5)]
    for run in runs:
        await_known(daemon, run)
    daemon.end(signal.SIGKILL)
    fill(small_disk, 0)
    assert os.statvfs(small_disk).f_bavail == 0
    daemon.start()
    assert {daemon.run_now(run)["end_reason"] for run in runs} == {"crashed"}
    assert daemon.request("GET", "/readyz").status == 503


def await_end_on_a_full_disk(daemon, run, fd):
    """Let the program end while there is no room; a client is waiting for it."""
    waiter = in_thread(
        lambda: daemon.get(f"/api/tasks/talk/runs/{run['id']}/log/stream").raw
    )
    os.close(fd)
    within(DEADLINE_S, lambda: b"store failed" in daemon.log.read_bytes(), "no room")
    assert daemon.run_now(run)["status"] == "running"
    within(DEADLINE_S, lambda: daemon.request("GET", "/readyz").status == 503, "503")
    return waiter


def test_end_on_a_full_disk_is_not_lost(small_disk, serve, fifo):
    """Something else has the place of the reserve."""
    (small_disk / "reserve").mkdir()
    daemon = serve({"talk": TALK}, "--data", str(small_disk), "--min-free", "0b")
    within(DEADLINE_S, lambda: b"no reserve for" in daemon.log.read_bytes(), "a word")
    run = daemon.trigger("talk", {"fifo": str(fifo)})
    fd = reach(fifo)
    filler = fill(small_disk, 0)
    waiter = await_end_on_a_full_disk(daemon, run, fd)
    filler.unlink()
    assert b'"status":"success"' in waiter()
    ended = daemon.run_now(run)
    assert (ended["end_reason"], ended["exit_code"]) == ("success", 0)
    within(DEADLINE_S, lambda: daemon.request("GET", "/readyz").status == 200, "room")


@pytest.mark.skipif(not hasattr(resource, "prlimit"), reason="needs prlimit(2)")
@pytest.mark.parametrize("room_again", [True, False])
def test_end_that_the_kernel_refuses_to_write_is_not_lost(serve, fifo, room_again):
    """No file may grow beyond what the write-ahead log has, which needs no root. A
    shutdown meanwhile does not hang, and says what was lost."""
    daemon = serve({"talk": TALK}, "--shutdown-timeout", "100ms")
    run = daemon.trigger("talk", {"fifo": str(fifo)})
    fd = reach(fifo)
    assert daemon.process
    pid, limit = daemon.process.pid, resource.RLIMIT_FSIZE
    _, hard = resource.prlimit(pid, limit)
    size = (daemon.folder / ".taskrunnerd" / "history.sqlite3-wal").stat().st_size
    assert size > 10 * daemon.log.stat().st_size, "the log can still be written"
    resource.prlimit(pid, limit, (size, hard))
    waiter = await_end_on_a_full_disk(daemon, run, fd)
    if room_again:
        resource.prlimit(pid, limit, (hard, hard))
        assert b'"status":"success"' in waiter()
        assert daemon.run_now(run)["end_reason"] == "success"
        return
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.process.wait(DEADLINE_S) == 0
    with contextlib.suppress(http.client.HTTPException, OSError):
        waiter()
    said = daemon.log.read_text()
    assert f"not know task=talk run={run['id']} reason=success exit_code=0" in said
    daemon.start()
    assert daemon.run_now(run)["end_reason"] == "crashed"


def test_start_on_a_disk_that_cannot_take_what_was_left_is_71(small_disk, serve, fifo):
    """Better than a daemon that is never ready and hears no signal. No reserve is left
    that would have the room."""
    daemon = serve({"talk": TALK}, "--data", str(small_disk), "--min-free", "0b")
    run = daemon.trigger("talk", {"fifo": str(fifo)})
    fd = reach(fifo)
    assert daemon.process
    daemon.process.kill()
    daemon.process.wait()
    (small_disk / "reserve").unlink(missing_ok=True)
    filler = fill(small_disk, 0)
    refused = subprocess.run(
        daemon.command("--port", "0", *daemon.flags),
        cwd=daemon.folder,
        env=daemon.environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert (refused.returncode, refused.stdout) == (tr.EX_OSERR, "")
    assert "disk" in refused.stderr or "No space left" in refused.stderr
    filler.unlink()
    daemon.start()
    os.close(fd)
    assert daemon.run_now(run)["end_reason"] == "crashed"


def no_flock(fd, how):
    """As flock(2) on a file system of a network without locks."""
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("not a database", "not a database; put back a backup of history.sqlite3"),
        ("layout 7", "(layout 7); this is 0.1.0 and knows layouts up to 2; start the"),
        ("foreign", "database of another program; move history.sqlite3 away"),
        ("a file", "File exists; remove what is in its place"),
        ("a folder", "Is a directory; remove what is in its place"),
        ("no lock", "no lock (flock: No locks available); use a directory on a disk"),
        ("old SQLite", "has SQLite 3.23.1; the oldest that works is 3.24; start it"),
    ],
)
def test_start_that_fails_says_what_helps(tmp_path, monkeypatch, damage, words):
    write_config(tmp_path, {"tasks": {}})
    data = tmp_path / ".taskrunnerd"
    if damage == "a file":
        data.touch()
    elif damage == "a folder":
        (data / "history.sqlite3").mkdir(parents=True)
    elif damage == "no lock":
        monkeypatch.setattr(tr.fcntl, "flock", no_flock)
    elif damage == "old SQLite":
        monkeypatch.setattr(sqlite3, "sqlite_version", "3.23.1")
        monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 23, 1))
    else:
        data.mkdir()
        with contextlib.closing(sqlite3.connect(data / "history.sqlite3")) as db:
            db.execute(
                f"pragma application_id = {damage == 'foreign' or tr._APPLICATION_ID}"
            )
            db.execute("pragma user_version = 7")
    if damage == "not a database":
        (data / "history.sqlite3").write_bytes(b"no database" * 500)
    told = call(tmp_path, "--port", "0")
    assert (told.code, told.out) == (tr.EX_OSERR, ""), told
    assert words in told.err and told.err.count("\n") == 1, told.err
    assert told.err.startswith("taskrunnerd: --data .taskrunnerd: "), told.err
    assert told.err.endswith(", or name another directory\n")


def test_store_needs_a_write_ahead_log():
    with pytest.raises(tr.StoreError, match='no write-ahead log, only "memory"'):
        tr.Store(":memory:")


def test_history_that_was_lost_is_told_at_the_start(tmp_path, caplog):
    """Copies of the data directory of a daemon at work are what a crash leaves."""
    missing, empty = "newest runs are missing", "history is empty although"
    config = tr.load_config(write_config(tmp_path, {"tasks": {"ok": {"run": "echo"}}}))

    def begin(name):
        folder = tr.DataFolder(str(tmp_path / name))
        assert folder.lock() == 0
        daemon = tr.Daemon(config, folder, FakeClock())
        daemon.recover()
        return daemon

    def end(daemon):
        daemon.drain(0)
        daemon.close()
        daemon.folder.unlock()

    def told(name, *lost):
        """What a start says without some files."""
        shutil.copytree(tmp_path / "data", tmp_path / name)
        for path in lost:
            (tmp_path / name / path).rename(tmp_path / f"{name}, {path}")
        if "older" in name:
            shutil.copy(tmp_path / "older", tmp_path / name / database)
        caplog.clear()
        end(begin(name))
        said = " ".join(record.getMessage() for record in caplog.records)
        return [words for words in (missing, empty) if words in said]

    database, log = "history.sqlite3", "history.sqlite3-wal"
    first = begin("data")
    run = end_of(first, first.trigger("ok", {}, "api"))
    end(first)
    shutil.copy(tmp_path / "data" / database, tmp_path / "older")
    # Then its runs may be deleted for good, and there is no write-ahead log.
    assert (tmp_path / "data" / "processes").read_bytes() == b""
    assert told("stopped") == []
    second = begin("data")
    end_of(second, second.trigger("ok", {}, "api"))
    assert told("crashed") == []
    assert told("without its log", log) == [missing]
    assert told("without all", database, log) == [empty]
    assert second.store.find_run(run.id)
    end(second)
    assert told("stopped and emptied", database) == [empty]
    # No run need have left output: the lock file has a mark of the newest one.
    assert told("stopped and emptied of all", database, "logs") == [empty]
    assert told("stopped, with an older history") == [missing]


def test_text_that_is_not_unicode_does_not_stop_the_store(in_process):
    """JSON can hold half of a surrogate pair; SQLite cannot."""
    params = [{"env": "TEXT"}]
    daemon = in_process({"ok": {"params": params, "run": "true"}})
    for text in ("\udc80", "\ud800", "a\udcffb"):
        with pytest.raises(tr.Problem) as caught:
            daemon.trigger("ok", {"TEXT": text}, "api")
        assert caught.value.status == 422
    run = end_of(daemon, daemon.trigger("ok", {"TEXT": "fine"}, "api"))
    assert run.end_reason == "success"


# -- keys: a trigger that may be repeated


def once(daemon, task="ok", key="k", body=""):
    """(run, whether it is one of before) of a trigger with a key."""
    claim = tr.Claim(key, body, "", 0)
    run, header = daemon.trigger_once(task, {}, tr.NO_TRACE, claim)
    return run, header == tr.REPLAYED_HEADER


def claims(daemon):
    """The keys that the database holds."""
    return [row[0] for row in daemon.store._rows("select key from claims order by 1")]


@scenes("""
a key gets the run that it made for a day
    task ok ok; once a k; later 86399s; expect a=success; again a k; once b other
    # It has expired, pruned or not.
    later 1s; now keys=k,other; once c k; expect c=success; again c k

a key that has expired is pruned
    task ok ok max_concurrent=9; limit RETENTION_BATCH_RUNS 2
    once a 1; once b 2; once c 3; once d 4; once e 5; later 86390s; once f young; tick
    now claimed=6; pass 3600s; now claimed=4; pass 1s; now claimed=2; pass 1s
    now keys=young; pass 1s; now keys=young

a key of a deleted run makes no other one
    task ok ok; once a k; expect a=success; delete 1 a
    refused 410 'was deleted' once b k; restore 1 a; again a k; delete 1 a; pass 602s
    refused 410 'take a new key' once b k

a key of a refused trigger is free
    task ok ok; task strict ok params='[{"env": "A", "required": true}]'
    refused 404 none once a k none; refused 422 param once a k strict
    pausing yes; refused 503 upgraded once a k; pausing no; room 0
    refused 507 '0 B' once a k; room 1000000000000; store locked
    refused 507 locked once a k; store works; now keys= claiming=; once a k

a key of a run that found the queue full is free
    with queue_max=0; trigger a; once b k; now b=queue_full keys= claiming=; free a
    expect a=success; once c k; free c; expect c=success

a key of a skipped run tells of it again
    with on_overlap=skip; trigger a; once b k; now b=skipped; free a; expect a=success
    again b k
""")
def test_keys(play, scene):
    play(scene)


def test_room_of_what_was_forgotten_goes_back_to_the_disk_in_steps(in_process):
    clock = FakeClock()
    daemon = in_process({"ok": {"run": "true", "keep_runs": 1}}, clock)
    store = daemon.store
    record(store, *[as_ended(new_run("ok"), summary="x" * 4000) for _ in range(450)])
    store.fold("truncate")
    full_bytes = os.path.getsize(store._path)
    unused = []
    for _ in range(9):
        clock.pass_time(tr.RETENTION_EVERY_S if not unused else tr.RETENTION_PAUSE_S)
        daemon.tick()
        unused.append(store.unused_pages())
    assert store.count_runs(ANY) == 1
    assert unused[0] > 420 and unused[-1] == unused[-2] <= tr.SPARE_PAGES
    steps = [more - less for more, less in zip(unused, unused[1:]) if more > less]
    assert len(steps) > 2 and {*steps} == {tr.SHRINK_STEP_PAGES}
    store.fold("truncate")
    saved_bytes = full_bytes - os.path.getsize(store._path)
    assert saved_bytes >= sum(steps) * 4096
    (sound,) = store._rows("pragma integrity_check")
    assert sound == ("ok",)


@pytest.mark.parametrize("hours", [-72, -1, 1, 72])
def test_key_does_not_notice_when_the_date_is_set(play, hours):
    play(
        f"task ok ok; once a k; date {hours}h; tick; again a k; later 86400s; once b k"
    )


@pytest.mark.parametrize("hours", [-72, 23])
def test_key_outlives_a_restart_also_when_the_date_was_set_back(play, hours):
    play(f"task ok ok; once a k; date {hours}h; restart; tick; again a k")


def test_key_of_another_request_is_refused(in_process):
    daemon = in_process({"ok": {"run": "true"}})
    once(daemon, body="one")
    with pytest.raises(tr.Problem, match="another request") as caught:
        once(daemon, body="two")
    assert caught.value.status == 422
    assert caught.value.faults[0].location == "header.Idempotency-Key"
    assert len(past_runs(daemon, "ok")) == 1


def test_key_is_on_the_disk_if_and_only_if_its_run_is(in_process, monkeypatch):
    """What another process would find after a crash, around the commit."""
    daemon = in_process({"ok": {"run": "true"}})
    commit = daemon.store._commit
    seen = []

    def look():
        with contextlib.closing(sqlite3.connect(daemon.folder.database)) as other:
            counts = "select (select count(*) from runs), (select count(*) from claims)"
            seen.append(other.execute(counts).fetchone())

    def watched(batch):
        look()
        commit(batch)
        look()

    with monkeypatch.context() as patch:
        patch.setattr(daemon.store, "_commit", watched)
        once(daemon)
    assert (seen[0], seen[1]) == ((0, 0), (1, 1))


def test_key_is_asked_for_by_one_thread_at_a_time(
    in_process, one_lock_only, monkeypatch
):
    """All but the first wait until its run is on the disk, and then get that one. If it
    was refused, the next one makes the run."""
    daemon = in_process({"ok": {"run": "true", "max_concurrent": 9}})
    go_on, commit = threading.Event(), daemon.store._commit
    fails = [True]

    def slow(batch):
        go_on.wait(DEADLINE_S)
        if fails and batch[0].statements[0][0].startswith("insert into runs"):
            fails.pop()
            raise tr.sqlite3.OperationalError("database is locked")
        commit(batch)

    monkeypatch.setattr(daemon.store, "_commit", slow)

    def ask():
        try:
            return once(daemon)
        except tr.Problem as problem:
            return problem.status

    joins = [in_thread(ask) for _ in range(8)]
    within(DEADLINE_S, lambda: len(daemon._claimed._waiters) == 7, "seven wait")
    go_on.set()
    told = [join() for join in joins]
    outcomes = [outcome for outcome in told if outcome != 507]
    assert len(outcomes) == 7
    assert len({run.id for run, _ in outcomes}) == 1
    assert sorted(replayed for _, replayed in outcomes) == [False] + [True] * 6
    assert not daemon._claiming
    assert len(past_runs(daemon, "ok")) == 1


# -- results

LEFT = 'printf %s "$LEFT" >"$TASKRUNNERD_RESULT"'
LEAVE_SECRETS = """
import json, os
found = {os.environ["K"]: [1, os.environ["S"] + "!", {"n": 123456, "m": 12345}]}
open(os.environ["TASKRUNNERD_RESULT"], "w").write(json.dumps(found))
"""
RESULT_TASKS = {
    "leave": {"params": [{"env": "LEFT"}], "run": LEFT},
    "fail": {"params": [{"env": "LEFT"}], "run": LEFT + "; exit 3"},
    "large": {"params": [{"arg": "zeros"}],
        "run": 'printf "%0*d" "$1" 0 | tr 0 1 | sed "s/1/\\"/;s/1$/\\"/"'
        ' >"$TASKRUNNERD_RESULT"'},
    "latin": {"run": 'printf \'"\\351"\' >"$TASKRUNNERD_RESULT"'},
    "link": {"run": 'echo 1 >one; ln -s "$PWD/one" "$TASKRUNNERD_RESULT"'},
    "fifo": {"run": 'mkfifo "$TASKRUNNERD_RESULT"'},
    "folder": {"run": 'mkdir "$TASKRUNNERD_RESULT"'},
    "nothing": {"run": "true"},
    "moved": {"run": 'echo "[1]" >"$TASKRUNNERD_RESULT.new";'
        ' mv "$TASKRUNNERD_RESULT.new" "$TASKRUNNERD_RESULT"'},
    "late": {"run": 'trap "" TERM; (sleep 0.2; echo 7 >"$TASKRUNNERD_RESULT") &',
        "graceful_stop": "20s"},
    "stop": {"run": LEFT.replace("$LEFT", "1") + "; kill -TERM $$"},
    "secret": {"secrets": {"S": 'hunter2"\n\u00fc', "N": "123456", "K": "secret-key"},
        "run": [sys.executable, "-c", LEAVE_SECRETS]},
    "again": {"run": 'printf %s "$TASKRUNNERD_ATTEMPT" >"$TASKRUNNERD_RESULT"; exit 1',
        "retry_attempts": 1, "retry_delay": "0s"},
}  # fmt: skip


@pytest.fixture(scope="session")
def leaving(tmp_path_factory):
    """One daemon with RESULT_TASKS."""
    daemon = Served(tmp_path_factory.mktemp("results"), RESULT_TASKS).start()
    yield daemon
    daemon.close()


def left_behind(daemon):
    """What is in the folders for results."""
    folder = daemon.folder / ".taskrunnerd" / "results"
    return [path.name for path in folder.glob("*/*")]


@pytest.mark.parametrize("text", [
    '{"deployed": ["a", 1.5, true], "Zo\u00eb": {}}', "0", "false", '""', " [ ] \n",
    "\ufeff1", "[" * 64 + "]" * 64,
])  # fmt: skip
def test_result_is_the_json_that_the_program_left(leaving, text):
    run = leaving.run("leave", {"LEFT": text})
    assert run["result"] == json.loads(text.lstrip("\ufeff"))
    assert "error" not in run
    assert leaving.run_now(run) == run
    assert left_behind(leaving) == []
    assert "result" not in leaving.get("/api/tasks/leave").json["last_run"]
    newest = leaving.get("/api/tasks/leave/runs?limit=1").json["runs"][0]
    assert newest == {k: v for k, v in run.items() if k not in ("$schema", "result")}


@pytest.mark.parametrize("task, given, error", [
    ("leave", {"LEFT": "{"}, "is not JSON: Expecting .* line 1 column 2 .*"),
    ("leave", {"LEFT": "[NaN]"}, "is not JSON: NaN is not JSON"),
    ("leave", {"LEFT": "1e999"}, "is not JSON: a number is too large"),
    ("leave", {"LEFT": "[" * 65 + "]" * 65}, "is not JSON: nested deeper than .*"),
    ("leave", {"LEFT": "\n"}, "is not JSON: .*"),
    ("large", {"zeros": "65537"}, r"is larger than 64\.0 KB"),
    ("latin", {}, "is not UTF-8"),
    ("link", {}, "is not a regular file"),
    ("fifo", {}, "is not a regular file"),
    ("folder", {}, "is not a regular file"),
])  # fmt: skip
def test_result_that_cannot_be_one_is_named_and_changes_nothing(
    leaving, task, given, error
):
    run = leaving.run(task, given)
    assert re.fullmatch(f"the result is not kept: it {error}", run["error"]), run
    assert (run["end_reason"], run["exit_code"]) == ("success", 0)
    assert "result" not in run and "summary" not in run
    assert left_behind(leaving) == []


@pytest.mark.parametrize("task, given", [
    ("nothing", {}), ("leave", {"LEFT": ""}), ("leave", {"LEFT": "null"}),
])  # fmt: skip
def test_result_of_nothing_is_left_out(leaving, task, given):
    run = leaving.run(task, given)
    assert "result" not in run and "error" not in run
    assert left_behind(leaving) == []


@pytest.mark.parametrize("task, given, end_reason, result", [
    ("fail", {"LEFT": '"why"'}, "failed", "why"), ("stop", {}, "failed", 1),
    ("moved", {}, "success", [1]), ("late", {}, "success", 7),
])  # fmt: skip
def test_result_comes_with_every_end(leaving, task, given, end_reason, result):
    run = leaving.run(task, given)
    assert (run["end_reason"], run["result"]) == (end_reason, result)
    assert left_behind(leaving) == []


def test_result_may_be_as_large_as_the_limit(leaving):
    run = leaving.run("large", {"zeros": str(tr.RESULT_MAX_BYTES)})
    assert run["result"] == "1" * (tr.RESULT_MAX_BYTES - 2)


def test_result_has_no_secrets(leaving):
    run = leaving.run("secret")
    shown = {"n": "[redacted]", "m": 12345}
    assert run["result"] == {"[redacted]": [1, "[redacted]!", shown]}, run


def test_result_belongs_to_its_attempt(leaving):
    last = leaving.run("again")
    first = leaving.get(f"/api/runs/{last['retry_of_run_id']}").json
    assert (first["result"], last["result"]) == (0, 1)


def test_result_is_not_kept_in_memory(leaving):
    """A thousand events with 64 KiB each would weigh more than the daemon."""
    with leaving.events("/api/runs/stream") as events:
        assert next(events).name == "ping"
        run = leaving.run("leave", {"LEFT": "1"})
        done = next(e for e in events if e.name == "run.completed")
    assert done.data["run"]["id"] == run["id"]
    assert "result" not in done.data["run"]


def test_result_of_a_crashed_run_is_removed(remains):
    left = remains.leave("ok", 60, status="running")
    other = remains.leave("ok", 60, status="ended", end_reason="success")
    paths = [Path(remains.data.result_path(r.id, os.geteuid())) for r in (left, other)]
    for path in paths:
        path.write_text("1")
    daemon = remains.revive({"ok": {"run": "true"}}, sign_of_life_s=12)
    assert state_of(daemon, left).result is None
    assert [path.exists() for path in paths] == [False, True]
    # What an escaped process wrote after the end goes with the run.
    daemon.delete([other.id])
    remains.clock.pass_time(tr.RESTORE_S + 2)
    daemon.tick()
    assert not paths[1].exists()


def test_bug_after_the_end_of_a_program_costs_its_result_not_its_outcome(
    in_process, monkeypatch
):
    def bug(*_):
        raise RuntimeError("a bug")

    monkeypatch.setattr(tr.Daemon, "_end_survivors", bug)
    daemon = in_process({"ok": {"run": 'echo 1 >"$TASKRUNNERD_RESULT"'}})
    ended = end_of(daemon, daemon.trigger("ok", {}, "api"))
    assert (ended.end_reason, ended.exit_code, ended.result) == ("success", 0, None)
    assert "internal error: RuntimeError('a bug')" in ended.error
    assert list(Path(daemon.folder.path).glob("results/*/*")) == []


@pytest.fixture
def open_folder():
    """A folder that every user of the machine can reach."""
    with tempfile.TemporaryDirectory(prefix="taskrunnerd-open-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@NEEDS_ROOT
def test_result_of_another_user_is_safe_from_all_others(serve, open_folder):
    import pwd

    data = open_folder / "data"
    folder = data / "results" / str(pwd.getpwnam("nobody").pw_uid)
    task = {"working_dir": "/", "user": "nobody"}
    tasks = {
        "leave": {**task, "umask": "077", "run": 'echo 1 >"$TASKRUNNERD_RESULT"'},
        "look": {**task, "run": f"ls {data} || ls {data}/results || ls {data}/logs"},
        "plant": {**task, "user": "daemon", "run": f"echo 2 >{folder}/planted"},
        "own": {"run": 'echo 3 >"$TASKRUNNERD_RESULT"'},
    }
    daemon = serve(tasks, "--data", str(data))
    assert data.stat().st_mode & 0o777 == 0o700
    assert daemon.run("leave")["result"] == 1
    assert data.stat().st_mode & 0o777 == 0o711
    assert folder.stat().st_mode & 0o777 == 0o700
    for name, refusals in (("look", 3), ("plant", 1)):
        run = daemon.run(name)
        assert run["exit_code"] != 0
        assert daemon.raw(run).count(b"denied") == refusals
    assert daemon.run("own")["result"] == 3
    assert list(data.glob("results/*/*")) == []


@NEEDS_ROOT
def test_result_file_of_somebody_else_is_refused(open_folder):
    """A hard link would let a user show what only the daemon may read."""
    data = tr.DataFolder(str(open_folder / "data"))
    account = tr.Account("nobody", "/", "/bin/sh", 65534, 65534, ())
    data.admit_results(account)
    for run_id, uid in (("a", 0), ("b", 65534)):
        path = data.result_path(run_id, 65534)
        Path(path).write_text("1")
        os.chown(path, uid, uid)
    with pytest.raises(ValueError, match="belongs to another user"):
        data.take_result("a", 65534)
    assert data.take_result("b", 65534) == b"1"
    assert data.take_result("b", 65534) == b""
    assert not os.path.lexists(data.result_path("a", 65534))


# -- races between two threads, one step at a time


@scenes("""
created is told before started and a last run is not turned back
    # The end of another run frees a slot for a queued one while whoever triggered it
    # has not come to tell of it: it waits for that.
    trigger a; gate flush caller after; begin trigger b; meet flush; free a
    expect a=success hold=0+1; open flush; join; free b
    expect b=success events=created,started,completed last=b

the last run of a task follows a queued run
    trigger a b; free a; expect a=success; reach b; now last=b b=running
    free b; expect b=success

a hurry before the drain has begun still ends runs as daemon_stopped
    # Two signals in quick succession: the second must not be taken for a failure of the
    # program, nor start what is queued.
    trigger a b; reach a; hurry; expect a=daemon_stopped error='the daemon was stopped'
    drain 60s; now b=pending; stop b

a hurry reaches a program that is being started
    with stubborn; gate spawn daemon after; trigger a; meet spawn; reach a early
    begin drain 60s; expect draining=True; hurry; tick; open spawn
    expect a=daemon_stopped signal=SIGKILL; join

the limit of a drain holds for a program that is being started
    with stubborn graceful_stop=1h; gate spawn daemon after; trigger a; meet spawn
    reach a early; begin drain 10s; expect draining=True live=a; open spawn; later 10s
    expect a=daemon_stopped signal=SIGKILL; join

a queued run is not promoted before its creation is durable
    # Its program ran without a row, and its client was told that there is no run.
    trigger a; reach a; store inserts; gate flush caller
    begin refused 507 full trigger b; meet flush; free a=1; expect a=failed hold=0+1
    open flush; join; now hold=0+0 live= spawned=a

a start of a run whose row has vanished starts nothing
    trigger a b; reach a; wait b; forget b; free a; expect a=success
    told b=start_failed error='its record has vanished'; now hold=0+0 live= spawned=a

a pause that was taken back leaves no run to nobody
    # Its thread was about to leave it, and everybody else had gone on already.
    trigger a; reach a; gate park daemon; begin pause; meet park; join
    unpause; open park; free a; expect a=success

an attempt is found by a stop while its row is on its way
    with retry_attempts=1; trigger a; reach a; gate flush daemon after; free a=1
    meet flush; find b; begin stop b; expect asked=b; open flush; join
    expect b=stopped events=created,failed live= of=a

an attempt is found by a reload while its row is on its way
    # It was left to a task that is gone.
    with retry_attempts=1; task ok ok; trigger a; reach a; gate flush daemon after
    free a=1; meet flush; find b; drop hold; begin reload; expect asked=b; open flush
    join; expect b=skipped events=created,failed live= of=a

a million expired runs do not hold up what is due
    # One batch a round, be it of expired runs, of the trash or of keys.
    with keep_runs=1; limit RETENTION_BATCH_RUNS 2; finish a b c d e f g
    pass 1s; now stored=5; pass 1s; now stored=3; pass 1s; now kept=g
    pass 1s; now kept=g

a drain is not held by a trigger that could not be recorded
    store inserts; gate flush caller; begin refused 507 full trigger a; meet flush
    begin drain 60s; expect draining=True; open flush; join

runs superseded by a trigger that failed still end
    # They must not stay for ever neither queued nor ended.
    with stubborn on_overlap=terminate; trigger a; reach a; trigger b
    store inserts; refused 507 full trigger c; store works; pass 5s
    expect a=stopped b=stopped live=

a run whose thread cannot be started ends
    # At the limit of processes of the user or the container.
    threads none; trigger a; threads ok; expect a=start_failed error~thread live=
    finish b
""")
def test_races(play, scene):
    """Between two threads, one step at a time."""
    play(scene)


@pytest.mark.parametrize(
    ("owner", "method"),
    [
        (tr.LogWriter, "close"),
        (tr.LogReader, "last_words"),
        (tr.Child, "close"),
        (tr.DataFolder, "take_result"),
    ],
)
def test_what_fails_after_the_end_of_a_program_does_not_cost_its_outcome(
    in_process, monkeypatch, fifos, owner, method
):
    """The thread died, the run stayed running for ever, and so did the daemon."""
    daemon = in_process({"hold": HELD})
    path = fifos()
    run = hold(daemon, "hold", path)
    held = reach(path)
    works = getattr(owner, method)
    calls = []

    def fail_once(*arguments, **more):
        calls.append(method)
        if len(calls) > 1:
            return works(*arguments, **more)
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(owner, method, fail_once)
    finish_with(held, "3\n")
    ended = end_of(daemon, run)
    assert (ended.end_reason, ended.exit_code) == ("failed", 3)
    assert "Too many open files" in ended.error
    daemon.drain(60)


def test_closing_twice_harms_nobody(tmp_path):
    """The number of a descriptor that was closed may be a stranger's by then."""
    folder = tr.DataFolder(str(tmp_path / "data"))
    folder.lock()
    processes = tr.Processes(folder.path)
    environ = dict(os.environb)
    argv = ["/bin/sh", "-c", "exit 0"]
    child = processes.spawn(tr.Command(argv, environ, "/", 0o22, None), "A" * 26)
    while not child.exited:
        child.read(DEADLINE_S)
    processes.reap(child)
    child._watch_exit()
    log = tr.LogWriter(str(tmp_path / "log"), 10_000, "drop_old", ())
    log.write(tr.STDOUT, b"text\n", 0, 0.0)
    store = tr.Store(folder.database)
    closers = [
        child.close, lambda: log.close(0), store.close, processes.close, folder.unlock,
    ]  # fmt: skip
    with tr.LogReader(log.base) as reader:
        assert reader.kept_bytes
    for close in closers:
        close()
    strangers = [os.open(os.devnull, os.O_RDONLY) for _ in range(64)]
    for close in [*closers, *closers]:
        close()
    for fd in strangers:
        os.close(fd)


def test_journal_that_cannot_be_written_loses_no_program(
    in_process, monkeypatch, fifos
):
    """A full disk: the program that was just started is still looked after."""
    daemon = in_process({"hold": HELD})
    path = fifos()
    write, journal = os.write, daemon.processes._journal_fd

    def full(fd, chunk):
        if fd == journal:
            raise OSError(28, "No space left on device")
        return write(fd, chunk)

    monkeypatch.setattr(tr.os, "write", full)
    run = hold(daemon, "hold", path)
    let_go(path, "3\n")
    ended = end_of(daemon, run)
    assert (ended.end_reason, ended.exit_code) == ("failed", 3)


def test_program_that_is_being_reaped_is_signalled_no_more(in_process, monkeypatch):
    daemon = in_process({"true": {"run": "true"}})
    wait4, killpg, stopped, signalled = os.wait4, os.killpg, [], []

    def stop_and_wait4(pid, options):
        (run_id,) = daemon.live_ids()
        stopped.append(in_thread(lambda: daemon.stop(run_id))())
        return wait4(pid, options)

    monkeypatch.setattr(tr.os, "wait4", stop_and_wait4)
    monkeypatch.setattr(
        tr.os, "killpg", lambda *how: signalled.append(how) or killpg(*how)
    )
    assert end_of(daemon, daemon.trigger("true", {}, "api")).end_reason == "success"
    assert (stopped, signalled) == ([False], [])


def test_bug_in_the_thread_of_a_run_loses_neither_run_nor_program(
    in_process, monkeypatch, fifos
):
    daemon = in_process({"hold": HELD})
    path = fifos()
    reap, adopted = daemon.reap, []
    monkeypatch.setattr(daemon, "reap", lambda child: adopted.append(child) or 1 / 0)
    monkeypatch.setattr(tr.LOG, "exception", lambda *_: None)
    run = hold(daemon, "hold", path)
    let_go(path)
    ended = end_of(daemon, run)
    assert ended.end_reason == "crashed"
    assert "ZeroDivisionError" in ended.error
    assert adopted[0].reaped
    assert reap
    assert counts(daemon) == (0, 0)


def test_deadline_added_while_the_schedule_falls_asleep_is_not_missed(
    in_process, monkeypatch, fifos
):
    """Between the end of a tick and the sleep a run is stopped: the schedule must not
    sleep for the time that was right before."""
    monkeypatch.setattr(tr, "SIGN_OF_LIFE_S", 3600.0)
    daemon = in_process({"hold": {**STUBBORN, "graceful_stop": "0.1s"}})
    path = fifos()
    run = hold(daemon, "hold", path)
    fd = reach(path)
    daemon.tick()
    tick, turns = daemon.tick, itertools.count()
    over = threading.Event()

    def tick_and_stop():
        if over.is_set():
            raise SystemExit
        delay_s = tick()
        if next(turns) == 0:
            daemon.stop(run.id)
        return delay_s

    monkeypatch.setattr(daemon, "tick", tick_and_stop)
    schedule = in_thread(daemon.run_schedule)
    try:
        # A schedule that missed it would look again after SCHEDULE_MAX_SLEEP_S.
        within(DEADLINE_S, lambda: state_of(daemon, run).ended, "SIGKILL in the end")
    finally:
        over.set()
        daemon.wake()
        with pytest.raises(SystemExit):
            schedule()
        monkeypatch.setattr(daemon, "tick", tick)
        os.close(fd)


# -- invariants under random walks


class Peaks:
    """How many programs of each task live at once, and the most there ever were."""

    def __init__(self, daemon):
        self.lock = _plain_lock()
        self.living = {}
        self.most = {}
        self.spawns = []
        spawn, reap = daemon.processes.spawn, daemon.reap
        names = {}

        def count(run_id, change):
            with self.lock:
                name = names[run_id]
                self.living[name] = self.living.get(name, 0) + change
                self.most[name] = max(self.most.get(name, 0), self.living[name])
                if change > 0:
                    self.spawns.append((name, run_id))

        def spy_spawn(command, run_id):
            names[run_id] = state_of(daemon, run_id).task_name
            count(run_id, 1)
            return spawn(command, run_id)

        def spy_reap(child):
            usage = reap(child)
            count(child.run_id, -1)
            return usage

        daemon.processes.spawn = spy_spawn  # type: ignore[method-assign]
        daemon.reap = spy_reap  # type: ignore[method-assign]


def check_events(daemon, run_ids):
    """Every run was created, started at most once and ended once, in this order; ids
    increase."""
    events = daemon.events_after(0, 0)
    ids = [event.id for event in events]
    assert ids == sorted(set(ids))
    told = {}
    for event in events:
        told.setdefault(event.run.id, []).append(event.name)
    assert sorted(told) == sorted(run_ids)
    for run_id, names in told.items():
        run = daemon.store.find_run(run_id)
        assert run
        assert run.ended
        end = "run.completed" if run.end_reason == "success" else "run.failed"
        middle = ["run.started"] if run.start_at else []
        assert names == ["run.created", *middle, end], run


def check_store(daemon, run_ids):
    """The history holds what the daemon knows, and the tallies add up."""
    for run_id in run_ids:
        assert daemon.store.find_run(run_id) == daemon.find_run(run_id)
    stored = daemon.store.list_runs(tr.RunFilter(), ("created_at", "asc"), 1000)
    assert [run.id for run in stored] == sorted(run_ids)
    found = {}
    for run in stored:
        key = (run.task_name, run.end_reason or run.status)
        found[key] = found.get(key, 0) + 1
    assert found == {(t, s): n for t, s, _, n in daemon.store.tallies()}


class Walk:
    """A model of one daemon: what each run ought to be, by the rules alone."""

    LIMITS = {"queue": (2, 4), "skip": (2, 0), "terminate": (2, 9), "timed": (1, 3)}

    def __init__(self, daemon, clock, make_fifo):
        self.daemon = daemon
        self.clock = clock
        self.make_fifo = make_fifo
        self.active = {name: [] for name in self.LIMITS}
        self.queued = {name: [] for name in self.LIMITS}
        self.reason = {}
        self.fifo = {}
        self.started_s = {}
        self.unseen = set()

    def trigger(self, name):
        """Trigger a task and do what its policy says."""
        limit, queue_max = self.LIMITS[name]
        fifo = self.make_fifo()
        run_id = hold(self.daemon, name, fifo).id
        self.fifo[run_id] = fifo
        self.reason[run_id] = None
        self.unseen.add(run_id)
        if len(self.active[name]) < limit:
            self.begin(name, run_id)
        elif name == "terminate":
            self.end(name, self.active[name][0], "stopped")
            self.begin(name, run_id)
        elif name == "skip" or len(self.queued[name]) == queue_max:
            self.reason[run_id] = "skipped" if name == "skip" else "queue_full"
        else:
            self.queued[name].append(run_id)

    def begin(self, name, run_id):
        """A run takes a slot."""
        self.active[name].append(run_id)
        self.started_s[run_id] = self.clock.monotonic_s()

    def end(self, name, run_id, reason):
        """A run ends; the next in line takes its slot."""
        self.reason[run_id] = reason
        if run_id in self.queued[name]:
            self.queued[name].remove(run_id)
            return
        self.active[name].remove(run_id)
        if self.queued[name]:
            self.begin(name, self.queued[name].pop(0))

    def exit(self, name, run_id, code):
        """A program exits."""
        let_go(self.fifo[run_id], f"{code}\n")
        self.end(name, run_id, "failed" if code else "success")

    def stop(self, name, run_id):
        """Somebody stops a run."""
        assert self.daemon.stop(run_id)
        self.end(name, run_id, "stopped")

    def pass_time(self, seconds):
        """Time goes by, and timed runs may end."""
        self.clock.pass_time(seconds)
        self.daemon.tick()
        for run_id in list(self.active["timed"]):
            if self.clock.monotonic_s() - self.started_s[run_id] >= 10:
                self.end("timed", run_id, "timeout")

    def settled(self):
        """Whether the daemon has come to where the model is."""
        for name in self.LIMITS:
            expected = (len(self.active[name]), len(self.queued[name]))
            if counts(self.daemon, name) != expected:
                return False
        for run_id in list(self.unseen):
            run = state_of(self.daemon, run_id)
            if run.end_reason != self.reason[run_id]:
                return False
            if run.ended:
                self.unseen.remove(run_id)
        # The next in line are told of last.
        names = events_of(self.daemon)
        if names.count("run.started") != len(self.started_s):
            return False
        # Only then does a time limit count; the hands of the clock must wait for it.
        return is_known(self.daemon)


@pytest.mark.parametrize("seed", range(2))
def test_random_walk_keeps_the_invariants(one_lock_only, in_process, fifos, seed):
    """I1 to I5 after every step: the slots, the order, one end each, the store."""
    dice = random.Random(seed)
    clock = FakeClock()
    daemon = in_process(
        {
            "queue": {**HELD, "max_concurrent": 2, "queue_max": 4},
            "skip": {**HELD, "max_concurrent": 2, "on_overlap": "skip"},
            "terminate": {**HELD, "max_concurrent": 2, "on_overlap": "terminate"},
            "timed": {**HELD, "timeout": "10s", "queue_max": 3},
        },
        clock,
    )
    peaks = Peaks(daemon)
    walk = Walk(daemon, clock, fifos)
    for step in range(200):
        name = dice.choice(list(walk.LIMITS))
        live = walk.active[name] + walk.queued[name]
        action = dice.choice(["trigger"] * 4 + ["exit"] * 2 + ["stop", "time"])
        if action == "trigger":
            walk.trigger(name)
        elif action == "time":
            walk.pass_time(dice.choice([1, 4, 9]))
        elif action == "exit" and walk.active[name]:
            walk.exit(name, dice.choice(walk.active[name]), dice.choice([0, 0, 1]))
        elif action == "stop" and live:
            walk.stop(name, dice.choice(live))
        within(DEADLINE_S, walk.settled, f"seed {seed}, step {step}: {action} {name}")
        for name, (limit, _) in walk.LIMITS.items():
            assert peaks.most.get(name, 0) <= limit
        if step % 10 == 0:
            check_store(daemon, list(walk.reason))
    for name in walk.LIMITS:
        while walk.active[name] or walk.queued[name]:
            walk.stop(name, (walk.queued[name] + walk.active[name])[0])
            within(DEADLINE_S, walk.settled, f"the end of {name}")
    check_store(daemon, list(walk.reason))
    check_events(daemon, list(walk.reason))
    assert peaks.most == {name: limit for name, (limit, _) in walk.LIMITS.items()}
    for name in walk.LIMITS:
        begun = [run_id for task, run_id in peaks.spawns if task == name]
        if walk.LIMITS[name][0] == 1:
            assert begun == sorted(begun)
    assert daemon.live_ids() == []
    assert len(walk.reason) > 80


def test_random_threads_keep_the_invariants(one_lock_only, in_process):
    """Four threads trigger and stop at will, and the schedule ticks beside them."""
    quick = {"run": ["sleep", "0.002"], "queue_max": 1000}
    daemon = in_process(
        {
            "one": quick,
            "three": {**quick, "max_concurrent": 3},
            "skip": {**quick, "on_overlap": "skip"},
            "terminate": {**quick, "on_overlap": "terminate", "max_concurrent": 2},
        }
    )
    peaks = Peaks(daemon)
    over = threading.Event()

    def play(seed):
        dice = random.Random(seed)
        mine = []
        for _ in range(50):
            name = dice.choice(["one", "three", "skip", "terminate"])
            mine.append(daemon.trigger(name, {}, "api").id)
            if dice.random() < 0.4:
                daemon.stop(dice.choice(mine))
            if dice.random() < 0.2:
                run = daemon.wait(mine[-1], DEADLINE_S, lambda: True)
                assert run.ended
                assert daemon.store.find_run(run.id) == run
        return mine

    def tick():
        while not over.is_set():
            daemon.tick()
            over.wait(0.001)

    ticking = in_thread(tick)
    players = [in_thread(lambda s=seed: play(s)) for seed in range(4)]
    run_ids = [run_id for player in players for run_id in player()]
    within(DEADLINE_S, lambda: not daemon.live_ids(), "the end of all runs")
    over.set()
    ticking()
    assert len(run_ids) == 200
    limits = {"one": 1, "three": 3, "skip": 1, "terminate": 2}
    assert all(peaks.most[name] <= limits[name] for name in limits), peaks.most
    for name in ("one", "skip"):
        begun = [run_id for task, run_id in peaks.spawns if task == name]
        assert begun == sorted(begun)
    check_store(daemon, run_ids)
    check_events(daemon, run_ids)


FAULTS = {
    "open": (os, "open", OSError(errno.EMFILE, "Too many open files")),
    "write": (os, "write", OSError(errno.EIO, "Input/output error")),
    "pread": (os, "pread", OSError(errno.EIO, "Input/output error")),
    "unlink": (os, "unlink", PermissionError(errno.EACCES, "Permission denied")),
    "makedirs": (os, "makedirs", OSError(errno.ENOSPC, "No space left on device")),
    "pipe": (os, "pipe", OSError(errno.EMFILE, "Too many open files")),
    "fstat": (os, "fstat", OSError(errno.EIO, "Input/output error")),
    "commit": (tr.Store, "_commit", sqlite3.OperationalError("disk I/O error")),
    "read": (tr.Store, "_rows", tr.StoreError("disk I/O error")),
    "spawn": (subprocess, "Popen", OSError(errno.EAGAIN, "try again")),
    "thread": (threading.Thread, "start", RuntimeError("can't start new thread")),
}


@contextlib.contextmanager
def failing(kind, number):
    """Meanwhile the call of that number that the module makes of a kind fails, once;
    yields how many calls there were."""
    owner, name, error = FAULTS[kind]
    works, calls = getattr(owner, name), [0]

    @functools.wraps(works)
    def fail_once(*arguments, **named):
        if sys._getframe(1).f_globals is vars(tr):
            calls[0] += 1
            if calls[0] == number:
                raise error
        return works(*arguments, **named)

    setattr(owner, name, fail_once)
    try:
        yield calls
    finally:
        setattr(owner, name, works)


def play_under_a_fault(daemon):
    """Trigger, queue, retry, stop; returns the ids of the runs that were taken."""
    taken = []
    for task in ("queue", "flaky", "queue", "skip", "skip", "queue", "flaky"):
        with contextlib.suppress(tr.Problem):
            taken.append(daemon.trigger(task, {}, "api").id)
    for run_id in taken[-2:]:
        daemon.stop(run_id)
    return taken


def test_thread_that_is_about_to_leave_does_the_job_it_is_promised(monkeypatch):
    done, threads = [], []

    class Jobs(queue.SimpleQueue):
        """In the moment in which nobody has given its thread a job, somebody does."""

        def get(self, block=True, timeout=None):
            if timeout is None:
                return super().get()
            if done == ["first"]:
                crew.do("second")
            raise queue.Empty

    def do(job):
        done.append(job)
        threads.append(threading.current_thread())

    monkeypatch.setattr(tr.queue, "SimpleQueue", Jobs)
    crew = tr.Crew(do)
    crew.do("first")
    within(DEADLINE_S, lambda: len(threads) == 2, "both jobs are done")
    threads[0].join(DEADLINE_S)
    assert (done, len(set(threads)), crew._idle) == (["first", "second"], 1, [])


def is_idle(daemon):
    """Whether no run is live, after a round of the schedule, which survives faults."""
    with contextlib.suppress(tr.StoreError, OSError):
        daemon.tick()
    return not daemon.live_ids()


def open_pipes():
    """The pipes that this process has open, where there is a /proc."""
    links = []
    for fd in os.listdir("/proc/self/fd") if os.path.exists("/proc/self/fd") else []:
        with contextlib.suppress(OSError):
            links.append(os.readlink(f"/proc/self/fd/{fd}"))
    return sorted(link for link in links if link.startswith("pipe:"))


@pytest.mark.parametrize("kind", FAULTS)
def test_sweep_of_single_faults_loses_no_run(in_process, monkeypatch, kind):
    """Whichever call fails: every run that was taken ends and has its row, no slot, no
    thread of a run, no descriptor and no child is lost, and the next run succeeds."""
    monkeypatch.setattr(tr, "STORE_RETRY_S", 0.01)
    monkeypatch.setattr(tr, "DISK_LOOK_S", 0.0)
    again = {"retry_attempts": 1, "retry_delay": "0s"}
    script = 'echo out; echo err >&2; echo 1 >"$TASKRUNNERD_RESULT"; exit $CODE'
    talk = {"run": script}
    tasks = {
        "queue": {**talk, "env": {"CODE": "0"}},
        "skip": {**talk, "env": {"CODE": "0"}, "on_overlap": "skip"},
        "flaky": {**talk, "env": {"CODE": "3"}, **again},
    }
    daemon = in_process(tasks)
    number, pipes = 0, open_pipes()
    while True:
        number += 1 + number // 16
        before = len(daemon.store.list_runs(tr.RunFilter(), ("created_at", "asc"), 999))
        with failing(kind, number) as calls:
            taken = play_under_a_fault(daemon)
            within(DEADLINE_S, lambda: is_idle(daemon), f"all ends, {kind} {number}")
        runs = daemon.store.list_runs(tr.RunFilter(), ("created_at", "asc"), 999)
        assert set(taken) <= {run.id for run in runs}
        assert all(run.ended for run in runs), (kind, number)
        check_store(daemon, [run.id for run in runs])
        assert len(runs) - before <= 7 + 2
        for task in tasks:
            assert counts(daemon, task) == (0, 0), (kind, number)
        assert (open_pipes(), daemon.processes._known) == (pipes, set())
        if calls[0] < number:
            break
    assert number > 1, "the fault was never met"
    ended = end_of(daemon, daemon.trigger("queue", {}, "api"))
    assert ended.end_reason == "success"


# -- events


def test_events_wait_for_what_is_new(in_process, fifos):
    daemon = in_process({"hold": HELD})
    seen = daemon.newest_event_id()
    assert daemon.events_after(seen, 0) == []
    listener = in_thread(lambda: daemon.events_after(seen, DEADLINE_S))
    path = fifos()
    run = hold(daemon, "hold", path)
    assert listener()[0].name == "run.created"
    let_go(path, "1\n")
    ended = end_of(daemon, run)
    events = daemon.events_after(seen, 0)
    names = ["run.created", "run.started", "run.failed"]
    assert [event.name for event in events] == names
    assert [event.run.status for event in events] == ["running", "running", "ended"]
    assert events[-1].run == ended
    assert daemon.events_after(events[1].id, 0) == events[2:]


def test_events_beyond_those_kept_are_dropped_from_the_oldest(
    in_process, fifos, monkeypatch
):
    monkeypatch.setattr(tr, "EVENTS_KEPT", 20)
    daemon = in_process({"hold": {**HELD, "on_overlap": "skip"}})
    path = fifos()
    run = hold(daemon, "hold", path)
    # Two events for each.
    for _ in range(tr.EVENTS_KEPT // 2 + 5):
        newest = hold(daemon, "hold", path)
    events = daemon.events_after(0, 0)
    assert len(events) == tr.EVENTS_KEPT
    assert events[-1].run == newest
    assert events[-1].id == daemon.newest_event_id()
    assert events_of(daemon, run) == []
    let_go(path)
    end_of(daemon, run)


# -- retention, deleting and restoring


def finished(daemon, count, task="ok"):
    """Runs of a task, one after the other, to their ends."""
    return [end_of(daemon, daemon.trigger(task, {}, "api")) for _ in range(count)]


def test_retention_goes_on_where_a_log_cannot_be_removed(
    in_process, monkeypatch, caplog
):
    clock = FakeClock()
    daemon = in_process({"ok": {"run": "true", "keep_runs": 1}}, clock)
    runs = finished(daemon, 3)

    def refuse(base):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), base)

    monkeypatch.setattr(tr, "remove_log", refuse)
    clock.pass_time(tr.RETENTION_PAUSE_S)
    daemon.tick()
    assert kept_ids(daemon) == [runs[2].id]
    assert caplog.text.count("log cannot be removed") == 2


def test_run_whose_log_was_replaced_has_its_end_and_no_last_words(in_process, fifos):
    daemon = in_process({"hold": HELD})
    path = fifos()
    run = hold(daemon, "hold", path)
    fd = reach(path, daemon)
    put_folder(daemon.log_of(run) + ".log")
    os.write(fd, b"3\n")
    os.close(fd)
    ended = end_of(daemon, run)
    assert (ended.end_reason, ended.exit_code) == ("failed", 3)
    assert ended.summary.startswith("exit 3 after")


def log_files(daemon, run):
    """What a run has left under logs/."""
    return list(Path(daemon.folder.logs).rglob(f"{run.id}*"))


def kept_ids(daemon):
    """Ids in the history, oldest first."""
    runs = daemon.store.list_runs(tr.RunFilter(), ("created_at", "asc"), 1000)
    return [run.id for run in runs]


def test_directory_without_keep_for_loses_nothing_for_a_day(
    in_process, cli, tmp_path, caplog
):
    clock = FakeClock()
    data = tmp_path / "in-process0" / "data"
    data.mkdir(parents=True)
    store, ids = tr.Store(str(data / "history.sqlite3")), tr.Ulids()
    for name, days in itertools.product(["said", "default", "forever"], [1, 89.5, 200]):
        ms = clock.ms - int(days * 86_400_000)
        run = tr.Run(ids.make(ms), name, tr.ENDED, "api", tr.time_text(ms))
        run = run._replace(end_reason=tr.SUCCESS, end_at=run.created_at)
        store.flush(store.enqueue(tr.write_created(run)))
    store.close()
    tasks = {
        "said": {"run": "true", "keep_for": "100d"},
        "default": {"run": "true"},
        "forever": {"run": "true", "keep_for": "forever"},
    }
    going = (
        "from 2027-01-16T08:00:00.000Z on runs older than 90d are removed: "
        '2 of default; "keep_for": "forever" keeps them'
    )
    daemon = in_process(tasks, clock)
    assert going in caplog.messages

    def kept():
        daemon.tick()
        return daemon.store.count_runs(tr.RunFilter())

    # What was said goes at once, one batch after the other.
    within(DEADLINE_S, lambda: clock.pass_time(1) or kept() == 8, "said")
    path = str(tmp_path / "in-process0" / "tasks.json")
    told = cli(None, "--data", str(data), "validate", "--config", path)
    assert (told.code, told.err.decode()) == (0, f"warning: {going}\n")
    caplog.clear()
    daemon = in_process(tasks, clock, after=daemon)
    assert going in caplog.messages
    clock.pass_time(86_300)
    assert kept() == 8
    clock.pass_time(3700)
    within(DEADLINE_S, lambda: clock.pass_time(1) or kept() == 6, "the default")
    caplog.clear()
    daemon = in_process(tasks, clock, after=daemon)
    assert not [text for text in caplog.messages if "are removed" in text]
    assert in_process(tasks, clock).store.keeps_all_since_ms() == 0  # a new directory


@scenes("""
keep_runs forgets the oldest after a run has ended
    with loud keep_runs=2; finish a b c d e; now kept=a,b,c,d,e logs=a,b,c,d,e
    pass 1s; now kept=d,e logs=d,e a=None

keep_runs spares runs that have not ended
    with keep_runs=1 max_concurrent=2; trigger a; finish b c d; pass 2s; now kept=a,d
    free a; expect a=success

keep_for forgets by age every hour
    with loud keep_for=2d; task other ok; finish a x@other; pass 86400s; finish b
    pass 86340s; now kept=a,x,b; pass 3660s; now kept=x,b logs=b

a deleted run can be restored
    with loud; finish a b; delete 1 a; now a=None logs=a,b newest=run.deleted,a
    delete 0 a; restore 1 a; now a=success newest=run.updated,a; restore 0 a
    now sound=True

a delete spares runs that have not ended
    trigger a b; delete 0 a b; free a; expect a=success; free b; expect b=success

a delete of the newest run changes the last run of its task
    finish a b; delete 1 b; now last=a; restore 1 b; now last=b; delete 2 a b; now last=

the trash is emptied after ten minutes
    with loud; tick; finish a; delete 1 a; pass 599s; now trash=a logs=a
    pass 3s; now trash= logs=; restore 0 a

the trash is emptied in time also when other runs end meanwhile
    with keep_runs=9; tick; finish a; delete 1 a; finish b; pass 1s; pass 602s
    now trash=
""")
def test_retention(play, scene):
    play(scene)


# -- the date is set back or forward by hours (I7)

JUMPS = pytest.mark.parametrize("hours", [-7, 7])


@JUMPS
@scenes("""
a set date changes no timeout and no grace period
    with stubborn timeout=90s graceful_stop=20s; trigger a; reach a; now a due=0.0
    date AWAY; pass 89.9s; sleeps 0.2s; now asked=; later 0.2s; date BACK
    tick; now asked=a a heard=SIGTERM,SIGCONT; date AWAY; pass 19.9s
    now a=running heard=SIGTERM,SIGCONT; later 0.2s; expect a=timeout signal=SIGKILL
    # The duration is what has passed, whatever the dates of start and end say.
    now a duration=110200000000 due=0.0

a set date keeps runs in the order of their triggers
    trigger a; date AWAY; trigger b; date AWAY; trigger c; date AWAY; trigger d
    date AWAY; now kept=a,b,c,d ids=a,b,c,d; free a; expect a=success last~d; free b
    expect b=success last=d; free c; expect c=success last=d; free d; expect d=success
    now last=d started=a,b,c,d

a set date empties the trash neither early nor late
    with keep_runs=9; tick; finish a b; delete 2 a b; date AWAY; finish c; pass 599s
    now trash=a,b; restore 1 a; pass 3s; now trash= a=success

a set date keeps the newest runs and looks every hour
    with keep_runs=2; task aged ok keep_for=1d; tick; finish x@aged a b
    date AWAY; finish c; pass 1s; now kept=x,b,c; date BACK; pass 90000s; now kept=b,c
""")
def test_set_date(play, scene, hours):
    play(scene.replace("AWAY", f"{hours}h").replace("BACK", f"{-hours}h"))


def trash(daemon):
    """Ids of deleted runs that could be restored."""
    return [run_id for _, run_id in daemon.store.trashed_before(1 << 60)]


@JUMPS
def test_set_date_loses_no_waiter(in_process, fifos, monkeypatch, hours):
    monkeypatch.setattr(tr, "HANGUP_CHECK_S", 0.01)
    clock = FakeClock()
    daemon = in_process({"hold": HELD}, clock)
    path = fifos()
    run = hold(daemon, "hold", path)
    looks = threading.Semaphore(0)

    def still_there():
        looks.release()
        return True

    waiter = in_thread(lambda: daemon.wait(run.id, 1000, still_there))
    for _ in range(2):
        clock.set_date(hours)
        for _ in range(3):  # of which the last has seen the new date
            assert looks.acquire(timeout=DEADLINE_S)

    def date_flies():
        clock.set_date(hours)
        clock.pass_time(100)
        return True

    # It takes three looks, be it seven hours later by the date or earlier.
    assert daemon.wait(run.id, 250, date_flies).status == "running"
    assert clock.monotonic_s() - 1000 == 300
    let_go(path)
    ended = end_of(daemon, run)
    assert ended.end_reason == "success"
    assert waiter() == ended


# -- restart: a dead daemon's folder, made by hand


class Remains:
    """The data directory of a daemon that died, and the next one on it."""

    def __init__(self, folder):
        self.folder = folder
        self.clock = FakeClock()
        self.data = tr.DataFolder(str(folder / "data"))
        self.ids = tr.Ulids()
        self.store = tr.Store(self.data.database)

    def leave(self, task, age_s, secret=None, **fields):
        """Record a run that was created a while ago."""
        at_ms = self.clock.ms - int(age_s * 1000)
        run = tr.Run(
            self.ids.make(at_ms), task, "pending", "api", tr.time_text(at_ms)
        )._replace(**fields)
        self.store.flush(self.store.enqueue(tr.write_created(run, secret)))
        return run

    def revive(self, tasks, sign_of_life_s=0):
        """The next daemon; the last one showed its last sign of life so long ago."""
        self.store.close()
        lock = Path(self.data.path) / "lock"
        lock.touch()
        at_s = self.clock.ms / 1000 - sign_of_life_s
        os.utime(lock, (at_s, at_s))
        assert self.data.lock() == 0
        config = tr.load_config(write_config(self.folder, {"tasks": tasks}))
        self.daemon = tr.Daemon(config, self.data, self.clock)
        self.daemon.recover()
        return self.daemon


@pytest.fixture
def remains(tmp_path):
    """A folder to leave runs in."""
    made = Remains(tmp_path)
    yield made
    daemon = made.daemon
    drained = in_thread(lambda: daemon.drain(0))
    within(DEADLINE_S, lambda: has_drained(daemon), "drained")
    drained()
    daemon.close()
    made.data.unlock()


def test_running_run_of_a_dead_daemon_has_crashed(remains):
    start_at = tr.time_text(remains.clock.ms - 60_000)
    left = remains.leave("ok", 60, status="running", start_at=start_at)
    daemon = remains.revive({"ok": {"run": "true"}}, sign_of_life_s=12)
    run = state_of(daemon, left)
    assert (run.end_reason, run.exit_code) == ("crashed", -1)
    assert run.end_at == tr.time_text(remains.clock.ms - 12_000)
    assert "daemon died" in run.error
    assert run.end_at in run.error
    assert daemon.store.find_run(left.id) == run
    assert daemon.task_states()[0].last_run == run
    assert daemon.live_ids() == []


@pytest.mark.parametrize("kept_bytes", [None, 0, 50])
def test_crashed_run_has_its_output_when_its_index_is_lost(remains, kept_bytes):
    left = remains.leave("ok", 60, status="running")
    base = tr.log_base(remains.data.logs, "ok", left.id)
    writer = tr.LogWriter(base, tr.MIB, "drop_old", [])
    for n in range(5):
        writer.write(0, b"line %d\n" % n, remains.clock.ms, 1.0)
    writer.close(remains.clock.ms)
    if kept_bytes is None:
        os.unlink(base + ".idx")
    else:
        os.truncate(base + ".idx", kept_bytes)
    daemon = remains.revive({"ok": {"run": "true"}})
    run = state_of(daemon, left)
    assert (run.end_reason, run.output_bytes) == ("crashed", 35)
    kept = read_log(daemon.log_of(run))
    assert kept.raw == b"".join(b"line %d\n" % n for n in range(5))
    assert kept.texts == [f"line {n}" for n in range(5)]


def put_folder(path):
    """A folder that is not empty."""
    os.makedirs(path + "/within")


def put_link(path):
    """A link to somebody else's file."""
    Path(path + ".other").write_text("not a log\n")
    os.symlink(path + ".other", path)


# What may stand in the place of a file of a log, and what is said of it.
OBSTACLES = {
    "folder": (put_folder, "not a regular file"),
    "fifo": (os.mkfifo, "not a regular file"),
    "device": (functools.partial(os.symlink, "/dev/zero"), "a link, not a regular"),
    "loop": (lambda path: os.symlink(path, path), "a link, not a regular"),
    "dangling": (functools.partial(os.symlink, "no/where"), "a link, not a regular"),
    # What the link leads to would be cut and written to, and shown.
    "link": (put_link, "a link, not a regular"),
    "locked": (lambda path: os.close(os.open(path, os.O_CREAT, 0)), "Permission"),
}
needs_no_root = pytest.mark.skipif(os.geteuid() == 0, reason="root may read all")
every_obstacle = pytest.mark.parametrize(
    ("ending", "obstacle"),
    [
        pytest.param(ending, name, marks=[needs_no_root] * (name == "locked"))
        for ending, name in itertools.product((".log", ".idx"), OBSTACLES)
    ],
)


def obstruct(base, ending, obstacle):
    """Put something in the place of a file; returns what is to be said of it."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(base + ending)
    put, said = OBSTACLES[obstacle]
    put(base + ending)
    return f"the log cannot be read: {os.path.basename(base)}{ending}: {said}"


@every_obstacle
def test_crashed_run_whose_log_cannot_be_read_does_not_stop_the_start(
    remains, ending, obstacle
):
    bad, good = (remains.leave("ok", 60, status="running") for _ in range(2))
    for run in (bad, good):
        base = tr.log_base(remains.data.logs, "ok", run.id)
        writer = tr.LogWriter(base, tr.MIB, "drop_old", [])
        writer.write(0, b"before\n", remains.clock.ms, 1.0)
        writer.close(remains.clock.ms)
    said = obstruct(tr.log_base(remains.data.logs, "ok", bad.id), ending, obstacle)
    daemon = in_thread(lambda: remains.revive({"ok": {"run": "true"}}))()
    run = state_of(daemon, bad)
    assert (run.end_reason, run.output_bytes) == ("crashed", None)
    assert said in run.error
    run = state_of(daemon, good)
    assert (run.end_reason, run.output_bytes) == ("crashed", 7)
    assert "log" not in run.error


@pytest.mark.parametrize("is_back, silent_s", [(False, 3600), (True, 0)])
def test_crashed_run_never_ends_before_it_began(remains, is_back, silent_s):
    """Although its daemon was silent for long, or the date was set back."""
    start_at = tr.time_text(remains.clock.ms - 1000)
    left = remains.leave("ok", 1, status="running", start_at=start_at)
    remains.clock.set_date(-7 * is_back)
    daemon = remains.revive({"ok": {"run": "true"}}, sign_of_life_s=silent_s)
    assert state_of(daemon, left).end_at == start_at


def test_crashed_run_of_a_task_no_longer_declared_is_settled(remains):
    running = remains.leave("gone", 5, status="running")
    pending = remains.leave("gone", 5)
    daemon = remains.revive({"ok": {"run": "true"}})
    assert state_of(daemon, running).end_reason == "crashed"
    now = state_of(daemon, pending)
    assert now.end_reason == "skipped"
    assert "no longer declared" in now.error


def test_pending_runs_go_on_in_their_order(remains, fifos):
    paths = [fifos() for _ in range(4)]
    left = [remains.leave("hold", 9, params={"fifo": path}) for path in paths]
    daemon = remains.revive({"hold": HELD})
    assert counts(daemon) == (1, 3)
    fresh_path = fifos()
    fresh = hold(daemon, "hold", fresh_path)
    for run, path in zip([*left, fresh], [*paths, fresh_path]):
        fd = reach(path)
        assert state_of(daemon, run).status == "running"
        assert daemon.store.find_run(run.id).status == "running"
        os.close(fd)
        assert end_of(daemon, run).end_reason == "success"


def test_pending_runs_go_on_with_their_secret_parameters(remains, tmp_path):
    params = [{"env": "PLAIN"}, {"env": "SECRET", "secret": True}]
    shown = {"PLAIN": "seen", "SECRET": tr.HIDDEN}
    left = remains.leave("tell", 9, {"SECRET": "kept to itself"}, params=shown)
    script = f'printf "%s" "$PLAIN $SECRET" >"{tmp_path}/told"'
    daemon = remains.revive({"tell": {"params": params, "run": script}})
    ended = end_of(daemon, left)
    assert ended.end_reason == "success"
    assert ended.params == shown
    assert (tmp_path / "told").read_text() == "seen kept to itself"
    # Once a run has ended nobody needs them.
    rows = daemon.store._rows("select secret_params from runs")
    assert rows == [(None,)]


def test_run_and_event_ids_go_on_increasing(remains):
    newest = remains.leave("ok", -3600, status="ended", end_reason="success")
    daemon = remains.revive({"ok": {"run": "true"}})
    before = daemon.newest_event_id()
    run = daemon.trigger("ok", {}, "api")
    assert run.id > newest.id
    assert daemon.newest_event_id() > before
    end_of(daemon, run)


# -- restart: real daemons


def stored(daemon, run):
    """A run in the history of a daemon that does not run."""
    store = tr.Store(str(daemon.folder / ".taskrunnerd" / "history.sqlite3"))
    found = store.find_run(run["id"])
    store.close()
    assert found
    return found


def test_sigterm_ends_running_runs_and_leaves_queued_ones(serve, fifos, monkeypatch):
    # Its client may be slow to come for its answer.
    monkeypatch.setattr(tr, "LINGER_S", DEADLINE_S)
    task = {
        "params": [
            {"arg": "fifo", "required": True},
            {"env": "SECRET", "secret": True, "default": "default"},
        ],
        "run": 'read -r code <"$1" || code=0; echo "code $code";'
        ' printf %s "$SECRET" >"$1.told"; exit "$code"',
    }
    daemon = serve({"hold": task})
    paths = [fifos() for _ in range(3)]
    secret = "not for the history"
    runs = [daemon.trigger("hold", {"fifo": p, "SECRET": secret}) for p in paths]
    held = reach(paths[0])
    query = "?wait=true&wait_timeout=600"
    waiter = in_thread(lambda: daemon.trigger("hold", {"fifo": paths[0]}, query))
    path = "/api/tasks/hold/runs?status=pending"
    within(DEADLINE_S, lambda: daemon.get(path).json["total"] == 3, "a waiting client")
    assert daemon.end(signal.SIGTERM) == 0
    os.close(held)
    last = waiter()
    assert last["status"] == "pending"
    assert last["exit_code"] == -1
    first = stored(daemon, runs[0])
    assert (first.end_reason, first.exit_code) == ("daemon_stopped", 143)
    assert stored(daemon, runs[1]).status == "pending"
    daemon.start()
    for run, fifo in [*zip(runs[1:], paths[1:]), (last, paths[0])]:
        fd = reach(fifo)
        assert daemon.run_now(run)["status"] == "running"
        os.write(fd, b"0\n")
        os.close(fd)
        assert daemon.ended(run)["end_reason"] == "success"
        assert daemon.raw(run) == b"code 0\n"
    for fifo in paths[1:]:
        assert Path(fifo + ".told").read_text() == secret
    log = daemon.log.read_text()
    assert secret not in log


def test_sigint_ends_the_daemon_too(serve):
    assert serve({"ok": {"run": "true"}}).end(signal.SIGINT) == 0


def test_shutdown_timeout_kills_what_does_not_end(serve, fifos):
    tasks = {"hold": {**STUBBORN, "graceful_stop": "1h"}}
    daemon = serve(tasks, "--shutdown-timeout", "200ms")
    path = fifos()
    run = daemon.trigger("hold", {"fifo": path})
    held = reach(path)
    # Long before the hour that the task would give it.
    assert daemon.end() == 0
    os.close(held)
    ended = stored(daemon, run)
    assert (ended.end_reason, ended.signal) == ("daemon_stopped", "SIGKILL")


def test_second_signal_means_now(serve, fifos):
    program = (
        "import signal, sys\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n"
        "def tell(text):\n"
        "    with open(sys.argv[1], 'w') as fifo:\n"
        "        fifo.write(text)\n"
        "tell('ready\\n')\n"
        "signal.sigwait([signal.SIGTERM])\n"
        "tell('asked to stop\\n')\n"
        "signal.pause()\n"
    )
    run = [sys.executable, "-c", program]
    tasks = {"hold": {**HELD, "run": run, "graceful_stop": "1h"}}
    daemon = serve(tasks, "--shutdown-timeout", "1h")
    path = fifos()
    with reading(path) as next_line:
        held = daemon.trigger("hold", {"fifo": path})
        assert next_line() == "ready"
        daemon.process.send_signal(signal.SIGTERM)
        assert next_line() == "asked to stop"
        assert daemon.process.poll() is None
        assert daemon.end() == 0
    ended = stored(daemon, held)
    assert (ended.end_reason, ended.signal) == ("daemon_stopped", "SIGKILL")


@pytest.fixture
def stranger():
    """Start programs that no daemon has to do with; their pids."""
    started = []

    def start():
        started.append(subprocess.Popen(NAP, stdout=-1, start_new_session=True))
        return started[-1].pid

    yield start
    for process in started:
        process.kill()
        process.communicate()


@NEEDS_PROC
def test_killed_daemon_leaves_nothing_behind_and_tells(serve, fifos, stranger):
    """SIGKILL with a program, a stubborn grandchild and one that left the group; the
    journal also names strangers."""
    program = (
        "import os, signal, sys\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('before the kill', flush=True)\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "open(sys.argv[1], 'w').write(f'{os.getpid()}\\n')\n"
        "signal.pause()\n"
    )
    task = {**HELD, "run": [sys.executable, "-c", program], "max_concurrent": 2}
    daemon = serve({"leave": task, "hold": HELD})
    path = fifos()
    with reading(path) as next_line:
        run = daemon.trigger("leave", {"fifo": path})
        family = [int(next_line()) for _ in range(3)]
        other = daemon.trigger("leave", {"fifo": path})
        others = [int(next_line()) for _ in range(3)]
    fifo = fifos()
    pending = [daemon.trigger("hold", {"fifo": fifo}) for _ in range(3)]
    within(DEADLINE_S, lambda: daemon.raw(run) and daemon.raw(other), "output")
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    killed_at = tr.time_text(time.time_ns() // 1_000_000)
    journal = daemon.folder / ".taskrunnerd" / "processes"
    recorded = {line.split()[0]: line for line in journal.read_text().splitlines()}
    # Nobody gets a pid again while the program that had it was still being started.
    last_s = max(float(line.split()[3]) for line in recorded.values())
    within(DEADLINE_S, lambda: tr._boot_time_s() > last_s + 0.1, "a later moment")
    strange = [stranger(), stranger()]
    with open(journal, "a") as file:
        for pid, ours in zip(strange, (run, other)):
            # As if its pid had been given to somebody else since.
            line = re.sub(r" \d+ ", f" {pid} ", recorded[ours["id"]], count=1)
            print(line, file=file)
    assert all(map(is_alive, family + others))
    daemon.start()
    within(DEADLINE_S, lambda: not any(map(is_alive, family + others)), "their end")
    assert all(map(is_alive, strange))
    for crashed in (run, other):
        now = daemon.run_now(crashed)
        assert (now["end_reason"], now["exit_code"]) == ("crashed", -1)
        assert now["start_at"] <= now["end_at"] <= killed_at
        assert "daemon died" in now["error"]
        assert "3 of its processes" in now["error"]
        assert daemon.raw(now) == b"before the kill\n"
        assert now["output_bytes"] == 16
    # What ran had a slot; it crashed too, and the next ones go on in their order.
    assert daemon.run_now(pending[0])["end_reason"] == "crashed"
    for late in pending[1:]:
        fd = reach(fifo)
        assert daemon.run_now(late)["status"] == "running"
        os.close(fd)
        assert daemon.ended(late)["end_reason"] == "success"


# 200 of them take a minute; more is better, when there is time.
KILLS = int(os.environ.get("TASKRUNNERD_TEST_KILLS", "40"))
# Never ends by itself, and leaves a child; its output comes in pieces.
FAMILY_OUTPUT = b"".join(b"%d\n" % n for n in range(1, 3001))
KILLED_TASKS = {
    "quick": {"run": "echo quick", "max_concurrent": 2, "queue_max": 20},
    "family": {
        "run": "echo 1; sleep 600 & seq 2 1500; seq 1501 3000; exec sleep 600",
        "max_concurrent": 3,
        "on_overlap": "skip",
    },
}


class Crowd:
    """Clients that trigger and read until the daemon dies, and what they were told."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.acknowledged = []
        # Output that a client has read, by run.
        self.seen = {}
        self.joins = []

    def begin(self, seed):
        """Let clients loose."""
        for client in range(3):
            rng = random.Random(seed + client)
            self.joins.append(in_thread(lambda rng=rng: self.use(rng)))

    def join(self):
        """Wait until the daemon's death has reached every client."""
        while self.joins:
            self.joins.pop()()

    def use(self, rng):
        """What a client does, until the daemon dies."""
        connection = self.daemon.connect()
        mine = []
        with contextlib.suppress(OSError, http.client.HTTPException):
            while True:
                task = rng.choice(["quick", "family"])
                status, body = self.ask(connection, "POST", f"/api/tasks/{task}/run")
                if status == 201:
                    run_id = json.loads(body)["id"]
                    self.acknowledged.append(run_id)
                    mine += [run_id] * (task == "family")
                for run_id in mine:
                    path = f"/api/tasks/family/runs/{run_id}/log/raw"
                    _, self.seen[run_id] = self.ask(connection, "GET", path)
        connection.close()

    def ask(self, connection, method, path):
        """An answer that came as a whole."""
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.read()

    def rows(self):
        """(status, end_reason, error) of every run in the history."""
        path = self.daemon.folder / ".taskrunnerd" / "history.sqlite3"
        with contextlib.closing(
            sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        ) as history:
            query = "select id, status, end_reason, error from runs"
            return {row[0]: row[1:] for row in history.execute(query)}

    def reasons(self):
        """How acknowledged runs have ended, by the history."""
        acknowledged, rows = list(self.acknowledged), self.rows()
        return {rows[run_id][1] for run_id in acknowledged if rows[run_id][1]}

    def programs(self):
        """(run id, pid) of every process that a run of this daemon has started."""
        ours = set(marked_pids(self.daemon.mark))
        return {pair for pair in tr.marked_processes() if pair[1] in ours}

    def check(self, orphans):
        """After a start: everything told is known, what ran has crashed and says so,
        and nothing of it is alive. `orphans` is what the dead daemon left."""
        rows = self.rows()
        assert len(set(self.acknowledged)) == len(self.acknowledged)
        assert set(self.acknowledged) <= set(rows)
        dead = {run_id for run_id, row in rows.items() if row[0] == "ended"}

        def is_clean():
            living = self.programs()
            return not living & orphans and not dead & {run_id for run_id, _ in living}

        # What is killed may take a moment to be gone.
        within(DEADLINE_S, is_clean, "nothing of a dead daemon is alive")
        for run_id in self.seen:
            status, reason, error = rows[run_id]
            assert (status, reason) == ("ended", "crashed")
            assert "daemon died" in error


# Whoever finds the queue full makes a run and no claim.
REPEATED_TASKS = {"true": {"run": "true", "max_concurrent": 64, "queue_max": 10_000}}


class Repeating:
    """Clients that trigger with key after key, each until it was answered with 201."""

    def __init__(self, daemon, count):
        self.daemon = daemon
        self.keys = []
        # By client: one may be at it while others have gone far.
        self.last = {}
        self.ended = threading.Event()
        self._joins = [
            in_thread(functools.partial(self._repeat, n)) for n in range(count)
        ]

    def _repeat(self, client):
        for number in itertools.count():
            key = f"{client}-{number}"
            self.last[client] = key
            self.keys.append(key)
            while not self._try(key):
                if self.ended.is_set():
                    return
            if self.ended.is_set():
                return

    def _try(self, key):
        connection = self.daemon.connect()
        headers = {"Idempotency-Key": key, "X-Request-Id": key}
        with contextlib.suppress(OSError, http.client.HTTPException):
            connection.request("POST", "/api/tasks/true/run", headers=headers)
            answer = connection.getresponse()
            answer.read()
            connection.close()
            return answer.status == 201
        connection.close()
        return False

    def more(self, count):
        """Return when so many more keys were begun."""
        enough = len(self.keys) + count
        within(DEADLINE_S, lambda: len(self.keys) >= enough, "more triggers")

    def end(self):
        """Return when all have got their last answer, if there was one."""
        self.ended.set()
        for join in self._joins:
            join()

    def check(self):
        """Repeat the last keys; fail unless each one has made exactly one run."""
        for key in {*self.keys[-len(self._joins) :], *self.last.values()}:
            assert self._try(key)
        query = "/api/runs?limit=1000"
        runs = []
        while len(runs) < self.daemon.get(query).json["total"]:
            runs += self.daemon.get(f"{query}&offset={len(runs)}").json["runs"]
        made = collections.Counter(run["request_id"] for run in runs)
        assert made == collections.Counter(set(self.keys))


def test_daemon_killed_between_two_tries_with_one_key_makes_one_run(serve):
    daemon = serve(REPEATED_TASKS)
    clients = Repeating(daemon, 4)
    clients.more(20)
    clients.ended.set()
    daemon.end(signal.SIGKILL)
    clients.end()
    daemon.start()
    clients.check()


@NEEDS_PROC
def test_daemon_killed_again_and_again_loses_no_run(serve):
    """SIGKILL at random moments, those of its start among them, while clients trigger
    runs with children and output and read it."""
    rng = random.Random(5)
    daemon = serve(KILLED_TASKS)
    daemon.end(signal.SIGKILL)
    crowd = Crowd(daemon)
    orphans = set()
    for _ in range(KILLS):
        daemon.launch()
        # These pauses wait for nothing: the moment itself is what is tried.
        if rng.random() < 0.25:
            time.sleep(rng.uniform(0, 0.2))
        else:
            daemon.await_ready()
            crowd.check(orphans)
            orphans.clear()
            crowd.begin(rng.getrandbits(32))
            time.sleep(rng.uniform(0, rng.choice([0.02, 0.05, 0.1])))
        daemon.end(signal.SIGKILL)
        crowd.join()
        orphans |= crowd.programs()
    # Once more, when somebody has read output and an acknowledged run has succeeded: no
    # pause promises it on a busy machine.
    daemon.start()
    crowd.check(orphans)
    crowd.begin(rng.getrandbits(32))
    within(DEADLINE_S, lambda: any(list(crowd.seen.values())), "output was read")
    within(DEADLINE_S, lambda: "success" in crowd.reasons(), "success was told of")
    daemon.end(signal.SIGKILL)
    crowd.join()
    orphans = crowd.programs()
    daemon.start()
    crowd.check(orphans)
    within(
        DEADLINE_S, lambda: {r[0] for r in crowd.rows().values()} == {"ended"}, "end"
    )
    assert crowd.reasons() == {"success", "crashed"}
    assert any(crowd.seen.values())
    assert daemon.get("/api/runs").json["total"] == len(crowd.rows())
    for run_id, seen in crowd.seen.items():
        run = {"task_name": "family", "id": run_id}
        kept = daemon.raw(run)
        assert kept.startswith(seen) and FAMILY_OUTPUT.startswith(kept)
        texts = [line["text"] for line in daemon.lines(run)]
        assert texts == kept.decode().splitlines()


def test_second_daemon_on_the_same_folder_is_refused(shared):
    command = shared.command("--port", "0", "--config", "tasks.json")
    second = subprocess.run(
        command,
        cwd=shared.folder,
        env=shared.environment(),
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
    )
    assert second.returncode == 75
    assert second.stdout == ""
    assert f"pid {shared.process.pid}" in second.stderr
    assert ".taskrunnerd" in second.stderr
    assert shared.run("true")["end_reason"] == "success"


def test_folder_of_a_daemon_that_starts_names_its_pid(tmp_path):
    """Also before it listens, when the lock file still names the last daemon."""
    first, second = (tr.DataFolder(str(tmp_path / "data")) for _ in range(2))
    assert first.lock() == 0
    first.sign(url="http://127.0.0.1:1")
    record = (tmp_path / "data" / "lock").read_text()
    first.unlock()
    (tmp_path / "data" / "lock").write_text(record.replace(str(os.getpid()), "999999"))
    assert first.lock() == 0
    assert second.lock() == os.getpid()
    first.unlock()
    assert second.lock() == 0
    second.unlock()


@NEEDS_PROC
@pytest.mark.parametrize("is_patient", [True, False])
def test_folder_of_a_daemon_that_has_died_is_waited_for(
    tmp_path, monkeypatch, is_patient
):
    """What it was starting when it was killed has the lock until the exec."""
    monkeypatch.setattr(tr, "LOCK_WAIT_S", DEADLINE_S if is_patient else 0.0)
    dead = subprocess.Popen(["true"])
    dead.wait()
    left, folder = (tr.DataFolder(str(tmp_path / "data")) for _ in range(2))
    assert left.lock() == 0
    (tmp_path / "data" / "lock").write_text(json.dumps({"pid": dead.pid}))
    tries = Gate(folder, "_try_lock", lambda: True, after=True)
    owner = in_thread(folder.lock)
    tries.await_caller()
    left.unlock()
    tries.open()
    assert owner() == (0 if is_patient else dead.pid)
    if is_patient:
        folder.unlock()


def test_folder_says_whose_it_is_also_when_that_cannot_be_written(
    tmp_path, monkeypatch
):
    folder = tr.DataFolder(str(tmp_path / "data"))
    assert folder.lock() == 0
    folder.sign(url="http://127.0.0.1:1")
    before = (tmp_path / "data" / "lock").read_bytes()

    def fail(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "pwrite", fail)
    with pytest.raises(OSError, match="No space"):
        folder.sign(url="http://127.0.0.1:2")
    assert (tmp_path / "data" / "lock").read_bytes() == before
    folder.unlock()


def test_sign_of_life_is_shown_every_few_seconds(in_process):
    clock = FakeClock()
    daemon = in_process({"ok": {"run": "true"}}, clock)
    daemon.tick()
    # The second look finds the reserve whole.
    clock.pass_time(tr.SIGN_AGAIN_S)
    daemon.tick()
    lock = Path(daemon.folder.path) / "lock"
    os.utime(lock, (1, 1))
    clock.pass_time(tr.SIGN_OF_LIFE_S - 0.1)
    daemon.tick()
    assert lock.stat().st_mtime == 1
    clock.pass_time(0.2)
    daemon.tick()
    assert lock.stat().st_mtime > 1


@NEEDS_PROC
def test_hundreds_of_runs_leave_no_files_threads_or_children(programs):
    pid = programs.process.pid

    def holdings():
        children = Path(f"/proc/{pid}/task/{pid}/children")
        return (
            len(os.listdir(f"/proc/{pid}/fd")),
            len(os.listdir(f"/proc/{pid}/task")),
            children.read_text() if children.exists() else "",
        )

    def play():
        connection = programs.connect()
        for number in range(75):
            task = ("exit", "die", "text", "stops-at-fault")[number % 4]
            params = {"exit": {"code": "1"}, "die": {"signal": "TERM"}}.get(task, {})
            path = f"/api/tasks/{task}/run?wait=true"
            body = {"params": params}
            assert programs.request("POST", path, body, None, connection).status == 201
        connection.close()

    def crowd():
        for player in [in_thread(play) for _ in range(4)]:
            player()

    crowd()
    within(DEADLINE_S, lambda: not holdings()[2], "no children")
    files, threads, _ = holdings()

    def as_before():
        # A few more may lie ready for the next ones; a leak would be one per run.
        now = holdings()
        return now[0] < files + 30 and now[1] < threads + 30 and not now[2]

    crowd()
    within(DEADLINE_S, as_before, f"{files} files and {threads} threads again")


# -- schedules


def past_runs(daemon, task):
    """The runs of a task, oldest first, once all have ended."""

    def look():
        return not daemon.live_ids()

    within(DEADLINE_S, look, "end of all runs")
    which = tr.RunFilter(task_name=task)
    return daemon.store.list_runs(which, ("created_at", "asc"), 1000)


def reasons(runs):
    """Why the runs ended."""
    return [run.end_reason for run in runs]


def clock_at(text):
    """A clock that stands at a time in UTC."""
    clock = FakeClock()
    clock.ms = utc_s(text) * 1000
    return clock


def next_run(daemon, task="a"):
    """When a task runs next."""
    (state,) = [s for s in daemon.task_states() if s.task.name == task]
    return tr.time_text(state.next_run_ms or 0)


@scenes("""
a tick fires when it is due
    at '2026-03-04 10:17:30'; task a minutely; now a next=2026-03-04T10:18:00.000Z; tick
    now past=; pass 30s; now next=2026-03-04T10:19:00.000Z past=success@10:18:00 by=cron
    tick; now past=success@10:18:00

a suspended machine catches up with the tick that is on time
    at '2026-03-04 10:00:30'; task a minutely; date 3575s; tick
    now past=missed@10:59:00,success@11:00:00 errors~'59 ticks were missed'

a tick that a short restart delays is not missed
    at '2026-03-04 10:17:50'; task a minutely; later 20s; restart; tick
    now past=success@10:18:00

a schedule that is new or changed has missed nothing
    at '2026-03-04 10:00:30'; task a minutely; task b minutely; later 1h
    drop b; task a cron='*/2 * * * *'; task c minutely; restart; tick; later 1h
    drop a; drop c; task b minutely; restart; tick; now a past= b past= c past=

a clock that steps back fires no tick twice
    at '2026-03-04 10:17:30'; task a minutely; pass 30s; date -45s; tick
    now next=2026-03-04T10:18:00.000Z; pass 25s; pass 25s; pass 25s
    now past=success@10:18:00; pass 40s; now past=success@10:18:00,success@10:19:00

run_on_start runs at every start
    task a ok run_on_start=true; now past=success; restart
    now past=success,success by=startup,startup

every counts from the start and misses nothing before
    at '2026-03-04 10:00:07'; task a ok cron='@every 90s'; later 1h; restart; pass 90s
    now past=success@11:01:37

a failing store delays a tick but does not lose it
    at '2026-03-04 10:17:59'; task a minutely; store full; fails pass 1s; now live=
    store works; pass 1s; now past=success@10:18:00

a reload while ticks are fired does not miss them again
    task a minutely catch_up=skip; later 600s; gate flush caller; begin tick; meet flush
    reload; open flush; join; tick; now past=missed@08:09:00,success@08:10:00 missed=9

the schedule goes on when no thread is to be had
    # At the limit of processes: a tick that ends a queued run under terminate.
    task a minutely endless on_overlap=terminate graceful_stop=1h; trigger x@a y@a
    threads none; pass 60s; threads ok; expect y=stopped x=running asked=x

counts go on after a restart and have missed ticks
    at '2026-03-04 10:30'; task a minutely cron='0 * * * *'; finish x@a; later 3h
    restart; tick; now past=success,missed@13:00:00,success@13:00:00 missed=3
    now ends=missed/cron/1,success/api/1,success/cron/1

a reload neither runs on start nor catches up
    at '2026-03-04 10:17:30'; task kept minutely; later 40s; task new minutely
    task start ok run_on_start=true; reload; tick
    now kept past=success@10:18:00 new past= start past=
    drop start; task kept cron='*/2 * * * *'; reload; pass 60s
    now kept past=success@10:18:00 new past=success@10:19:00
    drop new; drop kept; task kept ok; reload
    now schedules= next=1970-01-01T00:00:00.000Z
    pass 600s; now kept past=success@10:18:00 new past=success@10:19:00
""")
def test_schedules(play, scene):
    play(scene)


def test_schedule_thread_wakes_for_a_tick(serve):
    daemon = serve({"a": {**MINUTELY, "cron": "* * * * * *"}})
    shown = daemon.get("/api/tasks/a").json
    assert shown["next_run_at"] > daemon.get("/api/info").json["started_at"]

    def look():
        runs = daemon.get("/api/runs?triggered_by=cron&status=success").json["runs"]
        return runs if len(runs) >= 2 else None

    runs = within(DEADLINE_S, look, "two ticks")
    for run in runs:
        assert run["scheduled_at"].endswith(".000Z")
        assert run["start_at"] >= run["scheduled_at"]


def test_scheduled_run_has_the_defaults_and_knows_its_tick(in_process):
    clock = clock_at("2026-03-04 10:17:59")
    params = [{"env": "NAME", "default": "x"}]
    script = 'echo "$NAME $TASKRUNNERD_TRIGGER $TASKRUNNERD_SCHEDULED_AT"'
    daemon = in_process({"a": {**MINUTELY, "run": script, "params": params}}, clock)
    clock.pass_time(1)
    daemon.tick()
    (run,) = past_runs(daemon, "a")
    assert run.params == {"NAME": "x"}
    output = Path(daemon.log_of(run) + ".log").read_text()
    assert output == "x cron 2026-03-04T10:18:00.000Z\n"


@pytest.mark.parametrize("settings, count, expected", [
    ("catch_up=skip", 0, ""),
    ("catch_up=latest", 1, "success@13:00:00"),
    ("catch_up=all", 3, "success@11:00:00,success@12:00:00,success@13:00:00"),
    ("catch_up=all max_catch_up_runs=2", 2, "success@12:00:00,success@13:00:00"),
    ("catch_up=all queue_max=1", 3,
        "success@11:00:00,success@12:00:00,queue_full@13:00:00"),
    ("catch_up=all on_overlap=skip", 3,
        "success@11:00:00,skipped@12:00:00,skipped@13:00:00"),
])  # fmt: skip
def test_downtime_leaves_one_row_and_then_catches_up(play, settings, count, expected):
    past = f"missed@13:00:00,{expected}".rstrip(",")
    # Neither the next daemon nor a later one has missed them again.
    play(f"""
        at '2026-03-04 10:30'; task a minutely cron='0 * * * *' {settings}; later 3h
        restart; tick; now past={past} errors~'3 ticks were missed after 2026-03-04'
        now errors~'T10:30:00.000Z until 2026-03-04T13:00:00.000Z'
        now errors~'catching up on {count}'; tick; restart; tick; now past={past}
    """)


def test_restarts_never_fire_a_tick_twice(in_process):
    rng = random.Random(9)
    clock = clock_at("2026-03-04 10:00:30")
    tasks = {"a": {**MINUTELY, "catch_up": "all", "queue_max": 1000}}
    daemon = in_process(tasks, clock)
    for _ in range(25):
        clock.pass_time(rng.choice([1, 20, 45, 60, 200]))
        if rng.random() < 0.2:
            clock.ms -= rng.choice([500, 30_000, 120_000])
        if rng.random() < 0.5:
            daemon = in_process(tasks, clock, after=daemon)
        daemon.tick()
    runs = [run for run in past_runs(daemon, "a") if run.end_reason != "missed"]
    ticks = [run.scheduled_at for run in runs]
    assert len(ticks) > 10
    assert len(set(ticks)) == len(ticks)


@needs_zones
def test_second_showing_of_a_fixed_hour_leaves_a_row(play):
    play("""
        at '2026-10-25 00:29:59'
        task a minutely cron='30 2 * * *' timezone=Europe/Berlin; pass 1s
        now next=2026-10-26T01:30:00.000Z; pass 1h
        now past=success@00:30:00,dst_skipped@01:30:00
        now errors~',second of two 02:30 on 2026-10-25' errors~'does not fire again'
    """)


def test_jitter_spreads_tasks_and_is_stable(tmp_path, in_process):
    task = task_of(tmp_path, jitter="10m")
    slips = {tr.slip_ms(task._replace(name=f"task-{n}")) for n in range(100)}
    assert len(slips) == 100
    assert min(slips) < 60_000 and 540_000 < max(slips) < 600_000
    assert tr.slip_ms(task_of(tmp_path)) == 0
    clock = clock_at("2026-03-04 10:59:59")
    tasks = {"a": {**MINUTELY, "cron": "@hourly", "jitter": "10m"}}
    daemon = in_process(tasks, clock)
    clock.ms += 1000 + tr.slip_ms(task) - 1
    daemon.tick()
    assert past_runs(daemon, "a") == []
    clock.ms += 1
    daemon.tick()
    (run,) = past_runs(daemon, "a")
    assert run.scheduled_at == "2026-03-04T11:00:00.000Z"


def test_three_hundred_tasks_start_on_the_same_second(in_process):
    clock = clock_at("2026-03-04 10:17:59")
    daemon = in_process({f"task-{n}": MINUTELY for n in range(300)}, clock)
    clock.pass_time(1)
    daemon.tick()
    within(DEADLINE_S, lambda: not daemon.live_ids(), "end of 300 runs")
    which = tr.RunFilter(triggered_by="cron", status="success")
    assert daemon.store.count_runs(which) == 300


def test_tick_costs_nothing_for_tasks_that_are_not_due(in_process, monkeypatch):
    clock = clock_at("2026-03-04 10:17:59")
    yearly = {"run": "true", "cron": "@yearly", "timezone": "UTC"}
    tasks = {f"task-{n}": yearly for n in range(1000)}
    daemon = in_process({**tasks, "a": MINUTELY}, clock)
    asked = []
    plain = tr.next_tick

    def counting(cron, *rest):
        asked.append(cron.text)
        return plain(cron, *rest)

    monkeypatch.setattr(tr, "next_tick", counting)
    clock.pass_time(1)
    daemon.tick()
    assert len(past_runs(daemon, "a")) == 1
    assert set(asked) == {"* * * * *"}
    assert len(asked) < 10


def test_year_of_hundreds_of_schedules_on_a_fake_clock(tmp_path):
    rng = random.Random(365)
    task = task_of(tmp_path)
    lanes = []
    year_ms = utc_s("2026-01-01 00:00") * 1000
    timetable = tr.Timetable()
    for number in range(500):
        weekly = f"{rng.randrange(60)} {rng.randrange(24)} * * {rng.randrange(7)}"
        hourly = f"{rng.randrange(60)} * * * *"
        cron = tr.parse_cron(hourly if number < 2 else weekly)
        lane = tr.Lane(task._replace(name=f"task-{number}", cron=cron), None)
        lane.seen_s = year_ms // 1000 - 1
        timetable.add(lane, 0)
        lanes.append(lane)
    fired = collections.Counter()
    end_ms = utc_s("2027-01-01 00:00") * 1000
    while timetable.next_ms < end_ms:
        now_ms = int(timetable.next_ms)
        for lane in timetable.take_due(now_ms):
            plan = tr.plan_ticks(lane.task, lane.seen_s, now_ms // 1000, 0)
            assert not plan.missed
            fired[lane.task.name] += len(plan.on_time)
            lane.seen_s = now_ms // 1000
            timetable.add(lane, 0)
    assert [fired[f"task-{n}"] for n in range(2)] == [8760] * 2
    assert all(fired[lane.task.name] in (52, 53) for lane in lanes[2:])


def test_missed_ticks_of_years_are_counted_up_to_a_limit(tmp_path):
    cron = tr.parse_cron("* * * * * *")
    task = task_of(tmp_path)._replace(cron=cron, catch_up="all", max_catch_up_runs=3)
    plan = tr.plan_ticks(task, 0, 10**8, 0)
    assert plan.missed == tr.MISSED_MAX_TICKS
    until_s = 10**8 - tr.TICK_GRACE_S
    newest = [until_s - 2, until_s - 1, until_s]
    assert [tick.at_s for tick in plan.catch_up] == newest
    assert len(plan.on_time) == tr.TICK_GRACE_S
    assert tr.missed_text(plan, 0).startswith("at least 10000 ticks were missed after ")


# -- retries

FLAKY = {"run": "exit 7", "retry_attempts": 2, "retry_delay": "10s"}


def pending_retry(daemon, task="a"):
    """The attempt that waits for its time."""

    def look():
        live = [daemon.find_run(run_id) for run_id in daemon.live_ids()]
        pending = [r for r in live if r and r.status == "pending"]
        return next((r for r in pending if events_of(daemon, r)), None)

    return within(DEADLINE_S, look, "a pending attempt")


@scenes("""
a failed run is retried until its attempts are used
    with retry_attempts=2 retry_delay=10s; trigger a; free a=7; next b of a
    now b=pending retry_attempt=1 of=a due=10.0 row=pending; pass 9.9s; now b=pending
    pass 0.1s; free b=7; expect b=failed; next c of b; now c of=b; pass 10s; free c=7
    expect c=failed retry_attempt=2 events=created,started,failed kept=a,b,c live=

a retry survives a restart
    with retry_attempts=1 retry_delay=10s; trigger a; free a=7; next b of a; later 4s
    restart; pass 5s; now b=pending due=1.0; pass 1s; free b=7
    expect b=failed retry_attempt=1

a stopped attempt ends the chain
    with retry_attempts=2 retry_delay=10s; trigger a; free a=7; next b of a; stop b
    now b=stopped start_at=None; pass 60s; now kept=a,b live=

a stopped program is not retried
    with retry_attempts=3; trigger a; stop a; expect a=stopped live= kept=a

a retry waits for a slot and then starts
    with retry_attempts=1; trigger a; free a=9; next b of a; trigger c=running
    pass 5s; now hold=1+1; free c; expect c=success; free b; expect b=success of=a
""")
def test_retries(play, scene):
    play(scene)


def test_retry_keeps_parameters_secrets_and_tick(in_process):
    clock = clock_at("2026-03-04 10:17:59")
    secret = {"env": "S", "default": "y", "secret": True}
    params = [{"env": "A", "default": "x"}, secret]
    script = 'echo "$A $S $TASKRUNNERD_ATTEMPT"; exit 1'
    task = {**MINUTELY, **FLAKY, "run": script, "params": params}
    daemon = in_process({"a": task}, clock)
    clock.pass_time(1)
    daemon.tick()
    retry = pending_retry(daemon)
    assert (retry.triggered_by, retry.scheduled_at) == (
        "cron", "2026-03-04T10:18:00.000Z",
    )  # fmt: skip
    assert retry.params == {"A": "x", "S": "•••"}
    clock.pass_time(10)
    ended = end_of(daemon, retry)
    assert Path(daemon.log_of(ended) + ".log").read_text() == "x y 1\n"


def test_retry_carries_the_trace_of_the_first_attempt(in_process):
    clock = FakeClock()
    script = 'echo "$TASKRUNNERD_REQUEST_ID $TRACEPARENT"; exit 1'
    daemon = in_process({"a": {**FLAKY, "run": script}}, clock)
    daemon.trigger("a", {}, "api", tr.Trace("of a client", TRACEPARENT))
    retry = pending_retry(daemon)
    assert (retry.request_id, retry.traceparent) == ("of a client", TRACEPARENT)
    clock.pass_time(10)
    ended = end_of(daemon, retry)
    text = Path(daemon.log_of(ended) + ".log").read_text()
    assert text == f"of a client {TRACEPARENT}\n"


def test_waiter_of_the_first_gets_the_last_attempt(serve, tmp_path):
    mark = tmp_path / "mark"
    script = f"test -e {mark} || {{ touch {mark}; exit 1; }}"
    daemon = serve({"a": {**FLAKY, "run": script, "retry_delay": "10ms"}})
    run = daemon.run("a")
    assert (run["end_reason"], run["retry_attempt"]) == ("success", 1)
    first = daemon.get(f"/api/runs/{run['retry_of_run_id']}").json
    assert (first["end_reason"], first["exit_code"]) == ("failed", 1)
    listed = daemon.get("/api/runs?retries_only=true").json["runs"]
    assert [one["id"] for one in listed] == [run["id"]]


def test_wait_that_begins_between_two_attempts_is_for_the_last(in_process):
    """One goes and the next one comes in one step, for whoever looks meanwhile too."""
    clock, answered = FakeClock(), threading.Event()
    daemon = in_process({"a": {**FLAKY, "retry_attempts": 1}}, clock)
    tell, waiters = daemon._tell, []

    def wait(run_id):
        run = daemon.wait(run_id, DEADLINE_S, lambda: True)
        answered.set()
        return run

    def linger(change, begun):
        first_id = change.run.retry_of_run_id
        if first_id and change.run.status == "pending" and not waiters:
            waiters.append(in_thread(lambda: wait(first_id)))
            # Whoever need not wait for the step to be over is answered in this time.
            answered.wait(0.2)
        return tell(change, begun)

    daemon._tell = linger
    daemon.trigger("a", {}, "api")
    retry = pending_retry(daemon)
    clock.pass_time(10)
    daemon.tick()
    (waiter,) = waiters
    assert waiter() == end_of(daemon, retry)


def test_log_tells_of_an_end_before_anybody_else(in_process, monkeypatch, fifos):
    """Or a daemon that is over, since nothing is live, might be gone before."""
    daemon = in_process({"hold": {**HELD, "queue_max": 1}})
    told = []

    def look(run):
        events = [event.run for event in daemon.events_after(0, 0)]
        known = any(one.ended and one.id == run.id for one in events)
        told.append((run.end_reason, known))

    monkeypatch.setattr(tr, "log_end", look)
    path = fifos()
    runs = [hold(daemon, "hold", path) for _ in range(3)]
    assert daemon.stop(runs[1].id)
    let_go(path)
    assert end_of(daemon, runs[0]).end_reason == "success"
    assert told == [("queue_full", False), ("stopped", False), ("success", False)]


# -- hooks

# Shows what it is told: its variables in a line, then stdin.
TELL = {"run": 'env | grep ^TASKRUNNERD_CAUSE | sort | tr "\\n" "|"; echo; cat'}


def all_ended(daemon):
    """Every run of the history, oldest first, once none is live."""

    def look():
        daemon.tick()
        return not daemon.live_ids()

    within(DEADLINE_S, look, "no live run")
    return daemon.store.list_runs(tr.RunFilter(), ("created_at", "asc"), 1000)


def told(daemon, hook):
    """(variables without their prefix, the document) that a run of TELL was told."""
    variables, text = read_log(daemon.log_of(hook)).texts
    pairs = (pair.split("=", 1) for pair in variables.split("|") if pair)
    names = {name.replace("TASKRUNNERD_CAUSE_", ""): value for name, value in pairs}
    return names, json.loads(text)


@pytest.mark.parametrize("reason", tr.END_REASONS)
def test_hooks_follow_an_end(tmp_path, reason):
    task = task_of(tmp_path, catch_up="skip")._replace(
        on_failure=("bad",), on_success=("good",), on_recovery=("again", "good")
    )
    wanted = {
        **dict.fromkeys(tr.END_REASONS, (((), 0), ((), 2))),
        **dict.fromkeys((*tr.FAILURES, "missed"), ((("bad",), 1), (("bad",), 3))),
        "success": ((("good",), 0), (("good", "again"), 0)),
    }
    assert tuple(tr.hooks_after(task, reason, n) for n in (0, 2)) == wanted[reason]
    if reason == "missed":
        # What is caught up on is not lost.
        task = task._replace(catch_up="latest")
        assert tr.hooks_after(task, reason, 2) == ((), 2)


def test_hook_is_told_of_the_last_attempt(in_process):
    tasks = {
        "flaky": {
            "params": [{"env": "PW", "secret": True}],
            "run": 'echo out; echo "err $PW" >&2; exit 3',
            "retry_attempts": 1,
            "retry_delay": "0s",
            "on_failure": ["tell", "stuck"],
        },
        "tell": {
            **TELL,
            "api_trigger": False,
            "params": [{"env": "X", "default": "x"}],
        },
        "stuck": {"run": TELL["run"] + "; exit 1", "retry_attempts": 1,
                  "retry_delay": "0s", "on_failure": "tell"},
    }  # fmt: skip
    daemon = in_process(tasks)
    daemon.page_url = "http://here:1"
    daemon.trigger("flaky", {"PW": SECRET}, "api")
    first, last, *hooks = all_ended(daemon)
    tell, stuck, again, chained = sorted(hooks, key=lambda run: run.id)
    assert (first.end_reason, last.retry_of_run_id) == ("failed", first.id)
    assert daemon.store.hook_run_ids(first.id) == []
    assert daemon.store.hook_run_ids(last.id) == [tell.id, stuck.id, again.id]
    assert {(run.via, run.triggered_by) for run in hooks} == {("task", "api")}
    assert (tell.task_name, tell.params, tell.exit_code) == ("tell", {"X": "x"}, 0)
    variables, document = told(daemon, tell)
    assert variables == {
        "RUN_ID": last.id, "TASK": "flaky", "END_REASON": "failed", "EXIT_CODE": "3",
        "SUMMARY": last.summary, "FAILURES": "1",
    }  # fmt: skip
    output = document.pop("output")
    assert [line["text"] for line in output] == ["out", "err [redacted]"]
    url = f"http://here:1/#/runs/{last.id}"
    assert document == {"run": last.document(), "url": url, "failures": 1}
    assert SECRET not in json.dumps([variables, document])
    # Another attempt is told the same, and its end is what the next hook hears of.
    assert (again.retry_of_run_id, again.cause_run_id) == (stuck.id, last.id)
    assert told(daemon, again) == told(daemon, stuck) == told(daemon, tell)
    assert told(daemon, chained)[1]["run"]["id"] == again.id
    assert daemon.store._rows("select run_id from inputs") == []


def test_recovery_is_the_first_success_behind_failures(in_process):
    tasks = {
        "x": {
            "params": [{"env": "CODE", "default": "0"}],
            "run": 'exit "$CODE"',
            "on_failure": "bad",
            "on_success": "good",
            "on_recovery": "again",
        },
        **{name: {**TELL, "max_concurrent": 9} for name in ("bad", "good", "again")},
    }
    daemon = in_process(tasks)
    failures = []
    for code in (0, 1, 2, 0, 0):
        daemon.trigger("x", {"CODE": str(code)}, "api")
        all_ended(daemon)
        failures.append(daemon.task_states()[0].failures)
        if failures == [0, 1]:
            # It is counted anew from the history.
            daemon = in_process(tasks, after=daemon)
            assert daemon.task_states()[0].failures == 1
    assert failures == [0, 1, 2, 0, 0]
    hooks = [run for run in all_ended(daemon) if run.via]
    names = [run.task_name for run in sorted(hooks, key=lambda run: run.cause_run_id)]
    assert names == ["good", "bad", "bad", "good", "again", "good"]
    told_of = {run.task_name: told(daemon, run)[0]["FAILURES"] for run in hooks}
    assert told_of == {"good": "0", "bad": "2", "again": "0"}


def test_failures_in_a_row_pass_over_what_is_neither(remains):
    ends = [
        *("failed", "success", "timeout", "skipped", "crashed", "stopped", "missed"),
        *("failed", "queue_full"),
    ]
    for reason in ends:
        ended = {"status": "ended", "end_reason": reason}
        left = remains.leave("x", 60, **ended)
        if reason == "failed":
            again = {"retry_attempt": 1, "retry_of_run_id": left.id}
            remains.leave("x", 60, **ended, **again)
    daemon = remains.revive({"x": {"run": "true", "catch_up": "skip"}})
    # timeout, crashed, missed, and the last attempt of failed
    assert daemon.task_states()[0].failures == 4


def test_crashed_run_triggers_its_hook_behind_what_was_waiting(remains):
    start_at = tr.time_text(remains.clock.ms - 60_000)
    left = remains.leave("x", 60, status="running", start_at=start_at)
    waiting = remains.leave("tell", 30)
    daemon = remains.revive({"x": {"run": "true", "on_failure": "tell"}, "tell": TELL})
    crashed, queued, hook = all_ended(daemon)
    assert (crashed.id, crashed.end_reason) == (left.id, "crashed")
    assert (queued.id, hook.cause_run_id) == (waiting.id, left.id)
    started = [e.run.id for e in daemon.events_after(0, 0) if e.name == "run.started"]
    assert started == [waiting.id, hook.id]
    assert told(daemon, hook)[1]["run"] == crashed.document()


def test_hook_of_what_ends_in_a_shutdown_is_for_the_next_daemon(in_process, fifos):
    tasks = {"hold": {**HELD, "on_failure": "tell"}, "tell": TELL}
    first = in_process(tasks)
    path = fifos()
    run = hold(first, "hold", path)
    with first._mutex:
        first.draining = True
    let_go(path, "7\n")
    within(DEADLINE_S, lambda: state_of(first, run).ended, "end of the run")
    (hook_id,) = first.store.hook_run_ids(run.id)
    assert first.find_run(hook_id).status == "pending"
    second = in_process(tasks, after=first)
    _, hook = all_ended(second)
    assert (hook.id, hook.end_reason) == (hook_id, "success")
    assert told(second, hook)[0]["EXIT_CODE"] == "7"


def test_hook_is_admitted_like_any_run(in_process, fifos):
    held = {**HELD, "params": [{"arg": "fifo", "default": "/dev/null"}]}
    tasks = {
        "bad": {"run": "exit 1", "on_failure": ["skip", "full", "last"]},
        "skip": {**held, "on_overlap": "skip"},
        "full": {**held, "queue_max": 0},
        "last": {**held, "on_overlap": "terminate"},
    }
    daemon = in_process(tasks)
    paths = [fifos() for _ in range(3)]
    for name, path in zip(("skip", "full", "last"), paths):
        hold(daemon, name, path)
    run = end_of(daemon, daemon.trigger("bad", {}, "api"))
    *refused, last = [daemon.find_run(n) for n in daemon.store.hook_run_ids(run.id)]
    assert [hook.end_reason for hook in refused] == ["skipped", "queue_full"]
    for path in paths[:2]:
        let_go(path)
    runs = all_ended(daemon)
    ends = {r.id == last.id: r.end_reason for r in runs if r.task_name == "last"}
    assert ends == {False: "stopped", True: "success"}


def test_hook_is_on_the_disk_if_and_only_if_its_cause_has_ended(
    in_process, monkeypatch
):
    """What another process would find after a crash, around each commit."""
    tasks = {
        "bad": {"run": "exit 1", "on_failure": ["tell", "tell-too"]},
        "lost": {**MINUTELY, "catch_up": "skip", "on_failure": "tell"},
        "tell": TELL,
        "tell-too": TELL,
    }
    clock = clock_at("2026-03-04 10:00:30")
    daemon = in_process(tasks, clock)
    other = tr.Store(daemon.folder.database, look_only=True)
    commit = daemon.store._commit
    refused = []

    def watched(batch):
        if len(refused) % 3 and any("end_reason" in str(w.statements) for w in batch):
            refused.append(batch)
            raise tr.sqlite3.OperationalError("database is locked")
        commit(batch)
        causes = "select id from runs where end_reason in ('failed', 'missed')"
        hooked = "select cause_run_id from runs where via = 'task'"
        ended = sorted(row[0] for row in other._rows(causes))
        hooks = sorted(row[0] for row in other._rows(hooked))
        assert hooks == sorted(
            run_id
            for run_id in ended
            for _ in range(2 - (other.find_run(run_id).end_reason == "missed"))
        )
        refused.append(None)

    monkeypatch.setattr(tr, "STORE_RETRY_S", 0)
    monkeypatch.setattr(daemon.store, "_commit", watched)
    daemon.trigger("bad", {}, "api")
    all_ended(daemon)
    clock.pass_time(HOUR_S)
    for _ in range(5):
        with contextlib.suppress(tr.StoreError):
            daemon.tick()
    runs = all_ended(daemon)
    assert any(refused)
    other.close()
    assert sorted(run.task_name for run in runs) == [
        *("bad", "lost", "tell", "tell", "tell-too"),
    ]
    states = {state.task.name: state.failures for state in daemon.task_states()}
    assert (states["bad"], states["lost"]) == (1, 1)


def kill_at_random(serve, kills, seed):
    """The daemon, after it was killed at random moments while its runs failed."""
    many = {"max_concurrent": 4, "queue_max": 10_000, "on_failure": "tell"}
    tasks = {
        "bad": {**many, "run": "exit 1"},
        "slow": {**many, "run": "exec sleep 300"},
        "flaky": {**many, "run": "exit 1", "retry_attempts": 1, "retry_delay": "0s"},
        "good": {**many, "run": "true"},
        "tell": {"run": "cat >/dev/null", "max_concurrent": 2, "queue_max": 10_000},
    }
    rng = random.Random(seed)
    daemon = serve({"tasks": tasks})
    for _ in range(kills):
        daemon.trigger("slow")
        killer = threading.Timer(rng.random() * 0.06, daemon.process.kill)
        killer.start()
        with contextlib.suppress(OSError, http.client.HTTPException):
            for name in rng.choices([*tasks][:4], k=12):
                daemon.request("POST", f"/api/tasks/{name}/run")
        killer.join()
        daemon.process.wait()
        daemon.start()
    daemon.run("bad")
    daemon.run("good")
    return daemon


def check_hooks(daemon):
    """Every run that failed has one run of its hook, no other has any; returns the ends
    that there were."""
    runs = []

    def look():
        runs[:] = daemon.get("/api/runs?limit=1000").json["runs"]
        for run in runs:
            if run["task_name"] == "slow" and run["status"] != "ended":
                daemon.stop(run)
        return all(run["status"] == "ended" for run in runs)

    within(DEADLINE_S, look, "end of all runs")
    retried = {run.get("retry_of_run_id") for run in runs}
    failed = {
        run["id"]
        for run in runs
        if run["end_reason"] in tr.FAILURES and run["task_name"] != "tell"
    } - retried
    hooks = daemon.get("/api/runs?via=task&limit=1000").json["runs"]
    assert {run["task_name"] for run in hooks} == {"tell"}
    assert sorted(run["cause_run_id"] for run in hooks) == sorted(failed)
    (first,) = [run["id"] for run in hooks if run["cause_run_id"] == min(failed)]
    assert daemon.get(f"/api/runs/{min(failed)}").json["hook_run_ids"] == [first]
    return {run["end_reason"] for run in runs}


def test_every_failure_has_one_hook_run_however_the_daemon_is_killed(serve):
    ends = check_hooks(kill_at_random(serve, 8, seed=5))
    assert {"crashed", "failed", "success"} <= ends


# -- reload


def rewrite(daemon, tasks):
    """Write another tasks.json and have it loaded."""
    write_config(Path(daemon.config.path).parent, {"tasks": tasks})
    assert tr.config_differs(daemon.config)
    changes = daemon.reload()
    assert not tr.config_differs(daemon.config)
    return changes


def test_reload_lists_what_changed(in_process):
    plain = {"run": "true"}
    daemon = in_process({"same": plain, "other": plain, "gone": plain})
    other = {"run": "false", "timeout": "5s", "env": {"A": "b"}, "log_max_size": "1mb"}
    changes = rewrite(daemon, {"new": plain, "same": plain, "other": other})
    assert changes.added == ["new"]
    assert changes.removed == ["gone"]
    (changed,) = changes.changed
    assert changed["name"] == "other"
    assert set(changed["reasons"]) == {"run", "timeout", "env", "log_max_size"}
    assert [s.task.name for s in daemon.task_states()] == ["new", "same", "other"]
    ended = end_of(daemon, daemon.trigger("other", {}, "api"))
    assert ended.end_reason == "failed"
    with pytest.raises(tr.Problem, match='no task "gone"'):
        daemon.trigger("gone", {}, "api")


def test_reload_of_a_faulty_file_changes_nothing_and_is_told(in_process):
    daemon = in_process({"a": {"run": "true"}})
    before = daemon.config
    assert daemon.last_reload_good
    write_config(Path(before.path).parent, {"tasks": {"b": {"rnu": "true"}}})
    with pytest.raises(tr.ConfigError, match="did you mean run"):
        daemon.reload()
    assert daemon.config is before and not daemon.last_reload_good
    assert daemon.task("a").run == "true"
    assert tr.config_differs(before)
    rewrite(daemon, {"b": {"run": "true"}})
    assert daemon.last_reload_good


@scenes("""
a reload leaves live runs alone and redefines queued ones
    with; task gone held; trigger a b c@gone d@gone; with nine; drop gone; reload
    expect d=skipped error='the task is no longer declared'
    free a; expect a=success; free b; expect b=failed exit_code=9
    free c; expect c=success

a reload with more slots starts queued runs
    trigger a b c; now hold=1+2; with max_concurrent=3; reload; now hold=3+0
    free a b c; expect a=success b=success c=success
""")
def test_reloads(play, scene):
    play(scene)


def test_reload_over_http_signal_and_command(serve):
    daemon = serve({"a": {"run": "true"}})
    assert daemon.get("/api/info").json["config_changed"] is False
    daemon.write_tasks({"a": {"run": "true", "group": "x"}, "b": {"run": "true"}})
    assert daemon.get("/api/info").json["config_changed"] is True
    reply = daemon.request("POST", "/api/reload")
    assert (reply.status, reply.json["added"]) == (200, ["b"])
    assert reply.json["changed"] == [{"name": "a", "reasons": ["group"]}]
    daemon.write_tasks({"a": {"run": 5}})
    refused = daemon.request("POST", "/api/reload")
    assert refused.status == 422
    ((location, message),) = refused.faults
    assert location == "tasks.a.run" and "must be text or a list" in message
    daemon.write_tasks({"c": {"run": "true"}})
    daemon.process.send_signal(signal.SIGHUP)

    def look():
        return [task["name"] for task in daemon.get("/api/tasks").json] == ["c"]

    within(DEADLINE_S, look, "reload by SIGHUP")

    def reload():
        return subprocess.run(
            daemon.command("reload"), env=daemon.environment(), capture_output=True,
            cwd=daemon.folder, timeout=DEADLINE_S, text=True,
        )  # fmt: skip

    daemon.write_tasks({"d": {"run": "true"}})
    answer = json.loads(reload().stdout)
    assert answer == {"added": ["d"], "removed": ["c"], "changed": []}
    daemon.write_tasks({f"task{n}": {"run": 5} for n in range(60)})
    done = reload()
    assert done.returncode == 78 and done.stderr.count("must be text or a list") == 50
    assert "; 10 more faults are not listed" in done.stderr


def test_reload_without_a_daemon_says_so(tmp_path):
    told = call(tmp_path, "reload")
    assert (told.code, told.out) == (69, "")
    assert told.err == "taskrunnerd: --data .taskrunnerd: no daemon runs here\n"


# -- pauses


def pass_minutes(daemon, clock, minutes):
    """Let minutes pass, each with a look at the schedule; returns how many runs and
    rows that made."""
    before = len(daemon.store.list_ids(tr.RunFilter(), "", 1000))
    for _ in range(minutes):
        clock.pass_time(60)
        daemon.tick()
        past_runs(daemon, "a")
    return len(daemon.store.list_ids(tr.RunFilter(), "", 1000)) - before


@pytest.mark.parametrize("name", ["a", tr.ALL_TASKS])
def test_paused_schedule_neither_fires_nor_misses(in_process, name):
    clock = clock_at("2026-03-04 10:00:10")
    tasks = {
        "a": {**MINUTELY, "on_success": "hook"},
        "hook": {"run": "true", "run_on_start": True},
    }
    daemon = in_process(tasks, clock)
    assert pass_minutes(daemon, clock, 2) == 4
    daemon.set_pause(name, tr.Pause(clock.ms, None, "moving"))
    since_ms = clock.ms
    assert pass_minutes(daemon, clock, 2) == 0
    assert daemon.task_states()[0].next_run_ms is None
    # A trigger is nobody's schedule, nor is a hook.
    daemon.trigger("a", {}, "api")
    assert [run.task_name for run in all_ended(daemon)[-2:]] == ["a", "hook"]
    clock.pass_time(HOUR_S)
    daemon = in_process(tasks, clock, after=daemon)
    rewrite(daemon, {**tasks, "b": {"run": "true"}})
    assert daemon.task_states()[0].pause == (since_ms, None, "moving")
    assert pass_minutes(daemon, clock, 2) == 0
    daemon.set_pause(name, tr.Pause(clock.ms, None, "still"))
    assert daemon.pause_of("a") == (since_ms, None, "still")
    daemon.set_pause(name, None)
    assert daemon.pause_of("a") is None
    # Durable as well: nothing is caught up on after a crash right behind it.
    daemon = in_process(tasks, clock, after=daemon)
    past_runs(daemon, "a")
    assert pass_minutes(daemon, clock, 1) == 2
    daemon.set_pause(name, tr.Pause(clock.ms))
    assert pass_minutes(daemon, clock, 2) == 0
    daemon.set_pause(name, None)
    assert pass_minutes(daemon, clock, 1) == 2
    assert {run.end_reason for run in all_ended(daemon)} == {"success"}
    daemon.set_pause(name, None)


def test_pause_ends_by_itself(in_process):
    clock = clock_at("2026-03-04 10:00:30")
    tasks = {"a": MINUTELY}
    daemon = in_process(tasks, clock)
    daemon.set_pause("a", tr.Pause(clock.ms, clock.ms + 90_000))
    assert next_run(daemon) == "2026-03-04T10:02:00.000Z"
    assert daemon.task_states()[0].pause
    assert pass_minutes(daemon, clock, 1) == 0
    clock.pass_time(15)
    daemon.tick()
    assert past_runs(daemon, "a") == []
    clock.pass_time(15)
    daemon.tick()
    # A tick in its last moment fires.
    assert [run.scheduled_at for run in past_runs(daemon, "a")] == [
        "2026-03-04T10:02:00.000Z"
    ]
    assert daemon.task_states()[0].pause is None
    # The longer of two holds.
    daemon.set_pause("a", tr.Pause(clock.ms, clock.ms + 600_000))
    daemon.set_pause(tr.ALL_TASKS, tr.Pause(clock.ms, clock.ms + 1_200_000))
    assert next_run(daemon) == "2026-03-04T10:22:00.000Z"
    # Over while no daemon was there: what came behind it was missed.
    clock.pass_time(25 * 60)
    daemon = in_process(tasks, clock, after=daemon)
    daemon.tick()
    _, *runs = past_runs(daemon, "a")
    assert reasons(runs) == ["missed", "success"]
    assert runs[0].error.startswith("5 ticks were missed")


def test_pause_that_cannot_be_recorded_is_none(in_process, monkeypatch):
    def locked(batch):
        raise tr.sqlite3.OperationalError("database is locked")

    daemon = in_process({"a": MINUTELY}, clock_at("2026-03-04 10:00:30"))
    first = tr.Pause(daemon.clock.wall_ms())
    for before in (None, first):
        daemon.set_pause("a", before)
        with monkeypatch.context() as patch:
            patch.setattr(daemon.store, "_commit", locked)
            for wanted in (first._replace(reason="other"), None):
                if wanted == before:
                    continue
                with pytest.raises(tr.Problem) as caught:
                    daemon.set_pause("a", wanted)
                assert caught.value.status == 507
        assert daemon.pause_of("a") == before
        assert (daemon.task_states()[0].next_run_ms is None) == bool(before)
    with pytest.raises(tr.Problem, match="no task"):
        daemon.set_pause("b", None)


def test_pause_over_the_api_and_by_command(serve):
    daemon = serve({"a": {**MINUTELY, "cron": "0 0 1 1 *"}, "b": {"run": "true"}})
    until = "2099-01-01T00:00:00.000Z"
    for body, at in (
        ({"until": "2020-01-01T00:00:00Z"}, "body.until"),
        ({"until": "tomorrow"}, "body.until"),
        ({"why": "x"}, "body.why"),
    ):
        reply = daemon.post("/api/tasks/a/pause", body, 422)
        assert [place for place, _ in reply.faults] == [at]
    daemon.post("/api/tasks/x/pause", status=404)
    paused = daemon.post("/api/tasks/a/pause", {"until": until, "reason": "x"}).json
    assert (paused["paused"]["until"], paused["paused"]["reason"]) == (until, "x")
    assert paused["next_run_at"] == until
    following = daemon.get("/api/tasks/a/next?n=1").json
    assert following["paused"] == paused["paused"]
    assert following["ticks"][0]["at"] == until
    figures = figures_of(daemon)
    assert [figure(figures, "task_paused", task=name) for name in "ab"] == [1, 0]
    assert "paused" not in daemon.post("/api/tasks/a/resume").json
    ask = functools.partial(run_command, daemon.folder, **daemon.variables)
    assert ask("pause", "--all", "--reason", "y").out == "all tasks: paused\n"
    assert daemon.get("/api/tasks/a/next").json["ticks"] == []
    assert daemon.get("/api/tasks/b").json["paused"]["reason"] == "y"
    still = "a: paused, as all tasks are; see resume --all\n"
    assert ask("resume", "a").out == still
    assert ask("resume", "--all").out == "all tasks: goes on\n"
    assert ask("pause", "a", "--for", "2h").out.startswith("a: paused until 20")
    assert "paused" in ask("tasks").out
    # What the commands tell of it, next from what is on the disk.
    told = ask("next").out.splitlines()
    assert (told[-1].startswith("a: paused until 20"), len(told)) == (True, 11)
    assert {*json.loads(ask("next", "a", "--json").out)["paused"]} == {"since", "until"}
    daemon.end()
    assert ask("next", "a", "-n", "1").out.splitlines()[-1] == told[-1]
    daemon.start()
    assert ask("resume", "a").code == 0
    assert "paused" not in ask("next").out
    assert ask("pause", "--all").code == 0
    assert ask("next").out == "a: paused\n"
    for words in (["pause"], ["resume", "a", "--all"], ["pause", "a", "--for", "x"]):
        assert ask(*words).code == tr.EX_USAGE


# -- what is told of the daemon itself


def test_counts_are_read_again_only_of_tasks_that_had_an_end(in_process):
    tasks = {"a": {"run": "exit 3"}, "b": {"run": "true"}}
    daemon = in_process(tasks)
    assert daemon.counted() == {}
    end_of(daemon, daemon.trigger("a", {}, "api"))
    asked = []
    counted = daemon.store.counted
    daemon.store.counted = lambda names: asked.append(names) or counted(names)
    assert daemon.counted()["a"].ended == (("failed", "api", 1),)
    before = daemon.counted()
    end_of(daemon, daemon.trigger("b", {}, "startup"))
    assert daemon.counted()["b"].ended == (("success", "startup", 1),)
    assert asked == [["a"], ["b"]]
    assert daemon.counted()["a"] is before["a"] and "b" not in before


def test_counts_that_could_not_be_read_are_read_the_next_time(in_process):
    daemon = in_process({"a": {"run": "true"}})
    assert daemon.counted() == {}
    end_of(daemon, daemon.trigger("a", {}, "api"))
    counted = daemon.store.counted

    def fail(names):
        raise tr.StoreError("no such file")

    daemon.store.counted = fail
    with pytest.raises(tr.StoreError):
        daemon.counted()
    daemon.store.counted = counted
    assert daemon.counted()["a"].started == 1


def test_counts_never_go_back_while_runs_end(one_lock_only, in_process):
    tasks = {"a": {"run": "true", "max_concurrent": 4, "on_overlap": "skip"}}
    daemon = in_process(tasks)
    over = threading.Event()

    def watch():
        newest = 0
        while not over.is_set():
            counted = daemon.counted().get("a")
            count = sum(kind[2] for kind in counted.ended) if counted else 0
            assert count >= newest
            newest = count
        return newest

    watchers = [in_thread(watch) for _ in range(2)]
    runs = [daemon.trigger("a", {}, "api") for _ in range(40)]
    for run in runs:
        end_of(daemon, run)
    over.set()
    assert all(watcher() <= len(runs) for watcher in watchers)
    assert sum(kind[2] for kind in daemon.counted()["a"].ended) == len(runs)


def test_scheduler_lag_is_how_late_the_last_due_thing_was(in_process):
    clock = clock_at("2026-03-04 10:17:30")
    daemon = in_process({"a": MINUTELY}, clock)
    daemon.tick()
    clock.pass_time(daemon.tick())
    daemon.tick()
    assert daemon.scheduler_lag_s() == 0
    clock.pass_time(daemon.tick() + 1.5)
    assert daemon.scheduler_lag_s() == 1.5
    daemon.tick()
    assert daemon.scheduler_lag_s() == 1.5
    clock.set_date(hours=5)
    daemon.tick()
    assert daemon.scheduler_lag_s() == 1.5, "missed ticks are no lag"


def test_machine_is_watched_for_an_hour(in_process):
    clock = FakeClock()
    daemon = in_process({}, clock)
    daemon.tick()
    assert daemon.samples() == []
    start_ms = clock.ms
    for _ in range(20):
        clock.pass_time(tr.SAMPLE_EVERY_S / 2)
        assert daemon.tick() <= tr.SAMPLE_EVERY_S
    assert len(daemon.samples()) == 10
    for _ in range(390):
        clock.pass_time(tr.SAMPLE_EVERY_S)
        daemon._housekeeper.machine.look()
    samples = daemon.samples()
    assert len(samples) == tr.SAMPLES_KEPT == 3600 / tr.SAMPLE_EVERY_S
    newest_ms = start_ms + int(400 * tr.SAMPLE_EVERY_S * 1000)
    assert samples[-1].at == tr.time_text(newest_ms)
    assert samples[0].at == tr.time_text(newest_ms - 3_590_000)
    for sample in samples:
        assert sample.daemon_cpu >= 0
        assert 0 <= sample.cpu <= 100
        assert 0 <= sample.mem < 100


def test_machine_without_proc_is_watched_as_far_as_it_can_be(monkeypatch):
    monkeypatch.setattr(tr, "open", lambda *_, **__: os.stat("/no/such"), raising=False)
    clock = FakeClock()
    watch = tr.MachineWatch(clock)
    clock.pass_time(tr.SAMPLE_EVERY_S)
    watch.look()
    (sample,) = watch.samples
    assert (sample.cpu, sample.mem, sample.rss_bytes) == (0.0, 0.0, None)
    assert (sample.mem_used, sample.mem_total) == (0, 0)
    assert sample.daemon_cpu >= 0


def say(ring, *fields):
    with ring.added:
        ring.add(tr.LogMessage, *fields)


def after(ring, n, timeout_s=0):
    with ring.added:
        return ring.after(n, timeout_s)


def test_ring_keeps_the_newest_entries():
    ring = tr.Ring(100, 70)
    for n in range(106):
        say(ring, n, "info", f"line {n}")
    kept = after(ring, 0)
    assert len(kept) == 100
    assert kept[0] == tr.LogMessage(76, 6, "info", "line 6")
    assert after(ring, ring.newest_n - 1) == kept[-1:] == ring.newest(1)
    assert after(ring, ring.newest_n) == []


def test_daemon_log_cuts_long_lines():
    handler = tr._LogHandler()
    handler.put = lambda *_: None  # type: ignore[method-assign]
    handler.emit(tr.logging.makeLogRecord({"msg": "x" * 10_000, "levelname": "ERROR"}))
    (line,) = after(handler.tail, 0)
    assert line.text == "x" * tr.DAEMON_LOG_LINE_MAX_CHARS


def test_daemon_log_takes_finished_lines_as_it_takes_records(monkeypatch, capfd):
    handler = tr._LogHandler()
    monkeypatch.setattr(tr.LOG, "handlers", [handler])
    monkeypatch.setattr(tr.LOG, "propagate", False)
    for level in ("INFO", "WARNING"):
        monkeypatch.setattr(tr.LOG, "level", getattr(tr.logging, level))
        tr.LOG.manager._clear_cache()
        tr.LOG.info("run=%s", "100%s")
        tr.log_info("run=100%s")
    tr.LOG.manager._clear_cache()
    one, other = capfd.readouterr().err.splitlines()
    assert re.fullmatch(r"....-..-..T..:..:..\.\d{3}Z info run=100%s", other)
    assert one[24:] == other[24:]
    assert [m[2:] for m in after(handler.tail, 0)] == [("info", "run=100%s")] * 2


def test_ring_wakes_who_waits_for_an_entry():
    ring = tr.Ring(10, 0)
    waiter = in_thread(lambda: after(ring, -1, DEADLINE_S))
    say(ring, 5, "info", "here")
    assert waiter() == [tr.LogMessage(0, 5, "info", "here")]


def test_ring_goes_on_after_an_upgrade():
    before, ring = tr.Ring(1000, 100), tr.Ring(1000, 9000)
    for n in range(150):
        say(before, n, "info", f"old {n}")
    say(ring, 0, "info", "new")
    with ring.added:
        ring.resume(before.newest(100), before.first_n)
    lines = after(ring, 0)
    assert [line.n for line in lines] == list(range(150, 251))
    assert [line.text for line in lines[-2:]] == ["old 149", "new"]
    assert (ring.first_n, ring.newest_n) == (100, 250)


# ---- 12. Operations and routes ----------------------------------------------

NOWHERE = "01ARZ3NDEKTSV4RRFFQ69G5FAV"
SECRET = "hunter2-is-secret"

SHOW_TRACE = 'echo "$TASKRUNNERD_REQUEST_ID ${TRACEPARENT-none}"'
TYPED: dict[str, Any] = {
    "params": [{"arg": "n", "type": "number"}, {"option": "--int", "type": "integer"},
               {"flag": "--loud"}, {"arg": "pick", "type": "integer", "choices": ["5"]},
               {"env": "PIN", "type": "integer", "secret": True}],
    "run": 'printf "%s|" "$@" "$PIN"', "max_concurrent": 16,
}  # fmt: skip
OPERATION_TASKS: dict[str, Any] = {
    "lonely": {"params": [{"arg": "fifo"}], "run": 'echo waiting; cat "$1"'},
    "skip": {"params": [{"arg": "fifo"}], "run": 'cat "$1"', "on_overlap": "skip"},
    "coalesce": {"params": [{"arg": "fifo"}], "run": 'cat "$1"',
        "on_overlap": "coalesce"},
    "no-queue": {"params": [{"arg": "fifo"}], "run": 'cat "$1"', "queue_max": 0},
    "strict": {"params": [{"env": "MUST", "required": True}, {"env": "COLOUR",
        "choices": ["red", "blue"], "default": "red"}, {"env": "CUSTOM",
        "choices": ["red"], "allow_custom": True}, {"arg": "n", "type": "number"},
        {"option": "--int", "type": "integer"}, {"flag": "--loud"}, {"env": "KEY",
        "secret": True, "type": "integer"}], "run": ["printf", "%s|"],
        "max_concurrent": 16},
    "shown": {"params": [{"env": "A", "default": "by default"}, {"env": "B"},
        {"env": "S", "secret": True}, {"option": "--level"}, {"option": "--date="},
        {"flag": "--loud"}, {"arg": "last"}],
        "run": 'printf "<%s>" "${A-unset}" "${B-unset}" "${#S}" "$@"',
        "max_concurrent": 16},
    "lines": {"params": [{"arg": "count"}],
        "run": 'i=0; while [ $i -lt "$1" ]; do echo "line $i"; i=$((i+1)); done',
        "max_concurrent": 16},
    "say": {"params": [{"env": "TEXT", "default": ""}], "run": 'printf "%s" "$TEXT"',
        "max_concurrent": 16},
    "two-streams": {"run": "echo out; echo err >&2"},
    "killed": {"run": "kill -9 $$"},
    "absent": {"run": ["./no-such-program"]},
    "good": {"run": "true"},
    "bad": {"run": "exit 3"},
    "forbidden": {"run": "true", "api_trigger": False},
    "rerun-me": {"params": [{"env": "A", "default": "by default"}, {"env": "B",
        "default": "b"}], "run": "true"},
    "rerun-secret": {"params": [{"env": "S", "secret": True}], "run": "true"},
    "trace": {"run": SHOW_TRACE},
    "typed": TYPED,
    "trace-given": {"params": [{"env": "TRACEPARENT", "default": "by parameter"}],
        "run": SHOW_TRACE},
    **{name: {"run": "true"} for name in ("bulk-a", "bulk-b", "bulk-c", "list-a")},
    "list-b": {"run": "exit 3"},
}  # fmt: skip


@pytest.fixture(scope="session")
def ops(tmp_path_factory):
    """One daemon with OPERATION_TASKS; each test leaves nothing running in it."""
    daemon = Served(tmp_path_factory.mktemp("ops"), OPERATION_TASKS).start()
    yield daemon
    daemon.close()


@contextlib.contextmanager
def blocked(daemon, task, fifo):
    """A running run of a task that reads a FIFO; it is stopped in the end."""
    run = daemon.trigger(task, {"fifo": str(fifo)})
    try:
        yield run
    finally:
        daemon.stop(run)
        daemon.ended(run)


def place(run):
    """The path of a run."""
    return f"/api/tasks/{run['task_name']}/runs/{run['id']}"


def ids(reply):
    """The ids of a page of runs."""
    return [run["id"] for run in reply.json["runs"]]


# -- the trigger


def test_trigger_without_wait_answers_the_recorded_run_at_once(ops, fifo):
    with blocked(ops, "lonely", fifo) as run:
        assert (run["status"], run["exit_code"]) == ("running", -1)
        assert ops.run_now(run)["id"] == run["id"]


@pytest.mark.parametrize("query, body", [
    ("", None), ("?wait=false", {}), ("?wait=true", None), ("?wait=1", b""),
    ("?wait=1", {}), ("?wait=1", {"params": {}}),
    ("?wait=1", {"$schema": "https://x.example/T.json"}),
    ("?&wait=true&&wait_timeout=1&", None), ("?&wait=true&&wait_timeout=3600&", None),
])  # fmt: skip
def test_trigger_answers_201_with_the_place_of_the_run(shared, query, body):
    reply = shared.post(f"/api/tasks/true/run{query}", body, status=201)
    assert reply.headers["Location"] == place(reply.json)
    assert shared.get(reply.headers["Location"]).json["id"] == reply.json["id"]
    assert reply.json["exit_code"] == 0 or query in ("", "?wait=false")


@pytest.mark.parametrize("word", ["true", "TRUE", "1", "t", "T", "True"])
def test_trigger_waits_for_the_end(shared, word):
    run = shared.post(f"/api/tasks/fail/run?wait={word}", status=201).json
    assert (run["status"], run["end_reason"], run["exit_code"]) == (
        "ended", "failed", 3,
    )  # fmt: skip


@pytest.mark.parametrize("query", ["wait=", "wait=0", "wait=F", "wait=false&wait=true"])
def test_trigger_does_not_wait_when_wait_is_false(ops, fifo, query):
    body = {"params": {"fifo": str(fifo)}}
    run = ops.post(f"/api/tasks/lonely/run?{query}", body, 201).json
    assert run["status"] == "running"
    ops.stop(run)
    ops.ended(run)


def test_wait_timeout_answers_the_run_as_it_is_and_the_run_goes_on(ops, fifo):
    body = {"params": {"fifo": str(fifo)}}
    run = ops.post("/api/tasks/lonely/run?wait=1&wait_timeout=1", body, 201).json
    assert (run["status"], run["exit_code"]) == ("running", -1)
    fifo.write_text("went on")
    assert ops.ended(run)["end_reason"] == "success"
    assert ops.raw(run) == b"waiting\nwent on"


def test_wait_counts_time_in_the_queue(ops, fifo):
    body = {"params": {"fifo": str(fifo)}}
    with blocked(ops, "lonely", fifo):
        run = ops.post("/api/tasks/lonely/run?wait=1&wait_timeout=1", body, 201).json
        assert run["status"] == "pending" and "start_at" not in run
        assert ops.stop(run).status == 200


WORDS_OF_FAULTS = {
    "must": "must be there and not null", "text": 'must be text, such as "5" in quotes',
    "number": "must be a number", "whole": "must be a whole number",
    "bool": "must be true or false",
}  # fmt: skip
PARAM_FAULTS: list[tuple[dict[str, Any], str]] = [
    ({"MUST": None}, "must"), ({}, "must"), ({"MUST": 5}, "text"),
    ({"MUST": True}, "text"),
    ({"MUST": ["x"]}, "must be text or a number or true or false or null"),
    ({"MUST": "a\0b"}, "must not contain a NUL character"),
    ({"MUST": "x" * 32_769}, "must have at most 32768 bytes, has 32769"),
    ({"MUST": "é" * 16_385}, "must have at most 32768 bytes, has 32770"),
    ({"MUST": "\ud800"}, "must be valid Unicode"),
    ({"COLOUR": "green"}, "must be one of red, blue"),
    ({"COLOUR": ""}, "must be one of red, blue"),
    ({"COLUOR": "red"}, "unknown parameter; did you mean COLOUR?"),
    *(({"n": value}, "number") for value in (
        True, False, "NaN", "Infinity", "1_000", "0x10", " 1", "1\n", "+1", "01", "1.",
        "٣", "",
    )),
    *(({"--int": value}, "whole") for value in (5.0, 1e30, True, "1.0", "1e3", "")),
    ({"KEY": 2.5}, "whole"),
    *(({"--loud": value}, "bool") for value in (2, 1.0, "yes", "")),
]  # fmt: skip


@pytest.mark.parametrize("path, body, status, location, message", [
    ("good/run?wait=yes", None, 422, "query.wait", '"yes" is not true or false'),
    ("good/run?wait=true&wait_timeout=0", None, 422, "query.wait_timeout",
     "must be 1 to 3600"),
    *((f"good/run?wait_timeout={text}", None, 422, "query.wait_timeout",
       "must be 1 to 3600") for text in ("3601", "-1")),
    *((f"good/run?wait_timeout={text}", None, 422, "query.wait_timeout",
       "must be a whole number") for text in ("1.5", "", "5s")),
    *((f"{name}/run", None, 422, "path.task_name", "") for name in (
        "a!b", "a%20b", "a%0A", "%00", "x" * 101, "", "%C3%A9", "a%2Fb",
    )),
    ("no-such-task/run?wait_timeout=0", {"x": 1}, 404, None, "no-such-task"),
    ("forbidden/run", None, 403, None, "forbidden"),
    *(("good/run", body, 422, location, "") for body, location in (
        ([], "body"), ("text", "body"), (5, "body"), ({"params": []}, "body.params"),
        ({"params": None}, "body.params"), ({"wait": True}, "body.wait"),
        ({"$schema": 5}, "body.$schema"), (b"null", "body"),
    )),
    *(("strict/run", {"params": {"MUST": "", **given} if given else {}}, 422,
       f"body.params.{next(iter(given), 'MUST')}", WORDS_OF_FAULTS.get(fault, fault))
      for given, fault in PARAM_FAULTS),
    *(("typed/run", f'{{"params": {{"n": {number}}}}}'.encode(), 400, "body",
       "not JSON: a number is too large")
      for number in ("1e400", "-1e400", "9" * 5000)),
])  # fmt: skip
def test_trigger_is_refused_and_starts_nothing(
    ops, path, body, status, location, message
):
    before = ops.get("/api/runs?limit=1").json["total"]
    reply = ops.request(
        "POST", f"/api/tasks/{path}", body, {"Content-Type": "application/json"}
    )
    assert reply.status == status
    if location:
        [(at, said)] = reply.faults
        assert (at, message or said) == (location, said)
    else:
        assert message in reply.json["detail"] and not reply.faults
    assert ops.get("/api/runs?limit=1").json["total"] == before


IN_BODY = '; a parameter of the task belongs into the body: {"params": {…}}'


@pytest.mark.parametrize("method, path, hint", [
    ("POST", "/api/tasks/strict/run", IN_BODY + "; did you mean wait?"),
    ("DELETE", "/api/tasks/good/runs/{id}", ""), ("POST", "/api/reload", ""),
    ("POST", "/api/tasks/good/runs/{id}/stop", ""),
    *(("POST", f"/api/runs/bulk/{verb}", "")
      for verb in ("cancel", "delete", "restore", "rerun")),
])  # fmt: skip
def test_query_of_a_change_may_have_no_unknown_name(ops, method, path, hint):
    """Also no parameter of the task, whose value is not shown."""
    changed = f"/api/runs?task_name={'strict' if hint else 'good'}"
    run = ops.run("good")
    before = ops.get(changed).json["total"]
    body = None
    if "bulk" in path or hint:
        body = {"params": {"MUST": ""}} if hint else {"ids": [run["id"]]}
    query = f"?waitt=true&KEY={SECRET}&=1&a"
    reply = ops.request(method, path.format(**run) + query, body)
    assert reply.status == 422 and SECRET not in reply.raw.decode()
    told = dict(reply.faults)
    assert list(told) == [f"query.{name}" for name in ("waitt", "KEY", "", "a")]
    assert told["query.waitt"] == f"unknown query parameter{hint}"
    assert ops.get(changed).json["total"] == before
    for other in ("GET", "HEAD"):
        assert ops.request(other, place(run) + query).status == 200


@pytest.mark.parametrize("path, body, places", [
    ("/api/tasks/say/run", '{"params": {"TEXT": "a", "TEXT": "b"}}', ["params.TEXT"]),
    ("/api/tasks/say/run", '{"params": {"TEXT": "a", "TEXT": "a"}}', ["params.TEXT"]),
    ("/api/tasks/say/run", '{"params": {"TEXT": "a", "\\u0054EXT": "b", "TEXT": ""}}',
     ["params.TEXT"]),
    ("/api/tasks/say/run", '{"params": {}, "params": {"TEXT": "b"}}', ["params"]),
    ("/api/tasks/say/run", '{"params": {"X": [{"a": 1, "a": 2}], "TEXT": ""}}',
     ["params.X[0].a", "params.X"]),
    ("/api/runs/bulk/delete", '{"filter": {"search": "a", "search": "b"}, "ids": [1]}',
     ["filter.search", "ids[0]"]),
])  # fmt: skip
def test_name_that_stands_twice_in_a_body_is_a_fault(ops, path, body, places):
    reply = ops.post(path, body.encode(), 422)
    found = [at for at, message in reply.faults]
    assert list(dict.fromkeys(found)) == [f"body.{place}" for place in places]
    assert reply.faults[0][1] == tr.REPEATED
    assert ops.run("say", {"TEXT": '{"a": 1, "a": 2}'})["end_reason"] == "success"


@pytest.mark.parametrize("task, status, reason", [
    ("skip", 409, "skipped"), ("no-queue", 429, "queue_full"),
])  # fmt: skip
def test_trigger_that_finds_no_room_is_recorded(ops, fifo, task, status, reason):
    with blocked(ops, task, fifo):
        reply = ops.post(f"/api/tasks/{task}/run?wait=true", status=status)
        run = ops.get(reply.json["instance"]).json
    found = (run["status"], run["end_reason"], run["exit_code"])
    assert found == ("ended", reason, -1)
    assert run["error"] == reply.json["detail"] and "start_at" not in run
    assert reply.json["instance"] == place(run)
    assert status == 409 or int(reply.headers["Retry-After"]) > 0


def test_trigger_that_joins_a_waiting_run_is_201_and_says_so(ops, fifo):
    body = {"params": {"fifo": str(fifo)}}
    with blocked(ops, "coalesce", fifo):
        waiting = ops.trigger("coalesce", body["params"])
        reply = ops.post("/api/tasks/coalesce/run", body, status=201)
        shown = ops.get("/api/tasks/coalesce").json
        ops.stop(waiting)
    assert (reply.json["id"], reply.headers["Coalesced"]) == (waiting["id"], "true")
    assert (shown["on_overlap"], shown["coalesce"]) == ("queue", True)
    assert ops.get("/api/tasks/skip").json["coalesce"] is False


def test_trigger_while_shutting_down_is_503(serve, fifo):
    deaf = "trap '' TERM; echo deaf; while :; do sleep 5; done"
    tasks = {"deaf": {"run": deaf, "graceful_stop": "30s"}}
    daemon = serve(tasks, "--shutdown-timeout", "30s")
    connection = daemon.connect()
    run = daemon.trigger("deaf")
    within(DEADLINE_S, lambda: daemon.raw(run), "the trap")
    ready = daemon.request("GET", "/readyz", connection=connection)
    assert (ready.status, ready.json["status"]) == (200, "ok")
    with daemon.events("/api/runs/stream") as events:
        assert next(events).name == "ping"
        assert daemon.process
        daemon.process.send_signal(signal.SIGTERM)
        assert all(event.name for event in events)
    ready = daemon.request("GET", "/readyz", connection=connection)
    assert (ready.status, ready.json["status"]) == (503, "unavailable")
    assert ready.json["detail"] and ready.headers["Retry-After"]
    assert daemon.request("GET", "/healthz", connection=connection).status == 200
    reply = daemon.request("POST", "/api/tasks/deaf/run", connection=connection)
    assert reply.status == 503 and int(reply.headers["Retry-After"]) > 0
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0


# -- the trace


def trigger_with(daemon, task, **headers):
    """Trigger a task with headers and wait for its end; `_` stands for `-`."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    reply = daemon.request("POST", f"/api/tasks/{task}/run?wait=1", headers=sent)
    assert reply.status == 201, reply
    return reply


def test_trace_of_a_trigger_is_kept_and_handed_to_the_program(ops):
    reply = trigger_with(ops, "trace", X_Request_Id="req 1~", traceparent=TRACEPARENT)
    run = reply.json
    assert reply.headers["X-Request-Id"] == "req 1~"
    assert (run["request_id"], run["traceparent"]) == ("req 1~", TRACEPARENT)
    assert ops.raw(run) == f"req 1~ {TRACEPARENT}\n".encode()
    (again,) = ops.post("/api/runs/bulk/rerun", {"ids": [run["id"]]}).json["runs"]
    assert again["request_id"] not in ("", "req 1~")
    assert "traceparent" not in ops.ended(again)


def test_trigger_without_a_request_id_gets_one_of_its_own(ops):
    replies = [trigger_with(ops, "trace") for _ in range(2)]
    for reply in replies:
        made = reply.headers["X-Request-Id"]
        assert re.fullmatch("[0-9a-f]{32}", made)
        assert reply.json["request_id"] == made
        assert ops.raw(reply.json) == f"{made} none\n".encode()
    assert len({reply.headers["X-Request-Id"] for reply in replies}) == 2


def test_parameter_named_traceparent_beats_the_header(ops):
    run = trigger_with(ops, "trace-given", traceparent=TRACEPARENT).json
    assert ops.raw(run).endswith(b" by parameter\n")


ZEROS = "0" * 32
_, TRACE_ID, PARENT, _ = TRACEPARENT.split("-")


@pytest.mark.parametrize("given, is_one", [
    *((given, True) for given in (
        TRACEPARENT, f"00-{TRACE_ID}-{PARENT}-ff", f"01-{TRACE_ID}-{PARENT}-00",
        f"cc-{TRACE_ID}-{PARENT}-01-what.the-future", f"fe-{TRACE_ID}-{PARENT}-01-",
    )),
    *((given, False) for given in (
        "", "x", f"ff-{TRACE_ID}-{PARENT}-01", f"00-{ZEROS}-{PARENT}-01",
        f"00-{TRACE_ID}-{ZEROS[:16]}-01", f"00-{TRACE_ID.upper()}-{PARENT}-01",
        f"00-{TRACE_ID}-{PARENT}-01-more", f"00-{TRACE_ID}-{PARENT}-01-",
        f"00-{TRACE_ID}-{PARENT}-1", f"01-{TRACE_ID}-{PARENT}-01.more",
        f"00-{TRACE_ID}-{PARENT}", f"{TRACEPARENT}, {TRACEPARENT}",
        f"01-{TRACE_ID}-{PARENT}-01-" + "x" * tr.TRACEPARENT_MAX_CHARS,
    )),
])  # fmt: skip
def test_traceparent_is_kept_as_it_came_or_ignored(ops, given, *, is_one):
    run = trigger_with(ops, "trace", traceparent=given).json
    assert run.get("traceparent") == (given if is_one else None)
    assert ops.raw(run).endswith(f" {given if is_one else 'none'}\n".encode())


# -- the key


def keyed(daemon, task, key, query="", body=None):
    """Trigger a task with an Idempotency-Key as it stands in the header."""
    path, headers = f"/api/tasks/{task}/run{query}", {"Idempotency-Key": key}
    return daemon.request("POST", path, body, headers)


def test_fifty_parallel_triggers_with_one_key_make_one_run(shared, fifo):
    total = shared.get("/api/tasks/wait-for-fifo/runs").json["total"]
    key, body = uuid.uuid4().hex, {"params": {"fifo": str(fifo)}}
    query = "?wait=true&wait_timeout=600"
    with ThreadPoolExecutor(50) as crowd:
        asked = [
            crowd.submit(keyed, shared, "wait-for-fifo", key, query, body)
            for _ in range(50)
        ]
        within(DEADLINE_S, lambda: waiting(shared) == 50, "all of them wait")
        let_go(fifo)
    replies = [future.result() for future in asked]
    assert {(r.status, r.json["end_reason"]) for r in replies} == {(201, "success")}
    assert len({reply.json["id"] for reply in replies}) == 1
    replays = [reply.headers["Idempotency-Replayed"] for reply in replies]
    assert collections.Counter(replays) == {None: 1, "true": 49}
    assert shared.get("/api/tasks/wait-for-fifo/runs").json["total"] == total + 1


def test_key_means_the_request_and_not_how_it_is_written(ops):
    key = uuid.uuid4().hex
    body = {"params": {"A": "1", "B": "2", "S": "secret"}}
    first = keyed(ops, "shown", key, "?wait=true", body)
    assert "Idempotency-Replayed" not in first.headers
    other = b' {"params":{"S":"secret", "B":"\\u0032","A":"1"},"$schema":"http://x/y"}'
    replay = keyed(ops, "shown", f'"{key}"', "?output=5&wait_timeout=9", other)
    assert replay.headers["Idempotency-Replayed"] == "true"
    assert replay.headers["Location"] == first.headers["Location"]
    assert replay.json.pop("output")
    assert replay.json == first.json
    for different in ({}, {"A": "1"}, {**body["params"], "last": None}):
        refused = keyed(ops, "shown", key, "", {"params": different})
        assert refused.status == 422
        (fault,) = refused.faults
        assert fault[0] == "header.Idempotency-Key"
    assert keyed(ops, "good", key).status == 422
    database = ops.folder / ".taskrunnerd" / "history.sqlite3"
    with contextlib.closing(sqlite3.connect(database)) as history:
        rows = history.execute("select * from claims where key = ?", [key]).fetchall()
    assert len(rows) == 1 and "secret" not in repr(rows)


def test_key_without_parameters_is_the_same_in_every_way_to_say_none(ops):
    key = uuid.uuid4().hex
    said = (None, {}, {"params": {}}, b"", {"$schema": "http://x/y"})
    replies = [keyed(ops, "good", key, "", body) for body in said]
    assert len({reply.json["id"] for reply in replies}) == 1


def test_key_follows_the_attempts_of_its_run(serve):
    flaky = {"run": "[ $TASKRUNNERD_ATTEMPT = 2 ]", "retry_attempts": 2,
        "retry_delay": "0s"}  # fmt: skip
    daemon = serve({"flaky": flaky})
    first = keyed(daemon, "flaky", "k").json
    last = keyed(daemon, "flaky", "k", "?wait=true")
    assert last.headers["Idempotency-Replayed"] == "true"
    assert (last.json["retry_attempt"], last.json["end_reason"]) == (2, "success")
    assert last.headers["Location"] == place(first)
    assert daemon.get("/api/runs").json["total"] == 3


def test_key_goes_on_with_a_stream_where_it_was_cut(ops):
    key, path = uuid.uuid4().hex, "/api/tasks/lines/run"
    body = json.dumps({"params": {"count": "5"}})

    def lines(last_id):
        connection = ops.connect()
        headers = {
            "Idempotency-Key": key,
            "Accept": "text/event-stream",
            "Last-Event-ID": last_id,
        }
        connection.request("POST", path, body, headers)
        answer = connection.getresponse()
        found = [e.data["text"] for e in parse_events(answer) if e.name == "line"]
        connection.close()
        return answer.headers["Idempotency-Replayed"], found

    texts = [f"line {n}" for n in range(5)]
    assert lines("2") == (None, texts), "nothing of a new run was seen before"
    assert lines("2") == ("true", texts[3:])


def test_key_of_a_skipped_run_is_answered_409_again(ops, fifo):
    key = uuid.uuid4().hex
    body = {"params": {"fifo": str(fifo)}}
    with blocked(ops, "skip", fifo):
        first = keyed(ops, "skip", key, "", body)
    again = keyed(ops, "skip", key, "", body)
    assert (first.status, again.status) == (409, 409)
    assert again.json["instance"] == first.json["instance"]
    assert "Idempotency-Replayed" not in first.headers
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("header, key", [
    ("abc", "abc"), ('"abc"', "abc"), ('"a b"', "a b"), (r'"a\"\\"', 'a"\\'),
    ("8e03978e-40d5-43dd-bc93-6894a57f9324", "8e03978e-40d5-43dd-bc93-6894a57f9324"),
    ("*/:!#$%&'+.^_`|~", "*/:!#$%&'+.^_`|~"), ("x" * 255, "x" * 255),
    ('"' + r'\"' * 255 + '"', '"' * 255), ('" "', " "), ('"a,b"', "a,b"),
])  # fmt: skip
def test_key_is_read(header, key):
    assert tr._key_text(header) == key


NO_KEY = 'must be text in double quotes, such as "8e03978e", or a token'


@pytest.mark.parametrize("header, message", [
    *((header, NO_KEY) for header in (
        "", '""', '"', '"a', 'a"', "a b", "a,b", "a=b", "(a)", '"a" "b"', '"a", "a"',
        '"a";p=1', r'"\a"', '"a\\"', "Zo\xeb", '"Zo\xeb"', "{}",
    )), ("x" * 256, "must have at most 255 characters"),
    ('"' + "x" * 256 + '"', "must have at most 255 characters"),
])  # fmt: skip
def test_key_that_is_malformed_is_answered_400(ops, header, message):
    reply = keyed(ops, "good", header)
    assert reply.status == 400
    assert reply.faults == [("header.Idempotency-Key", message)]
    assert "Idempotency-Key" in reply.json["detail"]
    assert len(reply.json["errors"][0]["value"]) <= tr.ECHO_MAX_CHARS + 1


def test_malformed_key_is_listed_with_all_other_faults(ops):
    body = {"params": {"n": "x", "KEY": "hidden"}}
    reply = keyed(ops, "strict", "a b", "?wait=maybe", body)
    assert reply.status == 400
    assert [location for location, _ in reply.faults] == [
        "query.wait", "header.Idempotency-Key",
        "body.params.n", "body.params.KEY", "body.params.MUST",
    ]  # fmt: skip
    assert b"hidden" not in reply.raw
    assert keyed(ops, "no-such-task", "a b").status == 404
    assert keyed(ops, "forbidden", "a b").status == 403


# -- parameters


@pytest.mark.parametrize("given, output, resolved", [
    ({}, "<by default><unset><0>", {"A": "by default"}),
    ({"A": None, "B": None}, "<unset><unset><0>", None),
    ({"A": "", "B": ""}, "<><><0>", {"A": "", "B": ""}),
    ({"A": None, "S": SECRET}, f"<unset><unset><{len(SECRET)}>", {"S": "•••"}),
    ({"last": "$HOME;", "--loud": "T", "--date=": "1 2", "--level": "", "A": None},
     "<unset><unset><0><--level><><--date=1 2><--loud><$HOME;>",
     {"--level": "", "--date=": "1 2", "--loud": "true", "last": "$HOME;"}),
    ({"A": None, "--loud": "0"}, "<unset><unset><0>", {"--loud": "false"}),
])  # fmt: skip
def test_params_absent_null_and_empty(ops, given, output, resolved):
    run = ops.run("shown", given)
    assert ops.raw(run).decode() == output
    assert run.get("params") == resolved


@pytest.mark.parametrize("given", [
    {"MUST": ""}, {"MUST": "x" * 32_768}, {"CUSTOM": "any"}, {"n": "-1.5e+3"},
    {"n": "0"}, {"--int": "-12"}, {"--loud": "F"},
    {"COLOUR": None, "n": None, "--int": None, "--loud": None, "KEY": None},
])  # fmt: skip
def test_params_at_the_edge_are_taken(ops, given):
    ops.run("strict", {"MUST": "", **given})


@pytest.mark.parametrize("given, output", [
    ('"n": 2.5, "--int": 5, "--loud": true', "2.5|--int|5|--loud||"),
    ('"n": 1.10, "--loud": false', "1.10||"),
    ('"n": 1E+5, "--loud": 1', "1E+5|--loud||"),
    ('"n": 0.12345678901234567890, "--loud": 0', "0.12345678901234567890||"),
    ('"n": 5, "--int": 12345678901234567890123', "5|--int|12345678901234567890123||"),
    ('"n": -0.0, "--int": -7', "-0.0|--int|-7||"),
    ('"pick": 5, "PIN": 1234', "5|1234|"),
    ('"n": null, "--int": null, "--loud": null', "|"),
])  # fmt: skip
def test_params_may_be_json_numbers_and_booleans_and_mean_their_text(
    ops, given, output
):
    body = f'{{"params": {{{given}}}}}'
    path = "/api/tasks/typed/run?wait=true"
    run = ops.post(path, body.encode(), 201).json
    assert ops.raw(run).decode() == output
    assert all(isinstance(value, str) for value in run.get("params", {}).values())


@pytest.mark.parametrize("first, again", [(5, "5"), (2.5, "2.5"), (True, "true")])
def test_key_means_a_number_and_its_text_alike(ops, first, again):
    name = {5: "--int", 2.5: "n", True: "--loud"}[first]
    runs = [
        keyed(ops, "typed", f"typed-{again}", body={"params": {name: value}})
        for value in (first, again)
    ]
    assert [run.status for run in runs] == [201, 201]
    assert runs[0].json["id"] == runs[1].json["id"]


def test_trigger_lists_all_faults_in_order(ops):
    body = {"parms": {}, "params": {"n": "x", "EXTRA": "1", "--loud": 2}}
    reply = ops.post("/api/tasks/strict/run?wait=maybe&wait_timeout=0", body, 422)
    places = [at for at, _ in reply.faults]
    assert places[:2] == ["query.wait", "query.wait_timeout"]
    assert sorted(places[2:]) == [
        "body.params.--loud", "body.params.EXTRA", "body.params.MUST", "body.params.n",
        "body.parms",
    ]  # fmt: skip
    assert dict(reply.faults)["body.parms"] == "unknown key; did you mean params?"


@pytest.mark.parametrize("value", [SECRET, [SECRET], {"x": SECRET}, SECRET + "\0"])
def test_faults_never_echo_secret_values(ops, value):
    body = {"params": {"MUST": "", "KEY": value}}
    reply = ops.post("/api/tasks/strict/run", body, 422)
    assert [at for at, _ in reply.faults] == ["body.params.KEY"]
    assert SECRET not in reply.raw.decode()


@pytest.mark.parametrize("body", [
    {"params": {"MUST": "", "KYE": SECRET}}, {"params": {"MUST": "", "KYE": [SECRET]}},
    {"params": {"MUST": {"a": SECRET}}}, {"params": {"MUST": "", "COLOUR": SECRET}},
    {"KEY": SECRET}, {"parms": {"KEY": SECRET}}, {"params": SECRET},
    {"params": [SECRET]}, SECRET, [SECRET], {"$schema": [SECRET]},
])  # fmt: skip
@pytest.mark.parametrize("task", ["strict", "no%20task"])
def test_faults_echo_no_value_of_a_body_that_may_hold_a_secret(ops, body, task):
    reply = ops.post(f"/api/tasks/{task}/run?wait=maybe", body, 422)
    assert reply.faults[-1][0].startswith("body") or task != "strict"
    assert SECRET not in reply.raw.decode() and b"maybe" in reply.raw


def test_faults_echo_other_values_cut_at_200_characters(shared):
    long = "x" * 200 + "yz"
    body = {"other": long, "params": {"fifo": ["green"]}}
    errors = shared.post("/api/tasks/wait-for-fifo/run", body, 422).json["errors"]
    values = {e["location"]: e["value"] for e in errors}
    assert values["body.other"] == long[:200] + "…"
    assert values["body.params.fifo"] == ["green"]


def test_secret_values_are_nowhere_in_the_api(ops):
    run = ops.run("shown", {"S": SECRET})
    paths = [place(run), "/api/runs", "/api/tasks", "/api/tasks/shown/runs"]
    for path in (*paths, "/api/tasks/shown"):
        assert SECRET not in ops.get(path).raw.decode()


# -- tasks and runs


def test_tasks_are_listed_as_a_bare_array_in_their_order(ops):
    tasks = ops.get("/api/tasks").json
    assert [task["name"] for task in tasks] == list(OPERATION_TASKS)


def test_task_tells_its_state_but_not_its_command(ops, fifo):
    with blocked(ops, "lonely", fifo) as run:
        waiting = ops.trigger("lonely", {"fifo": str(fifo)})
        task = ops.get("/api/tasks/lonely").json
        assert (task["running"], task["queued"]) == (1, 1)
        assert task["last_run"]["id"] == waiting["id"] > run["id"]
        assert not {"run", "env", "secrets"} & set(task)
        ops.stop(waiting)
    ops.get("/api/tasks/nothing", 404)


RUN_ALWAYS = {
    "$schema", "id", "task_name", "status", "exit_code", "triggered_by",
    "created_at", "retry_attempt", "instance_index",
}  # fmt: skip
RUN_ENDED = RUN_ALWAYS | {
    "end_reason", "start_at", "end_at", "duration", "output_bytes",
    "output_dropped_bytes", "cpu_seconds",
}  # fmt: skip


RUN_SOMETIMES = {"signal", "error", "scheduled_at", "params", "retry_of_run_id"}


def test_run_leaves_out_what_has_no_value(ops, fifo):
    with blocked(ops, "lonely", fifo) as running:
        waiting = ops.trigger("lonely")
        assert set(waiting) == RUN_ALWAYS | {"request_id"}
        assert set(running) == RUN_ALWAYS | {"request_id", "start_at", "params"}
        assert (waiting["exit_code"], running["exit_code"]) == (-1, -1)
        ops.stop(waiting)
        taken_out = ops.ended(waiting)
        assert (taken_out["end_reason"], taken_out["exit_code"]) == ("stopped", -1)
        assert "start_at" not in taken_out
    ended = set(ops.run("good"))
    assert ended >= RUN_ENDED and not ended & RUN_SOMETIMES


def test_run_tells_signal_code_and_why_it_could_not_start(ops):
    killed, absent = ops.run("killed"), ops.run("absent")
    assert set(killed) & RUN_SOMETIMES == {"signal"}
    assert (killed["signal"], killed["exit_code"]) == ("SIGKILL", 137)
    assert (absent["end_reason"], absent["exit_code"]) == ("start_failed", -1)
    assert "no-such-program" in absent["error"]


def test_run_values_have_the_promised_forms(ops):
    run = ops.run("say", {"TEXT": "12345"})
    assert re.fullmatch(tr.RUN_ID_PATTERN, run["id"])
    for name in ("created_at", "start_at", "end_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", run[name])
    assert run["created_at"] <= run["start_at"] <= run["end_at"]
    assert (run["output_bytes"], run["output_dropped_bytes"]) == (5, 0)
    assert (run["triggered_by"], run["retry_attempt"], run["instance_index"]) == (
        "api", 0, 0,
    )  # fmt: skip


def test_run_is_found_by_task_and_by_id_alone(shared):
    run = shared.run("true")
    assert shared.run_now(run) == shared.get(f"/api/runs/{run['id']}").json == run


RUN_ROUTES = [
    ("GET", ""), ("DELETE", ""), ("POST", "/stop"), ("GET", "/log"),
    ("GET", "/log/raw"), ("GET", "/log/stream"), ("GET", "/log/parts"),
]  # fmt: skip


@pytest.mark.parametrize("method, end", RUN_ROUTES)
def test_run_must_be_one_of_the_task_and_its_id_a_ulid(shared, method, end):
    run = shared.run("true")
    for path in (f"fail/runs/{run['id']}", f"true/runs/{NOWHERE}"):
        assert shared.request(method, f"/api/tasks/{path}{end}").status == 404
    for run_id in ("x", NOWHERE[:-1], NOWHERE + "0", NOWHERE.lower()):
        reply = shared.request(method, f"/api/tasks/a%21/runs/{run_id}{end}")
        assert reply.status == 422
        assert [at for at, _ in reply.faults] == ["path.task_name", "path.run_id"]
    assert shared.run_now(run) == run


def test_delete_forgets_an_ended_run(shared):
    run = shared.run("hello")
    assert shared.request("DELETE", place(run)).status == 204
    for path in (place(run), f"/api/runs/{run['id']}", place(run) + "/log/raw"):
        shared.get(path, 404)
    assert shared.request("DELETE", place(run)).status == 404


def test_delete_is_409_while_pending_or_running(ops, fifo):
    with blocked(ops, "lonely", fifo) as running:
        waiting = ops.trigger("lonely")
        for run in (running, waiting):
            reply = ops.request("DELETE", place(run))
            assert reply.status == 409 and "stop it first" in reply.json["detail"]
            assert ops.run_now(run)["status"] == run["status"]
        ops.stop(waiting)


def test_stop_ends_running_and_pending_runs_once(ops, fifo):
    with blocked(ops, "lonely", fifo) as running:
        # A run that is stopped before its program was started has no signal.
        within(DEADLINE_S, lambda: ops.raw(running), "the program's first line")
        waiting = ops.trigger("lonely")
        for run, words in ((waiting, "taken out of the queue"), (running, "to stop")):
            reply = ops.stop(run)
            assert reply.status == 200 and words in reply.json["message"]
            assert ops.ended(run)["end_reason"] == "stopped"
            assert ops.stop(run).status == 409
    assert ops.run_now(running)["signal"] == "SIGTERM"


# -- lists


@pytest.fixture(scope="session")
def listed(ops):
    """Three runs of list-a (good) and two of list-b (exit code 3), oldest first."""
    names = ("list-a", "list-b", "list-a", "list-b", "list-a")
    return [ops.run(name) for name in names]


@pytest.mark.parametrize("query, places", [
    ("", [4, 3, 2, 1, 0]), ("limit=2", [4, 3]), ("limit=2&offset=3", [1, 0]),
    ("offset=5", []), ("limit=1&limit=3", [4]), ("unknown=x", [4, 3, 2, 1, 0]),
    ("sort_direction=asc", [0, 1, 2, 3, 4]),
    ("sort_field=created_at&sort_direction=desc", [4, 3, 2, 1, 0]),
    ("sort_field=task_name&sort_direction=asc", [0, 2, 4, 1, 3]),
    ("sort_field=task_name", [3, 1, 4, 2, 0]),
    ("sort_field=exit_code", [3, 1, 4, 2, 0]),
    ("sort_field=status&sort_direction=asc", [1, 3, 0, 2, 4]),
    ("sort_field=start_at&sort_direction=asc", [0, 1, 2, 3, 4]),
    ("status=ended", [4, 3, 2, 1, 0]), ("status=failed", [3, 1]),
    ("status=pending,%20success", [4, 2, 0]), ("status=pending,running", []),
    ("task_name=list-b", [3, 1]), ("task_name=unknown", []),
    ("triggered_by=api", [4, 3, 2, 1, 0]), ("triggered_by=cron", []),
    ("exit_code_min=1", [3, 1]), ("exit_code_max=0", [4, 2, 0]),
    ("exit_code_min=0&exit_code_max=2", [4, 2, 0]),
    ("exit_code_min=5&exit_code_max=2", []), ("retries_only=true", []),
    ("exit_code_min=256", []),
    ("exit_code_min=-2147483648&exit_code_max=4294967296", [4, 3, 2, 1, 0]),
    ("status=&task_name=&triggered_by=&created_after=&sort_field=", [4, 3, 2, 1, 0]),
    ("created_before=&exit_code_min=&exit_code_max=&sort_direction=", [4, 3, 2, 1, 0]),
    ("retries_only=", [4, 3, 2, 1, 0]), ("search=LIST-B", [3, 1]),
    ("search=st-%25", []), ("search=st_b", []), ("search=%27", []),
    ("created_before=2020-01-01T00:00:00Z", []),
    ("created_after=2020-01-01T00:00:00%2B01:00", [4, 3, 2, 1, 0]),
])  # fmt: skip
def test_list_filters_sorts_and_pages(ops, listed, query, places):
    if not re.search(r"task_name=\w|search=", query):
        query += "&search=list-"
    reply = ops.get(f"/api/runs?{query}")
    assert ids(reply) == [listed[index]["id"] for index in places]
    if "limit" not in query and "offset" not in query:
        assert reply.json["total"] == len(places)


def test_list_total_counts_beyond_the_page(ops, listed):
    for path in ("/api/runs?task_name=list-a&", "/api/tasks/list-a/runs?"):
        reply = ops.get(f"{path}limit=1&offset=1")
        assert ids(reply) == [listed[2]["id"]] and reply.json["total"] == 3


def test_list_created_bounds_are_inclusive(ops, listed):
    when = listed[2]["created_at"]
    from_it = ops.get(f"/api/runs?search=list-&created_after={when}").json["runs"]
    up_to_it = ops.get(f"/api/runs?search=list-&created_before={when}").json["runs"]
    assert from_it and all(run["created_at"] >= when for run in from_it)
    assert up_to_it and all(run["created_at"] <= when for run in up_to_it)
    found = {run["id"] for run in from_it} & {run["id"] for run in up_to_it}
    assert listed[2]["id"] in found


def test_list_finds_part_of_an_id(ops, listed):
    part = listed[1]["id"][4:].lower()
    assert ids(ops.get(f"/api/runs?search={part}")) == [listed[1]["id"]]


def test_list_of_a_task_shows_only_its_runs(ops, listed):
    reply = ops.get("/api/tasks/list-b/runs?task_name=list-a&status=failed")
    assert ids(reply) == [listed[3]["id"], listed[1]["id"]]
    ops.get("/api/tasks/unknown/runs", 404)


BAD_FILTERS = [
    ("limit=0", "limit", "must be 1 to 1000"),
    ("limit=1001", "limit", "must be 1 to 1000"),
    ("limit=ten", "limit", "must be a whole number"),
    ("limit=", "limit", "must be a whole number"),
    ("offset=-1", "offset", "must be 0 to 1000000000"),
    ("offset=1e3", "offset", "must be a whole number"),
    ("offset=" + "9" * 5000, "offset", "must be a whole number"),
    ("status=done", "status", '"done" is not a status'),
    ("status=failed,", "status", '"" is not a status'),
    ("task_name=a%20b", "task_name", "must match"),
    ("triggered_by=me", "triggered_by", "must be one of cron, api"),
    ("created_after=yesterday", "created_after", "yesterday"),
    ("created_before=2026-02-30T00:00:00Z", "created_before", "2026-02-30"),
    ("created_after=2026-01-01", "created_after", "2026-01-01"),
    ("created_after=2026-01-01T00:00:00", "created_after", "2026-01-01"),
    ("exit_code_min=x", "exit_code_min", "must be a whole number"),
    ("exit_code_max=1.0", "exit_code_max", "must be a whole number"),
    ("retries_only=maybe", "retries_only", '"maybe" is not true or false'),
    ("sort_field=id", "sort_field", "must be one of task_name, status, start_at"),
    ("sort_direction=down", "sort_direction", "must be one of asc, desc"),
    ("search=" + "x" * 201, "search", "must have at most 200 characters"),
    ("search=a%00b", "search", "must not contain a NUL character"),
]  # fmt: skip


def test_list_names_all_bad_values_at_once(ops):
    reply = ops.get("/api/tasks/a!/runs?limit=0&status=x&offset=x", 422)
    places = [at for at, _ in reply.faults]
    assert places[0] == "path.task_name"
    assert sorted(places[1:]) == ["query.limit", "query.offset", "query.status"]


def test_summary_counts_by_outcome(ops):
    before = ops.get("/api/runs/summary").json
    bad, absent = ops.run("bad"), ops.run("absent")
    ops.run("good")
    after = ops.get("/api/runs/summary").json
    grown = {k: after[k] - before[k] for k in ("total", "success", "failed", "missed")}
    assert grown == {"total": 3, "success": 1, "failed": 2, "missed": 0}
    assert after["last_failure"] == absent["end_at"]
    absent = {k: v for k, v in absent.items() if k != "$schema"}
    assert after["last_failure_run"] == absent
    assert bad["id"] < after["last_failure_run"]["id"]


def test_summary_of_an_empty_history_has_no_last_failure(serve):
    summary = serve({"t": {"run": "true"}}).get("/api/runs/summary").json
    assert summary.pop("$schema")
    assert summary == {"total": 0, "success": 0, "failed": 0, "missed": 0}


# -- bulk


def bulk(daemon, what, body, status=200):
    """The answer of a bulk operation."""
    return daemon.post(f"/api/runs/bulk/{what}", body, status)


BULK_FAULTS: list[tuple[Any, str, str]] = [
    (None, "body", "must be there"),
    ({}, "body", "must have either"),
    ({"match_all": False}, "body", "must have either"),
    ({"ids": [NOWHERE], "match_all": True}, "body", "must have either"),
    ({"filter": {}}, "body", "must have either"),
    ({"ids": []}, "body", "must have either"),
    ({"ids": None, "filter": {}, "except_ids": []}, "body", "must have either"),
    ({"ids": NOWHERE}, "body.ids", "must be a list"),
    ({"ids": [NOWHERE, "x"]}, "body.ids[1]", "must match"),
    ({"ids": [NOWHERE, 5]}, "body.ids[1]", "must be text"),
    ({"ids": [NOWHERE] * 10_001}, "body.ids", "must have at most 10000 entries"),
    ({"match_all": "true"}, "body.match_all", "must be true or false"),
    ({"match_all": None, "filter": {"status": ""}}, "body", "must have either"),
    ({"match_all": True, "filter": {"search": []}}, "body.filter.search", "be text"),
    ({"match_all": True, "except_ids": [""]}, "body.except_ids[0]", "must match"),
    ({"match_all": True, "filter": []}, "body.filter", "must be an object"),
    ({"match_all": True, "filter": {"status": "x"}}, "body.filter.status", "not a"),
    ({"match_all": True, "filter": {"exit_code_min": "1"}},
     "body.filter.exit_code_min", "must be a whole number"),
    ({"match_all": True, "filter": {"statu": "failed"}},
     "body.filter.statu", "unknown key; did you mean status?"),
    ({"ids": [NOWHERE], "id": 1}, "body.id", "unknown key; did you mean ids?"),
    ([], "body", "must be an object"),
]  # fmt: skip


@pytest.mark.parametrize("what", ["cancel", "delete", "restore", "rerun"])
@pytest.mark.parametrize("body, location, message", BULK_FAULTS)
def test_bulk_refuses_bad_selectors(ops, what, body, location, message):
    [(at, said)] = bulk(ops, what, body, 422).faults
    assert at == location and message in said


def test_bulk_takes_blank_members_of_a_selector_as_absent(ops):
    run = ops.run("good")
    blank: Any = {"ids": [], "except_ids": None, "filter": {"search": "", "status": ""}}
    by_ids = {**blank, "ids": [run["id"]], "match_all": False}
    assert bulk(ops, "cancel", by_ids).json["affected"] == 0
    by_ids["filter"] = {"task_name": "not-this-one", "exit_code_min": None}
    by_ids["except_ids"] = [run["id"]]
    assert bulk(ops, "delete", by_ids).json["affected"] == 1
    names = {"triggered_by": None, "created_after": "", "search": run["id"]}
    by_filter = {**blank, "match_all": True, "filter": names}
    assert bulk(ops, "restore", by_filter).json["affected"] == 1


def test_bulk_takes_a_whole_number_however_it_is_written(ops):
    for number in ("250", "250.0", "2.5e2"):
        body = f'{{"match_all": true, "filter": {{"exit_code_min": {number}}}}}'
        assert bulk(ops, "delete", body.encode()).json["affected"] == 0


def test_bulk_lists_the_faults_of_selector_and_values_together(ops):
    body = {"ids": ["x"], "match_all": True, "filter": {"status": "x"}}
    places = [at for at, _ in bulk(ops, "delete", body, 422).faults]
    assert sorted(places) == ["body", "body.filter.status", "body.ids[0]"]


def test_bulk_delete_and_restore_by_ids_count_each_run_once(ops):
    runs = [ops.run("say", {"TEXT": "kept"}), ops.run("bulk-b")]
    body = {"ids": [runs[0]["id"], runs[1]["id"], runs[0]["id"], NOWHERE]}
    for what, status in (("delete", 404), ("restore", 200)):
        assert bulk(ops, what, body).json["affected"] == 2
        assert bulk(ops, what, body).json["affected"] == 0
        for run in runs:
            ops.get(place(run), status)
    assert [ops.run_now(run) for run in runs] == runs
    assert ops.raw(runs[0]) == b"kept"


def test_bulk_match_all_obeys_filter_and_except_ids(ops):
    runs = [ops.run("bulk-c") for _ in range(3)]
    body = {
        "match_all": True,
        "filter": {"task_name": "bulk-c", "status": "success", "retries_only": False},
        "except_ids": [runs[1]["id"]],
    }
    assert bulk(ops, "delete", body).json["affected"] == 2
    assert ids(ops.get("/api/tasks/bulk-c/runs")) == [runs[1]["id"]]
    assert bulk(ops, "restore", body).json["affected"] == 2
    assert len(ids(ops.get("/api/tasks/bulk-c/runs"))) == 3


@pytest.mark.parametrize("by_ids", [True, False])
def test_bulk_cancel_stops_pending_and_running(ops, fifo, by_ids):
    with blocked(ops, "lonely", fifo) as running:
        waiting = ops.trigger("lonely")
        body: Any = {"match_all": True, "filter": {"task_name": "lonely"}}
        if by_ids:
            body = {"ids": [running["id"], waiting["id"], ops.run("good")["id"]]}
        # Only ended runs can be deleted.
        assert bulk(ops, "delete", {"ids": [running["id"]]}).json["affected"] == 0
        assert ids(ops.get("/api/runs?status=running")) == [running["id"]]
        assert ids(ops.get("/api/runs?status=pending")) == [waiting["id"]]
        assert bulk(ops, "cancel", body).json["affected"] == 2
        for run in (running, waiting):
            assert ops.ended(run)["end_reason"] == "stopped"
        assert bulk(ops, "cancel", body).json["affected"] == 0


def test_bulk_rerun_starts_one_per_task_with_the_newest_parameters(ops):
    newest = {"A": "newest", "B": None}
    runs = [ops.run("rerun-me", {"A": "older"}), ops.run("rerun-me", newest)]
    runs += [ops.run("bulk-a"), ops.run("rerun-me", {"A": "not selected"})]
    reply = bulk(ops, "rerun", {"ids": [run["id"] for run in runs[:3]]}).json
    assert reply["affected"] == len(reply["runs"]) == 2 and reply["refused"] == []
    fresh = {run["task_name"]: ops.ended(run) for run in reply["runs"]}
    # What was omitted is omitted again, although it has a default.
    assert fresh["rerun-me"]["params"] == {"A": "newest"}
    assert fresh["bulk-a"]["end_reason"] == "success"
    assert not {run["id"] for run in fresh.values()} & {run["id"] for run in runs}


def test_bulk_rerun_lists_what_is_refused(ops, fifo):
    secret = ops.run("rerun-secret", {"S": SECRET})
    with blocked(ops, "skip", fifo) as skip, blocked(ops, "no-queue", fifo) as full:
        body = {"ids": [secret["id"], skip["id"], full["id"]]}
        reply = bulk(ops, "rerun", body).json
    assert (reply["affected"], reply["runs"]) == (0, [])
    refused = {entry["task_name"]: entry for entry in reply["refused"]}
    statuses = {name: entry["status"] for name, entry in refused.items()}
    assert statuses == {"rerun-secret": 422, "skip": 409, "no-queue": 429}
    assert "secret" in refused["rerun-secret"]["detail"]


def test_bulk_rerun_refuses_tasks_gone_or_shut(serve):
    daemon = serve({"gone": {"run": "true"}, "shut": {"run": "true"}})
    runs = [daemon.run("gone"), daemon.run("shut")]
    assert daemon.end() == 0
    daemon.write_tasks({"shut": {"run": "true", "api_trigger": False}})
    daemon.start()
    reply = bulk(daemon, "rerun", {"ids": [run["id"] for run in runs]}).json
    assert {(r["task_name"], r["status"]) for r in reply["refused"]} == {
        ("gone", 404),
        ("shut", 403),
    }
    assert daemon.get("/api/tasks/gone/runs").json["total"] == 1


# -- logs


@pytest.fixture(scope="session")
def ten_lines(ops):
    """A run that wrote line 0 to line 9."""
    return ops.run("lines", {"count": "10"})


@pytest.mark.parametrize("query, numbers", [
    ("", range(10)), ("?from=0&limit=3", range(3)), ("?from=8", [8, 9]),
    ("?from=9&limit=10000", [9]), ("?from=10", []), ("?from=999999999999999999", []),
    ("?from=-2", [8, 9]), ("?from=-10", range(10)), ("?from=-11&limit=1", [0]),
    ("?from=-9007199254740992", range(10)),
])  # fmt: skip
def test_log_page_from_and_limit(ops, ten_lines, query, numbers):
    page = ops.get(place(ten_lines) + "/log" + query).json
    assert [(line["n"], line["text"]) for line in page.pop("lines")] == [
        (n, f"line {n}") for n in numbers
    ]
    assert page.pop("$schema") and page == {
        "first_available": 0, "total_lines": 10, "truncated": False, "finalized": True,
    }  # fmt: skip


def test_log_lines_tell_stream_and_time(ops):
    run = ops.run("two-streams")
    lines = ops.lines(run)
    assert {(line["stream"], line["text"]) for line in lines} == {
        ("stdout", "out"),
        ("stderr", "err"),
    }
    start_ms = tr.parse_time(run["created_at"])
    assert all(start_ms <= line["ts"] for line in lines)


@pytest.mark.parametrize("query, last_id, first", [
    ("", None, 0), ("?from=4", None, 4), ("?from=-3", None, 7),
    ("?replay_limit=2", None, 8), ("?replay_limit=50000", None, 0),
    ("?from=2&replay_limit=3", None, 7), ("?from=2", "5", 6), ("?from=9", "0", 1),
    ("", "9", 10), ("", "nonsense", 0), ("?from=3", "-1", 3),
])  # fmt: skip
def test_log_stream_replays_and_is_done(ops, ten_lines, query, last_id, first):
    headers = {"Last_Event_ID": last_id} if last_id is not None else {}
    with ops.events(place(ten_lines) + "/log/stream" + query, **headers) as events:
        *lines, done = events
    assert [(e.name, e.id, e.data["n"], e.data["text"]) for e in lines] == [
        ("line", str(n), n, f"line {n}") for n in range(first, 10)
    ]
    assert (done.name, done.data) == ("done", {"final_line": 9, "status": "success"})
    for event in lines:
        assert not list(tr.find_faults(tr.SCHEMAS["LogLine"], event.data, ()))


def test_log_stream_follows_a_run_as_it_writes(ops, fifo):
    run = ops.trigger("lonely", {"fifo": str(fifo)})
    with ops.events(place(run) + "/log/stream") as events:
        assert next(events).data["text"] == "waiting"
        with open(fifo, "w") as writer:
            for text in ("first", "second"):
                writer.write(text + "\n")
                writer.flush()
                assert next(events).data["text"] == text
        assert next(events).data == {"final_line": 2, "status": "success"}
        assert list(events) == []


def test_log_stream_of_a_pending_run_waits_for_its_output(ops, fifo, tmp_path):
    other = tmp_path / "other"
    other.write_text("at last\n")
    with blocked(ops, "lonely", fifo) as running:
        waiting = ops.trigger("lonely", {"fifo": str(other)})
        with ops.events(place(waiting) + "/log/stream") as events:
            ops.stop(running)
            assert [e.data.get("text") for e in events] == ["waiting", "at last", None]
    assert ops.ended(waiting)["end_reason"] == "success"


def test_log_of_a_pending_and_a_running_run(ops, fifo):
    with blocked(ops, "lonely", fifo) as running:
        waiting = ops.trigger("lonely")
        within(DEADLINE_S, lambda: ops.lines(running), "first line")
        for run, total in ((running, 1), (waiting, 0)):
            page = ops.get(place(run) + "/log").json
            assert (page["total_lines"], page["finalized"]) == (total, False)
        with ops.events(place(waiting) + "/log/stream") as events:
            ops.stop(waiting)
            [done] = events
    assert done.data == {"final_line": -1, "status": "stopped"}


def test_log_stream_forbids_buffering_on_its_way(ops, ten_lines):
    reply = ops.get(place(ten_lines) + "/log/stream")
    assert reply.headers["X-Accel-Buffering"] == "no"
    assert reply.raw.startswith(b"id: 0\nevent: line\ndata: {")


def test_log_stream_tells_what_was_dropped(serve):
    run = "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done"
    daemon = serve({"much": {"run": run, "log_max_size": "4kb"}})
    ended = daemon.run("much")
    page = daemon.get(place(ended) + "/log?from=0&limit=10000").json
    assert page["truncated"] and page["total_lines"] >= 2000
    with daemon.events(place(ended) + "/log/stream", Last_Event_ID="10") as events:
        seen = list(events)
    dropped = [i for i, event in enumerate(seen) if event.name == "rotated"]
    assert len(dropped) == 1
    kept = next(
        event
        for event in seen[dropped[0] :]
        if event.data.get("text", "").startswith("line")
    )
    assert seen[dropped[0]].data == {"first_available": page["first_available"]}
    gone, after = seen[dropped[0] + 1], kept.data["n"]
    assert gone.name == "dropped"
    assert gone.data["after"] + gone.data["count"] + 1 == after
    assert all(line["n"] <= gone.data["after"] or line["n"] >= after - 1
               for line in page["lines"])  # fmt: skip
    assert seen[-2].data["text"] == "line 1999" and seen[-1].name == "done"


def test_log_gap_of_a_capped_run_is_the_same_in_page_stream_and_search(
    serve, monkeypatch
):
    """The first 64 KiB and the newest part, between them a line with the numbers."""
    # The program writes whole blocks, and may pause in the middle of a line.
    monkeypatch.setattr(tr, "HOLD_S", DEADLINE_S)
    task = {"run": "seq -f 'number %08.0f.' 0 29999", "log_max_size": "400kb"}
    daemon = serve({"count": task})
    run = daemon.run("count")
    lines = daemon.lines(run)
    # A page has 10,000 lines at most; more are kept.
    while lines[-1]["n"] < 29_999:
        lines += daemon.lines(run, f"?from={lines[-1]['n'] + 1}&limit=10000")
    (place_of_gap,) = [i for i, n in enumerate(lines) if n["stream"] == "system"]
    gap, after = lines[place_of_gap], lines[place_of_gap + 1]["n"]
    own = lines[:place_of_gap] + lines[place_of_gap + 1 :]
    assert [n["text"] for n in own] == [f"number {n['n']:08}." for n in own]
    assert [n["n"] for n in own] == [*range(place_of_gap), *range(after, 30_000)]
    assert tr.LOG_HEAD_BYTES - 17 < place_of_gap * 17 <= tr.LOG_HEAD_BYTES
    assert (30_000 - after) * 17 > 200 * tr.KIB
    left_out = after - place_of_gap
    assert run["output_dropped_bytes"] == left_out * 17
    assert gap["text"] == f"{left_out} lines ({left_out * 17} bytes) were left out here"

    with daemon.events(place(run) + "/log/stream?replay_limit=50000") as events:
        seen = list(events)
    assert [e.data for e in seen if e.name == "line"] == lines
    told = [event for event in seen if event.name != "line"]
    assert [event.name for event in told] == ["rotated", "dropped", "done"]
    assert told[0].data == {"first_available": 0}
    assert told[1].data == {"after": place_of_gap - 1, "count": left_out}

    for n, found in (
        (place_of_gap - 1, 1), (place_of_gap, 0), (after - 1, 0), (after, 1),
    ):  # fmt: skip
        query = f"/api/tasks/count/log/search?q=number+{n:08}."
        hits = daemon.get(query).json["hits"]
        assert [hit["n"] for hit in hits] == [n] * found, n
    assert daemon.get("/api/tasks/count/log/search?q=left+out").json["hits"] == []


@pytest.mark.parametrize("wanted, status, start, end", [
    (None, 200, 0, 10), ("bytes=0-3", 206, 0, 4), ("bytes=9-9", 206, 9, 10),
    ("bytes=4-", 206, 4, 10), ("bytes=4-999", 206, 4, 10), ("bytes=-3", 206, 7, 10),
    ("bytes=-999", 206, 0, 10), ("bytes=10-", 416, 0, 0), ("bytes=-0", 416, 0, 0),
    ("bytes=0-1,4-5", 200, 0, 10), ("bytes=-", 200, 0, 10), ("bytes=a-b", 200, 0, 10),
    ("lines=0-1", 200, 0, 10), ("", 200, 0, 10),
])  # fmt: skip
def test_log_raw_ranges(ops, wanted, status, start, end):
    run = ops.run("say", {"TEXT": "0123456789"})
    headers = {} if wanted is None else {"Range": wanted}
    for method in ("GET", "HEAD"):
        reply = ops.request(method, place(run) + "/log/raw", headers=headers)
        assert reply.status == status
        if status == 416:
            assert reply.headers["Content-Range"] == "bytes */10"
            continue
        assert reply.raw == (b"0123456789"[start:end] if method == "GET" else b"")
        assert reply.headers["Content-Length"] == str(end - start)
        assert reply.headers["Accept-Ranges"] == "bytes"
        assert reply.headers["Content-Type"].startswith("text/plain")
        given = reply.headers["Content-Range"]
        assert given == (f"bytes {start}-{end - 1}/10" if status == 206 else None)


def test_log_raw_is_binary_output_byte_for_byte(serve, tmp_path):
    """Every value of a byte, newlines by chance, none at the end, and a long piece
    without any."""
    rng = random.Random(7)
    written = bytes(range(256)) + rng.randbytes(2 * tr.MIB) + b"\x00\xff" * tr.MIB
    source = tmp_path / "binary"
    source.write_bytes(written)
    daemon = serve({"cat": {"run": ["cat", str(source)]}})
    run = daemon.run("cat")
    assert (run["output_bytes"], run["output_dropped_bytes"]) == (len(written), 0)
    assert daemon.raw(run) == written


@NEEDS_PROC
def test_log_raw_takes_no_files_while_slow_clients_read(serve):
    size = 16_000_000
    script = f"yes 0123456789abcde | head -c {size}"
    daemon = serve({"long": {"run": script, "log_max_size": "40mb"}})
    run = daemon.run("long")
    files, crowd = open_files(daemon), 10
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(socket.socket()) for _ in range(crowd)]
        for client in clients:
            client.settimeout(DEADLINE_S)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client.connect(("127.0.0.1", daemon.port))
            first = f"GET {place(run)}/log/raw HTTP/1.1"
            client.sendall(head(first, "Connection: close"))
            assert client.recv(64).startswith(b"HTTP/1.1 200")
        few = files + crowd + 4
        within(DEADLINE_S, lambda: open_files(daemon) <= few, "files are closed")
    assert daemon.raw(run) == b"0123456789abcde\n" * (size // 16)


def test_log_raw_is_cut_off_when_it_is_removed_meanwhile(serve_here):
    daemon = serve_here({"long": {"run": f"yes | head -c {tr.MIB + 2}"}})
    run = daemon.daemon.find_run(daemon.run("long")["id"])
    chunks = tr._raw_chunks(daemon.daemon, run, 0, run.output_bytes)
    assert next(chunks) == b"y\n" * (tr.MIB // 2)
    tr.remove_log(daemon.daemon.log_of(run))
    with pytest.raises(FileNotFoundError, match="removed while"):
        next(chunks)


@pytest.mark.parametrize("wanted", ["", "bytes=100-", "bytes=-3000", "bytes=50-2000"])
@pytest.mark.parametrize("cap", [tr.KIB, 8 * tr.KIB])
def test_log_raw_of_a_live_run_is_what_its_size_says_whatever_is_dropped(
    in_process, fifos, monkeypatch, wanted, cap
):
    """Asked for when the log is at its cap, read after all but the head was dropped."""
    limit = {"log_max_size": f"{cap // tr.KIB}kb"}
    daemon = in_process({"copy": {**HELD, "run": 'cat "$1"', **limit}}, FakeClock())
    path = fifos()
    run = hold(daemon, "copy", path)
    fd = reach(path, daemon)
    log = daemon._live[run.id].log

    def write(lines):
        """As the run's thread would, which waits for its program."""
        for n in range(lines):
            log.write(OUT, b"line %07d\n" % n, AT_MS, 1.0)

    write(cap * 9 // 130)
    path_of = {"task_name": "copy", "run_id": run.id}
    asked = tr.Request(path_of, {}, (), None, {"range": wanted}, lambda _: True, None)
    stream = tr.get_log_raw(daemon, asked)
    with tr.LogReader(daemon.log_of(run)) as reader:
        everything = b"".join(reader.raw(0, reader.kept_bytes))
    write(cap * 2 // 13)
    assert log.dropped_bytes > 0
    found = b"".join(stream.chunks)
    assert len(found) == stream.size_bytes and found in everything
    assert found == everything or wanted
    assert len(found) > cap // 5
    closed, close = [], tr.LogReader.__exit__
    with monkeypatch.context() as patch:
        patch.setattr(tr.LogReader, "__exit__", lambda *of: closed.append(close(*of)))
        # Not read at all, as for HEAD.
        stream = tr.get_log_raw(daemon, asked)
        assert not closed
        del stream
        gc.collect()
        assert closed == [None]
    os.close(fd)
    end_of(daemon, run)


def test_log_raw_of_a_range_beyond_all_numbers(ops):
    headers = {"Range": "bytes=" + "9" * 5000 + "-"}
    run = ops.run("good")
    reply = ops.request("GET", place(run) + "/log/raw", headers=headers)
    assert reply.status in (200, 416)


@every_obstacle
def test_log_that_cannot_be_read_is_a_problem_of_whoever_reads_it(
    ops, ending, obstacle
):
    run = ops.run("say", {"TEXT": "some text"})
    logs = str(ops.folder / ".taskrunnerd" / "logs")
    base = tr.log_base(logs, run["task_name"], run["id"])
    said = obstruct(base, ending, obstacle)
    search = f"/api/tasks/say/log/search?q=e&run_id={run['id']}"
    ways = ("", "/raw", "/stream", "/parts", "/parts?follow=false")
    for path in (search, *(f"{place(run)}/log{way}" for way in ways)):
        assert ops.get(path, 503).json["detail"].startswith(said)
    assert ops.get(place(run), 503, Accept="text/plain").status == 503
    assert ops.get("/api/tasks/say/log/search?q=e").json["exhausted"]
    told = ops.get(f"{place(run)}?output=5").json
    (line,) = told["output"]
    assert line["stream"] == "system" and line["text"].startswith(said)
    assert ops.request("DELETE", place(run)).status == 204
    tr.remove_log(base)
    assert not os.path.lexists(base + ending)


def test_log_raw_of_no_output(ops):
    run = ops.run("good")
    assert ops.raw(run) == b""
    reply = ops.get(place(run) + "/log/raw", 416, Range="bytes=0-0")
    assert reply.headers["Content-Range"] == "bytes */0"


def output_of(events):
    """What a stream of parts brings of each stream, and its last event."""
    found = {"stdout": b"", "stderr": b"", "system": b""}
    for event in events:
        if event.name == "done":
            assert list(events) == []
            return found, event.data
        assert not list(tr.find_faults(tr.SCHEMAS["LogPart"], event.data, ()))
        assert event.name == "part" and event.id == str(event.data["end"])
        found[event.data["stream"]] += base64.b64decode(event.data["bytes"])
    return found, None


def test_log_parts_bring_each_stream_byte_for_byte(ops):
    text = "\x1b[1mé\r\n\n no newline"
    run = ops.run("say", {"TEXT": text})
    with ops.events(place(run) + "/log/parts") as events:
        found, done = output_of(events)
    assert found == {"stdout": text.encode(), "stderr": b"", "system": b""}
    assert done == {"run": {k: v for k, v in run.items() if k != "$schema"}}
    for query, header in (("?from=5", {}), ("?from=1", {"Last_Event_ID": "5"})):
        with ops.events(place(run) + "/log/parts" + query, **header) as events:
            assert output_of(events)[0]["stdout"] == text.encode()[5:]
    run = ops.run("two-streams")
    with ops.events(place(run) + "/log/parts") as events:
        found, _ = output_of(events)
    assert found == {"stdout": b"out\n", "stderr": b"err\n", "system": b""}


def test_log_parts_follow_a_run_or_give_what_there_is(ops, fifo):
    run = ops.trigger("lonely", {"fifo": str(fifo)})
    with ops.events(place(run) + "/log/parts") as events:
        assert base64.b64decode(next(events).data["bytes"]) == b"waiting\n"
        with ops.events(place(run) + "/log/parts?follow=false") as others:
            found, done = output_of(others)
        assert found["stdout"] == b"waiting\n"
        assert done["run"]["status"] == "running"
        let_go(fifo, "at last")
        found, done = output_of(events)
    assert found["stdout"] == b"at last" and done["run"]["end_reason"] == "success"


def test_log_parts_name_the_next_attempt(serve):
    task = {"run": "exit 3", "retry_attempts": 1, "retry_delay": "1ms"}
    daemon = serve({"again": task})
    run = daemon.trigger("again")
    with daemon.events(place(run) + "/log/parts") as events:
        _, done = output_of(events)
    second = daemon.get(f"/api/runs/{done['next_run_id']}").json
    assert second["retry_of_run_id"] == run["id"]
    with daemon.events(place(second) + "/log/parts") as events:
        assert "next_run_id" not in output_of(events)[1]


# -- search


@pytest.fixture(scope="session")
def searched(tmp_path_factory):
    """A daemon and three runs of its task `say`, oldest first."""
    tasks = {"say": {**OPERATION_TASKS["say"]}, "other": {"run": "echo apple"}}
    daemon = Served(tmp_path_factory.mktemp("searched"), tasks).start()
    texts = ("Apple\nplum", "apple 1\npear\napple 2", "pear\nÄpfel 100%")
    runs = [daemon.run("say", {"TEXT": text}) for text in texts]
    daemon.run("other")
    yield daemon, runs
    daemon.close()


@pytest.mark.parametrize("query, hits", [
    ("q=apple", [(1, 0), (1, 2), (0, 0)]), ("q=apple&case=true", [(1, 0), (1, 2)]),
    ("q=APPLE&case=1", []), ("q=%C3%A4PFEL+100%25", [(2, 1)]), ("q=a.ple", []),
    ("q=pear", [(2, 0), (1, 1)]), ("q=apple%0Apear", []), ("q=" + "x" * 1024, []),
    ("q=pear&q=apple", [(2, 0), (1, 1)]), ("q=plum&regex=&cursor=", [(0, 1)]),
])  # fmt: skip
def test_search_finds_plain_text_newest_run_first(searched, query, hits):
    daemon, runs = searched
    found = daemon.get(f"/api/tasks/say/log/search?{query}").json
    assert [(hit["run_id"], hit["n"]) for hit in found["hits"]] == [
        (runs[run]["id"], n) for run, n in hits
    ]
    assert found["exhausted"] and found["scanned_runs"] == 3
    assert "next_cursor" not in found


def test_search_hits_are_whole_lines(searched):
    daemon, runs = searched
    [hit] = daemon.get("/api/tasks/say/log/search?q=plum").json["hits"]
    [line] = daemon.lines(runs[0], "?from=1")
    assert hit == {"run_id": runs[0]["id"], **line}


def test_search_of_one_run(searched):
    daemon, runs = searched
    path = "/api/tasks/say/log/search?q=apple&run_id="
    found = daemon.get(path + runs[0]["id"]).json
    assert [hit["text"] for hit in found["hits"]] == ["Apple"]
    assert found["scanned_runs"] == 1
    assert daemon.get(f"{path}&cursor=").json["scanned_runs"] == 3
    daemon.get(path + NOWHERE, 404)
    [other] = daemon.get("/api/tasks/other/runs").json["runs"]
    daemon.get(path + other["id"], 404)
    daemon.get("/api/tasks/unknown/log/search?q=apple", 404)


@pytest.mark.parametrize("limit", [1, 2])
def test_search_goes_on_at_its_cursor(searched, limit):
    daemon, _ = searched
    path = f"/api/tasks/say/log/search?q=apple&limit={limit}"
    found = daemon.get(path).json
    texts = [hit["text"] for hit in found["hits"]]
    while not found["exhausted"]:
        assert len(found["hits"]) == limit
        found = daemon.get(f"{path}&cursor={found['next_cursor']}").json
        texts += [hit["text"] for hit in found["hits"]]
    assert texts == ["apple 1", "apple 2", "Apple"]


def test_search_cursor_misses_nothing_when_its_run_is_deleted(ops):
    older = ops.run("say", {"TEXT": "needle 0\nneedle 1"})
    newer = ops.run("say", {"TEXT": "needle 0\nneedle 1"})
    path = "/api/tasks/say/log/search?q=needle&limit=1"
    found = ops.get(path).json
    assert found["hits"][0]["run_id"] == newer["id"]
    ops.request("DELETE", place(newer))
    found = ops.get(f"{path}&cursor={found['next_cursor']}").json
    [hit] = found["hits"]
    assert (hit["run_id"], hit["n"]) == (older["id"], 0)


@pytest.mark.parametrize("path, query, name, message", [
    *(("/api/runs", *row) for row in BAD_FILTERS),
    *(("/api/tasks/list-a/runs", *row) for row in BAD_FILTERS),
    *((f"/api/tasks/lines/{path}", *row) for path, *row in (
        ("runs/{id}/log", "limit=0", "limit", "must be 1 to 10000"),
        ("runs/{id}/log", "limit=10001", "limit", "must be 1 to 10000"),
        ("runs/{id}/log", "from=x", "from", "must be a whole number"),
        ("runs/{id}/log", "from=", "from", "must be a whole number"),
        ("runs/{id}/log", "from=-9007199254740993", "from", "or more"),
        ("runs/{id}/log/stream", "replay_limit=0", "replay_limit", "be 1 to 50000"),
        ("runs/{id}/log/stream", "replay_limit=50001", "replay_limit", "be 1 to 50000"),
        ("runs/{id}/log/stream", "from=a", "from", "must be a whole number"),
        ("runs/{id}/log/parts", "from=-1", "from", "must be 0 to 9223372036854775807"),
        ("runs/{id}/log/parts", "follow=maybe", "follow", "is not true or false"),
        ("log/search", "", "q", "must be there"),
        ("log/search", "q=", "q", "must not be empty"),
        ("log/search", "q=" + "x" * 1025, "q", "must have at most 1024 characters"),
        ("log/search", "q=a&case=maybe", "case", "is not true or false"),
        ("log/search", "q=a&regex=true", "regex", "must be one of false, f, 0"),
        ("log/search", "q=a&run_id=x", "run_id", "must match"),
        ("log/search", "q=a&limit=0", "limit", "must be 1 to 1000"),
        ("log/search", "q=a&limit=1001", "limit", "must be 1 to 1000"),
        ("log/search", "q=a&cursor=x", "cursor", "must be next_cursor"),
        ("log/search", f"q=a&cursor={NOWHERE}", "cursor", "must be next_cursor"),
        ("log/search", f"q=a&cursor={NOWHERE}:-1", "cursor", "must be next_cursor"),
    )),
])  # fmt: skip
def test_lists_and_logs_refuse_bad_queries(ops, ten_lines, path, query, name, message):
    [(at, said)] = ops.get(f"{path.format(**ten_lines)}?{query}", 422).faults
    assert at == f"query.{name}" and message in said


def test_search_lists_path_faults_before_query_faults(ops):
    reply = ops.get("/api/tasks/a!/log/search?limit=0", 422)
    first, *others = (at for at, _ in reply.faults)
    assert first == "path.task_name"
    assert sorted(others) == ["query.limit", "query.q"]


# -- run events


def told_events(events, run, count):
    """The next events of a run out of a stream."""
    mine = (e for e in events if e.data.get("run", {}).get("id") == run["id"])
    return list(itertools.islice(mine, count))


def test_run_events_tell_a_life_in_order_and_resume_after_the_last_seen(ops, fifo):
    with ops.events("/api/runs/stream") as events:
        ping = next(events)
        assert (ping.name, ping.id) == ("ping", "")
        for task, last in (("good", "run.completed"), ("bad", "run.failed")):
            run = ops.run(task)
            ops.request("DELETE", place(run))
            seen = told_events(events, run, 4)
            names = ["run.created", "run.started", last, "run.deleted"]
            assert [event.name for event in seen] == names
            numbers = [int(event.id) for event in seen]
            assert numbers == sorted(set(numbers))
            known = {k: v for k, v in run.items() if k != "$schema"}
            assert seen[2].data["run"] == known
            for event in seen:
                assert not list(tr.find_faults(tr.SCHEMAS["RunEvent"], event.data, ()))
        with ops.events("/api/runs/stream", Last_Event_ID=seen[0].id) as again:
            assert next(again).name == "ping"
            assert list(itertools.islice(again, 3)) == seen[1:]
        with blocked(ops, "lonely", fifo):
            waiting = ops.trigger("lonely")
            ops.stop(waiting)
            seen = told_events(events, waiting, 2)
    assert [event.name for event in seen] == ["run.created", "run.failed"]
    phases = [event.data["run"]["status"] for event in seen]
    assert phases == ["pending", "ended"]


def test_run_events_go_on_for_a_client_of_the_daemon_before(serve):
    daemon = serve({"t": {"run": "true"}})
    with daemon.events("/api/runs/stream") as events:
        next(events)
        last = told_events(events, daemon.run("t"), 3)[-1]
    assert daemon.end() == 0
    daemon.start()
    with daemon.events("/api/runs/stream", Last_Event_ID=last.id) as events:
        next(events)
        run = daemon.run("t")
        seen = [event.data["run"]["id"] for event in itertools.islice(events, 3)]
    assert seen == [run["id"]] * 3


# -- the daemon itself


def test_info_says_what_the_daemon_is(shared):
    info = shared.get("/api/info").json
    assert shared.process and info["pid"] == shared.process.pid
    assert (info["name"], info["version"]) == ("taskrunnerd", tr.VERSION)
    assert (info["task_count"], info["auth_required"]) == (len(SHARED_TASKS), False)
    assert [task["name"] for task in info["tasks"]] == list(SHARED_TASKS)
    assert info["port"] == shared.port
    assert os.path.realpath(info["config_path"]) == os.path.realpath(
        shared.folder / "tasks.json"
    )
    assert os.path.isdir(info["data_dir"])
    assert info["python"] == ".".join(map(str, sys.version_info[:3]))


def test_system_counts_runs_and_waiting_requests(ops, fifo):
    with blocked(ops, "lonely", fifo), ops.events("/api/runs/stream") as events:
        next(events)
        waiting = [ops.trigger("lonely") for _ in range(2)]
        stats = ops.get("/api/system").json
        for run in waiting:
            ops.stop(run)
    assert (stats["runs_active"], stats["runs_queued"]) == (1, 2)
    assert stats["http_waiting"] >= 1 and stats["threads"] > 1
    assert stats["uptime_ns"] > 0 and len(stats["load_average"]) == 3
    assert 0 < stats["disk_free_bytes"] <= stats["disk_total_bytes"]


def test_system_history_is_a_list_of_samples(serve_here):
    client = serve_here({}, clock=FakeClock())
    assert client.get("/api/system/history").json == []
    for _ in range(3):
        client.daemon.clock.pass_time(tr.SAMPLE_EVERY_S)
        client.daemon.tick()
    samples = client.get("/api/system/history").json
    assert len(samples) == 3
    assert samples[0]["at"] < samples[1]["at"] < samples[2]["at"]


def test_daemon_log_shows_the_last_lines_and_then_live(ops):
    for _ in range(tr.DAEMON_LOG_SHOWN_LINES // 2):
        ops.run("good")
    with ops.events("/api/daemon/log-stream") as events:
        old = list(itertools.islice(events, tr.DAEMON_LOG_SHOWN_LINES))
        run = ops.run("bad")
        said = f"run={run['id']} reason=failed exit_code=3"
        new = [next(events), next(events)]
    assert said in new[-1].data["text"]
    for event in (*old, *new):
        assert event.name == "line"
        assert not list(tr.find_faults(tr.SCHEMAS["DaemonLogLine"], event.data, ()))
    numbers = [int(event.id) for event in (*old, *new)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    with ops.events("/api/daemon/log-stream", Last_Event_ID=new[-2].id) as events:
        assert next(events) == new[-1]
    lines = ops.log.read_text().splitlines()
    data = new[-1].data
    assert f"{tr.time_text(data['ts'])} {data['level']} {data['text']}" in lines


def test_daemon_log_tells_a_slow_follower_how_much_it_lost(in_process):
    daemon = in_process({})
    say(daemon.log_tail, 1, "info", "first")
    request = types.SimpleNamespace(headers={})
    chunks = tr.stream_daemon_log(daemon, request).chunks
    assert b'"text":"first"' in next(chunks)
    for n in range(tr.DAEMON_LOG_KEPT_LINES + 17):
        say(daemon.log_tail, 2, "info", f"more {n}")
    assert next(chunks) == b'event: dropped\ndata: {"dropped_lines":17}\n\n'
    assert b'"text":"more 17"' in next(chunks)


@pytest.mark.parametrize("last_seen", ["0", "3", "999999999999999999", "x", "-1"])
def test_daemon_log_resumes_after_any_last_event_id(in_process, last_seen):
    daemon = in_process({})
    daemon.log_tail = tr.Ring(tr.DAEMON_LOG_KEPT_LINES, 50)
    say(daemon.log_tail, 1, "info", "first")
    daemon.draining = True
    request = types.SimpleNamespace(headers={"last-event-id": last_seen})
    told = b"".join(tr.stream_daemon_log(daemon, request).chunks)
    daemon.draining = False
    assert b"dropped" not in told
    assert (b"first" in told) == (last_seen != "999999999999999999")


def test_daemon_log_has_heartbeats_and_ends_with_the_daemon(in_process):
    clock = FakeClock()
    daemon = in_process({}, clock)
    request = types.SimpleNamespace(headers={})
    chunks = tr.stream_daemon_log(daemon, request).chunks
    daemon.log_after = lambda *_: []
    assert next(chunks) == b""
    clock.pass_time(tr.STREAM_COMMENT_S)
    assert next(chunks).startswith(b":")
    assert next(chunks) == b""
    daemon.pausing = True
    assert list(chunks) == []
    daemon.pausing = False


def test_daemon_log_tells_of_runs_until_the_last_has_ended(serve, fifo):
    token = "token-of-the-daemon"
    tasks = {"hold": {**STUBBORN, "graceful_stop": "200ms"}, "echo": {
        "params": [{"env": "KEY", "secret": True}], "secrets": {"OTHER": SECRET},
        "run": 'echo "$KEY $OTHER"; exit 1'}}  # fmt: skip
    daemon = serve(tasks, TASKRUNNERD_TOKEN=token)
    daemon.get("/api/daemon/log-stream", 401)
    daemon.token = token
    daemon.run("echo", {"KEY": SECRET + "-too"})
    run = daemon.trigger("hold", {"fifo": str(fifo)})
    held = reach(fifo)
    with daemon.events("/api/daemon/log-stream") as events:
        ready = next(events)
        daemon.process.terminate()
        texts = [event.data["text"] for event in events]
    os.close(held)
    assert daemon.wait() == 0
    assert ready.data["text"].startswith("ready url=")
    assert "stopping signal=SIGTERM" in texts
    assert f"task=hold run={run['id']} reason=daemon_stopped" in texts[-1]
    assert not any(word in text for word in (token, SECRET) for text in texts)


# -- metrics

METRIC_NAMES = re.findall(
    "[a-z_]+",
    """
taskrunnerd_runs_total taskrunnerd_run_duration_seconds
taskrunnerd_task_last_success_timestamp_seconds
taskrunnerd_task_last_run_timestamp_seconds taskrunnerd_task_last_exit_code
taskrunnerd_ticks_missed_total taskrunnerd_log_bytes_dropped_total
taskrunnerd_task_next_run_timestamp_seconds taskrunnerd_runs_active
taskrunnerd_queue_length taskrunnerd_task_paused
taskrunnerd_task_consecutive_failures
taskrunnerd_scheduler_lag_seconds
taskrunnerd_http_requests_total taskrunnerd_http_waiting
taskrunnerd_config_last_reload_successful taskrunnerd_build_info
process_cpu_seconds_total process_start_time_seconds process_resident_memory_bytes
process_virtual_memory_bytes process_open_fds process_max_fds process_threads
""",
)
SAMPLE = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([a-z_]+="(?:[^"\\\n]|\\[\\"n])*"'
    r'(?:,[a-z_]+="(?:[^"\\\n]|\\[\\"n])*")*)\})? (\S+)'
)
LABEL = re.compile(r'([a-z_]+)="((?:[^"\\\n]|\\[\\"n])*)"')
SUFFIXES = {
    "gauge": ("",), "counter": ("_total",), "info": ("_info",),
    "histogram": ("_bucket", "_sum", "_count"),
}  # fmt: skip
Figures = dict[tuple[str, frozenset[tuple[str, str]]], float]


def check_histograms(name, figures):
    """Buckets grow up to +Inf, which is the count."""
    series: dict[Any, list[tuple[float, float]]] = {}
    for (sample, labels), value in figures.items():
        if sample == f"{name}_bucket":
            limit = dict(labels)["le"]
            rest = frozenset(label for label in labels if label[0] != "le")
            series.setdefault(rest, []).append((float(limit), value))
    for rest, buckets in series.items():
        limits, values = zip(*buckets)
        assert limits == tuple(sorted(set(limits))) and limits[-1] == float("inf")
        assert values == tuple(sorted(values))
        assert values[-1] == figures[f"{name}_count", rest]
        assert (f"{name}_sum", rest) in figures


def parse_metrics(text, *, open_metrics=False):
    """The figures in an answer; fails at whatever its format does not allow."""
    assert text.endswith("\n# EOF\n" if open_metrics else "\n")
    lines = text.splitlines()[: -1 if open_metrics else None]
    figures: Figures = {}
    families: dict[str, str] = {}
    names: list[str] = []
    for line in lines:
        word, kind_of_line, *rest = line.split(" ", 3)
        if word == "#" and kind_of_line == "HELP":
            assert rest[0] not in families and re.fullmatch("[A-Z][^\\\\]*", rest[1])
            name = rest[0]
            families[name] = ""
        elif word == "#":
            assert kind_of_line == "TYPE" and rest[0] == name and not families[name]
            allowed = {"gauge", "counter", "histogram"}
            assert rest[1] in allowed | ({"info"} if open_metrics else set())
            families[name] = rest[1]
            plain_counter = rest[1] == "counter" and not open_metrics
            assert name.endswith("_total") == plain_counter, name
            suffixes = ("",) if plain_counter else SUFFIXES[rest[1]]
            names = [name + suffix for suffix in suffixes]
        else:
            match = SAMPLE.fullmatch(line)
            assert match and match[1] in names, line
            labels = frozenset(LABEL.findall(match[2] or ""))
            assert (match[1], labels) not in figures, line
            figures[match[1], labels] = float(match[3])
    for name, kind in families.items():
        if kind == "histogram":
            check_histograms(name, figures)
    return figures


def figures_of(daemon):
    """What a scrape of a daemon finds."""
    return parse_metrics(daemon.get("/metrics").raw.decode())


def figure(figures, name, **labels):
    """One figure by its labels, if it is there."""
    return figures.get((f"taskrunnerd_{name}", frozenset(labels.items())))


OPEN_METRICS = "application/openmetrics-text"


def test_metrics_have_their_names_and_both_formats_the_same_figures(ops):
    # Before one has ended there is no last exit code.
    ops.run("good")
    ops.get("/metrics")
    plain = ops.get("/metrics")
    new = ops.get("/metrics", Accept=OPEN_METRICS)
    assert plain.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    wanted = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert new.headers["Content-Type"] == wanted
    assert plain.headers["Vary"] == new.headers["Vary"] == "Accept"
    assert len(ops.request("HEAD", "/metrics").raw) == 0
    old_figures = parse_metrics(plain.raw.decode())
    new_figures = parse_metrics(new.raw.decode(), open_metrics=True)
    assert set(old_figures) == set(new_figures)
    families = re.findall(r"^# TYPE (\S+)", plain.raw.decode(), re.MULTILINE)
    scheduled = {"taskrunnerd_task_next_run_timestamp_seconds"}
    assert [n for n in METRIC_NAMES if n not in scheduled] == families
    for name, _ in old_figures:
        assert "_created" not in name


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_metrics_are_what_promtool_accepts(ops):
    ops.run("bad")
    told = subprocess.run(
        ["promtool", "check", "metrics"], input=ops.get("/metrics").raw,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=DEADLINE_S,
    )  # fmt: skip
    assert (told.returncode, told.stdout) == (0, b"")


def test_metrics_count_runs_for_good(serve):
    tasks = {
        "good": {"run": "true", "cron": "0 0 1 1 *", "timezone": "UTC"},
        "bad": {"run": "exit 3"},
        "loud": {"run": "yes | head -c 100000", "log_max_size": "1kb"},
        "never": {"run": "true", "api_trigger": False},
    }
    daemon = serve(tasks)
    for task in ("good", "good", "bad", "loud"):
        run = daemon.run(task)
    before = figures_of(daemon)
    of_bad = frozenset({("task", "bad")})
    kind = {"end_reason": "success", "triggered_by": "api"}
    failed = {"end_reason": "failed", "triggered_by": "api"}
    assert figure(before, "runs_total", task="good", **kind) == 2
    assert figure(before, "runs_total", task="bad", **failed) == 1
    assert figure(before, "runs_total", task="bad", **kind) == 0, "there before"
    assert figure(before, "runs_total", task="never", **kind) is None, "it cannot be"
    assert figure(before, "run_duration_seconds_count", task="good") == 2
    assert (
        figure(before, "log_bytes_dropped_total", task="loud")
        == (run["output_dropped_bytes"])
    )
    assert figure(before, "task_last_exit_code", task="bad") == 3
    assert figure(before, "task_last_exit_code", task="never") is None
    # Not for good: as far as the history tells.
    assert before.pop(("taskrunnerd_task_consecutive_failures", of_bad)) == 1
    assert figure(before, "task_last_success_timestamp_seconds", task="bad") == 0
    at_s = tr.parse_time(run["end_at"]) / 1000
    for name in ("success", "run"):
        name = f"task_last_{name}_timestamp_seconds"
        assert figure(before, name, task="loud") == at_s
    next_s = tr.parse_time(daemon.get("/api/tasks/good").json["next_run_at"]) / 1000
    name = "task_next_run_timestamp_seconds"
    assert figure(before, name, task="good") == next_s
    assert figure(before, name, task="bad") is None
    daemon.post("/api/runs/bulk/delete", {"match_all": True})
    assert daemon.end() == 0
    daemon.start()
    after = figures_of(daemon)
    of_runs = [key for key in before if dict(key[1]).get("task")]
    assert {key: after[key] for key in of_runs} == {key: before[key] for key in of_runs}


def test_metrics_of_a_task_end_with_it_and_go_on_when_it_is_back(serve_here):
    tasks = {"a": {"run": "true"}, "b": {"run": "true"}}
    client = serve_here(tasks)
    daemon = client.daemon
    client.run("a")
    rewrite(daemon, {"b": tasks["b"]})
    assert not [key for key in figures_of(client) if ("task", "a") in key[1]]
    write_config(Path(daemon.config.path).parent, {"tasks": {"b": {}}})
    client.post("/api/reload", status=422)
    assert figure(figures_of(client), "config_last_reload_successful") == 0
    rewrite(daemon, tasks)
    figures = figures_of(client)
    assert figure(figures, "run_duration_seconds_count", task="a") == 1
    assert figure(figures, "config_last_reload_successful") == 1


def test_metrics_tell_what_runs_and_waits(ops, fifo):
    with blocked(ops, "lonely", fifo):
        waiting = [ops.trigger("lonely") for _ in range(2)]
        figures = figures_of(ops)
        for run in waiting:
            ops.stop(run)
    assert figure(figures, "runs_active", task="lonely") == 1
    assert figure(figures, "queue_length", task="lonely") == 2
    assert figure(figures, "runs_active", task="good") == 0
    assert (figure(figures, "http_waiting") or 0) >= 1
    python = ".".join(map(str, sys.version_info[:3]))
    assert figure(figures, "build_info", version=tr.VERSION, python=python) == 1
    process = {name: value for (name, _), value in figures.items() if name[0] == "p"}
    assert 0 < process["process_open_fds"] < process["process_max_fds"]
    assert process["process_cpu_seconds_total"] > 0 and process["process_threads"] > 1
    assert abs(process["process_start_time_seconds"] - time.time()) < 3600


def test_metrics_do_without_proc_and_limits(monkeypatch, in_process):
    daemon = in_process({})
    monkeypatch.setattr(tr, "open", lambda *_, **__: os.stat("/no/such"), raising=False)
    monkeypatch.setattr(tr.os, "listdir", lambda _: os.stat("/no/such"))
    unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    monkeypatch.setattr(tr.resource, "getrlimit", lambda _: unlimited)
    facts = tr.ServerFacts(False, 1, {}, "")
    request = types.SimpleNamespace(server_facts=lambda: facts, media="text/plain")
    (body,) = tr.get_metrics(daemon, request).chunks
    monkeypatch.undo()
    figures = parse_metrics(body.decode())
    assert figures["process_max_fds", frozenset()] == float("inf")
    assert ("process_open_fds", frozenset()) not in figures
    assert ("process_virtual_memory_bytes", frozenset()) not in figures


def test_metrics_escape_what_labels_hold():
    text = tr.labels_text(a='say "hi"\\', b="two\nlines", c=3)
    assert text == '{a="say \\"hi\\"\\\\",b="two\\nlines",c="3"}'
    assert SAMPLE.fullmatch(f"x{text} 1")


PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,application/openmetrics-text;"
    "version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,text/plain;version=1.0.0;"
    "escaping=allow-utf-8;q=0.4,text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize("accept, new", [
    ("", False), ("*/*", False), ("text/plain", False), ("application/json", False),
    (OPEN_METRICS, True), (OPEN_METRICS.upper() + " ; Version=1.0.0", True),
    (OPEN_METRICS + ';version="1.0.0"', True), (OPEN_METRICS + ";q=0", False),
    (OPEN_METRICS + ";q=2", False), (OPEN_METRICS + ";q=nan", False),
    (OPEN_METRICS + ", text/plain", False),
    (OPEN_METRICS + ";q=0.6, text/plain;q=0.5", True),
    (OPEN_METRICS + ";q=0.5, text/plain;q=0.6", False),
    (OPEN_METRICS + ";q=0.5, */*;q=0.8", False),
    (OPEN_METRICS + ";q=0.5, text/plain;q=0.1, */*;q=0.8", True),
    ("text/plain;q=0, */*", True), ("application/*, text/*;q=0.5", True),
    (PROMETHEUS_2, True), (PROMETHEUS_3, True), (";;,=,;q", False),
])  # fmt: skip
def test_metrics_format_is_the_one_that_is_preferred(accept, new):
    offered = ("text/plain", OPEN_METRICS)
    assert tr.negotiated(accept, offered) == offered[new]


def test_metrics_need_the_token_like_everything_else(guarded):
    guarded.get("/metrics", 401, Authorization="Bearer wrong")
    assert figures_of(guarded)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_health_needs_no_token_and_names_nothing(serve, path):
    daemon = serve({"private-name": {"run": "true"}}, TASKRUNNERD_TOKEN="a-token-here")
    reply = daemon.get(path)
    assert reply.json["status"] == "ok" and b"private-name" not in reply.raw
    daemon.get("/api/info", 401)
    daemon.token = "a-token-here"
    assert daemon.get("/api/info").json["auth_required"] is True


@pytest.mark.parametrize("name", sorted(tr.SCHEMAS))
def test_schemas_are_all_served(shared, name):
    reply = shared.get(f"/schemas/{name}.json")
    assert reply.headers["Content-Type"] == "application/schema+json"
    schema = reply.json
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["$id"] == f"/schemas/{name}.json"
    for ref in references(schema):
        assert shared.get(f"/schemas/{ref}").json["$id"] == f"/schemas/{ref}"


def test_schemas_that_do_not_exist_are_404(shared):
    assert "Task?" in shared.get("/schemas/Tusk.json", 404).json["detail"]


NEXT_TASKS = {
    "night": {"run": "true", "cron": "30 2 * * *", "timezone": "Europe/Berlin"},
    "often": {"run": "true", "cron": "@every 90s"},
    "never": {"run": "true"},
}


@needs_zones
def test_next_ticks_say_what_daylight_saving_does(in_process):
    clock = FakeClock()
    clock.ms = utc_s("2026-10-24 12:00") * 1000
    daemon = in_process(NEXT_TASKS, clock)
    document = tr.next_document(daemon.task("night"), clock.ms // 1000, 0, 3)
    assert (document["cron"], document["timezone"], document["schedule"]) == (
        "30 2 * * *", "Europe/Berlin", "every day at 02:30",
    )  # fmt: skip
    first, second, third = document["ticks"]
    assert first == {
        "at": "2026-10-25T00:30:00.000Z", "local": "2026-10-25T02:30:00+02:00",
        "fires": True, "note": "first of two 02:30 on 2026-10-25",
    }  # fmt: skip
    assert second["local"] == "2026-10-25T02:30:00+01:00"
    assert not second["fires"] and third["fires"] and "note" not in third


@needs_zones
def test_next_ticks_of_a_task_over_http(serve):
    daemon = serve(NEXT_TASKS)
    often = daemon.get("/api/tasks/often/next?n=3").json
    start_ms = tr.parse_time(daemon.get("/api/info").json["started_at"])
    at_ms = [tr.parse_time(tick["at"]) for tick in often["ticks"]]
    assert at_ms[0] - start_ms <= 90_000
    assert [later - at for at, later in zip(at_ms, at_ms[1:])] == [90_000, 90_000]
    assert len(daemon.get("/api/tasks/night/next").json["ticks"]) == 10
    assert daemon.get("/api/tasks/never/next").json["ticks"] == []
    daemon.get("/api/tasks/nigth/next", 404)
    refused = daemon.get("/api/tasks/night/next?n=1001", 422)
    assert refused.faults == [("query.n", "must be 1 to 1000")]
    shown = daemon.get("/api/tasks/night").json
    assert (shown["cron"], shown["timezone"]) == ("30 2 * * *", "Europe/Berlin")
    assert "cron" not in daemon.get("/api/tasks/never").json


def test_upcoming_ticks_end_with_the_calendar():
    ticks = list(tr.upcoming(tr.parse_cron("@yearly"), utc_s("9990-01-01 00:00")))
    assert len(ticks) < 12
    assert utc_text(ticks[0].at_s) == "9991-01-01 00:00"
    # As behind a pause until then.
    every = tr.parse_cron("@every 7h", BERLIN)
    *_, last = tr.upcoming(every, utc_s("9999-12-29 00:00"))
    assert tr.zone_text(last.at_s, BERLIN).startswith("9999-12-")
    assert not list(tr.upcoming(every, utc_s("9999-12-31 23:59")))


# -- clients of RunWisp 0.x

# What they decode: the fields of each type, those with ? may be missing.
# fmt: off
TYPES_OF_0X = {
    "BulkAffectedBody": "affected:whole",
    "BulkRerunBody": "triggered:[TriggeredRunRef]",
    "CapInfo": "available:flag name:text",
    "ConfigStaleSSEEvent": "stale:flag",
    "DaemonInfo": """
        auth_disabled:flag capabilities:[CapInfo] cloud_enabled:flag
        config_loaded_at:time config_stale:flag external_url:text fingerprint:text
        port:whole resolved_timezone:text scheduling_active:flag service_managed:flag
        tasks:[TaskBrief] timezone_source:config|system version:text
    """,
    "DaemonLogLineEvent": "line:text",
    "EndReason": "success|failed|stopped|timeout|crashed|skipped|log_overflow|"
                 "queue_full|dst_skipped|daemon_stopped|missed|start_failed",
    "ErrorDetail": "location?:text message?:text value?:any",
    "ErrorModel": """
        detail?:text errors?:[ErrorDetail] instance?:text status?:whole title?:text
        type:text
    """,
    "InstanceInfo": """
        app:text config_path:text data_dir:text fingerprint:text pid:whole
        socket_path:text version:text
    """,
    "LogDoneEvent": "final_line:whole status:text",
    "LogDroppedEvent": "after:whole count:whole",
    "LogLineEntry": """
        continued?:flag frame_count?:whole n:whole stream:text text:text ts:whole
    """,
    "LogPageBody": """
        finalized:flag first_available:whole lines:[LogLineEntry] total_lines:whole
        truncated:flag
    """,
    "LogRotatedEvent": "first_available:whole",
    "LogSearchBody": """
        exhausted:flag hits:[LogSearchHit] next_cursor?:text scanned_runs:whole
    """,
    "LogSearchHit": "n:whole run_id:text stream:text text:text ts:whole",
    "MetricsSample": """
        cpu:number mem:number mem_total:whole mem_used:whole ts:whole
    """,
    "PingEvent": "",
    "ReloadResult": "added:[text] changed:[ReloadTaskChange] removed:[text]",
    "ReloadTaskChange": "name:text reasons:[text]",
    "Run": """
        created_at:time end_at?:time end_reason?:EndReason
        exit_code:whole external_execution_id?:text id:text instance_index:whole
        params?:{text} retry_attempt:whole retry_of_run_id?:text start_at?:time
        status:pending|running|ended task_name:text
        triggered_by:cron|api|cloud|service|startup
    """,
    "RunDeletedSSEEvent": "run_id:text task_name:text",
    "RunEvent": "error?:text run:Run",
    "RunSummary": """
        failed:whole last_failure?:time missed:whole success:whole total:whole
    """,
    "RunsResponseBody": "runs:[Run] total:whole",
    "StopRunOutputBody": "message:text",
    "SystemSampleSSEEvent": "sample:MetricsSample uptime:text",
    "SystemStats": """
        arch:text cpu_cores:whole cpu_usage:number host:text mem_total:whole
        mem_usage:number mem_used:whole name:text os:text uptime:text version:text
        work_dir:text
    """,
    "TaskBrief": """
        api_trigger:flag catch_up?:text compose?:TaskComposeRef cron?:text
        depends_on?:[text] group?:text instances?:whole kind?:task|service
        max_concurrent?:whole name:text on_overlap?:text parameters?:[TaskParam]
        restart?:text staged?:flag
    """,
    "TaskComposeRef": "file:text project_name:text service?:text",
    "TaskParam": """
        allow_custom?:flag choices?:[text] default?:text description?:text key:text
        kind:env|arg|option|flag required?:flag type?:string|number
    """,
    "TaskResponse": """
        api_trigger:flag autostart:flag catch_up?:latest|all|skip
        compose?:TaskComposeRef cron?:text depends_on?:[text] description?:text
        env?:{text} env_file?:text exit_codes?:[whole] graceful_stop?:whole group?:text
        healthy_after?:whole instances?:whole jitter?:whole keep_for?:whole
        keep_runs?:whole kind?:task|service log_max_size?:whole
        log_on_full?:drop_new|drop_old|kill_task max_catch_up_runs?:whole
        max_concurrent?:whole name:text next_run_at?:text
        on_overlap?:queue|skip|terminate parameters?:[TaskParam] priority?:whole
        queue_max?:whole restart?:never|always|on_failure
        restart_backoff?:constant|linear|exponential restart_delay?:whole
        retry_attempts?:whole retry_backoff?:constant|linear|exponential
        retry_delay?:whole run_on_start?:flag secrets_file?:text shell?:text
        staged?:flag start_retries?:whole
        stop_signal?:SIGTERM|SIGINT|SIGQUIT|SIGHUP|SIGKILL|SIGUSR1|SIGUSR2
        timeout?:whole timezone?:text umask?:text user?:text working_dir?:text
    """,
    "TriggeredRunRef": "run_id:text task_name:text",
}
PLAIN_OF_0X = {
    "text": [str], "whole": [int], "number": [int, float], "flag": [bool],
    "any": [str, int, float, bool, list, dict],
}
ROUTES_OF_0X = {
    "POST /api/tasks/ask/run": "Run", "GET /api/tasks/ask/runs/{id}": "Run",
    "GET /api/runs/{id}": "Run", "GET /api/runs": "RunsResponseBody",
    "GET /api/tasks/ask/runs": "RunsResponseBody",
    "GET /api/runs/summary": "RunSummary", "GET /api/tasks": "[TaskResponse]",
    "GET /api/tasks/ask/runs/{id}/log": "LogPageBody",
    "GET /api/tasks/ask/log/search?q=5": "LogSearchBody",
    "GET /api/info": "DaemonInfo", "GET /api/system": "SystemStats",
    "GET /api/system/history": "[MetricsSample]", "POST /api/reload": "ReloadResult",
    "POST /api/runs/bulk/cancel": "BulkAffectedBody",
    "POST /api/runs/bulk/rerun": "BulkRerunBody",
    "POST /api/runs/bulk/delete": "BulkAffectedBody",
    "POST /api/runs/bulk/restore": "BulkAffectedBody",
    "GET /api/runs/no": "ErrorModel", "GET /api/instance": "InstanceInfo",
}
EVENTS_OF_0X = {
    "ping": "PingEvent", "run.created": "RunEvent", "run.started": "RunEvent",
    "run.updated": "RunEvent", "run.completed": "RunEvent", "run.failed": "RunEvent",
    "run.deleted": "RunDeletedSSEEvent", "system": "SystemSampleSSEEvent",
    "config.stale": "ConfigStaleSSEEvent",
}
LOG_EVENTS_OF_0X = {
    "line": "LogLineEntry", "rotated": "LogRotatedEvent", "dropped": "LogDroppedEvent",
    "done": "LogDoneEvent",
}
# fmt: on


def fields_of_0x(kind):
    """(field, whether it must be there, its type) of each field of a type."""
    for word in TYPES_OF_0X[kind].split():
        field, _, inner = word.partition(":")
        yield field.rstrip("?"), not field.endswith("?"), inner


def is_plain_of_0x(kind, value):
    """Whether a value is one of a type without parts."""
    words = TYPES_OF_0X.get(kind, kind)
    if "|" in words:
        return value in words.split("|")
    if kind == "time":
        pattern = r"\d{4}(-\d\d){2}T\d\d(:\d\d){2}(\.\d+)?Z"
        return isinstance(value, str) and re.fullmatch(pattern, value)
    return type(value) in PLAIN_OF_0X.get(kind, ())


def faults_of_0x(kind, value, at=""):
    """Where a value breaks the schema of a type; it may have more members."""
    if kind in TYPES_OF_0X and isinstance(value, dict):
        for field, needed, inner in fields_of_0x(kind):
            if field in value:
                yield from faults_of_0x(inner, value[field], f"{at}.{field}")
            elif needed:
                yield f"{at}.{field} is missing"
    elif kind[0] == "[" and isinstance(value, list):
        for index, entry in enumerate(value):
            yield from faults_of_0x(kind[1:-1], entry, f"{at}[{index}]")
    elif kind[0] == "{" and isinstance(value, dict):
        for name, entry in value.items():
            yield from faults_of_0x(kind[1:-1], entry, f"{at}.{name}")
    elif not is_plain_of_0x(kind, value):
        yield f"{at} is no {kind}: {value!r}"


def decoded_of_0x(kind, value):
    """A value as a strict client gets it: of the fields that it knows. Raises KeyError
    for one that is missing, TypeError and ValueError for one of another type."""
    if kind in TYPES_OF_0X and kind != "EndReason":
        known = {
            field: decoded_of_0x(inner, value[field])
            for field, needed, inner in fields_of_0x(kind)
            if needed or field in value
        }
        return types.SimpleNamespace(**known)
    if kind[0] == "[":
        return [decoded_of_0x(kind[1:-1], entry) for entry in value]
    if kind[0] == "{":
        return {k: decoded_of_0x(kind[1:-1], entry) for k, entry in value.items()}
    if kind == "time":
        return datetime.fromisoformat(re.sub("Z$", "+00:00", value))
    if type(value) not in PLAIN_OF_0X.get(kind, [str]):
        raise TypeError(f"{value!r} is no {kind}")
    return value


@pytest.fixture
def told_to_0x(serve_here):
    """(what was asked or happened, type, JSON) of each shared route and each event."""
    ask = {
        "run": 'echo "$N $1"; exit "$N"', "cron": "@yearly", "group": "g",
        "umask": "027", "timeout": "9s", "keep_for": "2d", "keep_runs": 9,
        "on_overlap": "coalesce", "params": [
            {"env": "N", "type": "integer", "default": 5},
            {"arg": "A", "choices": ["a"], "allow_custom": True, "default": "b"}],
    }  # fmt: skip
    much = {"run": "seq 20000", "log_max_size": "70kb"}
    tasks = {"ask": ask, "much": much, "hold": {"run": ["sleep", "600"]}}
    client = serve_here(tasks, clock=FakeClock())
    client.daemon.clock.pass_time(tr.SAMPLE_EVERY_S)
    client.daemon.tick()
    told = []
    with client.events("/api/stream") as events:
        run, much, hold = client.run("ask"), client.run("much"), client.trigger("hold")
        stopped = client.stop(hold)
        told.append(("stop", "StopRunOutputBody", stopped.json))
        client.run("ask", {"N": "0"})
        bodies = {"/api/runs/bulk": {"ids": [run["id"]]}}
        for asked, kind in ROUTES_OF_0X.items():
            method, path = asked.format(id=run["id"]).split()
            body = bodies.get(path.rpartition("/")[0])
            told.append((asked, kind, client.request(method, path, body).json))
        write_config(Path(client.daemon.config.path).parent, {"tasks": {}})
        client.daemon.clock.pass_time(tr.SAMPLE_EVERY_S)
        client.daemon.tick()
        wanted = set(EVENTS_OF_0X)
        while wanted:
            event = next(events)
            wanted.discard(event.name)
            told.append((event.name, EVENTS_OF_0X[event.name], event.data))
    with client.events(place(much) + "/log/stream") as events:
        told += [(e.name, LOG_EVENTS_OF_0X[e.name], e.data) for e in events]
    say(client.daemon.log_tail, 2, "info", "ready")
    with client.events("/api/daemon/log-stream") as events:
        told.append(("daemon", "DaemonLogLineEvent", next(events).data))
    return told


def test_answers_and_events_satisfy_the_schemas_of_0x(told_to_0x):
    for what, kind, value in told_to_0x:
        assert not list(faults_of_0x(kind, value)), what


def test_strict_client_of_0x_decodes_answers_and_events(told_to_0x):
    told = {what: decoded_of_0x(kind, value) for what, kind, value in told_to_0x}
    task, *_ = told["GET /api/tasks"]
    assert (task.timeout, task.umask, task.on_overlap) == (9 * 10**9, "027", "queue")
    assert (task.kind, task.autostart, task.shell) == ("task", True, "/bin/sh -e -c")
    number, choice = ({**vars(param)} for param in task.parameters)
    assert number == {"key": "N", "kind": "env", "type": "number", "default": "5",
                      "required": False, "description": ""}  # fmt: skip
    assert choice == {"key": "A", "kind": "arg", "type": "string", "choices": ["a"],
                      "allow_custom": True, "default": "b", "required": False,
                      "description": ""}  # fmt: skip
    info, system = told["GET /api/info"], told["GET /api/system"]
    assert [brief.name for brief in info.tasks] == ["ask", "much", "hold"]
    assert info.auth_disabled and info.scheduling_active and not info.config_stale
    assert system.uptime == "0m" and system.host == os.uname().nodename
    (sample,) = told["GET /api/system/history"]
    assert sample.ts == 1_800_000_000 + tr.SAMPLE_EVERY_S
    assert system.mem_total == sample.mem_total
    assert told["GET /api/runs/summary"].last_failure.year == 2027
    assert told["system"].sample.ts == sample.ts + tr.SAMPLE_EVERY_S
    assert told["config.stale"].stale is True
    instance = told["GET /api/instance"]
    assert (instance.pid, instance.fingerprint) == (os.getpid(), info.fingerprint)
    (again,) = told["POST /api/runs/bulk/rerun"].triggered
    deleted, run = told["run.deleted"], told["GET /api/runs/{id}"]
    assert (again.task_name, deleted.run_id) == ("ask", run.id)
    assert (run.exit_code, run.params) == (5, {"N": "5", "A": "b"})
    assert told["daemon"].line == "1970-01-01T00:00:00.002Z info ready"


def test_stream_of_all_tells_the_state_of_the_configuration(serve_here):
    client = serve_here({"a": {"run": "true"}}, clock=FakeClock())
    daemon = client.daemon

    def look():
        daemon.clock.pass_time(tr.SIGN_OF_LIFE_S)
        daemon.tick()

    def changes(events):
        return (e.data["stale"] for e in events if e.name == "config.stale")

    folder = Path(daemon.config.path).parent
    with client.events("/api/stream") as events:
        assert next(events).name == "ping"
        look()
        write_config(folder, {"tasks": {"b": {"run": "true"}}})
        look()
        assert next(changes(events)) is True
        first = client.run("a")
        seen = list(itertools.islice(events, 3))
    second = client.run("a")
    assert [event.data["run_id"] for event in seen] == [first["id"]] * 3
    client.post("/api/reload")
    last = {"Last_Event_ID": seen[-1].id}
    with client.events("/api/stream", **last) as events:
        # What happened meanwhile comes first, then the state as it is by now.
        _, *missed, state = itertools.islice(events, 5)
        assert [event.data["run_id"] for event in missed] == [second["id"]] * 3
        assert (state.name, state.data, state.id) == (
            "config.stale", {"stale": False}, "")  # fmt: skip
        # Written again as it was: another file, but nothing else in it.
        text = (folder / "tasks.json").read_text()
        write_config(folder, {"tasks": {}})
        look()
        assert next(changes(events)) is True
        write_config(folder, text)
        look()
        assert next(changes(events)) is False


def test_auth_status_and_health_are_open_to_all(guarded, shared):
    for daemon, token, needed, may in (
        (guarded, "s3cret", True, True), (guarded, "wrong", True, False),
        (guarded, "", True, False), (shared, "", False, True),
    ):  # fmt: skip
        sent = {"Authorization": f"Bearer {token}"}
        told = daemon.get("/api/auth/status", **sent).json
        assert (told["auth_required"], told["authenticated"]) == (needed, may)
        reply = daemon.get("/health", **sent)
        assert (reply.raw, reply.headers["Content-Type"]) == (b"OK", tr.PLAIN_TEXT)
    guarded.get("/api/instance", 401, Authorization="Bearer wrong")


@pytest.mark.parametrize("seconds, text", [
    (59, "0m"), (3599, "59m"), (11_520, "3h 12m"), (86_399, "23h 59m"),
    (4 * 86_400 + 7199, "4d 1h"),
])  # fmt: skip
def test_uptime_reads_as_in_0x(seconds, text):
    assert tr._uptime_text(types.SimpleNamespace(uptime_s=lambda: seconds)) == text


# ---- 13. OpenAPI: the API described by its own tables -----------------------


def references(value):
    """Every $ref inside a schema."""
    if isinstance(value, list):
        return [ref for entry in value for ref in references(entry)]
    if not isinstance(value, dict):
        return []
    own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
    return own + references(list(value.values()))


def test_openapi_has_every_route_and_nothing_else(shared):
    document = shared.get("/openapi.json").json
    assert document["openapi"].startswith("3.1.")
    described = {
        (method.upper(), path)
        for path, operations in document["paths"].items()
        for method in operations
    }
    assert described - {("GET", "/openapi.json")} == {
        (route.method, route.path) for route in tr.ROUTES
    }


OPERATION_IDS = """triggerRun getTasks getTask getTaskRuns getRun deleteRun stopRun
    getLogPage getLogRaw streamLog searchLogs getAllRuns getRunById getRunSummary
    streamRuns bulkCancelRuns bulkDeleteRuns bulkRestoreRuns bulkRerunRuns getInfo
    getSystemStats getMetricsHistory streamDaemonLog reload"""


def test_openapi_has_the_operation_ids_of_the_contract(shared):
    paths = shared.get("/openapi.json").json["paths"]
    found = [o["operationId"] for path in paths.values() for o in path.values()]
    assert set(OPERATION_IDS.split()) <= set(found)
    assert len(found) == len(set(found))


def test_openapi_references_resolve(shared):
    document = shared.get("/openapi.json").json
    refs = references(document)
    assert len(refs) > 50
    for ref in refs:
        found = document
        for part in ref[2:].split("/"):
            found = found[part]
        assert ref.startswith("#/") and isinstance(found, dict)


def test_openapi_describes_every_parameter(shared):
    paths = shared.get("/openapi.json").json["paths"]
    for path, operations in paths.items():
        for operation in operations.values():
            given = operation["parameters"]
            in_path = [p["name"] for p in given if p["in"] == "path"]
            assert in_path == re.findall(r"{(\w+)}", path)
            assert all(p["required"] for p in given if p["in"] == "path")
            assert operation["summary"] and "default" in operation["responses"]
    open_to_all = {
        path for path, o in paths.items() if o.get("get", {}).get("security") == []
    }
    open_paths = {"/", "/health", "/healthz", "/readyz", "/api/auth/status"}
    assert open_to_all == open_paths
    trigger = paths["/api/tasks/{task_name}/run"]["post"]
    queries = [p["schema"] for p in trigger["parameters"] if p["in"] == "query"]
    wait, timeout, _ = queries
    assert (wait["type"], wait["default"]) == ("boolean", False)
    bounds = [timeout[k] for k in ("minimum", "maximum", "default")]
    assert bounds == [1, 3600, 300]
    assert trigger["requestBody"]["required"] is False
    assert "201" in trigger["responses"]


def test_openapi_tells_the_headers_of_requests_and_answers(shared):
    paths = shared.get("/openapi.json").json["paths"]
    named: set[str] = set()
    for operation in (o for path in paths.values() for o in path.values()):
        given = [p["name"] for p in operation["parameters"] if p["in"] == "header"]
        assert given[-1] == "X-Request-Id"
        named.update(given)
        answers = operation["responses"].values()
        assert all("X-Request-Id" in answer["headers"] for answer in answers)
        has_events = any(
            "text/event-stream" in answer.get("content", {}) for answer in answers
        )
        assert ("Last-Event-ID" in given) == has_events, operation["operationId"]
        assert ("Range" in given) == ("206" in operation["responses"])
        assert ("If-None-Match" in given) == ("304" in operation["responses"])
    assert named == set(tr.HEADERS)


@pytest.mark.parametrize("path, media_type", [
    ("/api/tasks", "application/json"), ("/api/runs/stream", "text/event-stream"),
    ("/api/tasks/{task_name}/runs/{run_id}/log/raw", "text/plain"),
    ("/schemas/{schema_name}.json", "application/schema+json"),
    ("/api/daemon/log-stream", "text/event-stream"),
])  # fmt: skip
def test_openapi_tells_the_media_type_that_is_sent(shared, path, media_type):
    operation = shared.get("/openapi.json").json["paths"][path]["get"]
    [told] = operation["responses"]["200"]["content"]
    assert told.startswith(media_type)


def test_openapi_tells_the_other_forms_of_a_run(shared):
    paths = shared.get("/openapi.json").json["paths"]
    for path, method, status in (
        ("/api/tasks/{task_name}/run", "post", "201"),
        ("/api/tasks/{task_name}/runs/{run_id}", "get", "200"),
        ("/api/runs/{run_id}", "get", "200"),
    ):
        forms = paths[path][method]["responses"][status]["content"]
        assert [*forms] == ["application/json", "text/plain", "text/event-stream"]
        assert "Run-Exit-Code" in forms["text/plain"]["schema"]["description"]
        told = re.findall(
            "`([a-z]+)`", forms["text/event-stream"]["schema"]["description"]
        )
        assert told == ["run", "line", "rotated", "dropped", "done", "unfinished"]


def test_openapi_tells_both_formats_of_the_metrics(shared):
    operation = shared.get("/openapi.json").json["paths"]["/metrics"]["get"]
    assert set(operation["responses"]["200"]["content"]) == {"text/plain", OPEN_METRICS}


def test_openapi_says_that_a_bulk_operation_needs_a_body(shared):
    paths = shared.get("/openapi.json").json["paths"]
    bodies = [
        operations["post"]["requestBody"]["required"]
        for path, operations in paths.items()
        if path.startswith("/api/runs/bulk/")
    ]
    assert bodies == [True] * 4


@pytest.mark.parametrize("name, right, wrong", [
    ("status", ["failed", "running,failed", " ended , success "],
     ["", ",", "failed,", "x", "failed\t", "Failed", "failed failed"]),
    ("cursor", ["7" + "Z" * 25 + ":0"],
     ["", ":", "8" + "0" * 25 + ":0", "0" * 26 + ":"]),
    ("search", ["a", "\n"], ["", "\0", "a\0", "x" * 201]),
    ("Idempotency-Key", ["a", '"a b"', '"' + '\\"' * 255 + '"', "x" * 255],
     ["", '"', '""', "a b", '"\\a"', '"a', "é", "x" * 256, '"' + "x" * 256 + '"']),
])  # fmt: skip
def test_openapi_tells_exactly_which_texts_are_taken(name, right, wrong):
    schema = {**tr.PARAMS, **tr.HEADERS}[name]
    key_is_taken = name == "Idempotency-Key"

    def is_described(text):
        size = range(schema.get("minLength", 0), schema.get("maxLength", 10_000) + 1)
        return len(text) in size and bool(re.search(schema["pattern"], text))

    def is_taken(text):
        if not key_is_taken:
            return not list(tr.find_faults(schema, text, ()))
        try:
            return bool(tr._key_text(text))
        except ValueError:
            return False

    for texts, expected in ((right, True), (wrong, False)):
        for text in texts:
            assert (is_described(text), is_taken(text)) == (expected, expected), text


def test_openapi_tells_exactly_which_members_of_a_selector_go_together():
    """JSON Schema's oneOf says the same as the check, for every combination."""
    first, second = tr.SCHEMAS["BulkSelector"]["oneOf"]

    def fits(branch, body):
        wanted = branch["properties"]
        return set(branch["required"]) <= set(body) and all(
            wanted[name] and wanted[name]["const"] == value
            for name, value in body.items()
            if name in wanted
        )

    parts: list[list[dict[str, Any]]] = [
        [{}, {"ids": [NOWHERE]}], [{}, {"match_all": True}, {"match_all": False}],
        [{}, {"filter": {}}], [{}, {"except_ids": []}],
    ]  # fmt: skip
    for members in itertools.product(*parts):
        body = {name: value for part in members for name, value in part.items()}
        request: Any = types.SimpleNamespace(body=body)
        is_taken = not tr.check_selector(None, request, [])  # type: ignore[arg-type]
        assert (fits(first, body) != fits(second, body)) == is_taken, body


def test_openapi_tells_objects_from_text_and_what_is_needed(shared):
    paths = shared.get("/openapi.json").json["paths"]
    for path, expected in (
        ("/api/tasks/{task_name}/runs/{run_id}/log/raw", "string"),
        ("/metrics", "string"), ("/", "string"),
        ("/schemas/{schema_name}.json", "object"),
    ):  # fmt: skip
        content = paths[path]["get"]["responses"]["200"]["content"]
        assert next(iter(content.values()))["schema"] == {"type": expected}
    search = paths["/api/tasks/{task_name}/log/search"]["get"]["parameters"]
    needed = [p["name"] for p in search if p["in"] == "query" and p.get("required")]
    assert needed == ["q"]


@pytest.mark.parametrize("path", [
    "/schemas/" + "%E0%A4" * 60, "/no%zz", '/a"<>{}|\\^`b', "/a%", "/[::1]", "/a%2Fb",
])  # fmt: skip
def test_problem_names_its_request_as_a_uri(shared, path):
    raw = shared.exchange(head(f"GET {path} HTTP/1.1", "Connection: close"))
    instance = split_answers(raw)[0].problem["instance"]
    assert re.fullmatch(r"(?:%[0-9A-F]{2}|[!$&'()*+,;=:@/~._0-9A-Za-z-])+", instance)
    assert instance != "/a%2Fb" or path == instance


# ---- 14. HTTP: connections, parsing, answers, streams -----------------------


class Wire(NamedTuple):
    """An answer as it came over a raw socket; header names in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def problem(self):
        """The problem, held against its schema."""
        assert self.headers["content-type"] == "application/problem+json", self
        document = json.loads(self.body)
        assert document["status"] == self.status
        assert document["title"] == tr.TITLES[self.status]
        assert not list(tr.find_faults(tr.SCHEMAS["ErrorModel"], document, ()))
        return document


def split_answers(raw):
    """The answers in a stream of bytes; all but 100 and 204 tell their length."""
    found = []
    while raw:
        head, _, raw = raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        version, status, _ = first.split(" ", 2)
        assert version == "HTTP/1.1"
        pairs = (line.partition(": ") for line in lines)
        headers = {name.lower(): value for name, _, value in pairs}
        assert status == "100" or headers["x-request-id"]
        size = int(headers.get("content-length", 0))
        found.append(Wire(int(status), headers, raw[:size]))
        assert len(found[-1].body) == size
        raw = raw[size:]
    return found


def head(first, *fields, host="localhost"):
    """The head of a request with a Host field."""
    lines = (first, *([f"Host: {host}"] if host else []), *fields)
    return "".join(line + "\r\n" for line in (*lines, "")).encode()


def healthz(*fields, host="localhost"):
    """The head of a plain request."""
    return head("GET /healthz HTTP/1.1", *fields, host=host)


LAST = healthz("Connection: close")


@pytest.fixture
def serve_here(in_process, tmp_path):
    """HTTP servers in this process: serve_here(tasks, token=…, secure=…)."""
    servers: list[tr.Server] = []

    def make(tasks, token="", clock=None, *, secure=False):
        tls = made_tls(tmp_path) if secure else None
        server = tr.Server(("127.0.0.1", 0), tr.Options(token), tls=tls)
        server.daemon = in_process(tasks, clock)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        folder = tmp_path / f"client{len(servers)}"
        folder.mkdir()
        client = Served(folder, tasks)
        client.server, client.daemon = server, server.daemon
        client.port = server.listeners[0].socket.getsockname()[1]
        client.tls = trusting(0) if secure else None
        return client

    yield make
    for server in servers:
        server.stop_listening()


# fmt: off
CHUNKED = head("POST /api/tasks/true/run HTTP/1.1", "Transfer-Encoding: chunked")


# fmt: off
@pytest.mark.parametrize("raw, status, detail", [
    (b"GET /healthz\r\n\r\n", 400, "request line"),
    (b"GET  /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request line"),
    (b"GET /healthz HTTP/1.1 more\r\nHost: a\r\n\r\n", 400, "request line"),
    (b"G@T /healthz HTTP/1.1\r\nHost: a\r\n\r\n", 400, "request line"),
    (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\r\n\r\n", 400, "request line"),
    (head("GET /healthz FTP/1.1"), 400, "HTTP/1.1"),
    (head("GET /healthz HTTP/2.0"), 505, "HTTP/1.1"),
    (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1"),
    (head("GET healthz HTTP/1.1"), 400, "must begin with /"),
    (head("CONNECT localhost:80 HTTP/1.1"), 400, "must begin with /"),
    (head("GET /\u00e4 HTTP/1.1"), 400, "percent-encoded"),
    (head("GET /\x7f HTTP/1.1"), 400, "percent-encoded"),
    (healthz(host=""), 400, "Host"), (healthz("Host: other"), 400, "host"),
    (healthz("Host: localhost"), 400, "host"),
    (healthz(host="localhost/x"), 400, "Host"),
    (healthz(host="localhost:x"), 400, "Host"),
    (healthz("A: 1", " folded"), 400, "on one line"),
    (healthz("A: 1", "\tfolded"), 400, "on one line"),
    (healthz("No Colon"), 400, "NAME: VALUE"),
    (healthz("Spaced : 1"), 400, "NAME: VALUE"),
    (healthz(": 1"), 400, "NAME: VALUE"), (healthz("B(d: 1"), 400, "NAME: VALUE"),
    (healthz("A: \x00"), 400, "control characters"),
    (healthz("A: 1\nB: 2"), 400, "control characters"),
    (healthz("A: 1\rB: 2"), 400, "control characters"),
    (b"GET /healthz HTTP/1.1\nHost: a\n\n", 400, "CR LF"),
    (healthz("Content-Length: x"), 400, "Content-Length"),
    (healthz("Content-Length: -1"), 400, "Content-Length"),
    (healthz("Content-Length: 1, 1"), 400, "Content-Length"),
    (healthz("Content-Length: 1", "Content-Length: 2"), 400, "content-length"),
    (healthz("Content-Length: 5", "Transfer-Encoding: chunked"), 400, "both"),
    (healthz("Content-Length: 1048577"), 413, "1048576"),
    (head("GET /" + "a" * tr.REQUEST_LINE_MAX_BYTES + " HTTP/1.1"), 414, "8192"),
    (b"A" * (tr.REQUEST_LINE_MAX_BYTES + 1), 414, "8192"),
    (healthz("A: " + "a" * tr.HEADERS_MAX_BYTES), 431, "32768"),
    (healthz(*["A: 1"] * tr.HEADERS_MAX_COUNT), 431, "100 header fields"),
    (healthz("Content-Length: 1", "Expect: tea"), 417, "100-continue"),
    (healthz("Transfer-Encoding: gzip"), 501, "chunked"),
    (healthz("Transfer-Encoding: gzip, chunked"), 501, "chunked"),
    *((CHUNKED + size + b"\r\n", 400, "size in hex") for size in (
        b"x", b"-1", b"123456789", b"",
    )),
    *((CHUNKED + size + b"\r\n{}\r\n0\r\n\r\n", 400, "size in hex") for size in (
        b"2\n", b"2\v", b"2\f", b"2\r", b"2\x1c", b"2\0", b"2\xa0", b"2x", b"2_",
        b" 2", b"\t2", b"\n2", b"\v2", b"\f2", b"\r2", b"+2", b"0x2", b";2",
        b"2;a\nb", b'2;a="\r"',
    )),
    (CHUNKED + b"2\r\n{}}\r\n0\r\n\r\n", 400, "longer than its size"),
    (CHUNKED + b"2\n{}\n0\n\n", 400, "CR LF"),
    (CHUNKED + b"2\r\n{}\n0\r\n\r\n", 400, "longer than its size"),
    (CHUNKED + b"2\r\n{}\r\n0\r\nA: 1\nB: 2\r\n\r\n", 400, "control characters"),
    (CHUNKED + b"2\r\n{}\r\n0\r\n A: 1\r\n\r\n", 400, "NAME: VALUE"),
    (CHUNKED + b"2\r\n{}\r\n0\r\n\n", 400, "CR LF"),
    (CHUNKED + b"1;" + b"e" * tr.REQUEST_LINE_MAX_BYTES, 400, "header is too long"),
    (CHUNKED + b"100001\r\n", 413, "1048576"),
    (CHUNKED + b"0\r\n" + b"T: 1\r\n" * (tr.HEADERS_MAX_COUNT + 1), 431, "trailers"),
])
# fmt: on
def test_malformed_request_is_a_problem_and_closes(shared, raw, status, detail):
    # A request behind it must not be answered: where it begins is anybody's guess.
    # Behind chunks it would be one of them.
    behind = b"" if raw.startswith(CHUNKED) else LAST
    (answer,) = split_answers(shared.exchange(raw + behind))
    assert answer.status == status
    assert detail in answer.problem["detail"]
    assert answer.headers["connection"] == "close"
    assert answer.headers["x-content-type-options"] == "nosniff"


def posted(path, *fields, body=b"{}"):
    """A whole POST that has its length."""
    length = f"Content-Length: {len(body)}"
    return head(f"POST {path} HTTP/1.1", length, *fields) + body


RUN_TRUE, CLOSES, KEPT = "/api/tasks/true/run?wait=1", {"connection": "close"}, {}
IDENTITY = {"accept-encoding": "identity"}


@pytest.mark.parametrize("raw, wanted, holds", [
    # The connection is kept or closed as asked.
    (healthz() + LAST, [(200, KEPT), (200, CLOSES)], ""),
    (healthz("Connection: close") + LAST, [(200, CLOSES)], ""),
    (healthz("Connection: x, Close") + LAST, [(200, CLOSES)], ""),
    (head("GET /healthz HTTP/1.0") + LAST, [(200, CLOSES)], ""),
    (head("GET /healthz HTTP/1.0", "Connection: keep-alive") + LAST,
     [(200, {"connection": "keep-alive"}), (200, CLOSES)], ""),
    # Requests sent at once are answered in order.
    (healthz() + head("GET /nothing HTTP/1.1") + head("GET /api/tasks HTTP/1.1")
     + posted(RUN_TRUE, body=b'{"params": {}}') + b"\r\n" + LAST,
     [(200, KEPT), (404, KEPT), (200, KEPT), (201, KEPT), (200, CLOSES)], ""),
    (head("OPTIONS * HTTP/1.1", "Connection: close"), [(204, CLOSES)], ""),
    # An absolute target names the host whatever Host says (RFC 9112, 3.2.2); HTTP/1.0
    # needs none.
    *((head(f"GET {target} HTTP/1.1", host="127.0.0.1") + LAST,
       [(status, KEPT), (200, CLOSES)], holds)
      for target, status, holds in (
        ("http://localhost:80/api/info?a=1", 200, "http://localhost:80/schemas/Info"),
        ("HTTP://localhost:80/api/info", 200, "http://localhost:80/schemas/Info.json"),
        ("http://rebound.example/api/info", 421, ""),
    )),
    (b"GET /api/info HTTP/1.0\r\n\r\n", [(200, CLOSES)],
     "http://127.0.0.1:{port}/schemas/Info.json"),
    # Chunks: with extensions and trailers; of HTTP/1.0, which closes.
    (head("POST /api/tasks/echo/run?wait=1 HTTP/1.1", "Transfer-Encoding: Chunked",
          host="[::1]")
     + b'C;x=1;y="a"\r\n{"params": {\r\n00f\r\n"TEXT": "new"}}\r\n'
     b"000;last\r\nX-Checksum: 1\r\nMore: 2\r\n\r\n" + LAST,
     [(201, KEPT), (200, CLOSES)], '"params":{{"TEXT":"new"}}'),
    *((head(f"POST {RUN_TRUE} HTTP/1.0", "Transfer-Encoding: chunked", *end)
       + b"2\r\n{}\r\n0\r\n\r\n" + LAST, [(201, CLOSES)], "")
      for end in ((), ("Connection: keep-alive",))),
    # Expect: 100-continue is answered by a refusal, and is ignored where unknown.
    *((head(f"POST {path} HTTP/1.1", f"Content-Length: {n}", "Expect: 100-continue"),
       [(status, CLOSES)], "")
      for path, n, status in (
          ("/nothing", 2, 404), (RUN_TRUE, tr.BODY_MAX_BYTES + 1, 413),
    )),
    # A body is JSON where it says what it is, and is not compressed.
    *((posted(RUN_TRUE, f"Content-Type: {media}") + LAST,
       [(status, KEPT), (200, CLOSES)], "")
      for media, status in (
        ("text/plain", 415), ("application/jsonp", 415), ("", 201),
        ("Application/JSON; charset=utf-8", 201), ("application/merge+json", 201),
    )),
    *((posted(RUN_TRUE, f"Content-Encoding: {coding}", body=zlib.compress(b"{}"))
       + LAST, [(415, IDENTITY), (200, CLOSES)], "")
      for coding in ("gzip", "x-gzip", "Deflate", "br", "identity, gzip")),
    *((posted(RUN_TRUE, f"Content-Encoding: {coding}") + LAST,
       [(201, KEPT), (200, CLOSES)], "")
      for coding in ("identity", "", "Identity")),
])
def test_requests_are_answered_so(shared, raw, wanted, holds):
    answers = split_answers(shared.exchange(raw))
    assert [answer.status for answer in answers] == [status for status, _ in wanted]
    for answer, (status, headers) in zip(answers, wanted):
        assert headers.items() <= answer.headers.items()
        assert ("connection" in headers) == ("connection" in answer.headers)
        assert status < 400 or answer.problem
    assert holds.format(port=shared.port) in answers[0].body.decode()


def test_chunks_of_one_byte_do_not_cost_a_copy_of_all_that_came():
    body = b"x" * (tr.BODY_MAX_BYTES // 16)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = tr._Wire(ours)
        wire._buffer = b"1\r\nx\r\n" * len(body) + b"0\r\n\r\n"
        started_s = time.thread_time()
        chunked = {"transfer-encoding": "chunked"}
        assert wire.receive_body(tr.Head("POST", "/", "", "HTTP/1.1", chunked)) == body
        # It is 0.05 s, and was 20.
        assert time.thread_time() - started_s < 5


# fmt: off
@pytest.mark.parametrize(("method", "path", "body", "status", "location", "message"), [
    ("GET", "/nothing", None, 404, None, "nothing is found at /nothing"),
    ("BREW", "/api/nothing", None, 404, None, "nothing is found"),
    ("OPTIONS", "/api", None, 404, None, "nothing is found"),
    ("GET", "/api/tasks/", None, 422, "path.task_name", ""),
    ("GET", "/api/tasks/nobody", None, 404, None, "nobody"),
    ("GET", "/api/runs/123", None, 422, "path.run_id", ""),
    ("GET", "/api/tasks/a%2Fb", None, 422, "path.task_name", ""),
    ("GET", "/api/tasks/a%01", None, 422, "path.task_name", ""),
    ("POST", "/api/tasks/true/run", b"{", 400, "body", "not JSON"),
    ("POST", "/api/tasks/true/run", b"\xff", 400, "body", "not UTF-8"),
    ("POST", "/api/tasks/true/run", b'{"a": NaN}', 400, "body", "NaN"),
    ("POST", "/api/tasks/true/run", b"[" * 64, 400, "body", "not JSON"),
    ("POST", "/api/tasks/true/run", b"[" * 65, 400, "body", "nested deeper"),
    ("POST", "/api/tasks/true/run", b'{"":' * 200_000, 400, "body", "nested deeper"),
    ("POST", "/api/tasks/true/run", b"[]", 422, "body", ""),
    ("POST", "/api/tasks/forbidden/run", None, 403, None, "may not be"),
    ("POST", "/api/runs/bulk/delete", None, 422, "body", ""),
])
# fmt: on
def test_request_is_refused(shared, method, path, body, status, location, message):
    with contextlib.closing(shared.connect()) as connection:
        reply = shared.request(method, path, body, None, connection)
        assert reply.status == status, reply
        assert reply.json["instance"] == path
        if location is None:
            assert message in reply.json["detail"] and not reply.faults
        else:
            assert reply.faults[0][0] == location and message in reply.faults[0][1]
        # The connection is still in step.
        after = shared.request("GET", "/healthz", connection=connection)
        assert after.status == 200


def test_range_beyond_the_output_is_416(shared):
    run = shared.run("hello")
    path = f"/api/tasks/hello/runs/{run['id']}/log/raw"
    reply = shared.get(path, 416, Range="bytes=100-")
    assert reply.headers["Content-Range"] == "bytes */6"
    assert shared.get(path, 206, Range="bytes=1-2").raw == b"el"


@pytest.mark.parametrize("value", [b"1e999", b"-1e999", rb'"\ud800"'])
def test_value_that_cannot_be_said_in_an_answer_is_a_fault(shared, value):
    for body in (b'{"params": {"TEXT": %b}}', b'{"more": %b}'):
        reply = shared.request("POST", "/api/tasks/echo/run", body % value)
        assert reply.status in (400, 422) and b"Infinity" not in reply.raw


def test_value_over_200_characters_is_cut(shared):
    for size, shown in ((200, "a" * 200), (201, "a" * 200 + "…")):
        reply = shared.get(f"/api/runs?limit={'a' * size}", 422)
        assert reply.json["errors"][0]["value"] == shown
    word = "b" * 1000
    for path in (f"/{word}", f"/api/tasks/true/run?wait={word}"):
        reply = shared.request("POST", path)
        assert reply.status in (404, 422) and b"b" * 210 not in reply.raw


@pytest.mark.parametrize("path, named", [
    ("/api/tasks/echo/run", '{"params": {%s}}'), ("/api/tasks/echo/run", "{%s}"),
    ("/api/runs/bulk/delete", '{"ids": ["x"], %s}'),
])  # fmt: skip
def test_of_many_faults_fifty_are_listed_and_the_rest_is_counted(shared, path, named):
    body = named % ",".join(f'"TEXTS{n}":""' for n in range(50_000))
    reply = shared.post(path, body.encode(), 422)
    assert len(reply.faults) == tr.FAULTS_LISTED == 50
    more = 50_000 + ("ids" in named) - 50
    assert reply.json["detail"].endswith(f"; {more} more faults are not listed")


def test_only_faults_that_are_listed_cost_a_search_for_a_near_name(
    monkeypatch, in_process
):
    searched: list[Any] = []
    monkeypatch.setattr(tr, "nearest", lambda word, _: searched.append(word) or "")
    task = in_process({"a": {"run": "true"}}).task("a")
    given = {f"TEXT{n}": "" for n in range(1000)}
    assert len(tr.bound_params(task, given)[1]) == 1000
    faults = tr.find_faults(tr.SCHEMAS["Trigger"], given, ())
    assert (len(list(faults)), len(searched)) == (1000, 2 * tr.FAULTS_LISTED)


def test_all_faults_come_in_one_answer_path_query_body(shared):
    run_path = "/api/tasks/echo/run?wait=maybe&wait_timeout=0"
    body = {"params": {"TEXT": 5, "TXT": "a"}, "wait": True}
    reply = shared.request("POST", run_path, body)
    assert reply.status == 422
    places = [location for location, _ in reply.faults]
    assert places[:2] == ["query.wait", "query.wait_timeout"]
    wanted = {"body.wait", "body.params.TEXT", "body.params.TXT"}
    assert set(places[2:]) == wanted and len(places) == 5
    reply = shared.request("POST", "/api/tasks/a%20b/run?wait=x", {"wait": True})
    assert [at for at, _ in reply.faults] == [
        *("path.task_name", "query.wait", "body.wait")
    ]


@pytest.mark.parametrize("query, listed", [
    ("limit=1&limit=5000", 1), ("limit=2&limit=x", 2), ("unknown=1&limit=2", 2),
    ("lim%69t=%31", 1), ("&&limit=1&", 1),
])
def test_query_counts_the_first_of_a_name_and_ignores_unknown_ones(
    shared, query, listed
):
    for _ in range(3):
        shared.run("true")
    assert len(shared.get(f"/api/runs?{query}").json["runs"]) == listed


@pytest.mark.parametrize("word, status", [
    ("true", "ended"), ("TRUE", "ended"), ("1", "ended"), ("T", "ended"), ("false", ""),
    ("False", ""), ("0", ""), ("f", ""), ("", ""),
])
def test_boolean_words(shared, fifo, word, status):
    task, params = ("true", None) if status else ("wait-for-fifo", {"fifo": str(fifo)})
    run = shared.trigger(task, params, f"?wait={word}&wait_timeout=30")
    if status:
        assert run["status"] == status
    else:
        assert run["status"] in ("pending", "running")
        fifo.write_bytes(b"")
    assert shared.ended(run)["end_reason"] == "success"


def example_path(shared, path):
    """A path of the API with its parameters filled in."""
    run_id = shared.run("hello")["id"] if "{run_id}" in path else ""
    given = {"task_name": "hello", "run_id": run_id, "schema_name": "Run"}
    text = path.format(**given)
    return text + "?q=a" if text.endswith("/search") else text


@pytest.mark.parametrize("path", sorted({route.path for route in tr.API}))
def test_path_answers_head_options_and_refuses_other_methods(shared, path):
    methods = {route.method for route in tr.API if route.path == path}
    allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
    real = example_path(shared, path)
    with contextlib.closing(shared.connect()) as connection:
        options = shared.request("OPTIONS", real, connection=connection)
        assert options.status == 204
        assert set(options.headers["Allow"].split(", ")) == allowed
        for method in sorted({"GET", "POST", "PUT", "DELETE", "PATCH", "X"} - allowed):
            refused = shared.request(method, real, connection=connection)
            assert refused.status == 405
            assert set(refused.headers["Allow"].split(", ")) == allowed
        got = shared.request("HEAD", real, connection=connection)
        assert got.status == (200 if "GET" in methods else 405)
        assert shared.request("GET", "/healthz", connection=connection).status == 200


def test_head_has_the_headers_of_get(shared):
    varying = ("Date", "X-Request-Id")
    for path in ("/api/tasks", "/schemas/Run.json", "/nothing", "/api/runs/1"):
        got, had = shared.request("GET", path), shared.request("HEAD", path)
        assert had.status == got.status
        assert [h for h in had.headers.items() if h[0] not in varying] == [
            h for h in got.headers.items() if h[0] not in varying
        ]
        assert int(had.headers["Content-Length"]) == len(got.raw)


def test_answers_are_counted_by_route_and_status(serve_here):
    client = serve_here({"t": {"run": "true"}})
    run = client.run("t")
    for path in (place(run), f"/api/runs/{run['id']}", "/api/runs/x", "/a", "/b?c=/d"):
        client.request("GET", path)
    client.request("PUT", place(run))
    client.request("OPTIONS", "/api/runs")
    client.exchange(b"nonsense\r\n\r\n")
    with client.events("/api/runs/stream") as events:
        next(events)
    counted = client.server.answered()
    figures = figures_of(client)
    shown = {
        (labels["route"], int(labels["status"])): value
        for (name, pairs), value in figures.items()
        for labels in [dict(pairs)]
        if name == "taskrunnerd_http_requests_total"
    }
    assert shown == counted == {
        ("/api/tasks/{task_name}/run", 201): 1,
        ("/api/tasks/{task_name}/runs/{run_id}", 200): 1,
        ("/api/tasks/{task_name}/runs/{run_id}", 405): 1,
        ("/api/runs/{run_id}", 200): 1, ("/api/runs/{run_id}", 422): 1,
        ("/api/runs", 204): 1, ("/api/runs/stream", 200): 1, ("unknown", 404): 2,
        ("unknown", 400): 1,
    }  # fmt: skip


def test_answers_of_many_threads_are_all_counted(serve_here):
    server = serve_here({}).server
    pool = [
        in_thread(lambda: [server.count_answer("/a", 200) for _ in range(2000)])
        for _ in range(8)
    ]
    for join in pool:
        join()
    assert server.answered() == {("/a", 200): 16_000}


def test_http_1_0_gets_no_chunks(shared):
    run = shared.run("hello")
    path = f"/api/tasks/hello/runs/{run['id']}/log/stream"
    raw = shared.exchange(
        f"GET {path} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n".encode()
    )
    top, _, events = raw.partition(b"\r\n\r\n")
    assert b"chunked" not in top.lower() and b"connection: close" in top.lower()
    assert [e.name for e in parse_events(events.splitlines(True))] == ["line", "done"]


def test_expect_continue_is_answered_before_the_body(shared):
    fields = ("Content-Length: 2", "Expect: 100-Continue")
    with socket.create_connection(("127.0.0.1", shared.port), DEADLINE_S) as client:
        client.sendall(head("POST /api/tasks/true/run?wait=1 HTTP/1.1", *fields))
        assert client.recv(65536) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"{}" + LAST)
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert [answer.status for answer in split_answers(received)] == [201, 200]


def test_expect_is_ignored_from_http_1_0(shared):
    fields = ("Content-Length: 2", "Expect: 100-continue")
    request = head("POST /api/tasks/true/run?wait=1 HTTP/1.0", *fields)
    with socket.create_connection(("127.0.0.1", shared.port), DEADLINE_S) as client:
        client.sendall(request)
        within(DEADLINE_S, lambda: waiting(shared) == 1, "a request without its body")
        client.sendall(b"{}")
        received = b"".join(iter(lambda: client.recv(65536), b""))
    assert received.startswith(b"HTTP/1.1 201")


@pytest.fixture
def patient(serve, monkeypatch):
    """A daemon that reads as long as it takes what it has refused."""
    monkeypatch.setattr(tr, "LINGER_S", DEADLINE_S)
    return serve({"true": {"run": "true"}})


def test_body_of_exactly_the_limit_is_read(patient):
    body = b'{"params": {}}'.ljust(tr.BODY_MAX_BYTES)
    reply = patient.request("POST", "/api/tasks/true/run?wait=1", body)
    assert reply.status == 201
    assert patient.request("POST", "/api/tasks/true/run", body + b" ").status == 413


def test_refusal_of_a_large_body_can_be_read(patient):
    """Closing with unread bytes would reset the connection and destroy the answer."""
    large = b"x" * (8 << 20)
    for _ in range(3):
        assert patient.request("POST", "/api/tasks/true/run", large).status == 413
        assert patient.request("POST", "/nothing", large).status == 404
        assert patient.request("POST", "/healthz", large[:900_000]).status == 405


def test_unfinished_request_is_closed_at_its_limit(serve_here, monkeypatch):
    for limit in ("HEADER_TIMEOUT_S", "BODY_TIMEOUT_S", "SOCKET_SLACK_S"):
        monkeypatch.setattr(tr, limit, 0.05)
    client = serve_here({"true": {"run": "true"}})
    body = head("POST /api/tasks/true/run HTTP/1.1", "Content-Length: 5") + b"{"
    for part in (b"G", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: ", body):
        assert client.exchange(part) == b""
    assert client.get("/api/runs").json["total"] == 0


@pytest.mark.parametrize("error", [KeyError("hidden"), PermissionError(13, "hidden")])
def test_bug_in_an_operation_is_500_without_its_text(
    serve_here, monkeypatch, caplog, error
):
    def fail(daemon, request):
        raise error

    route = tr._STATIC["/api/info"]["GET"]
    monkeypatch.setitem(tr._STATIC["/api/info"], "GET", route._replace(operation=fail))
    client = serve_here({"true": {"run": "true"}})
    with contextlib.closing(client.connect()) as connection:
        reply = client.request("GET", "/api/info", connection=connection)
        assert reply.status == 500 and b"hidden" not in reply.raw
        assert client.request("GET", "/healthz", connection=connection).status == 200
    assert "hidden" in caplog.text and "path=/api/info" in caplog.text


def test_every_answer_names_the_schema_under_the_host_of_the_request(shared):
    for host in ("localhost", "a.localhost:1", "[::1]:2", "127.0.0.1"):
        for path in ("/api/info", "/nothing"):
            reply = shared.get(path, 404 if path == "/nothing" else 200, Host=host)
            base, _, name = reply.json["$schema"].rpartition("/")
            assert base == f"http://{host}/schemas"
            link = reply.headers["Link"].partition(">")[0][1:]
            assert link == f"/schemas/{name}"
            document = shared.get(link)
            assert document.headers["Content-Type"] == "application/schema+json"
            assert document.json["$schema"] == tr.SCHEMA_DIALECT
    tasks = shared.get("/api/tasks")
    assert isinstance(tasks.json, list) and "Link" in tasks.headers


@pytest.mark.parametrize("given", ["a", "req 1, \"x\"=~", "x" * 200])
def test_request_id_comes_back(shared, given):
    field = f"X-Request-Id: {given}"
    stream = f"GET /api/tasks/hello/runs/{shared.run('hello')['id']}/log/stream"
    asked = ("GET /healthz", "HEAD /api/runs", "OPTIONS /api", "DELETE /api/x", stream)
    for first in asked:
        raw = head(f"{first} HTTP/1.1", field, "Connection: close")
        answered = shared.exchange(raw)
        names = answered.partition(b"\r\n\r\n")[0].decode().split("\r\n")
        assert [n for n in names if n.startswith("X-Request-Id")] == [field]


@pytest.mark.parametrize("given", ["", " ", "x" * 201, "Zo\xeb", "a\tb"])
def test_request_id_that_cannot_be_sent_back_is_replaced(shared, given):
    field = f"X-Request-Id: {given}"
    raw = healthz("Connection: close", field).decode().encode("latin-1")
    (answer,) = split_answers(shared.exchange(raw))
    assert re.fullmatch("[0-9a-f]{32}", answer.headers["x-request-id"])


def test_request_id_is_not_kept_for_the_next_request(shared):
    bad = head("GET /healthz HTTP/1.1", "No colon")
    raw = healthz("X-Request-Id: mine") + healthz() + bad
    found = [a.headers["x-request-id"] for a in split_answers(shared.exchange(raw))]
    assert found[0] == "mine"
    assert len({*found, "mine"}) == 3


# -- who may ask


@pytest.mark.parametrize("host, status", [
    ("localhost", 200), ("LocalHost:80", 200), ("localhost.", 200),
    ("app.localhost", 200), ("127.0.0.1", 200), ("192.0.2.7:9477", 200), ("[::1]", 200),
    ("[2001:db8::1]:80", 200), ("named.example", 200), ("NAMED.example:80", 200),
    ("second.example", 200), ("rebound.example", 421), ("localhost.example", 421),
    ("127.0.0.1.example", 421), ("notlocalhost", 421), ("0x7f000001", 421),
    ("2130706433", 421), ("sub.named.example", 421), ("named.example.org", 421),
])
def test_host_must_be_known_without_a_token(named, host, status):
    for path in ("/api/info", "/healthz", "/nothing"):
        reply = named.request("GET", path, headers={"Host": host})
        assert reply.status == (404 if (status, path) == (200, "/nothing") else status)
        if status == 421:
            assert "--allow-host" in reply.json["detail"]


@pytest.fixture(scope="session")
def named(tmp_path_factory):
    """A daemon that also answers to names."""
    flags = ("--allow-host", "Named.example, x", "--allow-host", "second.example")
    folder = tmp_path_factory.mktemp("named")
    daemon = Served(folder, {"true": {"run": "true"}}, *flags).start()
    yield daemon
    daemon.close()


@pytest.fixture(scope="session")
def guarded(tmp_path_factory):
    """A daemon with a token, which `request` sends."""
    folder = tmp_path_factory.mktemp("guarded")
    tasks = {"environment": {"run": "env"}}
    daemon = Served(folder, tasks, TASKRUNNERD_TOKEN=" s3cret ").start()
    daemon.token = "s3cret"
    yield daemon
    daemon.close()


@pytest.mark.parametrize("sent", [
    None, "", "Bearer", "Bearer ", "Bearer wrong", "Bearer s3cre", "Bearer s3cret2",
    "Bearer S3CRET", "s3cret", "Basic s3cret", "Bearer s3\xe9",
])
def test_request_without_the_token_is_401(guarded, sent):
    with contextlib.closing(guarded.connect()) as connection:
        headers = {} if sent is None else {"Authorization": sent}
        for method, path in (("GET", "/api/info"), ("POST", "/no"), ("GET", "/api")):
            connection.request(method, path, None, headers)
            answer = connection.getresponse()
            document = json.loads(answer.read())
            assert (answer.status, document["status"]) == (401, 401)
            assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
            assert "Bearer" in document["detail"] and "s3cret" not in str(document)


def test_every_path_but_page_and_probes_needs_the_token(guarded):
    open_paths = set()
    for path in {route.path for route in tr.API}:
        for method in ("GET", "HEAD", "OPTIONS", "POST", "DELETE"):
            reply = guarded.request(method, path, headers={"Authorization": "none"})
            if reply.status != 401:
                open_paths.add(path)
    assert open_paths == {"/", "/health", "/healthz", "/readyz", "/api/auth/status"}


def test_the_token_opens_and_does_not_reach_programs(guarded):
    for scheme in ("Bearer", "bearer", "BEARER"):
        assert guarded.get("/api/info", Authorization=f"{scheme} s3cret").json
    # The token is enough: the host may have any name.
    known = guarded.get("/api/info", Host="any.example").json
    assert known["auth_required"] is True
    run = guarded.run("environment")
    assert b"s3cret" not in guarded.raw(run)
    assert "s3cret" not in guarded.log.read_text()


@pytest.mark.parametrize("method, headers, status", [
    ("POST", {}, 200), ("POST", {"Origin": "http://localhost:9477"}, 200),
    ("POST", {"Origin": "https://LOCALHOST:9477"}, 200),
    ("POST", {"Sec-Fetch-Site": "same-origin"}, 200),
    ("POST", {"Sec-Fetch-Site": "none"}, 200), ("POST", {"Origin": "null"}, 403),
    ("POST", {"Origin": ""}, 403), ("POST", {"Origin": "http://localhost"}, 403),
    ("POST", {"Origin": "http://localhost:9478"}, 403),
    ("POST", {"Origin": "http://evil.example"}, 403),
    ("POST", {"Origin": "http://evil.example/?http://localhost:9477"}, 403),
    ("POST", {"Sec-Fetch-Site": "cross-site"}, 403),
    ("POST", {"Sec-Fetch-Site": "Cross-Site"}, 403),
    ("POST", {"Origin": "http://localhost:9477", "Sec-Fetch-Site": "cross-site"}, 403),
    ("DELETE", {"Origin": "http://evil.example"}, 403),
    ("GET", {"Origin": "http://evil.example"}, 200),
    ("GET", {"Sec-Fetch-Site": "cross-site"}, 200), ("HEAD", {"Origin": "null"}, 200),
    ("OPTIONS", {"Origin": "null"}, 204),
])
@pytest.mark.parametrize("mode", ["named", "guarded"])
def test_other_sites_may_read_but_change_nothing(
    request, mode, method, headers, status
):
    daemon: Served = request.getfixturevalue(mode)
    path, body = "/api/runs", None
    if method == "POST":
        path, body = "/api/runs/bulk/cancel", {"ids": [tr.ulid_text(1)]}
    if method == "DELETE":
        path = "/api/tasks/a/runs/" + tr.ulid_text(1)
    sent = {"Host": "localhost:9477", **headers}
    reply = daemon.request(method, path, body, sent)
    assert reply.status == status
    assert "Access-Control-Allow-Origin" not in reply.headers
    if status == 403:
        assert "other sites" in reply.json["detail"]


# -- at the Unix socket


def make_short_folder():
    """A folder for Unix sockets, whose paths must be short."""
    usual = tempfile.gettempdir()
    return tempfile.TemporaryDirectory(dir=usual if len(usual) < 40 else "/tmp")


@pytest.fixture
def short_folder():
    """Such a folder."""
    with make_short_folder() as folder:
        yield Path(folder)


@pytest.fixture
def by_socket(serve, short_folder):
    """Start daemons that listen at a Unix socket and at no port."""
    numbers = itertools.count()

    def start(tasks, *flags, **variables):
        path = short_folder / f"socket{next(numbers)}"
        own = ("--port", "none", "--socket", str(path))
        daemon: Served = serve(tasks, *own, *flags, **variables)
        return daemon

    return start


def test_socket_serves_its_own_user_without_a_token_under_any_host(by_socket):
    mask = os.umask(0)
    try:
        daemon = by_socket({"ok": {"run": "echo ok"}}, TASKRUNNERD_TOKEN="s3cret")
    finally:
        os.umask(mask)
    assert os.stat(daemon.socket).st_mode & 0o777 == 0o600
    assert daemon.url == "" and daemon.get("/api/info").json["auth_required"]
    named = daemon.get("/api/info", Host="rebound.example").json
    assert named["$schema"] == "http://rebound.example/schemas/Info.json"
    assert daemon.raw(daemon.run("ok")) == b"ok\n"
    sent = {"Host": "localhost", "Origin": "http://evil.example"}
    assert daemon.request("POST", "/api/reload", headers=sent).status == 403
    # Without a Host, which HTTP/1.0 allows.
    raw = daemon.exchange(b"GET /api/info HTTP/1.0\r\n\r\n")
    assert b'"http://localhost/schemas/Info.json"' in raw
    path = daemon.socket
    assert daemon.end() == 0
    assert not os.path.exists(path)


def test_socket_that_somebody_removed_is_made_again(by_socket, monkeypatch):
    monkeypatch.setattr(tr, "SIGN_OF_LIFE_S", 0.02)
    daemon = by_socket({"ok": {"run": "true"}})
    said, log = "socket was removed, made again", daemon.log.read_text
    for count in (1, 2):
        os.unlink(daemon.socket)
        within(DEADLINE_S, lambda n=count: log().count(said) == n, "it listens again")
        assert os.stat(daemon.socket).st_mode & 0o777 == 0o600
        assert daemon.run("ok")["end_reason"] == "success"
    path = daemon.socket
    assert daemon.end() == 0
    assert not os.path.exists(path)


def test_socket_beside_the_port_leaves_the_token_to_the_port(serve, short_folder):
    path = short_folder / "s"
    flags = ("--socket", str(path))
    daemon = serve({"ok": {"run": "true"}}, *flags, TASKRUNNERD_TOKEN="s3cret")
    assert daemon.socket == str(path) and daemon.port
    assert daemon.get("/api/info", 401).json["status"] == 401
    if shutil.which("curl"):
        command = ["curl", "-sS", "--unix-socket", path, "http://localhost/api/info"]
        sent = subprocess.run(command, stdout=subprocess.PIPE, check=True)
        assert json.loads(sent.stdout)["pid"] == daemon.process.pid
    daemon.port = 0
    assert daemon.get("/api/info").json["pid"] == daemon.process.pid


@pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="needs SO_PEERCRED")
def test_socket_knows_its_owner_and_root(monkeypatch):
    own = os.geteuid()
    with contextlib.ExitStack() as stack:
        ends = [stack.enter_context(end) for end in socket.socketpair(socket.AF_UNIX)]
        assert tr._is_owner(ends[0])
        monkeypatch.setattr(tr.os, "geteuid", lambda: own + 1)
        assert tr._is_owner(ends[0]) is (own == 0)


@NEEDS_ROOT
@pytest.mark.parametrize("token", ["", "s3cret"])
def test_socket_lets_other_users_in_only_with_the_token(by_socket, short_folder, token):
    daemon = by_socket({"ok": {"run": "true"}}, TASKRUNNERD_TOKEN=token)
    # Somebody has opened it to others.
    os.chmod(short_folder, 0o711)
    os.chmod(daemon.socket, 0o666)

    def ask(path, **headers):
        connection = daemon.connect()
        os.seteuid(65534)
        try:
            connection.connect()
        except PermissionError:
            pytest.skip("the temporary folder is closed to other users")
        finally:
            os.seteuid(0)
        with contextlib.closing(connection):
            return daemon.request("GET", path, None, headers, connection)

    assert ask("/healthz").status == 200
    assert ask("/api/info").status == (401 if token else 403)
    assert ask("/api/info", Authorization="Bearer wrong").status in (401, 403)
    if token:
        assert ask("/api/info", Authorization="Bearer s3cret").status == 200
    assert daemon.get("/api/info").json["pid"] == daemon.process.pid


def test_socket_client_that_hangs_up_frees_its_thread(by_socket, fifos):
    daemon = by_socket({"hold": HELD})
    path = fifos()
    body = json.dumps({"params": {"fifo": path}}).encode()
    request = head(
        "POST /api/tasks/hold/run?wait=true HTTP/1.1", f"Content-Length: {len(body)}"
    )
    with daemon.dial() as client:
        client.sendall(request + body)
        within(DEADLINE_S, lambda: waiting(daemon) == 1, "a waiting request")
    within(DEADLINE_S, lambda: waiting(daemon) == 0, "the request given up")
    let_go(path)


def test_socket_of_a_killed_daemon_is_replaced(by_socket):
    daemon = by_socket({"ok": {"run": "true"}})
    daemon.end(signal.SIGKILL)
    assert os.path.exists(daemon.socket)
    daemon.start()
    assert daemon.run("ok")["end_reason"] == "success"


def test_socket_that_cannot_be_made_is_69_and_named(short_folder):
    write_config(short_folder, {"tasks": {"ok": {"run": "true"}}})
    (short_folder / "file").write_text("mine")
    with socket.socket(socket.AF_UNIX) as taken:
        taken.bind(str(short_folder / "taken"))
        taken.listen(1)
        for path, reason in (
            ("file", "a file that is no socket"),
            ("taken", "another program listens there"),
            ("nowhere/s", "No such file or directory"),
            ("x" * tr.SOCKET_PATH_MAX_BYTES, "the path is too long"),
        ):
            told = call(short_folder, "--port", "none", "--socket", path)
            assert (told.code, told.out) == (69, "")
            assert f"cannot listen on --socket {path}: " in told.err
            assert reason in told.err and "Traceback" not in told.err
    assert (short_folder / "file").read_text() == "mine"
    assert (short_folder / "taken").exists()


def test_socket_of_two_daemons_at_once_is_for_one(short_folder, monkeypatch):
    monkeypatch.setattr(tr, "LOCK_WAIT_S", DEADLINE_S)
    path = str(short_folder / "s")
    for _ in range(20):
        with socket.socket(socket.AF_UNIX) as killed:
            killed.bind(path)

        def listen():
            try:
                return tr.listen_on_path(path)
            except OSError as error:
                return error.errno

        asked = [in_thread(listen) for _ in range(4)]
        found = [join() for join in asked]
        (listener,) = [one for one in found if isinstance(one, tr.Listener)]
        assert found.count(errno.EADDRINUSE) == 3
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(path)
            listener.socket.accept()[0].close()
        listener.close()
        assert not os.path.exists(path)


def test_socket_that_somebody_has_put_another_in_place_of_stays(short_folder):
    path = str(short_folder / "s")
    listener = tr.listen_on_path(path)
    os.rename(path, path + ".old")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(path)
        listener.close()
        assert os.path.exists(path)
    # And a folder that is gone is nothing to fail for.
    listener = tr.listen_on_path(str(short_folder / "t"))
    os.rename(short_folder, f"{short_folder}.gone")
    listener.close()
    os.rename(f"{short_folder}.gone", short_folder)


def test_socket_whose_folder_stays_locked_is_refused(short_folder, monkeypatch):
    monkeypatch.setattr(tr, "LOCK_WAIT_S", 0)
    path = str(short_folder / "s")
    with tr._folder_locked(path), pytest.raises(BlockingIOError):
        tr.listen_on_path(path)
    tr.listen_on_path(path).close()


# -- TLS


# For tests only: localhost and 127.0.0.1, valid from 2020 to 2100, signed by itself.
CERTIFICATES = (
    """\
-----BEGIN CERTIFICATE-----
MIIBVjCB/KADAgECAgEBMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAgFw0yMDAxMDEwMDAwMDBaGA8yMTAwMDEwMTAwMDAwMFowFDESMBAGA1UEAwwJ
bG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAE2lY0AveylVJpQsfq
rpmfsVvOlE91AvzukmFiJiKxUK+aDkQpLa5YTX71bf8+I4nuqzbrNrjS21dxMtm6
mfRgY6M9MDswGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMB0GA1UdDgQWBBSE
7JzQM0pBdCYWjwtiU+ULHrscuTAKBggqhkjOPQQDAgNJADBGAiEAoREll6JJiLtJ
CQhjaR9BW6Y8eWLW7TZlU8NIdoArjRkCIQCzb30dmN2xqOrjZOameDRInPFdKLVK
1k1Pw0vK7LyHBw==
-----END CERTIFICATE-----
""",
    """\
-----BEGIN CERTIFICATE-----
MIIBVTCB/KADAgECAgECMAoGCCqGSM49BAMCMBQxEjAQBgNVBAMMCWxvY2FsaG9z
dDAgFw0yMDAxMDEwMDAwMDBaGA8yMTAwMDEwMTAwMDAwMFowFDESMBAGA1UEAwwJ
bG9jYWxob3N0MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAESHsGpPrYr22uCWQ1
kwf0ghRwx64CMVdaL+h6g2y58UYijncYTF/sVzP1FLk8DezsOSlF1G8smsYIyjKU
K/cAK6M9MDswGgYDVR0RBBMwEYIJbG9jYWxob3N0hwR/AAABMB0GA1UdDgQWBBTE
oS9qiqWI1oOtrpKWS/mI1gko+zAKBggqhkjOPQQDAgNIADBFAiEAmGrhOr54qdsd
xHCp2LFV7Na5uLyiFcVs6rOl+5Vt6ToCIB+A2yLS7qA76Pj23DupD0XACE+dabFo
deWWM0vnjuY/
-----END CERTIFICATE-----
""",
)
TLS_KEYS = (
    """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFvNAQdrIIUvLRIZX
bE0Bg/cEFIkbqr4S1SWkapAOUIyhRANCAATaVjQC97KVUmlCx+qumZ+xW86UT3UC
/O6SYWImIrFQr5oORCktrlhNfvVt/z4jie6rNus2uNLbV3Ey2bqZ9GBj
-----END PRIVATE KEY-----
""",
    """\
-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgj/LIx2LD9ky4R+ma
nlduYll8CuPT7fOW0AFD4L6sOs2hRANCAARIewak+tivba4JZDWTB/SCFHDHrgIx
V1ov6HqDbLnxRiKOdxhMX+xXM/UUuTwN7Ow5KUXUbyyaxgjKMpQr9wAr
-----END PRIVATE KEY-----
""",
)
LOCKED_KEY = """\
-----BEGIN EC PRIVATE KEY-----
Proc-Type: 4,ENCRYPTED
DEK-Info: AES-128-CBC,99DEE9AF4607DE71C7AA9C9765885531

SY/NXKUHX0swwJCH8CnjXC6i6QS6gXxe8wHmX+rALolWllJHlUq6bGKvD39cxeh/
Sa621SbIq9cFRu0uXCcSpXgXJ1/pr+phuEImb6+BWwOxLTijnlvn8GptGmU4sj5F
4rCIWrUZ36LaKyz7zemOhBW24VNjnHR1HzUhRYXmTQA=
-----END EC PRIVATE KEY-----
"""


@pytest.fixture
def by_tls(serve, tmp_path):
    """Start daemons that speak TLS; the files are cert.pem and key.pem, above them."""
    write_certificate(tmp_path, 0)

    def start(tasks, *flags, **variables):
        own = ("--tls-cert", "../cert.pem", "--tls-key", "../key.pem")
        daemon: Served = serve(tasks, *own, *flags, **variables)
        assert daemon.url == f"https://127.0.0.1:{daemon.port}"
        daemon.tls = trusting(0)
        return daemon

    return start


def write_certificate(folder, number, key=""):
    """Write one of the certificates, and its key or another text."""
    (folder / "cert.pem").write_text(CERTIFICATES[number])
    (folder / "key.pem").write_text(key or TLS_KEYS[number])


def trusting(number):
    """A client's side that takes one certificate and no other."""
    return ssl.create_default_context(cadata=CERTIFICATES[number])


def made_tls(folder):
    """A server's side, made of files."""
    write_certificate(folder, 0)
    return tr.tls_context(str(folder / "cert.pem"), str(folder / "key.pem"))


def speaks_with(daemon, number):
    """Whether the daemon shows that certificate."""
    daemon.tls = trusting(number)
    try:
        daemon.dial().close()
    except ssl.SSLCertVerificationError:
        return False
    return True


def test_tls_serves_requests_streams_and_large_answers(by_tls):
    large = "yes 0123456789abcdef | head -c 3000000"
    daemon = by_tls({"large": {"run": large}}, TASKRUNNERD_TOKEN="s3cret")
    daemon.token = "s3cret"
    with contextlib.closing(daemon.connect()) as connection:
        for _ in range(3):
            info = daemon.request("GET", "/api/info", connection=connection).json
            schema = f"https://127.0.0.1:{daemon.port}/schemas/Info.json"
            assert info["$schema"] == schema
    with daemon.events("/api/runs/stream") as events:
        assert next(events).name == "ping"
        run = daemon.run("large")
        created = next(event for event in events if event.name == "run.created")
        assert created.data["run"]["id"] == run["id"]
    assert len(daemon.raw(run)) == 3_000_000
    body = b'{"params": {"NOBODY": "%s"}}' % (b"x" * 600_000)
    reply = daemon.request("POST", "/api/tasks/large/run", body)
    assert reply.status == 422
    # The end is said, and not only seen.
    with daemon.dial() as client:
        client.sendall(LAST)
        assert client.suppress_ragged_eofs
        client.suppress_ragged_eofs = False
        assert split_answers(read_all(client))[0].status == 200


@NEEDS_PROC
def test_daemon_without_tls_does_without_openssl(serve, by_tls, monkeypatch):
    script = "import sys; print('ssl' in sys.modules)"
    bare = subprocess.run([sys.executable, "-c", script], capture_output=True)
    if bare.stdout != b"False\n":
        pytest.skip("this Python has OpenSSL from the start")
    monkeypatch.setattr(Served, "is_fresh", True)
    plain, secure = (start({"ok": {"run": "true"}}) for start in (serve, by_tls))
    for daemon, has_openssl in ((plain, False), (secure, True)):
        maps = Path(f"/proc/{daemon.process.pid}/maps").read_text()
        assert ("libssl" in maps or "/_ssl." in maps) is has_openssl


def test_tls_is_not_for_the_socket(by_tls, short_folder):
    daemon = by_tls({"ok": {"run": "true"}}, "--socket", str(short_folder / "s"))
    assert daemon.get("/healthz").json
    daemon.port, daemon.tls = 0, None
    assert daemon.get("/api/info").json["$schema"].startswith("http://")


def test_tls_is_1_2_and_up(by_tls, tmp_path):
    paths = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    daemon = by_tls({"ok": {"run": "true"}})
    assert tr.tls_context(*paths).minimum_version == ssl.TLSVersion.TLSv1_2
    for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
        daemon.tls.minimum_version = daemon.tls.maximum_version = version
        with daemon.dial() as client:
            assert client.version() == version.name.replace("_", ".")


def test_plain_http_at_the_tls_port_is_told_so(by_tls):
    daemon = by_tls({"ok": {"run": "true"}})
    daemon.tls, tls = None, daemon.tls
    (answer,) = split_answers(daemon.exchange(healthz()))
    assert answer.status == 400 and "https://" in answer.problem["detail"]
    assert answer.headers["connection"] == "close"
    # Neither HTTP nor TLS, or no more than a beginning: closed, and that is all.
    assert daemon.exchange(b"\x16\x03\x01\x00\x05hello") != b""
    with daemon.dial() as client:
        client.sendall(b"\x16\x03")
    daemon.dial().close()
    daemon.tls = tls
    assert daemon.get("/healthz").json
    assert not log_lines(daemon, "error")


@pytest.mark.parametrize("begun", [b"", b"\x16\x03\x01"])
def test_tls_handshake_that_does_not_come_is_given_up_and_delays_nobody(
    in_process, tmp_path, monkeypatch, begun
):
    tls = made_tls(tmp_path)
    server = tr.Server(("127.0.0.1", 0), tr.Options(), tls=tls)
    server.daemon = in_process({"ok": {"run": "true"}})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with contextlib.ExitStack() as stack:
        stack.callback(server.stop_listening)

        def dial():
            place = server.listeners[0].socket.getsockname()
            client = socket.create_connection(place, DEADLINE_S)
            return stack.enter_context(client)

        dial().sendall(begun)
        within(DEADLINE_S, lambda: server.unanswered, "the connection")
        shaken = trusting(0).wrap_socket(dial(), server_hostname="localhost")
        shaken.sendall(LAST)
        assert split_answers(read_all(shaken))[0].status == 200
        shaken.close()
        monkeypatch.setattr(tr, "HEADER_TIMEOUT_S", 0.05)
        silent = dial()
        silent.sendall(begun)
        assert silent.recv(100) == b""


def test_tls_client_that_hangs_up_frees_its_thread(by_tls, fifos):
    daemon = by_tls({"hold": HELD}, "--heartbeat", "50ms")
    path = fifos()
    body = json.dumps({"params": {"fifo": path}}).encode()
    request = head(
        "POST /api/tasks/hold/run?wait=true HTTP/1.1", f"Content-Length: {len(body)}"
    )
    with daemon.dial() as client:
        client.sendall(request + body)
        assert client.recv(13) == b"HTTP/1.1 201 "
        # The head and then blanks, each in a chunk of its own.
        raw = b""
        while b"\r\n\r\n1\r\n \r\n1\r\n \r\n" not in raw:
            raw += client.recv(65536)
        assert waiting(daemon) == 1
    within(DEADLINE_S, lambda: waiting(daemon) == 0, "the request given up")
    let_go(path)


@pytest.mark.parametrize("secure", [False, True])
def test_hang_up_is_noticed_where_the_kernel_does_not_tell(
    tmp_path, monkeypatch, secure
):
    tls = made_tls(tmp_path)
    monkeypatch.delattr(tr.select, "POLLRDHUP", raising=False)
    monkeypatch.setattr(tr, "_POLL_GONE", tr.select.POLLERR)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        wire = tr._Wire(ours)
        if secure:
            shaken = in_thread(lambda: wire.begin_tls(tls))
            client = trusting(0)
            client.maximum_version = ssl.TLSVersion.TLSv1_2
            theirs = client.wrap_socket(theirs, server_hostname="localhost")
            shaken()
        assert wire.look() == (True, False)
        theirs.sendall(healthz())
        assert wire.look() == (True, False)
        assert wire.receive_head().path == "/healthz"
        assert wire.look() == (True, False)
        theirs.close()
        assert wire.look() == (True, True)
        wire.close()


def test_tls_connections_beyond_the_limit_get_an_alert(by_tls):
    daemon = by_tls({"ok": {"run": "true"}}, "--max-connections", "4")
    tls, daemon.tls = daemon.tls, None
    with contextlib.ExitStack() as stack:
        # None of them has shaken hands.
        for _ in range(4):
            stack.enter_context(daemon.dial())
        within(DEADLINE_S, lambda: daemon.exchange(b"") == tr._TLS_REFUSAL, "full")
        daemon.tls = tls
        with pytest.raises(ssl.SSLError, match=r"(?i)alert internal error"):
            daemon.dial()

    def is_in():
        try:
            return daemon.get("/healthz").status == 200
        except OSError:
            return False

    within(DEADLINE_S, is_in, "room again")
    assert len(log_lines(daemon, "too many connections")) == 1


def test_tls_files_are_loaded_anew_by_a_reload_or_refused(by_tls, tmp_path):
    daemon = by_tls({"old": {"run": "true"}})
    with contextlib.closing(daemon.connect()) as connection:
        assert daemon.request("GET", "/healthz", connection=connection).status == 200
        write_certificate(tmp_path, 1)
        daemon.process.send_signal(signal.SIGHUP)
        within(DEADLINE_S, lambda: speaks_with(daemon, 1), "the new certificate")
        # Who is connected stays so.
        assert daemon.request("GET", "/healthz", connection=connection).status == 200
    write_certificate(tmp_path, 0, key="nothing")
    daemon.write_tasks({"new": {"run": "true"}})
    daemon.process.send_signal(signal.SIGHUP)
    within(DEADLINE_S, lambda: log_lines(daemon, "not reloaded fault="), "a fault")
    refused = daemon.post("/api/reload", status=422)
    fault = "../key.pem: --tls-key: no -----BEGIN PRIVATE KEY----- in it; write PEM"
    assert refused.faults == [("--tls-key", fault)]
    assert fault in log_lines(daemon, "not reloaded")[0]
    assert speaks_with(daemon, 1)
    assert [task["name"] for task in daemon.get("/api/tasks").json] == ["old"]
    told = call(daemon.folder, "reload")
    assert (told.code, told.err) == (78, fault + "\n")
    write_certificate(tmp_path, 0)
    told = call(daemon.folder, "reload")
    assert (told.code, json.loads(told.out)["added"]) == (0, ["new"])
    assert speaks_with(daemon, 0)


def test_upgrade_keeps_tls_and_is_refused_with_files_that_do_not_work(by_tls, tmp_path):
    daemon = by_tls({"ok": {"run": "true"}})
    (tmp_path / "key.pem").write_text(TLS_KEYS[1])
    assert "not the key of the certificate" in upgrade(daemon, 78)
    assert daemon.run("ok")["end_reason"] == "success"
    write_certificate(tmp_path, 1)
    assert f"listens on {daemon.url}\n" in upgrade(daemon)
    assert speaks_with(daemon, 1)
    assert daemon.run("ok")["end_reason"] == "success"


@pytest.mark.parametrize("cert, key, code, message", [
    ("cert", "", 64, "--tls-cert and --tls-key: give both or none"),
    ("", "key", 64, "--tls-cert and --tls-key: give both or none"),
    ("none", "key", 78, "none: --tls-cert: No such file or directory"),
    ("cert", ".", 78, ".: --tls-key: Is a directory"),
    ("key", "key", 78, "key: --tls-cert: no -----BEGIN CERTIFICATE----- in it"),
    ("cert", "cert", 78, "cert: --tls-key: no -----BEGIN PRIVATE KEY----- in it"),
    ("cert", "other", 78, "other: --tls-key: it is not the key of the certificate"),
    ("cert", "locked", 78, "locked: --tls-key: it needs a passphrase"),
    ("cert", "cut", 78, "cut: --tls-key: "),
])
def test_tls_files_that_do_not_work_are_named(tmp_path, cert, key, code, message):
    write_config(tmp_path, {"tasks": {"ok": {"run": "true"}}})
    for name, text in (
        ("cert", CERTIFICATES[0]), ("key", TLS_KEYS[0]), ("other", TLS_KEYS[1]),
        ("locked", LOCKED_KEY), ("cut", TLS_KEYS[0][:90]),
    ):  # fmt: skip
        (tmp_path / name).write_text(text)
    flags = [f"--tls-cert={cert}", f"--tls-key={key}"]
    told = call(tmp_path, "--port", "0", *flags)
    assert (told.code, told.out) == (code, "")
    assert message in told.err and "Traceback" not in told.err
    assert not (tmp_path / ".taskrunnerd").exists()


# -- waiting


def waiting(daemon):
    """How many requests are being answered, without the one that asks."""
    count: int = daemon.get("/api/system").json["http_waiting"]
    return count - 1


def test_client_that_hangs_up_frees_its_thread_and_the_run_goes_on(shared, fifo):
    body = json.dumps({"params": {"fifo": str(fifo)}})
    path = "/api/tasks/wait-for-fifo/run?wait=true&wait_timeout=3600"
    fields = ("Content-Type: application/json", f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", shared.port), DEADLINE_S) as client:
        client.sendall(head(f"POST {path} HTTP/1.1", *fields) + body.encode())
        made = "/api/runs?status=running&task_name=wait-for-fifo"
        (run,) = within(DEADLINE_S, lambda: shared.get(made).json["runs"], "the run")
    within(DEADLINE_S, lambda: waiting(shared) == 0, "the request given up")
    assert shared.run_now(run)["status"] == "running"
    fifo.write_bytes(b"more")
    assert shared.ended(run)["end_reason"] == "success"


CLIENTS = 1000


@pytest.fixture
def many_files():
    """Room for CLIENTS connections in this process and the daemons it starts."""
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = max(soft, 2 * CLIENTS)
    if hard != resource.RLIM_INFINITY and hard < wanted:
        pytest.skip(f"needs {wanted} open files, may have {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_thousand_clients_wait_at_once_and_all_are_answered(
    many_files, serve, fifo, monkeypatch
):
    # So many that look for their clients as often as in other tests do little else.
    monkeypatch.setattr(tr, "HANGUP_CHECK_S", SHIPPED_HANGUP_CHECK_S)
    run = f"echo started; cat {fifo}"
    tasks = {"block": {"run": run, "queue_max": CLIENTS}}
    daemon = serve(tasks)
    first = daemon.trigger("block")
    path = f"/api/tasks/block/runs/{first['id']}/log/stream"
    ask = head(f"GET {path} HTTP/1.1", "Connection: close")
    wait = head(
        "POST /api/tasks/block/run?wait=1&wait_timeout=3600 HTTP/1.1",
        "Connection: close",
    )
    with contextlib.ExitStack() as stack:
        clients = []
        for number in range(CLIENTS):
            address = ("127.0.0.1", daemon.port)
            client = socket.create_connection(address, DEADLINE_S)
            stack.enter_context(client)
            client.sendall(wait if number % 2 else ask)
            clients.append(client)
        within(DEADLINE_S, lambda: waiting(daemon) == CLIENTS, "all of them wait")
        # A request waits a moment before its run is queued, and the run before it is
        # on the disk, where the bulk operation looks.
        path = "/api/runs?status=pending&limit=1"
        within(
            DEADLINE_S,
            lambda: daemon.get(path).json["total"] == CLIENTS // 2,
            "all runs are queued",
        )
        # Those behind the run are taken out of the queue, and it ends by itself.
        pending = {"match_all": True, "filter": {"status": "pending"}}
        daemon.post("/api/runs/bulk/cancel", pending)
        fifo.write_bytes(b"the end")
        for number, client in enumerate(clients):
            received = b"".join(iter(lambda c=client: c.recv(65536), b""))
            if number % 2:
                (answer,) = split_answers(received)
                ended = json.loads(answer.body)
                assert (answer.status, ended["end_reason"]) == (201, "stopped")
            else:
                assert b"the end" in received and b"event: done" in received
    within(DEADLINE_S, lambda: waiting(daemon) == 0, "nobody waits")
    assert daemon.ended(first)["end_reason"] == "success"


# -- hostile and unlucky clients


def refusal(raw):
    """The one answer of a connection that was refused: 503, when to come again."""
    (answer,) = split_answers(raw)
    assert answer.status == 503, answer
    assert answer.headers["connection"] == "close"
    assert int(answer.headers["retry-after"]) == tr.RETRY_AFTER_S
    assert answer.problem["detail"]
    return answer


def read_all(client):
    """What comes until the daemon closes the connection."""
    return b"".join(iter(lambda: client.recv(65536), b""))


def connected(daemon, stack):
    """A connection that has been answered once, and stays open."""
    client = socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S)
    stack.enter_context(client)
    client.sendall(healthz())
    assert client.recv(65536).startswith(b"HTTP/1.1 200")
    return client


def log_lines(daemon, text):
    """The lines of the daemon's log that hold a text."""
    return [line for line in daemon.log.read_text().splitlines() if text in line]


def test_connections_beyond_the_limit_are_told_and_delay_nobody(serve):
    daemon = serve({"true": {"run": "true"}}, "--max-connections", "8")
    with contextlib.ExitStack() as stack:
        clients = [connected(daemon, stack) for _ in range(8)]
        # More than are kept until they have read it, and most of them never read.
        for _ in range(3 * tr.REFUSED_KEPT):
            address = ("127.0.0.1", daemon.port)
            stack.enter_context(socket.create_connection(address, DEADLINE_S))
        assert daemon.get("/api/info", 503).headers["Connection"] == "close"
        refusal(daemon.exchange(b""))
        body = b"x" * 30_000
        fields = f"Content-Length: {len(body)}"
        request = head("POST /api/tasks/true/run HTTP/1.1", fields) + body
        refusal(daemon.exchange(request))
        for client in clients:
            client.sendall(LAST)
            assert split_answers(read_all(client))[0].status == 200

    def let_in():
        connection = daemon.connect()
        if daemon.request("GET", "/healthz", connection=connection).status == 200:
            return connection
        connection.close()
        return None

    with contextlib.closing(within(DEADLINE_S, let_in, "room again")) as connection:
        path = "/api/tasks/true/run?wait=true"
        assert daemon.request("POST", path, connection=connection).status == 201
        runs = daemon.request("GET", "/api/runs", connection=connection).json
        assert runs["total"] == 1
    assert len(log_lines(daemon, "too many connections")) == 1


def test_requests_that_wait_beyond_three_quarters_are_told_and_start_nothing(
    serve, fifo
):
    tasks = {"block": {"run": f"cat {fifo}"}, "true": {"run": "true"}}
    # Twelve of them may wait; one connection asks, which leaves three to be refused.
    daemon = serve(tasks, "--max-connections", "16")
    run = daemon.trigger("block")
    streams = ("/api/runs/stream", f"/api/tasks/block/runs/{run['id']}/log/stream")
    wait = head("POST /api/tasks/block/run?wait=true HTTP/1.1")
    follow = [head(f"GET {path} HTTP/1.1") for path in streams]
    with contextlib.closing(daemon.connect()) as asking:

        def ask(method, path):
            return daemon.request(method, path, connection=asking).json

        def held():
            waiting_now: int = ask("GET", "/api/system")["http_waiting"] - 1
            return waiting_now

        within(DEADLINE_S, lambda: ask("GET", "/api/runs")["total"] == 1, "asking")
        with contextlib.ExitStack() as stack:
            for number in range(12):
                client = connected(daemon, stack)
                client.sendall([wait, *follow][number % 3])
                if number % 3:
                    assert client.recv(12) == b"HTTP/1.1 200"
            within(DEADLINE_S, lambda: ask("GET", "/api/runs")["total"] == 5, "waits")
            within(DEADLINE_S, lambda: held() == 12, "nobody else asks")
            live = head("POST /api/tasks/block/run HTTP/1.1", "Accept: text/plain")
            for request in (wait, *follow, live):
                refusal(daemon.exchange(request + LAST))
            assert ask("GET", "/api/runs")["total"] == 5
            # Those who do not wait are not concerned.
            assert ask("POST", "/api/tasks/true/run")["task_name"] == "true"
        within(DEADLINE_S, lambda: held() == 0, "all of them are gone")
        ended = ask("POST", "/api/tasks/true/run?wait=true")
        assert ended["end_reason"] == "success"
        asking.request("POST", "/api/runs/bulk/cancel", b'{"match_all": true}')
        assert asking.getresponse().read()
    assert len(log_lines(daemon, "too many requests wait or stream")) == 1


@pytest.mark.parametrize("files, asked, connections, holding", [
    (20_000, 2048, 2048, 1536), (1024, 2048, 768, 576), (-1, 65_536, 65_536, 49_152),
])
def test_connections_leave_a_quarter_of_the_open_files_to_the_runs(
    monkeypatch, files, asked, connections, holding
):
    soft = tr.resource.RLIM_INFINITY if files < 0 else files
    monkeypatch.setattr(tr.resource, "getrlimit", lambda _: (soft, soft))
    server = tr.Server(("127.0.0.1", 0), tr.Options(max_connections=asked))
    server.stop_listening()
    assert (server.max_connections, server.max_holding) == (connections, holding)


@pytest.mark.parametrize("part", [b"\r\n", b"X"])
def test_client_that_sends_drop_by_drop_is_closed_at_the_limit(
    serve_here, monkeypatch, part
):
    monkeypatch.setattr(tr, "HEADER_TIMEOUT_S", 0.05)
    monkeypatch.setattr(tr, "BODY_TIMEOUT_S", 0.05)
    daemon = serve_here({"true": {"run": "true"}})
    size = f"Content-Length: {tr.BODY_MAX_BYTES}"
    begin = head("POST /api/tasks/true/run HTTP/1.1", size) if part == b"X" else b""

    def closed():
        try:
            client.sendall(part)
        except OSError:
            return True
        return False

    with socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) as client:
        client.sendall(begin)
        within(DEADLINE_S, closed, "the end of a client that never finishes")
    assert daemon.get("/api/runs").json["total"] == 0


def test_half_closed_client_gets_the_answers_to_all_it_asked(shared):
    with socket.create_connection(("127.0.0.1", shared.port), DEADLINE_S) as client:
        client.sendall(healthz() + head("GET /api/none HTTP/1.1") + healthz())
        client.shutdown(socket.SHUT_WR)
        answers = split_answers(read_all(client))
    assert [answer.status for answer in answers] == [200, 404, 200]


@pytest.mark.parametrize("form, version", [
    ("application/json", "1.1"), ("application/json", "1.0"), ("text/plain", "1.1"),
    ("text/event-stream", "1.1"), ("text/event-stream", "1.0"),
])  # fmt: skip
def test_half_closed_client_that_waits_gets_its_answer(serve_here, fifo, form, version):
    daemon = serve_here({"hold": {**HELD, "run": 'read -r it <"$1"; echo "got $it"'}})
    # No silence is long enough to begin an answer.
    daemon.server.options = daemon.server.options._replace(heartbeat_s=3600)
    body = json.dumps({"params": {"fifo": str(fifo)}}).encode()
    first = f"POST /api/tasks/hold/run?wait=true&output=1 HTTP/{version}"
    with daemon.dial() as client:
        client.sendall(head(first, f"Accept: {form}", f"Content-Length: {len(body)}"))
        client.sendall(body)
        client.shutdown(socket.SHUT_WR)
        holding = daemon.server.holding
        within(DEADLINE_S, lambda: [c for c in holding if c._probed], "the probe")
        let_go(fifo, "it\n")
        answer = http.client.HTTPResponse(client)
        answer.begin()
        assert answer.status == 201 and b"got it" in answer.read()


def test_half_closed_client_that_leaves_frees_its_thread(serve_here, fifo):
    daemon = serve_here({"hold": HELD})
    daemon.server.options = daemon.server.options._replace(heartbeat_s=0.05)
    body = json.dumps({"params": {"fifo": str(fifo)}}).encode()
    first = "POST /api/tasks/hold/run?wait=true HTTP/1.1"
    with daemon.dial() as client:
        client.sendall(head(first, f"Content-Length: {len(body)}") + body)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(65536).startswith(b"HTTP/1.1 201 ")
        assert daemon.server.holding
    within(DEADLINE_S, lambda: not daemon.server.holding, "the request given up")
    let_go(fifo)


@pytest.mark.parametrize("secure", [False, True])
def test_reader_that_stops_reading_delays_nobody_and_is_cut_off(
    serve_here, monkeypatch, fifo, secure
):
    monkeypatch.setattr(tr, "SEND_TIMEOUT_S", 0.5)
    monkeypatch.setattr(tr, "SOCKET_SLACK_S", 0.2)
    line = "x" * 999
    fill = f"yes {line} | head -n 16000; cat {fifo}"
    tasks = {"fill": {"run": fill}, "true": {"run": "true"}}
    daemon = serve_here(tasks, secure=secure)
    run = daemon.trigger("fill")
    path = f"/api/tasks/fill/runs/{run['id']}/log"

    def written():
        page = daemon.get(path + "?from=-1&limit=1").json
        return bool(page["total_lines"] >= 16_000)

    within(DEADLINE_S, written, "output that no socket buffer holds")
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    client.settimeout(DEADLINE_S)
    client.connect(("127.0.0.1", daemon.port))
    if daemon.tls:
        client = daemon.tls.wrap_socket(client, server_hostname="localhost")
    with client:
        client.sendall(head(f"GET {path}/stream?from=0 HTTP/1.1"))
        # From here on it waits, until it is cut off.
        assert client.recv(12) == b"HTTP/1.1 200"
        assert daemon.run("true")["end_reason"] == "success"
        assert len(daemon.lines(run, "?from=0&limit=10")) == 10
        within(DEADLINE_S, lambda: waiting(daemon) == 0, "the reader cut off")
    fifo.write_bytes(b"the end")
    last = f"/api/runs/{run['id']}"
    within(DEADLINE_S, lambda: daemon.get(last).json["status"] == "ended", "its end")
    assert daemon.get(last).json["end_reason"] == "success"


def threads(daemon):
    """How many threads a daemon has."""
    assert daemon.process
    return len(os.listdir(f"/proc/{daemon.process.pid}/task"))


RESET = (1).to_bytes(4, sys.byteorder) + bytes(4)  # struct linger: at once


@NEEDS_PROC
def test_two_thousand_clients_that_come_and_go_leave_nothing(serve):
    daemon = serve({"true": {"run": "true"}})
    assert daemon.run("true")["end_reason"] == "success"
    files = open_files(daemon)
    parts = (b"", b"G", healthz(), head("POST /api/tasks/true/run HTTP/1.1")[:-3])
    for number in range(2000):
        with socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) as client:
            # Most of them tear the connection down, the others close it.
            if number % 8:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            client.sendall(parts[number % 4])
    # More connections to the database may be open now, each with its log.
    few = files + 2 * tr.READERS_MAX
    within(DEADLINE_S, lambda: open_files(daemon) <= few, "all are closed")
    within(DEADLINE_S, lambda: threads(daemon) < 20, "no thread is left")
    assert daemon.run("true")["end_reason"] == "success"
    assert daemon.get("/api/runs").json["total"] == 2


@NEEDS_PROC
def test_daemon_out_of_file_descriptors_says_so_once_and_goes_on(serve):
    resource = pytest.importorskip("resource")
    daemon = serve({"true": {"run": "true"}})
    assert daemon.process and daemon.run("true")["end_reason"] == "success"
    pid, room = daemon.process.pid, 8
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    few = (open_files(daemon) + room, limits[1])
    resource.prlimit(pid, resource.RLIMIT_NOFILE, few)
    address = ("127.0.0.1", daemon.port)
    with contextlib.ExitStack() as stack:
        clients = [
            stack.enter_context(socket.create_connection(address, DEADLINE_S))
            for _ in range(4 * room)
        ]
        # The first ones have a connection, all others are told.
        for client in clients[2 * room :]:
            refusal(read_all(client))
        clients[0].sendall(healthz())
        assert clients[0].recv(65536).startswith(b"HTTP/1.1 200")
        # What needs a file says that there is none, and is no bug.
        clients[1].sendall(head("GET /api/tasks/true/log/search?q=x HTTP/1.1"))
        assert clients[1].recv(65536)[9:12] in (b"200", b"503")
    assert len(log_lines(daemon, "no file descriptor is left")) == 1
    within(DEADLINE_S, lambda: daemon.exchange(LAST)[9:12] == b"200", "room again")
    resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
    assert daemon.run("true")["end_reason"] == "success"
    assert len(log_lines(daemon, "no file descriptor is left")) == 1


@NEEDS_PROC
def test_all_who_follow_a_run_get_its_end_with_few_file_descriptors(serve):
    resource = pytest.importorskip("resource")
    daemon = serve({"sleep": {"run": "echo begun; exec sleep 60"}})
    assert daemon.process
    run, pid = daemon.trigger("sleep"), daemon.process.pid
    kinds = ("text/plain", "text/event-stream")
    ends = (b"Run-End-Reason: stopped", b"event: done")
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    files, crowd = open_files(daemon), 100
    with contextlib.ExitStack() as stack:
        clients = [stack.enter_context(daemon.dial()) for _ in range(crowd)]
        for number, client in enumerate(clients):
            accept = f"Accept: {kinds[number % 2]}"
            first = f"GET /api/runs/{run['id']} HTTP/1.1"
            client.sendall(head(first, "Connection: close", accept))
        for client in clients:
            so_far = client.recv(65536)
            while b"begun" not in so_far:
                so_far += client.recv(65536)
        few = (files + crowd + 60, limits[1])
        resource.prlimit(pid, resource.RLIMIT_NOFILE, few)
        daemon.stop(run)
        for number, client in enumerate(clients):
            assert ends[number % 2] in read_all(client)
    assert not log_lines(daemon, "Traceback")


def test_stream_is_cut_without_a_bug_when_the_history_cannot_be_read(
    serve_here, monkeypatch, caplog
):
    daemon = serve_here({"true": {"run": "true"}})
    run = daemon.run("true")
    find = daemon.daemon.find_run
    looks = itertools.count()

    def fail(run_id):
        if next(looks):
            raise tr.StoreError("disk I/O error")
        return find(run_id)

    monkeypatch.setattr(daemon.daemon, "find_run", fail)
    first = f"GET /api/runs/{run['id']} HTTP/1.1"
    fields = ("Connection: close", "Accept: text/plain")
    answer = daemon.exchange(head(first, *fields))
    assert answer.startswith(b"HTTP/1.1 200") and b"\r\n0\r\n" not in answer
    complaints = [r for r in caplog.records if "disk I/O error" in r.getMessage()]
    assert [(r.levelname, r.exc_info) for r in complaints] == [("WARNING", None)]


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE])
def test_operation_without_a_file_descriptor_is_503_and_no_bug(
    serve_here, monkeypatch, caplog, number
):
    def fail(daemon, request):
        raise OSError(number, os.strerror(number))

    route = tr._STATIC["/api/info"]["GET"]
    monkeypatch.setitem(tr._STATIC["/api/info"], "GET", route._replace(operation=fail))
    daemon = serve_here({"true": {"run": "true"}})
    for _ in range(3):
        reply = daemon.get("/api/info", 503)
        assert "file descriptor" in reply.json["detail"]
        assert int(reply.headers["Retry-After"]) == tr.RETRY_AFTER_S
    assert [record.exc_info for record in caplog.records] == [None]


def test_complaint_comes_again_with_the_number_that_was_left_out(monkeypatch, caplog):
    rate_limited_log = tr._RateLimitedLog()
    for what in ("full", "full", "other", "full"):
        rate_limited_log.warn(what)
    later_s = time.monotonic() + tr.COMPLAINT_EVERY_S
    monkeypatch.setattr(time, "monotonic", lambda: later_s)
    rate_limited_log.warn("full")
    said = [record.getMessage() for record in caplog.records]
    assert said == ["full left_out=0", "other left_out=0", "full left_out=2"]


# What can be read to its end and is wrong all the same: the connection goes on.
WRONG_TARGETS = (
    "/x", "/api", "/api/", "//", "/api/tasks/none", "/api/tasks/true/run", "/%", "/%00",
    "/api/tasks/%ff/runs", "/api/tasks/../../etc", "/api/tasks/true/runs/x/log",
    "/api/runs?limit=-1", "/api/runs?limit=x", "/api/runs?sort_field=;drop",
    "/api/tasks/true/log/search", "/schemas/none.json", "/api/runs/" + "Z" * 26,
)  # fmt: skip
WRONG_BODIES = (
    b"", b"{", b"[]", b"null", b'"\xff"', b"[" * 2000, b'{"params": 1}', b"{}{}",
    b'{"ids": []}', b'{"ids": [1]}', b'{"a": 1, "a": 2}', b"\x00", b"NaN", b"1e999",
)  # fmt: skip
# What leaves nobody knowing where the next request begins.
WRONG_HEADS = (
    healthz(host=""), healthz("Host: b"), healthz("A b: 1"), healthz("A: \x01"),
    healthz("No colon"), healthz("A: 1", " folded"), healthz("Content-Length: -1"),
    healthz("Content-Length: 1e3"), healthz("Transfer-Encoding: x, chunked"),
    healthz("Content-Length: 1", "Transfer-Encoding: chunked"),
    healthz("Transfer-Encoding: chunked") + b"x\r\n", head("GET  / HTTP/1.1"),
    head("G@T / HTTP/1.1"), head("GET / HTTP/3.0"), head("GET / HTTQ/1.1"),
    head("GET x HTTP/1.1"), b"\x16\x03\x01\r\n\r\n", b"\x00\r\n\r\n", b"a\n\nb",
)  # fmt: skip


def wrong_request(rng):
    """A request that can be read to its end, and is refused."""
    method = rng.choice(("GET", "POST", "PUT", "PATCH", "BREW", "get", "!"))
    target = rng.choice(WRONG_TARGETS)
    if method == "POST":
        body = rng.choice(WRONG_BODIES)
        length = f"Content-Length: {len(body)}"
        return head("POST /api/runs/bulk/rerun HTTP/1.1", length) + body
    host = rng.choice(("localhost", "127.0.0.1", "[::1]:80", "evil.example", "a:1"))
    return head(f"{method} {target} HTTP/1.1", host=host)


def mutated(rng, raw):
    """A request with some of its bytes changed, taken out or doubled."""
    spoiled = bytearray(raw)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(spoiled))
        what = rng.randrange(3)
        if what == 0:
            spoiled[at] = rng.randrange(256)
        elif what == 1:
            spoiled[at:at] = spoiled[at : at + rng.randint(1, 9)]
        elif len(spoiled) > 20:
            del spoiled[at : at + rng.randint(1, 9)]
    return bytes(spoiled)


def test_five_thousand_malformed_requests_get_a_problem_or_a_close(serve):
    rng = random.Random(5000)
    daemon = serve({"true": {"run": "true", "api_trigger": False}})
    sent, problems = 0, 0
    while sent < 5000:
        wrong = [wrong_request(rng) for _ in range(9)]
        spoil = rng.random() < 0.5
        last = mutated(rng, wrong[0]) if spoil else rng.choice(WRONG_HEADS)
        with socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) as client:
            client.sendall(b"".join(wrong) + last)
            client.shutdown(socket.SHUT_WR)
            answers = split_answers(read_all(client))
        for request, answer in zip([*wrong, last], answers):
            if request is last and spoil and answer.status < 400:
                continue  # What was spoiled was what was wrong with it.
            assert answer.status in (*range(400, 500), 501, 505), request
            assert answer.problem, request
            problems += 1
        # Every readable one has its answer, in order; a spoiled one has it, or a close.
        assert len(answers) >= len(wrong) + (not spoil), (wrong, last, answers)
        sent += len(wrong) + 1
    assert problems >= 4750
    assert daemon.get("/api/runs").json["total"] == 0
    assert daemon.get("/healthz").status == 200
    assert not log_lines(daemon, "bug")


# ---- 15. Command line -------------------------------------------------------


class Told(NamedTuple):
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


def call(folder, *arguments, **variables):
    """Run taskrunnerd in a folder to its end: in a fork of this process, because to
    start Python takes longer than all that a command does."""

    def body():
        os.chdir(folder)
        for name in [name for name in os.environ if name.startswith("TASKRUNNERD_")]:
            del os.environ[name]
        os.environ.update(variables)
        os.dup2(out.fileno(), 1)
        os.dup2(err.fileno(), 2)
        with open(1, "w") as sys.stdout, open(2, "w") as sys.stderr:
            try:
                outcome = tr.main(arguments)
                # Otherwise it serves, and must not.
                code = outcome if isinstance(outcome, int) else 255
            except SystemExit as left:
                code = int(left.code or 0)
            tr.leave_at_once(code)

    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        command = multiprocessing.get_context("fork").Process(target=body)
        with quiet_fork():
            command.start()
        command.join(DEADLINE_S)
        if command.exitcode is None:
            command.kill()
            command.join()
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
        assert command.exitcode is not None
        return Told(command.exitcode, *texts)


BROKEN = '{"tasks": {\n"a": {"run": "true", "timeout": "abc"},\n"b": {"rnu": 1}}}'
BROKEN_FAULTS = (
    f'tasks.json:2:33: tasks.a.timeout: "abc" {DURATION}\n'
    "tasks.json:3:6: tasks.b.run: must be there: a shell script, "
    "or a list of a program and arguments\n"
    "tasks.json:3:7: tasks.b.rnu: unknown key; did you mean run?\n"
)


@pytest.mark.parametrize("arguments, variables, code, message", [
    ("--bogus", {}, 64, "--bogus"), ("bogus", {}, 64, "bogus"),
    ("--port", {}, 64, "--port"),
    ("--port x", {}, 64, '--port "x": write a number from 0 to 65535, or none'),
    ("--port none", {}, 64, "use --socket PATH"),
    ("", {"TASKRUNNERD_PORT": "none"}, 64, "use --socket PATH"),
    ("--port 65536", {}, 64, "0 to 65535"), ("--port -1", {}, 64, "--port"),
    ("", {"TASKRUNNERD_PORT": "x"}, 64, "0 to 65535"),
    ("--log-level loud", {}, 64, "write one of debug, info, warning, error"),
    ("--shutdown-timeout soon", {}, 64, '--shutdown-timeout: "soon"'),
    ("--heartbeat 0s", {}, 64, "--heartbeat"), ("--heartbeat soon", {}, 64, "--heartb"),
    ("--max-connections x", {}, 64, '--max-connections "x": write a number'),
    ("--max-connections 3", {}, 64, "from 4 to 65536"),
    ("--max-connections 65537", {}, 64, "from 4 to 65536"),
    ("", {"TASKRUNNERD_MAX_CONNECTIONS": "0"}, 64, "from 4 to 65536"),
    ("--min-free 64", {}, 64, '--min-free: "64" is not a size; write 64kb'),
    ("--config none.json", {}, 78,
     "none.json: no such file; `python taskrunnerd.py init` writes an example\n"),
    ("", {"TASKRUNNERD_CONFIG": "none.json"}, 78, "init"),
    ("--config broken.json", {}, 78,
     BROKEN_FAULTS.replace("tasks.json", "broken.json")),
    ("--host 0.0.0.0", {}, 78, "--insecure-no-auth"),
    ("--host ::", {}, 78, "--token-file"), ("--host=", {}, 78, "TASKRUNNERD_TOKEN"),
    ("", {"TASKRUNNERD_HOST": "0.0.0.0"}, 78, "--host 0.0.0.0"),
    ("--host 0.0.0.0", {"TASKRUNNERD_TOKEN": " "}, 78, "no token is set"),
    ("--host 0.0.0.0", {"TASKRUNNERD_INSECURE_NO_AUTH": "0"}, 78, "no token"),
    ("--token-file none", {}, 78, "none: No such file"),
    ("--token-file .", {}, 78, "Is a directory"),
    ("--token-file empty", {}, 78, "empty; write a token into it"),
    ("--token-file binary", {}, 78, "not UTF-8"),
    ("--token-file two", {}, 78, "has several lines; write the token alone"),
    ("", {"TASKRUNNERD_TOKEN_FILE": "none"}, 78, "none: No such file"),
])
def test_start_is_refused_and_nothing_is_made(
    tmp_path, arguments, variables, code, message
):
    write_config(tmp_path, {"tasks": {"true": {"run": "true"}}})
    (tmp_path / "broken.json").write_text(BROKEN)
    (tmp_path / "empty").write_text(" \n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "two").write_text("secret\nanother\n")
    before = sorted(os.listdir(tmp_path))
    told = call(tmp_path, *arguments.split(), **{"TASKRUNNERD_PORT": "0", **variables})
    assert told.code == code, told
    assert message in told.err and told.out == "" and "Traceback" not in told.err
    assert told.err == message or not message.endswith("\n")
    assert sorted(os.listdir(tmp_path)) == before


@pytest.mark.parametrize("setting", tr._SETTINGS, ids=lambda setting: setting.name)
def test_setting_is_the_flag_else_the_variable_else_the_default(setting, monkeypatch):
    def found(*flags):
        text: str = tr._settings(tr._parser().parse_args(flags))[setting.name]
        return text

    monkeypatch.delenv(setting.variable, raising=False)
    assert found() == setting.default
    monkeypatch.setenv(setting.variable, "from variable")
    assert found() == "from variable"
    flag = f"--{setting.name}"
    flags, text = ((flag, "from flag"), "from flag")
    if not setting.metavar:
        flags, text = ((flag,), "true")
    assert found(*flags) == text


def test_variables_serve_and_flags_win(serve):
    tasks = {"true": {"run": "true"}}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        daemon = serve(
            tasks, *("--log-level", "debug"),
            TASKRUNNERD_PORT=str(taken.getsockname()[1]), TASKRUNNERD_DATA="deep/er",
            TASKRUNNERD_LOG_LEVEL="loud", TASKRUNNERD_ALLOW_HOST="runner.example",
            TASKRUNNERD_HOST="0.0.0.0", TASKRUNNERD_INSECURE_NO_AUTH="1",
        )
    assert daemon.url.startswith("http://0.0.0.0:")
    data_dir = str((daemon.folder / "deep" / "er").resolve())
    assert daemon.get("/api/info", Host="runner.example").json["data_dir"] == data_dir


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stdout_is_one_ready_line_and_a_signal_ends_with_0(serve, number):
    daemon = serve({"hello": {"run": "echo hello; echo oops >&2"}})
    assert daemon.port > 0 and daemon.url == f"http://127.0.0.1:{daemon.port}"
    daemon.run("hello")
    assert daemon.process and daemon.process.stdout
    daemon.process.send_signal(number)
    assert daemon.process.stdout.read() == b""
    assert daemon.wait() == 0
    assert "stopped" in daemon.log.read_text()


def test_taken_port_is_69_and_named(tmp_path):
    write_config(tmp_path, {"tasks": {"true": {"run": "true"}}})
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        told = call(tmp_path, "--port", str(port))
    assert told.code == 69 and told.out == ""
    assert f"port {port}" in told.err and "ready url" not in told.err


def test_second_daemon_on_the_same_data_is_75_and_names_the_first(serve):
    daemon = serve({"true": {"run": "true"}})
    told = call(daemon.folder, "--port", "0")
    assert told.code == 75 and told.out == "" and daemon.process
    assert re.search(rf"\bpid {daemon.process.pid}\b", told.err)
    assert daemon.run("true")["end_reason"] == "success"


def test_token_file_beats_the_token_variable(serve, tmp_path):
    token = tmp_path / "token"
    token.write_text("\ufeff\n from-file \n", encoding="utf-8")
    daemon = serve(
        {"environment": {"run": "env"}},
        *("--token-file", str(token), "--host", "0.0.0.0"),
        TASKRUNNERD_TOKEN="from-variable",
    )
    assert daemon.get("/healthz").json
    daemon.token = "from-variable"
    assert daemon.get("/api/info", 401).json
    daemon.token = "from-file"
    assert b"from-variable" not in daemon.raw(daemon.run("environment"))


@NEEDS_PROC
def test_token_variable_is_not_in_the_environment_that_proc_shows(serve, monkeypatch):
    monkeypatch.setattr(Served, "is_fresh", True)
    # $PPID is the daemon.
    tasks = {"look": {"run": "tr '\\0' '\\n' </proc/$PPID/environ"}}
    daemon = serve(tasks, TASKRUNNERD_TOKEN="s3cret-token")
    daemon.token = "s3cret-token"
    for _ in range(2):
        seen = daemon.raw(daemon.run("look"))
        assert daemon.mark.encode() in seen and b"\nTASKRUNNERD_TOKEN=\n" in seen
        assert daemon.token.encode() not in seen
        upgrade(daemon)


def test_token_file_is_read_again_by_reload_and_upgrade_or_they_are_refused(
    serve, tmp_path
):
    token = tmp_path / "token"
    token.write_text("old-one")
    daemon = serve({"true": {"run": "true"}}, "--token-file", str(token))
    daemon.token = "old-one"
    token.write_text("new-one")
    assert daemon.post("/api/reload").json["added"] == []
    assert daemon.get("/api/info", 401).json
    daemon.token = "new-one"
    assert daemon.get("/api/info").json["auth_required"] is True
    token.unlink()
    fault = f"{token}: --token-file: No such file or directory"
    assert daemon.post("/api/reload", status=422).faults == [("--token-file", fault)]
    # The new program would end, and all that runs with it.
    assert fault in upgrade(daemon, 78)
    assert daemon.run("true")["end_reason"] == "success"
    token.write_text("another")
    upgrade(daemon)
    daemon.token = "another"
    assert daemon.run("true")["end_reason"] == "success"


def test_token_of_other_letters_opens(serve):
    daemon = serve({"true": {"run": "true"}}, TASKRUNNERD_TOKEN="schlüssel")
    sent = "Authorization: Bearer schlüssel"
    raw = daemon.exchange(head("GET /api/info HTTP/1.1", sent, "Connection: close"))
    assert split_answers(raw)[0].status == 200


def test_all_that_is_made_is_for_the_owner_only(serve):
    mask = os.umask(0)
    try:
        daemon = serve({"hello": {"run": "echo hello"}}, "--data", "made/state")
    finally:
        os.umask(mask)
    daemon.run("hello")
    made = daemon.folder / "made" / "state"
    paths = [made, *made.rglob("*")]
    modes = {path: path.stat().st_mode & 0o777 for path in paths}
    assert any(path.suffix == ".log" for path in paths)
    for path, mode in modes.items():
        assert mode == (0o700 if path.is_dir() else 0o600), (path, oct(mode))


def test_second_signal_does_not_wait_for_the_grace_period(serve, fifo):
    # It would take ten minutes otherwise.
    script = f"trap '' TERM; echo armed; cat {fifo}"
    tasks = {"stubborn": {"run": script, "graceful_stop": "10m"}}
    daemon = serve(tasks, "--shutdown-timeout", "10m")
    run = daemon.trigger("stubborn")
    path = f"/api/tasks/stubborn/runs/{run['id']}/log/stream"
    with daemon.events(path) as events:
        assert next(events).data["text"] == "armed"
    assert daemon.process
    daemon.process.send_signal(signal.SIGTERM)
    within(DEADLINE_S, lambda: "stopping" in daemon.log.read_text(), "stopping")
    assert daemon.end() == 0
    daemon.start()
    ended = daemon.run_now(run)
    assert (ended["end_reason"], ended["signal"]) == ("daemon_stopped", "SIGKILL")


@pytest.mark.parametrize(
    ("keep", "is_searched"), [(None, False), (0, False), (50, False), (0, True)]
)
def test_log_of_an_ended_run_is_read_although_its_index_was_lost(
    serve, keep, is_searched
):
    """As a power cut may leave it: the end is on the disk, the index is not."""
    daemon = serve({"say": {"run": "echo one; echo two; echo three >&2"}})
    run = daemon.run("say")
    index = daemon.folder / ".taskrunnerd" / "logs" / "say" / f"{run['id']}.idx"
    if keep is None:
        index.unlink()
    else:
        os.truncate(index, keep)
    if is_searched:
        hits = daemon.get("/api/tasks/say/log/search?q=t").json["hits"]
        assert [hit["text"] for hit in hits] == ["two", "three"]
    assert daemon.raw(run) == b"one\ntwo\nthree\n"
    assert [line["text"] for line in daemon.lines(run)] == ["one", "two", "three"]


# -- one request that is held


def test_wait_goes_on_by_id_until_the_run_has_ended(serve, fifos):
    daemon = serve({"hold": HELD})
    path = fifos()
    body = {"params": {"fifo": path}}
    query = "?wait=true&wait_timeout=1"
    answer = in_thread(lambda: daemon.post(f"/api/tasks/hold/run{query}", body, 201))
    runs = within(DEADLINE_S, lambda: daemon.get("/api/runs").json["runs"], "its run")
    again = daemon.get(place(runs[0]) + query)
    reply = answer()
    assert reply.json["status"] == "running"
    assert reply.headers["Retry-After"] == "0"
    where = reply.headers["Location"]
    assert (again.json["status"], again.headers["Location"]) == ("running", where)
    by_id = f"/api/runs/{reply.json['id']}?wait=true"
    waiting = [in_thread(lambda p=p: daemon.get(p)) for p in (f"{where}?wait=1", by_id)]
    let_go(path, "4\n")
    for join in waiting:
        ended = join()
        assert (ended.json["status"], ended.json["exit_code"]) == ("ended", 4)
        assert "Retry-After" not in ended.headers


def test_version_of_a_run_is_told_and_asked_for(serve, fifos):
    daemon = serve({"hold": HELD})
    paths = [fifos(), fifos()]
    first, queued = (daemon.trigger("hold", {"fifo": path}) for path in paths)
    reply = daemon.get(place(queued))
    tag = reply.headers["ETag"]
    assert reply.json["status"] == "pending"
    same = daemon.get(place(queued), 304, If_None_Match=tag)
    assert same.headers["ETag"] == tag and same.raw == b""
    assert daemon.get(place(queued), 304, If_None_Match="*").headers["ETag"] == tag
    slow = f"{place(queued)}?wait=true&wait_timeout=1"
    assert daemon.get(slow, 304, If_None_Match=tag).headers["Retry-After"] == "0"
    # Any other version is an answer at once, also with wait=true.
    now = daemon.get(f"{place(queued)}?wait=true", If_None_Match='"another"')
    assert now.json["status"] == "pending"
    changed = in_thread(
        lambda: daemon.get(f"{place(queued)}?wait=true", If_None_Match=tag)
    )
    let_go(paths[0])
    daemon.ended(first)
    assert changed().json["status"] in ("running", "ended")
    let_go(paths[1])
    assert daemon.ended(queued)["end_reason"] == "success"


@pytest.mark.parametrize("query, prefer, applied, status", [
    ("", "wait=20", "wait=20", "ended"),
    ("", "respond-async, wait=20", "wait=20", "ended"),
    ("", 'Wait="20"; foo', "wait=20", "ended"),
    ("", "respond-async", "respond-async", "running"),
    ("?wait=false", "wait=20", None, "running"),
    ("?wait=true", "respond-async", None, "ended"), ("", "wait=soon", None, "running"),
    ("", "handling=lenient", None, "running"),
])  # fmt: skip
def test_preference_is_applied_unless_the_query_says_else(
    shared, fifo, query, prefer, applied, status
):
    body = {"params": {"fifo": str(fifo)}}
    path, headers = f"/api/tasks/wait-for-fifo/run{query}", {"Prefer": prefer}
    answer = in_thread(lambda: shared.request("POST", path, body, headers))
    if status == "ended":
        let_go(fifo)
    reply = answer()
    assert reply.headers["Preference-Applied"] == applied
    assert reply.json["status"] == status
    if status != "ended":
        let_go(fifo)


@pytest.mark.parametrize("header", [
    "wait" + " " * 30_000 + "(", "wait=" + " " * 30_000 + '"" "', "wait;" * 6000,
])  # fmt: skip
def test_long_preference_does_not_stop_the_daemon(header):
    """A regular expression took a minute for it, in which no other thread ran."""
    started_s = time.thread_time()
    assert tr._preferences(header + ", respond-async")["respond-async"] == ""
    assert time.thread_time() - started_s < 5


def raw_answer(daemon, head, fifo, blanks):
    """Head and body of a held request whose program is let go after some blanks."""
    with socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) as client:
        body = json.dumps({"params": {"fifo": str(fifo)}})
        client.sendall(f"{head}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        got = b""
        while got.partition(b"\r\n\r\n")[2].count(b" ") < blanks:
            more = client.recv(65536)
            assert more, f"closed after {got!r}"
            got += more
        let_go(fifo, "5\n")
        got += b"".join(iter(lambda: client.recv(65536), b""))
    told, _, rest = got.partition(b"\r\n\r\n")
    return told.decode(), rest


def test_held_answer_begins_after_silence_and_goes_on_with_blanks(serve, fifo):
    daemon = serve({"hold": HELD}, "--heartbeat", "100ms")
    head = "POST /api/tasks/hold/run?wait=true HTTP/1.1\r\nHost: localhost"
    told, rest = raw_answer(daemon, f"{head}\r\nConnection: close", fifo, 2)
    assert told.startswith("HTTP/1.1 201 Created\r\n")
    assert "Transfer-Encoding: chunked" in told and "Location: /api/tasks/" in told
    assert 'Link: </schemas/Run.json>; rel="describedBy"' in told
    assert rest.startswith(b"1\r\n \r\n1\r\n \r\n")
    assert rest.endswith(b"\r\n0\r\n\r\n")


def test_held_client_that_resets_its_connection_is_no_bug(serve, fifo):
    daemon = serve({"hold": HELD}, "--heartbeat", "50ms")
    body = json.dumps({"params": {"fifo": str(fifo)}})
    first, length = "POST /api/tasks/hold/run?wait=1 HTTP/1.1", len(body)
    with socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S) as client:
        client.sendall(head(first, f"Content-Length: {length}") + body.encode())
        assert client.recv(65536)
        # Closing with nothing to linger for resets the connection.
        gone = struct.pack("ii", 1, 0)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, gone)
    within(DEADLINE_S, lambda: waiting(daemon) == 0, "the request given up")
    let_go(fifo)
    path = "/api/runs?status=success"
    within(DEADLINE_S, lambda: daemon.get(path).json["total"], "its end")
    assert "Traceback" not in daemon.log.read_text()


def test_held_answer_of_an_old_client_ends_with_the_connection(serve, fifo):
    daemon = serve({"hold": HELD}, "--heartbeat", "100ms")
    told, rest = raw_answer(
        daemon, "POST /api/tasks/hold/run?wait=true HTTP/1.0", fifo, 1
    )
    assert "Transfer-Encoding" not in told and "Connection: close" in told
    assert rest.startswith(b" ")
    assert json.loads(rest)["exit_code"] == 5


def test_held_connection_can_be_used_again(serve, fifo):
    daemon = serve({"hold": HELD}, "--heartbeat", "100ms")
    connection = daemon.connect()
    path, body = "/api/tasks/hold/run?wait=true", {"params": {"fifo": str(fifo)}}
    join = in_thread(
        lambda: daemon.request("POST", path, body, connection=connection)
    )
    with daemon.events("/api/runs/stream"):
        held = reach(fifo)
        within(DEADLINE_S, lambda: daemon.get("/api/system").json["http_waiting"], "it")
    finish_with(held, "6\n")
    assert join().json["exit_code"] == 6
    assert daemon.request("GET", "/healthz", connection=connection).status == 200
    connection.close()


@pytest.mark.parametrize(
    "outcome", [None, tr.Problem(404, "gone"), tr.StoreError("disk I/O error")]
)
def test_begun_answer_ends_as_a_document_or_is_cut_off(
    serve_here, monkeypatch, outcome
):
    daemon = serve_here({"true": {"run": "true"}})
    run = daemon.run("true")
    daemon.server.options = daemon.server.options._replace(heartbeat_s=0)

    def wait(run_id, timeout_s, still_there, seen):
        assert still_there()
        if outcome:
            raise outcome
        return daemon.daemon.find_run(run_id)

    monkeypatch.setattr(daemon.daemon, "wait", wait)
    unchanged = f'If-None-Match: W/"{run["id"]}.ended"'
    held = head(f"GET {place(run)}?wait=true HTTP/1.1", unchanged)
    # What is wrong with later requests is told as ever.
    later = head("GET /api/none HTTP/1.1") + b"no request\r\n\r\n"
    told, _, rest = daemon.exchange(held + later).partition(b"\r\n\r\n")
    assert told.startswith(b"HTTP/1.1 200 OK\r\n")
    if outcome:
        assert rest == b"1\r\n \r\n"
        return
    begun, _, others = rest.partition(b"\r\n0\r\n\r\n")
    blank, _, chunk = begun.partition(b"\r\n \r\n")
    assert (blank, json.loads(chunk.partition(b"\r\n")[2])["id"]) == (b"1", run["id"])
    assert [answer.status for answer in split_answers(others)] == [404, 400]


NGINX = """
daemon off; master_process off; error_log stderr; pid {folder}/nginx.pid;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/a; proxy_temp_path {folder}/b;
    fastcgi_temp_path {folder}/c; uwsgi_temp_path {folder}/d; scgi_temp_path {folder}/e;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://127.0.0.1:{upstream};
            proxy_read_timeout 3s;
        }}
    }}
}}
"""


def test_wait_outlives_the_patience_of_a_proxy(serve, tmp_path):
    paths = os.environ.get("PATH", "") + ":/usr/sbin"
    program = shutil.which("nginx", path=paths) or ""
    if not program:
        pytest.skip("nginx is not here")
    daemon = serve({"slow": {"run": "sleep 4; exit 3"}}, "--heartbeat", "100ms")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    conf = tmp_path / "nginx.conf"
    conf.write_text(NGINX.format(folder=tmp_path, port=port, upstream=daemon.port))
    with open(tmp_path / "nginx.log", "wb") as log:
        nginx = subprocess.Popen([program, "-c", str(conf)], stdout=log, stderr=log)

    def ask():
        with contextlib.suppress(ConnectionRefusedError):
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE_S)
            client.request("POST", "/api/tasks/slow/run?wait=true")
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())
        assert nginx.poll() is None, (tmp_path / "nginx.log").read_text()
        return None

    try:
        status, run = within(DEADLINE_S, ask, "nginx listens")
    finally:
        nginx.terminate()
        nginx.wait()
    assert (status, run["status"], run["exit_code"]) == (201, "ended", 3)


def test_last_lines_of_output_come_with_the_run(serve):
    daemon = serve({"count": {"run": "seq 1 50; echo bad >&2; exit 2"}})
    reply = daemon.post("/api/tasks/count/run?wait=true&output=3", None, 201)
    said = [(line["n"], line["text"]) for line in reply.json["output"]]
    assert said == [(48, "49"), (49, "50"), (50, "bad")]
    assert "output" not in daemon.get(place(reply.json)).json
    again = daemon.get(f"/api/runs/{reply.json['id']}?output=1").json
    assert [line["stream"] for line in again["output"]] == ["stderr"]
    for wrong in ("0", "1001", "x"):
        refused = daemon.get(f"{place(reply.json)}?output={wrong}", 422)
        assert refused.json["errors"][0]["location"] == "query.output"


BAD_ENDS: list[tuple[dict[str, Any], str | None]] = [
    ({"run": "true"}, None),
    ({"run": "echo no; echo 'cannot open /etc/x' >&2; echo ' ' >&2; exit 3"},
     r"exit 3 after .* s; last error line: cannot open /etc/x"),
    ({"run": "exit 4"}, r"exit 4 after [0-9.]+ s"),
    ({"run": "kill -KILL $$"}, r"killed by SIGKILL after [0-9.]+ s"),
    ({"run": "kill -USR1 $$"}, r"killed by SIGUSR1 after .* s"),
    ({"run": "exec sleep 60", "timeout": "100ms"},
     r"timed out after [0-9.]+ s, stopped with SIGTERM"),
    ({"run": ["/no/such"]}, r"start failed: cannot start .*"),
    ({"run": "yes", "log_max_size": "1kb", "log_on_full": "kill_task"},
     r"log overflow: wrote more than 1.0 KB"),
]  # fmt: skip


def test_run_that_ended_badly_says_so_in_a_sentence(serve):
    daemon = serve({f"task{n}": settings for n, (settings, _) in enumerate(BAD_ENDS)})
    runs = [daemon.trigger(f"task{n}") for n in range(len(BAD_ENDS))]
    for run, (_, words) in zip(runs, BAD_ENDS):
        ended = daemon.ended(run)
        if words is None:
            assert "summary" not in ended
        else:
            assert re.fullmatch(words, ended["summary"]), ended


# -- live output from one request


SPEAK: dict[str, Any] = {
    "params": HELD["params"],
    "run": 'cat "$1"; echo oops >&2; exit 3',
    "max_concurrent": 16,
}
LIVE_FORMS = pytest.mark.parametrize("method", ["POST", "GET", "GET by id"])
TRAILERS = "Run-Id, Run-Exit-Code, Run-End-Reason"


class Live:
    """An answer as it comes, chunk by chunk, on a connection of its own."""

    def __init__(self, daemon, accept, method, path, params=None):
        self._socket = socket.create_connection(("127.0.0.1", daemon.port), DEADLINE_S)
        body = json.dumps({"params": params}).encode() if params else b""
        fields = ("Accept: " + accept, f"Content-Length: {len(body)}")
        self._socket.sendall(head(f"{method} {path} HTTP/1.1", *fields) + body)
        self._file = self._socket.makefile("rb")
        self.status = int(self._file.readline().split()[1])
        self.headers = http.client.parse_headers(self._file)
        self.trailers: dict[str, str] = {}

    def chunk(self):
        """The next chunk; empty at the end, when the trailers are there."""
        size_line = self._file.readline()
        if not size_line:
            raise http.client.IncompleteRead(b"")
        size = int(size_line, 16)
        if not size:
            self.trailers = dict(http.client.parse_headers(self._file))
            return b""
        chunk = self._file.read(size)
        assert self._file.readline() == b"\r\n"
        return chunk

    def rest(self):
        """All that is still to come."""
        return b"".join(iter(self.chunk, b""))

    def events(self):
        """The server-sent events that are still to come."""
        chunks = iter(self.chunk, b"")
        return parse_events(line for chunk in chunks for line in chunk.splitlines(True))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._file.close()
        self._socket.close()


def live(daemon, accept, method, task, params=None):
    """A new run of a task, live: by its trigger, or by a second request."""
    if method == "POST":
        return Live(daemon, accept, "POST", f"/api/tasks/{task}/run", params)
    run = daemon.trigger(task, params)
    path = f"/api/runs/{run['id']}" if method == "GET by id" else place(run)
    return Live(daemon, accept, "GET", path)


@LIVE_FORMS
def test_live_text_comes_as_it_is_written_and_trailers_tell_the_end(
    asked, fifo, method
):
    with live(asked, "text/plain", method, "speak", {"fifo": str(fifo)}) as answer:
        run_id = answer.headers["Run-Id"]
        assert answer.status == (201 if method == "POST" else 200)
        assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
        assert answer.headers["Location"] == f"/api/tasks/speak/runs/{run_id}"
        assert answer.headers["Trailer"] == TRAILERS
        assert answer.headers["Vary"] == "Accept"
        assert answer.headers["X-Accel-Buffering"] == "no"
        held = reach(fifo)
        for text in (b"one\n", b"two\n", b"not a line yet"):
            os.write(held, text)
            assert answer.chunk() == text
        os.close(held)
        assert answer.rest() == b"oops\n"
        assert answer.trailers == {
            "Run-Id": run_id, "Run-Exit-Code": "3", "Run-End-Reason": "failed",
        }  # fmt: skip
    assert asked.get(f"/api/runs/{run_id}").json["status"] == "ended"


@LIVE_FORMS
def test_live_events_come_as_they_happen(asked, fifo, method):
    form = "text/event-stream"
    with live(asked, form, method, "speak", {"fifo": str(fifo)}) as answer:
        assert answer.status == (201 if method == "POST" else 200)
        assert answer.headers["Content-Type"] == form
        assert "Trailer" not in answer.headers
        events = answer.events()
        first = next(events)
        assert (first.name, first.data["status"]) == ("run", "running")
        assert first.data["id"] == answer.headers["Run-Id"]
        held = reach(fifo)
        for number, text in enumerate(("one", "two")):
            os.write(held, text.encode() + b"\n")
            line = next(events)
            assert (line.name, line.id) == ("line", str(number))
            assert (line.data["text"], line.data["stream"]) == (text, "stdout")
        os.close(held)
        oops, done = events
    assert (oops.id, oops.data["stream"]) == ("2", "stderr")
    now = asked.get(answer.headers["Location"]).json
    del now["$schema"]
    assert (done.name, done.id, done.data) == ("done", "", now)
    assert now["exit_code"] == 3


@pytest.mark.parametrize("task, text, trailers", [
    ({"run": "true"}, b"", ("0", "success")),
    ({"run": ["./no-such-program"]}, b"", (None, "start_failed")),
    ({"run": "echo a; kill -9 $$"}, b"a\n", ("137", "failed")),
    ({"run": "echo my secret1", "secrets": {"S": "secret1"}}, b"my [redacted]\n",
     ("0", "success")),
    ({"run": "printf '\\0\\377'"}, b"\0\xff", ("0", "success")),
    ({"run": ["sleep", "60"], "timeout": "100ms"}, b"", ("143", "timeout")),
])  # fmt: skip
def test_live_run_ends_as_it_ended(serve, task, text, trailers):
    daemon = serve({"task": task})
    with live(daemon, "text/plain", "POST", "task") as answer:
        assert answer.rest() == text
        told = answer.trailers
    assert (told.get("Run-Exit-Code"), told["Run-End-Reason"]) == trailers
    run = {"id": told["Run-Id"], "task_name": "task"}
    assert daemon.raw(run) == text
    # Afterwards there is nothing to wait for.
    with Live(daemon, "text/plain", "GET", place(run)) as again:
        assert (again.rest(), again.trailers) == (text, told)
    with Live(daemon, "text/event-stream", "GET", place(run)) as again:
        first, *lines, done = again.events()
    assert first.data == done.data and done.data["end_reason"] == trailers[1]
    assert len(lines) == len(daemon.lines(run))


FAIL_ONCE = {
    "run": 'echo "attempt $TASKRUNNERD_ATTEMPT"; exit "$((1 - TASKRUNNERD_ATTEMPT))"',
    "retry_attempts": 3,
    "retry_delay": "10ms",
}


@LIVE_FORMS
def test_live_run_goes_on_with_its_next_attempt(asked, method):
    with live(asked, "text/plain", method, "once") as answer:
        assert answer.rest() == b"attempt 0\nattempt 1\n"
        told = answer.trailers
        assert told["Run-Exit-Code"] == "0" and told["Run-End-Reason"] == "success"
        last = asked.get(f"/api/runs/{told['Run-Id']}").json
        assert last["retry_of_run_id"] == answer.headers["Run-Id"]
    with live(asked, "text/event-stream", method, "once") as answer:
        events = list(answer.events())
    first_id = answer.headers["Run-Id"]
    done = events[-1]
    second_id = done.data["id"]
    assert (done.name, done.data["retry_of_run_id"]) == ("done", first_id)
    assert [e.id for e in events if e.name == "line"] == ["0", f"{second_id}:0"]
    states = [(e.data["id"], e.data["status"]) for e in events if e.name == "run"]
    assert len(states) == len(set(states))
    # All of the first up to its end, then only the second, whose start may be missed.
    at = states.index((first_id, "ended"))
    assert {run_id for run_id, _ in states[:at]} <= {first_id}
    assert {run_id for run_id, _ in states[at + 1 :]} == {second_id}


def test_live_events_go_on_after_the_last_one_seen(serve):
    script = 'seq -f "$TASKRUNNERD_ATTEMPT.%g" 1 3; exit "$((1 - TASKRUNNERD_ATTEMPT))"'
    daemon = serve({"once": {**FAIL_ONCE, "run": script}})
    last = daemon.run("once")
    path = f"/api/runs/{last['retry_of_run_id']}"

    def seen(last_id):
        sent = {} if last_id is None else {"Last_Event_ID": last_id}
        with daemon.events(path, Accept="text/event-stream", **sent) as events:
            *most, done = events
        assert (done.name, done.data["id"]) == ("done", last["id"])
        assert most[0].name == "run"
        return [(e.id, e.data["text"]) for e in most if e.name == "line"]

    whole = seen(None)
    assert [text for _, text in whole] == ["0.1", "0.2", "0.3", "1.1", "1.2", "1.3"]
    for number, (last_id, _) in enumerate(whole):
        assert seen(last_id) == whole[number + 1 :]
    for strange in ("x", "-1", f"{NOWHERE}:1", "1:1", ""):
        assert seen(strange) == whole


def test_live_events_tell_of_a_queued_run_that_starts(serve, fifos):
    daemon = serve({"hold": HELD})
    paths = [fifos(), fifos()]
    daemon.trigger("hold", {"fifo": paths[0]})
    form = "text/event-stream"
    with live(daemon, form, "POST", "hold", {"fifo": paths[1]}) as answer:
        events = answer.events()
        assert next(events).data["status"] == "pending"
        let_go(paths[0])
        assert next(events).data["status"] == "running"
        let_go(paths[1], "4\n")
        [done] = events
    assert (done.name, done.data["exit_code"]) == ("done", 4)


@pytest.mark.parametrize("form", ["text/plain", "text/event-stream"])
def test_live_run_taken_out_of_the_queue_has_no_exit_code(serve, fifo, form):
    daemon = serve({"hold": HELD})
    first = daemon.trigger("hold", {"fifo": str(fifo)})
    with live(daemon, form, "POST", "hold", {"fifo": str(fifo)}) as answer:
        where = answer.headers["Location"]
        daemon.post(f"{where}/stop")
        if form == "text/plain":
            assert answer.rest() == b""
            assert "Run-Exit-Code" not in answer.trailers
            assert answer.trailers["Run-End-Reason"] == "stopped"
        else:
            *_, done = answer.events()
            assert done.data["end_reason"] == "stopped"
    let_go(fifo)
    daemon.ended(first)


@pytest.mark.parametrize("form", ["text/plain", "text/event-stream"])
def test_live_trigger_that_is_refused_is_a_problem(ops, fifo, form):
    headers = {"Accept": form}
    with blocked(ops, "skip", fifo):
        for task, body, status in (
            ("skip", None, 409), ("no-such-task", None, 404), ("forbidden", None, 403),
            ("strict", None, 422), ("good", b"{", 400),
        ):  # fmt: skip
            reply = ops.request("POST", f"/api/tasks/{task}/run", body, headers)
            assert reply.status == status and reply.json["detail"], reply
    for path in (f"/api/tasks/good/runs/{NOWHERE}", f"/api/runs/{NOWHERE}"):
        assert ops.request("GET", path, headers=headers).status == 404


@pytest.mark.parametrize("accept, media", [
    (None, "application/json"), ("", "application/json"), ("*/*", "application/json"),
    ("text/plain", "text/plain; charset=utf-8"),
    ("TEXT/Plain ; Charset=utf-8", "text/plain; charset=utf-8"),
    ("text/event-stream", "text/event-stream"), ("text/*", "text/plain; charset=utf-8"),
    ("application/json, text/plain, */*", "application/json"),
    ("text/plain, */*", "application/json"),
    ("text/plain, */*;q=0.9", "text/plain; charset=utf-8"),
    ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
     "application/json"),
    ("application/json;q=0.5, text/plain;q=0.6", "text/plain; charset=utf-8"),
    ("application/json;q=0.6, text/plain;q=0.5", "application/json"),
    ("text/plain;q=0.5, text/event-stream", "text/event-stream"),
    ("text/plain;q=0, text/*", "text/event-stream"),
    ("text/plain;q=0", "application/json"), ("text/plain;q=0.0", "application/json"),
    ("application/json;q=0, */*;q=0.1", "text/plain; charset=utf-8"),
    ("text/plain;q=2", "application/json"), ("text/plain;q=nan", "application/json"),
    ("text/plain; Q = 0.001 ", "text/plain; charset=utf-8"),
    ("image/png", "application/json"), ("problem", "application/json"),
    ("text/plain;q=" + " " * 30_000 + "x", "application/json"),
    ("text/plain" + ";" * 30_000, "text/plain; charset=utf-8"),
])  # fmt: skip
def test_form_of_a_run_is_negotiated(ops, ten_lines, accept, media):
    headers = {} if accept is None else {"Accept": accept}
    for method in ("GET", "HEAD"):
        reply = ops.request(method, place(ten_lines), headers=headers)
        assert reply.status == 200
        assert reply.headers["Content-Type"] == media, accept
        assert reply.headers["Vary"] == "Accept"
    # Other routes have one form for all.
    listed = ops.request("GET", "/api/runs?limit=1", headers=headers)
    assert listed.headers["Content-Type"] == "application/json"


def test_live_text_of_an_old_client_is_nothing_but_the_text(ops):
    raw = ops.exchange(
        b"POST /api/tasks/two-streams/run HTTP/1.0\r\nAccept: text/plain\r\n"
        b"Connection: keep-alive\r\n\r\n"
    )
    top, _, text = raw.partition(b"\r\n\r\n")
    fields = top.decode().split("\r\n")
    names = {field.partition(":")[0] for field in fields[1:]}
    assert not {"Trailer", "Transfer-Encoding", "Content-Length"} & names
    assert "Connection: close" in fields and "Run-Id" in names
    assert sorted(text.splitlines(True)) == [b"err\n", b"out\n"]


def test_live_connection_can_be_used_again(ops):
    connection = ops.connect()
    for form in ("text/plain", "text/event-stream", "application/json"):
        path, headers = "/api/tasks/good/run?wait=true", {"Accept": form}
        reply = ops.request("POST", path, headers=headers, connection=connection)
        assert reply.status == 201 and "Connection" not in reply.headers
    connection.close()


def test_live_output_ends_when_the_time_given_is_over(asked, fifo):
    with live(asked, "text/plain", "POST", "speak", {"fifo": str(fifo)}) as answer:
        held = reach(fifo)
        os.write(held, b"so far\n")
        assert answer.chunk() == b"so far\n"
        path, run_id = answer.headers["Location"], answer.headers["Run-Id"]
        with Live(asked, "text/plain", "GET", f"{path}?wait_timeout=1") as bounded:
            assert bounded.rest() == b"so far\n"
            assert bounded.trailers == {"Run-Id": run_id}
        sent = {"Prefer": "wait=0"}
        text = asked.get(path, Accept="text/plain", **sent)
        assert (text.raw, text.headers["Preference-Applied"]) == (b"so far\n", "wait=0")
        with asked.events(path, Accept="text/event-stream", **sent) as events:
            run, line, unfinished = events
        assert (run.name, line.name, unfinished.name) == ("run", "line", "unfinished")
        assert unfinished.data["status"] == "running"
        refused = asked.get(f"{path}?wait_timeout=0", 422, Accept="text/plain")
        assert refused.faults[0][0] == "query.wait_timeout"
        os.close(held)
        assert answer.rest() == b"oops\n"


def test_live_text_goes_on_at_the_oldest_kept_when_its_reader_is_slow(
    in_process, fifos, monkeypatch
):
    monkeypatch.setattr(tr, "LOG_BLOCK_BYTES", 1000)
    script = 'seq -f "early %05.0f" 1 500; read -r x <"$1"; seq -f "late %06.0f" 1 9000'
    task = {**HELD, "run": script, "log_max_size": "20kb"}
    daemon = in_process({"hold": task})
    path = fifos()
    run = hold(daemon, "hold", path)
    chunks: Any = tr._live_text(daemon, run, tr.math.inf)
    first = next(filter(None, chunks))
    let_go(path)
    end_of(daemon, run)
    *rest, trailers = chunks
    assert trailers["Run-End-Reason"] == "success"
    lines = b"".join([first, *rest]).decode().splitlines()
    early = [line for line in lines if line.startswith("early")]
    late = [line for line in lines if line.startswith("late")]
    assert early == [f"early {n:05}" for n in range(1, len(early) + 1)]
    assert late == [f"late {n:06}" for n in range(9001 - len(late), 9001)]
    assert lines == early + late and 100 < len(late) < 2000


def test_silent_stream_says_now_and_then_that_it_is_there(
    in_process, fifos, monkeypatch
):
    monkeypatch.setattr(tr, "HANGUP_CHECK_S", 0.01)
    clock = FakeClock()
    daemon = in_process({"hold": HELD}, clock)
    path = fifos()
    run = hold(daemon, "hold", path)
    live = tr._live_events(daemon, run, (run, 0), tr.math.inf)
    assert next(live).startswith(b"event: run\n")
    text = tr._live_text(daemon, run, tr.math.inf)
    for events in (live, tr._log_events(daemon, run, 0)):
        for _ in range(2):
            assert next(events) == next(events) == b""
            clock.pass_time(tr.STREAM_COMMENT_S)
            assert next(events) == b": still here\n\n"
            assert next(text) == b"", "nothing is mixed into the text"
    let_go(path)
    end_of(daemon, run)


@pytest.mark.parametrize("form", ["text/plain", "text/event-stream"])
def test_live_client_that_hangs_up_frees_its_thread(asked, fifo, form):
    with live(asked, form, "POST", "speak", {"fifo": str(fifo)}) as answer:
        run = asked.get(answer.headers["Location"]).json
        within(DEADLINE_S, lambda: waiting(asked) == 1, "nobody else")
    within(DEADLINE_S, lambda: waiting(asked) == 0, "the request given up")
    let_go(fifo, "")
    assert asked.ended(run)["exit_code"] == 3


def test_upgrade_cuts_live_text_and_lets_events_be_resumed(serve, fifo):
    daemon = serve({"speak": SPEAK})
    form = "text/event-stream"
    with contextlib.ExitStack() as stack:
        params = {"fifo": str(fifo)}
        text = stack.enter_context(live(daemon, "text/plain", "POST", "speak", params))
        where = text.headers["Location"]
        events = stack.enter_context(daemon.events(where, Accept=form))
        held = reach(fifo)
        os.write(held, b"before\n")
        assert text.chunk() == b"before\n"
        run, line = next(events), next(events)
        assert (run.name, line.data["text"]) == ("run", "before")
        upgrade(daemon)
        with pytest.raises(http.client.IncompleteRead):
            text.rest()
        told: list[SseEvent] = []
        with contextlib.suppress(http.client.IncompleteRead):
            told.extend(events)
        assert told == []
    with daemon.events(where, Accept=form, Last_Event_ID=line.id) as events:
        assert next(events).data["status"] == "running"
        os.write(held, b"after\n")
        os.close(held)
        after, oops, done = events
    assert (after.id, after.data["text"], oops.id) == ("1", "after", "2")
    assert (done.name, done.data["exit_code"]) == ("done", 3)


def test_shutdown_ends_live_output_of_ended_runs_and_cuts_that_of_queued_ones(
    serve, fifo, monkeypatch
):
    monkeypatch.setattr(tr, "LINGER_S", DEADLINE_S)
    daemon = serve({"hold": HELD})
    params = {"fifo": str(fifo)}
    with contextlib.ExitStack() as stack:
        running, queued = (
            stack.enter_context(live(daemon, "text/plain", "POST", "hold", params))
            for _ in range(2)
        )
        held = reach(fifo)
        assert daemon.end() == 0
        os.close(held)
        assert running.rest() == b""
        assert running.trailers["Run-End-Reason"] == "daemon_stopped"
        with pytest.raises(http.client.IncompleteRead):
            queued.rest()


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_live_text_is_one_curl(asked, fifo):
    url = f"http://127.0.0.1:{asked.port}/api/tasks/speak/run"
    body = json.dumps({"params": {"fifo": str(fifo)}})
    curl = subprocess.Popen(
        ["curl", "-sN", "-D", "trailers", "-H", "Accept: text/plain", "-d", body,
         "-H", "Content-Type: application/json", "--noproxy", "*", url],
        stdout=subprocess.PIPE,
        cwd=asked.folder,
    )  # fmt: skip
    assert curl.stdout
    held = reach(fifo)
    os.write(held, b"one\n")
    assert curl.stdout.readline() == b"one\n"
    finish_with(held, "two\n")
    assert curl.communicate(timeout=DEADLINE_S)[0] == b"two\noops\n"
    assert curl.returncode == 0
    told = (asked.folder / "trailers").read_text()
    assert told.endswith("\nRun-Exit-Code: 3\nRun-End-Reason: failed\n")


# -- upgrade in place


def upgrade(daemon, code=0):
    """Run `taskrunnerd upgrade` beside a daemon; what it printed."""
    told = call(daemon.folder, "upgrade", **daemon.variables)
    assert told.code == code, (told, daemon.log.read_text())
    return told.err if code else told.out


def finish_with(held, text):
    """Answer a program that `reach` has found at its FIFO."""
    os.write(held, text.encode())
    os.close(held)


def begun(daemon, fifo, task="hold", **params):
    """A run whose program reads a FIFO, and the FIFO, opened for its answer."""
    run = daemon.trigger(task, {"fifo": str(fifo), **params})
    return run, reach(fifo)


def test_upgrade_keeps_pid_socket_children_and_every_byte(serve, fifo):
    script = f"""
        i=0
        while [ ! -e stop ]; do
            i=$((i + 1)); echo "line $i"
            [ $((i % 5)) = 0 ] && echo "error $i" >&2
        done
        echo "$i lines"; read -r code <{fifo}; exit "$code"
    """
    daemon = serve({"flood": {"run": script, "exit_codes": [9]}})
    started = daemon.get("/api/info").json["started_at"]
    run = daemon.trigger("flood")
    for _ in range(2):
        size = len(daemon.raw(run))
        within(DEADLINE_S, lambda n=size: len(daemon.raw(run)) > n, "more output")
        assert f"pid {daemon.process.pid} " in upgrade(daemon)
    info = daemon.get("/api/info").json
    assert info["pid"] == daemon.process.pid
    assert info["started_at"] > started
    (daemon.folder / "stop").touch()
    let_go(fifo, "9\n")
    ended = daemon.ended(run)
    assert (ended["end_reason"], ended["exit_code"]) == ("success", 9)
    assert ended["cpu_seconds"] > 0
    raw = daemon.raw(run)
    lines = [line for line in raw.decode().splitlines() if line.startswith("line")]
    count = len(lines)
    assert lines == [f"line {n}" for n in range(1, count + 1)]
    assert raw.count(b"error") == count // 5
    assert b"\n%d lines\n" % count in raw
    assert (ended["output_bytes"], ended["output_dropped_bytes"]) == (len(raw), 0)
    page = daemon.get(f"{place(run)}/log?from=-1").json
    assert page["total_lines"] == count + count // 5 + 1


def test_upgrade_that_cannot_trim_the_journal_ends_no_run(serve, fifo):
    daemon = serve({"hold": HELD})
    run, held = begun(daemon, fifo)
    # As a full disk would, this keeps a new journal from being written.
    (daemon.folder / ".taskrunnerd" / "processes.new").mkdir()
    assert f"pid {daemon.process.pid} " in upgrade(daemon)
    assert "not trimmed" in daemon.log.read_text()
    finish_with(held, "7\n")
    ended = daemon.ended(run)
    assert (ended["end_reason"], ended["exit_code"]) == ("failed", 7)


def test_upgrade_is_refused_on_a_full_disk(small_disk, serve, fifo):
    data = str(small_disk / "state")
    daemon = serve({"hold": HELD}, TASKRUNNERD_DATA=data, TASKRUNNERD_MIN_FREE="0b")
    run, held = begun(daemon, fifo)
    filler = fill(small_disk, 0)

    def is_ready():
        return daemon.request("GET", "/readyz").status == 200

    within(DEADLINE_S, lambda: not is_ready(), "the full disk")
    assert "0 B free on the disk" in upgrade(daemon, 78)
    filler.unlink()
    within(DEADLINE_S, is_ready, "room again")
    assert f"pid {daemon.process.pid} " in upgrade(daemon)
    finish_with(held, "0\n")
    assert daemon.ended(run)["end_reason"] == "success"


def test_upgrade_answers_those_who_wait_with_the_run_as_it_is(
    serve, fifos, monkeypatch
):
    monkeypatch.setattr(tr, "LINGER_S", DEADLINE_S)
    daemon = serve({"hold": HELD})
    path = fifos()
    query = "?wait=true&wait_timeout=300"
    waiting = in_thread(lambda: daemon.trigger("hold", {"fifo": path}, query))
    held = reach(path)
    queued = daemon.trigger("hold", {"fifo": fifos()})
    upgrade(daemon)
    run = waiting()
    assert (run["status"], run["exit_code"]) == ("running", -1)
    assert daemon.run_now(queued)["status"] == "pending"
    finish_with(held, "3\n")
    assert daemon.ended(run)["exit_code"] == 3
    daemon.stop(queued)


def test_upgrade_loads_the_tasks_anew_but_ends_runs_as_they_were_started(serve, fifos):
    old = {**HELD, "exit_codes": [7], "timeout": "1h"}
    daemon = serve({"hold": old, "gone": HELD})
    waits = fifos()
    run, held = begun(daemon, fifos())
    gone, held_gone = begun(daemon, fifos(), "gone")
    queued, dropped = (daemon.trigger(t, {"fifo": waits}) for t in ("hold", "gone"))
    daemon.write_tasks({"hold": {**HELD, "exit_codes": [8]}, "new": {"run": "true"}})
    upgrade(daemon)
    assert [task["name"] for task in daemon.get("/api/tasks").json] == ["hold", "new"]
    assert daemon.run("new")["end_reason"] == "success"
    finish_with(held, "7\n")
    assert daemon.ended(run)["end_reason"] == "success"
    let_go(waits, "7\n")
    assert daemon.ended(queued)["end_reason"] == "failed"
    finish_with(held_gone, "0\n")
    assert daemon.ended(gone)["end_reason"] == "success"
    ended = daemon.ended(dropped)
    assert (ended["end_reason"], ended.get("start_at")) == ("skipped", None)


@pytest.mark.parametrize("there", [True, False])
def test_upgrade_needs_no_memfd(monkeypatch, there):
    """Some sandboxes do not have it, and some systems."""

    def refused(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "memfd_create", refused, raising=False)
    if not there:
        monkeypatch.delattr(os, "memfd_create")
    with open(tr._unnamed_file(b"a record"), "rb") as file:
        assert (file.read(), os.get_inheritable(file.fileno())) == (b"a record", True)


SECRET_KEY = {"env": "KEY", "secret": True, "required": True}
KEPT_TASKS: dict[str, Any] = {
    "text": {**HELD, "run": 'printf "my sec"; read -r x <"$1"; printf "ret1 is out"'},
    "result": {**HELD, "run": 'printf "[1," >"$TASKRUNNERD_RESULT"; read -r x <"$1"; '
        'echo "\\"secret1\\"]" >>"$TASKRUNNERD_RESULT"'},
    "asked": {**STUBBORN, "graceful_stop": "1h"},
    "patient": {**STUBBORN, "graceful_stop": "2s"},
    "late": {**HELD, "timeout": "2s"},
    "again": {"params": [*HELD["params"], SECRET_KEY], "retry_attempts": 1,
        "run": 'read -r code <"$1" || code=0; echo "$KEY"; exit "$code"',
        "retry_delay": "0s"},
}  # fmt: skip


def test_upgrade_keeps_what_belongs_to_each_run(serve, fifos):
    """Held text, secrets, the result, stops that were asked for, limits, retries."""
    secret = {"secrets": {"S": "secret1"}}
    with_secret = {name: {**KEPT_TASKS[name], **secret} for name in ("text", "result")}
    daemon = serve({**KEPT_TASKS, **with_secret})
    path = fifos()
    again, first_try = begun(daemon, path, "again", KEY="swordfish")
    runs, held = {}, {}
    for name in ("text", "result", "asked", "patient"):
        runs[name], held[name] = begun(daemon, fifos(), name)
    runs["late"] = daemon.trigger("late", {"fifo": fifos()})
    within(DEADLINE_S, lambda: log_lines(daemon, "run started task=late"), "its start")
    for name in ("asked", "patient"):
        assert daemon.stop(runs[name]).status == 200
    daemon.write_tasks(KEPT_TASKS)
    upgrade(daemon)
    assert daemon.run_now(runs["asked"])["status"] == "running"
    # The next attempt may open it before this one's end of it is closed.
    guard = os.open(path, os.O_RDWR)
    finish_with(first_try, "1\n")
    assert daemon.ended(again)["end_reason"] == "failed"
    os.write(guard, b"0\n")
    retry = daemon.get(f"/api/runs/{again['id']}?wait=true").json
    os.close(guard)
    assert (retry["retry_attempt"], retry["retry_of_run_id"]) == (1, again["id"])
    assert (retry["end_reason"], daemon.raw(retry)) == ("success", b"[redacted]\n")
    for name, answer in (("text", "0\n"), ("result", "0\n"), ("asked", "4\n")):
        finish_with(held[name], answer)
    ended = {name: daemon.ended(run) for name, run in runs.items()}
    assert ended["text"]["end_reason"] == "success"
    assert daemon.raw(runs["text"]) == b"my [redacted] is out"
    assert ended["result"]["result"] == [1, "[redacted]"]
    assert (ended["asked"]["end_reason"], ended["asked"]["exit_code"]) == ("stopped", 4)
    late = ended["late"]
    assert (late["end_reason"], late["signal"]) == ("timeout", "SIGTERM")
    assert late["duration"] > 1.9e9
    assert ended["patient"]["signal"] == "SIGKILL"
    os.close(held["patient"])


def test_upgrade_between_two_tries_with_one_key_makes_one_run(serve):
    daemon = serve(REPEATED_TASKS)
    clients = Repeating(daemon, 4)
    clients.more(20)
    upgrade(daemon)
    clients.more(10)
    clients.end()
    clients.check()


def test_upgrade_keeps_events_counts_log_and_schedules(serve):
    seldom = {"run": "true", "cron": "@yearly", "run_on_start": True}
    daemon = serve({"ok": {"run": "true"}, "seldom": seldom})
    (started,) = within(DEADLINE_S, lambda: daemon.get("/api/runs").json["runs"], "one")
    daemon.ended(started)
    before = daemon.get("/api/tasks/seldom").json["next_run_at"]
    runs, log = "/api/runs/stream", "/api/daemon/log-stream"
    with daemon.events(runs) as events, daemon.events(log) as lines:
        assert next(events).name == "ping"
        ready = next(e for e in lines if e.data["text"].startswith("ready url="))
        first = daemon.run("ok")
        created = next(e for e in events if e.name == "run.created")
        upgrade(daemon)
    figures, route = figures_of(daemon), "/api/tasks/{task_name}/run"
    assert figure(figures, "http_requests_total", route=route, status="201") == 1
    assert figure(figures, "run_duration_seconds_count", task="ok") == 1
    with daemon.events(log, Last_Event_ID=ready.id) as lines:
        texts = (e.data["text"] for e in lines)
        told = list(itertools.takewhile(lambda t: "upgraded url=" not in t, texts))
    assert len([text for text in told if first["id"] in text]) == 2
    second = daemon.run("ok")
    with daemon.events(runs, Last_Event_ID=str(created.id)) as events:
        told = [next(events) for _ in range(6)][1:]
    assert [e.data["run"]["id"] for e in told] == [first["id"]] * 2 + [second["id"]] * 3
    # It is no start.
    assert daemon.get("/api/tasks/seldom").json["next_run_at"] == before
    assert daemon.get("/api/tasks/seldom/runs").json["total"] == 1


def test_upgrade_refuses_nobody_at_the_port_and_at_the_socket(serve, short_folder):
    path = short_folder / "s"
    daemon = serve({"ok": {"run": "true"}}, "--socket", str(path))
    at_socket = copy.copy(daemon)
    at_socket.port = 0
    over = threading.Event()

    def ask(served):
        count = 0
        while not over.is_set():
            served.get("/healthz")
            count += 1
        return count

    served = [daemon, at_socket] * 2
    askers = [in_thread(functools.partial(ask, one)) for one in served]
    inode = path.stat().st_ino
    for _ in range(2):
        assert f":{daemon.port} and {path}" in upgrade(daemon)
    over.set()
    assert all(asker() > 0 for asker in askers)
    assert path.stat().st_ino == inode
    assert daemon.run("ok")["end_reason"] == "success"
    assert daemon.end() == 0
    assert not path.exists()


def test_commands_find_the_socket_by_themselves(by_socket):
    daemon = by_socket({"old": {"run": "true"}}, TASKRUNNERD_TOKEN="s3cret")
    daemon.write_tasks({"new": {"run": "true"}})
    told = call(daemon.folder, "reload")
    assert (told.code, told.err) == (0, "")
    assert json.loads(told.out)["added"] == ["new"]
    assert f"listens on {daemon.socket}\n" in upgrade(daemon)
    os.unlink(daemon.socket)
    told = call(daemon.folder, "reload")
    assert told.code == 69 and f"{daemon.socket}: no answer: " in told.err


def test_upgrades_under_load_lose_no_run_and_no_outcome(serve):
    task = {"params": [{"arg": "code"}], "run": "echo $1; exit $1", "queue_max": 10_000}
    daemon = serve({"exit": {**task, "max_concurrent": 4}})
    over = threading.Event()
    told: dict[str, int] = {}

    def trigger(seed):
        rng = random.Random(seed)
        while not over.is_set():
            code = rng.randrange(1, 200)
            query = rng.choice(["", "?wait=true"])
            body = {"params": {"code": str(code)}}
            reply = daemon.request("POST", f"/api/tasks/exit/run{query}", body)
            assert reply.status in (201, 503), reply
            if reply.status == 201:
                told[reply.json["id"]] = code

    clients = [in_thread(functools.partial(trigger, seed)) for seed in range(4)]
    for number in range(3):
        enough = 8 * (number + 1)
        within(DEADLINE_S, lambda n=enough: len(told) >= n, "more runs")
        upgrade(daemon)
    over.set()
    for join in clients:
        join()
    for run_id, code in told.items():
        run = daemon.ended({"task_name": "exit", "id": run_id})
        assert (run["end_reason"], run["exit_code"]) == ("failed", code)
        assert "error" not in run, run
    assert daemon.get("/api/runs/summary").json["total"] == len(told)


def test_upgrade_that_cannot_work_is_refused_and_nothing_changes(tmp_path, fifo):
    daemon = Served(tmp_path, {"hold": HELD})
    whole = daemon.program = tmp_path / "taskrunnerd.py"
    source = (HERE / "taskrunnerd.py").read_text()
    whole.write_text(source)
    with contextlib.closing(daemon.start()):
        run, held = begun(daemon, fifo)
        # The command itself must still be there to ask.
        daemon.program = PROGRAM
        old = source.replace("HANDOVER_VERSION = 1", "HANDOVER_VERSION = 0")
        for text, words in (
            (source + "\nif True print('no')\n", "SyntaxError"),
            (old, "cannot take over"), ("import sys\nsys.exit(5)\n", "exit code 5"),
        ):  # fmt: skip
            whole.write_text(text)
            assert words in upgrade(daemon, 78)
        whole.write_text(source)
        daemon.write_tasks({"hold": {"rum": "true"}})
        assert "did you mean run?" in upgrade(daemon, 78)
        assert daemon.run_now(run)["status"] == "running"
        assert [t["name"] for t in daemon.get("/api/tasks").json] == ["hold"]
        finish_with(held, "6\n")
        assert daemon.ended(run)["exit_code"] == 6


@pytest.fixture
def replaceable(serve, tmp_path, fifo, monkeypatch):
    """replaceable(old, new, …): a daemon with a run, the FIFO that the run reads, and a
    program on disk that has these texts in the place of those. It may hang shortly."""

    def make(*edits):
        program = tmp_path / "next.py"
        source = (HERE / "taskrunnerd.py").read_text()
        for old, new in zip(edits[::2], edits[1::2]):
            assert old in source
            source = source.replace(old, new)
        program.write_text(source)
        argv = [sys.executable, str(program)]
        monkeypatch.setattr(tr, "own_program", lambda: argv)
        daemon = serve({"hold": HELD}, "--heartbeat", "5s")
        return daemon, *begun(daemon, fifo)

    return make


HANGING = "time.sleep(1000)"
TAKES = "        rehearses = self.folder.look_only\n"


@pytest.mark.parametrize("edits, words", [
    (("_LAYOUT_VERSION = 2", "_LAYOUT_VERSION = 1"), "made by another version"),
    (('heartbeat"', 'pulse"'), "arguments: --heartbeat=5s"),
    (('handover["anchor_s"]', 'handover["anchor"]'), "KeyError: 'anchor'"),
    (('record["survivors"]', 'record["left"]'), "KeyError: 'left'"),
    (("result_uid = record.get", "result_uid = record.uid"), "AttributeError"),
    ((TAKES, "        exit()\n"), "it says nothing"),
    (('if __name__ == "__main__":', "raise OSError(7, 'no')\nif 1:"), "Errno 7"),
    (('if __name__ == "__main__":', f"{HANGING}\nif 1:"), "disk hangs"),
    ((TAKES, f"        {HANGING}\n"), "disk hangs"),
    (('"rehearses": True', '"is_new": True'), "too old to tell"),
])
def test_upgrade_to_a_program_that_would_not_get_ready_is_refused(
    replaceable, monkeypatch, edits, words
):
    if words == "disk hangs":
        monkeypatch.setattr(tr, "REHEARSAL_WAIT_S", 0.3)
        monkeypatch.setattr(tr, "REHEARSAL_ANSWER_S", 0.3)
    daemon, run, held = replaceable(*edits)
    assert words in upgrade(daemon, 78)
    assert daemon.run_now(run)["status"] == "running"
    finish_with(held, "6\n")
    assert daemon.ended(run)["exit_code"] == 6


def test_upgrade_that_fails_all_the_same_says_how_to_have_the_old_program_back(
    replaceable
):
    daemon, run, held = replaceable("else _take_over()", "else 1 / 0")
    assert tr._BACK in upgrade(daemon, 69)
    assert daemon.wait() == 1
    assert tr._BACK in daemon.log.read_text()
    daemon.log.write_text("")
    daemon.start()
    assert daemon.run_now(run)["end_reason"] == "crashed"
    os.close(held)


PREDECESSORS_RUN = "01M8H71DVE2RBH4W702ZHAFJ2F"
PREDECESSORS_EVENT = [
    1795874141269001, "run.created",
    [PREDECESSORS_RUN, "hold", "running", "api", "2026-11-28T13:55:42.062Z", None, -1,
     None, None, None, "2026-11-28T13:55:42.062Z", None, None, None, 0, None, 0, None,
     None, None, None, None, None, "783533ee8e967dd655cc8a663cce1dc6", None, None],
]  # fmt: skip
# What the first release hands over.
PREDECESSORS_HANDOVER: dict[str, Any] = {
    "anchor_s": 1795874141,
    "samples": [["2026-11-28T13:55:52.000Z", 1.5, 20.0, 0.1, 40000000]],
    "log_tail": {"first_n": 7, "messages": [[7, 1795874141273, "info", "ready"]]},
    "runs": [
        {
            "run_id": PREDECESSORS_RUN,
            "task": {
                "timeout_s": None, "graceful_stop_s": 5.0, "stop_signal": 15,
                "exit_codes": [0], "orphans": "kill", "log_max_bytes": 104857600,
                "log_on_full": "drop_old", "retry_attempts": 0, "retry_delay_s": 5.0,
                "retry_backoff": "constant",
            },
            "child": {"pid": 2682, "pipes": [[21, 0], [23, 1]], "reaped": False},
            "log": {
                "full": False, "error": "", "output_bytes": 60, "dropped_bytes": 0,
                "_held_since_s": [1169.3, 0.0], "_broken": [False, False], "_end": 60,
                "_lines": 23, "_ends_in_gap": False, "_head_kept": 0, "_records": 24,
                "_segments": [[0, 0, 60, 0]], "_unsure": ["", ""], "_held": ["", ""],
                "max_bytes": 104857600, "on_full": "drop_old", "secrets": ["secret12"],
                "open": False,
            },
            "usage": None, "started_s": 1166.9, "kill_at_s": None, "cause": None,
            "error": None, "survivors": [], "result_uid": 0,
        }
    ],
    "events": [PREDECESSORS_EVENT],
    "listeners": [{"fd": 6, "made": None}],
    "lock_fd": 5,
    "signal_fds": [3, 4],
    "answered": [["/api/tasks/{task_name}/run", 201, 1]],
}  # fmt: skip


@pytest.mark.parametrize("missing, words", [
    ("", ""), ("lock_fd", "in use by"), ("listeners", "listeners"), ("runs", "runs"),
])
def test_handover_of_a_released_program_is_taken_whole_and_changes_nothing(
    serve, missing, words
):
    daemon = serve({"hold": HELD})
    data = daemon.folder / ".taskrunnerd"
    store = tr.Store(str(data / "history.sqlite3"))
    run = as_running(new_run("hold", id=PREDECESSORS_RUN))
    store.flush(store.enqueue(tr.write_created(run)))
    handover = {k: v for k, v in PREDECESSORS_HANDOVER.items() if k != missing}
    told = subprocess.run(
        daemon.command("--port", "0", "validate", "--json"),
        input=json.dumps(handover).encode(), capture_output=True,
        env={**daemon.environment(), tr._REHEARSAL_VARIABLE: "1"}, cwd=daemon.folder,
        timeout=DEADLINE_S,
    )
    assert words in told.stderr.decode()
    assert (told.returncode == 0) == (not missing), told
    assert store.find_run(run.id) == run
    store.close()


def test_upgrade_without_a_daemon_says_so(tmp_path):
    write_config(tmp_path, {"tasks": {"ok": {"run": "true"}}})
    daemon = Served(tmp_path, {"ok": {"run": "true"}})
    assert "no daemon runs there" in upgrade(daemon, 69)
    daemon.start()
    assert daemon.end() == 0
    assert "no daemon runs there" in upgrade(daemon, 69)


def test_signal_that_comes_during_an_upgrade_is_not_lost(serve, fifo):
    daemon = serve({"hold": HELD})
    run, held = begun(daemon, fifo)
    daemon.process.send_signal(signal.SIGUSR2)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0
    os.close(held)
    assert stored(daemon, run).end_reason == "daemon_stopped"


def test_pause_that_takes_too_long_is_taken_back(in_process, fifos):
    daemon = in_process({"hold": HELD})
    path = fifos()
    run = hold(daemon, "hold", path)
    held = reach(path)
    queued = hold(daemon, "hold", fifos())
    gate = Gate(daemon, "park", by_daemon)
    assert not daemon.pause(0.0)
    with pytest.raises(tr.Problem) as refused:
        daemon.trigger("hold", {"fifo": path}, "api")
    assert refused.value.status == 503
    assert "upgraded" in daemon.why_not_ready()
    gate.open()
    within(DEADLINE_S, lambda: is_parked(daemon), "parked")
    daemon.unpause()
    assert daemon.why_not_ready() == ""
    finish_with(held, "2\n")
    assert end_of(daemon, run).exit_code == 2
    daemon.stop(queued.id)


@pytest.mark.parametrize("by", ["time limit", "stop"])
def test_nothing_is_decided_of_a_run_once_it_is_handed_over(in_process, fifos, by):
    """Or the next program would take the signal that ended it for the run's own end."""
    clock, done = FakeClock(), threading.Event()
    daemon = in_process({"hold": {**HELD, "timeout": "60s"}}, clock)
    path = fifos()
    run = hold(daemon, "hold", path)
    held = reach(path, daemon)

    def end_run():
        if by == "stop":
            daemon.stop(run.id)
        else:
            clock.pass_time(60)
            daemon.tick()
        done.set()

    assert daemon.pause(DEADLINE_S)
    with daemon.handover() as record:
        ending = in_thread(end_run)
        # It is done in this time unless it has to wait.
        done.wait(0.2)
        (handed_over,) = record["runs"]
        assert handed_over["cause"] is daemon._live[run.id].cause is None
    # As after an upgrade that failed: now it may.
    ending()
    daemon.unpause()
    reason = "stopped" if by == "stop" else "timeout"
    assert end_of(daemon, run).end_reason == reason
    os.close(held)


# -- under systemd


class Manager:
    """Stands in for systemd: hears what a daemon tells of itself."""

    def __init__(self, path):
        self.path = path
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path.replace("@", "\0", 1))
        self.socket.settimeout(DEADLINE_S)

    def hear(self):
        """The next message."""
        lines = self.socket.recv(65536).decode().split("\n")
        return dict(line.split("=", 1) for line in lines)

    def await_fact(self, name):
        """The next message that has that fact."""
        while True:
            facts = self.hear()
            if name in facts:
                return facts

    def count(self, seconds):
        """How many messages come for a while, without those that wait already."""
        self.socket.settimeout(0)
        with contextlib.suppress(BlockingIOError):
            while self.socket.recv(65536):
                pass
        heard, until_s = 0, time.monotonic() + seconds
        with contextlib.suppress(socket.timeout):
            while time.monotonic() < until_s:
                self.socket.settimeout(max(0.001, until_s - time.monotonic()))
                heard += bool(self.socket.recv(65536))
        return heard


@pytest.fixture
def manager(short_folder):
    """A stand-in for systemd."""
    made = Manager(str(short_folder / "notify"))
    yield made
    made.socket.close()


def test_systemd_is_asked_to_wait_for_a_long_start(manager, monkeypatch):
    monkeypatch.setenv("NOTIFY_SOCKET", manager.path)
    assert tr._notify_busy() is None
    assert manager.hear() == {"EXTEND_TIMEOUT_USEC": "60000000", "WATCHDOG": "1"}


def test_systemd_is_told_of_start_reload_upgrade_and_stop(serve, manager):
    tasks = {"env": {"run": "env"}}
    variables = {"NOTIFY_SOCKET": manager.path, "LISTEN_FDNAMES": "a:b"}
    daemon = serve(tasks, "--shutdown-timeout", "3s", **variables)
    places = f"url={daemon.url}, 1 tasks"
    assert manager.hear() == {"READY": "1", "STATUS": f"ready: {places}"}
    before_us = time.monotonic_ns() // 1000

    def reload(status):
        daemon.process.send_signal(signal.SIGHUP)
        begun = manager.hear()
        assert set(begun) == {"RELOADING", "MONOTONIC_USEC"}
        assert before_us <= int(begun["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
        ready = manager.hear()
        assert ready["READY"] == "1" and ready["STATUS"].startswith(status)

    reload("reloaded: 1 tasks")
    daemon.write_tasks({"env": {"rum": "env"}})
    reload("not reloaded: tasks.json")
    upgrade(daemon, 78)
    assert "RELOADING" in manager.hear()
    assert manager.hear()["STATUS"].startswith("upgrade refused: tasks.json")
    daemon.write_tasks(tasks)
    upgrade(daemon)
    assert "RELOADING" in manager.hear()
    assert manager.hear() == {"READY": "1", "STATUS": f"upgraded: {places}"}
    seen = daemon.raw(daemon.run("env")).decode()
    assert [name for name in tr.SYSTEMD_VARIABLES if f"{name}=" in seen] == []
    daemon.end()
    most_us = int((3 + tr.STOP_SLACK_S) * 1e6)
    stopping = manager.hear()
    assert stopping.pop("STATUS")
    assert stopping == {"STOPPING": "1", "EXTEND_TIMEOUT_USEC": str(most_us)}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_systemd_is_told_through_an_abstract_socket_and_may_be_gone(serve):
    manager = Manager(f"@taskrunnerd-test-{uuid.uuid4().hex}")
    with contextlib.closing(manager.socket):
        daemon = serve({"ok": {"run": "true"}}, NOTIFY_SOCKET=manager.path)
        assert manager.hear()["READY"] == "1"
    daemon.process.send_signal(signal.SIGHUP)
    within(DEADLINE_S, lambda: log_lines(daemon, "cannot be told"), "a warning")
    assert daemon.run("ok")["end_reason"] == "success"


STALLING = """\
import os, sys, threading
sys.path.insert(0, {folder!r})
import taskrunnerd as tr
tick = tr.Daemon.tick
def stall(daemon):
    if os.path.exists("stall"):
        open("stalled", "w").close()
        threading.Event().wait()
    return tick(daemon)
tr.Daemon.tick = stall
tr.main()()
"""


def test_watchdog_hears_of_live_loops_and_no_more_of_a_stalled_one(tmp_path, manager):
    variables = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "100000"}
    daemon = Served(tmp_path, {"ok": {"run": "true"}}, **variables)
    daemon.program = tmp_path / "stalling.py"
    daemon.program.write_text(STALLING.format(folder=str(HERE)))
    with contextlib.closing(daemon.start()):
        for _ in range(5):
            assert manager.await_fact("WATCHDOG") == {"WATCHDOG": "1"}
        (tmp_path / "stall").touch()
        within(DEADLINE_S, (tmp_path / "stalled").exists, "the stall")
        # One may be on its way, and one may tell of the round that stalled; else there
        # would be ten.
        assert manager.count(0.5) <= 3
        assert daemon.run("ok")["end_reason"] == "success"


def test_watchdog_that_is_not_for_this_process_is_not_served(serve, manager):
    variables = {"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"}
    daemon = serve(
        {"ok": {"run": "true"}}, NOTIFY_SOCKET=manager.path, **variables
    )
    daemon.end()
    told = [manager.hear(), manager.hear()]
    assert [set(facts) & {"READY", "STOPPING"} for facts in told] == [
        {"READY"}, {"STOPPING"},
    ]  # fmt: skip


@pytest.mark.parametrize("stalled", ["accept", "schedule", "main"])
def test_watchdog_notices_each_loop_that_stalls(in_process, monkeypatch, stalled):
    server = tr.Server(("127.0.0.1", 0), tr.Options())
    server.daemon = daemon = in_process({"ok": {"run": "true"}})
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    watchdog = tr._Watchdog(server, writer)
    # Only the main thread may catch one.
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    loops = [
        in_thread(server.serve_forever),
        in_thread(lambda: tr._wait_for_end((reader, writer), server, 1.0, watchdog)),
    ]
    over, tick = threading.Event(), daemon.tick

    def tick_until_over():
        if over.is_set() and threading.current_thread() is schedule:
            raise SystemExit
        return tick()

    def run_schedule():
        with contextlib.suppress(SystemExit):
            daemon.run_schedule()

    daemon.tick = tick_until_over
    schedule = threading.Thread(target=run_schedule, daemon=True)
    schedule.start()
    for _ in range(3):
        within(DEADLINE_S, watchdog.look, "all loops go round")
    where: dict[str, tuple[Any, str]] = {
        "accept": (server, "_dismiss"),
        "schedule": (daemon, "tick"),
        "main": (tr, "_write_stacks"),
    }
    monkeypatch.setattr(tr, "_write_stacks", lambda: None)
    gate = Gate(*where[stalled], lambda *_: True)
    if stalled == "accept":
        server._refused.append((0.0, socket.socket()))
    elif stalled == "main":
        os.write(writer, bytes([tr._ARRIVED + signal.SIGQUIT]))
    server.wake()
    daemon.wake()
    gate.await_caller()
    watchdog.look()
    assert not any(watchdog.look() for _ in range(5))
    watchdog.excuse(DEADLINE_S)
    assert watchdog.look()
    watchdog.excuse(0)
    gate.open()
    within(DEADLINE_S, watchdog.look, "all loops go round again")
    os.write(writer, bytes([tr._ARRIVED + signal.SIGTERM]))
    for join in loops:
        join()
    over.set()
    daemon.wake()
    schedule.join(DEADLINE_S)
    assert not schedule.is_alive()
    os.close(reader)
    os.close(writer)


GIVE = """\
import os, sys
fds = sys.argv[1].split(",")
for n, fd in enumerate(fds):
    os.dup2(int(fd), 3 + n)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(fds)))
os.execv(sys.argv[2], sys.argv[2:])
"""


class Activated(Served):
    """A daemon that is started with sockets at which somebody listens for it."""

    given: list[Any] = []

    def launch(self):
        """Start it as systemd does: descriptors from 3 on, and for this pid only."""
        fds = [
            tr.fcntl.fcntl(one.fileno(), tr.fcntl.F_DUPFD, 20) for one in self.given
        ]
        give = [sys.executable, "-ISc", GIVE, ",".join(map(str, fds))]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [*give, *self.command(*self.flags)], cwd=self.folder,
                env=self.environment(), stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE, stderr=log, pass_fds=fds,
            )
        for fd in fds:
            os.close(fd)


@pytest.fixture
def given(short_folder):
    """Sockets that listen, at a port and at a path."""
    port, path = socket.create_server(("127.0.0.1", 0)), socket.socket(socket.AF_UNIX)
    with port, path:
        path.bind(str(short_folder / "given"))
        path.listen()
        yield [port, path]


def test_given_sockets_take_the_place_of_the_port_and_outlive_the_daemon(
    tmp_path, given
):
    daemon = Activated(tmp_path, {"env": {"run": "env"}}, "--host", "0.0.0.0")
    daemon.given = given
    port, path = given[0].getsockname()[1], given[1].getsockname()
    with socket.create_connection(("127.0.0.1", port), DEADLINE_S) as early:
        # Comes before the daemon does, and is answered.
        early.sendall(LAST)
        daemon.start()
        assert split_answers(read_all(early))[0].status == 200
    assert (daemon.port, daemon.socket) == (port, path)
    assert b"LISTEN_" not in daemon.raw(daemon.run("env"))
    upgrade(daemon)
    daemon.port = 0
    assert daemon.get("/api/info").json["pid"] == daemon.process.pid
    assert daemon.end() == 0
    assert os.path.exists(path)
    with daemon.dial() as between:
        between.sendall(LAST)
        daemon.start()
        assert split_answers(read_all(between))[0].status == 200
    daemon.close()


def test_given_sockets_may_be_all_there_is(tmp_path, given):
    daemon = Activated(tmp_path, {"ok": {"run": "true"}}, "--port", "none")
    daemon.given = given[1:]
    with contextlib.closing(daemon.start()):
        assert daemon.get("/healthz").json and not daemon.url
        upgrade(daemon)
        assert daemon.get("/healthz").json


@pytest.mark.parametrize("make, reason", [
    (
        lambda: socket.create_server(("0.0.0.0", 0)),
        "0.0.0.0 is open to others and no token is set",
    ),
    (socket.socket, "descriptor 3 is no listening stream socket; write Listen"),
    (
        functools.partial(open, os.devnull),
        "descriptor 3 is no listening stream socket: Socket operation on non",
    ),
])
def test_given_sockets_that_cannot_be_used_are_78(tmp_path, make, reason):
    daemon = Activated(tmp_path, {"ok": {"run": "true"}})
    with make() as given:
        daemon.given = [given]
        daemon.launch()
        assert daemon.wait() == 78
    assert reason in daemon.log.read_text()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs Linux")
def test_given_socket_without_a_path_is_found_by_the_commands(tmp_path):
    name = f"taskrunnerd-test-{uuid.uuid4().hex}"
    daemon = Activated(tmp_path, {"ok": {"run": "true"}})
    with socket.socket(socket.AF_UNIX) as given:
        given.bind(f"\0{name}")
        given.listen()
        daemon.given = [given]
        with contextlib.closing(daemon.start()):
            assert daemon.socket == f"@{name}"
            told = call(daemon.folder, "reload")
            assert (told.code, told.err) == (0, "")


def test_sockets_given_to_another_process_are_not_taken(serve):
    daemon = serve({"ok": {"run": "true"}}, LISTEN_PID="1", LISTEN_FDS="2")
    assert daemon.get("/healthz").json


def test_folders_of_a_service_are_the_defaults(tmp_path, serve, monkeypatch):
    for name in ("state", "config", "credentials"):
        (tmp_path / name).mkdir()
    write_config(tmp_path / "config", {"tasks": {"configured": {"run": "true"}}})
    (tmp_path / "credentials" / "token").write_text("from-credential\n")
    daemon = serve(
        {"other": {"run": "true"}},
        STATE_DIRECTORY=f"{tmp_path / 'state'}:/elsewhere",
        CONFIGURATION_DIRECTORY=str(tmp_path / "config"),
        CREDENTIALS_DIRECTORY=str(tmp_path / "credentials"),
    )
    daemon.token = "from-credential"
    assert [task["name"] for task in daemon.get("/api/tasks").json] == ["configured"]
    assert daemon.get("/api/info").json["data_dir"] == str(tmp_path / "state")
    assert call(daemon.folder, "reload", **daemon.variables).code == 0
    # A variable wins over a folder, a flag over both.
    monkeypatch.setenv("STATE_DIRECTORY", "/state")
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path / "credentials"))
    monkeypatch.setenv("TASKRUNNERD_TOKEN", "from-variable")
    settings = tr._settings(tr._parser().parse_args([]))
    assert (settings["data"], tr._read_token(settings)) == ("/state", "from-variable")
    monkeypatch.setenv("TASKRUNNERD_DATA", "/variable")
    assert tr._settings(tr._parser().parse_args([]))["data"] == "/variable"
    monkeypatch.delenv("TASKRUNNERD_TOKEN")
    assert tr._read_token(settings) == "from-credential"
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", "/nowhere")
    assert tr._read_token(settings) == ""


def unit_of(folder, *flags):
    """What `systemd-unit` prints, by key."""
    told = run_command(folder, *flags, "systemd-unit")
    assert (told.code, told.err) == (0, "")
    found: dict[str, list[str]] = {}
    for line in told.out.splitlines():
        key, is_fact, text = line.partition("=")
        if is_fact and not line.startswith("#"):
            found.setdefault(key, []).append(text)
    return found


def as_unquoted(words, runtime):
    """The words of a command line in a unit, as systemd passes them on."""
    return [
        word.replace("%t", str(runtime)).replace("%%", "%").replace("$$", "$")
        for word in shlex.split(words)
    ]


def test_unit_starts_reloads_and_stops_this_installation(short_folder, manager):
    unit = unit_of(short_folder, "--data", 'odd % $x "dir', "--shutdown-timeout=3s")
    assert unit["Type"] == ["notify"] and unit["KillMode"] == ["mixed"]
    assert unit["Delegate"] == ["yes"] and "ProtectControlGroups" not in unit
    assert unit["TimeoutStopSec"] == [str(int(3 + tr.STOP_SLACK_S))]
    assert unit["NoNewPrivileges"] == ["yes"] and unit["ProtectSystem"] == ["strict"]
    assert unit["RestartPreventExitStatus"] == ["64 78"]
    os.mkdir(short_folder / "taskrunnerd")
    start, again = (
        as_unquoted(unit[key][0], short_folder) for key in ("ExecStart", "ExecReload")
    )
    variables = {"NOTIFY_SOCKET": manager.path, "CREDENTIALS_DIRECTORY": "/nowhere"}
    daemon = Served(short_folder, {"ok": {"run": "true"}}, **variables)
    (short_folder / "etc").mkdir()
    (short_folder / "tasks.json").rename(short_folder / "etc" / "tasks.json")
    daemon.variables["CONFIGURATION_DIRECTORY"] = str(short_folder / "etc")
    daemon.variables["TASKRUNNERD_PORT"] = "0"
    with open(daemon.log, "ab") as log:
        daemon.process = subprocess.Popen(
            start, env=daemon.environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=log,
        )
    with contextlib.closing(daemon.await_ready()):
        assert manager.hear()["READY"] == "1"
        assert daemon.socket == str(short_folder / "taskrunnerd" / "socket")
        data_dir = daemon.get("/api/info").json["data_dir"]
        assert data_dir == str(short_folder / 'odd % $x "dir')
        subprocess.run(again, env=daemon.environment(), check=True, capture_output=True)


@pytest.mark.skipif(
    not shutil.which("systemd-analyze"), reason="needs systemd-analyze"
)
@pytest.mark.parametrize("flags", [(), ("--data", 'odd % $x "dir', "--port=none")])
def test_unit_is_accepted_by_systemd(short_folder, flags):
    told = run_command(short_folder, *flags, "systemd-unit")
    (short_folder / "taskrunnerd.service").write_text(told.out)
    checked = subprocess.run(
        ["systemd-analyze", "verify", "./taskrunnerd.service"], cwd=short_folder,
        stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8",
        timeout=DEADLINE_S,
    )
    # That the tests are run as nobody is not the unit's fault.
    lines = [line for line in checked.stderr.splitlines() if "user nobody" not in line]
    assert not [line for line in lines if "taskrunnerd.service" in line], lines
    assert checked.returncode == 0, checked.stderr


def test_unit_carries_the_flags_with_whole_paths(short_folder):
    flags = ("--config=a.json", "--socket=s", "--port=none", "--insecure-no-auth")
    unit = unit_of(short_folder, *flags, "--allow-host=a", "--allow-host=b")
    start = unit["ExecStart"][0]
    folder = os.path.realpath(short_folder)
    assert start.endswith(
        f" --config={folder}/a.json --port=none --socket={folder}/s"
        " --allow-host=a,b --insecure-no-auth"
    )
    assert f"ExecStart={start}".isprintable() and "ReadWritePaths" not in unit


def test_unit_runs_as_who_can_read_the_program(monkeypatch, tmp_path):
    folder = tmp_path / "home"
    folder.mkdir(mode=0o755)
    program = folder / "program"
    program.touch(0o644)
    monkeypatch.setattr(tr.os, "geteuid", lambda: 0)
    reachable = all(os.stat(p).st_mode & 1 for p in program.parents)
    assert tr._is_for_all(str(program)) is reachable
    assert tr._is_for_all("/bin/sh")
    assert tr._unit_account(["/bin/sh"]) == "DynamicUser=yes"
    program.chmod(0o600)
    assert tr._unit_account(["/bin/sh", str(program)]) == "User=root"
    program.chmod(0o644)
    folder.chmod(0o700)
    assert tr._unit_account([str(program)]) == "User=root"
    monkeypatch.setattr(tr.os, "geteuid", lambda: 4_123_456)
    assert tr._unit_account(["/bin/sh"]) == "User=4123456"


def test_help_explains_every_flag_in_a_group(tmp_path):
    shown = call(tmp_path, "--help", COLUMNS="200").out
    for title in tr._GROUPS:
        assert f"\n{title}:\n" in shown
    commands = tr._parser()._subparsers._group_actions[0].choices
    for name, parser in commands.items():
        for action in parser._actions:
            assert action.help, (name, action.dest)
    for setting in tr._SETTINGS:
        flag = rf"^  --{setting.name} .*(?:\n {{20,}}.*)*"
        (text,) = re.findall(flag, shown, re.MULTILINE)
        assert setting.help in text and setting.variable in text


# -- as process 1


class Inside(Served):
    """A daemon that is process 1 of a pid namespace of its own."""

    def launch(self):
        """Start it in a namespace."""
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                [
                    *("unshare", "--pid", "--fork", "--mount-proc", "--kill-child"),
                    *self.command("--port", "0", *self.flags),
                ],
                cwd=self.folder,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
            )

    def start(self):
        """Start it and wait until it is ready; `inner` is its pid out here."""
        self.launch()
        assert self.process and self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.process.wait()
            self.process.stdout.close()
            pytest.skip(f"no pid namespace here: {self.log.read_text().strip()}")
        ready = json.loads(line)
        assert ready["pid"] == 1
        self.port = int(ready["url"].rpartition(":")[2])
        children = f"/proc/{self.process.pid}/task/{self.process.pid}/children"
        self.inner = int(Path(children).read_text())
        return self

    def renew(self):
        """Have it upgraded in place by the signal. Its log tells when it is ready: a
        request in the moment of the exec may find its connection reset."""
        os.kill(self.inner, signal.SIGUSR2)
        within(
            DEADLINE_S,
            lambda: "info upgraded url=" in self.log.read_text(),
            "the upgrade",
        )

    def end(self, number=signal.SIGTERM):
        """Signal it and return its exit code."""
        os.kill(self.inner, number)
        return self.wait()


@pytest.fixture
def inside(tmp_path):
    """Start daemons as process 1."""
    if not shutil.which("unshare") or not sys.platform.startswith("linux"):
        pytest.skip("unshare(1) is not here")
    served: list[Inside] = []

    def start(tasks):
        daemon = Inside(tmp_path, tasks)
        daemon.start()
        served.append(daemon)
        return daemon

    yield start
    for daemon in served:
        daemon.close()


def zombies_of(pid):
    """The dead children of a process, and each thread of it that has just ended: its
    children have become those of another one, which may have been looked at."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            children = (task / "children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            children = []
            found.append(task.name)
        for child in children:
            with contextlib.suppress(OSError):
                stat = Path(f"/proc/{child}/stat").read_text()
                if stat.rpartition(")")[2].split()[0] == "Z":
                    found.append(child)
    return found


def test_process_1_reaps_orphans_and_loses_no_exit_code(inside):
    # Each program leaves orphans that die at once and ends with a code of its own.
    script = "for i in 1 2 3; do (true & true & exit 0) & done; wait; exit $CODE"
    task = {"params": [{"env": "CODE"}], "run": script, "max_concurrent": 64}
    daemon = inside({"orphans": task})

    def run(code):
        return code, daemon.run("orphans", {"CODE": str(code)})["exit_code"]

    with ThreadPoolExecutor(64) as pool:
        for sent, told in pool.map(run, range(1, 101)):
            assert told == sent
    within(DEADLINE_S, lambda: not zombies_of(daemon.inner), "all zombies reaped")


LEAVE_MANY = (
    "import os, signal\n"
    "for _ in range(20):\n"
    "    pid = os.fork()\n"
    "    if pid == 0:\n"
    "        os.closerange(0, 3)\n"
    "        signal.pause()\n"
    "    print(pid, flush=True)\n"
)


@NEEDS_PROC
def test_orphans_are_reaped_when_they_end(serve, monkeypatch):
    monkeypatch.setattr(tr, "SIGN_OF_LIFE_S", 3600.0)
    run = [sys.executable, "-Sc", LEAVE_MANY]
    daemon = serve({"leave": {"run": run, "orphans": "leave"}})
    pids = [int(word) for word in daemon.raw(daemon.run("leave")).split()]
    assert len(pids) == 20 and all(map(is_alive, pids))
    # The first alone, then many at once.
    for some in (pids[:1], pids[1:]):
        for pid in some:
            os.kill(pid, signal.SIGKILL)
        proc = [Path(f"/proc/{pid}") for pid in some]
        within(DEADLINE_S, lambda p=proc: not any(map(Path.exists, p)), "all reaped")


def test_process_1_can_be_upgraded(inside, fifo):
    daemon = inside({"hold": HELD})
    run, held = begun(daemon, fifo)
    # Its pid means another process out here, which must not be signalled.
    assert "cannot be seen from here" in upgrade(daemon, 75)
    daemon.renew()
    assert daemon.get("/api/info").json["pid"] == 1
    finish_with(held, "9\n")
    assert daemon.ended(run)["exit_code"] == 9


# -- in a container


# As root of a mount namespace: all is read-only but the folder $STATE. Then a user
# without a name, who belongs to the group 0, and as process 1.
CONTAIN = """\
set -e
mount --bind "$STATE" "$STATE"
while read -r _ _ _ _ place _; do
    case $place in
    "$STATE" | /proc* | /dev | /dev/*) ;;
    *) mount -o remount,bind,ro "$place" || : ;;
    esac
done </proc/self/mountinfo
exec unshare --user --map-user=12345 --map-group=0 --pid --fork --mount-proc \\
    --kill-child -- "$@"
"""
DOCKERFILE = tr._DOCKERFILE.format(port=tr.DEFAULT_PORT, shutdown="8s")
# What the README promises. Python 3.12 takes up to 59 MiB to compile the file.
CONTAINER_KIB = 72 * 1024


def of_dockerfile(word):
    """What stands behind an instruction of the Dockerfile, its lines joined."""
    text = DOCKERFILE.replace("\\\n", " ")
    (found,) = re.findall(rf"^{word} (.*)", text, re.MULTILINE)
    return str(found)


class Contained(Inside):
    """A daemon as the Dockerfile starts it, in a container made of namespaces: process
    1, a user without a name, nothing to write to but the state, no HOME, no zones."""

    is_fresh = True

    def command(self, *arguments):
        """The entry point in its container. -S: a package may bring zones."""
        program = str(HERE / "taskrunnerd.py")
        entry = json.loads(of_dockerfile("ENTRYPOINT"))
        assert entry == ["python", "/app/taskrunnerd.py"]
        own = () if os.geteuid() == 0 else ("--map-root-user",)
        return [
            *("unshare", *own, "--mount", "sh", "-c", CONTAIN, "sh"),
            *(sys.executable, "-S", program, *arguments),
        ]

    def environment(self):
        """What the image sets, with the paths of this test."""
        image = dict(word.split("=") for word in of_dockerfile("ENV").split())
        assert image["TASKRUNNERD_DATA"] == of_dockerfile("VOLUME") == "/state"
        image["TASKRUNNERD_DATA"] = str(self.folder / "state")
        image["TASKRUNNERD_CONFIG"] = str(self.folder / "tasks.json")
        base = {k: v for k, v in super().environment().items() if k != "HOME"}
        emulated = {"STATE": str(self.folder / "state"), "PYTHONTZPATH": "", "TZ": ""}
        return {**base, **image, **emulated}

    def launch(self):
        """Start it, without the pid namespace that `Inside` would add."""
        Served.launch(self)


@pytest.fixture
def contained(short_folder):
    """Start daemons in containers."""
    if not shutil.which("unshare") or not sys.platform.startswith("linux"):
        pytest.skip("unshare(1) is not here")
    served: list[Contained] = []

    def start(tasks, **variables):
        (short_folder / "state").mkdir()
        daemon = Contained(short_folder, tasks, **variables)
        daemon.token = variables.get("TASKRUNNERD_TOKEN", "")
        served.append(daemon)
        daemon.start()
        return daemon

    yield start
    for daemon in served:
        daemon.close()


LOOK = """\
id -u; id -g; id -un >/dev/null || echo nameless; echo "HOME=${HOME-unset}"; echo $PPID
for place in "$1/state" "$1" /tmp / /usr; do
    touch "$place/touched" && echo "$place"
done
"""


def memory_kib(pid, name):
    """A figure of /proc/PID/status."""
    status = Path(f"/proc/{pid}/status").read_text()
    (found,) = re.findall(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)
    return int(found)


def test_daemon_is_a_module_as_well(tmp_path):
    class AsModule(Served):
        is_fresh = True

        def command(self, *arguments):
            return [sys.executable, "-m", "taskrunnerd", *arguments]

    variables = {"PYTHONPATH": str(HERE), "PYTHONDONTWRITEBYTECODE": ""}
    variables["PYTHONPYCACHEPREFIX"] = str(tmp_path / "kept")
    daemon = AsModule(tmp_path, {"ok": {"run": "true"}}, **variables)
    with contextlib.closing(daemon.start()):
        assert list(tmp_path.glob("kept/**/taskrunnerd.*.pyc"))
        pid = daemon.process.pid
        assert daemon.run("ok")["end_reason"] == "success"
        daemon.process.send_signal(signal.SIGUSR2)
        within(DEADLINE_S, lambda: log_lines(daemon, "upgraded url="), "the upgrade")
        assert daemon.run("ok")["end_reason"] == "success"
        assert daemon.process.pid == pid and daemon.process.poll() is None


def test_daemon_gives_back_the_memory_that_its_file_took(tmp_path):
    if not hasattr(ctypes.CDLL(None), "malloc_trim"):
        pytest.skip("this C library has no malloc_trim(3)")
    daemon = Served(tmp_path, {"ok": {"run": "true"}})
    # Every Python must parse and compile it, which other daemons here are spared.
    daemon.program = HERE / "taskrunnerd.py"
    with contextlib.closing(daemon.start()):
        assert daemon.run("ok")["end_reason"] == "success"
        pid = daemon.process.pid
        peak_kib = memory_kib(pid, "VmHWM")
        within(
            DEADLINE_S,
            lambda: memory_kib(pid, "VmRSS") < 0.75 * peak_kib,
            "a quarter is given back",
        )


def test_container_without_names_home_zones_and_room_to_write_is_enough(
    contained, short_folder, fifos
):
    look = {"params": [{"arg": "folder"}], "run": LOOK}
    tasks = {"look": look, "ok": {"run": "echo ok", "max_concurrent": 4}, "hold": HELD}
    folder = str(short_folder)
    # As the image asks for its health: beside the daemon, without the token.
    program = [sys.executable, "-S", str(HERE / "taskrunnerd.py")]
    tasks["health"] = {"run": [*program, "--data", f"{folder}/state", "health"]}
    daemon = contained(tasks, TASKRUNNERD_TOKEN="s3cret")
    run = daemon.run("look", {"folder": folder})
    lines = [line["text"] for line in daemon.lines(run) if line["stream"] == "stdout"]
    if folder in lines:
        pytest.skip("the file system cannot be made read-only here")
    assert lines == ["12345", "0", "nameless", "HOME=unset", "1", f"{folder}/state"]
    # A schedule in UTC needs nothing, another zone says what to install.
    schedule = {"run": "true", "cron": "0 3 * * *"}
    daemon.write_tasks({**tasks, "daily": {**schedule, "timezone": "UTC"}})
    assert daemon.post("/api/reload").json["added"] == ["daily"]
    daemon.write_tasks({**tasks, "daily": {**schedule, "timezone": "Europe/Berlin"}})
    (fault,) = daemon.post("/api/reload", status=422).faults
    assert "no time zone database on this machine; install tzdata" in fault[1]
    daemon.write_tasks(tasks)
    with ThreadPoolExecutor(4) as pool:
        for ended in pool.map(lambda _: daemon.run("ok"), range(40)):
            assert ended["end_reason"] == "success"
    health = daemon.run("health")
    assert (health["exit_code"], daemon.raw(health)) == (0, b"ok\n")
    assert memory_kib(daemon.inner, "VmHWM") < CONTAINER_KIB
    # A health check is a second Python beside the daemon.
    (limit,) = re.findall(r"mem_limit: (\d+)m ", DOCKERFILE)
    assert memory_kib(daemon.inner, "VmRSS") + CONTAINER_KIB < int(limit) * 1024
    path = fifos()
    held_run = daemon.trigger("hold", {"fifo": path})
    held = reach(path)
    daemon.renew()
    finish_with(held, "9\n")
    assert daemon.ended(held_run)["exit_code"] == 9
    assert memory_kib(daemon.inner, "VmHWM") < CONTAINER_KIB
    assert daemon.end() == 0


def test_container_open_to_all_needs_a_token(short_folder):
    image = dict(word.split("=") for word in of_dockerfile("ENV").split())
    write_config(short_folder, {"tasks": {"ok": {"run": "true"}}})
    own = {"TASKRUNNERD_CONFIG": "tasks.json", "TASKRUNNERD_DATA": "state"}
    told = call(short_folder, **{**image, **own})
    assert told.code == 78 and tr.TOKEN_VARIABLE in told.err


def test_dockerfile_stops_before_it_is_killed():
    assert of_dockerfile("FROM") == "python:3-slim"
    assert of_dockerfile("STOPSIGNAL") == "SIGTERM"
    assert of_dockerfile("USER") == "10001:0"
    assert of_dockerfile("EXPOSE") == str(tr.DEFAULT_PORT)
    check = of_dockerfile("HEALTHCHECK").partition("CMD ")[2]
    assert json.loads(check) == [*json.loads(of_dockerfile("ENTRYPOINT")), "health"]
    image = dict(word.split("=") for word in of_dockerfile("ENV").split())
    variables = {setting.variable for setting in tr._SETTINGS}
    assert set(image) <= variables
    limit_s = tr.parse_duration(image["TASKRUNNERD_SHUTDOWN_TIMEOUT"])
    assert limit_s + tr.LINGER_S <= tr.DOCKER_GRACE_S


def test_hangup_loads_the_tasks_unless_it_is_ignored(serve):
    daemon = serve({"old": {"run": "true"}})
    daemon.write_tasks({"new": {"run": "true"}})

    def names():
        return [task["name"] for task in daemon.get("/api/tasks").json]

    daemon.process.send_signal(signal.SIGHUP)
    within(DEADLINE_S, lambda: names() == ["new"], "the new tasks")
    # Told last; an end may come before.
    within(DEADLINE_S, lambda: "info reloaded " in daemon.log.read_text(), "its line")
    assert daemon.end() == 0
    was = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        daemon.start()
    finally:
        signal.signal(signal.SIGHUP, was)
    daemon.process.send_signal(signal.SIGHUP)
    daemon.process.send_signal(signal.SIGTERM)
    assert daemon.wait() == 0
    assert daemon.log.read_text().count("info reloaded ") == 1


@pytest.mark.parametrize("left, told", [
    (b"", ""),
    # The interpreter writes first, then what it calls; a child's are ignored.
    (b"\x0f\x8f\x02\xff", "\x0f"), (b"\x02\xff\x0f\x01\x8f", "\x0f\x01"),
    # Of a program of before, which wrote no more than the numbers.
    (b"\x0f", "\x0f"),
])
def test_signals_before_an_upgrade_are_told_once(left, told):
    reader, writer = os.pipe()
    os.write(writer, left)
    assert tr._inherited_signals(reader, writer) == bytes(128 + ord(c) for c in told)
    os.close(reader)
    os.close(writer)


def test_quit_signal_writes_all_stacks_and_changes_nothing(serve):
    daemon = serve({"ok": {"run": "true"}})
    look = daemon.log.read_text
    for count in range(1, 6):
        daemon.run("ok")
        daemon.process.send_signal(signal.SIGQUIT)
        within(
            DEADLINE_S,
            lambda n=count: look().count("in serve_forever") == n,
            "the stacks",
        )
    assert "Thread 0x" in look() and "in run_schedule" in look()
    assert daemon.run("ok")["end_reason"] == "success"


def fill_up(fd):
    """Fill a pipe or a socket that nobody reads; what with. Others who have it open
    still wait for room there."""
    if stat.S_ISSOCK(os.fstat(fd).st_mode):
        own, flags = os.dup(fd), socket.MSG_DONTWAIT
    else:
        own = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK)
        flags = 0
    count = 0
    for size in (4096, 1):
        with contextlib.suppress(BlockingIOError):
            while True:
                content = b"." * size
                if flags:
                    with socket.socket(fileno=os.dup(own)) as end:
                        count += end.send(content, flags)
                else:
                    count += os.write(own, content)
    os.close(own)
    return b"." * count


def read_now(fd):
    """What there is to read, without waiting for more."""
    found = b""
    while select.select([fd], [], [], 0)[0]:
        found += os.read(fd, 65536)
    return found


@NEEDS_PROC
@pytest.mark.parametrize("kind", ["pipe", "another user's pipe", "socket"])
def test_log_loses_what_finds_no_room_and_says_so_later(kind, monkeypatch):
    if kind == "socket":
        reader, writer = (end.detach() for end in socket.socketpair())
    else:
        reader, writer = os.pipe()
    was, flags = os.dup(2), fcntl.fcntl(writer, fcntl.F_GETFL)

    def refuse(*_):
        raise PermissionError

    try:
        os.dup2(writer, 2)
        with monkeypatch.context() as patch:
            if kind == "another user's pipe":
                patch.setattr(os, "open", refuse)
            log = tr._LogHandler()
        log.put(b"before\n", 0)
        assert read_now(reader).strip() == b"before"
        filled = fill_up(writer)
        for line in (b"lost 1\n", b"lost 2\n" * 2000):
            log.put(line, 0)
        assert set(read_now(reader)) == set(filled)
        # So long that only a part of it finds room.
        log.put(b"after " + b"x" * 1_000_000 + b"\n", 0)
        first, _, told = read_now(reader).partition(b"\n")
        assert first.startswith(b"1970-01-01T00:00:00.000Z warning log lines lost ")
        assert b" count=2 reason=nobody read" in first and told.startswith(b"after x")
        tries = 0
        while b" count=" not in told:
            log.put(b"more\n", 0)
            tries += 1
            told += read_now(reader)
        assert told.count(b"x") == 1_000_000
        assert f" count={tries - 1} ".encode() in told and told.count(b"more") == 1
        assert fcntl.fcntl(writer, fcntl.F_GETFL) == flags
    finally:
        os.dup2(was, 2)
        for fd in (was, reader, writer):
            os.close(fd)


@NEEDS_PROC
def test_daemon_whose_output_nobody_reads_works_and_ends(tmp_path, fifos):
    daemon = Served(tmp_path, {"ok": {"run": "true"}, "hold": STUBBORN})
    reader, writer = os.pipe()
    filled = fill_up(writer)
    process = subprocess.Popen(
        daemon.command("--port", "0"), cwd=tmp_path, env=daemon.environment(),
        stdout=writer, stderr=writer,
    )
    lock = tmp_path / ".taskrunnerd" / "lock"

    def listens():
        return json.loads(lock.read_text() or "{}").get("url") if lock.exists() else ""

    daemon.port = int(within(DEADLINE_S, listens, "its url").rpartition(":")[2])
    assert daemon.run("ok")["end_reason"] == "success"
    process.send_signal(signal.SIGQUIT)
    path = fifos()
    run = daemon.trigger("hold", {"fifo": path})
    held = reach(path)
    told = read_now(reader)
    assert told.startswith(filled)

    def look():
        nonlocal told
        daemon.run("ok")
        told += read_now(reader)
        return told

    within(DEADLINE_S, lambda: b" warning log lines lost count=" in look(), "the loss")
    within(DEADLINE_S, lambda: b'{"event": "ready"' in look(), "the line for stdout")

    def is_shut():
        try:
            daemon.dial().close()
        except OSError:
            return True
        return False

    fill_up(writer)
    process.send_signal(signal.SIGTERM)
    within(DEADLINE_S, is_shut, "the end of its listening")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0
    assert stored(daemon, run).end_reason == "daemon_stopped"
    for fd in (held, reader, writer):
        os.close(fd)


@pytest.mark.parametrize("place, name", [
    (tr.Daemon, "drain"), (tr.Server, "stop_listening"), (tr, "_tell_stopping"),
    (tr.Store, "close"),
])
def test_second_stop_ends_the_daemon_whatever_hangs(serve, monkeypatch, place, name):
    def hang(*_):
        os.write(2, b"hangs\n")
        threading.Event().wait()

    monkeypatch.setattr(place, name, hang)
    monkeypatch.setattr(tr.Daemon, "hurry", hang)
    monkeypatch.setattr(tr, "STOP_SLACK_S", 0.1)
    daemon = serve({"ok": {"run": "true"}})
    daemon.process.send_signal(signal.SIGTERM)
    within(DEADLINE_S, lambda: "hangs" in daemon.log.read_text(), "that it hangs")

    def stop_again():
        daemon.process.send_signal(signal.SIGTERM)
        return daemon.process.poll() is not None

    # Many in a row do not put it off.
    within(DEADLINE_S, stop_again, "the end")
    assert daemon.wait() == -signal.SIGALRM


def run_command(folder, *arguments, **variables):
    """A taskrunnerd command as the shell would run it, in a folder."""
    base = {k: v for k, v in os.environ.items() if not k.startswith("TASKRUNNERD_")}
    # A unit names the file that is installed, which must be compiled each time.
    is_unit = "systemd-unit" in arguments
    program = HERE / "taskrunnerd.py" if is_unit else PROGRAM
    told = subprocess.run(
        [sys.executable, str(program), *arguments],
        cwd=folder, env={**base, **variables}, stdin=subprocess.DEVNULL,
        capture_output=True, encoding="utf-8", timeout=DEADLINE_S,
    )  # fmt: skip
    return Told(told.returncode, told.stdout, told.stderr)


RIGHT = '{"tasks": {"year": {"run": "true", "cron": "@yearly"}, "b": {"run": "true"}}}'
NO_FAULTS = ": 2 tasks, no faults\n"


@pytest.mark.parametrize("written, words, code, out, err", [
    ("", "--version", 0, f"taskrunnerd {tr.VERSION}\n", ""),
    ("", "validate", 78, "",
     "tasks.json: no such file; `python taskrunnerd.py init` writes an example\n"),
    (RIGHT, "validate", 0, f"tasks.json{NO_FAULTS}", ""),
    (BROKEN, "validate", 78, "", BROKEN_FAULTS),
    ("", "--config other.json validate", 0, f"other.json{NO_FAULTS}", ""),
    ("", "validate --config other.json", 0, f"other.json{NO_FAULTS}", ""),
    ("", "CONFIG=ignored.json validate --config other.json", 0,
     f"other.json{NO_FAULTS}", ""),
    (RIGHT, "CONFIG=missing.json validate", 78, "",
     "missing.json: no such file; `python taskrunnerd.py init` writes an example\n"),
    ("mine", "init", 78, "", "tasks.json: exists already"),
    (RIGHT, "init --config nowhere/a.json", 78, "",
     "nowhere/a.json: cannot be written: No such file or directory"),
    (RIGHT, "next yaer", 64, "", 'taskrunnerd: no task "yaer"; did you mean year?\n'),
    (RIGHT, "next b", 0, "b: no schedule, so no ticks\n", ""),
    (RIGHT, "next -n 0", 64, "",
     'taskrunnerd: -n "0": write a number from 1 to 1000\n'),
    (RIGHT, "next -n x", 64, "",
     'taskrunnerd: -n "x": write a number from 1 to 1000\n'),
    ("", "import-crontab nowhere", 78, "",
     "taskrunnerd: nowhere: cannot be read: No such file or directory\n"),
    ("", "dockerfile", 0, tr._DOCKERFILE.format(port=tr.DEFAULT_PORT, shutdown="8s"),
     ""),
    ("", "--data x taks a", 64, "",
     'taskrunnerd: no command "taks"; did you mean tasks?\n'),
    ("", "--data x validat a", 64, "",
     'taskrunnerd: no command "validat"; did you mean validate?\n'),
    ("", "--data x import_crontab a", 64, "",
     'taskrunnerd: no command "import_crontab"; did you mean import-crontab?\n'),
    ("", "--data x xyzzy a", 64, "", 'taskrunnerd: no command "xyzzy"; see --help\n'),
    *(("", f"tasks --url {url}", 64, "",
       f'taskrunnerd: --url "{url}": write http(s)://HOST:PORT')
      for url in ("localhost:9477", "ftp://x", "http:///x", "/")),
    (RIGHT, "run x --data .", 69, "", "taskrunnerd: --data .: no daemon runs here\n"),
])
def test_command_alone(cli, tmp_path, monkeypatch, written, words, code, out, err):
    """Without a daemon, in a folder with a tasks.json or none."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.json").write_text(RIGHT)
    if written:
        write_config(tmp_path, written)
    variable, *others = words.split()
    if "=" in variable:
        name, _, value = variable.partition("=")
        monkeypatch.setenv(f"TASKRUNNERD_{name}", value)
        words = " ".join(others)
    told = cli(None, *words.split())
    assert (told.code, told.out.decode()) == (code, out)
    # A message without its end of line is only begun here.
    told_err = told.err.decode()
    assert told_err == err or (err and not err.endswith("\n") and err in told_err)
    if written:
        assert (tmp_path / "tasks.json").read_text() == written
    assert set(os.listdir(tmp_path)) <= {"other.json", "tasks.json"}


def test_validate_prints_json_for_machines(tmp_path, cli, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, '{"tasks": {"a": {"run": "true",\n"timeout": "abc"}}}')
    told = cli(None, "validate", "--json")
    fault = {
        "path": "tasks.json", "line": 2, "column": 12, "place": "tasks.a.timeout",
        "message": f'"abc" {DURATION}',
    }  # fmt: skip
    found = {"handover": tr.HANDOVER_VERSION, "faults": [], "warnings": []}
    assert (told.code, told.err) == (78, b"")
    assert told.json == {**found, "valid": False, "tasks": 0, "faults": [fault]}
    write_config(tmp_path, {"tasks": {"a": {"run": "true"}}})
    told = cli(None, "validate", "--json")
    assert (told.code, told.json) == (0, {**found, "valid": True, "tasks": 1})


PIPES = [
    ("pg_dump | gzip >f", True), ("true\nx=$(ls|wc -l)", True),
    ("make |& tee log", True), ("echo '|' \"|\" \\| # ls | wc", False),
    ("ls || true; true >|f", False),
    ("case $1 in a|b) ls;; (c | d)\n ls;; esac", False),
    ("case $1 in a|b) ls | wc;; esac", True), ("echo ${#a} $((5 | 2))", False),
    ("cat <<'END' >f\na | b\nEND", False),
    ("cat <<-END\n\ta | b\n\tEND\nls | wc", True), ("cat <<END | wc\na\nEND", True),
    ("set -o pipefail; ls | wc", False),
]


@pytest.mark.parametrize(("script", "has_pipe"), PIPES)
def test_pipe_in_a_script_for_sh_is_a_warning(tmp_path, script, has_pipe):
    def warned(run, shell):
        task = {"run": run, "shell": shell}
        path = write_config(tmp_path, {"tasks": {"a": task}})
        return bool(tr.load_config(path).warnings)

    assert warned(script, "/bin/sh") is warned(script, "/opt/bash") is has_pipe
    others = ("bash", "/usr/bin/perl", ["/bin/sh", "-c"])
    assert not any(warned(script, shell) for shell in others)
    assert not warned(["echo", script], "/bin/sh")


END_IT = 'end the list with "--"'


@pytest.mark.parametrize("run, params, cure", [
    (["df"], [{"arg": "path"}], END_IT),
    (["head"], [{"arg": "lines", "type": "integer"}], END_IT),
    (["df"], [{"env": "A"}, {"arg": "a", "choices": ["/"], "allow_custom": True}],
     END_IT),
    (["df"], [{"arg": "path"}, {"flag": "-k"}], "allow `choices` only"),
    (["ls"], [{"option": "--sort"}, {"arg": "path"}], "allow `choices` only"),
    (["tar", "-c"], [{"arg": "path"}], END_IT), (["df", "--"], [{"arg": "path"}], ""),
    (["df"], [{"arg": "path", "choices": ["/", "/home"]}], ""),
    (["df"], [{"env": "PATH_"}, {"flag": "-k"}, {"option": "--type="}], ""),
    (["/bin/sh", "-c", "df -- $1", "sh"], [{"arg": "path"}], ""),
    ('df "$1"', [{"arg": "path"}], ""),
])  # fmt: skip
def test_arg_that_may_be_an_option_of_a_list_is_a_warning(tmp_path, run, params, cure):
    task = {"run": run, "params": params}
    config = tr.load_config(write_config(tmp_path, {"tasks": {"a": task}}))
    told = "\n".join(map(str, config.warnings))
    assert (f'begins with "-" is taken for an option; {cure}' in told) == bool(cure)
    assert bool(told) == bool(cure)


def test_warnings_are_told_and_stop_nothing(serve, tmp_path, capfd):
    text = '{"tasks": {"a": {"run": "true"},\n"b": {"run": "ls | wc"}}}'
    path = write_config(tmp_path, text)
    assert tr.main(["validate", "--config", path]) == 0
    told = capfd.readouterr()
    assert told.out == f"{path}: 2 tasks, no faults\n"
    place, message = "tasks.b.run", '"/bin/sh -e" sees a failure of the last command'
    assert told.err.startswith(f"warning: {path}:2:14: {place}: {message}")
    assert tr.main(["validate", "--json", "--config", path]) == 0
    (warning,) = json.loads(capfd.readouterr().out)["warnings"]
    assert (warning["line"], warning["place"]) == (2, place)
    assert warning["message"].startswith(message)
    daemon = serve({"a": {"run": "ls | wc"}})
    daemon.post("/api/reload")
    assert daemon.log.read_text().count(" warning configuration warning=") == 2


def test_shipped_tasks_are_right_and_described():
    config = tr.load_config(str(HERE / "tasks.json"))
    assert not config.warnings
    tasks = config.tasks
    assert 5 <= len(tasks) <= 8
    assert all(task.description for task in tasks.values())
    assert any(isinstance(task.run, tuple) for task in tasks.values())
    assert any(not task.api_trigger for task in tasks.values())
    assert any(task.params for task in tasks.values())


def test_init_writes_the_example_and_it_is_right(tmp_path, monkeypatch, cli):
    monkeypatch.chdir(tmp_path)
    assert cli(None, "init") == (
        0, b"tasks.json: written; start with `python taskrunnerd.py`\n", b""
    )  # fmt: skip
    shipped = (HERE / "tasks.json").read_bytes()
    assert (tmp_path / "tasks.json").read_bytes() == shipped
    assert json.loads(shipped) == tr.EXAMPLE
    assert cli(None, "validate").code == 0


JSON_TYPES: dict[str, Any] = {
    "string": str, "boolean": bool, "integer": int, "number": (int, float),
    "array": list, "object": dict,
}


def schema_accepts(root, schema, value):
    """Whether a JSON Schema accepts a value: another, smaller reading of the words
    that the printed schema uses, without the formats, which editors do not know."""
    if "$ref" in schema:
        target = root
        for name in schema["$ref"][2:].split("/"):
            target = target[name]
        return schema_accepts(root, target, value)
    kinds = schema.get("type", list(JSON_TYPES))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    right = [k for k in kinds if isinstance(value, JSON_TYPES[k])]
    if isinstance(value, bool):
        right = [k for k in right if k == "boolean"]
    if not right or value not in schema.get("enum", [value]):
        return False
    if isinstance(value, str):
        return len(value) >= schema.get("minLength", 0) and bool(
            re.search(schema.get("pattern", ""), value)
        )
    if isinstance(value, list):
        items = schema.get("items", {})
        return len(value) >= schema.get("minItems", 0) and all(
            schema_accepts(root, items, entry) for entry in value
        )
    if not isinstance(value, dict):
        return schema.get("minimum", value) <= value <= schema.get("maximum", value)
    fields, others = schema.get("properties", {}), schema["additionalProperties"]
    names = schema.get("propertyNames", {})
    return set(schema.get("required", ())) <= set(value) and all(
        schema_accepts(root, fields[name], member)
        if name in fields
        else others is not False
        and schema_accepts(root, names, name)
        and schema_accepts(root, others, member)
        for name, member in value.items()
    )


@pytest.fixture
def printed_schema(capfd):
    """What `schema` prints."""
    assert tr.main(["schema"]) == 0
    return json.loads(capfd.readouterr().out)


def test_schema_prints_one_whole_document(printed_schema):
    assert printed_schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    refs = re.findall(r'"\$ref": "([^"]*)"', json.dumps(printed_schema))
    assert refs
    assert {ref[: len("#/$defs/")] for ref in refs} == {"#/$defs/"}
    assert {ref[len("#/$defs/") :] for ref in refs} <= set(printed_schema["$defs"])
    settings = printed_schema["$defs"]["TaskSettings"]["properties"]
    assert set(settings) == set(tr.TASK_KEYS)
    assert schema_accepts(printed_schema, printed_schema, tr.EXAMPLE)


@pytest.mark.parametrize("document, is_right", [
    ({"tasks": {"a": {"run": "true"}}}, True),
    ({"tasks": {"a": {"run": ["df"], "params": [{"env": "A"}]}}}, True),
    ({"$schema": "x", "defaults": {"env": {"A": "1"}}, "tasks": {}}, True), ({}, False),
    ({"tasks": []}, False), ({"tasks": {}, "extra": 1}, False),
    ({"tasks": {"a b": {"run": "true"}}}, False),
    ({"tasks": {"a": {"run": ""}}}, False), ({"tasks": {"a": {"run": []}}}, False),
    ({"tasks": {"a": {"run": "true", "tiemout": "5s"}}}, False),
    ({"tasks": {"a": {"run": "true", "max_concurrent": 0}}}, False),
    ({"tasks": {"a": {"run": "true", "max_concurrent": True}}}, False),
    ({"tasks": {"a": {"run": "true", "on_overlap": "drop"}}}, False),
    ({"tasks": {"a": {"run": "true", "env": {"A-B": "x"}}}}, False),
    ({"tasks": {"a": {"run": "true", "exit_codes": [256]}}}, False),
    ({"tasks": {"a": {"run": "true", "params": [{"env": "1"}]}}}, False),
    ({"defaults": {"umask": "9"}, "tasks": {}}, False),
])
def test_schema_and_validate_agree(tmp_path, printed_schema, document, *, is_right):
    assert schema_accepts(printed_schema, printed_schema, document) is is_right
    assert (faults_of(tmp_path, document) == []) is is_right


# -- asking a running daemon


class Asked(NamedTuple):
    """How a command ended and what it printed, byte for byte."""

    code: Any
    out: bytes
    err: bytes

    @property
    def json(self):
        """What it printed, as JSON."""
        return json.loads(self.out)


Cli = Callable[..., Asked]


@pytest.fixture
def cli(capfdbinary, monkeypatch):
    """Run a command in this process against a daemon: cli(daemon, *words)."""
    for name in [name for name in os.environ if name.startswith("TASKRUNNERD_")]:
        monkeypatch.delenv(name)

    def run(daemon, *words):
        if daemon:
            monkeypatch.setenv("TASKRUNNERD_URL", daemon.url)
            monkeypatch.setenv("TASKRUNNERD_TOKEN", daemon.token)
        capfdbinary.readouterr()
        try:
            code = tr.main(list(words))
        except SystemExit as leaving:
            code = leaving.code
        return Asked(code, *capfdbinary.readouterr())

    return run


ASKED_TASKS: dict[str, Any] = {
    "speak": SPEAK,
    "once": FAIL_ONCE,
    "exit": {"params": [{"arg": "code"}], "run": 'exit "$1"', "exit_codes": [0, 4],
        "max_concurrent": 16},
    "zero-is-bad": {"run": "true", "exit_codes": [3]},
    "die": {"params": [{"arg": "signal"}], "run": 'kill -s "$1" $$',
        "max_concurrent": 16},
    "late": {"run": "exec sleep 300", "timeout": "50ms"},
    "chatty": {"run": "while :; do echo more; done", "log_max_size": "1kb",
        "log_on_full": "kill_task"},
    "absent": {"run": ["./no-such-program"]},
    "forbidden": {"run": "true", "api_trigger": False},
    "skip": {"params": [{"arg": "fifo"}], "run": 'cat "$1"', "on_overlap": "skip"},
    "no-queue": {"params": [{"arg": "fifo"}], "run": 'cat "$1"', "queue_max": 0},
    "fifo": {"params": [{"arg": "fifo"}], "run": 'echo waiting; cat "$1"',
        "max_concurrent": 16},
    "must": {"params": [{"env": "MUST", "required": True}], "run": "true"},
    "show": {"params": [{"env": "A"}, {"option": "--level"}, {"option": "--date="},
        {"flag": "--loud"}], "run": 'printf "<%s>" "$A" "$@"'},
    "result": {"params": [{"env": "JSON"}],
        "run": 'printf "%s" "$JSON" >"$TASKRUNNERD_RESULT"'},
    "exact": {"run": r"printf '\033[1mbold\r\n\n\377\376 no newline'; "
        r"printf 'err\r\303\n' >&2"},
    "again": {"run": 'n=$TASKRUNNERD_ATTEMPT; echo "try $n"; exit $((5 - n))',
        "retry_attempts": 2, "retry_delay": "1ms"},
    "patient": {"run": "trap 'echo bye; exit 0' TERM; echo hi; while :; do "
        "sleep 0.05 || :; done", "max_concurrent": 16},
    "much": {"run": "i=0; while [ $i -lt 2000 ]; do echo line $i; i=$((i+1)); done",
        "log_max_size": "4kb"},
}  # fmt: skip


@pytest.fixture(scope="session")
def asked(tmp_path_factory):
    """One daemon with ASKED_TASKS; each test leaves nothing running in it."""
    daemon = Served(tmp_path_factory.mktemp("asked"), ASKED_TASKS).start()
    yield daemon
    daemon.close()


@pytest.mark.parametrize("words, said", [
    *((words, "") for words in (
        ("run", "\udcff"), ("run", "\udcff", "a=b"), ("runs", "\udcff"),
        ("runs", "--status", "\udcff"), ("show", "\udcff/last"), ("show", "\udcff"),
    )), (("run", "show", "A=\udcff"), "A: not UTF-8 text\n"),
])  # fmt: skip
def test_command_is_told_of_words_that_are_no_text(asked, cli, words, said):
    told = cli(asked, *words)
    assert told.code == 64 and told.out == b""
    assert told.err.startswith(f"taskrunnerd: {said}".encode())


@pytest.mark.parametrize("words, code, out, err", [
    ("exit code=0", 0, "", ""), ("exit code=3", 3, "", ""),
    ("exit code=255", 255, "", ""), ("exit code=4", 4, "", ""),
    ("zero-is-bad", 1, "", ""), ("die signal=TERM", 143, "", "killed by SIGTERM after"),
    ("die signal=KILL", 137, "", "killed by SIGKILL after"),
    ("late", 124, "", "timed out after"), ("absent", 125, "", "start failed: "),
    ("late --timeout 1h", 124, "", "timed out after"),
    ("exit nope=1", 64, "", "nope: unknown parameter"), ("must", 64, "", "MUST: "),
    ("exit code", 64, "", '"code": write KEY=VALUE'),
    ("exit code=1 code=2", 64, "", '"code=2": code is given twice'),
    ("nowhere", 64, "", 'no task "nowhere"'),
    ("nowhere a=b", 64, "", 'no task "nowhere"'),
    ("exit --timeout soon", 64, "", '--timeout: "soon" is not a duration'),
    ("exit --timeout 1s --detach", 64, "", "--timeout and --detach exclude"),
    ("exit --key=", 64, "", "--key: write 1 to 255"),
    ("exit --key é", 64, "", "--key: write 1 to 255"),
    ("forbidden", 77, "", 'task "forbidden" may not be triggered'),
    ("patient --timeout 50ms", 124, None, "stopped"),
    ("show 'A=x=y z'", 0, "<x=y z>", ""),
    ("show level=3 loud", 0, "<><--level><3><--loud>", ""),
    ("show date=today loud=false", 0, "<><--date=today>", ""),
    ("show -- --date=today --loud", 0, "<><--date=today><--loud>", ""),
    ("again", 3, "try 0\ntry 1\ntry 2\n",
     re.compile(r"exit 5 after .*; trying again as run \w+\ntaskrunnerd: exit 4 aft")),
])  # fmt: skip
def test_run_ends_as_the_run_did(asked, cli, words, code, out, err):
    told = cli(asked, "run", *shlex.split(words))
    assert told.code == code, told
    assert out is None or told.out.decode() == out
    if isinstance(err, str):
        assert not err or f"taskrunnerd: {err}" in told.err.decode()
        assert bool(told.err) == bool(err)
    else:
        assert re.match(f"taskrunnerd: {err.pattern}", told.err.decode())
        assert told.err.count(b"\n") == 2


def test_run_that_floods_its_log_ends_badly(asked, cli):
    told = cli(asked, "run", "chatty")
    assert told.code == 143
    assert b"\ntaskrunnerd: log overflow: wrote more than 1.0 KB\n" in told.err
    assert set(told.out.split()) == {b"more"}


@pytest.mark.parametrize("task", ["skip", "no-queue"])
def test_run_that_is_refused_ends_with_75(asked, cli, fifo, task):
    with blocked(asked, task, fifo):
        told = cli(asked, "run", task)
        assert (told.code, told.out) == (75, b"")
        assert told.err.startswith(b"taskrunnerd: ") and told.err.count(b"\n") == 1
        told = cli(asked, "run", task, "--json")
        assert told.code == 75 and told.json["status"] in (409, 429)


def test_run_writes_both_streams_byte_for_byte_or_the_run_as_json(asked, cli):
    out, err = b"\x1b[1mbold\r\n\n\xff\xfe no newline", b"err\r\xc3\n"
    assert cli(asked, "run", "exact") == (0, out, err)
    told = cli(asked, "run", "exact", "--json")
    run = asked.get(f"/api/runs/{told.json['id']}").json
    assert told.json == {k: v for k, v in run.items() if k != "$schema"}
    # The order between two pipes is that in which they were read.
    assert sorted(told.err) == sorted(out + err)
    given = ("--json", "A=1", "--", "--level=-3", "--date=today")
    params = {"A": "1", "--level": "-3", "--date=": "today"}
    assert cli(asked, "run", "show", *given).json["params"] == params


def test_run_detached_tells_the_id(asked, cli):
    told = cli(asked, "run", "exit", "code=3", "--detach")
    assert (told.code, told.err) == (0, b"")
    assert asked.ended({"task_name": "exit", "id": told.out.decode().strip()})
    told = cli(asked, "run", "exit", "--detach", "--json")
    assert told.json["task_name"] == "exit"
    assert asked.ended(told.json)


def test_run_says_what_was_left_out_of_the_log(asked, cli):
    run = asked.run("much")
    told = cli(asked, "logs", run["id"])
    assert told.out == asked.raw(run)
    assert re.fullmatch(
        rb"taskrunnerd: \d+ lines \(\d+ bytes\) were left out here\n", told.err
    )


@pytest.mark.parametrize("words, declared, found", [
    (["level=1"], [("option", "--level"), ("env", "level")], {"level": "1"}),
    (["--level=1"], [("option", "--level"), ("env", "level")], {"--level": "1"}),
    (["x=1"], [("option", "--x"), ("option", "-x")], {"x": "1"}),
    (["a="], [("arg", "a")], {"a": ""}), (["b=1"], [], {"b": "1"}),
    (["v"], [("flag", "-v")], {"-v": "true"}), (["=x"], [], {"": "x"}),
])  # fmt: skip
def test_given_params(words, declared, found):
    assert tr._given_params(words, declared) == found


@pytest.mark.parametrize("words", [
    "run", "run exit --bogus", "run exit --level=3", "tasks extra", "show", "logs",
    "stop", "status x", "health -- x", "runs a b", "run exit --timeout", "next -- x",
    "logs last --bogus",
])  # fmt: skip
def test_asking_wrongly_ends_with_64(cli, words):
    told = cli(None, *words.split())
    assert (told.code, told.out) == (64, b"")
    assert told.err.splitlines()[-1].startswith(b"taskrunnerd")
    assert re.search(b"required|expected|unrecognized", told.err)


@functools.cache
def _taken():
    """A socket that has a port and does not listen there, nor lets anybody else."""
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    return taken


def nobody():
    """A URL where nobody listens."""
    return f"http://127.0.0.1:{_taken().getsockname()[1]}"


def test_asking_nobody_ends_with_69_at_once(cli):
    url = nobody()
    for words in ("run x", "run x a=b", "tasks", "status", "stop last"):
        told = cli(None, *words.split(), "--url", url)
        said = f"taskrunnerd: {url}: no answer: Connection refused\n"
        assert told == (69, b"", said.encode())


def test_health_is_0_when_triggers_are_taken_and_else_1(asked, cli):
    assert cli(asked, "health") == (0, b"ok\n", b"")
    assert cli(asked, "health", "--json").json["status"] == "ok"
    told = cli(None, "health", "--url", nobody())
    assert told.code == 1 and b"Connection refused" in told.out


def test_asking_needs_the_right_token(serve, cli, tmp_path, monkeypatch):
    daemon = serve({"ok": {"run": "echo fine"}}, TASKRUNNERD_TOKEN="open sesame")
    for words in (["run", "ok"], ["run", "ok", "a=b"], ["status"], ["logs", "last"]):
        told = cli(daemon, *words)
        assert (told.code, told.out) == (77, b""), told
        assert told.err.startswith(b"taskrunnerd: a token is needed")
    assert cli(daemon, "health").code == 0
    path = tmp_path / "token"
    path.write_text("opensesame\n")
    assert cli(daemon, "run", "ok", "--token-file", str(path)).code == 77
    told = cli(daemon, "run", "ok", "--token-file", str(tmp_path / "none"))
    assert (told.code, b"No such file" in told.err) == (77, True)


def test_asking_finds_daemon_and_token_by_itself(serve, cli):
    daemon = serve({"ok": {"run": "echo fine"}}, TASKRUNNERD_TOKEN="sesame")
    path = daemon.folder / "token"
    path.write_text("sesame\n")
    data = str(daemon.folder / ".taskrunnerd")
    told = cli(None, "run", "ok", "--data", data, "--token-file", str(path))
    assert (told.code, told.out, told.err) == (0, b"fine\n", b"")
    told = cli(None, "--data", data, "--token-file", str(path), "tasks", "--json")
    assert [task["name"] for task in told.json] == ["ok"]


class _Answers:
    """A client that gives prepared answers, and raises those that are errors."""

    place = "there"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.headers: list[Any] = []

    def ask(self, method, path, body, headers):
        """The next answer."""
        self.headers.append(headers)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def events(self, path):
        """The next answer, as a stream."""
        answer = self.answers.pop(0)
        for event in answer:
            if isinstance(event, Exception):
                raise event
            yield event


@pytest.fixture
def impatient(monkeypatch):
    """A client that tries again at once."""
    monkeypatch.setattr(tr, "CLIENT_PAUSE_S", 0.0)


def arguments_of(*words):
    """The arguments of a command line."""
    return tr._parsed(words)


def test_trigger_is_tried_again_with_the_same_key_for_a_while(impatient, monkeypatch):
    lost, going = tr._NoAnswer("lost"), tr._NoAnswer("going", 75)
    client = _Answers(lost, going, {"id": "1"})
    assert tr._trigger(client, arguments_of("run", "x"), {}) == {"id": "1"}
    first, *others = client.headers
    assert others == [first, first]
    assert re.fullmatch('"[0-9a-f]{32}"', first["Idempotency-Key"])
    other = _Answers({"id": "2"})
    tr._trigger(other, arguments_of("run", "x"), {})
    assert other.headers != [first]
    given = _Answers({"id": "1"})
    tr._trigger(given, arguments_of("run", "x", "--key", r'a "b" \c'), {})
    assert given.headers == [{"Idempotency-Key": r'"a \"b\" \\c"'}]
    monkeypatch.setattr(tr, "CLIENT_PATIENCE_S", 0.05)
    client = _Answers(*[going] * 1_000_000)
    with pytest.raises(tr.UsageError, match=r"^going; tried for 0\.05 s$") as raised:
        tr._trigger(client, arguments_of("run", "x"), {})
    assert raised.value.code == 75


def part(end, text, stream="stdout"):
    """An event of the stream of parts."""
    content = base64.b64encode(text.encode()).decode()
    return "part", {"end": end, "stream": stream, "bytes": content}


def test_output_goes_on_where_it_was_and_is_given_up_after_a_while(
    impatient, monkeypatch
):
    lost = tr._NoAnswer("lost")
    run = {"id": "R", "task_name": "t"}
    streams = [[lost], [part(2, "ab"), ("", None), lost], [], [part(3, "c"), lost]]
    client = _Answers(*streams, [part(5, "de"), ("done", {"run": run})])
    *parts, end = tr._remote_output(client, run)
    assert b"".join(p.content for p in parts) == b"abcde" and end == (run, "")
    monkeypatch.setattr(tr, "CLIENT_PATIENCE_S", 0.05)
    client = _Answers([part(2, "ab")], *[[lost]] * 1_000_000)
    with pytest.raises(tr.UsageError, match=r"tried for .*; run R may go on") as e:
        list(tr._remote_output(client, run))
    assert e.value.code == 69
    gone = tr._Refused(404, "no run R", {})
    with pytest.raises(tr.UsageError, match="no run R") as e:
        list(tr._remote_output(_Answers([part(2, "ab")], [gone]), run))
    assert e.value.code == 69


@contextlib.contextmanager
def cutting_proxy(daemon, asked_for, lengths):
    """A proxy that cuts the answers to some requests after so many bytes; its URL."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve_one(client):
        left = 2**40
        with client, socket.create_connection(("127.0.0.1", daemon.port)) as upstream:
            while left > 0:
                for ready in select.select([client, upstream], [], [])[0]:
                    piece = ready.recv(65_536)
                    if not piece:
                        return
                    if ready is client:
                        upstream.sendall(piece)
                        left = next(lengths) if asked_for in piece else left
                    else:
                        client.sendall(piece[:left])
                        left -= len(piece)

    def accept():
        with contextlib.suppress(OSError):
            while True:
                serve_one(listening.accept()[0])

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        listening.shutdown(socket.SHUT_RDWR)
        listening.close()
        thread.join()


@pytest.mark.parametrize("seed", range(5))
def test_log_over_a_line_that_breaks_again_and_again_is_exact(
    asked, cli, monkeypatch, seed
):
    monkeypatch.setattr(tr, "CLIENT_PAUSE_S", 0.001)
    run = asked.run("much")
    rng = random.Random(seed)
    lengths = (rng.randrange(40 * 2**n) for n in itertools.count())
    with cutting_proxy(asked, b"/log/parts", lengths) as url:
        told = cli(asked, "logs", "-f", run["id"], "--url", url)
    assert (told.code, told.out) == (0, asked.raw(run))
    assert told.err.count(b"left out") == 1


def test_run_whose_trigger_got_no_answer_is_tried_again_and_runs_once(
    asked, cli, monkeypatch
):
    monkeypatch.setattr(tr, "CLIENT_PAUSE_S", 0.001)
    before = asked.get("/api/tasks/exact/runs").json["total"]
    lengths = itertools.chain([0, 0, 20], itertools.repeat(2**40))
    with cutting_proxy(asked, b"POST ", lengths) as url:
        told = cli(asked, "run", "exact", "--url", url)
    assert (told.code, told.out[-10:]) == (0, b"no newline")
    assert asked.get("/api/tasks/exact/runs").json["total"] == before + 1


def test_run_with_a_key_runs_once(asked, cli):
    first = cli(asked, "run", "again", "--key", "build 7", "--json").json
    told = cli(asked, "run", "again", "--key", "build 7", "--json")
    assert told.code == 3 and told.json["id"] == first["id"]
    told = cli(asked, "run", "exact", "--key", "build 7")
    assert told.code == 64 and b"used" in told.err


# -- run: signals, breaks and restarts, with real processes

# Writes 10,000 lines; before one of them and at its end it waits for a file.
NUMBERED = {
    "params": [{"arg": "wait-at"}, {"arg": "half"}, {"arg": "end"}],
    "run": [
        sys.executable,
        "-c",
        ("import os, sys, time\n"
        "def wait_for(path):\n"
        "    sys.stdout.flush()\n"
        "    while not os.path.exists(path): time.sleep(0.01)\n"
        "for n in range(10_000):\n"
        "    if n == int(sys.argv[1]): wait_for(sys.argv[2])\n"
        "    if n % 100 == 0: sys.stdout.flush(); time.sleep(0.002)\n"
        "    print('line', n)\n"
        "wait_for(sys.argv[3])\n"
        "sys.exit(3)"),
    ],
}  # fmt: skip
LINES = b"".join(b"line %d\n" % n for n in range(10_000))


class Runner:
    """`taskrunnerd run` in a process of its own, its output in files."""

    def __init__(self, daemon, *words):
        self.out, self.err = daemon.folder / "run.out", daemon.folder / "run.err"
        # Ignored, and then in children too, where the tests run in the background.
        was = signal.signal(signal.SIGINT, signal.default_int_handler)
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.process = subprocess.Popen(
                daemon.command("run", *words), cwd=daemon.folder,
                env={**daemon.environment(), "TR_TEST_MARK": "client"},
                stdin=subprocess.DEVNULL, stdout=out, stderr=err,
            )
        signal.signal(signal.SIGINT, was)

    def await_output(self, text):
        """Return when it has written a text."""
        within(DEADLINE_S, lambda: text in self.out.read_bytes(), repr(text))

    def end(self):
        """How it ended, once it has."""
        try:
            code = self.process.wait(DEADLINE_S)
        finally:
            self.process.kill()
            self.process.wait()
        return Asked(code, self.out.read_bytes(), self.err.read_bytes())


def only_run(daemon):
    """The run that there is, and no other."""
    (run,) = daemon.get("/api/runs").json["runs"]
    return run


def test_run_through_an_upgrade_in_place_prints_every_line_once(serve):
    daemon = serve({"count": NUMBERED})
    half, end = daemon.folder / "half", daemon.folder / "end"
    runner = Runner(daemon, "count", "wait-at=5000", f"half={half}", f"end={end}")
    runner.await_output(b"line 1000\n")
    upgrade(daemon)
    half.touch()
    runner.await_output(b"line 5000\n")
    upgrade(daemon)
    end.touch()
    told = runner.end()
    assert (told.code, told.err) == (3, b"")
    assert told.out == LINES
    assert only_run(daemon)["exit_code"] == 3


def test_run_of_a_killed_daemon_prints_every_line_that_was_kept_once(serve):
    daemon = serve({"count": NUMBERED})
    never = daemon.folder / "never"
    runner = Runner(daemon, "count", "wait-at=5000", f"half={never}", f"end={never}")
    runner.await_output(b"line 1000\n")
    assert daemon.end(signal.SIGKILL) == -signal.SIGKILL
    # On another port: it is found by what the data directory says.
    daemon.start()
    told = runner.end()
    run = only_run(daemon)
    assert run["end_reason"] == "crashed"
    assert told.code == 137
    assert told.out == daemon.raw(run)
    assert LINES.startswith(told.out) and told.out.count(b"\n") > 1000
    assert told.err.startswith(b"taskrunnerd: crashed: the daemon died while")


def test_run_that_waits_in_a_queue_goes_on_after_a_restart(serve, fifo):
    daemon = serve({"cat": {"params": [{"arg": "file"}], "run": 'cat "$1"'}})
    daemon.trigger("cat", {"file": str(fifo)})
    text = daemon.folder / "text"
    text.write_text("at last")
    runner = Runner(daemon, "cat", f"file={text}")
    queued = "/api/runs?status=pending"
    within(DEADLINE_S, lambda: daemon.get(queued).json["runs"], "the queued run")
    assert daemon.end() == 0
    daemon.start()
    told = runner.end()
    assert told == (0, b"at last", b"")


PATIENT = {
    "run": "trap 'echo asked' TERM; echo hi; "
    "until [ -e go ]; do sleep 0.05 || :; done; "
    "echo bye; exit 7",
    "graceful_stop": "60s",
    "working_dir": ".",
}


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_run_asks_the_run_to_stop_on_a_signal_and_stays_to_its_end(serve, number, code):
    daemon = serve({"patient": PATIENT})
    runner = Runner(daemon, "patient")
    runner.await_output(b"hi\n")
    runner.process.send_signal(number)
    runner.await_output(b"asked\n")
    (daemon.folder / "go").touch()
    told = runner.end()
    assert (told.code, told.out) == (code, b"hi\nasked\nbye\n")
    # The shell may say how its sleep was ended.
    said = [x for x in told.err.decode().splitlines() if x.startswith("taskrunnerd: ")]
    first, second = said
    assert first.endswith(": asking the run to stop; once more leaves it running")
    assert re.fullmatch(r"taskrunnerd: stopped after .*, exit 7", second)
    assert only_run(daemon)["end_reason"] == "stopped"


def test_run_leaves_the_run_at_the_second_signal(serve):
    daemon = serve({"patient": PATIENT})
    runner = Runner(daemon, "patient")
    runner.await_output(b"hi\n")
    runner.process.send_signal(signal.SIGINT)
    runner.await_output(b"asked\n")
    runner.process.send_signal(signal.SIGINT)
    told = runner.end()
    run = only_run(daemon)
    assert (told.code, run["status"]) == (130, "running")
    assert told.err.endswith(b"left; the run goes on as %s\n" % run["id"].encode())
    (daemon.folder / "go").touch()
    assert daemon.ended(run)["exit_code"] == 7


def test_run_detaches_at_the_second_signal_though_nobody_reads_its_output(serve):
    daemon = serve({"flood": {"run": "while :; do echo more; done"}})
    reader, writer = os.pipe()

    def is_full():
        return not select.select([], [writer], [], 0)[1]

    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    process = subprocess.Popen(
        daemon.command("run", "flood"),
        cwd=daemon.folder, env=daemon.environment(), stdout=writer,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    signal.signal(signal.SIGINT, was)
    with process, contextlib.ExitStack() as ending:
        ending.callback(process.kill)
        killer = threading.Timer(DEADLINE_S, process.kill)
        ending.callback(killer.cancel)
        killer.start()
        within(DEADLINE_S, is_full, "a full pipe")
        process.send_signal(signal.SIGINT)
        assert b"asking the run to stop" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        within(DEADLINE_S, lambda: process.poll() is not None, "the end of the client")
        left = process.stderr.read().decode()
    assert process.returncode == 130
    run = only_run(daemon)
    assert left == f"taskrunnerd: left; the run goes on as {run['id']}\n"
    os.close(reader)
    os.close(writer)


def test_run_stopped_while_the_daemon_is_away_stops_when_it_is_back(serve, fifo):
    task = {"params": [{"arg": "file"}], "run": 'cat "$1"'}
    daemon = serve({"cat": task})
    daemon.trigger("cat", {"file": str(fifo)})
    runner = Runner(daemon, "cat", f"file={fifo}")
    queued = "/api/runs?status=pending"
    within(DEADLINE_S, lambda: daemon.get(queued).json["runs"], "the queued run")
    assert daemon.end() == 0
    runner.process.send_signal(signal.SIGINT)
    daemon.start()
    assert runner.end().code == 130
    newest, _ = daemon.get("/api/runs").json["runs"]
    assert newest["end_reason"] == "stopped"


def test_run_whose_reader_leaves_ends_quietly_and_leaves_the_run(serve, fifo):
    daemon = serve({"fifo": ASKED_TASKS["fifo"]})
    with subprocess.Popen(
        daemon.command("run", "fifo", f"fifo={fifo}"),
        cwd=daemon.folder,
        env=daemon.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout.readline() == b"waiting\n"
        process.stdout.close()
        held = reach(fifo)
        os.write(held, b"more\n")
        assert process.wait(DEADLINE_S) == 141
        assert process.stderr.read() == b""
    run = only_run(daemon)
    assert run["status"] == "running"
    finish_with(held, "")
    assert daemon.ended(run)["end_reason"] == "success"


@pytest.mark.parametrize("closed, out", [("2>&-", True), (">&- 2>&-", False)])
def test_run_with_closed_streams_disturbs_nothing(asked, closed, out):
    told = subprocess.run(
        ["sh", "-c", f'exec "$@" {closed}', "sh", *asked.command("run", "exact")],
        cwd=asked.folder, env=asked.environment(), capture_output=True,
        timeout=DEADLINE_S,
    )  # fmt: skip
    text = b"\x1b[1mbold\r\n\n\xff\xfe no newline"
    assert (told.returncode, told.stdout) == (0, text if out else b"")


def test_run_leaves_a_signal_alone_that_is_ignored():
    was = signal.signal(signal.SIGINT, signal.SIG_IGN)
    relay = tr._SignalRelay(str, str, "")
    with relay.on((signal.SIGINT,), None):
        assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
    signal.signal(signal.SIGINT, was)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_run_whose_output_cannot_be_written_says_so(asked):
    with open("/dev/full", "wb") as full:
        told = subprocess.run(
            asked.command("run", "exact"), cwd=asked.folder, env=asked.environment(),
            stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE_S,
        )  # fmt: skip
    assert told.returncode == 71
    assert b"the output cannot be written: No space left on device\n" in told.stderr


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("words", [
    "--version", "--help", "run --help", "init", "schema", "validate",
    "validate --json", "next", "systemd-unit", "dockerfile", "import-crontab /dev/null",
    "tasks", "tasks --json", "runs", "status", "health", "reload",
])  # fmt: skip
def test_output_that_cannot_be_written_ends_with_71(
    asked, cli, tmp_path, monkeypatch, words
):
    monkeypatch.chdir(tmp_path if words == "init" else asked.folder)
    before = os.dup(1)
    try:
        with open("/dev/full", "w") as full:
            os.dup2(full.fileno(), 1)
            monkeypatch.setattr(sys, "stdout", full)
            told = cli(asked, *words.split())
            with contextlib.suppress(OSError):
                full.close()
    finally:
        os.dup2(before, 1)
        os.close(before)
    assert told.code == 71
    assert told.err.endswith(b"the output cannot be written: No space left on device\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize(("words", "code"), [
    ("validate --config none", 78), ("tasks --url nowhere", 64), ("taks", 64),
    ("--bogus", 64),
])  # fmt: skip
def test_complaint_that_cannot_be_written_leaves_the_exit_code(
    cli, monkeypatch, words, code
):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        assert cli(None, *words.split()).code == code
        with contextlib.suppress(OSError):
            full.close()


def test_url_may_stand_before_the_command(asked, cli):
    told = cli(asked, "--url", asked.url, "--data", "none", "tasks", "--json")
    assert told.code == 0 and json.loads(told.out)
    told = cli(asked, "--url", "nowhere", "tasks", "--url", asked.url)
    assert told.code == 0, "the nearer one wins"
    for words in (("schema",), ("validate",), ("upgrade",), ()):
        told = cli(asked, "--url", asked.url, *words)
        assert told.code == 64 and b"unrecognized arguments: --url" in told.err


# -- the other questions to a daemon


def test_tasks_and_runs_are_tables_or_json(asked, cli):
    run = asked.run("exit", {"code": "3"})
    head, *rows = cli(asked, "tasks").out.decode().splitlines()
    assert head.split() == ["TASK", "LAST", "RUNNING", "QUEUED", "NEXT", "DESCRIPTION"]
    assert [row.split()[0] for row in rows] == list(ASKED_TASKS)
    (row,) = [row for row in rows if row.startswith("exit ")]
    assert row.split() == ["exit", "failed", "0", "0", "-"]
    assert [t["name"] for t in cli(asked, "tasks", "--json").json] == list(ASKED_TASKS)
    told = cli(asked, "runs", "exit", "--status", "failed", "-n", "1")
    head, row = told.out.decode().splitlines()
    assert head.split() == list(tr._RUN_HEAD)
    assert row.split()[:4] == [run["id"], "exit", "failed", "3"]
    assert row.endswith(run["summary"])
    told = cli(asked, "runs", "exit", "--status", "failed", "-n", "1", "--json")
    assert [found["id"] for found in told.json["runs"]] == [run["id"]]


@pytest.mark.parametrize("words, message", [
    ("runs nowhere", 'no task "nowhere"'), ("runs -n 0", "limit: must be 1 to"),
    ("runs --status odd", "status: "), ("show ?", '"?": write a run id'),
    ("show nowhere/last", 'no run is meant by "nowhere/last"'),
    ("logs 7ZZZZZZZZZZZZZZZZZZZZZZZZZ", "no run 7ZZZ"),
    ("stop 0", 'runs are meant by "0"'),
])  # fmt: skip
def test_asking_for_what_is_not_there_ends_with_64(asked, cli, words, message):
    asked.run("exit", {"code": "0"})
    asked.run("exit", {"code": "0"})
    told = cli(asked, *words.split())
    assert (told.code, told.out) == (64, b"")
    assert message in told.err.decode()


def test_run_is_named_by_its_beginning_its_end_or_last(asked, cli):
    asked.run("exit", {"code": "0"})
    run = asked.run("exact")
    names = (run["id"], run["id"].lower(), run["id"][:25], run["id"][-8:], "last")
    for name in (*names, "exact/last", f"exact/{run['id'][-8:]}"):
        assert cli(asked, "show", name, "--json").json["id"] == run["id"], name
    assert cli(asked, "show", "exit/last", "--json").json["id"] != run["id"]


def test_show_is_for_people_and_moves_no_cursor(asked, cli):
    run = asked.run("exact")
    told = cli(asked, "show", run["id"])
    facts, _, output = told.out.decode().partition("\n\n")
    rows = dict(line.split(None, 1) for line in facts.splitlines())
    assert rows["id"] == run["id"] and rows["state"] == "success"
    assert "bold\ufffd" in output.splitlines() and "\x1b" not in told.out.decode()


@pytest.mark.parametrize("result", [
    '{"a": [true, null, "\u00e9"]}', '"text"', "2.5", "false", "[]",
])  # fmt: skip
def test_show_has_the_result_as_json(asked, cli, result):
    run = asked.run("result", {"JSON": result})
    told = cli(asked, "show", run["id"]).out.decode()
    rows = dict(line.split(None, 1) for line in told.splitlines() if line)
    assert rows["result"] == result


def test_logs_follow_a_run_to_its_end_or_not(asked, cli, fifo):
    run = asked.trigger("fifo", {"fifo": str(fifo)})
    within(DEADLINE_S, lambda: asked.raw(run), "output")
    told = cli(asked, "logs", run["id"])
    assert (told.code, told.out) == (0, b"waiting\n")
    finish = threading.Thread(target=let_go, args=(fifo, "the end"))
    finish.start()
    told = cli(asked, "logs", "-f", run["id"])
    finish.join()
    assert (told.code, told.out, told.err) == (0, b"waiting\nthe end", b"")


def test_stop_asks_once_and_says_when_it_is_too_late(asked, cli):
    run = asked.trigger("patient")
    within(DEADLINE_S, lambda: asked.raw(run), "output")
    told = cli(asked, "stop", run["id"])
    assert (told.code, told.out) == (0, f"run {run['id']} asked to stop\n".encode())
    assert asked.ended(run)["end_reason"] == "stopped"
    told = cli(asked, "stop", run["id"])
    assert told == (1, b"", b"taskrunnerd: the run has already ended\n")


def test_status_is_one_screen(asked, cli, fifo):
    failed = asked.run("exit", {"code": "3"})
    with blocked(asked, "fifo", fifo) as run:
        text = cli(asked, "status").out.decode()
        found = cli(asked, "status", "--json").json
    assert text.startswith(f"taskrunnerd {tr.VERSION}  pid {asked.process.pid}  up ")
    assert "health  ok\n" in text and "\nruns    1 running, 0 queued\n" in text
    active, lately = text.index(run["id"]), text.index(failed["id"])
    assert active < text.index("FAILED LATELY") < lately
    assert len(text.splitlines()) <= 24 + tr.USAGE_ROWS + 2
    assert found["info"]["pid"] == asked.process.pid
    assert found["health"]["status"] == "ok"
    assert [r["id"] for r in found["active"]["runs"]] == [run["id"]]


def test_status_tells_which_tasks_take_most_of_the_disk(serve, cli):
    tasks = {f"t{n}": {"run": "true"} for n in range(11)}
    tasks["much"] = {"run": "yes | head -c 50000"}
    daemon = serve(tasks)
    assert "disk_usage" not in daemon.get("/api/system").json
    for name in tasks:
        daemon.run(name)
    most, *rest = daemon.get("/api/system?usage=true").json["disk_usage"]
    assert (most["task_name"], most["runs"], len(rest)) == ("much", 1, 9)
    # In blocks of 4 KiB, with one for the index.
    assert (most["log_bytes"], rest[0]["log_bytes"]) == (14 * 4096, 4096)
    assert most["database_bytes"] == rest[0]["database_bytes"] > 0
    rows = [line.split() for line in cli(daemon, "status").out.decode().splitlines()]
    assert rows[rows.index(["LOGS", "HISTORY", "RUNS", "TASK"]) + 1][-1] == "much"


def test_status_tells_the_coming_ticks(serve, cli):
    tasks = {"often": {"run": "true", "cron": "@every 1h"}, "never": {"run": "true"}}
    text = cli(serve(tasks), "status").out.decode()
    assert re.search(r"\nNEXT +TASK +SCHEDULE\n\d{4}-\S+ \S+ +often +every", text)


@pytest.mark.parametrize("variables, coloured", [
    ({"TERM": "xterm"}, True), ({"TERM": "xterm", "NO_COLOR": "1"}, False),
    ({"TERM": "dumb"}, False), ({"TERM": "xterm", "NO_COLOR": ""}, True),
])  # fmt: skip
def test_screen_has_colours_on_a_terminal_that_shows_them(
    monkeypatch, variables, coloured
):
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {**variables, "COLUMNS": "40"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(os, "isatty", lambda _: False)
    assert tr._screen() == (0, False)
    monkeypatch.setattr(os, "isatty", lambda fd: fd == 1)
    assert tr._screen() == (40, coloured)


def test_table_cuts_only_its_last_column_and_paints_states():
    rows = [("01M88YBB7HGEA495PAW1ZGAKB3", "failed", "x" * 50), ("2", "odd", "\x1b[2J")]
    head = ("RUN", "STATE", "SUMMARY")
    assert list(tr._Screen(50, True).table(head, rows)) == [
        "RUN                         STATE   SUMMARY",
        "01M88YBB7HGEA495PAW1ZGAKB3  \x1b[31mfailed\x1b[0m  " + "x" * 13 + "…",
        "2                           odd     \ufffd[2J",
    ]
    assert any("x" * 50 in line for line in tr._Screen(0, False).table(head, rows))
    assert any(rows[0][0] in line for line in tr._Screen(10, False).table(head, rows))


def test_runs_on_a_terminal_fit_it_and_have_colours(asked):
    asked.run("die", {"signal": "KILL"})
    leader, follower = os.openpty()
    told = subprocess.run(
        asked.command("runs", "die", "-n", "1"), cwd=asked.folder,
        env={**asked.environment(), "TERM": "xterm", "COLUMNS": "100", "NO_COLOR": ""},
        stdout=follower, timeout=DEADLINE_S,
    )  # fmt: skip
    os.close(follower)
    text = b""
    # What was written comes in pieces, and in the end, on Linux, an error.
    with contextlib.suppress(OSError):
        for piece in iter(lambda: os.read(leader, 65_536), b""):
            text += piece
    os.close(leader)
    _, row = text.decode().splitlines()
    assert told.returncode == 0 and "\x1b[31mfailed\x1b[0m" in row
    assert len(row.replace("\x1b[31m", "").replace("\x1b[0m", "")) == 100


def test_tables_align_what_is_wide_and_what_combines():
    rows = [("\u65e5\u672c", "\u6771\u4eac" * 9), ("e\u0301", "last"), ("abc", "x")]
    texts = list(tr._Screen(12, False).table(("A", "B"), rows))
    assert texts[:2] == ["A     B", "\u65e5\u672c  \u6771\u4eac…"]
    assert texts[2:] == ["e\u0301     last", "abc   x"]


@pytest.mark.parametrize("status, body, code", [
    (502, b"<html>", 69), (200, b"<html>", 69), (404, b"[]", 69), (200, b"", 69),
    (418, b'{"detail": "tea\\u001b[2J"}', 64),
])  # fmt: skip
def test_asking_something_else_than_a_daemon_ends_at_once(cli, status, body, code):
    listening = socket.create_server(("127.0.0.1", 0))

    def answer():
        with listening.accept()[0] as client:
            client.recv(65_536)
            head = f"HTTP/1.1 {status} Odd\r\nContent-Length: {len(body)}\r\n\r\n"
            client.sendall(head.encode() + body)

    thread = threading.Thread(target=answer)
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}/below"
    told = cli(None, "tasks", "--url", url)
    thread.join()
    listening.close()
    assert (told.code, told.out) == (code, b"")
    assert told.err.count(b"\n") == 1 and b"\x1b" not in told.err


def test_client_notices_that_its_connection_was_closed_meanwhile(serve):
    daemon = serve({"ok": {"run": "true"}})
    client = tr.Client(lambda: daemon.url, "")
    pid = client.ask("GET", "/api/info")["pid"]
    assert daemon.end() == 0
    daemon.start()
    assert client.ask("GET", "/api/info")["pid"] != pid
    client.close()


def test_client_asks_at_a_unix_socket(tmp_path):
    path = str(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        listening.listen()

        def answer():
            with listening.accept()[0] as client:
                head = client.recv(65_536)
                found.append(head.partition(b"\r\n")[0])
                client.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")

        found: list[bytes] = []
        thread = threading.Thread(target=answer)
        thread.start()
        client = tr.Client(lambda: path, "")
        assert client.ask("GET", "/api/info") == {}
        client.close()
        thread.join()
    assert found == [b"GET /api/info HTTP/1.1"]


# -- run without a daemon


def test_local_run_is_streamed_recorded_and_ends_as_its_program(serve):
    daemon = serve(ASKED_TASKS)
    variables = daemon.variables
    run = functools.partial(run_command, daemon.folder, "run", "--local", **variables)
    told = run("exit", "code=3")
    assert (told.code, told.out) == (75, "")
    pid = daemon.process.pid
    assert told.err == (
        f"taskrunnerd: --data .taskrunnerd: in use by the daemon with pid {pid}; "
        "leave --local away\n"
    )
    assert daemon.end() == 0
    told = run("exit", "code=3")
    assert (told.code, told.out, told.err) == (3, "", "")
    # Also one that may not be triggered over HTTP.
    told = run("forbidden", "--json")
    forbidden = json.loads(told.out)
    assert forbidden["end_reason"] == "success"
    told = run("again")
    assert (told.code, told.out) == (3, "try 0\ntry 1\ntry 2\n")
    daemon.start()
    shown = daemon.get(f"/api/runs/{forbidden['id']}").json
    assert shown == {**forbidden, "$schema": shown["$schema"]}
    assert daemon.get("/api/tasks/again/runs").json["total"] == 3
    local = "/api/tasks/exit/runs?exit_code_min=3&exit_code_max=3"
    (found,) = daemon.get(local).json["runs"]
    assert found["params"] == {"code": "3"}


@pytest.mark.parametrize("words, code, message", [
    ("nowhere", 64, 'no task "nowhere"'), ("exit nope=1", 64, "taskrunnerd: nope: "),
    ("exit --detach", 64, "need a daemon"), ("exit --config none", 78, "none: no such"),
    ("absent", 125, "start failed"), ("patient --timeout 50ms", 124, "stopped"),
])  # fmt: skip
def test_local_run_ends_with_the_same_codes(tmp_path, words, code, message):
    Served(tmp_path, ASKED_TASKS)
    told = run_command(tmp_path, "run", "--local", *words.split())
    assert told.code == code and message in told.err


@pytest.mark.parametrize("signals, reason", [(1, "stopped"), (2, "stopped")])
def test_local_run_is_stopped_by_a_signal_and_killed_by_the_second(
    tmp_path, signals, reason
):
    folder = tmp_path / "local"
    folder.mkdir()
    daemon = Served(folder, {"patient": PATIENT})
    runner = Runner(daemon, "--local", "patient")
    runner.await_output(b"hi\n")
    runner.process.send_signal(signal.SIGINT)
    runner.await_output(b"asked\n")
    if signals == 1:
        (folder / "go").touch()
    else:
        runner.process.send_signal(signal.SIGINT)
    told = runner.end()
    assert told.code == 130
    assert told.out == b"hi\nasked\n" + (b"bye\n" if signals == 1 else b"")
    daemon.start()
    run = only_run(daemon)
    assert run["end_reason"] == reason
    assert (run["exit_code"], run.get("signal")) == (
        (7, None) if signals == 1 else (137, "SIGKILL")
    )
    daemon.close()


def test_local_run_settles_what_crashed_and_leaves_what_is_queued(serve, fifo):
    daemon = serve({
        "fifo": {**ASKED_TASKS["fifo"], "max_concurrent": 1, "on_failure": "hook"},
        "ok": {"run": "true", "on_success": "hook"},
        "hook": {"run": "cat >/dev/null"},
        "at-start": {"run": "true", "run_on_start": True},
    })  # fmt: skip
    running = daemon.trigger("fifo", {"fifo": str(fifo)})
    queued = daemon.trigger("fifo", {"fifo": os.devnull})
    within(DEADLINE_S, lambda: daemon.raw(running), "output")
    daemon.end(signal.SIGKILL)
    told = run_command(daemon.folder, "run", "--local", "ok", **daemon.variables)
    assert (told.code, told.err) == (0, "")
    path = daemon.folder / ".taskrunnerd" / "history.sqlite3"
    with contextlib.closing(tr.Store(str(path))) as db:
        hooks = db.list_runs(tr.RunFilter(task_name="hook"), ("created_at", "asc"), 9)
    assert [run.end_reason for run in hooks] == ["success", "success"]
    daemon.start()
    ended = daemon.run_now(running)
    assert ended["end_reason"] == "crashed"
    assert daemon.ended(queued)["end_reason"] == "success"
    assert daemon.ended(queued)["start_at"] > ended["end_at"]
    assert daemon.get("/api/tasks/at-start/runs").json["total"] == 2


# -- selftest


def selftest(folder, program=PROGRAM):
    """A selftest with a place for its temporary files, misled by its environment, to
    its end; fails when anything of it is left."""
    mark = uuid.uuid4().hex
    names = ("CONFIG", "DATA", "HOST", "PORT", "TOKEN")
    misled = {f"TASKRUNNERD_{name}": "/dev/null" for name in names}
    base = {k: v for k, v in os.environ.items() if k != "HOME"}
    ended = subprocess.run(
        [sys.executable, str(program), "selftest"],
        env={**base, **misled, "TMPDIR": str(folder), "TR_TEST_MARK": mark},
        capture_output=True, encoding="utf-8", timeout=4 * DEADLINE_S,
    )
    assert os.listdir(folder) == [], ended
    assert not marked_pids(mark), describe(marked_pids(mark))
    return Told(ended.returncode, ended.stdout, ended.stderr)


def altered(folder, checks, *changes):
    """A copy of the program with (old, new) texts changed, which makes a few checks."""
    text = (HERE / "taskrunnerd.py").read_text(encoding="utf-8")
    main = 'if __name__ == "__main__":\n'
    few = f"_CHECKS = tuple(row for row in _CHECKS if row[0] in {checks})\n"
    for old, new in [*changes, (main, few + main)]:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    source, program = folder / "altered.py", folder / "altered.pyc"
    source.write_text(text, encoding="utf-8")
    py_compile.compile(str(source), str(program), doraise=True)
    return program


@pytest.fixture
def empty(tmp_path):
    """An empty folder."""
    path = tmp_path / "empty"
    path.mkdir()
    return path


def test_selftest_is_ok_and_leaves_nothing(empty):
    told = selftest(empty)
    assert (told.code, told.err) == (0, ""), told
    assert told.out.splitlines() == [f"ok {name}" for name, *_ in tr._CHECKS]


@NEEDS_PROC
def test_selftest_tells_what_differs(tmp_path, empty):
    """Four promises broken on purpose, and one that is kept."""
    changes = [
        ("            exit_code=exit_code,\n", "            exit_code=0,\n"),
        ("undead = self._end_survivors(live)", 'undead = ""'),
        ("LogWriter(base, task.log_max_bytes,", "LogWriter(base, 1 << 40,"),
        ("processes.end_leftovers({run.id for run in runs})", "{}"),
    ]
    checks = ["exit code 7", "no such program", "pipe holder", "log cap", "crash"]
    told = selftest(empty, altered(tmp_path, checks, *changes))
    assert told.code == 1 and "Traceback" not in told.err, told
    lines = told.out.splitlines()
    assert lines[:3] == [
        "differs exit code 7: exit_code is 0, not 7",
        "ok no such program",
        "differs pipe holder: survivors is 0, not 1",
    ]
    cap, crash = lines[3:]
    assert cap.startswith("differs log cap: 1009910 bytes kept by its count")
    assert re.match(r"differs crash: still alive: \d+ \(", crash)


def test_selftest_says_why_the_daemon_does_not_start(tmp_path, empty):
    change = ('"exit": {"params": [{"arg": "code"}]', '"exit": {"params": [{"arg": 7}]')
    told = selftest(empty, altered(tmp_path, ["exit code 0"], change))
    assert told.code == 1, told
    assert told.out.startswith("differs exit code 0: the daemon does not start: ")
    assert "tasks.exit.params" in told.out


INTERRUPT = "os.kill(os.getpid(), signal.SIGINT)"


@pytest.mark.parametrize("check, before", [
    ("exit code 0", "self.is_starting = False\n        if"),
    ("stubborn family", "self.expect(run, check.output"),
    ("pipe holder left", "alive = [pid for run_id"),
    ("pipe holder left", "raw = answer.read()"),
    ("crash", "self.start()\n        self.expect(queued"),
], ids=["daemon starts", "run stops", "service left", "answer comes", "daemon dead"])
def test_interrupted_selftest_leaves_nothing(tmp_path, empty, check, before):
    """Ctrl-C at the moments at which something could be left."""
    change = (before, f"{INTERRUPT}; {before}")
    told = selftest(empty, altered(tmp_path, [check], change))
    assert told == Told(1, "", "interrupted\n")


def test_next_prints_the_coming_ticks_of_all_tasks(tmp_path):
    tasks = {
        "year": {"run": "true", "cron": "@yearly", "timezone": "UTC"},
        "hour": {"run": "true", "cron": "@hourly", "timezone": "UTC"},
        "none": {"run": "true"},
    }
    write_config(tmp_path, {"tasks": tasks})
    told = call(tmp_path, "next", "-n", "3")
    assert (told.code, told.err) == (0, "")
    rows = [line.split("  ") for line in told.out.splitlines()]
    assert [row[2] for row in rows] in (["hour"] * 3, ["hour", "year", "hour"])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:00:00\+00:00 UTC", rows[0][0])
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:00:00.000Z", rows[0][1])
    one = call(tmp_path, "next", "year", "--json")
    document = json.loads(one.out)
    assert document["task_name"] == "year" and len(document["ticks"]) == 10
    every = json.loads(call(tmp_path, "next", "--json").out)
    assert [document["task_name"] for document in every] == ["year", "hour"]
    none = call(tmp_path, "next", "none")
    assert none.out == "none: no schedule, so no ticks\n"


CRONTAB = r"""
MAILTO=ops@example.com
PATH = "/opt/bin:/usr/bin"
# Nightly backup
30 3 * * *  /opt/bin/backup.sh --all; date '+\%F'
# 0 5 * * * switched off
@reboot cd /srv && ./warm-up
CRON_TZ=UTC
SHELL=/bin/bash

0 9 * * mon-fri  A=1 /opt/bin/report
0 10 * * mon-fri  A=2 /opt/bin/report
* * * * * mail ops%hello%there
61 * * * * never
5 4 * *
"""


def test_crontab_becomes_a_configuration(tmp_path):
    document, notes = tr.import_crontab(CRONTAB, "/root", has_user=False)
    assert faults_of(tmp_path, document) == []
    path = {"PATH": "/opt/bin:/usr/bin"}
    assert document["defaults"] == {
        "working_dir": "/root", "catch_up": "skip", "shell": ["/bin/sh", "-c"],
    }  # fmt: skip
    weekdays = {"timezone": "UTC", "shell": ["/bin/bash", "-c"], "env": path}
    assert document["tasks"].pop("mail") == {"notify": "mailto:ops@example.com"}
    assert {task.pop("on_failure") for task in document["tasks"].values()} == {"mail"}
    assert document["tasks"] == {
        "nightly-backup": {
            "description": "Nightly backup",
            "cron": "30 3 * * *",
            "run": "/opt/bin/backup.sh --all; date '+%F'",
            "env": path,
        },
        "warm-up": {
            "run_on_start": True, "run": "cd /srv && ./warm-up", "env": path,
        },
        "report": {
            "cron": "0 9 * * mon-fri", "run": "A=1 /opt/bin/report", **weekdays,
        },
        "report-2": {
            "cron": "0 10 * * mon-fri", "run": "A=2 /opt/bin/report", **weekdays,
        },
    }  # fmt: skip
    assert [note.partition(";")[0] for note in notes] == [
        "line 2: MAILTO: cron mails what a job writes, the task mail when one fails",
        "line 7: @reboot: runs at every start of the daemon, not only of the machine",
        "line 13: not imported: text behind % is for stdin",
        'line 14: not imported: "61" is not a minute',
        "line 15: not imported: no command behind the time",
        notes[-1].partition(";")[0],
    ]
    assert notes[-1].startswith("all: a job that still runs at its next tick is queued")


def test_crontab_mails_whom_mailto_names_above_a_job():
    text = "MAILTO=%s\n@daily /bin/a\nMAILTO=root\n@daily /bin/mail\nMAILTO=\n@daily b"
    for given, target in (("a@b.c, d", "mailto:a@b.c,d"), ("<a@b.c>\u00e9", None)):
        document, notes = tr.import_crontab(text % given, "/root", has_user=False)
        told = {
            name: document["tasks"].get(task.get("on_failure"), {}).get("notify")
            for name, task in document["tasks"].items()
            if "run" in task
        }
        assert [*told.values()] == [target, "mailto:root", None]
        assert ("nobody is told" in notes[0]) is (target is None)


def test_crontab_of_the_system_has_users():
    text = "HOME=/tmp\n17 * * * * nobody run-parts /etc/cron.hourly\n@daily root\n"
    document, notes = tr.import_crontab(text, "/root", has_user=True)
    assert document["tasks"] == {
        "run-parts": {
            "cron": "17 * * * *", "run": "run-parts /etc/cron.hourly", "user": "nobody",
            "working_dir": "/tmp", "env": {"HOME": "/tmp"},
        }
    }
    assert notes[0] == "line 3: not imported: no command behind the time"


@pytest.mark.parametrize("has_user, users, note", [
    (None, "root nobody", "all: every job begins with a user's name"),
    (None, "root no-such-user", "all: root is taken for a program"),
    (None, "nobody no-such-user", ""), (None, "no-such-user a", ""),
    (True, "root no-such-user", "line 3: user no-such-user: no such user here"),
    (False, "root nobody", ""),
])
def test_crontab_users_are_found_out(monkeypatch, has_user, users, note):
    homes = {"root": "/", "nobody": "/nonexistent"}
    monkeypatch.setattr(tr, "_home_of", homes.get)
    first, second = users.split()
    text = f"A=1\n17 * * * *\t{first} ls\n-@daily {second} ls -l\n#@daily x y"
    document, notes = tr.import_crontab(text, "/me", has_user=has_user)
    tasks = list(document["tasks"].values())
    if "program" in note or not note:
        assert [task["run"].split()[0] for task in tasks] == [first, second]
        assert not any("user" in task or "working_dir" in task for task in tasks)
    else:
        assert [task["run"] for task in tasks] == ["ls", "ls -l"]
        assert [task["user"] for task in tasks] == [first, second]
        assert [task.get("working_dir") for task in tasks] == [
            "/", homes.get(second)
        ]  # fmt: skip
    assert any(found.startswith(note) for found in notes)
    missing = "line 3: user nobody: its home /nonexistent is not there"
    assert any(found.startswith(missing) for found in notes) == (
        (has_user, second) == (None, "nobody")
    )


def test_crontab_programs_may_be_called_as_users(monkeypatch):
    monkeypatch.setattr(tr, "_home_of", {"mail": "/", "sync": "/"}.get)
    document, _ = tr.import_crontab("@daily mail ops\n@daily sync", "/")
    assert [task["run"] for task in document["tasks"].values()] == ["mail ops", "sync"]


@pytest.mark.parametrize("line, changes", [
    ("-*/15 * * * * x", {"cron": "*/15 * * * *", "run": "x"}),
    ("-@hourly x", {"cron": "@hourly", "run": "x"}),
    ("@reboot nohup x &", {"run": "nohup x &", "orphans": "leave"}),
    ("@daily x >/dev/null 2>&1 &", {"orphans": "leave"}),
    ("@daily (x; y) & echo $! >pid", {"orphans": "leave"}),
    ("@daily su bob -c 'x &'", {"orphans": "leave"}),
    ("@daily screen -dmS a x", {"orphans": "leave"}),
    ("@daily cd a && /usr/bin/tmux new -d x", {"orphans": "leave"}),
    ("@daily setsid x", {"orphans": "leave"}),
    ("@daily /etc/init.d/x restart", {"orphans": "leave"}),
    ("SHELL=/bin/bash\n@daily x && y 2>&1 | z &>a", {"orphans": None}),
    ("@reboot x &>/dev/null", {"orphans": "leave"}),
    ("@daily curl 'http://a/?b=1&c=2' \"&d\" \\&", {"orphans": None}),
    ("@daily /opt/tmux-report new", {"orphans": None}),
])
def test_crontab_job_is_taken_as_cron_takes_it(tmp_path, line, changes):
    document, _ = tr.import_crontab(line, "/", has_user=False)
    (task,) = document["tasks"].values()
    assert {key: task.get(key) for key in changes} == changes
    assert faults_of(tmp_path, document) == []


@pytest.mark.parametrize("comment, description", [
    ("# Backup\n#\n#  of all,\n# but one", "Backup of all, but one"),
    ("# ======\n# == Backup ==\n# ------", "Backup"),
    ("# at night\n\n# Backup", "Backup"), ("# Backup\n", None),
    ("# about A\nA=1", None), ("# Edit this file\n# m h  dom mon dow   command", None),
    ("# m h dom mon dow user command\n# Backup", "Backup"),
    ("# Minute Hour Day Month Weekday", None), ("#min  hr  mday", None),
    ("# was:\n# 0 5 * * 1 tar", None),
    ("# .---- minute (0 - 59)\n# |  .-- hour (0 - 23)\n# *  *  * * * u x", None),
    ("# ┌───── minute\n# │ ┌─── hour\n# │ │\n# * * * * * x", None),
    ("#@daily x\n# Backup", "Backup"),
])
def test_crontab_comment_is_the_description(comment, description):
    text = f"{comment}\n0 3 * * * /bin/dump\n0 4 * * * /bin/dump"
    tasks, _ = tr.import_crontab(text, "/", has_user=False)
    (name, task), (_, other) = tasks["tasks"].items()
    assert task.get("description") == description
    assert (name == "dump") == (description is None)
    assert "description" not in other


@pytest.mark.parametrize("shell", ["", "SHELL=/bin/sh\n"])
def test_crontab_script_goes_on_after_a_failure(tmp_path, shell):
    """As after a file of settings whose last command fails, which cron never minds."""
    (tmp_path / "settings").write_text("A=1\nfalse\n")
    job = f"{shell}@daily . {tmp_path}/settings; echo $A"
    document, _ = tr.import_crontab(job, "/", has_user=False)
    config = tr.load_config(write_config(tmp_path, document))
    (task,) = config.tasks.values()
    command = tr.command_line(task, [])
    assert subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout == b"1\n"


def test_import_crontab_prints_what_the_daemon_can_load(tmp_path):
    (tmp_path / "crontab").write_text(CRONTAB)
    told = call(tmp_path, "import-crontab", "crontab")
    assert told.code == 1  # for what could not be taken
    assert told.err.startswith("line 2: MAILTO: cron mails what a job writes")
    (tmp_path / "tasks.json").write_text(told.out)
    checked = call(tmp_path, "validate")
    assert (checked.out, checked.err) == ("tasks.json: 5 tasks, no faults\n", "")
    nothing = call(tmp_path, "import-crontab")
    assert (nothing.code, json.loads(nothing.out)["tasks"]) == (0, {})
    assert nothing.err == ""


def test_import_crontab_takes_what_is_not_utf8_and_a_copy_with_users(tmp_path):
    (tmp_path / "copy").write_bytes(
        b"\xef\xbb\xbf# caf\xc3\xa9\r\n@daily a \xc3\xa9\r\n"
        b"# \xe9t\xe9\x85\r\n@daily b c\n"
    )
    told = call(tmp_path, "import-crontab", "copy", PYTHONIOENCODING="utf-8")
    assert told.code == 0
    first, second = json.loads(told.out)["tasks"].values()
    assert (first["description"], first["run"]) == ("caf\xe9", "a \xe9")
    assert (second["description"], second["run"]) == ("\xe9t\xe9", "b c")
    assert told.err.startswith("line 3: not UTF-8; read as Latin-1, written as UTF-8\n")
    told = call(tmp_path, "import-crontab", "--system", "copy")
    users = [task["user"] for task in json.loads(told.out)["tasks"].values()]
    assert (told.code, users) == (0, ["a", "b"])


# -- notify


class Receiver:
    """A server on a thread, which answers each POST with the next of `answers` (status,
    headers, body), at last always with 200, and keeps what it got."""

    def __init__(self, tls=None):
        self.got, self.answers = [], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                outer.got.append((self.path, self.headers, body))
                status, headers, text = (
                    outer.answers.pop(0) if outer.answers else (200, {}, "ok")
                )
                self.send_response(status)
                headers = {"Content-Length": str(len(text)), **headers}
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args):
                pass

        self.server = socketserver.TCPServer(("127.0.0.1", 0), Handler)
        if tls:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
        scheme = "https" if tls else "http"
        self.url = f"{scheme}://localhost:{self.server.server_address[1]}"
        serve = functools.partial(self.server.serve_forever, poll_interval=0.01)
        self.thread = threading.Thread(target=serve)
        self.thread.start()

    def close(self):
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def receive(monkeypatch):
    """Start receivers, to which no proxy leads."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    started = []

    def start(*answers, tls=None):
        started.append(Receiver(tls))
        started[-1].answers += answers
        return started[-1]

    yield start
    for receiver in started:
        receiver.close()


NOTED = {
    "run": {"id": "1", "task_name": "backup", "status": "ended",
        "end_reason": "failed", "exit_code": 3, "summary": "exit 3 after 2s"},
    "output": [{"n": 0, "ts": 0, "stream": "stdout", "text": "fine"}]
        + [{"n": n, "ts": 0, "stream": "stderr", "text": f"<!channel> @all ``` {n}"}
        for n in range(1, 20)],
    "failures": 2,
    "url": "http://box:9477/#/runs/1",
}  # fmt: skip


@pytest.fixture
def notify(cli, monkeypatch):
    """notify(document, *words): as the command; `pauses` are those that it slept."""
    pauses = []
    monkeypatch.setattr(tr.time, "sleep", pauses.append)

    def run(document, *words):
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(raw)))
        return cli(None, "notify", *words)

    run.pauses = pauses
    return run


def test_notify_posts_what_chats_take(receive, notify):
    chat = receive()
    told = notify(NOTED, f"{chat.url}/T0/secret")
    assert (told.code, told.out) == (0, f"told {chat.url}/…\n".encode())
    [(path, headers, body)] = chat.got
    sent = json.loads(body)
    assert (path, headers["Content-Type"]) == ("/T0/secret", "application/json")
    assert sent["text"] == sent["content"] and sent["run"] == NOTED["run"]
    assert sent["allowed_mentions"] == {"parse": []}
    lines = sent["text"].split("\n")
    assert lines[:2] == ["failed: backup (2 in a row)", "exit 3 after 2s"]
    assert lines[-1] == NOTED["url"]
    # The last lines of stderr in a fence, and nobody is mentioned.
    assert (lines[2], lines[-2], len(lines)) == ("```", "```", 5 + tr.NOTICE_LINES)
    assert lines[-3] == "<\u200b!channel> @\u200ball ''' 19"


def test_notify_posts_text_and_the_document(receive, notify, cli, monkeypatch):
    ntfy = receive()
    port = ntfy.url.rpartition(":")[2]
    notify(NOTED, "--format", "text", f"http://u:p%20w@localhost:{port}/alerts")
    notify(NOTED, "--format", "json", ntfy.url)
    notify(b"disk full\n", "--format", "text", ntfy.url)
    notify(b"", "--format", "text", ntfy.url)
    notify({**NOTED, "more": "x" * tr.MIB}, "--format", "text", ntfy.url)
    notify(b"long " * 300, "--format", "text", ntfy.url)
    monkeypatch.setattr(sys, "stdin", None)  # as `<&-` does
    assert cli(None, "notify", "--format", "text", ntfy.url).code == 0
    (_, headers, text), (_, _, document), (_, _, plain), (_, _, sample) = ntfy.got[:4]
    assert headers["Title"] == "failed: backup (2 in a row)"
    assert base64.b64decode(headers["Authorization"].split()[1]) == b"u:p w"
    assert text.decode().startswith("exit 3 after 2s\n<!channel> @all")
    assert json.loads(document) == NOTED
    assert (plain, sample) == (b"disk full", b"a sample: nothing has failed")
    assert ntfy.got[3][1]["Title"] == "notify"
    more = [body for _, _, body in ntfy.got[4:]]
    assert more == [text, (b"long " * 300).strip(), sample]


@pytest.mark.parametrize("answers, code, pauses, said", [
    ([(500, {}, "broken")], 75, [], b"500 broken"), ([(408, {}, "")], 75, [], b"408"),
    ([(404, {}, "no  such\nhook")], 69, [], b"404 no such hook"),
    ([(429, {"Retry-After": "7"}, "")], 0, [7], b"429"),
    ([(429, {"Retry-After": "0.5"}, "")] * 2, 75, [0.5], b"429"),
    ([(429, {"Retry-After": "3600"}, "")], 75, [], b"429"),
    ([(503, {"Retry-After": "Wed, 21 Oct"}, "")], 75, [], b"503"),
    ([(307, {"Location": "/b"}, "")], 0, [], b""),
    ([(302, {"Location": "/b"}, "")], 0, [], b""),
    ([(302, {"Location": "//127.0.0.1/"}, "")], 69, [], b"to another host"),
    ([(301, {"Location": "file:///etc/passwd"}, "")], 69, [], b"to another host"),
    ([(308, {"Location": "/b"}, "")] * 9, 69, [], b"too many redirects"),
])  # fmt: skip
def test_notify_knows_what_another_attempt_would_help(
    receive, notify, answers, code, pauses, said
):
    receiver = receive(*answers)
    told = notify(NOTED, f"{receiver.url}/a")
    assert (told.code, notify.pauses) == (code, pauses), told
    assert said in told.err and (b"/a" in told.err) is False
    assert len({body for _, _, body in receiver.got}) == 1
    if answers[0][1].get("Location") == "/b":
        assert receiver.got[1][0] == "/b"


def test_notify_that_told_somebody_repeats_only_the_rest(receive, notify, monkeypatch):
    first = receive()
    for answers, delays, code in (
        ([(500, {}, "")] * 2, [1, 2, 4], 0),
        ([(500, {}, "")] * 3, [1, 2], 69),
    ):
        second, before = receive(*answers), len(first.got)
        given = {"targets": [first.url, second.url], "format": "chat", "smtp": ""}
        given["delays_s"] = delays
        monkeypatch.setenv("TASKRUNNERD_NOTIFY", json.dumps(given))
        assert notify(NOTED).code == code
        assert notify.pauses == [1, 2]
        assert (len(first.got) - before, len(second.got)) == (1, 3)
        notify.pauses.clear()


def test_notify_gives_up_on_a_server_that_hangs(notify, monkeypatch):
    monkeypatch.setattr(tr, "NOTICE_TRY_S", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for url in (f"http://127.0.0.1:{port}/", f"https://127.0.0.1:{port}/"):
            told = notify(NOTED, url)
            said = b"not told: no answer within 0.05 s" in told.err
            assert (told.code, said) == (75, True), told


def test_notify_verifies_tls_and_takes_a_proxy(receive, notify, tmp_path, monkeypatch):
    secure, plain = receive(tls=made_tls(tmp_path)), receive()
    told = notify(NOTED, secure.url)
    assert (told.code, b"CERTIFICATE_VERIFY_FAILED" in told.err) == (75, True)
    assert not secure.got
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    assert notify(NOTED, secure.url).code == 0
    assert len(secure.got) == 1
    monkeypatch.setenv("http_proxy", plain.url)
    assert notify(NOTED, "http://nowhere.invalid/x").code == 0
    assert plain.got[0][0] == "http://nowhere.invalid/x"


class MailServer:
    """An SMTP server on a thread; `answers` replaces those to commands by name."""

    def __init__(self, tls, **answers):
        self.tls, self.answers = tls, answers
        self.commands, self.mails = [], []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.closing = False
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self):
        while not self.closing:
            client = self.listener.accept()[0]
            client.settimeout(DEADLINE_S)
            with contextlib.suppress(OSError):
                self._talk(client)
            client.close()

    def _talk(self, client):
        client.sendall(b"220 mail\r\n")
        file = client.makefile("rb")
        while line := file.readline().decode().strip():
            name = line.split()[0].upper()
            self.commands.append(line)
            hello = "250-mail\r\n250-STARTTLS\r\n250 AUTH PLAIN"
            usual = {"EHLO": hello, "AUTH": "235 ok", "DATA": "354 go on"}
            usual["STARTTLS"] = "220 go on"
            answer = self.answers.get(name, usual.get(name, "250 ok"))
            client.sendall(f"{answer}\r\n".encode())
            if name == "STARTTLS" and answer[0] == "2":
                client = self.tls.wrap_socket(client, server_side=True)
                file = client.makefile("rb")
            elif name == "DATA":
                lines = iter(file.readline, b".\r\n")
                self.mails.append(b"".join(lines).decode())
                client.sendall(b"250 ok\r\n")
            elif name == "QUIT":
                return

    def close(self):
        self.closing = True
        socket.create_connection(("127.0.0.1", self.port)).close()
        self.thread.join()
        self.listener.close()


PLAIN_HELLO = "250 mail"


@pytest.mark.parametrize("user, answers, code, said", [
    ("me%40b.org:p%3Aw@", {}, 0, b"told mailto:"), ("", {}, 0, b""),
    ("", {"EHLO": PLAIN_HELLO}, 0, b""),
    ("me:pw@", {"EHLO": PLAIN_HELLO}, 69, b"STARTTLS"),
    ("me:pw@", {"AUTH": "535 wrong password"}, 69, b"535"),
    ("", {"RCPT": "550 nobody"}, 69, b"550"), ("", {"RCPT": "451 later"}, 75, b"451"),
    ("", {"MAIL": "421 busy"}, 75, b"421"),
])  # fmt: skip
def test_notify_mails(notify, tmp_path, monkeypatch, user, answers, code, said):
    server = MailServer(made_tls(tmp_path), **answers)
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    smtp = f"smtp://{user}localhost:{server.port}"
    monkeypatch.setenv("TASKRUNNERD_SMTP", smtp)
    try:
        words = "mailto:on-call@a-b.org,root"
        told = notify({**NOTED, "url": "http://b\u00f6x/"}, words)
    finally:
        server.close()
    assert (told.code, said in told.out + told.err) == (code, True), told
    # Nothing is sent in the clear to a server that knows TLS, and no password ever.
    names = [line.split()[0] for line in server.commands]
    assert ("STARTTLS" in names) is ("EHLO" not in answers)
    if code == 0:
        [mail] = server.mails
        assert "Subject: failed: backup (2 in a row)\r\n" in mail
        sender = "me@b.org" if user else f"taskrunnerd@{socket.gethostname()}"
        assert f"\r\nFrom: {sender}\r\n" in mail
        assert "\r\nTo: on-call@a-b.org,root\r\n" in mail
        commands = [line.lower() for line in server.commands]
        assert {"rcpt to:<on-call@a-b.org>", "rcpt to:<root>"} < {*commands}
        assert "\r\nexit 3 after 2s\r\n" in mail and "http://b=C3=B6x/" in mail
        login = "AUTH PLAIN " + base64.b64encode(b"\0me@b.org\0p:w").decode()
        assert (login in server.commands) is bool(user)


def test_notify_mails_by_the_local_sendmail(notify, tmp_path, monkeypatch):
    program = tmp_path / "sendmail"
    keep = f'(echo "$@"; cat) >{tmp_path}/said'
    program.write_text(f"#!/bin/sh\n{keep}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert notify(NOTED, "mailto:root").code == 0
    said = (tmp_path / "said").read_text()
    assert said.startswith("-oi -t\nSubject: failed: backup (2 in a row)\nTo: root\n")
    program.write_text("#!/bin/sh\necho full >&2; exit 75\n")
    told = notify(NOTED, "mailto:root")
    assert (told.code, b"sendmail: exit code 75 full" in told.err) == (75, True)


def test_notify_without_a_usable_target_is_wrong_usage(notify, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tasks = {"mail": {"notify": "mailto:x"}, "other": {"run": "true"}}
    write_config(tmp_path, {"tasks": tasks})
    for words, said in (
        ([], b"name a target, or --test TASK"),
        (["ftp://x"], b"a target must be https://"),
        (["http:///x"], b"a target must be https://"),
        (["mailto:a@b.org?subject=x"], b"a target must be https://"),
        (["--test", "other"], b'no task "other" with notify'),
        (["--test", "mail", "http://x/"], b"name a target, or --test TASK"),
    ):
        told = notify(b"", *words)
        assert (told.code, said in told.err) == (64, True), told
    monkeypatch.setenv("TASKRUNNERD_SMTP", "localhost:25")
    told = notify(b"", "mailto:root")
    assert (told.code, b"TASKRUNNERD_SMTP must be smtp" in told.err) == (64, True), told


@pytest.mark.parametrize("document, fault", [
    ({"run": {}}, b"run.task_name: must be there"),
    ({"run": {"task_name": "a", "end_reason": 5}}, b"run.end_reason: must be text"),
    ({"run": {"task_name": "a"}, "output": [1]}, b"output.0: must be an object"),
    ({"run": {"task_name": "a"}, "failures": "2"}, b"failures: must be a whole number"),
])  # fmt: skip
def test_notify_names_what_is_wrong_with_a_document(notify, document, fault):
    told = notify(document, "http://localhost:1/")
    assert (told.code, b"stdin: " + fault in told.err) == (64, True), told


SECRET_PATH = "/services/T00/B00/XyZ"


def test_notify_task_tells_retries_and_hides_its_target(serve, receive):
    chat = receive((500, {}, ""))
    gone = receive((404, {}, f"no {SECRET_PATH} for TOKEN-17"))
    query = "?token=TOKEN-17"
    targets = [f"{receiver.url}{SECRET_PATH}{query}" for receiver in (chat, gone)]
    daemon = serve(
        {
            name: {"notify": target, "retry_delay": "1ms", "notify_format": "json"}
            for name, target in zip(("chat", "gone"), targets)
        }
    )
    first = daemon.run("chat")
    [second] = daemon.get("/api/runs?task_name=chat&retries_only=true").json["runs"]
    assert first["id"] == second["id"] and second["end_reason"] == "success"
    sent = [json.loads(body) for _, _, body in chat.got]
    assert [document["run"]["task_name"] for document in sent] == ["chat", "chat"]
    assert sent[1]["run"]["id"] == second["id"]
    # A refusal ends it.
    refused = daemon.run("gone")
    assert (refused["exit_code"], refused["retry_attempt"]) == (69, 0)
    assert len(gone.got) == 1
    assert "404 no [redacted] for [redacted]" in refused["summary"]
    shown = [daemon.get("/api/tasks").raw, daemon.raw(refused), daemon.raw(second)]
    shown += [daemon.log.read_bytes(), json.dumps(refused).encode()]
    assert not [text for text in shown if SECRET_PATH.encode() in text]
    config = tr.load_config(str(daemon.folder / "tasks.json"))
    assert config.tasks["chat"].run[-1] == "notify"


def test_notify_sends_a_sample_with_the_environment_of_its_task(receive, tmp_path):
    proxy = receive()
    env = {"http_proxy": proxy.url, "no_proxy": ""}
    task = {"notify": "http://nowhere.invalid/x", "env": env}
    write_config(tmp_path, {"tasks": {"chat": task}})
    assert run_command(tmp_path, "notify", "--test", "chat").code == 0
    [(path, _, body)] = proxy.got
    assert (path, json.loads(body)["run"]["task_name"]) == (task["notify"], "chat")


def test_readme_lines_tell_of_a_failure(serve, receive, tmp_path):
    _, _, block = chapter("Know when it fails").partition("\n\n    {")
    document = json.loads("{" + block.partition("\n\n")[0])
    chat, ntfy = receive(), receive()
    mail = MailServer(made_tls(tmp_path))
    texts = json.dumps(document)
    for place, here in (
        ("https://hooks.slack.com", chat.url),
        ("https://ntfy.sh", ntfy.url),
        ("smtp.example.com:587", f"localhost:{mail.port}"),
    ):
        assert place in texts
        texts = texts.replace(place, here)
    document = json.loads(texts)
    document["tasks"]["backup"] = {
        "run": "echo fine; echo '@all broken' >&2; exit 3",
        "on_failure": ["slack", "ntfy", "mail"],
    }
    daemon = serve(document, SSL_CERT_FILE=str(tmp_path / "cert.pem"))
    try:
        run = daemon.run("backup")
        within(DEADLINE_S, lambda: chat.got and ntfy.got and mail.mails, "all three")
    finally:
        mail.close()
    [(path, _, body)] = chat.got
    link = f"{daemon.url}/#/runs/{run['id']}"
    assert path == "/services/T0/B0/XXXX"
    assert json.loads(body)["text"].split("\n") == [
        "failed: backup", run["summary"].replace("@", "@\u200b"), "```",
        "@\u200ball broken", "```", link,
    ]  # fmt: skip
    [(path, headers, body)] = ntfy.got
    assert (path, headers["Title"]) == ("/YOUR-TOPIC", "failed: backup")
    assert body.decode() == f"{run['summary']}\n@all broken\n{link}"
    assert "AUTH PLAIN" in " ".join(mail.commands)
    assert "To: ops@example.com\r\n" in mail.mails[0]
    told = daemon.get("/api/tasks").raw + daemon.log.read_bytes()
    for secret in (b"B0/XXXX", b"YOUR-TOPIC", b"ops@example.com", b"PASSWORD"):
        assert secret not in told


# -- backup, restore


def restored(cli, archive, folder):
    """The history of a backup, put back by the command."""
    told = cli(None, "restore", str(archive), "--data", str(folder))
    assert told.code == 0, told
    return tr.Store(str(folder / "history.sqlite3"))


def test_backup_of_a_daemon_at_work_is_whole(serve, cli, fifos, tmp_path):
    tasks = {
        "ok": {"run": "echo out; echo err >&2", "keep_runs": 3, "max_concurrent": 4},
        "hold": {"run": 'echo held; cat "$FIFO"', "params": [{"env": "FIFO"}]},
    }
    daemon = serve(tasks)
    data, archive = daemon.folder / ".taskrunnerd", tmp_path / "b.tar.gz"
    path = fifos()
    hold = daemon.trigger("hold", {"FIFO": path})
    held = reach(path)
    within(DEADLINE_S, lambda: daemon.raw(hold), "output")
    stop = threading.Event()

    def work():
        while not stop.is_set():
            daemon.run("ok")

    join = in_thread(work)
    # A second one finds the name taken, and what a dead one left is in nobody's way.
    Path(f"{archive}-new").write_text("left")
    Path(f"{archive}-copy").write_text("left")
    try:
        told = cli(None, "backup", str(archive), "--data", str(data))
    finally:
        stop.set()
        join()
    assert told.code == 0, told
    assert sorted(tmp_path.glob("b.tar.gz*")) == [archive]
    assert stat.S_IMODE(archive.stat().st_mode) == 0o600
    listed = subprocess.run(["tar", "-tzf", archive], capture_output=True, check=True)
    assert listed.stdout.decode().splitlines()[-1] == "history.sqlite3"
    os.close(held)
    folder = tmp_path / "restored"
    store = restored(cli, archive, folder)
    runs = store.list_runs(tr.RunFilter(), ("created_at", "desc"), 1000, 0)
    store.close()
    assert [run.status for run in runs if run.id == hold["id"]] == ["running"]
    for run in [run for run in runs if run.ended]:
        with tr.LogReader(tr.log_base(str(folder / "logs"), "ok", run.id)) as log:
            assert {line.text for line in log.last_lines(9)} == {"err", "out"}
    again = serve(tasks, "--data", str(folder))
    assert again.get(f"/api/runs/{hold['id']}").json["end_reason"] == "crashed"
    assert again.raw(hold) == b"held\n"


def test_backup_leaves_out_runs_that_are_removed_meanwhile(
    in_process, cli, tmp_path, monkeypatch
):
    daemon = in_process({"a": {"run": "echo x", "max_concurrent": 3}})
    ids = [daemon.trigger("a", {}, "api").id for _ in range(3)]
    within(DEADLINE_S, lambda: not daemon.live_ids(), "their ends")
    base = functools.partial(tr.log_base, daemon.folder.logs, "a")
    found = tr._log_files

    def at_the_second_time(data):
        monkeypatch.setattr(tr, "_log_files", then)
        return found(data)

    def then(data):
        # Between the copy of the database and those of the logs.
        tr.remove_log(base(ids[0]))
        tr.remove_log(base(ids[1]))
        gone = tr.write_forgotten([ids[1]])
        daemon.store.flush(daemon.store.enqueue(gone))
        return found(data)

    monkeypatch.setattr(tr, "_log_files", at_the_second_time)
    archive = tmp_path / "b.tar.gz"
    told = cli(None, "backup", str(archive), "--data", daemon.folder.path)
    assert b"1 runs of" in told.err
    store = restored(cli, archive, tmp_path / "restored")
    assert [bool(store.find_run(run_id)) for run_id in ids] == [False, False, True]
    store.close()


def test_backup_of_layout_1_is_brought_to_this_one_at_its_start(
    old_store, cli, tmp_path
):
    archive = tmp_path / "b.tar.gz"
    data = os.path.dirname(old_store.path)
    assert cli(None, "backup", str(archive), "--data", data).code == 0
    store = restored(cli, archive, tmp_path / "restored")
    assert store.count_runs(tr.RunFilter()) == len(old_store.runs)
    store.close()


def test_backup_and_restore_refuse_what_cannot_work(cli, tmp_path):
    data, archive = tmp_path / "data", tmp_path / "b.tar.gz"
    told = cli(None, "backup", str(archive), "--data", str(data))
    assert (told.code, b"no history there" in told.err) == (71, True)
    assert not archive.exists()
    tr.Store(tr.DataFolder(str(data)).database).close()
    told = cli(None, "backup", str(tmp_path / "no/b"), "--data", str(data))
    assert (told.code, bytes(tmp_path / "no/b-copy") in told.err) == (71, True)
    with open(f"{archive}-copy", "wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        told = cli(None, "backup", str(archive), "--data", str(data))
        assert (told.code, b"another backup is being" in told.err) == (75, True)
    told = cli(None, "backup", "-", "--data", str(data))
    whole, here = told.out, tmp_path / "here"
    assert (told.code, told.err[:26]) == (0, b"taskrunnerd: -: 0 runs of ")
    # What stands at the path and is no file is not replaced.
    pipe, link = tmp_path / "pipe", tmp_path / "link"
    os.mkfifo(pipe)
    link.symlink_to("target")
    with open(os.open(pipe, os.O_RDWR), "rb", 0) as reader:
        for path in (pipe, link):
            assert cli(None, "backup", str(path), "--data", str(data)).code == 0
        assert reader.read(2) == link.read_bytes()[:2] == whole[:2]
    assert pipe.is_fifo() and link.is_symlink()
    told = cli(None, "backup", str(tmp_path), "--data", str(data))
    assert (told.code, b"Is a directory" in told.err) == (71, True)
    told = cli(None, "restore", str(tmp_path), "--data", str(here))
    assert (told.code, b"Is a directory" in told.err) == (71, True)

    def packed(*names):
        raw = io.BytesIO()
        with tarfile.open(fileobj=raw, mode="w:gz") as tar:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = 6
                tar.addfile(info, io.BytesIO(b"a text"))
        return raw.getvalue()

    ulid = tr.Ulids().make(0)
    for content, said in (
        (whole[:-400], b"not a whole backup"),
        (whole[:-4], b"not a whole backup"),
        (whole[:-8] + b"sums" + whole[-4:], b"CRC check failed"),
        (b"no archive", b"not a whole backup"),
        (packed(f"logs/a/{ulid}.log"), b"there is no history.sqlite3 in it"),
        (packed("history.sqlite3"), b"not a database"),
        (packed(f"logs/../{ulid}.log"), b"is not of a backup"),
        (packed("/etc/passwd"), b"is not of a backup"),
        (packed("lock"), b"is not of a backup"),
    ):
        archive.write_bytes(content)
        told = cli(None, "restore", str(archive), "--data", str(here))
        assert (told.code, said in told.err) == (71, True), told
        assert os.listdir(here) == []
    archive.write_bytes(whole)
    (here / "file").write_text("")
    told = cli(None, "restore", str(archive), "--data", str(here))
    assert (told.code, b"not empty" in told.err) == (71, True)
    assert os.listdir(here) == ["file"]


# ---- 16. Appendix: the page, a client of the API ----------------------------

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)
_PLUG = """
import fcntl, os, sys
# The browser reads from file descriptor 3 and writes to 4; these may be taken.
read, write = (fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3])
os.dup2(read, 3)
os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
_CHROMIUM_FLAGS = """--headless=new --no-sandbox --disable-gpu --no-first-run
    --remote-debugging-pipe --disable-dev-shm-usage --disable-extensions --disable-sync
    --disable-background-networking --disable-component-update --no-proxy-server
    --disable-breakpad --hide-scrollbars --lang=en"""


class Browser:
    """A Chromium without a window, told what to do over a pipe (Chrome DevTools
    Protocol): JSON messages, each ended by a zero byte."""

    def __init__(self, folder):
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        fds = (to_browser, from_browser)
        profile = f"--user-data-dir={folder / 'profile'}"
        with open(folder / "chromium.log", "wb") as log:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-c", _PLUG, *map(str, fds)),
                    *(str(CHROMIUM), *_CHROMIUM_FLAGS.split(), profile),
                ],
                env={**os.environ, "HOME": str(folder), "TMPDIR": str(folder)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=fds,
                start_new_session=True,
            )
        for fd in fds:
            os.close(fd)
        self._serial = 0
        self._unread = b""
        self.events: list[Any] = []

    def call(self, method, session="", **params):
        """Call a method and return its result; events that come are kept."""
        self._serial += 1
        message = {"id": self._serial, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = json.loads(self._receive())
            if answer.get("id") == self._serial:
                assert "error" not in answer, (method, params, answer)
                return answer["result"]
            self.events.append(answer)

    def _receive(self):
        deadline = time.monotonic() + DEADLINE_S
        while b"\0" not in self._unread:
            left = max(0, deadline - time.monotonic())
            ready, _, _ = select.select([self._from], [], [], left)
            assert ready, "the browser does not answer"
            fresh = os.read(self._from, 1 << 20)
            assert fresh, "the browser has ended"
            self._unread += fresh
        message, _, self._unread = self._unread.partition(b"\0")
        return message

    def close(self):
        """End it, and all that belongs to it."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE_S)
        # Its other processes may still write into its folder.
        group = self._process.pid
        within(DEADLINE_S, lambda: not tr.group_members(group), "all of it has ended")
        os.close(self._to)
        os.close(self._from)


@pytest.fixture(scope="session")
def browser():
    """One browser for all tests: it takes a second to start."""
    if not CHROMIUM:
        pytest.skip("needs chromium")
    with make_short_folder() as folder:
        driven = Browser(Path(folder))
        yield driven
        driven.close()


class Tab:
    """A tab that shows the page of a daemon. `failures` names what a test provokes and
    the browser therefore writes to its console."""

    def __init__(self, browser, daemon, place):
        self._browser = browser
        self._home = f"http://127.0.0.1:{daemon.port}/"
        self.failures: set[str] = set()
        browser.events.clear()
        made = browser.call("Target.createTarget", url="about:blank")
        self._target = made["targetId"]
        attached = browser.call(
            "Target.attachToTarget", targetId=self._target, flatten=True
        )
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.look(1280, 900)
        self.call("Page.navigate", url=self._home + place)
        self.until("document.querySelector('#ask')")

    def call(self, method, **params):
        """Call a method for this tab."""
        return self._browser.call(method, self._session, **params)

    def look(self, width, height, scheme="light"):
        """Set the size of the window, and light or dark."""
        size = {"width": width, "height": height}
        self.call(
            "Emulation.setDeviceMetricsOverride", **size, deviceScaleFactor=1,
            mobile=False,
        )
        wish = {"name": "prefers-color-scheme", "value": scheme}
        self.call("Emulation.setEmulatedMedia", features=[wish])

    def js(self, code):
        """The JSON value of an expression."""
        told = self.call(
            "Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in told, (code, told)
        return told["result"].get("value")

    def until(self, code):
        """Wait until an expression is true."""

        def look():
            return self.js(f"Boolean({code})")

        try:
            within(DEADLINE_S, look, code)
        except AssertionError as error:
            seen = self.js("document.body?.innerText")
            raise AssertionError(f"never true: {code}; seen: {seen}"[:3000]) from error

    def shows(self, text, where="main"):
        """Wait until a text can be read."""
        self.until(f"document.querySelector({where!r})?.innerText.includes({text!r})")

    def go(self, place):
        """Open another place of the page."""
        self.js(f"location.hash = {place!r}")

    def click(self, selector):
        """Click on an element once it is there."""
        self.until(f"document.querySelector({selector!r})")
        self.js(f"document.querySelector({selector!r}).click()")

    def press(self, text, where="main"):
        """Click on the button with this text once it is there."""
        found = f"[...document.querySelectorAll('{where} button')]"
        button = f"{found}.find((one) => one.innerText === {text!r})"
        self.until(button)
        self.js(f"{button}.click()")

    def type(self, selector, text):
        """Put the cursor into a field and type."""
        self.js(f"document.querySelector({selector!r}).select()")
        self.call("Input.insertText", text=text)

    def enter(self):
        """Press the Enter key."""
        key = {"key": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, **key)

    def shoot(self, path):
        """Write a picture of what is seen."""
        shot = self.call("Page.captureScreenshot", format="png")
        path.write_bytes(base64.b64decode(shot["data"]))

    def events(self):
        """What the browser told of this tab so far."""
        events = self._browser.events
        return [one for one in events if one.get("sessionId") == self._session]

    def close(self):
        """Close it, and fail when anything went wrong or was fetched from elsewhere."""
        self._browser.call("Target.closeTarget", targetId=self._target)
        for event in self.events():
            what, params = event["method"], event["params"]
            assert what != "Runtime.exceptionThrown", params
            if what == "Runtime.consoleAPICalled":
                assert params["type"] not in ("error", "warning"), params
            if what == "Log.entryAdded" and params["entry"]["level"] == "error":
                text = params["entry"]["text"]
                assert any(failure in text for failure in self.failures), text
            if what == "Network.requestWillBeSent":
                url = params["request"]["url"]
                assert url.startswith((self._home, "data:", "blob:")), url


@pytest.fixture
def show_page(browser):
    """Open the page: show_page(daemon, place)."""
    tabs: list[Tab] = []

    def show(daemon, place=""):
        tabs.append(Tab(browser, daemon, place))
        return tabs[-1]

    yield show
    for tab in tabs:
        tab.close()


PAGE_TASKS: dict[str, Any] = {
    "greet": {
        "description": "Greets <i>somebody</i>",
        "params": [
            {"env": "NAME", "required": True, "description": "Whom to greet"},
            {"option": "--times=", "type": "integer", "default": 1},
            {"option": "--tone", "choices": ["kind", "rude"], "default": "kind"},
            {"env": "PASSWORD", "secret": True},
            {"flag": "--loud"},
        ],
        "run": 'echo "Hello, $NAME; $*"',
    },
    "hold": {
        "group": "slow",
        "params": [{"arg": "fifo", "required": True}],
        "run": 'echo first; echo wrong >&2; cat "$1"',
        "max_concurrent": 8,
    },
    "markup": {
        "group": "odd",
        "cron": "30 3 * * *",
        "timezone": "UTC",
        "run": "echo '<script>document.title = \"taken\"</script><b id=taken>'; "
        r"printf '\033[31mred\033[0m \033[38;5;9mplain\n'",
    },
    "fail": {"group": "odd", "run": "echo 'cannot open it' >&2; exit 3"},
    "million": {"group": "odd", "run": "seq 0 999999"},
    "flaky": {"run": "exit 1", "retry_attempts": 2, "retry_delay": "0s"},
    "under_score": {"run": "true"},
}


@pytest.fixture(scope="session")
def paged(tmp_path_factory):
    """A daemon with PAGE_TASKS."""
    daemon = Served(tmp_path_factory.mktemp("paged"), PAGE_TASKS).start()
    yield daemon
    daemon.close()


(PAGES_ESCAPES,) = map(re.compile, re.findall("const ESCAPES = /(.*)/;", tr.PAGE))
(PAGES_CODES,) = map(re.compile, re.findall(r'"22"\)\.replace\(/(.*)/g, ', tr.PAGE))


@pytest.mark.parametrize("piece", [
    "\x1b]", "\x1b[", "\x1b", "\x1b[1;", "\x1b[?", "\x1b\\", "\x1b]0;t\x1b", "48;",
    "38;2;", "38;2;1;2;", "1",
])  # fmt: skip
def test_page_reads_escapes_in_time_that_grows_with_the_line(piece):
    line = piece * (4 * tr.LINE_MAX_BYTES // len(piece))
    for text in (line, "\x1b]" + line, "\x1b[" + line, "38;2;" + line):
        begun_s = time.thread_time()
        PAGES_ESCAPES.split(text)
        PAGES_CODES.sub("39", text)
        # Some 10 ms; it was 20 s when each start looked through all that follows.
        assert time.thread_time() - begun_s < 1


@pytest.mark.parametrize("line, shown", [
    ("a\x1b[1;31mb\x1b[mc", ["a", "b", "c"]), ("a\x1b[2Kb", ["a", "b"]),
    ("\x1b]0;title\ab", ["b"]), ("\x1b]8;;x:y\x1b\\link\x1b]8;;\x1b\\!", ["link", "!"]),
    ("a\x1b]never ended", ["a\x1b]never ended"]), ("a\x1b]b\x1b[1mc", ["a\x1b]b", "c"]),
])
def test_page_takes_escapes_out_of_a_line(line, shown):
    assert [part for part in PAGES_ESCAPES.split(line)[::2] if part] == shown


def test_page_is_one_short_plain_file():
    lines = tr.PAGE.splitlines()
    assert len(lines) < 410 and max(map(len, lines)) <= 120
    assert tr.PAGE.isascii()
    for tag in ("<style>", "</style>", "<script>", "</script>"):
        assert tr.PAGE.count(tag) == 1
    # Nothing from elsewhere, and no text that is taken for HTML or code.
    for word in ("://", "@import", "innerHTML", "insertAdjacentHTML", "eval("):
        assert word not in tr.PAGE
    assert not re.search(r"<[^>]*\s(style|on[a-z]+)=", tr.PAGE)


def test_page_is_sent_with_a_policy_that_names_its_script_and_style(shared):
    reply = shared.get("/")
    assert reply.raw.decode() == tr.PAGE
    assert reply.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = dict(
        part.strip().split(" ", 1)
        for part in reply.headers["Content-Security-Policy"].split(";")
    )
    for tag in ("script", "style"):
        [inside] = re.findall(f"<{tag}>(.*)</{tag}>", tr.PAGE, re.DOTALL)
        digest = hashlib.sha256(inside.encode()).digest()
        named = f"'sha256-{base64.b64encode(digest).decode()}'"
        assert policy.pop(f"{tag}-src") == named
    assert policy == {
        "default-src": "'none'", "connect-src": "'self'", "img-src": "data:",
        "base-uri": "'none'", "form-action": "'none'", "frame-ancestors": "'none'",
    }


@pytest.mark.parametrize("accept, status", [
    (None, 200), ("*/*", 200), ("text/html,application/xhtml+xml,*/*;q=0.8", 200),
    ("Text/HTML", 200), ("text/*", 200), ("application/json", 406), ("image/png", 406),
    ("", 200),
])  # fmt: skip
def test_page_is_for_those_who_take_html(guarded, accept, status):
    headers = {"Authorization": "none", **({"Accept": accept} if accept else {})}
    reply = guarded.request("GET", "/", headers=headers)
    assert reply.status == status
    assert status == 200 or "/openapi.json" in reply.json["detail"]


def test_page_runs_a_task_with_parameters(paged, show_page):
    tab = show_page(paged)
    tab.shows("Greets <i>somebody</i>")
    tab.shows("every day at 03:30")
    tab.click("[aria-label='Run greet']")
    form = "#form[open]"
    tab.shows("Whom to greet", form)
    kinds = "[...document.forms[0].elements].map((one) => [one.name, one.type])"
    assert tab.js(kinds)[:5] == [
        ["NAME", "text"], ["--times=", "text"], ["--tone", "select-one"],
        ["PASSWORD", "password"], ["--loud", "checkbox"],
    ]
    tab.type("[name=NAME]", "world")
    tab.click("[name='--loud']")
    tab.press("Run", form)
    tab.shows("Hello, world; --times=1 --tone kind --loud")
    tab.shows("succeeded after")
    assert tab.js("location.hash").startswith("#/runs/")


def test_page_shows_a_refused_parameter_at_its_field(paged, show_page):
    tab = show_page(paged)
    tab.failures.add("status of 422")
    tab.click("[aria-label='Run greet']")
    tab.until("document.forms[0]?.elements.length")
    tab.type("[name='--times=']", "many")
    tab.press("Run", "#form")
    faults = "[...document.querySelectorAll('#form [aria-invalid=true]')]"
    tab.until(f"{faults}.length === 2")
    told = f"{faults}.map((one) => [one.name, one.parentNode.innerText])"
    (name, missing), (times, wrong) = tab.js(told)
    assert (name, times) == ("NAME", "--times=")
    assert "must be there" in missing and "number" in wrong
    assert tab.js("document.activeElement.name") == "NAME"
    tab.press("Cancel", "#form")
    assert not tab.js("document.querySelector('#form').open")


def test_page_shows_output_as_it_comes(paged, show_page, fifo):
    run = paged.trigger("hold", {"fifo": str(fifo)})
    tab = show_page(paged, f"#/runs/{run['id']}")
    tab.shows("first", ".log .stdout")
    tab.shows("wrong", ".log .stderr")
    tab.shows("running, ")
    fifo.write_text("and the last one\n")
    tab.shows("and the last one", ".log")
    tab.shows("succeeded after")
    tab.shows(str(fifo))


def test_page_stops_a_run_deletes_it_and_brings_it_back(paged, show_page, fifo):
    # On a slow machine its sentence may say that its program was not started.
    run = paged.trigger("hold", {"fifo": str(fifo)})
    tab = show_page(paged, f"#/runs/{run['id']}")
    tab.press("Stop")
    tab.shows("hold · stopped")
    # Until it has the whole log the page asks for more of it, also of a deleted run.
    tab.until("document.querySelector('main .bar label[hidden]')")
    tab.press("Delete")
    tab.shows("The run is deleted.", "#toasts")
    paged.get(f"/api/runs/{run['id']}", 404)
    tab.press("Undo", "#toasts")
    tab.shows("hold · stopped")
    tab.press("Run again")
    tab.until(f"location.hash.length > 20 && !location.hash.includes({run['id']!r})")
    tab.press("Stop")
    tab.shows("hold · stopped")


def test_page_filters_the_history(paged, show_page):
    for task in ("fail", "markup", "fail"):
        paged.run(task)
    tab = show_page(paged, "#/runs")
    tab.failures.add("status of 422")
    rows = "[...document.querySelectorAll('tr')].slice(1).map((row) => row.innerText)"
    tab.until(f"{rows}.length >= 3 && !{rows}.every((row) => row.startsWith('failed'))")
    tab.js("document.querySelector('[name=status]').value = 'failed'")
    tab.js("document.querySelector('main form').dispatchEvent(new Event('change'))")
    tab.until(f"{rows}.length >= 2 && {rows}.every((row) => row.startsWith('failed'))")
    assert "status=failed" in tab.js("location.hash")
    fields = "[...document.querySelectorAll('main form [name]')]"
    named = tab.js(f"{fields}.map((field) => field.name)")
    assert named and set(named) <= {name.partition(":")[0] for name in tr.PARAMS}
    tab.until(f"document.querySelectorAll('circle').length === {rows}.length")
    offered = "[...document.querySelectorAll('main form option')].map((o) => o.text)"
    assert {"under_score", "start failed"} <= set(tab.js(offered))
    tab.type("[name=exit_code_min]", "3x")
    tab.enter()
    wrong = "document.querySelector('[name=exit_code_min][aria-invalid=true]')"
    tab.until(f"{wrong}?.parentNode.innerText.includes('a whole number')")


def test_page_draws_no_history_that_was_left_before_it_came(paged, show_page):
    paged.run("fail")
    tab = show_page(paged, "#/")
    tab.shows("fail")
    # Away again in the event that shows the history, long before its runs can come.
    tab.js("""addEventListener("hashchange", () => location.hash = "#/", {once: true});
        window.wanted = []; const ask = window.fetch;
        window.fetch = (...given) => {
            const answer = ask(...given);
            if (String(given[0]).includes("api/runs?"))
                window.wanted.push(answer.then((told) => told.clone().text()));
            return answer; };
        location.hash = "#/runs" """)
    tab.until("window.wanted.length")
    # What is wrong with the drawing the console tells, and the end of the test reads.
    tab.js("Promise.all(window.wanted).then(() => new Promise(requestAnimationFrame))")
    tab.shows("Tasks")


def test_page_shows_what_a_task_writes_as_text(paged, show_page):
    run = paged.run("markup")
    tab = show_page(paged, f"#/runs/{run['id']}")
    tab.shows("<script>document.title = \"taken\"</script><b id=taken>", ".log")
    assert tab.js("document.title") == run["id"]
    assert not tab.js("document.querySelector('#taken')")
    parts = "[...document.querySelectorAll('.row:last-child span span')]"
    told = tab.js(f"{parts}.map((one) => [one.innerText, Boolean(one.style.color)])")
    assert told == [["red", True], [" ", False], ["plain", False]]


def test_page_lists_the_attempts_before_and_after_a_run(paged, show_page):
    last = paged.run("flaky")
    tab = show_page(paged, f"#/runs/{last['retry_of_run_id']}")
    tab.shows("Attempts")
    links = "[...document.querySelectorAll('.split dl a')].map((one) => one.hash)"
    tab.until(f"{links}.length === 3")
    assert tab.js(links)[1:] == [tab.js("location.hash"), f"#/runs/{last['id']}"]


def test_page_shows_a_task_that_a_reload_brought(serve, show_page):
    daemon = serve({"one": {"run": "true"}})
    tab = show_page(daemon)
    tab.shows("never run")
    daemon.write_tasks({"one": {"run": "true"}, "another": {"run": "true"}})
    daemon.post("/api/reload")
    daemon.run("one")
    tab.shows("another")
    tab.shows("success")


def test_page_asks_again_when_a_task_changes_while_the_tasks_are_on_their_way(
    serve, show_page, fifo
):
    daemon = serve({"one": HELD})
    tab = show_page(daemon)
    tab.shows("never run")
    tab.until("document.querySelector('#live').innerText === 'live'")
    # The next answer with the tasks, in which the run has not ended, comes late.
    tab.js("""window.heard = []; const hear = changed, ask = window.fetch;
        const late = new Promise((come) => window.come = come);
        changed = (name, run) => { hear(name, run); window.heard.push(name); };
        window.fetch = async (...given) => {
            const answer = await ask(...given);
            if (String(given[0]).endsWith("api/tasks") && !window.held)
                await late.then(window.held = true);
            return answer; };
        0""")
    run = daemon.trigger("one", {"fifo": str(fifo)})
    tab.until("window.held")
    let_go(fifo)
    daemon.ended(run)
    tab.until("window.heard.includes('run.completed')")
    tab.js("window.come()")
    tab.shows("success")


def test_page_asks_for_the_token_and_keeps_it_for_the_tab_only(guarded, show_page):
    tab = show_page(guarded)
    tab.failures.add("status of 401")
    tab.until("document.querySelector('#ask').open")
    assert "environment" not in tab.js("document.body.innerText")
    tab.type("#token", "wrong")
    tab.press("Go on", "#ask")
    tab.shows("This token was refused.", "#ask")
    tab.type("#token", "s3cret")
    tab.press("Go on", "#ask")
    tab.shows("environment")
    kept = "[sessionStorage.token, localStorage.length, document.cookie]"
    assert tab.js(kept) == ["s3cret", 0, ""]
    tab.call("Page.reload")
    tab.shows("environment")
    assert not tab.js("document.querySelector('#ask').open")


def test_page_says_that_it_lost_the_daemon_and_comes_back(serve, show_page):
    daemon = serve({"one": {"run": "true"}})
    tab = show_page(daemon)
    # What is asked in the last moments finds the history closed.
    tab.failures |= {"net::ERR", "503 (Service Unavailable)"}
    tab.until("document.querySelector('#live').innerText === 'live'")
    daemon.end()
    with socket.socket() as guard:
        # Nobody else gets the port meanwhile; who asks there is refused.
        guard.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        guard.bind(("127.0.0.1", daemon.port))
        tab.shows("connection lost", "#live")
        daemon.write_tasks({"one": {"run": "true"}, "another": {"run": "true"}})
        daemon.flags = ("--port", str(daemon.port))
        daemon.start()
    tab.shows("another")
    tab.until("document.querySelector('#live').innerText === 'live'")


def test_page_keeps_a_million_lines_out_of_the_document(paged, show_page):
    run = paged.run("million")
    tab = show_page(paged, f"#/runs/{run['id']}")
    tab.shows("999999", ".log")
    tab.go(f"#/runs/{run['id']}#L500000")
    tab.until("document.querySelector('.on')?.dataset.n === '500000'")
    place = "document.querySelector('.on').getBoundingClientRect()"
    assert 0 < tab.js(f"{place}.top") < 900
    tab.type("[type=search]", "765432")
    tab.enter()
    tab.until("document.querySelector('.on')?.innerText.includes('765432')")
    tab.shows("1 of 1")
    tab.js("document.querySelector('.log').scrollTop = 0")
    tab.until("document.querySelector('[data-n=\"0\"]')")
    tab.until("document.querySelectorAll('.row').length < 3000")


def test_page_shows_a_thousand_tasks_and_fetches_what_is_seen(serve, show_page):
    task = {"run": "true", "description": "One of many", "group": "many"}
    daemon = serve({f"task-{n:04}": task for n in range(1000)})
    for n in (3, 997):
        daemon.run(f"task-{n:04}")
    tab = show_page(daemon)
    tab.until("document.querySelectorAll('.task').length === 1000")
    tab.until("document.querySelectorAll('.strip .good').length === 1")
    tab.js("scrollTo(0, document.body.scrollHeight)")
    tab.until("document.querySelectorAll('.task')[997].querySelector('.strip .good')")
    asked = {
        event["params"]["request"]["url"]
        for event in tab.events()
        if event["method"] == "Network.requestWillBeSent"
    }
    assert 2 <= sum("/runs?limit=40" in url for url in asked) < 300


def test_page_names_what_can_be_operated(paged, show_page):
    run = paged.run("fail")
    tab = show_page(paged)
    operated = ("button", "link", "textbox", "searchbox", "checkbox", "combobox")
    for place in ("", "#/runs", f"#/runs/{run['id']}"):
        tab.go(place)
        tab.until("document.querySelector('main button') && !document.hidden")
        nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
        roles = [node.get("role", {}).get("value") for node in nodes]
        assert {"banner", "navigation", "main"} <= set(roles)
        for node, role in zip(nodes, roles):
            if role in operated:
                assert node["name"]["value"], node
    key = {"key": "Tab", "windowsVirtualKeyCode": 9}
    tab.call("Input.dispatchKeyEvent", type="keyDown", **key)
    assert tab.js("document.activeElement !== document.body")


def test_page_fits_dark_and_light_narrow_and_wide(paged, show_page, tmp_path):
    run = paged.run("fail")
    paged.run("greet", {"NAME": "world", "PASSWORD": "secret"})
    tab = show_page(paged)
    tab.shows("greet")
    shades = set()
    for name, place, seen in (
        ("tasks", "#/", "Greets"),
        ("history", "#/runs", "greet"),
        ("run", f"#/runs/{run['id']}", "exit 3 after"),
    ):
        tab.go(place)
        tab.shows(seen)
        tab.until("!document.querySelector('.log') || document.querySelector('.row')")
        for kind, width, scheme in (
            ("light", 1280, "light"), ("dark", 1280, "dark"), ("narrow", 380, "light"),
            ("wide", 2000, "light"),
        ):
            tab.look(width, 800, scheme)
            assert tab.js("document.documentElement.scrollWidth") <= width
            shades.add(tab.js("getComputedStyle(document.body).backgroundColor"))
            tab.shoot(tmp_path / f"{name}-{kind}.png")
            assert (tmp_path / f"{name}-{kind}.png").stat().st_size > 5000
    assert len(shades) == 2


# ---- README -----------------------------------------------------------------

README = (HERE / "README.md").read_text(encoding="utf-8")


def chapter(title):
    """A chapter of the README."""
    pattern = rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)"
    found = re.search(pattern, README, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def first_cells(text):
    """What stands in backticks in the first cell of each row, with the row's rest."""
    rows = (line.split("|", 2)[1:] for line in text.splitlines() if line[:3] == "| `")
    return {n: rest for cell, rest in rows for n in re.findall("`([^`]+)`", cell)}


def test_readme_opens_with_the_two_commands():
    lines = [line.strip() for line in README.splitlines() if line.strip()]
    assert lines[1] == "python taskrunnerd.py --port 9477"
    assert lines[2] == "python -m pip install pytest && python -m pytest"


def test_readme_names_the_flags_that_there_are():
    # The chapter on tasks.json has flags of other programs as examples.
    text = README.replace(chapter("tasks.json"), "")
    named = set(re.findall(r"`(--[a-z][a-z-]*)", text))
    of_run = {"--key", "--timeout", "--detach", "--json", "--local", "--url"}
    known = {f"--{s.name}" for s in tr._SETTINGS} | {"--version"}
    assert named == known | of_run
    table = chapter("Settings")
    for setting in tr._SETTINGS:
        (row,) = [r for r in table.splitlines() if f"`--{setting.name}`" in r[:40]]
        assert f"`{setting.variable}`" in row
        assert f"`{setting.default}`" in row or not setting.default
    variables = set(re.findall(r"TASKRUNNERD_[A-Z_]+", table))
    assert variables == {setting.variable for setting in tr._SETTINGS}


def test_readme_names_the_routes_that_there_are():
    text = chapter("The API")
    named = set(re.findall(r"`(GET|POST|DELETE) (/[^` ]*)`", text))
    assert named == {(route.method, route.path) for route in tr.API}
    paths = {path.partition("?")[0] for path in re.findall(r"`(/[^` ]+)`", README)}
    paths -= {"/bin/sh", "/dev/null"}
    assert paths <= {route.path for route in tr.API}
    queries = {key for route in tr.API for key in route.query.split()}
    words = set(re.findall("`([a-z_]+)`", text))
    assert {key.partition(":")[0] for key in queries} <= words | {"wait", "limit"}


def test_readme_shows_a_configuration_without_fault_or_warning(tmp_path):
    (tmp_path / "backup.env").touch()
    path = write_config(tmp_path, blocks(chapter("tasks.json"))[0])
    assert not tr.load_config(path).warnings


def test_readme_has_the_keys_of_a_task_with_their_defaults():
    rows = first_cells(chapter("tasks.json"))
    assert set(rows) == set(tr.TASK_KEYS)
    for key, schema in tr.TASK_KEYS.items():
        if "default" in schema:
            default = schema["default"]
            text = default if isinstance(default, str) else json.dumps(default)
            assert f"`{text or json.dumps(text)}`" in rows[key], key


def test_readme_has_the_keys_of_a_parameter():
    text = chapter("tasks.json").partition("**Parameters.**")[2]
    paragraph = text.partition("\n\n")[0]
    named = set(re.findall(r"`([a-z_]+)`", paragraph))
    kinds = set(re.findall(r'`\{"([a-z]+)":', paragraph))
    words = {"string", "number", "integer", "null"}
    assert (named | kinds) - words == set(tr._PARAM_FIELDS)


def test_readme_names_the_end_reasons_and_exit_codes():
    ends = chapter("What happens when …")
    assert [r for r in tr.END_REASONS if f"`{r}`" not in ends] == []
    codes = {str(value) for name, value in vars(tr).items() if name.startswith("EX_")}
    listed = chapter("Settings").partition("Exit codes:")[2]
    rows = chapter("From scripts and CI").partition("| exit code")[2]
    listed += " ".join(line for line in rows.splitlines() if line.startswith("| "))
    signals = {str(128 + n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)}
    assert set(re.findall(r"\b\d+\b", listed)) == codes | signals


def test_readme_names_every_command_that_asks_a_daemon():
    text = chapter("From scripts and CI") + chapter("What happens when …")
    for name in [name for name, command in tr._COMMANDS.items() if command.asks]:
        assert re.search(rf"[`.]{name}\b|py {name}\b", text), name


def lines_of(title):
    """The command lines of a chapter."""
    return "\n".join(re.findall("^    (.*)", chapter(title), re.MULTILINE))


def test_readme_lines_for_systemd_install_a_unit_that_names_what_they_install(tmp_path):
    script = lines_of("Deploy with systemd")
    assert "systemctl enable --now taskrunnerd" in script
    # There is neither sudo nor systemctl for a test, and all lies in its folder.
    script = re.sub(r"\bsudo ", "", script)
    script = re.sub(r"^systemctl .*", "", script, flags=re.MULTILINE)
    script = re.sub(r"python3? ", f"{shlex.quote(sys.executable)} ", script)
    script = re.sub(r"(?<=\s)/(opt|etc)/", rf"{tmp_path}/\1/", script)
    (tmp_path / "etc" / "systemd" / "system").mkdir(parents=True)
    for name in ("taskrunnerd.py", "tasks.json"):
        shutil.copy(HERE / name, tmp_path)
    first = script.partition("upgrade")[0].rpartition("\n")[0]
    subprocess.run(
        ["sh", "-ec", first], cwd=tmp_path, check=True, stdout=subprocess.DEVNULL
    )
    unit = (tmp_path / "etc/systemd/system/taskrunnerd.service").read_text()
    assert f"{tmp_path}/opt/taskrunnerd/taskrunnerd.py --socket" in unit
    assert (tmp_path / "etc" / "taskrunnerd" / "tasks.json").exists()


def test_readme_lines_for_a_container_are_those_of_the_dockerfile():
    printed = [line.lstrip("# ") for line in DOCKERFILE.splitlines()]
    lines = [line.strip() for line in lines_of("In a container").splitlines()]
    assert len(lines) == 4 and set(lines) <= set(printed)


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_readme_live_trigger_works_as_printed(serve):
    daemon = serve(json.loads((HERE / "tasks.json").read_text(encoding="utf-8")))
    (command,) = re.findall(r"^    (curl -N .*)$", chapter("The API"), re.MULTILINE)
    sent = subprocess.run(
        ["sh", "-c", command.replace("localhost:9477", f"localhost:{daemon.port}")],
        env={**daemon.environment(), "no_proxy": "localhost"}, capture_output=True,
        timeout=DEADLINE_S, check=True,
    )  # fmt: skip
    assert sent.stdout.startswith(b"Hello, ")
    assert b"\nRun-End-Reason: success" in sent.stderr


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_readme_trigger_works_as_printed(serve):
    tasks = json.loads((HERE / "tasks.json").read_text(encoding="utf-8"))
    daemon = serve(tasks)
    block = re.search(r"^    (curl -X POST .*?)\n\n", README, re.MULTILINE | re.DOTALL)
    assert block
    command = block[1].replace("localhost:9477", f"localhost:{daemon.port}")
    sent = subprocess.run(
        ["sh", "-c", command.replace("curl ", "curl -sS ", 1)],
        env={**daemon.environment(), "no_proxy": "localhost"}, stdout=subprocess.PIPE,
        timeout=DEADLINE_S, check=True,
    )  # fmt: skip
    run = json.loads(sent.stdout)
    assert (run["end_reason"], run["exit_code"]) == ("success", 0)
    assert daemon.raw(run) == b"Hello, world!\n"
    # The answer in the README has the members of a real one.
    shown = README[block.end() :].partition('{"$schema"')[2].partition("}\n\n")[0]
    printed = json.loads('{"$schema"' + shown + "}")
    assert set(printed) == set(run)


def blocks(text):
    """The indented blocks of a chapter, without the indentation."""
    found = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, re.MULTILINE)
    return [re.sub("(?m)^    ", "", block).strip("\n") for block in found]


def test_readme_names_the_metrics_and_their_labels(shared):
    text = chapter("Monitoring")
    rows = [line.split("|")[1:3] for line in text.splitlines() if line[:3] == "| `"]
    named = {n: set(re.findall("`(.+?)`", labels)) for cell, labels in rows
             for n in re.findall("`(.+?)`", cell)}  # fmt: skip
    assert set(named) == set(METRIC_NAMES)
    for name, labels in figures_of(shared):
        base = re.sub("_(bucket|sum|count)$", "", name)
        assert {label for label, _ in labels} <= named[base], name
    for metric in re.findall(r"(?:taskrunnerd|process)_[a-z_]+", blocks(text)[2]):
        assert metric in named


@pytest.mark.skipif(not shutil.which("curl"), reason="needs curl")
def test_readme_lines_about_monitoring_work_as_printed(shared):
    commands = blocks(chapter("Monitoring"))[0].splitlines()
    assert len(commands) == 4
    answers = []
    for command in commands:
        command = command.replace("localhost:9477", f"localhost:{shared.port}")
        process = subprocess.Popen(
            ["sh", "-c", f"exec {command}"],
            env={**shared.environment(), "no_proxy": "localhost"},
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            if len(answers) < 3:
                answers.append(process.communicate(timeout=DEADLINE_S)[0])
                continue
            # The last one would follow for ever.
            assert process.stdout
            answers.append("".join(itertools.islice(process.stdout, 3)))
            process.kill()
    assert parse_metrics(answers[0])
    assert parse_metrics(answers[1], open_metrics=True)
    assert isinstance(json.loads(answers[2]), list)
    assert re.fullmatch(r"id: \d+\nevent: line\ndata: .*\n", answers[3])


@pytest.mark.skipif(not shutil.which("promtool"), reason="needs promtool")
def test_readme_configuration_is_what_promtool_accepts(tmp_path):
    _, config, rules = blocks(chapter("Monitoring"))
    token = tmp_path / "token"
    token.touch()
    config = config.replace("/etc/prometheus/taskrunnerd.token", str(token))
    for kind, text in (("config", config), ("rules", rules)):
        path = tmp_path / f"{kind}.yml"
        path.write_text(text)
        done = subprocess.run(
            ["promtool", "check", kind, str(path)], stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=DEADLINE_S,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout.decode()
