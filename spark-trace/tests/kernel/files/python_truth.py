"""Allocates through the CUDA driver from functions of many kinds, and prints whom Python itself names as the callers.

Each allocation has a size and a stack of its own. The last line of the output is a JSON object: the frames by size, innermost first.
"""

import ctypes
import json
import os
import sys
import threading
import time
import traceback

MIB = 1 << 20
DRIVER, GATE = sys.argv[1:3]
# One lets go of the interpreter's lock for the call, the other keeps it.
released, kept = ctypes.CDLL(DRIVER), ctypes.PyDLL(DRIVER)
truth = {}
context = ctypes.c_void_p()


def note(size, frame):
    named = lambda frame: getattr(frame.f_code, "co_qualname", frame.f_code.co_name)
    frames = traceback.walk_stack(frame)
    truth[size] = [[frame.f_code.co_filename, named(frame), line] for frame, line in frames]
    return size


def allocate(size, driver=released):
    pointer = ctypes.c_uint64()
    # The line of the call and of the note are the same.
    result, _ = driver.cuMemAlloc_v2(ctypes.byref(pointer), ctypes.c_size_t(size)), note(size, sys._getframe())
    assert result == 0, result


class Größe:
    def load(self, size):
        return [
            allocate(size * index)
            for index in range(1, 2)
        ]

    @staticmethod
    def 高さ(size):
        allocate(
            size,
            kept,
        )

    def generate(self, size):
        allocate(size)
        yield size
        allocate(size + MIB, kept)


def deep(size, depth):
    if depth == 0:
        allocate(size)
    else:
        deep(size, depth - 1)


async def awaited(size):
    allocate(size)


def in_a_thread(size):
    released.cuCtxSetCurrent(context)
    allocate(size)


def sort_key(size):
    # Called by the interpreter's own code.
    allocate(size)
    return size


def main():
    device = ctypes.c_int()
    assert released.cuInit(0) == 0 and released.cuDeviceGet(ctypes.byref(device), 0) == 0
    assert released.cuCtxCreate_v2(ctypes.byref(context), 0, device) == 0
    allocate(4 * MIB)
    Größe().load(8 * MIB)
    Größe.高さ(16 * MIB)
    list(Größe().generate(20 * MIB))
    deep(24 * MIB, 60)
    (lambda size: allocate(size))(28 * MIB)
    sorted([32 * MIB], key=sort_key)
    try:
        awaited(36 * MIB).send(None)
    except StopIteration:
        pass
    # It stays until its name has been read.
    made = compile("\n\nallocate(40 * MIB)", "/made/up.py", "exec")
    exec(made, globals())
    threads = [threading.Thread(target=target) for target in (
        lambda: in_a_thread(44 * MIB),
        lambda: in_a_thread(45 * MIB),
    )]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    # Too small.
    allocate(MIB - 4096)
    print("HOLD", flush=True)
    while not os.path.exists(GATE):
        time.sleep(0.01)
    print(json.dumps(truth))


main()
