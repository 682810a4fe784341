"""Processes that die with the one that started them."""

import sys

# In the child itself: Python code between fork and exec crashes now and then where the parent has
# threads of gRPC.
LEASHED = (
    sys.executable,
    "-c",
    "import ctypes, os, sys\n"
    "if sys.platform == 'linux':\n"
    "    ctypes.CDLL(None).prctl(1, 15)  # PR_SET_PDEATHSIG, SIGTERM\n"
    "os.execv(sys.argv[1], sys.argv[1:])",
)
"""What goes before a command whose program is given by its path."""
