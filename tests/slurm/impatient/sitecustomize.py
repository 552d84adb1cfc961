"""Snakemake asks each second how its jobs are; its Slurm executor would wait ten seconds longer each time.

Python imports this at its start where a test of this folder sets PYTHONPATH.
"""

import sys

if any(word.endswith("snakemake") for word in sys.orig_argv[:3]):
    import asyncio

    from snakemake_interface_executor_plugins.executors.remote import RemoteExecutor

    async def sleep(self) -> None:
        await asyncio.sleep(1)

    RemoteExecutor.sleep = sleep
