"""Takes memory of every kind through PyTorch and the CUDA driver, and prints what PyTorch says it has.

The last line of the output is a JSON object: the truth that a recording of this program is compared with.
"""

import ctypes
import json
import sys
import time

import torch

MIB, GIB = 1 << 20, 1 << 30


def main(hold):
    truth = {}
    torch.cuda.init()
    driver = ctypes.CDLL("libcuda.so.1")
    infos = [torch.cuda.mem_get_info()]

    large = torch.empty(8 * GIB, dtype=torch.uint8, device="cuda")
    small = [torch.empty(100 * MIB, dtype=torch.uint8, device="cuda") for _ in range(20)]
    infos.append(torch.cuda.mem_get_info())
    truth["device_peak"] = torch.cuda.memory_reserved()

    pinned = torch.empty(2 * GIB, dtype=torch.uint8, pin_memory=True)
    truth["pinned"] = pinned.numel()

    pointer = ctypes.c_uint64()
    attach_global = 1
    result = driver.cuMemAllocManaged(ctypes.byref(pointer), ctypes.c_size_t(GIB), attach_global)
    assert result == 0, f"cuMemAllocManaged: {result}"
    ctypes.memset(pointer.value, 1, GIB)
    truth["managed"] = GIB

    registered = torch.empty(512 * MIB, dtype=torch.uint8)
    registered.fill_(1)
    assert int(torch.cuda.cudart().cudaHostRegister(registered.data_ptr(), 512 * MIB, 0)) == 0
    truth["registered"] = 512 * MIB
    infos.append(torch.cuda.mem_get_info())

    try:
        torch.empty(1 << 40, dtype=torch.uint8, device="cuda")
        truth["out_of_memory"] = None
    except torch.OutOfMemoryError:
        truth["out_of_memory"] = 1 << 40
    time.sleep(hold)

    truth["device_peak"] = max(truth["device_peak"], torch.cuda.max_memory_reserved())
    del small
    torch.cuda.empty_cache()
    truth["device_after_frees"] = torch.cuda.memory_reserved()
    infos.append(torch.cuda.mem_get_info())
    time.sleep(0.5)
    truth["mem_get_info"] = [{"free": free, "total": total} for free, total in infos]
    print(json.dumps(truth))
    del large


main(float(sys.argv[1]) if len(sys.argv) > 1 else 1.0)
