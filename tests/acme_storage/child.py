"""What other processes do to a folder in ``test_file``: ``python -m tests.acme_storage.child TASK FOLDER NUMBER``."""

import os
import random
import sys
from itertools import count
from pathlib import Path

from acme_storage.errors import StorageUnavailable
from acme_storage.file import Files
from tests.acme_storage.values import uniform

CHURNED = [f"churn/{number}" for number in range(6)]


def race(folder: Path, rounds: int) -> None:
    """Swap to win each round, then count up once; print how many rounds were won."""
    store = Files(folder)
    me = b"%d" % os.getpid()
    print("ready", flush=True)
    sys.stdin.readline()
    won = 0
    for turn in range(rounds):
        won += store.swap(f"round/{turn}", None, me)
        while True:
            old = store.get("count")
            if store.swap("count", old, b"%d" % (int(old or b"0") + 1)):
                break
    print(won)


def churn(folder: Path, seed: int) -> None:
    """Write, swap and delete until killed; one byte to stdout for each."""
    store = Files(folder)
    rng = random.Random(seed)
    for turn in count():
        key = rng.choice(CHURNED)
        ttl = rng.choice([None, 3600.0])
        if rng.random() < 0.5:
            store.put(key, uniform(turn), ttl=ttl)
        else:
            store.swap(key, store.get(key), rng.choice([None, uniform(turn)]), ttl=ttl)
        os.write(1, b".")


def stranger(folder: Path, _: int) -> None:
    """Read, write and list as a user who may not; print what each call says."""
    store = Files(folder)
    if os.geteuid() == 0:
        os.setuid(65534)
    for call in (lambda: store.put("a", b"x"), lambda: store.get("a"), lambda: store.keys("")):
        try:
            print("no error:", call())
        except StorageUnavailable as error:
            print(error)


if __name__ == "__main__":
    task, folder, number = sys.argv[1:]
    {"race": race, "churn": churn, "stranger": stranger}[task](Path(folder), int(number))
