"""One contract for every room that work may be done in, and what goes wrong with Dask clusters."""

import contextlib
import functools
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import environment, free_port

from deepmerge import cluster
from deepmerge.cluster import crew, opened, worker
from deepmerge.errors import Failed, InputError

ROOT = Path(__file__).parents[1]


def square(number):
    return number**2


def fails(number):
    raise InputError(f"expected another number, got {number}")


def counts(last, report):
    """Tells a number at a time, and gives the one at which it ended."""
    for number in range(last):
        if not report(number):
            return number
        time.sleep(0.05)
    return last


def place(_=None):
    return os.getpid(), os.environ.get("OMP_NUM_THREADS"), str(Path.cwd())


def nap(seconds):
    began = time.time()
    time.sleep(seconds)
    return os.getpid(), began, time.time()


def drawn(seconds):
    """A random number, some time after its generator was seeded."""
    random.seed(5)
    time.sleep(seconds)
    return random.random()


def dies_unless(path):
    """Leaves a note, and kills its process where there was none."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


def poison():
    os.kill(os.getpid(), signal.SIGKILL)


@contextlib.contextmanager
def started(*words, **variables):
    process = subprocess.Popen(
        [sys.executable, "-m", "distributed.cli." + words[0], *words[1:]],
        env=environment(**{"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}", **variables}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(30)


@contextlib.contextmanager
def scheduler():
    address = f"tcp://127.0.0.1:{free_port()}"
    port = address.rpartition(":")[2]
    with started("dask_scheduler", "--host", "127.0.0.1", "--port", port, "--no-dashboard"):
        yield address


@pytest.fixture(scope="module")
def by_hand(tmp_path_factory):
    """A scheduler and two workers, started as on other machines: elsewhere, with two threads each."""
    home = tmp_path_factory.mktemp("workers")
    words = ("--nthreads", "2", "--no-dashboard", "--host", "127.0.0.1", "--local-directory", str(home))
    with scheduler() as address, started("dask_worker", address, *words), started("dask_worker", address, *words):
        yield address


@pytest.fixture(scope="module")
def rooms(by_hand):
    with opened(1) as here, opened(2) as local, opened(by_hand) as dask:
        yield {"this process": here, "two processes": local, "by hand": dask}


@pytest.fixture(params=["this process", "two processes", "by hand"])
def room(request, rooms):
    return rooms[request.param]


def test_results_come_in_the_order_of_the_items(room):
    assert list(room.map(square, range(20))) == [number**2 for number in range(20)]
    assert list(room.map(square, [])) == []


def test_items_are_taken_as_they_are_needed(room):
    taken = []
    results = room.map(square, (taken.append(number) or number for number in range(1000)))
    assert next(results) == 0
    assert len(taken) <= 2 * max(room.width, 2)
    for _ in range(len(taken) - 1):
        next(results)
    assert len(taken) < 1000


def test_what_a_piece_raises_is_raised(room):
    with pytest.raises(InputError, match="expected another number, got 3"):
        list(room.map(fails, [3]))
    assert list(room.map(square, [4])) == [16]


def test_what_a_piece_tells_is_heard_in_this_process_before_it_is_done(room):
    heard = []
    piece = room.submit(functools.partial(counts, 5), heard=lambda said: heard.append((said, os.getpid())))
    assert room.next() is piece
    assert piece.result() == 5
    assert heard == [(number, os.getpid()) for number in range(5)]


def test_a_dropped_piece_is_told_to_stop_and_says_no_more(room):
    heard = []

    def hear(said):
        heard.append(said)
        if said == 2:
            room.drop(endless)

    endless = room.submit(functools.partial(counts, 10**6), heard=hear)
    assert room.next() is endless
    assert endless.dropped
    assert heard == [0, 1, 2]
    # Its worker is free again, and so is every other.
    assert [room.submit(functools.partial(square, 3)) for _ in range(2)]
    assert [room.next().result() for _ in range(2)] == [9, 9]


def test_what_is_sent_once_reaches_every_piece(room):
    sent = room.send(b"weights")
    pieces = [room.submit(len, sent=sent) for _ in range(3)]
    done = set()
    while not done >= set(pieces):  # among those that another test left in the room
        done.add(room.next())
    assert [piece.result() for piece in pieces] == [7, 7, 7]


def test_workers_do_one_piece_at_a_time_and_know_their_threads_and_our_folder(rooms, tmp_path, monkeypatch):
    for name, threads in (("two processes", str(max(1, cluster.count_cores() // 2))), ("by hand", "2")):
        naps = list(rooms[name].map(nap, [0.2] * 6))
        assert len({pid for pid, *_ in naps}) == 2
        for pid in {pid for pid, *_ in naps}:
            spans = sorted(span for other, *span in naps if other == pid)
            assert all(before[1] <= after[0] for before, after in itertools.pairwise(spans))
        assert {found[1:] for found in rooms[name].map(place, range(4))} == {(threads, str(Path.cwd()))}


def blas_threads(_):
    import numpy  # noqa: F401 - brings the BLAS that is asked about
    from threadpoolctl import threadpool_info

    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_the_blas_of_a_worker_has_its_threads_and_this_process_keeps_its_own(rooms, monkeypatch):
    assert list(rooms["by hand"].map(blas_threads, range(2))) == [{2}, {2}]
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    threads = cluster.threads_each()
    with opened(2) as room:
        assert all(found == {cluster.threads_each(2)} for found in room.map(blas_threads, range(2)))
        assert cluster.threads_each() == threads
    assert cluster.threads_each() == threads


def test_nobody_else_draws_random_numbers_of_a_piece(room):
    assert set(room.map(drawn, [2.0] * 2)) == {drawn(0)}


def test_nothing_given_is_one_process_a_core_but_no_more_than_there_are_pieces(monkeypatch):
    with opened(pieces=1) as room:
        assert isinstance(room, cluster.Here)
    monkeypatch.setattr("deepmerge.cluster.places.count_cores", lambda: 1)
    with opened() as room:
        assert isinstance(room, cluster.Here)
    with opened("1") as room:
        assert isinstance(room, cluster.Here)
    with opened(usual=1, pieces=9) as room:
        assert isinstance(room, cluster.Here)


def test_the_work_of_a_worker_that_is_killed_is_done_by_another(rooms, tmp_path):
    room = rooms["two processes"]
    assert list(room.map(dies_unless, [tmp_path / "a"])) == ["done"]


@pytest.mark.slow
def test_a_piece_that_kills_every_worker_is_given_up_and_the_others_are_done():
    with opened(2) as room:
        pieces = [room.submit(poison), *(room.submit(functools.partial(nap, 0.1)) for _ in range(4))]
        for _ in pieces:
            room.next()
        with pytest.raises(cluster.WorkerLost, match=r"^each of 4 workers that took it on was lost, the last at tcp"):
            pieces[0].result()
        assert all(piece.result() for piece in pieces[1:])


def test_a_scheduler_that_is_not_there_is_said_in_one_line(monkeypatch):
    monkeypatch.setattr(crew, "PATIENCE", 1.0)
    with (
        pytest.raises(InputError, match=r"a Dask scheduler that answers, got tcp://127\.0\.0\.1:1: ") as refusal,
        opened("tcp://127.0.0.1:1"),
    ):
        pass
    assert "\n" not in str(refusal.value)


def test_an_encrypted_scheduler_is_not_asked_without_its_key():
    said = r"--cluster tls://127\.0\.0\.1:1 needs the key of its scheduler"
    with pytest.raises(InputError, match=said) as refusal, opened("tls://127.0.0.1:1"):
        pass
    assert "\n" not in str(refusal.value)


def test_a_scheduler_without_workers_is_refused():
    said = "should have workers, got none; start them with"
    with scheduler() as address, pytest.raises(InputError, match=said), crew.joined(address, patience=1.0):
        pass


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"numpy": "0.1"}, r"^worker tcp://127.0.0.1:\d+ should have numpy 0.1, as the command has, got \d"),
        ({"deepmerge (its code)": "0"}, r"^worker tcp://\S+ should have deepmerge \(its code\) 0, as the command has"),
    ],
)
def test_a_worker_with_other_code_or_packages_is_named(by_hand, monkeypatch, change, said):
    known = worker.identity()
    monkeypatch.setattr(worker, "identity", lambda: {**known, **change})
    with pytest.raises(InputError, match=said), opened(by_hand):
        pass


def test_a_worker_that_comes_later_is_checked_too(rooms, tmp_path, monkeypatch):
    room = rooms["by hand"]
    monkeypatch.setattr(room, "_order", (worker.identity(), str(tmp_path / "not there"), room._topic))
    with pytest.raises(InputError, match=r"^worker tcp://\S+ should see the folder of the command, .*not there"):
        list(room.map(square, [1]))


def test_a_worker_without_the_package_is_named(tmp_path):
    with scheduler() as address:
        words = ("--no-dashboard", "--host", "127.0.0.1", "--local-directory", str(tmp_path), "--no-nanny")
        hidden = tmp_path / "sitecustomize.py"
        hidden.write_text("import sys\nsys.modules['deepmerge'] = None\n")
        said = r"^worker tcp://\S+ should have deepmerge \S+ installed, but"
        with (
            started("dask_worker", address, *words, PYTHONPATH=str(tmp_path)),
            pytest.raises(InputError, match=said),
            opened(address),
        ):
            pass


def test_a_scheduler_that_is_lost_is_said_in_one_line():
    port = free_port()
    address, words = f"tcp://127.0.0.1:{port}", ("--host", "127.0.0.1", "--no-dashboard")
    with (
        started("dask_scheduler", *words, "--port", str(port)) as process,
        started("dask_worker", address, *words),
        opened(address) as room,
    ):
        room.submit(functools.partial(counts, 10**6), heard=lambda said: process.kill() if said == 1 else None)
        with pytest.raises(Failed, match="the Dask scheduler was lost; the same command goes on from here"):
            room.next().result()


@pytest.mark.slow
def test_a_jobqueue_file_starts_workers_and_ends_them(tmp_path):
    file = tmp_path / "jobs.yaml"
    file.write_text("kind: local\njobs: 2\ncores: 1\nmemory: 2GB\nprocesses: 1\ninterface: lo\n")
    with opened(str(file)) as room:
        pieces = [room.submit(os.getpid) for _ in range(8)]
        workers = {room.next().result() for _ in pieces}
    assert workers
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{pid}").exists() for pid in workers):
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "where there is no file"),
        ("kind: slurm\n", "should have the keys kind"),
        ("[1", "should be a YAML file"),
        ("kind: slurm\njobs: many\n", "jobs in .* should be a whole number from 1, got 'many'"),
        ("kind: abacus\njobs: 1\n", "kind in .* should be one of htcondor, .* got 'abacus'"),
        ("kind: slurm\njobs: 1\nbeads: 3\n", "should start a cluster of kind slurm, but: "),
    ],
)
def test_a_file_that_starts_no_cluster_is_refused_in_one_line(tmp_path, content, said):
    file = tmp_path / "jobs.yaml"
    if content is not None:
        file.write_text(content)
    with pytest.raises(InputError, match=said) as refusal, opened(str(file)):
        pass
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize("number", [0, -1, "0", "-2"])
def test_a_number_of_workers_below_one_is_refused(number):
    with pytest.raises(InputError, match=f"at least one worker, got {number}"), opened(number):
        pass
