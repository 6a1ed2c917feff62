#!/bin/sh
# Babeltrace: a time since 1970 is rounded to 256 ns, unless the clock counts nanoseconds.
#
# A clock in the Common Trace Format has a frequency, and a time is a count of its ticks. For a
# frequency of exactly 1 GHz Babeltrace takes the count as it is. For any other one it multiplies
# and divides in floating point, which for times since 1970 leaves steps of 256 ns. Ticks of 100 ns
# then are 0 or 256 ns apart, and events of one trace that are equally spaced read as bunches.
#
# Guess before the run: integers are computed with integers, so each tick has a time of its own.
#
# Why it matters: device timers count at 10, 12.5, 19.2 or 100 MHz. Short kernels read 0 ns, and an
# event on the host may come to lie on the wrong side of one on the device. Write nanoseconds, or
# put the origin into the clock's `offset_s` and count from there: then ticks of 100 ns are exact.
#
# Seen on 2026-11-29 with Debian 12's babeltrace2 2.0.4, Linux x86-64 (eight
# marks 100 ns apart, from 2026-11-29 00:00; what is read, in ns after the full second):
#   1 GHz, since 1970: 0 100 200 300 400 500 600 700
#   10 MHz, since 1970: 0 0 256 256 256 256 512 768
#   10 MHz, origin in the offset: 0 100 200 300 400 500 600 700
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
chmod 755 "$dir"
cd "$dir"
for package in babeltrace2 libbabeltrace2-0 libglib2.0-0 libdw1 libelf1; do
    apt-get download -q -q "$package" 2>/dev/null
    dpkg-deb -x "$package"_*.deb root
done
cat >trace.py <<'PY'
import os
import struct
import sys

METADATA = """/* CTF 1.8 */
typealias integer {{ size = 32; align = 8; signed = false; }} := word;
trace {{
    major = 1; minor = 8; byte_order = le;
    packet.header := struct {{ word magic; }};
}};
clock {{ name = gpu; freq = {frequency}; offset_s = {offset}; absolute = TRUE; }};
typealias integer {{ size = 64; align = 8; signed = false; map = clock.gpu.value; }} := ticks;
stream {{ event.header := struct {{ ticks timestamp; }}; }};
event {{ name = mark; fields := struct {{ word number; }}; }};
"""
MAGIC = 0xC1FC1FC1
folder, frequency, offset = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
second = 1_795_910_400  # 2026-11-29 00:00:00
os.mkdir(folder)
with open(f"{folder}/metadata", "w") as file:
    file.write(METADATA.format(frequency=frequency, offset=offset))
first = (second - offset) * frequency
tick = frequency // 10_000_000
with open(f"{folder}/stream", "wb") as file:
    file.write(struct.pack("<I", MAGIC))
    for number in range(8):
        file.write(struct.pack("<QI", first + number * tick, number))
PY
libraries="$dir/root/usr/lib/x86_64-linux-gnu"
export LD_LIBRARY_PATH="$libraries" BABELTRACE_PLUGIN_PATH="$libraries/babeltrace2/plugins"
changed=0
show() {
    python3 trace.py "$2" "$3" "$4"
    root/usr/bin/babeltrace2 --clock-seconds "$2" >"$2.txt"
    times=$(sed 's/^\[[0-9]*\.0*\([0-9]*[0-9]\)\].*/\1/' "$2.txt" | tr '\n' ' ')
    echo "$1: ${times% }"
    test "${times% }" = "$5" || changed=1
}
show "1 GHz, since 1970" nanoseconds 1000000000 0 "0 100 200 300 400 500 600 700"
show "10 MHz, since 1970" ticks 10000000 0 "0 0 256 256 256 256 512 768"
show "10 MHz, origin in the offset" offset 10000000 1795910400 "0 100 200 300 400 500 600 700"
if [ "$changed" -ne 0 ]; then
    echo "the behaviour has changed" >&2
    exit 1
fi
