import logging
import os
import platform
import subprocess
import sys
import threading
import time

import mlflow
import psutil
import pytest

from deepmerge.tracking import mutex, processes

pytestmark = pytest.mark.usefixtures("client")


@pytest.fixture
def name(request):
    """A lock of its own for each test."""
    return request.node.name[:60]


def names(name):
    return [model.name for model in mlflow.search_registered_models(filter_string=f"name LIKE 'lock.{name}%'")]


def left_behind(client, name, **changes):
    """A lock as a holder leaves it that was killed: a process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    started = psutil.Process(ended.pid).create_time()
    ended.wait()
    tags = {"host": platform.node(), "pid": str(ended.pid), "started": str(started), "token": "t1", **changes}
    client.create_registered_model(f"lock.{name}", tags)
    return tags


def living(**changes):
    return {**processes.own(), "token": "t1", **changes}


def test_a_lock_is_there_while_it_is_held_and_gone_afterwards(client, name):
    with mutex.only_one(name):
        assert names(name) == [f"lock.{name}"]
        tags = client.get_registered_model(f"lock.{name}").tags
        assert (tags["host"], int(tags["pid"])) == (platform.node(), os.getpid())
    assert names(name) == []


@pytest.mark.parametrize("stop", [ValueError("wrong"), KeyboardInterrupt(), SystemExit(143)])
def test_a_failing_body_releases_the_lock(name, stop):
    name = name.replace("[", "").replace("]", "")
    with pytest.raises(type(stop)), mutex.only_one(name):
        raise stop
    assert names(name) == []


def test_locks_of_other_names_are_free(name):
    with mutex.only_one(name), mutex.only_one(f"{name}-2"):
        assert len(names(name)) == 2


def test_one_waits_until_the_other_has_done(name):
    done = []

    def other():
        with mutex.only_one(name):
            done.append("other")

    with mutex.only_one(name):
        waiter = threading.Thread(target=other)
        waiter.start()
        time.sleep(0.4)
        done.append("first")
    waiter.join(20)
    assert done == ["first", "other"]


def test_many_at_once_come_one_after_the_other(name):
    inside, most, entered = [], [], []

    def work():
        for _ in range(4):
            with mutex.only_one(name):
                inside.append(1)
                most.append(len(inside))
                time.sleep(0.002)
                inside.pop()
                entered.append(1)

    workers = [threading.Thread(target=work) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(60)
    assert (len(entered), max(most)) == (16, 1)
    assert names(name) == []


def test_the_lock_of_a_dead_process_is_broken_at_once_and_said_to_be(client, name, caplog):
    tags = left_behind(client, name)
    with caplog.at_level(logging.WARNING), mutex.only_one(name):
        assert client.get_registered_model(f"lock.{name}").tags["pid"] == str(os.getpid())
    assert f"The lock of {name} was left by process {tags['pid']}" in caplog.text


def test_a_process_that_got_the_number_of_a_dead_one_is_not_taken_for_it(client, name):
    client.create_registered_model(f"lock.{name}", living(started=str(psutil.Process().create_time() - 100)))
    with mutex.only_one(name):
        pass


@pytest.mark.parametrize("tags", ["living", "elsewhere", "by hand"])
def test_a_holder_that_may_be_alive_is_given_its_time(client, name, monkeypatch, tags):
    name = name.split("[")[0]
    held = {"living": living(), "elsewhere": living(host="another", pid="1"), "by hand": {}}[tags]
    client.create_registered_model(f"lock.{name}{tags[0]}", held)
    monkeypatch.setattr(mutex, "PATIENCE", 0.5)
    start = time.monotonic()
    with mutex.only_one(f"{name}{tags[0]}"):
        assert time.monotonic() - start > 0.5


def test_the_time_starts_anew_with_each_holder(monkeypatch):
    now, broken = [0.0], []
    tries = iter([False] * 6 + [True])
    tokens = iter("aabbcc")
    monkeypatch.setattr(mutex, "create", lambda name, tags: next(tries))
    monkeypatch.setattr(mutex, "holder_of", lambda name: living(host="another", token=next(tokens)))
    monkeypatch.setattr(mutex, "break_lock", lambda name, holder: broken.append(holder))
    monkeypatch.setattr(mutex.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(mutex.time, "sleep", lambda seconds: now.append(now.pop() + 0.8 * mutex.PATIENCE))
    mutex.acquire("busy")
    assert now[0] > 4 * mutex.PATIENCE
    assert broken == []


def test_who_comes_late_to_break_a_lock_leaves_that_of_the_next_holder_alone(client, name):
    dead = left_behind(client, name)
    with mutex.only_one(name):  # breaks it, and holds its own
        mutex.break_lock(name, dead)  # another waiter, who had looked before
        assert client.get_registered_model(f"lock.{name}").tags["pid"] == str(os.getpid())


def test_of_many_who_break_a_lock_one_succeeds(client, name):
    dead = left_behind(client, name)
    ready = threading.Barrier(4)

    def attempt():
        ready.wait()
        mutex.break_lock(name, dead)

    breakers = [threading.Thread(target=attempt) for _ in range(4)]
    for breaker in breakers:
        breaker.start()
    for breaker in breakers:
        breaker.join(20)
    assert names(name) == [f"lock.{name}.broken-t1"]


def test_a_holder_whose_lock_was_broken_does_not_release_that_of_the_next(client, name):
    with mutex.only_one(name):
        own = client.get_registered_model(f"lock.{name}").tags
        mutex.break_lock(name, own)
        client.create_registered_model(f"lock.{name}", living(token="next"))
    assert client.get_registered_model(f"lock.{name}").tags["token"] == "next"


def test_what_remains_of_broken_locks_goes_after_a_while(client, name, monkeypatch):
    left_behind(client, name)
    with mutex.only_one(name):
        pass
    assert names(name) == [f"lock.{name}.broken-t1"]
    monkeypatch.setattr(mutex, "REMEMBERED", 0.2)
    time.sleep(0.3)
    left_behind(client, name, token="t2")
    with mutex.only_one(name):
        pass
    assert names(name) == [f"lock.{name}.broken-t2"]


def test_a_store_that_cannot_be_written_is_no_lock_that_is_held(name):
    with pytest.raises(mlflow.exceptions.MlflowException, match="Invalid model name"), mutex.only_one(f"{name}/x"):
        pass


WORK = """
import os, sys, random
import mlflow
from deepmerge.tracking import mutex
mlflow.set_tracking_uri(sys.argv[1])
path = sys.argv[2]
for i in range(int(sys.argv[3])):
    with mutex.only_one("counted"):
        count = int(open(path).read())
        if sys.argv[4] == "mortal" and i == 3:
            os.kill(os.getpid(), 9)
        open(path, "w").write(str(count + 1))
"""


@pytest.mark.slow
def test_processes_that_count_together_lose_nothing_also_when_some_are_killed_with_the_lock(database, tmp_path):
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", WORK, database, str(count)]
    workers = [subprocess.Popen([*command, "8", "immortal"]) for _ in range(4)]
    mortal = [subprocess.Popen([*command, "8", "mortal"]) for _ in range(2)]
    assert [worker.wait(300) for worker in mortal] == [-9, -9]
    assert [worker.wait(300) for worker in workers] == [0] * 4
    assert int(count.read_text()) == 4 * 8 + 2 * 3
