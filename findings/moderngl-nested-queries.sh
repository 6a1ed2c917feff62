#!/bin/sh
# ModernGL: a query inside another of the same kind ends the outer one, and nothing is raised.
#
# OpenGL has one active query per target. The begin of the inner query is refused, its end closes
# the outer query, and the end of the outer one is refused. ModernGL raises nothing, so the outer
# query holds only what came before the end of the inner block, and the inner one reads 0.
# Of `ctx.error` only the code GL_INVALID_OPERATION remains. The script counts primitives, since
# their number is certain; queries of elapsed time nest the same way, and it shows one of 0 ns.
#
# Guess before the run: an exception at the inner `with`, or right numbers for both.
#
# Why it matters: nested scopes are how a frame and its passes are timed. The frame's time then
# misses everything after the first pass, and the pass reads 0 ns. Nest pairs of timestamps
# instead; begin and end queries cannot be nested.
#
# Seen on 2026-11-28 with moderngl 5.13.0, glcontext 3.1.0, Python 3.11, llvmpipe of Mesa 22.3.6
# (Debian 12, packages libegl1 and libgl1-mesa-dri):
#   llvmpipe (LLVM 15.0.6, 256 bits)
#   seven primitives in one query: 7
#   the same with two of them in an inner query: outer 3, inner 0, error GL_INVALID_OPERATION
#   inner query of elapsed time: 0 ns, error GL_INVALID_OPERATION
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet moderngl==5.13.0 glcontext==3.1.0
LIBGL_ALWAYS_SOFTWARE=1 EGL_PLATFORM=surfaceless "$dir/venv/bin/python" - <<'PY'
import sys

import moderngl

ctx = moderngl.create_context(standalone=True, backend="egl")
print(ctx.info["GL_RENDERER"])
program = ctx.program(
    vertex_shader="""
        #version 330
        void main() {
            vec2 corner = vec2(gl_VertexID % 3 == 1, gl_VertexID % 3 == 2);
            gl_Position = vec4(corner, 0, 1);
        }
    """,
    fragment_shader="""
        #version 330
        out vec4 colour;
        void main() { colour = vec4(1); }
    """,
)
triangles = ctx.vertex_array(program, [])
ctx.simple_framebuffer((64, 64)).use()


def draw(count):
    triangles.render(moderngl.TRIANGLES, vertices=3 * count)


def nested(**kind):
    outer, inner = ctx.query(**kind), ctx.query(**kind)
    with outer:
        draw(1)
        with inner:
            draw(2)
        draw(4)
    return outer, inner, ctx.error


flat = ctx.query(primitives=True)
with flat:
    draw(1), draw(2), draw(4)
print(f"seven primitives in one query: {flat.primitives}")
outer, inner, error = nested(primitives=True)
print(
    f"the same with two of them in an inner query: outer {outer.primitives}, "
    f"inner {inner.primitives}, error {error}"
)
_, timed, timed_error = nested(time=True)
print(f"inner query of elapsed time: {timed.elapsed} ns, error {timed_error}")
ok = (flat.primitives, outer.primitives, inner.primitives) == (7, 3, 0) and timed.elapsed == 0
ok = ok and error == timed_error == "GL_INVALID_OPERATION"
sys.exit(0 if ok else "the behaviour has changed")
PY
