"""SASL as stock clients and brokers see it."""
