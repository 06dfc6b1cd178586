"""The HTTP service over an index: `cig serve`. `app` has the routes; every other file has one job of theirs."""
