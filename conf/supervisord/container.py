"""supervisord in a container: when a program has become FATAL, all of it ends, with status 1.

    container.py run CONFIG      runs supervisord in this process
    container.py listen          is the event listener of container.conf (supervisor's events protocol)
"""

import os
import signal
import sys
import tempfile

# Names the file in which the listener leaves the names of fatal programs.
MARKER = "SUPERVISOR_FATAL_MARKER"


def run(config):
    from supervisor import supervisord

    with tempfile.TemporaryDirectory() as folder:
        marker = os.environ[MARKER] = os.path.join(folder, "fatal")
        try:
            supervisord.main(["--nodaemon", "--configuration", config])
        finally:
            fatal = os.path.exists(marker)
    sys.exit(1 if fatal else 0)


def listen():
    while True:
        say("READY\n")
        line = sys.stdin.readline()
        if not line:
            return
        header = dict(word.split(":", 1) for word in line.split())
        payload = sys.stdin.read(int(header["len"]))
        with open(os.environ[MARKER], "a") as marker:
            marker.write(payload + "\n")
        # supervisord stops its other programs in order, and ends.
        os.kill(os.getppid(), signal.SIGTERM)
        say("RESULT 2\nOK")


def say(text):
    sys.stdout.write(text)
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1:2] == ["listen"]:
        listen()
    elif sys.argv[1:2] == ["run"] and len(sys.argv) == 3:
        run(sys.argv[2])
    else:
        sys.exit(__doc__)
