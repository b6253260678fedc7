"""Point in time: ours beside the best formulations and Feast's own stores, on the same files.

    python -m benchmarks.pit [--quick] [--case NAME ...] [--rounds 5]
    python -m benchmarks.pit --table FILE

One file per contestant: `prepare(task)` does what is not timed and returns what is, a function that reads the Parquet
of the task and writes one answer per ask, in order. See docs/benchmarks.md.
"""
