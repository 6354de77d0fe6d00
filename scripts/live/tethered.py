"""Become another command that cannot outlive the process that started it.

``python -I -S tethered.py PARENT_PID COMMAND [ARGUMENT...]`` asks the kernel
(Linux: ``PR_SET_PDEATHSIG``) to SIGKILL this process when its parent dies, and
then becomes COMMAND: same pid, and the wish survives ``exec``.

Why a program and not ``preexec_fn``: that runs Python between fork and exec,
which can deadlock as soon as the parent has threads, and ours has some (the
mail catcher, the demo's population).

It is run by its path, imports nothing of ours and is over in milliseconds.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main() -> None:
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL), 0, 0, 0)
        if os.getppid() != parent:  # it died before the kernel knew our wish
            raise SystemExit(1)
    os.execv(command[0], command)  # noqa: S606 - without a shell: just so


main()
