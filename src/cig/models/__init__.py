"""Networks: CLIP and other dual encoders, textual inversion, captioners."""
