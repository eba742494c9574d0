"""The formats of exports: their names, and what each writes, in one line.

Nothing is imported here, so that the command line can list them at once.
"""

FILES = {  # one file, or standard output
    "csv": "a table for spreadsheets, with a row for each image",
    "jsonl": "a JSON object on a line for each image",
    "coco": "COCO's results, as its evaluation reads them",
    "opensearch": "the _bulk lines of OpenSearch and Elasticsearch",
}
FOLDERS = {  # to a folder, which must be given
    "html": "missing alt attributes in the pages of a site",
    "hf": "metadata.csv in a folder of images, for Hugging Face's datasets",
    "webdataset": "tar archives of images and texts",
}
BESIDE = {  # beside each image, or below a folder
    "txt": "photo.txt beside photo.jpg, for training tools",
    "xmp": "the IPTC alt text in photo.jpg.xmp beside photo.jpg",
}
FORMATS = {**FILES, **FOLDERS, **BESIDE}
