"""What every suite stands on: brokers, processes, a raw client, stock clients, rows."""
