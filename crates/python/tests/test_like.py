"""``record(like=tensor)``: the current stream of the framework that a tensor belongs to.

The tensors are of a class made here, whose type has DLPack's exchange API in C, and of
apache-tvm-ffi on the CPU.
"""

import ctypes
import sys
import types

import pytest

import fencepost
from conftest import PATIENCE
from fencepost.cuda import Event, wrap_stream

CPU, CUDA, CUDA_MANAGED, METAL, ROCM = 1, 2, 13, 8, 10

CURRENT = ctypes.PYFUNCTYPE(
    ctypes.c_int, ctypes.c_int, ctypes.c_int32, ctypes.POINTER(ctypes.c_void_p)
)


class Api(ctypes.Structure):
    """The table of functions, 56 bytes in version 1.3."""

    _fields_ = (
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("older", ctypes.c_void_p),
        ("tensors", ctypes.c_void_p * 4),
        ("current_work_stream", ctypes.c_void_p),
    )


kept = []  # as long as the process, as DLPack demands


def capsule(address, name=b"dlpack_exchange_api"):
    make = ctypes.pythonapi.PyCapsule_New
    make.restype = ctypes.py_object
    make.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    name = ctypes.create_string_buffer(name)
    kept.append(name)
    return make(address, ctypes.cast(name, ctypes.c_char_p), None)


def table(current, major=1, older=None):
    """Return the address of a table with this function, or with none."""
    function = CURRENT(current) if current else None
    api = Api(major, 3, older, (ctypes.c_void_p * 4)(), ctypes.cast(function, ctypes.c_void_p))
    kept.extend((function, api))
    return ctypes.addressof(api)


def tensor(api=None, device=(CUDA, 0), module="somebody.arrays"):
    """Return an object of a new type, with this as its exchange API."""
    body = {"__dlpack_device__": lambda self: device, "__module__": module}
    if api is not None:
        body["__dlpack_c_exchange_api__"] = api
    return type("Tensor", (), body)()


def telling(handle, device=(CUDA, 0), calls=None):
    """Return a tensor whose type tells that this stream is current."""

    def current(kind, index, stream):
        if calls is not None:
            calls.append((kind, index))
        stream[0] = handle
        return 0

    return tensor(capsule(table(current)), device)


@pytest.fixture(params=["cuda", "generic"])
def event(request, cuda):
    return Event() if request.param == "cuda" else fencepost.Event(cuda)


def held(cuda, gate):
    stream = cuda.stream()
    return stream, gate(stream)


@pytest.mark.parametrize("kind", [CUDA, CUDA_MANAGED])
def test_it_is_the_stream_that_the_type_tells(cuda, gate, event, kind):
    stream, opener = held(cuda, gate)
    calls = []
    event.record(like=telling(stream.cuda_stream, (kind, 0), calls))
    # Managed memory has no streams of its own.
    assert calls == [(CUDA, 0)]
    assert event.query() is False
    opener.open()
    event.synchronize(timeout=PATIENCE)


def test_a_wait_takes_it_too(cuda, gate, event):
    stream, opener = held(cuda, gate)
    waiting, done = cuda.stream(), Event()
    event.record(stream)
    event.wait(like=telling(waiting.cuda_stream))
    done.record(waiting)
    assert done.query() is False
    opener.open()
    done.synchronize(timeout=PATIENCE)


def test_the_handle_of_a_default_stream_means_the_tensors_device(cuda):
    if "cuda:1" not in [device.name for device in fencepost.devices()]:
        pytest.skip("two CUDA devices are needed")
    for handle in (None, 1):
        event = Event()
        event.record(like=telling(handle, (CUDA, 1)))
        assert str(event.device) == "cuda:1"


def test_a_stream_and_a_tensor_are_one_too_many(cuda, event):
    for call in (event.record, event.wait):
        with pytest.raises(TypeError, match="not both"):
            call(cuda.stream(), like=telling(None))


def test_what_is_no_tensor_is_an_error(event):
    for wrong in (3, object(), "cuda:0"):
        with pytest.raises(TypeError, match="expected a tensor"):
            event.record(like=wrong)


def test_an_exception_of_the_framework_gets_out(event):
    raising = ctypes.pythonapi.PyErr_BadArgument  # sets a TypeError, and returns 0
    api = Api(1, 3, None, (ctypes.c_void_p * 4)(), ctypes.cast(raising, ctypes.c_void_p))
    kept.append(api)
    with pytest.raises(TypeError, match="bad argument type"):
        event.record(like=tensor(capsule(ctypes.addressof(api))))


def test_a_failure_without_an_exception_is_an_error(event):
    with pytest.raises(RuntimeError, match="does not tell its current stream.*no reason"):
        event.record(like=tensor(capsule(table(lambda kind, index, stream: -1))))


def test_what_is_no_such_capsule_is_an_error(event):
    for wrong in (0, "dlpack_exchange_api", capsule(table(None), b"another_name")):
        with pytest.raises(ValueError, match='no capsule named "dlpack_exchange_api"'):
            event.record(like=tensor(wrong))


def test_a_misaligned_table_is_an_error(event):
    with pytest.raises(ValueError, match="misaligned"):
        event.record(like=tensor(capsule(table(None) + 1)))


def test_a_newer_table_points_to_the_known_one(cuda, gate, event):
    stream, opener = held(cuda, gate)

    def current(kind, index, out):
        out[0] = stream.cuda_stream
        return 0

    newer = table(None, major=3, older=table(None, major=2, older=table(current)))
    event.record(like=tensor(capsule(newer)))
    assert event.query() is False
    opener.open()


UNKNOWN = {
    "none": lambda: None,
    "a table without the function": lambda: capsule(table(None)),
    "no known version": lambda: capsule(table(None, major=2)),
}


@pytest.fixture(params=UNKNOWN)
def silent(request):
    """Make tensors whose types do not tell their current stream."""
    return lambda **more: tensor(UNKNOWN[request.param](), **more)


def test_a_circle_of_tables_ends(event):
    address = table(None, major=2)
    Api.from_address(address).older = address
    with pytest.raises(RuntimeError, match="does not tell its current stream"):
        event.record(like=tensor(capsule(address)))


def fake_torch(stream):
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(is_initialized=lambda: True)
    torch._C = types.SimpleNamespace(
        _cuda_getDevice=lambda: 0, _cuda_getCurrentRawStream=lambda index: stream.cuda_stream
    )
    return torch


def cupy(stream):
    module = types.ModuleType("cupy")
    current = types.SimpleNamespace(ptr=stream.cuda_stream, device_id=0)
    module.cuda = types.SimpleNamespace(get_current_stream=lambda index: current)
    return module


def warp(stream):
    module = types.ModuleType("warp")
    device = types.SimpleNamespace(ordinal=0)
    current = types.SimpleNamespace(cuda_stream=stream.cuda_stream, device=device)
    module.get_stream = lambda device: {"cuda:0": current}[device]
    return module


def is_marked(event, opener):
    marked = event.query() is False
    opener.open()
    event.synchronize(timeout=PATIENCE)
    return marked


@pytest.fixture
def alone(monkeypatch):
    """Hide the frameworks that other tests have loaded."""
    for name in ("cupy", "warp", "jax", "tensorflow", "paddle", "mlx"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("framework", [cupy, warp])
def test_the_only_framework_loaded_tells(cuda, gate, event, silent, monkeypatch, framework):
    stream, opener = held(cuda, gate)
    monkeypatch.setitem(sys.modules, framework.__name__, framework(stream))
    event.record(like=silent())
    assert is_marked(event, opener)


@pytest.mark.parametrize("framework", [cupy, warp])
def test_a_framework_tells_of_its_own_tensors(cuda, gate, event, silent, monkeypatch, framework):
    stream, opener = held(cuda, gate)
    other = cuda.stream()
    for make in (cupy, warp):
        module = make(stream if make is framework else other)
        monkeypatch.setitem(sys.modules, make.__name__, module)
    event.record(like=silent(module=f"{framework.__name__}._core"))
    assert is_marked(event, opener)


@pytest.mark.usefixtures("alone")
def test_no_framework_is_chosen_among_several(cuda, event, silent, monkeypatch):
    stream = cuda.stream()
    for make in (cupy, warp):
        monkeypatch.setitem(sys.modules, make.__name__, make(stream))
    monkeypatch.setitem(sys.modules, "jax", types.ModuleType("jax"))
    with pytest.raises(RuntimeError, match=r"loaded: cupy, warp, jax\); pass the stream"):
        event.record(like=silent())


@pytest.mark.usefixtures("alone")
def test_without_a_framework_there_is_no_current_stream(event, silent):
    with pytest.raises(RuntimeError, match=r"loaded: none\); pass the stream itself"):
        event.record(like=silent())


PYTORCH = """
import sys
sys.path.insert(0, "tests")
from test_like import cupy, fake_torch, tensor
import fencepost
from fencepost import _C
from fencepost.cuda import Event
device = fencepost.Device("cuda:0")
stream, other, event = device.stream(), device.stream(), Event()
sys.modules["torch"], sys.modules["cupy"] = fake_torch(stream), cupy(other)
opener = _C._Gate(stream)
event.record(like=tensor())
assert event.query() is False
event.record(like=tensor(module="cupy._core"))
event.synchronize(timeout=PATIENCE)
opener.open()
"""


def test_pytorch_comes_before_other_frameworks_where_it_uses_cuda(cuda, child):
    # In a process of its own: what PyTorch is stays known.
    child(PYTORCH)


CURRENT_OF_PYTORCH = """
import sys
sys.path.insert(0, "tests")
import types
from test_like import capsule, fake_torch, table
import fencepost
from fencepost import _C
from fencepost.cuda import Event
device = fencepost.Device("cuda:0")
lasting, other = device.stream(), device.stream()
torch = sys.modules["torch"] = fake_torch(other)
current, tells = lasting, True

def current_work_stream(kind, index, out):
    assert (kind, index) == (2, -1)
    out[0] = current.cuda_stream
    return 0 if tells else -1

class Stream:
    def __init__(self, stream):
        self.cuda_stream, self.stream_id = stream.cuda_stream, 3 if stream is lasting else 4

asked = []
torch.cuda.Stream = Stream
torch.cuda.current_stream = lambda device: asked.append(device) or Stream(current)
torch.Tensor = type(
    "Tensor", (), {"__dlpack_c_exchange_api__": capsule(table(current_work_stream))}
)
event = Event()
for _ in range(3):
    for current in (lasting, other):
        opener = _C._Gate(current)
        event.record()
        assert event.query() is False
        opener.open()
        event.synchronize(timeout=PATIENCE)
assert len(asked) == 2, asked
# Where the type fails to tell, PyTorch's own function is asked.
tells, current = False, lasting
opener = _C._Gate(other)
event.record()
assert event.query() is False
opener.open()
event.synchronize(timeout=PATIENCE)
"""


def test_pytorchs_tensors_tell_its_current_stream_to_calls_without_one(cuda, child):
    child(CURRENT_OF_PYTORCH)


def test_streams_of_warp_are_taken(cuda, gate):
    stream, opener = held(cuda, gate)
    device = types.SimpleNamespace(ordinal=0)
    event = Event()
    event.record(types.SimpleNamespace(cuda_stream=stream.cuda_stream, device=device))
    assert is_marked(event, opener)
    # Warp has None for a device's default stream.
    default = types.SimpleNamespace(cuda_stream=None, device=device)
    assert wrap_stream(default) == cuda.default_stream()


def test_other_kinds_of_devices_are_refused(event):
    for kind in (METAL, ROCM):
        with pytest.raises(NotImplementedError, match="a tensor on"):
            event.record(like=tensor(device=(kind, 0)))


def test_a_tensor_in_memory_stands_for_the_host(host):
    calls = []
    event = fencepost.Event(host)
    event.record(like=telling(None, (CPU, 0), calls))
    assert calls == [(CPU, 0)]
    event.wait(like=tensor(device=(CPU, 0)))
    event.synchronize(timeout=PATIENCE)
    with pytest.raises(TypeError, match="expected a CUDA stream"):
        Event().record(like=telling(None, (CPU, 0)))


def test_a_tensor_of_tvm_ffi_stands_for_the_host(host):
    core = pytest.importorskip("tvm_ffi.core")
    numpy = pytest.importorskip("numpy")
    wrapped = core.DLTensorTestWrapper(core.from_dlpack(numpy.zeros(4)))
    assert type(wrapped).__dlpack_c_exchange_api__
    event = fencepost.Event(host)
    event.record(like=wrapped)
    event.synchronize(timeout=PATIENCE)
