"""Side-by-side timings against peers, each with its floor: `python -m benchmarks.NAME`, or `python -m benchmarks` for all.

Each writes `tables/NAME.csv`, and the machine and versions behind it to `tables/NAME.json`.
"""
