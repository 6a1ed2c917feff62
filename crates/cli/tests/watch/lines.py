# A stuck program in Python, whose lines the test knows.
import ctypes
import os
import threading
import time


def end():
    while not os.path.exists(os.environ["FENCEPOST_TEST_STOP"]):
        time.sleep(0.02)
    os._exit(7)


threading.Thread(target=end, daemon=True).start()
# Like PyTorch's launches, these calls are made without the interpreter's lock.
cuda = ctypes.CDLL(os.environ["FENCEPOST_CUDA_LIBRARY"])
context, word, first, second, event, module, spin = (ctypes.c_size_t() for _ in range(7))
cuda.cuInit(0)
cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0)
cuda.cuCtxSetCurrent(context)
cuda.cuMemHostAlloc(ctypes.byref(word), ctypes.c_size_t(4), 0)
cuda.cuModuleLoadData(ctypes.byref(module), b"image")
cuda.cuModuleGetFunction(ctypes.byref(spin), module, b"fencepost_spin")
cuda.cuStreamCreate(ctypes.byref(first), 1)
cuda.cuStreamCreate(ctypes.byref(second), 1)
cuda.cuEventCreate(ctypes.byref(event), 2)
cuda.cuStreamWaitValue32_v2(first, word, 1, 0)


def record():
    cuda.cuEventRecord(event, first)


def launch():
    time = ctypes.c_uint64(10)
    parameters = (ctypes.c_void_p * 1)(ctypes.addressof(time))
    cuda.cuLaunchKernel(spin, 1, 1, 1, 1, 1, 1, 0, second, parameters, None)


record()
cuda.cuStreamWaitEvent(second, event, 0)
launch()
cuda.cuStreamSynchronize(second)
