"""Where `./inv` begins. What is imported from here is compiled once; a program that is run, at each start."""

import gc
import os
import signal
import sys
from pathlib import Path

gc.set_threshold(100000)  # objects: what is imported stays; looking for cycles in it is a fifth of a short run
for one in (signal.SIGINT, signal.SIGTERM):  # Ctrl-C during the start is no traceback either
    signal.signal(one, lambda *_: os._exit(130))
sys.path[0] = str(Path(__file__).resolve().parent.parent)  # instead of this folder

from tasks import main

main()
