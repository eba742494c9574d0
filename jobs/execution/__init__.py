"""The work of a run on Dask."""
