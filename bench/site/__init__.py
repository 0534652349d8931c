"""Published results as a static site: `./run site`.

It reads results/<study>/published alone, so every number on it stands in a committed table. The
layer above report: nothing imports it.
"""
