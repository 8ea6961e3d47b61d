"""Upstreams that are restarted, one after the other, under clients that go on: boto3, and Spark with the example's whole job.

Four proxies in front of one store play the upstreams, so that all four serve the same buckets; a fifth in front of them is
the one under test. Clients that try nothing twice have to see no failure of what may be repeated, and Spark no wrong result.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sigv4
from harness import s3a
from harness.gateway import Gateway, Store
from harness.process import wait_until
from harness.proxy import Proxy
from support import body, read, refused

REPOSITORY = Path(__file__).resolve().parents[2]
UPSTREAMS = 4
# How often each of them is restarted.
ROUNDS = 3
# Requests of Spark from one restart to the next; a job has some thousand.
REQUESTS_BETWEEN = 40
# The largest object of the load: many buffers, so that bodies are on the way when an upstream goes.
LARGE = 3 << 20
# A request that waits so long for an upstream hangs.
TEST_SECONDS_MAX = 120


@pytest.fixture
def upstreams(stack, certificates, tmp_path):
    settings = f'upstreams = ["{stack.store}"]\nupstream_ca = ["{stack.ca}"]'
    made = [Proxy(tmp_path / f"upstream{n}", certificates, settings) for n in range(UPSTREAMS)]
    for one in made:
        one.spawn()
    for one in made:
        wait_until("an upstream is ready", one.ready, 30, one.process)
    yield made
    for one in made:
        one.end()


@pytest.fixture
def front(upstreams, certificates, tmp_path):
    listed = ", ".join(f'"{one.https}"' for one in upstreams)
    with Proxy(tmp_path / "front", certificates, f'upstreams = [{listed}]\nupstream_ca = ["{certificates.ca}"]') as running:
        yield running


def client(stack, front: Proxy, attempts: int):
    """A client of the store's root user, at the proxy's https listener."""
    return stack.client(front.https, front.certificates.ca, retries={"max_attempts": attempts, "mode": "standard"}, max_pool_connections=32)


def restart(one: Proxy, how: signal.Signals) -> None:
    """Ends an upstream and starts it again at the same place."""
    if how == signal.SIGTERM:
        assert one.stop() == 0
    else:
        one.end()
    one.start()


class Load:
    """Calls in several threads, each again and again until told to stop; what fails is kept."""

    def __init__(self, *calls) -> None:
        self.done = threading.Event()
        self.counts, self.failures = [0] * len(calls), []
        self._pool = ThreadPoolExecutor(len(calls))
        self._running = [self._pool.submit(self._repeat, number, call) for number, call in enumerate(calls)]

    def _repeat(self, number: int, call) -> None:
        for turn in itertools.count():
            if self.done.is_set():
                return
            try:
                call(turn)
                self.counts[number] += 1
            except Exception as error:  # Whatever the client raises is what its user would see.
                self.failures.append(f"call {number}, turn {turn}: {type(error).__name__}: {error}")

    def goes_on(self) -> None:
        """Returns once each call has come to an end twice more: one may have begun before, the other did not."""
        before = list(self.counts)
        wait_until("every call has ended twice more", lambda: self.failures or all(now >= old + 2 for now, old in zip(self.counts, before)), TEST_SECONDS_MAX)

    def stop(self) -> None:
        self.done.set()
        for running in self._running:
            running.result(TEST_SECONDS_MAX)
        self._pool.shutdown()


def test_a_rolling_restart_costs_no_client_a_read(stack, front, upstreams, bucket):
    small, large = body("small", 10_000), body("large", LARGE)
    s3 = client(stack, front, attempts=1)
    s3.put_object(Bucket=bucket, Key="small", Body=small)
    s3.put_object(Bucket=bucket, Key="large", Body=large)

    def get(_turn) -> None:
        assert read(s3, bucket, "small") == small
        assert read(s3, bucket, "large") == large

    def get_range(turn) -> None:
        first = turn * 1000 % LARGE
        assert read(s3, bucket, "large", Range=f"bytes={first}-{first + 99_999}") == large[first : first + 100_000]

    def look(_turn) -> None:
        assert s3.head_object(Bucket=bucket, Key="small")["ContentLength"] == len(small)
        assert [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]] == ["large", "small"]

    load = Load(get, get_range, look)
    for one in upstreams * ROUNDS:
        restart(one, signal.SIGTERM)
        load.goes_on()
    load.stop()
    assert load.failures == []


def test_upstreams_that_are_killed_cost_no_client_a_read_that_had_no_answer_yet(stack, front, upstreams, bucket):
    """Answers here have no body: one that is cut in the middle of its body can't be given again from its start."""
    s3 = client(stack, front, attempts=1)
    etag = s3.put_object(Bucket=bucket, Key="k", Body=b"content")["ETag"]
    s3.put_object(Bucket=bucket, Key="empty", Body=b"")

    def look(_turn) -> None:
        assert s3.head_object(Bucket=bucket, Key="k")["ContentLength"] == 7

    def get_empty(_turn) -> None:
        assert read(s3, bucket, "empty") == b""

    def get_unless_it_is_the_same(_turn) -> None:
        with refused("304"):
            read(s3, bucket, "k", IfNoneMatch=etag)

    load = Load(look, get_empty, get_unless_it_is_the_same)
    for one in upstreams * ROUNDS:
        restart(one, signal.SIGKILL)
        load.goes_on()
    load.stop()
    assert load.failures == []


def test_a_rolling_restart_loses_no_write_of_a_client_that_tries_again(stack, front, upstreams, bucket):
    s3 = client(stack, front, attempts=5)
    written: list[set] = [set(), set(), set()]

    def put(number: int, size: int):
        def call(turn: int) -> None:
            key = f"{number}/{turn}"
            s3.put_object(Bucket=bucket, Key=key, Body=body(key, size))
            written[number].add((key, size))

        return call

    def change(turn: int) -> None:
        s3.put_object(Bucket=bucket, Key=f"gone/{turn}", Body=b"x")
        s3.delete_object(Bucket=bucket, Key=f"gone/{turn}")

    load = Load(put(0, 0), put(1, 10_000), put(2, LARGE), change)
    for one, how in zip(upstreams * ROUNDS, itertools.cycle((signal.SIGTERM, signal.SIGKILL))):
        restart(one, how)
        load.goes_on()
    load.stop()
    assert load.failures == []
    direct = stack.client()
    for key, size in set().union(*written):
        assert read(direct, bucket, key) == body(key, size)
    assert "Contents" not in direct.list_objects_v2(Bucket=bucket, Prefix="gone/")


class Gated:
    """A body whose second half is only read when a gate is open; `begun` is set when the first half was."""

    def __init__(self, content: bytes, gate: threading.Event) -> None:
        self.content, self.gate, self.begun, self.place = content, gate, threading.Event(), 0

    def __len__(self) -> int:
        return len(self.content)

    def read(self, size: int = -1) -> bytes:
        half = len(self.content) // 2
        if self.place >= half:
            self.begun.set()
            assert self.gate.wait(TEST_SECONDS_MAX)
        end = len(self.content) if size < 0 else self.place + size
        piece = self.content[self.place : min(end, half if self.place < half else len(self.content))]
        self.place += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self.place = offset + (0, self.place, len(self.content))[whence]
        return self.place

    def tell(self) -> int:
        return self.place


@pytest.fixture(params=["proxy", "gateway"])
def draining(request, stack, certificates, tmp_path):
    """A server that is going to be drained, and a client of it that tries nothing twice."""
    if request.param == "gateway":
        store = Store(stack.store, *stack.root_credentials(), stack.ca)
        with Gateway(tmp_path / "gateway", certificates, {"moat": store}) as running:
            yield running, running.client(running.https, max_pool_connections=32)
    else:
        running = request.getfixturevalue("front")
        running.root_credentials = stack.root_credentials
        yield running, client(stack, running, attempts=1)


def test_a_drain_under_load_cuts_no_request(stack, draining, bucket):
    """Uploads and downloads are half way when SIGTERM comes; each has to end well, and the proxy then with 0."""
    (front, s3), count, gate = draining, 4, threading.Event()
    contents = [body(f"drain {n}", LARGE) for n in range(count)]
    for n, content in enumerate(contents):
        s3.put_object(Bucket=bucket, Key=f"down/{n}", Body=content)
    uploads = [Gated(content, gate) for content in contents]

    def down(number: int) -> bytes:
        stream = s3.get_object(Bucket=bucket, Key=f"down/{number}")["Body"]
        first = stream.read(1000)
        begun[number].set()
        assert gate.wait(TEST_SECONDS_MAX)
        return first + stream.read()

    begun = [threading.Event() for _ in range(count)]
    with ThreadPoolExecutor(2 * count) as pool:
        puts = [pool.submit(unsigned_put, front, f"/{bucket}/up/{n}", uploads[n]) for n in range(count)]
        gets = [pool.submit(down, n) for n in range(count)]
        for event in [*begun, *(upload.begun for upload in uploads)]:
            assert event.wait(TEST_SECONDS_MAX)
        os.kill(front.process.pid, signal.SIGTERM)
        wait_until("the proxy says that it drains", lambda: not front.ready(), 10)
        gate.set()
        assert [future.result(TEST_SECONDS_MAX) for future in gets] == contents
        assert [future.result(TEST_SECONDS_MAX) for future in puts] == [200] * count
    assert front.process.wait(TEST_SECONDS_MAX) == 0
    direct = stack.client()
    assert [read(direct, bucket, f"up/{n}") for n in range(count)] == contents


def unsigned_put(front, path: str, gated: Gated) -> int:
    """A PUT whose body is sent as the gate lets it, and whose payload nobody has to hash first."""
    with sigv4.Connection(front, front.https) as connection:
        connection.send(connection.head("PUT", path, {"content-length": str(len(gated))}))
        while piece := gated.read(65536):
            connection.send(piece)
        return connection.answer("PUT").status


@pytest.mark.timeout(s3a.JOB_SECONDS_MAX + 60)
def test_sparks_job_runs_through_restarts_and_its_results_are_right(stack, front, upstreams, bucket, tmp_path):
    """The example's job compares every value and every query with local files; meanwhile no upstream lives long."""
    work = tmp_path / "spark"
    rounds, failures, done = itertools.count(), [], threading.Event()
    restarts = 0

    def restart_on_and_on() -> None:
        nonlocal restarts
        for number in rounds:
            sent = front.requests_sent()
            wait_until("more requests have passed", lambda: done.is_set() or front.requests_sent() >= sent + REQUESTS_BETWEEN, s3a.JOB_SECONDS_MAX)
            if done.is_set():
                return
            try:
                restart(upstreams[number % UPSTREAMS], (signal.SIGTERM, signal.SIGKILL)[number // UPSTREAMS % 2])
                restarts += 1
            except Exception as error:
                failures.append(error)
                return

    at = s3a.Bucket(bucket, front.https, *stack.root_credentials())
    trust = front.certificates.truststore
    arguments = ("--base", f"s3a://{bucket}/tables", "--local", str(tmp_path / "tables"), "--scale", "0.001", "--quiet")
    restarting = threading.Thread(target=restart_on_and_on)
    restarting.start()
    try:
        job = s3a.submit("spark35", s3a.settings([at], trust), trust, work, REPOSITORY / "examples/spark-sql/job.py", *arguments)
    finally:
        done.set()
        restarting.join()
    assert failures == []
    assert job.returncode == 0 and job.stdout.splitlines()[-1].startswith("PASSED"), f"{job.stdout[-2000:]}\n{job.stderr[-4000:]}"
    assert restarts >= 2 * UPSTREAMS, f"only {restarts} restarts while it ran"
