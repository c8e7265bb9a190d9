"""The command ``edgealloc bench``: suites of cells, resumable sweeps over them, tables and charts."""
