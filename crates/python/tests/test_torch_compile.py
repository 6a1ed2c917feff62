"""What ``torch.compile`` does with this package's events. Needs PyTorch, and no GPU."""

import pytest

import fencepost
from conftest import PATIENCE
from fencepost import mps

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
dynamo = pytest.importorskip("torch._dynamo", reason="this PyTorch has no Dynamo")

CALLS = ["record", "wait", "query", "synchronize"]


@pytest.fixture(autouse=True)
def fresh():
    dynamo.reset()
    yield
    dynamo.reset()


def compiled(function, **more):
    # "eager" runs what Dynamo found as it is, and needs no compiler.
    return torch.compile(function, backend="eager", **more)


def calling(name):
    def function(tensor, event, *arguments):
        doubled = tensor * 2
        getattr(event, name)(*arguments)
        return doubled + 1

    return function


@pytest.mark.parametrize("name", CALLS)
def test_the_graph_is_broken_at_each_call_and_the_rest_is_compiled(host, name):
    event, stream = fencepost.Event(host), host.stream()
    arguments = (torch.ones(2), event, *([stream] if name in ("record", "wait") else []))
    assert compiled(calling(name))(*arguments).tolist() == [3.0, 3.0]
    assert (event.marker() is not None) is (name == "record")
    dynamo.reset()
    found = dynamo.explain(calling(name))(*arguments)
    assert found.graph_break_count == 1
    assert found.op_count == 2


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("kind", [fencepost.Event, fencepost.cuda.Event, mps.Event])
def test_a_whole_graph_is_refused(kind, name):
    with pytest.raises(dynamo.exc.Unsupported):
        compiled(calling(name), fullgraph=True)(torch.ones(1), kind())


def test_an_answer_is_asked_for_on_each_call(host, gate):
    def function(tensor, event):
        complete = event.query()
        return tensor.sin() if complete else tensor.cos()

    event, stream, found = fencepost.Event(host), host.stream(), compiled(function)
    assert found(torch.zeros(1), event).item() == 0.0
    opener = gate(stream)
    event.record(stream)
    assert found(torch.zeros(1), event).item() == 1.0
    opener.open()
    event.synchronize(timeout=PATIENCE)
    assert found(torch.zeros(1), event).item() == 0.0


def test_events_made_in_compiled_code_have_times(host):
    stream = host.stream()

    def function(tensor):
        start, end = (fencepost.Event(host, enable_timing=True) for _ in range(2))
        start.record(stream)
        result = tensor.sin()
        end.record(stream)
        return result, end - start

    result, elapsed = compiled(function)(torch.zeros(1))
    assert result.item() == 0.0
    assert elapsed >= 0.0


def test_a_call_outside_of_the_graph_is_chosen_by_a_decorator(host):
    event, stream = fencepost.Event(host), host.stream()

    @torch.compiler.disable
    def mark():
        event.record(stream)

    def function(tensor):
        doubled = tensor * 2
        mark()
        return doubled + 1

    assert compiled(function)(torch.ones(1)).item() == 3.0
    assert event.marker() is not None


def test_a_compiled_function_is_measured_from_outside(host):
    function, stream, tensor = compiled(torch.sin), host.stream(), torch.zeros(1)
    found = fencepost.measure(lambda: stream.launch(lambda: function(tensor)), stream, budget=0.01)
    assert len(found.samples) > 0


def test_a_tensor_in_memory_stands_for_the_host(host):
    event = fencepost.Event(host)
    event.record(like=torch.zeros(1))
    event.synchronize(timeout=PATIENCE)
    assert event.marker() is not None
