"""What a process of a test imports first, with this folder on its path: snakemake asks SLURM for
its jobs each second. By itself the plugin waits ten seconds longer each time that none has ended,
longer than a job of a test takes."""

import sys

if "bench.runtime.planner" in sys.orig_argv:
    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    RemoteExecutor.next_seconds_between_status_checks = property(
        lambda executor: 1, lambda executor, seconds: None
    )
