"""How well is training-serving skew seen? Faults x share of the rows x clean windows, on the flights.

    python -m benchmarks.skewbench [--quick] [--json] [--real] [--peers]

    world.py     sources, bundle, snapshot, model; and windows of honest traffic over them
    faults/      what goes wrong: knows the data, and no detector
    ours.py      the guard, asked as a user would: a log on the disk, `guard(...)`
    clean.py     windows in which nothing is wrong, however different they look
    peers.py     distribution tests, and the tools that bring their own
    chain.py     the same faults through the real chain: online store, service, HTTP, log
    figures.py   what it comes to

docs/skewbench.md says what is measured how, and carries the table.
"""
