"""From queries and pictures to ranked galleries: features, branches, fusion, exact search."""
