"""python -m cig"""

from cig.cli import main

main()
