"""Icons: the embedded corpus of composed retrieval, its drawings, wordings and captions."""
