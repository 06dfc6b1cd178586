"""The verbs of the command line: each signature gives the flags; underscores and dashes are one.

A verb parses and calls: the work is done by a function of `pipeline` or `errands`. The flags of the published scripts
are among them, so their command lines work with only the script's name replaced.
"""
