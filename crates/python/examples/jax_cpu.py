"""How long a jitted function of JAX takes on the CPU.

    python examples/jax_cpu.py

JAX has no events. It runs the work of a call on threads of its own, and the call returns before the
work is done. So the function that is measured waits for the result, on a stream of the host.

The time is that of one whole call as one thread of Python sees it: JAX's dispatch, the hand-over to
its threads, the computation, and the way back. It is not the time of the computation alone, and it
includes no compilation, because the function is called once before. Without
``block_until_ready()`` it would be the time of the dispatch.
"""

import jax
import jax.numpy as jnp

import fencepost


@jax.jit
def layer(weights, inputs):
    """Compute one dense layer."""
    return jnp.tanh(inputs @ weights)


def main():
    """Measure the function and print what one call takes."""
    cpu = jax.devices("cpu")[0]
    weights, inputs = (jax.device_put(jnp.ones((256, 256)), cpu) for _ in range(2))
    layer(weights, inputs).block_until_ready()  # compiles it

    stream = fencepost.Device("host").stream()

    def call():
        stream.launch(lambda: layer(weights, inputs).block_until_ready())

    print(f"JAX {jax.__version__} on {cpu.device_kind}, dispatch and wait included:")
    print(fencepost.measure(call, stream))


if __name__ == "__main__":
    main()
