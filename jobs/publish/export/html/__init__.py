"""Missing alt attributes in a site's pages, filled without a change to any other byte."""
