"""The images of one partition -> rows; knows no Dask."""
