"""Peers that bring their own versions of everything: each runs in an environment of its own, as a plain script.

    for peer in evidently nannyml tfdv; do
        python -m venv build/bench/peers/$peer
        build/bench/peers/$peer/bin/pip install -r benchmarks/skewbench/outside/$peer.txt
    done

A script gets a file of jobs (pairs of Parquet files, reference and current) and prints a line of JSON for each: the
columns that alarm under the tool's defaults, and the seconds that took.
"""
