"""Files and the network: read with checks, written whole or not at all."""
