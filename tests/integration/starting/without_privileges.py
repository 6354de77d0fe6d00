"""Become another command that must obey the permissions of files, also as the superuser.

``python without_privileges.py COMMAND [ARGUMENT...]``. A superuser without the capability
CAP_DAC_OVERRIDE is an owner like any other (Linux: capabilities(7)).
"""

import ctypes
import os
import sys

PR_CAPBSET_DROP = 24
CAP_DAC_OVERRIDE = 1

PATH = __file__


def main() -> None:
    libc = ctypes.CDLL(None)
    if os.geteuid() == 0 and libc.prctl(PR_CAPBSET_DROP, CAP_DAC_OVERRIDE, 0, 0, 0):
        raise SystemExit("cannot drop CAP_DAC_OVERRIDE")
    os.execvp(sys.argv[1], sys.argv[1:])  # noqa: S606 - no shell is wanted


if __name__ == "__main__":
    main()
