"""From results to the numbers that figures show: one module per experiment, `summarise(datasets) -> DataFrame`.

A summary is a small table that a person can read and `git diff`, one row per number:

    series columns (network, stage, ...)   which curve
    quantity, units                        what
    x                                      where on the curve: horizon, lag, gain, ...; empty for a single number
    mean, error                            over seeds: mean and its standard error; inf or NaN if one seed's value is
    count, finite                          number of seeds, and of those whose value is finite

Beside NAME.csv lies NAME.json: what made the results behind it.
"""
