#!/usr/bin/env python3
"""taskrunnerd runs declared tasks when asked over HTTP, and knows what happened.

    python taskrunnerd.py init                  # writes an example tasks.json
    python taskrunnerd.py --port 9477           # serves it, state in ./.taskrunnerd/
    curl -X POST 'http://localhost:9477/api/tasks/example/run?wait=true'

One file, the standard library, Python 3.9 or newer, POSIX. README.md is for those who
use it; this page is for those who read it. Sections use only earlier ones, all use 1.

Contents
    1. Words and limits
    2. Values: clock, time text, identifiers, durations, sizes
    3. Cron: parse an expression, find the next tick in a zone; pure
    4. Schemas: the shape of everything that crosses the wire
    5. Validation: one walk over value and schema
    6. Tasks and configuration: tasks.json, parameters
    7. Decisions: admission, verdict, retries, retention, ticks
    8. Store: the history of runs in SQLite
    9. Logs: what a run wrote, line by line when somebody asks
    10. Processes: spawn, read, signal, reap
    11. Daemon: the monitor of all live state, and its loops
    12. Operations and routes
    13. OpenAPI: the API described by its own tables
    14. HTTP: connections, parsing, answers, streams
    15. Command line
    16. Appendix: the page, a client of the API

Life of a run
                   trigger, tick, hook
                               |
              _admit           |           _admit
        +------------------ (record) -------------------+
        | no slot free         |                        | skip, queue full
        v                      | a slot is free         v
     pending --- _promote ---> running               ended: skipped, queue_full
        |                      |
        | _end_queued          | conduct: spawn, copy output, reap, end survivors
        v                      v
     ended: stopped         ended by _end: success, failed, stopped, timeout,
                            log_overflow, daemon_stopped, start_failed
    A daemon that dies leaves rows: recover ends running ones as crashed and queues
    pending ones again. One that is upgraded in place parks its running runs: pause
    halts their threads, handover records them, recover of the new program resumes.
    An attempt that failed may leave the next one: pending, with start_at in the
    future, it enters the queue when its time has come. The last one leaves the runs of
    its task's hooks, in the write of its end (_decide_last). A tick that became no run
    is a row as well, ended as missed or dst_skipped.

Threads and locks
    main reads the numbers of signals from a pipe and reaps orphans; accept takes
    connections, each of which has a thread; schedule sleeps until the next deadline or
    tick; each running run has a thread, which then waits for another run; reload, drain
    and the line for stdout have one while they last; watchdog, if systemd wants it,
    sees whether main, accept and schedule go round.
    All changing state is in one Daemon behind one mutex. Whoever waits for a live run
    adds a gate to it, which its end opens, so that it wakes those and nobody else, once
    the mutex is free. Whatever happens to a run is one Change, which takes five steps:
        decide   with the mutex: what shall be, by the rules of section 7
        enqueue  with the mutex, _decide: the record is in line for the store (I2)
        flush    without it: one durable commit, shared with everybody in line
        tell     with it, _tell: live runs, lanes, events, waiters; or _undo, if it is
                 the first record of a run and the store refuses it. Any other change
                 has happened, and is tried again
        begin    without it: threads and programs
    Between enqueue and tell a run has its `change`. It keeps its place in its lane, but
    is not promoted; a stop or a reload that finds it notes how it is to end.
    The store, the room on the disk, the daemon's own log, the repair of logs, the count
    of what ended, the process journal, the reaper of orphans, the server's rate-limited
    log and its count of answers have a lock of their own, a leaf.
    No thread ever holds two locks. Of the threads of runs, PUMPS_AT_ONCE write much at
    a time, so that a flood leaves the interpreter to the others; of those that follow a
    run, FOLLOWERS_AT_ONCE look into its log.

Invariants
    I1  A run is durable, and with it the key of its trigger, before its program starts
        and before anybody is told of it; its end before anybody is told of that.
    I2  The store commits in the order in which changes were decided under the mutex.
    I3  No thread holds two locks. Under the mutex nobody waits for a disk, a network or
        a program; the slowest that happens there is the first tick in a zone, whose
        rules are read from its file.
    I4  Queued runs of a task start in the order of their triggers; a fresh run never
        overtakes a queued one, and never more than max_concurrent run.
    I5  A pid is signalled under the mutex, until it is noted there that its run, and
        nobody else, is about to reap it.
    I6  The tallies equal a count over all runs that ended, after every commit; their
        counters count each end once, and no deletion takes it back.
    I7  Timeouts and durations come from the monotonic clock, dates from the wall clock.
    I8  Output is in the log before the index tells of it.
    I9  An upgrade in place finds every running run parked: its last chunk written, its
        record whole, nobody reading its pipes; what is decided is durable, and nothing
        more is decided. The program on disk has taken a copy of all that in a process
        of its own, which changes nothing.
    I10 A tick is claimed by the first row with its task and time, so that no restart
        and no step of the clock makes two runs of it.

Words
    task     what is declared in tasks.json, under a name
    trigger  a request to run a task
    run      one execution of a task, from its trigger to its end
    attempt  a run that is the first, or repeats one that failed
    tick     an instant at which a schedule fires
    slot     room for one running run of a task; there are max_concurrent
    lane     a task with its running runs and its queue
    log      all that a run wrote; a line is a piece of it up to a newline
    hook     a task that the end of a run triggers; that run is its cause
    line     numbered from 0, with its stream and the time at which it was read
"""

from __future__ import annotations

import argparse
import binascii
import bisect
import collections
import contextlib
import datetime
import errno
import fcntl
import functools
import gc
import heapq
import itertools
import json
import logging
import math
import operator
import os
import queue
import re
import resource
import select
import shutil
import signal
import socket
import socketserver
import sqlite3
import stat
import struct
import subprocess
import sys
import threading
import time
import traceback
import zlib
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from email.utils import formatdate
from stat import S_ISSOCK
from typing import IO, TYPE_CHECKING, Any, NamedTuple, NoReturn, Union, cast
from urllib.parse import SplitResult, parse_qsl, quote, unquote, unquote_plus, urlsplit

if TYPE_CHECKING:
    import ssl

if __name__ == "__main__" and not ("ssl" in sys.modules or "notify" in sys.argv):
    # http.client wants OpenSSL at once, if it is there: 4 MB of each daemon and a tenth
    # of its start, for what only TLS needs. That imports it itself, but for `notify`.
    sys.modules["ssl"] = cast("Any", None)
    import http.client
    import http.server

    del sys.modules["ssl"]
else:
    import http.client
    import http.server

# ---- 1. Words and limits ----------------------------------------------------
# Owns the words of the wire (states, reasons, policies), every size and time limit,
# each with its unit in the name, and the daemon's log. Relies on nothing. Changing a
# limit here changes it everywhere; no other section holds a bare number that matters.

VERSION = "0.1.0"
PYTHON_VERSION = ".".join(map(str, sys.version_info[:3]))
PROGRAM = "taskrunnerd"
DEFAULT_PORT = 9477
HTTPS_PORT = 443

PENDING, RUNNING, ENDED = STATUSES = ("pending", "running", "ended")
SUCCESS, FAILED, STOPPED, TIMEOUT = "success", "failed", "stopped", "timeout"
CRASHED, SKIPPED, LOG_OVERFLOW = "crashed", "skipped", "log_overflow"
QUEUE_FULL, DST_SKIPPED, MISSED = "queue_full", "dst_skipped", "missed"
DAEMON_STOPPED, START_FAILED = "daemon_stopped", "start_failed"
END_REASONS = (
    SUCCESS, FAILED, STOPPED, TIMEOUT, CRASHED, SKIPPED, LOG_OVERFLOW, QUEUE_FULL,
    DST_SKIPPED, DAEMON_STOPPED, MISSED, START_FAILED,
)  # fmt: skip
RETRIED = (FAILED, TIMEOUT, LOG_OVERFLOW)
FAILURES = (FAILED, TIMEOUT, CRASHED, LOG_OVERFLOW, START_FAILED)
TRIGGERS = ("cron", "api", "startup", "service", "cloud")
VIA_TASK, VIA_WEBHOOK = VIAS = ("task", "webhook")
QUEUE, SKIP, TERMINATE = OVERLAPS = ("queue", "skip", "terminate")
COALESCE = "coalesce"  # to clients of 0.x, which know three words, it is queue
DROP_OLD, DROP_NEW, KILL_TASK = LOG_POLICIES = ("drop_old", "drop_new", "kill_task")
KILL, LEAVE = ORPHAN_POLICIES = ("kill", "leave")
CGROUP, MARK = TRACKINGS = ("cgroup", "mark")
CONSTANT, LINEAR, EXPONENTIAL = BACKOFFS = ("constant", "linear", "exponential")
CATCH_LATEST, CATCH_ALL, CATCH_SKIP = CATCH_UPS = ("latest", "all", "skip")
SEPARATE, MERGE = STDERR_WAYS = ("separate", "merge")
AS_CHAT, AS_JSON, AS_TEXT = NOTIFY_FORMATS = ("chat", "json", "text")
STDOUT, STDERR, SYSTEM = range(3)
STREAMS = ("stdout", "stderr", "system")
NO_EXIT_CODE = -1
HIDDEN = "•••"
REDACTED = b"[redacted]"
TOKEN_VARIABLE = "TASKRUNNERD_TOKEN"
RUN_ID_VARIABLE = "TASKRUNNERD_RUN_ID"
REQUEST_ID_VARIABLE = "TASKRUNNERD_REQUEST_ID"
RESULT_VARIABLE = "TASKRUNNERD_RESULT"
NOTIFY_VARIABLE = "TASKRUNNERD_NOTIFY"
REQUEST_ID_HEADER = "X-Request-Id"
KEY_HEADER = "Idempotency-Key"
REPLAYED_HEADER = "Idempotency-Replayed"
COALESCED_HEADER = "Coalesced"
# What systemd tells the daemon and not its programs: sd_notify(3), sd_listen_fds(3),
# systemd.exec(5).
SYSTEMD_VARIABLES = (
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_PID", "LISTEN_PIDFDID",
    "LISTEN_FDS", "LISTEN_FDNAMES", "CREDENTIALS_DIRECTORY", "STATE_DIRECTORY",
    "CONFIGURATION_DIRECTORY", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "FDSTORE",
    "MEMORY_PRESSURE_WATCH", "MEMORY_PRESSURE_WRITE",
)  # fmt: skip

# sysexits(3), as init systems and scripts know them.
EX_OK, EX_DIFFERS, EX_USAGE, EX_UNAVAILABLE = 0, 1, 64, 69
EX_OSERR, EX_TEMPFAIL, EX_NOPERM, EX_CONFIG = 71, 75, 77, 78
# As timeout(1), docker(1) and shells have them; a signal's number is added to the last.
EX_TIMEOUT, EX_NOT_STARTED, EX_SIGNAL = 124, 125, 128

KIB, MIB = 1024, 1024 * 1024
NO_FILE_LEFT = (errno.EMFILE, errno.ENFILE)

CONFIG_MAX_BYTES = 16 * MIB
JSON_MAX_DEPTH = 64
INTEGER_MAX_DIGITS = 4300  # of newer Pythons, and as quick in older ones
PARAM_MAX_BYTES = 32_768
ECHO_MAX_CHARS = 200
FAULTS_LISTED = 50  # of one request
SECRET_MIN_CHARS = 6
# Those in which a program may write a secret, whatever its locale and the daemon's.
SECRET_ENCODINGS = ("utf-8", "iso-8859-1", "iso-8859-15", sys.getfilesystemencoding())

CRON_MAX_CHARS = 1000
NEXT_MAX_TICKS = 1000
TICK_GRACE_S = 30  # later than this, a tick was missed
MISSED_MAX_TICKS = 10_000  # counted exactly
CLOCK_STEP_MS = 1000
BACKOFF_MAX_S = 300.0
CATCH_UP_MAX_RUNS = 10_000
ZONES_KEPT = 640  # more than the database has
SPANS_KEPT = 2048  # per zone and 400 days; a few hundred bytes each
MARKS_KEPT = 256
SECONDS_KEPT = 16  # as text: the four times of a run are mostly in the same second
IDS_AT_ONCE = 64
ROW_KINDS_KEPT = 256

REQUEST_LINE_MAX_BYTES = 8 * KIB
HEADERS_MAX_BYTES = 32 * KIB
HEADERS_MAX_COUNT = 100
REQUEST_ID_MAX_CHARS = 200
KEY_MAX_CHARS = 255
REASON_MAX_CHARS = 200  # of a pause
KEY_KEPT_S = 86_400.0
TRACEPARENT_MAX_CHARS = 512  # of a version to come; that of today has 55
BODY_MAX_BYTES = MIB
RECEIVE_BYTES = 64 * KIB
TLS_SEND_BYTES = 64 * KIB
HEADER_TIMEOUT_S = 10.0
BODY_TIMEOUT_S = 30.0
IDLE_TIMEOUT_S = 75.0
SEND_TIMEOUT_S = 30.0
LINGER_S = 2.0
SOCKET_SLACK_S = 1.0  # so much later than its limit a receive or send may give up
ACCEPT_PAUSE_S = 0.1
LISTEN_BACKLOG = 1024
# sun_path of unix(7) with its last NUL; elsewhere than on Linux it is shorter.
SOCKET_PATH_MAX_BYTES = 107 if sys.platform.startswith("linux") else 103
SOCKET_MODE = 0o600
LOCK_WAIT_S = 2.0
HANGUP_CHECK_S = 0.5
STREAM_COMMENT_S = 15.0
HEARTBEAT_S = 15.0
THREAD_STACK_BYTES = MIB
CYCLES_LOOK_OBJECTS = 5000  # made and not freed, before cycles are looked for
RETRY_AFTER_S = 5
CONNECTIONS_DEFAULT = 2048
CONNECTIONS_MIN = 4
CONNECTIONS_MAX = 65_536
# Of four connections three may wait or stream, of four open files three may be
# connections: the rest is for those who ask what is going on, and for the runs.
SHARE_OF_FOUR = 3
REFUSED_KEPT = 64
COMPLAINT_EVERY_S = 60.0

WAIT_MAX_S = 3600
WAIT_DEFAULT_S = 300
EVENTS_KEPT = 1000
LIST_MAX_RUNS = 1000
BULK_MAX_IDS = 10_000
DEADLINES_SLACK = 1000
CREW_IDLE_S = 10.0

PIPE_DEFAULT_BYTES = 64 * KIB
PIPE_READ_BYTES = 256 * KIB
DRAIN_S = 2.0
SURVIVOR_CHECK_S = 0.02
SURVIVOR_LOOKS = 100
ENDING_PAUSE_S = 0.001
SURVIVOR_EMPTY_LOOKS = 3  # in which one that forks anew was missed
EXIT_LOOK_S = 0.1
EXIT_LOOK_READS = 8
SPAWNS_AT_ONCE = 4
PROCESS_JOURNAL_MAX_BYTES = MIB
RSS_SLACK_BYTES = MIB
JOIN_LOOKS = 50
OOM_LOOK_S = 0.1
PUMPS_AT_ONCE = 4
PUMP_BYTES = 16 * KIB  # of less, any number may be written at once
RESULT_MAX_BYTES = 64 * KIB

LINE_MAX_BYTES = 64 * KIB
HOLD_S = 0.5
LOG_HEAD_BYTES = 64 * KIB
LOG_SEGMENTS = 4
LOG_SEGMENTS_MAX = 64
LOG_MIN_BYTES = KIB
LOG_PAGE_MAX_LINES = 10_000
LOG_PAGE_MAX_CHARS = 4 * MIB
LOG_REPLAY_MAX_LINES = 50_000
OUTPUT_MAX_LINES = 1000
OUTPUT_MAX_CHARS = MIB
LOG_BLOCK_BYTES = MIB
LOG_PART_BYTES = 128 * KIB
STREAM_LINES_AT_ONCE = 500
STREAM_CHARS_AT_ONCE = MIB
LAST_WORDS_LINES = 100
CAUSE_LINES = 50  # of its output, for a hook
ENDS_COUNTED = 1024  # of a task, for its failures in a row, at a start
SEARCH_BUDGET_BYTES = 256 * MIB
SEARCH_BUDGET_RUNS = 1000

COMMIT_MAX_WRITES = 512
SQLITE_OLDEST = (3, 24)  # the first with "on conflict do update"
STATEMENT_MAX_VALUES = 500  # SQLite before 3.32 takes 999
BUSY_TIMEOUT_S = 10.0
READERS_MAX = 8
FOLLOWERS_AT_ONCE = 8  # of those that look into a log in this moment
STORE_RETRY_S = 1.0
DISK_LOOK_S = 1.0
DISK_MIN_FREE_FILES = 1024
DISK_NEAR_BYTES = 16 * MIB
DISK_AGAIN_BYTES = MIB  # so much more is free before a disk that was low has room
LOG_FILES_LEAST_BYTES = 8 * KIB  # a block for a log and one for its index
RESERVE_BYTES = MIB
RESERVE_PART_BYTES = 64 * KIB
SIGN_OF_LIFE_S = 5.0
SIGN_AGAIN_S = 0.5
REAP_AGAIN_S = 0.2
KEEP_FOR_S = 90 * 86_400.0  # where a task says nothing
KEEP_GRACE_S = 86_400.0  # in which an older directory keeps what that would remove
RETENTION_PAUSE_S = 1.0
RETENTION_BATCH_PAUSE_S = 0.1
RETENTION_EVERY_S = 3600.0
RETENTION_BATCH_RUNS = 500
SPARE_PAGES = 256  # of the database, 4 KiB each, that it keeps for what comes
SHRINK_STEP_PAGES = 64  # a few milliseconds
MIGRATION_TELLS_STEPS = 10_000_000  # of SQLite's machine: about a second
MIGRATION_SLACK_S = 60.0
RESTORE_S = 600.0
# Upper limits of the histogram of durations. They are columns of the store.
DURATION_BUCKETS_S = (
    0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 600.0, 1800.0, 3600.0,
)  # fmt: skip
SCHEDULE_MAX_SLEEP_S = 60.0
SAMPLE_EVERY_S = 10.0
SAMPLES_KEPT = 360  # an hour
METRIC_TEXTS_KEPT = 2048  # of 2 KB
DAEMON_LOG_KEPT_LINES = 1000
DAEMON_LOG_SHOWN_LINES = 100
DAEMON_LOG_LINE_MAX_CHARS = 4096
SELFTEST_WAIT_S = 30
SELFTEST_LOG_MAX_BYTES = 128 * KIB
# How long after its runs were killed the daemon itself may take to end.
STOP_SLACK_S = 10.0
NOTIFY_WAIT_S = 2.0
NOTICE_TRY_S = 10.0
NOTICE_AGAIN_MAX_S = 60.0  # that a Retry-After is waited for
NOTICE_REDIRECTS_MAX = 4
NOTICE_STDIN_MAX_BYTES = 64 * MIB  # of OUTPUT_MAX_CHARS JSON makes 12 times as much
NOTICE_LINES = 8  # of the output; with the rest, a message for Discord has 2000
NOTICE_LINE_MAX_CHARS = 150
NOTICE_MAX_CHARS = 2000
STDOUT_WAIT_S = 1.0
WATCHDOG_S = 60
DOCKER_GRACE_S = 10.0

# Of commands that ask a running daemon.
CLIENT_TIMEOUT_S = 3 * STREAM_COMMENT_S
CLIENT_PATIENCE_S = 120.0
CLIENT_PAUSE_S = 0.05
CLIENT_PAUSE_MAX_S = 2.0
SHOWN_LINES = 10
STATUS_ROWS = 5
USAGE_ROWS = 10

# Of the record that an upgrade in place hands to the new program.
HANDOVER_VERSION = 1
HANDOVER_WAIT_S = 10.0
REHEARSAL_WAIT_S = 30.0
REHEARSAL_ANSWER_S = 10.0
UPGRADE_WAIT_S = 60.0

LOG = logging.getLogger(PROGRAM)


def log_info(text: str) -> None:
    """LOG.info for what every run says. Unless somebody else listens to the logger, as
    tests do, the line goes straight to its handler: a LogRecord costs more than the
    write."""
    if LOG.propagate:
        LOG.info("%s", text)
    elif LOG.isEnabledFor(logging.INFO):
        for handler in cast("list[Any]", LOG.handlers):
            handler.say(time.time_ns() // 1_000_000, "info", text)


# ---- 2. Values: clock, time text, identifiers, durations, sizes -------------
# Owns how instants, lengths of time and sizes are read and written, and run ids.
# The only place that asks for random numbers that mean something; what decides about
# runs asks Clock for the time. Dates come from the wall clock, durations from the
# monotonic one; they never meet (I7).


class Clock:
    """The machine's clocks; tests pass one that they set."""

    def wall_ms(self) -> int:
        """Unix time in milliseconds; may jump when somebody sets the clock."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Seconds that only go forward, for timeouts and durations."""
        return time.monotonic()


@functools.lru_cache(maxsize=SECONDS_KEPT)
def _second_text(seconds: int) -> str:
    y, mo, d, h, mi, s = time.gmtime(seconds)[:6]
    return f"{y:04d}-{mo:02d}-{d:02d}T{h:02d}:{mi:02d}:{s:02d}"


def time_text(unix_ms: int) -> str:
    """RFC 3339 in UTC with milliseconds: 2026-01-31T08:00:00.000Z."""
    seconds, ms = divmod(unix_ms, 1000)
    return f"{_second_text(seconds)}.{ms:03d}Z"


_RFC3339 = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):([0-5]\d|60)(?:\.(\d{1,9}))?"
    r"(?:([Zz])|([+-])([01]\d|2[0-3]):([0-5]\d))",
    re.ASCII,
)


def parse_time(text: str) -> int:
    """Unix milliseconds of an RFC 3339 time. Raises ValueError."""
    wrong = f'"{text}" is not an RFC 3339 time; write 2026-01-31T08:00:00Z'
    match = _RFC3339.fullmatch(text)
    if not match:
        raise ValueError(wrong)
    y, mo, d, h, mi, s = (int(part) for part in match.groups()[:6])
    offset_min = int(match[10] or 0) * 60 + int(match[11] or 0)
    try:
        # A leap second is read as the last second of its minute.
        at = datetime.datetime(
            y, mo, d, h, mi, min(s, 59), tzinfo=datetime.timezone.utc
        )
        at -= datetime.timedelta(minutes=-offset_min if match[9] == "-" else offset_min)
    except (ValueError, OverflowError):
        raise ValueError(wrong) from None
    return int(at.timestamp()) * 1000 + int((match[7] or "0").ljust(3, "0")[:3])


_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_CROCKFORD_PAIRS = [a + b for a in _CROCKFORD for b in _CROCKFORD]
RUN_ID_PATTERN = r"^[0-7][0-9A-HJKMNP-TV-Z]{25}$"


def ulid_text(number: int) -> str:
    """A 128-bit number as the 26 characters of a ULID."""
    pairs = [
        _CROCKFORD_PAIRS[(number >> shift) & 1023] for shift in range(120, -1, -10)
    ]
    return "".join(pairs)


def ulid_number(text: str) -> int:
    """The number behind a ULID's text; the inverse of `ulid_text`."""
    return functools.reduce(lambda n, c: n << 5 | _CROCKFORD.index(c), text, 0)


class Ulids:
    """Run ids that sort in the order in which they were made, also when the clock
    steps back (the ULID specification's monotonic rule). Not thread-safe."""

    def __init__(self, newest: str = "") -> None:
        self._last = ulid_number(newest) if newest else 0
        self._random = b""

    def make(self, unix_ms: int) -> str:
        """The next id: 48 bits of milliseconds, then 80 random bits."""
        if not self._random:
            # It lets the interpreter go, while the caller may hold a lock.
            self._random = os.urandom(10 * IDS_AT_ONCE)
        own, self._random = self._random[:10], self._random[10:]
        fresh = unix_ms << 80 | int.from_bytes(own, "big")
        # A newest id of this very millisecond, or of a later one: count on.
        self._last = fresh if fresh >> 80 > self._last >> 80 else self._last + 1
        return ulid_text(self._last)


_DURATION_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+", re.ASCII)
_DURATION_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
DURATION_MAX_S = 10 * 366 * 86_400


def parse_duration(text: str) -> float:
    """Seconds of a text like 30s or 1h30m. Raises ValueError."""
    if not _DURATION.fullmatch(text):
        raise ValueError(f'"{text}" is not a duration; write 30s, 5m, 1h30m, 2d')
    parts = _DURATION_PART.findall(text)
    seconds = sum(float(number) * _DURATION_UNITS_S[unit] for number, unit in parts)
    if seconds > DURATION_MAX_S:
        raise ValueError(f'"{text}" is longer than ten years')
    return seconds


def duration_text(seconds: float) -> str:
    """A duration for people: 0.25 s, 12.3 s, 4m05s, 2h10m, 3d4h."""
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, s = divmod(int(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days}d{h}h"
    return f"{h}h{m:02d}m" if h else f"{m}m{s:02d}s"


def nanoseconds(seconds: float) -> int:
    """A duration as the wire carries it."""
    return round(seconds * 1_000_000_000)


_SIZE_UNITS = {"b": 1, "kb": KIB, "mb": MIB, "gb": 1024 * MIB, "tb": MIB * MIB}
_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?) *(b|kb|mb|gb|tb)", re.IGNORECASE)
SIZE_MAX_BYTES = 2**53


def parse_size(text: str) -> int:
    """Bytes of a text like 64kb or 1.5gb (1 kb = 1024 bytes). Raises ValueError."""
    match = _SIZE.fullmatch(text)
    if not match:
        raise ValueError(f'"{text}" is not a size; write 64kb, 100mb, 1gb')
    size_bytes = float(match[1]) * _SIZE_UNITS[match[2].lower()]
    if size_bytes > SIZE_MAX_BYTES:
        raise ValueError(f'"{text}" is larger than any disk')
    return int(size_bytes)


def size_text(size_bytes: int) -> str:
    """A size for people: 512 B, 1.5 MB (1 MB = 1,048,576 bytes)."""
    amount = float(size_bytes)
    units = ["B", "KB", "MB", "GB", "TB"]
    while amount >= KIB and len(units) > 1:
        amount /= KIB
        del units[0]
    return f"{amount:.1f} {units[0]}" if amount != size_bytes else f"{size_bytes} B"


# ---- 3. Cron: parse an expression, find the next tick in a zone; pure -------
# Owns the grammar of expressions and what daylight saving does to a tick.
# Relies on zoneinfo, or on the C library for the system's zone, for one thing only:
# the UTC offset at an instant. A zone is read as spans of steady offset; between
# their edges all is whole-number arithmetic, and the rules of daylight saving stand
# in next_tick and _odd_tick. Never reads the clock; only local_zone looks at the
# machine. "Wall" is what a clock in the zone shows, as a number: Unix seconds plus
# the UTC offset.

_HOUR_S, _DAY_S = 3600, 86400
# Offsets are under 24 hours either way, so two of them differ by less than this.
_REACH_S = 2 * _DAY_S
_CHUNK_S = 400 * _DAY_S
_EPOCH_DAY = datetime.date(1970, 1, 1).toordinal()
_EPOCH = datetime.datetime(1970, 1, 1)  # noqa: DTZ001
_SECOND = datetime.timedelta(seconds=1)
LOCAL = "local"  # the zone of the C library
_UTC_NAMES = {"UTC", "Etc/UTC", "GMT", "Etc/GMT", "Zulu"}
_MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip
_WEEKDAYS = (
    "Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday",
)  # fmt: skip
_MONTH_DAYS = (31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)
_MACROS = {
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
    "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@hourly": "0 * * * *",
}


class Cron(NamedTuple):
    """A parsed expression. Days, months and weekdays (Sunday is 0) are bits."""

    text: str
    zone_name: str
    every_s: int = 0  # of @every, which uses nothing below
    hours: tuple[int, ...] = ()
    marks: tuple[int, ...] = ()  # seconds of the hour
    days: int = 0
    months: int = 0
    weekdays: int = 0
    either: bool = False  # one of day and weekday suffices, else both must match
    any_day: bool = False
    fixed: bool = False  # the hour field neither begins with * nor has a step


class Tick(NamedTuple):
    """An instant of a schedule, and in words what daylight saving does to it."""

    at_s: int
    fires: bool  # False: the second showing of a fixed hour, which only leaves a row
    note: str


class _Field(NamedTuple):
    """One field of an expression: `*` means low to high, numbers go up to most."""

    noun: str
    low: int
    high: int
    most: int
    names: tuple[str, ...] = ()


class _Span(NamedTuple):
    """Instants of one UTC offset, with what their edges do to wall times."""

    start_s: int
    end_s: int
    offset_s: int
    due_wall_s: int  # what the clock would have shown at the start, left alone
    plain_from_s: int  # wall times before this are skipped or come a second time
    plain_until_s: int  # wall times from this on come again after the end


_FIELDS = (
    _Field("a second", 0, 59, 59),
    _Field("a minute", 0, 59, 59),
    _Field("an hour", 0, 23, 23),
    _Field("a day of the month", 1, 31, 31),
    _Field("a month", 1, 12, 12, tuple(name[:3].lower() for name in _MONTHS)),
    _Field("a weekday", 0, 6, 7, tuple(name[:3].lower() for name in _WEEKDAYS)),
)


def _zone_fault(name: str) -> str:
    """Why there is no such zone, and which one may have been meant."""
    # Only a faulty name needs them, and they are slow to import.
    import difflib
    import zoneinfo

    known, name = zoneinfo.available_timezones(), name[:60]
    if not known:
        return (
            "no time zone database on this machine;"
            " install tzdata (Debian: apt install tzdata) or use UTC"
        )
    by_folded = {zone.lower(): zone for zone in sorted(known)}
    near = [folded for folded in by_folded if folded.endswith("/" + name.lower())]
    near += difflib.get_close_matches(name.lower(), by_folded, 1)
    better = f"did you mean {by_folded[near[0]]}" if near else "write one like Etc/UTC"
    return f'unknown time zone "{name}"; {better}'


def _database_zone(name: str) -> datetime.tzinfo | None:
    """The zone of that name in the database. UTC needs none."""
    if name in _UTC_NAMES:
        return datetime.timezone.utc
    # Importing it takes longer than the rest of a start, and UTC does without.
    import zoneinfo

    # KeyError: not there. ValueError: not a name or not a zone's file. OSError: a
    # folder of zones, or a name too long to be one.
    try:
        return zoneinfo.ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        return None


@functools.lru_cache(ZONES_KEPT)
def zone_named(name: str) -> datetime.tzinfo | None:
    """The zone of that name; None, as datetime has it, is that of the C library.
    Raises ValueError."""
    zone = None if name == LOCAL else _database_zone(name)
    if not zone and name != LOCAL:
        raise ValueError(_zone_fault(name))
    return zone


def _cron_number(field: _Field, text: str) -> int:
    """A number or a name of one field."""
    if text.lower() in field.names:
        return field.names.index(text.lower()) + field.low
    if re.fullmatch("[0-9]{1,4}", text) and field.low <= int(text) <= field.most:
        return int(text)
    names = f" or {field.names[0]} to {field.names[-1]}" if field.names else ""
    span = f"{field.low} to {field.most}{names}"
    raise ValueError(f'"{text}" is not {field.noun}; write {span}')


def _part_range(field: _Field, text: str, *, open_ended: bool) -> tuple[int, int]:
    """First and last value of `*`, `a` or `a-b`; `a` runs on when open-ended."""
    if text in ("*", "?"):
        return field.low, field.high
    first_text, dash, last_text = text.partition("-")
    first = _cron_number(field, first_text)
    if not dash:
        return first, max(first, field.high) if open_ended else first
    last = _cron_number(field, last_text)
    if field.most == 7 and first > last:  # Sunday begins a range as 0, ends it as 7
        first, last = first % 7, last or 7
    if first > last:
        better = f"{first}-{field.high},{field.low}-{last}"
        raise ValueError(f'"{text}" runs backwards; write {better}')
    return first, last


def _field_values(field: _Field, text: str) -> tuple[int, ...]:
    """All values of a field, sorted: a list of `*`, `a` or `a-b`, each also with `/n`.
    Weekday 7 becomes 0."""
    values: set[int] = set()
    for part in text.split(","):
        span, slash, step = part.partition("/")
        first, last = _part_range(field, span, open_ended=bool(slash))
        # A step past the whole field is a mistake: */90 is not every 90 minutes.
        most = field.high - field.low + 1
        if slash and not (re.fullmatch("[0-9]{1,4}", step) and 1 <= int(step) <= most):
            better = f"write 1 to {most} after the /"
            raise ValueError(f'"{part}" has a faulty step; {better}')
        values.update(range(first, last + 1, int(step or 1)))
    return tuple(sorted({v % 7 for v in values} if field.most == 7 else values))


@functools.lru_cache(MARKS_KEPT)
def _marks(minutes: tuple[int, ...], seconds: tuple[int, ...]) -> tuple[int, ...]:
    """Seconds of the hour; cached, so that equal schedules share one tuple."""
    return tuple(minute * 60 + second for minute in minutes for second in seconds)


def _bits(values: tuple[int, ...]) -> int:
    return sum(1 << value for value in values)


def _parse_cron_fields(text: str, zone_name: str) -> Cron:
    texts = _MACROS.get(text.lower(), text).split()
    if len(texts) not in (5, 6):
        plural = "field" if len(texts) == 1 else "fields"
        raise ValueError(
            f"{len(texts)} {plural}; write 5 (minute hour day month weekday)"
            " or 6 with seconds first"
        )
    texts = ["0", *texts][-6:]
    values = [_field_values(field, part) for field, part in zip(_FIELDS, texts)]
    seconds, minutes, hours, days, months, weekdays = values
    # Vixie's rule: a field that begins with * restricts nothing by itself.
    either = not any(texts[place][0] in "*?" for place in (3, 5))
    if not either and all(days[0] > _MONTH_DAYS[month - 1] for month in months):
        names = " or ".join(f"{days[0]} {_MONTHS[month - 1]}" for month in months)
        raise ValueError(f"can never fire: no such date as {names}")
    full = len(days) == 31, len(weekdays) == 7
    return Cron(
        text,
        zone_name,
        hours=hours,
        marks=_marks(minutes, seconds),
        days=_bits(days),
        months=_bits(months),
        weekdays=_bits(weekdays),
        either=either,
        any_day=len(months) == 12 and (any(full) if either else all(full)),
        fixed=texts[2][0] not in "*?" and "/" not in texts[2],
    )


def parse_cron(text: str, zone_name: str = "UTC") -> Cron:
    """The schedule that `text` means; a zone in front of it beats `zone_name`.

    Raises ValueError whose message says what is wrong and what would be right.
    """
    if len(text) > CRON_MAX_CHARS:
        raise ValueError(f"{len(text)} characters; write at most {CRON_MAX_CHARS}")
    body = text.strip()
    if body.startswith(("CRON_TZ=", "TZ=")):
        assignment, *rest = body.split(None, 1)
        zone_name, body = assignment.partition("=")[2], "".join(rest)
    zone_named(zone_name)
    word = "".join(body.lower().split(None, 1)[:1])
    if word == "@every":
        every_s = parse_duration("".join(body.split()[1:]))
        if every_s != int(every_s) or every_s < 1:
            raise ValueError(f'"{body}" is not whole seconds, at least 1s')
        return Cron(body, zone_name, every_s=int(every_s))
    if word == "@reboot":
        raise ValueError('"@reboot" is no time of its own; use run_on_start instead')
    if word.startswith("@") and body.lower() not in _MACROS:
        raise ValueError(f'"{body}" is unknown; write {", ".join(_MACROS)}, @every 5m')
    return _parse_cron_fields(body, zone_name)


def _offset_s(zone: datetime.tzinfo | None, at_s: int) -> int:
    # The difference is what date(1) shows, also where a zone counts leap seconds.
    wall = datetime.datetime.fromtimestamp(at_s, zone).replace(tzinfo=None)
    return (wall - _EPOCH) // _SECOND - at_s


def _next_change(zone: datetime.tzinfo | None, from_s: int, until_s: int) -> int:
    """The first instant with another offset than at `from_s`, else `until_s`.

    Relies on there being at most one change a day, as in all zones since 1970.
    """
    if isinstance(zone, datetime.timezone):
        return until_s  # which has no changes
    offset_s = _offset_s(zone, from_s)
    step_s = _DAY_S
    while from_s < until_s:
        if _offset_s(zone, from_s + step_s) == offset_s:
            from_s += step_s
        elif step_s > 1:
            step_s //= 2
        else:
            return from_s + 1
    return until_s


@functools.lru_cache(SPANS_KEPT)
def _spans(zone_name: str, chunk: int) -> tuple[_Span, ...]:
    """The spans that cover a chunk of time and somewhat more on either side.

    The margins let a span know of changes that lie just outside of the chunk.
    """
    zone = zone_named(zone_name)
    from_s = chunk * _CHUNK_S - _REACH_S
    until_s = from_s + _CHUNK_S + 2 * _REACH_S
    spans = []
    while from_s < until_s:
        end_s = _next_change(zone, from_s, until_s)
        offset_s = _offset_s(zone, from_s)
        due_wall_s = from_s + _offset_s(zone, from_s - 1)
        plain_from_s = max(due_wall_s, from_s + offset_s)
        plain_until_s = end_s + _offset_s(zone, end_s)
        spans.append(
            _Span(from_s, end_s, offset_s, due_wall_s, plain_from_s, plain_until_s)
        )
        from_s = end_s
    # What follows the last span is unknown, so nobody may come near its end.
    spans[-1] = spans[-1]._replace(end_s=until_s - _REACH_S)
    return tuple(spans)


def _month_days(cron: Cron, year: int, month: int) -> int:
    """The days of a month on which there are ticks, as bits 1 to 31."""
    if not cron.months >> month & 1:
        return 0
    first = datetime.date(year, month, 1)
    # Two bits up and `weekday` down: bit 1 is the weekday of the first.
    six_weeks = cron.weekdays * 0b1_0000001_0000001_0000001_0000001_0000001
    by_weekday = six_weeks >> first.isoweekday() % 7 << 1
    days = cron.days | by_weekday if cron.either else cron.days & by_weekday
    leap = year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    length = 28 if month == 2 and not leap else _MONTH_DAYS[month - 1]
    return days & (2 << length) - 1


def _next_day(cron: Cron, day: int) -> int:
    """The first day, counted from 1970, at or after `day` that has ticks."""
    if cron.any_day:
        return day
    start = datetime.date.fromordinal(day + _EPOCH_DAY)
    year, month, first = start.year, start.month, start.day
    while True:
        days = _month_days(cron, year, month) >> first
        if days:
            lowest = (days & -days).bit_length() - 1
            return datetime.date(year, month, first + lowest).toordinal() - _EPOCH_DAY
        year, month, first = year + month // 12, month % 12 + 1, 1


def _next_time(cron: Cron, second: int) -> int:
    """The first tick at or after a second of the day, or -1."""
    hour, rest = divmod(second, _HOUR_S)
    place = bisect.bisect_left(cron.hours, hour)
    if place < len(cron.hours) and cron.hours[place] == hour:
        mark = bisect.bisect_left(cron.marks, rest)
        if mark < len(cron.marks):
            return hour * _HOUR_S + cron.marks[mark]
        place += 1
    if place < len(cron.hours):
        return cron.hours[place] * _HOUR_S + cron.marks[0]
    return -1


def _next_wall(cron: Cron, wall_s: int) -> int:
    """The first wall time at or after `wall_s` that matches the expression."""
    today, second = divmod(wall_s, _DAY_S)
    day = _next_day(cron, today)
    if day == today:
        time = _next_time(cron, second)
        if time >= 0:
            return day * _DAY_S + time
        day = _next_day(cron, today + 1)
    return day * _DAY_S + cron.hours[0] * _HOUR_S + cron.marks[0]


def _time_text(wall_s: int) -> str:
    """The time of day as a clock shows it, with seconds if there are any."""
    minutes, second = divmod(wall_s % _DAY_S, 60)
    text = f"{minutes // 60:02}:{minutes % 60:02}"
    return f"{text}:{second:02}" if second else text


def _odd_tick(cron: Cron, span: _Span, wall_s: int, at_s: int) -> Tick:
    """A tick whose wall time is skipped or comes twice."""
    day = datetime.date.fromordinal(wall_s // _DAY_S + _EPOCH_DAY)
    time = f"{_time_text(wall_s)} on {day}"
    if wall_s < at_s + span.offset_s:
        return Tick(at_s, True, f"no {time}; fires at the first instant after the gap")
    if wall_s >= span.plain_until_s:
        return Tick(at_s, True, f"first of two {time}")
    if cron.fixed:
        return Tick(at_s, False, f"second of two {time}; does not fire again")
    return Tick(at_s, True, f"second of two {time}")


def next_tick(cron: Cron, after_s: int, anchor_s: int = 0) -> Tick:
    """The first tick strictly after a Unix second; @every counts from the anchor.

    Ends with datetime's ValueError or OverflowError beyond the year 9999.
    """
    if cron.every_s:
        past = max(0, after_s - anchor_s) // cron.every_s
        return Tick(anchor_s + (past + 1) * cron.every_s, True, "")
    from_s = after_s + 1
    while True:
        for span in _spans(cron.zone_name, from_s // _CHUNK_S):
            if from_s < span.end_s:
                break
        wall_s = from_s + span.offset_s
        # A fixed hour that was skipped fires at the first instant after the gap.
        if cron.fixed and from_s == span.start_s:
            wall_s = min(wall_s, span.due_wall_s)
        wall_s = _next_wall(cron, wall_s)
        at_s = max(wall_s - span.offset_s, from_s)
        if at_s < span.end_s:
            if span.plain_from_s <= wall_s < span.plain_until_s:
                return Tick(at_s, True, "")
            return _odd_tick(cron, span, wall_s, at_s)
        # No wall time before this one matches, whatever the offset will be, so go
        # near it at once; but wall times just passed may come again.
        passed = span.end_s - from_s > _REACH_S
        from_s = max(span.end_s, at_s - _REACH_S) if passed else span.end_s


_LAST_TICK_S = 253_402_128_000  # 9999-12-30: every zone can show it


def upcoming(cron: Cron, after_s: int, anchor_s: int = 0) -> Iterator[Tick]:
    """The ticks after a Unix second, one by one, as far as the calendar goes."""
    while True:
        try:
            tick = next_tick(cron, after_s, anchor_s)
        except (ValueError, OverflowError):  # beyond the year 9999
            return
        if tick.at_s > _LAST_TICK_S:
            return
        yield tick
        after_s = tick.at_s


def zone_text(unix_s: int, zone_name: str) -> str:
    """RFC 3339 as a clock in the zone shows it: 2026-01-31T09:00:00+01:00."""
    offset_s = _offset_s(zone_named(zone_name), unix_s)
    # RFC 3339 has no seconds here; a zone that counts leap seconds has them.
    shown = datetime.timezone(datetime.timedelta(minutes=round(offset_s / 60)))
    wall = _EPOCH + (unix_s + offset_s) * _SECOND
    return wall.replace(tzinfo=shown).isoformat()


# tzset(3): an offset, summer time perhaps, and then perhaps when it begins and ends.
_POSIX_ZONE = re.compile(
    "{0}{1}({0}({1})?(,{2},{2})?)?".format(
        "([A-Za-z]{3,}|<[A-Za-z0-9+-]{3,}>)",
        # Python and RFC 3339 have no offset of a day or more, summer time included.
        "[+-]?([01]?[0-9]|2[0-2])(:[0-5]?[0-9]){0,2}",
        "(J?[0-9]{1,3}|M[0-9]{1,2}[.][1-5][.][0-6])(/[+-]?[0-9]{1,3}(:[0-9]{1,2}){0,2})?",
    )
)


def _unlike_local_s(name: str, from_s: int) -> int:
    """The first instant in two years at which the C library has another offset, or 0;
    the first of all if there is no such zone."""
    zone, until_s = _database_zone(name), from_s + 2 * _CHUNK_S
    if not zone:
        return from_s
    while from_s < until_s:
        if _offset_s(zone, from_s) != _offset_s(None, from_s):
            return from_s
        from_s = min(_next_change(each, from_s, until_s) for each in (zone, None))
    return 0


def _zone_source(etc_path: str) -> tuple[str, list[str]]:
    """The file that the C library reads for the system's zone, if TZ is not empty, and
    the names of that zone by TZ, by the path and by the links behind it."""
    variable = os.environ.get("TZ")
    named = re.sub("^:", "", variable or "")
    if variable is not None and not named:
        return "", ["UTC"]
    folder = os.environ.get("TZDIR") or "/usr/share/zoneinfo"
    path = os.path.join(*((folder, named) if named else (etc_path, "localtime")))
    links = [os.readlink(path)] if os.path.islink(path) else []
    places = [path, *links, os.path.realpath(path)]
    names = [p.rpartition("zoneinfo/")[2] for p in places if "zoneinfo/" in p]
    return path, names if named[:1] in ("", "/") else [named, *names]


def local_zone_name() -> str:
    """What TZ, else /etc/localtime calls the system's zone."""
    return next(iter(_zone_source("/etc")[1]), LOCAL)


def _beginning(path: str, size_bytes: int) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(size_bytes)
    except OSError:  # open, read: not there, a folder, not for us
        return b""


def local_zone(now_s: int, etc_path: str = "/etc") -> tuple[str, str]:
    """The system's zone, and a warning if the C library has no file of that name.

    The zone is what the C library makes of TZ and /etc/localtime, as date(1) shows it:
    `local`, or a name that has the same rules in the years to come. Raises ValueError
    if TZ or the link names nothing that there is: the library then has UTC, silently.
    """
    time.tzset()
    _spans.cache_clear()  # `local` may have been another one
    path, names = _zone_source(etc_path)
    known = [name for name in names if _database_zone(name)]
    guesses = [*known, "UTC"]
    if "TZ" not in os.environ:
        line = _beginning(os.path.join(etc_path, "timezone"), CRON_MAX_CHARS)
        guesses.insert(-1, line.decode("utf-8", "replace").strip())
    found = next((name for name in guesses if not _unlike_local_s(name, now_s)), LOCAL)
    if found in known or _beginning(path, 4) == b"TZif":
        return found, ""
    said_by = "TZ" if "TZ" in os.environ else path
    if known:
        at_s = _unlike_local_s(known[0], now_s)
        return found, (
            f"{said_by} says {known[0]}, {zone_text(at_s, known[0])}; the C library, as"
            f" date shows, has {found}, {zone_text(at_s, LOCAL)}, and cron follows it;"
            ' install tzdata, or write "timezone"'
        )
    asked = names or (said_by == "TZ" and path != "/etc/localtime")
    name = (names or [path])[0]
    if asked and not _POSIX_ZONE.fullmatch(name):
        fault = f"{said_by}: {_zone_fault(name)}"
        raise ValueError(f"{fault}, or in TZ rules like CET-1CEST,M3.5.0,M10.5.0/3")
    return found, ""


def _listed(words: list[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))


def _day_words(cron: Cron) -> str:
    """The days in words, or "" when they are not simple."""
    if cron.any_day:
        return "every day"
    days = [day for day in range(1, 32) if cron.days >> day & 1]
    months = [month for month in range(1, 13) if cron.months >> month & 1]
    week = [day % 7 for day in range(1, 8) if cron.weekdays >> day % 7 & 1]
    if len(days) == 31 and len(months) == 12:
        names = [_WEEKDAYS[day] for day in week]
        in_a_row = len(week) > 2 and (week[-1] - week[0]) % 7 == len(week) - 1
        return f"{names[0]} to {names[-1]}" if in_a_row else _listed(names)
    if len(days) > 1 or len(week) < 7:
        return ""
    if len(months) == 12:
        return f"on day {days[0]} of the month"
    return f"every {days[0]} " + _listed([_MONTHS[month - 1] for month in months])


def _pace_words(cron: Cron) -> str:
    """The pace in words, or "" when the ticks of a day are not even."""
    if len(cron.hours) < 24:
        step = 24 // len(cron.hours)
        even = cron.marks == (0,) and cron.hours == tuple(range(0, 24, step))
        return f"every {step} hours" if even else ""
    if len(cron.marks) == 1:
        minute = _time_text(cron.marks[0])[2:]
        return "every hour" + (f" at {minute}" if cron.marks[0] else "")
    step = _HOUR_S // len(cron.marks)
    if cron.marks != tuple(range(0, _HOUR_S, step)):
        return ""
    count, unit = (step // 60, "minute") if step % 60 == 0 else (step, "second")
    return f"every {unit}" if count == 1 else f"every {count} {unit}s"


def cron_words(cron: Cron) -> str:
    """The schedule in plain English, or the expression when that says it better."""
    if cron.every_s:
        return cron.text[1:]
    days = _day_words(cron)
    if days and len(cron.hours) * len(cron.marks) <= 3:
        seconds = [hour * _HOUR_S + mark for hour in cron.hours for mark in cron.marks]
        return f"{days} at {_listed([_time_text(second) for second in seconds])}"
    pace = _pace_words(cron)
    if pace and days:
        return pace if cron.any_day else f"{pace}, {days}"
    return cron.text


# ---- 4. Schemas: the shape of everything that crosses the wire --------------
# Owns SCHEMAS (named JSON Schemas, draft 2020-12), PARAMS (query parameters) and Task,
# the table of a task's keys. Plain data in a small, closed dialect that section 5
# understands whole. Requests, answers, tasks.json, OpenAPI and the tests' client read
# these same tables; every default of the configuration lives here and nowhere else.
# Relies on 2 and 3.

JsonSchema = dict[str, Any]
SCHEMA_DIALECT = "https://json-schema.org/draft/2020-12/schema"


def _text(description: str, **more: Any) -> JsonSchema:
    return {"type": "string", "description": description, **more}


def _number(description: str, minimum: int, maximum: int, **more: Any) -> JsonSchema:
    bounds = {"minimum": minimum, "maximum": maximum}
    return {"type": "integer", "description": description, **bounds, **more}


def _integer(description: str, **more: Any) -> JsonSchema:
    return {"type": "integer", "description": description, **more}


def _real(description: str) -> JsonSchema:
    return {"type": "number", "description": description}


def _flag(description: str, **more: Any) -> JsonSchema:
    return {"type": "boolean", "description": description, **more}


def _choice(description: str, values: tuple[str, ...], **more: Any) -> JsonSchema:
    return _text(description, enum=list(values), **more)


def _list(description: str, items: JsonSchema, **more: Any) -> JsonSchema:
    return {"type": "array", "description": description, "items": items, **more}


def _map(description: str, values: JsonSchema, **more: Any) -> JsonSchema:
    closed = {"additionalProperties": values}
    return {"type": "object", "description": description, **closed, **more}


def _object(
    description: str, optional: str = "", /, **fields: JsonSchema
) -> JsonSchema:
    """A closed object; `optional` names the members that need not be there,
    blank-separated."""
    schema: JsonSchema = {"type": "object", "description": description}
    required = [name for name in fields if name not in optional.split()]
    if required:
        schema["required"] = required
    return {**schema, "properties": fields, "additionalProperties": False}


def _ref(name: str) -> JsonSchema:
    return {"$ref": f"{name}.json"}


def _request(description: str, /, **fields: JsonSchema) -> JsonSchema:
    ignored = _text("May name the schema, and is ignored", format="any-text")
    fields = {"$schema": ignored, **fields}
    return _object(description, " ".join(fields), **fields)


def _answer(
    description: str, optional: str = "", /, **fields: JsonSchema
) -> JsonSchema:
    link = _text("URL of the JSON Schema of this object", format="uri")
    return _object(description, f"$schema {optional}", **{"$schema": link}, **fields)


TASK_NAME_PATTERN = r"^[a-zA-Z0-9._:-]{1,100}$"
_TASK_NAME = _text("Task name", pattern=TASK_NAME_PATTERN)
_RUN_ID = _text("Run id, a ULID", pattern=RUN_ID_PATTERN)
_WHEN = "RFC 3339, UTC, milliseconds"
_NS = "in nanoseconds"


def _time(description: str) -> JsonSchema:
    return _text(f"{description} ({_WHEN})", format="date-time")


_VARIABLE = r"^[A-Za-z_][A-Za-z0-9_]*$"
_ENVIRONMENT = _map("", {"type": "string"}, propertyNames={"pattern": _VARIABLE})


def _same(value: Any) -> Any:
    return value


class _Kind(NamedTuple):
    """What the value of a key may be, and its forms: `read` makes the one of Task from
    the one of tasks.json, `show` makes that of the API, `restore` takes it from the
    JSON of a handover. Descriptions are what follows the meaning of a key."""

    schema: JsonSchema
    shown: JsonSchema | None = None  # if the API has another form
    read: Callable[[Any], Any] | None = _same
    show: Callable[[Any], Any] | None = _same
    restore: Callable[[Any], Any] = _same


def _made(schema: JsonSchema, show: Callable[[Any], str | None] | None = None) -> _Kind:
    """Values that section 6 makes, from several keys or with the folder of the file."""
    return _Kind(schema, _text(""), read=None, show=show)


def _between(minimum: int, maximum: int) -> _Kind:
    return _Kind(_number("", minimum, maximum))


def _among(values: tuple[str, ...]) -> _Kind:
    return _Kind(_choice("", values))


_WORDS = {"type": ["string", "array"], "minLength": 1, "minItems": 1}
_TEXT, _FLAG = _Kind(_text("")), _Kind(_flag(""))
_TIME = _Kind(
    _text(": 30s, 5m, 1h30m, 2d", format="duration-text"),
    _integer(f", {_NS}"),
    parse_duration,
    nanoseconds,
)
_MORE_THAN_NOTHING = _TIME._replace(
    schema={**_TIME.schema, "format": "positive-duration-text"}
)
FOREVER = "forever"
_KEPT = _MORE_THAN_NOTHING._replace(
    schema={**_text(": 30d, 52w, forever", format="kept-duration-text")},
    read=lambda text: None if text == FOREVER else parse_duration(text),
)
_OUTPUT_SIZE = _Kind(
    _text(": 64kb, 100mb, 1gb", format="log-size-text"),
    _integer(", in bytes"),
    parse_size,
)
_SIGNAL = _Kind(
    _text("", format="signal"),
    read=lambda name: signal.Signals[name],
    show=lambda number: number.name,
    restore=signal.Signals,
)
_EXIT_CODES = _Kind(
    _list("", {"type": "integer", "minimum": 0, "maximum": 255}, minItems=1),
    read=lambda codes: tuple(sorted({*codes})),
    restore=tuple,
)


def task_names(given: str | Sequence[str]) -> tuple[str, ...]:
    """The tasks that a hook names, each once."""
    return tuple(dict.fromkeys([given] if isinstance(given, str) else given))


_TASKS = _Kind(
    {"type": ["string", "array"], "minLength": 1, "items": {"type": "string"}},
    _list("", _TASK_NAME),
    task_names,
    list,
)


class TaskKey(NamedTuple):
    """A key of tasks.json; its default is that of its schema."""

    key: str
    schema: JsonSchema
    shown: JsonSchema
    kind: _Kind
    until_end: bool  # a run keeps what it started with, over an upgrade as well
    also: Mapping[str, JsonSchema]  # further keys that the value is made from


def _key(
    meaning: str,
    kind: _Kind,
    default: Any = None,
    key: str = "",
    *,
    until_end: bool = False,
    **also: JsonSchema,
) -> Any:
    own, shown = (
        {**schema, "description": meaning + schema.get("description", "")}
        for schema in (kind.schema, kind.shown or kind.schema)
    )
    if default is not None:
        own["default"] = default
    return TaskKey(key, own, shown, kind, until_end, also)


class Param(NamedTuple):
    """A declared parameter; `key` identifies it, `kind` says how it is passed."""

    kind: str
    key: str
    type: str
    default: str | None
    required: bool
    choices: tuple[str, ...]
    allow_custom: bool
    secret: bool
    description: str


class Account(NamedTuple):
    """The user that a program runs as."""

    name: str
    home: str
    shell: str
    uid: int
    gid: int
    groups: tuple[int, ...]


class Task(NamedTuple):
    """One declared task with every default filled in; `environ` is complete but for
    what belongs to a single run.

    The class is the table of a task's keys as well: the default of a field is its
    TaskKey. Its type, its schema, its kind and its default are one row; tasks.json, the
    API, reloads, handovers and the tests of README.md read it from here. A key has the
    name of its field without the unit, unless the row names another.
    """

    name: str
    run: str | tuple[str, ...] = _key(
        "Text: a shell script. List: a program and its arguments",
        _made({**_WORDS, "items": {"type": "string"}}),
    )
    notify: Mapping[str, Any] | None = _key(
        "In place of run: whom to tell; https://…, http://…, mailto:…, or a list",
        _made({**_WORDS, "items": {"type": "string"}}),
        notify_format=_choice(
            "chat: for Slack, Discord and such; json: the document; text: plain text",
            NOTIFY_FORMATS,
            default=AS_CHAT,
        ),
        smtp=_text("Mail server for mailto: smtp://USER:PASSWORD@HOST:587, smtps://…"),
    )
    description: str = _key("What the task does, for people", _TEXT, "")
    group: str = _key("Heading under which the task is listed", _TEXT, "")
    params: tuple[Param, ...] = _key(
        "Parameters that a trigger may give", _made(_list("", _ref("Param"))), []
    )
    environ: Mapping[str, str] = _key(
        "Environment variables",
        _made(_ENVIRONMENT),
        {},
        "env",
        env_file=_text("File of KEY=VALUE lines, read when the configuration loads"),
        env_base=_choice(
            "Start from the daemon's environment, or from a clean one",
            ("inherit", "clean"),
            default="inherit",
        ),
    )
    secrets: tuple[str, ...] = _key(
        "Like env; values are never shown and are redacted in output",
        _made(_ENVIRONMENT),
        {},
        secrets_file=_text("Like env_file, for secrets"),
    )
    working_dir: str = _key("Working directory", _made(_text(""), _same), ".")
    shell: tuple[str, ...] = _key(
        "Program that runs a script; list: with the arguments before it",
        _made({**_WORDS, "items": {"type": "string", "minLength": 1}}, " ".join),
        "/bin/sh",
    )
    umask: int = _key(
        "File mode mask in octal",
        _made(
            _text("", pattern="^0?[0-7]{3}$"),
            lambda mask: f"{mask:03o}" if mask >= 0 else None,
        ),
    )
    account: Account | None = _key(
        "Run as user or user:group; needs root",
        _made(_text("", minLength=1), lambda account: account.name),
        key="user",
    )
    api_trigger: bool = _key("Whether HTTP clients may trigger the task", _FLAG, True)
    timeout_s: float | None = _key(
        "Most time that a run may take", _MORE_THAN_NOTHING, until_end=True
    )
    graceful_stop_s: float = _key(
        "Time between the stop signal and SIGKILL", _TIME, "5s", until_end=True
    )
    stop_signal: signal.Signals = _key(
        "Signal that asks the program to end", _SIGNAL, "SIGTERM", until_end=True
    )
    exit_codes: tuple[int, ...] = _key(
        "Exit codes that mean success", _EXIT_CODES, [0], until_end=True
    )
    orphans: str = _key(
        "What becomes of processes that a program leaves behind when it ends",
        _among(ORPHAN_POLICIES),
        KILL,
        until_end=True,
    )
    max_concurrent: int = _key("Runs at the same time", _between(1, 1024), 1)
    on_overlap: str = _key(
        "What a trigger does when max_concurrent is reached",
        _Kind(
            _choice("", (*OVERLAPS, COALESCE)),
            _choice("", OVERLAPS),
            show=lambda word: QUEUE if word == COALESCE else word,
        ),
        QUEUE,
    )
    queue_max: int = _key("Longest queue of waiting runs", _between(0, 10_000), 100)
    stderr: str = _key(
        "Whether stderr is a stream of its own, or merged into stdout in written order",
        _among(STDERR_WAYS),
        SEPARATE,
        until_end=True,
    )
    log_max_bytes: int = _key(
        "Most output kept of one run",
        _OUTPUT_SIZE,
        "100mb",
        "log_max_size",
        until_end=True,
    )
    log_on_full: str = _key(
        "Beyond log_max_size: drop the oldest output, the newest, or stop the run",
        _among(LOG_POLICIES),
        DROP_OLD,
        until_end=True,
    )
    keep_runs: int | None = _key("Newest ended runs to keep", _between(1, 10_000_000))
    keep_for_s: float | None = _key("How long ended runs are kept", _KEPT, "90d")
    retry_attempts: int = _key(
        "Attempts after a run that failed, timed out or wrote too much",
        _between(0, 100),
        0,
        until_end=True,
    )
    retry_delay_s: float = _key("Time between attempts", _TIME, "5s", until_end=True)
    retry_backoff: str = _key(
        "How retry_delay grows from attempt to attempt",
        _among(BACKOFFS),
        CONSTANT,
        until_end=True,
    )
    on_failure: tuple[str, ...] = _key(
        "Tasks to trigger when the last attempt of a run has failed", _TASKS, []
    )
    on_success: tuple[str, ...] = _key("Tasks to trigger after a success", _TASKS, [])
    on_recovery: tuple[str, ...] = _key(
        "Tasks to trigger after the first success behind failures", _TASKS, []
    )
    cron: Cron | None = _key(
        "When to run: 30 3 * * *, @daily, @every 1h30m",
        _made(_text("", minLength=1)),
        timezone=_text("Time zone of cron, such as Europe/Berlin", minLength=1),
    )
    jitter_s: float = _key("Starts of tasks are spread over this long", _TIME, "0s")
    run_on_start: bool = _key("Run once whenever the daemon starts", _FLAG, False)
    catch_up: str = _key(
        "Which of the ticks that were missed run afterwards",
        _among(CATCH_UPS),
        CATCH_LATEST,
    )
    max_catch_up_runs: int = _key(
        "Most runs of catch_up all", _between(1, CATCH_UP_MAX_RUNS), 100
    )

    def __repr__(self) -> str:
        """Its name; the rest has secrets in it."""
        return f"Task({self.name!r})"


TASK_FIELDS: dict[str, TaskKey] = {
    field: row._replace(key=row.key or re.sub("_s$", "", field))
    for field, row in Task._field_defaults.items()
}
TASK_KEYS: dict[str, JsonSchema] = {
    key: schema
    for row in TASK_FIELDS.values()
    for key, schema in {row.key: row.schema, **row.also}.items()
}
_SHOWN_KEYS = {row.key: row.shown for row in TASK_FIELDS.values() if row.kind.show}

PARAM_KINDS = ("env", "arg", "option", "flag")
_PARAM_FIELDS: dict[str, JsonSchema] = {
    "env": _text("Pass as this environment variable", pattern=_VARIABLE),
    "arg": _text("Pass the value as an argument", minLength=1),
    "option": _text("Pass as --level VALUE, or --date=VALUE", pattern="^-"),
    "flag": _text("Pass this argument when true", pattern="^-"),
    "type": _choice(
        "Type of the value", ("string", "number", "integer"), default="string"
    ),
    "default": {
        "type": ["string", "boolean", "number"],
        "description": "Value when the trigger gives none",
    },
    "required": _flag("Whether a value must be there", default=False),
    "choices": _list("Allowed values", {"type": "string"}, minItems=1),
    "allow_custom": _flag("Allow other values than the choices", default=False),
    "secret": _flag("Never show the value", default=False),
    "description": _text("What the parameter means, for people", default=""),
}

_OPTIONAL_RUN_FIELDS: dict[str, JsonSchema] = {
    "end_reason": _choice("Why the run ended; set when status=ended", END_REASONS),
    "signal": _text("Name of the signal that killed the program"),
    "error": _text("One sentence, when the daemon knows more than the exit code"),
    "scheduled_at": _time("The tick that this run answers"),
    "start_at": _time("When the program was started; of a pending run: not before"),
    "end_at": _time("When the program ended"),
    "duration": _integer(f"Running time on the monotonic clock, {_NS}"),
    "params": _map("Parameters as resolved", {"type": "string"}),
    "retry_of_run_id": _text("Id of the attempt before this one"),
    "output_bytes": _integer("Bytes that the program wrote"),
    "output_dropped_bytes": _integer("Bytes of them that were not kept"),
    "cpu_seconds": _real("CPU time, user and system"),
    "max_rss_bytes": _integer("Largest resident set of the program, where it is known"),
    "survivors": _integer(
        "Processes that the program left and that were ended, if they could be"
    ),
    "summary": _text("One sentence, when the run ended badly", format="any-text"),
    "via": _choice("What a run of the API came from, if not from its client", VIAS),
    "cause_run_id": _text("Id of the run whose end triggered this one"),
    "request_id": _text("X-Request-Id of the trigger, given or made"),
    "traceparent": _text("Trace context of the trigger (W3C)"),
    "result": {
        "description": "JSON that the program left in the file named by"
        f" {RESULT_VARIABLE}; lists and events leave it out"
    },
    "output": _list("The last lines, with output=N", _ref("LogLine")),
    "hook_run_ids": _list("Ids of the runs that its end triggered", _RUN_ID),
}
_RUN = _answer(
    "One run of a task",
    " ".join(_OPTIONAL_RUN_FIELDS),
    id=_RUN_ID,
    task_name=_TASK_NAME,
    status=_choice("Phase of the run", STATUSES),
    exit_code=_integer(
        "Exit code; -1 until a program has ended, 128+n when signal n killed it"
    ),
    triggered_by=_choice("How the run was triggered", TRIGGERS),
    created_at=_time("When the run was recorded"),
    retry_attempt=_integer("0 for the first attempt"),
    instance_index=_integer("Always 0"),
    **_OPTIONAL_RUN_FIELDS,
)

_SCHEDULE: dict[str, JsonSchema] = {
    "cron": _text("The schedule"),
    "timezone": _text("Time zone of the schedule"),
    "schedule": _text("The schedule in words"),
}
_TASK_ANSWER = _answer(
    "A declared task",
    "cron timezone schedule paused next_run_at last_run keep_for "
    + " ".join(key for key in _SHOWN_KEYS if "default" not in TASK_KEYS[key]),
    name=_TASK_NAME,
    params=_list("Declared parameters", _ref("Param")),
    **_SHOWN_KEYS,
    **_SCHEDULE,
    kind=_choice("Always task", ("task",)),
    parameters=_list("The same as params, otherwise told", _ref("TaskParam")),
    autostart=_flag("Always true"),
    paused=_ref("Pause"),
    coalesce=_flag("Whether a trigger joins a run that waits with its parameters"),
    next_run_at=_time("When its next scheduled run starts, jitter included"),
    running=_integer("Runs running now"),
    queued=_integer("Runs waiting in the queue"),
    last_run=_ref("Run"),
)

_LOG_LINE_FIELDS: dict[str, JsonSchema] = {
    "n": _integer("Line number, 0-based, absolute, never reused", minimum=0),
    "ts": _integer("Unix milliseconds when the daemon read the line"),
    "stream": _choice("Where the line came from", STREAMS),
    "text": _text("The line without its newline", format="any-text"),
}

_MEMORY = {
    "mem_total": _integer("Bytes of the machine's memory; 0 if unknown"),
    "mem_used": _integer("Bytes of it that are in use; 0 if unknown"),
}
_PARAM_FACTS = ("required", "choices", "allow_custom", "secret", "description")

_STATUS_WORD = f" *(?:{'|'.join(STATUSES + END_REASONS)}) *"
_FILTER_FIELDS: dict[str, JsonSchema] = {
    "status": _text(
        "Comma list of phases and end reasons",
        format="status-list",
        pattern=f"^{_STATUS_WORD}(?:,{_STATUS_WORD})*$",
    ),
    "task_name": _TASK_NAME,
    "triggered_by": _choice("How the run was triggered", TRIGGERS),
    "via": _choice("What a run of the API came from", VIAS),
    "created_after": _text("Created at or after (RFC 3339)", format="date-time"),
    "created_before": _text("Created at or before (RFC 3339)", format="date-time"),
    "exit_code_min": _number("Smallest exit code", -(2**63), 2**63 - 1),
    "exit_code_max": _number("Largest exit code", -(2**63), 2**63 - 1),
    "retries_only": _flag("Only second and later attempts"),
    "search": _text(
        "Part of a task name or run id",
        minLength=1,
        maxLength=200,
        pattern=r"^[^\x00]*$",
    ),
}

SCHEMAS: dict[str, JsonSchema] = {
    "ErrorModel": _answer(
        "What went wrong (RFC 9457)",
        "instance errors",
        type=_text("URI of the problem type", format="uri-reference"),
        title=_text("Short summary of the problem type"),
        status=_integer("HTTP status code"),
        detail=_text("What happened here and what would be right"),
        instance=_text("URI of this occurrence", format="uri-reference"),
        errors=_list("The values at fault", _ref("ErrorDetail")),
    ),
    "ErrorDetail": _object(
        "One value at fault",
        "value",
        location=_text("Where, such as body.params.NAME"),
        message=_text("What is wrong and what would be right"),
        value={"description": "The value as given; never a secret"},
    ),
    "Run": _RUN,
    "Runs": _answer(
        "A page of runs",
        runs=_list("The runs", _ref("Run")),
        total=_integer("How many runs match in all", minimum=0),
    ),
    "RunSummary": _answer(
        "Totals over the history",
        "last_failure last_failure_run",
        total=_integer("Runs in the history"),
        success=_integer("Ended with success"),
        failed=_integer("Ended as " + ", ".join(FAILURES)),
        missed=_integer("Ticks missed"),
        last_failure=_time("When the newest run that failed ended"),
        last_failure_run=_ref("Run"),
    ),
    "Param": {**_object("A declared parameter"), "properties": _PARAM_FIELDS},
    "TaskParam": _object(
        "A declared parameter as RunWisp 0.x tells it",
        "default choices allow_custom",
        key=_text("What identifies it"),
        kind=_choice("How it is passed", PARAM_KINDS),
        type=_choice("Type of the value", ("string", "number")),
        default=_text("Value when the trigger gives none"),
        **{name: _PARAM_FIELDS[name] for name in _PARAM_FACTS},
    ),
    "Task": _TASK_ANSWER,
    "Tasks": _list("The declared tasks, in the order of tasks.json", _ref("Task")),
    "Tick": _object(
        "A coming tick of a schedule",
        "note",
        at=_time("When it is"),
        local=_text("The same as a clock in the zone shows it", format="date-time"),
        fires=_flag("False: the second showing of a fixed hour, recorded only"),
        note=_text("What daylight saving does to it"),
    ),
    "NextTicks": _answer(
        "The coming ticks of a task; none without a schedule",
        "cron timezone schedule paused",
        task_name=_TASK_NAME,
        **_SCHEDULE,
        paused=_ref("Pause"),
        ticks=_list("The ticks, soonest first", _ref("Tick")),
    ),
    "Pause": _object(
        "Since when the schedule does not fire, until when, and why",
        "until reason",
        since=_time("When it was paused"),
        until=_time("When it goes on by itself"),
        reason=_text("Why", format="any-text"),
    ),
    "PauseRequest": _request(
        "How long and why schedules shall not fire",
        until=_text("When they go on by themselves (RFC 3339)", format="date-time"),
        reason=_text("Why, for people", maxLength=REASON_MAX_CHARS),
    ),
    "AllPaused": _answer(
        "Whether all schedules are paused", "paused", paused=_ref("Pause")
    ),
    "Trigger": _request(
        "What a trigger may send",
        params=_map(
            "Values by parameter key; null omits a parameter, overriding its default."
            " Numbers and booleans, for number, integer and flag, mean their text",
            {"type": ["string", "number", "boolean", "null"]},
        ),
    ),
    "LogLine": _object(
        "One line of output",
        "continued",
        **_LOG_LINE_FIELDS,
        continued=_flag("The text goes on where this stream's line before it ended"),
    ),
    "LogPart": _object(
        "Output of one stream, byte for byte",
        end=_integer("Offset of its end, dropped bytes counted; where to go on"),
        stream=_choice("Which stream; system tells what was left out", STREAMS),
        bytes=_text("The bytes as written, in base64"),
    ),
    "LogPage": _answer(
        "A page of lines",
        lines=_list("The lines, ascending", _ref("LogLine")),
        first_available=_integer("Number of the first line kept"),
        total_lines=_integer("Lines so far, dropped ones included"),
        truncated=_flag("Whether lines were dropped"),
        finalized=_flag("Whether no more lines will come"),
    ),
    "LogHit": _object(
        "One line found",
        run_id=_RUN_ID,
        **_LOG_LINE_FIELDS,
    ),
    "LogSearch": _answer(
        "Lines found, newest run first, lines ascending",
        "next_cursor",
        hits=_list("The lines", _ref("LogHit")),
        exhausted=_flag("Whether everything was searched"),
        scanned_runs=_integer("Runs searched by this request"),
        next_cursor=_text("Give as cursor to go on"),
    ),
    "Message": _answer("What was done", message=_text("What was done, for people")),
    "BulkFilter": _object("Which runs", " ".join(_FILTER_FIELDS), **_FILTER_FIELDS),
    "BulkSelector": {
        **_request(
            "Either ids, or match_all with a filter and except_ids",
            ids=_list("Run ids", _RUN_ID, minItems=1, maxItems=BULK_MAX_IDS),
            match_all=_flag("All runs that match the filter"),
            filter=_ref("BulkFilter"),
            except_ids=_list("Runs to leave alone", _RUN_ID, maxItems=BULK_MAX_IDS),
        ),
        # For clients; here it is told in words.
        "oneOf": [
            {
                "required": ["ids"],
                "properties": {"match_all": {"const": False}},
            },
            {
                "required": ["match_all"],
                "properties": {"match_all": {"const": True}, "ids": False},
            },
        ],
    },
    "BulkAffected": _answer(
        "How many runs were changed",
        affected=_integer("Runs changed; others were already so, or do not exist"),
    ),
    "BulkRefusal": _object(
        "A task that could not be run again",
        "run",
        task_name=_TASK_NAME,
        status=_integer("The status a trigger would have had"),
        detail=_text("Why"),
        run=_ref("Run"),
    ),
    "BulkRerun": _answer(
        "The runs that were started, one per task",
        affected=_integer("Runs started"),
        runs=_list("The new runs", _ref("Run")),
        triggered=_list("Their ids", _ref("TriggeredRun")),
        refused=_list("Tasks that could not be run again", _ref("BulkRefusal")),
    ),
    "TriggeredRun": _object("A new run", run_id=_RUN_ID, task_name=_TASK_NAME),
    "Reload": _answer(
        "What a new configuration changed",
        added=_list("Tasks that are new", _TASK_NAME),
        removed=_list("Tasks that are gone", _TASK_NAME),
        changed=_list("Tasks that are defined otherwise", _ref("ChangedTask")),
    ),
    "ChangedTask": _object(
        "A task that is defined otherwise",
        name=_TASK_NAME,
        reasons=_list("Keys that changed", {"type": "string"}),
    ),
    "RunEvent": _object(
        "The data of a run event",
        run_id=_RUN_ID,
        task_name=_TASK_NAME,
        run=_ref("Run"),
    ),
    "DaemonEvent": {
        "description": "The data of any event",
        "oneOf": [
            _ref("RunEvent"),
            _object("Of system", sample=_ref("SystemSample"), uptime=_text("Up for")),
            _object("Of config.stale", stale=_flag("Whether tasks.json is another")),
        ],
    },
    "Info": _answer(
        "What this daemon is",
        name=_text("Program name"),
        app=_text("Program name"),
        version=_text("Program version"),
        python=_text("Python version"),
        pid=_integer("Process id"),
        started_at=_time("When the daemon started"),
        task_count=_integer("Declared tasks"),
        tasks=_list("The declared tasks", _ref("Task")),
        config_path=_text("The tasks.json in use"),
        config_loaded_at=_time("When it was loaded"),
        config_changed=_flag("Whether the file differs from what was loaded"),
        config_stale=_flag("The same as config_changed"),
        data_dir=_text("Where state is kept"),
        fingerprint=_text("The same for as long as data_dir is"),
        port=_integer("TCP port at which clients are awaited; 0 for none"),
        socket_path=_text("Unix socket at which clients are awaited; empty for none"),
        external_url=_text("Always empty"),
        resolved_timezone=_text("Time zone of the schedules that name none"),
        timezone_source=_choice("Who says so", ("config", "system")),
        scheduling_active=_flag("Whether schedules start runs"),
        service_managed=_flag("Whether systemd has started the daemon"),
        auth_disabled=_flag("Whether no token is needed"),
        capabilities=_list("Always empty", _text("")),
        cloud_enabled=_flag("Always false"),
        tracking=_choice(
            "How the processes of a run are found: it has a cgroup of its own, or they "
            "have its process group or its id in their environment",
            TRACKINGS,
        ),
        auth_required=_flag("Whether a token is needed"),
    ),
    "AuthStatus": _answer(
        "Whether this client may ask",
        auth_required=_flag("Whether a token is needed"),
        authenticated=_flag("Whether the request has it, or needs none"),
    ),
    "DiskUsage": _object(
        "What the runs of a task take on the disk",
        task_name=_TASK_NAME,
        runs=_integer("Runs in the history"),
        database_bytes=_integer("Its share of the database, by their number"),
        log_bytes=_integer("Their logs, in whole blocks"),
    ),
    "SystemStats": _answer(
        "The daemon and its machine, now",
        "cpu_seconds rss_bytes mem_total_bytes mem_available_bytes disk_usage",
        name=_text("Program name"),
        version=_text("Program version"),
        host=_text("Name of the machine"),
        os=_text("Its operating system, in lower case"),
        arch=_text("Its processors, as uname -m tells them"),
        work_dir=_text("Working directory of the daemon"),
        uptime=_text("Time since the daemon started: 0m, 3h 12m, 4d 1h"),
        uptime_ns=_integer(f"The same, {_NS}"),
        cpu_count=_integer("Processors"),
        cpu_cores=_integer("The same as cpu_count"),
        cpu_usage=_real("Percent of them in use in the last sample; 0 before"),
        **_MEMORY,
        mem_usage=_real("Percent of it in use; 0 if unknown"),
        load_average=_list("1, 5 and 15 minutes", {"type": "number"}),
        cpu_seconds=_real("CPU time of the daemon"),
        rss_bytes=_integer("Resident memory of the daemon"),
        mem_total_bytes=_integer("Memory of the machine"),
        mem_available_bytes=_integer("Memory that programs could still have"),
        disk_free_bytes=_integer("Free space where state is kept"),
        disk_total_bytes=_integer("Size of that file system"),
        disk_usage=_list(
            "With usage=true: the tasks that take most of it, about", _ref("DiskUsage")
        ),
        runs_active=_integer("Runs running"),
        runs_queued=_integer("Runs waiting in queues"),
        http_waiting=_integer("Requests that wait or stream"),
        threads=_integer("Threads of the daemon"),
    ),
    "SystemHistory": _list("The last hour, oldest first", _ref("SystemSample")),
    "SystemSample": _object(
        f"The machine and the daemon in {SAMPLE_EVERY_S:.0f} seconds",
        at=_time("When they were over"),
        ts=_integer("The same as Unix time in seconds"),
        cpu=_real("Percent of the machine's processors in use; 0 if unknown"),
        mem=_real("Percent of the machine's memory in use; 0 if unknown"),
        **_MEMORY,
        daemon_cpu=_real("Percent of one processor that the daemon used"),
        rss_bytes=_integer("Resident memory of the daemon"),
    ),
    "DaemonLogLine": _object(
        "The data of a line of the daemon's own log",
        n=_integer("Number of the line; growing, also over restarts"),
        ts=_integer("Unix time in milliseconds"),
        level=_choice("How bad it is", ("debug", "info", "warning", "error")),
        text=_text("The line as on stderr, without time and level"),
        line=_text("The line as on stderr"),
    ),
    "Health": _answer(
        "Whether the daemon works",
        "detail",
        status=_choice("ok, or what is the matter", ("ok", "unavailable")),
        detail=_text("What is the matter"),
    ),
    "TaskSettings": {
        **_object("A task, or the defaults of all tasks"),
        "properties": TASK_KEYS,
    },
    "Config": _object(
        "tasks.json",
        "$schema timezone defaults",
        **{"$schema": _text("URL or path of this schema")},
        timezone=_text("Time zone of all schedules that name none", minLength=1),
        defaults=_ref("TaskSettings"),
        tasks=_map(
            "The tasks by name",
            _ref("TaskSettings"),
            propertyNames={"pattern": TASK_NAME_PATTERN},
        ),
    ),
}

CURSOR_PATTERN = RUN_ID_PATTERN[:-1] + ":[0-9]{1,18}$"
# A string or a token of a structured field (RFC 8941, 3.3.3 and 3.3.4), but as in HTTP
# a token may begin with a digit, since many a key is a UUID.
QUOTED_KEY_CHAR = r'(?:[ !#-\[\]-~]|\\["\\])'
BARE_KEY_CHAR = "[!#$%&'*+.^_`|~0-9A-Za-z:/-]"
_KEY_SIZE = f"{{1,{KEY_MAX_CHARS}}}"

# Query parameters. The part of a key before ":" is the name on the wire.
PARAMS: dict[str, JsonSchema] = {
    "wait": _flag("Hold the request until the run has ended", default=False),
    "output": _number("Add the last lines of output", 1, OUTPUT_MAX_LINES),
    "wait_timeout": _number(
        "With wait=true or live output, the most seconds to hold the request",
        1,
        WAIT_MAX_S,
        default=WAIT_DEFAULT_S,
    ),
    **_FILTER_FIELDS,
    "retries_only": _flag("Only second and later attempts", default=False),
    "limit": _number("Most runs to list", 1, LIST_MAX_RUNS, default=50),
    "offset": _number("Runs to pass over", 0, 1_000_000_000, default=0),
    "sort_field": _choice(
        "What to sort by",
        ("task_name", "status", "start_at", "exit_code", "duration", "created_at"),
        default="created_at",
    ),
    "sort_direction": _choice("Which end first", ("asc", "desc"), default="desc"),
    "from": _integer(
        "First line; negative counts from the end", default=-1000, minimum=-(2**53)
    ),
    "limit:log": _number("Most lines", 1, LOG_PAGE_MAX_LINES, default=1000),
    "from:stream": _integer("First line; negative counts from the end"),
    "from:parts": _number("Offset of the first byte", 0, 2**63 - 1, default=0),
    "usage": _flag("Add disk_usage, for which all runs are read", default=False),
    "follow": _flag("Go on until the run has ended", default=True),
    "replay_limit": _number(
        "Most lines to replay, the newest", 1, LOG_REPLAY_MAX_LINES, default=5000
    ),
    "regex": _choice("q is plain text, no expression", ("false", "f", "0")),
    "q": _text("Text to look for", minLength=1, maxLength=1024, format="any-text"),
    "case": _flag("Whether case matters", default=False),
    "n": _number("Most ticks to list", 1, NEXT_MAX_TICKS, default=10),
    "run_id": _RUN_ID,
    "limit:search": _number("Most lines", 1, 1000, default=200),
    "cursor": _text(
        "Where to go on: next_cursor of the answer before",
        format="cursor",
        pattern=CURSOR_PATTERN,
    ),
}
# Of these an empty text means that they are absent.
MAY_BE_BLANK = (
    *_FILTER_FIELDS, "sort_field", "sort_direction", "run_id", "cursor", "regex",
)  # fmt: skip
PATH_PARAMS: dict[str, JsonSchema] = {
    "task_name": _TASK_NAME,
    "run_id": _RUN_ID,
    "schema_name": _text("Schema name"),
}
# Request headers that mean something to an operation; every one knows X-Request-Id.
HEADERS: dict[str, JsonSchema] = {
    REQUEST_ID_HEADER: _text(
        "Comes back with the answer; up to"
        f" {REQUEST_ID_MAX_CHARS} printable ASCII characters, else one is made"
    ),
    KEY_HEADER: _text(
        "Makes a trigger safe to repeat: text in double quotes, or a bare token, of 1"
        f" to {KEY_MAX_CHARS} characters. For 24 hours the same key with the same task"
        " and parameters gets the same run",
        pattern=f'^(?:"{QUOTED_KEY_CHAR}{_KEY_SIZE}"|{BARE_KEY_CHAR}{_KEY_SIZE})$',
    ),
    "traceparent": _text("Trace context (W3C), handed to the program as TRACEPARENT"),
    "Prefer": _text("wait=SECONDS or respond-async (RFC 7240); the query wins"),
    "If-None-Match": _text("ETag of a version that is known already"),
    "Last-Event-ID": _text("Id of the last event that was received"),
    "Range": _text("One range of bytes (RFC 9110, 14.2), such as bytes=-1000"),
}


# ---- 5. Validation: one walk over value and schema --------------------------
# Owns Fault, Problem (the client's mistake) and ConfigError (the operator's), and
# the walk that finds every fault of a value at once. Relies on 2 and 4; pure.

Where = tuple[Union[str, int], ...]
_ABSENT: Any = object()


def shortened(text: str) -> str:
    """A text that is not too long to be shown."""
    return text if len(text) <= ECHO_MAX_CHARS else text[:ECHO_MAX_CHARS] + "…"


class Fault(NamedTuple):
    """One value at fault: where it stands, what is wrong, the value itself."""

    at: Where
    message: str
    value: Any = _ABSENT
    of_name: bool = False

    @property
    def location(self) -> str:
        """The place as people write it: body.params.NAME, ids[3]."""
        parts = (f"[{x}]" if isinstance(x, int) else f".{x}" for x in self.at)
        return "".join(parts).lstrip(".")

    def detail(self) -> dict[str, Any]:
        """The fault as ErrorDetail; a long value is cut."""
        # A message may quote the value.
        detail: dict[str, Any] = {
            "location": shortened(self.location),
            "message": shortened(self.message),
        }
        if isinstance(self.value, str):
            detail["value"] = shortened(self.value)
        elif self.value is not _ABSENT:
            text = json.dumps(self.value, ensure_ascii=False)
            is_short = len(text) <= ECHO_MAX_CHARS
            detail["value"] = self.value if is_short else shortened(text)
        return detail


class Problem(Exception):
    """A request that cannot be answered as asked; becomes problem+json (RFC 9457)."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        faults: Iterable[Fault] = (),
        instance: str = "",
        headers: Mapping[str, str] | None = None,
        closes: bool = False,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.faults = list(faults)
        self.instance = instance
        self.headers = dict(headers or {})
        # Whether the connection ends with it: what follows on it is unknown.
        self.closes = closes


class ConfigFault(NamedTuple):
    """One fault of a configuration file; line and column count from 1, 0 is unknown."""

    path: str
    line: int
    column: int
    place: str
    message: str

    def __str__(self) -> str:
        """tasks.json:3:14: tasks.backup.timeout: "abc" is not a duration; write …"""
        position = f":{self.line}:{self.column}" if self.line else ""
        place = f"{self.place}: " if self.place else ""
        return f"{self.path}{position}: {place}{self.message}"


class ConfigError(Exception):
    """A configuration that cannot be used, with every fault of it."""

    def __init__(self, faults: list[ConfigFault]) -> None:
        super().__init__("\n".join(map(str, faults)))
        self.faults = faults


def matches(pattern: str, text: str) -> bool:
    """Whether text matches a schema's pattern; `$` means its very end (ECMA 262)."""
    # Python's own $ would let a trailing newline through.
    match = re.fullmatch if pattern.endswith("$") else re.match
    return match(pattern, text) is not None


def _checked_signal(text: str) -> None:
    if not re.fullmatch(r"SIG[A-Z0-9]+", text) or not hasattr(signal, text):
        raise ValueError(f'"{text}" is not a signal; write SIGTERM, SIGINT, SIGUSR1')
    if text in ("SIGKILL", "SIGSTOP"):
        raise ValueError(f"{text} cannot be caught; write SIGTERM or SIGINT")


def _checked_statuses(text: str) -> None:
    for word in text.split(","):
        if word.strip(" ") not in STATUSES + END_REASONS:
            known = ", ".join(STATUSES + END_REASONS)
            raise ValueError(f'"{word.strip()}" is not a status; write some of {known}')


def _checked_cursor(text: str) -> None:
    if not matches(CURSOR_PATTERN, text):
        raise ValueError("must be next_cursor of an earlier answer")


def _checked_positive_duration(text: str) -> None:
    if parse_duration(text) <= 0:
        raise ValueError(f'"{text}" is not longer than nothing; write 30s, 5m')


def _checked_kept_duration(text: str) -> None:
    if text != FOREVER:
        _checked_positive_duration(text)


def _checked_log_size(text: str) -> None:
    if parse_size(text) < LOG_MIN_BYTES:
        raise ValueError(f"must be at least {size_text(LOG_MIN_BYTES)}")


# Formats that are checked; any other is only documentation.
_FORMATS: dict[str, Callable[[str], Any]] = {
    "date-time": parse_time,
    "duration-text": parse_duration,
    "positive-duration-text": _checked_positive_duration,
    "kept-duration-text": _checked_kept_duration,
    "log-size-text": _checked_log_size,
    "signal": _checked_signal,
    "status-list": _checked_statuses,
    "cursor": _checked_cursor,
}


class WrittenNumber(float):
    """A JSON number that is no plain integer, with its text."""

    text: str


def _is_whole(value: Any) -> bool:
    """Whether a value is an integer; in a request 5.0 is one, as JSON Schema has it."""
    if isinstance(value, WrittenNumber):
        return value.is_integer()
    return isinstance(value, int) and not isinstance(value, bool)


# In words, and whether a value is one.
_TYPES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "string": ("text", lambda v: isinstance(v, str)),
    "boolean": ("true or false", lambda v: isinstance(v, bool)),
    "integer": ("a whole number", _is_whole),
    "number": (
        "a number", lambda v: isinstance(v, (int, float)) and not isinstance(v, bool)
    ),
    "array": ("a list", lambda v: isinstance(v, list)),
    "object": ("an object", lambda v: isinstance(v, dict)),
    "null": ("null", lambda v: v is None),
}  # fmt: skip


def resolved(schema: JsonSchema) -> JsonSchema:
    """The schema itself, or the one that its $ref names."""
    ref = schema.get("$ref")
    return SCHEMAS[ref[: -len(".json")]] if ref else schema


# Half of a surrogate pair has no bytes in UTF-8, a NUL ends every C string.
_NO_TEXT = re.compile("[\0\ud800-\udfff]")


def _text_faults(schema: JsonSchema, value: str, at: Where) -> Iterator[Fault]:
    if len(value) < schema.get("minLength", 0):
        yield Fault(at, "must not be empty", value)
    elif len(value) > schema.get("maxLength", len(value)):
        yield Fault(at, f"must have at most {schema['maxLength']} characters", value)
    elif (
        # Text that a program can get; output may be anything.
        "type" in schema
        and schema.get("format") != "any-text"
        and _NO_TEXT.search(value)
    ):
        nul = "must not contain a NUL character"
        yield Fault(at, nul if "\0" in value else "must be valid Unicode", value)
    elif schema.get("format") in _FORMATS:
        # A format says more than the pattern beside it, which is for clients.
        try:
            _FORMATS[schema["format"]](value)
        except ValueError as error:
            yield Fault(at, str(error), value)
    elif "pattern" in schema and not matches(schema["pattern"], value):
        yield Fault(at, f"must match {schema['pattern']}", value)


def nearest(word: Any, known: Iterable[str]) -> str:
    """`; did you mean …?` when a known word is near, else nothing."""
    import difflib  # 3 ms that only a mistake has to pay

    by_lower = {name.lower(): name for name in known}
    text = str(word)[:ECHO_MAX_CHARS].lower()
    close = difflib.get_close_matches(text, by_lower, n=1)
    return f"; did you mean {by_lower[close[0]]}?" if close else ""


def _object_faults(
    schema: JsonSchema, value: dict[str, Any], at: Where
) -> Iterator[Fault]:
    fields = schema.get("properties", {})
    others = schema.get("additionalProperties", {})
    names = schema.get("propertyNames", {})
    for name in schema.get("required", ()):
        if name not in value:
            yield Fault((*at, name), "must be there")
    for index, (name, member) in enumerate(value.items()):
        here = (*at, name)
        if name in fields:
            yield from find_faults(fields[name], member, here)
        elif others is False:
            near = nearest(name, fields) if index < FAULTS_LISTED else ""
            yield Fault(here, f"unknown key{near}", member, of_name=True)
        else:
            if "pattern" in names and not matches(names["pattern"], name):
                message = f"the name must match {names['pattern']}"
                yield Fault(here, message, of_name=True)
            yield from find_faults(others, member, here)


def find_faults(schema: JsonSchema, value: Any, at: Where) -> Iterator[Fault]:
    """Every fault of a JSON value against a schema, in document order."""
    schema = resolved(schema)
    kinds = schema.get("type", [])
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if kinds and not any(_TYPES[kind][1](value) for kind in kinds):
        words = " or ".join(_TYPES[kind][0] for kind in kinds)
        yield Fault(at, f"must be {words}", value)
    elif "enum" in schema and value not in schema["enum"]:
        words = ", ".join(schema["enum"])
        near = nearest(value, schema["enum"])
        yield Fault(at, f"must be one of {words}{near}", value)
    elif isinstance(value, str):
        yield from _text_faults(schema, value, at)
    elif isinstance(value, (int, float)):
        low, high = schema.get("minimum", value), schema.get("maximum", value)
        if not low <= value <= high:
            bounds = f"{low} to {high}" if "maximum" in schema else f"{low} or more"
            yield Fault(at, f"must be {bounds}", value)
    elif isinstance(value, list):
        if len(value) < schema.get("minItems", 0):
            yield Fault(at, "must not be empty", value)
        if len(value) > schema.get("maxItems", len(value)):
            yield Fault(at, f"must have at most {schema['maxItems']} entries")
            return
        for index, entry in enumerate(value):
            yield from find_faults(schema.get("items", {}), entry, (*at, index))
    elif isinstance(value, dict):
        yield from _object_faults(schema, value, at)


_TRUE, _FALSE = ("true", "1", "t"), ("false", "0", "f")


def parse_boolean(text: str) -> bool:
    """true/false/1/0/t/f in any case. Raises ValueError."""
    word = text.lower()
    if word in _TRUE:
        return True
    if word in _FALSE:
        return False
    raise ValueError(f'"{text}" is not true or false')


_BLANKS = {"string": "", "array": []}


def without_blanks(schema: JsonSchema, value: Any) -> Any:
    """A JSON value without the members that are null, or an empty text or list where
    the schema has one: so clients of RunWisp 0.x write that a member is absent."""
    if "properties" not in schema or not isinstance(value, dict):
        return value
    fields = {name: resolved(field) for name, field in schema["properties"].items()}
    return {
        name: without_blanks(fields.get(name, {}), member)
        for name, member in value.items()
        if name not in fields or member not in (None, _BLANKS.get(fields[name]["type"]))
    }


def coerced(schema: JsonSchema, text: str) -> Any:
    """A query parameter's text as the type its schema wants. Raises ValueError."""
    if schema["type"] == "boolean":
        return parse_boolean(text) if text else False
    if schema["type"] != "integer":
        return text
    if not re.fullmatch(r"[+-]?[0-9]{1,18}", text):
        raise ValueError("must be a whole number")
    return int(text)


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not JSON")


_OUTSIDE_TEXT = re.compile(rb'"(?:[^"\\]+|\\.)*"?|[\[{]|[\]}]', re.DOTALL)


# Not shown: it may be a secret.
_TOO_LARGE = "a number is too large"


def _finite(text: str) -> float:
    number = float(text)
    if math.isinf(number):
        raise ValueError(_TOO_LARGE)
    return number


def written_number(text: str) -> WrittenNumber:
    """A JSON number that keeps its text. Raises ValueError."""
    number = WrittenNumber(_finite(text))
    number.text = text
    return number


def value_text(value: Any) -> str:
    """A JSON value as it was written, or as it would be."""
    return value.text if isinstance(value, WrittenNumber) else json.dumps(value)


def _whole(text: str) -> int:
    if len(text) > INTEGER_MAX_DIGITS:
        raise ValueError(_TOO_LARGE)
    return int(text)


class RepeatedName(ValueError):
    """An object of a JSON text has two members of the same name."""


def _unique_members(members: list[tuple[str, Any]]) -> dict[str, Any]:
    unique = dict(members)
    if len(unique) < len(members):
        raise RepeatedName("a name is repeated")
    return unique


def json_value(
    raw: bytes,
    parse_float: Callable[[str], Any] = _finite,
    *,
    unique: bool = False,
) -> Any:
    """The value of a JSON text. Raises ValueError, also for one nested too deeply, and
    RepeatedName if names have to be `unique`."""
    # The parser recurses in C; a bound on nesting keeps a small thread stack safe.
    if raw.count(b"[") + raw.count(b"{") > JSON_MAX_DEPTH:
        depth = 0
        for token in _OUTSIDE_TEXT.finditer(raw):
            first = token[0][:1]
            depth += 1 if first in b"[{" else -1 if first in b"]}" else 0
            if depth > JSON_MAX_DEPTH:
                raise ValueError(f"nested deeper than {JSON_MAX_DEPTH} levels")
    return json.loads(
        raw.decode("utf-8-sig"),
        parse_constant=_refuse_constant,
        parse_float=parse_float,
        parse_int=_whole,
        object_pairs_hook=_unique_members if unique else None,
    )


# ---- 6. Tasks and configuration: tasks.json, parameters ---------------------
# Owns Config, and how a trigger's parameters become arguments and environment. The
# only place that reads tasks.json and the files it names.
# Relies on 2 to 5. load_config returns a valid Config, or raises.


class Config(NamedTuple):
    """A valid tasks.json."""

    path: str
    tasks: Mapping[str, Task]
    checksum: int = 0  # of the file's text
    warnings: Sequence[ConfigFault] = ()  # what is allowed but looks like a mistake
    zone_name: str = ""  # of schedules that name none, if the file names it
    local_name: str = ""  # of the system's zone, if a schedule needs it


REPEATED = "repeated; each name may stand only once"
_TOKEN = re.compile(r'"(?:[^"\\]+|\\.)*"|[\[\]{},:]|[^\s,\[\]{}:"]+')


class Places:
    """Offsets of every value and member name in a text that is known to be JSON, and
    the names that stand twice."""

    def __init__(self, text: str) -> None:
        self.values: dict[Where, int] = {}
        self.names: dict[Where, int] = {}
        self.repeated: list[tuple[Where, int]] = []
        words = ((match[0], match.start()) for match in _TOKEN.finditer(text))
        self._walk((), words, *next(words))

    def _walk(
        self, at: Where, words: Iterator[tuple[str, int]], word: str, offset: int
    ) -> None:
        """Note the value that begins with a word, and all that is in it."""
        self.values[at] = offset
        if word not in ("[", "{"):
            return
        seen: set[str | int] = set()
        for inner, inner_offset in words:
            if inner in ("]", "}"):
                return
            if inner == ",":
                continue
            if word == "[":
                part: str | int = len(seen)
                start = inner, inner_offset
            else:
                part = json.loads(inner)
                if part in seen:
                    self.repeated.append(((*at, part), inner_offset))
                self.names[(*at, part)] = inner_offset
                next(words)  # the colon
                start = next(words)
            seen.add(part)
            self._walk((*at, part), words, *start)

    def offset(self, fault: Fault) -> int:
        """Where a fault is shown: at its value, its name, or what should hold it."""
        at = fault.at
        if fault.of_name and at in self.names:
            return self.names[at]
        while at not in self.values:
            at = at[:-1]
        return self.values[at]


class _Source:
    """The text of a tasks.json and the faults found in it so far."""

    def __init__(self, path: str, text: str) -> None:
        self.path = path
        self.text = text
        self.folder = os.path.dirname(os.path.abspath(path))
        self.faults: list[Fault] = []
        self.warnings: list[Fault] = []
        self.misshapen: set[Where] = set()
        self.zone_name = LOCAL  # of schedules that name none
        self.local_name = ""  # of the system's zone, once a schedule has needed it

    def sound(self, settings: Any, at: Where) -> dict[str, Any]:
        """The well-formed settings of an object, which are checked further even if
        others have faults."""
        if not isinstance(settings, dict):
            return {}
        return {k: v for k, v in settings.items() if (*at, k) not in self.misshapen}

    def fault(self, at: Where, message: str) -> None:
        """Note a fault of the value at a place."""
        self.faults.append(Fault(at, message))

    def warn(self, at: Where, message: str) -> None:
        """Note that the value at a place is allowed but looks like a mistake."""
        self.warnings.append(Fault(at, message))

    def checked_warnings(self) -> list[ConfigFault]:
        """The warnings in the order of the file. Raises ConfigError with all faults, in
        that order, if there are any."""
        places = Places(self.text)
        faults = [(offset, Fault(at, REPEATED)) for at, offset in places.repeated]
        faults += [(places.offset(fault), fault) for fault in self.faults]
        if faults:
            raise ConfigError(self._in_order(faults))
        return self._in_order([(places.offset(x), x) for x in self.warnings])

    def _in_order(self, found: list[tuple[int, Fault]]) -> list[ConfigFault]:
        told: dict[ConfigFault, None] = {}
        for offset, fault in sorted(found, key=lambda pair: pair[0]):
            line = self.text.count("\n", 0, offset) + 1
            column = offset - self.text.rfind("\n", 0, offset)
            at = fault.location
            told[ConfigFault(self.path, line, column, at, fault.message)] = None
        return list(told)


def _whole_file_error(path: str, message: str) -> ConfigError:
    return ConfigError([ConfigFault(path, 0, 0, "", message)])


def _parse_config(source: _Source) -> Any:
    try:
        return json_value(source.text.encode(), float)
    except json.JSONDecodeError as error:
        message = f"not JSON: {error.msg[0].lower()}{error.msg[1:]}"
        fault = ConfigFault(source.path, error.lineno, error.colno, "", message)
        raise ConfigError([fault]) from None
    except ValueError as error:
        raise _whole_file_error(source.path, str(error)) from None


def _read_config(path: str) -> str:
    try:
        with open(path, "rb") as file:
            raw = file.read(CONFIG_MAX_BYTES + 1)
    except FileNotFoundError:
        advice = f"no such file; `python {PROGRAM}.py init` writes an example"
        raise _whole_file_error(path, advice) from None
    except OSError as error:
        raise _whole_file_error(path, f"cannot be read: {error.strerror}") from None
    if len(raw) > CONFIG_MAX_BYTES:
        raise _whole_file_error(path, f"larger than {size_text(CONFIG_MAX_BYTES)}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise _whole_file_error(path, f"byte {error.start} is not UTF-8") from None


_MERGED_KEYS = ("env", "secrets")
_DEFAULTS = {key: x["default"] for key, x in TASK_KEYS.items() if "default" in x}
_NOTIFY_DEFAULTS = {
    "retry_attempts": 4, "retry_backoff": EXPONENTIAL, "retry_delay": "10s",
}  # fmt: skip
_JSON_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_JSON_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


def _value_fault(param: Param, value: str) -> str:
    """What is wrong with a value given for a parameter; empty when nothing is."""
    try:
        size_bytes = len(value.encode())
    except UnicodeEncodeError:
        return "must be valid Unicode"
    if size_bytes > PARAM_MAX_BYTES:
        return f"must have at most {PARAM_MAX_BYTES} bytes, has {size_bytes}"
    if param.kind == "flag":
        return "" if value.lower() in _TRUE + _FALSE else "must be true or false"
    if param.choices and not param.allow_custom and value not in param.choices:
        allowed = "its choices" if param.secret else ", ".join(param.choices)
        return f"must be one of {allowed}"
    if param.type == "integer" and not _JSON_INTEGER.fullmatch(value):
        return "must be a whole number"
    if param.type == "number" and not _JSON_NUMBER.fullmatch(value):
        return "must be a number"
    return ""


# The daemon's own settings, and what it tells a program, have such names.
_OWN_PREFIX = "TASKRUNNERD_"
_TAKEN = f"names that begin with {_OWN_PREFIX} are taken"


def _build_params(
    source: _Source, at: Where, declared: list[dict[str, Any]]
) -> tuple[Param, ...]:
    params: dict[str, Param] = {}
    for index, given in enumerate(declared):
        here = (*at, index)
        kinds = [kind for kind in PARAM_KINDS if kind in given]
        if len(kinds) != 1:
            source.fault(here, "must have exactly one of env, arg, option, flag")
            continue
        fields = {
            name: given.get(name, schema.get("default"))
            for name, schema in SCHEMAS["Param"]["properties"].items()
            if name not in PARAM_KINDS
        }
        if not isinstance(fields["default"], (str, type(None))):
            fields["default"] = json.dumps(fields["default"])
        fields["choices"] = tuple(fields["choices"] or ())
        param = Param(kinds[0], given[kinds[0]], **fields)
        if param.key in params:
            source.fault(here, f"the key {param.key} is declared twice")
        if param.kind == "env" and param.key.startswith(_OWN_PREFIX):
            source.fault((*here, "env"), _TAKEN)
        message = "" if param.default is None else _value_fault(param, param.default)
        if message:
            source.fault((*here, "default"), message)
        params[param.key] = param
    return tuple(params.values())


_SHELLS = ("sh", "bash", "dash", "ash", "ksh", "mksh", "zsh", "busybox")


def _shell_words(shell: str | list[str]) -> tuple[str, ...]:
    """What stands before a script on the command line."""
    if isinstance(shell, list):
        return tuple(shell)
    if shell == "bash":
        return (shell, "--noprofile", "--norc", "-e", "-o", "pipefail", "-c")
    name = os.path.basename(shell)
    applet = ("sh",) if name == "busybox" else ()
    return (shell, *applet, *(("-e", "-c") if name in _SHELLS else ("-c",)))


# Here-documents, then what is quoted, a comment, arithmetic, or the pattern of a case.
_HERE_DOCUMENT = re.compile(
    r"(<<-?[ \t]*(['\"\\]?)(\w+)\2[^\n]*\n)(?:[^\n]*\n)*?\t*\3[ \t]*(?=\n|\Z)"
)
_NO_PIPE = re.compile(
    r"""'[^']*'|"(?:[^"\\]|\\.)*"|\\.|(?<![^\s;&|(])\#[^\n]*|\$\(\([^\n]*?\)\)"""
    r"|(?:\bin|;[;&])\s*\(?[^()|;\n]*(?:\|[^()|;\n]*)*\)",
    re.DOTALL,
)
_PIPE = re.compile(r"(?<![|>])\|(?!\|)")


_USES_ARGUMENTS = re.compile(r"\$(?:[@*1-9]|\{[#!]?[@*1-9])|\bgetopts\b")


def _warn_of_options(
    source: _Source, at: Where, run: list[str], params: tuple[Param, ...]
) -> None:
    """Warn of parameters with which a trigger can give options to a program."""
    of_shell = os.path.basename(run[0]) in _SHELLS and "-c" in run
    loose = [x for x in params if not x.choices or x.allow_custom]
    free = [param.key for param in loose if param.kind == "arg"]
    if not free or of_shell or "--" in run:
        return
    cure = 'end the list with "--", if the program knows it'
    if any(param.kind in ("option", "flag") for param in params):
        # Behind "--" they would be arguments.
        cure = "allow `choices` only, or have a script put -- before it"
    taken = f'a value of {free[0]} that begins with "-" is taken for an option'
    source.warn(at, f"{taken}; {cure}")


def _check_run(
    source: _Source, name: str, setting: Mapping[str, Any], params: tuple[Param, ...]
) -> None:
    at: Where = ("tasks", name, "run")
    run = setting.get("run")
    if at in source.misshapen or (*at[:2], "notify") in source.misshapen:
        return
    if "notify" in setting:
        if run is not None:
            source.fault(at, "must not be there: notify stands in its place")
        return
    if run is None:
        message = "must be there: a shell script, or a list of a program and arguments"
        source.fault(at, message)
        return
    if isinstance(run, list):
        if not run[0]:
            source.fault((*at, 0), "must name a program")
        _warn_of_options(source, at, run, params)
    words = _shell_words(setting["shell"])
    if not isinstance(run, str) or not set(map(os.path.basename, words)) & {*_SHELLS}:
        return
    passed = [param.key for param in params if param.kind != "env"]
    if passed and not _USES_ARGUMENTS.search(run):
        names = ", ".join(passed)
        message = f'the script never uses its arguments ({names}); write "$@" or $1'
        source.fault(at, message)
    # Whether it pipes one command into another; good enough for a warning.
    has_pipe = _PIPE.search(_NO_PIPE.sub("_", _HERE_DOCUMENT.sub(r"\1", run)))
    if "-e" in words and "pipefail" not in f"{words}{run}" and has_pipe:
        seen = f'"{words[0]} -e" sees a failure of the last command of a pipe only'
        source.warn(at, f'{seen}; "shell": "bash" sees all (pipefail)')


# Python clears __file__ once the script's body has ended.
OWN_FILE = os.path.abspath(__file__)


def own_program() -> list[str]:
    """How this program is started: the interpreter with its flags, and the file."""
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, OWN_FILE]


def url_fault(url: str, schemes: str) -> bool:
    """Whether a URL is none that can be used."""
    try:
        parts = urlsplit(url if re.fullmatch(f"(?:{schemes})://[!-~]+", url) else "")
        return not parts.hostname or parts.port == 0
    except ValueError:
        return True


SMTP_FAULT = "must be smtp://USER:PASSWORD@HOST:587, or smtps://…"


def target_fault(target: str) -> str:
    """What is wrong with a target of `notify`, without showing it: it is a secret."""
    # Only printable ASCII, and no header fields behind a "?" (RFC 6068).
    addresses = re.fullmatch(r"mailto:[!-+\-->@-~]+(?:,[!-+\-->@-~]+)*", target)
    if addresses or not url_fault(target, "https?"):
        return ""
    return "must be https://…, http://… or mailto:ADDRESS"


def notify_secrets(notify: Mapping[str, Any]) -> list[str]:
    """The texts by which targets and the password of `smtp` could be known."""
    found = [*notify["targets"], notify["smtp"]]
    for url in found[:]:
        parts = urlsplit(url)
        password = parts.password or ""
        rest = parts._replace(scheme="", netloc="").geturl()
        found += [password, unquote(password), rest, *parts.path.split(",")]
        # A server may repeat the token alone.
        found += [value for _, value in parse_qsl(parts.query)]
    return found


def _read_notify(
    source: _Source, at: Callable[[str], Where], setting: Mapping[str, Any]
) -> dict[str, Any]:
    """What `notify`, `notify_format` and `smtp` say: targets, format, smtp."""
    given, smtp = setting["notify"], setting.get("smtp", "")
    targets = [given] if isinstance(given, str) else given
    for index, target in enumerate(targets):
        fault = target_fault(target)
        if fault:
            place = at("notify") if isinstance(given, str) else (*at("notify"), index)
            source.fault(place, fault)
    if smtp and url_fault(smtp, "smtps?"):
        source.fault(at("smtp"), SMTP_FAULT)
    if any(param.get("env") is None for param in setting["params"]):
        message = "of a task with notify must be env; its program takes no arguments"
        source.fault(at("params"), message)
    return {"targets": targets, "format": setting["notify_format"], "smtp": smtp}


def _find_account(user: str) -> Account:
    """The account behind `user` or `user:group`, by name or number. Raises
    ValueError."""
    import grp  # only tasks with `user` need the user database
    import pwd

    name, _, group = user.partition(":")
    missing = f'no such user "{name}"'
    try:
        entry = pwd.getpwuid(int(name)) if name.isdecimal() else pwd.getpwnam(name)
        gid, missing = entry.pw_gid, f'no such group "{group}"'
        if group:
            gid = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
        groups = tuple(os.getgrouplist(entry.pw_name, gid))
    except (KeyError, OverflowError):
        raise ValueError(missing) from None
    if os.geteuid() != 0 and (entry.pw_uid, gid) != (os.geteuid(), os.getegid()):
        raise ValueError(f'running as "{user}" needs root')
    shell = entry.pw_shell or "/bin/sh"  # passwd(5)
    return Account(entry.pw_name, entry.pw_dir, shell, entry.pw_uid, gid, groups)


def unquoted(text: str) -> str:
    """The text without the pair of quotes that is around it, if there is one."""
    quoted = len(text) > 1 and text[0] == text[-1] and text[0] in "\"'"
    return text[1:-1] if quoted else text


# Nothing or a comment; an assignment; or what is neither.
_ENV_STATEMENT = re.compile(
    r"""
      [ \t]* (?:[#][^\n]*)? (?:\n|\Z)
    | [ \t]* (?:export[ \t]+)? (?P<name>(?!export\b)[A-Za-z_][A-Za-z0-9_]*)
      [ \t]* = [ \t]*
      (?: (?: '(?P<single>[^']*)' | "(?P<double>(?:[^"\\]|\\.)*)" )
          [ \t]* (?:(?<=[ \t])[#][^\n]*)?
        | (?P<bare>(?![ \t'"])[^\n]*) )
      (?:\n|\Z)
    | (?P<wrong>[^\n]*) (?:\n|\Z)
    """,
    re.DOTALL | re.VERBOSE,
)


def _env_value(statement: re.Match[str]) -> tuple[str, str]:
    """The value of an assignment; and what to write instead, where Docker Compose and
    systemd differ in what they expand, unescape or take for a comment."""
    single, double, bare = statement.group("single", "double", "bare")
    if single is not None:
        unclear, better = single.endswith("\\"), r'"…\\" for a \ before the quote'
        return single, better if unclear else ""
    if double is not None:
        unclear = bool(re.search(r"[\\$]", re.sub(r'\\["\\$]', "", double)))
        better = r"\$, \\ and \" in double quotes, and no other \ there"
        return re.sub(r'\\(["\\$])', r"\1", double), better if unclear else ""
    unclear = bool(re.search(r"[\\$]|(?:^|[ \t])#", bare))
    better = r"'…' around a value with a $, a \ or a # after a blank"
    return bare.strip(" \t"), better if unclear else ""


def _env_statements(text: str) -> Iterator[tuple[int, str, str, str]]:
    """Line number, name and value of every assignment, and what is wrong with it. That
    never shows the line, which may be a secret."""
    at, number = 0, 1
    while at < len(text):
        statement = _ENV_STATEMENT.match(text, at)
        assert statement  # anything is at least wrong
        name, value, fault = statement["name"] or "", "", "not a KEY=VALUE line"
        if name and "\0" not in statement[0]:
            value, better = _env_value(statement)
            fault = f"ambiguous; write {better}" if better else ""
            fault = _TAKEN if name.startswith(_OWN_PREFIX) else fault
        elif not name and re.match(r"[\w \t]+=[ \t]*['\"]", statement[0]):
            fault = "a quote that is not closed, or text behind the closing one"
        if name or statement["wrong"] is not None:
            yield number, name, value, fault
        at, number = statement.end(), number + statement[0].count("\n")


def _read_env_file(source: _Source, at: Where, path: str | None) -> dict[str, str]:
    """The variables in a file, read as Docker Compose and systemd.exec(5) agree to."""
    if path is None:
        return {}
    try:
        with open(os.path.join(source.folder, path), encoding="utf-8-sig") as file:
            text = file.read(CONFIG_MAX_BYTES + 1)
    except (OSError, UnicodeDecodeError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8 text"
        source.fault(at, f'"{path}" cannot be read: {reason}')
        return {}
    if len(text) > CONFIG_MAX_BYTES:
        source.fault(at, f'"{path}" is larger than {size_text(CONFIG_MAX_BYTES)}')
        return {}
    variables: dict[str, str] = {}
    for number, name, value, fault in _env_statements(text):
        if fault:
            source.fault(at, f"{path}:{number}: {fault}")
        variables[name] = value
    return variables


def _variables(
    source: _Source, at: Where, settings: dict[str, Any], key: str
) -> dict[str, str]:
    """The variables under a key, and those of the file that `key`_file names."""
    own, file_key = settings.get(key, {}), f"{key}_file"
    for name in own:
        if name.startswith(_OWN_PREFIX):
            source.fault((*at, key, name), _TAKEN)
    return {**_read_env_file(source, (*at, file_key), settings.get(file_key)), **own}


_CLEAN_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def environment_of_others() -> dict[str, str]:
    """This process's environment without its own settings, its token above all, and
    without what systemd tells it."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(_OWN_PREFIX) and name not in SYSTEMD_VARIABLES
    }


def _plain_path(path: str) -> str:
    """An absolute path without `.` and `..`, as PWD has to be. Links are kept, but for
    those in front of a `..`, which leads to the parent of what they mean."""
    parts = path.split("/")
    if ".." in parts:
        behind = len(parts) - parts[::-1].index("..")
        path = os.path.join(os.path.realpath("/".join(parts[:behind])), *parts[behind:])
    return os.path.normpath(path)


def _base_environment(
    env_base: str, account: Account | None, working_dir: str
) -> dict[str, str]:
    base = {"PATH": _CLEAN_PATH, "LANG": "C.UTF-8"}
    if env_base == "inherit":
        base = environment_of_others()
        # It comes from the shell that started the daemon.
        base.pop("OLDPWD", None)
    elif "HOME" in os.environ:
        base["HOME"] = os.environ["HOME"]
    if account:
        name = account.name
        base.update(HOME=account.home, USER=name, LOGNAME=name, SHELL=account.shell)
    return {**base, "PWD": working_dir}


def _checked_zone(source: _Source, at: Where, name: str) -> str:
    """The name of a zone that there is; UTC in place of one that there is not."""
    try:
        zone_named(name)
    except ValueError as error:
        source.fault(at, str(error))
        return "UTC"
    return name


def _build_cron(
    source: _Source, at: Callable[[str], Where], setting: dict[str, Any]
) -> Cron | None:
    """The schedule of a task, if it has one; `at` tells where a key stands."""
    zone_name = source.zone_name
    if "timezone" in setting:
        zone_name = _checked_zone(source, at("timezone"), setting["timezone"])
    cron = None
    if "cron" in setting:
        try:
            cron = parse_cron(setting["cron"], zone_name)
            if cron.zone_name == LOCAL:
                if not source.local_name:
                    source.local_name = "UTC"  # what is wrong with it is said once
                    source.local_name, warning = local_zone(int(time.time()))
                    if warning:
                        source.warn(at("cron"), warning)
                cron = cron._replace(zone_name=source.local_name)
        except ValueError as error:
            source.fault(at("cron"), str(error))
    scheduled = "cron" in setting or setting["run_on_start"]
    for index, param in enumerate(setting["params"] if scheduled else ()):
        if param.get("required") and "default" not in param:
            message = "is required, so a task with a schedule must give it a default"
            source.fault((*at("params"), index), message)
    return cron


def _build_task(
    source: _Source, name: str, own: dict[str, Any], defaults: dict[str, Any]
) -> Task | None:
    """The task, or None when it has a fault, which the source then knows."""
    before = len(source.faults)
    preset = _NOTIFY_DEFAULTS if "notify" in own else {}
    setting = {**_DEFAULTS, **preset, **defaults, **own}

    def at(key: str) -> Where:
        """Where a key's value comes from, so that its fault is shown there."""
        shared = key in defaults and key not in own
        return ("defaults", key) if shared else ("tasks", name, key)

    if name in (".", ".."):  # it is also the folder of the task's logs
        message = "is not a usable name; write letters, digits, - and _"
        source.faults.append(Fault(("tasks", name), message, of_name=True))
    params = _build_params(source, at("params"), setting["params"])
    _check_run(source, name, setting, params)
    notify = _read_notify(source, at, setting) if "notify" in setting else None
    cron = _build_cron(source, at, setting)
    account = None
    try:
        account = _find_account(setting["user"]) if "user" in setting else None
    except ValueError as error:
        source.fault(at("user"), str(error))
    shared = {k: v for k, v in defaults.items() if k in _MERGED_KEYS or k not in own}
    # The task wins over the defaults; in each of them, secrets win over the rest.
    plain, secret, own_plain, own_secret = (
        _variables(source, place, settings, key)
        for place, settings in ((("defaults",), shared), (("tasks", name), own))
        for key in _MERGED_KEYS
    )
    if len(source.faults) > before or not {"run", "notify"} & {*setting}:
        return None
    working_dir = _plain_path(os.path.join(source.folder, setting["working_dir"]))
    base = _base_environment(setting["env_base"], account, working_dir)
    secrets = [*secret.values(), *own_secret.values()]
    run = setting.get("run", "")
    if notify:
        secrets += notify_secrets(notify)
        run = [*own_program(), "notify"]
    fields: dict[str, Any] = {
        "run": run if isinstance(run, str) else tuple(run),
        "notify": notify,
        "params": params,
        "environ": {**base, **plain, **secret, **own_plain, **own_secret},
        # Shorter ones would take too much out of the output.
        "secrets": tuple(x for x in secrets if len(x) >= SECRET_MIN_CHARS),
        "working_dir": working_dir,
        "shell": _shell_words(setting["shell"]),
        "umask": int(setting["umask"], 8) if "umask" in setting else -1,
        "account": account,
        "cron": cron,
    }
    for field, row in TASK_FIELDS.items():
        if row.kind.read:
            value = setting.get(row.key)
            fields[field] = None if value is None else row.kind.read(value)
    return Task(name, **fields)


_HOOKS = ("on_failure", "on_success", "on_recovery")
_Settings = Mapping[str, Any]


def _hooked(settings: _Settings) -> list[str]:
    """The names of all tasks that some settings trigger."""
    return [name for key in _HOOKS for name in task_names(settings.get(key, ()))]


def _defaults_of(
    owns: Mapping[str, _Settings], defaults: dict[str, Any]
) -> Callable[[str], dict[str, Any]]:
    """The defaults of a task by its name: hooks in them are not for the tasks that they
    trigger, at once or in turn, which would be a cycle."""
    without = {key: value for key, value in defaults.items() if key not in _HOOKS}
    found: set[str] = set()
    fresh = _hooked(defaults)
    while fresh:
        name = fresh.pop()
        if name not in found:
            found.add(name)
            fresh += _hooked(owns.get(name, {}))
    return lambda name: without if name in found else defaults


def _check_hooks(
    source: _Source,
    owns: Mapping[str, _Settings],
    defaults: _Settings,
    tasks: Mapping[str, Task | None],
) -> None:
    """Note hooks that cannot be triggered, and a cycle of them."""
    found: list[tuple[Where, _Settings]] = [(("defaults",), defaults)]
    found += [(("tasks", name), own) for name, own in owns.items()]
    for (at, settings), key in itertools.product(found, _HOOKS):
        for name in task_names(settings.get(key, ())):
            task = tasks.get(name)
            if name not in tasks:
                source.fault((*at, key), f'no task "{name}"{nearest(name, tasks)}')
            elif task and any(p.required and p.default is None for p in task.params):
                message = f'"{name}" has a required parameter without a default'
                source.fault((*at, key), message)
    calls = {name: _hooked(own) for name, own in owns.items()}
    if not any(calls.values()):
        return
    import graphlib  # only tasks with hooks need it

    try:
        graphlib.TopologicalSorter(calls).prepare()
    except graphlib.CycleError as error:
        cycle = error.args[1][::-1]
        own = owns[cycle[0]]
        key = next(key for key in _HOOKS if cycle[1] in task_names(own.get(key, ())))
        message = f"a cycle that would never end: {' → '.join(cycle)}"
        source.fault(("tasks", cycle[0], key), message)


def load_config(path: str) -> Config:
    """The configuration in a file. Raises ConfigError with every fault of it."""
    source = _Source(path, _read_config(path))
    document = _parse_config(source)
    source.faults += find_faults(SCHEMAS["Config"], document, ())
    # Leave out what is malformed and check the rest, to tell all faults at once.
    source.misshapen = {f.at[:n] for f in source.faults for n in range(1, 4)}
    top = document if isinstance(document, dict) else {}
    defaults = source.sound(top.get("defaults"), ("defaults",))
    for key in {"run", "notify"} & {*defaults}:
        source.fault(("defaults", key), "belongs to a task, not to the defaults")
    zone_name = source.sound(top, ()).get("timezone")
    if zone_name:
        source.zone_name = _checked_zone(source, ("timezone",), zone_name)
    named = top.get("tasks")
    owns = {
        name: source.sound(own, ("tasks", name))
        for name, own in (named.items() if isinstance(named, dict) else ())
        if isinstance(own, dict)
    }
    defaults_of = _defaults_of(owns, defaults)
    tasks = {
        name: _build_task(source, name, own, defaults_of(name))
        for name, own in owns.items()
    }
    _check_hooks(source, owns, defaults, tasks)
    warnings = source.checked_warnings()
    whole = {name: task for name, task in tasks.items() if task}
    checksum = zlib.crc32(source.text.encode())
    return Config(path, whole, checksum, warnings, zone_name or "", source.local_name)


def config_differs(config: Config) -> bool:
    """Whether the file has changed since it was loaded, or can no longer be read."""
    try:
        return zlib.crc32(_read_config(config.path).encode()) != config.checksum
    except ConfigError:
        return True


def changed_keys(old: Task, new: Task) -> list[str]:
    """The keys of tasks.json in which two tasks differ."""
    rows = TASK_FIELDS.items()
    return [row.key for name, row in rows if getattr(old, name) != getattr(new, name)]


def shown_settings(task: Task) -> dict[str, Any]:
    """The keys of a task as the API shows them; never its command and environment."""
    shown = {}
    for name, row in TASK_FIELDS.items():
        value = getattr(task, name)
        if row.kind.show and value is not None:
            shown[row.key] = row.kind.show(value)
    return {key: value for key, value in shown.items() if value is not None}


_UNTIL_END = {name: row.kind for name, row in TASK_FIELDS.items() if row.until_end}


def task_record(task: Task) -> dict[str, Any]:
    """What the runs of a task that have started need of it until their end, as JSON."""
    return {name: getattr(task, name) for name in _UNTIL_END}


def with_record(task: Task, record: Mapping[str, Any]) -> Task:
    """The task with what a record says of it, which another version may have written: a
    run ends under the definition with which it started."""
    known = {name: kind for name, kind in _UNTIL_END.items() if name in record}
    fields = {name: kind.restore(record[name]) for name, kind in known.items()}
    return task._replace(**fields)


def undeclared_task(name: str) -> Task:
    """A task with every default, for the runs of one that is no longer declared."""
    task = _build_task(_Source("/", "{}"), name, {"run": "true"}, {})
    assert task
    return task


def bound_params(
    task: Task, given: Mapping[str, Any]
) -> tuple[dict[str, str], list[Fault]]:
    """The value of each parameter that is not omitted, by key, and every fault of those
    that a trigger gives. Absent means the default, null omits."""
    at: Where = ("body", "params")
    faults: list[Fault] = []
    declared = {param.key: param for param in task.params}
    texts: dict[str, Any] = {param.key: param.default for param in task.params}
    for index, (key, value) in enumerate(given.items()):
        param = declared.get(key)
        if param is None:
            near = nearest(key, declared) if index < FAULTS_LISTED else ""
            faults.append(Fault((*at, key), "unknown parameter" + near))
            continue
        # A number or boolean is taken as its text, but not where any text would do.
        typed = param.kind == "flag" or param.type != "string"
        is_number = isinstance(value, (int, float))
        text = texts[key] = value_text(value) if typed and is_number else value
        message = ""
        if isinstance(text, str):
            message = _value_fault(param, text)
        elif text is not None:
            message = 'must be text, such as "5" in quotes'
        if message:
            shown = () if param.secret else (value,)
            faults.append(Fault((*at, key), message, *shown))
    values = {key: text for key, text in texts.items() if text is not None}
    for key, param in declared.items():
        if param.required and key not in values:
            faults.append(Fault((*at, key), "must be there and not null"))
        if param.kind == "flag" and key in values and not faults:
            values[key] = json.dumps(parse_boolean(values[key]))
    return values, faults


def resolve_params(task: Task, given: Mapping[str, Any]) -> dict[str, str]:
    """The value of each parameter that is not omitted, by key. Raises Problem 422 with
    every fault."""
    values, faults = bound_params(task, given)
    if faults:
        raise Problem(422, "parameters cannot be used", faults=faults)
    return values


def shown_params(task: Task, values: Mapping[str, str]) -> dict[str, str]:
    """Resolved parameters with the values of secret ones hidden."""
    secret = {param.key for param in task.params if param.secret}
    return {key: HIDDEN if key in secret else value for key, value in values.items()}


def render_params(
    task: Task, values: Mapping[str, str]
) -> tuple[list[str], dict[str, str]]:
    """Resolved parameters as (arguments in order of declaration, environment)."""
    arguments: list[str] = []
    environment: dict[str, str] = {}
    for param in task.params:
        value = values.get(param.key)
        if value is None:
            continue
        if param.kind == "env":
            environment[param.key] = value
        elif param.kind == "arg":
            arguments.append(value)
        elif param.kind == "flag":
            arguments += [param.key] if value == "true" else []
        elif param.key.endswith("="):
            arguments.append(param.key + value)
        else:
            arguments += [param.key, value]
    return arguments, environment


def command_line(task: Task, arguments: list[str]) -> list[str]:
    """The program and its arguments: the list, or the shell, the script, $0, $1, …"""
    if isinstance(task.run, str):
        return [*task.shell, task.run, task.name, *arguments]
    return [*task.run, *arguments]


# ---- 7. Decisions: admission, verdict, retries, retention, ticks ------------
# Owns the whole policy as pure functions of plain values: no clock, no lock, no
# store. Relies on 2, 3, 5 and 6. The daemon asks here and then acts.

START = "start"


def admit(task: Task, active: int, queued: int, *, like_waits: bool = False) -> str:
    """START, QUEUE or, if a new run is refused, its end reason. A fresh run never
    overtakes a queued one (I4). `like_waits`: one that it would only repeat is in the
    queue."""
    if active < task.max_concurrent and not queued:
        return START
    if task.on_overlap == SKIP or like_waits:
        return SKIPPED
    if task.on_overlap != TERMINATE and queued >= task.queue_max:
        return QUEUE_FULL
    return QUEUE


def count_victims(task: Task, staying: int, queued: int) -> int:
    """How many of the oldest runs must go so that the newest ones fit. `staying` are
    the active runs not yet asked to stop."""
    if task.on_overlap != TERMINATE:
        return 0
    return max(0, staying + queued - task.max_concurrent)


class Verdict(NamedTuple):
    """The outcome of a program, as its run records it."""

    end_reason: str
    exit_code: int
    signal: str | None


def verdict(task: Task, cause: str | None, returncode: int) -> Verdict:
    """The outcome of an ended program. `cause` is why the daemon stopped it, if it
    did; as in subprocess, `returncode` is negative for a signal."""
    killed_by = -returncode if returncode < 0 else 0
    exit_code = 128 + killed_by if killed_by else returncode
    name = None
    if killed_by:
        names = (each.name for each in signal.Signals if each == killed_by)
        name = next(names, f"signal {killed_by}")
    if cause:
        return Verdict(cause, exit_code, name)
    accepted = not killed_by and exit_code in task.exit_codes
    return Verdict(SUCCESS if accepted else FAILED, exit_code, name)


def retry_delay_s(
    task: Task, end_reason: str | None, attempt: int, exit_code: int = NO_EXIT_CODE
) -> float | None:
    """How long to wait after an attempt, counted from 0, until the next one; None when
    there is none. No back-off makes it longer than BACKOFF_MAX_S."""
    if end_reason not in RETRIED or attempt >= task.retry_attempts:
        return None
    if task.notify and exit_code == EX_UNAVAILABLE:
        return None
    factors = {CONSTANT: 1, LINEAR: attempt + 1, EXPONENTIAL: 1 << attempt}
    grown_s = task.retry_delay_s * factors[task.retry_backoff]
    return min(grown_s, max(task.retry_delay_s, BACKOFF_MAX_S))


def hooks_after(
    task: Task, end_reason: str | None, failures: int
) -> tuple[tuple[str, ...], int]:
    """(tasks that the end of a run triggers when no further attempt follows, failures
    in a row with it); `failures` are those before. Ends that are neither a success nor
    a failure change nothing."""
    if end_reason == SUCCESS:
        if not failures or not task.on_recovery:
            return task.on_success, 0
        return task_names((*task.on_success, *task.on_recovery)), 0
    # Else the newest missed tick runs now, and what comes of that counts.
    lost = end_reason == MISSED and task.catch_up == CATCH_SKIP
    if end_reason in FAILURES or lost:
        return task.on_failure, failures + 1
    return (), failures


def summary_text(
    outcome: Verdict,
    took_s: float,
    error: str | None,
    last_words: str,
    *,
    out_of_memory: bool = False,
) -> str | None:
    """One sentence about a run that ended badly, None for a success. `error` is that of
    the run, `last_words` tells what it wrote last, and where."""
    reason, exit_code, signal_name = outcome
    took = duration_text(took_s)
    how = "never started" if exit_code == NO_EXIT_CODE else f"exit {exit_code}"
    if signal_name:
        how = f"stopped with {signal_name}"
    if reason == SUCCESS:
        return None
    if reason == TIMEOUT:
        return f"timed out after {took}, {how}"
    if reason != FAILED:
        words = reason.replace("_", " ")
        return f"{words}: {error}" if error else f"{words} after {took}, {how}"
    said = ", probably out of memory" if out_of_memory else ""
    if last_words:
        said += f"; {last_words}"
    if signal_name:
        return f"killed by {signal_name} after {took}{said}"
    return f"exit {exit_code} after {took}{said}"


def forget_before(task: Task, now_ms: int, all_until_ms: float = 0) -> str | None:
    """The time (RFC 3339) before which ended runs were created that may go. Up to
    `all_until_ms` none goes only because nothing was said."""
    if task.keep_for_s is None:
        return None
    if task.keep_for_s == KEEP_FOR_S and now_ms < all_until_ms:
        return None
    return time_text(max(0, now_ms - int(task.keep_for_s * 1000)))


def slip_ms(task: Task) -> int:
    """How long after its tick a run of the task starts: its share of the jitter, the
    same for every tick and on every machine."""
    return int(task.jitter_s * 1000 * zlib.crc32(task.name.encode()) / 2**32)


class Plan(NamedTuple):
    """What becomes of the ticks that are due. `on_time` may hold some that daylight
    saving keeps from firing; `missed` counts those that would have fired, the last at
    `missed_until_s`."""

    missed: int
    missed_until_s: int
    catch_up: list[Tick]
    on_time: list[Tick]


def _newest_ticks(cron: Cron, after_s: int, until_s: int, anchor_s: int) -> list[Tick]:
    """Enough of the newest ticks of a long time for any catch-up, oldest first."""
    reach_s = CATCH_UP_MAX_RUNS
    while True:
        ticks = upcoming(cron, max(after_s, until_s - reach_s), anchor_s)
        found = list(itertools.takewhile(lambda tick: tick.at_s <= until_s, ticks))
        if len(found) > CATCH_UP_MAX_RUNS or reach_s >= until_s - after_s:
            return found
        reach_s *= 2


def schedule_text(cron: Cron) -> str:
    """A schedule as the store remembers it."""
    return f"{cron.zone_name} {cron.text}"


def plan_ticks(task: Task, after_s: int, now_s: int, anchor_s: int) -> Plan:
    """What becomes of the ticks after one Unix second, up to another."""
    cron = task.cron
    assert cron
    due = itertools.takewhile(
        lambda tick: tick.at_s <= now_s, upcoming(cron, after_s, anchor_s)
    )
    found = list(itertools.islice(due, MISSED_MAX_TICKS))
    late_s = now_s - TICK_GRACE_S
    missed = sum(tick.fires for tick in found if tick.at_s <= late_s)
    if len(found) == MISSED_MAX_TICKS:
        found = _newest_ticks(cron, after_s, now_s, anchor_s)
    on_time = [tick for tick in found if tick.at_s > late_s]
    most = {CATCH_ALL: task.max_catch_up_runs, CATCH_LATEST: 1, CATCH_SKIP: 0}
    count = most[task.catch_up]
    # The tick that is on time is the latest one.
    if task.catch_up == CATCH_LATEST and any(tick.fires for tick in on_time):
        count = 0
    firing = [tick for tick in found if tick.fires and tick.at_s <= late_s]
    until_s = firing[-1].at_s if firing else after_s
    return Plan(missed, until_s, firing[max(0, len(firing) - count) :], on_time)


def missed_text(plan: Plan, after_s: int) -> str:
    """What a row of missed ticks says."""
    more = "at least " if plan.missed >= MISSED_MAX_TICKS else ""
    ticks = "1 tick was" if plan.missed == 1 else f"{plan.missed} ticks were"
    until = time_text(plan.missed_until_s * 1000)
    since = f"after {time_text(after_s * 1000)} until {until}"
    return f"{more}{ticks} missed {since}; catching up on {len(plan.catch_up)}"


# ---- 8. Store: the history of runs in SQLite --------------------------------
# Owns the tables, the group commit and every query; the only place that touches
# sqlite3. Relies on 2. Records decisions, never makes one. Its lock is a leaf:
# `enqueue` takes none, so it may be called under the daemon's mutex.


class Run(NamedTuple):
    """One run, with the same field names here, in SQL and in JSON; a field that has no
    value is None here, null in SQL and left out of JSON."""

    id: str
    task_name: str
    status: str
    triggered_by: str
    created_at: str
    end_reason: str | None = None
    exit_code: int = NO_EXIT_CODE
    signal: str | None = None
    error: str | None = None
    scheduled_at: str | None = None
    start_at: str | None = None
    end_at: str | None = None
    duration: int | None = None
    params: dict[str, str] | None = None
    retry_attempt: int = 0
    retry_of_run_id: str | None = None
    instance_index: int = 0
    output_bytes: int | None = None
    output_dropped_bytes: int | None = None
    cpu_seconds: float | None = None
    max_rss_bytes: int | None = None
    survivors: int | None = None
    summary: str | None = None
    request_id: str | None = None
    traceparent: str | None = None
    result: Any = None
    via: str | None = None
    cause_run_id: str | None = None

    @property
    def ended(self) -> bool:
        """Whether the run will not change any more."""
        return self.status == ENDED

    def document(self) -> dict[str, Any]:
        """The run as JSON: fields without a value are left out."""
        pairs = zip(self._fields, self)
        return {name: value for name, value in pairs if value is not None}


class Pause(NamedTuple):
    """Since when a schedule does not fire, until when if that is known (Unix
    milliseconds), and why."""

    since_ms: int
    until_ms: int | None = None
    reason: str | None = None

    @property
    def quiet_s(self) -> float:
        """The last second that has no tick."""
        return math.inf if self.until_ms is None else -(-self.until_ms // 1000) - 1


ALL_TASKS = ""  # in the place of the name of a task that is paused


def pause_in_force(pauses: Mapping[str, Pause], name: str, now_s: int) -> Pause | None:
    """The pause that a task's schedule is in, or all are; the longer one."""
    both = (pauses.get(name), pauses.get(ALL_TASKS))
    lasting = [pause for pause in both if pause and pause.quiet_s >= now_s]
    return max(lasting, key=lambda pause: pause.quiet_s, default=None)


class Claim(NamedTuple):
    """A key that makes a request safe to repeat, with what tells that request from
    others, the run that it made, and when."""

    key: str
    fingerprint: str
    run_id: str
    claimed_ms: int


_COLUMNS = ", ".join(Run._fields)
# A page of runs has room for what people look at, not for a thousand results.
_LISTED_COLUMNS = _COLUMNS.replace("result", "null")
_MARKS = ", ".join("?" * len(Run._fields))
_AT_START = ("status", "start_at")
_AT_END = (
    "status", "end_reason", "exit_code", "signal", "error", "start_at", "end_at",
    "duration",
    "output_bytes", "output_dropped_bytes", "cpu_seconds", "max_rss_bytes",
    "survivors", "summary", "result",
)  # fmt: skip

# `tallies` holds how many ended runs there are of each kind, so that no list has to
# count them; the triggers below keep it exact (I6). Its other columns count what ended,
# for ever: how many and the last of those that were started, output dropped, ticks
# missed, durations in total and by DURATION_BUCKETS_S. A run touches it once, at its
# end. What has not ended is counted over `runs_by_state`.
# `schedules` holds up to where the ticks of a schedule were seen; a tick is claimed by
# the first row that has it. `claims` holds the keys of triggers, each written with the
# run that it made. `inputs` holds what the programs of runs that have not ended get on
# stdin, `pauses` the tasks whose schedules do not fire, '' for all, and `meta` the
# version that used the database last.
_RUN_TABLE = """(
    id text primary key, task_name text not null, status text not null,
    triggered_by text not null, created_at text not null, end_reason text,
    exit_code integer not null, signal text, error text, scheduled_at text,
    start_at text, end_at text, duration integer, params text,
    retry_attempt integer not null, retry_of_run_id text,
    instance_index integer not null, output_bytes integer,
    output_dropped_bytes integer, cpu_seconds real, max_rss_bytes integer,
    survivors integer, summary text, request_id text, traceparent text,
    result text, secret_params text, via text, cause_run_id text{more}
) without rowid"""
_STATE = "coalesce(end_reason, status)"
_LIVE_STATES = f"('{PENDING}', '{RUNNING}')"
_TOOK = [f"took_{index}" for index in range(len(DURATION_BUCKETS_S))]


def _took_sql() -> str:
    """Which of the buckets the duration of a run that ended goes into."""
    limits_ns = [nanoseconds(limit_s) for limit_s in DURATION_BUCKETS_S]
    return ", ".join(
        f"coalesce(new.duration between {low} and {high}, 0)"
        for low, high in zip([0, *(n + 1 for n in limits_ns)], limits_ns)
    )


_COUNTERS = ("ended", "started", "dropped_bytes", "duration", *_TOOK)
_COUNT_END = f"""insert into tallies
    (task_name, state, triggered_by, runs, ended_at, exit_code, {", ".join(_COUNTERS)})
    values (new.task_name, new.end_reason, new.triggered_by, 1,
    case when new.start_at is not null then new.end_at end,
    case when new.start_at is not null then new.exit_code end, 1,
    new.duration is not null, coalesce(new.output_dropped_bytes, 0),
    coalesce(new.duration, 0), {_took_sql()})
    on conflict (task_name, state, triggered_by) do update set runs = runs + 1,
    ended_at = coalesce(excluded.ended_at, ended_at),
    exit_code = coalesce(excluded.exit_code, exit_code),
    {", ".join(f"{name} = {name} + excluded.{name}" for name in _COUNTERS)}"""
_ONE_MORE = """insert into tallies (task_name, state, triggered_by, runs)
    values (new.task_name, new.end_reason, new.triggered_by, 1)
    on conflict (task_name, state, triggered_by) do update set runs = runs + 1"""
_ONE_LESS = """update tallies set runs = runs - 1 where task_name = old.task_name
    and state = old.end_reason and triggered_by = old.triggered_by"""
# In the header of the database, where file(1) and others look who made it.
_APPLICATION_ID = int.from_bytes(b"task", "big")
_LAYOUT_VERSION = 2
_TABLES = f"""
create table runs {_RUN_TABLE.format(more="")};
create table trash {_RUN_TABLE.format(more=", deleted_at integer not null")};
create table tallies (
    task_name text, state text, triggered_by text, runs integer not null,
    {", ".join(f"{name} integer not null default 0" for name in _COUNTERS)},
    ended_at text, exit_code integer, ticks integer not null default 0,
    primary key (task_name, state, triggered_by)
) without rowid;
create table schedules (
    task_name text primary key, schedule text not null, seen_until text not null
) without rowid;
create table pauses (
    task_name text primary key, since_ms integer not null, until_ms integer, reason text
) without rowid;
create table claims (
    key text primary key, fingerprint text not null, run_id text not null,
    claimed_ms integer not null
) without rowid;
create table inputs (run_id text primary key, body blob not null);
create table meta (name text primary key, value text) without rowid;
pragma application_id = {_APPLICATION_ID};
pragma user_version = {_LAYOUT_VERSION};
"""
# Each index costs every run a page or two; those with a condition only their own.
# The second column of runs_by_task lets retention look at dates without the runs.
_INDEXES = f"""
create index runs_by_task on runs (task_name, id, created_at);
create index runs_by_state on runs ({_STATE}, id);
create index runs_unsuccessful on runs (task_name, end_reason, id)
    where end_reason <> '{SUCCESS}';
create index runs_retried on runs (id) where retry_attempt > 0;
create index runs_by_retry on runs (retry_of_run_id)
    where retry_of_run_id is not null;
create index runs_by_cause on runs (cause_run_id) where cause_run_id is not null;
create index runs_by_via on runs (via, id) where via is not null;
create unique index runs_claim_ticks on runs (task_name, scheduled_at)
    where scheduled_at is not null and retry_attempt = 0
    and end_reason is not 'missed';
create index claims_by_age on claims (claimed_ms);
create index trash_by_age on trash (deleted_at);
"""
_IN_TRASH = "exists (select 1 from trash where id = new.id)"
_TRIGGERS = f"""
create trigger runs_ticked after insert on runs when new.scheduled_at is not null
    begin update schedules set seen_until = max(seen_until, new.scheduled_at)
    where task_name = new.task_name; end;
create trigger runs_added after insert on runs
    when new.end_reason is not null and not {_IN_TRASH} begin {_COUNT_END}; end;
create trigger runs_restored after insert on runs
    when new.end_reason is not null and {_IN_TRASH} begin {_ONE_MORE}; end;
create trigger runs_ended after update of end_reason on runs
    when old.end_reason is null and new.end_reason is not null
    begin {_COUNT_END}; delete from inputs where run_id = new.id; end;
create trigger runs_judged_anew after update of end_reason on runs
    when old.end_reason is not null begin {_ONE_LESS}; {_ONE_MORE}; end;
create trigger runs_removed after delete on runs when old.end_reason is not null
    begin {_ONE_LESS}; end;
"""
_LAYOUT = _TABLES + _INDEXES + _TRIGGERS


HISTORY = "history.sqlite3"  # in the data directory


class StoreError(Exception):
    """The database could not do what was asked: disk full, unreadable, …"""

    @property
    def may_pass(self) -> bool:
        """Whether the disk or another process is why, not a value nobody can store."""
        return isinstance(self.__cause__, sqlite3.OperationalError)

    @property
    def disk_full(self) -> bool:
        """Whether there was no room. Before Python 3.11 only the text tells."""
        return self.may_pass and "disk is full" in str(self)


class Write:
    """Statements that become durable together; `changed` counts their rows. `gate` is
    where a thread waits that leaves the commit to another one."""

    __slots__ = ("changed", "done", "error", "gate", "statements")

    def __init__(self, *statements: tuple[str, Sequence[Any]]) -> None:
        self.statements = statements
        self.changed = 0
        self.done = False
        self.error: Exception | None = None
        self.gate: queue.SimpleQueue[None] | None = None

    def failure(self) -> StoreError | None:
        """Why it is not durable and has no effect, once it is done."""
        if self.error is None:
            return None
        failure = StoreError(str(self.error))
        failure.__cause__ = self.error
        return failure


class RunFilter(NamedTuple):
    """Which runs a list or a bulk operation means; None means any."""

    status: str | None = None
    task_name: str | None = None
    triggered_by: str | None = None
    via: str | None = None
    created_after: str | None = None
    created_before: str | None = None
    exit_code_min: int | None = None
    exit_code_max: int | None = None
    retries_only: bool | None = None
    search: str | None = None


class Counted(NamedTuple):
    """What all runs of a task that ended came to, deleted ones included: (end reason,
    triggered by, how many) of each kind that there is; of those that were to start when
    the last one ended and the last success did (Unix seconds, 0 for never), and the
    last exit code; how many programs were started, how long they took in total and by
    DURATION_BUCKETS_S."""

    ended: tuple[tuple[str, str, int], ...]
    last_end_s: float
    last_success_s: float
    exit_code: int | None
    started: int = 0
    ticks_missed: int = 0
    dropped_bytes: int = 0
    duration_ns: int = 0
    took: tuple[int, ...] = (0,) * len(DURATION_BUCKETS_S)


# Of all runs by kind: those that have ended from the tallies, the others as they are.
# The plus signs keep a condition on a kind from choosing another index than theirs.
_BY_KIND = f"""(select task_name, state, triggered_by, runs from tallies
    union all select +task_name, +{_STATE}, triggered_by, 1 from runs
    where {_STATE} in {_LIVE_STATES})"""
_SUMMED = ("started", "ticks", "dropped_bytes", "duration", *_TOOK)
_ENDED_KINDS = """select task_name, state, triggered_by, ended,
    round(coalesce((julianday(ended_at) - 2440587.5) * 86400.0, 0), 3), exit_code
    from tallies where {those} and ended > 0 order by task_name"""
_SUMS = f"""select task_name, {", ".join(f"sum({name})" for name in _SUMMED)}
    from tallies where {{those}} group by task_name"""
_Condition = tuple[str, list[Any]]


def _one_of(column: str, values: Sequence[Any]) -> _Condition:
    return f"{column} in ({', '.join('?' * len(values))})", list(values)


def _batches_of_ids(run_ids: Sequence[str]) -> Iterator[_Condition]:
    """Conditions that mean these runs; a statement takes one and a value more."""
    most = STATEMENT_MAX_VALUES - 1
    for start in range(0, len(run_ids), most):
        yield _one_of("id", run_ids[start : start + most])


def _states(which: RunFilter) -> list[str]:
    """The words of a filter for the status, each once."""
    return sorted({word.strip() for word in (which.status or "").split(",")} - {""})


def _task_condition(task_name: str, states: list[str]) -> _Condition:
    """SQL that means runs of a task, and leads SQLite to the index with the fewest runs
    to pass over: runs_by_state for those that have not ended, runs_unsuccessful for one
    end that is no success, else runs_by_task."""
    if states and {*states} <= {PENDING, RUNNING}:
        return "+task_name = ?", [task_name]
    if len(states) == 1 and states[0] in END_REASONS and states[0] != SUCCESS:
        sql = f"task_name = ? and end_reason = ? and end_reason <> '{SUCCESS}'"
        return sql, [task_name, *states]
    return "task_name = ?", [task_name]


_PLAIN_CONDITIONS = {
    "triggered_by": "triggered_by = ?",
    "via": "via = ?",
    "exit_code_min": "exit_code >= ?",
    "exit_code_max": "exit_code <= ?",
}


def _conditions(which: RunFilter) -> list[_Condition]:
    """The filter as SQL."""
    found: list[_Condition] = []
    states = _states(which)
    if which.task_name is not None:
        found.append(_task_condition(which.task_name, states))
    for name, sql in _PLAIN_CONDITIONS.items():
        value = getattr(which, name)
        if value is not None:
            found.append((sql, [value]))
    if which.created_after:
        # No run was made later than its id says, so the older ones are passed over.
        after_ms = parse_time(which.created_after)
        values = [ulid_text(max(0, after_ms) << 80), time_text(after_ms)]
        found.append(("id >= ? and created_at >= ?", values))
    if which.created_before:
        found.append(("created_at <= ?", [time_text(parse_time(which.created_before))]))
    if which.status:
        # The condition on the task is to choose the index, if it does: hence the plus.
        of_task = which.task_name is not None
        sign = "+" if of_task and not {*states} <= {PENDING, RUNNING} else ""
        sql, those = _one_of(sign + _STATE, [word for word in states if word != ENDED])
        found.append((sql + " or status = 'ended'" * (ENDED in states), those))
    if which.retries_only:
        found.append(("retry_attempt > 0", []))
    if which.search:
        names = f"select task_name from {_BY_KIND} where instr(lower(task_name), ?)"
        sql = f"task_name in ({names}) or instr(id, ?)"
        found.append((sql, [which.search.lower(), which.search.upper()]))
    return found


def _where(conditions: list[_Condition]) -> _Condition:
    if not conditions:
        return "", []
    sql = " and ".join(f"({sql})" for sql, _ in conditions)
    return f" where {sql}", [value for _, values in conditions for value in values]


_SORT_COLUMNS = {"created_at": "id", "status": _STATE}


_NUMBERS = (
    "exit_code", "duration", "retry_attempt", "instance_index", "output_bytes",
    "output_dropped_bytes", "cpu_seconds", "max_rss_bytes", "survivors",
)  # fmt: skip
_KINDS = {n: (int, float) if n in _NUMBERS else (str,) for n in Run._fields}
_CHOICES = {"status": STATUSES, "end_reason": END_REASONS, "triggered_by": TRIGGERS}
# In the place of what a run must have and its record does not tell.
_STAND_INS = {
    "id": "0" * 26,
    "task_name": "unknown",
    "status": ENDED,
    "triggered_by": "api",
    "created_at": time_text(0),
}


@functools.lru_cache(maxsize=ROW_KINDS_KEPT)
def _has_right_kinds(kinds: tuple[type, ...]) -> bool:
    """Whether values of some types may be a row: SQLite itself takes any."""
    pairs = zip(_KINDS.values(), kinds)
    return all(kind in right or kind is type(None) for right, kind in pairs)


def _read_column(name: str, value: Any) -> Any:
    """A value of a row as a run has it. Raises ValueError."""
    if value is None:
        return None
    if type(value) not in _KINDS[name] or value not in _CHOICES.get(name, (value,)):
        raise ValueError(name)
    if name.endswith("_at"):
        parse_time(value)
    if name not in ("params", "result"):
        return value
    document = json.loads(value)
    if name == "params" and not isinstance(document, dict):
        raise ValueError(name)
    return document


def _salvaged_run(row: Sequence[Any]) -> Run:
    """The run of a row that may be damaged; then its error names what is lost."""
    found: dict[str, Any] = dict(_STAND_INS)
    lost = []
    for name, value in zip(Run._fields, row):
        try:
            found[name] = _read_column(name, value)
        except ValueError:
            lost.append(name)
    return _with_loss(Run(**found), lost)


def _with_loss(run: Run, lost: Sequence[str]) -> Run:
    if not lost:
        return run
    text = f"the record of this run is damaged: {', '.join(lost)} cannot be read"
    return run._replace(error=f"{run.error}; {text}" if run.error else text)


def _run_from_row(row: Sequence[Any]) -> Run:
    run = Run._make(row)
    try:
        if _has_right_kinds(tuple(map(type, row))):
            if run.params:
                run = run._replace(params=_read_column("params", run.params))
            if run.result is not None:
                run = run._replace(result=json.loads(run.result))
            return run
    except ValueError:
        pass
    # One row must not keep others from being seen.
    return _salvaged_run(row)


def _text_with_marks(raw: bytes) -> str:
    return raw.decode("utf-8", "replace")


def _with_result_text(run: Run) -> Run:
    # In ASCII, since JSON may hold half of a surrogate pair and a text may not.
    return run if run.result is None else run._replace(result=json.dumps(run.result))


def _row_from_run(run: Run) -> list[Any]:
    params = json.dumps(run.params, ensure_ascii=False) if run.params else None
    return list(_with_result_text(run)._replace(params=params))  # type: ignore[arg-type]


def write_created(
    run: Run, secret_params: dict[str, str] | None = None, stdin: bytes = b""
) -> Write:
    """The first record of a run. Secret parameters and stdin are kept while it has not
    ended. Changes nothing when the run's tick is claimed already."""
    secret = json.dumps(secret_params) if secret_params else None
    insert = f"insert into runs ({_COLUMNS}, secret_params) values ({_MARKS}, ?)"
    if run.scheduled_at:
        insert += " on conflict do nothing"
    created = (insert, [*_row_from_run(run), secret])
    if not stdin or run.ended:
        return Write(created)
    return Write(created, ("insert into inputs values (?, ?)", [run.id, stdin]))


def write_claimed(claim: Claim) -> Write:
    """The record that a key made or joined a run, if that has a record; one that has
    expired makes room for it."""
    insert = "insert or replace into claims (key, fingerprint, run_id, claimed_ms)"
    those = "select ?, ?, ?, ? where exists (select 1 from runs where id = ?)"
    return Write((f"{insert} {those}", [*claim, claim.run_id]))


def write_unclaimed(until_ms: int) -> Write:
    """The end of keys that were claimed up to a time; a batch."""
    old = "select key from claims where claimed_ms <= ? limit ?"
    sql = f"delete from claims where key in ({old})"
    return Write((sql, [until_ms, RETENTION_BATCH_RUNS]))


def _changed(run: Run, columns: tuple[str, ...], more: str = "") -> Write:
    assignments = ", ".join(f"{column} = ?" for column in columns)
    values = [getattr(run, column) for column in columns]
    sql = f"update runs set {assignments}{more} where id = ?"
    return Write((sql, [*values, run.id]))


def write_missed(run: Run, ticks: int) -> Write:
    """The only record of a run that stands for missed ticks."""
    count = """update tallies set ticks = ticks + ?
        where task_name = ? and state = ? and triggered_by = ?"""
    key = (run.task_name, run.end_reason, run.triggered_by)
    return Write(*write_created(run).statements, (count, [ticks, *key]))


def write_started(run: Run) -> Write:
    """The record that a queued run is running."""
    return _changed(run, _AT_START)


def write_schedule(task_name: str, schedule: str, seen_until: str) -> Write:
    """The record that a task has a schedule since a time."""
    sql = "insert or replace into schedules values (?, ?, ?)"
    return Write((sql, [task_name, schedule, seen_until]))


def write_paused(task_name: str, pause: Pause) -> Write:
    """The record that the schedule of a task, or of ALL_TASKS, does not fire."""
    sql = "insert or replace into pauses values (?, ?, ?, ?)"
    return Write((sql, [task_name, *pause]))


def write_resumed(task_name: str, seen_until: str) -> Write:
    """The record that a pause is over, and its ticks are seen."""
    seen = "update schedules set seen_until = max(seen_until, ?)"
    seen += " where ? in (task_name, '')"
    gone = "delete from pauses where task_name = ?"
    return Write((gone, [task_name]), (seen, [seen_until, task_name]))


def write_keeps_all_since(unix_ms: int) -> Write:
    """The record that KEEP_FOR_S is the default from a time on."""
    insert = "insert or ignore into meta values ('keep_for_since_ms', ?)"
    return Write((insert, [str(unix_ms)]))


def write_unscheduled(task_name: str) -> Write:
    """The record that a task has no schedule any more."""
    return Write(("delete from schedules where task_name = ?", [task_name]))


def write_ended(run: Run, next_id: str = "") -> Write:
    """The last record of a run; its secret parameters are forgotten, and its stdin
    unless that is for the next attempt."""
    ended = _changed(_with_result_text(run), _AT_END, ", secret_params = null")
    if not (run.via and next_id):
        return ended
    kept = ("update inputs set run_id = ? where run_id = ?", [next_id, run.id])
    return Write(kept, *ended.statements)


_SORTING_FOLDERS = ("/var/tmp", "/usr/tmp", "/tmp")  # noqa: S108 (SQLite's choice)


def _can_sort() -> bool:
    """Whether SQLite can write anywhere what it sorts and is too much for its memory:
    these are the folders that it tries (sqlite.org/tempfiles.html)."""
    tried = (os.environ.get("SQLITE_TMPDIR"), os.environ.get("TMPDIR"))
    return any(f and os.access(f, os.W_OK | os.X_OK) for f in tried + _SORTING_FOLDERS)


def _sort_in(folder: str) -> None:
    """Have all connections of this process sort there; empty for SQLite's choice."""
    with contextlib.closing(sqlite3.connect(":memory:")) as db:
        name = folder.replace("'", "''")
        db.execute(f"pragma temp_store_directory = '{name}'")


def file_id(path: str | int) -> tuple[int, int]:
    """Device and inode of a file, by its path or as it is open. Raises OSError."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def misplaced(files: Mapping[str, tuple[int, int]]) -> str:
    """What is wrong with the first of some files that is not at its path any more;
    empty if all are."""
    for path, known in files.items():
        try:
            if file_id(path) != known:
                return f"{path}: another file is there now"
        except OSError as error:
            return f"{path}: {error.strerror}"
    return ""


def _found_layout(db: sqlite3.Connection, path: str) -> int:
    """The number of the layout of a database, 0 if it is empty. Raises StoreError if
    another program has made it, or a later version of this one."""
    (version,) = db.execute("pragma user_version").fetchone()
    (maker,) = db.execute("pragma application_id").fetchone()
    rows = db.execute("select name from sqlite_master where type = 'table'")
    tables = {name for (name,) in rows}
    is_first = maker == 0 and version == 1 and {"runs", "trash", "tallies"} <= tables
    is_empty = not (maker or version or tables)
    if maker != _APPLICATION_ID and not is_first and not is_empty:
        raise StoreError(f"{path}: this is the database of another program")
    if version > _LAYOUT_VERSION:
        by = "select value from meta where name = 'version'"
        (name,) = (db.execute(by).fetchone() if "meta" in tables else None) or ("",)
        name = ", ".join(filter(None, [f"another version of {PROGRAM}", name]))
        text = f"made by {name} (layout {version})"
        known = f"this is {VERSION} and knows layouts up to {_LAYOUT_VERSION}"
        raise StoreError(f"{path}: {text}; {known}")
    return int(version)


def _queries_of_layout_1(db: sqlite3.Connection, schema: str) -> dict[str, str]:
    """Queries that read a database of layout 1 as one of this layout, by table. That
    layout had several forms; what one of them lacks has its default, or is empty."""
    with contextlib.closing(sqlite3.connect(":memory:")) as empty:
        empty.executescript(_TABLES)
        names = empty.execute("select name from sqlite_master where type = 'table'")
        wanted = {
            name: empty.execute(f"pragma table_info({name})").fetchall()
            for (name,) in names.fetchall()
        }
    queries = {}
    for table, columns in wanted.items():
        known = {row[1] for row in db.execute(f"pragma {schema}.table_info({table})")}
        shown = (
            name if name in known else f"{default or 'null'} as {name}"
            for _, name, _, _, default, _ in columns
        )
        source = f"{schema}.{table}" if known else "(select 1) where false"
        queries[table] = f"select {', '.join(shown)} from {source}"
    # Now these are counted when somebody asks.
    queries["tallies"] += f" where state not in {_LIVE_STATES}"
    return queries


def _check_room(path: str) -> None:
    """Raises StoreError if the disk has no room for another database of that size."""
    names = (path, f"{path}-wal")
    needed_bytes = sum(os.path.getsize(name) for name in names if os.path.exists(name))
    disk = os.statvfs(path)
    free_bytes = disk.f_bavail * disk.f_frsize
    if free_bytes < needed_bytes:
        text = f"layout {_LAYOUT_VERSION} takes up to {needed_bytes} bytes beside it"
        raise StoreError(f"{path}: too little room: {text}, {free_bytes} are free")


def lock_holders(path: str) -> set[int]:
    """The processes that have a lock on a file, as far as proc_locks(5) tells."""
    found = os.stat(path)
    major, minor = os.major(found.st_dev), os.minor(found.st_dev)
    file = f"{major:02x}:{minor:02x}:{found.st_ino}"
    try:
        with open("/proc/locks", encoding="ascii") as locks:
            words = [line.split() for line in locks]
    except OSError:
        return set()
    return {int(line[-4]) for line in words if line[-3] == file}


def remove_if_there(path: str) -> None:
    """Remove a file. Raises OSError, but not if there is none."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def _migrate(path: str, tell_busy: Callable[[], None]) -> None:
    """Put a database of this layout in the place of one of layout 1: a new file, which
    takes its name when it is whole. If that is killed the old file is as it was, and
    the next start begins anew. Raises StoreError, OSError, sqlite3.Error."""
    began_s = time.monotonic()
    old = os.path.realpath(path)
    new = f"{old}-new"
    remove_if_there(new)
    fd = os.open(new, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        before = os.stat(old)
        os.fchmod(fd, stat.S_IMODE(before.st_mode))
        if os.geteuid() == 0:
            os.fchown(fd, before.st_uid, before.st_gid)
        # There is room on that disk; in memory, or on that of /tmp, may be less.
        _sort_in(os.path.dirname(new))
        count = _copy_layout_1(old, new, tell_busy)
        os.fsync(fd)
        os.rename(new, old)
    finally:
        os.close(fd)
        if _can_sort():
            _sort_in("")
        remove_if_there(new)
    folder = os.open(os.path.dirname(old), os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    took_s = time.monotonic() - began_s
    text = "history brought to layout %d runs=%d took=%.3fs"
    LOG.info(text, _LAYOUT_VERSION, count, took_s)


def _copy_layout_1(old: str, new: str, tell_busy: Callable[[], None]) -> int:
    """Fill a new file with all that is in a database of layout 1; returns how many runs
    it has. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(new, isolation_level=None)) as db:
        db.executescript(
            "pragma auto_vacuum = incremental; pragma journal_mode = off;"
            "pragma synchronous = off;"
        )
        db.set_progress_handler(tell_busy, MIGRATION_TELLS_STEPS)
        db.execute("attach ? as old", [old])
        give_up_s = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                # Nobody has it open then, and there is no write-ahead log of it, which
                # SQLite would take for one of the new file.
                db.execute("pragma old.journal_mode = delete")
                break
            except sqlite3.OperationalError:
                if time.monotonic() > give_up_s:
                    raise
                time.sleep(SURVIVOR_CHECK_S)
        queries = _queries_of_layout_1(db, "old")
        steps = ["begin exclusive;", _TABLES]
        tallied = [row[1] for row in db.execute("pragma old.table_info(tallies)")]
        if "ended" not in tallied:
            # The first ones counted no ends, so count those of what is there.
            del queries["tallies"]
            trash = queries["runs"].replace("old.runs", "old.trash")
            steps += [_TRIGGERS, f"insert into runs {trash}; delete from runs;"]
        steps += [f"insert into {table} {q};" for table, q in queries.items()]
        steps += [_INDEXES] if "ended" not in tallied else [_INDEXES, _TRIGGERS]
        db.executescript("".join([*steps, "commit;"]))
        (count,) = db.execute("select count(*) from runs").fetchone()
        return int(count)


def copy_history(path: str, copy: str) -> set[str]:
    """Copy a database, in use or not, into an empty file; returns the ids of its runs.
    Raises sqlite3.Error."""
    with contextlib.ExitStack() as stack:
        source, db = (
            stack.enter_context(
                contextlib.closing(sqlite3.connect(name, timeout=limit))
            )
            for name, limit in ((path, BUSY_TIMEOUT_S), (copy, 0))
        )
        source.backup(db)
        rows = db.execute("select id from runs union all select id from trash")
        return {run_id for (run_id,) in rows}


def prune_copy(path: str, copy: str, lost: Iterable[str]) -> int:
    """Remove ended runs from a copy: those that its database has removed meanwhile, and
    those without a log; returns how many runs are left. Raises sqlite3.Error."""
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("attach ? as live", [path])
        kept = "(select id from live.runs union all select id from live.trash)"
        db.execute("begin")
        for table in ("runs", "trash"):
            ended = f"delete from main.{table} where end_reason is not null and id"
            db.execute(f"{ended} not in {kept}")
            db.executemany(f"{ended} = ?", [(run_id,) for run_id in lost])
        db.execute("commit")
        db.execute("detach live")
        # So that it is one file.
        db.execute("pragma main.journal_mode = delete")
        (count,) = db.execute("select count(*) from runs").fetchone()
        return int(count)


class Store:
    """The database of one data directory. Writes are committed in groups, as a leader
    and its followers: whoever has to wait for a commit and finds none under way makes
    one for everybody who is waiting (I2). Reads use a few connections of their own,
    taken from a pool rather than one per thread, since most threads only wait."""

    def __init__(
        self,
        path: str,
        *,
        look_only: bool = False,
        tell_busy: Callable[[], None] | None = None,
    ) -> None:
        """`tell_busy` is called about every second while it takes longer to open."""
        self._path = path
        self._look_only = look_only
        self._tell_busy = tell_busy or (lambda: None)
        # Whether it was not closed when it was used last.
        self.found_log = os.path.exists(f"{path}-wal")
        self._pending: collections.deque[Write] = collections.deque()
        self._lock = threading.Lock()
        self._committing = False
        self._followers: collections.deque[Write] = collections.deque()
        # The one used last comes next: it has its pages and statements at hand. A crowd
        # that waits for a run wakes at once at its end, and must not use up the files.
        self._readers: collections.deque[sqlite3.Connection] = collections.deque()
        self._reading = threading.Semaphore(READERS_MAX)
        if sqlite3.sqlite_version_info < SQLITE_OLDEST:
            oldest = ".".join(map(str, SQLITE_OLDEST))
            text = f"this Python has SQLite {sqlite3.sqlite_version}"
            raise StoreError(f"{text}; the oldest that works is {oldest}")
        # How a reader sees the database as one of this layout, if that is asked.
        self._views = ""
        self._closed = False
        try:
            self._db = self._connect()
            try:
                self._prepare()
            except Exception:
                self._db.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise StoreError(f"{path}: {error}") from error
        # What is open: SQLite keeps these files, whatever becomes of their names.
        names = (path + ending for ending in ("", "-wal", "-shm"))
        self.files = {name: file_id(name) for name in names if os.path.exists(name)}

    def _connect(self, timeout_s: float = BUSY_TIMEOUT_S) -> sqlite3.Connection:
        return sqlite3.connect(
            self._path,
            timeout=timeout_s,
            isolation_level=None,
            check_same_thread=False,
        )

    def _prepare(self) -> None:
        if not _can_sort():
            # The root of a container may be read-only. The variable was read when the
            # module was imported; this holds for all connections.
            _sort_in(os.path.dirname(self._path))
        version = _found_layout(self._db, self._path)
        if version == 1:
            _check_room(self._path)
            if self._look_only:
                queries = _queries_of_layout_1(self._db, "main")
                views = (f"create temp view {t} as {q};" for t, q in queries.items())
                self._views = "pragma temp_store = memory; " + " ".join(views)
            else:
                self._db.close()
                _migrate(self._path, self._tell_busy)
                self._db = self._connect()
        self.is_new = version == 0
        self._db.execute(f"pragma query_only = {int(self._look_only)}")
        if self.is_new:
            # While the file has no page yet; then it stays so.
            self._db.execute("pragma auto_vacuum = incremental")
        (mode,) = self._db.execute("pragma journal_mode = wal").fetchone()
        if mode != "wal":
            text = f'the file system takes no write-ahead log, only "{mode}"'
            raise StoreError(f"{self._path}: {text}")
        # Not every build overwrites what it deletes, such as secret parameters.
        self._db.execute("pragma secure_delete = on")
        # FULL: a commit is on the disk when it returns, not only in the log (I1).
        self._db.execute("pragma synchronous = full")
        if self.is_new:
            self._db.executescript(f"begin immediate; {_LAYOUT} commit;")
        if not self._look_only:
            sign = """insert into meta values ('version', ?) on conflict (name)
                do update set value = excluded.value where value <> excluded.value"""
            self._db.execute(sign, [VERSION])

    def check_migratable(self, user: int) -> None:
        """Before a database that is only looked at, and that another process uses, is
        brought to this layout. Raises StoreError if that cannot work."""
        others = lock_holders(self._path) - {os.getpid(), user}
        if self._views and others:
            text = f"locked by process {min(others)}, so it cannot be brought to layout"
            raise StoreError(f"{self._path}: {text} {_LAYOUT_VERSION}")

    def close(self) -> None:
        """Close every connection; the last one folds the write-ahead log back in."""
        self._closed = True
        while self._readers:
            self._readers.pop().close()
        self._db.close()

    # -- writing

    def enqueue(self, write: Write) -> Write:
        """Put a write in line, in the order of the calls. Takes no lock."""
        self._pending.append(write)
        return write

    def flush(self, *writes: Write) -> None:
        """Return when the writes are durable. Raises StoreError when one is not, and
        then it has no effect. Blocks for one commit, seldom two."""
        for write in writes:
            self._flush(write)
        for write in writes:
            failure = write.failure()
            if failure:
                raise failure

    def _flush(self, write: Write) -> None:
        if not self._must_lead(write):
            return
        while not write.done:
            self._commit_pending()
        self._hand_over()

    def _must_lead(self, write: Write) -> bool:
        """Wait until the write is done or it is for this thread to commit."""
        with self._lock:
            if write.done:
                return False
            if not self._committing:
                self._committing = True
                return True
            write.gate = queue.SimpleQueue()
            self._followers.append(write)
        write.gate.get()
        return not write.done

    def _hand_over(self) -> None:
        """Make the first follower that is not served the next leader."""
        with self._lock:
            while self._followers and self._followers[0].done:
                self._followers.popleft()
            if not self._followers:
                self._committing = False
                return
            gate = self._followers.popleft().gate
        assert gate
        gate.put(None)

    def _commit_pending(self) -> None:
        batch: list[Write] = []
        while self._pending and len(batch) < COMMIT_MAX_WRITES:
            batch.append(self._pending.popleft())
        try:
            self._commit(batch)
        except Exception as error:
            # Whatever it was, followers must not wait for ever.
            if len(batch) == 1:
                batch[0].error = error
            else:
                # One bad write must not take the others with it.
                self._commit_singly(batch)
        with self._lock:
            for write in batch:
                write.done = True
                if write.gate:
                    write.gate.put(None)

    def _commit_singly(self, batch: list[Write]) -> None:
        for write in batch:
            try:
                self._commit([write])
            except Exception as error:
                write.error = error

    def _commit(self, batch: list[Write]) -> None:
        db = self._db
        if len(batch) == 1 and len(batch[0].statements) == 1:
            # A statement alone is a transaction of its own.
            batch[0].changed = db.execute(*batch[0].statements[0]).rowcount
            return
        db.execute("begin immediate")
        try:
            for write in batch:
                write.changed = sum(
                    db.execute(sql, values).rowcount for sql, values in write.statements
                )
            db.execute("commit")
        except Exception:
            if db.in_transaction:
                db.execute("rollback")
            raise

    def fold(self, mode: str) -> bool:
        """Put what is in the write-ahead log into the database, waiting for nobody:
        `passive` as much as can be, `truncate` all of it, and empty the log. Returns
        whether that was done. Raises StoreError."""
        self._check_place()
        try:
            with contextlib.closing(self._connect(0)) as db:
                (busy, _, _) = db.execute(f"pragma wal_checkpoint({mode})").fetchone()
        except sqlite3.Error as error:
            raise StoreError(f"{self._path}: {error}") from error
        return not busy

    # -- reading

    def _rows(self, sql: str, values: Sequence[Any] = ()) -> list[Any]:
        """All rows of a query, over a connection from the pool; waits for one."""
        with self._reading:
            try:
                reader = self._reader()
                try:
                    return self._fetch(reader, sql, values)
                finally:
                    self._readers.append(reader)
            except sqlite3.Error as error:
                raise StoreError(f"{self._path}: {error}") from error

    def _fetch(
        self, reader: sqlite3.Connection, sql: str, values: Sequence[Any]
    ) -> list[Any]:
        try:
            return reader.execute(sql, values).fetchall()
        except sqlite3.OperationalError as error:
            if "decode" not in str(error):
                raise
            # Text that is not UTF-8, in a damaged row. Slower, so not from the start.
            reader.text_factory = _text_with_marks
            return reader.execute(sql, values).fetchall()

    def _reader(self) -> sqlite3.Connection:
        # To take one out is atomic; whoever finds none is one of few.
        with contextlib.suppress(IndexError):
            return self._readers.pop()
        self._check_place()
        reader = self._connect()
        reader.executescript(f"{self._views} pragma query_only = 1;")
        return reader

    def _check_place(self) -> None:
        """Before another connection, which could be to another database than the one
        written to, or even make one. Raises StoreError."""
        # A client may ask anew on its connection until the process has gone.
        wrong = "the daemon has shut down" if self._closed else misplaced(self.files)
        if wrong:
            raise StoreError(wrong)

    def newest_id(self) -> str:
        """The largest run id, trash included; empty when there is none. What is none
        because somebody wrote to the history must not stop the start."""
        like = "where id glob '" + "[0-7]" + "[0-9A-HJKMNP-TV-Z]" * 25 + "'"
        first = "(select id from {0} {1} order by id desc limit 1)"
        tables = (first.format(table, like) for table in ("runs", "trash"))
        (row,) = self._rows("select " + ", ".join(tables))
        return max(text or "" for text in row)

    def find_run(self, run_id: str) -> Run | None:
        """The run with this id, if it is in the history."""
        rows = self._rows(f"select {_COLUMNS} from runs where id = ?", [run_id])
        return _run_from_row(rows[0]) if rows else None

    def find_runs(self, run_ids: Sequence[str]) -> list[Run]:
        """Those of the runs that exist, newest first, without their results; at most
        BULK_MAX_IDS."""
        found: list[Run] = []
        for sql, values in _batches_of_ids(run_ids):
            rows = self._rows(f"select {_LISTED_COLUMNS} from runs where {sql}", values)
            found += map(_run_from_row, rows)
        return sorted(found, key=lambda run: run.id, reverse=True)

    def next_attempt(self, run_id: str) -> str | None:
        """Id of the attempt that followed a run."""
        rows = self._rows("select id from runs where retry_of_run_id = ?", [run_id])
        return str(rows[0][0]) if rows else None

    def hook_run_ids(self, run_id: str) -> list[str]:
        """Ids of the runs that the end of a run triggered."""
        sql = "select id from runs where cause_run_id = ? order by id"
        return [row[0] for row in self._rows(sql, [run_id])]

    def stdin_of(self, run_id: str) -> bytes:
        """What the program of a run that has not ended finds on stdin."""
        rows = self._rows("select body from inputs where run_id = ?", [run_id])
        return bytes(rows[0][0]) if rows else b""

    def ends_since_success(self, task_name: str) -> list[str]:
        """How the newest runs of a task ended, by the last of their attempts, back to
        its last success or ENDS_COUNTED rows."""
        retried = "exists (select 1 from runs as x where x.retry_of_run_id = runs.id)"
        sql = f"select end_reason, {retried} from runs where task_name = ?"
        recent: list[Any] = []
        # Mostly the newest is a success, or few are not.
        for most in (1, ENDS_COUNTED // 32, ENDS_COUNTED):
            rows = self._rows(f"{sql} order by id desc limit ?", [task_name, most])
            recent = list(itertools.takewhile(lambda row: row[0] != SUCCESS, rows))
            if len(recent) < most:
                break
        return [reason for reason, goes_on in recent if reason and not goes_on]

    def find_claim(self, key: str, after_ms: int) -> Claim | None:
        """Who has claimed a key after a time."""
        sql = "select key, fingerprint, run_id, claimed_ms from claims where key = ?"
        rows = self._rows(f"{sql} and claimed_ms > ?", [key, after_ms])
        return Claim._make(rows[0]) if rows else None

    def has_claims(self, until_ms: int) -> bool:
        """Whether there are keys that were claimed up to a time."""
        sql = "select 1 from claims where claimed_ms <= ? limit 1"
        return bool(self._rows(sql, [until_ms]))

    def unended_runs(self) -> list[tuple[Run, dict[str, str]]]:
        """(run, secret parameters) of each run that is not ended, oldest first; one
        whose record is damaged has an error."""
        live = f"where {_STATE} in {_LIVE_STATES} order by id"
        sql = f"select {_COLUMNS}, secret_params from runs {live}"
        found = []
        for row in self._rows(sql):
            run, secret = _salvaged_run(row[:-1]), {}
            try:
                secret = _read_column("params", row[-1] or "{}")
            except ValueError:
                run = _with_loss(run, ["secret_params"])
            found.append((run, secret))
        return found

    def pauses(self) -> dict[str, Pause]:
        """The pauses, also those that are over, by task name or ALL_TASKS."""
        rows = self._rows("select task_name, since_ms, until_ms, reason from pauses")
        return {row[0]: Pause(*row[1:]) for row in rows}

    def schedules(self) -> dict[str, tuple[str, str]]:
        """(schedule, time up to which its ticks were seen) by task name."""
        rows = self._rows("select task_name, schedule, seen_until from schedules")
        found = {}
        for name, schedule, seen_until in rows:
            # One that is damaged begins anew.
            with contextlib.suppress(ValueError):
                found[name] = (schedule, _read_column("start_at", seen_until))
        return found

    def list_runs(
        self, which: RunFilter, sort: tuple[str, str], limit: int, offset: int = 0
    ) -> list[Run]:
        """A page of the runs that match, without their results; `sort` is (field,
        asc|desc)."""
        field, direction = sort
        column = _SORT_COLUMNS.get(field, field)
        order = f"{column} {direction}" + (
            "" if column == "id" else f", id {direction}"
        )
        where, values = _where(_conditions(which))
        page = f" order by {order} limit ? offset ?"
        ids, states = f"select id from runs{where}", _states(which)
        is_merged = column == "id" and len(states) > 1 and ENDED not in states
        if is_merged:
            # SQLite would sort all runs in these states, so ask for each of them.
            queries, values = [], []
            for state in states:
                where, found = _where(_conditions(which._replace(status=state)))
                first = f"select id from runs{where} order by {order} limit ?"
                queries.append(f"select id from ({first})")
                values += [*found, limit + offset if limit >= 0 else limit]
            ids = " union all ".join(queries)
        values += [limit, offset]
        if is_merged or column in ("start_at", "exit_code", "duration"):
            # Without an index it sorts all, which is quicker with the ids alone.
            where, page = f" where id in ({ids}{page})", f" order by {order}"
        sql = f"select {_LISTED_COLUMNS} from runs{where}{page}"
        return [_run_from_row(row) for row in self._rows(sql, values)]

    def list_ids(
        self, which: RunFilter, below: str, limit: int, table: str = "runs"
    ) -> list[str]:
        """Ids of matching runs smaller than `below` ("" for all), newest first; `table`
        may be "trash"."""
        conditions = _conditions(which)
        if below:
            conditions.append(("id < ?", [below]))
        where, values = _where(conditions)
        sql = f"select id from {table}{where} order by id desc limit ?"
        return [row[0] for row in self._rows(sql, [*values, limit])]

    def keeps_all_since_ms(self) -> int | None:
        """When KEEP_FOR_S was first the default here; None before that."""
        rows = self._rows("select value from meta where name = 'keep_for_since_ms'")
        return int(rows[0][0]) if rows else None

    def count_runs(self, which: RunFilter) -> int:
        """How many runs match: from the tallies where they know, else counted over
        an index."""
        where, values = _where(_conditions(which))
        counted = which._replace(task_name=None, triggered_by=None, status=None)
        if counted != RunFilter():
            return int(self._rows(f"select count(*) from runs{where}", values)[0][0])
        conditions = _conditions(which._replace(status=None))
        if which.status:
            states = {*_states(which)}
            states |= set(END_REASONS if ENDED in states else ())
            conditions.append(_one_of("state", sorted(states)))
        where, values = _where(conditions)
        sql = f"select coalesce(sum(runs), 0) from {_BY_KIND}{where}"
        return int(self._rows(sql, values)[0][0])

    def tallies(self) -> list[tuple[str, str, str, int]]:
        """(task name, end reason or status, triggered by, number of runs)."""
        sql = f"""select task_name, state, triggered_by, sum(runs) as n
            from {_BY_KIND} group by 1, 2, 3 having n > 0"""
        return [(row[0], row[1], row[2], row[3]) for row in self._rows(sql)]

    def counted(self, task_names: Sequence[str] | None = None) -> dict[str, Counted]:
        """What ended ever, by task name; of some tasks, or of all that there were."""
        few = task_names is not None and len(task_names) <= STATEMENT_MAX_VALUES
        those, values = _one_of("task_name", task_names or ()) if few else ("true", [])
        kinds = self._rows(_ENDED_KINDS.format(those=those), values)
        sums = self._rows(_SUMS.format(those=those), values)
        totals = {row[0]: row[1:] for row in sums}
        found = {}
        for name, rows in itertools.groupby(kinds, operator.itemgetter(0)):
            of_task = list(rows)
            last = max(of_task, key=operator.itemgetter(4))
            good_s = max((row[4] for row in of_task if row[1] == SUCCESS), default=0.0)
            ended = tuple(row[1:4] for row in of_task)
            total = totals[name]
            figures = (last[4], good_s, last[5], *total[:4], total[4:])
            found[name] = Counted(ended, *figures)
        return found

    def last_failure(self) -> Run | None:
        """The newest run that ended in one of FAILURES."""
        newest = f"select max(id) as id from runs where {_STATE} = ?"
        sql = f"select max(id) from ({' union all '.join([newest] * len(FAILURES))})"
        run_id = self._rows(sql, FAILURES)[0][0]
        return self.find_run(run_id) if run_id else None

    def last_runs(self) -> dict[str, Run]:
        """The newest run of every task in the history, by task name."""
        sql = f"select distinct task_name from {_BY_KIND}"
        names = [row[0] for row in self._rows(sql)]
        found = (self.last_run(name) for name in names)
        return {run.task_name: run for run in found if run}

    def last_run(self, task_name: str) -> Run | None:
        """The newest run of a task."""
        runs = self.list_runs(RunFilter(task_name=task_name), ("created_at", "desc"), 1)
        return runs[0] if runs else None

    # -- forgetting

    def expired_ids(
        self, task_name: str, keep_runs: int | None, before: str | None
    ) -> list[str]:
        """Ended runs beyond the newest `keep_runs`, or older than a time; a batch."""
        # All out of runs_by_task, which has no status.
        live = f"select id from runs where {_STATE} in {_LIVE_STATES}"
        base = f"select id from runs where task_name = ? and id not in ({live})"
        found: list[Any] = []
        if keep_runs is not None:
            sql = f"{base} order by id desc limit ? offset ?"
            found += self._rows(sql, [task_name, RETENTION_BATCH_RUNS, keep_runs])
        if before is not None:
            sql = f"{base} and created_at < ? order by id limit ?"
            found += self._rows(sql, [task_name, before, RETENTION_BATCH_RUNS])
        return sorted({row[0] for row in found})

    def disk_usage(self) -> list[dict[str, Any]]:
        """The USAGE_ROWS tasks whose runs take most of the disk. Reads all runs."""
        half = LOG_FILES_LEAST_BYTES // 2  # a block for the index, and whole ones
        kept = "output_bytes - coalesce(output_dropped_bytes, 0)"
        logs = f"coalesce(sum(({kept} + {half - 1}) / {half} * {half} + {half}), 0)"
        sizes = "pragma_page_count(), pragma_page_size()"
        (database_bytes,) = self._rows(f"select page_count * page_size from {sizes}")[0]
        by_task = f"select task_name, count(*), {logs} from runs group by task_name"
        rows = self._rows(by_task)
        row_bytes = database_bytes / max(1, sum(count for _, count, _ in rows))
        found = [
            {"task_name": name, "runs": count, "database_bytes": int(count * row_bytes),
             "log_bytes": log_bytes}
            for name, count, log_bytes in rows
        ]  # fmt: skip
        found.sort(key=lambda use: use["database_bytes"] + use["log_bytes"])
        return found[: -USAGE_ROWS - 1 : -1]

    def unused_pages(self) -> int:
        """How many pages of the database are free."""
        return int(self._rows("pragma freelist_count")[0][0])

    def oldest_trash_ms(self) -> int | None:
        """When the run longest in the trash was deleted; None if there is none."""
        oldest = self._rows("select min(deleted_at) from trash")[0][0]
        return None if oldest is None else int(oldest)

    def trashed_before(self, unix_ms: int) -> list[tuple[str, str]]:
        """(task name, run id) of what was deleted before a time; a batch."""
        sql = "select task_name, id from trash where deleted_at < ? limit ?"
        return [(r[0], r[1]) for r in self._rows(sql, [unix_ms, RETENTION_BATCH_RUNS])]


def write_trashed(run_ids: Sequence[str], unix_ms: int) -> Write:
    """Ended runs taken out of the history, restorable; `changed` counts twice."""
    columns = f"{_COLUMNS}, deleted_at"
    statements: list[tuple[str, Sequence[Any]]] = []
    for sql, values in _batches_of_ids(run_ids):
        ended_ones = f"from runs where {sql} and status = 'ended'"
        move = f"insert into trash ({columns}) select {_COLUMNS}, ? {ended_ones}"
        statements.append((move, [unix_ms, *values]))
        statements.append((f"delete {ended_ones}", values))
    return Write(*statements)


def write_restored(run_ids: Sequence[str]) -> Write:
    """Deleted runs put back into the history; `changed` counts twice."""
    statements: list[tuple[str, Sequence[Any]]] = []
    for sql, values in _batches_of_ids(run_ids):
        those = f"from trash where {sql}"
        move = f"insert into runs ({_COLUMNS}) select {_COLUMNS} {those}"
        statements += [(move, values), (f"delete {those}", values)]
    return Write(*statements)


def write_shrunk() -> Write:
    """A database that has fewer free pages; its file shrinks when the write-ahead log
    is folded in. A cursor without columns is not stepped on, hence one at a time."""
    return Write(*[("pragma incremental_vacuum(1)", ())] * SHRINK_STEP_PAGES)


def write_forgotten(run_ids: Sequence[str]) -> Write:
    """Runs removed for good, out of the history and the trash."""
    return Write(
        *(
            (f"delete from {table} where {sql}", values)
            for sql, values in _batches_of_ids(run_ids)
            for table in ("runs", "trash")
        )
    )


# ---- 9. Logs: what a run wrote, line by line when somebody asks -------------
# Owns the files under logs/: write, cap, page, follow, search, repair; the only
# place that touches them; and how much room on the disk they may take. Relies on 1
# and 2. Nothing is done per line while a program writes: an index record per chunk is
# enough to find lines later.

# <run id>.log holds the bytes, <run id>.idx one record per chunk:
#   end offset, lines so far, Unix ms, stream, flags
# Offsets and line numbers count everything the program wrote, dropped or not. The
# first record of an index gives the position at which its segment begins. A chunk
# holds whole lines; only its last one may lack the newline, and then the next
# chunk of that stream, marked _GOES_ON, continues it. Beyond a quarter of the cap,
# further segments follow as <run id>.more/<number>.log and .idx.
_RECORD = struct.Struct("<QQQBB6x")
_GOES_ON = 1
_RECORDS_AT_ONCE = 4096
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class _Mark(NamedTuple):
    """One index record: the state of the log after a chunk."""

    end: int
    lines: int
    at_ms: int
    stream: int
    flags: int


_START = _Mark(0, 0, 0, SYSTEM, 0)


class LogLine(NamedTuple):
    """One line of output, as section 4 describes it."""

    n: int
    ts: int
    stream: int
    text: str
    continued: bool = False

    def document(self) -> dict[str, Any]:
        """The line as JSON."""
        line = {"n": self.n, "ts": self.ts, "stream": STREAMS[self.stream]}
        line["text"] = self.text
        return {**line, "continued": True} if self.continued else line


class LogPart(NamedTuple):
    """Bytes of one stream as they were written, and the offset at which they end."""

    end: int
    stream: int
    content: bytes

    def document(self) -> dict[str, Any]:
        """The part as JSON."""
        content = binascii.b2a_base64(self.content, newline=False).decode()
        return {"end": self.end, "stream": STREAMS[self.stream], "bytes": content}


def log_base(folder: str, task_name: str, run_id: str) -> str:
    """The path of a run's log files without their endings."""
    return os.path.join(folder, task_name, run_id)


def _segment_base(base: str, number: int) -> str:
    return f"{base}.more/{number}" if number else base


class LogError(OSError):
    """The log of a run cannot be read; strerror says why."""


@contextlib.contextmanager
def _as_log_error(base: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        name = os.path.basename(error.filename or base)
        text = f"the log cannot be read: {name}: {error.strerror}"
        raise LogError(error.errno, text) from error


def _open(path: str, flags: int) -> int:
    """Open a file of a log, and nothing else that somebody may have put in its place: a
    FIFO would block, and a link lead to a file that is none of ours. Raises OSError."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags, 0o600)
    except OSError:
        if os.path.islink(path):
            raise OSError(errno.EINVAL, "a link, not a regular file", path) from None
        raise
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        raise OSError(errno.EINVAL, "not a regular file", path)
    return fd


def _create(path: str) -> int:
    return _open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)


def _write_all(fd: int, chunk: bytes) -> None:
    written = os.write(fd, chunk)
    while written < len(chunk):
        written += os.write(fd, chunk[written:])


def _count_lines(part: bytes) -> int:
    return part.count(b"\n") + (not part.endswith(b"\n"))


def _character_start(chunk: bytes, at: int) -> int:
    """The start of the UTF-8 character at a position, so that no cut splits one."""
    starts = (p for p in range(at, at - 4, -1) if chunk[p] & 0xC0 != 0x80)
    return next(starts, at)


# What the place counts from which a log is read: fields of _Mark.
_BYTES, _LINES = 0, 1


class _Piece(NamedTuple):
    """Consecutive chunks of a log, or a gap, which has no bytes. The first mark is the
    one before them."""

    marks: list[_Mark]
    block: bytes | None

    def _gap_text(self, start: int) -> str:
        before, after = self.marks
        if start > before.end:
            # Nobody knows how many lines these bytes were.
            return f"{after.end - start} bytes were left out here"
        lines, left_out = after.lines - before.lines, after.end - before.end
        return f"{lines} lines ({left_out} bytes) were left out here"

    def lines(self, start: int) -> Iterator[LogLine]:
        """Its lines from a number on; a gap is a line with the number of its last."""
        if self.block is None:
            after = self.marks[1]
            yield LogLine(after.lines - 1, after.at_ms, SYSTEM, self._gap_text(0))
            return
        begin = self.marks[0].end
        for before, mark in zip(self.marks, self.marks[1:]):
            if mark.lines <= start:
                continue
            texts = self.block[before.end - begin : mark.end - begin].split(b"\n")
            if not texts[-1]:
                texts.pop()
            first = max(0, start - before.lines)
            for index, raw in enumerate(texts[first:], first):
                text = raw.decode("utf-8", "replace")
                continued = index == 0 and mark.flags & _GOES_ON != 0
                n = before.lines + index
                yield LogLine(n, mark.at_ms, mark.stream, text, continued)

    def parts(self, start: int) -> Iterator[LogPart]:
        """Its bytes from an offset on, by stream, in parts none of which makes a huge
        event; a gap is a part of the stream `system`."""
        begin, end = self.marks[0].end, self.marks[-1].end
        if self.block is None:
            yield LogPart(end, SYSTEM, self._gap_text(start).encode() + b"\n")
            return
        if len(self.block) < end - begin:
            # Cut since it was opened; the next reader sees that.
            return
        at = max(begin, start)
        for stream, chunks in itertools.groupby(self.marks[1:], lambda m: m.stream):
            *_, last = chunks
            while at < last.end:
                end = min(at + LOG_PART_BYTES, last.end)
                yield LogPart(end, stream, self.block[at - begin : end - begin])
                at = end


class _Segment(NamedTuple):
    """One pair of files, open for reading."""

    log_fd: int
    index_fd: int
    records: int
    first: _Mark = _START
    last: _Mark = _START

    def close(self) -> None:
        """Close both files."""
        os.close(self.log_fd)
        os.close(self.index_fd)

    def mark(self, index: int) -> _Mark:
        """The record with this index."""
        raw = os.pread(self.index_fd, _RECORD.size, index * _RECORD.size)
        # A live segment may have been given up since it was opened.
        whole = len(raw) == _RECORD.size
        return _Mark._make(_RECORD.unpack(raw)) if whole else self.last

    def read(self, start: int, end: int) -> bytes:
        """The bytes between two offsets; fewer if the file was cut."""
        return os.pread(self.log_fd, end - start, start - self.first.end)

    def find(self, place: int, unit: int) -> int:
        """Index of the record that holds a place."""
        low, high = 1, self.records - 1
        while low < high:
            middle = (low + high) // 2
            if self.mark(middle)[unit] > place:
                high = middle
            else:
                low = middle + 1
        return low

    def pieces(self, start: int, unit: int) -> Iterator[_Piece]:
        """Its chunks from the one on that holds a place, LOG_BLOCK_BYTES at a time."""
        at = self.find(start, unit) - 1
        while at < self.records - 1:
            count = min(_RECORDS_AT_ONCE, self.records - at)
            raw = os.pread(self.index_fd, count * _RECORD.size, at * _RECORD.size)
            raw = raw[: len(raw) // _RECORD.size * _RECORD.size]
            marks = list(map(_Mark._make, _RECORD.iter_unpack(raw)))
            if len(marks) < 2:
                return
            at += len(marks) - 1
            low = 0
            while low < len(marks) - 1:
                begin, high = marks[low].end, low + 2
                most = begin + LOG_BLOCK_BYTES
                while high < len(marks) and marks[high].end <= most:
                    high += 1
                yield _Piece(marks[low:high], self.read(begin, marks[high - 1].end))
                low = high - 1


def _open_for_reading(base: str) -> _Segment | None:
    """A segment as it is now; None if one of its files is missing. Raises OSError."""
    fds: list[int] = []
    try:
        fds.append(_open(base + ".log", os.O_RDONLY))
        fds.append(_open(base + ".idx", os.O_RDONLY))
        records = os.fstat(fds[1]).st_size // _RECORD.size
        segment = _Segment(fds[0], fds[1], records)
        if not records:
            return segment
        return segment._replace(first=segment.mark(0), last=segment.mark(records - 1))
    except OSError as error:
        for fd in fds:
            os.close(fd)
        if isinstance(error, FileNotFoundError):
            return None
        raise


def _put_in_place(path: str, content: bytes, fresh: str) -> None:
    """Replace a file by one with other content, by way of a third path."""
    fd = _open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        _write_all(fd, content)
    finally:
        os.close(fd)
    os.replace(fresh, path)


def _keep_head(base: str, head_bytes: int) -> int:
    """Put the first lines of a segment in its place; returns how many bytes they are.
    A reader that has it open still reads all of it."""
    segment = _open_for_reading(base)
    if not segment:
        return 0
    try:
        begin = segment.first.end
        head = segment.read(begin, begin + head_bytes)
        cut = head.rfind(b"\n") + 1 or len(head)
        whole = segment.find(begin + cut, _BYTES)
        records = os.pread(segment.index_fd, whole * _RECORD.size, 0)
        before, mark = segment.mark(whole - 1), segment.mark(whole)
    finally:
        segment.close()
    part = head[before.end - begin : cut]
    if part:
        lines = before.lines + _count_lines(part)
        records += _RECORD.pack(*mark._replace(end=begin + cut, lines=lines))
    fresh = base + ".more/head"
    os.makedirs(os.path.dirname(fresh), mode=0o700, exist_ok=True)
    # The index first: it must never tell of more than there is (I8).
    _put_in_place(base + ".idx", records, fresh)
    _put_in_place(base + ".log", head[:cut], fresh)
    return cut


class DiskWatch:
    """Whether the file system of the data directory has room. What is free above
    `min_free_bytes` is a budget for the output of all runs together. The kernel is
    asked once in DISK_LOOK_S, and for each write when DISK_NEAR_BYTES of the budget are
    left; under a leaf lock."""

    def __init__(self, path: str, min_free_bytes: int, clock: Clock) -> None:
        self._path = path
        self._min_free_bytes = min_free_bytes
        self._clock = clock
        self._low = ""
        self._look_at_s = clock.monotonic_s()
        self._lock = threading.Lock()
        # What output may still take, and what was taken and is not on the disk yet.
        self._budget_bytes = self._under_way_bytes = 0

    def reason_low(self) -> str:
        """Why nothing more should be written; empty when there is room."""
        if self._clock.monotonic_s() >= self._look_at_s:
            self._say(self._look())
        return self._low

    def note_full(self) -> None:
        """A write has just failed for want of room: true until the next look."""
        self._say("the disk is full")

    def take(self, size_bytes: int) -> str:
        """Take room for output out of the budget; returns why there is none. Once it is
        written or has failed, `note_written` has to follow."""
        low, spare_bytes = self.reason_low(), DISK_NEAR_BYTES
        while not low and not self._try_take(size_bytes, spare_bytes):
            low, spare_bytes = self._look(size_bytes), 0
            if low:
                self._say(low)
        return low

    def try_take(self, size_bytes: int) -> bool:
        """Take room if it is there; a disk on which it is not is not low for that."""
        return not self._look(size_bytes) and self._try_take(size_bytes, 0)

    def _try_take(self, size_bytes: int, spare_bytes: int) -> bool:
        with self._lock:
            fits = self._budget_bytes >= size_bytes + spare_bytes
            if fits:
                self._budget_bytes -= size_bytes
                self._under_way_bytes += size_bytes
            return fits

    def note_written(self, size_bytes: int) -> None:
        """That for which room was taken is on the disk by now."""
        with self._lock:
            self._under_way_bytes -= size_bytes

    def _look(self, wanted_bytes: int = 0) -> str:
        """Ask the kernel and set the budget; returns why there is no room, for as many
        bytes as are wanted."""
        with self._lock:
            try:
                found = os.statvfs(self._path)
            except OSError:
                # Then nothing is known of the room: the next write shows it.
                self._budget_bytes = sys.maxsize
                return ""
            free_bytes = found.f_bavail * found.f_frsize
            least = max(self._min_free_bytes, found.f_frsize)
            left_bytes = free_bytes - least - self._under_way_bytes
            self._budget_bytes = left_bytes
        free = f"{size_text(free_bytes)} free on the disk"
        if free_bytes < least:
            return f"{free}, under {size_text(least)}"
        # Else a writer that comes back at once would make it low again and again.
        if left_bytes < (DISK_AGAIN_BYTES if self._low else wanted_bytes):
            return f"{free}, {size_text(least)} of it stay free"
        # Some file systems make inodes as needed and tell of none.
        limited = self._min_free_bytes and found.f_files
        if limited and found.f_favail < DISK_MIN_FREE_FILES:
            return f"{found.f_favail} inodes free, under {DISK_MIN_FREE_FILES}"
        return ""

    def _say(self, low: str) -> None:
        self._look_at_s = self._clock.monotonic_s() + DISK_LOOK_S
        before, self._low = self._low, low
        if low and not before:
            LOG.error("disk low, output is dropped and triggers refused reason=%s", low)
        elif before and not low:
            LOG.info("disk has room again")


# What a LogWriter carries over an upgrade in place: plain values, and bytes.
_CARRIED = (
    "full", "error", "output_bytes", "dropped_bytes", "_held_since_s", "_broken",
    "_end", "_lines", "_ends_in_gap", "_head_kept", "_segments",
)  # fmt: skip
_RAW = ("_unsure", "_held")
_NOTHING_HELD = [b"", b""]


def _written_secrets(secrets: Sequence[str]) -> list[bytes]:
    """Secrets in all encodings that have their characters, longest first, so that none
    hides behind its own beginning."""
    found = set()
    for secret in secrets:
        for encoding in SECRET_ENCODINGS:
            with contextlib.suppress(UnicodeEncodeError):
                found.add(secret.encode(encoding, "surrogateescape"))
    return sorted(found, key=len, reverse=True)


class LogWriter:
    """Takes what one run writes and keeps it, up to a cap. Used by one thread, but for
    `wait_growth` and `closed`. Files appear with the first output."""

    def __init__(
        self, base: str, max_bytes: int, on_full: str, secrets: Sequence[str]
    ) -> None:
        self.base = base
        self.closed = False
        self.full = False
        self.error = ""
        # Where room is taken for what is written; None does not care.
        self.disk: DiskWatch | None = None
        self.output_bytes = 0
        self.dropped_bytes = 0
        # Of each follower that waits for more; a word in it wakes.
        self._gates: list[queue.SimpleQueue[None]] = []
        self._on_full = on_full
        self._max_bytes = max_bytes
        self._head_bytes = min(LOG_HEAD_BYTES, max_bytes // LOG_SEGMENTS)
        # Head, LOG_SEGMENTS - 1 whole segments and a growing one are within the cap.
        self._segment_bytes = max(1, (max_bytes - self._head_bytes) // LOG_SEGMENTS)
        self._line_bytes = min(LINE_MAX_BYTES, self._segment_bytes)
        self._given_secrets = list(secrets)
        self._secrets = _written_secrets(secrets) if secrets else []
        self._secret_pattern = re.compile(b"|".join(map(re.escape, self._secrets)))
        self._unsure = [b"", b""]
        self._held = [b"", b""]
        self._held_since_s = [0.0, 0.0]
        self._broken = [False, False]
        self._end = self._lines = 0
        self._ends_in_gap = False
        self._head_kept = 0
        # Of each segment: number, offset at which it begins, bytes of log and of index.
        self._segments: list[list[int]] = []
        self._fds: tuple[int, int] | None = None

    # -- what an upgrade in place carries over

    def record(self) -> dict[str, Any]:
        """The state with which another process continues this log, as JSON."""
        record: dict[str, Any] = {name: getattr(self, name) for name in _CARRIED}
        record.update(
            {name: [b.decode("latin-1") for b in getattr(self, name)] for name in _RAW}
        )
        record.update(max_bytes=self._max_bytes, on_full=self._on_full)
        record.update(secrets=self._given_secrets)
        # As programs before this one know the bytes of the last index.
        records = self._segments[-1][3] // _RECORD.size if self._segments else 0
        return {**record, "_records": records, "open": bool(self._fds)}

    @classmethod
    def resumed(cls, base: str, record: Mapping[str, Any]) -> LogWriter:
        """The writer of a record; it continues an unfinished segment."""
        cap = record["max_bytes"], record["on_full"]
        log = cls(base, cap[0], cap[1], record["secrets"])
        for name in _CARRIED:
            setattr(log, name, record[name])
        for name in _RAW:
            setattr(log, name, [text.encode("latin-1") for text in record[name]])
        if record["open"]:
            log._segments[-1][3] = record["_records"] * _RECORD.size
            try:
                log._open_files(log._segments[-1][0])
            except OSError as error:
                # What comes next begins a new segment.
                log.error = f"output could not be written: {error.strerror}"
        return log

    def redacted(self, text: str) -> str:
        """A text without the secrets of the run."""
        if not self._secrets:
            return text
        raw = text.encode("utf-8", "surrogatepass")
        hidden = self._secret_pattern.sub(REDACTED, raw)
        return hidden.decode("utf-8", "surrogatepass")

    # -- what the pump calls

    def write(self, stream: int, chunk: bytes, wall_ms: int, now_s: float) -> None:
        """Take a chunk of a stream, empty at its end; an unfinished line is held back a
        little."""
        if not chunk:
            self._end_stream(stream, wall_ms)
            return
        self.output_bytes += len(chunk)
        if self._secrets:
            chunk = self._redact(stream, chunk)
        held = self._held[stream]
        if held:
            chunk = held + chunk
        else:
            self._held_since_s[stream] = now_s
        cut = chunk.rfind(b"\n") + 1
        while len(chunk) - cut > self._line_bytes:
            cut = _character_start(chunk, cut + self._line_bytes)
        self._held[stream] = chunk[cut:]
        if cut:
            self._held_since_s[stream] = now_s
            self._keep(stream, chunk[:cut], wall_ms)

    def _end_stream(self, stream: int, wall_ms: int) -> None:
        """Write what is held of a stream that has ended."""
        if not (self._held[stream] or self._unsure[stream]):
            return
        rest = self._held[stream] + self._secrets_out(self._unsure[stream])
        self._held[stream] = self._unsure[stream] = b""
        self._keep(stream, rest, wall_ms)

    def hold_left_s(self, now_s: float) -> float | None:
        """Seconds until a held line is due; None when nothing is held."""
        if self._held == _NOTHING_HELD:
            return None
        due = [self._held_since_s[s] for s in (STDOUT, STDERR) if self._held[s]]
        return max(0.0, min(due) + HOLD_S - now_s) if due else None

    def release(self, wall_ms: int, now_s: float) -> None:
        """Write lines that were held long enough."""
        if self._held == _NOTHING_HELD:
            return
        for stream in (STDOUT, STDERR):
            held = self._held[stream]
            if held and now_s - self._held_since_s[stream] >= HOLD_S:
                self._held[stream] = b""
                self._keep(stream, held, wall_ms)

    def close(self, wall_ms: int) -> None:
        """Write what is still held and end the log."""
        for stream in (STDOUT, STDERR):
            self._end_stream(stream, wall_ms)
        if self._ends_in_gap:
            # Its first record tells readers how much was left out.
            with contextlib.suppress(OSError):
                self._open_segment(wall_ms)
        self._close_files()
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        # Copied in one step: followers come and go.
        for gate in tuple(self._gates):
            gate.put(None)

    def wait_growth(self, seen: int, timeout_s: float) -> int:
        """How much there is to read, once it is more than `seen`, the log is closed, or
        a time is over."""
        gate: queue.SimpleQueue[None] = queue.SimpleQueue()
        # First the gate, then the look; the writer first has more, then opens gates. So
        # one of them notices, without a lock. Adding and removing are atomic.
        self._gates.append(gate)
        if self._end <= seen and not self.closed:
            with contextlib.suppress(queue.Empty):
                gate.get(timeout=max(0.0, timeout_s))
        self._gates.remove(gate)
        return self._end

    def _redact(self, stream: int, chunk: bytes) -> bytes:
        """What is sure of a stream's text, without secrets. An end that may be the
        beginning of a secret is kept until more is known."""
        text = self._unsure[stream] + chunk
        sure = len(text) - self._secret_tail(text)
        at = 0
        for match in self._secret_pattern.finditer(text):
            if match.start() >= sure:
                break
            at = match.end()
            if at > sure:
                sure = len(text) - self._secret_tail(text[at:])
        self._unsure[stream] = text[sure:]
        return self._secrets_out(text[:sure])

    def _secrets_out(self, text: bytes) -> bytes:
        return self._secret_pattern.sub(REDACTED, text) if self._secrets else text

    def _secret_tail(self, text: bytes) -> int:
        """Length of the longest end of a text that may be a secret's beginning."""
        longest = 0
        for secret in self._secrets:
            for size in range(min(len(secret) - 1, len(text)), longest, -1):
                if text.endswith(secret[:size]):
                    longest = size
                    break
        return longest

    # -- what reaches the files

    def _keep(self, stream: int, chunk: bytes, wall_ms: int) -> None:
        """Write whole lines, cut where a line or a segment grows too long."""
        start = 0
        while start < len(chunk):
            end = self._cut(chunk, start)
            part = chunk if end - start == len(chunk) else chunk[start:end]
            self._keep_part(stream, part, wall_ms)
            start = end
        self._wake()

    def _cut(self, chunk: bytes, start: int) -> int:
        """Where the next record ends: before a line that is too long, or at its cut."""
        end = min(len(chunk), start + self._segment_bytes)
        if end < len(chunk):
            end = chunk.rfind(b"\n", start, end) + 1 or end
        at = start
        while end - at > self._line_bytes:
            newline = chunk.rfind(b"\n", at, at + self._line_bytes + 1)
            if newline < 0:
                return _character_start(chunk, at + self._line_bytes)
            at = newline + 1
        return end

    def _keep_part(self, stream: int, part: bytes, wall_ms: int) -> None:
        cut, room = len(part), self._room()
        if cut > room:
            cut = part.rfind(b"\n", 0, room) + 1
            if self._on_full != DROP_OLD:
                self.full = True
                cut = cut or room
        self._append(stream, part[:cut], wall_ms)
        if cut == len(part):
            return
        if self.full:
            self._count(stream, part[cut:], kept=False)
        else:
            self._close_files()
            self._append(stream, part[cut:], wall_ms)

    def _room(self) -> int:
        """How many bytes the segment may still take."""
        begin, index_bytes = self._end, 0
        if self._fds:
            _, begin, _, index_bytes = self._segments[-1]
        most = index_most = self._segment_bytes
        if self._on_full != DROP_OLD:
            begin, most, index_most = 0, self._max_bytes, 2 * self._max_bytes
        # A program that writes a byte at a time must not grow the index for ever.
        if self.full or index_bytes >= max(index_most, LINE_MAX_BYTES):
            return 0
        return begin + most - self._end

    def _append(self, stream: int, part: bytes, wall_ms: int) -> None:
        """Write a chunk. If that fails the program does not notice: what is lost is
        counted and said."""
        if not part:
            return
        size_bytes = len(part) + (_RECORD.size if self._fds else LOG_FILES_LEAST_BYTES)
        lost = self.disk.take(size_bytes) if self.disk else ""
        if not lost:
            try:
                self._write_part(stream, part, wall_ms)
            except OSError as error:
                lost = error.strerror or str(error)
                if self.disk and error.errno in _DISK_FULL:
                    self.disk.note_full()
            finally:
                if self.disk:
                    self.disk.note_written(size_bytes)
        if lost:
            self.error = f"output could not be written: {lost}"
            self._abandon_segment()
        self._count(stream, part, kept=not lost)

    def _write_part(self, stream: int, part: bytes, wall_ms: int) -> None:
        if not self._fds:
            if self._on_full == DROP_OLD:
                self._drop_oldest()
            self._open_segment(wall_ms)
        assert self._fds
        end, lines = self._end + len(part), self._lines + _count_lines(part)
        flags = _GOES_ON if self._broken[stream] else 0
        # The log first: an index that is short can be rebuilt from it (I8).
        _write_all(self._fds[0], part)
        self._add_record(_Mark(end, lines, wall_ms, stream, flags))
        self._segments[-1][2] += len(part)

    def _add_record(self, mark: _Mark) -> None:
        assert self._fds
        _write_all(self._fds[1], _RECORD.pack(*mark))
        self._segments[-1][3] += _RECORD.size

    def _abandon_segment(self) -> None:
        """Cut off what was written in part; the next output begins a new segment."""
        if not self._fds:
            return
        _, _, size, index_bytes = self._segments[-1]
        with contextlib.suppress(OSError):
            os.ftruncate(self._fds[0], size)
            os.ftruncate(self._fds[1], index_bytes if size else 0)
        if not size:
            del self._segments[-1]
        self._close_files()

    def _count(self, stream: int, part: bytes, *, kept: bool) -> None:
        self._broken[stream] = not part.endswith(b"\n")
        self._end += len(part)
        self._lines += _count_lines(part)
        self._ends_in_gap = not kept
        self.dropped_bytes += 0 if kept else len(part)

    def _open_segment(self, wall_ms: int) -> None:
        """Begin a segment at the position reached; its first record says where."""
        self._close_files()
        number = self._segments[-1][0] + 1 if self._segments else 0
        folder = os.path.dirname(_segment_base(self.base, number))
        os.makedirs(folder, mode=0o700, exist_ok=True)
        self._open_files(number)
        self._segments.append([number, self._end, 0, 0])
        self._add_record(_Mark(self._end, self._lines, wall_ms, SYSTEM, 0))

    def _open_files(self, number: int) -> None:
        base = _segment_base(self.base, number)
        log_fd = _create(base + ".log")
        try:
            self._fds = log_fd, _create(base + ".idx")
        except OSError:
            os.close(log_fd)
            raise

    def _drop_oldest(self) -> None:
        """Make room for one more segment: keep the head of the first one and the newest
        ones."""
        while self._segments and not self._has_room():
            number, _, size, _ = self._segments[0]
            base = _segment_base(self.base, number)
            # If an operator has removed the files, the room is there.
            with contextlib.suppress(FileNotFoundError):
                if number == 0:
                    self._head_kept = _keep_head(base, self._head_bytes)
                    size -= self._head_kept
                else:
                    os.unlink(base + ".idx")
                    os.unlink(base + ".log")
            self.dropped_bytes += size
            del self._segments[0]

    def _has_room(self) -> bool:
        # One of short lines, with an index larger than that, is as good as a whole one.
        whole = self._segment_bytes
        kept = self._head_kept + sum(min(max(s[2:]), whole) for s in self._segments)
        few = len(self._segments) < LOG_SEGMENTS_MAX
        return few and kept + whole <= self._max_bytes

    def _close_files(self) -> None:
        if self._fds:
            os.close(self._fds[0])
            os.close(self._fds[1])
            self._fds = None


# -- reading: all that reads a log is a fold over its pieces


def _later_segments(base: str) -> list[int]:
    try:
        names = os.listdir(base + ".more")
    except (FileNotFoundError, NotADirectoryError):
        return []
    found = {name[:-4] for name in names if name.endswith((".idx", ".log"))}
    return sorted(int(number) for number in found if number.isdecimal())


class LogReader:
    """The log of one run as it is now, with all its segments open; a context manager.
    Reads what is on the disk and nothing else, so a live log and an old one are the
    same to it. Lines and offsets count dropped output too. Raises LogError."""

    def __init__(self, base: str) -> None:
        self._opened: list[_Segment] = []
        try:
            with _as_log_error(base):
                for number in [0, *_later_segments(base)]:
                    segment = _open_for_reading(_segment_base(base, number))
                    self._opened += [segment] if segment else []
        except LogError:
            self.__exit__()
            raise
        segments = self._segments = [s for s in self._opened if s.records]
        self.first_available = segments[0].first.lines if segments else 0
        last = segments[-1].last if segments else _START
        self.total_lines, self.written_bytes = last.lines, last.end
        self.kept_bytes = sum(s.last.end - s.first.end for s in segments)
        self.truncated = any(b.lines < s.first.lines for b, s in self._joints())

    def __enter__(self) -> LogReader:
        return self

    def __exit__(self, *_: object) -> None:
        for segment in self._opened:
            segment.close()

    def _joints(self) -> Iterator[tuple[_Mark, _Segment]]:
        """Each segment, and the end of the one before it."""
        return zip([_START, *(s.last for s in self._segments)], self._segments)

    def pieces(self, start: int, unit: int) -> Iterator[_Piece]:
        """All from a place on, gaps included; `unit` is what the place counts."""
        for before, segment in self._joints():
            if segment.first[unit] > max(before[unit], start):
                yield _Piece([before, segment.first], None)
            if segment.last[unit] > start:
                yield from segment.pieces(start, unit)

    def _lines(self, start: int) -> Iterator[LogLine]:
        for piece in self.pieces(start, _LINES):
            yield from piece.lines(start)

    def lines(
        self, start: int, limit: int, most_chars: int = LOG_PAGE_MAX_CHARS
    ) -> list[LogLine]:
        """Up to `limit` lines from number `start` on, fewer where they are so long that
        they would take much memory; a gap is a line of its own."""
        found: list[LogLine] = []
        for line in itertools.islice(self._lines(start), limit):
            found.append(line)
            most_chars -= len(line.text)
            if most_chars <= 0:
                break
        return found

    def next_lines(self, n: int) -> tuple[list[LogLine], int]:
        """Some lines from number `n` on, and the number to go on with."""
        lines = self.lines(n, STREAM_LINES_AT_ONCE, STREAM_CHARS_AT_ONCE)
        return lines, lines[-1].n + 1 if lines else n

    def last_lines(self, count: int) -> list[LogLine]:
        """The newest lines, ascending; fewer where they are very long."""
        start = max(self.first_available, self.total_lines - count)
        found: collections.deque[LogLine] = collections.deque()
        chars = 0
        for line in itertools.islice(self._lines(start), count):
            found.append(line)
            chars += len(line.text)
            while chars > OUTPUT_MAX_CHARS:
                chars -= len(found.popleft().text)
        return list(found)

    def last_words(self, stream: int) -> str:
        """The last line of a stream that is not blank, near the end; empty for none."""
        lines = reversed(self.last_lines(LAST_WORDS_LINES))
        said = (line.text.strip() for line in lines if line.stream == stream)
        return next(filter(None, said), "")

    def next_parts(self, offset: int) -> tuple[list[LogPart], int]:
        """Some bytes from an offset on, by stream, and the offset to go on with; a part
        of the stream `system` says what was dropped."""
        piece = next(self.pieces(offset, _BYTES), None)
        parts = list(piece.parts(offset)) if piece else []
        return parts, parts[-1].end if parts else offset

    def _blocks(self, offset: int) -> Iterator[tuple[bytes, int]]:
        # Only where a segment begins and ends is in question: the index, which may be
        # as long as the log, is not read for that.
        for segment in self._segments:
            last = segment.last.end
            for at in range(max(offset, segment.first.end), last, LOG_BLOCK_BYTES):
                size = min(LOG_BLOCK_BYTES, last - at)
                block = segment.read(at, at + size)
                yield block, at + len(block)
                if len(block) < size:
                    # What follows would stand in the wrong place.
                    return

    def next_block(self, offset: int) -> tuple[bytes, int]:
        """Some bytes from an offset on, and the offset to go on with; what was dropped
        is passed over."""
        block, end = next(self._blocks(offset), (b"", offset))
        # The rest may be dropped before it is asked for: no line is torn.
        whole = block[: block.rfind(b"\n") + 1] or block
        return whole, end - len(block) + len(whole)

    def raw(self, start: int, end: int) -> Iterator[bytes]:
        """The kept bytes between two positions, in blocks."""
        offset = start
        for before, segment in self._joints():
            if offset >= before.end:
                offset += segment.first.end - before.end
        for block, _ in self._blocks(offset):
            if start >= end:
                return
            yield block[: end - start]
            start += len(block)


class _Query:
    """A plain text to look for. Without `match_case`, a text of ASCII letters matches
    those in any case, any other text by full case folding."""

    def __init__(self, text: str, *, match_case: bool) -> None:
        self._lower = not match_case and text.isascii()
        self._fold = not match_case and not text.isascii()
        self._text = text.casefold() if self._fold else text
        raw = text.encode("utf-8", "replace")
        self._bytes = raw.lower() if self._lower else raw

    def may_be_in(self, block: bytes) -> bool:
        """Whether a look at the lines of a block is worth it."""
        return self._fold or self._bytes in (block.lower() if self._lower else block)

    def is_in(self, line: str) -> bool:
        """Whether a line holds the text."""
        if self._fold:
            return self._text in line.casefold()
        return self.may_be_in(line.encode("utf-8", "replace"))


class LogHit(NamedTuple):
    """A line found, and in which run."""

    run_id: str
    line: LogLine


class LogSearch(NamedTuple):
    """What a search found, and where (run id, line) it would go on."""

    hits: list[LogHit]
    scanned_runs: int
    next_run_id: str = ""
    next_line: int = 0


def find_in_logs(
    runs: Iterable[tuple[str, str]],
    query: tuple[str, bool],
    start: tuple[str, int],
    limit: int,
) -> LogSearch:
    """Look for a text in the logs of (run id, base path) pairs. `query` is (text, match
    case), `start` the first line to look at in one of the runs. Returns at most `limit`
    hits, fewer very long ones, and reads about SEARCH_BUDGET_BYTES, then says where to
    go on. Passes over logs that cannot be read."""
    wanted = _Query(query[0], match_case=query[1])
    hits: list[LogHit] = []
    budget, room = SEARCH_BUDGET_BYTES, LOG_PAGE_MAX_CHARS
    scanned = 0
    for run_id, base in runs:
        if budget <= 0 or scanned >= SEARCH_BUDGET_RUNS:
            return LogSearch(hits, scanned, run_id, 0)
        first = start[1] if run_id == start[0] else 0
        try:
            reader = LogReader(base)
        except LogError as error:
            if error.errno in NO_FILE_LEFT:
                raise
            continue
        scanned += 1
        with reader as log:
            for piece in log.pieces(first, _LINES):
                if piece.block is None:
                    continue
                if budget <= 0:
                    n = max(first, piece.marks[0].lines)
                    return LogSearch(hits, scanned, run_id, n)
                budget -= len(piece.block)
                if not wanted.may_be_in(piece.block):
                    continue
                for line in piece.lines(first):
                    if not wanted.is_in(line.text):
                        continue
                    if len(hits) >= limit or room <= 0:
                        return LogSearch(hits, scanned, run_id, line.n)
                    hits.append(LogHit(run_id, line))
                    room -= len(line.text)
    return LogSearch(hits, scanned)


# -- files


def remove_log(base: str) -> None:
    """Delete all files of a log, or what stands in their place. Raises OSError."""
    for path in (base + ".idx", base + ".log", base + ".more"):
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError:
            if not os.path.isdir(path):
                raise
            shutil.rmtree(path)


def _is_sound(mark: _Mark, first: _Mark, size: int) -> bool:
    """Whether a record can be one of a segment of this size; zeros cannot."""
    return mark.at_ms > 0 and first.end <= mark.end <= first.end + size


def _repair_segment(log: IO[bytes], index: IO[bytes], begin: _Mark) -> _Mark:
    """Repair one segment; `begin` is where it starts if its index does not know."""
    size = os.fstat(log.fileno()).st_size
    records = os.fstat(index.fileno()).st_size // _RECORD.size
    marks = _Segment(log.fileno(), index.fileno(), records, begin, begin)
    first = marks.mark(0) if records else begin
    # Records for bytes that never reached the disk (a power cut) are void.
    while records and not _is_sound(marks.mark(records - 1), first, size):
        records -= 1
    index.truncate(records * _RECORD.size)
    last = marks.mark(records - 1) if records else begin
    if not records:
        index.write(_RECORD.pack(*begin))
    log.seek(last.end - first.end)
    for part in iter(lambda: log.readline(LINE_MAX_BYTES), b""):
        last = begin._replace(end=last.end + len(part), lines=last.lines + 1)
        index.write(_RECORD.pack(*last._replace(stream=STDOUT)))
    return last


def is_indexed(base: str) -> bool:
    """Whether the index of a log that has ended tells of all its bytes. After a power
    cut it may not: an end is synced to the disk, output is not (I8)."""
    try:
        path = _segment_base(base, [0, *_later_segments(base)][-1])
        size = os.stat(path + ".log").st_size
        segment = _open_for_reading(path)
    except OSError:
        # There is none, or no repair can mend it: its reader is told.
        return True
    if not segment:
        return False
    segment.close()
    return segment.last.end - segment.first.end == size


def repair_log(base: str) -> int:
    """Make the index of a log fit its bytes after a crash: a torn record is cut off,
    bytes without one get it. Returns the time of the last write in Unix ms, or 0.
    Raises LogError."""
    last = _START
    flags = os.O_RDWR | os.O_CREAT | os.O_APPEND
    with _as_log_error(base):
        for number in [0, *_later_segments(base)]:
            path = _segment_base(base, number)
            if not os.path.lexists(path + ".log"):
                continue
            with open(_open(path + ".log", os.O_RDONLY), "rb") as log:
                index_fd = _open(path + ".idx", flags)
                with open(index_fd, "a+b") as index:
                    at_ms = int(os.fstat(log.fileno()).st_mtime * 1000)
                    last = last._replace(at_ms=at_ms, stream=SYSTEM, flags=0)
                    last = _repair_segment(log, index, last)
    return last.at_ms


# ---- 10. Processes: spawn, read, signal, reap -------------------------------
# Owns the children of the daemon and everything that is known about them from
# outside; the only place that uses subprocess, kill and wait. Relies on 6 for accounts.
# A child is signalled under the daemon's mutex, and there it is noted that this is over
# before it is reaped (I5). Nothing here ever waits for "any child".

_PIPE_SIZE = getattr(fcntl, "F_SETPIPE_SZ", 1031)
_HAS_PROC = os.path.exists("/proc/self/stat")
_VMSTAT = "/proc/vmstat"


class StartError(Exception):
    """A program that could not be started, and why, in one sentence."""


class Command(NamedTuple):
    """Everything that is needed to start a program."""

    argv: list[str]
    environ: dict[bytes, bytes]
    working_dir: str
    umask: int
    account: Account | None
    merges: bool = False  # stderr into the pipe of stdout
    stdin: bytes = b""


def encoded_environ(variables: Mapping[str, str]) -> dict[bytes, bytes]:
    """Environment variables as the kernel takes them."""
    return {os.fsencode(name): os.fsencode(text) for name, text in variables.items()}


class Usage(NamedTuple):
    """How a program ended (`returncode` as in subprocess) and what it used. Linux
    counts a program's largest memory from the moment of the fork, with what the daemon
    itself had: where it is not above that, max_rss_bytes is None."""

    returncode: int
    cpu_seconds: float
    max_rss_bytes: int | None


def _most_memory(used: resource.struct_rusage) -> int:
    return used.ru_maxrss * (1 if sys.platform == "darwin" else KIB)


def _open_pidfd(pid: int) -> int:
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError):
        return -1


def may_signal(pid: int) -> bool:
    """Whether the kernel lets the daemon signal a process: not one that sudo(8) or a
    setuid program gave to another user, unless the daemon is root, kill(2)."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return False
    except ProcessLookupError:
        return True
    return True


def has_exited(pid: int) -> bool:
    """Whether a child of ours has ended; leaves its status to be reaped."""
    return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


class _Stat(NamedTuple):
    """Fields of /proc/PID/stat, proc_pid_stat(5)."""

    state: str
    parent: int
    group: int
    start_time: str
    flags: int


def _stat(pid: int) -> _Stat | None:
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        # The command name, in parentheses, may hold anything.
        fields = os.read(fd, 4 * KIB).rpartition(b")")[2].split()
    except OSError:
        return None
    finally:
        os.close(fd)
    parent, group = int(fields[1]), int(fields[2])
    return _Stat(fields[0].decode(), parent, group, fields[19].decode(), int(fields[6]))


def _is_ending(pid: int) -> bool:
    """Whether a process is on its way to be a zombie (PF_EXITING)."""
    stat = _stat(pid)
    return bool(stat and stat.flags & 4 and stat.state not in "ZX")


def _processes() -> Iterator[tuple[int, _Stat]]:
    """All there are, newest first: one that forks anew and ends is met before."""
    names = os.listdir("/proc") if _HAS_PROC else []
    for pid in sorted((int(name) for name in names if name.isdigit()), reverse=True):
        stat = _stat(pid)
        if stat:
            yield pid, stat


def _live_pids() -> Iterator[tuple[int, _Stat]]:
    return ((pid, stat) for pid, stat in _processes() if stat.state not in "ZX")


def _writes_to(pid: int, pipes: Collection[str]) -> bool:
    """Whether a process can write to one of these pipes, by the names of their links.
    Between fork and exec, a program has the daemon's ends, too, which only read."""
    with contextlib.suppress(OSError):
        for fd in os.listdir(f"/proc/{pid}/fd") if pipes else ():
            # Others may be closed meanwhile.
            with contextlib.suppress(FileNotFoundError):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in pipes:
                    with open(f"/proc/{pid}/fdinfo/{fd}", "rb") as file:
                        # proc_pid_fdinfo(5): "pos: 0", then "flags: " in octal.
                        flags = int(file.read().split()[3], 8)
                    if flags & os.O_ACCMODE != os.O_RDONLY:
                        return True
    return False


# -- cgroups, version 2: cgroups(7)


def _kernel_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except OSError:
        return ""


def _own_cgroup() -> str:
    """The directory of the cgroup that this process is in; empty if there is none."""
    own = re.search("(?m)^0::(/.*)$", _kernel_text("/proc/self/cgroup"))
    mount = r"(?m)^(?:\S+ ){3}(\S+) (\S+) .* - cgroup2 "
    mounts = re.findall(mount, _kernel_text("/proc/self/mountinfo")) if own else []
    for root, place in mounts:
        inside = os.path.relpath(own[1], root) if own else ""
        if not inside.startswith(".."):
            return os.path.normpath(os.path.join(place, inside))
    return ""


def _cgroup_fault(path: str) -> str:
    """Why the daemon may not make cgroups below one, if so: it is that of the machine,
    or systemd manages it and did not give it away (its CGROUP_DELEGATION.md)."""
    if not path or not os.path.exists(f"{path}/cgroup.kill"):
        return "no cgroup v2 but that of the whole machine, or Linux before 5.14"
    if not all(os.access(name, os.W_OK) for name in (path, f"{path}/cgroup.procs")):
        return f"{path} may not be written"
    if not os.path.isdir("/run/systemd/system"):
        return ""
    for name in ("user.delegate", "trusted.delegate"):
        with contextlib.suppress(OSError):
            if os.getxattr(path, name) == b"1":
                return ""
    return f"systemd manages {path} and was not told Delegate=yes"


def write_cgroup(path: str, name: str, text: str) -> bool:
    """Write to a file of a cgroup, if there is one; returns whether that worked."""
    try:
        with open(os.open(f"{path}/{name}", os.O_WRONLY | os.O_CLOEXEC), "w") as file:
            file.write(text)
    except OSError:
        return False
    return True


def oom_kills(path: str) -> int:
    """How often the kernel killed for want of memory: memory.events, /proc/vmstat."""
    found = re.search(r"(?m)^oom_kill (\d+)$", _kernel_text(path))
    return int(found[1]) if found else 0


def cgroup_members(path: str) -> list[int]:
    """Live processes in a cgroup and in those below it."""
    names = (f"{folder}/cgroup.procs" for folder, _, _ in os.walk(path))
    return [int(word) for name in names for word in _kernel_text(name).split()]


def _remove_cgroup(path: str) -> bool:
    """Remove a cgroup and those below it; returns False if any has live processes."""
    gone = True
    for folder, _, _ in os.walk(path, topdown=False):
        try:
            os.rmdir(folder)
        except OSError:
            gone = False
    return gone


class Child:
    """A started program with the daemon's ends of its pipes. One thread reads; the
    rest is for whoever holds the daemon's mutex."""

    def __init__(
        self, pid: int, run_id: str, pipes: dict[int, int], halt_fd: int
    ) -> None:
        self.pid = pid
        self.run_id = run_id
        self.exited = False
        self.reaped = False
        self.group_gone = False
        # The directory of its own cgroup while there is one, and what that counted.
        self.cgroup = ""
        self.peak_bytes = 0
        # What the machine had counted when it was started.
        self.oom_kills_before = 0
        self._pipes = pipes
        self._reads = 0
        self._exit_fd: int | None = None
        self._poll = select.poll()
        for fd in (*pipes, halt_fd):
            self._poll.register(fd, select.POLLIN)

    def record(self) -> dict[str, Any]:
        """What another process needs to go on with this program, as JSON. The pipes
        stay open over an exec from now on."""
        for fd in self._pipes:
            os.set_inheritable(fd, True)
        pipes = list(self._pipes.items())
        own = {"pid": self.pid, "reaped": self.reaped}
        return {**own, "pipes": pipes, "oom_kills_before": self.oom_kills_before}

    @property
    def open_streams(self) -> list[int]:
        """Streams whose pipe somebody still holds open."""
        return sorted(self._pipes.values())

    def read(self, timeout_s: float | None) -> list[tuple[int, bytes]]:
        """Chunks (stream, bytes) that arrived, an empty one at the end of a stream.
        Blocks until there are some or until the program has ended (`exited`), for
        `timeout_s`, or until everybody is halted."""
        if not self._pipes and not self.exited:
            self._watch_exit()
        if not self.exited and (self._exit_fd is None or self._exit_fd < 0):
            look_s = EXIT_LOOK_S if self._pipes else SURVIVOR_CHECK_S
            timeout_s = look_s if timeout_s is None else min(timeout_s, look_s)
        timeout_ms = None if timeout_s is None else math.ceil(timeout_s * 1000)
        found = self._poll.poll(timeout_ms)
        chunks = [
            (self._pipes[fd], self._read(fd, events))
            for fd, events in found
            if fd in self._pipes
        ]
        if not self.exited:
            self._look_for_exit([fd for fd, _ in found])
        return chunks

    def _look_for_exit(self, ready: list[int]) -> None:
        """Notice the end of a program. Most end together with their pipes, so the pidfd
        is made only for those whose pipes somebody else holds open, or that last."""
        self._reads += 1
        if self._pipes and (not ready or self._reads > EXIT_LOOK_READS):
            self._watch_exit()
        if self._exit_fd is None and self._pipes:
            return
        if self._exit_fd is None or self._exit_fd < 0:
            # Also without pidfd_open(2), where there is only asking.
            self.exited = has_exited(self.pid)
        elif self._exit_fd in ready:
            self.exited = True
            self._poll.unregister(self._exit_fd)

    def _watch_exit(self) -> None:
        if self._exit_fd is None:
            self._exit_fd = _open_pidfd(self.pid)
            if self._exit_fd >= 0:
                self._poll.register(self._exit_fd, select.POLLIN)

    def _read(self, fd: int, events: int) -> bytes:
        # Nothing to read and nobody who writes: the end, poll(2).
        ended = events == select.POLLHUP
        chunk = b"" if ended else os.read(fd, PIPE_READ_BYTES)
        if not chunk:
            self._poll.unregister(fd)
            del self._pipes[fd]
            os.close(fd)
        elif len(chunk) == PIPE_DEFAULT_BYTES:
            # A flood: fewer, larger reads. Refused when the user's pipes use too much.
            with contextlib.suppress(OSError):
                fcntl.fcntl(fd, _PIPE_SIZE, PIPE_READ_BYTES)
        return chunk

    def reap(self) -> Usage:
        """Take the exit status of a program that has exited, once nobody signals it any
        more. Blocks if it has not."""
        self.reaped = True
        _, status, used = os.wait4(self.pid, 0)
        returncode = os.waitstatus_to_exitcode(status)
        cpu_seconds = round(used.ru_utime + used.ru_stime, 6)
        return Usage(returncode, cpu_seconds, _most_memory(used))

    def signal_group(self, number: int) -> bool:
        """Signal the program and its process group; returns whether the program is one
        that may be signalled. Under the mutex."""
        if self.reaped:
            return True
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)
        if number == signal.SIGKILL:
            write_cgroup(self.cgroup, "cgroup.kill", "1")
        # killpg(2) fails only if it reached nobody: perhaps it reached a child alone. A
        # cgroup is killed whosever programs are in it.
        return bool(self.cgroup) or may_signal(self.pid)

    def ask_to_end(self, stop_signal: int) -> bool:
        """Signal the group, and wake it to hear that; returns whether the program may
        be signalled. Under the mutex."""
        self.signal_group(stop_signal)
        return self.signal_group(signal.SIGCONT)

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel has killed for want of memory since the program was
        started: in its cgroup if that counts it, else anywhere on the machine."""
        events = f"{self.cgroup}/memory.events"
        if self.cgroup and os.path.exists(events):
            return oom_kills(events) > 0
        return oom_kills(_VMSTAT) > self.oom_kills_before

    def open_pipes(self) -> set[str]:
        """The pipes that somebody still holds open, as /proc names them."""
        return {f"pipe:[{os.fstat(fd).st_ino}]" for fd in self._pipes}

    def pipe_holders(self) -> list[int]:
        """Processes that hold the other end of an open pipe, where there is a /proc."""
        pipes = self.open_pipes()
        return [pid for pid, _ in _live_pids() if _writes_to(pid, pipes)]

    def close(self) -> None:
        """Let go of the pipes."""
        for fd in self._pipes:
            os.close(fd)
        self._pipes.clear()
        # The number may be a stranger's afterwards.
        exit_fd, self._exit_fd = self._exit_fd, None
        if exit_fd is not None and exit_fd >= 0:
            os.close(exit_fd)


# -- what the kernel tells about processes, where there is a /proc


_BOOT_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def _boot_time_s() -> float:
    """Seconds since boot, on the clock that stamps the start of processes."""
    return time.clock_gettime(_BOOT_CLOCK)


def _boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except OSError:
        return "unknown"


def _open_file_of(raw: bytes) -> int:
    """Open a nameless file that holds some bytes: other than a pipe, nobody has to feed
    it. Raises OSError."""
    fd = os.memfd_create("stdin") if hasattr(os, "memfd_create") else -1
    if fd < 0:
        import tempfile  # only other systems than Linux need it

        fd, path = tempfile.mkstemp()
        os.unlink(path)
    with open(fd, "wb", buffering=0, closefd=False) as file:
        while raw:
            raw = raw[file.write(raw) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _start(command: Command, stdin_fd: int, pipe_fds: list[int]) -> int:
    account = command.account
    identity: dict[str, Any] = {}
    if account and os.geteuid() == 0:
        groups = list(account.groups)
        identity = {"user": account.uid, "group": account.gid, "extra_groups": groups}
    popen = subprocess.Popen(
        command.argv,
        stdin=stdin_fd,
        stdout=pipe_fds[0],
        stderr=pipe_fds[-1],
        cwd=command.working_dir,
        env=command.environ,
        umask=command.umask,
        start_new_session=True,
        **identity,
    )
    # The exit status is ours to reap: Popen must never wait for it (I5).
    popen.returncode = 0
    return popen.pid


def signal_process(pid: int, number: int) -> bool:
    """Signal one process that may have gone meanwhile; returns whether the daemon
    may."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, number)
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            os.kill(pid, signal.SIGCONT)
    return may_signal(pid)


def _freeze(find: Callable[[], Iterable[int]]) -> set[int]:
    """Stop each process as soon as it is found, and look again until nothing is new:
    what forks anew all the time cannot get away from the SIGKILL that is to follow."""
    frozen: set[int] = set()
    for _ in range(SURVIVOR_LOOKS):
        before = len(frozen)
        for pid in find():
            if pid not in frozen:
                signal_process(pid, signal.SIGSTOP)
                frozen.add(pid)
        if len(frozen) == before:
            break
    return frozen


# e_machine of elf(5), as uname(2) names them.
_ELF_MACHINES = {
    3: "i686", 20: "ppc", 21: "ppc64", 22: "s390x", 40: "arm", 62: "x86_64",
    183: "aarch64", 243: "riscv64",
}  # fmt: skip


class _Unstarted(NamedTuple):
    """A program that could not be started, as it lies on the disk; mode 0 if it does
    not."""

    name: str
    path: str
    mode: int
    head: bytes
    folders: str  # where its name was looked for
    user: str
    own: str = os.uname().machine

    @property
    def interpreter(self) -> str:
        """What the first line of a script says is to run it."""
        words = self.head[2:].decode("utf-8", "replace").split()
        return words[0] if self.head.startswith(b"#!") and words else ""

    @property
    def machine(self) -> str:
        """What a binary was made for; empty for other files."""
        if not self.head.startswith(b"\x7fELF") or len(self.head) < 20:
            return ""
        number = int.from_bytes(self.head[18:20], sys.byteorder)
        return _ELF_MACHINES.get(number, f"number {number}")


def _look_at(command: Command) -> _Unstarted:
    name, account = command.argv[0], command.account
    user = f"user {account.name}" if account else "the daemon's user"
    folders = "" if "/" in name else os.fsdecode(command.environ.get(b"PATH", b""))
    for folder in folders.split(":"):
        path = os.path.join(command.working_dir, folder, name)
        with contextlib.suppress(OSError):
            mode, head = os.stat(path).st_mode, b""
            if stat.S_ISREG(mode):
                with open(path, "rb") as file:
                    head = file.read(256)
            return _Unstarted(name, path, mode, head, folders, user)
    return _Unstarted(name, path, 0, b"", shortened(folders), user)


_NOEXEC = getattr(os, "ST_NOEXEC", 0)
# What is to be done when execve(2) fails with an error: the first line that fits.
_START_WORDS: tuple[tuple[int, Callable[[_Unstarted], Any], str], ...] = (
    (errno.E2BIG, bool, "pass long text in a file; one argument has 128 KiB at most"),
    (errno.ENOENT, lambda x: re.match(rb"#!.*\r(\n|$)", x.head),
     "its lines end with CR LF; save it with LF"),
    (errno.ENOENT, lambda x: x.interpreter,
     "its interpreter {interpreter} is not there; install it or correct line 1"),
    (errno.ENOENT, lambda x: x.machine,
     "its loader is not there; take what was made for this system and C library"),
    (errno.ENOENT, lambda x: os.path.islink(x.path), "it is a link to nothing"),
    (errno.ENOENT, lambda x: x.name[0] in "~$",
     "without a shell ~ and $ stand for themselves; write the whole path"),
    (errno.ENOENT, lambda x: " " in x.name,
     "that is one name; write a list of the program and its arguments"),
    (errno.ENOENT, lambda x: x.folders,
     "install it or write its path; it is in no folder of its PATH {folders}"),
    (errno.ENOENT, bool, "correct the path; it begins at working_dir"),
    (errno.ENOEXEC, lambda x: x.head.startswith(b"\xef\xbb\xbf#!"),
     "a byte order mark stands in front of its #!; save it without one"),
    (errno.ENOEXEC, lambda x: x.machine not in ("", x.own),
     "it was made for another machine ({machine}); this one is {own}"),
    (errno.ENOEXEC, lambda x: x.head[:4] in (b"", b"\x7fELF"),
     "it is damaged or empty; install it again"),
    (errno.ENOEXEC, bool, "write #!/bin/sh, or what else is to run it, into line 1"),
    (errno.EACCES, lambda x: stat.S_ISDIR(x.mode),
     "it is a directory; name a program in it"),
    (errno.EACCES, lambda x: x.mode and not x.mode & 0o111,
     "it is not executable; use chmod +x"),
    (errno.EACCES, lambda x: x.mode and os.statvfs(x.path).f_flag & _NOEXEC,
     "its file system is mounted noexec; put it elsewhere"),
    (errno.EACCES, bool,
     "{user} may not execute it or its interpreter, or not enter a folder above"),
    (errno.ENOTDIR, bool, "what is above it is a file; correct the path"),
    (errno.ELOOP, bool, "its links lead in a circle; correct them"),
    (errno.ENAMETOOLONG, bool, "write a shorter name"),
    (errno.ETXTBSY, bool, "it is still being written; replace programs with mv"),
    (errno.EAGAIN, bool, "there are too many processes; see ulimit -u and TasksMax"),
    (errno.EMFILE, bool, "raise ulimit -n or LimitNOFILE"),
)  # fmt: skip
_FOLDER_WORDS = {
    errno.ENOENT: "make it or correct working_dir",
    errno.ENOTDIR: "it or what is above it is a file; name a folder",
    errno.ELOOP: "its links lead in a circle; correct them",
    errno.ENAMETOOLONG: "write a shorter name",
    errno.EACCES: "{user} may not enter it or a folder above",
}


def _start_error_text(command: Command, error: Exception) -> str:
    """Why a program was not started, and what is to be done."""
    name, program = getattr(error, "filename", None), command.argv[0]
    number = getattr(error, "errno", None)
    found, words = _look_at(command), ""
    with contextlib.suppress(OSError):
        fitting = (w for n, fits, w in _START_WORDS if n == number and fits(found))
        words = next(fitting, "")
    what = f'cannot start "{program}"'
    if name == command.working_dir and name != program:
        what = f'cannot use the working directory "{name}"'
        words = _FOLDER_WORDS.get(number or 0, "")
    if name != program and command.account and number in (errno.EPERM, errno.EINVAL):
        what = f"cannot become {found.user}"
    reason = getattr(error, "strerror", None) or str(error)
    facts = {**found._asdict(), "interpreter": found.interpreter}
    advice = words.format(**facts, machine=found.machine)
    return ": ".join(filter(None, (what, reason, advice)))


def _run_id_of(pid: int) -> str:
    """The run that a process belongs to by its environment; "" for none."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            environ = b"\0" + file.read()
    except OSError:
        return ""
    _, found, rest = environ.partition(b"\0" + RUN_ID_VARIABLE.encode() + b"=")
    return rest.partition(b"\0")[0].decode("ascii", "replace") if found else ""


def group_members(group: int) -> list[int]:
    """Processes of a group that are alive; zombies are not."""
    return [pid for pid, stat in _live_pids() if stat.group == group]


def _child_above(pid: int) -> int:
    """The child of this process that a process is or comes from; 0 for none."""
    own = os.getpid()
    stat = _stat(pid)
    while stat and stat.parent not in (0, own):
        pid = stat.parent
        stat = _stat(pid)
    return pid if stat and stat.parent == own else 0


def process_text(pid: int) -> str:
    """A process for people: its pid and the name of its program; or a group, of which
    nothing else is known, by its negative number."""
    if pid < 0:
        return f"process group {-pid}"
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return f"{pid} ({file.read().strip()})"
    except OSError:
        return str(pid)


def unsignalled_text(pids: Iterable[int]) -> str:
    """What is wrong with processes that the daemon may not signal; empty for none."""
    names = ", ".join(map(process_text, pids))
    return f"cannot be signalled: {names}" if names else ""


def become_subreaper() -> bool:
    """Let orphans of the programs come to this process rather than to process 1
    (prctl(2), PR_SET_CHILD_SUBREAPER; Linux). False where that cannot be."""
    import ctypes

    try:
        return bool(ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) == 0)
    except (OSError, AttributeError):
        return False


def blank_variable(name: str) -> None:
    """Overwrite an environment variable in the memory of which /proc/PID/environ tells
    every program of this user and of root. os.environ keeps it."""
    import ctypes

    library = ctypes.CDLL(None)
    library.getenv.restype = ctypes.c_void_p
    at = library.getenv(name.encode())
    if at:
        ctypes.memset(at, 0, len(ctypes.string_at(at)))


def _is_group_of(pid: int, window: tuple[float, float], run_id: str) -> bool:
    """Whether a process group is still that of the run: its leader started when the
    run's program did, or, the leader being gone, its members carry the run's mark."""
    stat = _stat(pid)
    if stat:
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        started_s = int(stat.start_time) * tick_s
        return window[0] - 2 * tick_s <= started_s <= window[1] + 2 * tick_s
    return any(_run_id_of(member) == run_id for member in group_members(pid))


def marked_processes() -> list[tuple[str, int]]:
    """(run id, pid) of every live process that carries a run's mark."""
    own = os.getpid()
    pairs = ((_run_id_of(pid), pid) for pid, _ in _live_pids() if pid != own)
    return [pair for pair in pairs if pair[0]]


def has_open(pid: int, path: str) -> bool:
    """Whether a process has a file open; True also where that cannot be known."""
    if not _HAS_PROC:
        return True
    wanted = os.stat(path)
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(f"/proc/{pid}/fd/{fd}"), wanted):
                    return True
    except FileNotFoundError:
        return False
    except PermissionError:
        # Another user's process: the kernel will say so again when it is signalled.
        return True
    return False


def exists(pid: int) -> bool:
    """Whether there is a process, or a group by its negative number; zombies count."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _is_oom_protected() -> bool:
    try:
        with open("/proc/self/oom_score_adj", encoding="ascii") as file:
            return int(file.read()) < 0
    except OSError:
        return False


class UpgradeError(Exception):
    """An upgrade in place that cannot be done, and why."""


class Rehearsal:
    """A program that says in JSON, a line each, whether it can take over from this
    one. Anything else that it writes is told when it fails."""

    def __init__(self, popen: subprocess.Popen[bytes]) -> None:
        assert popen.stdout
        self._popen = popen
        self._fd = popen.stdout.fileno()
        self._heard = self._last = b""

    def hear(self, timeout_s: float) -> dict[str, Any]:
        """The next object that it says. Raises UpgradeError when there is none."""
        give_up_s = time.monotonic() + timeout_s
        poll = select.poll()
        poll.register(self._fd, select.POLLIN)
        while True:
            while b"\n" in self._heard:
                self._last, _, self._heard = self._heard.partition(b"\n")
                if self._last.startswith(b"{"):
                    with contextlib.suppress(ValueError):
                        return cast(dict[str, Any], json.loads(self._last))
            left_s = give_up_s - time.monotonic()
            if left_s <= 0 or not poll.poll(math.ceil(left_s * 1000)):
                raise self._late(timeout_s)
            chunk = os.read(self._fd, PIPE_READ_BYTES)
            if not chunk:
                self._await_end(self._heard, timeout_s)
                raise self._fault()
            self._heard = self._heard[-PIPE_READ_BYTES:] + chunk

    def tell(self, content: bytes, timeout_s: float) -> None:
        """Hand it something; returns when its last word is an object. Raises
        UpgradeError."""
        self._last = b""
        try:
            rest = self._popen.communicate(content, timeout_s)[0]
        except subprocess.TimeoutExpired:
            raise self._late(timeout_s) from None
        self._await_end(rest, timeout_s)
        if self._popen.returncode or not self._last.startswith(b"{"):
            raise self._fault()

    def _await_end(self, rest: bytes, timeout_s: float) -> None:
        self._last = rest.rstrip().rpartition(b"\n")[2] or self._last
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise self._late(timeout_s) from None

    def _late(self, timeout_s: float) -> UpgradeError:
        limit = f"{timeout_s:.0f} s"
        return UpgradeError(f"the program on disk hangs: no answer within {limit}")

    def _fault(self) -> UpgradeError:
        said = self._last.decode("utf-8", "replace") or "it says nothing"
        code = self._popen.returncode
        return UpgradeError(
            f"the program on disk does not work (exit code {code}): {said}"
        )


class Cgroups:
    """A cgroup for each run, in a directory below the daemon's own that is named after
    the data directory, where a file remembers it for the next daemon."""

    def __init__(self, folder: str) -> None:
        facts = os.stat(folder)
        self._name = f"{PROGRAM}-{facts.st_dev:x}-{facts.st_ino:x}"
        self._record_path = os.path.join(folder, "cgroup")
        before = _kernel_text(self._record_path)
        # A copy of another data directory tells nothing.
        self._places = {before} if before.endswith(f"/{self._name}") else set()
        self.path = ""

    def use(self) -> str:
        """Make them from now on; returns why not, if so."""
        top = _own_cgroup().removesuffix(f"/{self._name}/daemon")
        path = f"{top}/{self._name}"
        leaf = f"{path}/daemon"
        fault = _cgroup_fault(top)
        if fault:
            return fault
        try:
            os.makedirs(leaf, exist_ok=True)
            with open(self._record_path, "w", encoding="utf-8") as file:
                file.write(path)
        except OSError as error:
            return str(error)
        # In a leaf, since only those may have both processes and controllers; alone, so
        # that who turns up there was forked by a program that was not moved yet.
        if not write_cgroup(leaf, "cgroup.procs", str(os.getpid())):
            return f"{leaf} cannot be entered"
        for folder in (top, path):
            # In vain without that controller, and if others are in the daemon's own.
            write_cgroup(folder, "cgroup.subtree_control", "+memory")
        self.path = path
        self._places.add(path)
        return ""

    def join(self, child: Child, from_s: float, known: Collection[int]) -> None:
        """Move a program that was started after a time into its own, and what it has
        started meanwhile; no other program may be started at the same time."""
        path, leaf = f"{self.path}/{child.run_id}", f"{self.path}/daemon/cgroup.procs"
        try:
            os.mkdir(path)
        except OSError:
            # It has its mark.
            return
        child.cgroup = path
        fresh = [child.pid]
        for _ in range(JOIN_LOOKS):
            for pid in fresh:
                write_cgroup(path, "cgroup.procs", str(pid))
            beside = [p for p in map(int, _kernel_text(leaf).split()) if p not in known]
            fresh = [pid for pid in beside if _is_new(pid, from_s)]
            # One that has ended since it was listed may have left another one.
            if not fresh and all(map(_stat, beside)):
                return

    def leave(self, child: Child) -> list[int]:
        """Remove that of an ended program and keep its figures; returns who lives in it
        if anybody does."""
        path = child.cgroup
        if not path:
            return []
        child.peak_bytes = int(_kernel_text(f"{path}/memory.peak") or 0)
        if _remove_cgroup(path):
            child.cgroup = ""
        return cgroup_members(path)

    def find(self, run_ids: Iterable[str]) -> dict[str, str]:
        """Those of runs, of this daemon or the one before it, by run id."""
        found = {r: f"{place}/{r}" for place in self._places for r in run_ids}
        return {run_id: path for run_id, path in found.items() if os.path.isdir(path)}

    def clear(self, live_ids: Callable[[], Collection[str]]) -> None:
        """Remove those of runs that have ended and in which nobody lives any more."""
        for place in self._places:
            _, names, _ = next(os.walk(place), ("", [], []))
            # Asked afterwards: a run is live before it has one.
            for name in set(names).difference(live_ids(), ["daemon"]):
                _remove_cgroup(f"{place}/{name}")
            if place != self.path:
                _remove_cgroup(place)

    def close(self) -> None:
        """Go back to where the daemon was started, and leave none but where somebody
        lives."""
        self.clear(tuple)
        for folder in (self.path, os.path.dirname(self.path)) if self.path else ():
            write_cgroup(folder, "cgroup.subtree_control", "-memory")
            write_cgroup(folder, "cgroup.procs", str(os.getpid()))
        if self.path:
            _remove_cgroup(self.path)


def _is_new(pid: int, from_s: float) -> bool:
    """Whether a process was started after a time, by a program of this daemon."""
    own, stat = os.getpid(), _stat(pid)
    tick_s = 1 / os.sysconf("SC_CLK_TCK")
    if not stat or pid == own or int(stat.start_time) * tick_s < from_s - 2 * tick_s:
        return False
    while stat and stat.parent not in (0, own):
        stat = _stat(stat.parent)
    # One whose parent ended meanwhile comes to the daemon.
    return not stat or stat.parent == own


class Permits:
    """So many may be in its block at a time. As threading.BoundedSemaphore, which is
    written in Python around a Condition and costs ten times as much."""

    def __init__(self, count: int) -> None:
        self._free: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(count):
            self._free.put(None)

    @property
    def free(self) -> int:
        """How many more may enter now."""
        return self._free.qsize()

    def __enter__(self) -> None:
        self._free.get()

    def __exit__(self, *_: object) -> None:
        self._free.put(None)


class Processes:
    """Starts programs and remembers, for the next daemon, which ones were started. The
    journal has a line each: run id, pid, started between and, boot id. Enough to
    recognise a leftover after a crash, and not to mistake a stranger for one."""

    def __init__(self, folder: str) -> None:
        self._spawning = Permits(SPAWNS_AT_ONCE)
        self._null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._journal_path = os.path.join(folder, "processes")
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
        self._journal_fd = os.open(self._journal_path, flags, 0o600)
        self._journal_lock = threading.Lock()
        # What the daemon itself had most, as far as it had to be known.
        self._own_rss_bytes = 0
        # Adding to a set and taking out of it are atomic.
        self._known: set[int] = set()
        # Whether the main thread is starting a program of the daemon's own.
        self._calling = False
        # Orphans of other users that were looked at. Replaced in one step.
        self._aliens: frozenset[tuple[int, str]] = frozenset()
        self.cgroups = Cgroups(folder)
        # What was counted a moment ago; whichever thread looks, no other is misled.
        self._oom_kills, self._oom_look_s = 0, 0.0
        # What was wrong when the leftovers of a dead daemon's run were ended.
        self.left: dict[str, str] = {}
        # A leaf: no dead orphan goes between being recognised and being reaped.
        self._orphans_lock = threading.Lock()
        self._boot_id = _boot_id()
        self._is_oom_protected = _is_oom_protected()
        # Readable while everybody who reads from a child is to return at once.
        self._halt_fds = os.pipe()
        self._own_fds = [self._journal_fd, self._null_fd, *self._halt_fds]
        # Open for good: it is read after every program.
        self._children_fd = -1
        with contextlib.suppress(OSError):
            path = f"/proc/self/task/{os.getpid()}/children"
            self._children_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            self._own_fds.append(self._children_fd)

    def close(self) -> None:
        """Let go of the journal."""
        self.cgroups.close()
        while self._own_fds:
            os.close(self._own_fds.pop())

    def use_cgroups(self) -> str:
        """Give each program from now on a cgroup of its own; returns why not, if so.
        Called before anything is started."""
        fault = self.cgroups.use()
        if not fault:
            # So that it is clear by whom somebody is who turns up beside the daemon.
            self._spawning = Permits(1)
        return fault

    def halt(self) -> None:
        """Make every read from a child return at once, until `unhalt`."""
        os.write(self._halt_fds[1], b"!")

    def unhalt(self) -> None:
        """Let reads from children wait again."""
        os.read(self._halt_fds[0], 1)

    def resume(self, run_id: str, record: Mapping[str, Any]) -> Child:
        """The child that a record is of, after an exec of this very process."""
        pipes = dict(record["pipes"])
        for fd in pipes:
            os.set_inheritable(fd, False)
        child = Child(record["pid"], run_id, pipes, self._halt_fds[0])
        child.exited = child.reaped = record["reaped"]
        child.oom_kills_before = record.get("oom_kills_before", oom_kills(_VMSTAT))
        child.cgroup = self.cgroups.find([run_id]).get(run_id, "")
        if not child.reaped:
            self._known.add(child.pid)
        return child

    @contextlib.contextmanager
    def rehearsal(
        self, argv: Sequence[str], environ: Mapping[str, str]
    ) -> Iterator[Rehearsal]:
        """A program beside the daemon, which is gone when the block ends. Raises
        UpgradeError."""
        self._calling = True
        try:
            with self._spawning:
                popen = subprocess.Popen(
                    argv,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    env=environ,
                )
                self._known.add(popen.pid)
        except OSError as error:
            text = f"the program on disk could not be checked: {error}"
            raise UpgradeError(text) from error
        finally:
            self._calling = False
        try:
            yield Rehearsal(popen)
        finally:
            popen.kill()
            popen.wait()
            for pipe in (popen.stdin, popen.stdout):
                assert pipe
                pipe.close()
            self._known.discard(popen.pid)

    def spawn(self, command: Command, run_id: str) -> Child:
        """Start a program as a session of its own. Raises StartError. Blocks while
        SPAWNS_AT_ONCE others are being started: more would only fight for the cores."""
        pipes: dict[int, int] = {}
        theirs: list[int] = []
        # Those that wait here have no open files yet, of which there may be few.
        with self._spawning:
            try:
                for stream in (STDOUT,) if command.merges else (STDOUT, STDERR):
                    end, other = os.pipe()
                    pipes[end] = stream
                    theirs.append(other)
                from_s = _boot_time_s()
                if from_s >= self._oom_look_s:
                    # To read it at every start would cost 2 % of a run.
                    self._oom_kills = oom_kills(_VMSTAT)
                    self._oom_look_s = from_s + OOM_LOOK_S
                oom_kills_before = self._oom_kills
                pid = self._start_known(command, theirs)
            except (OSError, ValueError, subprocess.SubprocessError) as error:
                for fd in pipes:
                    os.close(fd)
                raise StartError(_start_error_text(command, error)) from error
            finally:
                for fd in theirs:
                    os.close(fd)
            child = Child(pid, run_id, pipes, self._halt_fds[0])
            child.oom_kills_before = oom_kills_before
            if self.cgroups.path:
                self.cgroups.join(child, from_s, self._known)
        self._remember(run_id, pid, from_s)
        return child

    def reap(self, child: Child) -> Usage:
        """Take the exit status of a program that has exited, once nobody signals it any
        more."""
        usage = child.reap()
        self._known.discard(child.pid)
        rss_bytes = usage.max_rss_bytes or 0
        if rss_bytes > self._own_rss_bytes:
            # Asked for only then: it never shrinks, and the kernel is not exact.
            own_bytes = _most_memory(resource.getrusage(resource.RUSAGE_SELF))
            self._own_rss_bytes = own_bytes + RSS_SLACK_BYTES
        if rss_bytes <= self._own_rss_bytes:
            usage = usage._replace(max_rss_bytes=None)
        return usage

    def reap_orphans(self) -> None:
        """Reap the dead orphans that came to us as process 1 or as subreaper."""
        with self._orphans_lock:
            for pid in self._orphans():
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(pid, os.WNOHANG)

    def _adopted(self) -> list[int]:
        """Orphans that came to this process: the kernel gives them to its main thread,
        while programs are children of the threads that started them."""
        raw = b""
        with contextlib.suppress(OSError):  # there may be no /proc
            while part := os.pread(self._children_fd, 4 * KIB, len(raw)):
                raw += part
        return [int(word) for word in raw.split()]

    def _orphans(self) -> set[int]:
        """Children that are no programs of ours. What is being started is a child of
        the thread that starts it, main only in `rehearsal`: whoever is a child
        of main and not known came to it (I5)."""
        children = self._adopted()
        return set() if self._calling else set(children) - self._known

    def survivors(self, child: Child, *, thorough: bool) -> list[int]:
        """Live processes that an ended program left: in its group, out of it but with
        its run's mark, or writing to its pipes. Cheap when there are none; `thorough`
        looks through all processes even if nothing hints at one."""
        has_group = self._has_group(child)
        found = set(self.cgroups.leave(child))
        orphans = self._adopted()
        found.update(self._orphans_of(child.run_id) if orphans else ())
        if has_group or child.open_streams or thorough or found:
            found.update(self._left_by(child))
        if not found and has_group and self._is_hidden(child):
            found.add(-child.pid)
        found.update(self.strange_orphans(child, orphans))
        return sorted(found)

    def _is_hidden(self, child: Child) -> bool:
        """Whether there is a group of which no member can be seen: without /proc, or
        where that hides other users' processes."""
        seen = any(facts.group == child.pid for _, facts in _processes())
        return not seen and self._has_group(child)

    def freeze_survivors(self, child: Child) -> set[int]:
        """Stop what an ended program left, to be killed, and whatever that forks."""
        return _freeze(functools.partial(self._left_by, child))

    def _orphans_of(self, run_id: str) -> Iterator[int]:
        """Orphans with the mark of a run that have come to this process. One that has
        ended meanwhile may have left another one."""
        seen: set[int] = set()
        for _ in range(SURVIVOR_LOOKS):
            fresh = sorted(set(self._adopted()) - seen, reverse=True)
            if not fresh:
                break
            yield from (pid for pid in fresh if _run_id_of(pid) == run_id)
            # One that is ending has lost its mark; its children are not here yet.
            ending = {pid for pid in fresh if _is_ending(pid)}
            seen.update(set(fresh) - ending)
            if ending:
                time.sleep(ENDING_PAUSE_S)

    def strange_orphans(
        self, child: Child, orphans: Collection[int] | None = None
    ) -> list[int]:
        """Orphans that came to this process since the last look and that it may not
        signal. Their marks cannot be read: they are told of a program that ran alone.
        """
        found = {
            (pid, stat.start_time)
            for pid in (self._adopted() if orphans is None else orphans)
            if (stat := _stat(pid)) and stat.state not in "ZX" and not may_signal(pid)
        }
        fresh, self._aliens = found - self._aliens, frozenset(found)
        return [pid for pid, _ in fresh] if self._known <= {child.pid} else []

    def _left_by(self, child: Child) -> Iterator[int]:
        # Before the look: what is started meanwhile must not be in either.
        orphans = self._orphans()
        known = {*self._known, os.getpid()}
        pipes, has_group = child.open_pipes(), not child.group_gone
        yield from self._orphans_of(child.run_id)
        for pid, facts in _live_pids():
            if pid not in known and (
                (has_group and facts.group == child.pid)
                or _run_id_of(pid) == child.run_id
                or (_writes_to(pid, pipes) and _child_above(pid) in orphans)
            ):
                yield pid

    def _has_group(self, child: Child) -> bool:
        """Whether the group of an ended program has members, once the dead that came to
        us are reaped. They are no programs of ours: those lead their groups (I5)."""
        # Once nobody is left, the number may be that of another program.
        if child.group_gone or not exists(-child.pid) or exists(child.pid):
            child.group_gone = True
            return False
        with self._orphans_lock, contextlib.suppress(ChildProcessError):
            while os.waitpid(-child.pid, os.WNOHANG)[0]:
                pass
        return exists(-child.pid)

    def _start_known(self, command: Command, pipe_fds: list[int]) -> int:
        """Start a program; it is known before this thread can end (see _orphans)."""
        stdin_fd = _open_file_of(command.stdin) if command.stdin else self._null_fd
        try:
            pid = _start(command, stdin_fd, pipe_fds)
        finally:
            if command.stdin:
                os.close(stdin_fd)
        self._known.add(pid)
        if self._is_oom_protected:
            # It is the daemon that is to survive, not the program that takes it all.
            with (
                contextlib.suppress(OSError),
                open(f"/proc/{pid}/oom_score_adj", "w", encoding="ascii") as file,
            ):
                file.write("0")
        return pid

    def _remember(self, run_id: str, pid: int, from_s: float) -> None:
        line = f"{run_id} {pid} {from_s:.2f} {_boot_time_s():.2f} {self._boot_id}\n"
        # Without the line a leftover is still recognised by its mark.
        with self._journal_lock, contextlib.suppress(OSError):
            os.write(self._journal_fd, line.encode())

    def journal_bytes(self) -> int:
        """How long the journal is; see trim_journal."""
        return os.fstat(self._journal_fd).st_size

    def journal_is_gone(self) -> bool:
        """Whether somebody has removed the journal; trim_journal makes it again."""
        return bool(misplaced({self._journal_path: file_id(self._journal_fd)}))

    def newest_remembered(self) -> str:
        """Id of the newest run in the journal; empty if there is none."""
        raw = os.pread(self._journal_fd, self.journal_bytes(), 0)
        ids = (line[:26].decode("latin-1") for line in raw.splitlines())
        return max(filter(re.compile(RUN_ID_PATTERN).match, ids), default="")

    def trim_journal(self, live: Collection[str], end: int) -> None:
        """Forget the programs of all but the live runs in the journal up to an offset
        that was taken before `live` was."""
        with self._journal_lock:
            raw = os.pread(self._journal_fd, self.journal_bytes(), 0)
            lines = raw[:end].splitlines(keepends=True)
            kept = [line for line in lines if line[:26].decode("latin-1") in live]
            self._replace_journal(b"".join(kept) + raw[end:])

    def _replace_journal(self, content: bytes) -> None:
        """Put a new journal in the place of the old one, which stays as it is on a full
        disk: it may be what a crash is cleaned up with. Raises OSError."""
        fresh = self._journal_path + ".new"
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
        fd = os.open(fresh, flags, 0o600)
        try:
            if os.write(fd, content) < len(content):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), fresh)
            os.replace(fresh, self._journal_path)
            os.dup2(fd, self._journal_fd, inheritable=False)
        finally:
            os.close(fd)

    def _entries(self) -> Iterator[tuple[str, int, tuple[float, float]]]:
        """(run id, pid, when it was started) of the programs of this boot."""
        raw = os.pread(self._journal_fd, self.journal_bytes(), 0)
        for line in raw.decode("ascii", "replace").splitlines():
            fields = line.split()
            if len(fields) == 5 and fields[4] == self._boot_id:
                with contextlib.suppress(ValueError):
                    window = (float(fields[2]), float(fields[3]))
                    yield fields[0], int(fields[1]), window

    def end_leftovers(self, run_ids: Collection[str]) -> dict[str, int]:
        """Kill what is left of a dead daemon's runs; returns how many processes of
        each. Blocks until they are gone, at most DRAIN_S."""
        run_of_group = {
            pid: run_id
            for run_id, pid, window in self._entries()
            if run_id in run_ids and _is_group_of(pid, window, run_id)
        }
        cgroups = self.cgroups.find(run_ids)
        run_of: dict[int, str] = {}

        def find() -> Iterator[int]:
            for pid, facts in _live_pids():
                run_id = run_of_group.get(facts.group) or _run_id_of(pid)
                if run_id in run_ids and pid != os.getpid():
                    run_of[pid] = run_id
                    yield pid
            for run_id, path in cgroups.items():
                members = cgroup_members(path)
                run_of.update(dict.fromkeys(members, run_id))
                yield from members

        killed: set[int] = set()
        denied: set[int] = set()
        empty_left = SURVIVOR_EMPTY_LOOKS
        give_up_s = time.monotonic() + DRAIN_S
        while run_ids and time.monotonic() < give_up_s:
            found = _freeze(find)
            for path in cgroups.values():
                write_cgroup(path, "cgroup.kill", "1")
            empty_left -= denied.issuperset(found)
            if not empty_left:
                break
            for pid in found:
                may = signal_process(pid, signal.SIGKILL) or run_of[pid] in cgroups
                (killed if may else denied).add(pid)
            time.sleep(SURVIVOR_CHECK_S)
        for run_id in {run_of[pid] for pid in denied}:
            pids = sorted(pid for pid in denied if run_of[pid] == run_id)
            self.left[run_id] = unsignalled_text(pids)
        return collections.Counter(run_of[pid] for pid in killed)


# ---- 11. Daemon: the monitor of all live state, and its loops ---------------
# Owns every run that has not ended, the queues and the deadlines, behind one mutex;
# each who waits for a live run has a gate at it. Relies on 2, 3 and 5 to 10; does
# not know that HTTP exists. Public methods of Daemon lock; `_methods` assume the lock
# unless they say otherwise.

RETRY_LATER = {"Retry-After": str(RETRY_AFTER_S)}


def _read_result_file(path: str, uid: int) -> bytes:
    """What a user's program left at a path. Raises ValueError, which says why it cannot
    be a result."""
    # The program may have put anything there: a link, a pipe that nobody writes to.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        fd = os.open(path, flags)
    except OSError as error:
        if os.path.islink(path):
            raise ValueError("is not a regular file") from error
        raise ValueError(f"cannot be read: {error.strerror}") from error
    try:
        facts = os.fstat(fd)
        if not stat.S_ISREG(facts.st_mode):
            raise ValueError("is not a regular file")
        # By a hard link, a user could show what only the daemon may read.
        if facts.st_uid != uid != os.geteuid():
            raise ValueError("belongs to another user")
        if facts.st_size > RESULT_MAX_BYTES:
            raise ValueError(f"is larger than {size_text(RESULT_MAX_BYTES)}")
        return os.pread(fd, RESULT_MAX_BYTES, 0)
    finally:
        os.close(fd)


def _remove_result_file(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        # Nothing is there, or a folder. One that is full stays: it is no result.
        with contextlib.suppress(OSError):
            os.rmdir(path)


class LogMessage(NamedTuple):
    """A line of the daemon's own log, or of several with a traceback."""

    n: int
    ts: int
    level: str
    text: str


class Ring:
    """The newest entries of a sequence: named tuples whose first field is their number,
    one more for each. Guarded by the lock of `added`, which its callers hold."""

    def __init__(self, kept: int, first_n: int, lock: Any = None) -> None:
        self.added = threading.Condition(lock or threading.Lock())
        self._waiting = 0
        self.first_n, self.newest_n = first_n, first_n - 1
        self._entries: collections.deque[Any] = collections.deque(maxlen=kept)

    def add(self, kind: Callable[..., Any], *fields: Any) -> None:
        """Add an entry and wake those who wait for one."""
        self.newest_n += 1
        self._entries.append(kind(self.newest_n, *fields))
        if self._waiting:
            self.added.notify_all()

    def after(self, n: int, timeout_s: float = 0) -> list[Any]:
        """Those kept with a number above one; waits a time for one at most."""
        if self.newest_n <= n and timeout_s > 0:
            self._waiting += 1
            try:
                self.added.wait(timeout_s)
            finally:
                self._waiting -= 1
        newer = itertools.takewhile(lambda x: x[0] > n, reversed(self._entries))
        return list(newer)[::-1]

    def newest(self, count: int) -> list[Any]:
        """Some of the newest: what `resume` of the next program gets."""
        return self.after(self.newest_n - count)

    def resume(self, before: list[Any], first_n: int) -> None:
        """Put the entries of the program before this one before those of this one."""
        own = list(self._entries)
        self._entries.clear()
        self._entries.extend(before)
        self.first_n = first_n
        self.newest_n = before[-1][0] if before else first_n - 1
        for entry in own:
            self.add(type(entry), *entry[1:])


class DataFolder:
    """The directory that holds all state; one daemon at a time. The lock file says who
    and where it listens, and its time stamp is the daemon's sign of life. Each user
    that runs programs has a folder for their results, which no other user can enter."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)
        self.logs = os.path.join(self.path, "logs")
        self.database = os.path.join(self.path, HISTORY)
        self._results = os.path.join(self.path, "results")
        own_results = os.path.join(self._results, str(os.geteuid()))
        self._folders = (self.path, self.logs, self._results, own_results)
        for folder in self._folders:
            os.makedirs(folder, mode=0o700, exist_ok=True)
        # Users whose folder was there lately. Adding to a set is atomic.
        self._result_uids = {os.geteuid()}
        # SQLite gives its other files the mode of this one.
        os.close(os.open(self.database, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
        self._reserve = os.path.join(self.path, "reserve")
        self._lock_path = os.path.join(self.path, "lock")
        self._lock_fd = -1
        # For the rehearsal of an upgrade, which must not change anything.
        self.look_only = False
        # Called while the history is written anew, which may take minutes.
        self.tell_busy: Callable[[], None] = lambda: None
        self.last_sign_of_life_ms = 0
        # The newest run when the last daemon was stopped.
        self.newest_left = ""
        # Why what is open here is not in its place any more; empty if it is.
        self.gone = ""

    def lock(self) -> int:
        """Take the folder. Returns 0, or the pid of the daemon that has it. Blocks, for
        LOCK_WAIT_S at most, if that daemon is dead: what it was starting has the lock
        until its exec."""
        give_up_s = time.monotonic() + LOCK_WAIT_S
        while True:
            owner = self._try_lock()
            is_left = owner > 0 and not has_open(owner, self._lock_path)
            if not is_left or time.monotonic() >= give_up_s:
                return owner
            time.sleep(SURVIVOR_CHECK_S)

    def _try_lock(self) -> int:
        fd = os.open(self._lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = re.search(rb'"pid": *([0-9]+)', os.read(fd, 4 * KIB))
            os.close(fd)
            return int(owner[1]) if owner else -1
        except OSError as error:
            os.close(fd)
            text = f"the file system takes no lock (flock: {error.strerror})"
            raise OSError(error.errno, text) from None
        newest = re.search(rb'"newest": *"(\w+)"', os.read(fd, 4 * KIB))
        self.newest_left = newest[1].decode() if newest else ""
        self.keep_lock(fd)
        self.sign(url="")
        return 0

    def keep_lock(self, fd: int) -> None:
        """Have the lock by a descriptor that holds it: flock(2) outlives an exec."""
        os.set_inheritable(fd, False)
        self.last_sign_of_life_ms = int(os.fstat(fd).st_mtime * 1000)
        self._lock_fd = fd

    def hand_over_lock(self) -> int:
        """The descriptor that holds the lock, open over an exec from now on."""
        os.set_inheritable(self._lock_fd, True)
        return self._lock_fd

    def sign(self, **facts: Any) -> None:
        """Write down who has the folder: the pid, and facts such as the url."""
        record = (json.dumps({"pid": os.getpid(), **facts}) + "\n").encode()
        # Not emptied first: whoever reads it now would find nobody here, and on a full
        # disk somebody else might take its room. Only the first line counts.
        os.pwrite(self._lock_fd, record, 0)
        os.ftruncate(self._lock_fd, len(record))

    def show_sign_of_life(self, files: Mapping[str, tuple[int, int]] = {}) -> None:
        """Touch the lock file, so that the next daemon knows when this one died, and
        see in `gone` whether it and other open files are still in their place."""
        try:
            os.utime(self._lock_fd)
            wrong = misplaced({self._lock_path: file_id(self._lock_fd), **files})
        except OSError as error:
            # Mounted read-only, or no longer reachable at all.
            wrong = f"{self._lock_path}: {error.strerror}"
        before, self.gone = self.gone, wrong and f"the data directory is gone: {wrong}"
        if wrong and not before:
            LOG.error(
                "%s; nothing is started any more, and what ends is lost with the "
                "daemon: put back what was there, or restart the daemon with what is "
                "there then", self.gone
            )  # fmt: skip
        elif before and not wrong:
            LOG.info("the data directory is back")
        if not wrong:
            self._restore_folders()

    def _restore_folders(self) -> None:
        """Make folders again that somebody has removed, and nothing else."""
        self._result_uids = {os.geteuid()}
        for folder in self._folders:
            # A file in its place is found by whoever writes there.
            if not os.path.exists(folder):
                with contextlib.suppress(OSError):
                    os.mkdir(folder, mode=0o700)
                    LOG.warning("folder was removed, made again path=%s", folder)

    def result_path(self, run_id: str, uid: int) -> str:
        """Where the program of a run, which is a user's, may leave its result."""
        return os.path.join(self._results, str(uid), run_id)

    def admit_results(self, account: Account) -> None:
        """Let a user's programs leave results. Raises OSError."""
        if account.uid in self._result_uids:
            return
        folder = self.result_path("", account.uid)
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chown(folder, account.uid, account.gid)
        for passage in (self.path, self._results):
            # Others may go through, and not look around.
            mode = stat.S_IMODE(os.stat(passage).st_mode) | 0o011
            os.chmod(passage, mode)
        self._result_uids.add(account.uid)

    def take_result(self, run_id: str, uid: int) -> bytes:
        """What a program left for its result, empty if nothing; it is gone then.
        Raises ValueError, which says why it cannot be a result."""
        path = self.result_path(run_id, uid)
        if not os.path.lexists(path):
            return b""
        try:
            return _read_result_file(path, uid)
        finally:
            _remove_result_file(path)

    def remove_results(self, run_ids: Iterable[str]) -> None:
        """Remove what the programs of some runs left, whoever ran them."""
        with contextlib.suppress(FileNotFoundError):
            uids = os.listdir(self._results)
            for run_id in run_ids:
                for uid in uids:
                    _remove_result_file(os.path.join(self._results, uid, run_id))

    def keep_reserve(self, disk: DiskWatch) -> bool:
        """Fill up the reserve, out of which ends are recorded on a full disk, if there
        is room for what is missing. Returns whether it was whole. Raises OSError."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        fd = os.open(self._reserve, flags, 0o600)
        try:
            missing = RESERVE_BYTES - os.fstat(fd).st_size
            if missing > 0 and disk.try_take(missing):
                try:
                    # Not zeros: for them a file system that compresses keeps no room.
                    os.write(fd, os.urandom(missing))
                finally:
                    disk.note_written(missing)
            return missing <= 0
        finally:
            os.close(fd)

    def give_up_reserve(self) -> bool:
        """Give a part of the reserve back to the disk: not all, so that somebody else
        who is waiting for room does not get all. False if there is nothing left."""
        try:
            size_bytes = os.stat(self._reserve).st_size
            os.truncate(self._reserve, max(0, size_bytes - RESERVE_PART_BYTES))
        except OSError:
            return False
        return size_bytes > 0

    def unlock(self) -> None:
        """Give the folder back, and the reserve, which is for runs that end."""
        if not self.gone:
            with contextlib.suppress(OSError):
                os.unlink(self._reserve)
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _open_store(folder: DataFolder) -> Store:
    """The history. On a disk that somebody else has filled, what a dead daemon left of
    its reserve makes room for it. Raises StoreError."""
    while True:
        try:
            return Store(
                folder.database, look_only=folder.look_only, tell_busy=folder.tell_busy
            )
        except StoreError as error:
            is_full = "disk" in str(error) and not folder.look_only
            if not (is_full and folder.give_up_reserve()):
                raise


_MEMORY_FIELDS = {
    "/proc/self/status": {"VmRSS": "rss_bytes"},
    "/proc/meminfo": {
        "MemTotal": "mem_total_bytes",
        "MemAvailable": "mem_available_bytes",
    },
}


def _percent(part: float, whole: float) -> float:
    """From 0 to 100; 0 of what is not known."""
    return round(min(max(100 * part / whole, 0), 100), 1) if whole > 0 else 0.0


def memory_use() -> dict[str, Any]:
    """Memory of the daemon and the machine, where there is a /proc; in kB there."""
    found: dict[str, Any] = {}
    for path, fields in _MEMORY_FIELDS.items():
        try:
            with open(path, encoding="ascii", errors="replace") as file:
                lines = [line.partition(":") for line in file]
        except OSError:
            continue
        for name, _, rest in lines:
            if name in fields:
                found[fields[name]] = int(rest.split()[0]) * KIB
    total = found.get("mem_total_bytes", 0)
    used = total - found.get("mem_available_bytes", total)
    of_all = {"mem_total": total, "mem_used": used, "mem_usage": _percent(used, total)}
    return {**found, **of_all}


def _machine_ticks() -> tuple[int, int]:
    """(busy, all) time of the processors since boot, proc_stat(5); zeros without it."""
    try:
        with open("/proc/stat", encoding="ascii") as file:
            fields = [int(text) for text in file.readline().split()[1:9]]
    except OSError:
        return 0, 0
    # idle and waiting for a disk, which others may use
    return sum(fields) - sum(fields[3:5]), sum(fields)


class Sample(NamedTuple):
    """How the machine and the daemon did in the time before."""

    at: str
    cpu: float
    mem: float
    daemon_cpu: float
    rss_bytes: int | None
    # Not told by versions before.
    mem_used: int = 0
    mem_total: int = 0


class MachineWatch:
    """A sample of the machine and the daemon every SAMPLE_EVERY_S, for an hour. Looks
    are taken by one thread; whoever asks copies in one step."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.samples: collections.deque[Sample] = collections.deque(maxlen=SAMPLES_KEPT)
        self._before = (clock.monotonic_s(), time.process_time(), _machine_ticks())
        self.due_s = self._before[0] + SAMPLE_EVERY_S

    def look(self) -> None:
        """Take a sample of the time since the last one."""
        now_s, cpu_s, ticks = (
            self._clock.monotonic_s(), time.process_time(), _machine_ticks(),
        )  # fmt: skip
        before_s, before_cpu_s, before = self._before
        self._before, self.due_s = (now_s, cpu_s, ticks), now_s + SAMPLE_EVERY_S
        memory = memory_use()
        took_s = max(now_s - before_s, 0.001)
        sample = Sample(
            at=time_text(self._clock.wall_ms()),
            cpu=_percent(ticks[0] - before[0], ticks[1] - before[1]),
            mem=memory["mem_usage"],
            daemon_cpu=round(100 * (cpu_s - before_cpu_s) / took_s, 1),
            rss_bytes=memory.get("rss_bytes"),
            mem_used=memory["mem_used"],
            mem_total=memory["mem_total"],
        )
        self.samples.append(sample)


class Event(NamedTuple):
    """A change that /api/runs/stream tells."""

    id: int
    name: str
    run: Run


class Trace(NamedTuple):
    """By what the client of a trigger will look for its run elsewhere; the program gets
    it as well, and so do later attempts."""

    request_id: str | None = None
    traceparent: str | None = None


NO_TRACE = Trace()


class Outcome(NamedTuple):
    """What came of a run's program."""

    verdict: Verdict
    usage: Usage | None = None
    error: str | None = None
    result: Any = None
    out_of_memory: bool = False


class Lane:
    """A task with its active runs and its queue, each in the order of arrival."""

    def __init__(self, task: Task, last_run: Run | None, failures: int = 0) -> None:
        self.last_run = last_run
        # In a row, as far as is decided.
        self.failures = failures
        self.define(task)
        self.active: dict[str, LiveRun] = {}
        self.queue: collections.deque[LiveRun] = collections.deque()
        # The ticks up to this one were seen; set when the schedule begins.
        self.seen_s = 0
        # Up to here a pause keeps them from firing.
        self.quiet_s = -math.inf
        # Number of its entry in the timetable; others are outdated.
        self.entry = -1
        self.next_run_ms: int | None = None

    def pass_over(self, now_s: int) -> None:
        """Take the ticks of a pause for seen: they were not missed."""
        self.seen_s = int(max(self.seen_s, min(now_s, self.quiet_s)))

    def define(self, task: Task) -> None:
        """Take over a definition of the task."""
        self.task = task
        # As the kernel wants it, so that it is encoded once and not for every run.
        self.environ = encoded_environ({"PYTHONUNBUFFERED": "1", **task.environ})


class LiveRun:
    """A run that has not ended. All of it is guarded by the daemon's mutex, but for
    `log` and reading from `child`, which belong to the run's own thread. `cause` is why
    the daemon ends the run, once it does; `kill_at_s` when its patience is over."""

    def __init__(self, run: Run, lane: Lane, values: dict[str, str]) -> None:
        self.run = run
        self.lane = lane
        # A reload gives the lane another task; a run that has begun keeps its own.
        self.task = lane.task
        self.environ = lane.environ
        self.values = values
        # Of each who waits for a change of it; a word in it wakes.
        self.gates: list[queue.SimpleQueue[None]] = []
        self.child: Child | None = None
        self.log: LogWriter | None = None
        self.started_s = 0.0
        self.kill_at_s: float | None = None
        self.cause: str | None = None
        self.error: str | None = None
        # When an attempt that is to wait enters its queue, on the monotonic clock.
        self.enters_s = 0.0
        self.survivors: set[int] = set()
        # What is wrong when its program cannot be signalled, and whether the daemon
        # leaves without it.
        self.denied = ""
        self.let_go = False
        # What it becomes, from the decision until that is told.
        self.change: Change | None = None
        # Whether anybody was told of it.
        self.known = False
        # How it ends in the queue, decided while its creation was on its way.
        self.doom: tuple[str, str] | None = None
        self.usage: Usage | None = None
        # Whose folder its result is in, once its program was started.
        self.result_uid: int | None = None
        # Its thread has left it to the program that replaces this one.
        self.parked = False
        # Somebody waits for its log to be there.
        self.awaited = False

    def wake(self) -> None:
        """Have those who wait for a change look again."""
        for gate in self.gates:
            gate.put(None)

    def record(self) -> dict[str, Any]:
        """Everything about a parked run that is not in the store, as JSON."""
        assert self.child
        assert self.log
        return {
            "run_id": self.run.id,
            "task": task_record(self.task),
            "child": self.child.record(),
            "log": self.log.record(),
            "usage": self.usage,
            "started_s": self.started_s,
            "kill_at_s": self.kill_at_s,
            "cause": self.cause,
            "error": self.error,
            "denied": self.denied,
            "survivors": sorted(self.survivors),
            "result_uid": self.result_uid,
        }


class TaskState(NamedTuple):
    """A task and what is going on with it."""

    task: Task
    running: int
    queued: int
    last_run: Run | None
    next_run_ms: int | None
    failures: int = 0
    pause: Pause | None = None


class CallerGone(Exception):
    """Whoever waited does not wait any more."""


class Parked(Exception):
    """Raised in the thread of a run that is to be left to another program."""


class Change(NamedTuple):
    """What a run becomes: decided and in line for the store, not yet told. `undoable`
    is the first record of a run that nobody knows of, which is as if it had never been
    when the store refuses it; any other change happened and is tried again."""

    live: LiveRun
    run: Run
    write: Write
    undoable: bool = False

    @property
    def recorded(self) -> bool:
        """Whether it is durable, once its write was flushed. A tick that was claimed
        before makes no row, and a run whose row has vanished cannot start."""
        if self.write.error is not None:
            return False
        return self.write.changed > 0 or (self.run.ended and not self.undoable)


class _Deadline(NamedTuple):
    """Something that the schedule does to a live run at a time of the monotonic clock:
    stop it for a cause, or kill it. `order` keeps the heap from comparing runs."""

    at_s: float
    order: int
    live: LiveRun
    cause: str | None


class Deadlines:
    """All deadlines, soonest first. Guarded by the daemon's mutex."""

    def __init__(self) -> None:
        self._heap: list[_Deadline] = []
        self._orders = itertools.count()
        self._compact_at = DEADLINES_SLACK

    @property
    def next_s(self) -> float:
        """When the first one is due."""
        return self._heap[0].at_s if self._heap else math.inf

    def add(self, at_s: float, live: LiveRun, cause: str | None) -> bool:
        """Add one; returns whether it is now the first."""
        if len(self._heap) >= self._compact_at:
            # Most belong to runs that ended long before.
            self._heap = [d for d in self._heap if not d.live.run.ended]
            heapq.heapify(self._heap)
            self._compact_at = DEADLINES_SLACK + 2 * len(self._heap)
        deadline = _Deadline(at_s, next(self._orders), live, cause)
        heapq.heappush(self._heap, deadline)
        return self._heap[0] is deadline

    def take_due(self, now_s: float) -> Iterator[_Deadline]:
        """Take out those that are due."""
        while self._heap and self._heap[0].at_s <= now_s:
            yield heapq.heappop(self._heap)


class Timetable:
    """The next tick of every task that has a schedule, soonest first, so that what is
    not due costs nothing. Guarded by the daemon's mutex."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Lane]] = []
        self._orders = itertools.count()

    @property
    def next_ms(self) -> float:
        """When the first one is due, in Unix milliseconds."""
        return self._heap[0][0] if self._heap else math.inf

    def add(self, lane: Lane, anchor_s: int) -> None:
        """Enter a task's first tick after those that were seen, if it has a schedule,
        in the place of what was entered before."""
        lane.entry, lane.next_run_ms = -1, None
        if not lane.task.cron or lane.quiet_s == math.inf:
            return
        slip = slip_ms(lane.task)
        after_s = int(max(lane.seen_s, lane.quiet_s))
        ticks = upcoming(lane.task.cron, after_s, anchor_s)
        first = next(ticks, None)
        if first:
            firing = first if first.fires else next((t for t in ticks if t.fires), None)
            lane.next_run_ms = firing.at_s * 1000 + slip if firing else None
            lane.entry = next(self._orders)
            heapq.heappush(self._heap, (first.at_s * 1000 + slip, lane.entry, lane))

    def take_due(self, now_ms: int) -> list[Lane]:
        """Take out the tasks that have ticks which are due."""
        due = []
        while self._heap and self._heap[0][0] <= now_ms:
            _, order, lane = heapq.heappop(self._heap)
            if order == lane.entry:
                due.append(lane)
        return due


class _Seen(NamedTuple):
    """A schedule, and up to where its ticks were seen."""

    cron: Cron | None
    seen_s: int


class Reload(NamedTuple):
    """What a new configuration changed."""

    added: list[str]
    removed: list[str]
    changed: list[Any]


def _compared(old: Mapping[str, Task], new: Mapping[str, Task]) -> Reload:
    both = [name for name in new if name in old]
    keys = {name: changed_keys(old[name], new[name]) for name in both}
    return Reload(
        [name for name in new if name not in old],
        [name for name in old if name not in new],
        [{"name": name, "reasons": keys[name]} for name in both if keys[name]],
    )


def _holders_text(child: Child) -> str:
    """Who keeps a pipe of an ended program open, if anybody does."""
    if not child.open_streams:
        return ""
    names = " and ".join(STREAMS[stream] for stream in child.open_streams)
    holders = ", ".join(map(process_text, child.pipe_holders())) or "a process"
    return f"{holders} still held {names} open and was let go"


def _without_secrets(value: Any, log: LogWriter) -> Any:
    """A JSON value in which no secret of the run stands, whatever way it is written."""
    if isinstance(value, dict):
        return {log.redacted(k): _without_secrets(v, log) for k, v in value.items()}
    if isinstance(value, list):
        return [_without_secrets(entry, log) for entry in value]
    if isinstance(value, str):
        return log.redacted(value)
    text = str(value)
    hidden = log.redacted(text)
    return value if hidden == text else hidden


def _cause_environ(stdin: bytes) -> dict[str, str]:
    """What a hook's program is told of the run that caused it, beside stdin. Raises
    StartError."""
    try:
        document = json.loads(stdin)
        cause = document["run"]
        summary = cause.get("summary", "")
        told = {
            "RUN_ID": cause["id"],
            "TASK": cause["task_name"],
            "END_REASON": cause["end_reason"],
            "EXIT_CODE": str(cause["exit_code"]),
            "SUMMARY": summary.replace("\0", "\N{REPLACEMENT CHARACTER}"),
            "FAILURES": str(document["failures"]),
        }
    except (ValueError, LookupError):
        text = "the record of what caused this run is damaged: stdin cannot be read"
        raise StartError(text) from None
    return {f"TASKRUNNERD_CAUSE_{name}": text for name, text in told.items()}


def _command(live: LiveRun, result_path: str, stdin: bytes) -> Command:
    task, run = live.task, live.run
    arguments, environ = render_params(task, live.values)
    own = {
        **environ,
        RUN_ID_VARIABLE: run.id,
        RESULT_VARIABLE: result_path,
        "TASKRUNNERD_TASK": task.name,
        "TASKRUNNERD_ATTEMPT": str(run.retry_attempt),
        "TASKRUNNERD_TRIGGER": run.triggered_by,
    }
    if run.via == VIA_TASK:
        own.update(_cause_environ(stdin))
    if run.scheduled_at:
        own["TASKRUNNERD_SCHEDULED_AT"] = run.scheduled_at
    if run.request_id:
        own[REQUEST_ID_VARIABLE] = run.request_id
    if run.traceparent:
        # A parameter of that name was given on purpose.
        own.setdefault("TRACEPARENT", run.traceparent)
    if task.notify:
        # Neither `ps` nor other users see it there.
        left = range(run.retry_attempt, task.retry_attempts)
        delays_s = [retry_delay_s(task, FAILED, attempt) for attempt in left]
        own[NOTIFY_VARIABLE] = json.dumps({**task.notify, "delays_s": delays_s})
    argv = command_line(task, arguments)
    whole = {**live.environ, **encoded_environ(own)}
    merges = task.stderr == MERGE
    folder, mask, account = task.working_dir, task.umask, task.account
    return Command(argv, whole, folder, mask, account, merges, stdin)


_NOT_STARTED = "its program was not started"


class Crew:
    """Threads that each do one job after another. Starting a thread costs more than
    waking one, so a thread that has nothing to do waits a while for the next job."""

    def __init__(self, body: Callable[[Any], None]) -> None:
        self._body = body
        # Of each thread that waits and was not promised a job; the last one comes next.
        # Adding to a list and taking out of it are atomic.
        self._idle: list[queue.SimpleQueue[Any]] = []

    def do(self, job: Any) -> None:
        """Have a thread do the job."""
        try:
            jobs = self._idle.pop()
        except IndexError:
            threading.Thread(target=self._work, args=(job,), daemon=True).start()
        else:
            jobs.put(job)

    def _work(self, job: Any) -> None:
        jobs: queue.SimpleQueue[Any] = queue.SimpleQueue()
        while True:
            self._body(job)
            self._idle.append(jobs)
            try:
                job = jobs.get(timeout=CREW_IDLE_S)
            except queue.Empty:
                try:
                    self._idle.remove(jobs)
                except ValueError:
                    # Promised a job in this very moment.
                    job = jobs.get()
                else:
                    return


def log_end(run: Run) -> None:
    """Tell the daemon's log of an end, before anybody else: once no run is live, the
    daemon may go, and its log with it. Not under the mutex: stderr may block."""
    log_info(
        f"run ended task={run.task_name} run={run.id} reason={run.end_reason} "
        f"exit_code={run.exit_code}"
    )


class Housekeeper:
    """What is done now and then and may take its time: the sign of life, retention, the
    trash, keys. Used by the schedule's thread, without the mutex; only `expect` may be
    called by others, under it."""

    def __init__(
        self, folder: DataFolder, store: Store, processes: Processes, clock: Clock
    ) -> None:
        self.machine = MachineWatch(clock)
        self._folder = folder
        self._store = store
        self._processes = processes
        self._clock = clock
        self._unkempt: set[str] = set()
        self._reserve_failed = False
        self._config_seen: tuple[int, ...] = ()
        # Whether a run with secret parameters has ended; one of a daemon that died may.
        self.secret_ended = store.found_log
        self._sign_at_s = self._all_at_s = self._look_at_s = clock.monotonic_s()
        self._was_gone = False
        # So long no run goes only because keep_for was not said.
        self.all_until_ms = math.inf
        self._began_ms, self._began_s = clock.wall_ms(), clock.monotonic_s()

    @property
    def due_s(self) -> float:
        """When there is something to do again, on the monotonic clock."""
        look_at_s = math.inf if self._folder.gone else self._look_at_s
        return min(self._sign_at_s, look_at_s, self.machine.due_s)

    def trash_ms(self) -> int:
        """The time by which the trash and keys go: the date as it was at the start and
        what has passed since, so that nobody empties it by setting the clock (I7)."""
        return self._began_ms + int((self._clock.monotonic_s() - self._began_s) * 1000)

    def expect(self, delay_s: float, task: Task | None = None) -> None:
        """Something may be forgotten after a while: runs of a task, or the trash."""
        if task:
            self._unkempt.add(task.name)
        self._look_at_s = min(self._look_at_s, self._clock.monotonic_s() + delay_s)

    def see_place(self) -> bool:
        """Show the sign of life if it is due. Returns whether the data directory, which
        was gone, is back. Blocks on the disk."""
        if self._clock.monotonic_s() < self._sign_at_s:
            return False
        self._folder.show_sign_of_life(self._store.files)
        was_gone, self._was_gone = self._was_gone, bool(self._folder.gone)
        return was_gone and not self._was_gone

    def keep_house(self, daemon: Daemon) -> None:
        """Do what is due. Blocks on the store. Raises StoreError, OSError."""
        now_s = self._clock.monotonic_s()
        if now_s >= self.machine.due_s:
            self.machine.look()
        if now_s >= self._sign_at_s:
            self._see_config(daemon)
            self._processes.reap_orphans()
            self._processes.cgroups.clear(daemon.live_ids)
            soon = not self._keep_reserve(daemon)
            self._sign_at_s = now_s + (SIGN_AGAIN_S if soon else SIGN_OF_LIFE_S)
            if not self._folder.gone:
                self._trim_journal(daemon)
                self._forget_secrets()
        if now_s >= self._look_at_s and not self._folder.gone:
            self._forget(daemon, now_s)

    def _see_config(self, daemon: Daemon) -> None:
        """Notice that tasks.json is another one; read only if its stat has changed."""
        seen: tuple[int, ...] = (daemon.config.checksum,)
        with contextlib.suppress(OSError):
            found = os.stat(daemon.config.path)
            seen += found.st_ino, found.st_size, found.st_ctime_ns
        if seen != self._config_seen:
            self._config_seen = seen
            daemon.config_stale = config_differs(daemon.config)

    def _keep_reserve(self, daemon: Daemon) -> bool:
        try:
            return bool(self._folder.gone) or self._folder.keep_reserve(daemon.disk)
        except OSError as error:
            if not self._reserve_failed:
                LOG.error("no reserve for ends on a full disk error=%s", error)
            self._reserve_failed = True
            return True

    def _forget_secrets(self) -> None:
        """Have nothing of secret parameters on the disk that the store has deleted."""
        if self.secret_ended:
            self.secret_ended = False
            # While somebody reads or writes it is left to the next time.
            self.secret_ended = not self._store.fold("truncate")

    def _trim_journal(self, daemon: Daemon) -> None:
        end = self._processes.journal_bytes()
        if end > PROCESS_JOURNAL_MAX_BYTES or self._processes.journal_is_gone():
            self._processes.trim_journal(set(daemon.live_ids()), end)

    def _forget(self, daemon: Daemon, now_s: float) -> None:
        if now_s >= self._all_at_s:
            self._all_at_s = now_s + RETENTION_EVERY_S
            self._unkempt.update(daemon.config.tasks)
        self._look_at_s = self._all_at_s
        try:
            # One batch a round: deadlines and ticks wait meanwhile.
            busy = self._forget_expired(daemon) or self._empty_trash()
            if busy or self._forget_keys() or self._shrink():
                self.expect(RETENTION_BATCH_PAUSE_S)
        except StoreError:
            # Not in an hour: this is what makes room on a full disk.
            self.expect(STORE_RETRY_S)
            raise

    def _forget_expired(self, daemon: Daemon) -> bool:
        """Remove a batch of runs that are kept no longer; False if there are none."""
        for name in list(self._unkempt):
            task = daemon.config.tasks.get(name)
            now_ms, until_ms = self._clock.wall_ms(), self.all_until_ms
            before = forget_before(task, now_ms, until_ms) if task else None
            if task and (task.keep_runs is not None or before is not None):
                run_ids = self._store.expired_ids(name, task.keep_runs, before)
                if run_ids:
                    self._remove([(name, run_id) for run_id in run_ids])
                    LOG.info("runs forgotten task=%s count=%d", name, len(run_ids))
                    return True
            self._unkempt.discard(name)
        return False

    def _empty_trash(self) -> bool:
        before_ms = self.trash_ms() - int(RESTORE_S * 1000)
        runs = self._store.trashed_before(before_ms)
        if runs:
            self._remove(runs)
            return True
        oldest_ms = self._store.oldest_trash_ms()
        if oldest_ms is not None:
            self.expect(max(1.0, (oldest_ms - before_ms) / 1000 + 1))
        return False

    def _forget_keys(self) -> bool:
        until_ms = self.trash_ms() - int(KEY_KEPT_S * 1000)
        if not self._store.has_claims(until_ms):
            return False
        self._store.flush(self._store.enqueue(write_unclaimed(until_ms)))
        return True

    def _shrink(self) -> bool:
        """Give room in the database back to the disk; False if there is little."""
        unused = self._store.unused_pages()
        if unused <= SPARE_PAGES:
            return False
        self._store.flush(self._store.enqueue(write_shrunk()))
        return self._store.unused_pages() < unused

    def _remove(self, runs: list[tuple[str, str]]) -> None:
        """Remove (task name, run id) pairs for good: the logs first, so that a crash in
        between leaves no log that nobody knows of."""
        for task_name, run_id in runs:
            base = log_base(self._folder.logs, task_name, run_id)
            try:
                remove_log(base)
            except OSError as error:
                # Else nothing would be forgotten any more.
                LOG.error("log cannot be removed path=%s.log error=%s", base, error)
        run_ids = [run_id for _, run_id in runs]
        # Of what a program left behind, and what that wrote after the end.
        self._folder.remove_results(run_ids)
        self._store.flush(self._store.enqueue(write_forgotten(run_ids)))


def _crashed_run(
    run: Run, base: str, end_at: str, leftovers: int, faults: list[str]
) -> Run:
    error = f"the daemon died while the run was running; last sign of life {end_at}"
    if leftovers:
        error += f"; {leftovers} of its processes were left and have been killed"
    written = dropped = None
    try:
        with LogReader(base) as log:
            written, dropped = log.written_bytes, log.written_bytes - log.kept_bytes
    except LogError as unreadable:
        faults.append(str(unreadable.strerror))
    error = "; ".join([error, *dict.fromkeys(filter(None, faults))])
    return run._replace(
        status=ENDED,
        end_reason=CRASHED,
        end_at=end_at,
        error=error,
        summary=f"crashed: {error}",
        output_bytes=written,
        output_dropped_bytes=dropped,
    )


def _log_warnings(config: Config) -> None:
    for warning in config.warnings:
        LOG.warning("configuration warning=%s", warning)


_UNDECLARED = "the task is no longer declared"


def told_retention(
    store: Store, tasks: Mapping[str, Task], now_ms: int
) -> tuple[float, str]:
    """(until when nothing is removed only because nothing was said, in Unix
    milliseconds; what is removed then, as a text that is empty if that is nothing)."""
    since_ms = store.keeps_all_since_ms()
    until_ms = (now_ms if since_ms is None else since_ms) + int(KEEP_GRACE_S * 1000)
    if now_ms >= until_ms:
        return until_ms, ""
    found = []
    for task in tasks.values():
        before = forget_before(task, until_ms)
        if before and task.keep_for_s == KEEP_FOR_S:
            count = store.count_runs(
                RunFilter(task_name=task.name, created_before=before)
            )
            found += [f"{count} of {task.name}"] if count else []
    if not found:
        return until_ms, ""
    age = TASK_KEYS["keep_for"]["default"]
    when = f"from {time_text(until_ms)} on runs older than {age}"
    keeps = f'"keep_for": "{FOREVER}" keeps them'
    return until_ms, f"{when} are removed: {', '.join(found)}; {keeps}"


class Daemon:
    """All live state behind one mutex, and everything that changes it.

    Whatever happens to a run is the same five steps. Under the mutex: decide (pure:
    section 7) and `_decide`, which puts the record in line for the store. `_settle`
    does the rest: flush, without the mutex; `_tell`, or `_undo` if there is no record;
    `_begin`. Between the decision and the telling the run has its `change`: it keeps
    its place in its lane, but is neither promoted nor ended in its queue."""

    def __init__(
        self,
        config: Config,
        folder: DataFolder,
        clock: Clock,
        min_free_bytes: int = 0,
        log_tail: Ring | None = None,
    ) -> None:
        _log_warnings(config)
        self.config = config
        # Found now: where this process was started may be removed.
        self.config_path = os.path.abspath(config.path)
        self.folder = folder
        self.clock = clock
        self.disk = DiskWatch(folder.path, min_free_bytes, clock)
        self.store = _open_store(folder)
        self.started_ms = clock.wall_ms()
        self.draining = False
        # Set while the daemon gets ready to be replaced by another program.
        self.pausing = False
        self.processes = Processes(folder.path)
        self._started_s = clock.monotonic_s()
        self._mutex = threading.Lock()
        self._idle = threading.Condition(self._mutex)
        self._due = threading.Condition(self._mutex)
        self._live: dict[str, LiveRun] = {}
        last_runs = self.store.last_runs()
        self._lanes = {
            name: Lane(task, last_runs.get(name), self._failures_in_row(task))
            for name, task in config.tasks.items()
        }
        # Whether somebody waits for the last run to end.
        self._lingers = False
        # Where people find the page, if there is one.
        self.page_url = ""
        # Runs whose record the store refuses; why, if new ones would fare no better.
        self._unwritten: dict[str, str] = {}
        self._give_up_s = math.inf
        # Event ids go on growing over restarts.
        self._events = Ring(EVENTS_KEPT, self.started_ms * 1000 + 1, self._mutex)
        self._housekeeper = Housekeeper(folder, self.store, self.processes, clock)
        self.following = Permits(FOLLOWERS_AT_ONCE)
        # A leaf, so that two readers do not repair the same log.
        self._repairing = threading.Lock()
        # What ended, as far as it was read; the tasks of which more did since. Another
        # leaf, so that no older figure takes the place of a newer one.
        self._counted: dict[str, Counted] | None = None
        self._uncounted: set[str] = set()
        self._counting = threading.Lock()
        self._deadlines = Deadlines()
        self.pumping = Permits(PUMPS_AT_ONCE)
        self._crew = Crew(self.conduct)
        self._ids = Ulids(self.store.newest_id())
        # Keys of triggers that are being looked up or recorded, one thread for each.
        self._claiming: set[str] = set()
        self._claimed = threading.Condition(self._mutex)
        # From where @every counts: the start, which an upgrade in place is not.
        self.anchor_s = self.started_ms // 1000
        # How often the loop of the schedule has gone round.
        self.rounds = 0
        self._timetable = Timetable()
        # By task name or ALL_TASKS; also those that are over.
        self._pauses = self.store.pauses()
        self._newest_wall_ms = self.started_ms
        self._lag_s = 0.0
        # What the store refused to the schedule, whose next round tries it again.
        self._refused: list[Change] = []
        self.log_tail = log_tail or Ring(DAEMON_LOG_KEPT_LINES, 0)
        self.config_loaded_ms = self.started_ms
        # Loads what a reload takes over beside tasks.json, and returns what puts it to
        # use. Raises ConfigError.
        self.load_beside: Callable[[], Callable[[], None]] = lambda: lambda: None
        self.last_reload_good = True
        # Whether tasks.json is another one by now, as far as somebody has looked.
        self.config_stale = False
        # Reloads that began, and the one that the configuration in use is from.
        self._reloads = self._reloaded = 0

    # -- what there is

    def task(self, name: str) -> Task:
        """A declared task. Raises Problem 404."""
        lane = self._lanes.get(name)
        if not lane:
            raise Problem(404, f'no task "{name}"{nearest(name, self._lanes)}')
        return lane.task

    def _failures_in_row(self, task: Task) -> int:
        """How often a task has failed since its last success, as the history tells."""
        ends = self.store.ends_since_success(task.name)
        return sum(hooks_after(task, end_reason, 0)[1] for end_reason in ends)

    def task_states(self) -> list[TaskState]:
        """Every task with what is going on with it, in the order of tasks.json."""
        with self._mutex:
            return [self._task_state(lane) for lane in self._lanes.values()]

    def _task_state(self, lane: Lane) -> TaskState:
        last_run = lane.last_run
        live = self._live.get(last_run.id) if last_run else None
        if live:
            last_run = live.run
        counts = (len(lane.active), len(lane.queue))
        pause, next_ms = self.pause_of(lane.task.name), lane.next_run_ms
        return TaskState(lane.task, *counts, last_run, next_ms, lane.failures, pause)

    def find_run(self, run_id: str) -> Run | None:
        """A run as it is now, live or ended."""
        live = self._live.get(run_id)
        return live.run if live else self.store.find_run(run_id)

    def live_ids(self) -> list[str]:
        """Ids of the runs that have not ended."""
        with self._mutex:
            return list(self._live)

    def _running(self) -> list[LiveRun]:
        return [live for live in self._live.values() if live.run.status == RUNNING]

    def knows_task(self, name: str) -> bool:
        """Whether a task is declared, or was once and has runs."""
        return name in self._lanes or self.store.last_run(name) is not None

    def _declares(self, task: Task) -> bool:
        """Whether a task is declared as it is, and not otherwise by now."""
        lane = self._lanes.get(task.name)
        return lane is not None and lane.task is task

    def log_of(self, run: Run) -> str:
        """The base path of a run's log, for LogReader; repaired if it has to be."""
        return self._log_at(run.task_name, run.id, has_ended=run.ended)

    def log_at(self, task_name: str, run_id: str) -> str:
        """The same of a run that is in the history, without looking it up there."""
        return self._log_at(task_name, run_id, has_ended=run_id not in self._live)

    def _log_at(self, task_name: str, run_id: str, *, has_ended: bool) -> str:
        """Without the lock: reads the disk."""
        base = log_base(self.folder.logs, task_name, run_id)
        if has_ended and not is_indexed(base):
            # What cannot be mended is read as it is.
            with self._repairing, contextlib.suppress(LogError):
                repair_log(base)
        return base

    def last_lines(self, run: Run, count: int) -> list[LogLine]:
        """The last lines of a run, or one that says why they cannot be read: the run is
        worth more than they are."""
        try:
            with self.following, LogReader(self.log_of(run)) as log:
                return log.last_lines(count)
        except LogError as error:
            return [LogLine(0, self.clock.wall_ms(), SYSTEM, str(error.strerror))]

    def why_not_ready(self) -> str:
        """Why no trigger would be taken now; empty when it would."""
        if self.pausing:
            return "the daemon is being upgraded"
        if self.draining:
            return "the daemon is shutting down"
        return self.folder.gone or self.why_no_room()

    @property
    def rests(self) -> bool:
        """Whether nothing may be started: what runs goes on."""
        return self.draining or self.pausing or bool(self.folder.gone)

    def why_gone(self) -> str:
        """Why the data directory is not in its place, looked at now. Blocks."""
        self.folder.show_sign_of_life(self.store.files)
        return self.folder.gone

    def why_no_room(self) -> str:
        """Why no new run can be recorded now, as far as is known; empty if it can."""
        # One step, so that no other thread changes it meanwhile.
        refused = list(self._unwritten.values())
        return next(filter(None, refused), "") or self.disk.reason_low()

    def counted(self) -> dict[str, Counted]:
        """What ended ever, by task name. Reads only what is not known. Raises
        StoreError."""
        with self._counting:
            if self._counted is None:
                self._counted = self.store.counted()
            # Adding to a set and taking out of it are atomic.
            names = [self._uncounted.pop() for _ in range(len(self._uncounted))]
            try:
                self._counted.update(self.store.counted(names) if names else {})
            except StoreError:
                self._uncounted.update(names)
                raise
            return dict(self._counted)

    def samples(self) -> list[Sample]:
        """How the machine and the daemon did in the last hour, oldest first."""
        return list(self._housekeeper.machine.samples)

    def is_over(self) -> bool:
        """Whether nothing more will happen in this daemon, or in this program."""
        with self._mutex:
            return self.pausing or (self.draining and not self._running())

    def uptime_s(self) -> float:
        """Time since the daemon started."""
        return self.clock.monotonic_s() - self._started_s

    # -- waiting

    def wait(
        self,
        run_id: str,
        timeout_s: float,
        still_there: Callable[[], bool],
        seen: str = ENDED,
    ) -> Run:
        """The last attempt when it has ended, or the run when its status is another
        than the one that was `seen`, or as it is after a time or when the daemon goes.
        Raises CallerGone within HANGUP_CHECK_S of the caller's leaving."""
        give_up_s = self.clock.monotonic_s() + timeout_s
        while True:
            run = self._wait_attempt(run_id, give_up_s, still_there, seen)
            following = self.attempt_after(run) if seen == ENDED else None
            if not following:
                return run
            run_id = following.id

    def attempt_after(self, run: Run) -> Run | None:
        """The next attempt as it is now, if one follows a run: none does for as long
        as the data directory is gone."""
        failed = run.end_reason in RETRIED and not self.folder.gone
        next_id = self.store.next_attempt(run.id) if failed else None
        return self.find_run(next_id) if next_id else None

    def _wait_attempt(
        self,
        run_id: str,
        give_up_s: float,
        still_there: Callable[[], bool],
        seen: str,
    ) -> Run:
        with self._mutex:
            # An attempt goes and the next one comes in one step.
            live = self._live.get(run_id)
        if not live:
            run = self.store.find_run(run_id)
            if not run:
                raise Problem(404, f"no run {run_id}")
            return run
        left_s = give_up_s - self.clock.monotonic_s()

        def is_over(live: LiveRun) -> bool:
            queued = live.run.status == PENDING
            undone = self.draining and (queued or self._gives_up())
            leaving = self.pausing or undone
            changed = seen not in (ENDED, live.run.status)
            return live.run.ended or changed or left_s <= 0 or leaving

        while not self._await_change(live, is_over, min(left_s, HANGUP_CHECK_S)):
            if not still_there():
                raise CallerGone
            left_s = give_up_s - self.clock.monotonic_s()
        return live.run

    def _await_change(
        self, live: LiveRun, is_over: Callable[[LiveRun], Any], timeout_s: float | None
    ) -> bool:
        """Wait for a change of a live run, or a time, unless the wait is over, which is
        asked under the mutex; returns whether it was, or the run has ended."""
        gate: queue.SimpleQueue[None] = queue.SimpleQueue()
        with self._mutex:
            if is_over(live):
                return True
            live.gates.append(gate)
        # Not a Condition: whoever is woken need not have the mutex at once, which is
        # with the one who tells of the change, and has one lock less to make.
        with contextlib.suppress(queue.Empty):
            gate.get(timeout=timeout_s)
        if live.run.ended:
            # Nobody looks at its gates any more.
            return True
        with self._mutex:
            live.gates.remove(gate)
        return False

    def _gives_up(self) -> bool:
        """Whether all that is left are records that the store has refused too long."""
        if self.clock.monotonic_s() < self._give_up_s:
            return False
        return all(live.run.id in self._unwritten for live in self._running())

    def await_hooks(self) -> None:
        """Return when no run is live any more, or the daemon shuts down."""
        with self._mutex:
            self._lingers = True
            while self._live and not self.draining:
                self._idle.wait()

    def wait_output(self, run_id: str, seen: int, timeout_s: float) -> int:
        """How many bytes of a run's output there are, once they are more than `seen`,
        the run changes, or a time is over; -1 when it is not live."""
        live = self._live.get(run_id)
        if live and live.log:
            size_bytes = live.log.wait_growth(seen, timeout_s)
            if size_bytes > seen or not live.log.closed:
                return size_bytes
        if live:
            # Not begun, or at its end while that is being recorded.
            live.awaited = True
            self._await_change(
                live,
                lambda live: live.run.ended or (live.log and not live.log.closed),
                max(0.0, timeout_s),
            )
        return -1

    # -- events

    def newest_event_id(self) -> int:
        """Where a listener begins that wants only what is new."""
        return self._events.newest_n

    def events_after(self, event_id: int, timeout_s: float) -> list[Event]:
        """Events after an id, of those still kept; waits a time for one at most."""
        with self._mutex:
            leaving = self.draining or self.pausing
            return self._events.after(event_id, 0 if leaving else timeout_s)

    def log_after(self, n: int, timeout_s: float) -> list[LogMessage]:
        """Lines of the daemon's log after one; waits a time for one at most."""
        with self.log_tail.added:
            return self.log_tail.after(n, timeout_s)

    def _tell_changed(self, name: str, runs: list[Run]) -> None:
        touched = {run.task_name for run in runs}
        newest = {task_name: self.store.last_run(task_name) for task_name in touched}
        with self._mutex:
            for task_name, run in newest.items():
                if task_name in self._lanes and not self._lanes[task_name].active:
                    self._lanes[task_name].last_run = run
            for run in runs:
                self._events.add(Event, name, run)

    def note_last_run(self, run: Run) -> None:
        """Remember a task's newest run. Under the mutex or before any thread."""
        lane = self._lanes.get(run.task_name)
        if lane and (lane.last_run is None or lane.last_run.id <= run.id):
            lane.last_run = run

    # -- one change

    def _decide(
        self, live: LiveRun, run: Run, write: Write, *, undoable: bool = False
    ) -> Change:
        """Put in line for the store what a run becomes, in the order of the decisions
        (I2). To be settled once the mutex is free."""
        live.change = Change(live, run, self.store.enqueue(write), undoable)
        return live.change

    def _settle(self, changes: list[Change], kept: list[LiveRun] | None = None) -> None:
        """Make changes durable, then known, then begin what they let run: a thread for
        each, but for the first one if the caller's own is to go on with it, which is
        `kept` then. What happened already is tried again for as long as the store
        refuses it. Blocks; without the lock."""
        refused = self._settle_once(changes, kept)
        while refused:
            time.sleep(STORE_RETRY_S)
            refused = self._settle_again(refused, kept)

    def _settle_again(
        self, refused: list[Change], kept: list[LiveRun] | None = None
    ) -> list[Change]:
        """Put in line once more what the store refused; returns what it still does."""
        # An end and the attempt after it share a write.
        fresh: dict[int, Write] = {}
        again = []
        for change in refused:
            before = change.write
            if id(before) not in fresh:
                fresh[id(before)] = self.store.enqueue(Write(*before.statements))
            again.append(change._replace(write=fresh[id(before)]))
            change.live.change = again[-1]
        return self._settle_once(again, kept)

    def _settle_once(
        self, changes: list[Change], kept: list[LiveRun] | None = None
    ) -> list[Change]:
        refused = []
        while changes:
            self._flush(changes)
            more: list[Change] = []
            begun: list[LiveRun] = []
            gates: list[queue.SimpleQueue[None]] = []
            with self._mutex:
                for change in changes:
                    if change.recorded:
                        more += self._tell(change, begun)
                    elif change.undoable or change.write.error is None:
                        more += self._undo(change)
                    else:
                        refused.append(change)
                        continue
                    gates += change.live.gates
            # They find the mutex free.
            for gate in gates:
                gate.put(None)
            for live in begun:
                if kept == []:
                    kept.append(live)
                else:
                    more += self._begin(live)
            changes = more
        if refused and self._free_disk(refused):
            return self._settle_again(refused, kept)
        for change in refused:
            self._note_refused(change)
        return refused

    def _flush(self, changes: list[Change]) -> None:
        """Wait until the store has taken or refused changes; log the ends."""
        with contextlib.suppress(StoreError):  # which each write has
            self.store.flush(*[change.write for change in changes])
        for change in changes:
            failure = change.write.failure()
            if failure:
                if failure.disk_full:
                    self.disk.note_full()
            elif self._unwritten.pop(change.run.id, None) is not None:
                LOG.info("store works again run=%s", change.run.id)
            if change.recorded and change.run.ended:
                log_end(change.run)

    def _note_refused(self, change: Change) -> None:
        run_id, error = change.run.id, change.write.failure()
        assert error
        if run_id not in self._unwritten:
            LOG.error("store failed, trying again run=%s error=%s", run_id, error)
        reason = f"runs cannot be recorded: {error}" if error.may_pass else ""
        with self._mutex:
            self._unwritten[run_id] = reason
            self._idle.notify_all()

    def _tell(self, change: Change, begun: list[LiveRun]) -> list[Change]:
        """Let everybody know of a change that is durable (I1). Returns what follows
        from it at once; adds to those that may begin."""
        live, run = change.live, change.run
        live.change, live.run = None, run
        if not live.known:
            live.known = True
            self._events.add(Event, "run.created", run)
            self.note_last_run(run)
        if run.ended:
            self._tell_end(live)
        elif run.status == RUNNING:
            self._events.add(Event, "run.started", run)
            begun.append(live)
        elif live.doom:
            end_reason, error = live.doom
            return self._end_queued([live], error, end_reason)
        elif run.start_at:
            self._delay(live)
        else:
            # A slot may have become free while its creation was on its way.
            return self._promote(live.lane)
        return []

    def _undo(self, change: Change) -> list[Change]:
        """Take back a run that has no record, so that it never was: nobody was told of
        it. One whose record has vanished, though, ends without a program."""
        live, lane = change.live, change.live.lane
        live.change = None
        lane.active.pop(live.run.id, None)
        if live in lane.queue:
            lane.queue.remove(live)
        ends = []
        if change.undoable:
            self._live.pop(live.run.id, None)
            # As before `_decide_last`.
            undone = hooks_after(lane.task, change.run.end_reason, 0)[1]
            lane.failures = max(0, lane.failures - undone)
        else:
            ended = self._ended_early(live.run, START_FAILED, "its record has vanished")
            ends = [self._decide(live, ended, write_ended(ended))]
        self._idle.notify_all()
        return ends + self._promote(lane)

    def _persist(self, writes: list[Write]) -> None:
        """Make durable what is of no single run, however long it takes. Blocks; without
        the lock."""
        while True:
            try:
                self.store.flush(*writes)
            except StoreError as error:
                LOG.error("store failed, trying again error=%s", error)
                if not ("disk" in str(error) and self.folder.give_up_reserve()):
                    time.sleep(STORE_RETRY_S)
                again = [w for w in writes if w.error is not None]
                writes = [self.store.enqueue(Write(*w.statements)) for w in again]
            else:
                return

    def _free_disk(self, refused: list[Change]) -> bool:
        """Make room for ends on a full disk; False if there is nothing to be had."""
        ends = [change.write.error for change in refused if change.run.ended]
        if not ends:
            return False
        # To SQLite, a quota that is used up is an "I/O error".
        found = "disk" in str(ends[0]) and self.folder.give_up_reserve()
        if "disk is full" in str(ends[0]):
            # A write-ahead log that is folded in is written from its beginning again.
            # That needs a little room as well.
            with contextlib.suppress(StoreError):
                self.store.fold("passive")
        return found

    # -- deleting and restoring

    def delete(self, run_ids: Sequence[str]) -> int:
        """Take ended runs out of the history; restorable for RESTORE_S. Returns how
        many there were. Raises StoreError."""
        gone: list[Run] = []
        for start in range(0, len(run_ids), COMMIT_MAX_WRITES):
            batch = run_ids[start : start + COMMIT_MAX_WRITES]
            runs = [run for run in self.store.find_runs(batch) if run.ended]
            write = write_trashed(
                [run.id for run in runs], self._housekeeper.trash_ms()
            )
            self.store.flush(self.store.enqueue(write))
            gone += runs
        self._tell_changed("run.deleted", gone)
        with self._mutex:
            self._housekeeper.expect(RESTORE_S + 1)
            self._due.notify()
        return len(gone)

    def restore(self, run_ids: Sequence[str]) -> int:
        """Put deleted runs back. Returns how many there were. Raises StoreError."""
        count = 0
        for start in range(0, len(run_ids), COMMIT_MAX_WRITES):
            batch = run_ids[start : start + COMMIT_MAX_WRITES]
            write = self.store.enqueue(write_restored(batch))
            self.store.flush(write)
            count += write.changed // 2
        self._tell_changed("run.updated", self.store.find_runs(run_ids))
        return count

    # -- stopping

    def stop(self, run_id: str) -> bool:
        """Ask a live run to end; a queued one ends at once. False when it had already
        ended by itself. Returns when what happened is durable."""
        return self.stop_all([run_id]) == 1

    def why_not_stopped(self, run_id: str) -> str:
        """Why a run was not stopped when `stop` was asked to."""
        run = self.find_run(run_id)
        if run and run.error and not run.ended:
            return f"the run goes on, its program {run.error}"
        return "the run has already ended"

    def stop_all(self, run_ids: Iterable[str]) -> int:
        """Stop many runs; returns how many of them had not ended by themselves."""
        with self._mutex:
            known = [self._live[run_id] for run_id in run_ids if run_id in self._live]
            asked = [live for live in known if live.cause and not live.denied]
            fresh = [live for live in known if not live.cause]
            queued = [live for live in fresh if live.run.status == PENDING]
            running = [live for live in fresh if live.run.status == RUNNING]
            stopped = [
                live for live in running if self._request_stop(live, STOPPED, None)
            ]
            changes = self._end_queued(queued, _NOT_STARTED)
        self._settle(changes)
        for live in queued:
            while live.doom and live.change:
                self._await_change(live, lambda x: not (x.doom and x.change), None)
        return len(asked) + len(stopped) + len(queued)

    def request_stop(self, live: LiveRun, cause: str, error: str) -> None:
        """Begin to end a run for a reason of the daemon's own."""
        with self._mutex:
            self._request_stop(live, cause, error)

    def _request_stop(self, live: LiveRun, cause: str, error: str | None) -> bool:
        """First step of the ladder; a program that ended by itself keeps its end, and
        one that may not be signalled was not stopped."""
        child, change = live.child, live.change
        if live.cause or (change and change.run.ended):
            return False
        if child and (child.reaped or has_exited(child.pid)):
            return False
        if child and not child.ask_to_end(live.task.stop_signal):
            self._note_denied(live, child)
            if cause == STOPPED:
                return False
        live.cause, live.error = cause, error
        live.kill_at_s = self.clock.monotonic_s() + live.task.graceful_stop_s
        self._add_deadline(live.kill_at_s, live, None)
        return True

    def _note_denied(self, live: LiveRun, child: Child) -> None:
        """Say of a run, while it goes on, that its program cannot be signalled."""
        if not live.denied:
            live.denied = unsignalled_text([child.pid])
            live.run = live.run._replace(error=live.denied)
            self._events.add(Event, "run.updated", live.run)
        # Whoever waits for its end at a shutdown.
        self._idle.notify_all()

    def _add_deadline(self, at_s: float, live: LiveRun, cause: str | None) -> None:
        if self._deadlines.add(at_s, live, cause):
            self._due.notify()

    def _meet(self, deadline: _Deadline) -> None:
        live = deadline.live
        if live.run.ended:
            return
        if deadline.cause:
            limit = duration_text(live.task.timeout_s or 0)
            self._request_stop(live, deadline.cause, f"took longer than {limit}")
        elif live.child:
            self._kill(live, live.child)

    def _kill(self, live: LiveRun, child: Child) -> None:
        if not child.signal_group(signal.SIGKILL):
            self._note_denied(live, child)

    # -- runs that never began

    def _end_queued(
        self, waiting: Iterable[LiveRun], error: str, end_reason: str = STOPPED
    ) -> list[Change]:
        """Decide the end of runs that are pending: in a queue, or not until later. One
        whose creation is not durable yet ends when it is told."""
        changes = []
        for live in waiting:
            live.cause = STOPPED
            if live.change:
                live.doom = (end_reason, error)
                continue
            if live in live.lane.queue:  # else it is an attempt whose time has not come
                live.lane.queue.remove(live)
            ended = self._ended_early(live.run, end_reason, error)
            changes.append(self._decide(live, ended, write_ended(ended)))
        return changes

    def _ended_early(self, run: Run, end_reason: str, error: str) -> Run:
        """A run that ended without a program."""
        end_at = time_text(self.clock.wall_ms())
        ended = run._replace(status=ENDED, end_reason=end_reason, error=error)
        summary = f"{end_reason.replace('_', ' ')}: {error}"
        return ended._replace(start_at=None, end_at=end_at, summary=summary)

    # -- programs that ended

    def reap(self, child: Child) -> Usage:
        """Take the exit status of a child that has exited."""
        # Not under the mutex: wait4 lets the interpreter go, and to get it back may
        # take as long as the others want it (I3).
        with self._mutex:
            child.reaped = True
        return self.processes.reap(child)

    def rescue(self, live: LiveRun, error: Exception) -> Outcome:
        """A bug, or a system without descriptors or memory, must not lose a run, nor an
        outcome that is known, nor leave a process behind."""
        outcome, usage = Verdict(CRASHED, NO_EXIT_CODE, None), live.usage
        killed = False
        with self._mutex:
            child = live.child
            if usage:
                outcome = verdict(live.task, live.cause, usage.returncode)
            # One that may not be signalled goes on, and is not waited for.
            elif child and not child.reaped and child.signal_group(signal.SIGKILL):
                killed = child.reaped = True
        if child and killed:
            usage = self.processes.reap(child)
        if child:
            child.close()
        self.folder.remove_results([live.run.id])
        return Outcome(outcome, usage, f"internal error: {error!r}")

    def _ended_run(self, live: LiveRun, outcome: Outcome, wall_ms: int) -> Run:
        log, usage = live.log, outcome.usage
        reason, exit_code, signal_name = outcome.verdict
        lost = words = ""
        # An end is recorded whatever happens, without what cannot be had for it: files
        # or memory may have run out, the disk may be broken.
        try:
            if log:
                log.close(wall_ms)
                lost = log.error
            if log and reason == FAILED:
                merged = live.task.stderr == MERGE
                with LogReader(log.base) as reader:
                    said = reader.last_words(STDOUT if merged else STDERR)
                line = "last line" if merged else "last error line"
                words = said and f"{line}: {shortened(said)}"
        except Exception as failure:
            LOG.exception("log not closed task=%s run=%s", live.task.name, live.run.id)
            lost = f"its log could not be closed: {failure}"
        told = (live.error, live.denied, outcome.error, lost)
        errors = [text for text in told if text]
        took_s = self.clock.monotonic_s() - live.started_s
        error = "; ".join(dict.fromkeys(errors)) or None
        survivors = len(live.survivors)
        return live.run._replace(
            status=ENDED,
            end_reason=reason,
            exit_code=exit_code,
            signal=signal_name,
            error=error,
            summary=summary_text(
                outcome.verdict,
                took_s,
                error,
                words,
                out_of_memory=outcome.out_of_memory,
            ),
            end_at=time_text(wall_ms),
            duration=nanoseconds(took_s) if usage else None,
            output_bytes=log.output_bytes if log else 0,
            output_dropped_bytes=log.dropped_bytes if log else 0,
            cpu_seconds=usage.cpu_seconds if usage else None,
            max_rss_bytes=usage.max_rss_bytes if usage else None,
            survivors=survivors if usage else survivors or None,
            result=outcome.result,
        )

    def _tell_end(self, live: LiveRun) -> None:
        """Let everybody know of an end that is durable."""
        run = live.run
        self._live.pop(run.id, None)
        if HIDDEN in (run.params or {}).values():
            self._housekeeper.secret_ended = True
        self._uncounted.add(run.task_name)
        # What stays in memory must not hold a result.
        ended = run if run.result is None else run._replace(result=None)
        self.note_last_run(ended)
        name = "run.completed" if ended.end_reason == SUCCESS else "run.failed"
        self._events.add(Event, name, ended)
        if live.task.keep_runs or live.task.keep_for_s not in (None, KEEP_FOR_S):
            self._housekeeper.expect(RETENTION_PAUSE_S, live.task)
            self._due.notify()
        if self.draining or self.pausing or self._lingers:
            self._idle.notify_all()

    # -- triggers

    def trigger(
        self,
        name: str,
        given: Mapping[str, Any],
        triggered_by: str,
        trace: Trace = NO_TRACE,
        claim: Claim | None = None,
    ) -> Run:
        """Make a run: started, queued, or ended as skipped or queue_full; or join one.
        Durable when this returns, and so is the claim. Raises Problem 404, 422, 503,
        507."""
        return self.trigger_or_join(name, given, triggered_by, trace, claim)[0]

    def trigger_or_join(
        self,
        name: str,
        given: Mapping[str, Any],
        triggered_by: str,
        trace: Trace = NO_TRACE,
        claim: Claim | None = None,
    ) -> tuple[Run, str]:
        """As `trigger`: (run, COALESCED_HEADER if it was there and waited already)."""
        task = self.task(name)
        values = resolve_params(task, given)
        no_room = self.why_no_room()
        with self._mutex:
            if self.rests:
                raise Problem(503, self.why_not_ready(), headers=RETRY_LATER)
            if not self._declares(task):
                raise Problem(503, "the configuration changed", headers=RETRY_LATER)
            if no_room:
                text = f"no run is started: {no_room}"
                raise Problem(507, text, headers=RETRY_LATER)
            lane = self._lanes[name]
            joined = self._like_waiting(lane, values)
            if joined:
                run, created = joined.run, joined.change
                known = claim and write_claimed(claim._replace(run_id=run.id))
                # Its first record may be on its way, and is durable before this (I2).
                writes = [self.store.enqueue(known or Write())]
                writes += [created.write] if created else []
            else:
                live = self._admit(lane, values, triggered_by)
                live.run = run = live.run._replace(**trace._asdict())
                changes = [self._create(live, claim), *self._make_room(lane)]
                writes = [changes[0].write]
        if joined:
            with contextlib.suppress(StoreError):  # which the write has
                self.store.flush(writes[0])
        else:
            self._settle(changes)
        for failure in filter(None, [write.failure() for write in writes]):
            text = f"the run cannot be recorded: {failure}"
            raise Problem(507, text, headers=RETRY_LATER) from failure
        return run, COALESCED_HEADER if joined else ""

    def _like_waiting(self, lane: Lane, values: dict[str, str]) -> LiveRun | None:
        """Under on_overlap coalesce: the run in the queue that one with these
        parameters would only repeat."""
        if lane.task.on_overlap != COALESCE:
            return None
        alike = (w for w in lane.queue if w.values == values and not w.cause)
        return next(alike, None)

    def trigger_once(
        self, name: str, given: Mapping[str, Any], trace: Trace, claim: Claim
    ) -> tuple[Run, str]:
        """As `trigger_or_join` over the API, but a request that came before gets its
        run again, with REPLAYED_HEADER. Raises Problem 410, 422 as well."""
        with self._mutex:
            while claim.key in self._claiming:
                self._claimed.wait()
            self._claiming.add(claim.key)
        # Until the claim is durable or refused, nobody else looks the key up.
        try:
            now_ms = self._housekeeper.trash_ms()
            known = self.store.find_claim(claim.key, now_ms - int(KEY_KEPT_S * 1000))
            if known:
                return self._run_before(known, claim), REPLAYED_HEADER
            claim = claim._replace(claimed_ms=now_ms)
            return self.trigger_or_join(name, given, "api", trace, claim)
        finally:
            with self._mutex:
                self._claiming.discard(claim.key)
                self._claimed.notify_all()

    def _run_before(self, known: Claim, claim: Claim) -> Run:
        """The run that a claim made. Without the lock. Raises Problem 410, 422."""
        if known.fingerprint != claim.fingerprint:
            message = "was used for another task or other parameters; take a new key"
            fault = Fault(("header", KEY_HEADER), message, claim.key)
            detail = "the key belongs to another request"
            raise Problem(422, detail, faults=[fault])
        run = self.find_run(known.run_id)
        if not run:
            detail = f"the run {known.run_id} that this {KEY_HEADER} made was deleted"
            raise Problem(410, f"{detail}; to run the task again take a new key")
        return run

    def _create(self, live: LiveRun, claim: Claim | None = None) -> Change:
        """Put the first record of a run in line, with the claim of its key: both become
        durable or neither does."""
        run = live.run
        write = write_created(run, self._secret_values(live))
        # One that found the queue full is asked to try again, with the same key.
        if claim and run.end_reason != QUEUE_FULL:
            claimed = write_claimed(claim._replace(run_id=run.id))
            write = Write(*write.statements, *claimed.statements)
        return self._decide(live, run, write, undoable=True)

    def _secret_values(self, live: LiveRun) -> dict[str, str]:
        """The parameters of a run that its record does not show."""
        shown = live.run.params or {}
        return {k: v for k, v in live.values.items() if shown[k] != v}

    def _admit(
        self,
        lane: Lane,
        values: dict[str, str],
        triggered_by: str,
        scheduled_at: str | None = None,
    ) -> LiveRun:
        now_ms = self.clock.wall_ms()
        now = time_text(now_ms)
        task = lane.task
        params = shown_params(task, values) or None
        run = Run(
            self._ids.make(now_ms),
            task.name,
            PENDING,
            triggered_by,
            now,
            params=params,
            scheduled_at=scheduled_at,
        )
        live = LiveRun(run, lane, values)
        like = self._like_waiting(lane, values)
        queued = len(lane.queue)
        decision = admit(task, len(lane.active), queued, like_waits=bool(like))
        if decision == START and self.rests:  # a hook of what ends meanwhile
            decision = QUEUE
        if decision == START:
            live.run = run._replace(status=RUNNING, start_at=now)
            lane.active[run.id] = self._live[run.id] = live
        elif decision == QUEUE:
            lane.queue.append(live)
            self._live[run.id] = live
        else:
            full = f"{task.queue_max} runs are waiting already"
            busy = f"{task.max_concurrent} running already, and on_overlap is skip"
            if like:
                busy = f"{like.run.id} waits already, and on_overlap is coalesce"
            error = full if decision == QUEUE_FULL else busy
            live.run = self._ended_early(run, decision, error)
        return live

    def _make_room(self, lane: Lane) -> list[Change]:
        """Under on_overlap terminate: ask the oldest runs to go for the newest one."""
        staying = [live for live in lane.active.values() if not live.cause]
        waiting = [live for live in lane.queue if not live.cause]
        count = count_victims(lane.task, len(staying), len(waiting))
        error = "stopped to make room for a newer run (on_overlap: terminate)"
        for live in staying[:count]:
            self._request_stop(live, STOPPED, error)
        return self._end_queued(waiting[: max(0, count - len(staying))], error)

    # -- slots

    def _promote(self, lane: Lane) -> list[Change]:
        """Decide the start of queued runs for which there is a slot, oldest first. One
        whose creation is not durable yet keeps its place, and the others theirs behind
        it (I4): to tell of it promotes again."""
        begun: list[Change] = []
        free = 0 if self.rests else lane.task.max_concurrent - len(lane.active)
        while lane.queue and len(begun) < free and not lane.queue[0].change:
            live = lane.queue.popleft()
            start_at = time_text(self.clock.wall_ms())
            live.run = live.run._replace(status=RUNNING, start_at=start_at)
            lane.active[live.run.id] = live
            begun.append(self._decide(live, live.run, write_started(live.run)))
        return begun

    def _promote_all(self) -> list[Change]:
        """Fill the free slots of every task."""
        lanes = self._lanes.values()
        return [change for lane in lanes for change in self._promote(lane)]

    def _begin(self, live: LiveRun) -> list[Change]:
        """Give a run that has a slot a thread; its end if there is none to be had.
        Without the lock."""
        try:
            self._crew.do(live)
        except RuntimeError as error:
            text = f"cannot start: {error}"
            outcome = Outcome(Verdict(START_FAILED, NO_EXIT_CODE, None), None, text)
            return self._end(live, outcome)
        return []

    def adopt(self, live: LiveRun, child: Child) -> None:
        """Make a started program known; a stop asked for meanwhile reaches it now."""
        with self._mutex:
            live.child = child
            now_s = live.started_s = self.clock.monotonic_s()
            if live.cause and not child.ask_to_end(live.task.stop_signal):
                self._note_denied(live, child)
            if live.kill_at_s is not None and live.kill_at_s <= now_s:
                self._kill(live, child)
            if live.task.timeout_s is not None:
                self._add_deadline(now_s + live.task.timeout_s, live, TIMEOUT)
            if live.awaited:
                live.wake()
        log_info(f"run started task={live.task.name} run={live.run.id} pid={child.pid}")

    def park(self, live: LiveRun) -> bool:
        """Note that the thread of a run leaves it. False when the pause is over and it
        has to go on."""
        with self._mutex:
            live.parked = self.pausing
            self._idle.notify_all()
            return live.parked

    def finish(self, live: LiveRun, outcome: Outcome) -> LiveRun | None:
        """Record the end, tell everybody, and return the next run for this thread."""
        kept: list[LiveRun] = []
        self._settle(self._end(live, outcome), kept)
        return kept[0] if kept else None

    def _end(self, live: LiveRun, outcome: Outcome) -> list[Change]:
        """Decide the end of a run that had a slot, and what follows: the next attempt,
        which becomes durable with it or not at all, and who gets the slot. Without the
        lock."""
        wall_ms = self.clock.wall_ms()
        ended = self._ended_run(live, outcome, wall_ms)
        told = self._told_to_hooks(live.lane.task, ended)
        with self._mutex:
            live.lane.active.pop(ended.id, None)
            retry = self._next_attempt(live, ended, wall_ms)
            if not retry:
                write = write_ended(ended)
                changes = self._decide_last(live, write, ended, told, undoable=False)
                return changes + self._promote(live.lane)
            created = write_created(retry.run, self._secret_values(retry))
            write = write_ended(ended, retry.run.id)
            write = Write(*write.statements, *created.statements)
            changes = [self._decide(live, ended, write)]
            # Findable from now on: a stop or a reload in between must not miss it.
            self._live[retry.run.id] = retry
            retry.change = Change(retry, retry.run, write)
            return [*changes, retry.change, *self._promote(live.lane)]

    # -- hooks

    def _told_to_hooks(self, task: Task, ended: Run) -> str:
        """What the hooks of an end find on stdin, as JSON whose end `failures` makes;
        empty if there are none. Reads the log, so without the lock."""
        if not hooks_after(task, ended.end_reason, 1)[0]:
            return ""
        lines = self.last_lines(ended, CAUSE_LINES) if ended.start_at else []
        url = f"{self.page_url}/#/runs/{ended.id}" if self.page_url else None
        output = [line.document() for line in lines]
        return json.dumps({"run": ended.document(), "output": output, "url": url})

    def _decide_last(
        self, live: LiveRun, write: Write, ended: Run, told: str, *, undoable: bool
    ) -> list[Change]:
        """Decide the end of a run that no further attempt follows, and with it the runs
        of its task's hooks, which become durable with it or not at all."""
        lane, hooks = live.lane, []
        names, lane.failures = hooks_after(lane.task, ended.end_reason, lane.failures)
        # A reload may have come in between.
        found = [self._lanes[name] for name in names if told and name in self._lanes]
        for lane_of_hook in found:
            values, _ = bound_params(lane_of_hook.task, {})
            hook = self._admit(lane_of_hook, values, "api")
            hook.run = hook.run._replace(via=VIA_TASK, cause_run_id=ended.id)
            stdin = f'{told[:-1]}, "failures": {lane.failures}}}\n'.encode()
            created = write_created(hook.run, self._secret_values(hook), stdin)
            write = Write(*write.statements, *created.statements)
            hooks.append(hook)
        changes = [self._decide(live, ended, write, undoable=undoable)]
        for hook in hooks:
            hook.change = Change(hook, hook.run, write, undoable)
            changes += [hook.change, *self._make_room(hook.lane)]
        return changes

    # -- the thread of a run: without the lock

    def _open_log(self, live: LiveRun) -> LogWriter:
        task, shown = live.task, live.run.params or {}
        hidden = [v for k, v in live.values.items() if shown.get(k) == HIDDEN]
        secrets = [s for s in (*task.secrets, *hidden) if len(s) >= SECRET_MIN_CHARS]
        base = log_base(self.folder.logs, task.name, live.run.id)
        log = LogWriter(base, task.log_max_bytes, task.log_on_full, secrets)
        log.disk = self.disk
        return log

    def _copy_output(self, live: LiveRun, timeout_s: float | None) -> bool:
        """Move what has arrived from the pipes into the log; blocks until something
        does, the program ends or a held line is due. Returns whether there was any."""
        child, log, clock = live.child, live.log, self.clock
        assert child
        assert log
        if self.pausing:
            # The one safe point: what was read is written, nothing is half done (I9).
            raise Parked
        hold_s = log.hold_left_s(clock.monotonic_s())
        if hold_s is not None:
            timeout_s = hold_s if timeout_s is None else min(hold_s, timeout_s)
        chunks = child.read(timeout_s)
        now_s, wall_ms = clock.monotonic_s(), clock.wall_ms()
        # More would only fight for the interpreter, and requests would lose that fight.
        is_flood = any(len(chunk) >= PUMP_BYTES for _, chunk in chunks)
        with self.pumping if is_flood else contextlib.nullcontext():
            for stream, chunk in chunks:
                log.write(stream, chunk, wall_ms, now_s)
            log.release(wall_ms, now_s)
        if log.full and live.task.log_on_full == KILL_TASK and not live.cause:
            limit = size_text(live.task.log_max_bytes)
            self.request_stop(live, LOG_OVERFLOW, f"wrote more than {limit}")
        return bool(chunks)

    def _end_survivors(self, live: LiveRun) -> str:
        """Signal what the program left until nothing of it is alive: first the stop
        signal, after the grace period SIGKILL. Returns what is wrong, if anything."""
        child, clock, task = live.child, self.clock, live.task
        assert child
        if task.orphans == LEAVE and not live.cause:
            # So that they are told of no other run.
            self.processes.strange_orphans(child)
            self.processes.cgroups.leave(child)
            return ""
        kill_at_s = clock.monotonic_s() + task.graceful_stop_s
        signalled: set[tuple[int, int]] = set()
        denied: set[int] = set()
        looks_left, empty_left = SURVIVOR_LOOKS, SURVIVOR_EMPTY_LOOKS
        while looks_left:
            thorough = bool(live.cause or signalled)
            found = self.processes.survivors(child, thorough=thorough)
            if not found and child.open_streams and empty_left:
                # Somebody has them, who may just have forked anew.
                empty_left -= 1
                self._copy_output(live, SURVIVOR_CHECK_S)
                continue
            if denied.issuperset(found):
                # What goes on all the same is not waited for.
                return unsignalled_text(sorted(denied))
            late = clock.monotonic_s() >= min(live.kill_at_s or kill_at_s, kill_at_s)
            number = signal.SIGKILL if late else task.stop_signal
            looks_left -= late
            if late:
                write_cgroup(child.cgroup, "cgroup.kill", "1")
                found = sorted(self.processes.freeze_survivors(child).union(found))
            for pid in found:
                live.survivors.add(pid)
                if (pid, number) not in signalled:
                    signalled.add((pid, number))
                    if not signal_process(pid, number) and not child.cgroup:
                        denied.add(pid)
            self._copy_output(live, SURVIVOR_CHECK_S)
        return "cannot be killed: " + ", ".join(map(process_text, found))

    def _read_rest(self, live: LiveRun, limit_s: float) -> None:
        """Read what is in the pipes, until they are closed or a time is over; for no
        time, what has arrived already."""
        child, clock = live.child, self.clock
        assert child
        give_up_s = clock.monotonic_s() + limit_s
        while child.open_streams:
            arrived = self._copy_output(live, SURVIVOR_CHECK_S if limit_s else 0)
            if clock.monotonic_s() >= give_up_s and not (arrived and not limit_s):
                return

    def _take_result(self, live: LiveRun) -> tuple[Any, str]:
        """(result, what is wrong with it) of a program that has ended."""
        lost = "the result is not kept: it"
        if live.result_uid is None:
            return None, ""
        try:
            raw = self.folder.take_result(live.run.id, live.result_uid)
        except ValueError as error:
            return None, f"{lost} {error}"
        if not raw:
            return None, ""
        log = live.log
        assert log
        try:
            return _without_secrets(json_value(raw), log), ""
        except UnicodeDecodeError:
            return None, f"{lost} is not UTF-8"
        except ValueError as error:
            return None, f"{lost} is not JSON: {log.redacted(str(error))}"

    def _admit_result(self, live: LiveRun) -> str:
        """Make room for a run's result; returns where its program may leave it."""
        account = live.task.account
        live.result_uid = account.uid if account else os.geteuid()
        if account:
            try:
                self.folder.admit_results(account)
            except OSError as error:
                # Only who leaves a result will notice.
                LOG.error("no place for results user=%s error=%s", account.name, error)
        return self.folder.result_path(live.run.id, live.result_uid)

    def _start_program(self, live: LiveRun) -> Outcome | None:
        """Start the program of a run; returns what came of it when it did not start."""
        live.log = self._open_log(live)
        if live.cause:
            return Outcome(Verdict(live.cause, NO_EXIT_CODE, None), None, _NOT_STARTED)
        try:
            stdin = self.store.stdin_of(live.run.id) if live.run.via else b""
            command = _command(live, self._admit_result(live), stdin)
            child = self.processes.spawn(command, live.run.id)
        except (StartError, StoreError) as error:
            return Outcome(Verdict(START_FAILED, NO_EXIT_CODE, None), None, str(error))
        self.adopt(live, child)
        return None

    def _run_program(self, live: LiveRun) -> Outcome:
        """Run a program to its end, from wherever it is. Raises Parked."""
        failed = None if live.child else self._start_program(live)
        if failed:
            return failed
        child = live.child
        assert child
        while not child.exited:
            self._copy_output(live, None)
            if live.let_go:
                live.survivors.add(child.pid)
                child.close()
                outcome = Verdict(DAEMON_STOPPED, NO_EXIT_CODE, None)
                return Outcome(outcome, None, "its program goes on")
        usage = live.usage = live.usage or self.reap(child)
        # By a signal, or as a shell passes it on.
        was_killed = usage.returncode in (-signal.SIGKILL, EX_SIGNAL + signal.SIGKILL)
        out_of_memory = was_killed and child.ran_out_of_memory()
        self._read_rest(live, 0)
        undead = self._end_survivors(live)
        if child.peak_bytes:
            usage = usage._replace(max_rss_bytes=child.peak_bytes)
        self._read_rest(live, DRAIN_S)
        holders = _holders_text(child)
        child.close()
        result, fault = self._take_result(live)
        errors = [text for text in (undead, holders, fault) if text]
        outcome = verdict(live.task, live.cause, usage.returncode)
        error = "; ".join(errors) or None
        return Outcome(outcome, usage, error, result, out_of_memory)

    def conduct(self, live: LiveRun | None) -> None:
        """Root of a run's thread: run its program to the end, then the next in line."""
        while live:
            try:
                outcome = self._run_program(live)
            except Parked:
                if self.park(live):
                    return
                continue
            except Exception as error:
                LOG.exception("bug task=%s run=%s", live.task.name, live.run.id)
                outcome = self.rescue(live, error)
            live = self.finish(live, outcome)

    # -- further attempts

    def _next_attempt(self, live: LiveRun, ended: Run, wall_ms: int) -> LiveRun | None:
        """The attempt after one that ended, if there is to be one."""
        how, attempt = ended.end_reason, ended.retry_attempt
        delay_s = retry_delay_s(live.task, how, attempt, ended.exit_code)
        if delay_s is None or live.task.name not in self._lanes:
            return None
        run = Run(
            id=self._ids.make(wall_ms),
            task_name=ended.task_name,
            status=PENDING,
            triggered_by=ended.triggered_by,
            created_at=time_text(wall_ms),
            scheduled_at=ended.scheduled_at,
            start_at=time_text(wall_ms + int(delay_s * 1000)),
            params=ended.params,
            retry_attempt=ended.retry_attempt + 1,
            retry_of_run_id=ended.id,
            via=ended.via,
            cause_run_id=ended.cause_run_id,
            request_id=ended.request_id,
            traceparent=ended.traceparent,
        )
        retry = LiveRun(run, live.lane, live.values)
        retry.enters_s = self.clock.monotonic_s() + delay_s
        return retry

    def _delay(self, live: LiveRun) -> None:
        """Let a pending run enter its queue when its time has come."""
        self._add_deadline(live.enters_s, live, None)

    # -- the loop

    def run_schedule(self) -> None:
        """Root of the schedule thread: tick, for ever."""
        while True:
            self.rounds += 1
            try:
                self.tick()
            except (StoreError, OSError) as error:
                LOG.error("schedule failed, trying again error=%s", error)
                time.sleep(STORE_RETRY_S)
            with self._mutex:
                # Asked under the lock: nothing can become due unnoticed.
                delay_s = self._until_due_s()
                if delay_s > 0:
                    self._due.wait(min(delay_s, SCHEDULE_MAX_SLEEP_S))

    def wake(self) -> None:
        """Have the loop of the schedule go round."""
        with self._mutex:
            self._due.notify()

    def tick(self) -> float:
        """Do what is due; returns the seconds until something may be due again."""
        with self._mutex:
            overdue_s = self._overdue_s()
            if overdue_s > 0:
                self._lag_s = overdue_s
            changes: list[Change] = []
            for deadline in self._deadlines.take_due(self.clock.monotonic_s()):
                if deadline.live.run.status == PENDING and not deadline.live.cause:
                    deadline.live.lane.queue.append(deadline.live)
                    changes += self._promote(deadline.live.lane)
                else:
                    self._meet(deadline)
        refused, self._refused = self._refused, []
        self._refused += self._settle_again(refused)
        self._refused += self._settle_once(changes)
        if self._housekeeper.see_place():
            with self._mutex:
                changes = self._promote_all()
            self._refused += self._settle_once(changes)
        self._fire_due()
        # Afterwards: it may fail, and then no timeout may be missed.
        self._housekeeper.keep_house(self)
        with self._mutex:
            return self._until_due_s()

    def _until_due_s(self) -> float:
        next_s = min(self._housekeeper.due_s, self._deadlines.next_s)
        delay_s = next_s - self.clock.monotonic_s()
        if not self.rests:
            until_tick_ms = self._timetable.next_ms - self.clock.wall_ms()
            delay_s = min(delay_s, until_tick_ms / 1000)
        return max(0.0, delay_s)

    def _overdue_s(self) -> float:
        """How late it is for what is due; a tick that was missed is another matter."""
        next_s = min(self._housekeeper.due_s, self._deadlines.next_s)
        late_s = self.clock.monotonic_s() - next_s
        tick_late_s = (self.clock.wall_ms() - self._timetable.next_ms) / 1000
        if not self.rests and tick_late_s <= TICK_GRACE_S:
            late_s = max(late_s, tick_late_s)
        return max(0.0, late_s)

    def scheduler_lag_s(self) -> float:
        """How late the schedule was for what was due last, or is by now."""
        with self._mutex:
            return max(self._lag_s, self._overdue_s())

    # -- ticks

    def _fire_due(self) -> None:
        """Fire the ticks that are due, record those that were missed. Blocks on the
        store. Raises StoreError, and then tries the same ticks again next time."""
        now_ms = self.clock.wall_ms()
        anchor_s = self.anchor_s
        with self._mutex:
            due = [] if self.rests else self._due_lanes(now_ms, anchor_s)
        changes: list[Change] = []
        before: dict[Lane, _Seen] = {}
        for lane in due:
            now_s = (now_ms - slip_ms(lane.task)) // 1000
            task = lane.task
            with self._mutex:
                lane.pass_over(now_s)
            if not task.cron:  # a reload was faster
                continue
            plan = plan_ticks(task, lane.seen_s, now_s, anchor_s)
            values = resolve_params(task, {})
            with self._mutex:
                if self.rests:
                    # Left to the next program, which starts where this one was.
                    break
                if not self._declares(task) or lane.quiet_s >= now_s:
                    continue
                before[lane] = _Seen(task.cron, lane.seen_s)
                changes += self._follow(lane, plan, values)
                changes += self._make_room(lane)
                # Now and not when it is durable: a reload may come in between.
                lane.seen_s = now_s
        self._refused += self._settle_once(changes)
        failures = {c.live.lane: c.write.failure() for c in changes if c.undoable}
        with self._mutex:
            for lane in due:
                known = before.get(lane)
                if failures.get(lane) and known and lane.task.cron == known.cron:
                    lane.seen_s = known.seen_s
                if self._lanes.get(lane.task.name) is lane:
                    self._timetable.add(lane, anchor_s)
        for failure in failures.values():
            if failure:
                raise failure
        for change in self._refused:
            raise StoreError(str(change.write.error))

    def _due_lanes(self, now_ms: int, anchor_s: int) -> list[Lane]:
        stepped_back = now_ms < self._newest_wall_ms - CLOCK_STEP_MS
        self._newest_wall_ms = now_ms
        if stepped_back:
            # What fired already has claimed its tick.
            for lane in self._timetable.take_due(sys.maxsize):
                lane.seen_s = min(lane.seen_s, now_ms // 1000)
                self._timetable.add(lane, anchor_s)
        return self._timetable.take_due(now_ms)

    def _follow(self, lane: Lane, plan: Plan, values: dict[str, str]) -> list[Change]:
        """Make what a plan says: runs, and rows of ticks that became none."""
        missed_until = time_text(plan.missed_until_s * 1000)
        note = self._row(lane, MISSED, missed_text(plan, lane.seen_s), missed_until)
        changes = []
        for tick in (*plan.catch_up, *plan.on_time):
            at = time_text(tick.at_s * 1000)
            if tick.fires:
                live = self._admit(lane, values, "cron", at)
            else:
                live = self._row(lane, DST_SKIPPED, tick.note, at)
            changes.append(self._create(live))
        if plan.missed:
            # Last in line: whatever a crash leaves out was not seen yet.
            write = write_missed(note.run, plan.missed)
            told = self._told_to_hooks(lane.task, note.run)
            changes += self._decide_last(note, write, note.run, told, undoable=True)
        return changes

    def _row(
        self, lane: Lane, end_reason: str, error: str, scheduled_at: str
    ) -> LiveRun:
        """A run that never was, for a tick that became none."""
        now_ms = self.clock.wall_ms()
        run_id, now = self._ids.make(now_ms), time_text(now_ms)
        run = Run(run_id, lane.task.name, PENDING, "cron", now)
        run = self._ended_early(run, end_reason, error)
        run = run._replace(scheduled_at=scheduled_at)
        return LiveRun(run, lane, {})

    # -- pauses

    def pause_of(self, name: str) -> Pause | None:
        """As pause_in_force, now."""
        return pause_in_force(self._pauses, name, self.clock.wall_ms() // 1000)

    def _enter(self, lane: Lane) -> None:
        """Enter the next tick of a task that does not fall into a pause."""
        now_s = self.clock.wall_ms() // 1000
        lane.pass_over(now_s)
        both = (self._pauses.get(lane.task.name), self._pauses.get(ALL_TASKS))
        quiet = [pause.quiet_s for pause in both if pause]
        lane.quiet_s = max(quiet, default=-math.inf)
        lane.pass_over(now_s)
        self._timetable.add(lane, self.anchor_s)

    def _put_pause(self, name: str, pause: Pause | None) -> None:
        self._pauses.pop(name, None)
        if pause:
            self._pauses[name] = pause
        for lane in self._lanes.values():
            self._enter(lane)
        self._due.notify()

    def set_pause(self, name: str, pause: Pause | None) -> None:
        """Pause the schedule of a task, or of ALL_TASKS, or have it go on. Durable when
        this returns. Raises Problem 404, 507."""
        if name != ALL_TASKS:
            self.task(name)
        now_ms = self.clock.wall_ms()
        with self._mutex:
            before = self._pauses.get(name)
            if not before and not pause:
                return
            if pause and before and before.quiet_s >= now_ms // 1000:
                pause = pause._replace(since_ms=before.since_ms)
            resumed = write_resumed(name, time_text(now_ms))
            write = self.store.enqueue(write_paused(name, pause) if pause else resumed)
            self._put_pause(name, pause)
        try:
            self.store.flush(write)
        except StoreError as error:
            with self._mutex:
                if self._pauses.get(name) is pause:
                    self._put_pause(name, before)
            text = f"cannot be recorded: {error}"
            raise Problem(507, text, headers=RETRY_LATER) from error
        what = "paused" if pause else "resumed"
        LOG.info("schedule %s task=%s", what, name or "(all)")

    # -- which schedules there are

    def _start_schedules(self) -> None:
        """Go on with each schedule where the last daemon left it; a new one begins."""
        known = self.store.schedules()
        now_s = self.started_ms // 1000
        writes = []
        for name, lane in self._lanes.items():
            if not lane.task.cron:
                continue
            schedule = schedule_text(lane.task.cron)
            before, seen_until = known.pop(name, ("", ""))
            if before == schedule:
                lane.seen_s = min(now_s, parse_time(seen_until) // 1000)
            else:
                lane.seen_s = now_s
                begun = write_schedule(name, schedule, time_text(now_s * 1000))
                writes.append(self.store.enqueue(begun))
            with self._mutex:
                self._enter(lane)
        writes += [self.store.enqueue(write_unscheduled(name)) for name in known]
        self._persist(writes)

    def _reschedule(self, old: Mapping[str, Task]) -> list[Write]:
        """Enter all schedules anew. One that did not change goes on, another begins now
        and has missed nothing."""
        now_s = self.clock.wall_ms() // 1000
        writes = []
        for name, lane in self._lanes.items():
            cron = lane.task.cron
            if cron and (name not in old or old[name].cron != cron):
                lane.seen_s = now_s
                now = time_text(now_s * 1000)
                begun = write_schedule(name, schedule_text(cron), now)
                writes.append(self.store.enqueue(begun))
            self._enter(lane)
        gone = [n for n in old if n not in self._lanes or not self._lanes[n].task.cron]
        return writes + [self.store.enqueue(write_unscheduled(name)) for name in gone]

    # -- start

    def recover(self, handover: Mapping[str, Any] | None = None) -> None:
        """Settle what the last daemon left: the runs that it handed over go on, other
        running ones crashed, pending ones go on in their order. Called once, before
        anything else. A rehearsal ends where the first change would be. Raises
        StoreError."""
        rehearses = self.folder.look_only
        unended = self.store.unended_runs()
        self._housekeeper.secret_ended |= any(secret for _, secret in unended)
        records = {r["run_id"]: r for r in (handover or {"runs": ()})["runs"]}
        running = [run for run, _ in unended if run.status == RUNNING]
        orphaned = [run for run in running if run.id not in records]
        crashed = [] if rehearses else self._settle_crashed(orphaned, records)
        if handover:
            told = [Event(n, name, Run(*run)) for n, name, run in handover["events"]]
            with self._mutex:
                self._events.resume(told, self._events.first_n)
            self.anchor_s = handover["anchor_s"]
            samples = (Sample(*fields) for fields in handover["samples"])
            self._housekeeper.machine.samples.extend(samples)
            log = handover["log_tail"]
            messages = [LogMessage(*fields) for fields in log["messages"]]
            with self.log_tail.added:
                self.log_tail.resume(messages, log["first_n"])
        with self._mutex:
            resumed = [
                self._resume(run, secret, records[run.id])
                for run, secret in unended
                if run.status == RUNNING and run.id in records
            ]
            changes: list[Change] = []
            for run, secret in unended:
                if run.status == PENDING:
                    changes += self._requeue(run, secret)
            # Their hooks come behind what was waiting (I4).
            for run in crashed:
                changes += self.decide_left(run)
            changes += self._promote_all()
        if rehearses:
            return
        # What goes on must not end because of what cannot be written now.
        for live in resumed:
            changes += self._begin(live)
        if not handover:
            try:
                self.store.flush(*[change.write for change in changes])
            except StoreError:
                # Nobody was told of anything yet: better not to start than to wait
                # here, unless a dead daemon has left its reserve.
                if not self._free_disk(changes):
                    raise
        self._settle(changes)
        self._keep_all()
        self._start_schedules()
        for task in self.config.tasks.values():
            # An upgrade in place is no start: what runs has not noticed.
            paused = self.pause_of(task.name)
            if task.run_on_start and not handover and not paused:
                self._run_at_start(task)

    def _keep_all(self) -> None:
        """Before this version nothing was forgotten where keep_for was not said: tell
        what will be, in time to say it."""
        store, now_ms = self.store, self.clock.wall_ms()
        if store.keeps_all_since_ms() is None:
            since_ms = 0 if store.is_new else now_ms
            try:
                store.flush(store.enqueue(write_keeps_all_since(since_ms)))
            except StoreError as error:
                # The next start begins anew.
                LOG.error("beginning of keep_for not recorded error=%s", error)
        self._housekeeper.all_until_ms, text = told_retention(
            store, self.config.tasks, now_ms
        )
        if text:
            LOG.warning("%s", text)

    def settle(self) -> None:
        """Settle what a daemon that died left running, and start nothing but the hooks
        of that: queued runs and schedules are for the next daemon. Instead of
        `recover`. Raises StoreError."""
        unended = self.store.unended_runs()
        self._housekeeper.secret_ended |= any(secret for _, secret in unended)
        running = [run for run, _ in unended if run.status == RUNNING]
        crashed = self._settle_crashed(running, ())
        changes = [change for run in crashed for change in self.decide_left(run)]
        self.store.flush(*[change.write for change in changes])
        self._settle(changes)

    def decide_left(self, ended: Run) -> list[Change]:
        """Decide the end of a run that the last daemon left and that is not live.
        Before any thread, or under the mutex."""
        name = ended.task_name
        lane = self._lanes.get(name) or Lane(undeclared_task(name), None)
        live = LiveRun(ended, lane, {})
        live.known = True
        told = self._told_to_hooks(lane.task, ended)
        write = write_ended(ended)
        return self._decide_last(live, write, ended, told, undoable=False)

    def _run_at_start(self, task: Task) -> None:
        try:
            self.trigger(task.name, {}, "startup")
        except Problem as problem:
            LOG.error("no run at start task=%s error=%s", task.name, problem)

    def _resume(
        self, run: Run, secret: dict[str, str], record: Mapping[str, Any]
    ) -> LiveRun:
        """A running run of the program before this one, with its task as it was."""
        lane, task = self._lanes.get(run.task_name), record["task"]
        if not lane:
            lane = Lane(undeclared_task(run.task_name), None)
            # What is no longer declared is not tried again.
            task = {**task, "retry_attempts": 0}
        values = {**(run.params or {}), **secret}
        live = LiveRun(run, lane, values)
        live.known = True
        live.task = with_record(lane.task, task)
        live.log = LogWriter.resumed(self.log_of(run), record["log"])
        live.log.disk = self.disk
        live.child = self.processes.resume(run.id, record["child"])
        live.usage = Usage(*record["usage"]) if record["usage"] else None
        live.started_s, live.kill_at_s = record["started_s"], record["kill_at_s"]
        live.cause, live.error = record["cause"], record["error"]
        live.denied = record.get("denied", "")
        live.run = run._replace(error=live.denied or None)
        live.survivors = set(record["survivors"])
        live.result_uid = record.get("result_uid")
        self._live[run.id] = lane.active[run.id] = live
        if live.kill_at_s is not None:
            self._add_deadline(live.kill_at_s, live, None)
        if live.task.timeout_s is not None and not live.cause:
            self._add_deadline(live.started_s + live.task.timeout_s, live, TIMEOUT)
        return live

    def _requeue(self, run: Run, secret: dict[str, str]) -> list[Change]:
        """Put a run of the last daemon back into its queue, or say why it cannot be."""
        lane = self._lanes.get(run.task_name)
        if not lane or run.error:
            # One whose record is damaged could get other parameters than were given.
            ended = self._ended_early(run, SKIPPED, run.error or _UNDECLARED)
            return self.decide_left(ended)
        live = LiveRun(run, lane, {**(run.params or {}), **secret})
        live.known = True
        self._live[run.id] = live
        if run.start_at:
            left_s = (parse_time(run.start_at) - self.clock.wall_ms()) / 1000
            most_s = max(lane.task.retry_delay_s, BACKOFF_MAX_S)
            live.enters_s = self.clock.monotonic_s() + max(0.0, min(left_s, most_s))
            self._delay(live)
        else:
            lane.queue.append(live)
        return []

    def _settle_crashed(self, runs: list[Run], live_ids: Collection[str]) -> list[Run]:
        """The runs that were running when the last daemon died, as they ended; kills
        what is left of them and repairs their logs."""
        self._tell_loss()
        processes, folder = self.processes, self.folder
        leftovers = processes.end_leftovers({run.id for run in runs})
        try:
            processes.trim_journal(live_ids, processes.journal_bytes())
        except OSError as error:
            # On a full disk. What was handed over must go on; the rest can wait.
            LOG.error("journal of processes not trimmed error=%s", error)
        processes.cgroups.clear(lambda: live_ids)
        folder.remove_results([run.id for run in runs])
        crashed = []
        for run in runs:
            base = log_base(folder.logs, run.task_name, run.id)
            faults = [processes.left.pop(run.id, "")]
            known_ms = folder.last_sign_of_life_ms
            try:
                known_ms = max(known_ms, repair_log(base))
            except LogError as unreadable:
                # The run has its end, whatever became of its log.
                faults.append(str(unreadable.strerror))
            began_ms = parse_time(run.start_at or run.created_at)
            # Never before its start, also when the clock was set back since.
            end_at = time_text(max(began_ms, min(known_ms, self.started_ms)))
            ended = _crashed_run(run, base, end_at, leftovers.get(run.id, 0), faults)
            crashed.append(ended)
        return crashed

    def _tell_loss(self) -> None:
        """Say so if the history that was found is not the one that belongs to the rest
        of the data directory."""
        store = self.store
        newest = max(self.processes.newest_remembered(), self.folder.newest_left)
        if store.is_new:
            if newest or any(files for _, _, files in os.walk(self.folder.logs)):
                LOG.error(
                    "the history is empty although there were runs: history.sqlite3 "
                    "was emptied or removed, or history.sqlite3-wal was; put back a "
                    "backup, or remove what is left of them folder=%s",
                    self.folder.path,
                )
        elif not store.found_log and newest > store.newest_id():
            LOG.error(
                "the newest runs are missing in the history: history.sqlite3-wal was "
                "removed after a crash, or an older history.sqlite3 is in its place; "
                "put back both if you have them run=%s",
                newest,
            )

    # -- reload

    def reload(self) -> Reload:
        """Take over the tasks.json as it is now, and what is loaded beside it: whole or
        not at all. Durable when this returns. Raises ConfigError."""
        with self._mutex:
            self._reloads += 1
            number = self._reloads
        try:
            config, put_to_use = load_config(self.config.path), self.load_beside()
        except ConfigError:
            with self._mutex:
                if number > self._reloaded:
                    self.last_reload_good = False
            raise
        last_runs = self.store.last_runs()
        fresh = {n: t for n, t in config.tasks.items() if n not in self._lanes}
        failures = {n: self._failures_in_row(t) for n, t in fresh.items()}
        with self._mutex:
            old = self.config.tasks
            if number < self._reloaded:
                # What was read later is in use already.
                return _compared(old, old)
            self._reloaded, self.last_reload_good = number, True
            put_to_use()
            self.config, self.config_loaded_ms = config, self.clock.wall_ms()
            self.config_stale = False
            found = {live.task.name: live.lane for live in self._live.values()}
            found.update(self._lanes)
            self._lanes = {
                name: self._redefined(found.get(name), task)
                or Lane(task, last_runs.get(name), failures.get(name, 0))
                for name, task in config.tasks.items()
            }
            changes = self._drop_undeclared()
            writes = self._reschedule(old)
            changes += self._promote_all()
            self._due.notify()
        _log_warnings(config)
        self._settle(changes)
        self._persist(writes)
        return _compared(old, config.tasks)

    def _redefined(self, lane: Lane | None, task: Task) -> Lane | None:
        """The lane with the task's new definition, which its queue gets as well."""
        if not lane or lane.task == task:
            return lane
        lane.define(task)
        for live in self._live.values():
            if live.lane is lane and live.run.status == PENDING:
                live.task, live.environ = task, lane.environ
        return lane

    def _drop_undeclared(self) -> list[Change]:
        waiting = [
            live
            for live in self._live.values()
            if live.run.status == PENDING
            and not live.cause
            and live.task.name not in self._lanes
        ]
        return self._end_queued(waiting, _UNDECLARED, SKIPPED)

    # -- end, and upgrade in place

    def drain(self, timeout_s: float) -> None:
        """Stop all runs within a time, start none; queued ones are left to the next
        daemon. Blocks until nothing runs, but not for ends that cannot be recorded in
        that time."""
        with self._mutex:
            self.draining = True
            kill_at_s = self.clock.monotonic_s() + timeout_s
            self._give_up_s = min(self._give_up_s, kill_at_s)
            for live in self._running():
                self._request_stop(live, DAEMON_STOPPED, "the daemon was stopped")
                live.kill_at_s = min(live.kill_at_s or kill_at_s, kill_at_s)
                self._add_deadline(live.kill_at_s, live, None)
            for live in self._live.values():
                live.wake()
            self._events.added.notify_all()
            halted = False
            while self._running() and not self._gives_up():
                left_s = self._give_up_s - self.clock.monotonic_s()
                if left_s <= 0 and self._let_go() and not halted:
                    # Only now: what reads from other programs does not rest meanwhile.
                    halted = True
                    self.processes.halt()
                self._idle.wait(left_s if left_s > 0 else None)
            if halted:
                self.processes.unhalt()
            running = self._running()
            lost = [live.change.run if live.change else live.run for live in running]
        for run in lost:
            LOG.error(
                "stopping although the store refuses the last record of a run, which "
                "the next daemon will not know task=%s run=%s reason=%s exit_code=%d",
                run.task_name, run.id, run.end_reason, run.exit_code,
            )  # fmt: skip

    def _let_go(self) -> bool:
        """Wait no longer for programs that cannot be signalled; returns whether any."""
        denied = [live for live in self._running() if live.denied]
        for live in denied:
            live.let_go = True
        return bool(denied)

    def pause(self, timeout_s: float) -> bool:
        """Bring every run to a point where another program can go on with it: nothing
        is started, waiting callers get their run as it is. Returns whether all got
        there in time; False is to be followed by `unpause`. Blocks."""
        give_up_s = self.clock.monotonic_s() + timeout_s
        with self._mutex:
            self.pausing = True
            self.processes.halt()
            for live in self._live.values():
                live.wake()
            self._events.added.notify_all()
            while not all(live.parked for live in self._running()):
                left_s = give_up_s - self.clock.monotonic_s()
                if left_s <= 0:
                    return False
                self._idle.wait(left_s)
        return True

    def unpause(self) -> None:
        """Go on after a `pause` that led to nothing."""
        self.processes.unhalt()
        with self._mutex:
            self.pausing = False
            begun = [live for live in self._running() if live.parked]
            for live in begun:
                live.parked = False
            changes = self._promote_all()
            self._due.notify()
        for live in begun:
            changes += self._begin(live)
        self._settle(changes)

    @contextlib.contextmanager
    def handover(self) -> Iterator[dict[str, Any]]:
        """What `recover` of the next program needs, as JSON, after `pause`; everything
        decided is durable. The mutex is held until the block ends, so that no time
        limit is met and no stop begun that the next program would not know of. Raises
        StoreError."""
        if self.why_gone():
            raise StoreError(self.folder.gone)
        self.store.flush(self.store.enqueue(Write()))
        with self.log_tail.added:
            messages = self.log_tail.newest(DAEMON_LOG_SHOWN_LINES)
        record = {
            "anchor_s": self.anchor_s,
            "samples": self.samples(),
            "log_tail": {"first_n": self.log_tail.first_n, "messages": messages},
        }
        with self._mutex:
            record["runs"] = [live.record() for live in self._running()]
            record["events"] = self._events.newest(EVENTS_KEPT)
            yield record

    def hurry(self) -> None:
        """Kill all runs now, and wait no longer for the store."""
        with self._mutex:
            self.draining = True
            self._give_up_s = self.clock.monotonic_s()
            self._idle.notify_all()
            for live in self._running():
                self._request_stop(live, DAEMON_STOPPED, "the daemon was stopped")
                live.kill_at_s = self.clock.monotonic_s()
                if live.child:
                    self._kill(live, live.child)

    def close(self) -> None:
        """Let go of all files. Nothing may run any more."""
        # Only after a crash the journal has programs that the store may not know.
        with contextlib.suppress(OSError):
            end = self.processes.journal_bytes()
            self.processes.trim_journal(self.live_ids(), end)
        with contextlib.suppress(OSError, StoreError):
            self.folder.sign(newest=self.store.newest_id())
        self.store.close()
        self.processes.close()


# ---- 12. Operations and routes ----------------------------------------------
# Owns what each route does, one short function each, and ROUTES, which is the API:
# the router, validation and OpenAPI read it. Relies on 2 to 6, 8, 9 and 11; never
# touches SQL, processes or sockets.


JSON, TEXT, EVENT_STREAM = "application/json", "text/plain", "text/event-stream"
PROBLEM_JSON, SCHEMA_JSON = "application/problem+json", "application/schema+json"


class ServerFacts(NamedTuple):
    """What some answers tell of the server, and its page. `answered` counts the answers
    by the path of the route and the status."""

    auth_required: bool
    waiting: int
    answered: Mapping[tuple[str, int], int]
    page: str
    port: int = 0
    socket_path: str = ""
    authenticated: bool = True


class Wait(NamedTuple):
    """How long a request is held, and the Preference-Applied of the answer."""

    seconds: float = 0
    applied: str = ""


class Request(NamedTuple):
    """A request after routing. `path` and `query` hold typed values, `given` the
    names that stand in the query. `still_there` tells whether the client listens; once
    the silence has lasted, it sends status and headers of the Answer that is to come,
    and then blanks before its JSON. `media` is the type of the route's answers that the
    client likes best."""

    path: dict[str, Any]
    query: dict[str, Any]
    given: Collection[str]
    body: Any
    headers: Mapping[str, str]
    still_there: Callable[[Answer], bool]
    server_facts: Callable[[], ServerFacts]
    media: str = JSON
    request_id: str = ""
    wait: Wait = Wait()


class Answer(NamedTuple):
    """A whole answer: a JSON document, or none for 204. That of a 304 is sent only when
    the answer has begun as another."""

    status: int
    document: Any = None
    headers: Mapping[str, str] = {}


Chunk = Union[bytes, Mapping[str, str]]


class Stream(NamedTuple):
    """An answer in chunks. `size_bytes` is None while it is unknown; at an empty chunk
    the server looks whether the client has disconnected. A stream that announces
    `trailers`, their names, ends with a mapping of some of them; without that it was
    cut off, and the client has to notice."""

    status: int
    content_type: str
    chunks: Iterator[Chunk]
    size_bytes: int | None = None
    headers: Mapping[str, str] = {}
    trailers: tuple[str, ...] = ()


Operation = Callable[[Daemon, Request], Union[Answer, Stream]]


# As json.dumps with these makes it anew for each document.
_COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))


def compact_json(document: Any) -> bytes:
    """JSON as it goes over the wire."""
    return _COMPACT.encode(document).encode("utf-8", "replace") + b"\n"


# -- documents


def run_path(run: Run) -> str:
    """Where a run is found."""
    return f"/api/tasks/{run.task_name}/runs/{run.id}"


def _param_document(param: Param) -> dict[str, Any]:
    document: dict[str, Any] = {param.kind: param.key, "type": param.type}
    if param.default is not None:
        document["default"] = HIDDEN if param.secret else param.default
    document["required"] = param.required
    if param.choices and not param.secret:
        document.update(choices=list(param.choices), allow_custom=param.allow_custom)
    return {**document, "secret": param.secret, "description": param.description}


def _parameter_document(param: Param) -> dict[str, Any]:
    """A parameter as RunWisp 0.x tells it, which knows two types."""
    document = _param_document(param)
    del document[param.kind]
    kind = "string" if param.type == "string" else "number"
    return {"key": param.key, "kind": param.kind, **document, "type": kind}


def _schedule_document(task: Task) -> dict[str, Any]:
    """A task's schedule as JSON, nothing without one."""
    if not task.cron:
        return {}
    words = cron_words(task.cron)
    return {"cron": task.cron.text, "timezone": task.cron.zone_name, "schedule": words}


def pause_document(pause: Pause) -> dict[str, Any]:
    """A pause as JSON."""
    document: dict[str, Any] = {"since": time_text(pause.since_ms)}
    if pause.until_ms is not None:
        document["until"] = time_text(pause.until_ms)
    return {**document, "reason": pause.reason} if pause.reason else document


def next_document(
    task: Task, after_s: int, anchor_s: int, count: int, pause: Pause | None = None
) -> dict[str, Any]:
    """The coming ticks of a task as JSON; those in a pause do not come."""
    ticks: list[dict[str, Any]] = []
    document = {"task_name": task.name, **_schedule_document(task), "ticks": ticks}
    if pause:
        document["paused"] = pause_document(pause)
    if not task.cron or (pause and pause.quiet_s == math.inf):
        return document
    after_s = int(max(after_s, pause.quiet_s)) if pause else after_s
    for tick in itertools.islice(upcoming(task.cron, after_s, anchor_s), count):
        at = time_text(tick.at_s * 1000)
        local = zone_text(tick.at_s, task.cron.zone_name)
        note = {"note": tick.note} if tick.note else {}
        ticks.append({"at": at, "local": local, "fires": tick.fires, **note})
    return document


def task_document(state: TaskState) -> dict[str, Any]:
    """A task as JSON."""
    task = state.task
    document = {
        "name": task.name,
        **shown_settings(task),
        "kind": "task",
        "autostart": True,
        "params": [_param_document(param) for param in task.params],
        "parameters": [_parameter_document(param) for param in task.params],
        **_schedule_document(task),
        "coalesce": task.on_overlap == COALESCE,
        "running": state.running,
        "queued": state.queued,
    }
    if state.pause:
        document["paused"] = pause_document(state.pause)
    if state.next_run_ms is not None:
        document["next_run_at"] = time_text(state.next_run_ms)
    if state.last_run:
        document["last_run"] = state.last_run.document()
    return document


# -- following a run


def event_text(name: str, document: Any, event_id: int | str | None = None) -> bytes:
    """One server-sent event (WHATWG HTML, 9.2)."""
    head = f"id: {event_id}\n" if event_id is not None else ""
    return f"{head}event: {name}\ndata: ".encode() + compact_json(document) + b"\n"


_UNBUFFERED = {"X-Accel-Buffering": "no"}
_COMMENT = b": still here\n\n"
PLAIN_TEXT = "text/plain; charset=utf-8"


class _Look(NamedTuple):
    """A look at a run and its log: what is new there from a place on. If there is
    nothing new and the client waits for more, `idle` is what to send meanwhile.
    `first_line` is the first that is kept."""

    run: Run
    place: int
    fresh: Any
    idle: tuple[bytes, ...]
    first_line: int


def _follow(
    daemon: Daemon,
    run: Run,
    read: Callable[[LogReader, int], tuple[Any, int]],
    place: int,
    until_s: float = math.inf,
) -> Iterator[_Look]:
    """Look at a run whenever there may be something new, and every HANGUP_CHECK_S,
    until it has ended and all was read, or the time is over, or the daemon shuts down.
    `read` goes on to read the log from a place."""
    base, clock = daemon.log_of(run), daemon.clock
    seen, heard_s = -1, clock.monotonic_s()
    while True:
        # Looked at before the log is read, so that no last line is missed.
        run = daemon.find_run(run.id) or run._replace(status=ENDED)
        # All who follow a run wake at its end: not all may open its log at once.
        with daemon.following, LogReader(base) as log:
            fresh, after = read(log, place)
            first_line = log.first_available
        if fresh and run.status == PENDING:
            # It has begun meanwhile.
            run = daemon.find_run(run.id) or run
        now_s = clock.monotonic_s()
        leaving = daemon.pausing or (daemon.draining and run.status == PENDING)
        last = not fresh and (run.ended or leaving)
        last = last or (not run.ended and now_s >= until_s)
        # Without a sign of life, proxies close a connection.
        silent = not fresh and now_s - heard_s >= STREAM_COMMENT_S
        idle = () if fresh or last else (_COMMENT if silent else b"",)
        yield _Look(run, place, fresh, idle, first_line)
        if last:
            return
        place = after
        if fresh or silent:
            heard_s = now_s
        if not fresh:
            left_s = max(0.0, until_s - now_s)
            seen = daemon.wait_output(run.id, seen, min(left_s, HANGUP_CHECK_S))


def _line_events(look: _Look, prefix: str = "") -> Iterator[bytes]:
    n = look.place
    for line in look.fresh:
        if line.n > n:
            yield event_text("rotated", {"first_available": look.first_line})
            yield event_text("dropped", {"after": n - 1, "count": line.n - n + 1})
        yield event_text("line", line.document(), f"{prefix}{line.n}")
        n = line.n + 1
    yield from look.idle


def _live_events(
    daemon: Daemon, run: Run, start: tuple[Run, int], until_s: float
) -> Iterator[bytes]:
    """A run and its further attempts, from a line of one of them on. Ends with neither
    `done` nor `unfinished` when the daemon shuts down: the client has to ask again."""
    attempt, n = start
    following: Run | None = attempt
    while following:
        attempt, told = following, following.status
        yield event_text("run", attempt.document())
        # Lines are numbered anew in each attempt.
        prefix = "" if attempt.id == run.id else f"{attempt.id}:"
        for look in _follow(daemon, attempt, LogReader.next_lines, n, until_s):
            if look.run.status not in (told, ENDED):
                told = look.run.status
                yield event_text("run", look.run.document())
            yield from _line_events(look, prefix)
        following, n = daemon.attempt_after(look.run), 0
        if following and told != ENDED:
            yield event_text("run", look.run.document())
    if look.run.ended:
        yield event_text("done", look.run.document())
    elif daemon.clock.monotonic_s() >= until_s:
        yield event_text("unfinished", look.run.document())


RUN_TRAILERS = ("Run-Id", "Run-Exit-Code", "Run-End-Reason")


def _trailers(run: Run) -> dict[str, str]:
    """What there is to tell of a run at the end of its output."""
    code = str(run.exit_code) if run.exit_code != NO_EXIT_CODE else ""
    values = (run.id, code, run.end_reason)
    return {name: value for name, value in zip(RUN_TRAILERS, values) if value}


def _live_text(daemon: Daemon, run: Run, until_s: float) -> Iterator[Chunk]:
    """The output of a run and its further attempts, and trailers about the last one. No
    trailers when the daemon shuts down: that must not look like the end."""
    following: Run | None = run
    while following:
        for look in _follow(daemon, following, LogReader.next_block, 0, until_s):
            if look.fresh or look.idle:
                yield look.fresh
        following = daemon.attempt_after(look.run)
    if look.run.ended or daemon.clock.monotonic_s() >= until_s:
        yield _trailers(look.run)


# -- tasks and triggers


def get_tasks(daemon: Daemon, request: Request) -> Answer:
    """List the declared tasks."""
    return Answer(200, [task_document(state) for state in daemon.task_states()])


def get_task(daemon: Daemon, request: Request) -> Answer:
    """Show a declared task."""
    name = daemon.task(request.path["task_name"]).name
    state = next(s for s in daemon.task_states() if s.task.name == name)
    return Answer(200, task_document(state))


def get_next_ticks(daemon: Daemon, request: Request) -> Answer:
    """Show the coming ticks of a task, and what daylight saving does to them."""
    task = daemon.task(request.path["task_name"])
    after_s = daemon.clock.wall_ms() // 1000
    anchor_s = daemon.anchor_s
    count, pause = request.query["n"], daemon.pause_of(task.name)
    return Answer(200, next_document(task, after_s, anchor_s, count, pause))


def _wanted_pause(daemon: Daemon, request: Request) -> Pause:
    """Raises Problem 422."""
    now_ms, body = daemon.clock.wall_ms(), request.body or {}
    until_ms = parse_time(body["until"]) if "until" in body else None
    if until_ms is not None and until_ms <= now_ms:
        fault = Fault(("body", "until"), "must be in the future", body["until"])
        raise Problem(422, "a pause has to end after now", faults=[fault])
    return Pause(now_ms, until_ms, body.get("reason"))


def pause_task(daemon: Daemon, request: Request) -> Answer:
    """Keep the schedule of a task from firing; triggers and hooks still run it."""
    daemon.set_pause(request.path["task_name"], _wanted_pause(daemon, request))
    return get_task(daemon, request)


def resume_task(daemon: Daemon, request: Request) -> Answer:
    """Have the schedule of a task go on, which has missed nothing."""
    daemon.set_pause(request.path["task_name"], None)
    return get_task(daemon, request)


def pause_all(daemon: Daemon, request: Request) -> Answer:
    """Keep all schedules from firing."""
    daemon.set_pause(ALL_TASKS, _wanted_pause(daemon, request))
    pause = daemon.pause_of(ALL_TASKS)
    return Answer(200, {"paused": pause_document(pause)} if pause else {})


def resume_all(daemon: Daemon, request: Request) -> Answer:
    """Have the schedules go on, but for those that are paused one by one."""
    daemon.set_pause(ALL_TASKS, None)
    return Answer(200, {})


def _preferences(header: str) -> dict[str, str]:
    """The preferences of a Prefer header (RFC 7240, 2), the first of each name."""
    found: dict[str, str] = {}
    for part in header.split(","):
        name, _, value = part.partition(";")[0].partition("=")
        found.setdefault(name.strip().lower(), value.strip().strip('"'))
    return found


def wanted_wait(request: Request) -> Wait:
    """The wait that a request asks for: in the query, else as a preference. Without a
    time, a stream lasts as long as its run."""
    given = _preferences(request.headers.get("prefer", ""))
    query, live = request.query, request.media != JSON
    if live and "wait_timeout" in request.given:
        return Wait(query["wait_timeout"])
    if not live and "wait" in request.given:
        return Wait(query["wait_timeout"] if query["wait"] else 0)
    seconds = given.get("wait", "")
    if not live and "respond-async" in given and "wait" not in given:
        return Wait(0, "respond-async")
    if re.fullmatch("[0-9]{1,9}", seconds):
        return Wait(min(int(seconds), WAIT_MAX_S), f"wait={seconds}")
    return Wait(math.inf if live else 0)


def _etag(run: Run) -> str:
    """A text that changes whenever the run does: it has each status once."""
    return f'W/"{run.id}.{run.status}"'


_EVENT_ID = re.compile(f"(?:({RUN_ID_PATTERN[1:-1]}):)?([0-9]{{1,18}})")


def _resumed(daemon: Daemon, request: Request, run: Run) -> tuple[Run, int]:
    """The attempt, and the line of it, that follow the last event a client has seen."""
    match = _EVENT_ID.fullmatch(request.headers.get("last-event-id", ""))
    attempt: Run | None = run
    while match and attempt:
        if match[1] in (None, attempt.id):
            return attempt, int(match[2]) + 1
        attempt = daemon.attempt_after(attempt)
    return run, 0


def _check_readable(daemon: Daemon, run: Run) -> None:
    """Raises LogError while that can still become an answer of its own."""
    with LogReader(daemon.log_of(run)):
        pass


def _live_run(daemon: Daemon, request: Request, run: Run, answer: Answer) -> Stream:
    """The run as it goes on, in the form that the request asks for, with the status and
    the headers of its answer."""
    until_s = daemon.clock.monotonic_s() + request.wait.seconds
    if answer.status == 200:
        _check_readable(daemon, run)
    headers = {**answer.headers, "Run-Id": run.id, **_UNBUFFERED}
    if request.media == TEXT:
        text = _live_text(daemon, run, until_s)
        return Stream(answer.status, PLAIN_TEXT, text, None, headers, RUN_TRAILERS)
    # What is triggered now is new to everybody.
    seen = answer.status == 200 or REPLAYED_HEADER in answer.headers
    start = _resumed(daemon, request, run) if seen else (run, 0)
    events = _live_events(daemon, run, start, until_s)
    return Stream(answer.status, EVENT_STREAM, events, None, headers)


def _run_answer(
    daemon: Daemon, request: Request, run: Run, status: int, found: str = ""
) -> Answer | Stream:
    """The run, held until it has ended if the request asks for that, or as it goes
    on. `found` is the header that says of a trigger that the run was there."""
    wait = request.wait
    headers = {"Location": run_path(run), "Vary": "Accept"}
    if found:
        headers[found] = "true"
    if wait.applied:
        headers["Preference-Applied"] = wait.applied
    if request.media != JSON:
        return _live_run(daemon, request, run, Answer(status, None, headers))
    known = request.headers.get("if-none-match", "")
    known = _etag(run) if known.strip() == "*" else known
    if wait.seconds and (not known or _etag(run) in known):
        to_come = Answer(status, None, headers)
        still_there = functools.partial(request.still_there, to_come)
        # A client that knows a version of the run waits for another one.
        seen = run.status if known else ENDED
        run = daemon.wait(run.id, wait.seconds, still_there, seen)
    if wait.seconds and not run.ended:
        headers["Retry-After"] = "0"
    headers["ETag"] = _etag(run)
    document = run.document()
    if status == 200 and headers["ETag"] in known:
        return Answer(304, document, headers)
    if status == 200 and run.ended:
        hooks = daemon.store.hook_run_ids(run.id)
        if hooks:
            document["hook_run_ids"] = hooks
    if "output" in request.query:
        lines = daemon.last_lines(run, request.query["output"])
        document["output"] = [line.document() for line in lines]
    return Answer(status, document, headers)


# Versions to come may have more behind the flags (Trace Context, 4.3), 00 has not.
_TRACEPARENT = re.compile(
    "(?!ff|00.{54})[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
    "(?:-[!-~]*)?"
)


def _trace(request: Request) -> Trace:
    """The ids that a trigger hands on. A malformed traceparent is ignored (Trace
    Context, 3.2)."""
    parent = request.headers.get("traceparent", "")
    fits = len(parent) <= TRACEPARENT_MAX_CHARS and _TRACEPARENT.fullmatch(parent)
    return Trace(request.request_id, parent if fits else None)


_KEY = re.compile(f'"({QUOTED_KEY_CHAR}+)"|{BARE_KEY_CHAR}+')


def _key_text(header: str) -> str:
    """The key that an Idempotency-Key means; quoted or not, it is the same. Raises
    ValueError."""
    match = _KEY.fullmatch(header)
    if not match:
        example = 'such as "8e03978e", or a token'
        raise ValueError(f"must be text in double quotes, {example}")
    key = re.sub(r"\\(.)", r"\1", match[1]) if match[1] else header
    if len(key) > KEY_MAX_CHARS:
        raise ValueError(f"must have at most {KEY_MAX_CHARS} characters")
    return key


def _triggered(daemon: Daemon, request: Request) -> tuple[Run, str]:
    """(run, the header that says that it was there already, if it was)."""
    given = (request.body or {}).get("params", {})
    # The same as 5 and as "5", also for a key.
    given = {
        key: value_text(value) if isinstance(value, (int, float)) else value
        for key, value in given.items()
    }
    name, trace = request.path["task_name"], _trace(request)
    if KEY_HEADER.lower() not in request.headers:
        return daemon.trigger_or_join(name, given, "api", trace)
    key = _key_text(request.headers[KEY_HEADER.lower()])
    import hashlib  # only triggers with a key need it

    # The database gets a hash and no parameters, which may be secret.
    text = json.dumps((key, name, given), sort_keys=True)
    fingerprint = hashlib.sha256(text.encode()).hexdigest()
    return daemon.trigger_once(name, given, trace, Claim(key, fingerprint, "", 0))


def trigger_run(daemon: Daemon, request: Request) -> Answer | Stream:
    """Trigger a new run, and wait for its end if asked to."""
    run, found = _triggered(daemon, request)
    place = run_path(run)
    if run.end_reason == SKIPPED:
        headers = {found: "true"} if found else {}
        raise Problem(409, run.error or "", instance=place, headers=headers)
    if run.end_reason == QUEUE_FULL:
        raise Problem(429, run.error or "", instance=place, headers=RETRY_LATER)
    return _run_answer(daemon, request, run, 201, found)


def _no_trigger(task: Task) -> str:
    return f'task "{task.name}" may not be triggered over HTTP (api_trigger is false)'


_PARTS = ("path", "query", "header", "body")


def check_trigger(daemon: Daemon, request: Request, faults: list[Fault]) -> list[Fault]:
    """All faults of a trigger. Values that may be secret are not shown. Raises Problem
    400, with all of them, when one is its Idempotency-Key."""
    # Without a task, nobody knows which values are secret.
    hidden = any(fault.at[0] == "path" for fault in faults)
    if not hidden:
        task = daemon.task(request.path["task_name"])
        if not task.api_trigger:
            raise Problem(403, _no_trigger(task))
        body = request.body if isinstance(request.body, dict) else {}
        given = body.get("params", {})
        if isinstance(given, dict):
            known = {fault.location for fault in faults}
            _, found = bound_params(task, given)
            faults = [*faults, *(f for f in found if f.location not in known)]
        # What stands under another key, or in place of a key, may be a secret as well.
        hidden = any(param.secret for param in task.params)
    if hidden:
        faults = [Fault(f.at, f.message) if f.at[0] == "body" else f for f in faults]
    key = request.headers.get(KEY_HEADER.lower())
    if key is None:
        return faults
    try:
        _key_text(key)
    except ValueError as error:
        faults = [*faults, Fault(("header", KEY_HEADER), str(error), key)]
        faults.sort(key=lambda fault: _PARTS.index(fault.at[0]))
        detail = f"the {KEY_HEADER} is malformed"
        raise Problem(400, detail, faults=faults) from error
    return faults


# -- runs


def _find_run(daemon: Daemon, request: Request) -> Run:
    """The run that the path names. Raises Problem 404."""
    run_id, task_name = request.path["run_id"], request.path.get("task_name")
    run = daemon.find_run(run_id)
    if not run or task_name not in (None, run.task_name):
        of_task = f' of task "{task_name}"' if task_name else ""
        raise Problem(404, f"no run {run_id}{of_task}")
    return run


def get_run(daemon: Daemon, request: Request) -> Answer | Stream:
    """Show a run of a task, and wait for its end if asked to."""
    return _run_answer(daemon, request, _find_run(daemon, request), 200)


def get_run_by_id(daemon: Daemon, request: Request) -> Answer | Stream:
    """Show a run, whatever its task, and wait for its end if asked to."""
    return get_run(daemon, request)


def delete_run(daemon: Daemon, request: Request) -> Answer:
    """Delete an ended run; it can be restored for ten minutes."""
    run = _find_run(daemon, request)
    if not run.ended:
        raise Problem(409, f"the run is {run.status}; stop it first")
    daemon.delete([run.id])
    return Answer(204)


def stop_run(daemon: Daemon, request: Request) -> Answer:
    """Stop a running run, or take a pending one out of the queue."""
    run = _find_run(daemon, request)
    if run.ended or not daemon.stop(run.id):
        raise Problem(409, daemon.why_not_stopped(run.id))
    done = "taken out of the queue" if run.status == PENDING else "asked to stop"
    return Answer(200, {"message": f"run {run.id} {done}"})


def _run_filter(values: Mapping[str, Any]) -> RunFilter:
    given = {name: values.get(name) for name in RunFilter._fields}
    return RunFilter(**{k: v for k, v in given.items() if v is not False})


def get_all_runs(daemon: Daemon, request: Request) -> Answer:
    """List runs, newest first unless asked otherwise."""
    query = request.query
    which = _run_filter(query)
    sort = (query["sort_field"], query["sort_direction"])
    runs = daemon.store.list_runs(which, sort, query["limit"], query["offset"])
    documents = [run.document() for run in runs]
    return Answer(200, {"runs": documents, "total": daemon.store.count_runs(which)})


def _check_task_known(daemon: Daemon, task_name: str) -> None:
    if not daemon.knows_task(task_name):
        daemon.task(task_name)


def get_task_runs(daemon: Daemon, request: Request) -> Answer:
    """List the runs of a task."""
    task_name = request.path["task_name"]
    _check_task_known(daemon, task_name)
    query = {**request.query, "task_name": task_name}
    return get_all_runs(daemon, request._replace(query=query))


def get_run_summary(daemon: Daemon, request: Request) -> Answer:
    """Total the history."""
    counts: dict[str, int] = collections.Counter()
    for _, state, _, runs in daemon.store.tallies():
        counts[state] += runs
    document: dict[str, Any] = {
        "total": sum(counts.values()),
        "success": counts[SUCCESS],
        "failed": sum(counts[reason] for reason in FAILURES),
        "missed": counts[MISSED],
    }
    last_failure = daemon.store.last_failure()
    if last_failure:
        document["last_failure"] = last_failure.end_at
        document["last_failure_run"] = last_failure.document()
    return Answer(200, document)


# -- bulk


def check_selector(
    daemon: Daemon, request: Request, faults: list[Fault]
) -> list[Fault]:
    """Check that a selector has either ids or match_all."""
    body = request.body
    if not isinstance(body, dict):
        return faults
    if ("ids" in body) == bool(body.get("match_all")):
        message = 'must have either "ids" or "match_all": true'
        return [Fault(("body",), message), *faults]
    return faults


def _selected_ids(
    daemon: Daemon, body: dict[str, Any], table: str = "runs"
) -> list[str]:
    if "ids" in body:
        return list(dict.fromkeys(body["ids"]))
    which = _run_filter(body.get("filter", {}))
    spared = set(body.get("except_ids", ()))
    found: list[str] = []
    batch = daemon.store.list_ids(which, "", BULK_MAX_IDS, table)
    while batch:
        found += [run_id for run_id in batch if run_id not in spared]
        batch = daemon.store.list_ids(which, batch[-1], BULK_MAX_IDS, table)
    return found


def bulk_cancel_runs(daemon: Daemon, request: Request) -> Answer:
    """Stop the selected runs that are pending or running."""
    run_ids = _selected_ids(daemon, request.body)
    return Answer(200, {"affected": daemon.stop_all(run_ids)})


def bulk_delete_runs(daemon: Daemon, request: Request) -> Answer:
    """Delete the selected runs that have ended."""
    run_ids = _selected_ids(daemon, request.body)
    return Answer(200, {"affected": daemon.delete(run_ids)})


def bulk_restore_runs(daemon: Daemon, request: Request) -> Answer:
    """Put selected runs back that were deleted in the last ten minutes."""
    run_ids = _selected_ids(daemon, request.body, "trash")
    return Answer(200, {"affected": daemon.restore(run_ids)})


def _newest_of_each_task(daemon: Daemon, run_ids: list[str]) -> list[Run]:
    newest: dict[str, Run] = {}
    for start in range(0, len(run_ids), LIST_MAX_RUNS):
        for run in daemon.store.find_runs(run_ids[start : start + LIST_MAX_RUNS]):
            kept = newest.setdefault(run.task_name, run)
            newest[run.task_name] = max(kept, run)
    return list(newest.values())


def _rerun(daemon: Daemon, run: Run, trace: Trace) -> Run:
    task = daemon.task(run.task_name)
    if not task.api_trigger:
        raise Problem(403, _no_trigger(task))
    given: dict[str, str | None] = dict(run.params or {})
    if HIDDEN in given.values():
        raise Problem(422, "its secret parameters are not kept; trigger it anew")
    # A parameter that was omitted then is omitted again, whatever the default.
    omitted = {param.key: None for param in task.params if param.key not in given}
    fresh = daemon.trigger(run.task_name, {**omitted, **given}, "api", trace)
    if fresh.ended:
        status = 409 if fresh.end_reason == SKIPPED else 429
        raise Problem(status, fresh.error or "")
    return fresh


def bulk_rerun_runs(daemon: Daemon, request: Request) -> Answer:
    """Run each selected task once more, with its newest selected run's parameters."""
    started: list[dict[str, Any]] = []
    refused: list[dict[str, Any]] = []
    for run in _newest_of_each_task(daemon, _selected_ids(daemon, request.body)):
        try:
            fresh = _rerun(daemon, run, _trace(request))
        except Problem as problem:
            detail = "; ".join([problem.detail, *(f.message for f in problem.faults)])
            refusal = {"task_name": run.task_name, "status": problem.status}
            refused.append({**refusal, "detail": detail})
        else:
            started.append(fresh.document())
    triggered = [{"run_id": r["id"], "task_name": r["task_name"]} for r in started]
    document = {"affected": len(started), "runs": started, "triggered": triggered}
    return Answer(200, {**document, "refused": refused})


def _first_line(log: LogReader, start: int) -> int:
    """The line that `from` means; negative counts from the end."""
    wanted = start if start >= 0 else log.total_lines + start
    return max(wanted, log.first_available)


# -- logs


def get_log_page(daemon: Daemon, request: Request) -> Answer:
    """Read a page of a run's output."""
    run = _find_run(daemon, request)
    with LogReader(daemon.log_of(run)) as log:
        start = _first_line(log, request.query["from"])
        lines = log.lines(start, request.query["limit"])
        document = {
            "lines": [line.document() for line in lines],
            "first_available": log.first_available,
            "total_lines": log.total_lines,
            "truncated": log.truncated,
            "finalized": run.ended,
        }
    return Answer(200, document)


_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


def _live_chunks(log: LogReader, start: int, end: int) -> Iterator[bytes]:
    """The kept bytes of a live log between two positions. Segments may be dropped
    meanwhile, but not what is open. The first chunk is empty: from it on the log is
    closed at the end of this generator, however that comes."""
    with log:
        yield b""
        for block in log.raw(start, end):
            start += len(block)
            yield block
    if start < end:
        raise OSError(errno.EIO, "cut while it was read")


def _raw_chunks(daemon: Daemon, run: Run, start: int, end: int) -> Iterator[bytes]:
    base = daemon.log_of(run)
    while start < end:
        # Closed while the client takes its time: slow ones must not use up the files.
        with daemon.following, LogReader(base) as log:
            block = next(log.raw(start, end), b"")
        if not block:
            raise FileNotFoundError(f"{base}: removed while it was read")
        yield block
        start += len(block)


def _range(first: str, last: str, size: int) -> tuple[int, int]:
    """A byte range (RFC 9110, 14.1.2) as start and end. Raises Problem 416."""
    # More digits than any size has mean the end.
    low, high = (int(digits[:18] or 0) for digits in (first, last))
    start = low if first else max(0, size - high)
    end = min(high + 1, size) if first and last else size
    if start >= end:
        headers = {"Content-Range": f"bytes */{size}"}
        raise Problem(416, f"the output has {size} bytes", headers=headers)
    return start, end


def get_log_raw(daemon: Daemon, request: Request) -> Stream:
    """Download a run's output, the bytes as the program wrote them."""
    run = _find_run(daemon, request)
    with contextlib.ExitStack() as until_closed:
        log = until_closed.enter_context(LogReader(daemon.log_of(run)))
        start, end, status = 0, log.kept_bytes, 200
        size = end
        match = _RANGE.fullmatch(request.headers.get("range", "").replace(" ", ""))
        if match and match[0] != "bytes=-":
            start, end = _range(match[1], match[2], size)
            status = 206
        chunks = _raw_chunks(daemon, run, start, end)
        if not run.ended:
            # What decided on the size also gives the bytes.
            chunks = _live_chunks(log, start, end)
            next(chunks)
            until_closed.pop_all()
    headers = {"Accept-Ranges": "bytes"}
    if status == 206:
        headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
    return Stream(status, PLAIN_TEXT, chunks, end - start, headers)


def _log_events(daemon: Daemon, run: Run, n: int) -> Iterator[bytes]:
    for look in _follow(daemon, run, LogReader.next_lines, n):
        yield from _line_events(look)
    if look.run.ended:
        with LogReader(daemon.log_of(run)) as log:
            final_line = log.total_lines - 1
        status = look.run.end_reason or look.run.status
        yield event_text("done", {"final_line": final_line, "status": status})


def _last_seen(request: Request) -> int | None:
    """The number of the last event that a client has seen, if it says one."""
    text = request.headers.get("last-event-id", "")
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def stream_log(daemon: Daemon, request: Request) -> Stream:
    """Follow a run's output as server-sent events."""
    run = _find_run(daemon, request)
    with LogReader(daemon.log_of(run)) as log:
        last_seen = _last_seen(request)
        if last_seen is None:
            start = _first_line(log, request.query.get("from", 0))
        else:
            start = last_seen + 1
        start = max(start, log.total_lines - request.query["replay_limit"])
    events = _log_events(daemon, run, start)
    return Stream(200, EVENT_STREAM, events, headers=_UNBUFFERED)


def output_parts(daemon: Daemon, run: Run) -> Iterator[LogPart | Run]:
    """What a run writes, as it writes it, and at last the ended run, unless the daemon
    shuts down before."""
    for look in _follow(daemon, run, LogReader.next_parts, 0):
        yield from look.fresh
    if look.run.ended:
        yield look.run


def _parts_so_far(daemon: Daemon, run: Run, start: int) -> Iterator[LogPart]:
    while True:
        with LogReader(daemon.log_of(run)) as log:
            parts, start = log.next_parts(start)
        if not parts:
            return
        yield from parts


def _part_event(part: LogPart) -> bytes:
    return event_text("part", part.document(), part.end)


def _part_events(daemon: Daemon, run: Run, start: int) -> Iterator[bytes]:
    for look in _follow(daemon, run, LogReader.next_parts, start):
        yield from map(_part_event, look.fresh)
        yield from look.idle
    if look.run.ended:
        after = daemon.attempt_after(look.run)
        more = {"next_run_id": after.id} if after else {}
        yield event_text("done", {"run": look.run.document(), **more})


def stream_log_parts(daemon: Daemon, request: Request) -> Stream:
    """Follow a run's output byte for byte, by stream, as server-sent events."""
    run = _find_run(daemon, request)
    last_seen = _last_seen(request)
    start = request.query["from"] if last_seen is None else last_seen
    _check_readable(daemon, run)
    if request.query["follow"]:
        events = _part_events(daemon, run, start)
    else:
        done = event_text("done", {"run": run.document()})
        parts = map(_part_event, _parts_so_far(daemon, run, start))
        events = itertools.chain(parts, [done])
    return Stream(200, EVENT_STREAM, events, headers=_UNBUFFERED)


def _logs_to_search(
    daemon: Daemon, task_name: str, only_id: str | None, first_id: str
) -> Iterator[tuple[str, str]]:
    """(id, base path of the log) of one run, or of all of a task from one on, newest
    first. Raises Problem 404 and LogError, of that one."""
    if only_id:
        run = daemon.find_run(only_id)
        if not run or run.task_name != task_name:
            raise Problem(404, f'no run {only_id} of task "{task_name}"')
        _check_readable(daemon, run)
        yield only_id, daemon.log_at(task_name, only_id)
        return
    which = RunFilter(task_name=task_name)
    # "~" sorts behind every id character: below it means from it on.
    below = first_id and first_id + "~"
    while batch := daemon.store.list_ids(which, below, LIST_MAX_RUNS):
        for below in batch:
            yield below, daemon.log_at(task_name, below)


def search_logs(daemon: Daemon, request: Request) -> Answer:
    """Search the output of a task's runs, newest run first."""
    task_name, query = request.path["task_name"], request.query
    _check_task_known(daemon, task_name)
    first_id, _, line = (query.get("cursor") or "").partition(":")
    logs = _logs_to_search(daemon, task_name, query.get("run_id"), first_id)
    text = (query["q"], query["case"])
    start = (first_id, int(line or 0))
    found = find_in_logs(logs, text, start, query["limit"])
    document = {
        "hits": [
            {"run_id": run_id, **line._replace(continued=False).document()}
            for run_id, line in found.hits
        ],
        "exhausted": not found.next_run_id,
        "scanned_runs": found.scanned_runs,
    }
    if found.next_run_id:
        document["next_cursor"] = f"{found.next_run_id}:{found.next_line}"
    return Answer(200, document)


def _follow_ring(
    read: Callable[[int, float], list[Any]], n: int, is_over: Callable[[], bool]
) -> Iterator[list[Any]]:
    """The entries of a ring after a number as they come, and none every HANGUP_CHECK_S,
    until it is over and all were read."""
    wait_s = 0.0
    while True:
        # Looked at before the ring is read, so that nothing is missed.
        over = is_over()
        entries = read(n, 0 if over else wait_s)
        if over and not entries:
            return
        yield entries
        wait_s, n = HANGUP_CHECK_S, entries[-1][0] if entries else n


def _run_events(daemon: Daemon, after: int) -> Iterator[bytes]:
    ping_s = -STREAM_COMMENT_S

    def is_over() -> bool:
        return daemon.draining or daemon.pausing

    for events in _follow_ring(daemon.events_after, after, is_over):
        now_s = daemon.clock.monotonic_s()
        if now_s - ping_s >= STREAM_COMMENT_S:
            ping_s = now_s
            yield event_text("ping", {"time": time_text(daemon.clock.wall_ms())})
        for event in events:
            names = {"run_id": event.run.id, "task_name": event.run.task_name}
            document = {**names, "run": event.run.document()}
            yield event_text(event.name, document, event.id)
        if not events:
            yield b""


# -- the daemon itself


def stream_runs(daemon: Daemon, request: Request) -> Stream:
    """Follow what happens to runs as server-sent events."""
    last_seen = _last_seen(request)
    after = daemon.newest_event_id() if last_seen is None else last_seen
    return Stream(200, EVENT_STREAM, _run_events(daemon, after), headers=_UNBUFFERED)


def _all_events(
    daemon: Daemon, of_runs: Iterator[Chunk], *, stale: bool | None
) -> Iterator[Chunk]:
    """Events of runs, and between them those of the daemon; `stale` is what the client
    knows. They tell a state and no history, so there is no id to go on behind."""
    sample = daemon.samples()[-1:]
    for chunk in of_runs:
        yield chunk
        if sample != (newest := daemon.samples()[-1:]):
            sample = newest
            document = _sample_document(newest[0])
            told = {"sample": document, "uptime": _uptime_text(daemon)}
            yield event_text("system", told)
        # Who comes back gets what happened meanwhile first.
        if stale is not daemon.config_stale and not (stale is None and chunk):
            stale = daemon.config_stale
            yield event_text("config.stale", {"stale": stale})


def stream_all(daemon: Daemon, request: Request) -> Stream:
    """Follow runs, samples of the machine and tasks.json as server-sent events."""
    of_runs = stream_runs(daemon, request)
    # A client that comes back may have missed how it changed.
    stale = False if _last_seen(request) is None else None
    return of_runs._replace(chunks=_all_events(daemon, of_runs.chunks, stale=stale))


def get_info(daemon: Daemon, request: Request) -> Answer:
    """Say what this daemon is."""
    facts, config = request.server_facts(), daemon.config
    is_stale = config_differs(config)
    tasks = [task_document(state) for state in daemon.task_states()]
    by_systemd = os.environ.get("SYSTEMD_EXEC_PID") == str(os.getpid())
    document = {
        "name": PROGRAM,
        "app": PROGRAM,
        "version": VERSION,
        "python": PYTHON_VERSION,
        "pid": os.getpid(),
        "started_at": time_text(daemon.started_ms),
        "task_count": len(tasks),
        "tasks": tasks,
        "config_path": daemon.config_path,
        "config_changed": is_stale,
        "config_stale": is_stale,
        "config_loaded_at": time_text(daemon.config_loaded_ms),
        "data_dir": daemon.folder.path,
        "fingerprint": f"{zlib.crc32(os.fsencode(daemon.folder.path)):08x}",
        "port": facts.port,
        "socket_path": facts.socket_path,
        "resolved_timezone": config.zone_name or config.local_name or local_zone_name(),
        "timezone_source": "config" if config.zone_name else "system",
        "scheduling_active": not daemon.rests,
        "service_managed": by_systemd or "NOTIFY_SOCKET" in os.environ,
        "tracking": CGROUP if daemon.processes.cgroups.path else MARK,
        "auth_required": facts.auth_required,
        "auth_disabled": not facts.auth_required,
    }
    # What RunWisp 0.x has and this does not.
    without = {"capabilities": [], "cloud_enabled": False, "external_url": ""}
    return Answer(200, {**document, **without})


def get_instance(daemon: Daemon, request: Request) -> Answer:
    """Say what this daemon is, where clients of RunWisp 0.x ask for it."""
    return get_info(daemon, request)


def get_auth_status(daemon: Daemon, request: Request) -> Answer:
    """Say whether a token is needed, and whether the client may ask."""
    facts = request.server_facts()
    needed, may = facts.auth_required, facts.authenticated
    return Answer(200, {"auth_required": needed, "authenticated": may})


def _uptime_text(daemon: Daemon) -> str:
    """How long the daemon has been up: 0m, 3h 12m, 4d 1h."""
    m = int(daemon.uptime_s()) // 60
    h, d = m // 60, m // 1440
    return f"{d}d {h % 24}h" if d else f"{h}h {m % 60}m" if h else f"{m}m"


def get_system_stats(daemon: Daemon, request: Request) -> Answer:
    """Say how the daemon and its machine are doing."""
    states = daemon.task_states()
    disk = shutil.disk_usage(daemon.folder.path)
    used = resource.getrusage(resource.RUSAGE_SELF)
    samples, cores = daemon.samples(), os.cpu_count() or 1
    machine, work_dir = os.uname(), ""
    with contextlib.suppress(FileNotFoundError):  # removed since
        work_dir = os.getcwd()
    document = {
        "name": PROGRAM,
        "version": VERSION,
        "host": machine.nodename,
        "os": machine.sysname.lower(),
        "arch": machine.machine,
        "work_dir": work_dir,
        "uptime": _uptime_text(daemon),
        "uptime_ns": nanoseconds(daemon.uptime_s()),
        "cpu_count": cores,
        "cpu_cores": cores,
        "cpu_usage": samples[-1].cpu if samples else 0.0,
        "load_average": [round(load, 2) for load in os.getloadavg()],
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 3),
        "disk_free_bytes": disk.free,
        "disk_total_bytes": disk.total,
        **({"disk_usage": daemon.store.disk_usage()} if request.query["usage"] else {}),
        "runs_active": sum(state.running for state in states),
        "runs_queued": sum(state.queued for state in states),
        "http_waiting": request.server_facts().waiting,
        "threads": threading.active_count(),
    }
    return Answer(200, {**document, **memory_use()})


def _sample_document(sample: Sample) -> dict[str, Any]:
    # A program before this one may have handed over None for what it did not know.
    known = {name: value or 0 for name, value in sample._asdict().items()}
    return {"ts": parse_time(sample.at) // 1000, **known}


def get_metrics_history(daemon: Daemon, request: Request) -> Answer:
    """List how the daemon and its machine did in the last hour."""
    return Answer(200, [_sample_document(sample) for sample in daemon.samples()])


def _daemon_log_events(daemon: Daemon, n: int) -> Iterator[bytes]:
    heard_s = daemon.clock.monotonic_s()
    for lines in _follow_ring(daemon.log_after, n, daemon.is_over):
        for line in lines:
            if line.n > n + 1:
                yield event_text("dropped", {"dropped_lines": line.n - n - 1})
            whole = f"{time_text(line.ts)} {line.level} {line.text}"
            yield event_text("line", {**line._asdict(), "line": whole}, line.n)
            n = line.n
        now_s = daemon.clock.monotonic_s()
        silent = not lines and now_s - heard_s >= STREAM_COMMENT_S
        if lines or silent:
            heard_s = now_s
        if not lines:
            yield _COMMENT if silent else b""


def stream_daemon_log(daemon: Daemon, request: Request) -> Stream:
    """Follow the daemon's own log as server-sent events."""
    tail = daemon.log_tail
    after, last_seen = tail.newest_n - DAEMON_LOG_SHOWN_LINES, _last_seen(request)
    if last_seen is not None:
        after = min(last_seen, tail.newest_n)
    # Lines before the first one were of another daemon, or are none.
    events = _daemon_log_events(daemon, max(after, tail.first_n - 1))
    return Stream(200, EVENT_STREAM, events, headers=_UNBUFFERED)


# -- metrics: the text formats 0.0.4 of Prometheus and 1.0 of OpenMetrics

_TEXT_FORMAT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text"
_OPEN_METRICS_1 = f"{OPEN_METRICS}; version=1.0.0; charset=utf-8"


# Name, kind and help, and its samples: what follows the name, labels and value. The
# samples of a counter follow with _total, those of an info with _info.
_Sample = tuple[str, str, object]
_Family = tuple[str, str, str, Iterable[_Sample]]


def labels_text(**labels: object) -> str:
    """Labels as both formats write them."""
    pairs = []
    for name, value in labels.items():
        text = str(value).replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
        pairs.append(f'{name}="{text}"')
    return f"{{{','.join(pairs)}}}"


def _lines(name: str, samples: Iterable[_Sample]) -> str:
    return "".join([f"{name}{suffix}{labels} {x}\n" for suffix, labels, x in samples])


_NOTHING_ENDED = Counted((), 0.0, 0.0, None)
# Series that exist from the start, with 0: so that the first failure is an increase.
_USUAL_ENDS = (SUCCESS, *FAILURES)
TASK_FAMILIES = (
    ("taskrunnerd_runs", "counter", "Runs that ended, deleted ones included"),
    ("taskrunnerd_run_duration_seconds", "histogram",
     "Durations of the runs that ended and whose program was started"),
    ("taskrunnerd_task_last_success_timestamp_seconds", "gauge",
     "When the last successful run ended, 0 for never"),
    ("taskrunnerd_task_last_run_timestamp_seconds", "gauge",
     "When the last run ended that was to start, 0 for never"),
    ("taskrunnerd_task_last_exit_code", "gauge",
     "Exit code of the last run, -1 when there is none"),
    ("taskrunnerd_ticks_missed", "counter",
     "Ticks of the schedule that passed while nobody could start a run"),
    ("taskrunnerd_log_bytes_dropped", "counter",
     "Output that a limit or a full disk kept out of the logs"),
)  # fmt: skip


# Most tasks have had no end since the last scrape: of 200 tasks, one takes 0.7 ms and
# not 4.5.
@functools.lru_cache(METRIC_TEXTS_KEPT)
def _task_lines(
    label: str, triggers: tuple[str, ...], counted: Counted
) -> tuple[str, ...]:
    """The lines of a task in each of TASK_FAMILIES."""
    inside = label[:-1]
    counts = dict.fromkeys(itertools.product(_USUAL_ENDS, triggers), 0)
    counts.update({(reason, trigger): n for reason, trigger, n in counted.ended})
    took = [*itertools.accumulate(counted.took), counted.started]
    samples: tuple[list[_Sample], ...] = (
        [
            ("_total", f'{inside},end_reason="{reason}",triggered_by="{trigger}"}}', n)
            for (reason, trigger), n in counts.items()
        ],
        [
            *(
                ("_bucket", f'{inside},le="{limit_s}"}}', n)
                for limit_s, n in zip((*DURATION_BUCKETS_S, "+Inf"), took)
            ),
            ("_sum", label, counted.duration_ns / 1e9),
            ("_count", label, counted.started),
        ],
        [("", label, counted.last_success_s)],
        [("", label, counted.last_end_s)],
        [] if counted.exit_code is None else [("", label, counted.exit_code)],
        [("_total", label, counted.ticks_missed)],
        [("_total", label, counted.dropped_bytes)],
    )
    return tuple(_lines(f[0], of_one) for f, of_one in zip(TASK_FAMILIES, samples))


def _daemon_families(
    daemon: Daemon, facts: ServerFacts, states: Mapping[str, TaskState]
) -> list[_Family]:
    """Figures of the daemon and of the present state of its tasks, by label."""

    def one(value: object, suffix: str = "", labels: str = "") -> list[_Sample]:
        return [(suffix, labels, value)]

    coming = [(at, s.next_run_ms) for at, s in states.items()]
    answers = sorted(facts.answered.items())
    resident: list[_Sample] = []
    virtual: list[_Sample] = []
    # proc_pid_statm(5), where there is a /proc.
    with contextlib.suppress(OSError), open("/proc/self/statm", "rb") as file:
        pages = [int(text) * resource.getpagesize() for text in file.read().split()]
        virtual, resident = one(pages[0]), one(pages[1])
    files: list[_Sample] = []
    with contextlib.suppress(OSError):
        # One of them is the look itself.
        files = one(len(os.listdir("/dev/fd")) - 1)
    most: object = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = "+Inf" if most == resource.RLIM_INFINITY else most
    # fmt: off
    return [
        ("taskrunnerd_task_next_run_timestamp_seconds", "gauge",
         "When the schedule starts the task next",
         [("", label, ms / 1000) for label, ms in coming if ms is not None]),
        ("taskrunnerd_runs_active", "gauge", "Runs that are running",
         [("", label, state.running) for label, state in states.items()]),
        ("taskrunnerd_queue_length", "gauge", "Runs that wait in the queue",
         [("", label, state.queued) for label, state in states.items()]),
        ("taskrunnerd_task_paused", "gauge", "Whether the schedule is paused",
         [("", label, int(bool(state.pause))) for label, state in states.items()]),
        ("taskrunnerd_task_consecutive_failures", "gauge",
         "Runs that failed since the last success, by their last attempts",
         [("", label, state.failures) for label, state in states.items()]),
        ("taskrunnerd_scheduler_lag_seconds", "gauge",
         "How late the schedule was for what was due last, or is by now",
         one(daemon.scheduler_lag_s())),
        ("taskrunnerd_http_requests", "counter",
         "Answers since the daemon started, by route and status",
         [("_total", labels_text(route=r, status=x), n) for (r, x), n in answers]),
        ("taskrunnerd_http_waiting", "gauge",
         "Requests being answered, those that wait or stream and this one included",
         one(facts.waiting)),
        ("taskrunnerd_config_last_reload_successful", "gauge",
         "Whether tasks.json could be used when it was loaded last",
         one(int(daemon.last_reload_good))),
        ("taskrunnerd_build", "info", "Version of the daemon and of its Python",
         one(1, "_info", labels_text(version=VERSION, python=PYTHON_VERSION))),
        ("process_cpu_seconds", "counter", "CPU time of the daemon, user and system",
         one(time.process_time(), "_total")),
        ("process_start_time_seconds", "gauge",
         "Unix time at which the daemon started or was upgraded in place",
         one(daemon.started_ms / 1000)),
        ("process_resident_memory_bytes", "gauge", "Resident memory of the daemon",
         resident),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory of the daemon",
         virtual),
        ("process_open_fds", "gauge", "Open files of the daemon", files),
        ("process_max_fds", "gauge", "How many files it may have open", one(most)),
        ("process_threads", "gauge", "Threads of the daemon",
         one(threading.active_count())),
    ]
    # fmt: on


def get_metrics(daemon: Daemon, request: Request) -> Stream:
    """Tell the figures that a monitoring system collects."""
    counted = daemon.counted()
    states = {labels_text(task=s.task.name): s for s in daemon.task_states()}
    texts: list[tuple[str, ...]] = []
    for label, state in states.items():
        task = state.task
        may = {"api": task.api_trigger, "cron": task.cron, "startup": task.run_on_start}
        triggers = tuple(trigger for trigger, possible in may.items() if possible)
        of_task = counted.get(task.name, _NOTHING_ENDED)
        texts.append(_task_lines(label, triggers, of_task))
    found = [
        (*family, "".join([text[column] for text in texts]))
        for column, family in enumerate(TASK_FAMILIES)
    ]
    families = _daemon_families(daemon, request.server_facts(), states)
    found += [(*of[:3], _lines(of[0], of[3])) for of in families]
    new = request.media == OPEN_METRICS
    body = ""
    for name, kind, about, lines in found:
        if not new:
            # The older format knows no info, and calls a family as its samples.
            name += {"counter": "_total", "info": "_info"}.get(kind, "")
            kind = "gauge" if kind == "info" else kind
        if lines:
            body += f"# HELP {name} {about}\n# TYPE {name} {kind}\n{lines}"
    raw = (body + ("# EOF\n" if new else "")).encode()
    media = _OPEN_METRICS_1 if new else _TEXT_FORMAT
    return Stream(200, media, iter([raw]), len(raw), {"Vary": "Accept"})


def reload(daemon: Daemon, request: Request) -> Answer:
    """Load tasks.json again, all of it or nothing."""
    try:
        return Answer(200, daemon.reload()._asdict())
    except ConfigError as error:
        faults = [
            Fault((fault.place or fault.path,), str(fault)) for fault in error.faults
        ]
        raise Problem(422, "tasks.json cannot be used", faults=faults) from None


def get_health(daemon: Daemon, request: Request) -> Answer:
    """Say that the process answers."""
    return Answer(200, {"status": "ok"})


def get_health_text(daemon: Daemon, request: Request) -> Stream:
    """Say that the process answers, in plain text."""
    return Stream(200, PLAIN_TEXT, iter([b"OK"]), 2)


def get_readiness(daemon: Daemon, request: Request) -> Answer:
    """Say whether triggers are taken."""
    reason = daemon.why_not_ready()
    if reason:
        return Answer(503, {"status": "unavailable", "detail": reason}, RETRY_LATER)
    return Answer(200, {"status": "ok"})


def schema_document(name: str) -> JsonSchema:
    """A named JSON Schema as it is served."""
    return {"$schema": SCHEMA_DIALECT, "$id": f"/schemas/{name}.json", **SCHEMAS[name]}


def get_schema(daemon: Daemon, request: Request) -> Stream:
    """Serve a JSON Schema."""
    name = request.path["schema_name"]
    if name not in SCHEMAS:
        raise Problem(404, f'no schema "{name}"{nearest(name, SCHEMAS)}')
    body = compact_json(schema_document(name))
    return Stream(200, SCHEMA_JSON, iter([body]), len(body))


_PAGE_POLICY = (
    "default-src 'none'; script-src {script}; style-src {style}; connect-src 'self';"
    " img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)


@functools.lru_cache(maxsize=1)
def page_policy(page: str) -> str:
    """The Content-Security-Policy (CSP 3) under which the script and the style of a
    page work and nothing else does: they are named by their hashes."""
    import base64
    import hashlib  # and OpenSSL with it; only the page needs them

    sources = {}
    for tag in ("script", "style"):
        inside = page.partition(f"<{tag}>")[2].partition(f"</{tag}>")[0]
        digest = base64.b64encode(hashlib.sha256(inside.encode()).digest()).decode()
        sources[tag] = f"'sha256-{digest}'"
    return _PAGE_POLICY.format(**sources)


_TAKES_HTML = re.compile(r"(?:text/html|text/\*|\*/\*)", re.IGNORECASE)


def get_page(daemon: Daemon, request: Request) -> Stream:
    """Serve the page on which people see and run the tasks."""
    if not _TAKES_HTML.search(request.headers.get("accept", "*/*")):
        raise Problem(406, "here is a page of HTML; the API is told by /openapi.json")
    page = request.server_facts().page
    headers = {"Content-Security-Policy": page_policy(page), "Vary": "Accept"}
    headers["Cache-Control"] = "no-cache"
    body = page.encode()
    media = "text/html; charset=utf-8"
    return Stream(200, media, iter([body]), len(body), headers)


Check = Callable[[Daemon, Request, list[Fault]], list[Fault]]
_FILTERS = "status task_name triggered_by via created_after created_before"
_FILTERS += " exit_code_min exit_code_max retries_only search"
_FILTERS += " sort_field sort_direction limit offset"
_LOG = "/api/tasks/{task_name}/runs/{run_id}/log"
_LIVE = (TEXT, EVENT_STREAM)


class Route(NamedTuple):
    """One row of the API. `query` names PARAMS, `headers` names HEADERS, `body` and
    `answer` name SCHEMAS; `check` finds faults that a schema cannot; `also` are the
    media types that a client may prefer to `media`; with `takes_blanks`, members of the
    body that are blank are absent."""

    method: str
    path: str
    operation: Operation
    answer: str = ""
    status: int = 200
    query: str = ""
    headers: str = ""
    body: str = ""
    check: Check | None = None
    media: str = JSON
    also: tuple[str, ...] = ()
    needs_body: bool = False
    needs_query: str = ""
    takes_blanks: bool = False
    open_to_all: bool = False

    @property
    def operation_id(self) -> str:
        """trigger_run as triggerRun."""
        first, *others = self.operation.__name__.split("_")
        return first + "".join(word.capitalize() for word in others)


_BULK: Any = {
    "body": "BulkSelector",
    "check": check_selector,
    "needs_body": True,
    "takes_blanks": True,
}


# fmt: off
ROUTES = (
    Route("POST", "/api/tasks/{task_name}/run", trigger_run, "Run", 201,
          query="wait wait_timeout output",
          headers=KEY_HEADER + " Prefer Last-Event-ID traceparent",
          body="Trigger", check=check_trigger, also=_LIVE),
    Route("GET", "/api/tasks", get_tasks, "Tasks"),
    Route("GET", "/api/tasks/{task_name}", get_task, "Task"),
    Route("GET", "/api/tasks/{task_name}/next", get_next_ticks, "NextTicks", query="n"),
    Route("POST", "/api/tasks/{task_name}/pause", pause_task, "Task",
          body="PauseRequest"),
    Route("POST", "/api/tasks/{task_name}/resume", resume_task, "Task"),
    Route("POST", "/api/pause", pause_all, "AllPaused", body="PauseRequest"),
    Route("POST", "/api/resume", resume_all, "AllPaused"),
    Route("GET", "/api/tasks/{task_name}/runs", get_task_runs, "Runs", query=_FILTERS),
    Route("GET", "/api/tasks/{task_name}/runs/{run_id}", get_run, "Run",
          query="wait wait_timeout output", also=_LIVE,
          headers="Prefer If-None-Match Last-Event-ID"),
    Route("DELETE", "/api/tasks/{task_name}/runs/{run_id}", delete_run, "", 204),
    Route("POST", "/api/tasks/{task_name}/runs/{run_id}/stop", stop_run, "Message"),
    Route("GET", _LOG, get_log_page, "LogPage", query="from limit:log"),
    Route("GET", _LOG + "/raw", get_log_raw, headers="Range", media=TEXT),
    Route("GET", _LOG + "/stream", stream_log, "LogLine",
          query="from:stream replay_limit", headers="Last-Event-ID",
          media=EVENT_STREAM),
    Route("GET", _LOG + "/parts", stream_log_parts, "LogPart",
          query="from:parts follow", headers="Last-Event-ID", media=EVENT_STREAM),
    Route("GET", "/api/tasks/{task_name}/log/search", search_logs, "LogSearch",
          query="q case regex run_id limit:search cursor", needs_query="q"),
    Route("GET", "/api/runs", get_all_runs, "Runs", query=_FILTERS),
    Route("GET", "/api/runs/summary", get_run_summary, "RunSummary"),
    Route("GET", "/api/runs/stream", stream_runs, "RunEvent", headers="Last-Event-ID",
          media=EVENT_STREAM),
    Route("GET", "/api/runs/{run_id}", get_run_by_id, "Run",
          query="wait wait_timeout output", also=_LIVE,
          headers="Prefer If-None-Match Last-Event-ID"),
    Route("POST", "/api/runs/bulk/cancel", bulk_cancel_runs, "BulkAffected", **_BULK),
    Route("POST", "/api/runs/bulk/delete", bulk_delete_runs, "BulkAffected", **_BULK),
    Route("POST", "/api/runs/bulk/restore", bulk_restore_runs, "BulkAffected", **_BULK),
    Route("POST", "/api/runs/bulk/rerun", bulk_rerun_runs, "BulkRerun",
          headers="traceparent", **_BULK),
    Route("POST", "/api/reload", reload, "Reload"),
    Route("GET", "/api/stream", stream_all, "DaemonEvent", headers="Last-Event-ID",
          media=EVENT_STREAM),
    Route("GET", "/api/info", get_info, "Info"),
    Route("GET", "/api/instance", get_instance, "Info"),
    Route("GET", "/api/auth/status", get_auth_status, "AuthStatus", open_to_all=True),
    Route("GET", "/api/system", get_system_stats, "SystemStats", query="usage"),
    Route("GET", "/api/system/history", get_metrics_history, "SystemHistory"),
    Route("GET", "/api/daemon/log-stream", stream_daemon_log, "DaemonLogLine",
          headers="Last-Event-ID", media=EVENT_STREAM),
    Route("GET", "/metrics", get_metrics, media=TEXT, also=(OPEN_METRICS,)),
    Route("GET", "/", get_page, media="text/html", open_to_all=True),
    Route("GET", "/health", get_health_text, media=TEXT, open_to_all=True),
    Route("GET", "/healthz", get_health, "Health", open_to_all=True),
    Route("GET", "/readyz", get_readiness, "Health", open_to_all=True),
    Route("GET", "/schemas/{schema_name}.json", get_schema,
          media=SCHEMA_JSON),
)
# fmt: on


# ---- 13. OpenAPI: the API described by its own tables -----------------------
# Owns the OpenAPI 3.1 document, made from 4 and 12, and the route that serves it.


def _component_refs(value: Any) -> Any:
    """A schema with its references pointing into the OpenAPI document."""
    if isinstance(value, dict):
        refs = {k: _component_refs(v) for k, v in value.items()}
        if isinstance(refs.get("$ref"), str):
            name = refs["$ref"][: -len(".json")]
            refs["$ref"] = f"#/components/schemas/{name}"
        return refs
    return [_component_refs(v) for v in value] if isinstance(value, list) else value


def _media(media_type: str, schema: JsonSchema) -> dict[str, Any]:
    return {media_type: {"schema": schema}}


def _schema_ref(name: str) -> JsonSchema:
    return {"$ref": f"#/components/schemas/{name}"}


_OTHER_FORMS = {
    OPEN_METRICS: "The same figures as OpenMetrics 1.0",
    TEXT: "The output as it is written; the end is told in the trailers "
    + ", ".join(RUN_TRAILERS),
    EVENT_STREAM: "The run as it goes on: the event `run` with the Run, again when its"
    " status changes or a further attempt follows; `line`, `rotated` and `dropped` as"
    " in streamLog; in the end `done` with the ended Run, or `unfinished` when"
    " wait_timeout is over",
}


def _answers(route: Route) -> dict[str, Any]:
    """The answers by status, each with the headers that all have."""
    good: dict[str, Any] = {"description": "Done"}
    if route.answer:
        good["content"] = _media(route.media, _schema_ref(route.answer))
    elif route.status != 204:
        kind = "object" if "json" in route.media else "string"
        good["content"] = _media(route.media, {"type": kind})
    for media in route.also:
        form = {"type": "string", "description": _OTHER_FORMS[media]}
        good["content"].update(_media(media, form))
    problem = _media(PROBLEM_JSON, _schema_ref("ErrorModel"))
    answers = {
        str(route.status): good,
        "default": {"description": "A problem", "content": problem},
    }
    if "If-None-Match" in route.headers:
        unchanged = "Not changed since the version in If-None-Match"
        answers["304"] = {"description": unchanged}
    if "Range" in route.headers:
        answers["206"] = {**good, "description": "The bytes in Range"}
    headers = {REQUEST_ID_HEADER: {"$ref": "#/components/headers/RequestId"}}
    if KEY_HEADER in route.headers:
        headers[REPLAYED_HEADER] = {"$ref": "#/components/headers/Replayed"}
        headers[COALESCED_HEADER] = {"$ref": "#/components/headers/Coalesced"}
    return {status: {**one, "headers": headers} for status, one in answers.items()}


def _parameters(route: Route) -> list[dict[str, Any]]:
    in_path = re.findall(r"{(\w+)}", route.path)
    found = [
        {"name": name, "in": "path", "required": True, "schema": PATH_PARAMS[name]}
        for name in in_path
    ]
    for key in route.query.split():
        name = key.partition(":")[0]
        needed = {"required": True} if name in route.needs_query.split() else {}
        found.append({"name": name, "in": "query", **needed, "schema": PARAMS[key]})
    in_header = (*route.headers.split(), REQUEST_ID_HEADER)
    found += [{"name": n, "in": "header", "schema": HEADERS[n]} for n in in_header]
    return found


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.operation_id,
        "summary": (route.operation.__doc__ or "").partition("\n")[0].rstrip("."),
        "parameters": _parameters(route),
        "responses": _answers(route),
    }
    if route.body:
        content = _media("application/json", _schema_ref(route.body))
        operation["requestBody"] = {"required": route.needs_body, "content": content}
    if route.open_to_all:
        operation["security"] = []
    return operation


def openapi_document(routes: Iterable[Route]) -> dict[str, Any]:
    """The OpenAPI 3.1 document of some routes."""
    paths: dict[str, Any] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route)
    bearer = {"type": "http", "scheme": "bearer"}
    request_id = {"type": "string", "description": "Id of the request, given or made"}
    said = "true when the run is that of an earlier request with this Idempotency-Key"
    replayed = {"type": "string", "description": said}
    said = "true when the run was there and waits with the same parameters"
    coalesced = {"type": "string", "description": said}
    return {
        "openapi": "3.1.0",
        "info": {"title": PROGRAM, "version": VERSION},
        "servers": [{"url": "/"}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {
            "schemas": _component_refs(SCHEMAS),
            "securitySchemes": {"token": bearer},
            "headers": {
                "RequestId": {"required": True, "schema": request_id},
                "Replayed": {"schema": replayed},
                "Coalesced": {"schema": coalesced},
            },
        },
    }


def get_openapi(daemon: Daemon, request: Request) -> Stream:
    """Serve the OpenAPI document."""
    body = compact_json(openapi_document(ROUTES))
    return Stream(200, "application/json", iter([body]), len(body))


API = (*ROUTES, Route("GET", "/openapi.json", get_openapi, media="application/json"))


# ---- 14. HTTP: connections, parsing, answers, streams -----------------------
# Owns the sockets, TLS and everything that is HTTP (RFC 9110, RFC 9112). Relies on 2,
# 4, 5 and 11 to 13; knows API and nothing about tasks. ThreadingHTTPServer gives each
# connection its thread. The slow or unsafe corners of http.server are overridden: the
# e-mail header parser, HTML error pages, unbuffered writes, DNS at bind.

TITLES = {
    400: "Bad Request", 401: "Unauthorized", 403: "Forbidden", 404: "Not Found",
    405: "Method Not Allowed", 406: "Not Acceptable", 409: "Conflict", 410: "Gone",
    413: "Content Too Large", 414: "URI Too Long", 415: "Unsupported Media Type",
    416: "Range Not Satisfiable", 417: "Expectation Failed",
    421: "Misdirected Request", 422: "Unprocessable Content", 429: "Too Many Requests",
    431: "Request Header Fields Too Large", 500: "Internal Server Error",
    501: "Not Implemented", 503: "Service Unavailable",
    505: "HTTP Version Not Supported", 507: "Insufficient Storage",
}  # fmt: skip
_PHRASES = {
    **TITLES, 200: "OK", 201: "Created", 204: "No Content", 206: "Partial Content",
    304: "Not Modified",
}  # fmt: skip


UNKNOWN_ROUTE = "unknown"


class Options(NamedTuple):
    """How the server treats its clients."""

    token: str = ""
    allowed_hosts: frozenset[str] = frozenset()
    max_connections: int = CONNECTIONS_DEFAULT
    heartbeat_s: float = HEARTBEAT_S
    page: str = ""


class Head(NamedTuple):
    """The head of a request; header names in lower case."""

    method: str
    path: str
    query: str
    version: str
    headers: dict[str, str]


def _malformed(status: int, detail: str) -> Problem:
    """A problem after which the end of the request is unknown."""
    return Problem(status, detail, closes=True)


_CHUNK_HEAD = re.compile(
    rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\x00-\x08\x0a-\x1f\x7f]*)?\r\n"
)
_TOKEN_TEXT = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_BAD_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_ONLY_ONCE = ("host", "content-length", "content-type", "authorization", "origin")


def _parse_fields(lines: list[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN_TEXT.fullmatch(name):
            raise _malformed(400, "a header field must be NAME: VALUE on one line")
        if _BAD_VALUE.search(value):
            raise _malformed(400, f"control characters in header field {name}")
        name, value = name.lower(), value.strip(" \t")
        if name not in headers:
            headers[name] = value
        elif name in _ONLY_ONCE:
            raise _malformed(400, f"header field {name} stands twice")
        else:
            headers[name] += ", " + value
    return headers


_ABSOLUTE = re.compile(r"https?://([^/?#]*)", re.IGNORECASE)
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._~%!$&'()*+,;=-]*)(?::[0-9]*)?")


def _split_target(target: str) -> tuple[str, str, str]:
    """Host (empty unless the target is absolute), path and query of a target."""
    if not (target.isascii() and target.isprintable()):
        raise _malformed(400, "the target must be percent-encoded ASCII")
    absolute = _ABSOLUTE.match(target)
    host = absolute[1] if absolute else ""
    if absolute:
        target = target[absolute.end() :]
        target = target if target.startswith("/") else "/" + target
    path, _, query = target.partition("#")[0].partition("?")
    if not path.startswith("/") and target != "*":
        raise _malformed(400, "the target must begin with /")
    return host, path, query


def parse_head(raw: bytes) -> Head:
    """The head of a request, without its last empty line. Raises Problem."""
    first, *lines = raw.decode("latin-1").split("\r\n")
    parts = first.split(" ")
    if len(parts) != 3 or not _TOKEN_TEXT.fullmatch(parts[0]) or not parts[1]:
        raise _malformed(400, "the request line must be METHOD TARGET HTTP/1.1")
    method, target, version = parts
    if version not in ("HTTP/1.1", "HTTP/1.0"):
        known = re.fullmatch(r"HTTP/\d(\.\d)?", version)
        raise _malformed(505 if known else 400, "only HTTP/1.1 and HTTP/1.0 are spoken")
    if len(lines) > HEADERS_MAX_COUNT:
        raise _malformed(431, f"more than {HEADERS_MAX_COUNT} header fields")
    headers = _parse_fields(lines)
    host, path, query = _split_target(target)
    if host:
        # The target knows better than the field (RFC 9112, 3.2.2).
        headers["host"] = host
    if version == "HTTP/1.1" and "host" not in headers:
        raise _malformed(400, "a Host header must be there")
    if not _HOST.fullmatch(headers.get("host", "")):
        raise _malformed(400, "the Host header must be NAME or NAME:PORT")
    return Head(method, path, query, version, headers)


def _body_length(headers: Mapping[str, str]) -> int | None:
    """Length of the body, None when it is chunked. Raises Problem."""
    coding, length = headers.get("transfer-encoding"), headers.get("content-length")
    if coding is not None:
        if length is not None:
            raise _malformed(400, "both Content-Length and Transfer-Encoding are there")
        if coding.lower() != "chunked":
            raise _malformed(501, "the only transfer coding is chunked")
        return None
    if length is None:
        return 0
    if not re.fullmatch("[0-9]{1,18}", length):
        raise _malformed(400, "Content-Length must be a number")
    return int(length)


# -- routing


_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
# The routes of each path by method.
_STATIC: dict[str, dict[str, Route]] = {}
_DYNAMIC: dict[str, tuple[re.Pattern[str], dict[str, Route]]] = {}
for _route in API:
    if "{" in _route.path:
        _pattern = re.sub(r"{(\w+)}", "(?P<\\1>[^/]*)", _route.path.replace(".", r"\."))
        _path = _DYNAMIC.setdefault(_route.path, (re.compile(_pattern), {}))
        _path[1][_route.method] = _route
    else:
        _STATIC.setdefault(_route.path, {})[_route.method] = _route


_METHODS = {_route.method for _route in API}


def match(path: str) -> tuple[dict[str, Route], dict[str, str]]:
    """The routes of a path by method, and its parameters, decoded."""
    if path in _STATIC:
        return _STATIC[path], {}
    for pattern, routes in _DYNAMIC.values():
        found = pattern.fullmatch(path)
        if found:
            texts = found.groupdict().items()
            return routes, {name: unquote(text) for name, text in texts}
    return {}, {}


def allowed_methods(routes: Collection[str]) -> str:
    """The Allow header of routes with these methods."""
    more = ("HEAD", "OPTIONS") if "GET" in routes else ("OPTIONS",)
    return ", ".join(sorted({*routes, *more}))


_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")


def _media_weight(params: list[str]) -> float:
    """The q among the parameters of a media range; 0 for one that is none."""
    for param in params:
        name, _, value = (text.strip() for text in param.partition("="))
        if name == "q":
            return float(value) if _WEIGHT.fullmatch(value) else 0.0
    return 1.0


def negotiated(accept: str, offered: Sequence[str]) -> str:
    """The media type that an Accept header (RFC 9110, 12.5.1) rates highest. If it
    rates several equally, or none above 0, the one offered first wins."""
    if accept in ("", "*/*"):
        return offered[0]
    weights: dict[str, float] = {}
    for part in accept.lower().split(","):
        name, *params = part.split(";")
        name, weight = name.strip(), _media_weight(params)
        weights[name] = max(weight, weights.get(name, 0.0))

    def weight_of(media: str) -> float:
        """The weight of the narrowest range that has it."""
        ranges = (media, media.partition("/")[0] + "/*", "*/*")
        return next((weights[name] for name in ranges if name in weights), 0.0)

    return max(offered, key=weight_of)


def _query_texts(text: str) -> dict[str, str]:
    """The parameters of a query string, the first of each name."""
    given: dict[str, str] = {}
    for part in filter(None, text.split("&")):
        name, _, value = part.partition("=")
        given.setdefault(unquote_plus(name), unquote_plus(value))
    return given


_IN_BODY = '; a parameter of the task belongs into the body: {"params": {…}}'


def _unknown_names(route: Route, given: Mapping[str, str]) -> Iterator[Fault]:
    """Faults for unknown names in the query of a request that changes something:
    ignoring one would do something else than was asked for."""
    known = [key.partition(":")[0] for key in route.query.split()]
    fields = SCHEMAS[route.body]["properties"] if route.body else ()
    hint = _IN_BODY if "params" in fields else ""
    for index, name in enumerate(name for name in given if name not in known):
        near = nearest(name, known) if index < FAULTS_LISTED else ""
        # The value is not shown: it may be a secret.
        yield Fault(("query", name), f"unknown query parameter{hint}{near}")


def _bind_query(
    route: Route, given: Mapping[str, str]
) -> tuple[dict[str, Any], list[Fault]]:
    """Typed query values with their defaults, and their faults."""
    values: dict[str, Any] = {}
    faults: list[Fault] = []
    given = {k: text for k, text in given.items() if text or k not in MAY_BE_BLANK}
    for key in route.query.split():
        schema, name = PARAMS[key], key.partition(":")[0]
        if name not in given:
            if name in route.needs_query.split():
                faults.append(Fault(("query", name), "must be there"))
            if "default" in schema:
                values[name] = schema["default"]
            continue
        try:
            values[name] = coerced(schema, given[name])
            faults += find_faults(schema, values[name], ("query", name))
        except ValueError as error:
            faults.append(Fault(("query", name), str(error), given[name]))
    if route.method not in _SAFE_METHODS:
        faults += _unknown_names(route, given)
    return values, faults


def _read_body(raw: bytes) -> tuple[Any, list[Fault]]:
    """A JSON value and the names that stand in it twice. Raises ValueError."""
    try:
        return json_value(raw, written_number, unique=True), []
    except RepeatedName:
        twice = Places(raw.decode("utf-8-sig")).repeated
        places = dict.fromkeys(at for at, _ in twice)
        faults = [Fault(("body", *at), REPEATED) for at in places]
        return json_value(raw, written_number), faults


def _check_media(headers: Mapping[str, str]) -> None:
    """Raises Problem 415 for a body that is encoded, or not JSON."""
    coding = headers.get("content-encoding", "").strip().lower()
    if coding not in ("", "identity"):
        detail = f"the body must not be encoded, and it is: {shortened(coding)}"
        raise Problem(415, detail, headers={"Accept-Encoding": "identity"})
    media_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if (
        media_type
        and media_type != "application/json"
        and not media_type.endswith("+json")
    ):
        raise Problem(415, "the body must be application/json")


def _bind_body(
    route: Route, raw: bytes, headers: Mapping[str, str]
) -> tuple[Any, list[Fault]]:
    """The body's JSON value (None when there is none) and its faults.
    Raises Problem 400, 415."""
    if not route.body:
        return None, []
    if not raw:
        missing = [Fault(("body",), "must be there")]
        return None, missing if route.needs_body else []
    _check_media(headers)
    try:
        body, faults = _read_body(raw)
    except RecursionError:
        reason = "nested too deeply"
    except UnicodeDecodeError:
        reason = "not UTF-8"
    except ValueError as error:
        reason = str(error)
    else:
        schema = SCHEMAS[route.body]
        body = without_blanks(schema, body) if route.takes_blanks else body
        return body, [*faults, *find_faults(schema, body, ("body",))]
    fault = Fault(("body",), f"not JSON: {reason}")
    raise Problem(400, "the body is not JSON", faults=[fault])


# -- access


def _is_local_name(name: str) -> bool:
    """Whether a name is an address, or one that means this machine."""
    plain = name.rstrip(".")
    if plain == "localhost" or plain.endswith(".localhost"):
        return True
    try:
        family = socket.AF_INET6 if ":" in name else socket.AF_INET
        socket.inet_pton(family, name.partition("%")[0])
    except (OSError, ValueError):
        return False
    return True


def _check_token(authorization: str, token: str) -> None:
    import hmac  # and OpenSSL with it; only a daemon with a token needs them

    scheme, _, given = authorization.partition(" ")
    same = hmac.compare_digest(given.strip().encode("latin-1"), token.encode())
    if scheme.lower() != "bearer" or not same:
        headers = {"WWW-Authenticate": f'Bearer realm="{PROGRAM}"'}
        raise Problem(
            401, "a token is needed: Authorization: Bearer …", headers=headers
        )


def _is_owner(client: socket.socket) -> bool:
    """Whether the other end of a Unix socket belongs to the daemon's own user or to
    root. Where the kernel does not tell, the mode of the socket's file has to do."""
    if not hasattr(socket, "SO_PEERCRED"):
        return True
    size = struct.calcsize("iII")
    raw = client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, uid, _ = struct.unpack("iII", raw)
    return uid in (0, os.geteuid())


# -- the bytes of a connection

_POLL_GONE = select.POLLHUP | select.POLLERR


def _pem_fault(path: str, mark: str) -> str:
    """Why a file does not hold what it should, in PEM (RFC 7468); else empty."""
    try:
        with open(path, encoding="ascii", errors="replace") as file:
            text = file.read(MIB)
    except OSError as error:
        return error.strerror or str(error)
    found = re.search(rf"^-----BEGIN [A-Z ]*{mark}-----", text, re.MULTILINE)
    return "" if found else f"no -----BEGIN {mark}----- in it; write PEM"


def tls_context(cert_path: str, key_path: str) -> ssl.SSLContext:
    """How to speak TLS with a certificate, those that sign it behind it, and its key.
    Raises ConfigError."""
    import ssl  # only a daemon with a certificate needs it

    wanted = (
        ("--tls-cert", cert_path, "CERTIFICATE"),
        ("--tls-key", key_path, "PRIVATE KEY"),
    )
    checked = [(flag, path, _pem_fault(path, mark)) for flag, path, mark in wanted]
    faults = [ConfigFault(p, 0, 0, flag, fault) for flag, p, fault in checked if fault]
    if faults:
        raise ConfigError(faults)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])

    def ask_nobody() -> str:
        """Instead of OpenSSL's question for a passphrase at the terminal."""
        raise ValueError("it needs a passphrase; write the key without one")

    try:
        context.load_cert_chain(cert_path, key_path, ask_nobody)
    except (OSError, ValueError) as error:
        # ssl.SSLError is an OSError.
        reason = getattr(error, "reason", None) or str(error)
        if reason == "KEY_VALUES_MISMATCH":
            reason = "it is not the key of the certificate"
        raise ConfigError([ConfigFault(key_path, 0, 0, "--tls-key", reason)]) from None
    return context


# The first byte of a handshake, and an alert (RFC 8446, 5.1 and 6): fatal, internal
# error. There is none for a server that has no room.
_TLS_HANDSHAKE = b"\x16"
_TLS_REFUSAL = b"\x15\x03\x01\x00\x02\x02\x50"


class _Wire:
    """The socket of a connection: whole requests come in, bytes go out, and nothing
    takes longer than its time."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._limits: dict[int, float] = {}
        self.has_tls = False
        # Received, but not yet consumed.
        self._buffer = b""
        if connection.family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def send(self, raw: bytes) -> None:
        """Send all of it. Raises OSError when the client does not take it in time."""
        self._limit_wait(socket.SO_SNDTIMEO, SEND_TIMEOUT_S)
        if not self.has_tls:
            self._socket.sendall(raw)
            return
        # The limit is for a client that takes nothing. The kernel knows; OpenSSL counts
        # the time of the whole.
        for start in range(0, len(raw), TLS_SEND_BYTES):
            self._socket.sendall(raw[start : start + TLS_SEND_BYTES])

    def first_byte(self) -> bytes:
        """The first byte, which stays unread; empty when the client has closed. Raises
        OSError when it does not come in time."""
        self._limit_wait(socket.SO_RCVTIMEO, HEADER_TIMEOUT_S)
        return self._socket.recv(1, socket.MSG_PEEK)

    def begin_tls(self, context: ssl.SSLContext) -> None:
        """Shake hands. Raises OSError."""
        # From here on the socket given is empty: this one has its descriptor.
        self._socket = context.wrap_socket(
            self._socket, server_side=True, do_handshake_on_connect=False
        )
        self.has_tls = True
        self._socket.settimeout(HEADER_TIMEOUT_S)
        self._socket.do_handshake()

    def _end_tls(self) -> None:
        """Tell the client that all was sent, without waiting for it to say the same."""
        # ValueError: it was told already.
        with contextlib.suppress(OSError, ValueError):
            self._socket.settimeout(0)
            cast("ssl.SSLSocket", self._socket).unwrap()
        self._limits.clear()

    def close(self) -> None:
        """Let go of a socket that is not the one given any more."""
        if self.has_tls:
            self._end_tls()
            self._socket.close()

    def _receive(self, deadline_s: float) -> bytes:
        """More bytes; empty when the client has closed. Raises OSError when they do not
        come in time."""
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise socket.timeout
        self._limit_wait(socket.SO_RCVTIMEO, left_s)
        fresh: bytes = self._socket.recv(RECEIVE_BYTES)
        return fresh

    def _limit_wait(self, option: int, seconds: float) -> None:
        """Let the kernel bound a receive or send. Python's own time limit would ask
        poll(2) before each of them. Known bounds that are near enough are kept."""
        # OpenSSL would try again after the kernel has given up.
        option = 0 if self.has_tls else option
        known = self._limits.get(option, 0.0)
        if not seconds <= known <= seconds + 2 * SOCKET_SLACK_S:
            self._limits[option] = seconds + SOCKET_SLACK_S
            if self.has_tls:
                self._socket.settimeout(seconds + SOCKET_SLACK_S)
                return
            whole, part = divmod(seconds + SOCKET_SLACK_S, 1)
            timeval = struct.pack("ll", int(whole), int(part * 1e6))
            self._socket.setsockopt(socket.SOL_SOCKET, option, timeval)

    def receive_head(self) -> Head | None:
        """The next request's head, or None when there will be none."""
        deadline_s = time.monotonic() + (
            HEADER_TIMEOUT_S if self._buffer else IDLE_TIMEOUT_S
        )
        while True:
            self._buffer = self._buffer.lstrip(b"\r\n")
            end = self._buffer.find(b"\r\n\r\n")
            if end >= 0:
                break
            self._check_head_so_far(len(self._buffer))
            fresh = self._receive(deadline_s)
            if not fresh:
                return None
            if not self._buffer:
                # Empty lines before a request do not make its time longer.
                deadline_s = min(deadline_s, time.monotonic() + HEADER_TIMEOUT_S)
            self._buffer += fresh
        self._check_head_so_far(end)
        raw, self._buffer = self._buffer[:end], self._buffer[end + 4 :]
        return parse_head(raw)

    def _check_head_so_far(self, end: int) -> None:
        line_end = self._buffer.find(b"\r\n", 0, end)
        if (end if line_end < 0 else line_end) > REQUEST_LINE_MAX_BYTES:
            raise _malformed(
                414, f"the request line is over {REQUEST_LINE_MAX_BYTES} bytes"
            )
        if end > HEADERS_MAX_BYTES:
            raise _malformed(431, f"the headers are over {HEADERS_MAX_BYTES} bytes")
        if self._buffer.find(b"\n\n", 0, end) >= 0:
            raise _malformed(400, "lines must end with CR LF")

    def receive_body(self, head: Head) -> bytes:
        """The whole body. Raises Problem 400, 413, 417, 501."""
        length = _body_length(head.headers)
        if length == 0:
            return b""
        if length is not None and length > BODY_MAX_BYTES:
            raise _malformed(413, f"the body is over {BODY_MAX_BYTES} bytes")
        expected = head.headers.get("expect") if head.version == "HTTP/1.1" else None
        if expected and expected.lower() != "100-continue":
            raise _malformed(417, "the only expectation is 100-continue")
        if expected and not self._buffer:
            self.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        deadline_s = time.monotonic() + BODY_TIMEOUT_S
        if length is None:
            return self._receive_chunked(deadline_s)
        return self._take(length, deadline_s)

    def _receive_more(self, deadline_s: float) -> bytes:
        """More of a body. Raises ConnectionError when the client closes."""
        fresh = self._receive(deadline_s)
        if not fresh:
            raise ConnectionError("closed in the middle of a body")
        return fresh

    def _fill(self, size: int, deadline_s: float) -> None:
        """Have at least this many bytes in the buffer."""
        parts, have = [self._buffer], len(self._buffer)
        while have < size:
            parts.append(self._receive_more(deadline_s))
            have += len(parts[-1])
        self._buffer = b"".join(parts)

    def _take(self, size: int, deadline_s: float) -> bytes:
        """Exactly this many bytes."""
        self._fill(size, deadline_s)
        taken, self._buffer = self._buffer[:size], self._buffer[size:]
        return taken

    def _receive_line(self, deadline_s: float) -> None:
        """More of a line between chunks, of which there is only a part."""
        if b"\n" in self._buffer:
            raise _malformed(400, "lines between chunks must end with CR LF")
        if len(self._buffer) > REQUEST_LINE_MAX_BYTES:
            raise _malformed(400, "a chunk header is too long")
        self._buffer += self._receive_more(deadline_s)

    def _receive_chunked(self, deadline_s: float) -> bytes:
        """A chunked body (RFC 9112, 7.1); trailers are read and dropped."""
        body, at = bytearray(), 0
        while True:
            # A chunk may have one byte: the buffer is cut only when it has to grow.
            found = _CHUNK_HEAD.match(self._buffer, at)
            if not found:
                self._buffer, at = self._buffer[at:], 0
                if b"\r\n" in self._buffer:
                    raise _malformed(400, "a chunk must begin with its size in hex")
                self._receive_line(deadline_s)
                continue
            size, at = int(found[1], 16), found.end()
            if size == 0:
                break
            if len(body) + size > BODY_MAX_BYTES:
                raise _malformed(413, f"the body is over {BODY_MAX_BYTES} bytes")
            if at + size + 2 > len(self._buffer):
                self._buffer, at = self._buffer[at:], 0
                self._fill(size + 2, deadline_s)
            end = at + size
            if self._buffer[end : end + 2] != b"\r\n":
                raise _malformed(400, "a chunk is longer than its size")
            body += self._buffer[at:end]
            at = end + 2
        self._buffer = self._buffer[at:]
        for _ in range(HEADERS_MAX_COUNT):
            while b"\r\n" not in self._buffer:
                self._receive_line(deadline_s)
            line, _, self._buffer = self._buffer.partition(b"\r\n")
            if not line:
                return bytes(body)
            _parse_fields([line.decode("latin-1")])
        raise _malformed(431, "too many trailers")

    def discard_body(self, head: Head) -> bool:
        """Read an unwanted body, and tell whether the connection can be used again. A
        large body is not read."""
        try:
            length = _body_length(head.headers)
            expects = "expect" in head.headers
            if length is None or length > RECEIVE_BYTES or (expects and length):
                return False
            self._take(length, time.monotonic() + LINGER_S)
        except (Problem, OSError):
            return False
        return True

    def linger(self) -> None:
        """Let the client read the last answer before the socket is closed: closing with
        unread bytes would reset the connection and may destroy it."""
        deadline_s = time.monotonic() + LINGER_S
        if self.has_tls:
            self._end_tls()
        self._socket.shutdown(socket.SHUT_WR)
        while self._receive(deadline_s):
            pass

    def look(self) -> tuple[bool, bool]:
        """Whether the client still listens as far as the kernel knows, and whether it
        has closed its sending half, or both: sending a byte tells which."""
        poll = select.poll()
        half = getattr(select, "POLLRDHUP", 0)
        poll.register(self._socket, half or select.POLLIN)
        events = sum(found for _, found in poll.poll(0))
        closed = bool(events & half)
        if events & select.POLLIN:
            # Not the recv of a TLS socket, which cannot peek.
            closed = not socket.socket.recv(self._socket, 1, socket.MSG_PEEK)
        return not events & _POLL_GONE, closed


# -- answering


_REQUEST_ID = re.compile(f"[ -~]{{1,{REQUEST_ID_MAX_CHARS}}}")


_NOT_IN_URI = re.compile(r"%(?![0-9A-Fa-f]{2})|[^!$%&'()*+,;=:@/~._0-9A-Za-z-]")


def problem_document(problem: Problem, path: str) -> dict[str, Any]:
    """ErrorModel of a problem (RFC 9457)."""
    document: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES[problem.status],
        "status": problem.status,
        "detail": problem.detail,
        "instance": problem.instance
        or _NOT_IN_URI.sub(lambda c: f"%{ord(c[0]):02X}", path),
    }
    listed = problem.faults[:FAULTS_LISTED]
    if listed:
        document["errors"] = [fault.detail() for fault in listed]
    more = len(problem.faults) - len(listed)
    if more:
        document["detail"] += f"; {more} more faults are not listed"
    return document


_SECURITY_HEADERS = ("X-Content-Type-Options: nosniff", "Referrer-Policy: no-referrer")


def _wants_keep_alive(head: Head) -> bool:
    field = head.headers.get("connection", "")
    if not field and head.version == "HTTP/1.1":
        return True
    words = [w.strip() for w in field.lower().split(",")]
    if head.version == "HTTP/1.0" and "transfer-encoding" in head.headers:
        # Others on the way may have seen another end of the body (RFC 9112, 6.1).
        return False
    return "close" not in words and (
        head.version == "HTTP/1.1" or "keep-alive" in words
    )


class _RateLimitedLog:
    """Logs warnings that any client can cause: each once a minute, with the number that
    was left out since, so that no client can fill the disk with them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next_s: dict[str, float] = {}
        self._left_out: dict[str, int] = collections.Counter()

    def warn(self, what: str) -> None:
        """Log a warning, or count it if it was logged within the last minute."""
        now_s = time.monotonic()
        with self._lock:
            if now_s < self._next_s.get(what, now_s):
                self._left_out[what] += 1
                return
            self._next_s[what] = now_s + COMPLAINT_EVERY_S
            left_out = self._left_out.pop(what, 0)
        LOG.warning("%s left_out=%d", what, left_out)


class Connection:
    """One client connection: reads requests, answers each with one write."""

    def __init__(self, client: socket.socket, peer: Any, server: Server) -> None:
        self.server = server
        self._client, self._peer = client, peer
        self._wire = _Wire(client)
        # Of a Unix socket: whether the client is the daemon's own user, or root.
        self._is_owner: bool | None = None
        if client.family == socket.AF_UNIX:
            self._is_owner = _is_owner(client)
        self._keep_alive = self._keeps_alive = self._chunked = False
        self._begin_request()

    def _begin_request(self) -> None:
        self._head: Head | None = None
        self._template = UNKNOWN_ROUTE
        self._schema = self._request_id = ""
        # Whether the head of a held answer was sent, and whether a client that has
        # closed its sending half was sent something since.
        self._begun = self._probed = False
        self._beat_at_s = 0.0

    def serve(self) -> None:
        """Answer requests until either side has had enough."""
        try:
            self._keep_alive = self._agree_on_tls()
            while self._keep_alive:
                self._serve_one()
                self.server.unanswered.discard(self._client)
        except (OSError, CallerGone):
            # It disconnected, or was too slow.
            LOG.debug("client disconnected peer=%s", self._peer)
        except StoreError as error:
            # In the middle of a stream, whose missing end tells the client.
            self.server.rate_limited_log.warn(f"store failed error={error}")
        finally:
            self._wire.close()

    def refuse(self) -> None:
        """Answer 503, whatever is asked for, or send an alert where that would take a
        handshake. Does not wait: it fits an empty send buffer. Raises OSError."""
        if self._wants_tls():
            self._client.sendall(_TLS_REFUSAL)
        else:
            headers = {**RETRY_LATER, "Cache-Control": "no-store"}
            detail = "too many connections; try again"
            self._send_problem(Problem(503, detail, headers=headers))
        self._client.shutdown(socket.SHUT_WR)

    def _wants_tls(self) -> bool:
        return self.server.tls is not None and self._is_owner is None

    def _agree_on_tls(self) -> bool:
        """Shake hands where TLS is wanted. A client that speaks plain HTTP there is
        told so. Raises OSError."""
        tls = self.server.tls
        if not tls or not self._wants_tls():
            return True
        first = self._wire.first_byte()
        if first == _TLS_HANDSHAKE:
            self._wire.begin_tls(tls)
            return True
        if first:
            self._send_problem(_malformed(400, "this port speaks TLS: use https://"))
            self._wire.linger()
        return False

    def _serve_one(self) -> None:
        """Read a request and answer it."""
        self._begin_request()
        self._keep_alive = False
        try:
            head = self._wire.receive_head()
            answer = self._operate(head) if head else None
        except Problem as problem:
            self._send_problem(problem)
            if not self._keep_alive:
                self._wire.linger()
        else:
            if isinstance(answer, Stream):
                self._send_stream(answer)
            elif answer:
                self._send_document(answer)
        finally:
            self.server.busy.discard(self)
            self.server.holding.discard(self)

    def _operate(self, head: Head) -> Answer | Stream:
        """The answer to a request. Raises Problem, or OSError or CallerGone when the
        client has disconnected."""
        # Adding to a set and taking out of it are atomic.
        self.server.busy.add(self)
        self._head = head
        # The client's own id, if it can be sent back, logged and handed on.
        given = head.headers.get("x-request-id", "")
        fits = given and _REQUEST_ID.fullmatch(given)
        self._request_id = given if fits else self.server.fresh_id()
        self._keep_alive = _wants_keep_alive(head)
        routes, texts = match(head.path)
        try:
            route = self._admit(head, routes)
        except Problem as problem:
            # The body was not read.
            problem.closes = not self._wire.discard_body(head)
            raise
        raw = self._wire.receive_body(head)
        if not route:
            return Answer(204, None, {"Allow": allowed_methods(routes or _METHODS)})
        self._schema = route.answer
        server = self.server
        self._beat_at_s = time.monotonic() + server.options.heartbeat_s
        try:
            request = self._bind(route, texts, head, raw)
            if route.media == EVENT_STREAM or request.wait.seconds > 0:
                self._hold()
            return route.operation(server.daemon, request)
        except (Problem, CallerGone):
            raise
        except StoreError as error:
            server.rate_limited_log.warn(f"store failed error={error}")
            raise Problem(503, f"the history cannot be used: {error}") from None
        except Exception as error:
            if getattr(error, "errno", None) in NO_FILE_LEFT:
                server.rate_limited_log.warn("no file descriptor is left")
                detail = "the daemon has no file descriptor left; try again"
                raise Problem(503, detail, headers=RETRY_LATER) from None
            if isinstance(error, LogError):
                raise Problem(503, str(error.strerror)) from None
            LOG.exception(
                "bug method=%s path=%s request=%r",
                head.method, head.path, self._request_id,
            )  # fmt: skip
            detail = "a bug; the daemon's log has the details"
            raise Problem(500, detail) from None

    def _admit(self, head: Head, routes: Mapping[str, Route]) -> Route | None:
        """Check that the caller may ask this. Returns the route, None for OPTIONS.
        Raises Problem 401, 403, 404, 405, 421."""
        some = next(iter(routes.values()), None)
        self._template = some.path if some else UNKNOWN_ROUTE
        self._check_caller(head, open_to_all=some is not None and some.open_to_all)
        method, path = head.method, head.path
        if not routes and (method, path) != ("OPTIONS", "*"):
            raise Problem(404, f"nothing is found at {path[:ECHO_MAX_CHARS]}")
        route = routes.get("GET" if method == "HEAD" else method)
        if not route and method != "OPTIONS":
            headers = {"Allow": allowed_methods(routes)}
            detail = f"{method[:ECHO_MAX_CHARS]} is not for this path"
            raise Problem(405, detail, headers=headers)
        return route

    def _check_caller(self, head: Head, *, open_to_all: bool) -> None:
        options, is_owner = self.server.options, self._is_owner
        host = head.headers.get("host", "")
        if not options.token and host and is_owner is None:
            # Without port and brackets.
            name, _, _ = host.lower().partition(":")
            if host.startswith("["):
                name = host[1:].lower().partition("]")[0]
            if not (_is_local_name(name) or name in options.allowed_hosts):
                # Another site's name that now points here: DNS rebinding.
                detail = f"not known as {name[:ECHO_MAX_CHARS]}; see --allow-host"
                raise Problem(421, detail)
        if options.token and not open_to_all and not is_owner:
            _check_token(head.headers.get("authorization", ""), options.token)
        if not options.token and is_owner is False and not open_to_all:
            detail = "this socket is for the daemon's user; others need a token"
            raise Problem(403, detail)
        if head.method in _SAFE_METHODS:
            return
        origin, site = head.headers.get("origin"), head.headers.get("sec-fetch-site")
        is_here = origin is None or origin.partition("://")[2].lower() == host.lower()
        if not is_here or (site or "").lower() == "cross-site":
            raise Problem(403, "requests from other sites may not change anything")

    def _facts(self, head: Head) -> ServerFacts:
        """Facts about the server, and whether the caller may ask what is not open."""
        facts = self.server.facts()
        try:
            self._check_caller(head, open_to_all=False)
        except Problem:
            return facts._replace(authenticated=False)
        return facts

    def _bind(
        self, route: Route, texts: dict[str, str], head: Head, raw: bytes
    ) -> Request:
        """The request with typed values. Raises Problem 422 with all faults of it."""
        daemon, headers = self.server.daemon, head.headers
        given = _query_texts(head.query)
        query, query_faults = _bind_query(route, given)
        body, body_faults = _bind_body(route, raw, headers)
        faults = [
            fault
            for name, text in texts.items()
            for fault in find_faults(PATH_PARAMS[name], text, ("path", name))
        ]
        faults += query_faults + body_faults
        media = route.media
        if route.also:
            media = negotiated(headers.get("accept", ""), (media, *route.also))
        request = Request(
            texts, query, given, body, headers, self._keep_held,
            functools.partial(self._facts, head), media, self._request_id,
        )  # fmt: skip
        if route.check:
            faults = route.check(daemon, request, faults)
        if faults:
            raise Problem(422, "the request cannot be used as it is", faults=faults)
        if "wait" in query:
            request = request._replace(wait=wanted_wait(request))
        return request

    def _hold(self) -> None:
        """Count this request among those that wait or stream, or raise Problem 503."""
        server = self.server
        # First in, then counted: two at once may both be refused, never both let in.
        server.holding.add(self)
        if len(server.holding) > server.max_holding:
            server.holding.discard(self)
            server.rate_limited_log.warn("too many requests wait or stream")
            detail = f"{server.max_holding} requests wait or stream already"
            raise Problem(503, detail, headers=RETRY_LATER, closes=True)

    def _keep_held(self, to_come: Answer) -> bool:
        """Whether the client of a held request still listens. Silence that lasts makes
        proxies cut the connection: then the answer begins, and blanks follow, which
        JSON allows before its text. When the client has closed its sending half, a
        blank follows at once, which it refuses if it has disconnected."""
        there, closed = self._wire.look()
        if not there or (self._head and self._head.method == "HEAD"):
            return there and not closed
        now_s = time.monotonic()
        if now_s < self._beat_at_s and (not closed or self._probed):
            return there
        try:
            if not self._begun:
                self._begun = True
                headers = {"Content-Type": JSON, **self._described_by()}
                self._begin_body(to_come.status, {**headers, **to_come.headers})
            self._write_chunk(b" ")
        except OSError:
            # Reset since the last look, which is no bug.
            return False
        self._probed = closed
        self._beat_at_s = now_s + self.server.options.heartbeat_s
        return self._wire.look()[0]

    def _still_streams(self, stream: Stream) -> bool:
        """Whether the client of a stream still listens. When it has closed its sending
        half, it is sent something that means nothing: the size of a chunk may begin
        with a 0 (RFC 9112, 7.1), events may be apart by more than an empty line."""
        there, closed = self._wire.look()
        if not closed or self._probed:
            return there
        events = stream.content_type == EVENT_STREAM
        self._probed = self._chunked or events
        if self._probed:
            self._wire.send(b"0" if self._chunked else b"\n")
            there, _ = self._wire.look()
        return there and self._probed

    # -- writing

    def _head_bytes(self, status: int, headers: Mapping[str, str]) -> bytes:
        self.server.count_answer(self._template, status)
        # A further request on this connection could not be answered any more.
        self._keep_alive = self._keep_alive and not self.server.daemon.pausing
        lines = [f"HTTP/1.1 {status} {_PHRASES[status]}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        if not self._keep_alive:
            lines.append("Connection: close")
        elif self._head and self._head.version == "HTTP/1.0":
            lines.append("Connection: keep-alive")
        if self._head and self._head.path.startswith("/api"):
            lines.append("Cache-Control: no-store")
        lines += [
            # Of a request that could not be read, nothing is known.
            f"{REQUEST_ID_HEADER}: {self._request_id or self.server.fresh_id()}",
            f"Server: {PROGRAM}",
            f"Date: {self.server.date()}",
            *_SECURITY_HEADERS,
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")

    def _send(self, status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
        if status not in (204, 304):
            headers = {**headers, "Content-Length": str(len(body))}
        head = self._head_bytes(status, headers)
        is_head = self._head is not None and self._head.method == "HEAD"
        self._wire.send(head if is_head else head + body)

    def _send_document(self, answer: Answer, media: str = JSON) -> None:
        document = answer.document
        if document is None or (answer.status == 304 and not self._begun):
            self._send(answer.status, answer.headers)
            return
        if isinstance(document, dict):
            scheme = "https" if self._wire.has_tls else "http"
            host = self._head.headers.get("host") if self._head else None
            host = host or self.server.address_text() or "localhost"
            where = f"{scheme}://{host}/schemas/{self._schema}.json"
            document = {"$schema": where, **document}
        body = compact_json(document)
        if self._begun:
            self._write_chunk(body)
            self._end_chunks()
        else:
            headers = {"Content-Type": media, **self._described_by(), **answer.headers}
            self._send(answer.status, headers, body)

    def _described_by(self) -> dict[str, str]:
        return {"Link": f'</schemas/{self._schema}.json>; rel="describedBy"'}

    def _send_problem(self, problem: Problem) -> None:
        self._keep_alive = self._keep_alive and not problem.closes
        if self._begun:
            # Another status was sent: an answer without an end says that it failed.
            self._keep_alive = False
        else:
            path = self._head.path if self._head else "/"
            document = problem_document(problem, path[:ECHO_MAX_CHARS])
            self._schema = "ErrorModel"
            answer = Answer(problem.status, document, problem.headers)
            self._send_document(answer, PROBLEM_JSON)

    def _send_stream(self, stream: Stream) -> None:
        """Send an answer as it is made, chunked when its size is unknown."""
        head = self._head
        assert head
        headers = {"Content-Type": stream.content_type, **stream.headers}
        if stream.trailers and head.version == "HTTP/1.1":
            headers["Trailer"] = ", ".join(stream.trailers)
        self._begin_body(stream.status, headers, stream.size_bytes)
        if head.method == "HEAD":
            self._keep_alive = self._keeps_alive
            return
        trailers: Mapping[str, str] = {}
        for chunk in stream.chunks:
            if not isinstance(chunk, bytes):
                trailers = chunk
            elif chunk:
                self._write_chunk(chunk)
            elif not self._still_streams(stream):
                return
        # Without an end the client sees that something is missing.
        if trailers or not stream.trailers:
            self._end_chunks(trailers)

    def _begin_body(
        self, status: int, headers: Mapping[str, str], size_bytes: int | None = None
    ) -> None:
        """Send the head of an answer whose body follows in parts."""
        self._chunked = False
        if size_bytes is not None:
            headers = {**headers, "Content-Length": str(size_bytes)}
        elif self._head and self._head.version == "HTTP/1.1":
            self._chunked = True
            headers = {**headers, "Transfer-Encoding": "chunked"}
        else:
            self._keep_alive = False
        self._wire.send(self._head_bytes(status, headers))
        # A bug in the middle cannot become an answer any more: the connection ends.
        self._keeps_alive, self._keep_alive = self._keep_alive, False

    def _write_chunk(self, chunk: bytes) -> None:
        framed = b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk
        self._wire.send(framed)

    def _end_chunks(self, trailers: Mapping[str, str] = {}) -> None:
        if self._chunked:
            fields = "".join(f"{name}: {trailers[name]}\r\n" for name in trailers)
            self._wire.send(b"0\r\n" + fields.encode("latin-1", "replace") + b"\r\n")
        self._keep_alive = self._keeps_alive


@contextlib.contextmanager
def _folder_locked(path: str) -> Iterator[None]:
    """Hold an exclusive lock on the folder of a socket, so that only one process at a
    time looks at its path and replaces it. Raises OSError after LOCK_WAIT_S."""
    give_up_s = time.monotonic() + LOCK_WAIT_S
    fd = os.open(os.path.dirname(path), os.O_RDONLY | os.O_CLOEXEC)
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > give_up_s:
                    raise
            time.sleep(SURVIVOR_CHECK_S)
        yield
    finally:
        os.close(fd)


class Listener(NamedTuple):
    """A socket at which clients are awaited. `made` has device and inode of the file
    that this daemon made for it, and removes."""

    socket: socket.socket
    made: tuple[int, int] | None = None

    @property
    def is_unix(self) -> bool:
        """Whether it is a Unix socket."""
        return self.socket.family == socket.AF_UNIX

    @property
    def place(self) -> str:
        """host:port as it stands in a URL, or the path of a Unix socket, or @ and the
        name of one that systemd has made without a path."""
        name = self.socket.getsockname()
        if self.is_unix:
            return os.fsdecode(name).replace("\0", "@", 1)
        host, port = str(name[0]), name[1]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    def hand_over(self) -> dict[str, Any]:
        """Keep it open over an exec. Returns the arguments of `inherited_listener`."""
        self.socket.set_inheritable(True)
        return {"fd": self.socket.fileno(), "made": self.made}

    def close(self) -> None:
        """Listen no more, and remove the file if it is still the one made here."""
        if self.made:
            # OSError: it was removed, or its folder.
            with contextlib.suppress(OSError), _folder_locked(self.place):
                found = os.lstat(self.place)
                if (found.st_dev, found.st_ino) == self.made:
                    os.unlink(self.place)
        self.socket.close()


def listen_on_port(host: str, port: int) -> Listener:
    """Listen on an address, without asking DNS for this machine's name. Raises
    OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(LISTEN_BACKLOG)
    except OSError:
        listening.close()
        raise
    return Listener(listening)


def _remove_stale(path: str) -> None:
    """Remove the socket of a daemon that was killed. Raises OSError when it is no
    socket, or a program listens there."""
    try:
        if not S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "there is a file that is no socket")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
        # A full backlog is an answer too, and not one to wait for.
        asking.setblocking(False)
        code = asking.connect_ex(path)
    if code in (0, errno.EAGAIN, errno.EINPROGRESS):
        raise OSError(errno.EADDRINUSE, "another program listens there")
    if code != errno.ECONNREFUSED:
        raise OSError(code, os.strerror(code))
    os.unlink(path)


def listen_on_path(path: str) -> Listener:
    """Listen on a Unix socket that only its owner can open. Raises OSError."""
    path = os.path.abspath(path)
    size = len(os.fsencode(path))
    if size > SOCKET_PATH_MAX_BYTES:
        limit = f"{size} bytes are more than the {SOCKET_PATH_MAX_BYTES} of a socket"
        raise OSError(errno.ENAMETOOLONG, f"the path is too long: {limit}")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with _folder_locked(path):
            _remove_stale(path)
            if sys.platform.startswith("linux"):
                # The file gets the mode of the socket; chmod(2) afterwards would leave
                # a moment. The umask is also that of files and programs which other
                # threads make meanwhile.
                os.fchmod(listening.fileno(), SOCKET_MODE)
                listening.bind(path)
            else:
                mask = os.umask(0o777 & ~SOCKET_MODE)
                try:
                    listening.bind(path)
                finally:
                    os.umask(mask)
            made = os.lstat(path)
            listening.listen(LISTEN_BACKLOG)
    except OSError:
        listening.close()
        raise
    return Listener(listening, (made.st_dev, made.st_ino))


def inherited_listener(fd: int, made: Sequence[int] | None = None) -> Listener:
    """The listener of the program before this one: some may wait in its backlog."""
    listening = socket.socket(fileno=fd)
    listening.set_inheritable(False)
    listening.setblocking(True)
    return Listener(listening, (made[0], made[1]) if made else None)


class Server(http.server.ThreadingHTTPServer):
    """Accepts connections, a thread for each."""

    daemon_threads = True
    # Otherwise the base class keeps every thread it ever started.
    block_on_close = False

    def __init__(
        self,
        address: tuple[str, int] | None,
        options: Options,
        listeners: Iterable[Listener] = (),
        tls: ssl.SSLContext | None = None,
    ) -> None:
        # Replaced by a reload; for all that does not come through a Unix socket.
        self.tls = tls
        self.listeners = list(listeners)
        if address:
            self.listeners.append(listen_on_port(*address))
        self.options = options
        self.daemon: Daemon
        self.busy: set[Connection] = set()
        self.holding: set[Connection] = set()
        self.rate_limited_log = _RateLimitedLog()
        self.max_connections = options.max_connections
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        if files != resource.RLIM_INFINITY:
            most = files * SHARE_OF_FOUR // 4
            self.max_connections = min(self.max_connections, most)
        self.max_holding = self.max_connections * SHARE_OF_FOUR // 4
        self._open: set[socket.socket] = set()
        self._refused: collections.deque[tuple[float, socket.socket]]
        self._refused = collections.deque()
        # Given up when no other file descriptor is left, so that a client can be taken
        # and refused.
        self._spare = -1
        # Connections that were taken and had no answer yet.
        self.unanswered: set[socket.socket] = set()
        self._closing = self._paused = False
        self._rests = threading.Event()
        self._rests.set()
        self._wake_fds = os.pipe()
        self._sockets_at_s = 0.0
        # Turns of the loop, which the watchdog compares.
        self.rounds = 0
        self._date = (0, "")
        self._fresh_ids = itertools.count(int.from_bytes(os.urandom(15), "big"))
        # A leaf: adding to a number is not atomic.
        self._count_lock = threading.Lock()
        self._answered: collections.Counter[tuple[str, int]] = collections.Counter()
        ports = [place for place in self.listeners if not place.is_unix]
        name = ports[0].socket.getsockname() if ports else ("", 0)
        # Not of TCPServer, which has one socket and binds it; finish_request makes a
        # Connection instead of that handler.
        handler = socketserver.BaseRequestHandler
        socketserver.BaseServer.__init__(self, name, handler)

    def serve_forever(self, poll_interval: float = 0.5) -> None:
        """Accept until `stop_listening` or `pause`. Blocks where the base class wakes
        up twice a second."""
        # First this, then the look at _closing: either the sockets stay open until this
        # loop rests, or it does not begin.
        self._rests.clear()
        poll = select.poll()
        if not self._closing:
            poll.register(self._wake_fds[0], select.POLLIN)
            for listener in self.listeners:
                poll.register(listener.socket, select.POLLIN)
        while not (self._paused or self._closing):
            try:
                self._accept_some(poll)
            except OSError as error:
                if error.errno not in NO_FILE_LEFT:
                    self.rate_limited_log.warn(
                        f"cannot take a connection error={error}"
                    )
                    time.sleep(ACCEPT_PAUSE_S)
                    continue
                self.rate_limited_log.warn("no file descriptor is left")
                if not self._free_descriptor():
                    time.sleep(ACCEPT_PAUSE_S)
        while self._free_descriptor():
            pass
        self._rests.set()

    def _accept_some(self, poll: select.poll) -> None:
        """Accept a connection of each socket at which one waits, or close the refused
        one whose time is over."""
        self.rounds += 1
        now_s = time.monotonic()
        dismiss_at_s = self._refused[0][0] if self._refused else math.inf
        wake_at_s = min(dismiss_at_s, self._restore_sockets(now_s))
        left_s = None if wake_at_s == math.inf else max(0.0, wake_at_s - now_s)
        ready = poll.poll(None if left_s is None else math.ceil(left_s * 1000))
        if not ready and time.monotonic() >= dismiss_at_s:
            self._dismiss()
        fds = {fd for fd, _ in ready}
        if self._wake_fds[0] in fds:
            os.read(self._wake_fds[0], 1)
        for listener in self.listeners:
            if self._paused or self._closing:
                return
            if listener.socket.fileno() in fds:
                self.process_request(*listener.socket.accept())

    def process_request(self, client: Any, peer: Any) -> None:
        """Give a connection its thread, or refuse it."""
        try:
            if self._spare < 0:
                self._spare = os.open(os.devnull, os.O_RDONLY)
        except OSError:
            self._refuse(client, peer)
            return
        if len(self._open) >= self.max_connections:
            self.rate_limited_log.warn("too many connections")
            self._refuse(client, peer)
            return
        # Adding to a set and taking out of it are atomic.
        self._open.add(client)
        self.unanswered.add(client)
        try:
            super().process_request(client, peer)
        except RuntimeError as error:
            self._open.discard(client)
            self.unanswered.discard(client)
            self.rate_limited_log.warn(f"no thread is left error={error}")
            self._refuse(client, peer)

    def finish_request(self, client: Any, peer: Any) -> None:
        """Serve a connection, in its thread."""
        threading.current_thread().name = "connection"
        Connection(client, peer, self).serve()

    def handle_error(self, client: Any, peer: Any) -> None:
        """Tell of a bug outside of a request's own care; a disconnect is none."""
        if isinstance(sys.exc_info()[1], OSError):
            LOG.debug("client disconnected peer=%s", peer)
        else:
            LOG.error("bug in connection peer=%s", peer, exc_info=sys.exc_info())

    def close_request(self, client: Any) -> None:
        """Close a connection, which makes room for another."""
        self.unanswered.discard(client)
        # Closed first: the room is there only when its file descriptor is.
        super().close_request(client)
        self._open.discard(client)

    def _restore_sockets(self, now_s: float) -> float:
        """Make Unix sockets again whose file was removed. Only the loop calls it, since
        no listener is closed while it runs. Returns when to look again."""
        if now_s < self._sockets_at_s or not any(x.made for x in self.listeners):
            return self._sockets_at_s or math.inf
        self._sockets_at_s = now_s + SIGN_OF_LIFE_S
        for index, listener in enumerate(self.listeners):
            wrong = misplaced({listener.place: listener.made} if listener.made else {})
            if not wrong:
                continue
            try:
                fresh = listen_on_path(listener.place)
            except OSError as error:
                self.rate_limited_log.warn(
                    f"socket cannot be found {wrong} error={error}"
                )
                continue
            with fresh.socket:
                # Under the same number, which is what the loop polls.
                number = listener.socket.fileno()
                os.dup2(fresh.socket.fileno(), number, inheritable=False)
            self.listeners[index] = listener._replace(made=fresh.made)
            LOG.warning("socket was removed, made again path=%s", listener.place)
        return self._sockets_at_s

    def wake(self) -> None:
        """Have the loop take a turn."""
        os.write(self._wake_fds[1], b"!")

    def _rest(self) -> None:
        """Wait until the loop has ended, which it was told to."""
        self.wake()
        self._rests.wait(LINGER_S)

    def _refuse(self, client: socket.socket, peer: Any) -> None:
        """Answer 503. The socket stays open a while for the answer to be read: closing
        with unread bytes would reset the connection and may destroy it."""
        with contextlib.suppress(OSError):
            Connection(client, peer, self).refuse()
        self._refused.append((time.monotonic() + LINGER_S, client))
        if len(self._refused) > REFUSED_KEPT:
            self._dismiss()

    def _dismiss(self) -> None:
        """Close the connection that was refused first."""
        _, client = self._refused.popleft()
        with contextlib.suppress(OSError):
            client.recv(RECEIVE_BYTES, socket.MSG_DONTWAIT)
        client.close()

    def _free_descriptor(self) -> bool:
        """Free a file descriptor for the next client; False when there is none."""
        if self._refused:
            self._dismiss()
        elif self._spare >= 0:
            os.close(self._spare)
            self._spare = -1
        else:
            return False
        return True

    def pause(self) -> None:
        """Take no more connections for now: they wait in the backlog of the socket."""
        self._paused = True
        self._rest()

    def unpause(self) -> None:
        """Be ready to `serve_forever` again."""
        self._paused = False

    def wait_answered(self) -> None:
        """Return when every request that came was answered, at the latest after
        LINGER_S."""
        give_up_s = time.monotonic() + LINGER_S
        while (self.busy or self.unanswered) and time.monotonic() < give_up_s:
            time.sleep(SURVIVOR_CHECK_S)

    def stop_listening(self) -> None:
        """Take no more connections; those that are there go on."""
        self._closing = True
        self._rest()
        for listener in self.listeners:
            listener.close()

    def facts(self) -> ServerFacts:
        """Facts about this server for the answers of operations."""
        token, page = self.options.token, self.options.page
        counts = (len(self.busy), self.answered())
        port, path = self.server_address[1], self.places().get("socket", "")
        return ServerFacts(bool(token), *counts, page, int(port), path)

    def put_to_use(self, options: Options, tls: ssl.SSLContext | None) -> None:
        """Use the options and certificate of a reload from the next request on."""
        self.options, self.tls = options, tls

    def count_answer(self, template: str, status: int) -> None:
        """Count an answer to a request for a route."""
        with self._count_lock:
            self._answered[template, status] += 1

    def answered(self) -> dict[tuple[str, int], int]:
        """How many answers there were, by route and status."""
        with self._count_lock:
            return dict(self._answered)

    def resume_counts(self, record: Iterable[Sequence[Any]]) -> None:
        """Go on counting where the program before this one was."""
        for template, status, count in record:
            self._answered[template, status] += count

    def fresh_id(self) -> str:
        """An id for a request that came without one: they count from a random number,
        since to ask the kernel for each lets the interpreter go."""
        return f"{next(self._fresh_ids):032x}"

    def date(self) -> str:
        """The Date header, made once a second."""
        now = int(time.time())
        if self._date[0] != now:
            self._date = (now, formatdate(now, usegmt=True))
        return self._date[1]

    def address_text(self) -> str:
        """host:port of the first port as it stands in a URL; empty without one."""
        return next((x.place for x in self.listeners if not x.is_unix), "")

    def places(self) -> dict[str, str]:
        """Where clients find this server: `url`, `socket`, or both."""
        found = {}
        if self.address_text():
            scheme = "https" if self.tls else "http"
            found["url"] = f"{scheme}://{self.address_text()}"
        for listener in self.listeners:
            if listener.is_unix:
                found.setdefault("socket", listener.place)
        return found


# ---- 15. Command line -------------------------------------------------------
# Owns arguments, signals, exit codes and what is printed: results to stdout, all
# else to stderr. Relies on everything above.


# -- arguments and settings


class _Setting(NamedTuple):
    """A setting of the daemon: --name, TASKRUNNERD_NAME, or the default. A switch has
    no metavar."""

    name: str
    metavar: str
    default: str
    help: str

    @property
    def variable(self) -> str:
        """The environment variable of the setting."""
        return "TASKRUNNERD_" + self.name.upper().replace("-", "_")


_LEVELS = ("debug", "info", "warning", "error")
# The settings below the headings that --help has.
_GROUPS = {
    "what runs": (
        _Setting("config", "FILE", "tasks.json", "file that declares the tasks"),
        _Setting("data", "DIR", ".taskrunnerd", "directory that keeps all state"),
    ),
    "where it listens": (
        _Setting("host", "ADDRESS", "127.0.0.1", "address to listen on"),
        _Setting(
            *("port", "PORT", str(DEFAULT_PORT)),
            'port to listen on; 0 takes a free one, "none" opens none',
        ),
        _Setting("socket", "PATH", "", "Unix socket to listen on, for the same user"),
        _Setting("tls-cert", "FILE", "", "certificate in PEM: speak TLS at the port"),
        _Setting("tls-key", "FILE", "", "the private key of the certificate, in PEM"),
        _Setting(
            *("max-connections", "COUNT", str(CONNECTIONS_DEFAULT)),
            "open connections at most",
        ),
        _Setting(
            "heartbeat", "TIME", "15s", "silence after which a held answer begins"
        ),
    ),
    "who may ask": (
        _Setting(
            "token-file", "FILE", "", "file that holds the token clients must send"
        ),
        _Setting(
            "allow-host", "NAMES", "", "further names clients may use, comma-separated"
        ),
        _Setting("insecure-no-auth", "", "", "listen beyond loopback without a token"),
    ),
    "how it behaves": (
        _Setting(
            "shutdown-timeout", "TIME", "10s", "time that runs get to end at shutdown"
        ),
        _Setting(
            "min-free",
            "SIZE",
            "64mb",
            "room on the disk below which nothing is started",
        ),
        _Setting("log-level", "LEVEL", "info", f"one of {', '.join(_LEVELS)}"),
    ),
}
_SETTINGS = tuple(itertools.chain(*_GROUPS.values()))


class UsageError(Exception):
    """A setting that cannot be used; `code` is the exit code."""

    def __init__(self, message: str, code: int = EX_CONFIG) -> None:
        super().__init__(message)
        self.code = code


class _Unprinted(OSError):
    """A result cannot be written, and why. BrokenPipeError stays what it is."""


def _put(fd: int, content: bytes) -> None:
    """Write all of it now, also to a slow reader whose end does not block."""
    left = memoryview(content)
    while left:
        try:
            left = left[os.write(fd, left) :]
        except BlockingIOError:
            select.select([], [fd], [])
        except BrokenPipeError:
            raise
        except OSError as error:
            text = f"the output cannot be written: {error.strerror}"
            raise _Unprinted(error.errno, text) from error


def _print(text: str, end: str = "\n") -> None:
    """Print a result: bytes that are no UTF-8 as they came, and ? for what the encoding
    of stdout lacks."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    try:
        content = (text + end).encode(encoding, "surrogateescape")
    except UnicodeEncodeError:
        content = (text + end).encode(encoding, "replace")
    _put(1, content)


def _complain(text: str, end: str = "\n") -> None:
    """Print what is no result. A closed stderr changes nothing."""
    encoding = getattr(sys.stderr, "encoding", None) or "utf-8"
    with contextlib.suppress(OSError):
        _put(2, (text + end).encode(encoding, "backslashreplace"))


def _say(text: str) -> None:
    """Complain as this program, beside the output of another one."""
    _complain(f"{PROGRAM}: {text}")


# systemd.exec(5): the variable that tells a service its folder, and the path in it.
_SYSTEMD_FOLDERS = {
    "config": ("CONFIGURATION_DIRECTORY", "/tasks.json"),
    "data": ("STATE_DIRECTORY", ""),
}


def _given(arguments: argparse.Namespace, setting: _Setting) -> str | None:
    """A setting's text on the command line, if it stands there."""
    given = getattr(arguments, setting.name.replace("-", "_"))
    return ",".join(given) if isinstance(given, list) else given


def _settings(arguments: argparse.Namespace) -> dict[str, str]:
    """Every setting's text: the flag, else the variable, else the default, which for a
    service of systemd lies in the folder it has."""
    found = {}
    for setting in _SETTINGS:
        variable, rest = _SYSTEMD_FOLDERS.get(setting.name, ("", ""))
        folder = os.environ.get(variable, "").partition(":")[0]
        default = folder + rest if folder else setting.default
        given = _given(arguments, setting)
        fallback = os.environ.get(setting.variable, "") or default
        found[setting.name] = fallback if given is None else given
    return found


def _parse_number(flag: str, text: str, least: int, most: int, more: str = "") -> int:
    """The number given with a flag; `more` says what else is allowed."""
    if not re.fullmatch("[0-9]{1,5}", text) or not least <= int(text) <= most:
        wanted = f"write a number from {least} to {most}{more}"
        raise UsageError(f'{flag} "{text}": {wanted}', EX_USAGE)
    return int(text)


_NO_PORT = "none"


def _parse_port(text: str) -> int | None:
    if text == _NO_PORT:
        return None
    return _parse_number("--port", text, 0, 65_535, f", or {_NO_PORT}")


def _parse_time(flag: str, text: str) -> float:
    """The seconds of a duration given with a flag."""
    try:
        return parse_duration(text)
    except ValueError as error:
        raise UsageError(f"{flag}: {error}", EX_USAGE) from None


def _shutdown_s(settings: dict[str, str]) -> float:
    """The time that runs get to end at shutdown."""
    return _parse_time("--shutdown-timeout", settings["shutdown-timeout"])


def _min_free_bytes(settings: dict[str, str]) -> int:
    """The room on the disk below which nothing is started."""
    try:
        return parse_size(settings["min-free"])
    except ValueError as error:
        raise UsageError(f"--min-free: {error}", EX_USAGE) from None


def _load_token(settings: dict[str, str]) -> str:
    """The token: from the file that is given, else from the variable, else from the
    credential `token` of a service of systemd; empty for none. Raises ConfigError."""
    path, token = settings["token-file"], os.environ.get(TOKEN_VARIABLE, "").strip()
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    if not path and not token and folder:
        credential = os.path.join(folder, "token")
        path = credential if os.path.exists(credential) else ""
    if not path:
        return token
    try:
        with open(path, encoding="utf-8-sig") as file:
            token, fault = file.read(64 * KIB).strip(), "empty; write a token into it"
    except (OSError, UnicodeDecodeError) as error:
        token, fault = "", getattr(error, "strerror", None) or "not UTF-8 text"
    if len(token.splitlines()) > 1:
        # No header can hold them.
        token, fault = "", "has several lines; write the token alone into it"
    if not token:
        raise ConfigError([ConfigFault(path, 0, 0, "--token-file", fault)])
    return token


def _read_token(settings: dict[str, str]) -> str:
    try:
        return _load_token(settings)
    except ConfigError as error:
        [fault] = error.faults
        text = f"{fault.place} {fault.path}: {fault.message}"
        raise UsageError(text) from None


# -- configuration: init, validate, schema


EXAMPLE: dict[str, Any] = {
    "defaults": {"timeout": "1h", "keep_for": "90d"},
    "tasks": {
        "example": {
            "description": "Greets somebody; NAME, and LOUD for capitals",
            "params": [
                {
                    "env": "NAME",
                    "default": "stranger",
                    "description": "Whom to greet",
                },
                {"flag": "--loud", "description": "Greet in capitals"},
            ],
            "run": 'if [ "$1" = --loud ]; then\n'
            "  tr '[:lower:]' '[:upper:]' <<END\nHello, $NAME!\nEND\n"
            'else\n  echo "Hello, $NAME!"\nfi',
        },
        "fail": {
            "description": "Fails with exit code 3 and says why on stderr",
            "run": "echo 'cannot open /etc/nothing' >&2; exit 3",
        },
        "slow": {
            "description": "Counts to 30, a second each: follow it, stop it",
            "run": 'for i in $(seq 1 30); do echo "step $i of 30"; sleep 1; done',
            "on_overlap": "skip",
        },
        "streams": {
            "description": "Writes to both streams",
            "run": "echo 'this is stdout'; echo 'this is stderr' >&2",
        },
        "disk": {
            "description": "Shows free space; a list runs without a shell",
            "group": "system",
            "params": [{"arg": "path", "default": "/", "description": "Where to look"}],
            "run": ["df", "-k", "--"],
        },
        "private": {
            "description": "May not be triggered over HTTP: the API answers 403",
            "group": "system",
            "api_trigger": False,
            "run": "echo 'only the daemon itself may run this'",
        },
    },
}


def _init(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Write an example tasks.json, never over an existing file."""
    path = settings["config"]
    try:
        with open(path, "x", encoding="utf-8") as file:
            json.dump(EXAMPLE, file, indent=2, ensure_ascii=False)
            file.write("\n")
    except FileExistsError:
        raise UsageError(f"{path}: exists already; remove it or name another") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}") from None
    _print(f"{path}: written; start with `python {PROGRAM}.py`")
    return EX_OK


def _print_schema(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Print the JSON Schema of tasks.json with everything it refers to."""
    names = ("TaskSettings", "Param")
    definitions = {"$defs": {name: SCHEMAS[name] for name in names}}
    text = json.dumps({**schema_document("Config"), **definitions})
    for name in names:
        text = text.replace(f'"{name}.json"', f'"#/$defs/{name}"')
    _print(json.dumps(json.loads(text), indent=2, ensure_ascii=False))
    return EX_OK


# -- configuration: import-crontab


_CRONTAB_VARIABLE = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)\s*=\s*(.*)")
_CRONTAB_OWN = ("SHELL", "CRON_TZ", "MAILTO", "MAILFROM")
_NOT_IMPORTED = "not imported"
_MAILS = (
    "MAILTO: cron mails what a job writes, the task %s when one fails; name a mail "
    "server in its smtp, unless there is a sendmail"
)
_ONE_AT_A_TIME = (
    "all: a job that still runs at its next tick is queued, cron would start a second"
    " one; see max_concurrent and on_overlap"
)
# The names of the fields, `m h dom mon dow command`, or a line of a drawing of them.
_CRONTAB_HEADER = re.compile(
    r"m(?:m|in(?:ute)?s?)?[^a-z]+h(?:h|(?:ou)?rs?)?\b|[.|`┌│└┬]", re.IGNORECASE
)
_QUOTED = re.compile(r"'[^']*'|\"(?:[^\"\\]|\\.)*\"|\\.", re.DOTALL)
_IN_BACKGROUND = re.compile(r"(?<![&|<>])&(?![&>])")
_STARTS_SERVICE = re.compile(
    r"(?:^|[\s;&|(/\"'])(?:(?:nohup|setsid|screen|tmux|daemonize|start-stop-daemon)\s"
    r"|(?:service\s+\S+|init\.d/\S+)\s+(?:re)?start\b)|&[\s)]*[\"']"
)


def _crontab_name(comment: str, command: str, taken: Collection[str]) -> str:
    """A name for a job that no other has: from its comment, or its program."""
    words = command.rpartition("&& ")[2].split() if command[:3] == "cd " else []
    words = words or command.split()
    programs = [word for word in words if not _CRONTAB_VARIABLE.match(word)]
    programs = [word for word in programs if word not in ("nohup", "setsid")]
    text = comment or os.path.basename((programs or words)[0])
    base = re.sub("[^a-z0-9._-]+", "-", text.lower())[:40].strip("-.") or "job"
    numbered = (f"{base}-{number}" for number in itertools.count(2))
    return next(n for n in itertools.chain([base], numbered) if n not in taken)


def _crontab_parts(line: str, *, has_user: bool) -> tuple[str, str, str]:
    """Time, user and command of a job's line. Raises ValueError."""
    line = line[line.startswith("-") :]  # cronie does not log such a job
    count = 1 if line.startswith("@") else 5
    parts = line.split(None, count + has_user)
    if len(parts) <= count + has_user:
        raise ValueError("no command behind the time")
    return " ".join(parts[:count]), parts[count] if has_user else "", parts[-1]


def _home_of(user: str) -> str | None:
    """The home of a user, if there is one of that name."""
    import pwd

    try:
        return pwd.getpwnam(user).pw_dir
    except KeyError:
        return None


def _crontab_job(line: str, env: dict[str, str], *, has_user: bool) -> dict[str, Any]:
    """The task of a job's line. Raises ValueError when there can be none."""
    when, user, command = _crontab_parts(line, has_user=has_user)
    if re.search(r"(?<!\\)%", command):
        raise ValueError("text behind % is for stdin; put it into a here-document")
    task: dict[str, Any] = {"cron": when, "timezone": env.get("CRON_TZ", "")}
    if when.lower() == "@reboot":
        task = {"run_on_start": True}
    else:
        parse_cron(when, task["timezone"] or "UTC")
    command = command.replace("\\%", "%")
    unquoted = _QUOTED.sub("_", command)
    if os.path.basename(env.get("SHELL", "")) not in ("bash", "zsh"):
        # A redirection there; to sh(1), a command in the background and another one.
        unquoted = unquoted.replace("&>", "& >")
    lasting = _IN_BACKGROUND.search(unquoted)
    task["run"] = command
    task["user"] = user
    task["shell"] = [env["SHELL"], "-c"] if env.get("SHELL") else ""
    task["working_dir"] = env.get("HOME") or _home_of(user)
    task["orphans"] = LEAVE if lasting or _STARTS_SERVICE.search(command) else ""
    task["env"] = {k: v for k, v in env.items() if k not in _CRONTAB_OWN}
    return {key: value for key, value in task.items() if value}


def _commented(comment: list[str], line: str) -> list[str]:
    """The comment above a job after one more line. A blank one, a job that is switched
    off and the names of the fields end what came before."""
    text = line.strip("# \t")
    if not line or _CRONTAB_HEADER.match(text):
        return []
    try:
        _crontab_job(text, {}, has_user=False)
    except ValueError:
        return [*comment, *filter(None, [text.strip("=-*~ \t")])]
    return []


def _begin_with_users(lines: list[str]) -> tuple[bool, list[str]]:
    """Whether every job begins with a user, as in /etc/crontab, and a note of that."""
    users = []
    for line in lines:
        if line and line[0] != "#" and not _CRONTAB_VARIABLE.fullmatch(line):
            try:
                users.append(_crontab_parts(line, has_user=True)[1])
            except ValueError:
                users.append("")  # no command would be left
    if users and all(_home_of(user) is not None for user in users):
        every = "every job begins with a user's name, which is taken for its user"
        return True, [f"all: {every}; if it is a program, use --no-system"]
    if "root" in users:
        return False, ["all: root is taken for a program; if it is none, use --system"]
    return False, []


def _job_notes(task: Mapping[str, Any]) -> Iterator[str]:
    """What needs a look in an imported job."""
    if "run_on_start" in task:
        yield "@reboot: runs at every start of the daemon, not only of the machine"
    user, folder = task.get("user"), task.get("working_dir", "")
    if user and not os.path.isdir(folder):
        reason = f"its home {folder} is not there" if folder else "no such user here"
        yield f"user {user}: {reason}; set working_dir"


def import_crontab(
    text: str, home: str, *, has_user: bool | None = None
) -> tuple[dict[str, Any], list[str]]:
    """The tasks.json that does what a crontab does, and what needs a look. `has_user`:
    a user stands between time and command, as in /etc/crontab (crontab(5)); None finds
    it out."""
    tasks: dict[str, Any] = {}
    notes: list[str] = []
    env: dict[str, str] = {}
    lines = [line.strip() for line in text.split("\n")]
    comment: list[str] = []
    mails: dict[str, str] = {}  # the name of the task for each target
    mail = ""
    found = _begin_with_users(lines) if has_user is None else (has_user, [])
    has_user, more = found
    for number, line in enumerate(lines, 1):
        if line.startswith("#") or not line:
            comment = _commented(comment, line)
            continue
        about, comment = comment, []
        variable = _CRONTAB_VARIABLE.fullmatch(line)
        if variable:
            env[variable[1]] = unquoted(variable[2].strip())
            if variable[1] == "MAILTO" and env["MAILTO"]:
                target = "mailto:" + re.sub(r"\s", "", env["MAILTO"])
                if target not in mails and not target_fault(target):
                    mails[target] = _crontab_name("mail", "mail", tasks)
                    tasks[mails[target]] = {"notify": target}
                fault = "MAILTO: nobody is told, since that is no address"
                note = _MAILS % mails[target] if target in mails else fault
                notes.append(f"line {number}: {note}")
                mail = mails.get(target, "")
            elif variable[1] == "MAILTO":
                mail = ""
            continue
        try:
            task = _crontab_job(line, env, has_user=has_user)
        except ValueError as error:
            notes.append(f"line {number}: {_NOT_IMPORTED}: {error}")
            continue
        notes += [f"line {number}: {note}" for note in _job_notes(task)]
        described = {"description": " ".join(about)} if about else {}
        name = _crontab_name(about[0] if about else "", task["run"], tasks)
        tasks[name] = {**described, **task, **({"on_failure": mail} if mail else {})}
    notes += [*more, _ONE_AT_A_TIME] if tasks else []
    # What cron does: it starts in the home directory, goes on after a command that
    # fails, and never catches up.
    shell = ["/bin/sh", "-c"]
    defaults = {"working_dir": home, "catch_up": CATCH_SKIP, "shell": shell}
    return {"defaults": defaults, "tasks": tasks}, notes


def _print_import(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Print the tasks.json of a crontab, and on stderr what needs a look."""
    path, has_user = arguments.file, arguments.system
    try:
        with open(0 if path == "-" else path, "rb") as file:
            raw_lines = file.read(CONFIG_MAX_BYTES).split(b"\n")
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}") from None
    lines, notes = [], []
    for number, raw in enumerate(raw_lines, 1):
        try:
            lines.append(raw.decode("utf-8-sig"))
        except UnicodeDecodeError:
            lines.append(raw.decode("latin-1"))
            notes.append(f"line {number}: not UTF-8; read as Latin-1, written as UTF-8")
    place = os.path.abspath(path)
    if has_user is None and place.startswith(("/etc/cron", "/var/spool/cron/")):
        has_user = place.startswith("/etc/")
    home = os.path.expanduser("~")
    document, more = import_crontab("\n".join(lines), home, has_user=has_user)
    _print(json.dumps(document, indent=2, ensure_ascii=False))
    for note in notes + more:
        _complain(note)
    return EX_DIFFERS if any(f": {_NOT_IMPORTED}: " in note for note in more) else EX_OK


# -- asking a running daemon


# -- notify


class _Undelivered(Exception):
    """Why a target was not told; `is_final` if it would refuse the same message again,
    `wait_s` if it says how long to wait."""

    def __init__(
        self, why: str, *, is_final: bool = False, wait_s: float = 0.0
    ) -> None:
        super().__init__(why)
        self.is_final = is_final
        self.wait_s = wait_s


@contextlib.contextmanager
def _time_limit(limit_s: float) -> Iterator[None]:
    """Raise TimeoutError in the block once a time is over, and again in what it does
    for its end. Sockets only limit each single receive and send."""

    def give_up(number: int, frame: Any) -> None:
        raise TimeoutError(f"no answer within {duration_text(limit_s)}")

    before = signal.signal(signal.SIGALRM, give_up)
    signal.setitimer(signal.ITIMER_REAL, limit_s, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _stays(old: SplitResult, new: SplitResult) -> bool:
    """Whether a redirect leads to the same host, and not out of TLS."""
    upgrade = (old.scheme, new.scheme) == ("http", "https")
    return old[:2] == new[:2] or (upgrade and old.hostname == new.hostname)


def _post(url: str, body: bytes, headers: dict[str, str]) -> None:
    """POST to a URL, through a proxy if the environment names one. A redirect within
    the host is followed by another POST. Raises _Undelivered and OSError."""
    import urllib.error
    import urllib.request
    from urllib.parse import urljoin

    parts = urlsplit(url)
    user_info, _, host = parts.netloc.rpartition("@")
    if user_info:
        code = binascii.b2a_base64(unquote(user_info).encode(), newline=False).decode()
        headers = {**headers, "Authorization": f"Basic {code}"}
    url = parts._replace(netloc=host, fragment="").geturl()
    no_redirect = urllib.request.HTTPRedirectHandler()
    # It would make a GET of the POST, and go to any host.
    no_redirect.redirect_request = lambda *_: None  # type: ignore[method-assign]
    opener = urllib.request.build_opener(no_redirect)
    for _ in range(NOTICE_REDIRECTS_MAX):
        try:
            # Checked: it is http or https.
            opener.open(urllib.request.Request(url, body, headers)).close()  # noqa: S310
            return
        except urllib.error.HTTPError as refusal:
            with refusal:
                status, found = refusal.code, refusal.headers
                words = refusal.read(ECHO_MAX_CHARS).decode("utf-8", "replace").split()
        why = " ".join([str(status), *words])
        if status not in (301, 302, 307, 308):
            is_final = status < 500 and status not in (408, 429)
            asked = re.fullmatch(r"[0-9]{1,9}(\.[0-9]+)?", found["Retry-After"] or "0")
            wait_s = float(asked[0]) if asked else 0.0
            raise _Undelivered(why, is_final=is_final, wait_s=wait_s)
        before, url = urlsplit(url), urljoin(url, found["Location"] or "")
        if not _stays(before, urlsplit(url)):
            why = f"{status}: the redirect leads to another host and is not followed"
            raise _Undelivered(why, is_final=True)
    raise _Undelivered("too many redirects", is_final=True)


def _send_by_server(url: str, message: Any) -> None:
    """Give a mail to the server that `smtp` names. Raises _Undelivered and OSError."""
    import smtplib
    import ssl
    from urllib.parse import parse_qs

    parts, tls = urlsplit(url), ssl.create_default_context()
    host, user = parts.hostname or "", unquote(parts.username or "")
    sender = parse_qs(parts.query).get("from", [user])[0]
    # An EHLO with the name by DNS may have to wait for that.
    name = socket.gethostname()
    message["From"] = sender if "@" in sender else f"{PROGRAM}@{name}"
    try:
        if parts.scheme == "smtps":
            port = parts.port or smtplib.SMTP_SSL_PORT
            server: smtplib.SMTP = smtplib.SMTP_SSL(host, port, name, context=tls)
        else:
            server = smtplib.SMTP(host, parts.port or (587 if user else 25), name)
        with contextlib.closing(server):
            server.ehlo()
            if parts.scheme == "smtp" and (user or server.has_extn("starttls")):
                server.starttls(context=tls)
            if user:
                server.login(user, unquote(parts.password or ""))
            if server.send_message(message):
                raise _Undelivered("some addresses were refused", is_final=True)
            with contextlib.suppress(OSError):  # it has the mail
                server.quit()
    except smtplib.SMTPException as refusal:
        # Either the answer to a command, or one for each recipient; or none.
        answers = getattr(refusal, "recipients", {}).values()
        codes = [code for code, _ in answers] or [getattr(refusal, "smtp_code", 0)]
        is_final = isinstance(refusal, smtplib.SMTPNotSupportedError)
        is_final = is_final or min(codes) >= 500
        raise _Undelivered(str(refusal), is_final=is_final) from None


def _mail(addresses: str, title: str, text: str, smtp: str) -> None:
    """Send a mail, without a server by the local sendmail. Raises _Undelivered and
    OSError."""
    from email.message import EmailMessage
    from email.utils import make_msgid

    message = EmailMessage()
    message["Subject"], message["To"] = title, unquote(addresses)
    message["Date"] = formatdate(localtime=True)
    message["Message-ID"] = make_msgid(domain=socket.gethostname())
    message.set_content(text, cte="quoted-printable")
    if smtp:
        _send_by_server(smtp, message)
        return
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/lib"
    sendmail = shutil.which("sendmail", path=path)
    if not sendmail:
        raise _Undelivered("no sendmail here: name a server in smtp", is_final=True)
    argv = [sendmail, "-oi", "-t"]
    told = subprocess.run(
        argv, input=bytes(message), stderr=subprocess.PIPE, check=False
    )
    if told.returncode:
        words = told.stderr.decode("utf-8", "replace")
        raise _Undelivered(f"sendmail: exit code {told.returncode} {words}")


def _notice(document: Mapping[str, Any], fence: str = "") -> tuple[str, str]:
    """Title and text that tell of a run, for somebody with a phone: the outcome first.
    The last lines are those of stderr, if there are any."""
    run, failures = document["run"], document.get("failures") or 0
    outcome = [run["end_reason"].replace("_", " ")] if "end_reason" in run else []
    in_row = f" ({failures} in a row)" if failures > 1 else ""
    title = ": ".join([*outcome, run["task_name"]]) + in_row
    output = document.get("output") or []
    errors = [line for line in output if line["stream"] == STREAMS[STDERR]]
    tail = [line["text"] for line in (errors or output)[-NOTICE_LINES:]]
    tail = [text[:NOTICE_LINE_MAX_CHARS].replace("```", "'''") for text in tail]
    if fence and tail:
        tail = [fence, *tail, fence]
    # Beside no lines a text that somebody wrote by hand is the message.
    most_chars = 2 * NOTICE_LINE_MAX_CHARS if tail else NOTICE_MAX_CHARS
    summary = (run.get("summary") or "")[:most_chars]
    text = "\n".join(filter(None, [summary, *tail, document.get("url")]))
    # Output may have half a surrogate pair in it, which no message can.
    return title, text.encode("utf-8", "replace").decode()


# What a chat takes for a mention or for a link of its own.
_CHAT_MARK = re.compile(r"<|(?<!\w)@(?=\w)")


def _deliver(
    target: str, given: Mapping[str, Any], document: Mapping[str, Any]
) -> None:
    """Tell one target of a run. Raises _Undelivered and OSError."""
    title, text = _notice(document)
    if target.startswith("mailto:"):
        _mail(target.partition(":")[2], title, text, given["smtp"])
        return
    headers = {"User-Agent": f"{PROGRAM}/{VERSION}", "Content-Type": "application/json"}
    if given["format"] == AS_TEXT:
        headers.update({"Content-Type": "text/plain; charset=utf-8", "Title": title})
        body = (text or title).encode()
    elif given["format"] == AS_JSON:
        body = json.dumps(document).encode()
    else:
        told = "\n".join(_notice(document, "```"))
        told = _CHAT_MARK.sub(lambda mark: f"{mark[0]}\u200b", told)[:NOTICE_MAX_CHARS]
        # Discord takes `content`, and this to mention nobody; the others take `text`.
        more = {"text": told, "content": told, "allowed_mentions": {"parse": []}}
        body = json.dumps({**more, "run": document["run"]}).encode()
    _post(target, body, headers)


def _deliver_in_time(
    target: str, given: Mapping[str, Any], document: Mapping[str, Any]
) -> _Undelivered | None:
    """Tell one target of a run, and stderr why that did not work."""
    parts = urlsplit(target)
    host = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{host}/…" if host else "mailto:…"
    try:
        with _time_limit(NOTICE_TRY_S):
            _deliver(target, given, document)
    except _Undelivered as error:
        failure = error
    except (OSError, http.client.HTTPException, ValueError) as error:
        # urllib and smtplib wrap what the network says.
        failure = _Undelivered(str(getattr(error, "reason", error)) or repr(error))
    else:
        _print(f"told {shown}")
        return None
    _say(f"{shown} not told: {failure}")
    return failure


def _open_object(required: str, **fields: JsonSchema) -> JsonSchema:
    return {"type": "object", "required": required.split(), "properties": fields}


_TEXT_OR_NULL = {"type": ["string", "null"], "format": "any-text"}
# What `_notice` reads; who writes it by hand may leave out the rest.
_NOTICED = _open_object(
    "run",
    run=_open_object(
        "task_name",
        task_name={"type": "string"},
        end_reason={"type": "string"},
        summary=_TEXT_OR_NULL,
    ),
    output={
        "type": ["array", "null"],
        "items": _open_object(
            "stream text",
            stream={"type": "string"},
            text={"type": "string", "format": "any-text"},
        ),
    },
    failures={"type": ["integer", "null"]},
    url=_TEXT_OR_NULL,
)


def _document_to_send(task_name: str) -> dict[str, Any]:
    """What stdin says of a run. A text of another kind, or a sample in place of none,
    is said by this run, which has not ended."""
    raw = b""
    # It is None where stdin is closed.
    if sys.stdin and not (task_name or sys.stdin.isatty()):
        raw = sys.stdin.buffer.read(NOTICE_STDIN_MAX_BYTES)
    with contextlib.suppress(ValueError):
        document = json_value(raw)
        if isinstance(document, dict) and isinstance(document.get("run"), dict):
            for fault in find_faults(_NOTICED, document, ()):
                at = ".".join(map(str, fault.at))
                raise UsageError(f"stdin: {at}: {fault.message}", EX_USAGE)
            return document
    now = time_text(Clock().wall_ms())
    name = task_name or os.environ.get("TASKRUNNERD_TASK", "notify")
    text = raw[:BODY_MAX_BYTES].decode("utf-8", "replace")
    summary = text.strip() or "a sample: nothing has failed"
    run_id = os.environ.get(RUN_ID_VARIABLE) or Ulids().make(Clock().wall_ms())
    run = Run(run_id, name, RUNNING, "api", now, summary=summary)
    return {"run": run.document(), "output": [], "failures": 0, "url": None}


def _given_notify(
    settings: dict[str, str], arguments: argparse.Namespace
) -> dict[str, Any]:
    """Targets, format and so on: of the command line, of a task, or from the daemon."""
    if arguments.test and arguments.targets:
        raise UsageError("name a target, or --test TASK", EX_USAGE)
    if arguments.test:
        task = load_config(settings["config"]).tasks.get(arguments.test)
        if not task or not task.notify:
            raise UsageError(f'no task "{arguments.test}" with notify', EX_USAGE)
        # Its proxy, certificates and PATH, as in its runs.
        os.environ.update(task.environ)
        return {**task.notify, "delays_s": []}
    if not arguments.targets and NOTIFY_VARIABLE in os.environ:
        found: dict[str, Any] = json.loads(os.environ[NOTIFY_VARIABLE])
        return found
    if not arguments.targets:
        raise UsageError("name a target, or --test TASK", EX_USAGE)
    for target in arguments.targets:
        fault = target_fault(target)
        if fault:
            raise UsageError(f"a target {fault}", EX_USAGE)
    smtp = os.environ.get("TASKRUNNERD_SMTP", "")
    if smtp and url_fault(smtp, "smtps?"):
        raise UsageError(f"TASKRUNNERD_SMTP {SMTP_FAULT}", EX_USAGE)
    how = {"format": arguments.format, "smtp": smtp, "delays_s": []}
    return {"targets": arguments.targets, **how}


def _send_notices(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Tell targets of the run on stdin. EX_TEMPFAIL: nobody was told, and another
    attempt may help; EX_UNAVAILABLE: somebody was not told, and it would not, or it
    would tell others again."""
    given = _given_notify(settings, arguments)
    document = _document_to_send(arguments.test or "")
    delays_s, left = given["delays_s"], list(dict.fromkeys(given["targets"]))
    told = refused = waited = False
    while True:
        failures = [(x, _deliver_in_time(x, given, document)) for x in left]
        left = [x for x, failed in failures if failed and not failed.is_final]
        told |= any(not failed for _, failed in failures)
        refused |= any(failed and failed.is_final for _, failed in failures)
        if not left:
            return EX_UNAVAILABLE if refused else EX_OK
        wait_s = max(failed.wait_s for _, failed in failures if failed)
        if told and delays_s:
            # Another attempt would tell the others again.
            wait_s = max(delays_s.pop(0), min(wait_s, NOTICE_AGAIN_MAX_S))
        elif told or waited or not 0 < wait_s <= NOTICE_AGAIN_MAX_S:
            return EX_UNAVAILABLE if told else EX_TEMPFAIL
        else:
            waited = True
        time.sleep(wait_s)


class _NoAnswer(UsageError):
    """The daemon cannot be reached, or asks for another try later. `sent`: it may have
    received the request."""

    def __init__(
        self, message: str, code: int = EX_UNAVAILABLE, *, sent: bool = True
    ) -> None:
        super().__init__(message, code)
        self.sent = sent


_REFUSAL_CODES = {
    401: EX_NOPERM, 403: EX_NOPERM, 421: EX_NOPERM, 409: EX_TEMPFAIL, 429: EX_TEMPFAIL,
    507: EX_TEMPFAIL, 500: EX_UNAVAILABLE,
}  # fmt: skip
_TRANSPORT_ERRORS = (OSError, http.client.HTTPException)


class _Refused(UsageError):
    """An answer of the daemon that is a problem."""

    def __init__(self, status: int, text: str, document: Any) -> None:
        super().__init__(text, _REFUSAL_CODES.get(status, EX_USAGE))
        self.status = status
        self.document = document


_COLOUR_CODE = re.compile("\x1b\\[[0-9;]*m")


def _printable(text: str) -> str:
    """Any text as one line that cannot move a terminal's cursor."""
    plain = _COLOUR_CODE.sub("", text).replace("\n", " ")
    return "".join(c if c.isprintable() else "\ufffd" for c in plain)


# A person who has written no request does not know these places.
_API_PLACE = re.compile(r"^(body\.params|body|query|path)\.")


def _problem_text(problem: Mapping[str, Any]) -> str:
    """A problem of the API in one line."""
    faults = [
        f"{_API_PLACE.sub('', fault['location'])}: {fault['message']}"
        for fault in problem.get("errors", ())
    ]
    return _printable("; ".join(faults) or str(problem["detail"]))


def _tls_socket(parts: SplitResult, *, is_own_record: bool) -> socket.socket:
    """A socket that speaks TLS with the host of a URL. Raises OSError."""
    import ssl

    context = ssl.create_default_context()
    if is_own_record:
        # The record holds an address of this machine. The certificate is for the names
        # that others use.
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    address = (parts.hostname or "", parts.port or HTTPS_PORT)
    plain = socket.create_connection(address, CLIENT_TIMEOUT_S)
    try:
        return context.wrap_socket(plain, server_hostname=parts.hostname)
    except OSError:
        plain.close()
        raise


class Client:
    """Asks one daemon. `find` tells where it listens, and is asked again for each
    connection: one that was restarted may listen elsewhere. For one thread."""

    def __init__(
        self, find: Callable[[], str], token: str, *, is_own_record: bool = False
    ) -> None:
        self.find = find
        self.token = token
        self.is_own_record = is_own_record
        self.place = ""
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        """Close the connection; the next request opens another one."""
        if self._connection:
            self._connection.close()
            self._connection = None

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """The document of an answer. Raises _Refused, _NoAnswer."""
        with self._answer(method, path, body, headers or {}) as answer:
            raw = answer.read()
        return self._document(answer, raw)

    def events(self, path: str) -> Iterator[tuple[str, Any]]:
        """(name, document) of server-sent events as they come; the name is empty for a
        sign of life. Raises _Refused, _NoAnswer."""
        try:
            with self._answer("GET", path, None, {}) as answer:
                if answer.status >= 400:
                    self._document(answer, answer.read())
                name = ""
                for line in answer:
                    field, _, value = line.rstrip(b"\n").partition(b": ")
                    if field == b"event":
                        name = value.decode()
                    elif field == b"data":
                        yield name, json.loads(value)
                    elif line.startswith(b":"):
                        yield "", None
        finally:
            # No other request can follow on a connection with the rest of a stream.
            self.close()

    @contextlib.contextmanager
    def _answer(
        self, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> Iterator[http.client.HTTPResponse]:
        """An answer. Asking and reading may fail alike. Raises _NoAnswer."""
        sent = False
        try:
            answer = None
            if self._connection and self._connection.sock:
                # Only a request shows whether the daemon has closed it meanwhile.
                with contextlib.suppress(*_TRANSPORT_ERRORS):
                    sent = True
                    answer = self._send(method, path, body, headers)
            if not answer:
                self.close()
                self._open()
                sent = True
                answer = self._send(method, path, body, headers)
            yield answer
        except (*_TRANSPORT_ERRORS, ValueError) as error:
            self.close()
            reason = getattr(error, "strerror", None) or str(error) or repr(error)
            text = f"{self.place}: no answer: {_printable(reason)}"
            raise _NoAnswer(text, sent=sent) from None

    def _open(self) -> None:
        try:
            self.place = self.find()
        except UsageError as error:
            raise _NoAnswer(str(error), sent=False) from None
        parts = urlsplit(self.place)
        host = parts.netloc if parts.scheme in ("http", "https") else "localhost"
        connection = http.client.HTTPConnection(host, timeout=CLIENT_TIMEOUT_S)
        if parts.scheme == "http":
            connection.connect()
        elif parts.scheme == "https":
            connection.sock = _tls_socket(parts, is_own_record=self.is_own_record)
        else:
            connection.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            connection.sock.settimeout(CLIENT_TIMEOUT_S)
            # An abstract name, else an absolute path.
            connection.sock.connect(re.sub("^@", "\0", self.place))
        self._connection = connection

    def _send(
        self, method: str, path: str, body: Any, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        assert self._connection
        own = {"User-Agent": f"{PROGRAM}/{VERSION}", **headers}
        if self.token:
            own["Authorization"] = f"Bearer {self.token}"
        raw = None if body is None else compact_json(body)
        if raw:
            own["Content-Type"] = "application/json"
        # A proxy may serve the daemon below a path of its own.
        below = urlsplit(self.place).path.rstrip("/") if "://" in self.place else ""
        self._connection.request(method, below + path, raw, own)
        answer = self._connection.getresponse()
        if answer.length is None and not answer.chunked:
            # http.client takes headers that were cut off for whole ones.
            raise http.client.HTTPException("the answer was cut off")
        return answer

    def _document(self, answer: http.client.HTTPResponse, raw: bytes) -> Any:
        """The JSON of an answer. Raises _Refused, and _NoAnswer for 502 to 504."""
        document, problem = None, ""
        try:
            document = json.loads(raw)
            problem = _problem_text(document) if answer.status >= 400 else ""
            is_ours = True
        except (ValueError, KeyError, TypeError, AttributeError):
            # A proxy in front of the daemon answers, or another server.
            is_ours = False
            problem = _printable(f"{self.place}: {answer.status} {answer.reason}")
        if answer.status in (502, 503, 504):
            raise _NoAnswer(problem, EX_TEMPFAIL if is_ours else EX_UNAVAILABLE)
        if not is_ours:
            raise UsageError(f"{problem}, and not of {PROGRAM}", EX_UNAVAILABLE)
        if answer.status >= 400:
            raise _Refused(answer.status, problem, document)
        return document


def _running_place(path: str) -> str:
    """Where the daemon of a data directory listens, by its lock file: the path of a
    Unix socket, else a URL."""
    try:
        with open(os.path.join(path, "lock"), encoding="utf-8") as file:
            record = json.loads(file.readline(4 * KIB))
        place = record.get("socket") or record.get("url", "")
    except (OSError, ValueError):
        place = ""
    if not place:
        raise UsageError(f"--data {path}: no daemon runs here", EX_UNAVAILABLE)
    return str(place)


def _quoted(word: str) -> str:
    """A word of the command line, of any bytes, as part of a URL."""
    return quote(os.fsencode(word), safe="")


def _client(settings: dict[str, str], url: str | None) -> Client:
    """A client of the daemon that the settings name."""
    url = url or os.environ.get("TASKRUNNERD_URL", "")
    if url and not re.match("https?://[^/]|[/@].", url):
        hint = "write http(s)://HOST:PORT, or the path of a Unix socket"
        raise UsageError(f'--url "{url}": {hint}', EX_USAGE)
    try:
        token = _read_token(settings)
        # A header's value (RFC 9110, 5.5); http.client would fail on anything else.
        if not re.fullmatch("[!-~]*", token):
            raise UsageError("the token is not one word of ASCII")
    except UsageError as error:
        raise UsageError(str(error), EX_NOPERM) from None
    if url:
        return Client(lambda: url, token)
    find = functools.partial(_running_place, settings["data"])
    return Client(find, token, is_own_record=True)


# -- what commands print


def _show(document: Any, lines: Iterable[str], *, as_json: bool) -> int:
    """Print an answer as JSON, else as lines for people, which are made only then."""
    if as_json:
        _put(1, compact_json(document))
    else:
        _print("\n".join(lines))
    return EX_OK


_GREEN, _RED, _YELLOW, _CYAN = "32", "31", "33", "36"
_COLOURS = {
    SUCCESS: _GREEN, RUNNING: _CYAN, **dict.fromkeys(FAILURES, _RED),
    **dict.fromkeys((PENDING, STOPPED, SKIPPED, QUEUE_FULL, DAEMON_STOPPED), _YELLOW),
}  # fmt: skip


def _cells(text: str) -> int:
    """How wide a terminal shows a text: two cells for what is wide (Unicode Standard
    Annex #11), none for what combines."""
    if text.isascii():
        return len(text)
    from unicodedata import combining, east_asian_width

    return sum(1 + (east_asian_width(c) in "WF") for c in text if not combining(c))


class _Screen(NamedTuple):
    """The terminal that shows results. Without one `width` is 0, and lines keep their
    length."""

    width: int
    colours: bool

    def paint(self, text: str) -> str:
        """A cell in the colour of the state that it names, if it names one."""
        colour = _COLOURS.get(text.strip()) if self.colours else None
        return f"\x1b[{colour}m{text}\x1b[0m" if colour else text

    def table(
        self, head: Sequence[str], rows: Iterable[Sequence[str]]
    ) -> Iterator[str]:
        """The lines of aligned columns; only the last one is cut to fit."""
        lines = [list(head), *([_printable(cell) for cell in row] for row in rows)]
        widths = [max(map(_cells, column)) for column in zip(*lines)]
        room = max(self.width - sum(w + 2 for w in widths[:-1]), len(head[-1]))
        for line in lines:
            last = line[-1]
            if self.width and _cells(last) > room:
                last = last[: 2 * room]
                while _cells(last) >= room:
                    last = last[:-1]
                last += "…"
            cells = [c + " " * (w - _cells(c)) for c, w in zip(line[:-1], widths)]
            yield "  ".join(map(self.paint, [*cells, last])).rstrip()


def _screen() -> _Screen:
    if not os.isatty(1):
        return _Screen(0, False)
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return _Screen(shutil.get_terminal_size().columns, not plain)


def _local_time(text: str | None) -> str:
    """A time of the API, as local time of this machine."""
    if not text:
        return "-"
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(parse_time(text) / 1000))


def _pause_text(pause: Mapping[str, Any]) -> str:
    """A pause, as JSON, in words."""
    until = f" until {_local_time(pause['until'])}" if "until" in pause else ""
    return f"paused{until}"


def _took(run: Mapping[str, Any]) -> str:
    """How long a run took, or has been running."""
    if "duration" in run:
        return duration_text(run["duration"] / 1e9)
    if run["status"] != RUNNING or "start_at" not in run:
        return "-"
    return duration_text(max(0, time.time() - parse_time(run["start_at"]) / 1000))


def _state(run: Mapping[str, Any]) -> str:
    return str(run.get("end_reason") or run["status"])


_RUN_HEAD = ("RUN", "TASK", "STATE", "EXIT", "BEGAN", "TOOK", "SUMMARY")


def _run_row(run: Mapping[str, Any]) -> list[str]:
    code = run["exit_code"]
    exit_text = "-" if code == NO_EXIT_CODE else str(code)
    began = _local_time(run.get("start_at") or run["created_at"])
    cells = [run["id"], run["task_name"], _state(run), exit_text, began, _took(run)]
    return [*cells, run.get("summary", "")]


# -- signals: one pipe for the daemon and for `run`


def _start_thread(body: Callable[[], None], name: str) -> None:
    threading.Thread(target=body, name=name, daemon=True).start()


# Python ignores these from its start on, and Popen resets them.
_SET_BY_PYTHON = {signal.SIGPIPE, signal.SIGXFSZ}
# At a terminal, a write of one that only catches SIGTTOU would be tried again for ever.
_LEFT_IGNORED = {*_SET_BY_PYTHON, signal.SIGTTIN, signal.SIGTTOU}


def _do_nothing(number: int, frame: Any) -> None:
    """Handle a signal that this process ignores and its programs do not."""


def _is_ignored(number: int) -> bool:
    return signal.getsignal(number) in (signal.SIG_IGN, _do_nothing)


def _ignore_alone(*, alone: bool = True) -> None:
    """Keep on ignoring the signals that the parent of this process ignored, but give
    programs the defaults: an exec resets a signal that has a handler. Before an upgrade
    (not `alone`), the next program inherits that they are ignored."""
    left = _LEFT_IGNORED if any(map(os.isatty, (1, 2))) else _SET_BY_PYTHON
    for number in signal.valid_signals() - left:
        if _is_ignored(number):
            signal.signal(number, _do_nothing if alone else signal.SIG_IGN)


_SIGNALS = {
    signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR2,
}  # fmt: skip
# What a pipe of signals tells, besides _ARRIVED + N for a signal. Python code writes
# that, so only this process does. The interpreter writes N, which may come from a child
# between fork and exec: it has the pipe and the handlers of this process.
_DRAINED, _ARRIVED, _BEAT = 0, 128, 255


def _inherited_signals(reader: int, writer: int) -> bytes:
    """What the pipe of the program before this one tells of signals that it had no time
    for. There was no child when it wrote its last _BEAT: what came then was its own."""
    os.write(writer, bytes([_BEAT]))
    left = os.read(reader, PIPE_DEFAULT_BYTES)[:-1]
    before, _, behind = left.rpartition(bytes([_BEAT]))
    told = [byte for byte in before if _ARRIVED < byte < _BEAT]
    return bytes([*told, *(_ARRIVED + n for n in behind if 0 < n < _ARRIVED)])


def _leave_soon() -> None:
    """Have the kernel end this process in a while, if nothing else does. For the main
    thread."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    # A further signal must not postpone it.
    if not signal.getitimer(signal.ITIMER_REAL)[0]:
        signal.setitimer(signal.ITIMER_REAL, STOP_SLACK_S)


def _signal_pipe(
    numbers: Iterable[int], fds: Sequence[int] | None = None
) -> tuple[int, int]:
    """A pipe that tells which of these signals arrive: the one with these descriptors,
    if the program before this one left it."""
    reader, writer = fds or os.pipe()
    for fd in (reader, writer):
        os.set_inheritable(fd, False)
    os.set_blocking(writer, False)
    if fds:
        os.write(writer, _inherited_signals(reader, writer))
    signal.set_wakeup_fd(writer)
    own, stops = os.getpid(), itertools.count(1)

    def arrive(number: int, _: Any) -> None:
        """Write a signal into the pipe. A second request to stop works whatever hangs,
        be it the loop that reads the pipe."""
        if os.getpid() != own:
            return
        # A full pipe has enough to read.
        with contextlib.suppress(BlockingIOError):
            os.write(writer, bytes([_ARRIVED + number]))
        if number in (signal.SIGTERM, signal.SIGINT) and next(stops) > 1:
            _leave_soon()

    for number in numbers:
        signal.signal(number, arrive)
    return reader, writer


def leave_at_once(code: int) -> NoReturn:
    """Exit without the shutdown of the interpreter, which would wait for threads of
    connections."""
    for stream in (sys.stdout, sys.stderr):
        # Somebody has reported already that it cannot be written.
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(code)


# -- run: the command line that behaves like the command it runs


def _run_exit_code(run: Mapping[str, Any]) -> int:
    """The exit code that tells what became of a run; 0 is for success alone."""
    reason, code = run.get("end_reason"), int(run["exit_code"])
    if reason in (SKIPPED, QUEUE_FULL):
        return EX_TEMPFAIL
    if reason == TIMEOUT:
        return EX_TIMEOUT
    if reason == CRASHED:
        # Its own code is not known. The next daemon killed what was left.
        return EX_SIGNAL + signal.SIGKILL
    if code == NO_EXIT_CODE:
        return EX_NOT_STARTED
    return code if reason == SUCCESS else code or EX_DIFFERS


class _BackOff:
    """Pauses between tries to reach the daemon, each twice as long as the one before.
    `hint` says what else may be the case when no try succeeds."""

    def __init__(self, hint: str = "") -> None:
        self._hint = hint
        self.reset()

    def reset(self) -> None:
        """The daemon answers."""
        self._since_s: float | None = None
        self._pause_s = CLIENT_PAUSE_S
        self._told = False

    def pause(self) -> None:
        """Pause before the next try."""
        time.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, CLIENT_PAUSE_MAX_S)

    def wait(self, error: UsageError) -> None:
        """Pause as well, but raise the error after CLIENT_PATIENCE_S of tries."""
        now_s = time.monotonic()
        self._since_s = now_s if self._since_s is None else self._since_s
        if now_s - self._since_s >= CLIENT_PATIENCE_S:
            limit = duration_text(CLIENT_PATIENCE_S)
            raise UsageError(f"{error}; tried for {limit}{self._hint}", error.code)
        # Not at the first tries: an upgrade in place takes less time than reading it.
        if self._pause_s >= CLIENT_PAUSE_MAX_S and not self._told and os.isatty(2):
            self._told = True
            _say(f"{error}; trying again")
        self.pause()


class _SignalRelay:
    """Has a run stopped at Ctrl-C, SIGTERM or a time limit, and detaches from it at the
    second signal. `stop` gets the run's id, `leave` the exit code. Both are called in
    another thread than the main one, and may block. `forks` says that this process
    starts programs itself."""

    def __init__(
        self,
        stop: Callable[[str], None],
        leave: Callable[[int], None],
        hint: str,
        *,
        forks: bool = False,
    ) -> None:
        self.code = 0
        # A program before its exec may write what the interpreter does, N. But where
        # there is none, that is there at once, and _ARRIVED + N only when the main
        # thread comes out of a write to a full pipe that it was about to begin.
        self._base = _ARRIVED if forks else 0
        self._stop = stop
        self._leave = leave
        self._hint = hint
        self._run_id = ""
        # A leaf.
        self._lock = threading.Lock()

    @contextlib.contextmanager
    def on(self, numbers: Sequence[int], timeout_s: float | None) -> Iterator[None]:
        """Heed signals and the time limit. For the main thread."""
        # A shell ignores signals for jobs in the background; that stays.
        before = {n: signal.getsignal(n) for n in numbers if not _is_ignored(n)}
        reader, writer = _signal_pipe(before)
        _start_thread(functools.partial(self._relay, reader), "signals")
        timer = threading.Timer(timeout_s or 0, self._ask, (EX_TIMEOUT,))
        timer.daemon = True
        if timeout_s is not None:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            for number, handler in before.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(-1)
            os.close(writer)

    def _relay(self, reader: int) -> None:
        """Root of the thread that reads what signals arrive, until the pipe closes."""
        with open(reader, "rb", buffering=0) as pipe:
            told = iter(lambda: pipe.read(1), b"")
            offsets = (byte[0] - self._base for byte in told)
            numbers = (number for number in offsets if 0 < number < _ARRIVED)
            for count, number in enumerate(numbers, 1):
                if count > 1:
                    self._leave(EX_SIGNAL + number)
                else:
                    _say(f"asking the run to stop; {self._hint}")
                    self._ask(EX_SIGNAL + number)

    def hold(self, run_id: str) -> None:
        """Take this run from now on; stop it if a signal has come already."""
        with self._lock:
            self._run_id = run_id
            if self.code:
                self._begin_stop()

    def _ask(self, code: int) -> None:
        with self._lock:
            if not self.code:
                self.code = code
                self._begin_stop()

    def _begin_stop(self) -> None:
        if self._run_id:
            _start_thread(functools.partial(self._stop, self._run_id), "stop")

    def exit_code(self, run: Mapping[str, Any]) -> int:
        """The exit code for an ended run: if it was stopped, the reason's."""
        stopped = run.get("end_reason") in (STOPPED, DAEMON_STOPPED)
        return self.code if self.code and stopped else _run_exit_code(run)


class _End(NamedTuple):
    """The end of a run's output: the run as it then is, and the attempt after it."""

    run: dict[str, Any]
    next_run_id: str = ""


_Output = Iterator[Union[LogPart, _End]]


def _remote_output(client: Client, run: Mapping[str, Any], query: str = "") -> _Output:
    """A run's output as it comes. It continues after every break of the connection.
    Raises UsageError."""
    path = f"/api/tasks/{run['task_name']}/runs/{run['id']}/log/parts"
    back_off = _BackOff(f"; run {run['id']} may go on")
    at = 0
    while True:
        try:
            for name, document in client.events(f"{path}?from={at}{query}"):
                back_off.reset()
                if name == "part":
                    at = document["end"]
                    content = binascii.a2b_base64(document["bytes"])
                    yield LogPart(at, STREAMS.index(document["stream"]), content)
                elif name == "done":
                    yield _End(document["run"], document.get("next_run_id", ""))
                    return
            # The daemon shuts down or is being replaced.
            raise _NoAnswer(f"{client.place}: the daemon ended the stream")
        except _NoAnswer as error:
            back_off.wait(error)
        except _Refused as refused:
            if refused.status != 404:
                raise
            # The run did exist: it has been deleted, or the daemon has another history.
            raise UsageError(str(refused), EX_UNAVAILABLE) from None


def _copy(output: _Output, *, stdout_fd: int = 1) -> _End:
    """Write a run's output on, each stream byte for byte. Raises BrokenPipeError,
    UsageError."""
    fds = {STDOUT: stdout_fd, STDERR: 2, SYSTEM: 2}
    for part in output:
        if isinstance(part, _End):
            return part
        try:
            if part.stream == SYSTEM:
                _put(2, f"{PROGRAM}: ".encode())
            _put(fds[part.stream], part.content)
        except _Unprinted as error:
            raise UsageError(str(error.strerror), EX_OSERR) from None
    raise UsageError("the run's end is not known", EX_UNAVAILABLE)


def _attend(
    output_of: Callable[[str], _Output],
    run_id: str,
    relay: _SignalRelay,
    arguments: argparse.Namespace,
) -> int:
    """Copy what a run and its later attempts write; the exit code of the last one."""
    while True:
        relay.hold(run_id)
        run, next_id = _copy(output_of(run_id), stdout_fd=2 if arguments.json else 1)
        if not next_id:
            break
        _say(f"{run.get('summary', _state(run))}; trying again as run {next_id}")
        run_id = next_id
    if arguments.json:
        _put(1, compact_json(run))
    # If the program just failed, its exit code says enough.
    if run.get("end_reason") not in (SUCCESS, FAILED) or "signal" in run:
        _say(_printable(run.get("summary", _state(run))))
    return relay.exit_code(run)


def _bare(key: str) -> str:
    """A parameter's key without what its kind adds: `--date=` as date."""
    return key.strip("-").rstrip("=")


def _given_params(
    words: Sequence[str], declared: Sequence[tuple[str, str]]
) -> dict[str, str]:
    """The parameters of words such as KEY=VALUE. `declared` has (kind, key) of each; a
    flag needs no value, and dashes may be left out of a key."""
    kinds = {key: kind for kind, key in declared}
    short = collections.Counter(map(_bare, kinds))
    keys = {_bare(key): key for key in kinds if short[_bare(key)] == 1}
    keys.update((key.rstrip("="), key) for key in kinds)
    found: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        key = keys.get(name, name)
        if not equals:
            if kinds.get(key) != "flag":
                raise UsageError(f'"{word}": write KEY=VALUE', EX_USAGE)
            value = "true"
        if key in found:
            raise UsageError(f'"{word}": {name} is given twice', EX_USAGE)
        try:
            value.encode()
        except UnicodeEncodeError:
            raise UsageError(f"{name}: not UTF-8 text", EX_USAGE) from None
        found[key] = value
    return found


def _task_path(name: str) -> str:
    """The path of a task in the API."""
    return f"/api/tasks/{_quoted(name)}"


def _trigger(
    client: Client, arguments: argparse.Namespace, params: dict[str, str]
) -> dict[str, Any]:
    """Trigger one run, with as many tries as that takes."""
    key = os.urandom(16).hex() if arguments.key is None else arguments.key
    if not re.fullmatch(f"[ -~]{{1,{KEY_MAX_CHARS}}}", key):
        limit = f"1 to {KEY_MAX_CHARS} characters of ASCII"
        raise UsageError(f"--key: write {limit}", EX_USAGE)
    escaped = re.sub(r'(["\\])', r"\\\1", key)
    headers = {KEY_HEADER: f'"{escaped}"'}
    path = f"{_task_path(arguments.task)}/run"
    back_off = _BackOff()
    first = True
    while True:
        try:
            run = client.ask("POST", path, {"params": params}, headers)
        except _NoAnswer as error:
            # If nobody listens at the first try, do not wait for a daemon.
            if first and not error.sent:
                raise
            back_off.wait(error)
        else:
            return cast(dict[str, Any], run)
        first = False


def _stop_remotely(client: Client, task_name: str, run_id: str) -> None:
    """Ask a run to stop until the daemon answers."""
    own = Client(client.find, client.token, is_own_record=client.is_own_record)
    back_off = _BackOff()
    while True:
        try:
            own.ask("POST", f"/api/tasks/{task_name}/runs/{run_id}/stop")
        except _NoAnswer:
            back_off.pause()
        except UsageError as error:
            # Else it has ended meanwhile, or the main thread reports the same error.
            if "cannot be signalled" in str(error):
                _say(str(error))
            return
        else:
            return


def _run_remotely(client: Client, arguments: argparse.Namespace) -> int:
    """Trigger a run of a running daemon and behave like its program."""
    declared: list[tuple[str, str]] = []
    if arguments.params:
        task = client.ask("GET", _task_path(arguments.task))
        # The first member of a parameter is its kind, with the key.
        declared = [next(iter(param.items())) for param in task["params"]]
    params = _given_params(arguments.params, declared)
    if arguments.detach:
        run = _trigger(client, arguments, params)
        _put(1, compact_json(run) if arguments.json else f"{run['id']}\n".encode())
        return EX_OK
    run = {}

    def leave(code: int) -> NoReturn:
        """Leave the run to itself, whatever the main thread waits for."""
        _say(f"left; the run goes on as {run['id']}" if run else "left")
        leave_at_once(code)

    def output_of(run_id: str) -> _Output:
        """The output of an attempt."""
        return _remote_output(client, {**run, "id": run_id})

    stop = functools.partial(_stop_remotely, client, arguments.task)
    relay = _SignalRelay(stop, leave, "once more leaves it running")
    with relay.on((signal.SIGINT, signal.SIGTERM), arguments.timeout):
        run = _trigger(client, arguments, params)
        return _attend(output_of, run["id"], relay, arguments)


# -- the other questions to a daemon, and upgrade


def _print_tasks(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """List the tasks, and what is going on with them."""
    tasks = _client(settings, arguments.url).ask("GET", "/api/tasks")
    head = ("TASK", "LAST", "RUNNING", "QUEUED", "NEXT", "DESCRIPTION")
    rows = (
        (
            task["name"],
            _state(task["last_run"]) if "last_run" in task else "-",
            str(task["running"]),
            str(task["queued"]),
            "paused" if "paused" in task else _local_time(task.get("next_run_at")),
            task["description"],
        )
        for task in tasks
    )
    return _show(tasks, _screen().table(head, rows), as_json=arguments.json)


def _print_runs(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """List runs, newest first."""
    of_task = _task_path(arguments.task) if arguments.task else "/api"
    status = f"&status={_quoted(arguments.status)}" if arguments.status else ""
    path = f"{of_task}/runs?limit={_quoted(arguments.count)}{status}"
    answer = _client(settings, arguments.url).ask("GET", path)
    lines = _screen().table(_RUN_HEAD, map(_run_row, answer["runs"]))
    return _show(answer, lines, as_json=arguments.json)


def _named_run(client: Client, name: str) -> dict[str, Any]:
    """The run that somebody means by an id, its beginning or end, `last`, or any of
    these behind TASK/. Raises UsageError."""
    task, _, word = name.rpartition("/")
    of_task = f"&task_name={_quoted(task)}" if task else ""
    if re.fullmatch(RUN_ID_PATTERN, word.upper()):
        run = client.ask("GET", f"/api/runs/{word.upper()}")
        return cast(dict[str, Any], run)
    if word == "last":
        runs = client.ask("GET", f"/api/runs?limit=1{of_task}")["runs"]
    else:
        word = word.upper()
        if not re.fullmatch("[0-9A-HJKMNP-TV-Z]{1,25}", word):
            hint = "write a run id, its beginning or end, or last"
            raise UsageError(f'"{name}": {hint}', EX_USAGE)
        query = f"search={word}&limit={LIST_MAX_RUNS}{of_task}"
        runs = client.ask("GET", f"/api/runs?{query}")["runs"]
        ends = (str.startswith, str.endswith)
        runs = [run for run in runs if any(is_at(run["id"], word) for is_at in ends)]
    if len(runs) != 1:
        what = f"{len(runs)} runs are" if runs else "no run is"
        raise UsageError(f'{what} meant by "{name}"', EX_USAGE)
    return cast(dict[str, Any], runs[0])


def _run_lines(run: Mapping[str, Any]) -> Iterator[str]:
    """A run's fields, and the end of its output."""
    screen = _screen()
    facts = {**run, "state": _state(run), "took": _took(run)}
    for name in ("$schema", "status", "end_reason", "duration", "instance_index"):
        facts.pop(name, None)
    for name in ("created_at", "scheduled_at", "start_at", "end_at"):
        if name in facts:
            facts[name] = _local_time(facts[name])
    output, params = facts.pop("output"), facts.pop("params", {})
    facts.update({f"params.{key}": value for key, value in params.items()})
    width = max(map(len, facts))
    for name, value in facts.items():
        is_text = isinstance(value, str) and name != "result"
        text = value if is_text else json.dumps(value, ensure_ascii=False)
        yield f"{name.ljust(width)}  {screen.paint(_printable(text))}"
    if output:
        yield ""
    for line in output:
        yield _printable(line["text"].expandtabs())


def _show_run(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Show one run, and the end of its output."""
    client = _client(settings, arguments.url)
    run_id = _named_run(client, arguments.run)["id"]
    run = client.ask("GET", f"/api/runs/{run_id}?output={SHOWN_LINES}")
    return _show(run, _run_lines(run), as_json=arguments.json)


def _print_log(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Write out what a run wrote, each stream byte for byte."""
    client = _client(settings, arguments.url)
    run = _named_run(client, arguments.run)
    query = "" if arguments.follow else "&follow=false"
    _copy(_remote_output(client, run, query))
    return EX_OK


def _ask_stop(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Ask a run to stop."""
    client = _client(settings, arguments.url)
    run = _named_run(client, arguments.run)
    path = f"/api/tasks/{run['task_name']}/runs/{run['id']}/stop"
    try:
        answer = client.ask("POST", path)
    except _Refused as refused:
        if refused.status != 409:
            raise
        raise UsageError(str(refused), EX_DIFFERS) from None
    return _show(answer, [answer["message"]], as_json=arguments.json)


def _ask_pause(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Pause the schedule of a task or of all, or have it go on."""
    word, name = arguments.command, arguments.task
    if bool(name) == arguments.all:
        raise UsageError(f"write {word} TASK, or {word} --all", EX_USAGE)
    path = f"{_task_path(name) if name else '/api'}/{word}"
    body: dict[str, Any] = {}
    if word == "pause":
        body = {"reason": arguments.reason} if arguments.reason else {}
        if arguments.lasts:
            until_s = time.time() + _parse_time("--for", arguments.lasts)
            body["until"] = time_text(int(until_s * 1000))
    answer = _client(settings, arguments.url).ask("POST", path, body or None)
    pause = answer.get("paused")
    told = _pause_text(pause) if pause else "goes on"
    if pause and word == "resume":
        told += ", as all tasks are; see resume --all"
    return _show(answer, [f"{name or 'all tasks'}: {told}"], as_json=arguments.json)


def _from_history(data: str, read: Callable[[Store], Any], otherwise: Any) -> Any:
    """What is read from the history of a data directory, if there is one; a warning
    if it cannot be read."""
    path = os.path.join(data, HISTORY)
    try:
        if os.path.exists(path):
            with contextlib.closing(Store(path, look_only=True)) as store:
                return read(store)
    except StoreError as error:
        _complain(f"warning: --data {data}: {error}")
    return otherwise


def _print_next(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Print the coming ticks of one task or of all, soonest first."""
    count = _parse_number("-n", arguments.count, 1, NEXT_MAX_TICKS)
    tasks = load_config(settings["config"]).tasks
    name = arguments.task
    if name and name not in tasks:
        raise UsageError(f'no task "{name}"{nearest(name, tasks)}', EX_USAGE)
    now_s = int(time.time())
    pauses = _from_history(settings["data"], Store.pauses, {})
    found = [
        next_document(
            task, now_s, now_s, count, pause_in_force(pauses, task.name, now_s)
        )
        for task in ([tasks[name]] if name else tasks.values())
        if task.cron or name
    ]
    if arguments.json:
        _print(json.dumps(found[0] if name else found, ensure_ascii=False))
        return EX_OK
    rows = [(t["at"], d["task_name"], t, d) for d in found for t in d["ticks"]]
    for at, task_name, tick, document in sorted(rows, key=lambda row: row[:2])[:count]:
        notes = f"  ({tick['note']})" if "note" in tick else ""
        zone = f"{tick['local']} {document['timezone']}"
        _print(f"{zone}  {at}  {task_name}{notes}")
    paused = [d for d in found if "paused" in d and "schedule" in d]
    for document in paused:
        _print(f"{document['task_name']}: {_pause_text(document['paused'])}")
    if not (rows or paused):
        _print(f"{name or settings['config']}: no schedule, so no ticks")
    return EX_OK


def _health(client: Client) -> dict[str, Any]:
    """Whether the daemon takes triggers: the API's answer, or one like it if the daemon
    does not answer."""
    try:
        return cast(dict[str, Any], client.ask("GET", "/readyz"))
    except UsageError as error:
        return {"status": "unavailable", "detail": str(error)}


def _health_text(health: Mapping[str, Any]) -> str:
    return ": ".join([health["status"], *filter(None, [health.get("detail")])])


def _status_lines(place: str, found: Mapping[str, Any]) -> Iterator[str]:
    screen, info, system = _screen(), found["info"], found["system"]
    up = duration_text(system["uptime_ns"] / 1e9)
    yield f"{PROGRAM} {info['version']}  pid {info['pid']}  up {up}  {place}"
    changed = ", changed since it was loaded" if info["config_stale"] else ""
    yield f"config  {info['config_path']}, {info['task_count']} tasks{changed}"
    free = size_text(system["disk_free_bytes"])
    yield f"data    {info['data_dir']}, {free} free"
    yield f"health  {_health_text(found['health'])}"
    how = {CGROUP: "each in a cgroup of its own", MARK: "found by group and mark"}
    yield f"procs   {how[info['tracking']]}"
    yield f"runs    {system['runs_active']} running, {system['runs_queued']} queued"
    if found["active"]["runs"]:
        yield ""
        yield from screen.table(_RUN_HEAD, map(_run_row, found["active"]["runs"]))
    coming = sorted(
        (task["next_run_at"], task["name"], task["schedule"])
        for task in found["tasks"]
        if "next_run_at" in task
    )
    if coming:
        rows = [(_local_time(at), *words) for at, *words in coming[:STATUS_ROWS]]
        yield ""
        yield from screen.table(("NEXT", "TASK", "SCHEDULE"), rows)
    uses = [
        (*map(size_text, (use["log_bytes"], use["database_bytes"])), *words)
        for use in system.get("disk_usage", ())
        for words in [(str(use["runs"]), use["task_name"])]
    ]
    if uses:
        yield ""
        yield from screen.table(("LOGS", "HISTORY", "RUNS", "TASK"), uses)
    if found["failed"]["runs"]:
        head = ("FAILED LATELY", *_RUN_HEAD[1:])
        yield ""
        yield from screen.table(head, map(_run_row, found["failed"]["runs"]))


def _print_status(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Say on one screen how the daemon is doing."""
    client = _client(settings, arguments.url)
    limit = f"limit={STATUS_ROWS}"
    found = {
        "info": client.ask("GET", "/api/info"),
        "system": client.ask("GET", "/api/system?usage=true"),
        "health": _health(client),
        "active": client.ask("GET", f"/api/runs?status=running,pending&{limit}"),
        "failed": client.ask("GET", f"/api/runs?status={','.join(FAILURES)}&{limit}"),
        "tasks": client.ask("GET", "/api/tasks"),
    }
    return _show(found, _status_lines(client.place, found), as_json=arguments.json)


def _print_health(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Print whether the daemon takes triggers: exit code 0, else 1, as Docker wants."""
    health = _health(_client(settings, arguments.url))
    _show(health, [_health_text(health)], as_json=arguments.json)
    return EX_OK if health["status"] == "ok" else EX_DIFFERS


def _ask_reload(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Have the running daemon load tasks.json again, and print its answer."""
    try:
        answer = _client(settings, arguments.url).ask("POST", "/api/reload")
    except _Refused as refused:
        if refused.status != 422:
            raise
        faults = [fault["message"] for fault in refused.document.get("errors", ())]
        if len(faults) == FAULTS_LISTED:
            # The detail says how many more there are.
            faults.append(refused.document["detail"])
        _complain("\n".join(faults or [str(refused)]))
        return EX_CONFIG
    del answer["$schema"]
    _print(json.dumps(answer, ensure_ascii=False))
    return EX_OK


def _lock_record(path: str) -> dict[str, Any]:
    """The record of the daemon that runs in a data directory. Raises UsageError 69 if
    none runs there."""
    nobody = UsageError(f"--data {path}: no daemon runs there", EX_UNAVAILABLE)
    try:
        with open(os.path.join(path, "lock"), "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return cast(dict[str, Any], json.loads(file.readline() or b"{}"))
    except FileNotFoundError:
        raise nobody from None
    except OSError as error:
        text = f"{error.strerror}; ask as the user of the daemon, or name its --url"
        raise UsageError(f"--data {path}: {text}", EX_OSERR) from None
    except ValueError:
        # The daemon is just writing it.
        return {}
    raise nobody


def _upgrade_daemon(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Have the running daemon replace itself, and print the outcome."""
    path = settings["data"]
    before = _lock_record(path)
    pid = before.get("pid", 0)
    if pid and not has_open(pid, os.path.join(path, "lock")):
        # Another pid namespace, as in a container: the number names another process.
        message = f"its daemon, pid {pid} where it runs, cannot be seen from here"
        raise UsageError(f"--data {path}: {message}; send SIGUSR2 there", EX_TEMPFAIL)
    try:
        os.kill(before["pid"], signal.SIGUSR2)
    except (KeyError, OSError) as error:
        reason = getattr(error, "strerror", None) or "it is just starting"
        raise UsageError(f"the daemon cannot be told: {reason}", EX_TEMPFAIL) from None
    give_up_s = time.monotonic() + UPGRADE_WAIT_S
    while time.monotonic() < give_up_s:
        time.sleep(SURVIVOR_CHECK_S)
        try:
            now = _lock_record(path)
        except UsageError as gone:
            text = f"{gone} any more; see the daemon's log; {_BACK}"
            raise UsageError(text, gone.code) from None
        if now.get("refused", before.get("refused")) != before.get("refused"):
            _say(f"refused: {now['refused']['error']}")
            return EX_CONFIG
        if now.get("started_ms", before.get("started_ms")) != before.get("started_ms"):
            places = " and ".join(now[k] for k in ("url", "socket") if k in now)
            _print(f"upgraded: pid {now['pid']} listens on {places}")
            return EX_OK
    limit = f"{UPGRADE_WAIT_S:.0f} s"
    raise UsageError(f"no upgrade within {limit}; see the daemon's log", EX_TEMPFAIL)


# -- backup, restore


_BACKED_UP = re.compile(
    rf"{re.escape(HISTORY)}|logs/[^/]+/([0-9A-Z]{{26}})\.(?:more/[0-9]+\.)?(?:log|idx)"
)


def _log_files(data: str) -> Iterator[tuple[str, str]]:
    """(name, run id) of each file of a log; an index comes before its log (I8)."""
    for folder, folders, names in os.walk(os.path.join(data, "logs")):
        folders.sort()
        for file_name in sorted(names):
            name = os.path.relpath(os.path.join(folder, file_name), data)
            match = _BACKED_UP.fullmatch(name)
            if match:
                yield name, match[1]


def _write_backup(data: str, output: IO[bytes], copy: str) -> int:
    """Write an archive of a data directory, in use or not; returns how many runs it
    has. The database is copied first and archived last, and loses the runs whose logs
    were removed meanwhile. Raises OSError, sqlite3.Error."""
    import gzip
    import tarfile

    database = os.path.join(data, HISTORY)
    if not os.path.exists(database):
        raise FileNotFoundError(errno.ENOENT, "no history there")
    before = {run_id for _, run_id in _log_files(data)}
    ids, copied, lost = copy_history(database, copy), set(), set()
    # tarfile's own packing takes twice the time for one percent.
    with (
        gzip.GzipFile("", "wb", 6, output) as packed,
        tarfile.open(fileobj=packed, mode="w|", format=tarfile.GNU_FORMAT) as tar,
    ):
        for name, run_id in _log_files(data):
            if run_id not in ids:
                continue
            try:
                with open(os.path.join(data, name), "rb") as file:
                    tar.addfile(tar.gettarinfo(arcname=name, fileobj=file), file)
                    copied.add(run_id)
            except FileNotFoundError:
                lost.add(run_id)
        count = prune_copy(database, copy, lost | (before & ids) - copied)
        tar.add(copy, HISTORY)
    return count


def _backup(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Write a backup to a file, which takes its name when it is whole, or to stdout."""
    data, path = settings["data"], arguments.file
    # A device or a FIFO is written to and never replaced, nor is a symbolic link.
    is_file = path != "-" and (os.path.isfile(path) or not os.path.exists(path))
    own = os.path.realpath(path) if is_file else ""
    copy, new = f"{own or os.path.join(data, HISTORY)}-copy", own and f"{own}-new"
    flags = os.O_CREAT | os.O_RDWR | os.O_CLOEXEC
    with contextlib.ExitStack() as stack:
        try:
            lock_fd = os.open(copy, flags, 0o600)
            stack.callback(os.close, lock_fd)
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # One that was killed may have left something.
            os.ftruncate(lock_fd, 0)
            for name in (f"{copy}-shm", f"{copy}-wal", new):
                remove_if_there(name)
                stack.callback(remove_if_there, name)
            stack.callback(remove_if_there, copy)
            if own:
                fd = os.open(new, flags, 0o600)
            else:
                fd = os.dup(1) if path == "-" else os.open(path, os.O_WRONLY)
            with open(fd, "wb") as output:
                count = _write_backup(data, output, copy)
                if own:
                    output.flush()
                    os.fsync(fd)
                    os.rename(new, own)
        except BlockingIOError:
            raise UsageError(
                f"{path}: another backup is being written", EX_TEMPFAIL
            ) from None
        except (OSError, sqlite3.Error) as error:
            text = getattr(error, "strerror", None) or str(error)
            name = getattr(error, "filename", None)
            text = f"{name}: {text}" if name else text
            raise UsageError(f"no backup of {data}: {text}", EX_OSERR) from None
    _say(f"{path}: {count} runs of {data}")
    return EX_OK


def _unpack(source: IO[bytes], data: str) -> None:
    """Write the files of a backup into a data directory; its database takes its name
    when all is there. Raises ValueError and whatever reading a damaged archive does."""
    import gzip
    import tarfile

    new = os.path.join(data, f"{HISTORY}-new")
    with (
        gzip.GzipFile(fileobj=source) as packed,
        tarfile.open(fileobj=packed, mode="r|") as tar,
    ):
        for member in tar:
            name = re.sub(r"^\./", "", member.name)
            if member.isdir():
                continue
            match = member.isfile() and _BACKED_UP.fullmatch(name)
            parts = name.split("/")
            if not match or ".." in parts:
                raise ValueError(f"{name!r} is not of a backup")
            path = os.path.join(data, name) if match[1] else new
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            content = tar.extractfile(member)
            assert content
            with open(path, "xb") as file:
                shutil.copyfileobj(content, file)
            os.chmod(path, 0o600)
        # The checksum stands at the end.
        while packed.read(LOG_BLOCK_BYTES):
            pass
    if not os.path.exists(new):
        raise ValueError(f"there is no {HISTORY} in it")
    Store(new, look_only=True).close()
    os.sync()
    os.replace(new, os.path.join(data, HISTORY))


def _restore(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Fill an empty data directory from a backup; if that fails it is empty again."""
    from tarfile import TarError

    broken = (EOFError, zlib.error, TarError)
    data, path = settings["data"], arguments.file
    if os.path.isdir(data) and os.listdir(data):
        raise UsageError(f"--data {data}: not empty; name a new directory", EX_OSERR)
    with contextlib.ExitStack() as stack:
        try:
            source = stack.enter_context(open(os.dup(0) if path == "-" else path, "rb"))
        except OSError as error:
            raise UsageError(f"{path}: {error.strerror}", EX_OSERR) from None
        folder = _open_folder(data, -1)
        try:
            _unpack(source, data)
        except (OSError, ValueError, StoreError, *broken) as error:
            for name in os.listdir(data):
                place = os.path.join(data, name)
                shutil.rmtree(place) if os.path.isdir(place) else os.unlink(place)
            text = f"{path}: not a whole backup, so nothing is restored: {error}"
            raise UsageError(text, EX_OSERR) from None
        finally:
            folder.unlock()
    _say(f"{path}: restored to {data}")
    return EX_OK


# -- deployment: systemd-unit, dockerfile


_UNIT = """\
# Made by `taskrunnerd.py systemd-unit` for this installation. As root:
#   {make} >/etc/systemd/system/taskrunnerd.service
#   systemctl daemon-reload && systemctl enable --now taskrunnerd
# The tasks are declared in {config}; after a change:
#   systemctl reload taskrunnerd
# A new version of the program takes the place of the running one, in the same process,
# and what runs goes on:
#   {upgrade}
# What is denied below and a task needs, allow with `systemctl edit taskrunnerd`.

[Unit]
Description=taskrunnerd, runs declared tasks when asked over HTTP
After=network.target

[Service]
Type=notify
ExecStart={program} {flags}
ExecReload={program} --data {data} reload
# Each run gets a cgroup of its own, below that of the service.
Delegate=yes
# The daemon ends its runs itself, each with its own signal and grace period.
KillMode=mixed
TimeoutStopSec={stop_s}
WatchdogSec={watchdog_s}
Restart=on-failure
# Wrong usage and a faulty configuration are not mended by another start.
RestartPreventExitStatus={no_restart}

{account}
StateDirectory=taskrunnerd
ConfigurationDirectory=taskrunnerd
RuntimeDirectory=taskrunnerd
UMask=0077
# The token that clients must send:
#LoadCredential=token:/etc/taskrunnerd/token

NoNewPrivileges=yes
ProtectSystem=strict
{more}ProtectHome={home}
PrivateTmp={tmp}
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native

[Install]
WantedBy=multi-user.target

# Started by the first client: enable this instead, as taskrunnerd.socket.
#[Socket]
#ListenStream=127.0.0.1:9477
#[Install]
#WantedBy=sockets.target
"""
_HOMES = ("/home/", "/root/", "/run/user/")
_TEMPORARY = ("/tmp/", "/var/tmp/")  # noqa: S108 (they are only looked for)


def _unit_path(text: str) -> str:
    """A path in a unit, where % begins a specifier (systemd.unit(5))."""
    text = text.replace("%", "%%")
    if re.fullmatch(r"[\w@%+=:,./$-]+", text):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _unit_words(words: Iterable[str]) -> str:
    """A command line in a unit, where $ begins a variable as well."""
    return " ".join(_unit_path(word).replace("$", "$$") for word in words)


def _is_for_all(path: str) -> bool:
    """Whether any user may read a file."""
    if not os.stat(path).st_mode & 0o004:
        return False
    while path != os.path.dirname(path):
        path = os.path.dirname(path)
        if not os.stat(path).st_mode & 0o001:
            return False
    return True


def _unit_account(paths: Iterable[str]) -> str:
    """The account of a service: the current user, but for root a user made for it,
    if any user can read the program."""
    import pwd

    if os.geteuid() == 0 and all(map(_is_for_all, paths)):
        return "DynamicUser=yes"
    try:
        return f"User={pwd.getpwuid(os.geteuid()).pw_name}"
    except KeyError:
        return f"User={os.geteuid()}"


def _print_unit(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Print a unit of systemd that starts this program with the flags given."""
    import shlex

    # The settings on the command line, with absolute paths.
    given, flags = {}, []
    for setting in _SETTINGS:
        text = _given(arguments, setting)
        if text and setting.metavar in ("FILE", "DIR", "PATH"):
            try:
                text = os.path.abspath(text)
            except FileNotFoundError:
                gone = "this directory is gone; write a whole path"
                raise UsageError(f"--{setting.name} {text}: {gone}") from None
        if text is not None:
            given[setting.name] = text
            flags.append(f"--{setting.name}" + (f"={text}" if setting.metavar else ""))
    own_socket = "" if "socket" in given else "--socket=%t/taskrunnerd/socket"
    data = given.get("data", "/var/lib/taskrunnerd")
    config = given.get("config", "/etc/taskrunnerd/tasks.json")
    mine = (sys.executable, OWN_FILE)
    own = [path for p in mine for path in (p, os.path.realpath(p))]
    needed = [*own, data, config]
    stop_s = _shutdown_s(settings) + STOP_SLACK_S
    unit = _UNIT.format(
        program=_unit_words(own_program()),
        flags=" ".join(filter(None, [_unit_words(flags), own_socket])),
        data=_unit_words([data]),
        make=shlex.join([*own_program(), "systemd-unit"]),
        upgrade=shlex.join([*own_program(), "upgrade", "--data", data]),
        config=config,
        stop_s=math.ceil(stop_s),
        watchdog_s=WATCHDOG_S,
        no_restart=f"{EX_USAGE} {EX_CONFIG}",
        account=_unit_account([*own, os.__file__]),
        more=f"ReadWritePaths={_unit_path(data)}\n" if "data" in given else "",
        home="read-only" if any(p.startswith(_HOMES) for p in needed) else "yes",
        tmp="no" if any(p.startswith(_TEMPORARY) for p in needed) else "yes",
    )
    _print(unit, end="")
    return EX_OK


_DOCKERFILE = """\
# Made by `taskrunnerd.py dockerfile`. Beside taskrunnerd.py and tasks.json:
#   python taskrunnerd.py dockerfile >Dockerfile
#   docker build -t taskrunnerd .
#   docker run -d --name taskrunnerd -p 127.0.0.1:9477:9477 -v taskrunnerd:/state \\
#       -e TASKRUNNERD_TOKEN=secret --read-only --tmpfs /tmp taskrunnerd
# A new tasks.json: build and run it again. Where TASKRUNNERD_CONFIG names one in a
# folder that is mounted, the running daemon takes it:
#   docker exec taskrunnerd python /app/taskrunnerd.py reload
# Any --user may run it that can write to /state: 12345:0 can to a new volume.

FROM python:3-slim
# The programs of your tasks: RUN apt-get update && apt-get install -y …
RUN install -d -o 10001 -g 0 -m 0770 /state
COPY taskrunnerd.py tasks.json /app/
# Docker kills ten seconds after it has asked the daemon to stop.
ENV TASKRUNNERD_CONFIG=/app/tasks.json \\
    TASKRUNNERD_DATA=/state \\
    TASKRUNNERD_HOST=0.0.0.0 \\
    TASKRUNNERD_SHUTDOWN_TIMEOUT={shutdown}
WORKDIR /app
USER 10001:0
VOLUME /state
EXPOSE {port}
STOPSIGNAL SIGTERM
HEALTHCHECK --start-period=10s CMD ["python", "/app/taskrunnerd.py", "health"]
ENTRYPOINT ["python", "/app/taskrunnerd.py"]

# compose.yaml; the token is in .env, beside it: TASKRUNNERD_TOKEN=secret
#services:
#  taskrunnerd:
#    build: .
#    restart: unless-stopped
#    ports: ["127.0.0.1:{port}:{port}"]
#    volumes: ["state:/state"]
#    environment:
#      TASKRUNNERD_TOKEN: ${{TASKRUNNERD_TOKEN:?}}
#    read_only: true
#    tmpfs: [/tmp]
#    cap_drop: [ALL]
#    security_opt: ["no-new-privileges:true"]
#    mem_limit: 128m  # the daemon and a health check; and what the tasks need
#volumes:
#  state: {{}}
"""


def _print_dockerfile(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Print a Dockerfile, with a compose file in its last comments."""
    shutdown = f"{DOCKER_GRACE_S - LINGER_S:.0f}s"
    _print(_DOCKERFILE.format(port=DEFAULT_PORT, shutdown=shutdown), end="")
    return EX_OK


# -- serving: who may ask, where it listens, its log


def _server_options(
    settings: dict[str, str], listeners: Collection[Listener]
) -> Options:
    """How the server treats its clients. It must not be open to other machines without
    a token: at the sockets that are there already, else at the one that is wanted."""
    token = _read_token(settings)
    insecure = settings["insecure-no-auth"].lower() in ("true", "1", "t", "yes")
    hosts = [x.socket.getsockname()[0] for x in listeners if not x.is_unix]
    if not listeners and settings["port"] != _NO_PORT:
        hosts = [settings["host"]]
    loopback = ("localhost", "::1")
    others = [x for x in hosts if not (x in loopback or x.startswith("127."))]
    if others and not token and not insecure:
        raise UsageError(
            f"--host {others[0]} is open to others and no token is set; use "
            f"--token-file or {TOKEN_VARIABLE}, or --insecure-no-auth to let everybody "
            "in"
        )
    names = settings["allow-host"].lower().split(",")
    allowed_hosts = frozenset(name.strip() for name in names if name.strip())
    limits = (CONNECTIONS_MIN, CONNECTIONS_MAX)
    max_connections = _parse_number(
        "--max-connections", settings["max-connections"], *limits
    )
    heartbeat_s = _parse_time("--heartbeat", settings["heartbeat"])
    if heartbeat_s <= 0:
        raise UsageError("--heartbeat: must be longer than nothing", EX_USAGE)
    return Options(token, allowed_hosts, max_connections, heartbeat_s)


# How to mend a data directory that cannot be used, by words of the error.
_REMEDIES = (
    ("full|No space left", "make room on the disk"),
    ("ermission denied|readonly|unable to open",
     "give the directory and all in it to the user of the daemon"),
    ("Read-only", "mount it for writing"),
    ("File exists|Not a directory|Is a directory", "remove what is in its place"),
    ("malformed|not a database", ("put back a backup of history.sqlite3, or move it "
     "and its -wal away and begin a new history")),
    ("locked", "end the other program that has history.sqlite3 open"),
    ("I/O error", "look for what the kernel says of the disk"),
    ("the file system", "use a directory on a disk of this machine"),
    ("another version", "start the version that made it"),
    ("oldest that works", "start it with another Python"),
    ("too little room", "make room on the disk"),
    ("another program", "move history.sqlite3 away if it has nothing to do here"),
)  # fmt: skip


def _unusable(path: str, wrong: str) -> UsageError:
    """What is wrong with the data directory, and how to mend it."""
    remedies = (text for words, text in _REMEDIES if re.search(words, wrong))
    text = f"{wrong}; {next(remedies, 'mend that')}, or name another directory"
    return UsageError(f"--data {path}: {text}", EX_OSERR)


def _open_folder(path: str, lock_fd: int) -> DataFolder:
    owner = 0
    try:
        folder = DataFolder(path)
        if lock_fd >= 0:
            folder.keep_lock(lock_fd)
        else:
            owner = folder.lock()
    except OSError as error:
        raise _unusable(path, str(error.strerror)) from None
    if owner:
        who = f"the daemon with pid {owner}" if owner > 0 else "another daemon"
        raise UsageError(f"--data {path}: in use by {who}", EX_TEMPFAIL)
    return folder


def _load_tls(settings: dict[str, str]) -> ssl.SSLContext | None:
    """The certificate and its key, or None without TLS. Raises ConfigError."""
    cert_path, key_path = settings["tls-cert"], settings["tls-key"]
    if bool(cert_path) != bool(key_path):
        raise UsageError("--tls-cert and --tls-key: give both or none", EX_USAGE)
    return tls_context(cert_path, key_path) if cert_path else None


def _given_sockets() -> list[Listener]:
    """The sockets that systemd listens at for this process (sd_listen_fds(3)). Raises
    UsageError."""
    count, found = os.environ.get("LISTEN_FDS", ""), []
    if os.environ.get("LISTEN_PID") != str(os.getpid()) or not count.isdigit():
        return []
    for fd in range(3, 3 + int(count)):
        wrong = f"LISTEN_FDS: descriptor {fd} is no listening stream socket"
        try:
            listener = inherited_listener(fd)
            its = listener.socket
            listens = its.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError as error:
            raise UsageError(f"{wrong}: {error.strerror}") from None
        known = its.family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX)
        if not known or its.type != socket.SOCK_STREAM or not listens:
            raise UsageError(f"{wrong}; write ListenStream= and Accept=no")
        found.append(listener)
    return found


def _listen(settings: dict[str, str], given: Collection[Listener]) -> list[Listener]:
    """Listen where the settings say. Sockets that are given replace the port. Raises
    UsageError 69 if that fails."""
    host, port = settings["host"], _parse_port(settings["port"])
    path = settings["socket"]
    listeners = list(given)
    place = f"{host} port {port}"
    try:
        if port is not None and not given:
            listeners.append(listen_on_port(host, port))
        place = f"--socket {path}"
        if path:
            listeners.append(listen_on_path(path))
    except OSError as error:
        message = f"cannot listen on {place}: {error.strerror or error}"
        raise UsageError(message, EX_UNAVAILABLE) from None
    return listeners


class _Outlet:
    """A descriptor that is written only as far as there is room, without blocking.
    O_NONBLOCK would hold for every program that shares a pipe or a terminal, so these
    are opened anew; on a socket, each call has a flag for it. For one thread at a time.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._socket: socket.socket | None = None
        self._room: select.poll | None = None
        # What is left of a line that was written in part.
        self._rest = b""
        mode = os.fstat(fd).st_mode
        if S_ISSOCK(mode):
            self._socket = socket.socket(fileno=os.dup(fd))
        elif stat.S_ISFIFO(mode) or os.isatty(fd):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            try:
                self._fd = os.open(f"/proc/self/fd/{fd}", flags)
            except OSError:
                # Another user's, or there is no /proc: look before each write. Only
                # another program could fill it in between.
                self._room = select.poll()
                self._room.register(fd, select.POLLOUT)

    def write(self, line: bytes) -> bool:
        """Write a line, or nothing of it; returns whether it found room."""
        self._rest = self._write(self._rest)
        if self._rest:
            return False
        left = self._write(line)
        if len(left) == len(line):
            return False
        self._rest = left
        return True

    def _write(self, content: bytes) -> bytes:
        """Write what finds room; returns the rest."""
        while content:
            try:
                if self._socket:
                    size = self._socket.send(content, socket.MSG_DONTWAIT)
                elif not self._room:
                    size = os.write(self._fd, content)
                elif self._room.poll(0):
                    size = os.write(self._fd, content[: select.PIPE_BUF])
                else:
                    return content
            except BlockingIOError:
                return content
            except OSError:
                # Nobody will ever read it.
                return b""
            content = content[size:]
        return b""


class _LogHandler(logging.Handler):
    """Writes 2026-01-31T08:00:00.000Z info run started task=backup … to stderr, and
    keeps the newest lines. If stderr has no room, it counts the lines that are lost,
    and logs their number once there is room again."""

    def __init__(self) -> None:
        super().__init__()
        self.tail = Ring(DAEMON_LOG_KEPT_LINES, int(time.time()) * 1_000_000)
        self._outlet = _Outlet(2)
        self._lost = 0
        # A leaf.
        self._writing = threading.Lock()

    def handle(self, record: logging.LogRecord) -> bool:
        """Without filters and without the lock of the base class."""
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """One line, and a traceback behind a bug."""
        at_ms, level = int(record.created * 1000), record.levelname.lower()
        text = record.getMessage()
        if record.exc_info:
            trace = traceback.format_exception(*record.exc_info)
            text = f"{text}\n{''.join(trace).rstrip()}"
        self.say(at_ms, level, text)

    def say(self, at_ms: int, level: str, text: str) -> None:
        """Write a line of this time and level, and keep it."""
        line = f"{time_text(at_ms)} {level} {text}\n"
        self.put(line.encode("utf-8", "replace"), at_ms)
        shown = text[:DAEMON_LOG_LINE_MAX_CHARS]
        with self.tail.added:
            self.tail.add(LogMessage, at_ms, level, shown)

    def put(self, line: bytes, at_ms: int) -> None:
        """Write a line to stderr, if it finds room."""
        with self._writing:
            if self._lost:
                reason = "nobody read them from stderr"
                lost = f"log lines lost count={self._lost} reason={reason}"
                note = f"{time_text(at_ms)} warning {lost}\n".encode()
                if self._outlet.write(note):
                    self._lost = 0
            if self._lost or not self._outlet.write(line):
                self._lost += 1


def _start_logging(level: str) -> Ring:
    if level.lower() not in _LEVELS:
        words = ", ".join(_LEVELS)
        raise UsageError(f'--log-level "{level}": write one of {words}', EX_USAGE)
    # No line names its caller, and looking for the caller doubles the cost.
    logging._srcfile = None
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = False
    handler = _LogHandler()
    LOG.handlers[:] = [handler]
    LOG.setLevel(level.upper())
    LOG.propagate = False
    return handler.tail


def _unnamed_file(content: bytes) -> int:
    """A descriptor of a file without a name, at its beginning; an exec keeps it."""
    try:
        fd = os.memfd_create(PROGRAM, 0)
    except (AttributeError, OSError):
        # Not on every system, nor in every sandbox.
        import tempfile

        with tempfile.TemporaryFile() as file:
            fd = os.dup(file.fileno())
            os.set_inheritable(fd, True)
    with open(fd, "wb", closefd=False) as file:
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _write_stacks() -> None:
    """Write the stacks of all threads to stderr. Not as a signal handler of
    faulthandler, which would read them while the threads run."""
    import faulthandler

    with open(_unnamed_file(b""), "rb") as file:
        # It holds the interpreter, so it must not write to where it could block.
        faulthandler.dump_traceback(file=file, all_threads=True)
        file.seek(0)
        stacks = file.read()
    for handler in LOG.handlers:
        cast(_LogHandler, handler).put(stacks, time.time_ns() // 1_000_000)


# -- serving under systemd


def _notify(*facts: str) -> None:
    """Send facts to the service manager, if there is one (sd_notify(3))."""
    path = os.fsencode(os.environ.get("NOTIFY_SOCKET", ""))
    if not path:
        return
    address = b"\0" + path[1:] if path.startswith(b"@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.settimeout(NOTIFY_WAIT_S)
            sender.sendto("\n".join(facts).encode(), address)
    except OSError as error:
        LOG.warning("systemd cannot be told error=%s", error)


def _notify_reloading() -> None:
    """Tell systemd that a reload begins; READY=1 ends it."""
    _notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def _notify_busy() -> None:
    """Tell systemd that a start goes on: it is to wait, and not to end it."""
    _notify(f"EXTEND_TIMEOUT_USEC={int(MIGRATION_SLACK_S * 1e6)}", "WATCHDOG=1")


def _notify_ready(status: str) -> None:
    # One fact a line: the status must not have another.
    _notify("READY=1", f"STATUS={' '.join(status.split())}")


def _watchdog_s() -> float:
    """How often at least systemd expects WATCHDOG=1; 0 for never."""
    limit, pid = (os.environ.get(f"WATCHDOG_{name}", "") for name in ("USEC", "PID"))
    if not limit.isdigit() or (pid and pid != str(os.getpid())):
        return 0.0
    return int(limit) / 1e6


class _Watchdog:
    """Tells systemd that the loops are alive: each must go round when it is woken. If
    one hangs, systemd hears nothing, ends this process and starts another."""

    def __init__(self, server: Server, signal_writer: int) -> None:
        self._server = server
        self._signal_writer = signal_writer
        self._seen: list[int] = []
        # At most while the main thread replaces the program.
        self._excused_until_s = -math.inf
        self.rounds_of_main = 0

    def excuse(self, seconds: float) -> None:
        """Expect no rounds for this time."""
        self._excused_until_s = time.monotonic() + seconds

    def look(self) -> bool:
        """Whether every loop has gone round since the last look; wake them all."""
        daemon = self._server.daemon
        rounds = [self._server.rounds, daemon.rounds, self.rounds_of_main]
        hangs = any(n == seen for n, seen in zip(rounds, self._seen))
        self._seen = rounds
        self._server.wake()
        daemon.wake()
        # OSError: its pipe is full, for it reads no more.
        with contextlib.suppress(OSError):
            os.write(self._signal_writer, bytes([_BEAT]))
        return not hangs or time.monotonic() < self._excused_until_s

    def run(self, period_s: float) -> None:
        """Root of the watchdog's thread: for ever, tell systemd if all is well."""
        while True:
            if self.look():
                _notify("WATCHDOG=1")
            time.sleep(period_s)


# -- upgrade in place


_HANDOVER_VARIABLE = "TASKRUNNERD_HANDOVER"
_REHEARSAL_VARIABLE = "TASKRUNNERD_REHEARSAL"
_BACK = (
    "to have the program before it back, put its file there again and start it: what "
    "was running is recorded as crashed, what was queued goes on"
)


def _check_upgradable(daemon: Daemon) -> None:
    """Raises UpgradeError if no program could take over from this daemon now."""
    if daemon.why_gone():
        # The next program would find none of the runs.
        raise UpgradeError(daemon.folder.gone)
    low = daemon.disk.reason_low()
    if low:
        # Without room SQLite cannot open the history again: the runs would be lost.
        raise UpgradeError(f"no room for it: {low}")
    try:
        daemon.load_beside()
    except ConfigError as error:
        raise UpgradeError("; ".join(map(str, error.faults))) from error


def _rehearsal_command() -> list[str]:
    """The command that asks the program on disk whether it could take over, with the
    arguments of this one. It is a `validate`, which an old program knows as well."""
    flags: list[str] = []
    for word in sys.argv[1:]:
        if word.startswith("-"):
            flags.append(word)
        else:
            # The program could take the value of a flag it does not know for a command.
            flags[-1] += f"={word}"
    flags = [flag for flag in flags if flag != "--"]
    return [*own_program(), *flags, "validate", "--json"]


def _check_first_answer(rehearsal: Rehearsal) -> None:
    """Raises UpgradeError if the program on disk cannot take over, whatever is in the
    handover."""
    told = rehearsal.hear(REHEARSAL_WAIT_S)
    try:
        faults = [str(ConfigFault(**fault)) for fault in told["faults"]]
    except (KeyError, TypeError):
        faults = ["the program on disk says nothing of tasks.json"]
    if faults:
        raise UpgradeError("; ".join(faults))
    if told.get("handover") != HANDOVER_VERSION:
        text = "the program on disk cannot take over running runs from this one"
        raise UpgradeError(text)
    if not told.get("rehearses"):
        text = "the program on disk is too old to tell whether it can take over"
        raise UpgradeError(f"{text}; stop the daemon and start that one")
    rehearsal.hear(REHEARSAL_ANSWER_S)


def _replace(
    server: Server, signals: tuple[int, int], rehearsal: Rehearsal
) -> NoReturn:
    """Exec the program on disk, once it has accepted a copy of the handover. Raises
    UpgradeError, OSError, StoreError; then everything goes on as before."""
    daemon = server.daemon
    try:
        server.pause()
        if not daemon.pause(HANDOVER_WAIT_S):
            text = f"runs did not come to rest within {HANDOVER_WAIT_S:.0f} s"
            raise UpgradeError(text)
        server.wait_answered()
        # What the next program needs besides what the daemon hands over.
        facts = {
            "listeners": [listener.hand_over() for listener in server.listeners],
            "lock_fd": daemon.folder.hand_over_lock(),
            "signal_fds": signals,
            "answered": [[*key, n] for key, n in server.answered().items()],
        }
        with daemon.handover() as record:
            copy = json.dumps({**record, **facts}).encode()
        rehearsal.tell(copy, REHEARSAL_ANSWER_S)
        argv = [*own_program(), *sys.argv[1:]]
        for fd in signals:
            os.set_inheritable(fd, True)
        with daemon.handover() as record:
            fd = _unnamed_file(json.dumps({**record, **facts}).encode())
            environ = {**os.environ, _HANDOVER_VARIABLE: str(fd)}
            os.write(signals[1], bytes([_BEAT]))
            signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
            _ignore_alone(alone=False)
            os.execve(sys.executable, argv, environ)
    finally:
        _ignore_alone()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        daemon.unpause()
        server.unpause()
        _start_thread(server.serve_forever, "accept")


def _sign(server: Server, **more: Any) -> None:
    """Record in the data directory where this daemon listens."""
    facts = {**server.places(), "started_ms": server.daemon.started_ms}
    try:
        server.daemon.folder.sign(**facts, **more)
    except OSError as error:
        # Commands do not find this daemon then, but its runs go on.
        LOG.error("cannot write down where it listens error=%s", error)


def _upgrade(server: Server, signals: tuple[int, int]) -> None:
    """Replace this program by the one on disk: same pid, same sockets, same children.
    Returns only if that is refused."""
    _notify_reloading()
    environ = {**os.environ, _REHEARSAL_VARIABLE: "1"}
    try:
        _check_upgradable(server.daemon)
        argv = _rehearsal_command()
        with server.daemon.processes.rehearsal(argv, environ) as rehearsal:
            _check_first_answer(rehearsal)
            _replace(server, signals, rehearsal)
    except (UpgradeError, OSError, StoreError) as failed:
        error = str(failed)
    except Exception as failed:
        # A bug here must not end the daemon, and its runs with it.
        LOG.exception("bug in an upgrade")
        error = f"internal error: {failed!r}"
    LOG.error("upgrade refused error=%s", error)
    _notify_ready(f"upgrade refused: {error}")
    _sign(server, refused={"at": time.time_ns(), "error": error})


def _take_over() -> dict[str, Any]:
    """The handover of the program before this one in an upgrade; else empty."""
    fd = os.environ.pop(_HANDOVER_VARIABLE, "")
    if not fd:
        return {}
    with open(int(fd), "rb") as file:
        return cast(dict[str, Any], json.load(file))


def _rehearsed_handover(settings: dict[str, str]) -> dict[str, Any]:
    """In a rehearsal: answer that all is well so far, and return the copy of the
    handover. Other descriptors replace those that only an exec keeps open."""
    database = os.path.join(settings["data"], HISTORY)
    try:
        with contextlib.closing(Store(database, look_only=True)) as store:
            # After the exec it is too late to find that out.
            store.check_migratable(os.getppid())
    except (StoreError, OSError) as error:
        raise _unusable(settings["data"], str(error)) from None
    _print("{}")
    record: dict[str, Any] = json.load(sys.stdin)
    for kept in record["listeners"]:
        kept["fd"] = socket.socket(socket.AF_UNIX).detach()
    own = {"lock_fd": os.dup(0), "signal_fds": os.pipe()}
    record.update({name: fds for name, fds in own.items() if name in record})
    for run in record["runs"]:
        run["child"]["pipes"] = [(os.dup(0), to) for _, to in run["child"]["pipes"]]
    return record


# -- serving: from the start to the end


def _reload(daemon: Daemon) -> None:
    """Load tasks.json again, and log the outcome."""
    _notify_reloading()
    try:
        changes = daemon.reload()
    except (ConfigError, StoreError) as error:
        for fault in getattr(error, "faults", [error]):
            LOG.error("not reloaded fault=%s", fault)
        _notify_ready(f"not reloaded: {error}")
        return
    LOG.info("reloaded added=%d removed=%d changed=%d", *map(len, changes))
    _notify_ready(f"reloaded: {len(daemon.config.tasks)} tasks")


def _tell_stopping(number: int, shutdown_s: float) -> None:
    LOG.info("stopping signal=%s", signal.Signals(number).name)
    most_us = int((shutdown_s + STOP_SLACK_S) * 1e6)
    _notify("STOPPING=1", f"EXTEND_TIMEOUT_USEC={most_us}", "STATUS=stopping the runs")


def _bytes_for_main(reader: int, daemon: Daemon) -> Iterator[int]:
    """The bytes of the signal pipe as they come. In between it reaps orphans:
    REAP_AGAIN_S after the first has ended, all that have ended by then."""
    due_s: float | None = 0.0

    def ended(number: int, _: Any) -> None:
        """Plan the next look for orphans; ignore SIGCHLD until then."""
        nonlocal due_s
        signal.signal(number, signal.SIG_DFL)
        due_s = time.monotonic() + REAP_AGAIN_S

    pipe = select.poll()
    pipe.register(reader, select.POLLIN)
    while True:
        left_s = None if due_s is None else max(0.0, due_s - time.monotonic())
        if pipe.poll(None if left_s is None else math.ceil(left_s * 1000)):
            yield os.read(reader, 1)[0]
        else:
            due_s = None
            # Before the look, so that it misses none. Other system calls go on.
            signal.signal(signal.SIGCHLD, ended)
            signal.siginterrupt(signal.SIGCHLD, False)
            daemon.processes.reap_orphans()


def _wait_for_end(
    signals: tuple[int, int], server: Server, shutdown_s: float, watchdog: _Watchdog
) -> None:
    """Return once a signal has come and everything has ended; a second signal kills
    what still runs."""
    reader, writer = signals
    daemon = server.daemon

    def drain() -> None:
        """End everything, then wake this loop."""
        daemon.drain(shutdown_s)
        os.write(writer, bytes([_DRAINED]))

    draining = False
    for byte in _bytes_for_main(reader, daemon):
        watchdog.rounds_of_main += 1
        if byte == _DRAINED:
            break
        number = byte - _ARRIVED
        if byte < _ARRIVED or byte == _BEAT or _is_ignored(number):
            continue
        if number == signal.SIGQUIT:
            _write_stacks()
        elif number == signal.SIGHUP:
            _start_thread(functools.partial(_reload, daemon), "reload")
        elif number == signal.SIGUSR2:
            if not draining:
                watchdog.excuse(UPGRADE_WAIT_S)
                _upgrade(server, signals)
                watchdog.excuse(0)
        elif draining:
            _leave_soon()
            daemon.hurry()
        else:
            draining = True
            _tell_stopping(number, shutdown_s)
            server.stop_listening()
            _start_thread(drain, "drain")
    server.wait_answered()


def _tell_stdout(line: str) -> None:
    """Write a line to stdout; wait STDOUT_WAIT_S at most, as nobody may read it."""

    def write() -> None:
        """Write all of it, however long that takes."""
        with contextlib.suppress(OSError):
            _put(1, f"{line}\n".encode())

    teller = threading.Thread(target=write, name="stdout", daemon=True)
    teller.start()
    teller.join(STDOUT_WAIT_S)


def _tell_ready(server: Server, *, is_new: bool) -> None:
    """Tell the data directory, the log, stdout and systemd where the daemon listens."""
    _sign(server)
    places, tasks = server.places(), len(server.daemon.config.tasks)
    where = " ".join(f"{kind}={place}" for kind, place in places.items())
    word = "ready" if is_new else "upgraded"
    LOG.info("%s %s pid=%d tasks=%d", word, where, os.getpid(), tasks)
    if is_new:
        ready = {"event": "ready", **places, "pid": os.getpid()}
        _tell_stdout(json.dumps(ready))
    _notify_ready(f"{word}: {where}, {tasks} tasks")


def _load_beside(server: Server, settings: dict[str, str]) -> Callable[[], None]:
    """Load the token and the certificate again; returns what puts them to use. Raises
    ConfigError."""
    fresh = server.options._replace(token=_load_token(settings))
    return functools.partial(server.put_to_use, fresh, _load_tls(settings))


def leave_script(go_on: Callable[[], NoReturn]) -> NoReturn:
    """Go on once the body of the script has ended: only then does the interpreter free
    its syntax tree, half of the daemon's memory. Of what it calls after that, only the
    hook for exceptions may last and start threads."""
    sys.excepthook = lambda *_: go_on()
    raise RuntimeError("the body of the script ends here")


def _prepare(
    settings: dict[str, str], page: str, *, rehearses: bool
) -> tuple[Server, tuple[int, int]]:
    """The server, whose daemon has taken over the runs of the one before it, and the
    signal pipe."""
    blank_variable(TOKEN_VARIABLE)
    log_tail = _start_logging(settings["log-level"])
    config = load_config(settings["config"])
    tls = _load_tls(settings)
    min_free_bytes = _min_free_bytes(settings)
    handover = _rehearsed_handover(settings) if rehearses else _take_over()
    left = [inherited_listener(**kept) for kept in handover.get("listeners", ())]
    given = left or _given_sockets()
    options = _server_options(settings, given)._replace(page=page)
    is_shut = _parse_port(settings["port"]) is None and not settings["socket"]
    if is_shut and not given:
        raise UsageError("--port none: nobody could ask; use --socket PATH", EX_USAGE)
    # nohup(1) has SIGHUP ignored, which is to stay so.
    hangup = {signal.SIGHUP} if _is_ignored(signal.SIGHUP) else set()
    signals = _signal_pipe(_SIGNALS - hangup, handover.get("signal_fds"))
    _ignore_alone()
    # Blocked over the exec of an upgrade, so that none was lost; others by whoever
    # started the daemon, and programs would inherit that.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    if not become_subreaper():
        LOG.warning("orphans that leave their process group may not be found")
    folder = _open_folder(settings["data"], handover.get("lock_fd", -1))
    folder.look_only = rehearses
    folder.tell_busy = _notify_busy
    server = Server(None, options, left or _listen(settings, given), tls)
    server.resume_counts(handover.get("answered", ()))
    try:
        server.daemon = daemon = Daemon(
            config, folder, Clock(), min_free_bytes, log_tail
        )
        daemon.load_beside = functools.partial(_load_beside, server, settings)
        url = server.places().get("url", "") if page else ""
        everywhere, here = r"//(?:0\.0\.0\.0|\[::\])", f"//{socket.gethostname()}"
        daemon.page_url = re.sub(everywhere, here, url)
        if not folder.look_only:
            fault = daemon.processes.use_cgroups()
            how = f"by mark reason={fault}" if fault else "by cgroup"
            LOG.debug("tracking %s", how)
        daemon.recover(handover or None)
    except StoreError as error:
        server.stop_listening()
        raise _unusable(settings["data"], str(error)) from None
    return server, signals


def _tell_retention(data: str, tasks: Mapping[str, Task]) -> None:
    """Print what a data directory of an earlier version is going to lose."""
    now_ms = Clock().wall_ms()
    text = _from_history(data, lambda s: told_retention(s, tasks, now_ms)[1], "")
    if text:
        _complain(f"warning: {text}")


def _validate(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Check tasks.json and print what is wrong, or likely a mistake. In a rehearsal,
    tell the daemon that asks whether this program could take over from it, too."""
    faults: list[ConfigFault] = []
    config = Config(settings["config"], {})
    try:
        config = load_config(config.path)
    except ConfigError as error:
        faults = error.faults
    count, rehearses = len(config.tasks), _REHEARSAL_VARIABLE in os.environ
    if arguments.json:
        facts = {"valid": not faults, "tasks": count, "handover": HANDOVER_VERSION}
        shown = {"faults": faults, "warnings": config.warnings}
        found = {name: [x._asdict() for x in these] for name, these in shown.items()}
        more = {"rehearses": True} if rehearses else {}
        _print(json.dumps({**facts, **more, **found}))
    else:
        for fault in faults:
            _complain(str(fault))
        for warning in config.warnings:
            _complain(f"warning: {warning}")
        if not faults:
            _print(f"{config.path}: {count} tasks, no faults")
            _tell_retention(settings["data"], config.tasks)
    if faults:
        return EX_CONFIG
    if rehearses:
        _shutdown_s(settings)
        _prepare(settings, "", rehearses=True)
        _print("{}")
    return EX_OK


def _serve(settings: dict[str, str], page: str) -> Callable[[], NoReturn]:
    """Start the daemon; returns what to call then, which lasts until its end."""
    is_new = _HANDOVER_VARIABLE not in os.environ
    shutdown_s = _shutdown_s(settings)
    try:
        server, signals = _prepare(settings, page, rehearses=False)
    except Exception:
        if not is_new:
            LOG.error("the upgrade has failed; %s program=%s", _BACK, OWN_FILE)
        raise
    _start_thread(server.daemon.run_schedule, "schedule")
    _start_thread(server.serve_forever, "accept")
    watchdog = _Watchdog(server, signals[1])
    _tell_ready(server, is_new=is_new)
    if _watchdog_s():
        watch = functools.partial(watchdog.run, _watchdog_s() / 2)
        _start_thread(watch, "watchdog")

    def serve_to_end() -> NoReturn:
        """Wait for a signal, then leave."""
        import ctypes

        # Hand what reading this file took back to the kernel; glibc would keep it.
        gc.collect()
        gc.freeze()
        # Hardly anything here is part of a cycle, and a run makes some 500 objects.
        gc.set_threshold(CYCLES_LOOK_OBJECTS)
        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
        _wait_for_end(signals, server, shutdown_s, watchdog)
        server.daemon.close()
        server.daemon.folder.unlock()
        LOG.info("stopped")
        leave_at_once(EX_OK)

    return serve_to_end


# -- run --local


def _attend_locally(daemon: Daemon, arguments: argparse.Namespace) -> int:
    """Trigger a run of this process and behave like its program."""

    def stop(run_id: str) -> None:
        """Ask the run to stop."""
        if not daemon.stop(run_id):
            _say(daemon.why_not_stopped(run_id))

    def leave(_: int) -> None:
        """Kill the run, and leave without it if that cannot be."""
        daemon.hurry()
        daemon.drain(0)

    def output_of(run_id: str) -> _Output:
        """The output of an attempt, not through HTTP, which would halve the speed."""
        run = daemon.find_run(run_id)
        assert run
        for part in output_parts(daemon, run):
            if isinstance(part, LogPart):
                yield part
            else:
                after = daemon.attempt_after(part)
                yield _End(part.document(), after.id if after else "")

    relay = _SignalRelay(stop, leave, "once more kills it", forks=True)
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        task = daemon.task(arguments.task)
        declared = [(param.kind, param.key) for param in task.params]
        params = _given_params(arguments.params, declared)
        with relay.on(numbers, arguments.timeout):
            run = daemon.trigger(task.name, params, "api")
            code = _attend(output_of, run.id, relay, arguments)
            # Here, since there may never be a daemon that would.
            daemon.await_hooks()
            return code
    except Problem as problem:
        document = problem_document(problem, "")
        raise _Refused(problem.status, _problem_text(document), document) from None


def _run_locally(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Run a task in this process, in the history of the data directory."""
    if arguments.detach or arguments.key is not None:
        raise UsageError("--detach and --key need a daemon, not --local", EX_USAGE)
    _start_logging("error")
    config = load_config(settings["config"])
    min_free_bytes = _min_free_bytes(settings)
    shutdown_s = _shutdown_s(settings)
    try:
        folder = _open_folder(settings["data"], -1)
    except UsageError as error:
        more = "; leave --local away" if error.code == EX_TEMPFAIL else ""
        raise UsageError(f"{error}{more}", error.code) from None
    become_subreaper()
    _ignore_alone()
    try:
        daemon = Daemon(config, folder, Clock(), min_free_bytes)
        daemon.settle()
        _start_thread(daemon.run_schedule, "schedule")
        try:
            return _attend_locally(daemon, arguments)
        finally:
            daemon.drain(shutdown_s)
            daemon.close()
            folder.unlock()
    except StoreError as error:
        raise _unusable(settings["data"], str(error)) from None


def _run(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Run a task and behave like its program: same output, same exit code."""
    if arguments.timeout is not None:
        arguments.timeout = _parse_time("--timeout", arguments.timeout)
        if arguments.detach:
            raise UsageError("--timeout and --detach exclude each other", EX_USAGE)
    if arguments.local:
        return _run_locally(settings, arguments)
    return _run_remotely(_client(settings, arguments.url), arguments)


# -- selftest: the promises, kept on the machine where it is called


_PYTHON_THAT_ESCAPES = """\
import os, signal
ready, tell = os.pipe()
if os.fork() == 0:
    os.setsid()
    os.dup2(os.open(os.devnull, os.O_RDWR), 1)
    os.dup2(1, 2)
    os.write(tell, b"x")
    signal.pause()
os.read(ready, 1)
"""
_PYTHON_THAT_FLOODS = "print('first', *(f'{n:0100}' for n in range(9999)), 'last')"
_SELFTEST_TASKS: dict[str, Any] = {
    "exit": {"params": [{"arg": "code"}], "run": 'echo out; exit "$1"'},
    "die": {"params": [{"arg": "signal"}], "run": 'kill -s "$1" $$'},
    "missing": {"run": ["/nowhere/program"]},
    "slow": {"timeout": "200ms", "run": "sleep 300 & sleep 300"},
    "trap": {
        # Some shells say on stderr how their sleep was ended.
        "run": "exec 2>&-; trap 'echo last words; exit 3' TERM\n"
        "echo armed; while :; do sleep 1 || :; done"
    },
    "stubborn": {
        "graceful_stop": "200ms",
        "run": "trap '' TERM; echo armed; sleep 300 & sleep 300",
    },
    "escape": {
        "graceful_stop": "1s",
        "run": [sys.executable, "-c", _PYTHON_THAT_ESCAPES],
    },
    "holder": {"graceful_stop": "1s", "run": "sleep 300 & echo out"},
    "service": {"orphans": "leave", "run": "sleep 300 & echo out"},
    "flood": {
        "log_max_size": f"{SELFTEST_LOG_MAX_BYTES // KIB}kb",
        "run": [sys.executable, "-c", _PYTHON_THAT_FLOODS],
    },
    # Holds on until a file exists.
    "hold": {
        "params": [{"arg": "file"}],
        "run": 'echo armed; until [ -e "$1" ]; do sleep 1; done; echo done',
    },
}


class _Differs(Exception):
    """What a check found to be otherwise than it must be."""


class _TestedDaemon:
    """A daemon in a process and a temporary folder of its own."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.data = os.path.join(folder, ".taskrunnerd")
        self.client = Client(functools.partial(_running_place, self.data), "")
        self.process: subprocess.Popen[bytes] | None = None
        self.is_starting = self.is_interrupted = False
        with open(os.path.join(folder, "tasks.json"), "w", encoding="utf-8") as file:
            json.dump({"tasks": _SELFTEST_TASKS}, file)

    def interrupt(self, *_: Any) -> None:
        """A signal's handler: leave, but never before a new process is known."""
        self.is_interrupted = True
        if not self.is_starting:
            raise KeyboardInterrupt

    def start(self) -> None:
        """Start it, unless it runs, and wait until it is ready."""
        if self.process and self.process.poll() is None:
            return
        self.is_starting = True
        with open(os.path.join(self.folder, "stderr"), "ab") as stderr:
            # In a session of its own: Ctrl-C reaches the selftest, which then ends it.
            self.process = subprocess.Popen(
                [sys.executable, OWN_FILE, "--port", "0", "--shutdown-timeout", "2s"],
                cwd=self.folder,
                env=environment_of_others(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )
        self.is_starting = False
        if self.is_interrupted:
            raise KeyboardInterrupt
        assert self.process.stdout
        with self.process.stdout as stdout:
            ready = select.select([stdout], [], [], SELFTEST_WAIT_S)[0]
            line = stdout.readline() if ready else b""
        if not line:
            self.end(signal.SIGKILL)
            with open(os.path.join(self.folder, "stderr"), encoding="utf-8") as log:
                raise _Differs(f"the daemon does not start: {log.read()[-KIB:]}")

    def end(self, number: int) -> int:
        """Signal it and return its exit code; it is killed when it does not end."""
        assert self.process
        self.process.send_signal(number)
        try:
            return self.process.wait(SELFTEST_WAIT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise _Differs("the daemon does not end") from None

    def close(self) -> None:
        """End it, and whatever it should have ended or was told to leave."""
        self.client.close()
        if not self.process:
            return
        with contextlib.suppress(_Differs):
            self.end(signal.SIGTERM)
        # Also the runs of which an interrupted check was never told (I1).
        state = DataFolder(self.data)
        history, processes = Store(state.database), Processes(state.path)
        runs = history.list_runs(RunFilter(), ("created_at", "asc"), LIST_MAX_RUNS)
        history.close()
        processes.end_leftovers([run.id for run in runs])
        processes.close()

    def trigger(self, task: str, params: Mapping[str, str]) -> Any:
        """The new run."""
        body = {"params": params}
        return self.client.ask("POST", f"/api/tasks/{task}/run", body)

    def output(self, run: Mapping[str, Any]) -> bytes:
        """What a run has written so far."""
        parts = _remote_output(self.client, run, "&follow=false")
        return b"".join(
            part.content
            for part in parts
            if isinstance(part, LogPart) and part.stream != SYSTEM
        )

    def await_that(self, fact: str, is_so: Callable[[], bool]) -> None:
        """Return once something is so."""
        give_up_s = time.monotonic() + SELFTEST_WAIT_S
        while not is_so():
            if time.monotonic() > give_up_s:
                raise _Differs(f"after {SELFTEST_WAIT_S} s it is not so that {fact}")
            time.sleep(SURVIVOR_CHECK_S)

    def expect(
        self, run: Mapping[str, Any], output: bytes, living: int = 0, **fields: Any
    ) -> None:
        """Wait for a run's end and compare what became of it: its output with a regular
        expression, how many of its processes are left (which can be seen where there
        is /proc), and its fields; an `error` only has to contain the words."""
        path = f"/api/runs/{run['id']}?wait=true&wait_timeout={SELFTEST_WAIT_S}"
        run = self.client.ask("GET", path)
        for name, right in fields.items():
            found = run.get(name)
            if found != right and not (name == "error" and right in str(found)):
                raise _Differs(f"{name} is {found!r}, not {right!r}")
        written = self.output(run)
        if not re.fullmatch(output, written, re.DOTALL):
            raise _Differs(f"output is {shortened(repr(written))}, not {output!r}")
        kept = run["output_bytes"] - run["output_dropped_bytes"]
        if not kept == len(written) <= SELFTEST_LOG_MAX_BYTES:
            count = f"{kept} bytes kept by its count"
            raise _Differs(f"{count}, {len(written)} in the log")
        alive = [pid for run_id, pid in marked_processes() if run_id == run["id"]]
        if len(alive) > living:
            raise _Differs(f"still alive: {', '.join(map(process_text, alive))}")
        if len(alive) < living and os.path.exists("/proc/self/environ"):
            raise _Differs(f"{len(alive)} processes live on, not {living}")

    def stop(self, run: Mapping[str, Any]) -> None:
        """Ask the run to stop."""
        path = f"/api/tasks/{run['task_name']}/runs/{run['id']}/stop"
        self.client.ask("POST", path)

    def _replace(self, number: int, right: int) -> None:
        """Have another daemon in its place, which starts what is queued."""
        queued = self.trigger("hold", {"file": "."})
        code = self.end(number)
        if code != right:
            raise _Differs(f"the daemon left with exit code {code}, not {right}")
        self.start()
        self.expect(queued, b"armed\ndone\n", end_reason=SUCCESS)

    def crash(self, _: Mapping[str, Any]) -> None:
        """Kill the daemon and start it again."""
        self._replace(signal.SIGKILL, -signal.SIGKILL)

    def restart(self, _: Mapping[str, Any]) -> None:
        """Stop the daemon and start it again."""
        self._replace(signal.SIGTERM, EX_OK)

    def upgrade(self, _: Mapping[str, Any]) -> None:
        """Have the daemon replace itself in its process; then let the run go on."""
        assert self.process
        before = self.client.ask("GET", "/api/info")["started_at"]
        self.process.send_signal(signal.SIGUSR2)
        self.await_that(
            "another daemon answers",
            lambda: self.client.ask("GET", "/api/info")["started_at"] != before,
        )
        with open(os.path.join(self.folder, "go on"), "wb"):
            pass

    def holds(self, check: _Check) -> bool:
        """Make a check and print its line."""
        try:
            self.start()
            run = self.trigger(check.task, check.params)
            if check.then:
                self.await_that(
                    f"{check.task} is armed",
                    lambda: self.output(run).startswith(b"armed\n"),
                )
                check.then(self, run)
            self.expect(run, check.output, check.living, **check.fields)
        except (_Differs, UsageError) as error:
            _print(f"differs {check.name}: {error}")
            return False
        except (OSError, ValueError) as error:
            _print(f"differs {check.name}: {error!r}")
            return False
        _print(f"ok {check.name}")
        return True


class _Check(NamedTuple):
    """A task to run, and what is expected of its run. `then` happens once its program
    has said that it is armed."""

    name: str
    task: str
    output: bytes
    fields: Mapping[str, Any]
    params: Mapping[str, str] = {}
    then: Callable[[_TestedDaemon, Mapping[str, Any]], None] | None = None
    living: int = 0


_OUT, _WELL = b"out\n", {"end_reason": SUCCESS}
_CHECKS = (
    _Check("exit code 0", "exit", _OUT, _WELL, {"code": "0"}),
    _Check("exit code 7", "exit", _OUT, {"exit_code": 7}, {"code": "7"}),
    _Check("exit code 255", "exit", _OUT, {"exit_code": 255}, {"code": "255"}),
    _Check("SIGTERM", "die", b"", {"exit_code": 143, "signal": "SIGTERM"},
           {"signal": "TERM"}),
    _Check("SIGKILL", "die", b"", {"exit_code": 137, "signal": "SIGKILL"},
           {"signal": "KILL"}),
    _Check("no such program", "missing", b"", {"end_reason": START_FAILED}),
    _Check("timeout", "slow", b"", {"end_reason": TIMEOUT, "exit_code": 143}),
    _Check("last words", "trap", b"armed\nlast words\n",
           {"end_reason": STOPPED, "exit_code": 3}, then=_TestedDaemon.stop),
    _Check("stubborn family", "stubborn", b"armed\n",
           {"end_reason": STOPPED, "exit_code": 137}, then=_TestedDaemon.stop),
    _Check("escaped child", "escape", b"", {**_WELL, "survivors": 1}),
    _Check("pipe holder", "holder", _OUT, {**_WELL, "survivors": 1}),
    _Check("pipe holder left", "service", _OUT, {"error": "still held stdout"},
           living=1),
    # The head and the newest part.
    _Check("log cap", "flood", b"first 000.*9998 last\n",
           {**_WELL, "output_bytes": 9999 * 101 + 11}),
    _Check("crash", "hold", b"armed\n",
           {"end_reason": CRASHED, "exit_code": NO_EXIT_CODE},
           {"file": "never"}, _TestedDaemon.crash),
    _Check("restart", "hold", b"armed\n",
           {"end_reason": DAEMON_STOPPED, "signal": "SIGTERM"},
           {"file": "never"}, _TestedDaemon.restart),
    _Check("upgrade in place", "hold", b"armed\ndone\n", {**_WELL, "exit_code": 0},
           {"file": "go on"}, _TestedDaemon.upgrade),
)  # fmt: skip


def _selftest(settings: dict[str, str], arguments: argparse.Namespace) -> int:
    """Make every check with a daemon of its own; leaves nothing behind, also when a
    signal ends it."""
    import tempfile

    folder = tempfile.mkdtemp(prefix=f"{PROGRAM}-selftest-")
    daemon = _TestedDaemon(folder)
    wrong = len(_CHECKS)
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    try:
        for number in signals:
            signal.signal(number, daemon.interrupt)
        wrong -= sum(map(daemon.holds, _CHECKS))
    except KeyboardInterrupt:
        _complain("interrupted")
    finally:
        for number in signals:
            signal.signal(number, signal.SIG_IGN)
        try:
            daemon.close()
        finally:
            shutil.rmtree(folder, ignore_errors=True)
    return EX_DIFFERS if wrong else EX_OK


# -- the table of commands, and the arguments that they take


class _Parser(argparse.ArgumentParser):
    """Exits with EX_USAGE, where argparse would with 2, and suggests a command."""

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and leave."""
        unknown = re.fullmatch("argument COMMAND: invalid choice: '(.*?)' .*", message)
        if unknown:
            near = nearest(unknown[1], self.commands)
            message = f'no command "{unknown[1]}"{near or "; see --help"}'
        else:
            self.print_usage(sys.stderr)
        self.exit(EX_USAGE, f"{self.prog}: {message}\n")

    # The names of all commands.
    commands: Collection[str] = ()

    def _print_message(self, message: str, file: Any = None) -> None:
        show = _complain if file in (None, sys.stderr) else _print
        show(message, "")


_Argument = tuple[tuple[str, ...], dict[str, Any]]


def _arg(*names: str, **options: Any) -> _Argument:
    """An argument, as argparse adds it."""
    return names, options


def _own(name: str, metavar: str, about: str) -> _Argument:
    """A setting that a command takes as well. An empty one counts as not given."""
    options = {"metavar": metavar, "help": about, "default": argparse.SUPPRESS}
    return _arg(f"--{name}", type=lambda text: text or None, **options)


def _count(default: int) -> _Argument:
    about = f"so many (default {default})"
    return _arg("-n", dest="count", default=str(default), metavar="COUNT", help=about)


_WHICH_RUN = _arg("run", metavar="RUN", help="which run")
_TASK = _arg("task", nargs="?", metavar="TASK", help="of this task only")
_JSON = _arg("--json", action="store_true", help="print JSON")
_ALL = _arg("--all", action="store_true", help="every schedule")
_WHERE = (
    _arg(
        "--url",
        metavar="URL",
        default=argparse.SUPPRESS,
        help="http(s)://HOST:PORT, or the path of a Unix socket",
    ),
    _own("data", "DIR", "its data directory"),
    _own("token-file", "FILE", "holds the token"),
)
_FOUND = """\
The daemon is found by --url, TASKRUNNERD_URL, or the data directory's own record of
where it listens. The token is read from --token-file or TASKRUNNERD_TOKEN."""
_RUN_ABOUT = """
Ctrl-C asks the run to stop, a second one leaves it running.
A parameter whose key begins with a dash may be given without it."""
_RUN_CODES = """
exit code:
  the program's; 128+n when signal n killed it
  64   wrong usage: no such task, parameters that cannot be used
  69   no daemon answers
  75   refused: on_overlap skip, the queue is full, no room on the disk
  77   the token is missing or wrong, or the task may not be triggered
  124  the time limit of --timeout, or the task's own
  125  the daemon could not start the program
  130  stopped by Ctrl-C; 143 by SIGTERM
  137  killed, or the daemon died while the program ran
"""
_NOTIFY_CODES = """
stdin is the JSON that hooks get, or plain text. TASKRUNNERD_SMTP names the server for
mailto:, as smtp in tasks.json does; without it there has to be a sendmail.
exit code:
  69   somebody was not told, and another attempt would not help
  75   nobody was told, and another attempt may help
"""
_RUN_NAMES = " RUN is an id, its beginning or end, last, or TASK/last."


class _Command(NamedTuple):
    """A row of the table. One that `asks` a running daemon also takes the arguments
    that find it. `more` follows the first sentence of --help, and `epilog` ends it."""

    help: str
    carry_out: Callable[[dict[str, str], argparse.Namespace], int]
    arguments: tuple[_Argument, ...]
    asks: bool
    more: str
    epilog: str


def _plain(
    about: str,
    carry_out: Callable[[dict[str, str], argparse.Namespace], int],
    *arguments: _Argument,
    asks: bool = False,
    more: str = "",
    epilog: str = "",
) -> _Command:
    return _Command(about, carry_out, arguments, asks, more, epilog)


_asking = functools.partial(_plain, asks=True)
_COMMANDS: dict[str, _Command] = {
    "run": _asking(
        "run a task: its output, its exit code",
        _run,
        _JSON,
        _arg("task", metavar="TASK", help="which task"),
        _arg("params", nargs="*", metavar="KEY=VALUE", help="a parameter"),
        _arg("--detach", action="store_true", help="print the run's id and leave"),
        _arg("--timeout", metavar="TIME", help="stop it after this: 90s, 5m"),
        _arg("--key", metavar="KEY", help="run once per key: Idempotency-Key"),
        _arg("--local", action="store_true", help="here and now, without a daemon"),
        _own("config", "FILE", "for --local"),
        more=_RUN_ABOUT,
        epilog=_RUN_CODES,
    ),
    "tasks": _asking(
        "list the tasks and what is going on with them", _print_tasks, _JSON
    ),
    "runs": _asking(
        "list runs, newest first",
        _print_runs,
        _JSON,
        _TASK,
        _arg("--status", metavar="WORDS", help="such as failed,timeout"),
        _count(20),
    ),
    "show": _asking(
        *("show one run and the end of its output", _show_run, _JSON, _WHICH_RUN),
        more=_RUN_NAMES,
    ),
    "logs": _asking(
        "write out what a run wrote, -f as it writes it",
        _print_log,
        _JSON,
        _WHICH_RUN,
        _arg("-f", "--follow", action="store_true", help="until it has ended"),
        more=_RUN_NAMES,
    ),
    "stop": _asking("ask a run to stop", _ask_stop, _JSON, _WHICH_RUN, more=_RUN_NAMES),
    "pause": _asking(
        "keep the schedule of a task from firing; triggers still run it",
        _ask_pause,
        _JSON,
        _TASK,
        _ALL,
        _arg("--for", dest="lasts", metavar="TIME", help="go on after this: 90s, 2h"),
        _arg("--reason", metavar="TEXT", help="why, for people"),
    ),
    "resume": _asking("have a schedule go on", _ask_pause, _JSON, _TASK, _ALL),
    "status": _asking(
        "show on one screen how the daemon is doing", _print_status, _JSON
    ),
    "health": _asking(
        "exit code 0 when triggers are taken, else 1", _print_health, _JSON
    ),
    "reload": _asking("have the daemon load tasks.json again", _ask_reload),
    "validate": _plain(
        "check tasks.json and say what is wrong",
        _validate,
        _own("config", "FILE", "the file to check"),
        _arg("--json", action="store_true", help="print faults as JSON"),
    ),
    "schema": _plain("print the JSON Schema of tasks.json", _print_schema),
    "init": _plain(
        *("write an example tasks.json", _init),
        _own("config", "FILE", "the file to write"),
    ),
    "upgrade": _plain(
        "replace a running daemon by the program now on disk",
        _upgrade_daemon,
        _own("data", "DIR", "the daemon's directory"),
    ),
    "selftest": _plain("check on this machine what is promised", _selftest),
    "import-crontab": _plain(
        "print the tasks.json that does what a crontab does",
        _print_import,
        _arg("file", nargs="?", default="-", metavar="FILE", help="else it is stdin"),
        _arg(
            "--system",
            action=argparse.BooleanOptionalAction,
            help="a user stands before each command, as in /etc/crontab",
        ),
    ),
    "systemd-unit": _plain(
        "print a unit of systemd for this installation", _print_unit
    ),
    "dockerfile": _plain(
        "print a Dockerfile, and a compose file in its comments", _print_dockerfile
    ),
    "backup": _plain(
        "write an archive of the data directory, also while it is in use",
        _backup,
        _arg("file", metavar="FILE.tar.gz", help="where to; - is stdout"),
        _own("data", "DIR", "the daemon's directory"),
    ),
    "restore": _plain(
        "fill an empty data directory from a backup",
        _restore,
        _arg("file", metavar="FILE.tar.gz", help="where from; - is stdin"),
        _own("data", "DIR", "the directory"),
    ),
    "notify": _plain(
        "tell somebody of the run that stdin describes",
        _send_notices,
        _arg("targets", nargs="*", metavar="TARGET", help="https://…, mailto:ADDRESS"),
        _arg(
            "--format",
            choices=NOTIFY_FORMATS,
            default=AS_CHAT,
            help="of what is posted",
        ),
        _arg("--test", metavar="TASK", help="send a sample to the targets of a task"),
        _own("config", "FILE", "for --test"),
        epilog=_NOTIFY_CODES,
    ),
    "next": _plain(
        *("print the coming ticks of schedules", _print_next),
        *(_TASK, _count(10), _JSON, _own("config", "FILE", "the file with the tasks")),
        _own("data", "DIR", "where pauses are kept"),
    ),
}


def _parser() -> argparse.ArgumentParser:
    """The parser, built from the tables of settings and commands."""
    rows = [f"  {name:19} {x.help}" for name, x in _COMMANDS.items() if x.asks]
    layout = argparse.RawDescriptionHelpFormatter
    parser = _Parser(
        prog=PROGRAM,
        description="Run declared tasks over HTTP: without a command, as the daemon.",
        epilog="\n".join(["asking a running daemon:", *rows, "", _FOUND]),
        formatter_class=layout,
    )
    parser.add_argument("--version", action="version", version=f"{PROGRAM} {VERSION}")
    # A command that asks takes it here, too. It is no setting of the daemon.
    parser.add_argument("--url", help=argparse.SUPPRESS)
    for title, settings in _GROUPS.items():
        group = parser.add_argument_group(title)
        for setting in settings:
            more: dict[str, Any] = {"metavar": setting.metavar}
            if setting.name == "allow-host":
                more["action"] = "append"
            if not setting.metavar:
                more = {"action": "store_const", "const": "true"}
            default = f" (default {setting.default})" if setting.default else ""
            text = f"{setting.help}{default}; also {setting.variable}"
            group.add_argument(f"--{setting.name}", help=text, **more)
    commands = parser.add_subparsers(
        title="other commands", dest="command", metavar="COMMAND"
    )
    for name, row in _COMMANDS.items():
        about = f"{row.help[0].upper()}{row.help[1:]}.{row.more}"
        # A command that asks is listed in the epilog.
        more = {} if row.asks else {"help": row.help}
        command = commands.add_parser(
            name,
            description=f"{about}\n{_FOUND}" if row.asks else about,
            epilog=row.epilog,
            formatter_class=layout,
            **more,
        )
        if row.asks:
            where = command.add_argument_group("where the daemon is")
            for names, options in _WHERE:
                where.add_argument(*names, **options)
        for names, options in row.arguments:
            command.add_argument(*names, **options)
    parser.commands = commands.choices
    return parser


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    """The arguments of a command line. KEY=VALUE may stand between options, which
    argparse does not do by itself, and anything may stand behind `--`."""
    words = list(words)
    cut = words.index("--") if "--" in words else len(words)
    parser = _parser()
    arguments, unknown = parser.parse_known_args(words[:cut])
    command, behind = f"{PROGRAM} {arguments.command or ''}".strip(), words[cut + 1 :]
    hint = f"see {command} --help"
    if hasattr(arguments, "params"):
        hint = "put such parameters behind --"
        plain = [word for word in unknown if not word.startswith("-")]
        unknown = [word for word in unknown if word.startswith("-")]
        arguments.params = [*arguments.params, *plain, *behind]
    else:
        unknown += behind
    asks = arguments.command and _COMMANDS[arguments.command].asks
    if arguments.url and not asks:
        unknown = ["--url", *unknown]
    if unknown:
        text = f"{command}: unrecognized arguments: {' '.join(unknown)}; {hint}\n"
        parser.exit(EX_USAGE, text)
    return arguments


# -- main


def _mend_inheritance() -> None:
    """Undo inherited settings with which no command works. If stdin, stdout or stderr
    is closed, another file would get its number, and what is written there. If SIGCHLD
    is ignored, the kernel reaps every child, and its exit code is lost. If signals are
    blocked, neither Ctrl-C nor SIGTERM ends anything."""
    fd = os.open(os.devnull, os.O_RDWR)
    while fd <= 2:
        os.set_inheritable(fd, True)
        fd = os.dup(fd)
    os.close(fd)
    # Python has none where the descriptor was closed, and print then takes stdout.
    sys.stdout = sys.stdout or os.fdopen(1, "w")
    sys.stderr = sys.stderr or os.fdopen(2, "w")
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if _HANDOVER_VARIABLE not in os.environ:
        # Signals that come during an upgrade stay blocked until there is a handler.
        signal.pthread_sigmask(signal.SIG_SETMASK, ())


def speak_utf8() -> None:
    """If the locale is not UTF-8, start again in Python's UTF-8 mode (PEP 540): text of
    tasks.json and of requests is UTF-8, and so are file names in it and what is
    printed. Bytes of the environment that are not UTF-8 pass unchanged."""
    if sys.getfilesystemencoding() != "utf-8":
        python, *more = own_program()
        # If an option is given twice, the first one counts.
        os.execv(python, [python, "-X", "utf8", *more, *sys.argv[1:]])


def _obey(arguments: argparse.Namespace, page: str) -> int | Callable[[], NoReturn]:
    settings = _settings(arguments)
    if not arguments.command:
        return _serve(settings, page)
    try:
        return _COMMANDS[arguments.command].carry_out(settings, arguments)
    except _Refused as refused:
        if getattr(arguments, "json", False):
            _put(1, compact_json(refused.document))
        raise
    except KeyboardInterrupt:
        return EX_SIGNAL + signal.SIGINT


def main(
    argv: Sequence[str] | None = None, page: str = ""
) -> int | Callable[[], NoReturn]:
    """Run a command; returns its exit code. Without a command, start the daemon, which
    serves `page` at /; returns the function that serves until its end."""
    _mend_inheritance()
    try:
        return _obey(_parsed(sys.argv[1:] if argv is None else argv), page)
    except ConfigError as error:
        _complain(str(error))
        return EX_CONFIG
    except UsageError as error:
        _say(str(error))
        return error.code
    except _Unprinted as error:
        _say(str(error.strerror))
        return EX_OSERR
    except BrokenPipeError:
        # The reader of the output has disconnected, which is no error. A run goes on.
        return EX_SIGNAL + signal.SIGPIPE


# ---- 16. Appendix: the page, a client of the API ----------------------------
# Owns the page at /, which people see, and the start of the program, which needs it.
# A client of the public API like any other: it knows nothing that is not told there.
# Its lines are longer than those of Python, so that a statement mostly fits one.

PAGE = r"""<!DOCTYPE html><html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>taskrunnerd</title><link rel="icon" href="data:,"><style>
:root { color-scheme: light dark; --bg: light-dark(#f6f5f2, #131416); --card: light-dark(#fff, #1b1d20);
  --ink: light-dark(#1d1e21, #e6e6e8); --dim: light-dark(#62656c, #a2a5ac); --line: light-dark(#e3e1db, #2f3136);
  --accent: light-dark(#3049b5, #94a9ff); --bad: light-dark(#bf2f3d, #ff737d); --edge: 1px solid var(--line);
  --tone: var(--dim) } * { box-sizing: border-box; overflow-wrap: anywhere; margin: 0; padding: 0 }
body { background: var(--bg); color: var(--ink); font: 15px/1.5 system-ui } h1 { font-size: 1.5rem }
h2 { font-size: .87rem; margin: 2px 0 6px } a { color: var(--accent) } a:not(:hover) { text-decoration: none }
button, input, select { font: inherit; color: inherit; background: var(--card); border: var(--edge);
  border-radius: 7px; padding: 4px 12px } button { cursor: pointer } :disabled { opacity: .45 }
.main { background: var(--accent); color: var(--card) } .fault, .danger { color: var(--bad) }
h2, .dim, time, dt, small, .row a { color: var(--dim) } .grow { flex: 1 1 200px } #live { margin-left: auto }
.bar, header { display: flex; gap: 8px; align-items: center; flex-wrap: wrap } header { position: sticky; top: 0;
  z-index: 2; padding: 8px clamp(2px, 2vw, 22px); background: var(--card); border-bottom: var(--edge) }
header a { color: inherit; padding: 4px 10px; border-radius: 7px } [aria-current=page] { background: var(--line) }
main { padding: 20px clamp(12px, 3vw, 32px) 50px; max-width: 1560px; margin: auto } main:has(.log) { max-width: none }
main, form, .stack, .split { display: grid; gap: 16px; grid-template-columns: 100%; outline: 0 }
.card, dialog { background: var(--card); color: inherit; border: var(--edge); border-radius: 11px;
  padding: 14px 16px } .list { padding: 0; overflow: hidden; list-style: none }
.good { --tone: light-dark(#1c8050, #46b881) } .bad { --tone: var(--bad) }
.warn, .system { --tone: light-dark(#a05f00, #eab04e) } .run { --tone: light-dark(#2766c9, #6da6fb) }
.chip { color: var(--ink) } .chip::before { content: ""; display: inline-block; width: 9px; height: 9px;
  margin-right: 8px; border-radius: 5px; background: var(--tone) } .task { display: grid; gap: 2px 22px;
  align-items: center; padding: 10px 16px; content-visibility: auto; contain-intrinsic-size: auto 68px;
  grid-template-columns: minmax(0, 2fr) minmax(0, 1.3fr) 204px minmax(0, 1fr) 62px }
.task + .task, tr + tr td { border-top: var(--edge) } .strip { display: flex; justify-content: end; height: 34px }
.strip a { width: 5px; background: linear-gradient(var(--tone), var(--tone)) bottom / 80% no-repeat }
circle { fill: var(--tone); cursor: pointer } line { stroke: var(--line) } text { fill: var(--dim); font-size: 11px }
svg { width: 100%; display: block } #toasts { position: fixed; z-index: 9; right: 12px; bottom: 12px }
dialog { margin: auto; padding: 22px; width: min(480px, 94vw) }
.filters { grid-template-columns: repeat(auto-fill, minmax(150px, 1fr)); gap: 10px } .field { display: grid; gap: 3px;
  grid-template: auto / minmax(0, 1fr) } [type=checkbox] { margin: 9px 4px; justify-self: start } table { width: 100%;
  border-collapse: collapse } th, td { text-align: left; padding: 6px 16px } dl { display: grid;
  grid-template-columns: auto 1fr; gap: 3px 16px } .track { display: flex; gap: 2px; margin-bottom: 6px }
i { background: var(--tone); height: 8px; min-width: 3px; border-radius: 3px } .log { overflow: auto;
  overflow-anchor: none; position: relative; padding: 0; height: max(320px, 100vh - 240px);
  font: 12px/17px ui-monospace, Menlo, Consolas, monospace } .row { display: flex; min-width: max-content }
.row > * { padding: 0 8px; user-select: none } .row a { min-width: 60px; text-align: right } .row > span { padding: 0;
  white-space: pre; user-select: text } .wrap .row { min-width: 0 } .wrap span { white-space: pre-wrap }
.log:not(.times) time, [hidden] { display: none } .system { color: var(--tone) }
.stderr { box-shadow: inset 3px 0 var(--bad); background: color-mix(in srgb, var(--bad) 7%, #0000) }
.on { background: light-dark(#ffe27a, #7a5d00) }
@media (min-width: 1080px) { .split { grid-template-columns: minmax(0, 1fr) 340px; align-items: start } }
@media (max-width: 800px) { .task { grid-template-columns: minmax(0, 1fr) auto } .strip { grid-area: 3 / 1 / 4 / 3;
  justify-content: start } .task button { grid-area: 1 / 2; justify-self: end } th, td { padding: 6px 8px }
  .task > .dim { grid-area: 4 / 1 / 5 / 3 } td ~ td ~ td ~ td ~ td, th ~ th ~ th ~ th ~ th { display: none } }
</style>
<header><b><a href="#/">taskrunnerd</a></b><nav aria-label="Pages"><a href="#/">Tasks</a><a href="#/runs">History</a>
</nav><span class="dim" id="live" role="status"></span></header>
<main id="main"></main><div id="toasts" role="status"></div><dialog id="form" aria-labelledby="title"></dialog>
<dialog id="ask" aria-label="Token"><form method="dialog"><h1>Token</h1>
  <p>This daemon wants a token. It is kept until this tab is closed.</p>
  <input id="token" type="password" required pattern="[!-~]+" autocomplete="off" aria-label="Token">
  <p class="fault" id="wrong" role="alert"></p><button class="main">Go on</button></form></dialog>
<svg id="svg" hidden></svg><script>
const STRIP = 40, PAGE = 100, CHUNK = 500, ROW = 17, MOST_PX = 16e6, SILENCE_MS = 40000;
const TONES = { good: /^success/, run: /^running/, warn: /stopped/, idle: /pending|skipped|queue|missed/ };
const $ = (id) => document.getElementById(id), tasks = new Map(), strips = new Map();
const later = (t) => new Promise((done) => setTimeout(done, t)), timers = {};
let api = null, view = {}, asking = null;
function put(node, key, value) {
  if (key === "style") Object.assign(node.style, value); else if (key.startsWith("on")) node[key] = value;
  else if (value != null && value !== false) node.setAttribute(key, value === true ? "" : value); }
// "p.dim" has a class, objects are attributes, all else is inside. Text is never HTML.
function h(tag, ...inside) {
  const [name, kind] = tag.split(/\.(.*)/);
  const near = /^(svg|circle|line|text|title)$/.test(name) ? $("svg") : document.body;
  const node = document.createElementNS(near.namespaceURI, name);
  for (const part of [{ class: kind }, inside].flat(9))
    if (part?.constructor === Object) Object.entries(part).forEach((pair) => put(node, ...pair));
    else node.append(part || part === 0 ? part : "");
  return node; }
const fill = (node, ...inside) => node.replaceChildren(...h("i", inside).childNodes);
const button = (text, onclick, more) => h("button", { type: "button", onclick }, more, text);
const facts = (title, pairs, ...first) => h("section.card", h("h2", title), first, h("dl",
  pairs.map(([name, told]) => [h("dt", name), h("dd", told)])));
// -- the API
async function call(path, more) {
  const token = sessionStorage.token, headers = { "Content-Type": "application/json" };
  if (token) headers.Authorization = `Bearer ${token}`;
  const answer = await fetch(path, { headers, ...more }); if (answer.ok) return answer;
  if (answer.status === 401) {
    if (token === sessionStorage.token) await (asking ||= askToken(token)); return call(path, more); }
  const told = await answer.json().catch(() => ({ detail: `status ${answer.status}` }));
  throw Object.assign(Error(told.detail), { errors: [] }, told); }
const get = async (path) => (await call(path)).json();
const post = async (path, body = {}) => (await call(path, { method: "POST", body: JSON.stringify(body) })).json();
const askToken = (refused) => new Promise((done) => {
  $("wrong").textContent = refused ? "This token was refused." : "";
  $("ask").onsubmit = () => (sessionStorage.token = $("token").value);
  $("ask").onclose = () => done(asking = null); $("ask").showModal($("token").value = ""); });
const attempt = (work) => work.catch((error) => toast(error.message));
async function listen() {
  const { body } = await call("api/runs/stream");
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  // A browser opens six connections to a server: none for tabs that nobody looks at.
  document.onvisibilitychange = () => document.hidden && reader.cancel();
  await refresh();
  for (let text = ""; ;) {
    const silent = setTimeout(() => reader.cancel(), SILENCE_MS);
    const { value, done } = await reader.read($("live").textContent = "live");
    clearTimeout(silent); if (done) return; const parts = (text + value).split("\n\n"); text = parts.pop();
    for (const part of parts) {
      const [, name, data] = /event: ([\w.]+)\ndata: ([^]*)/.exec(part) || [];
      if (name && name !== "ping") changed(name, JSON.parse(data).run); } } }
async function keepListening() {
  for (;; await later(2000)) {
    while (document.hidden) await later(300); await listen().catch(() => 0);
    $("live").textContent = "connection lost, trying again"; } }
async function loadTasks() {
  timers.tasks = 0; const listed = await get("api/tasks"); tasks.clear();
  for (const task of listed) tasks.set(task.name, task); }
async function refresh() {
  api ||= await get("openapi.json"); await loadTasks(strips.clear()); (view.refresh || route)(); }
function changed(name, run) {
  strips.delete(run.task_name);
  timers.tasks ||= setTimeout(() => attempt(loadTasks().then(() => view.update?.())), 500);
  view.onrun?.(name, run); }
// -- words
const ms = Date.parse, word = (s) => s.replace(/_/g, " "); const stamp = (at) => new Date(at).toLocaleString("sv");
function took(t) {
  const s = Math.max(t, 0) / 1000, m = Math.floor(s / 60), h = Math.floor(m / 60);
  if (m < 1) return `${s.toFixed(s < 1 ? 2 : s < 10 ? 1 : 0)} s`;
  return h ? `${h} h ${m % 60} m` : `${m} m ${Math.floor(s % 60)} s`; }
const ago = (at, t = Date.now() - at) => t < 0 ? `in ${took(-t)}` : `${took(t)} ago`;
const clock = (at) => stamp(at).replace(`${stamp(Date.now()).slice(0, 10)} `, "");
const when = (iso) => h("time", { datetime: iso }, clock(ms(iso)));
const since = (iso) => h("time.ago", { datetime: iso }, ago(ms(iso)));
const age = (node) => (node.textContent = ago(ms(node.dateTime)));
setInterval(() => document.querySelectorAll(".ago").forEach(age), 1000);
const state = (run) => run.end_reason || run.status, href = (run) => `#/runs/${run.id}`;
const tone = (run) => Object.keys(TONES).find((key) => TONES[key].test(state(run))) || "bad";
const open = (run) => (location.hash = href(run));
const lasted = (run) => run.status === "running" ? Date.now() - ms(run.start_at) : (run.duration || 0) / 1e6;
const link = (run, text = word(state(run))) => h(`a.chip ${tone(run)}`, { href: href(run) }, text);
const runOf = (id) => h("a", { href: href({ id }) }, id);
const runsOf = (name) => h("a", { href: `#/runs?task_name=${name}` }, name);
const outline = (run) => [run.task_name, word(state(run)), clock(ms(run.created_at)),
  lasted(run) && took(lasted(run)), run.summary].filter(Boolean).join(" \u00b7 ");
function toast(text, undo) {
  const note = h("p.card bar", h("span.grow", text), undo && button("Undo", () => note.remove(undo())));
  setTimeout(() => note.remove(), undo ? 30000 : 10000, $("toasts").append(note)); }
// -- the tasks
// Calls what fills an element when it is about to be seen, or no longer.
const lazy = (root) => new IntersectionObserver((seen) => seen.forEach((one) =>
  one.target.look(one.target.near = one.isIntersecting)), { root, rootMargin: "500px" });
const near = lazy(null);
async function drawStrip(strip, name) {
  if (strip.near && !strips.has(name))
    strips.set(name, (await attempt(get(`api/tasks/${name}/runs?limit=${STRIP}`)))?.runs || []);
  const runs = strip.near && strips.get(name) || [], most = Math.max(1, ...runs.map(lasted));
  const tall = (run) => `80% ${12 + 88 * Math.sqrt(lasted(run) / most)}%`;
  fill(strip, runs.map((run) => h(`a.${tone(run)}`, { href: href(run), tabindex: -1,
    title: outline(run), style: { backgroundSize: tall(run) } })).reverse()); }
const turnSchedule = (name, paused, word = paused ? "Resume" : "Pause") => button(word, () => attempt(
  post(`api/tasks/${name}/${word.toLowerCase()}`).then(() => refresh())), { "aria-label": `${word} ${name}` });
const plan = ({ name, schedule, next_run_at: next, paused }) => !schedule ? h("span.dim", "on demand")
  : [schedule, h("p.dim bar", paused ? h("span.chip warn", { title: paused.reason }, "paused",
    paused.until && [" until ", when(paused.until)]) : h("span", next && ["next ", since(next)]),
    turnSchedule(name, paused))];
const doing = ({ running, queued, last_run: last }) => [running > 0 && h("span.chip run", `${running} running `),
  queued > 0 && h("span.chip idle", `${queued} queued`),
  !running && !queued && (last ? [link(last), " ", since(last.end_at || last.created_at)] : "never run")];
function taskRow({ name, description, api_trigger: may }) {
  const what = h("div"), how = h("div.dim"), strip = h("div.strip");
  const row = h("li.task", h("div", h("b", runsOf(name)), h("p.dim", description)), what,
    strip, how, button("Run", () => start(name), { "aria-label": `Run ${name}`, disabled: !may }));
  strip.look = () => drawStrip(strip, name);
  row.update = () => strip.look(fill(what, plan(tasks.get(name))), fill(how, doing(tasks.get(name))));
  near.observe(strip, row.update()); return row; }
function tasksView() {
  const rows = new Map(), refresh = () => {
    const groups = new Map(); near.disconnect(rows.clear());
    for (const [name, task] of tasks) {
      rows.set(name, taskRow(task)); groups.set(task.group, [...groups.get(task.group) || [], rows.get(name)]); }
    fill($("main"), h("h1", "Tasks"), [...groups].map(([group, inside]) =>
      h("section", group && h("h2", group), h("ul.card list", inside)))); };
  refresh(); return { refresh, update: () => rows.size !== tasks.size ? refresh() :
    rows.forEach((row, name) => tasks.has(name) && row.update()) }; }
// -- forms
function field({ name, type, format, secret, required, choices, hint }, value = "") {
  const text = hint == null ? word : String, said = name === "task_name" ? String : text;
  const dated = format === "date-time", kind = secret ? "password" : dated ? "datetime-local" : "text";
  const option = (one) => h("option", { value: one, selected: one === value }, said(one) || "\u2013");
  const control = choices ? h("select", ["", ...choices].map(option)) : h("input", type === "boolean"
    ? { type: "checkbox", value: "true", checked: /^[t1]/i.test(value) }
    : { type: kind, autocomplete: "off", inputmode: { number: "decimal", integer: "numeric" }[type],
      value: dated && value ? stamp(value).slice(0, 16) : value });
  Object.assign(control, { name, ariaRequired: String(Boolean(required)) });
  return h("label.field", h("b", text(name)), control, h("small", hint), h("small.fault")); }
// Each fault of a problem at the field where the API locates it, the rest at the end.
function showFaults(form, prefix, { errors = [], message } = {}) {
  const left = new Map(errors.map((fault) => [fault.location, fault.message]));
  if (message && !errors.length) left.set("", message);
  for (const control of form.elements) if (control.name) {
    const place = prefix + control.name, told = left.get(place) || "";
    control.closest("label").querySelector(".fault").textContent = told;
    control.setAttribute("aria-invalid", Boolean(told, left.delete(place))); }
  form.lastChild.textContent = [...left].map((pair) => pair.join(" ")).join("; ");
  form.querySelector("[aria-invalid=true]")?.focus(); }
const keyOf = (param) => param.env || param.arg || param.option || param.flag;
function paramField(param, given) {
  const { type, secret, required, flag, allow_custom: free } = param, name = keyOf(param);
  const value = secret ? "" : String((given ? given[name] : param.default) ?? "");
  const hint = [param.description, type !== "string" && type, free && param.choices.join(", "),
    required && "required", secret && "secret"].filter(Boolean).join(" \u00b7 ");
  return field({ ...param, name, hint, type: flag ? "boolean" : type, choices: !free && param.choices }, value); }
// Null omits a parameter whose default was taken out of its field.
const paramValue = (param, { checked, value }) => param.flag ? String(checked)
  : value || (param.secret || param.default == null ? undefined : null);
async function start(name, given) {
  const { params, description } = tasks.get(name), path = `api/tasks/${name}/run`;
  const box = $("form"), value = (param) => [keyOf(param), paramValue(param, form.elements.namedItem(keyOf(param)))];
  if (!params.length) return attempt(post(path).then(open));
  const onsubmit = (event) => {
    event.preventDefault();
    post(path, { params: Object.fromEntries(params.map(value)) }).then((run) => open(run, box.close()),
      (bad) => showFaults(form, "body.params.", bad)); };
  const form = h("form", { onsubmit }, h("h1", { id: "title" }, `Run ${name}`),
    h("p.dim", description), params.map((param) => paramField(param, given)),
    h("div.bar", h("button.main", "Run"), button("Cancel", () => box.close())), h("p.fault", { role: "alert" }));
  box.showModal(fill(box, form)); }
// -- the history
const HEADS = ["outcome", "task", "when", "duration", "exit code", "trigger"];
const cells = (run) => [link(run), runsOf(run.task_name), when(run.created_at),
  lasted(run) ? took(lasted(run)) : "", run.exit_code < 0 ? "" : run.exit_code, run.triggered_by];
const tableRow = (kind, parts) => h("tr", parts.map((part) => h(kind, part)));
function chart(runs, width) {
  const times = runs.map((run) => ms(run.created_at)), first = Math.min(...times);
  const span = Math.max(...times) - first || 1, most = Math.max(1, ...runs.map(lasted));
  const up = (t) => 125 - 112 * Math.sqrt(t / most), x2 = width - 50;
  const cx = (i) => 8 + (times[i] - first) / span * (x2 - 16);
  const spot = (run, i) => h(`circle.${tone(run)}`, { r: 4, cx: cx(i), cy: up(lasted(run)),
    onclick: () => open(run) }, h("title", outline(run)));
  const mark = (t) => [h("line", { x2, y1: up(t), y2: up(t) }), h("text", { x: x2 + 6, y: up(t) + 4 }, took(t))];
  return h("svg", { role: "img", "aria-label": "Durations over time", viewBox: `0 0 ${width} 150` },
    [most, most / 4, 0].map(mark), h("text", { y: 145 }, clock(first)), runs.map(spot)); }
function filters(query) {
  const { properties: { end_reason: ends, status } } = api.components.schemas.Run;
  const choices = { task_name: [...tasks.keys()], status: [...status.enum, ...ends.enum,
    ends.enum.filter((reason) => tone({ status: reason }) === "bad").join()] };
  const mine = (given) => given.in === "query" && !/limit|offset/.test(given.name);
  return api.paths["/api/runs"].get.parameters.filter(mine).map(({ name, schema }) =>
    field({ ...schema, name, choices: schema.enum || choices[name] }, query.get(name) || "")); }
function historyView(given) {
  const query = new URLSearchParams(given), body = h("div.stack");
  const go = (changes) => {
    for (const [name, value] of Object.entries(changes)) value ? query.set(name, value) : query.delete(name);
    load(history.replaceState(null, "", `#/runs?${query}`)); };
  const onchange = () => {
    const values = { offset: "", retries_only: "", ...Object.fromEntries(new FormData(form)) };
    for (const name of ["created_after", "created_before"]) values[name] &&= new Date(values[name]).toISOString();
    go(values); };
  const form = h("form.card", { role: "search", onsubmit: () => false, onchange },
    h("div.stack filters", filters(query)), h("p.fault", { role: "alert" }));
  const load = () => get(`api/runs?${query}&limit=${PAGE}`).then((page) => {
    showFaults(form); if (body.isConnected) draw(page, Number(query.get("offset")));
  }, (problem) => showFaults(form, "query.", problem));
  const turn = (label, to, can) => button(label, () => go({ offset: String(to) }), { disabled: !can });
  const draw = ({ runs, total }, from) => {
    const to = from + runs.length;
    const table = () => h("table", tableRow("th", HEADS), runs.map((run) => tableRow("td", cells(run))));
    fill(body, to > from ? [h("div.card", chart(runs, body.clientWidth - 34)), h("div.card list", table())]
      : h("p.card", "No run is like that."),
      h("div.bar", h("span.dim grow", `${Math.min(from + 1, to)} to ${to} of ${total}`),
      turn("Newer", Math.max(0, from - PAGE), from), turn("Older", to, to < total))); };
  load(fill($("main"), h("h1", "History"), form, body));
  return { update: () => query.get("offset") || load(), refresh: load }; }
// -- a run
async function attemptsOf(run) {
  const found = [run];
  while (found[0].retry_of_run_id) found.unshift(await get(`api/runs/${found[0].retry_of_run_id}`));
  const after = `retries_only=1&sort_direction=asc&created_after=${found[0].created_at}`;
  for (const next of (await get(`api/tasks/${run.task_name}/runs?${after}`)).runs)
    if (next.retry_of_run_id === found.at(-1).id) found.push(next);
  return found; }
const sentence = (run) => run.status !== "ended" ? [run.status, ", ", since(run.start_at || run.created_at)]
  : run.end_reason === "success" ? `succeeded after ${took(lasted(run))}` : run.summary || run.error || "did not run";
const size = (n) => n < 1e5 ? `${n} bytes` : `${(n / 1048576).toFixed(1)} MB`;
const shown = (name, told) => /_at$/.test(name) ? when(told) : /bytes/.test(name) ? size(told) : told;
const picked = (run, names) => Object.entries(run).filter(([name, told]) => names.test(name)
  && (told || name === "exit_code")).map(([name, told]) => [word(name.replace("_bytes", "")), shown(name, told)]);
function timeline(run) {
  const began = run.status !== "pending" && run.start_at;
  const waited = ms(began || run.end_at || run.created_at) - ms(run.created_at);
  const part = (kind, t) => h(`i.${kind}`, { style: { flexGrow: Math.max(1, t) } });
  return facts("Timeline", [...picked(run, /_at$/), ["duration", took(lasted(run))]],
    h("div.track", part("idle", waited), part(tone(run), lasted(run)))); }
function runView(id, line) {
  const top = h("div.stack"), side = h("div.stack"), split = h("div.split", side);
  let run, log, attempts = [];
  const path = () => `api/tasks/${run.task_name}/runs/${id}`, ids = { ids: [id] };
  const stop = () => post(`${path()}/stop`).then((told) => toast(told.message));
  const restore = () => attempt(post("api/runs/bulk/restore", ids).then(() => open(run)));
  const remove = () => call(path(), { method: "DELETE" }).then(() => {
    location.hash = `#/runs?task_name=${run.task_name}`; toast("The run is deleted.", restore); });
  const again = () => post("api/runs/bulk/rerun", ids).then(({ runs, refused: [no] }) => {
    if (runs.length) open(runs[0]);
    else if (no?.status === 422) start(run.task_name, run.params);
    else toast(no?.detail || "This run is gone."); });
  const act = (label, work, kind) => button(label, () => attempt(work()), { class: kind });
  const draw = () => {
    const params = Object.entries(run.params || {});
    const end = run.status === "ended" ? act("Delete", remove, "danger") : act("Stop", stop, "danger");
    fill(top, h("div.bar", h("h1.grow", link(run)), end, act("Run again", again)),
      h("p", runsOf(run.task_name), " \u00b7 ", sentence(run)));
    fill(side, timeline(run), params.length > 0 && facts("Parameters", params),
      attempts.length > 1 && facts("Attempts", attempts.map((one) =>
        [String(one.retry_attempt + 1), [link(one), " ", when(one.created_at)]])),
      run.cause_run_id && facts("Triggered by", [["run", runOf(run.cause_run_id)]]),
      run.hook_run_ids && facts("Hooks", run.hook_run_ids.map((one) => ["run", runOf(one)])),
      facts("Details", picked(run, /code|signal|error|by$|seconds|bytes|surv|^id/))); };
  const load = async () => {
    const told = await get(`api/runs/${id}`);
    draw(run = run?.end_reason && !told.end_reason ? run : told); log ||= logView(split, run, line);
    draw(attempts = await attemptsOf(run)); };
  const refresh = () => attempt(load()); refresh(fill($("main"), top, split));
  const onrun = (name, told) => told.id === id && name !== "run.deleted"
    && [draw(run = told)] && told.end_reason && refresh();
  return { id, refresh, seek: (n) => n >= 0 && log?.(n), onrun }; }
// -- a log: only what is near the view is in the document
const HUES = [0, 355, 135, 42, 215, 285, 185, 0];
const hue = (n) => n % 7 && n < 7 ? `color-mix(in srgb, hsl(${HUES[n]} 90% 45%) 75%, var(--ink))` : "";
// Text with its SGR codes (ECMA-48, 8.3.117) as colours, without other escapes.
const ESCAPES = /\x1b\[([\d;]*)m|\x1b\[[^@-~]*[@-~]|\x1b\][^\x07\x1b]*(?:\x07|\x1b\\)/;
function paint(text) {
  let style = {}; const apply = (n) => (style = n ? { ...style, ...n === 1 && { fontWeight: "bold" },
    ...(n > 29 && n < 40 || n > 89 && n < 98) && { color: hue(n % 10) } } : {});
  const codes = (part) => (part ?? "22").replace(/[34]8;(5;|2;\d+;\d+;)\d+/g, "39").split(";").map(Number);
  const told = (part, i) => i % 2 ? codes(part).forEach(apply) : part && h("span", { style }, part);
  return text.split(ESCAPES).map(told); }
const row = (run, { n, ts, stream, text }) => h(`div.row ${stream}`, { "data-n": n },
  h("a", { href: `${href(run)}#L${n}`, tabindex: -1 }, n),
  h("time", `${stamp(ts).slice(11)}.${String(1000 + ts % 1000).slice(1)}`), h("span", paint(text)));
// The box has an empty one for every CHUNK lines, filled while it is near the view.
function logView(split, run, target) {
  const home = `api/tasks/${run.task_name}`, path = `${home}/runs/${run.id}/log`;
  const box = h("div.card log", { tabindex: 0, role: "region", "aria-label": "Output" });
  const chunks = [], sight = lazy(box), found = h("span.dim", { role: "status" });
  let base, total = 0, was = 0, hits = [], hit = -1, query = "";
  const check = (label, onchange, checked) => h("label", h("input", { type: "checkbox", onchange, checked }), label);
  const pin = () => follow.checked && (box.scrollTop = box.scrollHeight);
  const following = check("Follow", pin, target < 0), follow = following.firstChild;
  box.onscroll = () => {
    const end = box.scrollTop + box.clientHeight > box.scrollHeight - ROW;
    follow.checked = end || follow.checked && box.scrollTop >= was; was = box.scrollTop; };
  const load = async (chunk) => {
    while (chunk.near && !chunk.busy && chunk.next < Math.min(chunk.end, total)) {
      const from = chunk.busy = chunk.next;
      const told = await attempt(get(`${path}?from=${from}&limit=${chunk.end - from}`));
      chunk.busy = false; if (!told || chunk.next !== from) return;
      const kept = told.lines.filter(({ n }) => n < chunk.end).map((line) => row(run, line));
      const { offsetTop: top, offsetHeight: tall } = chunk, last = told.lines.slice(-1)[0];
      chunk.append(...kept, kept.length ? "" : "(left out)"); chunk.style.height = "";
      chunk.next = Math.min(chunk.end, last ? last.n + 1 : told.total_lines);
      if (top < box.scrollTop) box.scrollTop += chunk.offsetHeight - tall; pin(); } };
  const look = function () {
    if (this.near) return load(this); this.style.height = `${this.offsetHeight}px`;
    this.next = this.from; fill(this); };
  const grow = ({ first_available: first, total_lines: lines }) => {
    base ??= first; for (total = lines; base + chunks.length * CHUNK < total;) {
      const from = base + chunks.length * CHUNK, end = from + CHUNK;
      const height = `${Math.min(ROW, MOST_PX / total) * (Math.min(end, total) - from)}px`;
      const chunk = Object.assign(h("div", { style: { height } }), { from, end, next: from, look });
      sight.observe(chunk, box.append(chunk), chunks.push(chunk)); }
    chunks.slice(-1).forEach(load); pin(); };
  const seek = async (n) => {
    const chunk = chunks[Math.floor((n - base) / CHUNK)]; if (!chunk) return; follow.checked = false;
    box.scrollTop = chunk.offsetTop; await load(chunk, chunk.near = true);
    while (chunk.busy) await later(20); box.querySelector(".on")?.classList.remove("on");
    const line = chunk.querySelector(`[data-n="${n}"]`) || chunk;
    line.classList.add("on"); box.scrollTop = line.offsetTop - box.clientHeight / 2; };
  const step = (by) => {
    hit = (hit + by + hits.length) % hits.length;
    fill(found, hits.length ? `${hit + 1} of ${hits.length}` : query && "not found");
    if (hits.length) seek(hits[hit]); };
  const find = async (q) => {
    const wanted = new URLSearchParams({ q, run_id: run.id, limit: 1000 });
    const told = q ? await get(`${home}/log/search?${wanted}`) : { hits: [] };
    [hits, hit, query] = [told.hits.map(({ n }) => n), -1, q]; step(1); };
  const search = h("input", { type: "search", placeholder: "Find in the output",
    onkeydown: ({ key, shiftKey }) => key === "Enter" && (query === search.value
      ? step(shiftKey ? -1 : 1) : attempt(find(search.value))) });
  const save = async () => {
    const file = await (await call(`${path}/raw`)).blob();
    h("a", { href: URL.createObjectURL(file), download: `${run.id}.log` }).click(); };
  const watch = async () => {
    for (let told; box.isConnected && !told?.finalized; told?.finalized || await later(400)) {
      told = await get(`${path}?from=-1&limit=1`).catch(() => told);
      if (told?.total_lines > total) grow(told);
      if (target >= 0 && told) target = seek(target) && -1; }
    following.hidden = true; };
  const toggle = (label, kind) => check(label, () => box.classList.toggle(kind));
  split.prepend(h("section.stack", h("div.bar", h("h2.grow", "Output"), search, found, following,
    toggle("Wrap", "wrap"), toggle("Times", "times"), button("Raw", () => attempt(save()))), box));
  attempt(watch()); return seek; }
// -- where one is
const PLACE = /^#\/(?:(runs)(?:\/(\w{26})(?:#L(\d+))?)?(?:\?(.*))?)?$/;
function route() {
  const [, runs, id, line = -1, query] = PLACE.exec(location.hash) || [];
  if (id && view.id === id) return view.seek(Number(line));
  view = id ? runView(id, Number(line)) : runs ? historyView(query) : tasksView();
  document.querySelectorAll("nav a").forEach((a, i) =>
    a.setAttribute("aria-current", !id && i === Number(Boolean(runs)) ? "page" : "false"));
  document.title = id || (runs ? "History" : "Tasks"); scrollTo(0, 0); }
addEventListener("hashchange", route); keepListening();
</script>
"""  # noqa: E501

if __name__ == "__main__":
    speak_utf8()
    outcome = main(page=PAGE)
    if isinstance(outcome, int):
        leave_at_once(outcome)
    leave_script(outcome)
