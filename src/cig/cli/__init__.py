"""The verbs of the command line: each signature gives the flags; underscores and dashes are one.

A verb parses and calls: a function of `cig.pipelines`, `cig.training` or `cig.download` does the work. The flags of the
published scripts are among them, so their command lines work with only the script's name replaced.
"""
