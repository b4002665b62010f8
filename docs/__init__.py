"""What the pages of this folder say in numbers, computed: `python -m docs.cell_facts`."""
