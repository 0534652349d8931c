"""Snakemake, begun without looking for garbage: its imports and a plan make many objects and hardly
any garbage, and to look through them takes half of the time that it needs to start. The workflow
turns it on before the first job. Imports no torch.
"""

from __future__ import annotations

import gc
import os
from importlib import import_module

if __name__ == "__main__":
    gc.disable()
    try:
        import_module("snakemake.cli").main()
    except KeyboardInterrupt:  # while it plans; `./run` says that it was stopped
        os._exit(130)
    finally:
        gc.freeze()  # the end of the process frees all of it
