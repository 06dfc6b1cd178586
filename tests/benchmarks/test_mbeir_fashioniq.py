"""M-BEIR's FashionIQ: what test_mbeir_cirr.py says of both; here the small one for the contract."""

import test_mbeir_cirr


def make(home):
    return test_mbeir_cirr.make(home, "fashioniq")
