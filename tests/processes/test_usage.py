"""What processes take of the machine."""

import subprocess
import sys

from msgflo.processes.usage import usage_of

CHILD = """
import subprocess, sys, time
end = time.process_time() + 0.3
while time.process_time() < end: pass
held = bytearray(30_000_000)
child = subprocess.Popen([sys.executable, "-c", "print(1, flush=True); input()"], stdin=-1)
print("ready", flush=True)
input()
"""


def test_a_session_is_counted_whole_and_no_other():
    with subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stdout is not None
            assert {process.stdout.readline(), process.stdout.readline()} == {"ready\n", "1\n"}
            found = usage_of([process.pid])
            assert found.keys() == {process.pid}
            it = found[process.pid]
            assert it.processes == 2
            assert 0.2 < it.cpu < 30
            assert 35_000_000 < it.memory < 500_000_000
        finally:
            process.kill()
            process.communicate()
    assert usage_of([process.pid]) == {}
    assert usage_of([]) == {}
