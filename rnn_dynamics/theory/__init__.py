"""Closed forms and mean-field predictions, to lay beside what is measured."""
