"""Gradient dynamics in recurrent networks: cells, layers, and what their state Jacobians do."""
