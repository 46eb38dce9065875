"""Measure the daemon on this machine, beside what the machine does without it.

    python .ci/bench.py                   a table, in some minutes
    python .ci/bench.py --quick           a rough look, in one or two
    python .ci/bench.py --only trigger,start
    python .ci/bench.py --against FILE    beside another taskrunnerd.py, with ratios
    python .ci/bench.py --rows 1000000    with so long a history
    python .ci/bench.py --json            the same figures for machines

A figure means little alone: the same disk is twice as slow an hour later. So all that
is compared is measured in turns: a round measures each column of the table once, and
the table has medians over the rounds. The columns are this daemon, the one of
--against, the bare program without any daemon, Debian's webhook if it is installed, and
RunWisp if the environment variable RUNWISP has the path of its program. Clients that
make load run in a process of their own, one epoll loop with prebuilt requests, so that
they take little from the cores they share with the daemon. All state lies in a
temporary directory on a real disk, because every run costs two commits: `--dir` says
where, else TMPDIR.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import http.client
import json
import multiprocessing
import os
import platform
import resource
import selectors
import shutil
import signal
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any, Callable, NamedTuple

DAEMON = Path(__file__).resolve().parent.parent / "taskrunnerd.py"
HERE, AGAINST, BARE, WEBHOOK, RUNWISP = "here", "against", "bare", "webhook", "RunWisp"
OURS, EVERYBODY = (HERE, AGAINST), (HERE, AGAINST, WEBHOOK, RUNWISP)
TRUE = ["/bin/sh", "-ec", "true"]
LINE = "0123456789" * 4 + "012345678"
CLIENTS = (1, 16, 64)
WAITING_CLIENTS = 500
CRON_TASKS, TICKED_TASKS, HISTORY_TASKS = 100, 300, 200
FAILED_SHARE = 50
SMALL_ROWS = 2_000
FLOODS = 64
CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
TIMES = ("created_at", "scheduled_at", "start_at", "end_at")
MEMORY_FILESYSTEMS = ("tmpfs", "ramfs")

WARM_UP_S = 0.5
SETTLE_S = 1.0
TICK_LEAD_S = 4
ANSWER_LIMIT_S = 60
STOP_LIMIT_S = 30

# name | unit | goals: at most or at least so much of the figure itself, of its ratio to
# that of another column, or of its ratio to another figure
FIGURES = """
1 client: p50 | ms | <= 1.9 bare
1 client: p99 | ms |
1 client: runs | /s |
1 client: processor time per run | ms |
16 clients: p50 | ms |
16 clients: p99 | ms |
16 clients: runs | /s | >= 1.6 against; >= 0.6 webhook
16 clients: processor time per run | ms | <= 0.6 against
64 clients: p50 | ms |
64 clients: p99 | ms |
64 clients: runs | /s | >= 1.8 against; >= 1 16 clients: runs
64 clients: processor time per run | ms | <= 0.6 against
captured output, 50-byte lines | MB/s | >= 0.35 bare
start to ready | ms | <= 200; <= 0.8 against
start to ready, python -m | ms | <= 200
highest memory of a start | MB | <= 0.8 against
memory, idle | MB | <= 32
500 waiting clients, cold: more | MB | <= 15
500 waiting clients, after load: more | MB | <= 15
wake-ups in 60 s, 100 cron tasks | | <= 20
300 tasks on one second, all ended | s | <= 0.25
flood of lines: more memory | MB | <= 20
flood of one line: more memory | MB | <= 20
GET /api/tasks, p99 | ms |
GET /api/tasks while 64 runs write, p99 | ms | <= 50
start to ready, N rows: later | ms | <= 20
list of all, 2,000 rows | ms |
list of all, N rows | ms | <= 1; <= 2 list of all, 2,000 rows
list of a task, N rows | ms | <= 1
list of a status, N rows | ms | <= 1
list of failed of a task, N rows | ms | <= 2
GET /metrics, N rows, 200 tasks, idle | ms | <= 5
GET /metrics, 20 runs between scrapes | ms | <= 5
"""
LISTS = {
    "all": "/api/runs?limit=50",
    "a task": "/api/tasks/task7/runs?limit=50",
    "a status": "/api/runs?limit=50&status=failed",
    "failed of a task": "/api/tasks/task7/runs?limit=50&status=failed",
}


class Plan(NamedTuple):
    """How long each figure may take."""

    load_s: float
    bare_runs: int
    output_bytes: int
    rows: int
    list_requests: int
    flood_bytes: int
    flooded_requests: int
    idle_s: int


FULL = Plan(3.0, 200, 200_000_000, 500_000, 100, 1_000_000_000, 2_000, 60)
QUICK = Plan(1.0, 60, 50_000_000, 20_000, 40, 200_000_000, 300, 5)

Values = Iterator[tuple[str, float]]
Tasks = dict[str, dict[str, Any]]
COMMON_TASKS: Tasks = {"true": {"run": "true", "max_concurrent": 64}}


class BenchError(Exception):
    """The daemon did not do what is to be measured."""


def percentile_ms(seconds: list[float], percent: float) -> float:
    """The smallest value that `percent` of them do not exceed."""
    return (
        sorted(seconds)[min(len(seconds) - 1, int(len(seconds) * percent / 100))] * 1e3
    )


def median_ms(seconds: list[float]) -> float:
    return statistics.median(seconds) * 1e3


# ---- The programs ----------------------------------------------------------------


class Program(NamedTuple):
    """What is measured: the heading of its column, and the file of the program."""

    name: str
    path: str

    def prepare(self, home: Path, tasks: Tasks, port: int) -> list[str]:
        """Writes its configuration; the command that starts it."""
        if self.name == WEBHOOK:
            hooks = [
                {
                    "id": name,
                    "execute-command": "/bin/sh",
                    "pass-arguments-to-command": [
                        {"source": "string", "name": text}
                        for text in ("-ec", task["run"])
                    ],
                    "include-command-output-in-response": True,
                }
                for name, task in tasks.items()
            ]
            (home / "hooks.json").write_text(json.dumps(hooks))
            options = f"-hooks hooks.json -ip 127.0.0.1 -port {port}"
            return [self.path, *options.split()]
        options = f"--data state --port {port} --config"
        if self.name == RUNWISP:
            lines = ["daemon.check_updates = false"]
            for name, task in tasks.items():
                lines.append(f"[tasks.{name}]")
                lines += [f"{key} = {json.dumps(value)}" for key, value in task.items()]
            (home / "runwisp.toml").write_text("\n".join(lines))
            return [self.path, "daemon", *options.split(), "runwisp.toml"]
        (home / "tasks.json").write_text(json.dumps({"tasks": tasks}))
        return [sys.executable, self.path, *options.split(), "tasks.json"]

    def run_path(self, task: str) -> str:
        """Where a POST runs a task and is answered at its end."""
        hook = self.name == WEBHOOK
        return f"/hooks/{task}" if hook else f"/api/tasks/{task}/run?wait=true"

    @property
    def success(self) -> bytes:
        """What the answer about a run that succeeded has in it."""
        return b"" if self.name == WEBHOOK else b'eason":"succe'


class Daemon(NamedTuple):
    """A daemon that is ready."""

    program: Program
    pid: int
    address: Any
    ready_s: float = 0.0

    def status(self, field: str, thread: str = "") -> int:
        """A number of /proc/PID/status, or of one of its threads."""
        text = Path(f"/proc/{self.pid}/{thread}/status").read_text()
        return int(text.partition(f"\n{field}:")[2].split()[0])

    def memory_mb(self, field: str = "VmRSS") -> float:
        """VmRSS of the process, or its peak VmHWM, in 10^6 bytes."""
        return self.status(field) * 1024 / 1e6

    def wakeups(self) -> int:
        """How often the threads that live have waited and were woken."""
        threads = os.listdir(f"/proc/{self.pid}/task")
        return sum(self.status("voluntary_ctxt_switches", f"task/{t}") for t in threads)

    def processor_s(self) -> float:
        """User and system time of its own, without that of its children."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def send(self, method: str, path: str) -> socket.socket:
        """A new connection with that request on it."""
        tcp = isinstance(self.address, tuple)
        connection = socket.socket(socket.AF_INET if tcp else socket.AF_UNIX)
        try:
            connection.settimeout(ANSWER_LIMIT_S)
            connection.connect(self.address)
            if tcp:
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(request_bytes(method, path))
        except OSError:
            connection.close()
            raise
        return connection

    def ask(self, method: str, path: str) -> Any:
        """The JSON document of the answer. Blocks until it is here."""
        with self.send(method, path) as connection:
            answer = http.client.HTTPResponse(connection, method=method)
            answer.begin()
            body = answer.read()
        if answer.status >= 300:
            raise BenchError(f"{path}: {answer.status} {body.decode()}")
        return json.loads(body or "null")

    def wait_for_total(self, path: str, count: int) -> dict[str, Any]:
        """A list of runs once there are so many. Blocks."""
        deadline = time.monotonic() + ANSWER_LIMIT_S
        while (listed := self.ask("GET", path))["total"] < count:
            if time.monotonic() > deadline:
                raise BenchError(f"not {count} runs at {path}")
            time.sleep(0.1)
        return dict(listed)


@contextlib.contextmanager
def running(
    program: Program,
    home: Path,
    tasks: Tasks = COMMON_TASKS,
    *,
    keep: bool = False,
    bytecode: Path | None = None,
) -> Iterator[Daemon]:
    """A daemon that has answered a request, with its state in `home`, where `keep`
    leaves what is there; it has ended when the block is left. With `bytecode` it is
    started as a module, whose compiled text is kept there."""
    home.mkdir(parents=True, exist_ok=True)
    if not keep:
        shutil.rmtree(home / "state", ignore_errors=True)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        address = probe.getsockname()
    command = program.prepare(home, tasks, address[1])
    if program.name == RUNWISP:  # TCP wants a password, the socket does not
        address = str(home / "state/runwisp.sock")
    environ = {k: v for k, v in os.environ.items() if not k.startswith("TASKRUNNERD_")}
    environ["TZ"] = "UTC"
    if bytecode:
        command[1:2] = ["-m", Path(program.path).stem]
        environ.pop("PYTHONDONTWRITEBYTECODE", None)
        environ["PYTHONPYCACHEPREFIX"] = str(bytecode)
        environ["PYTHONPATH"] = str(Path(program.path).parent)
    with open(home / "output", "w") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            command, cwd=home, env=environ, stdout=output, stderr=output
        )
    daemon = Daemon(program, process.pid, address)
    with process:
        try:
            while True:
                with (
                    contextlib.suppress(OSError),
                    daemon.send("GET", "/healthz") as asked,
                ):
                    asked.recv(1 << 16)
                    break
                if (
                    process.poll() is not None
                    or time.perf_counter() > began + ANSWER_LIMIT_S
                ):
                    said = (home / "output").read_text(errors="replace")[-2000:]
                    raise BenchError(f"{program.name} is not ready: {said}")
                time.sleep(0.001)
            yield daemon._replace(ready_s=time.perf_counter() - began)
        finally:
            process.terminate()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()


# ---- Clients ---------------------------------------------------------------------


def request_bytes(method: str, path: str) -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n"
    return (head + "Content-Length: 0\r\n\r\n").encode()


def is_answer(received: bytes) -> bool:
    """Whether all of it is here. Raises BenchError if it is not that of a success."""
    head, gap, body = received.partition(b"\r\n\r\n")
    if gap and not head.startswith(b"HTTP/1.1 2"):
        raise BenchError(f"unexpected answer: {received.decode()}")
    length = head.lower().partition(b"\ncontent-length:")[2].partition(b"\r")[0]
    return bool(gap) and len(body) >= int(length)


def drive(
    daemon: Daemon,
    request: tuple[str, str],
    clients: int = 1,
    load_s: float = 0.0,
    count: int = 0,
) -> list[tuple[float, float]]:
    """When each answer came and after how many seconds, from clients that each ask
    again as soon as they are answered, for so long or so many times."""
    again = request_bytes(*request)
    answers: list[tuple[float, float]] = []
    until = time.perf_counter() + load_s
    with selectors.DefaultSelector() as selector:
        for _ in range(clients):
            began = time.perf_counter()
            selector.register(daemon.send(*request), 1, [b"", began])
        while selector.get_map():
            ready = selector.select(ANSWER_LIMIT_S)
            if not ready:
                raise BenchError(f"no answer for {ANSWER_LIMIT_S} s")
            for key, _ in ready:
                asked: Any = key.fileobj
                part = asked.recv(1 << 16)
                key.data[0] += part
                if not part:
                    raise BenchError(f"connection closed after {key.data[0]!r}")
                if not is_answer(key.data[0]):
                    continue
                if request[0] == "POST" and daemon.program.success not in key.data[0]:
                    raise BenchError(f"the run did not succeed: {key.data[0]!r}")
                now = time.perf_counter()
                answers.append((now, now - key.data[1]))
                if now < until or len(answers) < count:
                    key.data[:] = b"", now
                    asked.sendall(again)
                else:
                    selector.unregister(asked)
                    asked.close()
    return answers


def time_many(daemon: Daemon, path: str, count: int) -> list[float]:
    """Seconds that each of so many requests took, one after the other."""
    return [took_s for _, took_s in drive(daemon, ("GET", path), count=count)]


def drive_apart(
    daemon: Daemon, clients: int, load_s: float
) -> list[tuple[float, float]]:
    """`drive` with runs of `true`, in a process of its own."""
    request = "POST", daemon.program.run_path("true")
    fork = multiprocessing.get_context("fork")
    # the pool ends its process with SIGTERM, which main() has made an exception
    with fork.Pool(1, signal.signal, (signal.SIGTERM, signal.SIG_DFL)) as pool:
        return pool.apply(drive, (daemon, request, clients, load_s))


# ---- Measurements ----------------------------------------------------------------


def time_command(command: list[str]) -> float:
    """Seconds a program takes from start to end."""
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


def measure_trigger(program: Program, home: Path, plan: Plan) -> Values:
    """Trigger and wait, from a request to the answer with the ended run."""
    with contextlib.ExitStack() as stack:
        if program.name != BARE:
            daemon = stack.enter_context(running(program, home))
            drive_apart(daemon, 1, WARM_UP_S)
        for clients in CLIENTS:
            name = f"{clients} client{'s'[: clients > 1]}"
            if program.name == BARE:
                took_s = [time_command(TRUE) for _ in range(plan.bare_runs)]
                runs_per_s = len(took_s) / sum(took_s)
            else:
                before_s = daemon.processor_s()
                answers = drive_apart(daemon, clients, WARM_UP_S + plan.load_s)
                processor_s = daemon.processor_s() - before_s
                yield (
                    f"{name}: processor time per run",
                    processor_s / len(answers) * 1e3,
                )
                # without the start and the clients that are the last ones
                since = answers[0][0] + WARM_UP_S
                until = since + plan.load_s - 0.1
                took_s = [took for now, took in answers if since <= now < until]
                runs_per_s = len(took_s) / (until - since)
            yield f"{name}: p50", median_ms(took_s)
            yield f"{name}: p99", percentile_ms(took_s, 99)
            yield f"{name}: runs", runs_per_s


def measure_output(program: Program, home: Path, plan: Plan) -> Values:
    """Captured output; bare is the shell that writes the same into a file."""
    writer = f"yes {LINE} | head -c {plan.output_bytes}"
    # what the last one left to be written must not slow this one down
    os.sync()
    if program.name == BARE:
        took_s = time_command(["/bin/sh", "-ec", f"{writer} >'{home / 'lines'}'"])
    else:
        task = {"run": writer, "log_max_size": "1gb"}
        with running(program, home, {"lines": task}) as daemon:
            began = time.perf_counter()
            run = daemon.ask("POST", program.run_path("lines"))
            took_s = time.perf_counter() - began
        if run["output_bytes"] != plan.output_bytes:
            raise BenchError(f"the output is not complete: {run}")
    yield "captured output, 50-byte lines", plan.output_bytes / 1e6 / took_s


def measure_start(program: Program, home: Path, plan: Plan) -> Values:
    """From the start of the process to its first answer, with empty state; as a script,
    which is compiled at each start, and as a module, which is not. Bare is Python."""
    if program.name == BARE:
        yield "start to ready", time_command([sys.executable, "-c", "pass"]) * 1e3
        return
    with running(program, home) as daemon:
        yield "start to ready", daemon.ready_s * 1e3
        yield "highest memory of a start", daemon.memory_mb("VmHWM")
    if program.name in OURS:
        kept = home / "bytecode"
        if not kept.exists():
            with running(program, home, bytecode=kept):
                pass
        with running(program, home, bytecode=kept) as daemon:
            yield "start to ready, python -m", daemon.ready_s * 1e3


def measure_memory(program: Program, home: Path, plan: Plan) -> Values:
    """Resident memory after one run, and with clients that wait for a held task."""
    hold = {"run": "sleep 600", "queue_max": 2 * WAITING_CLIENTS}
    ours = program.name in OURS
    for how in ("cold", "after load")[: 1 + ours]:
        tasks = {**COMMON_TASKS, "hold": hold} if ours else COMMON_TASKS
        with running(program, home, tasks) as daemon, contextlib.ExitStack() as stack:
            drive_apart(
                daemon, 1 if how == "cold" else 16, (how != "cold") * plan.load_s
            )
            time.sleep(SETTLE_S)
            idle_mb = daemon.memory_mb()
            if how == "cold":
                yield "memory, idle", idle_mb
            for _ in range(WAITING_CLIENTS * ours):
                stack.enter_context(daemon.send("POST", program.run_path("hold")))
            if ours:
                path = "/api/tasks/hold/runs?limit=1&status=pending,running"
                daemon.wait_for_total(path, WAITING_CLIENTS)
                time.sleep(SETTLE_S)
                yield f"500 waiting clients, {how}: more", daemon.memory_mb() - idle_mb


def cron_tasks(count: int, cron: str) -> Tasks:
    return {f"task{number}": {"run": "true", "cron": cron} for number in range(count)}


def measure_idle(program: Program, home: Path, plan: Plan) -> Values:
    """How often the threads of a daemon wake up that has nothing to do for long."""
    later = datetime.now(timezone.utc) + timedelta(hours=12)
    with running(
        program, home, cron_tasks(CRON_TASKS, f"0 {later.hour} * * *")
    ) as daemon:
        time.sleep(SETTLE_S)
        before = daemon.wakeups()
        time.sleep(plan.idle_s)
        woken = (daemon.wakeups() - before) * 60 / plan.idle_s
    yield "wake-ups in 60 s, 100 cron tasks", woken


def measure_ticks(program: Program, home: Path, plan: Plan) -> Values:
    """From a second on which many tasks fire to the end of the last of their runs."""
    tick = datetime.now(timezone.utc).replace(microsecond=0)
    tick += timedelta(seconds=TICK_LEAD_S)
    tasks = cron_tasks(TICKED_TASKS, f"{tick:%S %M %H %d %m} *")
    key, ended = (
        ("endedAt", "succeeded") if program.name == RUNWISP else ("end_at", "ended")
    )
    with running(program, home, tasks) as daemon:
        time.sleep(max(0.0, tick.timestamp() + SETTLE_S - time.time()))
        path = f"/api/runs?limit={TICKED_TASKS}&status={ended}"
        listed = daemon.wait_for_total(path, TICKED_TASKS)
    runs = next(value for value in listed.values() if isinstance(value, list))
    # in UTC, with three decimals or with up to nine
    last = max(run[key].rstrip("Z")[:23].ljust(23, "0") for run in runs)
    last_s = datetime.fromisoformat(last + "+00:00").timestamp()
    yield "300 tasks on one second, all ended", last_s - tick.timestamp()


def measure_flood(program: Program, home: Path, plan: Plan) -> Values:
    """The most memory one run's flood ever took, and how the API answers in many."""
    endless = {
        "run": f"exec yes {LINE}",
        "max_concurrent": FLOODS,
        "log_max_size": "1mb",
    }
    tasks = {
        "lines": {"run": f"yes {LINE} | head -c {plan.flood_bytes}"},
        "line": {"run": f"head -c {plan.flood_bytes} /dev/zero"},
    }
    with running(
        program, home, {**COMMON_TASKS, **tasks, "endless": endless}
    ) as daemon:
        daemon.ask("POST", program.run_path("true"))
        time.sleep(SETTLE_S)
        idle_mb = daemon.memory_mb()
        for task, shape in (("lines", "lines"), ("line", "one line")):
            # see proc_pid_clear_refs(5): the peak is noted anew
            Path(f"/proc/{daemon.pid}/clear_refs").write_text("5")
            run = daemon.ask("POST", program.run_path(task))
            if run["output_bytes"] != plan.flood_bytes:
                raise BenchError(f"the output is not complete: {run}")
            yield f"flood of {shape}: more memory", daemon.memory_mb("VmHWM") - idle_mb
        for floods, how in ((0, ""), (FLOODS, f" while {FLOODS} runs write")):
            for _ in range(floods):
                daemon.ask("POST", "/api/tasks/endless/run")
            time.sleep(SETTLE_S)
            took_s = time_many(daemon, "/api/tasks", plan.flooded_requests)
            yield f"GET /api/tasks{how}, p99", percentile_ms(took_s, 99)


def measure_history(program: Program, home: Path, plan: Plan) -> Values:
    """What a long history costs: start, lists, and figures for a monitoring system,
    when nothing has ended since the last scrape and when a run has of some tasks."""
    names = ["true", *(f"task{number}" for number in range(1, HISTORY_TASKS))]
    tasks: Tasks = {name: {"run": "true"} for name in names}
    tasks["false"] = {"run": "false"}
    for rows in (SMALL_ROWS, plan.rows):
        if not (home / str(rows)).exists():
            make_history(program, home / str(rows), tasks, rows)
    with running(program, home / "empty", tasks) as daemon:
        empty_s = daemon.ready_s
    with running(program, home / str(SMALL_ROWS), tasks, keep=True) as daemon:
        took_s = time_many(daemon, LISTS["all"], plan.list_requests)
        yield "list of all, 2,000 rows", median_ms(took_s)
    with running(program, home / str(plan.rows), tasks, keep=True) as daemon:
        yield "start to ready, N rows: later", (daemon.ready_s - empty_s) * 1e3
        for name, path in LISTS.items():
            if len(daemon.ask("GET", path)["runs"]) < min(50, plan.rows // 20_000):
                raise BenchError(f"too few runs at {path}")
            took_s = time_many(daemon, path, plan.list_requests)
            yield f"list of {name}, N rows", median_ms(took_s)
        took_s = time_many(daemon, "/metrics", plan.list_requests // 4)
        yield "GET /metrics, N rows, 200 tasks, idle", median_ms(took_s)
        took_s = []
        for number in range(plan.list_requests // 20):
            for name in names[number % 10 :: 10]:
                daemon.ask("POST", program.run_path(name))
            took_s += time_many(daemon, "/metrics", 1)
        yield "GET /metrics, 20 runs between scrapes", median_ms(took_s)


def moved(moment: Any, by_s: int) -> Any:
    """A stored time so much earlier: Unix milliseconds, or RFC 3339 in UTC."""
    if isinstance(moment, int):
        return moment - by_s * 1000
    earlier = datetime.fromisoformat(moment.rstrip("Z")) - timedelta(seconds=by_s)
    return earlier.isoformat(timespec="milliseconds") + "Z"


def make_history(program: Program, home: Path, tasks: Tasks, rows: int) -> None:
    """A state directory with so many ended runs: real ones and their copies.

    The copies are a second apart and older, of all tasks in turn, one of FAILED_SHARE
    failed. Nothing is assumed of the table but its name and that a run's fields are
    called in SQL as they are called in JSON.
    """
    with running(program, home, tasks) as daemon:
        asked = [
            daemon.ask("POST", program.run_path(name)) for name in ("true", "false")
        ]
    began_ms = int(time.time() * 1000)
    state = home / "state"
    files = [path for path in state.iterdir() if path.is_file()]
    file = next(path for path in files if path.open("rb").read(13) == b"SQLite format")
    with contextlib.closing(sqlite3.connect(file)) as db:
        db.row_factory = sqlite3.Row
        # the row's own number, if it has a visible one, is given anew
        table = db.execute("select name, pk, type from pragma_table_info('runs')")
        columns = [
            name for name, pk, kind in table if not pk or "int" not in kind.lower()
        ]
        ask = "select * from runs where id = ?"
        real = [dict(db.execute(ask, (run["id"],)).fetchone()) for run in asked]
        times = [name for name in TIMES if real[0].get(name) is not None]

        def copies() -> Iterator[list[Any]]:
            for age_s in range(rows - 2, 0, -1):
                copy = dict(real[age_s // HISTORY_TASKS % FAILED_SHARE == 0])
                bits = began_ms - age_s * 1000 << 80 | age_s
                copy["id"] = "".join(
                    CROCKFORD[bits >> n & 31] for n in range(125, -1, -5)
                )
                copy["task_name"] = list(tasks)[age_s % HISTORY_TASKS]
                copy.update({name: moved(copy[name], age_s) for name in times})
                yield [copy[name] for name in columns]

        db.execute("pragma synchronous = off")
        places = ", ".join("?" * len(columns))
        insert = f"insert into runs ({', '.join(columns)}) values ({places})"
        with db:
            db.executemany(insert, copies())
        db.execute("pragma wal_checkpoint(truncate)")


class Measurement(NamedTuple):
    """What yields values of some figures for one column, in one round."""

    measure: Callable[[Program, Path, Plan], Values]
    columns: tuple[str, ...]
    rounds: int
    quick_rounds: int = 1
    together: bool = False  # all columns at a time: they do nothing


MEASUREMENTS = {
    "trigger": Measurement(measure_trigger, (BARE, *EVERYBODY), 5, 2),
    "output": Measurement(measure_output, (BARE, *OURS), 3),
    "start": Measurement(measure_start, (BARE, *EVERYBODY), 7, 3),
    "memory": Measurement(measure_memory, EVERYBODY, 1),
    "idle": Measurement(measure_idle, (*OURS, RUNWISP), 1, together=True),
    "ticks": Measurement(measure_ticks, (*OURS, RUNWISP), 3),
    "flood": Measurement(measure_flood, OURS, 1),
    "history": Measurement(measure_history, OURS, 3),
}


# ---- Results ---------------------------------------------------------------------


def filesystem_of(directory: str) -> str:
    """Its type, as stat(1) names it."""
    stat = ["stat", "--file-system", "--format=%T", directory]
    return subprocess.run(
        stat, capture_output=True, text=True, check=True
    ).stdout.strip()


def choose_directory() -> str:
    """Where the state shall lie: the first usual place on a disk."""
    for directory in (tempfile.gettempdir(), "/var/tmp", str(DAEMON.parent)):
        if filesystem_of(directory) not in MEMORY_FILESYSTEMS:
            return directory
    return tempfile.gettempdir()


def describe_machine(directory: Path) -> dict[str, Any]:
    """What the figures depend on, with the time of 100 small writes to the disk."""
    took_s = []
    with open(directory / "fsync", "wb", buffering=0) as probe:
        for _ in range(100):
            began = time.perf_counter()
            probe.write(b"x" * 100)
            os.fsync(probe.fileno())
            took_s.append(time.perf_counter() - began)
    return {
        "cores": len(os.sched_getaffinity(0)),
        "system": f"{platform.system()} {platform.release()} {platform.machine()}",
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "directory": str(directory.parent),
        "filesystem": filesystem_of(str(directory)),
        "fsync_p50_ms": round(median_ms(took_s), 3),
        "fsync_p99_ms": round(percentile_ms(took_s, 99), 3),
    }


def measure_all(
    arguments: argparse.Namespace, programs: list[Program], directory: Path, plan: Plan
) -> dict[str, dict[str, float]]:
    """The median of each figure in each column, all columns measured in turns."""
    samples: dict[str, dict[str, list[float]]] = {}

    def measure(name: str, program: Program) -> None:
        home = directory / name / program.name
        home.mkdir(parents=True, exist_ok=True)
        for figure, value in MEASUREMENTS[name].measure(program, home, plan):
            columns = samples.setdefault(figure, {})
            columns.setdefault(program.name, []).append(value)

    for name in arguments.names:
        row = MEASUREMENTS[name]
        taking_part = [each for each in programs if each.name in row.columns]
        for number in range(row.quick_rounds if arguments.quick else row.rounds):
            print(
                f"measuring {name}, round {number + 1} …", file=sys.stderr, flush=True
            )
            with concurrent.futures.ThreadPoolExecutor() as pool:
                at_a_time = pool.map if row.together else map
                list(at_a_time(measure, [name] * len(taking_part), taking_part))
        shutil.rmtree(directory / name)
    return {
        figure: {
            column: statistics.median(values) for column, values in columns.items()
        }
        for figure, columns in samples.items()
    }


def figure_rows(medians: dict[str, dict[str, float]]) -> Iterator[dict[str, Any]]:
    """A row of the table for each figure that was measured, in their order."""
    for line in FIGURES.strip().splitlines():
        name, unit, goals = (cell.strip() for cell in line.split("|"))
        measured = medians.get(name, {})
        if HERE not in measured:
            continue
        row: dict[str, Any] = {"figure": name, "unit": unit, **measured}
        if AGAINST in measured:
            row["here / against"] = measured[HERE] / (measured[AGAINST] or 1)
        judged = []
        for goal in filter(None, goals.split("; ")):
            compare, limit, *beside = goal.split(" ", 2)
            value = measured[HERE]
            if beside:
                other = measured.get(beside[0]) or medians.get(beside[0], {}).get(HERE)
                if not other:
                    continue
                value /= other
            reached = (
                value <= float(limit) if compare == "<=" else value >= float(limit)
            )
            judged.append(f"{goal}: {value:.2f} {'reached' if reached else 'MISSED'}")
        yield {**row, "goals": "; ".join(judged)}


def print_table(about: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """A table in Markdown that is also aligned for a terminal."""
    print("{cores} cores, {system}, Python {python}, SQLite {sqlite}".format(**about))
    print("state in {directory} ({filesystem}), ".format(**about), end="")
    print("fsync p50 {fsync_p50_ms} ms, p99 {fsync_p99_ms} ms".format(**about))
    print("N = {rows:,} rows, a flood is {flood_bytes:,} bytes\n".format(**about))
    order = ("figure", "unit", HERE, AGAINST, "here / against", BARE, WEBHOOK, RUNWISP)
    titles = [title for title in order if any(title in row for row in rows)] + ["goals"]
    lines = [titles]
    for row in rows:
        cells = [row.get(title, "") for title in titles]
        lines.append(
            [
                c if isinstance(c, str) else f"{c:.{0 if abs(c) >= 100 else 2}f}"
                for c in cells
            ]
        )
    widths = [max(map(len, column)) for column in zip(*lines)]
    lines.insert(1, ["-" * width for width in widths])
    for line in lines:
        print("|", " | ".join(map(str.ljust, line, widths)), "|")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--quick", action="store_true", help="shorter, less exact")
    parser.add_argument("--against", metavar="FILE", help="another taskrunnerd.py")
    parser.add_argument("--rows", type=int, help="length of the history")
    parser.add_argument("--dir", help="where the state shall lie (default: TMPDIR)")
    choices = ", ".join(MEASUREMENTS)
    parser.add_argument("--only", metavar="NAME[,NAME]", help=f"some of: {choices}")
    arguments = parser.parse_args()
    arguments.names = arguments.only.split(",") if arguments.only else [*MEASUREMENTS]
    for name in arguments.names:
        if name not in MEASUREMENTS:
            parser.error(f"--only: {name!r} is none of {choices}")
    if arguments.against and not os.path.isfile(arguments.against):
        parser.error(f"--against: there is no file {arguments.against}")
    return arguments


def main() -> int:
    arguments = parse_arguments()
    # as many waiting clients as this process may have open files, here and there
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = 4096 if hard == resource.RLIM_INFINITY else min(4096, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # SIGTERM too ends the daemons and removes the directory
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    plan = QUICK if arguments.quick else FULL
    plan = plan._replace(rows=arguments.rows or plan.rows)
    found = {
        BARE: "/bin/sh",
        HERE: str(DAEMON),
        AGAINST: arguments.against and os.path.abspath(arguments.against),
        WEBHOOK: shutil.which("webhook"),
        RUNWISP: os.environ.get("RUNWISP"),
    }
    programs = [Program(name, path) for name, path in found.items() if path]
    place = arguments.dir or choose_directory()
    with tempfile.TemporaryDirectory(prefix="taskrunnerd-bench-", dir=place) as work:
        about = {**describe_machine(Path(work)), **plan._asdict()}
        try:
            medians = measure_all(arguments, programs, Path(work), plan)
        except BenchError as error:
            print(f"bench: {error}", file=sys.stderr)
            return 1
    rows = list(figure_rows(medians))
    if arguments.json:
        print(json.dumps({"machine": about, "figures": rows}, indent=2))
    else:
        print_table(about, rows)
    return 0


if __name__ == "__main__":
    sys.exit(main())
