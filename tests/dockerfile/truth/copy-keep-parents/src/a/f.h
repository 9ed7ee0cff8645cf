fh
