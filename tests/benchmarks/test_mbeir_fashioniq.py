"""M-BEIR's FashionIQ: what test_mbeir_cirr.py says of both; here the small one for the contract."""


def make(home):
    from test_mbeir_cirr import make as make_either  # beside this file, which the contract puts on the path

    return make_either(home, "fashioniq")
