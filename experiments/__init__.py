"""Questions put to recurrent networks, one per module; `python -m experiments --list` names them.

An experiment is a module that holds

    a docstring                        the question in its first line; then the exact command, the time that it takes on
                                       two cores, and the number to expect
    Config                             frozen dataclass: tuples that span the grid, and scalars
    PRESETS: dict[str, Config]         smoke (seconds), laptop (minutes), paper (an accelerator)
    Point                              frozen dataclass of scalars: all that the numbers of one point depend on
    grid(config) -> list[Point]        the points, in the order in which they are computed
    run(point) -> xarray.Dataset       one point; every variable has `units` and `long_name`

The runner stores each point under a hash of its fields, so presets share points and a wider grid reuses what is there.
"""
