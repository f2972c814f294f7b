import threading
import time
from concurrent.futures import ThreadPoolExecutor

from tlhub.data.room import Room


def test_threads_wait_until_there_is_room():
    room, lock = Room(10), threading.Lock()
    inside, most = 0, 0

    def work(amount):
        nonlocal inside, most
        with room.taken(amount):
            with lock:
                inside += min(amount, 10)
                most = max(most, inside)
            time.sleep(0.001)
            with lock:
                inside -= min(amount, 10)
        return amount

    with ThreadPoolExecutor(8) as pool:
        done = list(pool.map(work, [4, 5, 10, 1, 3, 12] * 8))  # one more than there is comes in alone
    assert len(done) == 48
    assert 0 < most <= 10
    assert inside == 0


def test_room_is_given_back_when_something_fails():
    room = Room(1)
    for _ in range(3):
        try:
            with room.taken(1):
                raise ValueError
        except ValueError:
            pass
    with room.taken(1):
        pass
