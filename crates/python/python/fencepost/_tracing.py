"""Functions that are spans of a trace each time they are called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Generator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fencepost._C import Span


def decorate(span: Span, function: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function that calls ``function`` in a span like ``span``."""
    if isinstance(function, (staticmethod, classmethod)):
        raise TypeError(
            f"a span decorates a function; put @{type(function).__name__} above the span"
        )
    if isinstance(function, type):
        raise TypeError(
            "a span decorates a function, or is used by with; "
            f"got the class {function.__qualname__!r}"
        )
    if not callable(function):
        raise TypeError(
            f"a span decorates a function, or is used by with; got {type(function).__qualname__}"
        )
    if inspect.isasyncgenfunction(function):
        raise TypeError("a span decorates no asynchronous generator; use it by with in there")
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def traced_coroutine(*args: Any, **kwargs: Any) -> Any:
            with span._again():
                return await function(*args, **kwargs)

        return traced_coroutine
    if inspect.isgeneratorfunction(function):

        @functools.wraps(function)
        def traced_generator(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            with span._again():
                return (yield from function(*args, **kwargs))

        return traced_generator

    @functools.wraps(function)
    def traced(*args: Any, **kwargs: Any) -> Any:
        with span._again():
            return function(*args, **kwargs)

    return traced
