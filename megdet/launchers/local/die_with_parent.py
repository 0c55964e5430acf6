"""`python die_with_parent.py PARENT COMMAND ...` becomes COMMAND, which the kernel kills when its parent is gone.

Only Linux can do this. A program of its own and no `preexec_fn`: a launcher with threads may not run Python
between fork and exec.
"""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # gone before the call above
            sys.exit(1)
    os.execvp(command[0], command)
