"""Figures of the paper: one module per figure, `draw(summary) -> Figure`, from a committed summary alone.

A figure draws what it is given and computes no statistic. How all of them look is set in `style`.
"""
