"""Side-by-side measurements against peers, each with its floor.

`python -m benchmarks.NAME` runs one, `python -m benchmarks` all; they need the extra `bench`. Each writes
`tables/NAME.csv`, and the machine and versions behind it to `tables/NAME.json`.
"""
