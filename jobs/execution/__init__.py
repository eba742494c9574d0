"""The execution of a run on Dask."""
