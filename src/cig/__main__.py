"""python -m cig"""

from cig.cli.main import main

main()
