"""From results to the numbers that figures show: one module per experiment, `summarise(datasets) -> DataFrame`.

A summary is a small table that a person can read and `git diff`, one row per number:

    series columns (network, stage, ...)   which curve
    quantity, units                        what
    x                                      where on the curve: horizon, lag, gain, ...; empty for a single number
    mean, error, count                     over seeds: mean, its standard error, number of seeds

Beside NAME.csv lies NAME.json: what made the results behind it.
"""
